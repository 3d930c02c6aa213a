"""The audit log's rows: entries with the tree over them, signed tree heads, and bodies apart.

Everything that writes works inside a transaction of its caller: so an entry is durable exactly if what it speaks of is.

A subtree's hash lies in the row of its last entry: appending writes one row an entry and reads none, and a node of a proof
is one look-up by key.
"""

import base64
import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

import apsw

from overwinter.adapters import proof_files
from overwinter.adapters.notes import NoteRefused, PublicKey, Signer, TreeHead, head_of, open_note, sign
from overwinter.audit import Body, Entry, Part, decode, encode
from overwinter.errors import HomeDamaged, NotFound
from overwinter.frozen import frozen
from overwinter.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    Frontier,
    Node,
    consistency_proof,
    frontier,
    inclusion_proof,
    leaf_hash,
)

__all__ = [
"FORMAT_3", "Tail", "add_cosignature", "append", "bodies_before", "body", "consistency", "delete_bodies", "delete_heads", "entries", "export", "first_since", "inclusion", "last_note", "node_fault", "note", "prove", "root", "size", "spare_heads", "tail", "tail_fault", "turns", "unsigned_fault", "write_head",
]  # fmt: skip

# `audit_entry.nodes`: hashes of the full subtrees that end with this entry, from level 1 up, one after the other; it stands
# before the entry so that a long entry's overflow pages are not read for it. `audit_body.id`: seq * 2, for a result + 1.
FORMAT_3 = """
create table audit_entry (seq integer primary key, nodes blob not null, entry blob not null) strict;
create table audit_head (size integer primary key, note text not null) strict;
create table audit_cosignature (size integer not null, name text not null, line text not null, primary key (size, name))
    strict, without rowid;
create table audit_body (id integer primary key, key blob not null, content blob not null) strict;
"""
DAY_MS = 86_400_000
UNSIGNED = frozenset({"revoke"})
"""Kinds of entries that are written though nothing can sign them: nothing may keep a person from stopping an agent."""
PARTS: tuple[Part, ...] = ("args", "result")


@frozen
class Tail:
    """Where a log ends: what its next entry is appended to. Keep it only once its transaction is committed."""

    edge: Frontier
    ts_ms: int
    """Of the last entry."""


def tail(db: apsw.Connection) -> Tail:
    """Return the log's end.

    Raises:
        HomeDamaged: if its last rows are damaged or missing.
    """
    for seq, raw in db.execute("select seq, entry from audit_entry order by seq desc limit 1"):
        return Tail(edge=frontier(seq + 1, _node(db)), ts_ms=_ts_ms(seq, raw))
    return Tail(edge=Frontier(), ts_ms=0)


def tail_fault(db: apsw.Connection, end: Tail, key: PublicKey) -> str | None:
    """Return how the log's end differs from its last tree head, None if it does not. Every commit leaves them equal.

    Raises:
        NoteRefused: the log's key did not sign that tree head.
    """
    text = last_note(db)
    head = TreeHead(origin=key.name, size=0, root=end.edge.root()) if text is None else open_note(text, key)
    return None if (head.size, head.root) == (end.edge.size, end.edge.root()) else _differs(head, end)


def unsigned_fault(db: apsw.Connection, end: Tail) -> str | None:
    """Return how the log's end differs from its last tree head, whoever signed that, but for revocations after it.

    Those are all that a home without the key adds. None: by nothing.
    """
    text = last_note(db)
    try:
        head = TreeHead(origin="", size=0, root=EMPTY_ROOT) if text is None else head_of(text)
    except NoteRefused as error:
        return str(error)
    if head.size <= end.edge.size and root(db, head.size) == head.root:
        after = entries(db, head.size) if text is not None else iter(())
        if all(_fields(raw).get("kind") in UNSIGNED for _, raw in after) and (text is not None or not end.edge.size):
            return None
    return _differs(head, end)


def _differs(head: TreeHead, end: Tail) -> str:
    return f"the last tree head is of {head.size} entries, root {head.root.hex()}; the log has {end.edge.size}, root {end.edge.root().hex()}"


