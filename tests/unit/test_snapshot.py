"""A snapshot at rest comes back whole or is refused, before any interpreter sees it."""

import hmac
import random
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.errors import SnapshotRefused
from overwinter.snapshot import KEY_BYTES, PLAIN_BYTES_MAX, Snapshot, key_id, seal, unseal

KEY = bytes(range(KEY_BYTES))
BYTES_MAX = 1 << 20
SNAPSHOT = Snapshot(
    engine="monty-1.4.0/14/0123456789abcdef",
    pending={3: 0, 5: 2},
    first=None,
    receives=(2,),
    sleeps=(0,),
    body=b"[3, 5]\nMONTY\0\x0e\0" + bytes(range(256)) * 8,
)
SEALED = seal(KEY, "run-1", 7, SNAPSHOT)

SNAPSHOTS = st.builds(
    Snapshot,
    engine=st.text(st.characters(exclude_categories=("Cs",))),
    pending=st.dictionaries(st.integers(0, 2**40), st.integers(0, 2**40), max_size=5),
    first=st.none() | st.integers(0, 2**40),
    receives=st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
    sleeps=st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
    body=st.builds(bytes.__mul__, st.binary(max_size=2_000), st.integers(1, 9)),
)
RUN_IDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
SEQS = st.integers(0, 2**63)


PACKED_BY_ZLIB = bytes.fromhex(
    "4f5753314906399fecd93deff462925ebfe34079388c26f80fb3af58f3beafd3a2121196c5db3762e02ca893000000285b226d6f6e747920312e342e30"
    "222c5b5b332c315d5d2c6e756c6c2c5b5d2c5b315d2c747275655d7801edd5310d00000803302bb3c04df0857c44f0f6e25fd8ba9954671d11f80245b0"
    "05e6900834a4210d6948431ad2908634fc6a7897c58686"
)
"""`b"x = 1; " * 600`, sealed for turn 7 by a version that compressed with Python's own zlib."""


def test_a_state_that_an_earlier_version_compressed_is_read() -> None:
    snapshot = unseal(KEY, "01M8FFBYB6SH3Y2PYMRQABFQDB", 7, PACKED_BY_ZLIB, bytes_max=BYTES_MAX)
    assert snapshot.body == b"x = 1; " * 600


