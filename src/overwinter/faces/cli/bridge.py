"""`overwinter mcp`: MCP over stdin and stdout, handed on to the home, line by line. It holds nothing, so it may be killed at any time.

So may the home: a message has a key of its own, under which it is sent again, and begins nothing twice.
"""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, cast
from uuid import uuid4

from overwinter.errors import OverwinterError
from overwinter.faces.cli.door import open_door
from overwinter.faces.client import Client

__all__ = ["bridge", "hand_on"]

AT_ONCE = 32
"""Messages under way."""
HEADERS = {"x-overwinter-bridge": "1", "accept": "application/json, text/event-stream"}


def bridge(home: Path, agent: str, source: IO[bytes], target: IO[bytes]) -> None:
    """Hand messages on until their source ends. A home that nobody serves is worked on for as long."""
    lock = threading.Lock()
    with open_door(home, is_worker=True, is_json=True, makes=True) as client, ThreadPoolExecutor(AT_ONCE) as threads:
        for line in source:
            if line.strip():
                threads.submit(hand_on, client, agent, line, target, lock)


def hand_on(client: Client, agent: str, line: bytes, target: IO[bytes], lock: threading.Lock) -> None:
    """Hand one message on, and its answer back; each that wants one gets one, whatever goes wrong."""

    def write(message: bytes) -> None:
        with lock:
            target.write(message + b"\n")
            target.flush()

    try:
        headers = {**HEADERS, "x-overwinter-agent": agent, "idempotency-key": uuid4().hex}
        _, answer = client.relay("/mcp", line, headers, write)
    except OverwinterError as error:
        answer = _failed(line, str(error))
    except Exception as error:  # noqa: BLE001 - its thread is asked by nobody, and its client waits for an answer
        answer = _failed(line, f"{type(error).__name__}: this is a bug of `overwinter mcp`")
    if answer:
        write(answer)


def _failed(line: bytes, message: str) -> bytes:
    """Return what is answered to a message that reached nobody; nothing to a notification."""
    try:
        asked: Any = json.loads(line)
        id_ = cast("dict[str, Any]", asked).get("id") if isinstance(asked, dict) else None
    except (ValueError, RecursionError):
        id_ = None
    if id_ is None:
        return b""
    return json.dumps({"jsonrpc": "2.0", "id": id_, "error": {"code": -32603, "message": message}}).encode()


def stdio(home: Path, agent: str) -> None:
    """Hand messages on between a client that started this process, and the home."""
    bridge(home, agent, sys.stdin.buffer, sys.stdout.buffer)
