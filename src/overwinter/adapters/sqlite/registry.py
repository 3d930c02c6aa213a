"""The Registry contract on SQLite: agents, in the store's file and its commits."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from overwinter.adapters.sqlite import agents, audited, family, grants
from overwinter.adapters.sqlite.schema import guarded
from overwinter.adapters.sqlite.writer import Writer, Wrote
from overwinter.audit import Kind
from overwinter.clock import Clock
from overwinter.frozen import replace
from overwinter.grant import Granted
from overwinter.identity import Identity
from overwinter.ids import Ids

__all__ = ["SqliteRegistry"]

BY, BELOW = "overwinter", "it was declared below a revoked agent"
GONE = "it was not declared any more"
OVER = "its authority had ended when it was declared anew"


class SqliteRegistry:
    """See `registry.Registry`."""

    def __init__(self, path: Path, writer: Writer, reading: apsw.Connection, clock: Clock, ids: Ids) -> None:
        self._path, self._writer, self._reading, self._clock, self._ids = path, writer, reading, clock, ids
        self._active: dict[str, bool] = {}
        """Whether agents are active, as long as nothing is committed that may change it."""

    async def enrol(self, identities: Sequence[Identity], *, is_whole: bool = False) -> None:
        """Write agents down."""

        def act(db: apsw.Connection) -> Wrote[None]:
            now = self._clock.now_us()
            before = agents.identities(db)
            entries = [
                audited.change("revoke", each, BY, why)
                for name, why in _ended(before, identities, now, is_whole=is_whole)
                for each in agents.revoke(db, name, BY, why, now)
            ]
            agents.enrol(db, identities)
            entries += [audited.enrolled(each, was, BY) for each, was in _changed(agents.identities(db), before)]
            entries += [audited.change("revoke", each, BY, BELOW) for each in agents.fell(db, BY, BELOW, now)]
            return Wrote(None, audited=entries, is_revoked=True)

        await self._writer.submit(act)

    def changed(self) -> None:
        """Look up anew who is active. Told of each commit that may have changed it, before whoever waits for it."""
        self._active.clear()

    async def strand(self) -> None:
        """Cancel the runs of revoked agents that runs of others wait for."""

        def act(db: apsw.Connection) -> Wrote[None]:
            return family.told(Wrote(None), family.stranded(db, self._clock.now_us(), self._ids))

        await self._writer.submit(act)

    def is_active(self, agent: str) -> bool:
        """Whether an agent may act at this moment; one that nobody wrote down may not."""
        known = self._active.get(agent)
        if known is None:
            with guarded(self._path):
                known = agents.is_active(self._reading, agent)
            if known:  # whoever comes with a name that nobody knows is not remembered
                self._active[agent] = True
        return known

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

        try:
            return await self._writer.submit_first(act)
        finally:
            self.changed()

    async def restore(self, agent: str, *, by: str, reason: str = "", has_runs: bool = False) -> Identity | None:
        """Make a revoked agent active in a new epoch."""

        def act(db: apsw.Connection) -> Wrote[Identity | None]:
            restored = agents.restore(db, agent, by, reason, self._clock.now_us(), has_runs=has_runs)
            entries = [] if restored is None else [audited.change("restore", restored, by, reason)]
            return Wrote(restored, audited=entries, is_revoked=True)

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


def _ended(
    known: Sequence[Identity], declared: Sequence[Identity], now: int, *, is_whole: bool
) -> Iterator[tuple[str, str]]:
    """Yield the active agents that have come to their end, and why."""
    wanted = {each.name: each for each in declared}
    for each in known:
        again = wanted.get(each.name)
        if each.is_revoked:
            continue
        if again is None:
            if is_whole:
                yield each.name, GONE
        elif each.expires_us is not None and each.expires_us <= now and again.expires_us != each.expires_us:
            yield each.name, OVER


def _changed(present: Sequence[Identity], before: Sequence[Identity]) -> Iterator[tuple[Identity, Identity]]:
    """Yield the agents that were known and of which something else is declared now, with what they were."""
    was = {each.name: each for each in before}
    for each in present:
        if each.name in was and audited.declared(each) != audited.declared(was[each.name]):
            yield each, was[each.name]
