"""Answers to the exercises of lesson 04, as learners write them: right in other ways, and wrong."""

import math

import torch

# -- store_kv -------------------------------------------------------------------------------------------------


def store_through_a_view(key, value, key_cache, value_cache, slots):
    kept = slots >= 0
    key_cache.view(-1, *key.shape[1:])[slots[kept]] = key[kept]
    value_cache.view(-1, *value.shape[1:])[slots[kept]] = value[kept]


def store_by_index_put(key, value, key_cache, value_cache, slots):
    size = key_cache.size(1)
    where = [i for i, s in enumerate(slots.tolist()) if s != -1]
    blocks, offsets = slots[where] // size, slots[where] % size
    key_cache[blocks, offsets] = key[where]
    value_cache.index_put_((blocks, offsets), value[where])


def store_minus_one_too(key, value, key_cache, value_cache, slots):
    key_cache.view(-1, *key.shape[1:])[slots] = key
    value_cache.view(-1, *value.shape[1:])[slots] = value


def store_from_the_first_slot(key, value, key_cache, value_cache, slots):
    for i in range(len(key)):
        if slots[i] >= 0:
            key_cache[i // key_cache.shape[1], i % key_cache.shape[1]] = key[i]
            value_cache[i // key_cache.shape[1], i % key_cache.shape[1]] = value[i]


def store_after_filtering_the_slots(key, value, key_cache, value_cache, slots):
    good = slots[slots >= 0]
    for k, v, s in zip(key, value, good, strict=False):
        key_cache[s // key_cache.shape[1], s % key_cache.shape[1]] = k
        value_cache[s // key_cache.shape[1], s % key_cache.shape[1]] = v


def store_at_offset_zero(key, value, key_cache, value_cache, slots):
    for i, s in enumerate(slots.tolist()):
        if s >= 0:
            key_cache[s // key_cache.shape[1], 0] = key[i]
            value_cache[s // key_cache.shape[1], 0] = value[i]


def store_forgets_values(key, value, key_cache, value_cache, slots):
    kept = slots >= 0
    key_cache.view(-1, *key.shape[1:])[slots[kept]] = key[kept]


def store_key_in_both(key, value, key_cache, value_cache, slots):
    store_through_a_view(key, key, key_cache, value_cache, slots)


def store_into_a_copy(key, value, key_cache, value_cache, slots):
    store_through_a_view(key, value, key_cache.clone(), value_cache.clone(), slots)


def store_returns_the_caches(key, value, key_cache, value_cache, slots):
    store_through_a_view(key, value, key_cache, value_cache, slots)
    return key_cache, value_cache


# -- gather_kv ------------------------------------------------------------------------------------------------


def gather_by_slots(cache, table, n):
    position = torch.arange(n)
    slots = torch.tensor(table)[position // cache.shape[1]] * cache.shape[1] + position % cache.shape[1]
    return cache.reshape(-1, *cache.shape[2:])[slots]


def gather_by_cat(cache, table, n):
    parts, left = [], n
    for block in table:
        if left <= 0:
            break
        parts.append(cache[block][:left])
        left -= cache.shape[1]
    return torch.cat(parts)


def gather_all_of_each_block(cache, table, n):
    return torch.cat([cache[table[i]] for i in range(math.ceil(n / cache.shape[1]))])


def gather_from_the_front(cache, table, n):
    return torch.cat(list(cache))[:n]


def gather_run_from_first_block(cache, table, n):
    start = table[0] * cache.shape[1]
    return torch.cat(list(cache))[start : start + n]


def gather_in_memory_order(cache, table, n):
    held = set(table[: math.ceil(n / cache.shape[1])])
    return torch.cat([block for number, block in enumerate(cache) if number in held])[:n]


def gather_floor(cache, table, n):
    blocks = [cache[b] for b in table[: n // cache.shape[1]]]
    return torch.cat(blocks) if blocks else cache[0][:0]


def gather_all_but_the_newest(cache, table, n):
    return gather_by_cat(cache, table, n)[: n - 1]


def gather_as_list(cache, table, n):
    return list(gather_by_cat(cache, table, n))


# -- paged_decode ---------------------------------------------------------------------------------------------


def read(cache, table, n):
    return gather_by_cat(cache, table, n)


def heads_one_by_one(q, keys, values, kv_head, divisor=None):
    rows = []
    for h in range(len(q)):
        s = keys[:, kv_head(h)] @ q[h] / (math.sqrt(q.shape[1]) if divisor is None else divisor)
        w = (s - s.max()).exp()
        rows.append((w[:, None] * values[:, kv_head(h)]).sum(0) / w.sum())
    return torch.stack(rows)


def grouped(q, cache):
    return lambda h: h // (len(q) // cache.shape[2])


def paged_head_by_head(q, kc, vc, table, n):
    return heads_one_by_one(q, read(kc, table, n), read(vc, table, n), grouped(q, kc))


def paged_with_sdpa(q, kc, vc, table, n):
    k, v = (read(c, table, n).transpose(0, 1)[None] for c in (kc, vc))
    return torch.nn.functional.scaled_dot_product_attention(q[None, :, None], k, v, enable_gqa=True)[0, :, 0]


def paged_reads_whole_blocks(q, kc, vc, table, n):
    return heads_one_by_one(
        q, gather_all_of_each_block(kc, table, n), gather_all_of_each_block(vc, table, n), grouped(q, kc)
    )


def paged_interleaves_heads(q, kc, vc, table, n):
    return heads_one_by_one(q, read(kc, table, n), read(vc, table, n), lambda h: h % kc.shape[2])


def paged_forgets_the_scale(q, kc, vc, table, n):
    return heads_one_by_one(q, read(kc, table, n), read(vc, table, n), grouped(q, kc), divisor=1)


def paged_values_from_the_front(q, kc, vc, table, n):
    return heads_one_by_one(q, read(kc, table, n), gather_from_the_front(vc, table, n), grouped(q, kc))


def paged_slab_habit(q, kc, vc, table, n):
    return heads_one_by_one(
        q, gather_from_the_front(kc, table, n), gather_from_the_front(vc, table, n), grouped(q, kc)
    )


def paged_softmax_wrong_axis(q, kc, vc, table, n):
    k, v = (read(c, table, n).repeat_interleave(len(q) // kc.shape[2], 1) for c in (kc, vc))
    s = (q[None] * k).sum(-1) / q.shape[1] ** 0.5  # [S, Hq]
    return (s.softmax(1)[..., None] * v).sum(0)


def paged_block_means(q, kc, vc, table, n):
    size, parts = kc.shape[1], []
    for i in range(math.ceil(n / size)):
        rows = min(size, n - i * size)
        parts.append(heads_one_by_one(q, kc[table[i], :rows], vc[table[i], :rows], grouped(q, kc)))
    return sum(parts) / len(parts)


def paged_batch_axis(q, kc, vc, table, n):
    return paged_head_by_head(q, kc, vc, table, n)[None]


# -- attend_padded --------------------------------------------------------------------------------------------


def padded_by_hand(scores, values, n):
    weights = [math.exp(s - max(scores[:n].tolist())) for s in scores[:n].tolist()]
    return sum(w * values[i] for i, w in enumerate(weights)) / sum(weights)


def padded_mask_both(scores, values, n):
    hidden = torch.arange(len(scores)) >= n
    return scores.masked_fill(hidden, -math.inf).softmax(0) @ values.masked_fill(hidden[:, None], 0.0)


def padded_trusting(scores, values, n):
    return (scores.softmax(0)[:, None] * values).sum(0)


def padded_where_scores(scores, values, n):
    seen = torch.arange(len(scores)) < n
    return torch.where(seen, scores, -math.inf).softmax(0) @ values


def padded_zero_values(scores, values, n):
    seen = torch.arange(len(scores)) < n
    return scores.softmax(0) @ torch.where(seen[:, None], values, 0.0)


def padded_zero_both(scores, values, n):
    seen = torch.arange(len(scores)) < n
    return torch.where(seen, scores, 0.0).softmax(0) @ torch.where(seen[:, None], values, 0.0)


def padded_cleans(scores, values, n):
    return torch.nan_to_num(scores, nan=-math.inf).softmax(0) @ torch.nan_to_num(values)


def padded_inclusive(scores, values, n):
    seen = torch.arange(len(scores)) <= n
    return scores[seen].softmax(0) @ values[seen]


def padded_before_the_newest(scores, values, n):
    upto = n - 1 or 1
    return scores[:upto].softmax(0) @ values[:upto]


def padded_keeps_an_axis(scores, values, n):
    return padded_mask_both(scores, values, n)[None]


ALSO_RIGHT = {
    "store_kv": [store_through_a_view, store_by_index_put],
    "gather_kv": [gather_by_slots, gather_by_cat],
    "paged_decode": [paged_head_by_head, paged_with_sdpa],
    "attend_padded": [padded_by_hand, padded_mask_both],
}

WRONG = [
    ("store_kv", store_minus_one_too, "padding is written into the last slot"),
    ("store_kv", store_from_the_first_slot, "slot_mapping is not asked"),
    ("store_kv", store_after_filtering_the_slots, "takes the slot of another"),
    ("store_kv", store_at_offset_zero, "at the start of its block"),
    ("store_kv", store_forgets_values, "the values were never written"),
    ("store_kv", store_key_in_both, "the value cache holds keys"),
    ("store_kv", store_into_a_copy, "the caches are as they were"),
    ("gather_kv", gather_all_of_each_block, "the stale tail of the last block"),
    ("gather_kv", gather_from_the_front, "the block table is not asked"),
    ("gather_kv", gather_run_from_first_block, "only the first block is looked up"),
    ("gather_kv", gather_in_memory_order, "in the order of memory"),
    ("gather_kv", gather_floor, "partly filled last block is missing"),
    ("gather_kv", gather_all_but_the_newest, "the last token is missing"),
    ("gather_kv", gather_as_list, "a tensor is expected, not list"),
    ("paged_decode", paged_reads_whole_blocks, "attends to the stale tail"),
    ("paged_decode", paged_interleaves_heads, "wrong with GQA"),
    ("paged_decode", paged_forgets_the_scale, "not scaled"),
    ("paged_decode", paged_values_from_the_front, "the values are not"),
    ("paged_decode", paged_slab_habit, "whoever owns them"),
    ("paged_decode", paged_softmax_wrong_axis, "runs over the heads"),
    ("paged_decode", paged_block_means, "a softmax of its own"),
    ("paged_decode", paged_batch_axis, "shape should be"),
    ("attend_padded", padded_trusting, "stale slots are attended to"),
    ("attend_padded", padded_where_scores, "a NaN still comes through"),
    ("attend_padded", padded_zero_values, "stale scores still take weight"),
    ("attend_padded", padded_zero_both, "not 0 but -inf"),
    ("attend_padded", padded_cleans, "stale numbers leak in"),
    ("attend_padded", padded_inclusive, "one slot too many"),
    ("attend_padded", padded_before_the_newest, "the last token is left out"),
    ("attend_padded", padded_keeps_an_axis, "shape should be"),
]
