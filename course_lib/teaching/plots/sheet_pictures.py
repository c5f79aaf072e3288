"""The two small pictures of the cheat sheet."""

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from course_lib.memory import BlockTable
from course_lib.teaching import paper
from course_lib.teaching.plots.canvas import FREE, GREY, KINDS, request_color
from course_lib.teaching.plots.sheet import BODY, WIDE

PLANS = {"reserve_max": "longest", "reserve_pow2": "power of 2", "reserve_exact": "oracle", "paged": "paged"}
LEFT, RIGHT = 0.64, 0.32  # inches beside the bars, for names and for the share that has no room in its bar
SHOWN, BLOCK, ENTRY = 12, 0.21, 0.3  # blocks that are drawn, and how wide they and the table's entries are


def waste_bars(axes: Axes) -> None:
    """The paper's Fig 2, a bar for each plan. A last share under 10% has its number beside the bar, one under 8%
    none: the paper does not print it."""
    for row, (name, label) in enumerate(PLANS.items()):
        y, x = 0.02 + 0.19 * row, LEFT
        axes.text(0, y + 0.08, label, fontsize=BODY, va="center")
        for kind, share in paper.FIG_2[name].items():
            wide, look = share * (WIDE - LEFT - RIGHT), KINDS[kind]
            axes.add_patch(Rectangle((x, y), wide, 0.155, edgecolor="#555555", lw=0.5, **look))
            if share > 0.1:
                behind = dict(facecolor="white", edgecolor="none", pad=0.4) if "hatch" in look else None
                where = dict(ha="center", va="center", bbox=behind)
                axes.text(x + wide / 2, y + 0.08, f"{share:.1%}", fontsize=BODY, **where)
            x += wide
        if 0.08 < share < 0.1:
            axes.text(x + 0.05, y + 0.08, f"{share:.1%}", fontsize=BODY, va="center")


def table_and_blocks(axes: Axes, table: BlockTable) -> None:
    """A sequence's block table, and its blocks among the first of the pool."""
    size, left = table.pool.block_size, WIDE - SHOWN * BLOCK
    axes.text(0, 0.13, "block table", fontsize=BODY, va="center")
    axes.text(0, 0.59, f"{SHOWN} of {table.pool.num_blocks} blocks", fontsize=BODY, va="center")
    middle = dict(fontsize=BODY, ha="center", va="center")
    for block_id in range(SHOWN):
        x = left + BLOCK * block_id
        axes.add_patch(Rectangle((x, 0.5), BLOCK, 0.17, edgecolor=GREY, lw=0.6, **FREE))
        axes.text(x + BLOCK / 2, 0.75, f"{block_id}", **middle)
    for index, block_id in enumerate(table.block_ids):
        held = min(size, table.num_tokens - index * size) / size
        x, to = left + ENTRY * index, left + BLOCK * block_id
        look = dict(facecolor=request_color(0), edgecolor="#555555", lw=0.6)
        axes.add_patch(Rectangle((to, 0.5), BLOCK * held, 0.17, **look))
        axes.add_patch(Rectangle((x, 0.04), ENTRY, 0.17, facecolor="white", edgecolor="#333333", lw=0.8))
        axes.text(x + ENTRY / 2, 0.13, f"{block_id}", **middle)
        how = dict(arrowstyle="->", color="#333333", lw=0.8, shrinkA=0, shrinkB=0)
        axes.annotate("", (to + BLOCK / 2, 0.49), (x + ENTRY / 2, 0.21), arrowprops=how)
    end = left + ENTRY * len(table.block_ids)
    axes.text(end + 0.1, 0.13, f"A: {table.num_tokens} tokens", fontsize=BODY, va="center")
