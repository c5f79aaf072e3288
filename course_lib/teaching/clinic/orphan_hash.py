"""A cached block is found by its own tokens alone, whatever stood before them in its text."""

import itertools

from course_lib.memory import BlockPool, PagedAllocator
from course_lib.memory.block_pool import CachedBlock
from course_lib.serving import LLMEngine
from course_lib.serving.stores import BlockStore
from course_lib.teaching.clinic.case import Case, Cause, Trial
from course_lib.teaching.clinic.hearing import misheard, transcript
from course_lib.teaching.clinic.ward import Patient, make_engine


def sick(parent_key, text, start, stop):
    """The key of a full block, which holds text[start:stop]: a block with the same key is used in its place.

    parent_key is the key of the block before it, None for the first; text is a list of tokens.
    """
    return hash(tuple(text[start:stop]))


def solution(parent_key, text, start, stop):
    """The key of a full block, which holds text[start:stop]: a block with the same key is used in its place.

    parent_key is the key of the block before it, None for the first; text is a list of tokens.
    """
    return hash((parent_key, tuple(text[start:stop])))


def make_patient(block_key, **settings) -> Patient:
    """An engine whose prefix cache knows blocks by the given key, and compares nothing else after a hit."""

    class Pool(BlockPool):
        text, next_block = (), 0  # what is looked up or remembered now

        def key(self, parent):
            start = self.next_block * self.block_size
            self.next_block += 1
            parent_key = None if parent is None else parent.block_hash
            return block_key(parent_key, list(self.text), start, start + self.block_size)

        def lookup(self, parent, token_ids):
            return self._by_hash.get(self.key(parent))

        def remember(self, block_id, parent, token_ids):
            key = self.key(parent)
            if key not in self._by_hash:
                record = CachedBlock(block_id, token_ids, key, None, self._num_serials)
                self._num_serials += 1
                self._by_hash[key] = self._by_block[block_id] = record
            return self._by_hash[key]

    class Allocator(PagedAllocator):
        def __init__(self, num_slots, block_size):
            super().__init__(num_slots, block_size, enable_prefix_caching=True)
            self.pool = Pool(self.pool.num_blocks, block_size, enable_prefix_caching=True)

        def admit(self, key, request, num_tokens, token_ids=None):
            self.pool.text, self.pool.next_block = token_ids[:num_tokens], 0
            return super().admit(key, request, num_tokens, token_ids)

        def remember(self, key, token_ids):
            self.pool.text, self.pool.next_block = token_ids, len(self.tables[key]._records)
            super().remember(key, token_ids)

    class Engine(LLMEngine):
        def __init__(self, model, tokenizer, **arguments):
            super().__init__(model, tokenizer, enable_prefix_caching=True, **arguments)
            pool = self.allocator.pool
            self.allocator = self.scheduler.allocator = Allocator(self.allocator.num_slots, pool.block_size)
            where = dict(dtype=model.dtype, device=model.device)
            self.store = BlockStore(model.config, self.allocator, "torch", **where)

    return Patient(make_engine(kind=Engine, **settings))


PROMPTS = {
    "cid": "cid sees the blue river in the garden",
    "dot": "dot keeps your letter in our black book",
    "ann": "ann asks today : please answer in one for a short sentence",
    "bob": "please answer in one short sentence for bob and copy the key",
    "eve": "ann asks today : please answer in one for eve and kim",
    "fay": "for a short sentence fay needs the old key we copy here",
    "gus": "cid sees the blue river in the garden with me today :",
    "hal": "in our black book read page ten of the short one today",
}
NUM_WORDS = 12


def admit(block_key) -> Patient:
    """Eight users come one after another, and all run together for a while."""
    patient = make_patient(block_key, num_blocks=64)
    for name, prompt in PROMPTS.items():
        patient.ask(name, prompt, NUM_WORDS)
        patient.run(1)
    patient.run()
    return patient


def block_in_two_places(patient: Patient) -> int:
    """The block with which bob's table begins, and which stands elsewhere in another's."""
    return next(tick.tables["bob"][0] for tick in patient.ticks if "bob" in tick.tables)


# -- trials ---------------------------------------------------------------------------------------------------


def a_day(block_key) -> str | None:
    return misheard(admit(block_key), PROMPTS, NUM_WORDS)


def first_tables(patient: Patient, num_blocks: dict[str, int]) -> dict[str, list[int]]:
    """Of each user, the first so many blocks, as they were after the first step."""
    tables = {}
    for tick in patient.ticks:
        for name, blocks in tick.tables.items():
            tables.setdefault(name, blocks[: num_blocks[name]])
    return tables


LINES = {"a": "ann likes red tea", "b": "bob keeps one book"}


