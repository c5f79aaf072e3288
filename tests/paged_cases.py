"""Problems for paged attention, with their answers. The function under test is a parameter, so that whatever reads a
block table, in torch or as a kernel, on a CPU or a GPU, answers to the same judge.

Keys and values of each sequence lie side by side, as the oracle wants them, and are then scattered over blocks that a
shuffle picked. What no sequence may read holds poison: slots behind a sequence's end, and whole blocks.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from course_lib.attention import attention


@dataclass
class PagedProblem:
    """The arguments of paged_attention, and what its answer can be computed from without any block."""

    query: torch.Tensor  # [T, Hq, D]
    key_cache: torch.Tensor  # [N, P, Hkv, D]
    value_cache: torch.Tensor
    block_tables: torch.Tensor  # [B, M] int32
    context_lens: torch.Tensor  # [B] int32
    query_start_loc: torch.Tensor | None  # [B + 1] int32; None: one query a sequence
    scale: float | None
    sequences: list[tuple[torch.Tensor, torch.Tensor]]  # keys and values [S, Hkv, D] of each, on the CPU
    query_lens: list[int]

    def arguments(self) -> dict:
        names = ["query", "key_cache", "value_cache", "block_tables", "context_lens"]
        if self.query_start_loc is not None:
            names.append("query_start_loc")
        chosen = {} if self.scale is None else {"scale": self.scale}
        return {name: getattr(self, name) for name in names} | chosen

    def parts(self):
        """(queries, keys, values) of each sequence, on the CPU, in the problem's dtype."""
        queries = self.query.cpu().split(self.query_lens)
        return [(query, *kv) for query, kv in zip(queries, self.sequences, strict=True)]

    def expected(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(out [T, Hq, D], lse [T, Hq]) in fp64, by the oracle."""
        answers = [self._in_fp64(*(x.double() for x in part)) for part in self.parts()]
        return torch.cat([out for out, _ in answers]), torch.cat([lse for _, lse in answers])

    def torch_error(self) -> float:
        """The largest error that PyTorch makes in the problem's dtype and on its device, on contiguous tensors."""
        worst = 0.0
        for part in self.parts():
            query, key, value = (x.to(self.query.device) for x in part)
            if len(query) == 0 or len(key) == 0:
                continue
            group = query.shape[1] // key.shape[1]
            heads_first = (
                x.transpose(0, 1)[None] for x in (query, _spread(key, group), _spread(value, group))
            )
            theirs = F.scaled_dot_product_attention(
                *heads_first, attn_mask=_seen(query, key), scale=self.scale
            )
            right = self._in_fp64(*(x.double() for x in part))[0]
            worst = max(worst, (theirs[0].transpose(0, 1).cpu().double() - right).abs().max().item())
        return worst

    def _in_fp64(self, query, key, value):
        if len(key) == 0:  # nothing to see: zeros, and the logarithm of nothing
            return torch.zeros_like(query), query.new_full(query.shape[:2], -math.inf)
        scale = 1 / math.sqrt(query.shape[2]) if self.scale is None else self.scale
        keys = _spread(key, query.shape[1] // key.shape[1])
        scores = torch.einsum("thd,shd->hts", query, keys) * scale  # [Hq, T, S]
        lse = scores.masked_fill(~_seen(query, key), -math.inf).logsumexp(-1)  # [Hq, T]
        return attention(query, key, value, scale=self.scale), lse.transpose(0, 1)


def make_problem(
    seed: int,
    context_lens: list[int],
    num_query_heads: int,
    num_kv_heads: int,
    head_dim: int,
    block_size: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    *,
    query_lens: list[int] | None = None,
    loud: float = 1.0,
    share: tuple[int, int, int] | None = None,
    poison: float = math.nan,
    unused_entry: int = -1,
    spare_blocks: int = 3,
    spare_entries: int = 2,
    scale: float | None = None,
) -> PagedProblem:
    """Draw a problem; the same seed and shape draw the same numbers, whatever poison, share and device say.

    Args:
        query_lens: new tokens of each sequence, its last ones; None: decode, one a sequence.
        loud: factor on the queries. At 30 a softmax is nearly one-hot, and sums that overflow are seen.
        share: (giver, taker, blocks): the taker's first blocks are the giver's, with the giver's tokens in them.
        poison: what lies in every slot that belongs to no sequence.
        unused_entry: what stands in every table entry behind a context.
        spare_blocks, spare_entries: blocks that nobody owns; columns of the tables that nobody needs.
    """
    make = torch.Generator().manual_seed(seed)
    num_blocks = [-(-length // block_size) for length in context_lens]
    sequences = [
        tuple(torch.randn(2, length, num_kv_heads, head_dim, generator=make).to(dtype))
        for length in context_lens
    ]
    count = len(context_lens) if query_lens is None else sum(query_lens)
    query = (loud * torch.randn(count, num_query_heads, head_dim, generator=make)).to(dtype)
    order = torch.randperm(sum(num_blocks) + spare_blocks, generator=make).tolist()
    shape = len(order), block_size, num_kv_heads, head_dim
    caches = [torch.full(shape, poison, dtype=dtype) for _ in range(2)]

    tables = [[order.pop() for _ in range(blocks)] for blocks in num_blocks]
    if share is not None:
        giver, taker, blocks = share
        tables[taker][:blocks] = tables[giver][:blocks]
        common = min(blocks * block_size, context_lens[taker])
        assert common <= context_lens[giver], "the giver has no such tokens"
        sequences[taker] = tuple(
            torch.cat([theirs[:common], own[common:]])
            for theirs, own in zip(sequences[giver], sequences[taker], strict=True)
        )
    for table, contents in zip(tables, sequences, strict=True):
        for cache, tokens in zip(caches, contents, strict=True):
            for block, part in zip(table, tokens.split(block_size) if table else [], strict=True):
                cache[block, : len(part)] = part

    width = max(num_blocks, default=0) + spare_entries
    rows = [table + [unused_entry] * (width - len(table)) for table in tables]
    starts = None
    if query_lens is not None:
        starts = torch.tensor([0, *query_lens], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)
    return PagedProblem(
        query=query.to(device),
        key_cache=caches[0].to(device),
        value_cache=caches[1].to(device),
        block_tables=torch.tensor(rows, dtype=torch.int32).view(len(rows), width).to(device),
        context_lens=torch.tensor(context_lens, dtype=torch.int32).to(device),
        query_start_loc=starts,
        scale=scale,
        sequences=sequences,
        query_lens=[1] * len(context_lens) if query_lens is None else list(query_lens),
    )


def hold_against_fp64(function, problem: PagedProblem, **options) -> None:
    """The answer's error is at most four times PyTorch's own in the same dtype, and a rounding error more.

    Args:
        function: paged_attention, or whatever is called like it.
        options: passed on to the function, such as num_splits.
    """
    out, lse = function(**problem.arguments(), return_lse=True, **options)
    right, right_lse = problem.expected()
    exact = problem.query.dtype == torch.float64
    assert (out.dtype, out.device) == (problem.query.dtype, problem.query.device)
    assert lse.dtype == (torch.float64 if exact else torch.float32)
    assert out.shape == problem.query.shape and lse.shape == problem.query.shape[:2]
    out, lse = out.cpu().double(), lse.cpu().double()
    assert not out.isnan().any(), f"NaN in rows {out.isnan().flatten(1).any(1).nonzero().flatten().tolist()}"
    if len(out):
        theirs, error = problem.torch_error(), (out - right).abs().max().item()
        bound = 4 * theirs + (1e-12 if exact else 1e-5)
        assert error <= bound, f"error {error:.2e}; PyTorch's own is {theirs:.2e}"
    near = dict(rtol=1e-12, atol=1e-12) if exact else dict(rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(lse, right_lse, **near)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal bit for bit: a NaN equals itself, and 0 is not -0."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def _spread(heads: torch.Tensor, group: int) -> torch.Tensor:
    """[S, Hkv, D] -> [S, Hq, D]: query heads 0 .. group - 1 share KV head 0, and so on."""
    return heads.repeat_interleave(group, dim=1)


def _seen(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """[T, S] bool: the queries are the last positions, and see themselves and what comes before."""
    full = torch.ones(len(query), len(key), dtype=torch.bool, device=query.device)
    return full.tril(len(key) - len(query))
