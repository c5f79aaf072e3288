"""Pool and tables against a naive model: what a sequence wrote is what it reads, whatever is forked, freed, copied."""

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from course_lib.memory import Appended, BlockPool, BlockTable, OutOfBlocks, block_pool

# -- by example -----------------------------------------------------------------------------------------------


def test_a_sequence_takes_a_block_only_when_a_token_needs_one():
    pool = BlockPool(4, 4)
    table = BlockTable(pool)
    assert table.append(4).slots == [0, 1, 2, 3] and pool.num_free == 3
    assert table.append() == Appended(slots=[4], copies=[]) and pool.num_free == 2
    assert [table.slot(position) for position in range(5)] == [0, 1, 2, 3, 4]


def test_the_waste_of_a_sequence_is_below_one_block():
    for block_size, num_tokens in itertools.product([1, 2, 5, 16], range(1, 40)):
        table = BlockTable(BlockPool(64, block_size))
        table.append(num_tokens)
        waste = len(table.block_ids) * block_size - num_tokens
        assert 0 <= waste < block_size


def test_an_append_takes_all_it_needs_or_nothing():
    pool = BlockPool(3, 4)
    first, second = BlockTable(pool), BlockTable(pool)
    first.append(5)
    second.append(2)
    with pytest.raises(OutOfBlocks, match=r"needs 1 block, 0 free of 3: free a sequence") as caught:
        second.append(3)
    assert (caught.value.needed, caught.value.free, caught.value.total) == (1, 0, 3)
    assert (second.num_tokens, second.block_ids, pool.num_free) == (2, [2], 0)
    assert second.append(2).slots == [10, 11], "what fits into the last block still fits"


def test_a_copy_on_write_counts_among_the_blocks_that_are_needed():
    pool = BlockPool(2, 4)
    parent = BlockTable(pool)
    parent.append(2)
    child = parent.fork()
    other = BlockTable(pool)
    other.append(1)
    with pytest.raises(OutOfBlocks, match="needs 1 block, 0 free of 2"):
        child.append()
    assert child.block_ids == parent.block_ids and pool.ref_count(parent.block_ids[0]) == 2
    other.free()
    assert child.append().copies == [(0, 1)]
    assert parent.append().copies == [], "the parent is alone now, and writes in place"


def test_a_full_block_stays_shared():
    pool = BlockPool(8, 4)
    parent = BlockTable(pool)
    parent.append(4)
    child = parent.fork()
    assert child.append().copies == [] and parent.append().copies == []
    assert child.block_ids[0] == parent.block_ids[0] and child.block_ids[1] != parent.block_ids[1]


def test_blocks_are_given_back_last_first_and_handed_out_in_that_order():
    pool = BlockPool(3, 2)
    table = BlockTable(pool)
    table.append(6)
    table.free()
    assert (table.num_tokens, table.block_ids, pool.num_free) == (0, [], 3)
    assert [pool.allocate() for _ in range(3)] == [2, 1, 0]


def test_an_exhausted_pool_says_so():
    pool = BlockPool(1, 16)
    pool.allocate()
    with pytest.raises(OutOfBlocks, match="needs 1 block, 0 free of 1"):
        pool.allocate()


@pytest.mark.parametrize(
    ("misuse", "said"),
    [
        (lambda pool: pool.free(2), "block 2 is free already: freed twice"),
        (lambda pool: pool.share(2), "block 2 is free: it cannot be shared"),
        (lambda pool: pool.free(4), "there is no block 4: the pool has 4"),
        (lambda pool: pool.share(-1), "there is no block -1"),
        (lambda pool: pool.revive(0), "block 0 is in use: share it"),
        (lambda pool: pool.revive(2), "block 2 is free and holds nothing that is known"),
        (lambda pool: pool.remember(2, None, (1, 2)), "block 2 is free: only a block in use"),
        (lambda pool: pool.remember(0, None, (1,)), "holds 1 tokens of 2: it is not full"),
    ],
)
def test_misuse_of_the_pool_is_an_error_and_changes_nothing(misuse, said):
    pool = BlockPool(4, 2, enable_prefix_caching=True)
    pool.allocate()
    with pytest.raises(ValueError, match=said):
        misuse(pool)
    assert (pool.num_free, pool.ref_count(0)) == (3, 1)
    pool.check()


