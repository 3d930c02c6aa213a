"""The Tokens contract on SQLite: API tokens as digests, in the store's file and its commits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from overwinter import values
from overwinter.adapters.sqlite.schema import guarded
from overwinter.adapters.sqlite.writer import Writer, Wrote
from overwinter.audit import Entry, Kind, hidden
from overwinter.clock import Clock
from overwinter.tokens import Token

__all__ = ["SqliteTokens", "person"]

TENANT = "home"
_COLUMNS = "id, digest, person, name, scopes, agents, created, expires, used, revoked"


def person(db: apsw.Connection, token: str) -> str:
    """Return whose a token is, by its id; "": there is none."""
    return next((found for (found,) in list(db.execute("select person from token where id = ?", (token,)))), "")


class SqliteTokens:
    """See `tokens.Tokens`."""

    def __init__(self, path: Path, writer: Writer, reading: apsw.Connection, clock: Clock) -> None:
        self._path, self._writer, self._reading, self._clock = path, writer, reading, clock

    async def add(self, token: Token, *, by: str, live_max: int) -> bool:
        """Write a token down; False: its person has `live_max` that count."""

        def act(db: apsw.Connection) -> Wrote[bool]:
            sql = "select count(*) from token where person = ? and revoked is null and expires > ?"
            ((live,),) = db.execute(sql, (token.person, token.created_us))
            if live >= live_max:
                return Wrote(result=False)
            db.execute(f"insert into token ({_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, null, null)", _row(token))
            return Wrote(result=True, audited=[_entry("grant", token, by, "")])

        return await self._writer.submit(act)

    async def token(self, token_id: str) -> Token | None:
        """Return one, whether or not it counts."""
        with guarded(self._path):
            found = self._reading.execute(f"select {_COLUMNS} from token where id = ?", (token_id,))
            return next(map(_token, found), None)

    async def tokens(self) -> Sequence[Token]:
        """Return all, the newest first."""
        with guarded(self._path):
            found = self._reading.execute(f"select {_COLUMNS} from token order by created desc, id")
            return [_token(each) for each in found]

    async def revoke_token(self, token_id: str, *, by: str, reason: str = "") -> Token | None:
        """Revoke one for ever; None: there is none, or it was revoked before."""
        sql = f"update token set revoked = ? where id = ? and revoked is null returning {_COLUMNS}"

        def act(db: apsw.Connection) -> Wrote[Token | None]:
            revoked = next(map(_token, db.execute(sql, (self._clock.now_us(), token_id))), None)
            return Wrote(revoked, audited=[] if revoked is None else [_entry("revoke", revoked, by, reason)])

        return await self._writer.submit_first(act)

    async def used(self, token_id: str, at_us: int) -> None:
        """Note when it was last used."""

        def act(db: apsw.Connection) -> Wrote[None]:
            db.execute("update token set used = max(coalesce(used, 0), ?) where id = ?", (at_us, token_id))
            return Wrote(None)

        await self._writer.submit(act)


def _row(token: Token) -> tuple[Any, ...]:
    return (
        token.id, token.digest, token.person, token.name, json.dumps(token.scopes), token.agents, token.created_us, token.expires_us,
    )  # fmt: skip


def _token(row: tuple[Any, ...]) -> Token:
    return Token(
        id=row[0],
        digest=bytes(row[1]),
        person=row[2],
        name=row[3],
        scopes=tuple(json.loads(row[4])),
        agents=row[5],
        created_us=row[6],
        expires_us=row[7],
        used_us=row[8],
        revoked_us=row[9],
    )


def _entry(kind: Kind, token: Token, by: str, reason: str) -> Entry:
    """Return the entry of what was done to a token: it names the token, its person and what it opens lie apart."""
    said = {"by": by, "reason": reason, "person": token.person, "name": token.name, "scopes": list(token.scopes)}
    body = values.encode({**said, "agents": token.agents, "expires_us": token.expires_us})
    return Entry(kind=kind, tenant=TENANT, agent=token.agents, epoch=0, act=(by,), lease=token.id, args=hidden(body))
