"""The oracle itself, against a loop over heads and positions in fp64, and against torch."""

import itertools
import math
import random

import pytest
import torch
import torch.nn.functional as F

from course_lib.attention import attention, paged_attention, paged_attention_blockwise, write_kv
from course_lib.attention.paged import slots_of


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


# -- keys and values in blocks ---------------------------------------------------------------------------------


def scattered(seed):
    """Sequences whose keys and values lie in shuffled blocks, NaN everywhere else, -1 in unused table entries."""
    draw, make = random.Random(seed), torch.Generator().manual_seed(seed)
    block_size, num_kv_heads, head_dim = (
        draw.choice([1, 5, 16]),
        draw.choice([1, 2, 3]),
        draw.choice([16, 64]),
    )
    lens = [draw.choice([0, 1, max(1, block_size - 1), block_size, block_size + 1, 37]) for _ in range(4)]
    width = max(1, -(-max(lens) // block_size))
    free = torch.randperm(4 * width + 3, generator=make).tolist()
    caches = torch.full((2, len(free), block_size, num_kv_heads, head_dim), math.nan)
    tables, sequences = torch.full((4, width), -1, dtype=torch.int32), []
    for table, length in zip(tables, lens, strict=True):
        key, value = torch.randn(2, length, num_kv_heads, head_dim, generator=make)
        blocks = -(-length // block_size)
        table[:blocks] = torch.tensor([free.pop() for _ in range(blocks)])
        write_kv(key, value, *caches, slots_of(table, length, block_size))
        sequences.append((key, value))
    query_heads = num_kv_heads * draw.choice([1, 3, 4])
    return caches, tables, torch.tensor(lens, dtype=torch.int32), sequences, query_heads, draw, make


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("function", [paged_attention, paged_attention_blockwise])
def test_decode_over_blocks_is_dense_attention(function, seed):
    caches, tables, lens, sequences, num_heads, _, make = scattered(seed)
    query = 3 * torch.randn(4, num_heads, caches.shape[-1], generator=make)
    out, lse = function(query, *caches, tables, lens, return_lse=True)
    for row, (key, value) in enumerate(sequences):
        if len(key) == 0:
            assert not out[row].any() and (lse[row] == -math.inf).all()
            continue
        torch.testing.assert_close(out[row], attention(query[row][None], key, value)[0], rtol=1e-4, atol=1e-5)
        group = num_heads // key.shape[1]
        scores = torch.einsum("hd,shd->hs", query[row], key.repeat_interleave(group, 1)) / key.shape[2] ** 0.5
        torch.testing.assert_close(lse[row], scores.logsumexp(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(30))
def test_several_queries_a_sequence_are_its_last_positions(seed):
    caches, tables, lens, sequences, num_heads, draw, make = scattered(seed)
    counts = [min(length, draw.choice([0, 1, 1, 3, length])) for length in lens.tolist()]
    starts = torch.tensor([0, *itertools.accumulate(counts)], dtype=torch.int32)
    queries = [torch.randn(count, num_heads, caches.shape[-1], generator=make) for count in counts]
    out = paged_attention(torch.cat(queries), *caches, tables, lens, query_start_loc=starts)
    expected = [attention(query, *kv) for query, kv in zip(queries, sequences, strict=True) if len(query)]
    torch.testing.assert_close(out, torch.cat([out[:0], *expected]), rtol=1e-4, atol=1e-5)
