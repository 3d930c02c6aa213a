"""Messages of MCP clients, put to the door as an ASGI server would."""

import json
from collections.abc import Mapping
from typing import Any

import anyio

from overwinter.app import App
from overwinter.faces.mcp import McpDoor
from overwinter.faces.mcp.protocol import PRESENT
from overwinter.faces.scopes import CALLER
from overwinter.tokens import Token

META = {"io.modelcontextprotocol/protocolVersion": PRESENT, "io.modelcontextprotocol/clientCapabilities": {}}


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("it is the door's")


async def put(
    app: App,
    body: object,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    left: anyio.Event | None = None,
    token: Token | None = None,
    door: McpDoor | None = None,
    answers: list[tuple[int, Any]] | None = None,
) -> tuple[int, Any]:
    """Put a message, with a token or at the home's own socket; the client stays until `left` is set. A stream is a list.

    Into `answers` goes what was sent, also where the door raises afterwards.
    """
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent: list[Any] = []
    messages = iter([{"type": "http.request", "body": raw, "more_body": False}])

    async def receive() -> Any:
        for message in messages:
            return message
        await (left or anyio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    told = {"content-type": "application/json", **(headers or {})}
    rows = [(key.encode(), value.encode()) for key, value in told.items()]
    scope: dict[str, Any] = {"type": "http", "method": method, "path": "/mcp", "headers": rows, "query_string": b""}
    if token is not None:
        scope[CALLER] = token
    try:
        await (door or McpDoor(nothing, app, is_remote=token is not None))(scope, receive, send)
    finally:
        if answers is not None:
            answers.append(_read(sent))
    return _read(sent)


def _read(sent: list[Any]) -> tuple[int, Any]:
    answer = b"".join(message.get("body", b"") for message in sent)
    if (b"content-type", b"text/event-stream") in sent[0]["headers"]:
        lines = [line for line in answer.decode().split("\n") if line.startswith("data: ")]
        return sent[0]["status"], [json.loads(line.removeprefix("data: ")) for line in lines]
    return sent[0]["status"], json.loads(answer) if answer else None


def present(method: str, **params: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a request that stands alone, and its headers."""
    headers = {"mcp-protocol-version": PRESENT, "mcp-method": method}
    if isinstance(params.get("name"), str):
        headers["mcp-name"] = params["name"]
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": META, **params}}, headers


def earlier(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": "a", "method": method, "params": params}


def able(**abilities: Any) -> dict[str, Any]:
    """Return the `_meta` of a client that can do these."""
    return {**META, "io.modelcontextprotocol/clientCapabilities": abilities}
