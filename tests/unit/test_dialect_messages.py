"""Messages: counts that are cumulative, blocks that are signed, and what else only this dialect has."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from overwinter.adapters.dialects import dialects
from overwinter.gateway.dialect import Asked, Event, Means
from overwinter.gateway.refusal import ModelRefused, Refusal
from overwinter.gateway.usage import Usage

MESSAGES = dialects()["messages"]


def read(body: Mapping[str, object] | bytes, path: str = "/v1/messages?beta=true") -> Asked:
    raw = body if isinstance(body, bytes) else json.dumps({"model": "m", **body}).encode()
    return MESSAGES.read("POST", path, {}, raw)


def event(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def events(stream: bytes) -> list[Event]:
    reader = MESSAGES.reader(read({"stream": True}), is_stream=True)
    return [*reader.feed(stream), *reader.close()]


def counted(start: Mapping[str, object], *deltas: object) -> Usage:
    found = told(start, *deltas)
    assert found is not None
    return found


def told(start: Mapping[str, object] | None, *deltas: object) -> Usage | None:
    stream = event("message_start", message={"id": "m1", "usage": start})
    stream += b"".join(event("message_delta", delta={}, usage=each) for each in deltas)
    found: Usage | None = None
    for each in events(stream):
        found = each.usage or found
    return found


START = {
    "input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 7, "output_tokens": 1,
    "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}, "service_tier": "standard",
}  # fmt: skip


def test_later_counts_stand_in_place_of_earlier_ones():
    ended = {"input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 7, "output_tokens": 50}
    expected = Usage(fresh=10, cache_read=100, cache_write=3, cache_write_long=4, output=50)
    assert counted(START, ended) == counted(START, ended, ended) == expected
    assert counted(START, {"output_tokens": 50}) == expected
    assert counted(START, {"output_tokens": 0}).output == 0, "a stated zero is a zero"
    assert expected.input == 117


def test_what_the_end_has_more_of_written_is_priced_as_the_longer_life():
    grown = counted(START, {"cache_creation_input_tokens": 20, "output_tokens": 5})
    assert (grown.cache_write, grown.cache_write_long) == (3, 17)
    unsplit = counted({"input_tokens": 1, "cache_creation_input_tokens": 9, "output_tokens": 1})
    assert (unsplit.cache_write, unsplit.cache_write_long) == (9, 0)


def test_speed_tier_searches_and_thinking_are_told():
    usage = counted(
        START | {"service_tier": "priority"},
        {
            "output_tokens": 50,
            "server_tool_use": {"web_search_requests": 3},
            "output_tokens_details": {"thinking_tokens": 30},
        },
    )
    assert (usage.tier, usage.searches, usage.reasoning, usage.output) == ("priority", 3, 30, 50)
    assert counted(START | {"speed": "fast", "service_tier": "priority"}).tier == "fast"
    assert counted(START).tier == ""


def test_where_an_answer_was_made_stands_behind_its_tier():
    assert counted(START | {"inference_geo": "us"}, {"output_tokens": 9}).tier == "us"
    assert counted(START | {"inference_geo": "us", "speed": "fast"}).tier == "fast+us"
    assert {counted(START | {"inference_geo": each}).tier for each in ("global", "not_available", None)} == {""}
    assert [read({"inference_geo": each}).tier for each in ("us", "global", None)] == ["us", "", ""]
    assert read({"inference_geo": "us", "speed": "fast"}).tier == "fast+us"


def test_rounds_of_other_models_and_of_compaction_are_counted_beside_it():
    rounds = [
        {"type": "compaction", "input_tokens": 900, "output_tokens": 9},
        {"type": "message", "input_tokens": 10, "output_tokens": 50},
        {
            "type": "advisor_message",
            "model": "wise",
            "input_tokens": 70,
            "output_tokens": 7,
            "cache_read_input_tokens": 5,
        },
    ]
    usage = counted(START, {"output_tokens": 50, "iterations": rounds})
    assert (usage.fresh, usage.output, usage.model) == (10, 50, "")
    assert usage.also == (
        Usage(fresh=900, output=9),
        Usage(fresh=70, output=7, cache_read=5, model="wise"),
    )


def test_an_answer_of_a_fallback_is_counted_under_the_model_that_gave_it():
    rounds = [
        {"type": "message", "input_tokens": 10, "output_tokens": 2},
        {"type": "fallback_message", "model": "plain", "input_tokens": 12, "output_tokens": 40},
    ]
    usage = counted(START, {"output_tokens": 40, "iterations": rounds})
    assert (usage.model, usage.fresh, usage.output) == ("plain", 12, 40)
    assert usage.also == (Usage(fresh=10, output=2),)


@pytest.mark.parametrize(
    "wrong",
    [
        {"output_tokens": -1},
        {"output_tokens": "5"},
        {"output_tokens": 1e40},
        7,
        {"input_tokens": -5, "output_tokens": 1},
    ],
)
def test_counts_that_cannot_be_are_nobodys_word(wrong: object):
    assert told(None, wrong) is None
    reader = MESSAGES.reader(read({}), is_stream=False)
    reader.feed(json.dumps({"type": "message", "content": [], "usage": wrong}).encode())
    assert [(each.kind, each.usage) for each in reader.close()] == [("terminal", None)]


def test_what_was_thought_is_never_touched():
    stream = event("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""})
    stream += event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"})
    stream += event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "s"})
    stream += event("content_block_stop", index=0)
    found = events(stream)
    assert [each.kind for each in found] == ["opening", "content", "content", "other"]
    assert not any(each.texts for each in found)
    assert {"thinking", "signature"} <= MESSAGES.opaque_keys


def test_a_block_that_is_whole_at_its_start_is_content():
    found = events(
        event("content_block_start", index=0, content_block={"type": "web_search_tool_result", "content": []})
    )
    assert [each.kind for each in found] == ["content"]


@pytest.mark.parametrize(
    ("kind", "status"), [("overloaded_error", 529), ("rate_limit_error", 429), ("new", 500), (None, 500)]
)
def test_an_error_is_one_in_a_stream_and_under_status_200(kind: str | None, status: int):
    error = {"type": "error", "error": {"type": kind, "message": "m"}}
    reader = MESSAGES.reader(read({}), is_stream=False)
    reader.feed(json.dumps(error).encode())
    for found in (events(event("error", **error)), reader.close()):
        assert [(each.kind, each.status, each.message) for each in found] == [("error", status, "m")]


@pytest.mark.parametrize("raw", [b"<html>", b"", b"{}", b'{"type": "message"}', b'{"content": 7}'])
def test_what_is_no_answer_is_none(raw: bytes):
    reader = MESSAGES.reader(read({}), is_stream=False)
    reader.feed(raw)
    assert [each.kind for each in reader.close()] == ["other"]


def test_tokens_are_counted_without_a_stream_or_a_limit():
    asked = read({"stream": True}, "/v1/messages/count_tokens?beta=true")
    assert (asked.operation, asked.is_stream) == ("count", False)
    wire = MESSAGES.forward(asked, Means(model="x", output_tokens_max=9))
    assert b"max_tokens" not in wire.body
    assert wire.path == "/v1/messages/count_tokens?beta=true"
    reader = MESSAGES.reader(asked, is_stream=False)
    reader.feed(b'{"input_tokens": 0}')
    assert [(each.kind, each.usage) for each in reader.close()] == [("terminal", None)]


def test_a_limit_replaces_the_clients():
    assert (
        json.loads(MESSAGES.forward(read({"max_tokens": 99}), Means(model="x", output_tokens_max=9)).body)["max_tokens"]
        == 9
    )


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"messages": [{"content": [{"type": "image", "source": {"type": "base64", "data": "AA=="}}]}]}, ("image",)),
        ({"system": [{"type": "document"}]}, ("document",)),
        ({"tools": [{"name": "f"}, {"type": "custom"}, {"type": "bash_20250124"}, {"type": "memory_20250818"}]}, ()),
        (
            {"tools": [{"type": "web_search_20250305"}, {"type": "new_20300101"}]},
            ("new_20300101", "web_search_20250305"),
        ),
        ({"mcp_servers": [{}], "container": "c"}, ("mcp_servers", "container")),
        ({"mcp_servers": []}, ()),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, ("context_management",)),
        (
            b'{"model":"m","max_tokens":1,"context_management":{"edits":[{"type":"\\u0063ompact_20260112"}]}}',
            ("context_management",),
        ),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}}, ()),
        ({"messages": [{"content": [{"type": "tool_use", "input": {"type": "image"}}]}]}, ()),
    ],
)
def test_what_brings_input_of_unknown_size_is_named(fields: dict[str, Any], found: tuple[str, ...]):
    assert read(fields).unbounded == found


def test_the_speed_counts_before_the_tier():
    assert read({"speed": "fast", "service_tier": "auto"}).tier == "fast"
    assert read({"speed": "standard", "service_tier": "standard_only"}).tier == ""


@pytest.mark.parametrize(
    "body", [b'{"model": "m", "tools": 7}', b'{"model": "m", "max_tokens": "9"}', b'{"max_tokens": 9}']
)
def test_a_request_that_cannot_be_read_is_refused(body: bytes):
    with pytest.raises(ModelRefused):
        read(body)


def test_a_refusal_is_the_dialects_own():
    spent = MESSAGES.refused(Refusal(why="budget", message="spent"))
    assert (spent.status, spent.headers["x-should-retry"]) == (402, "false")
    assert json.loads(spent.body) == {"type": "error", "error": {"type": "billing_error", "message": "spent"}}
    torn = MESSAGES.broken(Refusal(why="partial", message="gone"), ())
    assert torn.startswith(b"event: error\ndata: {")
