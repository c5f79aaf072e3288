"""Softmax in one piece, in tiles and in parts, against torch in fp64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paged_cases import same_bits

from course_lib.attention import attention, merge_states, online_softmax, safe_softmax

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SIZE = 13
INF = math.inf


def softmax_in_tiles_of(tile):
    return lambda scores: online_softmax(scores, tile)


WAYS = {"safe": safe_softmax} | {
    f"tile {tile}": softmax_in_tiles_of(tile) for tile in (1, 3, SIZE, SIZE + 7, 10**9)
}


@pytest.fixture(params=WAYS.values(), ids=WAYS.keys())
def softmax(request):
    return request.param


def hold_against_torch(softmax, scores):
    """Sums are kept in fp32 at least, so all that a half-precision dtype may cost is one rounding, of the result."""
    before = scores.clone()
    out = softmax(scores)
    assert out.dtype == scores.dtype and out.shape == scores.shape and same_bits(scores, before)
    right, unit = scores.double().softmax(-1).nan_to_num(0.0), torch.finfo(scores.dtype).eps
    rounding = 0.51 * unit + 1e-5 if scores.dtype.itemsize == 2 else 8 * unit
    torch.testing.assert_close(out.double(), right, rtol=rounding, atol=min(unit, 1e-7))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- safe and online softmax -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("loud", [1.0, 30.0])
def test_the_shares_are_those_of_torch(softmax, dtype, loud):
    hold_against_torch(softmax, (loud * randn(4, 5, SIZE)).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_huge_scores_neither_overflow_nor_vanish(softmax, dtype, offset):
    """exp(1e4) is beyond any float, and exp(-1e4) is 0 in all of them: only differences may be exponentiated."""
    hold_against_torch(softmax, (offset + 8 * randn(3, SIZE)).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_huge_score_takes_all(softmax, dtype):
    for winner in range(SIZE):
        scores = torch.full((SIZE,), -1e4, dtype=dtype)
        scores[winner] = 1e4
        out = softmax(scores)
        assert out[winner] == 1 and out.sum() == 1


def test_a_row_that_rises_and_one_that_falls_give_the_same_shares(softmax):
    """In a rising row every tile brings a new largest score, in a falling one none does."""
    rising = torch.arange(SIZE, dtype=torch.float64) * 40
    hold_against_torch(softmax, torch.stack([rising, rising.flip(0)]))
    torch.testing.assert_close(softmax(rising), softmax(rising.flip(0)).flip(0), rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_of_nothing_but_minus_infinity_gives_zeros(softmax, dtype):
    scores = randn(3, SIZE).to(dtype)
    scores[1] = -INF
    assert softmax(scores)[1].tolist() == [0.0] * SIZE
    hold_against_torch(softmax, scores)


@pytest.mark.parametrize(
    "masked", [[0], [5], [SIZE - 1], range(7), range(3, 9), range(SIZE - 1), range(1, SIZE)]
)
def test_masked_scores_weigh_nothing_wherever_they_stand(softmax, masked):
    """Also where whole tiles at the start are masked, and nothing has been seen yet."""
    for dtype in DTYPES:
        scores = (5 * randn(2, SIZE)).to(dtype)
        scores[:, list(masked)] = -INF
        assert not softmax(scores)[:, list(masked)].any()
        hold_against_torch(softmax, scores)


def test_one_score_gets_everything(softmax):
    assert softmax(torch.tensor([[-700.0], [3.0]])).tolist() == [[1.0], [1.0]]


def test_a_long_row_in_half_precision_is_summed_in_single(softmax):
    """Added one by one in fp16, 2,049 ones stay at 2,048."""
    out = softmax(torch.zeros(2050, dtype=torch.float16))
    assert out.unique().tolist() == [torch.tensor(1 / 2050).half().item()]


@pytest.mark.parametrize("tile", [0, -1, 2.0, True, None, "3"])
def test_a_tile_that_is_no_size_is_refused(tile):
    with pytest.raises(ValueError, match=f"tile must be a whole number of at least 1, got {tile!r}"):
        online_softmax(torch.zeros(3), tile)


# -- merging partial results -----------------------------------------------------------------------------------


def states_of(query, key, value, parts):
    """(out, lse) of the queries over each part of the keys, by the oracle; zeros and -inf over none."""
    states = []
    for part in parts:
        if len(part) == 0:
            states.append((torch.zeros_like(query), query.new_full(query.shape[:2], -INF)))
            continue
        scores = torch.einsum("thd,shd->ths", query, key[part]) / query.shape[2] ** 0.5
        states.append((attention(query, key[part], value[part], causal=False), scores.logsumexp(-1)))
    return states


def drawn(seed, num_keys, dtype=torch.float64, loud=1.0):
    query, key, value = randn(3, 2, 8, seed=seed), randn(num_keys, 2, 8, seed=seed + 1), randn(num_keys, 2, 8)
    return [x.to(dtype) for x in (loud * query, key, value)]


def assert_same_state(one, other, **near):
    near = near or dict(rtol=1e-11, atol=1e-12)
    for ours, right in zip(one, other, strict=True):
        torch.testing.assert_close(ours, right, **near)


@st.composite
def partitions(draw):
    """(keys, owner of each key, number of parts, pairs to merge): parts may be empty, merges come in any order."""
    num_keys, num_parts = draw(st.integers(0, 20)), draw(st.integers(1, 5))
    owners = draw(st.lists(st.integers(0, num_parts - 1), min_size=num_keys, max_size=num_keys))
    pairs = [
        draw(st.permutations(range(left)).map(lambda order: order[:2])) for left in range(num_parts, 1, -1)
    ]
    return num_keys, owners, num_parts, pairs


@settings(max_examples=200, deadline=None)
@given(partitions(), st.integers(0, 2**20), st.sampled_from([1.0, 30.0, 3000.0]))
def test_parts_merged_in_any_order_are_attention_over_all_keys(partition, seed, loud):
    num_keys, owners, num_parts, pairs = partition
    query, key, value = drawn(seed, num_keys, loud=loud)
    parts = [[k for k, owner in enumerate(owners) if owner == part] for part in range(num_parts)]
    states = states_of(query, key, value, parts)
    for one, other in pairs:
        merged = merge_states(*states[one], *states[other])
        states = [state for i, state in enumerate(states) if i not in (one, other)] + [merged]
    (ours,) = states
    assert_same_state(ours, states_of(query, key, value, [range(num_keys)])[0])


def test_merging_is_commutative_and_associative():
    query, key, value = drawn(0, 12, loud=5.0)
    a, b, c = states_of(query, key, value, [range(3), range(3, 4), range(4, 12)])
    assert_same_state(merge_states(*a, *b), merge_states(*b, *a), rtol=0, atol=0)
    assert_same_state(merge_states(*merge_states(*a, *b), *c), merge_states(*a, *merge_states(*b, *c)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_side_that_has_seen_nothing_changes_no_bit(dtype):
    (out, lse), *_ = states_of(*drawn(0, 9, dtype), [range(9)])
    lse = lse * 1e3
    for rest in (torch.zeros_like(out), torch.full_like(out, 77.0)):
        nothing = rest, torch.full_like(lse, -INF)
        for merged in (merge_states(out, lse, *nothing), merge_states(*nothing, out, lse)):
            assert same_bits(merged[0], out) and same_bits(merged[1], lse)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_sides_that_have_seen_nothing_give_zeros_and_minus_infinity(dtype):
    nothing = torch.zeros(3, 2, 8, dtype=dtype), torch.full((3, 2), -INF, dtype=dtype)
    out, lse = merge_states(*nothing, *nothing)
    assert same_bits(out, nothing[0]) and same_bits(lse, nothing[1])


def test_rows_with_and_without_keys_may_lie_side_by_side():
    out_a, out_b = torch.tensor([[1.0], [2.0], [0.0], [0.0]]), torch.tensor([[5.0], [0.0], [6.0], [0.0]])
    lse_a, lse_b = torch.tensor([0.0, 1.0, -INF, -INF]), torch.tensor([math.log(3), -INF, 2.0, -INF])
    out, lse = merge_states(out_a, lse_a, out_b, lse_b)
    torch.testing.assert_close(out, torch.tensor([[4.0], [2.0], [6.0], [0.0]]))
    torch.testing.assert_close(lse, torch.tensor([math.log(4), 1.0, 2.0, -INF]))


@pytest.mark.parametrize("far", [1e4, -1e4])
def test_log_sum_exps_beyond_the_reach_of_exp_are_merged(far):
    out_a, out_b = torch.tensor([1.0]), torch.tensor([3.0])
    out, lse = merge_states(out_a, torch.tensor(far), out_b, torch.tensor(far))
    assert (out.item(), lse.item()) == (2.0, pytest.approx(far + math.log(2), rel=1e-7))
    out, lse = merge_states(out_a, torch.tensor(far), out_b, torch.tensor(-far))
    assert (out.item(), lse.item()) == (2.0 - math.copysign(1.0, far), 1e4)


@pytest.mark.parametrize("lse_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_dtypes_of_the_first_side_are_kept(dtype, lse_dtype):
    """Kernels keep the output in half precision and the log-sum-exp in single."""
    query, key, value = drawn(0, 9)
    states = states_of(query, key, value, [range(4), range(4, 9), range(9)])
    a, b, whole = ((out.to(dtype), lse.to(lse_dtype)) for out, lse in states)
    out, lse = merge_states(*a, *b)
    assert (out.dtype, lse.dtype) == (dtype, lse_dtype)
    unit = max(torch.finfo(dtype).eps, torch.finfo(lse_dtype).eps)
    assert_same_state((out.double(), lse.double()), [x.double() for x in whole], rtol=0, atol=8 * unit)


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 2, 8), (3, 2), (3, 2, 7), (3, 2)),
        ((3, 2, 8), (3, 2), (2, 8), (2,)),
        ((3, 2, 8), (3, 1), (3, 2, 8), (3, 1)),
        ((3, 2, 8), (3, 2), (3, 2, 8), (3, 1)),
        ((3, 2, 8), (3, 2, 8), (3, 2, 8), (3, 2, 8)),
        ((3, 2, 8), (3, 2, 1), (3, 2, 8), (3, 2, 1)),
    ],
)
def test_states_that_do_not_fit_each_other_are_refused(shapes):
    with pytest.raises(ValueError) as error:
        merge_states(*(torch.zeros(shape) for shape in shapes))
    assert str(list(shapes)) in str(error.value)


def test_what_an_empty_side_left_in_its_output_does_not_count():
    out, lse = torch.tensor([[1.0, 2.0]]), torch.tensor([0.3])
    nothing = torch.full((1, 2), torch.nan), torch.tensor([-torch.inf])
    for merged in (merge_states(out, lse, *nothing), merge_states(*nothing, out, lse)):
        torch.testing.assert_close(merged, (out, lse))
