"""The interview drill: its questions, record and spacing, the mock interview, the terminal, the buttons."""

import asyncio
import html
import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import ipywidgets as widgets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.teaching import arithmetic, check, drill, interview
from course_lib.teaching.drill import Card, Interview, Question, Session
from course_lib.teaching.explorers.drill import Clock, mock_interview
from course_lib.teaching.explorers.drill import arithmetic as arithmetic_explorer
from course_lib.teaching.explorers.drill import drill as drill_explorer
from course_lib.teaching.glossary import NOTEBOOKS

ROOT = Path(__file__).resolve().parent.parent
TODAY = date(2026, 3, 2)
ROW = dict(
    id="why_blocks", level="screen", topic="paging", lesson="03", minutes=2, ask="Why blocks?",
    sentence="In short.", paragraph="At length.", depth="With a trap.", problem="Waste.", motivation="Lengths.",
    mechanism="A table.", real="vLLM.",
    follow_ups=[dict(ask="How large?", answer="16."), dict(ask="Why not 1?", answer="Look-ups.")],
)  # fmt: skip


def to_toml(rows: list[dict]) -> str:
    """The rows as a file of questions."""
    lines = []
    for row in rows:
        lines += [
            "[[questions]]",
            *(f"{key} = {json.dumps(value)}" for key, value in row.items() if key != "follow_ups"),
        ]
        for each in row.get("follow_ups", []):
            lines += [
                "[[questions.follow_ups]]",
                *(f"{key} = {json.dumps(value)}" for key, value in each.items()),
            ]
    return "\n".join(lines)


def make_bank(per_pair: int = 2) -> tuple[Question, ...]:
    """So many questions of every level and topic."""
    first = drill._question(ROW)
    pairs = itertools.product(drill.LEVELS, drill.TOPICS, range(per_pair))
    return tuple(
        replace(
            first,
            id=f"{level}_{topic.replace(' ', '_')}_{n}",
            level=level,
            topic=topic,
            ask=f"{level} {topic} {n}?",
        )
        for level, topic, n in pairs
    )


BANK = make_bank()


@pytest.fixture
def file(tmp_path):
    """A file of three questions."""
    path = tmp_path / "questions.toml"
    rows = [
        {**ROW, "id": f"q{n}", "ask": f"Question {n}?", "level": level, "paragraph": "At length. " * 30}
        for n, level in enumerate(drill.LEVELS)
    ]
    path.write_text(to_toml(rows), encoding="utf-8")
    return path


# -- questions ----------------------------------------------------------------------------------------------


def test_questions_are_read_with_their_follow_ups_and_rubric(file):
    first, *others = drill.questions(file)
    assert [each.id for each in (first, *others)] == ["q0", "q1", "q2"]
    assert first.follow_ups[1] == drill.FollowUp("Why not 1?", "Look-ups.")
    assert tuple(first.rubric) == drill.POINTS and first.rubric["real"] == "vLLM."
    with pytest.raises(AttributeError):
        first.ask = "frozen"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(level="easy"), "'why_blocks' has level 'easy': it can be screen, onsite, expert"),
        (dict(topic="gpu"), "'why_blocks' has topic 'gpu': it can be kv cache, .*debugging"),
        (dict(lesson="12"), "has lesson '12': it can be 00, .*11"),
        (dict(minutes=9), "has minutes 9: it can be 1, 2, 3, 4, 5"),
        (dict(depth=" \n"), "has no depth: write it, or take the question out"),
        (dict(follow_ups=ROW["follow_ups"][:1]), "has follow-ups: 1; it takes two, the second one harder"),
        (
            dict(follow_ups=[dict(ask="a?", answer=""), dict(ask="b?", answer="b")]),
            "has no answer of follow-up 1",
        ),
        (dict(follow_ups=[dict(ask="a?", answer="a"), dict(answer="b")]), "has no ask of follow-up 2"),
        (dict(colour="blue"), "has .'colour'.: the keys are"),
        (dict(real=None), "lacks .'real'."),
    ],
)
def test_a_question_that_cannot_be_asked_is_named_with_what_is_wrong(change, message, tmp_path):
    row = {key: value for key, value in {**ROW, **change}.items() if value is not None}
    path = tmp_path / "bad.toml"
    path.write_text(to_toml([{**ROW, "id": "good"}, row]), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        drill.questions(path)


def test_two_questions_of_one_id_are_refused(tmp_path):
    path = tmp_path / "twice.toml"
    path.write_text(to_toml([ROW, ROW]), encoding="utf-8")
    with pytest.raises(ValueError, match="'why_blocks' is there twice: give each an id of its own"):
        drill.questions(path)


def test_the_course_has_questions_for_every_interview():
    if not (ROOT / "course_lib/teaching/questions.toml").exists():
        pytest.skip("questions.toml is not written yet")
    bank = drill.questions()
    assert {each.level for each in bank} == set(drill.LEVELS) and {each.topic for each in bank} == set(
        drill.TOPICS
    )
    for level in drill.LEVELS:
        for stage, (_, _, topics) in zip(drill.mock(level, 0), drill.ROUTES[level], strict=True):
            assert not topics or stage.choices[1].topic in topics, f"{level}: nothing to ask in {stage.name}"


def test_select_narrows_and_says_what_there_is():
    assert {each.topic for each in drill.select(BANK, topic="kernel")} == {"kernel"}
    assert len(drill.select(BANK, "onsite", "kernel")) == 2 and drill.select(BANK) == BANK
    with pytest.raises(ValueError, match="level 'expert' and topic 'kernel'; there are: screen, kv cache$"):
        drill.select(BANK[:1], "expert", "kernel")


# -- spacing ------------------------------------------------------------------------------------------------


def test_what_goes_well_rests_longer_each_time():
    card, day, rests = None, TODAY, []
    for _ in range(5):
        card = drill.answered(card, 5, day)
        rests.append((card.due - day).days)
        day = card.due
    assert rests == [1, 3, 7, 21, 21] and card.times == 5


def test_what_goes_badly_comes_back_today_and_then_tomorrow():
    known = Card(box=4, due=TODAY, times=6, points=5)
    again = drill.answered(known, 1, TODAY)
    assert (again.box, again.due, again.times) == (0, TODAY, 7)
    assert drill.answered(again, 4, TODAY).due == TODAY + timedelta(days=1)
    assert drill.answered(known, 3, TODAY).due == TODAY + timedelta(days=1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), min_size=1, max_size=12))
