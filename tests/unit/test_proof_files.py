"""A proof of one entry stands alone, and proves nothing once any of it is changed."""

import apsw
import pytest

from overwinter.adapters.notes import NoteRefused, Signer, TreeHead, cosign, cosignatures, open_note
from overwinter.adapters.proof_files import Proved, check, text
from overwinter.adapters.sqlite import log_rows
from overwinter.audit import Entry
from overwinter.errors import NotFound

LOG = Signer.of(b"\1" * 32, "runtime.example/audit", 1)
WITNESS = Signer.of(b"\2" * 32, "witness.example/w", 4)
SIZE = 13


@pytest.fixture(scope="module")
def db() -> apsw.Connection:
    db = apsw.Connection(":memory:")
    db.execute(log_rows.FORMAT_3)
    batch = [Entry(kind="approve", tenant="t", agent="a", epoch=number) for number in range(SIZE)]
    end = log_rows.append(db, log_rows.tail(db), batch, 5)
    head = open_note(log_rows.write_head(db, end, LOG), LOG.public)
    log_rows.add_cosignature(db, SIZE, WITNESS.public.name, cosign(head, WITNESS, 7))
    return db


def raw(db: apsw.Connection, seq: int) -> bytes:
    return next(log_rows.entries(db, seq))[1]


def test_every_entry_is_proved_with_the_word_of_its_witness(db) -> None:
    for seq in range(SIZE):
        proved = check(log_rows.prove(db, seq), raw(db, seq), LOG.public, [WITNESS.public])
        head = open_note(log_rows.note(db, SIZE), LOG.public)
        said = cosignatures(log_rows.note(db, SIZE), head, [WITNESS.public])
        assert proved == Proved(seq=seq, head=head, cosignatures=said)
        assert [each.time_s for each in said] == [7]


def test_the_file_is_spelt_as_c2sp_has_it(db) -> None:
    magic, index, *proof = log_rows.prove(db, 12).partition("\n\n")[0].split("\n")
    assert (magic, index) == ("c2sp.org/tlog-proof@v1", "index 12")
    assert len(proof) == 2
    assert log_rows.prove(db, 12).endswith("\n\n" + log_rows.note(db, SIZE))


def test_a_tree_of_one_leaf_needs_no_hashes() -> None:
    db = apsw.Connection(":memory:")
    db.execute(log_rows.FORMAT_3)
    end = log_rows.append(db, log_rows.tail(db), [Entry(kind="kill", tenant="t", agent="a", epoch=1)], 5)
    note = log_rows.write_head(db, end, LOG)
    assert log_rows.prove(db, 0) == f"c2sp.org/tlog-proof@v1\nindex 0\n\n{note}"
    assert check(log_rows.prove(db, 0), raw(db, 0), LOG.public).head == TreeHead(
        origin=LOG.public.name, size=1, root=end.edge.root()
    )


def test_another_entry_index_or_byte_is_refused(db) -> None:
    found, entry = log_rows.prove(db, 6), raw(db, 6)
    with pytest.raises(NoteRefused, match="does not lead"):
        check(found, raw(db, 7), LOG.public)
    for wrong in (5, 7, SIZE, 10**12):
        with pytest.raises(NoteRefused, match="does not lead"):
            check(found.replace("index 6", f"index {wrong}"), entry, LOG.public)
    signed_until = found.index("\u2014 " + WITNESS.public.name)  # without its line a witness's word is missing, no more
    for at in range(signed_until):
        damaged = found[:at] + chr(ord(found[at]) ^ 1) + found[at + 1 :]
        with pytest.raises(NoteRefused):
            check(damaged, entry, LOG.public)


@pytest.mark.parametrize(
    "found", ["", "\n\n", "c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v1\nindex 0\n\n", "x" * 10**6]
)
def test_what_is_no_proof_is_refused(found: str) -> None:
    with pytest.raises(NoteRefused):
        check(found, b"{}", LOG.public)


def test_an_entry_under_no_tree_head_has_no_proof(db) -> None:
    for seq in (-1, SIZE, 10**9):
        with pytest.raises(NotFound, match="under no tree head"):
            log_rows.prove(db, seq)
    with pytest.raises(NoteRefused):
        check(text(0, [bytes(32)] * 64, log_rows.note(db, SIZE)), raw(db, 0), LOG.public)
