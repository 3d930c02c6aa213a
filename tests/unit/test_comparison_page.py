"""docs/comparison.md says of others only what a source says, and names its version."""

import re
from pathlib import Path

from claims import CLAIMS

TEXT = (Path(__file__).parents[2] / "docs" / "comparison.md").read_text(encoding="utf-8")
SAID, _, SOURCES = TEXT.partition("\n## Sources\n")
ROW = re.compile(r"^\| ([A-Z]{2}) \| (https://\S+) \| (.+) \|$", re.MULTILINE)


def test_each_source_is_named_once_with_its_version_and_is_used():
    rows = ROW.findall(SOURCES)
    names = [name for name, _, _ in rows]
    assert len(rows) == len(SOURCES.strip().splitlines()) - 2
    assert names == sorted(set(names))
    assert all(re.search(r"\d{4}|[0-9a-f]{7}|\d+\.\d+", version) for _, _, version in rows)
    used = set(re.findall(r"\[([A-Z]{2})\]", SAID)) | set(re.findall(r"[(,] ?([A-Z]{2})(?=[,)])", SAID))
    assert used == set(names)


def test_a_repository_is_cited_at_a_commit():
    for _, url, version in ROW.findall(SOURCES):
        if "/blob/" in url:
            assert version[:7] in url, url


def test_each_of_the_rivals_has_a_paragraph_on_where_it_is_better():
    for section in SAID.split("\n### ")[1:]:
        assert "**Better" in section, section[:40]
        assert "**Other here:**" in section, section[:40]


def test_what_is_said_of_us_by_id_is_promised():
    assert set(re.findall(r"`([A-Z]\d\.[\w.]+)`", SAID)) <= CLAIMS.keys()
