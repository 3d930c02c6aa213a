"""An MCP server whose tasks outlive it: a firing goes on, whoever asks. It notes what it is asked.

    python kiln.py PLACE [--http] [SILENCE]

PLACE holds `log`, `tasks` (one id a line), and `fired` once every firing is done. The first request of the method that is
named is noted, carried out, and never answered.
"""

import json
import select
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FIRE = {
    "name": "fire",
    "description": "Fire a pot: it takes hours.",
    "inputSchema": {"type": "object", "properties": {"pot": {"type": "string"}}, "required": ["pot"]},
    "execution": {"taskSupport": "required"},
}
INITIALIZED = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}, "tasks": {"requests": {"tools": {"call": {}}}}},
    "serverInfo": {"name": "kiln", "version": "1"},
}


class Kiln:
    def __init__(self, place: Path, silence: str) -> None:
        self.place, self.silence = place, silence
        self.lock = threading.Lock()

    def answered(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Return the answer to a message; None: there is none."""
        method, params = message.get("method", ""), message.get("params") or {}
        if "id" not in message:
            return None
        with self.lock:
            made = self.result(method, params)
            is_first = method not in self.lines("log")
            self.note("log", method)
        if method == self.silence and is_first:
            return None
        return {"jsonrpc": "2.0", "id": message["id"], **made}

    def result(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        match method:
            case "initialize":
                return {"result": INITIALIZED}
            case "tools/list":
                return {"result": {"tools": [FIRE]}}
            case "tools/call":
                number = str(len(self.lines("tasks")))
                self.note("tasks", number)
                return {"result": {"task": self.task(number)}}
            case "tasks/get" if params["taskId"] in self.lines("tasks"):
                return {"result": self.task(params["taskId"])}
            case "tasks/result" if params["taskId"] in self.lines("tasks"):
                return {"result": {"content": [{"type": "text", "text": f"fired {params['taskId']}"}]}}
            case _:
                return {"error": {"code": -32601 if "/" not in method else -32602, "message": f"no {method}"}}

    def task(self, number: str) -> dict[str, Any]:
        status = "completed" if (self.place / "fired").exists() else "working"
        at = "2026-01-01T00:00:00Z"
        return {
            "taskId": number,
            "status": status,
            "createdAt": at,
            "lastUpdatedAt": at,
            "ttl": None,
            "pollInterval": 200,
        }

    def lines(self, name: str) -> list[str]:
        path = self.place / name
        return path.read_text().splitlines() if path.exists() else []

    def note(self, name: str, line: str) -> None:
        with (self.place / name).open("a") as file:
            file.write(line + "\n")


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kiln: Kiln

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.kiln.answered(message)
        if answer is None and "id" in message:
            gone = select.poll()
            gone.register(self.connection, select.POLLRDHUP)
            gone.poll()
            self.close_connection = True
            return
        body = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(202 if answer is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_response(405)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the standard library
        """Say nothing: what was asked is noted elsewhere."""


def main() -> None:
    words = [word for word in sys.argv[2:] if word != "--http"]
    kiln = Kiln(Path(sys.argv[1]), words[0] if words else "")
    if "--http" in sys.argv:
        Http.kiln = kiln
        server = ThreadingHTTPServer(("127.0.0.1", 0), Http)
        print(f"http://127.0.0.1:{server.server_port}/mcp", flush=True)
        server.serve_forever()
    for line in sys.stdin:
        if (answer := kiln.answered(json.loads(line))) is not None:
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
