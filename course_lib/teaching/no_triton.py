"""Notebooks where there is no Triton (macOS, Windows): a cell that needs it says so, and shows its stored output."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from IPython import get_ipython
from IPython.display import display

from course_lib.teaching.kernel_lab import NoTriton

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def answer_for_it() -> None:
    """From now on a cell that fails for want of Triton ends with a message in place of a traceback."""
    shell = get_ipython()
    if shell is not None and "_without_triton" not in shell.user_ns:
        guard = _WithoutTriton()
        shell.ast_transformers.append(_Guard(guard))
        shell.user_ns |= {"_without_triton": guard, "_display": _display}


class _Guard(ast.NodeTransformer):
    """Puts a cell into `with _without_triton:`. What its last line is worth is still displayed."""

    def __init__(self, guard: "_WithoutTriton"):
        self.guard = guard

    def visit_Module(self, node: ast.Module) -> ast.Module:
        if not node.body:
            return node
        self.guard.names = set(_names_made(node))
        if isinstance(node.body[-1], ast.Expr):
            last = node.body[-1]
            last.value = ast.Call(ast.Name("_display", ast.Load()), [last.value], [])
        guarded = ast.With([ast.withitem(ast.Name("_without_triton", ast.Load()))], node.body)
        node.body = [guarded]
        return ast.fix_missing_locations(node)


def _names_made(node: ast.AST) -> Iterator[str]:
    """Names that a cell assigns or imports."""
    for each in ast.walk(node):
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            yield each.id
        elif isinstance(each, ast.alias):
            yield each.asname or each.name


class _WithoutTriton:
    """Ends a cell that needs Triton, or a name that such a cell would have made."""

    def __init__(self):
        self.names: set[str] = set()  # that the cell makes
        self.missing: set[str] = set()  # that cells before it did not come to make

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> bool:
        missing = isinstance(error, ImportError) and (error.name or "").split(".")[0] == "triton"
        missing |= isinstance(error, NameError) and error.name in self.missing
        if not (missing or isinstance(error, NoTriton)):
            return False
        shell = get_ipython()
        self.missing |= {name for name in self.names if name not in shell.user_ns}
        source = shell.user_ns["In"][-1]
        print("○ this cell needs Triton, which is not here (there is none for macOS and Windows).")
        if stored := stored_text(source):
            print(f"  What it printed where the course was built:\n\n{stored}")
        return True


def _display(value: object) -> None:
    if value is not None:
        display(value)


def stored_text(source: str) -> str:
    """What a cell of the course printed when its notebook was built; empty if there is no such cell."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code" and "".join(cell["source"]).strip() == source.strip():
                return "".join("".join(output.get("text", "")) for output in cell["outputs"]).rstrip()
    return ""
