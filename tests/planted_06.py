"""Answers to the exercises of lesson 06, as learners write them: right in other ways, and wrong."""

import math

import torch

from course_lib.teaching.kernel_lab import tl, triton

# -- row_softmax ----------------------------------------------------------------------------------------------


@triton.jit
def row_in_base_two(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    x = tl.load(score_ptr + lane, mask=lane < length, other=float("-inf"))
    w = tl.exp2((x - tl.max(x, 0)) * 1.4426950408889634)
    tl.store(out_ptr + lane, w / tl.sum(w, 0), mask=lane < length)


@triton.jit
def row_with_where(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    x = tl.load(score_ptr + lane, mask=lane < length)
    x = tl.where(lane < length, x, -1e30)
    w = tl.where(lane < length, tl.exp(x - tl.max(x, 0)), 0.0)
    tl.store(out_ptr + lane, w * (1 / tl.sum(w, 0)), mask=lane < length)


@triton.jit
def row_in_float64(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    x = tl.load(score_ptr + lane, mask=lane < length, other=-float("inf")).to(tl.float64)
    x -= tl.max(x, 0)
    tl.store(out_ptr + lane, tl.exp(x - tl.log(tl.sum(tl.exp(x), 0))), mask=lane < length)


@triton.jit
def row_in_three_passes(out_ptr, score_ptr, length, TILE: tl.constexpr):
    largest = tl.load(score_ptr)
    for i in range(1, length):
        largest = tl.maximum(largest, tl.load(score_ptr + i))
    total = 0.0
    for i in range(length):
        total += tl.exp(tl.load(score_ptr + i) - largest)
    for i in range(length):
        tl.store(out_ptr + i, tl.exp(tl.load(score_ptr + i) - largest) / total)


@triton.jit
def row_textbook(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    w = tl.exp(tl.load(score_ptr + lane, mask=lane < length, other=-float("inf")))
    tl.store(out_ptr + lane, w / tl.sum(w, 0), mask=lane < length)


@triton.jit
def row_pads_with_zero(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    x = tl.load(score_ptr + lane, mask=lane < length, other=0.0)
    w = tl.exp(x - tl.max(x, 0))
    tl.store(out_ptr + lane, w / tl.sum(w, 0), mask=lane < length)


@triton.jit
def row_textbook_padded_with_zero(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    w = tl.exp(tl.load(score_ptr + lane, mask=lane < length, other=0.0))
    tl.store(out_ptr + lane, w / tl.sum(w, 0), mask=lane < length)


@triton.jit
def row_from_the_smallest(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    x = tl.load(score_ptr + lane, mask=lane < length, other=float("inf"))
    smallest = tl.min(x, 0)
    w = tl.where(lane < length, tl.exp(x - smallest), 0.0)
    tl.store(out_ptr + lane, w / tl.sum(w, 0), mask=lane < length)


@triton.jit
def row_weights_only(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    x = tl.load(score_ptr + lane, mask=lane < length, other=-float("inf"))
    tl.store(out_ptr + lane, tl.exp(x - tl.max(x, 0)), mask=lane < length)


@triton.jit
def row_exp2_bare(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    x = tl.load(score_ptr + lane, mask=lane < length, other=-float("inf"))
    w = tl.exp2(x - tl.max(x, 0))
    tl.store(out_ptr + lane, w / tl.sum(w, 0), mask=lane < length)


@triton.jit
def row_over_length(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    x = tl.load(score_ptr + lane, mask=lane < length, other=-float("inf"))
    tl.store(out_ptr + lane, tl.exp(x - tl.max(x, 0)) / length, mask=lane < length)


@triton.jit
def row_shares_of_scores(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    x = tl.load(score_ptr + lane, mask=lane < length, other=0.0)
    tl.store(out_ptr + lane, x / tl.sum(x, 0), mask=lane < length)


@triton.jit
def row_store_unmasked(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    x = tl.load(score_ptr + lane, mask=lane < length, other=-float("inf"))
    w = tl.exp(x - tl.max(x, 0))
    tl.store(out_ptr + lane, w / tl.sum(w, 0))


@triton.jit
def row_load_unmasked(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    x = tl.load(score_ptr + lane)
    w = tl.exp(x - tl.max(x, 0))
    tl.store(out_ptr + lane, w / tl.sum(w, 0), mask=lane < length)


@triton.jit
def row_upside_down(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    x = tl.load(score_ptr + lane, mask=lane < length, other=-float("inf"))
    w = tl.where(lane < length, tl.exp(tl.max(x, 0) - x), 0.0)
    tl.store(out_ptr + lane, w / tl.sum(w, 0), mask=lane < length)


@triton.jit
def row_log_softmax(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    x = tl.load(score_ptr + lane, mask=lane < length, other=-float("inf"))
    x -= tl.max(x, 0)
    tl.store(out_ptr + lane, x - tl.log(tl.sum(tl.exp(x), 0)), mask=lane < length)


@triton.jit
def row_along_an_axis_it_lacks(out_ptr, score_ptr, length, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    x = tl.load(score_ptr + lane, mask=lane < length, other=-float("inf"))
    w = tl.exp(x - tl.max(x, axis=1))
    tl.store(out_ptr + lane, w / tl.sum(w, axis=1), mask=lane < length)


def row_in_torch(scores, TILE):
    return scores.softmax(0)


# -- online_update --------------------------------------------------------------------------------------------


@triton.jit
def online_in_base_two(largest, total, mixed, score, value):
    log2e = 1.4426950408889634
    m = tl.maximum(tl.max(score, 0), largest)
    shrink = tl.exp2((largest - m) * log2e)
    w = tl.exp2((score - m) * log2e)
    return m, tl.sum(w, 0) + shrink * total, tl.sum(value * w[:, None], 0) + shrink * mixed


@triton.jit
def online_by_merging(largest, total, mixed, score, value):
    """The tile gets a state of its own; then two states are joined."""
    tile_largest = tl.max(score, axis=0)
    w = tl.exp(score - tile_largest)
    tile_total = tl.sum(w, axis=0)
    tile_mixed = tl.sum(tl.trans(value) * w[None, :], axis=1)
    both = tl.maximum(largest, tile_largest)
    old, new = tl.exp(largest - both), tl.exp(tile_largest - both)
    return both, old * total + new * tile_total, old * mixed + new * tile_mixed


@triton.jit
def online_only_if_larger(largest, total, mixed, score, value):
    tile_largest = tl.max(score, axis=0)
    if tile_largest > largest:
        shrink = tl.exp(largest - tile_largest)
        total *= shrink
        mixed *= shrink
        largest = tile_largest
    w = tl.exp(score - largest)
    total += tl.sum(w, axis=0)
    mixed += tl.sum(tl.dot(w[None, :], value, input_precision="ieee"), axis=0)
    return largest, total, mixed


@triton.jit
def online_only_adds(largest, total, mixed, score, value):
    m = tl.maximum(largest, tl.max(score, 0))
    w = tl.exp(score - m)
    total += tl.sum(w, 0)
    mixed += tl.sum(w[:, None] * value, 0)
    return m, total, mixed


@triton.jit
def online_total_kept(largest, total, mixed, score, value):
    m = tl.maximum(largest, tl.max(score, 0))
    w = tl.exp(score - m)
    return m, total + tl.sum(w, 0), mixed * tl.exp(largest - m) + tl.sum(w[:, None] * value, 0)


@triton.jit
def online_mixture_kept(largest, total, mixed, score, value):
    m = tl.maximum(largest, tl.max(score, 0))
    w = tl.exp(score - m)
    return m, total * tl.exp(largest - m) + tl.sum(w, 0), mixed + tl.sum(w[:, None] * value, 0)


@triton.jit
def online_grows(largest, total, mixed, score, value):
    m = tl.maximum(largest, tl.max(score, 0))
    grow = tl.where(total == 0.0, 1.0, tl.exp(m - largest))  # the first tile has nothing to rescale
    w = tl.exp(score - m)
    return m, total * grow + tl.sum(w, 0), mixed * grow + tl.sum(w[:, None] * value, 0)


@triton.jit
def online_tile_maximum(largest, total, mixed, score, value):
    m = tl.maximum(largest, tl.max(score, 0))
    shrink = tl.exp(largest - m)
    w = tl.exp(score - tl.max(score, 0))
    return m, total * shrink + tl.sum(w, 0), mixed * shrink + tl.sum(w[:, None] * value, 0)


@triton.jit
def online_starts_over(largest, total, mixed, score, value):
    m = tl.max(score, 0)
    w = tl.exp(score - m)
    return m, tl.sum(w, 0), tl.sum(w[:, None] * value, 0)


@triton.jit
def online_keeps_the_old_largest(largest, total, mixed, score, value):
    m = tl.maximum(largest, tl.max(score, 0))
    shrink = tl.exp(largest - m)
    w = tl.exp(score - m)
    return largest, total * shrink + tl.sum(w, 0), mixed * shrink + tl.sum(w[:, None] * value, 0)


@triton.jit
def online_softmax_of_each_tile(largest, total, mixed, score, value):
    w = tl.exp(score - tl.max(score, 0))
    w /= tl.sum(w, 0)
    return tl.maximum(largest, tl.max(score, 0)), total + 1, mixed + tl.sum(w[:, None] * value, 0)


@triton.jit
def online_divides_on_the_way(largest, total, mixed, score, value):
    m = tl.maximum(largest, tl.max(score, 0))
    shrink = tl.exp(largest - m)
    w = tl.exp(score - m)
    new_total = total * shrink + tl.sum(w, 0)
    return m, new_total, (mixed * shrink + tl.sum(w[:, None] * value, 0)) / new_total


@triton.jit
def online_without_a_maximum(largest, total, mixed, score, value):
    w = tl.exp(score)
    return largest, total + tl.sum(w, 0), mixed + tl.sum(w[:, None] * value, 0)


@triton.jit
def online_old_maximum(largest, total, mixed, score, value):
    m = tl.maximum(largest, tl.max(score, 0))
    shrink = tl.exp(largest - m)
    w = tl.exp(score - largest)
    return m, total * shrink + tl.sum(w, 0), mixed * shrink + tl.sum(w[:, None] * value, 0)


@triton.jit
def online_weights_lie_down(largest, total, mixed, score, value):
    m = tl.maximum(largest, tl.max(score, 0))
    shrink = tl.exp(largest - m)
    w = tl.exp(score - m)
    return m, total * shrink + tl.sum(w, 0), mixed * shrink + tl.sum(w[None, :] * value, 0)


@triton.jit
def online_sums_the_numbers(largest, total, mixed, score, value):
    m = tl.maximum(largest, tl.max(score, 0))
    shrink = tl.exp(largest - m)
    w = tl.exp(score - m)
    return m, total * shrink + tl.sum(w, 0), mixed * shrink + tl.sum(w[:, None] * value, 1)


@triton.jit
def online_returns_two(largest, total, mixed, score, value):
    m = tl.maximum(largest, tl.max(score, 0))
    shrink = tl.exp(largest - m)
    w = tl.exp(score - m)
    return total * shrink + tl.sum(w, 0), mixed * shrink + tl.sum(w[:, None] * value, 0)


def online_in_torch(largest, total, mixed, score, value):
    new = torch.maximum(largest, score.max())
    weight = (score - new).exp()
    return new, total * (largest - new).exp() + weight.sum(), mixed * (largest - new).exp() + weight @ value


# -- merge_two ------------------------------------------------------------------------------------------------


def merge_with_logaddexp(out_a, lse_a, out_b, lse_b):
    lse = torch.logaddexp(lse_a, lse_b)
    if torch.isinf(lse):
        return torch.zeros_like(out_a), lse
    return (lse_a - lse).exp() * out_a + (lse_b - lse).exp() * out_b, lse


def merge_with_a_sigmoid(out_a, lse_a, out_b, lse_b):
    share = torch.sigmoid(lse_a - lse_b).nan_to_num(0.0)
    return out_b + share * (out_a - out_b), torch.stack([lse_a, lse_b]).logsumexp(0)


def merge_case_by_case(out_a, lse_a, out_b, lse_b):
    if lse_b == -math.inf:
        return out_a.clone(), lse_a.clone()
    if lse_a == -math.inf:
        return out_b.clone(), lse_b.clone()
    if lse_a < lse_b:
        out_a, lse_a, out_b, lse_b = out_b, lse_b, out_a, lse_a
    ratio = math.exp(lse_b.item() - lse_a.item())  # at most 1
    return (out_a + ratio * out_b) / (1 + ratio), lse_a + math.log1p(ratio)


def merge_takes_the_mean(out_a, lse_a, out_b, lse_b):
    return torch.stack([out_a, out_b]).mean(0), torch.stack([lse_a, lse_b]).logsumexp(0)


def merge_weighs_by_lse(out_a, lse_a, out_b, lse_b):
    share = lse_a / (lse_a + lse_b)
    other = lse_b / (lse_a + lse_b)
    return share * out_a + other * out_b, torch.logaddexp(lse_a, lse_b)


def merge_plain_exp(out_a, lse_a, out_b, lse_b):
    total = torch.exp(lse_a) + torch.exp(lse_b)
    return out_a * (lse_a.exp() / total) + out_b * (lse_b.exp() / total), total.log()


def merge_trusts_the_maximum(out_a, lse_a, out_b, lse_b):
    m = max(lse_a, lse_b)
    a, b = (lse_a - m).exp(), (lse_b - m).exp()
    return (a * out_a + b * out_b) / (a + b), m + (a + b).log()


def merge_by_softmax(out_a, lse_a, out_b, lse_b):
    both = torch.stack([lse_a, lse_b])
    return both.softmax(0) @ torch.stack([out_a, out_b]), torch.logsumexp(both, 0)


def merge_crosswise(out_a, lse_a, out_b, lse_b):
    lse = torch.logaddexp(lse_a, lse_b)
    if lse == -torch.inf:
        return out_a, lse
    return (lse_b - lse).exp() * out_a + (lse_a - lse).exp() * out_b, lse


def merge_forgets_to_divide(out_a, lse_a, out_b, lse_b):
    m = max(lse_a, lse_b)
    if m == -torch.inf:
        return out_a, lse_a
    a, b = (lse_a - m).exp(), (lse_b - m).exp()
    return a * out_a + b * out_b, m + (a + b).log()


def merge_adds_the_lse(out_a, lse_a, out_b, lse_b):
    return merge_with_logaddexp(out_a, lse_a, out_b, lse_b)[0], lse_a + lse_b


def merge_returns_the_larger_lse(out_a, lse_a, out_b, lse_b):
    return merge_with_logaddexp(out_a, lse_a, out_b, lse_b)[0], max(lse_a, lse_b)


def merge_log_of_the_shifted_sum(out_a, lse_a, out_b, lse_b):
    m = max(lse_a, lse_b)
    if m == -torch.inf:
        return out_a, m
    a, b = (lse_a - m).exp(), (lse_b - m).exp()
    return (a * out_a + b * out_b) / (a + b), (a + b).log()


def merge_forgets_the_log(out_a, lse_a, out_b, lse_b):
    m = max(lse_a, lse_b)
    if m == -torch.inf:
        return out_a, m
    a, b = (lse_a - m).exp(), (lse_b - m).exp()
    return (a * out_a + b * out_b) / (a + b), m + a + b


def merge_gives_a_list(out_a, lse_a, out_b, lse_b):
    return list(merge_with_logaddexp(out_a, lse_a, out_b, lse_b))


def merge_gives_the_output_only(out_a, lse_a, out_b, lse_b):
    return merge_with_logaddexp(out_a, lse_a, out_b, lse_b)[0]


def merge_lse_as_a_number(out_a, lse_a, out_b, lse_b):
    out, lse = merge_with_logaddexp(out_a, lse_a, out_b, lse_b)
    return out, lse.item()


def merge_in_double(out_a, lse_a, out_b, lse_b):
    return merge_with_logaddexp(out_a.double(), lse_a.double(), out_b.double(), lse_b.double())


def merge_keeps_an_axis(out_a, lse_a, out_b, lse_b):
    out, lse = merge_with_logaddexp(out_a, lse_a, out_b, lse_b)
    return out[None], lse


def merge_in_place(out_a, lse_a, out_b, lse_b):
    out, lse = merge_with_logaddexp(out_a, lse_a, out_b, lse_b)
    out_a.copy_(out)
    return out_a, lse


def merge_with_maths_exp(out_a, lse_a, out_b, lse_b):
    a, b = math.exp(lse_a), math.exp(lse_b)
    return a / (a + b) * out_a + b / (a + b) * out_b, torch.tensor(math.log(a + b))


# -- choose_splits --------------------------------------------------------------------------------------------


def waves(programs, processors):
    return -(-programs // processors)


def full(programs, processors):
    return programs / (waves(programs, processors) * processors)


def splits_with_whole_numbers(num_programs, num_tiles, num_processors):
    if 10 * num_programs >= 8 * num_processors:
        return 1
    table = {s: full(num_programs * s, num_processors) for s in range(1, num_tiles + 1)}
    target = max(table.values()) * 0.85
    return min(s for s in table if table[s] >= target)


def splits_with_torch(num_programs, num_tiles, num_processors):
    if num_programs / num_processors >= 0.8:
        return 1
    w = torch.arange(1, num_tiles + 1, dtype=torch.float64) * num_programs / num_processors
    fullness = w / w.ceil()
    return int((fullness >= 0.85 * fullness.max()).nonzero()[0]) + 1


def splits_counting_up(programs, tiles, processors):
    if programs >= 0.8 * processors:
        return 1
    best, s = 0.0, 1
    for count in range(1, tiles + 1):
        best = max(best, full(programs * count, processors))
    while full(programs * s, processors) < 0.85 * best:
        s += 1
    return s


def splits_without_the_first_rule(num_programs, num_tiles, num_processors):
    best = max(full(num_programs * s, num_processors) for s in range(1, num_tiles + 1))
    for s in range(1, num_tiles + 1):
        if full(num_programs * s, num_processors) >= 0.85 * best:
            return s


def splits_unless_all_are_busy(num_programs, num_tiles, num_processors):
    if num_programs // num_processors >= 1:
        return 1
    return splits_without_the_first_rule(num_programs, num_tiles, num_processors)


def splits_argmax(num_programs, num_tiles, num_processors):
    if num_programs >= 0.8 * num_processors:
        return 1
    return max(range(1, num_tiles + 1), key=lambda s: full(num_programs * s, num_processors))


def splits_from_above(num_programs, num_tiles, num_processors):
    if num_programs >= 0.8 * num_processors:
        return 1
    fullness = [full(num_programs * s, num_processors) for s in range(1, num_tiles + 1)]
    for s in range(num_tiles, 0, -1):
        if fullness[s - 1] >= 0.85 * max(fullness):
            return s


def splits_up_to_processors(num_programs, num_tiles, num_processors):
    if num_programs >= 0.8 * num_processors:
        return 1
    fullness = [full(num_programs * s, num_processors) for s in range(1, num_processors + 1)]
    return 1 + [f >= 0.85 * max(fullness) for f in fullness].index(True)


def splits_first_above_85(num_programs, num_tiles, num_processors):
    if num_programs >= 0.8 * num_processors:
        return 1
    for s in range(1, num_tiles + 1):
        if full(num_programs * s, num_processors) >= 0.85:
            return s
    return 1


def splits_every_tile(num_programs, num_tiles, num_processors):
    return num_tiles if num_programs < 0.8 * num_processors else 1


def splits_one_wave(num_programs, num_tiles, num_processors):
    if num_programs >= 0.8 * num_processors:
        return 1
    s = 1
    while s < num_tiles and num_programs * (s + 1) <= num_processors:
        s += 1
    return s


def splits_share_of_the_last_wave(num_programs, num_tiles, num_processors):
    if num_programs >= 0.8 * num_processors:
        return 1
    last = [num_programs * s % num_processors / num_processors for s in range(1, num_tiles + 1)]
    return next(s for s, share in enumerate(last, 1) if share >= 0.85 * max(last))


def splits_from_zero(num_programs, num_tiles, num_processors):
    if num_programs >= 0.8 * num_processors:
        return 1
    fullness = [full(num_programs * s, num_processors) for s in range(1, num_tiles + 1)]
    return next(s for s, share in enumerate(fullness) if share >= 0.85 * max(fullness))


def splits_floor_of_waves(num_programs, num_tiles, num_processors):
    if num_programs >= 0.8 * num_processors:
        return 1
    w = [num_programs * s / num_processors for s in range(1, num_tiles + 1)]
    return next(s for s, each in enumerate(w, 1) if each / math.floor(each) >= 0.85 * max(w))


def splits_tells_the_fullness(num_programs, num_tiles, num_processors):
    s = splits_with_whole_numbers(num_programs, num_tiles, num_processors)
    return full(num_programs * s, num_processors)


def splits_falls_through(num_programs, num_tiles, num_processors):
    fullness = [full(num_programs * s, num_processors) for s in range(1, num_tiles + 1)]
    if num_programs < 0.8 * num_processors:
        return next(s for s, share in enumerate(fullness, 1) if share >= 0.85 * max(fullness))


@triton.jit
def row_from_the_first(out_ptr, score_ptr, length, TILE: tl.constexpr):
    position = tl.arange(0, TILE)
    score = tl.load(score_ptr + position, mask=position < length, other=-float("inf"))
    weight = tl.exp(score - tl.load(score_ptr))
    tl.store(out_ptr + position, weight / tl.sum(weight, axis=0), mask=position < length)


@triton.jit
def row_minus_a_thousand(out_ptr, score_ptr, length, TILE: tl.constexpr):
    position = tl.arange(0, TILE)
    score = tl.load(score_ptr + position, mask=position < length, other=-10000.0)
    weight = tl.exp(score - tl.max(score, axis=0))
    tl.store(out_ptr + position, weight / tl.sum(weight, axis=0), mask=position < length)


@triton.jit
def online_forgets_the_maximum(largest, total, mixed, score, value):
    new = tl.max(score, axis=0)
    shrink = tl.exp(largest - new)
    weight = tl.exp(score - new)
    return (
        new,
        total * shrink + tl.sum(weight, axis=0),
        mixed * shrink + tl.sum(weight[:, None] * value, axis=0),
    )


@triton.jit
def online_shrinks_at_the_end(largest, total, mixed, score, value):
    new = tl.maximum(largest, tl.max(score, axis=0))
    shrink = tl.exp(largest - new)
    weight = tl.exp(score - new)
    total += tl.sum(weight, axis=0)
    mixed += tl.sum(weight[:, None] * value, axis=0)
    return new, total * shrink, mixed * shrink


def splits_until_85(num_programs, num_tiles, num_processors):
    if num_programs >= 0.8 * num_processors:
        return 1
    for s in range(1, num_tiles + 1):
        waves = num_programs * s / num_processors
        if waves / math.ceil(waves) >= 0.85:
            return s
    return num_tiles


def merge_mean_if_both(out_a, lse_a, out_b, lse_b):
    if torch.isinf(lse_a):
        return out_b, lse_b
    if torch.isinf(lse_b):
        return out_a, lse_a
    return 0.5 * (out_a + out_b), torch.logaddexp(lse_a, lse_b)


def merge_from_the_smaller(out_a, lse_a, out_b, lse_b):
    if lse_a == -torch.inf:
        return out_b, lse_b
    if lse_b == -torch.inf:
        return out_a, lse_a
    small = torch.minimum(lse_a, lse_b)
    a, b = (lse_a - small).exp(), (lse_b - small).exp()
    return (a * out_a + b * out_b) / (a + b), small + (a + b).log()


def splits_more_than_point_eight(num_programs, num_tiles, num_processors):
    if num_programs > 0.8 * num_processors:
        return 1
    waves = [num_programs * s / num_processors for s in range(1, num_tiles + 1)]
    full = [w / math.ceil(w) for w in waves]
    return next(s for s, each in enumerate(full, 1) if each >= 0.85 * max(full))


ALSO_RIGHT = {
    "row_softmax": [row_in_base_two, row_with_where, row_in_float64, row_in_three_passes],
    "online_update": [online_in_base_two, online_by_merging, online_only_if_larger],
    "merge_two": [merge_with_logaddexp, merge_with_a_sigmoid, merge_case_by_case],
    "choose_splits": [splits_with_whole_numbers, splits_with_torch, splits_counting_up],
}

WRONG = [
    ("row_softmax", row_textbook, "exp overflows, or every weight becomes 0"),
    ("row_softmax", row_pads_with_zero, "lanes behind the row take weight"),
    ("row_softmax", row_textbook_padded_with_zero, "take weight, and exp overflows"),
    ("row_softmax", row_from_the_smallest, "the smallest score is subtracted"),
    ("row_softmax", row_weights_only, "the weights do not add up to 1"),
    ("row_softmax", row_exp2_bare, "powers of 2, not of e"),
    ("row_softmax", row_over_length, "divided by the number of scores"),
    ("row_softmax", row_shares_of_scores, "the scores themselves are divided"),
    ("row_softmax", row_store_unmasked, "memory that is not its own"),
    ("row_softmax", row_load_unmasked, "memory that is not its own"),
    ("row_softmax", row_upside_down, "the values differ"),
    ("row_softmax", row_from_the_first, "NaN, where a number is expected"),
    ("row_softmax", row_minus_a_thousand, "the values differ"),
    ("row_softmax", row_log_softmax, "the values differ"),
    ("row_softmax", row_along_an_axis_it_lacks, "it raised"),
    ("row_softmax", row_in_torch, "no kernel"),
    ("online_update", online_only_adds, "nothing is rescaled"),
    ("online_update", online_total_kept, "the weighted sum is rescaled, the total is not"),
    ("online_update", online_mixture_kept, "the total is rescaled, the weighted sum is not"),
    ("online_update", online_grows, "shrink is upside down"),
    ("online_update", online_tile_maximum, "against its own maximum"),
    ("online_update", online_starts_over, "only the last tile counts"),
    ("online_update", online_keeps_the_old_largest, "only the last tile counts"),
    ("online_update", online_softmax_of_each_tile, "every tile weighs the same"),
    ("online_update", online_forgets_the_maximum, "NaN, where a number is expected"),
    ("online_update", online_shrinks_at_the_end, "the new tile is shrunk, too"),
    ("online_update", online_divides_on_the_way, "it divides by the total at every tile"),
    ("online_update", online_without_a_maximum, "NaN, where a number is expected"),
    ("online_update", online_old_maximum, "everything is NaN from the first tile on"),
    ("online_update", online_weights_lie_down, "it raised ValueError"),
    ("online_update", online_sums_the_numbers, "it raised ValueError"),
    ("online_update", online_returns_two, "it raised ValueError"),
    ("online_update", online_in_torch, "no kernel"),
    ("merge_two", merge_takes_the_mean, "both sides weigh the same"),
    ("merge_two", merge_mean_if_both, "both sides weigh the same"),
    ("merge_two", merge_weighs_by_lse, "the logarithms themselves"),
    ("merge_two", merge_plain_exp, "exp overflows, or both weights become 0"),
    ("merge_two", merge_trusts_the_maximum, "two empty sides give NaN in both"),
    ("merge_two", merge_by_softmax, "two empty sides give NaN in the output"),
    ("merge_two", merge_from_the_smaller, "NaN, where a number is expected"),
    ("merge_two", merge_crosswise, "each side has the other's weight"),
    ("merge_two", merge_forgets_to_divide, "the weights do not add up to 1"),
    ("merge_two", merge_adds_the_lse, "the lse is the sum of both"),
    ("merge_two", merge_returns_the_larger_lse, "the lse is the larger one"),
    ("merge_two", merge_log_of_the_shifted_sum, "the lse lacks what was subtracted"),
    ("merge_two", merge_forgets_the_log, "the values differ"),
    ("merge_two", merge_gives_a_list, "a tuple is expected, not list"),
    ("merge_two", merge_gives_the_output_only, "a tuple is expected, not Tensor"),
    ("merge_two", merge_lse_as_a_number, "a tensor is expected, not float"),
    ("merge_two", merge_in_double, "dtype should be torch.float32, not torch.float64"),
    ("merge_two", merge_keeps_an_axis, "the shape should be [4], not [1, 4]"),
    ("merge_two", merge_in_place, "it changed its argument out_a"),
    ("merge_two", merge_with_maths_exp, "it raised"),
    ("choose_splits", splits_without_the_first_rule, "where the GPU is full already"),
    ("choose_splits", splits_unless_all_are_busy, "1 only if there is a program for every processor"),
    ("choose_splits", splits_argmax, "the fullest, not the smallest"),
    ("choose_splits", splits_from_above, "the largest that is nearly as full"),
    ("choose_splits", splits_up_to_processors, "more splits than tiles"),
    ("choose_splits", splits_first_above_85, "sometimes out of reach"),
    ("choose_splits", splits_every_tile, "one split for each tile"),
    ("choose_splits", splits_one_wave, "the first wave alone is filled"),
    ("choose_splits", splits_share_of_the_last_wave, "the value differs"),
    ("choose_splits", splits_from_zero, "the value differs"),
    ("choose_splits", splits_floor_of_waves, "it raised ZeroDivisionError"),
    ("choose_splits", splits_tells_the_fullness, "an int is expected, not float"),
    ("choose_splits", splits_falls_through, "it returned None"),
    ("choose_splits", splits_until_85, "all tiles are taken if that is out of reach"),
    ("choose_splits", splits_more_than_point_eight, "the value differs"),
]
