"""A home: the directory that holds the store, the keys, the lock and the socket of one overwinter."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from overwinter.adapters.key_files import key_in, make_key
from overwinter.errors import HomeDamaged, HomeError, HomeFull, HomeHeld
from overwinter.frozen import frozen

__all__ = ["CONFIG_NAME", "Home", "config_path", "holder", "is_home", "open_home", "socket_path"]

CONFIG_NAME = "overwinter.toml"
SOCKET_NAME = "overwinter.sock"
SOCKET_BYTES_MAX = 107
"""Longest path of a unix socket (unix(7): sun_path has 108 bytes with its end)."""


@frozen
class Home:
    """An open home, held by this process alone."""

    path: Path
    key: bytes
    """Authenticates snapshots."""

    @property
    def database_path(self) -> Path:
        """Return the store's file."""
        return self.path / "store.db"

    @property
    def catalog_path(self) -> Path:
        """Return the catalog's file."""
        return self.path / "catalog.db"

    @property
    def models_path(self) -> Path:
        """Return the file of budgets, model calls and kept answers."""
        return self.path / "models.db"

    @property
    def config_path(self) -> Path:
        """Return where the configuration is, or would be."""
        return config_path(self.path)


def is_home(path: Path) -> bool:
    """Whether somebody has opened a home there: a directory is none yet.

    Raises:
        HomeError: it is another user's.
    """
    try:
        os.lstat(path / "lock")
    except PermissionError as error:
        raise HomeError(f"{path} cannot be looked into: {error.strerror}; it is another user's") from error
    except OSError:
        return False
    return True


def config_path(home: Path) -> Path:
    """Return the `overwinter.toml` of a home: beside the directory, or in it."""
    beside, inside = home.absolute().parent / CONFIG_NAME, home.absolute() / CONFIG_NAME
    return inside if os.path.exists(inside) and not os.path.exists(beside) else beside  # noqa: PTH110 - no error where it is denied


def socket_path(home: Path) -> Path:
    """Return where the home's socket is, by a path short enough for the kernel.

    Raises:
        HomeError: if no spelling of it is.
    """
    full = home.absolute() / SOCKET_NAME
    for path in (full, Path(os.path.relpath(full))):
        if len(os.fsencode(path)) <= SOCKET_BYTES_MAX:
            return path
    raise HomeError(f"{full} is too long for a socket ({SOCKET_BYTES_MAX} bytes): put the home nearer to the root")


@contextmanager
def open_home(path: Path) -> Generator[Home]:
    """Hold a home until the block is left, making it if it does not exist.

    Raises:
        HomeHeld: another process holds it.
        HomeDamaged: its key is missing, short, or open to others.
        HomeError: it cannot be made or written.
    """
    with _said(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (path / "keys").mkdir(mode=0o700, exist_ok=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = holder(path) or "unknown"
            raise HomeHeld(
                f"{path} is held by process {pid}: talk to it at {path / SOCKET_NAME}, or stop it"
            ) from error
        with _said(path):
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            key = _key(path)
        yield Home(path=path, key=key)
    finally:
        os.close(lock)


def holder(path: Path) -> int | None:
    """Return the pid of the process that holds a home, as it wrote it down."""
    try:
        return int((path / "lock").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _key(path: Path) -> bytes:
    place = path / "keys" / "snapshot.key"
    if not place.exists():
        if (path / "store.db").exists():
            raise HomeDamaged(
                f"{place} is missing, and the runs in {path / 'store.db'} are sealed with it: restore it from a backup"
            )
        make_key(place)
    return key_in(place)


@contextmanager
def _said(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise HomeFull(f"no space is left for {path}: free some") from error
        raise HomeError(f"{path} cannot be used as a home: {error.strerror or error}") from error
