"""Kernels taken apart: the watched interpreter, its findings, and what happens where there is no Triton."""

import ast
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="no Triton here")

from course_lib.teaching import check, kernel_facts, kernel_lab
from course_lib.teaching.kernel_lab import NothingStored, Race, WildAccess, run_watched, tl, triton

ROOT = Path(__file__).resolve().parent.parent


@triton.jit
def doubled(out_ptr, x_ptr, num_read, num_written, TILE: tl.constexpr, STEP: tl.constexpr):
    index = tl.program_id(0) * STEP + tl.arange(0, TILE)
    x = tl.load(x_ptr + index, mask=index < num_read, other=0.0)
    tl.store(out_ptr + index, 2 * x, mask=index < num_written)


@triton.jit
def undefined_lanes(out_ptr, x_ptr, count, TILE: tl.constexpr):
    index = tl.arange(0, TILE)
    tl.store(out_ptr + index, tl.load(x_ptr + index, mask=index < count))


@triton.jit
def stores_nothing(x_ptr, TILE: tl.constexpr):
    tl.load(x_ptr + tl.arange(0, TILE))


@triton.jit
def block_heads(out_ptr, table_ptr, P: tl.constexpr, TILE: tl.constexpr):
    entry = tl.load(table_ptr + tl.arange(0, TILE) // P)
    tl.store(out_ptr + tl.arange(0, TILE), entry)


@triton.jit
def unfinished(out_ptr):
    value = ...
    tl.store(out_ptr, value)


@triton.jit
def total_of(function: tl.constexpr, out_ptr, x_ptr, TILE: tl.constexpr):
    tl.store(out_ptr, function(tl.load(x_ptr + tl.arange(0, TILE))))


@triton.jit
def sum_of_squares(x):
    return tl.sum(x * x, axis=0)


def test_every_access_is_written_down():
    x, out = torch.arange(10.0), torch.zeros(10)
    accesses = run_watched(doubled, (3,), out, x, 10, 10, TILE=4, STEP=4)
    assert torch.equal(out, 2 * x)
    assert [(a.program[0], a.kind, a.tensor, a.bytes) for a in accesses] == [
        (0, "load", "x", 16), (0, "store", "out", 16),
        (1, "load", "x", 16), (1, "store", "out", 16),
        (2, "load", "x", 8), (2, "store", "out", 8),
    ]  # fmt: skip
    assert accesses[4].index.tolist() == [8, 9, -1, -1] and accesses[4].mask.tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert kernel_lab.bytes_moved(accesses) == {"x": 40, "out": 40}


def test_lanes_that_read_the_same_number_count_once():
    out = torch.zeros(8, dtype=torch.int32)
    accesses = run_watched(block_heads, (1,), out, torch.tensor([3, 9], dtype=torch.int32), P=4, TILE=8)
    assert out.tolist() == [3] * 4 + [9] * 4
    assert kernel_lab.bytes_moved(accesses) == {"table": 8, "out": 32}


def test_an_access_outside_of_all_tensors_is_stopped():
    x, out = torch.arange(10.0), torch.zeros(10)
    with pytest.raises(WildAccess, match=r"program \(2, 0, 0\) reads element 10 of x, which has 10"):
        run_watched(doubled, (3,), out, x, 14, 10, TILE=4, STEP=4)
    with pytest.raises(WildAccess, match=r"writes element 1\d of out, which has 10"):
        run_watched(doubled, (3,), out, x, 10, 14, TILE=4, STEP=4)


def test_two_programs_that_write_one_place_are_found():
    x, out = torch.arange(10.0), torch.zeros(10)
    with pytest.raises(Race, match=r"programs \(0, 0, 0\) and \(1, 0, 0\) both write element 3 of out"):
        run_watched(doubled, (2,), out, x, 10, 10, TILE=4, STEP=3)


def test_a_masked_lane_without_other_is_undefined():
    out = torch.zeros(4)
    run_watched(undefined_lanes, (1,), out, torch.ones(4), 3, TILE=4)
    assert out[:3].tolist() == [1.0, 1.0, 1.0] and out[3].isnan()


def test_a_kernel_that_leaves_nothing_behind_is_told():
    with pytest.raises(NothingStored, match="stores_nothing has run, and nothing is stored"):
        run_watched(stores_nothing, (1,), torch.ones(4), TILE=4)


def test_a_kernel_may_take_a_function():
    out = torch.zeros(1)
    run_watched(total_of, (1,), sum_of_squares, out, torch.tensor([1.0, 2.0, 3.0, 4.0]), TILE=4)
    assert out.item() == 30.0


def test_gaps_are_found():
    assert kernel_lab.has_gaps(unfinished) and not kernel_lab.has_gaps(doubled)


def test_the_interpreter_is_left_as_it_was():
    from triton.runtime.interpreter import interpreter_builder

    before = interpreter_builder.create_masked_load
    for grid in ((3,), (9,)):  # one that runs, one that is stopped
        try:
            run_watched(doubled, grid, torch.zeros(10), torch.ones(10), 10, 40, TILE=4, STEP=4)
        except WildAccess:
            pass
    assert interpreter_builder.create_masked_load == before


def compiled(code):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_INTERPRET"] = "0"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_where_kernels_are_compiled_exercises_are_interpreted_and_compiling_still_works():
    done = compiled(
        "import os; os.environ['TRITON_ALWAYS_COMPILE'] = '1'\n"
        "from course_lib.teaching import check\n"
        "from course_lib.teaching.exercises import EXERCISES\n"
        "from course_lib.attention.cross_compile import compile_decode\n"
        "for exercise in EXERCISES.values():\n"
        "    kernel = exercise.solution\n"
        "    if exercise.launch: print(type(kernel).__name__, check.judge(exercise, kernel))\n"
        "print(compile_decode((8, 0), group=4, head_dim=64).stack_bytes, 'bytes spilled')\n"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("JITFunction passed") == 6 and "0 bytes spilled" in done.stdout


def test_code_is_shown_from_line_to_line(capsys):
    kernel_facts.show_code(doubled, "x = tl.load", "tl.store")
    assert capsys.readouterr().out.splitlines() == [
        "x = tl.load(x_ptr + index, mask=index < num_read, other=0.0)",
        "tl.store(out_ptr + index, 2 * x, mask=index < num_written)",
    ]


def test_the_problem_is_hostile():
    inputs, sequences = kernel_facts.problem([9, 0, 4], group=3, num_kv_heads=2, head_dim=8, block_size=4)
    query, key_cache, value_cache, tables, contexts = inputs
    assert query.shape == (3, 6, 8) and contexts.tolist() == [9, 0, 4]
    assert (tables >= 0).sum(1).tolist() == [3, 0, 1] and (tables[tables < 0] == -1).all()
    assert (~key_cache.isnan()).sum() == (~value_cache.isnan()).sum() == 13 * 2 * 8
    assert torch.equal(key_cache[tables[2, 0]], sequences[2][0])
    assert len(set(tables[tables >= 0].tolist())) == 4


def test_errors_are_those_of_each_path():
    rows = kernel_facts.error_table(torch.device("cpu"))
    assert len(rows) == 4 and all(len(errors) == 4 and min(errors) > 0 for errors in rows.values())
    assert max(rows["float32, queries x 3"]) < 1e-5 < max(rows["float16, queries x 3"]) < 1e-2


# -- results of a GPU -----------------------------------------------------------------------------------------

CASE = dict(num_heads=32, num_kv_heads=8, head_dim=128, block_size=16, lengths="full")
FOUND = {
    "dry": False,
    "device": "cuda",
    "dtype": "bfloat16",
    "machine": {"hardware": {"gpu": "NVIDIA H200"}, "date": "2027-01-01"},
    "ceilings": {"read_gb_per_s": 4600.0, "copy_gb_per_s": 4300.0},
    "rows": [
        {
            "case": dict(batch=64, context=8192, **CASE),
            "kv_bytes": 2_147_483_648,
            "candidates": {
                "ours": {"status": "timed", "share_of_read": 0.91},
                "sdpa": {"status": "timed", "share_of_read": 0.62},
                "flex": {"status": "failed", "reason": "no such thing"},
            },
        }
    ],
    "goals": [{"text": "90% of the read ceiling from 1 GB on", "verdict": "met"}],
    "tuning": [
        {
            "case": dict(batch=1, context=32_768, **CASE),
            "default": {"num_splits": 33},
            "best": {"num_splits": 16},
            "default_to_best": 1.04,
        }
    ],
}


def test_without_results_nothing_is_claimed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(kernel_facts, "RESULTS", tmp_path / "none.json")
    kernel_facts.measured()
    kernel_facts.measured_splits()
    assert capsys.readouterr().out.count("measured on: nothing yet") == 2


def test_results_of_a_dry_run_are_no_results(monkeypatch, tmp_path, capsys):
    import json

    (tmp_path / "dry.json").write_text(json.dumps({**FOUND, "dry": True}))
    monkeypatch.setattr(kernel_facts, "RESULTS", tmp_path / "dry.json")
    kernel_facts.measured()
    assert "measured on: nothing yet" in capsys.readouterr().out


def test_results_are_shown_as_they_stand(monkeypatch, tmp_path, capsys):
    import json

    (tmp_path / "found.json").write_text(json.dumps(FOUND))
    monkeypatch.setattr(kernel_facts, "RESULTS", tmp_path / "found.json")
    kernel_facts.measured()
    kernel_facts.measured_splits()
    told = capsys.readouterr().out
    assert "measured on: NVIDIA H200, 2027-01-01, bfloat16" in told and "4,600 GB/s" in told
    row = next(
        line for line in told.splitlines() if line.startswith("64 x 8,192, heads 32/8, block 16, full")
    )
    assert row.split()[8:] == ["2.15", "91%", "-", "62%", "-", "failed"]
    assert "✓ 90% of the read ceiling from 1 GB on: met" in told
    assert "33 chosen, 16 best (1.04 x its time)" in told


# -- exercises on kernels ---------------------------------------------------------------------------------------


def test_a_kernels_error_is_told_with_the_learners_line():
    verdict = check.judge(check._exercises()["sum_tile"], breaks)
    assert verdict.headline.startswith("it raised") and "no_such_name" in verdict.got


@triton.jit
def breaks(out_ptr, value_ptr, table_ptr, context_len, P: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr):
    tl.store(out_ptr + tl.arange(0, D), no_such_name)  # noqa: F821


def test_undefined_integers_are_garbage_too():
    assert kernel_lab._garbage(np.dtype("int32")) == 2**31 - 1


# -- no Triton ----------------------------------------------------------------------------------------------------


@pytest.fixture
def without_triton(tmp_path):
    """An environment in which triton cannot be imported, as on macOS."""
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text(
        "raise ModuleNotFoundError('none here', name='triton')\n"
    )
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


def test_a_kernel_can_be_written_where_there_is_no_triton(without_triton):
    code = (
        "from course_lib.teaching import check\n"
        "from course_lib.teaching.kernel_lab import HERE, tl, triton\n"
        "from course_lib.teaching.exercises import lesson_05\n"
        "print(HERE); check.locate(lesson_05.locate); check.reveal('locate')\n"
        "try: lesson_05.locate[(1,)]()\n"
        "except Exception as error: print(repr(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=without_triton, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("False\n○ locate: kernels need Triton, which is not here")
    assert "position = start + tl.arange(0, TILE)" in done.stdout
    assert "NoTriton('locate cannot run: there is no Triton for this system')" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["05_gpu_kernel", "06_online_softmax"])
def test_a_notebook_runs_to_the_end_where_there_is_no_triton(name, without_triton, tmp_path):
    """Its kernels' cells say what is missing and show what is stored; everything else runs."""
    import nbformat
    from nbclient import NotebookClient

    stored = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT)}})
    client.execute(env=without_triton)
    answered = 0
    for before, after in zip(stored.cells, notebook.cells, strict=True):
        if after.cell_type != "code":
            continue
        printed = "".join(output.get("text", "") for output in after.outputs)
        assert not any(output.output_type == "error" for output in after.outputs), after.source
        if "this cell needs Triton" in printed:
            answered += 1
            kept = "".join(output.get("text", "") for output in before.outputs)
            assert kept.strip() in printed
        elif "nbval-ignore-output" not in after.metadata.get("tags", []):
            kept = "".join(output.get("text", "") for output in before.outputs)
            assert printed == kept, after.source
    assert answered >= 4


