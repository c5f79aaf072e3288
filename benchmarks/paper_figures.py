"""The paper's evaluation once more, small: each figure's number, ours beside it, and why they differ.

    python -m benchmarks.paper_figures                           # about 13 minutes; writes both results
    python -m benchmarks.paper_figures --only fig13 fig19        # some of them, printed; nothing is written
    python -m benchmarks.paper_figures --only fig13 --out benchmarks/results/paper_figures.json     # one anew
    python -m benchmarks.paper_figures --quick --out some.json --page some.png

Kwon et al. (SOSP 2023) measured OPT-13B and larger models on A100 GPUs. Two smaller worlds stand in for them here, and
each figure says which one it is from:

    simulated   the Scheduler and the allocators at the paper's size (OPT-13B's 15,728 slots); a step takes 0.05 s
    measured    the course's engine with SmolLM2-135M in fp32, on this CPU

    fig12  latency against request rate, and the rate that each allocator sustains               simulated
    fig13  requests that run at once                                                             simulated
    fig14  what sharing adds to the rate, made of fig12 and fig15                                derived
    fig15  blocks that sharing saves: several samples, and beams                                 measured
    fig16  many prompts with the same beginning                                                  measured
    fig18  block size: requests that fit, and the time of a decode step                          simulated, measured
    fig19  recompute or swap, by block size                                                      measured, modelled

A full run writes results/paper_figures.json and results/paper_figures.png. A run of some figures, or a quick one,
writes what it is told to with --out and --page.
"""

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from benchmarks.machine import RESULTS, machine
from course_lib.memory import ALLOCATORS, Request, alpaca_like, sharegpt_like, simulate
from course_lib.serving import LLMEngine, SamplingParams, beam_search, load_model
from course_lib.serving.cost import kv_bytes_per_token, recompute_or_swap
from course_lib.serving.model import LlamaModel
from course_lib.teaching import paper
from course_lib.teaching.plots.paper_page import paper_page
from course_lib.teaching.presets import load_presets
from course_lib.teaching.serving_runs import BlockCount, serve

