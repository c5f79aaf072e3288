"""The decode kernel on a GPU: right first, then how fast, beside what the memory and PyTorch can do.

    python -m benchmarks.kernel_gpu                              # about 12 minutes, writes results/kernel_gpu.json
    python -m benchmarks.kernel_gpu --tune                       # and a sweep of launch shapes
    python -m benchmarks.kernel_gpu --seconds 500 --resume       # go on where a run that was cut off stopped
    python -m benchmarks.kernel_gpu --dry                        # no GPU: tiny shapes in Triton's interpreter

One query a sequence. All candidates get the same queries, keys, values and lengths, and are held against fp64 in every
case before they are timed; what is wrong is not timed, and the exit status is 1. KV sets are rotated so that the L2
cache does not answer, a CUDA graph holds a whole rotation, and candidates take turns. With "ragged" lengths, 1 to
context, contiguous candidates are padded to the longest and get a boolean mask. The JSON holds

    dry, device, complete, aborted, command, dtype, seconds, machine {date, hardware, versions ...}
    correctness  [{candidate, dtype, case, poison, required, status "right" | "wrong" | "failed", error ...}]
    ceilings     {read_gb_per_s, copy_gb_per_s (reads and writes), bytes, launches [every one that was tried]}
    rows         [{case, kv_bytes, sets, calls_per_sample, candidates {name: {status "timed" | "wrong" | "failed" |
                 "left out", reason, median_ms, p10_ms, p90_ms, gb_per_s, share_of_read, eager_ms (launch by launch),
                 planning_s, first_call_s (compiles) ...}}}]; GB/s counts the KV bytes that a step must read
    tuning       [{case, default {config, num_splits, ms}, best {...}, default_to_best, tried, failed}]
    skipped      [{part, case, reason}]: it does not fit in memory, or the time was up
    failures     [{part, case, reason}]: what ended a part or a case before its time, and none of the candidates
    goals        [{name, text, limit, cases, missed, worst, worst_case, verdict "met" | "not met" | "no case"}]

and is written anew after every case, so that a run that is cut off leaves what it has.
"""

import argparse
import gc
import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# Triton decides at its first import whether kernels are interpreted, so this comes before it.
INTERPRETED = "--dry" in sys.argv or not torch.cuda.is_available()
if INTERPRETED:
    os.environ["TRITON_INTERPRET"] = "1"
else:
    os.environ.pop("TRITON_INTERPRET", None)

import triton  # noqa: E402
import triton.language as tl  # noqa: E402

from benchmarks.machine import RESULTS, machine  # noqa: E402
from course_lib.attention import attention, kernels, launch, paged  # noqa: E402
from course_lib.attention.launch import Config  # noqa: E402

GB = 10**9
PARTS = "correctness", "ceilings", "benchmark", "tuning"
Run = Callable[[int], torch.Tensor]  # number of a KV set -> [B, Hq, D], or a shape that reads like it
Replay = Callable[[], None]  # all that one sample times

