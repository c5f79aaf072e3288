"""Exercises of 02_fragmentation: what a slot is, the best hole, how full a slab gets, how many requests run."""

import math

from course_lib.teaching.check import Exercise, Mistake

# -- classify_slots -----------------------------------------------------------------------------------------


def classify_slots(prompt_len, num_generated, output_len, asked, piece):
    """Slots of one request that hold a token, will hold one, never will, and are rounding."""
    token_states = prompt_len + num_generated
    at_end = prompt_len + output_len
    return token_states, at_end - token_states, asked - at_end, piece - asked


CLASSIFY_SLOTS = Exercise(
    name="classify_slots",
    minutes=5,
    difficulty="easy",
    proves="every slot is one of four things, and the four add up to the piece.",
    solution=classify_slots,
    cases=lambda: [
        # the paper's Fig 3; two that a buddy allocator rounded up; one that just came; one at its last step
        dict(prompt_len=7, num_generated=1, output_len=3, asked=2048, piece=2048),
        dict(prompt_len=3, num_generated=1, output_len=2, asked=512, piece=512),
        dict(prompt_len=100, num_generated=10, output_len=50, asked=164, piece=256),
        dict(prompt_len=161, num_generated=200, output_len=338, asked=499, piece=512),
        dict(prompt_len=29, num_generated=0, output_len=91, asked=157, piece=256),
        dict(prompt_len=12, num_generated=5, output_len=5, asked=17, piece=32),
    ],
    mistakes=(
        Mistake(
            "the prompt is forgotten",
            "its tokens leave keys and values, too: they hold slots from the first step on",
            lambda prompt_len, num_generated, output_len, asked, piece: (
                num_generated,
                output_len - num_generated,
                asked - output_len,
                piece - asked,
            ),
        ),
        Mistake(
            "the prompt is forgotten",
            "its tokens leave keys and values, too: they hold slots from the first step on",
            lambda prompt_len, num_generated, output_len, asked, piece: (
                num_generated,
                output_len - num_generated,
                asked - prompt_len - output_len,
                piece - asked,
            ),
        ),
        Mistake(
            "the generated tokens hold no slot",
            "token states are the prompt's and those generated so far",
            lambda prompt_len, num_generated, output_len, asked, piece: (
                prompt_len,
                output_len,
                asked - prompt_len - output_len,
                piece - asked,
            ),
        ),
        Mistake(
            "the generated tokens are reserved a second time",
            "of output_len tokens, num_generated have their slot already",
            lambda prompt_len, num_generated, output_len, asked, piece: (
                prompt_len + num_generated,
                output_len,
                asked - prompt_len - output_len,
                piece - asked,
            ),
        ),
        Mistake(
            "the generated tokens are reserved a second time",
            "of output_len tokens, num_generated have their slot already",
            lambda prompt_len, num_generated, output_len, asked, piece: (
                prompt_len + num_generated,
                output_len,
                asked - prompt_len - num_generated - output_len,
                piece - asked,
            ),
        ),
        Mistake(
            "every empty slot is called reserved",
            "reserved will be filled: the answer stops at output_len, and the slots beyond it stay empty",
            lambda prompt_len, num_generated, output_len, asked, piece: (
                prompt_len + num_generated,
                asked - prompt_len - num_generated,
                0,
                piece - asked,
            ),
        ),
        Mistake(
            "every empty slot is called internal",
            "the answer is not over: output_len - num_generated slots will still be filled",
            lambda prompt_len, num_generated, output_len, asked, piece: (
                prompt_len + num_generated,
                0,
                asked - prompt_len - num_generated,
                piece - asked,
            ),
        ),
        Mistake(
            "the reserved slots are counted again as internal",
            "internal begins where the request will end: after prompt_len + output_len",
            lambda prompt_len, num_generated, output_len, asked, piece: (
                prompt_len + num_generated,
                output_len - num_generated,
                asked - prompt_len - num_generated,
                piece - asked,
            ),
        ),
        Mistake(
            "reserved and internal are the wrong way round",
            "the order is token_states, reserved, internal, external",
            lambda prompt_len, num_generated, output_len, asked, piece: (
                prompt_len + num_generated,
                asked - prompt_len - output_len,
                output_len - num_generated,
                piece - asked,
            ),
        ),
        Mistake(
            "the rounding is called internal",
            "what lies beyond `asked` nobody asked for: it is external",
            lambda prompt_len, num_generated, output_len, asked, piece: (
                prompt_len + num_generated,
                output_len - num_generated,
                piece - prompt_len - output_len,
                0,
            ),
        ),
        Mistake(
            "the rounding is counted twice, as internal and as external",
            "internal ends at `asked`; beyond it everything is external",
            lambda prompt_len, num_generated, output_len, asked, piece: (
                prompt_len + num_generated,
                output_len - num_generated,
                piece - prompt_len - output_len,
                piece - asked,
            ),
        ),
        Mistake(
            "the rounding is missing",
            "the four must add up to `piece`, not to `asked`",
            lambda prompt_len, num_generated, output_len, asked, piece: (
                prompt_len + num_generated,
                output_len - num_generated,
                asked - prompt_len - output_len,
                0,
            ),
        ),
        Mistake(
            "slots that the plan asked for are called external",
            "external is only the rounding: the piece beyond `asked`",
            lambda prompt_len, num_generated, output_len, asked, piece: (
                prompt_len + num_generated,
                output_len - num_generated,
                0,
                piece - prompt_len - output_len,
            ),
        ),
    ),
    hints=(
        "Walk along the piece from its first slot. Where do the tokens end now, where will they end, where does the"
        " request's share end, and where the piece?",
        "four borders: now = prompt + generated, at the end = prompt + output, asked, piece\n"
        "each of the four counts is one border minus the one before it",
        "now = prompt_len + num_generated\nat_end = prompt_len + output_len\n"
        "return now, at_end - now, asked - at_end, piece - asked",
    ),
    look_at="the borders between the four, and whether they add up to `piece`",
)

