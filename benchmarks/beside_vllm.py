"""The real vLLM beside our engine: the same checkpoint, the same prompts.

    make vllm                                                # makes .venv-vllm, runs this, writes results/vllm.json
    python -m benchmarks.beside_vllm --vllm PATH/TO/python   # with a vLLM that is installed already

Three questions, both sides in one run:

    tokens   five prompts, greedy, fp32: the same tokens? A tie is told (the top two within 1e-3).
    cached   a text of 200 tokens sent twice, prefix caching on: how many tokens does each take from its cache?
    decode   tokens/s of the decode steps, taking turns, at each batch

vLLM runs in a process and an environment of its own, on the checkpoint folder that the course made.
"""

import argparse
import json
import os
import subprocess
from pathlib import Path

import torch
from tokenizers import Tokenizer

from benchmarks.machine import RESULTS, machine
from course_lib.serving import LLMEngine, SamplingParams, chat_prompt, load_model
from course_lib.serving.model import LlamaModel
from course_lib.serving.weights import ensure_default_checkpoint
from course_lib.teaching.real_engines import missing_sources

WORKER = Path(__file__).with_name("vllm_worker.py")
PROMPTS = (
    "The capital of France is",
    "On a rainy day I like to",
    chat_prompt("What is a library? Answer in one sentence."),
    chat_prompt("Name three colors."),
    chat_prompt("Why is the sky blue?"),
)


class Theirs:
    """vLLM in a process of its own, which answers line by line.

    Raises:
        RuntimeError: it ended; its own messages are above.
    """

    def __init__(self, python: str, folder: Path, *, caching: bool = False):
        settings = {
            "VLLM_CPU_KVCACHE_SPACE": "4",
            "HF_HUB_OFFLINE": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
        }
        command = [python, str(WORKER), str(folder), *(["--caching"] if caching else [])]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=settings | os.environ, text=True
        )
        self.facts = self._answer("FACTS")
        self.version = self.facts["version"]

    def _answer(self, word: str) -> dict:
        line = next((line for line in self.process.stdout if line.startswith(word)), None)
        if line is None:
            raise RuntimeError("vLLM has ended: see its messages above")
        return json.loads(line.removeprefix(word))

    def ask(self, prompts: list[list[int]], new_tokens: int, *, ignore_eos: bool = True) -> dict:
        """{"seconds", "tokens", "cached"} of greedy answers."""
        asked = {"prompts": prompts, "new_tokens": new_tokens, "ignore_eos": ignore_eos}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return self._answer("RESULT")

    def generate(self, prompts: list[list[int]], new_tokens: int) -> tuple[float, list[list[int]]]:
        """(seconds, tokens)."""
        answer = self.ask(prompts, new_tokens)
        return answer["seconds"], answer["tokens"]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def compare_tokens(theirs: Theirs, model: LlamaModel, tokenizer: Tokenizer, new_tokens: int) -> list[dict]:
    """A row a prompt: vLLM's tokens and text, and whether ours are the same."""
    engine = LLMEngine(model, tokenizer, kv_cache_bytes=2**27)
    prompts = [engine.encode(prompt) for prompt in PROMPTS]
    ours = engine.generate(prompts, SamplingParams(max_tokens=new_tokens))
    found = theirs.ask(prompts, new_tokens, ignore_eos=False)["tokens"]
    rows = []
    for prompt, output, tokens in zip(PROMPTS, ours, found, strict=True):
        same = output.outputs[0].token_ids == tokens
        text = tokenizer.decode(tokens)
        rows.append({"prompt": prompt, "token_ids": tokens, "text": text, "same": same})
        print(f"{'same' if same else 'DIFFERENT'}: {text[:70]!r}", flush=True)
    return rows


def compare_cached(python: str, folder: Path, model: LlamaModel, tokenizer: Tokenizer) -> dict:
    """A text sent twice, with prefix caching on: cached tokens of each time, theirs and ours."""
    engine = LLMEngine(model, tokenizer, kv_cache_bytes=2**27, enable_prefix_caching=True)
    text = engine.encode("The quick brown fox jumps over the lazy dog. " * 40)[:200]
    ours = [engine.generate([text])[0].num_cached_tokens for _ in range(2)]
    theirs = Theirs(python, folder, caching=True)
    found = [theirs.ask([text], 4)["cached"][0] for _ in range(2)]
    theirs.stop()
    row = {"prompt_tokens": len(text), "ours": ours, "our_block_size": 16}
    row |= {"vllm": found, "vllm_block_size": theirs.facts["block_size"]}
    print(row, flush=True)
    return row


def main() -> None:
    from benchmarks.engine_cpu import Ours, measure_decode  # which takes turns with Theirs, too

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vllm", required=True, help="a Python that has vLLM")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--new-tokens", type=int, default=40)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", default=str(RESULTS / "vllm.json"), help="a path, or - for none")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = ensure_default_checkpoint()
    model, tokenizer = load_model()
    report: dict = {"benchmark": "beside_vllm"}
    report["cached"] = compare_cached(options.vllm, folder, model, tokenizer)
    theirs = Theirs(options.vllm, folder)
    package = Path(theirs.facts.pop("package"))
    report["vllm"] = theirs.facts
    for row in missing_sources(package):
        print(f"to be read again, in the table of notebook 09: {row}")
    report["tokens"] = compare_tokens(theirs, model, tokenizer, options.new_tokens)
    prompt = tokenizer.encode("The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 60).ids
    sides = {"paged": Ours(model, tokenizer, "paged"), "vllm": theirs}
    report["decode"] = measure_decode(sides, prompt, options.rounds, options.batches)
    theirs.stop()
    versions = {"torch_threads": torch.get_num_threads(), "vllm": theirs.version}
    report["measured"] = machine(["torch", "numpy", "tokenizers"], **versions)
    if options.out != "-":
        Path(options.out).write_text(json.dumps(report, indent=2) + "\n")
        print(f"written: {options.out}")


if __name__ == "__main__":
    main()
