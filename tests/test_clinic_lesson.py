"""Notebook 10 and the clinic as a whole: what stands in the notebook is the sick code, and every case is complete."""

import re
import runpy
from pathlib import Path

import pytest
import torch

from course_lib.teaching import check, clinic
from course_lib.teaching.clinic.experiments import EXPERIMENTS

LESSON = (Path(__file__).parent.parent / "lessons" / "10_bug_clinic.md").read_text(encoding="utf-8")
CASES = clinic.CASES


def cell_of(name):
    """The notebook's cell in which a case is mended, without its check."""
    cells = re.findall(r"```\{code-cell\} ipython3\n(.*?)```", LESSON, re.DOTALL)
    (cell,) = [cell for cell in cells if f"def {name}(" in cell]
    assert f"\ncheck.{name}({name})\n" in cell
    return cell.replace(f"check.{name}({name})", "")


def test_eight_cases_as_the_syllabus_names_them():
    assert list(CASES) == [
        "leaking_blocks",
        "late_block",
        "forgotten_copy",
        "stale_tail",
        "orphan_hash",
        "double_free",
        "overflow",
        "starving_victim",
    ]
    assert EXPERIMENTS.keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_the_notebook_shows_the_sick_code_and_it_runs_with_what_the_notebook_has(name, tmp_path):
    (tmp_path / "cell.py").write_text(cell_of(name))
    scope = runpy.run_path(str(tmp_path / "cell.py"), {"torch": torch})
    assert CASES[name].judge(scope[name]) == "not attempted"
    case = CASES[name]
    patient = case.admit(scope[name])
    assert case.evidence(patient) == case.evidence(case.admit(case.sick))


@pytest.mark.parametrize("name", CASES)
def test_what_reveal_prints_mends_it(name, capsys):
    check.reveal(name)
    scope = {"torch": torch}
    exec(capsys.readouterr().out, scope)
    assert CASES[name].judge(scope["solution"]) == "passed"


@pytest.mark.parametrize("name", CASES)
def test_an_experiment_gives_a_number_that_its_question_does_not_name(name):
    asked = EXPERIMENTS[name]
    found = asked.run()
    assert found > 0 and asked.question.endswith(("?", ".)"))
    assert not re.search(rf"(?<![\d,]){found}(?![\d,])", asked.question)


def test_a_case_is_admitted_diagnosed_and_mended_as_in_the_notebook(capsys):
    patient = clinic.admit("leaking_blocks")
    case = CASES["leaking_blocks"]
    told = capsys.readouterr().out
    assert case.title in told and all(cause.claim.split()[0] in told for cause in case.causes.values())
    clinic.diagnose(
        "leaking_blocks", "c", case.evidence(patient), "who hangs up while running keeps the blocks"
    )
    assert capsys.readouterr().out.startswith("✓ leaking_blocks: c, and the evidence fits.")
    check.leaking_blocks(case.solution)
    check.progress()
    told = capsys.readouterr().out
    assert re.search(r"✓ leaking_blocks .*1 try, diagnosed", told)
    with pytest.raises(ValueError, match="no case 'leak'; there are: leaking_blocks"):
        clinic.admit("leak")


def test_an_experiment_tells_nothing_before_a_prediction(capsys):
    clinic.experiment("double_free")
    told = capsys.readouterr().out
    assert "stand in the free list" in told and "commit to a number first" in told
    assert "measured" not in told
    clinic.experiment("double_free", 6)
    assert "measured 6 blocks stand there twice, you said 6: right" in capsys.readouterr().out
