"""The memory map with its timeline, and the block-table stepper."""

import ipywidgets as widgets

from course_lib.memory import Request, alpaca_like, azure_conversation_like, sharegpt_like
from course_lib.teaching import paper, plots
from course_lib.teaching.block_story import STORY, replay
from course_lib.teaching.explorers.bundle import LABEL, Explorer, picture_explorer
from course_lib.teaching.film import Frame, film

NUM_FRAMES = 60

# name -> (generator, longest request allowed, seconds a film lasts, requests a second: light, medium, heavy)
WORKLOADS = {
    "ShareGPT-like": (sharegpt_like, 2048, 90, (0.5, 2, 6)),
    "Alpaca-like": (alpaca_like, 2048, 15, (5, 30, 60)),
    "Azure-like": (azure_conversation_like, 8192, 60, (0.25, 1, 5)),
}
ALLOCATOR_NAMES = {
    "reserve max": "reserve_max",
    "reserve pow2": "reserve_pow2",
    "oracle": "reserve_exact",
    "paged": "paged",
}
HALF = widgets.Layout(width="430px")


def choice(
    label: str, options: dict | list, chosen: str, layout: widgets.Layout = HALF
) -> widgets.SelectionSlider:
    """One of a few. A slider and no list: JupyterLab takes the keys that a list would need (up, down, letters) for
    itself, and leaves left and right alone."""
    value = options[chosen] if isinstance(options, dict) else chosen
    pairs = list(options.items()) if isinstance(options, dict) else options
    return widgets.SelectionSlider(options=pairs, value=value, description=label, style=LABEL, layout=layout)


def make_film(workload: str, load: int, allocator: str) -> list[Frame]:
    """A film of one allocator under one workload. Requests longer than the workload's limit are left out."""
    generator, max_len, seconds, rates = WORKLOADS[workload]
    requests: list[Request] = generator(int(2 * rates[load] * seconds) + 10, rates[load], 1)
    served = [request for request in requests if request.total_len <= max_len]
    return film(
        served,
        allocator,
        num_slots=paper.NUM_SLOTS,
        seconds=seconds,
        every=seconds / NUM_FRAMES,
        max_len=max_len,
    )


def memory_map() -> Explorer:
    """Requests come and go in a region of slots: choose the allocator, the workload, the load and the moment."""
    allocator = choice("allocator", ALLOCATOR_NAMES, "reserve max")
    workload = choice("workload", list(WORKLOADS), "ShareGPT-like")
    load = choice("load", {"light": 0, "medium": 1, "heavy": 2}, "medium")
    moment = widgets.IntSlider(
        min=0, max=NUM_FRAMES - 1, value=42, description="moment", style=LABEL, layout=HALF, readout=False
    )
    films: dict[tuple, list[Frame]] = {}

    def draw() -> plots.Picture:
        chosen = workload.value, load.value, allocator.value
        if chosen not in films:
            films[chosen] = make_film(*chosen)
        reel = films[chosen]
        return plots.memory_film(reel, min(moment.value, len(reel) - 1), allocator.value)

    return picture_explorer([allocator, workload, load, moment], draw, per_row=2)


def block_tables() -> Explorer:
    """Sequences arrive, grow and end on a pool of 32 slots: step through, and follow a token to its slot."""
    step = widgets.IntSlider(min=0, max=len(STORY), value=5, description="step", style=LABEL, layout=HALF)
    block_size = widgets.SelectionSlider(
        options=[1, 2, 4, 8], value=4, description="block size", style=LABEL, layout=HALF
    )
    sequence = choice("follow a token of", list("ABCD"), "A")
    position = widgets.IntSlider(min=0, max=15, value=6, description="its position", style=LABEL, layout=HALF)

    def draw() -> plots.Picture:
        return plots.block_tables(replay(step.value, block_size.value), sequence.value, position.value)

    return picture_explorer([step, block_size, sequence, position], draw, per_row=2)
