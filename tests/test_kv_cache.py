"""The caches against dense attention, in mixed steps of prompts and single tokens."""

import pytest
import torch

from course_lib.attention import attention
from course_lib.memory import OutOfBlocks
from course_lib.serving import ContiguousCache, GrowingCache, NoCache, PagedCache, greedy, greedy_steps
from course_lib.serving.kv_cache import plan_runs, positions_of
from course_lib.serving.model import LlamaConfig

CONFIG = LlamaConfig(
    num_layers=2,
    hidden_size=0,
    intermediate_size=0,
    num_query_heads=6,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=0,
    max_position=64,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
)


class Reference:
    """Every key and value ever given, and dense attention in fp64 over them."""

    def __init__(self):
        self.seen = {}

    def attend(self, layer, runs, query, key, value):
        out = []
        for sequence, start, stop in runs:
            old = self.seen.get((sequence, layer), (key[:0], value[:0]))
            both = torch.cat([old[0], key[start:stop]]), torch.cat([old[1], value[start:stop]])
            self.seen[sequence, layer] = both
            out.append(attention(query[start:stop].double(), both[0].double(), both[1].double()))
        return torch.cat(out)


STEPS = [{2: 5, 0: 1}, {0: 1, 2: 1}, {1: 4, 2: 1, 0: 3}, {2: 1, 3: 1}, {0: 1, 1: 1, 2: 1, 3: 1}, {3: 2, 1: 1}]


@pytest.mark.parametrize(
    "make",
    [GrowingCache, lambda: ContiguousCache(CONFIG, 4, 16), lambda: PagedCache(CONFIG, 20, block_size=5)],
    ids=["growing", "contiguous", "paged"],
)
def test_every_mix_of_prompts_and_decodes_equals_dense_attention(make):
    torch.manual_seed(0)
    cache, reference = make(), Reference()
    earlier = torch.full((64, 6, 8), torch.nan)  # requests that went wrong and filled every slab with NaN
    cache.begin_step(dict.fromkeys(range(4), 16))
    for layer in range(2):
        cache.attend(layer, earlier, earlier[:, :2], earlier[:, :2])
    for sequence in range(4):
        cache.free(sequence)
    for step in STEPS:
        before = {sequence: cache.length(sequence) for sequence in step}
        positions = cache.begin_step(step)
        assert positions.tolist() == [
            before[s] + offset for s, count in step.items() for offset in range(count)
        ]
        total, runs, start = sum(step.values()), [], 0
        for sequence, count in step.items():
            runs.append((sequence, start, start + count))
            start += count
        for layer in range(2):
            query = 3 * torch.randn(total, 6, 8)
            key, value = torch.randn(total, 2, 8), torch.randn(total, 2, 8)
            expected = reference.attend(layer, runs, query, key, value)
            torch.testing.assert_close(
                cache.attend(layer, query, key, value).double(), expected, rtol=1e-4, atol=1e-5
            )


def test_no_cache_forgets_everything_between_steps():
    cache = NoCache()
    cache.begin_step({0: 4})
    assert cache.length(0) == 0
    assert cache.begin_step({0: 5}).tolist() == [0, 1, 2, 3, 4]


def test_no_cache_keeps_sequences_apart():
    torch.manual_seed(0)
    cache, query, kv = NoCache(), torch.randn(7, 6, 8), torch.randn(2, 7, 2, 8)
    cache.begin_step({0: 3, 1: 4})
    out = cache.attend(0, query, *kv)
    torch.testing.assert_close(out[:3], attention(query[:3], kv[0, :3], kv[1, :3]))
    torch.testing.assert_close(out[3:], attention(query[3:], kv[0, 3:], kv[1, 3:]))


def test_a_slab_that_is_too_short_is_refused_and_nothing_changes():
    cache = ContiguousCache(CONFIG, 2, 8)
    cache.begin_step({0: 6, 1: 2})
    with pytest.raises(
        ValueError, match=r"sequence 0 needs 9 slots, its slab has 8: free it or .* larger max_len"
    ):
        cache.begin_step({1: 1, 0: 3})
    assert (cache.length(0), cache.length(1)) == (6, 2)


