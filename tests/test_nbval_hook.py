"""Each of nbval's holes, planted in a notebook, is caught; a good notebook passes."""

import base64
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import nbval_hook
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]

# What a kernel runs: a picture of one colour, and an explorer, a live widget with its picture beside it.
SETUP = """\
import base64, io, sys, ipywidgets
from IPython.display import display
from PIL import Image
def picture(colour, size=(8, 4)):
    Image.new("RGB", size, colour).save(buffer := io.BytesIO(), "png")
    return {"image/png": base64.b64encode(buffer.getvalue()).decode(), "text/plain": "a picture"}
def explorer(live=True):
    view = {"model_id": ipywidgets.IntSlider().model_id, "version_major": 2, "version_minor": 0}
    widget = {"application/vnd.jupyter.widget-view+json": view}
    return {**picture("red"), **(widget if live else {})}"""


def png(colour: str, size=(8, 4), **options) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "png", **options)
    return base64.b64encode(buffer.getvalue()).decode()


def printed(text: str):
    return new_output("stream", name="stdout", text=text)


def shown(colour: str, size=(8, 4), **options):
    return new_output(
        "display_data", data={"image/png": png(colour, size, **options), "text/plain": "a picture"}
    )


def notebook(*cells) -> nbformat.NotebookNode:
    """A notebook run once from the top, SETUP first; a cell: source, stored outputs, what else it has."""
    nb = new_notebook()
    for count, (source, outputs, *rest) in enumerate([(SETUP, []), *cells], 1):
        nb.cells.append(new_code_cell(source, outputs=outputs, execution_count=count))
        nb.cells[-1].update(*rest)
    return nb


GOOD = notebook(
    ("print('hello')\nprint('err', file=sys.stderr)",
     [printed("hello\n"), new_output("stream", name="stderr", text="err\n")]),
    # The same pixels in other bytes: compressed otherwise.
    ("display(picture('red'), raw=True)", [shown("red", compress_level=0)]),
    ("display(explorer(), raw=True)", [shown("red")], {"metadata": {"tags": ["explorer"]}}),
    ("import time; print(time.time())", [printed("12.5\n")], {"metadata": {"tags": ["nbval-ignore-output"]}}),
    ("import os; os.environ['PYTHONHASHSEED'], os.listdir(os.environ['COURSE_STATE_HOME'])",
     [new_output("execute_result", data={"text/plain": "('0', [])"}, execution_count=6)]),
    ("object()",
     [new_output("execute_result", data={"text/plain": "<object at 0x7f12>"}, execution_count=7)]),
    ("", [], {"execution_count": None}),
)  # fmt: skip

# What is planted, and what the failure must say of it.
PLANTED = [
    ("print('changed')", [printed("as it was\n")], {}, ["mismatch 'stdout'", "as it was", "changed"]),
    ("display(picture('red'), raw=True)", [shown("blue")], {},
     ["picture 1 of 1: 32 of 32 pixels differ (8 x 4; largest difference 255 of 255)", "saved in "]),
    ("display(picture('red'), raw=True) # size", [shown("red", (9, 4))], {},
     ["picture 1 of 1: stored 9 x 4 pixels, drawn 8 x 4", "saved in "]),
    ("print('no picture')",
     [printed("no picture\n"), new_output("display_data", data={"image/png": png("red")})], {},
     ["the notebook stores 1 picture, the run drew 0 pictures"]),
    ("display({'image/png': picture('red')['image/png']}, raw=True)", [], {},
     ["the notebook stores 0 pictures, the run drew 1 picture"]),
    ("display(picture('red'), raw=True, metadata={'image/png': {'alt': 'now'}})", [shown("red")], {},
     ["alt text stored: [None], now: ['now']"]),
    ("x = 1  # never run", [], {"execution_count": None}, ["it was never run"]),
    ("x = 2  # out of order", [], {"execution_count": 99}, ["stored as In [99], but it is code cell 9"]),
    ("display(explorer(live=False), raw=True)", [shown("red")], {"metadata": {"tags": ["explorer"]}},
     ["tagged explorer, but showed no live widget", "image/png, text/plain"]),
    ("1 / 0", [], {}, ["ZeroDivisionError: division by zero"]),
    ("x = 3  # no output, as stored", [], {}, None),
]  # fmt: skip
BAD = notebook(*((source, outputs, rest) for source, outputs, rest, _ in PLANTED))
NOT_COMPARED = {7, 8, 9, 10}  # planted cells that fail wherever they run


