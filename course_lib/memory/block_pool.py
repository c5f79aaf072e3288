"""Who owns which block: a free list, reference counts, and blocks kept for what they hold.

A block is `block_size` slots of KV cache; a slot holds one token's keys and values. Nothing here holds keys or
values: blocks are numbers, and what lies in them is the business of course_lib/serving.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class OutOfBlocks(RuntimeError):
    """More blocks are needed than are free. Nothing was changed.

    Example:
        >>> print(OutOfBlocks(needed=3, free=1, total=8))
        needs 3 blocks, 1 free of 8: free a sequence or make the pool larger
    """

    def __init__(self, needed: int, free: int, total: int):
        self.needed, self.free, self.total = needed, free, total
        blocks = "block" if needed == 1 else "blocks"
        super().__init__(
            f"needs {needed} {blocks}, {free} free of {total}: free a sequence or make the pool larger"
        )


def positive_int(name: str, value: int) -> int:
    """The value, if it is a whole number of at least 1; ValueError with name and value otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value


@dataclass(frozen=True)
class CachedBlock:
    """A full block whose contents are known, so that another sequence may read them instead of computing them."""

    block_id: int
    token_ids: tuple[int, ...]
    block_hash: int
    parent_serial: int | None  # the block before it in the text; None for the first
    serial: int  # given once, never again: a block that is evicted and computed anew is another parent


def hash_block(parent_hash: int | None, token_ids: tuple[int, ...]) -> int:
    """The key of a full block: its tokens and, through the parent's hash, all tokens before it.

    The parent is part of it because keys and values depend on everything before. The hash only finds a
    candidate: tokens are compared after a hit.
    """
    return hash((parent_hash, token_ids))


