"""Paged decode attention and the writing of keys and values, as GPU kernels in Triton.

The same functions as in `paged.py`, with one difference: nothing is gathered. A program walks its sequence's block
table, tile by tile, with online softmax, and reads every key and value once.

    _decode_kernel   one program for each (sequence, KV head, split of the context): walks its tiles
    _merge_kernel    one program for each (sequence, query head): joins the splits by their log-sum-exp
    _write_kernel    one program for each new token: copies its keys and values into their slot

They run compiled on NVIDIA GPUs, and on CPU tensors in Triton's interpreter if TRITON_INTERPRET=1 was set before the
first import of triton. Values of tables and lengths are not checked here, because that would make the GPU wait;
validate=True checks them all the same.

Source: Kwon et al. (SOSP 2023), section 4.3, for the walk; Milakov and Gimelshein (2018) for online softmax; Dao et
al., "Flash-Decoding" (2023), for the split and the merge.
"""

import math
import os

import torch
import triton
import triton.language as tl

from course_lib.attention.checks import check_paged, check_values, check_write
from course_lib.attention.launch import Config, choose_config, choose_num_splits, next_power_of_2

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
LOG2_E = 1 / math.log(2)
MERGE_TILE = 16  # splits that the merge reads at a time


@triton.jit
def _decode_kernel(
    out_ptr,  # [splits, B, Hq, D]: the query's dtype with one split, fp32 with more
    lse_ptr,  # [splits, B, Hq] fp32, natural logarithm
    query_ptr,  # [B, Hq, D]
    key_ptr,  # [N, P, Hkv, D]
    value_ptr,  # [N, P, Hkv, D]
    table_ptr,  # [B, M] int32
    context_ptr,  # [B] int32
    scale,  # of the scores, times log2(e): exp2 is what the hardware has
    num_seqs,
    table_width,  # M
    tiles_per_split,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # query heads that share a KV head
    PARTS: tl.constexpr,  # programs that share a group
    GP: tl.constexpr,  # query heads of one program, padded to a power of two
    D: tl.constexpr,
    DP: tl.constexpr,  # D padded to a power of two
    P: tl.constexpr,  # block_size
    TILE: tl.constexpr,  # tokens that are read at a time, whatever the block size
):
    sequence = tl.program_id(0)
    kv_head = tl.program_id(1) // PARTS
    part = tl.program_id(1) % PARTS
    split = tl.program_id(2)
    context_len = tl.load(context_ptr + sequence)

    # Queries of the group: they share every key and value that is read (GQA packing).
    in_group = part * GP + tl.arange(0, GP)  # [GP]
    head = kv_head * GROUP + in_group
    dim = tl.arange(0, DP)  # [DP]
    is_query = (in_group < GROUP)[:, None] & (dim < D)[None, :]
    query_row = sequence.to(tl.int64) * NUM_KV_HEADS * GROUP + head
    query = tl.load(query_ptr + query_row[:, None] * D + dim[None, :], mask=is_query, other=0.0)  # [GP, DP]

    # The state of online softmax: largest score, sum of weights, weighted sum of values. In fp32.
    largest = tl.full([GP], -float("inf"), tl.float32)
    total = tl.zeros([GP], tl.float32)
    mixed = tl.zeros([GP, DP], tl.float32)

    first = split * tiles_per_split * TILE
    last = tl.minimum(context_len, first + tiles_per_split * TILE)
    for start in range(first, last, TILE):
        position = start + tl.arange(0, TILE)  # [TILE]
        is_token = position < last
        # The walk: position -> logical block -> physical block -> slot. int64 before the stride: block 131,072 with
        # 16 slots of 8 heads and 128 numbers begins beyond 2^31.
        entry = table_ptr + sequence * table_width + position // P
        block = tl.load(entry, mask=is_token, other=0).to(tl.int64)
        slot = block * P + position % P  # [TILE]
        place = (slot * NUM_KV_HEADS + kv_head)[:, None] * D + dim[None, :]  # [TILE, DP]
        # Slots behind the end are stale, maybe NaN, and 0 x NaN is NaN: they are not read at all.
        is_read = is_token[:, None] & (dim < D)[None, :]
        key = tl.load(key_ptr + place, mask=is_read, other=0.0)
        value = tl.load(value_ptr + place, mask=is_read, other=0.0)

        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale  # [GP, TILE], fp32
        scores = tl.where(is_token[None, :], scores, -float("inf"))
        new_largest = tl.maximum(largest, tl.max(scores, axis=1))  # finite: a tile holds one token at least
        shrink = tl.exp2(largest - new_largest)  # what was seen before weighs less from now on
        weights = tl.exp2(scores - new_largest[:, None])  # [GP, TILE]
        total = total * shrink + tl.sum(weights, axis=1)
        mixed = mixed * shrink[:, None]
        mixed += tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        largest = new_largest

    # An empty split, or context, has total 0: it writes zeros and -inf, and the merge gives it no weight.
    seen = total > 0
    out = mixed / tl.where(seen, total, 1.0)[:, None]
    lse = tl.where(seen, (largest + tl.log2(tl.where(seen, total, 1.0))) * 0.6931471805599453, -float("inf"))
    row = (split * num_seqs + sequence).to(tl.int64) * NUM_KV_HEADS * GROUP + head
    tl.store(out_ptr + row[:, None] * D + dim[None, :], out.to(out_ptr.dtype.element_ty), mask=is_query)
    tl.store(lse_ptr + row, lse, mask=in_group < GROUP)


