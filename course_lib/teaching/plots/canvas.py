"""What all pictures share: colours, hatches, and a figure that carries its sentence."""

import io
import textwrap

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito's palette, told apart by colour-blind readers. A request keeps its colour everywhere.
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#BBBBBB"
REQUEST_COLORS = (SKY, ORANGE, GREEN, YELLOW, PURPLE, BLUE, VERMILLION)

# The kinds of slot look the same in every picture: a hatch says it without colour.
RESERVED = dict(facecolor="white", hatch="////")
FREE = dict(facecolor="#F1F1F1")
KINDS = {
    "token_states": dict(facecolor=SKY),  # in a map, the colour of its request
    "reserved": RESERVED,
    "internal": dict(facecolor="#F4CDB8", hatch="xxx"),
    "external": dict(facecolor="#E4E4E4"),  # free, or rounding
}

ALLOCATOR_LOOKS = {  # a colour, a marker and a line for each
    "reserve_max": dict(color=VERMILLION, marker="s", ls="--"),
    "reserve_pow2": dict(color=PURPLE, marker="^", ls="-."),
    "reserve_exact": dict(color=ORANGE, marker="D", ls=":"),
    "paged": dict(color=BLUE, marker="o", ls="-"),
}

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.8,
    "hatch.color": "#666666",
    "savefig.facecolor": "white",
}
WIDTH = 9.0  # inches, at 100 dots: 900 pixels, readable from the back of a room
DPI = 100
LINE = 0.24  # inches that one line of caption takes


def request_color(request: int) -> str:
    """The colour that a request keeps in every picture."""
    return REQUEST_COLORS[request % len(REQUEST_COLORS)]


class Picture(Figure):
    """A figure with its sentence. It belongs to no window and is shown by Jupyter as a PNG."""

    def __init__(self, height: float, alt: str, *, lines: int = 0):
        """`lines`: room for a caption of so many lines at least, so that nothing jumps when it gets longer."""
        self.alt = alt.replace("\n", " ")
        caption = [line for part in alt.split("\n") for line in textwrap.wrap(part, 101)]
        foot = 0.05 + LINE * max(lines, len(caption))
        super().__init__(figsize=(WIDTH, height + foot), dpi=DPI, layout="constrained")
        FigureCanvasAgg(self)
        self.above_caption = foot / (height + foot)  # everything else is drawn above this share of the height
        self.get_layout_engine().set(rect=(0, self.above_caption, 1, 1 - self.above_caption - 0.015))
        self.text(
            0.012, 0.05 / (height + foot), "\n".join(caption), fontsize=11.5, color="#333333", va="bottom"
        )

    def png(self, *, small: bool = True) -> bytes:
        """The picture as a PNG. `small` takes 40 ms more for a third of the bytes: stored pictures are small,
        those that follow a slider are not."""
        with io.BytesIO() as buffer, matplotlib.rc_context(STYLE):
            self.canvas.draw()
            pixels = Image.fromarray(np.asarray(self.canvas.buffer_rgba())).convert("RGB")
            if small:
                few = pixels.quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
                few.save(buffer, format="png", optimize=True)
            else:
                pixels.save(buffer, format="png", compress_level=1)
            return buffer.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/png": self.png(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def styled(function):
    """Draw under the course's style and leave the reader's own settings alone."""

    def wrapper(*args, **kwargs) -> Picture:
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    wrapper.__doc__, wrapper.__name__, wrapper.__wrapped__ = function.__doc__, function.__name__, function
    return wrapper
