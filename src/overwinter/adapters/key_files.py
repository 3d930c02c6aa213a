"""Secret keys as files, and what else is written whole or not at all, for its owner alone to read."""

import os
import secrets
import stat
from pathlib import Path

from overwinter.errors import HomeDamaged

__all__ = ["KEY_FILE_BYTES", "key_in", "make_key", "write_private"]

KEY_FILE_BYTES = 32


def make_key(place: Path) -> None:
    """Write a new random key so that a crash leaves either none or a whole one."""
    write_private(place, secrets.token_bytes(KEY_FILE_BYTES))


def write_private(place: Path, body: bytes) -> None:
    """Write a file of its owner's so that a crash leaves the old one or the new one, whole."""
    draft = place.with_name(f"{place.name}.new")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as writing:
        writing.write(body)
        writing.flush()
        os.fsync(file)
    draft.rename(place)
    directory = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def key_in(place: Path) -> bytes:
    """Return the key of a file.

    Raises:
        HomeDamaged: others can read it, or it is not whole.
    """
    mode = stat.S_IMODE(place.stat().st_mode)
    if mode & 0o077:
        raise HomeDamaged(f"{place} can be read by others (mode {mode:04o}): chmod 600 it, if nobody has copied it")
    key = place.read_bytes()
    if len(key) != KEY_FILE_BYTES:
        raise HomeDamaged(f"{place} has {len(key)} bytes, a key has {KEY_FILE_BYTES}: restore it from a backup")
    return key
