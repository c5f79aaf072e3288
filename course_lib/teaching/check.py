"""Checks for the exercises: `check.<exercise>(your_answer)` says what is right, and what is wrong and why.

A check runs your answer on a few inputs and looks at what it does, never at how it is written. It reports
and never raises. `check.hint("name")` gives one more hint each time, `check.reveal("name")` the solution,
`check.progress()` what you have done.
"""

import base64
import copy
import ctypes
import inspect
import json
import os
import threading
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import torch

from course_lib.teaching import kernel_lab

if TYPE_CHECKING:
    from course_lib.teaching.clinic.case import Case

TIME_LIMIT_SECONDS = 5.0


@dataclass(frozen=True)
class Mistake:
    """A wrong solution that people write, and where to look when an answer behaves like it."""

    headline: str
    look_at: str
    wrong: Callable


@dataclass(frozen=True)
class Exercise:
    """One exercise: what is asked, how it is judged, how to help.

    An answer is judged by its outcome on `cases`: what it returns, and what it did to the arguments named in
    `may_change`. The first of the `mistakes` that behaves as the answer does on every case gives the diagnosis.

    Where the answer to each case is one of a few names (`choices`), each case is judged for itself: a mistake need only
    behave as the answer does on the case that is shown, `...` in some cases is work still to do, and what is expected
    is not told.
    """

    name: str
    minutes: int
    difficulty: str  # easy, medium or hard
    proves: str  # what a passing answer shows, in a line
    solution: Callable
    cases: Callable[[], list[dict]]  # fresh keyword arguments for each case
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, str, str]  # idea, pseudocode, code
    look_at: str  # when no known mistake fits
    may_change: frozenset[str] = frozenset()
    tolerance: float = 1e-5
    choices: tuple[str, ...] | None = None  # the names of which every case wants one
    launch: Callable | None = (
        None  # for a kernel: launch(kernel, *arguments of a case) runs it, and returns its result
    )

    def judge(self, answer: object) -> "Diagnosis | str":
        """The verdict on an answer: "not attempted", "no Triton", "passed", or a Diagnosis."""
        return judge(self, answer)


@dataclass(frozen=True)
class Outcome:
    """What an answer did on one case."""

    value: object = None
    changed: dict[str, object] = field(default_factory=dict)  # the arguments in may_change, afterwards
    error: str | None = None  # it raised, or ran out of time
    spoiled: str | None = None  # an argument it must not change, and did


@dataclass(frozen=True)
class Diagnosis:
    headline: str
    case: dict | None
    expected: str
    got: str
    look_at: str


# -- running an answer --------------------------------------------------------------------------------------


# What a watched kernel is stopped for: headline, and where to look.
WATCHED = {
    "WildAccess": (
        "it touches memory that is not its own",
        "which lanes may touch memory at all? The others need a mask; or an index is wrong",
    ),
    "NothingStored": ("nothing is stored", "tl.store(pointers, value, mask=...) writes the result"),
    "Race": (
        "two programs write the same place",
        "each program writes its own rows only: is the mask right, and do the rows depend on the program's number?",
    ),
}
# What Triton says of usual slips, and what it means.
KERNEL_SLIPS = {
    "object is not iterable": "a pointer is not indexed: tl.load(pointer + offsets) reads",
    "invalid operands of type pointer": "a pointer is an address: tl.load(pointer + offsets) reads what is there",
    "unsupported operand type(s) for @": "matrices are multiplied by tl.dot(a, b)",
    "ranks": "tl.dot multiplies matrices; for a vector, multiply and add: tl.sum(a * b, axis=...)",
}


class _TimeUp(BaseException):
    pass


def run_limited(function: Callable, args: list, seconds: float) -> tuple[object, str | None]:
    """Call a function in a thread of its own: (value, None), or (None, what went wrong).

    When time is up an exception is raised inside the thread, which ends a loop of Python code everywhere,
    Windows and Jupyter included.
    """
    result: dict[str, object] = {}

    def work() -> None:
        try:
            result["value"] = function(*args)
        except _TimeUp:
            pass
        except BaseException as error:  # an answer may raise anything, SystemExit too
            result["error"] = _describe_error(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_TimeUp))
        thread.join(1.0)
        return None, f"still running after {seconds:g} s"
    return result.get("value"), result.get("error")


