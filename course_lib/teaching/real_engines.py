"""What notebook 09 shows of real engines: the table of three worlds, and what the real vLLM said and took.

The table's rows are in real_engines.toml, each with the file of vLLM's source in which it was looked up. The answers of
vLLM are in benchmarks/results/vllm.json, written by `make vllm`.
"""

import html
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from IPython.display import HTML

from course_lib.serving import LlamaModel
from course_lib.serving.kv_cache import GrowingCache

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "vllm.json"
TIE = 1e-3  # of log probability: two tokens nearer than this may change places with the order of a sum


@dataclass(frozen=True)
class Point:
    """One thing in three worlds."""

    name: str
    paper: str  # Kwon et al. 2023, with the section
    vllm: str  # today
    source: str  # the file of vLLM's package
    word: str  # that stands in that file
    ours: str
    where: str  # in course_lib


@dataclass(frozen=True)
class Table:
    """All points, and the version that they were looked up in."""

    version: str
    looked_up: str  # date
    points: tuple[Point, ...]


def load_table() -> Table:
    """The table as it stands in real_engines.toml.

    Example:
        >>> load_table().version
        '0.32.0'
    """
    raw = tomllib.loads(
        files("course_lib.teaching").joinpath("real_engines.toml").read_text(encoding="utf-8")
    )
    return Table(raw["version"], raw["looked_up"], tuple(Point(**point) for point in raw["point"]))


FIRST = ("a block", "kernel", "out of blocks", "n samples", "prefix caching")  # what interviewers ask for


def table(*, rest: bool = False) -> HTML:
    """The five rows that matter most, or the rest of them, folded."""
    found = load_table()
    shown = [point for point in found.points if (point.name in FIRST) != rest]
    cell = '<td style="text-align:left;vertical-align:top;padding:6px">'
    rows = "".join(
        f"<tr>{cell}<b>{html.escape(point.name)}</b></td>"
        f"{cell}{html.escape(point.paper)}</td>"
        f"{cell}{html.escape(point.vllm)}<br><code>{html.escape(point.source)}</code></td>"
        f"{cell}{html.escape(point.ours)}<br><code>{html.escape(point.where)}</code></td></tr>"
        for point in shown
    )
    titles = ("", "the paper, 2023", f"vLLM {found.version}, read on {found.looked_up}", "this course")
    head = "".join(f'<th style="text-align:left;padding:6px">{title}</th>' for title in titles)
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    folded = f"<details><summary>{len(shown)} more rows, to look things up in</summary>{whole}</details>"
    return HTML(folded if rest else whole)


def missing_sources(package: Path) -> list[str]:
    """Points whose file, or whose word in it, an installed vLLM does not have: to be read again.

    Args:
        package: the folder `vllm` in site-packages.
    """
    gone = []
    for point in load_table().points:
        file = package / point.source
        if not file.is_file():
            gone.append(f"{point.name}: no file {point.source}")
        elif point.word not in file.read_text(encoding="utf-8"):
            gone.append(f"{point.name}: {point.source} does not say {point.word}")
    return gone


# -- what the real one said -----------------------------------------------------------------------------------


def stored() -> dict:
    """The answers of the real vLLM, with machine, versions and date."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def agree(model: LlamaModel, prompt: Sequence[int], ours: Sequence[int], theirs: Sequence[int]) -> bool:
    """Whether two greedy answers are the same, up to a tie: at the first difference both tokens are within 1e-3."""
    pairs = zip(ours, theirs, strict=False)
    at = next((number for number, (a, b) in enumerate(pairs) if a != b), None)
    if at is None:
        return len(ours) == len(theirs)
    known = [*prompt, *ours[:at]]
    cache = GrowingCache()
    positions = cache.begin_step({0: len(known)})
    scores = model.logits(model(torch.tensor(known), positions, cache)[-1]).log_softmax(-1)
    return abs(scores[ours[at]] - scores[theirs[at]]).item() < TIE
