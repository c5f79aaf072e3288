"""Four plans for the slots of a KV cache, behind one interface: three that reserve ahead, and paging.

An allocator owns `num_slots` slots in a row; one slot holds one token's keys and values. At every moment each
slot is one of four things, and the four counts add up to `num_slots`:

    token_states   it holds a token
    reserved       it belongs to a request that will still fill it
    internal       it belongs to a request that will never fill it
    external       it belongs to nobody (free), or to the rounding of the buddy allocator

`reserved` and `internal` are told apart with hindsight: an allocator is told how long each output will be, and
only `reserve_pow2` and `reserve_exact` use it, as an oracle would. Rounding counts as external, as in the paper.

Source: Kwon et al. (SOSP 2023), sections 3.1 and 6.1: Orca (Max), Orca (Pow2), Orca (Oracle), vLLM.
"""

from bisect import bisect_right
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from course_lib.memory.block_pool import BlockPool, positive_int
from course_lib.memory.block_table import BlockTable
from course_lib.memory.regions import BuddyRegion, FitRegion
from course_lib.memory.workloads import Request

WATERMARK = (
    0.01  # share of the blocks that paging leaves free when it admits, for those that run to grow into
)


@dataclass(frozen=True)
class SlotCounts:
    """What the slots are, now. They add up to all there are."""

    token_states: int
    reserved: int
    internal: int
    external: int

    def __add__(self, other: "SlotCounts") -> "SlotCounts":
        return SlotCounts(
            self.token_states + other.token_states,
            self.reserved + other.reserved,
            self.internal + other.internal,
            self.external + other.external,
        )


@dataclass(frozen=True)
class Extent:
    """Slots start .. stop - 1 of the region are one thing. `owner` is None where nobody owns them."""

    start: int
    stop: int
    kind: str  # token_states, reserved, internal or external
    owner: int | None


class Allocator(Protocol):
    """What a scheduler asks. A request is known by a number, its key."""

    num_slots: int

    def check_fits(self, request: Request) -> None:
        """Raise ValueError, with the limit, if the request could not run even alone."""

    def admit(
        self, key: int, request: Request, num_tokens: int, token_ids: Sequence[int] | None = None
    ) -> bool:
        """Make room for the first `num_tokens`, and for what the plan reserves; False, and nothing changed, if
        there is none. With the tokens themselves, a beginning that is cached is taken over."""

    def num_cached(self, key: int) -> int:
        """Tokens that were taken over when the request was admitted: their keys and values are there."""

    def fork(self, parent: int, child: int) -> bool:
        """A second sequence with the parent's tokens so far, which are shared; False if this plan cannot share."""

    def grow(self, key: int, num_tokens: int = 1) -> list[tuple[int, int]]:
        """Make room for more tokens. Returns the blocks to copy first, as (source, destination).

        Raises:
            OutOfBlocks: there is no room, and nothing changed.
        """

    def release(self, key: int) -> None:
        """The request is done, or preempted: its slots are free."""

    def counts(self) -> SlotCounts:
        """What the slots are."""

    def extents(self) -> list[Extent]:
        """The region from the first slot to the last, for pictures and for tests."""

    def steps_with_room(self, limit: int) -> int:
        """How many steps, up to `limit`, every request can grow by one token a step."""

    def grow_all(self, num_steps: int) -> SlotCounts:
        """Every request grows by one token a step; returns the counts of all those steps, added up."""


# -- plans that reserve ahead ---------------------------------------------------------------------------------


@dataclass
class Slab:
    """One request's piece of a contiguous region."""

    request: Request
    offset: int
    asked: int  # slots that the plan asked for; the piece may be larger
    num_tokens: int


