"""The fork stepper and the prefix tree."""

import ipywidgets as widgets

from course_lib.teaching import fork_story, prefix_story
from course_lib.teaching.explorers.bundle import LABEL, Explorer, picture_explorer
from course_lib.teaching.explorers.memory import HALF
from course_lib.teaching.plots import Picture, sharing


def fork_stepper() -> Explorer:
    """One prompt forks into several outputs, which write, copy what they must, and end: step through."""
    step = widgets.IntSlider(min=0, max=1, description="step", style=LABEL, layout=HALF)
    outputs = widgets.IntSlider(
        min=2, max=len(fork_story.OUTPUTS), value=3, description="outputs", style=LABEL, layout=HALF
    )
    # More outputs make a longer story.
    widgets.dlink((outputs, "value"), (step, "max"), lambda number: len(fork_story.moves(number)))
    step.value = 2

    def draw() -> Picture:
        return sharing.fork_step(fork_story.replay(step.value, outputs.value))

    return picture_explorer([step, outputs], draw, per_row=2)


def prefix_tree() -> Explorer:
    """Requests that begin alike come and end on a pool that caches prefixes: step through."""
    step = widgets.IntSlider(
        min=0, max=len(prefix_story.STORY), value=2, description="step", style=LABEL, layout=HALF
    )

    def draw() -> Picture:
        return sharing.prefix_tree(prefix_story.replay(step.value))

    return picture_explorer([step], draw)
