"""Answers to the exercises of notebook 09, as learners write them: other right ones, and wrong ones.

A wrong answer stands with a word of the diagnosis it must get.
"""

import itertools
import math

import numpy as np

# -- theirs ---------------------------------------------------------------------------------------------------

THEIRS = {
    "BlockPool": "BlockPool",
    "PagedAllocator": "KVCacheManager",
    "Scheduler": "Scheduler",
    "BlockStore": "attention backend",
    "Progress.num_computed": "num_computed_tokens",
    "hash_block": "hash_block_tokens",
    "free list": "FreeKVCacheBlockQueue",
}


def answers(right, **changed):
    """A filled-in stub: the right names but for some, which are named by their number in the stub."""
    asked = list(right)
    filled = right | {asked[int(number.lstrip("_"))]: choice for number, choice in changed.items()}
    return lambda name: filled[name]


def theirs_by_if(name):
    if name in ("BlockPool", "Scheduler"):
        return name
    if name == "PagedAllocator":
        return "KVCacheManager"
    if name.startswith("hash"):
        return name + "_tokens"
    if name == "BlockStore":
        return "attention backend"
    return "num_computed_tokens" if "." in name else "FreeKVCacheBlockQueue"


def theirs_by_match(name):
    match name:
        case "free list":
            return "FreeKVCacheBlockQueue"
        case "hash_block":
            return "hash_block_tokens"
        case "Progress.num_computed":
            return "num_computed_tokens"
        case "BlockStore":
            return "attention backend"
        case "PagedAllocator":
            return "KVCacheManager"
    return name


def theirs_by_columns(name):
    ours, theirs = zip(*THEIRS.items(), strict=True)
    return theirs[ours.index(name)]


def theirs_the_whole_table(name):
    return THEIRS


def theirs_says_nothing(name):
    THEIRS.get(name)


def theirs_short_table(name):
    return {"BlockPool": "BlockPool", "PagedAllocator": "KVCacheManager"}[name]


# -- roll_back ------------------------------------------------------------------------------------------------


def roll_by_math(table, free, n, rejected, size):
    needed = math.ceil((n - rejected) / size)
    free += reversed(table[needed:])
    table[needed:] = []
    return n - rejected


def roll_by_slices(table, free, n, rejected, size):
    kept = n - rejected
    needed = (kept + size - 1) // size
    table[:], given = table[:needed], table[needed:]
    free[len(free) :] = given[::-1]
    return kept


def roll_by_positions(table, free, n, rejected, size):
    """The block of each position, from the last: it goes when the first of its positions goes."""
    for position in reversed(range(n - rejected, n)):
        if position % size == 0:
            free.append(table.pop())
    return n - rejected


def roll_a_token_at_a_time(table, free, n, rejected, size):
    for _ in range(rejected):
        n -= 1
        if n % size == 0:
            free.append(table.pop(-1))
    return n


def roll_by_room(table, free, n, rejected, size):
    kept = n - rejected
    while len(table) * size - kept >= size:
        free.append(table[-1])
        del table[-1]
    return kept


def roll_in_numpy(table, free, n, rejected, size):
    kept = np.int64(n) - rejected
    needed = int(np.ceil(kept / size))
    last_first = np.array(table, dtype=np.int64)[needed:][::-1]
    free += [*map(int, last_first)]
    table[:] = table[:needed]
    return kept


def roll_counts_only(table, free, n, rejected, size):
    return n - rejected


