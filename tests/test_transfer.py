"""Blocks that move from one engine to another."""

import pytest
import torch

from course_lib.memory import OutOfBlocks
from course_lib.serving import LLMEngine, SamplingParams
from course_lib.serving.transfer import send_prefix
from course_lib.teaching.clinic.parrot import healthy_speech, parrot

PROMPT = "kim has a new red lamp and a chair in the garden joe likes milk and fay likes red tea"


def make(num_blocks=32, block_size=4, caching=True):
    slot = 2 * 4 * 48 * 4
    return LLMEngine(
        *parrot(),
        kv_cache_bytes=num_blocks * block_size * slot,
        block_size=block_size,
        max_model_len=num_blocks * block_size,
        enable_prefix_caching=caching,
    )


def test_what_was_computed_here_is_answered_there():
    prefill, decode = make(), make(num_blocks=20)
    prompt = prefill.encode(PROMPT)
    prefill.generate([prompt], SamplingParams(max_tokens=1))
    crowd = decode.generate(["eve wants old water from the big blue river"], SamplingParams(max_tokens=9))
    assert (
        crowd[0].num_cached_tokens == 0
    )  # the ids of the two pools have nothing to do with each other by now
    moved = send_prefix(prefill, decode, prompt)
    cached = (len(prompt) - 1) // 4 * 4
    assert moved == cached * 2 * 4 * 48 * 4
    output = decode.generate([prompt], SamplingParams(max_tokens=20))[0]
    assert output.num_cached_tokens == cached
    assert output.outputs[0].text == healthy_speech(PROMPT, 20)
    for engine in (prefill, decode):
        engine.allocator.pool.check(live=[])
        assert engine.allocator.pool.num_free == engine.allocator.pool.num_blocks


def test_the_receiver_reads_what_was_sent():
    """If the contents did not move, the answer would be another."""
    prefill, decode = make(), make()
    prompt = prefill.encode(PROMPT)
    prefill.generate([prompt], SamplingParams(max_tokens=1))
    send_prefix(prefill, decode, prompt)
    decode.store.values.zero_()
    output = decode.generate([prompt], SamplingParams(max_tokens=20))[0]
    assert output.outputs[0].text != healthy_speech(PROMPT, 20)


def test_nothing_cached_nothing_sent():
    prefill, decode = make(), make()
    before = decode.store.keys.clone()
    assert send_prefix(prefill, decode, prefill.encode(PROMPT)) == 0
    assert torch.equal(decode.store.keys, before) and decode.allocator.pool.num_cached == 0


def test_a_full_receiver_changes_nothing():
    prefill, decode = make(), make(num_blocks=3)
    prompt = prefill.encode(PROMPT)
    prefill.generate([prompt], SamplingParams(max_tokens=1))
    with pytest.raises(OutOfBlocks):
        send_prefix(prefill, decode, prompt)
    assert decode.allocator.pool.num_free == 3
    prefill.allocator.pool.check(live=[])


def test_caches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit into blocks"):
        send_prefix(make(), make(block_size=8), [1, 2, 3])
    with pytest.raises(ValueError, match="both engines need enable_prefix_caching"):
        send_prefix(make(), make(caching=False), [1, 2, 3])
