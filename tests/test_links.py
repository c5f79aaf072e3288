"""Every link leads somewhere: between notebooks, to files, and to headings."""

import itertools
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "lessons").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def prose(page):
    """A page's text without its code."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def targets(page):
    """(where a link is looked up from, its target). A lesson's links are those of the notebook built from it."""
    folder = ROOT / "notebooks" if re.match(r"\d\d_", page.name) else page.parent
    return folder, re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", prose(page))


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_to_files_that_are_there(page):
    folder, found = targets(page)
    for target in found:
        if target.startswith("https://"):
            continue
        path, _, heading = target.partition("#")
        assert not path or (folder / path).exists(), f"{page.name} links to {target}, which is not there"
        if heading and path.endswith(".md"):
            headings = re.findall(r"^#+ (.+)$", (folder / path).read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings]
            assert heading in slugs, f"{page.name} links to {target}, which is no heading"


def test_each_notebook_leads_to_the_next():
    for this, following in itertools.pairwise(NOTEBOOKS):
        last = prose(ROOT / "lessons" / f"{this.stem}.md").rsplit("**Next.**", 1)[1]
        assert f"({following.name})" in last, f"{this.stem} does not lead to {following.stem}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_every_stored_picture_has_words(notebook):
    """A PNG carries its sentence as plain text, for those who cannot see it, and as its alt text."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                words = "".join(output["data"].get("text/plain", ""))
                assert len(words.split()) >= 5 and not words.startswith("<"), f"{cell['id']}: {words!r}"
                assert output["metadata"]["image/png"]["alt"] == words, cell["id"]
