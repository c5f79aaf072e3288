"""Counted costs against torch's own FLOP counter and against the paper."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from course_lib.attention import attention
from course_lib.serving.cost import forward_cost, kv_bytes_per_token


def test_opt_13b_is_the_papers_800_kib():
    assert kv_bytes_per_token(40, 40, 128, 2) == 819_200 == 800 * 1024


def test_kv_bytes_are_what_the_cache_really_takes(real):
    from course_lib.serving import ContiguousCache

    config = real[0].config
    slab = ContiguousCache(config, 1, 1)
    assert (
        kv_bytes_per_token(config.num_layers, config.num_kv_heads, config.head_dim, 4)
        == slab.num_bytes
        == 46_080
    )


@pytest.mark.parametrize("name", ["num_layers", "num_kv_heads", "head_dim", "bytes_per_number"])
def test_zero_is_refused_by_name(name):
    arguments = dict(num_layers=1, num_kv_heads=1, head_dim=1, bytes_per_number=1)
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        kv_bytes_per_token(**{**arguments, name: 0})


class DenseCache:
    """Decodes and prefills through plain matrix products, which torch's counter sees."""

    def __init__(self, old):
        self.old = old

    def attend(self, layer, query, key, value):
        past = torch.zeros(self.old, *key.shape[1:])
        return attention(query, torch.cat([past, key]), torch.cat([past, value]), causal=False)


@pytest.mark.parametrize("context_len", [2, 50])  # at 1 torch replaces the products by a multiply, uncounted
def test_flops_of_a_decode_step_equal_torchs_counter(tiny_model, context_len):
    with FlopCounterMode(display=False) as counter:
        hidden = tiny_model(torch.tensor([3]), torch.tensor([context_len - 1]), DenseCache(context_len - 1))
        tiny_model.logits(hidden[-1:])
    assert forward_cost(tiny_model.config, [1], [context_len]).flops == counter.get_total_flops()


def test_flops_of_a_prefill_count_the_causal_half_only(tiny_model):
    config = tiny_model.config
    whole = forward_cost(config, [40], [40]).flops
    one_by_one = sum(forward_cost(config, [1], [n]).flops for n in range(1, 41))
    logits = 2 * config.vocab_size * config.hidden_size
    assert whole == one_by_one - 39 * logits


def test_bytes_count_weights_once_whatever_the_batch(tiny_model):
    config = tiny_model.config
    token = kv_bytes_per_token(config.num_layers, config.num_kv_heads, config.head_dim, 4)
    one, eight = (forward_cost(config, [1] * batch, [10] * batch).num_bytes for batch in (1, 8))
    assert eight - one == 7 * (10 + 1) * token  # read ten, write one, for each further sequence
    matrices = sum(w.numel() for layer in tiny_model.layers for w in vars(layer).values() if w.dim() == 2)
    assert one == 4 * (matrices + tiny_model.lm_head.numel()) + 11 * token


@pytest.mark.parametrize(("new", "contexts"), [([1], [1, 2]), ([3], [2]), ([0], [2])])
def test_impossible_steps_are_refused(tiny_model, new, contexts):
    with pytest.raises(ValueError, match="new"):
        forward_cost(tiny_model.config, new, contexts)
