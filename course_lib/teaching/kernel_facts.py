"""What notebooks 05 and 06 ask about the kernels: their code, their errors, what they take, how fast they are."""

import html
import inspect
import json
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from IPython.display import HTML

from course_lib.attention import attention, write_kv
from course_lib.attention import paged_attention as gather_attention
from course_lib.attention.paged import slots_of
from course_lib.processes import for_a_child
from course_lib.teaching.kernel_lab import HERE, NoTriton
from course_lib.teaching.presets import GpuPreset, load_presets

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "kernel_gpu.json"


def show_code(kernel: Any, first: str, last: str) -> None:
    """Print a kernel's lines from the one that holds `first` to the next one that holds `last`."""
    lines = inspect.getsource(kernel.fn).splitlines()
    begin = next(number for number, line in enumerate(lines) if first in line)
    end = next(number for number, line in enumerate(lines) if number >= begin and last in line)
    print(textwrap.dedent("\n".join(lines[begin : end + 1])))


def beside_2023() -> HTML:
    """Kernel one beside a sketch of the kernel of 2023, folded."""
    from course_lib.attention import first_kernel

    ours = inspect.getsource(first_kernel._first_kernel.fn)
    theirs = (
        files("course_lib.teaching")
        .joinpath("recorded", "paged_attention_2023.cu")
        .read_text(encoding="utf-8")
    )
    cells = "".join(
        f'<td style="vertical-align:top;text-align:left"><b>{title}</b>'
        f'<pre style="font-size:80%">{html.escape(code)}</pre></td>'
        for title, code in (("Kernel one, in Triton", ours), ("The idea of 2023, in CUDA C++", theirs))
    )
    return HTML(
        "<details><summary>Kernel one beside the kernel of 2023, as a sketch in CUDA C++</summary>"
        f"<table><tr>{cells}</tr></table></details>"
    )


def gpu_presets(*names: str) -> list[GpuPreset]:
    """GPUs by their data sheets."""
    return [load_presets()[1][name] for name in names]


def cross_compile(*options: str) -> None:
    """Compile the course's kernels for GPUs that are not here, and print what they take.

    Args:
        options: as for `python -m course_lib.attention.cross_compile`, in a process that does not interpret.
    """
    if not HERE:
        raise NoTriton("nothing can be compiled: there is no Triton for this system")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "course_lib.attention.cross_compile", *options]
    done = subprocess.run(command, env=for_a_child(environment), capture_output=True, text=True)
    print(done.stdout.rstrip() if done.returncode == 0 else f"✗ it did not compile: {done.stderr[-500:]}")


# -- is it right? ---------------------------------------------------------------------------------------------


