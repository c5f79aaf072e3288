"""Exercises of 05_gpu_kernel, in Triton: the pointer, the pointer beyond 2^31, the tail mask, and GQA packing."""

import torch

from course_lib.teaching.check import Exercise, Mistake
from course_lib.teaching.kernel_lab import run_watched, tl, triton

# -- locate ---------------------------------------------------------------------------------------------------


@triton.jit
def locate(
    place_ptr, table_ptr, start, kv_head,
    HKV: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Where the keys of positions start .. start + TILE - 1 begin in key_cache [N, P, HKV, D]."""
    position = start + tl.arange(0, TILE)
    block = tl.load(table_ptr + position // P)
    place = ((block * P + position % P) * HKV + kv_head) * D
    tl.store(place_ptr + tl.arange(0, TILE), place)


def _launch_locate(kernel, block_table, start, kv_head, HKV, D, P, TILE):
    place = torch.full((TILE,), -1, dtype=torch.int64)
    table = torch.tensor(block_table, dtype=torch.int32)
    run_watched(kernel, (1,), place, table, start, kv_head, HKV, D, P, TILE)
    return place


def _places(rule):
    """A wrong rule for the place of one position: rule(table, position, kv_head, HKV, D, P)."""

    def wrong(block_table, start, kv_head, HKV, D, P, TILE):
        found = [rule(block_table, start + i, kv_head, HKV, D, P) for i in range(TILE)]
        return torch.tensor(found, dtype=torch.int64)

    return wrong


def _in_the_first_block(block_table, start, kv_head, HKV, D, P, TILE):
    block = block_table[start // P]
    places = [((block * P + position % P) * HKV + kv_head) * D for position in range(start, start + TILE)]
    return torch.tensor(places, dtype=torch.int64)


def _locate_cases():
    return [
        dict(block_table=[5, 2, 7, 0], start=start, kv_head=head, HKV=kv_heads, D=dim, P=size, TILE=8)
        for start, head, kv_heads, dim, size in [
            (0, 1, 2, 16, 4),
            (4, 0, 3, 16, 4),
            (3, 2, 3, 8, 16),
            (3, 1, 2, 16, 4),
        ]
    ]


LOCATE = Exercise(
    name="locate",
    minutes=8,
    difficulty="medium",
    proves="a tile of positions becomes a tile of addresses, and no key has moved.",
    solution=locate,
    cases=_locate_cases,
    mistakes=(
        Mistake(
            "the block table is not asked",
            "position // P is the logical block; the table says which physical one that is",
            _places(lambda t, p, h, H, D, P: (p * H + h) * D),
        ),
        Mistake(
            "every position is looked up in the block of the first",
            "each position of the tile has an entry of its own: position // P, not start // P",
            _in_the_first_block,
        ),
        Mistake(
            "the block number is used as a slot",
            "a block has P slots: block x P comes before the offset is added",
            _places(lambda t, p, h, H, D, P: ((t[p // P] + p % P) * H + h) * D),
        ),
        Mistake(
            "every token lands at the start of its block",
            "the place in the block is position % P",
            _places(lambda t, p, h, H, D, P: (t[p // P] * P * H + h) * D),
        ),
        Mistake(
            "the heads of a block lie as if each had its P tokens together",
            "key_cache is [N, P, HKV, D]: within a slot all heads follow one another",
            _places(lambda t, p, h, H, D, P: ((t[p // P] * H + h) * P + p % P) * D),
        ),
        Mistake(
            "the KV head is left out",
            "each slot holds HKV heads: kv_head says which one",
            _places(lambda t, p, h, H, D, P: (t[p // P] * P + p % P) * H * D),
        ),
        Mistake(
            "a slot is taken to hold one head",
            "a slot holds HKV heads of D numbers",
            _places(lambda t, p, h, H, D, P: (t[p // P] * P + p % P + h) * D),
        ),
        Mistake(
            "it counts heads, not numbers",
            "each head has D numbers: x D at the end",
            _places(lambda t, p, h, H, D, P: (t[p // P] * P + p % P) * H + h),
        ),
        Mistake(
            "the head is added as if it were one number long",
            "kv_head is a number of heads: it takes part in the x D",
            _places(lambda t, p, h, H, D, P: (t[p // P] * P + p % P) * H * D + h),
        ),
    ),
    hints=(
        "Go down the shape of key_cache, [N, P, HKV, D]: block, offset in the block, head, and then x D. Each step "
        "multiplies by the next size and adds the next index.",
        "block = the table's entry number (position // P)\nslot = block x P + position % P\n"
        "place = (slot x HKV + kv_head) x D",
        "block = tl.load(table_ptr + position // P)\nplace = ((block * P + position % P) * HKV + kv_head) * D",
    ),
    look_at="block, offset, head, number: which of the four goes wrong?",
    launch=_launch_locate,
)

# -- far_place ------------------------------------------------------------------------------------------------


@triton.jit
def far_place(place_ptr, slot_ptr, kv_head, HKV: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr):
    """(slot x HKV + kv_head) x D, for a cache of any size."""
    slot = tl.load(slot_ptr + tl.arange(0, TILE))  # int32
    place = (slot.to(tl.int64) * HKV + kv_head) * D
    tl.store(place_ptr + tl.arange(0, TILE), place)


def _launch_far_place(kernel, slots, kv_head, HKV, D):
    place = torch.full((len(slots),), -1, dtype=torch.int64)
    run_watched(kernel, (1,), place, torch.tensor(slots, dtype=torch.int32), kv_head, HKV, D, len(slots))
    return place


def _as_int32(number):
    return (number + 2**31) % 2**32 - 2**31


def _far(rule):
    def wrong(slots, kv_head, HKV, D):
        return torch.tensor([int(rule(slot, kv_head, HKV, D)) for slot in slots], dtype=torch.int64)

    return wrong


def _in_float32(slot, head, heads, dim):
    return (torch.tensor(slot, dtype=torch.float32) * heads + head) * dim


def _far_cases():
    return [
        dict(slots=[0, 1_000, 262_143, 2_097_151], kv_head=7, HKV=8, D=128),
        dict(slots=[2_097_151, 2_097_152, 3_000_001, 5_000_003], kv_head=5, HKV=8, D=128),
        dict(slots=[300_000_001, 1_500_000_007], kv_head=3, HKV=4, D=64),
    ]


FAR_PLACE = Exercise(
    name="far_place",
    minutes=6,
    difficulty="easy",
    proves="one cast, before the product, and the cache may be as large as memory.",
    solution=far_place,
    cases=_far_cases,
    mistakes=(
        Mistake(
            "from 2^31 on the places are negative, or wrong",
            "int32 x int32 is int32: cast before the product, not after it",
            _far(lambda s, h, H, D: _as_int32((s * H + h) * D)),
        ),
        Mistake(
            "it is right up to 2^32, and wraps there",
            "32 bits are too few, with or without a sign: tl.int64",
            _far(lambda s, h, H, D: (s * H + h) * D % 2**32),
        ),
        Mistake(
            "the first product is still int32",
            "slot x HKV wraps, too, once there are 2^31 / HKV slots: cast the slot itself",
            _far(lambda s, h, H, D: _as_int32(s * H + h) * D),
        ),
        Mistake(
            "large places are rounded",
            "a float32 holds whole numbers exactly up to 2^24 only",
            _far(_in_float32),
        ),
        Mistake("the KV head is left out", "(slot x HKV + kv_head) x D", _far(lambda s, h, H, D: s * H * D)),
        Mistake(
            "the head is added as if it were one number long",
            "(slot x HKV + kv_head) x D: the head takes part in the x D",
            _far(lambda s, h, H, D: s * H * D + h),
        ),
    ),
    hints=(
        "Which product is the first that does not fit into 31 bits? What type do its factors have?",
        "cast slot to int64\nthen (slot x HKV + kv_head) x D",
        "place = (slot.to(tl.int64) * HKV + kv_head) * D",
    ),
    look_at="the type of each product: what is int32 x int32?",
    launch=_launch_far_place,
)

# -- sum_tile -------------------------------------------------------------------------------------------------


@triton.jit
def sum_tile(
    out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr
):
    """The sum of the values of positions 0 .. context_len - 1, of a cache [N, P, D] with one head."""
    position = tl.arange(0, TILE)
    dim = tl.arange(0, D)
    is_token = position < context_len
    block = tl.load(table_ptr + position // P, mask=is_token, other=0)
    place = (block * P + position % P)[:, None] * D + dim[None, :]
    value = tl.load(value_ptr + place, mask=is_token[:, None], other=0.0)
    tl.store(out_ptr + dim, tl.sum(value, axis=0))


def _launch_sum_tile(kernel, value_cache, block_table, context_len, TILE):
    _, size, dim = value_cache.shape
    out = torch.zeros(dim)
    table = torch.tensor(block_table, dtype=torch.int32)
    run_watched(kernel, (1,), out, value_cache, table, context_len, size, dim, TILE)
    return out


def _summed(value_cache, block_table, positions):
    """The values of some positions, added up; a position without a block reads block 0."""
    size, num_blocks = value_cache.shape[1], len(value_cache)
    total = torch.zeros(value_cache.shape[2])
    for position in positions:
        entry = position // size
        block = block_table[entry] if entry < len(block_table) else 0
        total += value_cache[block if 0 <= block < num_blocks else 0, position % size]
    return total


def _sum_table_masked_only(value_cache, block_table, context_len, TILE):
    size = value_cache.shape[1]
    behind = [value_cache[0, position % size] for position in range(context_len, TILE)]
    return _summed(value_cache, block_table, range(context_len)) + sum(behind, torch.zeros(()))


def _sum_without_other(value_cache, block_table, context_len, TILE):
    total = _summed(value_cache, block_table, range(context_len))
    return total if context_len == TILE else torch.full_like(total, torch.nan)


def _sum_whole_blocks(value_cache, block_table, context_len, TILE):
    size = value_cache.shape[1]
    return _summed(value_cache, block_table, range(-(-context_len // size) * size))


def _sum_full_blocks(value_cache, block_table, context_len, TILE):
    size = value_cache.shape[1]
    return _summed(value_cache, block_table, range(context_len // size * size))


def _sum_one_more(value_cache, block_table, context_len, TILE):
    return _summed(value_cache, block_table, range(context_len + 1))


def _sum_one_less(value_cache, block_table, context_len, TILE):
    return _summed(value_cache, block_table, range(context_len - 1))


def _sum_ones_behind(value_cache, block_table, context_len, TILE):
    return _summed(value_cache, block_table, range(context_len)) + (TILE - context_len)


def _sum_times_the_mask(value_cache, block_table, context_len, TILE):
    behind = [value_cache[0, position % value_cache.shape[1]] for position in range(context_len, TILE)]
    return _summed(value_cache, block_table, range(context_len)) + 0 * sum(behind, torch.zeros(()))


def _sum_tile_cases():
    make = torch.Generator().manual_seed(8)
    cases = []
    for size, table, length, stale in [
        (4, [5, 2, 7], 9, None),  # what is stale looks like any other number
        (4, [1, 6, 0, 3], 6, torch.nan),
        (2, [3, 0, 5, 1, 7], 9, None),
        (8, [2, 2_000_000_000], 7, 9.0),  # an unused entry of the table may hold anything
    ]:
        cache = torch.randn(8, size, 4, generator=make)
        if stale is not None:
            held = {(table[p // size], p % size) for p in range(length)}
            for block in range(8):
                for offset in range(size):
                    if (block, offset) not in held and (block, offset) != (0, 0):
                        cache[block, offset] = stale
        cases.append(dict(value_cache=cache, block_table=table, context_len=length, TILE=16))
    return cases


SUM_TILE = Exercise(
    name="sum_tile",
    minutes=8,
    difficulty="medium",
    proves="lanes behind the end touch no memory, and add nothing.",
    solution=sum_tile,
    cases=_sum_tile_cases,
    mistakes=(
        Mistake(
            "lanes behind the end read block 0",
            "the table is masked, and the values need a mask as well",
            _sum_table_masked_only,
        ),
        Mistake(
            "lanes behind the end hold nothing that is defined",
            "a masked load without `other` may return anything: other=0.0 adds nothing",
            _sum_without_other,
        ),
        Mistake(
            "stale slots are read, and multiplied by 0",
            "0 x NaN is NaN: a masked load keeps them out, multiplying does not",
            _sum_times_the_mask,
        ),
        Mistake(
            "the stale tail of the last block is added",
            "the context ends within a block: compare the position with context_len",
            _sum_whole_blocks,
        ),
        Mistake(
            "the partly filled last block is missing",
            "compare the position with context_len, not blocks with blocks",
            _sum_full_blocks,
        ),
        Mistake("one slot too many is read", "positions 0 .. context_len - 1", _sum_one_more),
        Mistake("the last token is missing", "positions 0 .. context_len - 1", _sum_one_less),
        Mistake("lanes behind the end add 1 each", "other=0.0 adds nothing", _sum_ones_behind),
    ),
    hints=(
        "TILE lanes, and only context_len of them stand for a token. Two loads must know which: the table's, because "
        "unused entries may hold anything, and the values', because the slots behind the end are stale.",
        "is_token = position < context_len\nboth loads take it as their mask\n"
        "the values' mask needs a second axis, and a masked value must add nothing",
        "is_token = position < context_len\n"
        "block = tl.load(table_ptr + position // P, mask=is_token, other=0)\n"
        "value = tl.load(value_ptr + place, mask=is_token[:, None], other=0.0)",
    ),
    look_at="which lanes hold a token, and what the others add to the sum",
    launch=_launch_sum_tile,
)  # fmt: skip

# -- packed_scores --------------------------------------------------------------------------------------------


@triton.jit
def packed_scores(
    score_ptr, query_ptr, key_ptr,
    HKV: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """query [HKV x GROUP, D], key [TILE, HKV, D] -> score [HKV x GROUP, TILE], not scaled."""
    kv_head, in_group = tl.program_id(0), tl.arange(0, GP)
    dim, token = tl.arange(0, D), tl.arange(0, TILE)
    head = kv_head * GROUP + in_group
    is_head = in_group < GROUP
    query = tl.load(query_ptr + head[:, None] * D + dim[None, :], mask=is_head[:, None], other=0.0)
    key = tl.load(key_ptr + (token[:, None] * HKV + kv_head) * D + dim[None, :])
    score = tl.dot(query, tl.trans(key), input_precision="ieee")
    tl.store(score_ptr + head[:, None] * TILE + token[None, :], score, mask=is_head[:, None])


def _launch_packed_scores(kernel, query, key, GROUP, GP):
    tile, kv_heads, dim = key.shape
    score = torch.zeros(len(query), tile)
    run_watched(kernel, (kv_heads,), score, query, key, kv_heads, GROUP, GP, dim, tile)
    return score


def _scored(query, key, kv_head, scale=1.0):
    """Scores with some other choice of the KV head for each query head."""
    heads = torch.tensor([kv_head(head) for head in range(len(query))])
    return scale * torch.einsum("hd,thd->ht", query, key[:, heads])


def _scores_interleaved(query, key, GROUP, GP):
    return _scored(query, key, lambda head: head % key.shape[1])


def _scores_scaled(query, key, GROUP, GP):
    return _scored(query, key, lambda head: head // GROUP, query.shape[1] ** -0.5)


def _scores_first_group(query, key, GROUP, GP):
    """Rows of all other heads are left as they are."""
    score = torch.zeros(len(query), len(key))
    for kv_head in range(key.shape[1]):
        score[kv_head * GROUP] = key[:, kv_head] @ query[kv_head * GROUP]
    return score


def _scores_one_kv_head(query, key, GROUP, GP):
    return _scored(query, key, lambda head: 0)


def _scores_summed_dims_only(query, key, GROUP, GP):
    return query.sum(1, keepdim=True) * key.sum(2)[:, torch.arange(len(query)) // GROUP].T


def _scores_one_query(query, key, GROUP, GP):
    """Every head of a group gets the score of the group's first."""
    first = query[torch.arange(len(query)) // GROUP * GROUP]
    return _scored(first, key, lambda head: head // GROUP)


def _packed_cases():
    make = torch.Generator().manual_seed(9)
    return [
        dict(
            query=torch.randn(kv_heads * group, 16, generator=make),
            key=torch.randn(32, kv_heads, 16, generator=make),
            GROUP=group,
            GP=padded,
        )
        for kv_heads, group, padded in [(2, 4, 4), (3, 3, 4), (2, 5, 8)]
    ]


PACKED_SCORES = Exercise(
    name="packed_scores",
    minutes=12,
    difficulty="hard",
    proves="a group of query heads reads each key once.",
    solution=packed_scores,
    cases=_packed_cases,
    mistakes=(
        Mistake(
            "the heads of a group are not neighbours",
            "query head h uses KV head h // GROUP: the group of kv_head begins at kv_head x GROUP",
            _scores_interleaved,
        ),
        Mistake("the scores are scaled", "here without 1 / sqrt(D)", _scores_scaled),
        Mistake(
            "only the first head of each group has scores",
            "is_head says which of the GP rows are heads of the group: in_group < GROUP",
            _scores_first_group,
        ),
        Mistake(
            "every group uses KV head 0",
            "the program's own number is the KV head",
            _scores_one_kv_head,
        ),
        Mistake(
            "it multiplies sums",
            "a score is the sum of products: multiply number by number, then add over D",
            _scores_summed_dims_only,
        ),
        Mistake(
            "all heads of a group have the scores of the first",
            "each row of the query tile is another head",
            _scores_one_query,
        ),
    ),
    hints=(
        "The group of KV head k is GROUP neighbouring query heads. GP is GROUP padded to a power of two: rows behind "
        "the group belong to another program.",
        "head = first head of the group + in_group\nis_head = in_group is within the group\n"
        "score = query tile [GP, D] times the transposed key tile [D, TILE]",
        "head = kv_head * GROUP + in_group\nis_head = in_group < GROUP\n"
        'score = tl.dot(query, tl.trans(key), input_precision="ieee")',
    ),
    look_at="which query heads belong to the program, and the product [GP, D] x [D, TILE]",
    launch=_launch_packed_scores,
    tolerance=1e-4,
)

EXERCISES = [LOCATE, FAR_PLACE, SUM_TILE, PACKED_SCORES]  # as the notebook asks them
