"""Build the notebooks: every lesson, executed, becomes one notebook with its outputs stored.

    python -m lessons.build                  build all of them
    python -m lessons.build 01 02            build these
    python -m lessons.build --remeasure      and take new measured times
    python -m lessons.build --check          compare lessons and notebooks, execute nothing

A lesson, lessons/NN_name.md, is a MyST text notebook and the one source that people edit. What it builds,
notebooks/NN_name.ipynb, depends on nothing else: cell ids come from the cells' content, execution counts
from their order, and whatever varies from run to run is left out. So two builds in a row are byte-identical,
and a diff of a notebook shows what changed for its reader.

One thing cannot repeat: a measured time. Cells tagged `nbval-ignore-output` are executed like all others,
but the output that was committed is put back while their source is unchanged, until --remeasure.
"""

import argparse
import hashlib
import os
import re
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from itertools import groupby
from pathlib import Path

import jupytext
import nbformat
from jupytext.myst import MystMetadataParsingError
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
LESSONS = "[0-9][0-9]_*.md"
CELL_SECONDS = 600

# The budgets: a notebook is read in one sitting and reviewed in one diff.
MAX_CELLS, MAX_CODE_LINES, MAX_SETUP_LINES, MAX_WORDS, MAX_KB = 45, 15, 5, 1800, 400
MAX_MEASURED, CODE_CELLS_PER_MEASURED = 3, 10

MEASURED, EXPLORER, COLAB = "nbval-ignore-output", "explorer", "colab"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KEPT_PICTURE_METADATA = ("alt", "width", "height")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"},
}

# What differs between two honest runs, and what stands for it. nbval reads the same file.
SANITIZE_FILE = ROOT / "tests" / "sanitize.cfg"
SANITIZE = re.findall(
    r"^regex: (.*)\nreplace: (.*)$", SANITIZE_FILE.read_text(encoding="utf-8"), re.MULTILINE
)
OVERWRITTEN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)  # what a progress bar printed before its last state
NBVAL_COMMENT = re.compile(r"^\s*#+\s*((?:NBVAL|PYTEST_VALIDATE)_\w+)\s*$", re.MULTILINE)

COLAB_CELL = """\
import sys
if "google.colab" in sys.modules:
    !test -d /content/course_src || git clone -q --depth 1 {address} /content/course_src
    sys.path.insert(0, "/content/course_src")"""
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}.ipynb)"
)


class BuildError(Exception):
    """A lesson cannot become a notebook; the message says which, where and why."""


# ------------------------------------------------------------------------------------ from lesson to cells


def public_address(root: Path) -> str | None:
    """The repository's address from pyproject.toml, or None while it is unset.

    Raises BuildError unless it is on GitHub: Colab opens notebooks from nowhere else.
    """
    pyproject = root / "pyproject.toml"
    settings = tomllib.loads(pyproject.read_text(encoding="utf-8")) if pyproject.exists() else {}
    address = settings.get("project", {}).get("urls", {}).get("Repository", "")
    address = address.removesuffix("/").removesuffix(".git")
    if address and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise BuildError(f"[project.urls] Repository is {address!r}, not https://github.com/OWNER/NAME")
    return address or None


def read_lesson(path: Path, address: str | None = None) -> NotebookNode:
    """The notebook that a lesson stands for, not executed: its cells, with fixed ids.

    With a public address the first cell gets a Colab badge under its title, and a cell before the setup
    fetches the course when it runs on Colab.
    """
    try:
        cells = jupytext.reads(path.read_text(encoding="utf-8"), fmt="md:myst").cells
    except MystMetadataParsingError as error:
        raise BuildError(f"{path.stem}: not a MyST notebook: {error}") from None
    if address:
        cells = with_colab(cells, path.stem, address)
    number, seen = path.stem.split("_")[0], Counter()
    for cell in cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        seen[digest] += 1
        cell.id = f"{number}-{digest}" + (f"-{seen[digest]}" if seen[digest] > 1 else "")
    return new_notebook(cells=cells, metadata=nbformat.from_dict(METADATA))


def with_colab(cells: list[NotebookNode], name: str, address: str) -> list[NotebookNode]:
    """The cells with a badge under the title and, before the first code cell, one that fetches the course."""
    if not cells or not cells[0].source.startswith("# "):
        raise BuildError(f"{name}: the first cell has no title '# ...' for the Colab badge to stand under")
    title, _, rest = cells[0].source.partition("\n")
    badge = BADGE.format(repository=address.removeprefix("https://github.com/"), name=name)
    cells[0].source = "\n\n".join(part for part in (title, badge, rest.strip("\n")) if part)
    setup = next((index for index, cell in enumerate(cells) if cell.cell_type == "code"), len(cells))
    fetch = new_code_cell(COLAB_CELL.format(address=address), metadata={"tags": [COLAB]})
    return [*cells[:setup], fetch, *cells[setup:]]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def where(notebook: NotebookNode, cell: NotebookNode) -> str:
    """'cell 7 `first line`': the cell's place among all cells, from 1, and how it begins."""
    number = next(number for number, other in enumerate(notebook.cells, 1) if other is cell)
    return f"cell {number} `{cell.source.strip().partition(chr(10))[0][:60]}`"