class ReservingAllocator:
    """One piece of a contiguous region for each request, as long as it runs. How much is the plan's question:

        reserve_max     max_len                                             Orca (Max)
        reserve_pow2    prompt + the next power of two of the output        Orca (Pow2)
        reserve_exact   prompt + output, known from an oracle               Orca (Oracle)

    Args:
        plan: one of the three.
        num_slots: of the region.
        max_len: no request may be longer, and no plan asks for more.
        region: where pieces are found; a BuddyRegion by default, as in the paper's baselines.

    Raises:
        ValueError: an unknown plan, a number below 1, or a request longer than max_len.

    Example:
        >>> orca = ReservingAllocator("reserve_max", num_slots=15_728, max_len=2048)
        >>> [orca.admit(key, Request(0.0, 100, 50), num_tokens=100) for key in range(8)]
        [True, True, True, True, True, True, True, False]
        >>> orca.counts()
        SlotCounts(token_states=700, reserved=350, internal=13286, external=1392)
    """

    PLANS = ("reserve_max", "reserve_pow2", "reserve_exact")

    def __init__(
        self, plan: str, num_slots: int, max_len: int, region: BuddyRegion | FitRegion | None = None
    ):
        if plan not in self.PLANS:
            raise ValueError(f"unknown plan {plan!r}: one of {', '.join(self.PLANS)}")
        self.plan, self.num_slots = plan, positive_int("num_slots", num_slots)
        self.max_len = positive_int("max_len", max_len)
        self.region = region or BuddyRegion(num_slots)
        if self.region.num_slots != num_slots:
            raise ValueError(f"the region has {self.region.num_slots} slots, not {num_slots}")
        self.slabs: dict[int, Slab] = {}

    def asks_for(self, request: Request) -> int:
        """Slots that the plan reserves for a request."""
        check_length(request, self.max_len)
        if self.plan == "reserve_max":
            return self.max_len
        if self.plan == "reserve_exact":
            return request.total_len
        return min(self.max_len, request.prompt_len + (1 << (request.output_len - 1).bit_length()))

    def check_fits(self, request: Request) -> None:
        piece, largest = self.region.rounded(self.asks_for(request)), self.region.largest
        if piece > largest:
            raise ValueError(
                f"{self.plan} wants a piece of {piece} slots for a request of {request.total_len} tokens; "
                f"the largest in a region of {self.num_slots} has {largest}"
            )

    def admit(
        self, key: int, request: Request, num_tokens: int, token_ids: Sequence[int] | None = None
    ) -> bool:
        check_new(key, request, num_tokens, self.slabs)
        asked = self.asks_for(request)
        offset = self.region.allocate(asked)
        if offset is None:
            return False
        self.slabs[key] = Slab(request, offset, asked, num_tokens)
        return True

    def num_cached(self, key: int) -> int:
        return 0

    def fork(self, parent: int, child: int) -> bool:
        return False  # a slab is one request's own

    def grow(self, key: int, num_tokens: int = 1) -> list[tuple[int, int]]:
        slab = self.slabs[key]
        check_end(key, slab.request, slab.num_tokens, num_tokens)
        slab.num_tokens += num_tokens
        return []

    def release(self, key: int) -> None:
        self.region.free(self.slabs.pop(key).offset)

    def counts(self) -> SlotCounts:
        slabs = self.slabs.values()
        tokens = sum(slab.num_tokens for slab in slabs)
        at_end = sum(slab.request.total_len for slab in slabs)
        asked = sum(slab.asked for slab in slabs)
        return SlotCounts(tokens, at_end - tokens, asked - at_end, self.num_slots - asked)

    def extents(self) -> list[Extent]:
        found = []
        for key, slab in self.slabs.items():
            start = slab.offset
            ends = [
                ("token_states", start + slab.num_tokens),
                ("reserved", start + slab.request.total_len),
                ("internal", start + slab.asked),
                ("external", start + self.region.size_of(start)),
            ]
            for kind, stop in ends:
                if stop > start:
                    found.append(Extent(start, stop, kind, key))
                    start = stop
        return with_gaps(found, self.num_slots)

    def steps_with_room(self, limit: int) -> int:
        return limit

    def grow_all(self, num_steps: int) -> SlotCounts:
        before = self.counts()
        for key in self.slabs:
            self.grow(key, num_steps)
        # step j finds `before` and j more tokens of each request, which were reserved
        moved = len(self.slabs) * num_steps * (num_steps + 1) // 2
        return SlotCounts(
            token_states=before.token_states * num_steps + moved,
            reserved=before.reserved * num_steps - moved,
            internal=before.internal * num_steps,
            external=before.external * num_steps,
        )


# -- paging ---------------------------------------------------------------------------------------------------


