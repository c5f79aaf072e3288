"""The simulator, filmed: what each slot of the region is, from moment to moment."""

from collections.abc import Sequence
from dataclasses import dataclass

from course_lib.memory import Request, Scheduler, SlotCounts, make_allocator, serve
from course_lib.memory.allocators import Allocator, Extent


@dataclass(frozen=True)
class Frame:
    """A region at one moment."""

    num_slots: int
    extents: list[Extent]
    counts: SlotCounts
    time: float = 0.0  # seconds
    num_running: int = 0
    num_waiting: int = 0
    num_preemptions: int = 0  # so far


def frame(allocator: Allocator) -> Frame:
    """A region as it is now."""
    return Frame(allocator.num_slots, allocator.extents(), allocator.counts())


def film(
    requests: Sequence[Request],
    allocator: str,
    *,
    num_slots: int,
    seconds: float,
    every: float,
    max_len: int = 2048,
    block_size: int = 16,
    step_seconds: float = 0.05,
) -> list[Frame]:
    """Serve requests in the simulator, and keep a frame of the first `seconds` every so often.

    Args:
        requests, allocator, num_slots, max_len, block_size, step_seconds: as for `memory.simulate`.
        seconds: length of the film, in the simulator's time.
        every: seconds between two frames.

    Example:
        >>> crowd = [Request(0.0, 100, 100) for _ in range(10)]
        >>> reel = film(crowd, "reserve_max", num_slots=15_728, seconds=6.0, every=1.0)
        >>> [shot.num_running for shot in reel]
        [7, 7, 7, 7, 7, 3, 3]
    """
    scheduler = Scheduler(make_allocator(allocator, num_slots, max_len=max_len, block_size=block_size))
    reel: list[Frame] = []
    for stretch in serve(requests, scheduler, step_seconds, jump=False):
        if stretch.start < len(reel) * every - 1e-9:
            continue
        extents = scheduler.allocator.extents()
        shown = stretch.num_running, stretch.num_waiting, scheduler.num_preemptions
        reel.append(Frame(num_slots, extents, stretch.counts, stretch.start, *shown))
        if stretch.start > seconds - every:
            break
    return reel
