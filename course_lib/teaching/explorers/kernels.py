"""Kernel one, program by program and tile by tile; and online softmax, tile by tile."""

import ipywidgets as widgets

from course_lib.teaching import kernel_story, online_story, plots
from course_lib.teaching.explorers.bundle import LABEL, Explorer, picture_explorer
from course_lib.teaching.explorers.memory import HALF, choice


def kernel_stepper() -> Explorer:
    """What one program of kernel one reads and keeps, step by step, as recorded from a run."""
    steps = kernel_story.story()
    sequence = widgets.IntSlider(
        min=0, max=len(kernel_story.CONTEXTS) - 1, value=0, description="sequence", style=LABEL, layout=HALF
    )
    kv_head = widgets.IntSlider(
        min=0, max=kernel_story.KV_HEADS - 1, value=1, description="KV head", style=LABEL, layout=HALF
    )
    longest = max(sum((s.sequence, s.kv_head) == (each, 0) for s in steps) for each in range(3))
    step = widgets.IntSlider(min=1, max=longest, value=4, description="step", style=LABEL, layout=HALF)

    def draw() -> plots.Picture:
        return plots.kernel_step(steps, sequence.value, kv_head.value, step.value - 1)

    return picture_explorer([sequence, kv_head, step], draw, per_row=2)


def softmax_stepper() -> Explorer:
    """Scores of a real LLM's query arrive tile by tile; what is remembered, and the output so far."""
    queries = online_story.load()
    query = choice("query", list(queries), "scores that rise")
    tile = widgets.SelectionSlider(
        options=[1, 2, 4, 8, 24], value=4, description="tile", style=LABEL, layout=HALF
    )
    seen = widgets.IntSlider(min=0, max=24, value=3, description="tiles seen", style=LABEL, layout=HALF)
    rescale = choice("old sums are", {"rescaled": True, "left as they are": False}, "rescaled")

    def draw() -> plots.Picture:
        return plots.online_step(queries[query.value], tile.value, seen.value, rescale.value)

    return picture_explorer([query, tile, seen, rescale], draw, per_row=2)
