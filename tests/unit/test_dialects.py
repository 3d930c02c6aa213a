"""What holds for every wire format, over answers as the provider of the tests gives them."""

import itertools
import json
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overwinter.adapters.dialects import dialects
from overwinter.gateway.dialect import AnswerReader, Asked, Dialect, DialectName, Event, Means, Text
from overwinter.gateway.refusal import ModelRefused, Refusal, Why
from provider import Plan, Tokens
from provider.provider import render_events, render_whole

ALL = dialects()
PATHS: dict[DialectName, str] = {
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
    "gemini": "/v1beta/models/m:streamGenerateContent?alt=sse",
}
STREAMED: list[DialectName] = list(PATHS)
TOKENS = Tokens(fresh=100, read=30, written_5m=20, output=11, thinking=4)
PLAN = Plan(
    id="mock",
    model="m",
    pieces=("Hel", "lo ", "ü — \u2028", "\\u0041 ", '"q"\n', "data: x\n\n", "😀"),
    tool="",
    tokens=TOKENS,
    wants_usage=True,
)
PLANS = {
    "text": PLAN,
    "tool": replace(PLAN, tool="weather", pieces=('{"ci', 'ty": "Os', "lo\\u00e5", '", "n": 1}')),
    "clipped": replace(PLAN, is_clipped=True),
    "choices": replace(PLAN, choices=2),
    "silent": replace(PLAN, tokens=replace(TOKENS, thinking=0), pieces=()),
}
REQUEST: dict[str, Any] = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}


def asked_of(name: DialectName, **fields: object) -> Asked:
    return ALL[name].read("POST", PATHS[name], {}, json.dumps(REQUEST | fields).encode())


@lru_cache
def stream_of(name: DialectName, plan: str, *, has_noise: bool = False) -> bytes:
    wires = [each.wire for each in render_events(name, PLANS[plan])]
    if has_noise:
        wires = [(b": note\n" + each).replace(b"\n", b"\r\n") + b": keep-alive\r\n\r\n" for each in wires]
    return b"".join(wires)


def read(reader: AnswerReader, pieces: list[bytes]) -> list[Event]:
    return [*(each for piece in pieces for each in reader.feed(piece)), *reader.close()]


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(whole)]
    return [whole[start:end] for start, end in itertools.pairwise(edges)]


def streamed(name: DialectName, plan: str, *, has_noise: bool = False) -> list[Event]:
    return read(ALL[name].reader(asked_of(name), is_stream=True), [stream_of(name, plan, has_noise=has_noise)])


every_answer = pytest.mark.parametrize(("name", "plan"), [(name, plan) for name in STREAMED for plan in PLANS])


# --- Events ----------------------------------------------------------------------------------------------------------


@every_answer
@pytest.mark.parametrize("has_noise", [False, True])
@settings(max_examples=30)
@given(picks=st.lists(st.floats(0, 1), max_size=40))
def test_every_cut_gives_the_same_events_and_the_bytes_that_came(
    name: DialectName, plan: str, picks: list[float], *, has_noise: bool
):
    whole = stream_of(name, plan, has_noise=has_noise)
    pieces = cut(whole, [round(each * len(whole)) for each in picks])
    events = read(ALL[name].reader(asked_of(name), is_stream=True), pieces)
    assert events == streamed(name, plan, has_noise=has_noise)
    assert b"".join(each.wire for each in events) == whole


@every_answer
def test_noise_changes_nothing_of_what_is_understood(name: DialectName, plan: str):
    plain, noisy = streamed(name, plan), streamed(name, plan, has_noise=True)
    kept = [each for each in noisy if not each.wire.startswith(b": keep")]
    assert [replace(each, wire=b"") for each in kept] == [replace(each, wire=b"") for each in plain]


@every_answer
def test_one_event_ends_an_answer_and_says_all_that_was_used(name: DialectName, plan: str):
    events = streamed(name, plan)
    assert [each.kind for each in events].count("terminal") == 1
    assert events[-1].kind == "terminal"
    assert not any(each.kind == "error" for each in events)
    usage = [each.usage for each in events if each.usage is not None][-1]
    whole = wholly(name, plan)
    assert usage == whole.usage
    assert usage.input == 150
    assert (usage.cache_read, usage.output, usage.source) == (30, 11, "provider")
    assert (whole.stop, whole.answer_id) == (events[-1].stop, events[-1].answer_id)
    assert whole.answer_id


def wholly(name: DialectName, plan: str) -> Event:
    events = read(ALL[name].reader(asked_of(name), is_stream=False), [render_whole(name, PLANS[plan])])
    assert [each.kind for each in events] == ["terminal"]
    return events[0]


