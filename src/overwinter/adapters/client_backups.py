"""What an installation changed in files of others, kept so that it can be undone.

Each installation is a directory of the home, `installs/N`: the files as they were, and `record.json`, which is there before
the first of them is written. A file that is as the installation left it gets back its bytes. One that changed since is edited:
our entry goes, what was taken comes back, all else stays.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from overwinter.adapters.client_edits import with_server, without_server
from overwinter.errors import ConfigInvalid
from overwinter.frozen import frozen

__all__ = ["Change", "Undone", "apply", "undo"]

INSTALLS = "installs"
RECORD = "record.json"
INSTALLS_MAX = 10_000


@frozen
class Change:
    """One file, before and after."""

    path: Path
    """Of the file itself, behind any link."""
    before: str | None
    """None: there was no file."""
    after: str
    put: tuple[str, ...] = ()
    """Where our entry is in it; () if this file has none."""
    taken: tuple[tuple[str, ...], ...] = ()
    """Where the servers were that it has no more."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """What it refers to: path to text, each readable by its owner alone."""


@frozen
class Undone:
    """What became of one file."""

    path: str
    how: Literal["restored", "removed", "edited", "untouched", "left"]
    why: str = ""
    """If it was left as it is."""


def apply(home: Path, changes: Sequence[Change]) -> Path:
    """Keep the files as they are, then change them; return where they are kept.

    Raises:
        ConfigInvalid: one cannot be written, or is not what it was when the change was made; those before it are changed,
            and can be undone.
    """
    try:
        place = _new(home / INSTALLS)
        rows = list[Mapping[str, Any]]()
        for number, change in enumerate(changes):
            if change.before is not None:
                write(place / f"{number}.before", change.before, mode=0o600)
            rows.append(_row(change))
        write(place / RECORD, json.dumps(rows, indent=2) + "\n", mode=0o600)
        for change in changes:
            if _read(change.path) != change.before:
                raise ConfigInvalid(f"{change.path} changed while it was looked at: give the command again")
            for path, text in change.files.items():
                write(Path(path), text, mode=0o600)
            write(change.path, change.after)
    except OSError as error:
        raise ConfigInvalid(f"{error.filename or home} cannot be written: {error.strerror}") from error
    return place


def _row(change: Change) -> Mapping[str, Any]:
    return {
        "path": str(change.path), "put": change.put, "taken": change.taken, "files": list(change.files),
        "before": None if change.before is None else _digest(change.before), "after": _digest(change.after),
    }  # fmt: skip


def undo(home: Path, *, is_dry: bool = False) -> list[Undone]:
    """Take back every installation that is not taken back yet, the last one first; say what became of each file.

    Raises:
        ConfigInvalid: a record cannot be read.
    """
    done = list[Undone]()
    numbers = sorted((int(each.name) for each in (home / INSTALLS).glob("*") if each.name.isdigit()), reverse=True)
    for number in numbers:
        place = home / INSTALLS / str(number)
        try:
            rows = json.loads((place / RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise ConfigInvalid(f"{place / RECORD} cannot be read: {error}") from error
        these = [_undone(place, each, row, is_dry=is_dry) for each, row in reversed(list(enumerate(rows)))]
        done += these
        if not is_dry and all(each.how != "left" for each in these):
            (place / RECORD).rename(place / "undone.json")
    return done


def _undone(place: Path, number: int, row: Mapping[str, Any], *, is_dry: bool) -> Undone:
    path = Path(row["path"])
    try:
        present = _read(path)
        if present is None or _digest(present) == row["before"]:
            return Undone(path=str(path), how="untouched")
        earlier = _read(place / f"{number}.before")
        if _digest(present) != row["after"]:
            text = _edited(path, present, earlier or "", row)
            if not is_dry:
                write(path, text)
            return Undone(path=str(path), how="edited")
        if not is_dry:
            _restore(path, earlier, row["files"])
        return Undone(path=str(path), how="removed" if earlier is None else "restored")
    except (OSError, ValueError, ConfigInvalid) as error:
        kept = place / f"{number}.before"
        return Undone(path=str(path), how="left", why=f"{error}; as it was it is in {kept}")


def _edited(path: Path, present: str, earlier: str, row: Mapping[str, Any]) -> str:
    if not row["put"] and not row["taken"]:
        raise ConfigInvalid("it changed since")
    text = present
    if row["put"]:
        with suppress(ValueError):  # it is gone already
            text = without_server(path, text, row["put"])
    for where in reversed(row["taken"]):
        text = with_server(path, text, where, earlier)
    return text


def _restore(path: Path, earlier: str | None, files: Sequence[str]) -> None:
    if earlier is None:
        path.unlink()
    else:
        write(path, earlier)
    for each in files:
        Path(each).unlink(missing_ok=True)


def write(path: Path, text: str, *, mode: int | None = None) -> None:
    """Write a file whole or not at all, readable by its owner alone if it is new, else by whom it was."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        mode = stat.S_IMODE(path.stat().st_mode)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text.encode())
            os.fchmod(file.fileno(), 0o600 if mode is None else mode)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _read(path: Path) -> str | None:
    """Return a file's text to the byte: no mark of order is dropped, no end of line is changed."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None


def _new(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(1, INSTALLS_MAX):
        with suppress(FileExistsError):
            (directory / str(number)).mkdir(mode=0o700)
            return directory / str(number)
    raise ConfigInvalid(f"{directory} holds {INSTALLS_MAX} installations: remove those that are undone")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
