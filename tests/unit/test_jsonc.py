"""Edits of JSON with comments: what is edited says what it should, and everything else stays as it was."""

import re
from typing import Any

import json5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.adapters.jsonc import put, take

COMMENTED = """{
  // servers of mine
  "mcpServers": {
    "one": { "command": "a" }, // the first
    /* and the second */
    "two": { "command": "b // no comment", },
  },
  "other": [1, /* } */ 2],
}
"""

words = st.text('abc"\\/{}[],:é \u2028', max_size=6)
scalars = st.one_of(words, st.integers(-9, 9), st.booleans(), st.none())
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2))
blanks = st.sampled_from(["", " ", "\n", "\n  ", "\t", ' // c0 , } "\n', '/* c1 { " */', "\n// c2\n  ", "\r\n"])


@st.composite
def objects(draw: Any, depth: int = 2) -> tuple[str, dict[str, Any]]:
    """Return the text of an object with comments, and what it says."""
    said: dict[str, Any] = {}
    text = "{" + draw(blanks)
    keys = draw(st.lists(words, max_size=3, unique=True))
    for number, key in enumerate(keys):
        if depth and draw(st.booleans()):
            written, value = draw(objects(depth=depth - 1))
        else:
            value = draw(values)
            written = json5.dumps(value, quote_keys=True, ensure_ascii=True)
        said[key] = value
        comma = "," if number + 1 < len(keys) or draw(st.booleans()) else ""
        name = json5.dumps(key, quote_keys=True)
        text += f"{name}{draw(blanks)}:{draw(blanks)}{written}{draw(blanks)}{comma}{draw(blanks)}"
    return text + "}", said


def comments(text: str) -> list[str]:
    """Return the comments in a text; a line's without the carriage return before its end."""
    found = re.finditer(r'"(?:[^"\\]|\\.)*"|(//[^\n]*|/\*.*?\*/)', text, re.DOTALL)
    return [each[1].rstrip("\r ") for each in found if each[1]]


def read(text: str) -> Any:
    return json5.loads(text)


@pytest.mark.claim("U1.installed.kept")
@given(objects(), words, values)
def test_what_is_put_is_there_and_all_else_and_every_comment_stays(drawn, key, value):
    text, said = drawn
    edited = put(text, [key], value)
    assert read(edited) == {**said, key: value}
    if key not in said:
        assert comments(edited) == comments(text)


@given(objects(), st.data())
def test_what_is_taken_is_gone_and_all_else_and_every_comment_outside_stays(drawn, data):
    text, said = drawn
    if not said:
        return
    key = data.draw(st.sampled_from(sorted(said)))
    edited = take(text, [key])
    assert read(edited) == {name: value for name, value in said.items() if name != key}
    assert len(comments(edited)) <= len(comments(text))
    if not isinstance(said[key], dict):
        kept, before = comments(edited), comments(text)
        assert all(kept.count(each) <= before.count(each) for each in kept)


@given(objects(), words, words, values)
def test_what_is_put_and_taken_again_leaves_the_same_members(drawn, outer, key, value):
    text, said = drawn
    if outer in said:
        return
    edited = take(put(text, [outer, key], value), [outer])
    assert read(edited) == said
    assert comments(edited) == comments(text)


def test_a_member_is_set_beside_others_in_the_form_of_the_file():
    edited = put(COMMENTED, ["mcpServers", "ours"], {"command": "o"})
    assert edited == COMMENTED.replace(
        '"b // no comment", },\n', '"b // no comment", },\n    "ours": {\n      "command": "o"\n    },\n'
    )
    assert take(edited, ["mcpServers", "ours"]) == COMMENTED


def test_a_comment_at_the_end_of_a_line_stays_with_its_line():
    text = '{\n\t"a": 1 // one\n}\n'
    assert put(text, ["b"], 2) == '{\n\t"a": 1, // one\n\t"b": 2\n}\n'
    assert take(put(text, ["b"], 2), ["b"]) == text


def test_the_ends_of_lines_are_those_of_the_file():
    edited = put('{\r\n  "a": {}\r\n}\r\n', ["a", "b"], {"c": 1})
    assert edited.count("\n") == edited.count("\r\n")


@pytest.mark.parametrize("text", ["", "\n", "// nothing yet\n"])
def test_a_file_without_anything_is_an_empty_object(text):
    assert read(put(text, ["a", "b"], 1)) == {"a": {"b": 1}}
    assert put(text, ["a"], 1).startswith(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{\n"a": 1,\n"a": 2}', 3),
        ("{\nb: 1}", 2),
        ("{\n'b': 1}", 2),
        ('{"x":\n[1}', 2),
        ('{"x": 1\n"b": 2}', 2),
        ("[]", 1),
        ('{"x": {"y": [}', 1),
        ('{"x"', 1),
    ],
)
def test_another_form_is_refused_with_its_line(text, line):
    with pytest.raises(ValueError, match=f"line {line}: "):
        put(text, ["c"], 1)


def test_a_way_through_something_else_than_an_object_is_refused():
    with pytest.raises(ValueError, match="line 2: an object was expected"):
        put('{\n"a": 5}', ["a", "b"], 1)
    with pytest.raises(ValueError, match="line 1: it has no 'c'"):
        take('{"a": 5}', ["c"])