def test_no_answer_is_ever_lost_and_a_better_one_never_comes_back_sooner(answers):
    card, day = None, TODAY
    for points, later in answers:
        day += timedelta(days=later)
        dues = [drill.answered(card, other, day).due for other in range(6)]
        assert dues == sorted(dues) and dues[0] == day
        card = drill.answered(card, points, day)
        assert day <= card.due <= day + timedelta(days=21) and 0 <= card.box < len(drill.WAIT_DAYS)
    assert card.times == len(answers)


def test_due_are_those_of_today_and_before_the_oldest_first():
    days = {"late": -3, "today": 0, "tomorrow": 1, "bad": 0}
    record = {id: Card(int(id != "bad"), TODAY + timedelta(days=days[id]), 1, 3) for id in days}
    assert drill.due(record, TODAY) == ["late", "bad", "today"]
    assert drill.progress((), record, TODAY).startswith("0 of 0 questions seen, 0 due")


def test_pick_takes_what_is_due_and_mixes_new_ones_in():
    record = {each.id: Card(1, TODAY - timedelta(days=1), 1, 3) for each in BANK[:10]}
    picked = [drill.pick(BANK, record, TODAY, random.Random(seed)).id for seed in range(300)]
    share_due = sum(id in record for id in picked) / len(picked)
    assert 0.55 < share_due < 0.78 and len(set(picked)) > 20
    assert drill.pick(BANK, {}, TODAY, random.Random(7)) == drill.pick(BANK, {}, TODAY, random.Random(7))


def test_pick_without_due_or_new_ones_takes_the_next_to_be_due():
    record = {each.id: Card(2, TODAY + timedelta(days=5 + n), 1, 5) for n, each in enumerate(BANK)}
    record[BANK[4].id] = Card(2, TODAY + timedelta(days=2), 1, 5)
    assert drill.pick(BANK, record, TODAY, random.Random(0)) == BANK[4]


def test_a_bad_answer_comes_back_in_the_session_but_not_at_once():
    session = Session(BANK[:4], random.Random(0))
    first = session.next(TODAY)
    session.score(first, (), TODAY)
    later = []
    for _ in range(8):
        later.append(session.next(TODAY))
        session.score(later[-1], drill.POINTS, TODAY)
    assert first not in later[:2] and first in later
    assert all(a.id != b.id for a, b in itertools.pairwise([first, *later]))


def test_one_question_alone_can_be_asked_again():
    session = Session(BANK[:1], random.Random(0))
    assert session.next(TODAY) == session.next(TODAY) == BANK[0]


# -- the record ---------------------------------------------------------------------------------------------


def record_path() -> Path:
    return check.state_dir() / "drill.json"


