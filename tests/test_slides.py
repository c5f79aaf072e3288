"""The slide decks: every slide comes out of a notebook, is small enough to project, and needs no network."""

import re
import subprocess
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_browser import chromium, why_not

from lessons import slides
from lessons.decks import MAX_WORDS, SlideError, cut, over_limits, pick, read_decks, units

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("why", "mechanism", "serving")
NO_TOOLS = "reveal.js is not here: `make slides` fetches it once"
needs_tools = pytest.mark.skipif(not slides.have_tools(), reason=NO_TOOLS)


@pytest.fixture(scope="module")
def decks():
    return {deck.name: deck for deck in read_decks(slides.PLAN, ROOT / "notebooks")}


@pytest.fixture(scope="module")
def folder(decks, tmp_path_factory):
    """The pages, as `make slides` writes them."""
    folder = tmp_path_factory.mktemp("slides") / "decks"
    slides.write(list(decks.values()), folder)
    return folder


def words(text: str) -> str:
    return " ".join(text.split())


# --------------------------------------------------------------------------------------- the decks as they are


def test_there_are_three_decks_of_a_size_that_fits_their_time(decks):
    assert {name: deck.minutes for name, deck in decks.items()} == dict(zip(NAMES, (30, 60, 90), strict=True))
    for deck in decks.values():
        assert 12 <= len(deck.slides) <= 25, f"{deck.name} has {len(deck.slides)} slides"


@pytest.mark.parametrize("name", NAMES)
def test_everything_on_a_slide_stands_in_its_notebook(decks, name):
    for slide in decks[name].slides[1:]:
        (path,) = (ROOT / "notebooks").glob(f"{slide.source[:2]}_*.ipynb")
        cells = nbformat.read(path, 4).cells
        text = words("\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))
        code = words("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
        printed = words(
            "\n".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))
        )
        for unit in units(slide.text):
            assert words(unit.text) in text, f"{slide.title}: {unit.text!r} is not a notebook's"
        for line in slide.code:
            assert words(line) in code, f"{slide.title}: {line!r} is not a notebook's"
        for line in [*slide.output, slide.answer]:
            assert words(line) in printed, f"{slide.title}: {line!r} is not what a notebook printed"


@pytest.mark.parametrize("name", NAMES)
def test_every_slide_shows_something_small_enough_and_has_notes(decks, name):
    for number, slide in enumerate(decks[name].slides, start=1):
        place = f"{name}, slide {number} ({slide.title})"
        assert slide.title and not over_limits(slide), f"{place}: {over_limits(slide)}"
        assert slide.text or slide.code or slide.output or slide.html or slide.picture[0], f"{place} is empty"
        said = [note for note in slide.notes if not re.fullmatch(r"Notebook \d\d, cell \d+\.", note)]
        assert len(words(" ".join(said)).split()) >= 8, f"{place} has no notes but {slide.notes}"


@pytest.mark.parametrize("name", NAMES)
def test_a_prediction_is_asked_for_before_its_answer_is_shown(decks, name):
    def place(slide):
        return slide.source[:2], int(re.search(r"cell (\d+)\.$", slide.notes[-1])[1])

    asked = 0
    for slide, following in zip(decks[name].slides, [*decks[name].slides[1:], None], strict=True):
        if slide.kind == "predict":
            asked += 1
            answered = following and (following.answer or following.output or following.code)
            assert answered and following.kind == "plain", f"{slide.text!r} is not answered next"
            notebook, cell = place(slide)
            assert (notebook, cell + 1) <= place(following) <= (notebook, cell + 4), (
                f"{slide.text!r}: {place(following)}"
            )
    assert asked >= 5


# -------------------------------------------------------------------------------------- plans that cannot be made


def plan(tmp_path, **slide):
    """One deck with one slide, of a notebook with four cells."""
    table = {"header": "<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>x</td></tr></tbody></table>"}
    cells = [
        new_markdown_cell("# 01 · A title"),
        new_markdown_cell("## A part\n\nThe first. **Two** words."),
        new_code_cell(
            "\n".join(f"line_{n} = {n}" for n in range(9)),
            outputs=[new_output("stream", text="one\ntwo\n")],
        ),
        new_code_cell(
            "show(line_0 = 0)", outputs=[new_output("display_data", {"text/html": table["header"]})]
        ),
        new_code_cell("my_guess = ..."),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "01_name.ipynb")
    lines = ["[[deck]]", 'name = "d"', 'title = "D"', "minutes = 5", 'notes = "n"', "[[deck.slide]]"]
    lines += [f"{key} = {value!r}" for key, value in slide.items()]
    (tmp_path / "plan.toml").write_text("\n".join(lines), encoding="utf-8")
    return read_decks(tmp_path / "plan.toml", tmp_path)


