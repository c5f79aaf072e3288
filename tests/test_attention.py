"""The oracle itself, against a loop over heads and positions in fp64, and against torch."""

import math

import pytest
import torch
import torch.nn.functional as F

from course_lib.attention import attention


def by_hand(query, key, value, causal, scale):
    """The formula, one query and one head at a time."""
    num_tokens, num_heads, _head_dim = query.shape
    group, out = num_heads // key.shape[1], torch.empty_like(query, dtype=torch.float64)
    for t in range(num_tokens):
        last = len(key) - num_tokens + t if causal else len(key) - 1
        for head in range(num_heads):
            scores = [
                scale * float(query[t, head].double() @ key[s, head // group].double())
                for s in range(last + 1)
            ]
            weights = [math.exp(score - max(scores)) for score in scores]
            mixed = sum(w * value[s, head // group].double() for s, w in enumerate(weights))
            out[t, head] = mixed / sum(weights)
    return out


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("num_tokens", "context_len"), [(1, 1), (1, 9), (4, 4), (3, 8)])
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 4), (6, 2), (3, 1)])
def test_equals_the_formula(num_heads, num_kv_heads, num_tokens, context_len, causal):
    torch.manual_seed(num_heads * 100 + context_len)
    query = 5 * torch.randn(num_tokens, num_heads, 16)
    key, value = torch.randn(2, context_len, num_kv_heads, 16)
    expected = by_hand(query, key, value, causal, 1 / 4)
    torch.testing.assert_close(
        attention(query, key, value, causal=causal).double(), expected, rtol=1e-4, atol=1e-5
    )


def test_scale_replaces_the_default():
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 2, 16), torch.randn(5, 2, 16), torch.randn(5, 2, 16)
    torch.testing.assert_close(
        attention(query, key, value, scale=0.7).double(),
        by_hand(query, key, value, True, 0.7),
        rtol=1e-4,
        atol=1e-5,
    )


def test_equals_torch():
    torch.manual_seed(0)
    query, key, value = torch.randn(33, 9, 64), torch.randn(33, 3, 64), torch.randn(33, 3, 64)
    theirs = F.scaled_dot_product_attention(
        *(x.transpose(0, 1)[None] for x in (query, key, value)), is_causal=True, enable_gqa=True
    )
    torch.testing.assert_close(attention(query, key, value), theirs[0].transpose(0, 1))


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (((1, 4, 8), (3, 3, 8), (3, 3, 8)), "4 query heads cannot share 3 KV heads"),
        (((1, 4, 8), (3, 2, 4), (3, 2, 4)), "key has head_dim 4, query has 8"),
        (((1, 4, 8), (3, 2, 8), (2, 2, 8)), "must have one shape"),
        (((4, 4, 8), (3, 2, 8), (3, 2, 8)), "4 queries but only 3 keys"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, said):
    with pytest.raises(ValueError, match=said):
        attention(*(torch.zeros(shape) for shape in shapes))
