"""Answers to the exercises of notebook 08, as learners write them: other right ones, and wrong ones.

A wrong answer stands with a word of the diagnosis it must get.
"""

import itertools
import math

import numpy as np

# -- write_shared ---------------------------------------------------------------------------------------------


def write_by_index(table, n, counts, free, size):
    """The block in which the token's position lies, if there is one."""
    logical = n // size
    if logical == len(table):
        counts[free[0]] += 1
        table.append(free.pop(0))
    elif counts[table[logical]] > 1:
        old, new = table[logical], free.pop(0)
        counts[old], counts[new] = counts[old] - 1, 1
        table[logical] = new
        return old, new


def write_by_room(table, n, counts, free, size):
    has_room = len(table) * size > n
    if has_room and counts[table[-1]] < 2:
        return None
    new, *free[:] = free
    counts[new] = 1
    if not has_room:
        table += [new]
        return None
    old = table.pop()
    counts[old] -= 1
    table.append(new)
    return (old, new)


def write_in_numpy(table, n, counts, free, size):
    owners, new = np.array(counts), free[0]
    copy = n % size > 0 and bool(owners[table[-1]] > 1)
    fresh = copy or n % size == 0
    owners[new] += fresh
    if copy:
        owners[table[-1]] -= 1
    pair = (table[-1], new) if copy else None
    table[:] = table[: len(table) - copy] + [new] * fresh
    del free[: int(fresh)]
    counts[:] = owners.tolist()
    return pair


def write_regardless(table, n, counts, free, size):
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] = 1


def write_copies_own(table, n, counts, free, size):
    if n % size == 0:
        new = free.pop(0)
        table.append(new)
        counts[new] = 1
        return None
    old = table[-1]
    new = free.pop(0)
    table[-1] = new
    counts[old] -= 1
    counts[new] = 1
    return old, new


def write_looks_at_the_first(table, n, counts, free, size):
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] = 1
    elif counts[table[0]] > 1:
        old, table[-1] = table[-1], free.pop(0)
        counts[old] -= 1
        counts[table[-1]] = 1
        return old, table[-1]


def write_copies_own_and_gives_it_back(table, n, counts, free, size):
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] = 1
        return None
    old = table.pop()
    table.append(free.pop(0))
    counts[table[-1]] += 1
    counts[old] -= 1
    if counts[old] == 0:
        free.append(old)
    return old, table[-1]


def write_the_other_way_round(table, n, counts, free, size):
    last = table[-1]
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] = 1
    elif counts[last] == 1:
        table[-1] = free.pop(0)
        counts[last] -= 1
        counts[table[-1]] = 1
        return last, table[-1]


def write_two_is_not_many(table, n, counts, free, size):
    if not n % size:
        table.append(free.pop(0))
        counts[table[-1]] = 1
    elif counts[table[-1]] > 2:
        old, new = table.pop(), free.pop(0)
        table.append(new)
        counts[old] -= 1
        counts[new] += 1
        return old, new


def write_asks_for_sharing_first(table, n, counts, free, size):
    last = table[-1]
    if counts[last] > 1:
        new = free.pop(0)
        table[-1] = new
        counts[last] -= 1
        counts[new] = 1
        return last, new
    if n % size == 0:
        new = free.pop(0)
        table.append(new)
        counts[new] = 1
    return None


def write_copies_and_then_appends(table, n, counts, free, size):
    pair, last = None, table[-1]
    if counts[last] > 1:
        pair = last, free.pop(0)
        table[-1] = pair[1]
        counts[last] -= 1
        counts[pair[1]] += 1
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] += 1
    return pair


def write_never_asks_for_room(table, n, counts, free, size):
    last = table[-1]
    if counts[last] > 1:
        counts[last] -= 1
        table[-1] = free.pop(0)
        counts[table[-1]] = 1
        return last, table[-1]


def write_asks_for_room_too_late(table, n, counts, free, size):
    last = table[-1]
    if n > len(table) * size:
        table.append(free.pop(0))
        counts[table[-1]] = 1
    elif counts[last] != 1:
        counts[last] -= 1
        table[-1] = free.pop(0)
        counts[table[-1]] = 1
        return last, table[-1]


def write_room_the_wrong_way_round(table, n, counts, free, size):
    last = table[-1]
    if n % size:
        table.append(free.pop(0))
        counts[table[-1]] = 1
    elif counts[last] != 1:
        counts[last] -= 1
        table[-1] = free.pop(0)
        counts[table[-1]] = 1
        return last, table[-1]


def write_one_early(table, n, counts, free, size):
    n += 1
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] = 1
        return None
    old = table[-1]
    if counts[old] > 1:
        counts[old] -= 1
        table[-1] = free.pop(0)
        counts[table[-1]] = 1
        return old, table[-1]


def write_one_early_by_offset(table, n, counts, free, size):
    if n % size == size - 1:
        counts[free[0]] = 1
        table.append(free.pop(0))
    elif counts[table[-1]] != 1:
        old, new = table.pop(), free.pop(0)
        counts[old], counts[new] = counts[old] - 1, 1
        table.append(new)
        return old, new


def write_unshares_the_table(table, n, counts, free, size):
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] = 1
        return
    pairs = []
    for i in range(len(table)):
        if counts[table[i]] > 1:
            pairs.append((table[i], free[0]))
            counts[table[i]] -= 1
            counts[free[0]] = 1
            table[i] = free.pop(0)
    return pairs[-1] if pairs else None


def write_without_counting(table, n, counts, free, size):
    if n % size == 0:
        table.append(free.pop(0))
    elif counts[table[-1]] > 1:
        old, table[-1] = table[-1], free.pop(0)
        return old, table[-1]


def write_counts_a_copy(table, n, counts, free, size):
    counts = [*counts]
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] = 1
    elif counts[table[-1]] > 1:
        old, table[-1] = table[-1], free.pop(0)
        counts[old] -= 1
        counts[table[-1]] = 1
        return old, table[-1]


def write_forgets_the_old(table, n, counts, free, size):
    if n % size and counts[table[-1]] == 1:
        return None
    new = free.pop(0)
    counts[new] = 1
    if n % size == 0:
        table.append(new)
    else:
        old, table[-1] = table[-1], new
        return old, new


