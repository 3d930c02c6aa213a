"""Gemini: two spellings of a name, a model in the path, arguments that come as values, and no event that ends a stream."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from overwinter.adapters.dialects import dialects
from overwinter.gateway.dialect import Asked, Event, Means, Text
from overwinter.gateway.refusal import ModelRefused, Refusal
from overwinter.gateway.usage import Usage

GEMINI = dialects()["gemini"]
ASK, STREAM, COUNT = (
    f"/v1beta/models/gem:{each}" for each in ("generateContent", "streamGenerateContent?alt=sse", "countTokens")
)


def read(body: Mapping[str, object] | bytes, path: str = ASK) -> Asked:
    return GEMINI.read("POST", path, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def chunk(*parts: object, stop: str | None = None, **more: object) -> bytes:
    candidate = {"content": {"parts": list(parts), "role": "model"}} | ({"finishReason": stop} if stop else {})
    return f"data: {json.dumps({'candidates': [candidate], 'responseId': 'r1', **more})}\r\n\r\n".encode()


def events(*wires: bytes) -> list[Event]:
    reader = GEMINI.reader(read({}, STREAM), is_stream=True)
    return [*(each for wire in wires for each in reader.feed(wire)), *reader.close()]


def counted(**fields: object) -> Usage | None:
    return events(chunk(usageMetadata=fields))[0].usage


# --- Requests --------------------------------------------------------------------------------------------------------


def test_the_model_is_named_in_the_path_alone():
    asked = read(b'{"contents": [{"parts":[{"text":  "x"}]}], "model": "models/other"}', f"{STREAM}&key=secret")
    assert (asked.model, asked.is_stream) == ("gem", True)
    assert "secret" not in asked.path
    wire = GEMINI.forward(asked, Means(model="gem-3 pro"))
    assert wire.path == "/v1beta/models/gem-3%20pro:streamGenerateContent?alt=sse"
    assert wire.body == b'{"contents":[{"parts":[{"text":  "x"}]}]}'


def test_a_counted_request_names_its_model_inside_too():
    asked = read({"generateContentRequest": {"model": "models/gem", "contents": []}}, COUNT)
    assert asked.operation == "count"
    wire = GEMINI.forward(asked, Means(model="real"))
    assert json.loads(wire.body) == {"generateContentRequest": {"model": "models/real", "contents": []}}


def test_both_spellings_are_read_and_one_goes_on():
    body = {
        "generation_config": {"max_output_tokens": 9, "candidate_count": 2, "temperature": 0},
        "cached_content": "c",
        "service_tier": "FLEX",
    }
    asked = read(body)
    assert (asked.output_tokens_max, asked.choices, asked.temperature, asked.tier) == (9, 2, 0.0, "flex")
    assert asked.unbounded == ("cachedContent",)
    forwarded = json.loads(GEMINI.forward(asked, Means(model="m", output_tokens_max=5)).body)
    assert forwarded["generationConfig"] == {"maxOutputTokens": 5, "candidateCount": 2, "temperature": 0}


@pytest.mark.parametrize(
    "body",
    [
        {"generationConfig": {}, "generation_config": {}},
        {"generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 9}},
        {"generationConfig": {"maxOutputTokens": -1}},
        {"generationConfig": {"candidateCount": 0}},
        {"generationConfig": 7},
        {"tools": 7},
    ],
)
def test_what_has_two_readings_or_none_is_refused(body: Mapping[str, object]):
    with pytest.raises(ModelRefused) as refused:
        read(body)
    assert refused.value.refusal.why == "invalid"


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models/gem:streamGenerateContent",
        "/v1beta/models/gem:predict",
        "/v1beta/models/gem",
        "/v2/models/g:countTokens",
    ],
)
def test_what_is_not_spoken_here_is_refused(path: str):
    with pytest.raises(ModelRefused) as refused:
        read({}, path)
    assert refused.value.refusal.why == "unsupported"


@pytest.mark.parametrize(
    "name", ["a/../b", "../b", "a%2F..%2Fb", "a%252F..%252Fb", "a/./b", "a//b", "/a", "a\\b", "a b", "a;b"]
)
def test_a_name_of_a_model_leads_to_no_other_path_of_the_provider(name: str):
    with pytest.raises(ModelRefused, match="is not the name of a model"):
        read({}, f"/v1beta/models/{name}:generateContent")


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"contents": [{"parts": [{"inlineData": {"data": "AA=="}}]}]}, ("inlineData",)),
        ({"contents": [{"parts": [{"file_data": {"fileUri": "u"}}]}]}, ("file_data",)),
        (
            {"tools": [{"functionDeclarations": []}, {"google_search": {}}, {"codeExecution": {}}]},
            ("codeExecution", "googleSearch"),
        ),
        ({"tools": [{"function_declarations": []}]}, ()),
    ],
)
def test_what_brings_input_of_unknown_size_is_named(fields: dict[str, Any], found: tuple[str, ...]):
    assert read(fields).unbounded == found


def test_an_escape_in_a_key_hides_nothing():
    assert read(b'{"contents": [{"parts": [{"inline\\u0044ata": {}}]}]}').unbounded == ("inlineData",)


# --- Answers ---------------------------------------------------------------------------------------------------------


def test_no_token_is_counted_twice_and_none_is_left_out():
    audio = [{"modality": "AUDIO", "tokenCount": 20}, {"modality": "TEXT", "tokenCount": 80}]
    usage = counted(
        promptTokenCount=100, cachedContentTokenCount=30, candidatesTokenCount=5, thoughtsTokenCount=7, toolUsePromptTokenCount=11,
        promptTokensDetails=audio, cacheTokensDetails=[{"modality": "AUDIO", "tokenCount": 5}], trafficType="ON_DEMAND_PRIORITY",
    )  # fmt: skip
    assert usage == Usage(fresh=66, cache_read=30, audio_input=15, output=12, reasoning=7, tier="priority")
    assert counted(promptTokenCount=0) == Usage()
    assert counted() is None


@pytest.mark.parametrize(
    "wrong", [{"promptTokenCount": -1}, {"promptTokenCount": 1, "thoughtsTokenCount": -2}, {"promptTokenCount": 10**13}]
)
def test_counts_that_cannot_be_are_nobodys_word(wrong: dict[str, object]):
    assert counted(**wrong) is None


def test_a_stream_ends_when_every_candidate_has_and_its_bytes_do():
    first, last = chunk({"text": "a"}), chunk({"text": "b"}, stop="STOP", usageMetadata={"promptTokenCount": 1})
    found = events(first, last)
    assert [each.kind for each in found] == ["content", "content", "terminal"]
    assert (found[-1].wire, found[-1].stop, found[-1].answer_id) == (b"", "STOP", "r1")
    assert not any(each.kind == "terminal" for each in events(first))
    two = json.dumps(
        {"candidates": [{"index": 0, "finishReason": "STOP"}, {"index": 1, "content": {"parts": [{"text": "c"}]}}]}
    )
    assert not any(each.kind == "terminal" for each in events(f"data: {two}\n\n".encode()))


def test_a_blocked_prompt_is_an_answer_that_was_refused():
    found = events(b'data: {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}\n\n')
    assert (found[-1].kind, found[-1].stop) == ("terminal", "SAFETY")


def test_each_string_of_the_arguments_is_a_text():
    call = {"name": "f", "args": {"a": "x", "n": 1, "deep": [{"b": "y"}, "z", ""]}}
    (event, _) = events(chunk({"text": "t"}, {"functionCall": call, "thoughtSignature": "s"}, stop="STOP"))
    assert [each.text for each in event.texts] == ["t", "x", "y", "z"]
    assert len(set(event.closes)) == 4
    changed = GEMINI.rewrite(event, [Text(each.channel, each.text.upper()) for each in event.texts])
    parts = json.loads(changed[6:])["candidates"][0]["content"]["parts"]
    assert parts[1]["functionCall"]["args"] == {"a": "X", "n": 1, "deep": [{"b": "Y"}, "Z", ""]}
    assert parts[1]["thoughtSignature"] == "s"


def test_thoughts_and_text_are_apart():
    found = events(chunk({"text": "hm", "thought": True}), chunk({"text": "a"}), chunk({"text": "b"}, stop="STOP"))
    assert [each.channel for event in found for each in event.texts] == ["0.thought", "0", "0"]
    assert [each.closes for each in found[:3]] == [(), ("0.thought",), ("0",)]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}',
        b'[{"error": {"status": "UNAVAILABLE", "message": "m"}}]',
    ],
)
def test_an_error_is_one_in_a_stream_in_its_place_and_in_a_list(raw: bytes):
    reader = GEMINI.reader(read({}), is_stream=False)
    reader.feed(raw)
    bare = events(raw)
    streamed = events(b"data: " + raw + b"\n\n") if raw.startswith(b"{") else bare
    for found in (reader.close(), bare, streamed):
        assert [(each.kind, each.status, each.message) for each in found] == [("error", 503, "m")]


def test_pieces_of_a_text_are_one_text_and_signatures_stay_where_they_were():
    asked = read({}, STREAM)
    found = events(
        chunk({"text": "h", "thought": True}), chunk({"text": "m", "thought": True}), chunk({"text": "a"}),
        chunk({"text": "b", "thoughtSignature": "s"}), chunk({"text": "c"}, stop="STOP"),
    )  # fmt: skip
    parts = json.loads(GEMINI.whole(asked, found))["candidates"][0]["content"]["parts"]
    assert parts == [{"text": "hm", "thought": True}, {"text": "ab", "thoughtSignature": "s"}, {"text": "c"}]


def test_a_refusal_has_googles_shape():
    wire = GEMINI.refused(Refusal(why="denied", message="no"))
    assert json.loads(wire.body) == {"error": {"code": 403, "message": "no", "status": "PERMISSION_DENIED"}}
