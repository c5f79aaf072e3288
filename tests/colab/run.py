"""Run the whole course as on Google Colab: its versions, its folder, its way of getting the course.

    python tests/colab/run.py --python .venv-colab/bin/python          every notebook, then every explorer
    python tests/colab/run.py --python .venv-colab/bin/python 01 05    these notebooks
    python tests/colab/run.py --python .venv-colab/bin/python --explorers

`course.py test-colab` makes the environment (tests/colab/constraints.txt) and calls this. Of Colab are here:

- its versions, and nothing besides: course_lib and gguf are not installed, the notebook must bring them;
- the module google.colab, loaded before the first cell, as an empty stand-in;
- an empty working folder, and the cell that lessons/build.py puts before the setup once [project.urls] is set: it
  clones the course, from a bare repository on this machine that git takes for the one on GitHub. The repository
  holds the working tree as it stands. In that cell /content is another folder; nothing else is changed;
- an empty cache, so that the first notebook that needs the weights gets and converts them (--cache keeps them).

A notebook passes if no cell raises, cells tagged `explorer` show a live widget, no cell prints a line with ✗ that is
not stored, no package is added but gguf or changed at all, and its processes stay under 12 GB. Outputs are not
compared otherwise; --differences shows where printed text is not the stored one.

Not here: Colab's own front end, its GPU, its real google.colab, its several hundred other packages.
"""

import argparse
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import nbformat
import psutil
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lessons import build  # noqa: E402

ADDRESS = "https://github.com/OWNER/NAME"  # stands for the public one while that is unset
CONTENT = "/content"  # Colab's working folder
MAY_APPEAR = {"gguf"}
MAX_BYTES = 12 * 10**9  # Colab's free machine has 12.7 GB
CELL_SECONDS = 600
KEY_VERSIONS = (
    "torch",
    "triton",
    "numpy",
    "ipywidgets",
    "ipython",
    "matplotlib",
    "tokenizers",
    "safetensors",
    "tqdm",
)


@dataclass
class Result:
    """How one notebook went."""

    name: str
    seconds: float = 0.0
    peak_bytes: int = 0  # of the kernel and its children
    problems: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)  # what cells wrote to stderr: worth reading, no failure
    differences: list[str] = field(default_factory=list)  # where the printed text is not the stored one


# ------------------------------------------------------------------------------------------ the course, published


def git(*arguments: str, folder: Path) -> str:
    """Run git in a folder without the user's own settings; returns what it prints."""
    alone = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, env=alone, check=True, capture_output=True, text=True
    ).stdout


def publish(root: Path, folder: Path) -> tuple[Path, Path, str]:
    """The working tree as it would be once published.

    Returns:
        a copy of its files (tracked, and new ones that git does not ignore), a bare repository with one commit of
        them, and the address that [project.urls] has in it: its own, or ADDRESS while it is unset.

    Raises:
        BuildError: Colab cannot open the address.
    """
    source, bare = folder / "published", folder / "published.git"
    for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard", folder=root).split("\0"):
        if name and (root / name).is_file():  # a deleted file is still listed
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, source / name)
    if build.public_address(source) is None:
        with (source / "pyproject.toml").open("a", encoding="utf-8") as pyproject:
            pyproject.write(f'\n[project.urls]\nRepository = "{ADDRESS}"\n')
    git("init", "-q", "-b", "main", folder=source)
    git("add", "--all", "--force", folder=source)
    git("commit", "-q", "-m", "The course as it stands", folder=source)
    git("clone", "-q", "--bare", str(source), str(bare), folder=folder)
    return source, bare, build.public_address(source)


def as_published(notebook: NotebookNode, name: str, address: str) -> NotebookNode:
    """The notebook with its Colab cell, which it has already once the address is set."""
    if not any(build.COLAB in build.tags(cell) for cell in build.code_cells(notebook)):
        notebook.cells = build.with_colab(notebook.cells, name, address)
    return notebook


def in_folder(notebook: NotebookNode, content: Path) -> NotebookNode:
    """The notebook with another folder for /content in its Colab cell: this machine may have no such folder."""
    for cell in build.code_cells(notebook):
        if build.COLAB in build.tags(cell):
            cell.source = cell.source.replace(CONTENT, str(content))
    return notebook


