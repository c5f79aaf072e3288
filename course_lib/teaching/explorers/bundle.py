"""One output for a live widget and for what is seen where nothing runs; the quiz."""

import base64
import html
import tomllib
from collections.abc import Callable, Sequence
from importlib.resources import files

import ipywidgets as widgets

from course_lib.teaching.plots import Picture

LABEL = {"description_width": "120px"}


class Explorer:
    """One output: a live widget, and what is seen where nothing runs."""

    def __init__(
        self,
        widget: widgets.Widget,
        cold: dict[str, object],
        alt: str,
        controls: Sequence[widgets.Widget] = (),
    ):
        self.widget = widget
        self.controls = list(controls)
        self.cold = cold  # mime type -> content: a PNG or HTML, and text/plain
        self.alt = alt

    def _repr_mimebundle_(self, include=None, exclude=None):
        live = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        bundle = {"application/vnd.jupyter.widget-view+json": live, **self.cold}
        return bundle, {"image/png": {"alt": self.alt}} if "image/png" in self.cold else {}


def figure_html(picture: Picture) -> str:
    """A picture for an HTML widget, with its alt text."""
    data = base64.b64encode(picture.png(small=False)).decode()
    return (
        f'<figure style="margin:0"><img style="max-width:100%" alt="{html.escape(picture.alt)}" '
        f'src="data:image/png;base64,{data}"></figure>'
    )


def picture_explorer(
    controls: Sequence[widgets.Widget], draw: Callable[[], Picture], per_row: int = 1
) -> Explorer:
    """Controls, `per_row` side by side, above a picture that is drawn anew when one of them changes."""
    first = draw()
    view = widgets.HTML(figure_html(first))

    def redraw(_change) -> None:
        view.value = figure_html(draw())

    for control in controls:
        control.observe(redraw, names="value")
    rows = [widgets.HBox(controls[n : n + per_row]) for n in range(0, len(controls), per_row)]
    box = widgets.VBox([*(rows if per_row > 1 else controls), view])
    return Explorer(box, {"image/png": first.png(), "text/plain": first.alt}, first.alt, controls)


def quiz(lesson: str) -> Explorer:
    """The lesson's questions; choosing an option says at once whether it is right, and why."""
    raw = tomllib.loads(
        files("course_lib.teaching.exercises").joinpath("quiz.toml").read_text(encoding="utf-8")
    )
    questions = [question for question in raw["question"] if question["lesson"] == lesson]
    if not questions:
        raise ValueError(f"no quiz for lesson {lesson!r}")
    cold, rows = [], []
    for number, question in enumerate(questions, start=1):
        rows += _question(number, question)
        texts = "".join(f"<li>{html.escape(text)}</li>" for text, _ in question["options"])
        right, why = question["options"][question["right"]]
        cold.append(
            f"<p><b>{number}. {html.escape(question['text'])}</b></p>"
            f"<ol style='list-style-type:lower-alpha'>{texts}</ol>"
            "<details style='margin-bottom:1em'><summary>answer</summary>"
            f"{html.escape(right)}. {html.escape(why)}</details>"
        )
    text = "\n".join(f"{n}. {question['text']}" for n, question in enumerate(questions, start=1))
    return Explorer(widgets.VBox(rows), {"text/html": "\n".join(cold), "text/plain": text}, text)


def _question(number: int, question: dict) -> list[widgets.Widget]:
    head = widgets.HTML(f"<b>{number}. {html.escape(question['text'])}</b>")
    options = [text for text, _ in question["options"]]
    choice = widgets.RadioButtons(options=options, value=None, layout=widgets.Layout(width="max-content"))
    feedback = widgets.HTML("")

    def told(change) -> None:
        chosen = options.index(change["new"])
        sign = "✓" if chosen == question["right"] else "✗"
        feedback.value = f"<b>{sign}</b> {html.escape(question['options'][chosen][1])}"

    choice.observe(told, names="value")
    return [head, choice, feedback]
