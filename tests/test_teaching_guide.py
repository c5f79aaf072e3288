"""The teacher's guide and the files that deploy the course: what they name exists, their numbers are the notebooks'."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from course_lib.teaching import check, clinic, explorers, runtime
from course_lib.teaching.exercises import EXERCISES, LESSONS
from course_lib.teaching.plots.whiteboard import NUM_STEPS
from lessons.build import METADATA

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "lessons" / "TEACHING.md"
TEXT = GUIDE.read_text(encoding="utf-8")
NOTEBOOKS = {path.stem[:2]: path for path in sorted((ROOT / "lessons").glob("[0-9][0-9]_*.md"))}
MAX_WORDS = 3500
PATHS = (30, 60, 90)  # minutes
HOW = {"live", "stored", "read aloud", "in pairs"}
# In backticks, and no exercise: jobs of course.py, and arguments.
OTHER_WORDS = {"setup", "weights", "other", "seed"}


@pytest.fixture
def course(monkeypatch):
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("course", ROOT / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in (*module.SETTINGS, "ARGS"):
        monkeypatch.setenv(name, "")
    return module


def section(title):
    """The text from a heading that begins so to the next of the same depth or less."""
    depth = len(title.split()[0])
    found = re.search(rf"^{re.escape(title)}.*?(?=^#{{1,{depth}}} |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"the guide has no {title!r}"
    return found.group()


def rows(text):
    """The cells of a table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line][1:]


def plan(minutes):
    return rows(section(f"## {minutes} minutes"))


def named(text):
    """Exercises and cases in backticks."""
    return [
        name for name in re.findall(r"`([a-z]+(?:_[a-z]+)*)`", text) if name in {**EXERCISES, **clinic.CASES}
    ]


