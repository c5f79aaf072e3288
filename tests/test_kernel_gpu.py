"""The GPU benchmark: its dry run whole, and the parts that can be right or wrong without a GPU one by one."""

import json
import math
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="no Triton here")

from benchmarks import kernel_gpu
from benchmarks.kernel_gpu import CANDIDATES, GB, Candidate, Case, Effort, Problem

ROOT = Path(__file__).resolve().parent.parent
TIMED = [name for name, candidate in CANDIDATES.items() if candidate.timed]
interpreted = pytest.mark.skipif(
    not kernel_gpu.INTERPRETED, reason="there is a GPU: run the benchmark itself"
)


def run(*arguments, code=None):
    """The script in a process of its own, or code that calls its main."""
    start = ["-m", "benchmarks.kernel_gpu"] if code is None else ["-c", code]
    command = [sys.executable, *start, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


# -- the dry run ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """(the finished process, its JSON)."""
    out = tmp_path_factory.mktemp("dry") / "kernel_gpu.json"
    done = run("--dry", "--tune", "--out", out)
    assert done.returncode == 0, done.stderr[-3000:]
    return done, json.loads(out.read_text())


def test_the_report_says_what_it_was_measured_on(dry):
    data = dry[1]
    assert data["dry"] is True and data["device"] == "interpreter" and data["dtype"] == "float16"
    assert data["complete"] is True and data["aborted"] is None and data["seconds"] < 60
    assert data["failures"] == data["skipped"] == []
    assert data["command"] == "python -m benchmarks.kernel_gpu --dry --tune"
    assert data["machine"]["versions"]["torch"] == torch.__version__ and data["machine"]["date"] > "2026"
    assert {"hardware", "python", "processor"} <= set(data["machine"])


def test_every_candidate_is_right_in_both_dtypes(dry):
    rows = dry[1]["correctness"]
    assert {row["candidate"] for row in rows} == {*CANDIDATES, "ours, write_kv"}
    required = [row for row in rows if row["required"]]
    assert {row["status"] for row in required} == {"right"}
    for name in CANDIDATES:
        assert {row["dtype"] for row in required if row["candidate"] == name} == {"float16", "float32"}
    assert all(row["error"] <= row["tolerance"] < 0.01 for row in required)


def test_our_kernel_is_asked_to_withstand_nan_and_flex_attention_is_not(dry):
    rows = dry[1]["correctness"]
    assert {row["poison"] for row in rows if row["candidate"] in TIMED[:2]} == {"NaN"}
    flex = {(row["poison"], row["required"]) for row in rows if row["candidate"] == "flex"}
    assert flex == {("1000", True), ("NaN", False)}
    assert {row["case"]["lengths"] for row in rows if row["candidate"] == "ours"} == {"edges", "empty"}


def test_the_ceilings_are_there_for_every_launch(dry):
    found = dry[1]["ceilings"]
    assert len(found["launches"]) == len(kernel_gpu.dry_plan().reads)
    assert found["read_gb_per_s"] == max(found["launches"].values()) > 0 < found["copy_gb_per_s"]


def test_every_case_has_every_candidate_timed(dry):
    data = dry[1]
    assert [row["case"] for row in data["rows"]] == [asdict(case) for case in kernel_gpu.dry_plan().cases]
    for row in data["rows"]:
        assert list(row["candidates"]) == TIMED
        for name, found in row["candidates"].items():
            if name == "flex" and row["case"]["block_size"] < 16:
                assert found == {"status": "left out", "reason": "wants blocks of 16 slots or more"}
                continue
            assert found["status"] == "timed" and 0 < found["p10_ms"] <= found["median_ms"] <= found["p90_ms"]
            rate = row["kv_bytes"] / found["median_ms"] / 1e6
            assert found["gb_per_s"] == pytest.approx(rate, rel=1e-3)
            share = rate / data["ceilings"]["read_gb_per_s"]
            assert found["share_of_read"] == pytest.approx(share, rel=1e-3)
            assert found["samples"] >= 3 and found["eager_ms"] > 0 <= found["planning_s"]
            assert found["first_call_s"] > 0 and found["without_graph"] == "no GPU"


def test_tuning_names_the_best_and_the_default(dry):
    (row,) = dry[1]["tuning"]
    assert {"config", "num_splits", "ms"} == set(row["default"]) == set(row["best"])
    assert row["default"]["config"]["tile"] == 32 and row["default"]["num_splits"] == 1
    assert row["default_to_best"] == pytest.approx(row["default"]["ms"] / row["best"]["ms"], rel=1e-3)
    assert row["tried"] >= 3 and row["failed"] == 0


def test_goals_have_verdicts(dry):
    goals = {goal["name"]: goal for goal in dry[1]["goals"]}
    assert goals["large_reads"]["verdict"] == goals["middle_reads"]["verdict"] == "no case"
    assert goals["contiguous_sdpa"]["verdict"] == "not met", "an interpreter beats nobody"
    assert goals["price_of_paging"]["verdict"] in ("met", "not met")
    assert [goals[name]["cases"] for name in ("contiguous_sdpa", "flex_attention", "price_of_paging")] == [
        3,
        2,
        2,
    ]


def test_a_line_for_each_case_and_a_table(dry):
    for case in kernel_gpu.dry_plan().cases:
        lines = [line for line in dry[0].stdout.splitlines() if str(case) in line]
        assert len([line for line in lines if "ours" in line]) == 1, "progress"
        assert len([line for line in lines if line.startswith(str(case))]) == 1, "the table"


def test_with_a_dash_stdout_is_json_and_nothing_else():
    done = run("--dry", "--parts", "ceilings", "--out", "-")
    data = json.loads(done.stdout)
    assert data["ceilings"]["read_gb_per_s"] > 0 and data["rows"] == [] and "ceilings: read" in done.stderr


@interpreted
def test_without_a_gpu_the_run_is_dry_and_says_so(session, capsys):
    assert kernel_gpu.main(["--parts", "ceilings", "--out", session.out]) == 0
    assert "no GPU here, so this is a dry run" in capsys.readouterr().err
    assert json.loads(Path(session.out).read_text())["dry"] is True


@interpreted
def test_a_dry_run_does_not_write_among_the_results():
    session = kernel_gpu.begin(kernel_gpu.parse([]), CANDIDATES)
    assert kernel_gpu.RESULTS not in Path(session.out).parents


# -- what is wrong is caught ----------------------------------------------------------------------------------

PLANTED = """
import sys
from benchmarks import kernel_gpu
from benchmarks.kernel_gpu import Candidate, build_ours

def build(problem, table, clock):
    run = build_ours(problem, table, clock)
    return lambda number: 1.01 * run(number)  # one percent off

sys.exit(kernel_gpu.main(None, {"ours": Candidate(build_ours, ours=True), "planted": Candidate(build)}))
"""


def test_a_wrong_candidate_is_reported_not_timed_and_the_exit_status_is_1(tmp_path):
    out = tmp_path / "out.json"
    done = run("--dry", "--parts", "correctness", "benchmark", "--out", out, code=PLANTED)
    assert done.returncode == 1, done.stderr[-3000:]
    data = json.loads(out.read_text())
    assert {row["status"] for row in data["correctness"] if row["candidate"] == "planted"} == {"wrong"}
    for row in data["rows"]:
        assert row["candidates"]["ours"]["status"] == "timed"
        found = row["candidates"]["planted"]
        assert found["status"] == "left out" and found["reason"].startswith("wrong: error")
    assert data["complete"] and "planted, float16, NaN in stale slots: wrong, error" in done.stdout


@pytest.fixture
def session(tmp_path):
    """A dry session with two small cases."""
    options = kernel_gpu.parse(["--out", str(tmp_path / "out.json")])
    found = kernel_gpu.begin(options, {"ours": CANDIDATES["ours"]})
    cases = [Case(1, 20, 2, 2, 32, 16, "full"), Case(1, 24, 2, 2, 32, 16, "full")]
    found.plan = replace(found.plan, cases=cases, effort=Effort(samples=1, seconds=0.0, most_calls=1))
    return found


@interpreted
def test_each_case_is_checked_again_before_it_is_timed(session):
    """Right on the check's shapes, wrong in the last set of this one. And one that cannot run at all."""

    def build_wrong(problem, table, clock):
        ours = kernel_gpu.build_ours(problem, table, clock)
        return lambda number: ours(0)  # always the first set's numbers

    def build_failing(problem, table, clock):
        raise RuntimeError("no such instruction in /some/where/else.cu")

    session.candidates |= {"wrong": Candidate(build_wrong), "ours, failing": Candidate(build_failing)}
    case = session.plan.cases[0]
    assert session.rotation(case)[1] > 1
    found = kernel_gpu.measure(session, case, {})["candidates"]
    assert found.pop("ours")["status"] == "timed"
    assert found["wrong"]["status"] == "wrong" and "median_ms" not in found["wrong"]
    assert found["ours, failing"] == {
        "status": "failed",
        "reason": "RuntimeError: no such instruction in else.cu",
    }
    assert all(kernel_gpu.is_bad(name, result) for name, result in found.items())
    assert not kernel_gpu.is_bad("flex", found["ours, failing"]), "a baseline may be missing"


@interpreted
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_nan_is_never_right(session, broken):
    right = kernel_gpu.Reference([0], torch.zeros(1, 2, 4, dtype=torch.float64), 1e9)
    assert kernel_gpu.judge(lambda: torch.full((1, 2, 4), broken), right, session.clock)["status"] == "wrong"


@interpreted
def test_the_reference_is_attention_in_fp64_and_takes_nobody_for_its_own_yardstick():
    problem = Problem(Case(12, 50, 6, 2, 32, 4, "ragged"), torch.float16, 2, torch.device("cpu"))
    right = kernel_gpu.reference(problem, "shuffled", 1)
    assert len(right.sequences) == 8 and right.sequences[0] == 0 and right.sequences[-1] == 11
    out = kernel_gpu.paged.paged_attention(
        problem.query[1].double(), problem.keys[1].double(), problem.values[1].double(),
        problem.tables["shuffled"], problem.lens,
    )  # fmt: skip
    torch.testing.assert_close(right.out, out[right.sequences], rtol=1e-12, atol=1e-12)
    assert 1e-4 < right.tolerance < 0.02


@interpreted
@pytest.mark.parametrize("owner", ["shuffled", "identity"])
def test_poison_lies_in_all_stale_slots_and_nowhere_else(owner):
    case = Case(5, 9, 2, 1, 8, 4, "edges")
    problem = Problem(case, torch.float32, 2, torch.device("cpu"), math.nan, owner)
    slots = problem.keys.shape[1] * 4
    used = set()
    for row, length in zip(problem.tables[owner].tolist(), case.context_lens(), strict=True):
        mine = {row[position // 4] * 4 + position % 4 for position in range(length)}
        assert not used & mine and set(row[-(-length // 4) :]) <= {-1}
        used |= mine
    for cache in (problem.keys, problem.values):
        clean = ~cache.flatten(1, 2).isnan().any(dim=-1).any(dim=-1)  # [sets, slots]
        assert [{slot for slot in range(slots) if one[slot]} for one in clean] == [used, used]
    first = [row[0] for row in problem.tables["identity"].tolist()]
    assert (
        first == sorted(first) and problem.tables["shuffled"].tolist() != problem.tables["identity"].tolist()
    )


@interpreted
def test_the_contiguous_copy_holds_the_same_tokens_and_zeros_behind_them():
    case = Case(3, 10, 2, 2, 8, 4, "ragged")
    problem = Problem(case, torch.float32, 2, torch.device("cpu"), math.nan)
    keys, _ = problem.contiguous
    table = problem.tables["shuffled"].tolist()
    for sequence, length in enumerate(case.context_lens()):
        for position in range(10):
            there = keys[1, sequence, :, position]
            block = table[sequence][position // 4]
            wanted = problem.keys[1, block, position % 4] if position < length else torch.zeros(2, 8)
            assert torch.equal(there, wanted)


# -- arithmetic -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", ["full", "ragged", "edges", "empty"])
def test_kv_bytes_by_counting_every_number(lengths):
    case = Case(3, 37, 8, 2, 24, 16, lengths)
    numbers = sum(1 for length in case.context_lens() for _ in range(length) for _ in range(2 * 2 * 24))
    assert case.kv_bytes(2) == 2 * numbers and case.kv_bytes(4) == 4 * numbers


def test_ragged_lengths_are_seeded_and_span_the_context():
    lens = Case(64, 1000, 4, 2, 32, 16, "ragged").context_lens()
    assert lens == Case(64, 1000, 8, 8, 64, 1, "ragged").context_lens(), "the same for all heads and blocks"
    assert lens[0] == 1000 and min(lens) >= 1 and max(lens) == 1000 and len(set(lens)) > 50
    assert 400 < sum(lens) / 64 < 600


def test_percentiles():
    found = kernel_gpu.percentiles([float(number) for number in range(100, -1, -1)])
    assert (found.p10, found.median, found.p90, found.samples) == (10.0, 50.0, 90.0, 101)


@pytest.mark.parametrize("kv_bytes", [1, 2**19, 50 * 2**20, 399 * 2**20, 400 * 2**20, 10**11])
def test_the_rotation_is_four_times_the_cache_at_least_and_no_longer_than_it_must(kv_bytes):
    cache = 50 * 2**20
    sets = kernel_gpu.num_sets(kv_bytes, cache)
    assert sets * kv_bytes >= 4 * cache and sets >= 1
    assert sets == 1 or (sets - 1) * kv_bytes < 8 * cache


def test_a_sample_reads_enough_and_ends():
    effort = Effort()
    assert effort.passes(GB // 2, 1) == 4 and effort.passes(5 * GB, 1) == 1
    assert effort.passes(GB // 10, 4) == 5, "20 calls"
    assert effort.passes(2**19, 800) == 1, "the rotation is long enough"
    assert not effort.enough([0.05] * 19) and effort.enough([0.05] * 20)
    assert not effort.enough([1e-5] * 199) and effort.enough([1e-5] * 200)
    assert not effort.enough([1.0] * 4) and effort.enough([1.0] * 5)


def test_the_plan_has_every_axis_and_the_full_grid_where_it_should():
    cases = kernel_gpu.gpu_plan().cases
    assert len(cases) == len(set(cases))
    common = [case for case in cases if (case.num_heads, case.num_kv_heads, case.block_size) == (32, 8, 16)]
    for lengths in ("full", "ragged"):
        grid = {(case.batch, case.context) for case in common if case.lengths == lengths}
        batches = (1, 4, 16, 64, 256) if lengths == "full" else (4, 16, 64, 256)
        assert grid == {(batch, context) for batch in batches for context in (128, 512, 2048, 8192, 32768)}
    assert {case.block_size for case in cases} == {1, 16, 32, 128}
    assert {(case.num_heads, case.num_kv_heads) for case in cases} == {(32, 8), (32, 32), (64, 8)}
    assert {case.head_dim for case in cases} == {128} and len(cases) < 70
    groups = {case.num_heads // case.num_kv_heads for case in kernel_gpu.gpu_plan().tuned}
    assert groups == {1, 4, 8}


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
@pytest.mark.parametrize("group", [1, 3, 4, 8])
def test_the_sweep_has_the_default_launch_and_no_other_twice(capability, group):
    configs = kernel_gpu.sweep(group, capability)
    assert (
        len(configs) == len(set(configs))
        and kernel_gpu.launch.choose_config(group, 128, 2, capability) in configs
    )


def test_what_does_not_fit_in_memory_is_left_out():
    case = Case(4, 100, 8, 8, 128, 16, "full")  # 7 blocks of 16 a sequence
    blocks, padded = 4 * 112 * 2 * 8 * 128 * 2, 4 * 100 * 2 * 8 * 128 * 2
    both = {"sdpa", "sdpa, group as rows"}
    assert case.left_out(2, 3, 3 * blocks + 4 * padded) == {}
    assert set(case.left_out(2, 3, 3 * blocks + 4 * padded - 1)) == {"gather, then sdpa"}
    assert set(case.left_out(2, 3, 3 * blocks + 3 * padded - 1)) == both
    assert set(case.left_out(2, 3, 3 * blocks)) == both | {"gather, then sdpa"}
    assert "all" in case.left_out(2, 3, 3 * blocks - 1)
    assert "0.0 GB are free" in case.left_out(2, 3, 10)["all"]


def test_flex_attention_is_not_asked_where_its_kernel_would_leave_the_keys():
    """2^31 numbers are 131,072 blocks of 16 slots, 8 heads and 128 numbers."""
    flex, ours = CANDIDATES["flex"], CANDIDATES["ours"]
    within, beyond = (Case(1, 16 * blocks - 5, 32, 8, 128, 16, "full") for blocks in (131_071, 131_072))
    assert flex.unsuited(within) == "" and "2147483648 are too many" in flex.unsuited(beyond)
    assert ours.unsuited(beyond) == "" and flex.unsuited(replace(within, block_size=1)) != ""
    assert any(flex.unsuited(case) for case in kernel_gpu.gpu_plan().cases if case.block_size == 16)


@interpreted
def test_the_default_choice_is_the_one_that_the_kernel_takes(session):
    clock = session.clock
    config, splits = kernel_gpu.default_choice(Case(2, 8192, 32, 8, 128, 16, "full"), 2, clock)
    assert config == kernel_gpu.launch.choose_config(4, 128, 2, None) and splits == 1
    assert kernel_gpu.default_choice(Case(1, 8192, 1, 1, 128, 16, "full"), 2, clock)[1] == 8, (
        "two for each of four"
    )


# -- a run that is cut off, and one that goes on ----------------------------------------------------------------


def test_cases_are_skipped_when_memory_or_time_is_short(session, monkeypatch):
    def work(session, case, left_out):
        return {"case": asdict(case), "candidates": {}, "left_out": left_out, "kv_bytes": 1}

    first, second = session.plan.cases
    free = iter([first.kv_bytes(2) - 1, 2.0**30])
    monkeypatch.setattr(session.clock, "free", lambda: next(free), raising=False)
    kernel_gpu.run_cases(session, "rows", session.plan.cases, work, 1000)
    assert [row["case"] for row in session.data["rows"]] == [asdict(second)]
    (skipped,) = session.data["skipped"]
    assert skipped["case"] == asdict(first) and skipped["part"] == "rows" and "are free" in skipped["reason"]

    monkeypatch.setattr(session.clock, "free", lambda: 2.0**30, raising=False)
    session.start = time.perf_counter() - 5  # five seconds ago
    kernel_gpu.run_cases(session, "rows", session.plan.cases, work, 4)
    assert len(session.data["rows"]) == 1 and session.data["skipped"][-1]["reason"] == "4 s were over"
    kernel_gpu.run_cases(session, "rows", session.plan.cases, work, 60)
    assert [row["case"] for row in session.data["rows"]] == [asdict(second), asdict(first)], "none twice"
    assert json.loads(Path(session.out).read_text())["rows"] == session.data["rows"]


@interpreted
def test_a_run_that_is_cut_off_leaves_what_it_has_and_can_be_resumed(tmp_path, monkeypatch, session):
    out, calls = tmp_path / "cut.json", []

    def build(problem, table, clock):
        calls.append(problem.case)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return kernel_gpu.build_ours(problem, table, clock)

    monkeypatch.setattr(kernel_gpu, "dry_plan", lambda: session.plan)
    arguments = ["--parts", "benchmark", "--out", str(out)]
    candidates = {"ours": Candidate(build, ours=True)}
    with pytest.raises(KeyboardInterrupt):
        kernel_gpu.main(arguments, candidates)
    cut = json.loads(out.read_text())
    assert (
        cut["complete"] is False and cut["aborted"].startswith("KeyboardInterrupt") and len(cut["rows"]) == 1
    )
    assert kernel_gpu.main([*arguments, "--resume"], candidates) == 0
    whole = json.loads(out.read_text())
    assert whole["complete"] is True and whole["rows"][0] == cut["rows"][0] and len(whole["rows"]) == 2
    assert calls == [*session.plan.cases, session.plan.cases[1]] and not list(tmp_path.glob("*.part"))
    with pytest.raises(SystemExit, match="choose another --out"):
        kernel_gpu.main([*arguments, "--resume", "--dtype", "float32"], candidates)


@interpreted
def test_checks_that_were_cut_off_are_done_again(session):
    session.data["correctness"] = [{"candidate": "ours", "status": "right", "required": True}]
    session.save()
    session.resume()
    assert session.data["correctness"] == []
    session.data |= {"correctness": [{"candidate": "ours"}], "ceilings": {"read_gb_per_s": 1.0}}
    session.save()
    session.data |= {"correctness": [], "ceilings": {}}
    session.resume()
    assert session.data["correctness"] == [{"candidate": "ours"}] and session.data["ceilings"] == {
        "read_gb_per_s": 1.0
    }


@interpreted
def test_a_case_that_fails_as_a_whole_is_told_and_the_run_goes_on(session, monkeypatch):
    first, second = session.plan.cases
    monkeypatch.setattr(kernel_gpu, "dry_plan", lambda: session.plan)
    problem = kernel_gpu.Problem

    def too_large(case, *rest):
        if case == first:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return problem(case, *rest)

    monkeypatch.setattr(kernel_gpu, "Problem", too_large)
    status = kernel_gpu.main(["--parts", "benchmark", "--out", session.out], session.candidates)
    data = json.loads(Path(session.out).read_text())
    assert status == 1 and data["complete"] and [row["case"] for row in data["rows"]] == [asdict(second)]
    (failure,) = data["failures"]
    assert failure["case"] == asdict(first) and failure["part"] == "rows"
    assert failure["reason"] == "OutOfMemoryError: CUDA out of memory"


@interpreted
def test_bf16_is_refused_where_it_cannot_be_computed():
    with pytest.raises(SystemExit, match="use --dtype float16"):
        kernel_gpu.main(["--dtype", "bfloat16"])


# -- the verdict ----------------------------------------------------------------------------------------------


def row(kv_bytes=GB, block_size=16, share=0.95, **ms):
    """A made-up row: `ours` takes 1 ms unless said otherwise."""
    names = {"sdpa_rows": "sdpa, group as rows", "identity": "ours, identity table"}
    found = {
        names.get(name, name): {"status": "timed", "median_ms": time}
        for name, time in ({"ours": 1.0} | ms).items()
    }
    found["ours"]["share_of_read"] = share
    case = Case(1, kv_bytes, 32, 8, 128, block_size, "full")  # the context tells the rows apart
    return {"case": asdict(case), "kv_bytes": kv_bytes, "candidates": found}


def verdicts(*rows):
    return {goal["name"]: goal for goal in kernel_gpu.goals(list(rows))}


def test_without_rows_there_is_no_verdict():
    assert {goal["verdict"] for goal in verdicts().values()} == {"no case"}
    assert all(goal["worst"] is None and goal["worst_case"] is None for goal in verdicts().values())


@pytest.mark.parametrize(
    ("kv_bytes", "share", "name", "verdict"),
    [
        (GB, 0.90, "large_reads", "met"),
        (GB, 0.899, "large_reads", "not met"),
        (GB - 1, 0.70, "middle_reads", "met"),
        (GB // 5, 0.699, "middle_reads", "not met"),
        (GB // 5 - 1, 0.1, "middle_reads", "no case"),
        (GB, None, "large_reads", "no case"),
    ],
)
def test_the_share_of_the_read_ceiling(kv_bytes, share, name, verdict):
    found = verdicts(row(kv_bytes, share=share))
    assert found[name]["verdict"] == verdict
    other = {"large_reads": "middle_reads", "middle_reads": "large_reads"}[name]
    assert found[other]["verdict"] == "no case"


def test_the_worst_case_decides_and_is_named():
    found = verdicts(row(GB, share=0.95), row(GB + 1, share=0.5), row(GB + 2, share=0.89))["large_reads"]
    assert (found["verdict"], found["cases"], found["missed"], found["worst"]) == ("not met", 3, 2, 0.5)
    assert f"context {GB + 1} " in found["worst_case"]
    found = verdicts(row(GB, flex=2.0), row(GB + 1, flex=0.8), row(GB + 2, flex=0.9))["flex_attention"]
    assert (found["verdict"], found["missed"], found["worst"]) == ("not met", 2, 1.25)
    assert f"context {GB + 1} " in found["worst_case"]


def test_never_slower_means_than_the_faster_of_the_two_ways_to_call_sdpa():
    assert verdicts(row(sdpa=1.0, sdpa_rows=5.0))["contiguous_sdpa"]["verdict"] == "met"
    assert verdicts(row(sdpa=5.0, sdpa_rows=0.99))["contiguous_sdpa"]["verdict"] == "not met"
    assert verdicts(row(sdpa=5.0))["contiguous_sdpa"]["worst"] == 0.2
    assert verdicts(row(flex=5.0))["contiguous_sdpa"]["verdict"] == "no case"
    assert verdicts(row(flex=0.5))["flex_attention"]["verdict"] == "not met"


def test_the_price_of_paging_is_that_of_blocks_of_16():
    assert verdicts(row(ours=1.03, identity=1.0))["price_of_paging"]["verdict"] == "met"
    found = verdicts(row(ours=1.04, identity=1.0), row(ours=2.0, identity=1.0, block_size=1))[
        "price_of_paging"
    ]
    assert (found["verdict"], found["cases"], found["worst"]) == ("not met", 1, 1.04)


def test_what_was_not_timed_does_not_count():
    wrong = row(share=0.1, sdpa=0.1)
    wrong["candidates"]["ours"] = {"status": "wrong", "reason": "error"}
    assert {goal["verdict"] for goal in verdicts(wrong).values()} == {"no case"}
    failed = row(sdpa=0.1, sdpa_rows=2.0)
    failed["candidates"]["sdpa"] = {"status": "failed", "reason": "out of memory"}
    assert verdicts(failed)["contiguous_sdpa"]["worst"] == 0.5


# -- the CUDA clock, on a stand-in for torch.cuda ---------------------------------------------------------------


class StandIn:
    """As much of torch.cuda as the clock calls. Graphs run what they captured; events read a counter."""

    def __init__(self, monkeypatch, capture_fails=False):
        self.capture_fails, self.time, self.log = capture_fails, 0.0, []
        about = dict(name="a GPU", multi_processor_count=4, total_memory=2**34, L2_cache_size=4096)
        cuda = SimpleNamespace(
            current_device=lambda: 0,
            get_device_properties=lambda _: SimpleNamespace(**about),
            get_device_capability=lambda _: (9, 0),
            mem_get_info=lambda _: (1000, 2**34),
            synchronize=lambda _: None,
            empty_cache=lambda: None,
            CUDAGraph=lambda: self,
            graph=self.capture,
            Event=lambda enable_timing: Event(self),
        )
        names = "zeros", "float32", "compiler", "compile"
        fake = SimpleNamespace(
            cuda=cuda, device=lambda *_: "cpu", **{name: getattr(torch, name) for name in names}
        )
        monkeypatch.setattr(kernel_gpu, "torch", fake)
        monkeypatch.setattr(kernel_gpu, "driver_version", lambda: "1.2")

    @contextmanager
    def capture(self, graph, capture_error_mode):
        assert graph is self and capture_error_mode == "thread_local"
        self.log.append("capture")
        yield
        if self.capture_fails:
            raise RuntimeError("operation not permitted when stream is capturing")

    def replay(self):
        self.log.append("replay")
        self.time += 2.0


class Event:
    def __init__(self, stand_in):
        self.stand_in = stand_in

    def record(self):
        self.at = self.stand_in.time

    def elapsed_time(self, end):
        return end.at - self.at


def test_the_cuda_clock_warms_every_set_captures_the_passes_and_times_replays(monkeypatch):
    stand_in = StandIn(monkeypatch)
    clock, calls = kernel_gpu.CudaClock(), []
    assert clock.has_bfloat16 and clock.hardware["l2_bytes"] == 4096 and clock.hardware["driver"] == "1.2"
    assert clock.other_data.nbytes == 2 * 4096 and clock.free() == pytest.approx(920)
    replay, why = clock.record(calls.append, sets=3, passes=2)
    assert why == "" and calls == [0, 1, 2, 0, 1, 2, 0, 1, 2], "once to compile, twice in the graph"
    assert clock.turn({"a": replay, "b": replay}) == {"a": 0.002, "b": 0.002}
    assert stand_in.log == ["capture", "replay", "replay", "replay"]


def test_a_capture_that_fails_falls_back_to_launches_and_says_why(monkeypatch):
    StandIn(monkeypatch, capture_fails=True)
    calls = []
    replay, why = kernel_gpu.CudaClock().record(calls.append, sets=2, passes=1)
    assert why == "RuntimeError: operation not permitted when stream is capturing"
    calls.clear()
    replay()
    assert calls == [0, 1]


def test_candidates_take_turns_until_each_has_enough():
    order = []

    class Turns(kernel_gpu.WallClock):
        def turn(self, runs):
            order.append("".join(runs))
            return {name: {"a": 0.5, "b": 0.1}[name] for name in runs}

    effort = Effort(samples=2, seconds=0.3)
    found = kernel_gpu.sample(Turns(), {"a": None, "b": None}, effort)
    assert order[:2] == ["ab", "ab"] and order[2] == "b", "two samples are enough for a, b needs 0.3 s"
    assert (
        found["a"].samples == 2 and found["b"].samples in (3, 4) and found["b"].median == pytest.approx(0.1)
    )