# What each figure is, and why ours differ from the paper's. The numbers are beside it in the report.
TOLD = {
    "fig12": {
        "title": "Latency against request rate, and the rate that each allocator sustains",
        "world": "simulated: OPT-13B's 15,728 slots, 0.05 s a step",
        "measure": "mean of (last token - arrival) / output tokens, in s/token; sustained: within 2x or 4x of 0.05 s",
        "paper": {"ShareGPT": paper.FIG_12},
        "gap": (
            "The ShareGPT ratios lie in the paper's ranges, which are over three models; ours is one size. A step of "
            "0.05 s takes as long for 192 requests as for 7, so every request that fits is pure gain here, and "
            "Alpaca's ratios promise too much. With a step that grows as the paper's own two batches imply, full "
            "batches give paged to oracle 2.2x on ShareGPT, still in the range, and 1.6x instead of 2.5x on Alpaca, "
            "where the paper has 1.3x (Fig 14)."
        ),
    },
    "fig13": {
        "title": "Requests that run at once, on average",
        "world": "simulated: OPT-13B's 15,728 slots, 0.05 s a step",
        "measure": "mean over all steps while requests arrive: ShareGPT at 2/s, Alpaca at 30/s",
        "paper": {"ShareGPT": paper.FIG_13_SHAREGPT, "Alpaca": paper.FIG_13_ALPACA},
        "gap": (
            "Where requests pile up the allocator decides, and ours are up to 9% above the paper's: our lengths are "
            "drawn, at its means. Where they do not, the load decides: rate x output tokens x seconds a step. That is "
            "Alpaca with paging: nobody waits in ours, and 30/s x 58 tokens x 0.05 s is 88. The paper's 132 means "
            "that its step took 0.076 s with that batch."
        ),
    },
    "fig14": {
        "title": "Throughput to an oracle that reserves, with and without sharing",
        "world": "derived: batches from simulations, divided by the share of blocks that fig15 still holds",
        "measure": "tokens/s of full batches on Alpaca, paged to reserve_exact, for two kinds of step",
        "paper": paper.FIG_14,
        "gap": (
            "Which blocks beams share is known only when a model has chosen the tokens, and our simulator has none: "
            "derived as if memory alone set the batch. With a step of 0.05 s we promise about twice what the paper "
            "saw, because its GPU had to compute those batches, too. A straight line through its two batches of fig13 "
            "gives steps that grow, and most of the gap is gone; but two points make a line, not a proof."
        ),
    },
    "fig15": {
        "title": "Memory saved by sharing blocks",
        "world": "measured: the course's engine, SmolLM2-135M; the shares do not depend on the machine",
        "measure": "1 - blocks held / blocks that the tables would hold unshared, added up over all forward passes",
        "paper": {"Alpaca": paper.FIG_15_ALPACA, "ShareGPT": paper.FIG_15_SHAREGPT},
        "gap": (
            "Several samples share the full blocks of their prompt and nothing else, which is counting on lengths. "
            "Twelve Alpaca requests come within a point of the paper. Three chats are too few: one long prompt among "
            "them makes the 23 to 38%, where counting over 1,000 drawn chats gives 18 to 30% (and over 1,000 drawn "
            "instructions 7 to 12%). What beams share depends on how late they part, and that on model and text: "
            "SmolLM2-135M is not OPT-13B, and yet within 5 points of it on Alpaca."
        ),
    },
    "fig16": {
        "title": "A prefix that many requests share: cached against computed each time",
        "world": "measured: the course's engine, SmolLM2-135M on this CPU",
        "measure": "requests/s with enable_prefix_caching to without, equal kv_cache_bytes, prefix stored beforehand",
        "paper": paper.FIG_16,
        "gap": (
            "Not the same comparison: the paper's ratio is to Orca (Oracle), which reserves and shares nothing, at "
            "equal latency; ours is to our own paged engine without sharing, with all requests at once. On a CPU "
            "computing a prefix is dear beside decoding, so what is not computed weighs more here than on an A100; "
            "and the ratio grows with the prefix and shrinks with the answer, which is 40 tokens by our choice."
        ),
    },
    "fig18": {
        "title": "The block size: requests that fit, and the time of a decode step",
        "world": "requests simulated on OPT-13B's 15,728 slots; steps measured on this CPU, not on a GPU",
        "measure": "mean running requests while others wait; median milliseconds of a step",
        "paper": paper.FIG_18B,
        "gap": (
            "The paper's one curve is latency, which is memory and kernel at once; here they are two. Memory says: "
            "the smaller the better, and large blocks cost short texts most, as in the paper. Its reason against "
            "small blocks is a GPU's reads in parallel. A CPU does not show it: blocks of 1 cost a few percent of a "
            "step, and those of 256 cost most, because 257 tokens take two of them and our engine gathers blocks "
            "whole."
        ),
    },
    "fig19": {
        "title": "A preempted sequence: compute it again, or copy it out and in",
        "world": "measured on this CPU, a swap within its memory; modelled for OPT-13B on an A100 over PCIe 4.0",
        "measure": "milliseconds; a swap goes out and in",
        "paper": paper.FIG_19,
        "gap": (
            "On this CPU recomputing loses at every block size, by factors from about ten to hundreds: the copy stays "
            "in the same memory, and computing is slow. The model has the paper's shape and meets it at blocks of 32 "
            "and 64, but it stands on a link at its data-sheet rate, an assumed cost of a transfer, and a prefill at "
            "the data sheet's peak. At 256 it has recomputing 43% above swapping, where the paper has 20% at most: a "
            "link slower than its data sheet would explain that, and we have measured none."
        ),
    },
}

STEP_SECONDS = 0.05
LIMITS = (2, 4)  # the latency that is still good: so many times a step, which is what a request alone takes
WORKLOADS = {"ShareGPT": sharegpt_like, "Alpaca": alpaca_like}
SEED = 1

# Prompts are made of these, one after another, from any of them on.
TEXTS = (
    "Give three tips for staying healthy through a long winter, and say why each of them works. ",
    "Explain to a child of nine why the sky is blue at noon and red in the evening. ",
    "Write a short letter to a landlord whose heating has been broken for two weeks. ",
    "Describe the water cycle: how rain becomes rivers, rivers become seas, and seas become clouds again. ",
    "Suggest a menu for six guests, two of whom eat no meat and one of whom cannot have nuts. ",
    "Translate this sentence into plain words: the party of the first part shall indemnify the second. ",
    "Compare travelling by train with travelling by car, for a family that has two small children. ",
    "Tell a story about a lighthouse keeper who finds a bottle with a map of his own island. ",
    "List the steps of changing a bicycle tyre, and the tools that you need before you begin. ",
    "What is the difference between weather and climate? Answer in one paragraph with an example. ",
    "Rewrite the following in the past tense: she walks to the market and buys a basket of pears. ",
    "Name five inventions of the nineteenth century that people still use on an ordinary day. ",
    "A shop sells pens at three for two euros. How many pens can you buy with eleven euros? ",
    "Summarise the plot of a detective novel in which the gardener turns out to be innocent. ",
    "How does a vaccine teach the body to recognise a virus that it has never met before? ",
    "Plan a weekend in a city by the sea, with one museum, one long walk, and no shopping at all. ",
)


