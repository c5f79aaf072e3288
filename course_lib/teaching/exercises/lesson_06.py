"""Exercises of 06_online_softmax: the safe softmax, one online update, merging two states, the number of splits."""

import math

import torch

from course_lib.teaching.check import Exercise, Mistake
from course_lib.teaching.kernel_lab import run_watched, tl, triton

# -- row_softmax ----------------------------------------------------------------------------------------------


@triton.jit
def row_softmax(out_ptr, score_ptr, length, TILE: tl.constexpr):
    """The softmax of a row of length scores, TILE >= length lanes."""
    position = tl.arange(0, TILE)
    is_score = position < length
    score = tl.load(score_ptr + position, mask=is_score, other=-float("inf"))
    weight = tl.exp(score - tl.max(score, axis=0))
    share = weight / tl.sum(weight, axis=0)
    tl.store(out_ptr + position, share, mask=is_score)


def _launch_row_softmax(kernel, scores, TILE):
    out = torch.zeros_like(scores)
    run_watched(kernel, (1,), out, scores, len(scores), TILE)
    return out


def _row_unshifted(scores, TILE):
    weights = scores.exp()
    return weights / weights.sum()


def _row_padded(scores, TILE, shift, padding=0.0):
    """A softmax over TILE lanes, of which those behind the row hold `padding`."""
    padded = torch.cat([scores, scores.new_full((TILE - len(scores),), padding)])
    weights = (padded - shift(padded)).exp()
    return (weights / weights.sum())[: len(scores)]


def _row_zero_padding(scores, TILE):
    return _row_padded(scores, TILE, lambda row: row.max())


def _row_zero_padding_unshifted(scores, TILE):
    return _row_padded(scores, TILE, lambda row: 0.0)


def _row_smallest(scores, TILE):
    weights = (scores - scores.min()).exp()
    return weights / weights.sum()


def _row_not_divided(scores, TILE):
    return (scores - scores.max()).exp()


def _row_base_two(scores, TILE):
    weights = torch.exp2(scores - scores.max())
    return weights / weights.sum()


def _row_mean(scores, TILE):
    return (scores - scores.max()).exp() / len(scores)


def _row_linear(scores, TILE):
    return scores / scores.sum()


def _row_cases():
    make = torch.Generator().manual_seed(10)
    return [
        dict(scores=3 * torch.randn(13, generator=make), TILE=16),
        dict(scores=torch.tensor([-300.0, -301.0, -303.5]), TILE=4),
        dict(scores=torch.tensor([0.0, 998.0, -1000.0, 1000.0, 999.5]), TILE=8),
        dict(scores=torch.tensor([-20_000.0]), TILE=4),  # the masked lanes must weigh less than any score
    ]


ROW_SOFTMAX = Exercise(
    name="row_softmax",
    minutes=7,
    difficulty="easy",
    proves="whatever the scores, the largest weight is exp(0) = 1.",
    solution=row_softmax,
    cases=_row_cases,
    mistakes=(
        Mistake(
            "exp overflows, or every weight becomes 0",
            "subtract the largest score first: the quotients stay the same",
            _row_unshifted,
        ),
        Mistake(
            "lanes behind the row take weight",
            "a masked score of 0 weighs exp(0 - largest): which `other` weighs nothing?",
            _row_zero_padding,
        ),
        Mistake(
            "lanes behind the row take weight, and exp overflows",
            "two things: `other` must weigh nothing, and the largest score is subtracted first",
            _row_zero_padding_unshifted,
        ),
        Mistake(
            "the smallest score is subtracted", "then the largest still overflows: subtract it", _row_smallest
        ),
        Mistake("the weights do not add up to 1", "divide by their sum", _row_not_divided),
        Mistake(
            "powers of 2, not of e",
            "tl.exp, or tl.exp2 with the scores times log2(e)",
            _row_base_two,
        ),
        Mistake("divided by the number of scores", "divide by the sum of the weights", _row_mean),
        Mistake("the scores themselves are divided", "softmax takes exp of each score first", _row_linear),
    ),
    hints=(
        "exp(x - c) / sum of exp(x - c) is the same for every c. Which c keeps exp from overflowing?",
        "a masked lane must weigh 0: exp(-inf) does\nweight = exp(score - largest score)\n"
        "share = weight / sum of weights",
        'score = tl.load(score_ptr + position, mask=is_score, other=-float("inf"))\n'
        "weight = tl.exp(score - tl.max(score, axis=0))\nshare = weight / tl.sum(weight, axis=0)",
    ),
    look_at="what is subtracted, what masked lanes weigh, what is divided by",
    tolerance=1e-4,
    launch=_launch_row_softmax,
)  # fmt: skip

