"""Answers to the exercises of notebook 02, as learners write them: other right ones, and wrong ones.

A wrong answer stands with a word of the diagnosis it must get.
"""

import bisect
import statistics
from fractions import Fraction

import numpy as np

# -- classify_slots -------------------------------------------------------------------------------------------


def classify_by_painting(p, g, out, asked, piece):
    """Paints every slot of the piece, then counts the colours."""
    colours = ["external"] * piece
    colours[:asked] = ["internal"] * asked
    for slot in range(p + out):
        colours[slot] = "reserved"
    for slot in range(p + g):
        colours[slot] = "token"
    return tuple(colours.count(name) for name in ("token", "reserved", "internal", "external"))


def classify_by_differences(p, g, out, asked, piece):
    return tuple(np.diff([0, p + g, p + out, asked, piece]))


def classify_with_leftover(p, g, out, asked, piece):
    used, coming = p + g, out - g
    rounding = piece - asked
    return used, coming, piece - used - coming - rounding, rounding


def classify_output_only(p, g, out, asked, piece):
    counts = {"token": g, "reserved": out - g}
    counts["internal"] = asked - sum(counts.values())
    counts["external"] = piece - asked
    return tuple(counts.values())


def classify_prompt_in_no_count(p, g, out, asked, piece):
    return g, out - g, asked - (p + out), piece - asked


def classify_prompt_only(p, g, out, asked, piece):
    token = p
    reserved = out
    return token, reserved, asked - token - reserved, piece - asked


def classify_whole_output_reserved(p, g, out, asked, piece):
    token, reserved = p + g, out
    internal = asked - token - reserved
    return token, reserved, internal, piece - asked


def classify_whole_output_reserved_but_internal_right(p, g, out, asked, piece):
    return p + g, out, asked - p - out, piece - asked


def classify_rest_is_reserved(p, g, out, asked, piece):
    token = p + g
    return token, asked - token, 0, piece - asked


def classify_rest_is_internal(p, g, out, asked, piece):
    token = p + g
    return token, 0, asked - token, piece - asked


def classify_rounding_is_internal(p, g, out, asked, piece):
    counts = [p + g, out - g]
    counts.append(piece - sum(counts))
    return (*counts, 0)


def classify_rounding_twice(p, g, out, asked, piece):
    token, reserved = p + g, out - g
    return token, reserved, piece - (token + reserved), piece - asked


def classify_without_rounding(p, g, out, asked, piece):
    token, reserved = p + g, out - g
    return token, reserved, asked - token - reserved, 0


def classify_waste_is_external(p, g, out, asked, piece):
    token, reserved = p + g, out - g
    return token, reserved, 0, piece - token - reserved


def classify_reserved_in_internal(p, g, out, asked, piece):
    token = p + g
    return token, (p + out) - token, asked - token, piece - asked


def classify_swapped(p, g, out, asked, piece):
    token, internal = p + g, asked - p - out
    return token, internal, asked - token - internal, piece - asked


def classify_last_token_unwritten(p, g, out, asked, piece):
    """The last token is chosen and never read: its keys are never written."""
    return p + g, out - g - 1, asked - p - out + 1, piece - asked


# -- best_fit -------------------------------------------------------------------------------------------------


def best_fit_by_loop(holes, size):
    best = None
    for hole in holes:
        if hole[1] < size:
            continue
        if best is None or hole[1] < best[1]:
            best = hole
    return best and best[0]


def best_fit_by_bisection(holes, size):
    ordered = sorted((room, offset) for offset, room in holes)
    place = bisect.bisect_left(ordered, (size, -1))
    return ordered[place][1] if place < len(ordered) else None


def best_fit_by_numpy(holes, size):
    offsets, rooms = np.array(holes, dtype=int).reshape(-1, 2).T
    rooms = np.where(rooms >= size, rooms.astype(float), np.inf)
    return offsets[rooms.argmin()] if len(holes) and np.isfinite(rooms).any() else None


def best_fit_first(holes, size):
    for offset, room in holes:
        if room >= size:
            return offset
    return None