def problem(
    lens: Sequence[int],
    *,
    group: int,
    num_kv_heads: int,
    head_dim: int,
    block_size: int,
    dtype: torch.dtype = torch.float32,
    loud: float = 3.0,
    seed: int = 0,
) -> tuple[list[torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]:
    """Sequences on shuffled blocks, NaN in every slot that holds no token, -1 in every unused entry of the tables.

    Args:
        lens: tokens of each sequence.
        loud: how much larger than usual the queries are, so that a softmax is far from flat.

    Returns:
        [query, key_cache, value_cache, block_tables, context_lens] as paged attention takes them, on the CPU; and the
        (key, value) of each sequence, [S, Hkv, D].
    """
    make = torch.Generator().manual_seed(seed)
    width = max(1, math.ceil(max(lens) / block_size))
    free = torch.randperm(len(lens) * width + 2, generator=make).tolist()
    shape = len(free), block_size, num_kv_heads, head_dim
    caches = [torch.full(shape, math.nan, dtype=dtype) for _ in range(2)]
    tables, sequences = torch.full((len(lens), width), -1, dtype=torch.int32), []
    for table, length in zip(tables, lens, strict=True):
        blocks = math.ceil(length / block_size)
        table[:blocks] = torch.tensor([free.pop() for _ in range(blocks)])
        key, value = torch.randn(2, length, num_kv_heads, head_dim, generator=make).to(dtype)
        write_kv(key, value, *caches, slots_of(table, length, block_size))
        sequences.append((key, value))
    query = (loud * torch.randn(len(lens), num_kv_heads * group, head_dim, generator=make)).to(dtype)
    return [query, *caches, tables, torch.tensor(lens, dtype=torch.int32)], sequences


def truth(
    query: torch.Tensor, sequences: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense attention of each row over its sequence: in fp64, and by PyTorch's own function in the query's dtype.

    Returns:
        two tensors [B, Hq, D] on the CPU; an empty sequence gives zeros.
    """
    exact = torch.zeros(query.shape, dtype=torch.float64)
    theirs = torch.zeros(query.shape, dtype=query.dtype)
    for number, (row, (key, value)) in enumerate(zip(query.cpu(), sequences, strict=True)):
        if len(key):
            exact[number] = attention(row[None].double(), key.double(), value.double())[0]
            by_head = [tensor.transpose(0, 1)[None] for tensor in (key, value)]
            theirs[number] = F.scaled_dot_product_attention(row[None, :, None], *by_head, enable_gqa=True)[
                0, :, 0
            ]
    return exact, theirs


def error_table(device: torch.device) -> dict[str, list[float]]:
    """Largest error against fp64: PyTorch's own, the gather's, kernel one's, kernel two's, for each kind of input."""
    from course_lib.attention import first_kernel, kernels

    shape = dict(group=3, num_kv_heads=2, head_dim=64, block_size=16)
    rows = {}
    for dtype in (torch.float32, torch.float16):
        for loud in (3.0, 30.0):
            inputs, sequences = problem([45, 1, 0, 17], **shape, dtype=dtype, loud=loud)
            exact, theirs = truth(inputs[0], sequences)
            inputs = [tensor.to(device) for tensor in inputs]
            found = [theirs, gather_attention(*inputs), first_kernel.paged_attention(*inputs)]
            found += [kernels.paged_attention(*inputs, num_splits=2)]
            errors = [(out.cpu().double() - exact).abs().max().item() for out in found]
            rows[f"{str(dtype).removeprefix('torch.')}, queries x {loud:g}"] = errors
    return rows


# -- how fast is it? ------------------------------------------------------------------------------------------


def results() -> dict | None:
    """What benchmarks/kernel_gpu.py measured on a GPU; None if nobody has run it on one."""
    if not RESULTS.exists():
        return None
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    return None if found.get("dry") else found


def measured() -> None:
    """Print the stored measurements, or that there are none."""
    found = results()
    if found is None:
        print("measured on: nothing yet.")
        print("On a machine with a GPU, `make bench BENCH=kernel_gpu` fills this in.")
        return
    machine = found["machine"]
    print(f"measured on: {machine['hardware']['gpu']}, {machine['date']}, {found['dtype']}")
    ceilings = found["ceilings"]
    print(
        f"reading reaches {ceilings['read_gb_per_s']:,.0f} GB/s there, copying {ceilings['copy_gb_per_s']:,.0f}"
    )
    print("share of the read ceiling that each reaches:\n" + "\n".join(_result_lines(found["rows"])))
    for goal in found["goals"]:
        sign = {"met": "✓", "not met": "✗"}.get(goal["verdict"], "○")
        print(f"{sign} {goal['text']}: {goal['verdict']}")


def _case(case: Mapping) -> str:
    heads = f"{case['num_heads']}/{case['num_kv_heads']}"
    return (
        f"{case['batch']} x {case['context']:,}, heads {heads}, block {case['block_size']}, {case['lengths']}"
    )


def _result_lines(rows: Sequence[Mapping]) -> list[str]:
    """The largest cases: GB of keys and values, and the share of each candidate."""
    largest = sorted(rows, key=lambda row: row["kv_bytes"])[-6:]
    names = ["ours", "ours, identity table", "sdpa", "gather, then sdpa", "flex"]
    lines = [f"{'case':46}{'GB':>7}" + "".join(f"{name:>22}" for name in names)]
    for row in largest:
        cells = []
        for name in names:
            candidate = row["candidates"].get(name, {})
            timed = candidate.get("status") == "timed"
            cells.append(
                f"{candidate['share_of_read']:22.0%}" if timed else f"{candidate.get('status', '-'):>22}"
            )
        lines.append(f"{_case(row['case']):46}{row['kv_bytes'] / 1e9:7.2f}" + "".join(cells))
    return lines


def measured_splits() -> None:
    """Print what the sweep over splits found on a GPU, or that nobody has run it."""
    tuning = (results() or {}).get("tuning") or []
    if not tuning:
        print("measured on: nothing yet. `make bench BENCH=kernel_gpu ARGS=--tune` on a GPU fills this in.")
    for row in tuning:
        ours, best = row["default"]["num_splits"], row["best"]["num_splits"]
        print(
            f"{_case(row['case']):46} splits: {ours} chosen, {best} best ({row['default_to_best']:.2f} x its time)"
        )
