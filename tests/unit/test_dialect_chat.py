"""Chat completions: what is read of a request and of an answer, and that the rest goes by untouched."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.adapters.dialects import dialects
from overwinter.gateway.dialect import Asked, Event, Means
from overwinter.gateway.refusal import ModelRefused, Refusal

CHAT = dialects()["chat"]
PATH = "/v1/chat/completions"


def read(body: bytes | Mapping[str, object], **headers: str) -> Asked:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return CHAT.read("POST", PATH, headers, raw)


def chunk(delta: Mapping[str, object] | None, stop: str | None = None, **more: object) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": stop}]
    return f"data: {json.dumps({'id': 'c1', 'model': 'm', 'choices': choices, **more})}\n\n".encode()


USAGE = {
    "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 10, "audio_tokens": 5, "cache_write_tokens_details": {"ttl_12h_tokens": 4}},
    "completion_tokens_details": {"reasoning_tokens": 7, "rejected_prediction_tokens": 3, "audio_tokens": 2},
}  # fmt: skip
PIECES = [
    chunk({"role": "assistant", "content": ""}, usage=None),
    chunk({"content": "Hel"}, usage=None),
    b": keep-alive\n\n",
    chunk({"content": "lo ü"}, usage=None),
    chunk(
        {"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": '{"ci'}}]}
    ),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": 'ty": 1}'}}]}),
    chunk({}, "tool_calls", service_tier="flex"),
    chunk(None, usage=USAGE, service_tier="flex"),
    b"data: [DONE]\n\n",
]
STREAM = b"".join(PIECES)
ASKED = {"model": "m", "messages": [], "stream": True, "stream_options": {"include_usage": True}}


def events(asked: Asked, stream: bytes = STREAM, step: int | None = None) -> list[Event]:
    reader = CHAT.reader(asked, is_stream=True)
    step = step or len(stream) or 1
    found = [each for start in range(0, len(stream), step) for each in reader.feed(stream[start : start + step])]
    return [*found, *reader.close()]


# --- Requests --------------------------------------------------------------------------------------------------------


def test_nested_bytes_unknown_fields_and_order_go_on_as_they_came():
    body = b'{"zz": {"b":1,  "a":2.50}, "model": "cheap", "messages": [{"content":"\xc3\xbc","role":"user"}], "n": 2}'
    wire = CHAT.forward(read(body), Means(model="real"))
    assert (
        wire.body == b'{"zz":{"b":1,  "a":2.50},"model":"real","messages":[{"content":"\xc3\xbc","role":"user"}],"n":2}'
    )


def test_a_key_that_is_there_twice_has_one_reading():
    asked = read(b'{"model": "cheap", "messages": [], "mod\\u0065l": "dear"}')
    assert asked.model == "dear"
    assert CHAT.forward(asked, Means(model="dear")).body == b'{"model":"dear","messages":[]}'


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "truncated"),
        (b"[]", "object"),
        (b'{"model": "m"} x', "trailing"),
        (b'{"model": "m", "a": NaN}', "byte"),
        (b'{"model": "m", "a": "\xff"}', "UTF-8 at byte 21"),
        (b'{"model": "m", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
        (b"{}", "model"),
        (b'{"model": 7}', "model: Expected `str | null`, got `int`"),
        (b'{"model": ""}', "model"),
        (b'{"model": "m", "stream": "yes"}', "stream"),
        (b'{"model": "m", "max_tokens": -1}', "max_tokens"),
        (b'{"model": "m", "n": 0}', "n:"),
        (b'{"model": "m", "stream": true, "stream_options": 7}', "stream_options"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_with_the_place(body: bytes, word: str):
    with pytest.raises(ModelRefused, match="(?s)" + word.replace("|", r"\|")) as refused:
        CHAT.forward(read(body), Means(model="m"))
    assert refused.value.refusal.why == "invalid"


def test_limits_choices_tier_and_temperature_are_read():
    asked = read(
        {"model": "m", "max_tokens": 5, "max_completion_tokens": 9, "n": 3, "service_tier": "flex", "temperature": 0}
    )
    assert (asked.output_tokens_max, asked.choices, asked.tier, asked.temperature) == (9, 3, "flex", 0.0)
    assert read({"model": "m", "service_tier": "auto"}).tier == ""


def test_a_limit_replaces_the_one_that_is_there_or_comes_on_top():
    assert (
        b'"max_tokens":3'
        in CHAT.forward(read({"model": "m", "max_tokens": 5}), Means(model="m", output_tokens_max=3)).body
    )
    assert (
        b'"max_completion_tokens":3' in CHAT.forward(read({"model": "m"}), Means(model="m", output_tokens_max=3)).body
    )


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]}, ("image_url",)),
        ({"messages": [{"content": [{"type": "file", "file": {"file_id": "f"}}]}]}, ("file", "file_id")),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, ("audio",)),
        ({"web_search_options": {}}, ("web_search_options",)),
        ({"messages": [{"content": 'say "image_url" and file'}]}, ()),
        ({"messages": [{"content": [{"type": "video_url", "video_url": {"url": "https://x"}}]}]}, ("video_url",)),
        ({"messages": [{"content": [{"type": "text", "text": '{"type": "video_url"}'}]}]}, ()),
        ({"tools": [{"type": 5}]}, ("tools",)),
        ({"tools": [{"type": "openrouter:web_search"}]}, ("openrouter:web_search",)),
        ({"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]}, ("builtin_function",)),
        ({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom"}]}, ()),
        ({"tools": [{"function": {"parameters": {"properties": {"file_id": {"type": "string"}}}}}]}, ()),
    ],
)
def test_what_brings_input_of_unknown_size_is_named(fields: Mapping[str, object], found: tuple[str, ...]):
    assert read({"model": "m", **fields}).unbounded == found


def test_an_escape_does_not_hide_what_brings_input_of_unknown_size():
    assert read(b'{"model":"m","messages":[{"content":[{"type":"im\\u0061ge_url"}]}]}').unbounded == ("image_url",)


def test_who_the_caller_is_stays_behind():
    told = [
        "X-Real-IP",
        "x-auth-request-email",
        "x-amzn-oidc-data",
        "x-goog-iap-jwt-assertion",
        "Remote-User",
        "Referer",
        "X-Forwarded-User",
    ]
    asked = CHAT.read(
        "POST", "/v1/chat/completions", dict.fromkeys(told, "ada@example.com"), b'{"model":"m","messages":[]}'
    )
    assert not asked.headers


def test_credentials_hops_and_encodings_stay_behind():
    given = {
        "Authorization": "Bearer k", "x-api-key": "k", "Host": "h", "Connection": "x-hop, close", "x-hop": "1", "accept-encoding": "gzip",
        "cookie": "c", "openai-organization": "o", "x-forwarded-for": "1.2.3.4", "X-Stainless-Lang": "python", "openai-beta": "b",
    }  # fmt: skip
    assert CHAT.read("POST", PATH, given, b'{"model":"m"}').headers == {
        "x-stainless-lang": "python",
        "openai-beta": "b",
    }
    with pytest.raises(ModelRefused, match="content-encoding"):
        CHAT.read("POST", PATH, {"content-encoding": "gzip"}, b'{"model":"m"}')
    with pytest.raises(ModelRefused, match="line break"):
        CHAT.read("POST", PATH, {"x-a": "b\r\nc: d"}, b'{"model":"m"}')


# --- Answers ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 400))
def test_every_cut_gives_the_same_events_and_the_same_bytes(step: int):
    asked = read(ASKED)
    assert events(asked, step=step) == events(asked)
    assert b"".join(each.wire for each in events(asked, step=step)) == STREAM
    crlf = STREAM.replace(b"\n", b"\r\n")
    assert b"".join(each.wire for each in events(asked, crlf, step)) == crlf
    assert [each.texts for each in events(asked, crlf, step)] == [each.texts for each in events(asked)]


def test_an_event_says_what_it_means():
    found = events(read(ASKED))
    assert [each.kind for each in found] == [
        "opening",
        "content",
        "other",
        "content",
        "content",
        "content",
        "content",
        "other",
        "terminal",
    ]
    assert [text.channel for each in found for text in each.texts] == ["0.content", "0.content", "0.call.0", "0.call.0"]
    assert [each.closes for each in found if each.closes] == [("0.content",), ("0.call.0",)]
    assert json.loads("".join(text.text for each in found for text in each.texts if text.is_json)) == {"city": 1}
    assert found[-1].stop == "tool_calls"
    assert found[-1].answer_id == found[0].answer_id or found[0].answer_id == "c1"


def test_no_token_is_counted_twice():
    usage = next(each.usage for each in events(read(ASKED)) if each.usage is not None)
    assert (usage.fresh, usage.cache_read, usage.cache_write, usage.cache_write_long, usage.audio_input) == (
        45,
        40,
        6,
        4,
        5,
    )
    assert (usage.output, usage.audio_output, usage.reasoning, usage.tier) == (18, 2, 7, "flex")
    assert usage.input == 100


def test_a_client_that_did_not_ask_for_usage_sees_nothing_of_it():
    asked = read({"model": "m", "messages": [], "stream": True, "stream_options": {"include_obfuscation": False}})
    body = json.loads(CHAT.forward(asked, Means(model="m")).body)
    assert body["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    found = events(asked)
    seen = b"".join(each.wire for each in found if not each.is_usage_only)
    assert b"usage" not in seen
    assert seen == b"".join(each.replace(b', "usage": null', b"") for each in PIECES if b"prompt_tokens" not in each)
    assert any(each.usage for each in found)


def test_a_text_that_looks_like_no_usage_is_left_alone():
    told = '{"a":1,"usage":null}'
    asked = read({"model": "m", "stream": True})
    for each in (chunk({"content": told}, usage=None), chunk({"content": told, "usage": None}, usage=None)):
        event = events(asked, each)[0]
        assert event.texts[0].text == told
        answer = json.loads(event.wire[6:])
        assert "usage" not in answer
        assert answer["choices"] == json.loads(each[6:])["choices"]


@pytest.mark.parametrize(
    "broken", ['{"prompt_tokens": -1}', '{"prompt_tokens": 1e30}', '{"prompt_tokens": "5"}', "7", "[]", "null"]
)
def test_counts_that_cannot_be_are_nobodys_word(broken: str):
    raw = b'data: {"choices": [], "usage": %b}\n\n' % broken.encode()
    assert events(read(ASKED), raw)[0].usage is None


@pytest.mark.parametrize("end", range(len(PIECES)))
def test_a_stream_that_just_stops_has_no_end(end: int):
    found = events(read(ASKED), b"".join(PIECES[:end]))
    is_whole = any(each.kind == "terminal" for each in found)
    assert is_whole == (end == len(PIECES) - 1), "only [DONE] is missing, and everything is known"


@given(st.integers(0, len(STREAM)))
def test_a_torn_event_is_not_handed_on(end: int):
    wires = b"".join(each.wire for each in events(read(ASKED), STREAM[:end]))
    assert wires.endswith(b"\n\n") or not wires
    assert (STREAM + b"\n").startswith(wires)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"message": "m", "code": 503}, 503),
        ({"type": "insufficient_quota"}, 429),
        ("text", 500),
        ({"code": "429"}, 429),
    ],
)
def test_an_error_in_a_stream_or_in_place_of_an_answer_is_one(error: object, status: int):
    raw = json.dumps({"error": error}).encode()
    reader = CHAT.reader(read({"model": "m"}), is_stream=False)
    reader.feed(raw)
    stream = events(read(ASKED), b"data: " + raw + b"\n\n")
    bare = events(read(ASKED), raw)
    for found in (reader.close(), stream, bare):
        assert [(each.kind, each.status) for each in found] == [("error", status)]


@pytest.mark.parametrize(
    "raw", [b"<html>", b"", b"{}", b"[1]", b'{"choices": []}', b'{"error": null}', b"[" * 100_000, b"\xff"]
)
def test_what_is_no_answer_is_none(raw: bytes):
    reader = CHAT.reader(read({"model": "m"}), is_stream=False)
    reader.feed(raw)
    assert [each.kind for each in reader.close()] == ["other"]
    assert not any(each.kind in ("terminal", "content") for each in events(read(ASKED), raw))


@pytest.mark.parametrize(
    "junk", [b"data: {not json\n\n", b"data: [1\n\n", b"data: " + b"[" * 100_000 + b"\n\n", b"data: {\n\n"]
)
def test_junk_in_a_stream_becomes_an_error_in_the_dialect_and_its_end(junk: bytes):
    found = events(read(ASKED), PIECES[0] + junk + PIECES[1])
    assert [each.kind for each in found] == ["opening", "error"]
    assert json.loads(found[1].wire[6:])["error"]["code"] == "answer_cut"


def test_an_event_that_never_ends_is_an_error():
    reader = CHAT.reader(read(ASKED), is_stream=True)
    found = [each for _ in range(20) for each in reader.feed(b"data: " + b"x" * (1 << 20))]
    assert [each.kind for each in found] == ["error"]


def test_unknown_fields_and_kinds_pass():
    raw = b'data: {"choices": [{"delta": {"content": [1]}}], "new": 1}\n\nevent: new\ndata: {"a": 1}\n\ndata: 7\n\n'
    found = events(read(ASKED), raw)
    assert b"".join(each.wire for each in found) == raw
    assert not any(each.kind == "error" for each in found)


def test_the_worst_end_of_several_choices_is_the_answers():
    raw = b"".join(
        b'data: {"choices": [{"index": %d, "delta": {}, "finish_reason": "%b"}]}\n\n' % each
        for each in ((0, b"stop"), (1, b"length"), (2, b"stop"))
    )
    assert events(read(ASKED), raw + b"data: [DONE]\n\n")[-1].stop == "length"


# --- One from the other ----------------------------------------------------------------------------------------------


def test_other_texts_take_the_place_of_an_events_own():
    for event in events(read(ASKED)):
        if not event.texts:
            continue
        assert json.loads(CHAT.rewrite(event, event.texts)[6:]) == json.loads(event.wire[6:])
        other = [type(each)(each.channel, "»" + each.text, each.is_json) for each in event.texts]
        changed = events(read(ASKED), CHAT.rewrite(event, other))[0]
        assert list(changed.texts) == other


def test_a_stream_makes_a_whole_answer_and_that_a_stream():
    asked = read(ASKED)
    whole = json.loads(CHAT.whole(asked, events(asked)))
    assert whole["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Hello ü",
        "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"city": 1}'}}],
    }
    assert whole["usage"] == USAGE
    again = CHAT.stream(asked, json.dumps(whole).encode())
    assert json.loads(CHAT.whole(asked, again)) == whole
    assert again[-1].kind == "terminal"


# --- Refusals --------------------------------------------------------------------------------------------------------


def test_a_refusal_ends_the_call_or_says_when_to_try_again():
    spent = CHAT.refused(Refusal(why="budget", message="spent"))
    assert (spent.status, spent.headers["x-should-retry"]) == (402, "false")
    assert json.loads(spent.body)["error"] == {
        "message": "spent",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }
    later = CHAT.refused(Refusal(why="rate", message="wait", retry_after_s=1.2))
    assert (later.status, later.headers["retry-after"], later.headers["x-should-retry"]) == (429, "2", "true")
    assert CHAT.refused(Refusal(why="upstream", message="m", status=429)).status == 429
