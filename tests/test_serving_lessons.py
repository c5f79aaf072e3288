"""What notebooks 00, 07 and 08 show of the engine: the block map, the timeline, traffic, and what sharing saves."""

import statistics

import pytest
from matplotlib.colors import to_rgba
from test_engine import make

from course_lib.memory import Request
from course_lib.serving import LLMEngine, SamplingParams, beam_search, cost
from course_lib.teaching import explorers, plots, serving_runs, timeline
from course_lib.teaching.explorers.serving import make_timeline
from course_lib.teaching.plots.serving import LOOKS

NUMBERS = " ".join(map(str, range(3, 18))) + " "  # a text of 15 tokens, for a tokenizer of numbers


def bundle_of(shown):
    return shown._repr_mimebundle_()


# -- the block map of notebook 00 -----------------------------------------------------------------------------


@pytest.fixture
def busy(real):
    """Two requests at work on ten blocks of 16, two steps old: prompts of 7 and of 30 tokens."""
    model, tokenizer = real
    engine = LLMEngine(model, tokenizer, kv_cache_bytes=10 * 16 * 46_080)
    for length in (7, 30):
        engine.add_request(engine.encode(serving_runs.TEXT * 3)[:length], SamplingParams(max_tokens=9))
    engine.step()
    engine.step()
    return engine


