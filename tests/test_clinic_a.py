"""The bug clinic, first half: leaking blocks, a late block, a forgotten copy, blocks that are freed twice."""

import ast
import inspect
import time

import planted_clinic_a as planted
import pytest

from course_lib.teaching import check
from course_lib.teaching.clinic import double_free, forgotten_copy, late_block, leaking_blocks
from course_lib.teaching.clinic.parrot import PERIOD, healthy_speech
from course_lib.teaching.plots.clinic import pool_map, vitals

MODULES = (leaking_blocks, late_block, forgotten_copy, double_free)
CASES = {module.CASE.name: module.CASE for module in MODULES}
WRONG = [(name, label, fix) for name, fixes in planted.WRONG.items() for label, fix in fixes]
RIGHT = [(name, fix) for name, fixes in planted.ALSO_RIGHT.items() for fix in fixes]
LONGEST_CELL = 15  # lines

STILL, HIDDEN, OTHER = "the symptom is still there", "the symptom is gone", "it breaks something else"
# (case, label) -> part of the headline, which trial, part of what was got, part of where to look
TOLD = {
    ("leaking_blocks", "releases who waits, too"): (OTHER, "hang up", "KeyError", "waits holds nothing"),
    ("leaking_blocks", "frees, and keeps the table"): (HIDDEN, "the others", "nobody runs: 1", "release(key)"),
    ("leaking_blocks", "frees the last block"): (STILL, "hang up", "9 blocks count as used", "finish()"),
    ("leaking_blocks", "the first sample only"): (HIDDEN, "three samples", "4 of their blocks", "a block table"),
    ("leaking_blocks", "cleans up later"): (HIDDEN, "at once", "4 blocks, and 0 are free", "needs them now"),
    ("leaking_blocks", "lets it run"): (HIDDEN, "at once", "4 blocks, and 0 are free", "needs them now"),
    ("leaking_blocks", "restarts everybody"): (HIDDEN, "at once", "4 blocks, and 16 are free", "all that bob"),
    ("leaking_blocks", "a wrong key"): (OTHER, "hang up", "KeyError: 1001, line", "finish()"),
    ("late_block", "a block early"): (HIDDEN, "more than", "32 tokens holds 5 blocks", "less than one block"),
    ("late_block", "one in reserve"): (HIDDEN, "more than", "28 tokens holds 5 blocks", "less than one block"),
    ("late_block", "at the boundary only"): (STILL, "an hour", "10 of 10 die", "7, 8, 9 and 10"),
    ("late_block", "clamps"): (OTHER, "an hour", "freed twice?", "each once"),
    ("late_block", "swallows OutOfBlocks"): (HIDDEN, "the pool holds", "3 of 3 die", "let it through"),
    ("late_block", "clamps when empty"): (HIDDEN, "the pool holds", "freed twice?", "let it through"),
    ("late_block", "a block a token"): (OTHER, "an hour", "0 free of 24", "how many your function takes"),
    ("late_block", "a fixed size"): (HIDDEN, "every length", "blocks of 3: 10 of 10 die", "p // block_size"),
    ("late_block", "a slip of the pen"): (OTHER, "an hour", "'block_size' is not defined, line", "7, 8, 9"),
    ("forgotten_copy", "copies all shared blocks"): (HIDDEN, "more blocks", "9 blocks, and 5", "stay shared"),
    ("forgotten_copy", "copies even alone"): (HIDDEN, "more copies", "4 blocks are copied, 0", "another table"),
    ("forgotten_copy", "copies full blocks"): (HIDDEN, "more blocks", "8 blocks, and 6", "full ones stay shared"),
    ("forgotten_copy", "tells nobody"): (HIDDEN, "every word", "'table' is right", "who tells them"),
    ("forgotten_copy", "copies backwards"): (HIDDEN, "every word", "'table' is right", "who copies"),
    ("forgotten_copy", "frees the new one"): (OTHER, "its dish", "freed twice?", "who else has the block"),
    ("forgotten_copy", "keeps the count"): (HIDDEN, "every count", "count 2, and 0 tables", "pool.free(old)"),
    ("forgotten_copy", "frees too early"): (HIDDEN, "no block is free", "freed twice?", "change nothing before"),
    ("forgotten_copy", "copies if there is room"): (HIDDEN, "no block is free", "ann hears", "OutOfBlocks"),
    ("double_free", "if not in the free list"): (HIDDEN, "another has", "cid hears", "nothing about whose"),
    ("double_free", "if its count is above 0"): (HIDDEN, "another has", "cid hears", "nothing about whose"),
    ("double_free", "never"): (HIDDEN, "an answer is done", "26 blocks free, 0 held", "needs them now"),
    ("double_free", "the second time"): (HIDDEN, "an answer is done", "26 blocks free, 0 held", "window is closed"),
    ("double_free", "removes while it walks"): (HIDDEN, "an answer is done", "29 blocks free", "all of them"),
    ("double_free", "forgets first"): (HIDDEN, "an answer is done", "26 blocks free", "all of them"),
    ("double_free", "a name of its own"): (STILL, "their own words", "cid hears", "still name"),
    ("double_free", "a set"): (STILL, "their own words", "cid hears", "still name"),
    ("double_free", "deletes the list"): (OTHER, "their own words", "no attribute 'block_ids', line", "still name"),
}  # fmt: skip


