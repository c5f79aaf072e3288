"""The whiteboard of notebook 11."""

from functools import cache

import ipywidgets as widgets

from course_lib.teaching import plots
from course_lib.teaching.explorers.bundle import LABEL, Explorer, picture_explorer
from course_lib.teaching.explorers.memory import HALF
from course_lib.teaching.plots.whiteboard import NUM_STEPS
from course_lib.teaching.plots.whiteboard import whiteboard as board_after


def whiteboard() -> Explorer:
    """The board of a five-minute answer, drawn step by step. It begins with the whole of it, which is what is seen
    where nothing runs. A step that was on the screen is not drawn again."""
    drawn = cache(board_after)
    step = widgets.IntSlider(
        min=1, max=NUM_STEPS, value=NUM_STEPS, description="step", style=LABEL, layout=HALF
    )

    def draw() -> plots.Picture:
        return drawn(step.value)

    return picture_explorer([step], draw)