def over_budget(notebook: NotebookNode, kilobytes: float = 0.0) -> list[str]:
    """Everything that is over a budget, each with its number and its limit."""
    code = code_cells(notebook)
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    measured = sum(MEASURED in tags(cell) for cell in code)
    setup = next((cell for cell in code if COLAB not in tags(cell)), None)
    over = []
    if len(notebook.cells) > MAX_CELLS:
        over.append(f"{len(notebook.cells)} cells, at most {MAX_CELLS}")
    if words > MAX_WORDS:
        over.append(f"{words:,} words of text, at most {MAX_WORDS:,}")
    if kilobytes > MAX_KB:
        over.append(f"{kilobytes:.0f} KB stored, at most {MAX_KB}")
    if measured > MAX_MEASURED or (measured > 1 and measured * CODE_CELLS_PER_MEASURED > len(code)):
        limit = f"at most one in {CODE_CELLS_PER_MEASURED} (or one), and {MAX_MEASURED} in all"
        over.append(f"{measured} of {len(code)} code cells are tagged {MEASURED}, {limit}")
    for cell in code:
        lines, limit = len(cell.source.splitlines()), MAX_SETUP_LINES if cell is setup else MAX_CODE_LINES
        if lines > limit:
            kind = "setup" if cell is setup else "code"
            over.append(f"{where(notebook, cell)}: {lines} lines of {kind}, at most {limit}")
        holes = [tag for tag in tags(cell) if tag != MEASURED and re.search("nbval|skip|raise|ignore", tag)]
        for hole in holes + NBVAL_COMMENT.findall(cell.source):
            over.append(f"{where(notebook, cell)}: {hole} changes how it is checked; only {MEASURED} may")
    return over


# -------------------------------------------------------------------------------- from cells to a notebook


def kernel_environment(state_home: str) -> dict[str, str]:
    """The environment a course kernel starts in, here and in the tests: ours, without the user's own state.

    The exercises keep a learner's progress in COURSE_STATE_HOME. MPLBACKEND is left to the kernel, which
    draws inline. Strings hash the same in every run.
    """
    ours = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return {**ours, "COURSE_STATE_HOME": state_home, "PYTHONHASHSEED": "0"}


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run the code cells from the top, in one fresh kernel whose working directory is `folder`.

    Raises BuildError with the cell's source and the end of its traceback at the first cell that fails.
    """
    os.environ["JUPYTER_PREFER_ENV_PATH"] = (
        "1"  # this environment's python3 kernel, not one in the user's home
    )
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_SECONDS,
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors: not that it listens on local TCP
        resources={"metadata": {"path": str(folder)}},
    )
    with tempfile.TemporaryDirectory(prefix="course-state-") as state_home:
        with client.setup_kernel(env=kernel_environment(state_home)):
            for index, cell in enumerate(notebook.cells):
                try:
                    client.execute_cell(cell, index)
                except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                    raise BuildError(f"{where(notebook, cell)} failed\n{failure(cell, error)}") from None


def failure(cell: NotebookNode, error: Exception) -> str:
    """A failed cell's source and the last lines of what went wrong, indented."""
    raised = [output for output in cell.outputs if output.output_type == "error"]
    trace = "\n".join(raised[-1].traceback) if raised else str(error).partition("\n")[0]
    lines = [*cell.source.splitlines(), "", *sanitize(trace).splitlines()[-15:]]
    return "\n".join(f"    {line}" for line in lines)


def sanitize(text: object) -> object:
    """Text with the patterns of tests/sanitize.cfg replaced, as nbval does it; anything else as it is."""
    if isinstance(text, str):
        for pattern, replacement in SANITIZE:
            text = re.sub(pattern, replacement, text)
    return text


def keep_measured(notebook: NotebookNode, committed: Path) -> None:
    """Put back the committed outputs of measured cells. Their ids are equal only while their sources are."""
    try:
        kept = {cell.get("id"): cell for cell in code_cells(nbformat.read(committed, as_version=4))}
    except (OSError, ValueError, nbformat.reader.NotJSONError):
        return  # no notebook yet, or none that can be read
    for cell in code_cells(notebook):
        old = kept.get(cell.id)
        if MEASURED in tags(cell) and old and old.source == cell.source and old.execution_count is not None:
            cell.outputs = old.outputs