def bar(items: Iterable, name: str) -> Iterable:
    """A progress bar that goes away when it is done."""
    return tqdm(list(items), desc=name, leave=False)


@dataclass(frozen=True)
class Llm:
    """A model, and texts to ask it about."""

    model: LlamaModel
    tokenizer: Tokenizer
    texts: Sequence[list[int]]  # as tokens

    @property
    def bytes_per_slot(self) -> int:
        config = self.model.config
        size = torch.finfo(self.model.dtype).bits // 8
        return kv_bytes_per_token(config.num_layers, config.num_kv_heads, config.head_dim, size)

    def engine(self, num_slots: int, **options) -> LLMEngine:
        return LLMEngine(
            self.model, self.tokenizer, kv_cache_bytes=num_slots * self.bytes_per_slot, **options
        )

    def prompt(self, number: int, length: int) -> list[int]:
        """So many tokens from a text on. Beyond the last text they begin a token later, so that all differ."""
        first, later = number % len(self.texts), number // len(self.texts)
        tokens = itertools.chain.from_iterable(itertools.cycle([*self.texts[first:], *self.texts[:first]]))
        return list(itertools.islice(tokens, later, later + length))


def load_llm() -> Llm:
    model, tokenizer = load_model()
    return Llm(model, tokenizer, [tokenizer.encode(text).ids for text in TEXTS])


def typical(make: Callable, means: tuple[float, float], count: int) -> list[Request]:
    """`count` requests in a row whose mean lengths are nearest to these: so few would else be short or long by luck.
    Nothing but their lengths is looked at."""
    many = make(n=1000, rate=1.0, seed=SEED)

    def distance(start: int) -> float:
        some = many[start : start + count]
        prompt = statistics.fmean(each.prompt_len for each in some)
        output = statistics.fmean(each.output_len for each in some)
        return abs(prompt / means[0] - 1) + abs(output / means[1] - 1)

    start = min(range(len(many) - count + 1), key=distance)
    return many[start : start + count]


def mean_lengths(requests: Sequence[Request]) -> list[float]:
    return [
        round(statistics.fmean(lengths), 1)
        for lengths in zip(*((each.prompt_len, each.output_len) for each in requests), strict=True)
    ]


# -- Fig 12: latency against rate ---------------------------------------------------------------------------------


def mean_latency(workload: str, allocator: str, rate: float, minutes: float) -> float:
    """Mean normalized latency, in seconds a token, of a trace of so many minutes."""
    requests = WORKLOADS[workload](n=max(2, round(60 * minutes * rate)), rate=rate, seed=SEED)
    run = simulate(requests, allocator, num_slots=paper.NUM_SLOTS, step_seconds=STEP_SECONDS)
    return statistics.fmean(run.latencies)


def sustained_rate(
    latency_at: Callable[[float], float], limit: float, low: float, precision: float = 0.01
) -> float:
    """The highest rate whose latency is within the limit, found by halving. 0 if that at `low` is not."""
    if latency_at(low) > limit:
        return 0.0
    high = 1.2 * low
    while latency_at(high) <= limit:
        low, high = high, 1.2 * high
    while high / low > 1 + precision:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if latency_at(middle) <= limit else (low, middle)
    return low


def latency_curve(latency_at: Callable[[float], float], rates: Sequence[float]) -> list[list[float]]:
    """[rate, latency] until the latency is above a second a token, where the paper's axes end."""
    points: list[list[float]] = []
    for rate in rates:
        points.append([rate, round(latency_at(rate), 4)])
        if points[-1][1] > 1.0:
            break
    return points


def papers_step(batch: float) -> float:
    """Seconds of a step with a batch, on the straight line through the paper's two: what ran at once with paging
    (Fig 13) is rate x output tokens x seconds a step, if the machine kept up."""
    points = [
        (running["paged"], running["paged"] / (rate * paper.FIG_11_MEANS[workload][1]))
        for workload, rate, running in (
            ("ShareGPT", paper.SHAREGPT_RATE, paper.FIG_13_SHAREGPT),
            ("Alpaca", paper.ALPACA_RATE, paper.FIG_13_ALPACA),
        )
    ]
    (few, short), (many, long) = points
    return short + (batch - few) * (long - short) / (many - few)


RATES_OF_BATCHES = {  # tokens a second that a batch makes
    "step of 0.05 s": lambda batch: batch / STEP_SECONDS,
    "step that grows": lambda batch: batch / papers_step(batch),
}


def full_batches(workload: str, rate: float, minutes: float) -> dict[str, float]:
    """Requests that run at once while others wait, for each allocator, under a load that none can serve."""
    return {
        name: batch_sizes(workload, name, rate, minutes)["mean_running_when_one_waits"] for name in ALLOCATORS
    }


