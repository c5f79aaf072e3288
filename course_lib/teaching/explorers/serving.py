"""The timeline of requests: who waits, who runs, who is thrown out."""

import ipywidgets as widgets

from course_lib.memory import Request
from course_lib.teaching import plots
from course_lib.teaching.explorers.bundle import LABEL, Explorer, picture_explorer
from course_lib.teaching.explorers.memory import HALF, choice
from course_lib.teaching.serving_runs import chats
from course_lib.teaching.timeline import Timeline, timeline

NUM_REQUESTS, MAX_LEN = 24, 256


def make_timeline(allocator: str, every: int, slabs: int, budget: int) -> Timeline:
    """24 chats, one every `every` steps, on the slots of so many slabs, with a budget of tokens a step."""
    requests = [
        Request(every * number, each.prompt_len, each.output_len)
        for number, each in enumerate(chats(NUM_REQUESTS))
    ]
    return timeline(
        requests,
        allocator,
        num_slots=slabs * MAX_LEN,
        max_len=MAX_LEN,
        block_size=4,
        max_num_batched_tokens=budget,
    )


def schedule() -> Explorer:
    """24 chats on a small cache: choose the allocator, how fast they come, the memory, and the tokens a step."""
    allocator = choice("allocator", {"reserve max": "reserve_max", "paged": "paged"}, "paged")
    every = widgets.IntSlider(min=0, max=12, value=1, description="steps apart", style=LABEL, layout=HALF)
    slabs = widgets.IntSlider(min=1, max=8, value=2, description="memory [slabs]", style=LABEL, layout=HALF)
    budget = widgets.SelectionSlider(
        options=[24, 32, 64, 128, 512], value=512, description="tokens a step", style=LABEL, layout=HALF
    )

    def draw() -> plots.Picture:
        run = make_timeline(allocator.value, every.value, slabs.value, budget.value)
        return plots.timeline(run, allocator.value)

    return picture_explorer([allocator, every, slabs, budget], draw, per_row=2)
