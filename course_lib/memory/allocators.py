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

from dataclasses import dataclass
from typing import Protocol

from course_lib.memory.block_pool import BlockPool, OutOfBlocks, positive_int
from course_lib.memory.block_table import BlockTable
from course_lib.memory.workloads import Request

WATERMARK = (
    0.01  # share of the blocks that paging keeps free when it admits, so that running requests can grow
)


@dataclass(frozen=True)
class SlotCounts:
    """What the slots are, now. They add up to all there are."""

    token_states: int
    reserved: int
    internal: int
    external: int


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

    def can_hold(self, request: Request) -> bool:
        """Whether the request fits when it is alone."""

    def admit(self, key: int, request: Request) -> bool:
        """Make room for the prompt, and for what the plan reserves; False, and nothing changed, if there is none."""

    def grow(self, key: int) -> bool:
        """Make room for one more token; False, and nothing changed, if there is none."""

    def release(self, key: int) -> None:
        """The request is done, or preempted: its slots are free."""

    def counts(self) -> SlotCounts:
        """What the slots are."""

    def extents(self) -> list[Extent]:
        """The region from the first slot to the last, for pictures and for tests."""


# -- contiguous regions ---------------------------------------------------------------------------------------


class BuddyRegion:
    """A region that hands out powers of two, each at a multiple of its size; neighbours that are halves of one piece
    are joined again. A region that is no power of two is cut into the largest that fit, first to last.

    Example:
        >>> region = BuddyRegion(28)        # 16 + 8 + 4
        >>> region.allocate(5), region.allocate(8), region.allocate(16)
        (16, 0, None)
        >>> region.size_of(16)
        8

    Source: Knuth, The Art of Computer Programming, vol. 1, section 2.5.
    """

    def __init__(self, num_slots: int):
        self.num_slots = positive_int("num_slots", num_slots)
        self._sizes: dict[int, int] = {}  # offset -> size of each piece handed out
        self._free: dict[int, set[int]] = {1 << bit: set() for bit in range(num_slots.bit_length())}
        offset = 0
        for size in reversed(self._free):
            if num_slots & size:
                self._free[size].add(offset)
                offset += size

    def rounded(self, size: int) -> int:
        """The piece that a request for `size` slots gets."""
        return 1 << (size - 1).bit_length()

    def allocate(self, size: int) -> int | None:
        """The offset of a piece of at least `size` slots, or None. The smallest free piece is split, lowest first."""
        wanted = self.rounded(size)
        fitting = [free_size for free_size, offsets in self._free.items() if free_size >= wanted and offsets]
        if not fitting:
            return None
        piece = min(fitting)
        offset = min(self._free[piece])
        self._free[piece].remove(offset)
        while piece > wanted:
            piece //= 2
            self._free[piece].add(offset + piece)
        self._sizes[offset] = wanted
        return offset

    def free(self, offset: int) -> None:
        """Give a piece back, and join it with its other half as long as that is free."""
        size = self._sizes.pop(offset)
        while (buddy := offset ^ size) in self._free[
            size
        ]:  # a largest piece has none: nothing else has its size
            self._free[size].remove(buddy)
            offset, size = min(offset, buddy), 2 * size
        self._free[size].add(offset)

    def size_of(self, offset: int) -> int:
        """Slots of the piece at an offset."""
        return self._sizes[offset]


class FitRegion:
    """A region of holes: first fit takes the lowest that is large enough, best fit the smallest.

    Example:
        >>> region = FitRegion(20, best=True)
        >>> a, b, c = region.allocate(8), region.allocate(2), region.allocate(5)
        >>> region.free(a)
        >>> region.holes                       # as (offset, size)
        [(0, 8), (15, 5)]
        >>> region.allocate(5), FitRegion(20, best=False).allocate(5)
        (15, 0)
    """

    def __init__(self, num_slots: int, *, best: bool):
        self.num_slots, self.best = positive_int("num_slots", num_slots), best
        self.holes = [(0, num_slots)]  # (offset, size), by offset; no two touch
        self._sizes: dict[int, int] = {}

    def rounded(self, size: int) -> int:
        """The piece that a request for `size` slots gets: exactly that."""
        return size

    def allocate(self, size: int) -> int | None:
        """The offset of `size` slots, or None."""
        fitting = [hole for hole in self.holes if hole[1] >= size]
        if not fitting:
            return None
        hole = min(fitting, key=lambda hole: hole[1]) if self.best else fitting[0]
        offset, room = hole
        index = self.holes.index(hole)
        self.holes[index : index + 1] = [(offset + size, room - size)] if room > size else []
        self._sizes[offset] = size
        return offset

    def free(self, offset: int) -> None:
        """Give a piece back, and join the holes that it touches."""
        joined: list[tuple[int, int]] = []
        for start, size in sorted([*self.holes, (offset, self._sizes.pop(offset))]):
            if joined and sum(joined[-1]) == start:
                joined[-1] = (joined[-1][0], joined[-1][1] + size)
            else:
                joined.append((start, size))
        self.holes = joined

    def size_of(self, offset: int) -> int:
        """Slots of the piece at an offset."""
        return self._sizes[offset]


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
        >>> [orca.admit(key, Request(0.0, 100, 50)) for key in range(8)]
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
        self._asked = self._final = self._tokens = 0  # sums over the slabs, so that counting is quick

    def asks_for(self, request: Request) -> int:
        """Slots that the plan reserves for a request."""
        if request.total_len > self.max_len:
            raise ValueError(f"a request of {request.total_len} tokens is longer than max_len {self.max_len}")
        if self.plan == "reserve_max":
            return self.max_len
        if self.plan == "reserve_exact":
            return request.total_len
        return min(self.max_len, request.prompt_len + (1 << (request.output_len - 1).bit_length()))

    def can_hold(self, request: Request) -> bool:
        largest = (
            1 << (self.num_slots.bit_length() - 1) if isinstance(self.region, BuddyRegion) else self.num_slots
        )
        return request.total_len <= self.max_len and self.region.rounded(self.asks_for(request)) <= largest

    def admit(self, key: int, request: Request) -> bool:
        asked = self.asks_for(request)
        offset = self.region.allocate(asked)
        if offset is None:
            return False
        self.slabs[key] = Slab(request, offset, asked, request.prompt_len)
        self._asked += asked
        self._final += request.total_len
        self._tokens += request.prompt_len
        return True

    def grow(self, key: int) -> bool:
        slab = self.slabs[key]
        if slab.num_tokens == slab.request.total_len:
            raise ValueError(f"request {key} has all its {slab.num_tokens} tokens: release it")
        slab.num_tokens += 1
        self._tokens += 1
        return True

    def release(self, key: int) -> None:
        slab = self.slabs.pop(key)
        self.region.free(slab.offset)
        self._asked -= slab.asked
        self._final -= slab.request.total_len
        self._tokens -= slab.num_tokens

    def counts(self) -> SlotCounts:
        return SlotCounts(
            token_states=self._tokens,
            reserved=self._final - self._tokens,
            internal=self._asked - self._final,
            external=self.num_slots - self._asked,
        )

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