def test_a_record_is_kept_from_one_session_to_the_next():
    told = Session(BANK, random.Random(0)).score(BANK[0], ("problem", "real"), TODAY)
    assert told == "2 of 5 points: again tomorrow"
    assert Session(BANK, random.Random(0)).record == {BANK[0].id: Card(1, date(2026, 3, 3), 1, 2)}
    assert [file.name for file in check.state_dir().iterdir()] == ["drill.json"]


def test_two_notebooks_do_not_overwrite_each_other():
    one, other = Session(BANK, random.Random(0)), Session(BANK, random.Random(0))
    one.score(BANK[0], drill.POINTS, TODAY)
    other.score(BANK[1], drill.POINTS, TODAY)
    one.score(BANK[0], drill.POINTS, TODAY)
    assert other.record[BANK[0].id].box == 1, "it has seen the first of the two answers"
    other.score(BANK[0], drill.POINTS, TODAY)
    assert {id: card.box for id, card in drill.load_record().items()} == {BANK[0].id: 3, BANK[1].id: 1}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "[1, 2]", "null", '"a"', "\x00", '{"q": 3, "p": {"box": "x"}}']
)
def test_a_broken_record_begins_anew(text):
    record_path().parent.mkdir(parents=True)
    record_path().write_text(text)
    session = Session(BANK, random.Random(0))
    assert session.record == {}
    session.score(BANK[0], (), TODAY)
    assert list(drill.load_record()) == [BANK[0].id]


def test_of_a_record_that_is_broken_in_part_the_rest_is_kept():
    good = dict(box=2, due="2026-03-05", times=3, points=4)
    bad = [
        dict(good, box=9),
        dict(good, due="soon"),
        dict(good, box=-1),
        dict(box=1),
        None,
        "x",
        dict(good, times=None),
    ]
    record_path().parent.mkdir(parents=True)
    record_path().write_text(json.dumps({"good": good, **{f"bad{n}": entry for n, entry in enumerate(bad)}}))
    assert drill.load_record() == {"good": Card(2, date(2026, 3, 5), 3, 4)}


def test_a_record_that_cannot_be_written_is_said_and_the_session_goes_on(monkeypatch, tmp_path):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("COURSE_STATE_HOME", str(tmp_path / "a file" / "below"))
    session = Session(BANK, random.Random(0))
    assert "(not kept: " in session.score(BANK[0], (), TODAY)
    assert session.record[BANK[0].id].times == 1


# -- the mock interview -------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", drill.LEVELS)
def test_an_interview_takes_twenty_minutes_and_has_all_its_parts(level):
    names = {"opening", "whiteboard", "arithmetic", "mechanism", "debugging", "real systems", "closing"}
    stages = drill.mock(level, 3, BANK)
    assert sum(stage.minutes for stage in stages) == 20
    assert {stage.name for stage in stages} == names and len(stages) == len(names) + 1
    assert stages[0].name == "opening" and stages[-1].name == "closing"
    assert [stage.name for stage in stages].count("mechanism") == 2


def test_levels_take_different_paths():
    asked = {level: drill.mock(level, 3, BANK) for level in drill.LEVELS}
    for level, stages in asked.items():
        planned = [stage.choices[1] for stage in stages if stage.name not in ("opening", "closing")]
        assert {item.level for item in planned} == {level}
    topics = {level: [topics for _, _, topics in route] for level, route in drill.ROUTES.items()}
    assert len({str(each) for each in topics.values()}) == 3


@given(
    st.sampled_from(drill.LEVELS),
    st.integers(0, 999),
    st.lists(st.integers(0, 5), min_size=8, max_size=8),
    st.integers(5, 54),
)
def test_whatever_happens_no_question_comes_twice(level, seed, points, size):
    bank = random.Random(seed).sample(BANK, size)
    interview, asked = Interview(drill.mock(level, seed, bank)), []
    for each in points:
        asked.append(interview.item.ask)
        follow_up = interview.answer(drill.POINTS[:each], 30.0)
        assert (follow_up is None) == (not isinstance(interview.results[-1].item, Question))
    assert interview.stage is None and len(set(asked)) == 8


@pytest.mark.parametrize(
    ("points", "level", "follow_up"), [(5, "expert", 1), (3, "onsite", 0), (0, "screen", 0)]
)
def test_a_good_answer_brings_harder_questions_and_a_bad_one_easier(points, level, follow_up):
    interview = Interview(drill.mock("onsite", 5, BANK))
    said = drill.POINTS[:points]
    assert interview.answer(said, 1.0) == interview.stages[0].choices[1].follow_ups[follow_up]
    assert interview.item.level == level and interview.stage.name == "whiteboard"
    interview.answer(said, 1.0)
    assert interview.item.level == level and interview.stage.name == "arithmetic"
    assert interview.answer(("right",) * (points > 0), 1.0) is None
    assert interview.item.level == ("expert" if points else "screen"), (
        "arithmetic is right or wrong, never half"
    )


