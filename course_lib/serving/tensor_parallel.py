"""One model on several processes: each has some of the heads, all have the same block table.

    torchrun --standalone --nproc-per-node 2 -m course_lib.serving.tensor_parallel "The capital of France is"

Attention heads do not look at each other. So a process (a *rank*) can hold some KV heads with their queries, the
keys and values of these heads alone, and a slice of the MLP. What they have computed is added up twice a layer. Block
ids mean the same on every rank: rank 0 has the engine, scheduler and block tables included, and before each forward
pass it sends the others a `Work`, which holds integers only.

Source: Shoeybi et al., "Megatron-LM" (2019), for the slices; Kwon et al. (SOSP 2023), section 4.6, for one block
table with many ranks.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
import torch.distributed as dist
from tokenizers import Tokenizer

from course_lib.memory import PagedAllocator
from course_lib.processes import for_a_child
from course_lib.serving.cost import kv_bytes_per_token
from course_lib.serving.engine import LLMEngine, RequestOutput
from course_lib.serving.kv_cache import Run
from course_lib.serving.model import LlamaConfig, LlamaModel
from course_lib.serving.sampling import SamplingParams
from course_lib.serving.stores import BlockStore
from course_lib.serving.weights import (
    DEFAULT_MODEL,
    build_model,
    find_checkpoint,
    read_config,
    read_tensors,
)


def split(count: int, parts: int) -> list[range]:
    """So many things in so many runs, as even as can be. (vLLM wants them even; the last may be smaller here.)

    Raises:
        ValueError: fewer things than parts. (vLLM then gives one KV head to several ranks.)

    Example:
        >>> split(3, 2)
        [range(0, 2), range(2, 3)]
    """
    if not 1 <= parts <= count:
        raise ValueError(f"{count} cannot be divided among {parts} ranks: from 1 to {count} work")
    ends = [-(-count * part // parts) for part in range(parts + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(ends)]


# -- one rank's share of the weights --------------------------------------------------------------------------


class ShardedLlama(LlamaModel):
    """A Llama with some of the heads and a slice of each MLP."""

    def add_up(self, partial: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(partial)
        return partial


def shard_config(config: LlamaConfig, rank: int, world_size: int) -> LlamaConfig:
    """The numbers of one rank's share.

    Example:
        >>> shard_config(config, 0, 2).num_kv_heads, shard_config(config, 1, 2).num_kv_heads     # doctest: +SKIP
        (2, 1)
    """
    heads = len(split(config.num_kv_heads, world_size)[rank])
    return replace(
        config,
        num_kv_heads=heads,
        num_query_heads=heads * (config.num_query_heads // config.num_kv_heads),
        intermediate_size=len(split(config.intermediate_size, world_size)[rank]),
    )


def shard_tensors(
    config: LlamaConfig, tensors: dict[str, torch.Tensor], rank: int, world_size: int
) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors -> one rank's. Rows of Q, K, V, gate and up; columns of what follows them; the rest whole.

    A rank keeps the query heads of its KV heads, so no key ever crosses to another rank.
    """
    heads = split(config.num_kv_heads, world_size)[rank]
    neurons = split(config.intermediate_size, world_size)[rank]
    group = config.num_query_heads // config.num_kv_heads
    of_keys = slice(heads.start * config.head_dim, heads.stop * config.head_dim)
    of_queries = slice(of_keys.start * group, of_keys.stop * group)
    of_neurons = slice(neurons.start, neurons.stop)
    rows = {"q_proj": of_queries, "k_proj": of_keys, "v_proj": of_keys}
    rows |= {"gate_proj": of_neurons, "up_proj": of_neurons}
    columns = {"o_proj": of_queries, "down_proj": of_neurons}
    share = {}
    for name, tensor in tensors.items():
        part = name.split(".")[-2]
        if part in rows:
            tensor = tensor[rows[part]]
        elif part in columns:
            tensor = tensor[:, columns[part]]
        share[name] = tensor
    return share


def load_shard(name: str, rank: int, world_size: int, device: torch.device) -> tuple[LlamaModel, Tokenizer]:
    """One rank's model, and the tokenizer."""
    folder = find_checkpoint(name)
    config = read_config(folder)
    tensors = shard_tensors(config, read_tensors(folder, device, torch.float32), rank, world_size)
    model = build_model(shard_config(config, rank, world_size), tensors, kind=ShardedLlama)
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


# -- one step on all ranks ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """One step, as rank 0 sends it: integers only."""

    token_ids: list[int]
    runs: list[Run]
    tables: list[list[int]]  # the block table of each run's sequence: the same ids on every rank
    copies: list[tuple[int, int]]

    def do(self, model: LlamaModel, store: BlockStore) -> torch.Tensor:
        """The forward pass, on this rank's heads. All ranks must do it together. Returns [T, hidden]."""
        positions = store.begin_step(self.runs, self.copies, self.tables)
        return model(torch.tensor(self.token_ids, device=model.device), positions.to(model.device), store)