@pytest.fixture(scope="module")
def run_pytest(tmp_path_factory):
    """Runs the named notebooks with COURSE_COMPARE as asked, once each; returns pytest's text."""
    folder, told = tmp_path_factory.mktemp("planted"), {}
    nbformat.write(GOOD, folder / "good.ipynb")
    nbformat.write(BAD, folder / "bad.ipynb")

    def run(compare: str, names=("good", "bad")) -> str:
        if compare not in told:
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-c",
                os.devnull,
                "--rootdir",
                str(folder),
                "-p",
                "nbval_hook",
            ]
            command += [
                "--nbval",
                "--nbval-current-env",
                "--nbval-sanitize-with",
                str(ROOT / "tests" / "sanitize.cfg"),
            ]
            command += [
                "-ra",
                "--color=no",
                "-p",
                "no:cacheprovider",
                "--basetemp",
                str(folder / f"tmp{compare}"),
            ]
            paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
            env = {
                **os.environ,
                "COURSE_COMPARE": compare,
                "PYTHONPATH": paths,
                "COURSE_STATE_HOME": "/nowhere",
            }
            command += [str(folder / f"{name}.ipynb") for name in names]
            done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=120)
            told[compare] = done.stdout + done.stderr
        return told[compare]

    return run


def failure(text: str, number: int) -> str | None:
    """What pytest's text says of the failure of cell `number` (nbval counts from 0) of bad.ipynb."""
    failures = re.split(r"^=+ (?:short|stored)", text, flags=re.MULTILINE)[0]
    # Each stands under a line like '____ bad.ipynb::Cell 3 ____'.
    parts = re.split(r"^_+ (\S+?)::Cell (\d+) _+$", failures, flags=re.MULTILINE)
    told = {(name, int(n)): body for name, n, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)}
    return told.get(("bad.ipynb", number))


def test_a_good_notebook_passes(run_pytest):
    text = run_pytest("1")
    assert "notebooks: executed, every stored output compared" in text
    assert not re.search(r"(FAILED|ERROR).*good\.ipynb", text), text
    assert (
        text.rstrip()
        .splitlines()[-1]
        .strip("= ")
        .startswith(f"{len(PLANTED) - 1} failed, {len(GOOD.cells) + 2} passed")
    )


@pytest.mark.parametrize("number", range(1, len(PLANTED) + 1), ids=[source[:40] for source, *_ in PLANTED])
def test_what_is_planted_is_caught(run_pytest, number):
    source, _, _, expected = PLANTED[number - 1]
    told = failure(run_pytest("1"), number)
    if expected is None:
        assert told is None
        return
    for part in [f"bad.ipynb, In [{number + 1}] `{source}`", *expected]:
        assert part in told, told


def test_differing_pictures_are_saved(run_pytest):
    folder = Path(re.search(r"saved in (\S+)", failure(run_pytest("1"), 2))[1])
    colours = {path.name: Image.open(path).convert("RGB").getpixel((0, 0)) for path in folder.iterdir()}
    assert colours == {"1-expected.png": (0, 0, 255), "1-got.png": (255, 0, 0), "1-diff.png": (255, 255, 255)}


def test_without_comparison_cells_still_run_and_the_run_says_so(run_pytest):
    text = run_pytest("0", names=["bad"])
    assert {number for number in range(len(PLANTED) + 1) if failure(text, number)} == NOT_COMPARED
    said = "executed with their asserts; stored outputs NOT compared: COURSE_COMPARE=0"
    lines = text.rstrip().splitlines()
    assert f"notebooks: {said}" in lines and said in lines
    assert lines[-1].startswith("=") and f"{len(NOT_COMPARED)} failed" in lines[-1]


def test_reasons_not_to_compare(tmp_path, monkeypatch):
    """The locked platform has none; each way to leave it is one."""
    monkeypatch.delenv("COURSE_COMPARE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(nbval_hook.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(nbval_hook, "cuda_is_visible", lambda: False)
    monkeypatch.setattr(nbval_hook.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(nbval_hook.metadata, "version", lambda name: "2.0+cpu")
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "Torch==2.0+cpu\nnumpy==2.0\nmatplotlib==2.0 ; python_version > '3'\nipywidgets==2.0 \\\n  --hash=x\n"
    )
    assert nbval_hook.reasons_not_to_compare(lock) == []

    with monkeypatch.context() as patch:
        patch.setattr(nbval_hook.metadata, "version", lambda name: "2.1")
        assert "torch is 2.1, requirements.lock says 2.0" in nbval_hook.reasons_not_to_compare(lock)
    with monkeypatch.context() as patch:
        patch.setattr(nbval_hook.platform, "machine", lambda: "arm64")
        assert "arm64, not Linux x86-64" in nbval_hook.reasons_not_to_compare(lock)[0]
    with monkeypatch.context() as patch:
        patch.setattr(nbval_hook.importlib.util, "find_spec", lambda name: None)
        patch.setattr(nbval_hook, "cuda_is_visible", lambda: True)
        assert nbval_hook.reasons_not_to_compare(lock) == ["triton is missing", "a CUDA device is visible"]
    assert len(nbval_hook.reasons_not_to_compare(tmp_path / "no.lock")) == 4

    monkeypatch.setenv("COURSE_COMPARE", "1")
    assert nbval_hook.reasons_not_to_compare(tmp_path / "no.lock") == []
    monkeypatch.setenv("COURSE_COMPARE", "yes")
    with pytest.raises(pytest.UsageError, match="COURSE_COMPARE is 'yes'"):
        nbval_hook.reasons_not_to_compare(lock)
