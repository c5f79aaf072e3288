"""Attention over keys and values that lie in blocks, in plain torch: writing, copying, gathering, walking.

key_cache and value_cache are [num_blocks, block_size, Hkv, D]; a *slot* is a place in the first two axes taken as
one, block x block_size + offset. Nothing here decides who owns a block: tables, slots and lengths come in as integers.

Source: Kwon et al. (SOSP 2023), section 4.1. The layout is the one that vLLM and FlashAttention call NHD.
"""

import math
from dataclasses import dataclass

import torch

from course_lib.attention.checks import check_caches, check_paged, check_values, check_write
from course_lib.attention.softmax import merge_states


def write_kv(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> None:
    """Put the keys and values of new tokens into their slots, in place.

    Args:
        key, value: [T, Hkv, D].
        key_cache, value_cache: [num_blocks, block_size, Hkv, D], contiguous, the dtype of the key.
        slot_mapping: [T] int64, one slot a token, all distinct; -1 leaves a token out (padding).

    Raises:
        ValueError: shapes, dtypes or devices that do not fit; a slot that does not exist, or is given twice.

    Example:
        >>> key_cache, value_cache = torch.zeros(2, 3, 2, 1, 1)      # three blocks of two slots each
        >>> write_kv(torch.ones(2, 1, 1), torch.ones(2, 1, 1), key_cache, value_cache, torch.tensor([5, -1]))
        >>> key_cache.flatten().tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    """
    check_write(key, value, key_cache, value_cache, slot_mapping)
    num_slots, kept = key_cache.shape[0] * key_cache.shape[1], slot_mapping >= 0
    slots = slot_mapping[kept]
    if len(slot_mapping) and not (-1 <= int(slot_mapping.min()) and int(slot_mapping.max()) < num_slots):
        low, high = int(slot_mapping.min()), int(slot_mapping.max())
        raise ValueError(
            f"slot_mapping holds {low} to {high}: slots go from 0 to {num_slots - 1}, -1 leaves out"
        )
    named, counts = slots.unique(return_counts=True)
    if len(named) < len(slots):
        twice = named[counts > 1][0].item()
        raise ValueError(f"slot_mapping names slot {twice} twice: one of the two tokens would be lost")
    key_cache.view(num_slots, *key.shape[1:])[slots] = key[kept]
    value_cache.view(num_slots, *value.shape[1:])[slots] = value[kept]


def copy_blocks(key_cache: torch.Tensor, value_cache: torch.Tensor, copies: list[tuple[int, int]]) -> None:
    """Copy whole blocks, in order: what copy-on-write asks for.

    Args:
        key_cache, value_cache: [num_blocks, block_size, Hkv, D].
        copies: (source, destination) block ids.

    Raises:
        ValueError: a block that does not exist.
    """
    check_caches(key_cache, value_cache)
    for block in (block for pair in copies for block in pair):
        if not 0 <= block < len(key_cache):
            raise ValueError(f"there is no block {block}: the cache has {len(key_cache)}, from 0")
    for source, destination in copies:
        key_cache[destination] = key_cache[source]
        value_cache[destination] = value_cache[source]


def paged_attention(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_tables: torch.Tensor,
    context_lens: torch.Tensor,
    *,
    query_start_loc: torch.Tensor | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Each sequence's newest tokens attend to its whole context, wherever that lies.

    Contexts are gathered into one padded tensor and attended to at once. That costs a copy of everything that is
    read, which is what a kernel that walks the table saves.

    Args:
        query: [T, Hq, D], float; the sequences' new tokens one after another.
        key_cache, value_cache: [num_blocks, block_size, Hkv, D]. The new tokens' keys and values are in it already.
        block_tables: [B, M] int32. Entries past a sequence's context are never read, whatever they hold.
        context_lens: [B] int32, the new tokens included. A context of 0 gives zeros, and lse -inf.
        query_start_loc: [B + 1] int32; sequence b's queries are rows start[b] .. start[b + 1] - 1 and its last
            positions, each seeing what comes before it and itself. None: one query a sequence (decode), T = B.
        scale: factor on the scores; 1 / sqrt(D) by default.
        return_lse: also return the log-sum-exp of each query's scores.

    Returns:
        [T, Hq, D], the dtype of the query; with return_lse also [T, Hq], natural logarithm, fp32 (fp64 for fp64).

    Raises:
        ValueError: shapes, dtypes or devices that do not fit; a table entry within the context that is no block; a
            context longer than its table; more queries than context.

    Example:
        >>> key_cache = value_cache = torch.arange(4.0).reshape(4, 1, 1, 1)      # four blocks of one slot
        >>> paged_attention(torch.zeros(1, 1, 1), key_cache, value_cache,
        ...                 torch.tensor([[3, 1, -1]], dtype=torch.int32), torch.tensor([2], dtype=torch.int32))
        tensor([[[2.]]])
    """
    check_paged(query, key_cache, value_cache, block_tables, context_lens, query_start_loc)
    check_values(key_cache, block_tables, context_lens, query_start_loc, len(query))
    plan = plan_gather(block_tables, context_lens, key_cache.shape[1], query_start_loc)
    out, lse = attend_gathered(query, key_cache, value_cache, plan, scale)
    return (out, lse) if return_lse else out


def slots_of(block_table: torch.Tensor, num_tokens: int, block_size: int) -> torch.Tensor:
    """The slots of a sequence's first tokens: [num_tokens] int64.

    Args:
        block_table: [M] int32.

    Example:
        >>> slots_of(torch.tensor([7, 2], dtype=torch.int32), 5, block_size=4).tolist()
        [28, 29, 30, 31, 8]
    """
    position = torch.arange(num_tokens, device=block_table.device)
    return block_table[position // block_size].long() * block_size + position % block_size


@dataclass(frozen=True)
class Gather:
    """Which slots a step reads. The same for all layers of a model, so it is made once a step.

    Sequences with one query are gathered together, padded to the longest; the others one by one.
    """

    rows: torch.Tensor  # [B1] int64, the single queries' rows
    # [B1, S] int64; behind its end a sequence repeats its first slot, so nothing stale is read
    slots: torch.Tensor
    seen: torch.Tensor  # [B1, S] bool
    prefills: list[tuple[slice, torch.Tensor]]  # (rows of the queries, [S] int64 slots of the context)


def plan_gather(
    block_tables: torch.Tensor,
    context_lens: torch.Tensor,
    block_size: int,
    query_start_loc: torch.Tensor | None = None,
) -> Gather:
    """Which slots a step reads; arguments as in `paged_attention`, with a block_size, and unchecked."""
    device, num_seqs = block_tables.device, len(context_lens)
    starts = list(range(num_seqs + 1)) if query_start_loc is None else query_start_loc.tolist()
    contexts = context_lens.tolist()
    single = [b for b in range(num_seqs) if starts[b + 1] - starts[b] == 1]
    chosen = torch.tensor(single, dtype=torch.int64, device=device)
    position = torch.arange(max((contexts[b] for b in single), default=0), device=device)
    seen = position < context_lens[chosen, None]  # [B1, S]
    position = torch.where(seen, position, 0)
    blocks = block_tables[chosen].gather(1, position // block_size) if len(position) and single else position
    # The table of an empty context is not read.
    blocks = torch.where(context_lens[chosen, None] > 0, blocks, 0)
    slots = blocks.long() * block_size + position % block_size
    prefills = [
        (slice(starts[b], starts[b + 1]), slots_of(block_tables[b], contexts[b], block_size))
        for b in range(num_seqs)
        if starts[b + 1] - starts[b] > 1
    ]
    rows = torch.tensor([starts[b] for b in single], dtype=torch.int64, device=device)
    return Gather(rows, slots, seen, prefills)


def attend_gathered(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    plan: Gather,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`paged_attention` over slots that are known: (out [T, Hq, D], lse [T, Hq])."""
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    out, lse = _empty_result(query)
    if plan.slots.numel():
        out[plan.rows], lse[plan.rows] = _decode(query[plan.rows], key_cache, value_cache, plan, scale)
    for rows, slots in plan.prefills:
        out[rows], lse[rows] = _prefill(query[rows], key_cache, value_cache, slots, scale)
    return out.to(query.dtype), lse


def _decode(
    query: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, plan: Gather, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One query a sequence, all sequences at once: gather every context, and attend to what is seen of it."""
    num_seqs, num_query_heads, head_dim = query.shape
    num_kv_heads, work = key_cache.shape[2], _work_dtype(query)
    keys = key_cache.flatten(0, 1)[plan.slots].to(work).permute(0, 2, 3, 1)  # [B, Hkv, D, S]
    values = value_cache.flatten(0, 1)[plan.slots].to(work).transpose(1, 2)  # [B, Hkv, S, D]
    grouped = query.to(work).view(num_seqs, num_kv_heads, -1, head_dim)  # [B, Hkv, Hq / Hkv, D]
    hidden = ~plan.seen[:, None, None]  # [B, 1, 1, S]
    scores = (grouped @ keys * scale).masked_fill(hidden, -torch.inf)  # [B, Hkv, Hq / Hkv, S]
    lse = scores.logsumexp(dim=-1)
    weights = torch.exp(scores - torch.where(lse == -torch.inf, 0, lse)[..., None])
    out = (weights @ values).reshape(query.shape)
    nothing = ~plan.seen.any(dim=1)  # an empty context has some slot stand in for it, which may hold anything
    out, lse = out.masked_fill(nothing[:, None, None], 0.0), lse.reshape(num_seqs, num_query_heads)
    return out, lse.masked_fill(nothing[:, None], -torch.inf)


def _prefill(
    query: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, slots: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Several queries of one sequence, its last positions: gather its context once, and attend causally."""
    num_tokens, _, head_dim = query.shape
    context_len, num_kv_heads, work = len(slots), key_cache.shape[2], _work_dtype(query)
    keys = key_cache.flatten(0, 1)[slots].to(work).permute(1, 2, 0)[:, None]  # [Hkv, 1, D, S]
    values = value_cache.flatten(0, 1)[slots].to(work).transpose(0, 1)[:, None]  # [Hkv, 1, S, D]
    grouped = query.to(work).view(num_tokens, num_kv_heads, -1, head_dim)
    grouped = grouped.permute(1, 2, 0, 3)  # [Hkv, G, T, D]
    last_seen = torch.arange(context_len - num_tokens, context_len, device=query.device)  # [T]
    future = torch.arange(context_len, device=query.device) > last_seen[:, None]  # [T, S]
    scores = (grouped @ keys * scale).masked_fill(future, -torch.inf)  # [Hkv, G, T, S]
    lse = scores.logsumexp(dim=-1)  # [Hkv, G, T]
    out = torch.exp(scores - lse[..., None]) @ values  # [Hkv, G, T, D]
    return out.permute(2, 0, 1, 3).reshape(query.shape), lse.permute(2, 0, 1).reshape(query.shape[:2])


def paged_attention_blockwise(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_tables: torch.Tensor,
    context_lens: torch.Tensor,
    *,
    scale: float | None = None,
    return_lse: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Decode attention as a kernel does it: one sequence, one block at a time, nothing gathered.

    Each block gives a partial result with its log-sum-exp, and `merge_states` joins them. It is slow in Python, and
    it is the text of the kernel in `kernels.py`.

    Args, Returns, Raises: as `paged_attention` without query_start_loc.

    Example:
        >>> key_cache = value_cache = torch.arange(4.0).reshape(4, 1, 1, 1)
        >>> paged_attention_blockwise(torch.zeros(1, 1, 1), key_cache, value_cache,
        ...                           torch.tensor([[3, 1]], dtype=torch.int32), torch.tensor([2], dtype=torch.int32))
        tensor([[[2.]]])
    """
    check_paged(query, key_cache, value_cache, block_tables, context_lens, None)
    check_values(key_cache, block_tables, context_lens, None, len(query))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    block_size, num_kv_heads = key_cache.shape[1:3]
    work = _work_dtype(query)
    out, lse = _empty_result(query)
    for sequence, context_len in enumerate(context_lens.tolist()):
        grouped = query[sequence].to(work).view(num_kv_heads, -1, query.shape[-1])  # [Hkv, Hq / Hkv, D]
        state = out[sequence].view_as(grouped), lse[sequence].view(grouped.shape[:2])  # nothing seen yet
        for start in range(0, context_len, block_size):
            block = int(block_tables[sequence, start // block_size])
            count = min(block_size, context_len - start)  # tokens in this block; slots behind them are stale
            keys = key_cache[block, :count].to(work).permute(1, 2, 0)  # [Hkv, D, count]
            values = value_cache[block, :count].to(work).transpose(0, 1)  # [Hkv, count, D]
            scores = grouped @ keys * scale  # [Hkv, Hq / Hkv, count]
            part = scores.logsumexp(dim=-1)
            state = merge_states(*state, torch.exp(scores - part[..., None]) @ values, part)
        out[sequence], lse[sequence] = state[0].view_as(out[sequence]), state[1].view_as(lse[sequence])
    out = out.to(query.dtype)
    return (out, lse) if return_lse else out


def _work_dtype(query: torch.Tensor) -> torch.dtype:
    """Sums are kept in fp32 whatever the cache holds; in fp64 if the query is."""
    return torch.float64 if query.dtype == torch.float64 else torch.float32


def _empty_result(query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, lse) of queries that have seen nothing."""
    out = torch.zeros(query.shape, dtype=_work_dtype(query), device=query.device)
    return out, torch.full(query.shape[:2], -torch.inf, dtype=out.dtype, device=query.device)