# -- what is measured -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One decode step."""

    batch: int
    context: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    block_size: int
    lengths: str  # "full", "ragged", or for checks "edges" of a block and "empty" contexts

    def __str__(self) -> str:
        heads = f"heads {self.num_heads}/{self.num_kv_heads}"
        return f"batch {self.batch} context {self.context} {heads} block {self.block_size} {self.lengths}"

    def context_lens(self) -> list[int]:
        block = self.block_size
        if self.lengths == "edges":
            return [self.context, 1, max(1, block - 1), block, block + 1]
        if self.lengths == "empty":
            return [0, self.context, 0]
        if self.lengths == "full":
            return [self.context] * self.batch
        draw = random.Random(f"{self.batch} {self.context}")
        # One sequence has the whole context, so that the case deserves its name.
        return [self.context] + [draw.randint(1, self.context) for _ in range(self.batch - 1)]

    def num_slots(self) -> int:
        """In the blocks that hold the contexts."""
        return sum(-(-length // self.block_size) * self.block_size for length in self.context_lens())

    def bytes_of(self, tokens: int, bytes_per_number: int) -> int:
        return 2 * tokens * self.num_kv_heads * self.head_dim * bytes_per_number

    def kv_bytes(self, bytes_per_number: int) -> int:
        """What a decode step must read: keys and values of every token, once."""
        return self.bytes_of(sum(self.context_lens()), bytes_per_number)

    def left_out(self, bytes_per_number: int, sets: int, free_bytes: float) -> dict[str, str]:
        """Candidate -> why it does not fit in memory; "all" if the blocks alone do not."""
        lens, taken, reasons = self.context_lens(), 0, {}
        in_blocks = self.bytes_of(self.num_slots(), bytes_per_number)
        padded = self.bytes_of(len(lens) * max(lens), bytes_per_number)
        wanted = {"all": sets * in_blocks, "sdpa": sets * padded, "gather, then sdpa": padded}
        for name, size in wanted.items():
            if taken + size > free_bytes:
                reasons[name] = f"{(taken + size) / GB:.1f} GB in all, {free_bytes / GB:.1f} GB are free"
            else:
                taken += size
        if "sdpa" in reasons:
            reasons["sdpa, group as rows"] = reasons["sdpa"]  # the two share a copy
        return reasons


@dataclass(frozen=True)
class Effort:
    """How often a candidate is timed."""

    samples: int = 20
    seconds: float = 0.2  # at least, all samples together
    most_samples: int = 200
    most_seconds: float = 2.0  # a slow candidate stops here, with five samples
    sample_bytes: int = 2 * GB  # KV that one sample reads, so that it is long beside a launch
    most_calls: int = 20  # in a sample, unless the rotation has more sets

    def enough(self, seconds: list[float]) -> bool:
        if len(seconds) >= self.most_samples or (len(seconds) >= 5 and sum(seconds) >= self.most_seconds):
            return True
        return len(seconds) >= self.samples and sum(seconds) >= self.seconds

    def passes(self, kv_bytes: int, sets: int) -> int:
        """How often a sample goes through the rotation."""
        return max(1, -(-min(self.most_calls, -(-self.sample_bytes // kv_bytes)) // sets))


def num_sets(kv_bytes: int, l2_bytes: int) -> int:
    """KV sets that are rotated: eight times the L2 cache. Four would do if it forgot in strict order."""
    return max(1, -(-8 * l2_bytes // kv_bytes))


@dataclass(frozen=True)
class Plan:
    """What one run does."""

    checks: list[Case]
    cases: list[Case]
    tuned: list[Case]
    sweep: Callable[[int, tuple[int, int] | None], list[Config]]  # of the group and the GPU's capability
    reads: list[tuple[int, int, int]]  # (programs for each multiprocessor, numbers in a load, warps)
    read_bytes: int
    effort: Effort


def gpu_plan() -> Plan:
    """The full grid for block 16 and heads (32, 8); the other axes at three points of it."""
    grid = [(batch, context) for context in (128, 512, 2048, 8192, 32768) for batch in (1, 4, 16, 64, 256)]
    points = [(1, 8192), (16, 2048), (64, 8192)]
    cases = [Case(*point, 32, 8, 128, 16, "full") for point in grid]
    cases += [Case(*point, 32, 8, 128, 16, "ragged") for point in grid if point[0] > 1]
    cases += [Case(*point, 32, 8, 128, block, "full") for block in (1, 32, 128) for point in points]
    for heads, point in itertools.product([(32, 32), (64, 8)], points):
        cases += [Case(*point, *heads, 128, 16, lengths) for lengths in ("full", "ragged")[: point[0]]]
    shapes = [(32, 8, 128, 16), (4, 4, 64, 32), (16, 2, 128, 1), (9, 3, 64, 16)]
    checks = [Case(5, 700, *shape, "edges") for shape in shapes] + [Case(3, 300, 32, 8, 128, 16, "empty")]
    tuned = [(1, 2048), (1, 32768), (16, 8192), (128, 8192)]
    tuned = [Case(*point, 8 * group, 8, 128, 16, "full") for group in (4, 1, 8) for point in tuned]
    reads = list(itertools.product((2, 4, 8, 16), (2048, 4096, 8192), (4, 8)))
    return Plan(checks, cases, tuned, sweep, reads, 8 * 2**30, Effort())


def dry_plan() -> Plan:
    """The same on shapes that an interpreter finishes in seconds."""
    shapes = [(2, 24, 4, 2, 32, 16, "full"), (3, 40, 4, 1, 32, 16, "ragged"), (1, 20, 2, 2, 32, 1, "full")]
    cases = [Case(*shape) for shape in shapes]
    checks = [Case(5, 40, 4, 2, 32, 16, "edges"), Case(3, 20, 2, 2, 32, 4, "empty")]
    configs = [Config(2, 16, 4, 1), Config(4, 32, 4, 1)]
    effort = Effort(samples=3, seconds=0.0, most_calls=1)
    return Plan(checks, cases, cases[:1], lambda *_: configs, [(1, 1024, 4), (2, 2048, 4)], 2**18, effort)


def sweep(group: int, capability: tuple[int, int]) -> list[Config]:
    """Launch shapes that are tried for a group of query heads."""
    padded = launch.next_power_of_2(group)
    if capability < (8, 0):  # no tensor cores there: small tiles, or registers spill
        parts = {padded, max(1, padded // 2)}
        return [Config(*shape, 1) for shape in itertools.product(sorted(parts), (16, 32), (2, 4, 8))]
    rows = max(16, padded)  # that a tensor core takes
    shapes = [*itertools.product((32, 64, 128), (4, 8), (2, 3, 4)), (32, 2, 3), (64, 2, 2), (64, 2, 3)]
    unpadded = [Config(padded, 64, 4, stages) for stages in (2, 3) if padded < rows]
    return [Config(rows, *shape) for shape in shapes] + unpadded


class Problem:
    """Queries, and keys and values in shuffled blocks, in several sets that differ in nothing but their numbers.

    poison: what slots hold that the table `owner` does not use; None leaves them as they are.
    """

    def __init__(
        self, case: Case, dtype: torch.dtype, sets: int, device: torch.device,
        poison: float | None = None, owner: str = "shuffled",
    ):  # fmt: skip
        self.case, self.sets, lens = case, sets, case.context_lens()
        counts = [-(-length // case.block_size) for length in lens]
        num_blocks = sum(counts) + 2  # two that nobody owns
        torch.manual_seed(0)
        identity = torch.full((len(lens), max(counts)), -1, dtype=torch.int32)
        for row, count, first in zip(identity, counts, itertools.accumulate([0, *counts]), strict=False):
            row[:count] = torch.arange(first, first + count)
        shuffled = torch.where(identity < 0, -1, torch.randperm(num_blocks)[identity.clamp(min=0)].int())
        self.tables = {"identity": identity.to(device), "shuffled": shuffled.to(device)}
        self.lens = torch.tensor(lens, dtype=torch.int32, device=device)
        new = partial(torch.empty, dtype=dtype, device=device)
        # Loud queries, or softmax is flat and hides errors.
        self.query = new(sets, len(lens), case.num_heads, case.head_dim).normal_(0, 3)
        pool = sets, num_blocks, case.block_size, case.num_kv_heads, case.head_dim
        self.keys, self.values = new(pool).normal_(), new(pool).normal_()
        if poison is not None:
            stale = torch.ones(num_blocks * case.block_size, dtype=torch.bool, device=device)
            stale[self.plan(owner).slots[self.plan(owner).seen]] = False
            for cache in (self.keys, self.values):
                cache.flatten(1, 2)[:, stale] = poison

    def plan(self, table: str) -> paged.Gather:
        """The slots that each sequence reads: made once a step in an engine, and outside the clock here."""
        return paged.plan_gather(self.tables[table], self.lens, self.case.block_size)

    @property
    def mask(self) -> torch.Tensor | None:
        """[B, 1, 1, S] bool, what a padded sequence may look at; None where nothing is padded."""
        seen = self.plan("shuffled").seen
        return None if bool(seen.all()) else seen[:, None, None]

    @cached_property
    def contiguous(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The same keys and values side by side, [sets, B, Hkv, S, D], zeros behind the end of a sequence."""
        plan, lens, shape = self.plan("shuffled"), self.case.context_lens(), self.keys.shape
        new = partial(self.keys.new_zeros, self.sets, len(lens), shape[3], max(lens), shape[4])
        copies = new(), new()
        for cache, copy in zip((self.keys, self.values), copies, strict=True):
            for number, (row, length) in itertools.product(range(self.sets), enumerate(lens)):
                tokens = cache[number].flatten(0, 1)[plan.slots[row, :length]]  # [length, Hkv, D]
                copy[number, row, :, :length] = tokens.transpose(0, 1)
        return copies


# -- who takes part -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """One way to attend. `build` does what comes before a step; what it returns is the step."""

    build: Callable[[Problem, str, "Clock"], Run]
    table: str = "shuffled"
    ours: bool = False
    timed: bool = True
    nan_safe: bool = True  # right even if a slot that holds no token holds NaN
    least_block: int = 1
    most_numbers: int = 2**63  # in the keys of one set

    def unsuited(self, case: Case) -> str:
        """Why it cannot take a case, or nothing."""
        if case.block_size < self.least_block:
            return f"wants blocks of {self.least_block} slots or more"
        numbers = case.num_slots() * case.num_kv_heads * case.head_dim
        return f"{numbers} numbers, {self.most_numbers} are too many" if numbers >= self.most_numbers else ""


def build_ours(problem: Problem, table: str, clock: "Clock", **options: object) -> Run:
    # A table for each set: the cache must not know it from the last one.
    tables = [problem.tables[table].clone() for _ in range(problem.sets)]
    sets = list(zip(problem.query, problem.keys, problem.values, tables, strict=True))
    return lambda number: kernels.paged_attention(*sets[number], problem.lens, **options)


def build_sdpa(problem: Problem, table: str, clock: "Clock", group_as_rows: bool = False) -> Run:
    """Contiguous keys and values. With the group as rows, the heads that share a KV head are several queries of one
    head: the same sums, and open to kernels of SDPA that take no groups, or no mask beside them."""
    (keys, values), case = problem.contiguous, problem.case
    shape = (case.num_kv_heads, -1) if group_as_rows else (case.num_heads, 1)
    queries = problem.query.view(problem.sets, case.batch, *shape, case.head_dim)
    options = dict(attn_mask=problem.mask, enable_gqa=queries.shape[2] != keys.shape[2])
    attend = partial(F.scaled_dot_product_attention, **options)
    return lambda number: attend(queries[number], keys[number], values[number])


def build_gather(problem: Problem, table: str, clock: "Clock") -> Run:
    """In each step copy every context out of its blocks, then attend to the copy."""
    case, mask, plan = problem.case, problem.mask, problem.plan(table)
    slots = [plan.slots.clone() for _ in range(problem.sets)]
    queries = problem.query.view(problem.sets, case.batch, case.num_kv_heads, -1, case.head_dim)

    def run(number: int) -> torch.Tensor:
        keys = problem.keys[number].flatten(0, 1)[slots[number]]  # [B, S, Hkv, D]
        values = problem.values[number].flatten(0, 1)[slots[number]]
        keys, values = keys.transpose(1, 2), values.transpose(1, 2)
        return F.scaled_dot_product_attention(queries[number], keys, values, attn_mask=mask)

    return run


def build_flex(problem: Problem, table: str, clock: "Clock") -> Run:
    """FlexAttention over all slots as one long sequence: the mask lists each sequence's physical blocks, and mask_mod
    turns a physical slot back into a position. No block is called full: torch then splits a row by its length.

    Up to torch 2.13 its kernel multiplies slots by strides in int32. From 2^31 numbers on it would read outside of the
    keys and take the whole process down (pytorch issue 190857, vLLM issue 50427), so it is not asked there.
    """
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    block_size, blocks, lens = problem.case.block_size, problem.tables[table], problem.lens
    (batch, width), num_blocks, used = blocks.shape, problem.keys.shape[1], blocks >= 0
    # What a physical block is, in one number: owner x width + logical block. -width: nobody's.
    logical = torch.arange(batch * width, dtype=torch.int32, device=blocks.device).view(batch, width)
    place_of = torch.full((num_blocks,), -width, dtype=torch.int32, device=blocks.device)
    place_of[blocks[used].long()] = logical[used]

    def mask_mod(b, h, q_idx, slot):
        position = (place_of[slot // block_size] - b * width) * block_size + slot % block_size
        return (position >= 0) & (position < lens[b])

    options = dict(BLOCK_SIZE=(128, block_size), mask_mod=mask_mod, seq_lengths=(1, num_blocks * block_size))
    options |= dict(compute_q_blocks=False)  # only a backward pass wants them
    counts = used.sum(dim=1, dtype=torch.int32).view(batch, 1, 1)
    indices = [blocks.clamp(min=0).view(batch, 1, 1, width) for _ in range(problem.sets)]
    masks = [BlockMask.from_kv_blocks(counts, one, **options) for one in indices]
    queries = problem.query[:, :, :, None]  # [sets, B, Hq, 1, D]
    keys, values = (pool.flatten(1, 2).transpose(1, 2)[:, None] for pool in (problem.keys, problem.values))
    attend = partial(clock.compile(flex_attention), enable_gqa=queries.shape[2] != keys.shape[2])
    return lambda i: attend(queries[i], keys[i], values[i], block_mask=masks[i])


CANDIDATES = {
    "ours": Candidate(build_ours, ours=True),
    "ours, identity table": Candidate(build_ours, table="identity", ours=True),
    "ours, 1 split": Candidate(partial(build_ours, num_splits=1), ours=True, timed=False),
    "ours, 7 splits": Candidate(partial(build_ours, num_splits=7), ours=True, timed=False),
    "sdpa": Candidate(build_sdpa),
    "sdpa, group as rows": Candidate(partial(build_sdpa, group_as_rows=True)),
    "gather, then sdpa": Candidate(build_gather),
    "flex": Candidate(build_flex, nan_safe=False, least_block=16, most_numbers=2**31),
}

# -- right or wrong -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """Attention in fp64 for some sequences of one set, and how far from it a candidate may be."""

    sequences: list[int]
    out: torch.Tensor  # [sequences, Hq, D] fp64
    tolerance: float


def reference(problem: Problem, table: str, number: int) -> Reference:
    """Up to eight sequences, spread over the batch, one KV head at a time, so that fp64 copies stay small."""
    case, plan, lens = problem.case, problem.plan(table), problem.case.context_lens()
    sequences = sorted({round(step * (len(lens) - 1) / 7) for step in range(8)})
    out = torch.zeros(len(sequences), *problem.query.shape[2:], dtype=torch.float64, device=plan.slots.device)
    group, own = case.num_heads // case.num_kv_heads, 0.0
    pools = [pool[number].flatten(0, 1) for pool in (problem.keys, problem.values)]  # [slots, Hkv, D]
    for (row, sequence), head in itertools.product(enumerate(sequences), range(case.num_kv_heads)):
        slots, heads = plan.slots[sequence, : lens[sequence]], slice(head * group, (head + 1) * group)
        if len(slots) == 0:
            continue  # an empty context gives zeros
        query = problem.query[number, sequence, heads]  # [group, D]
        key, value = (pool[slots, head] for pool in pools)  # [S, D]
        right = attention(query[None].double(), key[:, None].double(), value[:, None].double())
        with sdpa_kernel(SDPBackend.MATH):  # the plain formula: no kernel may be its own yardstick
            theirs = F.scaled_dot_product_attention(query[None, None], key[None, None], value[None, None])
        own = max(own, (theirs[0, 0].double() - right[0]).abs().max().item())
        out[row, heads] = right[0]
    # A kernel also rounds its weights to the dtype before it multiplies. One step of the dtype covers that.
    step = torch.finfo(problem.query.dtype).eps * out.abs().max().item()
    return Reference(sequences, out, max(4 * own, step) + 1e-5)


def judge(run: Callable[[], torch.Tensor], right: Reference, clock: "Clock") -> dict:
    """Status of one call: right, wrong, or failed, with the reason."""
    try:
        out = run().reshape(-1, *right.out.shape[1:])[right.sequences]
        error = (out.double() - right.out).abs().max().item()
    except Exception as problem:
        clock.wait()  # a device that is broken for good says so here, and the run ends
        return {"status": "failed", "reason": text_of(problem)}
    found = {"status": "right", "error": rounded(error), "tolerance": rounded(right.tolerance)}
    if error <= right.tolerance:  # which NaN is not
        return found
    return found | {"status": "wrong", "reason": f"error {error:.2e}, allowed is {right.tolerance:.2e}"}


def check_all(plan: Plan, candidates: Mapping[str, Candidate], clock: "Clock") -> Iterator[dict]:
    """A row for each dtype, case, candidate and poison."""
    dtypes = [torch.bfloat16, torch.float16, torch.float32][0 if clock.has_bfloat16 else 1 :]
    for dtype, case, (name, candidate) in itertools.product(dtypes, plan.checks, candidates.items()):
        if candidate.unsuited(case) or (case.lengths == "empty" and not candidate.ours):
            continue
        for poison in ["NaN"] if candidate.nan_safe else ["1000", "NaN"]:
            problem = Problem(case, dtype, 1, clock.device, float(poison), candidate.table)
            run = partial(lambda c, p: c.build(p, c.table, clock)(0), candidate, problem)
            about = {"candidate": name, "dtype": name_of(dtype), "case": asdict(case), "poison": poison}
            about["required"] = candidate.nan_safe or poison != "NaN"
            yield about | judge(run, reference(problem, candidate.table, 0), clock)
        clock.free()
    for dtype in dtypes:
        about = {"candidate": "ours, write_kv", "dtype": name_of(dtype), "case": None, "poison": None}
        yield about | {"required": True} | check_write(dtype, clock)


def check_write(dtype: torch.dtype, clock: "Clock") -> dict:
    """Writing must leave the very numbers that the torch version leaves."""
    key, value = torch.randn(2, 5, 3, 80, device=clock.device).to(dtype)
    slots = torch.tensor([7, -1, 0, 11, 4], device=clock.device)
    ours, theirs = torch.zeros(2, 2, 4, 3, 3, 80, dtype=dtype, device=clock.device)
    paged.write_kv(key, value, *theirs, slots)

    def run() -> torch.Tensor:
        kernels.write_kv(key, value, *ours, slots)
        return ours

    return judge(run, Reference([0, 1], theirs.double(), 0.0), clock)


# -- the clock: all that differs between a GPU and a dry run ----------------------------------------------------


class WallClock:
    """A CPU, Triton's interpreter and a wall clock. Its times mean nothing; everything else is as on a GPU."""

    device, hardware, capability, has_bfloat16 = torch.device("cpu"), None, None, False
    num_multiprocessors, l2_bytes = 4, 2048  # made up, small

    def compile(self, function: Callable) -> Callable:
        return function

    def record(self, run: Run, sets: int, passes: int) -> tuple[Replay, str]:
        """(What runs all sets `passes` times, why it is not a graph)."""
        return loop(run, sets, passes), "no GPU"

    def turn(self, runs: Mapping[str, Replay]) -> dict[str, float]:
        """Seconds of each, one after the other."""
        return {name: timed(run, self)[1] for name, run in runs.items()}

    def wait(self) -> None:
        """Until the device has done all that it was given."""

    def free(self) -> float:
        """Give back what the last case took: bytes that may be taken now."""
        gc.collect()
        return 2.0**30


class CudaClock(WallClock):
    """CUDA events around CUDA graphs."""

    def __init__(self):
        self.device = torch.device("cuda", torch.cuda.current_device())
        about = torch.cuda.get_device_properties(self.device)
        self.capability = torch.cuda.get_device_capability(self.device)
        self.has_bfloat16 = self.capability >= (8, 0)
        self.num_multiprocessors = about.multi_processor_count
        self.l2_bytes = getattr(about, "L2_cache_size", 0) or 50 * 2**20
        self.hardware = {"gpu": about.name, "capability": list(self.capability), "driver": driver_version()}
        self.hardware |= {"multiprocessors": self.num_multiprocessors, "memory_bytes": about.total_memory}
        self.hardware |= {"l2_bytes": self.l2_bytes}
        # Read before each sample, so that the L2 cache forgets the last candidate's keys. Only read: what is written
        # would be written back while the next one runs.
        self.other_data = torch.zeros(self.l2_bytes // 2, dtype=torch.float32, device=self.device)

    def compile(self, function: Callable) -> Callable:
        return torch.compile(function, fullgraph=True, dynamic=False)

    def record(self, run: Run, sets: int, passes: int) -> tuple[Replay, str]:
        plain = loop(run, sets, passes)
        loop(run, sets, 1)()  # compiles and loads, which a capture does not allow
        self.wait()
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                plain()
            graph.replay()
            self.wait()
            return graph.replay, ""
        except Exception as error:
            self.wait()
            return plain, text_of(error)

    def turn(self, runs: Mapping[str, Replay]) -> dict[str, float]:
        marks = {name: [torch.cuda.Event(enable_timing=True) for _ in range(2)] for name in runs}
        for name, run in runs.items():
            self.other_data.sum()
            marks[name][0].record()
            run()
            marks[name][1].record()
        self.wait()
        return {name: start.elapsed_time(end) / 1000 for name, (start, end) in marks.items()}

    def wait(self) -> None:
        torch.cuda.synchronize(self.device)

    def free(self) -> float:
        torch.compiler.reset()  # FlexAttention's code of the last case: after eight, torch refuses to compile
        gc.collect()
        torch.cuda.empty_cache()
        return 0.92 * torch.cuda.mem_get_info(self.device)[0]


Clock = WallClock  # the other is one, too


def driver_version() -> str | None:
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, timeout=30).stdout.split()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return None


def loop(run: Run, sets: int, passes: int) -> Replay:
    def plain() -> None:
        for _, number in itertools.product(range(passes), range(sets)):
            run(number)

    return plain


def timed(run: Callable[[], object], clock: Clock) -> tuple[object, float]:
    """(What it returned, wall-clock seconds until the device was done)."""
    clock.wait()
    start = time.perf_counter()
    result = run()
    clock.wait()
    return result, time.perf_counter() - start


@dataclass(frozen=True)
class Timing:
    """Percentiles of samples, in seconds."""

    p10: float
    median: float
    p90: float
    samples: int


def sample(clock: Clock, runs: Mapping[str, Replay], effort: Effort) -> dict[str, Timing]:
    """The runs take turns, A, B, C, A, B, C, so that a GPU that slows down slows all."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    while left := {name: run for name, run in runs.items() if not effort.enough(seconds[name])}:
        for name, taken in clock.turn(left).items():
            seconds[name].append(taken)
    return {name: percentiles(taken) for name, taken in seconds.items()}


def percentiles(seconds: list[float]) -> Timing:
    samples, levels = (torch.tensor(numbers, dtype=torch.float64) for numbers in (seconds, [0.1, 0.5, 0.9]))
    return Timing(*torch.quantile(samples, levels).tolist(), len(seconds))


# -- what the memory can do -----------------------------------------------------------------------------------


@triton.jit
def _read_kernel(source_ptr, sums_ptr, rounds, stride, CHUNK: tl.constexpr):
    """Add up numbers: program p reads the chunks p, p + programs, p + 2 programs ..."""
    program = tl.program_id(0)
    pointer = source_ptr + program.to(tl.int64) * CHUNK + tl.arange(0, CHUNK)
    total = tl.zeros([CHUNK], tl.int32)
    for _ in range(rounds):
        total += tl.load(pointer)
        pointer += stride
    tl.store(sums_ptr + program, tl.sum(total, axis=0))


def measure_ceilings(plan: Plan, clock: Clock) -> dict:
    """GB/s of reading, by the fastest of several launches, and of copying: a copy's bytes count twice."""
    size = int(min(plan.read_bytes, clock.free() / 4)) // 4  # numbers of four bytes
    source = torch.empty(size, dtype=torch.int32, device=clock.device).random_(0, 1000)
    half, replays, bytes_of = size // 2, {}, {"copy": 8 * (size // 2)}
    replays["copy"], _ = clock.record(lambda _: source[:half].copy_(source[-half:]), 1, 1)
    for per_multiprocessor, chunk, num_warps in plan.reads:
        programs = per_multiprocessor * clock.num_multiprocessors
        rounds, sums = size // (programs * chunk), source.new_zeros(programs)
        arguments = source, sums, rounds, programs * chunk
        read = partial(_read_kernel[(programs,)], *arguments, CHUNK=chunk, num_warps=num_warps)
        read()
        expected = source[: rounds * programs * chunk].sum(dtype=torch.int32)
        if (expected - sums.sum(dtype=torch.int32)).item() % 2**32 == 0:  # a right sum has read everything
            name = f"{programs} programs, {chunk} numbers a load, {num_warps} warps"
            bytes_of[name] = 4 * rounds * programs * chunk
            replays[name], _ = clock.record(lambda _, read=read: read(), 1, 1)
    times = sample(clock, replays, replace(plan.effort, seconds=0.0))
    rates = {name: rounded(bytes_of[name] / timing.median / GB) for name, timing in times.items()}
    copy, read_rate = rates.pop("copy"), max(rates.values(), default=None)
    return {"read_gb_per_s": read_rate, "copy_gb_per_s": copy, "bytes": 4 * size, "launches": rates}


# -- one run --------------------------------------------------------------------------------------------------


@dataclass
class Session:
    """What the parts of a run share. `data` is what the JSON will hold."""

    plan: Plan
    candidates: Mapping[str, Candidate]
    clock: Clock
    dtype: torch.dtype
    out: str
    data: dict
    start: float

    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def say(self, line: str) -> None:
        """On stderr if the JSON goes to stdout."""
        print(line, file=sys.stderr if self.out == "-" else sys.stdout, flush=True)

    def text(self) -> str:
        """JSON, a row a line."""
        told = []
        for name, value in self.data.items():
            rows = [json.dumps(row, allow_nan=False) for row in value] if isinstance(value, list) else None
            told.append(f'"{name}": ' + ("[\n " + ",\n ".join(rows) + "\n]" if rows else json.dumps(value)))
        return "{\n" + ",\n".join(told) + "\n}\n"

    def save(self) -> None:
        """Whole or not at all, as often as there is something new."""
        self.data |= {"seconds": round(self.seconds(), 1), "goals": goals(self.data["rows"])}
        if self.out != "-":
            part = Path(f"{self.out}.part")
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(self.text())
            os.replace(part, self.out)

    def resume(self) -> None:
        """Take over what an earlier run measured, if it measured the same thing."""
        if self.out == "-" or not Path(self.out).exists():
            return
        old = json.loads(Path(self.out).read_text())
        before, now = ([data["machine"]["hardware"], data["dtype"]] for data in (old, self.data))
        if before != now:
            raise SystemExit(f"{self.out} is of {before}, this run of {now}: choose another --out")
        if not old["ceilings"]:  # it was cut off among the checks
            old["correctness"] = []
        self.data |= {name: old[name] for name in ("correctness", "ceilings", "rows", "tuning")}
        self.say(f"{self.out} has {len(old['rows'])} rows: they stay")

    def rotation(self, case: Case) -> tuple[int, int, int]:
        """(KV bytes, sets, passes through them in a sample)."""
        kv_bytes = case.kv_bytes(self.dtype.itemsize)
        sets = num_sets(kv_bytes, self.clock.l2_bytes)
        return kv_bytes, sets, self.plan.effort.passes(kv_bytes, sets)


def run_parts(session: Session, parts: set[str], limit: float) -> None:
    """One part after the other; none that is there already."""
    data, plan = session.data, session.plan
    if "correctness" in parts and not data["correctness"]:
        guarded(session, "correctness", None, lambda: run_checks(session))
    if "ceilings" in parts and not data["ceilings"]:
        work = partial(measure_ceilings, plan, session.clock)
        data["ceilings"] = guarded(session, "ceilings", None, work) or {}
        session.save()
        rates = [f"{name} {data['ceilings'].get(f'{name}_gb_per_s')} GB/s" for name in ("read", "copy")]
        session.say(f"{session.seconds():5.0f} s  ceilings: {', '.join(rates)}")
    if "benchmark" in parts:
        share = 0.7 if "tuning" in parts else 1.0  # of the time
        run_cases(session, "rows", plan.cases, measure, share * limit)
    if "tuning" in parts:
        run_cases(session, "tuning", plan.tuned, tune, limit)


def run_checks(session: Session) -> None:
    rows = session.data["correctness"]
    for row in check_all(session.plan, session.candidates, session.clock):
        rows.append(row)
        session.save()
        if row["status"] != "right":
            asked = "" if row["required"] else " (not asked of it)"
            about = f"{row['candidate']}, {row['dtype']}, {row['poison']} in stale slots"
            session.say(f"{about}: {row['status']}{asked}, {row['reason']}")
    session.say(f"{session.seconds():5.0f} s  correctness: {len(rows)} checks")


def run_cases(
    session: Session, part: str, cases: list[Case],
    work: Callable[[Session, Case, dict[str, str]], dict], limit: float,
) -> None:  # fmt: skip
    """All cases that are not there yet, fit in memory, and begin before `limit` seconds are over."""
    done = [row["case"] for row in session.data[part]]
    for case in (case for case in cases if asdict(case) not in done):
        left_out = case.left_out(session.dtype.itemsize, session.rotation(case)[1], session.clock.free())
        reason = f"{limit:.0f} s were over" if session.seconds() > limit else left_out.get("all")
        if reason:
            session.data["skipped"].append({"part": part, "case": asdict(case), "reason": reason})
            session.say(f"{session.seconds():5.0f} s  {case}: skipped, {reason}")
        elif row := guarded(session, part, case, partial(work, session, case, left_out)):
            session.data[part].append(row)
            session.save()
            session.say(f"{session.seconds():5.0f} s  {case}: {summary(row)}")


def guarded(session: Session, part: str, case: Case | None, work: Callable[[], object]) -> object:
    """What the work returns. If it raises, None: that is told, the run goes on, and its exit status is 1."""
    try:
        return work()
    except Exception as error:
        session.clock.wait()  # as in `judge`
        failure = {"part": part, "case": case and asdict(case), "reason": text_of(error)}
        session.data["failures"].append(failure)
        session.say(f"{session.seconds():5.0f} s  {part} {case or ''}: failed, {failure['reason']}")
        session.save()


def measure(session: Session, case: Case, left_out: dict[str, str]) -> dict:
    """All candidates in one case: each held against fp64 in the last set, which lies farthest, then timed in turns."""
    clock, (kv_bytes, sets, passes) = session.clock, session.rotation(case)
    left_out = left_out | found_wrong(session)
    problem = Problem(case, session.dtype, sets, clock.device)
    rights = {table: reference(problem, table, sets - 1) for table in problem.tables}
    results, recorded, plain = {}, {}, {}
    for name, candidate in ((name, one) for name, one in session.candidates.items() if one.timed):
        if reason := left_out.get(name) or candidate.unsuited(case):
            results[name] = {"status": "left out", "reason": reason}
            continue
        try:
            run, planning_s = timed(partial(candidate.build, problem, candidate.table, clock), clock)
            out, first_call_s = timed(partial(run, sets - 1), clock)
            result = {"planning_s": rounded(planning_s), "first_call_s": rounded(first_call_s)}  # it compiles
            result |= judge(lambda out=out: out, rights[candidate.table], clock)
            if result["status"] == "right":
                recorded[name], without_graph = clock.record(run, sets, passes)
                plain[name] = loop(run, sets, 1)
                result |= {"status": "timed"} | ({"without_graph": without_graph} if without_graph else {})
        except Exception as error:
            clock.wait()  # as in `judge`
            result = {"status": "failed", "reason": text_of(error)}
        results[name] = result
    for name, timing in sample(clock, recorded, session.plan.effort).items():
        results[name] |= speed(session, kv_bytes, sets * passes, timing)
    if kv_bytes < GB / 10:  # where launches may be what takes the time
        brief = replace(session.plan.effort, samples=3, seconds=0.0)
        for name, timing in sample(clock, plain, brief).items():
            results[name]["eager_ms"] = rounded(1000 * timing.median / sets)
    about = {"case": asdict(case), "kv_bytes": kv_bytes, "sets": sets, "calls_per_sample": sets * passes}
    return about | {"candidates": results}


def speed(session: Session, kv_bytes: int, calls: int, timing: Timing) -> dict:
    """What is told of samples of `calls` calls."""
    times = {"p10_ms": timing.p10, "median_ms": timing.median, "p90_ms": timing.p90}
    told = {name: rounded(1000 * seconds / calls) for name, seconds in times.items()}
    rate, read = kv_bytes * calls / timing.median / GB, session.data["ceilings"].get("read_gb_per_s")
    share = rounded(rate / read) if read else None
    return told | {"gb_per_s": rounded(rate), "share_of_read": share, "samples": timing.samples}


def found_wrong(session: Session) -> dict[str, str]:
    """Candidate -> what was wrong with it in the dtype that is timed."""
    rows = [row for row in session.data["correctness"] if row["status"] == "wrong" and row["required"]]
    dtype = name_of(session.dtype)
    return {row["candidate"]: f"wrong: {row['reason']}" for row in rows if row["dtype"] == dtype}


def default_choice(case: Case, bytes_per_number: int, clock: Clock) -> tuple[Config, int]:
    """(config, num_splits) that `paged_attention` would take."""
    group = case.num_heads // case.num_kv_heads
    config = launch.choose_config(group, case.head_dim, bytes_per_number, clock.capability)
    programs = case.batch * case.num_kv_heads * -(-group // config.group_part)
    room = -(-case.context // case.block_size) * case.block_size
    return config, launch.choose_num_splits(programs, room, config.tile, clock.num_multiprocessors)


def tune(session: Session, case: Case, left_out: dict[str, str]) -> dict:
    """Splits with the default launch, launches with the best splits, then splits again; the winner and the default
    are timed once more, in turns. What is wrong or fails does not count."""
    clock, effort, (_, sets, passes) = session.clock, session.plan.effort, session.rotation(case)
    problem = Problem(case, session.dtype, sets, clock.device)
    right, brief = reference(problem, "shuffled", 0), replace(effort, samples=3, seconds=0.0)
    took: dict[tuple[Config, int], float] = {}  # infinity: wrong or failed

    def record(config: Config, num_splits: int) -> Replay | None:
        run = build_ours(problem, "shuffled", clock, config=config, num_splits=num_splits)
        is_right = judge(partial(run, 0), right, clock)["status"] == "right"
        return clock.record(run, sets, passes)[0] if is_right else None

    def best_with(choices: Iterable[tuple[Config, int]]) -> tuple[Config, int]:
        for choice in choices:
            if choice not in took:
                replay = record(*choice)
                took[choice] = sample(clock, {"": replay}, brief)[""].median if replay else math.inf
        return min(took, key=took.get)

    default = default_choice(case, session.dtype.itemsize, clock)
    counts = [default[1], *(count for count in (1, 2, 4, 8, 16, 32, 64) if count <= case.context // 32)]
    best = best_with((default[0], count) for count in counts)
    configs = session.plan.sweep(case.num_heads // case.num_kv_heads, clock.capability)
    best = best_with((config, best[1]) for config in configs)
    best = best_with((best[0], count) for count in (max(1, best[1] // 2), 2 * best[1], default[1]))
    choices = {"default": default, "best": best}
    replays = {name: replay for name, choice in choices.items() if (replay := record(*choice))}
    times = sample(clock, replays, effort).items()
    ms = {name: 1000 * timing.median / sets / passes for name, timing in times}
    told = {
        name: {"config": asdict(config), "num_splits": num_splits, "ms": rounded(ms.get(name))}
        for name, (config, num_splits) in choices.items()
    }
    told |= {"default_to_best": rounded(ms["default"] / ms["best"]) if len(ms) == 2 else None}
    return {"case": asdict(case), **told, "tried": len(took), "failed": sum(map(math.isinf, took.values()))}


# -- the verdict ----------------------------------------------------------------------------------------------


def goals(rows: list[dict]) -> list[dict]:
    """Our kernel against what was asked of it. A goal is met if its worst case meets it."""
    times = []  # (row, candidate -> ms)
    for row in rows:
        timed_ones = [(name, one) for name, one in row["candidates"].items() if one["status"] == "timed"]
        times.append((row, {name: one["median_ms"] for name, one in timed_ones}))
    times = [(row, ms) for row, ms in times if "ours" in ms]

    def share(least: float, below: float) -> list[tuple[float, dict]]:
        found = [(row["candidates"]["ours"]["share_of_read"], row) for row, _ in times]
        return [pair for pair in found if pair[0] is not None and least <= pair[1]["kv_bytes"] < below]

    def ratio(*others: str, block_size: int | None = None) -> list[tuple[float, dict]]:
        """Our time over that of the fastest of the others."""
        known = [(row, ms["ours"], [ms[name] for name in others if name in ms]) for row, ms in times]
        known = [one for one in known if block_size in (None, one[0]["case"]["block_size"])]
        return [(ours / min(theirs), row) for row, ours, theirs in known if theirs]

    def goal(name: str, text: str, values: list[tuple[float, dict]], limit: float, at_least: bool) -> dict:
        worst = (min if at_least else max)(values, key=lambda pair: pair[0], default=(None, None))
        missed = sum(value < limit if at_least else value > limit for value, _ in values)
        verdict = "not met" if missed else "met" if values else "no case"
        told = {"name": name, "text": text, "limit": limit, "cases": len(values), "missed": missed}
        worst_case = worst[1] and str(Case(**worst[1]["case"]))
        return told | {"verdict": verdict, "worst": rounded(worst[0]), "worst_case": worst_case}

    sdpa, flex = ratio("sdpa", "sdpa, group as rows"), ratio("flex")
    paging = ratio("ours, identity table", block_size=16)
    return [
        goal("large_reads", "90% of the read ceiling from 1 GB of KV on", share(GB, math.inf), 0.9, True),
        goal("middle_reads", "70% of the read ceiling at 0.2 to 1 GB", share(GB / 5, GB), 0.7, True),
        goal("contiguous_sdpa", "never slower than SDPA on contiguous keys and values", sdpa, 1.0, False),
        goal("flex_attention", "never slower than FlexAttention on the same blocks", flex, 1.0, False),
        goal(
            "price_of_paging", "shuffled blocks of 16 cost at most 3% over ordered ones", paging, 1.03, False
        ),
    ]


def is_bad(name: str, found: dict) -> bool:
    """What makes the exit status 1: anything wrong, or our kernel failing."""
    return found["status"] == "wrong" or (found["status"] == "failed" and name.startswith("ours"))


def summary(row: dict) -> str:
    """A row in a line."""
    if "candidates" not in row:
        return f"best {row['best']}, the default takes {row['default_to_best']} times as long"
    results = row["candidates"].items()
    return ", ".join(f"{name} {found.get('median_ms', found['status'])}" for name, found in results) + " ms"


def print_table(session: Session) -> None:
    """A case a line, then the goals."""
    others = [name for name, candidate in session.candidates.items() if candidate.timed and name != "ours"]
    title = "ours, and how many times as long others take"
    head = f"\n{title:58}{'MB':>9}{'ms':>10}{'GB/s':>8}{'of read':>9}"
    session.say(head + "".join(f"{name:>21}" for name in others))
    for row in session.data["rows"]:
        ours = row["candidates"].get("ours", {})
        line = f"{Case(**row['case'])!s:58}{row['kv_bytes'] / 1e6:9.1f}"
        if "median_ms" in ours:
            share = ours["share_of_read"] or math.nan
            line += f"{ours['median_ms']:10.4f}{ours['gb_per_s']:8.0f}{share:9.0%}"
            for other in (row["candidates"].get(name, {"status": ""}) for name in others):
                ratio = f"{other['median_ms'] / ours['median_ms']:.3f}" if "median_ms" in other else ""
                line += f"{ratio or other['status']:>21}"
        session.say(line)
    for goal in session.data["goals"]:
        worst = f", worst {goal['worst']} at {goal['worst_case']}" if goal["cases"] else ""
        missed = f"{goal['missed']} of {goal['cases']} miss it"
        session.say(f"{goal['verdict']:>8}: {goal['text']} ({missed}{worst})")


def rounded(value: float | None) -> float | None:
    """To five digits. JSON has no NaN and no infinity: None."""
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def text_of(error: BaseException) -> str:
    """In a line, and of a path its file alone."""
    words = [word.rpartition("/")[2] if word.count("/") > 1 else word for word in str(error).split()]
    return f"{type(error).__name__}: {' '.join(words)[:400]}"


def begin(options: argparse.Namespace, candidates: Mapping[str, Candidate]) -> Session:
    """A session with nothing measured."""
    clock, plan = (WallClock(), dry_plan()) if INTERPRETED else (CudaClock(), gpu_plan())
    dtype = options.dtype or ("bfloat16" if clock.has_bfloat16 else "float16")
    if dtype == "bfloat16" and not clock.has_bfloat16:
        raise SystemExit("bfloat16 needs a GPU of compute capability 8.0 or more: use --dtype float16")
    folder = tempfile.mkdtemp() if INTERPRETED and not options.out else RESULTS
    about = machine(hardware=clock.hardware)
    # Asked of torch and triton themselves: not every build is a package of that name.
    about["versions"] = {"torch": torch.__version__, "triton": triton.__version__, "cuda": torch.version.cuda}
    given = [word for word in sys.argv[1:] if word != options.out and not word.startswith("--out")]
    command = " ".join(["python -m benchmarks.kernel_gpu", *given])
    data = {"benchmark": "kernel_gpu", "dry": INTERPRETED, "device": "interpreter" if INTERPRETED else "cuda"}
    data |= {"complete": False, "aborted": None, "command": command, "dtype": dtype}
    data |= {"seconds": 0.0, "machine": about, "correctness": [], "ceilings": {}}
    data |= {"rows": [], "tuning": [], "skipped": [], "failures": [], "goals": []}
    out = options.out or str(Path(folder) / "kernel_gpu.json")
    return Session(plan, candidates, clock, getattr(torch, dtype), out, data, time.perf_counter())


def parse(arguments: list[str] | None) -> argparse.Namespace:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style, allow_abbrev=False)
    dtypes = ["bfloat16", "float16", "float32"]
    parser.add_argument("--dtype", choices=dtypes, help="default: bfloat16 if the GPU has it, else float16")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:3])
    parser.add_argument("--tune", action="store_true", help="the part `tuning`, too")
    parser.add_argument("--seconds", type=float, default=1200, help="no case begins after them")
    parser.add_argument("--resume", action="store_true", help="keep what --out holds, and measure the rest")
    parser.add_argument("--dry", action="store_true", help="tiny shapes on a CPU, in Triton's interpreter")
    where = "a path, or - for stdout; default results/kernel_gpu.json, if dry a temporary file"
    parser.add_argument("--out", help=where)
    return parser.parse_args(arguments)


@torch.no_grad()
def main(arguments: list[str] | None = None, candidates: Mapping[str, Candidate] = CANDIDATES) -> int:
    """Exit status: 1 if anything was wrong, or our kernel or a part failed. Goals that are not met do not count."""
    options = parse(arguments)
    if options.dry and not INTERPRETED:
        raise SystemExit("triton is imported already, and compiles: give --dry on the command line")
    if INTERPRETED:
        why = "" if options.dry else "no GPU here, so this is "
        print(f"{why}a dry run: kernels are interpreted on the CPU, times mean nothing", file=sys.stderr)
        torch.set_num_threads(1)  # more than one stalls whenever anything else runs
    session = begin(options, candidates)
    if options.resume:
        session.resume()
    try:
        run_parts(session, {*options.parts, *(["tuning"] if options.tune else [])}, options.seconds)
        session.data["complete"] = True
    except BaseException as error:
        session.data["aborted"] = text_of(error)
        raise
    finally:
        session.save()
        print_table(session)
        print(session.text() if session.out == "-" else f"written: {session.out}")
    found = [(row["candidate"], row) for row in session.data["correctness"] if row["required"]]
    found += [pair for row in session.data["rows"] for pair in row["candidates"].items()]
    return int(bool(session.data["failures"]) or any(is_bad(name, result) for name, result in found))


if __name__ == "__main__":
    raise SystemExit(main())
