"""The audit log in the store's file: proofs from its rows, one transaction with its caller, bodies that can be deleted."""

import json
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overwinter.adapters.notes import NoteRefused, Signer, TreeHead, cosign, open_note
from overwinter.adapters.sqlite import log_rows
from overwinter.audit import Body, Entry, EntryRefused, decode, hidden
from overwinter.errors import HomeDamaged, NotFound
from overwinter.merkle import Frontier, is_consistent, is_included, leaf_hash
from overwinter.verify_export import verify

LOG = Signer.of(bytes(32), "runtime.example/audit", 1)
NOW_MS = 1_900_000_000_000


def entry(number: int, **more) -> Entry:
    return Entry(kind="call.intent", tenant="t", agent="agent:t/a", epoch=1, run=f"run-{number}", **more)


def opened(place: Path | None = None) -> apsw.Connection:
    db = apsw.Connection(":memory:" if place is None else str(place))
    db.execute("pragma journal_mode=wal")
    db.execute(log_rows.FORMAT_3)
    return db


def grown(db: apsw.Connection, *sizes: int) -> log_rows.Tail:
    """Commit groups of entries, with a tree head each."""
    end = log_rows.tail(db)
    for size in sizes:
        with db:
            batch = [entry(end.edge.size + i, args=hidden(b"secret %d" % i)) for i in range(size)]
            end = log_rows.append(db, end, batch, NOW_MS + end.edge.size)
            log_rows.write_head(db, end, LOG)
    return end


def leaves(db: apsw.Connection) -> list[bytes]:
    return [leaf_hash(raw) for _, raw in log_rows.entries(db)]


@settings(deadline=None)  # each example signs and commits several times
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.data())
def test_every_entry_and_every_older_size_is_proved_from_rows(sizes: list[int], data: st.DataObject) -> None:
    db = opened()
    end = grown(db, *sizes)
    hashes, size = leaves(db), sum(sizes)
    root = Frontier().appended(hashes)[0].root()
    assert (end.edge.size, end.edge.root()) == (size, root)
    assert log_rows.tail(db) == end
    assert log_rows.tail_fault(db, end, LOG.public) is None
    for seq in range(size):
        assert is_included(hashes[seq], seq, size, log_rows.inclusion(db, seq, size), root)
    older, newer = sorted((data.draw(st.integers(1, size)), data.draw(st.integers(1, size))))
    old_root, new_root = (Frontier().appended(hashes[:each])[0].root() for each in (older, newer))
    assert is_consistent(older, newer, old_root, new_root, log_rows.consistency(db, older, newer))
    assert log_rows.node_fault(db) is None


def test_each_commit_has_one_tree_head_of_all_before_it() -> None:
    db = opened()
    grown(db, 3, 1, 4)
    hashes = leaves(db)
    sizes = [size for (size,) in db.execute("select size from audit_head order by size")]
    assert sizes == [3, 4, 8]
    for size in sizes:
        root = Frontier().appended(hashes[:size])[0].root()
        assert open_note(log_rows.note(db, size), LOG.public) == TreeHead(
            origin="runtime.example/audit", size=size, root=root
        )


def test_what_is_rolled_back_was_never_logged() -> None:
    db = opened()
    end = grown(db, 5)

    class Crash(Exception):
        pass

    def commit() -> None:
        with db:
            log_rows.write_head(db, log_rows.append(db, end, [entry(99)], NOW_MS), LOG)
            raise Crash

    with pytest.raises(Crash):
        commit()
    assert log_rows.tail(db) == end
    again = grown(db, 2)
    assert again.edge.size == 7
    assert log_rows.tail_fault(db, again, LOG.public) is None


def test_an_entry_that_is_refused_leaves_nothing() -> None:
    db = opened()
    end = grown(db, 1)
    with pytest.raises(EntryRefused), db:
        log_rows.append(db, end, [entry(1), entry(2, errors=("half \ud83d",))], NOW_MS)
    assert log_rows.tail(db) == end


