"""The explorers as a learner meets them: a real JupyterLab in a real Chromium.

One server, one browser and one page serve every test here. All that they write, the screenshots of failures
too, is in pytest's temporary folder.
"""

import html
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
LESSON = ROOT / "notebooks" / "01_kv_cache.ipynb"
CALCULATOR, QUIZ = "explorers.kv_calculator()", 'explorers.quiz("01")'
MEMORY_MAP, STEPPER = "explorers.memory_map()", "explorers.block_tables()"
KERNEL, SOFTMAX = "explorers.kernel_stepper()", "explorers.softmax_stepper()"
SCHEDULE, FORK, TREE = "explorers.schedule()", "explorers.fork_stepper()", "explorers.prefix_tree()"
BOARD, DRILL, SUMS = "explorers.whiteboard()", "explorers.drill(seed=1)", "explorers.arithmetic(seed=1)"
BUDGET_MS = 150  # of kernel time for one interaction, as the style asks on two cores
WAIT_MS = 10_000  # for what should take well under a second


def chromium() -> str | None:
    """A Chromium that can be started: $CHROMIUM, or the first that is installed."""
    if chosen := os.environ.get("CHROMIUM"):
        return shutil.which(chosen)
    mac = [f"/Applications/{name}.app/Contents/MacOS/{name}" for name in ("Chromium", "Google Chrome")]
    return next(
        filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome", *mac])), None
    )


def why_not() -> str:
    if not importlib.util.find_spec("playwright"):
        return "playwright is missing: it comes with the test extra"
    if not chromium() and (chosen := os.environ.get("CHROMIUM")):
        return f"CHROMIUM is {chosen!r}, and that is no program"
    return "" if chromium() else "no Chromium here: install one, or name one in the variable CHROMIUM"


pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(why_not()), reason=why_not())]


