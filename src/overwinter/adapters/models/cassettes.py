"""Recordings of model calls in a file that people can read: what was sent to a provider, what came back, event by event.

A recording is found by its request: provider, dialect, path, the headers that matter, and the body whatever the order of its
keys. Nothing that says who asks is in the file: the home's credentials are added further down, and those that a body has for
tools of the provider are taken out of it.
"""

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from anyio import lowlevel

from overwinter.adapters.dialects.events import Cutter, framed, parts
from overwinter.errors import UsageError
from overwinter.gateway.dialect import DialectName, Wire
from overwinter.gateway.routes import Provider
from overwinter.gateway.upstream import Reply, Upstream, UpstreamFailed

__all__ = ["Cassette"]

FORMAT = 1
DIFFERENCES_SHOWN = 8
VALUE_CHARACTERS_MAX = 80
HEADERS = ("anthropic-", "openai-beta")
"""What the headers of a request begin with that belong to it; others change from day to day."""
REPLY_HEADERS = frozenset(
    {"content-type", "retry-after", "retry-after-ms", "x-request-id", "request-id", "x-should-retry"}
)
CREDENTIALS = frozenset({
    "authorization", "authorization_token", "api_key", "apikey", "x-api-key", "access_token", "password", "client_secret",
})  # fmt: skip
"""Keys at any depth whose texts are taken out."""
HEADERS_KEY = "headers"
"""The same with every text below it: headers for an MCP server."""
REMOVED = "(removed)"

Json = dict[str, Any]


class Cassette:
    """Plays recorded model calls as an `Upstream`, and never calls out; or records them.

    Args:
        path: of the file.
        is_recording: ask the real providers, and write the file anew.
    """

    def __init__(self, path: Path, *, is_recording: bool = False) -> None:
        self.path, self.is_recording = path, is_recording
        self.misses: list[str] = []
        """What was asked and is not in the file: how it differs from the nearest recording."""
        self._tape = [] if is_recording else _read(path)
        self._played = dict[str, int]()
        self._real: Upstream | None = None

    def over(self, real: Upstream) -> "Cassette":
        """Return this cassette, with the way to providers for what it records."""
        self._real = real
        return self

    @asynccontextmanager
    async def send(self, provider: Provider, dialect: DialectName, method: str, wire: Wire) -> "AsyncGenerator[Reply]":
        """Answer a request from the file; recording, from its provider.

        Raises:
            UpstreamFailed: there is no such recording, with what is different; or the call failed when it was recorded.
        """
        asked = _asked(provider.name, dialect, method, wire)
        if not self.is_recording:
            yield self._play(asked)
            return
        if self._real is None:
            raise UsageError(f"{self.path} records, and there is nobody to ask: open the App with models=cassette")
        told: Json = {}
        self._tape.append({"request": asked, "reply": told})
        try:
            async with self._real.send(provider, dialect, method, wire) as reply:
                recorder = _Recorder(reply)
                try:
                    yield recorder
                finally:
                    told |= recorder.told()
        except UpstreamFailed as error:
            told["failed"] = {"kind": error.kind, "message": str(error), "has_left": error.has_left}
            raise
        finally:
            if not told:  # given up before anything came
                self._tape = [each for each in self._tape if each["reply"] is not told]
            self._write()

    def _play(self, asked: Json) -> Reply:
        """Return what was recorded for a request. Of several equal ones each is played in its turn, the last one from then on."""
        name = _canonical(asked)
        found = [each["reply"] for each in self._tape if _canonical(each["request"]) == name]
        if not found:
            missed = f"{self.path} has no recording of this request: {self._nearest(asked)}"
            self.misses.append(missed)
            raise UpstreamFailed("forbidden", missed, has_left=False)
        number = self._played.get(name, 0)
        self._played[name] = number + 1
        reply: Json = found[min(number, len(found) - 1)]
        if "status" not in reply:
            raise _failed(reply["failed"])
        return _Played(reply)

    def _nearest(self, asked: Json) -> str:
        if not self._tape:
            return "it is empty; record it with Cassette(path, is_recording=True)"
        differences = min((_differences(each["request"], asked) for each in self._tape), key=len)
        shown = "; ".join(differences[:DIFFERENCES_SHOWN])
        more = len(differences) - DIFFERENCES_SHOWN
        return f"the nearest differs in {shown}" + (f"; and in {more} more" if more > 0 else "")

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, "recordings": self._tape}, ensure_ascii=False, indent=1)
        self.path.write_text(text + "\n", encoding="utf-8", errors="surrogatepass")


def _read(path: Path) -> list[Json]:
    try:
        told = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise UsageError(f"{path} is no cassette: {error}") from error
    found = told.get("format") if isinstance(told, dict) else None
    if found != FORMAT:
        raise UsageError(f"{path} is no cassette of format {FORMAT}, but {found!r}: record it anew")
    return cast("list[Json]", told["recordings"])


# --- Requests --------------------------------------------------------------------------------------------------------