def test_an_empty_commit_writes_nothing_and_the_empty_log_is_whole() -> None:
    db = opened()
    end = log_rows.tail(db)
    assert log_rows.append(db, end, [], NOW_MS) == end
    assert log_rows.last_note(db) is None
    assert log_rows.tail_fault(db, end, LOG.public) is None
    assert list(log_rows.export(db)) == []


def test_time_never_goes_back_in_the_log() -> None:
    db = opened()
    end = log_rows.tail(db)
    for now in (50, 60, 20, 59, 61):
        end = log_rows.append(db, end, [entry(0)], now)
    assert [decode(raw)["ts"] for _, raw in log_rows.entries(db)] == [50, 60, 60, 60, 61]
    assert [log_rows.first_since(db, ts) for ts in (0, 50, 51, 60, 61, 62)] == [0, 0, 1, 1, 4, 5]
    assert log_rows.tail(db).ts_ms == 61


def test_bodies_are_found_by_their_entry_and_match_it() -> None:
    db = opened()
    args, result = hidden(b"arguments"), hidden(b"result")
    log_rows.append(
        db, log_rows.tail(db), [entry(0), entry(1, args=args, result=result), entry(2, result=result)], NOW_MS
    )
    assert [log_rows.body(db, seq, "args") for seq in range(3)] == [None, args, None]
    assert [log_rows.body(db, seq, "result") for seq in range(3)] == [None, result, result]
    fields = decode(next(log_rows.entries(db, 1, 2))[1])
    assert (fields["args_hmac"], fields["result_hmac"]) == (args.hmac(), result.hmac())


@pytest.mark.claim("G4.deletable")
def test_deleted_bodies_and_keys_are_in_no_file_and_every_proof_stays(tmp_path: Path) -> None:
    db = opened(tmp_path / "store.db")
    word = b"DE02 1203 0000 0000 2020 51" * 3
    bodies = [hidden(word + b"%d" % i) for i in range(40)]
    bodies[7] = hidden(word * 2_000)  # on overflow pages
    with db:
        end = log_rows.append(db, log_rows.tail(db), [entry(i, args=each) for i, each in enumerate(bodies)], NOW_MS)
        log_rows.write_head(db, end, LOG)
    with db:
        assert log_rows.delete_bodies(db, range(20)) == 20
        assert log_rows.delete_bodies(db, [3, 5]) == 0
    db.execute("pragma wal_checkpoint(truncate)")
    on_disk = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    for i, each in enumerate(bodies):
        assert (each.key in on_disk) == (i >= 20)
    assert on_disk.count(word) >= 20  # those that stay
    assert bodies[7].content[:5_000] not in on_disk
    assert log_rows.body(db, 19, "args") is None
    assert log_rows.body(db, 20, "args") == bodies[20]
    assert log_rows.tail_fault(db, log_rows.tail(db), LOG.public) is None
    assert db.execute("pragma secure_delete").fetchall() == [(0,)]


def test_a_proof_that_cannot_be_is_refused_by_name() -> None:
    db = opened()
    grown(db, 5)
    for ask, message in (
        (lambda: log_rows.inclusion(db, 5, 5), "entry 5 is not among the first 5"),
        (lambda: log_rows.inclusion(db, -1, 5), "entry -1"),
        (lambda: log_rows.inclusion(db, 1, 6), "has 5 entries, not 6"),
        (lambda: log_rows.consistency(db, 4, 3), "did not grow"),
        (lambda: log_rows.note(db, 3), "no tree head is kept at 3"),
    ):
        with pytest.raises(NotFound, match=message):
            ask()


def test_a_tail_that_was_cut_edited_or_signed_by_another_is_seen_at_once() -> None:
    for sql, message in (
        ("delete from audit_entry where seq = 8", "the log has 8"),
        ("delete from audit_head where size > 4", "last tree head is of 4"),
        ("delete from audit_head", "last tree head is of 0"),
        ("update audit_entry set nodes = zeroblob(length(nodes)) where seq = 7", "root"),
    ):
        db = opened()
        grown(db, 4, 5)
        db.execute(sql)
        fault = log_rows.tail_fault(db, log_rows.tail(db), LOG.public)
        assert fault is not None, sql
        assert message in fault
    db = opened()
    with pytest.raises(NoteRefused):
        log_rows.tail_fault(db, grown(db, 1), Signer.of(bytes([1]) * 32, "runtime.example/audit", 1).public)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("update audit_entry set entry = x'7b7d' where seq = 8", "entry 8 is damaged"),
        ("delete from audit_entry where seq = 7", "subtree hash of audit entry 7"),
        ("update audit_entry set nodes = x'' where seq = 7", "subtree hash of audit entry 7"),
    ],
)
def test_a_damaged_end_is_not_appended_to(sql: str, message: str) -> None:
    db = opened()
    grown(db, 9)
    db.execute(sql)
    with pytest.raises(HomeDamaged, match=message):
        log_rows.tail(db)