def _describe_error(error: BaseException) -> str:
    exercises, triton = str(Path(__file__).parent / "exercises"), os.path.join("site-packages", "triton")
    ours = __file__, kernel_lab.__file__, exercises, triton
    where = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(part in frame.filename for part in ours)
    ]
    place = f", line {where[0].lineno}: {where[0].line}" if where and where[0].line else ""
    return f"{type(error).__name__}: {error}".splitlines()[0] + place


def outcomes(exercise: Exercise, answer: Callable, seconds: float = TIME_LIMIT_SECONDS) -> list[Outcome]:
    """Run an answer on every case, up to the first that fails to return."""
    found = []
    for kwargs in exercise.cases():
        before = copy.deepcopy(kwargs)
        arguments = list(kwargs.values())  # by position: names are yours
        if kernel_lab.is_kernel(answer):
            value, error = run_limited(exercise.launch, [answer, *arguments], seconds)
        else:
            value, error = run_limited(answer, arguments, seconds)
        changed = {name: kwargs[name] for name in sorted(exercise.may_change)}
        spoiled = [
            name for name in before if name not in changed and not same(before[name], kwargs[name], 0.0)
        ]
        found.append(Outcome(value, changed, error, spoiled[0] if spoiled else None))
        if error:
            break
    return found


# -- comparing ----------------------------------------------------------------------------------------------


def same(expected: object, got: object, tolerance: float) -> bool:
    """Equal in type, shape, dtype and value; floats within the tolerance."""
    return difference(expected, got, tolerance) is None


def difference(expected: object, got: object, tolerance: float) -> str | None:
    """What sets two values apart, in a few words, or None."""
    if isinstance(expected, torch.Tensor):
        if not isinstance(got, torch.Tensor):
            return f"a tensor is expected, not {type(got).__name__}"
        if expected.shape != got.shape:
            return f"the shape should be {list(expected.shape)}, not {list(got.shape)}"
        if expected.dtype != got.dtype:
            return f"the dtype should be {expected.dtype}, not {got.dtype}"
        if expected.is_floating_point():
            close = torch.allclose(
                expected.double(), got.double(), rtol=tolerance, atol=tolerance, equal_nan=True
            )
        else:
            close = torch.equal(expected, got)
        return None if close else "the values differ"
    if isinstance(expected, (list, tuple)):
        if type(got) is not type(expected):
            return f"a {type(expected).__name__} is expected, not {type(got).__name__}"
        if len(expected) != len(got):
            return f"the length should be {len(expected)}, not {len(got)}"
        pairs = zip(expected, got, strict=True)
        return next((why for e, g in pairs if (why := difference(e, g, tolerance))), None)
    if isinstance(expected, bool) or expected is None or isinstance(expected, str):
        return None if type(got) is type(expected) and got == expected else "the value differs"
    if isinstance(expected, int):
        if isinstance(got, bool) or not hasattr(got, "__index__"):
            return f"an int is expected, not {type(got).__name__}"
        return None if int(got) == expected else "the value differs"
    if isinstance(expected, float):
        if isinstance(got, bool) or not isinstance(got, (int, float)):
            return f"a number is expected, not {type(got).__name__}"
        return None if abs(got - expected) <= tolerance * max(1.0, abs(expected)) else "the value differs"
    return None if expected == got else "the value differs"


def show(value: object) -> str:
    """A value in one short line."""
    if isinstance(value, torch.Tensor):
        numbers = [_number(number) for number in value.flatten()[:4].tolist()]
        dots = ", ..." if value.numel() > 4 else ""
        return f"tensor {list(value.shape)} {str(value.dtype).removeprefix('torch.')} [{', '.join(numbers)}{dots}]"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    if isinstance(value, float):
        return repr(float(f"{value:.6g}"))
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _number(number: float | int | bool) -> str:
    return (
        f"{number:.4g}"
        if isinstance(number, float)
        else f"{number:,}"
        if type(number) is int
        else str(number)
    )


