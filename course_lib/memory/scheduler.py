"""Who runs in the next step, who waits, who is preempted: continuous batching, first come, first served.

A step is one pass of the model over all requests that run. Two users drive the same Scheduler: the simulator,
which only moves a clock, and an engine, which calls a model:

    step = scheduler.schedule()          # room is made; who computes how many tokens
    ...                                  # the model runs, or the clock moves
    for key in scheduler.complete(step): # these have made a token
        ...                              # was it the last? then scheduler.finish(key)

Source: Orca (Yu et al., OSDI 2022) for scheduling by step; Kwon et al. (SOSP 2023), section 4.5, for preemption
of the last come and recomputation; num_known and num_computed are the two counters of vLLM V1's scheduler.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from course_lib.memory.allocators import Allocator, SlotCounts
from course_lib.memory.block_pool import OutOfBlocks
from course_lib.memory.workloads import Request


@dataclass
class Progress:
    """How far a request has come."""

    key: int
    request: Request
    num_known: int  # tokens that have been read or made: the prompt, and the output so far
    num_computed: int = 0  # of these, tokens whose keys and values are in the cache
    num_held: int = 0  # tokens that the allocator has made room for
    token_ids: Sequence[int] | None = None  # the known tokens themselves, for those who cache prefixes


@dataclass
class Step:
    """What happens in one step."""

    num_new: dict[int, int] = field(default_factory=dict)  # key -> tokens that go through the model now
    admitted: list[int] = field(default_factory=list)
    preempted: list[int] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)  # blocks to copy before anything is written


class Scheduler:
    """Continuous batching over an allocator.

    In every step each running request computes the tokens that it knows and has no keys and values for: all of its
    prompt first (in chunks, if the budget of tokens is smaller), then one token a step. Requests that wait are admitted
    in the order of their arrival, and nobody overtakes. When a running request finds no room, the last come is
    preempted: it gives up all its slots, waits in front of all others, and later computes its tokens anew.

    Args:
        allocator: owns the slots.
        max_num_seqs: requests that may run at once.
        max_num_batched_tokens: tokens that may go through the model in one step.

    Example:
        >>> from course_lib.memory.allocators import PagedAllocator
        >>> scheduler = Scheduler(PagedAllocator(num_slots=64, block_size=16), max_num_batched_tokens=20)
        >>> scheduler.add(7, Request(0.0, prompt_len=30, output_len=2))
        >>> for _ in range(3):
        ...     step = scheduler.schedule()
        ...     print(step.num_new, scheduler.complete(step))
        {7: 20} []
        {7: 10} [7]
        {7: 1} [7]
        >>> scheduler.finish(7)
    """

    def __init__(
        self,
        allocator: Allocator,
        *,
        max_num_seqs: float = math.inf,
        max_num_batched_tokens: float = math.inf,
    ):
        for name, limit in [
            ("max_num_seqs", max_num_seqs),
            ("max_num_batched_tokens", max_num_batched_tokens),
        ]:
            if isinstance(limit, bool) or (limit != math.inf and (limit < 1 or limit != int(limit))):
                raise ValueError(f"{name} must be a whole number of at least 1, got {limit!r}")
        self.allocator = allocator
        self.max_num_seqs, self.max_num_batched_tokens = max_num_seqs, max_num_batched_tokens
        self.waiting: OrderedDict[int, Progress] = OrderedDict()  # by key, the next to be admitted first
        self.running: dict[int, Progress] = {}  # by key, in the order of arrival
        self.num_preemptions = 0

    def add(self, key: int, request: Request, token_ids: Sequence[int] | None = None) -> None:
        """A request arrives, and waits.

        Args:
            token_ids: its tokens, if the allocator caches prefixes; a list that grows with what the request makes.

        Raises:
            ValueError: it could not run even alone, or its key is taken.
        """
        if key in self.running or key in self.waiting:
            raise ValueError(f"request {key} runs or waits already: give each request a key of its own")
        self.allocator.check_fits(request)
        self.waiting[key] = Progress(key, request, num_known=request.prompt_len, token_ids=token_ids)

    def fork(self, parent: int, child: int, token_ids: Sequence[int] | None = None) -> None:
        """A second sequence that goes on from where a running one is. It shares what is cached, if the allocator can
        share and there is a place; else it waits in front of all others, and computes all of it anew."""
        if child in self.running or child in self.waiting:
            raise ValueError(f"request {child} runs or waits already: give each request a key of its own")
        source = self.running[parent]
        progress = Progress(child, source.request, source.num_known, token_ids=token_ids)
        if len(self.running) < self.max_num_seqs and self.allocator.fork(parent, child):
            progress.num_computed, progress.num_held = source.num_computed, source.num_held
            self.running[child] = progress
        else:
            self.waiting[child] = progress
            self.waiting.move_to_end(child, last=False)

    def schedule(self) -> Step:
        """Decide who runs now, and make room for it."""
        step, budget = Step(), self.max_num_batched_tokens
        for key, progress in list(self.running.items()):
            if key in self.running and self._make_room(progress, step):  # it may have been preempted by now
                budget -= self._take(progress, budget, step)
        while self.waiting and budget > 0 and len(self.running) < self.max_num_seqs:
            progress = next(iter(self.waiting.values()))
            known = progress.key, progress.request, progress.num_known, progress.token_ids
            if not self.allocator.admit(*known):
                break
            self.running[progress.key] = self.waiting.pop(progress.key)
            progress.num_held = progress.num_known
            progress.num_computed = self.allocator.num_cached(progress.key)
            step.admitted.append(progress.key)
            budget -= self._take(progress, budget, step)
        return step

    def _take(self, progress: Progress, budget: float, step: Step) -> int:
        step.num_new[progress.key] = min(progress.num_known - progress.num_computed, budget)
        return step.num_new[progress.key]

    def _make_room(self, progress: Progress, step: Step) -> bool:
        """Slots for all known tokens, at the cost of the last come; False if that is the request itself."""
        while progress.num_held < progress.num_known:
            try:
                step.copies += self.allocator.grow(progress.key, progress.num_known - progress.num_held)
                progress.num_held = progress.num_known
            except OutOfBlocks:
                victim = next(reversed(self.running.values()))
                self._preempt(victim)
                step.preempted.append(victim.key)
                if victim is progress:
                    return False
        return True

    def _preempt(self, victim: Progress) -> None:
        self.allocator.release(victim.key)
        del self.running[victim.key]
        victim.num_computed = victim.num_held = 0
        self.num_preemptions += 1
        self.waiting[victim.key] = victim
        self.waiting.move_to_end(victim.key, last=False)

    def complete(self, step: Step) -> list[int]:
        """The model has run. Returns the keys of the requests that made a token, which is known from now on. Those that
        were aborted in the meantime are passed over."""
        made = []
        for key, num_new in step.num_new.items():
            if key not in self.running:
                continue
            progress = self.running[key]
            progress.num_computed += num_new
            if progress.num_computed == progress.num_known:
                progress.num_known += 1
                made.append(key)
        return made

    def finish(self, key: int) -> None:
        """A running request has made its last token: its slots are free."""
        del self.running[key]
        self.allocator.release(key)

    def abort(self, key: int) -> None:
        """A request is given up, whether it runs or waits.

        Raises:
            ValueError: nobody knows it.
        """
        if key in self.running:
            self.finish(key)
        elif key in self.waiting:
            del self.waiting[key]
        else:
            raise ValueError(f"request {key} neither runs nor waits")

    # -- for a clock that jumps -------------------------------------------------------------------------------

    def quiet_steps(self, limit: int) -> int:
        """How many steps, up to `limit`, would only let every running request grow by one token, if nobody arrives
        and nobody finishes. To be asked after a step in which nobody finished: whoever waits in front was refused in
        it, and growth makes no room. (Under a budget of tokens it may not have been tried: then every step counts.)
        """
        decoding = all(
            progress.num_held == progress.num_computed == progress.num_known - 1
            for progress in self.running.values()
        )
        unlimited = self.max_num_batched_tokens == math.inf
        return self.allocator.steps_with_room(limit) if decoding and unlimited else 0

    def skip(self, num_steps: int) -> SlotCounts:
        """Do `num_steps` quiet steps at once. Returns the allocator's counts, added up over them."""
        for progress in self.running.values():
            progress.num_known += num_steps
            progress.num_computed += num_steps
            progress.num_held += num_steps
        return self.allocator.grow_all(num_steps)
