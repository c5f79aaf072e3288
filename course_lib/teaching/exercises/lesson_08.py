"""Exercises of 08_sharing: write into a shared block, name a block, find a cached prefix, count what sharing saves."""

import itertools

from course_lib.teaching.check import Exercise, Mistake

# -- write_shared ---------------------------------------------------------------------------------------------


def write_shared(block_table, num_tokens, ref_counts, free_blocks, block_size):
    """Room for one more token of a sequence whose blocks may be shared: the (source, destination) to copy, or None."""
    if num_tokens % block_size == 0:  # the last block is full: nothing is written into it
        block_table.append(free_blocks.pop(0))
        ref_counts[block_table[-1]] = 1
        return None
    last = block_table[-1]
    if ref_counts[last] == 1:
        return None
    block_table[-1] = free_blocks.pop(0)
    ref_counts[last] -= 1
    ref_counts[block_table[-1]] = 1
    return last, block_table[-1]


def _one_fewer(ref_counts, last):
    ref_counts[last] -= 1


def _nothing(*arguments):
    return None


def _write(
    *,
    full=lambda num_tokens, block_size: num_tokens % block_size == 0,
    full_copies=False,
    copies=lambda count: count > 1,
    take=lambda free_blocks: free_blocks.pop(0),
    add=lambda block_table, fresh: block_table.append(fresh),
    place=lambda block_table, fresh: block_table.__setitem__(-1, fresh),
    old=lambda ref_counts, last, free_blocks: _one_fewer(ref_counts, last),
    old_of_full=_nothing,
    new=lambda ref_counts, fresh, last: ref_counts.__setitem__(fresh, 1),
    new_at_end=lambda ref_counts, fresh, last: ref_counts.__setitem__(fresh, 1),
    told=lambda last, fresh: (last, fresh),
    told_at_end=_nothing,
):
    """`write_shared` with one of its acts changed; `old_of_full`, `new_at_end` and so on where the block is full."""

    def answer(block_table, num_tokens, ref_counts, free_blocks, block_size):
        last = block_table[-1]
        if full(num_tokens, block_size) and not (full_copies and ref_counts[last] > 1):
            fresh = take(free_blocks)
            add(block_table, fresh)
            old_of_full(ref_counts, last)
            new_at_end(ref_counts, fresh, last)
            return told_at_end(last, fresh)
        if not copies(ref_counts[last]):
            return None
        fresh = take(free_blocks)
        place(block_table, fresh)
        old(ref_counts, last, free_blocks)
        new(ref_counts, fresh, last)
        return told(last, fresh)

    return answer


def _write_copies_all(block_table, num_tokens, ref_counts, free_blocks, block_size):
    """Copies every shared block, not the last alone."""
    if num_tokens % block_size == 0:
        return write_shared(block_table, num_tokens, ref_counts, free_blocks, block_size)
    copied = None
    for index, block_id in enumerate(block_table):
        if ref_counts[block_id] > 1:
            ref_counts[block_id] -= 1
            block_table[index] = free_blocks.pop(0)
            ref_counts[block_table[index]] = 1
            copied = block_id, block_table[index]
    return copied


def _write_copies_then_appends(block_table, num_tokens, ref_counts, free_blocks, block_size):
    """Copies the last block if it is shared, and then looks whether it is full."""
    copied = write_shared(block_table, 1, ref_counts, free_blocks, block_size)
    if num_tokens % block_size == 0:
        write_shared(block_table, num_tokens, ref_counts, free_blocks, block_size)
    return copied


def _write_never_appends(block_table, num_tokens, ref_counts, free_blocks, block_size):
    if num_tokens % block_size == 0:
        return None
    return write_shared(block_table, num_tokens, ref_counts, free_blocks, block_size)


def _write_takes_if_alone(block_table, num_tokens, ref_counts, free_blocks, block_size):
    full = num_tokens % block_size == 0 or ref_counts[block_table[-1]] == 1
    return write_shared(block_table, 0 if full else num_tokens, ref_counts, free_blocks, block_size)


