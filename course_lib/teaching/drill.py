"""The interview drill: questions that come back when they went badly, and a mock interview of twenty minutes.

The questions are content: questions.toml. Here is what is done with them. They are loaded and checked, a
record is kept, the next one is picked, an interview is led, and a terminal asks them, with
`python -m course_lib.teaching.drill`. In a notebook `explorers.drill` asks; the arithmetic is arithmetic.py.
"""

import argparse
import json
import os
import random
import shutil
import textwrap
import time
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import date, timedelta
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from course_lib.teaching import arithmetic, check, interview
from course_lib.teaching.arithmetic import Problem
from course_lib.teaching.glossary import NOTEBOOKS

LEVELS = ("screen", "onsite", "expert")
TOPICS = ("kv cache", "fragmentation", "paging", "attention", "kernel", "serving", "sharing", "real systems",
          "debugging")  # fmt: skip
MOVES = ("problem", "motivation", "mechanism", "real")
POINTS = (*MOVES, "depth")  # what can be earned with one answer
DEPTH = "A number, a trap or a trade-off of your own, beyond the four moves."
LABELS = {**{point: point for point in POINTS}, "real": "real systems"}  # as people see them
DEBUGGING = (
    "Debugging: what the symptom rules out; the suspects, likeliest first; cause and cure; the test or metric "
    "that would have caught it."
)
DRAWABLE = ("token_17", "three_wastes", "waste_bound", "os_analogy", "free_in_reverse", "parent_hash",
            "split_kv", "gqa_packing", "kv_layouts", "no_block_free", "n_samples_and_beams")  # fmt: skip
WHOLE = ("in_one_minute", "in_five_minutes")  # what the opening of an interview asks already


# -- the questions ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FollowUp:
    """What is asked next."""

    ask: str
    answer: str


@dataclass(frozen=True)
class Question:
    """A question: its answer in three layers, what earns a point, two follow-ups, the second one harder."""

    id: str
    level: str
    topic: str
    lesson: str
    minutes: int
    ask: str
    sentence: str
    paragraph: str
    depth: str
    problem: str
    motivation: str
    mechanism: str
    real: str
    follow_ups: tuple[FollowUp, FollowUp]

    @property
    def rubric(self) -> dict[str, str]:
        """What earns each of the five points."""
        return {**{move: getattr(self, move) for move in MOVES}, "depth": DEPTH}

    @property
    def legend(self) -> str:
        """What the moves mean in this question; "" if they mean what they say."""
        return DEBUGGING if self.topic == "debugging" else ""


def questions(path: Path | None = None) -> tuple[Question, ...]:
    """All questions of the course, or of another file of the same form.

    Raises:
        ValueError: a question that nobody could be asked. It says which, what is wrong and what is right.
        FileNotFoundError: there is no such file.
    """
    source = path or files("course_lib.teaching").joinpath("questions.toml")
    loaded, ids = [_question(row) for row in _rows(source)], set[str]()
    for each in loaded:
        if each.id in ids:
            raise ValueError(f"question {each.id!r} is there twice: give each an id of its own")
        ids.add(each.id)
    return tuple(loaded)


def _rows(source: Path | Traversable) -> list[dict]:
    return tomllib.loads(source.read_text(encoding="utf-8")).get("questions", [])