@triton.jit
def filled_lanes(out_ptr, x_ptr, count, TILE: tl.constexpr):
    index = tl.arange(0, TILE)
    tl.store(out_ptr + index, tl.load(x_ptr + index, mask=index < count, other=7.0))


def test_a_masked_lane_with_other_has_its_value():
    out = torch.zeros(4)
    run_watched(filled_lanes, (1,), out, torch.ones(4), 3, TILE=4)
    assert out.tolist() == [1.0, 1.0, 1.0, 7.0]


@triton.jit
def one_place(out_ptr, x_ptr):
    tl.store(out_ptr, tl.load(x_ptr))


@pytest.mark.parametrize(("grid", "other"), [((2,), "1, 0, 0"), ((1, 2), "0, 1, 0"), ((1, 1, 2), "0, 0, 1")])
def test_a_race_is_found_on_the_first_element_and_along_every_axis(grid, other):
    with pytest.raises(Race, match=rf"programs \(0, 0, 0\) and \({other}\) both write element 0 of out"):
        run_watched(one_place, grid, torch.zeros(1), torch.ones(1))


@triton.jit
def divided(out_ptr, x_ptr, y_ptr):
    tl.store(out_ptr, tl.load(x_ptr) / tl.load(y_ptr))


def test_infinities_and_nan_of_a_kernel_are_not_warned_of():
    out = torch.zeros(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_watched(divided, (1,), out, torch.zeros(1), torch.zeros(1))
    assert out.isnan()


def test_a_call_of_a_kernel_is_what_it_was():
    """What is interpreted for a watched run is compiled again behind it."""
    from triton.runtime.jit import JITFunction

    before = JITFunction.__call__
    run_watched(one_place, (1,), torch.zeros(1), torch.ones(1))
    assert JITFunction.__call__ is before


def test_the_last_line_that_is_shown_is_not_sought_before_the_first(capsys):
    kernel_facts.show_code(doubled, "tl.store", "index")
    told = capsys.readouterr().out.splitlines()
    assert told == ["tl.store(out_ptr + index, 2 * x, mask=index < num_written)"]


def test_each_column_of_the_errors_is_of_its_own_path(monkeypatch):
    from course_lib.attention import first_kernel, kernels

    options = {}
    for number, (module, name) in enumerate(
        [(kernel_facts, "gather_attention"), (first_kernel, "paged_attention"), (kernels, "paged_attention")],
        start=1,
    ):

        def wrong(query, *rest, _number=number, **given):
            options[_number] = given
            return torch.full_like(query, 1000.0 * _number)

        monkeypatch.setattr(module, name, wrong)
    for errors in kernel_facts.error_table(torch.device("cpu")).values():
        assert errors[0] < 1 and [round(error / 1000) for error in errors[1:]] == [1, 2, 3]
    assert options == {1: {}, 2: {}, 3: {"num_splits": 2}}


def test_the_largest_cases_and_missed_goals_are_shown(monkeypatch, tmp_path, capsys):
    import json

    row = FOUND["rows"][0]
    rows = [
        {**row, "case": {**row["case"], "batch": n}, "kv_bytes": n * 10**9} for n in (8, 1, 3, 2, 7, 5, 6, 4)
    ]
    goals = [{"text": text, "verdict": text} for text in ("met", "not met", "not measured")]
    (tmp_path / "found.json").write_text(json.dumps({**FOUND, "rows": rows, "goals": goals}))
    monkeypatch.setattr(kernel_facts, "RESULTS", tmp_path / "found.json")
    kernel_facts.measured()
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told if ", heads" in line] == ["3", "4", "5", "6", "7", "8"]
    assert told[-3:] == ["✓ met: met", "✗ not met: not met", "○ not measured: not measured"]