@triton.jit
def _merge_kernel(
    out_ptr,  # [B x Hq, D]
    lse_ptr,  # [B x Hq] fp32
    part_out_ptr,  # [splits, B x Hq, D] fp32
    part_lse_ptr,  # [splits, B x Hq] fp32
    num_rows,  # B x Hq
    num_splits,
    D: tl.constexpr,
    DP: tl.constexpr,
    TILE: tl.constexpr,  # splits that are read at a time
):
    row = tl.program_id(0).to(tl.int64)
    dim = tl.arange(0, DP)
    # Online softmax once more: a split is what a key was, its lse the score, its output the value.
    largest = -float("inf")
    total = 0.0
    mixed = tl.zeros([DP], tl.float32)
    for start in range(0, num_splits, TILE):
        split = start + tl.arange(0, TILE)
        is_split = split < num_splits
        lse = tl.load(part_lse_ptr + split * num_rows + row, mask=is_split, other=-float("inf"))
        place = (split * num_rows + row)[:, None] * D + dim[None, :]
        parts = tl.load(
            part_out_ptr + place, mask=is_split[:, None] & (dim < D)[None, :], other=0.0
        )  # [TILE, DP]
        new_largest = tl.maximum(largest, tl.max(lse, axis=0))
        shift = tl.where(new_largest == -float("inf"), 0.0, new_largest)  # nothing seen so far: no NaN
        shrink = tl.exp2((largest - shift) * 1.4426950408889634)
        weights = tl.exp2((lse - shift) * 1.4426950408889634)
        total = total * shrink + tl.sum(weights, axis=0)
        mixed = mixed * shrink + tl.sum(parts * weights[:, None], axis=0)
        largest = new_largest
    seen = total > 0
    out = mixed / tl.where(seen, total, 1.0)
    tl.store(out_ptr + row * D + dim, out.to(out_ptr.dtype.element_ty), mask=dim < D)
    lse = tl.where(seen, largest + tl.log2(tl.where(seen, total, 1.0)) * 0.6931471805599453, -float("inf"))
    tl.store(lse_ptr + row, lse)


@triton.jit
def _write_kernel(
    key_ptr,  # [T, Hkv, D]
    value_ptr,
    key_cache_ptr,  # [N, P, Hkv, D]
    value_cache_ptr,
    slot_ptr,  # [T] int64
    NUMBERS: tl.constexpr,  # Hkv x D: what one token leaves
    PADDED: tl.constexpr,  # to a power of two
):
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slot_ptr + token)
    number = tl.arange(0, PADDED)
    is_written = (number < NUMBERS) & (slot >= 0)  # -1: padding, leave it out
    key = tl.load(key_ptr + token * NUMBERS + number, mask=is_written)
    value = tl.load(value_ptr + token * NUMBERS + number, mask=is_written)
    tl.store(key_cache_ptr + slot * NUMBERS + number, key, mask=is_written)
    tl.store(value_cache_ptr + slot * NUMBERS + number, value, mask=is_written)


