"""Calls of tools in a streamed chat completion whose provider leaves `index` out, or says the same one of each: none is lost or joined."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from overwinter.adapters.dialects import dialects
from overwinter.adapters.translations import translations
from overwinter.gateway.dialect import Event

CHAT, MESSAGES = dialects()["chat"], dialects()["messages"]
ASKED = MESSAGES.read("POST", "/v1/messages", {}, b'{"model": "m", "max_tokens": 9, "messages": [], "stream": true}')
ASKED_CHAT = CHAT.read("POST", "/v1/chat/completions", {}, b'{"model": "m", "messages": [], "stream": true}')
Deltas = Sequence[Sequence[dict[str, Any]]]
"""By chunk."""


def call(index: Any, name: str | None = None, tool: str | None = None, said: str | None = None) -> dict[str, Any]:
    function = {key: value for key, value in (("name", tool), ("arguments", said)) if value is not None}
    found = {"index": index, "id": name, "type": "function", "function": function}
    return {key: value for key, value in found.items() if value is not None or key == "index"}


def streamed(deltas: Deltas) -> bytes:
    head = {"id": "x", "model": "m"}
    chunks: list[Any] = [{**head, "choices": [{"index": 0, "delta": {"tool_calls": each}}]} for each in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    return b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in chunks) + b"data: [DONE]\n\n"


def turned(deltas: Deltas) -> list[Event]:
    reader = translations()["messages", "chat"].reader(ASKED, is_stream=True)
    return [*reader.feed(streamed(deltas)), *reader.close()]


ONE = [("a", "f", {"x": 1})]
TWO = [*ONE, ("b", "g", {"y": 2})]
STREAMS: dict[str, tuple[Deltas, list[tuple[str, str, Any]]]] = {
    "as the dialect says": ([[call(0, "a", "f", "")], [call(0, said='{"x"')], [call(0, said=":1}")], [call(1, "b", "g", '{"y":2}')]], TWO),
    "two at once": ([[call(0, "a", "f", '{"x":1}'), call(1, "b", "g", '{"y":2}')]], TWO),
    "null": ([[call(None, "a", "f", '{"x":1}')]], ONE),
    "null, in pieces": ([[call(None, "a", "f", "")], [call(None, said='{"x"')], [call(None, said=":1}")]], ONE),
    "null, in pieces by id": ([[call(None, "a", "f", "")], [call(None, "a", said='{"x"')], [call(None, "a", said=":1}")]], ONE),
    "null, two": ([[call(None, "a", "f", '{"x":1}')], [call(None, "b", "g", "")], [call(None, said='{"y":2}')]], TWO),
    "null, two at once": ([[call(None, "a", "f", '{"x":1}'), call(None, "b", "g", '{"y":2}')]], TWO),
    "one index of two": ([[call(0, "a", "f", '{"x":1}')], [call(0, "b", "g", '{"y":2}')]], TWO),
    "one index of two at once": ([[call(0, "a", "f", '{"x":1}'), call(0, "b", "g", '{"y":2}')]], TWO),
    "one index of two, in pieces": ([[call(0, "a", "f", "")], [call(0, said='{"x":1}')], [call(0, "b", "g", "")], [call(0, said='{"y":2}')]], TWO),
    "all said again": ([[call(0, "a", "f", '{"x"')], [call(0, "a", "f", ":1}")]], ONE),
    "a new id each time": ([[call(0, "a", "f", '{"x"')], [call(0, "z", said=":1}")]], ONE),
    "empty ids on the way": ([[call(0, "a", "f", '{"x"')], [call(0, "", "", ":1}")]], ONE),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_each_call_is_a_block_of_its_own_that_starts_before_it_goes_on(name: str):
    deltas, calls = STREAMS[name]
    events, open_index, count = turned(deltas), None, 0
    for each in (json.loads(event.wire.partition(b"data: ")[2]) for event in events if event.wire):
        match each["type"]:
            case "content_block_start":
                assert (open_index, each["index"]) == (None, count)
                open_index, count = each["index"], count + 1
            case "content_block_delta":
                assert each["index"] == open_index
            case "content_block_stop":
                assert each["index"] == open_index
                open_index = None
            case kind:
                assert kind in ("message_start", "message_delta", "message_stop")
    content = json.loads(MESSAGES.whole(ASKED, events))["content"]
    assert [(each["id"], each["name"], each["input"]) for each in content] == calls


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_in_one_piece_has_each_call_apart(name: str):
    deltas, calls = STREAMS[name]
    reader = CHAT.reader(ASKED_CHAT, is_stream=True)
    answer = json.loads(CHAT.whole(ASKED_CHAT, [*reader.feed(streamed(deltas)), *reader.close()]))
    found = answer["choices"][0]["message"]["tool_calls"]
    assert [
        (each["id"], each["function"]["name"], json.loads(each["function"]["arguments"])) for each in found
    ] == calls


@pytest.mark.parametrize(
    "deltas",
    [
        [[call(0, "a", "f", "{"), call(1, "b", "g", "{")], [call(0, said="}")]],
        [[call(None, "a", "f", "{"), call(None, "b", "g", "{")], [call(None, said="}"), call(None, said="}")]],
        [[call(0, "a", "f", "{")], [call(0, "b", "g", "{")], [call(0, "a", "f", "}")]],
        [[call(None, None, "f", "{}")]],
        [[call(0, "a", None, "{}")]],
        [[call(1, said="{}")]],
    ],
)
def test_a_call_that_goes_on_after_another_or_has_no_name_is_an_error_and_joined_to_none(deltas: Deltas):
    assert turned(deltas)[-1].kind == "error"


@pytest.mark.parametrize("name", STREAMS)
def test_the_texts_of_each_call_are_a_channel_of_its_own(name: str):
    deltas, calls = STREAMS[name]
    texts = dict[str, str]()
    reader = CHAT.reader(ASKED_CHAT, is_stream=True)
    for text in (text for event in reader.feed(streamed(deltas)) for text in event.texts):
        texts[text.channel] = texts.get(text.channel, "") + text.text
    assert [json.loads(each) for each in texts.values()] == [said for _, _, said in calls]
