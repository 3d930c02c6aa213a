"""Values cut to a budget: always JSON, always within it, and what was cut can be read by its path."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.excerpt import CHARACTERS_MIN, at, excerpt

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=400)
    | st.binary(max_size=9)
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=60) | st.dictionaries(st.text(max_size=90), inner, max_size=60), max_leaves=200
)  # fmt: skip


def markers(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "$cut" in value:
            yield value
        for each in value.values():
            yield from markers(each)
    elif isinstance(value, list):
        for each in value:
            yield from markers(each)


@given(VALUES, st.integers(CHARACTERS_MIN, 3_000))
def test_an_excerpt_is_json_within_its_budget_and_what_it_cuts_is_read_by_its_path(value, room):
    shown = excerpt(value, handle="01ARZ3NDEKTSV4RRFFQ69G5FAV:17", characters_max=room)
    text = json.dumps(shown, ensure_ascii=False)
    assert len(text) <= room
    assert json.loads(text) == shown
    for marker in markers(shown):
        if "n" not in marker:
            continue
        part = at(value, marker.get("path", ""))
        assert len(part if isinstance(part, str | list | dict) else str(part)) == marker["n"]
        if marker["type"] == "str" and isinstance(part, str):
            assert part.startswith(marker["first"])


@given(st.lists(st.dictionaries(st.sampled_from(["id", "name", "odd key"]), st.text(max_size=50)), min_size=60))
def test_a_list_shows_its_first_rows_whole_and_where_the_next_ones_are(rows):
    shown = excerpt(rows, handle="H", characters_max=500)
    if isinstance(shown, list):
        return
    n = len(shown["first"])
    assert n >= 1
    assert shown["first"] == rows[:n]
    assert shown["next"] == f"await tools.read('H', '[{n}:{2 * n}]')"
    assert at(rows, f"[{n}:{2 * n}]") == rows[n : 2 * n]


VALUE = {"items": [{"a": 1, "b c": {"d": [1, 2, 3]}}, {"a": 2}], "text": "abcdef", 3: "three", "set": {2, 1}}


@pytest.mark.parametrize(("path", "part"), [
    ("", VALUE), ("items[0].a", 1), (".items[-1].a", 2), ('items[0]["b c"].d[1:]', [2, 3]), ("items[:].a", [1, 2]),
    ("text[2:4]", "cd"), ('["3"]', "three"), ("set[0]", 1), ('items[0]["b c"]', {"d": [1, 2, 3]}),
])  # fmt: skip
def test_a_path_names_a_part(path, part):
    assert at(VALUE, path) == part


@pytest.mark.parametrize(("path", "kind", "words"), [
    ("items[5]", LookupError, "2 items, none at 5"), ("nothing", LookupError, "it has 'items', 'text', 3, 'set'"),
    ("text.x", LookupError, "is a str"), ("items[", ValueError, "is no path"), ("a b", ValueError, "is no path"),
    ("[0]" * 65, ValueError, "is no path"),
])  # fmt: skip
def test_a_path_that_leads_nowhere_says_what_is_there(path, kind, words):
    with pytest.raises(kind, match=words):
        at(VALUE, path)
