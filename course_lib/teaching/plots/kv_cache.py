"""Pictures of a KV cache, of what it saves and of what bounds it."""

from collections.abc import Sequence

from matplotlib.patches import Patch, Rectangle

from course_lib.serving.cost import Cost
from course_lib.serving.engine import LLMEngine
from course_lib.serving.kv_cache import ContiguousCache
from course_lib.teaching.plots.canvas import (
    BLUE,
    FREE,
    GREY,
    ORANGE,
    RESERVED,
    SKY,
    VERMILLION,
    Picture,
    request_color,
    styled,
)
from course_lib.teaching.presets import Budget

MARKERS = "osD^v"


@styled
def work_map(no_cache: Sequence[tuple[int, int]], cached: Sequence[tuple[int, int]]) -> Picture:
    """Which tokens each step computed, without a cache and with one.

    Args:
        no_cache, cached: for each step the first and last-plus-one position that went through the model.
    """
    counts = [sum(stop - start for start, stop in steps) for steps in (no_cache, cached)]
    alt = (
        f"Tokens computed in each of {len(no_cache)} steps. Without a cache every step computes the whole context "
        f"again, {counts[0]:,} tokens in all; with a cache only what is new, {counts[1]:,}."
    )
    picture = Picture(3.6, alt)
    panels = zip(
        picture.subplots(1, 2, sharey=True), (no_cache, cached), ("no cache", "KV cache"), counts, strict=True
    )
    for axes, steps, title, count in panels:
        seen = 0
        for number, (start, stop) in enumerate(steps):
            old, new = min(seen, stop), stop
            axes.add_patch(
                Rectangle((start, number), max(0, old - start), 1, facecolor=ORANGE, hatch="//", lw=0)
            )
            axes.add_patch(
                Rectangle((max(start, old), number), new - max(start, old), 1, facecolor=BLUE, lw=0)
            )
            seen = max(seen, stop)
        axes.set(
            xlim=(0, no_cache[-1][1]),
            ylim=(len(steps), 0),
            xlabel="position in the text",
            title=f"{title}: {count:,} tokens",
        )
    picture.axes[0].set_ylabel("step")
    handles = [
        Patch(facecolor=BLUE, label="computed for the first time"),
        Patch(facecolor=ORANGE, hatch="//", label="computed again"),
    ]
    picture.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=11)
    return picture


@styled
def slabs(cache: ContiguousCache, names: Sequence[str] = ()) -> Picture:
    """The slabs of a contiguous cache: which slots hold a token, which are only reserved.

    Args:
        cache: read, not changed.
        names: a label for each slab; "request 0", "request 1", ... by default.
    """
    lengths = [cache.length(slab) for slab in range(cache.num_sequences)]
    total = cache.num_sequences * cache.max_len
    alt = (
        f"{cache.num_sequences} slabs of {cache.max_len} slots, {cache.num_bytes / 2**20:,.1f} MiB reserved. "
        f"{sum(lengths):,} of {total:,} slots hold a token's keys and values ({sum(lengths) / total:.0%}); "
        "the hatched rest is reserved and empty."
    )
    picture = Picture(0.9 + 0.42 * cache.num_sequences, alt)
    axes = picture.subplots()
    for slab, length in enumerate(lengths):
        axes.add_patch(Rectangle((0, slab + 0.1), cache.max_len, 0.8, edgecolor="#666666", **RESERVED))
        axes.add_patch(
            Rectangle((0, slab + 0.1), length, 0.8, facecolor=request_color(slab), edgecolor="black", lw=1)
        )
    labels = [*names, *(f"request {slab}" for slab in range(len(names), cache.num_sequences))]
    axes.set_yticks([slab + 0.5 for slab in range(cache.num_sequences)], labels)
    axes.set(
        xlim=(0, cache.max_len), ylim=(cache.num_sequences, 0), xlabel="slot (one token's keys and values)"
    )
    handles = [
        Patch(facecolor=request_color(0), edgecolor="black", label="token states, a colour for each request"),
        Patch(edgecolor="#666666", label="reserved", **RESERVED),
    ]
    picture.legend(handles=handles, loc="outside upper right", ncols=2, fontsize=11)
    return picture


def token_label(text: str) -> str:
    """A token's text, short enough for its slot: a newline shows as \\n, a lone space as ␣."""
    label = repr(text)[1:-1].strip() or "␣"
    return (label if len(label) <= 8 else label[:6] + "…").replace("$", r"\$")


