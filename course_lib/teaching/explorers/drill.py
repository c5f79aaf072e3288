"""The interview drill, the arithmetic and the mock interview, with buttons.

What is asked and how it is judged is in `drill` and `arithmetic`. Everything is a button, a box or a text
field, in the order in which Tab reaches them; what is said appears in HTML widgets.
"""

import asyncio
import html
import random
import textwrap
import time
from collections.abc import Callable, Sequence
from datetime import date

import ipywidgets as widgets

from course_lib.teaching import arithmetic as sums
from course_lib.teaching import drill as machine
from course_lib.teaching.arithmetic import Problem
from course_lib.teaching.drill import FollowUp, Question
from course_lib.teaching.explorers.bundle import Explorer
from course_lib.teaching.plots.canvas import VERMILLION, Picture, styled

WIDE = widgets.Layout(width="100%", max_width="900px")
LONGEST = 3600  # seconds after which a forgotten clock stops ticking


def _text(said: str, size: int = 115, **style: str) -> str:
    return _block(html.escape(said), size, **style)


def _block(inner: str, size: int = 115, **style: str) -> str:
    rules = "".join(f";{name.replace('_', '-')}:{value}" for name, value in style.items())
    return f'<div style="font-size:{size}%;line-height:1.45;max-width:52em{rules}">{inner}</div>'


def _button(label: str, act: Callable[[], None], style: str = "") -> widgets.Button:
    button = widgets.Button(description=label, button_style=style, layout=widgets.Layout(width="150px"))
    button.on_click(lambda _: act())
    return button


def _show(widget: widgets.Widget, visible: bool = True) -> None:
    widget.layout.display = None if visible else "none"


@styled
def _card(head: str, ask: str, foot: str) -> Picture:
    """The first state as a picture: what is asked, in letters for the back of the room."""
    lines = textwrap.wrap(ask, 60)
    height = 0.7 + 0.33 * len(lines)
    picture = Picture(height, foot)
    full = picture.get_figheight()
    picture.text(0.02, 1 - 0.15 / full, head, fontsize=13, color="#555555", va="top")
    picture.text(0.02, 1 - 0.5 / full, "\n".join(lines), fontsize=18, va="top", linespacing=1.3)
    picture.alt = f"{head}: {ask} {foot}"
    return picture


def _explorer(rows: Sequence[widgets.Widget], card: Picture, controls: Sequence[widgets.Widget]) -> Explorer:
    cold = {"image/png": card.png(), "text/plain": card.alt}
    return Explorer(widgets.VBox(list(rows), layout=WIDE), cold, card.alt, controls)


class Clock:
    """A clock to be seen. It ticks between `start` and `stop`, and only where an event loop runs."""

    def __init__(self):
        self.view = widgets.HTML("")
        self.task: asyncio.Task | None = None
        self.begun: float | None = None
        self.minutes = 0

    def reset(self, minutes: int) -> None:
        """Back to nought."""
        self.stop()
        self.begun, self.minutes = None, minutes
        self._draw(0)

    def start(self) -> None:
        """Begin to tick."""
        self.stop()
        self.begun = time.monotonic()
        try:
            self.task = asyncio.get_running_loop().create_task(self._tick())
        except RuntimeError:  # no loop: the time is taken all the same, and shown at the end
            self.task = None

    def stop(self) -> float:
        """Stop ticking. Returns the seconds since the start; 0 without one."""
        if self.task:
            self.task.cancel()
            self.task = None
        seconds = 0.0 if self.begun is None else time.monotonic() - self.begun
        self._draw(seconds)
        return seconds

    async def _tick(self) -> None:
        while (seconds := time.monotonic() - self.begun) < LONGEST:
            self._draw(seconds)
            await asyncio.sleep(1)

    def _draw(self, seconds: float) -> None:
        color = VERMILLION if seconds > 60 * self.minutes else "inherit"
        shown = _block(f"<b>{machine.clock(seconds, self.minutes)}</b> min", 130, color=color)
        self.view.value = shown if self.minutes else ""


