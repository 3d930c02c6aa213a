"""How a command reaches a home: over its socket if somebody holds it, else by holding it for as long as the command runs.

Both ways speak the same HTTP API: a command that opens the home itself serves it to itself. So there is one path to test.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from overwinter.errors import HomeHeld, NotFound, OverwinterError, UsageError
from overwinter.faces.cli.progress import progress

if TYPE_CHECKING:
    from overwinter.faces.client import Client

__all__ = ["home_path", "is_attended", "is_served", "open_door", "served_socket"]

START_S_MAX = 90.0
"""How long a home may take to open after it began its last import. A source may take 60 s, an MCP server 30 s."""
STOP_S_MAX = 30.0
"""Calls in flight may take 10 s to end, open requests 5 s."""
HELD_S_MAX = 20.0
"""How long a home may be held by a process that does not answer, before the command gives up."""
HELD_PAUSE_S = 0.05


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
def open_door(
    home: Path, *, is_worker: bool = False, is_json: bool = False, makes: bool = False
) -> "Generator[Client]":
    """Yield a client of the home, which finds the home's next holder if the present one goes away.

    With `$OVERWINTER_URL`, which `--url` sets, it is the home there, and none here is touched.

    Args:
        home: the directory.
        is_worker: if nobody holds the home, run its programs too, for as long as the block lasts.
        is_json: a machine reads: no line on the terminal while a home that nobody holds imports what is new.
        makes: make a home where there is none; else only beside an `overwinter.toml`, for a slip in a path must not make one.

    Raises:
        NotFound: there is none.
        HomeError: it cannot be opened.
        ConfigInvalid: its `overwinter.toml` is wrong.
    """
    from overwinter.adapters.home import config_path, is_home  # noqa: PLC0415 - `--version` and `--help` need no home
    from overwinter.faces.client import Client, remote  # noqa: PLC0415 - nor HTTP

    if url := os.environ.get("OVERWINTER_URL"):
        with closing(Client(remote(url, _token()))) as client:
            yield client
        return
    if not (makes or is_home(home) or (place := config_path(home)).exists()):
        raise NotFound(
            f"there is no home {home}, and no {place.name} in {place.parent}: `overwinter init` there begins one"
        )
    door = _Door(home, is_worker=is_worker, is_json=is_json)
    try:
        with closing(Client(door.reach(), door.reach)) as client:
            yield client
    finally:
        door.close()


def is_attended(home: Path) -> bool:
    """Return whether somebody else works on the runs of a home."""
    return bool(os.environ.get("OVERWINTER_URL")) or is_served(home)


def _token() -> str:
    """Return the API token: what `$OVERWINTER_TOKEN` refers to by `env:NAME` or `file:PATH`, as `--token` has it, or holds.

    Raises:
        UsageError: the file cannot be read.
    """
    given = os.environ.get("OVERWINTER_TOKEN", "")
    kind, _, name = given.partition(":")
    if kind == "env":
        return os.environ.get(name, "")
    if kind != "file":
        return given
    try:
        return Path(name).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"there is no token to be read in {name}: {error}") from error


class _Door:
    """The way to one home for one command."""

    def __init__(self, home: Path, *, is_worker: bool, is_json: bool) -> None:
        self._home, self._is_worker, self._is_json = home, is_worker, is_json
        self._own: _OwnServer | None = None
        self._lock = threading.Lock()

    def reach(self) -> Path:
        """Return a socket on which the home answers, after opening the home if nobody holds it. Several threads may ask at once.

        A holder that does not answer is one that starts or stops, as a rule another command: it is waited for.

        Raises:
            HomeHeld: it has not answered for `HELD_S_MAX`.
        """
        with self._lock:
            if self._own is None or not is_served(self._home):
                self._open()
            return served_socket(self._home)

    def _open(self) -> None:
        self.close()
        deadline = time.monotonic() + HELD_S_MAX
        pause_s = HELD_PAUSE_S
        while not is_served(self._home):
            own = _OwnServer(self._home, is_worker=self._is_worker)
            try:
                with progress(is_quiet=self._is_json) as importing:
                    own.start(importing)
            except HomeHeld:
                if time.monotonic() > deadline:
                    raise
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 0.5)
            else:
                self._own = own
                break

    def close(self) -> None:
        """Stop the own server, if there is one.

        Raises:
            OverwinterError: the one that it ended with, if it ended by itself.
        """
        own, self._own = self._own, None
        if own is not None:
            own.stop()


class _OwnServer:
    """The home's server in a thread of this command."""

    def __init__(self, home: Path, *, is_worker: bool) -> None:
        self._home, self._is_worker = home, is_worker
        self._started = threading.Event()
        self._stop = lambda: None
        self._error: BaseException | None = None
        self._importing: Callable[[str], None] | None = None
        self._moved_at = 0.0
        self._thread = threading.Thread(target=self._run, name="overwinter-own-server", daemon=True)

    def start(self, importing: Callable[[str], None]) -> None:
        def told(name: str) -> None:
            self._moved_at = time.monotonic()
            importing(name)

        self._importing, self._moved_at = told, time.monotonic()
        self._thread.start()
        while not self._started.wait(max(0.0, self._moved_at + START_S_MAX - time.monotonic())):
            if time.monotonic() - self._moved_at >= START_S_MAX:
                raise OverwinterError(f"the home {self._home} did not open within {START_S_MAX:g} s")
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self._stop()
        self._thread.join(STOP_S_MAX)
        if isinstance(self._error, OverwinterError):
            raise self._error

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
            async with App.open(self._home, is_worker=self._is_worker, importing=self._importing) as app:
                await serve(app, self._home, lambda _: self._started.set(), stop)

        anyio.run(work)
