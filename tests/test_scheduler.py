"""Who runs, who waits, who is preempted: small scenes step by step, and a state machine over random ones."""

import copy
import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from course_lib.memory import ALLOCATORS, PagedAllocator, Request, Scheduler, make_allocator


def paged(num_blocks, block_size=4, watermark=0.0, **limits):
    return Scheduler(PagedAllocator(num_blocks * block_size, block_size, watermark), **limits)


def add(scheduler, *requests):
    for key, (prompt_len, output_len) in enumerate(requests):
        scheduler.add(key, Request(0.0, prompt_len, output_len))


def run(scheduler, num_steps):
    """The steps, each with the keys that made a token in it. Whoever has all its tokens is finished."""
    history = []
    for _ in range(num_steps):
        step = scheduler.schedule()
        made = scheduler.complete(step)
        for key in made:
            progress = scheduler.running[key]
            if progress.num_known == progress.request.total_len:
                scheduler.finish(key)
        history.append((step, made))
    return history


def waiting(scheduler):
    return list(scheduler.waiting)


def test_the_first_step_computes_the_prompt_and_makes_a_token():
    scheduler = paged(8)
    add(scheduler, (6, 3))
    (first, made), (second, made_too) = run(scheduler, 2)
    assert (first.num_new, first.admitted, made) == ({0: 6}, [0], [0])
    assert (second.num_new, second.admitted, made_too) == ({0: 1}, [], [0])
    progress = scheduler.running[0]
    assert (progress.num_known, progress.num_computed, progress.num_held) == (8, 7, 7)


def test_a_request_runs_as_many_steps_as_it_makes_tokens_and_its_slots_are_free_again():
    scheduler = paged(8)
    add(scheduler, (6, 3))
    run(scheduler, 2)
    assert scheduler.running
    run(scheduler, 1)
    assert not scheduler.running and scheduler.allocator.pool.num_free == 8


def test_nobody_overtakes_a_large_request_at_the_head():
    scheduler = paged(4)
    add(scheduler, (8, 2), (12, 1), (1, 1))
    run(scheduler, 1)
    assert list(scheduler.running) == [0] and waiting(scheduler) == [1, 2]


def test_a_long_prompt_is_computed_in_chunks_beside_those_that_decode():
    scheduler = paged(20, max_num_batched_tokens=10)
    add(scheduler, (3, 9), (25, 2))
    steps = run(scheduler, 4)
    assert [step.num_new for step, _ in steps] == [{0: 3, 1: 7}, {0: 1, 1: 9}, {0: 1, 1: 9}, {0: 1, 1: 1}]
    assert [made for _, made in steps] == [[0], [0], [0, 1], [0, 1]]


def test_what_runs_comes_before_what_waits_when_tokens_are_short():
    scheduler = paged(20, max_num_batched_tokens=2)
    add(scheduler, (1, 9), (1, 9), (1, 9))
    steps = run(scheduler, 3)
    assert [list(step.num_new) for step, _ in steps] == [[0, 1], [0, 1], [0, 1]]
    assert waiting(scheduler) == [2]


def test_no_more_than_max_num_seqs_run():
    scheduler = paged(20, max_num_seqs=2)
    add(scheduler, (1, 1), (1, 3), (1, 1))
    assert [list(step.num_new) for step, _ in run(scheduler, 2)] == [[0, 1], [1, 2]]


def test_the_last_come_is_preempted_and_computes_anew_what_it_knew():
    scheduler = paged(4)
    add(scheduler, (4, 9), (7, 5))
    steps = run(scheduler, 3)  # 0 takes its second block in step 2, 1 would need a third in step 3
    assert [step.preempted for step, _ in steps] == [[], [], [1]]
    assert list(scheduler.running) == [0] and scheduler.num_preemptions == 1
    victim = next(iter(scheduler.waiting.values()))
    assert (victim.key, victim.num_known, victim.num_computed, victim.num_held) == (1, 9, 0, 0)
    later = run(scheduler, 9)
    anew = next(step for step, _ in later if 1 in step.admitted)
    assert anew.num_new[1] == 9, "prompt and the two tokens that it had made"
    assert sum(1 in made for _, made in [*steps, *later]) == 5, "and no token is made twice"


def test_the_last_come_gives_way_to_those_before_it_in_the_same_step():
    scheduler = paged(3)
    add(scheduler, (4, 8), (4, 8), (4, 8))
    first, second = run(scheduler, 2)
    assert first[0].admitted == [0, 1, 2]
    assert second[0].preempted == [2, 1], "2 for 0's new block; then 1 finds none and is itself the last"
    assert second[0].num_new == {0: 1} and waiting(scheduler) == [1, 2], "in the order of their arrival"


