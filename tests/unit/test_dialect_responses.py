"""Responses: answers in the background, texts that come several times, and endings that clients notice."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from overwinter.adapters.dialects import dialects
from overwinter.gateway.dialect import Asked, Event, Means, Text
from overwinter.gateway.refusal import ModelRefused, Refusal
from overwinter.gateway.usage import Usage

RESPONSES = dialects()["responses"]
PATH = "/v1/responses"


def read(body: Mapping[str, object] | None = None, path: str = PATH, method: str = "POST") -> Asked:
    raw = b"" if body is None else json.dumps({"model": "m", **body}).encode()
    return RESPONSES.read(method, path, {}, raw)


def said(**fields: object) -> bytes:
    return f"event: {fields.get('type')}\ndata: {json.dumps(fields)}\n\n".encode()


def events(*wires: bytes) -> list[Event]:
    reader = RESPONSES.reader(read({"stream": True}), is_stream=True)
    return [*(each for wire in wires for each in reader.feed(wire)), *reader.close()]


def whole(asked: Asked, body: object) -> Event:
    reader = RESPONSES.reader(asked, is_stream=False)
    reader.feed(json.dumps(body).encode())
    (event,) = reader.close()
    return event


USAGE = {
    "input_tokens": 100, "output_tokens": 20, "total_tokens": 120, "output_tokens_details": {"reasoning_tokens": 7},
    "input_tokens_details": {
        "cached_tokens": 40, "cache_write_tokens": 30, "cache_write_tokens_details": {"ttl_30m_tokens": 10, "ttl_12h_tokens": 20},
    },
}  # fmt: skip
DONE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "output": [],
    "usage": USAGE,
    "service_tier": "priority",
}


# --- Requests --------------------------------------------------------------------------------------------------------


def test_answers_in_the_background_are_asked_for_again_and_ended():
    assert read({"background": True}).is_background
    again = read(None, f"{PATH}/resp_1?stream=true&starting_after=3", "GET")
    assert (again.operation, again.answer_id, again.is_stream, again.model) == ("retrieve", "resp_1", True, "")
    wire = RESPONSES.forward(again, Means(model=""))
    assert (wire.body, wire.path) == (b"", f"{PATH}/resp_1?stream=true&starting_after=3")
    ended = read(None, f"{PATH}/resp_1/cancel")
    assert (ended.operation, ended.answer_id, ended.is_stream) == ("cancel", "resp_1", False)
    assert read({}, f"{PATH}/input_tokens").operation == "count"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", PATH),
        ("DELETE", f"{PATH}/resp_1"),
        ("POST", f"{PATH}/compact"),
        ("GET", f"{PATH}/a/../b"),
        ("GET", f"{PATH}/resp_1/cancel"),
    ],
)
def test_what_the_gateway_does_not_know_the_price_of_is_refused(method: str, path: str):
    with pytest.raises(ModelRefused, match="not answered here") as refused:
        read(None, path, method)
    assert refused.value.refusal.why == "unsupported"


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"previous_response_id": "r", "conversation": "c", "prompt": {"id": "p"}}, ("previous_response_id", "conversation", "prompt")),
        ({"previous_response_id": None}, ()),
        ({"input": [{"type": "message", "content": [{"type": "input_image", "image_url": "data:"}]}]}, ("input_image",)),
        ({"input": [{"type": "function_call_output", "output": [{"type": "input_file"}]}, {"type": "item_reference"}]}, ("input_file", "item_reference")),
        ({"tools": [{"type": "function"}, {"type": "custom"}, {"type": "local_shell"}, {"type": "namespace", "tools": []}]}, ()),
        ({"tools": [{"type": "web_search"}, {"type": "mcp"}, {"type": "shell"}]}, ("mcp", "shell", "web_search")),
        ({"tools": [{"type": "shell", "environment": {"type": "local"}}]}, ()),
    ],
)  # fmt: skip
def test_what_brings_input_of_unknown_size_is_named(fields: dict[str, Any], found: tuple[str, ...]):
    assert read(fields).unbounded == found


def test_a_limit_is_put_in():
    assert json.loads(RESPONSES.forward(read({}), Means(model="x", output_tokens_max=9)).body) == {
        "model": "x",
        "max_output_tokens": 9,
    }


# --- Answers ---------------------------------------------------------------------------------------------------------


def test_what_was_written_to_the_cache_is_split_by_its_life():
    usage = whole(read({}), DONE).usage
    assert usage == Usage(
        fresh=30, cache_read=40, cache_write=10, cache_write_long=20, output=20, reasoning=7, tier="priority"
    )


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_an_answer_that_is_not_there_yet_has_no_usage_and_says_so(status: str):
    event = whole(read({"background": True}), DONE | {"status": status, "usage": None})
    assert (event.kind, event.usage, event.stop, event.answer_id) == ("terminal", None, status, "resp_1")


def test_an_ended_or_failed_answer_is_handed_on_to_who_asks_for_it_again():
    for status in ("cancelled", "failed"):
        event = whole(
            read(None, f"{PATH}/resp_1", "GET"),
            DONE | {"status": status, "usage": None, "error": {"code": "server_error"}},
        )
        assert (event.kind, event.usage, event.stop) == ("terminal", None, status)


def test_a_failed_answer_is_an_error_to_who_asked_for_it_first():
    failed = DONE | {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "m"}}
    for event in (whole(read({}), failed), events(said(type="response.failed", response=failed))[0]):
        assert (event.kind, event.status, event.message) == ("error", 429, "m")


def test_a_flat_error_event_is_an_error():
    (event,) = events(said(type="error", code="server_error", message="m", param=None, sequence_number=3))
    assert (event.kind, event.status, event.message) == ("error", 500, "m")


def test_an_answer_that_was_cut_says_by_what():
    cut = DONE | {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    (event,) = events(said(type="response.incomplete", response=cut))
    assert (event.kind, event.stop) == ("terminal", "max_output_tokens")


def test_a_refused_answer_is_known_by_its_end():
    refused = DONE | {"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}]}
    assert whole(read({}), refused).stop == "refusal"
    assert (
        events(said(type="response.refusal.delta", delta="no"), said(type="response.completed", response=DONE))[-1].stop
        == "refusal"
    )


def test_a_text_that_is_said_again_in_one_piece_is_whole_each_time():
    item = {"type": "message", "content": [{"type": "output_text", "text": "ab"}]}
    found = events(
        said(type="response.output_text.delta", output_index=1, content_index=2, delta="a"),
        said(type="response.output_text.done", output_index=1, content_index=2, text="ab"),
        said(type="response.content_part.done", part={"type": "output_text", "text": "ab"}),
        said(type="response.output_item.done", item=item),
        said(type="response.completed", response=DONE | {"output": [item]}),
    )
    assert [text.text for text in found[0].texts] == ["a"]
    assert RESPONSES.rewrite(found[0], [Text("", "»")]).count("»".encode()) == 1
    assert found[1].closes == ("response.output_text.1.2",)
    for each in found[1:]:
        assert each.whole is not None
        assert each.whole.document in each.wire
        assert each.whole.is_answer == (each.kind == "terminal")
        assert b'"ab"' in each.whole.document


def test_the_end_of_an_item_ends_all_texts_of_it():
    found = events(
        said(type="response.output_text.delta", output_index=1, content_index=2, delta="a"),
        said(type="response.shell_call_output_content.delta", output_index=1, command_index=3, delta={"stdout": "a"}),
        said(type="response.output_text.delta", output_index=2, delta="a"),
        said(type="response.output_item.done", output_index=1, item={"type": "shell_call_output"}),
    )
    assert found[-1].closes == ("response.output_text.1.2", "response.shell_call_output_content.1.3.stdout")


def test_sound_is_no_text():
    (event,) = events(said(type="response.audio.delta", delta="AAAA"))
    assert (event.kind, event.texts) == ("content", ())


@pytest.mark.parametrize(
    ("kind", "means"), [("message", "opening"), ("function_call", "opening"), ("web_search_call", "content")]
)
def test_an_item_that_the_provider_works_at_is_content(kind: str, means: str):
    assert events(said(type="response.output_item.added", item={"type": kind}))[0].kind == means


# --- Endings ---------------------------------------------------------------------------------------------------------


def test_an_ending_goes_on_with_the_numbers_and_the_response_that_began():
    sent = events(
        said(type="response.created", sequence_number=0, response=DONE | {"status": "in_progress", "usage": None}),
        said(type="response.output_text.delta", sequence_number=1, delta="a"),
    )
    ending = json.loads(RESPONSES.broken(Refusal(why="partial", message="gone"), sent).partition(b"data: ")[2])
    assert (ending["type"], ending["sequence_number"]) == ("response.failed", 2)
    assert (ending["response"]["id"], ending["response"]["status"], ending["response"]["usage"]) == (
        "resp_1",
        "failed",
        None,
    )
    assert ending["response"]["error"] == {"code": "server_error", "message": "gone"}
    assert ending["error"]["message"] == "gone"


def test_a_spent_budget_is_said_in_the_words_on_which_codex_stops():
    spent = RESPONSES.refused(Refusal(why="budget", message="spent"))
    assert (spent.status, spent.headers["x-should-retry"]) == (429, "false")
    assert json.loads(spent.body)["error"]["type"] == "insufficient_quota"


# --- A last event without what was said ---------------------------------------------------------------------------------


def item(name: str, text: str) -> dict[str, Any]:
    return {"type": "message", "id": name, "content": [{"type": "output_text", "text": text, "annotations": []}]}


DELTA = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "one"}
ENDED = [
    {"type": "response.output_item.done", "output_index": 1, "item": item("b", "two")},
    {"type": "response.output_item.done", "output_index": 0, "item": item("a", "one")},
]


@pytest.mark.parametrize("output", [{"output": []}, {"output": None}, {}], ids=["empty", "null", "none"])
def test_items_that_ended_on_the_way_are_the_output_of_a_last_event_without_one(output: dict[str, Any]):
    last = {key: value for key, value in DONE.items() if key != "output"} | output
    found = events(*(said(**each) for each in (DELTA, *ENDED)), said(type="response.completed", response=last))
    answer = json.loads(RESPONSES.whole(read({"stream": True}), found))
    assert answer == last | {"output": [item("a", "one"), item("b", "two")]}


def test_the_output_of_a_last_event_goes_before_items_on_the_way():
    last = DONE | {"output": [item("c", "three")]}
    found = events(*(said(**each) for each in ENDED), said(type="response.completed", response=last))
    assert json.loads(RESPONSES.whole(read({"stream": True}), found)) == last


def test_an_answer_that_says_nothing_is_empty_and_one_whose_texts_are_of_no_item_is_refused():
    last = said(type="response.completed", response=DONE)
    assert json.loads(RESPONSES.whole(read({"stream": True}), events(last))) == DONE
    with pytest.raises(ModelRefused, match="no item of it ended"):
        RESPONSES.whole(read({"stream": True}), events(said(**DELTA), last))