@pytest.fixture(scope="module")
def patients():
    return {name: case.admit(case.sick) for name, case in CASES.items()}


# -- what every case promises ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_the_fix_passes_and_the_sick_function_is_not_attempted(name):
    case = CASES[name]
    assert case.judge(case.solution) == "passed"
    assert case.judge(...) == "not attempted" and case.judge(case.sick) == "not attempted"
    assert check.run_limited(case.trials[0].fault, [case.sick], 5)[0], "the first trial is the symptom"
    assert "is no function" in case.judge(7).headline


@pytest.mark.parametrize("name", CASES)
def test_the_sick_function_fits_a_cell_and_needs_nothing_around_it(name):
    lines = inspect.getsource(CASES[name].sick).splitlines()
    assert len(lines) <= LONGEST_CELL - 3
    assert inspect.getclosurevars(CASES[name].sick).globals == {}
    assert len(inspect.getsource(CASES[name].solution).splitlines()) <= LONGEST_CELL


@pytest.mark.parametrize("name", CASES)
def test_the_last_hint_mends_it(name):
    """Pasted in place of the lines at its depth that it stands for, the code hint is the fix."""
    case = CASES[name]
    assert len(case.hints) == 3
    source = inspect.getsource(case.solution)
    assert "\n".join(line.rstrip() for line in case.hints[2].splitlines()) in strip_comments(source)


def strip_comments(source):
    return "\n".join(line.split("  #")[0].rstrip() for line in source.splitlines())


@pytest.mark.parametrize(("name", "label", "fix"), WRONG, ids=[f"{n}: {label}" for n, label, _ in WRONG])
def test_a_wrong_fix_is_told_what_it_breaks(name, label, fix):
    verdict = CASES[name].judge(fix)
    assert isinstance(verdict, check.Diagnosis), verdict
    headline, trial, got, look_at = TOLD[name, label]
    assert headline in verdict.headline and trial in verdict.headline, verdict
    assert got in verdict.got and look_at in verdict.look_at, verdict


@pytest.mark.parametrize("name", CASES)
def test_at_least_two_wrong_fixes_hide_the_symptom(name):
    assert {label for label, _ in planted.WRONG[name]} == {label for case, label in TOLD if case == name}
    assert sum(told[0] == HIDDEN for (case, _), told in TOLD.items() if case == name) >= 2


@pytest.mark.parametrize(("name", "fix"), RIGHT, ids=[fix.__name__ for _, fix in RIGHT])
def test_a_right_fix_in_other_words_passes(name, fix):
    assert CASES[name].judge(fix) == "passed"


@pytest.mark.parametrize("name", CASES)
def test_the_right_cause_needs_its_evidence(name, patients, capsys):
    case, because = CASES[name], "it says so in the records of the pool"
    truth = case.evidence(patients[name])
    for evidence in (..., 9999, [9999], (0, 9999)):
        case.diagnose(case.cause, evidence, because)
        assert "A guess is no diagnosis" in capsys.readouterr().out
    case.diagnose(case.cause, truth, "so")
    assert "say why" in capsys.readouterr().out
    case.diagnose(case.cause, truth, because)
    out = capsys.readouterr().out
    assert out.startswith(f"✓ {name}") and all(point.split()[0] in out for point in case.points)


def test_brackets_do_not_matter(patients, capsys):
    for case in (late_block.CASE, double_free.CASE):
        truth = case.evidence(patients[case.name])
        for kind in (list, tuple):
            case.diagnose(case.cause, kind(truth), "it says so in the records")
            assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize("name", CASES)
def test_wrong_causes_are_refused_with_their_sentence(name, patients, capsys):
    case = CASES[name]
    assert len(case.causes) == 4
    for letter in set(case.causes) - {case.cause}:
        case.diagnose(letter, case.evidence(patients[name]), "because I think that it is so")
        out = capsys.readouterr().out
        assert out.startswith(f"✗ {name}") and case.causes[letter].speaks_against in out


@pytest.mark.parametrize("name", CASES)
def test_the_evidence_is_the_same_every_time(name, patients):
    case = CASES[name]
    assert case.evidence(case.admit(case.sick)) == case.evidence(patients[name])


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_quick_and_can_be_drawn(name, patients):
    case, start = CASES[name], time.process_time()
    case.judge(case.solution)
    assert time.process_time() - start < 5
    assert len(vitals(patients[name]).png()) > 10_000 and len(pool_map(patients[name], 1).png()) > 3_000


# -- headlines ------------------------------------------------------------------------------------------------


