"""Pictures of who owns which slot: the memory map, shares over time, the paper's bars."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch, Rectangle

from course_lib.memory import BlockTable
from course_lib.memory.allocators import Extent
from course_lib.memory.simulator import Stretch
from course_lib.teaching.block_story import Scene
from course_lib.teaching.film import Frame
from course_lib.teaching.plots.canvas import (
    BLUE,
    FREE,
    GREEN,
    KINDS,
    ORANGE,
    RESERVED,
    Picture,
    request_color,
    styled,
)

TITLES = {
    "reserve_max": "reserve the maximum",
    "reserve_pow2": "reserve a power of two",
    "reserve_exact": "reserve exactly (oracle)",
    "paged": "paged",
}
ROUNDING = dict(facecolor="#D4D4D4", hatch="...")  # external, inside the piece of a request


def _per_row(num_slots: int) -> int:
    """Slots in a row of the map: a power of two that gives 16 rows at most."""
    return 1 << max(4, (-(-num_slots // 16) - 1).bit_length())


def _boxes(extent: Extent, per_row: int) -> list[list[tuple[float, float]]]:
    """The corners of an extent's boxes, one for each row that it touches."""
    boxes, start = [], extent.start
    while start < extent.stop:
        row, left = divmod(start, per_row)
        right = min(per_row, left + extent.stop - start)
        boxes.append([(left, row), (right, row), (right, row + 0.86), (left, row + 0.86)])
        start += right - left
    return boxes