class PagedAllocator:
    """Blocks on demand: a request holds the blocks that its tokens need, and no more.

    Args:
        num_slots: of the region; what does not fill a block is never used.
        block_size: slots in a block.
        watermark: share of the blocks that an admission leaves free, so that those that run can grow.
        enable_prefix_caching: keep what full blocks hold findable, and begin with it where a text begins the same.

    `counts`, `extents` and what they are made of take each table for itself: they are for requests that share nothing.

    Example:
        >>> paged = PagedAllocator(num_slots=15_728, block_size=16)
        >>> paged.admit(0, Request(0.0, 100, 50), num_tokens=100)
        True
        >>> paged.counts()                       # seven blocks: 112 slots, and the output will fill their rest
        SlotCounts(token_states=100, reserved=12, internal=0, external=15616)
    """

    def __init__(
        self,
        num_slots: int,
        block_size: int = 16,
        watermark: float = WATERMARK,
        enable_prefix_caching: bool = False,
    ):
        self.num_slots = positive_int("num_slots", num_slots)
        if positive_int("block_size", block_size) > num_slots:
            raise ValueError(f"a block of {block_size} slots is larger than the region of {num_slots}")
        if not (isinstance(watermark, (int, float)) and 0 <= watermark < 1):
            raise ValueError(f"watermark must be a share from 0 to below 1, got {watermark!r}")
        self.pool = BlockPool(num_slots // block_size, block_size, enable_prefix_caching)
        self.num_spare = int(watermark * self.pool.num_blocks)  # blocks
        self.requests: dict[int, Request] = {}
        self.tables: dict[int, BlockTable] = {}
        self.cached: dict[int, int] = {}  # tokens that a request took over

    def check_fits(self, request: Request) -> None:
        needed = -(-request.total_len // self.pool.block_size)
        if needed > self.pool.num_blocks:
            raise ValueError(
                f"a request of {request.total_len} tokens needs {needed} blocks of {self.pool.block_size}; "
                f"there are {self.pool.num_blocks}"
            )

    def admit(
        self, key: int, request: Request, num_tokens: int, token_ids: Sequence[int] | None = None
    ) -> bool:
        check_new(key, request, num_tokens, self.tables)
        table = BlockTable(self.pool)
        known = [] if token_ids is None else table.find_prefix(token_ids[:num_tokens])
        # Blocks that are shared with a sequence that runs cost nothing; cached ones that are free leave the free list.
        shared = sum(self.pool.ref_count(record.block_id) > 0 for record in known)
        needed = -(-num_tokens // self.pool.block_size) - shared
        spare = self.num_spare if self.tables else 0  # alone, a request may take all
        if needed + spare > self.pool.num_free:
            return False
        table.adopt(known)
        self.requests[key], self.tables[key], self.cached[key] = request, table, table.num_tokens
        self.grow(key, num_tokens - table.num_tokens)
        return True

    def num_cached(self, key: int) -> int:
        return self.cached[key]

    def fork(self, parent: int, child: int) -> bool:
        if child in self.tables:
            raise ValueError(f"request {child} is there already: release it first")
        self.requests[child], self.tables[child] = self.requests[parent], self.tables[parent].fork()
        self.cached[child] = self.cached[parent]
        return True

    def remember(self, key: int, token_ids: Sequence[int]) -> None:
        """The keys and values of these first tokens of a request are written: its full blocks can be found."""
        self.tables[key].remember(token_ids)

    def num_filled(self, num_computed: Mapping[int, int]) -> int:
        """Slots whose keys and values are written, if of each request so many first tokens are; a slot that several
        requests share counts once."""
        size, filled = self.pool.block_size, dict[int, int]()
        for key, table in self.tables.items():
            for index, block_id in enumerate(table.block_ids):
                held = max(0, min(size, num_computed[key] - index * size))
                filled[block_id] = max(held, filled.get(block_id, 0))
        return sum(filled.values())

    def grow(self, key: int, num_tokens: int = 1) -> list[tuple[int, int]]:
        table = self.tables[key]
        check_end(key, self.requests[key], table.num_tokens, num_tokens)
        return table.extend(num_tokens)

    def release(self, key: int) -> None:
        self.tables.pop(key).free()
        del self.requests[key], self.cached[key]

    def counts(self) -> SlotCounts:
        size, tokens, at_end = self.pool.block_size, 0, 0
        for key, table in self.tables.items():
            tokens += table.num_tokens
            at_end += min(len(table.block_ids) * size, self.requests[key].total_len)
        held = (self.pool.num_blocks - self.pool.num_free) * size
        return SlotCounts(tokens, at_end - tokens, held - at_end, self.num_slots - held)

    def extents(self) -> list[Extent]:
        size, found = self.pool.block_size, []
        for key, table in self.tables.items():
            for index, block_id in enumerate(table.block_ids):
                start, first = block_id * size, index * size  # of the block in the region, and in the text
                ends = [
                    ("token_states", min(first + size, table.num_tokens)),
                    ("reserved", min(first + size, self.requests[key].total_len)),
                    ("internal", first + size),
                ]
                for kind, end in ends:
                    stop = block_id * size + end - first
                    if stop > start:
                        found.append(Extent(start, stop, kind, key))
                        start = stop
        return with_gaps(found, self.num_slots)

    def steps_with_room(self, limit: int) -> int:
        size, free = self.pool.block_size, self.pool.num_free
        room = [len(table.block_ids) * size - table.num_tokens for table in self.tables.values()]

        def needed(num_steps: int) -> int:
            return sum(-(-(num_steps - slots) // size) for slots in room if num_steps > slots)

        if needed(limit) <= free:
            return limit
        return bisect_right(range(1, limit + 1), free, key=needed)

    def grow_all(self, num_steps: int) -> SlotCounts:
        size = self.pool.block_size
        # A request with n tokens holds ceil(n / size) blocks, of which its tokens will fill all slots but those of the
        # last block that lie behind its final length. Added up over the steps in which n goes from old + 1 to new:
        tokens = held = at_end = 0
        for key, table in self.tables.items():
            final, old, new = self.requests[key].total_len, table.num_tokens, table.num_tokens + num_steps
            blocks = blocks_up_to(new, size) - blocks_up_to(old, size)
            in_last = max(0, new - max(old, final // size * size))  # steps in the block that it will not fill
            tokens += (old + new + 1) * num_steps // 2
            held += size * blocks
            at_end += size * blocks - in_last * (-final % size)
            self.grow(key, num_steps)
        return SlotCounts(tokens, at_end - tokens, held - at_end, self.num_slots * num_steps - held)


def blocks_up_to(num_tokens: int, block_size: int) -> int:
    """Blocks that a sequence holds, added up over the steps in which it has 1, 2, ... num_tokens tokens.

    Example:
        >>> blocks_up_to(5, block_size=2)       # 1 + 1 + 2 + 2 + 3
        9
    """
    full, rest = divmod(num_tokens, block_size)
    return block_size * full * (full + 1) // 2 + rest * (full + 1)


def check_length(request: Request, max_len: int) -> None:
    """Raise ValueError if a request will be longer than is allowed."""
    if request.total_len > max_len:
        raise ValueError(f"a request of {request.total_len} tokens is longer than max_len {max_len}")


def check_new(key: int, request: Request, num_tokens: int, held: Container[int]) -> None:
    """Raise ValueError if a request cannot be admitted with so many tokens, or is there already."""
    if key in held:
        raise ValueError(f"request {key} is there already: release it first")
    positive_int("num_tokens", num_tokens)
    check_end(key, request, 0, num_tokens)


def check_end(key: int, request: Request, num_tokens: int, more: int) -> None:
    """Raise ValueError if a request would grow past its last token."""
    if num_tokens + more > request.total_len:
        raise ValueError(
            f"request {key} has {num_tokens} of {request.total_len} tokens: no room for {more} more"
        )


def with_gaps(owned: list[Extent], num_slots: int) -> list[Extent]:
    """The owned extents in order, with what lies between them as external and nobody's."""
    whole, end = [], 0
    for extent in sorted(owned, key=lambda extent: extent.start):
        if extent.start > end:
            whole.append(Extent(end, extent.start, "external", None))
        whole.append(extent)
        end = extent.stop
    if end < num_slots:
        whole.append(Extent(end, num_slots, "external", None))
    return whole


ALLOCATORS = (*ReservingAllocator.PLANS, "paged")


def make_allocator(
    name: str, num_slots: int, *, max_len: int = 2048, block_size: int = 16, watermark: float = WATERMARK
) -> Allocator:
    """An allocator by its name.

    Args:
        name: "reserve_max", "reserve_pow2", "reserve_exact" (with a buddy allocator) or "paged".

    Raises:
        ValueError: another name.
    """
    if name == "paged":
        return PagedAllocator(num_slots, block_size, watermark)
    if name in ReservingAllocator.PLANS:
        return ReservingAllocator(name, num_slots, max_len)
    raise ValueError(f"unknown allocator {name!r}: one of {', '.join(ALLOCATORS)}")