def readme_table():
    """number -> (minutes, needs) of the README's table of lessons."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| \[(\d\d) \w+\]\(\S+\) \| [^|]+ \| ([^|]+) \| ([^|]+) \|", readme, re.MULTILINE)
    return {number: (minutes, needs) for number, minutes, needs in found}


def numbers(text):
    return {float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", text)}


def shown(number):
    """The text of a lesson and all that its notebook has stored."""
    text = NOTEBOOKS[number].read_text(encoding="utf-8")
    notebook = ROOT / "notebooks" / f"{NOTEBOOKS[number].stem}.ipynb"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"] if notebook.exists() else []
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        text += "".join(output.get("text", [])) + "".join(output.get("data", {}).get("text/plain", []))
    return text


# ------------------------------------------------------------------------------------------------ the guide


def test_it_is_short_enough_to_be_read():
    words = [word for word in TEXT.split() if re.search(r"\w", word)]  # without the bars of tables
    assert len(words) <= MAX_WORDS, f"{len(words)} words"


def test_every_link_leads_somewhere():
    anchors = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in TEXT.splitlines()
        if line.startswith("#")
    }
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert targets
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert target.startswith("https://") or (GUIDE.parent / target.split("#")[0]).exists(), target


def test_every_notebook_has_its_section_and_every_section_its_notebook():
    sections = re.findall(r"^### (\d\d \w+)", section("## Notebook by notebook"), re.MULTILINE)
    assert sections == [path.stem.replace("_", " ", 1) for path in NOTEBOOKS.values()]
    for number in re.findall(r"`(\d\d)`", TEXT):
        assert number in NOTEBOOKS, f"the guide names notebook {number}"


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_minutes_are_those_of_the_notebook(number):
    title = section(f"### {number} ").splitlines()[0]
    lesson = NOTEBOOKS[number].read_text(encoding="utf-8")
    stated = re.search(
        r"^\*(\d+) minutes(?:, of which (\d+) for)?|^\*(As long as you like)", lesson, re.MULTILINE
    )
    assert stated, f"{number} states no minutes"
    minutes, exercises, free = stated.groups()
    if free:
        assert title.endswith("as long as you like")
        return
    assert f": {minutes} minutes" in title, f"{title}, the notebook says {minutes}"
    assert (f"of which {exercises} exercises" in title) if exercises else ("of which" not in title), title


def test_the_notebooks_without_weights_are_the_readmes():
    said = re.search(r"\*\*Without weights\*\*: ([\d, and]+)\.", TEXT).group(1)
    free = {number for number, (_, needs) in readme_table().items() if needs != "weights"}
    assert set(re.findall(r"\d\d", said)) == free


@pytest.mark.parametrize("minutes", PATHS)
def test_the_minutes_of_a_path_follow_each_other_to_its_end(minutes):
    end = 0
    for cells in plan(minutes):
        begin, then = map(int, cells[0].split("-"))
        assert begin == end < then, f"{cells[0]} after minute {end}"
        end = then
    assert end == minutes


@pytest.mark.parametrize("minutes", PATHS)
def test_a_path_leads_through_headings_that_exist(minutes):
    for cells in plan(minutes):
        assert len(cells) == 6, cells
        number, heading = re.fullmatch(r"`(\d\d)` (.+)", cells[1]).groups()
        headings = re.findall(r"^##+ (.+)$", NOTEBOOKS[number].read_text(encoding="utf-8"), re.MULTILINE)
        assert heading in headings, f"notebook {number} has no heading {heading!r}: {headings}"
        assert cells[2] in HOW and cells[3] and cells[5], cells


@pytest.mark.parametrize("minutes", PATHS)
def test_what_is_drawn_are_steps_of_the_board_in_their_order(minutes):
    steps = [int(step) for cells in plan(minutes) for step in re.findall(r"\d+", cells[4])]
    assert steps == list(range(1, len(steps) + 1)) and 4 <= len(steps) <= NUM_STEPS


@pytest.mark.parametrize("minutes", PATHS)
def test_expected_answers_stand_in_the_notebook(minutes):
    """A measured one changes with `make notebooks REMEASURE=1`: then the guide changes, too."""
    for cells in plan(minutes):
        number, answer = cells[1][1:3], re.search(r"\(([^()]*)\)$", cells[3])
        expected = numbers(answer.group(1)) if answer else set()
        if expected:
            missing = expected - numbers(shown(number))
            assert not missing, f"{cells[1]}: {cells[3]} names {missing}, the notebook does not"


def test_a_day_goes_forward():
    clock = [tuple(map(int, cells[0].split(":"))) for cells in rows(section("## A whole day"))]
    assert clock == sorted(set(clock)) and len(clock) > 6
    stated = [readme_table()[f"{number:02}"][0] for number in range(11)]
    assert sum(map(int, stated)) > 600, "the guide says more than ten hours"


def test_homework_names_every_exercise_of_its_notebook():
    for lesson in LESSONS:
        number = lesson.__name__[-2:]
        homework = re.search(r"\*\*Homework\.\*\*.*", section(f"### {number} ")).group()
        assert sorted(named(homework)) == sorted(exercise.name for exercise in lesson.EXERCISES), number
    order = re.search(r"\*\*Order\.\*\*.*", section("### 10 ")).group()
    assert sorted(named(order)) == sorted(clinic.CASES)


def test_every_name_in_backticks_exists():
    for name in re.findall(r"`([a-z]+(?:_[a-z]+)*)`", TEXT):
        known = name in EXERCISES or name in clinic.CASES or name in OTHER_WORDS
        assert known, f"the guide names {name!r}, which is no exercise and no case"
    holders = dict(check=check, clinic=clinic, explorers=explorers, runtime=runtime, patient=clinic.Patient)
    for holder, name in re.findall(r"\b(check|clinic|explorers|runtime|patient)\.(\w+)\(", TEXT):
        assert hasattr(holders[holder], name), f"{holder}.{name}"


def test_marks_add_up():
    parts = {cells[0]: cells for cells in rows(section("## Assessment"))}
    assert sum(int(cells[2]) for cells in parts.values()) == 100
    assert 4 * len(named(parts["exercises"][1])) == int(parts["exercises"][2])
    cases = named(parts["clinic"][1])
    assert all(name in clinic.CASES for name in cases) and 6 * len(cases) == int(parts["clinic"][2])
    minutes = sum(clinic.CASES[name].minutes for name in cases)
    assert f"The clinic takes {minutes} minutes by the cases' own count" in TEXT


def test_commands_are_jobs(course):
    makefile = (ROOT / "Makefile").read_text()
    jobs = re.findall(
        r"(?:make|course\.py) (\w+)", " ".join(re.findall(r"`[^`]+`|^    .+$", TEXT, re.MULTILINE))
    )
    assert {"setup", "lab", "weights", "reset"} <= set(jobs)
    for job in jobs:
        assert job in course.JOBS and re.search(rf"^\.PHONY:.* {job}\b", makefile, re.MULTILINE), job


def command(beginning):
    """The one line of the guide that begins so, indented as a command is."""
    (line,) = re.findall(rf"^    ({re.escape(beginning)}.*)$", TEXT, re.MULTILINE)
    return line


def test_a_students_line_is_read_by_the_command_of_the_guide(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_STATE_HOME", str(tmp_path / "student"))
    check.slot_of(EXERCISES["slot_of"].solution)
    words = shlex.split(command("COURSE_STATE_HOME="))
    code = words[words.index("-c") + 1]
    read = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=dict(os.environ, COURSE_STATE_HOME=str(tmp_path / "class" / "ann"), PYTHONUTF8="1"),
        input=check.export_progress() + "\n",
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout
    assert "✓ 1 exercises and 0 questions taken over" in read and "✓ slot_of" in read


def test_the_hubs_kernel_gets_its_two_folders(tmp_path):
    words = shlex.split(command(".venv/bin/python -m ipykernel install"))
    words = [str(tmp_path) if word == "HUB" else word for word in words]
    subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
    kernel = tmp_path / "share" / "jupyter" / "kernels" / METADATA["kernelspec"]["name"] / "kernel.json"
    assert json.loads(kernel.read_text())["env"] == {
        "XDG_CACHE_HOME": "/srv/course-cache",
        "MPLCONFIGDIR": "${HOME}/.config/matplotlib",
    }


# ---------------------------------------------------------------------------------------------- the containers


@pytest.fixture
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def locked_python():
    """The Python of which requirements.lock speaks: the stored outputs are its."""
    return re.search(r"Python (3\.\d+)", (ROOT / "requirements.lock").read_text()).group(1)


@pytest.fixture
def container():
    return json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))


def test_the_dev_container_runs_the_tested_python_and_jobs_that_exist(course, project, container):
    version = re.fullmatch(
        r"mcr\.microsoft\.com/devcontainers/python:1-(3\.\d+)-\w+", container["image"]
    ).group(1)
    assert version == locked_python() and version in SpecifierSet(project["requires-python"])
    commands = [shlex.split(each) for each in container["postCreateCommand"].split("&&")]
    assert [words[:2] for words in commands] == [["python3", "course.py"]] * 2
    assert [words[2] for words in commands] == ["setup", "weights"] and all(
        words[2] in course.JOBS for words in commands
    )
    label = container["portsAttributes"][str(course.DEFAULT_PORT)]["label"]
    assert container["forwardPorts"] == [course.DEFAULT_PORT] and "course.py lab" in label
    interpreter = container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert interpreter == "${containerWorkspaceFolder}/.venv/bin/python"
    assert set(container["containerEnv"]) <= {"PIP_EXTRA_INDEX_URL", *course.SETTINGS}, (
        "settings, and no secrets"
    )


def test_binder_takes_the_tested_python(project):
    files = sorted(path.name for path in (ROOT / "binder").iterdir())
    assert files == ["postBuild", "runtime.txt"], "what else is there is not read, or hides these"
    version = re.fullmatch(r"python-(3\.\d+)\n", (ROOT / "binder" / "runtime.txt").read_text()).group(1)
    assert version == locked_python() and version in SpecifierSet(project["requires-python"])


def test_binder_installs_by_course_py_and_nothing_besides(course):
    script = ROOT / "binder" / "postBuild"
    lines = [line for line in script.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert script.read_bytes().startswith(b"#!/bin/bash\n") and lines[0].startswith("set -e")
    assert os.name == "nt" or os.access(script, os.X_OK), "repo2docker runs it"
    jobs = [words[2] for words in map(shlex.split, lines) if words[:2] == ["python3", "course.py"]]
    assert jobs == ["setup", "weights"] and set(jobs) <= set(course.JOBS)
    others = [line for line in lines[1:] if not line.startswith(("export PIP_", "python3 course.py "))]
    assert len(others) == 1 and others[0].startswith(".venv/bin/python -m ipykernel install --prefix ")
    assert shlex.split(others[0])[-2:] == ["--name", METADATA["kernelspec"]["name"]]
    assert re.search(r"^ipykernel==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)


def test_both_look_for_torchs_small_build_where_the_readme_says(container):
    index = re.search(r"PIP_EXTRA_INDEX_URL=(\S+)", (ROOT / "README.md").read_text(encoding="utf-8")).group(1)
    assert container["containerEnv"]["PIP_EXTRA_INDEX_URL"] == index
    assert f"export PIP_EXTRA_INDEX_URL={index}\n" in (ROOT / "binder" / "postBuild").read_text(
        encoding="utf-8"
    )


def test_their_setup_asks_for_torch_alone_and_before_the_lock(course, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(course, "run_pip", lambda title, arguments, **more: asked.append(arguments))
    for name, found in [("is_ready", False), ("is_sound", True)]:
        monkeypatch.setattr(course, name, lambda found=found: found)
    for name, path in [("VENV", tmp_path), ("LOG", tmp_path / "log"), ("STAMP", tmp_path / "stamp")]:
        monkeypatch.setattr(course, name, path)
    course.setup()
    assert asked[:3] == [
        ["install", course.PIP],
        ["install", course.TORCH],
        ["install", "-r", "requirements.lock"],
    ]
