"""The kernels against fp64 and against PyTorch's own error, in Triton's interpreter, or on a GPU where there is one."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

triton = pytest.importorskip("triton", reason="no Triton here")

from course_lib.attention import attention, cross_compile, first_kernel, kernels  # noqa: E402
from course_lib.attention import write_kv as torch_write_kv  # noqa: E402
from course_lib.attention.launch import Config, choose_config, choose_num_splits  # noqa: E402
from course_lib.teaching import kernel_facts  # noqa: E402
from course_lib.teaching.kernel_lab import run_watched  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
DEVICE = "cpu" if kernels.INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.float16] + ([] if kernels.INTERPRETED else [torch.bfloat16])
pytestmark = pytest.mark.skipif(
    not kernels.INTERPRETED and not torch.cuda.is_available(), reason="no GPU, and TRITON_INTERPRET is not 1"
)


def problem(lens, group, num_kv_heads, head_dim, block_size, dtype, loud=3.0):
    """Shuffled blocks, NaN in every slot that holds no token, -1 in every unused entry of the tables."""
    shape = dict(group=group, num_kv_heads=num_kv_heads, head_dim=head_dim, block_size=block_size)
    inputs, sequences = kernel_facts.problem(lens, **shape, dtype=dtype, loud=loud)
    return [tensor.to(DEVICE) for tensor in inputs], sequences


def expected(query, sequences):
    """(out, lse) in fp64, and the error that PyTorch makes in the query's dtype on the same numbers."""
    outs, lses, theirs = [], [], 0.0
    for row, (key, value) in zip(query.cpu(), sequences, strict=True):
        if len(key) == 0:
            outs.append(torch.zeros_like(row, dtype=torch.float64))
            lses.append(torch.full((len(row),), -math.inf, dtype=torch.float64))
            continue
        outs.append(attention(row[None].double(), key.double(), value.double())[0])
        repeated = key.double().repeat_interleave(len(row) // key.shape[1], 1)
        scores = torch.einsum("hd,shd->hs", row.double(), repeated) / row.shape[1] ** 0.5
        lses.append(scores.logsumexp(-1))
        sdpa = F.scaled_dot_product_attention(
            row[None, :, None], key.transpose(0, 1)[None], value.transpose(0, 1)[None], enable_gqa=True
        )[0, :, 0]
        theirs = max(theirs, (sdpa.double() - outs[-1]).abs().max().item())
    return torch.stack(outs), torch.stack(lses), theirs


def hold_against_fp64(inputs, sequences, **options):
    out, lse = kernels.paged_attention(*inputs, return_lse=True, validate=True, **options)
    right, right_lse, theirs = expected(inputs[0], sequences)
    assert out.dtype == inputs[0].dtype and lse.dtype == torch.float32
    error = (out.cpu().double() - right).abs().max().item()
    assert error <= 4 * theirs + 1e-5, f"error {error:.2e}; PyTorch's own in {out.dtype} is {theirs:.2e}"
    torch.testing.assert_close(lse.cpu().double(), right_lse, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("group", "num_kv_heads", "head_dim", "block_size"),
    [
        (1, 2, 64, 16),
        (3, 3, 64, 16),
        (4, 2, 128, 1),
        (8, 1, 80, 32),
        (16, 1, 64, 5),
        (5, 2, 96, 16),
        (4, 1, 256, 16),
    ],
)
def test_a_kernel_that_walks_the_table_is_dense_attention(group, num_kv_heads, head_dim, block_size, dtype):
    lens = [1, block_size, block_size + 1, 0, 45, max(1, block_size - 1)]
    hold_against_fp64(*problem(lens, group, num_kv_heads, head_dim, block_size, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("group", "num_kv_heads", "head_dim", "block_size"),
    [(1, 2, 64, 16), (3, 3, 64, 16), (4, 1, 128, 1), (5, 2, 80, 5)],
)
def test_kernel_one_which_keeps_all_scores_is_dense_attention(
    group, num_kv_heads, head_dim, block_size, dtype
):
    lens = [1, block_size, 0, 45, block_size + 1]
    inputs, sequences = problem(lens, group, num_kv_heads, head_dim, block_size, dtype, loud=10.0)
    right, _, theirs = expected(inputs[0], sequences)
    out = first_kernel.paged_attention(*inputs)
    assert out.dtype == dtype
    error = (out.cpu().double() - right).abs().max().item()
    assert error <= 4 * theirs + 1e-5, f"error {error:.2e}; PyTorch's own in {out.dtype} is {theirs:.2e}"


def test_kernel_one_refuses_what_the_other_refuses():
    with pytest.raises(ValueError, match="3 query heads cannot share 2 KV heads"):
        first_kernel.paged_attention(**spoiled(query=lambda q: q[:, :3].contiguous()))
    with pytest.raises(ValueError, match="not contiguous"):
        first_kernel.paged_attention(
            **spoiled(query=lambda q: q.transpose(0, 1).contiguous().transpose(0, 1))
        )
    inputs, _ = problem([3], 2, 1, 64, 16, torch.float32)
    query, key_cache, value_cache, tables, contexts = inputs
    assert first_kernel.paged_attention(
        query[:0], key_cache, value_cache, tables[:0], contexts[:0]
    ).shape == (0, 2, 64)


@pytest.mark.parametrize("num_splits", [2, 3, 7, 40])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_splits_are_merged_and_empty_ones_weigh_nothing(num_splits, dtype):
    """97 tokens in tiles of 32 are four tiles: of seven splits some are empty, of 40 most; 40 are merged in turns."""
    hold_against_fp64(*problem([97, 1, 0, 33], 4, 2, 64, 16, dtype), num_splits=num_splits)


@pytest.mark.parametrize("config", [Config(2, 16, 4, 1), Config(1, 16, 4, 1), Config(16, 16, 4, 1)])
def test_a_group_may_be_divided_among_programs_or_padded(config):
    hold_against_fp64(*problem([20, 3], 5, 2, 64, 16, torch.float32), config=config, num_splits=2)


def test_queries_thirty_times_larger():
    hold_against_fp64(*problem([40, 7], 3, 1, 64, 16, torch.float16, loud=30.0), num_splits=2)


def test_two_sequences_may_share_blocks():
    (query, key_cache, value_cache, tables, contexts), sequences = problem(
        [40, 40], 3, 1, 64, 16, torch.float32
    )
    tables[1, :2] = tables[0, :2]
    sequences[1] = tuple(torch.cat([a[:32], b[32:]]) for a, b in zip(*sequences, strict=True))
    hold_against_fp64([query, key_cache, value_cache, tables, contexts], sequences)


def test_a_cache_beyond_two_to_the_31_numbers():
    """Block 131,073 of 16 slots, 8 heads and 128 numbers lies beyond the reach of int32. Pages that nobody touches cost
    no memory."""
    try:
        caches = [torch.empty(131_080, 16, 8, 128, dtype=torch.float16, device=DEVICE) for _ in range(2)]
    except RuntimeError as error:
        pytest.skip(f"no room for two caches of 4 GiB: {error}")
    make = torch.Generator().manual_seed(0)
    key, value = (torch.randn(3, 8, 128, generator=make).half() for _ in range(2))
    slots = torch.arange(3) + 131_075 * 16
    kernels.write_kv(key.to(DEVICE), value.to(DEVICE), *caches, slots.to(DEVICE))
    assert torch.equal(caches[0][131_075, :3].cpu(), key) and torch.equal(caches[1][131_075, :3].cpu(), value)
    query = torch.randn(1, 8, 128, generator=make).half()
    tables, contexts = (torch.tensor(x, dtype=torch.int32, device=DEVICE) for x in ([[131_075]], [3]))
    out = kernels.paged_attention(query.to(DEVICE), *caches, tables, contexts)
    torch.testing.assert_close(out.cpu(), attention(query, key, value), rtol=1e-2, atol=2e-3)


def test_a_freed_blocks_contents_never_reach_another_request():
    """The same tokens in a clean cache and in one full of another request's numbers: equal bit by bit."""
    inputs, _ = problem([19, 5], 4, 2, 64, 16, torch.float32)
    clean = kernels.paged_attention(*inputs)
    for cache in inputs[1:3]:
        cache[cache.isnan()] = 1e4
    assert torch.equal(kernels.paged_attention(*inputs), clean)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_writing_puts_every_token_into_its_slot_and_leaves_the_rest(dtype):
    make = torch.Generator().manual_seed(0)
    key, value = (torch.randn(5, 3, 80, generator=make).to(dtype) for _ in range(2))
    slots = torch.tensor([7, -1, 0, 11, 4])
    ours, right = ([torch.full((4, 3, 3, 80), 9.0, dtype=dtype) for _ in range(2)] for _ in range(2))
    torch_write_kv(key, value, *right, slots)
    on_device = [cache.to(DEVICE) for cache in ours]
    kernels.write_kv(key.to(DEVICE), value.to(DEVICE), *on_device, slots.to(DEVICE))
    for cache, wanted in zip(on_device, right, strict=True):
        assert torch.equal(cache.cpu(), wanted)


def test_nothing_to_do_is_no_error():
    inputs, _ = problem([3], 2, 1, 64, 16, torch.float32)
    query, key_cache, value_cache, tables, contexts = inputs
    assert kernels.paged_attention(query[:0], key_cache, value_cache, tables[:0], contexts[:0]).shape == (
        0,
        2,
        64,
    )
    kernels.write_kv(key_cache[0, :0], value_cache[0, :0], key_cache, value_cache, contexts[:0].long())


def spoiled(**changes):
    names = ["query", "key_cache", "value_cache", "block_tables", "context_lens"]
    inputs, _ = problem([20, 3], 2, 2, 64, 16, torch.float32)
    arguments = dict(zip(names, inputs, strict=True))
    return {name: changes[name](value) if name in changes else value for name, value in arguments.items()}


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ({}, dict(query_start_loc=torch.tensor([0, 1, 2], dtype=torch.int32)), "this kernel decodes"),
        ({}, dict(num_splits=0), "num_splits must be .* got 0"),
        (dict(query=lambda q: q[:, :3]), {}, "3 query heads cannot share 2 KV heads"),
        (dict(query=lambda q: q.half()), {}, "query is torch.float16, the cache torch.float32"),
        (dict(query=lambda q: q.transpose(0, 1).contiguous().transpose(0, 1)), {}, "not contiguous"),
        (dict(block_tables=lambda t: t.long()), {}, "block_tables must be .* int32"),
        (dict(context_lens=lambda c: c + 90), dict(validate=True), "a context of 110: its table of 2 blocks"),
        (dict(block_tables=lambda t: t + 900), dict(validate=True), r"block_tables\[0, 0\] is 9\d\d, within"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_refused(arguments, options, said):
    with pytest.raises(ValueError, match=said):
        kernels.paged_attention(**spoiled(**arguments), **options)


@pytest.mark.skipif(not kernels.INTERPRETED, reason="the interpreter's own limits")
def test_the_interpreter_refuses_bf16_which_it_computes_wrongly():
    arguments = {name: lambda x: x.bfloat16() for name in ("query", "key_cache", "value_cache")}
    with pytest.raises(ValueError, match="the interpreter computes bf16 wrongly"):
        kernels.paged_attention(**spoiled(**arguments))


def compiled(code):
    """Run code in a process in which kernels are compiled, not interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )


def test_without_gpu_and_interpreter_the_way_out_is_told():
    done = compiled(
        "import torch; from course_lib.attention import kernels\n"
        "x = torch.zeros(1, 1, 64); c = torch.zeros(1, 16, 1, 64); i = torch.ones(1, dtype=torch.int32)\n"
        "kernels.paged_attention(x, c, c, i[None] * 0, i)"
    )
    assert (
        "ValueError: a kernel runs on a GPU and the tensors are on cpu: set TRITON_INTERPRET=1" in done.stderr
    )


# -- the shape of a launch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", range(1, 17))
@pytest.mark.parametrize("head_dim", [64, 80, 96, 128, 256])
def test_on_turing_a_program_stays_small_and_elsewhere_it_fills_a_tensor_core(group, head_dim):
    turing = choose_config(group, head_dim, 2, (7, 5))
    assert turing.group_part * triton.next_power_of_2(head_dim) <= 1024 and turing.tile <= 32
    assert choose_config(group, head_dim, 2, (8, 0)).group_part == 16


def test_splits_fill_a_small_batch_and_leave_a_large_one_alone():
    assert choose_num_splits(8, 131_072, 64, 132) == 33
    assert choose_num_splits(132 * 2, 131_072, 64, 132) == 1
    assert choose_num_splits(1, 512, 64, 132) == 2, "four tiles at least in each"
    assert choose_num_splits(1, 100, 64, 132) == 1


@pytest.mark.slow
def test_the_kernel_compiles_for_every_gpu_without_spilling(capsys):
    """No GPU is needed. No shipped configuration spills registers, or wants more shared memory than there is."""
    done = compiled(
        "import json; from course_lib.attention.cross_compile import CASES, GPUS, compile_decode, compile_merge\n"
        "for capability, (gpu, shared) in GPUS.items():\n"
        "    for group, head_dim, number in CASES:\n"
        "        r = compile_decode(capability, group=group, head_dim=head_dim, number=number)\n"
        "        case = [gpu, group, head_dim, number]\n"
        "        print(json.dumps([*case, r.registers, r.stack_bytes, r.shared_bytes, shared]))\n"
        "    for head_dim in (128, 256):\n"
        "        r = compile_merge(capability, head_dim)\n"
        "        print(json.dumps([gpu, 'merge', head_dim, '', r.registers, r.stack_bytes, r.shared_bytes, shared]))"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    import json

    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 6 * 12 + 6 * 2
    bad = [row for row in rows if row[5] > 0 or row[6] > row[7]]
    assert not bad, f"(GPU, group, D, type, registers, stack bytes, shared bytes, limit): {bad}"
    with capsys.disabled():
        print(
            f"\n{len(rows)} kernels compiled, up to {max(r[4] for r in rows)} registers, none spills",
            flush=True,
        )


@pytest.mark.slow
def test_kernel_one_hits_its_wall_between_4096_and_8192_tokens():
    """A row of scores is held in registers, of which a thread has 255 at most: the next longer context spills. With
    twice the threads the wall stands at twice the context."""
    done = compiled(
        "from course_lib.attention.cross_compile import compile_first\n"
        "for capability in [(7, 5), (8, 0), (8, 9), (9, 0)]:\n"
        "    print(*[compile_first(capability, c).stack_bytes for c in (4096, 8192)])\n"
        "print(*[compile_first((9, 0), c, num_warps=8).stack_bytes for c in (8192, 16384)])"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *usual, doubled = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(usual) == 4 and doubled[0] == 0 < doubled[1]
    for largest, too_long in usual:
        assert largest == 0 and 550 < too_long < 700, "notebook 05 says some 600 bytes at 8,192 tokens"


COMPILE = """
import os
os.environ["TRITON_INTERPRET"] = "0"  # said aloud, or the exercises would choose the interpreter
import cells, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from course_lib.teaching.exercises import lesson_05, lesson_06
sizes = dict(HKV=2, H=2, GROUP=4, GP=4, D=64, P=16, TILE=32, ROOM=64, NUMBERS=48, PADDED=64)
sizes["update"] = lesson_06.online_update
integers = dict(table_ptr="*i32", context_ptr="*i32", slot_ptr="*i32", place_ptr="*i64")
kernels = [cells.write_keys, cells.walk_keys, cells.kernel_two, lesson_06._attend_tiles, lesson_06.row_softmax]
kernels += [lesson_05.locate, lesson_05.far_place, lesson_05.sum_tile, lesson_05.packed_scores]
for kernel in kernels:
    types = {name: "*fp32" if name.endswith("_ptr") else "i32" for name in kernel.arg_names} | integers
    types = {name: "constexpr" if name in sizes else types[name] for name in kernel.arg_names}
    constants = {name: sizes[name] for name in kernel.arg_names if name in sizes}
    for capability in (75, 80, 90):
        triton.compile(ASTSource(kernel, types, constexprs=constants), target=GPUTarget("cuda", capability, 32))
    print(kernel.__name__)
"""


@pytest.mark.slow
def test_the_notebooks_kernels_and_the_solutions_compile(tmp_path):
    """What learners see runs interpreted here; on a GPU the same code is compiled, which asks more of it."""
    cells = []
    for lesson in ("05_gpu_kernel", "06_online_softmax"):
        text = (ROOT / "lessons" / f"{lesson}.md").read_text(encoding="utf-8")
        cells += re.findall(r"^@triton.jit\n(?:(?!```).+\n)+", text, re.MULTILINE)
    whole = [cell for cell in cells if "= ..." not in cell and "=..." not in cell]
    imports = "import triton\nimport triton.language as tl\n"
    imports += "from course_lib.teaching.exercises.lesson_06 import online_update as update\n"
    (tmp_path / "cells.py").write_text("\n\n".join([imports, *whole]))
    done = compiled(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{COMPILE}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.split()) == 9


def test_kernel_one_reaches_beyond_two_to_the_31_numbers():
    try:
        caches = [torch.empty(131_080, 16, 8, 128, dtype=torch.float16, device=DEVICE) for _ in range(2)]
    except RuntimeError as error:
        pytest.skip(f"no room for two caches of 4 GiB: {error}")
    make = torch.Generator().manual_seed(0)
    key, value = (torch.randn(3, 8, 128, generator=make).half() for _ in range(2))
    torch_write_kv(key.to(DEVICE), value.to(DEVICE), *caches, (torch.arange(3) + 131_075 * 16).to(DEVICE))
    query = torch.randn(1, 8, 128, generator=make).half()
    tables, contexts = (torch.tensor(x, dtype=torch.int32, device=DEVICE) for x in ([[131_075]], [3]))
    out = first_kernel.paged_attention(query.to(DEVICE), *caches, tables, contexts)
    torch.testing.assert_close(out.cpu(), attention(query, key, value), rtol=1e-2, atol=2e-3)


def test_splits_beyond_two_to_the_31_numbers_are_merged():
    """The second split of row 0 begins at number 2^31 + 128."""
    rows, head_dim = 2**24 + 1, 128
    try:
        part_out = torch.empty((rows + 1) * head_dim, dtype=torch.float16, device=DEVICE)
    except RuntimeError as error:
        pytest.skip(f"no room for 4 GiB: {error}")
    part_lse = torch.empty(rows + 1, device=DEVICE)
    part_lse[0] = part_lse[rows] = 0.0  # of equal weight
    part_out[:head_dim], part_out[rows * head_dim :] = 1.0, 3.0
    out, lse = torch.empty(1, head_dim, device=DEVICE), torch.empty(1, device=DEVICE)
    kernels._merge_kernel[(1,)](out, lse, part_out, part_lse, rows, 2, D=head_dim, DP=head_dim, TILE=16)
    torch.testing.assert_close(out.cpu(), torch.full((1, head_dim), 2.0))
    assert lse.item() == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("function", [kernels.paged_attention, first_kernel.paged_attention])
def test_a_scale_is_taken_as_it_is_given(function):
    (query, *rest), sequences = problem([20, 3], 3, 2, 64, 16, torch.float32)
    key, value = sequences[0]
    out = function(query, *rest, scale=0.05)
    torch.testing.assert_close(
        out[0].cpu(), attention(query[:1].cpu(), key, value, scale=0.05)[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("function", [kernels.paged_attention, first_kernel.paged_attention])
@pytest.mark.parametrize("name", ["query", "key_cache", "value_cache", "block_tables"])
def test_no_tensor_may_have_gaps(function, name):
    with pytest.raises(ValueError, match="not contiguous"):
        function(**spoiled(**{name: lambda x: x.transpose(0, 1).contiguous().transpose(0, 1)}))


@pytest.mark.parametrize(("group", "head_dim"), [(5, 80), (3, 64), (1, 96)])
def test_no_kernel_touches_anything_outside_of_its_tensors(group, head_dim):
    """Also where padded lanes would land behind the last row, and where nothing that is stored would show it."""
    inputs, _ = kernel_facts.problem([9, 0, 21], group=group, num_kv_heads=2, head_dim=head_dim, block_size=4)
    query, *_, tables, _ = inputs
    shape = dict(NUM_KV_HEADS=2, GROUP=group, D=head_dim, DP=128 if head_dim > 64 else 64, P=4, TILE=16)
    padded, width = triton.next_power_of_2(group), tables.shape[1]
    parts = torch.zeros(2, *query.shape), torch.zeros(2, *query.shape[:2])
    numbers = 0.1, len(query), width, 1  # the third tile is left out
    run_watched(kernels._decode_kernel, (3, 2, 2), *parts, *inputs, *numbers, PARTS=1, GP=padded, **shape)
    rows = len(query) * query.shape[1]
    merged = torch.zeros_like(query), torch.zeros(query.shape[:2])
    run_watched(kernels._merge_kernel, (rows,), *merged, *parts, rows, 2, D=head_dim, DP=shape["DP"], TILE=16)
    room = torch.zeros_like(query), torch.zeros(*query.shape[:2], 32)
    run_watched(
        first_kernel._first_kernel, (3, 2), *room, *inputs, 0.1, width, GP=padded, CONTEXT=32, **shape
    )


@pytest.mark.parametrize("capability", [(7, 5), (9, 0)])
@pytest.mark.parametrize(("group", "head_dim"), [(5, 96), (16, 128), (3, 64), (4, 256), (17, 64)])
def test_the_decode_kernel_is_compiled_in_as_many_parts_as_it_is_launched(
    monkeypatch, capability, group, head_dim
):
    taken = {}
    monkeypatch.setattr(
        cross_compile, "_compile", lambda *arguments: taken.update(arguments[4], config=arguments[5])
    )
    cross_compile.compile_decode(capability, group=group, head_dim=head_dim)
    assert (taken["PARTS"] - 1) * taken["GP"] < group <= taken["PARTS"] * taken["GP"]
    assert taken["GP"] == taken["config"].group_part and taken["TILE"] == taken["config"].tile


def test_limits_of_shared_memory_are_those_of_the_data_sheets():
    """CUDA C++ Programming Guide, table of compute capabilities: shared memory of a block, in KiB."""
    most = {(7, 5): 64, (8, 0): 163, (8, 6): 99, (8, 9): 99, (9, 0): 227, (10, 0): 227}
    for capability, (gpu, limit) in cross_compile.GPUS.items():
        assert limit <= most[capability] * 1024, gpu


@pytest.mark.slow
def test_a_gpu_is_compiled_for_as_itself():
    done = compiled(
        "from course_lib.attention import cross_compile as c\n"
        "compile, targets = c.triton.compile, []\n"
        "c.triton.compile = lambda *a, target, **k: targets.append(target.arch) or compile(*a, target=target, **k)\n"
        "for capability in c.GPUS: c.compile_merge(capability, 64)\n"
        "print(*targets)"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["75", "80", "86", "89", "90", "100"]


def test_the_table_of_the_command_line_asks_for_what_it_is_told(monkeypatch, capsys):
    found = cross_compile.Resources(Config(4, 32, 4, 1), 100, 0, 65536)
    asked = []
    for name in ("compile_first", "compile_decode"):
        monkeypatch.setattr(cross_compile, name, lambda *a, **k: asked.append((a, k)) or found)
    monkeypatch.setattr(sys, "argv", ["cross_compile", "--first", "1024", "4096", "--gpus", "T4", "H100"])
    cross_compile.main()
    assert [a for a, _ in asked] == [(gpu, context) for gpu in ((7, 5), (9, 0)) for context in (1024, 4096)]
    asked.clear()
    monkeypatch.setattr(sys, "argv", ["cross_compile", "--group", "6", "--head-dim", "64", "--gpus", "H100"])
    cross_compile.main()
    assert asked == [(((9, 0),), dict(group=6, head_dim=64, number="fp16"))]
    assert capsys.readouterr().out.splitlines()[-1].split() == "H100 6 64 fp16 4 32 4 100 0 B 64 KiB".split()
