"""The bug clinic, second half: stale tail, orphan hash, overflow, starving victim."""

import inspect
import random
import re
import time

import planted_clinic_b as planted
import pytest
import torch

from course_lib.teaching import check
from course_lib.teaching.clinic import orphan_hash, overflow, stale_tail, starving_victim
from course_lib.teaching.clinic.hearing import first_wrong_word, misheard
from course_lib.teaching.clinic.parrot import VOCABULARY, healthy_speech

CASES = {module.CASE.name: module.CASE for module in (stale_tail, orphan_hash, overflow, starving_victim)}
names = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="module")
def patients():
    """Every case with its bug."""
    return {name: case.admit(case.sick) for name, case in CASES.items()}


def answered_wrongly(patient, prompts, num_words):
    return {
        name
        for name, prompt in prompts.items()
        if first_wrong_word(patient, name, prompt, num_words) is not None
    }


# -- all cases ------------------------------------------------------------------------------------------------


@names
def test_the_sick_show_the_symptom_and_the_solution_none(name):
    case = CASES[name]
    begin = time.perf_counter()
    assert case.trials[0].fault(case.sick) is not None
    assert case.judge(case.sick) == case.judge(...) == "not attempted"
    assert case.judge(case.solution) == "passed"
    assert time.perf_counter() - begin < 5
    assert isinstance(case.judge(3), check.Diagnosis)


