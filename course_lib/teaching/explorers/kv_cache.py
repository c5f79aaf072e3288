"""The KV calculator, and a real LLM filling its blocks."""

import textwrap

import ipywidgets as widgets
from IPython.display import display

from course_lib.serving import LLMEngine, RequestOutput, SamplingParams, chat_prompt
from course_lib.teaching import plots
from course_lib.teaching.explorers.bundle import LABEL, Explorer, figure_html, picture_explorer
from course_lib.teaching.explorers.memory import choice
from course_lib.teaching.presets import Budget, load_presets


def kv_calculator() -> Explorer:
    """What fits on which GPU: choose a model, a context, a batch, a number format and a GPU."""
    models, gpus = load_presets()
    wide = widgets.Layout(width="560px")
    model = choice("model", list(models), "Llama-3.1-8B", wide)
    gpu = choice("GPU", list(gpus), "NVIDIA A100 80GB SXM", wide)
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
    formats = {"fp32, 4 bytes": 4, "fp16 or bf16, 2 bytes": 2, "fp8, 1 byte": 1}
    number = choice("number format", formats, "fp16 or bf16, 2 bytes", wide)

    def draw() -> plots.Picture:
        chosen = models[model.value], gpus[gpu.value]
        return plots.kv_budget(Budget(*chosen, context.value, batch.value, number.value, num_gpus.value))

    return picture_explorer([model, gpu, num_gpus, context, batch, number], draw)


def answers(
    engine: LLMEngine, messages: dict[str, str], max_tokens: int, every: int = 4
) -> list[RequestOutput]:
    """Let the LLM answer several users at once while its blocks fill; then print the answers.

    Args:
        engine: paged and fresh.
        messages: user -> message.
        every: steps between two pictures. The last one is of the fullest pool.
    """
    names, done = list(messages), dict[int, RequestOutput]()
    for message in messages.values():
        engine.add_request(chat_prompt(message), SamplingParams(max_tokens=max_tokens))
    engine.step()  # the prompts
    first = plots.block_map(engine, names)
    view = widgets.HTML(figure_html(first))
    display(Explorer(widgets.VBox([view]), {"image/png": first.png(), "text/plain": first.alt}, first.alt))
    step, most, fullest = 0, 0, view.value
    while engine.has_unfinished():
        done |= {output.request_id: output for output in engine.step()}
        step, taken = step + 1, engine.allocator.pool.num_blocks - engine.allocator.pool.num_free
        if taken > most or (step % every == 0 and engine.has_unfinished()):
            view.value = figure_html(plots.block_map(engine, names))
        if taken > most:
            most, fullest = taken, view.value
    view.value = fullest
    for number, name in enumerate(names):
        print(textwrap.fill(f"{name}: {done[number].outputs[0].text.strip()}", 100))
    return [done[number] for number in range(len(names))]
