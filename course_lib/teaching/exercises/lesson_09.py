"""Exercises of 09_real_engines: vLLM's names, rejected drafts, ranks, what paging gains, which mechanism helps."""

from course_lib.teaching.check import Exercise, Mistake

# -- theirs ---------------------------------------------------------------------------------------------------


def theirs(ours):
    """Our name -> the name in vLLM 0.32."""
    return {
        "BlockPool": "BlockPool",
        "PagedAllocator": "KVCacheManager",
        "Scheduler": "Scheduler",
        "BlockStore": "attention backend",
        "Progress.num_computed": "num_computed_tokens",
        "hash_block": "hash_block_tokens",
        "free list": "FreeKVCacheBlockQueue",
    }[ours]


WHAT_THEIRS_IS = {  # vLLM 0.32: what stands behind each name
    "attention backend": "an attention backend writes keys and values, and reads them",
    "BlockPool": "vLLM's BlockPool knows blocks, and no request",
    "BlockTable": "vLLM's BlockTable is a copy of block ids, for the kernels",
    "EngineCore": "EngineCore is the loop around it all: schedule, run the model, hand out tokens",
    "FreeKVCacheBlockQueue": "FreeKVCacheBlockQueue keeps free blocks in order, and nothing else",
    "hash_block_tokens": "hash_block_tokens is a function of a parent's hash and some tokens",
    "KVCacheManager": "KVCacheManager finds blocks for a request's tokens: it holds integers, no keys and values",
    "num_computed_tokens": "num_computed_tokens is a number that each request has",
    "num_tokens": "num_tokens counts all tokens of a request, computed or not",
    "Scheduler": "vLLM's Scheduler decides who runs, and for how many tokens",
}
WHAT_OURS_DOES = {
    "BlockPool": "ours hands out single blocks, counts their owners and finds cached ones: who does all that there?",
    "PagedAllocator": "ours finds the blocks for a request's next tokens: who stands between scheduler and pool there?",
    "Scheduler": "ours has a method schedule(): who has it there?",
    "BlockStore": "ours has tensors: it writes by slot and reads through block tables. Who does both there?",
    "Progress.num_computed": "ours counts the tokens whose keys and values are in the cache",
    "hash_block": "ours makes a full block's key from its tokens and the key before",
    "free list": "ours is a part of the pool: in which order are blocks handed out? Which part of theirs knows?",
}


def _all_right_but(solution, asked, choice):
    """The solution, with another choice in one case."""
    return lambda case: choice if case == asked else solution(case)


THEIRS = Exercise(
    name="theirs",
    minutes=4,
    difficulty="easy",
    proves="whoever has read this engine finds the way in vLLM's.",
    solution=theirs,
    cases=lambda: [dict(ours=name) for name in WHAT_OURS_DOES],
    choices=tuple(WHAT_THEIRS_IS),
    mistakes=tuple(
        Mistake(what_it_is, look_at, _all_right_but(theirs, ours, name))
        for ours, look_at in WHAT_OURS_DOES.items()
        for name, what_it_is in WHAT_THEIRS_IS.items()
        if name != theirs(ours)
    ),
    hints=(
        "For each of ours: does it hold tensors, block ids, requests, or one number? And which of theirs does so?",
        "vllm/v1/core/sched/scheduler.py: who runs\n"
        "vllm/v1/core/kv_cache_manager.py: blocks for a request's tokens\n"
        "vllm/v1/core/block_pool.py: all blocks, free or cached\n"
        "vllm/v1/core/kv_cache_utils.py: two of ours are here, a queue and a hash\n"
        "vllm/v1/request.py: two numbers, all tokens and those that are computed\n"
        "vllm/v1/attention/backends/: keys and values are written and read",
        'return {\n    "BlockPool": "BlockPool",\n    "PagedAllocator": "KVCacheManager",\n'
        '    "Scheduler": "Scheduler",\n    "BlockStore": "attention backend",\n'
        '    "Progress.num_computed": "num_computed_tokens",\n    "hash_block": "hash_block_tokens",\n'
        '    "free list": "FreeKVCacheBlockQueue",\n}[ours]',
    ),
    look_at="one name for each, letter for letter as in NAMES",
)

# -- roll_back ------------------------------------------------------------------------------------------------