def root(db: apsw.Connection, size: int) -> bytes:
    """Return the root of the tree over the first `size` entries, of which the log has at least so many."""
    return frontier(size, _node(db)).root()


def append(db: apsw.Connection, end: Tail, batch: Sequence[Entry], now_ms: int) -> Tail:
    """Write entries and their bodies; return the new end, which counts once the transaction is committed.

    A clock that was set back does not go back in the log: the predecessor's time stands until it has caught up.

    Raises:
        EntryRefused: if one of them cannot be written. The transaction must be rolled back.
    """
    if not batch:
        return end
    ts_ms, start = max(now_ms, end.ts_ms), end.edge.size
    written = [encode(entry, seq=seq, ts_ms=ts_ms) for seq, entry in enumerate(batch, start)]
    edge, completed = end.edge.appended(map(leaf_hash, written))
    db.executemany(
        "insert into audit_entry values (?, ?, ?)", zip(range(start, edge.size), completed, written, strict=True)
    )
    bodies = [
        (_body_id(seq, part), each.key, each.content)
        for seq, entry in enumerate(batch, start)
        for part, each in entry.bodies()
    ]
    if bodies:
        db.executemany("insert into audit_body values (?, ?, ?)", bodies)
    return Tail(edge=edge, ts_ms=ts_ms)


def write_head(db: apsw.Connection, end: Tail, signer: Signer, *more: Signer) -> str:
    """Sign and keep the tree head of a commit's end; return the note. A commit without entries changes nothing."""
    head = TreeHead(origin=signer.public.name, size=end.edge.size, root=end.edge.root())
    text = sign(head, signer, *more)
    db.execute("insert or ignore into audit_head values (?, ?)", (head.size, text))
    return text


def add_cosignature(db: apsw.Connection, size: int, name: str, line: str) -> None:
    """Keep a witness's latest word for a tree head."""
    db.execute("insert or replace into audit_cosignature values (?, ?, ?)", (size, name, line))


def last_note(db: apsw.Connection) -> str | None:
    """Return the last tree head with its cosignatures, None if nothing was logged yet."""
    for (size,) in db.execute("select max(size) from audit_head where size is not null"):
        return None if size is None else note(db, size)
    return None


def note(db: apsw.Connection, size: int) -> str:
    """Return the tree head of one size with its cosignatures.

    Raises:
        NotFound: if none was signed at that size.
    """
    for (text,) in db.execute("select note from audit_head where size = ?", (size,)):
        lines = db.execute("select line from audit_cosignature where size = ? order by name", (size,))
        return text + "".join(line for (line,) in lines)
    raise NotFound(
        f"no tree head is kept at {size} entries: there is one at the end of each commit, later the last of each day"
    )


def spare_heads(db: apsw.Connection, before: int, limit: int) -> list[int]:
    """Return the sizes of tree heads, the oldest first, of fewer than `before` entries, that nothing needs any more.

    The last of each day (UTC) is needed, what a witness has signed, and where one key hands over to the next. Proofs are made from entries, under the newest.
    """
    spare: list[int] = []
    earlier, day = 0, -1
    """The tree head before, 0 if it is needed; its day."""
    rows = db.execute(
        "select size, entry, size in (select size from audit_cosignature) from audit_head join audit_entry on seq = size - 1 "
        "order by size"
    )
    for size, raw, is_cosigned in rows:
        today = _ts_ms(size - 1, raw) // DAY_MS
        if earlier and today == day:
            spare.append(earlier)
        if size >= before or len(spare) == limit:
            break
        earlier, day = 0 if is_cosigned or is_turn(raw) else size, today
    return spare


def delete_heads(db: apsw.Connection, sizes: Iterable[int]) -> None:
    """Delete tree heads."""
    db.executemany("delete from audit_head where size = ?", ((size,) for size in sizes))


