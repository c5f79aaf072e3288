"""The whiteboard of an interview: eight steps, in the order in which a candidate draws them."""

import io
from dataclasses import dataclass
from functools import cache

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.collections import PolyCollection
from PIL import Image

from course_lib.teaching import board_story, paper
from course_lib.teaching.board_story import BLOCK_SIZE, POSITION, SLAB, Board
from course_lib.teaching.plots.canvas import (
    BLUE,
    DPI,
    FREE,
    KINDS,
    STYLE,
    WIDTH,
    Picture,
    request_color,
    styled,
)

Box = tuple[float, float, float, float]  # left, top, width, height, in inches

HEIGHT, OLD = 7.44, "#4A4A4A"  # inches, and the ink of what was there before
HAND = (0.6, 90, 1.5)  # matplotlib's sketch of lines; its seed is fixed, so it is always the same
LEFT, RIGHT = 0.15, 4.95  # where the columns begin
SHOWN = 12  # blocks of the pool that are drawn
BLOCK, ENTRY, FREE_AT = (
    0.5,
    0.36,
    6.82,
)  # widths of a block and of a table's entry, and where the free list begins
SLABS, POOL, TABLES, WALK, SHARE = 0.9, 1.94, 3.08, 4.22, 5.84  # tops of the rows


@dataclass
class Pen:
    """Draws on the board up to a step. What that step adds is strong, what was there before is pale."""

    axes: Axes
    step: int
    part: int = 1  # that is being drawn

    @property
    def ink(self) -> str:
        return BLUE if self.part == self.step else OLD

    def write(self, x: float, y: float, text: str, size: float = 11, **look) -> None:
        self.axes.text(x, y, text, fontsize=size, **dict(va="center", color=self.ink) | look)

    def head(self, x: float, y: float, text: str) -> None:
        self.write(x, y, f"{self.part}  {text}", 12, weight="bold")

    def boxes(self, boxes: list[Box], **look) -> None:
        corners = [[(x, y), (x + w, y), (x + w, y + tall), (x, y + tall)] for x, y, w, tall in boxes]
        look = dict(facecolor="none", edgecolor=self.ink, linewidth=1.2) | look
        self.axes.add_collection(PolyCollection(corners, **look), autolim=False)

    def fill(self, box: Box, **look) -> None:
        self.boxes([box], **dict(linewidth=0.6, alpha=1 if self.part == self.step else 0.6) | look)

    def line(self, *points: tuple[float, float], width: float = 1.3) -> None:
        self.axes.plot(*zip(*points, strict=True), color=self.ink, lw=width)

    def arrow(self, start: tuple[float, float], end: tuple[float, float], bend: float = 0.0) -> None:
        how = dict(arrowstyle="->", color=self.ink, lw=1.5, shrinkA=0, shrinkB=0)
        self.axes.annotate("", end, start, arrowprops=how | dict(connectionstyle=f"arc3,rad={bend}"))

    def row(self, x: float, y: float, cells: list[int], wide: float = ENTRY) -> None:
        """A box for each entry."""
        self.boxes([(x + wide * n, y, wide, 0.27) for n in range(len(cells))])
        for n, cell in enumerate(cells):
            self.write(x + wide * (n + 0.5), y + 0.14, f"{cell}", ha="center")


def _left_of(block_id: int) -> float:
    return LEFT + block_id * BLOCK