class BlockPool:
    """The blocks of one KV cache.

    A block is free (reference count 0) or used by one or more sequences. With prefix caching a block that is
    freed keeps its contents, and is found by them until it is handed out again, least recently freed first.

    Args:
        num_blocks: how many there are.
        block_size: slots in each.
        enable_prefix_caching: keep and find full blocks by their tokens.

    Raises:
        ValueError: a number below 1; sharing or freeing a block that nobody uses; an unknown block.
        OutOfBlocks: from `allocate`, when no block is free.

    Example:
        >>> pool = BlockPool(num_blocks=4, block_size=16)
        >>> first, second = pool.allocate(), pool.allocate()
        >>> pool.share(first)
        >>> pool.free(first)                    # one of its two users is done
        >>> pool.ref_count(first), pool.num_free
        (1, 2)

    Source: Kwon et al. (SOSP 2023), sections 4.2 and 4.4; prefix caching as in vLLM's block pool.
    """

    def __init__(self, num_blocks: int, block_size: int, enable_prefix_caching: bool = False):
        self.num_blocks = positive_int("num_blocks", num_blocks)
        self.block_size = positive_int("block_size", block_size)
        self.enable_prefix_caching = enable_prefix_caching
        self._ref_counts = [0] * num_blocks
        self._free = OrderedDict.fromkeys(range(num_blocks))  # least recently freed first
        self._by_hash: dict[int, CachedBlock] = {}
        self._by_block: dict[int, CachedBlock] = {}
        self._num_serials = 0

    @property
    def num_free(self) -> int:
        """Blocks that nobody uses, whether or not their contents are kept."""
        return len(self._free)

    @property
    def num_cached(self) -> int:
        """Blocks that can be found by their contents, used or free."""
        return len(self._by_block)

    def free_blocks(self) -> list[int]:
        """The free list: which block is handed out next, and after that."""
        return list(self._free)

    def ref_count(self, block_id: int) -> int:
        """How many sequences use the block."""
        if not 0 <= block_id < self.num_blocks:
            raise ValueError(f"there is no block {block_id}: the pool has {self.num_blocks}, from 0")
        return self._ref_counts[block_id]

    def allocate(self) -> int:
        """Take the block that has been free for longest. What it held is forgotten."""
        if not self._free:
            raise OutOfBlocks(needed=1, free=0, total=self.num_blocks)
        block_id, _ = self._free.popitem(last=False)
        if record := self._by_block.pop(block_id, None):
            del self._by_hash[record.block_hash]
        self._ref_counts[block_id] = 1
        return block_id

    def share(self, block_id: int) -> None:
        """One more sequence uses the block."""
        if self.ref_count(block_id) == 0:
            raise ValueError(f"block {block_id} is free: it cannot be shared (revive it if it is cached)")
        self._ref_counts[block_id] += 1

    def free(self, block_id: int) -> None:
        """One sequence fewer uses the block; with the last it is free."""
        if self.ref_count(block_id) == 0:
            raise ValueError(f"block {block_id} is free already: freed twice?")
        self._ref_counts[block_id] -= 1
        if self._ref_counts[block_id] == 0:
            self._free[block_id] = None

    # -- prefix caching ---------------------------------------------------------------------------------------

    def remember(
        self, block_id: int, parent: CachedBlock | None, token_ids: tuple[int, ...]
    ) -> CachedBlock | None:
        """Make a full block findable by its tokens and its parent.

        Returns:
            Its record; the record of another block that holds the same, if there is one already; or None if
            another text has the same hash. After None the caller must remember nothing that follows.

        Raises:
            ValueError: a block that nobody uses, or that is not full.
        """
        if self.ref_count(block_id) == 0:
            raise ValueError(f"block {block_id} is free: only a block in use can be remembered")
        if len(token_ids) != self.block_size:
            raise ValueError(
                f"block {block_id} holds {len(token_ids)} tokens of {self.block_size}: it is not full"
            )
        if not self.enable_prefix_caching:
            return None
        block_hash = hash_block(parent.block_hash if parent else None, token_ids)
        if block_hash in self._by_hash:
            return self.lookup(parent, token_ids)
        parent_serial = parent.serial if parent else None
        record = CachedBlock(block_id, token_ids, block_hash, parent_serial, self._num_serials)
        self._num_serials += 1
        self._by_hash[block_hash] = self._by_block[block_id] = record
        return record

    def lookup(self, parent: CachedBlock | None, token_ids: tuple[int, ...]) -> CachedBlock | None:
        """The block that holds these tokens after this parent, if any. Its contents may be free for the taking:
        `share` or `revive` it before anything else is allocated."""
        record = self._by_hash.get(hash_block(parent.block_hash if parent else None, token_ids))
        if record is None or record.token_ids != token_ids:
            return None
        return record if record.parent_serial == (parent.serial if parent else None) else None

    def revive(self, block_id: int) -> None:
        """Use a free block for what it still holds."""
        if self.ref_count(block_id):
            raise ValueError(f"block {block_id} is in use: share it")
        if block_id not in self._by_block:
            raise ValueError(f"block {block_id} is free and holds nothing that is known: allocate one")
        del self._free[block_id]
        self._ref_counts[block_id] = 1

    def check(self, live: Iterable[Sequence[int]] | None = None) -> None:
        """Assert what must always hold: free + used = total, and every record belongs to its block.

        Args:
            live: the block_ids of every table that is alive. Then each block's count must be the number of tables
                that hold it: a higher one is a leak, a lower one a block that was freed too often.
        """
        used = {block_id for block_id, count in enumerate(self._ref_counts) if count}
        assert min(self._ref_counts) >= 0, f"a reference count is negative: {self._ref_counts}"
        assert used.isdisjoint(self._free), f"blocks both used and free: {used & set(self._free)}"
        assert len(used) + len(self._free) == self.num_blocks, "free + used != total"
        assert set(self._by_hash.values()) == set(self._by_block.values()), "a record is found one way only"
        for block_id, record in self._by_block.items():
            assert record.block_id == block_id and len(record.token_ids) == self.block_size
        if live is not None:
            held = Counter(block_id for block_ids in live for block_id in block_ids)
            for block_id, count in enumerate(self._ref_counts):
                what = "leaked" if count > held[block_id] else "freed too often"
                assert count == held[block_id], (
                    f"block {block_id} is {what}: its count is {count}, {held[block_id]} live tables hold it"
                )

    def __repr__(self) -> str:
        shape = f"{self.num_blocks} blocks of {self.block_size}"
        return f"BlockPool({shape}: {self.num_free} free, {self.num_cached} cached)"