# -- best_fit -----------------------------------------------------------------------------------------------


def best_fit(holes, size):
    """Offset of the smallest hole with at least `size` slots, between equals the lowest, or None."""
    fitting = [(slots, offset) for offset, slots in holes if slots >= size]
    return min(fitting)[1] if fitting else None


def _first_fit(holes, size):
    return next((offset for offset, slots in holes if slots >= size), None)


def _worst_fit(holes, size):
    slots, offset = max(((slots, -offset) for offset, slots in holes), default=(0, 0))
    return -offset if slots >= size else None


def _last_of_equals(holes, size):
    fitting = [(slots, -offset) for offset, slots in holes if slots >= size]
    return -min(fitting)[1] if fitting else None


def _smallest_of_all(holes, size):
    return min(((slots, offset) for offset, slots in holes), default=(0, None))[1]


def _nearest_size(holes, size):
    return min(((abs(slots - size), offset) for offset, slots in holes), default=(0, None))[1]


def _strictly_larger(holes, size):
    return best_fit(holes, size + 1)


def _exact_only(holes, size):
    return next((offset for offset, slots in holes if slots == size), None)


def _zero_becomes_none(holes, size):
    return best_fit(holes, size) or None


def _zero_is_nothing(holes, size):
    best, best_slots = None, 0
    for offset, slots in holes:
        if slots >= size and (not best or slots < best_slots):
            best, best_slots = offset, slots
    return best


def _index(holes, size):
    found = best_fit(holes, size)
    return None if found is None else [offset for offset, _ in holes].index(found)


def _index_of_fitting(holes, size):
    found = best_fit(holes, size)
    return None if found is None else [offset for offset, slots in holes if slots >= size].index(found)


def _slots(holes, size):
    return min((slots for _, slots in holes if slots >= size), default=None)


def _whole_hole(holes, size):
    found = best_fit(holes, size)
    return None if found is None else (found, dict(holes)[found])


def _zero_if_none(holes, size):
    found = best_fit(holes, size)
    return 0 if found is None else found


def _minus_one_if_none(holes, size):
    found = best_fit(holes, size)
    return -1 if found is None else found


def _total_fits(holes, size):
    """Where nothing fits but all holes together would: the first hole."""
    found = best_fit(holes, size)
    return holes[0][0] if found is None and sum(slots for _, slots in holes) >= size else found


