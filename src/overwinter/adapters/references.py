"""Secrets and settings by reference, as whole values or, the first two kinds, inside a text.

| whole | inside | what it is |
|---|---|---|
| `env:NAME` | `${NAME}`, `${NAME:-default}` | a variable of the process |
| `file:PATH` | `${file:PATH}` | a file that its owner alone can read |
| `keyring:SERVICE/NAME` | | a password in the keyring of the desktop |
| `vault:NAME` | | a secret in the home's own vault |

They are read when a connection is made and are held by it alone: never by a program, a journal or the configuration.
"""

import os
import re
from pathlib import Path

from overwinter.adapters.vault import Vault, private_text
from overwinter.config import is_secret
from overwinter.errors import ConfigInvalid

__all__ = ["References"]

_VARIABLE = re.compile(r"\$\{(?:file:(?P<path>[^}]+)|(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?)\}")


class References:
    """Reads what the values of one connection stand for, and knows afterwards which of them were secrets."""

    def __init__(self, directory: Path, vault: Vault) -> None:
        """Read paths relative to a directory."""
        self._directory, self._vault = directory, vault
        self.secrets: set[str] = set()
        """What was read so far and is hidden in answers: whole references that are no path of this machine, and inside a
        text the files, and the variables that are called like secrets."""

    def whole(self, value: str, place: str, *, name: str = "") -> str:
        """Return what a value stands for: a whole reference, or a text with some inside.

        Args:
            value: as it is written in `overwinter.toml`.
            place: of the value, for words.
            name: of the header or variable that gets it.

        Raises:
            ConfigInvalid: what it names is not there, or empty.
        """
        kind, _, rest = value.partition(":")
        if kind == "env":
            found = _environment(rest, place)
            if is_secret(name) or is_secret(rest) or not _is_path(found):
                self.secrets.add(found)
            return found
        if kind == "file":
            return self._secret(_file(rest, self._directory, place))
        if kind == "keyring":
            return self._secret(_keyring(rest, place))
        if kind == "vault":
            return self._secret(self._vault.read(rest))
        return self.text(value, place, name=name)

    def text(self, text: str, place: str, *, name: str = "") -> str:
        """Return a text with its variables filled in.

        Raises:
            ConfigInvalid: one is not set and has no default.
        """

        def filled(found: re.Match[str]) -> str:
            if found["path"] is not None:
                return self._secret(_file(found["path"], self._directory, place))
            default = found["default"]
            value = _environment(found["name"], place) if default is None else os.environ.get(found["name"]) or default
            return self._secret(value) if is_secret(name) or is_secret(found["name"]) else value

        return _VARIABLE.sub(filled, text)

    def _secret(self, value: str) -> str:
        self.secrets.add(value)
        return value


def _environment(name: str, place: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ConfigInvalid(
            f"{place}: the environment variable {name} is not set, or empty: set it where overwinter starts"
        )
    return value


def _file(path: str, directory: Path, place: str) -> str:
    try:
        value = private_text(directory / path).strip()
    except ConfigInvalid as error:
        raise ConfigInvalid(f"{place}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{place}: {path} cannot be read: {error}") from error
    if not value:
        raise ConfigInvalid(f"{place}: {path} is empty")
    return value


def _keyring(entry: str, place: str) -> str:
    service, _, name = entry.rpartition("/")
    try:
        import keyring  # noqa: PLC0415 - an extra
        from keyring.errors import KeyringError  # noqa: PLC0415 - the same
    except ImportError as error:
        raise ConfigInvalid(f"{place}: the keyring is not installed: pip install 'overwinter[keyring]'") from error
    try:
        value = keyring.get_password(service, name)
    except KeyringError as error:
        raise ConfigInvalid(
            f"{place}: the keyring does not answer: {error or type(error).__name__}; use vault:NAME where there is none"
        ) from error
    if not value:
        raise ConfigInvalid(f"{place}: the keyring has no password {entry}: keyring set {service} {name}")
    return value


def _is_path(value: str) -> bool:
    """Return whether a value is a place on this machine: hidden in the answers of a file server, nothing could be read."""
    try:
        return Path(value).is_absolute() and Path(value).exists()
    except (OSError, ValueError):
        return False
