"""Where each token of a sequence lives: logical blocks to physical blocks, positions to slots."""

from collections.abc import Sequence
from dataclasses import dataclass

from course_lib.memory.block_pool import BlockPool, CachedBlock, OutOfBlocks, positive_int


@dataclass(frozen=True)
class Appended:
    """What an append asks of whoever holds the keys and values."""

    slots: list[int]  # where each new token goes, first to last
    copies: list[tuple[int, int]]  # (source block, destination block): copy these whole, before writing


class BlockTable:
    """The blocks of one sequence, in the order of its text.

    Position p lies in block `block_ids[p // block_size]`, at offset `p % block_size`; its slot is

        block_ids[p // block_size] * block_size + p % block_size

    Blocks are taken from the pool when a token needs one, so a sequence wastes less than one block.

    Example:
        >>> pool = BlockPool(num_blocks=8, block_size=4)
        >>> table = BlockTable(pool)
        >>> table.append(5).slots
        [0, 1, 2, 3, 4]
        >>> child = table.fork()                  # shares both blocks
        >>> child.append()                        # the half-full one must be copied first
        Appended(slots=[9], copies=[(1, 2)])
        >>> table.block_ids, child.block_ids
        ([0, 1], [0, 2])

    Source: Kwon et al. (SOSP 2023), sections 4.2 to 4.4.
    """

    def __init__(self, pool: BlockPool):
        self.pool = pool
        self.block_ids: list[int] = []
        self.num_tokens = 0
        self._records: list[CachedBlock] = []  # of the first full blocks: what prefix caching follows

    def slot(self, position: int) -> int:
        """Where the token at a position lies.

        Raises:
            ValueError: a position that no token has.
        """
        if not 0 <= position < self.num_tokens:
            raise ValueError(f"position {position} has no token: the table holds {self.num_tokens}")
        block, offset = divmod(position, self.pool.block_size)
        return self.block_ids[block] * self.pool.block_size + offset

    def append(self, num_tokens: int = 1) -> Appended:
        """Make room for more tokens at the end, all of them or none, and say where each goes.

        Raises:
            OutOfBlocks: with table and pool as they were.
        """
        old_len = self.num_tokens
        copies = self.extend(num_tokens)
        return Appended([self.slot(position) for position in range(old_len, self.num_tokens)], copies)

    def blocks_needed(self, num_tokens: int) -> int:
        """Free blocks that an append of so many tokens would take."""
        positive_int("num_tokens", num_tokens)
        new_len = self.num_tokens + num_tokens
        return -(-new_len // self.pool.block_size) - len(self.block_ids) + self.must_copy()

    def must_copy(self) -> bool:
        """Whether the next append copies the last block first: it is partly filled, and another sequence uses it,
        too."""
        return self.num_tokens % self.pool.block_size > 0 and self.pool.ref_count(self.block_ids[-1]) > 1

    def extend(self, num_tokens: int) -> list[tuple[int, int]]:
        """`append` for those who ask for the slots later, or never: returns the copies alone.

        The last block is copied first if it is partly filled and another sequence uses it, too
        (copy-on-write). Full blocks are never written again, so they stay shared.
        """
        needed = self.blocks_needed(num_tokens)
        if needed > self.pool.num_free:
            raise OutOfBlocks(needed, self.pool.num_free, self.pool.num_blocks)
        size, new_len, copies = self.pool.block_size, self.num_tokens + num_tokens, []
        if self.must_copy():
            shared, self.block_ids[-1] = self.block_ids[-1], self.pool.allocate()
            self.pool.free(shared)
            copies.append((shared, self.block_ids[-1]))
        while len(self.block_ids) * size < new_len:
            self.block_ids.append(self.pool.allocate())
        self.num_tokens = new_len
        return copies

    def fork(self) -> "BlockTable":
        """A second sequence with the same tokens so far. It shares every block; no slot is copied now."""
        child = BlockTable(self.pool)
        for block_id in self.block_ids:
            self.pool.share(block_id)
        child.block_ids, child.num_tokens = list(self.block_ids), self.num_tokens
        child._records = list(self._records)
        return child

    def free(self) -> None:
        """Give every block back, last first: the tail of a text is then evicted before its head, which more
        texts share. The table is empty afterwards."""
        for block_id in reversed(self.block_ids):
            self.pool.free(block_id)
        self.block_ids, self.num_tokens, self._records = [], 0, []

    # -- prefix caching ---------------------------------------------------------------------------------------

    def find_prefix(self, token_ids: Sequence[int]) -> list[CachedBlock]:
        """The longest cached prefix of a prompt. Nothing is taken yet.

        Whole blocks only, and never the whole prompt: at least one token must go through the model, or there
        would be nothing to choose the next token from.
        """
        size, found = self.pool.block_size, list[CachedBlock]()
        for block in range((len(token_ids) - 1) // size):
            tokens = tuple(token_ids[block * size : (block + 1) * size])
            record = self.pool.lookup(found[-1] if found else None, tokens)
            if record is None:
                break
            found.append(record)
        return found

    def adopt(self, records: list[CachedBlock]) -> None:
        """Begin with blocks that `find_prefix` has found, and that nobody has taken since.

        Raises:
            ValueError: the table holds tokens already.
        """
        if self.num_tokens:
            raise ValueError(f"only an empty table adopts a prefix; this one holds {self.num_tokens} tokens")
        for record in records:
            if self.pool.ref_count(record.block_id):
                self.pool.share(record.block_id)
            else:
                self.pool.revive(record.block_id)
        self.block_ids = [record.block_id for record in records]
        self._records = list(records)
        self.num_tokens = len(records) * self.pool.block_size

    def adopt_prefix(self, token_ids: Sequence[int]) -> int:
        """Begin with the longest cached prefix of a prompt. Returns how many tokens need no computing.

        Raises:
            ValueError: the table holds tokens already.
        """
        self.adopt(self.find_prefix(token_ids))
        return self.num_tokens

    def remember(self, token_ids: Sequence[int]) -> None:
        """Make the full blocks findable, once their keys and values are written.

        Args:
            token_ids: the tokens of the table, from the first. Those beyond its last full block are ignored.
        """
        size = self.pool.block_size
        while (len(self._records) + 1) * size <= min(len(token_ids), self.num_tokens):
            block = len(self._records)
            parent = self._records[-1] if self._records else None
            tokens = tuple(token_ids[block * size : (block + 1) * size])
            record = self.pool.remember(self.block_ids[block], parent, tokens)
            if record is None:  # another text has this hash: what follows cannot be found either
                return
            self._records.append(record)

    def __repr__(self) -> str:
        return f"BlockTable({self.num_tokens} tokens in blocks {self.block_ids})"
