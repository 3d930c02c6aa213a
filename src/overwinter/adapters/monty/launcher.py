"""The program that starts a worker: a line of shell that passes the interpreter through the jail."""

import fcntl
import os
import shlex
import shutil
import stat
import sys
import sysconfig
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from overwinter.adapters.monty import jail as jail_program
from overwinter.adapters.monty.posture import JailSettings, jail_words
from overwinter.errors import JailUnavailable

__all__ = ["monty_binary", "open_launcher"]

PREFIX = "overwinter-jail-"
ABANDONED_S_MIN = 60.0
"""Younger directories are left alone: their makers may be about to lock them."""


@contextmanager
def open_launcher(jail: JailSettings, binary: Path | None = None) -> Generator[str]:
    """Yield the path of the program that starts a jailed worker; it is made for this process and goes with the block.

    Args:
        jail: layers that may be missing, or no jail at all.
        binary: the interpreter's program; None: the installed one.

    Raises:
        JailUnavailable: the interpreter's program is not installed, or nothing may be started from the temporary directory.
    """
    binary = binary or monty_binary()
    if jail.is_off:
        yield str(binary)
        return
    # The pool takes one path and no arguments; a directory of our own keeps others from putting a program there.
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name, _held(Path(name)) as place:
        _sweep(place.parent)
        yield str(_written(place, _reachable(binary, place), jail))


def monty_binary() -> Path:
    """Return where the interpreter's program is: beside python, else on the path.

    Raises:
        JailUnavailable: it is not installed.
    """
    beside = Path(sysconfig.get_path("scripts")) / "monty"
    found = str(beside) if beside.exists() else shutil.which("monty")
    if found is None:
        raise JailUnavailable("the program `monty` is not installed beside python: pip install pydantic-monty==1.4.0")
    return Path(found).resolve()


@contextmanager
def _held(place: Path) -> Generator[Path]:
    """Lock a directory for as long as this process lives, however it ends."""
    file = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield place
    finally:
        os.close(file)


def _sweep(parent: Path) -> None:
    """Remove the directories of hosts that were killed: old ones of ours that nobody holds."""
    for place in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            seen = place.stat()
            if seen.st_uid != os.geteuid() or time.time() - seen.st_mtime < ABANDONED_S_MIN:
                continue
            file = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place)
            finally:
                os.close(file)


def _reachable(binary: Path, place: Path) -> Path:
    """Return the binary, or a copy of it where its own mode keeps the jail's unprivileged identity out.

    Closed directories above it do not matter: the jail opens it before it gives up its identity.
    """
    others = stat.S_IROTH | stat.S_IXOTH
    if os.geteuid() != 0 or binary.stat().st_mode & others == others:
        return binary
    copy = place / binary.name
    shutil.copyfile(binary, copy)
    copy.chmod(0o755)
    return copy


def _written(place: Path, binary: Path, jail: JailSettings) -> Path:
    words = [sys.executable, "-IS", jail_program.__file__, "--parent", str(os.getpid()), *jail_words(jail)]
    launcher = place / "worker"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join([*words, "--", str(binary)])} "$@"\n', encoding="utf-8")
    launcher.chmod(0o700)
    if not os.access(launcher, os.X_OK):  # false on a file system mounted noexec
        raise JailUnavailable(f"no program may be started from {place.parent}: set TMPDIR to a directory where it may")
    return launcher
