"""Snapshots at rest: what is not exactly what was written is refused before anything looks at it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.errors import SnapshotRefused
from overwinter.snapshot import KEY_BYTES, Snapshot, seal, unseal

KEY = bytes(range(KEY_BYTES))
RUN = "01M86DYQGJPRY3JM8YQDS0JCR2"
LIMIT = 1 << 20


def snapshot(body: bytes) -> Snapshot:
    return Snapshot(engine="monty", pending={0: 3, 7: 4}, first=None, receives=(4,), sleeps=(3,), body=body)


@given(st.binary(max_size=20_000), st.integers(0, 1 << 40))
def test_what_was_sealed_comes_back(body, seq):
    assert unseal(KEY, RUN, seq, seal(KEY, RUN, seq, snapshot(body)), bytes_max=LIMIT) == snapshot(body)


@pytest.mark.claim("D5.refused")
def test_a_thousand_damaged_cut_swapped_and_stale_snapshots_are_refused():
    rng = random.Random(5)
    whole = [seal(KEY, RUN, 9, snapshot(rng.randbytes(size))) for size in (10, 3_000, 9_000)]
    refused = 0
    for number in range(1_000):
        sealed = bytearray(whole[number % 3])
        match number % 4:
            case 0 | 1:
                place = rng.randrange(len(sealed))
                sealed[place] ^= 1 << rng.randrange(8)
            case 2:
                del sealed[rng.randrange(len(sealed)) :]
            case _:
                place = rng.randrange(len(sealed))
                sealed[place:place] = rng.randbytes(rng.randint(1, 9))
        with pytest.raises(SnapshotRefused):
            unseal(KEY, RUN, 9, bytes(sealed), bytes_max=LIMIT)
        refused += 1
    assert refused == 1_000
    for key, run, seq in ((KEY, RUN, 8), (KEY, RUN, 10), (KEY, RUN[::-1], 9), (bytes(KEY_BYTES), RUN, 9)):
        with pytest.raises(SnapshotRefused):
            unseal(key, run, seq, whole[1], bytes_max=LIMIT)


def test_a_body_that_unpacks_beyond_the_limit_is_refused():
    sealed = seal(KEY, RUN, 1, snapshot(bytes(LIMIT + 1)))
    assert len(sealed) < LIMIT
    with pytest.raises(SnapshotRefused, match="larger"):
        unseal(KEY, RUN, 1, sealed, bytes_max=LIMIT)