@every_answer
def test_texts_are_the_answers_and_arguments_are_json(name: DialectName, plan: str):
    texts = dict[str, list[Text]]()
    for event in streamed(name, plan):
        for each in event.texts:
            if not each.channel.startswith("whole."):  # said again, in one piece
                texts.setdefault(each.channel, []).append(each)
    said = ["".join(each.text for each in pieces) for pieces in texts.values()]
    expected = PLANS[plan].text
    if name == "gemini":
        expected = "Osloå" if plan == "tool" else expected
        said = said[1:]  # what was thought is first
    assert said == [expected] * (PLANS[plan].choices if name == "chat" else 1 if expected else 0) or not expected
    if plan == "tool" and name != "gemini":
        assert all(each.is_json for pieces in texts.values() for each in pieces)
        assert json.loads(said[0]) == {"city": "Osloå", "n": 1}


@every_answer
def test_each_channel_that_had_text_is_closed_after_its_last(name: DialectName, plan: str):
    open_now = set[str]()
    for event in streamed(name, plan):
        open_now |= {each.channel for each in event.texts}
        open_now -= set(event.closes)
    assert not open_now


@every_answer
def test_without_its_last_event_an_answer_has_no_end(name: DialectName, plan: str):
    wires = [each.wire for each in render_events(name, PLANS[plan])]
    for end in range(len(wires) - (2 if name == "chat" else 1)):
        events = read(ALL[name].reader(asked_of(name), is_stream=True), wires[:end])
        assert not any(each.kind == "terminal" for each in events)


@every_answer
@settings(max_examples=30)
@given(share=st.floats(0, 1))
def test_a_torn_event_is_not_handed_on(name: DialectName, plan: str, share: float):
    whole = stream_of(name, plan)
    events = read(ALL[name].reader(asked_of(name), is_stream=True), [whole[: round(share * len(whole))]])
    out = b"".join(each.wire for each in events)
    assert (whole + b"\n").startswith(out)
    assert out.endswith(b"\n\n") or not out
    assert not any(each.kind == "error" for each in events)


