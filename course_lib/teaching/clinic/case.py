"""A case of the clinic: a working engine with one planted bug, and how an answer to it is judged.

A case has two questions. *What is wrong?* is answered by one of four causes **and** a piece of evidence, a number that
stands in the records and that nobody guesses; a cause without it is a guess. *Mend it* is answered by a function that
takes the place of the sick one. It is tried in several trials: the first is the symptom itself, the others are what a
healthy engine owes besides. Who hides the symptom passes the first, and fails one of them.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field

from course_lib.teaching import check

SECONDS = 20.0  # for each trial of an answer
CRASH = "it crashes"  # how the fault of a trial begins whose engine has crashed, with the error after it


@dataclass(frozen=True)
class Trial:
    """Something that a healed engine must do."""

    name: str  # what is tried, in a few words
    fault: Callable[[Callable], str | None]  # (the learner's function) -> what is wrong, or None
    look_at: str  # where to look if it is


@dataclass(frozen=True)
class Cause:
    """What it might be."""

    claim: str
    speaks_against: str  # the observation that rules it out; of the true cause: what it explains


@dataclass(frozen=True)
class Case:
    """One planted bug.

    It has the names by which `check` knows an exercise: name, minutes, difficulty, proves, hints, solution, judge.
    """

    name: str
    title: str
    minutes: int
    difficulty: str  # easy, medium or hard
    ticket: str  # as whoever runs the engine wrote it
    causes: dict[str, Cause]  # by letter
    cause: str  # the letter of the true one
    asks: str  # which evidence goes with the diagnosis
    evidence: Callable[[object], object]  # (patient) -> the evidence, read from its records
    where: str  # how one finds it, told after a wrong one
    points: tuple[str, ...]  # what a full explanation says
    sick: Callable  # the function with the bug
    solution: Callable  # the true fix
    admit: Callable[[Callable], object]  # (the function) -> a patient, after all that the ticket tells
    trials: tuple[Trial, ...]  # the symptom first
    hints: tuple[str, str, str]  # idea, pseudocode, code
    proves: str  # what a passing fix shows, in a line
    shows: Callable[[object], str] = field(default=lambda patient: "")  # lines printed below the ticket

    def judge(self, answer: object) -> "check.Diagnosis | str":
        """The verdict on a fix: "not attempted", "passed", or a Diagnosis."""
        if answer is ...:
            return "not attempted"
        if not callable(answer):
            return check.Diagnosis(
                f"{type(answer).__name__} is no function", None, "the function itself", check.show(answer),
                f"pass the function without calling it: check.{self.name}(your_function)",
            )  # fmt: skip
        if untouched(answer, self.sick):
            return "not attempted"
        for number, trial in enumerate(self.trials):
            fault, error = check.run_limited(trial.fault, [answer], SECONDS)
            if fault := error or fault:
                verdict = "the symptom is gone, the fault is not" if number else self._verdict(fault, error)
                return check.Diagnosis(
                    f"{verdict}: {trial.name}", None, "a healthy engine", fault, trial.look_at
                )
        return "passed"

    def _verdict(self, fault: str, error: str | None) -> str:
        """On an answer that fails the trial of the symptom: does it show the symptom, or break in a way of its own?"""
        if error or fault.startswith(CRASH):
            sick, _ = check.run_limited(self.trials[0].fault, [self.sick], SECONDS)
            if _kind(fault) != _kind(sick or ""):
                return "it breaks something else"
        return "the symptom is still there"

    def diagnose(self, cause: object = ..., evidence: object = ..., because: str = "") -> None:
        """Print whether a diagnosis is right, wrong, or a lucky guess."""
        if cause is ...:
            print(f"○ {self.name}: no diagnosis yet. Choose a cause, and give {self.asks}")
            return
        cause = cause.lower() if isinstance(cause, str) else cause
        if cause not in self.causes:
            print(f"○ {self.name}: the causes are {', '.join(self.causes)}, not {cause!r}")
            return
        if cause != self.cause:
            print(f"✗ {self.name}: not {cause}. {self.causes[cause].speaks_against}")
            return
        truth = self.evidence(self.admit(self.sick))
        if evidence is ... or not check.same(_listed(truth), _listed(evidence), 1e-6):
            seen = "no evidence" if evidence is ... else f"the evidence is not {check.show(evidence)}"
            print(
                f"○ {self.name}: {cause} may be right, but {seen}. A guess is no diagnosis: give {self.asks}"
            )
            print(f"  look at   {self.where}")
            return
        if (length := len(because.split())) < 5:
            words = (
                f"that is {length} words: say it to somebody who has not seen the numbers"
                if length
                else "because=..."
            )
            print(f"○ {self.name}: {cause}, and the evidence fits. Now say why in a sentence: {words}")
            return
        check.note(self.name, diagnosed=True)
        print(f"✓ {self.name}: {cause}, and the evidence fits. {self.causes[cause].speaks_against}")
        print("  Does your sentence say")
        for point in self.points:
            print(textwrap.fill(point, 106, initial_indent="  - ", subsequent_indent="    "))


def untouched(answer: Callable, sick: Callable) -> bool:
    """Whether a function is still the sick one: the same statements, whatever its name, docstring and comments."""
    try:
        return _statements(answer) == _statements(sick)
    except (OSError, TypeError, SyntaxError, ValueError):  # there is no source to be had, or more than it
        return getattr(answer, "__code__", None) == sick.__code__


def _statements(function: Callable) -> list[str]:
    """Arguments and body of a function, without its docstring."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    body = tree.body[1:] if ast.get_docstring(tree) else tree.body
    return [ast.dump(tree.args), *map(ast.dump, body)]


def _kind(fault: str) -> str:
    """Which error a fault tells of: its name, without what it says."""
    return fault.removeprefix(CRASH).strip(" :").split(":")[0]


def _listed(evidence: object) -> object:
    """Lists, tuples and sets are alike."""
    if isinstance(evidence, (set, frozenset)):
        return sorted(evidence)
    return [_listed(each) for each in evidence] if isinstance(evidence, (list, tuple)) else evidence