WRITE_SHARED = Exercise(
    name="write_shared",
    minutes=9,
    difficulty="hard",
    proves="a fork costs at most one block copy a sequence, however long the text is.",
    solution=write_shared,
    cases=lambda: [
        # half full, and two share it; its own; full, and three share it; half full, of three, block 0; of two; full
        dict(
            block_table=[4, 2],
            num_tokens=6,
            ref_counts=[0, 0, 2, 0, 2, 0],
            free_blocks=[5, 0, 3, 1],
            block_size=4,
        ),
        dict(
            block_table=[4, 2],
            num_tokens=6,
            ref_counts=[0, 0, 1, 0, 2, 0],
            free_blocks=[5, 0, 3, 1],
            block_size=4,
        ),
        dict(
            block_table=[1, 3],
            num_tokens=6,
            ref_counts=[0, 3, 0, 3, 0, 0],
            free_blocks=[2, 0, 5, 4],
            block_size=3,
        ),
        dict(
            block_table=[5, 1, 0],
            num_tokens=7,
            ref_counts=[3, 3, 0, 0, 0, 3],
            free_blocks=[3, 4, 2],
            block_size=3,
        ),
        dict(
            block_table=[3, 4], num_tokens=3, ref_counts=[0, 0, 0, 2, 2], free_blocks=[0, 2, 1], block_size=2
        ),
        dict(block_table=[2], num_tokens=4, ref_counts=[0, 0, 1, 0], free_blocks=[3, 1, 0], block_size=4),
    ],
    mistakes=(
        Mistake(
            "a shared block is written into",
            "its other owners would read your token: copy it first, if its count is above 1",
            _write(copies=lambda count: False),
        ),
        Mistake(
            "a block that nobody shares is copied",
            "count 1 is you alone: write into it",
            _write(copies=lambda count: True),
        ),
        Mistake(
            "a block that nobody shares is copied",
            "count 1 is you alone: write into it, there is nothing to give back",
            _write(
                copies=lambda count: True,
                old=lambda ref_counts, last, free_blocks: (
                    _one_fewer(ref_counts, last),
                    free_blocks.extend([last] * (ref_counts[last] == 0)),
                ),
            ),
        ),
        Mistake(
            "a shared block is written into, and one of your own is copied",
            "the other way round: copy it if its count is above 1",
            _write(copies=lambda count: count == 1),
        ),
        Mistake(
            "a block with two owners is written into",
            "two are enough to share: above 1, not above 2",
            _write(copies=lambda count: count > 2),
        ),
        Mistake(
            "a full block is copied",
            "nothing is written into a full block: take a fresh one, and share the full one for ever",
            _write(full_copies=True),
        ),
        Mistake(
            "a full block is copied",
            "nothing is written into a full block: ask that first, and take a fresh one",
            _write_copies_then_appends,
        ),
        Mistake(
            "nobody notices that the last block is full",
            "num_tokens % block_size == 0: the next token needs a block of its own, shared or not",
            _write(full=lambda num_tokens, block_size: False),
        ),
        Mistake(
            "a new block where the last one has room, and none where it is full",
            "the other way round: it is full if num_tokens % block_size == 0",
            _write(full=lambda num_tokens, block_size: num_tokens % block_size != 0),
        ),
        Mistake(
            "one token early: the last block has room for one more",
            "it is full if num_tokens % block_size == 0",
            _write(full=lambda num_tokens, block_size: (num_tokens + 1) % block_size == 0),
        ),
        Mistake(
            "all shared blocks are copied",
            "only the block that is written into: the last",
            _write_copies_all,
        ),
        Mistake(
            "the counts did not change",
            "of a copy, the old block has one owner fewer and the new one has 1; a fresh block has 1, too",
            _write(old=_nothing, new=_nothing, new_at_end=_nothing),
        ),
        Mistake(
            "the old block's count did not go down",
            "one owner fewer: or it will never be free",
            _write(old=_nothing),
        ),
        Mistake(
            "the old block's count is 0, and others own it",
            "one owner fewer, not none",
            _write(old=lambda ref_counts, last, free_blocks: ref_counts.__setitem__(last, 0)),
        ),
        Mistake(
            "the old block's count is 1, whoever else owns it",
            "one owner fewer than before: of three, two are left",
            _write(old=lambda ref_counts, last, free_blocks: ref_counts.__setitem__(last, 1)),
        ),
        Mistake(
            "the old block goes into the free list, and others own it",
            "only its count goes down: it is free when that is 0",
            _write(
                old=lambda ref_counts, last, free_blocks: (
                    _one_fewer(ref_counts, last),
                    free_blocks.append(last),
                )
            ),
        ),
        Mistake(
            "the old block goes into the free list, and others own it",
            "only its count goes down, by 1: it is free when that is 0",
            _write(
                old=lambda ref_counts, last, free_blocks: (
                    ref_counts.__setitem__(last, 0),
                    free_blocks.append(last),
                )
            ),
        ),
        Mistake(
            "the full block's count went down",
            "it stays in the table: it has as many owners as before",
            _write(old_of_full=_one_fewer),
        ),
        Mistake(
            "a full block's contents are to be copied",
            "it stays where it is, and a new block stands behind it: nothing to copy, return None",
            _write(told_at_end=lambda last, fresh: (last, fresh)),
        ),
        Mistake(
            "a full block's contents are to be copied",
            "it stays where it is, with its count, and a new block stands behind it: return None",
            _write(told_at_end=lambda last, fresh: (last, fresh), old_of_full=_one_fewer),
        ),
        Mistake(
            "the new block has no owner",
            "its count is 1 from now on",
            _write(new=_nothing, new_at_end=_nothing),
        ),
        Mistake(
            "the new block has no owner",
            "its count is 1 from now on, also where it takes a shared one's place",
            _write(new=_nothing),
        ),
        Mistake(
            "the new block has no owner",
            "its count is 1 from now on, also where nothing is copied",
            _write(new_at_end=_nothing),
        ),
        Mistake(
            "the new block takes over the old one's owners",
            "you alone own it: 1",
            _write(new=lambda ref_counts, fresh, last: ref_counts.__setitem__(fresh, ref_counts[last] + 1)),
        ),
        Mistake(
            "the new block takes over the old one's owners",
            "they stay with the old one, and you alone own the new one: 1",
            _write(new=lambda ref_counts, fresh, last: ref_counts.__setitem__(fresh, ref_counts[last])),
        ),
        Mistake(
            "the block table does not name the new block",
            "block_table[-1] is the new block",
            _write(place=_nothing),
        ),
        Mistake(
            "the block table does not name the new block",
            "after a full block, the new one is appended",
            _write(add=_nothing),
        ),
        Mistake(
            "the block table does not name the new block",
            "change the list itself: block_table[-1] = ... or block_table.append(...)",
            _write(place=_nothing, add=_nothing),
        ),
        Mistake(
            "the new block stands behind the old one",
            "it takes the old one's place: block_table[-1] = new",
            _write(place=lambda block_table, fresh: block_table.append(fresh)),
        ),
        Mistake(
            "the copy goes the wrong way",
            "(source, destination): from the shared block to the new one",
            _write(told=lambda last, fresh: (fresh, last)),
        ),
        Mistake(
            "a copy of the new block to itself",
            "keep the old block's number before you overwrite block_table[-1]",
            _write(told=lambda last, fresh: (fresh, fresh)),
        ),
        Mistake(
            "a copy of the new block to itself",
            "keep the old block's number before you overwrite block_table[-1]: its count goes down",
            _write(told=lambda last, fresh: (fresh, fresh), old=_nothing),
        ),
        Mistake(
            "nobody is told to copy",
            "the new block is empty until its contents are copied: return (old, new)",
            _write(told=lambda last, fresh: None),
        ),
        Mistake(
            "the blocks came off the end",
            "the front of the free list is pop(0)",
            _write(take=lambda free_blocks: free_blocks.pop()),
        ),
        Mistake(
            "the block is still in the free list",
            "pop(0) takes it off, free_blocks[0] only looks",
            _write(take=lambda free_blocks: free_blocks[0]),
        ),
        Mistake(
            "the last block is full, and no new one is taken",
            "num_tokens % block_size == 0: the next token needs a block of its own",
            _write_never_appends,
        ),
        Mistake(
            "a block is taken though the last one has room",
            "only a full last block calls for a new one",
            _write_takes_if_alone,
        ),
        Mistake(
            "a block is taken though the last one has room",
            "only a full last block calls for a new one: num_tokens % block_size == 0",
            _write(full=lambda num_tokens, block_size: True),
        ),
        Mistake(
            "a block is taken though the last one has room",
            "a block that is yours alone is written into, until it is full",
            _write(full=lambda num_tokens, block_size: True, full_copies=True),
        ),
    ),
    hints=(
        "Three cases: the last block is full; it is half full and yours alone; it is half full and shared.",
        "last block full: a fresh block, count 1, at the end of the table; nothing to copy\n"
        "its count is 1: nothing to do\n"
        "else: a fresh block takes its place in the table; the old count goes down by 1, the new one is 1; copy",
        "if num_tokens % block_size == 0:\n    block_table.append(free_blocks.pop(0))\n"
        "    ref_counts[block_table[-1]] = 1\n    return None\nlast = block_table[-1]\n"
        "if ref_counts[last] == 1:\n    return None\nblock_table[-1] = free_blocks.pop(0)\nref_counts[last] -= 1\n"
        "ref_counts[block_table[-1]] = 1\nreturn last, block_table[-1]",
    ),
    look_at="whether the last block is full, who else owns it, and the counts of both blocks afterwards",
    may_change=frozenset({"block_table", "ref_counts", "free_blocks"}),
)

