"""Where keys and values are kept between two tokens: not at all, in growing tensors, in fixed slabs, in blocks.

Every cache answers the same three calls, and the model sees only the last:

    begin_step({sequence: number of new tokens}) -> positions    before a forward pass
    length(sequence) -> tokens it holds of that sequence
    attend(layer, query, key, value) -> output                   once a layer, by the model

A step is a *flat batch*: the new tokens of all sequences one after another, in the order of the dict. A
whole prompt (prefill) and a single token (decode) are the same thing with different counts.

Shapes use the legend of course_lib/attention. `S` is the longest context in the step.
"""

from collections import Counter
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from course_lib.attention.dense import attend_one
from course_lib.attention.paged import Gather, attend_gathered, copy_blocks, plan_gather
from course_lib.memory import BlockPool, BlockTable, OutOfBlocks
from course_lib.serving.model import LlamaConfig


@dataclass(frozen=True)
class Run:
    """Rows start .. stop - 1 of the flat batch are the newest tokens of one sequence."""

    sequence: int
    start: int
    stop: int
    context_len: int  # tokens of the sequence once these are added

    @property
    def num_new(self) -> int:
        return self.stop - self.start


def plan_runs(new_tokens: dict[int, int], lengths: dict[int, int]) -> list[Run]:
    """Lay the new tokens of each sequence into one flat batch.

    Args:
        new_tokens: sequence -> how many tokens it brings to this step, at least 1.
        lengths: sequence -> how many tokens are already kept; absent means none.

    Raises:
        ValueError: no sequence at all, or one that brings no token.

    Example:
        >>> plan_runs({7: 3, 4: 1}, lengths={4: 10})
        [Run(sequence=7, start=0, stop=3, context_len=3), Run(sequence=4, start=3, stop=4, context_len=11)]
    """
    if not new_tokens:
        raise ValueError("a step needs at least one sequence")
    runs, start = [], 0
    for sequence, count in new_tokens.items():
        if count < 1:
            raise ValueError(
                f"sequence {sequence} brings {count} tokens to the step: leave it out or bring one"
            )
        runs.append(Run(sequence, start, start + count, lengths.get(sequence, 0) + count))
        start += count
    return runs


def positions_of(runs: list[Run]) -> torch.Tensor:
    """Where each token of the flat batch stands in its own sequence: [T] int64."""
    return torch.cat([torch.arange(run.context_len - run.num_new, run.context_len) for run in runs])


