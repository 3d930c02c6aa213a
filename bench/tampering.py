"""What somebody can do to a log who owns its database, and perhaps its signing key: rewritings, each put into real rows."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from shutil import copytree
from typing import Any

import apsw

from overwinter.adapters.notes import Signer, TreeHead, base64_text, open_note, sign
from overwinter.adapters.sqlite import log_rows
from overwinter.adapters.witness import Witness
from overwinter.audit import Entry, canonical, decode, hidden
from overwinter.merkle import Frontier, leaf_hash
from overwinter.verify_export import Report, verify

START_MS = 1_900_000_000_000
STEP_MS = 60_000
"""Between entries: backdating by less than the clocks may differ is no backdating."""
GROUP = 50
"""Entries under one tree head."""
SIZE = 500
MIDDLE = SIZE // 2 + 3
Fields = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """An honest log, witnessed up to its end."""

    db: apsw.Connection
    log: Signer
    witness: Witness


def opened(place: Path, clock_s: Callable[[], int] = lambda: 0) -> Log:
    """Open the log and the witness of a directory."""
    log = Signer.of(b"\1" * 32, "runtime.example/audit", 1)
    signer = Signer.of(b"\2" * 32, "witness.example/w", 4)
    witness = Witness(place=place / "witness.json", signer=signer, logs=[log.public], now_s=clock_s)
    return Log(db=apsw.Connection(str(place / "log.db")), log=log, witness=witness)


def write_honest(place: Path) -> None:
    """Write a log of `SIZE` entries in groups; a witness signs each tree head, and the last one again a day later."""
    clock_s = [0]
    log = opened(place, lambda: clock_s[0])
    log.db.execute(log_rows.FORMAT_3)
    end = log_rows.tail(log.db)
    while end.edge.size < SIZE:
        with log.db:
            for _ in range(GROUP):
                end = log_rows.append(log.db, end, [act(end.edge.size)], START_MS + STEP_MS * end.edge.size)
            log_rows.write_head(log.db, end, log.log)
        clock_s[0] = end.ts_ms // 1_000 + 1
        assert witnessed(log) == 200
    clock_s[0] += 86_400
    assert witnessed(log) == 200
    log.db.close()


def act(number: int) -> Entry:
    """Return what is logged at one position."""
    return Entry(
        kind="call.intent", tenant="acme", agent="agent:acme/billing", epoch=1, run=f"run-{number % 7}", tool="bank.transfer",
        args=hidden(b'{"amount": %d}' % number), decision="allow",
    )  # fmt: skip


def witnessed(log: Log) -> int:
    """Take the last tree head to the witness; return what it answers, as HTTP has it."""
    note = log_rows.last_note(log.db) or ""
    head = open_note(note, log.log.public)
    seen = log.witness.seen(head.origin)
    old = open_note(seen, log.log.public).size if seen else 0
    proof = "".join(f"{base64_text(each)}\n" for each in log_rows.consistency(log.db, old, head.size))
    answer = log.witness.add_tree_head(f"old {old}\n{proof}\n{note}".encode())
    if answer.status == 200:
        with log.db:
            log_rows.add_cosignature(log.db, head.size, log.witness.signer.public.name, answer.text)
    return answer.status


def judged(log: Log, *, with_witness: bool) -> Report:
    """Return what the offline check says of the log, with or without what the witness remembers."""
    lines = log_rows.export(log.db)
    if not with_witness:
        return verify(lines, str(log.log.public))
    seen = log.witness.seen(log.log.public.name)
    return verify(lines, str(log.log.public), [str(log.witness.signer.public)], [seen] if seen else [])


# --- The attacks: entries in, entries out ------------------------------------------------------------------------------


def edited(rows: list[Fields]) -> list[Fields]:
    return [{**row, "tool": "bank.balance"} if row["seq"] == MIDDLE else row for row in rows]


def deleted(rows: list[Fields]) -> list[Fields]:
    """Leave a gap."""
    return [row for row in rows if row["seq"] != MIDDLE]


def renumbered(rows: list[Fields]) -> list[Fields]:
    """Delete, and close the gap."""
    return _numbered(deleted(rows))


def inserted(rows: list[Fields]) -> list[Fields]:
    return _numbered([*rows[:MIDDLE], {**rows[MIDDLE - 1], "agent": "agent:acme/scapegoat"}, *rows[MIDDLE:]])


def reordered(rows: list[Fields]) -> list[Fields]:
    """Swap two neighbours and their times, so that sequence and times look right."""
    one, other = rows[MIDDLE], rows[MIDDLE + 1]
    swapped = [{**other, "ts": one["ts"]}, {**one, "ts": other["ts"]}]
    return _numbered([*rows[:MIDDLE], *swapped, *rows[MIDDLE + 2 :]])


def forked(rows: list[Fields]) -> list[Fields]:
    """Tell another history from one entry on, longer than the true one."""
    other = [{**row, "agent": "agent:acme/other"} for row in rows[MIDDLE:]]
    return _numbered([*rows[:MIDDLE], *other, *({**row, "ts": other[-1]["ts"]} for row in other[:GROUP])])


def backdated(rows: list[Fields]) -> list[Fields]:
    """Move an entry to an earlier time that still fits between its neighbours."""
    return [{**row, "ts": row["ts"] - STEP_MS // 2} if row["seq"] == MIDDLE else row for row in rows]


def backdated_at_the_end(rows: list[Fields]) -> list[Fields]:
    """Add an entry now, a day later, that claims to be as old as its predecessor."""
    return [*rows, {**rows[-1], "seq": len(rows)}]


def truncated(rows: list[Fields]) -> list[Fields]:
    return rows[:MIDDLE]


def truncated_at_a_head(rows: list[Fields]) -> list[Fields]:
    return rows[: SIZE - 2 * GROUP]


def _numbered(rows: list[Fields]) -> list[Fields]:
    return [{**row, "seq": i} for i, row in enumerate(rows)]


ATTACKS: dict[str, Callable[[list[Fields]], list[Fields]]] = {
    "edit": edited,
    "delete": deleted,
    "renumber": renumbered,
    "insert": inserted,
    "reorder": reordered,
    "fork": forked,
    "backdate": backdated,
    "backdate at the end": backdated_at_the_end,
    "truncate": truncated,
    "truncate at an old head": truncated_at_a_head,
}


def attack(log: Log, rewrite: Callable[[list[Fields]], list[Fields]], *, has_log_key: bool) -> None:
    """Rewrite the database as its owner would: entries, subtree hashes, tree heads; bodies and cosignatures go.

    With the log's key every tree head is signed anew over what now stands there. Without it the true tree heads stay as
    far as they reach, and one that the rewritten log needs at its end is signed with another key of the same name.
    """
    rows = rewrite([dict(decode(raw)) for _, raw in log_rows.entries(log.db)])
    written = [canonical(row) for row in rows]
    leaves = [leaf_hash(raw) for raw in written]
    signer = log.log if has_log_key else Signer.of(b"\3" * 32, log.log.public.name, 1)
    with log.db:
        log.db.execute("delete from audit_entry; delete from audit_body; delete from audit_cosignature")
        _, completed = Frontier().appended(leaves)
        log.db.executemany(
            "insert into audit_entry values (?, ?, ?)",
            zip((row["seq"] for row in rows), completed, written, strict=True),
        )
        log.db.execute("delete from audit_head where size > ?", (len(rows),))
        sizes = {size for (size,) in log.db.execute("select size from audit_head")}
        for size in sizes | {len(rows)} if has_log_key else {len(rows)} - set(range(SIZE + 1)):
            head = TreeHead(origin=log.log.public.name, size=size, root=Frontier().appended(leaves[:size])[0].root())
            log.db.execute("insert or replace into audit_head values (?, ?)", (size, sign(head, signer)))


def tamper_matrix(place: Path) -> dict[tuple[str, bool, bool], bool]:
    """Return which attack is found: (name, attacker has the log's key, a witness is asked) to whether it is."""
    (place / "honest").mkdir()
    write_honest(place / "honest")
    found = dict[tuple[str, bool, bool], bool]()
    for number, (name, has_log_key) in enumerate(product(ATTACKS, (False, True))):
        log = opened(copytree(place / "honest", place / str(number)))
        attack(log, ATTACKS[name], has_log_key=has_log_key)
        for with_witness in (False, True):
            found[name, has_log_key, with_witness] = bool(judged(log, with_witness=with_witness).faults)
        log.db.close()
    return found
