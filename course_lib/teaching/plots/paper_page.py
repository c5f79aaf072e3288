"""One page of pictures: the paper's evaluation figures beside ours, from the stored results of a benchmark."""

import io
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from course_lib.teaching.plots.canvas import (
    ALLOCATOR_LOOKS,
    BLUE,
    DPI,
    GREEN,
    ORANGE,
    SKY,
    Picture,
    styled,
)
from course_lib.teaching.plots.memory import TITLES

PAGE_WIDTH = 16.0  # inches, at 100 dots: 1,600 pixels
OURS = dict(facecolor=SKY, edgecolor="#333333")
SIDES = (  # the paper, ours, ours in another way
    dict(facecolor="white", edgecolor="#333333", hatch="////"),
    OURS,
    dict(facecolor=GREEN, edgecolor="#333333", hatch="..."),
)
Report = Mapping[str, dict]  # figure -> what the benchmark has stored


def _bars(axes: Axes, names: Sequence[str], sides: Mapping[str, Sequence[float | None]], form: str) -> None:
    """Bars for each name, lying, one a side; the paper's are the first. Each with its value."""
    height = 0.8 / len(sides)
    for side, (label, values) in enumerate(sides.items()):
        places = [number + height * (side - (len(sides) - 1) / 2) for number in range(len(names))]
        axes.barh(places, [value or 0 for value in values], height=0.9 * height, label=label, **SIDES[side])
        for place, value in zip(places, values, strict=True):
            said = "not in the paper" if value is None else form.format(value)
            axes.text(value or 0, place, f" {said}", va="center", fontsize=11 if value else 9.5)
    axes.set_yticks(range(len(names)), names, fontsize=11.5)
    longest = max(value for values in sides.values() for value in values if value is not None)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 1.22 * longest))


def _legend(axes: Axes, **options) -> None:
    axes.legend(**dict(fontsize=11, handlelength=2.6, framealpha=0.95) | options)


def _fig_12(part: SubFigure, figure: dict, workload: str) -> None:
    axes, limit = part.subplots(), 4
    found = figure["workloads"][workload]
    for name, points in found["curves"].items():
        rates, latencies = zip(*points, strict=True)
        sustained = found["sustained_rate"][name][f"{limit}x"]
        label = f"{TITLES[name]}: {sustained:.3g}/s"
        axes.plot(rates, latencies, lw=2.2, ms=6, label=label, **ALLOCATOR_LOOKS[name])
    axes.axhline(0.05 * limit, color="#777777", lw=1.2, ls=(0, (1, 1)))
    where = dict(transform=axes.get_yaxis_transform(), va="bottom", fontsize=10.5)
    axes.text(0.01, 0.05 * limit, f"{limit} steps a token", **where)
    axes.set(xlabel="requests a second", ylabel="latency [s/token]", xscale="log", ylim=(0, 1))
    ticks = [0.1, 0.2, 0.5, 1, 2] if workload == "ShareGPT" else [1, 2, 5, 10, 20, 50]
    axes.set_xlim(left=0.07)  # room for the legend
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    told = []
    for other, name in (("reserve_exact", "oracle"), ("reserve_max", "maximum")):
        ratio, paper = found["ratios"][f"to {other}"][f"{limit}x"], figure["paper"].get(workload, {})
        low_high = " (paper {:g} to {:g}x)".format(*paper[f"to {other}"]) if paper else ""
        told.append(f"to {name} " + ("—" if ratio is None else f"{ratio:.1f}x") + low_high)
    gains = "paged " + ", ".join(told)
    axes.set_title(f"Fig 12, {workload}: latency against rate (simulated)\n", loc="left")
    axes.text(0, 1.025, gains, transform=axes.transAxes, fontsize=11.5, in_layout=False)
    _legend(axes, title=f"sustained within {limit} steps a token", title_fontsize=11, loc="upper left")


def _fig_13(part: SubFigure, figure: dict) -> None:
    part.suptitle("Fig 13: requests that run at once (simulated)", x=0.02, ha="left", fontsize=14)
    for axes, (workload, ours) in zip(part.subplots(1, 2), figure["ours"].items(), strict=False):
        paper = figure["paper"][workload]
        names = [textwrap.fill(TITLES[name], 13) for name in ours]
        _bars(axes, names, {"paper": [paper[name] for name in ours], "ours": list(ours.values())}, "{:.1f}")
        axes.set_title({"ShareGPT": "ShareGPT, 2/s", "Alpaca": "Alpaca, 30/s"}[workload], fontsize=12)
        if workload == "Alpaca":
            axes.set_yticklabels([])
            _legend(axes, loc="upper right")