def _question(row: dict) -> Question:
    """A row of the file, checked."""
    known, allowed = {each.name for each in fields(Question)}, {"level": LEVELS, "topic": TOPICS}
    allowed |= {"lesson": tuple(NOTEBOOKS), "minutes": (1, 2, 3, 4, 5)}

    def demand(holds: bool, otherwise: str) -> None:
        if not holds:
            raise ValueError(f"question {row.get('id', row.get('ask'))!r} {otherwise}")

    demand(row.keys() <= known, f"has {sorted(row.keys() - known)}: the keys are {sorted(known)}")
    demand(row.keys() >= known, f"lacks {sorted(known - row.keys())}: write it, or take the question out")
    for key, values in allowed.items():
        demand(row[key] in values, f"has {key} {row[key]!r}: it can be {', '.join(map(str, values))}")
    count = len(row["follow_ups"])
    demand(count == 2, f"has follow-ups: {count}; it takes two, the second one harder")
    texts = {key: row[key] for key in known - allowed.keys() - {"follow_ups"}}
    for number, each in enumerate(row["follow_ups"], start=1):
        texts |= {f"{key} of follow-up {number}": each.get(key) for key in ("ask", "answer")}
    for key, text in sorted(texts.items()):
        demand(
            isinstance(text, str) and bool(text.strip()), f"has no {key}: write it, or take the question out"
        )
    return Question(**{**row, "follow_ups": tuple(FollowUp(**each) for each in row["follow_ups"])})


def select(
    bank: Sequence[Question], level: str | None = None, topic: str | None = None
) -> tuple[Question, ...]:
    """The questions of a level and a topic; None: of any.

    Raises:
        ValueError: there is none.
    """
    found = tuple(each for each in bank if level in (None, each.level) and topic in (None, each.topic))
    if not found:
        there = "; ".join(sorted({f"{each.level}, {each.topic}" for each in bank}))
        raise ValueError(f"no question of level {level!r} and topic {topic!r}; there are: {there}")
    return found


# -- the record ---------------------------------------------------------------------------------------------

WAIT_DAYS = (0, 1, 3, 7, 21)  # how long a question rests in each box


@dataclass(frozen=True)
class Card:
    """How a question stands: its box, when it comes again, how often it came, the points of the last time."""

    box: int
    due: date
    times: int
    points: int


def verdict(points: int) -> int:
    """Of five points: 1 well (four or five), 0 half, -1 badly (one or none)."""
    return 1 if points >= 4 else -1 if points <= 1 else 0


def answered(card: Card | None, points: int, today: date) -> Card:
    """The card after an answer.

    Leitner's boxes. What went well moves up one box and rests longer: 1, 3, 7, then 21 days. What went half
    falls into the box of tomorrow. What went badly falls into box 0, which is due at once: it is asked again
    in the same session, and once it goes well, tomorrow.

    Example:
        >>> card = answered(None, 5, date(2026, 3, 2))
        >>> card
        Card(box=1, due=datetime.date(2026, 3, 3), times=1, points=5)
        >>> answered(card, 4, date(2026, 3, 3)).due
        datetime.date(2026, 3, 6)

    Source: Leitner, "So lernt man lernen" (1972).
    """
    old = card or Card(0, today, 0, 0)
    box = {1: min(old.box + 1, len(WAIT_DAYS) - 1), 0: 1, -1: 0}[verdict(points)]
    return Card(box, today + timedelta(days=WAIT_DAYS[box]), old.times + 1, points)


