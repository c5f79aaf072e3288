"""Where kernels are taken apart: run in Triton's interpreter, each load and store watched.

    run_watched(kernel, grid, *arguments)    launches it on CPU tensors; returns the list of accesses

A watched run finds what a GPU would not tell: an access outside of every tensor (a GPU would return another tensor's
numbers, or die), two programs that write the same element (the last one wins, and who is last is chance), and lanes
that a mask turned off and nobody gave a value (undefined on a GPU; here they become NaN).

Where Triton does not exist (macOS, Windows), `triton` and `tl` are stand-ins: kernels can be written and read, and a
launch raises NoTriton, which a notebook answers with its stored output.
"""

import ast
import inspect
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


class NoTriton(RuntimeError):
    """A kernel was launched where Triton does not exist."""


class WildAccess(RuntimeError):
    """A kernel read or wrote outside of every tensor that it was given."""


class Race(RuntimeError):
    """Two programs write the same element."""


class NothingStored(RuntimeError):
    """A kernel has run, and left nothing behind."""


class _AbsentKernel:
    """A kernel that can be read, and not launched."""

    def __init__(self, fn: Callable):
        self.fn = fn
        self.__name__ = fn.__name__

    def __getitem__(self, grid: Sequence[int]) -> Callable:
        def launch(*args, **kwargs):
            raise NoTriton(f"{self.__name__} cannot run: there is no Triton for this system")

        return launch

    def __call__(self, *args, **kwargs):
        raise NoTriton(f"{self.__name__} cannot run: there is no Triton for this system")


class _Absent:
    """Stands for `triton` and for `triton.language`, as far as writing a kernel goes."""

    constexpr = object()

    def jit(self, fn: Callable) -> _AbsentKernel:
        return _AbsentKernel(fn)


# Without a GPU kernels are interpreted. Triton reads this when it is imported for the first time.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

try:
    import triton
    import triton.language as tl

    HERE = True
except ImportError:
    triton, tl = _Absent(), _Absent()
    HERE = False


@dataclass(frozen=True)
class Access:
    """One load or store of one program."""

    program: tuple[int, int, int]
    kind: str  # load or store
    tensor: str  # the parameter's name, without _ptr
    index: np.ndarray  # [...] int64, which element; -1 where masked
    bytes: int  # of the elements that are touched; lanes that touch the same one count once

    @property
    def mask(self) -> np.ndarray:
        return self.index >= 0


def is_kernel(answer: object) -> bool:
    """Whether something was made by @triton.jit."""
    return hasattr(answer, "fn") and inspect.isfunction(answer.fn)


