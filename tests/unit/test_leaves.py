"""A leaf's literal is found in its document whatever else reads like it, looks like it, or is written in another way."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from json import decoder
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.gateway.leaves import (
    HEAD_CHARS,
    HEADS_MAX,
    NESTING_MAX,
    SOUGHT_MAX,
    Document,
    read,
    replaced,
    whole_number,
)

OPAQUE = frozenset({"id", "abc"})
SCANSTRING: Callable[[str, int, bool], tuple[str, int]] = vars(decoder)["scanstring"]
LONG_NUMBER = re.compile(r"-?\d[\d.eE+-]{8,}")
# Texts that are in each other, in what stands between texts, and in the way that they are written.
alike = st.sampled_from(
    ["a", "abc", "text", "id", ":", ", ", '"', '","', "\\", '\\"a', "abc\\", " abc", "é", "\t", "123456789", "data:,"]
)
values = st.recursive(
    alike | st.integers() | st.none() | st.sampled_from([1.5e300, 1e22, 4111111111111111.0, 0.1234567890123]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(alike, inner, max_size=4),
    max_leaves=20,
)


def written(value: object, escaped: Iterator[bool]) -> str:
    """Return JSON in which each text is written as short as it goes or with every letter escaped."""
    if isinstance(value, str):
        return '"' + "".join(f"\\u{ord(each):04x}" for each in value) + '"' if next(escaped) else json.dumps(value)
    if isinstance(value, list):
        return "[" + ", ".join(written(each, escaped) for each in cast("list[object]", value)) + "]"
    if isinstance(value, dict):
        table = cast("dict[str, object]", value).items()
        return "{" + ",".join(f"{written(key, escaped)}: {written(each, escaped)}" for key, each in table) + "}"
    return json.dumps(value)


def tokens(document: str) -> Iterator[tuple[int, int]]:
    """Yield where texts and long numbers are, by reading every text."""
    at = 0
    while True:
        quote = document.find('"', at)
        yield from (each.span() for each in LONG_NUMBER.finditer(document, at, len(document) if quote < 0 else quote))
        if quote < 0:
            return
        at = SCANSTRING(document, quote + 1, False)[1]
        yield quote, at


@given(values, st.lists(st.booleans(), min_size=1, max_size=5), st.data())
def test_the_literal_of_a_leaf_is_told_from_all_others(value: object, escaped: list[bool], data: st.DataObject):
    document = read(written(value, itertools.cycle(escaped)), "top", OPAQUE)
    chosen = data.draw(st.sets(st.integers(0, max(0, len(document.leaves) - 1)), max_size=SOUGHT_MAX + 2))
    leaves = [leaf for number, leaf in enumerate(document.leaves) if number in chosen]
    places = list(tokens(document.text))
    expected = document.text
    for leaf in reversed(leaves):
        start, end = places[leaf.index]
        literal = document.text[start:end]
        assert leaf.text == (whole_number(literal) if leaf.is_number else json.loads(literal))
        expected = expected[:start] + "NEW" + expected[end:]
    assert replaced(document, [(leaf, "NEW") for leaf in leaves]) == expected


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (r'[{"id": "abcd"}, {"text": "\u0061bcd"}]', r'[{"id": "abcd"}, {"text": NEW}]'),
        (r'[{"id": {"abcd": 1}}, {"text": "\u0061bcd"}]', r'[{"id": {"abcd": 1}}, {"text": NEW}]'),
        (r'["\"abcd\"", "\u0061bcd"]', r'["\"abcd\"", NEW]'),
        (r'["x\"abcd", "\u0061bcd"]', r'["x\"abcd", NEW]'),
        (r'["x\"abcd", "abcd"]', r'["x\"abcd", NEW]'),
        (r'["x", "y", "\u002c "]', r'["x", "y", NEW]'),
        (r'["x" , "y", "\u0020, "]', r'["x" , "y", NEW]'),
        (r'["\\", "abcd", "\\\"abcd\""]', r'["\\", NEW, "\\\"abcd\""]'),
        ('["raw\ttab", "abcd"]', '["raw\ttab", NEW]'),
        (r'{"abcd": "abcd"}', r'{"abcd": NEW}'),
        (r'{"text": "x", "content": "\u0074ext"}', r'{"text": "x", "content": NEW}'),
        ('"abcd"', "NEW"),
        ('["é", "\\u00e9bcd", "abcd"]', '["é", "\\u00e9bcd", NEW]'),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_leaf_stays(text: str, changed: str):
    document = read(text, "top", OPAQUE)
    leaf = next(each for each in reversed(document.leaves) if each.text in ("abcd", ", ", " , ", "text"))
    assert replaced(document, [(leaf, "NEW")]) == changed


@pytest.mark.parametrize("others", [1, HEADS_MAX - 1, HEADS_MAX, HEADS_MAX + 1])
def test_a_leaf_is_told_from_others_that_begin_like_it(others: int):
    texts = ["x" * HEAD_CHARS + f" {number}" for number in range(others + 1)]
    document = read(json.dumps(texts), "top", OPAQUE)
    assert json.loads(replaced(document, [(document.leaves[-1], '"NEW"')])) == [*texts[:-1], "NEW"]


@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]")])
def test_what_is_nested_as_deep_as_may_be_is_read_however_deep_the_stack_is_already(opening: str, closing: str):
    def nested(depth: int, frames: int) -> Document:
        if frames:
            return nested(depth, frames - 1)
        return read(opening * depth + '"x"' + closing * depth, "top", frozenset())

    assert nested(NESTING_MAX, 350).leaves[-1].text == "x"
    with pytest.raises(ValueError, match="nested too deeply"):
        nested(NESTING_MAX + 1, 0)


@given(
    st.sampled_from(["", "-"]),
    st.integers(0, 10**15),
    st.text("0123456789", max_size=15).map(lambda digits: digits and f".{digits}"),
    st.integers(-30, 20).map(lambda power: f"e{power}" if power else "") | st.integers(0, 20).map("E+{}".format),
)
def test_a_whole_number_is_its_digits_however_it_is_written(sign: str, before: int, behind: str, power: str):
    text = f"{sign}{before}{behind}{power}"
    value = Decimal(text)
    is_whole = value and value == value.to_integral_value()
    assert whole_number(text) == (f"{value:.0f}" if is_whole else text) or not value


@pytest.mark.parametrize(
    "text", ["4111111111111111.5", "1e400", "1.0e999999999", "0.41111111", "0e-5", "1.2.3", "word", ""]
)
def test_another_number_stays_as_it_is_written(text: str):
    assert whole_number(text) == text