def load_record() -> dict[str, Card]:
    """Question id -> its card. What cannot be read is left out, and begins anew."""
    try:
        return read_cards(json.loads((check.state_dir() / "drill.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # absent or broken
        return {}


def read_cards(raw: object) -> dict[str, Card]:
    """Cards from JSON. One that is broken is left out."""
    record = {}
    for id, entry in dict(raw).items():
        try:
            card = Card(
                int(entry["box"]), date.fromisoformat(entry["due"]), int(entry["times"]), int(entry["points"])
            )
        except (KeyError, ValueError, TypeError):
            continue
        if 0 <= card.box < len(WAIT_DAYS):
            record[id] = card
    return record


def write_cards(record: dict[str, Card]) -> dict:
    """Cards as JSON takes them."""
    return {id: {**asdict(card), "due": card.due.isoformat()} for id, card in record.items()}


def save_record(record: dict[str, Card]) -> str:
    """Write the record, all of it or nothing. Returns "", or why it could not be kept."""
    place = check.state_dir()
    try:
        place.mkdir(parents=True, exist_ok=True)
        scratch = place / "drill.json.part"
        scratch.write_text(json.dumps(write_cards(record), indent=1), encoding="utf-8")
        os.replace(scratch, place / "drill.json")
    except OSError as error:
        return f"(not kept: {error.strerror} at {place})"
    return ""


def due(record: dict[str, Card], today: date) -> list[str]:
    """The ids that are due, longest overdue first."""
    waiting = [(card.due, card.box, id) for id, card in record.items() if card.due <= today]
    return [id for _, _, id in sorted(waiting)]


def progress(bank: Sequence[Question], record: dict[str, Card], today: date) -> str:
    """One line on how far one has come.

    Example:
        >>> progress((), {}, date(2026, 3, 2))
        '0 of 0 questions seen, 0 due today, 0 at rest for a week or more'
    """
    ids = {each.id for each in bank}
    cards = {id: card for id, card in record.items() if id in ids}
    rest = sum(WAIT_DAYS[card.box] >= 7 for card in cards.values())
    told = f"{len(cards)} of {len(ids)} questions seen, {len(due(cards, today))} due today"
    return f"{told}, {rest} at rest for a week or more"


# -- a session ----------------------------------------------------------------------------------------------

NEW_SHARE = 1 / 3  # of the questions, while others are due
APART = 2  # questions between a bad answer and the same question again


def pick(
    bank: Sequence[Question],
    record: dict[str, Card],
    today: date,
    rng: random.Random,
    recent: Sequence[str] = (),
) -> Question:
    """The next question: one that is due, every third time a new one; without either, the next to be due.

    Args:
        recent: ids that were asked just now. They wait, unless nothing else is left.
    """
    free = [each for each in bank if each.id not in recent] or list(bank)
    by_id, new = {each.id: each for each in free}, [each for each in free if each.id not in record]
    waiting = [by_id[id] for id in due(record, today) if id in by_id]
    if new and (not waiting or rng.random() < NEW_SHARE):
        return rng.choice(new)
    return rng.choice(waiting) if waiting else min(free, key=lambda each: record[each.id].due)


@dataclass
class Session:
    """A learner at work: what can be asked, what was, and how it went."""

    bank: tuple[Question, ...]
    rng: random.Random
    record: dict[str, Card] = field(default_factory=load_record)
    recent: list[str] = field(default_factory=list)

    def next(self, today: date) -> Question:
        """The next question."""
        question = pick(self.bank, self.record, today, self.rng, self.recent)
        keep = min(APART, len(self.bank) - 1)
        self.recent = [*self.recent, question.id][-keep:] if keep else []
        return question

    def score(self, question: Question, said: Collection[str], today: date) -> str:
        """Keep an answer; a line on what comes of it."""
        known = {**self.record, **load_record()}  # another notebook may have written meanwhile
        card = answered(known.get(question.id), len(said), today)
        self.record = {**known, question.id: card}
        complaint = save_record(self.record)
        days = (card.due - today).days
        again = {0: "again today", 1: "again tomorrow"}.get(days, f"again in {days} days")
        return f"{len(said)} of {len(POINTS)} points: {again} {complaint}".rstrip()


# -- the mock interview -------------------------------------------------------------------------------------

# level -> (stage, minutes, topics); twenty minutes each
ROUTES = {
    "screen": (("opening", 2, ()), ("whiteboard", 5, ("fragmentation", "paging")), ("arithmetic", 2, ()),
               ("mechanism", 3, ("kv cache",)), ("mechanism", 3, ("paging", "attention")),
               ("debugging", 2, ("debugging",)), ("real systems", 2, ("real systems",)), ("closing", 1, ())),
    "onsite": (("opening", 1, ()), ("whiteboard", 4, ("paging", "sharing")), ("arithmetic", 3, ()),
               ("mechanism", 3, ("attention", "kernel")), ("mechanism", 3, ("serving", "sharing")),
               ("debugging", 3, ("debugging",)), ("real systems", 2, ("real systems",)), ("closing", 1, ())),
    "expert": (("opening", 1, ()), ("arithmetic", 3, ()), ("whiteboard", 3, ("kernel", "attention")),
               ("mechanism", 3, ("kernel", "attention")), ("mechanism", 3, ("serving", "sharing")),
               ("real systems", 3, ("real systems",)), ("debugging", 3, ("debugging",)), ("closing", 1, ())),
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One part of an interview: how long, and what is asked after a bad, a half and a good part before it."""

    name: str
    minutes: int
    choices: tuple[Question | Problem, Question | Problem, Question | Problem]  # easier, planned, harder

    @property
    def title(self) -> str:
        """Its name and its minutes."""
        drawing = ", draw while you talk" if self.name == "whiteboard" else ""
        return f"{self.name}, {self.minutes} minute{'s' * (self.minutes > 1)}{drawing}"


@dataclass(frozen=True)
class Result:
    """What came of a stage. `said` are the points that were earned; of arithmetic, ("right",) or ()."""

    stage: Stage
    item: Question | Problem
    said: tuple[str, ...]
    seconds: float

    @property
    def went(self) -> int:
        """1 well, 0 half, -1 badly."""
        return verdict(len(self.said)) if isinstance(self.item, Question) else 1 if self.said else -1


def mock(level: str, seed: int, bank: Sequence[Question] | None = None) -> list[Stage]:
    """The stages of an interview of twenty minutes, with what may be asked in each. No question comes twice.

    What the opening asks is not asked again, and at the whiteboard stands what can be drawn, if the bank has it.

    Raises:
        ValueError: an unknown level, or fewer questions than the interview has.
    """
    if level not in ROUTES:
        raise ValueError(f"no interview of level {level!r}: one of {', '.join(ROUTES)}")
    route, rank, rng = ROUTES[level], LEVELS.index(level), random.Random(seed)
    left = [each for each in (questions() if bank is None else bank) if each.id not in WHOLE]
    needed = sum(bool(topics) for _, _, topics in route)
    if len(left) < needed:
        raise ValueError(f"an interview has {needed} questions, there are {len(left)}: take a larger file")
    rng.shuffle(left)
    drawable = [each.id for each in left if each.id in DRAWABLE]

    def take(part: tuple, rank: int) -> Question | None:
        name, minutes, topics = part
        return _take(left, topics, rank, minutes, drawable if name == "whiteboard" and drawable else None)

    # First one for each stage, then what is harder and easier, from what is left.
    planned, stages = [take(part, rank) if part[2] else None for part in route], []
    for part, question in zip(route, planned, strict=True):
        if question:
            choices = take(part, rank - 1) or question, question, take(part, rank + 1) or question
        else:
            choices = _problems(rng, rank) if part[0] == "arithmetic" else (_ends()[part[0]],) * 3
        stages.append(Stage(*part[:2], choices))
    return stages


def _problems(rng: random.Random, rank: int) -> tuple[Problem, ...]:
    """Arithmetic of three kinds: easier, as planned, harder."""
    drawn = list[Problem]()
    for each in (rank - 1, rank, rank + 1):
        level = LEVELS[min(max(each, 0), len(LEVELS) - 1)]
        drawn.append(arithmetic.draw(rng, level=level, recent=[problem.id for problem in drawn]))
    return tuple(drawn)


def _take(
    left: list[Question],
    topics: Collection[str],
    rank: int,
    minutes: int,
    ids: Collection[str] | None = None,
) -> Question | None:
    """The question that is nearest to these topics, this level and this time. It is left no longer.

    Args:
        ids: what may be taken; None: anything.
    """
    free = [each for each in left if ids is None or each.id in ids]
    if not free:
        return None

    def distance(each: Question) -> tuple[bool, int, int]:
        too_long = max(0, each.minutes - minutes)
        return each.topic not in topics, abs(LEVELS.index(each.level) - rank), too_long

    best = min(free, key=distance)
    left.remove(best)
    return best


@dataclass
class Interview:
    """An interview on its way. A good answer makes follow-up and next question harder, a bad one easier."""

    stages: list[Stage]
    results: list[Result] = field(default_factory=list)

    @property
    def stage(self) -> Stage | None:
        """The stage that is open; None: it is over."""
        return self.stages[len(self.results)] if len(self.results) < len(self.stages) else None

    @property
    def item(self) -> Question | Problem:
        """What is asked in it."""
        return self.stage.choices[1 + (self.results[-1].went if self.results else 0)]

    def answer(self, said: Collection[str], seconds: float) -> FollowUp | None:
        """Close the stage. Returns the follow-up that fits the answer; none after arithmetic."""
        result = Result(self.stage, self.item, tuple(said), seconds)
        self.results.append(result)
        return result.item.follow_ups[result.went == 1] if isinstance(result.item, Question) else None

    def keep(self, today: date) -> str:
        """Put the answers into the record, so that what went badly comes back in the drill."""
        record = load_record()
        for each in self.results:
            if isinstance(each.item, Question) and each.stage.name not in ("opening", "closing"):
                record[each.item.id] = answered(record.get(each.item.id), len(each.said), today)
        return save_record(record) if self.results else ""

    def scorecard(self) -> list[tuple[str, str]]:
        """Points for each move over all answers, the time, what to repeat and where to read: (name, text)."""
        asked = [each for each in self.results if isinstance(each.item, Question)]
        rows = [
            (LABELS[point], f"{sum(point in each.said for each in asked)} of {len(asked)}")
            for point in POINTS
        ]
        problems = [each for each in self.results if isinstance(each.item, Problem)]
        rows += [("arithmetic", f"{sum(each.went == 1 for each in problems)} of {len(problems)}")]
        planned = sum(each.stage.minutes for each in self.results)
        rows += [("time", clock(sum(each.seconds for each in self.results), planned))]
        for each in self.results:
            if each.seconds > 60 * each.stage.minutes:
                rows += [("too long", f"{each.stage.name}, {clock(each.seconds, each.stage.minutes)}")]
        weak = [each.item for each in self.results if each.went < 1]
        rows += [("repeat", item.ask) for item in weak]
        return rows + [("read again", name) for name in sorted({NOTEBOOKS[item.lesson] for item in weak})]


def clock(seconds: float, minutes: int) -> str:
    """Time used against time planned.

    Example:
        >>> clock(65.2, minutes=2)
        '1:05 of 2:00'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02} of {minutes}:00"


def _ends() -> dict[str, Question]:
    """The opening and the closing of every interview, which are in no record."""
    rows = _rows(files("course_lib.teaching").joinpath("opening.toml"))
    spoken = {"opening": dict(paragraph=interview.load_answers().one_minute)}
    return {row["id"]: _question({**row, **spoken.get(row["id"], {})}) for row in rows}


# -- in a terminal ------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask in a terminal, until Ctrl-C or Ctrl-D. What was answered is kept."""
    parser = argparse.ArgumentParser(
        "python -m course_lib.teaching.drill", description="The interview drill."
    )
    parser.add_argument(
        "--level", choices=LEVELS, help="of the questions; of an interview onsite, if not given"
    )
    parser.add_argument("--topic", choices=TOPICS, help="of the questions")
    parser.add_argument("--seed", type=int, help="the same draw again")
    parser.add_argument("--questions", type=Path, help="another file than the course's")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--mock", action="store_true", help="an interview of twenty minutes")
    what.add_argument("--arithmetic", action="store_true", help="fresh numbers each time")
    what.add_argument("--list", action="store_true", help="every question, with its box and when it is due")
    chosen = parser.parse_args(arguments)
    seed = random.randrange(2**32) if chosen.seed is None else chosen.seed
    try:
        if chosen.arithmetic:
            _ask_arithmetic(random.Random(seed), chosen.level)
        elif chosen.mock:
            _ask_interview(Interview(mock(chosen.level or "onsite", seed, questions(chosen.questions))))
        else:
            bank = select(questions(chosen.questions), chosen.level, chosen.topic)
            (_list if chosen.list else _ask_questions)(Session(bank, random.Random(seed)))
    except (KeyboardInterrupt, EOFError):
        print("\nUntil next time.")
    except (ValueError, FileNotFoundError) as error:
        print(f"✗ {error}")
        return 2
    return 0


def _say(text: str, indent: str = "") -> None:
    width = max(40, min(100, shutil.get_terminal_size((90, 24)).columns) - 1)
    hanging = dict(initial_indent=indent, subsequent_indent=" " * len(indent))
    print(textwrap.fill(" ".join(text.split()), width, **hanging))


def _timed(prompt: str, minutes: int, before: float = 0.0) -> tuple[str, float]:
    """What was typed, and how long it took; `before` are seconds that were used already."""
    begun = time.monotonic()
    typed = input(f"{prompt} ({minutes} min) > ").strip()
    seconds = time.monotonic() - begun
    print(f"  {clock(before + seconds, minutes)}")
    return typed, seconds


def _ask_question(question: Question, minutes: int) -> tuple[tuple[str, ...], float]:
    """The question, its answer layer by layer, the rubric: (what was said, seconds)."""
    _say(question.ask, "? ")
    _, seconds = _timed("answer aloud, then Enter", minutes)
    layers = {"more": question.sentence, "depth": question.paragraph, "rubric": question.depth}
    for following, layer in layers.items():
        _say(layer, "  ")
        input(f"[Enter: {following}] ")
    if question.legend:
        _say(question.legend, "  ")
    for number, (point, earns) in enumerate(question.rubric.items(), start=1):
        _say(earns, f"  {number} {LABELS[point]:13}")
    typed = input("which of them did you say? like 134; none: Enter > ")
    return tuple(point for number, point in enumerate(POINTS, start=1) if str(number) in typed), seconds


def _ask_follow_up(follow_up: FollowUp) -> None:
    _say(follow_up.ask, "? ")
    input("[Enter: its answer] ")
    _say(follow_up.answer, "  ")


def _ask_questions(session: Session) -> None:
    print("Ctrl-D ends it, at any time.")
    while True:
        today = date.today()
        print(f"\n{progress(session.bank, session.record, today)}")
        question = session.next(today)
        print(f"{question.level}, {question.topic}")
        said, _ = _ask_question(question, question.minutes)
        print(f"  {session.score(question, said, today)}")
        for follow_up in question.follow_ups:
            _ask_follow_up(follow_up)


def _ask_problem(problem: Problem, minutes: int) -> tuple[bool, float]:
    _say(problem.ask, "? ")
    typed, seconds = _timed("with a unit, or ?", minutes)
    while not (graded := arithmetic.grade(problem, typed)).readable:
        _say(graded.message)
        typed, more = _timed("once more, with a unit, or ?", minutes, seconds)
        seconds += more
    _say(graded.message)
    for line in (*problem.working, f"so {problem.shown}"):
        _say(line, "  ")
    return graded.right, seconds


def _ask_arithmetic(rng: random.Random, level: str | None) -> None:
    series = arithmetic.Series(rng, level)
    while True:
        print()
        problem = series.next()
        _ask_problem(problem, problem.minutes)


def _ask_interview(running: Interview) -> None:
    try:
        while running.stage:
            stage, item = running.stage, running.item
            print(f"\n{stage.title}")
            if isinstance(item, Question):
                _ask_follow_up(running.answer(*_ask_question(item, stage.minutes)))
            else:
                right, seconds = _ask_problem(item, stage.minutes)
                running.answer(("right",) * right, seconds)
    finally:  # an interview that was broken off has a scorecard, too
        print(f"\nscorecard {running.keep(date.today())}".rstrip())
        for name, text in running.scorecard():
            _say(text, f"  {name:13}")


def _list(session: Session) -> None:
    for question in session.bank:
        card = session.record.get(question.id)
        stands = f"box {card.box}, due {card.due}" if card else "new"
        _say(question.ask, f"{question.level:7}{question.topic:14}{stands:23}")
    print(progress(session.bank, session.record, date.today()))


if __name__ == "__main__":
    raise SystemExit(main())
