"""Figures that stand in the prose of notebooks 02 to 08 and in no output there: each is computed here."""

import json
import statistics
from pathlib import Path

import pytest

from course_lib.memory import (
    ALLOCATORS,
    Scheduler,
    alpaca_like,
    make_allocator,
    serve,
    sharegpt_like,
    simulate,
)
from course_lib.serving import greedy
from course_lib.teaching import online_story, paper, presets, split_rules
from course_lib.teaching.exercises.lesson_02 import max_batch, slab_utilisation
from course_lib.teaching.recorder import Recorder

LESSONS = Path(__file__).parent.parent / "lessons"
CHATS = sharegpt_like(n=2000, rate=paper.SHAREGPT_RATE, seed=1)


@pytest.fixture(scope="module")
def runs():
    return {name: simulate(CHATS, name, num_slots=paper.NUM_SLOTS) for name in ALLOCATORS}


def says(lesson, *sentences):
    text = " ".join((LESSONS / f"{lesson}.md").read_text(encoding="utf-8").split())
    for sentence in sentences:
        assert sentence in text, f"{lesson} no longer says {sentence!r}: mend this test with it"


def test_the_lengths_of_the_chats():
    says("02_fragmentation", "161 and 338 tokens", "cutting off the longest leaves 154 and 315")
    assert round(statistics.mean(chat.prompt_len for chat in CHATS)) == 154
    assert round(statistics.mean(chat.output_len for chat in CHATS)) == 315


def test_the_slab_by_hand():
    says("02_fragmentation", "329.5 / 2,048 = 16%", "though 9% of its slots are in no slab")
    assert round(100 * slab_utilisation(161, 338, 2048)) == 16
    assert round(100 * (1 - 7 * 2048 / paper.NUM_SLOTS)) == 9


def test_the_bars_differ_by_five_points_at_most(runs):
    says(
        "02_fragmentation", "no part is more than 5 points off", "7 slabs of 2,048 leave 8.9% of 15,728 slots"
    )
    for name in ALLOCATORS[:3]:
        for kind, share in runs[name].shares.items():
            assert abs(share - paper.FIG_2[name][kind]) < 0.05
    assert round(1 - 7 * 2048 / paper.NUM_SLOTS, 3) == 0.089


def test_three_quarters_of_the_oracles_external_waste_is_rounding(runs):
    says("02_fragmentation", "Three quarters of it is rounding")
    oracle = make_allocator("reserve_exact", paper.NUM_SLOTS)
    rounding = num_steps = 0
    for stretch in serve(CHATS, Scheduler(oracle), step_seconds=0.05):
        if stretch.num_waiting:
            pieces = sum(oracle.region.size_of(slab.offset) - slab.asked for slab in oracle.slabs.values())
            rounding += stretch.num_steps * pieces
            num_steps += stretch.num_steps
    share = rounding / num_steps / paper.NUM_SLOTS
    assert 0.72 < share / runs["reserve_exact"].shares["external"] < 0.78


def test_the_ideal_batch_and_how_much_a_running_request_holds(runs):
    says("02_fragmentation", "The exercise's ideal was 47", "so the 35 hold 436 tokens each, not 329.5")
    assert max_batch(12 * 2**30, 819_200, 2048, 161, 338) == (7, 47)
    paged = runs["paged"]
    assert round(paged.shares["token_states"] * paper.NUM_SLOTS / paged.mean_running) == 436


def test_alpaca_keeps_nobody_waiting():
    says("02_fragmentation", "Three bars agree within 7%", "each staying 58 steps of 0.05 s, make 87 at once")
    short = alpaca_like(n=8000, rate=paper.ALPACA_RATE, seed=1)
    assert round(statistics.mean(request.output_len for request in short)) == 58 and 30 * 58 * 0.05 == 87
    run = simulate(short, "paged", num_slots=paper.NUM_SLOTS)
    assert not any(stretch.num_waiting for stretch in run.timeline) and round(run.mean_running) == 82
    for name in ALLOCATORS[:3]:
        ours = simulate(short, name, num_slots=paper.NUM_SLOTS).mean_running
        assert ours == pytest.approx(paper.FIG_13_ALPACA[name], rel=0.07)


