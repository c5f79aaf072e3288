"""Regions against a map of single slots, allocators against their own extents, the paper's small numbers exactly."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.memory import Request
from course_lib.memory.allocators import (
    BuddyRegion,
    FitRegion,
    PagedAllocator,
    ReservingAllocator,
    SlotCounts,
    make_allocator,
)

NAMES = ["reserve_max", "reserve_pow2", "reserve_exact", "paged"]

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


@pytest.mark.parametrize("name", NAMES)
@given(steps=STEPS, num_slots=st.integers(70, 300), block_size=st.sampled_from([1, 4, 7, 16]))
@settings(max_examples=80, deadline=None)
def test_the_four_counts_are_those_of_the_region_and_add_up(name, steps, num_slots, block_size):
    allocator = make_allocator(name, num_slots, max_len=60, block_size=block_size)
    tokens, requests = {}, {}
    for number, (what, value, request) in enumerate(steps):
        held = sorted(tokens)
        before = allocator.counts()
        if what == "admit":
            if allocator.admit(number, request):
                tokens[number], requests[number] = request.prompt_len, request
            else:
                assert allocator.counts() == before, "a refusal changes nothing"
        elif held:
            key = held[value % len(held)]
            if what == "release" or tokens[key] == requests[key].total_len:
                allocator.release(key)
                del tokens[key], requests[key]
            elif allocator.grow(key):
                tokens[key] += 1
            else:
                assert allocator.counts() == before
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
    allocator.admit(0, request_)
    allocator.grow(0)
    assert allocator.counts() == SlotCounts(request_.prompt_len + 1, reserved, internal, 0)


def test_orca_max_holds_seven_requests_on_the_papers_machine_exactly():
    """OPT-13B on an A100 40GB, Figs 2 and 13: 15,728 slots hold 7 requests of 2,048, and 8.9% are left over."""
    allocator = make_allocator("reserve_max", 15_728)
    admitted = sum(allocator.admit(key, Request(0.0, 10, 10)) for key in range(20))
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
    paged = PagedAllocator(num_slots=200 * 4, block_size=4)
    assert paged.watermark == 2
    assert paged.admit(0, Request(0.0, 198 * 4, 8))
    assert not paged.admit(1, Request(0.0, 1, 1)), "two free blocks are the watermark"
    paged.release(0)
    assert paged.admit(2, Request(0.0, 200 * 4, 1)), "alone, a request may take all"
    assert not paged.grow(2)


@pytest.mark.parametrize("name", NAMES)
def test_a_request_that_cannot_fit_alone_is_told_apart(name):
    allocator = make_allocator(name, 96, max_len=64, block_size=16)
    assert allocator.can_hold(Request(0.0, 32, 32))
    assert allocator.can_hold(Request(0.0, 48, 49)) is False


def test_a_buddy_region_holds_no_more_than_its_largest_piece():
    assert ReservingAllocator("reserve_exact", 100, 80).can_hold(Request(0.0, 40, 24))
    assert not ReservingAllocator("reserve_exact", 100, 80).can_hold(Request(0.0, 40, 25))
    assert ReservingAllocator("reserve_exact", 100, 80, FitRegion(100, best=True)).can_hold(
        Request(0.0, 40, 25)
    )


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
        (
            lambda: make_allocator("reserve_max", 100, max_len=20).asks_for(Request(0.0, 15, 6)),
            "21 tokens is longer",
        ),
    ],
)
def test_nonsense_is_refused_with_the_value(misuse, said):
    with pytest.raises(ValueError, match=said):
        misuse()


@pytest.mark.parametrize("name", NAMES)
def test_a_request_cannot_grow_past_its_end(name):
    allocator = make_allocator(name, 128, max_len=64)
    allocator.admit(5, Request(0.0, 2, 1))
    assert allocator.grow(5)
    with pytest.raises(ValueError, match="request 5 has all its 3 tokens: release it"):
        allocator.grow(5)
