"""Exercises of 04_paged_attention: writing by slot, gathering by table, attention with GQA, and the stale-data leak."""

import torch

from course_lib.teaching.check import Exercise, Mistake

# -- store_kv -------------------------------------------------------------------------------------------------


def store_kv(key, value, key_cache, value_cache, slot_mapping):
    """Write T new keys and values into their slots; a slot of -1 leaves its token out."""
    block_size = key_cache.shape[1]
    for token, slot in enumerate(slot_mapping.tolist()):
        if slot >= 0:
            block, offset = slot // block_size, slot % block_size
            key_cache[block, offset] = key[token]
            value_cache[block, offset] = value[token]


def _store(key, value, key_cache, value_cache, slots):
    for token, slot in enumerate(slots):
        if slot is not None:
            block, offset = divmod(slot, key_cache.shape[1])
            key_cache[block, offset], value_cache[block, offset] = key[token], value[token]


def _store_padding_too(key, value, key_cache, value_cache, slot_mapping):
    last = key_cache.shape[0] * key_cache.shape[1] - 1
    _store(key, value, key_cache, value_cache, [last if s < 0 else s for s in slot_mapping.tolist()])


def _store_in_order(key, value, key_cache, value_cache, slot_mapping):
    slots = [None if s < 0 else token for token, s in enumerate(slot_mapping.tolist())]
    _store(key, value, key_cache, value_cache, slots)


def _store_packed(key, value, key_cache, value_cache, slot_mapping):
    kept = [slot for slot in slot_mapping.tolist() if slot >= 0]
    _store(key, value, key_cache, value_cache, kept)