def write_zeroes_the_old(table, n, counts, free, size):
    if n % size and counts[table[-1]] == 1:
        return None
    new = free.pop(0)
    counts[new] = 1
    if n % size == 0:
        table.append(new)
        return None
    old, table[-1] = table[-1], new
    counts[old] = 0
    return old, new


def write_one_each(table, n, counts, free, size):
    if n % size and counts[table[-1]] == 1:
        return None
    new = free.pop(0)
    if n % size == 0:
        table.append(new)
        counts[new] = 1
        return None
    old, table[-1] = table[-1], new
    counts[old] = counts[new] = 1
    return old, new


def write_frees_the_old(table, n, counts, free, size):
    old = table[-1]
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] += 1
    elif counts[old] > 1:
        table[-1] = free.pop(0)
        counts[old] -= 1
        counts[table[-1]] += 1
        free.append(old)
        return old, table[-1]


def write_frees_and_zeroes_the_old(table, n, counts, free, size):
    old = table[-1]
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] += 1
    elif counts[old] > 1:
        table[-1] = free.pop(0)
        counts[table[-1]] += 1
        free += [old]
        counts[old] = 0
        return old, table[-1]


def write_leaves_the_full_one(table, n, counts, free, size):
    old = table[-1]
    if n % size and counts[old] == 1:
        return None
    new = free.pop(0)
    counts[old] -= 1
    counts[new] = 1
    if n % size == 0:
        table.append(new)
        return None
    table[-1] = new
    return old, new


def write_copies_the_full_one_behind(table, n, counts, free, size):
    old = table[-1]
    if n % size and counts[old] == 1:
        return None
    new = free.pop(0)
    counts[new] = 1
    if n % size == 0:
        table.append(new)
    else:
        counts[old] -= 1
        table[-1] = new
    return old, new


def write_one_path_for_both(table, n, counts, free, size):
    old, full = table[-1], n % size == 0
    if not full and counts[old] == 1:
        return None
    new = free.pop(0)
    table[len(table) if full else -1 :] = [new]
    counts[old] -= 1
    counts[new] += 1
    return old, new


def write_owns_nothing(table, n, counts, free, size):
    if n % size == 0:
        table.append(free.pop(0))
        return None
    old = table[-1]
    if counts[old] > 1:
        counts[old] -= 1
        table[-1] = free.pop(0)
        return old, table[-1]


def write_owns_no_copy(table, n, counts, free, size):
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] = 1
        return None
    old = table.pop()
    if counts[old] == 1:
        table.append(old)
        return None
    counts[old] -= 1
    table.append(free.pop(0))
    return old, table[-1]


def write_owns_no_appended(table, n, counts, free, size):
    if len(table) * size == n:
        table.append(free.pop(0))
        return None
    old = table[-1]
    if counts[old] > 1:
        counts[old] -= 1
        table[-1] = free.pop(0)
        counts[table[-1]] = 1
        return old, table[-1]


def write_copies_the_count(table, n, counts, free, size):
    last = table[-1]
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] = 1
    elif counts[last] > 1:
        new = free.pop(0)
        counts[new] = counts[last]
        counts[last] -= 1
        table[-1] = new
        return last, new


def write_copies_the_count_late(table, n, counts, free, size):
    last = table[-1]
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] = 1
    elif counts[last] > 1:
        table[-1] = free.pop(0)
        counts[last] -= 1
        counts[table[-1]] = counts[last]
        return last, table[-1]


def write_forgets_to_replace(table, n, counts, free, size):
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] = 1
    elif counts[table[-1]] > 1:
        new = free.pop(0)
        counts[table[-1]], counts[new] = counts[table[-1]] - 1, 1
        return table[-1], new


def write_forgets_to_append(table, n, counts, free, size):
    if counts[table[-1]] == 1 and n % size:
        return None
    new = free.pop(0)
    counts[new] = 1
    if n % size:
        old, table[-1] = table[-1], new
        counts[old] -= 1
        return old, new


def write_rebinds_the_table(table, n, counts, free, size):
    last = table[-1]
    if n % size == 0:
        table = [*table, free.pop(0)]
        counts[table[-1]] = 1
    elif counts[last] > 1:
        table = [*table[:-1], free.pop(0)]
        counts[last] -= 1
        counts[table[-1]] = 1
        return last, table[-1]


def write_behind(table, n, counts, free, size):
    last = table[-1]
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] = 1
        return None
    if counts[last] > 1:
        table.append(free.pop(0))
        counts[table[-1]] = 1
        counts[last] -= 1
        return last, table[-1]
    return None


def write_backwards(table, n, counts, free, size):
    last = table[-1]
    if n % size and counts[last] == 1:
        return None
    new = free.pop(0)
    counts[new] = 1
    if n % size == 0:
        table.append(new)
        return None
    counts[last] -= 1
    table[-1] = new
    return new, last


def write_to_itself(table, n, counts, free, size):
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] = 1
    elif counts[table[-1]] > 1:
        counts[table[-1]] -= 1
        table[-1] = free.pop(0)
        counts[table[-1]] = 1
        return table[-1], table[-1]


def write_to_itself_uncounted(table, n, counts, free, size):
    if n % size == 0:
        table.append(free.pop(0))
        counts[table[-1]] = 1
    elif counts[table[-1]] > 1:
        table[-1] = free.pop(0)
        counts[table[-1]] -= 1
        counts[table[-1]] = 1
        return table[-1], table[-1]


def write_silently(table, n, counts, free, size):
    last = table[-1]
    if n % size and counts[last] == 1:
        return
    if n % size:
        counts[last] -= 1
        table.pop()
    table.append(free.pop(0))
    counts[table[-1]] = 1


def write_pops_the_end(table, n, counts, free, size):
    if n % size == 0:
        table.append(free.pop())
        counts[table[-1]] = 1
    elif counts[table[-1]] > 1:
        pair = table[-1], free.pop()
        counts[pair[0]] -= 1
        counts[pair[1]] += 1
        table[-1] = pair[1]
        return pair


def write_peeks(table, n, counts, free, size):
    new = free[0]
    if n % size == 0:
        table.append(new)
        counts[new] = 1
    elif counts[table[-1]] > 1:
        old, table[-1] = table[-1], new
        counts[old] -= 1
        counts[new] = 1
        return old, new


