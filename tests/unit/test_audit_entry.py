"""An audit entry has one spelling, and tells nothing of a body that was deleted."""

import json
import math
import string
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.audit import (
    ENTRY_BYTES_MAX,
    Atom,
    Body,
    Entry,
    EntryRefused,
    Plain,
    Site,
    canonical,
    decode,
    encode,
    hidden,
)

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
ATOMS = TEXT | st.booleans() | st.none() | st.integers(1 - 2**53, 2**53 - 1)
FIELDS = st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=8), ATOMS | st.lists(ATOMS, max_size=4))
ENTRY = Entry(kind="call.intent", tenant="acme", agent="agent:acme/billing", epoch=3, run="01ABC", tool="crm.find")


@given(FIELDS)
def test_what_was_written_is_read_and_spelt_the_same_again(fields: dict[str, Plain]) -> None:
    raw = canonical(fields)
    assert decode(raw) == fields
    assert canonical(decode(raw)) == raw


@given(FIELDS, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(fields: dict[str, Plain], dice) -> None:
    keys = list(fields)
    dice.shuffle(keys)
    assert canonical({key: fields[key] for key in keys}) == canonical(fields)


@given(st.text(st.characters(max_codepoint=0x2FF, exclude_categories=("Cs",))))
def test_text_is_escaped_as_rfc_8785_has_it(text: str) -> None:
    """3.2.2.2: quote and backslash; the five short escapes; other controls as four small digits; nothing else."""
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    escaped = "".join(short.get(c) or (f"\\u{ord(c):04x}" if c < " " else c) for c in text)
    assert canonical({"a": text}) == f'{{"a":"{escaped}"}}'.encode()


@pytest.mark.parametrize(
    "value",
    [1.0, math.nan, 2**53, -(2**53), b"bytes", {"a": 1}, [["nested"]], [1.5], ("tuple",), "half \ud83d", float("inf")],
)
def test_a_value_with_a_second_spelling_is_refused(value) -> None:
    with pytest.raises(EntryRefused):
        canonical({"a": value})


def test_a_key_beyond_ascii_is_refused() -> None:
    with pytest.raises(EntryRefused, match="ASCII"):
        canonical({"é": 1})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"b":1,"a":1}',
        b'{"a":1,"a":1}',
        b'{"a":1.0}',
        b'{"a":"\\u0041"}',
        b'{"a":1}\n',
        b'{"a":NaN}',
        b'{"a":9007199254740993}',
        b"\xff",
        b"[" * 100000,
        b'{"a":{"b":1}}',
        b'{"a":-0}',
        b'{"a":1e2}',
    ],
)
def test_another_spelling_is_not_read(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not an audit entry"):
        decode(raw)


NUMBERS = st.integers(0, 2**53 - 1)
BODIES = st.none() | st.binary(max_size=8).map(hidden)
SITES = st.none() | st.builds(Site, program_sha256=TEXT, start=NUMBERS, end=NUMBERS)
LISTS = st.lists(TEXT, max_size=3).map(tuple)
ENTRIES = st.builds(
    Entry, kind=st.sampled_from(["call.intent", "call.result"]), tenant=TEXT, agent=TEXT, epoch=NUMBERS, run=st.none() | TEXT,
    call=st.none() | NUMBERS, act=LISTS, site=SITES, tool=st.none() | TEXT, tool_pin=st.none() | TEXT, args=BODIES, result=BODIES,
    labels=LISTS, decision=st.none() | st.just("deny"), policy_ids=LISTS, policy_set_sha256=st.none() | TEXT, errors=LISTS,
    lease=st.none() | TEXT,
)  # fmt: skip


@given(ENTRIES, NUMBERS, NUMBERS)
def test_an_entry_is_spelt_as_its_fields_are(entry: Entry, seq: int, ts_ms: int) -> None:
    site: list[Atom] | None = entry.site and [entry.site.program_sha256, entry.site.start, entry.site.end]
    said: dict[str, Plain] = {
        "v": 1, "seq": seq, "ts": ts_ms, "kind": entry.kind, "tenant": entry.tenant, "agent": entry.agent, "epoch": entry.epoch,
        "run": entry.run, "call": entry.call, "act": list(entry.act), "site": site, "tool": entry.tool, "tool_pin": entry.tool_pin,
        "args_hmac": entry.args and entry.args.hmac(), "result_hmac": entry.result and entry.result.hmac(),
        "labels": list(entry.labels), "decision": entry.decision, "policy_ids": list(entry.policy_ids),
        "policy_set_sha256": entry.policy_set_sha256, "errors": list(entry.errors), "lease": entry.lease,
    }  # fmt: skip
    kept = {key: value for key, value in said.items() if value is not None and value != []}
    assert encode(entry, seq=seq, ts_ms=ts_ms) == canonical(kept)


def test_an_entry_says_where_it_stands_and_leaves_out_what_is_not() -> None:
    assert json.loads(encode(ENTRY, seq=7, ts_ms=1_900_000_000_000)) == {
        "v": 1, "seq": 7, "ts": 1_900_000_000_000, "kind": "call.intent", "tenant": "acme", "agent": "agent:acme/billing",
        "epoch": 3, "run": "01ABC", "tool": "crm.find",
    }  # fmt: skip


def test_every_field_of_the_format_is_written() -> None:
    body = hidden(b"x")
    full = Entry(
        kind="call.result", tenant="t", agent="a", epoch=1, run="r", act=("anna@example.com", "parent"), tool="t.f",
        site=Site(program_sha256="ab", start=3, end=9), tool_pin="pin", args=body, result=body, labels=("secret",), decision="deny",
        policy_ids=("p1",), policy_set_sha256="cd", errors=("overflow",), lease="l",
    )  # fmt: skip
    written = decode(encode(full, seq=0, ts_ms=1))
    assert sorted(written) == sorted(
        [
            "v",
            "seq",
            "ts",
            "tenant",
            "run",
            "agent",
            "epoch",
            "act",
            "kind",
            "site",
            "tool",
            "tool_pin",
            "args_hmac",
            "result_hmac",
            "labels",
            "decision",
            "policy_ids",
            "policy_set_sha256",
            "errors",
            "lease",
        ]
    )
    assert written["site"] == ["ab", 3, 9]
    assert full.bodies() == (("args", body), ("result", body))


def test_an_entry_that_is_too_long_is_refused() -> None:
    with pytest.raises(EntryRefused, match="at most"):
        encode(Entry(kind="deny", tenant="t", agent="a", epoch=1, errors=("x" * ENTRY_BYTES_MAX,)), seq=0, ts_ms=0)


def test_equal_bodies_leave_unequal_entries_that_hold_neither_body_nor_key() -> None:
    numbers = count(1)
    one, other = (hidden(b'{"iban":"DE02"}', lambda size: bytes([next(numbers)]) * size) for _ in range(2))
    assert one.hmac() != other.hmac()
    raw = encode(Entry(kind="call.intent", tenant="t", agent="a", epoch=1, args=one), seq=0, ts_ms=0)
    assert b"DE02" not in raw
    assert one.key.hex().encode() not in raw
    assert len({hidden(b"").key for _ in range(100)}) == 100


def test_the_hmac_is_that_of_rfc_4231() -> None:
    body = Body(key=b"\x0b" * 20, content=b"Hi There")
    assert body.hmac() == "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"


def test_printable_keys_sort_by_code_point() -> None:
    keys = sorted(string.printable)
    assert list(json.loads(canonical(dict.fromkeys(reversed(keys), 1)))) == keys
