"""Pictures of kernels: what a program reads, tile by tile, and how softmax is taken one tile at a time."""

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from course_lib.teaching import kernel_story
from course_lib.teaching.kernel_story import BLOCK_SIZE, GROUP, GROUP_PADDED, NUM_BLOCKS, ROOM, TILE, Step
from course_lib.teaching.online_story import Query, State, states
from course_lib.teaching.plots.canvas import (
    BLUE,
    FREE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RESERVED,
    SKY,
    VERMILLION,
    Picture,
    request_color,
    styled,
)
from course_lib.teaching.plots.kv_cache import token_label

PHASES = {
    "query": "It loads its queries",
    "keys": "First walk, keys",
    "softmax": "Softmax of all kept scores at once",
    "values": "Second walk, values",
    "out": "It stores its result",
}


def _box(axes: Axes, x: float, y: float, width: float, height: float, text: str = "", **look) -> None:
    size = look.pop("fontsize", 10)
    axes.add_patch(Rectangle((x, y), width, height, **dict(edgecolor="#888888", lw=0.6) | look))
    if text:
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)


@styled
def kernel_step(steps: Sequence[Step], sequence: int, kv_head: int, number: int) -> Picture:
    """One step of one program of kernel one: its row of the block table, its tile, the scores it keeps, the pool.

    Args:
        steps: of `kernel_story`.
        number: of the step within the program; the last one stands for all behind it.
    """
    own = [step for step in steps if (step.sequence, step.kv_head) == (sequence, kv_head)]
    number = min(number, len(own) - 1)
    step, tables = own[number], kernel_story.make_tables()
    walk = [each for each in own[: number + 1] if each.phase == step.phase]
    picture = Picture(3.75, _tell_step(step, number, len(own), len(walk)), lines=3)
    picture.set_layout_engine("none")
    axes = picture.add_axes((0.005, picture.above_caption, 0.99, 1 - picture.above_caption))
    axes.set(xlim=(-0.1, 33.2), ylim=(15.3, -0.2))
    axes.axis("off")
    _draw_tables(axes, tables, step)
    _draw_scores(axes, step)
    _draw_tile(axes, step, TILE * (len(walk) - 1))
    _draw_pool(axes, tables, step, walk)
    return picture


