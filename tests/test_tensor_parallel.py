"""Several processes, one block table: the same tokens as one process."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.serving import LLMEngine, SamplingParams, load_model
from course_lib.serving.tensor_parallel import launch, shard_config, shard_tensors, split
from course_lib.serving.weights import read_config, read_tensors

PROMPTS = ["a", "a"]


@given(st.integers(1, 200), st.integers(1, 16))
def test_split_shares_out_everything_once_and_evenly(count, parts):
    if parts > count:
        with pytest.raises(ValueError, match=f"{count} cannot be divided among {parts} ranks"):
            split(count, parts)
        return
    runs = split(count, parts)
    assert [thing for run in runs for thing in run] == list(range(count))
    assert max(map(len, runs)) - min(map(len, runs)) <= 1


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_shares_of_all_ranks_make_up_the_model(tiny, world_size):
    folder, _ = tiny
    config = read_config(folder)
    tensors = read_tensors(folder, torch.device("cpu"), torch.float32)
    shares = [shard_tensors(config, tensors, rank, world_size) for rank in range(world_size)]
    configs = [shard_config(config, rank, world_size) for rank in range(world_size)]
    assert sum(each.num_kv_heads for each in configs) == config.num_kv_heads
    assert sum(each.intermediate_size for each in configs) == config.intermediate_size
    for name, whole in tensors.items():
        parts = [share[name] for share in shares]
        if name.endswith(
            ("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")
        ):
            assert torch.equal(torch.cat(parts), whole), name
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            assert torch.equal(torch.cat(parts, dim=1), whole), name
        else:
            assert all(torch.equal(part, whole) for part in parts), name


def test_a_rank_has_the_queries_of_its_own_kv_heads(tiny):
    folder, _ = tiny
    config = read_config(folder)
    for rank in range(2):
        share = shard_config(config, rank, 2)
        assert share.num_query_heads == share.num_kv_heads * 3  # 6 query heads, 2 KV heads


def test_two_processes_say_what_one_says(tiny):
    folder, _ = tiny
    report = launch(PROMPTS, num_ranks=2, max_tokens=20, num_blocks=16, block_size=4, name=str(folder))
    model, tokenizer = load_model(str(folder))
    engine = LLMEngine(model, tokenizer, kv_cache_bytes=2**20, block_size=4, max_model_len=64)
    alone = engine.generate(PROMPTS, SamplingParams(max_tokens=20))
    assert report.token_ids == [output.outputs[0].token_ids for output in alone]
    assert report.kv_heads == [1, 1]
    slot = 2 * 3 * 1 * 8 * 4  # K and V, 3 layers, 1 head of 8 numbers, 4 bytes
    assert report.kv_cache_bytes == [16 * 4 * slot] * 2
    assert report.last_tables[0] == report.last_tables[1], "block ids mean the same on every rank"
    assert len(report.last_tables[0]) == 2 and report.last_tables[0][0] != report.last_tables[0][1]


def test_more_ranks_than_kv_heads_are_refused_with_the_numbers(tiny):
    folder, _ = tiny
    with pytest.raises(RuntimeError, match="2 cannot be divided among 3 ranks"):
        launch(PROMPTS, num_ranks=3, max_tokens=2, name=str(folder))