class TensorParallelEngine(LLMEngine):
    """The engine of rank 0. `kv_cache_bytes` is what rank 0 gives; the others have as many blocks, and run `follow`.

    Example:
        >>> engine = TensorParallelEngine(shard, tokenizer, kv_cache_bytes=2**26)    # doctest: +SKIP
        >>> engine.generate(["The capital of France is"])[0].outputs[0].text         # doctest: +SKIP
        ' Paris.'
        >>> engine.stop()                                                            # doctest: +SKIP
    """

    def _forward(self, runs: list[Run]) -> torch.Tensor:
        tables = [list(self.allocator.tables[run.sequence].block_ids) for run in runs]
        work = Work(self.token_ids_of(runs), runs, tables, self._copies)
        self._copies = []
        dist.broadcast_object_list([work], src=0)
        self.last_work = work
        return work.do(self.model, self.store)

    def stop(self) -> None:
        """Send the other ranks home."""
        dist.broadcast_object_list([None], src=0)


def follow(model: LlamaModel, num_blocks: int, block_size: int) -> tuple[BlockStore, Work]:
    """What the other ranks do: take work and do it, until there is none. They have no scheduler, and no tables but
    those they are sent. Returns their share of the cache, and the last work."""
    unasked = PagedAllocator(num_blocks * block_size, block_size)
    store = BlockStore(model.config, unasked, "torch", dtype=model.dtype, device=model.device)
    box, last = [None], Work([], [], [], [])
    while True:
        dist.broadcast_object_list(box, src=0)
        if box[0] is None:
            return store, last
        last = box[0]
        last.do(model, store)


# -- all of it ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What came out."""

    token_ids: list[list[int]]  # of each prompt's output
    texts: list[str]
    kv_heads: list[int]  # of each rank
    kv_cache_bytes: list[int]  # of each rank
    last_tables: list[list[list[int]]]  # of each rank: the block tables by which it read in the last step


def run_rank(
    prompts: Sequence[str], max_tokens: int, num_blocks: int, block_size: int, name: str
) -> Report | None:
    """One rank's part, from loading to the end; the report on rank 0, None elsewhere.

    Every rank of the process group calls it with the same arguments.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    gpus = dist.get_backend() == "nccl"
    device = torch.device("cuda", rank) if gpus else torch.device("cpu")
    model, tokenizer = load_shard(name, rank, world_size, device)
    outputs: list[RequestOutput] = []
    if rank == 0:
        shape = model.config
        slot = kv_bytes_per_token(shape.num_layers, shape.num_kv_heads, shape.head_dim, 4)
        engine = TensorParallelEngine(
            model,
            tokenizer,
            kv_cache_bytes=num_blocks * block_size * slot,
            block_size=block_size,
            max_model_len=min(2048, shape.max_position),
        )
        try:
            outputs = engine.generate(list(prompts), SamplingParams(max_tokens=max_tokens))
        finally:
            engine.stop()
        store, last = engine.store, engine.last_work
    else:
        store, last = follow(model, num_blocks, block_size)
    mine = (model.config.num_kv_heads, 2 * store.keys.numel() * store.keys.element_size(), last.tables)
    shares: list = [None] * world_size
    dist.all_gather_object(shares, mine)
    if rank:
        return None
    completions = [output.outputs[0] for output in outputs]
    columns = [list(column) for column in zip(*shares, strict=True)]
    return Report([each.token_ids for each in completions], [each.text for each in completions], *columns)


def launch(
    prompts: Sequence[str],
    *,
    num_ranks: int = 2,
    max_tokens: int = 16,
    num_blocks: int = 64,
    block_size: int = 16,
    name: str = DEFAULT_MODEL,
) -> Report:
    """Run it from a notebook: torchrun with so many processes on this machine.

    Raises:
        RuntimeError: with what the processes wrote, if one of them fails.

    Example:
        >>> launch(["The capital of France is"], max_tokens=2).texts         # doctest: +SKIP
        [' Paris.']
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(num_ranks)]
    command += ["-m", "course_lib.serving.tensor_parallel", "--json", "--max-tokens", str(max_tokens)]
    command += ["--num-blocks", str(num_blocks), "--block-size", str(block_size)]
    command += ["--model", name, "--", *prompts]
    environment = for_a_child({"OMP_NUM_THREADS": "1", **os.environ})
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    answer = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    if ran.returncode or not answer:
        told = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
        raise RuntimeError(f"torchrun ended with {ran.returncode}: {told[0] if told else ran.stderr[-2000:]}")
    return Report(**json.loads(answer[-1]))


def main() -> None:
    """`torchrun --standalone --nproc-per-node 2 -m course_lib.serving.tensor_parallel "a prompt" "another"`"""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--num-blocks", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--json", action="store_true", help="one line of JSON in the place of text")
    asked = parser.parse_args()
    enough = torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ.get("WORLD_SIZE", 1))
    dist.init_process_group("nccl" if enough else "gloo")
    try:
        report = run_rank(asked.prompts, asked.max_tokens, asked.num_blocks, asked.block_size, asked.model)
    except ValueError as error:
        sys.exit(f"error: {error}")
    finally:
        dist.destroy_process_group()
    if report is None:
        return
    if asked.json:
        print(json.dumps(asdict(report)))
        return
    for rank, (heads, held) in enumerate(zip(report.kv_heads, report.kv_cache_bytes, strict=True)):
        print(f"rank {rank}: {heads} KV heads, {held / 2**20:.1f} MiB of KV cache")
    for prompt, text in zip(asked.prompts, report.texts, strict=True):
        print(f"{prompt!r} -> {text!r}")


if __name__ == "__main__":
    main()
