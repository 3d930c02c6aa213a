"""Log probabilities say an answer once more, token by token, where no mask can be put over a value."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from overwinter.adapters.dialects import dialects
from overwinter.gateway.dialect import Asked, DialectName
from overwinter.gateway.redaction import Action
from overwinter.gateway.refusal import ModelRefused
from overwinter.gateway.screening import unspelt
from redaction_kit import Pieces, answered, asked_of, cleaned_of, path_of

CARD = ("4111", "1111", "1111", "1111")
MASKED: Mapping[str, Action] = {"card": "mask"}
TOLD = [{"token": each, "logprob": -0.1, "bytes": list(each.encode()), "top_logprobs": []} for each in CARD]
ASKING: tuple[tuple[DialectName, str, dict[str, Any]], ...] = (
    ("chat", "logprobs", {"logprobs": True}),
    ("chat", "top_logprobs", {"top_logprobs": 3}),
    ("responses", "include", {"include": ["file_search_call.results", "message.output_text.logprobs"]}),
    ("responses", "top_logprobs", {"top_logprobs": 3}),
    ("gemini", "generationConfig.responseLogprobs", {"generationConfig": {"responseLogprobs": True, "logprobs": 3}}),
    ("gemini", "generationConfig.responseLogprobs", {"generation_config": {"response_logprobs": True}}),
)
NOT_ASKING: tuple[tuple[DialectName, dict[str, Any]], ...] = (
    ("chat", {"logprobs": False, "top_logprobs": 0}),
    ("chat", {"logprobs": None}),
    ("responses", {"include": ["reasoning.encrypted_content"], "top_logprobs": 0}),
    ("gemini", {"generationConfig": {"responseLogprobs": False}}),
    ("messages", {}),
)


def request_of(dialect: DialectName, fields: dict[str, Any]) -> Asked:
    asked = asked_of(dialect, "hello", is_stream=False)
    body = {name: json.loads(raw) for name, raw in asked.top.items()} | fields
    return dialects()[dialect].read("POST", path_of(dialect, is_stream=False), {}, json.dumps(body).encode())


@pytest.mark.claim("M6.redact.no_leak")
@pytest.mark.parametrize("action", ["mask", "block"])
@pytest.mark.parametrize(("dialect", "field", "fields"), ASKING)
def test_to_ask_for_them_is_refused_where_answers_are_masked(
    dialect: DialectName, field: str, fields: dict[str, Any], action: Action
):
    with pytest.raises(ModelRefused) as refused:
        cleaned_of(request_of(dialect, fields), {"secret": action})
    assert refused.value.refusal.why == "confidential"
    assert refused.value.refusal.message.startswith(f"{field} asks for each token of the answer")
    cleaned_of(request_of(dialect, fields))
    cleaned_of(request_of(dialect, fields), {"secret": "leave"})


def test_to_ask_for_a_kept_answer_with_them_is_refused_too():
    path = "/v1/responses/resp_1?include%5B%5D=message.output_text.logprobs"
    with pytest.raises(ModelRefused, match="include asks for"):
        cleaned_of(dialects()["responses"].read("GET", path, {}, b""), MASKED)
    cleaned_of(dialects()["responses"].read("GET", "/v1/responses/resp_1", {}, b""), MASKED)


@pytest.mark.parametrize(("dialect", "fields"), NOT_ASKING)
def test_who_does_not_ask_for_them_is_answered(dialect: DialectName, fields: dict[str, Any]):
    assert cleaned_of(request_of(dialect, fields), MASKED).asked.model


def streamed(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in events)


def chat_of(choice: dict[str, Any]) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, **choice}]}


def response_of(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "logprobs": TOLD, "annotations": []}
    usage = {"input_tokens": 1, "output_tokens": 1}
    item = {"type": "message", "id": "i", "role": "assistant", "content": [part]}
    return {"id": "r", "object": "response", "status": "completed", "output": [item], "usage": usage}


def candidate_of(text: str, tokens: list[Any]) -> dict[str, Any]:
    chosen = {"chosenCandidates": [{"token": each["token"]} for each in tokens], "topCandidates": []}
    candidate = {"index": 0, "content": {"parts": [{"text": text}]}, "finishReason": "STOP", "logprobsResult": chosen}
    return {"candidates": [candidate], "usageMetadata": {"promptTokenCount": 1}}


STOP = {"delta": {}, "finish_reason": "stop"}
ROWS = list(zip(CARD, TOLD, strict=True))
DELTA = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0}
UNASKED: tuple[tuple[DialectName, bytes], ...] = (
    ("chat", json.dumps(chat_of({"message": {"content": "".join(CARD)}, "logprobs": {"content": TOLD, "refusal": None}, "finish_reason": "stop"})).encode()),
    ("chat", streamed(*(chat_of({"delta": {"content": text}, "logprobs": {"content": [told]}, "token_ids": [1, 2]}) for text, told in ROWS), chat_of(STOP)) + b"data: [DONE]\n\n"),
    ("responses", json.dumps(response_of("".join(CARD))).encode()),
    ("responses", streamed(
        *({**DELTA, "delta": text, "logprobs": [told]} for text, told in ROWS),
        {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "".join(CARD), "logprobs": TOLD},
        {"type": "response.completed", "response": response_of("".join(CARD))},
    )),
    ("gemini", json.dumps(candidate_of("".join(CARD), TOLD)).encode()),
    ("gemini", streamed(candidate_of("".join(CARD), TOLD))),
)  # fmt: skip


@pytest.mark.claim("M6.redact.no_leak")
@pytest.mark.parametrize(("dialect", "wire"), UNASKED, ids=[f"{each}-{wire[:4].decode()}" for each, wire in UNASKED])
def test_what_a_provider_tells_of_them_unasked_is_taken_out_where_answers_are_masked(dialect: DialectName, wire: bytes):
    is_stream = wire.startswith(b"data: ")
    found = Counter[str]()
    got = answered(cleaned_of(asked_of(dialect, "hello", is_stream=is_stream), MASKED, found), Pieces(wire, [], is_stream=is_stream))  # fmt: skip
    assert b"[masked card]" in got
    assert found["card"]
    assert b'"1111"' not in got.replace(b" ", b"")
    assert b"logprob" in got
    assert b"[1,2]" not in got.replace(b" ", b"")
    for line in got.decode().splitlines() if is_stream else [got.decode()]:
        if "{" in line:
            assert json.loads(line.removeprefix("data: "))
    left = answered(cleaned_of(asked_of(dialect, "hello", is_stream=is_stream)), Pieces(wire, [], is_stream=is_stream))
    assert left == wire


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ('{"logprobs": [1, {"logprobs": [2]}], "a": 1.50}', '{"logprobs": [], "a": 1.50}'),
        ('{"logprobs" :{"content": []}}', '{"logprobs" :null}'),
        ('{"logprobs": [], "b": {"logprobs": null}}', '{"logprobs": [], "b": {"logprobs": null}}'),
        (r'{"arguments": "{\"logprobs\": [1]}"}', r'{"arguments": "{\"logprobs\": [1]}"}'),
        ('{"text": "logprobs", "other": ["logprobs", [1]]}', '{"text": "logprobs", "other": ["logprobs", [1]]}'),
    ],
)
def test_only_they_are_taken_out(document: str, expected: str):
    assert unspelt(document, frozenset({"logprobs"})) == expected
    assert unspelt(document, frozenset()) == document


def test_an_argument_of_a_tool_that_is_called_so_stays():
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {"logprobs": [1, 2]}}
    wire = json.dumps(
        {"id": "m", "type": "message", "content": [block], "stop_reason": "tool_use", "usage": {}}
    ).encode()
    cleaned = cleaned_of(asked_of("messages", "hello", is_stream=False), MASKED)
    assert answered(cleaned, Pieces(wire, [], is_stream=False)) == wire


def test_tokens_whose_end_is_not_known_end_the_answer():
    wire = b'data: {"choices":[{"index":0,"delta":{"content":"x"},\ndata: "logprobs":{"content":\ndata: [1]}}]}\n\n'
    wire += streamed(chat_of(STOP)) + b"data: [DONE]\n\n"
    cleaned = cleaned_of(asked_of("chat", "hello", is_stream=True), MASKED)
    with pytest.raises(ModelRefused, match="cannot be taken out"):
        answered(cleaned, Pieces(wire, [], is_stream=True))
