"""What the kernels take of a GPU that is not here: compiled for it, by Triton alone.

    python -m course_lib.attention.cross_compile                                # the decode kernel, many shapes
    python -m course_lib.attention.cross_compile --first 1024 2048 4096 8192    # kernel one, by its longest context
    python -m course_lib.attention.cross_compile --gpus T4 H100 --group 4 --head-dim 128

Each prints a table: registers, spills, shared memory. Triton brings the compiler and the assembler, so this needs Linux
and triton, and no GPU. The kernel must not be interpreted: TRITON_INTERPRET must be unset in the process.
"""

import argparse
import re
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from course_lib.attention import first_kernel, kernels
from course_lib.attention.launch import Config, choose_config, next_power_of_2

# Compute capability -> a GPU that has it, and shared memory in bytes that one program must stay within. 64 KiB is all
# that a T4 has; 99 KiB is what compute capability 8.6 gives to one block (NVIDIA's tuning guide for Ampere), and it is
# asked of the others, too.
GPUS = {
    (7, 5): ("T4", 64 * 1024),
    (8, 0): ("A100", 99 * 1024),
    (8, 6): ("A10", 99 * 1024),
    (8, 9): ("L4", 99 * 1024),
    (9, 0): ("H100", 99 * 1024),
    (10, 0): ("B200", 99 * 1024),
}
NUMBER_TYPES = {"fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class Resources:
    """What one program of the compiled kernel takes."""

    config: Config
    registers: int  # for each thread; 255 is the most there is
    stack_bytes: int  # for each thread: registers that did not fit are spilled there
    shared_bytes: int


def compile_decode(
    capability: tuple[int, int], *, group: int, head_dim: int, number: str = "fp16", block_size: int = 16
) -> Resources:
    """Compile the decode kernel for a GPU, in the configuration that `choose_config` gives it.

    Args:
        capability: such as (7, 5) for a T4.
        group: query heads for each KV head.
        head_dim: D.
        number: "fp16" or "fp32".

    Raises:
        ValueError: the kernel is interpreted in this process.
    """
    config = choose_config(group, head_dim, NUMBER_TYPES[number], capability)
    constants = _constants(group, head_dim, block_size, config) | dict(PARTS=-(-group // config.group_part))
    types = dict(lse_ptr="*fp32", num_seqs="i32", tiles_per_split="i32")
    return _compile(kernels._decode_kernel, capability, number, types, constants, config)


def compile_first(
    capability: tuple[int, int],
    context: int,
    *,
    group: int = 4,
    head_dim: int = 128,
    number: str = "fp16",
    num_warps: int | None = None,
) -> Resources:
    """Compile kernel one for a GPU, with room for a context.

    Args:
        context: the longest that it can serve, a power of two.
        group, head_dim, number: as for `compile_decode`.
        num_warps: of 32 threads; None takes what a launch takes.

    Raises:
        ValueError: the kernel is interpreted in this process.
    """
    config = first_kernel.shape_of_launch(group, capability)
    config = replace(config, num_warps=num_warps or config.num_warps)
    constants = _constants(group, head_dim, 16, config) | dict(CONTEXT=context)
    return _compile(
        first_kernel._first_kernel, capability, number, dict(scores_ptr="*fp32"), constants, config
    )


def compile_merge(capability: tuple[int, int], head_dim: int) -> Resources:
    """Compile the kernel that merges splits, for any number of them.

    Raises:
        ValueError: the kernel is interpreted in this process.
    """
    types = dict(
        lse_ptr="*fp32", part_out_ptr="*fp32", part_lse_ptr="*fp32", num_rows="i32", num_splits="i32"
    )
    constants = dict(D=head_dim, DP=next_power_of_2(head_dim), TILE=kernels.MERGE_TILE)
    return _compile(
        kernels._merge_kernel, capability, "fp16", types, constants, Config(1, kernels.MERGE_TILE, 4, 1)
    )


def _constants(group: int, head_dim: int, block_size: int, config: Config) -> dict[str, int]:
    """The compile-time arguments that both kernels have, for 8 KV heads."""
    shape = dict(D=head_dim, DP=next_power_of_2(head_dim), P=block_size, TILE=config.tile)
    return shape | dict(NUM_KV_HEADS=8, GROUP=group, GP=config.group_part)


def _compile(
    kernel: triton.JITFunction,
    capability: tuple[int, int],
    number: str,
    types: dict[str, str],
    constants: dict[str, int],
    config: Config,
) -> Resources:
    """Compile a kernel for a GPU; `types` are those of its own arguments."""
    if kernels.INTERPRETED:
        raise ValueError(
            "TRITON_INTERPRET is 1, and an interpreted kernel is not compiled: unset it, in a new process"
        )
    tensors = ("out_ptr", "query_ptr", "key_ptr", "value_ptr")
    types = types | dict.fromkeys(tensors, f"*{number}") | dict(table_ptr="*i32", context_ptr="*i32")
    types |= dict(scale="fp32", table_width="i32")
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    # torch's allocations begin at multiples of 16 bytes, and a launch tells the compiler so
    aligned = {
        (number,): [["tt.divisibility", 16]] for number, name in enumerate(signature) if name.endswith("_ptr")
    }
    compiled = triton.compile(
        ASTSource(kernel, signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", 10 * capability[0] + capability[1], 32),
        options=dict(num_warps=config.num_warps, num_stages=config.num_stages),
    )
    registers, stack = _usage(compiled.asm["cubin"])
    return Resources(config, registers, stack, compiled.metadata.shared)


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes of a compiled kernel, as the dump tool in Triton's package tells them."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        told = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", told.stdout)
    return int(found[1]), int(found[2])


CASES = [  # (group, head_dim, number): SmolLM2, Llama-3.1-8B, Llama-3.1-70B, MHA, wide heads, odd ones
    (3, 64, "fp16"), (4, 128, "fp16"), (8, 128, "fp16"), (1, 128, "fp16"), (16, 128, "fp16"), (4, 256, "fp16"),
    (1, 80, "fp16"), (5, 96, "fp16"), (3, 64, "fp32"), (4, 128, "fp32"), (16, 128, "fp32"), (4, 256, "fp32"),
]  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="compile the kernels for GPUs that are not here")
    names = [name for name, _ in GPUS.values()]
    parser.add_argument("--gpus", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--first", nargs="+", type=int, metavar="CONTEXT", help="kernel one, with room for these"
    )
    parser.add_argument("--group", type=int, help="query heads a KV head, with --head-dim")
    parser.add_argument("--head-dim", type=int, default=128)
    asked = parser.parse_args()
    targets = {name: capability for capability, (name, _) in GPUS.items() if name in asked.gpus}
    columns = f"{'heads':>7}{'tile':>6}{'warps':>7}{'registers':>11}{'spilled':>10}{'shared':>9}"
    if asked.first:
        print(f"{'GPU':6}{'context':>9}{columns}")
        for name, capability in targets.items():
            for context in asked.first:
                print(f"{name:6}{context:9,}{_row(compile_first(capability, context))}", flush=True)
        return
    cases = [(asked.group, asked.head_dim, "fp16")] if asked.group else CASES
    print(f"{'GPU':6}{'group':>6}{'D':>5}{'':>6}{columns}")
    for name, capability in targets.items():
        for group, head_dim, number in cases:
            found = compile_decode(capability, group=group, head_dim=head_dim, number=number)
            print(f"{name:6}{group:6}{head_dim:5}{number:>6}{_row(found)}", flush=True)


def _row(found: Resources) -> str:
    shape = found.config
    return (
        f"{shape.group_part:7}{shape.tile:6}{shape.num_warps:7}{found.registers:11}{found.stack_bytes:8} B"
        f"{found.shared_bytes / 1024:5.0f} KiB"
    )


if __name__ == "__main__":
    main()