def test_a_changed_subtree_hash_is_found() -> None:
    db = opened()
    grown(db, 20)
    db.execute("update audit_entry set nodes = zeroblob(length(nodes)) where seq = 5")
    assert (log_rows.node_fault(db) or "").startswith("entry 5:")
    db.execute("delete from audit_entry where seq = 2")
    assert log_rows.node_fault(db) == "entry 2 is missing"


def test_cosignatures_stand_under_their_tree_head() -> None:
    db = opened()
    witness = Signer.of(bytes([1]) * 32, "witness.example/w", 4)
    grown(db, 2, 2)
    head = open_note(log_rows.note(db, 2), LOG.public)
    for time_s in (5, 6):
        log_rows.add_cosignature(db, 2, "witness.example/w", cosign(head, witness, time_s))
    assert log_rows.note(db, 2).endswith(cosign(head, witness, 6))
    assert log_rows.note(db, 2).count("witness.example/w") == 1
    assert "witness" not in log_rows.note(db, 4)


def test_an_export_may_leave_out_tree_heads_but_no_cosigned_one_and_not_the_last() -> None:
    db = opened()
    witness = Signer.of(bytes([1]) * 32, "witness.example/w", 4)
    grown(db, *[1] * 23)
    log_rows.add_cosignature(
        db, 7, "witness.example/w", cosign(open_note(log_rows.note(db, 7), LOG.public), witness, 5)
    )
    for apart, expected in ((1, list(range(1, 24))), (5, [5, 7, 12, 17, 22, 23]), (100, [7, 23])):
        lines = list(log_rows.export(db, heads_apart=apart))
        notes = [json.loads(line) for line in lines if line.startswith(b'"')]
        assert [open_note(each, LOG.public).size for each in notes] == expected
        assert verify(lines, str(LOG.public)).faults == []


def test_of_old_tree_heads_the_last_of_each_day_is_kept_and_what_a_witness_signed() -> None:
    db, day_ms = opened(), 86_400_000
    witness = Signer.of(bytes([1]) * 32, "witness.example/w", 4)
    end = log_rows.tail(db)
    for day in (0, 0, 0, 1, 2, 2, 2, 3, 3):
        end = log_rows.append(db, end, [entry(end.edge.size)], NOW_MS - NOW_MS % day_ms + day * day_ms)
        log_rows.write_head(db, end, LOG)
    log_rows.add_cosignature(
        db, 2, "witness.example/w", cosign(open_note(log_rows.note(db, 2), LOG.public), witness, 5)
    )
    assert log_rows.spare_heads(db, before=0, limit=9) == []
    assert log_rows.spare_heads(db, before=6, limit=9) == [1, 5]
    assert log_rows.spare_heads(db, before=9, limit=2) == [1, 5]
    log_rows.delete_heads(db, log_rows.spare_heads(db, before=9, limit=9))
    assert [size for (size,) in db.execute("select size from audit_head order by size")] == [2, 3, 4, 7, 9]
    assert log_rows.spare_heads(db, before=9, limit=9) == []
    assert log_rows.tail_fault(db, log_rows.tail(db), LOG.public) is None
    assert verify(list(log_rows.export(db)), str(LOG.public)).faults == []
    assert log_rows.prove(db, 0).endswith(log_rows.note(db, 9))


def test_a_body_of_another_key_is_another_hmac() -> None:
    assert Body(key=b"a" * 32, content=b"x").hmac() != Body(key=b"b" * 32, content=b"x").hmac()
