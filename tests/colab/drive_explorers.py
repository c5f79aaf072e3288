"""Construct every explorer and move each of its controls, under the versions that are installed here.

Run inside the environment that is to be tried, with the course on PYTHONPATH; tests/colab/run.py does so. Controls are
moved as a browser moves them, by the state it sends. Numbers go to every value, or to some from first to last; choices
to each option; buttons are pressed, boxes ticked, texts written. Then all controls stand at their first values
together, and at their last. No move may raise, and each slider or choice must change what is shown.
"""

import asyncio
import base64
import importlib
import inspect
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import ipywidgets as widgets

VIEW = "application/vnd.jupyter.widget-view+json"
MOST_VALUES = 12  # of a slider; a longer one gets some, from first to last
ROUNDS = 6  # through buttons and boxes: each may uncover others
WRITTEN = ("", "nonsense", "42", "12.5 GiB")
NOT_DRIVEN = {"picture_explorer": "what the others are made with"}
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class Drive:
    """How one explorer went."""

    name: str
    controls: int = 0
    moves: int = 0
    shown: set[str] = field(default_factory=set)  # everything that was ever seen
    slowest: float = 0.0  # seconds
    tasks: set[asyncio.Task] = field(default_factory=set)  # what moves started: a clock, say
    problems: list[str] = field(default_factory=list)


# ------------------------------------------------------------------------------------------- what there is to drive


def explorer_functions(package) -> dict[str, Callable]:
    """Every public function of the package's modules that says it returns an Explorer."""
    found = {}
    for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        module = importlib.import_module(info.name)
        for name, thing in vars(module).items():
            ours = inspect.isfunction(thing) and thing.__module__ == info.name and name[0] != "_"
            if ours and inspect.signature(thing).return_annotation is package.Explorer:
                found[name] = thing
    return {name: thing for name, thing in sorted(found.items()) if name not in NOT_DRIVEN}


def arguments_for(name: str) -> list[tuple]:
    """The arguments that an explorer is constructed with: one tuple a time it is to be tried."""
    if name == "quiz":
        from course_lib.teaching.explorers import bundle

        raw = bundle.tomllib.loads(
            bundle.files("course_lib.teaching.exercises").joinpath("quiz.toml").read_text(encoding="utf-8")
        )
        return [(lesson,) for lesson in sorted({question["lesson"] for question in raw["question"]})]
    if name == "block_reader":
        from course_lib.serving import load_model

        return [(*load_model(), ["The capital of France is", "Once upon a time, in a land far away,"], 14)]
    return [()]


# -------------------------------------------------------------------------------------------------- the widget tree


