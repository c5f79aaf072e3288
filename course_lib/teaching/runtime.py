"""What this machine can do: `doctor()`, the device, Colab."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

from course_lib.serving.weights import DEFAULT_MODEL, cache_dir
from course_lib.teaching import kernel_lab, no_triton


def on_colab() -> bool:
    """True in a Colab notebook, which has this module loaded from the start."""
    return "google.colab" in sys.modules


def setup() -> None:
    """First call of every notebook: a fixed seed, a sensible number of threads, and on Colab what is missing.

    torch's threads wait for each other after every product, spinning. Where they fill all cores, any other busy
    program stalls them: on two cores, SmolLM2 decoded 1 token/s with two threads beside a busy process, and 20
    with one thread (30 and 22 on a quiet machine). So one core is left to the rest.

    Without Triton, cells that need it say so, and show their stored output.

    Colab's own packages are never upgraded: gguf alone is installed if it is missing, and without its
    dependencies, so that pip has no reason to touch torch or numpy.
    """
    torch.manual_seed(0)
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 2) - 1)))
    if on_colab() and importlib.util.find_spec("gguf") is None:
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "gguf"], check=True)
    if not kernel_lab.HERE:
        no_triton.answer_for_it()


def device() -> torch.device:
    """The GPU if torch sees one, else the CPU. Apple's GPU is left alone: greedy tokens are promised in fp32 on
    the CPU and on CUDA."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _version(name: str) -> str | None:
    try:
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return None


def _gpu_row() -> tuple[str, str, str, str]:
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return "✓", "GPU", f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB", ""
    return "○", "GPU", "none", "not needed: everything runs on the CPU, kernels in Triton's interpreter"


def _triton_row() -> tuple[str, str, str, str]:
    if found := _version("triton"):
        return "✓", "triton", found, ""
    return "○", "triton", "none", "there is no Triton here (macOS, Windows): stored results stand in for it"


def _weights_row() -> tuple[str, str, str, str]:
    if (cache_dir() / DEFAULT_MODEL).is_dir():
        return "✓", "weights", DEFAULT_MODEL, ""
    free = shutil.disk_usage(cache_dir().anchor).free / 1e9
    todo = f"load_model() fetches them: 93 MB to download, 0.9 GB of disk ({free:.0f} GB free)"
    return "○", "weights", "not fetched yet", todo


def _package_row(name: str, lowest: tuple[int, int]) -> tuple[str, str, str, str]:
    found = _version(name)
    if found is None:
        return "✗", name, "missing", f"pip install {name}, or run `make setup`"
    if tuple(int(part) for part in found.split(".")[:2]) < lowest:
        return "✗", name, found, f"{'.'.join(map(str, lowest))} or later is needed: run `make setup`"
    return "✓", name, found, ""


def report() -> list[tuple[str, str, str, str]]:
    """Rows of (sign, what, found, what to do); ✗ must be mended, ○ is worth knowing."""
    python = platform.python_version()
    rows = [
        ("✓", "python", python, "")
        if sys.version_info >= (3, 11)
        else ("✗", "python", python, "3.11 or later is needed")
    ]
    lowest = {
        "torch": (2, 11),
        "numpy": (2, 1),
        "matplotlib": (3, 10),
        "ipywidgets": (7, 7),
        "tokenizers": (0, 22),
    }
    rows += [_package_row(name, needed) for name, needed in lowest.items()]
    rows += [_triton_row(), _gpu_row(), _weights_row()]
    rows.append(("✓", "cores", f"{os.cpu_count()} ({torch.get_num_threads()} used by torch)", ""))
    return rows


def doctor() -> None:
    """Print what works here, what does not, and what to do about it."""
    rows = report()
    for sign, what, found, todo in rows:
        print(f"{sign} {what:<11}{found}{'   ' + todo if todo else ''}")
    broken = [what for sign, what, *_ in rows if sign == "✗"]
    print(f"\nmend first: {', '.join(broken)}" if broken else "\nready: every notebook runs on this machine")