def _slabs(pen: Pen, board: Board) -> None:
    counts, slots = board.slabs.counts(), board.slabs.num_slots
    size, one, y = board.model.name.split("-")[-1], board.model.kv_bytes(1, 2), SLABS - 0.18
    pen.head(LEFT, y, f"slabs of {SLAB:,} slots")
    pen.write(2.42, y, f"{size}: {one / 2**10:.0f} KiB a token, {SLAB * one / 2**20:.0f} MiB a slab")
    told = f"{counts.token_states} of {slots:,} slots hold a token: {board.share:.1%}"
    pen.write(WIDTH - LEFT, y, told, 12, weight="bold", ha="right")
    scale = (WIDTH - 2 * LEFT) / slots
    for extent in board.slabs.extents():
        token = extent.kind == "token_states"
        look = dict(facecolor=request_color(extent.owner)) if token else KINDS[extent.kind]
        pen.fill((LEFT + extent.start * scale, SLABS, (extent.stop - extent.start) * scale, 0.3), **look)
    for key, name in enumerate("AB"):
        slab, x = board.slabs.slabs[key], LEFT + key * SLAB * scale
        reserved, internal = slab.request.output_len, slab.asked - slab.request.total_len
        pen.boxes([(x, SLABS, SLAB * scale, 0.3)])
        pen.write(
            x, SLABS + 0.45, f"{name}: {slab.num_tokens} tokens, {reserved} reserved, {internal:,} internal"
        )


def _pool(pen: Pen, board: Board) -> None:
    pool = board.pool
    pen.head(LEFT, POOL - 0.26, f"the same memory: {pool.num_blocks} blocks of {pool.block_size}")
    pen.boxes([(_left_of(n), POOL, BLOCK, 0.36) for n in range(SHOWN)], facecolor=FREE["facecolor"])
    for block_id in range(SHOWN):
        pen.write(_left_of(block_id) + BLOCK / 2, POOL + 0.48, f"{block_id}", ha="center")
    pen.write(_left_of(SHOWN) + 0.05, POOL + 0.18, f"… {pool.num_blocks - 1}")
    pen.write(FREE_AT, POOL - 0.26, "free list, next first", 12, weight="bold")
    pen.row(FREE_AT, POOL + 0.05, board.free_before[:6], 0.31)
    pen.write(FREE_AT + 1.93, POOL + 0.18, "…")


def _strike(pen: Pen, board: Board, block_id: int) -> None:
    """A block leaves the free list."""
    x = FREE_AT + 0.31 * board.free_before.index(block_id)
    pen.line((x + 0.04, POOL + 0.29), (x + 0.27, POOL + 0.08), width=1.6)


def _tables(pen: Pen, board: Board) -> None:
    for number, (name, x) in enumerate((("A", 0.95), ("B", 3.2))):
        table = board.tables[name]
        for index, block_id in enumerate(table.block_ids):
            held = min(BLOCK_SIZE, table.num_tokens - index * BLOCK_SIZE) / BLOCK_SIZE
            place = _left_of(block_id)
            pen.fill((place, POOL, BLOCK * held, 0.36), facecolor=request_color(number))
            if held < 1:
                pen.fill((place + BLOCK * held, POOL, BLOCK * (1 - held), 0.36), **KINDS["reserved"])
            pen.arrow((x + ENTRY * (index + 0.5), TABLES), (place + BLOCK / 2, POOL + 0.6))
            _strike(pen, board, block_id)
        pen.row(x, TABLES, table.block_ids)
        pen.write(x - 0.1, TABLES + 0.14, name, 13, weight="bold", ha="right")
    pen.head(LEFT, TABLES + 0.48, "block tables: logical to physical")


def _token(pen: Pen, board: Board) -> None:
    table, (block, offset) = board.tables["A"], divmod(POSITION, BLOCK_SIZE)
    block_id, new, x, y = table.block_ids[block], table.num_tokens - 1, 5.75, POOL + 0.72
    pen.head(x, y, f"token {POSITION} of A")
    for row, told in enumerate(
        (
            f"{POSITION} // {BLOCK_SIZE} = {block}: table[{block}] = {block_id}",
            f"{POSITION} % {BLOCK_SIZE} = {offset}: the offset",
            f"slot {block_id} × {BLOCK_SIZE} + {offset} = {table.slot(POSITION)}",
            f"slot mapping: new token {new} → {table.slot(new)}",
            "int64(block) × stride: can pass 2³¹",
        )
    ):
        pen.write(x + 0.15, y + 0.27 + 0.24 * row, told, weight="bold" if row == 2 else "normal")
    at = _left_of(block_id) + BLOCK * offset / BLOCK_SIZE
    pen.boxes([(at, POOL - 0.03, BLOCK / BLOCK_SIZE, 0.42)], facecolor=pen.ink)


