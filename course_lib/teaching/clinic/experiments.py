"""An experiment for each case: who has the right cause in mind can say what it gives before it is run."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from course_lib.teaching.clinic import (
    double_free,
    forgotten_copy,
    late_block,
    leaking_blocks,
    orphan_hash,
    overflow,
    stale_tail,
    starving_victim,
)
from course_lib.teaching.clinic.hearing import first_wrong_word


@dataclass(frozen=True)
class Experiment:
    """A question to the sick engine, and how it is answered."""

    question: str
    unit: str
    run: Callable[[], int]
    why: str  # told after the number


def a_fourth_day() -> int:
    patient = leaking_blocks.admit(leaking_blocks.sick)
    before = len(patient.ticks[-1].lost)
    for name, prompt in leaking_blocks.PROMPTS.items():
        patient.ask(name, prompt, 14)
    patient.run(6)
    for name in ("dot", "bob", "cid"):
        patient.hang_up(name)
    patient.run()
    return len(patient.ticks[-1].lost) - before


def thirty_one_words() -> int:
    patient = late_block.admit(late_block.sick)
    patient.ask("kim", " ".join(["red", "tea"] * 15 + ["please"]), late_block.NUM_WORDS)
    patient.run()
    return len(patient.said("kim").split())


SEED = 2  # four different dishes


def four_answers() -> int:
    patient = forgotten_copy.admit(forgotten_copy.sick)
    patient.ask(
        "fay", forgotten_copy.ORDERS["ann"], forgotten_copy.NUM_WORDS, n=4, temperature=1.0, seed=SEED
    )
    patient.run()
    answers = [patient.said("fay", sample).split() for sample in range(4)]
    return sum(answer[0] != answer[8] for answer in answers)


def without_nan() -> int:
    patient = stale_tail.admit(stale_tail.sick, spoiled=False)
    prompts, count = stale_tail.AFTERNOON, stale_tail.NUM_WORDS
    return sum(first_wrong_word(patient, name, prompt, count) is not None for name, prompt in prompts.items())


def two_texts_in_one() -> int:
    patient = orphan_hash.admit(orphan_hash.sick)
    words = orphan_hash.PROMPTS["cid"].split()[:4] + orphan_hash.PROMPTS["bob"].split()
    return patient.engine.generate([" ".join(words)])[0].num_cached_tokens


def twice_free() -> int:
    patient = double_free.make_patient(double_free.sick, num_blocks=double_free.NUM_BLOCKS)
    patient.ask("ann", double_free.PROMPTS["ann"], 16)
    patient.ask("bob", double_free.PROMPTS["bob"], 24)
    patient.run(16)
    patient.hang_up("ann")
    free = patient.engine.allocator.pool.free_blocks()
    return len(free) - len(set(free))


def larger_blocks() -> int:
    begins = overflow.sick(torch.arange(800_000, dtype=torch.int32), 32, 4, 48)
    return int((begins < 0).nonzero()[0])


def answers_with_the_last_come() -> int:
    return len(starving_victim.admit(starving_victim.solution).finished)


EXPERIMENTS = {
    "leaking_blocks": Experiment(
        "On a fourth day bob and cid hang up in the middle. How many blocks are lost on that day?",
        "blocks lost",
        a_fourth_day,
        "each held four when they hung up; dot still waited, and held none.",
    ),
    "late_block": Experiment(
        "Now a prompt of 31 words is sent. How many of her three words is its user told?",
        "words told",
        thirty_one_words,
        "she is told words 32 and 33; then word 33 itself needs a slot, the first of a fifth block.",
    ),
    "forgotten_copy": Experiment(
        "fay sends ann's prompt and asks for four answers. How many of the four change their dish?",
        "answers change their dish",
        four_answers,
        "all four write into one block, and the last to write wins; whoever drew another dish than that one changes.",
    ),
    "stale_tail": Experiment(
        "The same day, but gus' numbers are sound: no NaN anywhere. Of how many of the five of the afternoon is a word "
        "wrong all the same?",
        "of five are told something wrong",
        without_nan,
        "sound keys of somebody else are looked at, too. NaN made it visible; it did not cause it.",
    ),
    "orphan_hash": Experiment(
        "ivy sends the first four words of cid's prompt, and behind them bob's twelve. How many of her sixteen words "
        "are taken from the cache? (A healthy one takes four.)",
        "words taken from the cache",
        two_texts_in_one,
        "cid's first block, and two of bob's in another place: a block is found by its own four words alone.",
    ),
    "double_free": Experiment(
        "ann has closed her window, and nobody has asked since. How many blocks stand in the free list twice?",
        "blocks stand there twice",
        twice_free,
        "all that ann had: 23 words with keys and values, in blocks of four.",
    ),
    "overflow": Experiment(
        "The machine is started again with blocks of 32 tokens. From which of its blocks on is all read wrongly?",
        "is the first",
        larger_blocks,
        "2**31 / (32 x 4 x 48) = 349,525.3: half of 699,050.7, for a block has twice the numbers.",
    ),
    "starving_victim": Experiment(
        "The same day, but the last come is thrown out. How many answers does the machine give then? (24 before.)",
        "answers",
        answers_with_the_last_come,
        "whenever gus was thrown out, all his tokens had to be computed anew: half of the day's work was done twice.",
    ),
}
