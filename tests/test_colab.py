"""tests/colab: the functions of its scripts. The course itself is run as on Colab by `make test-colab`, not here."""

import asyncio
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import ipywidgets as widgets
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course_lib.processes import for_a_child
from course_lib.serving import tensor_parallel
from course_lib.teaching import explorers, kernel_facts
from lessons import build

ROOT = Path(__file__).resolve().parents[1]


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"colab_{name}", ROOT / "tests" / "colab" / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run, driver = script("run"), script("drive_explorers")


# ------------------------------------------------------------------------------------------ the course, published


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A small project, published: (its folder, what publish returned)."""
    root, folder = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("out")
    (root / "course_lib").mkdir()
    (root / "course_lib" / "__init__.py").write_text("")
    (root / ".gitignore").write_text("*.log\n")
    (root / "pyproject.toml").write_text('[project]\nname = "x"\n')
    run.git("init", "-q", folder=root)
    run.git("add", "--all", folder=root)
    (root / "new.txt").write_text("not added yet")
    (root / "left.log").write_text("ignored")
    return root, run.publish(root, folder)


def test_the_working_tree_is_published_without_what_git_ignores(published):
    root, (source, bare, address) = published
    there = set(run.git("ls-tree", "-r", "--name-only", "main", folder=bare).split())
    assert there == {".gitignore", "course_lib/__init__.py", "new.txt", "pyproject.toml"}
    assert address == run.ADDRESS == build.public_address(source)
    assert "urls" not in (root / "pyproject.toml").read_text(), "the project itself is left alone"


def test_an_address_of_its_own_is_kept_and_one_colab_cannot_open_refused(published, tmp_path):
    root, _ = published
    copy = shutil.copytree(root, tmp_path / "copy")

    def publish(address):
        (copy / "pyproject.toml").write_text(f'[project.urls]\nRepository = "{address}"\n')
        (out := tmp_path / address.rpartition("/")[2]).mkdir()
        return run.publish(copy, out)[2]

    assert publish("https://github.com/a/b") == "https://github.com/a/b"
    with pytest.raises(build.BuildError, match="not https://github.com"):
        publish("https://x.org/c")


@pytest.mark.skipif(sys.platform == "win32", reason="the cell's shell command is for Colab's Linux")
def test_the_cell_of_the_build_fetches_the_course_through_the_variables(published, tmp_path):
    """The very command of the cell, in a shell, with git led from GitHub's address to the bare repository."""
    _, (_, bare, address) = published
    notebook = new_notebook(cells=[new_markdown_cell("# A"), new_code_cell("1")])
    notebook = run.in_folder(run.as_published(notebook, "01_a", address), tmp_path)
    cell = notebook.cells[1]
    assert cell.source == build.COLAB_CELL.format(address=address).replace("/content", str(tmp_path))
    assert run.as_published(notebook, "01_a", address).cells.count(cell) == 1, "once, not twice"
    (command,) = re.findall(r"^ +!(.*)$", cell.source, re.MULTILINE)
    variables = run.environment(sys.executable, address, bare, [], tmp_path / "cache")
    subprocess.run(["sh", "-c", command], env=variables, check=True)
    assert (tmp_path / "course_src" / "course_lib" / "__init__.py").exists()
    assert variables["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert variables["XDG_CACHE_HOME"] == str(tmp_path / "cache")


def test_the_stand_in_is_an_extension_that_is_found_as_google_colab(tmp_path):
    ask = "import google.colab, sys; google.colab.load_ipython_extension(None); print('google.colab' in sys.modules)"
    settings = {**os.environ, "PYTHONPATH": str(run.stand_in(tmp_path / "stand_in"))}
    assert subprocess.check_output([sys.executable, "-c", ask], env=settings, text=True) == "True\n"


def test_the_kernel_is_the_other_environments_and_loads_google_colab(tmp_path):
    spec = run.kernel_of("/there/bin/python", tmp_path).kernel_spec
    assert spec.argv[:3] == ["/there/bin/python", "-m", "ipykernel_launcher"]
    assert "--IPKernelApp.extensions=google.colab" in spec.argv
    assert json.loads((tmp_path / "colab" / "kernel.json").read_text())["argv"] == spec.argv


def test_a_notebook_runs_in_such_a_kernel_until_a_cell_fails_and_the_kernel_ends(published, tmp_path):
    _, (_, bare, address) = published
    sources = ["import os, sys; sys.stderr.write('careful')", "'google.colab' in sys.modules, os.listdir()"]
    sources += ["open('../pid', 'w').write(str(os.getpid()))", "1 / 0", "never_run"]
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    (content := tmp_path / "content").mkdir()
    paths = [run.stand_in(tmp_path / "stand_in")]
    variables = run.environment(sys.executable, address, bare, paths, tmp_path / "cache")
    manager = run.kernel_of(sys.executable, tmp_path / "kernels")
    result = run.execute(notebook, manager, content, variables)
    assert notebook.cells[1].outputs[0].data["text/plain"] == "(True, [])"
    (problem,) = result.problems
    assert problem.startswith("cell 4 `1 / 0` failed\n    1 / 0") and "ZeroDivisionError" in problem
    assert notebook.cells[4].outputs == [] and result.warned == [
        "cell 1 `import os, sys; sys.stderr.write('careful')`: careful"
    ]
    assert result.seconds > 0 and 10**7 < result.peak_bytes < 10**9
    assert not run.psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_child_process_finds_a_course_that_is_only_on_sys_path():
    """As on Colab, where nothing is installed. -S: without site-packages, so without this environment's course_lib."""
    find = [sys.executable, "-S", "-c", "import course_lib; print(course_lib.__file__)"]
    there = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    elsewhere = Path(ROOT.anchor)
    assert subprocess.run(find, env=there, cwd=elsewhere, capture_output=True).returncode != 0
    for variables in (there, {**there, "PYTHONPATH": "elsewhere"}):
        told = subprocess.check_output(find, env=for_a_child(variables), cwd=elsewhere, text=True)
        assert Path(told.strip()) == ROOT / "course_lib" / "__init__.py"
    assert for_a_child({"PYTHONPATH": "elsewhere"})["PYTHONPATH"].endswith(f"{os.pathsep}elsewhere")


@pytest.mark.parametrize("module", [tensor_parallel, kernel_facts])
def test_what_starts_course_lib_in_another_process_says_where_it_is(module, monkeypatch, capsys):
    asked = {}
    monkeypatch.setattr(module, "HERE", True, raising=False)
    monkeypatch.setattr(
        module.subprocess,
        "run",
        lambda command, env, **_: asked.update(env) or SimpleNamespace(returncode=1, stdout="", stderr=""),
    )
    if module is kernel_facts:
        kernel_facts.cross_compile()
    else:
        with pytest.raises(RuntimeError, match="torchrun ended with 1"):
            tensor_parallel.launch(["a"])
    assert asked["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)


# ------------------------------------------------------------------------------------------- packages, table, outputs


def test_only_gguf_may_appear_and_nothing_may_change():
    before = run.parse_freeze(
        "# a comment\nNumPy==2.1.3\ntorch==2.13.0+cpu\nsix==1.17.0\nx @ file:///x.whl\n"
    )
    assert before == {
        "numpy": "NumPy==2.1.3",
        "torch": "torch==2.13.0+cpu",
        "six": "six==1.17.0",
        "x": "x @ file:///x.whl",
    }
    assert run.changed(before, before) == run.changed(before, {**before, "gguf": "gguf==0.19.0"}) == []
    after = {**before, "numpy": "numpy==2.4.6", "gguf": "gguf==0.19.0", "yaml": "yaml==6.0"}
    del after["six"]
    assert run.changed(before, after) == [
        "six==1.17.0 was removed",
        "NumPy==2.1.3 became numpy==2.4.6",
        "yaml==6.0 was installed",
    ]


def test_the_table_has_a_line_a_notebook_and_counts_those_that_passed():
    good = run.Result("01_kv_cache", 12.34, 1_500_000_000)
    bad = run.Result("02_fragmentation", 100.0, 900_000_000, ["cell 3 failed"])
    assert run.table([good, bad]).splitlines() == [
        "notebook               seconds  peak GB  ok",
        "01_kv_cache               12.3     1.50  ✓",
        "02_fragmentation         100.0     0.90  ✗",
        "1 of 2 notebooks passed, 112 s",
    ]


def test_what_a_notebook_must_not_show_and_what_it_wrote_to_stderr():
    error = new_output("error", ename="E", evalue="", traceback=[])
    progress = new_output("stream", name="stderr", text="  0%\r 50%\r100%\n")
    live = new_output("display_data", {build.WIDGET_VIEW: {}, "text/plain": "x"})
    tagged = {"tags": [build.EXPLORER]}
    notebook = new_notebook(
        cells=[
            new_code_cell("a", outputs=[error]),
            new_code_cell("b", outputs=[progress]),
            new_code_cell("c", outputs=[live], metadata=tagged),
            new_code_cell("d", outputs=[new_output("display_data", {"text/plain": "x"})], metadata=tagged),
        ]
    )
    assert run.shown_wrongly(notebook) == [
        "cell 1 `a`: an error among its outputs",
        "cell 4 `d`: tagged explorer, and no live widget: text/plain",
    ]
    assert run.warnings_of(notebook) == ["cell 2 `b`: 100%"]


def test_a_soft_failure_counts_unless_it_is_stored_and_a_difference_is_only_told():
    def notebook(*texts):
        return new_notebook(
            cells=[
                new_code_cell("x", outputs=[new_output("stream", name="stdout", text=text)]) for text in texts
            ]
        )

    stored = notebook("✗ slot_of: wrong, on purpose\n", "fine\n", "same\n")
    assert run.new_failures(stored, stored) == run.differing(stored, stored) == []
    now = notebook("✗ slot_of: wrong, on purpose\n", "✗ it did not compile\n", "same\nand more\n")
    assert run.new_failures(stored, now) == ["cell 2 `x` says '✗ it did not compile'"]
    assert run.differing(stored, now) == [
        "cell 2 `x`\n    stored  fine\n    now     ✗ it did not compile",
        "cell 3 `x`\n    stored  None\n    now     and more",
    ]
    for measured in (stored.cells[1], now.cells[1]):
        measured.metadata["tags"] = [build.MEASURED]
    assert len(run.differing(stored, now)) == 1


def test_the_memory_of_a_process_and_its_children_is_watched():
    """A child that takes 100 MB: the watcher sees them, though it is not the process that is asked about."""
    child = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = b\"1\" * 10**8; import time; "
        "print(1, flush=True); time.sleep(30)'])"
    )
    process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        memory = run.Memory(process.pid)
        assert 10**8 < memory.stop() < 10**9
    finally:
        for each in [*memory.process.children(recursive=True), process]:
            each.kill()
        process.wait()


def test_unknown_notebooks_are_named(tmp_path):
    (tmp_path / "01_a.ipynb").write_text("")
    assert (
        [path.stem for path in run.chosen(tmp_path, [])] == ["01_a"] == [run.chosen(tmp_path, ["01"])[0].stem]
    )
    with pytest.raises(build.BuildError, match="no notebook 07; there are 01_a"):
        run.chosen(tmp_path, ["01", "07"])


def test_colabs_versions_are_within_the_projects_bounds():
    """Every pin is a plain one, and none contradicts pyproject.toml. gguf is missing there, as on Colab."""
    from packaging.requirements import Requirement

    lines = (ROOT / "tests" / "colab" / "constraints.txt").read_text().splitlines()
    pins = {
        each.name.lower(): str(each.specifier).removeprefix("==")
        for each in (Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip())
    }
    assert pins["ipywidgets"] == "7.7.1" and pins["ipython"] == "7.34.0" and "gguf" not in pins
    not_here = (
        "torch",
        "gguf",
        "jupyterlab",
    )  # course.py's own; brought by runtime.setup(); Colab has its own
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        wanted = Requirement(text)
        if wanted.name not in not_here:
            assert pins[wanted.name.lower()] in wanted.specifier, (
                f"{wanted} refuses {pins[wanted.name.lower()]}"
            )


# ------------------------------------------------------------------------------------------------------ the driver


def test_the_driver_knows_how_to_construct_every_explorer_that_is_exported():
    found = driver.explorer_functions(explorers)
    assert {"quiz", "kv_calculator", "block_reader", "prefix_tree"} <= found.keys()
    exported = {name for name in explorers.__all__ if name not in ("Explorer", "answers", "figure_html")}
    assert exported <= found.keys(), "an explorer must say `-> Explorer`"
    assert ("08",) in driver.arguments_for("quiz")


def explorer(control: widgets.Widget, react) -> explorers.Explorer:
    """A control above a text that `react` makes of the change."""
    view = widgets.HTML("at first")

    def changed(change):
        view.value = react(change["new"])

    if isinstance(control, widgets.Button):
        control.on_click(lambda _: changed({"new": 0}))
    else:
        control.observe(changed, names="value")
    cold = {"text/html": "cold", "text/plain": "a text"}
    return explorers.Explorer(widgets.VBox([control, view]), cold, "a text", [control])


def driven(construct) -> "driver.Drive":
    return asyncio.run(driver.drive("x", construct))


def test_a_slider_goes_to_every_place_and_back():
    slider = widgets.IntSlider(min=1, max=4, value=2)
    result = driven(lambda: explorer(slider, str))
    assert result.problems == [] and result.controls == 1
    assert {shown.splitlines()[-1] for shown in result.shown} == {"1", "2", "3", "4"}
    assert slider.value == 4, "the corners come last"
    long = driver.states(widgets.IntSlider(min=0, max=500))
    assert len(long) == driver.MOST_VALUES and (long[0], long[-1]) == ({"value": 0}, {"value": 500})


@pytest.mark.parametrize(
    ("control", "react", "told"),
    [
        (widgets.IntSlider(max=3), lambda new: str(1 // (new - 2)), "to {'value': 2}: ZeroDivisionError"),
        (widgets.IntSlider(max=3), lambda new: "at first", "and all of them show the same"),
        (
            widgets.RadioButtons(options=["a", "b"], value=None),
            lambda new: str({"a": 0}[new]),
            "KeyError: 'b'",
        ),
        (
            widgets.Button(description="go"),
            lambda new: str(1 // new),
            "Button 'go' pressed: ZeroDivisionError",
        ),
        (widgets.Text(), lambda new: str(int(new or 0)), "to {'value': 'nonsense'}: ValueError"),
        (widgets.ColorPicker(), str, "does not know how to move it"),
    ],
)
def test_what_goes_wrong_in_an_explorer_is_told(control, react, told):
    result = driven(lambda: explorer(control, react))
    assert any(told in problem for problem in result.problems), result.problems
    assert "✗" in driver.line(result)


def test_what_a_move_starts_runs_and_fails_aloud():
    async def tick():
        raise RuntimeError("the clock stood still")

    def start(_):
        asyncio.get_running_loop().create_task(tick())
        return "started"

    result = driven(lambda: explorer(widgets.Button(), start))
    assert "a task that it started: RuntimeError: the clock stood still" in result.problems


def test_an_output_without_picture_or_words_and_a_failed_construction_are_told():
    cold = explorers.Explorer(widgets.VBox([]), {"image/png": b"GIF"}, "")
    assert driver.wrong_with_bundle(cold) == [
        "what stands for a PNG is none",
        "the picture has no alt text",
        "no words stand for it",
    ]
    assert driven(lambda: 1 // 0).problems == [
        "not constructed: ZeroDivisionError: integer division or modulo by zero"
    ]


def test_hidden_and_disabled_controls_are_left_alone():
    hidden = widgets.Button(layout=widgets.Layout(display="none"))
    box = widgets.VBox(
        [hidden, widgets.Button(disabled=True), widgets.HTML("x"), shown := widgets.Checkbox()]
    )
    assert driver.controls(box) == [shown]
