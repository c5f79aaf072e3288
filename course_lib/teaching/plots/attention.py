"""Pictures of attention over blocks: what one query reads, and what the gather costs."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.patches import Rectangle

from course_lib.serving.kv_cache import PagedCache
from course_lib.teaching.plots.canvas import BLUE, FREE, RESERVED, VERMILLION, Picture, request_color, styled
from course_lib.teaching.plots.kv_cache import token_label

CELLS = 16  # slots in a row


@styled
def block_reads(
    cache: PagedCache, texts: Mapping[int, Sequence[str]], sequence: int, weights: torch.Tensor, where: str
) -> Picture:
    """Which slots of the pool one query reads, and how much each weighs.

    Args:
        cache: read, not changed.
        texts: sequence -> the text of each of its tokens.
        sequence: whose query it is.
        weights: [S] attention weights over the sequence's positions; shorter than the sequence if the query is not
            its last token.
        where: the layer and head, for the caption.
    """
    size, pool, table = cache.pool.block_size, cache.pool, cache.tables[sequence]
    slots = [table.slot(position) for position in range(len(weights))]
    read = dict(zip(slots, weights.tolist(), strict=True))
    blocks = table.block_ids[: -(-len(weights) // size)]
    top = int(weights.argmax())
    alt = (
        f"{where}: the query of {token_label(texts[sequence][len(weights) - 1])!r} in request {sequence} reads "
        f"{len(weights)} slots of blocks {', '.join(map(str, blocks))}, in this order.\n"
        f"Most weight, {weights[top]:.0%}, is on token {top}, {token_label(texts[sequence][top])!r}, "
        f"in slot {slots[top]}. Other requests' blocks and the hatched slots are not read."
    )
    num_rows = -(-pool.num_blocks * size // CELLS)
    picture = Picture(0.35 + 0.62 * num_rows, alt, lines=2)
    picture.set_layout_engine("none")
    axes = picture.add_axes((0.005, picture.above_caption, 0.99, 1 - picture.above_caption))
    owner = {
        table.slot(position): (key, position)
        for key, table in cache.tables.items()
        for position in range(table.num_tokens)
    }
    used = {block for table in cache.tables.values() for block in table.block_ids}
    for slot in range(pool.num_blocks * size):
        row, column = divmod(slot, CELLS)
        key, position = owner.get(slot, (None, None))
        look = dict(FREE) if slot // size not in used else dict(RESERVED)
        if key is not None:
            look = dict(facecolor=request_color(key), alpha=0.25)
        y = 1.06 * row
        axes.add_patch(Rectangle((column + 0.03, y), 0.94, 0.52, edgecolor="#888888", lw=0.6, **look))
        if slot in read:  # a bar from below: the weight, as a share of the largest
            height = 0.52 * read[slot] / max(read.values())
            axes.add_patch(Rectangle((column + 0.03, y + 0.52 - height), 0.94, height, facecolor=VERMILLION))
            axes.add_patch(Rectangle((column + 0.03, y), 0.94, 0.52, fill=False, edgecolor="black", lw=1.8))
        if key is not None:
            color = "black" if slot in read else "#777777"
            axes.text(
                column + 0.5,
                y + 0.27,
                token_label(texts[key][position]),
                ha="center",
                va="center",
                fontsize=9,
                color=color,
            )
        if slot % size == 0:
            order = f" (logical {blocks.index(slot // size)})" if slot // size in blocks else ""
            axes.text(
                column + size / 2,
                y - 0.13,
                f"block {slot // size}{order}",
                ha="center",
                va="center",
                fontsize=10,
            )
    axes.set(xlim=(-0.1, CELLS + 0.1), ylim=(1.06 * num_rows - 0.3, -0.35))
    axes.axis("off")
    return picture


@styled
def step_times(milliseconds: Mapping[str, Mapping[str, float]]) -> Picture:
    """Measured time of one decode step, bars side by side for each setting."""
    names = list(next(iter(milliseconds.values())))
    alt = "One decode step, measured here: " + "; ".join(
        f"{setting}: " + ", ".join(f"{name} {value:.0f} ms" for name, value in times.items())
        for setting, times in milliseconds.items()
    )
    picture = Picture(3.0, alt + ".")
    axes = picture.subplots()
    for number, (name, color, hatch) in enumerate(zip(names, ("white", BLUE), ("", "//"), strict=False)):
        places = [place + 0.4 * number - 0.2 for place in range(len(milliseconds))]
        values = [times[name] for times in milliseconds.values()]
        axes.bar(places, values, width=0.38, facecolor=color, hatch=hatch, edgecolor="#333333", label=name)
    axes.set_xticks(range(len(milliseconds)), list(milliseconds))
    axes.set(ylabel="one decode step [ms]")
    axes.legend(fontsize=11)
    return picture