def test_a_victim_does_not_come_back_in_the_step_that_preempts_it():
    scheduler = paged(6)
    add(scheduler, (4, 9), (12, 9), (8, 9), (1, 1))
    steps = run(scheduler, 2)
    assert steps[1][0].preempted == [2] and steps[1][0].admitted == []
    assert waiting(scheduler) == [2, 3]


def test_a_watermark_is_left_free_for_those_that_run():
    scheduler = paged(10, watermark=0.2)
    add(scheduler, (4, 9), (28, 2), (4, 1))
    run(scheduler, 1)
    assert list(scheduler.running) == [0, 1] and waiting(scheduler) == [2]


def test_a_request_that_could_never_run_is_refused_and_the_rest_goes_on():
    scheduler = paged(4)
    scheduler.add(0, Request(0.0, 3, 1))
    with pytest.raises(ValueError, match="17 tokens needs 5 blocks of 4; there are 4"):
        scheduler.add(1, Request(0.0, 16, 1))
    assert waiting(scheduler) == [0]


def test_abort_frees_what_runs_and_forgets_what_waits():
    scheduler = paged(4)
    add(scheduler, (8, 3), (8, 3), (4, 1))
    run(scheduler, 1)
    assert list(scheduler.running) == [0, 1]
    scheduler.abort(2)
    scheduler.abort(0)
    assert list(scheduler.running) == [1] and not scheduler.waiting
    assert scheduler.allocator.pool.num_free == 2
    with pytest.raises(ValueError, match="request 2 neither runs nor waits"):
        scheduler.abort(2)


def test_a_shared_block_is_copied_before_it_is_written():
    scheduler = paged(8)
    add(scheduler, (6, 3))
    run(scheduler, 1)
    table = scheduler.allocator.tables[0]
    twin = table.fork()
    (step, _), *_ = run(scheduler, 1)
    assert step.copies == [(twin.block_ids[-1], table.block_ids[-1])]
    assert twin.block_ids[-1] != table.block_ids[-1] and twin.block_ids[0] == table.block_ids[0]


def test_an_abort_between_schedule_and_complete_does_no_harm():
    scheduler = paged(8)
    add(scheduler, (4, 3), (4, 3))
    step = scheduler.schedule()
    scheduler.abort(0)
    assert scheduler.complete(step) == [1]


def test_a_key_is_taken_as_long_as_its_request_runs_or_waits():
    scheduler = paged(2)
    add(scheduler, (5, 2), (4, 2))
    run(scheduler, 1)
    assert waiting(scheduler) == [1]
    for key in (0, 1):
        with pytest.raises(ValueError, match=f"request {key} runs or waits already"):
            scheduler.add(key, Request(0.0, 1, 1))
    run(scheduler, 1)
    scheduler.add(0, Request(0.0, 1, 1))