# ------------------------------------------------------------------------------------------------ the environment


def frozen(python: str) -> dict[str, str]:
    """The packages of an environment: name in lower case -> the whole line of `pip freeze`."""
    command = [python, "-m", "pip", "freeze", "--all", "--disable-pip-version-check"]
    return parse_freeze(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def parse_freeze(text: str) -> dict[str, str]:
    """Lines of `pip freeze` by package: 'NumPy==2.1.3' and 'x @ file:///...' alike."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {line.partition("==")[0].partition(" @ ")[0].lower(): line for line in lines}


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What a notebook did to the packages and must not do, one line each."""
    found = [f"{before[name]} was removed" for name in sorted(before.keys() - after.keys())]
    found += [
        f"{before[name]} became {after[name]}"
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name]
    ]
    return found + [
        f"{after[name]} was installed" for name in sorted(after.keys() - before.keys() - MAY_APPEAR)
    ]


def forget(python: str) -> None:
    """Take away what a notebook may bring: the next one's machine is a fresh one, and so is the next run's."""
    command = [python, "-m", "pip", "uninstall", "-q", "-y", *MAY_APPEAR]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def stand_in(folder: Path) -> Path:
    """A folder for PYTHONPATH in which google.colab is an empty module that IPython can load as an extension."""
    package = folder / "google" / "colab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        '"""A stand-in for Colab\'s own package."""\n\n\ndef load_ipython_extension(shell):\n    pass\n'
    )
    return folder


def environment(python: str, address: str, bare: Path, paths: Iterable[Path], cache: Path) -> dict[str, str]:
    """The variables a kernel starts with: the environment's programs first, git led to the bare repository."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("COURSE_", "GIT_"))}
    return {
        **ours,
        "PATH": os.pathsep.join([str(Path(python).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "XDG_CACHE_HOME": str(cache),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # or the kernel's debugger warns about itself
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{bare.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
    }


def kernel_of(python: str, folder: Path) -> AsyncKernelManager:
    """A kernel of that environment, with google.colab loaded before the first cell, as Colab loads it."""
    (folder / "colab").mkdir(parents=True, exist_ok=True)
    argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    argv += ["--IPKernelApp.extensions=google.colab", "--IPKernelApp.log_level=40"]
    spec = {"argv": argv, "display_name": "Colab", "language": "python"}
    (folder / "colab" / "kernel.json").write_text(json.dumps(spec))
    specs = KernelSpecManager(kernel_dirs=[str(folder)], ensure_native_kernel=False)
    return AsyncKernelManager(kernel_name="colab", kernel_spec_manager=specs)


# ------------------------------------------------------------------------------------------------------- a notebook


class Memory(threading.Thread):
    """Watches what a process and its children hold; `peak` is the most, in bytes."""

    def __init__(self, pid: int, every: float = 0.1):
        super().__init__(daemon=True)
        self.process, self.every, self.peak, self.ended = psutil.Process(pid), every, 0, threading.Event()

    def run(self):
        while not self.ended.wait(self.every):
            self.look()

    def look(self) -> None:
        """Once: what the process and its children hold now, and the most that the process itself ever held."""
        try:
            held = 0
            for process in [self.process, *self.process.children(recursive=True)]:
                try:
                    held += process.memory_info().rss
                except psutil.Error:
                    pass  # a child has ended
            self.peak = max(self.peak, held, most_held(self.process.pid))
        except psutil.Error:
            self.ended.set()

    def stop(self) -> int:
        self.look()
        self.ended.set()
        return self.peak


def most_held(pid: int) -> int:
    """The most memory a process ever held, as Linux counts it; 0 elsewhere."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def execute(notebook: NotebookNode, manager: AsyncKernelManager, folder: Path, variables: dict) -> Result:
    """Run the code cells from the top until one fails."""
    result, stored = Result(""), copy.deepcopy(notebook)
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=CELL_SECONDS,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    begun = time.perf_counter()
    # cleanup_kc: the manager is ours, and nbclient would leave its kernel on.
    with client.setup_kernel(env=variables, cleanup_kc=True):
        memory = Memory(client.km.provisioner.pid)
        memory.start()
        for index, cell in enumerate(notebook.cells):
            try:
                client.execute_cell(cell, index)
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                where, told = build.where(notebook, cell), build.failure(cell, error)
                result.problems.append(f"{where} failed\n{told}")
                break
        result.peak_bytes = memory.stop()
    result.seconds = time.perf_counter() - begun
    if not result.problems:
        result.problems += shown_wrongly(notebook) + new_failures(stored, notebook)
        result.differences = differing(stored, notebook)
    result.warned = warnings_of(notebook)
    if result.peak_bytes > MAX_BYTES:
        result.problems.append(f"it held {result.peak_bytes / 1e9:.1f} GB, at most {MAX_BYTES / 1e9:.0f}")
    return result