# -- block_keys -----------------------------------------------------------------------------------------------


def block_keys(token_ids, block_size):
    """A key for each full block: (the key of the block before it, its tokens)."""
    keys, parent = [], None
    for start in range(0, len(token_ids) - block_size + 1, block_size):
        parent = (parent, tuple(token_ids[start : start + block_size]))
        keys.append(parent)
    return keys


def _keys(
    *,
    first=None,
    parent=lambda keys, blocks: keys[-1],
    stop=lambda tokens, size: len(tokens) - size + 1,
    pair=lambda parent, blocks: (parent, blocks[-1]),
):
    """`block_keys` with one of its parts changed."""

    def answer(token_ids, block_size):
        keys, blocks = [], []
        for start in range(0, stop(token_ids, block_size), block_size):
            blocks.append(tuple(token_ids[start : start + block_size]))
            keys.append(pair(parent(keys, blocks) if keys else first, blocks))
        return keys

    return answer


def _overlapping(token_ids, block_size, most):
    keys = [None]
    for start in range(len(token_ids) - block_size + 1)[:most]:
        keys.append((keys[-1], tuple(token_ids[start : start + block_size])))
    return keys[1:]


def _one_back_from_the_end(token_ids, block_size):
    blocks = [tokens for _, tokens in block_keys(token_ids, block_size)]
    return list(zip(blocks[-1:] + blocks[:-1], blocks, strict=True))