def roll_back(block_table, free_blocks, num_tokens, num_rejected, block_size):
    """Give back the blocks behind the last token kept; how many tokens are kept."""
    kept = num_tokens - num_rejected
    while len(block_table) > -(-kept // block_size):
        free_blocks.append(block_table.pop())
    return kept


def _up(number, size):
    return -(-number // size)


def _last_block_first(table, count):
    return [table.pop() for _ in range(count)]


def _roll(
    *,
    num_given=lambda kept, rejected, held, size: held - _up(kept, size),
    take=_last_block_first,
    give=lambda free_blocks, blocks: free_blocks.extend(blocks),
    told=lambda kept, rejected, blocks, size: kept,
):
    """`roll_back` with one of its acts changed."""

    def answer(block_table, free_blocks, num_tokens, num_rejected, block_size):
        kept, held = num_tokens - num_rejected, len(block_table)
        count = min(held, max(0, num_given(kept, num_rejected, held, block_size)))
        blocks = take(block_table, count)
        give(free_blocks, blocks)
        return told(kept, num_rejected, blocks, block_size)

    return answer


def _look(table, count):
    return table[len(table) - count :][::-1]


def _first_block_first(table, count):
    return [table.pop() for _ in range(count)][::-1]


ROLL_BACK = Exercise(
    name="roll_back",
    minutes=8,
    difficulty="medium",
    proves="a wrong guess costs a few integers: nothing is erased, and what is kept does not move.",
    solution=roll_back,
    cases=lambda: [
        # two blocks go, and one stays with one token kept
        dict(block_table=[4, 7, 1, 6, 3], free_blocks=[0, 5], num_tokens=18, num_rejected=9, block_size=4),
        # the last token kept fills its block
        dict(block_table=[2, 6, 0], free_blocks=[5, 1], num_tokens=10, num_rejected=2, block_size=4),
        # nothing is rejected, and the last block is full; then it is not
        dict(block_table=[3, 0], free_blocks=[1, 4], num_tokens=8, num_rejected=0, block_size=4),
        dict(block_table=[3, 0, 5], free_blocks=[], num_tokens=7, num_rejected=0, block_size=3),
        # rejected tokens on both sides of a boundary; in one block, which stays; in one, which goes
        dict(block_table=[5, 2, 8], free_blocks=[7], num_tokens=12, num_rejected=5, block_size=5),
        dict(block_table=[1, 9], free_blocks=[0, 3], num_tokens=15, num_rejected=5, block_size=8),
        dict(block_table=[6, 1, 2, 0], free_blocks=[3], num_tokens=11, num_rejected=2, block_size=3),
        # blocks of one slot
        dict(block_table=[8, 3, 5, 2], free_blocks=[1], num_tokens=4, num_rejected=3, block_size=1),
    ],
    mistakes=(
        Mistake(
            "the tokens are counted, and no block is given back",
            "which blocks hold rejected tokens only? They go to free_blocks",
            _roll(take=lambda table, count: []),
        ),
        Mistake(
            "the last block goes, and there may be more, or none",
            "how many blocks do the kept tokens need? All behind them go",
            _roll(num_given=lambda kept, rejected, held, size: 1),
        ),
        Mistake(
            "the last block goes, and there may be more, or none",
            "how many blocks do the kept tokens need? While there are more, one goes",
            _roll(num_given=lambda kept, rejected, held, size: min(1, held - _up(kept, size))),
        ),
        Mistake(
            "the last block goes, and there may be more, or none",
            "a rejected token need not empty a block: how many blocks do the kept tokens need?",
            _roll(num_given=lambda kept, rejected, held, size: int(rejected > 0)),
        ),
        Mistake(
            "a block for each rejected token",
            "a block has block_size tokens: how many blocks do the kept ones need?",
            _roll(num_given=lambda kept, rejected, held, size: rejected),
        ),
        *(
            Mistake(
                "the rejected tokens are divided into blocks of their own",
                "where they begin counts, too: look at the kept tokens and how many blocks those need",
                _roll(
                    num_given=lambda kept, rejected, held, size, divide=divide: divide(rejected, size),
                    take=take,
                ),
            )
            for divide in (lambda rejected, size: rejected // size, _up)
            for take in (_last_block_first, _first_block_first)
        ),
        *(
            Mistake(
                "a block is given back that holds kept tokens",
                look_at,
                _roll(num_given=lambda kept, rejected, held, size: held - kept // size, take=take),
            )
            for take, look_at in (
                (_last_block_first, "a block stays if one token in it is kept: round up"),
                (
                    _first_block_first,
                    "a block stays if one token in it is kept: round up; and the last block goes first",
                ),
            )
        ),
        *(
            Mistake(
                "a block stays that holds no kept token",
                "where the kept tokens end with a full block, they need no further one: round up",
                _roll(num_given=lambda kept, rejected, held, size: held - kept // size - 1, take=take),
            )
            for take in (_last_block_first, _first_block_first)
        ),
        *(
            Mistake(
                "nothing was to give back, and all blocks are gone",
                "the last 0 elements are not [-0:]: say where the kept blocks end",
                _roll(
                    num_given=lambda kept, rejected, held, size: (held - _up(kept, size)) or held, take=take
                ),
            )
            for take in (_last_block_first, _first_block_first)
        ),
        Mistake(
            "the blocks of the rejected tokens stay, and the others are given back",
            "the rejected tokens are the last ones: the front of the table stays",
            _roll(
                num_given=lambda kept, rejected, held, size: _up(kept, size),
                take=lambda table, count: [table.pop(0) for _ in range(count)],
            ),
        ),
        *(
            Mistake(
                "blocks are taken off the front of the table",
                "the rejected tokens are the last ones, and so are their blocks",
                _roll(take=lambda table, count, step=step: [table.pop(0) for _ in range(count)][::step]),
            )
            for step in (1, -1)
        ),
        *(
            Mistake(
                "the blocks are free, and still in the table",
                "change the list itself: block_table.pop(), or del block_table[...]",
                _roll(take=take),
            )
            for take in (_look, lambda table, count: _look(table, count)[::-1])
        ),
        Mistake(
            "the blocks are out of the table, and nobody can have them",
            "they go to the end of free_blocks: change the list itself",
            _roll(give=lambda free_blocks, blocks: None),
        ),
        Mistake(
            "the first block is given back first",
            "from the end: so a text's tail is reused before its head",
            _roll(take=_first_block_first),
        ),
        *(
            Mistake(
                "the blocks go to the front of the free list",
                "to its end: what was used longest ago is reused first",
                _roll(
                    give=lambda free_blocks, blocks, step=step: free_blocks.__setitem__(
                        slice(0, 0), blocks[::step]
                    )
                ),
            )
            for step in (1, -1)
        ),
        *(
            Mistake(
                "a list of blocks is in the free list",
                "append puts in one thing: a block at a time, or extend",
                _roll(give=give, take=take),
            )
            for give in (
                lambda free_blocks, blocks: free_blocks.append(blocks),
                lambda free_blocks, blocks: free_blocks.append(blocks) if blocks else None,
            )
            for take in (_last_block_first, _first_block_first)
        ),
        Mistake(
            "how many were rejected, not how many are kept",
            "num_tokens less num_rejected",
            _roll(told=lambda kept, rejected, blocks, size: rejected),
        ),
        Mistake(
            "the number of blocks given back",
            "tokens are asked for: how many are kept",
            _roll(told=lambda kept, rejected, blocks, size: len(blocks)),
        ),
        Mistake(
            "the blocks kept, not the tokens",
            "num_tokens less num_rejected",
            _roll(told=lambda kept, rejected, blocks, size: _up(kept, size)),
        ),
        Mistake(
            "all tokens count as kept",
            "num_tokens less num_rejected: behind them, the next tokens are written over",
            _roll(told=lambda kept, rejected, blocks, size: kept + rejected),
        ),
        Mistake(
            "the tokens that the blocks have room for",
            "the last block need not be full: num_tokens less num_rejected",
            _roll(told=lambda kept, rejected, blocks, size: _up(kept, size) * size),
        ),
    ),
    hints=(
        "Forget the rejected tokens. How many blocks do the kept ones need?",
        "kept: all less the rejected\nneeded: blocks for so many tokens, rounded up\n"
        "while the table has more: its last block goes to the end of the free list\nreturn kept",
        "kept = num_tokens - num_rejected\nwhile len(block_table) > -(-kept // block_size):\n"
        "    free_blocks.append(block_table.pop())\nreturn kept",
    ),
    look_at="how many blocks the kept tokens need, which ones leave the table, and in which order",
    may_change=frozenset({"block_table", "free_blocks"}),
)

# -- shard_cache ----------------------------------------------------------------------------------------------


def shard_cache(num_layers, num_kv_heads, head_dim, bytes_per_number, num_ranks):
    """Bytes of KV cache that a token takes on each rank: of its KV heads, and a rank has one at least."""
    heads = max(1, num_kv_heads // num_ranks)
    return 2 * num_layers * heads * head_dim * bytes_per_number


def _shard(heads):
    """`shard_cache` with another number of heads on a rank."""
    return lambda layers, kv, dim, size, ranks: 2 * layers * heads(kv, ranks) * dim * size


SHARD_CACHE = Exercise(
    name="shard_cache",
    minutes=5,
    difficulty="easy",
    proves="ranks share the cache until each has one KV head; more ranks hold the same heads again.",
    solution=shard_cache,
    cases=lambda: [
        # LLaMA-3 70B on four GPUs, and on sixteen; one rank; a head each; MQA; three heads; FP8
        dict(num_layers=80, num_kv_heads=8, head_dim=128, bytes_per_number=2, num_ranks=4),
        dict(num_layers=80, num_kv_heads=8, head_dim=128, bytes_per_number=2, num_ranks=16),
        dict(num_layers=30, num_kv_heads=3, head_dim=64, bytes_per_number=4, num_ranks=1),
        dict(num_layers=40, num_kv_heads=5, head_dim=96, bytes_per_number=2, num_ranks=5),
        dict(num_layers=32, num_kv_heads=1, head_dim=128, bytes_per_number=2, num_ranks=8),
        dict(num_layers=31, num_kv_heads=3, head_dim=64, bytes_per_number=4, num_ranks=6),
        dict(num_layers=36, num_kv_heads=12, head_dim=80, bytes_per_number=1, num_ranks=3),
    ],
    mistakes=(
        Mistake(
            "half of the right number",
            "a token leaves a key and a value",
            lambda layers, kv, dim, size, ranks: layers * max(1, kv // ranks) * dim * size,
        ),
        Mistake(
            "with more ranks than KV heads, nothing is left",
            "kv // ranks is 0 there, and a rank has one head at least",
            _shard(lambda kv, ranks: kv // ranks),
        ),
        Mistake(
            "with more ranks than KV heads, a head is cut in pieces",
            "a head is not divided: a rank holds the whole of it, and others hold the same",
            lambda layers, kv, dim, size, ranks: 2 * layers * kv * dim * size // ranks,
        ),
        Mistake(
            "each rank holds all heads",
            "a rank has the keys and values of its own KV heads only",
            _shard(lambda kv, ranks: kv),
        ),
        Mistake(
            "one KV head on every rank",
            "where there are more heads than ranks, a rank has several",
            _shard(lambda kv, ranks: 1),
        ),
        Mistake(
            "with more ranks than KV heads, each rank holds all heads",
            "one head is enough: a rank has queries of one KV head",
            _shard(lambda kv, ranks: kv // ranks if kv >= ranks else kv),
        ),
        Mistake(
            "with more ranks than KV heads, a rank has several",
            "the other way round: several ranks have the same head, and a rank has one",
            _shard(lambda kv, ranks: max(kv // ranks, ranks // kv)),
        ),
        Mistake(
            "ranks / heads, not heads / ranks",
            "the heads are divided among the ranks",
            _shard(lambda kv, ranks: max(1, ranks // kv)),
        ),
        Mistake(
            "one KV head too many on each rank",
            "the ranks divide the heads without a rest: round nothing up",
            _shard(lambda kv, ranks: kv // ranks + 1),
        ),
        Mistake(
            "the bytes of all ranks together",
            "what one of them holds is asked for",
            _shard(lambda kv, ranks: max(kv, ranks)),
        ),
        Mistake(
            "each rank holds all heads, once for every rank",
            "more ranks, fewer heads on each: divide",
            _shard(lambda kv, ranks: kv * ranks),
        ),
        Mistake(
            "the layers are divided",
            "that is pipeline parallelism: here each rank has all layers, and some heads of each",
            lambda layers, kv, dim, size, ranks: 2 * _up(layers, ranks) * kv * dim * size,
        ),
        Mistake(
            "the layers are divided",
            "that is pipeline parallelism: here each rank has all layers, and some heads of each",
            lambda layers, kv, dim, size, ranks: 2 * (layers // ranks) * kv * dim * size,
        ),
        Mistake(
            "the numbers of a head are divided",
            "a head stays whole: the heads are divided among the ranks",
            lambda layers, kv, dim, size, ranks: 2 * layers * kv * (dim // ranks) * size,
        ),
        Mistake(
            "the layers are forgotten",
            "every layer has a cache of its own",
            lambda layers, kv, dim, size, ranks: 2 * max(1, kv // ranks) * dim * size,
        ),
        Mistake(
            "numbers, not bytes",
            "each number takes bytes_per_number bytes",
            lambda layers, kv, dim, size, ranks: 2 * layers * max(1, kv // ranks) * dim,
        ),
    ),
    hints=(
        "kv_bytes of notebook 01, for the heads of one rank. How many are those, at least?",
        "heads on a rank: num_kv_heads / num_ranks, and at least 1\n"
        "keys and values, in each layer, for each of these heads: head_dim numbers",
        "heads = max(1, num_kv_heads // num_ranks)\n"
        "return 2 * num_layers * heads * head_dim * bytes_per_number",
    ),
    look_at="how many KV heads a rank has, with fewer ranks than heads and with more",
)

# -- batch_gain -----------------------------------------------------------------------------------------------


def batch_gain(num_slots, max_len, tokens_each, block_size, compute_limit):
    """(requests in blocks) / (requests in slabs), neither above compute_limit."""
    blocks_each = -(-tokens_each // block_size)
    in_slabs = min(num_slots // max_len, compute_limit)
    in_blocks = min(num_slots // block_size // blocks_each, compute_limit)
    return in_blocks / in_slabs


def _gain(
    *,
    slabs=lambda slots, longest: slots // longest,
    blocks=lambda slots, each, size: slots // size // _up(each, size),
    limit_slabs=min,
    limit_blocks=min,
    told=lambda slabs, blocks: blocks / slabs,
):
    """`batch_gain` with one of its parts changed."""

    def answer(num_slots, max_len, tokens_each, block_size, compute_limit):
        return told(
            limit_slabs(slabs(num_slots, max_len), compute_limit),
            limit_blocks(blocks(num_slots, tokens_each, block_size), compute_limit),
        )

    return answer


def _unlimited(number, limit):
    return number


BATCH_GAIN = Exercise(
    name="batch_gain",
    minutes=8,
    difficulty="medium",
    proves="paging gains what slabs leave empty, as long as nothing else limits the batch.",
    solution=batch_gain,
    cases=lambda: [
        # the limit binds blocks; nothing; both; all requests fill their slabs; so they do, and blocks fit worse
        dict(num_slots=15_728, max_len=2048, tokens_each=330, block_size=16, compute_limit=32),
        dict(num_slots=15_728, max_len=2048, tokens_each=499, block_size=16, compute_limit=256),
        dict(num_slots=8_195, max_len=512, tokens_each=130, block_size=16, compute_limit=8),
        dict(num_slots=8_192, max_len=512, tokens_each=512, block_size=16, compute_limit=64),
        dict(num_slots=1_000, max_len=100, tokens_each=100, block_size=64, compute_limit=50),
        # blocks of one slot; whole blocks; a rest of slots that is no block; the limit is what fits, and far below
        dict(num_slots=977, max_len=300, tokens_each=41, block_size=1, compute_limit=1000),
        dict(num_slots=960, max_len=100, tokens_each=64, block_size=32, compute_limit=100),
        dict(num_slots=335, max_len=90, tokens_each=16, block_size=16, compute_limit=90),
        dict(num_slots=1_640, max_len=400, tokens_each=82, block_size=8, compute_limit=18),
        dict(num_slots=1_200, max_len=600, tokens_each=20, block_size=16, compute_limit=5),
    ],
    mistakes=(
        Mistake(
            "the limit is forgotten",
            "no more than compute_limit requests run, however many the cache has room for",
            _gain(limit_slabs=_unlimited, limit_blocks=_unlimited),
        ),
        Mistake(
            "the limit is forgotten",
            "no more than compute_limit requests run; and a request's last block is its own, full or not",
            lambda slots, longest, each, size, limit: (slots // each) / (slots // longest),
        ),
        Mistake(
            "only the requests in blocks are limited",
            "at most compute_limit run at once, whatever the cache is made of: limit both numbers",
            _gain(limit_slabs=_unlimited),
        ),
        Mistake(
            "only the requests in slabs are limited",
            "at most compute_limit run at once, whatever the cache is made of: limit both numbers",
            _gain(limit_blocks=_unlimited),
        ),
        Mistake(
            "the factor is limited, where the requests should be",
            "compute_limit is a number of requests: limit each of the two, then divide",
            lambda slots, longest, each, size, limit: min(
                limit,
                _gain(limit_slabs=_unlimited, limit_blocks=_unlimited)(slots, longest, each, size, limit),
            ),
        ),
        *(
            Mistake(
                "slots are counted, not blocks",
                "a request's last block is its own, full or not: how many blocks does each need?",
                _gain(blocks=blocks),
            )
            for blocks in (
                lambda slots, each, size: slots // each,
                lambda slots, each, size: slots // size * size // each,
            )
        ),
        Mistake(
            "a request's blocks are rounded down",
            "the last block is held, full or not: round up",
            _gain(blocks=lambda slots, each, size: slots // size // (each // size)),
        ),
        Mistake(
            "a last block that is full, and one more was counted",
            "tokens that fill their blocks need no further one: round up",
            _gain(blocks=lambda slots, each, size: slots // size // (each // size + 1)),
        ),
        Mistake(
            "a block that is not whole is counted",
            "what is left of num_slots behind the last whole block is never used: round down",
            _gain(blocks=lambda slots, each, size: _up(slots, size) // _up(each, size)),
        ),
        Mistake(
            "blocks, not requests",
            "each request holds several: divide by the blocks that one needs",
            _gain(blocks=lambda slots, each, size: slots // size),
        ),
        Mistake(
            "the length of a slab by the tokens of a request",
            "count whole requests in num_slots, each way, and limit both numbers",
            lambda slots, longest, each, size, limit: longest / each,
        ),
        Mistake(
            "the length of a slab by the slots of a request",
            "count whole requests in num_slots, each way, and limit both numbers",
            lambda slots, longest, each, size, limit: longest / (_up(each, size) * size),
        ),
        *(
            Mistake(
                "a part of a request is counted",
                "whole requests only: round the numbers of requests down, not their quotient",
                wrong,
            )
            for wrong in (
                _gain(slabs=lambda slots, longest: slots / longest),
                _gain(blocks=lambda slots, each, size: slots // size / _up(each, size)),
                _gain(blocks=lambda slots, each, size: slots / (size * _up(each, size))),
                _gain(
                    slabs=lambda slots, longest: slots / longest,
                    blocks=lambda slots, each, size: slots // size / _up(each, size),
                ),
                _gain(
                    slabs=lambda slots, longest: slots / longest,
                    blocks=lambda slots, each, size: slots / (size * _up(each, size)),
                ),
                _gain(
                    slabs=lambda slots, longest: slots / longest,
                    blocks=lambda slots, each, size: slots / each,
                ),
            )
        ),
        Mistake(
            "slabs are rounded up",
            "half a slab is no room for a request: round down",
            _gain(slabs=_up),
        ),
        Mistake(
            "slabs are counted in blocks",
            "a slab is max_len slots in one piece: no block_size in it",
            lambda slots, longest, each, size, limit: (
                min(slots // size // _up(each, size), limit) / min(slots // size // _up(longest, size), limit)
            ),
        ),
        Mistake(
            "the quotient is the wrong way round",
            "by which factor does it grow: requests in blocks, by requests in slabs",
            _gain(told=lambda slabs, blocks: slabs / blocks),
        ),
        *(
            Mistake(
                "the factor is a whole number",
                "1.5 times is a gain, too: / and not //, and nothing is rounded",
                _gain(told=told),
            )
            for told in (
                lambda slabs, blocks: blocks // slabs,
                lambda slabs, blocks: round(blocks / slabs),
                lambda slabs, blocks: _up(blocks, slabs),
            )
        ),
        Mistake(
            "a loss is told as no gain",
            "where requests fill their slabs, blocks may hold fewer: that counts, too",
            _gain(told=lambda slabs, blocks: max(1.0, blocks / slabs)),
        ),
        *(
            Mistake(
                "how many are added, not the factor",
                "the new number of requests, by the old one",
                _gain(told=told),
            )
            for told in (
                lambda slabs, blocks: blocks - slabs,
                lambda slabs, blocks: float(blocks - slabs),
                lambda slabs, blocks: (blocks - slabs) / slabs,
            )
        ),
        *(
            Mistake(
                "percent, not a factor",
                "twice as many is 2.0",
                _gain(told=told),
            )
            for told in (
                lambda slabs, blocks: 100 * blocks / slabs,
                lambda slabs, blocks: 100 * (blocks - slabs) / slabs,
            )
        ),
        Mistake(
            "the number of requests, not the factor",
            "by the number that slabs have room for",
            _gain(told=lambda slabs, blocks: blocks),
        ),
        Mistake(
            "the slots of all requests, by the slots of their slabs",
            "requests are counted, not what they hold",
            lambda slots, longest, each, size, limit: (
                (min(slots // size // _up(each, size), limit) * _up(each, size) * size)
                / (min(slots // longest, limit) * longest)
            ),
        ),
    ),
    hints=(
        "Count requests twice: in slabs, in blocks. What can hold each number down, besides the slots?",
        "in slabs: whole slabs in num_slots\n"
        "in blocks: whole blocks in num_slots, by the blocks of a request (rounded up); whole requests\n"
        "neither is above compute_limit\nreturn in blocks / in slabs",
        "blocks_each = -(-tokens_each // block_size)\nin_slabs = min(num_slots // max_len, compute_limit)\n"
        "in_blocks = min(num_slots // block_size // blocks_each, compute_limit)\nreturn in_blocks / in_slabs",
    ),
    look_at="how many requests fit in slabs, how many in blocks, and what else limits each of the two",
)

# -- which_mechanism ------------------------------------------------------------------------------------------


def which_mechanism(workload):
    """Workload -> the mechanism that helps."""
    return {
        "a thousand users an hour: one system prompt of 4,000 tokens, and a short question each": "prefix caching",
        "one GPU: whenever a long document comes in, all other answers stall for a second": "chunked prefill",
        "one user, one laptop: a short question, a long answer, and it should be written faster": (
            "speculative decoding"
        ),
        "a machine with four GPUs, and the model's weights do not fit on one": "tensor parallelism",
        "users return to long chats after an hour, and by then the GPU's prefix cache has lost them": (
            "offload tiers"
        ),
        "many GPUs, long prompts: no answer's step may carry any part of a prompt, not even a chunk": (
            "prefill/decode disaggregation"
        ),
        "one GPU, and its 16-bit cache is full: twice as many texts, all different, should run at once": "FP8 KV cache",
    }[workload]


WHAT_IT_DOES = {
    "prefix caching": "prefix caching computes and holds a common beginning once",
    "chunked prefill": "chunked prefill spreads a long prompt over many steps",
    "speculative decoding": "speculative decoding makes several tokens in one step, where it has guessed right",
    "tensor parallelism": "tensor parallelism divides weights and cache among GPUs, and each step's work",
    "offload tiers": "offload tiers keep blocks in CPU memory or on disk, until they are wanted again",
    "prefill/decode disaggregation": "disaggregation has some GPUs read prompts, and others write answers",
    "FP8 KV cache": "an FP8 KV cache takes one byte for a number",
}
# In the order of the workloads: why each other mechanism is not the one.
WHY_NOT = {
    "prefix caching": {
        "chunked prefill": "each user's 4,000 tokens would still be computed, in pieces: what is the same for all?",
        "speculative decoding": "each prompt would be read as before: what is the same for all?",
        "tensor parallelism": "more GPUs would do the same work a thousand times: what is the same for all?",
        "offload tiers": "a user every 4 seconds: what they have in common is not evicted. Why compute it again?",
        "prefill/decode disaggregation": "other GPUs would read 4,000 tokens for each user: what is the same for all?",
        "FP8 KV cache": "a thousand copies, of half the size: what is the same for all?",
    },
    "chunked prefill": {
        "prefix caching": "a document that is new shares no beginning: somebody must read it, and when?",
        "speculative decoding": "the step that reads the document is as long as before: what makes it so long?",
        "tensor parallelism": "it would take more than the one GPU; and what makes that one step so long?",
        "offload tiers": "no block is missing: one step is too long. What makes it so?",
        "prefill/decode disaggregation": "it would end the stall, and needs a second GPU: there is one",
        "FP8 KV cache": "half the bytes, and the step that reads the document is about as long: what makes it so?",
    },
    "speculative decoding": {
        "prefix caching": "it spares reading, and the question is short: the time goes into writing, a step a token",
        "chunked prefill": "the question is short, and nobody else is there to be stalled: the time goes into writing",
        "tensor parallelism": "it would be faster, on more GPUs than a laptop has",
        "offload tiers": "nothing has been evicted: the time goes into writing, a step a token",
        "prefill/decode disaggregation": "nobody else's prompt is in the way: the time goes into writing",
        "FP8 KV cache": "with one short text a step reads weights, and hardly any cache",
    },
    "tensor parallelism": {
        "prefix caching": "it spares cache, and the weights need room first",
        "chunked prefill": "it bounds a step's work: the weights are as large as before",
        "speculative decoding": "it adds the weights of a model that guesses, or none: it takes none away",
        "offload tiers": "they take in blocks of the cache; every step reads all weights",
        "prefill/decode disaggregation": "each side needs all the weights: neither has room for them",
        "FP8 KV cache": "the cache would be smaller, and the weights as large as before",
    },
    "offload tiers": {
        "prefix caching": "it is on, and finds only what is still held somewhere: where, after an hour?",
        "chunked prefill": "the whole chat would be computed again, in pieces: where could it have been kept?",
        "speculative decoding": "the old chat must be read before an answer begins: where could it have been kept?",
        "tensor parallelism": "more GPUs, more cache, and an hour's traffic is more still: what memory is larger?",
        "prefill/decode disaggregation": "other GPUs would compute the old chat again: where could it have been kept?",
        "FP8 KV cache": "blocks would stay twice as long, not an hour: what memory is larger?",
    },
    "prefill/decode disaggregation": {
        "prefix caching": "a prompt that is new must be read: in whose step?",
        "chunked prefill": "a chunk is a part of a prompt, and stands in the step of those who are answering",
        "speculative decoding": "fewer steps, and prompts would still stand in them: where else could they be read?",
        "tensor parallelism": "shorter steps, and prompts would still stand in them: where else could they be read?",
        "offload tiers": "they bring back old blocks: a new prompt must be read, and in whose step?",
        "FP8 KV cache": "a smaller cache, and prompts in the same steps: where else could they be read?",
    },
    "FP8 KV cache": {
        "prefix caching": "different texts share nothing: every one needs slots of its own",
        "chunked prefill": "it bounds a step's work: a text takes as many bytes as before",
        "speculative decoding": "drafts need slots, too: a text takes as many bytes as before, and more",
        "tensor parallelism": "it would take a second GPU, and there is one",
        "offload tiers": "a text that runs is read in every step: its blocks must be on the GPU",
        "prefill/decode disaggregation": "it would take more GPUs, and there is one: how can a token take fewer bytes?",
    },
}
# The solution's, which names them itself: it is shown as it stands.
WORKLOADS = (
    "a thousand users an hour: one system prompt of 4,000 tokens, and a short question each",
    "one GPU: whenever a long document comes in, all other answers stall for a second",
    "one user, one laptop: a short question, a long answer, and it should be written faster",
    "a machine with four GPUs, and the model's weights do not fit on one",
    "users return to long chats after an hour, and by then the GPU's prefix cache has lost them",
    "many GPUs, long prompts: no answer's step may carry any part of a prompt, not even a chunk",
    "one GPU, and its 16-bit cache is full: twice as many texts, all different, should run at once",
)

WHICH_MECHANISM = Exercise(
    name="which_mechanism",
    minutes=6,
    difficulty="medium",
    proves="first what is scarce, then the mechanism: none of them helps against everything.",
    solution=which_mechanism,
    cases=lambda: [dict(workload=workload) for workload in WORKLOADS],
    choices=tuple(WHAT_IT_DOES),
    mistakes=tuple(
        Mistake(WHAT_IT_DOES[choice], why_not, _all_right_but(which_mechanism, workload, choice))
        for workload in WORKLOADS
        for choice, why_not in WHY_NOT[which_mechanism(workload)].items()
    ),
    hints=(
        "What is short in each: work that is done twice, one step's time, the number of steps, room for weights, room "
        "for blocks that wait, room for blocks that are read?",
        "the same beginning again and again, and it is still there: prefix caching\n"
        "the same beginning, and the GPU has lost it: offload tiers\n"
        "a prompt in everybody's way: chunks on one GPU; if not even chunks are allowed, other GPUs\n"
        "one text, a step a token: guess several and check them in one step\n"
        "no room: for the weights, more GPUs; for the cache, fewer bytes for a number",
        "return {\n"
        + "".join(f'    "{workload}": "{which_mechanism(workload)}",\n' for workload in WORKLOADS)
        + "}[workload]",
    ),
    look_at="one name for each, letter for letter as in MECHANISMS",
)

EXERCISES = [THEIRS, ROLL_BACK, SHARD_CACHE, BATCH_GAIN, WHICH_MECHANISM]  # as the notebook asks them
