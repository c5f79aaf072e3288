"""Paged attention for a CPU that is in a hurry: whole blocks, a few sequences at a time, torch's fused kernel.

`paged_attention` gathers token by token, all sequences at once; the copy goes out to memory and comes back. Here blocks
are copied whole, and so few at a time that the copy stays in the processor's cache: on two cores, for 32 sequences of
256 tokens, reading through tables then takes as long as reading slabs.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F

from course_lib.attention.dense import attend_one

PIECE_BYTES = 3 * 2**19  # keys of one gathered piece: with its values it stays in a processor's cache


@dataclass(frozen=True)
class Piece:
    """Some sequences that decode one token each, gathered together."""

    rows: torch.Tensor  # [b] int64, of their queries
    blocks: torch.Tensor  # [b x M] int64, whole tables, one after another
    span: int  # slots of each: M x P
    seen: torch.Tensor | None  # [b, 1, 1, span] bool; None if every slot holds a token
    stale: torch.Tensor  # [n] int64, gathered slots that hold no token of theirs


@dataclass(frozen=True)
class BlockPlan:
    """What a step reads, in whole blocks. The same for all layers of a model, so it is made once a step."""

    pieces: list[Piece]
    prefills: list[tuple[slice, torch.Tensor, int]]  # (rows of the queries, [M] int64 blocks, context_len)
    keys: (
        torch.Tensor
    )  # [blocks of the largest piece, P, Hkv, D]: where a piece is gathered, for every layer anew
    values: torch.Tensor


def plan_blocks(
    tables: list[list[int]], context_lens: list[int], query_start_loc: list[int], cache: torch.Tensor
) -> BlockPlan:
    """Plan a step.

    Args:
        tables: the blocks of each sequence, enough for its context; more do no harm.
        context_lens: tokens of each sequence, with its new ones. At least 1.
        query_start_loc: where each one's queries begin in the flat batch, and the end.
        cache: [N, P, Hkv, D], one layer's keys: for its sizes.
    """
    device, (_, size, num_heads, head_dim) = cache.device, cache.shape
    counts = [stop - start for start, stop in pairwise(query_start_loc)]
    used = [table[: -(-length // size)] for table, length in zip(tables, context_lens, strict=True)]
    # Sequences of similar length share a piece, so that little is padded.
    decodes = sorted((b for b, count in enumerate(counts) if count == 1), key=lambda b: len(used[b]))
    bytes_per_block = size * num_heads * head_dim * cache.element_size()
    pieces, group = [], []
    for b in decodes:
        if group and (len(group) + 1) * len(used[b]) * bytes_per_block > PIECE_BYTES:
            pieces.append(_piece(group, used, context_lens, query_start_loc, size, device))
            group = []
        group.append(b)
    if group:
        pieces.append(_piece(group, used, context_lens, query_start_loc, size, device))
    prefills = [
        (slice(*query_start_loc[b : b + 2]), torch.tensor(used[b], device=device), context_lens[b])
        for b, count in enumerate(counts)
        if count > 1
    ]
    room = max([len(piece.blocks) for piece in pieces] + [len(blocks) for _, blocks, _ in prefills])
    keys, values = (torch.empty(room, *cache.shape[1:], dtype=cache.dtype, device=device) for _ in range(2))
    return BlockPlan(pieces, prefills, keys, values)


def _piece(
    group: list[int],
    used: list[list[int]],
    context_lens: list[int],
    query_start_loc: list[int],
    size: int,
    device: torch.device,
) -> Piece:
    width = max(len(used[b]) for b in group)
    span = width * size
    # A shorter table is filled up with the sequence's own first block: nobody else's is touched.
    blocks = [block for b in group for block in used[b] + used[b][:1] * (width - len(used[b]))]
    lens = torch.tensor([context_lens[b] for b in group], device=device)
    seen = torch.arange(span, device=device) < lens[:, None]  # [b, span]
    stale = (~seen).flatten().nonzero()[:, 0]
    return Piece(
        rows=torch.tensor([query_start_loc[b] for b in group], device=device),
        blocks=torch.tensor(blocks, device=device),
        span=span,
        seen=seen[:, None, None] if len(stale) else None,
        stale=stale,
    )


def attend_blocks(
    query: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, plan: BlockPlan
) -> torch.Tensor:
    """`paged_attention` over a plan, through torch's fused kernel: [T, Hq, D] -> [T, Hq, D].

    Blocks are gathered whole, into a place that is used again and again and stays in the processor's cache, so the
    copy hardly reaches memory. What lies behind a context is cleared in the copy: nothing stale is attended to.
    """
    out = query.new_empty(query.shape)  # its rows side by side, though the query's may not be
    for piece in plan.pieces:
        keys, values = _gathered(key_cache, value_cache, piece.blocks, plan)
        for copy in (keys, values):
            copy.index_fill_(0, piece.stale, 0)
        found = F.scaled_dot_product_attention(
            query.index_select(0, piece.rows).unflatten(1, (key_cache.shape[2], -1)),  # [b, Hkv, Hq / Hkv, D]
            keys.view(-1, piece.span, *keys.shape[1:]).transpose(1, 2),  # [b, Hkv, span, D]
            values.view(-1, piece.span, *keys.shape[1:]).transpose(1, 2),
            attn_mask=piece.seen,
        )
        out.index_copy_(0, piece.rows, found.flatten(1, 2))
    for rows, blocks, context_len in plan.prefills:
        keys, values = _gathered(key_cache, value_cache, blocks, plan)
        out[rows] = attend_one(query[rows], keys[:context_len], values[:context_len])
    return out


def _gathered(
    key_cache: torch.Tensor, value_cache: torch.Tensor, blocks: torch.Tensor, plan: BlockPlan
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole blocks in a row: [len(blocks) x P, Hkv, D] each."""
    room = plan.keys[: len(blocks)], plan.values[: len(blocks)]
    for cache, copy in zip((key_cache, value_cache), room, strict=True):
        torch.index_select(cache, 0, blocks, out=copy)
    return room[0].flatten(0, 1), room[1].flatten(0, 1)