# ----------------------------------------------------------------------------- a server, a browser, a page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the server shows: the real notebook, and a small one with its two explorers, stored outputs and all, and
    with those of notebooks 02, 03, 05 to 08 and 11."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "root").mkdir()
    shutil.copy(LESSON, folder / "root" / "cold.ipynb")
    lesson = nbformat.read(LESSON, 4)
    stored = [cell for cell in lesson.cells if cell.source in (CALCULATOR, QUIZ)]
    assert len(stored) == 2, f"{LESSON.name} has no cell {CALCULATOR!r} or none {QUIZ!r}"
    first, last = new_code_cell("from course_lib.teaching import explorers"), new_code_cell(TIMING)
    shown = (MEMORY_MAP, STEPPER, KERNEL, SOFTMAX, SCHEDULE, FORK, TREE, BOARD, DRILL, SUMS)
    others = [new_code_cell(source) for source in shown]
    live = new_notebook(cells=[first, *stored, *others, last], metadata=lesson.metadata)
    nbformat.write(live, folder / "root" / "live.ipynb")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """The address of a JupyterLab of its own, that reads and writes no settings of the user's."""
    homes = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR"]
    homes += ["JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR", "COURSE_STATE_HOME"]
    environment = {**os.environ, **{home: str(folder / home) for home in homes}}
    environment |= {"JUPYTER_NO_CONFIG": "1", "PYTHONPATH": str(ROOT)}
    settings = folder / "JUPYTERLAB_SETTINGS_DIR" / "@jupyterlab"
    for file, values in [("apputils-extension/notification", {"fetchNews": "false", "checkForUpdates": False}),
                         ("notebook-extension/tracker", {"windowingMode": "none"})]:  # fmt: skip
        path = settings / f"{file}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += ["--ServerApp.port=0", f"--ServerApp.root_dir={folder / 'root'}"]
    command += ["--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"]
    with open(folder / "lab.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            yield address(process, folder)
        finally:
            process.terminate()
            process.wait(30)


def address(process, folder: Path) -> str:
    """Where the server answers. It writes that into its runtime folder when it does."""
    give_up = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < give_up:
        for file in (folder / "JUPYTER_RUNTIME_DIR").glob("jpserver-*.json"):
            if text := file.read_text(encoding="utf-8"):
                return "{url}lab?token={token}".format(**json.loads(text))
        time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start within 60 s:\n{(folder / 'lab.log').read_text()[-3000:]}")


@pytest.fixture(scope="module")
def page(server, folder):
    """JupyterLab in a browser. `page.errors` collects what its scripts throw."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            args=["--disable-gpu", "--disable-background-networking", "--no-first-run"],
            env={**os.environ, "HOME": str(folder)},
        )
        page = browser.new_page(viewport={"width": 1280, "height": 1400})
        page.set_default_timeout(WAIT_MS)
        page.errors, page.shots = [], folder
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        with watched(page, "start"):
            page.goto(server, timeout=60_000)
            page.wait_for_function("window.jupyterapp?.shell?.currentWidget", timeout=60_000)
        yield page
        browser.close()


@contextmanager
def watched(page, name: str):
    """What fails inside names a screenshot; an error thrown in the page is a failure."""
    try:
        yield
        thrown, page.errors = page.errors, []
        assert not thrown, f"scripts in the page threw {thrown}"
    except Exception as failure:
        shot = page.shots / f"{name}.png"
        page.screenshot(path=shot)
        failure.add_note(f"screenshot: {shot}")
        raise


# --------------------------------------------------------------------------------- what a learner does


def open_notebook(page, name: str):
    """Bring a notebook to the front; its panel."""
    page.evaluate("path => jupyterapp.commands.execute('docmanager:open', {path})", name)
    page.wait_for_function("name => jupyterapp.shell.currentWidget?.title?.label === name", arg=name)
    panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    panel.locator(".jp-Cell").first.wait_for()
    return panel


def cell(panel, source: str):
    """The code cell with this source."""
    editors = panel.page.locator(".jp-InputArea-editor", has_text=source)
    return panel.locator(".jp-CodeCell").filter(has=editors).first


def run_all(page) -> None:
    """As the menu's Run All Cells. A cell that fails is a failure here."""
    idle = '.jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook-ExecutionIndicator[data-status="idle"]'
    page.locator(idle).wait_for(timeout=60_000)
    page.evaluate("""() => Promise.race([
        jupyterapp.commands.execute('notebook:run-all-cells'),
        new Promise((_, reject) => setTimeout(() => reject('the cells still run after 60 s'), 60_000))])""")
    outputs = page.evaluate("""() => jupyterapp.shell.currentWidget.content.widgets
        .filter(cell => cell.model.type === 'code').flatMap(cell => cell.model.outputs.toJSON())""")
    raised = [f"{output['ename']}: {output['evalue']}" for output in outputs if "ename" in output]
    assert not raised, f"cells raised {raised}"


def pictures(cell) -> list[tuple[str, str, int]]:
    """(source, alt text, width in pixels of the file) of each picture in a cell's output."""
    described = "images => images.map(image => [image.src, image.alt, image.naturalWidth])"
    return [tuple(each) for each in cell.locator(".jp-OutputArea img").evaluate_all(described)]


def focused(page) -> str:
    """The label of the control that has the keyboard; "" if none has."""
    label = "document.activeElement.closest('.widget-inline-hbox')?.querySelector('label')?.innerText ?? ''"
    return page.evaluate(label)


def wait_until(page, holds, say) -> None:
    """Look again and again until `holds()`; say() tells what was seen instead."""
    give_up = time.monotonic() + WAIT_MS / 1000
    while not holds():
        if time.monotonic() > give_up:
            raise AssertionError(f"waited {WAIT_MS // 1000} s: {say()}")
        page.wait_for_timeout(20)


def press_and_see(page, view, key: str) -> str:
    """Press a key where the focus is; the alt text of the new picture that this must bring."""
    (before, alt, _), label = pictures(view)[0], focused(page)
    page.keyboard.press(key)
    wait_until(
        page,
        lambda: pictures(view)[0][0] != before,
        lambda: (
            f"{key} on {label!r}, which now shows {value(view, label)!r}, left the picture as it was: {alt!r}"
        ),
    )
    assert focused(page) == label, f"{key} took the focus from {label!r} to {focused(page) or 'no control'!r}"
    return pictures(view)[0][1]


def value(view, label: str) -> str:
    """What a slider or a list shows as chosen."""
    shown = "e => e.querySelector('select')?.value ?? e.querySelector('.widget-readout')?.innerText"
    return control(view, label).evaluate(shown)


def control(view, label: str):
    """A labelled control of an explorer."""
    exactly = view.page.locator("label", has_text=re.compile(f"^{label}$"))
    return view.locator(".widget-inline-hbox").filter(has=exactly)


# ------------------------------------------------------------------------------------------- the tests


def test_a_notebook_that_was_not_run_shows_the_stored_picture_and_the_quiz(page):
    panel = open_notebook(page, "cold.ipynb")
    with watched(page, "cold"):
        view, quiz = cell(panel, CALCULATOR), cell(panel, QUIZ)
        view.scroll_into_view_if_needed()
        shown = pictures(view)
        assert len(shown) == 1, (
            f"{len(shown)} pictures; the output says {view.locator('.jp-OutputArea').inner_text()!r}"
        )
        stored = stored_output(CALCULATOR)["image/png"].replace("\n", "")
        assert shown[0][0].endswith(stored), f"the picture is not the stored one: {shown[0][0][:60]}..."
        assert shown[0][2] > 500, f"the picture is {shown[0][2]} pixels wide: it could not be decoded"
        for text in (
            view.locator(".jp-OutputArea").inner_text(),
            quiz.locator(".jp-OutputArea").inner_text(),
        ):
            assert not re.search(r"Explorer|VBox\(|widget|<\w", text), f"raw text is shown: {text!r}"
        stored = stored_output(QUIZ)["text/html"]
        options = quiz.locator("li").all_inner_texts()
        assert options == [html.unescape(option) for option in re.findall("<li>(.*?)</li>", stored)]
        for question in stored_output(QUIZ)["text/plain"].splitlines():
            assert quiz.get_by_text(question).is_visible(), f"not shown: {question!r}"
        answers = quiz.locator("details").evaluate_all("all => all.map(one => one.open)")
        assert answers and not any(answers), f"open answers: {answers}"


def stored_output(source: str) -> dict:
    return next(cell for cell in nbformat.read(LESSON, 4).cells if cell.source == source).outputs[0].data


def questions() -> list[dict]:
    text = (ROOT / "course_lib/teaching/exercises/quiz.toml").read_text(encoding="utf-8")
    return [question for question in tomllib.loads(text)["question"] if question["lesson"] == "01"]


@pytest.fixture(scope="module")
def live(page):
    """The small notebook, run: its panel."""
    panel = open_notebook(page, "live.ipynb")
    with watched(page, "run"):
        run_all(page)
    return panel


def test_the_widget_takes_the_place_of_the_stored_picture(page, live):
    view = cell(live, CALCULATOR)
    with watched(page, "replaced"):
        say = "the output has {} live and {} stored pictures, expected 1 and 0".format
        live_picture, stored_picture = (
            view.locator(".widget-html-content img"),
            view.locator(".jp-RenderedImage"),
        )
        counts = lambda: (live_picture.count(), stored_picture.count())  # noqa: E731
        wait_until(page, lambda: counts() == (1, 0), lambda: say(*counts()))


def test_the_keyboard_moves_sliders_of_names_and_of_numbers(page, live):
    view = cell(live, CALCULATOR)
    with watched(page, "keyboard"):
        control(view, "model").locator("[role=slider]").focus()
        before = value(view, "model")
        alt = press_and_see(page, view, "ArrowRight")
        after = value(view, "model")
        assert before != after and f": {after} on " in alt, (
            f"from {before} to {after}, the picture says {alt!r}"
        )
        control(view, "tokens each").locator("[role=slider]").focus()
        before = value(view, "tokens each")
        alt = press_and_see(page, view, "ArrowRight")
        after = value(view, "tokens each")
        assert int(after) == 2 * int(before), f"one step to the right went from {before} to {after} tokens"
        assert f" of {int(after):,} tokens" in alt, (
            f"the slider says {after} tokens, the picture says {alt!r}"
        )


def test_tab_goes_through_the_controls_in_order(page, live):
    view = cell(live, CALCULATOR)
    with watched(page, "tab"):
        labels = list(filter(None, view.locator(".widget-inline-hbox > label").all_inner_texts()))
        assert len(labels) == 6, f"the controls are {labels}"
        control(view, labels[0]).locator("[role=slider]").focus()
        visited = [focused(page)]
        while visited[-1] != labels[-1] and len(visited) < 2 * len(labels):
            page.keyboard.press("Tab")
            visited.append(focused(page))
        visited = list(dict.fromkeys(visited))  # a slider's number is a stop of its own
        assert visited == labels, f"Tab went through {visited}, on the screen are {labels}"


def test_an_answer_in_the_quiz_is_told_right_or_wrong(page, live):
    quiz = cell(live, QUIZ)
    question = questions()[0]
    with watched(page, "quiz"):
        quiz.locator(".widget-radio-box").first.locator("input").first.focus()
        feedback = quiz.locator(".widget-html-content").nth(
            1
        )  # 0: the question, 1: what is said of its answer
        assert not re.search("[✓✗]", feedback.inner_text()), f"before any answer: {feedback.inner_text()!r}"
        for number, (option, why) in enumerate(question["options"]):
            if number:
                page.keyboard.press("Tab")
            page.keyboard.press("Space")
            told = f"{'✓' if number == question['right'] else '✗'} {why}"
            wait_until(
                page,
                lambda told=told: feedback.inner_text().strip() == told,
                lambda option=option, told=told: (
                    f"after choosing {option!r} stands {feedback.inner_text()!r}, expected {told!r}"
                ),
            )


def test_the_memory_map_follows_the_keyboard_through_time_and_allocators(page, live):
    view = cell(live, MEMORY_MAP)
    with watched(page, "memory map"):
        control(view, "moment").locator("[role=slider]").focus()
        first = pictures(view)[0][1]
        later = press_and_see(page, view, "ArrowRight")
        times = [int(re.search(r"(\d+) s:", alt).group(1)) for alt in (first, later)]
        assert times[1] > times[0], f"one step to the right went from {first!r} to {later!r}"
        control(view, "allocator").locator("[role=slider]").focus()
        alts = [press_and_see(page, view, "ArrowRight") for _ in range(3)]
        begin = ["Reserve a power of two", "Reserve exactly (oracle)", "Paged"]
        assert all(map(str.startswith, alts, begin)), f"the pictures say {alts}"


def test_the_stepper_follows_the_keyboard_and_a_chosen_token(page, live):
    view = cell(live, STEPPER)
    with watched(page, "stepper"):
        control(view, "step").locator("[role=slider]").focus()
        alt = press_and_see(page, view, "ArrowRight")
        assert alt.startswith("B gets the token 'a'"), f"step 6 is told as {alt!r}"
        control(view, "its position").locator("[role=slider]").focus()
        alt = press_and_see(page, view, "ArrowRight")
        assert "7 // 4 = block 1 of the text, 7 % 4 = offset 3" in alt
        control(view, "follow a token of").locator("[role=slider]").focus()
        alt = press_and_see(page, view, "ArrowRight")
        assert "B's token" not in alt, "B has no token at position 7 yet, and nothing is framed"


def test_the_kernel_stepper_follows_the_keyboard_from_tile_to_tile(page, live):
    view = cell(live, KERNEL)
    with watched(page, "kernel stepper"):
        control(view, "step").locator("[role=slider]").focus()
        alt = press_and_see(page, view, "ArrowRight")
        assert "Softmax of all kept scores at once" in alt, f"step 5 is told as {alt!r}"
        control(view, "sequence").locator("[role=slider]").focus()
        alt = press_and_see(page, view, "ArrowRight")
        assert alt.startswith("Program (1, 1), step 5 of 7"), f"sequence 1 is told as {alt!r}"


def test_the_softmax_stepper_shows_what_forgetting_to_rescale_does(page, live):
    view = cell(live, SOFTMAX)
    with watched(page, "softmax stepper"):
        control(view, "tiles seen").locator("[role=slider]").focus()
        alt = press_and_see(page, view, "ArrowRight")
        assert "Tile 4: m grows from 1.75 to 2.81" in alt and "16 of 24 scores seen" in alt
        control(view, "old sums are").locator("[role=slider]").focus()
        assert "left as they are, which is wrong" in press_and_see(page, view, "ArrowRight")


def test_the_schedule_follows_the_keyboard_from_blocks_to_slabs_and_through_memory(page, live):
    view = cell(live, SCHEDULE)
    with watched(page, "schedule"):
        control(view, "memory \\[slabs\\]").locator("[role=slider]").focus()
        alts = [pictures(view)[0][1], press_and_see(page, view, "ArrowRight")]
        preempted = [int(re.search(r"(\d+) preemptions", alt).group(1)) for alt in alts]
        assert preempted[1] < preempted[0], f"more memory, and {alts}"
        control(view, "allocator").locator("[role=slider]").focus()
        assert "No preemptions." in press_and_see(page, view, "ArrowLeft")


def test_the_fork_stepper_follows_the_keyboard_and_the_number_of_outputs(page, live):
    view = cell(live, FORK)
    with watched(page, "fork stepper"):
        control(view, "step").locator("[role=slider]").focus()
        assert press_and_see(page, view, "ArrowRight").startswith("A writes 'ring'. Block 2 has room")
        alt = press_and_see(page, view, "ArrowRight")
        assert alt.startswith("B writes ") and "copies so far: 2" in alt, f"step 4 is told as {alt!r}"
        control(view, "outputs").locator("[role=slider]").focus()
        alt = press_and_see(page, view, "ArrowLeft")
        assert "copies so far: 1" in alt, "of two outputs, the second has the block to itself by then"


def test_the_prefix_tree_follows_the_keyboard_from_request_to_request(page, live):
    view = cell(live, TREE)
    with watched(page, "prefix tree"):
        control(view, "step").locator("[role=slider]").focus()
        alts = [press_and_see(page, view, "ArrowRight") for _ in range(3)]
        begin = [
            "A ends.",
            "C comes with 8 tokens. Block 0 holds its first 4",
            "D comes with 12 tokens. No cached",
        ]
        assert all(map(str.startswith, alts, begin)), f"the pictures say {alts}"


def test_the_whiteboard_follows_the_keyboard(page, live):
    view = cell(live, BOARD)
    with watched(page, "whiteboard"):
        view.locator("[role=slider]").first.focus()
        whole = pictures(view)[0][1]
        before = press_and_see(page, view, "ArrowLeft")
        assert whole.startswith("4:30") and before < whole, f"step 7 is told as {before!r}"


def test_the_drill_is_answered_with_the_keyboard_alone(page, live):
    """Start, and the clock ticks; show, and the rubric comes; tick a point with the space bar, score."""
    view = cell(live, DRILL)
    button = lambda name: view.get_by_role("button", name=name, exact=True)  # noqa: E731
    with watched(page, "drill"):
        assert not view.get_by_role("checkbox").first.is_visible(), "the rubric is shown before the answer"
        button("Start").focus()
        page.keyboard.press("Enter")
        wait_until(page, lambda: "0:01" in view.inner_text(), lambda: "the clock does not tick")
        button("Show answer").focus()
        page.keyboard.press("Enter")
        wait_until(page, lambda: button("Show more").is_visible(), lambda: "there is no second layer")
        view.get_by_role("checkbox").first.focus()
        page.keyboard.press("Space")
        button("Score").focus()
        page.keyboard.press("Enter")
        wait_until(page, lambda: "1 of 5 points: again today" in view.inner_text(), lambda: view.inner_text())
        wait_until(page, lambda: button("Follow-up 1").is_visible(), lambda: "no follow-up is offered")


def test_an_answer_to_the_arithmetic_is_graded(page, live):
    view = cell(live, SUMS)
    with watched(page, "arithmetic"):
        view.locator("input[type=text]").first.fill("0.001")
        view.get_by_role("button", name="Check", exact=True).focus()
        page.keyboard.press("Enter")
        wait_until(page, lambda: "✗" in view.inner_text(), lambda: f"nothing is said: {view.inner_text()!r}")


# What one interaction costs the kernel: the message that the page sends is read, and the new picture sent. Beside it
# a bare figure, which tells how fast this machine is just now.
TIMING = f"""\
import statistics, time
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
model = {CALCULATOR}.widget.children[0]
sliders = {MEMORY_MAP}.controls[3], {STEPPER}.controls[0], {KERNEL}.controls[2], {SOFTMAX}.controls[2]
sliders += {SCHEDULE}.controls[2], {FORK}.controls[0], {TREE}.controls[0], {BOARD}.controls[0]
def bare():
    figure = Figure(figsize=(9, 3))
    figure.add_subplot()
    FigureCanvasAgg(figure).draw()
def milliseconds(run):
    times = []
    for _ in range(9):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)
bare()
moves = [lambda: model.set_state({{"index": (model.index + 1) % len(model.options)}})]
for slider in sliders:
    moves.append(lambda slider=slider: slider.set_state({{"value": (slider.value + 1) % slider.max or 1}}))
print(*map(milliseconds, moves), milliseconds(bare))"""
BARE_MS = 25  # of a bare figure on two cores when nothing else runs, seen: 22 to 26


def test_the_pictures_answer_within_the_budget(page, live, capsys):
    """The style gives an interaction 150 ms. Where the machine is slower, or busy, so is a bare figure, and the budget
    grows with it: what is asserted is the ratio of two times taken together."""
    with watched(page, "response"):
        said, within = [], False
        while not within and len(said) < 3:
            if said:
                run_all(page)
            printed = cell(live, "time.perf_counter()").locator(".jp-OutputArea pre").inner_text()
            *medians, bare = map(float, printed.split())
            budget = BUDGET_MS * max(1, bare / BARE_MS)
            within = max(medians) < budget
            times = ", ".join(f"{median:.0f}" for median in medians)
            said.append(f"{times} ms (a bare figure: {bare:.0f} ms, so the budget is {budget:.0f})")
        with capsys.disabled():
            print(
                f"\ncalculator, map, steppers, schedule, fork, tree, board: it answers in {'; then '.join(said)}",
                flush=True,
            )
        assert within, f"medians of 9 interactions: {'; then '.join(said)}"
