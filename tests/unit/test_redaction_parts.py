"""Requests that come again in parts: what becomes of one hangs on no other, nor on whether it was there before."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.adapters.detectors import WordList, detectors
from overwinter.adapters.dialects.request import elements
from overwinter.gateway.parts import COMMAS_MAX, ELEMENTS_MAX, Split, cut
from overwinter.gateway.placeholders import Vault
from overwinter.gateway.redaction import BATCH_CHARS_MAX, REMEMBERED_MAX, Found, Redactor, Rules, Search
from overwinter.gateway.refusal import ModelRefused

EVERY = detectors([WordList(name="people", words=("Ada Quill",))])
OPAQUE = frozenset({"id", "type", "data"})
WRITTEN: tuple[Mapping[str, Any], ...] = (
    {},
    {"separators": (",", ":")},
    {"indent": 1},
    {"separators": (" ,\n", ":")},
    {"ensure_ascii": False},
)

texts = st.sampled_from(
    [
        "plain",
        "böse",
        "Ada Quill",
        "to x@y.zz",
        '{"to": "x@y.zz"}',
        "4111 1111 1111 1111",
        "",
        ",",
        "[",
        '"',
        "OW_EMAIL_0123456789abcdef",
    ]
)
values = st.recursive(
    st.one_of(texts, st.integers(), st.none(), st.just(4111111111111111)),
    lambda below: st.one_of(
        st.lists(below, max_size=3),
        st.dictionaries(st.sampled_from(["content", "id", "input", "name", "Ada Quill", "data"]), below, max_size=3),
    ),
    max_leaves=6,
)
fields = st.sampled_from(["messages", "tools", "input", "system"])


def whole(_: bytes) -> None:
    return None


def redacted(name: str, raw: bytes, search: Search, split: Split) -> bytes | str:
    vault = Vault(b"k")
    try:
        new = Redactor(search, Rules(), vault, split=split).redact({name: raw}, {name}, OPAQUE).get(name, raw)
    except ModelRefused as refused:
        return str(refused)
    return new + repr(sorted(vault.values().items())).encode()


@pytest.mark.claim("M6.redact.prefix")
@given(fields, st.lists(values, max_size=6), st.data())
def test_a_request_becomes_the_same_whatever_of_it_was_there_before(name: str, items: list[Any], data: st.DataObject):
    search = Search(EVERY, lambda: 0.0)
    for _ in range(3):
        now = data.draw(st.lists(st.sampled_from(items), max_size=8)) if items else []
        raw = json.dumps(now, **data.draw(st.sampled_from(WRITTEN))).encode()
        assert redacted(name, raw, search, elements) == redacted(name, raw, Search(EVERY, lambda: 0.0), whole)


@given(st.lists(values, max_size=6), st.sampled_from(WRITTEN), st.sampled_from(["", "]", ",", "[1", "x", '"']))
def test_elements_are_where_they_are_said_to_be(items: list[Any], written: Mapping[str, Any], behind: str):
    raw = (json.dumps(items, **written) + behind).encode()
    parts = cut("messages", raw, OPAQUE, elements, lambda _: False)
    if behind or not items:
        assert [(part.start, part.end, part.first) for part in parts] == [(0, len(raw), None)]
    else:
        (part,) = parts
        assert json.loads(b"[%b]" % raw[part.start : part.end]) == items
        each = [
            one
            for at in range(len(items))
            for one in cut("messages", raw, OPAQUE, elements, lambda key, at=at: key != part.keys[at])
        ]
        for one in each:
            assert one.first is not None
            assert json.loads(b"[%b]" % raw[one.start : one.end]) == items[one.first : one.first + len(one.keys)]


def test_an_element_is_named_by_its_number_in_the_whole_list():
    search = Search(EVERY, lambda: 0.0)
    turns = [{"content": f"turn {number}"} for number in range(9)]
    redacted("messages", json.dumps(turns).encode(), search, elements)
    redactor = Redactor(search, Rules(request={"secret": "mask", "email": "block"}), Vault(b"k"), split=elements)
    for _ in range(2):
        with pytest.raises(ModelRefused, match=r"messages\[9\]\.content has a value of class 'email'"):
            redactor.redact({"messages": json.dumps([*turns, {"content": "x@y.zz"}]).encode()}, {"messages"}, OPAQUE)


def test_a_value_that_was_found_before_can_be_restored_by_another_run():
    search = Search(EVERY, lambda: 0.0)
    raw = json.dumps([{"content": "to x@y.zz"}, {"content": "plain"}]).encode()
    first, second = Vault(b"a"), Vault(b"b")
    for vault in (first, second):
        Redactor(search, Rules(), vault, split=elements).redact({"messages": raw}, {"messages"}, OPAQUE)
    assert list(first.values().values()) == list(second.values().values()) == ["x@y.zz"]
    assert first.values().keys() != second.values().keys()


def test_bytes_that_are_no_list_of_json_are_refused_or_go_whole():
    search = Search(EVERY, lambda: 0.0)
    for raw in (b"[1,]", b"[,1]", b"[1 2]", b"[1]]", b"[", b"[\xff]", b'["a\x00b"', b"[01]"):
        assert "is not JSON" in str(redacted("messages", raw, search, elements))
    assert redacted("messages", b'["a", NaN]', search, elements) == redacted("messages", b'["a", NaN]', search, whole)


def deeper(frames: int, work: Callable[[], Any]) -> Any:
    return work() if not frames else deeper(frames - 1, work)


@pytest.mark.parametrize("depth", [100, 490, 510, 700, 900, 940, 977])
def test_what_a_document_is_hangs_on_its_bytes_and_not_on_who_reads_it(depth: int):
    """A large request is read in a thread, where the end of the stack is further away: what was found must be in the same leaves."""
    inner = '{"a": "hello", "zz": ' + "[" * depth + '"mail bob@example.com please"' + "]" * depth + "}"
    raw = json.dumps([{"role": "user", "content": inner}]).encode()
    search = Search(EVERY, lambda: 0.0)
    said = [deeper(frames, lambda: redacted("messages", raw, search, elements)) for frames in (300, 0, 300, 0)]
    assert len(set(said)) == 1
    assert b"bob@example.com" not in str(said[0]).encode().partition(b"[(")[0]
    outer = ("[" * depth + '"bob@example.com"' + "]" * depth).encode()
    said = [deeper(frames, lambda: redacted("messages", outer, search, elements)) for frames in (300, 0, 300, 0)]
    assert len(set(said)) == 1


def test_a_part_with_very_many_values_is_searched_again():
    search = Search(EVERY, lambda: 0.0)
    raw = json.dumps([" ".join(f"user{number}@example.com" for number in range(REMEMBERED_MAX + 1)), "plain"]).encode()
    assert redacted("messages", raw, search, elements) == redacted("messages", raw, search, elements)
    assert len(search.parts._known) == 1


class Slow:
    """Lets the clock go on with each text that it is given."""

    name = "slow"

    def __init__(self) -> None:
        self.seen = 0

    def find(self, texts: Sequence[str]) -> Sequence[Sequence[Found]]:
        self.seen += len(texts)
        return [() for _ in texts]


def test_a_request_that_takes_too_long_gets_further_the_next_time():
    slow = Slow()
    search = Search([slow], lambda: float(slow.seen), scan_s_max=300)
    raw = json.dumps([{"content": f"{number} {'x' * 1_000}"} for number in range(1_000)]).encode()
    tries = 0
    while "took more than" in str(redacted("messages", raw, search, elements)):
        tries += 1
    assert 0 < tries <= 4


@pytest.mark.parametrize("count", [200, ELEMENTS_MAX + 1])
def test_equal_elements_are_searched_once(count: int):
    slow = Slow()
    redacted("messages", json.dumps([{"content": "x" * 1_500}] * count).encode(), Search([slow], lambda: 0.0), elements)
    assert slow.seen <= 1 + count * 1_500 // BATCH_CHARS_MAX


@pytest.mark.parametrize("element", [1, {}, "", "ab", None])
def test_a_list_of_very_many_small_elements_is_not_cut(element: Any):
    cuts = []
    raw = json.dumps([element] * (COMMAS_MAX + 2)).encode()
    parts = cut("messages", raw, OPAQUE, cuts.append, lambda _: False)
    assert not cuts
    assert [(part.start, part.end, part.first) for part in parts] == [(0, len(raw), None)]
