"""The anchor: where the audit log stood at the last revocation, in a file beside the database.

Whoever puts an older copy of the database back undoes what was revoked since, and nothing in the copy tells. So each commit
that stops somebody is noted in a file of its own, durable before the commit is acknowledged; a log that is shorter than it
was, or another one, is not opened until a person says so. An anchor that was put back together with the database says
nothing: then only a witness knows.

The file has two slots, written in turn, each with a checksum: whatever a crash tears, the other one is whole. So an anchor is
one write in place and one sync, half of what a new file costs under its name. It follows the commit's own sync and does not
run beside it: an anchor that a crash leaves ahead of its log could not be told from a log that was put back.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, cast

import apsw

from overwinter.adapters.key_files import write_private
from overwinter.adapters.notes import PublicKey
from overwinter.adapters.sqlite import log_rows
from overwinter.errors import HomeDamaged, NotFound, UsageError
from overwinter.frozen import frozen, replace

__all__ = ["ANCHORED", "SLOT_BYTES", "Accepted", "Anchor", "AnchorFile", "accept", "anchor_fault", "now", "read"]

ANCHORED = frozenset({"revoke", "restore", "key"})
"""Kinds of entries after which the anchor is written."""
ANCHOR_BYTES_MAX = 65_536
SLOT_BYTES = 4_096
"""A page of the file system: what a crash tears of one slot leaves the other alone."""
SLOTS = 2
DIGEST_DIGITS = 64


@frozen
class Accepted:
    """A person's word that the log may be an older one."""

    by: str
    reason: str


@frozen
class Anchor:
    """What is known of a log outside of it."""

    origin: str
    """Name of the log: another home's is another one."""
    size: int
    root: bytes
    epochs: int
    """Sum of the epochs of all agents, which never falls: each revocation raises it."""
    key: str = ""
    """Whose signature its tree heads have: of a lost key nothing else tells. "": an older version did not note it."""
    accepted: Accepted | None = None


def now(db: apsw.Connection, key: PublicKey, end: log_rows.Tail) -> Anchor:
    """Return the anchor of a log as it is."""
    ((epochs,),) = db.execute("select coalesce(sum(epoch), 0) from agent")
    spelt = str(key) if any(key.raw) else ""
    return Anchor(origin=key.name, size=end.edge.size, root=end.edge.root(), epochs=epochs, key=spelt)


def anchor_fault(db: apsw.Connection, present: Anchor, known: Anchor) -> str | None:
    """Return how a log falls behind its anchor; None: it is the same one, as long or longer."""
    if present.origin != known.origin:
        return f"it is the log {present.origin}, and this home's was {known.origin}"
    if present.size < known.size:
        return f"it has {present.size} entries, and had {known.size} when somebody was last revoked or stopped"
    if log_rows.root(db, known.size) != known.root:
        return f"its first {known.size} entries are not those that it had when somebody was last revoked or stopped"
    if present.epochs < known.epochs:
        return f"the epochs of its agents add up to {present.epochs}, and did to {known.epochs}: they never fall"
    return None


def read(place: Path) -> Anchor | None:
    """Return the anchor of a file; None: there is none.

    Raises:
        HomeDamaged: it is not whole.
    """
    found = _newest(place)
    return found and found[1]


class AnchorFile:
    """Writes anchors to one file, which stays open. Used by whoever has the writing connection.

    Raises:
        HomeDamaged: there is one, and it is not whole.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._file: int | None = None
        self._written, self.known = _newest(place) or (0, None)
        """Number of the newest anchor in the file; what it says, None if there is no file."""
        if self.known is not None and place.stat().st_size == SLOTS * SLOT_BYTES:
            self._file = os.open(place, os.O_WRONLY | os.O_CLOEXEC)

    def keep(self, anchor: Anchor) -> None:
        """Write an anchor so that it is durable, and a crash leaves the one before or this one.

        Raises:
            OSError: it could not be written.
        """
        if (
            self._file is None or not os.fstat(self._file).st_nlink
        ):  # there is none, or somebody put another in its place
            self._begin(anchor)
            return
        number = self._written + 1
        os.pwrite(self._file, _slot(number, anchor), number % SLOTS * SLOT_BYTES)
        os.fdatasync(self._file)
        self._written = number

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _begin(self, anchor: Anchor) -> None:
        """Write the file anew with an anchor, whole or not at all, and open it."""
        _write(self.place, anchor)
        self.close()
        self._file, self._written = os.open(self.place, os.O_WRONLY | os.O_CLOEXEC), 0


def accept(place: Path, accepted: Accepted) -> Anchor:
    """Have the next opening take the log as it is then, and write down who said so; return what was known of it.

    Raises:
        NotFound: there is no anchor.
        HomeDamaged: it is not whole.
        UsageError: the reason is too long.
    """
    known = read(place)
    if known is None:
        raise NotFound(f"there is no {place}: nothing keeps this home from being opened")
    _write(place, replace(known, accepted=accepted))
    return known


def _write(place: Path, anchor: Anchor) -> None:
    write_private(place, _slot(0, anchor).ljust(SLOTS * SLOT_BYTES, b"\0"))


def _slot(number: int, anchor: Anchor) -> bytes:
    said = anchor.accepted and {"by": anchor.accepted.by, "reason": anchor.accepted.reason}
    row = {
        "n": number, "origin": anchor.origin, "size": anchor.size, "root": anchor.root.hex(), "epochs": anchor.epochs, "key": anchor.key, "accepted": said,
    }  # fmt: skip
    raw = json.dumps(row).encode()
    slot = hashlib.sha256(raw).hexdigest().encode() + raw
    if len(slot) > SLOT_BYTES:
        raise UsageError(f"an anchor has {len(slot)} bytes, at most {SLOT_BYTES}: give a shorter reason")
    return slot.ljust(SLOT_BYTES, b"\0")


def _newest(place: Path) -> tuple[int, Anchor] | None:
    try:
        raw = place.read_bytes()[:ANCHOR_BYTES_MAX]
    except FileNotFoundError:
        return None
    if raw.startswith(b"{"):  # one of before the slots
        parts = [raw]
    else:
        slots = [raw[at : at + SLOT_BYTES].rstrip(b"\0") for at in range(0, SLOTS * SLOT_BYTES, SLOT_BYTES)]
        parts = [each[DIGEST_DIGITS:] for each in slots if _is_whole(each)]
    try:
        return max((_parsed(part) for part in parts), key=lambda found: found[0])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HomeDamaged(
            f"{place} is damaged: restore it from a backup; or delete it, if you know that nobody was revoked since"
        ) from error


def _is_whole(slot: bytes) -> bool:
    return hashlib.sha256(slot[DIGEST_DIGITS:]).hexdigest().encode() == slot[:DIGEST_DIGITS]


def _parsed(raw: bytes) -> tuple[int, Anchor]:
    row = cast("dict[str, Any]", json.loads(raw))
    accepted = row["accepted"]
    anchor = Anchor(
        origin=str(row["origin"]),
        size=int(row["size"]),
        root=bytes.fromhex(row["root"]),
        epochs=int(row["epochs"]),
        key=str(row.get("key", "")),
        accepted=None if accepted is None else Accepted(by=str(accepted["by"]), reason=str(accepted["reason"])),
    )
    return int(row.get("n", 0)), anchor
