"""Requests to serve: drawn from published statistics, or read from a real trace."""

import csv
import math
import random
from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from course_lib.memory.block_pool import positive_int


@dataclass(frozen=True)
class Request:
    """One request as a simulator sees it.

    Args:
        arrival_time: seconds.
        prompt_len, output_len: tokens. The output's length is known to nobody before it is written: only
            the simulator and an oracle look at it.

    Raises:
        ValueError: a length below 1, or an arrival time that is negative or no number.
    """

    arrival_time: float
    prompt_len: int
    output_len: int

    def __post_init__(self):
        positive_int("prompt_len", self.prompt_len)
        positive_int("output_len", self.output_len)
        if not (isinstance(self.arrival_time, (int, float)) and 0 <= self.arrival_time < math.inf):
            raise ValueError(f"arrival_time must be a number of seconds from 0 on, got {self.arrival_time!r}")

    @property
    def total_len(self) -> int:
        return self.prompt_len + self.output_len


def sharegpt_like(n: int, rate: float, seed: int) -> list[Request]:
    """Chats as in ShareGPT: long answers.

    Lengths are lognormal at the paper's means (161.31 and 337.99 tokens), with sigma 1.0 and 0.8, clipped to 1,024
    each and 2,048 in all. Means are the paper's; the shape and its spread are this course's choice. Clipping
    takes some of the mean away.

    Args:
        n: requests.
        rate: requests a second, arriving as a Poisson process.
        seed: the same seed gives the same requests.

    Source: Kwon et al. (SOSP 2023), Fig 11.
    """
    return _lognormal(n, rate, seed, means=(161.31, 337.99), sigmas=(1.0, 0.8))


def alpaca_like(n: int, rate: float, seed: int) -> list[Request]:
    """Short instructions and short answers, as in Alpaca: means of 19.31 and 58.45 tokens, drawn as in
    `sharegpt_like`.

    Source: Kwon et al. (SOSP 2023), Fig 11.
    """
    return _lognormal(n, rate, seed, means=(19.31, 58.45), sigmas=(1.0, 0.8))


# Azure's LLM inference trace of 2023-11-16, conversation service: quantiles of its 19,366 requests.
AZURE_SHARES = (0.0, 0.05, 0.25, 0.50, 0.75, 0.95, 0.99, 1.0)
AZURE_PROMPT = (1, 181, 396, 1020, 1189, 4083, 4142, 14_050)
AZURE_OUTPUT = (1, 41, 85, 129, 395, 451, 601, 1000)


def azure_conversation_like(n: int, rate: float, seed: int) -> list[Request]:
    """A conversation service in production: long prompts, answers of a few hundred tokens.

    Prompt and output lengths are drawn apart from each other (the trace's correlation is -0.11), by straight lines
    of logarithms between the trace's quantiles, which puts their means within 5% of the trace's 1154.7 and 211.1.
    Arrivals are Poisson: the trace's inter-arrival times have a coefficient of variation of 1.09, Poisson's is 1. The
    trace's own rate is 5.53 requests a second.

    Source: Azure/AzurePublicDataset, AzureLLMInferenceTrace_conv.csv (CC-BY 4.0).
    """
    draw, times = random.Random(seed), _poisson_times(n, rate, seed)
    return [
        Request(time, _at_share(draw.random(), AZURE_PROMPT), _at_share(draw.random(), AZURE_OUTPUT))
        for time in times
    ]


def _at_share(share: float, values: tuple[int, ...]) -> int:
    """The value below which this share of the trace lies; between two quantiles, on a straight line of logarithms."""
    right = min(bisect_right(AZURE_SHARES, share), len(values) - 1)
    left = right - 1
    part = (share - AZURE_SHARES[left]) / (AZURE_SHARES[right] - AZURE_SHARES[left])
    return round(values[left] * (values[right] / values[left]) ** part)


def _lognormal(
    n: int, rate: float, seed: int, means: tuple[float, float], sigmas: tuple[float, float]
) -> list[Request]:
    draw, times = random.Random(seed), _poisson_times(n, rate, seed)
    requests = []
    for time in times:
        prompt, output = (
            min(1024, max(1, round(draw.lognormvariate(math.log(mean) - sigma**2 / 2, sigma))))
            for mean, sigma in zip(means, sigmas, strict=True)
        )
        requests.append(Request(time, prompt, output))
    return requests


def _poisson_times(n: int, rate: float, seed: int) -> list[float]:
    """Arrival times in seconds, the first gap included, from a generator of their own."""
    positive_int("n", n)
    if not (isinstance(rate, (int, float)) and 0 < rate < math.inf):
        raise ValueError(f"rate must be a number of requests a second above 0, got {rate!r}")
    draw, time, times = random.Random(f"arrivals {seed}"), 0.0, []
    for _ in range(n):
        time += draw.expovariate(rate)
        times.append(time)
    return times


COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def load_trace(path: str | Path) -> list[Request]:
    """Read a trace of Azure's LLM inference service.

    Args:
        path: a CSV with the columns TIMESTAMP, ContextTokens and GeneratedTokens, in any order, rows sorted
            by time. CRLF and a missing last newline are fine.

    Returns:
        The requests; arrival_time counts seconds from the first row.

    Raises:
        ValueError: an empty file, a missing column, a bad row, or a row earlier than the one before. The
            message names the file, the line (from 1, the header included) and the column.

    Source: Azure/AzurePublicDataset (CC-BY 4.0).
    """
    path = Path(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        header = next(rows, None)
        if not header:
            raise ValueError(f"{path}: the file is empty; a header with {', '.join(COLUMNS)} is expected")
        missing = [column for column in COLUMNS if column not in header]
        if missing:
            raise ValueError(f"{path}, line 1: no column {missing[0]}; found {', '.join(header)}")
        places = [header.index(column) for column in COLUMNS]
        requests: list[Request] = []
        first = previous = None
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if len(row) != len(header):
                raise ValueError(f"{where}: {len(row)} fields, the header has {len(header)}")
            time = _parse_time(row[places[0]], where)
            if previous is not None and time < previous:
                raise ValueError(
                    f"{where}, column TIMESTAMP: {row[places[0]]!r} is earlier than the line before"
                )
            first, previous = first or time, time
            lengths = [_parse_length(row[place], where, header[place]) for place in places[1:]]
            requests.append(Request((time - first).total_seconds(), *lengths))
    if not requests:
        raise ValueError(f"{path}: the file has a header and no requests")
    return requests


def _parse_time(text: str, where: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip()[:26])  # Azure writes seven decimals, Python reads six
    except ValueError:
        raise ValueError(f"{where}, column TIMESTAMP: {text!r} is no time") from None


def _parse_length(text: str, where: str, column: str) -> int:
    try:
        return positive_int(column, int(text))
    except ValueError:
        raise ValueError(f"{where}, column {column}: {text!r} is no number of tokens of at least 1") from None