def _show_argument(name: str, value: object) -> str:
    if isinstance(value, torch.Tensor):
        few = value.numel() <= 4
        return (
            f"{name}={', '.join(map(_number, value.flatten().tolist()))}"
            if few
            else f"{name} {list(value.shape)}"
        )
    return f"{name}={show(value)}"


# -- judging ------------------------------------------------------------------------------------------------


def judge(exercise: Exercise, answer: object, seconds: float = TIME_LIMIT_SECONDS) -> Diagnosis | str:
    """The verdict: "not attempted", "no Triton", "passed", or a Diagnosis."""
    if answer is ...:
        return "not attempted"
    if not callable(answer):
        return Diagnosis(
            f"{type(answer).__name__} is no function", None, "the function itself", show(answer),
            f"pass the function without calling it: check.{exercise.name}(your_function)",
        )  # fmt: skip
    if exercise.launch:
        if not kernel_lab.is_kernel(answer):
            return Diagnosis(
                "it is a Python function and no kernel", None, "a function under @triton.jit", show(answer),
                "keep the line @triton.jit above it",
            )  # fmt: skip
        if kernel_lab.has_gaps(answer):
            return "not attempted"
        if not kernel_lab.HERE:
            return "no Triton"
    return _verdict(exercise, answer, seconds)


def _verdict(exercise: Exercise, answer: Callable, seconds: float = TIME_LIMIT_SECONDS) -> Diagnosis | str:
    """ "not attempted", "passed" or a Diagnosis, by what the answer does."""
    got = outcomes(exercise, answer, seconds)
    if exercise.choices:
        return _verdict_on_choices(exercise, got)
    if any(outcome.value is ... for outcome in got):
        return "not attempted"
    right = outcomes(exercise, exercise.solution)
    for kwargs, outcome, truth in zip(exercise.cases(), got, right, strict=False):
        if why := _fault(outcome, truth, exercise.tolerance):
            return _diagnose(exercise, kwargs, outcome, truth, got, why)
    return "passed"


def _verdict_on_choices(exercise: Exercise, got: list[Outcome]) -> Diagnosis | str:
    """The first choice that is wrong is explained; else what is still to choose. The right one is not told."""
    if all(outcome.value is ... for outcome in got):
        return "not attempted"
    right = outcomes(exercise, exercise.solution)
    judged = list(zip(exercise.cases(), got, right, strict=False))
    num_right = sum(_fault(outcome, truth, 0.0) is None for _, outcome, truth in judged)
    so_far = f"{num_right} of {len(right)} are right"
    for index, (case, outcome, truth) in enumerate(judged):
        if outcome.value is ... or not (why := _fault(outcome, truth, 0.0)):
            continue
        if outcome.error or outcome.spoiled or outcome.value is None:
            told = _diagnose(exercise, case, outcome, truth, got, why)
            return replace(told, expected=f"one of the names ({so_far})")
        if not isinstance(outcome.value, str) or outcome.value not in exercise.choices:
            why = "that is none of the names"
        for mistake in exercise.mistakes:
            if same(mistake.wrong(*exercise.cases()[index].values()), outcome.value, 0.0):
                return Diagnosis(
                    mistake.headline, case, f"another name ({so_far})", show(outcome.value), mistake.look_at
                )
        return Diagnosis(why, case, f"one of the names ({so_far})", show(outcome.value), exercise.look_at)
    for case, outcome, _ in judged:
        if outcome.value is ...:
            headline = f"{so_far}, the others are still to choose"
            return Diagnosis(headline, case, "one of the names", "...", "go on: each is judged for itself")
    return "passed"


def _fault(outcome: Outcome, truth: Outcome, tolerance: float) -> str | None:
    """Why an outcome is wrong, in a few words, or None."""
    if outcome.error:
        return outcome.error
    if outcome.spoiled:
        return f"it changed its argument {outcome.spoiled}"
    if outcome.value is None and truth.value is not None:
        return "it returned None"
    if why := difference(truth.value, outcome.value, tolerance):
        return why
    for name, value in truth.changed.items():
        if why := difference(value, outcome.changed[name], tolerance):
            return f"{name} is not as it should be afterwards: {why}"
    return None


