"""A provider that has begun a stream and does not come to its first content: its client hears that it is not forgotten, and no more."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from models_kit import Client, Hasty, ask, chat, config_of, home_of
from overwinter.adapters.dialects import dialects
from overwinter.app.models import Wish
from overwinter.clock import SECOND_US
from overwinter.declared import DeclaredBudget
from overwinter.gateway.dialect import DialectName
from provider import Plan, Tokens
from provider.provider import render_events

pytestmark = pytest.mark.anyio
BUDGET = {"day": DeclaredBudget(of="tenant", usd=1.0)}
PLAN = Plan(id="x", model="m", pieces=("Os", "lo"), tool="", tokens=Tokens(fresh=5, output=2), wants_usage=True)
BODIES: dict[DialectName, dict[str, Any]] = {
    "chat": chat(stream=True, stream_options={"include_usage": True}),
    "messages": chat(stream=True, max_tokens=9),
    "responses": {"model": "cheap", "input": "hello", "stream": True},
}
PINGS: dict[DialectName, bytes] = {
    "chat": b": ping\n\n", "responses": b": ping\n\n", "messages": b'event: ping\ndata: {"type": "ping"}\n\n',
}  # fmt: skip
ALL = dialects()
RAW = b'{"model": "m", "messages": [], "max_tokens": 1, "stream": true}'
PATHS: dict[DialectName, str] = {
    "chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses",
}  # fmt: skip
showing = pytest.mark.parametrize("dialect", BODIES)
Say = Callable[[bytes], Awaitable[None]]
Script = Callable[[Say], Awaitable[None]]


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncGenerator[str]:
    """A server that begins a stream and lets a script say what comes of it, for each request the next one; then it closes."""
    left = list(scripts)

    async def on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        (size,) = [int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.startswith(b"content-length")]
        await reader.readexactly(size)

        async def say(raw: bytes) -> None:
            writer.write(raw)
            await writer.drain()

        script = left.pop(0)
        if script is not refusing:
            await say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        try:
            await script(say)
        finally:
            writer.close()

    server = await asyncio.start_server(on, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def refusing(say: Say) -> None:
    body = json.dumps({"error": {"message": "no such tool", "type": "invalid_request_error"}}).encode()
    head = "HTTP/1.1 400 No\r\ncontent-type: application/json\r\nconnection: close\r\n"
    await say(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


class Waiting:
    """A provider that pings while a clock goes on, and the client of it."""

    def __init__(self, dialect: DialectName) -> None:
        self.clock, self.client = Hasty(), Client()
        self.dialect: DialectName = dialect
        self.events = [each.wire for each in render_events(dialect, PLAN)]

    async def pinging(self, say: Say, times: int) -> None:
        """Ping every eleven seconds until the client has heard something, so many times."""
        with anyio.fail_after(10):
            for _ in range(times):
                heard = len(self.client.parts)
                while len(self.client.parts) == heard:
                    self.clock.at_us += 11 * SECOND_US
                    await say(PINGS[self.dialect])
                    for _ in range(50):
                        await anyio.lowlevel.checkpoint()

    async def cut(self, say: Say) -> None:
        await say(self.events[0])
        await self.pinging(say, 2)

    async def whole(self, say: Say) -> None:
        await say(b"".join(self.events))


@showing
async def test_a_client_that_waits_long_hears_signs_of_life_and_then_the_whole_answer(project, dialect: DialectName):
    waiting, sign = Waiting(dialect), ALL[dialect].sign_of_life

    async def slow(say: Say) -> None:
        await say(waiting.events[0])
        await waiting.pinging(say, 3)
        assert set(waiting.client.parts) == {sign}
        await say(b"".join(waiting.events[1:]))

    async with (
        scripted(slow) as url,
        home_of(project, config_of(url, budgets=BUDGET), clock=waiting.clock, is_worker=False) as app,
    ):
        client, line = await ask(app, BODIES[dialect], dialect=dialect, client=waiting.client)
    assert (client.status, line.status) == (200, "answered")
    assert client.headers["content-type"] == "text/event-stream"
    assert client.body.startswith(sign * 3)
    assert client.body.replace(sign, b"").replace(PINGS[dialect], b"") == b"".join(waiting.events)
    assert line.usage is not None
    assert (line.usage.source, line.usage.output) == ("provider", 2)


@showing
async def test_who_waits_for_some_seconds_gets_the_status_of_a_failure(project, dialect: DialectName):
    waiting = Waiting(dialect)
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "no such tool"}}

    async def failing(say: Say) -> None:
        await say(waiting.events[0])
        for _ in range(3):
            waiting.clock.at_us += 3 * SECOND_US
            await say(PINGS[dialect])
        await say(b"event: error\ndata: %b\n\n" % json.dumps(error).encode())

    async with scripted(failing) as url, home_of(project, config_of(url), clock=waiting.clock, is_worker=False) as app:
        client, _ = await ask(app, BODIES[dialect], dialect=dialect, client=waiting.client)
    assert (client.status, "no such tool" in client.json["error"]["message"]) == (400, True)


@showing
async def test_a_failure_behind_signs_of_life_is_made_good_by_another_try(project, dialect: DialectName):
    waiting, sign = Waiting(dialect), ALL[dialect].sign_of_life
    async with (
        scripted(waiting.cut, waiting.whole) as url,
        home_of(project, config_of(url, budgets=BUDGET), clock=waiting.clock, is_worker=False) as app,
    ):
        client, line = await ask(app, BODIES[dialect], dialect=dialect, client=waiting.client)
        assert (client.body.replace(sign, b""), line.status) == (b"".join(waiting.events), "answered")
        assert client.body.startswith(sign * 2)
        (spent,) = await app.models.budgets()
        assert (spent.held_nusd, spent.spent_nusd) == (0, line.cost_nusd)


@showing
@pytest.mark.parametrize("is_refused", [False, True], ids=["cut", "refused"])
async def test_a_failure_for_good_behind_signs_of_life_ends_the_stream_in_the_clients_dialect(
    project, dialect: DialectName, *, is_refused: bool
):
    waiting, sign = Waiting(dialect), ALL[dialect].sign_of_life
    scripts = (waiting.cut, refusing) if is_refused else (waiting.cut, waiting.cut, waiting.cut)
    async with (
        scripted(*scripts) as url,
        home_of(project, config_of(url, budgets=BUDGET), clock=waiting.clock, is_worker=False) as app,
    ):
        client, line = await ask(app, BODIES[dialect], dialect=dialect, client=waiting.client)
        (spent,) = await app.models.budgets()
    told = client.body.replace(sign, b"")
    reader = ALL[dialect].reader(app.models.dialects[dialect].read("POST", PATHS[dialect], {}, RAW), is_stream=True)
    (event,) = (*reader.feed(told), *reader.close())
    assert (client.status, event.kind, line.status) == (200, "error", "upstream")
    assert ("no such tool" if is_refused else "mock") in event.message
    assert (spent.held_nusd, spent.spent_nusd) == (0, line.cost_nusd)


async def test_signs_of_life_are_no_part_of_what_is_kept(project):
    waiting = Waiting("chat")

    async def slow(say: Say) -> None:
        await waiting.pinging(say, 2)
        await waiting.whole(say)

    async with scripted(slow) as url, home_of(project, config_of(url), clock=waiting.clock, is_worker=False) as app:
        named: dict[str, Any] = {"call": "named", "is_named": True}
        client, _ = await ask(app, BODIES["chat"], client=waiting.client, **named)
        again, line = await ask(app, BODIES["chat"], **named)
    sign = ALL["chat"].sign_of_life
    assert (client.body.startswith(sign), sign in again.body, line.status) == (True, False, "repeated")
    assert b"Os" in again.body


async def test_a_client_of_gemini_waits_in_silence_for_its_sdks_take_no_comment(project):
    waiting = Waiting("messages")
    waiting.events = [each.wire for each in render_events("gemini", PLAN)]

    async def slow(say: Say) -> None:
        for _ in range(3):
            waiting.clock.at_us += 11 * SECOND_US
            await say(b": ping\n\n")
        await waiting.whole(say)

    async with scripted(slow) as url, home_of(project, config_of(url), clock=waiting.clock, is_worker=False) as app:
        path = "/v1beta/models/cheap:streamGenerateContent?alt=sse"
        asked = app.models.dialects["gemini"].read("POST", path, {}, b'{"contents": []}')
        await app.models.answer(asked, "default", Wish(call="quiet"), waiting.client)
    assert waiting.client.body.replace(b": ping\n\n", b"") == b"".join(waiting.events)