def _total_fits_largest(holes, size):
    found = best_fit(holes, size)
    if found is None and sum(slots for _, slots in holes) >= size:
        return max(holes, key=lambda hole: hole[1])[0]
    return found


def _tail(holes, size):
    found = best_fit(holes, size)
    return None if found is None else found + dict(holes)[found] - size


BEST_FIT = Exercise(
    name="best_fit",
    minutes=6,
    difficulty="medium",
    proves="enough free slots is not enough: one hole must be long enough.",
    solution=best_fit,
    cases=lambda: [
        # equals beside too small and too large; an exact fit; 30 slots free and no room for 20; offset 0; large holes
        dict(holes=[(3, 4), (10, 9), (24, 6), (31, 14), (50, 6)], size=5),
        dict(holes=[(0, 12), (16, 7), (40, 9)], size=7),
        dict(holes=[(12, 14), (35, 16)], size=20),
        dict(holes=[(0, 11), (44, 31)], size=11),
        dict(holes=[(17, 40_960), (50_000, 20_480)], size=20_000),
        dict(holes=[(8, 13)], size=13),
        dict(holes=[(2, 3), (9, 1)], size=6),
        dict(holes=[], size=1),
    ],
    mistakes=(
        Mistake(
            "that is first fit: it takes the first hole that is large enough",
            "look at all holes before you choose",
            _first_fit,
        ),
        Mistake(
            "that is worst fit: it takes the largest hole",
            "the smallest that is large enough leaves the least behind",
            _worst_fit,
        ),
        Mistake(
            "between equal holes it takes the last",
            "a later hole must be smaller to win: < or <=?",
            _last_of_equals,
        ),
        Mistake(
            "the hole is too small", "only holes with at least `size` slots are candidates", _smallest_of_all
        ),
        Mistake(
            "the hole is too small",
            "the nearest size may be below: only holes with at least `size` slots are candidates",
            _nearest_size,
        ),
        Mistake(
            "a hole of exactly `size` slots is passed over",
            "an exact fit leaves nothing behind: > or >=?",
            _strictly_larger,
        ),
        Mistake(
            "only a hole of exactly `size` slots is taken",
            "a larger hole will do, if no smaller one is large enough: == or >=?",
            _exact_only,
        ),
        Mistake(
            "a hole at offset 0 is taken for no hole", "0 counts as false: ask `is None`", _zero_becomes_none
        ),
        Mistake(
            "a hole at offset 0 is taken for no hole",
            "0 counts as false: ask `is None`",
            _zero_is_nothing,
        ),
        Mistake(
            "it returns the place in the list, not the offset",
            "a hole is (offset, slots): return its first number",
            _index,
        ),
        Mistake(
            "it returns the place in the list, not the offset",
            "a hole is (offset, slots): return its first number",
            _index_of_fitting,
        ),
        Mistake(
            "it returns the hole's slots, not its offset",
            "a hole is (offset, slots): return its first number",
            _slots,
        ),
        Mistake(
            "it returns the whole hole", "a hole is (offset, slots): return its first number", _whole_hole
        ),
        Mistake("it returns 0 where nothing fits", "0 is an offset, too: return None", _zero_if_none),
        Mistake(
            "it returns -1 where nothing fits",
            "to a tensor -1 is its last slot: return None",
            _minus_one_if_none,
        ),
        Mistake(
            "the holes are added up: together they have room, none alone does",
            "a slab is slots in a row: one hole must hold all of it",
            _total_fits,
        ),
        Mistake(
            "the holes are added up: together they have room, none alone does",
            "a slab is slots in a row: one hole must hold all of it",
            _total_fits_largest,
        ),
        Mistake("the right hole, but its far end", "return where the hole begins", _tail),
    ),
    hints=(
        "Two questions, one after the other: which holes are large enough, and which of those is the smallest?",
        "candidates = the holes with slots >= size\nif there are none: return None\n"
        "the smallest of them wins; the list is in the order of offsets, so between equals the first",
        "fitting = [hole for hole in holes if hole[1] >= size]\nif not fitting:\n    return None\n"
        "return min(fitting, key=lambda hole: hole[1])[0]",
    ),
    look_at="which holes are candidates, which of them wins, and what is returned",
)

