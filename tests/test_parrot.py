"""The parrot of the bug clinic: a healthy engine says what `healthy_speech` says, however it is served."""

import pytest
import torch

from course_lib.teaching.clinic.parrot import (
    DISHES,
    PERIOD,
    VOCABULARY,
    config,
    first_slip,
    healthy_speech,
    parrot,
)
from course_lib.teaching.clinic.ward import Patient, make_engine

WORDS = [word for word in VOCABULARY if word != "?"]


def prompt_of(num_words, first):
    """So many words of the vocabulary, each another, from a place on."""
    return " ".join(WORDS[(first + n) % len(WORDS)] for n in range(num_words))


@pytest.mark.parametrize("block_size", [1, 3, 4, 16])
@pytest.mark.parametrize("num_words", [8, 9, 15, 16, 17, 40])
def test_it_says_what_it_should(num_words, block_size):
    patient = Patient(make_engine(num_blocks=-(-128 // block_size), block_size=block_size))
    patient.ask("ann", prompt_of(num_words, 3), 21)
    patient.run()
    assert patient.said("ann") == healthy_speech(patient.prompts["ann"], 21)
    assert patient.trouble() is None


def test_every_word_is_repeated():
    """Each word of the vocabulary, in prompts that run together."""
    patient = Patient(make_engine(num_blocks=120))
    for number in range(0, len(WORDS), PERIOD):
        patient.ask(WORDS[number], prompt_of(PERIOD, number), PERIOD)
    patient.run()
    assert max(len(tick.running) for tick in patient.ticks) > 10
    for name, prompt in patient.prompts.items():
        assert patient.said(name) == prompt


@pytest.mark.parametrize("budget", [8, 512])
def test_nothing_is_heard_of_preemptions_and_chunks(budget):
    patient = Patient(make_engine(num_blocks=20, max_num_seqs=8, max_num_batched_tokens=budget))
    for number, name in enumerate(["ann", "bob", "cid", "dot", "eve"]):
        patient.ask(name, prompt_of(9 + 4 * number, 11 * number), 25)
    patient.run()
    assert patient.trouble() is None
    assert any(tick.preempted for tick in patient.ticks)
    for name, prompt in patient.prompts.items():
        assert patient.said(name) == healthy_speech(prompt, 25)
    patient.engine.allocator.pool.check([])


def test_far_from_the_beginning_it_is_as_sure():
    patient = Patient(make_engine(num_blocks=128))
    patient.ask("ann", prompt_of(200, 0), 200)
    patient.run()
    assert patient.said("ann") == healthy_speech(patient.prompts["ann"], 200)


def test_samples_differ_in_the_dish_and_keep_it():
    patient = Patient(make_engine(num_blocks=60))
    patient.ask("ann", "ann asks for ? and water and a table for two", 16, n=6, temperature=1.0)
    patient.run()
    dishes = [patient.said("ann", sample).split()[::PERIOD] for sample in range(6)]
    assert all(first == second and first in DISHES for first, second in dishes)
    assert len({first for first, _ in dishes}) > 2
    rest = {" ".join(patient.said("ann", sample).split()[1:PERIOD]) for sample in range(6)}
    assert rest == {"and water and a table for two"}
    assert patient.trouble() is None


def test_a_question_is_never_repeated_as_a_question():
    patient = Patient(make_engine(num_blocks=60))
    patient.ask("ann", "ann asks for ? and bob likes tea", 12)
    patient.run()
    assert "?" not in patient.said("ann") and patient.said("ann").split()[3] in DISHES


def test_an_unknown_word_is_refused():
    patient = Patient(make_engine(num_blocks=8))
    with pytest.raises(ValueError, match="the parrot does not know 'quantum'"):
        patient.ask("ann", "ann likes quantum tea and bob likes milk", 4)
    assert patient.prompts == {} and not patient.engine.has_unfinished()


@pytest.mark.parametrize(
    ("told", "slip"),
    [
        ("", None),
        ("a b c d e f g h a b".replace("h", "soup"), None),
        ("a b x", 2),
        ("a b c d e f g tea", 7),  # no dish where any dish may come
        ("a b c d e f g rice a b c d e f g soup", 15),  # it was rice
    ],
)
def test_first_slip(told, slip):
    assert first_slip("a b c d e f g ?", told) == slip


def test_what_is_wrong_is_said_in_a_sentence():
    patient = Patient(make_engine(num_blocks=60))
    patient.ask("ann", prompt_of(8, 0), 4)
    assert patient.trouble() is not None  # nothing was run
    patient.run()
    assert patient.trouble() is None
    patient.outputs["ann"][0][1] = VOCABULARY.index("soup")
    right = patient.prompts["ann"].split()
    assert (
        f"ann hears 'soup' as word 2, where {right[1]!r} is right: {right[0]} soup ..." == patient.trouble()
    )


def test_a_wrong_block_is_heard():
    """The point of the parrot: damage one slot that is read, and a word changes."""
    patient = Patient(make_engine(num_blocks=16))
    patient.ask("ann", prompt_of(8, 0), 12)
    patient.run(2)
    block = patient.ticks[-1].tables["ann"][0]
    patient.engine.store.values[:, block, 3] = 0  # of position 3, which the fourth word is read from
    patient.run()
    assert first_slip(patient.prompts["ann"], patient.said("ann")) == 3


def test_its_weights_are_written_down():
    """The same every time, with one layer, and a vocabulary in which no word stands twice."""
    one, other = parrot()[0], parrot()[0]
    assert torch.equal(one.embedding, other.embedding) and len(one.layers) == config().num_layers == 1
    assert len(set(VOCABULARY)) == len(VOCABULARY) == one.embedding.shape[0]