def test_the_bandwidth_that_the_prediction_is_given():
    says("02_fragmentation", "That A100 moves 1,555 GB/s (data sheet)")
    assert presets.load_presets()[1]["NVIDIA A100 40GB"].bandwidth_gb_s == 1555


def test_the_waste_of_a_sequence_in_bytes():
    says(
        "03_block_tables", "15 × 800 KiB, 12 MiB, where a slab wasted up to 1.6 GiB", "8 KiB against 1.6 GiB"
    )
    assert round(15 * 800 / 1024) == 12 and round(2047 * 800 / 1024**2, 1) == 1.6 and 2048 * 4 == 8 * 1024


def test_half_a_block_each(runs):
    says(
        "03_block_tables",
        "35 × 7.5 of 15,728 slots is 1.7%",
        "The external 1.4% are free blocks, mostly the watermark",
    )
    assert round(100 * 35 * 7.5 / 15_728, 1) == 1.7 and round(runs["paged"].mean_running) == 35
    assert round(100 * runs["paged"].shares["external"], 1) == 1.4


def test_what_blocks_of_16_and_256_cost(runs):
    says(
        "03_block_tables",
        "16 costs ShareGPT under 1% of its requests and Alpaca 9%",
        "with 256 there are 61 blocks",
    )
    says("03_block_tables", "Alpaca's short texts, 76 tokens on average")
    short = alpaca_like(n=2500, rate=60, seed=1)
    assert round(statistics.mean(request.total_len for request in short)) == 76 and 15_728 // 256 == 61
    for requests, percent in [(CHATS, 0), (short, 9)]:
        one, sixteen = (
            simulate(requests, "paged", num_slots=15_728, max_len=15_728, block_size=size).mean_running
            for size in (1, 16)
        )
        assert round(100 * (1 - sixteen / one)) == percent


def test_preemptions_depend_on_the_seed():
    says("03_block_tables", "Four other seeds gave 10 to 56")
    per_hundred = []
    for seed in (2, 3, 4, 5):
        chats = sharegpt_like(n=2000, rate=paper.SHAREGPT_RATE, seed=seed)
        run = simulate(chats, "paged", num_slots=paper.NUM_SLOTS, watermark=0.0)
        per_hundred.append(round(100 * run.num_preemptions / 2000))
    assert (min(per_hundred), max(per_hundred)) == (10, 56)


def test_the_first_token_takes_the_largest_weight_in_more_than_half_of_the_heads(real):
    says("04_paged_attention", "In more than half of the 270 heads (30 layers × 9)")
    model, tokenizer = real
    prompts = ["The capital of France is", "Once upon a time, there was a", "Two plus two is"]
    cache = Recorder(model.config, num_blocks=12, block_size=8)
    greedy(model, [tokenizer.encode(prompt).ids for prompt in prompts], cache, 14)
    heads = [(layer, head) for layer in range(30) for head in range(9)]
    for sequence in range(3):
        last = cache.length(sequence) - 1
        tops = [int(cache.weights(layer, head, sequence, last).argmax()) for layer, head in heads]
        assert tops.count(0) > 135, f"sequence {sequence}: {tops.count(0)} of 270"


def test_the_figures_of_the_kernel():
    says("05_gpu_kernel", "you would need 256 GiB of keys and values to get there", "all layers, 8 GiB.")
    array = 2**31 * 2 / 2**30  # GiB of fp16 that an int32 reaches
    assert 32 * 2 * array == 256 and 2 * array == 8
    says("05_gpu_kernel", "4 FLOP a byte, where an H100 would need 295", "take 8 KiB for one KV head")
    gpu = presets.load_presets()[1]["NVIDIA H100 SXM 80GB"]
    assert 2 * 4 / 2 == 4 and round(gpu.fp16_tflops * 1e12 / (gpu.bandwidth_gb_s * 1e9)) == 295
    assert 16 * 2 * 128 * 2 == 8 * 2**10
    says(
        "05_gpu_kernel", "4 × context / 128 numbers a thread", "on a T4's 64 KiB it ended below 16,384 tokens"
    )
    assert 4 * 4096 / 128 <= 255 < 4 * 8192 / 128 and 64 * 2**10 / 4 == 16_384


