"""The pages that people and models are pointed to are there, and all of them are pointed to."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "llms.txt"])


def test_every_page_is_in_llms_txt():
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", (ROOT / "llms.txt").read_text(encoding="utf-8")))
    assert linked == {f"docs/{each.name}" for each in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path):
    for place in re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / place).exists(), place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path):
    for place in re.findall(
        r"(?<![\w./-])((?:src/overwinter|tests|bench|examples|docs)/[\w/-]+(?:\.\w+)?)",
        page.read_text(encoding="utf-8"),
    ):
        assert (ROOT / place).exists(), place