def roll_rebinds_the_table(table, free, n, rejected, size):
    kept = n - rejected
    needed = -(-kept // size)
    free.extend(table[needed:][::-1])
    table = table[:needed]
    return kept


def roll_rebinds_the_table_in_order(table, free, n, rejected, size):
    kept = n - rejected
    needed = math.ceil(kept / size)
    for block in table[needed:]:
        free.append(block)
    table = table[:needed]
    return kept


def roll_rebinds_the_free_list(table, free, n, rejected, size):
    needed = -(-(n - rejected) // size)
    free = free + table[needed:][::-1]
    del table[needed:]
    return n - rejected


def roll_drops_blocks(table, free, n, rejected, size):
    while len(table) > -(-(n - rejected) // size):
        table.pop()
    return n - rejected


def roll_last_block(table, free, n, rejected, size):
    free.append(table.pop())
    return n - rejected


def roll_if(table, free, n, rejected, size):
    kept = n - rejected
    if len(table) > -(-kept // size):
        free.append(table.pop())
    return kept


def roll_if_any(table, free, n, rejected, size):
    if rejected > 0:
        free.append(table.pop())
    return n - rejected


def roll_block_a_token(table, free, n, rejected, size):
    for _ in range(rejected):
        if table:
            free.append(table.pop())
    return n - rejected


def roll_quotient(table, free, n, rejected, size):
    for _ in range(rejected // size):
        free.append(table.pop())
    return n - rejected


def roll_quotient_up(table, free, n, rejected, size):
    for _ in range(math.ceil(rejected / size)):
        free.append(table.pop())
    return n - rejected


def roll_floor(table, free, n, rejected, size):
    kept = n - rejected
    while len(table) > kept // size:
        free.append(table.pop())
    return kept


def roll_while_there_are_slots(table, free, n, rejected, size):
    kept = n - rejected
    while len(table) * size > kept:
        free.append(table.pop())
    return kept


def roll_floor_in_order(table, free, n, rejected, size):
    first = (n - rejected) // size
    free += table[first:]
    del table[first:]
    return n - rejected


def roll_floor_and_one_in_order(table, free, n, rejected, size):
    first = (n - rejected) // size + 1
    free += table[first:]
    del table[first:]
    return n - rejected


def roll_quotient_in_order(table, free, n, rejected, size):
    first = len(table) - rejected // size
    free += table[first:]
    del table[first:]
    return n - rejected


def roll_floor_and_one(table, free, n, rejected, size):
    kept = n - rejected
    while len(table) > kept // size + 1:
        free.append(table.pop())
    return kept


def roll_block_of_the_next_token(table, free, n, rejected, size):
    """Keeps the block into which the next token would go."""
    last = (n - rejected) // size
    free.extend(reversed(table[last + 1 :]))
    del table[last + 1 :]
    return n - rejected


def roll_more_than_a_block_of_room(table, free, n, rejected, size):
    kept = n - rejected
    while len(table) * size - kept > size:
        free.append(table.pop())
    return kept


def roll_minus_zero(table, free, n, rejected, size):
    count = len(table) - -(-(n - rejected) // size)
    free.extend(table[-count:][::-1])
    del table[-count:]
    return n - rejected


def roll_minus_zero_in_order(table, free, n, rejected, size):
    count = len(table) - -(-(n - rejected) // size)
    free.extend(table[-count:])
    del table[-count:]
    return n - rejected


def roll_keeps_the_tail(table, free, n, rejected, size):
    kept = n - rejected
    for _ in range(-(-kept // size)):
        free.append(table.pop(0))
    return kept


def roll_pops_the_front(table, free, n, rejected, size):
    kept = n - rejected
    while len(table) > -(-kept // size):
        free.append(table.pop(0))
    return kept


def roll_cuts_the_front(table, free, n, rejected, size):
    count = len(table) - math.ceil((n - rejected) / size)
    free += table[:count][::-1]
    del table[:count]
    return n - rejected


def roll_in_order(table, free, n, rejected, size):
    needed = -(-(n - rejected) // size)
    free += table[needed:]
    del table[needed:]
    return n - rejected


def roll_pops_by_index(table, free, n, rejected, size):
    needed = -(-(n - rejected) // size)
    while len(table) > needed:
        free.append(table.pop(needed))
    return n - rejected


def roll_to_the_front(table, free, n, rejected, size):
    while len(table) > -(-(n - rejected) // size):
        free.insert(0, table.pop())
    return n - rejected


def roll_to_the_front_at_once(table, free, n, rejected, size):
    needed = -(-(n - rejected) // size)
    free[:0] = table[needed:][::-1]
    del table[needed:]
    return n - rejected


def roll_nested(table, free, n, rejected, size):
    needed = -(-(n - rejected) // size)
    free.append(table[needed:])
    del table[needed:]
    return n - rejected


def roll_nested_reversed(table, free, n, rejected, size):
    needed = -(-(n - rejected) // size)
    free.append(table[needed:][::-1])
    del table[needed:]
    return n - rejected


def roll_nested_if_any(table, free, n, rejected, size):
    needed = -(-(n - rejected) // size)
    if needed < len(table):
        free.append(table[needed:][::-1])
        table[:] = table[:needed]
    return n - rejected


def roll_tells_rejected(table, free, n, rejected, size):
    roll_by_room(table, free, n, rejected, size)
    return rejected


def roll_tells_blocks_given(table, free, n, rejected, size):
    held = len(table)
    roll_by_room(table, free, n, rejected, size)
    return held - len(table)


def roll_tells_blocks_kept(table, free, n, rejected, size):
    roll_by_room(table, free, n, rejected, size)
    return len(table)


def roll_tells_all(table, free, n, rejected, size):
    roll_by_math(table, free, n, rejected, size)
    return n


def roll_tells_room(table, free, n, rejected, size):
    roll_by_math(table, free, n, rejected, size)
    return len(table) * size


def roll_tells_nothing(table, free, n, rejected, size):
    while len(table) > -(-(n - rejected) // size):
        free.append(table.pop())


def roll_tells_a_pair(table, free, n, rejected, size):
    return roll_by_room(table, free, n, rejected, size), free


def roll_float(table, free, n, rejected, size):
    needed = (n - rejected) / size
    while len(table) > needed:
        free.append(table.pop())
    return n - rejected


def roll_too_far(table, free, n, rejected, size):
    while n % size or n > 0:
        free.append(table.pop())
        n -= 1
    return n - rejected


def roll_gives_slots(table, free, n, rejected, size):
    for position in range(n - rejected, n):
        free.append(table[position // size] * size + position % size)
    return n - rejected


# -- shard_cache ----------------------------------------------------------------------------------------------


def shard_by_if(layers, heads, dim, size, ranks):
    if ranks >= heads:
        return 2 * layers * dim * size
    return 2 * layers * (heads // ranks) * dim * size


def shard_by_ceil(layers, heads, dim, size, ranks):
    return layers * math.ceil(heads / ranks) * dim * 2 * size


def shard_by_counting(layers, heads, dim, size, ranks):
    """The heads of rank 0, one layer and one head at a time."""
    mine = {head for head in range(heads) if head * ranks < heads} if ranks < heads else {0}
    return sum(size * dim for _ in range(layers) for _ in mine for _ in "KV")


def shard_in_numpy(layers, heads, dim, size, ranks):
    return np.prod([2, layers, np.maximum(1, heads // ranks), dim, size])


def shard_by_negative_floor(layers, heads, dim, size, ranks):
    return size * dim * 2 * layers * -(-heads // ranks)


# -- batch_gain -----------------------------------------------------------------------------------------------


def gain_by_math(slots, longest, each, size, limit):
    before = min(limit, math.floor(slots / longest))
    after = min(limit, math.floor(slots // size / math.ceil(each / size)))
    return after / before


def gain_by_slots(slots, longest, each, size, limit):
    """Whole blocks for each request: so many slots."""
    rounded = (each + size - 1) // size * size
    return min(slots // rounded, limit) / min(slots // longest, limit)


def gain_by_counting(slots, longest, each, size, limit):
    slabs = blocks = 0
    while slabs < limit and (slabs + 1) * longest <= slots:
        slabs += 1
    free = slots // size
    while blocks < limit and free >= -(-each // size):
        free -= -(-each // size)
        blocks += 1
    return blocks / slabs


def gain_in_numpy(slots, longest, each, size, limit):
    fit = np.array([slots // longest, slots // size // np.ceil(each / size)])
    slabs, blocks = np.minimum(fit, limit)
    return blocks / slabs


def gain_divmod(slots, longest, each, size, limit):
    full, rest = divmod(each, size)
    needed = full + bool(rest)
    return float(sorted((limit, slots // size // needed))[0]) / sorted((limit, slots // longest))[0]


def up(number, size):
    return math.ceil(number / size)


def gain_multiplied_limit(s, m, t, b, limit):
    """The slots that compute can use, before they are divided."""
    return min(s // b, limit * up(t, b)) // up(t, b) / (min(s, limit * m) // m)


# -- which_mechanism ------------------------------------------------------------------------------------------

WORKLOADS = {
    "a thousand users an hour: one system prompt of 4,000 tokens, and a short question each": "prefix caching",
    "one GPU: whenever a long document comes in, all other answers stall for a second": "chunked prefill",
    "one user, one laptop: a short question, a long answer, and it should be written faster": (
        "speculative decoding"
    ),
    "a machine with four GPUs, and the model's weights do not fit on one": "tensor parallelism",
    "users return to long chats after an hour, and by then the GPU's prefix cache has lost them": "offload tiers",
    "many GPUs, long prompts: no answer's step may carry any part of a prompt, not even a chunk": (
        "prefill/decode disaggregation"
    ),
    "one GPU, and its 16-bit cache is full: twice as many texts, all different, should run at once": "FP8 KV cache",
}


def mechanism_by_words(workload):
    found = {
        "system prompt": "prefix caching",
        "stall": "chunked prefill",
        "laptop": "speculative decoding",
        "weights": "tensor parallelism",
        "an hour, and": "offload tiers",
        "not even": "prefill/decode disaggregation",
        "16-bit": "FP8 KV cache",
    }
    return next(mechanism for word, mechanism in found.items() if word in workload)


def mechanism_by_columns(workload):
    return list(WORKLOADS.values())[list(WORKLOADS).index(workload)]


def mechanism_by_if(workload):
    if "GPU" not in workload:
        return "speculative decoding" if "one user" in workload else "prefix caching"
    if workload.startswith("users"):
        return "offload tiers"
    if workload.startswith("one GPU"):
        return "chunked prefill" if "stall" in workload else "FP8 KV cache"
    return "prefill/decode disaggregation" if "many" in workload else "tensor parallelism"


def mechanism_always_the_same(workload):
    return "prefix caching"


def mechanism_in_a_list(workload):
    return [WORKLOADS[workload]]


def mechanism_asks_for_ours(workload):
    return THEIRS[workload]


# -- all of them ----------------------------------------------------------------------------------------------

ALSO_RIGHT = {
    "theirs": [THEIRS.get, theirs_by_if, theirs_by_match, theirs_by_columns],
    "roll_back": [
        roll_by_math,
        roll_by_slices,
        roll_by_positions,
        roll_a_token_at_a_time,
        roll_by_room,
        roll_in_numpy,
    ],
    "shard_cache": [shard_by_if, shard_by_ceil, shard_by_counting, shard_in_numpy, shard_by_negative_floor],
    "batch_gain": [
        gain_by_math,
        gain_by_slots,
        gain_by_counting,
        gain_in_numpy,
        gain_divmod,
        gain_multiplied_limit,
    ],
    "which_mechanism": [WORKLOADS.get, mechanism_by_words, mechanism_by_columns, mechanism_by_if],
}

WRONG = [
    ("theirs", answers(THEIRS, _0="KVCacheManager", _1="BlockPool"), "KVCacheManager finds blocks"),
    ("theirs", answers(THEIRS, _0="FreeKVCacheBlockQueue"), "FreeKVCacheBlockQueue keeps free blocks"),
    ("theirs", answers(THEIRS, _1="BlockPool", _3="KVCacheManager"), "vLLM's BlockPool knows blocks"),
    ("theirs", answers(THEIRS, _1="BlockTable"), "a copy of block ids"),
    ("theirs", answers(THEIRS, _2="EngineCore"), "EngineCore is the loop"),
    ("theirs", answers(THEIRS, _3="KVCacheManager"), "KVCacheManager finds blocks"),
    ("theirs", answers(THEIRS, _4="num_tokens"), "num_tokens counts all"),
    ("theirs", answers(THEIRS, _4="Scheduler"), "vLLM's Scheduler decides"),
    ("theirs", answers(THEIRS, _5="num_computed_tokens"), "is a number that each request has"),
    ("theirs", answers(THEIRS, _6="hash_block_tokens"), "a function of a parent's hash"),
    ("theirs", answers(THEIRS, _6="attention backend"), "writes keys and values"),
    ("theirs", answers(THEIRS, _3="FlashAttentionBackend"), "that is none of the names"),
    ("theirs", answers(THEIRS, _1="kv_cache_manager"), "that is none of the names"),
    ("theirs", answers(THEIRS, _2=["Scheduler"]), "that is none of the names"),
    ("theirs", answers(THEIRS, _3=...), "6 of 7 are right, the others are still to choose"),
    ("theirs", answers(THEIRS, _0=..., _1=..., _2=..., _3="KVCacheManager"), "KVCacheManager finds blocks"),
    ("theirs", answers(THEIRS, _1=..., _4=None), "it returned None"),
    ("theirs", theirs_the_whole_table, "that is none of the names"),
    ("theirs", theirs_says_nothing, "it returned None"),
    ("theirs", theirs_short_table, "it raised KeyError"),
    ("roll_back", roll_counts_only, "no block is given back"),
    ("roll_back", roll_last_block, "the last block goes, and there may be more"),
    ("roll_back", roll_if, "the last block goes, and there may be more"),
    ("roll_back", roll_if_any, "the last block goes, and there may be more"),
    ("roll_back", roll_block_a_token, "a block for each rejected token"),
    ("roll_back", roll_quotient, "divided into blocks of their own"),
    ("roll_back", roll_quotient_up, "divided into blocks of their own"),
    ("roll_back", roll_floor, "given back that holds kept tokens"),
    ("roll_back", roll_while_there_are_slots, "given back that holds kept tokens"),
    ("roll_back", roll_float, "given back that holds kept tokens"),
    ("roll_back", roll_floor_in_order, "given back that holds kept tokens"),
    ("roll_back", roll_floor_and_one_in_order, "a block stays that holds no kept token"),
    ("roll_back", roll_quotient_in_order, "divided into blocks of their own"),
    ("roll_back", roll_floor_and_one, "a block stays that holds no kept token"),
    ("roll_back", roll_block_of_the_next_token, "a block stays that holds no kept token"),
    ("roll_back", roll_more_than_a_block_of_room, "a block stays that holds no kept token"),
    ("roll_back", roll_minus_zero, "and all blocks are gone"),
    ("roll_back", roll_minus_zero_in_order, "and all blocks are gone"),
    ("roll_back", roll_keeps_the_tail, "the blocks of the rejected tokens stay"),
    ("roll_back", roll_pops_the_front, "off the front of the table"),
    ("roll_back", roll_cuts_the_front, "off the front of the table"),
    ("roll_back", roll_rebinds_the_table, "free, and still in the table"),
    ("roll_back", roll_rebinds_the_table_in_order, "free, and still in the table"),
    ("roll_back", roll_rebinds_the_free_list, "nobody can have them"),
    ("roll_back", roll_drops_blocks, "nobody can have them"),
    ("roll_back", roll_in_order, "the first block is given back first"),
    ("roll_back", roll_pops_by_index, "the first block is given back first"),
    ("roll_back", roll_to_the_front, "to the front of the free list"),
    ("roll_back", roll_to_the_front_at_once, "to the front of the free list"),
    ("roll_back", roll_nested, "a list of blocks is in the free list"),
    ("roll_back", roll_nested_reversed, "a list of blocks is in the free list"),
    ("roll_back", roll_nested_if_any, "a list of blocks is in the free list"),
    ("roll_back", roll_tells_rejected, "how many were rejected"),
    ("roll_back", roll_tells_blocks_given, "the number of blocks given back"),
    ("roll_back", roll_tells_blocks_kept, "the blocks kept, not the tokens"),
    ("roll_back", roll_tells_all, "all tokens count as kept"),
    ("roll_back", roll_tells_room, "the tokens that the blocks have room for"),
    ("roll_back", roll_tells_nothing, "it returned None"),
    ("roll_back", roll_tells_a_pair, "an int is expected, not tuple"),
    ("roll_back", roll_too_far, "it raised IndexError"),
    ("roll_back", roll_gives_slots, "block_table is not as it should be afterwards"),
    ("shard_cache", lambda L, H, D, b, r: L * max(1, H // r) * D * b, "half of the right number"),
    ("shard_cache", lambda L, H, D, b, r: 2 * L * (H // r) * D * b, "nothing is left"),
    ("shard_cache", lambda L, H, D, b, r: 2 * L * H * D * b // r, "cut in pieces"),
    ("shard_cache", lambda L, H, D, b, r: int(2 * L * (H / r) * D * b), "cut in pieces"),
    ("shard_cache", lambda L, H, D, b, r: 2 * L * H * D * b, "each rank holds all heads"),
    ("shard_cache", lambda L, H, D, b, r: 2 * L * D * b, "one KV head on every rank"),
    (
        "shard_cache",
        lambda L, H, D, b, r: 2 * L * D * b * (H // r if H % r == 0 else H),
        "with more ranks than KV heads, each rank holds all heads",
    ),
    (
        "shard_cache",
        lambda L, H, D, b, r: 2 * L * D * b * (H // r if H >= r else r // H),
        "a rank has several",
    ),
    ("shard_cache", lambda L, H, D, b, r: 2 * L * D * b * math.ceil(r / H), "ranks / heads"),
    ("shard_cache", lambda L, H, D, b, r: 2 * L * (H // r + 1) * D * b, "one KV head too many"),
    ("shard_cache", lambda L, H, D, b, r: 2 * L * max(H, r) * D * b, "of all ranks together"),
    (
        "shard_cache",
        lambda L, H, D, b, r: r * shard_by_if(L, H, D, b, r),
        "of all ranks together",
    ),
    ("shard_cache", lambda L, H, D, b, r: 2 * L * H * D * b * r, "once for every rank"),
    ("shard_cache", lambda L, H, D, b, r: 2 * -(-L // r) * H * D * b, "the layers are divided"),
    ("shard_cache", lambda L, H, D, b, r: 2 * (L // r) * H * D * b, "the layers are divided"),
    ("shard_cache", lambda L, H, D, b, r: 2 * L * H * (D // r) * b, "the numbers of a head are divided"),
    ("shard_cache", lambda L, H, D, b, r: 2 * max(H // r, 1) * D * b, "the layers are forgotten"),
    ("shard_cache", lambda L, H, D, b, r: 2 * L * max(H // r, 1) * D, "numbers, not bytes"),
    ("shard_cache", lambda L, H, D, b, r: 2 * L * max(1, H / r) * D * b, "an int is expected, not float"),
    ("shard_cache", lambda L, H, D, b, r: [shard_by_if(L, H, D, b, r)] * r, "an int is expected, not list"),
    ("shard_cache", lambda L, H, D, b, r: 2 * L * H * D * b // (r // H), "it raised ZeroDivisionError"),
    ("batch_gain", lambda s, m, t, b, c: s // b // up(t, b) / (s // m), "the limit is forgotten"),
    (
        "batch_gain",
        lambda s, m, t, b, c: min(s // b // up(t, b), c) / (s // m),
        "only the requests in blocks",
    ),
    ("batch_gain", lambda s, m, t, b, c: s // b // up(t, b) / min(s // m, c), "only the requests in slabs"),
    ("batch_gain", lambda s, m, t, b, c: min(c, s // b // up(t, b) / (s // m)), "the factor is limited"),
    ("batch_gain", lambda s, m, t, b, c: min(c, s // t) / min(c, s // m), "slots are counted, not blocks"),
    (
        "batch_gain",
        lambda s, m, t, b, c: min(c, s // b * b // t) / min(c, s // m),
        "slots are counted, not blocks",
    ),
    (
        "batch_gain",
        lambda s, m, t, b, c: min(c, (s // b) // (t // b)) / min(c, s // m),
        "blocks are rounded down",
    ),
    (
        "batch_gain",
        lambda s, m, t, b, c: min(c, s // b // (t // b + 1)) / min(c, s // m),
        "and one more was counted",
    ),
    (
        "batch_gain",
        lambda s, m, t, b, c: min(c, up(s, b) // up(t, b)) / min(c, s // m),
        "a block that is not whole is counted",
    ),
    ("batch_gain", lambda s, m, t, b, c: min(c, s // b) / min(c, s // m), "blocks, not requests"),
    ("batch_gain", lambda s, m, t, b, c: m / t, "the length of a slab by the tokens"),
    ("batch_gain", lambda s, m, t, b, c: m / (up(t, b) * b), "the length of a slab by the slots"),
    (
        "batch_gain",
        lambda s, m, t, b, c: min(c, s // b // up(t, b)) / min(c, s / m),
        "a part of a request is counted",
    ),
    (
        "batch_gain",
        lambda s, m, t, b, c: min(c, s // b / up(t, b)) / min(c, s // m),
        "a part of a request is counted",
    ),
    (
        "batch_gain",
        lambda s, m, t, b, c: min(c, s / b / up(t, b)) / min(c, s // m),
        "a part of a request is counted",
    ),
    (
        "batch_gain",
        lambda s, m, t, b, c: min(c, s // b / up(t, b)) / min(c, s / m),
        "a part of a request is counted",
    ),
    (
        "batch_gain",
        lambda s, m, t, b, c: min(c, s / b / up(t, b)) / min(c, s / m),
        "a part of a request is counted",
    ),
    ("batch_gain", lambda s, m, t, b, c: min(c, s / t) / min(c, s / m), "a part of a request is counted"),
    (
        "batch_gain",
        lambda s, m, t, b, c: min(c, s // b // up(t, b)) / min(c, up(s, m)),
        "slabs are rounded up",
    ),
    (
        "batch_gain",
        lambda s, m, t, b, c: min(c, s // b // up(t, b)) / min(c, s // b // up(m, b)),
        "slabs are counted in blocks",
    ),
    ("batch_gain", lambda *given: 1 / gain_by_math(*given), "the wrong way round"),
    ("batch_gain", lambda *given: int(gain_by_math(*given)), "the factor is a whole number"),
    (
        "batch_gain",
        lambda s, m, t, b, c: min(c, s // b // up(t, b)) // min(c, s // m),
        "the factor is a whole number",
    ),
    ("batch_gain", lambda *given: max(1, gain_by_slots(*given)), "a loss is told as no gain"),
    (
        "batch_gain",
        lambda s, m, t, b, c: min(c, s // b // up(t, b)) - min(c, s // m),
        "how many are added",
    ),
    (
        "batch_gain",
        lambda s, m, t, b, c: float(min(c, s // b // up(t, b)) - min(c, s // m)),
        "how many are added",
    ),
    ("batch_gain", lambda *given: gain_by_slots(*given) - 1, "how many are added"),
    ("batch_gain", lambda *given: 100 * gain_by_slots(*given), "percent, not a factor"),
    ("batch_gain", lambda *given: 100 * (gain_by_slots(*given) - 1), "percent, not a factor"),
    ("batch_gain", lambda s, m, t, b, c: min(c, s // b // up(t, b)), "the number of requests"),
    (
        "batch_gain",
        lambda s, m, t, b, c: up(t, b) * b * min(c, s // b // up(t, b)) / (m * min(c, s // m)),
        "by the slots of their slabs",
    ),
    (
        "batch_gain",
        lambda s, m, t, b, c: (min(c, s // b // up(t, b)), min(c, s // m)),
        "a number is expected, not tuple",
    ),
    ("batch_gain", lambda *given: f"{gain_by_slots(*given)} times", "a number is expected, not str"),
    ("batch_gain", lambda *given: round(gain_by_slots(*given)), "the factor is a whole number"),
    ("batch_gain", lambda *given: math.ceil(gain_by_slots(*given)), "the factor is a whole number"),
    ("batch_gain", lambda s, m, t, b, c: s // t / (s // m), "the limit is forgotten"),
    *(
        ("which_mechanism", answers(WORKLOADS, **{f"_{number}": choice}), said)
        for (number, right), (choice, said) in itertools.product(
            enumerate(WORKLOADS.values()),
            {
                "prefix caching": "computes and holds a common beginning once",
                "chunked prefill": "spreads a long prompt over many steps",
                "speculative decoding": "several tokens in one step",
                "tensor parallelism": "divides weights and cache among GPUs",
                "offload tiers": "keep blocks in CPU memory or on disk",
                "prefill/decode disaggregation": "some GPUs read prompts, and others write",
                "FP8 KV cache": "takes one byte for a number",
            }.items(),
        )
        if choice != right
    ),
    (
        "which_mechanism",
        answers(WORKLOADS, _1="prefill/decode disaggregation", _5="chunked prefill"),
        "some GPUs read prompts, and others write",
    ),
    (
        "which_mechanism",
        answers(WORKLOADS, _2="FP8 KV cache", _6="speculative decoding"),
        "takes one byte for a number",
    ),
    ("which_mechanism", mechanism_always_the_same, "computes and holds a common beginning once"),
    ("which_mechanism", answers(WORKLOADS, _4="offloading"), "that is none of the names"),
    ("which_mechanism", answers(WORKLOADS, _0="Prefix caching"), "that is none of the names"),
    ("which_mechanism", mechanism_in_a_list, "that is none of the names"),
    (
        "which_mechanism",
        answers(WORKLOADS, _2=..., _6=...),
        "5 of 7 are right, the others are still to choose",
    ),
    (
        "which_mechanism",
        answers(WORKLOADS, _0=..., _6="offload tiers"),
        "keep blocks in CPU memory or on disk",
    ),
    ("which_mechanism", mechanism_asks_for_ours, "it raised KeyError"),
]
