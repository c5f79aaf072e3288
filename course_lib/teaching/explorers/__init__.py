"""Pictures that answer to your hand: ipywidgets over `plots`, with no logic of their own.

Each shows one bundle: the live widget, a PNG of its first state and a line of text, so that a notebook that
does not run (GitHub, a fresh checkout) shows the picture. Core widgets only, for ipywidgets 7.7 and 8: a
control is observed, and sets the value of one HTML widget.
"""

from course_lib.teaching.explorers.attention import block_reader
from course_lib.teaching.explorers.bundle import Explorer, figure_html, quiz
from course_lib.teaching.explorers.drill import arithmetic, drill, mock_interview
from course_lib.teaching.explorers.kernels import kernel_stepper, softmax_stepper
from course_lib.teaching.explorers.kv_cache import answers, kv_calculator
from course_lib.teaching.explorers.memory import block_tables, memory_map
from course_lib.teaching.explorers.serving import schedule
from course_lib.teaching.explorers.sharing import fork_stepper, prefix_tree
from course_lib.teaching.explorers.whiteboard import whiteboard

__all__ = [
    "Explorer",
    "answers",
    "arithmetic",
    "block_reader",
    "block_tables",
    "drill",
    "figure_html",
    "fork_stepper",
    "kernel_stepper",
    "kv_calculator",
    "memory_map",
    "mock_interview",
    "prefix_tree",
    "quiz",
    "schedule",
    "softmax_stepper",
    "whiteboard",
]