def store_outputs(notebook: NotebookNode, folder: Path) -> None:
    """Number the cells that ran from 1 and clean their outputs, in place.

    Raises BuildError if an output names a path of this machine: no other machine could reproduce it.
    """
    machine = {str(path) for path in (folder.resolve().parent, Path.home(), Path(sys.prefix))} - {"/"}
    for count, cell in enumerate((cell for cell in code_cells(notebook) if cell.source.strip()), 1):
        cell.execution_count = count
        cell.outputs = cleaned(cell.outputs, count)
        shown = [
            text
            for output in cell.outputs
            for mime, text in [("text", output.get("text", "")), *output.get("data", {}).items()]
            if not mime.startswith("image/")
        ]
        for path in machine:
            if path in str(shown):
                raise BuildError(f"{where(notebook, cell)}: its output names {path}, a path of this machine")


def cleaned(outputs: Iterable[NotebookNode], count: int) -> list[NotebookNode]:
    """Outputs as they are stored, without what varies."""
    stored = []
    for is_stream, group in groupby(outputs, key=lambda output: output.output_type == "stream"):
        shown = list(group)
        stored += joined(shown) if is_stream else [cleaned_display(output, count) for output in shown]
    return stored


def joined(chunks: Iterable[NotebookNode]) -> list[NotebookNode]:
    """Chunks of streams as one of each: stdout, then stderr. When a kernel flushes them is chance."""
    text = {"stdout": "", "stderr": ""}
    for chunk in chunks:
        text[chunk.name] += chunk.text
    shown = {name: sanitize(OVERWRITTEN.sub("", printed)) for name, printed in text.items() if printed}
    return [new_output("stream", name=name, text=printed) for name, printed in shown.items()]


def cleaned_display(output: NotebookNode, count: int) -> NotebookNode:
    """A display without its live widget: its picture stays, and the metadata that describe the picture."""
    data = {
        mime: value.strip() if mime == "image/png" else sanitize(value)
        for mime, value in output.data.items()
        if mime != WIDGET_VIEW
    }
    about = output.metadata.get("image/png", {})
    kept = {key: about[key] for key in KEPT_PICTURE_METADATA if key in about}
    counted = {"execution_count": count} if output.output_type == "execute_result" else {}
    return new_output(output.output_type, data, metadata={"image/png": kept} if kept else {}, **counted)


def to_text(notebook: NotebookNode) -> str:
    """A notebook as the build writes it: keys sorted, one newline at the end."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def build(lesson: Path, notebooks_dir: Path, *, remeasure: bool = False) -> bool:
    """Build one lesson's notebook; returns whether the file changed.

    Raises BuildError if a cell fails or a budget is broken. The committed notebook then stays as it was.
    """
    target = notebooks_dir / f"{lesson.stem}.ipynb"
    try:
        notebook = read_lesson(lesson, public_address(lesson.parent.parent))
        execute(notebook, notebooks_dir)
        if not remeasure:
            keep_measured(notebook, target)
        store_outputs(notebook, notebooks_dir)
        nbformat.validate(notebook)
        text = to_text(notebook)
        if over := over_budget(notebook, len(text.encode()) / 1024):
            raise BuildError("; ".join(over))
    except BuildError as error:
        raise BuildError(f"{lesson.stem}: {error}") from None
    if target.exists() and target.read_text(encoding="utf-8") == text:
        return False
    unfinished = target.with_suffix(".ipynb.partial")
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    unfinished.replace(target)
    return True


# ------------------------------------------------------------------------- lessons against their notebooks


def problems(lessons_dir: Path, notebooks_dir: Path, lessons: Iterable[Path] | None = None) -> list[str]:
    """Where notebooks are not what their lessons would build, one line each. Executes nothing."""
    address = public_address(lessons_dir.parent)
    found = []
    for lesson in sorted(lessons_dir.glob(LESSONS)) if lessons is None else lessons:
        target = notebooks_dir / f"{lesson.stem}.ipynb"
        expected = read_lesson(lesson, address)
        kilobytes = target.stat().st_size / 1024 if target.exists() else 0.0
        found += [f"{lesson.stem}: {over}" for over in over_budget(expected, kilobytes)]
        found += [f"{lesson.stem}: {problem} (make notebooks)" for problem in differences(expected, target)]
    if lessons is None:
        strays = {path.stem for path in notebooks_dir.glob("*.ipynb")} - {
            path.stem for path in lessons_dir.glob(LESSONS)
        }
        found += [
            f"{stray}: {notebooks_dir.name}/{stray}.ipynb has no lesson (delete it)"
            for stray in sorted(strays)
        ]
    return found


def differences(expected: NotebookNode, target: Path) -> Iterator[str]:
    """How the notebook in `target` differs from the one its lesson stands for."""
    if not target.exists():
        yield f"{target.parent.name}/{target.name} is missing"
        return
    try:
        text = target.read_text(encoding="utf-8")
        actual = nbformat.reads(text, as_version=4)
    except (ValueError, nbformat.reader.NotJSONError) as error:
        yield f"{target.name} cannot be read: {str(error).partition(chr(10))[0][:80]}"
        return
    told = [*differing_cells(expected, actual), *stored_wrongly(actual)]
    if not told and (actual.metadata != METADATA or to_text(actual) != text):
        told = ["the file is not as the build writes it: saved by an editor?"]
    yield from told


def differing_cells(expected: NotebookNode, actual: NotebookNode) -> Iterator[str]:
    """Cells of a notebook against its lesson's, matched by id, so that one more cell is one line."""
    old, new = ([cell.get("id") for cell in notebook.cells] for notebook in (actual, expected))
    for operation, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if operation == "equal":
            for cell, wanted in zip(actual.cells[a:b], expected.cells[c:d], strict=True):
                parts = [part for part in ("cell_type", "source", "metadata") if cell[part] != wanted[part]]
                if parts:
                    yield f"{where(actual, cell)}: not the lesson's {' and '.join(parts)}"
        else:
            yield from (
                f"{where(actual, cell)}: in the notebook, not in the lesson" for cell in actual.cells[a:b]
            )
            yield from (
                f"{where(expected, cell)}: in the lesson, not in the notebook" for cell in expected.cells[c:d]
            )


