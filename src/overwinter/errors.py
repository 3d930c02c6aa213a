"""The error tree: what can go wrong in operation, and what to do about it.

Three kinds are never mixed. *Expected* outcomes (denied, blocked, timed out, not
found) are returned values. *Operating* errors (store, home, bad input) are the
classes below. *Our bugs* are assertions.

    OverwinterError
    ├── UsageError            the request cannot be carried out as written
    │   ├── ConfigInvalid     overwinter.toml: line, key, remedy
    │   ├── CheckFailed       the program was refused before anything ran
    │   ├── NotFound          no such run, question or agent
    │   ├── Conflict          the state of the thing forbids it (already answered, already ended)
    │   │   └── Revoked       its agent may not act any more
    │   ├── Denied            this person may not do it
    │   └── TokenRefused      no API token came along, or one that does not count
    ├── HomeError             the home cannot be opened
    │   ├── HomeHeld          another process holds it
    │   ├── HomeTooNew        written by a newer version
    │   ├── HomeDamaged       the database or a key is damaged or missing
    │   └── HomeFull          no space is left on the disk
    ├── SnapshotRefused       authentication failed: altered, swapped, stale or sealed with another key
    ├── ProgramOutdated       what a sleeping program calls has changed, and the rest of it does not fit
    ├── WakeDenied            the rules do not let the run go on
    ├── WorkerCrashed         an interpreter worker died under a turn
    ├── JailUnavailable       a layer of the worker's jail cannot be had
    └── ServerUnreachable     nothing answers on the home's socket
"""

from collections.abc import Sequence
from typing import ClassVar, Protocol

__all__ = [
    "CheckFailed",
    "ConfigInvalid",
    "Conflict",
    "Denied",
    "Finding",
    "HomeDamaged",
    "HomeError",
    "HomeFull",
    "HomeHeld",
    "HomeTooNew",
    "JailUnavailable",
    "NotFound",
    "OverwinterError",
    "ProgramOutdated",
    "Revoked",
    "ServerUnreachable",
    "SnapshotRefused",
    "TokenRefused",
    "UsageError",
    "WakeDenied",
    "WorkerCrashed",
    "first_of",
]


class OverwinterError(Exception):
    """Something in operation failed. The message names the value and the remedy."""

    exit_code: ClassVar[int] = 1
    """What the command line exits with; the table is in docs/errors.md."""


class UsageError(OverwinterError):
    """The request cannot be carried out as written. Retry only after changing it."""

    exit_code = 2


class ConfigInvalid(UsageError):
    """`overwinter.toml` cannot be used. The message names file, line and key."""


class Finding(Protocol):
    """One reason why a program was refused; the value is `check.Finding`."""

    @property
    def line(self) -> int:
        """Line in the program, from 1."""
        ...

    @property
    def rule(self) -> str:
        """Short name of the rule; `uncheckable`: nothing is known of the program."""
        ...

    @property
    def message(self) -> str:
        """What is wrong and what to do instead."""
        ...


class CheckFailed(UsageError):
    """The program was refused before anything of it ran. Mend the lines named and send it again."""

    exit_code = 3

    def __init__(self, findings: Sequence[Finding], text: str) -> None:
        super().__init__(text)
        self.findings = tuple(findings)


class ProgramOutdated(OverwinterError):
    """What a program speaks of changed while it slept, and what is left of it does not fit. A person must look.

    Take the change back, or cancel the run and start a mended program.
    """


class WakeDenied(OverwinterError):
    """No rule lets the agent's run go on, or one forbids it. A person must look: change the rules and release it."""


class NotFound(UsageError):
    """No run, question or agent has this name."""

    exit_code = 4


class Conflict(UsageError):
    """The state of the thing forbids the request: already answered, already ended. Never retry."""

    exit_code = 5


class Revoked(Conflict):
    """The agent was revoked. Never retry: a person may restore it."""

    exit_code = 6


class Denied(UsageError):
    """This person may not do it. Never retry: ask somebody who may."""

    exit_code = 7


class TokenRefused(UsageError):
    """No API token came along, or one that is unknown, expired or revoked. Never retry with the same."""

    exit_code = 8


class HomeError(OverwinterError):
    """The home cannot be opened or written."""

    exit_code = 10


class HomeHeld(HomeError):
    """Another process holds the home. Talk to it over its socket, or stop it."""

    exit_code = 11


class HomeTooNew(HomeError):
    """The home was written by a newer version. Install that version; nothing was changed."""

    exit_code = 12


class HomeDamaged(HomeError):
    """The database or a key is damaged or missing. Restore it from a backup; nothing was changed."""

    exit_code = 13


class HomeFull(HomeError):
    """The disk is full. Free space; nothing acknowledged is lost and the request may be repeated."""

    exit_code = 14


class SnapshotRefused(OverwinterError):
    """A snapshot failed its authentication. Never retry: rebuild the run from its journal, or stop it."""


class WorkerCrashed(OverwinterError):
    """An interpreter worker died under a turn. The turn may be tried again from its snapshot."""

    def __init__(self, message: str, *, has_timed_out: bool = False) -> None:
        super().__init__(message)
        self.has_timed_out = has_timed_out


class JailUnavailable(OverwinterError):
    """A layer of the worker's jail cannot be had on this machine. Grant it, or accept the gap by name."""

    exit_code = 15


class ServerUnreachable(OverwinterError):
    """Nothing answers on the home's socket. Start `overwinter serve`, or retry."""

    exit_code = 16


def first_of(errors: BaseExceptionGroup[OverwinterError]) -> BaseException:
    """Return one error out of the wrapping of task groups."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
