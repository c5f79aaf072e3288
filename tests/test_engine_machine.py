"""The engine under random traffic: a long run, and a state machine that Hypothesis drives. Whatever came, ran, was
preempted or aborted: tokens are those of the request alone, and every slot is somebody's or free."""

import gc
import os
import random
import types

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from test_engine import (
    Alone,
    assert_all_is_given_back,
    drain,
    make,
    random_prompts,
    slots_by_hand,
    with_eos,
)

from course_lib.serving import SamplingParams


def random_request(dice):
    """Short, and often the beginning of another."""
    base = random_prompts(dice.randrange(3), [24])[0]
    prompt = base[: dice.randint(0, 14)] + [dice.randrange(97) for _ in range(dice.randint(1, 6))]
    return prompt, SamplingParams(
        max_tokens=dice.randint(1, 9),
        temperature=dice.choice([0.0, 0.8]),
        n=dice.choice([1, 1, 1, 2, 3]),
        seed=dice.randrange(3),
        ignore_eos=dice.random() < 0.5,
    )


EOS = (2, 71, 11, 5, 41)  # some that this model likes to write


def reachable(root, *, but):
    """How many objects hang on `root`, those in `but` and what belongs to Python itself left out."""
    skip, seen = (type, types.ModuleType, types.FunctionType), {id(each) for each in but}
    found, count = [root], 0
    while found:
        each = found.pop()
        if id(each) not in seen and not isinstance(each, skip):
            seen.add(id(each))
            count += 1
            found += gc.get_referents(each)
    return count


def traffic(engine, dice, total):
    """So many requests come, run and are given up at random, until none is left: what was sent, done and aborted."""
    sent, done, aborted = {}, {}, set()
    for _ in range(20 * total):
        for _ in range(min(total - len(sent), dice.randint(0, 2))):
            prompt, params = random_request(dice)
            sent[engine.add_request(prompt, params)] = prompt, params
        if engine.jobs and dice.random() < 0.03:
            victim = dice.choice(sorted(engine.jobs))
            engine.abort(victim)
            aborted.add(victim)
        done |= {output.request_id: output for output in engine.step() if output.finished}
        engine.allocator.pool.check(table.block_ids for table in engine.allocator.tables.values())
        if len(done) + len(aborted) == total:
            break
    assert done.keys() | aborted == sent.keys() and not done.keys() & aborted
    assert_all_is_given_back(engine)
    return sent, done, aborted


def test_nothing_leaks_in_a_long_run(tiny_model):
    """No block and no memory. SOAK says how many requests; `make soak` takes 10,000."""
    total, dice, alone = int(os.environ.get("SOAK", "500")), random.Random(21), Alone(tiny_model)
    engine = make(
        with_eos(tiny_model, *EOS),
        num_slots=48,
        max_num_seqs=6,
        max_num_batched_tokens=12,
        enable_prefix_caching=True,
    )
    traffic(engine, dice, 100)
    before = reachable(engine, but=[engine.model])
    sent, done, aborted = traffic(engine, dice, total)
    after = reachable(engine, but=[engine.model])
    assert after < before + 100, (
        f"{after - before} objects more hang on an idle engine after {total} requests"
    )
    stats = engine.stats
    assert stats.num_preemptions > total / 50 and stats.num_cached_tokens > total / 5
    assert len(aborted) > total / 100
    for request_id in sorted(done)[::10]:
        alone.hold(done[request_id], *sent[request_id], EOS)
    print(
        f"{total} requests: {len(done)} done and {len(aborted)} aborted, {stats.num_preemptions} preemptions, "
        f"{stats.num_cached_tokens} cached tokens; objects that hang on the idle engine: {before} after 100 requests, "
        f"{after} at the end"
    )