def test_a_small_plan_is_made(tmp_path):
    (deck,) = plan(tmp_path, notebook="01", cell="The first.", show="text")
    assert [slide.title for slide in deck.slides] == ["D", "A part"]
    assert deck.slides[1].text == "**Two** words."
    assert deck.slides[1].notes == ["The first.", "Notebook 01, cell 2."]


@pytest.mark.parametrize(
    "slide, message",
    [
        (dict(notebook="01", cell="gone", show="text"), r"cell 'gone'\): 0 cells hold that text"),
        (dict(notebook="01", cell="line_0", show="code"), "2 cells hold that text"),
        (dict(notebook="07", cell="The first.", show="text"), "no such notebook"),
        (dict(notebook="01", cell="The first.", show="code"), "a markdown cell has no code to show"),
        (dict(notebook="01", cell="The first.", show="predict"), "asks for no prediction"),
        (dict(notebook="01", cell="The first.", show="text", say=["gone"]), "0 sentences, rows or items"),
        (dict(notebook="01", cell="line_1", show="code"), "9 lines of code, at most 8"),
        (dict(notebook="01", cell="line_1", show="code", code=["line_3", "gone"]), "no lines from 'line_3'"),
        (dict(notebook="01", cell="line_1", show="output", output=["three"]), "no lines from 'three'"),
        (dict(notebook="01", cell="show(line_0", show="output", say=["y"]), "0 rows hold one of"),
        (dict(notebook="01", cell="my_guess", show="output"), "no stored output"),
        (dict(notebook="01", cell="my_guess", show="code", answer="line_1"), "measured nothing"),
        (dict(notebook="01", cell="The first.", show="text", colour="red"), "unknown keys"),
    ],
)
def test_what_cannot_be_made_is_named(tmp_path, slide, message):
    with pytest.raises(SlideError, match=f"^deck d, slide 2 .*{message}"):
        plan(tmp_path, **slide)


def test_too_many_words_and_too_long_lines_are_refused(decks):
    slide = decks["why"].slides[1]
    long = type(slide)("t", "01 · t", text="word " * (MAX_WORDS + 1), output=["x" * 120])
    assert [over.split(", at most")[0] for over in over_limits(long)] == ["81 words", "120 letters in a line"]
    both = type(slide)("t", "01 · t", output=["x"], picture=("png", "alt"))
    assert over_limits(both) == ["2 pictures and outputs, at most 1"]


def test_text_is_taken_by_sentences_rows_and_items():
    text = "## H\n\nOne (Fig 2). *Two*\ngoes on. See 2.5.\n\n| a | b |\n|---|---|\n| c | d |\n| e | f |"
    text += "\n\n- g\n- h\n  i"
    every = list(units(text))
    assert [unit.text for unit in every[:3]] == ["One (Fig 2).", "*Two* goes on.", "See 2.5."]
    assert {unit.heading for unit in every} == {"H"}
    assert [unit.text for unit in pick(every, ["e |"])] == ["| a | b |", "|---|---|", "| e | f |"]
    assert len(pick(every, ["| a |…"])) == 4
    assert [unit.text for unit in pick(every, ["- h", "*Two*…"])] == [
        "*Two* goes on.",
        "See 2.5.",
        "- h\n  i",
    ]
    with pytest.raises(SlideError, match="2 sentences"):
        pick(every, ["One", "- "])
    assert cut("def f():\n    a\n    b\nc", ["a", "b"]) == ["a", "b"]


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "ERROR: [Errno 28] No space left on device")
    monkeypatch.setattr(slides.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SlideError, match="the disk is full: free"):
        slides.fetch_tools(tmp_path / "tools")
    assert not slides.have_tools(tmp_path / "tools")


def test_formulas_are_pictures_that_say_what_they_show():
    image = BeautifulSoup(slides.formula(r"s \le t"), "html.parser").img
    assert image["alt"] == r"s \le t" and image["src"].startswith("data:image/svg+xml;base64,")
    assert slides.formula(r"s \le t") == slides.formula(r"s \le t"), "two builds would differ"


# ----------------------------------------------------------------------------------------------------- the pages


