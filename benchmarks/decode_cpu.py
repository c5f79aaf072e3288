"""Tokens per second of our decoder against Hugging Face transformers' `generate`, same folder, same prompts.

    python -m benchmarks.decode_cpu                      # prints a table, writes results/decode_cpu.json
    python -m benchmarks.decode_cpu --batches 1 --rounds 2 --out -

Both decode greedily in fp32 from prompts of equal length, and must give the same tokens. The two take turns
within one run, so that a machine that slows down slows both: read the ratio, not the rate.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.machine import RESULTS, machine
from course_lib.serving import ContiguousCache, chat_prompt, greedy, load_model
from course_lib.serving.model import LlamaModel
from course_lib.serving.weights import ensure_default_checkpoint

VERSIONS = ["torch", "transformers", "numpy", "tokenizers", "safetensors"]


def our_generate(model: LlamaModel, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    cache = ContiguousCache(model.config, len(prompts), len(prompts[0]) + new_tokens)
    return greedy(model, prompts, cache, new_tokens)


def their_generate(hf_model, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    inputs = torch.tensor(prompts)
    out = hf_model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
    )
    return out[:, inputs.shape[1] :].tolist()


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(model: LlamaModel, hf_model, batch: int, new_tokens: int, rounds: int) -> dict:
    """One row of the table: medians over `rounds` turns of each, and the median of the ratios turn by turn."""
    _, tokenizer = load_model()
    prompts = [
        tokenizer.encode(chat_prompt(f"Tell me a story about number {n:02d}.")).ids for n in range(batch)
    ]
    assert len({len(prompt) for prompt in prompts}) == 1, "prompts must have one length"
    ours_tokens = our_generate(model, prompts, new_tokens)  # also the warm-up
    theirs_tokens = their_generate(hf_model, prompts, new_tokens)
    same = sum(ours == theirs for ours, theirs in zip(ours_tokens, theirs_tokens, strict=True))
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(batch * new_tokens / seconds(lambda: our_generate(model, prompts, new_tokens)))
        theirs.append(batch * new_tokens / seconds(lambda: their_generate(hf_model, prompts, new_tokens)))
    return {
        "batch": batch,
        "prompt_tokens": len(prompts[0]),
        "new_tokens": new_tokens,
        "ours_tokens_per_s": round(statistics.median(ours), 1),
        "transformers_tokens_per_s": round(statistics.median(theirs), 1),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3),
        "ratio_min": round(min(a / b for a, b in zip(ours, theirs, strict=True)), 3),
        "ratio_max": round(max(a / b for a, b in zip(ours, theirs, strict=True)), 3),
        "identical_sequences": f"{same} of {batch}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--threads", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="of torch, for both"
    )
    parser.add_argument("--out", default=str(RESULTS / "decode_cpu.json"), help="a path, or - for none")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModelForCausalLM  # a test extra: slow to import, and needed here alone

    folder = ensure_default_checkpoint()
    model, _ = load_model()
    hf_model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    print(
        f"{'batch':>5} {'ours':>8} {'transformers':>12} {'ratio':>6}   (tokens/s, medians of {options.rounds})"
    )
    rows = []
    for batch in options.batches:
        row = measure(model, hf_model, batch, options.new_tokens, options.rounds)
        rows.append(row)
        print(
            f"{batch:>5} {row['ours_tokens_per_s']:>8} {row['transformers_tokens_per_s']:>12} {row['ratio']:>6}"
            f"   same tokens: {row['identical_sequences']}",
            flush=True,
        )
    if options.out != "-":
        report = {
            "benchmark": "decode_cpu",
            "machine": machine(VERSIONS, torch_threads=torch.get_num_threads()),
            "rounds": options.rounds,
            "rows": rows,
        }
        Path(options.out).write_text(json.dumps(report, indent=2) + "\n")
        print(f"written: {options.out}")


if __name__ == "__main__":
    main()
