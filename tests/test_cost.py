"""Counted costs against torch's own FLOP counter and against the paper."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from course_lib.attention import attention
from course_lib.serving.cost import forward_cost, kv_bytes_per_token
from course_lib.serving.model import LlamaConfig
from course_lib.serving.weights import build_model, read_config, read_tensors
from course_lib.teaching.exercises.lesson_01 import requests_that_fit
from course_lib.teaching.presets import Budget, load_presets


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


@pytest.fixture
def plain_model(tiny):
    """The tiny model with plain matrices: torch's counter does not know packed ones."""
    config = read_config(tiny[0])
    return build_model(config, read_tensors(tiny[0], torch.device("cpu"), torch.float32), packs=False)


@pytest.mark.parametrize("context_len", [2, 50])  # at 1 torch replaces the products by a multiply, uncounted
def test_flops_of_a_decode_step_equal_torchs_counter(plain_model, context_len):
    with FlopCounterMode(display=False) as counter:
        hidden = plain_model(torch.tensor([3]), torch.tensor([context_len - 1]), DenseCache(context_len - 1))
        plain_model.logits(hidden[-1:])
    assert forward_cost(plain_model.config, [1], [context_len]).flops == counter.get_total_flops()


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


SMOLLM2 = LlamaConfig(30, 576, 1536, 9, 3, 64, 49_152, 8192, 1e-5, 100_000.0)
LLAMA_8B = LlamaConfig(32, 4096, 14_336, 32, 8, 128, 128_256, 131_072, 1e-5, 500_000.0)


def decode_intensity(config, batch, context):
    return forward_cost(config, [1] * batch, [context] * batch, bytes_per_number=2).intensity


def test_the_numbers_in_the_prose_of_notebook_01():
    """Each figure that the text states without a cell of its own."""
    models, gpus = load_presets()
    h100 = gpus["NVIDIA H100 SXM 80GB"]
    ridge = h100.fp16_tflops * 1e12 / (h100.bandwidth_gb_s * 1e9)
    assert round(ridge) == 295
    assert round(decode_intensity(SMOLLM2, 10**5, 256)) == 48
    assert round(decode_intensity(SMOLLM2, 10**5, 8192), 1) == 4.4
    assert decode_intensity(LLAMA_8B, 840, 256) < ridge < decode_intensity(LLAMA_8B, 860, 256)
    assert decode_intensity(LLAMA_8B, 10**5, 512) < ridge
    alone = [forward_cost(SMOLLM2, [tokens], [tokens], 2).intensity for tokens in (370, 380)]
    assert alone[0] < ridge < alone[1], "about 375 tokens"
    one, batch = (forward_cost(SMOLLM2, [1] * n, [64] * n).num_bytes for n in (1, 32))
    weights = one - 65 * 46_080
    assert round((batch - weights) / weights, 2) == 0.18
    assert round(weights / 1e6) == 538
    assert round(512 * 46_080 / 1e6) == 24  # what a growing cache copies at 512 tokens
    fits = [
        requests_that_fit(80 * gb, 13 * gb, kib * 1024, 32_768) for gb in (10**9, 2**30) for kib in (512, 128)
    ]
    assert fits == [3, 15, 4, 16]
    llama_70b = models["Llama-3.1-70B"]
    assert [Budget(llama_70b, h100, 8192, 1, 2, n).requests_that_fit for n in (1, 4)] == [0, 54]
    assert Budget(models["OPT-13B"], gpus["NVIDIA A100 40GB"], 2048, 1, 2).requests_that_fit == 6
    assert llama_70b.kv_bytes(1, 2) == 320 * 1024 and round(llama_70b.kv_bytes(8192, 2) / 1e9, 1) == 2.7
    assert 2 * 80 * 64 * 128 * 2 == 2560 * 1024
    assert min(model.kv_bytes(1, 2) for model in models.values()) == 8 * 1024  # notebook 00: "from 8 KiB"
