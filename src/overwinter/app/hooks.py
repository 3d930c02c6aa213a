"""Addresses at which others tell runs something. Nothing of them is stored: only this home can make the code in one."""

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["BURST_MAX", "PACE_S", "Hooks"]

DIGITS = 40
"""160 bits of a code that opens a run's mailbox."""
BURST_MAX = 100
"""Messages at once at one address; then one each `PACE_S`. A service that has been down sends what it kept."""
PACE_S = 0.1
ADDRESSES_MAX = 4_096
"""Of which it is remembered when they were used; only right codes count."""


class Hooks:
    """The addresses of a home's runs."""

    def __init__(self, key: bytes, now_s: Callable[[], float] = time.monotonic) -> None:
        self._key, self._now_s = key, now_s
        self._free_at = OrderedDict[str, float]()
        """When an address has made up for what it was told."""

    def path(self, run_id: str) -> str:
        """Return the path of a run."""
        return f"/in/{run_id}.{self._code(run_id)}"

    def run_of(self, code: str) -> str | None:
        """Return the run that such a path leads to; None: it was not made here. It looks up nothing, so its time does not tell which runs there are."""
        run_id, _, given = code.partition(".")
        return run_id if hmac.compare_digest(given.encode(), self._code(run_id).encode()) else None

    def wait_s(self, run_id: str) -> float:
        """Count a message to a run; if it comes too early, count none and return how long it must wait."""
        now_s = self._now_s()
        free_at = max(self._free_at.pop(run_id, 0.0), now_s)
        wait_s = max(0.0, free_at - now_s - (BURST_MAX - 1) * PACE_S)
        self._free_at[run_id] = free_at if wait_s else free_at + PACE_S
        while len(self._free_at) > ADDRESSES_MAX:
            self._free_at.popitem(last=False)
        return wait_s

    def _code(self, run_id: str) -> str:
        return hmac.new(self._key, b"hook\0" + run_id.encode(), "sha256").hexdigest()[:DIGITS]
