"""Addresses at which others tell runs something. Nothing of them is stored: only this home can make the code in one."""

import hmac

__all__ = ["Hooks"]

DIGITS = 40
"""160 bits of a code that opens a run's mailbox."""


class Hooks:
    """The addresses of a home's runs."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def path(self, run_id: str) -> str:
        """Return the path of a run."""
        return f"/in/{run_id}.{self._code(run_id)}"

    def run_of(self, code: str) -> str | None:
        """Return the run that such a path leads to; None: it was not made here. Takes as long whether or not there is a run."""
        run_id, _, given = code.partition(".")
        return run_id if hmac.compare_digest(given.encode(), self._code(run_id).encode()) else None

    def _code(self, run_id: str) -> str:
        return hmac.new(self._key, b"hook\0" + run_id.encode(), "sha256").hexdigest()[:DIGITS]
