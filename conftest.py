"""pytest reads this file whatever path it is given: no notebook is tested without tests/nbval_hook.py."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "tests")]

pytest_plugins = ["nbval_hook"]