def _diagnose(
    exercise: Exercise, case: dict, outcome: Outcome, truth: Outcome, got: list[Outcome], why: str
) -> Diagnosis:
    expected, shown = _shown(truth, outcome)
    if outcome.error and outcome.error.startswith("still running"):
        return Diagnosis("it did not finish", case, expected, outcome.error, "a loop that never ends?")
    if outcome.error:
        kind = outcome.error.split(":")[0]
        if kind in WATCHED:
            return Diagnosis(WATCHED[kind][0], case, expected, outcome.error, WATCHED[kind][1])
        slips = KERNEL_SLIPS.items() if exercise.launch else ()
        look_at = next((meant for said, meant in slips if said in outcome.error), "the line that raised")
        return Diagnosis(f"it raised {kind}", case, expected, outcome.error, look_at)
    if outcome.spoiled:
        look_at = f"work on a copy: {outcome.spoiled} belongs to the caller"
        return Diagnosis(why, case, f"{outcome.spoiled} as it was", "other contents", look_at)
    for mistake in exercise.mistakes:
        if _behaves_like(exercise, mistake.wrong, got):
            return Diagnosis(mistake.headline, case, expected, shown, mistake.look_at)
    if outcome.value is None and truth.value is not None:
        return Diagnosis(why, case, expected, "None", "is a `return` missing?")
    if _has_nan(outcome.value) and not _has_nan(truth.value):
        look_at = "inf - inf, 0 x inf, 0 / 0 and 0 x NaN are NaN: where does one arise?"
        return Diagnosis("NaN, where a number is expected", case, expected, shown, look_at)
    ours = any(word in why for word in ("differ", "afterwards", "length"))
    look_at = exercise.look_at if ours else "what it is asked to return"
    return Diagnosis(why, case, expected, shown, look_at)


def _has_nan(value: object) -> bool:
    values = value if isinstance(value, (tuple, list)) else (value,)
    return any(isinstance(each, torch.Tensor) and bool(each.isnan().any()) for each in values)


def _shown(truth: Outcome, outcome: Outcome) -> tuple[str, str]:
    """Expected and got: the returned value if that differs, else the first changed argument that does."""
    pairs = [("", truth.value, outcome.value)]
    pairs += [(f"{name} ", value, outcome.changed[name]) for name, value in truth.changed.items()]
    name, expected, got = next((pair for pair in pairs if not same(*pair[1:], 1e-5)), pairs[0])
    both_tensors = isinstance(expected, torch.Tensor) and isinstance(got, torch.Tensor)
    if both_tensors and expected.dim() and expected.shape == got.shape and expected.dtype == got.dtype:
        gap = (expected.double() - got.double()).abs().nan_to_num(torch.inf)
        worst = torch.unravel_index(gap.argmax(), gap.shape)  # where they differ most
        place = tuple(int(index) for index in worst)
        where = f"at [{', '.join(map(str, place))}] of {name}[{', '.join(map(str, expected.shape))}]"
        return f"{_number(expected[place].item())} {where}", _number(got[place].item())
    return name + show(expected), name + show(got)


def _behaves_like(exercise: Exercise, wrong: Callable, got: list[Outcome]) -> bool:
    planted = outcomes(exercise, wrong)
    if len(planted) != len(got):
        return False
    return all(
        not a.error
        and same(a.value, b.value, exercise.tolerance)
        and all(same(a.changed[name], b.changed[name], exercise.tolerance) for name in a.changed)
        for a, b in zip(planted, got, strict=True)
    )


# -- what the learner calls ---------------------------------------------------------------------------------