class Asked:
    """One question on the screen: start, notes, the answer layer by layer, the rubric, the follow-ups."""

    LAYERS = ("Show answer", "Show more", "Show depth")
    STEPS = ("Follow-up 1", "Answer 1", "Follow-up 2", "Answer 2")

    def __init__(self, on_score: Callable[[tuple[str, ...], float], str]):
        self.on_score = on_score
        self.clock = Clock()
        self.question: Question | None = None
        self.head, self.answer, self.told, self.more = (widgets.HTML("", layout=WIDE) for _ in range(4))
        self.layer = self.step = 0  # of the answer; of the follow-ups
        self.seconds, self.steps = 0.0, list[str]()
        self.notes = widgets.Textarea(placeholder="notes, for yourself alone", rows=3, layout=WIDE)
        self.start = _button("Start", self.begin, "primary")
        self.show = _button(self.LAYERS[0], self._show_layer)
        self.boxes = {
            point: widgets.Checkbox(
                description=machine.LABELS[point], indent=False, layout=widgets.Layout(width="130px")
            )
            for point in machine.POINTS
        }
        self.earns = {point: widgets.HTML("", layout=WIDE) for point in machine.POINTS}
        self.score = _button("Score", self._score, "success")
        self.follow = _button(self.STEPS[0], self._follow)
        rubric = [widgets.HBox([self.boxes[point], self.earns[point]]) for point in machine.POINTS]
        says = widgets.HTML(_block("Tick what you <b>said</b>, not what you know.", 105))
        self.legend = widgets.HTML("", layout=WIDE)  # what the moves mean here
        self.rubric = widgets.VBox([says, self.legend, *rubric, self.score])
        buttons = widgets.HBox([self.start, self.show, self.clock.view])
        self.box = widgets.VBox(
            [self.head, buttons, self.notes, self.answer, self.rubric, self.told, self.follow, self.more]
        )

    @property
    def controls(self) -> list[widgets.Widget]:
        """What can be pressed or written into, in the order of Tab."""
        return [self.start, self.show, self.notes, *self.boxes.values(), self.score, self.follow]

    def pose(self, question: Question, minutes: int, head: str) -> None:
        """Put a question on the screen."""
        self.question, self.layer, self.seconds = question, 0, 0.0
        self.clock.reset(minutes)
        self.head.value = _text(head, 105, opacity="0.75") + _text(question.ask, 150)
        self.notes.value = self.answer.value = self.told.value = self.more.value = ""
        self.start.description, self.start.disabled = "Start", False
        self.show.description, self.show.disabled = self.LAYERS[0], False
        for point, earns in question.rubric.items():
            self.boxes[point].value, self.boxes[point].disabled = False, False
            self.earns[point].value = _text(earns, 105)
        self.legend.value = _text(question.legend, 105) if question.legend else ""
        self.score.disabled = False
        _show(self.rubric, False)
        self.offer([])

    def offer(self, follow_ups: Sequence[FollowUp]) -> None:
        """Let the follow-ups be uncovered, one after the other."""
        self.step, self.steps = 0, [text for each in follow_ups for text in (each.ask, each.answer)]
        self.follow.description, self.follow.disabled = self.STEPS[0], False
        _show(self.follow, bool(self.steps))

    def begin(self) -> None:
        """Start the clock; once more, from nought."""
        self.start.description = "Start again"
        self.clock.start()

    def _show_layer(self) -> None:
        if not self.layer:
            self.seconds = self.clock.stop()
            self.start.disabled = True
            _show(self.rubric)
        texts = (self.question.sentence, self.question.paragraph, self.question.depth)
        self.answer.value += _text(texts[self.layer], (130, 115, 115)[self.layer], margin="6px 0")
        self.layer += 1
        self.show.disabled = self.layer == len(texts)
        self.show.description = self.LAYERS[min(self.layer, len(texts) - 1)]

    def _score(self) -> None:
        said = tuple(point for point, box in self.boxes.items() if box.value)
        self.score.disabled = True
        for box in self.boxes.values():
            box.disabled = True
        self.told.value = _text(self.on_score(said, self.seconds), 120, font_weight="bold")

    def _follow(self) -> None:
        size = 115 if self.step % 2 else 130  # an answer, a question
        self.more.value += _text(self.steps[self.step], size, margin="6px 0")
        self.step += 1
        self.follow.disabled = self.step == len(self.steps)
        self.follow.description = self.STEPS[min(self.step, len(self.steps) - 1)]


def drill(
    level: str | None = None,
    topic: str | None = None,
    seed: int | None = None,
    *,
    bank: Sequence[Question] | None = None,
) -> Explorer:
    """One question after another: say the answer, look, tick what you said. What went badly comes back.

    Args:
        level: screen, onsite or expert; None: any.
        topic: one of `drill.TOPICS`; None: any.
        seed: the same questions again, for the same record.
        bank: other questions than the course's.
    """
    chosen = machine.select(machine.questions() if bank is None else bank, level, topic)
    session = machine.Session(chosen, random.Random(seed))
    line = widgets.HTML("")

    def scored(said: tuple[str, ...], _: float) -> str:
        told = session.score(asked.question, said, date.today())
        asked.offer(asked.question.follow_ups)
        tell()
        return told

    def tell() -> None:
        line.value = _text(machine.progress(chosen, session.record, date.today()), 100, opacity="0.75")

    def pose() -> None:
        question = session.next(date.today())
        asked.pose(question, question.minutes, _named(question))

    asked = Asked(scored)
    following = _button("Next", pose)
    tell()
    pose()
    foot = "Run this cell: say it aloud, look, tick what you said."
    card = _card(_named(asked.question), asked.question.ask, foot)
    return _explorer([asked.box, following, line], card, [*asked.controls, following])