# -- online_update --------------------------------------------------------------------------------------------


@triton.jit
def online_update(largest, total, mixed, score, value):
    """The state (m, l, o) after one more tile: score [TILE], value [TILE, D]."""
    new_largest = tl.maximum(largest, tl.max(score, axis=0))
    shrink = tl.exp(largest - new_largest)
    weight = tl.exp(score - new_largest)
    total = total * shrink + tl.sum(weight, axis=0)
    mixed = mixed * shrink + tl.sum(weight[:, None] * value, axis=0)
    return new_largest, total, mixed


@triton.jit
def _attend_tiles(
    out_ptr, score_ptr, value_ptr, length,
    update: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Walks the tiles of one query with somebody's update."""
    dim = tl.arange(0, D)
    largest, total, mixed = -float("inf"), 0.0, tl.zeros([D], tl.float32)
    for start in range(0, length, TILE):
        position = start + tl.arange(0, TILE)
        is_score = position < length
        score = tl.load(score_ptr + position, mask=is_score, other=-float("inf"))
        place = position[:, None] * D + dim[None, :]
        value = tl.load(value_ptr + place, mask=is_score[:, None], other=0.0)
        largest, total, mixed = update(largest, total, mixed, score, value)
    tl.store(out_ptr + dim, mixed / total)


def _launch_online_update(kernel, scores, values, TILE):
    out = torch.zeros(values.shape[1])
    run_watched(_attend_tiles, (1,), out, scores, values, len(scores), kernel, values.shape[1], TILE)
    return out


def _walk(scores, values, TILE, step):
    """The same walk with a wrong step: step(largest, total, mixed, scores, values) -> the same three."""
    state = torch.tensor(-torch.inf), torch.tensor(0.0), torch.zeros(values.shape[1])
    for part, rows in zip(scores.split(TILE), values.split(TILE), strict=True):
        state = step(*state, part, rows)
    return state[2] / state[1]


def _update_variant(shrink_total=None, shrink_mixed=None, shift=None):
    """An update in which one thing is otherwise: a factor or a shift, from the old and the new maximum."""

    def wrong(scores, values, TILE):
        def step(largest, total, mixed, part, rows):
            new = torch.maximum(largest, part.max())
            usual = torch.exp(largest - new)
            weights = torch.exp(part - (shift(part) if shift else new))
            total = total * (shrink_total(largest, new) if shrink_total else usual) + weights.sum()
            mixed = mixed * (shrink_mixed(largest, new) if shrink_mixed else usual) + weights @ rows
            return new, total, mixed

        return _walk(scores, values, TILE, step)

    return wrong


def _one(largest, new):
    return 1.0


def _upside_down(largest, new):
    return torch.where(largest == -torch.inf, 0.0, torch.exp(new - largest))


def _update_shrinks_the_new(scores, values, TILE):
    def step(largest, total, mixed, part, rows):
        new = torch.maximum(largest, part.max())
        shrink, weights = torch.exp(largest - new), torch.exp(part - new)
        return new, (total + weights.sum()) * shrink, (mixed + weights @ rows) * shrink

    return _walk(scores, values, TILE, step)


def _update_divides_each_tile(scores, values, TILE):
    def step(largest, total, mixed, part, rows):
        new = torch.maximum(largest, part.max())
        shrink, weights = torch.exp(largest - new), torch.exp(part - new)
        total = total * shrink + weights.sum()
        return new, total, (mixed * shrink + weights @ rows) / total

    return _walk(scores, values, TILE, step)


def _update_is_nan(scores, values, TILE):
    return torch.full((values.shape[1],), torch.nan)


def _update_drops_the_past(scores, values, TILE):
    last, rows = scores.split(TILE)[-1], values.split(TILE)[-1]
    return last.softmax(0) @ rows


def _update_averages_tiles(scores, values, TILE):
    means = [
        part.softmax(0) @ rows for part, rows in zip(scores.split(TILE), values.split(TILE), strict=True)
    ]
    return sum(means) / len(means)


def _online_cases():
    make = torch.Generator().manual_seed(11)
    rising = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    falling = torch.tensor([2.0, 5.0, 1.0, 4.0, 1.0, 0.0, -2.0, 1.0, -3.0])
    return [
        dict(scores=scores, values=torch.randn(len(scores), 8, generator=make), TILE=4)
        for scores in (
            rising,
            falling,
            3 * torch.randn(11, generator=make),
            torch.tensor([1000.0, 999.0, 998.0, 997.0, 0.0, 1.0]),
            torch.tensor([0.0, 1.0, 2.0, 3.0, 1000.0, 999.0, 998.5]),
            90 + torch.randn(6, generator=make),
        )
    ]


ONLINE_UPDATE = Exercise(
    name="online_update",
    minutes=12,
    difficulty="hard",
    proves="one pass is enough: what was seen is rescaled, never read again.",
    solution=online_update,
    cases=_online_cases,
    mistakes=(
        Mistake(
            "nothing is rescaled",
            "old weights were taken against a smaller maximum: multiply what was seen by shrink",
            _update_variant(_one, _one),
        ),
        Mistake(
            "the weighted sum is rescaled, the total is not",
            "both were collected against the old maximum",
            _update_variant(shrink_total=_one),
        ),
        Mistake(
            "the total is rescaled, the weighted sum is not",
            "both were collected against the old maximum",
            _update_variant(shrink_mixed=_one),
        ),
        Mistake(
            "everything is NaN from the first tile on",
            "largest begins at -inf: exp(old - new) is 0 then, and exp(new - old) is infinite",
            _update_is_nan,
        ),
        Mistake(
            "the new tile is shrunk, too",
            "its weights are against the new maximum already: shrink what is old, then add",
            _update_shrinks_the_new,
        ),
        Mistake(
            "it divides by the total at every tile",
            "keep the sums as they are: the division comes once, at the end",
            _update_divides_each_tile,
        ),
        Mistake(
            "shrink is upside down",
            "a larger maximum makes old weights smaller: exp(old - new), never above 1",
            _update_variant(_upside_down, _upside_down),
        ),
        Mistake(
            "each tile's weights are taken against its own maximum",
            "all weights must be against the same one: the largest so far, new_largest",
            _update_variant(shift=torch.max),
        ),
        Mistake(
            "only the last tile counts",
            "add to total and mixed, do not replace them; and return the new largest",
            _update_drops_the_past,
        ),
        Mistake(
            "every tile weighs the same",
            "a tile with large scores must weigh more: keep sums, and divide once at the end",
            _update_averages_tiles,
        ),
    ),
    hints=(
        "total and mixed are sums of exp(score - largest). If largest grows by d, every old term shrinks by exp(-d).",
        "shrink = exp(old largest - new largest)\ntotal = total x shrink + sum of the new weights\n"
        "mixed = mixed x shrink + sum of weight x value over the tile",
        "shrink = tl.exp(largest - new_largest)\ntotal = total * shrink + tl.sum(weight, axis=0)\n"
        "mixed = mixed * shrink + tl.sum(weight[:, None] * value, axis=0)",
    ),
    look_at="what happens to the old total and the old mixture when a larger score arrives",
    launch=_launch_online_update,
    tolerance=1e-4,
)  # fmt: skip

# -- merge_two ------------------------------------------------------------------------------------------------


def merge_two(out_a, lse_a, out_b, lse_b):
    """Attention over two sets of keys, from the attention over each: (out [D], lse)."""
    largest = torch.maximum(lse_a, lse_b)
    if largest == -torch.inf:
        return out_a, lse_a  # nothing was seen on either side
    weight_a, weight_b = torch.exp(lse_a - largest), torch.exp(lse_b - largest)
    total = weight_a + weight_b
    return (weight_a * out_a + weight_b * out_b) / total, largest + torch.log(total)


def _merge_mean(out_a, lse_a, out_b, lse_b):
    return (out_a + out_b) / 2, torch.logaddexp(lse_a, lse_b)


def _merge_by_lse(out_a, lse_a, out_b, lse_b):
    return (lse_a * out_a + lse_b * out_b) / (lse_a + lse_b), torch.logaddexp(lse_a, lse_b)


def _merge_unshifted(out_a, lse_a, out_b, lse_b):
    a, b = lse_a.exp(), lse_b.exp()
    return (a * out_a + b * out_b) / (a + b), torch.log(a + b)


def _merge_nan_when_empty(out_a, lse_a, out_b, lse_b):
    if lse_a == lse_b == -torch.inf:
        return out_a * torch.nan, lse_a * torch.nan
    return merge_two(out_a, lse_a, out_b, lse_b)


def _merge_nan_out_when_empty(out_a, lse_a, out_b, lse_b):
    if lse_a == lse_b == -torch.inf:
        return out_a * torch.nan, lse_a
    return merge_two(out_a, lse_a, out_b, lse_b)


def _merge_swapped(out_a, lse_a, out_b, lse_b):
    return merge_two(out_b, lse_a, out_a, lse_b)


def _merge_not_divided(out_a, lse_a, out_b, lse_b):
    largest = torch.maximum(lse_a, lse_b)
    if largest == -torch.inf:
        return out_a, lse_a
    out = (lse_a - largest).exp() * out_a + (lse_b - largest).exp() * out_b
    return out, torch.logaddexp(lse_a, lse_b)


def _merge_lse_summed(out_a, lse_a, out_b, lse_b):
    return merge_two(out_a, lse_a, out_b, lse_b)[0], lse_a + lse_b


def _merge_lse_largest(out_a, lse_a, out_b, lse_b):
    return merge_two(out_a, lse_a, out_b, lse_b)[0], torch.maximum(lse_a, lse_b)


def _merge_lse_unshifted(out_a, lse_a, out_b, lse_b):
    out, lse = merge_two(out_a, lse_a, out_b, lse_b)
    largest = torch.maximum(lse_a, lse_b)
    return out, lse if largest == -torch.inf else lse - largest


def _guarded(wrong):
    """The same mistake by somebody who takes the other side if one is empty."""

    def taken(out_a, lse_a, out_b, lse_b):
        if lse_a == -torch.inf:
            return out_b, lse_b
        return (out_a, lse_a) if lse_b == -torch.inf else wrong(out_a, lse_a, out_b, lse_b)

    return taken


def _unguarded(wrong):
    """The same mistake by somebody who did not think of two empty sides either."""

    def both(out_a, lse_a, out_b, lse_b):
        out, lse = wrong(out_a, lse_a, out_b, lse_b)
        if lse_a == lse_b == -torch.inf:
            return out * torch.nan, lse * torch.nan
        return out, lse

    return both


def _merge_cases():
    make = torch.Generator().manual_seed(12)
    pairs = [
        (0.3, 1.5),
        (-2.0, -5.0),
        (1000.0, 999.0),
        (-1000.0, -1001.0),
        (-100.0, 120.0),
        (150.0, -50.0),
        (-torch.inf, 0.7),
        (1.1, -torch.inf),
        (-torch.inf, -torch.inf),
    ]
    cases = []
    for lse_a, lse_b in pairs:
        outs = torch.randn(2, 4, generator=make)
        outs = [
            torch.zeros(4) if lse == -torch.inf else out
            for out, lse in zip(outs, (lse_a, lse_b), strict=True)
        ]
        cases.append(dict(out_a=outs[0], lse_a=torch.tensor(lse_a), out_b=outs[1], lse_b=torch.tensor(lse_b)))
    return cases


MERGE_TWO = Exercise(
    name="merge_two",
    minutes=8,
    difficulty="medium",
    proves="blocks can be attended to in any grouping, on any processor, and joined afterwards.",
    solution=merge_two,
    cases=_merge_cases,
    mistakes=(
        Mistake(
            "both sides weigh the same",
            "a side weighs exp(lse): the sum of exp(score) over its keys",
            _merge_mean,
        ),
        Mistake(
            "both sides weigh the same",
            "a side weighs exp(lse): the sum of exp(score) over its keys",
            _guarded(_merge_mean),
        ),
        Mistake("the weights are the logarithms themselves", "a side weighs exp(lse)", _merge_by_lse),
        Mistake("the weights are the logarithms themselves", "a side weighs exp(lse)", _guarded(_merge_by_lse)),
        Mistake(
            "exp overflows, or both weights become 0",
            "subtract the larger lse first, as in the safe softmax",
            _merge_unshifted,
        ),
        Mistake(
            "two empty sides give NaN in both",
            "-inf minus -inf is NaN: if both lse are -inf, nothing was seen, and the result is empty, too",
            _merge_nan_when_empty,
        ),
        Mistake(
            "two empty sides give NaN in the output",
            "if both lse are -inf, nothing was seen: the result is zeros, with lse -inf",
            _merge_nan_out_when_empty,
        ),
        Mistake("each side has the other's weight", "weight a goes with out_a", _merge_swapped),
        Mistake("each side has the other's weight", "weight a goes with out_a", _unguarded(_merge_swapped)),
        Mistake("the weights do not add up to 1", "divide by the sum of both weights", _merge_not_divided),
        Mistake("the weights do not add up to 1", "divide by the sum of both weights", _unguarded(_merge_not_divided)),
        Mistake(
            "the output is right, the lse is the sum of both",
            "lse is log(exp(lse_a) + exp(lse_b))",
            _merge_lse_summed,
        ),
        Mistake(
            "the output is right, the lse is the sum of both",
            "lse is log(exp(lse_a) + exp(lse_b))",
            _unguarded(_merge_lse_summed),
        ),
        Mistake(
            "the output is right, the lse is the sum of both",
            "lse is log(exp(lse_a) + exp(lse_b))",
            _guarded(_merge_lse_summed),
        ),
        Mistake(
            "the output is right, the lse is the larger one",
            "lse is log(exp(lse_a) + exp(lse_b)): more than either",
            _merge_lse_largest,
        ),
        Mistake(
            "the output is right, the lse is the larger one",
            "lse is log(exp(lse_a) + exp(lse_b)): more than either",
            _unguarded(_merge_lse_largest),
        ),
        Mistake(
            "the output is right, the lse lacks what was subtracted",
            "add the larger lse to the logarithm of the sum",
            _merge_lse_unshifted,
        ),
        Mistake(
            "the output is right, the lse lacks what was subtracted",
            "add the larger lse to the logarithm of the sum",
            _unguarded(_merge_lse_unshifted),
        ),
    ),
    hints=(
        "out_a is a mean, and exp(lse_a) is the sum of the weights it was taken with. How are two means joined?",
        "largest = the larger lse; if that is -inf, nothing was seen\nweight of a side = exp(lse - largest)\n"
        "out = weighted mean of the two\nlse = largest + log(sum of the weights)",
        "largest = torch.maximum(lse_a, lse_b)\nif largest == -torch.inf:\n    return out_a, lse_a\n"
        "a, b = torch.exp(lse_a - largest), torch.exp(lse_b - largest)\n"
        "return (a * out_a + b * out_b) / (a + b), largest + torch.log(a + b)",
    ),
    look_at="how much each side weighs, and what happens when a side is empty",
    tolerance=1e-4,
)  # fmt: skip

# -- choose_splits --------------------------------------------------------------------------------------------


def choose_splits(num_programs, num_tiles, num_processors):
    """The smallest number of splits whose waves are nearly as full as the best; 1 if the GPU is full anyway."""
    if num_programs >= 0.8 * num_processors:
        return 1

    def fullness(splits):
        whole_waves = -(-num_programs * splits // num_processors)  # rounded up
        return num_programs * splits / num_processors / whole_waves

    counts = range(1, num_tiles + 1)
    best = max(fullness(splits) for splits in counts)
    return next(splits for splits in counts if fullness(splits) >= 0.85 * best)


def _fullness(programs, processors):
    return programs / processors / math.ceil(programs / processors)


def _splits_always_split(num_programs, num_tiles, num_processors):
    full = [_fullness(num_programs * s, num_processors) for s in range(1, num_tiles + 1)]
    return next(s for s, each in enumerate(full, 1) if each >= 0.85 * max(full))


def _splits_best(num_programs, num_tiles, num_processors):
    if num_programs >= 0.8 * num_processors:
        return 1
    full = [_fullness(num_programs * s, num_processors) for s in range(1, num_tiles + 1)]
    return full.index(max(full)) + 1


def _splits_largest(num_programs, num_tiles, num_processors):
    if num_programs >= 0.8 * num_processors:
        return 1
    full = [_fullness(num_programs * s, num_processors) for s in range(1, num_tiles + 1)]
    return max(s for s, each in enumerate(full, 1) if each >= 0.85 * max(full))


def _splits_any_number(num_programs, num_tiles, num_processors):
    return choose_splits(num_programs, 1_000, num_processors)


def _splits_85_of_everything(num_programs, num_tiles, num_processors):
    if num_programs >= 0.8 * num_processors:
        return 1
    full = [_fullness(num_programs * s, num_processors) for s in range(1, num_tiles + 1)]
    return next((s for s, each in enumerate(full, 1) if each >= 0.85), 1)


def _splits_one_per_tile(num_programs, num_tiles, num_processors):
    return 1 if num_programs >= 0.8 * num_processors else num_tiles


def _splits_85_or_all(num_programs, num_tiles, num_processors):
    if num_programs >= 0.8 * num_processors:
        return 1
    full = [_fullness(num_programs * s, num_processors) for s in range(1, num_tiles + 1)]
    return next((s for s, each in enumerate(full, 1) if each >= 0.85), num_tiles)


def _splits_fill_once(num_programs, num_tiles, num_processors):
    if num_programs >= 0.8 * num_processors:
        return 1
    return max(1, min(num_tiles, num_processors // num_programs))


def _splits_full_at_100(num_programs, num_tiles, num_processors):
    return (
        1 if num_programs >= num_processors else _splits_always_split(num_programs, num_tiles, num_processors)
    )


def _splits_cases():
    return [
        dict(num_programs=programs, num_tiles=tiles, num_processors=processors)
        for programs, tiles, processors in [
            (8, 64, 132), (8, 4, 132), (100, 64, 132), (110, 64, 132), (300, 64, 132), (48, 32, 108), (6, 40, 40),
            (1, 1, 132), (40, 4, 132), (50, 3, 132), (56, 3, 132), (32, 64, 40), (2, 40, 40), (105, 64, 132),
        ]
    ]  # fmt: skip


CHOOSE_SPLITS = Exercise(
    name="choose_splits",
    minutes=10,
    difficulty="medium",
    proves="a split is worth its merge only while processors stand idle.",
    solution=choose_splits,
    cases=_splits_cases,
    mistakes=(
        Mistake(
            "it splits where the GPU is full already",
            "from 0.8 x num_processors programs on: 1",
            _splits_always_split,
        ),
        Mistake(
            "1 only if there is a program for every processor",
            "0.8 x num_processors programs are enough for 1",
            _splits_full_at_100,
        ),
        Mistake(
            "the fullest, not the smallest that is nearly as full",
            "85% of the best is enough, and fewer splits cost less to merge",
            _splits_best,
        ),
        Mistake("the largest that is nearly as full", "fewer splits cost less to merge", _splits_largest),
        Mistake(
            "more splits than tiles", "a split needs a tile: at most num_tiles splits", _splits_any_number
        ),
        Mistake(
            "85% of all processors is asked, and sometimes out of reach",
            "compare with the best that any number of splits reaches",
            _splits_85_of_everything,
        ),
        Mistake(
            "85% of all processors is asked, and all tiles are taken if that is out of reach",
            "compare with the best that any number of splits reaches",
            _splits_85_or_all,
        ),
        Mistake("one split for each tile", "the smallest number that is nearly as full", _splits_one_per_tile),
        Mistake(
            "the first wave alone is filled",
            "num_processors // num_programs splits is one candidate; a smaller one may be within 85% of the best",
            _splits_fill_once,
        ),
    ),
    hints=(
        "Programs run in waves of num_processors. 1.1 waves take as long as 2: they are 55% full.",
        "1 if num_programs >= 0.8 x num_processors\nfullness(s) = waves / ceil(waves), "
        "waves = programs x s / processors\n"
        "the smallest s from 1 to num_tiles with fullness(s) >= 0.85 x the best",
        "import math\nif num_programs >= 0.8 * num_processors:\n    return 1\n"
        "waves = [num_programs * s / num_processors for s in range(1, num_tiles + 1)]\n"
        "fullness = [w / math.ceil(w) for w in waves]\n"
        "return next(s for s, full in enumerate(fullness, 1) if full >= 0.85 * max(fullness))",
    ),
    look_at="when 1 is right, how full the waves are, and which of the good counts is taken",
)  # fmt: skip

EXERCISES = [ROW_SOFTMAX, ONLINE_UPDATE, MERGE_TWO, CHOOSE_SPLITS]  # as the notebook asks them