# -- slab_utilisation ---------------------------------------------------------------------------------------


def slab_utilisation(prompt_len, output_len, slab_len):
    """Mean share of a slab's slots that hold a token, over the life of a request."""
    mean_tokens = prompt_len + (output_len - 1) / 2  # the mean of 0, 1, ... output_len - 1 new ones
    return mean_tokens / slab_len


SLAB_UTILISATION = Exercise(
    name="slab_utilisation",
    minutes=6,
    difficulty="medium",
    proves="on average half of the answer is there: even a slab of the right length is not full.",
    solution=slab_utilisation,
    cases=lambda: [
        # ShareGPT's means, Alpaca's, a slab of the right length, an answer of one token and of two
        dict(prompt_len=161, output_len=338, slab_len=2048),
        dict(prompt_len=19, output_len=58, slab_len=2048),
        dict(prompt_len=7, output_len=13, slab_len=20),
        dict(prompt_len=29, output_len=1, slab_len=64),
        dict(prompt_len=5, output_len=2, slab_len=11),
    ],
    mistakes=(
        Mistake(
            "the request is counted at its full length",
            "it holds prompt + output at its end only: take the mean over its steps",
            lambda prompt_len, output_len, slab_len: (prompt_len + output_len) / slab_len,
        ),
        Mistake(
            "that is the share in the last step",
            "take the mean over all steps: k - 1 runs from 0 to output_len - 1",
            lambda prompt_len, output_len, slab_len: (prompt_len + output_len - 1) / slab_len,
        ),
        Mistake(
            "that is the share in the first step",
            "the answer fills slots, too: one more in each step",
            lambda prompt_len, output_len, slab_len: prompt_len / slab_len,
        ),
        Mistake(
            "half a token too many",
            "k - 1 runs from 0 to output_len - 1: what is the mean of these?",
            lambda prompt_len, output_len, slab_len: (prompt_len + output_len / 2) / slab_len,
        ),
        Mistake(
            "one token too many",
            "in step k the request holds k - 1 tokens of its answer, not k",
            lambda prompt_len, output_len, slab_len: (prompt_len + (output_len + 1) / 2) / slab_len,
        ),
        Mistake(
            "the mean number of tokens is rounded down",
            "a mean may end in a half: / instead of //",
            lambda prompt_len, output_len, slab_len: (prompt_len + (output_len - 1) // 2) / slab_len,
        ),
        Mistake(
            "the share is rounded down to 0",
            "a share lies between 0 and 1: / instead of //",
            lambda prompt_len, output_len, slab_len: (prompt_len + (output_len - 1) / 2) // slab_len,
        ),
        Mistake(
            "the prompt is forgotten",
            "it is in the slab from the first step to the last",
            lambda prompt_len, output_len, slab_len: (output_len - 1) / 2 / slab_len,
        ),
        Mistake(
            "the prompt is halved, too",
            "the prompt is there in full from the first step; only the answer grows",
            lambda prompt_len, output_len, slab_len: (prompt_len + output_len) / 2 / slab_len,
        ),
        Mistake(
            "the prompt is halved, too",
            "the prompt is there in full from the first step; only the answer grows",
            lambda prompt_len, output_len, slab_len: (prompt_len + output_len - 1) / 2 / slab_len,
        ),
        Mistake(
            "that is the share of prompt + output, not of the slab",
            "divide by slab_len: the slab has slots that this request never fills",
            lambda prompt_len, output_len, slab_len: (
                (prompt_len + (output_len - 1) / 2) / (prompt_len + output_len)
            ),
        ),
        Mistake(
            "that is a number of tokens, not a share",
            "divide by slab_len",
            lambda prompt_len, output_len, slab_len: prompt_len + (output_len - 1) / 2,
        ),
        Mistake(
            "that is in percent",
            "the share is asked for, between 0 and 1",
            lambda prompt_len, output_len, slab_len: 100 * (prompt_len + (output_len - 1) / 2) / slab_len,
        ),
        Mistake(
            "that is the share of empty slots",
            "the slots that hold a token are asked for: 1 minus this",
            lambda prompt_len, output_len, slab_len: 1 - (prompt_len + (output_len - 1) / 2) / slab_len,
        ),
    ),
    hints=(
        "How many tokens does the request hold in its first step, and in its last? It grows evenly in between.",
        "first step: prompt\nlast step: prompt + output - 1\nmean: halfway between the two\n"
        "return the mean / slots of the slab",
        "mean_tokens = prompt_len + (output_len - 1) / 2\nreturn mean_tokens / slab_len",
    ),
    look_at="the tokens in the first and in the last step, their mean, and what it is divided by",
    tolerance=1e-6,
)

# -- max_batch ----------------------------------------------------------------------------------------------


def max_batch(kv_bytes, bytes_per_token, max_len, prompt_len, output_len):
    """Requests that run at once: with a slab of max_len tokens each, and if every slot held a token."""
    slots = kv_bytes // bytes_per_token
    mean_tokens = prompt_len + (output_len - 1) / 2
    return slots // max_len, int(slots / mean_tokens)


def _batch(slabs=None, ideal=None):
    """max_batch with one or both of its parts replaced: functions of (slots, max_len, prompt_len, output_len)."""

    def wrong(kv_bytes, bytes_per_token, max_len, prompt_len, output_len):
        right = max_batch(kv_bytes, bytes_per_token, max_len, prompt_len, output_len)
        given = kv_bytes // bytes_per_token, max_len, prompt_len, output_len
        return slabs(*given) if slabs else right[0], ideal(*given) if ideal else right[1]

    return wrong


def _mean(prompt_len, output_len):
    return prompt_len + (output_len - 1) / 2


MAX_BATCH = Exercise(
    name="max_batch",
    minutes=5,
    difficulty="medium",
    proves="the waste is paid in requests that do not run.",
    solution=max_batch,
    cases=lambda: [
        # OPT-13B and ShareGPT, SmolLM2 and tiny chats, OPT-175B and Alpaca; a slab too long, no rest, one byte short
        dict(kv_bytes=12 * 2**30, bytes_per_token=819_200, max_len=2048, prompt_len=161, output_len=338),
        dict(kv_bytes=10**9, bytes_per_token=46_080, max_len=8192, prompt_len=3, output_len=4),
        dict(kv_bytes=264 * 2**30, bytes_per_token=4_718_592, max_len=2048, prompt_len=19, output_len=58),
        dict(kv_bytes=2**29, bytes_per_token=131_072, max_len=16_384, prompt_len=1155, output_len=211),
        dict(kv_bytes=4096 * 114_688, bytes_per_token=114_688, max_len=1024, prompt_len=128, output_len=1),
        dict(kv_bytes=400 * 46_080 - 1, bytes_per_token=46_080, max_len=40, prompt_len=7, output_len=7),
    ],
    mistakes=(
        Mistake(
            "bytes are taken for slots",
            "a slot takes bytes_per_token bytes: how many slots are there?",
            lambda kv_bytes, bytes_per_token, max_len, prompt_len, output_len: (
                kv_bytes // max_len,
                int(kv_bytes / _mean(prompt_len, output_len)),
            ),
        ),
        Mistake(
            "the two are the wrong way round",
            "first the slabs, then the ideal",
            lambda kv_bytes, bytes_per_token, max_len, prompt_len, output_len: max_batch(
                kv_bytes, bytes_per_token, max_len, prompt_len, output_len
            )[::-1],
        ),
        Mistake(
            "the slabs are cut to the request's length",
            "nobody knows that length ahead: a slab has max_len slots",
            _batch(slabs=lambda slots, max_len, prompt_len, output_len: slots // (prompt_len + output_len)),
        ),
        Mistake(
            "the ideal counts each request at its longest",
            "over its life a request holds its prompt and half of its answer",
            _batch(ideal=lambda slots, max_len, prompt_len, output_len: slots // (prompt_len + output_len)),
        ),
        Mistake(
            "the ideal counts each request at its longest",
            "over its life a request holds its prompt and half of its answer",
            _batch(
                ideal=lambda slots, max_len, prompt_len, output_len: slots // (prompt_len + output_len - 1)
            ),
        ),
        Mistake(
            "the ideal counts each request at its shortest",
            "over its life a request holds its prompt and half of its answer",
            _batch(ideal=lambda slots, max_len, prompt_len, output_len: slots // prompt_len),
        ),
        Mistake(
            "the ideal counts half a token too many a request",
            "the mean over its steps is prompt_len + (output_len - 1) / 2",
            _batch(
                ideal=lambda slots, max_len, prompt_len, output_len: int(
                    slots / (prompt_len + output_len / 2)
                )
            ),
        ),
        Mistake(
            "the ideal counts one token too many a request",
            "the mean over its steps is prompt_len + (output_len - 1) / 2",
            _batch(
                ideal=lambda slots, max_len, prompt_len, output_len: int(
                    slots / (_mean(prompt_len, output_len) + 1)
                )
            ),
        ),
        Mistake(
            "the mean number of tokens is rounded down",
            "a mean may end in a half: (output_len - 1) / 2, not // 2",
            _batch(
                ideal=lambda slots, max_len, prompt_len, output_len: (
                    slots // int(_mean(prompt_len, output_len))
                )
            ),
        ),
        Mistake(
            "the ideal is computed inside the slabs",
            "if every slot held a token, those in no slab would, too: begin with all slots",
            _batch(
                ideal=lambda slots, max_len, prompt_len, output_len: int(
                    slots // max_len * max_len / _mean(prompt_len, output_len)
                )
            ),
        ),
        Mistake(
            "rounded up",
            "a request that half fits does not run: round down",
            _batch(
                slabs=lambda slots, max_len, prompt_len, output_len: math.ceil(slots / max_len),
                ideal=lambda slots, max_len, prompt_len, output_len: math.ceil(
                    slots / _mean(prompt_len, output_len)
                ),
            ),
        ),
        Mistake(
            "rounded to nearest",
            "a request that half fits does not run: round down",
            _batch(
                slabs=lambda slots, max_len, prompt_len, output_len: round(slots / max_len),
                ideal=lambda slots, max_len, prompt_len, output_len: round(
                    slots / _mean(prompt_len, output_len)
                ),
            ),
        ),
        Mistake(
            "the ideal is rounded to nearest",
            "a request that half fits does not run: round down",
            _batch(
                ideal=lambda slots, max_len, prompt_len, output_len: round(
                    slots / _mean(prompt_len, output_len)
                )
            ),
        ),
        Mistake(
            "the ideal is right, but a float",
            "// with a float gives a float: int(...) makes it a number of requests",
            _batch(
                ideal=lambda slots, max_len, prompt_len, output_len: slots // _mean(prompt_len, output_len)
            ),
        ),
        Mistake(
            "not rounded",
            "requests are whole: round down, with // or int(...)",
            _batch(
                ideal=lambda slots, max_len, prompt_len, output_len: slots / _mean(prompt_len, output_len)
            ),
        ),
        Mistake(
            "not rounded",
            "requests are whole: round down, with // or int(...)",
            _batch(
                slabs=lambda slots, max_len, prompt_len, output_len: slots / max_len,
                ideal=lambda slots, max_len, prompt_len, output_len: slots / _mean(prompt_len, output_len),
            ),
        ),
    ),
    hints=(
        "Bytes first become slots. Then the same slots are shared out twice: by slabs, and by the tokens that a request"
        " really holds.",
        "slots = bytes / bytes of a token, rounded down\nslabs = slots / max_len, rounded down\n"
        "mean = prompt + (output - 1) / 2\nideal = slots / mean, rounded down",
        "slots = kv_bytes // bytes_per_token\nmean_tokens = prompt_len + (output_len - 1) / 2\n"
        "return slots // max_len, int(slots / mean_tokens)",
    ),
    look_at="how many slots there are, and how many of them one request takes: max_len, or its mean",
)

EXERCISES = [CLASSIFY_SLOTS, SLAB_UTILISATION, BEST_FIT, MAX_BATCH]  # as the notebook asks them
