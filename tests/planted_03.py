"""Answers to the exercises of notebook 03, as learners write them: other right ones, and wrong ones.

A wrong answer stands with a word of the diagnosis it must get.
"""

import functools
import itertools
import math
from collections import Counter, deque

import numpy as np

# -- slot_of --------------------------------------------------------------------------------------------------


def slot_by_divmod(table, p, size):
    logical, offset = divmod(p, size)
    return size * table[logical] + offset


def slot_by_listing(table, p, size):
    """Lists the slots of the whole sequence."""
    slots = []
    for block in table:
        slots.extend(range(block * size, (block + 1) * size))
    return slots[p]


def slot_by_walking(table, p, size):
    if p >= size:
        return slot_by_walking(table[1:], p - size, size)
    return table[0] * size + p


def slot_by_numpy(table, p, size):
    return (np.array(table)[:, None] * size + np.arange(size)).ravel()[p]


def slot_modulo_block(table, p, size):
    block, offset = table[p % size], p % size
    return block * size + offset


def slot_mixed_up(table, p, size):
    offset, logical = divmod(p, size)
    return table[logical] * size + offset


def slot_offset_is_block(table, p, size):
    logical = p // size
    return table[logical] * size + logical


def slot_logical(table, p, size):
    return (p // size) * size + p % size


def slot_block_as_address(table, p, size):
    logical, offset = divmod(p, size)
    return table[logical] + offset


def slot_block(table, p, size):
    return table[math.floor(p / size)]


def slot_block_start(table, p, size):
    return size * table[int(p / size)]


def slot_whole_position(table, p, size):
    return p + size * table[p // size]


def slot_from_one(table, p, size):
    return slot_by_divmod(table, p - 1, size)


def slot_sixteen(table, p, size):
    return table[p >> 4] * 16 + (p & 15)


def slot_pair(table, p, size):
    return table[p // size], p % size


def slot_linked(table, p, size):
    """The table backwards."""
    return table[::-1][p // size] * size + p % size


def slot_beyond(table, p, size):
    return table[p] * size


def slot_float(table, p, size):
    return float(table[p // size] * size + p % size)


# -- allocate -------------------------------------------------------------------------------------------------


def allocate_by_pop(free, n):
    if len(free) < n:
        return None
    return [free.pop(0) for _ in range(n)]


def allocate_by_deque(free, n):
    queue = deque(free)
    try:
        taken = [queue.popleft() for _ in range(n)]
    except IndexError:
        return None
    free[:] = queue
    return taken


def allocate_and_put_back(free, n):
    taken = []
    while len(taken) < n:
        if not free:
            free.extend(taken)
            return None
        taken.append(free.pop(0))
    return taken


def allocate_pop_end(free, n):
    taken = []
    if n > len(free):
        return None
    while n:
        taken.append(free.pop())
        n -= 1
    return taken


def allocate_tail(free, n):
    if n > len(free):
        return None
    taken = [free.pop() for _ in range(n)]
    taken.reverse()
    return taken


def allocate_rebinds(free, n):
    if n > len(free):
        return None
    taken, free = free[:n], free[n:]
    return taken


def allocate_as_many_as_there_are(free, n):
    taken = []
    for _ in range(n):
        if free:
            taken.append(free.pop(0))
    return taken


def allocate_islice(free, n):
    return list(itertools.islice(free, n))


def allocate_runs_dry(free, n):
    taken = []
    try:
        for _ in range(n):
            taken.append(free.pop(0))
    except IndexError:
        return None
    return taken


def allocate_empty(free, n):
    if len(free) >= n:
        return [free.pop(0) for _ in range(n)]
    return []


def allocate_lowest(free, n):
    if len(free) < n:
        return None
    taken = []
    for _ in range(n):
        taken.append(min(free))
        free.remove(min(free))
    return taken


def allocate_backwards(free, n):
    if len(free) < n:
        return None
    taken = []
    for _ in range(n):
        taken.insert(0, free.pop(0))
    return taken


def allocate_never_the_last(free, n):
    if n >= len(free):
        return None
    return [free.pop(0) for _ in range(n)]


def allocate_nothing_is_none(free, n):
    taken = allocate_by_pop(free, n)
    if not taken:
        return None
    return taken


def allocate_nothing_from_nothing(free, n):
    if not free:
        return None
    return allocate_by_pop(free, n)


def allocate_rest(free, n):
    if len(free) < n:
        return None
    for _ in range(n):
        free.pop(0)
    return free[:]


def allocate_rest_copy(free, n):
    if len(free) < n:
        return None
    free = free[n:]
    return free


def allocate_inclusive(free, n):
    if n + 1 > len(free):
        return None
    return [free.pop(0) for _ in range(0, n + 1)]


def allocate_tuple(free, n):
    taken = allocate_by_pop(free, n)
    return None if taken is None else tuple(taken)


def allocate_false(free, n):
    return allocate_by_pop(free, n) if n <= len(free) else False


def allocate_raises(free, n):
    return [free.pop(0) for _ in range(n)]


def allocate_clears(free, n):
    if n > len(free):
        return None
    taken = free[:n]
    free.clear()
    return taken


# -- release --------------------------------------------------------------------------------------------------


def release_on_copies(free, counts, ids):
    """Works on copies, and takes them over if nothing went wrong."""
    new_free, new_counts = list(free), list(counts)
    for block in ids[::-1]:
        new_counts[block] -= 1
        if new_counts[block] == 0:
            new_free.append(block)
    if min(new_counts, default=0) < 0:
        return False
    free[:], counts[:] = new_free, new_counts
    return True


def release_by_counter(free, counts, ids):
    if any(counts[block] < times for block, times in Counter(ids).items()):
        return False
    for i in range(len(ids) - 1, -1, -1):
        counts[ids[i]] = counts[ids[i]] - 1
        if not counts[ids[i]]:
            free += [ids[i]]
    return True


def release_and_undo(free, counts, ids):
    done = 0
    for block in ids:
        counts[block] -= 1
        done += 1
        if counts[block] < 0:
            for again in ids[:done]:
                counts[again] += 1
            return False
    order = list(dict.fromkeys(reversed(ids)))
    free.extend(block for block in order if counts[block] == 0)
    return True


def release_forwards(free, counts, ids):
    wanted = Counter(ids)
    if any(wanted[block] > counts[block] for block in wanted):
        return False
    for block in ids:
        counts[block] -= 1
        if counts[block] == 0:
            free.append(block)
    return True


def release_in_front(free, counts, ids):
    wanted = Counter(ids)
    if any(wanted[block] > counts[block] for block in wanted):
        return False
    for block in reversed(ids):
        counts[block] -= 1
        if counts[block] == 0:
            free.insert(0, block)
    return True


def release_ignores_sharing(free, counts, ids):
    wanted = Counter(ids)
    if any(wanted[block] > counts[block] for block in wanted):
        return False
    free.extend(ids[::-1])
    for block in ids:
        counts[block] -= 1
    return True


def release_wipes_counts(free, counts, ids):
    wanted = Counter(ids)
    if any(wanted[block] > counts[block] for block in wanted):
        return False
    while ids:
        *ids, last = ids
        counts[last] = 0
        free.append(last)
    return True


def release_leaves_counts(free, counts, ids):
    counts = np.array(counts)
    wanted = Counter(ids)
    if any(wanted[block] > counts[block] for block in wanted):
        return False
    for block in reversed(ids):
        counts[block] -= 1
        if counts[block] == 0:
            free.append(block)
    return True


def release_leaves_counts_and_frees_all(free, counts, ids):
    wanted = Counter(ids)
    if any(wanted[block] > counts[block] for block in wanted):
        return False
    free.extend(reversed(ids))
    return True


def release_rebinds_free(free, counts, ids):
    wanted = Counter(ids)
    if any(wanted[block] > counts[block] for block in wanted):
        return False
    for block in reversed(ids):
        counts[block] -= 1
        if counts[block] == 0:
            free = [*free, block]
    return True


def release_trusting(free, counts, ids):
    for block in ids[::-1]:
        counts[block] = counts[block] - 1
        if not counts[block]:
            free.append(block)
    return True


def release_trusting_not_positive(free, counts, ids):
    for block in ids[::-1]:
        counts[block] = counts[block] - 1
        if not counts[block] > 0:
            free.append(block)
    return True


def release_continue(free, counts, ids):
    for block in ids[::-1]:
        if counts[block] <= 0:
            continue
        counts[block] -= 1
        if counts[block] == 0:
            free.append(block)
    return True


def release_stops_half_way(free, counts, ids):
    for block in ids[::-1]:
        if not counts[block]:
            return False
        counts[block] -= 1
        if not counts[block]:
            free.append(block)
    return True


def release_stops_below_zero(free, counts, ids):
    for i in range(1, len(ids) + 1):
        counts[ids[-i]] -= 1
        if counts[ids[-i]] == -1:
            return False
        if counts[ids[-i]] == 0:
            free.append(ids[-i])
    return True


def release_reports_at_the_end(free, counts, ids):
    ok = True
    for block in ids[::-1]:
        if counts[block] == 0:
            ok = False
        else:
            counts[block] -= 1
            if counts[block] == 0:
                free.append(block)
    return ok


def release_no_twins(free, counts, ids):
    if 0 in [counts[block] for block in ids]:
        return False
    return release_trusting(free, counts, ids)


def release_no_twins_not_positive(free, counts, ids):
    if not all(counts[block] for block in ids):
        return False
    return release_trusting_not_positive(free, counts, ids)


def release_each_once(free, counts, ids):
    """A set of ids: a block that comes twice is given back once."""
    if not all(counts[block] for block in ids):
        return False
    for block in dict.fromkeys(reversed(ids)):
        counts[block] -= 1
        if counts[block] == 0:
            free.append(block)
    return True


def release_twins_too_late(free, counts, ids):
    if not all(counts[block] for block in ids):
        return False
    return release_stops_half_way(free, counts, ids)


def release_says_nothing(free, counts, ids):
    release_on_copies(free, counts, ids)


def release_says_nothing_good(free, counts, ids):
    if not release_on_copies(free, counts, ids):
        return False


def release_says_how_many(free, counts, ids):
    before = len(free)
    return len(free) - before if release_on_copies(free, counts, ids) else False


def release_raises(free, counts, ids):
    if not release_on_copies(free, counts, ids):
        raise ValueError("freed twice")
    return True


def release_empties_ids(free, counts, ids):
    if not release_on_copies(free, counts, ids):
        return False
    ids.clear()
    return True


# -- append_token ---------------------------------------------------------------------------------------------


def append_by_modulo(table, n, free, size):
    if n % size == 0:
        if len(free) == 0:
            return None
        table += [free.pop(0)]
    return slot_by_divmod(table, n, size)


def append_by_need(table, n, free, size):
    for _ in range(math.ceil((n + 1) / size) - len(table)):
        if not free:
            return None
        table.append(free[0])
        del free[0]
    return table[n // size] * size + n % size


def append_by_index_error(table, n, free, size):
    try:
        block = table[n // size]
    except IndexError:
        try:
            block = free.pop(0)
        except IndexError:
            return None
        table.append(block)
    return size * block + n - n // size * size


def append_always(table, n, free, size):
    try:
        table.append(free.pop(0))
    except IndexError:
        return None
    return slot_by_divmod(table, n, size)


def append_whenever_some_are_free(table, n, free, size):
    table.extend(free[:1])
    del free[:1]
    return slot_by_divmod(table, n, size) if n < len(table) * size else None


def append_into_new_block(table, n, free, size):
    if len(free) == 0:
        return None
    block = free.pop(0)
    table.append(block)
    return block * size + n % size


def append_too_early(table, n, free, size):
    if len(table) * size - n <= 1:
        if not free:
            return None
        table.append(free.pop(0))
    return slot_by_divmod(table, n, size)


def append_only_to_an_empty_table(table, n, free, size):
    if len(table) == 0:
        if not free:
            return None
        table.append(free.pop(0))
    return table[-1] * size + n % size


def append_pop_end(table, n, free, size):
    if n % size == 0:
        if not free:
            return None
        table.append(free.pop())
    return slot_by_divmod(table, n, size)


def append_peeks(table, n, free, size):
    if n % size == 0:
        if not free:
            return None
        table.append(free[0])
    return slot_by_divmod(table, n, size)


def append_forgets_table(table, n, free, size):
    block = table[-1] if n % size else (free.pop(0) if free else None)
    return None if block is None else block * size + n % size


def append_rebinds(table, n, free, size):
    if n % size == 0:
        if not free:
            return None
        table, free = [*table, free[0]], free[1:]
    return table[-1] * size + n % size


def append_at_the_front(table, n, free, size):
    if n % size == 0:
        if not free:
            return None
        table.insert(0, free.pop(0))
        return table[0] * size
    return slot_by_divmod(table, n, size)


def append_previous(table, n, free, size):
    if n % size == 0:
        if not free:
            return None
        table.append(free.pop(0))
    return slot_by_divmod(table, n - 1, size)


def append_next(table, n, free, size):
    slot = append_by_modulo(table, n, free, size)
    if slot is not None:
        n += 1
        slot = table[-1] * size + n % size
    return slot


def append_next_slot(table, n, free, size):
    slot = append_by_modulo(table, n, free, size)
    return slot if slot is None else 1 + slot


def append_block(table, n, free, size):
    if append_by_modulo(table, n, free, size) is None:
        return None
    return table[n // size]


def append_offset(table, n, free, size):
    if append_by_modulo(table, n, free, size) is None:
        return None
    return n % size


def append_position(table, n, free, size):
    if append_by_modulo(table, n, free, size) is None:
        return None
    return n


def append_block_start(table, n, free, size):
    if append_by_modulo(table, n, free, size) is None:
        return None
    return table[-1] * size


def append_block_as_address(table, n, free, size):
    if append_by_modulo(table, n, free, size) is None:
        return None
    return table[-1] + n % size


def append_minus_one(table, n, free, size):
    slot = append_by_need(table, n, free, size)
    return -1 if slot is None else slot


def append_asks_first(table, n, free, size):
    if free == []:
        return None
    return append_by_modulo(table, n, free, size)


def append_truth_of_block(table, n, free, size):
    if n % size == 0:
        block = next(iter(free), None)
        del free[:1]
        if not block:
            return None
        table.append(block)
    return slot_by_divmod(table, n, size)


def append_truth_of_slot(table, n, free, size):
    slot = append_by_need(table, n, free, size)
    if slot:
        return slot
    return None


def append_false(table, n, free, size):
    slot = append_by_need(table, n, free, size)
    return False if slot is None else slot


def append_pops_from_nothing(table, n, free, size):
    if n == len(table) * size:
        table.append(free.pop(0))
    return slot_by_divmod(table, n, size)


def append_without_first(table, n, free, size):
    if n and n % size == 0:
        if not free:
            return None
        table.append(free.pop(0))
    return table[-1] * size + n % size


def append_silently(table, n, free, size):
    append_by_modulo(table, n, free, size)


def append_none_into_table(table, n, free, size):
    """Looks for the missing block after it has put it into the table."""
    if n % size == 0:
        table.append(free.pop(0) if free else None)
        if table[-1] is None:
            return None
    return table[-1] * size + n % size


# -- paged_waste ----------------------------------------------------------------------------------------------


def waste_by_filling(lengths, size):
    wasted = 0
    for length in lengths:
        slots = 0
        while slots < length:
            slots += size
        wasted += slots - length
    return wasted, sum(size - 1 for _ in lengths)


def waste_by_ceil(lengths, size):
    blocks = [math.ceil(n / size) for n in lengths]
    return sum(blocks) * size - sum(lengths), size * len(lengths) - len(lengths)


def waste_by_numpy(lengths, size):
    array = np.array(lengths, dtype=int)
    return ((size - array % size) % size).sum(), len(array) * (size - 1)


def waste_block_for_multiples(lengths, size):
    wasted = 0
    for length in lengths:
        blocks = length // size + 1
        wasted += blocks * size - length
    return wasted, (size - 1) * len(lengths)


def waste_tokens_in_last(lengths, size):
    return int(np.mod(np.array(lengths, dtype=int), size).sum()), (size - 1) * len(lengths)


def waste_pooled(lengths, size):
    total = sum(lengths)
    return math.ceil(total / size) * size - total, (size - 1) * len(lengths)


def waste_held(lengths, size):
    return sum(math.ceil(n / size) for n in lengths) * size, (size - 1) * len(lengths)


def waste_negative(lengths, size):
    wasted = 0
    for length in lengths:
        wasted += (length // size) * size - length
    return wasted, (size - 1) * len(lengths)


def waste_expected(lengths, size):
    return sum((size - 1) / 2 for _ in lengths), (size - 1) * len(lengths)


def waste_bound_whole_blocks(lengths, size):
    return waste_by_filling(lengths, size)[0], size * len(lengths)


def waste_bound_of_one(lengths, size):
    return waste_by_filling(lengths, size)[0], size - 1


def waste_bound_is_the_waste(lengths, size):
    wasted, _ = waste_by_ceil(lengths, size)
    return wasted, wasted


def waste_bound_of_the_partial(lengths, size):
    partial = [n for n in lengths if n % size != 0]
    return waste_by_ceil(lengths, size)[0], (size - 1) * len(partial)


def waste_swapped(lengths, size):
    at_most, wasted = waste_by_ceil(lengths, size)
    return wasted, at_most


def waste_reduced(lengths, size):
    """Has no first item to begin with where there is none."""
    wasted = functools.reduce(lambda a, b: a + b, [-n % size for n in lengths])
    return wasted, (size - 1) * len(lengths)


def waste_in_blocks(lengths, size):
    return sum(1 for n in lengths if n % size), len(lengths)


def waste_float(lengths, size):
    return sum(math.ceil(n / size) * size - n for n in lengths) / 1, (size - 1) * len(lengths)


ALSO_RIGHT = {
    "slot_of": [slot_by_divmod, slot_by_listing, slot_by_walking, slot_by_numpy],
    "allocate": [allocate_by_pop, allocate_by_deque, allocate_and_put_back],
    "release": [release_on_copies, release_by_counter, release_and_undo],
    "append_token": [append_by_modulo, append_by_need, append_by_index_error],
    "paged_waste": [waste_by_filling, waste_by_ceil, waste_by_numpy],
}

WRONG = [
    ("slot_of", slot_modulo_block, "position 16 with block_size 16 landed in logical block 0"),
    ("slot_of", slot_mixed_up, "// and % have changed places"),
    ("slot_of", slot_offset_is_block, "the offset is a block's number"),
    ("slot_of", slot_logical, "ignores the block table"),
    ("slot_of", slot_block_as_address, "taken for its first slot"),
    ("slot_of", slot_block, "that is the block, not the slot"),
    ("slot_of", slot_block_start, "the first slot of its block"),
    ("slot_of", slot_whole_position, "the whole position is added"),
    ("slot_of", slot_from_one, "one position early"),
    ("slot_of", slot_sixteen, "blocks of 16 only"),
    ("slot_of", slot_pair, "that is block and offset"),
    ("slot_of", slot_linked, "the value differs"),
    ("slot_of", slot_beyond, "it raised IndexError"),
    ("slot_of", slot_float, "an int is expected, not float"),
    ("allocate", allocate_pop_end, "came off the end"),
    ("allocate", allocate_tail, "came off the end"),
    ("allocate", allocate_rebinds, "still in the free list"),
    ("allocate", allocate_as_many_as_there_are, "3 blocks needed, 2 given"),
    ("allocate", allocate_islice, "nothing is taken off the list"),
    ("allocate", allocate_runs_dry, "the blocks are gone"),
    ("allocate", allocate_empty, "an empty list where None"),
    ("allocate", allocate_lowest, "the lowest block ids"),
    ("allocate", allocate_backwards, "in reverse order"),
    ("allocate", allocate_never_the_last, "2 blocks needed, 2 free, and refused"),
    ("allocate", allocate_nothing_is_none, "None where no block is needed"),
    ("allocate", allocate_nothing_from_nothing, "None where no block is needed"),
    ("allocate", lambda free, n: None, "it returned None"),
    ("allocate", allocate_rest, "what is left"),
    ("allocate", allocate_rest_copy, "what is left"),
    ("allocate", allocate_inclusive, "one block too many"),
    ("allocate", allocate_tuple, "a list is expected, not tuple"),
    ("allocate", allocate_false, "the value differs"),
    ("allocate", allocate_raises, "it raised IndexError"),
    ("allocate", allocate_clears, "free_blocks is not as it should be afterwards"),
    ("release", release_forwards, "first to last"),
    ("release", release_in_front, "the front of the free list"),
    ("release", release_ignores_sharing, "block 4 is in the free list while others use it"),
    ("release", release_wipes_counts, "block 4 has lost all its references"),
    ("release", release_leaves_counts, "the counts did not change"),
    ("release", release_leaves_counts_and_frees_all, "the counts did not change"),
    ("release", release_rebinds_free, "never reach the free list"),
    ("release", release_trusting, "nobody noticed that block 3 is free already"),
    ("release", release_trusting_not_positive, "block 3 is now twice in the free list"),
    ("release", release_continue, "skips the block that is free already"),
    ("release", release_stops_half_way, "block 4 was given back before block 3 was noticed"),
    ("release", release_stops_below_zero, "the count of block 3 is below 0"),
    ("release", release_reports_at_the_end, "the other blocks were given back"),
    ("release", release_no_twins, "block 2 comes twice with one reference, and nobody noticed"),
    ("release", release_each_once, "block 2 comes twice with one reference, and nobody noticed"),
    ("release", release_no_twins_not_positive, "and is now twice in the free list"),
    ("release", release_twins_too_late, "noticed too late"),
    ("release", release_says_nothing, "it returned None"),
    ("release", release_says_nothing_good, "it returned None"),
    ("release", release_says_how_many, "the value differs"),
    ("release", release_raises, "it raised ValueError"),
    ("release", release_empties_ids, "it changed its argument block_ids"),
    ("append_token", append_always, "it takes a block for every token"),
    ("append_token", append_whenever_some_are_free, "it takes a block for every token"),
    ("append_token", append_into_new_block, "and puts the token into that"),
    ("append_token", append_too_early, "one token early"),
    ("append_token", append_only_to_an_empty_table, "its first token is overwritten"),
    ("append_token", append_pop_end, "off the end of the free list"),
    ("append_token", append_peeks, "the block is still in the free list"),
    ("append_token", append_forgets_table, "the new block is not in the block table"),
    ("append_token", append_rebinds, "neither list has changed"),
    ("append_token", append_at_the_front, "in front of the table"),
    ("append_token", append_previous, "the slot of the token before"),
    ("append_token", append_next, "the slot after the new token's"),
    ("append_token", append_next_slot, "the slot after the new token's"),
    ("append_token", append_block, "that is the block, not the slot"),
    ("append_token", append_offset, "the place in the block, not the slot"),
    ("append_token", append_position, "the position in the text, not the slot"),
    ("append_token", append_block_start, "the first slot of its block"),
    ("append_token", append_block_as_address, "taken for its first slot"),
    ("append_token", append_minus_one, "-1 where no block is free"),
    ("append_token", append_asks_first, "None, though the last block has room"),
    ("append_token", append_truth_of_block, "block 0 is taken for no block"),
    ("append_token", append_truth_of_slot, "slot 0 is taken for no slot"),
    ("append_token", append_false, "the value differs"),
    ("append_token", append_pops_from_nothing, "it raised IndexError"),
    ("append_token", append_without_first, "it raised IndexError"),
    ("append_token", append_silently, "it returned None"),
    ("append_token", append_none_into_table, "block_table is not as it should be afterwards"),
    ("paged_waste", waste_block_for_multiples, "12 tokens fill 3 blocks of 4, and a fourth was counted"),
    ("paged_waste", waste_tokens_in_last, "the tokens in the last blocks"),
    ("paged_waste", waste_pooled, "share their last block"),
    ("paged_waste", waste_held, "all slots of the blocks"),
    ("paged_waste", waste_negative, "a negative waste"),
    ("paged_waste", waste_expected, "on average"),
    ("paged_waste", waste_bound_whole_blocks, "a last block without a token"),
    ("paged_waste", waste_bound_of_one, "that of one sequence"),
    ("paged_waste", waste_bound_is_the_waste, "depends on these lengths"),
    ("paged_waste", waste_bound_of_the_partial, "depends on these lengths"),
    ("paged_waste", waste_swapped, "wrong way round"),
    ("paged_waste", waste_reduced, "it raised TypeError"),
    ("paged_waste", waste_in_blocks, "the value differs"),
    ("paged_waste", waste_float, "an int is expected, not float"),
]
