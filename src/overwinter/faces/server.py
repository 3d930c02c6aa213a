"""Serves the API on the home's unix socket, and on a TCP port if one is given, until it is told to stop."""

import os
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import uvicorn

from overwinter.adapters.home import socket_path
from overwinter.app import App
from overwinter.faces.api import api
from overwinter.faces.callers import PEER, uid_of
from overwinter.faces.inbound import InboundDoor
from overwinter.faces.joined import Joined
from overwinter.faces.mcp import McpDoor
from overwinter.faces.models import ModelsDoor
from overwinter.faces.tcp import Listener

__all__ = ["serve"]


class _Peered(Joined):
    """HTTP on the home's own socket: each request knows whose process put it."""

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.scope[PEER] = uid_of(self.transport.get_extra_info("socket"))  # type: ignore[literal-required] - a scope may have more keys (ASGI 3, "Extra keys")


STOP_S = 5
"""How long open requests may take when the server stops."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals belong to the command, which also drains the worker."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


async def serve(
    app: App, home: Path, started: Callable[[Path], None], stop: anyio.Event, listener: Listener | None = None
) -> None:
    """Answer on the home's socket, and a port, until `stop` is set; requests under way are finished first.

    The home's lock is held, so a socket file that lies there belongs to nobody: it is replaced.
    """
    await app.models.load()
    place = socket_path(home)
    with suppress(FileNotFoundError):
        place.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # the file is 0600 from the moment it exists
    try:
        listening.bind(str(place))
    finally:
        os.umask(before)
    listening.listen(1_024)
    config = uvicorn.Config(
        InboundDoor(ModelsDoor(McpDoor(api(app, stop), app, is_remote=False), app, is_remote=False), app), log_level="warning", access_log=False, lifespan="off",
        ws="none",  # nobody speaks it, and a command that serves itself would load it
        timeout_graceful_shutdown=STOP_S, http=_Peered,
    )  # fmt: skip
    try:
        remote = None if listener is None else listener.config(app, stop, STOP_S)
        async with anyio.create_task_group() as group:
            group.start_soon(_answer, config, listening, stop)
            if listener is not None and remote is not None:
                group.start_soon(_answer, remote, listener.socket, stop)
            started(place)
    finally:
        listening.close()
        with suppress(FileNotFoundError):
            place.unlink()


async def _answer(config: uvicorn.Config, listening: socket.socket, stop: anyio.Event) -> None:
    """Answer on one socket until `stop` is set."""
    server = _Server(config)

    async def end_on_stop() -> None:
        await stop.wait()
        server.should_exit = True

    async with anyio.create_task_group() as group:
        group.start_soon(end_on_stop)
        await server.serve([listening])
        group.cancel_scope.cancel()