# -- paging ---------------------------------------------------------------------------------------------------


class PagedAllocator:
    """Blocks on demand: a request holds the blocks that its tokens need, and no more.

    Args:
        num_slots: of the region; what does not fill a block is never used.
        block_size: slots in a block.

    Example:
        >>> paged = PagedAllocator(num_slots=15_728, block_size=16)
        >>> paged.admit(0, Request(0.0, 100, 50))
        True
        >>> paged.counts()                       # seven blocks: 112 slots, and the output will fill their rest
        SlotCounts(token_states=100, reserved=12, internal=0, external=15616)
    """

    def __init__(self, num_slots: int, block_size: int = 16):
        self.num_slots = positive_int("num_slots", num_slots)
        if positive_int("block_size", block_size) > num_slots:
            raise ValueError(f"a block of {block_size} slots is larger than the region of {num_slots}")
        self.pool = BlockPool(num_slots // block_size, block_size)
        self.requests: dict[int, Request] = {}
        self.tables: dict[int, BlockTable] = {}
        self._tokens = self._filled_at_end = 0  # sums: tokens; slots of the held blocks that will be filled

    @property
    def watermark(self) -> int:
        """Blocks that an admission leaves free."""
        return int(WATERMARK * self.pool.num_blocks)

    def can_hold(self, request: Request) -> bool:
        return -(-request.total_len // self.pool.block_size) <= self.pool.num_blocks

    def admit(self, key: int, request: Request) -> bool:
        needed = -(-request.prompt_len // self.pool.block_size)
        spare = self.watermark if self.tables else 0  # alone, a request may take all
        if needed + spare > self.pool.num_free:
            return False
        self.requests[key], self.tables[key] = request, BlockTable(self.pool)
        self._append(key, request.prompt_len)
        return True

    def grow(self, key: int) -> bool:
        if self.tables[key].num_tokens == self.requests[key].total_len:
            raise ValueError(f"request {key} has all its {self.tables[key].num_tokens} tokens: release it")
        try:
            self._append(key, 1)
        except OutOfBlocks:
            return False
        return True

    def _append(self, key: int, num_tokens: int) -> None:
        before = self._filled(key)
        self.tables[key].append(num_tokens)
        self._tokens += num_tokens
        self._filled_at_end += self._filled(key) - before

    def _filled(self, key: int) -> int:
        """Slots of a request's blocks that hold a token or will."""
        held = len(self.tables[key].block_ids) * self.pool.block_size
        return min(held, self.requests[key].total_len)

    def release(self, key: int) -> None:
        self._tokens -= self.tables[key].num_tokens
        self._filled_at_end -= self._filled(key)
        self.tables.pop(key).free()
        del self.requests[key]

    def counts(self) -> SlotCounts:
        held = (self.pool.num_blocks - self.pool.num_free) * self.pool.block_size
        return SlotCounts(
            token_states=self._tokens,
            reserved=self._filled_at_end - self._tokens,
            internal=held - self._filled_at_end,
            external=self.num_slots - held,
        )

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


def make_allocator(name: str, num_slots: int, *, max_len: int = 2048, block_size: int = 16) -> Allocator:
    """An allocator by its name.

    Args:
        name: "reserve_max", "reserve_pow2", "reserve_exact" (with a buddy allocator) or "paged".

    Raises:
        ValueError: another name.
    """
    if name == "paged":
        return PagedAllocator(num_slots, block_size)
    if name in ReservingAllocator.PLANS:
        return ReservingAllocator(name, num_slots, max_len)
    raise ValueError(f"unknown allocator {name!r}: one of {', '.join(ReservingAllocator.PLANS)}, paged")
