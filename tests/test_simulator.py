"""The simulator against a slow one that goes step by step, and against the paper's figures."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.memory import (
    ALLOCATORS,
    BuddyRegion,
    PagedAllocator,
    Request,
    Scheduler,
    Stretch,
    alpaca_like,
    serve,
    sharegpt_like,
    simulate,
    simulator,
)
from course_lib.teaching import paper

KINDS = ("token_states", "reserved", "internal", "external")


def slow_simulation(requests, name, num_slots, max_len, block_size, step_seconds, watermark):
    """One step after the other, with lists and counts of its own. The buddy allocator alone is the library's: it has
    a test against single slots."""
    queue = sorted(
        (r for r in requests if can_run(r, name, num_slots, max_len, block_size)),
        key=lambda r: r.arrival_time,
    )
    region, blocks_free = BuddyRegion(num_slots), num_slots // block_size
    spare = int(watermark * (num_slots // block_size))
    waiting, running = [], []  # [request, known tokens, offset or blocks]
    begin, number, preemptions, steps, latencies = 0.0, 0, 0, [], []
    while queue or waiting or running:
        now = begin + number * step_seconds
        if not waiting and not running and queue[0].arrival_time > now:
            begin, number = queue[0].arrival_time, 0
            now = begin
        elif not waiting and not running:
            begin, number = now, 0
        while queue and queue[0].arrival_time <= now:
            arrived = queue.pop(0)
            waiting.append([arrived, arrived.prompt_len, None])
        anybody_lost = False
        if name == "paged":
            index = 0
            while index < len(running):
                entry = running[index]
                needed = -(-entry[1] // block_size) - entry[2]
                if needed > blocks_free:
                    victim = running.pop()
                    blocks_free += victim[2]
                    waiting.insert(0, victim)
                    preemptions, anybody_lost = preemptions + 1, True
                    continue
                blocks_free -= needed
                entry[2] += needed
                index += 1
        while waiting and not anybody_lost:
            request, known, _ = waiting[0]
            if name == "paged":
                needed = -(-known // block_size)
                if needed + (spare if running else 0) > blocks_free:
                    break
                blocks_free -= needed
                place = needed
            else:
                place = region.allocate(plan(name, request, max_len))
                if place is None:
                    break
            waiting[0][2] = place
            running.append(waiting.pop(0))
        counts = dict.fromkeys(KINDS, 0)
        for request, known, place in running:
            total = request.prompt_len + request.output_len
            owned = place * block_size if name == "paged" else plan(name, request, max_len)
            counts["token_states"] += known
            counts["reserved"] += min(owned, total) - known
            counts["internal"] += max(0, owned - total)
        counts["external"] = num_slots - sum(counts.values())
        steps.append((counts, len(running), len(waiting)))
        number += 1
        for entry in list(running):
            entry[1] += 1
            if entry[1] == entry[0].prompt_len + entry[0].output_len:
                running.remove(entry)
                latencies.append(
                    (begin + number * step_seconds - entry[0].arrival_time) / entry[0].output_len
                )
                if name == "paged":
                    blocks_free += entry[2]
                else:
                    region.free(entry[2])
    chosen = [step for step in steps if step[2]] or steps
    shares = (
        {k: sum(counts[k] for counts, _, _ in chosen) / len(chosen) / num_slots for k in KINDS}
        if steps
        else {}
    )
    mean = sum(count for _, count, _ in chosen) / len(chosen) if steps else 0.0
    return shares, mean, preemptions, len(steps), sorted(latencies)


def plan(name, request, max_len):
    if name == "reserve_max":
        return max_len
    if name == "reserve_exact":
        return request.prompt_len + request.output_len
    return min(max_len, request.prompt_len + 2 ** math.ceil(math.log2(request.output_len)))


def can_run(request, name, num_slots, max_len, block_size):
    total = request.prompt_len + request.output_len
    if total > max_len:
        return False
    if name == "paged":
        return math.ceil(total / block_size) <= num_slots // block_size
    return 2 ** math.ceil(math.log2(plan(name, request, max_len))) <= 2 ** int(math.log2(num_slots))


STEP_SECONDS = (
    0.5,
    0.1,
    0.3,
)  # tenths are no sums of powers of two: their steps begin where rounding puts them


@st.composite
def crowds(draw):
    """(requests, step_seconds). Most come within a few steps, so that memory is short, and many exactly when a step
    begins."""
    step = draw(st.sampled_from(STEP_SECONDS))
    times = st.one_of(
        st.integers(0, 6).map(lambda number: number * step),
        st.integers(0, 60).map(lambda number: number * step),
        st.floats(0, 40 * step),
    )
    request = st.builds(Request, times, st.integers(1, 20), st.integers(1, 30))
    return draw(st.lists(request, min_size=draw(st.sampled_from([0, 4, 8])), max_size=14)), step


@pytest.mark.parametrize("name", ALLOCATORS)
@given(
    crowd=crowds(),
    num_slots=st.one_of(st.integers(64, 90), st.integers(16, 150)),
    max_len=st.one_of(st.just(50), st.integers(10, 50)),
    block_size=st.sampled_from([1, 4, 5, 16]),
    watermark=st.sampled_from([0.0, 0.01, 0.15]),
)
@settings(max_examples=400, deadline=None)
def test_jumping_from_event_to_event_is_going_step_by_step(
    name, crowd, num_slots, max_len, block_size, watermark
):
    requests, step_seconds = crowd
    options = dict(
        num_slots=num_slots,
        max_len=max_len,
        block_size=block_size,
        step_seconds=step_seconds,
        watermark=watermark,
    )
    fast = simulate(requests, name, **options)
    shares, mean_running, num_preemptions, num_steps, latencies = slow_simulation(requests, name, **options)
    assert sorted(fast.latencies) == pytest.approx(latencies, abs=1e-9)
    assert fast.shares == pytest.approx(shares, abs=1e-9)
    assert fast.mean_running == pytest.approx(mean_running, abs=1e-9)
    assert (fast.num_preemptions, fast.num_steps) == (num_preemptions, num_steps)
    refused = [r for r in requests if not can_run(r, name, num_slots, max_len, block_size)]
    assert fast.refused == refused and fast.num_finished == len(requests) - len(refused)


@pytest.mark.parametrize("name", ALLOCATORS)
def test_at_the_papers_scale_too(name):
    requests, options = sharegpt_like(60, 2.0, seed=3), dict(num_slots=4000, max_len=2048, block_size=16)
    fast = simulate(requests, name, **options)
    slow = slow_simulation(requests, name, **options, step_seconds=0.05, watermark=0.01)
    assert fast.shares == pytest.approx(slow[0], abs=1e-9)
    assert (fast.mean_running, fast.num_preemptions, fast.num_steps) == (
        pytest.approx(slow[1], abs=1e-9),
        *slow[2:4],
    )
    assert sorted(fast.latencies) == pytest.approx(slow[4], abs=1e-9)


def test_a_latency_is_the_time_from_arrival_to_the_last_token_for_each_token_of_the_output():
    """Two slabs of 100: the third waits for the first, and is given before it here."""
    late, short, long = Request(1.0, 10, 5), Request(0.0, 10, 10), Request(0.0, 10, 40)
    run = simulate(
        [late, short, Request(0.0, 90, 11), long], "reserve_max", num_slots=256, max_len=100, step_seconds=1
    )
    assert run.refused == [Request(0.0, 90, 11)]
    assert run.latencies == pytest.approx([(10 + 5 - 1) / 5, 1.0, 1.0])


@pytest.mark.parametrize("name", ALLOCATORS)
def test_without_jumps_the_stretches_are_single_steps_and_add_up_to_the_same(name):
    requests = sharegpt_like(30, 5.0, seed=2)

    def total(jump):
        scheduler = Scheduler(simulator.make_allocator(name, 4000))
        stretches = list(serve(requests, scheduler, 0.05, jump=jump))
        assert jump or {stretch.num_steps for stretch in stretches} == {1}
        return sum(stretches, Stretch())

    jumped, stepped = total(True), total(False)
    assert (jumped.counts, jumped.num_running, jumped.num_steps) == (
        stepped.counts, stepped.num_running, stepped.num_steps,
    )  # fmt: skip


def test_while_a_stretch_is_held_the_allocator_shows_its_last_step():
    requests = sharegpt_like(30, 5.0, seed=2)
    scheduler = Scheduler(PagedAllocator(4000))
    for stretch in serve(requests, scheduler, 0.05, jump=False):
        assert scheduler.allocator.counts() == stretch.counts
        assert (len(scheduler.running), len(scheduler.waiting)) == (stretch.num_running, stretch.num_waiting)


def test_one_request_alone_by_hand():
    """Blocks of four. Its three steps hold 4, 5 and 6 tokens in one, two and two blocks; it ends at 7 tokens."""
    run = simulate([Request(0.0, 4, 3)], "paged", num_slots=64, block_size=4)
    slots = {
        "token_states": 4 + 5 + 6,
        "reserved": 0 + 2 + 1,
        "internal": 0 + 1 + 1,
        "external": 60 + 56 + 56,
    }
    assert run.shares == {kind: count / (3 * 64) for kind, count in slots.items()}
    assert (run.mean_running, run.num_steps, run.num_finished, run.num_preemptions) == (1.0, 3, 1, 0)


def test_idle_time_is_no_step_and_the_next_request_starts_when_it_arrives():
    requests = [Request(1.0, 4, 3), Request(100.03, 4, 2)]
    run = simulate(requests, "reserve_exact", num_slots=64, max_len=64)
    assert run.num_steps == 5 and run.mean_running == 1.0
    starts = [stretch.start for stretch in run.timeline]
    assert starts[0] == 1.0 and 100.03 in starts


def test_an_arrival_in_the_middle_of_a_step_waits_for_the_next():
    requests = [Request(0.0, 4, 10), Request(0.26, 4, 1)]
    run = simulate(requests, "paged", num_slots=64, step_seconds=0.1)
    joined = next(s.start for s in run.timeline if s.num_running == 2 * s.num_steps)
    assert joined == pytest.approx(0.3)


def test_a_request_that_arrived_in_the_last_step_before_idleness_does_not_turn_the_clock_back():
    requests = [Request(0.0, 4, 1), Request(0.25, 4, 1), Request(0.75, 4, 2), Request(1.4, 4, 1)]
    run = simulate(requests, "paged", num_slots=64, step_seconds=0.5)
    # Steps begin at 0 (request 0), 0.5 (1), 1.0 (2) and 1.5 (2 and 3), not at 0.25.
    assert [(s.start, s.num_running) for s in run.timeline] == [(0.0, 1), (0.5, 1), (1.0, 1), (1.5, 2)]


@given(
    step_seconds=st.sampled_from(STEP_SECONDS),
    begin=st.floats(0, 1e4),
    done=st.integers(0, 500),
    ahead=st.one_of(st.integers(0, 500), st.floats(0, 500)),
)
@settings(max_examples=300, deadline=None)
def test_the_clock_counts_the_steps_that_begin_before_a_time(step_seconds, begin, done, ahead):
    clock = simulator._Clock(step_seconds)
    clock.wait_for(begin)
    clock.num_steps = done
    time = begin + (done + ahead) * step_seconds
    steps = 0
    while begin + (done + steps) * step_seconds < time:
        steps += 1
    assert clock.steps_before(time) == steps


def test_arrivals_behind_a_queue_do_not_cut_a_jump():
    """One slab: whoever comes waits until the first is done, and 200 arrivals are no events."""
    requests = [Request(0.0, 4, 500), *(Request(0.1 + n / 20, 4, 1) for n in range(200))]
    run = simulate(requests, "reserve_max", num_slots=512, max_len=512)
    assert max(stretch.num_steps for stretch in run.timeline) == 497 and run.num_steps == 700


# -- the timeline ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALLOCATORS)
def test_a_timeline_covers_every_step_and_its_shares_add_up(name, monkeypatch):
    monkeypatch.setattr(simulator, "MAX_STRETCHES", 64)
    run = simulate(sharegpt_like(300, 2.0, seed=1), name, num_slots=15_728)
    assert 32 <= len(run.timeline) <= 64
    assert sum(stretch.num_steps for stretch in run.timeline) == run.num_steps
    assert sum(run.shares.values()) == pytest.approx(1.0, abs=1e-12)
    for stretch in run.timeline:
        assert sum(stretch.shares().values()) == pytest.approx(1.0, abs=1e-12)
    starts = [stretch.start for stretch in run.timeline]
    assert starts == sorted(starts)


@pytest.mark.parametrize("name", ALLOCATORS)
def test_the_totals_of_a_timeline_are_those_of_all_its_steps(name, monkeypatch):
    """Merged or not. The slow way is every step as a stretch of its own."""
    monkeypatch.setattr(simulator, "MAX_STRETCHES", 64)
    requests = sharegpt_like(200, 2.0, seed=4)
    run = simulate(requests, name, num_slots=4000)
    steps = list(serve(requests, Scheduler(simulator.make_allocator(name, 4000)), 0.05, jump=False))
    total, expected = sum(run.timeline, Stretch()), sum(steps, Stretch())
    assert (total.counts, total.num_running, total.num_steps) == (
        expected.counts, expected.num_running, expected.num_steps,
    )  # fmt: skip


@pytest.mark.parametrize("name", ALLOCATORS)
def test_the_means_are_those_of_the_timelines_crowded_stretches(name):
    run = simulate(sharegpt_like(100, 2.0, seed=4), name, num_slots=4000)
    assert len(run.timeline) < simulator.MAX_STRETCHES / 2, "nothing is merged"
    crowded = sum((stretch for stretch in run.timeline if stretch.num_waiting), Stretch())
    assert run.shares == crowded.shares()
    assert run.mean_running == crowded.num_running / crowded.num_steps
    nobody_waits = simulate(alpaca_like(50, 1.0, seed=4), name, num_slots=40_000)
    assert not any(stretch.num_waiting for stretch in nobody_waits.timeline)
    assert nobody_waits.shares == sum(nobody_waits.timeline, Stretch()).shares()


def test_all_entries_of_a_timeline_but_the_last_stand_for_equally_many_stretches(monkeypatch):
    monkeypatch.setattr(simulator, "MAX_STRETCHES", 64)
    timeline = simulator._Timeline()
    for number in range(1000):
        timeline.add(Stretch(start=float(number), num_steps=1, num_waiting=number))
        assert len(timeline.kept) <= 64
    assert {entry.num_steps for entry in timeline.kept[:-1]} == {16}
    assert sum(entry.num_steps for entry in timeline.kept) == 1000
    at_the_start = [(entry.start, entry.num_waiting) for entry in timeline.kept]
    assert at_the_start == [(float(number), number) for number in range(0, 1000, 16)]


# -- the paper ------------------------------------------------------------------------------------------------

CHATS = sharegpt_like(3000, paper.SHAREGPT_RATE, seed=1)


@pytest.fixture(scope="module")
def runs():
    return {name: simulate(CHATS, name, num_slots=paper.NUM_SLOTS) for name in ALLOCATORS}


@pytest.mark.parametrize("name", ["reserve_max", "reserve_pow2", "reserve_exact"])
@pytest.mark.parametrize("kind", KINDS)
def test_fig_2_within_eight_points(runs, name, kind):
    assert abs(runs[name].shares[kind] - paper.FIG_2[name][kind]) < 0.08


def test_fig_2_paging_fills_more_than_nine_tenths(runs):
    assert runs["paged"].shares["token_states"] > 0.90


def test_fig_13_seven_slabs_exactly(runs):
    assert runs["reserve_max"].mean_running == 7.0 == paper.FIG_13_SHAREGPT["reserve_max"]
    short = simulate(alpaca_like(3000, paper.ALPACA_RATE, seed=1), "reserve_max", num_slots=paper.NUM_SLOTS)
    assert short.mean_running == 7.0 == paper.FIG_13_ALPACA["reserve_max"]


def test_fig_13_in_the_papers_order_and_within_a_tenth_for_what_reserves(runs):
    running = [runs[name].mean_running for name in ALLOCATORS]
    assert running == sorted(running) and running[-1] > 2 * running[-2]
    for name in ("reserve_pow2", "reserve_exact"):
        assert runs[name].mean_running == pytest.approx(paper.FIG_13_SHAREGPT[name], rel=0.1)


def test_a_watermark_saves_preemptions(runs):
    without = simulate(CHATS, "paged", num_slots=paper.NUM_SLOTS, watermark=0.0)
    much = simulate(CHATS, "paged", num_slots=paper.NUM_SLOTS, watermark=0.2)
    assert without.num_preemptions > runs["paged"].num_preemptions > much.num_preemptions
    assert much.mean_running < runs["paged"].mean_running


# -- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALLOCATORS)
def test_what_cannot_run_is_refused_with_the_limit_and_the_rest_is_served(name):
    requests = [Request(0.0, 10, 10), Request(1.0, 300, 1), Request(2.0, 10, 10), Request(3.0, 100, 50)]
    run = simulate(requests, name, num_slots=128, max_len=128)
    assert run.refused == [requests[1], requests[3]] and run.num_finished == 2
    assert run.reasons == [
        "a request of 301 tokens is longer than max_len 128",
        "a request of 150 tokens is longer than max_len 128",
    ]


def test_what_is_longer_than_the_region_is_refused_too():
    run = simulate([Request(0.0, 100, 60), Request(0.0, 9, 9)], "paged", num_slots=128, max_len=1000)
    assert run.reasons == ["a request of 160 tokens needs 10 blocks of 16; there are 8"]
    assert run.num_finished == 1
    run = simulate([Request(0.0, 100, 60)], "reserve_exact", num_slots=255, max_len=1000)
    assert run.reasons == [
        "reserve_exact wants a piece of 256 slots for a request of 160 tokens; the largest in a region of 255 has 128"
    ]


def test_nothing_to_do_is_no_error():
    for requests in ([], [Request(0.0, 500, 500)]):
        run = simulate(requests, "paged", num_slots=64)
        assert (run.shares, run.mean_running, run.num_steps, run.timeline) == ({}, 0.0, 0, [])


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "16"])
@pytest.mark.parametrize("argument", ["num_slots", "max_len", "block_size"])
def test_numbers_that_count_are_whole(argument, value):
    options = dict(num_slots=64) | {argument: value}
    for name in ["paged"] if argument == "block_size" else ["reserve_max", "paged"]:
        for requests in ([], [Request(0.0, 1, 1)]):
            with pytest.raises(ValueError, match=f"{argument} must be .* got {value!r}"):
                simulate(requests, name, **options)


@pytest.mark.parametrize("value", [-0.01, 1, 1.5, math.nan, None, "1%"])
def test_a_watermark_is_a_share(value):
    with pytest.raises(ValueError, match=f"watermark must be .* got {value!r}"):
        simulate([], "paged", num_slots=64, watermark=value)


@pytest.mark.parametrize("value", [0, -0.1, math.inf, math.nan, "fast"])
def test_a_step_takes_a_positive_time(value):
    with pytest.raises(ValueError, match=f"step_seconds must be .* got {value!r}"):
        simulate([Request(0.0, 1, 1)], "paged", num_slots=64, step_seconds=value)


def test_an_unknown_allocator_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown allocator 'slabs': one of reserve_max"):
        simulate([], "slabs", num_slots=64)
