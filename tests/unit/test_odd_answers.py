"""Providers that answer as no provider should: each is a typed error, or harmless, and nothing of it is kept."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from models_kit import Hasty, ask, chat, config_of, home_of
from overwinter.declared import DeclaredBudget
from overwinter.gateway.dialect import DialectName

pytestmark = pytest.mark.anyio

BUDGET = {"day": DeclaredBudget(of="tenant", usd=1.0, window="day")}
WHOLE: dict[DialectName, Any] = {
    "chat": {
        "id": "c", "object": "chat.completion", "usage": {"prompt_tokens": 5, "completion_tokens": 1},
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    },
    "messages": {
        "id": "m", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn", "usage": {"input_tokens": 5, "output_tokens": 1},
    },
    "responses": {
        "id": "r", "object": "response", "status": "completed", "usage": {"input_tokens": 5, "output_tokens": 1},
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
    },
}  # fmt: skip
ASKED: dict[DialectName, Any] = {
    "chat": chat(temperature=0),
    "messages": {**chat(temperature=0), "max_tokens": 9},
    "responses": {"model": "cheap", "input": "hello", "temperature": 0},
}


def message(body: str, status: int = 200, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body.encode())}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncGenerator[str]:
    """A server that gives these answers one after another, then the last of them."""
    left = list(answers)

    async def on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        (size,) = [int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.startswith(b"content-length")]
        await reader.readexactly(size)
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(on, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def streamed(chunks: Sequence[Any]) -> str:
    return "".join(f"data: {each if isinstance(each, str) else json.dumps(each)}\n\n" for each in chunks)


@pytest.mark.parametrize("dialect", WHOLE)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_json_that_says_it_is_a_stream_is_no_empty_answer_and_is_not_kept(
    project, dialect: DialectName, *, is_stream: bool
):
    mislabelled = message(json.dumps(WHOLE[dialect]), content_type="text/event-stream")
    right = message(json.dumps(WHOLE[dialect]), content_type="application/json")
    async with (
        answering(mislabelled, mislabelled, mislabelled, right) as url,
        home_of(project, config_of(url, budgets=BUDGET, cache=True), clock=Hasty()) as app,
    ):
        client, line = await ask(app, {**ASKED[dialect], "stream": is_stream}, dialect=dialect)
        assert (client.status, line.status) == (502, "upstream"), client.body
        client, line = await ask(app, ASKED[dialect], dialect=dialect)
        assert (client.status, line.status, b"hi" in client.body) == (200, "answered", True)
        (spent,) = await app.models.budgets()
        assert spent.held_nusd == 0


@pytest.mark.parametrize("name", ["retry_after", "retry_after_ms"])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_pause_of_any_length_is_a_typed_error(project, name: str, status: int):
    async with (
        answering(message("busy", status, **{name: "9" * 400, "content_type": "text/plain"})) as url,
        home_of(project, config_of(url), clock=Hasty()) as app,
    ):
        client, _ = await ask(app, chat())
        assert client.status == status
        assert client.json["error"]["message"]
        assert 60 < int(client.headers["retry-after"]) <= 86_400


PARTS = [
    {"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"id": "c", "choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "TOLD"}]}}]},
    {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    "[DONE]",
]
"""A text in parts, as no delta of this dialect has it."""


@pytest.mark.claim("M6.redact.no_leak")
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_an_event_that_cannot_be_read_does_not_pass_rules_for_answers(project, *, is_stream: bool):
    body = streamed(PARTS).replace("TOLD", "AKIAZ7QFJ3XKLMN2PQ5T")
    async with (
        answering(message(body, content_type="text/event-stream")) as url,
        home_of(project, config_of(url, redact_answers={"secret": "block"})) as app,
    ):
        client, line = await ask(app, chat(stream=is_stream))
        assert line.status == "confidential"
        assert b"AKIA" not in client.body


@pytest.mark.claim("M6.redact.restored")
async def test_placeholders_in_an_event_that_cannot_be_read_are_restored(project):
    async with (
        answering(message("{}", content_type="application/json")) as url,
        home_of(project, config_of(url, redact={"otherwise": "replace"})) as app,
    ):
        vaults: Any = app.models.gateway.cleaner
        await ask(app, chat("bob@example.com"))
        ((placeholder, _),) = next(iter(vaults._vaults.values())).values().items()
    body = streamed(PARTS).replace("TOLD", f"mail {placeholder}")
    async with (
        answering(message(body, content_type="text/event-stream")) as url,
        home_of(project, config_of(url, redact={"otherwise": "replace"})) as app,
    ):
        client, _ = await ask(app, chat("bob@example.com", stream=True))
        assert b"mail bob@example.com" in client.body


async def test_whoever_is_told_that_a_provider_is_left_alone_is_told_why(project):
    async with (
        answering(message("[1]", content_type="application/json")) as url,
        home_of(project, config_of(url), clock=Hasty(), is_worker=False) as app,
    ):
        told = [(await ask(app, chat()))[0] for _ in range(4)]
        assert (told[0].status, told[-1].status) == (502, 503)
        assert told[0].json["error"]["message"] in told[-1].json["error"]["message"]


@pytest.mark.parametrize("status", [500, 200])
async def test_what_a_provider_said_of_one_request_is_not_told_to_whoever_asks_next(project, status: int):
    said = json.dumps({"error": {"message": "cannot parse: my diary", "type": "server_error"}})
    async with (
        answering(message(said, status, content_type="application/json")) as url,
        home_of(project, config_of(url), clock=Hasty(), is_worker=False) as app,
    ):
        told = [(await ask(app, chat()))[0] for _ in range(6)]
        assert "diary" in told[0].body.decode()
        assert told[-1].json["error"]["code"] == "overloaded"
        assert "diary" not in told[-1].body.decode()
        assert "answered 500" in told[-1].body.decode()
