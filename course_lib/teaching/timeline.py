"""What each request does in each step of a Scheduler: notebook 07's timeline."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from course_lib.memory import Request, Scheduler, SlotCounts, make_allocator

WAITS, PREFILL, DECODE, PREEMPTED = "waits", "prefill", "decode", "preempted"


@dataclass
class Timeline:
    """Steps of a scheduler, one after the other."""

    requests: list[Request]  # arrival_time counts steps
    num_slots: int
    states: list[dict[int, str]] = field(default_factory=list)  # of each step: request -> what it does
    counts: list[SlotCounts] = field(default_factory=list)
    num_new: list[int] = field(default_factory=list)  # tokens that went through the model
    num_preemptions: int = 0
    num_recomputed: int = 0  # tokens whose keys and values had been computed before

    @property
    def num_steps(self) -> int:
        return len(self.states)

    def mean_running(self) -> float:
        busy = [sum(state in (PREFILL, DECODE) for state in states.values()) for states in self.states]
        return sum(busy) / len(busy)

    def mean_wait(self) -> float:
        """Steps that a request waits before its prompt goes in, on average."""
        waited = [0] * len(self.requests)
        for states in self.states:
            for key, state in states.items():
                waited[key] += state == WAITS
        return sum(waited) / len(waited)


def timeline(
    requests: Sequence[Request],
    allocator: str,
    *,
    num_slots: int,
    max_len: int,
    block_size: int = 16,
    max_num_batched_tokens: float = float("inf"),
) -> Timeline:
    """Serve requests step by step, and note down what each does in each step.

    Args:
        requests: arrival_time counts steps.
        allocator, num_slots, max_len, block_size: as for `memory.simulate`.
        max_num_batched_tokens: as for the Scheduler; a longer prompt comes in chunks.

    Example:
        >>> two = [Request(0, 20, 3), Request(0, 20, 3)]
        >>> run = timeline(two, "reserve_max", num_slots=32, max_len=32)
        >>> [states.get(1) for states in run.states]
        ['waits', 'waits', 'waits', 'prefill', 'decode', 'decode']
    """
    scheduler = Scheduler(
        make_allocator(allocator, num_slots, max_len=max_len, block_size=block_size),
        max_num_batched_tokens=max_num_batched_tokens,
    )
    run = Timeline(list(requests), num_slots)
    arrivals = sorted(range(len(requests)), key=lambda key: requests[key].arrival_time)
    computed: dict[int, int] = {}  # the most that a request ever had in the cache
    while arrivals or scheduler.waiting or scheduler.running:
        now = len(run.states)
        while arrivals and requests[arrivals[0]].arrival_time <= now:
            key = arrivals.pop(0)
            scheduler.add(key, requests[key])
        step = scheduler.schedule()
        states = {}
        for key in scheduler.waiting:
            states[key] = PREEMPTED if key in computed else WAITS
        for key, progress in scheduler.running.items():
            decodes = progress.num_known - progress.num_computed == 1 and step.num_new[key]
            states[key] = DECODE if decodes else PREFILL
            again = min(computed.get(key, 0), progress.num_computed + step.num_new[key])
            run.num_recomputed += max(0, again - progress.num_computed)
        run.states.append(states)
        run.counts.append(scheduler.allocator.counts())
        run.num_new.append(sum(step.num_new.values()))
        scheduler.complete(step)
        for key, progress in list(scheduler.running.items()):
            computed[key] = max(computed.get(key, 0), progress.num_computed)
            if progress.num_known == requests[key].total_len:
                scheduler.finish(key)
    run.num_preemptions = scheduler.num_preemptions
    return run
