"""The audit log of a store's file: sealed with each group of commits, read, proved and exported on connections of its own."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar, cast

import anyio.to_thread
import apsw

from overwinter import values
from overwinter.adapters import proof_files
from overwinter.adapters.key_files import KEY_FILE_BYTES, key_in, make_key
from overwinter.adapters.notes import NoteRefused, PublicKey, Signer, open_note, parse_key, signer_in
from overwinter.adapters.sqlite import anchor, audited, log_rows
from overwinter.adapters.sqlite.schema import connect, guarded, migrate
from overwinter.audit import Entry, Plain, hidden
from overwinter.clock import Clock
from overwinter.errors import Conflict, HomeDamaged, NotFound
from overwinter.frozen import frozen
from overwinter.ids import from_bytes
from overwinter.snapshot import key_id

__all__ = [
    "ANCHOR_NAME",
    "AuditLog",
    "Found",
    "Sealing",
    "begin_anew",
    "log_signer",
    "next_signer",
    "open_log",
    "refuse_lost",
    "sealing",
]

T = TypeVar("T")
ANCHOR_NAME = "audit.anchor"
NEXT_KEY_NAME = "audit.key.next"
"""Of a key that has perhaps signed, and is not in its place yet."""
LOG_FORMAT = 3
"""Of the store's file: the first with a log."""


@frozen
class Found:
    """Entries that were looked for."""

    entries: Sequence[tuple[int, Mapping[str, Plain]]]
    """Index and fields, in the order asked for."""
    following: int | None
    """Where to look on; None: everything was looked at."""


