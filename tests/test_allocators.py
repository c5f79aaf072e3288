"""Regions against a map of single slots, allocators against their own extents, the paper's small numbers exactly."""

import copy
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.memory import (
    ALLOCATORS,
    BuddyRegion,
    FitRegion,
    OutOfBlocks,
    PagedAllocator,
    Request,
    ReservingAllocator,
    SlotCounts,
    make_allocator,
)

# A plan of operations: True allocates that many slots, False frees one of the pieces held, chosen by the number.
OPERATIONS = st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=60)


def replay(region, operations, may_hold):
    """Run the operations beside a map of single slots. `may_hold(owners, size)` says, from the map alone, at which
    offsets a piece could lie; the region must find one exactly when there is one."""
    owners, pieces = [None] * region.num_slots, []
    for number, (allocates, value) in enumerate(operations):
        if allocates:
            offset = region.allocate(value)
            possible = may_hold(owners, region.rounded(value))
            assert (offset is None) == (not possible), f"{value} slots: got {offset}, possible at {possible}"
            if offset is not None:
                assert offset in possible
                size = region.size_of(offset)
                assert owners[offset : offset + size] == [None] * size, "pieces overlap"
                owners[offset : offset + size] = [number] * size
                pieces.append(offset)
        elif pieces:
            offset = pieces.pop(value % len(pieces))
            size = region.size_of(offset)
            region.free(offset)
            owners[offset : offset + size] = [None] * size
    return owners, pieces


@given(OPERATIONS, st.integers(1, 130))
@settings(max_examples=150, deadline=None)
def test_a_buddy_region_finds_a_piece_exactly_when_there_is_one(operations, num_slots):
    tops, offset = [], 0
    for bit in reversed(range(num_slots.bit_length())):
        if num_slots >> bit & 1:
            tops.append((offset, 1 << bit))
            offset += 1 << bit

    def may_hold(owners, size):
        starts = [
            top + step for top, top_size in tops for step in range(0, top_size, size) if size <= top_size
        ]
        return [start for start in starts if owners[start : start + size] == [None] * size]

    region = BuddyRegion(num_slots)
    _, pieces = replay(region, operations, may_hold)
    for offset in pieces:
        region.free(offset)
    for offset, size in tops:  # everything has been joined again
        assert region.allocate(size) == offset


@pytest.mark.parametrize("best", [False, True])
@given(operations=OPERATIONS, num_slots=st.integers(1, 130))
@settings(max_examples=150, deadline=None)
def test_a_fit_region_takes_the_first_or_the_smallest_hole(best, operations, num_slots):
    def holes(owners):
        found, start = [], None
        for slot, owner in enumerate([*owners, "end"]):
            if owner is None and start is None:
                start = slot
            elif owner is not None and start is not None:
                found.append((start, slot - start))
                start = None
        return found

    def may_hold(owners, size):
        fitting = [hole for hole in holes(owners) if hole[1] >= size]
        if not fitting:
            return []
        return [min(fitting, key=lambda hole: hole[1])[0] if best else fitting[0][0]]

    region = FitRegion(num_slots, best=best)
    owners, _ = replay(region, operations, may_hold)
    assert region.holes == holes(owners)


def test_first_and_best_fit_differ_where_the_first_hole_is_not_the_smallest():
    for best, expected in [(False, 0), (True, 12)]:
        region = FitRegion(20, best=best)
        first, _, second, _ = (region.allocate(size) for size in (8, 4, 4, 4))
        region.free(first)
        region.free(second)
        assert region.allocate(3) == expected


# -- allocators -----------------------------------------------------------------------------------------------

REQUESTS = st.builds(Request, st.just(0.0), st.integers(1, 30), st.integers(1, 30))
STEPS = st.lists(
    st.tuples(st.sampled_from(["admit", "grow", "release"]), st.integers(0, 1000), REQUESTS), max_size=80
)


@pytest.mark.parametrize("name", ALLOCATORS)
@given(steps=STEPS, num_slots=st.integers(70, 300), block_size=st.sampled_from([1, 4, 7, 16]))
@settings(max_examples=80, deadline=None)
def test_the_four_counts_are_those_of_the_region_and_add_up(name, steps, num_slots, block_size):
    allocator = make_allocator(name, num_slots, max_len=60, block_size=block_size)
    tokens, requests = {}, {}
    for number, (what, value, request) in enumerate(steps):
        held = sorted(tokens)
        before = allocator.counts(), allocator.extents()
        if what == "admit":
            if allocator.admit(number, request, request.prompt_len):
                tokens[number], requests[number] = request.prompt_len, request
            else:
                assert (allocator.counts(), allocator.extents()) == before, "a refusal changes nothing"
        elif held:
            key = held[value % len(held)]
            if what == "release" or tokens[key] == requests[key].total_len:
                allocator.release(key)
                del tokens[key], requests[key]
            else:
                try:
                    allocator.grow(key)
                    tokens[key] += 1
                except OutOfBlocks:
                    assert (allocator.counts(), allocator.extents()) == before, "all or nothing"
        check_extents(allocator, tokens, requests)
    for key in list(tokens):
        allocator.release(key)
    assert allocator.counts() == SlotCounts(0, 0, 0, num_slots)


