"""Where an event of a stream ends, whatever cuts it; and that one which is like the last means what reading it would say."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overwinter.adapters.dialects import dialects
from overwinter.adapters.dialects.events import LIKENESS_TRIES_MAX, RUN_MAX, Cutter, Likeness, StreamReader, parts
from overwinter.gateway.dialect import DialectName, Event
from overwinter.gateway.tap import Tap

LINES = st.lists(
    st.sampled_from([b"data: x", b"event: y", b": note", b"", b"data:", b"id: 7", "data: ü".encode()]), max_size=12
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw) -> bytes:
    return b"".join(line + draw(ENDS) for line in draw(LINES))


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(each, len(whole)) for each in places), len(whole)]
    return [whole[start:end] for start, end in pairwise(edges)]


@given(streams(), st.lists(st.integers(0, 120), max_size=20))
def test_every_cut_gives_the_same_events_and_loses_no_byte(whole: bytes, places: list[int]):
    at_once, pieces = Cutter(), Cutter()
    first = [*at_once.feed(whole), *at_once.feed(b"", is_last=True)]
    second = [each for piece in cut(whole, places) for each in pieces.feed(piece)] + pieces.feed(b"", is_last=True)
    assert first == second
    assert b"".join(first) + at_once.rest() == whole


@given(streams())
def test_each_event_ends_with_its_only_empty_line(whole: bytes):
    cutter = Cutter()
    for event in [*cutter.feed(whole), *cutter.feed(b"", is_last=True)]:
        lines = event.splitlines()
        assert lines.index(b"") == len(lines) - 1


def test_data_of_several_lines_is_joined():
    assert parts(b"event: e\ndata: {\ndata:  1\ndata:}\n\n") == ("e", b"{\n 1\n}")
    assert parts(b"data: {}\r\n\r\n") == ("", b"{}")
    assert parts(b": keep-alive\n\n") == ("", b"")
    assert parts(b"data: 1\ndata: 2\n\n") == ("", b"1\n2")
    assert parts(b"event: ping\ndata: {}\n\n") == ("ping", b"{}")


def test_a_long_event_in_small_pieces_is_read_in_linear_time():
    cutter, piece = Cutter(), b"x" * 7
    for _ in range(200_000):
        assert not cutter.feed(piece)
    assert len(cutter.feed(b"\n\n")[0]) == 1_400_002


@pytest.mark.parametrize("name", ["chat", "messages", "responses", "gemini"])
@pytest.mark.parametrize("empty", [b"data: \n\n", b"data:\n\n", b"event: x\ndata: \n\n", b": note\n\n", b"\n"])
def test_an_event_without_data_passes_in_a_packet_of_its_own_as_in_a_larger_one(name: DialectName, empty: bytes):
    path = "/v1beta/models/m:streamGenerateContent?alt=sse" if name == "gemini" else f"/v1/{NOUNS[name]}"
    asked = dialects()[name].read("POST", path, {}, b'{"model": "m", "messages": [], "max_tokens": 1, "stream": true}')
    event = b'data: {"type": "ping"}\n\n'
    alone, together = (dialects()[name].reader(asked, is_stream=True) for _ in range(2))
    apart = [each for packet in (event, empty, event) for each in alone.feed(packet)]
    assert apart == together.feed(event + empty + event)
    assert (b"".join(each.wire for each in apart), {each.kind for each in apart}) == (event + empty + event, {"other"})


# --- Events that are like the one before ------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.sampled_from(["word ", "x", "stop", "index", "0", "content", "text"]),
    st.text(st.sampled_from('ab "\\\n\x00\x7fü\u2028😀{},:'), max_size=4),
)
RAW = st.sampled_from(
    [b"", b"a", b"\xff", b"\x01", b'"', b'","b":"', b"\\", b"\\u0041", b"\t", "ü".encode(), b"\n\ndata: x"]
)
"""In the place of a text, as it stands in the bytes."""
NOUNS: dict[DialectName, str] = {"chat": "chat/completions", "messages": "messages", "responses": "responses"}
PATHS: dict[DialectName, str] = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}


@st.composite
def said(draw, name: DialectName) -> bytes:
    """Draw an event: most often more of a text."""
    text, index = draw(TEXTS), draw(st.sampled_from([0, 0, 0, 1]))
    more: dict[str, Any] = draw(
        st.sampled_from([{}, {}, {"usage": None}, {"usage": {"completion_tokens": 3}}, {"x": "a"}])
    )
    if name == "chat":
        key = draw(st.sampled_from(["content", "content", "content", "reasoning", "refusal"]))
        stop = draw(st.sampled_from([None, None, None, None, "stop"]))
        node = {"id": "c1", "choices": [{"index": index, "delta": {key: text}, "finish_reason": stop}], **more}
    else:
        key = draw(st.sampled_from(["text", "text", "text", "partial_json", "thinking"]))
        kind = draw(st.sampled_from(["content_block_delta"] * 4 + ["content_block_stop", "ping"]))
        node = {"type": kind, "index": index, "delta": {"type": "text_delta", key: text}, **more}
    content = json.dumps(node, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 5)) == 0:
        content = content.replace(json.dumps(text).encode(), b'"' + draw(RAW) + b'"')
    head = b"event: %b\n" % str(node.get("type", "")).encode() if draw(st.booleans()) else b""
    return draw(st.sampled_from([head, head, b": note\n"])) + b"data: " + content + b"\n\n"


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("wants_usage", [True, False])
@settings(max_examples=300)
@given(data=st.data())
def test_an_event_that_is_like_the_last_means_what_reading_it_would_say(
    name: DialectName, data: st.DataObject, *, wants_usage: bool
):
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    body = json.dumps({"model": "m", "max_tokens": 1, "messages": [], "stream": True} | options).encode()
    dialect = dialects()[name]
    asked = dialect.read("POST", PATHS[name], {}, body)
    quick, other = (dialect.reader(asked, is_stream=True) for _ in range(2))
    assert isinstance(quick, StreamReader)
    assert isinstance(other, StreamReader)
    slow = StreamReader(other._sayings)
    # Of few events, drawn again and again: one is often followed by its like.
    some = data.draw(st.lists(said(name), min_size=1, max_size=4))
    for wire in data.draw(st.lists(st.sampled_from(some), max_size=12)):
        assert quick.feed(wire) == slow.feed(wire)
    assert quick.close() == slow.close()


@pytest.mark.parametrize("name", ["chat", "messages"])
@settings(max_examples=200)
@given(data=st.data())
def test_a_run_of_events_is_the_same_bytes_texts_and_counts(name: DialectName, data: st.DataObject):
    body = json.dumps({"model": "m", "max_tokens": 1, "messages": [], "stream": True}).encode()
    dialect = dialects()[name]
    asked = dialect.read("POST", PATHS[name], {}, body)
    some = data.draw(st.lists(said(name), min_size=1, max_size=4))
    stream = b"".join(data.draw(st.lists(st.sampled_from(some), max_size=200)))
    cut = data.draw(st.integers(0, len(stream)))
    readers = [dialect.reader(asked, is_stream=True) for _ in range(2)]
    runs, single = (
        [*r.feed(stream[:cut], in_runs=i), *r.feed(stream[cut:], in_runs=i), *r.close()]
        for r, i in zip(readers, (True, False), strict=True)
    )
    assert b"".join(each.wire for each in runs) == b"".join(each.wire for each in single)
    taps = [Tap(asked), Tap(asked)]
    for tap, events in zip(taps, (runs, single), strict=True):
        for each in events:
            tap.see(each)
    assert taps[0].used == taps[1].used
    assert [(t.has_begun, t.is_whole, t.stop, t.answer_id, t.output_bytes, t.trouble) for t in taps[:1]] == [
        (t.has_begun, t.is_whole, t.stop, t.answer_id, t.output_bytes, t.trouble) for t in taps[1:]
    ]
    assert [(each.kind, each.usage, each.closes) for each in runs if not each.texts] == [
        (each.kind, each.usage, each.closes) for each in single if not each.texts
    ]


def test_events_alike_that_come_together_are_one_where_nobody_looks_into_them():
    body = b'{"model":"m","messages":[],"stream":true}'
    dialect = dialects()["chat"]
    asked = dialect.read("POST", PATHS["chat"], {}, body)
    chunk = b"".join(
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"w%d"},"finish_reason":null}]}\n\n' % number
        for number in range(2 * RUN_MAX)
    )
    reader = dialect.reader(asked, is_stream=True)
    sizes = [each.wire.count(b"data: ") for each in reader.feed(chunk, in_runs=True)]
    assert sizes == [1, 1, RUN_MAX, RUN_MAX - 2]  # the first is its choice's beginning, and the second is learnt
    assert len(dialect.reader(asked, is_stream=True).feed(chunk)) == 2 * RUN_MAX


def test_a_text_is_known_by_what_is_around_it():
    like = Likeness()
    like.learn(b'data: {"a":"word","b":null}', "word", b'data: {"a":"word"}')
    assert like.texts([b'data: {"a":"other","b":null}']) == ["other"]
    assert like.passed_on([b'data: {"a":"other","b":null}']) == b'data: {"a":"other"}'
    for none in (b'""', b'"x" ', b'"\\u0041"', b'"a","c":"b"', b'"\x01"', b'"\xff"', b'"'):
        assert like.texts([b'data: {"a":' + none + b',"b":null}']) == []
    like.forget()
    assert like.texts([b'data: {"a":"other","b":null}']) == []


@pytest.mark.parametrize("wire", [b'{"word":"w\\u006frd"}', b'{"a":"word","b":"word"}', b'{"a":1}'])
def test_a_text_that_may_stand_elsewhere_is_not_looked_for(wire: bytes):
    like = Likeness()
    like.learn(wire, "word", wire)
    assert like.texts([wire]) == []


def test_a_stream_whose_events_are_never_alike_is_read_and_no_more():
    like = Likeness()
    for number in range(LIKENESS_TRIES_MAX + 1):
        wire = b'{"n":%d,"a":"word"}' % number
        assert like.texts([wire]) == []
        like.forget()
        like.learn(wire, "word", wire)
    assert like.texts([b'{"n":%d,"a":"other"}' % LIKENESS_TRIES_MAX]) == []


def test_most_of_a_stream_is_not_read():
    body = b'{"model":"m","messages":[],"stream":true}'
    dialect = dialects()["chat"]
    reader = dialect.reader(dialect.read("POST", PATHS["chat"], {}, body), is_stream=True)
    assert isinstance(reader, StreamReader)
    again, known = reader._again, list[tuple[Event, int] | None]()

    def counted(wires: Sequence[bytes]) -> tuple[Event, int] | None:
        known.append(again(wires))
        return known[-1]

    counting = StreamReader(reader._sayings, counted)
    for word in ["", *(f"word {number}" for number in range(50))]:
        counting.feed(
            b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
            % word.encode()
        )
    assert sum(each is not None for each in known) == 48