@pytest.mark.parametrize("sequence", [-1, 2])
def test_a_sequence_without_a_slab_is_refused(sequence):
    with pytest.raises(ValueError, match=f"sequence {sequence} has no slab"):
        ContiguousCache(CONFIG, 2, 8).begin_step({sequence: 1})


def test_a_freed_slab_serves_its_next_owner_only():
    torch.manual_seed(0)
    cache = ContiguousCache(CONFIG, 1, 8)
    cache.begin_step({0: 6})
    cache.attend(0, torch.randn(6, 6, 8), torch.randn(6, 2, 8), torch.randn(6, 2, 8))
    cache.free(0)
    assert cache.num_bytes_used == 0
    query, key, value = torch.randn(2, 6, 8), torch.randn(2, 2, 8), torch.randn(2, 2, 8)
    assert cache.begin_step({0: 2}).tolist() == [0, 1]
    torch.testing.assert_close(cache.attend(0, query, key, value), attention(query, key, value))


def test_bytes_are_counted_for_keys_and_values_of_all_layers():
    slabs, growing = ContiguousCache(CONFIG, 3, 10), GrowingCache()
    assert slabs.num_bytes == 2 * 2 * 3 * 10 * 2 * 8 * 4
    slabs.begin_step({0: 4, 2: 1})
    assert slabs.num_bytes_used == 2 * 2 * 5 * 2 * 8 * 4
    growing.begin_step({0: 5})
    for layer in range(2):
        growing.attend(layer, torch.randn(5, 6, 8), torch.randn(5, 2, 8), torch.randn(5, 2, 8))
    assert growing.num_bytes == slabs.num_bytes_used
    growing.free(0)
    assert (growing.num_bytes, growing.length(0)) == (0, 0)


def test_a_growing_cache_does_not_hold_on_to_the_batch():
    """A slice of the flat batch would keep the whole batch's keys alive, and change when the caller reuses it."""
    cache, key = GrowingCache(), torch.randn(5, 2, 8)
    cache.begin_step({0: 2, 1: 3})
    cache.attend(0, torch.randn(5, 6, 8), key, torch.randn(5, 2, 8))
    kept = cache.keys[0, 0].clone()
    key.zero_()
    assert torch.equal(cache.keys[0, 0], kept)


def test_runs_refuse_a_sequence_without_tokens():
    with pytest.raises(ValueError, match="sequence 4 brings 0 tokens"):
        plan_runs({4: 0}, {})


def test_an_empty_step_is_refused():
    with pytest.raises(ValueError, match="at least one sequence"):
        ContiguousCache(CONFIG, 2, 8).begin_step({})


def test_greedy_refuses_a_cache_that_holds_an_earlier_run(tiny_model):
    """It would feed only the tokens past the old ones, and answer something else without a word."""
    cache = GrowingCache()
    first = greedy(tiny_model, [[5, 9, 2]], cache, 4)
    with pytest.raises(ValueError, match="still holds 6 tokens of sequence 0: free it"):
        greedy(tiny_model, [[5, 9, 2]], cache, 4)
    cache.free(0)
    assert greedy(tiny_model, [[5, 9, 2]], cache, 4) == first


def test_positions_continue_each_sequence():
    assert positions_of(plan_runs({7: 2, 1: 3}, {7: 10})).tolist() == [10, 11, 0, 1, 2]


@pytest.mark.parametrize(("num_sequences", "max_len"), [(0, 8), (2, 0)])
def test_a_cache_without_slots_is_refused(num_sequences, max_len):
    with pytest.raises(ValueError, match=f"got {num_sequences} of {max_len}"):
        ContiguousCache(CONFIG, num_sequences, max_len)


def test_greedy_stops_each_sequence_at_its_own_stop_token(tiny_model):
    prompts = [[5, 9], [7], [11, 3, 96]]
    free = greedy(tiny_model, prompts, GrowingCache(), 12)
    stop = free[1][3]  # some token that sequence 1 writes as its fourth
    stopped = greedy(tiny_model, prompts, ContiguousCache(tiny_model.config, 3, 20), 12, {stop})
    for whole, part in zip(free, stopped, strict=True):
        assert part == (whole[: whole.index(stop)] if stop in whole else whole)


