"""The course's terms, each with a link to the notebook that defines it."""

import html
import tomllib
from dataclasses import dataclass
from importlib.resources import files

from IPython.display import HTML

NOTEBOOKS = {
    "00": "00_start_here",
    "01": "01_kv_cache",
    "02": "02_fragmentation",
    "03": "03_block_tables",
    "04": "04_paged_attention",
    "05": "05_gpu_kernel",
    "06": "06_online_softmax",
    "07": "07_serving",
    "08": "08_sharing",
    "09": "09_real_engines",
    "10": "10_bug_clinic",
    "11": "11_interview",
}


@dataclass(frozen=True)
class Term:
    """A word of the field."""

    name: str
    lesson: str
    means: str


def load_terms() -> tuple[Term, ...]:
    """All terms, in the order in which the course meets them.

    Example:
        >>> load_terms()[0].name
        'token'
    """
    raw = tomllib.loads(files("course_lib.teaching").joinpath("glossary.toml").read_text(encoding="utf-8"))
    return tuple(Term(**term) for term in raw["term"])


def table() -> HTML:
    """The glossary from A to Z, folded."""
    cell = '<td style="text-align:left;vertical-align:top;padding:3px 10px 3px 0">'
    rows = "".join(
        f"<tr>{cell}<b>{html.escape(term.name)}</b></td>{cell}{html.escape(term.means)}</td>"
        f'{cell}<a href="{NOTEBOOKS[term.lesson]}.ipynb">{term.lesson}</a></td></tr>'
        for term in sorted(load_terms(), key=lambda term: term.name.lower())
    )
    return HTML(f"<details><summary>{len(load_terms())} terms</summary><table>{rows}</table></details>")
