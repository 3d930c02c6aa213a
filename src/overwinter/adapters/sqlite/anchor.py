"""The anchor: where the audit log stood at the last revocation, in a file beside the database.

Whoever puts an older copy of the database back undoes what was revoked since, and nothing in the copy tells. So each commit
that stops somebody is noted in a file of its own, durable before the commit is acknowledged; a log that is shorter than it
was, or another one, is not opened until a person says so. An anchor that was put back together with the database says
nothing: then only a witness knows.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import apsw

from overwinter.adapters.sqlite import log_rows
from overwinter.errors import HomeDamaged, NotFound

__all__ = ["ANCHORED", "Accepted", "Anchor", "accept", "anchor_fault", "keep", "now", "read"]

ANCHORED = frozenset({"revoke", "restore"})
"""Kinds of entries after which the anchor is written."""
ANCHOR_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A person's word that the log may be an older one."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """What is known of a log outside of it."""

    origin: str
    """Name of the log: another home's is another one."""
    size: int
    root: bytes
    epochs: int
    """Sum of the epochs of all agents, which never falls: each revocation raises it."""
    accepted: Accepted | None = None


def now(db: apsw.Connection, origin: str, end: log_rows.Tail) -> Anchor:
    """Return the anchor of a log as it is."""
    ((epochs,),) = db.execute("select coalesce(sum(epoch), 0) from agent")
    return Anchor(origin=origin, size=end.edge.size, root=end.edge.root(), epochs=epochs)


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
    try:
        raw = place.read_bytes()[:ANCHOR_BYTES_MAX]
    except FileNotFoundError:
        return None
    try:
        row = cast("dict[str, Any]", json.loads(raw))
        accepted = row["accepted"]
        return Anchor(
            origin=str(row["origin"]),
            size=int(row["size"]),
            root=bytes.fromhex(row["root"]),
            epochs=int(row["epochs"]),
            accepted=None if accepted is None else Accepted(by=str(accepted["by"]), reason=str(accepted["reason"])),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HomeDamaged(
            f"{place} is damaged: restore it from a backup; or delete it, if you know that nobody was revoked since"
        ) from error


def keep(place: Path, anchor: Anchor) -> None:
    """Write an anchor so that it is durable, and a crash leaves the one before or this one.

    Raises:
        OSError: it could not be written.
    """
    said = anchor.accepted and {"by": anchor.accepted.by, "reason": anchor.accepted.reason}
    row = {
        "origin": anchor.origin, "size": anchor.size, "root": anchor.root.hex(), "epochs": anchor.epochs, "accepted": said,
    }  # fmt: skip
    draft = place.with_suffix(".new")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, json.dumps(row).encode())
        os.fsync(file)
    finally:
        os.close(file)
    draft.rename(place)
    directory = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def accept(place: Path, accepted: Accepted) -> Anchor:
    """Have the next opening take the log as it is then, and write down who said so; return what was known of it.

    Raises:
        NotFound: there is no anchor.
        HomeDamaged: it is not whole.
    """
    known = read(place)
    if known is None:
        raise NotFound(f"there is no {place}: nothing keeps this home from being opened")
    keep(
        place,
        Anchor(origin=known.origin, size=known.size, root=known.root, epochs=known.epochs, accepted=accepted),
    )
    return known
