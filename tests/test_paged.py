"""Attention over blocks in torch: against fp64, held to PyTorch's own error; what is written, copied and refused."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paged_cases import hold_against_fp64, make_problem, same_bits

from course_lib.attention import copy_blocks, paged_attention, paged_attention_blockwise, write_kv
from course_lib.attention.paged import attend_gathered, plan_gather, slots_of
from course_lib.memory import BlockPool, BlockTable

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
BOTH = pytest.mark.parametrize("function", [paged_attention, paged_attention_blockwise])
GPU = torch.cuda.is_available()
DEVICES = pytest.mark.parametrize("device", ["cpu", "cuda"] if GPU else ["cpu"])
# (group, block_size, num_kv_heads, head_dim): every group meets every block size; heads and dimensions take turns.
SHAPES = [
    (group, block_size, (2, 3, 1, 2)[(i + i // 4) % 4], (64, 80, 128)[i % 3])
    for i, (group, block_size) in enumerate(itertools.product((1, 3, 4, 8), (1, 5, 16, 32)))
]


def int32(values, **options):
    return torch.tensor(values, dtype=torch.int32, **options)


def lens_around(block_size):
    return [block_size + 1, 0, 1, 2 * block_size + 3, block_size - 1, block_size, 3 * block_size, 45, 0]


# -- one query a sequence: decode ------------------------------------------------------------------------------


@DEVICES
@BOTH
@pytest.mark.parametrize("loud", [1.0, 30.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("group", "block_size", "num_kv_heads", "head_dim"), SHAPES)
def test_decode_over_blocks_is_dense_attention(
    group, block_size, num_kv_heads, head_dim, dtype, loud, function, device
):
    heads = group * num_kv_heads, num_kv_heads, head_dim
    lens = lens_around(block_size)
    hold_against_fp64(function, make_problem(0, lens, *heads, block_size, dtype, device, loud=loud))


@DEVICES
@BOTH
@pytest.mark.parametrize("unused_entry", [-1, -(2**31), 2**31 - 1, 0, 3])
def test_table_entries_behind_a_context_may_hold_anything(unused_entry, function, device):
    """No block, a block that does not exist, another's block, or one full of NaN: nobody looks."""
    options = dict(unused_entry=unused_entry, spare_entries=3, device=device)
    hold_against_fp64(function, make_problem(1, [17, 0, 33, 16], 6, 2, 16, 16, **options))


@DEVICES
@BOTH
@pytest.mark.parametrize("lens", [[0], [0, 0], [0, 5], [5, 0], [0, 16, 0]])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_context_of_nothing_gives_zeros_whatever_block_0_holds(dtype, lens, function, device):
    for seed in range(6):  # block 0 belongs to a sequence in some, and is poisoned in others
        problem = make_problem(seed, lens, 6, 2, 16, 8, dtype, device)
        hold_against_fp64(function, problem)
        out, lse = function(**problem.arguments(), return_lse=True)
        empty = problem.context_lens == 0
        assert same_bits(out[empty], torch.zeros_like(out[empty])) and (lse[empty] == -math.inf).all()


@BOTH
@pytest.mark.parametrize("width", [0, 2])
def test_no_sequences_and_tables_without_entries_are_no_error(width, function):
    out, lse = function(**make_problem(0, [], 6, 2, 16, 8, spare_entries=width).arguments(), return_lse=True)
    assert out.shape == (0, 6, 16) and lse.shape == (0, 6)
    hold_against_fp64(function, make_problem(0, [0, 0], 6, 2, 16, 8, spare_entries=width))


@DEVICES
@BOTH
@pytest.mark.parametrize("scale", [0.0, 0.03, 1.0, -0.5])
def test_a_scale_that_is_given_replaces_the_default(scale, function, device):
    """0 is a scale, too: all tokens weigh the same."""
    hold_against_fp64(function, make_problem(2, [17, 40, 1], 6, 2, 16, 16, device=device, scale=scale))


@pytest.mark.parametrize(
    ("function", "news"),
    [(paged_attention, None), (paged_attention_blockwise, None), (paged_attention, [1, 40, 0, 2])],
)
def test_scores_far_below_any_number_that_could_stand_for_minus_infinity(function, news):
    """A mask of -1e4 or -1e9 instead of -inf would win against them."""
    lens, sees_one_token = [1, 40, 2, 17], 0 if news is None else 1
    problem = make_problem(2, lens, 6, 2, 16, 16, torch.float64, scale=-1e12, query_lens=news)
    assert (problem.expected()[1][sees_one_token] < -1e10).any()
    hold_against_fp64(function, problem)