BLOCK_KEYS = Exercise(
    name="block_keys",
    minutes=6,
    difficulty="medium",
    proves="a key names a block's tokens and everything before them: the same key, the same keys and values.",
    solution=block_keys,
    cases=lambda: [
        # a half block at the end, the same block twice, none full, a multiple, blocks of 1
        dict(token_ids=[5, 6, 7, 8, 9, 10, 11], block_size=3),
        dict(token_ids=[1, 2, 1, 2, 1, 2], block_size=2),
        dict(token_ids=[1, 2, 3], block_size=4),
        dict(token_ids=[9, 8, 7, 6], block_size=4),
        dict(token_ids=[3, 3, 4], block_size=1),
        dict(token_ids=[], block_size=2),
    ],
    mistakes=(
        Mistake(
            "the parent is missing",
            "the same tokens after other tokens have other keys and values: the key must know what came before",
            _keys(parent=lambda keys, blocks: None),
        ),
        Mistake(
            "the tokens alone are no key",
            "a pair: (the key of the block before, the tokens)",
            _keys(pair=lambda parent, blocks: blocks[-1]),
        ),
        Mistake(
            "the tokens alone are no key",
            "a pair: (the key of the block before, the tokens of this block)",
            _keys(pair=lambda parent, blocks: sum(blocks, ())),
        ),
        Mistake(
            "a hash, where the pair is asked for",
            "the pair itself: (the key of the block before, the tokens)",
            _keys(pair=lambda parent, blocks: hash((parent, blocks[-1]))),
        ),
        Mistake(
            "the number of the block before, where its key is asked for",
            "the pair's first is the pair of the block before",
            _keys(parent=lambda keys, blocks: len(keys) - 1),
        ),
        Mistake(
            "a hash, where the pair is asked for",
            "the pair itself: (the key of the block before, the tokens)",
            lambda token_ids, block_size: [hash(key) for key in block_keys(token_ids, block_size)],
        ),
        Mistake(
            "a hash, where the pair is asked for",
            "the key of the block before, as it is",
            _keys(parent=lambda keys, blocks: hash(keys[-1])),
        ),
        Mistake(
            "a hash, where the pair is asked for",
            "the tokens as they are, in a tuple",
            _keys(pair=lambda parent, blocks: (parent, hash(blocks[-1]))),
        ),
        Mistake(
            "only one block back",
            "the parent is the whole key of the block before, which knows its own parent",
            _keys(parent=lambda keys, blocks: blocks[-2]),
        ),
        Mistake(
            "only one block back",
            "the parent is the whole key of the block before; and before the first one is None, not [-1]",
            _one_back_from_the_end,
        ),
        Mistake(
            "every block has the first one as its parent",
            "the parent is the block just before",
            _keys(parent=lambda keys, blocks: keys[0]),
        ),
        Mistake(
            "all tokens before, where the key before is asked for",
            "the pair's first is the pair of the block before",
            _keys(parent=lambda keys, blocks: sum(blocks[:-1], ())),
        ),
        Mistake(
            "all tokens before, where the key before is asked for",
            "the pair's first is the pair of the block before; for the first block None",
            _keys(parent=lambda keys, blocks: sum(blocks[:-1], ()), first=()),
        ),
        Mistake(
            "a block's tokens, and all before them",
            "the parent stands for those before: the pair's second is this block's tokens alone",
            _keys(pair=lambda parent, blocks: (parent, sum(blocks, ()))),
        ),
        *(
            Mistake("the first block's parent is not None", "(None, its tokens)", _keys(first=first))
            for first in ((), 0, -1, "")
        ),
        Mistake(
            "the first block's parent is not None",
            "a pair, as all others: (None, its tokens)",
            _keys(pair=lambda parent, blocks: blocks[0] if len(blocks) == 1 else (parent, blocks[-1])),
        ),
        Mistake(
            "a block that is not full has a key",
            "it will change with the next token: only full blocks can be found again",
            _keys(stop=lambda tokens, size: len(tokens)),
        ),
        Mistake(
            "a block that is not full has a key",
            "there are len(token_ids) // block_size full blocks",
            _keys(stop=lambda tokens, size: (len(tokens) // size + 1) * size),
        ),
        Mistake(
            "the last full block has no key",
            "a text of exactly so many blocks has a key for each",
            _keys(stop=lambda tokens, size: len(tokens) - size),
        ),
        Mistake(
            "the last full block has no key",
            "only a block that is not full has none",
            _keys(stop=lambda tokens, size: (len(tokens) // size - 1) * size),
        ),
        Mistake(
            "a text of whole blocks has no keys",
            "token_ids[:-0] is empty: cut it at len(token_ids) // block_size * block_size",
            _keys(stop=lambda tokens, size: len(tokens) // size * size if len(tokens) % size else 0),
        ),
        Mistake(
            "the pair is the wrong way round",
            "first the parent's key, then the tokens",
            _keys(pair=lambda parent, blocks: (blocks[-1], parent)),
        ),
        Mistake(
            "only the last key is returned",
            "one for each full block: shorter prefixes are found, too",
            lambda token_ids, block_size: (block_keys(token_ids, block_size) or [None])[-1],
        ),
        Mistake(
            "the tokens are a list",
            "a key must be hashable: tuple(tokens)",
            _keys(pair=lambda parent, blocks: (parent, list(blocks[-1]))),
        ),
        Mistake(
            "a block begins at every token",
            "blocks do not overlap: the step of the range is block_size",
            lambda token_ids, block_size: _overlapping(token_ids, block_size, len(token_ids)),
        ),
        Mistake(
            "a block begins at every token",
            "blocks do not overlap: block i begins at token i * block_size",
            lambda token_ids, block_size: _overlapping(token_ids, block_size, len(token_ids) // block_size),
        ),
    ),
    hints=(
        "Each key is built from the one before. What is the parent of the first block?",
        "parent = None\nfor each full block, in order:\n    key = (parent, its tokens as a tuple)\n"
        "    keep the key; it is the parent of the next",
        "keys, parent = [], None\nfor start in range(0, len(token_ids) - block_size + 1, block_size):\n"
        "    parent = (parent, tuple(token_ids[start : start + block_size]))\n    keys.append(parent)\nreturn keys",
    ),
    look_at="what each pair holds, and where the last full block ends",
)

# -- find_prefix ----------------------------------------------------------------------------------------------


def find_prefix(cached, token_ids, block_size):
    """The cached blocks with which a prompt can begin: the longest run from its start, less its last token."""
    found, parent = [], None
    for start in range(0, len(token_ids) - block_size, block_size):
        parent = (parent, tuple(token_ids[start : start + block_size]))
        if parent not in cached:
            break
        found.append(cached[parent])
    return found


def _find(
    *,
    stop=lambda tokens, size: len(tokens) - size,
    on_miss="break",
    parent_of=lambda parent: parent,
    hit=lambda key, cached: key in cached,
    result=lambda found, tokens, size: found,
):
    """`find_prefix` with one of its parts changed."""

    def answer(cached, token_ids, block_size):
        found, parent = [], None
        for start in range(0, stop(token_ids, block_size), block_size):
            key = (parent_of(parent), tuple(token_ids[start : start + block_size]))
            if hit(key, cached):
                found.append(cached[key])
            elif on_miss == "break":
                break
            elif on_miss == "none":
                return []
            elif on_miss == "skip":
                continue
            parent = key
        return result(found, token_ids, block_size)

    return answer


def _longest_run(cached, token_ids, block_size):
    runs = [[]]
    for key in block_keys(token_ids[:-1], block_size):
        if key in cached:
            runs[-1].append(cached[key])
        else:
            runs.append([])
    return max(runs, key=len)


def _by_tokens(blocks, token_ids, block_size):
    keys = block_keys(token_ids[:-1], block_size)
    return [blocks[tokens] for _, tokens in itertools.takewhile(lambda key: key[1] in blocks, keys)]


def _chain(*texts, size=2):
    """{key: block id} of texts that were served before, the blocks numbered as they come."""
    cached = {}
    for text in texts:
        for key in block_keys(text, size):
            cached.setdefault(key, 20 + 3 * len(cached))
    return cached


def _without(cached, number):
    return {key: block for index, (key, block) in enumerate(cached.items()) if index != number}


FIND_PREFIX = Exercise(
    name="find_prefix",
    minutes=7,
    difficulty="medium",
    proves="a hit ends at the first miss, and one token is always left to compute.",
    solution=find_prefix,
    cases=lambda: [
        # two hits and a miss; the same text: its last block stays out; one token more: it is in; a hole; strangers
        dict(cached=_chain([1, 2, 3, 4, 5, 6]), token_ids=[1, 2, 3, 4, 9, 9, 5, 6, 7], block_size=2),
        dict(cached=_chain([1, 2, 3, 4, 5, 6], size=3), token_ids=[1, 2, 3, 4, 5, 6], block_size=3),
        dict(cached=_chain([1, 2, 3, 4]), token_ids=[1, 2, 3, 4, 5], block_size=2),
        dict(
            cached=_without(_chain([1, 2, 3, 4, 5, 6, 7, 8]), 1),
            token_ids=[1, 2, 3, 4, 5, 6, 7, 8, 9],
            block_size=2,
        ),
        dict(cached=_chain([7, 8, 3, 4], [3, 4]), token_ids=[1, 2, 3, 4, 5], block_size=2),
        dict(cached=_chain([7, 8, 3, 4], [1, 2]), token_ids=[1, 2, 3, 4, 5], block_size=2),
        # the second block is cached as a first one, too; three hits, block 0 among them; nothing is cached
        dict(cached=_chain([1, 2, 3, 4], [3, 4]), token_ids=[1, 2, 3, 4, 5], block_size=2),
        dict(
            cached=dict(zip(block_keys([1, 2, 3, 4, 5, 6, 7, 8, 9], 3), [7, 0, 4], strict=True)),
            token_ids=[1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 2],
            block_size=3,
        ),
        dict(cached={}, token_ids=[1, 2, 3], block_size=2),
    ],
    mistakes=(
        Mistake(
            "nothing is left to compute",
            "the scores of the next token come from computing the last one: leave it out, and so its block",
            _find(stop=lambda tokens, size: len(tokens) - size + 1),
        ),
        Mistake(
            "nothing is left to compute",
            "leave out the last token, and so its block; and stop at the first miss",
            _find(stop=lambda tokens, size: len(tokens) - size + 1, on_miss="continue"),
        ),
        Mistake(
            "a block too few is reused",
            "the block may end just before the last token",
            _find(stop=lambda tokens, size: len(tokens) - size - 1),
        ),
        Mistake(
            "a block too few is reused",
            "one token is left to compute: so (len(token_ids) - 1) // block_size blocks may be reused",
            _find(stop=lambda tokens, size: (len(tokens) - 1) // size * size - size),
        ),
        Mistake(
            "the last full block is always left out",
            "it is left out only if the last token is in it",
            _find(stop=lambda tokens, size: (len(tokens) // size - 1) * size),
        ),
        Mistake(
            "the last hit is always left out",
            "it is left out only if the last token is in it",
            _find(stop=lambda tokens, size: len(tokens), result=lambda found, tokens, size: found[:-1]),
        ),
        Mistake(
            "the last hit is always left out",
            "one token must be left to compute, not a block",
            _find(result=lambda found, tokens, size: found[:-1]),
        ),
        Mistake(
            "a prompt that is cached whole reuses nothing",
            "all but the block with its last token",
            _find(
                stop=lambda tokens, size: len(tokens),
                result=lambda found, tokens, size: found if len(found) * size < len(tokens) else [],
            ),
        ),
        Mistake(
            "it goes on after a miss",
            "a block behind a miss has no place: keys and values must be there from the start, without a hole",
            _find(on_miss="continue"),
        ),
        Mistake(
            "it goes on after a miss",
            "a block behind a miss has no place: stop at the first; and 0 is a block like any other",
            _find(on_miss="continue", hit=lambda key, cached: cached.get(key)),
        ),
        Mistake(
            "the longest run, wherever it begins",
            "from the start: keys and values must be there without a hole",
            _longest_run,
        ),
        Mistake(
            "it leaves out a block that is missing, and goes on",
            "a block behind a miss has no place: stop at the first miss",
            _find(on_miss="skip"),
        ),
        Mistake(
            "it leaves out a block that is missing, and goes on",
            "stop at the first miss; and the last token must be left to compute",
            _find(on_miss="skip", stop=lambda tokens, size: len(tokens) - size + 1),
        ),
        Mistake(
            "one miss and nothing is reused",
            "the hits before the first miss count",
            _find(on_miss="none"),
        ),
        Mistake(
            "one miss and nothing is reused",
            "the hits before the first miss count; and the last token must be left to compute",
            _find(on_miss="none", stop=lambda tokens, size: len(tokens) - size + 1),
        ),
        Mistake(
            "the parent is forgotten",
            "the key of a block holds the key of the one before it",
            _find(parent_of=lambda parent: None),
        ),
        Mistake(
            "the parent is forgotten",
            "the key of a block holds the key of the one before it; and stop at the first miss",
            _find(parent_of=lambda parent: None, on_miss="skip"),
        ),
        Mistake(
            "the parent is forgotten",
            "the key of a block holds the key of the one before it; and the last token must be left to compute",
            _find(parent_of=lambda parent: None, stop=lambda tokens, size: len(tokens) - size + 1),
        ),
        Mistake(
            "the third block is never found",
            "the parent is the whole key of the block just before: it holds its own parent, back to the first block",
            _find(parent_of=lambda parent: parent and (None, parent[1])),
        ),
        Mistake(
            "only the first block is found",
            "the parent is the whole key of the block before, not its tokens or its id; and only a miss ends the loop",
            _find(parent_of=lambda parent: parent and parent[1]),
        ),
        *(
            Mistake(
                "the tokens are compared, and not all before them",
                "after other tokens the same ones have other keys and values: look up (parent, tokens)",
                lambda cached, token_ids, block_size, order=order: _by_tokens(
                    {tokens: block for (_, tokens), block in list(cached.items())[::order]},
                    token_ids,
                    block_size,
                ),
            )
            for order in (1, -1)
        ),
        Mistake(
            "nothing is ever found",
            "keys as in block_keys, from the first token on: (the key of the block before, tuple of the tokens)",
            lambda cached, token_ids, block_size: [],
        ),
        Mistake(
            "block 0 is taken for no block",
            "0 is a block like any other: ask `key in cached`, or `is None`",
            _find(hit=lambda key, cached: cached.get(key)),
        ),
        Mistake(
            "the keys, not the blocks",
            "cached[key] is the block's id: they go into the block table",
            lambda cached, token_ids, block_size: find_prefix(
                {key: key for key in cached}, token_ids, block_size
            ),
        ),
        Mistake(
            "the blocks' places in the text",
            "cached[key] is the block's id: they go into the block table",
            _find(result=lambda found, tokens, size: list(range(len(found)))),
        ),
        Mistake(
            "it counts the hits",
            "a list of block ids: they go into the block table",
            _find(result=lambda found, tokens, size: len(found)),
        ),
        Mistake(
            "it counts the tokens",
            "a list of block ids: they go into the block table",
            _find(result=lambda found, tokens, size: len(found) * size),
        ),
        Mistake(
            "the last hit alone",
            "the block table needs every block from the start",
            _find(result=lambda found, tokens, size: found[-1:]),
        ),
        Mistake(
            "the blocks are in reverse order",
            "the first block of the text comes first",
            _find(result=lambda found, tokens, size: found[::-1]),
        ),
    ),
    hints=(
        "Build the keys one by one, as in block_keys, and stop at the first that is not cached. How far may you go?",
        "parent = None\nfor each full block that ends before the last token:\n"
        "    key = (parent, its tokens)\n"
        "    not cached? stop\n    keep its block; the key is the next parent",
        "found, parent = [], None\nfor start in range(0, len(token_ids) - block_size, block_size):\n"
        "    parent = (parent, tuple(token_ids[start : start + block_size]))\n    if parent not in cached:\n"
        "        break\n    found.append(cached[parent])\nreturn found",
    ),
    look_at="the key of each block, the first miss, and whether a token is left to compute",
)

# -- sharing_saves --------------------------------------------------------------------------------------------


def sharing_saves(prompt_len, output_len, num_outputs, block_size):
    """(blocks held, blocks without sharing) when all outputs of a prompt have output_len tokens in the cache."""
    each = -(-(prompt_len + output_len) // block_size)
    shared = prompt_len // block_size  # a half-full block of the prompt is copied by whoever writes into it
    return shared + num_outputs * (each - shared), num_outputs * each


def _up(number, size):
    return -(-number // size)


def _saves(
    *,
    each=lambda p, o, size: _up(p + o, size),
    shared=lambda p, size: p // size,
    held=lambda shared, each, n: shared + n * (each - shared),
    unshared=lambda each, n: n * each,
):
    def answer(prompt_len, output_len, num_outputs, block_size):
        blocks, common = each(prompt_len, output_len, block_size), shared(prompt_len, block_size)
        return held(common, blocks, num_outputs), unshared(blocks, num_outputs)

    return answer


SHARING_SAVES = Exercise(
    name="sharing_saves",
    minutes=6,
    difficulty="medium",
    proves="what sharing saves grows with the prompt's share of the text, and with the number of outputs.",
    solution=sharing_saves,
    cases=lambda: [
        # a half block is not shared; a prompt of whole blocks; one output shares nothing; a long prompt; a short one;
        # a prompt's rest that, with the output, fills one block more than the output alone
        dict(prompt_len=19, output_len=58, num_outputs=4, block_size=16),
        dict(prompt_len=32, output_len=16, num_outputs=3, block_size=16),
        dict(prompt_len=20, output_len=10, num_outputs=1, block_size=8),
        dict(prompt_len=341, output_len=20, num_outputs=8, block_size=16),
        dict(prompt_len=5, output_len=20, num_outputs=6, block_size=16),
        dict(prompt_len=30, output_len=20, num_outputs=3, block_size=16),
    ],
    mistakes=(
        Mistake(
            "the half-full block of the prompt counts as shared",
            "each output writes into it, and copies it first: only full blocks stay shared",
            _saves(shared=_up),
        ),
        Mistake(
            "nothing is shared",
            "the prompt's full blocks are there once, whatever the number of outputs",
            _saves(held=lambda shared, each, n: n * each),
        ),
        Mistake(
            "all is shared",
            "each output has blocks of its own behind the prompt",
            _saves(held=lambda shared, each, n: each),
        ),
        Mistake(
            "the shared blocks are left out",
            "they are there once, and somebody holds them",
            _saves(held=lambda shared, each, n: n * (each - shared)),
        ),
        Mistake(
            "the shared blocks are left out",
            "they are there once; and an output goes on in the prompt's last block: round up the sum",
            lambda p, o, n, size: (n * _up(o, size), n * _up(p + o, size)),
        ),
        *(
            Mistake(
                "the prompt is counted once, and again in each text",
                "take what is shared off each text",
                _saves(shared=shared, held=lambda shared, each, n: shared + n * each),
            )
            for shared in (_up, lambda p, size: p // size)
        ),
        *(
            Mistake(
                "only the prompt is counted",
                "each output holds blocks of its own, too",
                _saves(shared=shared, held=lambda shared, each, n: shared),
            )
            for shared in (_up, lambda p, size: p // size)
        ),
        Mistake(
            "the shared blocks are saved once only",
            "every output but one saves them",
            _saves(held=lambda shared, each, n: n * each - shared),
        ),
        Mistake(
            "the prompt's half-full block is held once more",
            "all but the last that writes into it copy it, and the last one has it to itself",
            lambda p, o, n, size: (_up(p, size) + n * (_up(p + o, size) - p // size), n * _up(p + o, size)),
        ),
        Mistake(
            "prompt and output are rounded up apart",
            "an output goes on in the prompt's last block: round up the sum",
            _saves(each=lambda p, o, size: _up(p, size) + _up(o, size)),
        ),
        *(
            Mistake(
                "prompt and output are rounded up apart",
                "an output goes on in the prompt's last block: round up the sum, and take off what is shared",
                lambda p, o, n, size, shared=shared, each=each: (
                    shared(p, size) + n * _up(o, size),
                    n * each(p, o, size),
                ),
            )
            for shared in (_up, lambda p, size: p // size)
            for each in (
                lambda p, o, size: _up(p + o, size),
                lambda p, o, size: _up(p, size) + _up(o, size),
            )
        ),
        Mistake(
            "prompt and output are rounded up apart",
            "each further output goes on in a copy of the prompt's last block: round up the sum",
            lambda p, o, n, size: (_up(p + o, size) + (n - 1) * _up(o, size), n * _up(p + o, size)),
        ),
        Mistake(
            "prompt and output are rounded up apart",
            "without sharing, too, an output goes on in the prompt's last block: round up the sum",
            lambda p, o, n, size: (sharing_saves(p, o, n, size)[0], n * (_up(p, size) + _up(o, size))),
        ),
        *(
            Mistake(
                "the outputs share their last blocks",
                "each output has blocks of its own: round up each text, then multiply",
                pooled,
            )
            for pooled in (
                lambda p, o, n, size: (_up(p + n * o, size), _up(n * (p + o), size)),
                lambda p, o, n, size: (_up(p + n * o, size), n * _up(p + o, size)),
                lambda p, o, n, size: (p // size + _up(n * (p % size + o), size), n * _up(p + o, size)),
                lambda p, o, n, size: (sharing_saves(p, o, n, size)[0], _up(n * (p + o), size)),
            )
        ),
        Mistake(
            "rounded down",
            "the last block is held, full or not",
            _saves(each=lambda p, o, size: (p + o) // size),
        ),
        Mistake(
            "rounded down",
            "the last block is held, full or not: round up prompt and output together",
            lambda p, o, n, size: (p // size + n * (o // size), n * ((p + o) // size)),
        ),
        Mistake(
            "a last block that is full, and one more was counted",
            "a text of whole blocks needs no further one: round up",
            _saves(each=lambda p, o, size: (p + o) // size + 1),
        ),
        Mistake(
            "slots, not blocks",
            "divide by block_size",
            lambda p, o, n, size: (p + n * o, n * (p + o)),
        ),
        Mistake(
            "the two are the wrong way round",
            "first what is held, then what it would be without sharing",
            lambda *arguments: sharing_saves(*arguments)[::-1],
        ),
        Mistake(
            "without sharing there would be more: one text for each output",
            "num_outputs times the blocks of a whole text",
            _saves(unshared=lambda each, n: each),
        ),
        Mistake(
            "that is the share that is saved",
            "both numbers of blocks are asked for",
            lambda *arguments: 1 - sharing_saves(*arguments)[0] / sharing_saves(*arguments)[1],
        ),
        *(
            Mistake(
                "that is what is saved",
                "first what is held, then what it would be without sharing",
                lambda *arguments, told=told: told(*sharing_saves(*arguments)),
            )
            for told in (
                lambda held, apart: apart - held,
                lambda held, apart: (apart - held, apart),
                lambda held, apart: (held, apart - held),
                lambda held, apart: (apart - held, held),
            )
        ),
    ),
    hints=(
        "Which blocks of the prompt does nobody ever write into again?",
        "each text: prompt + output, in blocks, rounded up\nshared: the prompt's full blocks, rounded down\n"
        "held: shared once, and the rest of each text\nwithout sharing: every text whole",
        "each = -(-(prompt_len + output_len) // block_size)\nshared = prompt_len // block_size\n"
        "return shared + num_outputs * (each - shared), num_outputs * each",
    ),
    look_at="the prompt's full blocks, the blocks of a whole text, and how often each is there",
)

EXERCISES = [WRITE_SHARED, BLOCK_KEYS, FIND_PREFIX, SHARING_SAVES]  # as the notebook asks them
