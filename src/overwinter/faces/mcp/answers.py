"""An answer on its way: one JSON object, or a stream of events once something was said before the end."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.types import Send

from overwinter.faces.mcp.protocol import Asked

__all__ = ["Answer", "token_of"]


class Answer:
    """What is sent for one request."""

    def __init__(self, send: Send) -> None:
        self._send, self._is_begun = send, False

    async def progress(self, token: str | int, seconds: float, message: str) -> None:
        """Say how it goes, before the end.

        Args:
            token: by which the client knows what this is about.
            seconds: since it asked; each time more.
            message: one sentence.
        """
        params = {"progressToken": token, "progress": round(seconds, 3), "message": message}
        if not self._is_begun:
            await self._start(200, {"content-type": "text/event-stream", "cache-control": "no-store"})
            self._is_begun = True  # a server that is cancelled while it waits for its client has sent nothing
        await self._event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}, is_last=False)

    async def end(self, status: int, body: Mapping[str, Any] | None, headers: Mapping[str, str] | None = None) -> None:
        """Send the answer."""
        if self._is_begun:
            await self._event(body or {}, is_last=True)
            return
        raw = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
        kind = {"content-type": "application/json"} if raw else {}
        await self._start(status, {**kind, **(headers or {}), "content-length": str(len(raw))})
        await self._send({"type": "http.response.body", "body": raw, "more_body": False})

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        rows = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": rows})

    async def _event(self, message: Mapping[str, Any], *, is_last: bool) -> None:
        raw = f"event: message\ndata: {json.dumps(message, ensure_ascii=False)}\n\n".encode()
        await self._send({"type": "http.response.body", "body": raw, "more_body": not is_last})


def token_of(asked: Asked, headers: Mapping[str, str]) -> str | int | None:
    """Return by what its client knows the progress of a request; None: it wants none, or takes no stream."""
    token = asked.meta.get("progressToken")
    is_token = isinstance(token, str | int) and not isinstance(token, bool)
    return token if is_token and "text/event-stream" in headers.get("accept", "") else None