def _fig_14(axes: Axes, figure: dict) -> None:
    fixed, grows = figure["ours"].values()
    names = [name.replace("beam width ", "beams,\nwidth ").replace("one ", "one\n") for name in fixed]
    sides = {
        "paper": [figure["paper"].get(name) for name in fixed],
        "ours, step 0.05 s": list(fixed.values()),
        "ours, step grows": list(grows.values()),
    }
    _bars(axes, names, sides, "{:.1f}x")
    axes.set_title("Fig 14, Alpaca (derived)", loc="left")
    axes.set_xlabel("tokens/s, to an oracle's")
    axes.set_xlim(0, 1.5 * axes.get_xlim()[1])
    _legend(axes, loc="upper right", fontsize=10.5, handlelength=1.8)


def _fig_15(part: SubFigure, figure: dict) -> None:
    part.suptitle("Fig 15: memory that sharing saves (measured)", x=0.02, ha="left", fontsize=14)
    panels = part.subplots(1, len(figure["ours"]), sharey=True, squeeze=False)[0]
    for axes, (workload, ours) in zip(panels, figure["ours"].items(), strict=True):
        paper = figure["paper"][workload]
        for kind, (method, color, hatch) in enumerate((("sampling", GREEN, ""), ("beams", ORANGE, "\\\\\\"))):
            for place, (count, share) in enumerate(ours[method].items()):
                where = place + 4 * kind
                look = dict(facecolor=color, hatch=hatch, edgecolor="#333333")
                axes.bar(where, share, width=0.8, label=f"ours: {method}" if place == 0 else None, **look)
                top = max(share, paper[method].get(count, 0) if workload == "Alpaca" else 0)
                axes.text(where, top + 0.015, f"{100 * share:.0f}", ha="center", fontsize=11)
                if workload == "Alpaca" and count in paper[method]:
                    label = "the paper's" if (kind, place) == (1, 0) else None
                    axes.plot(
                        [where - 0.4, where + 0.4],
                        [paper[method][count]] * 2,
                        color="black",
                        lw=3,
                        label=label,
                    )
            if workload == "ShareGPT":
                low, high = paper[method]
                axes.fill_between(
                    [4 * kind - 0.45, 4 * kind + 2.45], low, high, color="none", hatch="....", edgecolor="#222222",
                    lw=1.4, label="the paper's range" if kind else None,
                )  # fmt: skip
        counts = list(ours["sampling"])
        places = [place + 4 * kind for kind in (0, 1) for place in range(len(counts))]
        axes.set_xticks(places, counts * 2)
        axes.set(xlabel="outputs, or beams", ylim=(0, 1.05), yticks=[0, 0.2, 0.4, 0.6, 0.8])
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.set_title(f"{workload} lengths", fontsize=12)
        _legend(axes, loc="upper left", fontsize=10.5)


def _fig_16(axes: Axes, figure: dict) -> None:
    ours, paper = figure["ours"], figure["paper"]
    names = [f"{int(length):,}\ntokens" for length in ours]
    sides = {"paper": [paper.get(length) for length in ours], "ours": list(ours.values())}
    _bars(axes, names, sides, "{:.1f}x")
    for number, row in enumerate(figure["rows"]):
        said = f"first token\n{row['first_token_ratio']:.1f}x sooner"
        axes.text(
            0.99, number, said, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=10.5
        )
    axes.set_xlim(0, 2.4 * axes.get_xlim()[1] / 1.22)
    axes.set_title("Fig 16: shared prefix (measured)", loc="left")
    axes.set_xlabel("requests/s, with to without\n(the paper's: to its oracle)")


def _size_axis(axes: Axes, sizes: Sequence[str], every: int = 1) -> None:
    values = [int(size) for size in sizes][::every]
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
    axes.set_xlabel("block size [tokens]")


def _fig_18(memory: Axes, kernel: Axes, figure: dict) -> None:
    lines = figure["ours"]["share_of_the_best"]
    for (name, line), (color, marker) in zip(lines.items(), ((BLUE, "o"), (ORANGE, "s")), strict=False):
        memory.plot(
            [int(size) for size in line], list(line.values()), color=color, marker=marker, lw=2.2, label=name
        )
    _size_axis(memory, list(next(iter(lines.values()))), every=2)
    memory.set_ylim(0, 1.05)
    memory.set_ylabel("running, share of the best")
    memory.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    memory.set_title("Fig 18b: memory (simulated)", loc="left")
    _legend(memory, loc="lower left")
    steps, spread = figure["ours"]["step_ms"], figure["step_ms_quartiles"]
    for place, (size, value) in enumerate(steps.items()):
        low, _, high = spread[size]
        kernel.bar(place, value, width=0.7, **OURS)
        kernel.plot([place, place], [low, high], color="black", lw=2)
        kernel.text(
            place, high + 0.02 * max(steps.values()), f"{value:.0f}", ha="center", va="bottom", fontsize=11
        )
    kernel.set_xticks(range(len(steps)), list(steps))
    kernel.set(
        xlabel="block size [tokens]", ylabel="one decode step [ms]", ylim=(0, 1.2 * max(steps.values()))
    )
    kernel.set_title("Fig 18b: kernel, a CPU's", loc="left")


