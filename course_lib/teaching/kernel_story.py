"""What kernel one reads and writes, program by program: recorded from a run of the real kernel.

python -m course_lib.teaching.kernel_story      # records it anew, for machines without Triton
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files

import numpy as np
import torch

from course_lib.memory import BlockPool, BlockTable
from course_lib.teaching import kernel_lab
from course_lib.teaching.kernel_lab import Access

CONTEXTS = (21, 9, 14)  # tokens of each sequence
BLOCK_SIZE, NUM_BLOCKS = 4, 14
KV_HEADS, GROUP, GROUP_PADDED, HEAD_DIM = 2, 3, 4, 16
TILE, ROOM = 8, 32  # positions in a tile; scores that there is room for
TABLE_WIDTH = -(-max(CONTEXTS) // BLOCK_SIZE)
RECORDED = files("course_lib.teaching").joinpath("recorded", "kernel_one.json")


@dataclass(frozen=True)
class Step:
    """One stretch of one program: it loads its queries, works on a tile, takes the softmax, or stores its result."""

    sequence: int
    kv_head: int
    phase: str  # query, keys, softmax, values or out
    entries: list[int]  # of the block table, for each lane of the tile; -1: masked
    slots: list[int]  # of the cache, for each lane; -1: masked
    bytes: int  # loaded and stored
    num_scores: int  # that are kept for each query head by the end of it


def make_tables() -> list[BlockTable]:
    """Three sequences that grew in turns, so that their blocks lie mixed."""
    pool = BlockPool(NUM_BLOCKS, BLOCK_SIZE)
    tables = [BlockTable(pool) for _ in CONTEXTS]
    for _ in range(max(CONTEXTS)):
        for table, length in zip(tables, CONTEXTS, strict=True):
            if table.num_tokens < length:
                table.append()
    return tables


def record() -> list[Step]:
    """Run kernel one on the three sequences, watched, and tell what it did.

    Raises:
        NoTriton: there is none.
    """
    if not kernel_lab.HERE:
        raise kernel_lab.NoTriton("kernel one cannot run: there is no Triton for this system")
    from course_lib.attention import first_kernel

    make = torch.Generator().manual_seed(0)
    query = torch.randn(len(CONTEXTS), KV_HEADS * GROUP, HEAD_DIM, generator=make)
    key_cache, value_cache = torch.randn(2, NUM_BLOCKS, BLOCK_SIZE, KV_HEADS, HEAD_DIM, generator=make)
    tables = make_tables()
    rows = [table.block_ids + [-1] * (TABLE_WIDTH - len(table.block_ids)) for table in tables]
    accesses = kernel_lab.run_watched(
        first_kernel._first_kernel, (len(CONTEXTS), KV_HEADS),
        torch.zeros_like(query), torch.zeros(*query.shape[:2], ROOM), query, key_cache, value_cache,
        torch.tensor(rows, dtype=torch.int32), torch.tensor(CONTEXTS, dtype=torch.int32),
        1 / math.sqrt(HEAD_DIM), TABLE_WIDTH,
        NUM_KV_HEADS=KV_HEADS, GROUP=GROUP, GP=GROUP_PADDED, D=HEAD_DIM, DP=HEAD_DIM, P=BLOCK_SIZE, TILE=TILE,
        CONTEXT=ROOM,
    )  # fmt: skip
    programs = sorted({access.program for access in accesses})
    return [step for program in programs for step in _steps([a for a in accesses if a.program == program])]


def _steps(accesses: Sequence[Access]) -> list[Step]:
    """The accesses of one program, cut where a tile begins or the phase changes."""
    parts: list[list[Access]] = []
    for access in accesses:
        begins = access.tensor in ("context", "table", "out")
        begins |= access.tensor == "scores" and access.index.shape[-1] == ROOM and access.kind == "load"
        parts += [[access]] if begins else []
        if not begins:
            parts[-1].append(access)
    steps, kept = [], 0
    for part in parts:
        loads = {access.tensor: access.index for access in part if access.kind == "load"}
        phase = next((name for name in ("query", "key", "value") if name in loads), None)
        phase = {"key": "keys", "value": "values", None: "softmax"}.get(phase, phase)
        phase = "out" if part[0].tensor == "out" else phase
        cached = loads.get("key", loads.get("value"))
        slots = (
            []
            if cached is None
            else np.where(cached >= 0, cached // (KV_HEADS * HEAD_DIM), -1)[:, 0].tolist()
        )
        kept += sum(slot >= 0 for slot in slots) if phase == "keys" else 0
        moved = sum(access.bytes for access in part)
        entries = loads["table"] if "table" in loads else np.array([], dtype=int)
        entries = np.where(entries >= 0, entries % TABLE_WIDTH, -1).tolist()  # within the sequence's row
        steps.append(Step(*part[0].program[:2], phase, entries, slots, moved, kept))
    return steps


def story() -> list[Step]:
    """The steps as they were recorded for the course. A test records them anew and finds the same."""
    return [Step(**step) for step in json.loads(RECORDED.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(asdict(step)) for step in record())
    RECORDED.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