def figure_12(
    rates: dict[str, Sequence[float]],
    minutes: dict[str, float],
    full_load: dict[str, tuple[float, float]],
    precision: float = 0.01,
) -> dict:
    """Latency against rate, simulated.

    Args:
        rates: workload -> requests a second to draw the curve at.
        minutes: workload -> length of the trace.
        full_load: workload -> (requests a second, minutes) under which requests wait with every allocator.
        precision: of the sustained rates.
    """
    found = {}
    for workload in rates:
        curves, sustained = {}, {}
        for allocator in bar(ALLOCATORS, f"fig12 {workload}"):
            latency_at = partial(mean_latency, workload, allocator, minutes=minutes[workload])
            curve = latency_curve(latency_at, rates[workload])
            curves[allocator], sustained[allocator] = curve, {}
            for limit in LIMITS:
                good = [rate for rate, latency in curve if latency <= limit * STEP_SECONDS]
                rate = sustained_rate(
                    latency_at, limit * STEP_SECONDS, max(good, default=curve[0][0]), precision
                )
                sustained[allocator][f"{limit}x"] = round(rate, 3)
        ratios = {
            f"to {other}": {
                limit: round(rate / sustained[other][limit], 2) if sustained[other][limit] else None
                for limit, rate in sustained["paged"].items()
            }
            for other in ALLOCATORS
            if other != "paged"
        }
        batches = full_batches(workload, *full_load[workload])
        by_step = {
            f"to {other}": {
                name: round(rate(batches["paged"]) / rate(batches[other]), 2)
                for name, rate in RATES_OF_BATCHES.items()
            }
            for other in ALLOCATORS
            if other != "paged"
        }
        found[workload] = {
            "curves": curves,
            "sustained_rate": sustained,
            "ratios": ratios,
            "full_batches": batches,
            "ratios_of_full_batches": by_step,
        }
    return TOLD["fig12"] | {
        "minutes": minutes,
        "step_seconds_of_the_paper": {batch: round(papers_step(batch), 4) for batch in (7, 30, 132)},
        "ours": {
            workload: {
                other: {f"within {limit}": ratio for limit, ratio in ratios.items()}
                | each["ratios_of_full_batches"][other]
                for other, ratios in each["ratios"].items()
            }
            for workload, each in found.items()
        },
        "workloads": found,
    }


# -- Fig 13: requests that run at once ----------------------------------------------------------------------------


def batch_sizes(workload: str, allocator: str, rate: float, minutes: float) -> dict:
    """Mean number of running requests: while requests arrive, and while one waits."""
    requests = WORKLOADS[workload](n=max(2, round(60 * minutes * rate)), rate=rate, seed=SEED)
    run = simulate(requests, allocator, num_slots=paper.NUM_SLOTS, step_seconds=STEP_SECONDS)
    during = [stretch for stretch in run.timeline if stretch.start <= requests[-1].arrival_time]
    steps = sum(stretch.num_steps for stretch in during)
    waited = sum(stretch.num_steps for stretch in during if stretch.num_waiting)
    return {
        "mean_running": round(sum(stretch.num_running for stretch in during) / steps, 2),
        "mean_running_when_one_waits": round(run.mean_running, 2) if waited else None,
        "share_of_steps_when_one_waits": round(waited / steps, 3),
    }


def figure_13(minutes: dict[str, float]) -> dict:
    """Requests that run at once, simulated at the paper's rates."""
    rates = {"ShareGPT": paper.SHAREGPT_RATE, "Alpaca": paper.ALPACA_RATE}
    details = {
        workload: {
            allocator: batch_sizes(workload, allocator, rates[workload], length)
            for allocator in bar(ALLOCATORS, f"fig13 {workload}")
        }
        for workload, length in minutes.items()
    }
    return TOLD["fig13"] | {
        "minutes": minutes,
        "ours": {
            workload: {allocator: found["mean_running"] for allocator, found in each.items()}
            for workload, each in details.items()
        },
        "workloads": details,
    }


# -- Fig 15: memory saved by sharing ------------------------------------------------------------------------------


def saved_by_sampling(llm: Llm, requests: Sequence[Request], outputs: int, block_size: int) -> float:
    """Share of blocks that several samples of a prompt save, drawn at temperature 1. All requests run at once."""
    slots = sum(outputs * (each.total_len + 2 * block_size) for each in requests)
    num_seqs = outputs * len(requests)
    engine = llm.engine(
        slots, block_size=block_size, max_num_seqs=num_seqs, max_num_batched_tokens=max(2048, num_seqs),
        max_model_len=max(each.total_len for each in requests),
    )  # fmt: skip
    count = BlockCount(engine)
    prompts = [llm.prompt(number, each.prompt_len) for number, each in enumerate(requests)]
    params = [
        SamplingParams(
            max_tokens=each.output_len, temperature=1.0, n=outputs, seed=SEED + number, ignore_eos=True
        )
        for number, each in enumerate(requests)
    ]
    engine.generate(prompts, params)
    return count.saved


