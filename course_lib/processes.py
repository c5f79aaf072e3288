"""Other processes of the course: they must find course_lib where this one found it."""

import os
from collections.abc import Mapping
from pathlib import Path


def for_a_child(variables: Mapping[str, str]) -> dict[str, str]:
    """Environment variables for a Python that is to import course_lib too.

    On Colab the course is not installed: a notebook's cell puts its folder on sys.path, which no child inherits.

    Example:
        >>> sorted(for_a_child({"HOME": "/root"}))
        ['HOME', 'PYTHONPATH']
    """
    folders = [str(Path(__file__).resolve().parents[1]), variables.get("PYTHONPATH", "")]
    return {**variables, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