@BOTH
def test_without_return_lse_only_the_output_comes_back(function):
    arguments = make_problem(2, [17, 40, 0], 6, 2, 16, 16).arguments()
    assert same_bits(function(**arguments), function(**arguments, return_lse=True)[0])


@BOTH
def test_both_walks_read_tensors_that_are_cut_from_larger_ones(function):
    """A query is often a slice of one projection, and the caches of K and V may lie in one tensor."""
    problem = make_problem(3, [17, 40, 0, 16], 6, 2, 16, 16)
    both = torch.stack([problem.key_cache, problem.value_cache], dim=1)
    wide = torch.cat([problem.query, problem.query.flip(0)], dim=1)
    cut = replace(problem, query=wide[:, :6], key_cache=both[:, 0], value_cache=both[:, 1])
    assert not (cut.query.is_contiguous() or cut.key_cache.is_contiguous())
    hold_against_fp64(function, cut)


# -- several queries a sequence: prefill, chunks, prefix hits ---------------------------------------------------


def mixed_batch(block_size):
    """(context_len, new tokens): whole prompts, later chunks, decodes, and sequences that are left out of this step."""
    return [
        (block_size, 0),  # left out, at the start
        (2 * block_size + 3, 2 * block_size + 3),  # a whole prompt
        (3 * block_size, 1),  # decode, at the end of a block
        (0, 0),  # admitted, nothing computed
        (2 * block_size + 1, 2),  # the last chunk of a prompt, across the border of two blocks
        (block_size + 1, 1),  # decode, the first token of a block
        (1, 1),  # a prompt of one token
        (37, 5),  # a prefix was found in the cache, the rest is new
        (3 * block_size, 3 * block_size - 1),
        (9, 0),  # left out, at the end
    ]