def stored_wrongly(notebook: NotebookNode) -> Iterator[str]:
    """What no build stores: cells that never ran or ran out of order, errors, live widgets."""
    if "widgets" in notebook.metadata:
        yield "widget state is stored in the notebook's metadata"
    for count, cell in enumerate((cell for cell in code_cells(notebook) if cell.source.strip()), 1):
        data = [output.get("data", {}) for output in cell.outputs]
        errors = [output.ename for output in cell.outputs if output.output_type == "error"]
        for wrong, what in [
            (cell.execution_count is None, "never run"),
            (
                cell.execution_count not in (None, count),
                f"stored as In [{cell.execution_count}], not In [{count}]",
            ),
            (errors, f"an error is stored: {', '.join(errors)}"),
            (any(WIDGET_VIEW in mimes for mimes in data), "a live widget is stored"),
            (
                EXPLORER in tags(cell) and not any({"image/png", "text/html"} & set(mimes) for mimes in data),
                "an explorer, and no picture or text stored for those who do not run it",
            ),
        ]:
            if wrong:
                yield f"{where(notebook, cell)}: {what}"


# -------------------------------------------------------------------------------------------- command line


def chosen(lessons_dir: Path, names: list[str]) -> list[Path]:
    """The lessons that names ask for, each a full name or its beginning ('01'); all of them without names."""
    lessons = sorted(lessons_dir.glob(LESSONS))
    unknown = [name for name in names if not any(path.stem.startswith(name) for path in lessons)]
    if unknown:
        raise BuildError(
            f"no lesson {', '.join(unknown)}; there are {', '.join(path.stem for path in lessons) or 'none'}"
        )
    return [path for path in lessons if not names or any(path.stem.startswith(name) for name in names)]


def run(arguments: argparse.Namespace, root: Path) -> int:
    """Build or check as asked; returns the exit status. Raises BuildError at the first lesson that fails."""
    lessons_dir, notebooks_dir = root / "lessons", root / "notebooks"
    lessons = chosen(lessons_dir, arguments.names)
    if arguments.check:
        found = problems(lessons_dir, notebooks_dir, lessons if arguments.names else None)
        print("\n".join(found) or f"{len(lessons)} lessons and their notebooks agree")
        return bool(found)

    notebooks_dir.mkdir(exist_ok=True)
    address = public_address(root)
    over = [
        f"{path.stem}: {problem}" for path in lessons for problem in over_budget(read_lesson(path, address))
    ]
    if over:
        raise BuildError("\n".join(over))
    for path in lessons:
        start = time.perf_counter()
        changed = build(path, notebooks_dir, remeasure=arguments.remeasure)
        print(
            f"{path.stem}: {'written' if changed else 'unchanged'} ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
    return 0


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lessons.build", description="Build notebooks/ from lessons/."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="lessons, such as 01 or 01_kv_cache; default: all"
    )
    parser.add_argument(
        "--remeasure", action="store_true", help=f"take new outputs for cells tagged {MEASURED}"
    )
    parser.add_argument(
        "--check", action="store_true", help="hold notebooks against lessons, without executing"
    )
    try:
        return run(parser.parse_args(argv), root)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
