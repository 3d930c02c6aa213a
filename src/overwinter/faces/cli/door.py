"""How a command reaches a home: over its socket if somebody holds it, else by holding it for as long as the command runs.

Both ways speak the same HTTP API: a command that opens the home itself serves it to itself. So there is one path to test.
"""

import os
import socket
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from overwinter.errors import OverwinterError

if TYPE_CHECKING:
    from overwinter.faces.client import Client

__all__ = ["home_path", "is_served", "open_door", "served_socket"]

START_S_MAX = 30.0


def home_path(given: Path | None) -> Path:
    """Return the home that a command means: `--home`, `$OVERWINTER_HOME`, or `.overwinter` here."""
    return given or Path(os.environ.get("OVERWINTER_HOME") or ".overwinter")


def served_socket(home: Path) -> Path:
    """Return the socket's path; the home need not exist."""
    full = home.absolute() / "overwinter.sock"
    return min((full, Path(os.path.relpath(full))), key=lambda path: len(os.fsencode(path)))


def is_served(home: Path) -> bool:
    """Whether a server answers on the home's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(served_socket(home)))
        except OSError:
            return False
        return True


@contextmanager
def open_door(home: Path, *, is_worker: bool = False) -> "Generator[Client]":
    """Yield a client of the home.

    Args:
        home: the directory.
        is_worker: if nobody holds the home, run its programs too, for as long as the block lasts.

    Raises:
        HomeError: it cannot be opened.
        ConfigInvalid: its `overwinter.toml` is wrong.
    """
    from overwinter.faces.client import Client  # noqa: PLC0415 - `--version` and `--help` need no HTTP

    if is_served(home):
        with closing(Client(served_socket(home))) as client:
            yield client
        return
    own = _OwnServer(home, is_worker=is_worker)
    own.start()
    try:
        with closing(Client(served_socket(home))) as client:
            yield client
    finally:
        own.stop()


class _OwnServer:
    """The home's server in a thread of this command."""

    def __init__(self, home: Path, *, is_worker: bool) -> None:
        self._home, self._is_worker = home, is_worker
        self._started = threading.Event()
        self._stop = lambda: None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="overwinter-own-server", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._started.wait(START_S_MAX):
            raise OverwinterError(f"the home {self._home} did not open within {START_S_MAX:g} s")
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self._stop()
        self._thread.join(START_S_MAX)

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - it is raised in the command's own thread
            self._error = error
        finally:
            self._started.set()

    def _serve(self) -> None:
        import anyio  # noqa: PLC0415 - commands that reach a server do not pay for what runs one

        from overwinter.app import App  # noqa: PLC0415 - the same
        from overwinter.faces.server import serve  # noqa: PLC0415 - the same

        async def work() -> None:
            stop = anyio.Event()
            loop = anyio.lowlevel.current_token()

            def stop_from_outside() -> None:
                with suppress(RuntimeError):  # it has ended by itself
                    anyio.from_thread.run_sync(stop.set, token=loop)

            self._stop = stop_from_outside
            async with App.open(self._home, is_worker=self._is_worker) as app:
                await serve(app, self._home, lambda _: self._started.set(), stop)

        anyio.run(work)