def shown_wrongly(notebook: NotebookNode) -> list[str]:
    """Error outputs, and explorers that showed no live widget."""
    found = []
    for cell in build.code_cells(notebook):
        if any(output.output_type == "error" for output in cell.outputs):
            found.append(f"{build.where(notebook, cell)}: an error among its outputs")
        mimes = [mime for output in cell.outputs for mime in output.get("data", {})]
        if build.EXPLORER in build.tags(cell) and build.WIDGET_VIEW not in mimes:
            shown = ", ".join(mimes) or "nothing"
            found.append(f"{build.where(notebook, cell)}: tagged explorer, and no live widget: {shown}")
    return found


def printed(cell: NotebookNode) -> list[str]:
    """The lines that a cell printed, without what varies."""
    text = "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")
    return build.sanitize(build.OVERWRITTEN.sub("", text)).splitlines()


def new_failures(stored: NotebookNode, now: NotebookNode) -> list[str]:
    """Lines that say ✗ where the stored output says no such thing: a check or a child process that failed softly."""
    return [
        f"{build.where(now, cell)} says {line!r}"
        for before, cell in zip(stored.cells, now.cells, strict=True)
        if cell.cell_type == "code"
        for line in printed(cell)
        if line.startswith("✗") and line not in printed(before)
    ]


def differing(stored: NotebookNode, now: NotebookNode) -> list[str]:
    """Cells that printed other lines than the stored ones, but for those that measure: the first line that differs."""
    found = []
    for before, cell in zip(stored.cells, now.cells, strict=True):
        if cell.cell_type == "code" and build.MEASURED not in build.tags(cell):
            pairs = zip_longest(printed(before), printed(cell))
            if pair := next((pair for pair in pairs if pair[0] != pair[1]), None):
                found.append(f"{build.where(now, cell)}\n    stored  {pair[0]}\n    now     {pair[1]}")
    return found


def warnings_of(notebook: NotebookNode) -> list[str]:
    """What cells wrote to stderr, each with its cell; of a progress bar its last state."""
    found = []
    for cell in build.code_cells(notebook):
        text = "".join(
            o.text for o in cell.outputs if o.output_type == "stream" and o.get("name") == "stderr"
        )
        text = build.sanitize(build.OVERWRITTEN.sub("", text)).strip()
        if text:
            found.append(f"{build.where(notebook, cell)}: {text}")
    return found


# ------------------------------------------------------------------------------------------------------- the table


def table(results: list[Result]) -> str:
    """One line a notebook: name, seconds, peak memory, ok or not."""
    lines = [f"{'notebook':<22}{'seconds':>8}{'peak GB':>9}  ok"]
    lines += [
        f"{each.name:<22}{each.seconds:>8.1f}{each.peak_bytes / 1e9:>9.2f}  {'✗' if each.problems else '✓'}"
        for each in results
    ]
    failed = sum(bool(each.problems) for each in results)
    total = sum(each.seconds for each in results)
    lines.append(f"{len(results) - failed} of {len(results)} notebooks passed, {total:.0f} s")
    return "\n".join(lines)


