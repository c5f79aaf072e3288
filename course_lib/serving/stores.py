"""Where an engine's keys and values lie, when somebody else decides who owns what.

An allocator of memory/ gives out blocks or slabs, as integers. A store has the tensors, and answers what the model
and the engine ask:

    begin_step(runs, copies) -> positions     which tokens come now; block copies are made first
    attend(layer, query, key, value)          once a layer, by the model
"""

from collections.abc import Sequence

import torch

from course_lib.attention import copy_blocks
from course_lib.attention.whole_blocks import BlockPlan, attend_blocks, plan_blocks
from course_lib.memory import PagedAllocator, ReservingAllocator
from course_lib.serving.kv_cache import ContiguousCache, Run, positions_of
from course_lib.serving.model import LlamaConfig


class BlockStore:
    """One pool of blocks for all layers, read through the block tables of a PagedAllocator.

    Args:
        config: of the model that will attend.
        allocator: owns the blocks; a sequence's table names them.
        backend: "torch", or "triton" for the kernels where every sequence decodes one token.
        dtype, device: of keys and values.

    Source: Kwon et al. (SOSP 2023), section 4.
    """

    def __init__(
        self,
        config: LlamaConfig,
        allocator: PagedAllocator,
        backend: str,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
    ):
        self.allocator, self.backend = allocator, backend
        pool = allocator.pool
        shape = (config.num_layers, pool.num_blocks, pool.block_size, config.num_kv_heads, config.head_dim)
        # [L, N, P, Hkv, D], never read before it is written. Zeros are for the operating system, which gives out memory
        # when it is touched: better now than in the middle of a step.
        self.keys = torch.empty(shape, dtype=dtype, device=device).zero_()
        self.values = torch.empty(shape, dtype=dtype, device=device).zero_()
        self.slot_mapping = torch.empty(0, dtype=torch.int64)  # of the step: where each new token goes
        self.plan: BlockPlan | None = None  # of the step: what is read
        self.decode: tuple[torch.Tensor, torch.Tensor] | None = (
            None  # of the step, for a kernel: tables and lengths
        )

    def begin_step(
        self,
        runs: Sequence[Run],
        copies: Sequence[tuple[int, int]] = (),
        tables: Sequence[list[int]] | None = None,
    ) -> torch.Tensor:
        """Announce the step; returns the positions of its tokens, [T] int64.

        Args:
            copies: blocks to copy first, (source, destination), in order.
            tables: the blocks of each run's sequence; None takes the allocator's.
        """
        if copies:
            for layer in range(len(self.keys)):
                copy_blocks(self.keys[layer], self.values[layer], list(copies))
        size, device = self.allocator.pool.block_size, self.keys.device
        tables = tables or [self.allocator.tables[run.sequence].block_ids for run in runs]
        slots = [
            table[position // size] * size + position % size
            for table, run in zip(tables, runs, strict=True)
            for position in range(run.context_len - run.num_new, run.context_len)
        ]
        self.slot_mapping = torch.tensor(slots, device=device)
        context_lens = [run.context_len for run in runs]
        self.plan = self.decode = None
        if self.backend == "triton" and all(run.num_new == 1 for run in runs):
            width = max(map(len, tables))
            rows = [table + [-1] * (width - len(table)) for table in tables]
            self.decode = (
                torch.tensor(rows, dtype=torch.int32, device=device),
                torch.tensor(context_lens, dtype=torch.int32, device=device),
            )
        else:
            self.plan = plan_blocks(tables, context_lens, [0, *(run.stop for run in runs)], self.keys[0])
        return positions_of(list(runs))

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Write the new keys and values into their slots, then attend through the block tables."""
        keys, values = self.keys[layer], self.values[layer]  # [N, P, Hkv, D]
        if self.backend == "triton":
            from course_lib.attention import kernels  # Triton is not everywhere

            kernels.write_kv(key.contiguous(), value.contiguous(), keys, values, self.slot_mapping)
            if self.decode is not None:
                return kernels.paged_attention(query.contiguous(), keys, values, *self.decode)
        else:
            keys.flatten(0, 1).index_copy_(0, self.slot_mapping, key)
            values.flatten(0, 1).index_copy_(0, self.slot_mapping, value)
        return attend_blocks(query, keys, values, self.plan)


class SlabStore:
    """One slab of max_len slots for each sequence that runs: the baseline, with the same calls."""

    def __init__(
        self,
        config: LlamaConfig,
        allocator: ReservingAllocator,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
    ):
        self.allocator = allocator
        num_slabs = allocator.num_slots // allocator.max_len
        self.cache = ContiguousCache(config, num_slabs, allocator.max_len, dtype=dtype, device=device)
        self.owners: dict[int, int] = {}  # slab -> the sequence that has it

    def begin_step(self, runs: Sequence[Run], copies: Sequence[tuple[int, int]] = ()) -> torch.Tensor:
        """Announce the step; returns the positions of its tokens, [T] int64."""
        slabs = {}
        for run in runs:
            slab = self.allocator.slabs[run.sequence].offset // self.allocator.max_len
            if self.owners.get(slab) != run.sequence:
                self.cache.free(slab)  # what another has left
                self.owners[slab] = run.sequence
            self.cache.lengths[slab] = (
                run.context_len - run.num_new
            )  # the scheduler knows, also after an interruption
            slabs[slab] = run.num_new
        return self.cache.begin_step(slabs)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return self.cache.attend(layer, query, key, value)
