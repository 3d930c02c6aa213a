"""Embeddings: counts without output, and vectors that nobody touches."""

import json

import pytest

from overwinter.adapters.dialects import dialects
from overwinter.gateway.dialect import Event, Means
from overwinter.gateway.refusal import ModelRefused
from overwinter.gateway.usage import Usage

EMBEDDINGS = dialects()["embeddings"]
PATH = "/v1/embeddings"
ANSWER = b'{"object": "list", "data": [{"embedding": "AAAA"}],  "usage": {"prompt_tokens": 3, "total_tokens": 3}}'


def answered(raw: bytes) -> Event:
    reader = EMBEDDINGS.reader(EMBEDDINGS.read("POST", PATH, {}, b'{"model": "m"}'), is_stream=False)
    reader.feed(raw[:5])
    reader.feed(raw[5:])
    (event,) = reader.close()
    return event


def test_a_request_goes_on_as_it_came():
    asked = EMBEDDINGS.read("POST", PATH, {}, b'{"input": ["a",  [1, 2]], "model": "m", "encoding_format": "base64"}')
    assert (asked.operation, asked.is_stream, asked.unbounded) == ("embed", False, ())
    assert (
        EMBEDDINGS.forward(asked, Means(model="x")).body
        == b'{"input":["a",  [1, 2]],"model":"x","encoding_format":"base64"}'
    )


def test_an_answer_is_its_vectors_and_what_they_used():
    event = answered(ANSWER)
    assert (event.kind, event.wire, event.usage) == ("terminal", ANSWER, Usage(fresh=3))
    asked = EMBEDDINGS.read("POST", PATH, {}, b'{"model": "m"}')
    assert EMBEDDINGS.whole(asked, EMBEDDINGS.stream(asked, ANSWER)) == ANSWER
    assert EMBEDDINGS.rewrite(event, ()) == ANSWER


@pytest.mark.parametrize("raw", [b"<html>", b"{}", b'{"data": null}', b'{"data": {}}', b"", b"[" * 100_000])
def test_what_is_no_answer_is_none(raw: bytes):
    assert answered(raw).kind == "other"


def test_an_error_under_status_200_is_one():
    event = answered(json.dumps({"error": {"type": "rate_limit_error", "message": "m"}}).encode())
    assert (event.kind, event.status, event.message) == ("error", 429, "m")


@pytest.mark.parametrize("path", ["/v1/embedding", "/v1/chat/completions"])
def test_another_path_is_refused(path: str):
    with pytest.raises(ModelRefused):
        EMBEDDINGS.read("POST", path, {}, b'{"model": "m"}')
