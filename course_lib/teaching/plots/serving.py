"""Pictures of serving: who runs when, latency against load, what equal bytes bought."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from course_lib.teaching import timeline as states
from course_lib.teaching.plots.canvas import (
    ALLOCATOR_LOOKS,
    BLUE,
    ORANGE,
    SKY,
    VERMILLION,
    Picture,
    styled,
)
from course_lib.teaching.plots.memory import SHARES_LEGEND, TITLES, _stack
from course_lib.teaching.timeline import Timeline

LOOKS = {
    states.WAITS: dict(facecolor="#E4E4E4"),
    states.PREFILL: dict(facecolor=ORANGE, hatch="\\\\\\"),
    states.DECODE: dict(facecolor=SKY),
    states.PREEMPTED: dict(facecolor="white", hatch="----"),
}


def _preemptions(run: Timeline) -> str:
    if not run.num_preemptions:
        return "No preemptions."
    many = "preemption" if run.num_preemptions == 1 else "preemptions"
    return f"{run.num_preemptions} {many}, after which {run.num_recomputed} tokens are computed again."


def _spans(run: Timeline) -> dict[str, list]:
    """The corners of a box for each time that a request stays in one state."""
    boxes: dict[str, list] = {state: [] for state in LOOKS}
    for key in range(len(run.requests)):
        row = [found.get(key) for found in run.states] + [None]
        start = 0
        for step in range(1, len(row)):
            if row[step] != row[start]:
                if row[start] is not None:
                    top, bottom = key + 0.08, key + 0.92
                    boxes[row[start]].append([(start, top), (step, top), (step, bottom), (start, bottom)])
                start = step
    return boxes


@styled
def timeline(run: Timeline, name: str) -> Picture:
    """Requests from top to bottom, steps from left to right; below, what the KV slots are.

    Args:
        name: the allocator.
    """
    alt = (
        f"{TITLES[name].capitalize()}, {run.num_slots} slots: {len(run.requests)} requests are served in "
        f"{run.num_steps} steps, {run.mean_running():.1f} at once on average; "
        f"a request waits {run.mean_wait():.0f} steps.\n"
        f"{_preemptions(run)} "
        f"{sum(run.num_new)} tokens went through the model in all, {max(run.num_new)} in the fullest step."
    )
    picture = Picture(5.3, alt, lines=4)
    picture.set_layout_engine("none")
    foot = picture.above_caption
    room = 1 - foot
    upper = picture.add_axes((0.075, foot + 0.43 * room, 0.915, 0.505 * room))
    for state, boxes in _spans(run).items():
        upper.add_collection(PolyCollection(boxes, **LOOKS[state], edgecolor="#555555", linewidth=0.4))
    count = len(run.requests)
    upper.set(xlim=(0, run.num_steps), ylim=(count, 0), xticks=[], ylabel="request")
    upper.set_yticks([0.5, count // 2 + 0.5, count - 0.5], ["0", str(count // 2), str(count - 1)])
    lower = picture.add_axes((0.075, foot + 0.115 * room, 0.915, 0.25 * room))
    counts = [vars(each) for each in run.counts]
    _stack(lower, list(range(run.num_steps + 1)), [*counts, counts[-1]])
    lower.set_xlabel("steps", fontsize=11, labelpad=1)
    lower.tick_params(labelsize=10)
    for looks, height in ((LOOKS, 1.0), (SHARES_LEGEND, foot + 0.435 * room)):
        handles = [Patch(edgecolor="#555555", label=label, **look) for label, look in looks.items()]
        place = dict(loc="upper center", bbox_to_anchor=(0.53, height))
        picture.legend(handles=handles, ncols=4, fontsize=10.5, frameon=False, **place)
    return picture


@styled
def latency(latencies: Mapping[str, Mapping[float, float]], limit: float) -> Picture:
    """The paper's Fig 12: mean normalized latency against the request rate, a line for each allocator.

    Args:
        latencies: allocator -> requests a second -> seconds a token.
        limit: the latency up to which a rate counts as sustained; a dotted line.
    """
    sustained = {
        name: max((rate for rate, value in line.items() if value <= limit), default=0)
        for name, line in latencies.items()
    }
    alt = f"Seconds a token against requests a second. Below {limit:g} s a token: " + ", ".join(
        f"{TITLES[name]} up to {rate:g}" for name, rate in sustained.items()
    )
    picture = Picture(3.6, alt + " requests a second.")
    axes = picture.subplots()
    for name, line in latencies.items():
        axes.plot(list(line), list(line.values()), lw=2.5, ms=8, label=TITLES[name], **ALLOCATOR_LOOKS[name])
    axes.axhline(limit, color="#777777", ls=":", lw=1.5)
    axes.set(
        xlabel="requests a second",
        ylabel="normalized latency\n[s a token]",
        ylim=(0, 5 * limit),
        xlim=(0, None),
    )
    axes.legend(fontsize=11, loc="upper center", bbox_to_anchor=(0.64, 1.0))
    return picture


@styled
def token_gaps(gaps: Mapping[str, Sequence[float]], arrival: int) -> Picture:
    """Milliseconds of each step of those who decode, while a long prompt arrives.

    Args:
        gaps: name -> milliseconds, step by step.
        arrival: the step at which the prompt is there.
    """
    alt = "Milliseconds a step while others decode and a long prompt arrives: " + "; ".join(
        f"{name}, the longest step {max(line):.0f} ms, the median {np.median(line):.0f} ms"
        for name, line in gaps.items()
    )
    picture = Picture(3.0, alt + ".")
    axes = picture.subplots()
    for (name, line), (color, mark) in zip(gaps.items(), [(VERMILLION, "s"), (BLUE, "o")], strict=False):
        axes.plot(range(len(line)), line, color=color, marker=mark, lw=2, ms=6, label=name)
    axes.axvline(arrival, color="#777777", ls=":", lw=1.5)
    axes.set(xlabel="step", ylabel="a step takes [ms]", ylim=(0, None))
    axes.text(arrival - 0.1, axes.get_ylim()[1], "the prompt is there", ha="right", va="top", fontsize=11)
    axes.legend(fontsize=11)
    return picture


@styled
def payback(recompute: Mapping[int, float], swap: Mapping[int, Mapping[int, float]]) -> Picture:
    """The paper's Fig 19, as a model: what bringing a preempted sequence back takes, against the block size.

    Args:
        recompute: block size -> milliseconds.
        swap: bytes a second of the link -> block size -> milliseconds.
    """
    sizes = list(recompute)
    alt = (
        f"Milliseconds to bring a sequence back, against the block size. Recompute: {recompute[sizes[0]]:.0f} always. "
        + "; ".join(
            f"Swap over {speed / 1e9:g} GB/s: {line[sizes[0]]:.0f} at {sizes[0]}, {line[sizes[-1]]:.0f} at {sizes[-1]}"
            for speed, line in swap.items()
        )
    )
    picture = Picture(3.2, alt + ".")
    axes = picture.subplots()
    axes.plot(sizes, list(recompute.values()), color=BLUE, marker="o", lw=2.5, ms=8, label="recompute")
    for (speed, line), (color, mark) in zip(swap.items(), [(VERMILLION, "s"), (ORANGE, "D")], strict=False):
        axes.plot(
            sizes,
            list(line.values()),
            color=color,
            marker=mark,
            lw=2.5,
            ms=8,
            label=f"swap, {speed / 1e9:g} GB/s",
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_yticks([10, 20, 50, 100, 200, 500], ["10", "20", "50", "100", "200", "500"])
    axes.minorticks_off()
    lowest = min(min(line.values()) for line in (recompute, *swap.values()))
    highest = max(max(line.values()) for line in (recompute, *swap.values()))
    axes.set(xlabel="block size [tokens]", ylabel="milliseconds", ylim=(lowest / 1.3, highest * 1.3))
    axes.legend(fontsize=11)
    return picture
