"""Exercises of 01_kv_cache: the size of the cache, appending to it, decoding with it, what fits."""

import math

import torch

from course_lib.teaching.check import Exercise, Mistake

# -- kv_bytes -----------------------------------------------------------------------------------------------


def kv_bytes(num_layers, num_query_heads, num_kv_heads, head_dim, bytes_per_number):
    """Bytes that one token leaves in the KV cache of the whole model."""
    return 2 * num_layers * num_kv_heads * head_dim * bytes_per_number


KV_BYTES = Exercise(
    name="kv_bytes",
    minutes=3,
    difficulty="easy",
    proves="MHA, GQA and MQA are one formula: only the number of KV heads differs.",
    solution=kv_bytes,
    cases=lambda: [
        # OPT-13B (MHA), SmolLM2 (GQA), Falcon-7B (MQA), and 8-bit keys and values
        dict(num_layers=40, num_query_heads=40, num_kv_heads=40, head_dim=128, bytes_per_number=2),
        dict(num_layers=30, num_query_heads=9, num_kv_heads=3, head_dim=64, bytes_per_number=4),
        dict(num_layers=32, num_query_heads=71, num_kv_heads=1, head_dim=64, bytes_per_number=2),
        dict(num_layers=80, num_query_heads=64, num_kv_heads=8, head_dim=128, bytes_per_number=1),
    ],
    mistakes=(
        Mistake(
            "half of the right number",
            "a token leaves a key and a value",
            lambda num_layers, num_query_heads, num_kv_heads, head_dim, bytes_per_number: (
                num_layers * num_kv_heads * head_dim * bytes_per_number
            ),
        ),
        Mistake(
            "right for MHA, too much for GQA and MQA",
            "query heads keep nothing: which heads have keys and values?",
            lambda num_layers, num_query_heads, num_kv_heads, head_dim, bytes_per_number: (
                2 * num_layers * num_query_heads * head_dim * bytes_per_number
            ),
        ),
        Mistake(
            "that is one layer's share",
            "every layer has keys and values of its own",
            lambda num_layers, num_query_heads, num_kv_heads, head_dim, bytes_per_number: (
                2 * num_kv_heads * head_dim * bytes_per_number
            ),
        ),
        Mistake(
            "that counts numbers, not bytes",
            "how many bytes does one number take?",
            lambda num_layers, num_query_heads, num_kv_heads, head_dim, bytes_per_number: (
                2 * num_layers * num_kv_heads * head_dim
            ),
        ),
        Mistake(
            "that is in KiB",
            "the answer is asked for in bytes: nothing to divide by",
            lambda num_layers, num_query_heads, num_kv_heads, head_dim, bytes_per_number: (
                2 * num_layers * num_kv_heads * head_dim * bytes_per_number / 1024
            ),
        ),
        Mistake(
            "that is one head's share",
            "a layer keeps a key and a value for each KV head",
            lambda num_layers, num_query_heads, num_kv_heads, head_dim, bytes_per_number: (
                2 * num_layers * head_dim * bytes_per_number
            ),
        ),
    ),
    hints=(
        "Count what one token leaves behind: in one head first, then in one layer, then in the model.",
        "K and V  x  layers  x  KV heads  x  numbers in a head  x  bytes of a number",
        "return 2 * num_layers * num_kv_heads * head_dim * bytes_per_number",
    ),
    look_at="the five factors: K and V, layers, KV heads, head_dim, bytes",
)

# -- append_kv ----------------------------------------------------------------------------------------------


def append_kv(keys, values, length, new_key, new_value):
    """Write T new keys and values after the first `length` slots of a slab; return the new length."""
    end = length + len(new_key)
    keys[length:end] = new_key
    values[length:end] = new_value
    return end


def _append_at_start(keys, values, length, new_key, new_value):
    keys[: len(new_key)], values[: len(new_key)] = new_key, new_value
    return length + len(new_key)


def _append_one_early(keys, values, length, new_key, new_value):
    start = max(length - 1, 0)
    keys[start : start + len(new_key)], values[start : start + len(new_key)] = new_key, new_value
    return length + len(new_key)


def _append_first_only(keys, values, length, new_key, new_value):
    keys[length], values[length] = new_key[0], new_value[0]
    return length + 1


def _append_key_twice(keys, values, length, new_key, new_value):
    end = length + len(new_key)
    keys[length:end], values[length:end] = new_key, new_key
    return end