def _asked(provider: str, dialect: str, method: str, wire: Wire) -> Json:
    headers = {name: value for name, value in sorted(wire.headers.items()) if name.startswith(HEADERS)}
    head: Json = {"provider": provider, "dialect": dialect, "method": method, "path": wire.path}
    body = _value(wire.body)
    return head | ({"headers": headers} if headers else {}) | ({"body": _without_credentials(body)} if body else {})


def _canonical(asked: Json) -> str:
    return json.dumps(asked, sort_keys=True)


def _without_credentials(node: Any, *, is_secret: bool = False) -> Any:
    if isinstance(node, dict):
        return {
            key: _without_credentials(
                value, is_secret=is_secret or key.lower() == HEADERS_KEY or (isinstance(value, str) and key.lower() in CREDENTIALS)
            )
            for key, value in node.items()
        }  # fmt: skip
    if isinstance(node, list):
        return [_without_credentials(each, is_secret=is_secret) for each in node]
    return REMOVED if is_secret and isinstance(node, str) else node


def _differences(was: Json, now: Json) -> list[str]:
    """Return in which fields two requests differ, and how."""
    before, after = dict(_leaves(was, "")), dict(_leaves(now, ""))
    return [
        f"{place}: was {_shown(before, after, place)}, is {_shown(after, before, place)}"
        for place in dict.fromkeys([*before, *after])
        if place not in before or place not in after or before[place] != after[place]
    ]


def _leaves(node: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{place}.{key}" if place else key)
    elif isinstance(node, list) and node:
        for number, value in enumerate(node):
            yield from _leaves(value, f"{place}[{number}]")
    else:
        yield place, json.dumps(node, ensure_ascii=False)


def _shown(these: Mapping[str, str], others: Mapping[str, str], place: str) -> str:
    """Return a value; of a long one the part in which it begins to differ."""
    if place not in these:
        return "not there"
    text, other = these[place], others.get(place, "")
    same = next((at for at, (one, two) in enumerate(zip(text, other, strict=False)) if one != two), len(other))
    start = max(0, same - VALUE_CHARACTERS_MAX // 4) if len(text) > VALUE_CHARACTERS_MAX else 0
    end = start + VALUE_CHARACTERS_MAX
    return ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")


# --- Answers ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Recorder:
    """See `gateway.upstream.Reply`: one that is written down as it is read."""

    _reply: Reply
    _chunks: list[bytes] = field(default_factory=list[bytes])
    _failure: UpstreamFailed | None = None

    @property
    def status(self) -> int:
        return self._reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._reply.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._reply.chunks():
                self._chunks.append(chunk)
                yield chunk
        except UpstreamFailed as error:
            self._failure = error
            raise

    def masked(self, said: bytes) -> bytes:
        return self._reply.masked(said)

    def told(self) -> Json:
        """Return what has come."""
        headers = {name: value for name, value in self.headers.items() if name in REPLY_HEADERS}
        told: Json = {"status": self.status, "headers": headers}
        raw = b"".join(self._chunks)
        if headers.get("content-type", "").startswith("text/event-stream"):
            cutter = Cutter()
            wires = [*cutter.feed(raw), *cutter.feed(b"", is_last=True), cutter.rest()]
            told["events"] = [_event(each) for each in wires if each]
        else:
            told["body"] = _value(raw)
        if self._failure is not None:
            error = self._failure
            told["failed"] = {"kind": error.kind, "message": str(error), "has_left": error.has_left}
        return told


@dataclass(slots=True)
class _Played:
    """See `gateway.upstream.Reply`: one that was written down."""

    _told: Json

    @property
    def status(self) -> int:
        return int(self._told["status"])

    @property
    def headers(self) -> Mapping[str, str]:
        return self._told["headers"]

    async def chunks(self) -> AsyncIterator[bytes]:
        for each in self._told.get("events", ()):
            await lowlevel.checkpoint()
            yield _wire(each)
        if "body" in self._told:
            yield _bytes(self._told["body"])
        if "failed" in self._told:
            raise _failed(self._told["failed"])

    def masked(self, said: bytes) -> bytes:
        return said


def _failed(told: Json) -> UpstreamFailed:
    return UpstreamFailed(told["kind"], told["message"], has_left=told["has_left"])


def _event(wire: bytes) -> Json:
    """Return an event, its data as JSON if its very bytes can be made of that again."""
    name, content = parts(wire)
    try:
        told: Json = ({"event": name} if name else {}) | {"data": json.loads(content)}
    except ValueError:
        return {"raw": _value(wire)}
    return told if _wire(told) == wire else {"raw": _value(wire)}


def _wire(told: Json) -> bytes:
    if "raw" in told:
        return _bytes(told["raw"])
    content = json.dumps(told["data"], ensure_ascii=False, separators=(",", ":"))
    return framed(content.encode("utf-8", "surrogatepass"), told.get("event", ""))


def _value(raw: bytes) -> Any:
    """Return bytes as JSON, else as text, else as base64."""
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if isinstance(found, dict | list):
        return found
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(raw).decode()}"


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return base64.b64decode(value[7:]) if value.startswith("base64:") else value.encode("utf-8", "surrogatepass")
