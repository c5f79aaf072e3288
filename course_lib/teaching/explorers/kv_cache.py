"""The KV calculator, and a real LLM filling its slab."""

import textwrap

import ipywidgets as widgets
from IPython.display import display
from tokenizers import Tokenizer

from course_lib.serving.kv_cache import ContiguousCache
from course_lib.serving.model import LlamaModel
from course_lib.serving.static_batch import greedy_steps
from course_lib.serving.weights import chat_prompt
from course_lib.teaching import plots
from course_lib.teaching.explorers.bundle import LABEL, Explorer, figure_html, picture_explorer
from course_lib.teaching.presets import Budget, load_presets


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

    return picture_explorer([model, gpu, num_gpus, context, batch, number], draw)


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
