"""lessons/build.py: what it builds, what it refuses, and what --check finds."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from lessons import build

ROOT = Path(__file__).resolve().parents[1]

LESSON = """\
# A lesson

One sentence.

```{code-cell}
import os, sys, time, warnings
from IPython.display import display
```

## Text from two streams, a result, a warning

```{code-cell}
print("one"); print("err", file=sys.stderr); print("\\x1b[31mtwo\\x1b[0m", flush=True)
display("between"); print("  0%\\r100%")
os.environ["PYTHONHASHSEED"], os.listdir(os.environ["COURSE_STATE_HOME"]), object()
```

```{code-cell}
warnings.warn("careful"); print(os.environ["COURSE_STATE_HOME"])
```

## An explorer

```{code-cell}
:tags: [explorer]
import ipywidgets
view = {"model_id": ipywidgets.IntSlider().model_id, "version_major": 2, "version_minor": 0}
display({"application/vnd.jupyter.widget-view+json": view, "image/png": "aGVsbG8=\\n",
         "text/plain": "explorer"},
        metadata={"image/png": {"alt": "a word", "needs_background": "light"}}, raw=True)
```

## A measured time

```{code-cell}
:tags: [nbval-ignore-output]
print(time.perf_counter_ns())
```

```{code-cell}
1 + 1
```