def _append_keys_only(keys, values, length, new_key, new_value):
    keys[length : length + len(new_key)] = new_key
    return length + len(new_key)


def _append_old_length(keys, values, length, new_key, new_value):
    append_kv(keys, values, length, new_key, new_value)
    return length


def _append_counts_new(keys, values, length, new_key, new_value):
    append_kv(keys, values, length, new_key, new_value)
    return len(new_key)


def _append_nowhere(keys, values, length, new_key, new_value):
    return length + len(new_key)


def _append_cases():
    make = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(*shape, generator=make)

    return [
        # a prompt into an empty slab, a token after it, a chunk that ends at the last slot
        dict(
            keys=torch.zeros(8, 2, 4), values=torch.zeros(8, 2, 4), length=length,
            new_key=random(count, 2, 4), new_value=random(count, 2, 4),
        )
        for length, count in [(0, 3), (3, 1), (4, 4)]
    ]  # fmt: skip


APPEND_KV = Exercise(
    name="append_kv",
    minutes=5,
    difficulty="easy",
    proves="appending to a slab copies the new tokens only, never the old ones.",
    solution=append_kv,
    cases=_append_cases,
    mistakes=(
        Mistake(
            "the new tokens landed at the start of the slab",
            "slots 0 .. length - 1 are taken",
            _append_at_start,
        ),
        Mistake(
            "off by one: it overwrites the last token", "which slot is the first free one?", _append_one_early
        ),
        Mistake(
            "only the first of the new tokens arrived",
            "a prompt brings many tokens at once",
            _append_first_only,
        ),
        Mistake("values hold the keys", "the second assignment", _append_key_twice),
        Mistake("the values were never written", "keys and values both move in", _append_keys_only),
        Mistake(
            "it returns how many tokens are new",
            "return the new length: old plus len(new_key)",
            _append_counts_new,
        ),
        Mistake(
            "the length did not grow", "return the new length: old plus len(new_key)", _append_old_length
        ),
        Mistake(
            "the slab is as it was: nothing was written into it",
            "`keys = torch.cat(...)` makes a new tensor; `keys[a:b] = ...` writes into this one",
            _append_nowhere,
        ),
    ),
    hints=(
        "The first `length` slots are taken. Where do T more go, and where do they end?",
        "end = length + number of new tokens\n"
        "slots length .. end - 1 of keys, and of values, take the new ones\nreturn end",
        "end = length + len(new_key)\nkeys[length:end] = new_key\nvalues[length:end] = new_value\nreturn end",
    ),
    look_at="slots length .. length + T - 1, in keys and in values",
    may_change=frozenset({"keys", "values"}),
)

# -- decode_step --------------------------------------------------------------------------------------------


def decode_step(query, new_key, new_value, keys, values, length):
    """Append one token to a slab and attend to everything in it: [Hq, D] -> [Hq, D]."""
    keys[length], values[length] = new_key, new_value
    group = query.shape[0] // keys.shape[1]  # query heads that share one KV head
    seen_keys = keys[: length + 1].repeat_interleave(group, dim=1)  # [S, Hq, D]
    seen_values = values[: length + 1].repeat_interleave(group, dim=1)
    scores = torch.einsum("hd,shd->hs", query, seen_keys) / query.shape[1] ** 0.5
    return torch.einsum("hs,shd->hd", scores.softmax(dim=-1), seen_values)


def _attend(query, keys, values, scale=None, head_map=None, softmax_dim=-1):
    num_query_heads, head_dim = query.shape
    group = num_query_heads // keys.shape[1]
    heads = torch.arange(num_query_heads) // group if head_map is None else head_map
    scores = torch.einsum("hd,shd->hs", query, keys[:, heads])  # [Hq, S]
    weights = (scores * (1 / math.sqrt(head_dim) if scale is None else scale)).softmax(dim=softmax_dim)
    return torch.einsum("hs,shd->hd", weights, values[:, heads])