def test_an_answer_that_never_ends_breaks_something_else(monkeypatch):
    def endless(table, num_tokens):
        while True:
            pass

    monkeypatch.setattr("course_lib.teaching.clinic.case.SECONDS", 0.2)
    verdict = late_block.CASE.judge(endless)
    assert verdict.headline.startswith(OTHER) and "still running" in verdict.got


# -- leaking_blocks -------------------------------------------------------------------------------------------


def test_leaking_free_blocks_fall_from_day_to_day(patients):
    patient = patients["leaking_blocks"]
    quiet = [tick.num_free for tick in patient.ticks if not tick.running and not tick.waiting]
    assert quiet == sorted(quiet, reverse=True) and quiet[0] > quiet[-1]
    assert not patient.crash and patient.wrong_words() is None


def test_leaking_evidence_is_found_by_the_tools(patients, capsys):
    patient = patients["leaking_blocks"]
    patient.log()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    step = next(int(row[0]) for row in rows if int(row[2]))
    patient.tables(step - 1)
    before = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert leaking_blocks.CASE.evidence(patient) == min(ast.literal_eval(before["bob"]))
    patient.block(leaking_blocks.CASE.evidence(patient))
    assert capsys.readouterr().out.splitlines()[-1].endswith("count 1, named by nobody")


# -- late_block -----------------------------------------------------------------------------------------------


def test_late_some_die_and_others_longer_and_shorter_are_answered(patients):
    patient = patients["late_block"]
    died = late_block.died(patient)
    assert set(died.values()) == {"IndexError: list index out of range"}
    lengths = {name: len(prompt.split()) for name, prompt in patient.prompts.items()}
    served = [lengths[name] for name in patient.finished]
    assert len(died) + len(served) == len(lengths) and max(served) == max(lengths.values())
    assert min(lengths.values()) in [lengths[name] for name in died]
    assert patient.wrong_words() is None and max(len(tick.running) for tick in patient.ticks) == 1
    assert min(tick.num_free for tick in patient.ticks) > late_block.BLOCK_SIZE


def test_late_all_died_one_behind_a_full_block(patients, capsys):
    evidence = late_block.CASE.evidence(patients["late_block"])
    assert {length % late_block.BLOCK_SIZE for length in evidence} == {1}
    shown = late_block.CASE.shows(patients["late_block"]).splitlines()[1:]
    dead = [line.split() for line in shown if "IndexError" in line]
    assert evidence == [int(words[1]) + words.index("IndexError:") - 3 for words in dead]


# -- forgotten_copy -------------------------------------------------------------------------------------------


def test_forgotten_one_sample_takes_up_the_others_dish(patients):
    patient = patients["forgotten_copy"]
    for name in forgotten_copy.ORDERS:
        dishes = [patient.said(name, sample).split()[::PERIOD] for sample in range(2)]
        assert dishes[0][0] != dishes[1][0]
        healthy = name == "bob"
        assert (dishes[0][0] == dishes[0][1]) is healthy
        assert dishes[0][1] == dishes[healthy ^ 1][0]
        assert dishes[1][0] == dishes[1][1]
    assert patient.said("eve") == healthy_speech(forgotten_copy.ALONE, forgotten_copy.NUM_WORDS)


def test_forgotten_evidence_is_found_by_the_tools(patients, capsys):
    patient = patients["forgotten_copy"]
    patient.tables(1)
    tables = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    found = []
    for name, order in forgotten_copy.ORDERS.items():
        mine, others = ast.literal_eval(tables[name]), ast.literal_eval(tables[f"{name}/1"])
        entry = len(order.split()) // forgotten_copy.BLOCK_SIZE
        if mine[entry] == others[entry]:
            found.append(mine[entry])
    assert sorted(found) == forgotten_copy.CASE.evidence(patient) and len(found) == 3


# -- double_free ----------------------------------------------------------------------------------------------


def test_double_two_users_hear_each_other(patients):
    patient = patients["double_free"]
    right = {
        name: healthy_speech(prompt, len(patient.said(name).split()))
        for name, prompt in patient.prompts.items()
    }
    wrong = [name for name in right if patient.said(name) != right[name]]
    assert wrong == ["cid", "dot"] and "dot" in patient.said("cid").split()
    assert not patient.crash and not any(tick.preempted for tick in patient.ticks)
    assert min(tick.num_free for tick in patient.ticks) > double_free.NUM_BLOCKS // 2


def test_double_the_pool_has_more_free_blocks_than_it_should(patients):
    patient = patients["double_free"]
    step, block = double_free.CASE.evidence(patient)
    tables = patient.ticks[step].tables
    assert [name for name, blocks in tables.items() if block in blocks] == ["cid", "dot"]
    assert f"In more than one table: {block}" in pool_map(patient, step).alt
    assert "In more than one table: none" in pool_map(patient, step - 1).alt
    assert patient.ticks[-1].num_free > double_free.NUM_BLOCKS
    assert "the pool's own count is not what the tables name" in vitals(patient).alt
