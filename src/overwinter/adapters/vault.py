"""The vault of a home: secrets by name in one file, encrypted with age. `vault:NAME` in the configuration refers to them.

`vault.age` is encrypted to the identity in `keys/vault.key`, which is made with it. Whoever has both has the secrets: keep the
key out of the backups that hold the file, or give its path in $OVERWINTER_VAULT_KEY and keep it elsewhere. Both are ordinary
age files: `age -d -i .overwinter/keys/vault.key .overwinter/vault.age` prints the secrets without overwinter.
"""

import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from overwinter.adapters.key_files import write_private
from overwinter.errors import ConfigInvalid, HomeDamaged, HomeError, NotFound, UsageError

__all__ = ["Vault", "private_text"]

SECRET_BYTES_MAX = 1 << 16
SECRETS_MAX = 1_000
FRESH_NS = 100_000_000
"""Far more than the 1 to 10 ms in which a kernel writes one time of change for all files."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")


class Vault:
    """Secrets by name. Nothing is held in memory between two calls."""

    def __init__(self, home: Path) -> None:
        """Use the files of a home; they need not exist."""
        self.home = home
        self._place = home / "vault.age"
        self._key = Path(os.environ.get("OVERWINTER_VAULT_KEY") or home / "keys" / "vault.key")

    def read(self, name: str) -> str:
        """Return a secret.

        Raises:
            ConfigInvalid: there is none of that name.
            HomeDamaged: the file or its key cannot be read.
        """
        found = self.all().get(name)
        if found is None:
            raise ConfigInvalid(f"the vault has no secret {name!r}: overwinter secrets set {name}")
        return found

    def check(self) -> None:
        """Find out that secrets can be kept, before something is done that gives one.

        Raises:
            ConfigInvalid: the extra is not installed.
            HomeDamaged: the file or its key cannot be read.
        """
        _age()
        self.all()

    def names(self) -> Sequence[str]:
        """Return the names of all secrets, sorted.

        Raises:
            HomeDamaged: the file or its key cannot be read.
        """
        return sorted(self.all())

    def version(self) -> tuple[int, ...] | None:
        """Return what is another after each change of the file; None if nobody can tell at this moment.

        A change makes a new file. One of the last moments may have the times, and even the number, of the one before it.
        """
        try:
            found = self._place.stat()
        except OSError:
            return None
        if time.time_ns() - found.st_mtime_ns < FRESH_NS:
            return None
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def put(self, name: str, secret: str) -> None:
        """Keep a secret, in the place of the one that had its name.

        Raises:
            UsageError: the name or the secret is none.
            HomeDamaged: the file or its key cannot be read.
            HomeError: it cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name: letters, digits, _, . and -, at most 100")
        if not secret or len(secret.encode()) > SECRET_BYTES_MAX:
            raise UsageError(f"a secret has 1 to {SECRET_BYTES_MAX} bytes")
        with self._alone():
            secrets = {**self.all(), name: secret}
            if len(secrets) > SECRETS_MAX:
                raise UsageError(f"a vault has at most {SECRETS_MAX} secrets: remove some")
            self._write(secrets)

    def remove(self, name: str) -> None:
        """Forget a secret.

        Raises:
            NotFound: there is none of that name.
            HomeDamaged: the file or its key cannot be read.
            HomeError: it cannot be written.
        """
        with self._alone():
            secrets = dict(self.all())
            if secrets.pop(name, None) is None:
                raise NotFound(f"the vault has no secret {name!r}: overwinter secrets list")
            self._write(secrets)

    def all(self) -> Mapping[str, str]:
        """Return every secret by its name.

        Raises:
            HomeDamaged: the file or its key cannot be read.
        """
        if not self._place.exists():
            return {}
        age = _age()
        try:
            return json.loads(age.decrypt(self._place.read_bytes(), [self._identity(age)]))
        except (age.DecryptError, OSError, ValueError) as error:
            raise HomeDamaged(
                f"{self._place} cannot be read with {self._key}: restore both from a backup, or remove it and set its secrets again"
            ) from error

    def _write(self, secrets: Mapping[str, str]) -> None:
        age = _age()
        if not self._key.exists():
            if self._place.exists():
                raise HomeDamaged(
                    f"{self._key} is missing, and {self._place} is encrypted to it: restore it from a backup"
                )
            _written(self._key, f"{age.x25519.Identity.generate()}\n".encode())
        body = json.dumps(secrets, ensure_ascii=False, sort_keys=True).encode()
        _written(self._place, age.encrypt(body, [self._identity(age).to_public()]))

    def _identity(self, age: Any) -> Any:
        try:
            lines = private_text(self._key).splitlines()
            return age.x25519.Identity.from_str(next(line for line in lines if line.startswith("AGE-SECRET-KEY-")))
        except (ConfigInvalid, OSError, StopIteration, age.IdentityError) as error:
            why = error if isinstance(error, ConfigInvalid) else f"{self._key} cannot be read as an age identity"
            raise HomeDamaged(f"{why}; the secrets in {self._place} are encrypted to it") from error

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Let two commands write one after the other. The lock of the home is another: a server may run."""
        try:
            self._key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise HomeError(f"{self.home} cannot be used as a home: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def private_text(place: Path) -> str:
    """Return a text that its owner alone can read.

    Raises:
        ConfigInvalid: others can.
        OSError: it cannot be read.
        UnicodeDecodeError: it is no text.
    """
    with place.open(encoding="utf-8") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise ConfigInvalid(f"{place} can be read by others (mode {mode:04o}): chmod 600 {place}")
        return file.read()


def _age() -> Any:
    try:
        import pyrage  # noqa: PLC0415 - an extra # pyright: ignore[reportMissingTypeStubs] - it has none
    except ImportError as error:
        raise ConfigInvalid("the vault is not installed: pip install 'overwinter[vault]'") from error
    return pyrage


def _written(place: Path, body: bytes) -> None:
    """Write a file of the vault.

    Raises:
        HomeError: it cannot be written.
    """
    try:
        write_private(place, body)
    except OSError as error:
        raise HomeError(f"{place} cannot be written: {error.strerror}") from error