def check_extents(allocator, tokens, requests):
    extents, end = allocator.extents(), 0
    for extent in extents:
        assert extent.start == end < extent.stop, f"the region is not covered once: {extents}"
        end = extent.stop
    assert end == allocator.num_slots

    def size(kind, key=...):
        chosen = [e for e in extents if e.kind == kind and key in (..., e.owner)]
        return sum(e.stop - e.start for e in chosen)

    counts = allocator.counts()
    for kind in ("token_states", "reserved", "internal", "external"):
        assert getattr(counts, kind) == size(kind), kind
    for key, number in tokens.items():
        assert size("token_states", key) == number
        assert number + size("reserved", key) <= requests[key].total_len


@pytest.mark.parametrize(
    ("max_len", "request_", "reserved", "internal"),
    [(2048, Request(0.0, 7, 3), 2, 2038), (512, Request(0.0, 3, 2), 1, 507)],
    ids=["request A", "request B"],
)
def test_fig_3_of_the_paper_exactly(max_len, request_, reserved, internal):
    """Kwon et al. (2023), Fig 3: request A (max 2048) and request B (max 512), each after its first new token."""
    allocator = ReservingAllocator("reserve_max", max_len, max_len)
    allocator.admit(0, request_, request_.prompt_len)
    allocator.grow(0)
    assert allocator.counts() == SlotCounts(request_.prompt_len + 1, reserved, internal, 0)


def test_orca_max_holds_seven_requests_on_the_papers_machine_exactly():
    """OPT-13B on an A100 40GB, Figs 2 and 13: 15,728 slots hold 7 requests of 2,048, and 8.9% are left over."""
    allocator = make_allocator("reserve_max", 15_728)
    admitted = sum(allocator.admit(key, Request(0.0, 10, 10), 10) for key in range(20))
    assert admitted == 15_728 // 2048 == 7
    assert round(allocator.counts().external / 15_728, 3) == 0.089


@pytest.mark.parametrize(
    ("name", "asked"), [("reserve_max", 2048), ("reserve_pow2", 100 + 64), ("reserve_exact", 150)]
)
def test_what_each_plan_asks_for(name, asked):
    allocator = make_allocator(name, 15_728)
    assert allocator.asks_for(Request(0.0, 100, 50)) == asked
    assert make_allocator("reserve_pow2", 15_728).asks_for(Request(0.0, 1500, 520)) == 2048, (
        "never above max_len"
    )


def test_paging_leaves_blocks_free_when_it_admits_but_not_for_one_alone():
    paged = PagedAllocator(num_slots=200 * 4, block_size=4, watermark=0.01)
    assert paged.num_spare == 2
    assert paged.admit(0, Request(0.0, 198 * 4, 8), 198 * 4)
    assert not paged.admit(1, Request(0.0, 1, 1), 1), "two free blocks are the watermark"
    paged.release(0)
    assert paged.admit(2, Request(0.0, 200 * 4 - 1, 1), 200 * 4 - 1), "alone, a request may take all"


def test_without_a_watermark_the_last_block_is_handed_out():
    paged = PagedAllocator(num_slots=200 * 4, block_size=4, watermark=0.0)
    assert paged.admit(0, Request(0.0, 199 * 4, 8), 199 * 4)
    assert paged.admit(1, Request(0.0, 1, 9), 1)
    with pytest.raises(OutOfBlocks, match="needs 1 block, 0 free of 200"):
        paged.grow(0)