def _report(exercise: "Exercise | Case", answer: object) -> None:
    try:
        verdict = exercise.judge(answer)
    except Exception as error:  # a check never raises: a fault of ours must not look like the learner's
        print(
            f"? {exercise.name}: the check itself failed ({type(error).__name__}: {error}). Please report it."
        )
        return
    if verdict == "not attempted":
        print(f"○ {exercise.name}: not attempted yet   ({exercise.minutes} min, {exercise.difficulty})")
        return
    if verdict == "no Triton":
        print(f"○ {exercise.name}: kernels need Triton, which is not here: solve it on Linux or in Colab")
        return
    record = _load_progress()
    entry = record.setdefault(exercise.name, {"tries": 0, "passed": False})
    entry["tries"] = entry.get("tries", 0) + 1
    if verdict == "passed":
        entry["passed"] = True
        print(f"✓ {exercise.name}   {exercise.proves}")
    else:
        print(f"✗ {exercise.name}: {verdict.headline}")
        if verdict.case is not None:
            print(
                "  input     "
                + ", ".join(_show_argument(name, value) for name, value in verdict.case.items())
            )
        print(f"  expected  {verdict.expected}\n  got       {verdict.got}\n  look at   {verdict.look_at}")
        print(f'  stuck?    check.hint("{exercise.name}")')
    _save_progress(record)


def hint(name: str) -> None:
    """Print one more hint: the idea, then pseudocode, then code."""
    exercise = _find(name)
    if exercise is None:
        return
    record = _load_progress()
    entry = record.setdefault(name, {"tries": 0, "passed": False})
    step = min(entry.get("hints", 0), len(exercise.hints) - 1)
    entry["hints"] = step + 1
    _save_progress(record)
    print(f"hint {step + 1} of {len(exercise.hints)}\n{exercise.hints[step]}")


def reveal(name: str) -> None:
    """Print the solution."""
    exercise = _find(name)
    if exercise is None:
        return
    record = _load_progress()
    record.setdefault(name, {"tries": 0, "passed": False})["revealed"] = True
    _save_progress(record)
    print(inspect.getsource(getattr(exercise.solution, "fn", exercise.solution)).rstrip())


def note(name: str, **facts: object) -> None:
    """Write something down beside an exercise's tries."""
    record = _load_progress()
    record.setdefault(name, {"tries": 0, "passed": False}).update(facts)
    _save_progress(record)


def progress() -> None:
    """Print the whole course: every exercise with what you have done so far, by notebook, and the interview drill."""
    record, solved, count = _load_progress(), 0, 0
    for lesson, exercises in _by_lesson().items():
        for number, exercise in enumerate(exercises):
            entry = record.get(exercise.name, {})
            sign = "✓" if entry.get("passed") else "✗" if entry.get("tries") else "○"
            head = "  " if number else lesson
            line = f"{head} {sign} {exercise.name:24}{exercise.minutes:3} min  {exercise.difficulty:8}"
            print((line + ", ".join(_deeds(entry))).rstrip())
            solved += bool(entry.get("passed"))
            count += 1
    print(f"11   interview: {_interview()}")
    print(f"{solved} of {count} solved")


def _interview() -> str:
    from course_lib.teaching import drill  # imports this module in its turn

    return drill.progress(drill.questions(), drill.load_record(), date.today())


def _deeds(entry: dict) -> list[str]:
    """What was done about one exercise, in words."""
    counted = [(entry.get("tries"), "try", "tries"), (entry.get("hints"), "hint", "hints")]
    told = [f"{count} {one if count == 1 else many}" for count, one, many in counted if count]
    told += ["diagnosed"] if entry.get("diagnosed") else []
    return told + (["solution seen"] if entry.get("revealed") else [])


def export_progress() -> str:
    """Your progress, the interview drill's record included, as one line for `check.import_progress` elsewhere."""
    from course_lib.teaching import drill

    whole = {"exercises": _load_progress(), "drill": drill.write_cards(drill.load_record())}
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(whole).encode())).decode()