@pytest.mark.parametrize("name", ["max_num_seqs", "max_num_batched_tokens"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_limits_are_whole_numbers(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .* got {value}"):
        paged(4, **{name: value})


def test_quiet_steps_end_where_something_happens():
    scheduler = paged(5)
    add(scheduler, (4, 16), (4, 16))
    run(scheduler, 1)
    assert scheduler.quiet_steps(3) == 3
    assert scheduler.quiet_steps(100) == 4, "a second block each fits, a third does not"
    fresh = paged(5)
    add(fresh, (4, 16))
    fresh.schedule()
    assert fresh.quiet_steps(9) == 0, "the prompt is not computed"
    budget = paged(5, max_num_batched_tokens=3)
    add(budget, (4, 16))
    run(budget, 2)
    assert budget.quiet_steps(9) == 0, "somebody may wait who was not tried"


class Scheduling(RuleBasedStateMachine):
    """Random requests on a small memory. The machine keeps its own account of what must hold."""

    @initialize(
        name=st.sampled_from([*ALLOCATORS, "paged", "paged"]),  # only paging preempts
        num_slots=st.integers(40, 64),
        block_size=st.sampled_from([1, 4, 7]),
        watermark=st.sampled_from([0.0, 0.1]),
        max_num_seqs=st.sampled_from([math.inf, 3, 1]),
        max_num_batched_tokens=st.sampled_from([math.inf, 30, 8, 1]),
    )
    def begin(self, name, num_slots, block_size, watermark, **limits):
        allocator = make_allocator(name, num_slots, max_len=30, block_size=block_size, watermark=watermark)
        self.scheduler, self.name = Scheduler(allocator, **limits), name
        self.requests, self.made, self.num_computed, self.next_key = {}, {}, {}, 0

    @rule(lengths=st.lists(st.tuples(st.integers(1, 10), st.integers(1, 20)), min_size=1, max_size=5))
    def add(self, lengths):
        for prompt_len, output_len in lengths:
            request = Request(0.0, prompt_len, output_len)
            self.scheduler.add(self.next_key, request)
            self.requests[self.next_key], self.made[self.next_key] = request, 0
            self.num_computed[self.next_key] = 0
            self.next_key += 1

    @rule()
    def step(self):
        scheduler = self.scheduler
        before = set(scheduler.running)
        step = scheduler.schedule()
        assert sum(step.num_new.values()) <= scheduler.max_num_batched_tokens
        assert set(step.num_new) <= set(scheduler.running)
        assert all(count > 0 for count in step.num_new.values())
        assert not (step.preempted and step.admitted), "a victim comes back at once, or somebody overtakes it"
        assert set(scheduler.running) == (before | set(step.admitted)) - set(step.preempted)
        for key in step.preempted:
            self.num_computed[key] = 0
        for key, count in step.num_new.items():
            self.num_computed[key] += count
        if not scheduler.running:
            assert not scheduler.waiting, "an empty machine admits whoever is first"
        for key in scheduler.complete(step):
            self.made[key] += 1
            assert self.num_computed[key] == self.requests[key].prompt_len + self.made[key] - 1
            if self.made[key] == self.requests[key].output_len:
                scheduler.finish(key)
                del self.requests[key]
        self.last_step = step

    @rule(limit=st.integers(1, 20))
    @precondition(lambda self: hasattr(self, "last_step") and self.scheduler.running)
    def skip(self, limit):
        """Some quiet steps at once are these steps one by one."""
        before = set(self.scheduler.running)
        self.step()
        running = self.scheduler.running.values()
        limit = min([limit, *(p.request.total_len - p.num_known for p in running)])
        took_part = (before | set(self.last_step.admitted)) - set(self.last_step.preempted)
        if not running or limit == 0 or took_part != set(self.scheduler.running):
            return  # somebody left: the head of the queue must be tried first
        num_steps = self.scheduler.quiet_steps(limit)
        slow = copy.deepcopy(self.scheduler)
        total = None
        for _ in range(num_steps):
            step = slow.schedule()
            assert not step.admitted and not step.preempted
            assert step.num_new == dict.fromkeys(self.scheduler.running, 1)
            total = slow.allocator.counts() if total is None else total + slow.allocator.counts()
            assert len(slow.complete(step)) == len(slow.running)
        if num_steps:
            assert self.scheduler.skip(num_steps) == total
            for key, progress in self.scheduler.running.items():
                assert progress == slow.running[key]
                self.made[key] += num_steps
                self.num_computed[key] += num_steps
            for key in [k for k in self.scheduler.running if self.made[k] == self.requests[k].output_len]:
                self.scheduler.finish(key)
                del self.requests[key]

    @rule(choice=st.integers(0, 99))
    @precondition(lambda self: self.requests)
    def abort(self, choice):
        key = sorted(self.requests)[choice % len(self.requests)]
        self.scheduler.abort(key)
        del self.requests[key]

    @invariant()
    def everybody_is_somewhere(self):
        if not hasattr(self, "scheduler"):
            return
        waiting_keys = waiting(self.scheduler)
        assert sorted([*self.scheduler.running, *waiting_keys]) == sorted(self.requests)
        assert [*self.scheduler.running, *waiting_keys] == sorted(self.requests), "in the order of arrival"
        assert len(self.scheduler.running) <= self.scheduler.max_num_seqs

    @invariant()
    def the_allocator_holds_what_the_scheduler_thinks(self):
        if not hasattr(self, "scheduler"):
            return
        allocator = self.scheduler.allocator
        held = allocator.tables if self.name == "paged" else allocator.slabs
        assert {key: item.num_tokens for key, item in held.items()} == {
            key: progress.num_held for key, progress in self.scheduler.running.items()
        }
        if self.name == "paged":
            allocator.pool.check(table.block_ids for table in allocator.tables.values())

    def teardown(self):
        """Nobody starves: with nothing new, everything ends."""
        if hasattr(self, "scheduler"):
            for _ in range(3000):
                if not self.requests:
                    return
                self.step()
            raise AssertionError(f"{len(self.requests)} requests never end")


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)