@styled
def block_map(engine: LLMEngine, names: Sequence[str]) -> Picture:
    """Every slot of a paged engine's pool, a row for each block, with the token whose keys and values it holds.

    Args:
        engine: read, not changed.
        names: of the requests, by request_id.
    """
    pool, running = engine.allocator.pool, engine.scheduler.running
    size, owners, held = pool.block_size, {}, {}
    for key, table in engine.allocator.tables.items():
        sequence = engine.sequences[key]
        texts = sequence.token_ids[: running[key].num_computed]
        held[sequence.request_id] = len(texts), len(table.block_ids)
        for index, block_id in enumerate(table.block_ids):
            owners[block_id] = sequence, texts[index * size : (index + 1) * size]
    alt = (
        f"The KV cache: {pool.num_blocks} blocks of {size} slots, a row each. "
        + "".join(
            f"{names[number].capitalize()}: {tokens} tokens in {blocks} {'block' if blocks == 1 else 'blocks'}. "
            for number, (tokens, blocks) in held.items()
        )
        + f"{pool.num_free} blocks are free."
    )
    picture = Picture(0.5 + 0.36 * pool.num_blocks, alt, lines=2)
    picture.set_layout_engine("none")  # nothing jumps from frame to frame
    foot = picture.above_caption
    axes = picture.add_axes((0.075, foot, 0.92, (1 - foot) * (1 - 0.4 / (0.5 + 0.36 * pool.num_blocks))))
    for block_id in range(pool.num_blocks):
        sequence, tokens = owners.get(block_id, (None, []))
        for offset in range(size):
            look = FREE if sequence is None else RESERVED
            if offset < len(tokens):
                look = dict(facecolor=request_color(sequence.request_id))
            axes.add_patch(Rectangle((offset, block_id), 0.95, 0.88, edgecolor="#555555", lw=0.6, **look))
            if offset < len(tokens):
                text = engine.tokenizer.decode([tokens[offset]], skip_special_tokens=False)
                label = "⟨…⟩" if text.startswith("<|") else token_label(text)
                axes.text(offset + 0.47, block_id + 0.45, label, ha="center", va="center", fontsize=8.5)
        axes.text(-0.15, block_id + 0.45, f"block {block_id}", ha="right", va="center", fontsize=9.5)
    axes.set(xlim=(-0.02, size), ylim=(pool.num_blocks, -0.02))
    axes.axis("off")
    handles = [
        Patch(facecolor=request_color(number), edgecolor="#555555", label=name)
        for number, name in enumerate(names)
    ]
    handles.append(Patch(edgecolor="#555555", label="taken, still empty", **RESERVED))
    handles.append(Patch(edgecolor="#555555", label="free", **FREE))
    picture.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 1.0), ncols=5, fontsize=11, frameon=False
    )
    return picture


@styled
def times(context_lens: Sequence[int], milliseconds: dict[str, Sequence[float]]) -> Picture:
    """Measured time of one more token against the length of the context, a line for each cache."""
    last = ", ".join(f"{name} {values[-1]:.0f} ms" for name, values in milliseconds.items())
    alt = (
        f"Time for one more token at contexts from {context_lens[0]} to {context_lens[-1]} tokens, measured here. "
        f"At {context_lens[-1]} tokens it takes: {last}."
    )
    picture = Picture(3.6, alt)
    axes = picture.subplots()
    looks = [(VERMILLION, 2, "o"), (ORANGE, 7, "s"), (BLUE, 2, "D")]  # wide under narrow: both show
    for (name, values), (color, width, marker) in zip(milliseconds.items(), looks, strict=False):
        axes.plot(context_lens, values, color=color, marker=marker, lw=width, ms=width + 5, label=name)
    axes.set(xlabel="context [tokens]", ylabel="one token [ms]", ylim=(0, None), xticks=context_lens)
    axes.legend(fontsize=11)
    return picture


def _rate(per_second: float) -> str:
    """A rate with the prefix that keeps it short: 989 T, 14 G."""
    return f"{per_second / 1e12:,.0f} T" if per_second >= 1e13 else f"{per_second / 1e9:,.0f} G"


