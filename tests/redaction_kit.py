"""Redaction of one call: a request as it may leave, and its answer in given pieces on its way back."""

import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random
from typing import Any

import anyio
import anyio.lowlevel

from models_kit import Client, chat
from overwinter.adapters.detectors import WordList, detectors
from overwinter.adapters.dialects import dialects
from overwinter.gateway.attempts import Attempts, Job
from overwinter.gateway.caller import Caller
from overwinter.gateway.cleaning import Cleaned, Redaction
from overwinter.gateway.dialect import Asked, DialectName, Wire
from overwinter.gateway.redaction import Action, Rules, Search
from overwinter.gateway.routes import Breaker, Model, Provider, Target
from overwinter.principal import Principal
from overwinter.testing import ManualClock

GENERATING: tuple[DialectName, ...] = ("chat", "responses", "messages", "gemini")
WORD = 'Blue "Heron" \\ 9'
"""With what JSON escapes."""


def placeholder_of(label: str, text: str) -> str:
    found = re.search(rf"OW_{label}_[0-9a-f]{{16}}", text)
    assert found is not None
    return found[0]


def body_of(dialect: DialectName, text: str, **fields: Any) -> dict[str, Any]:
    match dialect:
        case "chat":
            return chat(text, **fields)
        case "responses":
            return {"model": "cheap", "input": text, **fields}
        case "messages":
            return {"model": "cheap", "max_tokens": 500, "messages": [{"role": "user", "content": text}], **fields}
        case "gemini":
            return {"contents": [{"role": "user", "parts": [{"text": text}]}]}
        case "embeddings":
            return {"model": "cheap", "input": [text, text], **fields}


def path_of(dialect: DialectName, *, is_stream: bool) -> str:
    method = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
    return {
        "chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages",
        "gemini": f"/v1beta/models/cheap:{method}", "embeddings": "/v1/embeddings",
    }[dialect]  # fmt: skip


def asked_of(dialect: DialectName, text: str, *, is_stream: bool) -> Asked:
    fields = {"stream": is_stream} if dialect in ("chat", "responses", "messages") else {}
    body = json.dumps(body_of(dialect, text, **fields)).encode()
    return dialects()[dialect].read("POST", path_of(dialect, is_stream=is_stream), {}, body)


def events_in(wire: bytes) -> Iterator[Any]:
    for line in wire.decode().splitlines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


SEARCH = Search(detectors([WordList(name="own", words=(WORD,))]), lambda: 0.0)
CALLER = Caller(principal=Principal(agent="default", run_id="", owner="o"), call="c", session="s")
TARGET = Target(
    provider=Provider(name="mock", dialects=frozenset(GENERATING)), model="m", declared=Model(name="m", provider="mock")
)


class Pieces:
    """An upstream that answers in given pieces."""

    status = 200

    def __init__(self, wire: bytes, cuts: Sequence[int], *, is_stream: bool) -> None:
        borders = [0, *sorted({each % (len(wire) + 1) for each in cuts}), len(wire)]
        self.pieces = [wire[a:b] for a, b in pairwise(borders)]
        self.headers = {"content-type": "text/event-stream" if is_stream else "application/json"}

    @asynccontextmanager
    async def send(self, provider: Provider, dialect: DialectName, method: str, wire: Wire) -> AsyncGenerator["Pieces"]:
        del provider, dialect, method, wire
        yield self

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece

    def masked(self, said: bytes) -> bytes:
        return said


def cleaned_of(asked: Asked, answer: Mapping[str, Action] | None = None, found: Counter[str] | None = None) -> Cleaned:
    async def clean() -> Cleaned:
        cleaner = Redaction(SEARCH, Rules(answer=answer or {}), b"secret")
        return await cleaner.clean(asked, CALLER, dialects()[asked.dialect], Counter() if found is None else found)

    return anyio.run(clean)


def answered(cleaned: Cleaned, upstream: Pieces) -> bytes:
    client, asked = Client(), cleaned.asked

    async def run() -> None:
        job = Job(
            asked=asked, method="POST", targets=[TARGET], dialect=dialects()[asked.dialect], sink=client,
            restore=cleaned.restore, stopped=anyio.lowlevel.checkpoint,
        )  # fmt: skip
        assert await Attempts(upstream, Breaker(), ManualClock(), Random(0)).run(job) is not None

    anyio.run(run)
    return client.body
