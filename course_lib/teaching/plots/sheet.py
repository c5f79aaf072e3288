"""An A4 page in two columns that fill from the top down: vectors as PDF, pixels as PNG, the same bytes each time."""

import io
from functools import lru_cache

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from PIL import Image

from course_lib.teaching.plots.canvas import BLUE

PAGE, PNG_DPI, STORED_DPI = (8.27, 11.69), 150, 110  # A4 in inches; dots an inch, in a file and in a notebook
MARGIN, GAP, TOP = 0.36, 0.24, 0.58  # inches
WIDE = (PAGE[0] - 2 * MARGIN - GAP) / 2  # a column
BODY, LINE = 7.5, 0.124  # points, and inches

UNHINTED = {"text.hinting": "none"}  # letters as wide in pixels as in the PDF


class Sheet(Figure):
    """A page. Jupyter shows it as a PNG."""

    def __init__(self, alt: str, title: str):
        self.alt, self.title = alt, title
        super().__init__(figsize=PAGE, dpi=PNG_DPI)
        FigureCanvasAgg(self)

    def png(self, dpi: int = PNG_DPI) -> bytes:
        """The page in pixels, with a palette: a third of the bytes."""
        with io.BytesIO() as whole, io.BytesIO() as buffer, matplotlib.rc_context(UNHINTED):
            self.savefig(whole, format="png", dpi=dpi, facecolor="white")
            pixels = Image.open(whole).convert("RGB")
            few = pixels.quantize(24, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            few.save(buffer, format="png", optimize=True, dpi=(dpi, dpi))
            return buffer.getvalue()

    def pdf(self) -> bytes:
        """The page in letters and lines, the same bytes each time."""
        with io.BytesIO() as buffer:
            self.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Title": self.title})
            return buffer.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/png": self.png(STORED_DPI), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


@lru_cache(maxsize=4096)
def _width(text: str, bold: bool) -> float:
    """Of a piece of body text, in inches."""
    font = FontProperties(family="DejaVu Sans", size=BODY, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


class Column:
    """Writes from the top down."""

    def __init__(self, sheet: Sheet, left: float):
        self.sheet, self.left, self.y = sheet, left, TOP

    def write(self, x: float, text: str, size: float = BODY, down: float = 0.0, **look) -> None:
        """At `x` inches from the column's left, on the line where it has come to."""
        where = (self.left + x) / PAGE[0], 1 - (self.y + down) / PAGE[1]
        self.sheet.text(*where, text, fontsize=size, **dict(va="baseline", color="black") | look)

    def head(self, text: str) -> None:
        self.y += 0.2
        self.write(0, text, 9, weight="bold", color=BLUE)
        self.y += 0.04
        ends = self.left / PAGE[0], (self.left + WIDE) / PAGE[0]
        self.sheet.add_artist(Line2D(ends, [1 - self.y / PAGE[1]] * 2, color=BLUE, lw=0.6))
        self.y += 0.015

    def say(self, text: str, lead: str = "") -> None:
        """A paragraph, broken at spaces to the column's width; `lead` is its bold beginning."""
        words = [(word, True) for word in lead.split(" ") if word]
        words += [(word, False) for word in text.split(" ")]
        lines = [("", "")]  # what is bold, and what follows it
        for word, bold in words:
            heavy, light = lines[-1]
            longer = (f"{heavy} {word}".strip(), light) if bold else (heavy, f"{light} {word}".strip())
            if _width(longer[0], True) + 0.04 + _width(longer[1], False) > WIDE and lines[-1] != ("", ""):
                longer = (word, "") if bold else ("", word)
                lines.append(longer)
            lines[-1] = longer
        for heavy, light in lines:
            self.y += LINE
            if heavy:
                self.write(0, heavy, weight="bold")
            if light:
                self.write(_width(heavy, True) + 0.04 if heavy else 0, light)
        self.y += 0.016

    def code(self, text: str) -> None:
        for line in text.splitlines():
            self.y += LINE
            self.write(0.04, line, 7.5, family="DejaVu Sans Mono")
        self.y += 0.03

    def formula(self, *parts: str) -> None:
        """Formulas side by side."""
        self.y += 0.185
        for number, part in enumerate(parts):
            self.write(0.04 + number * 0.44 * WIDE, part, 8.2)
        self.y += 0.05

    def row(self, places: tuple[float, ...], cells: tuple[str, ...], **look) -> None:
        """Cells, the first from its place on, the others up to theirs."""
        self.y += LINE
        for x, cell in zip(places, cells, strict=True):
            self.write(x, cell, ha="left" if x == 0 else "right", **look)

    def picture(self, height: float) -> Axes:
        """Room to draw in, in inches from its upper left corner."""
        self.y += 0.04
        axes = self.sheet.add_axes(
            (self.left / PAGE[0], 1 - (self.y + height) / PAGE[1], WIDE / PAGE[0], height / PAGE[1])
        )
        axes.set(xlim=(0, WIDE), ylim=(height, 0))
        axes.axis("off")
        self.y += height
        return axes