def _named(question: Question) -> str:
    minutes = f"{question.minutes} minute{'s' * (question.minutes > 1)}"
    return f"{question.level} · {question.topic} · {minutes}"


class Sum:
    """A problem on the screen: a text field, Check, Working."""

    def __init__(self, on_check: Callable[[bool, float], None] = lambda right, seconds: None):
        self.on_check, self.problem, self.clock = on_check, None, Clock()
        self.head, self.told, self.lines = (widgets.HTML("", layout=WIDE) for _ in range(3))
        self.field = widgets.Text(placeholder="your answer, with its unit; or ?")
        self.check = _button("Check", self._check, "primary")
        self.working = _button("Working", self._work)
        row = widgets.HBox([self.field, self.check, self.working, self.clock.view])
        self.box = widgets.VBox([self.head, row, self.told, self.lines])

    @property
    def controls(self) -> list[widgets.Widget]:
        """What can be pressed or written into, in the order of Tab."""
        return [self.field, self.check, self.working]

    def pose(self, problem: Problem, minutes: int = 0) -> None:
        """Put a problem on the screen; with minutes, the clock runs."""
        self.problem = problem
        self.clock.reset(minutes)
        if minutes:
            self.clock.start()
        self.field.value = self.told.value = self.lines.value = ""
        self.head.value = _text(problem.ask, 150)

    def _check(self) -> None:
        graded = sums.grade(self.problem, self.field.value)
        self.told.value = _text(graded.message, 130)
        if not graded.readable:  # no answer yet: the clock runs on
            return
        seconds = self.clock.stop()
        if graded.right:
            self._work()
        self.on_check(graded.right, seconds)

    def _work(self) -> None:
        lines = (*self.problem.working, f"so {self.problem.shown}")
        self.lines.value = _block("<br>".join(map(html.escape, lines)), 120, font_family="monospace")


def arithmetic(seed: int | None = None, level: str | None = None) -> Explorer:
    """Problems with fresh numbers. Check names the slip if it knows it; Working shows what to write down."""
    series, asked = sums.Series(random.Random(seed), level), Sum()

    def pose() -> None:
        asked.pose(series.next())

    following = _button("Next", pose)
    pose()
    foot = "Run this cell: answer with a unit, check, and see the working."
    card = _card("arithmetic", asked.problem.ask, foot)
    return _explorer([asked.box, following], card, [*asked.controls, following])


def mock_interview(
    level: str = "onsite", seed: int = 0, *, bank: Sequence[Question] | None = None
) -> Explorer:
    """An interview of twenty minutes. How a part went decides what comes next; it ends with a scorecard."""
    interview = machine.Interview(machine.mock(level, seed, bank))
    line, card_view = widgets.HTML(""), widgets.HTML("")

    def scored(said: tuple[str, ...], seconds: float) -> str:
        follow_up = interview.answer(said, seconds)
        following.disabled = False
        asked.offer([follow_up])
        return f"{len(said)} of {len(machine.POINTS)} points"

    def checked(right: bool, seconds: float) -> None:
        if following.disabled:  # the first answer counts
            interview.answer(("right",) * right, seconds)
            following.disabled = solved.working.disabled = False

    def pose() -> None:
        following.disabled, stage = True, interview.stage
        _show(asked.box, bool(stage) and isinstance(interview.item, Question))
        _show(solved.box, bool(stage) and isinstance(interview.item, Problem))
        if not stage:
            finish()
            return
        number, minutes = len(interview.results) + 1, sum(each.minutes for each in interview.stages)
        told = f"{level}: part {number} of {len(interview.stages)}, {minutes} minutes in all"
        line.value = _text(told, 100)
        if isinstance(interview.item, Problem):
            solved.pose(interview.item, stage.minutes)
            solved.working.disabled = True  # until there is an answer
            return
        asked.pose(interview.item, stage.minutes, stage.title)
        asked.begin()

    def finish() -> None:
        complaint = interview.keep(date.today())
        rows = "".join(
            f"<tr><td><b>{html.escape(name)}</b> &nbsp;</td><td>{html.escape(text)}</td></tr>"
            for name, text in interview.scorecard()
        )
        card_view.value = _block(f"<table>{rows}</table>{html.escape(complaint)}", 115)
        line.value = _text("over: what went badly comes back in the drill", 100)

    asked, solved, following = Asked(scored), Sum(checked), _button("Next", pose)
    pose()
    foot = "Run this cell: twenty minutes, eight parts."
    card = _card(f"{level} · {interview.stage.title}", interview.item.ask, foot)
    controls = [*asked.controls, *solved.controls, following]
    return _explorer([line, asked.box, solved.box, card_view, following], card, controls)
