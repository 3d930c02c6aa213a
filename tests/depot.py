"""A service in a process of its own: parts in pages, drawings to fetch, files to leave. It notes each request, and may fall silent.

    python depot.py LOG [SILENCE ...]

The first request of a kind that is named is noted and then neither read on nor answered until its client is gone:
`page:2`, `drawing`, `upload` (half of the file is read), `answer` (the file is stored).
"""

import hashlib
import json
import select
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PAGES, PAGE_SIZE = 5, 3
PARTS = [{"id": number, "name": f"part {number}"} for number in range(PAGES * PAGE_SIZE)]
DRAWING = bytes(range(256)) * (1 << 15)
"""8 MB: more than the buffers between two processes hold."""
STORED = {"type": "object", "properties": {"sha256": {"type": "string"}}, "required": ["sha256"]}
OCTETS = {"schema": {"type": "string", "format": "binary"}}


def described(url: str) -> dict[str, object]:
    """Return the service's description."""

    def answers(schema: object, media: str = "application/json") -> dict[str, object]:
        return {"200": {"description": "", "content": {media: {"schema": schema}}}}

    part = {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}}
    page = {"data": {"type": "array", "items": part}, "next_cursor": {"type": "string", "nullable": True}}
    moves = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("cursor",)]
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    key = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}
    parts = {"type": "object", "properties": {"file": OCTETS["schema"]}, "required": ["file"]}
    return {
        "openapi": "3.0.3",
        "info": {"title": "Depot", "version": "1"},
        "servers": [{"url": url}],
        "paths": {
            "/parts": {"get": {"operationId": "listParts", "parameters": moves, "responses": answers({"type": "object", "properties": page})}},
            "/drawing": {"get": {"operationId": "getDrawing", "responses": answers(OCTETS["schema"], "application/octet-stream")}},
            "/files": {"post": {"operationId": "leaveFile", "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": parts}}}, "responses": answers(STORED)}},
            "/files/{name}": {"put": {"operationId": "putFile", "parameters": [name, key], "requestBody": {"required": True, "content": {"application/octet-stream": OCTETS}}, "responses": answers(STORED)}},
        },
    }  # fmt: skip


class Depot(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log: Path
    silences: set[str]
    stored: dict[str, str]
    lock = threading.Lock()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/drawing":
            self.note("drawing")
            if not self.is_silent("drawing"):
                self.answer(DRAWING, "application/octet-stream")
            return
        page = int(parse_qs(parts.query).get("cursor", ["0"])[0])
        self.note(f"page {page}")
        if not self.is_silent(f"page:{page}"):
            rows = PARTS[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
            self.answer_json({"data": rows, "next_cursor": str(page + 1) if page + 1 < PAGES else None})

    def do_POST(self) -> None:
        self.take("")

    def do_PUT(self) -> None:
        self.take(self.headers["Idempotency-Key"])

    def take(self, key: str) -> None:
        size = int(self.headers["Content-Length"])
        body = self.rfile.read(size // 2)
        self.note(f"upload {key}")
        if self.is_silent("upload"):
            return
        body += self.rfile.read(size - len(body))
        if boundary := self.headers.get_param("boundary"):
            start = body.index(b"\r\n\r\n") + 4
            body = body[start : body.rindex(f"\r\n--{boundary}".encode())]
        digest = hashlib.sha256(body).hexdigest()
        with self.lock:
            if not key or key not in self.stored:
                self.note(f"stored {digest}")
            self.stored[key] = digest
        if not self.is_silent("answer"):
            self.answer_json({"sha256": digest})

    def note(self, line: str) -> None:
        with self.log.open("a") as file:
            file.write(line + "\n")

    def is_silent(self, kind: str) -> bool:
        with self.lock:
            if kind not in self.silences:
                return False
            self.silences.remove(kind)
        self.close_connection = True
        gone = select.poll()
        gone.register(self.connection, select.POLLRDHUP)  # what the client sends meanwhile stays where it is
        gone.poll()
        return True

    def answer_json(self, value: object) -> None:
        self.answer(json.dumps(value).encode(), "application/json")

    def answer(self, body: bytes, media: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the standard library
        """Say nothing: what was asked is noted elsewhere."""


if __name__ == "__main__":
    Depot.log, Depot.silences, Depot.stored = Path(sys.argv[1]), set(sys.argv[2:]), {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Depot)
    print(json.dumps(described(f"http://127.0.0.1:{server.server_port}")), flush=True)
    server.serve_forever()
