"""Pictures of sharing: one prompt forked into several outputs, and the tree of cached prefixes."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from course_lib.teaching import fork_story, prefix_story
from course_lib.teaching.plots.canvas import (
    BLUE,
    FREE,
    GREY,
    RESERVED,
    VERMILLION,
    WIDTH,
    Picture,
    request_color,
    styled,
)

Box = tuple[float, float, float, float]  # left, top, width, height, in inches

CELL, TALL, BAND = 0.43, 0.31, 0.035  # a slot of the fork stepper, and a band in one that is shared
LEFT, GAP = 0.62, 0.3  # where its blocks begin, and what is between two of the pool
PER_ROW = 4  # blocks in a row of its pool

NODE, HIGH, BETWEEN = 1.42, 0.54, 0.2  # a block of the prefix tree, and what is between two levels
NUM_ROWS, ROW = 4, 0.74
DASHES = (0, (3, 2))  # a block that is not cached
PANEL = 6.9  # where the free list begins


def _page(height: float, alt: str, lines: int) -> tuple[Picture, Axes]:
    """A picture to draw on in inches, from its upper left corner."""
    picture = Picture(height, alt, lines=lines)
    picture.set_layout_engine("none")  # nothing jumps when the slider moves, and it is faster
    axes = picture.add_axes((0, picture.above_caption, 1, 1 - picture.above_caption))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    return picture, axes


def _fill(axes: Axes, boxes: Sequence[Box], **look) -> None:
    if not boxes:
        return
    corners = [[(x, y), (x + wide, y), (x + wide, y + tall), (x, y + tall)] for x, y, wide, tall in boxes]
    axes.add_collection(PolyCollection(corners, **look), autolim=False)


def _write(axes: Axes, x: float, y: float, text: str, size: float = 10, **look) -> None:
    axes.text(x, y, text, fontsize=size, va="center", **look)


def _color(name: str) -> str:
    return request_color("ABCDEFG".index(name))


def _chips(axes: Axes, places: Sequence[tuple[float, float, Sequence[str]]]) -> None:
    """The names of those who use a block, each on its colour: (right end, middle, names) of each block."""
    boxes, colors = [], []
    for right, y, names in places:
        for number, name in enumerate(reversed(names), start=1):
            x = right - 0.19 * number
            boxes.append((x + 0.01, y - 0.09, 0.17, 0.18))
            colors.append(_color(name))
            ink = "white" if colors[-1] == BLUE else "black"
            _write(axes, x + 0.095, y + 0.005, name, ha="center", weight="bold", color=ink)
    _fill(axes, boxes, facecolor=colors, edgecolor="#555555", linewidth=0.6)


# -- fork -----------------------------------------------------------------------------------------------------


@styled
def fork_step(scene: fork_story.Scene) -> Picture:
    """Outputs of one prompt as they see themselves, above the pool that they share."""
    pool = scene.pool
    tally = (
        f"Blocks in use: {scene.blocks_in_use}, without sharing: {scene.blocks_unshared}; "
        f"copies so far: {scene.num_copies}."
    )
    counts = {block_id: pool.ref_count(block_id) for block_id in range(pool.num_blocks)}
    used = ", ".join(f"{block_id} ×{count}" for block_id, count in counts.items() if count)
    top = 0.58 + 0.42 * scene.num_outputs + 0.2
    num_rows = -(-pool.num_blocks // PER_ROW)
    picture, axes = _page(
        top + 0.2 + 0.78 * num_rows, f"{scene.told}\n{tally} Counts: {used or 'all 0'}.", lines=4
    )
    _write(axes, 0.12, 0.16, "what the outputs see", 12, weight="bold")
    for block in range(max((len(table.block_ids) for table in scene.tables.values()), default=0)):
        middle = _logical(block, pool.block_size) + pool.block_size * CELL / 2
        _write(axes, middle, 0.44, f"logical {block}", ha="center", color="#444444")
    if scene.tables:
        _write(axes, WIDTH - 0.12, 0.44, "block table", ha="right", color="#444444")
    for row, name in enumerate(scene.names):
        _draw_output(axes, scene, name, 0.56 + 0.42 * row)
    _write(axes, 0.12, top + 0.02, "what there is", 12, weight="bold")
    _write(axes, 1.5, top + 0.02, tally.removesuffix("."), 12)
    _write(axes, WIDTH - 0.12, top + 0.02, "×: count   ★ written now", 11, ha="right")
    _draw_pool(axes, scene, top + 0.46)
    return picture


def _logical(block: int, size: int) -> float:
    """Where a block of an output's text begins."""
    return LEFT + block * (size * CELL + 0.06)


