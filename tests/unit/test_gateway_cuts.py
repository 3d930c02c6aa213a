"""However the network cuts a provider's bytes, a client gets the same ones."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st

from models_kit import Client, config_of, home_of
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


def pieces_of(wire: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = [0, *sorted({min(each, len(wire)) for each in cuts}), len(wire)]
    return [wire[start:end] for start, end in pairwise(places) if end > start]


def noisy(wire: bytes) -> bytes:
    """Return a stream with other line ends, and comments in it."""
    return b": here\n\n" + wire.replace(b"\n\n", b"\n: note\n\n").replace(b"\n", b"\r\n")


async def asked(app: App, name: DialectName) -> tuple[Client, Line]:
    path, body = REQUESTS[name]
    read = app.models.dialects[name].read("POST", path, {}, json.dumps(body).encode())
    client = Client()
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
