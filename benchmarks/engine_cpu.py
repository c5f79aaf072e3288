"""The engine on a CPU: against vLLM on the same weights, paged against slabs, and what scheduling costs.

    python -m benchmarks.engine_cpu                              # about 20 minutes, writes results/engine_cpu.json
    python -m benchmarks.engine_cpu --vllm PATH/TO/python        # the same, with a vLLM that takes turns with us
    python -m benchmarks.engine_cpu --parts payoff --out -

Three parts, each with both sides in one run, so that a machine that slows down slows both: read the ratios.

    decode   tokens/s of the decode steps alone: our engine on blocks and on slabs, and vLLM where it is installed
    payoff   chats (lengths as ShareGPT's, an eighth of them) and short instructions (as Alpaca's) at equal
             kv_cache_bytes: reserve_max against paged; and the model's own tokens/s at each batch size beside them
    waiting  microseconds of the scheduler in a step while many requests wait; share of a step outside the model

vLLM runs in a process and an environment of its own, on the checkpoint folder that the course made.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from benchmarks.beside_vllm import Theirs
from benchmarks.machine import RESULTS, machine
from course_lib.memory import PagedAllocator, Request, Scheduler, alpaca_like, sharegpt_like
from course_lib.serving import LLMEngine, SamplingParams, load_model
from course_lib.serving.model import LlamaModel
from course_lib.serving.weights import ensure_default_checkpoint
from course_lib.teaching import serving_runs

BYTES_PER_SLOT = 46_080  # of SmolLM2-135M in fp32: K and V x 3 KV heads x 64 x 30 layers x 4 bytes
NEW_TOKENS = 64


@dataclass(frozen=True)
class Workload:
    """Whose lengths requests have, and what a server would allow them."""

    make: Callable
    scale: int  # lengths are divided by it, and so is the paper's limit of 2,048
    block_size: int
    budgets: tuple[int, ...]  # slabs

    @property
    def max_len(self) -> int:
        return 2048 // self.scale


WORKLOADS = {
    "chats": Workload(sharegpt_like, 8, 4, (2, 4, 8, 16)),
    "instructions": Workload(alpaca_like, 1, 16, (2, 4)),
}
CURVE = (1, 2, 4, 8, 16, 32, 64)


# -- decode -------------------------------------------------------------------------------------------------------


class Ours:
    """Our engine, as the benchmark asks."""

    def __init__(self, model: LlamaModel, tokenizer: Tokenizer, allocator: str):
        self.model, self.tokenizer, self.allocator = model, tokenizer, allocator

    def generate(self, prompts: list[list[int]], new_tokens: int) -> tuple[float, list[list[int]]]:
        """(seconds, tokens)."""
        longest = max(map(len, prompts)) + new_tokens
        engine = LLMEngine(
            self.model,
            self.tokenizer,
            kv_cache_bytes=len(prompts) * (longest + 16) * BYTES_PER_SLOT,
            allocator=self.allocator,
            max_model_len=longest,
            max_num_batched_tokens=2048,
        )
        start = time.perf_counter()
        outputs = engine.generate(prompts, SamplingParams(max_tokens=new_tokens, ignore_eos=True))
        return time.perf_counter() - start, [output.outputs[0].token_ids for output in outputs]


Generate = Callable[[list[list[int]], int], tuple[float, list[list[int]]]]


def decode_rate(generate: Generate, prompts: list[list[int]]) -> tuple[float, list[list[int]]]:
    """Tokens/s of the decode steps: a run of many tokens less a run of one, which is the prefill."""
    first, _ = generate(prompts, 1)
    whole, tokens = generate(prompts, NEW_TOKENS + 1)
    return len(prompts) * NEW_TOKENS / (whole - first), tokens


def measure_decode(
    sides: dict[str, Ours | Theirs], prompt: list[int], rounds: int, batches: list[int]
) -> list[dict]:
    rows = []
    for batch in batches:
        for context in (64, 256):
            prompts = [prompt[number : number + context] for number in range(batch)]
            rates: dict[str, list[float]] = {name: [] for name in sides}
            tokens = {}
            for turn in range(rounds + 1):  # the first warms up
                for name, side in sides.items():
                    rate, tokens[name] = decode_rate(side.generate, prompts)
                    rates[name] += [rate] if turn else []
            row = {"batch": batch, "context": context}
            row |= {
                f"{name}_tokens_per_s": round(statistics.median(found), 1) for name, found in rates.items()
            }
            for other in rates.keys() - {"paged"}:
                ratios = [a / b for a, b in zip(rates["paged"], rates[other], strict=True)]
                low, middle, high = (round(f(ratios), 3) for f in (min, statistics.median, max))
                same = sum(a == b for a, b in zip(tokens["paged"], tokens[other], strict=True))
                row[f"paged_to_{other}"] = {"ratio": middle, "min": low, "max": high}
                row[f"same_as_{other}"] = f"{same} of {batch} sequences"
            rows.append(row)
            print(row, flush=True)
    return rows


# -- payoff -------------------------------------------------------------------------------------------------------


def serve(
    model: LlamaModel,
    tokenizer: Tokenizer,
    workload: Workload,
    allocator: str,
    slabs: int,
    prompt: list[int],
    count: int,
) -> dict:
    """All requests at once on an engine with room for so many slabs; what came out."""
    engine = LLMEngine(
        model,
        tokenizer,
        kv_cache_bytes=slabs * workload.max_len * BYTES_PER_SLOT,
        allocator=allocator,
        block_size=workload.block_size,
        max_model_len=workload.max_len,
    )
    requests = serving_runs.scaled(workload.make(n=count, rate=1.0, seed=1), workload.scale)
    prompts = [prompt[number : number + each.prompt_len] for number, each in enumerate(requests)]
    params = [SamplingParams(max_tokens=each.output_len, ignore_eos=True) for each in requests]
    run = serving_runs.serve(engine, prompts, params)
    return {
        "tokens_per_s": round(run.tokens_per_second, 1),
        "mean_running": round(run.mean_running, 2),
        "mean_first_token_s": round(statistics.mean(run.first_token), 2),
        "num_preemptions": run.num_preemptions,
        "num_tokens": run.num_tokens,
    }


def middle(runs: list[dict]) -> dict:
    """The run with the median tokens/s."""
    return sorted(runs, key=lambda run: run["tokens_per_s"])[len(runs) // 2]


def measure_payoff(
    model: LlamaModel, tokenizer: Tokenizer, prompt: list[int], count: int, rounds: int
) -> list[dict]:
    """A row for each workload and budget; both sides take turns."""
    rows = []
    for name, workload in WORKLOADS.items():
        for slabs in workload.budgets:
            runs: dict[str, list[dict]] = {"reserve_max": [], "paged": []}
            for _ in range(rounds):
                for allocator, found in runs.items():
                    found.append(serve(model, tokenizer, workload, allocator, slabs, prompt, count))
            ratios = sorted(
                paged["tokens_per_s"] / slab["tokens_per_s"]
                for slab, paged in zip(*runs.values(), strict=True)
            )
            row = {"workload": name, "slabs": slabs, "slots": slabs * workload.max_len, "requests": count}
            row |= {"block_size": workload.block_size} | {each: middle(found) for each, found in runs.items()}
            row["ratio"] = round(statistics.median(ratios), 2)
            row["ratio_min"], row["ratio_max"] = round(ratios[0], 2), round(ratios[-1], 2)
            rows.append(row)
            print(row, flush=True)
    return rows


def measure_curve(model: LlamaModel, tokenizer: Tokenizer, prompt: list[int], rounds: int) -> list[dict]:
    """Decode tokens/s of the model on slabs, at each batch: what a batch is worth, whoever makes it possible."""
    side = Ours(model, tokenizer, "reserve_max")
    rows = []
    for batch in CURVE:
        prompts = [prompt[number : number + 32] for number in range(batch)]
        rates = [decode_rate(side.generate, prompts)[0] for _ in range(rounds + 1)][1:]
        rows.append({"batch": batch, "tokens_per_s": round(statistics.median(rates), 1)})
        print(rows[-1], flush=True)
    return rows


# -- waiting ------------------------------------------------------------------------------------------------------


def measure_waiting(counts: list[int]) -> list[dict]:
    """Microseconds that schedule() and complete() take, with 32 requests that run and many that wait."""
    rows = []
    for count in counts:
        scheduler = Scheduler(PagedAllocator(32 * 512, 16), max_num_seqs=32, max_num_batched_tokens=512)
        for key in range(32 + count):
            scheduler.add(key, Request(0.0, 16, 450))
        for _ in range(3):  # the prompts
            scheduler.complete(scheduler.schedule())
        times = []
        for _ in range(200):
            start = time.perf_counter()
            scheduler.complete(scheduler.schedule())
            times.append(time.perf_counter() - start)
        rows.append({"waiting": count, "microseconds": round(1e6 * statistics.median(times), 1)})
        print(rows[-1], flush=True)
    return rows


def measure_outside(model: LlamaModel, tokenizer: Tokenizer, prompt: list[int], batch: int = 32) -> dict:
    """Share of decode steps that is spent outside the model's forward pass and its scores."""
    engine = LLMEngine(
        model, tokenizer, kv_cache_bytes=batch * 128 * BYTES_PER_SLOT, max_num_batched_tokens=2048
    )
    for number in range(batch):
        engine.add_request(prompt[number : number + 64], SamplingParams(max_tokens=40, ignore_eos=True))
    engine.step()  # the prompts
    inside = [0.0]

    def timed(function: Callable) -> Callable:
        def call(*arguments):
            start = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                inside[0] += time.perf_counter() - start

        return call

    class Timed:
        config, device, dtype = model.config, model.device, model.dtype
        __call__, logits = staticmethod(timed(model)), staticmethod(timed(model.logits))

    engine.model = Timed()
    start = time.perf_counter()
    while engine.has_unfinished():
        engine.step()
    whole = time.perf_counter() - start
    row = {"batch": batch, "share_outside_the_model": round(1 - inside[0] / whole, 4)}
    print(row, flush=True)
    return row


