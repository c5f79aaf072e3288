"""Build the slide decks: pictures, numbers, short code and sentences out of the notebooks, none written by hand.

    python -m lessons.slides              build/slides/: index.html and one page for each deck
    python -m lessons.slides FOLDER       the same into another folder

What is on a slide is listed in lessons/slides.toml and taken by lessons/decks.py; how it looks is lessons/slides.html.
The pages are reveal.js, which the package sphinx-revealjs carries. The first build fetches it, 2.4 MB, beside this
Python's packages; from then on nothing asks the network, nor do the decks. Formulas are drawn by Matplotlib.
"""

import base64
import html
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jinja2
import mistune
from matplotlib import rc_context
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from course_lib.pip_errors import explain_pip_failure
from lessons.decks import CODE_WIDTH, LETTER, MIN_PIXELS, Deck, SlideError, read_decks

ROOT = Path(__file__).resolve().parents[1]
PLAN, LOOK = ROOT / "lessons" / "slides.toml", ROOT / "lessons" / "slides.html"
TOOLS = Path(sys.prefix) / "share" / "course-slides"
PIN = "sphinx-revealjs==3.2.1"
REVEAL = "sphinx_revealjs/_static/revealjs"
REVEAL_FILES = ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js", "LICENSE")
HEIGHT, MAX_PIXELS, LINE = 500, 25, 1.4  # what code and output may take of a slide's 720 pixels


# ------------------------------------------------------------------------------------------------ the tools


def have_tools(folder: Path = TOOLS) -> bool:
    pin = folder / "pin.txt"
    return pin.exists() and pin.read_text(encoding="utf-8") == PIN


def fetch_tools(folder: Path = TOOLS) -> None:
    """Put the package into a folder of its own: we want its files, and not the Sphinx that it depends on."""
    if have_tools(folder):
        return
    print(f"fetching reveal.js, in {PIN} (once, 2.4 MB)", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--target", str(folder), PIN]
    pip = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if pip.returncode != 0:
        raise SlideError("{}: {}".format(*explain_pip_failure(pip.stdout)))
    (folder / "pin.txt").write_text(PIN, encoding="utf-8")


# ---------------------------------------------------------------------------------------- from slides to HTML


def formula(tex: str, is_block: bool = False) -> str:
    """A formula as a picture, in letters as large as the text around it. Matplotlib knows no \\le but \\leq."""
    picture, points = io.BytesIO(), 24
    with rc_context({"mathtext.fontset": "stix"}):
        known = re.sub(r"\\le(?![a-z])", r"\\leq", " ".join(tex.replace(r"\!", "").split()))
        drawn = "$" + (known.replace(r"\frac", r"\dfrac") if is_block else known) + "$"
        depth = math_to_image(drawn, picture, FontProperties(size=points), dpi=72, format="svg")
    svg = re.sub(r"<metadata>.*?</metadata>", "", picture.getvalue().decode(), flags=re.DOTALL)  # the date
    height = float(re.search(r'height="([\d.]+)pt"', svg)[1])
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    style = f"height: {height / points:.3f}em; vertical-align: {-depth / points:.3f}em"
    image = f'<img class="formula" alt="{html.escape(tex.strip())}" style="{style}" src="{source}">'
    return f'<p class="formula">{image}</p>' if is_block else image


class Renderer(mistune.HTMLRenderer):
    def link(self, text: str, url: str, title: str | None = None) -> str:
        return text  # what the notebooks point to is not beside the decks

    def inline_math(self, tex: str) -> str:
        return formula(tex)

    def block_math(self, tex: str) -> str:
        return formula(tex, is_block=True)


def make_renderer() -> mistune.Markdown:
    return mistune.create_markdown(renderer=Renderer(), plugins=["table", "math"])


def coloured(lines: list[str]) -> str:
    return highlight("\n".join(lines), PythonLexer(), HtmlFormatter(nowrap=True))


def letter_size(code: list[str], output: list[str]) -> int:
    """The size in pixels at which the longest line and all lines have room."""
    lines = code + output
    by_width = CODE_WIDTH / LETTER / max(map(len, lines), default=1)
    return int(max(MIN_PIXELS, min(MAX_PIXELS, by_width, HEIGHT / LINE / max(len(lines), 1))))


def write(decks: list[Deck], folder: Path) -> None:
    """The pages and what they load, in a folder that can be copied anywhere."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in REVEAL_FILES:
        target = folder / "reveal" / Path(name).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TOOLS / REVEAL / name, target)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"markdown": make_renderer(), "coloured": coloured}
    environment.globals |= {"letter_size": letter_size, "colours": HtmlFormatter().get_style_defs(".code")}
    page = environment.from_string(LOOK.read_text(encoding="utf-8"))
    for name, deck in {"index": None, **{deck.name: deck for deck in decks}}.items():
        text = page.render(deck=deck, decks=decks)
        (folder / f"{name}.html").write_text(text, encoding="utf-8", newline="\n")


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]) if arguments else ROOT / "build" / "slides"
    try:
        decks = read_decks(PLAN, ROOT / "notebooks")
        fetch_tools()
        write(decks, folder)
    except SlideError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for deck in decks:
        print(
            f"{folder / deck.name}.html: {len(deck.slides)} slides for {deck.minutes} minutes, {deck.title}"
        )
    print(f"open {folder / 'index.html'}: arrows turn the slides, S opens the notes, O shows all")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
