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
    """Sums are kept in fp32 at least, so only the last rounding is the dtype's own."""
    out = softmax(scores)
    assert out.dtype == scores.dtype and out.shape == scores.shape
    unit = torch.finfo(scores.dtype).eps
    torch.testing.assert_close(
        out.double(), scores.double().softmax(-1), rtol=max(unit, 1e-15) * 8, atol=min(unit, 1e-7)
    )


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("loud", [1.0, 30.0])
def test_the_shares_are_those_of_torch(softmax, dtype, loud):
    hold_against_torch(softmax, (loud * randn(4, 5, SIZE)).to(dtype))