def _walk(pen: Pen, board: Board) -> None:
    number = board.states[-1].mixed.abs().argmax().item()  # of the output's, the one that is easiest to see
    pen.head(LEFT, WALK, "attention: for each block in A's table")
    columns, mixed = (0.42, 1.65, 2.2, 2.75, 3.98), f"o (one of {board.head_dim})"
    for x, name in zip(columns, ("block: slots", "m", "l", mixed, "old sums"), strict=True):
        pen.write(x, WALK + 0.27, name, weight="bold")
    left = board.tables["A"].num_tokens
    for row, (block_id, state) in enumerate(zip(board.tables["A"].block_ids, board.states, strict=True)):
        y, mended = WALK + 0.52 + 0.24 * row, f"× {state.shrink:.2f}" if row else "none"
        numbers = [f"{part:.2f}" for part in (state.largest, state.total, state.mixed[number])]
        for x, cell in zip(columns, (f"{block_id}: {min(BLOCK_SIZE, left)}", *numbers, mended), strict=True):
            pen.write(x, y, cell)
        left -= BLOCK_SIZE
    out = (state.mixed[number] / state.total).item()
    pen.write(
        columns[0], y + 0.25, f"the rest is masked; out = o / l = {numbers[2]} / {numbers[1]} = {out:.2f}"
    )


def _schedule(pen: Pen, board: Board) -> None:
    pen.head(RIGHT, WALK, "the scheduler, before each step")
    top, names = WALK + 0.2, {"waiting": board.waiting, "running": board.running}
    for x, (name, who) in zip((RIGHT + 0.1, RIGHT + 2.02), names.items(), strict=True):
        pen.boxes([(x, top, 0.95, 0.46)])
        pen.write(x + 0.475, top + 0.13, name, ha="center")
        pen.write(
            x + 0.475, top + 0.34, ", ".join(who) + " grows" * (name == "running"), ha="center", weight="bold"
        )
    for x, label, wide in ((RIGHT + 1.05, "admit", 0.97), (RIGHT + 2.97, "free", 0.42)):
        pen.arrow((x, top + 0.26), (x + wide, top + 0.26))
        pen.write(x + wide / 2, top + 0.13, label, ha="center")
    pen.write(RIGHT + 1.53, top + 0.39, "watermark", ha="center")
    pen.write(RIGHT + 3.44, top + 0.26, "done")
    pen.arrow((RIGHT + 2.2, top + 0.48), (RIGHT + 0.6, top + 0.48), bend=-0.25)
    pen.write(RIGHT + 2.2, top + 0.64, "preempt the last come")
    pen.write(RIGHT + 0.1, top + 0.91, f"another pool, of {board_story.SMALL_POOL} blocks:")
    told = f"in step {board.preempted_in} none is free, {board.victim} gives up all"
    pen.write(RIGHT + 0.1, top + 1.15, told)


def _share(pen: Pen, board: Board) -> None:
    (source, target), count = board.copy, board.pool.ref_count
    pen.head(LEFT, SHARE, "sharing: counts, copy-on-write, hashes")
    for row, name in enumerate("AC"):
        y = SHARE + 0.17 + 0.44 * row
        pen.write(0.42, y + 0.14, name, 13, weight="bold")
        pen.row(0.62, y, board.tables[name].block_ids)
    pen.arrow((1.16, SHARE + 0.45), (1.16, SHARE + 0.6))
    forked = ", ".join(f"{block_id} ×{number}" for block_id, number in board.forked.items())
    now = ", ".join(f"{block_id} ×{count(block_id)}" for block_id in (*board.forked, target))
    for row, told in enumerate(
        (f"C is a fork of A: {forked}", f"C writes: copy {source} to {target}", f"then {now}")
    ):
        pen.write(1.5, SHARE + 0.27 + 0.24 * row, told)
    _strike(pen, board, target)
    held = BLOCK * (board.tables["C"].num_tokens % BLOCK_SIZE) / BLOCK_SIZE
    pen.fill((_left_of(target), POOL, held, 0.36), facecolor=request_color(2))
    pen.fill((_left_of(target) + held, POOL, BLOCK - held, 0.36), **KINDS["reserved"])
    for index, (block_id, key) in enumerate(
        zip(board.chain, ("hash(tokens)", "hash(h₀, tokens)"), strict=True)
    ):
        x = (0.42, 2.4)[index]
        pen.write(x, SHARE + 1.12, f"h{'₀₁'[index]} = {key}")
        pen.write(x + 0.3, SHARE + 1.33, f"finds B's {block_id}")
    pen.arrow((2.0, SHARE + 1.12), (2.34, SHARE + 1.12))


