"""The pictures of the course: state in, matplotlib Figure out.

Every picture shows the state of real objects. It carries one sentence that says what is to be seen: as its
caption, as its text/plain, and as the alt text of its PNG.
"""

from course_lib.teaching.plots.attention import block_reads, step_times
from course_lib.teaching.plots.canvas import RESERVED, Picture, request_color
from course_lib.teaching.plots.cheat_sheet import cheat_sheet
from course_lib.teaching.plots.clinic import pool_map, vitals
from course_lib.teaching.plots.kernels import kernel_step, online_step, split_rules
from course_lib.teaching.plots.kv_cache import block_map, kv_budget, roofline, slabs, times, work_map
from course_lib.teaching.plots.memory import (
    batch_bars,
    block_sizes,
    block_tables,
    memory_film,
    memory_map,
    shares_bars,
    shares_over_time,
)
from course_lib.teaching.plots.ranks import ranks
from course_lib.teaching.plots.serving import latency, payback, timeline, token_gaps
from course_lib.teaching.plots.sharing import fork_step, prefix_tree
from course_lib.teaching.plots.whiteboard import whiteboard

__all__ = [
    "RESERVED",
    "Picture",
    "batch_bars",
    "block_map",
    "block_reads",
    "block_sizes",
    "block_tables",
    "cheat_sheet",
    "fork_step",
    "kernel_step",
    "kv_budget",
    "latency",
    "memory_film",
    "memory_map",
    "online_step",
    "payback",
    "pool_map",
    "prefix_tree",
    "ranks",
    "request_color",
    "roofline",
    "shares_bars",
    "shares_over_time",
    "slabs",
    "split_rules",
    "step_times",
    "timeline",
    "times",
    "token_gaps",
    "vitals",
    "whiteboard",
    "work_map",
]
