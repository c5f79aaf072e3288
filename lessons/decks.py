"""Take slides out of notebooks: from the list in lessons/slides.toml to what each slide shows and what its notes say.

A slide names a notebook, a cell (its id, or a piece of text that no other cell of it has) and what to show of it. A
cell, a sentence or a line that is gone is an error that names the slide. Nothing is written by hand but titles and own
notes; what a cell says and its slide does not goes into the notes by itself. lessons/slides.py makes pages of it.
"""

import re
import textwrap
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from nbformat import NotebookNode

MAX_CODE_LINES, MAX_OUTPUT_LINES, MAX_LINES, MAX_WORDS = 8, 16, 18, 80
MIN_PIXELS, CODE_WIDTH, LETTER = (
    17,
    1120,
    0.605,
)  # of code and output: a letter's width is 0.605 of its height
KEYS = {"notebook", "cell", "show", "title", "say", "code", "output", "answer", "notes"}
SHOWN = {"markdown": ("text", "predict"), "code": ("code", "output")}

PREDICTION = re.compile(r"\*\*(Commit (?:before you look|again)\.)\*\*\s*")
ANSWER = re.compile(r"^(measured .*?) +\(you made no guess.*\n?", re.MULTILINE)
SENTENCE_END = re.compile(r"([.?!][\"”)*]*)\s+(?=[\"“*`A-Z])")
ASK = "Let everybody commit to a number, aloud or on paper, before you go on."


class SlideError(Exception):
    """A slide cannot be made; the message says which one and why."""


@dataclass(frozen=True)
class Unit:
    """The least that can be taken from a cell of text: a sentence, a table's row, a list's item, a formula."""

    text: str
    block: int  # which paragraph, table or list of the cell
    kind: str
    heading: str  # the one above it


@dataclass
class Slide:
    title: str
    source: str  # "02 · Where does the memory go?"
    kind: str = "plain"
    call: str = ""  # "Commit before you look."
    text: str = ""  # Markdown
    answer: str = ""
    code: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    html: str = ""
    picture: tuple[str, str] = ("", "")  # base64 of a PNG, what it shows
    notes: list[str] = field(default_factory=list)  # Markdown

    @property
    def size(self) -> str:
        """Few words stand large."""
        words = len(self.text.split())
        return "few" if words <= 35 else "many" if words > 60 else ""


@dataclass
class Deck:
    name: str
    title: str
    minutes: int
    slides: list[Slide]


# ------------------------------------------------------------------------------------------ text into units


def blocks(source: str) -> list[str]:
    return re.split(r"\n\s*\n", source.strip())


def units(source: str, heading: str = "") -> Iterator[Unit]:
    """What a cell of text is made of, headings left out."""
    for number, block in enumerate(blocks(source)):
        if block.startswith("#"):
            heading = block.lstrip("# ").partition("\n")[0]
        elif block.startswith(("$$", "```")):
            yield Unit(block, number, "whole", heading)
        elif block.startswith("|"):
            yield from (Unit(row, number, "row", heading) for row in block.splitlines())
        elif re.match(r"- |\d+\. ", block):
            yield from (Unit(item, number, "item", heading) for item in re.split(r"\n(?=- |\d+\. )", block))
        else:
            joined = SENTENCE_END.sub("\\1\n", " ".join(block.split()))
            yield from (Unit(sentence, number, "sentence", heading) for sentence in joined.split("\n"))


def pick(every: list[Unit], pieces: list[str]) -> list[Unit]:
    """The units that hold the pieces, in their order; with a piece that ends in …, also what follows in its block."""
    chosen = set()
    for piece in pieces:
        found = [index for index, unit in enumerate(every) if piece.removesuffix("…") in unit.text]
        if len(found) != 1:
            raise SlideError(f"{len(found)} sentences, rows or items hold {piece!r}, expected 1")
        block = [
            index for index in range(found[0], len(every)) if every[index].block == every[found[0]].block
        ]
        chosen |= set(block if piece.endswith("…") else block[:1])
    tables = {every[index].block for index in chosen if every[index].kind == "row"}
    for block in tables:  # the names of the columns, and the line below them
        first = next(index for index, unit in enumerate(every) if unit.block == block)
        chosen |= {first, first + 1}
    return [every[index] for index in sorted(chosen)]


def markdown(chosen: Iterable[Unit]) -> str:
    """Units as Markdown again."""
    text, before = "", None
    for unit in chosen:
        same = before is not None and before.block == unit.block
        text += (
            "" if before is None else " " if same and unit.kind == "sentence" else "\n" if same else "\n\n"
        )
        text, before = text + unit.text, unit
    return text