@pytest.mark.parametrize("name", STREAMED)
def test_unknown_events_and_fields_pass(name: DialectName):
    raw = b'event: new\ndata: {"type": "new", "a": [1, {"b": 2}]}\n\ndata: {"type": "newer", "delta": 7, "choices": 9}\n\n: x\n\nid: 3\n\n'
    events = read(ALL[name].reader(asked_of(name), is_stream=True), [raw])
    assert b"".join(each.wire for each in events) == raw
    assert not any(each.kind in ("error", "terminal") for each in events)


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize(
    "junk", [b"data: {\n\n", b"data: {} {}\n\n", b"data: " + b"[" * 100_000 + b"\n\n", b'data: "\xff"\n\n']
)
def test_junk_becomes_an_error_of_the_dialect_and_the_end(name: DialectName, junk: bytes):
    events = read(ALL[name].reader(asked_of(name), is_stream=True), [junk, stream_of(name, "text")])
    assert [each.kind for each in events] == ["error"]
    assert events[0].wire == ALL[name].broken(Refusal(why="partial", message=events[0].message), ())


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("raw", [b"<html></html>", b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_answer_has_neither_content_nor_end(name: DialectName, raw: bytes):
    for is_stream in (True, False):
        events = read(ALL[name].reader(asked_of(name), is_stream=is_stream), [raw])
        assert not any(each.kind in ("content", "terminal") for each in events)


# --- One from the other ----------------------------------------------------------------------------------------------


@every_answer
def test_an_events_own_texts_put_back_change_nothing_and_others_take_their_place(name: DialectName, plan: str):
    dialect = ALL[name]
    for event in streamed(name, plan):
        if event.texts:
            assert payload(dialect.rewrite(event, event.texts)) == payload(event.wire)
            other = [replace(each, text=f"»{each.text}\n") for each in event.texts]
            assert [*again(dialect, name, dialect.rewrite(event, other)).texts] == other


def payload(wire: bytes) -> tuple[bytes, object]:
    head, _, content = wire.partition(b"data: ")
    return head, json.loads(content)


def again(dialect: Dialect, name: DialectName, wire: bytes) -> Event:
    return read(dialect.reader(asked_of(name), is_stream=True), [wire])[0]


@every_answer
def test_a_whole_answer_makes_a_stream_that_makes_it_again(name: DialectName, plan: str):
    dialect, asked, whole = ALL[name], asked_of(name), render_whole(name, PLANS[plan])
    events = dialect.stream(asked, whole)
    assert json.loads(dialect.whole(asked, events)) == json.loads(whole)
    assert events[-1].kind == "terminal"
    assert [each.usage for each in events if each.usage is not None][-1] == wholly(name, plan).usage


# --- Requests and refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMED)
def test_what_is_not_named_goes_on_as_it_came(name: DialectName):
    nested = b'{"b":1,  "a":2.50, "e":1e400, "s":"\\u00e9\xc3\xa9"}'
    body = b'{"z" : ' + nested + b', "model":"m", "stream_options": {"include_usage": true}, "tools": []}'
    wire = ALL[name].forward(ALL[name].read("POST", PATHS[name], {}, body), Means(model="real"))
    assert nested in wire.body
    kept = ["z", "streamOptions", "tools"] if name == "gemini" else ["z", "model", "stream_options", "tools"]
    assert list(json.loads(wire.body)) == kept


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("why", Why.__args__)
def test_every_refusal_has_a_shape_and_says_whether_another_try_helps(name: DialectName, why: Why):
    ends = ALL[name].refused(Refusal(why=why, message="no"))
    assert 400 <= ends.status < 600
    assert ends.headers["x-should-retry"] == "false"
    assert "retry-after" not in ends.headers
    assert "no" in json.dumps(json.loads(ends.body))
    assert (ends.status != 400) or why in ("invalid", "unsupported"), "two programs try a 400 again and again"
    waits = ALL[name].refused(Refusal(why=why, message="no", retry_after_s=0.2))
    assert (waits.headers["x-should-retry"], waits.headers["retry-after"]) == ("true", "1")


@pytest.mark.parametrize("name", STREAMED)
def test_what_ends_a_stream_is_one_event_that_is_an_error(name: DialectName):
    sent = streamed(name, "text")[:3]
    wire = ALL[name].broken(Refusal(why="partial", message="gone"), sent)
    event = again(ALL[name], name, wire)
    assert (event.kind, event.message, event.wire) == ("error", "gone", wire)


# --- Whatever comes --------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "text", "usage", "error", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def spoilt(draw: st.DrawFn, node: Any) -> Any:
    """Return a value with something else in one place of it."""
    if not isinstance(node, dict | list) or not node or draw(st.integers(0, 3)) == 0:
        return draw(JSON)
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    key = draw(st.sampled_from(keys))
    changed = dict(node) if isinstance(node, dict) else list(node)
    changed[key] = spoilt(draw, node[key])  # pyright: ignore[reportArgumentType] - a key of the one or the other
    return changed


@every_answer
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=st.data())
def test_whatever_an_answer_has_in_it_reading_it_raises_nothing(name: DialectName, plan: str, drawn: st.DataObject):
    dialect, asked = ALL[name], asked_of(name)
    whole = json.dumps(drawn.draw(st.composite(spoilt)(json.loads(render_whole(name, PLANS[plan]))))).encode()
    read(dialect.reader(asked, is_stream=False), [whole])
    wires = [each.wire for each in render_events(name, PLANS[plan])]
    position = drawn.draw(st.integers(0, len(wires) - 1))
    head, _, content = wires[position].partition(b"data: ")
    if content.startswith(b"{"):
        wires[position] = (
            head + b"data: " + json.dumps(drawn.draw(st.composite(spoilt)(json.loads(content)))).encode() + b"\n\n"
        )
    events = read(dialect.reader(asked, is_stream=True), wires)
    for event in events:
        if event.texts:
            dialect.rewrite(event, event.texts)
    dialect.broken(Refusal(why="partial", message="gone"), events)
    with suppress(ModelRefused):
        dialect.whole(asked, events)
    with suppress(ModelRefused):
        dialect.stream(asked, whole)


@settings(max_examples=200)
@given(drawn=st.data(), name=st.sampled_from(STREAMED))
def test_whatever_a_request_has_in_it_it_is_read_or_refused(drawn: st.DataObject, name: DialectName):
    body: dict[str, Any] = {
        "model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "tools": [{"type": "function"}],
        "input": [{"content": "x"}], "contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"maxOutputTokens": 3},
        "stream_options": {"include_usage": True}, "max_tokens": 3, "n": 1, "service_tier": "flex",
    }  # fmt: skip
    raw = json.dumps(drawn.draw(st.composite(spoilt)(body))).encode()
    try:
        asked = ALL[name].read("POST", PATHS[name], {}, raw)
        wire = ALL[name].forward(asked, Means(model="x", output_tokens_max=2))
    except ModelRefused:
        return
    json.loads(wire.body)