# -- what is called -------------------------------------------------------------------------------------------


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
    num_splits: int | None = None,
    config: Config | None = None,
    validate: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """`course_lib.attention.paged_attention` for decode, one query a sequence, as a kernel.

    Args:
        query: [B, Hq, D], fp32, fp16 or bf16, contiguous as all other tensors.
        num_splits: parts of each context that are computed side by side and merged; None chooses.
        config: the shape of the launch; None chooses.
        validate: check the values of tables and lengths, too. The GPU is waited for.

    Returns, and all else: as `course_lib.attention.paged_attention`; the log-sum-exp is fp32.

    Raises:
        ValueError: what `paged_attention` raises for shapes, dtypes and devices (for values with validate=True);
            query_start_loc; tensors on a CPU without the interpreter; bf16 or another dtype in the interpreter.
    """
    if query_start_loc is not None:
        raise ValueError(
            "this kernel decodes, one query a sequence: for prefill use course_lib.attention.paged_attention"
        )
    check_paged(query, key_cache, value_cache, block_tables, context_lens, None)
    check_runs(query, key_cache, value_cache, block_tables, context_lens)
    if validate:
        check_values(key_cache, block_tables, context_lens, None, len(query))
    num_seqs, num_query_heads, head_dim = query.shape
    _, block_size, num_kv_heads, _ = key_cache.shape
    group, table_width = num_query_heads // num_kv_heads, block_tables.shape[1]
    capability = None if INTERPRETED else torch.cuda.get_device_capability(query.device)
    config = config or choose_config(group, head_dim, query.element_size(), capability)
    parts = -(-group // config.group_part)
    if num_splits is None:
        num_splits = 1
        if not INTERPRETED:
            multiprocessors = torch.cuda.get_device_properties(query.device).multi_processor_count
            num_splits = choose_num_splits(
                num_seqs * num_kv_heads * parts, table_width * block_size, config.tile, multiprocessors
            )
    if isinstance(num_splits, bool) or not isinstance(num_splits, int) or num_splits < 1:
        raise ValueError(f"num_splits must be a whole number of at least 1, got {num_splits!r}")

    out = torch.empty_like(query)
    lse = torch.empty(num_seqs, num_query_heads, dtype=torch.float32, device=query.device)
    if num_seqs == 0:
        return (out, lse) if return_lse else out
    part_out, part_lse = out, lse
    if num_splits > 1:
        part_out = torch.empty(num_splits, *query.shape, dtype=torch.float32, device=query.device)
        part_lse = torch.empty(num_splits, *lse.shape, dtype=torch.float32, device=query.device)
    num_tiles = -(-table_width * block_size // config.tile)
    scale = (1 / math.sqrt(head_dim) if scale is None else scale) * LOG2_E
    _decode_kernel[(num_seqs, num_kv_heads * parts, num_splits)](
        part_out, part_lse, query, key_cache, value_cache, block_tables, context_lens,
        scale, num_seqs, table_width, -(-num_tiles // num_splits),
        NUM_KV_HEADS=num_kv_heads, GROUP=group, PARTS=parts, GP=config.group_part, D=head_dim,
        DP=next_power_of_2(head_dim), P=block_size, TILE=config.tile,
        num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip
    if num_splits > 1:
        _merge_kernel[(num_seqs * num_query_heads,)](
            out, lse, part_out, part_lse, num_seqs * num_query_heads, num_splits,
            D=head_dim, DP=next_power_of_2(head_dim), TILE=MERGE_TILE,
        )  # fmt: skip
    return (out, lse) if return_lse else out


def write_kv(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> None:
    """`course_lib.attention.write_kv` as a kernel: slots are not checked, a wrong one corrupts memory.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, or cannot run here.
    """
    check_write(key, value, key_cache, value_cache, slot_mapping)
    check_runs(key, value, key_cache, value_cache, slot_mapping)
    numbers = key.shape[1] * key.shape[2]
    if len(key):
        _write_kernel[(len(key),)](
            key, value, key_cache, value_cache, slot_mapping,
            NUMBERS=numbers, PADDED=next_power_of_2(numbers),
        )  # fmt: skip


def check_runs(*tensors: torch.Tensor) -> None:
    """Whether a kernel can run on these tensors, here."""
    device, dtype = tensors[0].device, tensors[0].dtype
    if device.type != "cuda" and not INTERPRETED:
        raise ValueError(
            f"a kernel runs on a GPU and the tensors are on {device}: set TRITON_INTERPRET=1 before the first import "
            "of triton to interpret it, or use course_lib.attention.paged_attention"
        )
    allowed = (
        (torch.float32, torch.float16) if INTERPRETED else (torch.float32, torch.float16, torch.bfloat16)
    )
    if dtype not in allowed:
        why = ": the interpreter computes bf16 wrongly" if dtype == torch.bfloat16 else ""
        raise ValueError(f"{dtype} cannot run here, {', '.join(map(str, allowed))} can{why}")
    for tensor in tensors:
        if not tensor.is_contiguous():
            raise ValueError(
                f"a tensor of shape {tuple(tensor.shape)} is not contiguous: call .contiguous() first"
            )
