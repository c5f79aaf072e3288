"""Exercises of 03_block_tables: find a token, take blocks, give them back, grow by a token, bound the waste."""

from course_lib.teaching.check import Exercise, Mistake

# -- slot_of ------------------------------------------------------------------------------------------------


def slot_of(block_table, position, block_size):
    """The slot of the token at a position."""
    return block_table[position // block_size] * block_size + position % block_size


SLOT_OF = Exercise(
    name="slot_of",
    minutes=4,
    difficulty="easy",
    proves="one division finds any token, wherever its block lies.",
    solution=slot_of,
    # No offset is beyond the table: who takes it for a block's number gets a wrong slot and not an IndexError.
    cases=lambda: [
        # the first token of a second block, one inside a block, one at a block's end, blocks of 1, the first of all
        dict(block_table=[7, 2], position=16, block_size=16),
        dict(block_table=[3, 0, 8, 5, 1], position=14, block_size=4),
        dict(block_table=[6, 11, 4], position=5, block_size=3),
        dict(block_table=[9, 4, 7, 2], position=3, block_size=1),
        dict(block_table=[5, 10, 0, 12, 6], position=68, block_size=16),
        dict(block_table=[13], position=0, block_size=32),
    ],
    mistakes=(
        Mistake(
            "position 16 with block_size 16 landed in logical block 0",
            "which block holds position 16: // or %?",
            lambda block_table, position, block_size: (
                block_table[position % block_size] * block_size + position % block_size
            ),
        ),
        Mistake(
            "// and % have changed places",
            "position // block_size is the block, position % block_size the place in it",
            lambda block_table, position, block_size: (
                block_table[position % block_size] * block_size + position // block_size
            ),
        ),
        Mistake(
            "the offset is a block's number",
            "the place in the block is position % block_size",
            lambda block_table, position, block_size: (
                block_table[position // block_size] * block_size + position // block_size
            ),
        ),
        Mistake(
            "it ignores the block table",
            "logical block 1 need not be physical block 1: look it up",
            lambda block_table, position, block_size: position,
        ),
        Mistake(
            "the block's number is taken for its first slot",
            "block 2 begins at slot 2 * block_size",
            lambda block_table, position, block_size: (
                block_table[position // block_size] + position % block_size
            ),
        ),
        Mistake(
            "that is the block, not the slot",
            "the slot is block * block_size + the place in the block",
            lambda block_table, position, block_size: block_table[position // block_size],
        ),
        Mistake(
            "that is the first slot of its block",
            "add the place in the block: position % block_size",
            lambda block_table, position, block_size: block_table[position // block_size] * block_size,
        ),
        Mistake(
            "the whole position is added to the block's first slot",
            "only the place in the block is added: position % block_size",
            lambda block_table, position, block_size: (
                block_table[position // block_size] * block_size + position
            ),
        ),
        Mistake(
            "one position early",
            "positions count from 0: position 16 is the 17th token",
            lambda block_table, position, block_size: (
                block_table[(position - 1) // block_size] * block_size + (position - 1) % block_size
            ),
        ),
        Mistake(
            "right for blocks of 16 only",
            "block_size is an argument",
            lambda block_table, position, block_size: block_table[position // 16] * 16 + position % 16,
        ),
        Mistake(
            "that is block and offset",
            "the slot is one number: block * block_size + offset",
            lambda block_table, position, block_size: (
                block_table[position // block_size],
                position % block_size,
            ),
        ),
    ),
    hints=(
        "Three steps: which logical block holds the position, in which physical block that lies, and where in it.",
        "logical = position / block_size, rounded down\nphysical = the table's entry for it\n"
        "offset = what the division leaves\nslot = physical x block_size + offset",
        "return block_table[position // block_size] * block_size + position % block_size",
    ),
    look_at="the logical block, the table's entry for it, and the place in the block",
)

# -- allocate -----------------------------------------------------------------------------------------------


def allocate(free_blocks, num_needed):
    """Take the first num_needed blocks off the free list, or none at all: None if there are too few."""
    if num_needed > len(free_blocks):
        return None
    taken = free_blocks[:num_needed]
    del free_blocks[:num_needed]
    return taken


def _allocate_from_end(free_blocks, num_needed):
    if num_needed > len(free_blocks):
        return None
    return [free_blocks.pop() for _ in range(num_needed)]


def _allocate_last_ones(free_blocks, num_needed):
    if num_needed > len(free_blocks):
        return None
    start = len(free_blocks) - num_needed
    taken = free_blocks[start:]
    del free_blocks[start:]
    return taken


def _allocate_lowest(free_blocks, num_needed):
    if num_needed > len(free_blocks):
        return None
    taken = sorted(free_blocks)[:num_needed]
    free_blocks[:] = [block_id for block_id in free_blocks if block_id not in taken]
    return taken


def _allocate_reversed(free_blocks, num_needed):
    taken = allocate(free_blocks, num_needed)
    return None if taken is None else taken[::-1]


def _allocate_without_removing(free_blocks, num_needed):
    return free_blocks[:num_needed] if num_needed <= len(free_blocks) else None


def _allocate_some(free_blocks, num_needed):
    taken = free_blocks[:num_needed]
    del free_blocks[:num_needed]
    return taken


def _allocate_some_without_removing(free_blocks, num_needed):
    return free_blocks[:num_needed]


def _allocate_and_lose(free_blocks, num_needed):
    taken = _allocate_some(free_blocks, num_needed)
    return taken if len(taken) == num_needed else None


def _allocate_empty_for_none(free_blocks, num_needed):
    return allocate(free_blocks, num_needed) or []


def _allocate_returns_rest(free_blocks, num_needed):
    if num_needed > len(free_blocks):
        return None
    del free_blocks[:num_needed]
    return list(free_blocks)


def _allocate_returns_rest_only(free_blocks, num_needed):
    return free_blocks[num_needed:] if num_needed <= len(free_blocks) else None


def _allocate_keeps_one(free_blocks, num_needed):
    return allocate(free_blocks, num_needed) if num_needed < len(free_blocks) else None


def _allocate_none_for_empty(free_blocks, num_needed):
    return allocate(free_blocks, num_needed) or None


def _allocate_none_from_empty(free_blocks, num_needed):
    return allocate(free_blocks, num_needed) if free_blocks else None


def _allocate_one_more(free_blocks, num_needed):
    return allocate(free_blocks, num_needed + 1)


ALLOCATE = Exercise(
    name="allocate",
    minutes=5,
    difficulty="easy",
    proves="any free block will do: nothing to search, no hole that is too small.",
    solution=allocate,
    cases=lambda: [
        # some of them, too few, more of them, all of them, none wanted, none there
        dict(free_blocks=[5, 2, 7, 0], num_needed=3),
        dict(free_blocks=[1, 6], num_needed=3),
        dict(free_blocks=[12, 3, 0, 15, 9, 6, 1], num_needed=5),
        dict(free_blocks=[4, 3], num_needed=2),
        dict(free_blocks=[9, 8], num_needed=0),
        dict(free_blocks=[], num_needed=1),
        dict(free_blocks=[], num_needed=0),
    ],
    mistakes=(
        Mistake(
            "the blocks came off the end",
            "the front is index 0: pop() takes the last, pop(0) the first",
            _allocate_from_end,
        ),
        Mistake("the blocks came off the end", "the front is free_blocks[:num_needed]", _allocate_last_ones),
        Mistake(
            "the lowest block ids were taken",
            "the front of the list is what has been free for longest: no sorting",
            _allocate_lowest,
        ),
        Mistake(
            "the right blocks, in reverse order", "the first of the list comes first", _allocate_reversed
        ),
        Mistake(
            "the blocks are still in the free list",
            "`free_blocks = free_blocks[n:]` makes a new list; `del free_blocks[:n]` changes this one",
            _allocate_without_removing,
        ),
        Mistake(
            "3 blocks needed, 2 given",
            "all or nothing: ask first whether there are enough",
            _allocate_some,
        ),
        Mistake(
            "nothing is taken off the list, and too few are given rather than none",
            "all or nothing: ask first whether there are enough, and `del` what you take",
            _allocate_some_without_removing,
        ),
        Mistake(
            "None is right, but the blocks are gone",
            "ask whether there are enough before you take the first",
            _allocate_and_lose,
        ),
        Mistake(
            "an empty list where None is asked for",
            "[] means: none were needed. None means: there are not enough",
            _allocate_empty_for_none,
        ),
        Mistake(
            "2 blocks needed, 2 free, and refused",
            "the last free block may be taken, too: < or <=?",
            _allocate_keeps_one,
        ),
        Mistake(
            "None where no block is needed",
            "there are enough: 0. The answer is [], and None means that there are too few",
            _allocate_none_for_empty,
        ),
        Mistake(
            "None where no block is needed",
            "there are enough: 0. The answer is [], and None means that there are too few",
            _allocate_none_from_empty,
        ),
        Mistake("it returns what is left", "return the blocks that were taken", _allocate_returns_rest),
        Mistake("it returns what is left", "return the blocks that were taken", _allocate_returns_rest_only),
        Mistake("one block too many", "free_blocks[:num_needed] has num_needed items", _allocate_one_more),
    ),
    hints=(
        "Ask first whether there are enough. Only then touch the list.",
        "if more are needed than there are: return None\ntaken = the first num_needed\n"
        "remove them from this list\nreturn taken",
        "if num_needed > len(free_blocks):\n    return None\ntaken = free_blocks[:num_needed]\n"
        "del free_blocks[:num_needed]\nreturn taken",
    ),
    look_at="what is taken off the front, what stays in free_blocks, and what happens when there are too few",
    may_change=frozenset({"free_blocks"}),
)

# -- release ------------------------------------------------------------------------------------------------


def release(free_blocks, ref_counts, block_ids):
    """Give a sequence's blocks back, last first; False and no change if one has no reference to lose."""
    for block_id in block_ids:
        if ref_counts[block_id] < block_ids.count(block_id):
            return False
    for block_id in reversed(block_ids):
        ref_counts[block_id] -= 1
        if ref_counts[block_id] == 0:
            free_blocks.append(block_id)
    return True


def _is_double_free(ref_counts, block_ids):
    return any(ref_counts[block_id] < block_ids.count(block_id) for block_id in block_ids)


def _release_first_first(free_blocks, ref_counts, block_ids):
    return release(free_blocks, ref_counts, block_ids[::-1])


def _release_to_front(free_blocks, ref_counts, block_ids):
    freed = []
    done = release(freed, ref_counts, block_ids)
    free_blocks[:0] = freed[::-1]
    return done


def _release_shared_too(free_blocks, ref_counts, block_ids):
    if _is_double_free(ref_counts, block_ids):
        return False
    for block_id in reversed(block_ids):
        ref_counts[block_id] -= 1
        free_blocks.append(block_id)
    return True


def _release_all_owners(free_blocks, ref_counts, block_ids):
    if _is_double_free(ref_counts, block_ids):
        return False
    for block_id in reversed(block_ids):
        ref_counts[block_id] = 0
        free_blocks.append(block_id)
    return True


def _release_list_only(free_blocks, ref_counts, block_ids):
    return release(free_blocks, list(ref_counts), block_ids)


def _release_list_only_all(free_blocks, ref_counts, block_ids):
    return _release_shared_too(free_blocks, list(ref_counts), block_ids)


def _release_counts_only(free_blocks, ref_counts, block_ids):
    return release(list(free_blocks), ref_counts, block_ids)


def _release_unchecked(free_blocks, ref_counts, block_ids):
    for block_id in reversed(block_ids):
        ref_counts[block_id] -= 1
        if ref_counts[block_id] == 0:
            free_blocks.append(block_id)
    return True


def _release_unchecked_twice_free(free_blocks, ref_counts, block_ids):
    for block_id in reversed(block_ids):
        ref_counts[block_id] -= 1
        if ref_counts[block_id] <= 0:
            free_blocks.append(block_id)
    return True


def _release_skips(free_blocks, ref_counts, block_ids):
    for block_id in reversed(block_ids):
        if ref_counts[block_id]:
            ref_counts[block_id] -= 1
            if ref_counts[block_id] == 0:
                free_blocks.append(block_id)
    return True


def _release_half(free_blocks, ref_counts, block_ids):
    for block_id in reversed(block_ids):
        if ref_counts[block_id] == 0:
            return False
        ref_counts[block_id] -= 1
        if ref_counts[block_id] == 0:
            free_blocks.append(block_id)
    return True


def _release_half_below(free_blocks, ref_counts, block_ids):
    for block_id in reversed(block_ids):
        ref_counts[block_id] -= 1
        if ref_counts[block_id] < 0:
            return False
        if ref_counts[block_id] == 0:
            free_blocks.append(block_id)
    return True


def _release_skips_and_says_so(free_blocks, ref_counts, block_ids):
    twice = _is_double_free(ref_counts, block_ids)
    return _release_skips(free_blocks, ref_counts, block_ids) and not twice


def _release_sees_no_twins(free_blocks, ref_counts, block_ids):
    if any(ref_counts[block_id] == 0 for block_id in block_ids):
        return False
    return _release_unchecked(free_blocks, ref_counts, block_ids)


def _release_sees_no_twins_twice_free(free_blocks, ref_counts, block_ids):
    if any(ref_counts[block_id] == 0 for block_id in block_ids):
        return False
    return _release_unchecked_twice_free(free_blocks, ref_counts, block_ids)


def _release_sees_no_twins_skips(free_blocks, ref_counts, block_ids):
    if any(ref_counts[block_id] == 0 for block_id in block_ids):
        return False
    return _release_skips(free_blocks, ref_counts, block_ids)


def _release_twins_half(free_blocks, ref_counts, block_ids):
    if any(ref_counts[block_id] == 0 for block_id in block_ids):
        return False
    return _release_half(free_blocks, ref_counts, block_ids)


RELEASE = Exercise(
    name="release",
    minutes=8,
    difficulty="medium",
    proves="a block is free when its last owner lets go, and a double free is noticed before it does harm.",
    solution=release,
    cases=lambda: [
        # nobody shares, some are shared, one is free already, one comes twice, nothing to give back, the first is free
        dict(free_blocks=[4, 1], ref_counts=[1, 0, 1, 1, 0, 1], block_ids=[3, 0, 5]),
        dict(free_blocks=[2], ref_counts=[2, 1, 0, 1, 3, 1], block_ids=[0, 5, 4, 1]),
        dict(free_blocks=[3, 1], ref_counts=[2, 0, 1, 0, 1], block_ids=[2, 3, 4]),
        dict(free_blocks=[0], ref_counts=[0, 1, 1, 1], block_ids=[2, 1, 2]),
        dict(free_blocks=[0, 2], ref_counts=[0, 1, 0], block_ids=[]),
        dict(free_blocks=[1, 0], ref_counts=[0, 0, 3, 1], block_ids=[0, 2, 3]),
    ],
    mistakes=(
        Mistake("the blocks went back first to last", "reversed(block_ids)", _release_first_first),
        Mistake(
            "the blocks went to the front of the free list",
            "free_blocks.append(...) puts a block at the end",
            _release_to_front,
        ),
        Mistake(
            "block 4 is in the free list while others use it",
            "a block is free when its count reaches 0, not before",
            _release_shared_too,
        ),
        Mistake(
            "block 4 has lost all its references at once",
            "this sequence is one owner of three: the count goes down by one",
            _release_all_owners,
        ),
        Mistake(
            "the counts did not change",
            "ref_counts[block_id] -= 1, in the list that was given",
            _release_list_only,
        ),
        Mistake(
            "the counts did not change",
            "ref_counts[block_id] -= 1, in the list that was given",
            _release_list_only_all,
        ),
        Mistake(
            "the blocks never reach the free list",
            "`free_blocks = free_blocks + [...]` makes a new list; free_blocks.append(...) changes this one",
            _release_counts_only,
        ),
        Mistake(
            "nobody noticed that block 3 is free already",
            "a count of 0 cannot go down: ask before you change anything",
            _release_unchecked,
        ),
        Mistake(
            "nobody noticed: block 3 is now twice in the free list",
            "a count of 0 cannot go down: ask before you change anything",
            _release_unchecked_twice_free,
        ),
        Mistake(
            "it skips the block that is free already and says True",
            "a double free is a fault of the caller: say False, change nothing",
            _release_skips,
        ),
        Mistake(
            "False is right, but block 4 was given back before block 3 was noticed",
            "two loops: the first only looks, the second changes",
            _release_half,
        ),
        Mistake(
            "False is right, but block 4 was given back and the count of block 3 is below 0",
            "two loops: the first only looks, the second changes",
            _release_half_below,
        ),
        Mistake(
            "False is right, but the other blocks were given back",
            "return False before anything is changed",
            _release_skips_and_says_so,
        ),
        Mistake(
            "block 2 comes twice with one reference, and nobody noticed",
            "each count is at least 1, and still too small: how often does a block come in block_ids?",
            _release_sees_no_twins,
        ),
        Mistake(
            "block 2 comes twice with one reference, and is now twice in the free list",
            "each count is at least 1, and still too small: how often does a block come in block_ids?",
            _release_sees_no_twins_twice_free,
        ),
        Mistake(
            "block 2 comes twice with one reference, and nobody noticed",
            "each count is at least 1, and still too small: how often does a block come in block_ids?",
            _release_sees_no_twins_skips,
        ),
        Mistake(
            "block 2 comes twice with one reference: noticed too late",
            "count in the first loop how often a block comes: block_ids.count(block_id)",
            _release_twins_half,
        ),
    ),
    hints=(
        "Two passes over block_ids. The first only asks whether every block has a reference to lose.",
        "for each block: if its count is below how often it comes in block_ids, return False\n"
        "for each block, last first: count down by one; at 0 put it at the end of the free list\nreturn True",
        "if any(ref_counts[block_id] < block_ids.count(block_id) for block_id in block_ids):\n    return False\n"
        "for block_id in reversed(block_ids):\n    ref_counts[block_id] -= 1\n"
        "    if ref_counts[block_id] == 0:\n        free_blocks.append(block_id)\nreturn True",
    ),
    look_at="look before you change anything; one reference each; at 0 the block goes to the end, last block first",
    may_change=frozenset({"free_blocks", "ref_counts"}),
)

# -- append_token -------------------------------------------------------------------------------------------


def append_token(block_table, num_tokens, free_blocks, block_size):
    """Make room for one more token and return its slot; None and no change if a block is needed and none is free."""
    if num_tokens == len(block_table) * block_size:  # the last block is full, or there is none
        if not free_blocks:
            return None
        block_table.append(free_blocks.pop(0))
    return block_table[-1] * block_size + num_tokens % block_size


def _append_a_block_each_time(block_table, num_tokens, free_blocks, block_size):
    if not free_blocks:
        return None
    block_table.append(free_blocks.pop(0))
    return block_table[num_tokens // block_size] * block_size + num_tokens % block_size


def _append_a_block_each_time_if_any(block_table, num_tokens, free_blocks, block_size):
    if free_blocks:
        block_table.append(free_blocks.pop(0))
    if num_tokens // block_size >= len(block_table):
        return None
    return block_table[num_tokens // block_size] * block_size + num_tokens % block_size


def _append_to_last_of_each_time(block_table, num_tokens, free_blocks, block_size):
    if not free_blocks:
        return None
    block_table.append(free_blocks.pop(0))
    return block_table[-1] * block_size + num_tokens % block_size


def _append_early(block_table, num_tokens, free_blocks, block_size):
    """Takes the next block with the token that fills the last one."""
    if num_tokens + 1 >= len(block_table) * block_size:
        if not free_blocks:
            return None
        block_table.append(free_blocks.pop(0))
    return block_table[num_tokens // block_size] * block_size + num_tokens % block_size


def _append_over_last_block(block_table, num_tokens, free_blocks, block_size):
    """Takes a block only when there is none, and begins the last one anew."""
    if not block_table:
        if not free_blocks:
            return None
        block_table.append(free_blocks.pop(0))
    return block_table[-1] * block_size + num_tokens % block_size


def _append_from_end(block_table, num_tokens, free_blocks, block_size):
    free_blocks.reverse()
    slot = append_token(block_table, num_tokens, free_blocks, block_size)
    free_blocks.reverse()
    return slot


def _append_without_removing(block_table, num_tokens, free_blocks, block_size):
    return append_token(block_table, num_tokens, list(free_blocks), block_size)


def _append_without_table(block_table, num_tokens, free_blocks, block_size):
    return append_token(list(block_table), num_tokens, free_blocks, block_size)


def _append_changes_nothing(block_table, num_tokens, free_blocks, block_size):
    return append_token(list(block_table), num_tokens, list(free_blocks), block_size)


def _append_in_front(block_table, num_tokens, free_blocks, block_size):
    before = len(block_table)
    slot = append_token(block_table, num_tokens, free_blocks, block_size)
    if len(block_table) > before:
        block_table.insert(0, block_table.pop())
    return slot


def _append_slot_of_last(block_table, num_tokens, free_blocks, block_size):
    if append_token(block_table, num_tokens, free_blocks, block_size) is None:
        return None
    position = num_tokens - 1
    return block_table[position // block_size] * block_size + position % block_size


def _append_slot_after(block_table, num_tokens, free_blocks, block_size):
    slot = append_token(block_table, num_tokens, free_blocks, block_size)
    return None if slot is None else block_table[-1] * block_size + (num_tokens + 1) % block_size


def _append_slot_plus_one(block_table, num_tokens, free_blocks, block_size):
    slot = append_token(block_table, num_tokens, free_blocks, block_size)
    return None if slot is None else slot + 1


def _append_returns_block(block_table, num_tokens, free_blocks, block_size):
    slot = append_token(block_table, num_tokens, free_blocks, block_size)
    return None if slot is None else slot // block_size


def _append_returns_offset(block_table, num_tokens, free_blocks, block_size):
    slot = append_token(block_table, num_tokens, free_blocks, block_size)
    return None if slot is None else slot % block_size


def _append_returns_position(block_table, num_tokens, free_blocks, block_size):
    slot = append_token(block_table, num_tokens, free_blocks, block_size)
    return None if slot is None else num_tokens


def _append_returns_first_slot(block_table, num_tokens, free_blocks, block_size):
    slot = append_token(block_table, num_tokens, free_blocks, block_size)
    return None if slot is None else slot // block_size * block_size


def _append_without_product(block_table, num_tokens, free_blocks, block_size):
    slot = append_token(block_table, num_tokens, free_blocks, block_size)
    return None if slot is None else slot // block_size + slot % block_size


def _append_needs_a_free_block(block_table, num_tokens, free_blocks, block_size):
    return append_token(block_table, num_tokens, free_blocks, block_size) if free_blocks else None


def _append_zero_is_nothing(block_table, num_tokens, free_blocks, block_size):
    """Asks for the block's number where it means whether there is one."""
    if num_tokens < len(block_table) * block_size:
        return block_table[-1] * block_size + num_tokens % block_size
    block_id = free_blocks.pop(0) if free_blocks else None
    if not block_id:
        return None
    block_table.append(block_id)
    return block_id * block_size


def _append_slot_zero_is_nothing(block_table, num_tokens, free_blocks, block_size):
    return append_token(block_table, num_tokens, free_blocks, block_size) or None


def _append_minus_one(block_table, num_tokens, free_blocks, block_size):
    slot = append_token(block_table, num_tokens, free_blocks, block_size)
    return -1 if slot is None else slot


APPEND_TOKEN = Exercise(
    name="append_token",
    minutes=8,
    difficulty="medium",
    proves="a sequence takes memory one block at a time, when a token needs it.",
    solution=append_token,
    cases=lambda: [
        # room in the last block, a full last block, its last slot, a first token, nothing free, slot 0, blocks of 1
        dict(block_table=[2, 9], num_tokens=6, free_blocks=[3, 5], block_size=4),
        dict(block_table=[6, 1], num_tokens=8, free_blocks=[5, 0, 3], block_size=4),
        dict(block_table=[1, 4], num_tokens=7, free_blocks=[0], block_size=4),
        dict(block_table=[], num_tokens=0, free_blocks=[3, 7], block_size=16),
        dict(block_table=[2], num_tokens=5, free_blocks=[], block_size=5),
        dict(block_table=[4, 7], num_tokens=6, free_blocks=[], block_size=5),
        dict(block_table=[], num_tokens=0, free_blocks=[], block_size=8),
        dict(block_table=[], num_tokens=0, free_blocks=[0, 2], block_size=8),
        dict(block_table=[8, 2], num_tokens=2, free_blocks=[9], block_size=1),
    ],
    mistakes=(
        Mistake(
            "it takes a block for every token",
            "blocks 2 and 9 have 8 slots for 6 tokens: is a block needed?",
            _append_a_block_each_time,
        ),
        Mistake(
            "it takes a block for every token",
            "blocks 2 and 9 have 8 slots for 6 tokens: is a block needed?",
            _append_a_block_each_time_if_any,
        ),
        Mistake(
            "it takes a block for every token, and puts the token into that",
            "blocks 2 and 9 have 8 slots for 6 tokens: is a block needed?",
            _append_to_last_of_each_time,
        ),
        Mistake(
            "it takes the next block one token early",
            "a block is needed when the last one is full before this token, not after it",
            _append_early,
        ),
        Mistake(
            "the last block is full, and its first token is overwritten",
            "8 tokens fill 2 blocks of 4: the ninth needs a third",
            _append_over_last_block,
        ),
        Mistake(
            "the block came off the end of the free list",
            "the front is index 0: pop() takes the last, pop(0) the first",
            _append_from_end,
        ),
        Mistake(
            "the block is still in the free list",
            "free_blocks[0] only looks, free_blocks.pop(0) takes",
            _append_without_removing,
        ),
        Mistake(
            "the new block is not in the block table",
            "block_table.append(...): without it nobody finds the token again",
            _append_without_table,
        ),
        Mistake(
            "neither list has changed",
            "`block_table + [...]` and `free_blocks[1:]` make new lists; append and pop(0) change these",
            _append_changes_nothing,
        ),
        Mistake(
            "the new block stands in front of the table",
            "the table is in the order of the text: append at its end",
            _append_in_front,
        ),
        Mistake(
            "that is the slot of the token before",
            "positions count from 0: with num_tokens there, the new one is at position num_tokens",
            _append_slot_of_last,
        ),
        Mistake(
            "that is the slot after the new token's",
            "positions count from 0: with num_tokens there, the new one is at position num_tokens",
            _append_slot_after,
        ),
        Mistake(
            "that is the slot after the new token's",
            "positions count from 0: with num_tokens there, the new one is at position num_tokens",
            _append_slot_plus_one,
        ),
        Mistake(
            "that is the block, not the slot",
            "the slot is block * block_size + the place in the block",
            _append_returns_block,
        ),
        Mistake(
            "that is the place in the block, not the slot",
            "the slot is block * block_size + the place in the block",
            _append_returns_offset,
        ),
        Mistake(
            "that is the position in the text, not the slot",
            "where does its block lie? slot = block * block_size + the place in the block",
            _append_returns_position,
        ),
        Mistake(
            "that is the first slot of its block",
            "add the place in the block: num_tokens % block_size",
            _append_returns_first_slot,
        ),
        Mistake(
            "the block's number is taken for its first slot",
            "block 9 begins at slot 9 * block_size",
            _append_without_product,
        ),
        Mistake(
            "None, though the last block has room",
            "6 tokens in 2 blocks of 5: ask for a free block only when one is needed",
            _append_needs_a_free_block,
        ),
        Mistake(
            "block 0 is taken for no block",
            "0 counts as false: ask whether the list is empty, or `is None`",
            _append_zero_is_nothing,
        ),
        Mistake(
            "slot 0 is taken for no slot", "0 counts as false: ask `is None`", _append_slot_zero_is_nothing
        ),
        Mistake(
            "it returns -1 where no block is free",
            "to a tensor -1 is its last slot: return None",
            _append_minus_one,
        ),
    ),
    hints=(
        "When is the last block full? Only then is a block needed, and only then can one be missing.",
        "if the table's blocks have no empty slot:\n    if the free list is empty: return None\n"
        "    move its first block to the end of the table\n"
        "return the slot of position num_tokens",
        "if num_tokens == len(block_table) * block_size:\n    if not free_blocks:\n        return None\n"
        "    block_table.append(free_blocks.pop(0))\n"
        "return block_table[-1] * block_size + num_tokens % block_size",
    ),
    look_at="when a block is needed, from where it comes, where it goes, and the slot of position num_tokens",
    may_change=frozenset({"block_table", "free_blocks"}),
)

# -- paged_waste --------------------------------------------------------------------------------------------


def paged_waste(lengths, block_size):
    """Slots of the sequences' blocks that hold no token, and the most that so many sequences could waste."""
    wasted = sum(-length % block_size for length in lengths)  # what is missing to the next multiple
    return wasted, len(lengths) * (block_size - 1)


def _waste(wasted=None, at_most=None):
    """paged_waste with one of its parts replaced: functions of (lengths, block_size)."""

    def wrong(lengths, block_size):
        right = paged_waste(lengths, block_size)
        return (
            wasted(lengths, block_size) if wasted else right[0],
            at_most(lengths, block_size) if at_most else right[1],
        )

    return wrong


PAGED_WASTE = Exercise(
    name="paged_waste",
    minutes=4,
    difficulty="easy",
    proves="a sequence wastes less than one block, whatever its length.",
    solution=paged_waste,
    cases=lambda: [
        # a full last block among others, blocks of 16, one token in a large block, all full, blocks of 1, no sequence
        dict(lengths=[5, 12, 2], block_size=4),
        dict(lengths=[161, 499, 48, 23], block_size=16),
        dict(lengths=[1], block_size=256),
        dict(lengths=[32, 64], block_size=32),
        dict(lengths=[3, 8, 1], block_size=1),
        dict(lengths=[], block_size=16),
    ],
    mistakes=(
        Mistake(
            "12 tokens fill 3 blocks of 4, and a fourth was counted",
            "a length that is a multiple wastes nothing: block_size - length % block_size is a whole block then",
            _waste(wasted=lambda lengths, block_size: sum(block_size - n % block_size for n in lengths)),
        ),
        Mistake(
            "that counts the tokens in the last blocks, not the empty slots",
            "what is missing to a full block? block_size - length % block_size, and 0 if it is full",
            _waste(wasted=lambda lengths, block_size: sum(n % block_size for n in lengths)),
        ),
        Mistake(
            "the sequences share their last block",
            "each has blocks of its own: round each length up, then add",
            _waste(wasted=lambda lengths, block_size: -sum(lengths) % block_size),
        ),
        Mistake(
            "that counts all slots of the blocks, not the empty ones",
            "subtract the tokens",
            _waste(wasted=lambda lengths, block_size: sum(-(-n // block_size) * block_size for n in lengths)),
        ),
        Mistake(
            "a negative waste",
            "5 tokens need 2 blocks of 4: round up",
            _waste(wasted=lambda lengths, block_size: sum(n // block_size * block_size - n for n in lengths)),
        ),
        Mistake(
            "that is what to expect on average",
            "the lengths are known: count their empty slots",
            _waste(wasted=lambda lengths, block_size: len(lengths) * (block_size - 1) / 2),
        ),
        Mistake(
            "the bound allows a last block without a token",
            "a block is taken when a token needs it: at most block_size - 1 of its slots are empty",
            _waste(at_most=lambda lengths, block_size: len(lengths) * block_size),
        ),
        Mistake(
            "the bound is that of one sequence",
            "each of the sequences has a last block",
            _waste(at_most=lambda lengths, block_size: block_size - 1),
        ),
        Mistake(
            "the bound depends on these lengths",
            "the most that so many sequences could waste, whatever their lengths",
            _waste(at_most=lambda lengths, block_size: sum(-n % block_size for n in lengths)),
        ),
        Mistake(
            "the bound depends on these lengths",
            "a sequence that fills its last block today has one token more tomorrow: count them all",
            _waste(
                at_most=lambda lengths, block_size: sum(block_size - 1 for n in lengths if n % block_size)
            ),
        ),
        Mistake(
            "the two are the wrong way round",
            "first what these lengths waste, then the most they could",
            lambda lengths, block_size: paged_waste(lengths, block_size)[::-1],
        ),
    ),
    hints=(
        "Only a sequence's last block can have empty slots. How many, for a length of 5 and blocks of 4? For 12?",
        "for each length: what is missing to the next multiple of block_size (0 if it is one)\n"
        "at most: for each sequence all slots of its last block but one",
        "wasted = sum(-length % block_size for length in lengths)\n"
        "return wasted, len(lengths) * (block_size - 1)",
    ),
    look_at="the empty slots of each last block, and one slot less than a block for each sequence",
)

EXERCISES = [ALLOCATE, SLOT_OF, APPEND_TOKEN, RELEASE, PAGED_WASTE]  # as the notebook asks them
