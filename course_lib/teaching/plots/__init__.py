"""The pictures of the course: state in, matplotlib Figure out.

Every picture shows the state of real objects. It carries one sentence that says what is to be seen: as its
caption, as its text/plain, and as the alt text of its PNG.
"""

from course_lib.teaching.plots.attention import block_reads, step_times
from course_lib.teaching.plots.canvas import RESERVED, Picture, request_color
from course_lib.teaching.plots.kernels import kernel_step, online_step, split_rules
from course_lib.teaching.plots.kv_cache import kv_budget, roofline, slabs, slot_map, times, work_map
from course_lib.teaching.plots.memory import (
    batch_bars,
    block_sizes,
    block_tables,
    memory_film,
    memory_map,
    shares_bars,
    shares_over_time,
)

__all__ = [
    "RESERVED",
    "Picture",
    "batch_bars",
    "block_reads",
    "block_sizes",
    "block_tables",
    "kernel_step",
    "kv_budget",
    "memory_film",
    "memory_map",
    "online_step",
    "request_color",
    "roofline",
    "shares_bars",
    "shares_over_time",
    "slabs",
    "slot_map",
    "split_rules",
    "step_times",
    "times",
    "work_map",
]
