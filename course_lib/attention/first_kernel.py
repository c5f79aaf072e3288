"""Kernel one: paged decode attention that keeps all scores, as the kernel of 2023 did. It has a longest context.

A program for each (sequence, KV head) goes three ways: it walks the block table and keeps every score, takes the
softmax of all of them at once, and walks the table again to mix the values. Everything else (pointers, masks, GQA
packing) is as in `kernels.py`, whose kernel needs no room for scores and walks once.

The kernel of 2023 kept its scores in shared memory, 4 bytes for each position of each query head. Triton gives a
program no array that it can index, so a scratch array in the GPU's memory stands in for it, and the softmax holds a
whole row in registers.

Source: Kwon et al. (SOSP 2023), section 5.1; the course's own kernel, in Triton.
"""

import math

import torch
import triton
import triton.language as tl

from course_lib.attention.checks import check_paged
from course_lib.attention.kernels import INTERPRETED, LOG2_E, check_runs
from course_lib.attention.launch import Config, next_power_of_2


@triton.jit
def _first_kernel(
    out_ptr,  # [B, Hq, D]
    scores_ptr,  # [B, Hq, CONTEXT] fp32: scores, then weights
    query_ptr,  # [B, Hq, D]
    key_ptr,  # [N, P, Hkv, D]
    value_ptr,  # [N, P, Hkv, D]
    table_ptr,  # [B, M] int32
    context_ptr,  # [B] int32
    scale,  # of the scores, times log2(e)
    table_width,  # M
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # query heads that share a KV head
    GP: tl.constexpr,  # GROUP padded to a power of two
    D: tl.constexpr,
    DP: tl.constexpr,  # D padded to a power of two
    P: tl.constexpr,  # block_size
    TILE: tl.constexpr,  # tokens that are read at a time
    CONTEXT: tl.constexpr,  # the longest context, a power of two
):
    sequence = tl.program_id(0)
    kv_head = tl.program_id(1)
    context_len = tl.load(context_ptr + sequence)

    in_group = tl.arange(0, GP)
    dim = tl.arange(0, DP)
    is_query = (in_group < GROUP)[:, None] & (dim < D)[None, :]
    row = (sequence.to(tl.int64) * NUM_KV_HEADS + kv_head) * GROUP + in_group  # [GP]
    query = tl.load(query_ptr + row[:, None] * D + dim[None, :], mask=is_query, other=0.0)  # [GP, DP]

    # First walk: every key, its score into the scratch array.
    for start in range(0, context_len, TILE):
        position = start + tl.arange(0, TILE)
        is_token = position < context_len
        block = tl.load(table_ptr + sequence * table_width + position // P, mask=is_token, other=0).to(
            tl.int64
        )
        slot = block * P + position % P
        place = (slot * NUM_KV_HEADS + kv_head)[:, None] * D + dim[None, :]  # [TILE, DP]
        key = tl.load(key_ptr + place, mask=is_token[:, None] & (dim < D)[None, :], other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale  # [GP, TILE], fp32
        is_score = (in_group < GROUP)[:, None] & is_token[None, :]
        tl.store(scores_ptr + row[:, None] * CONTEXT + position[None, :], scores, mask=is_score)
    tl.debug_barrier()  # what one thread has written, others read

    # The softmax of all scores at once: CONTEXT numbers for each query head. Here is the wall.
    everywhere = tl.arange(0, CONTEXT)
    kept = scores_ptr + row[:, None] * CONTEXT + everywhere[None, :]  # [GP, CONTEXT]
    is_kept = (in_group < GROUP)[:, None] & (everywhere < context_len)[None, :]
    all_scores = tl.load(kept, mask=is_kept, other=-float("inf"))
    tl.debug_barrier()  # a small row is loaded by several threads: all have it before it is overwritten
    largest = tl.max(all_scores, axis=1)
    weights = tl.exp2(all_scores - tl.where(largest == -float("inf"), 0.0, largest)[:, None])
    total = tl.sum(weights, axis=1)
    tl.store(kept, weights / tl.where(total > 0, total, 1.0)[:, None], mask=is_kept)
    tl.debug_barrier()

    # Second walk: every value, times its weight.
    mixed = tl.zeros([GP, DP], tl.float32)
    for start in range(0, context_len, TILE):
        position = start + tl.arange(0, TILE)
        is_token = position < context_len
        block = tl.load(table_ptr + sequence * table_width + position // P, mask=is_token, other=0).to(
            tl.int64
        )
        slot = block * P + position % P
        place = (slot * NUM_KV_HEADS + kv_head)[:, None] * D + dim[None, :]
        value = tl.load(value_ptr + place, mask=is_token[:, None] & (dim < D)[None, :], other=0.0)
        is_score = (in_group < GROUP)[:, None] & is_token[None, :]
        tile = tl.load(scores_ptr + row[:, None] * CONTEXT + position[None, :], mask=is_score, other=0.0)
        mixed += tl.dot(tile.to(value.dtype), value, input_precision="ieee")
    tl.store(out_ptr + row[:, None] * D + dim[None, :], mixed.to(out_ptr.dtype.element_ty), mask=is_query)


def shape_of_launch(group: int, capability: tuple[int, int] | None) -> Config:
    """One program takes a whole group, which from Ampere on is padded to the 16 rows that a tensor core takes."""
    padded = next_power_of_2(group)
    return Config(padded if capability is None or capability < (8, 0) else max(16, padded), 32, 4, 1)


def paged_attention(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_tables: torch.Tensor,
    context_lens: torch.Tensor,
    *,
    scale: float | None = None,
) -> torch.Tensor:
    """`course_lib.attention.paged_attention` for decode, with a kernel that keeps all scores.

    Args:
        query: [B, Hq, D], fp32, fp16 or bf16 (no bf16 in the interpreter), contiguous as all other tensors.

    Returns:
        [B, Hq, D]. Values of tables and lengths are not checked.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, or cannot run here.
    """
    check_paged(query, key_cache, value_cache, block_tables, context_lens, None)
    check_runs(query, key_cache, value_cache, block_tables, context_lens)
    num_seqs, num_query_heads, head_dim = query.shape
    _, block_size, num_kv_heads, _ = key_cache.shape
    group, table_width = num_query_heads // num_kv_heads, block_tables.shape[1]
    out = torch.empty_like(query)
    if num_seqs == 0:
        return out
    capability = None if INTERPRETED else torch.cuda.get_device_capability(query.device)
    config = shape_of_launch(group, capability)
    context = next_power_of_2(max(16, table_width * block_size))
    scores = torch.empty(num_seqs, num_query_heads, context, dtype=torch.float32, device=query.device)
    scale = (1 / math.sqrt(head_dim) if scale is None else scale) * LOG2_E
    _first_kernel[(num_seqs, num_kv_heads)](
        out, scores, query, key_cache, value_cache, block_tables, context_lens, scale, table_width,
        NUM_KV_HEADS=num_kv_heads, GROUP=group, GP=config.group_part, D=head_dim,
        DP=next_power_of_2(head_dim), P=block_size, TILE=config.tile, CONTEXT=context,
        num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip
    return out