def test_the_block_map_shows_each_token_in_its_slot_and_whose_it_is(busy):
    picture = plots.block_map(busy, ["ann", "bob"])
    assert picture.alt.startswith(
        "The KV cache: 10 blocks of 16 slots, a row each. Ann: 8 tokens in 1 block. Bob: 31 tokens in 2"
    )
    assert "7 blocks are free." in picture.alt
    (axes,) = picture.axes
    cells = {(int(p.get_x()), int(p.get_y())): p for p in axes.patches}
    assert len(cells) == 160
    owners = {tuple(map(int, (x, y))): p.get_facecolor() for (x, y), p in cells.items() if not p.get_hatch()}
    free = to_rgba("#F1F1F1")
    for number, (key, length) in enumerate([(0, 8), (1, 31)]):
        mine = {at for at, color in owners.items() if color == to_rgba(plots.request_color(number))}
        table = busy.allocator.tables[key]
        assert mine == {(table.slot(p) % 16, table.slot(p) // 16) for p in range(length)}
    assert sum(color == free for color in owners.values()) == 7 * 16
    assert sum(bool(p.get_hatch()) for p in cells.values()) == 48 - 8 - 31, "taken, still empty"
    words = [text.get_text() for text in axes.texts if not text.get_text().startswith("block ")]
    assert len(words) == 39 and words[:3] == ["The", "quick", "brown"]


def test_answers_are_printed_and_the_last_picture_is_of_a_full_pool(real, capsys, monkeypatch):
    model, tokenizer = real
    shown = []
    monkeypatch.setattr(explorers.kv_cache, "display", shown.append)
    engine = LLMEngine(model, tokenizer, kv_cache_bytes=10 * 16 * 46_080)
    asked = {"ann": "Write a poem about the sea.", "bob": "What is 2+2?"}
    outputs = explorers.answers(engine, asked, max_tokens=20)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("ann: ") and "sea" in printed[0] and "4" in printed[-1]
    assert [output.finished for output in outputs] == [True, True]
    data, _ = bundle_of(shown[0])
    assert set(data) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert data["text/plain"] not in shown[0].widget.children[0].value, "the picture was redrawn"
    last = shown[0].widget.children[0].value
    assert "6 blocks are free" in last and "Ann: " in last and "Bob: " in last, (
        "before bob's two are given back"
    )
    assert engine.allocator.pool.num_free == 10


# -- the timeline ---------------------------------------------------------------------------------------------


def test_a_timeline_tells_what_each_request_does_in_each_step():
    """Two blocks of three slots: whoever needs a second block takes it from the last come."""
    requests = [Request(0, 2, 3), Request(1, 2, 3), Request(1, 3, 2)]
    run = timeline.timeline(requests, "paged", num_slots=6, max_len=6, block_size=3)
    rows = {key: [states.get(key, "-") for states in run.states] for key in range(3)}
    assert rows == {
        0: ["prefill", "decode", "decode", "-", "-", "-"],
        1: ["-", "prefill", "preempted", "prefill", "decode", "-"],  # 0 needs its block in step 2
        2: ["-", "waits", "waits", "prefill", "preempted", "prefill"],  # and 1 needs that of 2 in step 4
    }
    assert run.num_new == [2, 1 + 2, 1, 3 + 3, 1, 4]
    assert (run.num_preemptions, run.num_recomputed) == (2, 2 + 3)
    assert run.mean_wait() == pytest.approx(2 / 3)
    assert run.mean_running() == pytest.approx((1 + 2 + 1 + 2 + 1 + 1) / 6)


def test_a_prompt_in_chunks_is_prefill_until_its_last_chunk_is_in():
    run = timeline.timeline(
        [Request(0, 10, 2)], "paged", num_slots=16, max_len=16, block_size=4, max_num_batched_tokens=4
    )
    assert [states[0] for states in run.states] == ["prefill", "prefill", "prefill", "decode"]
    assert run.num_new == [4, 4, 2, 1]


@pytest.mark.parametrize("allocator", ["reserve_max", "paged"])
def test_the_picture_of_a_timeline_has_a_box_for_each_time_in_a_state(allocator):
    run = make_timeline(allocator, every=1, slabs=2, budget=64)
    picture = plots.timeline(run, allocator)
    boxes = {state: picture.axes[0].collections[number].get_paths() for number, state in enumerate(LOOKS)}
    for state, paths in boxes.items():
        drawn = sum(round(path.get_extents().width) for path in paths)
        assert drawn == sum(each == state for states in run.states for each in states.values())
    told = f"{run.num_preemptions} preemptions, after" if run.num_preemptions else "No preemptions."
    assert f"served in {run.num_steps} steps" in picture.alt and told in picture.alt
    assert (allocator == "paged") == bool(run.num_preemptions)


def test_less_memory_more_preemptions_and_a_smaller_budget_a_shorter_fullest_step():
    runs = [make_timeline("paged", 0, slabs, 512) for slabs in (1, 2, 8)]
    assert runs[0].num_preemptions > runs[1].num_preemptions > runs[2].num_preemptions == 0
    assert runs[0].num_steps > runs[1].num_steps > runs[2].num_steps
    assert max(make_timeline("paged", 0, 2, 32).num_new) == 32
    assert make_timeline("reserve_max", 0, 2, 512).mean_running() <= 2


# -- traffic on a real engine ---------------------------------------------------------------------------------


def test_a_run_counts_what_the_engine_did(tiny_model):
    engine = make(tiny_model)
    prompts, params = (
        [[1, 2, 3], [4, 5, 6, 7, 8]],
        [
            SamplingParams(max_tokens=4, ignore_eos=True),
            SamplingParams(max_tokens=2, ignore_eos=True),
        ],
    )
    run = serving_runs.serve(engine, prompts, params)
    alone = [
        engine.generate([p], one)[0].outputs[0].token_ids for p, one in zip(prompts, params, strict=True)
    ]
    assert run.outputs == alone and run.num_tokens == 6
    assert run.running == [2, 1, 1, 0], "after each step"
    assert run.num_batched_tokens == 8 + 2 + 1 + 1
    assert 0 < run.first_token[0] == run.first_token[1] < run.seconds
    assert run.tokens_per_second == pytest.approx(6 / run.seconds)
    assert run.mean_running == statistics.mean(run.running)


def test_a_prompt_that_arrives_goes_in_whole_or_in_chunks(tiny_model, monkeypatch):
    monkeypatch.setattr(serving_runs, "TEXT", NUMBERS)
    for budget, expected in [(128, [4, 4, 4 + 40, 5, 5]), (14, [4, 4, 14, 14, 14, 14, 5])]:
        engine = make(tiny_model, max_num_seqs=8, max_num_batched_tokens=budget)
        counts, milliseconds = serving_runs.prompt_arrives(engine, 4, 40, arrival=2, num_steps=len(expected))
        assert counts == expected
        assert len(milliseconds) == len(counts) and min(milliseconds) > 0


def test_what_sharing_saves_is_what_two_lists_of_blocks_say(tiny_model):
    """A prompt of 10 in blocks of 4: two full blocks are shared, for three outputs of 6 tokens."""
    engine = make(tiny_model)
    count = serving_runs.BlockCount(engine)
    engine.generate(
        [list(range(3, 13))], SamplingParams(n=3, max_tokens=6, ignore_eos=True, seed=1, temperature=1.0)
    )
    # After the prompt, tokens 11 .. 15 of each are written: to 12 there are three blocks each, then four.
    assert count.held == [3, 5, 5, 8, 8, 8]
    assert count.unshared == [3, 9, 9, 12, 12, 12]
    assert count.saved == pytest.approx(1 - 37 / 57)


def test_counting_blocks_without_a_model_finds_what_the_engine_holds(tiny_model):
    requests = [Request(0.0, 10, 6), Request(0.0, 3, 9), Request(0.0, 8, 2), Request(0.0, 17, 12)]
    for n in (1, 2, 5):
        engine = make(tiny_model, max_num_seqs=32)
        count = serving_runs.BlockCount(engine)
        prompts = [
            [3 + (number + place) % 90 for place in range(r.prompt_len)] for number, r in enumerate(requests)
        ]
        many = [SamplingParams(n=n, max_tokens=r.output_len, ignore_eos=True, seed=1) for r in requests]
        engine.generate(prompts, many)
        assert engine.stats.num_preemptions == 0
        assert count.saved == pytest.approx(serving_runs.saved_by_sharing(requests, n, block_size=4))


def test_beams_are_counted_too(tiny_model):
    engine = make(tiny_model)
    count = serving_runs.BlockCount(engine)
    beam_search(engine, list(range(3, 13)), 4, max_tokens=12)
    assert len(count.held) == 12 and count.held[0] == count.unshared[0] == 3
    assert all(held <= unshared for held, unshared in zip(count.held, count.unshared, strict=True))
    assert count.saved > 0.3


def test_users_with_a_shared_prompt_compute_it_once_when_it_is_cached(tiny_model, monkeypatch):
    monkeypatch.setattr(serving_runs, "TEXT", NUMBERS)
    computed = {}
    for caching in (False, True):
        engine = make(tiny_model, enable_prefix_caching=caching, max_num_seqs=8, max_num_batched_tokens=64)
        run = serving_runs.with_a_shared_prompt(
            engine, [20 + n % 70 for n in range(64)], 3, question_len=5, max_tokens=2
        )
        computed[caching] = run.num_batched_tokens
    assert computed == {False: 3 * (64 + 5 + 1), True: 64 + 3 * (5 + 1)}


# -- recompute or swap ----------------------------------------------------------------------------------------


def test_swapping_is_slow_with_small_blocks_and_recomputing_does_not_know_of_them():
    room = dict(bytes_per_token=819_200, prefill_rate=6000, link_rate=32e9, seconds_per_copy=4e-4)
    prices = [cost.recompute_or_swap(256, size, **room) for size in (1, 16, 256)]
    assert len({recompute for recompute, _ in prices}) == 1
    assert [swap for _, swap in prices] == pytest.approx(
        [
            2 * (256 * 4e-4 + 256 * 819_200 / 32e9),
            2 * (16 * 4e-4 + 256 * 819_200 / 32e9),
            2 * (4e-4 + 256 * 819_200 / 32e9),
        ]
    )
    picture = plots.payback({1: 43.0, 16: 43.0}, {32e9: {1: 218.0, 16: 26.0}})
    assert "Recompute: 43" in picture.alt and "Swap over 32 GB/s: 218 at 1, 26 at 16" in picture.alt


def test_the_latency_picture_says_which_rate_each_keeps_up_with():
    lines = {"reserve_max": {0.5: 0.05, 1.0: 0.7}, "paged": {0.5: 0.05, 1.0: 0.06}}
    picture = plots.latency(lines, limit=0.1)
    assert "reserve the maximum up to 0.5" in picture.alt and "paged up to 1 requests a second" in picture.alt
    assert len(picture.axes[0].lines) == 3


def test_the_picture_of_gaps_names_the_longest_step():
    picture = plots.token_gaps({"whole": [10.0, 11.0, 300.0], "in chunks": [10.0, 40.0, 41.0]}, arrival=2)
    assert (
        "whole, the longest step 300 ms, the median 11 ms; in chunks, the longest step 41 ms" in picture.alt
    )