def chosen(notebooks: Path, names: list[str]) -> list[Path]:
    """The notebooks that names ask for, each a full name or its beginning; all of them without names."""
    paths = sorted(notebooks.glob("*.ipynb"))
    unknown = [name for name in names if not any(path.stem.startswith(name) for path in paths)]
    if unknown:
        there = ", ".join(path.stem for path in paths) or "none"
        raise build.BuildError(f"no notebook {', '.join(unknown)}; there are {there}")
    return [path for path in paths if not names or any(path.stem.startswith(name) for name in names)]


def run_notebooks(python: str, names: list[str], folder: Path, cache: Path) -> list[Result]:
    """Each notebook as on a fresh Colab machine: its own empty folder and progress, its own clone, no gguf."""
    source, bare, address = publish(ROOT, folder)
    results, before = [], frozen(python)
    if "gguf" in before:
        raise build.BuildError(f"Colab has no gguf, this environment has: {python} -m pip uninstall gguf")
    variables = environment(python, address, bare, [stand_in(folder / "stand_in")], cache)
    for path in chosen(source / "notebooks", names):
        content = folder / path.stem / "content"
        content.mkdir(parents=True)
        variables["COURSE_STATE_HOME"] = str(folder / path.stem / "state")
        notebook = as_published(nbformat.read(path, as_version=4), path.stem, address)
        notebook = in_folder(notebook, content)
        try:
            result = execute(notebook, kernel_of(python, folder / "kernels"), content, variables)
            result.problems += changed(before, frozen(python))
        finally:
            forget(python)
        result.name = path.stem
        if not result.problems and not (content / "course_src" / "course_lib").is_dir():
            result.problems.append("the cells ran, but no course was cloned: where did they import it from?")
        results.append(result)
        print(table([result]).splitlines()[1], flush=True)
        shutil.rmtree(folder / path.stem, ignore_errors=True)
    return results


def run_explorers(python: str, folder: Path, cache: Path) -> int:
    """Drive every explorer inside the environment; returns the exit status."""
    source = folder / "published"
    if not source.exists():
        publish(ROOT, folder)
    paths = [source, folder / "stand_in" if (folder / "stand_in").exists() else stand_in(folder / "stand_in")]
    variables = environment(python, ADDRESS, folder / "published.git", paths, cache)
    variables["COURSE_STATE_HOME"] = str(folder / "state")
    script = source / "tests" / "colab" / "drive_explorers.py"
    try:
        return subprocess.call([python, str(script)], cwd=folder, env=variables)
    finally:
        forget(python)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the course as on Google Colab.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebooks, such as 01; default: all")
    parser.add_argument("--python", required=True, help="the Python of an environment with Colab's versions")
    parser.add_argument("--cache", type=Path, help="where weights are kept; default: an empty folder")
    parser.add_argument("--explorers", action="store_true", help="drive the explorers, run no notebook")
    parser.add_argument(
        "--differences", action="store_true", help="show where printed text is not the stored one"
    )
    arguments = parser.parse_args(argv)
    python = os.path.abspath(arguments.python)  # not resolved: a venv's Python is a link
    with tempfile.TemporaryDirectory(prefix="course-colab-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        cache = (arguments.cache or folder / "cache").resolve()
        packages, results, status = frozen(python), [], 0
        version = subprocess.check_output([python, "--version"], text=True).strip()
        print(
            ", ".join([version, *(packages.get(name, f"{name} missing") for name in KEY_VERSIONS)]),
            flush=True,
        )
        try:
            if not arguments.explorers:
                results = run_notebooks(python, arguments.names, folder, cache)
                print("\n" + table(results))
            if not arguments.names:
                status = run_explorers(python, folder, cache)
        except build.BuildError as error:
            print(error, file=sys.stderr)
            return 1
    for each in results:
        for text in each.warned:
            print(f"\n{each.name} wrote to stderr in {text}")
        for difference in each.differences if arguments.differences else []:
            print(f"\n{each.name} printed otherwise in {difference}")
    for each in results:
        for problem in each.problems:
            print(f"\n✗ {each.name}: {problem}")
    return 1 if status or any(each.problems for each in results) else 0


if __name__ == "__main__":
    sys.exit(main())