def entries(db: apsw.Connection, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield index and bytes of entries, in order."""
    yield from db.execute(
        "select seq, entry from audit_entry where seq >= ? and seq < ? order by seq",
        (start, 1 << 62 if stop is None else stop),
    )


def is_turn(raw: bytes) -> bool:
    """Whether an entry names the log's next key: no text in an entry can hold a quotation mark that is not escaped."""
    return b'"kind":"key"' in raw


def turns(db: apsw.Connection) -> list[int]:
    """Return the entries that name a next key, in order. It looks at all."""
    rows = db.execute('select seq from audit_entry where instr(entry, cast(\'"kind":"key"\' as blob)) > 0 order by seq')
    return [seq for (seq,) in rows]


def size(db: apsw.Connection) -> int:
    """Return how many entries there are."""
    ((found,),) = db.execute("select coalesce(max(seq) + 1, 0) from audit_entry")
    return found


def first_since(db: apsw.Connection, ts_ms: int) -> int:
    """Return the index of the first entry at or after an instant; the log's size if there is none."""

    def ts_of(seq: int) -> int:
        return _ts_ms(seq, _entry(db, seq))

    return bisect_left(range(size(db)), ts_ms, key=ts_of)


def body(db: apsw.Connection, seq: int, part: Part) -> Body | None:
    """Return the arguments or result of an entry; None if it has none, or they were deleted."""
    for key, content in db.execute("select key, content from audit_body where id = ?", (_body_id(seq, part),)):
        return Body(key=key, content=content)
    return None


def delete_bodies(db: apsw.Connection, seqs: Iterable[int]) -> int:
    """Delete bodies and keys of entries, for ever; return how many. The entries stay, and so does every proof.

    Their bytes are overwritten in the file. Older pages stand in the write-ahead log until
    `pragma wal_checkpoint(truncate)`, which the caller runs after its commit.
    """
    before = db.total_changes()
    ((was,),) = db.execute("pragma secure_delete")
    db.execute("pragma secure_delete=on")
    try:
        db.executemany(
            "delete from audit_body where id between ?1 and ?1 + 1", ((_body_id(seq, "args"),) for seq in seqs)
        )
    finally:
        db.execute(f"pragma secure_delete={was}")
    return db.total_changes() - before


def bodies_before(db: apsw.Connection, seq: int, limit: int) -> list[int]:
    """Return the first entries below `seq` of which a body is kept."""
    rows = db.execute("select distinct id / 2 from audit_body where id < ? order by id limit ?", (seq * 2, limit))
    return [found for (found,) in rows]


def inclusion(db: apsw.Connection, seq: int, size: int) -> list[bytes]:
    """Return the proof that an entry stands in the tree of the first `size` entries.

    Raises:
        NotFound: if it does not.
    """
    _check_size(db, size)
    if not 0 <= seq < size:
        raise NotFound(f"audit entry {seq} is not among the first {size}: they begin at 0")
    return inclusion_proof(seq, size, _node(db))


def consistency(db: apsw.Connection, old_size: int, size: int) -> list[bytes]:
    """Return the proof that the tree of `size` entries only appends to the one of `old_size`.

    Raises:
        NotFound: if the log is shorter.
    """
    _check_size(db, size)
    if not 0 <= old_size <= size:
        raise NotFound(f"a log of {size} entries did not grow from one of {old_size}")
    return consistency_proof(old_size, size, _node(db))


def prove(db: apsw.Connection, seq: int, under: int | None = None) -> str:
    """Return a file that proves an entry under the last tree head, or that of a size; `proof_files` says its form.

    Raises:
        NotFound: there is no such entry, or no such tree head.
    """
    if under is not None:
        return proof_files.text(seq, inclusion(db, seq, under), note(db, under))
    for (size,) in db.execute("select max(size) from audit_head where size > ?", (seq,)):
        if size is not None and seq >= 0:
            return proof_files.text(seq, inclusion(db, seq, size), note(db, size))
    raise NotFound(f"audit entry {seq} is under no tree head: `overwinter audit verify` says how many there are")


def node_fault(db: apsw.Connection) -> str | None:
    """Return the first entry whose stored subtree hashes are not those of the entries; None if all are."""
    edge = Frontier()
    rows = db.execute("select seq, nodes, entry from audit_entry order by seq")
    for expected, (seq, nodes, raw) in enumerate(rows):
        if seq != expected:
            return f"entry {expected} is missing"
        edge, (completed,) = edge.appended((leaf_hash(raw),))
        if nodes != completed:
            return f"entry {seq}: the stored hashes of the subtrees that end here are not those of the entries"
    return None


def export(db: apsw.Connection, *, with_bodies: bool = False, heads_apart: int = 1) -> Iterator[bytes]:
    """Yield the whole log as lines of JSON, in the form that `verify_export.py` reads. Call it in a read transaction.

    An object is an entry; a list `[seq, part, key, content]` a body of the entry before it; a string the signed tree head
    of everything before it.

    Args:
        db: a connection.
        with_bodies: whether those that were not deleted are told.
        heads_apart: entries between two tree heads, at least. The last, the cosigned ones and those at which one key
            hands over to the next are always told: the others only narrow down where a fault is, and a signature takes as long to check as eight entries.
    """
    sizes = _head_sizes(db, heads_apart)
    size = next(sizes, None)
    for seq, raw in entries(db):
        yield raw + b"\n"
        for part in PARTS if with_bodies else ():
            if (found := body(db, seq, part)) is not None:
                yield _line([seq, part, found.key.hex(), base64.b64encode(found.content).decode()])
        is_told = not is_turn(raw)
        while size is not None and size <= seq + 1:
            is_told = is_told or size == seq + 1
            yield _line(note(db, size))
            size = next(sizes, None)
        if not is_told and _has_head(db, seq + 1):
            yield _line(note(db, seq + 1))
    while size is not None:
        yield _line(note(db, size))
        size = next(sizes, None)


def _has_head(db: apsw.Connection, size: int) -> bool:
    return bool(list(db.execute("select 1 from audit_head where size = ?", (size,))))


def _head_sizes(db: apsw.Connection, apart: int) -> Iterator[int]:
    told = 0
    for size, is_needed in db.execute(
        "select size, size = (select max(size) from audit_head) or size in (select size from audit_cosignature) "
        "from audit_head order by size"
    ):
        if is_needed or size - told >= apart:
            told = size
            yield size


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _body_id(seq: int, part: Part) -> int:
    return seq * 2 + PARTS.index(part)


def _entry(db: apsw.Connection, seq: int) -> bytes:
    for (raw,) in db.execute("select entry from audit_entry where seq = ?", (seq,)):
        return raw
    raise HomeDamaged(f"audit entry {seq} is missing: `overwinter audit verify` says what else is")


def _fields(raw: bytes) -> Mapping[str, object]:
    try:
        return decode(raw)
    except ValueError:
        return {}


def _ts_ms(seq: int, raw: bytes) -> int:
    try:
        ts_ms = decode(raw).get("ts")
    except ValueError:
        ts_ms = None
    if not isinstance(ts_ms, int):
        raise HomeDamaged(f"audit entry {seq} is damaged: `overwinter audit verify` says what else is")
    return ts_ms


def _node(db: apsw.Connection) -> Node:
    def node(level: int, index: int) -> bytes:
        if level == 0:
            return leaf_hash(_entry(db, index))
        last, at = ((index + 1) << level) - 1, (level - 1) * HASH_BYTES
        rows = db.execute("select nodes from audit_entry where seq = ?", (last,))
        for (nodes,) in rows:
            found = nodes[at : at + HASH_BYTES]
            if len(found) == HASH_BYTES:
                return found
        raise HomeDamaged(
            f"a subtree hash of audit entry {last} is missing: `overwinter audit verify` says what else is"
        )

    return node


def _check_size(db: apsw.Connection, wanted: int) -> None:
    stored = size(db)
    if wanted > stored:
        raise NotFound(f"the audit log has {stored} entries, not {wanted}")