@DEVICES
@pytest.mark.parametrize("loud", [1.0, 30.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("group", "block_size", "num_kv_heads", "head_dim"), SHAPES)
def test_a_mixed_batch_is_dense_attention_at_the_last_positions(
    group, block_size, num_kv_heads, head_dim, dtype, loud, device
):
    heads = group * num_kv_heads, num_kv_heads, head_dim
    lens, news = zip(*mixed_batch(block_size), strict=True)
    problem = make_problem(4, list(lens), *heads, block_size, dtype, device, query_lens=list(news), loud=loud)
    hold_against_fp64(paged_attention, problem)


@DEVICES
@pytest.mark.parametrize(
    "batch",
    [
        [(20, 20)],
        [(20, 3)],
        [(0, 0), (20, 20), (0, 0)],
        [(7, 0), (20, 0)],
        [(5, 1), (9, 1)],
        [(9, 9), (9, 1)],
        [(9, 1), (9, 9)],
        [(9, 0), (9, 1), (9, 0), (9, 2), (9, 0)],
    ],
)
def test_batches_of_prompts_only_of_decodes_only_and_of_nothing(batch, device):
    lens, news = (list(numbers) for numbers in zip(*batch, strict=True))
    for scale in (None, 0.0, 0.4):
        options = dict(query_lens=news, scale=scale, device=device)
        hold_against_fp64(paged_attention, make_problem(5, lens, 6, 2, 16, 8, **options))


@pytest.mark.skipif(not GPU, reason="no GPU: paged attention in torch is tested on the CPU alone")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_gpu_answers_as_the_cpu_does(dtype):
    lens, news = (list(numbers) for numbers in zip(*mixed_batch(16), strict=True))
    on_gpu, on_cpu = (
        make_problem(5, lens, 6, 2, 64, 16, dtype, device, query_lens=news) for device in ("cuda", "cpu")
    )
    assert on_gpu.query.is_cuda and same_bits(on_gpu.key_cache.cpu(), on_cpu.key_cache)
    hold_against_fp64(paged_attention, on_gpu)
    ours, theirs = (paged_attention(**problem.arguments()).cpu() for problem in (on_gpu, on_cpu))
    torch.testing.assert_close(ours, theirs)


def test_a_prompt_in_chunks_is_the_prompt_at_once():
    """Each chunk sees the cache as far as it is filled: what comes later is not written yet."""
    whole = make_problem(6, [45], 6, 2, 16, 8, torch.float64, query_lens=[45])
    at_once, lse_at_once = paged_attention(**whole.arguments(), return_lse=True)
    (key, value), table = whole.sequences[0], whole.block_tables[0]
    for chunk in (1, 7, 8, 44, 45):
        caches = [torch.full_like(cache, math.nan) for cache in (whole.key_cache, whole.value_cache)]
        outs, lses = [], []
        for start in range(0, 45, chunk):
            end = min(45, start + chunk)
            write_kv(key[start:end], value[start:end], *caches, slots_of(table, end, 8)[start:])
            starts = int32([0, end - start])
            contexts = int32([end])
            out, lse = paged_attention(
                whole.query[start:end],
                *caches,
                table[None],
                contexts,
                query_start_loc=starts,
                return_lse=True,
            )
            outs.append(out), lses.append(lse)
        torch.testing.assert_close(torch.cat(outs), at_once, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(torch.cat(lses), lse_at_once, rtol=1e-12, atol=1e-13)


def test_one_query_each_with_and_without_query_start_loc_is_the_same():
    problem = make_problem(7, [17, 40, 1], 6, 2, 16, 16)
    spelled_out = replace(problem, query_start_loc=int32([0, 1, 2, 3]))
    for ours, right in zip(
        paged_attention(**spelled_out.arguments(), return_lse=True),
        paged_attention(**problem.arguments(), return_lse=True),
        strict=True,
    ):
        assert same_bits(ours, right)


def test_a_plan_made_once_serves_every_layer():
    lens, news = (list(numbers) for numbers in zip(*mixed_batch(8), strict=True))
    first, second = (make_problem(5, lens, 6, 2, 16, 8, query_lens=news, loud=loud) for loud in (1.0, 3.0))
    plan = plan_gather(first.block_tables, first.context_lens, 8, first.query_start_loc)
    caches = second.key_cache * 2, second.value_cache - 1
    right = paged_attention(
        second.query,
        *caches,
        second.block_tables,
        second.context_lens,
        query_start_loc=second.query_start_loc,
        scale=0.4,
        return_lse=True,
    )
    ours = attend_gathered(second.query, *caches, plan, scale=0.4)
    assert all(same_bits(*pair) for pair in zip(ours, right, strict=True))


def test_slots_beyond_two_to_the_31_do_not_wrap():
    """Block 2^30 of 16 slots begins at slot 2^34. Block ids are int32, slots must not be."""
    table, wanted = int32([2**30, 2**31 - 1]), [*range(2**34, 2**34 + 16), 2**35 - 16]
    assert slots_of(table, 17, 16).tolist() == wanted
    plan = plan_gather(table[None].repeat(2, 1), int32([17, 17]), 16, int32([0, 1, 3]))
    assert plan.slots.tolist() == [wanted] and plan.prefills[0][1].tolist() == wanted


@st.composite
def problems(draw, decode):
    """Anything small, in fp64, where nothing can hide behind rounding."""
    block_size, num_kv_heads = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    lens = draw(st.lists(st.integers(0, 4 * block_size + 1), min_size=1, max_size=5))
    news = None if decode else [draw(st.integers(0, length)) for length in lens]
    share = None
    if len(lens) > 1:
        giver, taker = draw(st.permutations(range(len(lens))))[:2]
        enough = min(lens[giver] // block_size, -(-lens[taker] // block_size))
        share = giver, taker, draw(st.integers(0, enough))
    return make_problem(
        draw(st.integers(0, 2**20)),
        lens,
        num_kv_heads * draw(st.integers(1, 5)),
        num_kv_heads,
        draw(st.integers(1, 8)),
        block_size,
        torch.float64,
        query_lens=news,
        share=share,
        loud=draw(st.sampled_from([1.0, 30.0])),
        spare_entries=draw(st.integers(0, 2)),
        spare_blocks=draw(st.integers(1, 3)),
    )


@settings(max_examples=120, deadline=None)
@given(problems(decode=True))
def test_any_decode_is_dense_attention(problem):
    hold_against_fp64(paged_attention, problem)
    hold_against_fp64(paged_attention_blockwise, problem)


@settings(max_examples=120, deadline=None)
@given(problems(decode=False))
def test_any_mixed_batch_is_dense_attention(problem):
    hold_against_fp64(paged_attention, problem)


# -- blocks that are shared, and blocks that were another's -----------------------------------------------------


@DEVICES
@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_sequences_may_share_the_blocks_of_a_prefix(dtype, function, device):
    problem = make_problem(8, [40, 45, 3], 6, 2, 64, 16, dtype, device, share=(0, 1, 2))
    assert torch.equal(problem.block_tables[0, :2], problem.block_tables[1, :2])
    hold_against_fp64(function, problem)


@DEVICES
@BOTH
@pytest.mark.parametrize("taken", [17, 30, 31, 32, 40])
def test_a_fork_shares_a_block_that_is_not_full_and_stops_at_its_own_end(taken, function, device):
    """Behind the shorter one's end lie the longer one's tokens, which are numbers and no NaN."""
    blocks = -(-taken // 16)
    hold_against_fp64(
        function, make_problem(9, [40, taken], 6, 2, 64, 16, device=device, share=(0, 1, blocks))
    )


@DEVICES
def test_a_prefix_hit_computes_the_rest_over_anothers_blocks(device):
    options = dict(share=(0, 1, 2), query_lens=[1, 13], device=device)
    hold_against_fp64(paged_attention, make_problem(10, [40, 45], 6, 2, 64, 16, **options))


@BOTH
def test_a_block_may_stand_twice_in_one_table(function):
    problem = make_problem(11, [16, 24], 6, 2, 64, 8)
    tables = problem.block_tables.clone()
    tables[0, 1] = tables[0, 0]
    again = tuple(torch.cat([tokens[:8], tokens[:8]]) for tokens in problem.sequences[0])
    hold_against_fp64(
        function, replace(problem, block_tables=tables, sequences=[again, problem.sequences[1]])
    )


@DEVICES
@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 6e4, -6e4])
def test_what_lies_outside_the_contexts_changes_no_bit(poison, dtype, function, device):
    problem, clean = (
        make_problem(12, [17, 0, 1, 15, 16, 45], 6, 2, 64, 16, dtype, device, poison=rest)
        for rest in (poison, 0.0)
    )
    outs, right = (function(**each.arguments(), return_lse=True) for each in (problem, clean))
    assert all(same_bits(*pair) for pair in zip(outs, right, strict=True))


@pytest.mark.parametrize("poison", [math.nan, math.inf, 6e4])
def test_what_lies_outside_the_contexts_changes_no_bit_of_a_prefill_either(poison):
    problem, clean = (
        make_problem(12, [17, 0, 5, 45], 6, 2, 64, 16, query_lens=[17, 0, 2, 1], poison=rest)
        for rest in (poison, 0.0)
    )
    outs, right = (paged_attention(**each.arguments(), return_lse=True) for each in (problem, clean))
    assert all(same_bits(*pair) for pair in zip(outs, right, strict=True))


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("secret", [None, math.nan, math.inf, 6e4])
def test_a_freed_blocks_contents_never_reach_the_request_that_gets_it(secret, dtype, function):
    """One request fills the cache and leaves; the next gets its blocks, and answers as in a cache nobody has used."""
    make = torch.Generator().manual_seed(13)
    first, second = (torch.randn(2, count, 2, 32, generator=make).to(dtype) for count in (31, 18))
    query = (3 * torch.randn(1, 6, 32, generator=make)).to(dtype)

    def ask(caches, table):
        tables, contexts = int32([[*table.block_ids, -1]]), int32([table.num_tokens])
        return function(query, *caches, tables, contexts, return_lse=True)

    used, pool = torch.zeros(2, 4, 8, 2, 32, dtype=dtype), BlockPool(4, 8)
    theirs = BlockTable(pool)
    write_kv(
        *(first if secret is None else torch.full_like(first, secret)),
        *used,
        torch.tensor(theirs.append(31).slots),
    )
    theirs_blocks = list(theirs.block_ids)
    theirs.free()
    ours = BlockTable(pool)
    write_kv(*second, *used, torch.tensor(ours.append(18).slots))
    assert set(ours.block_ids) <= set(theirs_blocks), "it was given blocks that were used before"

    clean = torch.zeros_like(used)
    write_kv(*second, *clean, torch.tensor([ours.slot(position) for position in range(18)]))
    assert all(same_bits(*pair) for pair in zip(ask(used, ours), ask(clean, ours), strict=True))


@BOTH
def test_nothing_that_is_read_is_changed(function):
    problem = make_problem(14, [17, 0, 45], 6, 2, 16, 16)
    before = {name: tensor.clone() for name, tensor in problem.arguments().items()}
    function(**problem.arguments(), return_lse=True)
    assert all(same_bits(tensor, before[name]) for name, tensor in problem.arguments().items())


def test_nothing_that_is_read_is_changed_by_a_prefill():
    problem = make_problem(14, [17, 9, 45], 6, 2, 16, 16, query_lens=[17, 0, 1])
    before = {name: tensor.clone() for name, tensor in problem.arguments().items()}
    paged_attention(**problem.arguments(), return_lse=True)
    assert all(same_bits(tensor, before[name]) for name, tensor in problem.arguments().items())


# -- writing and copying ----------------------------------------------------------------------------------------


def random_bits(*shape, dtype, seed=0):
    """Every pattern that memory can hold, NaN of all kinds among them."""
    make = torch.Generator().manual_seed(seed)
    size = math.prod(shape) * dtype.itemsize
    return torch.randint(256, (size,), dtype=torch.uint8, generator=make).view(dtype).view(shape)


def write_problem(dtype=torch.float32, device="cpu"):
    """(key, value, key_cache, value_cache, slots): 5 blocks of 3 slots; tokens for the first, the last and others."""
    slots = torch.tensor([14, 3, -1, 0, 8, -1, 7])
    key, value = (random_bits(7, 2, 20, dtype=dtype, seed=seed) for seed in (1, 2))
    key_cache, value_cache = (random_bits(5, 3, 2, 20, dtype=dtype, seed=seed) for seed in (3, 4))
    return [tensor.to(device) for tensor in (key, value, key_cache, value_cache, slots)]


def hold_write(key, value, key_cache, value_cache, slots):
    """Slot by slot: what was written is there, and every other slot is as it was."""
    before = key_cache.clone(), value_cache.clone()
    assert write_kv(key, value, key_cache, value_cache, slots) is None
    token_of = {slot: token for token, slot in enumerate(slots.tolist()) if slot >= 0}
    for slot in range(key_cache.shape[0] * key_cache.shape[1]):
        block, offset = divmod(slot, key_cache.shape[1])
        for cache, old, new in zip((key_cache, value_cache), before, (key, value), strict=True):
            wanted = new[token_of[slot]] if slot in token_of else old[block, offset]
            assert same_bits(cache[block, offset], wanted), f"slot {slot}"


@DEVICES
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_slot_holds_what_was_written_and_every_other_what_it_held(dtype, device):
    hold_write(*write_problem(dtype, device=device))


def test_tokens_may_be_a_slice_of_one_projection():
    *_, key_cache, value_cache, slots = write_problem()
    projected = torch.randn(7, 6, 20, generator=torch.Generator().manual_seed(0))
    hold_write(projected[:, 2:4], projected[:, 4:], key_cache, value_cache, slots)


@pytest.mark.parametrize("slots", [[], [-1, -1, -1], [9, -1], [14], list(range(14, -1, -1))])
def test_none_a_few_or_all_slots_are_written(slots):
    _, _, key_cache, value_cache, _ = write_problem()
    key, value = torch.randn(2, len(slots), 2, 20, generator=torch.Generator().manual_seed(0))
    hold_write(key, value, key_cache, value_cache, torch.tensor(slots, dtype=torch.int64))


def test_what_is_written_over_a_table_is_what_attention_reads():
    pool = BlockPool(6, 4)
    table, other = BlockTable(pool), BlockTable(pool)
    make = torch.Generator().manual_seed(1)
    key, value = torch.randn(2, 14, 2, 16, generator=make)
    caches = torch.full((2, 6, 4, 2, 16), math.nan)
    written = 0
    for count in (5, 1, 3, 5):
        slots, _ = table.append(count).slots, other.append(1)
        write_kv(
            key[written : written + count], value[written : written + count], *caches, torch.tensor(slots)
        )
        written += count
    problem = make_problem(0, [14], 6, 2, 16, 4)
    caches = dict(zip(("key_cache", "value_cache"), caches, strict=True))
    ours = replace(problem, block_tables=int32([table.block_ids]), sequences=[(key, value)], **caches)
    hold_against_fp64(paged_attention, ours)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(slots=lambda s: s.where(s != 8, 3)), "slot_mapping names slot .* twice"),
        (dict(slots=lambda s: s.where(s != 8, 15)), "slot_mapping holds -1 to 15: slots go from 0 to 14"),
        (dict(slots=lambda s: s.where(s != 8, -2)), "slot_mapping holds -2 to 14: slots go from 0 to 14"),
        (dict(slots=lambda s: s.where(s != 8, 10**12)), "holds -1 to 1000000000000"),
        (dict(slots=lambda s: s.int()), r"must be \[7\] int64, got \(7,\) torch.int32"),
        (dict(slots=lambda s: s.double()), r"must be \[7\] int64, got \(7,\) torch.float64"),
        (dict(slots=lambda s: s[:6]), r"must be \[7\] int64, got \(6,\)"),
        (dict(slots=lambda s: s[:, None]), r"must be \[7\] int64, got \(7, 1\)"),
        (dict(key=lambda k: k.half()), "key is torch.float16, value torch.float32, the cache torch.float32"),
        (dict(value=lambda v: v.half()), "key is torch.float32, value torch.float16, the cache torch.float32"),
        (dict(key=lambda k: k.half(), value=lambda v: v.half()), "value torch.float16, the cache torch.float32"),
        (dict(value=lambda v: v[:6]), r"key \(7, 2, 20\) and value \(6, 2, 20\) must both be"),
        (dict(key=lambda k: k[:, :1], value=lambda v: v[:, :1]), r"key \(7, 1, 20\) and value \(7, 1, 20\) must"),
        (dict(key=lambda k: k[..., 1:], value=lambda v: v[..., 1:]), r"value \(7, 2, 19\) .* cache \(5, 3, 2, 20\)"),
        (dict(key=lambda k: k.flatten(1), value=lambda v: v.flatten(1)), r"key \(7, 40\) and value \(7, 40\) must"),
        (dict(key_cache=lambda c: c[0]), r"must both be .* got \(3, 2, 20\) torch.float32 and \(5, 3, 2, 20\)"),
        (dict(value_cache=lambda c: c[:4]), r"must both be .* and \(4, 3, 2, 20\) torch.float32"),
        (dict(value_cache=lambda c: c.half()), r"must both be .* and \(5, 3, 2, 20\) torch.float16"),
        (dict(slots=lambda s: s.to("meta")), "must be on one device: .*slot_mapping on meta"),
        (dict(value=lambda v: v.to("meta")), "must be on one device: key on cpu, value on meta"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_and_nothing_is_written(changes, said):
    arguments = dict(zip(("key", "value", "key_cache", "value_cache", "slots"), write_problem(), strict=True))
    before = arguments["key_cache"].clone(), arguments["value_cache"].clone()
    spoiled = {name: changes.get(name, lambda x: x)(tensor) for name, tensor in arguments.items()}
    with pytest.raises(ValueError, match=said):
        write_kv(*spoiled.values())
    assert same_bits(arguments["key_cache"], before[0]) and same_bits(arguments["value_cache"], before[1])


@DEVICES
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("copies", "holds"),
    [
        ([], [0, 1, 2, 3, 4]),
        ([(0, 1), (1, 2)], [0, 0, 0, 3, 4]),  # a chain: 2 gets what 1 has just got
        ([(1, 2), (0, 1)], [0, 0, 1, 3, 4]),
        ([(4, 0), (4, 3)], [4, 1, 2, 4, 4]),
        ([(3, 0), (2, 0)], [2, 1, 2, 3, 4]),
        ([(2, 2)], [0, 1, 2, 3, 4]),
    ],
)
def test_blocks_are_copied_whole_and_in_order(copies, holds, dtype, device):
    caches = [random_bits(5, 3, 2, 20, dtype=dtype, seed=seed).to(device) for seed in (1, 2)]
    before = [cache.clone() for cache in caches]
    assert copy_blocks(*caches, copies) is None
    for cache, old in zip(caches, before, strict=True):
        assert same_bits(cache, old[holds])


@pytest.mark.parametrize("bad", [-1, 5, 10**12])
@pytest.mark.parametrize("place", ["source", "destination"])
def test_a_block_that_does_not_exist_is_not_copied(place, bad):
    caches = [random_bits(5, 3, 2, 20, dtype=torch.float32, seed=seed) for seed in (1, 2)]
    before = [cache.clone() for cache in caches]
    with pytest.raises(ValueError, match=f"there is no block {bad}: the cache has 5"):
        copy_blocks(*caches, [(bad, 1) if place == "source" else (1, bad)])
    assert all(same_bits(*pair) for pair in zip(caches, before, strict=True))


def test_a_fork_that_copies_on_write_leaves_the_other_as_it_was():
    """The whole story in integers and tensors: fork, append, copy, write; both answer as if each had its own cache."""
    pool, make = BlockPool(8, 4), torch.Generator().manual_seed(2)
    parent = BlockTable(pool)
    caches, common = torch.full((2, 8, 4, 2, 16), math.nan), torch.randn(2, 6, 2, 16, generator=make)
    write_kv(*common, *caches, torch.tensor(parent.append(6).slots))
    child, sequences = parent.fork(), []
    for table in (child, parent):
        new, appended = torch.randn(2, 1, 2, 16, generator=make), table.append()
        copy_blocks(*caches, appended.copies)
        write_kv(*new, *caches, torch.tensor(appended.slots))
        sequences.append(tuple(torch.cat([common, new], dim=1)))
    caches = dict(zip(("key_cache", "value_cache"), caches, strict=True))
    tables = int32([child.block_ids, parent.block_ids])
    problem = replace(
        make_problem(0, [7, 7], 6, 2, 16, 4), block_tables=tables, sequences=sequences, **caches
    )
    hold_against_fp64(paged_attention, problem)
    hold_against_fp64(paged_attention_blockwise, problem)


# -- what is refused -------------------------------------------------------------------------------------------

REFUSED = [
    (dict(query=lambda q: q[:, :3]), "3 query heads cannot share 2 KV heads evenly"),
    (dict(query=lambda q: q[..., :5]), r"query must be \[T, Hq, 8\] as the cache has it, got \(2, 4, 5\)"),
    (dict(query=lambda q: q[0]), r"query must be \[T, Hq, 8\] as the cache has it, got \(4, 8\)"),
    (dict(query=lambda q: q.half()), "query is torch.float16, the cache torch.float32"),
    (dict(key_cache=lambda c: c.half(), value_cache=lambda c: c.half()), "torch.float32, the cache torch.float16"),
    ({name: lambda x: x.nan_to_num().int() for name in ("query", "key_cache", "value_cache")}, "query is torch.int32"),
    (dict(query=lambda q: q[:1]), "1 queries for 2 sequences: several a sequence need query_start_loc"),
    (dict(key_cache=lambda c: c[0], value_cache=lambda c: c[0]), r"must both be .* got \(16, 2, 8\) torch.float32"),
    (dict(value_cache=lambda c: c[:, :15]), r"\(6, 16, 2, 8\) torch.float32 and \(6, 15, 2, 8\) torch.float32"),
    (dict(value_cache=lambda c: c.half()), r"\(6, 16, 2, 8\) torch.float32 and \(6, 16, 2, 8\) torch.float16"),
    (dict(block_tables=lambda t: t.long()), r"block_tables must be \[2, 2\] int32, got \(2, 2\) torch.int64"),
    (dict(block_tables=lambda t: t[:1]), r"block_tables must be \[2, 2\] int32, got \(1, 2\)"),
    (dict(block_tables=lambda t: t[:, 0]), r"block_tables must be .* int32, got \(2,\)"),
    (dict(block_tables=lambda t: t[0, 0]), r"block_tables must be .* int32, got \(\)"),
    (dict(block_tables=lambda t: int32([[0, -1], [1, -1]])), r"block_tables\[0, 1\] is -1, within the context"),
    (dict(block_tables=lambda t: int32([[0, 2], [6, -1]])), r"block_tables\[1, 0\] is 6, within .* from 0 to 5"),
    (dict(block_tables=lambda t: int32([[0, 2], [-9, -1]])), r"block_tables\[1, 0\] is -9, within"),
    (dict(block_tables=lambda t: t[:, :1]), "a context of 20: its table of 1 blocks of 16 holds 0 to 16"),
    (dict(context_lens=lambda c: c.long()), r"context_lens must be \[2\] int32, got \(2,\) torch.int64"),
    (dict(context_lens=lambda c: c[:, None]), r"context_lens must be \[2\] int32, got \(2, 1\)"),
    (dict(context_lens=lambda c: int32([20, 33])), "sequence 1 has a context of 33: its table of 2 blocks of 16"),
    (dict(context_lens=lambda c: int32([-1, 3])), "sequence 0 has a context of -1: its table"),
    *[({name: lambda x: x.to("meta")}, f"must be on one device: .*{name} on meta") for name in
      ("query", "key_cache", "value_cache", "block_tables", "context_lens")],
]  # fmt: skip


@BOTH
@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_cannot_be_attended_to_is_refused(changes, said, function):
    arguments = make_problem(0, [20, 3], 4, 2, 8, 16, spare_entries=0).arguments()
    function(**arguments)
    spoiled = {name: changes.get(name, lambda x: x)(tensor) for name, tensor in arguments.items()}
    with pytest.raises(ValueError, match=said):
        function(**spoiled)


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_a_prefill_refuses_the_same(changes, said):
    if "for 2 sequences" in said:
        said = r"query_start_loc \[0, 1, 2\] must rise from 0 to the number of queries, 1"
    arguments = make_problem(0, [20, 3], 4, 2, 8, 16, spare_entries=0, query_lens=[1, 1]).arguments()
    spoiled = {name: changes.get(name, lambda x: x)(tensor) for name, tensor in arguments.items()}
    with pytest.raises(ValueError, match=said):
        paged_attention(**spoiled)


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        (int32([0, 5]), r"query_start_loc must be \[3\] int32, got \(2,\)"),
        (int32([0, 2, 5, 5]), r"query_start_loc must be \[3\] int32, got \(4,\)"),
        (int32([[0, 2, 5]]), r"query_start_loc must be \[3\] int32, got \(1, 3\)"),
        (torch.tensor([0, 2, 5]), r"query_start_loc must be \[3\] int32, got \(3,\) torch.int64"),
        (int32([1, 2, 5]), r"query_start_loc \[1, 2, 5\] must rise from 0 to the number of queries, 5"),
        (int32([0, 2, 4]), r"query_start_loc \[0, 2, 4\] must rise"),
        (int32([0, 2, 6]), r"query_start_loc \[0, 2, 6\] must rise"),
        (int32([0, 6, 5]), r"query_start_loc \[0, 6, 5\] must rise"),
        (int32([0, -1, 5]), r"query_start_loc \[0, -1, 5\] must rise"),
        (int32([0, 1, 5]), "sequence 1 has 4 queries and a context of 3: they are its end"),
        (int32([0, 2, 5], device="meta"), "must be on one device: .*query_start_loc on meta"),
    ],
)  # fmt: skip
def test_starts_that_do_not_divide_the_queries_are_refused(starts, said):
    problem = make_problem(0, [20, 3], 4, 2, 8, 16, query_lens=[2, 3])
    paged_attention(**problem.arguments())
    with pytest.raises(ValueError, match=said):
        paged_attention(**replace(problem, query_start_loc=starts).arguments())