def test_the_figures_of_the_splits():
    says(
        "06_online_softmax",
        "For one sequence they say 15 to 33",
        "nearly fill the GPU, 1 to 16. From 32 on nobody splits",
    )
    shape = dict(num_kv_heads=8, context=32_768, tile=64, multiprocessors=132)
    alone, sixteen, more = (
        sorted(found[0] for found in split_rules.table([batch], **shape).values()) for batch in (1, 16, 32)
    )
    assert (alone[0], alone[-1]) == (15, 33) and (sixteen[0], sixteen[-1]) == (1, 16) and more == [1] * 4
    says("06_online_softmax", "16 tiles, 1,024 tokens, are 524 KB for a KV head and leave 2 KB")
    tiles = -(-(32_768 // 64) // 33)  # whole ones
    num_tokens = tiles * 64
    assert (tiles, num_tokens) == (16, 1024)
    assert round(num_tokens * 2 * 128 * 2 / 1e3) == 524 and round(4 * 128 * 4 / 1e3) == 2


def test_the_figures_of_the_recorded_queries():
    says(
        "06_online_softmax",
        "Its 24 scores",
        "two other heads of the model's 270",
        "8 of the head's 64 output numbers",
    )
    for query in online_story.load().values():
        assert len(query.scores) == len(query.tokens) == 24 and query.values.shape == (24, 8)
    assert 30 * 9 == 270


@pytest.fixture(scope="module")
def engine_cpu():
    results = Path(__file__).parent.parent / "benchmarks" / "results" / "engine_cpu.json"
    return json.loads(results.read_text(encoding="utf-8"))


def test_what_the_engine_loses_on_blocks(engine_cpu):
    says("04_paged_attention", "reaches 94 to 102% of the slabs' tokens per second")
    ratios = [row["paged_to_slabs"]["ratio"] for row in engine_cpu["decode"]]
    assert (round(100 * min(ratios)), round(100 * max(ratios))) == (94, 102)


def test_what_paging_pays_and_what_the_model_makes_of_a_batch(engine_cpu):
    for row in engine_cpu["payoff"]:
        if row["workload"] == "chats":
            slabs, blocks = (row[name]["mean_running"] for name in ("reserve_max", "paged"))
            says(
                "07_serving", f"| {row['slabs']} slabs | {slabs:.1f} and {blocks:.1f} | {row['ratio']:.1f} |"
            )
    (short,) = (row for row in engine_cpu["payoff"] if (row["workload"], row["slabs"]) == ("instructions", 2))
    says("07_serving", f"{short['ratio']:.1f} times the tokens/s at 2 slabs with Alpaca's lengths")
    curve = {row["batch"]: row["tokens_per_s"] for row in engine_cpu["curve"]}
    says(
        "07_serving",
        f"The model alone makes {curve[2]:.0f} tokens/s at batch 2, {curve[8]:.0f} at 8, {curve[32]:.0f} at 32 and "
        f"{curve[64]:.0f} at 64. From 2 to 8 that is a factor of {curve[8] / curve[2]:.1f}",
    )


def test_how_much_faster_paging_may_be_asked_in_the_simulation():
    says(
        "07_serving",
        "Paging keeps up with 5.6 times the rate of the maximum, and 2.8 times that of the oracle.",
    )
    best = {"reserve_max": 0.4, "reserve_exact": 0.8, "paged": 2.25}
    for name, rate in best.items():
        for asked, keeps_up in ((rate, True), (rate + 0.2, False)):
            crowd = sharegpt_like(n=int(asked * 1200), rate=asked, seed=1)
            latencies = simulate(crowd, name, num_slots=paper.NUM_SLOTS).latencies
            assert (statistics.mean(latencies) <= 0.1) == keeps_up
    assert round(2.25 / 0.4, 1) == 5.6 and round(2.25 / 0.8, 1) == 2.8


def test_what_sharing_saves_on_the_engine():
    results = Path(__file__).parent.parent / "benchmarks" / "results" / "paper_figures.json"
    saved = json.loads(results.read_text(encoding="utf-8"))["figures"]["fig15"]["ours"]["Alpaca"]
    two, four, six = (100 * saved["sampling"][n] for n in "246")
    says("08_sharing", f"on the real engine: {two:.1f}, {four:.1f} and {six:.1f}%;")
    two, four, six = (100 * saved["beams"][n] for n in "246")
    says("08_sharing", f"(The same twelve requests: {two:.0f}, {four:.0f} and {six:.0f}%.)")
