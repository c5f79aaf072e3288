"""Times measured on the machine that runs the notebook: one decode step, and the two roofs of a roofline."""

import statistics
import time
from collections.abc import Callable

import torch

from course_lib.serving.cost import Cost, forward_cost
from course_lib.serving.kv_cache import ContiguousCache, GrowingCache, NoCache, PagedCache
from course_lib.serving.linear import lay_out, linear
from course_lib.serving.model import KVCache, LlamaModel
from course_lib.serving.static_batch import greedy_step


def step_seconds(
    model: LlamaModel, cache: KVCache, context_len: int, *, batch: int = 1, repeats: int = 5
) -> float:
    """Median seconds of a step that adds one token to each of `batch` sequences of `context_len` tokens.

    The contexts are put in first, which also warms the machine up. A step feeds what the cache does not hold:
    one token a sequence, or with NoCache everything, so that NoCache measures a prefill.

    Args:
        cache: empty, with room for context_len + repeats tokens in sequences 0 .. batch - 1.
    """
    texts = {
        sequence: [(7 * position + sequence) % 1000 for position in range(context_len)]
        for sequence in range(batch)
    }
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        chosen = greedy_step(
            model, texts, cache
        )  # its tokens are numbers on the CPU: a GPU is waited for, too
        seconds.append(time.perf_counter() - start)
        for sequence, token in chosen.items():
            texts[sequence].append(token)
    return statistics.median(seconds[1:])


def cache_milliseconds(model: LlamaModel, contexts: list[int], repeats: int = 3) -> dict[str, list[float]]:
    """One more token at each context length, with each of the three caches: {name: milliseconds}."""
    found: dict[str, list[float]] = {"no cache": [], "growing": [], "contiguous": []}
    for context in contexts:
        slab = ContiguousCache(model.config, 1, context + repeats + 1, dtype=model.dtype, device=model.device)
        for name, cache in zip(found, [NoCache(), GrowingCache(), slab], strict=True):
            found[name].append(1000 * step_seconds(model, cache, context, repeats=repeats))
    return found


def steps(model: LlamaModel, batches: list[int], context: int, prefill: int) -> dict[str, tuple[Cost, float]]:
    """Counted cost and measured seconds of a decode step at each batch, and of one prefill: points of a roofline."""
    size = torch.finfo(model.dtype).bits // 8
    found = {}
    for batch in batches:
        slabs = ContiguousCache(model.config, batch, context + 6, dtype=model.dtype, device=model.device)
        seconds = step_seconds(model, slabs, context, batch=batch)
        found[f"decode {batch}"] = forward_cost(model.config, [1] * batch, [context] * batch, size), seconds
    seconds = step_seconds(model, NoCache(), prefill, repeats=3)
    found[f"prefill {prefill}"] = forward_cost(model.config, [prefill], [prefill], size), seconds
    return found


def peaks(seconds: float = 0.5, where: torch.device | str = "cpu") -> tuple[float, float]:
    """The two roofs of this machine: (FLOP/s of a large fp32 product, bytes/s of a large read), as the model takes its
    products.

    Each is the best of several tries within `seconds`: noise only ever slows a machine down.
    """
    size = 1536
    rows, weight = torch.randn(size, size, device=where), lay_out(torch.randn(size, size, device=where))
    big = lay_out(torch.randn(8192, 8192, device=where))  # 256 MiB: past the caches
    row = torch.randn(1, 8192, device=where)
    flops = 2 * size**3 / _fastest(lambda: linear(rows, weight), seconds)
    return flops, big.numel() * 4 / _fastest(lambda: linear(row, big), seconds)


def _fastest(run: Callable[[], torch.Tensor], seconds: float) -> float:
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()[0].sum().item()  # reading a number waits for the product, on a GPU too
        best = min(best, time.perf_counter() - start)
    return best


def slabs_and_blocks(model: LlamaModel, batch: int, context: int, repeats: int = 7) -> dict[str, float]:
    """Milliseconds of a decode step on slabs and on blocks of 16, with `context` tokens in each of `batch` requests."""
    slots, where = context + repeats + 1, dict(dtype=model.dtype, device=model.device)
    caches = {
        "slabs": ContiguousCache(model.config, batch, slots, **where),
        "blocks": PagedCache(model.config, batch * -(-slots // 16), **where),
    }
    return {
        name: 1000 * step_seconds(model, cache, context, batch=batch, repeats=repeats)
        for name, cache in caches.items()
    }
