"""What the tamper-evident log costs, and what it finds.

Writing: groups of 64 entries with their bodies, one durable commit a group (WAL, synchronous=FULL). Floor, in the same run and
group by group in turn: the same entries as JSON and the same bodies in plain tables, no tree, no tree head; both encode
inside the time. Rates are of the median group, so that a pause of the disk counts for neither.
Checking: the whole offline check of that log, reading it from the file included; it waits for nothing, so the rate by its own
CPU time is what an idle machine gives. Proving: inclusion of entries at random in a log of a million. Attacks:
`bench.tampering`, each as the database's owner and with the log's key stolen besides, with and without a witness.
"""

import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import apsw

from bench.report import percentile
from bench.tampering import ATTACKS, tamper_matrix
from overwinter.adapters.notes import Signer
from overwinter.adapters.sqlite import log_rows
from overwinter.audit import Entry, Site, encode, hidden
from overwinter.merkle import is_included, leaf_hash
from overwinter.verify_export import verify

GROUP = 64
WARM_UP = 10
"""Groups."""
NOW_MS = 1_900_000_000_000
LOG = Signer.of(b"\1" * 32, "runtime.example/audit", 1)
PLAIN = """
create table entry (seq integer primary key, entry blob not null) strict;
create table body (id integer primary key, key blob not null, content blob not null) strict;
"""
Write = Callable[[Sequence[Entry]], None]


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    groups, proved_of = (60, 100_000) if is_small else (400, 1_000_000)
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as name:  # /tmp of some machines is memory
        place = Path(name)
        return {**written(place, groups), **proved(place, proved_of), **attacked(place)}


def written(place: Path, groups: int) -> dict[str, Any]:
    """Write to both in turn, then check what was written."""
    ours, plain = opened(place / "ours.db", log_rows.FORMAT_3), opened(place / "plain.db", PLAIN)
    pair = ((logging(ours), list[float]()), (keeping(plain), list[float]()))
    for number in range(groups + WARM_UP):
        batch = [call(number * GROUP + i) for i in range(GROUP)]
        for write, times in pair if number % 2 else reversed(pair):
            began = time.perf_counter()
            write(batch)
            times.append(time.perf_counter() - began)
    (ours_s, plain_s) = (percentile(times[WARM_UP:], 0.5) for _, times in pair)
    began, cpu_began = time.perf_counter(), time.process_time()
    report = verify(log_rows.export(ours), str(LOG.public))
    check_s, check_cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    assert not report.faults, report.faults
    return {
        "group": GROUP,
        "n": groups * GROUP,
        "per_s": round(GROUP / ours_s),
        "plain_per_s": round(GROUP / plain_s),
        "ratio": round(plain_s / ours_s, 2),
        "verify_per_s": round(report.entries / check_s),
        "verify_per_cpu_s": round(report.entries / check_cpu_s),
    }


def opened(path: Path, tables: str) -> apsw.Connection:
    """Open a file as the store does."""
    db = apsw.Connection(str(path))
    for pragma in ("page_size=8192", "journal_mode=wal", "synchronous=full", "cache_size=-8192"):
        db.execute(f"pragma {pragma}")
    db.execute(tables)
    return db


def logging(db: apsw.Connection) -> Write:
    """Return what writes a group to the log."""
    end = log_rows.tail(db)

    def write(batch: Sequence[Entry]) -> None:
        nonlocal end
        with db:
            end = log_rows.append(db, end, batch, NOW_MS)
            log_rows.write_head(db, end, LOG)

    return write


def keeping(db: apsw.Connection) -> Write:
    """Return what writes a group to plain tables."""
    numbers = count()

    def write(batch: Sequence[Entry]) -> None:
        with db:
            rows = [(seq, entry) for seq, entry in zip(numbers, batch, strict=False)]
            raws = [(seq, encode(entry, seq=seq, ts_ms=NOW_MS)) for seq, entry in rows]
            db.executemany("insert into entry values (?, ?)", raws)
            bodies = [(seq * 2, each.key, each.content) for seq, entry in rows for _, each in entry.bodies()]
            db.executemany("insert into body values (?, ?, ?)", bodies)

    return write


def call(number: int) -> Entry:
    """Return an intent as a governed run logs it, about 600 bytes."""
    return Entry(
        kind="call.intent", tenant="acme", agent="agent:acme/billing", epoch=3, run="01J9ZK3V7Q8R5T6W1X2Y3Z4A5B",
        act=("anna@example.com", "agent:acme/planner"), site=Site(program_sha256="ab" * 32, start=10, end=40),
        tool="crm.find_contact", tool_pin="cd" * 32, args=hidden(json.dumps({"email": f"{number}@example.com"}).encode()),
        decision="allow", policy_ids=("billing-reads",), policy_set_sha256="ef" * 32,
    )  # fmt: skip


def proved(place: Path, size: int) -> dict[str, Any]:
    """Write a long log of short entries in large commits, then prove some of them at random, each checked."""
    db = opened(place / "long.db", log_rows.FORMAT_3)
    db.execute("pragma synchronous=off")
    end, batch = log_rows.tail(db), [Entry(kind="model.call", tenant="t", agent="agent:t/a", epoch=1)] * 10_000
    while end.edge.size < size:
        with db:
            end = log_rows.append(db, end, batch, NOW_MS)
    db.close()
    db = apsw.Connection(str(place / "long.db"))
    root, dice, times = end.edge.root(), random.Random(20_300_101), list[float]()
    for seq in (dice.randrange(size) for _ in range(1_000)):
        ((_, raw),) = log_rows.entries(db, seq, seq + 1)
        began = time.perf_counter()
        proof = log_rows.inclusion(db, seq, size)
        times.append(1e3 * (time.perf_counter() - began))
        assert is_included(leaf_hash(raw), seq, size, proof, root)
    db.close()
    return {
        "proof_of": size,
        "proof_ms": round(percentile(times, 0.5), 3),
        "proof_p99_ms": round(percentile(times, 0.99), 3),
    }


def attacked(place: Path) -> dict[str, Any]:
    """Count what is found, with a witness and without."""
    matrix = tamper_matrix(place)
    return {
        "attacks": 2 * len(ATTACKS),
        "found": sum(is_found for (_, _, with_witness), is_found in matrix.items() if with_witness),
        "found_without_witness": sum(is_found for (_, _, with_witness), is_found in matrix.items() if not with_witness),
    }
