"""Contiguous regions: pieces of consecutive slots are handed out, given back, and joined again.

Three ways to find a piece, each with its own waste: a buddy allocator rounds every piece up to a power of two,
first fit and best fit cut pieces to measure and leave holes between them.
"""

from course_lib.memory.block_pool import positive_int


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

    @property
    def largest(self) -> int:
        """The largest piece there can be, in an empty region."""
        return 1 << (self.num_slots.bit_length() - 1)

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
        while (buddy := offset ^ size) in self._free[size]:  # a largest piece has no buddy of its size
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

    @property
    def largest(self) -> int:
        """The largest piece there can be, in an empty region: all of it."""
        return self.num_slots

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