# -- all of it ----------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=["decode", "payoff", "waiting"])
    parser.add_argument("--vllm", help="a Python that has vLLM")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", default=str(RESULTS / "engine_cpu.json"), help="a path, or - for none")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = ensure_default_checkpoint()
    model, tokenizer = load_model()
    prompt = tokenizer.encode("The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 60).ids
    asked = {name: value for name, value in vars(options).items() if name not in ("vllm", "out", "parts")}
    out = None if options.out == "-" else Path(options.out)
    report = {"benchmark": "engine_cpu"}
    if (
        out and out.exists()
    ):  # parts that are not measured now stay, with the machine that they were measured on
        report = json.loads(out.read_text())
    versions: dict[str, object] = {"torch_threads": torch.get_num_threads()}
    if "decode" in options.parts:
        sides: dict[str, Ours | Theirs] = {"paged": Ours(model, tokenizer, "paged")}
        sides["slabs"] = Ours(model, tokenizer, "reserve_max")
        if options.vllm:
            sides["vllm"] = Theirs(options.vllm, folder)
            versions["vllm"] = sides["vllm"].version
        report["decode"] = measure_decode(sides, prompt, options.rounds, options.batches)
        if options.vllm:
            sides["vllm"].stop()
    if "payoff" in options.parts:
        report["curve"] = measure_curve(model, tokenizer, prompt, options.rounds)
        report["payoff"] = measure_payoff(model, tokenizer, prompt, options.requests, options.rounds)
    if "waiting" in options.parts:
        report["waiting"] = measure_waiting([10, 100, 1_000, 10_000])
        report["outside"] = measure_outside(model, tokenizer, prompt)
    for part in options.parts:
        found = machine(["torch", "numpy", "tokenizers"], **versions)
        report[f"{part}_measured"] = found | {"options": asked}
    if out:
        out.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written: {out}")


if __name__ == "__main__":
    main()