class Sealing:
    """Adds entries to the log in the transaction that they belong to. Used by whoever has the writing connection.

    Args:
        end: where the log ends.
        signer: of tree heads; the key that is known of, if there is none: then nothing but revocations is added, without tree
            heads, so that a lost key keeps nobody from stopping an agent.
        clock: the home's.
        anchor: the anchor's file.
        fault: why nothing is signed; "": it is.
    """

    def __init__(
        self, end: log_rows.Tail, signer: Signer | PublicKey, clock: Clock, anchor: anchor.AnchorFile, fault: str = ""
    ) -> None:
        self._end, self._signer, self._clock, self._anchor, self.fault = end, signer, clock, anchor, fault
        self._next: tuple[Signer, Callable[[], None]] | None = None

    @property
    def public(self) -> PublicKey:
        """Return whose signature the next tree head has."""
        return self._signer.public if isinstance(self._signer, Signer) else self._signer

    @property
    def can_sign(self) -> bool:
        """Whether the key is there."""
        return isinstance(self._signer, Signer)

    def begin_anew(self, db: apsw.Connection, signer: Signer, entry: Entry) -> int:
        """Sign the log as it is with a new key; return the entry that says so. The caller has the connection for itself."""
        self._signer, self.fault = signer, ""
        db.execute("begin immediate")
        keep = self(db, [entry])
        db.execute("commit")
        keep()
        return self._end.edge.size - 1

    def hand_over(self, following: Signer, done: Callable[[], None]) -> None:
        """Have the next commit with an entry of a new key signed by both keys, and all after it by the new one.

        Args:
            following: the new key.
            done: called once that is durable.
        """
        self._next = following, done

    def __call__(self, db: apsw.Connection, entries: Sequence[Entry]) -> Callable[[], None]:
        """Write entries and one tree head over all; return what is called once they are committed.

        If they stop somebody, that also notes them in the anchor, so nobody is told before it is durable there.

        Raises:
            EntryRefused: one of them cannot be written; nothing of its transaction may be committed.
            HomeDamaged: nothing can be signed, and one of them is no revocation; the same.
        """
        if self.fault and any(entry.kind not in log_rows.UNSIGNED for entry in entries):
            raise HomeDamaged(self.fault)
        end = log_rows.append(db, self._end, entries, self._clock.now_us() // 1_000)
        following, done = self._next or (None, None)
        if not any(entry.kind == "key" for entry in entries):
            following = None
        if isinstance(self._signer, Signer) and not self.fault:
            log_rows.write_head(db, end, self._signer, *(() if following is None else (following,)))
        is_anchored = any(entry.kind in anchor.ANCHORED for entry in entries)
        reached = anchor.now(db, self.public, end) if is_anchored else None

        def keep() -> None:
            self._end = end
            if following is not None and done is not None:
                self._signer, self._next = following, None
                done()
            if reached is not None:
                with suppress(
                    OSError
                ):  # the commit stands all the same; the next one, or the next opening, tries again
                    self._anchor.keep(reached)

        return keep

    def close(self) -> None:
        """Close the anchor."""
        self._anchor.close()


def log_signer(db: apsw.Connection, path: Path) -> Signer:
    """Return who signs the log of a store's file; its key lies beside it, in `keys/audit.key`.

    A key that had signed, and had not come to its place when the machine stopped, is put there now.

    Raises:
        HomeDamaged: the key is missing though it has signed, is not whole, or is open to others.
    """
    ((home,),) = db.execute("select home from meta")
    place, following = path.parent / "keys" / "audit.key", path.parent / "keys" / NEXT_KEY_NAME
    place.parent.mkdir(mode=0o700, exist_ok=True)
    note = log_rows.last_note(db)
    if following.exists():
        if note is not None and _has_signed(Signer.of(key_in(following), _origin(home), 1).public, note):
            following.replace(place)
        else:
            following.unlink()
    return signer_in(place, _origin(home), 1, may_make=note is None)


def next_signer(path: Path, name: str) -> tuple[Signer, Callable[[], None]]:
    """Make a new key for the log of a store's file; return it, and what puts it in the place of the present one."""
    following, place = path.parent / "keys" / NEXT_KEY_NAME, path.parent / "keys" / "audit.key"
    make_key(following)

    def put() -> None:
        with suppress(OSError):  # it has signed: the next opening puts it there
            following.replace(place)

    return Signer.of(key_in(following), name, 1), put


def _has_signed(key: PublicKey, note: str) -> bool:
    try:
        open_note(note, key)
    except NoteRefused:
        return False
    return True


def open_log(path: Path, key: PublicKey | None = None) -> "AuditLog":
    """Return the log of a store's file, whoever holds its home, also if the home does not open any more.

    Args:
        path: the file. Nothing is written to it.
        key: whose tree heads count, kept elsewhere; None: the home's own, which whoever has the home may have replaced.

    Raises:
        NotFound: there is no such file, or it is older than its log.
        HomeDamaged: the home's own key is missing or not whole.
    """
    refuse_lost(path)
    if not path.exists():
        raise NotFound(f"there is no {path}: --home names the home")
    with closing(connect(path, is_writer=False)) as db, guarded(path):
        ((home, form),) = db.execute("select home, format from meta")
        note = log_rows.last_note(db) if form >= LOG_FORMAT else None
    if form < LOG_FORMAT:
        raise NotFound(f"{path} has no audit log yet: any command that opens the home makes it")
    if key is None:
        place, known = path.parent / "keys" / "audit.key", _known_key(path)
        if place.exists():
            key = Signer.of(key_in(place), _origin(home), 1).public
        if known is not None and note is not None and (key is None or not _has_signed(key, note)):
            key = known
        if key is None:
            raise HomeDamaged(f"{place} is missing: restore it from a backup, or give the log's public key with --key")
    return AuditLog(path=path, key=key)


def _known_key(path: Path) -> PublicKey | None:
    """Return the log's public key as the anchor has it."""
    known = anchor.read(path.with_name(ANCHOR_NAME))
    return parse_key(known.key) if known is not None and known.key else None


def _origin(home: bytes) -> str:
    return f"overwinter/{from_bytes(home)}"


def sealing(db: apsw.Connection, clock: Clock, path: Path) -> Sealing:
    """Return what adds to the log, its end compared with its last tree head.

    If the key is lost, or is another one, it takes revocations and nothing else, see `Sealing.fault`.

    Raises:
        HomeDamaged: they differ: somebody has changed the file. Or the log is older than it was.
    """
    end, file = log_rows.tail(db), anchor.AnchorFile(path.with_name(ANCHOR_NAME))
    try:
        signer, fault, unsigned = _signer_now(db, path, end)
        sealed = Sealing(end, signer, clock, file, fault)
        present = anchor.now(db, sealed.public, end)
        if unsigned is None and not fault:
            _hold_against_anchor(db, sealed, present, file, None)
        elif unsigned is not None:
            accepted = file.known is not None and file.known.accepted is not None
            if accepted:
                _hold_against_anchor(db, sealed, present, file, unsigned)
            sealed.fault = "" if accepted else f"{unsigned}. {UNSIGNED_REMEDY}"
        if sealed.fault and file.known is not None and file.known.accepted is None:
            _refuse_older(anchor.anchor_fault(db, present, file.known), file)
    except BaseException:
        file.close()
        raise
    return sealed


UNSIGNED_REMEDY = (
    "Until then only revocations are taken, and nothing runs: compare `overwinter audit log` with what you know, and "
    "`overwinter audit accept --reason ...` has them signed"
)


def _signer_now(db: apsw.Connection, path: Path, end: log_rows.Tail) -> tuple[Signer | PublicKey, str, str | None]:
    """Return who signs, or the key that is known of; why nobody can sign; what stands unsigned at the end although somebody could.

    Raises:
        HomeDamaged: the log was changed from outside.
    """
    unsigned = log_rows.unsigned_fault(db, end)
    if unsigned:
        raise HomeDamaged(
            f"the audit log in {path} was changed from outside: {unsigned}; keep the file and ask who did it"
        )
    try:
        signer = log_signer(db, path)
        differs = log_rows.tail_fault(db, end, signer.public)
    except (HomeDamaged, NoteRefused) as error:
        ((home,),) = db.execute("select home from meta")
        key = _known_key(path) or PublicKey(name=_origin(home), kind=1, raw=bytes(KEY_FILE_BYTES))
        remedy = ": restore keys/audit.key from a backup" if isinstance(error, NoteRefused) else ""
        return key, f"the audit log cannot be signed: {error}{remedy}. {LOST_REMEDY}", None
    return signer, "", differs and f"revocations were written without the log's key, or put there: {differs}"


LOST_REMEDY = (
    "Until then only revocations are taken, and nothing runs. If nobody has the key, stop the server, and `overwinter audit "
    "key replace --lost --reason ...` begins anew with another one, and says so for ever"
)


def begin_anew(path: Path, clock: Clock, store_key: bytes, *, by: str, reason: str) -> tuple[int, PublicKey]:
    """Have a new key sign the log of a store's file whose key is lost; return the entry that says so, and the key.

    Raises:
        Conflict: the key is there, and has signed it.
        HomeDamaged: the log was changed from outside, or is an older one.
    """
    with closing(connect(path, is_writer=True)) as db, guarded(path):
        migrate(db, path, key_id(store_key))
        with closing(sealing(db, clock, path)) as seal:
            if seal.can_sign:
                raise Conflict(
                    seal.fault
                    or "the key of the audit log is there: `overwinter audit key rotate` has another one signed by it"
                )
            before = str(seal.public) if any(seal.public.raw) else None
            following, put = next_signer(path, seal.public.name)
            entry = audited.keyed(before, str(following.public), by, reason, is_lost=True)
            seq = seal.begin_anew(db, following, entry)
            unfit = path.parent / "keys" / "audit.key"
            if unfit.exists():
                unfit.replace(unfit.with_name("audit.key.unfit"))
            put()
            return seq, following.public


def refuse_lost(path: Path) -> None:
    """Refuse to make a store's file anew in a home that had one, unless a person said so.

    Raises:
        HomeDamaged: it is gone.
    """
    known = None if path.exists() else anchor.read(path.with_name(ANCHOR_NAME))
    if known is not None and known.accepted is None:
        raise HomeDamaged(
            f"{path} is missing, and this home had one: its runs and its audit log are in it, of {known.size} entries or more. "
            "Restore it from a backup; or `overwinter audit accept --reason ...` begins with an empty one, and says so for ever"
        )


def _refuse_older(fault: str | None, file: anchor.AnchorFile) -> None:
    if fault is not None:
        raise HomeDamaged(
            f"the audit log beside {file.place} is not the one that this home had: {fault}. An older copy was put back, and "
            "whoever was revoked since could act again: restore the newest copy; or `overwinter audit accept --reason ...` "
            "goes on with this one, and then revoke them again"
        )


def _hold_against_anchor(
    db: apsw.Connection, seal: Sealing, present: anchor.Anchor, file: anchor.AnchorFile, unsigned: str | None
) -> None:
    known = file.known
    fault = None if known is None else anchor.anchor_fault(db, present, known)
    if known is not None and (fault or unsigned):
        if known.accepted is None:
            _refuse_older(fault, file)
            return
        words = "; ".join(each for each in (fault, unsigned) if each)
        said: dict[str, values.Value] = {"by": known.accepted.by, "reason": known.accepted.reason, "fault": words}
        entry = Entry(
            kind="restore", tenant="home", agent="", epoch=0, act=(known.accepted.by,), args=hidden(values.encode(said))
        )
        db.execute("begin immediate")
        keep = seal(db, [entry])
        db.execute("commit")
        keep()
    elif present != known:
        with suppress(OSError):
            file.keep(present)


@frozen
class AuditLog:
    """Reads the log. Each method takes a connection of its own in a thread: a log may have millions of entries."""

    path: Path
    key: PublicKey
    fault: str = ""
    """Why nothing can be signed, and so nothing but a revocation be written."""

    async def entries(self, start: int, stop: int) -> list[tuple[int, bytes]]:
        """Return index and bytes of entries."""
        return await self._read(lambda db: list(log_rows.entries(db, start, stop)))

    async def matching(
        self, is_wanted: Callable[[Mapping[str, Plain]], bool], span: range, *, limit: int, looked_max: int
    ) -> Found:
        """Return entries that are wanted.

        Args:
            is_wanted: tells it of an entry's fields. Called in a thread.
            span: indices to look at, ascending or descending.
            limit: entries returned at most.
            looked_max: entries looked at, at most.
        """
        return await self._read(lambda db: _matching(db, is_wanted, span, limit, looked_max))

    async def size(self) -> int:
        """Return how many entries there are."""
        return await self._read(log_rows.size)

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

    async def turns(self) -> list[tuple[str, str]]:
        """Return where the log's keys change: the tree head that ends there, and a file that proves the entry under it."""

        def read(db: apsw.Connection) -> list[tuple[str, str]]:
            found = list[tuple[str, str]]()
            for seq in log_rows.turns(db):
                ((_, raw),) = log_rows.entries(db, seq, seq + 1)
                proof = proof_files.file_of(raw, log_rows.prove(db, seq, seq + 1))
                found.append((log_rows.note(db, seq + 1), proof))
            return found

        return await self._read(read)

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

    def look(self, read: Callable[[apsw.Connection], T]) -> T:
        """Return what a reading returns. In the caller's thread."""
        with closing(connect(self.path, is_writer=False)) as db, guarded(self.path):
            db.execute("begin")
            return read(db)

    async def _read(self, read: Callable[[apsw.Connection], T]) -> T:
        return await anyio.to_thread.run_sync(self.look, read)


def _matching(
    db: apsw.Connection, is_wanted: Callable[[Mapping[str, Plain]], bool], span: range, limit: int, looked_max: int
) -> Found:
    looked = span[:looked_max]
    found: list[tuple[int, Mapping[str, Plain]]] = []
    if looked:
        least, most, order = min(looked), max(looked), "asc" if looked.step > 0 else "desc"
        sql = f"select seq, entry from audit_entry where seq between ? and ? order by seq {order}"
        for seq, raw in db.execute(sql, (least, most)):
            fields = _fields(seq, raw)
            if is_wanted(fields):
                if len(found) == limit:
                    return Found(entries=found, following=seq)
                found.append((seq, fields))
    return Found(entries=found, following=span[looked_max] if len(span) > looked_max else None)


def _fields(seq: int, raw: bytes) -> Mapping[str, Plain]:
    try:
        fields: object = json.loads(raw)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise HomeDamaged(f"audit entry {seq} is damaged: `overwinter audit verify` says what else is")
    return cast("dict[str, Plain]", fields)