def test_the_questions_of_the_whiteboard_are_there():
    assert {*drill.DRAWABLE, *drill.WHOLE} <= {each.id for each in drill.questions()}
    assert len(set(drill.DRAWABLE)) == len(drill.DRAWABLE)


@pytest.mark.parametrize("level", drill.LEVELS)
def test_an_interview_asks_nothing_twice_and_draws_what_can_be_drawn(level):
    bank = drill.questions()
    for seed in range(60):
        for stage in drill.mock(level, seed, bank):
            ids = [item.id for item in stage.choices]
            assert not {"in_one_minute", "in_five_minutes"} & set(ids)
            if stage.name == "whiteboard":
                assert set(ids) <= set(drill.DRAWABLE) and len(set(ids)) == 3
            if stage.name == "arithmetic":
                assert len(set(ids)) == 3, "three kinds"


def test_a_bank_without_anything_to_draw_is_asked_by_topic():
    names = itertools.product(drill.LEVELS, range(9))
    for level, seed in names:
        stages = drill.mock(level, seed, BANK)
        topics = {name: topics for name, _, topics in drill.ROUTES[level]}["whiteboard"]
        board = next(stage for stage in stages if stage.name == "whiteboard")
        assert board.choices[1].topic in topics


def test_what_an_interview_cannot_ask_does_not_count_as_a_question():
    whole = [replace(BANK[n], id=id) for n, id in enumerate(drill.WHOLE)]
    with pytest.raises(ValueError, match="has 5 questions, there are 4: take a larger file"):
        drill.mock("screen", 0, [*whole, *BANK[:4]])


def test_of_questions_that_fit_alike_one_that_fits_the_time_is_taken():
    for seed in range(20):
        bank = [replace(each, minutes=5 if each.id.endswith("0") else 2) for each in make_bank(4)]
        for stage in drill.mock("onsite", seed, bank):
            if stage.choices[1].id not in ("opening", "closing"):
                assert all(item.minutes <= stage.minutes for item in stage.choices), stage.title


def test_the_opening_is_the_one_minute_answer_and_there_is_no_other():
    for level in drill.LEVELS:
        stages = drill.mock(level, 1, BANK)
        first, last = stages[0].choices[1], stages[-1].choices[1]
        assert (first.id, last.id) == ("opening", "closing")
        assert first.paragraph == interview.load_answers().one_minute
    text = (ROOT / "course_lib/teaching/opening.toml").read_text(encoding="utf-8")
    rows = {row["id"]: row for row in tomllib.loads(text)["questions"]}
    assert "paragraph" not in rows["opening"] and "paragraph" in rows["closing"]


def test_the_same_seed_brings_the_same_interview():
    assert drill.mock("expert", 4, BANK) == drill.mock("expert", 4, BANK) != drill.mock("expert", 5, BANK)


def test_an_interview_that_cannot_be_led_says_why():
    with pytest.raises(ValueError, match="level 'boss': one of screen, onsite, expert"):
        drill.mock("boss", 0, BANK)
    with pytest.raises(ValueError, match="has 5 questions, there are 4: take a larger file"):
        drill.mock("screen", 0, BANK[:4])


def test_the_scorecard_adds_up_the_moves_the_time_and_what_to_read():
    interview = Interview(drill.mock("onsite", 5, BANK))
    for said, seconds in [(drill.POINTS, 61.5), (("problem", "real"), 60), (("right",), 60)] + [
        (drill.POINTS, 60)
    ] * 5:
        interview.answer(said, seconds)
    card = interview.scorecard()
    assert card[:7] == [
        *[
            ("problem", "7 of 7"),
            ("motivation", "6 of 7"),
            ("mechanism", "6 of 7"),
            ("real systems", "7 of 7"),
        ],
        *[("depth", "6 of 7"), ("arithmetic", "1 of 1"), ("time", "8:01 of 20:00")],
    ]
    assert card[7:] == [
        ("too long", "opening, 1:01 of 1:00"),
        ("repeat", interview.results[1].item.ask),
        ("read again", NOTEBOOKS["03"]),
    ]


def test_answers_of_an_interview_come_back_in_the_drill():
    interview = Interview(drill.mock("onsite", 5, BANK))
    assert interview.keep(TODAY) == "" and not record_path().exists()
    while interview.stage:
        interview.answer((), 1.0)
    interview.keep(TODAY)
    record = drill.load_record()
    assert len(record) == 5 and record.keys() <= {each.id for each in BANK}
    assert all(card.due == TODAY for card in record.values())


# -- the terminal -------------------------------------------------------------------------------------------


