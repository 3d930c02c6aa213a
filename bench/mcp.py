"""What the MCP face costs: a one-call program executed over HTTP, and the first answer of `overwinter mcp` on stdio beside a server.

Floor: the same program over the HTTP API on the same socket (start, then wait for the result), in turn with the other.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.parked import kill, serve
from bench.report import percentile, project
from bench.turns import TOOLS
from overwinter.faces.cli.door import served_socket
from overwinter.faces.client import Client

PROGRAM = "await work.double(number=21)"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    count, starts = (50, 3) if is_small else (500, 11)
    with project(TOOLS) as place:
        server = serve(place)
        try:
            client = Client(served_socket(place / ".overwinter"))
            pairs = [(executed(client), started(client)) for _ in range(count + 20)][20:]
            first = sorted(stdio_ms(place) for _ in range(starts))
        finally:
            kill(server)
    ours, floor = [[pair[side] for pair in pairs] for side in (0, 1)]
    return {
        "n": count,
        "execute_p50_ms": round(percentile(ours, 0.5), 2),
        "execute_p99_ms": round(percentile(ours, 0.99), 2),
        "floor_p50_ms": round(percentile(floor, 0.5), 2),
        "stdio_first_ms": round(percentile(first, 0.5)),
        "stdio_first_max_ms": round(first[-1]),
    }


def executed(client: Client) -> float:
    """Run the program over MCP; return the milliseconds that it took."""
    params = {"name": "execute", "arguments": {"code": PROGRAM}, "_meta": META}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "execute"}
    began = time.perf_counter()
    status, answer = client.relay("/mcp", body, headers)
    took_ms = (time.perf_counter() - began) * 1_000
    assert status == 200, answer
    assert json.loads(answer)["result"]["structuredContent"]["value"] == 42, answer
    return took_ms


def started(client: Client) -> float:
    """Run the program over the HTTP API; return the milliseconds that it took."""
    began = time.perf_counter()
    run = client.post("runs", source=PROGRAM)["id"]
    ended = client.get("runs", run, "result", wait_s=20)
    took_ms = (time.perf_counter() - began) * 1_000
    assert ended["result"] == 42, ended
    return took_ms


def stdio_ms(place: Path) -> float:
    """Start `overwinter mcp` as a client does, shake hands, and return after how many milliseconds the answer is there."""
    words = [sys.executable, "-m", "overwinter", "mcp"]
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}).encode() + b"\n"
    began = time.perf_counter()
    with subprocess.Popen(words, cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bridge:
        assert bridge.stdin is not None
        assert bridge.stdout is not None
        bridge.stdin.write(line)
        bridge.stdin.flush()
        answer = json.loads(bridge.stdout.readline())
        took_ms = (time.perf_counter() - began) * 1_000
        bridge.stdin.close()
        bridge.wait(10)
    assert answer["result"]["serverInfo"]["name"] == "overwinter", answer
    return took_ms