def _draw_output(axes: Axes, scene: fork_story.Scene, name: str, y: float) -> None:
    size, table = scene.pool.block_size, scene.tables.get(name)
    _write(
        axes, 0.32, y + TALL / 2, name, 14, weight="bold", ha="center", color="black" if table else "#777777",
        bbox=dict(facecolor=_color(name) if table else "white", edgecolor="#777777", pad=2.5),
    )  # fmt: skip
    if table is None:
        _write(axes, LEFT, y + TALL / 2, "has ended" if name in scene.ended else "", 11, color="#666666")
        return
    words, room = [], []
    for position in range(len(table.block_ids) * size):
        block, offset = divmod(position, size)
        box = (_logical(block, size) + offset * CELL, y, CELL, TALL)
        (words if position < table.num_tokens else room).append(box)
    _fill(axes, words, facecolor=_color(name), edgecolor="#777777", linewidth=0.6)
    _fill(axes, room, **RESERVED, edgecolor="#777777", linewidth=0.6)
    for (x, *_), word in zip(words, scene.words[name], strict=True):
        _write(axes, x + CELL / 2, y + TALL / 2, word, ha="center")
    _write(axes, WIDTH - 0.12, y + TALL / 2, f"{table.block_ids}", 12, ha="right")


def _corner(block_id: int, top: float, size: int) -> tuple[float, float]:
    """Upper left corner of a block's slots."""
    row, column = divmod(block_id, PER_ROW)
    return LEFT + column * (size * CELL + GAP), top + 0.78 * row


