"""The spoken answers: taken from the notebooks, as long as they say, with numbers that the course computes."""

import re
from pathlib import Path

import pytest

from course_lib.teaching import drill, interview, paper, presets
from course_lib.teaching.glossary import NOTEBOOKS

LESSONS = Path(__file__).parent.parent / "lessons"
ANSWERS = interview.load_answers()


def closing(lesson):
    """What a notebook offers to say in an interview, in one line."""
    text = (LESSONS / f"{NOTEBOOKS[lesson]}.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"\*\*Say it in an interview\.\*\*\s+\"(.*?)\"\n", text, re.DOTALL)
    return " ".join(found.split())


@pytest.mark.parametrize(
    "piece", ANSWERS.five_minutes, ids=[f"{n}" for n in range(len(ANSWERS.five_minutes))]
)
def test_the_five_minute_answer_is_what_the_notebooks_say(piece):
    assert piece.say in closing(piece.lesson), f"{piece.lesson} no longer says this: change both"


def test_every_notebook_has_its_part_in_the_five_minutes():
    assert {piece.lesson for piece in ANSWERS.five_minutes} == set(NOTEBOOKS)


def test_lengths_are_what_they_claim():
    assert 0.8 <= interview.minutes(ANSWERS.one_minute) <= 1.2
    assert 4.0 <= interview.minutes(interview.five_minutes()) <= 5.1


def test_all_four_moves_in_their_order():
    moves = [leg.move for leg in ANSWERS.twenty_minutes]
    order = ["problem", "motivation", "mechanism", "real systems"]
    assert [move for move in dict.fromkeys(moves) if move in order] == order
    ends = [leg.until for leg in ANSWERS.twenty_minutes]
    assert ends == sorted(set(ends)) and ends[-1] == 20
    boards = [leg.board for leg in ANSWERS.twenty_minutes]
    assert boards == sorted(boards) and boards[-1] == 8


def test_the_numbers_of_the_one_minute_answer():
    said = ANSWERS.one_minute
    llama = presets.load_presets()[0]["Llama-3.1-8B"]
    kib = llama.kv_bytes(1, bytes_per_number=2) / 1024
    held = [100 * paper.FIG_2[name]["token_states"] for name in ("reserve_max", "reserve_exact", "paged")]
    for phrase in (
        f"{kib:.0f} KiB for an 8B model",
        f"{held[0]:.0f}% of that memory held tokens, and {held[1]:.0f}% even if an oracle told",
        f"attention alone was {100 * paper.FIG_18A[0]:.0f} to {100 * paper.FIG_18A[1]:.0f}% slower",
        f"{held[2]:.0f}% of the memory holds tokens",
        "blocks of, say, 16 tokens",  # the paper's default (7.2)
        "two to four times the throughput",  # the paper's abstract
    ):
        assert phrase in said, phrase
    numerals = set(re.findall(r"\d+", said)) - {"2023"}
    assert numerals == {"128", "8", "20", "38", "16", "96", "26"}, "a number that no line above computes"


def test_wrong_statements_point_to_notebooks_and_use_the_papers_numbers():
    assert len(ANSWERS.wrong) >= 5
    for wrong in ANSWERS.wrong:
        assert wrong.see in NOTEBOOKS, wrong.says
    text = " ".join(wrong.because for wrong in ANSWERS.wrong)
    assert set(re.findall(r"\d+", text)) == {"2023", "20", "26", "8"}  # Fig 18a, FP8


def test_what_is_shown_is_what_is_written():
    assert ANSWERS.one_minute.split(".")[0] in interview.spoken("one minute").data
    shown = interview.spoken("five minutes").data
    assert all(f"<b>{piece.lesson}</b>" in shown for piece in ANSWERS.five_minutes)
    assert interview.twenty_minutes().data.count("<tr><td") == len(ANSWERS.twenty_minutes)
    assert interview.wrong_statements().data.count("<details") == len(ANSWERS.wrong)


def test_the_readme_counts_the_questions_and_the_minutes():
    readme = (LESSONS.parent / "README.md").read_text(encoding="utf-8")
    assert (
        f"has {len(drill.questions())}\nquestions" in readme
        or f"{len(drill.questions())}\nquestions" in readme
    )
    for name in NOTEBOOKS.values():
        lesson = (LESSONS / f"{name}.md").read_text(encoding="utf-8")
        (minutes,) = re.findall(r"^\*(\d+ minutes|As long as you like)", lesson, re.MULTILINE)
        row = next(line for line in readme.splitlines() if f"notebooks/{name}.ipynb" in line)
        assert f"| {minutes.removesuffix(' minutes').lower()} |" in row, f"{name}: {minutes}"