def import_progress(line: str) -> None:
    """Take over progress from `export_progress`. What either side has solved, or diagnosed, stays so; of a question
    in the drill the side counts that was asked it more often."""
    from course_lib.teaching import drill

    try:
        other = json.loads(zlib.decompress(base64.urlsafe_b64decode(line.strip())))
        done = {name: entry for name, entry in other["exercises"].items() if _done(entry)}
        cards = drill.read_cards(other["drill"])
    except (ValueError, TypeError, KeyError, zlib.error, AttributeError):
        print("✗ this is no line from check.export_progress(): copy the whole of it")
        return
    record, asked = _load_progress(), drill.load_record()
    for name, entry in done.items():
        record[name] = {**record.get(name, {}), **entry, **_done(record.get(name, {}))}
    more = {id: card for id, card in cards.items() if id not in asked or card.times > asked[id].times}
    _save_progress(record)
    if more:
        drill.save_record({**asked, **more})
    print(f"✓ {len(done)} exercises and {len(more)} questions taken over")


def _done(entry: dict) -> dict:
    """What has been reached with an exercise."""
    return {deed: True for deed in ("passed", "diagnosed") if entry.get(deed)}


def compare(guess: object, measured: float, unit: str) -> None:
    """Hold your prediction against what came out.

    Example:
        >>> compare(..., 1275, "tokens")
        measured 1,275 tokens   (you made no guess: commit to a number first: that is how you learn)
        >>> compare(50, 100, "tokens")
        measured 100 tokens, you said 50: too low by a factor of 2.0
    """
    shown = f"{measured:,.0f}" if abs(measured) >= 100 or measured == int(measured) else f"{measured:,.1f}"
    if guess is ... or not isinstance(guess, (int, float)):
        print(
            f"measured {shown} {unit}   (you made no guess: commit to a number first: that is how you learn)"
        )
    elif guess <= 0 or measured <= 0:
        print(f"measured {shown} {unit}, you said {guess:,}")
    else:
        factor = max(guess / measured, measured / guess)
        verdict = (
            "right"
            if factor <= 1.1
            else f"too {'high' if guess > measured else 'low'} by a factor of {factor:.1f}"
        )
        print(f"measured {shown} {unit}, you said {guess:,}: {verdict}")


# -- the record ---------------------------------------------------------------------------------------------


def state_dir() -> Path:
    """Where progress is kept: $COURSE_STATE_HOME, or the platform's place for user data."""
    if home := os.environ.get("COURSE_STATE_HOME"):
        return Path(home)
    return platformdirs.user_data_path("paged-attention-course", appauthor=False)


def _load_progress() -> dict:
    try:
        record = json.loads((state_dir() / "progress.json").read_text())
        return {name: entry for name, entry in dict(record).items() if isinstance(entry, dict)}
    except (OSError, ValueError, TypeError):  # absent or broken: begin anew
        return {}


def _save_progress(record: dict) -> None:
    try:
        state_dir().mkdir(parents=True, exist_ok=True)
        scratch = state_dir() / "progress.json.part"
        scratch.write_text(json.dumps(record, indent=1))
        os.replace(scratch, state_dir() / "progress.json")
    except OSError as error:
        print(f"  (progress not kept: {error.strerror} at {state_dir()})")


def _exercises() -> "dict[str, Exercise | Case]":
    return {exercise.name: exercise for exercises in _by_lesson().values() for exercise in exercises}


def _by_lesson() -> "dict[str, list[Exercise | Case]]":
    from course_lib.teaching.clinic import CASES  # both import this module in their turn
    from course_lib.teaching.exercises import LESSONS

    return {lesson.__name__[-2:]: list(lesson.EXERCISES) for lesson in LESSONS} | {"10": list(CASES.values())}


def _find(name: str) -> "Exercise | Case | None":
    exercise = _exercises().get(name)
    if exercise is None:
        print(f"no exercise {name!r}; there are: {', '.join(_exercises())}")
    return exercise


def __getattr__(name: str) -> Callable[[object], None]:
    """`check.slot_of` is a function that checks an answer to the exercise slot_of."""
    if name.startswith("__"):  # Python's own questions, some while the exercises are being imported
        raise AttributeError(name)
    if name not in _exercises():
        raise AttributeError(f"no exercise {name!r}; there are: {', '.join(_exercises())}")

    def check_answer(answer: object = ...) -> None:
        _report(_exercises()[name], answer)

    return check_answer


def __dir__() -> list[str]:
    return sorted([*globals(), *_exercises()])
