"""One block table for several ranks: the same block ids, and in each block the rank's own heads."""

import itertools

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from course_lib.serving.tensor_parallel import Report
from course_lib.teaching.plots.canvas import FREE, Picture, request_color, styled

BLOCKS_SHOWN = 8
HEAD = 0.42  # how high one head is drawn


def heads_of(report: Report) -> list[list[int]]:
    """The KV heads of each rank, by number.

    Example:
        >>> heads_of(Report([], [], [2, 1], [0, 0], [[], []]))
        [[0, 1], [2]]
    """
    ends = itertools.accumulate(report.kv_heads, initial=0)
    return [list(range(start, stop)) for start, stop in itertools.pairwise(ends)]


def _named(heads: list[int]) -> str:
    return f"KV head{'s' * (len(heads) > 1)} {' and '.join(map(str, heads))}"


@styled
def ranks(report: Report) -> Picture:
    """The block tables of the last step on the left; on the right each rank's pool.

    Raises:
        ValueError: ranks that have read by different tables.
    """
    tables = report.last_tables[0]
    if any(other != tables for other in report.last_tables):
        raise ValueError(f"ranks have different block tables: {report.last_tables}")
    heads = heads_of(report)
    held = [
        f"rank {rank} holds {_named(mine)} in {num_bytes / 2**20:.1f} MiB"
        for rank, (mine, num_bytes) in enumerate(zip(heads, report.kv_cache_bytes, strict=True))
    ]
    alt = f"{len(tables)} block tables, the same on {len(heads)} ranks: " + "; ".join(held) + "."
    height = sum(HEAD * len(mine) + 0.75 for mine in heads)
    picture = Picture(height + 0.5, alt)
    axes = picture.subplots()
    owner = {block: number for number, table in enumerate(tables) for block in table}
    axes.text(-0.9, -0.45, "one table a text, all ranks", weight="bold")
    for number, table in enumerate(tables):
        y = 0.25 + 0.95 * number
        axes.text(-0.1, y + 0.27, f"text {number + 1}", ha="right", va="center")
        for place, block in enumerate(table):
            _cell(axes, place * 0.8, y, 0.8, 0.55, str(block), dict(facecolor=request_color(number)))
    y = -0.45
    for rank, mine in enumerate(heads):
        axes.text(3.4, y, f"rank {rank}: {_named(mine)}", weight="bold")
        for block, (row, head) in itertools.product(range(BLOCKS_SHOWN), enumerate(mine)):
            look = dict(facecolor=request_color(owner[block])) if block in owner else FREE
            _cell(
                axes,
                3.4 + block,
                y + 0.2 + HEAD * row,
                1,
                HEAD,
                f"head {head}" if block in owner else "",
                look,
            )
        y += 0.2 + HEAD * len(mine)
        for block in range(BLOCKS_SHOWN):
            axes.text(3.9 + block, y + 0.24, str(block), ha="center", va="center", fontsize=11)
        y += 0.55
    axes.set(xlim=(-1.0, 3.5 + BLOCKS_SHOWN), ylim=(y + 0.05, -0.8))
    axes.axis("off")
    return picture


def _cell(axes: Axes, x: float, y: float, width: float, height: float, word: str, look: dict) -> None:
    axes.add_patch(Rectangle((x, y), width, height, edgecolor="#555555", lw=0.8, **look))
    axes.text(x + width / 2, y + height / 2, word, ha="center", va="center", fontsize=11)