def _tell_step(step: Step, number: int, count: int, tile: int) -> str:
    who = (
        f"Program ({step.sequence}, {step.kv_head}), step {number + 1} of {count}: sequence {step.sequence}, KV head "
        f"{step.kv_head}, query heads {step.kv_head * GROUP} to {step.kv_head * GROUP + GROUP - 1}."
    )
    what = f"{PHASES[step.phase]}, {step.bytes} bytes."
    if step.slots:
        live = [slot for slot in step.slots if slot >= 0]
        entries = sorted({entry for entry in step.entries if entry >= 0})
        blocks = list(dict.fromkeys(slot // BLOCK_SIZE for slot in live))
        first = TILE * (tile - 1)
        what = (
            f"{PHASES[step.phase]}, tile {tile}: positions {first} to {first + TILE - 1}, {len(live)} are tokens"
            f"{'' if len(live) == TILE else f' and {TILE - len(live)} masked'}. "
            f"Entries {', '.join(map(str, entries))} of the table name blocks {', '.join(map(str, blocks))}. "
            f"{step.bytes} bytes are moved."
        )
    return f"{who}\n{what}"


def _draw_tables(axes: Axes, tables: Sequence, step: Step) -> None:
    axes.text(0, 0.35, "block tables", fontsize=11, va="center")
    for row, table in enumerate(tables):
        y, mine = 0.9 + 1.05 * row, row == step.sequence
        axes.text(0, y + 0.45, f"seq {row}", fontsize=10.5, va="center", weight="bold" if mine else "normal")
        for entry in range(kernel_story.TABLE_WIDTH):
            held = entry < len(table.block_ids)
            look = dict(facecolor=request_color(row), alpha=1.0 if mine else 0.3) if held else dict(RESERVED)
            _box(axes, 2.2 + 1.3 * entry, y, 1.25, 0.9, str(table.block_ids[entry]) if held else "", **look)
            if mine and entry in step.entries:
                _box(axes, 2.2 + 1.3 * entry, y, 1.25, 0.9, fill=False, edgecolor=VERMILLION, lw=2.4)


def _draw_scores(axes: Axes, step: Step) -> None:
    weights = step.phase in ("softmax", "values", "out")
    left, cell = 14.2, 0.59
    axes.text(11.2, 0.35, f"{'weights' if weights else 'scores'} kept: room for {ROOM} a query head", fontsize=11,
              va="center")  # fmt: skip
    for row in range(GROUP_PADDED):
        y = 0.9 + 0.8 * row
        name = f"head {step.kv_head * GROUP + row}" if row < GROUP else "padding"
        axes.text(11.2, y + 0.33, name, fontsize=10, va="center")
        kept = cell * step.num_scores if row < GROUP else 0.0
        _box(axes, left, y, cell * ROOM, 0.68, **(FREE if row < GROUP else RESERVED))
        _box(axes, left, y, kept, 0.68, facecolor=PURPLE if weights else BLUE, alpha=0.6)
        edges = [left + cell * position for position in range(1, ROOM)]
        axes.vlines(edges, y, y + 0.68, color="#888888", lw=0.6)
    live = ROOM if step.phase == "softmax" else sum(slot >= 0 for slot in step.slots)
    first = step.num_scores - live if step.phase == "keys" else _first_position(step) if step.slots else 0
    frame = left + cell * first, 0.9, cell * live, 0.8 * GROUP - 0.12
    _box(axes, *frame, fill=False, edgecolor=VERMILLION, lw=2.4 if live else 0)


def _first_position(step: Step) -> int:
    """Of a tile: its first lane is in the first entry that it reads."""
    return step.entries[0] * BLOCK_SIZE


def _draw_tile(axes: Axes, step: Step, first: int) -> None:
    y = 5.0
    axes.text(0, y + 0.45, "the tile", fontsize=11, va="center")
    for label, row in (("position", 0), ("slot", 1)):
        axes.text(3.2, y + 0.45 + 1.05 * row, label, fontsize=10.5, va="center")
    for lane in range(TILE):
        x = 6.4 + 2.15 * lane
        slot = step.slots[lane] if step.slots else None
        if slot is None:
            looks, texts = [dict(facecolor="white")] * 2, ("", "")
        elif slot < 0:
            looks, texts = [dict(RESERVED)] * 2, ("", "")
        else:
            looks = [dict(facecolor="white"), dict(facecolor=request_color(step.sequence))]
            texts = (str(first + lane), str(slot))
        for row in (0, 1):
            _box(axes, x, y + 1.05 * row, 2.0, 0.95, texts[row], **looks[row])
        if slot is not None and slot < 0:
            axes.text(
                x + 1.0,
                y + 1.0,
                "masked",
                ha="center",
                va="center",
                fontsize=9.5,
                bbox=dict(facecolor="white", edgecolor="none", pad=1.5),
            )
    if step.slots:
        axes.text(24.0, y + 0.45, f"entry = position // {BLOCK_SIZE}", fontsize=10.5, va="center")
        axes.text(
            24.0,
            y + 1.5,
            f"slot = block × {BLOCK_SIZE} + position % {BLOCK_SIZE}",
            fontsize=10.5,
            va="center",
        )


def _draw_pool(axes: Axes, tables: Sequence, step: Step, walk: Sequence[Step]) -> None:
    y0 = 7.9
    axes.text(
        0, y0 + 0.25, f"the pool: slots with their number (KV head {step.kv_head})", fontsize=11, va="center"
    )
    owner = {table.slot(p): row for row, table in enumerate(tables) for p in range(table.num_tokens)}
    used = {block for table in tables for block in table.block_ids}
    read = {slot for each in walk for slot in each.slots}
    for block in range(NUM_BLOCKS):
        x, y = 4.72 * (block % 7), y0 + 1.5 + 3.6 * (block // 7)
        axes.text(x + 2.2, y - 0.42, f"block {block}", ha="center", va="center", fontsize=10)
        for offset in range(BLOCK_SIZE):
            slot = BLOCK_SIZE * block + offset
            look = dict(FREE) if block not in used else dict(RESERVED)
            if slot in owner:
                look = dict(facecolor=request_color(owner[slot]), alpha=1.0 if slot in read else 0.28)
            _box(axes, x + 1.1 * offset, y, 1.08, 2.1, str(slot) if slot in owner else "", **look)
            if slot in step.slots and slot >= 0:
                _box(axes, x + 1.1 * offset, y, 1.08, 2.1, fill=False, edgecolor=VERMILLION, lw=2.4)


# -- online softmax -------------------------------------------------------------------------------------------


@styled
def online_step(query: Query, tile: int, num_tiles: int, rescale: bool) -> Picture:
    """Scores of one query that arrive tile by tile: the maximum, the weights and the output so far, beside the truth.

    Args:
        tile: scores in a tile.
        num_tiles: how many have arrived; more than there are stand for all.
        rescale: False leaves old sums as they are, which is wrong.
    """
    found = states(query.scores, query.values, tile, rescale=rescale)
    num_tiles = min(num_tiles, len(found) - 1)
    state, seen = found[num_tiles], min(num_tiles * tile, len(query.scores))
    truth = query.scores.softmax(0) @ query.values
    output = state.mixed / state.total if state.total else torch.zeros_like(truth)
    error = (output - truth).abs().max().item()
    picture = Picture(4.7, _tell_online(found, num_tiles, seen, len(query.scores), error, rescale), lines=3)
    picture.set_layout_engine("none")
    foot = picture.above_caption
    places = [
        (0.66, 0.32),
        (0.37, 0.15),
        (0.03, 0.22),
    ]  # bottom and height, as shares of the room above the caption
    score_axes, weight_axes, out_axes = (
        picture.add_axes((0.10, foot + (1 - foot) * bottom, 0.86, (1 - foot) * height))
        for bottom, height in places
    )
    first_new = (num_tiles - 1) * tile
    _draw_online_scores(score_axes, query, seen, first_new, state.largest)
    _draw_online_weights(weight_axes, query, found, num_tiles, tile)
    _draw_online_output(out_axes, output, truth)
    return picture


def _tell_online(
    found: Sequence[State], num_tiles: int, seen: int, count: int, error: float, rescale: bool
) -> str:
    state = found[num_tiles]
    if not num_tiles:
        return f"0 of {count} scores have arrived: m is -inf, l and o are 0."
    before = found[num_tiles - 1].largest
    if state.largest == before:
        news = "the maximum stays, so nothing is rescaled"
    elif before == -torch.inf:
        news = f"m becomes {state.largest:.2f}; there is nothing yet to rescale"
    elif rescale:
        news = f"m grows from {before:.2f} to {state.largest:.2f}: l and o are first multiplied by {state.shrink:.3f}"
    else:
        news = f"m grows from {before:.2f} to {state.largest:.2f}, and l and o are left as they are, which is wrong"
    return (
        f"Tile {num_tiles}: {news}.\n{seen} of {count} scores seen; m = "
        f"{state.largest:.2f}, l = {state.total:.3f}. The output so far is off by up to {error:.3f}."
    )


def _draw_online_scores(axes: Axes, query: Query, seen: int, first_new: int, largest: float) -> None:
    scores = query.scores.tolist()
    floor = min(scores) - 0.08 * (max(scores) - min(scores))
    for place, score in enumerate(scores):
        look = dict(facecolor="white", edgecolor=GREY, hatch="////")
        if place < seen:
            look = dict(facecolor=BLUE if place >= first_new else SKY, edgecolor="#333333")
        axes.add_patch(Rectangle((place - 0.4, floor), 0.8, score - floor, lw=0.6, **look))
    if seen:
        axes.axhline(largest, color=VERMILLION, lw=1.8)
        axes.text(len(scores) + 0.5, largest, "m", color=VERMILLION, va="center", fontsize=13)
    axes.set(xlim=(-0.7, len(scores) + 0.2), ylim=(floor, max(scores) + 0.12 * (max(scores) - floor)))
    labels = [token_label(token) for token in query.tokens]
    axes.set_xticks(range(len(scores)), labels, rotation=38, ha="right", rotation_mode="anchor", fontsize=9.5)
    axes.tick_params(axis="x", length=0, pad=2)
    axes.set_ylabel("score", fontsize=11)


def _draw_online_weights(axes: Axes, query: Query, found: Sequence[State], num_tiles: int, tile: int) -> None:
    """How much each score that was seen counts in l by now."""
    for number in range(1, num_tiles + 1):
        factor = math.prod(later.shrink for later in found[number + 1 : num_tiles + 1])
        for place in range((number - 1) * tile, min(number * tile, len(query.scores))):
            weight = factor * math.exp(query.scores[place] - found[number].largest)
            color = BLUE if number == num_tiles else SKY
            axes.add_patch(
                Rectangle((place - 0.4, 0), 0.8, weight, facecolor=color, edgecolor="#333333", lw=0.6)
            )
    axes.set(xlim=(-0.7, len(query.scores) + 0.2), ylim=(0, 1.08))
    axes.set_xticks([])
    axes.set_yticks([0, 1])
    axes.set_ylabel("weight", fontsize=11)


def _draw_online_output(axes: Axes, output: torch.Tensor, truth: torch.Tensor) -> None:
    places = range(len(truth))
    axes.bar(places, output.tolist(), width=0.62, color=SKY, edgecolor="#333333", lw=0.6)
    axes.scatter(places, truth.tolist(), marker="_", s=700, color="black", lw=2.4, zorder=3)
    axes.axhline(0, color="#333333", lw=0.6)
    bound = 1.5 * max(truth.abs().max().item(), output.abs().max().item(), 0.1)
    axes.set(ylim=(-bound, bound), xlim=(-0.6, len(truth) - 0.4))
    axes.set_xticks([])
    axes.set_ylabel("o / l", fontsize=11)
    axes.set_title("output so far (bars), and from all scores (lines)", fontsize=11.5, pad=3)


# -- splits -----------------------------------------------------------------------------------------------------


@styled
def split_rules(
    splits: Mapping[str, Sequence[int]],
    batches: Sequence[int],
    walks: Mapping[str, Sequence[int]],
    where: str,
) -> Picture:
    """Into how many splits four rules cut a context, and how far the busiest multiprocessor then walks.

    Args:
        splits, walks: rule -> a number for each batch.
        where: GPU and shape, for the caption.
    """
    none = walks["no split"][0]
    alt = f"{where}. Left: at batch {batches[0]} the rules cut a context into " + ", ".join(
        f"{found[0]} ({name})" for name, found in splits.items()
    )
    alt += f" splits.\nRight: the busiest multiprocessor then walks {none} tiles without splits, and "
    alt += (
        f"{min(found[0] for found in walks.values())} to {max(walks[name][0] for name in splits)} with them."
    )
    picture = Picture(3.3, alt)
    left, right = picture.subplots(1, 2)
    looks = dict(
        zip(splits, [(BLUE, "o", 11), (ORANGE, "s", 7), (GREEN, "^", 7), (PURPLE, "D", 5)], strict=True)
    )
    for axes, lines in ((left, splits), (right, walks)):
        for name, found in lines.items():
            color, marker, size = looks.get(name, ("black", "x", 8))
            axes.plot(
                batches, found, color=color, marker=marker, ms=size, mfc="none", mew=1.8, label=name, lw=1.5
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(batches, list(map(str, batches)))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="sequences in the batch")
    left.set_ylabel("splits")
    right.set_ylabel("tiles walked")
    right.legend(fontsize=9.5, loc="lower right")
    return picture