@given(st.binary(min_size=1), st.integers(1, 120_000))
def test_what_unpacks_to_more_than_may_be_is_refused_to_the_byte(pattern: bytes, size: int) -> None:
    body = (pattern * (size // len(pattern) + 1))[:size]
    sealed = seal(KEY, "run-1", 7, replace(SNAPSHOT, body=body))
    assert unseal(KEY, "run-1", 7, sealed, bytes_max=size).body == body
    if size > PLAIN_BYTES_MAX:
        with pytest.raises(SnapshotRefused, match="larger than"):
            unseal(KEY, "run-1", 7, sealed, bytes_max=size - 1)


@given(SNAPSHOTS, RUN_IDS, SEQS)
def test_what_was_sealed_comes_back(snapshot: Snapshot, run_id: str, seq: int) -> None:
    assert unseal(KEY, run_id, seq, seal(KEY, run_id, seq, snapshot), bytes_max=BYTES_MAX) == snapshot


def flipped(sealed: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(sealed) * 8)
    return sealed[: at // 8] + bytes([sealed[at // 8] ^ 1 << at % 8]) + sealed[at // 8 + 1 :]


def cut(sealed: bytes, dice: random.Random) -> bytes:
    return sealed[: dice.randrange(len(sealed))]


def longer(sealed: bytes, dice: random.Random) -> bytes:
    return sealed + dice.randbytes(dice.randint(1, 40))


def patched(sealed: bytes, dice: random.Random) -> bytes:
    at, size = dice.randrange(len(sealed) - 8), dice.randint(1, 8)
    patch = bytes((byte + dice.randint(1, 255)) % 256 for byte in sealed[at : at + size])
    return sealed[:at] + patch + sealed[at + size :]


def transplanted(sealed: bytes, dice: random.Random) -> bytes:
    """Take the head of one snapshot and the rest of another, both genuine."""
    other = seal(KEY, "run-1", 7, Snapshot(engine="e", pending={1: 1}, first=1, receives=(), sleeps=(), body=b"x"))
    at = dice.randrange(13, min(len(sealed), len(other)) - 1)  # both begin with the magic and the key's id
    return other[:at] + sealed[at:]


@pytest.mark.parametrize("damage", [flipped, cut, longer, patched, transplanted])
@pytest.mark.claim("D5.snapshot.damaged")
def test_two_hundred_damaged_snapshots_are_refused(damage: Callable[[bytes, random.Random], bytes]) -> None:
    dice = random.Random(20_300_101)
    for _ in range(200):
        with pytest.raises(SnapshotRefused):
            unseal(KEY, "run-1", 7, damage(SEALED, dice), bytes_max=BYTES_MAX)


@given(RUN_IDS, SEQS, RUN_IDS, SEQS)
@pytest.mark.claim("D5.snapshot.swapped")
def test_a_snapshot_of_another_run_or_turn_is_refused(run: str, seq: int, other_run: str, other_seq: int) -> None:
    sealed = seal(KEY, run, seq, SNAPSHOT)
    if (run, seq) == (other_run, other_seq):
        assert unseal(KEY, other_run, other_seq, sealed, bytes_max=BYTES_MAX) == SNAPSHOT
        return
    with pytest.raises(SnapshotRefused):
        unseal(KEY, other_run, other_seq, sealed, bytes_max=BYTES_MAX)


@pytest.mark.claim("D5.snapshot.stale")
def test_an_older_snapshot_of_the_same_run_is_refused() -> None:
    for older in range(7):
        with pytest.raises(SnapshotRefused, match="rolled back"):
            unseal(KEY, "run-1", 7, seal(KEY, "run-1", older, SNAPSHOT), bytes_max=BYTES_MAX)


@given(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES).filter(lambda key: key != KEY))
def test_another_key_opens_nothing(key: bytes) -> None:
    with pytest.raises(SnapshotRefused, match="sealed with key"):
        unseal(key, "run-1", 7, SEALED, bytes_max=BYTES_MAX)


def test_the_key_id_is_no_proof_of_the_key() -> None:
    other = bytes(KEY_BYTES)
    forged = SEALED[:4] + key_id(other) + SEALED[12:]
    with pytest.raises(SnapshotRefused, match="altered"):
        unseal(other, "run-1", 7, forged, bytes_max=BYTES_MAX)


def test_a_body_larger_than_allowed_is_not_unpacked() -> None:
    bomb = Snapshot(engine="e", pending={}, first=None, receives=(), sleeps=(), body=bytes(50_000_000))
    sealed = seal(KEY, "run-1", 7, bomb)
    assert len(sealed) < 1_000_000
    with pytest.raises(SnapshotRefused, match="larger than"):
        unseal(KEY, "run-1", 7, sealed, bytes_max=BYTES_MAX)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(SnapshotRefused):
        unseal(KEY, "run-1", 7, raw, bytes_max=BYTES_MAX)


@pytest.mark.parametrize("size", [0, 1, 1_999, 2_000, 2_001, 3_500])
def test_the_mac_is_one_hmac_over_everything(size: int) -> None:
    body = bytes(size)
    sealed = seal(KEY, "run-1", 3, replace(SNAPSHOT, body=body))
    magic, named, mac, length = struct.unpack_from(">4s8s32sI", sealed)
    header = sealed[48 : 48 + length]
    frame = struct.pack(">4sIQI", magic, len("run-1"), 3, length)
    assert mac == hmac.digest(KEY, frame + named + b"run-1" + header + body, "sha256")