def _store_block_starts(key, value, key_cache, value_cache, slot_mapping):
    size = key_cache.shape[1]
    slots = [None if s < 0 else s // size * size for s in slot_mapping.tolist()]
    _store(key, value, key_cache, value_cache, slots)


def _store_keys_only(key, value, key_cache, value_cache, slot_mapping):
    store_kv(key, value, key_cache, value_cache.clone(), slot_mapping)


def _store_keys_twice(key, value, key_cache, value_cache, slot_mapping):
    store_kv(key, key, key_cache, value_cache, slot_mapping)


def _store_nowhere(key, value, key_cache, value_cache, slot_mapping):
    return None


def _store_cases():
    make = torch.Generator().manual_seed(4)
    cases = []
    for num_blocks, block_size, slots in [(4, 4, [9, 10, 11, 4]), (3, 5, [14, -1, 0, 7]), (5, 1, [3, 1, -1])]:
        new = torch.randn(2, len(slots), 2, 8, generator=make)
        caches = torch.randn(2, num_blocks, block_size, 2, 8, generator=make)
        cases.append(
            dict(
                key=new[0], value=new[1], key_cache=caches[0].clone(), value_cache=caches[1].clone(),
                slot_mapping=torch.tensor(slots),
            )
        )  # fmt: skip
    return cases


STORE_KV = Exercise(
    name="store_kv",
    minutes=6,
    difficulty="easy",
    proves="the GPU learns where to write from one list of integers, and from nothing else.",
    solution=store_kv,
    cases=_store_cases,
    mistakes=(
        Mistake(
            "padding is written into the last slot",
            "-1 means: leave this token out. cache[-1] is the last one in Python",
            _store_padding_too,
        ),
        Mistake(
            "the tokens lie in their order, and slot_mapping is not asked",
            "token i goes to slot slot_mapping[i], wherever that is",
            _store_in_order,
        ),
        Mistake(
            "after a -1 every token takes the slot of another",
            "leave token and slot out together: the i of key[i] and of slot_mapping[i] is one",
            _store_packed,
        ),
        Mistake(
            "every token lands at the start of its block",
            "the place in the block is slot % block_size",
            _store_block_starts,
        ),
        Mistake(
            "the values were never written", "keys and values both have a cache", _store_keys_only
        ),
        Mistake("the value cache holds keys", "the second assignment", _store_keys_twice),
        Mistake(
            "the caches are as they were",
            "write into key_cache and value_cache themselves, not into a copy: cache[block, offset] = ...",
            _store_nowhere,
        ),
    ),
    hints=(
        "A slot is a block and an offset: slot // block_size and slot % block_size.",
        "for each token and its slot:\n    -1: nothing\n"
        "    else key_cache[block, offset] takes the key, and the values likewise",
        "block_size = key_cache.shape[1]\nfor token, slot in enumerate(slot_mapping.tolist()):\n    if slot >= 0:\n"
        "        key_cache[slot // block_size, slot % block_size] = key[token]\n"
        "        value_cache[slot // block_size, slot % block_size] = value[token]",
    ),
    look_at="block and offset of each slot, tokens with -1, keys and values",
    may_change=frozenset({"key_cache", "value_cache"}),
)  # fmt: skip

# -- gather_kv ------------------------------------------------------------------------------------------------


def gather_kv(cache, block_table, context_len):
    """The first context_len keys (or values) of a sequence, in the order of its text: [context_len, Hkv, D]."""
    block_size = cache.shape[1]
    rows = [cache[block_table[p // block_size], p % block_size] for p in range(context_len)]
    return torch.stack(rows)


def _gather_whole_blocks(cache, block_table, context_len):
    blocks = -(-context_len // cache.shape[1])
    return cache[block_table[:blocks]].flatten(0, 1)


def _gather_without_table(cache, block_table, context_len):
    return cache.flatten(0, 1)[:context_len].clone()


def _gather_sorted(cache, block_table, context_len):
    used = sorted(block_table[: -(-context_len // cache.shape[1])])
    return gather_kv(cache, used, context_len)


def _gather_full_blocks_only(cache, block_table, context_len):
    return cache[block_table[: context_len // cache.shape[1]]].flatten(0, 1)


def _gather_one_short(cache, block_table, context_len):
    return gather_kv(cache, block_table, context_len)[:-1]


def _gather_consecutive(cache, block_table, context_len):
    first = block_table[0]
    return cache.flatten(0, 1)[first * cache.shape[1] :][:context_len].clone()


def _gather_cases():
    make = torch.Generator().manual_seed(5)
    return [
        dict(cache=torch.randn(7, size, 2, 4, generator=make), block_table=table, context_len=length)
        for size, table, length in [
            (4, [2, 0, 1], 9),
            (4, [0, 3], 8),
            (3, [1, 2, 0, 2_000_000_000], 7),
            (1, [1, 0, 3], 3),
        ]
    ]


GATHER_KV = Exercise(
    name="gather_kv",
    minutes=6,
    difficulty="easy",
    proves="after a gather, attention cannot tell where the keys lay.",
    solution=gather_kv,
    cases=_gather_cases,
    mistakes=(
        Mistake(
            "it returns the stale tail of the last block, too",
            "only context_len rows are this sequence's",
            _gather_whole_blocks,
        ),
        Mistake(
            "the block table is not asked",
            "logical block i lies in physical block block_table[i]",
            _gather_without_table,
        ),
        Mistake(
            "only the first block is looked up, the others are taken to follow it",
            "each logical block has an entry of its own",
            _gather_consecutive,
        ),
        Mistake(
            "the blocks are in the order of memory, not of the text",
            "keep the order of block_table",
            _gather_sorted,
        ),
        Mistake(
            "the partly filled last block is missing",
            "round up: context_len tokens need ceil(context_len / block_size) blocks",
            _gather_full_blocks_only,
        ),
        Mistake("the last token is missing", "positions 0 .. context_len - 1", _gather_one_short),
    ),
    hints=(
        "Where does the token at position p lie? In the block of p // block_size, at p % block_size.",
        "for each position below context_len: take cache[block of the position, offset]\nstack them",
        "block_size = cache.shape[1]\n"
        "rows = [cache[block_table[p // block_size], p % block_size] for p in range(context_len)]\n"
        "return torch.stack(rows)",
    ),
    look_at="the block of each position, their order, and where the context ends",
)

# -- paged_decode ---------------------------------------------------------------------------------------------


def paged_decode(query, key_cache, value_cache, block_table, context_len):
    """One query attends to its sequence's whole context through the block table: [Hq, D] -> [Hq, D]."""
    blocks = torch.tensor(block_table[: -(-context_len // key_cache.shape[1])])
    keys = key_cache[blocks].flatten(0, 1)[:context_len]  # [S, Hkv, D]
    values = value_cache[blocks].flatten(0, 1)[:context_len]
    group = query.shape[0] // keys.shape[1]  # query heads that share one KV head
    scores = torch.einsum("hd,shd->hs", query, keys.repeat_interleave(group, dim=1)) / query.shape[1] ** 0.5
    return torch.einsum("hs,shd->hd", scores.softmax(dim=-1), values.repeat_interleave(group, dim=1))


def _decode(query, keys, values, scale=None, heads=None, dim=-1):
    heads = torch.arange(len(query)) // (len(query) // keys.shape[1]) if heads is None else heads
    scores = torch.einsum("hd,shd->hs", query, keys[:, heads])
    weights = (scores * (query.shape[1] ** -0.5 if scale is None else scale)).softmax(dim)
    return torch.einsum("hs,shd->hd", weights, values[:, heads])


def _read(cache, block_table, context_len):
    return gather_kv(cache, block_table, context_len)


def _paged_with_stale_tail(query, key_cache, value_cache, block_table, context_len):
    return _decode(
        query, *(_gather_whole_blocks(c, block_table, context_len) for c in (key_cache, value_cache))
    )


def _paged_modulo_heads(query, key_cache, value_cache, block_table, context_len):
    heads = torch.arange(len(query)) % key_cache.shape[2]
    return _decode(
        query, *(_read(c, block_table, context_len) for c in (key_cache, value_cache)), heads=heads
    )


def _paged_unscaled(query, key_cache, value_cache, block_table, context_len):
    return _decode(query, *(_read(c, block_table, context_len) for c in (key_cache, value_cache)), scale=1.0)


def _paged_values_unordered(query, key_cache, value_cache, block_table, context_len):
    keys = _read(key_cache, block_table, context_len)
    return _decode(query, keys, _gather_without_table(value_cache, block_table, context_len))


def _paged_without_table(query, key_cache, value_cache, block_table, context_len):
    both = (_gather_without_table(c, block_table, context_len) for c in (key_cache, value_cache))
    return _decode(query, *both)


def _paged_softmax_over_heads(query, key_cache, value_cache, block_table, context_len):
    return _decode(query, *(_read(c, block_table, context_len) for c in (key_cache, value_cache)), dim=0)


def _paged_softmax_per_block(query, key_cache, value_cache, block_table, context_len):
    size, outs = key_cache.shape[1], []
    for start in range(0, context_len, size):
        count, block = min(size, context_len - start), block_table[start // size]
        outs.append(_decode(query, key_cache[block, :count], value_cache[block, :count]))
    return torch.stack(outs).mean(dim=0)


def _paged_decode_cases():
    make = torch.Generator().manual_seed(6)
    cases = []
    for heads, kv_heads, size, table, length in [
        (4, 4, 4, [2, 0, 1], 9), (6, 2, 4, [5, 3], 6), (4, 1, 3, [1, 4, 0, 2_000_000_000], 7), (3, 3, 2, [2], 1),
    ]:  # fmt: skip
        caches = torch.randn(2, 7, size, kv_heads, 16, generator=make)
        cases.append(
            dict(query=3 * torch.randn(heads, 16, generator=make), key_cache=caches[0], value_cache=caches[1],
                 block_table=table, context_len=length)
        )  # fmt: skip
    return cases


PAGED_DECODE = Exercise(
    name="paged_decode",
    minutes=10,
    difficulty="medium",
    proves="paging changes where keys and values lie, and nothing in what is computed.",
    solution=paged_decode,
    cases=_paged_decode_cases,
    mistakes=(
        Mistake(
            "it attends to the stale tail of the last block",
            "only context_len slots hold this sequence's tokens",
            _paged_with_stale_tail,
        ),
        Mistake(
            "right without groups, wrong with GQA",
            "query head h uses KV head h // (Hq // Hkv)",
            _paged_modulo_heads,
        ),
        Mistake("the scores are not scaled", "divide by sqrt(D) before the softmax", _paged_unscaled),
        Mistake(
            "the keys are gathered, the values are not",
            "values lie in the same blocks: read them through the table",
            _paged_values_unordered,
        ),
        Mistake(
            "it reads the first slots of the cache, whoever owns them",
            "block_table says which blocks are this sequence's",
            _paged_without_table,
        ),
        Mistake(
            "the softmax runs over the heads", "the weights of one head add up to 1 over the positions",
            _paged_softmax_over_heads,
        ),
        Mistake(
            "each block has a softmax of its own",
            "the weights of all blocks together add up to 1; notebook 06 shows how to join blocks",
            _paged_softmax_per_block,
        ),
    ),
    hints=(
        "Gather keys and values through the table. From there it is decode_step of notebook 01.",
        "keys, values = the first context_len slots through block_table\nrepeat each KV head for its group\n"
        "weights = softmax(query . keys / sqrt(D))\nreturn weights . values",
        "blocks = torch.tensor(block_table[: -(-context_len // key_cache.shape[1])])\n"
        "keys = key_cache[blocks].flatten(0, 1)[:context_len]\n"
        "values = value_cache[blocks].flatten(0, 1)[:context_len]\n"
        "return attention(query[None], keys, values)[0]",
    ),
    look_at="which slots are read, the scale, and which KV head each query head uses",
    tolerance=1e-4,
)  # fmt: skip

# -- attend_padded --------------------------------------------------------------------------------------------


def attend_padded(scores, values, context_len):
    """Attention of one head over whole blocks, of which the first context_len slots hold tokens: [S], [S, D] -> [D]."""
    weights = scores[:context_len].softmax(dim=0)
    return weights @ values[:context_len]


def _padded_no_mask(scores, values, context_len):
    return scores.softmax(dim=0) @ values


def _padded_scores_only(scores, values, context_len):
    masked = scores.clone()
    masked[context_len:] = -torch.inf
    return masked.softmax(dim=0) @ values


def _padded_values_only(scores, values, context_len):
    clean = values.clone()
    clean[context_len:] = 0
    return scores.softmax(dim=0) @ clean


def _padded_zero_scores(scores, values, context_len):
    masked, clean = scores.clone(), values.clone()
    masked[context_len:], clean[context_len:] = 0, 0
    return masked.softmax(dim=0) @ clean


def _padded_nan_to_num(scores, values, context_len):
    return scores.nan_to_num(nan=-torch.inf).softmax(dim=0) @ values.nan_to_num()


def _padded_one_too_many(scores, values, context_len):
    return attend_padded(scores, values, min(len(scores), context_len + 1))


def _padded_one_short(scores, values, context_len):
    return attend_padded(scores, values, max(1, context_len - 1))


def _padded_cases():
    make = torch.Generator().manual_seed(7)
    cases = []
    for total, length, stale in [
        (8, 5, 9.0),
        (8, 6, torch.nan),
        (4, 4, 0.0),
        (12, 1, torch.inf),
        (6, 3, -4.0),
    ]:
        scores, values = 2 * torch.randn(total, generator=make), torch.randn(total, 3, generator=make)
        values[length:] = stale
        if stale != stale:
            scores[length:] = stale
        cases.append(dict(scores=scores, values=values, context_len=length))
    return cases


ATTEND_PADDED = Exercise(
    name="attend_padded",
    minutes=8,
    difficulty="medium",
    proves="a weight of 0 does not silence a NaN: stale slots must stay out of the sum.",
    solution=attend_padded,
    cases=_padded_cases,
    mistakes=(
        Mistake(
            "stale slots are attended to", "the last slots hold another request's tokens: mask them", _padded_no_mask
        ),
        Mistake(
            "the scores are masked, and a NaN still comes through",
            "0 x NaN is NaN: cut stale values off, or overwrite them; multiplying by 0 is not enough",
            _padded_scores_only,
        ),
        Mistake(
            "stale scores still take weight",
            "the softmax must not see them: the weights of the real slots add up to 1",
            _padded_values_only,
        ),
        Mistake("a masked score is not 0 but -inf", "exp(0) is 1: a score of 0 takes weight", _padded_zero_scores),
        Mistake(
            "NaN is cleaned away, and stale numbers leak in",
            "a stale slot may hold numbers that look fine: go by context_len",
            _padded_nan_to_num,
        ),
        Mistake("one slot too many is read", "slots 0 .. context_len - 1", _padded_one_too_many),
        Mistake("the last token is left out", "slots 0 .. context_len - 1", _padded_one_short),
    ),
    hints=(
        "What may be read at all? Everything behind context_len is somebody else's.",
        "cut scores and values to the first context_len\nsoftmax, then the weighted sum",
        "weights = scores[:context_len].softmax(dim=0)\nreturn weights @ values[:context_len]",
    ),
    look_at="scores and values behind context_len: neither may reach the result",
    tolerance=1e-4,
)  # fmt: skip

EXERCISES = [STORE_KV, GATHER_KV, PAGED_DECODE, ATTEND_PADDED]  # as the notebook asks them