@pytest.mark.parametrize("value", [0, -1, 1.5, "4", None, True])
@pytest.mark.parametrize("name", ["num_blocks", "block_size"])
def test_a_pool_of_nonsense_is_refused_with_the_value(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got {value!r}"):
        BlockPool(**{"num_blocks": 4, "block_size": 4, name: value})


def test_tables_refuse_positions_and_counts_that_do_not_exist():
    table = BlockTable(BlockPool(4, 4))
    table.append(3)
    for position in (-1, 3):
        with pytest.raises(ValueError, match=f"position {position} has no token: the table holds 3"):
            table.slot(position)
    with pytest.raises(ValueError, match="num_tokens must be a whole number of at least 1, got 0"):
        table.append(0)


# -- prefix caching by example --------------------------------------------------------------------------------


def cached_sequence(pool, tokens):
    """A sequence whose keys and values are written and remembered."""
    table = BlockTable(pool)
    reused = table.adopt_prefix(tokens)
    table.append(len(tokens) - reused)
    table.remember(tokens)
    return table, reused


def test_a_prompt_is_found_again_but_for_its_last_block():
    pool = BlockPool(16, 4, enable_prefix_caching=True)
    first, reused = cached_sequence(pool, list(range(8)))
    assert reused == 0
    _, reused = cached_sequence(pool, list(range(8)))
    assert reused == 4, "eight tokens fill two blocks, but one token must be computed"
    _, reused = cached_sequence(pool, [*range(8), 99])
    assert reused == 8
    assert pool.ref_count(first.block_ids[0]) == 3


def test_the_same_tokens_after_another_prefix_are_another_block():
    pool = BlockPool(16, 2, enable_prefix_caching=True)
    cached_sequence(pool, [1, 2, 7, 8])
    _, reused = cached_sequence(pool, [3, 4, 7, 8, 9])
    assert reused == 0
    _, reused = cached_sequence(pool, [3, 4, 7, 8, 9])
    assert reused == 4, "both are kept, each under its own parent"


def test_freed_blocks_are_found_until_they_are_handed_out_again():
    pool = BlockPool(4, 2, enable_prefix_caching=True)
    table, _ = cached_sequence(pool, [1, 2, 3, 4, 5, 6])
    table.free()
    assert (pool.num_free, pool.num_cached) == (4, 3)
    pool.allocate(), pool.allocate()  # block 3, never used, then block 2, the tail of the text
    again = BlockTable(pool)
    assert again.adopt_prefix([1, 2, 3, 4, 5, 6]) == 4, "the head is evicted last"
    assert again.block_ids == [0, 1] and pool.num_free == 0
    pool.check()


def test_without_prefix_caching_nothing_is_kept():
    pool = BlockPool(4, 2)
    _table, _ = cached_sequence(pool, [1, 2, 3, 4])
    _, reused = cached_sequence(pool, [1, 2, 3, 4])
    assert (reused, pool.num_cached) == (0, 0)


def test_only_an_empty_table_adopts_a_prefix():
    table = BlockTable(BlockPool(4, 2, enable_prefix_caching=True))
    table.append(1)
    with pytest.raises(ValueError, match="only an empty table adopts a prefix; this one holds 1 tokens"):
        table.adopt_prefix([1, 2, 3])


@pytest.mark.parametrize("make_hash", [lambda parent, tokens: 0, lambda parent, tokens: hash(tokens)])
def test_texts_that_collide_are_never_taken_for_each_other(make_hash, monkeypatch):
    """With one hash for everything, and with a hash that forgets the parent."""
    monkeypatch.setattr(block_pool, "hash_block", make_hash)
    pool = BlockPool(32, 2, enable_prefix_caching=True)
    cached_sequence(pool, [1, 2, 7, 8, 5])
    _, reused = cached_sequence(pool, [3, 4, 7, 8, 5])
    assert reused == 0
    _, reused = cached_sequence(pool, [3, 4, 7, 8, 5])
    assert reused in (0, 2), "its own first block at most"


def test_a_child_of_an_evicted_parent_is_not_found_through_another_text_with_its_hash(monkeypatch):
    monkeypatch.setattr(block_pool, "hash_block", lambda parent, tokens: hash((parent, tokens[0] % 2)))
    pool = BlockPool(3, 1, enable_prefix_caching=True)
    old, _ = cached_sequence(pool, [1, 4])  # blocks 0 and 1
    pool.free(old.block_ids[0])  # the parent's block alone becomes free ...
    pool.allocate(), pool.allocate()  # ... and is handed out, its child is still cached
    pool.free(2)
    new = BlockTable(pool)
    new.append(1)
    new.remember([3])  # another text whose hash is that of the old parent
    assert BlockTable(pool).adopt_prefix([3, 4, 9]) == 1


# -- any sequence of operations -------------------------------------------------------------------------------


class Sequences(RuleBasedStateMachine):
    """What every machine below shares: sequences fork and end, and counts equal references."""

    tables = Bundle("tables")

    def __init__(self, pool):
        super().__init__()
        self.pool = pool
        self.memory = [None] * (pool.num_blocks * pool.block_size)
        self.texts = {}  # id(table) -> (table, what it wrote or inherited)

    def copy(self, copies):
        size = self.pool.block_size
        for source, destination in copies:
            block = self.memory[source * size : (source + 1) * size]
            self.memory[destination * size : (destination + 1) * size] = block

    @rule(target=tables, table=tables)
    def fork(self, table):
        free = self.pool.num_free
        child = table.fork()
        assert self.pool.num_free == free, "a fork takes no block"
        self.texts[id(child)] = (child, list(self.texts[id(table)][1]))
        return child

    @rule(table=consumes(tables))
    def free(self, table):
        table.free()
        del self.texts[id(table)]

    @invariant()
    def counts_equal_references(self):
        self.pool.check(table.block_ids for table, _ in self.texts.values())


class Blocks(Sequences):
    """Sequences write numbers that are never used twice; each must always read back its own."""

    tables = Sequences.tables

    def __init__(self):
        super().__init__(BlockPool(12, 3))
        self.fresh = itertools.count()

    @rule(target=tables)
    def start(self):
        table = BlockTable(self.pool)
        self.texts[id(table)] = (table, [])
        return table

    @rule(table=tables, count=st.integers(1, 9))
    def append(self, table, count):
        before = list(table.block_ids), table.num_tokens, self.pool.num_free
        try:
            appended = table.append(count)
        except OutOfBlocks as error:
            assert (list(table.block_ids), table.num_tokens, self.pool.num_free) == before
            assert error.needed > error.free == self.pool.num_free
            return
        self.copy(appended.copies)
        for slot in appended.slots:
            self.memory[slot] = next(self.fresh)
            self.texts[id(table)][1].append(self.memory[slot])
        assert len(appended.slots) == count

    @invariant()
    def everyone_reads_what_it_wrote(self):
        for table, text in self.texts.values():
            assert table.num_tokens == len(text)
            assert len(table.block_ids) == -(-len(text) // 3)
            assert [self.memory[table.slot(position)] for position in range(len(text))] == text


class CachedBlocks(Sequences):
    """Prefix caching over texts of two letters, which share prefixes often. What a slot holds depends on all tokens up
    to it, as keys and values do; nobody may ever read what belongs to another text."""

    tables = Sequences.tables
    tokens = st.lists(st.integers(0, 1), min_size=1, max_size=9)

    def __init__(self):
        super().__init__(BlockPool(10, 2, enable_prefix_caching=True))

    def write(self, table, slots, text):
        for position, slot in zip(range(table.num_tokens - len(slots), table.num_tokens), slots, strict=True):
            self.memory[slot] = tuple(text[: position + 1])

    @rule(target=tables, text=tokens)
    def start(self, text):
        table = BlockTable(self.pool)
        reused = table.adopt_prefix(text)
        assert reused < len(text) and reused % 2 == 0
        try:
            appended = table.append(len(text) - reused)
        except OutOfBlocks:
            table.free()
            text = []
        else:
            self.write(table, appended.slots, text)
            table.remember(text)
        self.texts[id(table)] = (table, list(text))
        return table

    @precondition(lambda self: self.texts)
    @rule(table=tables, more=tokens)
    def extend(self, table, more):
        text = self.texts[id(table)][1]
        try:
            appended = table.append(len(more))
        except OutOfBlocks:
            return
        self.copy(appended.copies)
        text.extend(more)
        self.write(table, appended.slots, text)
        table.remember(text)

    @invariant()
    def nobody_reads_another_text(self):
        for table, text in self.texts.values():
            for position in range(table.num_tokens):
                assert self.memory[table.slot(position)] == tuple(text[: position + 1])


class CollidingBlocks(CachedBlocks):
    """The same with a hash of three values, so that texts collide all the time."""

    def __init__(self):
        super().__init__()
        self.true_hash, block_pool.hash_block = block_pool.hash_block, lambda parent, tokens: sum(tokens) % 3

    def teardown(self):
        block_pool.hash_block = self.true_hash


TestBlocks = Blocks.TestCase
TestCachedBlocks = CachedBlocks.TestCase
TestCollidingBlocks = CollidingBlocks.TestCase
for case in (TestBlocks, TestCachedBlocks, TestCollidingBlocks):
    case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_leak_and_a_double_free_are_told_apart_by_the_tables_that_are_alive():
    pool = BlockPool(4, 2)
    kept, forgotten = BlockTable(pool), BlockTable(pool)
    kept.append(3)
    forgotten.append(1)
    pool.check([kept.block_ids, forgotten.block_ids])
    pool.check()  # without the tables nothing is seen
    with pytest.raises(AssertionError, match="block 2 is leaked: its count is 1, 0 live tables hold it"):
        pool.check([kept.block_ids])
    pool.free(kept.block_ids[0])
    with pytest.raises(
        AssertionError, match="block 0 is freed too often: its count is 0, 1 live tables hold it"
    ):
        pool.check([kept.block_ids, forgotten.block_ids])