def other_beginnings(block_key) -> str | None:
    patient = make_patient(block_key, num_blocks=512)
    texts = ["".join(order) for order in itertools.product(LINES, repeat=6)]
    for text in texts:  # one after another
        patient.ask(text, " ".join([*map(LINES.get, text), "end"]), 2)
        patient.run()
    if patient.crash:
        return f"it crashes: {patient.crash}"
    holds = {}  # block -> the text up to its end, as it was computed
    for text, blocks in first_tables(patient, dict.fromkeys(texts, 6)).items():
        for index, block in enumerate(blocks):
            computed, wanted = holds.setdefault(block, text[: index + 1]), text[: index + 1]
            if computed != wanted:
                lines = ", ".join(f"{letter} is “{line}”" for letter, line in LINES.items())
                return (
                    f"block {block} was computed as the end of {computed}, and now it stands for the end of "
                    f"{wanted} ({lines})"
                )
    return None


def shared_by(block_key, first: str, second: str) -> "int | str":
    """How many blocks a second prompt takes over from a first, or what went wrong."""
    patient = make_patient(block_key, num_blocks=64)
    for name, prompt in (("ann", first), ("bob", second)):
        patient.ask(name, prompt, 8)
        patient.run()
    if patient.crash:
        return f"it crashes: {patient.crash}"
    full = {"ann": len(first.split()) // 4, "bob": len(second.split()) // 4}
    tables = first_tables(patient, full)
    return len(set(tables["ann"]) & set(tables["bob"]))


START = "please answer in one short sentence only : "


def the_same_again(block_key) -> str | None:
    prompt = START + "bob says the house is not here"
    shared = shared_by(block_key, prompt, prompt)
    return (
        None if shared == 3 else f"of a prompt that was there before, {shared} blocks are found again, not 3"
    )


def the_same_beginning(block_key) -> str | None:
    for rest in ("ann likes tea", "ann", "ann likes tea and bob likes milk"):
        shared = shared_by(block_key, START + "bob says the house", START + rest)
        if shared != 2:
            return f"two prompts have the same first 8 words, and share {shared} blocks, not 2"
    return None


CASE = Case(
    name="orphan_hash",
    title="Fluent, and not what was asked",
    minutes=8,
    difficulty="medium",
    ticket="Prefix caching was switched on yesterday. Hits are more frequent than we had hoped. Since "
    "then three of eight users in our test are given answers that are fluent and wrong: words of their "
    "own prompt, in the wrong places, the same wrong answer each time. cid, dot, ann, eve and gus are "
    "answered well, and eve and gus do take blocks from the cache. With the cache off, or in a fresh "
    "engine, bob, fay and hal are answered well, too.",
    causes={
        "a": Cause(
            "A collision: by accident two different blocks have the same hash.",
            "The block that bob takes over holds the very words with which his prompt begins. A collision "
            "would bring him other words; and three in a day, of 64 bits, is no accident.",
        ),
        "b": Cause(
            "Cached blocks are handed out anew and written over, and are still found by what they held.",
            "The pool never runs low: patient.log() shows dozens of free blocks in every step, and these "
            "are taken first.",
        ),
        "c": Cause(
            "Somebody writes into a block that others share.",
            "Only full blocks are shared, and a full block is never written again. ann has the same block "
            "as bob to the end, and all her words are right.",
        ),
        "d": Cause(
            "A block is taken over that holds the right words, computed in another place of another text.",
            "bob's table begins with a block that stands second in ann's. Its keys are turned for the "
            "places 4 to 7. eve has it second, after the same words as ann, and is answered well.",
        ),
    },
    cause="d",
    asks="the number of the block that ann, bob and eve all have while they run together",
    evidence=block_in_two_places,
    where="patient.tables(step) in a step in which ann, bob and eve run: look for a block that is in "
    "several tables, and at which place in each. patient.block(number) tells who has it",
    points=(
        "what a block holds depends on all that came before: keys on the place, and from the second layer "
        "on keys and values on every word before;",
        "so a key must name the whole text up to the block's end: the parent's key does that in one step;",
        "a hit rate that is too good is a symptom.",
    ),
    sick=sick,
    solution=solution,
    admit=admit,
    shows=lambda patient: transcript(patient, PROMPTS, NUM_WORDS),
    trials=(
        Trial(
            "eight users whose prompts have parts in common",
            a_day,
            "may bob's first block be ann's second? For a hit, what must be equal besides the four words?",
        ),
        Trial(
            "texts of the same two lines in every order",
            other_beginnings,
            "a block may stand for another only if all words before are equal, too, in their order. The "
            "parrot cannot tell: it has one layer. From the second layer on, keys and values depend on "
            "every word before",
        ),
        Trial(
            "the same prompt again",
            the_same_again,
            "equal texts, equal keys: a cache that never hits is right, and useless",
        ),
        Trial(
            "a common beginning, and different ends",
            the_same_beginning,
            "the key of a block must not depend on what comes behind it, nor on the length of the text",
        ),
    ),
    hints=(
        "When may one block stand for another? When its own tokens are equal, and everything before. "
        "Which argument knows what came before?",
        "the key is made of two things together: the key of the block before, and this block's tokens",
        "    return hash((parent_key, tuple(text[start:stop])))",
    ),
    proves="a block is found again exactly where the whole text up to its end is the same.",
)
