"""HTTP whose answers begin with one write: the head waits for the first part of the body, if that comes at once.

uvicorn writes a head by itself, and each write wakes whoever reads: a tenth of what a model call costs here.
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Joined"]


class Joined(HttpToolsProtocol):
    """uvicorn's protocol over a transport that joins."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin a connection."""
        super().connection_made(cast("asyncio.Transport", _Joining(transport, self.loop)))


class _Joining:
    """A transport before another: what looks like a head is held until the next write, at most for this turn of the loop."""

    __slots__ = ("_held", "_inner", "_loop")

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._inner, self._loop, self._held = inner, loop, b""

    def write(self, part: bytes) -> None:
        """Write, a head with what follows it."""
        if self._held:
            part, self._held = self._held + part, b""
        elif part.startswith(b"HTTP/1.1 ") and part.endswith(b"\r\n\r\n"):
            self._held = part
            self._loop.call_soon(self._flush)
            return
        self._inner.write(part)

    def close(self) -> None:
        """Write what is held, and close."""
        self._flush()
        self._inner.close()

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held and not self._inner.is_closing():
            self._inner.write(held)

    def __getattr__(self, name: str) -> object:
        """Return anything else of the transport behind it."""
        return getattr(self._inner, name)
