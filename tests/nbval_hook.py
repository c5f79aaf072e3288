"""A pytest plugin that closes nbval's holes.

nbval executes every code cell of a notebook and compares text. It does not look at pictures, accepts a cell
that was never run, and does not miss a live widget. Here a notebook's cells are also held to this:

- a picture has the pixels and the alt text of the stored one; what differs is saved as files;
- every cell was run, and the stored execution counts are 1, 2, 3, ...;
- a cell tagged `explorer` shows a live widget (what is stored is its picture: see lessons/build.py).

Stored outputs are promised for one platform: requirements.lock on Linux x86-64, without a GPU. Elsewhere
they are not compared: every cell is executed with its asserts, and the run says so at its beginning and end.
COURSE_COMPARE=1 compares all the same, COURSE_COMPARE=0 never.
"""

import base64
import importlib.util
import io
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from nbval import plugin as nbval
from PIL import Image

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")
DRAWING_PACKAGES = ("torch", "numpy", "matplotlib", "ipywidgets")

# The parts of nbval that are overridden or used below.
NBVAL_PARTS = {
    nbval.IPyNbFile: ("collect", "setup", "teardown"),
    nbval.IPyNbCell: ("runtest", "compare_outputs", "repr_failure", "raise_cell_error"),
}
if missing := [
    f"{cls.__name__}.{name}" for cls, names in NBVAL_PARTS.items() for name in names if not hasattr(cls, name)
]:
    raise ImportError(
        f"tests/nbval_hook.py knows nbval 0.11; nbval {metadata.version('nbval')} has no {', '.join(missing)}"
    )


# ------------------------------------------------------------------------------------ compare here, or not


def reasons_not_to_compare(lock: Path) -> list[str]:
    """Why this machine is not the one that stored outputs are promised for; empty if it is."""
    forced = os.environ.get("COURSE_COMPARE", "")
    if forced not in ("", "0", "1"):
        raise pytest.UsageError(
            f"COURSE_COMPARE is {forced!r}: 0 never compares stored outputs, 1 always does"
        )
    if forced:
        return ["COURSE_COMPARE=0"] if forced == "0" else []
    reasons = []
    if (sys.platform, platform.machine()) not in [("linux", "x86_64"), ("linux", "AMD64")]:
        reasons.append(f"this is {platform.system()} {platform.machine()}, not Linux x86-64")
    locked = locked_versions(lock)
    for name in DRAWING_PACKAGES:
        here = installed_version(name)
        if here != locked.get(name):
            reasons.append(f"{name} is {here or 'missing'}, {lock.name} says {locked.get(name, 'nothing')}")
    if importlib.util.find_spec("triton") is None:
        reasons.append("triton is missing")
    if cuda_is_visible():
        reasons.append("a CUDA device is visible")
    return reasons


def locked_versions(lock: Path) -> dict[str, str]:
    """The versions that a lock file pins, by lower-case name, without local parts such as '+cpu'."""
    text = lock.read_text(encoding="utf-8") if lock.exists() else ""
    return {
        name.lower(): version for name, version in re.findall(r"^([\w.-]+)==([^\s;+\\]+)", text, re.MULTILINE)
    }


def installed_version(name: str) -> str | None:
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def cuda_is_visible() -> bool:
    """Whether torch sees a CUDA device. A CPU build is known by its version, without importing it."""
    try:
        if metadata.version("torch").endswith("+cpu"):
            return False
    except metadata.PackageNotFoundError:
        return False
    import torch

    return torch.cuda.is_available()


# -------------------------------------------------------------------------------------- pytest's own hooks


class Comparison:
    """Whether this run compares stored outputs, decided when the first notebook is met."""

    def __init__(self):
        self.reasons: list[str] | None = None  # None: no notebook so far

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(self, file_path, parent):
        """Put a CheckedNotebook where nbval collects a notebook."""
        if file_path.suffix == ".ipynb" and self.reasons is None:
            self.reasons = reasons_not_to_compare(parent.config.rootpath / "requirements.lock")
            if self.reasons:
                parent.config.option.nbval_lax = True
        collected = yield
        return [
            CheckedNotebook.from_parent(parent, path=file_path) if isinstance(node, nbval.IPyNbFile) else node
            for node in collected
        ]

    def pytest_report_collectionfinish(self):
        return f"notebooks: {self.said()}" if self.reasons is not None else None

    def pytest_terminal_summary(self, terminalreporter):
        if self.reasons:
            terminalreporter.section("stored outputs of notebooks")
            terminalreporter.line(self.said())

    def said(self) -> str:
        if not self.reasons:
            return "executed, every stored output compared"
        return f"executed with their asserts; stored outputs NOT compared: {'; '.join(self.reasons)}"


def pytest_configure(config):
    if config.getoption("nbval", False) or config.getoption("nbval_lax", False):
        config.pluginmanager.register(Comparison(), "course-comparison")


# ------------------------------------------------------------------------------------- notebooks and cells

WITHOUT_WEIGHTS = ("02", "03", "05", "06", "10", "11")  # a class starts these at once: nothing is fetched


def without_weights(folder: str) -> dict[str, str]:
    """Environment variables of a kernel that has no weights and gets none: an empty cache, and a network that is shut.

    Matplotlib keeps the font list that it has: making one takes seconds.
    """
    import matplotlib

    shut = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    shut |= {name.upper(): address for name, address in shut.items()}
    offline = {"PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1", "MPLCONFIGDIR": matplotlib.get_cachedir()}
    return {"XDG_CACHE_HOME": str(Path(folder, "empty cache")), **shut, **offline}