@pytest.mark.parametrize(
    ("name", "label", "fix", "headline", "got"),
    [(name, *row) for name, rows in planted.WRONG.items() for row in rows],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_wrong_fixes_are_told_what_they_break(name, label, fix, headline, got):
    random.seed(5)
    verdict = CASES[name].judge(fix)
    assert isinstance(verdict, check.Diagnosis), f"{label} passes"
    assert headline in verdict.headline
    assert got in verdict.got
    assert verdict.look_at


@names
def test_two_wrong_fixes_hide_the_symptom_and_every_trial_catches_one(name):
    verdicts = [CASES[name].judge(fix) for _, fix, *_ in planted.WRONG[name]]
    hidden = [verdict for verdict in verdicts if verdict.headline.startswith("the symptom is gone")]
    assert len(verdicts) >= 4 and len(hidden) >= 2
    for trial in CASES[name].trials:
        assert any(verdict.headline.endswith(trial.name) for verdict in verdicts), trial.name


@pytest.mark.parametrize(
    ("name", "fix"),
    [(name, fix) for name, fixes in planted.ALSO_RIGHT.items() for fix in fixes],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_right_fixes_written_another_way_pass(name, fix):
    assert CASES[name].judge(fix) == "passed"


@names
def test_the_code_hint_mends_the_function(name):
    """A line of the hint takes the place of the one that begins as it does, to the `=` or the `return`."""
    case = CASES[name]
    source = inspect.getsource(case.sick)
    for line in case.hints[2].split("\n"):
        start = re.match(r"\s*(return|\w+ =)", line)[0]
        old = next(each for each in source.split("\n") if each.startswith(start))
        source = source.replace(old, line)
    scope = {"torch": torch}
    exec(source, scope)
    assert case.judge(scope["sick"]) == "passed"


@names
def test_the_sick_function_fits_a_cell_and_stands_alone(name):
    """A learner copies it: it names nothing but torch, and has at most 12 lines."""
    sick = CASES[name].sick
    assert len(inspect.getsource(sick).rstrip().split("\n")) <= 12
    assert set(inspect.getclosurevars(sick).globals) <= {"torch"}
    assert all(len(line) <= 110 for line in inspect.getsource(sick).split("\n"))


@names
def test_diagnoses(name, patients, capsys):
    case = CASES[name]
    truth = case.evidence(patients[name])
    said = "it reads what is not its own"
    for letter, cause in case.causes.items():
        case.diagnose(letter, truth, said)
        out = capsys.readouterr().out
        assert cause.speaks_against.split(".")[0] in out
        assert out.startswith("✓" if letter == case.cause else "✗")
    case.diagnose(case.cause, truth + 1, said)
    assert "A guess is no diagnosis" in capsys.readouterr().out
    case.diagnose(case.cause, because=said)
    assert "no evidence" in capsys.readouterr().out
    assert sorted(case.causes) == list("abcd")


@names
def test_the_ticket_gives_nothing_away(name, patients):
    """Neither ticket, question nor wrong causes hold the evidence."""
    case = CASES[name]
    shown = [case.ticket, case.asks, case.where, case.shows(patients[name])]
    shown += [
        text
        for letter, cause in case.causes.items()
        for text in (cause.claim, cause.speaks_against)[: 1 if letter == case.cause else 2]
    ]
    evidence = str(case.evidence(patients[name]))
    assert not [text for text in shown if re.search(rf"\b{evidence}\b", text)]


@names
def test_patients_are_the_same_each_time(name, patients):
    again = CASES[name].admit(CASES[name].sick)
    assert again.ticks == patients[name].ticks
    assert again.outputs == patients[name].outputs


# -- what the tickets and the causes claim --------------------------------------------------------------------


def test_stale_tail_is_as_told(patients):
    patient, prompts = patients["stale_tail"], stale_tail.MORNING | stale_tail.AFTERNOON
    assert answered_wrongly(patient, prompts, stale_tail.NUM_WORDS) == set(stale_tail.AFTERNOON)
    assert not any(tick.lost or max(tick.ref_counts) > 1 for tick in patient.ticks)
    assert first_wrong_word(patient, "cid", prompts["cid"], stale_tail.NUM_WORDS) == 17
    strange = set(patient.said("dot").split()) - set(prompts["dot"].split())
    assert {"?", "likes", "red"} <= strange
    assert {"likes", "red"} <= set(prompts["ann"].split())
    # in a fresh engine the same prompts are answered well
    for name, prompt in prompts.items():
        fresh = stale_tail.make_patient(stale_tail.sick, num_blocks=16)
        fresh.ask(name, prompt, stale_tail.NUM_WORDS)
        fresh.run()
        assert misheard(fresh, {name: prompt}, stale_tail.NUM_WORDS) is None


def test_stale_tail_evidence_is_seen_with_the_tools(patients, capsys):
    patient, right = patients["stale_tail"], healthy_speech(stale_tail.AFTERNOON["eve"], 18).split()
    said = patient.said("eve").split()
    wrong = next(n for n in range(18) if said[n] != right[n])
    begins = next(tick.step for tick in patient.ticks if "eve" in tick.running)
    patient.tables(begins + wrong)
    line = next(line for line in capsys.readouterr().out.split("\n") if line.startswith("eve"))
    block = int(line.rstrip("]").split()[-1])
    assert block == stale_tail.CASE.evidence(patient)
    patient.block(block)
    assert re.search("named by gus.*\n.*nobody.*\n.*named by eve", capsys.readouterr().out)
    # she got it in that very step
    assert block not in patient.ticks[begins + wrong - 1].tables["eve"]


def test_orphan_hash_is_as_told(patients):
    patient, prompts = patients["orphan_hash"], orphan_hash.PROMPTS
    assert answered_wrongly(patient, prompts, orphan_hash.NUM_WORDS) == {"bob", "fay", "hal"}
    for name in ("bob", "fay", "hal"):
        assert set(patient.said(name).split()) <= set(prompts[name].split())  # words of their own prompt
    assert min(tick.num_free for tick in patient.ticks) >= 24  # dozens
    table = next(tick.tables for tick in patient.ticks if "hal" in tick.tables)
    assert set(table["eve"]) & set(table["ann"]) and set(table["gus"]) & set(table["cid"])
    for name, prompt in prompts.items():
        fresh = orphan_hash.make_patient(orphan_hash.sick, num_blocks=64)
        fresh.ask(name, prompt, orphan_hash.NUM_WORDS)
        fresh.run()
        assert misheard(fresh, {name: prompt}, orphan_hash.NUM_WORDS) is None


def test_orphan_hash_evidence_is_seen_with_the_tools(patients):
    patient = patients["orphan_hash"]
    block = orphan_hash.CASE.evidence(patient)
    together = [tick for tick in patient.ticks if {"ann", "bob", "eve"} <= tick.tables.keys()]
    for tick in together:
        assert set.intersection(*(set(tick.tables[name]) for name in ("ann", "bob", "eve"))) == {block}
    assert [together[0].tables[name].index(block) for name in ("ann", "bob", "eve")] == [1, 0, 1]


def test_a_second_layer_hears_what_stood_before():
    """Why the place is not enough: the same block after other words has other keys and values in layer 1."""
    torch.manual_seed(0)
    words, before = torch.randn(4, 8), torch.randn(2, 4, 8)
    values = []
    for beginning in before:
        text = torch.cat([beginning, words])[:, None]  # [8, 1, 8], at the same places
        values.append(text + stale_tail.attention(text, text, text))  # what layer 1 makes keys and values of
    assert not torch.allclose(values[0][4:], values[1][4:])


def test_overflow_is_as_told(patients):
    patient, prompts = patients["overflow"], overflow.PROMPTS
    assert answered_wrongly(patient, prompts, overflow.NUM_WORDS) == {"eve", "fay", "gus"}
    tables = patient.ticks[0].tables
    assert {name: len(tables[name]) for name in ("hal", "eve", "gus")} == {"hal": 1, "eve": 1, "gus": 2}
    border = overflow.CASE.evidence(patient)
    for name, blocks in tables.items():
        assert (min(blocks) >= border) == (name in ("eve", "fay", "gus"))
        assert (max(blocks) < border) == (name not in ("eve", "fay", "gus"))
    blocks = [block for table in tables.values() for block in table]
    assert len(blocks) == len(set(blocks))
    numbers = 16 * 4 * 48
    assert (
        (overflow.FIRST_BLOCK + border) * numbers > 2**31 - 1 >= (overflow.FIRST_BLOCK + border - 1) * numbers
    )
    assert f"{2**31 / numbers:,.2f}" in overflow.CASE.causes[overflow.CASE.cause].speaks_against
    assert 131_072 * 16 * 8 * 128 == 2**31
    small = overflow.make_patient(overflow.sick, 0, num_blocks=24)
    for name, prompt in prompts.items():
        small.ask(name, prompt, overflow.NUM_WORDS)
    small.run()
    assert misheard(small, prompts, overflow.NUM_WORDS) is None


def test_memory_is_read_at_any_place():
    memory = overflow.Memory(2, 1, 3)
    for block, offset in ((5, 0), (5, 1), (6, 0)):
        memory.write(block, offset, torch.full((1, 3), 10.0 * block + offset))
    assert memory.read(30).flatten().tolist() == [50, 50, 50, 51, 51, 51]
    assert memory.read(34).flatten().tolist() == [51, 51, 60, 60, 60, 0]
    assert memory.read(-1).flatten().tolist() == memory.read(-(2**40)).flatten().tolist() == [0] * 6


def test_starving_victim_is_as_told(patients):
    patient = patients["starving_victim"]
    healthy = starving_victim.admit(starving_victim.solution)
    assert len(patient.ticks) == starving_victim.DAY
    assert "gus" not in patient.finished and "gus" in healthy.finished
    others = set(starving_victim.PROMPTS) - {"gus"}
    assert min(patient.finished.count(name) for name in others) >= 3
    assert 2 * len(patient.finished) <= len(healthy.finished)
    times = [tick.step for tick in patient.ticks if "gus" in tick.preempted]
    assert len(times) >= 0.8 * sum(len(tick.preempted) for tick in patient.ticks)
    assert not any(tick.lost for tick in patient.ticks)
    # after he was thrown out he waits in front, and nobody begins before he is back
    for before, tick in zip(patient.ticks, patient.ticks[1:], strict=False):
        if tick.step > times[0] and "gus" in tick.waiting:
            assert tick.waiting[0] == "gus" and set(tick.running) <= set(before.running)
    beside = {len(tick.running) - 1 for tick in patient.ticks if "gus" in tick.running}
    assert {1, 2, 3} <= beside
    # at night he is done at once
    night = starving_victim.admit(starving_victim.sick)
    night.run(60)
    assert "gus" in night.finished


def test_starving_victim_evidence_is_seen_with_the_tools(patients, capsys):
    patient = patients["starving_victim"]
    patient.log()
    head, *lines = capsys.readouterr().out.rstrip().split("\n")
    # where names fill a column, those to its right are shifted: gus never is, as few run beside him
    seen = sum("gus" in line[head.index("preempted") :] for line in lines)
    assert seen == starving_victim.CASE.evidence(patient) > 8


def test_chance_never_passes():
    """Over these loads somebody who came first is hit, whatever the dice say."""
    for seed in range(30):
        random.seed(seed)
        assert isinstance(starving_victim.CASE.judge(planted.victim_random), check.Diagnosis)


def test_all_words_are_the_parrots():
    for prompts in (
        stale_tail.MORNING | stale_tail.AFTERNOON,
        orphan_hash.PROMPTS,
        overflow.PROMPTS,
        starving_victim.PROMPTS,
    ):
        assert set(" ".join(prompts.values()).split()) <= set(VOCABULARY)
        assert all(len(prompt.split()) >= 8 for prompt in prompts.values())


def test_misheard_tells_what_and_where(patients):
    patient, prompts = patients["overflow"], overflow.PROMPTS
    assert misheard(patient, {"hal": prompts["hal"]}, 4) is None
    assert misheard(patient, {"hal": prompts["hal"]}, 6) == "hal is told 4 words of 6"
    assert misheard(patient, {"eve": prompts["eve"]}, 4) == "eve is told 'tea' as word 1, not 'small'"
