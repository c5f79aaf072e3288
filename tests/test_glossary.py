"""The glossary: every term stands in bold in the notebook that it names, and in none before it."""

import re
from pathlib import Path

import pytest

from course_lib.teaching import glossary

LESSONS = Path(__file__).parent.parent / "lessons"
TERMS = glossary.load_terms()


def bold(lesson):
    """What stands in bold in a lesson, in lower case, singular and plural alike."""
    (path,) = LESSONS.glob(f"{lesson}_*.md")
    prose = re.sub(
        r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL
    )  # code has ** of its own
    text = " ".join(prose.split())
    return {found.lower().rstrip("s") for found in re.findall(r"\*\*([^*]+)\*\*", text)}


@pytest.mark.parametrize("term", TERMS, ids=[term.name for term in TERMS])
def test_a_term_is_defined_where_the_glossary_says(term):
    assert term.name.lower().rstrip("s") in bold(term.lesson), f"{term.name} is not in bold in {term.lesson}"


def test_terms_are_told_apart_and_defined_in_a_sentence():
    names = [term.name.lower() for term in TERMS]
    assert len(set(names)) == len(names)
    for term in TERMS:
        assert term.means.endswith(".") and len(term.means) < 120, term.name


def test_links_lead_to_notebooks():
    for lesson, name in glossary.NOTEBOOKS.items():
        assert name.startswith(lesson) and (LESSONS / f"{name}.md").is_file(), name
    shown = glossary.table().data
    assert all(f'<a href="{name}.ipynb">' in shown for name in glossary.NOTEBOOKS.values() if name[:2] < "10")