```{code-cell}
1 + 1
```
"""


class Project:
    """A folder with lessons/ and notebooks/, and the command line run in it."""

    def __init__(self, root: Path, lesson: str = LESSON):
        self.root, self.lesson = root, root / "lessons" / "01_a.md"
        self.notebook = root / "notebooks" / "01_a.ipynb"
        self.lesson.parent.mkdir()
        self.notebook.parent.mkdir()
        self.lesson.write_text(lesson)

    def run(self, *arguments: str) -> int:
        return build.main(list(arguments), self.root)

    def replace(self, old: str, new: str):
        assert old in self.lesson.read_text()
        self.lesson.write_text(self.lesson.read_text().replace(old, new, 1))

    def read(self) -> nbformat.NotebookNode:
        return nbformat.read(self.notebook, as_version=4)

    def edit(self, change):
        """Let `change` edit the notebook as an editor would, and save it as the build writes it."""
        notebook = self.read()
        change(notebook)
        self.notebook.write_text(build.to_text(notebook))

    def problems(self) -> list[str]:
        return build.problems(self.root / "lessons", self.root / "notebooks")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """LESSON built once; the bytes of the notebook."""
    project = Project(tmp_path_factory.mktemp("built"))
    assert project.run() == 0
    return project.notebook.read_bytes()


@pytest.fixture
def project(tmp_path, built):
    """A project whose lesson is built."""
    project = Project(tmp_path)
    project.notebook.write_bytes(built)
    return project


def outputs(notebook, number):
    """The outputs of code cell `number`, from 1, as plain data."""
    return json.loads(json.dumps(build.code_cells(notebook)[number - 1].outputs))


# ---------------------------------------------------------------------------------------------- what is built


def test_outputs_are_stored_without_what_varies(project):
    notebook = project.read()
    assert notebook.metadata == build.METADATA
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert [cell.execution_count for cell in build.code_cells(notebook)] == [1, 2, 3, 4, 5, 6, 7]
    first, err, between, last, result = outputs(notebook, 2)
    assert (first["text"], err["text"], last["text"]) == ("one\ntwo\n", "err\n", "100%\n")
    assert between["data"] == {"text/plain": "'between'"}
    assert result["data"] == {"text/plain": "('0', [], <object at 0x...>)"}
    printed, warned = outputs(notebook, 3)
    assert printed["text"] == "<state>\n"
    assert warned["text"].startswith("<cell>:1: UserWarning: careful")
    (explorer,) = outputs(notebook, 4)
    assert explorer["data"] == {"image/png": "aGVsbG8=", "text/plain": "explorer"}
    assert explorer["metadata"] == {"image/png": {"alt": "a word"}}
    assert build.code_cells(notebook)[3].metadata == {"tags": ["explorer"]}


def test_second_build_is_identical_and_measured_times_are_kept(project, built, capsys):
    """Then --remeasure, which changes that one output and nothing else."""
    assert project.run() == 0
    assert project.notebook.read_bytes() == built
    assert "01_a: unchanged" in capsys.readouterr().out

    assert project.run("--remeasure", "01") == 0
    before, after = nbformat.reads(built.decode(), as_version=4), project.read()
    assert [n for n in range(1, 8) if outputs(before, n) != outputs(after, n)] == [5]
    assert project.problems() == []


def test_a_measured_time_is_taken_anew_when_its_source_changed(project):
    old, source = project.read(), "print(time.perf_counter_ns())"
    new = build.read_lesson(project.lesson)
    build.code_cells(new)[4].outputs = build.code_cells(new)[5].outputs = ["new"]
    build.keep_measured(new, project.notebook)
    assert build.code_cells(new)[4].outputs == outputs(old, 5)
    assert build.code_cells(new)[5].outputs == ["new"]  # not tagged

    project.replace(source, source + "  # changed")
    new = build.read_lesson(project.lesson)
    build.code_cells(new)[4].outputs = ["new"]
    build.keep_measured(new, project.notebook)
    assert build.code_cells(new)[4].outputs == ["new"]


def test_ids_are_stable_when_a_cell_is_inserted(project):
    before = [cell.id for cell in build.read_lesson(project.lesson).cells]
    assert len(set(before)) == len(before)
    assert re.fullmatch(r"01-[0-9a-f]{8}", before[0])
    assert before[-1] == before[-2] + "-2"  # the same source twice
    project.replace("## An explorer", "## One more\n\n```{code-cell}\nx = 1\n```\n\n## An explorer")
    after = [cell.id for cell in build.read_lesson(project.lesson).cells]
    assert len(after) == len(before) + 2
    assert [id for id in after if id in before] == before


def test_a_failing_cell_stops_the_build_and_keeps_the_notebook(project, built, capsys):
    project.replace("1 + 1", "x = 0\n1 / x")
    assert project.run() == 1
    told = capsys.readouterr().err
    assert told.startswith("01_a: cell 10 `x = 0` failed\n    x = 0\n    1 / x\n")
    assert "ZeroDivisionError: division by zero" in told and "\x1b" not in told
    assert project.notebook.read_bytes() == built
    assert [path.name for path in project.notebook.parent.iterdir()] == ["01_a.ipynb"]


def test_an_output_that_names_a_path_of_this_machine_is_refused(tmp_path, capsys):
    project = Project(tmp_path, "# A\n\n```{code-cell}\nimport os; os.getcwd()\n```\n")
    assert project.run() == 1
    assert f"01_a: cell 2 `import os; os.getcwd()`: its output names {tmp_path}" in capsys.readouterr().err
    assert not project.notebook.exists()


def test_a_lesson_that_cannot_be_parsed(tmp_path, capsys):
    project = Project(tmp_path, "# A\n\n```{code-cell}\n:tags: [a\nx = 1\n```\n")
    assert project.run("--check") == 1
    assert capsys.readouterr().err.startswith("01_a: not a MyST notebook: ")


def test_unknown_lesson(project, capsys):
    assert project.run("07") == 1
    assert capsys.readouterr().err == "no lesson 07; there are 01_a\n"


# --------------------------------------------------------------------------------------------- public address


def test_badge_and_colab_cell_when_an_address_is_set(project):
    """Unset, they are not there; set, they are, they are counted, and the rest keeps its ids."""
    without = build.read_lesson(project.lesson, build.public_address(project.root))
    pyproject = project.root / "pyproject.toml"
    pyproject.write_text(
        '[project]\nname = "x"\n[project.urls]\nRepository = "https://github.com/them/course.git"\n'
    )
    address = build.public_address(project.root)
    assert address == "https://github.com/them/course"
    notebook = build.read_lesson(project.lesson, address)
    title, badge, rest = notebook.cells[0].source.split("\n\n")
    assert (title, rest) == ("# A lesson", "One sentence.")
    assert badge.startswith("[![Open in Colab](")
    assert badge.endswith(
        "(https://colab.research.google.com/github/them/course/blob/main/notebooks/01_a.ipynb)"
    )
    colab = notebook.cells[1]
    assert "git clone -q --depth 1 https://github.com/them/course /content" in colab.source
    assert notebook.cells[2:] == without.cells[1:]
    assert "colab" not in "".join(cell.source for cell in without.cells)
    assert build.over_budget(notebook) == []
    assert "in the lesson, not in the notebook" in project.problems()[-1]

    # Executed anywhere but on Colab, the cell does nothing.
    project.lesson.write_text(
        "# A\n\n```{code-cell}\nimport sys; any('course_src' in path for path in sys.path)\n```\n"
    )
    assert project.run() == 0
    assert outputs(project.read(), 1) == [] and outputs(project.read(), 2)[0]["data"]["text/plain"] == "False"
    assert project.problems() == []


def test_an_address_that_colab_cannot_open(project, capsys):
    (project.root / "pyproject.toml").write_text('[project.urls]\nRepository = "https://example.org/x"\n')
    assert project.run("--check") == 1
    assert "'https://example.org/x', not https://github.com/OWNER/NAME" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- budgets


def code(source: str, *tags: str) -> str:
    return f"```{{code-cell}}\n:tags: [{', '.join(tags)}]\n\n{source}\n```\n\n"


SETUP = "# A\n\n" + code("import os")
WITHIN = [
    ("", SETUP + "+++\n\ntext\n\n" * 43),
    ("", SETUP + "word " * 1798),
    ("", SETUP.replace("import os", "\n".join(["x = 1"] * 5)) + code("\n".join(["x = 1"] * 15))),
    ("", SETUP + code("print(1)", "nbval-ignore-output")),
    ("", SETUP + code("x = 1") * 26 + code("print(1)", "nbval-ignore-output") * 3),
]
OVER = [
    ("46 cells, at most 45", SETUP + "+++\n\ntext\n\n" * 44),
    ("1,801 words of text, at most 1,800", SETUP + "word " * 1799),
    ("cell 2 `x = 1`: 6 lines of setup, at most 5", SETUP.replace("import os", "\n".join(["x = 1"] * 6))),
    ("cell 3 `x = 1`: 16 lines of code, at most 15", SETUP + code("\n".join(["x = 1"] * 16))),
    (
        "2 of 12 code cells are tagged",
        SETUP + code("x = 1") * 9 + code("print(1)", "nbval-ignore-output") * 2,
    ),
    (
        "4 of 40 code cells are tagged",
        SETUP + code("x = 1") * 35 + code("print(1)", "nbval-ignore-output") * 4,
    ),
    *[
        (f"cell 3 `x = 1`: {tag} changes how it is checked", SETUP + code("x = 1", tag))
        for tag in (
            "nbval-skip",
            "raises-exception",
            "skip-execution",
            "nbval-raises-exception",
            "nbval-check-output",
        )
    ],
    ("cell 3 `# NBVAL_SKIP`: NBVAL_SKIP changes", SETUP + code("# NBVAL_SKIP\nx = 1")),
    ("NBVAL_IGNORE_OUTPUT changes", SETUP + code("x = 1\n  ## NBVAL_IGNORE_OUTPUT")),
]


@pytest.mark.parametrize("message, lesson", WITHIN + OVER, ids=[m or "within" for m, _ in WITHIN + OVER])
def test_budgets(tmp_path, message, lesson):
    project = Project(tmp_path, lesson)
    over = build.over_budget(build.read_lesson(project.lesson))
    assert len(over) == bool(message) and message in "".join(over), over


def test_all_that_is_over_is_listed_and_nothing_is_built(tmp_path, capsys):
    project = Project(tmp_path, OVER[0][1] + OVER[3][1])
    (project.root / "lessons" / "02_b.md").write_text(OVER[1][1])
    assert project.run() == 1
    told = capsys.readouterr().err.splitlines()
    assert [line[:10] for line in told] == ["01_a: 48 c", "01_a: cell", "02_b: 1,80"]
    assert not project.notebook.exists()
    assert project.run("--check") == 1
    assert set(told) < set(capsys.readouterr().out.splitlines())


def test_a_notebook_that_stores_too_much(project, monkeypatch):
    monkeypatch.setattr(build, "MAX_KB", 3)
    assert re.fullmatch(r"01_a: \d KB stored, at most 3", project.problems()[0])


# ---------------------------------------------------------------------------------------------------- --check


def test_a_built_notebook_has_no_problems(project, capsys):
    assert project.problems() == []
    assert project.run("--check") == 0
    assert capsys.readouterr().out == "1 lessons and their notebooks agree\n"


def test_a_stale_lesson_is_found(project, capsys):
    project.replace("1 + 1", "1 + 2")
    project.replace("## An explorer", "## Renamed")
    assert project.run("--check", "01_a") == 1
    assert capsys.readouterr().out.splitlines() == [
        "01_a: cell 6 `## An explorer`: in the notebook, not in the lesson (make notebooks)",
        "01_a: cell 6 `## Renamed`: in the lesson, not in the notebook (make notebooks)",
        "01_a: cell 10 `1 + 2`: in the lesson, not in the notebook (make notebooks)",
        "01_a: cell 11 `1 + 1`: in the notebook, not in the lesson (make notebooks)",
    ]


def change_source(notebook):
    notebook.cells[4].source += "\n# edited"


def change_tags(notebook):
    del notebook.cells[6].metadata["tags"]


def change_type(notebook):
    notebook.cells[5].cell_type = "raw"


def never_run(notebook):
    notebook.cells[3].update(execution_count=None, outputs=[])


def out_of_order(notebook):
    notebook.cells[3].update(execution_count=9)


def store_error(notebook):
    notebook.cells[1].outputs = [nbformat.v4.new_output("error", ename="KeyError", evalue="", traceback=[])]


def store_view(notebook):
    notebook.cells[6].outputs[0].data[build.WIDGET_VIEW] = {"model_id": "1"}


def store_state(notebook):
    notebook.metadata["widgets"] = {"state": {}}


def drop_picture(notebook):
    del notebook.cells[6].outputs[0].data["image/png"]


def other_kernel(notebook):
    notebook.metadata["kernelspec"]["name"] = "conda"


def drop_cell(notebook):
    del notebook.cells[5]


@pytest.mark.parametrize(
    "change, message",
    [
        (change_source, "cell 5 `warnings.warn("),
        (change_source, "`: not the lesson's source"),
        (change_tags, "cell 7 `import ipywidgets`: not the lesson's metadata"),
        (change_type, "cell 6 `## An explorer`: not the lesson's cell_type"),
        (never_run, "cell 4 `print("),
        (never_run, "`: never run"),
        (out_of_order, "stored as In [9], not In [2]"),
        (store_error, "cell 2 `import os, sys, time, warnings`: an error is stored: KeyError"),
        (store_view, "cell 7 `import ipywidgets`: a live widget is stored"),
        (store_state, "widget state is stored"),
        (drop_picture, "cell 7 `import ipywidgets`: an explorer, and no picture or text stored"),
        (other_kernel, "the file is not as the build writes it"),
        (drop_cell, "cell 6 `## An explorer`: in the lesson, not in the notebook"),
    ],
)
def test_an_edited_notebook_is_found(project, change, message):
    project.edit(change)
    (found,) = project.problems()
    assert found.startswith("01_a: ") and message in found and found.endswith("(make notebooks)"), found


def test_a_file_saved_by_an_editor_is_found(project):
    project.notebook.write_text(json.dumps(json.loads(project.notebook.read_text()), indent=2))
    assert project.problems() == [
        "01_a: the file is not as the build writes it: saved by an editor? (make notebooks)"
    ]


def test_missing_superfluous_and_unreadable_notebooks_are_found(project):
    project.notebook.rename(project.notebook.with_name("09_old.ipynb"))
    assert project.problems() == [
        "01_a: notebooks/01_a.ipynb is missing (make notebooks)",
        "09_old: notebooks/09_old.ipynb has no lesson (delete it)",
    ]
    project.notebook.write_text("<<<<<<< HEAD")
    assert project.problems()[0].startswith("01_a: 01_a.ipynb cannot be read")


def test_this_course_is_built():
    """The notebooks of this checkout are what its lessons stand for."""
    assert build.problems(ROOT / "lessons", ROOT / "notebooks") == []
