"""The paper's figures, small: counts against counting by hand, order of allocators, shapes of curves, and the page."""

import io
import itertools
import json
import random
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from benchmarks import paper_figures
from benchmarks.paper_figures import Llm
from course_lib.memory import ALLOCATORS, Request
from course_lib.teaching import paper


class Words:
    """A tokenizer whose text is the tokens themselves."""

    def encode(self, text, **_):
        return SimpleNamespace(ids=[int(word) for word in text.split()])

    def decode(self, token_ids):
        return " ".join(map(str, token_ids))


@pytest.fixture
def llm(tiny_model):
    draw = random.Random(5)
    return Llm(tiny_model, Words(), [[draw.randrange(3, 97) for _ in range(23)] for _ in range(4)])


def ceil(tokens, size):
    return -(-tokens // size)


# -- prompts and lengths ------------------------------------------------------------------------------------------


def test_prompts_have_their_length_and_all_differ(llm):
    prompts = [llm.prompt(number, 100) for number in range(12)]
    assert all(len(prompt) == 100 for prompt in prompts)
    assert len({tuple(prompt[:12]) for prompt in prompts}) == 12
    assert llm.prompt(1, 25) == llm.texts[1] + llm.texts[2][:2] and llm.prompt(5, 3) == llm.texts[1][1:4]


def test_typical_requests_have_nearly_the_papers_means():
    for workload, count in (("Alpaca", 12), ("ShareGPT", 4)):
        means = paper.FIG_11_MEANS[workload]
        found = paper_figures.typical(paper_figures.WORKLOADS[workload], means, count)
        assert len(found) == count
        assert paper_figures.mean_lengths(found) == pytest.approx(means, rel=0.1)


# -- Figs 12 and 13 -----------------------------------------------------------------------------------------------


def test_the_sustained_rate_is_where_the_limit_is_crossed():
    asked = []

    def latency_at(rate):
        asked.append(rate)
        return rate**2

    assert paper_figures.sustained_rate(latency_at, limit=9.0, low=0.1) == pytest.approx(3.0, rel=0.011)
    assert max(asked) <= 1.2 * 3.0  # no run far above it: those are the long ones
    assert paper_figures.sustained_rate(latency_at, limit=9.0, low=4.0) == 0.0


@pytest.fixture(scope="module")
def fig12():
    rates = {"ShareGPT": (0.2, 0.5, 0.8, 1.2, 2.5, 4.0)}
    return paper_figures.figure_12(rates, {"ShareGPT": 15}, {"ShareGPT": (4.0, 5)}, precision=0.05)


def test_paging_sustains_most_and_slabs_least(fig12):
    for workload, found in fig12["workloads"].items():
        sustained = found["sustained_rate"]
        for limit in ("2x", "4x"):
            rates = [sustained[name][limit] for name in ALLOCATORS]
            assert rates == sorted(rates) and rates[-1] > 1.3 * rates[-2], (workload, limit, rates)
            for name in ALLOCATORS[:3]:
                ratio = found["ratios"][f"to {name}"][limit]
                assert ratio == pytest.approx(sustained["paged"][limit] / sustained[name][limit], rel=0.01)
        for name in ALLOCATORS:
            assert sustained[name]["2x"] <= sustained[name]["4x"]


def test_latency_is_a_step_a_token_without_load_and_grows_with_it(fig12):
    for found in fig12["workloads"].values():
        for points in found["curves"].values():
            latencies = [latency for _, latency in points]
            assert 0.05 < latencies[0] and all(b > 0.99 * a for a, b in itertools.pairwise(latencies))
            assert all(latency <= 1 for latency in latencies[:-1])  # it stops where the paper's axis does
    alone = fig12["workloads"]["ShareGPT"]["curves"]["paged"][0]
    assert alone[0] == 0.2 and alone[1] < 0.053


def test_a_sustained_rate_is_within_its_limit_and_a_little_more_is_not(fig12):
    for name in ("reserve_max", "paged"):
        rate = fig12["workloads"]["ShareGPT"]["sustained_rate"][name]["4x"]
        assert paper_figures.mean_latency("ShareGPT", name, 0.99 * rate, 15) <= 0.2
        assert paper_figures.mean_latency("ShareGPT", name, 1.25 * rate, 15) > 0.2


def test_a_growing_step_goes_through_the_papers_batches_and_shrinks_the_gain(fig12):
    """Running requests are arrivals a second x seconds that each runs."""
    for rate, tokens, running in ((2.0, 337.99, 30.42), (30.0, 58.45, 132.44)):
        assert rate * tokens * paper_figures.papers_step(running) == pytest.approx(running)
    batches = fig12["workloads"]["ShareGPT"]["full_batches"]
    assert batches["reserve_max"] == 7.0 and 30 < batches["paged"] < 45
    for name in ALLOCATORS[:3]:
        found = fig12["ours"]["ShareGPT"][f"to {name}"]
        fixed, grows = found["step of 0.05 s"], found["step that grows"]
        assert fixed == pytest.approx(batches["paged"] / batches[name], rel=0.01)
        steps = [paper_figures.papers_step(batches[each]) for each in ("paged", name)]
        assert 1 < grows < fixed and grows == pytest.approx(fixed * steps[1] / steps[0], rel=0.01)
        assert found["within 4x"] == pytest.approx(fixed, rel=0.2)  # sustained rates tell the same story


def test_batches_under_load_are_the_papers_and_ordered():
    figure = paper_figures.figure_13({"ShareGPT": 20})
    ours, papers = figure["ours"]["ShareGPT"], figure["paper"]["ShareGPT"]
    assert [ours[name] for name in ALLOCATORS] == sorted(ours[name] for name in ALLOCATORS)
    assert ours["reserve_max"] == pytest.approx(
        7.0, abs=0.1
    )  # floor(15,728 / 2,048), but for the first seconds
    for name in ALLOCATORS[:3]:
        assert ours[name] == pytest.approx(papers[name], rel=0.12), name


def test_without_waiting_the_batch_is_rate_times_time_in_it():
    requests = paper_figures.WORKLOADS["Alpaca"](n=2400, rate=2.0, seed=paper_figures.SEED)
    found = paper_figures.batch_sizes("Alpaca", "paged", rate=2.0, minutes=20)
    seconds = requests[-1].arrival_time
    tokens = sum(each.output_len for each in requests)
    assert found["share_of_steps_when_one_waits"] == 0 and found["mean_running_when_one_waits"] is None
    # idle times are no steps: among steps, the mean is larger than over the whole time
    assert tokens * 0.05 / seconds <= found["mean_running"] <= 1.05 * tokens * 0.05 / seconds


# -- Figs 14 and 15 -----------------------------------------------------------------------------------------------


def saved_by_counting(lengths, outputs, size):
    """Blocks of samples that share the full blocks of their prompts, pass by pass: the prompt's, then one for each
    token but the last, which is never written."""
    held = unshared = 0
    for prompt_len, output_len in lengths:
        held += ceil(prompt_len, size)
        unshared += ceil(prompt_len, size)
        for written in range(1, output_len):
            own = ceil(prompt_len + written, size)
            held += prompt_len // size + outputs * (own - prompt_len // size)
            unshared += outputs * own
    return 1 - held / unshared


@pytest.mark.parametrize(
    "lengths, outputs, size",
    [([(21, 9)], 3, 4), ([(8, 5), (8, 5)], 2, 8), ([(3, 6), (17, 12), (40, 2)], 4, 16), ([(15, 30)], 2, 16)],
)
def test_what_samples_save_is_what_counting_says(llm, lengths, outputs, size):
    requests = [Request(0.0, *each) for each in lengths]
    saved = paper_figures.saved_by_sampling(llm, requests, outputs, size)
    assert saved == pytest.approx(saved_by_counting(lengths, outputs, size), abs=1e-12)


def test_what_two_tokens_of_beams_save_is_what_counting_says(llm):
    """The prompt; then each beam writes its first token. 20 tokens fill 5 blocks of 4 (all stay shared) or 1 of 16."""
    for size, width in itertools.product((4, 16), (2, 5)):
        saved = paper_figures.saved_by_beams(llm, [Request(0.0, 20, 2)], width, size)
        held = ceil(20, size) + 20 // size + width
        unshared = ceil(20, size) + width * ceil(21, size)
        assert saved == pytest.approx(1 - held / unshared, abs=1e-12), (size, width)


def test_more_outputs_save_more_and_never_more_than_can_be_shared(llm):
    requests = [Request(0.0, 37, 40), Request(0.0, 20, 30)]
    found = {}
    for name, saved in (
        ("sampling", paper_figures.saved_by_sampling),
        ("beams", paper_figures.saved_by_beams),
    ):
        shares = [saved(llm, requests, count, 4) for count in (1, 2, 4, 6)]
        assert shares[0] == 0 and shares == sorted(shares)
        assert all(0 < share < 1 - 1 / count for share, count in zip(shares[1:], (2, 4, 6), strict=True))
        found[name] = shares[1:]
    assert all(b >= s for b, s in zip(found["beams"], found["sampling"], strict=True))


def test_figure_15_reports_each_number_of_outputs(llm):
    figure = paper_figures.figure_15(llm, {"Alpaca": 2}, (2, 3))
    assert list(figure["ours"]["Alpaca"]) == ["sampling", "beams"]
    requests = paper_figures.typical(paper_figures.alpaca_like, paper.FIG_11_MEANS["Alpaca"], 2)
    lengths = [(each.prompt_len, each.output_len) for each in requests]
    for count, share in figure["ours"]["Alpaca"]["sampling"].items():
        assert share == pytest.approx(saved_by_counting(lengths, count, 16), abs=1e-4)


def test_figure_14_divides_by_what_is_still_held():
    fig12 = {"workloads": {"Alpaca": {"full_batches": {"reserve_exact": 80.0, "paged": 120.0}}}}
    fig15 = {"ours": {"Alpaca": {"beams": {2: 0.25, 6: 0.5}}}}
    fixed, grows = paper_figures.figure_14(fig12, fig15)["ours"].values()
    assert fixed == {"one sample": 1.5, "beam width 2": 2.0, "beam width 6": 3.0}
    step = paper_figures.papers_step
    assert grows["beam width 6"] == pytest.approx(240 / step(240) / (80 / step(80)), abs=0.01)
    assert 1 < grows["one sample"] < grows["beam width 2"] < grows["beam width 6"] < 3


# -- Fig 16 -------------------------------------------------------------------------------------------------------


def test_a_cached_prefix_is_held_once(llm):
    """Three requests of 32 + 8 tokens hold three blocks each in all four passes: two of these are the prefix."""
    case = dict(prefix_len=32, slots=256, count=3, lengths=(8, 4))
    on, off = (paper_figures.with_prefix(llm, **case, caching=caching) for caching in (True, False))
    assert on["saved"] == round(1 - 5 / 9, 4) and off["saved"] == 0
    assert on["mean_blocks_held"] == 5 and off["mean_blocks_held"] == 9
    assert on["mean_running"] == off["mean_running"]  # there is room for all either way


def test_a_cached_prefix_makes_room_for_more(llm):
    cases = [dict(prefix_len=64, slots=256, count=6)]
    (row,) = paper_figures.figure_16(llm, cases, (10, 12), rounds=2)["rows"]
    assert row["off"]["mean_running"] < 3.01 and row["on"]["mean_running"] > 5
    assert row["off"]["most_blocks_held"] <= 16 and row["on"]["most_blocks_held"] <= 16
    assert row["ratio_min"] <= row["throughput_ratio"] <= row["ratio_max"] and row["first_token_ratio"] > 0


# -- Figs 18b and 19 ----------------------------------------------------------------------------------------------


def test_large_blocks_leave_room_for_fewer_above_all_of_short_texts(llm):
    figure = paper_figures.figure_18(
        llm,
        {"ShareGPT": (4.0, 300), "Alpaca": (120.0, 1500)},
        (1, 16, 256),
        dict(batch=2, context=20, sizes=(1, 16), steps=5),
    )
    shares = figure["ours"]["share_of_the_best"]
    for line in shares.values():
        assert line[1] == 1 and line[1] >= line[16] > line[256]
    assert shares["Alpaca"][256] < 0.5 < shares["ShareGPT"][256]
    assert shares["Alpaca"][16] < shares["ShareGPT"][16]
    assert all(value > 0 for value in figure["ours"]["step_ms"].values())


def test_timed_steps_are_decode_steps_of_the_whole_batch(llm, monkeypatch):
    passes = []
    forward = paper_figures.LLMEngine._forward

    def watched(engine, runs):
        passes.append((engine.allocator.pool.block_size, [run.num_new for run in runs]))
        return forward(engine, runs)

    monkeypatch.setattr(paper_figures.LLMEngine, "_forward", watched)
    times = paper_figures.decode_steps(llm, batch=3, context=20, sizes=(1, 16), steps=5)
    assert {size: len(each) for size, each in times.items()} == {1: 5, 16: 5}
    assert passes == [(1, [20] * 3), (16, [20] * 3), *[(1, [1] * 3), (16, [1] * 3)] * 5]


def test_copies_move_every_block_of_a_sequence_and_back(llm):
    config = llm.model.config
    for size in (1, 5, 64):
        pairs = paper_figures.copies_of(llm, 64, size)
        assert len(pairs) == 2 * config.num_layers * ceil(64, size)
        places = [tensor.data_ptr() for pair in pairs for tensor in pair]
        assert len(set(places)) == len(places)
        number_bytes = sum(here.numel() * here.element_size() for _, here in pairs)
        assert number_bytes == ceil(64, size) * size * llm.bytes_per_slot


def test_swapping_gets_cheaper_with_the_block_and_recomputing_does_not_care(llm):
    figure = paper_figures.figure_19(llm, (1, 8, 64), num_tokens=64, rounds=7)
    swap, recompute = (list(figure["cpu"][name].values()) for name in ("swap_ms", "recompute_ms"))
    assert swap == sorted(swap, reverse=True) and swap[0] > 8 * swap[-1]  # 64 times as many copies
    assert max(recompute) < 3 * min(recompute)
    for size, ratio in figure["ours"]["cpu_recompute_to_swap"].items():
        expected = figure["cpu"]["recompute_ms"][size] / figure["cpu"]["swap_ms"][size]
        assert ratio == pytest.approx(expected, rel=0.1)


def test_the_model_of_a_swap_by_hand():
    found = paper_figures.paper_scale(256, (1, 16, 256), 32e9, 1e-5)
    # each way: 256 / size blocks of 80 transfers, and 256 x 819,200 bytes
    by_hand = {size: 2e3 * (256 / size * 80 * 1e-5 + 256 * 819_200 / 32e9) for size in (1, 16, 256)}
    assert found["swap_ms"] == pytest.approx(by_hand, abs=0.01)
    assert found["recompute_ms"] == pytest.approx(1e3 * 256 * 2 * 12_853_473_280 / 312e12, abs=0.01)
    # a last block that is half empty is copied whole
    assert paper_figures.paper_scale(130, (64,), 32e9, 0.0)["swap_ms"][64] == pytest.approx(
        2e3 * 192 * 819_200 / 32e9, abs=0.01
    )


def test_a_sequence_that_does_not_pass_in_one_step_is_no_recompute(llm, monkeypatch):
    usual = Llm.engine
    monkeypatch.setattr(
        Llm,
        "engine",
        lambda llm, slots, **options: usual(llm, slots, **options | {"max_num_batched_tokens": 9}),
    )
    with pytest.raises(RuntimeError, match="20 tokens did not go through the model in one step"):
        paper_figures.recompute_seconds(llm, 20, (4,), 1)


# -- the report and the page --------------------------------------------------------------------------------------


@pytest.fixture
def run_main(llm, monkeypatch, tmp_path):
    monkeypatch.setattr(paper_figures, "load_llm", lambda: llm)
    monkeypatch.setattr(paper_figures, "RESULTS", tmp_path)
    threads = torch.get_num_threads()
    yield lambda *arguments: paper_figures.main([*arguments, "--threads", "1"])
    torch.set_num_threads(threads)


def check_page(png):
    """1,600 pixels wide, and something is drawn in each of the eight cells."""
    page = Image.open(io.BytesIO(png)).convert("L")
    assert page.format is None and page.width == 1600 and 1700 <= page.height <= 2600
    for row, column in itertools.product(range(4), range(2)):
        cell = page.crop((800 * column, 450 * row, 800 * column + 800, 450 * row + 450))
        inked = sum(cell.histogram()[:200]) / (cell.width * cell.height)
        assert 0.01 < inked < 0.6, (row, column, inked)


def check_report(report):
    assert set(report) == {"benchmark", "machine", "options", "figures"} and report["machine"]["cores"]
    figures = report["figures"]
    assert list(figures) == ["fig12", "fig13", "fig14", "fig15", "fig16", "fig18", "fig19"]
    for name, figure in figures.items():
        assert figure["ours"] and figure["paper"] and figure["seconds"] >= 0, name
        assert len(figure["gap"]) > 150 and figure["gap"].endswith("."), name
        assert figure["world"].split(":")[0].split()[0] in ("simulated", "measured", "derived", "requests"), (
            name
        )
    assert figures["fig12"]["paper"]["ShareGPT"] == {
        "to reserve_exact": [1.7, 2.7],
        "to reserve_max": [2.7, 8.0],
    }
    assert figures["fig13"]["paper"]["ShareGPT"]["paged"] == 30.42
    assert figures["fig13"]["paper"]["Alpaca"] == paper.FIG_13_ALPACA
    assert figures["fig14"]["paper"] == {"one sample": 1.3, "beam width 6": 2.3}
    assert figures["fig15"]["paper"]["Alpaca"]["sampling"] == {"2": 0.0609, "4": 0.0853, "6": 0.0979}
    assert figures["fig15"]["paper"]["Alpaca"]["beams"] == {"2": 0.3756, "4": 0.5313, "6": 0.5516}
    assert figures["fig15"]["paper"]["ShareGPT"] == {"sampling": [0.162, 0.305], "beams": [0.443, 0.663]}
    assert figures["fig16"]["paper"] == {"80": 1.67, "341": 3.58}
    assert figures["fig19"]["paper"]["comparable at"] == [16, 64]


def test_a_quick_run_makes_every_figure_and_the_page(run_main, tmp_path, capsys):
    run_main("--quick", "--out", str(tmp_path / "a.json"), "--page", str(tmp_path / "a.png"))
    report = json.loads((tmp_path / "a.json").read_text())
    check_report(report)
    check_page((tmp_path / "a.png").read_bytes())
    assert {path.name for path in tmp_path.glob("*.*")} == {"a.json", "a.png"}
    said = capsys.readouterr().out
    assert all(f"{name}  " in said for name in report["figures"])


def test_some_figures_overwrite_nothing_and_leave_their_places_empty(run_main, tmp_path, monkeypatch):
    workload = dict(rates={"Alpaca": (2, 20)}, minutes={"Alpaca": 0.2}, full_load={"Alpaca": (120.0, 0.2)})
    monkeypatch.setattr(paper_figures, "FULL", paper_figures.QUICK | {"fig12": workload | {"precision": 0.5}})
    run_main("--only", "fig13")
    assert not list(tmp_path.glob("*.*"))
    out = tmp_path / "some.json"
    run_main("--only", "fig13", "fig14", "--page", str(tmp_path / "some.png"), "--out", str(out))
    assert list(json.loads(out.read_text())["figures"]) == ["fig12", "fig13", "fig14", "fig15"]
    page = Image.open(tmp_path / "some.png").convert("L")
    ink = [sum(page.crop((0, top, 1600, top + 400)).histogram()[:200]) for top in (480, 1380)]
    assert ink[0] > 10_000 and ink[1] == 0


def test_one_figure_anew_keeps_the_others_and_brings_the_texts_up_to_date(run_main, tmp_path, monkeypatch):
    drawn = []

    def page(figures, machine):
        drawn.append(figures)
        return SimpleNamespace(png=lambda: b"png")

    monkeypatch.setattr(paper_figures, "paper_page", page)
    out = tmp_path / "kept.json"
    kept = {"ours": 3, "gap": "an older sentence", "seconds": 0.0}
    full_batches = {"reserve_exact": 80.0, "paged": 120.0}
    fig12 = {"workloads": {"Alpaca": {"full_batches": full_batches}}, "ours": 1, "seconds": 0.0}
    fig15 = {"ours": {"Alpaca": {"beams": {"2": 0.25}}}, "seconds": 0.0}
    out.write_text(json.dumps({"figures": {"fig12": fig12, "fig15": fig15, "fig19": kept}}))
    run_main("--only", "fig14", "--out", str(out), "--page", str(tmp_path / "kept.png"))
    figures = json.loads(out.read_text())["figures"]
    assert drawn == [figures]  # the page is drawn from what is stored: its keys are strings
    assert list(figures) == ["fig12", "fig14", "fig15", "fig19"] and figures["fig12"]["ours"] == 1
    assert figures["fig14"]["ours"]["step of 0.05 s"]["beam width 2"] == 2.0
    assert figures["fig19"]["ours"] == 3 and figures["fig19"]["gap"] == paper_figures.TOLD["fig19"]["gap"]


def test_a_full_run_writes_both_results(run_main, tmp_path, monkeypatch):
    monkeypatch.setattr(
        paper_figures,
        "make_figures",
        lambda names, efforts, known: {"names": [*names], "all": efforts} | known,
    )
    monkeypatch.setattr(
        paper_figures, "paper_page", lambda figures, machine: SimpleNamespace(png=lambda: b"png")
    )
    run_main()
    stored = json.loads((tmp_path / "paper_figures.json").read_text())["figures"]
    assert stored["names"] == list(paper_figures.NAMES) and set(stored["all"]) == set(paper_figures.MAKERS)
    assert (tmp_path / "paper_figures.png").read_bytes() == b"png"


def test_simulations_need_no_model(run_main, monkeypatch):
    def refuse():
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(paper_figures, "load_llm", refuse)
    run_main("--quick", "--only", "fig13")
    with pytest.raises(AssertionError, match="was loaded"):
        run_main("--quick", "--only", "fig19")


# -- the stored results -------------------------------------------------------------------------------------------

STORED = paper_figures.RESULTS / "paper_figures.json"


@pytest.fixture(scope="module")
def stored():
    return json.loads(STORED.read_text(encoding="utf-8"))


def test_the_stored_results_are_of_a_full_run(stored):
    check_report(stored)
    assert stored["options"]["quick"] is False
    check_page(STORED.with_suffix(".png").read_bytes())


def counted_by_lengths(workload):
    """In percent, for 2, 4 and 6 samples of 1,000 drawn requests."""
    drawn = paper_figures.WORKLOADS[workload](n=1000, rate=1.0, seed=paper_figures.SEED)
    lengths = [(each.prompt_len, each.output_len) for each in drawn]
    return [round(100 * saved_by_counting(lengths, count, 16)) for count in (2, 4, 6)]


def test_what_the_stored_gaps_say_of_simulations_holds(stored):
    figures = stored["figures"]
    assert all(figures[name]["gap"] == paper_figures.TOLD[name]["gap"] for name in figures)
    shares, alpaca = (figures["fig12"]["ours"][name] for name in ("ShareGPT", "Alpaca"))
    for other, (low, high) in paper.FIG_12.items():
        assert all(low <= ratio <= high for ratio in shares[other].values()), other
    oracle = "to reserve_exact"
    assert (
        round(shares[oracle]["step that grows"], 1) == 2.2
        and round(alpaca[oracle]["step that grows"], 1) == 1.6
    )
    assert round(alpaca[oracle]["step of 0.05 s"], 1) == 2.5
    assert round(figures["fig12"]["workloads"]["Alpaca"]["full_batches"]["paged"]) == 192

    ours, papers = figures["fig13"]["ours"], figures["fig13"]["paper"]
    for workload, name in itertools.product(("ShareGPT", "Alpaca"), ALLOCATORS):
        if (workload, name) != ("Alpaca", "paged"):
            assert 1 <= ours[workload][name] / papers[workload][name] < 1.09, (workload, name)
    assert round(ours["Alpaca"]["paged"]) == round(30 * 58.45 * 0.05) == 88
    assert figures["fig13"]["workloads"]["Alpaca"]["paged"]["share_of_steps_when_one_waits"] == 0
    assert round(132.44 / (30 * 58.45), 3) == 0.076

    fixed, grows = figures["fig14"]["ours"].values()
    for what, printed in paper.FIG_14.items():
        assert 1.8 < fixed[what] / printed < 2.6 and abs(grows[what] - printed) < 0.35 * (
            fixed[what] - printed
        )


def test_what_the_stored_gaps_say_of_measurements_holds(stored):
    figures = stored["figures"]
    ours = figures["fig15"]["ours"]
    for method, most in (("sampling", 0.01), ("beams", 0.05)):
        for count, share in ours["Alpaca"][method].items():
            assert abs(share - paper.FIG_15_ALPACA[method][int(count)]) < most
    assert [round(100 * share) for share in ours["ShareGPT"]["sampling"].values()] == [23, 35, 38]
    assert counted_by_lengths("ShareGPT") == [18, 27, 30] and counted_by_lengths("Alpaca") == [7, 11, 12]

    rows = figures["fig16"]["rows"]
    assert figures["fig16"]["question_and_output_tokens"][1] == 40
    ratios = [row["throughput_ratio"] for row in rows]
    assert ratios == sorted(ratios) and ratios[0] > 1.3
    for row in rows:
        slots_held = [16 * row[side]["most_blocks_held"] for side in ("off", "on")]
        assert max(slots_held) <= row["slots"] and row["on"]["mean_running"] > row["off"]["mean_running"]

    steps, memory = (figures["fig18"]["ours"][name] for name in ("step_ms", "share_of_the_best"))
    assert 1 < steps["1"] / steps["16"] < 1.2 and max(steps, key=steps.get) == "256"
    for line in memory.values():
        assert list(line.values()) == sorted(line.values(), reverse=True)
    assert memory["Alpaca"]["256"] < memory["ShareGPT"]["256"]

    cpu, model = (figures["fig19"]["ours"][f"{name}_recompute_to_swap"] for name in ("cpu", "modelled"))
    assert 5 < min(cpu.values()) < 20 and 100 < max(cpu.values()) < 1000
    assert all(0.8 <= model[size] <= 1.2 for size in ("32", "64")) and round(model["256"], 2) == 1.43
    anew = list(figures["fig19"]["cpu"]["recompute_ms"].values())
    assert max(anew) < 1.1 * min(anew)