class NoCache:
    """Keeps nothing, so every step must bring every token of every sequence again.

    Example:
        >>> cache = NoCache()
        >>> cache.begin_step({0: 3}), cache.length(0)
        (tensor([0, 1, 2]), 0)
    """

    def __init__(self):
        self.runs: list[Run] = []

    def length(self, sequence: int) -> int:
        return 0

    def begin_step(self, new_tokens: dict[int, int]) -> torch.Tensor:
        """Announce the step; returns the positions of its tokens, [T] int64."""
        self.runs = plan_runs(new_tokens, {})
        return positions_of(self.runs)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Each sequence attends to its own rows of the flat batch, and they are forgotten."""
        out = torch.empty_like(query)
        for run in self.runs:
            rows = slice(run.start, run.stop)
            out[rows] = attend_one(query[rows], key[rows], value[rows])
        return out


class GrowingCache:
    """One tensor a sequence and layer, made longer by `torch.cat` with every token.

    Nothing is reserved and nothing is wasted, but each token copies the whole context once more, and each
    sequence needs a kernel launch of its own.

    Example:
        >>> cache = GrowingCache()
        >>> cache.begin_step({0: 3}), cache.length(0)
        (tensor([0, 1, 2]), 3)
    """

    def __init__(self):
        self.runs: list[Run] = []
        self.lengths: dict[int, int] = {}
        self.keys: dict[tuple[int, int], torch.Tensor] = {}  # (sequence, layer) -> [S, Hkv, D]
        self.values: dict[tuple[int, int], torch.Tensor] = {}

    def length(self, sequence: int) -> int:
        return self.lengths.get(sequence, 0)

    def begin_step(self, new_tokens: dict[int, int]) -> torch.Tensor:
        """Announce the step; returns the positions of its tokens, [T] int64."""
        self.runs = plan_runs(new_tokens, self.lengths)
        self.lengths.update({run.sequence: run.context_len for run in self.runs})
        return positions_of(self.runs)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Append the new keys and values of each sequence, then attend to all it has."""
        out = torch.empty_like(query)
        for run in self.runs:
            rows, place = slice(run.start, run.stop), (run.sequence, layer)
            self.keys[place] = _grown(self.keys.get(place), key[rows])
            self.values[place] = _grown(self.values.get(place), value[rows])
            out[rows] = attend_one(query[rows], self.keys[place], self.values[place])
        return out

    def free(self, sequence: int) -> None:
        """Forget a sequence."""
        self.lengths.pop(sequence, None)
        for store in (self.keys, self.values):
            for place in [place for place in store if place[0] == sequence]:
                del store[place]

    @property
    def num_bytes(self) -> int:
        """Bytes of keys and values held now: every one of them is a token's."""
        tensors = [*self.keys.values(), *self.values.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _grown(old: torch.Tensor | None, new: torch.Tensor) -> torch.Tensor:
    return new.clone() if old is None else torch.cat([old, new])


@dataclass(frozen=True)
class DecodePlan:
    """What all layers of a step share: which slabs decode one token, and which of their slots hold something."""

    rows: torch.Tensor  # [B] int64, each decode's row in the flat batch
    slabs: torch.Tensor  # [B] int64
    slots: torch.Tensor  # [B] int64, where each new token goes
    span: int  # slots of the longest context
    mask: torch.Tensor | None  # [B, 1, 1, span] bool: filled slots; None when all are
    where: slice | torch.Tensor  # the slabs again: side by side they are read in place, others are gathered

    @classmethod
    def of(cls, decodes: list[Run], device: torch.device) -> "DecodePlan":
        sequences = [run.sequence for run in decodes]
        slabs = torch.tensor(sequences, device=device)
        context_lens = torch.tensor([run.context_len for run in decodes], device=device)  # [B]
        span = max(run.context_len for run in decodes)
        filled = torch.arange(span, device=device) < context_lens[:, None]  # [B, span]
        side_by_side = sequences == list(range(sequences[0], sequences[0] + len(sequences)))
        return cls(
            rows=torch.tensor([run.start for run in decodes], device=device),
            slabs=slabs,
            slots=context_lens - 1,
            span=span,
            mask=None if all(run.context_len == span for run in decodes) else filled[:, None, None],
            where=slice(sequences[0], sequences[0] + len(sequences)) if side_by_side else slabs,
        )


class ContiguousCache:
    """One slab of `max_len` slots a sequence, reserved before its first token.

    Appending is a write in place, and a batch of sequences is one rectangular tensor, so a decode step is
    one kernel call whatever the batch. The price is the reservation. FasterTransformer and Orca kept the cache so.

    Args:
        config: of the model that will attend.
        num_sequences: slabs. Sequence s owns slab s.
        max_len: slots in a slab, one a token.
        dtype, device: of keys and values.

    Raises:
        ValueError: from `begin_step`, when a sequence has no slab or outgrows it. Nothing is changed then.

    Example:
        >>> cache = ContiguousCache(config, num_sequences=8, max_len=256)    # doctest: +SKIP
        >>> cache.begin_step({0: 5, 3: 1})                                   # doctest: +SKIP
        tensor([0, 1, 2, 3, 4, 0])

    Source: the baseline of Kwon et al. (SOSP 2023), section 3.
    """

    def __init__(
        self,
        config: LlamaConfig,
        num_sequences: int,
        max_len: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        if num_sequences < 1 or max_len < 1:
            raise ValueError(f"need at least one slab of one slot, got {num_sequences} of {max_len}")
        shape = (config.num_layers, num_sequences, max_len, config.num_kv_heads, config.head_dim)
        # [L, B, max_len, Hkv, D]. Written now: `torch.zeros` would get its memory in the middle of a step
        self.keys = torch.empty(shape, dtype=dtype, device=device).zero_()
        self.values = torch.empty(shape, dtype=dtype, device=device).zero_()
        self.num_sequences, self.max_len = num_sequences, max_len
        self.lengths: dict[int, int] = {}
        self.runs: list[Run] = []
        self.decodes: DecodePlan | None = None

    def length(self, sequence: int) -> int:
        return self.lengths.get(sequence, 0)

    def begin_step(self, new_tokens: dict[int, int]) -> torch.Tensor:
        """Announce the step; returns the positions of its tokens, [T] int64."""
        runs = plan_runs(new_tokens, self.lengths)
        for run in runs:
            if not 0 <= run.sequence < self.num_sequences:
                raise ValueError(
                    f"sequence {run.sequence} has no slab: there are {self.num_sequences}, from 0"
                )
            if run.context_len > self.max_len:
                raise ValueError(
                    f"sequence {run.sequence} needs {run.context_len} slots, its slab has {self.max_len}: "
                    "free it or make the cache with a larger max_len"
                )
        self.lengths.update({run.sequence: run.context_len for run in runs})
        self.runs = runs
        decodes = [run for run in runs if run.num_new == 1]
        self.decodes = DecodePlan.of(decodes, self.keys.device) if decodes else None
        return positions_of(runs)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Write the new keys and values into their slabs, then attend: prompts one by one, decodes in one call."""
        out = torch.empty_like(query)
        keys, values = self.keys[layer], self.values[layer]  # [B, max_len, Hkv, D]
        for run in self.runs:
            if run.num_new > 1:
                rows, new = slice(run.start, run.stop), slice(run.context_len - run.num_new, run.context_len)
                keys[run.sequence, new], values[run.sequence, new] = key[rows], value[rows]
                context = slice(0, run.context_len)
                out[rows] = attend_one(
                    query[rows], keys[run.sequence, context], values[run.sequence, context]
                )
        if plan := self.decodes:
            keys[plan.slabs, plan.slots] = key[plan.rows]
            values[plan.slabs, plan.slots] = value[plan.rows]
            out[plan.rows] = self._decode(query[plan.rows], keys, values, plan)
        return out

    def _decode(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, plan: "DecodePlan"
    ) -> torch.Tensor:
        """One query a sequence. The queries that share a KV head stand where torch expects a time axis, so
        that no key or value is copied for them: [B, Hq, D] -> [B, Hkv, Hq // Hkv, D]."""
        out = F.scaled_dot_product_attention(
            query.unflatten(1, (keys.shape[-2], -1)),
            keys[plan.where, : plan.span].transpose(1, 2),  # [B, Hkv, S, D]
            values[plan.where, : plan.span].transpose(1, 2),
            attn_mask=plan.mask,
        )
        return out.flatten(1, 2)  # [B, Hq, D]

    def free(self, sequence: int) -> None:
        """Give the slab back, cleared. A masked slot still enters the sum, with weight 0, and 0 x NaN is NaN: what
        one request leaves must not reach the next."""
        length = self.lengths.pop(sequence, 0)
        self.keys[:, sequence, :length] = 0
        self.values[:, sequence, :length] = 0

    @property
    def num_bytes(self) -> int:
        """Bytes reserved, used or not."""
        return 2 * self.keys.numel() * self.keys.element_size()

    @property
    def num_bytes_used(self) -> int:
        """Bytes that hold a token's keys and values now."""
        return self.num_bytes * sum(self.lengths.values()) // (self.num_sequences * self.max_len)


class PagedCache:
    """Blocks on demand, anywhere in one pool: each sequence has a block table, and owns no more than its tokens need.

    Here memory/ and attention/ meet. Tables and slots are made once a step, as integers; each layer then writes by
    slot and reads by table.

    Args:
        config: of the model that will attend.
        num_blocks, block_size: of the pool; a block holds `block_size` tokens in every layer.
        dtype, device: of keys and values.

    Raises:
        OutOfBlocks: from `begin_step`, when the step needs more blocks than are free. Nothing is changed then.

    Example:
        >>> cache = PagedCache(config, num_blocks=64)                        # doctest: +SKIP
        >>> cache.begin_step({0: 5, 3: 1})                                   # doctest: +SKIP
        tensor([0, 1, 2, 3, 4, 0])
        >>> cache.tables[0].block_ids, cache.tables[3].block_ids             # doctest: +SKIP
        ([0], [1])

    Source: Kwon et al. (SOSP 2023), section 4.
    """

    def __init__(
        self,
        config: LlamaConfig,
        num_blocks: int,
        block_size: int = 16,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.pool = BlockPool(num_blocks, block_size)
        shape = (config.num_layers, num_blocks, block_size, config.num_kv_heads, config.head_dim)
        # [L, N, P, Hkv, D], never read before it is written
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.tables: dict[int, BlockTable] = {}
        self.slot_mapping = torch.empty(0, dtype=torch.int64)  # of the step: where each new token goes
        self.gather: Gather | None = None  # of the step: which slots are read

    def length(self, sequence: int) -> int:
        return self.tables[sequence].num_tokens if sequence in self.tables else 0

    def begin_step(self, new_tokens: dict[int, int]) -> torch.Tensor:
        """Announce the step, and take the blocks that it needs; returns the positions of its tokens, [T] int64."""
        runs = plan_runs(new_tokens, {sequence: table.num_tokens for sequence, table in self.tables.items()})
        tables = {run.sequence: self.tables.get(run.sequence) or BlockTable(self.pool) for run in runs}
        needed = sum(table.blocks_needed(new_tokens[sequence]) for sequence, table in tables.items())
        # Forks that all write into one shared block in this step: the last of them has it for itself by then.
        copied = Counter(table.block_ids[-1] for table in tables.values() if table.must_copy())
        needed -= sum(count == self.pool.ref_count(block) for block, count in copied.items())
        if needed > self.pool.num_free:
            raise OutOfBlocks(needed, self.pool.num_free, self.pool.num_blocks)
        slots: list[int] = []
        for sequence, table in tables.items():
            appended = table.append(new_tokens[sequence])
            slots += appended.slots
            for layer in range(len(self.keys)):
                copy_blocks(self.keys[layer], self.values[layer], appended.copies)
        self.tables |= tables
        device = self.keys.device
        self.slot_mapping = torch.tensor(slots, device=device)
        block_tables, context_lens = block_table_tensors(list(tables.values()), device)
        starts = torch.tensor([0, *(run.stop for run in runs)], dtype=torch.int32, device=device)
        self.gather = plan_gather(block_tables, context_lens, self.pool.block_size, starts)
        return positions_of(runs)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Write the new keys and values into their slots, then attend through the block tables."""
        keys, values = self.keys[layer], self.values[layer]  # [N, P, Hkv, D]
        keys.flatten(0, 1)[self.slot_mapping] = key
        values.flatten(0, 1)[self.slot_mapping] = value
        return attend_gathered(query, keys, values, self.gather)[0]

    def fork(self, parent: int, child: int) -> None:
        """A second sequence with the parent's tokens: it shares every block until one of the two writes.

        Raises:
            ValueError: no such parent, or a child that is there already.
        """
        if parent not in self.tables or child in self.tables:
            raise ValueError(f"cannot fork {parent} into {child}: there are {sorted(self.tables)}")
        self.tables[child] = self.tables[parent].fork()

    def free(self, sequence: int) -> None:
        """Give the sequence's blocks back. What lies in them stays, and is not read by anybody else."""
        if sequence in self.tables:
            self.tables.pop(sequence).free()

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole pool, used or not."""
        return 2 * self.keys.numel() * self.keys.element_size()

    @property
    def num_bytes_used(self) -> int:
        """Bytes of the slots that hold a token now; a slot that sequences share counts once."""
        tables = self.tables.values()
        taken = {table.slot(position) for table in tables for position in range(table.num_tokens)}
        return self.num_bytes * len(taken) // (self.pool.num_blocks * self.pool.block_size)


def block_table_tensors(
    tables: list[BlockTable], device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Block tables as a kernel takes them: ([B, M] int32, filled up with -1; [B] int32 context_lens).

    Example:
        >>> pool = BlockPool(num_blocks=4, block_size=2)
        >>> one, two = BlockTable(pool), BlockTable(pool)
        >>> one.append(3), two.append(1)
        (Appended(slots=[0, 1, 2], copies=[]), Appended(slots=[4], copies=[]))
        >>> block_table_tensors([one, two])
        (tensor([[ 0,  1],
                [ 2, -1]], dtype=torch.int32), tensor([3, 1], dtype=torch.int32))
    """
    width = max(len(table.block_ids) for table in tables)
    rows = [table.block_ids + [-1] * (width - len(table.block_ids)) for table in tables]
    lens = [table.num_tokens for table in tables]
    return (
        torch.tensor(rows, dtype=torch.int32, device=device),
        torch.tensor(lens, dtype=torch.int32, device=device),
    )