@pytest.mark.parametrize(
    ("allocator", "request_", "said"),
    [
        (make_allocator("reserve_max", 96, max_len=64), Request(0.0, 40, 25), "65 tokens is longer than max_len 64"),
        (make_allocator("reserve_max", 96, max_len=65), Request(0.0, 1, 1), "a piece of 128 slots .* has 64"),
        (make_allocator("reserve_exact", 100, max_len=80), Request(0.0, 40, 25), "reserve_exact wants .* has 64"),
        (make_allocator("paged", 96, block_size=16), Request(0.0, 48, 49), "needs 7 blocks of 16; there are 6"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_fit_alone_is_told_apart(allocator, request_, said):
    with pytest.raises(ValueError, match=said):
        allocator.check_fits(request_)


@pytest.mark.parametrize("name", ALLOCATORS)
def test_a_request_that_just_fits_alone_is_admitted(name):
    allocator, request = make_allocator(name, 96, max_len=64), Request(0.0, 32, 32)
    allocator.check_fits(request)
    assert allocator.admit(0, request, 32)


def test_best_fit_holds_what_a_buddy_allocator_cannot():
    request = Request(0.0, 40, 25)
    ReservingAllocator("reserve_exact", 100, 80, FitRegion(100, best=True)).check_fits(request)
    with pytest.raises(ValueError, match="128 slots"):
        ReservingAllocator("reserve_exact", 100, 80).check_fits(request)


# -- growing by many steps at once ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALLOCATORS)
@given(
    requests=st.lists(st.tuples(REQUESTS, st.integers(0, 29)), max_size=8),
    num_slots=st.one_of(st.integers(70, 90), st.integers(70, 200)),
    block_size=st.sampled_from([1, 3, 4, 16]),
    limit=st.integers(1, 40),
)
@settings(max_examples=300, deadline=None)
def test_growing_all_at_once_is_growing_step_by_step(name, requests, num_slots, block_size, limit):
    if name == "paged":  # only there can room be short
        num_slots //= 2
    allocator = make_allocator(name, num_slots, max_len=60, block_size=block_size)
    to_go = [limit]
    for key, (request, old) in enumerate(requests):
        if allocator.admit(key, request, request.prompt_len):
            try:
                if grown := min(old, request.output_len):
                    allocator.grow(key, grown)
            except OutOfBlocks:
                grown = 0
            to_go.append(request.output_len - grown)
    slow, total = copy.deepcopy(allocator), SlotCounts(0, 0, 0, 0)
    limit, num_steps = min(to_go), 0
    held = slow.slabs if name != "paged" else slow.tables
    try:
        while num_steps < limit:
            before = copy.deepcopy(slow)
            for key in list(held):
                slow.grow(key)
            total, num_steps = total + slow.counts(), num_steps + 1
            before = None
    except OutOfBlocks:
        slow = before
    assert allocator.steps_with_room(limit) == num_steps
    if num_steps:
        assert allocator.grow_all(num_steps) == total
        assert allocator.counts() == slow.counts()
        assert kinds(allocator) == kinds(slow)


def test_steps_with_room_begin_with_the_slots_already_held():
    paged = PagedAllocator(num_slots=5 * 4, block_size=4, watermark=0.0)
    paged.admit(0, Request(0.0, 5, 15), 5)  # three slots left in its second block
    paged.admit(1, Request(0.0, 8, 12), 8)  # none left in its second
    assert [paged.steps_with_room(limit) for limit in (1, 3, 4, 12)] == [1, 3, 3, 3], "one free block, for 1"
    paged.release(1)
    paged.admit(2, Request(0.0, 8, 12), 5)  # three slots left, too; one free block
    assert paged.steps_with_room(12) == 3
    paged.release(2)
    assert paged.steps_with_room(15) == 15, "3 slots held, and 3 free blocks of 4"


def kinds(allocator):
    """How many slots of each kind each request has: blocks may be handed out in another order."""
    found = {}
    for extent in allocator.extents():
        key = extent.owner, extent.kind
        found[key] = found.get(key, 0) + extent.stop - extent.start
    return found


@pytest.mark.parametrize(
    ("misuse", "said"),
    [
        (lambda: make_allocator("buddy", 100), "unknown allocator 'buddy': one of reserve_max"),
        (lambda: ReservingAllocator("paged", 100, 10), "unknown plan 'paged'"),
        (
            lambda: ReservingAllocator("reserve_max", 100, 10, BuddyRegion(64)),
            "the region has 64 slots, not 100",
        ),
        (lambda: make_allocator("paged", 0), "num_slots must be .* got 0"),
        (lambda: make_allocator("reserve_max", 10, max_len=-3), "max_len must be .* got -3"),
        (lambda: PagedAllocator(8, 16), "a block of 16 slots is larger than the region of 8"),
        (lambda: PagedAllocator(64, 16, watermark=1.0), "watermark must be .* got 1.0"),
        (lambda: PagedAllocator(64, 16, watermark=-0.1), "watermark must be .* got -0.1"),
        (lambda: PagedAllocator(64, 16, watermark="1%"), "watermark must be .* got '1%'"),
        (lambda: PagedAllocator(64, 16, watermark=math.nan), "watermark must be .* got nan"),
        (
            lambda: make_allocator("reserve_max", 100, max_len=20).asks_for(Request(0.0, 15, 6)),
            "21 tokens is longer",
        ),
    ],
)
def test_nonsense_is_refused_with_the_value(misuse, said):
    with pytest.raises(ValueError, match=said):
        misuse()


@pytest.mark.parametrize("name", ALLOCATORS)
def test_a_request_cannot_grow_past_its_end(name):
    allocator = make_allocator(name, 128, max_len=64)
    allocator.admit(5, Request(0.0, 2, 1), 2)
    assert allocator.grow(5) == []
    with pytest.raises(ValueError, match="request 5 has 3 of 3 tokens: no room for 1 more"):
        allocator.grow(5)


@pytest.mark.parametrize("name", ALLOCATORS)
def test_an_admission_that_makes_no_sense_is_refused_and_changes_nothing(name):
    allocator = make_allocator(name, 128, max_len=64)
    with pytest.raises(ValueError, match="request 5 has 0 of 3 tokens: no room for 4 more"):
        allocator.admit(5, Request(0.0, 2, 1), 4)
    with pytest.raises(ValueError, match="num_tokens must be .* got 0"):
        allocator.admit(5, Request(0.0, 2, 1), 0)
    assert allocator.counts() == SlotCounts(0, 0, 0, 128)
    assert allocator.admit(5, Request(0.0, 2, 1), 2)
    with pytest.raises(ValueError, match="request 5 is there already"):
        allocator.admit(5, Request(0.0, 2, 1), 2)