def _draw_map(axes: Axes, shot: Frame, per_row: int, follow: int | None = None) -> None:
    looks = KINDS | {"external": ROUNDING, "free": FREE}
    boxes: dict[str, list] = {name: [] for name in looks}
    colors = []
    for extent in shot.extents:
        name = "free" if extent.owner is None else extent.kind
        found = _boxes(extent, per_row)
        boxes[name] += found
        if name == "token_states":
            colors += [request_color(extent.owner)] * len(found)
    for name, look in looks.items():
        fill = dict(look, facecolor=colors) if name == "token_states" else look
        axes.add_collection(
            PolyCollection(boxes[name], **fill, edgecolor="#555555", linewidth=0 if name == "free" else 0.6)
        )
    if follow is not None:
        own = [box for extent in shot.extents if extent.owner == follow for box in _boxes(extent, per_row)]
        axes.add_collection(PolyCollection(own, facecolor="none", edgecolor="black", linewidth=2.2))
    _label_map(axes, shot, per_row)
    num_rows = -(-shot.num_slots // per_row)
    axes.set(xlim=(0, per_row), ylim=(num_rows, 0), xticks=[])
    axes.set_yticks(
        [row + 0.43 for row in range(num_rows)], [f"{row * per_row:,}" for row in range(num_rows)]
    )
    axes.tick_params(axis="y", length=0, labelsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _label_map(axes: Axes, shot: Frame, per_row: int) -> None:
    """Names of requests where there is room for them; the size of each hole if the region is small."""
    tag, small = dict(facecolor="white", edgecolor="none", pad=1.0), shot.num_slots <= 128
    for extent in shot.extents:
        row, left = divmod(extent.start, per_row)
        size = extent.stop - extent.start
        room = min(size, per_row - left) / per_row
        where = left + 0.006 * per_row, row + 0.45
        if extent.kind == "token_states" and room > 0.12:  # a tag must not cover the tokens that it names
            axes.text(*where, f"r{extent.owner}", va="center", fontsize=9, bbox=tag)
        elif extent.owner is None and small and room > 0.05:
            axes.text(*where, f"hole of {size}", va="center", fontsize=9.5)


SHARES_LEGEND = {
    "token states": KINDS["token_states"],
    "reserved": KINDS["reserved"],
    "internal": KINDS["internal"],
    "external (free or rounding)": KINDS["external"],
}
MAP_LEGEND = {
    "token states, a colour each": KINDS["token_states"],
    "reserved": KINDS["reserved"],
    "internal": KINDS["internal"],
    "external: rounding": ROUNDING,
    "external: free": FREE,
}


def _legend(picture: Picture, looks: Mapping[str, dict], **where) -> None:
    handles = [Patch(edgecolor="#555555", label=label, **look) for label, look in looks.items()]
    picture.legend(handles=handles, ncols=5, fontsize=10.5, frameon=False, columnspacing=1.2, **where)


def _percent(count: int, shot: Frame) -> str:
    return f"{count / shot.num_slots:.0%}"


@styled
def memory_map(
    shots: Frame | Mapping[str, Frame],
    *,
    follow: int | None = None,
    per_row: int | None = None,
    lines: int = 0,
) -> Picture:
    """Every slot of a region: whose it is, and what it is.

    Args:
        shots: one frame, or allocator -> frame, drawn side by side.
        follow: a request to frame in black.
        per_row: slots in a row; by default a power of two that gives 16 rows at most.
        lines: room for a caption of so many lines at least.
    """
    named = {"": shots} if isinstance(shots, Frame) else dict(shots)
    size = max(shot.num_slots for shot in named.values())
    per_row = per_row or _per_row(size)
    num_rows = -(-size // per_row)
    parts = []
    for name, shot in named.items():
        held = {kind: _percent(count, shot) for kind, count in vars(shot.counts).items()}
        parts.append(
            (f"{TITLES[name].capitalize()}, {shot.num_running} run: " if name else "")
            + f"{held['token_states']} of the slots hold a token, {held['reserved']} are reserved, "
            f"{held['internal']} internal waste, {held['external']} external or free"
        )
    alt = f"A region of {size:,} slots, {per_row:,} a row. " + ". ".join(parts) + "."
    if follow is not None:
        alt += f" Framed in black: request {follow}."
    picture = Picture(0.62 + 0.22 * num_rows, alt, lines=lines)
    panels = picture.subplots(1, len(named), squeeze=False)[0]
    for axes, (name, shot) in zip(panels, named.items(), strict=True):
        _draw_map(axes, shot, per_row, follow)
        if name:
            waits = f", {shot.num_waiting} wait" if shot.num_waiting else ""
            axes.set_title(f"{TITLES[name]}: {shot.num_running} run{waits}", fontsize=13)
    _legend(picture, MAP_LEGEND, loc="outside upper center")
    return picture


@styled
def memory_film(reel: Sequence[Frame], position: int, allocator: str) -> Picture:
    """One frame of a film, over the shares of the whole film."""
    shot = reel[position]
    counts = {kind: _percent(count, shot) for kind, count in vars(shot.counts).items()}
    alt = (
        f"{TITLES[allocator].capitalize()}, {shot.time:.0f} s: {shot.num_running} requests run, {shot.num_waiting} wait"
        + (f", {shot.num_preemptions} preemptions so far. " if shot.num_preemptions else ". ")
        + f"{counts['token_states']} of {shot.num_slots:,} slots hold a token, {counts['reserved']} are reserved, "
        f"{counts['internal']} internal waste, {counts['external']} external or free."
    )
    per_row = _per_row(shot.num_slots)
    picture = Picture(0.4 + 0.21 * -(-shot.num_slots // per_row) + 1.5, alt)
    picture.set_layout_engine("none")  # nothing jumps when the slider moves, and it is faster
    foot = picture.above_caption
    room = 1 - foot
    upper = picture.add_axes((0.065, foot + 0.36 * room, 0.925, 0.56 * room))
    _draw_map(upper, shot, per_row)
    lower = picture.add_axes((0.065, foot + 0.125 * room, 0.925, 0.2 * room))
    _stack(lower, [frame.time for frame in reel], [vars(frame.counts) for frame in reel])
    lower.axvline(shot.time, color="black", lw=3)
    lower.set_xlabel("seconds", fontsize=11, labelpad=1)
    lower.tick_params(labelsize=10)
    _legend(picture, MAP_LEGEND, loc="upper center", bbox_to_anchor=(0.5, 1.0))
    return picture


def _stack(axes: Axes, times: Sequence[float], counts: Sequence[Mapping[str, float]]) -> None:
    """Shares of each kind, stacked, over time."""
    below = np.zeros(len(times))
    totals = np.array([sum(count.values()) for count in counts])
    for kind, look in KINDS.items():
        above = below + np.array([count[kind] for count in counts]) / totals
        axes.fill_between(times, below, above, step="post", edgecolor="#555555", linewidth=0.3, **look)
        below = above
    axes.set(xlim=(times[0], times[-1]), ylim=(0, 1), yticks=[0, 0.5, 1])
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")


@styled
def shares_over_time(timelines: Mapping[str, Sequence[Stretch]]) -> Picture:
    """How the four kinds of slot share the memory over time, a panel for each allocator."""
    alt = "Shares of the KV memory over time: "
    alt += "; ".join(
        f"{TITLES.get(name, name)}, token states {_mean_share(timeline):.0%} on average"
        for name, timeline in timelines.items()
    )
    picture = Picture(0.7 + 1.3 * len(timelines), alt + ".")
    panels = picture.subplots(len(timelines), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, timeline) in zip(panels, timelines.items(), strict=True):
        _stack(axes, [stretch.start for stretch in timeline], [vars(stretch.counts) for stretch in timeline])
        axes.set_title(TITLES.get(name, name), fontsize=12, loc="left")
    panels[-1].set_xlabel("seconds")
    _legend(picture, SHARES_LEGEND, loc="outside upper center")
    return picture


def _mean_share(timeline: Sequence[Stretch]) -> float:
    whole = sum(timeline, Stretch())
    return whole.shares()["token_states"]


@styled
def shares_bars(paper: Mapping[str, Mapping[str, float]], ours: Mapping[str, Mapping[str, float]]) -> Picture:
    """The paper's Fig 2 and ours: how the four kinds of slot share the memory, two bars for each allocator.

    Args:
        paper, ours: allocator -> share of each kind, adding up to 1.
    """
    alt = "Shares of the KV memory, paper and simulation. Token states: " + "; ".join(
        f"{TITLES[name]} {paper[name]['token_states']:.1%} and {ours[name]['token_states']:.1%}"
        for name in ours
    )
    picture = Picture(4.3, alt + ".")
    axes = picture.subplots()
    labels, places = [], []
    for number, name in enumerate(ours):
        for side, shares in enumerate((paper[name], ours[name])):
            place, below = 2.4 * number + side, 0.0
            for kind, look in KINDS.items():
                share = shares.get(kind, 0.0)
                axes.bar(place, share, bottom=below, width=0.92, edgecolor="#555555", **look)
                if share > 0.05:
                    axes.text(
                        place, below + share / 2, f"{100 * share:.1f}", ha="center", va="center", fontsize=11,
                        bbox=dict(facecolor="white", edgecolor="none", pad=1.2),
                    )  # fmt: skip
                below += share
            labels.append(("paper", "ours")[side])
            places.append(place)
        title = textwrap.fill(TITLES[name], 18)
        axes.text(2.4 * number + 0.5, -0.11, title, ha="center", va="top", fontsize=11.5)
    axes.set_xticks(places, labels, fontsize=11)
    axes.tick_params(axis="x", length=0)
    axes.set(ylim=(0, 1), ylabel="share of KV memory")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    _legend(picture, SHARES_LEGEND, loc="outside upper center")
    return picture


@styled
def batch_bars(paper: Mapping[str, float], ours: Mapping[str, float], title: str) -> Picture:
    """The paper's Fig 13 and ours: mean number of requests that run at once."""
    alt = f"Mean number of running requests, {title}, paper and ours: " + "; ".join(
        f"{TITLES[name]} {paper[name]:.1f} and {ours[name]:.1f}" for name in ours
    )
    picture = Picture(2.9, alt + ".")
    axes = picture.subplots()
    for number, name in enumerate(ours):
        looks = [(paper[name], dict(facecolor="white")), (ours[name], dict(facecolor=BLUE))]
        for side, (value, look) in enumerate(looks):
            axes.barh(number + 0.4 * side - 0.2, value, height=0.36, edgecolor="#333333", **look)
            axes.text(value, number + 0.4 * side - 0.2, f" {value:.1f}", va="center", fontsize=11)
    axes.set_yticks(range(len(ours)), [TITLES[name] for name in ours])
    axes.set(ylim=(len(ours) - 0.45, -0.55), xlabel="requests that run at once, on average", title=title)
    handles = [Patch(facecolor="white", edgecolor="#333333", label="paper"),
               Patch(facecolor=BLUE, edgecolor="#333333", label="simulated here")]  # fmt: skip
    axes.legend(handles=handles, fontsize=11, loc="upper right")
    return picture


CELLS = 16  # slots in a row of the stepper


@styled
def block_tables(scene: Scene, sequence: str | None = None, position: int = 0) -> Picture:
    """Sequences as their texts see them, above the pool as it is; one token followed from one to the other.

    Args:
        scene: a pool and its block tables.
        sequence, position: the token to follow.
    """
    size, pool = scene.pool.block_size, scene.pool
    followed = None
    if sequence in scene.tables and position < scene.tables[sequence].num_tokens:
        followed = scene.tables[sequence].slot(position)
    free = list(pool.free_blocks())
    alt = f"{scene.told}\nFree list: {', '.join(map(str, free)) or 'empty'}."
    if followed is not None:
        alt += "\n" + slot_sentence(scene.tables[sequence], sequence, position)
    num_rows = -(-pool.num_blocks * size // CELLS)
    picture = Picture(0.55 + 0.62 * 3 + 0.45 + 0.66 * num_rows, alt, lines=3)
    picture.set_layout_engine("none")
    foot = picture.above_caption
    axes = picture.add_axes((0.005, foot, 0.99, 1 - foot))
    top = 0.55
    for row in range(3):
        name = sorted(scene.tables)[row] if row < len(scene.tables) else None
        if name:
            _draw_sequence(axes, scene, name, top + row, position if name == sequence else None)
    axes.text(
        -1.35,
        0.0,
        "what the sequences see: logical blocks; their block tables on the right",
        fontsize=12,
        va="center",
        weight="bold",
    )
    blocks = f"what there is: {pool.num_blocks} physical blocks of {size} slots   (★ written now)"
    axes.text(-1.35, top + 3.05, blocks, fontsize=12, va="center", weight="bold")
    _draw_pool(axes, scene, top + 3.75, followed)
    axes.set(xlim=(-1.4, CELLS + 0.1), ylim=(top + 3.6 + 1.06 * num_rows, -0.35))
    axes.axis("off")
    return picture


def slot_sentence(table: BlockTable, name: str, position: int) -> str:
    """The arithmetic that finds a token's slot, written out."""
    size = table.pool.block_size
    block, offset = divmod(position, size)
    block_id = table.block_ids[block]
    return (
        f"{name}'s token {position}: {position} // {size} = block {block} of the text, {position} % {size} = "
        f"offset {offset}; block_table[{block}] = {block_id}, "
        f"slot {block_id} × {size} + {offset} = {table.slot(position)}."
    )


def _cell(axes: Axes, x: float, y: float, word: str | None, color: str | None, thick: bool) -> None:
    look = RESERVED if color == "reserved" else dict(facecolor=color) if color else FREE
    axes.add_patch(
        Rectangle((x + 0.03, y), 0.94, 0.5, edgecolor="black" if thick else "#777777", lw=3.5 if thick else 0.6,
                  zorder=3 if thick else 1, **look)
    )  # fmt: skip
    if word:
        axes.text(
            x + 0.5,
            y + 0.26,
            word if len(word) < 8 else word[:6] + "…",
            ha="center",
            va="center",
            fontsize=10.5,
            zorder=4,
        )


def _color(name: str) -> str:
    return request_color("ABCD".index(name))


def _draw_sequence(axes: Axes, scene: Scene, name: str, y: float, followed: int | None) -> None:
    table, size = scene.tables[name], scene.pool.block_size
    axes.text(-0.75, y + 0.26, name, fontsize=15, weight="bold", ha="center", va="center",
              bbox=dict(facecolor=_color(name), edgecolor="#555555", pad=3))  # fmt: skip
    for position in range(len(table.block_ids) * size):
        word = scene.words[name][position] if position < table.num_tokens else None
        _cell(axes, position, y, word, _color(name) if word else "reserved", position == followed)
    if len(table.block_ids) * size <= CELLS - 4:
        axes.text(CELLS, y + 0.26, f"{table.block_ids}", ha="right", va="center", fontsize=12)
    for block, block_id in enumerate(table.block_ids):
        label = f"{block} → {block_id}" if size < 4 else f"logical {block} → physical {block_id}"
        axes.text((block + 0.5) * size, y - 0.13, label, ha="center", va="center", fontsize=10)


def _draw_pool(axes: Axes, scene: Scene, y: float, followed: int | None) -> None:
    pool, size = scene.pool, scene.pool.block_size
    owner = {}
    for name, table in scene.tables.items():
        for position in range(len(table.block_ids) * size):
            slot = table.block_ids[position // size] * size + position % size
            owner[slot] = name, scene.words[name][position] if position < table.num_tokens else None
    for slot in range(pool.num_blocks * size):
        row, column = divmod(slot, CELLS)
        name, word = owner.get(slot, (None, None))
        color = None if name is None else _color(name) if word else "reserved"
        _cell(axes, column, y + 1.06 * row, word, color, slot == followed)
        if slot in scene.new_slots:
            axes.plot(column + 0.9, y + 1.06 * row + 0.09, "*", color="black", ms=6, zorder=5)
        if slot % size == 0:
            used = pool.ref_count(slot // size)
            label = f"{slot // size}" if size < 4 else f"block {slot // size}: {'used' if used else 'free'}"
            axes.text(column + size / 2, y + 1.06 * row - 0.13, label, ha="center", va="center", fontsize=10,
                      color="black" if used else "#888888")  # fmt: skip
        if column == 0:
            axes.text(-0.12, y + 1.06 * row + 0.26, f"slot {slot}", ha="right", va="center", fontsize=10)


@styled
def block_sizes(running: Mapping[str, Mapping[int, float]]) -> Picture:
    """How many requests run at once against the block size, as a share of the best, a line for each workload.

    Args:
        running: workload -> block size -> mean number of running requests.
    """
    worst = {name: (min(line.values()) / max(line.values()), max(line)) for name, line in running.items()}
    alt = "Requests that run at once against the block size, as a share of the best: " + "; ".join(
        f"{name} falls to {share:.0%} at {size}" for name, (share, size) in worst.items()
    )
    picture = Picture(3.4, alt + ".")
    axes = picture.subplots()
    looks = zip(running.items(), [(BLUE, "o"), (ORANGE, "s"), (GREEN, "D")], strict=False)
    for (name, line), (color, marker) in looks:
        best = max(line.values())
        axes.plot(
            list(line),
            [value / best for value in line.values()],
            color=color,
            marker=marker,
            lw=2.5,
            ms=8,
            label=name,
        )
    sizes = list(next(iter(running.values())))
    axes.axvline(16, color="#999999", ls=":", lw=1.5)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set(ylim=(0, 1.05), xlabel="block size [slots]", ylabel="running requests,\nshare of the best")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.legend(fontsize=11, loc="lower left")
    return picture
