"""The Registry contract on SQLite: agents, in the store's file and its commits."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import apsw

from overwinter.adapters.sqlite import agents, audited, grants
from overwinter.adapters.sqlite.schema import guarded
from overwinter.adapters.sqlite.writer import Writer, Wrote
from overwinter.audit import Kind
from overwinter.clock import Clock
from overwinter.grant import Granted
from overwinter.identity import Identity

__all__ = ["SqliteRegistry"]

BY, BELOW = "overwinter", "it was declared below a revoked agent"


class SqliteRegistry:
    """See `registry.Registry`."""

    def __init__(self, path: Path, writer: Writer, reading: apsw.Connection, clock: Clock) -> None:
        self._path, self._writer, self._reading, self._clock = path, writer, reading, clock

    async def enrol(self, identities: Sequence[Identity]) -> None:
        """Write agents down."""

        def act(db: apsw.Connection) -> Wrote[None]:
            agents.enrol(db, identities)
            fallen = agents.fell(db, BY, BELOW, self._clock.now_us())
            return Wrote(None, audited=[audited.change("revoke", each, BY, BELOW) for each in fallen])

        await self._writer.submit(act)

    def is_active(self, agent: str) -> bool:
        """Whether an agent may act at this moment; one that nobody wrote down may not."""
        with guarded(self._path):
            return agents.is_active(self._reading, agent)

    async def identities(self) -> Sequence[Identity]:
        """Return every agent, by name."""
        with guarded(self._path):
            return agents.identities(self._reading)

    async def revoke(self, agent: str, *, by: str, reason: str = "") -> Sequence[Identity]:
        """Revoke an agent and all below it, in one commit."""

        def act(db: apsw.Connection) -> Wrote[Sequence[Identity]]:
            revoked = agents.revoke(db, agent, by, reason, self._clock.now_us())
            entries = [audited.change("revoke", each, by, reason) for each in revoked]
            return Wrote(revoked, is_revoked=True, audited=entries)

        return await self._writer.submit_first(act)

    async def restore(self, agent: str, *, by: str, reason: str = "", has_runs: bool = False) -> Identity | None:
        """Make a revoked agent active in a new epoch."""

        def act(db: apsw.Connection) -> Wrote[Identity | None]:
            restored = agents.restore(db, agent, by, reason, self._clock.now_us(), has_runs=has_runs)
            entries = [] if restored is None else [audited.change("restore", restored, by, reason)]
            return Wrote(restored, audited=entries)

        return await self._writer.submit(act)

    async def grant(self, given: Granted) -> Granted | None:
        """Write a grant down and return it with its id."""

        def act(db: apsw.Connection) -> Wrote[Granted | None]:
            made = grants.put(db, replace(given, made_us=self._clock.now_us()))
            entries = (
                [] if made is None else [audited.granted("grant", made, agents.epoch(db, made.agent), made.by, "")]
            )
            return Wrote(made, audited=entries)

        return await self._writer.submit(act)

    async def withdraw(self, grant: str, *, by: str, reason: str = "") -> Granted | None:
        """Take a grant away, and return it."""

        def act(db: apsw.Connection) -> Wrote[Granted | None]:
            gone = grants.remove(db, grant)
            entries = (
                [] if gone is None else [audited.granted("revoke", gone, agents.epoch(db, gone.agent), by, reason)]
            )
            return Wrote(gone, audited=entries)

        return await self._writer.submit_first(act)

    async def grants(self) -> Sequence[Granted]:
        """Return every grant, the oldest first."""
        with guarded(self._path):
            return grants.grants(self._reading)

    async def reloaded(self, before: str, after: str, *, by: str, changed: Sequence[str]) -> None:
        """Write down that a person had the rules read anew."""
        entry = audited.reloaded(before, after, by, changed)
        await self._writer.submit(lambda _: Wrote(None, audited=[entry]))

    async def note(self, kind: Kind, identity: Identity, *, by: str, reason: str) -> None:
        """Write a governed act of a person down that changes nothing here."""
        entry = audited.change(kind, identity, by, reason)
        await self._writer.submit(lambda _: Wrote(None, audited=[entry]))
