"""A clock around the Scheduler: requests and an allocator in, shares of memory over time out.

Nothing is computed and no time is measured: a step takes as long as you say. What the figures say about memory
they say about the engine, because the engine runs the same Scheduler.

Source: the experiments of Kwon et al. (SOSP 2023), Figs 2, 12 and 13.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from course_lib.memory.allocators import WATERMARK, SlotCounts, check_length, make_allocator
from course_lib.memory.block_pool import positive_int
from course_lib.memory.scheduler import Progress, Scheduler
from course_lib.memory.workloads import Request

NO_SLOTS = SlotCounts(0, 0, 0, 0)
MAX_STRETCHES = 4096  # that a timeline keeps; beyond, neighbours are merged


@dataclass(frozen=True)
class Stretch:
    """Some steps in a row. `counts` and `num_running` are added up over them: divide by `num_steps` for means."""

    start: float = 0.0  # seconds
    num_steps: int = 0
    counts: SlotCounts = NO_SLOTS
    num_running: int = 0
    num_waiting: int = 0  # at its start

    def __add__(self, later: "Stretch") -> "Stretch":
        return Stretch(
            self.start,
            self.num_steps + later.num_steps,
            self.counts + later.counts,
            self.num_running + later.num_running,
            self.num_waiting,
        )

    def shares(self) -> dict[str, float]:
        """Mean shares of all slots: token_states, reserved, internal, external. They add up to 1."""
        counts = asdict(self.counts)
        all_slots = sum(counts.values())
        return {kind: count / all_slots for kind, count in counts.items()}


@dataclass
class Simulation:
    """What came out.

    `shares` and `mean_running` are means over the steps in which a request waits, which is when memory is what
    holds the machine back; over all steps if none ever waits. A normalized latency is the time from a request's arrival
    to its last token, divided by the tokens of its output: the paper's measure, in seconds a token.
    """

    shares: dict[str, float] = field(default_factory=dict)  # token_states, reserved, internal, external
    mean_running: float = 0.0
    num_preemptions: int = 0
    num_finished: int = 0
    num_steps: int = 0
    latencies: list[float] = field(default_factory=list)  # normalized, of those served, in the order given
    refused: list[Request] = field(default_factory=list)  # they could not run even alone
    reasons: list[str] = field(default_factory=list)  # of the refusals, one for each
    timeline: list[Stretch] = field(default_factory=list)


def simulate(
    requests: Sequence[Request],
    allocator: str,
    *,
    num_slots: int,
    max_len: int = 2048,
    block_size: int = 16,
    step_seconds: float = 0.05,
    watermark: float = WATERMARK,
) -> Simulation:
    """Serve requests, and see where the memory goes.

    In every step each running request makes one token, and a prompt costs nothing more than that. During its
    step k a request holds prompt + k - 1 tokens: the k-th token of the output is being made, and its slot counts as
    reserved. Requests that cannot run even alone are refused, and the rest is served.

    Args:
        requests: in any order; served by arrival time.
        allocator: "reserve_max", "reserve_pow2", "reserve_exact" or "paged".
        num_slots: of the KV cache; one holds one token.
        max_len: longest request allowed, in tokens. What "reserve_max" reserves.
        block_size, watermark: of paging.
        step_seconds: how long a step takes.

    Raises:
        ValueError: an unknown allocator, or a number out of range.

    Example:
        >>> crowd = [Request(0.0, 100, 100) for _ in range(50)]
        >>> [simulate(crowd, name, num_slots=15_728).mean_running for name in ("reserve_max", "paged")]
        [7.0, 50.0]
    """
    owner_of_slots = make_allocator(
        allocator, num_slots, max_len=max_len, block_size=block_size, watermark=watermark
    )
    scheduler, result = Scheduler(owner_of_slots), Simulation()
    positive_int("max_len", max_len)  # paging does not ask for it
    able = []
    for request in requests:
        try:
            check_length(request, max_len)
            owner_of_slots.check_fits(request)
            able.append(request)
        except ValueError as reason:
            result.refused.append(request)
            result.reasons.append(str(reason))
    all_steps, crowded, timeline = Stretch(), Stretch(), _Timeline()
    ends: dict[int, float] = {}
    for stretch in serve(able, scheduler, step_seconds, on_finish=ends.__setitem__):
        all_steps += stretch
        if stretch.num_waiting:
            crowded += stretch
        timeline.add(stretch)
    result.num_finished, result.num_steps = len(able), all_steps.num_steps
    result.num_preemptions, result.timeline = scheduler.num_preemptions, timeline.kept
    result.latencies = [
        (ends[key] - request.arrival_time) / request.output_len for key, request in enumerate(able)
    ]
    if measured := crowded if crowded.num_steps else all_steps if able else None:
        result.shares = measured.shares()
        result.mean_running = measured.num_running / measured.num_steps
    return result


def serve(
    requests: Sequence[Request],
    scheduler: Scheduler,
    step_seconds: float,
    *,
    jump: bool = True,
    on_finish: Callable[[int, float], object] | None = None,
) -> Iterator[Stretch]:
    """Drive a scheduler with a clock, until every request is served. Keys are the numbers of the requests.

    While the caller holds a stretch, scheduler and allocator are in the state of its last step, so that it may
    look at them.

    Args:
        requests: in any order; they arrive at their arrival time.
        scheduler: with nothing running. Every request must fit alone.
        step_seconds: how long a step takes.
        jump: do steps that only let everybody grow at once; otherwise each is a stretch of its own.
        on_finish: called with the number of each request that is served, and the time.

    Raises:
        ValueError: step_seconds is no number above 0.
    """
    arrivals = sorted(range(len(requests)), key=lambda key: requests[key].arrival_time)
    clock, arrived = _Clock(step_seconds), 0

    def finish_whoever_is_done() -> bool:
        done = [key for key, progress in scheduler.running.items() if _remaining(progress) == 0]
        for key in done:
            scheduler.finish(key)
            if on_finish:
                on_finish(key, clock.now)
        return bool(done)

    def stretch(num_steps: int, counts: SlotCounts) -> Stretch:
        num_running = num_steps * len(scheduler.running)
        return Stretch(clock.now, num_steps, counts, num_running, len(scheduler.waiting))

    while arrived < len(arrivals) or scheduler.waiting or scheduler.running:
        if not scheduler.waiting and not scheduler.running:
            clock.wait_for(requests[arrivals[arrived]].arrival_time)
        while arrived < len(arrivals) and requests[arrivals[arrived]].arrival_time <= clock.now:
            scheduler.add(arrivals[arrived], requests[arrivals[arrived]])
            arrived += 1

        step = scheduler.schedule()
        yield stretch(1, scheduler.allocator.counts())
        scheduler.complete(step)
        clock.num_steps += 1
        if finish_whoever_is_done() or not jump:
            continue

        # Then nothing but growth, until somebody finishes, may be admitted, or finds no room.
        quiet = min(_remaining(progress) for progress in scheduler.running.values())
        if arrived < len(arrivals) and not scheduler.waiting:
            quiet = min(quiet, clock.steps_before(requests[arrivals[arrived]].arrival_time))
        if quiet := scheduler.quiet_steps(quiet):
            yield stretch(quiet, scheduler.skip(quiet))
            clock.num_steps += quiet
            finish_whoever_is_done()


def _remaining(progress: Progress) -> int:
    """Tokens that a request has still to make."""
    return progress.request.total_len - progress.num_known


class _Clock:
    """Steps of equal length, counted from the last time the machine was idle: no sum of roundings."""

    def __init__(self, step_seconds: float):
        if not (isinstance(step_seconds, (int, float)) and 0 < step_seconds < math.inf):
            raise ValueError(f"step_seconds must be a number of seconds above 0, got {step_seconds!r}")
        self.step_seconds, self.begin, self.num_steps = step_seconds, 0.0, 0

    @property
    def now(self) -> float:
        return self.begin + self.num_steps * self.step_seconds

    def wait_for(self, time: float) -> None:
        """The machine is idle until `time`, or that has passed."""
        self.begin, self.num_steps = max(time, self.now), 0

    def steps_before(self, time: float) -> int:
        """How many steps, from now on, begin before `time`."""
        last = max(self.num_steps, int((time - self.begin) / self.step_seconds) - 1)
        while self.begin + last * self.step_seconds < time:
            last += 1
        return last - self.num_steps


class _Timeline:
    """Stretches in order, at most MAX_STRETCHES: when there are more, neighbours are merged."""

    def __init__(self):
        self.kept: list[Stretch] = []
        self.merged = 1  # stretches that one entry stands for
        self.num_in_last = 1

    def add(self, stretch: Stretch) -> None:
        if self.num_in_last < self.merged:
            self.kept[-1] += stretch
            self.num_in_last += 1
            return
        if len(self.kept) == MAX_STRETCHES:
            self.kept = [a + b for a, b in zip(self.kept[::2], self.kept[1::2], strict=True)]
            self.merged *= 2
        self.kept.append(stretch)
        self.num_in_last = 1