def visible(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    """A widget and all inside it, in order, without what is hidden."""
    if getattr(widget, "layout", None) is not None and widget.layout.display == "none":
        return
    yield widget
    for child in getattr(widget, "children", ()):
        yield from visible(child)


def controls(widget: widgets.Widget) -> list[widgets.Widget]:
    """What can be moved, pressed or written into just now."""
    shown = [each for each in visible(widget) if not isinstance(each, (widgets.HTML, widgets.Box))]
    return [each for each in shown if not getattr(each, "disabled", False)]


def content(widget: widgets.Widget) -> str:
    """All that is to be read and seen: texts and pictures."""
    shown = [
        each.value if isinstance(each, widgets.HTML) else getattr(each, "description", "")
        for each in visible(widget)
    ]
    return "\n".join(shown)


def label(control: widgets.Widget) -> str:
    return f"{type(control).__name__} {control.description!r}"


def states(control: widgets.Widget) -> list[dict]:
    """What a browser would send to move a control to each of its places, first to last. Empty: no such control."""
    if isinstance(control, (widgets.IntSlider, widgets.BoundedIntText)):
        last = control.max - control.min
        few = min(last, MOST_VALUES - 1)
        steps = sorted({round(number * last / few) for number in range(few + 1)} if few else {0})
        return [{"value": control.min + step} for step in steps]
    if isinstance(control, (widgets.FloatSlider,)):
        return [{"value": control.min}, {"value": (control.min + control.max) / 2}, {"value": control.max}]
    if hasattr(control, "options"):
        return [{"index": number} for number in range(len(control.options))]
    if isinstance(control, (widgets.Checkbox, widgets.ToggleButton)):
        return [{"value": True}, {"value": False}]
    if isinstance(control, (widgets.Text, widgets.Textarea)):
        return [{"value": text} for text in WRITTEN]
    return []


def place(control: widgets.Widget) -> dict:
    """Where a control stands, as a browser would send it."""
    return {"index": control.index} if hasattr(control, "options") else {"value": control.value}


# --------------------------------------------------------------------------------------------------------- the moves


async def moved(drive: Drive, widget: widgets.Widget, what: str, act: Callable[[], None]) -> None:
    """Do one thing, let what it started run, and note what raised, how long it took and what is seen then."""
    begun = time.perf_counter()
    try:
        act()
    except Exception as error:
        drive.problems.append(f"{what}: {type(error).__name__}: {error}")
    drive.slowest = max(drive.slowest, time.perf_counter() - begun)
    drive.tasks |= asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.sleep(0)
    drive.moves += 1
    drive.shown.add(content(widget))


def press(button: widgets.Button) -> Callable[[], None]:
    """Press a button. Its handlers are called one by one: through click() ipywidgets would swallow what they raise."""

    def act():
        for handler in list(button._click_handlers.callbacks):
            handler(button)

    return act


async def drive_controls(drive: Drive, widget: widgets.Widget) -> None:
    """Every control that is visible now, alone; buttons and boxes again and again, for they uncover others."""
    met: dict[str, widgets.Widget] = {}
    for number in range(ROUNDS):
        buttons = False
        for control in controls(widget):
            if isinstance(control, widgets.Button):
                buttons = True
                met[control.model_id] = control
                if control in controls(widget):  # an earlier press may have hidden it
                    await moved(drive, widget, f"{label(control)} pressed", press(control))
                continue
            if number and control.model_id in met and hasattr(control, "options"):
                continue
            met[control.model_id] = control
            await drive_one(drive, widget, control)
        if not buttons:
            break
    drive.controls = len(met)


async def drive_one(drive: Drive, widget: widgets.Widget, control: widgets.Widget) -> None:
    """One control to each of its places and back to where it stood."""
    todo, origin, seen = states(control), place(control), {content(widget)}
    if not todo:
        drive.problems.append(f"{label(control)}: this script does not know how to move it")
    for state in todo:
        act = lambda state=state: control.set_state(state)  # noqa: E731
        await moved(drive, widget, f"{label(control)} to {state}", act)
        seen.add(content(widget))
    chooses = hasattr(control, "max") or hasattr(control, "options")
    if chooses and len(todo) > 1 and len(seen) == 1:
        drive.problems.append(f"{label(control)}: {len(todo)} places, and all of them show the same")
    if origin == {"index": None}:
        return  # a question that was answered cannot be unanswered
    await moved(drive, widget, f"{label(control)} back", lambda: control.set_state(origin))


async def drive_corners(drive: Drive, widget: widgets.Widget) -> None:
    """All sliders and choices at their first places together, then all at their last."""
    for end, name in ((0, "first"), (-1, "last")):
        for control in controls(widget):
            if not isinstance(control, widgets.Button) and (todo := states(control)):
                act = lambda control=control, state=todo[end]: control.set_state(state)  # noqa: E731
                await moved(drive, widget, f"all {name}, {label(control)} to {todo[end]}", act)


def wrong_with_bundle(explorer) -> list[str]:
    """What its one output lacks: the live view, something to see cold, words."""
    data, about = explorer._repr_mimebundle_()
    wrong = []
    if not data.get(VIEW, {}).get("model_id"):
        wrong.append("the output has no live view")
    if "image/png" in data:
        picture = data["image/png"]
        png = picture if isinstance(picture, bytes) else base64.b64decode(picture)
        if not png.startswith(PNG):
            wrong.append("what stands for a PNG is none")
        if not about.get("image/png", {}).get("alt"):
            wrong.append("the picture has no alt text")
    elif not data.get("text/html"):
        wrong.append("nothing is seen where it does not run")
    return wrong + ([] if data.get("text/plain") else ["no words stand for it"])


async def drive(name: str, construct: Callable[[], object]) -> Drive:
    """One explorer: constructed, looked at, moved."""
    result = Drive(name)
    try:
        explorer = construct()
    except Exception as error:
        result.problems.append(f"not constructed: {type(error).__name__}: {error}")
        return result
    result.problems += wrong_with_bundle(explorer)
    await drive_controls(result, explorer.widget)
    await drive_corners(result, explorer.widget)
    for task in result.tasks:
        if task.done() and not task.cancelled() and (error := task.exception()):
            result.problems.append(f"a task that it started: {type(error).__name__}: {error}")
        task.cancel()
    return result


async def drive_all() -> list[Drive]:
    from course_lib.teaching import explorers

    results = []
    for name, function in explorer_functions(explorers).items():
        for arguments in arguments_for(name):
            shown = f"{name}({arguments[0]!r})" if len(arguments) == 1 else name
            result = await drive(shown, lambda function=function, arguments=arguments: function(*arguments))
            results.append(result)
            print(line(result), flush=True)
    return results


def line(result: Drive) -> str:
    """A row of the table, and under it what went wrong."""
    row = f"{result.name:<22}{result.controls:>9}{result.moves:>7}{len(result.shown):>9}"
    row += f"{1000 * result.slowest:>10.0f}  {'✗' if result.problems else '✓'}"
    return "\n".join([row, *(f"    {problem}" for problem in result.problems)])


def main() -> int:
    import google.colab  # noqa: F401  (the stand-in: the course is to see Colab)

    from course_lib.teaching import runtime

    runtime.setup()
    print(f"\nipywidgets {widgets.__version__}, Python {sys.version.split()[0]}")
    print(f"{'explorer':<22}{'controls':>9}{'moves':>7}{'pictures':>9}{'slowest ms':>11} ok")
    results = asyncio.run(drive_all())
    failed = [result.name for result in results if result.problems]
    print(f"{len(results) - len(failed)} of {len(results)} explorers passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