class Traffic(RuleBasedStateMachine):
    """Requests come, run, are preempted and aborted, in an order that Hypothesis makes up."""

    def __init__(self, model, alone):
        super().__init__()
        self.model, self.alone = model, alone

    @initialize(
        allocator=st.sampled_from(["paged", "paged", "paged", "reserve_max"]),
        num_slots=st.integers(32, 72),
        block_size=st.sampled_from([1, 3, 4, 8]),
        enable_prefix_caching=st.booleans(),
        max_num_seqs=st.sampled_from([3, 5]),
        max_num_batched_tokens=st.sampled_from([5, 9, 40]),
    )
    def begin(self, allocator, num_slots, enable_prefix_caching, **options):
        self.engine = make(
            self.model,
            num_slots,
            allocator=allocator,
            max_model_len=30,
            enable_prefix_caching=enable_prefix_caching and allocator == "paged",
            **options,
        )
        self.sent, self.done, self.shown = {}, {}, {}

    @rule(seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=3))
    def add(self, seeds):
        for seed in seeds:
            prompt, params = random_request(random.Random(seed))
            self.sent[self.engine.add_request(prompt, params)] = prompt, params

    @rule(count=st.integers(1, 6))
    @precondition(lambda self: self.engine.has_unfinished())
    def step(self, count):
        for _ in range(count):
            for output in self.engine.step():
                assert output.request_id not in self.done
                shown = self.shown.get(output.request_id, [])
                now = [each.token_ids for each in output.outputs]
                assert all(new[: len(old)] == old for old, new in zip(shown, now, strict=False))
                self.shown[output.request_id] = now
                if output.finished:
                    self.done[output.request_id] = output

    @rule(layer=st.integers(-1, 2))
    @precondition(lambda self: self.engine.has_unfinished())
    def interrupted(self, layer):
        """A step that is broken off in one of the layers, or (-1) before any key is written."""

        def broken(*arguments):
            if layer == -1 or arguments[0] == layer:
                raise KeyboardInterrupt
            return attend(*arguments)

        store, attend = self.engine.store, self.engine.store.attend
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(store, "begin_step" if layer == -1 else "attend", broken)
            self.engine.step()

    @rule(choice=st.integers(0, 99))
    @precondition(lambda self: self.engine.has_unfinished())
    def abort(self, choice):
        request_id = sorted(self.engine.jobs)[choice % len(self.engine.jobs)]
        self.engine.abort(request_id)
        del self.sent[request_id]

    @invariant()
    def every_slot_is_somebodys_or_free(self):
        if not hasattr(self, "engine"):
            return
        engine, stats = self.engine, self.engine.stats
        if hasattr(engine.allocator, "pool"):
            engine.allocator.pool.check(table.block_ids for table in engine.allocator.tables.values())
        counts = stats.slots_used, stats.slots_reserved, stats.slots_free
        assert min(counts) >= 0 and sum(counts) == engine.allocator.num_slots
        assert stats.slots_free == slots_by_hand(engine)[2]
        assert engine.jobs.keys() | self.done.keys() == self.sent.keys()
        keys = [*engine.scheduler.running, *engine.scheduler.waiting]
        assert sorted(keys) == sorted(engine.sequences)

    def teardown(self):
        if hasattr(self, "engine"):
            self.done |= drain(self.engine)
            assert self.done.keys() == self.sent.keys()
            for request_id, output in self.done.items():
                self.alone.hold(output, *self.sent[request_id], EOS)
            assert_all_is_given_back(self.engine)


def test_random_traffic(tiny_model):
    machines, alone = [], Alone(tiny_model)

    def begin():
        machines.append(Traffic(with_eos(tiny_model, *EOS), alone))
        return machines[-1]

    run_state_machine_as_test(
        begin, settings=settings(max_examples=250, stateful_step_count=20, deadline=None)
    )
    stats = [machine.engine.stats for machine in machines if hasattr(machine, "engine")]
    assert sum(each.num_preemptions > 0 for each in stats) > 20
    assert sum(each.num_cached_tokens > 0 for each in stats) > 20
