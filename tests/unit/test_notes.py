"""Tree heads as signed notes: the spelling of C2SP, and no byte of one can be changed."""

import base64
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overwinter.adapters.notes import (
    Cosignature,
    NoteRefused,
    PublicKey,
    Signer,
    TreeHead,
    cosign,
    cosignatures,
    open_note,
    parse_key,
    sign,
    signer_in,
)
from overwinter.errors import HomeDamaged, UsageError

LOG = Signer.of(bytes(range(32)), "runtime.example/audit", 1)
WITNESS = Signer.of(bytes(range(1, 33)), "witness.example/w1", 4)
STRANGER = Signer.of(bytes(range(2, 34)), "stranger.example/w2", 4)
HEAD = TreeHead(origin="runtime.example/audit", size=20_852_163, root=bytes(range(100, 132)))
NOTE = sign(HEAD, LOG)
TIME_S = 1_900_000_000
WITNESSED = NOTE + cosign(HEAD, WITNESS, TIME_S)


def test_the_key_id_is_the_one_that_go_published() -> None:
    key = parse_key("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
    assert key.key_id().hex() == "033de0ae"
    assert str(key) == "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"


def test_a_note_is_spelt_as_c2sp_has_it() -> None:
    text, signatures = NOTE.split("\n\n")
    assert text == f"runtime.example/audit\n20852163\n{base64.b64encode(HEAD.root).decode()}"
    dash, name, signature = signatures.removesuffix("\n").split(" ")
    assert (dash, name) == ("—", "runtime.example/audit")
    raw = base64.b64decode(signature)
    assert raw[:4] == LOG.public.key_id()
    LOG.private.public_key().verify(raw[4:], f"{text}\n".encode())


def test_a_cosignature_binds_time_and_tree_head() -> None:
    raw = base64.b64decode(cosign(HEAD, WITNESS, TIME_S).split(" ")[2])
    assert int.from_bytes(raw[4:12]) == TIME_S
    signed = f"cosignature/v1\ntime {TIME_S}\n{HEAD.text()}".encode()
    WITNESS.private.public_key().verify(raw[12:], signed)


def test_what_was_signed_is_opened_and_signatures_of_strangers_are_ignored() -> None:
    note = WITNESSED + cosign(HEAD, STRANGER, 5)
    assert open_note(note, LOG.public) == HEAD
    assert cosignatures(note, HEAD, [WITNESS.public]) == [Cosignature(name="witness.example/w1", time_s=TIME_S)]
    assert cosignatures(NOTE, HEAD, [WITNESS.public]) == []


@settings(deadline=None, max_examples=30)  # each example tries every byte
@given(st.integers(1, 255))
def test_a_note_with_any_one_byte_changed_is_refused_or_says_less(change: int) -> None:
    raw = WITNESSED.encode()
    for at in range(len(raw)):
        damaged = bytes([*raw[:at], raw[at] ^ change, *raw[at + 1 :]]).decode(errors="replace")
        try:
            head = open_note(damaged, LOG.public)
            names = cosignatures(damaged, head, [WITNESS.public])
        except NoteRefused:
            continue
        # A changed name or key id is a stranger's signature: the witness's word is missing then, never false.
        assert head == HEAD
        assert names == []


@pytest.mark.parametrize(
    "note",
    [
        "", "\n\n", NOTE.rstrip("\n"), NOTE + "\n", NOTE.replace("\n\n", "\n"), f"{HEAD.text()}\n", NOTE.replace("20852163", "020852163"),
        NOTE.replace("\n\n", "\nextension\n\n"), NOTE.replace("—", "-"), NOTE.replace("=", ""), NOTE * 1_000,
        sign(TreeHead(origin="other.example", size=1, root=bytes(32)), Signer.of(bytes(32), "other.example", 1)),
    ],
)  # fmt: skip
def test_what_is_no_note_of_the_log_is_refused(note: str) -> None:
    with pytest.raises(NoteRefused):
        open_note(note, LOG.public)


def test_a_stolen_name_is_not_a_key() -> None:
    thief = Signer.of(bytes(32), "runtime.example/audit", 1)
    with pytest.raises(NoteRefused, match="no signature of key"):
        open_note(sign(HEAD, thief), LOG.public)
    forged = PublicKey(name="runtime.example/audit", kind=1, raw=LOG.public.raw)
    assert open_note(NOTE, forged) == HEAD


@pytest.mark.parametrize(
    "text", ["", "a", "a+b+c", str(LOG.public)[:-1], str(LOG.public).replace("audit", "other"), "+" * 9]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no key"):
        parse_key(text)


@pytest.mark.parametrize("name", ["", "has space", "a+b", "é", "line\nbreak"])
def test_a_name_that_a_note_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="name of a log"):
        Signer.of(bytes(32), name, 1)


def test_the_log_key_is_made_once_private_and_never_twice(tmp_path: Path) -> None:
    place = tmp_path / "log.key"
    first = signer_in(place, "log.example", 1, may_make=True)
    assert place.stat().st_mode & 0o777 == 0o600
    assert signer_in(place, "log.example", 1, may_make=False).public == first.public
    assert str(parse_key(str(first.public))) == str(first.public)
    place.chmod(0o640)
    with pytest.raises(HomeDamaged, match="chmod 600"):
        signer_in(place, "log.example", 1, may_make=False)
    place.unlink()
    with pytest.raises(HomeDamaged, match="restore it"):
        signer_in(place, "log.example", 1, may_make=False)


def test_a_signer_says_nothing_of_its_key() -> None:
    seed = bytes(range(32))
    assert seed.hex() not in repr(LOG)
    assert base64.b64encode(seed).decode() not in repr(LOG)