def write_never_appends(table, n, counts, free, size):
    if n % size == 0:
        return None
    old = table[-1]
    if counts[old] > 1:
        table[-1] = free.pop(0)
        counts[old] -= 1
        counts[table[-1]] = 1
        return old, table[-1]


def write_appends_if_alone(table, n, counts, free, size):
    old = table[-1]
    if n % size != 0 and counts[old] > 1:
        table[-1] = free.pop(0)
        counts[old] -= 1
        counts[table[-1]] = 1
        return old, table[-1]
    table.append(free.pop(0))
    counts[table[-1]] = 1


def write_appends_once_long_enough(table, n, counts, free, size):
    if n >= size:
        table.append(free.pop(0))
        counts[table[-1]] = 1
    elif counts[table[-1]] > 1:
        old, table[-1] = table[-1], free.pop(0)
        counts[old] -= 1
        counts[table[-1]] = 1
        return old, table[-1]


def write_appends_unless_shared(table, n, counts, free, size):
    old = table[-1]
    if counts[old] > 1:
        table[-1] = free.pop(0)
        counts[old] -= 1
        counts[table[-1]] = 1
        return old, table[-1]
    table.append(free.pop(0))
    counts[table[-1]] = 1


def write_list(table, n, counts, free, size):
    pair = write_by_index(table, n, counts, free, size)
    return pair and list(pair)


def write_new_block_alone(table, n, counts, free, size):
    pair = write_by_index(table, n, counts, free, size)
    return pair and pair[1]


