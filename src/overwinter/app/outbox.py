"""Model calls on their way into the audit log: in groups, a moment after they have ended, so that no call waits for a disk.

The ledger numbers the calls that end, in the commit that settles each; the log writes down how far it has them, in the commit of
their entries. Whatever dies in between, the next start goes on where the log ends.
"""

import logging
from collections.abc import Mapping

import anyio

from overwinter.adapters.models import ModelsFile
from overwinter.adapters.sqlite import AuditKeeping
from overwinter.errors import HomeError

__all__ = ["Outbox"]

GATHER_S = 0.05
"""How long calls that end are gathered for one commit."""
LOOK_S = 30.0
"""How often it looks by itself: what is put right later rings nobody."""
RETRY_S = 5.0
GROUP_MAX = 100
"""Entries in one commit: some 5 ms, for which others wait."""

_LOGGER = logging.getLogger(__name__)


class Outbox:
    """Appends model calls to the audit log."""

    def __init__(self, file: ModelsFile, keeping: AuditKeeping, owners: Mapping[str, str]) -> None:
        self._file, self._keeping, self._owners = file, keeping, owners
        self._rung = anyio.Event()
        self._upto: int | None = None

    def ring(self) -> None:
        """Say that a call has ended."""
        self._rung.set()

    async def empty(self) -> None:
        """Append what the log does not have yet.

        Raises:
            HomeError: the log takes nothing. What it lacks stays where it is.
        """
        while await self._append():
            pass

    async def run(self) -> None:
        """Append calls as they end, until cancelled."""
        while True:
            with anyio.move_on_after(LOOK_S):
                await self._rung.wait()
            self._rung = anyio.Event()
            await anyio.sleep(GATHER_S)
            try:
                # Whatever ended meanwhile has rung: a busy home would else write a few at a time, and never gather again.
                while await self._append() == GROUP_MAX:
                    pass
            except HomeError as error:
                _LOGGER.warning("model calls wait for the audit log: %s", error)
                await anyio.sleep(RETRY_S)
                self.ring()

    async def _append(self) -> int:
        """Append one group, and return how many calls it has."""
        if self._upto is None:
            self._upto = self._keeping.model_calls()
            self._file.forget_told(self._upto)
        told = self._file.told(self._upto, GROUP_MAX)
        if told:
            await self._keeping.add_model_calls(told, self._owners)
            self._upto = max(self._upto, told[-1][0])
            self._file.forget_told(self._upto)
        return len(told)