def test_greedy_feeds_one_token_a_step_after_the_prompt(tiny_model):
    cache, lengths = GrowingCache(), []
    for _ in greedy_steps(tiny_model, [[5, 9, 2]], cache, 4):
        lengths.append(cache.length(0))
    assert lengths == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("prompts", "max_tokens", "said"), [([[1], []], 3, "prompt 1 is empty"), ([[1]], 0, "got 0")]
)
def test_greedy_refuses_what_it_cannot_continue(tiny_model, prompts, max_tokens, said):
    with pytest.raises(ValueError, match=said):
        greedy(tiny_model, prompts, NoCache(), max_tokens)


# -- blocks ---------------------------------------------------------------------------------------------------


def step(cache, new_tokens, seed):
    """One step of both layers with random numbers; returns the last layer's output."""
    make, total = torch.Generator().manual_seed(seed), sum(new_tokens.values())
    cache.begin_step(new_tokens)
    for layer in range(2):
        query = torch.randn(total, 6, 8, generator=make)
        out = cache.attend(layer, query, *torch.randn(2, total, 2, 8, generator=make))
    return out


def test_a_step_that_needs_more_blocks_than_there_are_changes_nothing():
    cache = PagedCache(CONFIG, num_blocks=3, block_size=4)
    step(cache, {0: 4, 1: 3}, seed=0)
    with pytest.raises(OutOfBlocks, match="needs 2 blocks, 1 free of 3"):
        cache.begin_step({0: 1, 1: 2, 2: 1} | {1: 1})
    assert (cache.length(0), cache.length(1), cache.length(2)) == (4, 3, 0) and cache.pool.num_free == 1
    cache.begin_step({0: 1, 1: 1})
    assert cache.pool.num_free == 0


def test_a_fork_shares_blocks_and_continues_as_if_it_had_its_own():
    cache, alone = PagedCache(CONFIG, 12, block_size=4), GrowingCache()
    for each in (cache, alone):
        step(each, {0: 6}, seed=0)
    cache.fork(0, 1)
    assert cache.pool.num_free == 10 and cache.num_bytes_used == 6 * 2 * 2 * 2 * 8 * 4
    for key in (alone.keys, alone.values):  # a copy of sequence 0, the slow way
        for layer in range(2):
            key[1, layer] = key[0, layer].clone()
    alone.lengths[1] = 6
    for seed, new_tokens in enumerate([{0: 1, 1: 1}, {1: 3}, {0: 2, 1: 1}], start=1):
        torch.testing.assert_close(step(cache, new_tokens, seed), step(alone, new_tokens, seed))
    assert cache.tables[0].block_ids[0] == cache.tables[1].block_ids[0], "the full block stays shared"


def test_of_two_forks_that_write_in_one_step_only_one_is_copied():
    cache = PagedCache(CONFIG, num_blocks=2, block_size=4)
    step(cache, {0: 3}, seed=0)
    cache.fork(0, 1)
    cache.begin_step({0: 1, 1: 1})  # one free block is enough
    assert sorted(table.block_ids for table in cache.tables.values()) == [[0], [1]]


def test_forks_need_a_parent_and_a_name_of_their_own():
    cache = PagedCache(CONFIG, num_blocks=2, block_size=4)
    cache.begin_step({0: 1})
    for parent, child in [(7, 1), (0, 0)]:
        with pytest.raises(ValueError, match=f"cannot fork {parent} into {child}"):
            cache.fork(parent, child)


def test_blocks_of_a_freed_sequence_serve_others_and_are_not_cleared():
    cache = PagedCache(CONFIG, num_blocks=2, block_size=4)
    step(cache, {0: 8}, seed=0)
    cache.keys.fill_(torch.nan)  # what the first request leaves
    cache.values.fill_(torch.nan)
    cache.free(0)
    assert cache.num_bytes_used == 0 and cache.pool.num_free == 2
    assert not step(cache, {5: 3}, seed=1).isnan().any()
    cache.free(9)  # nobody


def test_paged_bytes_are_those_of_the_pool():
    cache = PagedCache(CONFIG, num_blocks=3, block_size=4)
    assert cache.num_bytes == 2 * 2 * 12 * 2 * 8 * 4
