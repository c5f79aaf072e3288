"""Pictures that answer to your hand: ipywidgets over `plots`, with no logic of their own.

Each shows one bundle: the live widget, a PNG of its first state and a line of text, so that a notebook that
does not run (GitHub, a fresh checkout) shows the picture. Core widgets only, for ipywidgets 7.7 and 8: a
control is observed, and sets the value of one HTML widget.
"""

import base64
import html
import textwrap
import tomllib
from importlib.resources import files

import ipywidgets as widgets
from IPython.display import display
from tokenizers import Tokenizer

from course_lib.serving.kv_cache import ContiguousCache
from course_lib.serving.model import LlamaModel
from course_lib.serving.static_batch import greedy_steps
from course_lib.serving.weights import chat_prompt
from course_lib.teaching import plots
from course_lib.teaching.presets import Budget, load_presets

LABEL = {"description_width": "120px"}


class Explorer:
    """One output: a live widget, and what is seen where nothing runs."""

    def __init__(self, widget: widgets.Widget, cold: dict[str, object], alt: str):
        self.widget = widget
        self.cold = cold  # mime type -> content: a PNG or HTML, and text/plain
        self.alt = alt

    def _repr_mimebundle_(self, include=None, exclude=None):
        live = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        bundle = {"application/vnd.jupyter.widget-view+json": live, **self.cold}
        return bundle, {"image/png": {"alt": self.alt}} if "image/png" in self.cold else {}


def figure_html(picture: plots.Picture) -> str:
    """A picture for an HTML widget, with its alt text."""
    data = base64.b64encode(picture.png(small=False)).decode()
    return (
        f'<figure style="margin:0"><img style="max-width:100%" alt="{html.escape(picture.alt)}" '
        f'src="data:image/png;base64,{data}"></figure>'
    )


def _picture_explorer(controls: list[widgets.Widget], draw) -> Explorer:
    """Controls above a picture that is drawn anew when one of them changes."""
    first = draw()
    view = widgets.HTML(figure_html(first))

    def redraw(_change) -> None:
        view.value = figure_html(draw())

    for control in controls:
        control.observe(redraw, names="value")
    box = widgets.VBox([*controls, view])
    return Explorer(box, {"image/png": first.png(), "text/plain": first.alt}, first.alt)


def kv_calculator() -> Explorer:
    """What fits on which GPU: choose a model, a context, a batch, a number format and a GPU."""
    models, gpus = load_presets()
    wide = widgets.Layout(width="520px")
    model = widgets.Dropdown(
        options=list(models), value="Llama-3.1-8B", description="model", style=LABEL, layout=wide
    )
    gpu = widgets.Dropdown(
        options=list(gpus), value="NVIDIA A100 80GB SXM", description="GPU", style=LABEL, layout=wide
    )
    num_gpus = widgets.SelectionSlider(
        options=[1, 2, 4, 8, 16], value=1, description="GPUs", style=LABEL, layout=wide
    )
    context = widgets.SelectionSlider(
        options=[2**power for power in range(7, 18)],
        value=8192,
        description="tokens each",
        style=LABEL,
        layout=wide,
    )
    batch = widgets.SelectionSlider(
        options=[2**power for power in range(11)], value=32, description="requests", style=LABEL, layout=wide
    )
    number = widgets.Dropdown(
        options=[("fp32, 4 bytes", 4), ("fp16 or bf16, 2 bytes", 2), ("fp8, 1 byte", 1)],
        value=2, description="number format", style=LABEL, layout=wide,
    )  # fmt: skip

    def draw() -> plots.Picture:
        chosen = models[model.value], gpus[gpu.value]
        return plots.kv_budget(Budget(*chosen, context.value, batch.value, number.value, num_gpus.value))

    return _picture_explorer([model, gpu, num_gpus, context, batch, number], draw)


def answer(
    model: LlamaModel,
    tokenizer: Tokenizer,
    prompt: str,
    cache: ContiguousCache,
    max_tokens: int,
    every: int = 3,
) -> None:
    """Let the LLM answer a user's message while its slab fills; then print the answer.

    Args:
        cache: with a slab 0 that is empty and long enough. It is filled, and yours to look at afterwards.
        every: tokens between two pictures.
    """
    tokens = tokenizer.encode(chat_prompt(prompt)).ids
    before, after = (len(tokenizer.encode(part).ids) for part in chat_prompt("\0").split("\0"))
    kinds = ["template"] * before + ["prompt"] * (len(tokens) - before - after) + ["template"] * after
    prompt_len = len(tokens)
    steps = greedy_steps(model, [tokens], cache, max_tokens, model.config.eos_token_ids)

    def draw() -> plots.Picture:
        texts = [tokenizer.decode([token], skip_special_tokens=False) for token in tokens]
        return plots.slot_map(cache, texts, kinds + ["answer"] * (len(tokens) - prompt_len))

    tokens.append(next(steps)[0])
    first = draw()
    view = widgets.HTML(figure_html(first))
    display(Explorer(widgets.VBox([view]), {"image/png": first.png(), "text/plain": first.alt}, first.alt))
    for number, new in enumerate(steps, start=1):
        tokens.append(new[0])
        if number % every == 0:
            view.value = figure_html(draw())
    view.value = figure_html(draw())
    print(textwrap.fill(tokenizer.decode(tokens[prompt_len:]), 100))


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