def best_fit_largest(holes, size):
    large = [hole for hole in holes if hole[1] >= size]
    if len(large) == 0:
        return None
    large.sort(key=lambda hole: hole[1], reverse=True)
    return large[0][0]


def best_fit_last_of_equals(holes, size):
    found, smallest = None, float("inf")
    for offset, room in holes:
        if room >= size and room <= smallest:
            found, smallest = offset, room
    return found


def best_fit_tighter(holes, size):
    """Asks for room beyond the size."""
    found, smallest = None, float("inf")
    for offset, room in holes:
        if room > size and room < smallest:
            found, smallest = offset, room
    return found


def best_fit_index(holes, size):
    best = -1
    for i in range(len(holes)):
        if holes[i][1] >= size and (best < 0 or holes[i][1] < holes[best][1]):
            best = i
    return best if best >= 0 else None


def best_fit_position_in_filtered(holes, size):
    rooms = [room for _, room in holes if room >= size]
    return rooms.index(min(rooms)) if rooms else None


def best_fit_room(holes, size):
    return min([room for _, room in holes if room >= size], default=None)


def best_fit_hole(holes, size):
    large = sorted((hole for hole in holes if hole[1] >= size), key=lambda hole: hole[1])
    return large[0] if large else None


def best_fit_zero(holes, size):
    answer, least = 0, 10**9
    for offset, room in holes:
        if size <= room < least:
            answer, least = offset, room
    return answer


def best_fit_minus_one(holes, size):
    answer, least = -1, 10**9
    for offset, room in holes:
        if size <= room < least:
            answer, least = offset, room
    return answer


def best_fit_pooled(holes, size):
    """If the free slots suffice together, begin at the first of them."""
    if sum(room for _, room in holes) < size:
        return None
    best = best_fit_by_loop(holes, size)
    return best if best is not None else min(holes)[0]


def best_fit_pooled_from_the_largest(holes, size):
    best = best_fit_by_loop(holes, size)
    if best is None and size <= np.sum([room for _, room in holes]):
        rooms = [room for _, room in holes]
        return holes[rooms.index(max(rooms))][0]
    return best


def best_fit_smallest(holes, size):
    ordered = sorted(holes, key=lambda hole: hole[1])
    return ordered[0][0] if ordered else None


def best_fit_closest(holes, size):
    best, gap = None, None
    for offset, room in holes:
        if gap is None or abs(room - size) < gap:
            best, gap = offset, abs(room - size)
    return best


def best_fit_equal(holes, size):
    for offset, room in holes:
        if room == size:
            return offset


def best_fit_truth_of_offset(holes, size):
    best = best_fit_by_loop(holes, size)
    if best:
        return best
    return None


def best_fit_falsy_offset(holes, size):
    found = False
    rooms = dict(holes)
    for offset in rooms:
        if rooms[offset] >= size and (not found or rooms[offset] < rooms[found]):
            found = offset
    return found if found is not False else None


def best_fit_at_the_end(holes, size):
    best = best_fit_by_loop(holes, size)
    for offset, room in holes:
        if offset == best:
            return offset + (room - size)
    return None


def best_fit_sorts_in_place(holes, size):
    holes.sort(key=lambda hole: hole[1])
    return next((offset for offset, room in holes if room >= size), None)


def best_fit_takes_it(holes, size):
    best = best_fit_by_loop(holes, size)
    if best is not None:
        holes[:] = [hole for hole in holes if hole[0] != best]
    return best


def best_fit_sentinel(holes, size):
    """No hole is that large, or so it seems."""
    best, least = None, 15_729
    for offset, room in holes:
        if size <= room < least:
            best, least = offset, room
    return best


def best_fit_no_thought_of_none(holes, size):
    largest = max(room for _, room in holes)
    return best_fit_by_loop(holes, size) if largest >= size else None


def best_fit_text(holes, size):
    best = best_fit_by_loop(holes, size)
    return "no hole" if best is None else best


# -- slab_utilisation -----------------------------------------------------------------------------------------


def utilisation_by_simulation(p, out, slab):
    held = 0
    for k in range(1, out + 1):
        held += p + k - 1
    return held / (out * slab)


def utilisation_by_numpy(p, out, slab):
    return np.mean(np.arange(p, p + out)) / slab