def has_gaps(kernel: Any) -> bool:
    """Whether `...` stands somewhere in a kernel's code: it is not finished."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kernel.fn)))
    return any(isinstance(node, ast.Constant) and node.value is ... for node in ast.walk(tree))


def run_watched(kernel: Any, grid: Sequence[int], *arguments: Any, **named: Any) -> list[Access]:
    """Launch a kernel in the interpreter, also where it would be compiled, and watch it.

    Args:
        kernel: made by @triton.jit.
        grid: programs along each axis, up to three.
        arguments, named: its parameters; tensors on the CPU, other kernels where it takes a function.

    Returns:
        What each program loaded and stored, in the order in which it happened.

    Raises:
        NoTriton: there is none.
        WildAccess: a lane that is not masked touches memory of no tensor.
        Race: two programs write the same element.
        NothingStored: no program has stored anything.
        What the kernel's own code raises.
    """
    if not HERE:
        raise NoTriton(f"{kernel.__name__} cannot run: there is no Triton for this system")
    from triton.runtime.interpreter import InterpretedFunction

    given = inspect.signature(kernel.fn).bind(*arguments, **named).arguments
    given = {name: InterpretedFunction(each.fn) if is_kernel(each) else each for name, each in given.items()}
    tensors = {
        name.removesuffix("_ptr"): each for name, each in given.items() if isinstance(each, torch.Tensor)
    }
    with _watching(tensors) as accesses, np.errstate(all="ignore"):  # inf and NaN are the kernel's own affair
        try:
            InterpretedFunction(kernel.fn)[tuple(grid)](**given)
        except Exception as error:
            raise _root(error) from None
    if not any(access.kind == "store" for access in accesses):
        raise NothingStored(f"{kernel.__name__} has run, and nothing is stored")
    _check_races(accesses)
    return accesses


def bytes_moved(accesses: Sequence[Access]) -> dict[str, int]:
    """Bytes loaded and stored, by tensor."""
    moved: dict[str, int] = {}
    for access in accesses:
        if access.bytes:
            moved[access.tensor] = moved.get(access.tensor, 0) + access.bytes
    return moved


def _check_races(accesses: Sequence[Access]) -> None:
    writers: dict[tuple[str, int], tuple] = {}
    for access in accesses:
        if access.kind == "store":
            for element in access.index[access.mask].tolist():
                first = writers.setdefault((access.tensor, element), access.program)
                if first != access.program:
                    raise Race(
                        f"programs {first} and {access.program} both write element {element} of {access.tensor}"
                    )


def _root(error: BaseException) -> BaseException:
    """What the interpreter wrapped."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _watching(tensors: dict[str, torch.Tensor]):
    """The interpreter's loads and stores are checked and written down while this lasts.

    Where kernels are compiled, a function that a kernel calls (tl.sum is one) is interpreted, too.
    """
    from triton.runtime import interpreter
    from triton.runtime.jit import JITFunction

    builder, accesses = interpreter.interpreter_builder, []
    load, store = builder.create_masked_load, builder.create_masked_store

    def note(kind: str, addresses: np.ndarray, mask: np.ndarray) -> None:
        mask = np.broadcast_to(mask, addresses.shape)
        program = tuple(int(index) for index in builder.grid_idx)
        accesses.append(_locate(tensors, program, kind, addresses, mask))

    def watched_load(pointers, mask, other, *options):
        note("load", pointers.data, mask.data)
        loaded = load(pointers, mask, other, *options)
        if other is None and not mask.data.all():  # undefined on a GPU
            loaded.data[~np.broadcast_to(mask.data, loaded.data.shape)] = _garbage(loaded.data.dtype)
        return loaded

    def watched_store(pointers, value, mask, *options):
        note("store", pointers.data, mask.data)
        return store(pointers, value, mask, *options)

    def interpreted_call(function, *arguments, **named):
        return interpreter.InterpretedFunction(function.fn)(*arguments, **named)

    language, compiled_call = _language_as_it_is(), JITFunction.__call__
    builder.create_masked_load, builder.create_masked_store = watched_load, watched_store
    JITFunction.__call__ = interpreted_call
    try:
        yield accesses
    finally:
        JITFunction.__call__ = compiled_call
        _restore(language)
        del builder.create_masked_load, builder.create_masked_store


def _language_as_it_is() -> list[tuple[object, dict]]:
    """The modules and classes of Triton's language with their attributes.

    The interpreter replaces some of them and does not always put them back; then nothing compiles any more.
    """
    modules = [each for name, each in sys.modules.items() if name.startswith("triton.language")]
    classes = {each for module in modules for each in vars(module).values() if inspect.isclass(each)}
    ours = [each for each in classes if each.__module__.startswith("triton.language")]
    return [(holder, dict(vars(holder))) for holder in (*modules, *ours)]


def _restore(language: list[tuple[object, dict]]) -> None:
    for holder, attributes in language:
        for name, value in attributes.items():
            if vars(holder).get(name) is not value:
                setattr(holder, name, value)


def _garbage(dtype: np.dtype) -> float | int:
    return np.nan if dtype.kind == "f" else np.iinfo(dtype).max


def _locate(
    tensors: dict[str, torch.Tensor], program: tuple, kind: str, addresses: np.ndarray, mask: np.ndarray
) -> Access:
    """Which elements of which tensor are touched."""
    addresses = addresses.astype(np.int64)
    touched = addresses[mask]
    for name, tensor in tensors.items():
        place = addresses - tensor.data_ptr()
        size = tensor.element_size()
        if touched.size and ((place[mask] >= 0) & (place[mask] < size * tensor.numel())).all():
            index = np.where(mask, place // size, -1)
            return Access(program, kind, name, index, len(np.unique(index[mask])) * size)
    if touched.size == 0:
        return Access(program, kind, "", np.full(addresses.shape, -1), 0)
    raise WildAccess(_tell_wild(tensors, program, kind, touched))


def _tell_wild(tensors: dict[str, torch.Tensor], program: tuple, kind: str, touched: np.ndarray) -> str:
    """The first address that is in no tensor, told from the tensor that is nearest."""

    def reach(name: str) -> tuple[int, int, int]:
        tensor = tensors[name]
        first, last = tensor.data_ptr(), tensor.data_ptr() + tensor.element_size() * tensor.numel()
        outside = touched[(touched < first) | (touched >= last)]
        gap = np.maximum(first - outside, outside - last)
        worst = int(gap.argmin())
        return int(gap[worst]), int(outside[worst] - first) // tensor.element_size(), tensor.numel()

    name = min(tensors, key=lambda each: reach(each)[0])
    _, element, count = reach(name)
    verb = "reads" if kind == "load" else "writes"
    return f"program {program} {verb} element {element:,} of {name}, which has {count:,}"