def _two_costs(axes: Axes, recompute: Sequence[float], swap: Mapping[str, float]) -> None:
    sizes = [int(size) for size in swap]
    axes.plot(sizes, list(swap.values()), color=BLUE, marker="o", lw=2.2, label="swap: out and in again")
    axes.plot(sizes, recompute, color=ORANGE, marker="s", ls="--", lw=2.2, label="recompute")
    axes.set_yscale("log")
    _size_axis(axes, list(swap))
    axes.axvspan(16, 64, color="#EEEEEE", zorder=0, label="comparable, says the paper")


def _fig_19_cpu(part: SubFigure, figure: dict) -> None:
    axes, cpu = part.subplots(), figure["cpu"]
    _two_costs(axes, list(cpu["recompute_ms"].values()), cpu["swap_ms"])
    axes.set_ylabel(f"{figure['num_tokens']} tokens [ms]")
    axes.set_title("Fig 19, this CPU: a copy within memory (measured)", loc="left")
    _legend(axes, loc="center right")


def _fig_19_model(part: SubFigure, figure: dict) -> None:
    axes, modelled = part.subplots(), figure["modelled"]
    half, assumed, twice = modelled.values()
    sizes = [int(size) for size in assumed["swap_ms"]]
    _two_costs(axes, [assumed["recompute_ms"]] * len(sizes), assumed["swap_ms"])
    axes.fill_between(
        sizes, list(half["swap_ms"].values()), list(twice["swap_ms"].values()), color=BLUE, alpha=0.18, lw=0,
        label="a transfer costs half, or twice, as much",
    )  # fmt: skip
    axes.set_ylabel(f"{figure['num_tokens']} tokens [ms]")
    told = f"{figure['link_gb_per_s']:g} GB/s, {figure['microseconds_per_transfer']:g} µs a transfer"
    axes.set_title(f"Fig 19, OPT-13B on an A100: {told} (model)", loc="left")
    _legend(axes, loc="upper right")


class Page(Picture):
    """A picture of a page's width, with room for text below."""

    def __init__(self, height: float, foot: float, alt: str):
        Figure.__init__(self, figsize=(PAGE_WIDTH, height + foot), dpi=DPI, layout="constrained")
        FigureCanvasAgg(self)
        self.alt, self.above_caption = alt, foot / (height + foot)
        self.get_layout_engine().set(
            rect=(0, self.above_caption, 1, 1 - self.above_caption), w_pad=0.1, h_pad=0.08
        )

    def png(self, *, small: bool = True) -> bytes:
        """As a picture's, but with a palette that keeps every colour of so many panels."""
        whole = super().png(small=False)
        if not small:
            return whole
        with Image.open(io.BytesIO(whole)) as pixels, io.BytesIO() as buffer:
            few = pixels.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            few.save(buffer, format="png", optimize=True)
            return buffer.getvalue()


def _foot(report: Report) -> list[str]:
    """What makes ours differ, figure by figure, in lines as wide as the page."""
    lines = []
    for name, figure in report.items():
        text = f"Fig {name.removeprefix('fig')}: {figure['gap']}"
        lines += textwrap.wrap(text, 190, subsequent_indent="        ")
    return lines


@styled
def paper_page(report: Report, machine: Mapping[str, object]) -> Page:
    """All figures of a report on one page. A figure that is not in it leaves its place empty.

    Args:
        report: "fig12", "fig13", ... -> what benchmarks/paper_figures.py stores.
        machine: of the measurements.
    """
    lines = _foot(report)
    alt = "The paper's figures and ours. " + " ".join(
        f"{figure['title']}: ours {figure['ours']}, the paper {figure['paper']}."
        for figure in report.values()
    )
    page = Page(18.0, 0.35 + 0.2 * len(lines), alt)
    rows = page.subfigures(4, 1, height_ratios=[1.1, 1, 1, 1])
    cells = [row.subfigures(1, 2) for row in rows]
    where = {
        "fig12": lambda figure: [
            _fig_12(cell, figure, name) for cell, name in zip(cells[0], figure["workloads"], strict=False)
        ],
        "fig13": lambda figure: _fig_13(cells[1][0], figure),
        "fig15": lambda figure: _fig_15(cells[1][1], figure),
        "fig19": lambda figure: (_fig_19_cpu(cells[3][0], figure), _fig_19_model(cells[3][1], figure)),
    }
    for name, draw in where.items():
        if name in report:
            draw(report[name])
    left, right = (cell.subplots(1, 2) for cell in cells[2])
    for axes, name, draw in ((left[0], "fig14", _fig_14), (left[1], "fig16", _fig_16)):
        draw(axes, report[name]) if name in report else axes.axis("off")
    if "fig18" in report:
        _fig_18(*right, report["fig18"])
    else:
        for axes in right:
            axes.axis("off")
    told = "Measured on {processor}, {cores} cores, torch threads: {torch_threads}, {date}.".format(**machine)
    text = "\n".join([f"{told} Why ours differ:", *lines])
    page.text(
        0.008, 0.1 / page.get_figheight(), text, fontsize=10.5, va="bottom", color="#333333", linespacing=1.25
    )
    return page
