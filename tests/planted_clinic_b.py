"""Fixes of the clinic's second four cases, as learners write them: wrong ones, and right ones written another way."""

import random

import torch

# -- stale_tail -----------------------------------------------------------------------------------------------


def gathered(key_cache, value_cache, table, context_len):
    used = table[: -(-context_len // key_cache.shape[1])]
    return key_cache[used].flatten(0, 1), value_cache[used].flatten(0, 1)


def scores_of(query, keys):
    grouped = query.unflatten(0, (keys.shape[1], -1))
    return torch.einsum("hgd,shd->hgs", grouped, keys) / query.shape[-1] ** 0.5


def mixed(scores, values):
    return torch.einsum("hgs,shd->hgd", scores.softmax(dim=-1), values).flatten(0, 1)


def tail_nan_to_num_out(query, key_cache, value_cache, table, context_len):
    keys, values = gathered(key_cache, value_cache, table, context_len)
    return mixed(scores_of(query, keys), values).nan_to_num(0.0)


def tail_nan_to_num_in(query, key_cache, value_cache, table, context_len):
    keys, values = gathered(key_cache.nan_to_num(0.0), value_cache.nan_to_num(0.0), table, context_len)
    return mixed(scores_of(query, keys), values)


def tail_zeros(query, key_cache, value_cache, table, context_len):
    keys, values = gathered(key_cache, value_cache, table, context_len)
    keys[context_len:] = values[context_len:] = 0
    return mixed(scores_of(query, keys), values)


def tail_cleaned_in_place(query, key_cache, value_cache, table, context_len):
    if rest := context_len % key_cache.shape[1]:
        last = table[context_len // key_cache.shape[1]]
        key_cache[last, rest:] = value_cache[last, rest:] = 0
    keys, values = gathered(key_cache, value_cache, table, context_len)
    return mixed(scores_of(query, keys), values)


def tail_times_zero(query, key_cache, value_cache, table, context_len):
    keys, values = gathered(key_cache, value_cache, table, context_len)
    seen = torch.arange(len(keys)) < context_len
    return mixed(scores_of(query, keys) * seen, values)


def tail_masked_scores_only(query, key_cache, value_cache, table, context_len):
    keys, values = gathered(key_cache, value_cache, table, context_len)
    hidden = torch.arange(len(keys)) >= context_len
    return mixed(scores_of(query, keys).masked_fill(hidden, -torch.inf), values)


def tail_masked_and_nan_to_num(query, key_cache, value_cache, table, context_len):
    keys, values = gathered(key_cache, value_cache, table, context_len)
    hidden = torch.arange(len(keys)) >= context_len
    return mixed(scores_of(query, keys).masked_fill(hidden, -torch.inf), values.nan_to_num(0.0))


def tail_only_nan_cleared(query, key_cache, value_cache, table, context_len):
    keys, values = gathered(key_cache, value_cache, table, context_len)
    hidden = torch.arange(len(keys)) >= context_len
    values = torch.where(hidden[:, None, None] & values.isnan(), 0, values)
    return mixed(scores_of(query, keys).masked_fill(hidden, -torch.inf), values)


def tail_finite_mask(query, key_cache, value_cache, table, context_len):
    keys, values = gathered(key_cache, value_cache, table, context_len)
    seen = torch.arange(len(keys)) < context_len
    values = torch.where(seen[:, None, None], values, 0)
    return mixed(torch.where(seen, scores_of(query, keys), -5.0), values)


def tail_one_more(query, key_cache, value_cache, table, context_len):
    keys, values = gathered(key_cache, value_cache, table, context_len)
    return mixed(scores_of(query, keys[: context_len + 1]), values[: context_len + 1])


def tail_one_less(query, key_cache, value_cache, table, context_len):
    keys, values = gathered(key_cache, value_cache, table, context_len)
    return mixed(scores_of(query, keys[: context_len - 1]), values[: context_len - 1])


def tail_full_blocks_only(query, key_cache, value_cache, table, context_len):
    size = key_cache.shape[1]
    keys, values = gathered(key_cache, value_cache, table, max(size, context_len // size * size))
    return mixed(scores_of(query, keys), values)


def tail_by_the_table(query, key_cache, value_cache, table, context_len):
    size = key_cache.shape[1]
    keys, values = key_cache[table].flatten(0, 1), value_cache[table].flatten(0, 1)
    end = len(keys) - -context_len % size
    return mixed(scores_of(query, keys[:end]), values[:end])


def tail_masked_right(query, key_cache, value_cache, table, context_len):
    keys, values = gathered(key_cache, value_cache, table, context_len)
    hidden = torch.arange(len(keys)) >= context_len
    scores = scores_of(query, keys).masked_fill(hidden, -torch.inf)
    return mixed(scores, values.masked_fill(hidden[:, None, None], 0))


def tail_by_slots(query, key_cache, value_cache, table, context_len):
    position = torch.arange(context_len)
    slots = table[position // key_cache.shape[1]] * key_cache.shape[1] + position % key_cache.shape[1]
    keys, values = key_cache.flatten(0, 1)[slots], value_cache.flatten(0, 1)[slots]
    group = len(query) // keys.shape[1]
    keys, values = (each.repeat_interleave(group, 1).transpose(0, 1) for each in (keys, values))
    return torch.nn.functional.scaled_dot_product_attention(query[:, None], keys, values)[:, 0]


def tail_block_by_block(query, key_cache, value_cache, table, context_len):
    size, top, bottom = key_cache.shape[1], 0, 0
    for start in range(0, context_len, size):
        block, count = table[start // size], min(size, context_len - start)
        weights = scores_of(query, key_cache[block, :count]).double().exp()
        top += torch.einsum("hgs,shd->hgd", weights, value_cache[block, :count].double())
        bottom += weights.sum(dim=-1, keepdim=True)
    return (top / bottom).flatten(0, 1).float()


# -- orphan_hash ----------------------------------------------------------------------------------------------


def hash_with_place(parent_key, text, start, stop):
    return hash((start, tuple(text[start:stop])))


def hash_two_blocks(parent_key, text, start, stop):
    return hash((start, tuple(text[max(0, start - (stop - start)) : stop])))


def hash_xor(parent_key, text, start, stop):
    return (parent_key or 0) ^ hash(tuple(text[start:stop]))


def hash_sum(parent_key, text, start, stop):
    return (parent_key or 0) + hash((start, sum(text[start:stop])))


def hash_sum_of_all(parent_key, text, start, stop):
    return sum(text[:stop]) * 1000 + stop


def hash_first_and_own(parent_key, text, start, stop):
    return hash((start, *text[: stop - start], *text[start:stop]))


def hash_never(parent_key, text, start, stop):
    return object()


def hash_parent_alone(parent_key, text, start, stop):
    return hash((parent_key, start))


def hash_prompt(parent_key, text, start, stop):
    return hash((start, tuple(text)))


def hash_with_length(parent_key, text, start, stop):
    return hash((len(text), tuple(text[:stop])))


def hash_one_more(parent_key, text, start, stop):
    return hash(tuple(text[: stop + 1]))


def hash_before(parent_key, text, start, stop):
    return hash(tuple(text[:start]))


def hash_a_list(parent_key, text, start, stop):
    return [parent_key, text[start:stop]]


def hash_beginning(parent_key, text, start, stop):
    return hash(tuple(text[:stop]))


def hash_nothing_but_nest(parent_key, text, start, stop):
    return parent_key, *text[start:stop]


def hash_as_text(parent_key, text, start, stop):
    return f"{parent_key or ''} {' '.join(map(str, text[start:stop]))}"


def hash_rolling(parent_key, text, start, stop):
    return (parent_key or 0) * 1_000_003 + hash(tuple(text[start:stop]))


# -- overflow -------------------------------------------------------------------------------------------------


def offset_cast_late(block_ids, block_size, num_kv_heads, head_dim):
    return (block_ids * (block_size * num_kv_heads * head_dim)).long()


def offset_wide_factor(block_ids, block_size, num_kv_heads, head_dim):
    factor = torch.tensor(block_size * num_kv_heads * head_dim, dtype=torch.int64)
    return block_ids * factor  # a factor of no dimension does not widen the product


def offset_abs(block_ids, block_size, num_kv_heads, head_dim):
    return (block_ids * (block_size * num_kv_heads * head_dim)).abs()


def offset_modulo(block_ids, block_size, num_kv_heads, head_dim):
    return (block_ids * (block_size * num_kv_heads * head_dim)) % (2**31 - 1)


def offset_modulo_in_time(block_ids, block_size, num_kv_heads, head_dim):
    return block_ids.long() * (block_size * num_kv_heads * head_dim) % 2**31


def offset_clamp(block_ids, block_size, num_kv_heads, head_dim):
    stride = block_size * num_kv_heads * head_dim
    return block_ids.clamp(max=2**31 // stride - 1) * stride


def offset_refused(block_ids, block_size, num_kv_heads, head_dim):
    stride = block_size * num_kv_heads * head_dim
    if int(block_ids.max()) * stride >= 2**31:
        raise ValueError("the cache is too large: use fewer blocks")
    return block_ids * stride


def offset_float(block_ids, block_size, num_kv_heads, head_dim):
    return (block_ids.float() * (block_size * num_kv_heads * head_dim)).long()


def offset_unsigned(block_ids, block_size, num_kv_heads, head_dim):
    return (block_ids * (block_size * num_kv_heads * head_dim)).long() & 0xFFFFFFFF


def offset_one_wrap(block_ids, block_size, num_kv_heads, head_dim):
    begins = (block_ids * (block_size * num_kv_heads * head_dim)).long()
    return torch.where(begins < 0, begins + 2**32, begins)


def offset_int64(block_ids, block_size, num_kv_heads, head_dim):
    return block_ids.to(torch.int64) * block_size * num_kv_heads * head_dim


def offset_in_python(block_ids, block_size, num_kv_heads, head_dim):
    return [block * block_size * num_kv_heads * head_dim for block in block_ids.tolist()]


def offset_double(block_ids, block_size, num_kv_heads, head_dim):
    return block_ids.double() * (block_size * num_kv_heads * head_dim)


def offset_wide_row(block_ids, block_size, num_kv_heads, head_dim):
    return block_ids * torch.tensor([block_size * num_kv_heads * head_dim])


# -- starving_victim ------------------------------------------------------------------------------------------


def send_back(scheduler, victim, last=False):
    scheduler.allocator.release(victim.key)
    del scheduler.running[victim.key]
    victim.num_computed = victim.num_held = 0
    scheduler.waiting[victim.key] = victim
    scheduler.waiting.move_to_end(victim.key, last=last)
    return victim


def victim_random(scheduler):
    return send_back(scheduler, random.choice(list(scheduler.running.values())))


def victim_shortest(scheduler):
    return send_back(scheduler, min(scheduler.running.values(), key=lambda request: request.num_held))


def victim_oldest(scheduler):
    return send_back(scheduler, next(iter(scheduler.running.values())))


def victim_least_made(scheduler):
    made = lambda request: request.num_known - request.request.prompt_len  # noqa: E731
    return send_back(scheduler, min(reversed(scheduler.running.values()), key=made))


def victim_most_to_go(scheduler):
    to_go = lambda request: request.request.total_len - request.num_known  # noqa: E731
    return send_back(scheduler, max(scheduler.running.values(), key=to_go))


def victim_least_to_go(scheduler):
    to_go = lambda request: request.request.total_len - request.num_known  # noqa: E731
    return send_back(scheduler, min(scheduler.running.values(), key=to_go))


def victim_in_turns(scheduler):
    running = list(scheduler.running.values())
    victim = min(running, key=lambda request: (getattr(request, "times", 0), -request.num_held))
    victim.times = getattr(victim, "times", 0) + 1
    return send_back(scheduler, victim)


def victim_least_computed(scheduler):
    return send_back(scheduler, min(scheduler.running.values(), key=lambda request: request.num_computed))


def victim_last_to_the_end(scheduler):
    return send_back(scheduler, list(scheduler.running.values())[-1], last=True)


def victim_largest_to_the_end(scheduler):
    victim = max(scheduler.running.values(), key=lambda request: request.num_held)
    return send_back(scheduler, victim, last=True)


def victim_with_watermark(scheduler):
    scheduler.allocator.num_spare = 8
    return send_back(scheduler, list(scheduler.running.values())[-1])


def victim_large_with_watermark(scheduler):
    scheduler.allocator.num_spare = 8
    return send_back(scheduler, max(scheduler.running.values(), key=lambda request: request.num_held))


def victim_fewer_at_once(scheduler):
    scheduler.max_num_seqs = 2
    return send_back(scheduler, list(scheduler.running.values())[-1])


def victim_one_at_a_time(scheduler):
    scheduler.max_num_seqs = 1
    return send_back(scheduler, max(scheduler.running.values(), key=lambda request: request.num_held))


def victim_dropped(scheduler):
    victim = list(scheduler.running.values())[-1]
    scheduler.finish(victim.key)
    return victim


def victim_nobody(scheduler):
    raise RuntimeError("out of blocks: buy a larger machine")


def victim_keeps_its_blocks(scheduler):
    victim = list(scheduler.running.values())[-1]
    del scheduler.running[victim.key]
    scheduler.waiting[victim.key] = victim
    return victim


def victim_not_reset(scheduler):
    victim = list(scheduler.running.values())[-1]
    scheduler.allocator.release(victim.key)
    del scheduler.running[victim.key]
    scheduler.waiting[victim.key] = victim
    scheduler.waiting.move_to_end(victim.key, last=False)
    return victim


def victim_by_key(scheduler):
    return send_back(scheduler, scheduler.running[max(scheduler.running)])


def victim_reversed(scheduler):
    return send_back(scheduler, next(reversed(scheduler.running.values())))


def victim_largest_but_the_first(scheduler):
    first, *others = scheduler.running.values()
    return send_back(scheduler, max(others, key=lambda request: request.num_held, default=first))


def victim_rebuilt_queue(scheduler):
    key = list(scheduler.running)[-1]
    victim = scheduler.running.pop(key)
    scheduler.allocator.release(key)
    victim.num_computed = victim.num_held = 0
    queue = sorted([victim, *scheduler.waiting.values()], key=lambda request: request.key)
    scheduler.waiting.clear()
    scheduler.waiting.update({request.key: request for request in queue})
    return victim


WRONG = {
    "stale_tail": [
        # label, fix, part of the headline, part of the fault
        ("nan_to_num on the output", tail_nan_to_num_out, "still there", "is told"),
        ("nan_to_num on all that is read", tail_nan_to_num_in, "still there", "is told"),
        ("zeros behind the end", tail_zeros, "less sure", "off by"),
        ("zeros behind the end, in the cache", tail_cleaned_in_place, "less sure", "off by"),
        ("scores times 0", tail_times_zero, "still there", "is told"),
        ("-inf for scores, NaN in values", tail_masked_scores_only, "still there", "'?'"),
        ("-inf for scores, nan_to_num for values", tail_masked_and_nan_to_num, "not hidden", "third token"),
        ("NaN behind the end cleared, infinity not", tail_only_nan_cleared, "large numbers", "NaN or"),
        ("a small score instead of -inf", tail_finite_mask, "less sure", "off by"),
        ("one slot too many", tail_one_more, "still there", "is told"),
        ("one slot too few", tail_one_less, "less sure", "off by"),
        ("full blocks only", tail_full_blocks_only, "less sure", "off by"),
        ("counted from the end of the table", tail_by_the_table, "room for tokens to come", "8 tokens more"),
    ],
    "orphan_hash": [
        ("its place", hash_with_place, "in every order", "now it stands"),
        ("the block before and its place", hash_two_blocks, "in every order", "now it stands"),
        ("xor", hash_xor, "still there", "hal is told"),
        ("a sum of tokens", hash_sum, "in every order", "now it stands"),
        ("a sum of all tokens", hash_sum_of_all, "in every order", "now it stands"),
        ("the first block and its own", hash_first_and_own, "in every order", "now it stands"),
        ("a key that nobody has", hash_never, "the same prompt again", "0 blocks are found"),
        ("the parent alone", hash_parent_alone, "still there", "is told"),
        ("the whole prompt", hash_prompt, "common beginning", "share 0 blocks"),
        ("the length as well", hash_with_length, "common beginning", "share 0 blocks"),
        ("one token too many", hash_one_more, "common beginning", "share 1 blocks"),
        ("what came before, without its own", hash_before, "still there", "is told"),
        ("a key that cannot be one", hash_a_list, "breaks", "it crashes: TypeError"),
    ],
    "overflow": [
        ("cast after the product", offset_cast_late, "still there", "eve is told"),
        ("an int64 factor of no dimension", offset_wide_factor, "still there", "eve is told"),
        ("abs", offset_abs, "still there", "eve is told"),
        ("modulo after the product", offset_modulo, "still there", "eve is told"),
        ("modulo of the right product", offset_modulo_in_time, "still there", "eve is told"),
        ("blocks that are too far read another", offset_clamp, "still there", "dot is told"),
        ("large caches refused", offset_refused, "breaks", "too large"),
        ("float32", offset_float, "other models", "begins at"),
        ("32 bits without a sign", offset_unsigned, "larger one", "1,398,100"),
        ("a correction for one wrap", offset_one_wrap, "larger one", "1,398,100"),
    ],
    "starving_victim": [
        ("any", victim_random, "for others", "was thrown out"),
        ("the shortest", victim_shortest, "for others", "ann came first"),
        ("the oldest", victim_oldest, "still there", "23 of 30 words"),
        ("who has most to go", victim_most_to_go, "for others", "who came before"),
        ("who has least to go", victim_least_to_go, "for others", "ann came first"),
        ("all in turns", victim_in_turns, "for others", "who came before"),
        ("who has computed least", victim_least_computed, "for others", "ann came first"),
        ("the last, to the end of the queue", victim_last_to_the_end, "before others begin", "begins"),
        ("the largest, to the end of the queue", victim_largest_to_the_end, "for others", "was thrown out"),
        ("the last, with a larger reserve", victim_with_watermark, "room that is there", "run at once"),
        ("the largest, with a larger reserve", victim_large_with_watermark, "for others", "who came before"),
        ("fewer at once", victim_fewer_at_once, "room that is there", "run at once"),
        ("the largest, but never the first", victim_largest_but_the_first, "for others", "who came before"),
        ("one at a time", victim_one_at_a_time, "for others", "who came before"),
        ("the victim's request ends", victim_dropped, "still there", "words of"),
        ("nobody", victim_nobody, "breaks", "out of blocks"),
        ("the victim keeps its blocks", victim_keeps_its_blocks, "breaks", "no block was free"),
    ],
}

ALSO_RIGHT = {
    "stale_tail": [tail_masked_right, tail_by_slots, tail_block_by_block],
    "orphan_hash": [hash_beginning, hash_nothing_but_nest, hash_as_text, hash_rolling],
    "overflow": [offset_int64, offset_in_python, offset_double, offset_wide_row],
    "starving_victim": [
        victim_by_key,
        victim_least_made,
        victim_not_reset,
        victim_reversed,
        victim_rebuilt_queue,
    ],
}
