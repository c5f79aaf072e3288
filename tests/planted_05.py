"""Answers to the exercises of lesson 05, as learners write them: right in other ways, and wrong.

Two names are short because they are everywhere: `t` is a tile of tokens, `d` the numbers of a head.
"""

import torch

from course_lib.teaching.kernel_lab import tl, triton

# -- locate ---------------------------------------------------------------------------------------------------


@triton.jit
def locate_by_strides(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    stride_slot: tl.constexpr = HKV * D
    stride_block: tl.constexpr = P * stride_slot
    pos = tl.arange(0, TILE) + start
    physical = tl.load(table_ptr + pos // P).to(tl.int64)
    out = physical * stride_block + (pos % P) * stride_slot + kv_head * D
    tl.store(place_ptr + tl.arange(0, TILE), out)


@triton.jit
def locate_one_by_one(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    for i in range(TILE):
        logical = (start + i) // P
        offset = start + i - logical * P
        slot = tl.load(table_ptr + logical) * P + offset
        tl.store(place_ptr + i, D * (kv_head + HKV * slot))


@triton.jit
def locate_by_moving_the_slot(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    slot = pos + (tl.load(table_ptr + pos // P) - pos // P) * P
    heads_before = slot * HKV
    heads_before += kv_head
    tl.store(place_ptr + tl.arange(0, TILE), heads_before * D, mask=pos >= start)


@triton.jit
def locate_in_a_slab(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    logical, offset = pos // P, pos % P
    tl.store(place_ptr + tl.arange(0, TILE), ((logical * P + offset) * HKV + kv_head) * D)


@triton.jit
def locate_block_plus_offset(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    slot = tl.load(table_ptr + pos // P) + pos % P
    tl.store(place_ptr + tl.arange(0, TILE), slot * HKV * D + kv_head * D)


@triton.jit
def locate_start_of_block(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    block = tl.load(table_ptr + pos // P)
    tl.store(place_ptr + tl.arange(0, TILE), block * (P * HKV * D) + kv_head * D)


@triton.jit
def locate_heads_outside_tokens(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    block = tl.load(table_ptr + pos // P)
    place = block * HKV * P * D + kv_head * P * D + (pos % P) * D
    tl.store(place_ptr + tl.arange(0, TILE), place)


@triton.jit
def locate_without_head(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    block = tl.load(table_ptr + pos // P)
    tl.store(place_ptr + tl.arange(0, TILE), block * (P * HKV * D) + pos % P * (HKV * D))


@triton.jit
def locate_one_head_a_slot(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    block = tl.load(table_ptr + pos // P)
    tl.store(place_ptr + tl.arange(0, TILE), block * P * D + pos % P * D + kv_head * D)


@triton.jit
def locate_counts_heads(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    slot = P * tl.load(table_ptr + pos // P) + pos % P
    tl.store(place_ptr + tl.arange(0, TILE), slot * HKV + kv_head)


@triton.jit
def locate_adds_the_bare_head(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    slot = P * tl.load(table_ptr + pos // P) + pos % P
    tl.store(place_ptr + tl.arange(0, TILE), slot * HKV * D + kv_head)


@triton.jit
def locate_position_in_the_table(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    block = tl.load(table_ptr + pos)
    tl.store(place_ptr + tl.arange(0, TILE), ((block * P + pos % P) * HKV + kv_head) * D)


@triton.jit
def locate_ignores_start(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = tl.arange(0, TILE)
    block = tl.load(table_ptr + pos // P)
    tl.store(place_ptr + pos, ((block * P + pos % P) * HKV + kv_head) * D)


@triton.jit
def locate_first_block_only(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    block = tl.load(table_ptr + start // P)
    tl.store(place_ptr + tl.arange(0, TILE), ((block * P + pos % P) * HKV + kv_head) * D)


@triton.jit
def locate_divides_to_a_float(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    block = tl.load(table_ptr + pos / P)
    tl.store(place_ptr + tl.arange(0, TILE), ((block * P + pos % P) * HKV + kv_head) * D)


@triton.jit
def locate_a_row_of_tiles(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    block = tl.load(table_ptr + pos // P)
    place = ((block * P + pos % P) * HKV + kv_head)[:, None] * D + tl.arange(0, D)[None, :]
    tl.store(place_ptr + tl.arange(0, TILE), place)


@triton.jit
def locate_stores_by_position(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    block = tl.load(table_ptr + pos // P)
    tl.store(place_ptr + pos, ((block * P + pos % P) * HKV + kv_head) * D)


def locate_in_python(block_table, start, kv_head, HKV, D, P, TILE):
    slots = [block_table[p // P] * P + p % P for p in range(start, start + TILE)]
    return torch.tensor([(slot * HKV + kv_head) * D for slot in slots])


# -- far_place ------------------------------------------------------------------------------------------------


@triton.jit
def far_place_stride_first(
    place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, TILE)
    slot = tl.cast(tl.load(slot_ptr + lane), tl.int64)
    tl.store(place_ptr + lane, kv_head * D + slot * (HKV * D))


@triton.jit
def far_place_in_float64(
    place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, TILE)
    slot = tl.load(slot_ptr + lane).to(tl.float64)  # whole numbers are exact up to 2^53
    tl.store(place_ptr + lane, ((slot * HKV + kv_head) * D).to(tl.int64))


@triton.jit
def far_place_wide_sizes(
    place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, TILE)
    heads = tl.full([TILE], HKV, tl.int64)
    dims = tl.full([TILE], D, tl.int64)
    tl.store(place_ptr + lane, tl.load(slot_ptr + lane) * heads * dims + kv_head * dims)


@triton.jit
def far_place_naive(
    place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, TILE)
    slot = tl.load(slot_ptr + lane)
    tl.store(place_ptr + lane, slot * (HKV * D) + kv_head * D)


@triton.jit
def far_place_cast_at_the_end(
    place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, TILE)
    place = D * (kv_head + HKV * tl.load(slot_ptr + lane))
    tl.store(place_ptr + lane, place.to(tl.int64))


@triton.jit
def far_place_unsigned(
    place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, TILE)
    slot = tl.load(slot_ptr + lane).to(tl.uint32)
    tl.store(place_ptr + lane, (slot * HKV + kv_head.to(tl.uint32)) * D)


@triton.jit
def far_place_cast_after_one_product(
    place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, TILE)
    row = tl.load(slot_ptr + lane) * HKV + kv_head
    tl.store(place_ptr + lane, row.to(tl.int64) * D)


@triton.jit
def far_place_in_float32(
    place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, TILE)
    place = (tl.load(slot_ptr + lane) * 1.0 * HKV + kv_head) * D
    tl.store(place_ptr + lane, place.to(tl.int64))


@triton.jit
def far_place_without_head(
    place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, TILE)
    tl.store(place_ptr + lane, tl.load(slot_ptr + lane).to(tl.int64) * D * HKV)


@triton.jit
def far_place_bare_head(
    place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, TILE)
    tl.store(place_ptr + lane, tl.load(slot_ptr + lane).to(tl.int64) * D * HKV + kv_head)


@triton.jit
def far_place_sizes_swapped(
    place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, TILE)
    tl.store(place_ptr + lane, (tl.load(slot_ptr + lane).to(tl.int64) * D + kv_head) * HKV)


@triton.jit
def far_place_loads_with_a_stride(
    place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, TILE)
    slot = tl.load(slot_ptr + lane * HKV).to(tl.int64)
    tl.store(place_ptr + lane, (slot * HKV + kv_head) * D)


@triton.jit
def far_place_casts_in_torch(
    place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, TILE)
    slot = tl.load(slot_ptr + lane).long()
    tl.store(place_ptr + lane, (slot * HKV + kv_head) * D)


def far_place_in_python(slots, kv_head, HKV, D):
    return torch.tensor([(slot * HKV + kv_head) * D for slot in slots])


# -- sum_tile -------------------------------------------------------------------------------------------------


@triton.jit
def sum_tile_with_where(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    t, d = tl.arange(0, TILE), tl.arange(0, D)
    seen = (t < context_len)[:, None]
    block = tl.load(table_ptr + t // P, mask=t < context_len)
    rows = tl.load(value_ptr + (block[:, None] * P + t[:, None] % P) * D + d[None, :], mask=seen)
    tl.store(out_ptr + d, tl.sum(tl.where(seen, rows, 0.0), axis=0))


@triton.jit
def sum_tile_token_by_token(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    d = tl.arange(0, D)
    acc = tl.zeros([D], dtype=tl.float32)
    for t in range(context_len):
        slot = tl.load(table_ptr + t // P) * P + t % P
        acc += tl.load(value_ptr + slot * D + d)
    tl.store(out_ptr + d, acc)


@triton.jit
def sum_tile_block_by_block(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    offset, d = tl.arange(0, P), tl.arange(0, D)
    acc = tl.zeros([D], dtype=tl.float64)
    for logical in range((context_len + P - 1) // P):
        left = context_len - logical * P
        start = value_ptr + tl.load(table_ptr + logical) * P * D
        rows = tl.load(start + offset[:, None] * D + d[None, :], mask=offset[:, None] < left, other=0)
        acc += tl.sum(rows.to(tl.float64), 0)
    tl.store(out_ptr + d, acc.to(tl.float32))


@triton.jit
def sum_tile_as_a_product(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    t, d = tl.arange(0, TILE), tl.arange(0, D)
    block = tl.load(table_ptr + t // P, mask=t < context_len, other=-1)
    seen = ((block >= 0) & (t < context_len))[:, None]
    rows = tl.load(value_ptr + (block * P + t % P)[:, None] * D + d[None, :], mask=seen, other=0.0)
    ones = tl.full([1, TILE], 1.0, tl.float32)
    tl.store(out_ptr + d[None, :], tl.dot(ones, rows, input_precision="ieee"))


@triton.jit
def sum_tile_masks_the_table(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    t, d = tl.arange(0, TILE), tl.arange(0, D)
    block = tl.load(table_ptr + t // P, mask=t < context_len, other=0)
    rows = tl.load(value_ptr + (block * P + t % P)[:, None] * D + d[None, :])
    tl.store(out_ptr + d, tl.sum(rows, 0))


@triton.jit
def sum_tile_no_other(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    t, d = tl.arange(0, TILE), tl.arange(0, D)
    block = tl.load(table_ptr + t // P, mask=t < context_len)
    rows = tl.load(value_ptr + (block * P + t % P)[:, None] * D + d[None, :], mask=t[:, None] < context_len)
    tl.store(out_ptr + d, tl.sum(rows, 0))


@triton.jit
def sum_tile_whole_blocks(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    t, d = tl.arange(0, TILE), tl.arange(0, D)
    held = t // P < (context_len + P - 1) // P
    block = tl.load(table_ptr + t // P, mask=held, other=0)
    rows = tl.load(value_ptr + (block * P + t % P)[:, None] * D + d[None, :], mask=held[:, None], other=0)
    tl.store(out_ptr + d, tl.sum(rows, 0))


@triton.jit
def sum_tile_full_blocks(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    t, d = tl.arange(0, TILE), tl.arange(0, D)
    held = t // P < context_len // P
    block = tl.load(table_ptr + t // P, mask=held, other=0)
    rows = tl.load(value_ptr + (block * P + t % P)[:, None] * D + d[None, :], mask=held[:, None], other=0)
    tl.store(out_ptr + d, tl.sum(rows, 0))


@triton.jit
def sum_tile_inclusive(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    t, d = tl.arange(0, TILE), tl.arange(0, D)
    seen = t <= context_len
    block = tl.load(table_ptr + t // P, mask=seen, other=0)
    rows = tl.load(value_ptr + (block * P + t % P)[:, None] * D + d[None, :], mask=seen[:, None], other=0)
    tl.store(out_ptr + d, tl.sum(rows, 0))


@triton.jit
def sum_tile_stops_early(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    d = tl.arange(0, D)
    acc = tl.zeros([D], dtype=tl.float32)
    for t in range(context_len - 1):
        acc += tl.load(value_ptr + (tl.load(table_ptr + t // P) * P + t % P) * D + d)
    tl.store(out_ptr + d, acc)


@triton.jit
def sum_tile_other_is_one(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    t, d = tl.arange(0, TILE), tl.arange(0, D)
    seen = t < context_len
    block = tl.load(table_ptr + t // P, mask=seen, other=1)
    rows = tl.load(value_ptr + (block * P + t % P)[:, None] * D + d[None, :], mask=seen[:, None], other=1)
    tl.store(out_ptr + d, tl.sum(rows, 0))


@triton.jit
def sum_tile_no_mask(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    t, d = tl.arange(0, TILE), tl.arange(0, D)
    block = tl.load(table_ptr + t // P)
    rows = tl.load(value_ptr + (block * P + t % P)[:, None] * D + d[None, :])
    tl.store(out_ptr + d, tl.sum(rows, 0))


@triton.jit
def sum_tile_masks_the_values(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    t, d = tl.arange(0, TILE), tl.arange(0, D)
    block = tl.load(table_ptr + t // P)
    seen = t[:, None] < context_len
    rows = tl.load(value_ptr + (block * P + t % P)[:, None] * D + d[None, :], mask=seen, other=0)
    tl.store(out_ptr + d, tl.sum(rows, 0))


@triton.jit
def sum_tile_flat_mask(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    t, d = tl.arange(0, TILE), tl.arange(0, D)
    seen = t < context_len
    block = tl.load(table_ptr + t // P, mask=seen, other=0)
    rows = tl.load(value_ptr + (block * P + t % P)[:, None] * D + d[None, :], mask=seen, other=0.0)
    tl.store(out_ptr + d, tl.sum(rows, 0))


@triton.jit
def sum_tile_over_the_dims(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    t, d = tl.arange(0, TILE), tl.arange(0, D)
    seen = t < context_len
    block = tl.load(table_ptr + t // P, mask=seen, other=0)
    rows = tl.load(value_ptr + (block * P + t % P)[:, None] * D + d[None, :], mask=seen[:, None], other=0.0)
    tl.store(out_ptr + d, tl.sum(rows, axis=1))


@triton.jit
def sum_tile_times_the_mask(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    t, d = tl.arange(0, TILE), tl.arange(0, D)
    seen = t < context_len
    block = tl.load(table_ptr + t // P, mask=seen, other=0)
    rows = tl.load(value_ptr + (block * P + t % P)[:, None] * D + d[None, :])
    tl.store(out_ptr + d, tl.sum(rows * seen[:, None].to(tl.float32), 0))


@triton.jit
def sum_tile_mean(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    t, d = tl.arange(0, TILE), tl.arange(0, D)
    seen = t < context_len
    block = tl.load(table_ptr + t // P, mask=seen, other=0)
    rows = tl.load(value_ptr + (block * P + t % P)[:, None] * D + d[None, :], mask=seen[:, None], other=0)
    tl.store(out_ptr + d, tl.sum(rows, 0) / context_len)


def sum_tile_in_python(value_cache, block_table, context_len, TILE):
    size = value_cache.shape[1]
    return sum(value_cache[block_table[t // size], t % size] for t in range(context_len))


# -- packed_scores --------------------------------------------------------------------------------------------


@triton.jit
def packed_by_products(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t, g = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE), tl.arange(0, GP)
    head = k * GROUP + g
    q = tl.load(query_ptr + head[:, None] * D + d[None, :], mask=(g < GROUP)[:, None], other=0.0)
    keys = tl.load(key_ptr + t[:, None] * HKV * D + k * D + d[None, :])
    score = tl.sum(q[:, None, :] * keys[None, :, :], axis=2)
    tl.store(score_ptr + head[:, None] * TILE + t[None, :], score, mask=(g < GROUP)[:, None])


@triton.jit
def packed_keys_loaded_transposed(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t, g = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE), tl.arange(0, GP)
    inside = (k * GROUP + g)[:, None] < GROUP * HKV  # rows of the next group do no harm while they are read
    q = tl.load(query_ptr + k * GROUP * D + g[:, None] * D + d[None, :], mask=inside, other=0.0)
    keys = tl.load(key_ptr + k * D + t[None, :] * (HKV * D) + d[:, None])  # [D, TILE]
    score = tl.dot(q.to(tl.float64), keys.to(tl.float64)).to(tl.float32)
    tl.store(score_ptr + k * GROUP * TILE + g[:, None] * TILE + t[None, :], score, mask=(g < GROUP)[:, None])


@triton.jit
def packed_head_by_head(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE)
    keys = tl.load(key_ptr + (t[:, None] * HKV + k) * D + d[None, :])
    for head in range(k * GROUP, (k + 1) * GROUP):
        q = tl.load(query_ptr + head * D + d)
        tl.store(score_ptr + head * TILE + t, tl.sum(keys * q[None, :], 1))


@triton.jit
def packed_transposed_product(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t, g = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE), tl.arange(0, GP)
    head = tl.where(g < GROUP, k * GROUP + g, 0)  # the padding reads head 0, which is always there
    q = tl.load(query_ptr + head[:, None] * D + d[None, :])
    keys = tl.load(key_ptr + (t[:, None] * HKV + k) * D + d[None, :])
    score = tl.dot(keys, q.T, input_precision="ieee")  # [TILE, GP]
    tl.store(score_ptr + head[None, :] * TILE + t[:, None], score, mask=(g < GROUP)[None, :])


@triton.jit
def packed_strided_heads(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t, g = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE), tl.arange(0, GP)
    head = g * HKV + k
    q = tl.load(query_ptr + head[:, None] * D + d[None, :], mask=(g < GROUP)[:, None], other=0.0)
    keys = tl.load(key_ptr + (t[:, None] * HKV + k) * D + d[None, :])
    score = tl.dot(q, keys.T, input_precision="ieee")
    tl.store(score_ptr + head[:, None] * TILE + t[None, :], score, mask=(g < GROUP)[:, None])


@triton.jit
def packed_scaled(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t, g = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE), tl.arange(0, GP)
    head = k * GROUP + g
    q = tl.load(query_ptr + head[:, None] * D + d[None, :], mask=(g < GROUP)[:, None], other=0.0)
    keys = tl.load(key_ptr + (t[:, None] * HKV + k) * D + d[None, :])
    score = tl.dot(q, keys.T, input_precision="ieee") / tl.sqrt(D * 1.0)
    tl.store(score_ptr + head[:, None] * TILE + t[None, :], score, mask=(g < GROUP)[:, None])


@triton.jit
def packed_first_heads(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE)
    q = tl.load(query_ptr + k * GROUP * D + d)
    keys = tl.load(key_ptr + (t[:, None] * HKV + k) * D + d[None, :])
    tl.store(score_ptr + k * GROUP * TILE + t, tl.sum(q[None, :] * keys, 1))


@triton.jit
def packed_sums(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t, g = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE), tl.arange(0, GP)
    head = k * GROUP + g
    q = tl.load(query_ptr + head[:, None] * D + d[None, :], mask=(g < GROUP)[:, None], other=0.0)
    keys = tl.load(key_ptr + (t[:, None] * HKV + k) * D + d[None, :])
    score = tl.sum(q, 1)[:, None] * tl.sum(keys, 1)[None, :]
    tl.store(score_ptr + head[:, None] * TILE + t[None, :], score, mask=(g < GROUP)[:, None])


@triton.jit
def packed_one_query_for_all(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE)
    q = tl.load(query_ptr + k * GROUP * D + d)
    keys = tl.load(key_ptr + (t[:, None] * HKV + k) * D + d[None, :])
    score = tl.sum(q[None, :] * keys, 1)
    for g in range(GROUP):
        tl.store(score_ptr + (k * GROUP + g) * TILE + t, score)


@triton.jit
def packed_no_mask(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t, g = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE), tl.arange(0, GP)
    head = k * GROUP + g
    q = tl.load(query_ptr + head[:, None] * D + d[None, :])
    keys = tl.load(key_ptr + (t[:, None] * HKV + k) * D + d[None, :])
    tl.store(score_ptr + head[:, None] * TILE + t[None, :], tl.dot(q, keys.T, input_precision="ieee"))


@triton.jit
def packed_group_begins_at_gp(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t, g = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE), tl.arange(0, GP)
    head = k * GP + g
    q = tl.load(query_ptr + head[:, None] * D + d[None, :], mask=(g < GROUP)[:, None], other=0.0)
    keys = tl.load(key_ptr + (t[:, None] * HKV + k) * D + d[None, :])
    score = tl.dot(q, keys.T, input_precision="ieee")
    tl.store(score_ptr + head[:, None] * TILE + t[None, :], score, mask=(g < GROUP)[:, None])


@triton.jit
def packed_mask_of_all_heads(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t, g = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE), tl.arange(0, GP)
    head = k * GROUP + g
    is_head = (head < HKV * GROUP)[:, None]
    q = tl.load(query_ptr + head[:, None] * D + d[None, :], mask=is_head, other=0.0)
    keys = tl.load(key_ptr + (t[:, None] * HKV + k) * D + d[None, :])
    score = tl.dot(q, keys.T, input_precision="ieee")
    tl.store(score_ptr + head[:, None] * TILE + t[None, :], score, mask=is_head)


@triton.jit
def packed_every_program_is_the_first(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t, head = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE), tl.arange(0, GP)
    q = tl.load(query_ptr + head[:, None] * D + d[None, :], mask=(head < GROUP)[:, None], other=0.0)
    keys = tl.load(key_ptr + (t[:, None] * HKV + k) * D + d[None, :])
    score = tl.dot(q, keys.T, input_precision="ieee")
    tl.store(score_ptr + head[:, None] * TILE + t[None, :], score, mask=(head < GROUP)[:, None])


@triton.jit
def packed_keys_not_transposed(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t, g = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE), tl.arange(0, GP)
    head = k * GROUP + g
    q = tl.load(query_ptr + head[:, None] * D + d[None, :], mask=(g < GROUP)[:, None], other=0.0)
    keys = tl.load(key_ptr + (t[:, None] * HKV + k) * D + d[None, :])
    tl.store(score_ptr + head[:, None] * TILE + t[None, :], tl.dot(q, keys), mask=(g < GROUP)[:, None])


@triton.jit
def packed_head_below_group(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t, g = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE), tl.arange(0, GP)
    head = k * GROUP + g
    is_head = (head < GROUP)[:, None]
    q = tl.load(query_ptr + head[:, None] * D + d[None, :], mask=is_head, other=0.0)
    keys = tl.load(key_ptr + (t[:, None] * HKV + k) * D + d[None, :])
    tl.store(score_ptr + head[:, None] * TILE + t[None, :], tl.dot(q, keys.T), mask=is_head)


@triton.jit
def packed_keys_head_first(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t, g = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE), tl.arange(0, GP)
    head = k * GROUP + g
    q = tl.load(query_ptr + head[:, None] * D + d[None, :], mask=(g < GROUP)[:, None], other=0.0)
    keys = tl.load(key_ptr + (k * TILE + t[:, None]) * D + d[None, :])
    tl.store(score_ptr + head[:, None] * TILE + t[None, :], tl.dot(q, keys.T), mask=(g < GROUP)[:, None])


@triton.jit
def packed_always_kv_head_0(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    k, d, t, g = tl.program_id(0), tl.arange(0, D), tl.arange(0, TILE), tl.arange(0, GP)
    head = k * GROUP + g
    q = tl.load(query_ptr + head[:, None] * D + d[None, :], mask=(g < GROUP)[:, None], other=0.0)
    keys = tl.load(key_ptr + t[:, None] * HKV * D + d[None, :])
    tl.store(score_ptr + head[:, None] * TILE + t[None, :], tl.dot(q, keys.T), mask=(g < GROUP)[:, None])


def packed_in_python(query, key, GROUP, GP):
    return torch.stack([key[:, head // GROUP] @ row for head, row in enumerate(query)])


@triton.jit
def locate_tile_begins_a_block(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, TILE)
    block = tl.load(table_ptr + start // P + lane // P)  # right if start is the first slot of a block
    tl.store(place_ptr + lane, ((block * P + (start + lane) % P) * HKV + kv_head) * D)


@triton.jit
def locate_stores_nothing(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    pos = start + tl.arange(0, TILE)
    place = ((tl.load(table_ptr + pos // P) * P + pos % P) * HKV + kv_head) * D
    place_ptr += place


@triton.jit
def far_unsigned_then_wide(
    place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr
):
    lane = tl.arange(0, TILE)
    heads = tl.load(slot_ptr + lane).to(tl.uint32) * HKV + kv_head
    tl.store(place_ptr + lane, heads.to(tl.int64) * D)


@triton.jit
def far_by_shifts(place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    tl.store(place_ptr + lane, (tl.load(slot_ptr + lane).to(tl.int64) << 10) + (kv_head << 7))


ALSO_RIGHT = {
    "locate": [locate_by_strides, locate_one_by_one, locate_by_moving_the_slot],
    "far_place": [far_place_stride_first, far_place_in_float64, far_place_wide_sizes],
    "sum_tile": [
        sum_tile_with_where,
        sum_tile_token_by_token,
        sum_tile_block_by_block,
        sum_tile_as_a_product,
    ],
    "packed_scores": [
        packed_by_products,
        packed_keys_loaded_transposed,
        packed_head_by_head,
        packed_transposed_product,
    ],
}

WRONG = [
    ("locate", locate_in_a_slab, "the block table is not asked"),
    ("locate", locate_block_plus_offset, "used as a slot"),
    ("locate", locate_start_of_block, "at the start of its block"),
    ("locate", locate_heads_outside_tokens, "had its P tokens together"),
    ("locate", locate_without_head, "the KV head is left out"),
    ("locate", locate_one_head_a_slot, "taken to hold one head"),
    ("locate", locate_counts_heads, "counts heads, not numbers"),
    ("locate", locate_adds_the_bare_head, "as if it were one number long"),
    ("locate", locate_position_in_the_table, "memory that is not its own"),
    ("locate", locate_stores_by_position, "memory that is not its own"),
    ("locate", locate_ignores_start, "the values differ"),
    ("locate", locate_tile_begins_a_block, "the values differ"),
    ("locate", locate_stores_nothing, "nothing is stored"),
    ("locate", locate_first_block_only, "in the block of the first"),
    ("locate", locate_divides_to_a_float, "it raised"),
    ("locate", locate_a_row_of_tiles, "it raised ValueError"),
    ("locate", locate_in_python, "no kernel"),
    ("far_place", far_place_naive, "the places are negative, or wrong"),
    ("far_place", far_place_cast_at_the_end, "the places are negative, or wrong"),
    ("far_place", far_place_unsigned, "right up to 2^32"),
    ("far_place", far_place_cast_after_one_product, "the first product is still int32"),
    ("far_place", far_place_in_float32, "large places are rounded"),
    ("far_place", far_place_without_head, "the KV head is left out"),
    ("far_place", far_place_bare_head, "as if it were one number long"),
    ("far_place", far_place_sizes_swapped, "the values differ"),
    ("far_place", far_unsigned_then_wide, "the first product is still int32"),
    ("far_place", far_by_shifts, "the values differ"),
    ("far_place", far_place_loads_with_a_stride, "memory that is not its own"),
    ("far_place", far_place_casts_in_torch, "it raised AttributeError"),
    ("far_place", far_place_in_python, "no kernel"),
    ("sum_tile", sum_tile_masks_the_table, "lanes behind the end read block 0"),
    ("sum_tile", sum_tile_no_other, "hold nothing that is defined"),
    ("sum_tile", sum_tile_whole_blocks, "the stale tail of the last block"),
    ("sum_tile", sum_tile_full_blocks, "partly filled last block is missing"),
    ("sum_tile", sum_tile_inclusive, "one slot too many"),
    ("sum_tile", sum_tile_stops_early, "the last token is missing"),
    ("sum_tile", sum_tile_other_is_one, "add 1 each"),
    ("sum_tile", sum_tile_no_mask, "memory that is not its own"),
    ("sum_tile", sum_tile_masks_the_values, "memory that is not its own"),
    ("sum_tile", sum_tile_flat_mask, "it raised ValueError"),
    ("sum_tile", sum_tile_over_the_dims, "it raised ValueError"),
    ("sum_tile", sum_tile_times_the_mask, "and multiplied by 0"),
    ("sum_tile", sum_tile_mean, "the values differ"),
    ("sum_tile", sum_tile_in_python, "no kernel"),
    ("packed_scores", packed_strided_heads, "the heads of a group are not neighbours"),
    ("packed_scores", packed_scaled, "the scores are scaled"),
    ("packed_scores", packed_first_heads, "only the first head of each group"),
    ("packed_scores", packed_sums, "it multiplies sums"),
    ("packed_scores", packed_one_query_for_all, "have the scores of the first"),
    ("packed_scores", packed_no_mask, "memory that is not its own"),
    ("packed_scores", packed_group_begins_at_gp, "memory that is not its own"),
    ("packed_scores", packed_mask_of_all_heads, "two programs write the same place"),
    ("packed_scores", packed_every_program_is_the_first, "two programs write the same place"),
    ("packed_scores", packed_keys_not_transposed, "it raised AssertionError"),
    ("packed_scores", packed_head_below_group, "the values differ"),
    ("packed_scores", packed_keys_head_first, "the values differ"),
    ("packed_scores", packed_always_kv_head_0, "every group uses KV head 0"),
    ("packed_scores", packed_in_python, "no kernel"),
]
