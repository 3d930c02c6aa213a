"""The floor of a gateway: uvicorn and aiohttp, as ours has them, passing bytes on; nothing is read, decided, counted or kept.

    python -m bench.passthrough UPSTREAM_PORT

It prints its port.
"""

import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import uvicorn
import uvloop

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Floor:
    """An ASGI application that sends a body on and an answer back."""

    def __init__(self, upstream: int) -> None:
        self._upstream = f"http://127.0.0.1:{upstream}"
        self._session: aiohttp.ClientSession | None = None

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send
    ) -> None:
        """Answer one request."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        parts, more = list[bytes](), True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        async with self._session.post(self._upstream + scope["path"], data=b"".join(parts), headers=headers) as came:
            media = came.headers["content-type"].encode()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", media)]})
            while part := await came.content.readany():
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def main() -> None:
    """Serve on any port until killed."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(Floor(int(sys.argv[1])), log_level="warning", access_log=False, lifespan="off", ws="none")  # pyright: ignore[reportArgumentType] - its own types of ASGI are closed
    uvloop.run(uvicorn.Server(config).serve([listening]))


if __name__ == "__main__":
    main()