@pytest.mark.slow
def test_kernels_are_compiled_from_a_notebook_that_interprets(monkeypatch, capsys):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    kernel_facts.cross_compile("--gpus", "H100", "--group", "4")
    head, row = capsys.readouterr().out.splitlines()
    assert head.startswith("GPU") and row.split()[:4] == ["H100", "4", "128", "fp16"]
    kernel_facts.cross_compile("--gpus", "no such GPU")
    assert capsys.readouterr().out.startswith("✗ it did not compile: ")


class _Shell:
    def __init__(self):
        self.ast_transformers, self.user_ns = [], {"In": [""]}


def _run_cell(shell, source):
    """As IPython runs a cell: transformed, then executed in the user's names."""
    shell.user_ns["In"].append(source)
    tree = ast.parse(source)
    for transformer in shell.ast_transformers:
        tree = transformer.visit(tree)
    exec(compile(tree, "cell", "exec"), shell.user_ns)


@pytest.fixture
def shell(monkeypatch):
    from course_lib.teaching import no_triton

    shell = _Shell()
    monkeypatch.setattr(no_triton, "get_ipython", lambda: shell)
    monkeypatch.setattr(no_triton, "display", lambda value: print(f"displayed {value}"))
    no_triton.answer_for_it()
    no_triton.answer_for_it()  # as when the first cell runs twice
    return shell