def for_the_notes(source: str, heading: str, skip: str = "") -> str:
    """The text below one heading of a cell, without exercises, predictions and what the slide shows."""
    kept = [unit for unit in units(source) if unit.heading == heading and unit.text not in skip]
    paragraphs = [markdown(unit for unit in kept if unit.block == block)
                  for block in dict.fromkeys(unit.block for unit in kept)]  # fmt: skip
    return "\n\n".join(each for each in paragraphs if not re.match(r"\*\*Exercise|\*\*Commit|```", each))


# ------------------------------------------------------------------------------------ from cells to slides


def find(notebook: NotebookNode, wanted: str) -> int:
    """The index of the one cell that has this id or holds this text."""
    cells = notebook.cells
    found = [index for index, cell in enumerate(cells) if cell.id == wanted or wanted in cell.source]
    if len(found) != 1:
        raise SlideError(f"{len(found)} cells hold that text, expected 1")
    return found[0]


def heading_above(notebook: NotebookNode, index: int) -> str:
    """The last heading before a cell, sections before the title."""
    text = "\n\n".join(cell.source for cell in notebook.cells[:index] if cell.cell_type == "markdown")
    return ["", *re.findall(r"^#+ (.+)$", text, re.MULTILINE)][-1]


def cut(text: str, ends: list[str] | None) -> list[str]:
    """The lines from the first that holds ends[0] to the first after it that holds ends[-1]; all, without ends."""
    lines = text.strip("\n").splitlines()
    if ends:
        start = next((i for i, line in enumerate(lines) if ends[0] in line), None)
        stop = next((i for i, line in enumerate(lines) if ends[-1] in line and i >= (start or 0)), None)
        if start is None or stop is None:
            raise SlideError(f"no lines from {ends[0]!r} to {ends[-1]!r}")
        lines = lines[start : stop + 1]
    return [line.rstrip() for line in textwrap.dedent("\n".join(lines)).splitlines()]


def rows_of(page: str, pieces: list[str]) -> str:
    """A table from an output in HTML: the rows that hold the pieces, and its head."""
    soup = BeautifulSoup(page, "html.parser")
    rows = soup.select("tbody tr")
    taken = [row for row in rows if any(piece in row.get_text() for piece in pieces)]
    if not pieces or len(taken) != len(pieces):
        raise SlideError(f"{len(taken)} rows hold one of {pieces}, expected one for each")
    for node in soup.find_all(style=True):
        del node["style"]
    for row in rows:
        if row not in taken:
            row.decompose()
    return str(soup)