class CheckedNotebook(nbval.IPyNbFile):
    """A notebook whose kernel starts as the build starts it, with no state of the user's."""

    def collect(self) -> Iterator["CheckedCell"]:
        expected_count = 0
        for item in super().collect():
            expected_count += bool(item.cell.source.strip())
            checked = CheckedCell.from_parent(
                self, name=item.name, cell_num=item.cell_num, cell=item.cell, options=item.options
            )
            checked.expected_count = expected_count
            yield checked

    def setup(self):
        from lessons.build import kernel_environment

        self.state_home = tempfile.TemporaryDirectory(prefix="course-state-")
        environment = kernel_environment(self.state_home.name)
        if self.path.name.startswith(WITHOUT_WEIGHTS):
            environment |= without_weights(self.state_home.name)
        with mock.patch.dict(os.environ, environment, clear=True):
            super().setup()

    def teardown(self):
        super().teardown()
        self.state_home.cleanup()


class CheckedCell(nbval.IPyNbCell):
    """A code cell, held to its picture, its execution count and its live widget as well."""

    expected_count: int

    def runtest(self):
        super().runtest()
        source, count = self.cell.source.strip(), self.cell.execution_count
        if source and count is None:
            self.raise_cell_error(
                "it was never run: the notebook stores no execution count for it (make notebooks)"
            )
        if source and count != self.expected_count:
            self.raise_cell_error(
                f"stored as In [{count}], but it is code cell {self.expected_count}: "
                "the notebook was not run once, from the top (make notebooks)"
            )
        if "explorer" in self.cell.metadata.get("tags", []):
            shown = [mime for output in self.test_outputs for mime in output.get("data", {})]
            if WIDGET_VIEW not in shown:
                self.raise_cell_error(
                    f"it is tagged explorer, but showed no live widget: no {WIDGET_VIEW} "
                    f"among what it displayed ({', '.join(shown) or 'nothing'})"
                )

    def compare_outputs(self, test, ref, skip_compare=None) -> bool:
        """nbval's comparison of text, and one of pictures and their alt texts."""
        same = super().compare_outputs(test, ref, skip_compare)
        differing = self.differing_pictures(pictures(ref), pictures(test))
        if alt_texts(ref) != alt_texts(test):
            differing.append(f"alt text stored: {alt_texts(ref)}, now: {alt_texts(test)}")
        self.comparison_traceback += differing
        return same and not differing

    def differing_pictures(self, stored: list[bytes], drawn: list[bytes]) -> list[str]:
        """One line for each picture that is not as stored; what differs is saved as files."""
        lines = []
        if len(stored) != len(drawn):
            lines.append(f"the notebook stores {count_of(stored)}, the run drew {count_of(drawn)}")
        for number, (expected, got) in enumerate(zip(stored, drawn, strict=False), 1):
            if expected != got and (what := difference(pixels(expected), pixels(got))):
                lines.append(f"picture {number} of {len(stored)}: {what}")
        if lines:
            lines.append(f"saved in {self.save_pictures(stored, drawn)}")
        return lines

    def save_pictures(self, stored: list[bytes], drawn: list[bytes]) -> Path:
        """Write N-expected.png, N-got.png and, for equal sizes, N-diff.png: white where they differ."""
        folder = self.config._tmp_path_factory.mktemp(
            f"{self.path.stem}-cell-{self.cell_num}-", numbered=True
        )
        for kind, images in (("expected", stored), ("got", drawn)):
            for number, image in enumerate(images, 1):
                (folder / f"{number}-{kind}.png").write_bytes(image)
        for number, (expected, got) in enumerate(
            zip(map(pixels, stored), map(pixels, drawn), strict=False), 1
        ):
            if expected.shape == got.shape:
                differs = (expected != got).any(axis=-1)
                Image.fromarray(np.uint8(255) * differs).save(folder / f"{number}-diff.png")
        return folder

    def repr_failure(self, excinfo):
        """Name notebook, cell as its reader sees it, and first line, above what nbval has to say."""
        first_line = self.cell.source.strip().partition("\n")[0]
        reason = str(excinfo.value).partition("\n")[0]
        name = f"{self.path.parent.name}/{self.path.name}"
        told = (
            f"{name}, In [{self.expected_count}] `{first_line}`: {reason}\n\n{super().repr_failure(excinfo)}"
        )
        return told if self.config.get_terminal_writer().hasmarkup else TERMINAL_CODES.sub("", told)


# ------------------------------------------------------------------------------------------------ pictures


def pictures(outputs: list[dict]) -> list[bytes]:
    """The PNGs among a cell's outputs, in order."""
    return [
        base64.b64decode(data["image/png"]) for o in outputs if "image/png" in (data := o.get("data", {}))
    ]


def alt_texts(outputs: list[dict]) -> list[str | None]:
    """What stands for each PNG where it cannot be seen, in order."""
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    return [output.metadata.get("image/png", {}).get("alt") for output in shown]


def pixels(png: bytes) -> np.ndarray:
    """A PNG's pixels, [height, width, 4]."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def difference(expected: np.ndarray, got: np.ndarray) -> str:
    """How two pictures differ, or '' if they do not."""
    height, width = expected.shape[:2]
    if expected.shape != got.shape:
        return f"stored {width} x {height} pixels, drawn {got.shape[1]} x {got.shape[0]}"
    differs = (expected != got).any(axis=-1)
    if not differs.any():
        return ""
    largest = np.abs(expected.astype(int) - got.astype(int)).max()
    share = f"{differs.sum():,} of {differs.size:,} pixels differ"
    return f"{share} ({width} x {height}; largest difference {largest} of 255)"


def count_of(images: list[bytes]) -> str:
    return f"{len(images)} picture{'' if len(images) == 1 else 's'}"