@styled
def roofline(
    points: dict[str, tuple[Cost, float | None]], peak_flops: float, bandwidth: float, machine: str
) -> Picture:
    """Operations per second against operations per byte, under the two roofs of a machine.

    Args:
        points: label -> (counted cost, measured seconds or None). Without seconds a point lies on the roof.
        peak_flops: floating-point operations a second.
        bandwidth: bytes a second.
        machine: its name, for the title.
    """
    ridge = peak_flops / bandwidth
    left = sum(cost.intensity < ridge for cost, _ in points.values())
    measured = any(seconds for _, seconds in points.values())
    alt = (
        f"Roofline of {machine}: {_rate(peak_flops)}FLOP/s and {_rate(bandwidth)}B/s meet at "
        f"{ridge:.1f} FLOP per byte. {left} of {len(points)} points lie left of it, where memory sets the pace; "
        + ("points are measured." if measured else "points are counted, at the best the roof allows.")
    )
    picture = Picture(4.2, alt)
    axes = picture.subplots()
    intensities = [cost.intensity for cost, _ in points.values()]
    low, high = min(*intensities, ridge) / 4, max(*intensities, ridge) * 4
    axes.plot(
        [low, ridge, high], [low * bandwidth / 1e9, peak_flops / 1e9, peak_flops / 1e9], color="black", lw=2
    )
    axes.axvline(ridge, color="#999999", ls=":", lw=1.5)
    for x, words, side in [(ridge / 1.25, "memory-bound", "right"), (ridge * 1.25, "compute-bound", "left")]:
        axes.text(
            x, 0.03, words, transform=axes.get_xaxis_transform(), color="#444444", ha=side, style="italic"
        )
    for number, (label, (cost, seconds)) in enumerate(points.items()):
        rate = cost.flops / seconds if seconds else min(peak_flops, cost.intensity * bandwidth)
        color = BLUE if label.startswith("decode") else VERMILLION
        axes.plot(cost.intensity, rate / 1e9, MARKERS[number % len(MARKERS)], color=color, ms=10)
        axes.annotate(
            label, (cost.intensity, rate / 1e9), xytext=(9, -14), textcoords="offset points", fontsize=11
        )
    axes.set(
        xscale="log", yscale="log", xlabel="FLOP per byte", ylabel="GFLOP/s", xlim=(low, high), title=machine
    )
    return picture


@styled
def kv_budget(budget: Budget) -> Picture:
    """How a GPU's memory divides between weights and KV cache, and what does not fit."""
    usable, weights, cache = budget.usable_bytes, budget.weight_bytes, budget.kv_bytes
    model, fits = budget.model, budget.requests_that_fit
    gpus = f"{budget.num_gpus} x {budget.gpu.name}" if budget.num_gpus > 1 else budget.gpu.name
    verdict = (
        f"{fits:,} request{'s' * (fits != 1)} fit{'s' * (fits == 1)}"
        if weights < usable
        else "The weights alone do not fit"
    )
    wanted = f"{budget.batch:,} request{'s' * (budget.batch != 1)} of {budget.context_len:,} tokens"
    alt = (
        f"{verdict}: {model.name} on {gpus}, {_gigabytes(weights)} of weights, {_gigabytes(cache)} of KV cache "
        f"for {wanted}, {_gigabytes(usable)} usable."
    )
    if budget.context_len > model.max_context:
        alt += f" But {model.name} was made for {model.max_context:,} tokens at most."
    picture = Picture(2.0, alt)
    picture.set_layout_engine("none")  # fixed axes: nothing jumps when a slider moves, and a third faster
    foot = picture.above_caption
    axes = picture.add_axes((0.02, foot + 0.28 * (1 - foot), 0.96, 0.36 * (1 - foot)))
    axes.barh(0, weights / 1e9, color=GREY, edgecolor="black", label=f"weights {_gigabytes(weights)}")
    axes.barh(
        0,
        cache / 1e9,
        left=weights / 1e9,
        color=SKY,
        edgecolor="black",
        hatch="..",
        label=f"KV cache {_gigabytes(cache)}",
    )
    axes.axvline(usable / 1e9, color="black", ls="--", lw=3, label=f"usable {_gigabytes(usable)}")
    if (over := weights + cache - usable) > 0:
        axes.barh(
            0, over / 1e9, left=usable / 1e9, height=0.3, color=VERMILLION, edgecolor="black", hatch="xx",
            label=f"does not fit {_gigabytes(over)}",
        )  # fmt: skip
    axes.set(xlim=(0, max(usable, weights + cache) / 1e9 * 1.05), yticks=[], xlabel="GB (10⁹ bytes)")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    drawn = "" if weights >= usable else f"; drawn: {budget.batch:,}"
    picture.text(0.02, 1 - 0.03 * (1 - foot), verdict + drawn, weight="bold", va="top", fontsize=15)
    picture.legend(
        loc="upper right",
        bbox_to_anchor=(0.99, 0.86 * (1 - foot) + foot),
        ncols=4,
        fontsize=11,
        frameon=False,
        columnspacing=1.2,
    )
    return picture


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 10**8 else f"{num_bytes / 1e6:,.0f} MB"