def _decode_whole_slab(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    return _attend(query, keys, values)


def _decode_without_itself(query, new_key, new_value, keys, values, length):
    out = _attend(query, keys[:length], values[:length])
    keys[length], values[length] = new_key, new_value
    return out


def _decode_unscaled(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    return _attend(query, keys[: length + 1], values[: length + 1], scale=1.0)


def _decode_wrong_scale(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    return _attend(query, keys[: length + 1], values[: length + 1], scale=1 / query.shape[-1])


def _decode_interleaved_heads(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    heads = torch.arange(len(query)) % keys.shape[1]
    return _attend(query, keys[: length + 1], values[: length + 1], head_map=heads)


def _decode_no_softmax(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    heads = torch.arange(len(query)) // (len(query) // keys.shape[1])
    scores = torch.einsum("hd,shd->hs", query, keys[: length + 1, heads]) / math.sqrt(query.shape[-1])
    return torch.einsum("hs,shd->hd", scores, values[: length + 1, heads])


def _decode_softmax_over_heads(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    return _attend(query, keys[: length + 1], values[: length + 1], softmax_dim=0)


def _decode_mixes_keys(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    return _attend(query, keys[: length + 1], keys[: length + 1])


def _decode_never_writes(query, new_key, new_value, keys, values, length):
    return _attend(query, keys[: length + 1], values[: length + 1])


def _decode_overwrites_last(query, new_key, new_value, keys, values, length):
    keys[length - 1], values[length - 1] = new_key, new_value
    return _attend(query, keys[:length], values[:length])


def _decode_unwritten(query, new_key, new_value, keys, values, length):
    return decode_step(query, new_key, new_value, keys.clone(), values.clone(), length)


def _decode_cases():
    make = torch.Generator().manual_seed(2)

    def random(*shape):
        return torch.randn(*shape, generator=make)

    cases = []
    for num_query_heads, num_kv_heads, length in [(4, 4, 5), (6, 2, 3), (4, 1, 1)]:
        keys, values = (
            random(8, num_kv_heads, 16),
            random(8, num_kv_heads, 16),
        )  # full: an earlier request's, too
        cases.append(
            dict(
                query=3 * random(num_query_heads, 16), new_key=random(num_kv_heads, 16),
                new_value=random(num_kv_heads, 16), keys=keys, values=values, length=length,
            )
        )  # fmt: skip
    return cases


DECODE_STEP = Exercise(
    name="decode_step",
    minutes=10,
    difficulty="medium",
    proves="one token in, one pass over the cache, no matter how the prompt came in.",
    solution=decode_step,
    cases=_decode_cases,
    mistakes=(
        Mistake(
            "it reads slots that no token of this request has written",
            "only the first length + 1 slots are yours: the rest is stale",
            _decode_whole_slab,
        ),
        Mistake(
            "the token does not see itself",
            "write the new key and value first, then read length + 1 slots",
            _decode_without_itself,
        ),
        Mistake("the scores are not scaled", "divide by sqrt(head_dim) before the softmax", _decode_unscaled),
        Mistake("the scores are scaled by 1 / D", "the scale is 1 / sqrt(head_dim)", _decode_wrong_scale),
        Mistake(
            "right without groups, wrong with GQA",
            "query heads 0 .. G-1 share KV head 0: h // G, not h % num_kv_heads",
            _decode_interleaved_heads,
        ),
        Mistake("the weights do not add up to 1", "a softmax over the slots is missing", _decode_no_softmax),
        Mistake(
            "the softmax runs over the heads",
            "the weights of one head, over its slots, add up to 1",
            _decode_softmax_over_heads,
        ),
        Mistake(
            "it mixes keys",
            "the weights come from the keys, what they mix are the values",
            _decode_mixes_keys,
        ),
        Mistake(
            "the new token never reaches the slab",
            "write new_key and new_value into slot `length` first",
            _decode_never_writes,
        ),
        Mistake(
            "it overwrites the last token",
            "slots 0 .. length - 1 are taken; the first free one is `length`",
            _decode_overwrites_last,
        ),
        Mistake(
            "the output is right, but the token is not in the cache for the next step",
            "write new_key and new_value into slot `length` of the slab itself",
            _decode_unwritten,
        ),
    ),
    hints=(
        "Two halves: put the token into slot `length`, then attend with `query` to the first length + 1 slots.",
        "keys[length], values[length] = new_key, new_value\n"
        "K, V = the first length + 1 slots, each KV head repeated for its group of query heads\n"
        "weights = softmax(query . K / sqrt(D)) over the slots\nreturn weights . V",
        "keys[length], values[length] = new_key, new_value\n"
        "return attention(query[None], keys[: length + 1], values[: length + 1])[0]",
    ),
    look_at="which slots are read, the scale, and which KV head each query head uses",
    may_change=frozenset({"keys", "values"}),
    tolerance=1e-4,
)

# -- requests_that_fit --------------------------------------------------------------------------------------


def requests_that_fit(gpu_bytes, weight_bytes, bytes_per_token, context_len):
    """Whole requests of `context_len` tokens whose KV cache fits beside the weights."""
    return max(0, gpu_bytes - weight_bytes) // (bytes_per_token * context_len)


REQUESTS_THAT_FIT = Exercise(
    name="requests_that_fit",
    minutes=4,
    difficulty="easy",
    proves="with long contexts memory bounds the batch, long before arithmetic does.",
    solution=requests_that_fit,
    cases=lambda: [
        # 13 GB of weights on 80 GB at 32K (MHA, then GQA), at 2K, a model that does not fit, SmolLM2 in 2 GB
        dict(gpu_bytes=80 * 10**9, weight_bytes=13 * 10**9, bytes_per_token=524_288, context_len=32_768),
        dict(gpu_bytes=80 * 10**9, weight_bytes=13 * 10**9, bytes_per_token=131_072, context_len=32_768),
        dict(gpu_bytes=80 * 10**9, weight_bytes=13 * 10**9, bytes_per_token=524_288, context_len=2_048),
        dict(gpu_bytes=24 * 10**9, weight_bytes=26 * 10**9, bytes_per_token=819_200, context_len=2_048),
        dict(gpu_bytes=2 * 10**9, weight_bytes=538_000_000, bytes_per_token=46_080, context_len=1_000),
    ],
    mistakes=(
        Mistake(
            "the weights are forgotten",
            "the cache only gets what the weights leave over",
            lambda gpu_bytes, weight_bytes, bytes_per_token, context_len: (
                gpu_bytes // (bytes_per_token * context_len)
            ),
        ),
        Mistake(
            "rounded up",
            "a request that half fits does not fit: round down",
            lambda gpu_bytes, weight_bytes, bytes_per_token, context_len: math.ceil(
                max(0, gpu_bytes - weight_bytes) / (bytes_per_token * context_len)
            ),
        ),
        Mistake(
            "a negative number of requests",
            "when the weights alone do not fit, nothing does: 0",
            lambda gpu_bytes, weight_bytes, bytes_per_token, context_len: (
                (gpu_bytes - weight_bytes) // (bytes_per_token * context_len)
            ),
        ),
        Mistake(
            "a negative number of requests",
            "when the weights alone do not fit, nothing does: 0",
            lambda gpu_bytes, weight_bytes, bytes_per_token, context_len: int(
                (gpu_bytes - weight_bytes) / (bytes_per_token * context_len)
            ),
        ),
        Mistake(
            "rounded to nearest",
            "a request that half fits does not fit: round down",
            lambda gpu_bytes, weight_bytes, bytes_per_token, context_len: max(
                0, round((gpu_bytes - weight_bytes) / (bytes_per_token * context_len))
            ),
        ),
        Mistake(
            "a tenth of the memory is held back",
            "the exercise gives all of it to weights and cache; the calculator keeps 10%, as real engines do",
            lambda gpu_bytes, weight_bytes, bytes_per_token, context_len: (
                max(0, gpu_bytes * 9 // 10 - weight_bytes) // (bytes_per_token * context_len)
            ),
        ),
        Mistake(
            "that counts tokens, not requests",
            "a request needs context_len tokens",
            lambda gpu_bytes, weight_bytes, bytes_per_token, context_len: (
                max(0, gpu_bytes - weight_bytes) // bytes_per_token
            ),
        ),
        Mistake(
            "the weights are counted once for each request",
            "all requests of a batch share one copy of the weights",
            lambda gpu_bytes, weight_bytes, bytes_per_token, context_len: (
                gpu_bytes // (weight_bytes + bytes_per_token * context_len)
            ),
        ),
    ),
    hints=(
        "First what is left beside the weights, then what one request takes of it.",
        "room = GPU - weights, but not below 0\none request = bytes per token x tokens\n"
        "return how often it fits, rounded down",
        "return max(0, gpu_bytes - weight_bytes) // (bytes_per_token * context_len)",
    ),
    look_at="room beside the weights, divided by the bytes of one request, rounded down",
)

EXERCISES = [APPEND_KV, DECODE_STEP, KV_BYTES, REQUESTS_THAT_FIT]  # as the notebook asks them