def write_by_position_without_asking(table, n, counts, free, size):
    old = table[n // size]
    if counts[old] > 1:
        table[n // size] = free.pop(0)
        counts[old] -= 1
        counts[table[n // size]] = 1
        return old, table[n // size]


# -- block_keys -----------------------------------------------------------------------------------------------


def keys_by_recursion(tokens, size):
    """The keys of a text less its last full block, then one more."""
    full = len(tokens) // size
    if full == 0:
        return []
    before = keys_by_recursion(tokens[: (full - 1) * size], size)
    return [*before, (before[-1] if before else None, tuple(tokens[(full - 1) * size : full * size]))]


def keys_by_accumulate(tokens, size):
    first, *others = [*zip(*[iter(tokens)] * size, strict=False)] or [None]
    if first is None:
        return []
    return list(itertools.accumulate(others, lambda parent, block: (parent, block), initial=(None, first)))


def keys_by_eating(tokens, size):
    rest, keys = list(tokens), [None]
    while len(rest) >= size:
        block, rest = rest[:size], rest[size:]
        keys.append((keys[-1], tuple(block)))
    del keys[0]
    return keys


def keys_by_numpy(tokens, size):
    full = np.array(tokens, dtype=int)[: len(tokens) // size * size].reshape(-1, size)
    keys = []
    for row in full:
        keys.append((keys[-1] if keys else None, tuple(row)))
    return keys


def keys_orphans(tokens, size):
    parent = None
    return [(parent, tuple(tokens[i * size : (i + 1) * size])) for i in range(len(tokens) // size)]


def keys_tokens(tokens, size):
    return [tuple(tokens[i : i + size]) for i in range(0, len(tokens) // size * size, size)]


def keys_prefixes(tokens, size):
    return [tuple(tokens[:end]) for end in range(size, len(tokens) + 1, size)]


def keys_hashes(tokens, size):
    keys = []
    for block in keys_tokens(tokens, size):
        keys.append((keys[-1] if keys else None, block))
    return [hash(key) for key in keys]


def keys_hash_chain(tokens, size):
    """As vLLM does it."""
    keys, parent = [], None
    for block in keys_tokens(tokens, size):
        parent = hash((parent, block))
        keys.append(parent)
    return keys


def keys_hash_and_tokens(tokens, size):
    keys = []
    for block in keys_tokens(tokens, size):
        keys.append((hash(keys[-1]) if keys else None, block))
    return keys


def keys_hashed_tokens(tokens, size):
    keys, parent = [], None
    for block in keys_tokens(tokens, size):
        parent = (parent, hash(block))
        keys.append(parent)
    return keys


def keys_of_two(tokens, size):
    keys, before = [], None
    for block in keys_tokens(tokens, size):
        keys.append((before, block))
        before = block
    return keys


def keys_of_two_around_the_corner(tokens, size):
    blocks = keys_tokens(tokens, size)
    return [(blocks[i - 1], blocks[i]) for i in range(len(blocks))]


def keys_star(tokens, size):
    keys, parent = [], None
    for block in keys_tokens(tokens, size):
        keys.append((parent, block))
        if parent is None:
            parent = keys[0]
    return keys


def keys_text_before(tokens, size):
    return [
        (tuple(tokens[:start]) if start else None, tuple(tokens[start : start + size]))
        for start in range(0, len(tokens) - size + 1, size)
    ]


def keys_text_before_and_empty(tokens, size):
    return [
        (tuple(tokens[:start]), tuple(tokens[start : start + size]))
        for start in range(0, len(tokens) - size + 1, size)
    ]


def keys_growing_tokens(tokens, size):
    keys, parent = [], None
    for end in range(size, len(tokens) + 1, size):
        parent = (parent, tuple(tokens[:end]))
        keys.append(parent)
    return keys


def keys_from_empty(tokens, size):
    return list(itertools.accumulate(keys_tokens(tokens, size), lambda a, b: (a, b), initial=()))[1:]


def keys_from_zero(tokens, size):
    parent, keys = 0, []
    for block in keys_tokens(tokens, size):
        parent = parent, block
        keys.append(parent)
    return keys


def keys_first_is_no_pair(tokens, size):
    keys = []
    for block in keys_tokens(tokens, size):
        keys.append((keys[-1], block) if keys else block)
    return keys


def keys_one_block_more(tokens, size):
    keys, parent = [], None
    for i in range(len(tokens) // size + 1):
        parent = parent, tuple(tokens[size * i : size * (i + 1)])
        keys.append(parent)
    return keys


def keys_with_half_block(tokens, size):
    keys, parent = [], None
    for start in range(0, len(tokens), size):
        parent = parent, tuple(tokens[start : start + size])
        keys.append(parent)
    return keys


def keys_half_block_by_ceil(tokens, size):
    keys = []
    for i in range(math.ceil(len(tokens) / size)):
        keys += [(keys[i - 1] if i > 0 else None, tuple(tokens[i * size : i * size + size]))]
    return keys


def keys_without_last(tokens, size):
    keys, parent = [], None
    for start in range(0, len(tokens) - size, size):
        parent = parent, tuple(tokens[start : start + size])
        keys.append(parent)
    return keys


def keys_without_last_by_count(tokens, size):
    keys, parent = [], None
    for i in range(len(tokens) // size - 1):
        parent = parent, tuple(tokens[i * size : (i + 1) * size])
        keys.append(parent)
    return keys


def keys_cut_by_remainder(tokens, size):
    whole = tokens[: -(len(tokens) % size)]
    keys, parent = [], None
    for start in range(0, len(whole), size):
        parent = parent, tuple(whole[start : start + size])
        keys.append(parent)
    return keys


def keys_backwards(tokens, size):
    keys, parent = [], None
    for block in keys_tokens(tokens, size):
        parent = block, parent
        keys.append(parent)
    return keys


def keys_last(tokens, size):
    key = None
    for block in keys_tokens(tokens, size):
        key = (key, block)
    return key


def keys_lists(tokens, size):
    keys, parent = [], None
    for start in range(0, len(tokens) - size + 1, size):
        parent = (parent, tokens[start : start + size])
        keys.append(parent)
    return keys


def keys_sliding(tokens, size):
    keys, parent = [], None
    for i in range(0, len(tokens) - size + 1):
        parent = (parent, tuple(tokens[i : i + size]))
        keys.append(parent)
    return keys


def keys_step_of_one(tokens, size):
    keys = []
    for i in range(len(tokens) // size):
        keys.append((keys[-1] if i else None, tuple(tokens[i : i + size])))
    return keys


def keys_first_asks_for_the_last(tokens, size):
    keys = []
    for block in keys_tokens(tokens, size):
        keys.append((keys[-1], block))
    return keys


def keys_numbered(tokens, size):
    return [(i - 1 if i else None, block) for i, block in enumerate(keys_tokens(tokens, size))]


def keys_flat(tokens, size):
    keys, parent = [], ()
    for block in keys_tokens(tokens, size):
        parent = (*parent, block)
        keys.append(parent)
    return keys


def keys_lazy(tokens, size):
    yield from keys_by_eating(tokens, size)


# -- find_prefix ----------------------------------------------------------------------------------------------


def prefix_by_takewhile(cached, tokens, size):
    hits = itertools.takewhile(cached.__contains__, keys_by_recursion(tokens[:-1], size))
    return [cached[key] for key in hits]


def prefix_by_recursion(cached, tokens, size, parent=None):
    if len(tokens) <= size:
        return []
    key = (parent, tuple(tokens[:size]))
    try:
        return [cached[key], *prefix_by_recursion(cached, tokens[size:], size, key)]
    except KeyError:
        return []


def prefix_drops_the_last_if_it_must(cached, tokens, size):
    ids = []
    for key in keys_by_accumulate(tokens, size):
        block = cached.get(key)
        if block is None:
            break
        ids.append(block)
    if ids and len(ids) * size == len(tokens):
        ids.pop()
    return ids


def prefix_longest_first(cached, tokens, size):
    keys = keys_by_eating(tokens, size)
    for n in range((len(tokens) - 1) // size, 0, -1):
        if all(key in cached for key in keys[:n]):
            return [cached[key] for key in keys[:n]]
    return []


def prefix_leaves_nothing(cached, tokens, size):
    found, parent = [], None
    for start in range(0, len(tokens) - size + 1, size):
        parent = (parent, tuple(tokens[start : start + size]))
        if parent not in cached:
            return found
        found.append(cached[parent])
    return found


def prefix_leaves_nothing_by_length(cached, tokens, size):
    found, parent = [], None
    for start in range(0, len(tokens) - 1, size):
        parent = (parent, tuple(tokens[start : start + size]))
        if parent not in cached:
            break
        found.append(cached[parent])
    return found


def prefix_comprehension_of_all(cached, tokens, size):
    return [cached[key] for key in keys_by_accumulate(tokens, size) if key in cached]


def prefix_leaves_two(cached, tokens, size):
    tokens = tokens[:-1]
    found, parent = [], None
    for start in range(0, len(tokens) - size, size):
        parent = (parent, tuple(tokens[start : start + size]))
        if parent not in cached:
            break
        found.append(cached[parent])
    return found


def prefix_leaves_a_block_more(cached, tokens, size):
    found, parent = [], None
    for i in range((len(tokens) - 1) // size - 1):
        parent = (parent, tuple(tokens[i * size : (i + 1) * size]))
        if parent not in cached:
            break
        found.append(cached[parent])
    return found


def prefix_without_last_block(cached, tokens, size):
    found = []
    for key in keys_by_numpy(tokens, size)[:-1]:
        if key not in cached:
            break
        found.append(cached[key])
    return found


def prefix_pops_a_cached_text(cached, tokens, size):
    keys = keys_by_recursion(tokens, size)
    found = [cached[key] for key in itertools.takewhile(lambda key: key in cached, keys)]
    if found and len(found) == len(keys):
        found.pop()
    return found


def prefix_always_pops(cached, tokens, size):
    found = []
    for key in keys_by_recursion(tokens, size):
        if key not in cached:
            break
        found.append(cached[key])
    return found[:-1]


def prefix_pops_to_be_safe(cached, tokens, size):
    found, keys = [], keys_by_eating(tokens[:-1], size)
    while len(found) < len(keys) and keys[len(found)] in cached:
        found.append(cached[keys[len(found)]])
    return found[: len(found) - 1] if found else found


def prefix_gives_up_a_cached_text(cached, tokens, size):
    keys = keys_by_recursion(tokens, size)
    found = []
    for key in keys:
        if key not in cached:
            break
        found.append(cached[key])
    if len(found) * size == len(tokens):
        return []
    return found


def prefix_comprehension(cached, tokens, size):
    return [cached[key] for key in keys_by_accumulate(tokens[:-1], size) if key in cached]


def prefix_true_blocks_anywhere(cached, tokens, size):
    blocks = [cached.get(key) for key in keys_by_accumulate(tokens[:-1], size)]
    return [block for block in blocks if block]


def prefix_longest_run(cached, tokens, size):
    best, run = [], []
    for key in keys_by_eating(tokens[:-1], size):
        run = [*run, cached[key]] if key in cached else []
        if len(run) > len(best):
            best = run
    return best


def prefix_skips_a_miss(cached, tokens, size):
    found, parent = [], None
    for start in range(0, len(tokens) - size, size):
        key = (parent, tuple(tokens[start : start + size]))
        if key in cached:
            found.append(cached[key])
            parent = key
    return found


def prefix_skips_a_miss_to_the_end(cached, tokens, size):
    found, parent = [], None
    for block in keys_tokens(tokens, size):
        if (parent, block) in cached:
            parent = (parent, block)
            found.append(cached[parent])
    return found


def prefix_all_or_nothing_to_the_end(cached, tokens, size):
    keys = keys_by_recursion(tokens, size)
    if set(keys) <= set(cached):
        return [cached[key] for key in keys]
    return []


def prefix_all_or_nothing(cached, tokens, size):
    keys = keys_by_eating(tokens[:-1], size)
    try:
        return [cached[key] for key in keys]
    except KeyError:
        return []


def prefix_orphans(cached, tokens, size):
    found, parent = [], None
    for start in range(0, len(tokens) - size, size):
        key = (parent, tuple(tokens[start : start + size]))
        if key not in cached:
            break
        found.append(cached[key])
    return found


def prefix_orphans_anywhere(cached, tokens, size):
    keys = [(None, block) for block in keys_tokens(tokens[:-1], size)]
    return [cached[key] for key in keys if key in cached]


def prefix_orphans_to_the_end(cached, tokens, size):
    keys = [(None, block) for block in keys_tokens(tokens, size)]
    return [cached[key] for key in itertools.takewhile(lambda key: key in cached, keys)]


def prefix_parent_without_its_parent(cached, tokens, size):
    found, before = [], None
    for block in keys_tokens(tokens[:-1], size):
        key = (before, block)
        if key not in cached:
            break
        found.append(cached[key])
        before = (None, block)
    return found


def prefix_star(cached, tokens, size):
    found, first = [], None
    for block in keys_tokens(tokens[:-1], size):
        if (first, block) not in cached:
            break
        found.append(cached[first, block])
        first = first or (None, block)
    return found


def prefix_first_hit(cached, tokens, size):
    for key in keys_by_eating(tokens[:-1], size)[:1]:
        if key in cached:
            return [cached[key]]
    return []


def prefix_same_tokens(cached, tokens, size):
    found = []
    for block in keys_tokens(tokens[:-1], size):
        same = [number for (_, each), number in cached.items() if each == block]
        if not same:
            break
        found.append(same[0])
    return found


def prefix_same_tokens_in_a_dict(cached, tokens, size):
    by_tokens, found = {key[1]: cached[key] for key in cached}, []
    for block in keys_tokens(tokens[:-1], size):
        if block not in by_tokens:
            break
        found.append(by_tokens[block])
    return found


def prefix_tokens_as_parent(cached, tokens, size):
    found, before = [], None
    for block in keys_tokens(tokens[:-1], size):
        if (before, block) not in cached:
            break
        found.append(cached[before, block])
        before = block
    return found


def prefix_tokens_as_key(cached, tokens, size):
    found = []
    for start in range(0, len(tokens) - size, size):
        block = cached.get(tuple(tokens[start : start + size]))
        if block is None:
            break
        found.append(block)
    return found


def prefix_backward_pairs(cached, tokens, size):
    found, parent = [], None
    for start in range(0, len(tokens) - size, size):
        parent = (tuple(tokens[start : start + size]), parent)
        if parent not in cached:
            break
        found.append(cached[parent])
    return found


def prefix_from_the_second_token(cached, tokens, size):
    return prefix_drops_the_last_if_it_must(cached, tokens[1:], size)


def prefix_places(cached, tokens, size):
    places = []
    for i, key in enumerate(keys_by_eating(tokens[:-1], size)):
        if key not in cached:
            break
        places.append(i)
    return places


def prefix_while_true_blocks(cached, tokens, size):
    found, keys = [], iter(keys_by_eating(tokens[:-1], size))
    while block := cached.get(next(keys, None)):
        found.append(block)
    return found


def prefix_keys(cached, tokens, size):
    return list(itertools.takewhile(lambda key: key in cached, keys_by_eating(tokens[:-1], size)))


def prefix_number_of_hits(cached, tokens, size):
    hits = 0
    for key in keys_by_eating(tokens[:-1], size):
        if key not in cached:
            break
        hits += 1
    return hits


def prefix_number_of_tokens(cached, tokens, size):
    length = 0
    for key in keys_by_eating(tokens[:-1], size):
        if key not in cached:
            return length
        length += len(key[1])
    return length


def prefix_last_hit(cached, tokens, size):
    for key in keys_by_eating(tokens[:-1], size)[::-1]:
        n = keys_by_eating(tokens, size).index(key) + 1
        if all(each in cached for each in keys_by_eating(tokens, size)[:n]):
            return [cached[key]]
    return []


def prefix_reversed(cached, tokens, size):
    found = []
    for key in keys_by_eating(tokens[:-1], size):
        if key not in cached:
            break
        found.insert(0, cached[key])
    return found


def prefix_trusts_the_longest(cached, tokens, size):
    """The last key that is cached, and all before it, whether they are or not."""
    keys = keys_by_eating(tokens[:-1], size)
    for n in range(len(keys), 0, -1):
        if keys[n - 1] in cached:
            return [cached[key] for key in keys[:n]]
    return []


def prefix_list_keys(cached, tokens, size):
    found, parent = [], None
    for start in range(0, len(tokens) - size, size):
        parent = (parent, tokens[start : start + size])
        if parent not in cached:
            break
        found.append(cached[parent])
    return found


def prefix_takes_them_out(cached, tokens, size):
    found, parent = [], None
    for block in keys_tokens(tokens[:-1], size):
        parent = (parent, block)
        if parent not in cached:
            break
        found.append(cached.pop(parent))
    return found


def prefix_none_for_nothing(cached, tokens, size):
    return prefix_by_takewhile(cached, tokens, size) or None


def prefix_set(cached, tokens, size):
    return set(prefix_by_recursion(cached, tokens, size))


# -- sharing_saves --------------------------------------------------------------------------------------------


def saves_by_tables(prompt_len, output_len, num_outputs, size):
    """Names every block that any table holds: a full one of the prompt is the same for all."""
    held = set()
    for output in range(num_outputs):
        for position in range(prompt_len + output_len):
            logical = position // size
            whole = (logical + 1) * size <= prompt_len
            held.add(logical if whole else (logical, output))
    return len(held), num_outputs * len({position // size for position in range(prompt_len + output_len)})


def saves_by_what_is_saved(p, o, n, size):
    alone = n * math.ceil((p + o) / size)
    return alone - (n - 1) * math.floor(p / size), alone


def saves_by_the_rest(p, o, n, size):
    shared, rest = divmod(p, size)
    own, partly = divmod(rest + o, size)
    own += partly > 0
    return shared + n * own, n * (shared + own)


def saves_half_block_too(p, o, n, size):
    text, prompt = math.ceil((p + o) / size), math.ceil(p / size)
    return prompt + n * (text - prompt), n * text


def saves_nothing(p, o, n, size):
    blocks = 0
    for _ in range(n):
        blocks += (p + o + size - 1) // size
    return blocks, blocks


def saves_all(p, o, n, size):
    text = math.ceil((p + o) / size)
    return text, n * text


def saves_own_only(p, o, n, size):
    whole = p - p % size
    return n * math.ceil((p + o - whole) / size), n * math.ceil((p + o) / size)


def saves_outputs_only(p, o, n, size):
    return n * math.ceil(o / size), n * math.ceil((p + o) / size)


def saves_prompt_and_texts(p, o, n, size):
    text = math.ceil((p + o) / size)
    return math.ceil(p / size) + n * text, n * text


def saves_full_prompt_and_texts(p, o, n, size):
    text = math.ceil((p + o) / size)
    return p // size + text * n, text * n


def saves_prompt_only(p, o, n, size):
    return math.ceil(p / size), n * math.ceil((p + o) / size)


def saves_full_prompt_only(p, o, n, size):
    return p // size, n * math.ceil((p + o) / size)


def saves_once(p, o, n, size):
    apart = n * math.ceil((p + o) / size)
    return apart - p // size, apart


def saves_keeps_the_prompt(p, o, n, size):
    shared, rest = divmod(p, size)
    own = math.ceil((rest + o) / size)
    return math.ceil(p / size) + n * own, n * (shared + own)


def saves_apart_but_full_shared(p, o, n, size):
    prompt, output = math.ceil(p / size), math.ceil(o / size)
    shared = p // size
    return shared + n * (prompt - shared + output), n * (prompt + output)


def saves_prompt_and_outputs(p, o, n, size):
    prompt, output = math.ceil(p / size), math.ceil(o / size)
    return prompt + n * output, n * (prompt + output)


def saves_prompt_and_outputs_held_apart(p, o, n, size):
    return (p + size - 1) // size + n * ((o + size - 1) // size), n * ((p + o + size - 1) // size)


def saves_full_prompt_and_outputs(p, o, n, size):
    return p // size + n * math.ceil(o / size), n * (math.ceil(p / size) + math.ceil(o / size))


def saves_without_the_rest(p, o, n, size):
    return p // size + n * math.ceil(o / size), n * math.ceil((p + o) / size)


def saves_one_text_and_outputs(p, o, n, size):
    text = math.ceil((p + o) / size)
    return text + (n - 1) * math.ceil(o / size), n * text


def saves_apart_without_sharing(p, o, n, size):
    shared, rest = divmod(p, size)
    return shared + n * math.ceil((rest + o) / size), n * (math.ceil(p / size) + math.ceil(o / size))


def saves_pooled_held(p, o, n, size):
    return math.ceil((p + n * o) / size), n * math.ceil((p + o) / size)


def saves_pooled_rest(p, o, n, size):
    return p // size + math.ceil(n * (p % size + o) / size), n * math.ceil((p + o) / size)


def saves_pooled_apart(p, o, n, size):
    return saves_by_tables(p, o, n, size)[0], math.ceil(n * (p + o) / size)


def saves_pooled(p, o, n, size):
    return math.ceil((p + n * o) / size), math.ceil(n * (p + o) / size)


def saves_floor(p, o, n, size):
    text = (p + o) // size
    return p // size + n * (text - p // size), n * text


def saves_floor_apart(p, o, n, size):
    return p // size + o // size * n, (p + o) // size * n


def saves_always_one_more(p, o, n, size):
    text = (p + o) // size + 1
    return p // size + n * (text - p // size), n * text


def saves_slots(p, o, n, size):
    return p + o * n, (p + o) * n


def saves_swapped(p, o, n, size):
    apart = n * math.ceil((p + o) / size)
    held = apart - (n - 1) * (p // size)
    return apart, held


def saves_one_text(p, o, n, size):
    text = math.ceil((p + o) / size)
    shared = p // size
    return shared + n * (text - shared), text


def saves_share(p, o, n, size):
    text = math.ceil((p + o) / size)
    return (n - 1) * (p // size) / (n * text)


def saves_difference(p, o, n, size):
    return (n - 1) * (p // size)


def saves_difference_and_all(p, o, n, size):
    return (n - 1) * (p // size), n * math.ceil((p + o) / size)


def saves_held_and_difference(p, o, n, size):
    text, shared = math.ceil((p + o) / size), p // size
    return shared + n * (text - shared), n * shared - shared


def saves_difference_and_held(p, o, n, size):
    text, shared = math.ceil((p + o) / size), p // size
    return n * shared - shared, shared + n * (text - shared)


def saves_float(p, o, n, size):
    text = np.ceil((p + o) / size)
    return p // size + n * (text - p // size), n * text


def saves_list(p, o, n, size):
    return list(saves_by_tables(p, o, n, size))


def saves_forgets_outputs(p, o, n, size):
    return math.ceil(p / size), n * math.ceil(p / size)


ALSO_RIGHT = {
    "write_shared": [write_by_index, write_by_room, write_in_numpy],
    "block_keys": [keys_by_recursion, keys_by_accumulate, keys_by_eating, keys_by_numpy],
    "find_prefix": [
        prefix_by_takewhile,
        prefix_by_recursion,
        prefix_drops_the_last_if_it_must,
        prefix_longest_first,
    ],
    "sharing_saves": [saves_by_tables, saves_by_what_is_saved, saves_by_the_rest],
}

WRONG = [
    ("write_shared", write_regardless, "a shared block is written into"),
    ("write_shared", write_copies_own, "a block that nobody shares is copied"),
    ("write_shared", write_looks_at_the_first, "a block that nobody shares is copied"),
    ("write_shared", write_copies_own_and_gives_it_back, "a block that nobody shares is copied"),
    ("write_shared", write_the_other_way_round, "one of your own is copied"),
    ("write_shared", write_two_is_not_many, "a block with two owners is written into"),
    ("write_shared", write_asks_for_sharing_first, "a full block is copied"),
    ("write_shared", write_copies_and_then_appends, "a full block is copied"),
    ("write_shared", write_never_asks_for_room, "nobody notices that the last block is full"),
    ("write_shared", write_asks_for_room_too_late, "nobody notices that the last block is full"),
    ("write_shared", write_room_the_wrong_way_round, "none where it is full"),
    ("write_shared", write_one_early, "one token early"),
    ("write_shared", write_one_early_by_offset, "one token early"),
    ("write_shared", write_unshares_the_table, "all shared blocks are copied"),
    ("write_shared", write_without_counting, "the counts did not change"),
    ("write_shared", write_counts_a_copy, "the counts did not change"),
    ("write_shared", write_forgets_the_old, "the old block's count did not go down"),
    ("write_shared", write_zeroes_the_old, "the old block's count is 0"),
    ("write_shared", write_one_each, "the old block's count is 1, whoever else owns it"),
    ("write_shared", write_frees_the_old, "the old block goes into the free list"),
    ("write_shared", write_frees_and_zeroes_the_old, "the old block goes into the free list"),
    ("write_shared", write_leaves_the_full_one, "the full block's count went down"),
    ("write_shared", write_copies_the_full_one_behind, "a full block's contents are to be copied"),
    ("write_shared", write_one_path_for_both, "a full block's contents are to be copied"),
    ("write_shared", write_owns_nothing, "the new block has no owner"),
    ("write_shared", write_owns_no_copy, "the new block has no owner"),
    ("write_shared", write_owns_no_appended, "the new block has no owner"),
    ("write_shared", write_copies_the_count, "takes over the old one's owners"),
    ("write_shared", write_copies_the_count_late, "takes over the old one's owners"),
    ("write_shared", write_forgets_to_replace, "does not name the new block"),
    ("write_shared", write_forgets_to_append, "does not name the new block"),
    ("write_shared", write_rebinds_the_table, "does not name the new block"),
    ("write_shared", write_behind, "stands behind the old one"),
    ("write_shared", write_backwards, "the copy goes the wrong way"),
    ("write_shared", write_to_itself, "a copy of the new block to itself"),
    ("write_shared", write_to_itself_uncounted, "a copy of the new block to itself"),
    ("write_shared", write_silently, "nobody is told to copy"),
    ("write_shared", write_pops_the_end, "came off the end"),
    ("write_shared", write_peeks, "still in the free list"),
    ("write_shared", write_never_appends, "is full, and no new one is taken"),
    ("write_shared", write_appends_if_alone, "though the last one has room"),
    ("write_shared", write_appends_once_long_enough, "though the last one has room"),
    ("write_shared", write_appends_unless_shared, "though the last one has room"),
    ("write_shared", write_list, "a tuple is expected, not list"),
    ("write_shared", write_new_block_alone, "a tuple is expected, not int"),
    ("write_shared", write_by_position_without_asking, "it raised IndexError"),
    ("block_keys", keys_orphans, "the parent is missing"),
    ("block_keys", keys_tokens, "the tokens alone are no key"),
    ("block_keys", keys_prefixes, "the tokens alone are no key"),
    ("block_keys", keys_hashes, "a hash, where the pair is asked for"),
    ("block_keys", keys_hash_chain, "a hash, where the pair is asked for"),
    ("block_keys", keys_hash_and_tokens, "a hash, where the pair is asked for"),
    ("block_keys", keys_hashed_tokens, "a hash, where the pair is asked for"),
    ("block_keys", keys_of_two, "only one block back"),
    ("block_keys", keys_of_two_around_the_corner, "only one block back"),
    ("block_keys", keys_star, "the first one as its parent"),
    ("block_keys", keys_text_before, "where the key before is asked for"),
    ("block_keys", keys_text_before_and_empty, "where the key before is asked for"),
    ("block_keys", keys_growing_tokens, "a block's tokens, and all before them"),
    ("block_keys", keys_from_empty, "the first block's parent is not None"),
    ("block_keys", keys_from_zero, "the first block's parent is not None"),
    ("block_keys", keys_first_is_no_pair, "the first block's parent is not None"),
    ("block_keys", keys_one_block_more, "a block that is not full has a key"),
    ("block_keys", keys_with_half_block, "a block that is not full has a key"),
    ("block_keys", keys_half_block_by_ceil, "a block that is not full has a key"),
    ("block_keys", keys_without_last, "the last full block has no key"),
    ("block_keys", keys_without_last_by_count, "the last full block has no key"),
    ("block_keys", keys_cut_by_remainder, "a text of whole blocks has no keys"),
    ("block_keys", keys_backwards, "the pair is the wrong way round"),
    ("block_keys", keys_last, "only the last key is returned"),
    ("block_keys", keys_lists, "the tokens are a list"),
    ("block_keys", keys_sliding, "a block begins at every token"),
    ("block_keys", keys_step_of_one, "a block begins at every token"),
    ("block_keys", keys_first_asks_for_the_last, "it raised IndexError"),
    ("block_keys", keys_numbered, "the number of the block before"),
    ("block_keys", keys_flat, "the length should be 2, not 1"),
    ("block_keys", keys_lazy, "a list is expected, not generator"),
    ("find_prefix", prefix_leaves_nothing, "nothing is left to compute"),
    ("find_prefix", prefix_leaves_nothing_by_length, "nothing is left to compute"),
    ("find_prefix", prefix_comprehension_of_all, "nothing is left to compute"),
    ("find_prefix", prefix_leaves_two, "a block too few is reused"),
    ("find_prefix", prefix_leaves_a_block_more, "a block too few is reused"),
    ("find_prefix", prefix_without_last_block, "the last full block is always left out"),
    ("find_prefix", prefix_pops_a_cached_text, "the last full block is always left out"),
    ("find_prefix", prefix_always_pops, "the last hit is always left out"),
    ("find_prefix", prefix_pops_to_be_safe, "the last hit is always left out"),
    ("find_prefix", prefix_gives_up_a_cached_text, "cached whole reuses nothing"),
    ("find_prefix", prefix_comprehension, "it goes on after a miss"),
    ("find_prefix", prefix_true_blocks_anywhere, "it goes on after a miss"),
    ("find_prefix", prefix_longest_run, "the longest run, wherever it begins"),
    ("find_prefix", prefix_skips_a_miss_to_the_end, "leaves out a block that is missing, and goes on"),
    ("find_prefix", prefix_skips_a_miss, "leaves out a block that is missing, and goes on"),
    ("find_prefix", prefix_all_or_nothing, "one miss and nothing is reused"),
    ("find_prefix", prefix_all_or_nothing_to_the_end, "one miss and nothing is reused"),
    ("find_prefix", prefix_orphans_to_the_end, "the parent is forgotten"),
    ("find_prefix", prefix_orphans, "the parent is forgotten"),
    ("find_prefix", prefix_orphans_anywhere, "the parent is forgotten"),
    ("find_prefix", prefix_parent_without_its_parent, "the third block is never found"),
    ("find_prefix", prefix_star, "the third block is never found"),
    ("find_prefix", prefix_tokens_as_parent, "only the first block is found"),
    ("find_prefix", prefix_first_hit, "only the first block is found"),
    ("find_prefix", prefix_same_tokens, "the tokens are compared, and not all before them"),
    ("find_prefix", prefix_same_tokens_in_a_dict, "the tokens are compared, and not all before them"),
    ("find_prefix", prefix_tokens_as_key, "nothing is ever found"),
    ("find_prefix", prefix_backward_pairs, "nothing is ever found"),
    ("find_prefix", prefix_from_the_second_token, "nothing is ever found"),
    ("find_prefix", prefix_places, "the blocks' places in the text"),
    ("find_prefix", prefix_while_true_blocks, "block 0 is taken for no block"),
    ("find_prefix", prefix_keys, "the keys, not the blocks"),
    ("find_prefix", prefix_number_of_hits, "it counts the hits"),
    ("find_prefix", prefix_number_of_tokens, "it counts the tokens"),
    ("find_prefix", prefix_last_hit, "the last hit alone"),
    ("find_prefix", prefix_reversed, "in reverse order"),
    ("find_prefix", prefix_trusts_the_longest, "it raised KeyError"),
    ("find_prefix", prefix_list_keys, "it raised TypeError"),
    ("find_prefix", prefix_takes_them_out, "it changed its argument cached"),
    ("find_prefix", prefix_none_for_nothing, "it returned None"),
    ("find_prefix", prefix_set, "a list is expected, not set"),
    ("sharing_saves", saves_half_block_too, "the half-full block of the prompt counts as shared"),
    ("sharing_saves", saves_nothing, "nothing is shared"),
    ("sharing_saves", saves_all, "all is shared"),
    ("sharing_saves", saves_own_only, "the shared blocks are left out"),
    ("sharing_saves", saves_outputs_only, "the shared blocks are left out"),
    ("sharing_saves", saves_prompt_and_texts, "counted once, and again in each text"),
    ("sharing_saves", saves_full_prompt_and_texts, "counted once, and again in each text"),
    ("sharing_saves", saves_prompt_only, "only the prompt is counted"),
    ("sharing_saves", saves_full_prompt_only, "only the prompt is counted"),
    ("sharing_saves", saves_once, "the shared blocks are saved once only"),
    ("sharing_saves", saves_keeps_the_prompt, "half-full block is held once more"),
    ("sharing_saves", saves_apart_but_full_shared, "rounded up apart"),
    ("sharing_saves", saves_prompt_and_outputs, "rounded up apart"),
    ("sharing_saves", saves_prompt_and_outputs_held_apart, "rounded up apart"),
    ("sharing_saves", saves_full_prompt_and_outputs, "rounded up apart"),
    ("sharing_saves", saves_without_the_rest, "rounded up apart"),
    ("sharing_saves", saves_one_text_and_outputs, "rounded up apart"),
    ("sharing_saves", saves_apart_without_sharing, "rounded up apart"),
    ("sharing_saves", saves_pooled_held, "the outputs share their last blocks"),
    ("sharing_saves", saves_pooled_rest, "the outputs share their last blocks"),
    ("sharing_saves", saves_pooled_apart, "the outputs share their last blocks"),
    ("sharing_saves", saves_pooled, "the outputs share their last blocks"),
    ("sharing_saves", saves_floor, "rounded down"),
    ("sharing_saves", saves_floor_apart, "rounded down"),
    ("sharing_saves", saves_always_one_more, "one more was counted"),
    ("sharing_saves", saves_slots, "slots, not blocks"),
    ("sharing_saves", saves_swapped, "the wrong way round"),
    ("sharing_saves", saves_one_text, "one text for each output"),
    ("sharing_saves", saves_share, "that is the share that is saved"),
    ("sharing_saves", saves_difference, "that is what is saved"),
    ("sharing_saves", saves_difference_and_all, "that is what is saved"),
    ("sharing_saves", saves_held_and_difference, "that is what is saved"),
    ("sharing_saves", saves_difference_and_held, "that is what is saved"),
    ("sharing_saves", saves_float, "an int is expected, not float"),
    ("sharing_saves", saves_list, "a tuple is expected, not list"),
    ("sharing_saves", saves_forgets_outputs, "the value differs"),
]
