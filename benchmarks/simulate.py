"""How fast the simulator is, how its cost grows with the number of requests, and what a watermark saves.

    python -m benchmarks.simulate                              # prints tables, writes results/simulate.json
    python -m benchmarks.simulate --sizes 1000 10000 --out -

The workload is Azure-like, 1,366 tokens a request on average, on 60,100 slots (the paper's OPT-175B), always saturated.
Sizes take turns, so that a machine that slows down slows all: read the ratios.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from benchmarks.machine import RESULTS, machine
from course_lib.memory import ALLOCATORS, Request, azure_conversation_like, sharegpt_like, simulate

NUM_SLOTS, MAX_LEN, RATE = 60_100, 16_384, 5.53
LEAST_SECONDS = 2.0  # a size is repeated until its runs of one turn take as long


def microseconds_per_request(requests: list[Request], allocator: str) -> float:
    """One turn: as many runs as it takes for the clock to mean something."""
    runs, start = 0, time.perf_counter()
    while runs == 0 or time.perf_counter() - start < LEAST_SECONDS:
        simulate(requests, allocator, num_slots=NUM_SLOTS, max_len=MAX_LEN)
        runs += 1
    return 1e6 * (time.perf_counter() - start) / runs / len(requests)


def cost_by_size(allocator: str, sizes: list[int], turns: int) -> list[dict]:
    """Medians over the turns; a turn runs every size once, or often if it is small."""
    workloads = {size: azure_conversation_like(size, RATE, seed=1) for size in sizes}
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(turns):
        for size, requests in workloads.items():
            times[size].append(microseconds_per_request(requests, allocator))
    return [
        {
            "allocator": allocator,
            "requests": size,
            "us_per_request": round(statistics.median(times[size]), 1),
            "requests_per_s": round(1e6 / statistics.median(times[size])),
            "ratio_to_first": round(
                statistics.median(a / b for a, b in zip(times[size], times[sizes[0]], strict=True)), 3
            ),
        }
        for size in sizes
    ]


def preemptions(size: int) -> list[dict]:
    """For every 1,000 requests, with the default watermark and with others."""
    rows = []
    for name, requests, num_slots in [
        ("sharegpt_like, 2/s, 15,728 slots", sharegpt_like(size, 2.0, seed=1), 15_728),
        (
            "azure_conversation_like, 5.53/s, 60,100 slots",
            azure_conversation_like(size, RATE, seed=1),
            NUM_SLOTS,
        ),
    ]:
        for watermark in (0.0, 0.01, 0.05):
            run = simulate(requests, "paged", num_slots=num_slots, max_len=MAX_LEN, watermark=watermark)
            rows.append(
                {
                    "workload": name,
                    "watermark": watermark,
                    "preemptions_per_1000": round(1000 * run.num_preemptions / size, 1),
                    "mean_running": round(run.mean_running, 2),
                    "token_states": round(run.shares["token_states"], 3),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", default=str(RESULTS / "simulate.json"), help="a path, or - for none")
    options = parser.parse_args()

    rows = []
    print(f"{'allocator':14}{'requests':>10}{'us/request':>12}{'requests/s':>12}{'ratio':>8}")
    for allocator in ALLOCATORS:
        for row in cost_by_size(allocator, options.sizes, options.turns):
            rows.append(row)
            print(
                f"{row['allocator']:14}{row['requests']:>10,}{row['us_per_request']:>12}{row['requests_per_s']:>12,}"
                f"{row['ratio_to_first']:>8}",
                flush=True,
            )
    watermarks = preemptions(10_000)
    for row in watermarks:
        print(
            f"{row['workload']:46} watermark {row['watermark']:4.0%}: {row['preemptions_per_1000']:6} preemptions in "
            f"1,000 requests, {row['mean_running']:5} at once"
        )
    if options.out != "-":
        report = {"benchmark": "simulate", "machine": machine(), "turns": options.turns, "rows": rows}
        Path(options.out).write_text(json.dumps(report | {"preemptions": watermarks}, indent=2) + "\n")
        print(f"written: {options.out}")


if __name__ == "__main__":
    main()
