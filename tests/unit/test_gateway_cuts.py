"""However the network cuts a provider's bytes, a client gets the same ones."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st

from models_kit import Client, config_of, home_of, until
from overwinter.app import App
from overwinter.app.models import Wish
from overwinter.gateway.budget import Line
from overwinter.gateway.dialect import DialectName, Wire
from overwinter.gateway.routes import Provider
from provider import Plan, Tokens
from provider.provider import render_events

PLAN = Plan(
    id="mock", model="m", pieces=("Hel", "lo ü€😀 ", 'q"\\', "\r\n"), tool="", tokens=Tokens(fresh=9, read=3, output=5, thinking=2),
    wants_usage=True,
)  # fmt: skip
PLANS = (PLAN, replace(PLAN, tool="weather", pieces=('{"city', '": "Osl', 'o"}')), replace(PLAN, pieces=()))
REQUESTS: Mapping[DialectName, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "cheap", "stream": True, "stream_options": {"include_usage": True}}),
    "responses": ("/v1/responses", {"model": "cheap", "stream": True}),
    "messages": ("/v1/messages", {"model": "cheap", "max_tokens": 9, "stream": True}),
    "gemini": ("/v1beta/models/cheap:streamGenerateContent?alt=sse", {"contents": []}),
}
_number = iter(range(10**9))


@dataclass(slots=True)
class Cut:
    """An upstream whose answer comes in the pieces that a test wants; and its reply."""

    pieces: Sequence[bytes] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream"})

    def send(
        self, provider: Provider, dialect: DialectName, method: str, wire: Wire
    ) -> AbstractAsyncContextManager["Cut"]:
        del provider, dialect, method, wire
        return self.open()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Cut"]:
        yield self

    async def chunks(self) -> AsyncIterator[bytes]:
        for each in self.pieces:
            yield each

    def masked(self, said: bytes) -> bytes:
        return said


@dataclass(slots=True)
class Stalled(Cut):
    """An upstream that falls silent after its pieces, and notes when it is let go."""

    heard: list[str] = field(default_factory=list[str])

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Cut"]:
        try:
            yield self
        finally:
            self.heard.append("upstream")

    async def chunks(self) -> AsyncIterator[bytes]:
        for each in self.pieces:
            yield each
        await anyio.sleep_forever()


@dataclass(slots=True)
class Listener(Client):
    """A client that notes when it hears the end."""

    heard: list[str] = field(default_factory=list[str])

    async def end(self, last: bytes = b"") -> None:
        await Client.end(self, last)
        self.heard.append("client")


def pieces_of(wire: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = [0, *sorted({min(each, len(wire)) for each in cuts}), len(wire)]
    return [wire[start:end] for start, end in pairwise(places) if end > start]


def noisy(wire: bytes) -> bytes:
    """Return a stream with other line ends, and comments in it."""
    return b": here\n\n" + wire.replace(b"\n\n", b"\n: note\n\n").replace(b"\n", b"\r\n")


async def asked(app: App, name: DialectName, client: Client | None = None) -> tuple[Client, Line]:
    path, body = REQUESTS[name]
    read = app.models.dialects[name].read("POST", path, {}, json.dumps(body).encode())
    client = client or Client()
    return client, await app.models.answer(read, "default", Wish(call=f"cut:{next(_number)}"), client)


@pytest.mark.parametrize("name", list(REQUESTS))
def test_every_split_of_a_stream_gives_the_client_the_same_bytes_and_the_ledger_the_same_counts(
    project: Path, name: DialectName
):
    upstream = Cut()
    with start_blocking_portal() as portal:
        home = home_of(project, config_of("http://127.0.0.1:9"), is_worker=False)
        with portal.wrap_async_context_manager(home) as app:
            app.models.gateway._attempts._upstream = upstream

            @settings(max_examples=150, deadline=None)
            @given(
                plan=st.sampled_from(PLANS),
                is_noisy=st.booleans(),
                cuts=st.one_of(st.lists(st.integers(1, 4_000), max_size=40), st.just(range(4_000))),
            )
            def check(plan: Plan, is_noisy: bool, cuts: Sequence[int]) -> None:  # noqa: FBT001 - by hypothesis, by name
                wire = b"".join(each.wire for each in render_events(name, plan))
                wire = noisy(wire) if is_noisy else wire
                upstream.pieces = pieces_of(wire, cuts)
                client, line = portal.call(asked, app, name)
                assert client.body == wire
                assert line.usage is not None
                assert (line.status, line.usage.source) == ("answered", "provider")
                assert (line.usage.input, line.usage.output) == (12, 5)

            check()


class Betraying(Cut):
    """An upstream that repeats our key in an error."""

    def masked(self, said: bytes) -> bytes:
        return said.replace(b"OUR-KEY", b"[secret]")


@pytest.mark.parametrize("redact", [{}, {"redact_answers": {"secret": "mask"}}], ids=["passed", "screened"])
@pytest.mark.parametrize("name", list(REQUESTS))
async def test_an_error_behind_the_beginning_of_an_answer_has_our_key_no_more(
    project: Path, name: DialectName, redact: dict[str, Any]
):
    begun = [each.wire for each in render_events(name, PLAN)][:-2]
    failed = {"code": 500, "message": "you are OUR-KEY", "type": "server_error"}
    failure: dict[str, Any] = {"error": failed}
    if name == "responses":
        failure = {"type": "response.failed", "response": {"status": "failed", "error": {**failed, "code": "x"}}}
    elif name == "messages":
        failure |= {"type": "error"}
    async with home_of(project, config_of("http://127.0.0.1:9", **redact), is_worker=False) as app:
        pieces = [*begun, f"data: {json.dumps(failure)}\n\n".encode()]
        app.models.gateway._attempts._upstream = Betraying(pieces=pieces)
        client, line = await asked(app, name)
        assert line.status == "partial"
        assert b"you are [secret]" in client.body
        assert b"OUR-KEY" not in client.body


@pytest.mark.parametrize("name", list(REQUESTS))
async def test_every_client_of_a_revocation_is_told_before_the_first_connection_to_a_provider_is_let_go(
    project: Path, name: DialectName
):
    heard = list[str]()
    begun = [each.wire for each in render_events(name, PLAN)][:-2]
    clients = [Listener(heard=heard) for _ in range(3)]
    async with home_of(project, config_of("http://127.0.0.1:9"), is_worker=False) as app:
        app.models.gateway._attempts._upstream = Stalled(pieces=begun, heard=heard)
        async with anyio.create_task_group() as group:
            for each in clients:
                group.start_soon(asked, app, name, each)
            await until(lambda: all(each.parts for each in clients))
            assert await app.models.cut(["default"], "it was revoked").ended() == len(clients)
    assert heard == ["client"] * 3 + ["upstream"] * 3
    assert all(b"it was revoked" in each.parts[-1] for each in clients)