def typed(monkeypatch, *lines: str) -> None:
    """What somebody types; then Ctrl-D."""
    left = iter(lines)

    def answer(prompt: str = "") -> str:
        print(prompt)  # and the Enter that ends the line
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", answer)


def test_a_session_in_the_terminal_shows_layers_scores_and_keeps_the_record(monkeypatch, capsys, file):
    monkeypatch.setenv("COLUMNS", "300")
    typed(monkeypatch, "", "", "", "", "1 3 4 5", "", "")
    assert drill.main(["--questions", str(file), "--seed", "3", "--level", "onsite"]) == 0
    said = capsys.readouterr().out
    order = ["Question 1?", "0:00 of 2:00", "In short.", "At length.", "With a trap.", "1 problem", "Waste.",
             "4 of 5 points: again tomorrow", "How large?", "16.", "Why not 1?", "Look-ups.",
             "1 of 1 questions seen", "Until next time."]  # fmt: skip
    places = [said.index(text) for text in order]
    assert places == sorted(places)
    assert drill.load_record()["q1"].points == 4
    assert 90 < max(map(len, said.splitlines())) <= 100, "wide, and still read with ease"


def test_ctrl_c_is_no_error_and_keeps_what_was_answered(monkeypatch, capsys, file):
    answers = iter(["", "", "", "", "", "", "", KeyboardInterrupt])

    def answer(_prompt: str = "") -> str:
        if (each := next(answers)) is KeyboardInterrupt:
            raise KeyboardInterrupt
        return each

    monkeypatch.setattr("builtins.input", answer)
    assert drill.main(["--questions", str(file)]) == 0
    assert [card.points for card in drill.load_record().values()] == [0]


def test_a_process_that_is_fed_from_a_pipe_ends_cleanly(file, tmp_path):
    command = [sys.executable, "-m", "course_lib.teaching.drill", "--questions", str(file), "--seed", "1"]
    environment = {
        **os.environ,
        "COURSE_STATE_HOME": str(tmp_path / "home"),
        "COLUMNS": "80",
        "PYTHONIOENCODING": "utf-8",
    }
    options = dict(cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=100)
    done = subprocess.run(command, input="\n\n\n\n12345\n", **options)
    assert (done.returncode, done.stderr) == (0, "") and "5 of 5 points: again tomorrow" in done.stdout
    assert len(json.loads((tmp_path / "home" / "drill.json").read_text())) == 1