def _draw_pool(axes: Axes, scene: fork_story.Scene, top: float) -> None:
    pool, size = scene.pool, scene.pool.block_size
    wide, bands, colors, kinds, chips = size * CELL, [], [], dict[str, list[Box]](), []
    held = {
        table.slot(position): word
        for name, table in scene.tables.items()
        for position, word in enumerate(scene.words[name])
    }
    for block_id in range(pool.num_blocks):
        left, y = _corner(block_id, top, size)
        owners = scene.owners(block_id)
        count = f"×{pool.ref_count(block_id)}" if owners else "free"
        look = dict(weight="bold") if owners else dict(color="#666666")
        _write(axes, left, y - 0.12, f"block {block_id}  {count}", **look)
        chips.append((left + wide, y - 0.12, owners))
        # One owner's colour fills the slot. If several share it, each has a band below the word.
        tall, room = (BAND, TALL - BAND * len(owners)) if len(owners) > 1 else (TALL, TALL)
        for slot in range(block_id * size, (block_id + 1) * size):
            x = left + slot % size * CELL
            kinds.setdefault("held" if slot in held else "room" if owners else "free", []).append(
                (x, y, CELL, TALL)
            )
            if slot in held:
                bands += [(x, y + TALL - (place + 1) * tall, CELL, tall) for place in range(len(owners))]
                colors += [_color(name) for name in reversed(owners)]
                _write(axes, x + CELL / 2, y + room / 2, held[slot], ha="center")
    _fill(axes, bands, facecolor=colors, linewidth=0)
    for kind, look in (("held", dict(facecolor="none")), ("room", RESERVED), ("free", FREE)):
        edge = GREY if kind == "free" else "#777777"
        _fill(axes, kinds.get(kind, []), **look, edgecolor=edge, linewidth=0.6)
    _chips(axes, chips)
    corners = [(_corner(slot // size, top, size), slot % size + 1) for slot in scene.new_slots]
    if corners:
        axes.plot(
            [x + right * CELL - 0.045 for (x, _), right in corners], [y + 0.05 for (_, y), _ in corners],
            "*", color="black", ms=5,
        )  # fmt: skip
    for source, target in scene.copies:
        _draw_copy(axes, _corner(source, top, size), _corner(target, top, size), size)


def _draw_copy(axes: Axes, source: tuple[float, float], target: tuple[float, float], size: int) -> None:
    """An arrow along the lane below the row of the block that is copied from."""
    wide, (x, y), (to, below) = size * CELL, source, target
    lane, same_row = y + TALL + 0.12, below == y
    end = to + (wide / 2 if same_row else 0.68 * wide)  # not through what is written above the block
    tip = below + TALL + 0.05 if same_row else below - 0.05
    for left, top, style in ((x, y, "--"), (to, below, "-")):
        _fill(
            axes,
            [(left, top, wide, TALL)],
            facecolor="none",
            edgecolor="black",
            linewidth=2.2,
            linestyle=style,
        )
    axes.plot([x + wide / 2, x + wide / 2, end, end], [y + TALL, lane, lane, tip], color="black", lw=2.2)
    axes.plot([end], [tip], "^" if same_row else "v", color="black", ms=9)
    _write(
        axes,
        (x + wide / 2 + end) / 2,
        lane,
        "copy",
        ha="center",
        bbox=dict(facecolor="white", edgecolor="none", pad=0.5),
    )


# -- the prefix tree ------------------------------------------------------------------------------------------


@styled
def prefix_tree(scene: prefix_story.Scene) -> Picture:
    """The blocks that can be found by their words, as a tree; the newcomer's path in it; the free list beside it."""
    cached = scene.cached()
    path = "" if scene.newcomer is None else (
        f"Hits: {_listed(scene.hits)}; computed: {_listed(scene.computed)}; evicted: {_listed(scene.evicted)}. "
    )  # fmt: skip
    alt = f"{scene.told}\n{path}Cached: {_listed(sorted(cached))}. Free list: {_listed(scene.pool.free_blocks())}."
    height = 0.4 + NUM_ROWS * ROW + 0.3
    picture, axes = _page(height, alt, lines=4)
    running = ", ".join(scene.tables) or "nobody"
    _write(axes, 0.12, 0.17, f"the tree of prefixes; running: {running}", 12, weight="bold")
    _draw_tree(axes, scene)
    _draw_free_list(axes, scene, cached)
    _draw_legend(axes, height - 0.16)
    return picture


def _listed(block_ids: Sequence[int] | dict) -> str:
    return ", ".join(map(str, block_ids)) or "none"


def _places(nodes: Sequence[prefix_story.Node]) -> dict[int, tuple[int, int]]:
    """Level and row of each block: a first child stands beside its parent, the next below all that is above it."""
    children: dict[int | None, list[int]] = {}
    for node in nodes:
        children.setdefault(node.parent, []).append(node.block_id)
    places: dict[int, tuple[int, int]] = {}

    def place(block_id: int, level: int, row: int) -> int:
        """Returns the first row below the block and its descendants."""
        places[block_id] = level, row
        end = row
        for child in children.get(block_id, []):
            end = place(child, level + 1, end)
        return max(end, row + 1)

    row = 0
    for root in children.get(None, []):
        row = place(root, 0, row)
    return places


def _draw_tree(axes: Axes, scene: prefix_story.Scene) -> None:
    nodes = scene.tree()
    places = _places(nodes)
    if not nodes:
        _write(axes, 0.4, 0.7, "no block is cached, none is in use", 11, color="#666666")
        return
    new = {*scene.hits, *scene.computed}
    corners = {
        key: (0.34 + level * (NODE + BETWEEN), 0.42 + row * ROW) for key, (level, row) in places.items()
    }
    for node in sorted(nodes, key=lambda node: node.block_id in new):  # the newcomer's path on top
        x, y = corners[node.block_id]
        start = corners[node.parent] if node.parent is not None else (0.12 - NODE, 0.42)
        bend = x - BETWEEN / 2
        strong = node.block_id in new
        axes.plot(
            [start[0] + NODE, bend, bend, x], [start[1] + HIGH / 2] * 2 + [y + HIGH / 2] * 2,
            color="black" if strong else "#888888", lw=2.5 if strong else 1.2, zorder=1,
        )  # fmt: skip
    axes.plot([0.12], [0.42 + HIGH / 2], "o", color="black", ms=7)
    for node in nodes:
        _draw_node(axes, scene, node, *corners[node.block_id])
    rights = {block_id: (x + NODE - 0.04, y + 0.15) for block_id, (x, y) in corners.items()}
    _chips(axes, [(*rights[block_id], scene.owners(block_id)) for block_id in rights])


def _draw_node(axes: Axes, scene: prefix_story.Scene, node: prefix_story.Node, x: float, y: float) -> None:
    count = scene.pool.ref_count(node.block_id)
    look = _look(scene, node.block_id) | dict(linestyle="-" if node.cached else DASHES)
    _fill(axes, [(x, y, NODE, HIGH)], **look)
    color = "black" if count else "#333333"
    behind = dict(bbox=dict(facecolor="white", edgecolor="none", pad=1)) if "hatch" in look else {}
    _write(axes, x + 0.07, y + 0.15, f"block {node.block_id}  ×{count}", color=color, weight="bold", **behind)
    _write(axes, x + 0.07, y + 0.39, " ".join(node.words), color=color, **behind)


IN_USE = dict(facecolor="#DADADA", edgecolor="#555555", linewidth=1.2)
IN_FREE_LIST = FREE | dict(edgecolor="#999999", linewidth=1.2)


def _look(scene: prefix_story.Scene, block_id: int) -> dict:
    """A block of the newcomer in its colour, taken over or computed; all others in grey."""
    if block_id in scene.hits:
        return dict(facecolor=_color(scene.newcomer), edgecolor="black", linewidth=2.2)
    if block_id in scene.computed:
        return RESERVED | dict(edgecolor="black", linewidth=2.2)
    return IN_USE if scene.pool.ref_count(block_id) else IN_FREE_LIST


def _draw_free_list(axes: Axes, scene: prefix_story.Scene, cached: dict) -> None:
    _write(axes, PANEL, 0.17, "free list, next first", 12, weight="bold")
    rows = [(block_id, " ".join(words), True) for block_id, words in scene.evicted.items()]
    for block_id in scene.pool.free_blocks():
        known = " ".join(cached[block_id].token_ids) if block_id in cached else ""
        rows.append((block_id, known, False))
    for row, (block_id, words, gone) in enumerate(rows):
        y = 0.5 + 0.305 * row
        color = VERMILLION if gone else "black" if words else "#666666"
        _fill(axes, [(PANEL, y - 0.12, 0.3, 0.24)], **IN_FREE_LIST, linestyle="-" if words else DASHES)
        _write(axes, PANEL + 0.15, y, f"{block_id}", ha="center", color=color)
        _write(axes, PANEL + 0.4, y, words or "not cached", color=color)
        if gone:
            axes.plot([PANEL - 0.06, PANEL + 0.36], [y + 0.1, y - 0.1], color=VERMILLION, lw=2)
    if not rows:
        _write(axes, PANEL, 0.5, "empty", 11, color="#666666")


def _draw_legend(axes: Axes, y: float) -> None:
    """What the looks of a block mean; a hit has the colour of its request, whichever that is."""
    looks = [
        (0.12, "hit (its colour)", dict(facecolor=request_color(0), edgecolor="black", linewidth=2)),
        (1.65, "computed now", RESERVED | dict(edgecolor="black", linewidth=2)),
        (3.15, "in use", IN_USE),
        (4.1, "free, cached", IN_FREE_LIST),
        (5.45, "dashed: not cached", IN_FREE_LIST | dict(facecolor="white", linestyle=DASHES)),
    ]
    for x, label, look in looks:
        _fill(axes, [(x, y - 0.08, 0.24, 0.16)], **look)
        _write(axes, x + 0.3, y, label)
    axes.plot([7.4, 7.64], [y + 0.07, y - 0.07], color=VERMILLION, lw=2)
    _write(axes, 7.7, y, "struck: evicted")