def utilisation_by_ends(p, out, slab):
    return float(Fraction(p + (p + out - 1), 2 * slab))


def utilisation_when_done(p, out, slab):
    return (p + out) * 1.0 / slab


def utilisation_last_step(p, out, slab):
    return max(range(p, p + out)) / slab


def utilisation_first_step(p, out, slab):
    return min(range(p, p + out)) / slab


def utilisation_range_to_n(p, out, slab):
    steps = [p + k for k in range(out + 1)]
    return sum(steps) / len(steps) / slab


def utilisation_from_one(p, out, slab):
    return statistics.fmean(p + k for k in range(1, out + 1)) / slab


def utilisation_median_step(p, out, slab):
    return list(range(p, p + out))[(out - 1) // 2] / slab


def utilisation_integer(p, out, slab):
    return sum(p + k for k in range(out)) // (out * slab)


def utilisation_output_only(p, out, slab):
    return statistics.fmean(range(out)) / slab


def utilisation_from_nothing(p, out, slab):
    """As if the request began empty."""
    return statistics.fmean([0, p + out]) / slab


def utilisation_from_nothing_to_last(p, out, slab):
    return (0 + p + out - 1) / 2 / slab


def utilisation_of_itself(p, out, slab):
    return utilisation_by_simulation(p, out, p + out)


def utilisation_tokens(p, out, slab):
    return sum(range(p, p + out)) / out


def utilisation_percent(p, out, slab):
    return round(100 * utilisation_by_simulation(p, out, slab), 9)


def utilisation_waste(p, out, slab):
    return sum(slab - p - k for k in range(out)) / out / slab


def utilisation_two_digits(p, out, slab):
    return round(utilisation_by_simulation(p, out, slab), 2)


def utilisation_sum(p, out, slab):
    """Forgets to divide by the number of steps."""
    return sum((p + k) / slab for k in range(out))


def utilisation_text(p, out, slab):
    return f"{utilisation_by_simulation(p, out, slab):.1%}"


# -- max_batch ------------------------------------------------------------------------------------------------


def batch_by_counting(kv, per_token, longest, p, out):
    slots, slabs, ideal = kv // per_token, 0, 0
    while (slabs + 1) * longest <= slots:
        slabs += 1
    while (ideal + 1) * (2 * p + out - 1) <= 2 * slots:
        ideal += 1
    return slabs, ideal


def batch_from_bytes(kv, per_token, longest, p, out):
    life = [p + k for k in range(out)]
    return kv // (per_token * longest), kv // per_token * out // sum(life)


def batch_floor(kv, per_token, longest, p, out):
    slots = int(kv / per_token)
    return np.int64(slots // longest), np.floor(slots / (p + 0.5 * out - 0.5)).astype(int)


def batch_no_division_by_token(kv, per_token, longest, p, out):
    return int(kv // longest), int(kv / (p + (out - 1) / 2))


def batch_ideal_first(kv, per_token, longest, p, out):
    return batch_by_counting(kv, per_token, longest, p, out)[1], batch_by_counting(
        kv, per_token, longest, p, out
    )[0]


def batch_exact_slabs(kv, per_token, longest, p, out):
    slots = kv // per_token
    return slots // (p + out), int(slots / (p + (out - 1) / 2))


def batch_at_the_end(kv, per_token, longest, p, out):
    slots = kv // per_token
    return slots // longest, slots // (p + out)


def batch_at_the_last_step(kv, per_token, longest, p, out):
    slots = kv // per_token
    return slots // longest, slots // max(range(p, p + out))


def batch_prompt_only(kv, per_token, longest, p, out):
    slots = kv // per_token
    return slots // longest, int(slots / p)


def batch_half_the_answer(kv, per_token, longest, p, out):
    slots = kv // per_token
    return slots // longest, int(slots // (p + out / 2))


def batch_from_one(kv, per_token, longest, p, out):
    slots = kv // per_token
    mean = statistics.fmean(p + k for k in range(1, out + 1))
    return slots // longest, int(slots / mean)


def batch_integer_mean(kv, per_token, longest, p, out):
    slots = kv // per_token
    return slots // longest, slots // (p + (out - 1) // 2)


def batch_scaled_up(kv, per_token, longest, p, out):
    """The slabs, divided by how full they are."""
    slabs = kv // per_token // longest
    return slabs, int(slabs / ((p + (out - 1) / 2) / longest) + 1e-9)


def batch_ceil(kv, per_token, longest, p, out):
    slots = kv // per_token
    return -(-slots // longest), int(-(-slots // (p + (out - 1) / 2)))


def batch_round(kv, per_token, longest, p, out):
    slots = kv // per_token
    return round(slots / longest), round(slots / (p + (out - 1) / 2))


def batch_ideal_rounded(kv, per_token, longest, p, out):
    slots = kv // per_token
    return slots // longest, int(0.5 + slots / (p + (out - 1) / 2))


def batch_float_floor(kv, per_token, longest, p, out):
    slots = kv // per_token
    return slots // longest, slots // (p + (out - 1) / 2)


def batch_fractions(kv, per_token, longest, p, out):
    slots = kv // per_token
    return slots / longest, slots / (p + (out - 1) / 2)


def batch_ideal_fraction(kv, per_token, longest, p, out):
    slots = kv // per_token
    return slots // longest, slots * 2 / (2 * p + out - 1)


def batch_slabs_fraction(kv, per_token, longest, p, out):
    slots = kv // per_token
    return slots / longest, int(slots / (p + (out - 1) / 2))


def batch_slots_rounded(kv, per_token, longest, p, out):
    return batch_by_counting(round(kv / per_token), 1, longest, p, out)


def batch_list(kv, per_token, longest, p, out):
    return list(batch_by_counting(kv, per_token, longest, p, out))


def batch_at_least_one(kv, per_token, longest, p, out):
    slabs, ideal = batch_from_bytes(kv, per_token, longest, p, out)
    return max(1, slabs), ideal


ALSO_RIGHT = {
    "classify_slots": [classify_by_painting, classify_by_differences, classify_with_leftover],
    "best_fit": [best_fit_by_loop, best_fit_by_bisection, best_fit_by_numpy],
    "slab_utilisation": [utilisation_by_simulation, utilisation_by_numpy, utilisation_by_ends],
    "max_batch": [batch_by_counting, batch_from_bytes, batch_floor],
}

WRONG = [
    ("classify_slots", classify_output_only, "the prompt is forgotten"),
    ("classify_slots", classify_prompt_in_no_count, "the prompt is forgotten"),
    ("classify_slots", classify_prompt_only, "generated tokens hold no slot"),
    ("classify_slots", classify_whole_output_reserved, "reserved a second time"),
    ("classify_slots", classify_whole_output_reserved_but_internal_right, "reserved a second time"),
    ("classify_slots", classify_rest_is_reserved, "every empty slot is called reserved"),
    ("classify_slots", classify_rest_is_internal, "every empty slot is called internal"),
    ("classify_slots", classify_rounding_is_internal, "the rounding is called internal"),
    ("classify_slots", classify_rounding_twice, "the rounding is counted twice"),
    ("classify_slots", classify_without_rounding, "the rounding is missing"),
    ("classify_slots", classify_waste_is_external, "asked for are called external"),
    ("classify_slots", classify_reserved_in_internal, "counted again as internal"),
    ("classify_slots", classify_swapped, "wrong way round"),
    ("classify_slots", classify_last_token_unwritten, "the value differs"),
    ("classify_slots", lambda *args: list(classify_with_leftover(*args)), "a tuple is expected, not list"),
    ("classify_slots", lambda *args: classify_with_leftover(*args)[:3], "the length should be 4, not 3"),
    ("best_fit", best_fit_first, "that is first fit"),
    ("best_fit", best_fit_largest, "that is worst fit"),
    ("best_fit", best_fit_last_of_equals, "it takes the last"),
    ("best_fit", best_fit_tighter, "exactly `size` slots is passed over"),
    ("best_fit", best_fit_index, "the place in the list"),
    ("best_fit", best_fit_position_in_filtered, "the place in the list"),
    ("best_fit", best_fit_room, "the hole's slots, not its offset"),
    ("best_fit", best_fit_hole, "the whole hole"),
    ("best_fit", best_fit_zero, "returns 0 where nothing fits"),
    ("best_fit", best_fit_minus_one, "returns -1 where nothing fits"),
    ("best_fit", best_fit_pooled, "the holes are added up"),
    ("best_fit", best_fit_pooled_from_the_largest, "the holes are added up"),
    ("best_fit", best_fit_smallest, "the hole is too small"),
    ("best_fit", best_fit_closest, "the hole is too small"),
    ("best_fit", best_fit_equal, "only a hole of exactly `size` slots"),
    ("best_fit", best_fit_truth_of_offset, "offset 0 is taken for no hole"),
    ("best_fit", best_fit_falsy_offset, "offset 0 is taken for no hole"),
    ("best_fit", lambda holes, size: None, "it returned None"),
    ("best_fit", best_fit_at_the_end, "its far end"),
    ("best_fit", best_fit_sorts_in_place, "changed its argument holes"),
    ("best_fit", best_fit_takes_it, "changed its argument holes"),
    ("best_fit", best_fit_sentinel, "it returned None"),
    ("best_fit", best_fit_no_thought_of_none, "it raised ValueError"),
    ("best_fit", best_fit_text, "the value differs"),
    (
        "best_fit",
        lambda holes, size: min((h[1], h[0]) for h in holes if h[1] >= size)[1],
        "it raised ValueError",
    ),
    ("slab_utilisation", utilisation_when_done, "at its full length"),
    ("slab_utilisation", utilisation_last_step, "in the last step"),
    ("slab_utilisation", utilisation_first_step, "in the first step"),
    ("slab_utilisation", utilisation_range_to_n, "half a token too many"),
    ("slab_utilisation", utilisation_from_one, "one token too many"),
    ("slab_utilisation", utilisation_median_step, "number of tokens is rounded down"),
    ("slab_utilisation", utilisation_integer, "rounded down to 0"),
    ("slab_utilisation", utilisation_output_only, "the prompt is forgotten"),
    ("slab_utilisation", utilisation_from_nothing, "the prompt is halved"),
    ("slab_utilisation", utilisation_from_nothing_to_last, "the prompt is halved"),
    ("slab_utilisation", utilisation_of_itself, "share of prompt + output"),
    ("slab_utilisation", utilisation_tokens, "a number of tokens, not a share"),
    ("slab_utilisation", utilisation_percent, "in percent"),
    ("slab_utilisation", utilisation_waste, "share of empty slots"),
    ("slab_utilisation", utilisation_two_digits, "the value differs"),
    ("slab_utilisation", utilisation_sum, "the value differs"),
    ("slab_utilisation", utilisation_text, "a number is expected, not str"),
    ("max_batch", batch_no_division_by_token, "bytes are taken for slots"),
    ("max_batch", batch_ideal_first, "wrong way round"),
    ("max_batch", batch_exact_slabs, "cut to the request's length"),
    ("max_batch", batch_at_the_end, "at its longest"),
    ("max_batch", batch_at_the_last_step, "at its longest"),
    ("max_batch", batch_prompt_only, "at its shortest"),
    ("max_batch", batch_half_the_answer, "half a token too many"),
    ("max_batch", batch_from_one, "one token too many"),
    ("max_batch", batch_integer_mean, "the mean number of tokens is rounded down"),
    ("max_batch", batch_scaled_up, "computed inside the slabs"),
    ("max_batch", batch_ceil, "rounded up"),
    ("max_batch", batch_round, "rounded to nearest"),
    ("max_batch", batch_ideal_rounded, "the ideal is rounded to nearest"),
    ("max_batch", batch_float_floor, "right, but a float"),
    ("max_batch", batch_fractions, "not rounded"),
    ("max_batch", batch_ideal_fraction, "not rounded"),
    ("max_batch", batch_slabs_fraction, "an int is expected, not float"),
    ("max_batch", batch_slots_rounded, "the value differs"),
    ("max_batch", batch_list, "a tuple is expected, not list"),
    ("max_batch", batch_at_least_one, "the value differs"),
]
