"""The bug clinic: eight engines, each with one planted bug.

    patient = clinic.admit("leaking_blocks")      prints the ticket, and runs all that it tells
    patient.log()                                 look around: patient.tables(step), patient.block(7)
    clinic.diagnose("leaking_blocks", cause="c", evidence=7, because="...")
    clinic.code("leaking_blocks")                 the function in which the bug is
    check.leaking_blocks(mended)                  your own in its place; check.hint and check.reveal as for exercises

One file a case. The engine is the course's own, its model the parrot, which needs no weights.
"""

import inspect
import textwrap

from course_lib.teaching import check
from course_lib.teaching.clinic import (
    double_free,
    forgotten_copy,
    late_block,
    leaking_blocks,
    orphan_hash,
    overflow,
    stale_tail,
    starving_victim,
)
from course_lib.teaching.clinic.case import Case, Cause, Trial
from course_lib.teaching.clinic.ward import Patient, Tick, make_engine

__all__ = [
    "CASES",
    "Case",
    "Cause",
    "Patient",
    "Tick",
    "Trial",
    "admit",
    "code",
    "diagnose",
    "experiment",
    "make_engine",
]

ORDER = (
    leaking_blocks,
    late_block,
    forgotten_copy,
    stale_tail,
    orphan_hash,
    double_free,
    overflow,
    starving_victim,
)
CASES = {module.CASE.name: module.CASE for module in ORDER if hasattr(module, "CASE")}


def find(name: str) -> Case:
    """A case by its name.

    Raises:
        ValueError: no such case.
    """
    if name not in CASES:
        raise ValueError(f"no case {name!r}; there are: {', '.join(CASES)}")
    return CASES[name]


def admit(name: str) -> Patient:
    """Print a case's ticket and the four causes, and return the engine after all that the ticket tells."""
    case = find(name)
    patient = case.admit(case.sick)
    print(f"{case.title}   ({case.minutes} min, {case.difficulty})\n")
    print(textwrap.fill(f"“{case.ticket}”", 108))
    if shown := case.shows(patient):
        print(f"\n{shown}")
    print("\nWhat is it?")
    for letter, cause in case.causes.items():
        print(textwrap.fill(cause.claim, 106, initial_indent=f"  {letter}  ", subsequent_indent="     "))
    print(textwrap.fill(f"Evidence: {case.asks}.", 108))
    return patient


def diagnose(name: str, cause: object = ..., evidence: object = ..., because: str = "") -> None:
    """Say what is wrong, by letter, with the evidence that is asked for, and why in a sentence of your own."""
    find(name).diagnose(cause, evidence, because)


def code(name: str) -> None:
    """Print the function in which the bug is."""
    print(inspect.getsource(find(name).sick).rstrip())


def experiment(name: str, guess: object = ...) -> None:
    """Ask the sick engine something new, and hold a prediction against what it does. Without one nothing is told."""
    from course_lib.teaching.clinic.experiments import EXPERIMENTS  # imports the cases from here

    asked = EXPERIMENTS[find(name).name]
    print(textwrap.fill(f"Experiment: {asked.question}", 108))
    if guess is ...:
        print("○ commit to a number first: put it in place of the dots, and run the cell again")
    else:
        check.compare(guess, asked.run(), asked.unit)
        print(textwrap.fill(f"Why: {asked.why}", 108))
