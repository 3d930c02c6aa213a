"""The audit log of a store's file: sealed with each group of commits, read, proved and exported on connections of its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio.to_thread
import apsw

from overwinter.adapters.notes import NoteRefused, PublicKey, Signer, signer_in
from overwinter.adapters.sqlite import log_rows
from overwinter.adapters.sqlite.schema import connect, guarded
from overwinter.audit import Entry
from overwinter.clock import Clock
from overwinter.errors import HomeDamaged
from overwinter.ids import from_bytes

__all__ = ["AuditLog", "Sealing", "log_signer", "sealing"]

T = TypeVar("T")


class Sealing:
    """Adds entries to the log in the transaction that they belong to. Used in the writing thread alone."""

    def __init__(self, end: log_rows.Tail, signer: Signer, clock: Clock) -> None:
        self._end, self._signer, self._clock = end, signer, clock

    def __call__(self, db: apsw.Connection, entries: Sequence[Entry]) -> Callable[[], None]:
        """Write entries and one tree head over all; return what is called once they are committed.

        Raises:
            EntryRefused: one of them cannot be written; nothing of its transaction may be committed.
        """
        end = log_rows.append(db, self._end, entries, self._clock.now_us() // 1_000)
        log_rows.write_head(db, end, self._signer)

        def keep() -> None:
            self._end = end

        return keep


def log_signer(db: apsw.Connection, path: Path) -> Signer:
    """Return who signs the log of a store's file; its key lies beside it, in `keys/audit.key`.

    Raises:
        HomeDamaged: the key is missing though it has signed, is not whole, or is open to others.
    """
    ((home,),) = db.execute("select home from meta")
    place = path.parent / "keys" / "audit.key"
    place.parent.mkdir(mode=0o700, exist_ok=True)
    return signer_in(place, f"overwinter/{from_bytes(home)}", 1, may_make=log_rows.last_note(db) is None)


def sealing(db: apsw.Connection, signer: Signer, clock: Clock, path: Path) -> Sealing:
    """Return what adds to the log, its end compared with its last tree head.

    Raises:
        HomeDamaged: they differ: somebody has changed the file, or the key is another one.
    """
    end = log_rows.tail(db)
    try:
        fault = log_rows.tail_fault(db, end, signer.public)
    except NoteRefused as error:
        raise HomeDamaged(f"{error}: restore keys/audit.key beside {path} from a backup") from error
    if fault:
        raise HomeDamaged(
            f"the audit log in {path} was changed from outside: {fault}; keep the file and ask who did it"
        )
    return Sealing(end, signer, clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLog:
    """Reads the log. Each method takes a connection of its own in a thread: a log may have millions of entries."""

    path: Path
    key: PublicKey

    async def entries(self, start: int, stop: int) -> list[tuple[int, bytes]]:
        """Return index and bytes of entries."""
        return await self._read(lambda db: list(log_rows.entries(db, start, stop)))

    async def size(self) -> int:
        """Return how many entries there are."""
        return await self._read(lambda db: log_rows.tail(db).edge.size)

    async def first_since(self, at_ms: int) -> int:
        """Return the index of the first entry at or after an instant."""
        return await self._read(lambda db: log_rows.first_since(db, at_ms))

    async def body(self, seq: int) -> dict[str, bytes]:
        """Return what of an entry's arguments and result is kept."""
        found = await self._read(lambda db: {part: log_rows.body(db, seq, part) for part in log_rows.PARTS})
        return {str(part): body.content for part, body in found.items() if body is not None}

    async def head(self) -> str | None:
        """Return the last signed tree head with its cosignatures."""
        return await self._read(log_rows.last_note)

    async def prove(self, seq: int) -> str:
        """Return a file that proves an entry."""
        return await self._read(lambda db: log_rows.prove(db, seq))

    async def consistency(self, old_size: int, size: int) -> list[bytes]:
        """Return the proof that the log only grew."""
        return await self._read(lambda db: log_rows.consistency(db, old_size, size))

    async def node_fault(self) -> str | None:
        """Return where the stored tree differs from the entries."""
        return await self._read(log_rows.node_fault)

    def export(self, *, with_bodies: bool, heads_apart: int) -> Iterator[bytes]:
        """Yield the log as `verify_export.py` reads it. In the caller's thread."""
        with closing(connect(self.path, is_writer=False)) as db, guarded(self.path):
            db.execute("begin")
            yield from log_rows.export(db, with_bodies=with_bodies, heads_apart=heads_apart)

    async def _read(self, read: Callable[[apsw.Connection], T]) -> T:
        def work() -> T:
            with closing(connect(self.path, is_writer=False)) as db, guarded(self.path):
                db.execute("begin")
                return read(db)

        return await anyio.to_thread.run_sync(work)