def test_only_what_triton_is_to_blame_for_is_answered(shell, capsys):
    assert len(shell.ast_transformers) == 1
    _run_cell(shell, "raise ImportError('none here', name='triton.language')\nlost = 1")
    assert "this cell needs Triton" in capsys.readouterr().out
    _run_cell(shell, "lost + 1")  # a name that the cell before did not come to make
    assert "this cell needs Triton" in capsys.readouterr().out
    for source, error in (
        ("never_made", NameError), ("import no_such_module", ImportError), ("1 / 0", ZeroDivisionError)
    ):  # fmt: skip
        with pytest.raises(error):
            _run_cell(shell, source)
    _run_cell(shell, "None")
    _run_cell(shell, "6 * 7")
    assert capsys.readouterr().out == "displayed 42\n"


def test_a_name_counts_as_missing_only_if_a_cell_without_triton_did_not_make_it(shell, capsys):
    """Names of the learner's own failed cell, and names that were there before, stay the learner's own affair."""
    with pytest.raises(ZeroDivisionError):
        _run_cell(shell, "1 / 0; mine = 1")
    _run_cell(shell, "there = 2")
    _run_cell(shell, "raise ImportError('none here', name='triton')\nthere = lost = 3")
    _run_cell(shell, "del there")
    for name in ("mine", "there"):
        with pytest.raises(NameError):
            _run_cell(shell, name)