@needs_tools
def test_nothing_is_loaded_from_elsewhere(folder):
    for page in sorted(folder.glob("*.html")):
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        loaded = [node[key] for key in ("src", "href", "data", "poster", "srcset", "action")
                  for node in soup.find_all(attrs={key: True})]  # fmt: skip
        assert loaded
        for address in loaded:
            assert address.startswith("data:image/") or (folder / address).is_file(), (
                f"{page.name}: {address}"
            )
    for file in [*folder.glob("*.html"), *folder.glob("reveal/*.css")]:
        assert not re.search(r"@import|url\((?![\"']?data:)", file.read_text(encoding="utf-8")), file.name


@needs_tools
def test_pages_have_all_slides_with_notes_and_described_pictures(decks, folder):
    for name in NAMES:
        soup = BeautifulSoup((folder / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        sections = soup.select(".slides > section")
        assert len(sections) == len(decks[name].slides)
        assert all(section.select_one("aside.notes").get_text(strip=True) for section in sections)
        assert all(image.get("alt", "").strip() for image in soup.find_all("img"))
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{name}.html"' in index for name in NAMES)


@needs_tools
def test_two_builds_are_the_same(decks, folder, tmp_path):
    slides.write(list(decks.values()), tmp_path / "again")
    for file in sorted(folder.rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(folder)).read_bytes(), file.name


# ------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser():
    if why_not():
        pytest.skip(why_not())
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium(), args=options)
        yield browser
        browser.close()


@pytest.fixture
def context(browser):
    """A window of a projector's size; whatever goes wrong in it is in .wrong."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.wrong = []
    context.on("console", lambda said: said.type in ("error", "warning") and context.wrong.append(said.text))
    context.on("weberror", lambda error: context.wrong.append(str(error.error)))
    is_here = re.compile("file:|data:|about:|blob:")
    context.on("request", lambda asked: is_here.match(asked.url) or context.wrong.append(asked.url))
    yield context
    context.close()


def opened(context, page_file: Path):
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    return page


OUTSIDE = """() => {
    const slide = Reveal.getCurrentSlide().querySelector('.slide'), body = slide.querySelector('.body');
    const inside = (inner, outer) => inner.left >= outer.left - 1 && inner.right <= outer.right + 1
        && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
    const isCut = (node) => node.tagName === 'PRE' && node.scrollWidth > node.clientWidth + 1;
    const outside = (outer) => [...outer.querySelectorAll('*')].filter((node) => isCut(node)
        || !inside(node.getBoundingClientRect(), outer.getBoundingClientRect()));
    return [...outside(slide), ...outside(body)].map((node) => node.outerHTML.slice(0, 80));
}"""
PICTURE_HEIGHT = (
    "() => Reveal.getCurrentSlide().querySelector('.picture img')?.getBoundingClientRect().height"
)


@needs_tools
@pytest.mark.browser
@pytest.mark.parametrize("name", NAMES)
def test_the_right_arrow_goes_through_a_deck_in_which_nothing_is_cut_off(context, folder, decks, name):
    page = opened(context, folder / f"{name}.html")
    for number in range(len(decks[name].slides)):
        assert page.evaluate("Reveal.getState().indexh") == number
        outside = page.evaluate(OUTSIDE)
        assert not outside, f"{name}, slide {number + 1}: {outside[:3]}"
        height = page.evaluate(PICTURE_HEIGHT)
        assert height is None or height >= 300, (
            f"{name}, slide {number + 1}: a picture {height:.0f} pixels high"
        )
        page.keyboard.press("ArrowRight")
    assert page.evaluate("Reveal.isLastSlide()") and not context.wrong


@needs_tools
@pytest.mark.browser
def test_the_notes_window_follows(context, folder, decks):
    page = opened(context, folder / "why.html")
    with context.expect_page() as window:
        page.keyboard.press("s")
    notes = window.value.locator(".speaker-controls-notes .value")
    for slide in decks["why"].slides[:3]:
        start = BeautifulSoup(slides.make_renderer()(slide.notes[0]), "html.parser").get_text()[:40]
        notes.get_by_text(words(start)).wait_for(timeout=10_000)
        page.keyboard.press("ArrowRight")
    assert not context.wrong


@needs_tools
@pytest.mark.browser
def test_a_deck_prints_a_page_for_each_slide(context, folder, decks):
    page = context.new_page()
    page.goto((folder / "why.html").as_uri() + "?print-pdf")
    page.wait_for_selector(".pdf-page >> nth=-1", state="attached")
    assert page.locator(".pdf-page").count() == len(decks["why"].slides) and not context.wrong