def saved_by_beams(llm: Llm, requests: Sequence[Request], width: int, block_size: int) -> float:
    """Share of blocks that the beams of a search save, one request after another."""
    longest = max(each.total_len for each in requests)
    engine = llm.engine(
        (width + 2) * (longest + 2 * block_size), block_size=block_size, max_model_len=longest
    )
    count = BlockCount(engine)
    for number, each in enumerate(bar(requests, f"fig15 {width} beams")):
        beam_search(engine, llm.prompt(number, each.prompt_len), width, each.output_len)
    return count.saved


def figure_15(llm: Llm, counts: dict[str, int], outputs: Sequence[int], block_size: int = 16) -> dict:
    """Memory that sharing saves, measured on the engine.

    Args:
        counts: workload -> requests.
        outputs: samples, or beams, of each.
    """
    ours, lengths = {}, {}
    for workload, count in counts.items():
        requests = typical(WORKLOADS[workload], paper.FIG_11_MEANS[workload], count)
        lengths[workload] = mean_lengths(requests)
        ours[workload] = {
            name: {number: round(saved(llm, requests, number, block_size), 4) for number in outputs}
            for name, saved in (("sampling", saved_by_sampling), ("beams", saved_by_beams))
        }
    return TOLD["fig15"] | {
        "requests": counts,
        "mean_prompt_and_output": lengths,
        "block_size": block_size,
        "ours": ours,
    }


# -- Fig 14: what sharing adds ------------------------------------------------------------------------------------


def figure_14(fig12: dict, fig15: dict) -> dict:
    """Throughput to reserve_exact on Alpaca: batches of fig12, larger by what fig15's beams share."""
    batches = fig12["workloads"]["Alpaca"]["full_batches"]
    saved = fig15["ours"]["Alpaca"]["beams"]
    paged = {"one sample": batches["paged"]}
    paged |= {f"beam width {width}": batches["paged"] / (1 - share) for width, share in saved.items()}
    ours = {
        name: {what: round(rate(batch) / rate(batches["reserve_exact"]), 2) for what, batch in paged.items()}
        for name, rate in RATES_OF_BATCHES.items()
    }
    return TOLD["fig14"] | {"batches": {what: round(batch, 1) for what, batch in paged.items()}, "ours": ours}


# -- Fig 16: a shared prefix --------------------------------------------------------------------------------------


def with_prefix(
    llm: Llm, prefix_len: int, slots: int, count: int, lengths: tuple[int, int], caching: bool
) -> dict:
    """All requests at once; the prefix is in the cache before they come, if there is one."""
    question_len, output_len = lengths
    engine = llm.engine(
        slots, enable_prefix_caching=caching, max_model_len=prefix_len + question_len + output_len
    )
    prefix = llm.prompt(0, prefix_len)
    questions = [llm.prompt(1 + number, question_len) for number in range(count + 1)]
    engine.generate(
        [prefix + questions.pop()], SamplingParams(max_tokens=1)
    )  # a provider stores it beforehand
    held = BlockCount(engine)
    params = [SamplingParams(max_tokens=output_len, ignore_eos=True)] * count
    run = serve(engine, [prefix + question for question in questions], params)
    return {
        "requests_per_s": round(count / run.seconds, 3),
        "output_tokens_per_s": round(run.tokens_per_second, 1),
        "mean_first_token_s": round(statistics.fmean(run.first_token), 3),
        "mean_running": round(run.mean_running, 2),
        "mean_blocks_held": round(statistics.fmean(held.held), 1),
        "most_blocks_held": max(held.held),
        "saved": round(held.saved, 4),
        "num_preemptions": run.num_preemptions,
    }


