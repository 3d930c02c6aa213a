"""What clients send that is no request: a typed error in their dialect, nothing held, nothing kept, nothing sent on in two readings."""

import json
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import anyio.to_thread
import pytest

from doors import Door, door_of
from models_kit import config_of
from overwinter.declared import DeclaredBudget
from overwinter.gateway.dialect import DialectName
from provider import Mock

pytestmark = pytest.mark.anyio
PATHS: dict[DialectName, str] = {
    "chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages", "embeddings": "/v1/embeddings",
    "gemini": "/v1beta/models/cheap:generateContent",
}  # fmt: skip
every_dialect = pytest.mark.parametrize("name", list(PATHS))
GOOD: dict[DialectName, dict[str, Any]] = {
    "chat": {"model": "cheap", "messages": [{"role": "user", "content": "x"}]},
    "responses": {"model": "cheap", "input": "x"},
    "messages": {"model": "cheap", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]},
    "embeddings": {"model": "cheap", "input": "x"},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "x"}]}]},
}
TEXTS = {"chat": "messages", "responses": "input", "messages": "messages", "embeddings": "input", "gemini": "contents"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    door: Door
    provider: Mock

    async def refused(
        self, name: DialectName, body: bytes, *, path: str = "", status: int = 400, **options: Any
    ) -> None:
        """A request is refused in its dialect, and leaves nothing."""
        found, headers, raw = await self.door.post(path or PATHS[name], body, **options)
        assert found == status, raw[:300]
        assert headers["content-type"] == "application/json"
        assert headers["x-should-retry"] == "false"
        check_shape(name, raw)
        self.check_nothing_left()
        assert self.provider.calls == []

    def check_nothing_left(self) -> None:
        db = self.door.app.models.file._db
        assert list(db.execute("select count(*) from answer")) == [(0,)]
        assert list(db.execute("select 1 from line where state not in ('settled', 'refused')")) == []
        assert list(db.execute("select 1 from budget where held <> 0")) == []


def check_shape(name: DialectName, raw: bytes) -> None:
    said = json.loads(raw)
    message = said["error"]["message"]
    assert isinstance(message, str)
    assert len(message) > 10
    if name == "messages":
        assert said["type"] == "error"
        assert isinstance(said["error"]["type"], str)
    elif name == "gemini":
        assert isinstance(said["error"]["code"], int)
        assert isinstance(said["error"]["status"], str)
    else:
        assert {"type", "code", "param"} <= said["error"].keys()


@pytest.fixture
async def tried(project, provider: Mock) -> AsyncGenerator[Tried]:
    budgets = {"ever": DeclaredBudget(of="tenant", usd=1_000, window="ever")}
    async with door_of(project, config_of(provider.url, budgets=budgets, cache=True)) as door:
        yield Tried(door=door, provider=provider)


def good(name: DialectName, **fields: Any) -> bytes:
    return json.dumps({**GOOD[name], **fields}).encode()


@every_dialect
async def test_a_body_that_cannot_be_read_is_refused_in_the_dialect(tried: Tried, name: DialectName):
    broken = (b"", b"{", b"null", b"[]", b'"x"', b"1", good(name) + b"x", good(name)[:-1], b"\xff" + good(name))
    for body in broken:
        await tried.refused(name, body)
    text = good(name).replace(b'"x"', b'"\xff\xfe"')
    await tried.refused(name, text)
    await tried.refused(name, b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}")
    if name != "gemini":
        for model in (None, "", 7, "m" * 257):
            await tried.refused(name, good(name, model=model))
    if name not in ("gemini", "embeddings"):
        await tried.refused(name, good(name, stream="yes"))


@every_dialect
async def test_a_key_that_does_not_count_is_refused_in_the_dialect(tried: Tried, name: DialectName):
    for key in ("k", "ow_" + "x" * 40, tried.door.key + "x"):
        await tried.refused(name, good(name), key=key, status=401)


@every_dialect
async def test_a_body_over_the_limit_or_packed_is_refused_in_the_dialect(tried: Tried, name: DialectName):
    for word in ("gzip", "br", "identity, gzip"):
        await tried.refused(name, good(name), headers=[("content-encoding", word)])
    await tried.refused(name, good(name), headers=[("content-encoding", "identity"), ("content-encoding", "gzip")])
    await tried.refused(name, b" " * (33 << 20), status=413)


@every_dialect
async def test_ten_thousand_messages_go_through_as_they_came(tried: Tried, name: DialectName):
    many = cast("list[Any]", ["x"] if name in ("responses", "embeddings") else GOOD[name][TEXTS[name]])
    if name == "responses":
        many = [{"role": "user", "content": "x"}]
    body = json.dumps({**GOOD[name], TEXTS[name]: many * 10_000, "temperature": 0.5}).encode()
    status, _, raw = await tried.door.post(PATHS[name], body)
    assert status == 200, raw[:300]
    forwarded = json.loads(tried.provider.provider.bodies[-1])
    assert forwarded[TEXTS[name]] == many * 10_000


@every_dialect
async def test_a_key_that_is_there_twice_is_sent_on_once(tried: Tried, name: DialectName):
    field = TEXTS[name]
    value = json.dumps(GOOD[name][field])
    twice = good(name)[:-1] + b', "\\u00' + f"{ord(field[0]):02x}{field[1:]}".encode() + b'": ' + value.encode() + b"}"
    status, _, raw = await tried.door.post(PATHS[name], twice)
    assert status == 200, raw[:300]
    keys = list[str]()
    json.loads(tried.provider.provider.bodies[-1], object_pairs_hook=lambda pairs: keys.extend(key for key, _ in pairs))
    assert keys.count(field) == 1


@every_dialect
async def test_what_an_address_hides_is_not_sent_on(tried: Tried, name: DialectName):
    for path in (
        "/v1beta/models/a%3Fkey=x:generateContent", "/v1beta/models/a%0d%0ax:generateContent", "/v1beta/models/..%2f..:countTokens",
        "/v1beta/models/a%23:generateContent", "/v1/responses/..%2fx", "/v1beta/models/a%20b:generateContent",
    ):  # fmt: skip
        await tried.door.post(path, good(name))
        tried.check_nothing_left()
    for each in tried.provider.calls:
        assert not any(mark in each.path for mark in "\r\n?# "), each.path
        assert ".." not in each.path


async def test_line_breaks_in_header_values_reach_nobody(tried: Tried):
    """Written by hand: no client sends them."""
    body = good("chat")
    place = urlsplit(tried.door.url)
    key = tried.door.key.encode()
    for value in (b"a\rX-Evil: 1", b"a\x00b", b"a\nX-Evil: 1", b"a\r\n X-Evil: 1"):
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer %b\r\nopenai-beta: %b\r\ncontent-length: %d\r\n\r\n"
        wire = head % (key, value, len(body)) + body
        await anyio.to_thread.run_sync(sent, str(place.hostname), place.port or 0, wire)
    for each in tried.provider.calls:
        # A line feed alone ends a header for some: what came as a header of its own goes on as one.
        assert not any(mark in value for value in each.headers.values() for mark in "\r\n\0")
    assert len(tried.provider.calls) <= 2


def sent(host: str, port: int, wire: bytes) -> bytes:
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(wire)
        return connection.recv(65_536)


@every_dialect
async def test_a_large_body_goes_through(tried: Tried, name: DialectName):
    body = good(name).replace(b'"x"', b'"' + b"x" * (3 << 20) + b'"')
    status, _, raw = await tried.door.post(PATHS[name], body)
    assert status == 200, raw[:300]
    assert b"x" * (3 << 20) in tried.provider.provider.bodies[-1]
