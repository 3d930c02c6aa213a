"""The provider on a socket: HTTP/1.1, one call at a time on a connection, answered at once or in a task."""

import asyncio
import base64
import gzip
import hashlib
import json
import re
import socket
import struct
import zlib
from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qs, unquote

import httptools

from .plan import TOKEN_BYTES, Charge, Event, Json, Plan, Rule, Tokens
from .provider import (
    CHAT,
    GEMINI,
    MESSAGES,
    RESPONSES,
    Background,
    Dialect,
    Provider,
    dialect_of,
    endless_event,
    prompt_bytes,
    render_events,
    render_whole,
)  # fmt: skip
from .responses import whole as response

SECRET_HEADERS = ("authorization", "x-api-key", "x-goog-api-key")
MODELS = ("mock-1", "mock-2")
HTML = b"<!doctype html><title>502 Bad Gateway</title><h1>nginx</h1>"
BOMB_BYTES = 256 << 20
"""Unpacked."""
_BACKGROUND = re.compile(r"/v1/responses/(resp_\w+)(/cancel)?")
_COUNT = re.compile(r"/v1(?:beta|alpha)?/models/([^:]+):countTokens")


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, provider: Provider, connections: "set[Connection]") -> None:
        self.provider, self.connections = provider, connections
        self.task: asyncio.Task[None] | None = None
        self.can_write = asyncio.Event()
        self.can_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's class is no subclass
        self.parser = httptools.HttpRequestParser(self)
        self.connections.add(self)
        self.provider.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.can_write.clear()

    def resume_writing(self) -> None:
        self.can_write.set()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_message_begin(self) -> None:
        self.url, self.headers, self.body = b"", dict[str, str](), list[bytes]()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode().lower()
        is_secret = key in SECRET_HEADERS
        self.headers[key] = "sha256:" + hashlib.sha256(value).hexdigest()[:12] if is_secret else value.decode("latin-1")
        if key == "expect":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        method, body = self.parser.get_method().decode(), b"".join(self.body)
        path, _, query = self.url.decode().partition("?")
        path = unquote(path)
        try:
            request = json.loads(body) if body else {}
        except ValueError:
            return self.send(400, {"error": {"message": "not JSON", "type": "invalid_request_error"}})
        if path.startswith("/_mock"):
            return self.control(method, path, request)
        return self.route(method, path, query, request, body)

    def control(self, method: str, path: str, request: Json) -> None:
        match method, path:
            case "POST", "/_mock/rules":
                self.provider.script(*(Rule(**fields) for fields in cast("list[Json]", request)))
                self.send(200, {"rules": len(self.provider.rules)})
            case "POST", "/_mock/release":
                self.provider.release()
                self.send(200, {})
            case "DELETE", "/_mock":
                self.provider.forget()
                self.send(200, {})
            case "GET", "/_mock/bill":
                self.send(200, self.provider.bill())
            case _:
                self.send(404, {"error": path})

    def route(self, method: str, path: str, query: str, request: Json, body: bytes) -> None:  # noqa: PLR0911 - a table
        dialect = dialect_of(path)
        if method == "HEAD":
            return self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        if method == "POST" and dialect is not None:
            return self.answer(dialect, path, request, body)
        if method == "POST" and path == "/v1/embeddings":
            return self.embed(request, body)
        if method == "POST" and path == "/v1/messages/count_tokens":
            counted = {"input_tokens": -(-len(prompt_bytes(MESSAGES, request)) // TOKEN_BYTES)}
            return self.tell(MESSAGES, path, body, counted)
        if method == "POST" and _COUNT.fullmatch(path):
            asked = request.get("generateContentRequest") or request
            counted = {"totalTokens": -(-len(prompt_bytes(GEMINI, asked)) // TOKEN_BYTES)}
            return self.tell(GEMINI, path, body, counted)
        if found := _BACKGROUND.fullmatch(path):
            return self.background(method, path, found[1], is_cancel=bool(found[2]), query=query)
        if method == "GET" and path in ("/v1/models", "/v1beta/models"):
            return self.models(path)
        return self.send(404, {"error": {"message": path, "type": "invalid_request_error"}})

    def models(self, path: str) -> None:
        if "x-goog-api-key" in self.headers or path == "/v1beta/models":
            return self.send(200, {"models": [{"name": f"models/{each}", "displayName": each} for each in MODELS]})
        if "anthropic-version" in self.headers:
            head = {"type": "model", "created_at": "2026-01-01T00:00:00Z"}
            listed = [{**head, "id": each, "display_name": each} for each in MODELS]
            return self.send(200, {"data": listed, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]})
        listed = [{"id": each, "object": "model", "created": 1, "owned_by": "mock"} for each in MODELS]
        return self.send(200, {"object": "list", "data": listed})

    def send(self, status: int, payload: Json | bytes, *lines: str, media: str = "application/json") -> None:
        content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        extra = "".join(f"{line}\r\n" for line in lines)
        head = f"HTTP/1.1 {status} Mock\r\ncontent-type: {media}\r\ncontent-length: {len(content)}\r\n{extra}\r\n"
        self.transport.write(head.encode() + content)

    def embed(self, request: Json, body: bytes) -> None:
        given, rule = request.get("input", ""), self.provider.take_rule("/v1/embeddings", body)
        line = self.provider.charge("/v1/embeddings", body, request, self.headers)
        id_line = f"x-request-id: {line.id}"
        if self.refuses(CHAT, rule, line, id_line):
            return
        is_many = isinstance(given, list) and not all(isinstance(each, int) for each in cast("list[object]", given))
        texts = cast("list[object]", given if is_many else [given])
        count = sum(
            len(text) if isinstance(text, list) else -(-len(str(text).encode()) // TOKEN_BYTES) for text in texts
        )
        line.prompt = Tokens(fresh=count)
        is_packed = request.get("encoding_format") == "base64"
        listed = [
            {"object": "embedding", "index": i, "embedding": packed(words) if is_packed else words}
            for i, words in enumerate(map(counted, texts))
        ]
        usage = {"prompt_tokens": count, "total_tokens": count}
        answer = {"object": "list", "model": line.model, "data": listed, "usage": usage}
        if rule.fault != "none":
            whole = self.send_whole(CHAT, json.dumps(answer).encode(), rule, line, id_line)
            self.task = asyncio.get_running_loop().create_task(self.play(whole, line, rule))
            return
        line.end, line.is_usage_sent = "complete", True
        self.send(200, answer, id_line)

    def tell(self, dialect: Dialect, path: str, body: bytes, answer: Json) -> None:
        """Send what nobody bills, with the harm of a rule that names its path."""
        line, rule = self.provider.aside(path, body, self.headers)
        id_line = f"{dialect.id_header}: {line.id}"
        if self.refuses(dialect, rule, line, id_line):
            return
        if rule.fault == "none":
            self.send(200, answer, id_line)
            return
        whole = self.send_whole(dialect, json.dumps(answer).encode(), rule, line, id_line)
        self.task = asyncio.get_running_loop().create_task(self.play(whole, line, rule))

    def background(self, method: str, path: str, answer_id: str, *, is_cancel: bool, query: str) -> None:
        asked = parse_qs(query)
        if method == "GET" and asked.get("stream") == ["true"] and answer_id in self.provider.background:
            after = int(asked.get("starting_after", ["-1"])[0])
            return self.write_chunks(
                self.provider.stream_of(self.provider.background[answer_id], after), "x-request-id: bg"
            )
        found: Background | None = None
        if method == "POST" and is_cancel:
            found = self.provider.cancel(answer_id)
        elif method == "GET":
            found = self.provider.poll(answer_id)
        if found is None:
            return self.send(
                404, {"error": {"message": f"no {answer_id}", "type": "invalid_request_error", "code": None}}
            )
        return self.tell(RESPONSES, path, b"", response(found.plan, found.status) | {"background": True})

    # --- Answers -----------------------------------------------------------------------------------------------------

    def answer(self, dialect: Dialect, path: str, request: Json, body: bytes) -> None:
        """Answer a model call: at once if no rule needs time or harm, else in a task."""
        rule = self.provider.take_rule(path, body)
        line = self.provider.charge(path, body, request, self.headers)
        id_line = f"{dialect.id_header}: {line.id}"
        if self.refuses(dialect, rule, line, id_line):
            return None
        plan = self.provider.plan(dialect, line, request, body, rule)
        if request.get("background"):
            begun = self.provider.begin_background(plan, line, rule)
            if not line.is_stream:
                return self.send(200, begun, id_line)
        is_calm = rule.fault in ("none", "negative_usage", "no_usage") and not (
            rule.gap_s or rule.split_bytes or rule.noise
        )
        if not is_calm:
            work = self.play_stream if line.is_stream else self.play_whole
            self.task = asyncio.get_running_loop().create_task(
                self.play(work(dialect, plan, rule, line, id_line), line, rule)
            )
            return None
        self.provider.settle(line, plan, plan.tokens.output)
        if not line.is_stream:
            return self.send(200, render_whole(dialect.name, plan), id_line)
        return self.write_chunks((each.wire for each in render_events(dialect.name, plan)), id_line)

    def refuses(self, dialect: Dialect, rule: Rule, line: Charge, id_line: str) -> bool:
        """Send what is there in place of an answer, if the rule says so; return whether it did."""
        match rule.fault:
            case "status":
                self.refuse(dialect, rule, line)
            case "html":
                line.end = "refused"
                self.send(200, HTML, media="text/html")
            case "error_body":
                line.end = "refused"
                self.send(200, dialect.error(rule.status, line.id, rule.kind), id_line)
            case "gzip_bomb":
                line.end = "junk"
                self.send(200, bomb(), "content-encoding: gzip")
            case _:
                return False
        return True

    def refuse(self, dialect: Dialect, rule: Rule, line: Charge) -> None:
        line.status, line.end = rule.status, "refused"
        retry = [f"retry-after: {rule.retry_after_s:g}"] if rule.retry_after_s is not None else []
        self.send(
            rule.status, dialect.error(rule.status, line.id, rule.kind), f"{dialect.id_header}: {line.id}", *retry
        )

    def write_chunks(self, wires: Iterable[bytes], id_line: str) -> None:
        chunks = (b"%x\r\n%b\r\n" % (len(wire), wire) for wire in wires)
        self.transport.write(stream_head(id_line) + b"".join(chunks) + b"0\r\n\r\n")

    async def play(self, work: Coroutine[Any, Any, None], line: Charge, rule: Rule) -> None:
        try:
            if rule.fault == "slow_first":
                await self.wait(rule)
            await work
        except asyncio.CancelledError:  # the client closed the connection: a provider bills what it had generated
            line.end = "client_gone"
            raise
        finally:
            work.close()
            self.task = None

    async def wait(self, rule: Rule) -> None:
        """Wait for as long as a rule says, or until the test has seen enough."""
        try:
            async with asyncio.timeout(rule.delay_s):
                await self.provider.released.wait()
        except TimeoutError:
            return

    async def play_whole(self, dialect: Dialect, plan: Plan, rule: Rule, line: Charge, id_line: str) -> None:
        self.provider.settle(line, plan, plan.tokens.output)
        await self.send_whole(dialect, render_whole(dialect.name, plan), rule, line, id_line)
        if line.end == "complete":
            line.is_usage_sent = plan.says == "truth"

    async def send_whole(self, dialect: Dialect, body: bytes, rule: Rule, line: Charge, id_line: str) -> None:
        """Send an answer in one piece, with the harm that a rule does to it."""
        line.end, line.is_usage_sent = "open", False
        match rule.fault:
            case "stall":
                await self.wait(rule)
            case "reset":
                return await self.reset(line)
            case "cut":
                line.end = "cut"
                head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{id_line}\r\n\r\n"
                self.transport.write(head.encode() + body[: len(body) // 2])
                return self.transport.close()
            case "junk":
                line.end = "junk"
                return self.send(200, body[: len(body) // 2], id_line)
            case "error_event":
                line.end, line.output_tokens, line.prompt = "error", 0, Tokens(fresh=0)
                return self.send(200, dialect.error(500, line.id, ""), id_line)
            case "endless" | "endless_line":
                self.transport.write(stream_head(id_line, "application/json"))
                while True:
                    await self.write_piece(b" " * 65_536)
            case _:
                pass
        line.end, line.is_usage_sent = "complete", True
        return self.send(200, body, id_line)

    async def play_stream(self, dialect: Dialect, plan: Plan, rule: Rule, line: Charge, id_line: str) -> None:
        self.provider.settle(line, plan, 0)
        line.end, line.is_usage_sent = "open", False
        self.transport.write(stream_head(id_line))
        for index, event in enumerate(render_events(dialect.name, plan)):
            if index == rule.at and await self.harm(dialect, plan, rule, line):
                return
            for _ in range(2 if event.is_usage and rule.fault == "duplicate_usage" else 1):
                await self.write_event(dialect, event, rule)
            line.output_tokens += event.tokens
            line.is_usage_sent = line.is_usage_sent or (event.is_usage and plan.says == "truth")
        self.transport.write(b"0\r\n\r\n")
        line.end = "complete"

    async def harm(self, dialect: Dialect, plan: Plan, rule: Rule, line: Charge) -> bool:
        """Do what a rule says happens at its event; return whether that was the end."""
        match rule.fault:
            case "stall":
                await self.wait(rule)
                return False
            case "reset":
                await self.reset(line)
                return True
            case "cut":
                line.end = "cut"
            case "error_event":
                line.end = "error"
                await self.write_event(dialect, Event(dialect.error_event(line.id)), rule)
            case "junk":
                line.end = "junk"
                await self.write_event(dialect, Event(b'data: {"choices": [{"del\n\n'), rule)
                return False
            case "endless":
                wire = endless_event(dialect, plan)
                while True:
                    await self.write_piece(wire * 100)
                    line.output_tokens += 100
            case "endless_line":
                await self.write_piece(b"data: ")
                while True:
                    await self.write_piece(b"x" * 65_536)
            case _:
                return False
        self.transport.write(b"0\r\n\r\n")
        return True

    async def write_event(self, dialect: Dialect, event: Event, rule: Rule) -> None:
        wire = event.wire
        if rule.noise:
            wire = (b": note\n" + dialect.ping + wire).replace(b"\n", b"\r\n")
        size = rule.split_bytes or len(wire)
        for start in range(0, len(wire), size):
            await self.write_piece(wire[start : start + size])
        await asyncio.sleep(rule.gap_s)

    async def write_piece(self, piece: bytes) -> None:
        await self.can_write.wait()
        self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await asyncio.sleep(0)

    async def reset(self, line: Charge) -> None:
        """End the connection with RST in place of FIN, after a moment for the client to read what came before."""
        line.end = "reset"
        await asyncio.sleep(0.02)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def counted(text: object) -> list[float]:
    """Return what the words of a text come to: the same words in another order mean the same."""
    counts = [0.0] * 64
    for word in str(text).lower().split():
        counts[zlib.crc32(word.encode()) % 64] += 1.0
    return counts


def packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def stream_head(id_line: str, media: str = "text/event-stream") -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {media}\r\ntransfer-encoding: chunked\r\n{id_line}\r\n\r\n".encode()


def bomb() -> bytes:
    """Return a few hundred kilobytes that unpack to `BOMB_BYTES`."""
    return gzip.compress(b" " * (1 << 20), 9, mtime=0) * (BOMB_BYTES >> 20)


@dataclass(frozen=True, slots=True)
class Mock:
    """A provider that listens."""

    url: str
    provider: Provider

    def script(self, *rules: Rule) -> None:
        self.provider.script(*rules)

    @property
    def calls(self) -> list[Charge]:
        return list(self.provider.calls)


@asynccontextmanager
async def running(port: int = 0) -> AsyncGenerator[Mock]:
    """Yield a provider that listens on loopback; 0 picks a free port."""
    provider, connections = Provider(), set[Connection]()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(provider, connections), "127.0.0.1", port)
    try:
        yield Mock(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", provider)
    finally:
        server.close()
        for each in list(connections):
            each.transport.abort()
        await asyncio.sleep(0)  # for the ends of the connections to be told
        await server.wait_closed()