def test_arithmetic_in_the_terminal_names_the_slip_and_shows_the_working(monkeypatch, capsys):
    problem = arithmetic.draw(random.Random(2), level="screen")
    wrong = arithmetic.shown(problem.slips[0].value, problem.unit)
    typed(monkeypatch, wrong)
    assert drill.main(["--arithmetic", "--seed", "2", "--level", "screen"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for text in (problem.ask, problem.slips[0].says, *problem.working, f"so {problem.shown}"):
        assert " ".join(text.split()) in said


def test_a_mock_interview_in_the_terminal_ends_with_a_scorecard(monkeypatch, capsys, tmp_path):
    path = tmp_path / "many.toml"
    rows = [
        {**ROW, "id": each.id, "level": each.level, "topic": each.topic, "ask": each.ask} for each in BANK
    ]
    path.write_text(to_toml(rows), encoding="utf-8")
    typed(monkeypatch, *["", "", "", "", "12345", ""] * 2, "?", *["", "", "", "", "", ""] * 5)
    assert drill.main(["--mock", "--level", "onsite", "--seed", "1", "--questions", str(path)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"problem +2 of 7", said) and re.search(r"arithmetic +0 of 1", said)
    assert re.search(r"real systems +2 of 7", said) and said.count("4 real systems") == 7
    assert said.count("likeliest first") == 1, "the legend belongs to debugging"
    assert "draw while you talk" in said and said.count("read again") >= 1 and len(drill.load_record()) == 5


def test_the_terminal_asks_again_what_it_cannot_read(monkeypatch, capsys):
    problem = arithmetic.draw(random.Random(2), level="screen")
    typed(monkeypatch, "", "12 parsecs", "12 FLOP/byte", problem.shown)
    assert drill._ask_problem(problem, 2)[0]
    said = capsys.readouterr().out
    assert said.count("once more") == 3 and said.count("✗") == 3 and said.count("✓ right") == 1
    assert said.index(problem.working[0][:20]) > said.index("✓ right")


def test_the_time_of_an_answer_that_was_asked_for_again_is_all_of_it(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    left = iter(["", "?"])

    def answer(prompt: str) -> str:
        now[0] += 40
        return next(left)

    monkeypatch.setattr("builtins.input", answer)
    assert drill._ask_problem(arithmetic.draw(random.Random(2)), 2) == (False, 80)


def test_the_terminal_does_not_repeat_a_kind_either(monkeypatch, capsys):
    typed(monkeypatch, *["?"] * 12)
    drill.main(["--arithmetic", "--seed", "5", "--level", "expert"])
    said = " ".join(capsys.readouterr().out.split())
    series = arithmetic.Series(random.Random(5), "expert")
    asked = [series.next() for _ in range(13)]
    places = [said.index(" ".join(problem.ask.split())) for problem in asked]
    assert places == sorted(places)


def test_an_interview_that_is_broken_off_has_a_scorecard_too(monkeypatch, capsys, tmp_path):
    path = tmp_path / "many.toml"
    path.write_text(to_toml([{**ROW, "id": f"q{n}", "ask": f"{n}?"} for n in range(6)]), encoding="utf-8")
    typed(monkeypatch, "", "", "", "", "1", "")
    assert drill.main(["--mock", "--questions", str(path)]) == 0
    assert re.search(r"problem +1 of 1", capsys.readouterr().out)


def test_the_list_shows_every_question_with_its_box_and_day(capsys, file):
    Session(drill.questions(file), random.Random(0)).score(drill.questions(file)[2], (), TODAY)
    assert drill.main(["--list", "--questions", str(file)]) == 0
    said = capsys.readouterr().out
    assert "box 0, due 2026-03-02" in said and said.count("new") == 2 and said.count("?") == 3


def test_what_cannot_be_asked_is_said_without_a_traceback(capsys, file, tmp_path):
    assert drill.main(["--topic", "kernel", "--questions", str(file)]) == 2
    assert "✗ no question of level None and topic 'kernel'" in capsys.readouterr().out
    assert drill.main(["--questions", str(tmp_path / "none.toml")]) == 2
    with pytest.raises(SystemExit):
        drill.main(["--level", "boss"])


# -- the buttons --------------------------------------------------------------------------------------------


def shown(widget: widgets.Widget) -> str:
    """What one can read: every HTML value that is not hidden, without its tags."""
    if getattr(widget.layout, "display", None) == "none":
        return ""
    if isinstance(widget, widgets.HTML):
        return html.unescape(re.sub(r"<[^>]+>", " ", widget.value)) + "\n"
    return "".join(map(shown, getattr(widget, "children", ())))


def buttons(widget: widgets.Widget) -> list[widgets.Button]:
    """Every button that is not hidden, from the top."""
    if getattr(widget.layout, "display", None) == "none":
        return []
    below = [button for child in getattr(widget, "children", ()) for button in buttons(child)]
    return [widget] if isinstance(widget, widgets.Button) else below


def button(explorer, label: str) -> widgets.Button:
    """The one button with this label that can be seen."""
    found = [each for each in buttons(explorer.widget) if each.description == label]
    assert len(found) == 1, f"{len(found)} buttons {label!r}"
    return found[0]


def press(explorer, *labels: str) -> None:
    for label in labels:
        pressed = button(explorer, label)
        assert not pressed.disabled, f"{label!r} cannot be pressed"
        pressed.click()


def boxes(explorer) -> dict[str, widgets.Checkbox]:
    return {each.description: each for each in explorer.controls if isinstance(each, widgets.Checkbox)}


def text_field(explorer) -> widgets.Text:
    return next(each for each in explorer.controls if isinstance(each, widgets.Text))


ONE = tuple(replace(each, sentence="In <short>.") for each in BANK[:4])


def test_the_answer_comes_in_layers_one_press_each():
    explorer = drill_explorer(seed=1, bank=ONE)
    assert "?" in shown(explorer.widget) and "In <short>." not in shown(explorer.widget)
    assert "Waste." not in shown(explorer.widget)
    press(explorer, "Start", "Show answer")
    assert "In <short>." in shown(explorer.widget) and "Waste." in shown(explorer.widget)
    assert "At length." not in shown(explorer.widget)
    press(explorer, "Show more")
    assert "At length." in shown(explorer.widget) and "With a trap." not in shown(explorer.widget)
    press(explorer, "Show depth")
    assert "With a trap." in shown(explorer.widget)
    assert button(explorer, "Show depth").disabled and button(explorer, "Start again").disabled


def test_the_score_is_kept_and_the_follow_ups_come_one_by_one():
    explorer = drill_explorer(seed=1, bank=ONE)
    assert list(boxes(explorer)) == ["problem", "motivation", "mechanism", "real systems", "depth"]
    asked = next(each for each in ONE if each.ask in shown(explorer.widget))
    press(explorer, "Show answer")
    for point in ("problem", "mechanism", "real systems", "depth"):
        boxes(explorer)[point].value = True
    press(explorer, "Score")
    assert "4 of 5 points: again tomorrow" in shown(explorer.widget)
    assert "1 of 4 questions seen" in shown(explorer.widget)
    assert drill.load_record()[asked.id].points == 4
    assert button(explorer, "Score").disabled and boxes(explorer)["real systems"].disabled
    for label, text in [("Follow-up 1", "How large?"), ("Answer 1", "16."), ("Follow-up 2", "Why not 1?"),
                        ("Answer 2", "Look-ups.")]:  # fmt: skip
        assert text not in shown(explorer.widget)
        press(explorer, label)
        assert text in shown(explorer.widget)
    assert button(explorer, "Answer 2").disabled


def test_next_brings_another_question_and_a_clean_screen():
    explorer = drill_explorer(seed=1, bank=ONE)
    before = shown(explorer.widget)
    notes = next(each for each in explorer.controls if isinstance(each, widgets.Textarea))
    notes.value = "mine"
    press(explorer, "Start", "Show answer", "Show more", "Score", "Next")
    after = shown(explorer.widget)
    assert after.splitlines()[0] != before.splitlines()[0] and "In <short>." not in after
    assert [each.description for each in buttons(explorer.widget)] == ["Start", "Show answer", "Next"]
    assert notes.value == "" and not any(box.value or box.disabled for box in boxes(explorer).values())
    press(explorer, "Start", "Show answer", "Score")


def test_an_explorer_narrows_to_level_and_topic_and_refuses_what_is_not_there():
    for _ in range(3):
        assert "expert · kernel · 2 minutes" in shown(drill_explorer("expert", "kernel", bank=BANK).widget)
    with pytest.raises(ValueError, match="no question of level 'boss'"):
        drill_explorer("boss", bank=BANK)


@pytest.mark.parametrize(
    "make",
    [
        lambda: drill_explorer(seed=1, bank=BANK),
        lambda: arithmetic_explorer(seed=1),
        lambda: mock_interview("screen", seed=1, bank=BANK),
    ],
)
def test_the_cold_picture_is_the_first_question_and_the_same_each_time(make):
    first, again = make(), make()
    data, metadata = first._repr_mimebundle_()
    assert set(data) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert metadata["image/png"]["alt"] == data["text/plain"]
    assert again.cold == first.cold and first.cold["image/png"][:4] == b"\x89PNG"
    asked = data["text/plain"].split(": ", 1)[1].split("? ")[0]
    assert asked.rstrip(".")[:40] in shown(first.widget)
    for control in first.controls:
        assert control.description or control.placeholder, "a control without a name cannot be found by ear"


def test_arithmetic_is_checked_and_worked_out():
    explorer = arithmetic_explorer(seed=1)
    problem = arithmetic.draw(random.Random(1))
    field = explorer.controls[0]
    assert problem.ask in shown(explorer.widget)
    field.value = arithmetic.shown(problem.slips[0].value, problem.unit)
    press(explorer, "Check")
    assert f"✗ {problem.slips[0].says}" in shown(explorer.widget)
    assert problem.working[0] not in shown(explorer.widget), "one may try again first"
    press(explorer, "Working")
    assert problem.working[0] in shown(explorer.widget)
    press(explorer, "Next")
    after = shown(explorer.widget)
    assert field.value == "" and problem.ask not in after and "✗" not in after


def test_a_right_answer_shows_its_working_at_once():
    explorer, problem = arithmetic_explorer(seed=1), arithmetic.draw(random.Random(1))
    explorer.controls[0].value = problem.shown
    press(explorer, "Check")
    assert f"✓ right: {problem.shown}" in shown(explorer.widget) and problem.working[-1] in shown(
        explorer.widget
    )


def test_an_interview_goes_through_its_stages_to_the_scorecard():
    explorer = mock_interview("screen", 1, bank=BANK)
    expected = Interview(drill.mock("screen", 1, BANK))
    for number in range(1, 9):
        assert f"part {number} of 8" in shown(explorer.widget) and expected.item.ask in shown(explorer.widget)
        assert button(explorer, "Next").disabled, "first the answer"
        if isinstance(expected.item, Question):
            press(explorer, "Show answer")
            for point in drill.POINTS[:4]:
                boxes(explorer)[drill.LABELS[point]].value = True
            press(explorer, "Score")
            follow_up = expected.answer(drill.POINTS[:4], 0.0)
            press(explorer, "Follow-up 1")
            assert follow_up == expected.results[-1].item.follow_ups[1] and follow_up.ask in shown(
                explorer.widget
            )
        else:
            field = text_field(explorer)
            field.value = expected.item.shown
            assert button(explorer, "Working").disabled
            press(explorer, "Check")
            field.value = "wrong"
            press(explorer, "Check", "Working")  # the first answer counts
            expected.answer(("right",), 0.0)
        press(explorer, "Next")
    said = re.sub(r"\s+", " ", shown(explorer.widget))
    assert (
        "problem 7 of 7" in said
        and "real systems 7 of 7" in said
        and "depth 0 of 7" in said
        and "arithmetic 1 of 1" in said
        and "of 20:00" in said
    )
    assert "Start" not in said and len(drill.load_record()) == 5


@pytest.mark.parametrize("text", ["", "   ", "no idea", "12 parsecs", "12 apples", "12 FLOP/byte"])
def test_what_cannot_be_read_is_no_answer_and_the_right_one_still_counts(text):
    explorer = mock_interview("screen", 1, bank=BANK)
    problem = next(stage for stage in drill.mock("screen", 1, BANK) if stage.name == "arithmetic").choices[0]
    while "Check" not in [each.description for each in buttons(explorer.widget)]:
        press(explorer, "Show answer", "Score", "Next")
    assert problem.ask in shown(explorer.widget)
    text_field(explorer).value = text
    press(explorer, "Check")
    assert "✗" in shown(explorer.widget)
    assert button(explorer, "Next").disabled and button(explorer, "Working").disabled
    text_field(explorer).value = problem.shown
    press(explorer, "Check", "Next")
    while "Show answer" in [each.description for each in buttons(explorer.widget)]:
        press(explorer, "Show answer", "Score", "Next")
    assert "arithmetic 1 of 1" in re.sub(r"\s+", " ", shown(explorer.widget))


def test_a_question_of_debugging_says_what_its_moves_mean_and_others_do_not():
    for topic, told in (("debugging", True), ("kernel", False)):
        explorer = drill_explorer(topic=topic, seed=1, bank=BANK)
        assert drill.DEBUGGING not in shown(explorer.widget), "before the answer it would be a hint"
        press(explorer, "Show answer")
        assert (drill.DEBUGGING in shown(explorer.widget)) == told


def test_a_practice_of_arithmetic_does_not_repeat_its_kinds():
    explorer, kinds = arithmetic_explorer(seed=3, level="screen"), []
    series = arithmetic.Series(random.Random(3), "screen")
    for _ in range(12):
        problem = series.next()
        assert problem.ask in shown(explorer.widget)
        kinds.append(problem.id)
        press(explorer, "Next")
    assert all(len(set(kinds[n : n + 4])) == 4 for n in range(9)), kinds


def test_the_time_of_an_interview_is_what_was_spent_on_answering(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    explorer = mock_interview("screen", seed=1, bank=BANK)
    for _ in range(8):  # the first part's clock runs from the start, too
        now[0] += 40
        if "Check" in [each.description for each in buttons(explorer.widget)]:
            press(explorer, "Check")  # nothing was typed: the clock runs on
            now[0] += 50
            text_field(explorer).value = "?"
            press(explorer, "Check")
        else:
            now[0] += 50
            press(explorer, "Show answer")
            now[0] += 500  # to read the answer
            press(explorer, "Score")
        press(explorer, "Next")
    said = shown(explorer.widget)
    assert "12:00 of 20:00" in said and "closing, 1:30 of 1:00" in said


# -- the clock ----------------------------------------------------------------------------------------------


def test_the_clock_ticks_between_start_and_stop_only():
    async def scene() -> None:
        clock = Clock()
        clock.reset(2)
        assert "0:00 of 2:00" in clock.view.value and clock.task is None
        clock.start()
        clock.begun -= 64.3
        await asyncio.sleep(0.1)
        assert "1:04 of 2:00" in clock.view.value
        await asyncio.sleep(1.1)
        assert "1:05 of 2:00" in clock.view.value
        task = clock.task
        assert 65 < clock.stop() < 68
        await asyncio.sleep(0)
        assert task.cancelled() and clock.task is None

    asyncio.run(scene())


def test_a_question_that_is_left_leaves_no_clock_running():
    async def scene() -> None:
        explorer = drill_explorer(seed=1, bank=ONE)
        others = asyncio.all_tasks()
        press(explorer, "Start", "Start again")
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks() - others) == 1
        press(explorer, "Next")
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == others

    asyncio.run(scene())


def test_without_a_loop_the_time_is_taken_all_the_same():
    clock = Clock()
    clock.reset(1)
    clock.start()
    clock.begun -= 75
    assert clock.task is None and 75 <= clock.stop() < 80
    assert "1:15 of 1:00" in clock.view.value and "#D55E00" in clock.view.value