def printed_by(cell: NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def take_output(slide: Slide, cell: NotebookNode, spec: dict) -> None:
    """One picture, or a table's rows, or what was printed; and what was measured, if a guess was asked for."""
    printed = printed_by(cell)
    shown = {kind: (output.data[kind], output.data.get("text/plain", "")) for output in cell.outputs
             for kind in output.get("data", {})}  # fmt: skip
    if answer := ANSWER.search(printed):
        slide.answer, printed = answer[1], ANSWER.sub("", printed)
    if "image/png" in shown:
        slide.picture = ("".join(shown["image/png"][0].split()), shown["image/png"][1])
        slide.notes.append(slide.picture[1])
    elif "text/html" in shown:
        slide.html = rows_of(shown["text/html"][0], spec.get("say", []))
    elif printed.strip():
        slide.output = cut(printed, spec.get("output"))
    elif not slide.answer:
        raise SlideError("the cell has no stored output")


def make_slide(spec: dict, notebook: NotebookNode) -> Slide:
    """The slide that a table of slides.toml describes."""
    if unknown := set(spec) - KEYS:
        raise SlideError(f"unknown keys {sorted(unknown)}, known are {sorted(KEYS)}")
    index = find(notebook, spec["cell"])
    cell, show = notebook.cells[index], spec["show"].split()
    if wrong := set(show) - set(SHOWN[cell.cell_type]):
        raise SlideError(f"a {cell.cell_type} cell has no {', '.join(sorted(wrong))} to show")
    slide = Slide(heading_above(notebook, index), title_of(notebook), notes=[spec.get("notes", "")])
    if cell.cell_type == "markdown":
        every = list(units(cell.source))
        if "predict" in show:
            block = next((text for text in blocks(cell.source) if PREDICTION.match(text)), None)
            if block is None:
                raise SlideError("the cell asks for no prediction")
            taken = [unit for unit in every if PREDICTION.search(unit.text)]
            slide.kind, slide.call = "predict", PREDICTION.match(block)[1].rstrip(".")
            slide.text = PREDICTION.sub("", " ".join(block.split()))
            slide.notes.append(ASK)
            if "code" in spec:  # what the question is about stands in the cell that answers it
                slide.code = cut(notebook.cells[index + 1].source, spec["code"])
        else:
            bold = [unit for unit in every if "**" in unit.text and not PREDICTION.search(unit.text)]
            taken = pick(every, spec["say"]) if "say" in spec else (bold or every)[:1]
            slide.text = markdown(taken)
        heading = taken[0].heading
        if (
            heading or "text" in show
        ):  # without its own heading a prediction follows the answer to another one
            slide.notes.append(for_the_notes(cell.source, heading, slide.text))
        slide.title = heading or slide.title
    else:
        if "code" in show:
            slide.code = cut(cell.source, spec.get("code"))
        if "output" in show:
            take_output(slide, cell, spec)
        if "answer" in spec:
            found = ANSWER.search(printed_by(notebook.cells[find(notebook, spec["answer"])]))
            if not found:
                raise SlideError(f"the cell {spec['answer']!r} measured nothing")
            slide.answer = found[1]
        slide.notes.append(text_around(notebook, index))
    slide.title = spec.get("title", slide.title)
    slide.notes = [note for note in slide.notes if note.strip()] + [
        f"Notebook {slide.source[:2]}, cell {index + 1}."
    ]
    return slide


def text_around(notebook: NotebookNode, index: int) -> str:
    """What is said of a code cell: behind it, or also before it if that is little."""
    near = notebook.cells[index + 1 : index + 3]
    after = next((for_the_notes(cell.source, "") for cell in near if cell.cell_type == "markdown"), "")
    before = notebook.cells[index - 1]
    if before.cell_type == "markdown" and len(after.split()) < 25:
        last = list(units(before.source))[-1].heading
        after = "\n\n".join(filter(None, [for_the_notes(before.source, last), after]))
    return after


def title_of(notebook: NotebookNode) -> str:
    return notebook.cells[0].source.partition("\n")[0].lstrip("# ")


def over_limits(slide: Slide) -> list[str]:
    """Everything that is too much for one slide, with its number and its limit."""
    words = len(re.sub(r"\$\$.*?\$\$|\||-{2,}", " ", slide.text, flags=re.DOTALL).split())
    words += len(BeautifulSoup(slide.html, "html.parser").get_text(" ").split())
    lines = slide.code + slide.output
    counts = [(words, MAX_WORDS, "words"), (len(slide.code), MAX_CODE_LINES, "lines of code")]
    counts += [
        (len(slide.output), MAX_OUTPUT_LINES, "lines of output"),
        (len(lines), MAX_LINES, "lines in all"),
    ]
    counts += [(max(map(len, lines), default=0), int(CODE_WIDTH / LETTER / MIN_PIXELS), "letters in a line")]
    counts += [(sum(map(bool, (slide.picture[0], slide.output, slide.html))), 1, "pictures and outputs")]
    return [f"{number} {what}, at most {limit}" for number, limit, what in counts if number > limit]


def read_decks(plan: Path, notebooks_dir: Path) -> list[Deck]:
    """All decks. Raises SlideError with every slide that cannot be made."""
    notebooks = {path.name[:2]: nbformat.read(path, 4) for path in sorted(notebooks_dir.glob("*.ipynb"))}
    decks, wrong = [], []
    for about in tomllib.loads(plan.read_text(encoding="utf-8"))["deck"]:
        used = dict.fromkeys(spec["notebook"] for spec in about["slide"])
        lines = [f"- {title_of(notebooks[number])}" for number in used if number in notebooks]
        first = Slide(
            about["title"],
            f"{about['minutes']} minutes",
            "title",
            text="\n".join(lines),
            notes=[about["notes"]],
        )
        deck = Deck(about["name"], about["title"], about["minutes"], [first])
        for number, spec in enumerate(about["slide"], start=2):
            try:
                if spec["notebook"] not in notebooks:
                    raise SlideError("there is no such notebook")
                slide = make_slide(spec, notebooks[spec["notebook"]])
                deck.slides.append(slide)
                if over := over_limits(slide):
                    raise SlideError("; ".join(over))
            except SlideError as error:
                place = (
                    f"deck {deck.name}, slide {number} (notebook {spec['notebook']}, cell {spec['cell']!r})"
                )
                wrong.append(f"{place}: {error}")
        decks.append(deck)
    if wrong:
        raise SlideError("\n".join(wrong))
    return decks
