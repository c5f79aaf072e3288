"""Every Example in a docstring is run, and every public function of the library has one sentence at least."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil

import pytest

import course_lib

MODULES = [
    info.name
    for info in pkgutil.walk_packages(course_lib.__path__, "course_lib.")
    if not info.name.endswith("__main__")
]
if not importlib.util.find_spec("triton"):  # macOS, Windows
    MODULES = [
        name
        for name in MODULES
        if name not in ("course_lib.attention.kernels", "course_lib.attention.cross_compile")
    ]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_says_what_it_is(name):
    module = importlib.import_module(name)
    named = (
        {trial.fault for trial in module.CASE.trials} if hasattr(module, "CASE") else set()
    )  # by their Trial
    named |= {each.run for each in getattr(module, "EXPERIMENTS", {}).values()}  # by their question
    for label, thing in vars(module).items():
        if inspect.isfunction(thing) and thing in named:
            continue
        ours = getattr(thing, "__module__", None) == name and not label.startswith("_")
        if ours and (inspect.isfunction(thing) or inspect.isclass(thing)):
            assert inspect.getdoc(thing), f"{name}.{label} has no docstring"