def test_a_query_without_a_context_is_refused_in_a_prefill():
    problem = make_problem(0, [20, 3], 4, 2, 8, 16, query_lens=[2, 1])
    with pytest.raises(ValueError, match="sequence 1 has 1 queries and a context of 0"):
        paged_attention(**replace(problem, context_lens=int32([20, 0])).arguments())


def test_the_caches_are_left_alone_when_one_of_several_copies_is_impossible():
    caches = [torch.arange(12.0).reshape(3, 4, 1, 1) for _ in range(2)]
    with pytest.raises(ValueError, match="there is no block 9: the cache has 3"):
        copy_blocks(*caches, [(0, 1), (0, 9)])
    assert all(torch.equal(cache, torch.arange(12.0).reshape(3, 4, 1, 1)) for cache in caches)


def test_a_cache_that_cannot_be_written_in_place_is_refused_before_anything_is_written():
    key_cache, value_cache = torch.zeros(3, 2, 1, 1), torch.zeros(2, 3, 1, 1).transpose(0, 1)
    with pytest.raises(ValueError, match="value_cache .* is not contiguous"):
        write_kv(torch.ones(1, 1, 1), torch.ones(1, 1, 1), key_cache, value_cache, torch.tensor([0]))
    assert not key_cache.any()


def test_a_single_length_is_no_batch():
    with pytest.raises(ValueError, match="context_lens must be"):
        paged_attention(
            torch.zeros(1, 1, 4), torch.zeros(2, 2, 1, 4), torch.zeros(2, 2, 1, 4),
            torch.zeros(1, 1, dtype=torch.int32), torch.tensor(1, dtype=torch.int32),
        )  # fmt: skip