def figure_16(llm: Llm, cases: Sequence[dict], lengths: tuple[int, int], rounds: int) -> dict:
    """Many prompts that begin the same: prefix caching on against off at equal bytes, measured.

    Args:
        cases: prefix_len, slots and count of each.
        lengths: tokens of each question and of its answer.
        rounds: on and off take turns; the ratio is the median.
    """
    rows = []
    for case in cases:
        sides: dict[str, list[dict]] = {"off": [], "on": []}
        for _ in bar(range(rounds), f"fig16 prefix of {case['prefix_len']}"):
            for name, runs in sides.items():
                runs.append(with_prefix(llm, **case, lengths=lengths, caching=name == "on"))
        rates = {name: [run["requests_per_s"] for run in runs] for name, runs in sides.items()}
        ratios = sorted(on / off for off, on in zip(rates["off"], rates["on"], strict=True))
        first = {
            name: statistics.median(run["mean_first_token_s"] for run in runs) for name, runs in sides.items()
        }
        rows.append(
            dict(case)
            | {name: sorted(runs, key=lambda run: run["requests_per_s"])[rounds // 2]
               for name, runs in sides.items()}
            | {"throughput_ratio": round(statistics.median(ratios), 2),
               "ratio_min": round(ratios[0], 2), "ratio_max": round(ratios[-1], 2),
               "first_token_ratio": round(first["off"] / first["on"], 2)}
        )  # fmt: skip
    return TOLD["fig16"] | {
        "question_and_output_tokens": list(lengths),
        "rounds": rounds,
        "ours": {row["prefix_len"]: row["throughput_ratio"] for row in rows},
        "rows": rows,
    }


# -- Fig 18b: the block size --------------------------------------------------------------------------------------


def running_by_block_size(workload: str, rate: float, count: int, sizes: Sequence[int]) -> dict[int, float]:
    """Requests that run at once while others wait, by block size."""
    requests = WORKLOADS[workload](n=count, rate=rate, seed=SEED)
    return {
        size: round(simulate(requests, "paged", num_slots=paper.NUM_SLOTS, block_size=size).mean_running, 2)
        for size in bar(sizes, f"fig18 {workload}")
    }


def decode_steps(
    llm: Llm, batch: int, context: int, sizes: Sequence[int], steps: int
) -> dict[int, list[float]]:
    """Milliseconds of decode steps by block size. An engine for each size, and they take turns at every step."""
    engines = {}
    for size in bar(sizes, "fig18 prompts"):
        longest = context + steps + 2
        engines[size] = llm.engine(
            batch * (longest + 2 * size), block_size=size, max_model_len=longest, max_num_seqs=batch,
            max_num_batched_tokens=batch * context,
        )  # fmt: skip
        for number in range(batch):
            params = SamplingParams(max_tokens=steps + 2, ignore_eos=True)
            engines[size].add_request(llm.prompt(number, context), params)
        engines[size].step()  # all prompts at once
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in bar(range(steps), "fig18 steps"):
        for size, engine in engines.items():
            start = time.perf_counter()
            engine.step()
            found[size].append(1e3 * (time.perf_counter() - start))
    return found


def figure_18(llm: Llm, loads: dict[str, tuple[float, int]], sizes: Sequence[int], measured: dict) -> dict:
    """The block size: memory simulated, the time of a decode step measured.

    Args:
        loads: workload -> (requests a second, requests).
        measured: arguments of `decode_steps`.
    """
    running = {name: running_by_block_size(name, *load, sizes) for name, load in loads.items()}
    times = decode_steps(llm, **measured)
    middle = {size: round(statistics.median(each), 2) for size, each in times.items()}
    return TOLD["fig18"] | {
        "loads": loads,
        "decode": {name: value for name, value in measured.items() if name != "sizes"},
        "ours": {
            "share_of_the_best": {
                name: {size: round(value / max(line.values()), 3) for size, value in line.items()}
                for name, line in running.items()
            },
            "step_ms": middle,
        },
        "running": running,
        "step_ms_quartiles": {
            size: [round(value, 2) for value in statistics.quantiles(each)] for size, each in times.items()
        },
    }


# -- Fig 19: recompute or swap ------------------------------------------------------------------------------------


def recompute_seconds(llm: Llm, num_tokens: int, sizes: Sequence[int], rounds: int) -> dict[int, float]:
    """Seconds of one step that computes a sequence anew, by block size: medians, sizes take turns."""
    options = dict(max_num_seqs=1, max_num_batched_tokens=num_tokens, max_model_len=num_tokens + 1)
    engines = {size: llm.engine(num_tokens + 1 + 2 * size, block_size=size, **options) for size in sizes}
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for turn in bar(range(rounds + 1), "fig19 recompute"):  # the first warms up
        for size, engine in engines.items():
            engine.add_request(llm.prompt(turn, num_tokens), SamplingParams(max_tokens=1))
            start = time.perf_counter()
            engine.step()
            times[size] += [time.perf_counter() - start] if turn else []
            if engine.has_unfinished():
                raise RuntimeError(f"{num_tokens} tokens did not go through the model in one step")
    return {size: statistics.median(each) for size, each in times.items()}


def copies_of(llm: Llm, num_tokens: int, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(destination, source) of each copy that takes a sequence's blocks, scattered over a pool, elsewhere: a layer's
    keys, or values, of one block each time."""
    config, blocks = llm.model.config, -(-num_tokens // size)
    shape = (2 * config.num_layers, 2 * blocks, size, config.num_kv_heads, config.head_dim)
    here, there = (torch.zeros(shape, dtype=llm.model.dtype) for _ in range(2))
    order = torch.randperm(2 * blocks, generator=torch.Generator().manual_seed(SEED))[:blocks].tolist()
    return [
        (there[part, place], here[part, block])
        for place, block in enumerate(order)
        for part in range(2 * config.num_layers)
    ]


def swap_seconds(llm: Llm, num_tokens: int, sizes: Sequence[int], rounds: int) -> dict[int, float]:
    """Seconds to copy a sequence out and in again, block by block, from one place in memory to another."""
    found = {}
    for size in bar(sizes, "fig19 swap"):
        pairs, times = copies_of(llm, num_tokens, size), []
        for turn in range(rounds + 1):  # the first warms up
            start = time.perf_counter()
            for there, here in pairs:
                there.copy_(here)
            for there, here in pairs:
                here.copy_(there)
            times += [time.perf_counter() - start] if turn else []
        found[size] = statistics.median(times)
    return found


def paper_scale(
    num_tokens: int, sizes: Sequence[int], link_bytes_per_s: float, seconds_per_transfer: float
) -> dict:
    """OPT-13B on an A100 40GB as a model: milliseconds to recompute, and to swap by block size.

    A block is 2 x 40 transfers, a layer's keys or values each. Recomputing takes 2 FLOP a parameter and token at the
    data sheet's fp16 rate, which no kernel reaches: a lower bound.
    """
    models, gpus = load_presets()
    opt, a100 = models["OPT-13B"], gpus["NVIDIA A100 40GB"]
    bytes_per_token = kv_bytes_per_token(opt.layers, opt.kv_heads, opt.head_dim, 2)
    prefill_rate = a100.fp16_tflops * 1e12 / (2 * opt.parameters)
    pairs = {
        size: recompute_or_swap(
            num_tokens, size, bytes_per_token, prefill_rate, link_bytes_per_s,
            2 * opt.layers * seconds_per_transfer,
        )
        for size in sizes
    }  # fmt: skip
    return {
        "recompute_ms": round(1e3 * pairs[sizes[0]][0], 2),
        "swap_ms": {size: round(1e3 * swap, 2) for size, (_, swap) in pairs.items()},
    }


def figure_19(
    llm: Llm,
    sizes: Sequence[int],
    num_tokens: int = 256,
    rounds: int = 5,
    link_gb_per_s: float = 32.0,
    microseconds_per_transfer: float = 10.0,
) -> dict:
    """Recompute or swap: measured on this CPU, and modelled at the paper's scale.

    Args:
        num_tokens: of the sequence that is preempted.
        link_gb_per_s: one way. 32 is PCIe 4.0 x16 as data sheets have it.
        microseconds_per_transfer: fixed cost of one transfer, an assumption. The model is also shown at half and twice.
    """
    recompute = recompute_seconds(llm, num_tokens, sizes, rounds)
    swap = swap_seconds(llm, num_tokens, sizes, rounds)
    modelled = {
        f"{factor * microseconds_per_transfer:g} us": paper_scale(
            num_tokens, sizes, 1e9 * link_gb_per_s, 1e-6 * factor * microseconds_per_transfer
        )
        for factor in (0.5, 1, 2)
    }
    assumed = modelled[f"{microseconds_per_transfer:g} us"]
    return TOLD["fig19"] | {
        "num_tokens": num_tokens,
        "link_gb_per_s": link_gb_per_s,
        "microseconds_per_transfer": microseconds_per_transfer,
        "ours": {
            "cpu_recompute_to_swap": {size: round(recompute[size] / swap[size], 2) for size in sizes},
            "modelled_recompute_to_swap": {
                size: round(assumed["recompute_ms"] / value, 2) for size, value in assumed["swap_ms"].items()
            },
        },
        "cpu": {
            "recompute_ms": {size: round(1e3 * value, 2) for size, value in recompute.items()},
            "swap_ms": {size: round(1e3 * value, 3) for size, value in swap.items()},
        },
        "modelled": modelled,
    }


# -- all of it ----------------------------------------------------------------------------------------------------

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RATES = {
    "ShareGPT": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 2.4, 2.7, 3.0),
    "Alpaca": (1, 1.5, 2, 2.5, 3, 4, 6, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80),
}
FULL = {
    "fig12": dict(
        rates=RATES,
        minutes={"ShareGPT": 60, "Alpaca": 5},
        full_load={"ShareGPT": (4.0, 20), "Alpaca": (120.0, 2)},
    ),
    "fig13": dict(minutes={"ShareGPT": 60, "Alpaca": 10}),
    "fig15": dict(counts={"Alpaca": 12, "ShareGPT": 3}, outputs=(2, 4, 6)),
    "fig16": dict(
        cases=(
            dict(prefix_len=80, slots=3328, count=32),
            dict(prefix_len=341, slots=3328, count=32),
            dict(prefix_len=2048, slots=8704, count=8),
        ),
        lengths=(30, 40),
        rounds=2,
    ),
    "fig18": dict(
        loads={"ShareGPT": (4.0, 3000), "Alpaca": (120.0, 8000)},
        sizes=SIZES,
        measured=dict(batch=8, context=256, sizes=(1, 4, 16, 64, 256), steps=40),
    ),
    "fig19": dict(sizes=SIZES),
}
QUICK = {
    "fig12": dict(
        rates={"ShareGPT": (0.3, 1.0, 2.0, 4.0), "Alpaca": (2, 20, 60)},
        minutes={"ShareGPT": 5, "Alpaca": 0.5},
        full_load={"ShareGPT": (4.0, 2), "Alpaca": (120.0, 0.2)},
        precision=0.15,
    ),
    "fig13": dict(minutes={"ShareGPT": 10, "Alpaca": 1}),
    "fig15": dict(counts={"Alpaca": 2}, outputs=(2, 3)),
    "fig16": dict(
        cases=(dict(prefix_len=34, slots=256, count=4), dict(prefix_len=100, slots=384, count=4)),
        lengths=(10, 8),
        rounds=1,
    ),
    "fig18": dict(
        loads={"ShareGPT": (4.0, 300), "Alpaca": (120.0, 1500)},
        sizes=(1, 16, 256),
        measured=dict(batch=2, context=40, sizes=(1, 16), steps=4),
    ),
    "fig19": dict(sizes=(1, 16, 64), num_tokens=64, rounds=2),
}
NAMES = ("fig12", "fig13", "fig14", "fig15", "fig16", "fig18", "fig19")
MAKERS = {
    "fig12": figure_12,
    "fig13": figure_13,
    "fig15": figure_15,
    "fig16": figure_16,
    "fig18": figure_18,
    "fig19": figure_19,
}
SIMULATED = ("fig12", "fig13")  # they need no model


def make_figures(
    names: Sequence[str], efforts: dict[str, dict], known: dict[str, dict] | None = None
) -> dict[str, dict]:
    """The figures asked for, and those that are known, in the paper's order.

    fig14 is made of fig12 and fig15: they come along if they are not known.
    """
    made = {name: figure | TOLD[name] for name, figure in (known or {}).items()}  # texts may be newer
    wanted = set(names) | ({"fig12", "fig15"} - set(made) if "fig14" in names else set())
    llm = load_llm() if wanted - {*SIMULATED, "fig14"} else None
    with tqdm(total=len(wanted), desc="figures") as progress:
        for name in sorted(wanted, key=lambda name: (name == "fig14", name)):
            start = time.perf_counter()
            if name == "fig14":
                found = figure_14(made["fig12"], made["fig15"])
            else:
                model = {} if name in SIMULATED else {"llm": llm}
                found = MAKERS[name](**model, **efforts[name])
            seconds = round(time.perf_counter() - start, 1)
            made[name] = found | {"seconds": seconds}
            progress.update()
            tqdm.write(f"{name}  {seconds:6.1f} s  {json.dumps(found['ours'])}")
    # as they are stored, with strings for keys, whether a figure is new or known
    return json.loads(json.dumps({name: made[name] for name in NAMES if name in made}))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, help="some figures; --out keeps the others it has"
    )
    parser.add_argument("--quick", action="store_true", help="everything small: to see that it runs")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", help="JSON, or - for none; a full run has a default")
    parser.add_argument("--page", help="PNG, or - for none; a full run has a default")
    options = parser.parse_args(arguments)
    full = not options.only and not options.quick
    out, page = (
        Path(given) if given and given != "-" else RESULTS / name if full and not given else None
        for given, name in ((options.out, "paper_figures.json"), (options.page, "paper_figures.png"))
    )
    torch.set_num_threads(options.threads)
    known = json.loads(out.read_text())["figures"] if options.only and out and out.exists() else {}
    report = {
        "benchmark": "paper_figures",
        "machine": machine(["torch", "numpy", "tokenizers"], torch_threads=torch.get_num_threads()),
        "options": {"quick": options.quick, "threads": options.threads},
        "figures": make_figures(options.only or NAMES, QUICK if options.quick else FULL, known),
    }
    if out:
        out.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written: {out}")
    if page:
        page.write_bytes(paper_page(report["figures"], report["machine"]).png())
        print(f"written: {page}")


if __name__ == "__main__":
    main()
