"""Notebooks where there is no Triton (macOS, Windows): a cell that needs it says so, and shows its stored output."""

import ast
import json
from pathlib import Path

from IPython import get_ipython
from IPython.display import display

from course_lib.teaching.kernel_lab import NoTriton

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def answer_for_it() -> None:
    """From now on a cell that fails for want of Triton ends with a message in place of a traceback."""
    shell = get_ipython()
    if shell is not None and not any(isinstance(each, _Guard) for each in shell.ast_transformers):
        shell.ast_transformers.append(_Guard())
        shell.user_ns["_without_triton"] = _without_triton
        shell.user_ns["_display"] = _display


class _Guard(ast.NodeTransformer):
    """Puts a cell into `with _without_triton:`. What its last line is worth is still displayed."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        if not node.body:
            return node
        if isinstance(node.body[-1], ast.Expr):
            last = node.body[-1]
            last.value = ast.Call(ast.Name("_display", ast.Load()), [last.value], [])
        guarded = ast.With([ast.withitem(ast.Name("_without_triton", ast.Load()))], node.body)
        node.body = [guarded]
        return ast.fix_missing_locations(node)


class _WithoutTriton:
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> bool:
        missing = isinstance(error, ImportError) and (error.name or "").split(".")[0] == "triton"
        if not (missing or isinstance(error, NoTriton)):
            return False
        shell = get_ipython()
        source = shell.user_ns["In"][-1] if shell is not None else ""
        print("○ this cell needs Triton, which is not here (there is none for macOS and Windows).")
        if stored := stored_text(source):
            print(f"  What it printed where the course was built:\n\n{stored}")
        return True


_without_triton = _WithoutTriton()


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
