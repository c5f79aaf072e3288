"""What the decode kernel takes of a GPU that is not here: compiled for it, by Triton alone.

    python -m course_lib.attention.cross_compile          # a table: registers, spills, shared memory

Triton brings the compiler and the assembler, so this needs Linux and triton, and no GPU. The kernel must not be
interpreted: TRITON_INTERPRET must be unset in the process.
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from course_lib.attention import kernels

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

    config: kernels.Config
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
    if kernels.INTERPRETED:
        raise ValueError(
            "TRITON_INTERPRET is 1, and an interpreted kernel is not compiled: unset it, in a new process"
        )
    config = kernels.choose_config(group, head_dim, NUMBER_TYPES[number], capability)
    kernel, tensor = kernels._decode_kernel, f"*{number}"
    types = dict(out_ptr=tensor, lse_ptr="*fp32", query_ptr=tensor, key_ptr=tensor, value_ptr=tensor)
    types |= dict(table_ptr="*i32", context_ptr="*i32", scale="fp32", num_seqs="i32", table_width="i32")
    types |= dict(tiles_per_split="i32")
    constants = dict(NUM_KV_HEADS=8, GROUP=group, PARTS=-(-group // config.group_part), GP=config.group_part)
    constants |= dict(D=head_dim, DP=triton.next_power_of_2(head_dim), P=block_size, TILE=config.tile)
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
    print(
        f"{'GPU':8}{'group':>6}{'D':>5}{'':>6}{'heads':>7}{'tile':>6}{'warps':>7}{'registers':>11}{'spilled':>9}{'shared':>9}"
    )
    for capability, (name, _) in GPUS.items():
        for group, head_dim, number in CASES:
            found = compile_decode(capability, group=group, head_dim=head_dim, number=number)
            shape = found.config
            print(
                f"{name:8}{group:6}{head_dim:5}{number:>6}{shape.group_part:7}{shape.tile:6}{shape.num_warps:7}"
                f"{found.registers:11}{found.stack_bytes:7} B{found.shared_bytes / 1024:6.0f} KiB"
            )


if __name__ == "__main__":
    main()
