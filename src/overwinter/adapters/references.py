"""Secrets and settings by reference: `env:NAME` and `file:PATH` as whole values, `${NAME}` inside a text.

They are read when a connection is made and are held by it alone: never by a program, a journal or the configuration.
"""

import os
import re
from pathlib import Path

from overwinter.errors import ConfigInvalid

__all__ = ["expanded", "resolved"]

_VARIABLE = re.compile(r"\$\{(?:file:(?P<path>[^}]+)|(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?)\}")


def resolved(value: str, directory: Path, place: str) -> str:
    """Return what a value stands for: `env:NAME`, `file:PATH`, or a text with `${NAME}`, `${NAME:-default}`, `${file:PATH}`.

    Args:
        value: as it is written in `overwinter.toml`.
        directory: paths are relative to it.
        place: of the value, for words.

    Raises:
        ConfigInvalid: what it names is not there, or empty.
    """
    kind, _, rest = value.partition(":")
    if kind == "env":
        return _environment(rest, place)
    if kind == "file":
        return _file(rest, directory, place)
    return expanded(value, directory, place)


def expanded(text: str, directory: Path, place: str) -> str:
    """Return a text with its variables filled in.

    Raises:
        ConfigInvalid: one is not set and has no default.
    """

    def filled(found: re.Match[str]) -> str:
        if found["path"] is not None:
            return _file(found["path"], directory, place)
        if found["default"] is not None:
            return os.environ.get(found["name"]) or found["default"]
        return _environment(found["name"], place)

    return _VARIABLE.sub(filled, text)


def _environment(name: str, place: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ConfigInvalid(
            f"{place}: the environment variable {name} is not set, or empty: set it where overwinter starts"
        )
    return value


def _file(path: str, directory: Path, place: str) -> str:
    try:
        value = (directory / path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{place}: {path} cannot be read: {error}") from error
    if not value:
        raise ConfigInvalid(f"{place}: {path} is empty")
    return value