def _real(pen: Pen, board: Board) -> None:
    low, high = (round(100 * share) for share in paper.FIG_18A)
    pen.head(RIGHT, SHARE, "real systems")
    for row, told in enumerate(
        (
            "vLLM: one pool, prefix caching by default",
            "preempted: recomputed, no swap",
            "kernels: FlashAttention, FlashInfer + table",
            "tensor parallel: one table for all ranks",
            f"costs: kernel {low}-{high}% slower (2023), preemptions",
            "no gain: one stream, full slabs, compute-bound",
        )
    ):
        pen.write(RIGHT + 0.1, SHARE + 0.27 + 0.24 * row, told)


PARTS = (_slabs, _pool, _tables, _token, _walk, _schedule, _share, _real)  # a step adds the next
NUM_STEPS = len(PARTS)


_renderer = cache(lambda width, height: RendererAgg(width, height, DPI))  # knows how wide each text was


class Drawn(Picture):
    """A picture with so many letters that fitting each to the pixels would hold up the slider by a third. All steps
    are drawn by one renderer, so that each text is measured once. Nothing is added later, so its pixels are kept."""

    def __init__(self, height: float, alt: str):
        super().__init__(height, alt)
        self._kept: dict[bool, bytes] = {}

    def png(self, *, small: bool = True) -> bytes:
        if small not in self._kept:
            self._kept[small] = super().png() if small else self._quick()
        return self._kept[small]

    def _quick(self) -> bytes:
        renderer = _renderer(*self.canvas.get_width_height())
        renderer.clear()
        with io.BytesIO() as buffer, matplotlib.rc_context(STYLE | {"text.hinting": "none"}):
            self.draw(renderer)
            pixels = Image.fromarray(np.asarray(renderer.buffer_rgba())).convert("RGB")
            pixels.save(buffer, format="png", compress_level=1)
            return buffer.getvalue()


@styled
def whiteboard(step: int) -> Picture:
    """The board after so many steps; above it what one says now, and when in a five-minute answer.

    Raises:
        ValueError: there is no such step.
    """
    if not 1 <= step <= NUM_STEPS:
        raise ValueError(f"step must be from 1 to {NUM_STEPS}, got {step!r}")
    board = board_story.board()
    minute, said, drawn = board_story.told(board)[step - 1]
    picture = Drawn(HEIGHT, f"On the board: {drawn}")
    picture.alt = f"{minute}, say: {said} On the board: {drawn}"
    picture.set_layout_engine("none")  # nothing jumps when the slider moves, and it is faster
    axes = picture.add_axes((0, picture.above_caption, 1, 1 - picture.above_caption))
    axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axes.axis("off")
    pen = Pen(axes, step)
    pen.write(LEFT, 0.2, minute, 12.5, color=OLD)
    pen.write(0.68, 0.2, f"“{said}”", 12.5, color="black")
    pen.write(LEFT, 0.43, "five-minute clock", color=OLD)
    with matplotlib.rc_context({"path.sketch": HAND}):
        for pen.part, draw in enumerate(PARTS[:step], start=1):
            draw(pen, board)
    return picture
