"""Snapshots at rest: compressed, and authenticated so that one which was altered, swapped or rolled back is refused.

    magic `OWS1` | key id, 8 bytes | HMAC-SHA256, 32 bytes | header length, 4 bytes | header, JSON | body

A body above `PLAIN_BYTES_MAX` is compressed (zlib's format), and the header says so.

The MAC covers the key id, the run, the sequence number it is for, header and body; the engine is in the header. The
interpreter does not authenticate what it loads, and one flipped bit in two hundred runs on with another result, so
nothing reaches a worker unchecked. The key lies outside the store.
"""

import hashlib
import hmac
import json
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from overwinter.errors import SnapshotRefused
from overwinter.frozen import frozen

if TYPE_CHECKING:
    import zlib  # the same names, and types, which isal leaves out
else:
    from isal import isal_zlib as zlib

__all__ = ["KEY_BYTES", "Snapshot", "key_id", "seal", "unseal"]

KEY_BYTES = 32
_MAGIC = b"OWS1"
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode
_FRAME = struct.Struct(">4s8s32sI")
PLAIN_BYTES_MAX = 3_500
"""Smaller states are kept as they are: compressing one costs a tenth of a turn and saves half a page."""
_MAC_STEP_BYTES = 2_000
"""From 2,048 bytes on Python hands its lock away for each step: 3 us of work took 46 us of a busy home's event loop."""
_BLOCK_BYTES = 64
HEADERS_REMEMBERED = 256
"""Runs of one program say the same at the same call, and JSON takes longer than the MAC."""
_COMPRESSION = 1  # 22 KB -> 7.5 KB in 45 us, where zlib takes 230 for the same; level 3 gains 2 %


@frozen
class Snapshot:
    """The interpreter's state at the end of a turn, with the names under which its calls are known outside."""

    engine: str
    """The engine that wrote it: `Interpreter.engine`."""
    pending: Mapping[int, int]
    """Ticket to call index, of every call that waits."""
    first: int | None
    """Index of the call that must be answered before any other."""
    receives: tuple[int, ...]
    """Indices of the calls that wait for a message, ascending."""
    sleeps: tuple[int, ...]
    """Indices of the calls that a passed timer answers; for any other call it is a time-out."""
    body: bytes


@lru_cache(maxsize=16)
def key_id(key: bytes) -> bytes:
    """Return eight bytes that tell keys apart and say nothing about them."""
    return hashlib.sha256(b"overwinter key id" + key).digest()[:8]


def seal(key: bytes, run_id: str, seq: int, snapshot: Snapshot) -> bytes:
    """Return the bytes to store for the state of a run after its turn `seq`."""
    is_packed = len(snapshot.body) > PLAIN_BYTES_MAX
    body = zlib.compress(snapshot.body, _COMPRESSION) if is_packed else snapshot.body
    header = _header(
        snapshot.engine, tuple(sorted(snapshot.pending.items())), snapshot.first, snapshot.receives, snapshot.sleeps,
        is_packed=is_packed,
    )  # fmt: skip
    mac = _mac(key, run_id, seq, header, body)
    return _FRAME.pack(_MAGIC, key_id(key), mac, len(header)) + header + body


@lru_cache(HEADERS_REMEMBERED)
def _header(  # noqa: PLR0913 - what a snapshot says beside its body
    engine: str, pending: tuple[tuple[int, int], ...], first: int | None, receives: tuple[int, ...], sleeps: tuple[int, ...],
    *, is_packed: bool,
) -> bytes:  # fmt: skip
    return _ENCODE([engine, pending, first, receives, sleeps, is_packed]).encode()


def unseal(key: bytes, run_id: str, seq: int, sealed: bytes, *, bytes_max: int) -> Snapshot:
    """Return what `seal` was given.

    Args:
        key: the home's snapshot key.
        run_id: the run it must belong to.
        seq: the sequence number it must be for.
        sealed: bytes from the store, trusted in nothing.
        bytes_max: largest body that will be unpacked.

    Raises:
        SnapshotRefused: if it was altered, cut, belongs to another run or turn, or was sealed with another key.
    """
    if len(sealed) < _FRAME.size:
        raise SnapshotRefused(f"the snapshot of run {run_id} has {len(sealed)} bytes: it was cut")
    magic, sealed_with, mac, header_length = _FRAME.unpack_from(sealed)
    if magic != _MAGIC:
        raise SnapshotRefused(f"the snapshot of run {run_id} has an unknown format {magic!r}")
    if sealed_with != key_id(key):
        raise SnapshotRefused(
            f"the snapshot of run {run_id} was sealed with key {sealed_with.hex()}, this home has {key_id(key).hex()}"
        )
    header, body = sealed[_FRAME.size : _FRAME.size + header_length], sealed[_FRAME.size + header_length :]
    if not hmac.compare_digest(mac, _mac(key, run_id, seq, header, body)):
        raise SnapshotRefused(
            f"the snapshot of run {run_id} is not the one written at turn {seq}: altered, rolled back or swapped"
        )
    engine, pending, first, receives, sleeps, is_packed = json.loads(str(header, "ascii"))
    return Snapshot(
        engine=engine,
        pending=dict(pending),
        first=first,
        receives=tuple(receives),
        sleeps=tuple(sleeps),
        body=_unpacked(body, bytes_max) if is_packed else body,
    )


class _Hash(Protocol):
    def copy(self) -> "_Hash": ...
    def update(self, part: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


def _mac(key: bytes, run_id: str, seq: int, header: bytes, body: bytes) -> bytes:
    # Every variable part is preceded by its length, so that no two contents share their bytes.
    place = run_id.encode()
    frame = struct.pack(">4sIQI", _MAGIC, len(place), seq, len(header))
    inner, outer = (each.copy() for each in _keyed(key))
    inner.update(frame + key_id(key) + place + header)
    for at in range(0, len(body), _MAC_STEP_BYTES):
        inner.update(body[at : at + _MAC_STEP_BYTES])
    outer.update(inner.digest())
    return outer.digest()


@lru_cache(maxsize=16)
def _keyed(key: bytes) -> tuple[_Hash, _Hash]:
    """Return the two hashes of HMAC-SHA256 after the key; copying them costs a third of what copying an `hmac.HMAC` does.

    Source: RFC 2104 2
    """
    assert len(key) <= _BLOCK_BYTES, "a longer key would be hashed first"
    block = key.ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(bytes(each ^ 0x36 for each in block)), hashlib.sha256(bytes(each ^ 0x5C for each in block))


def _unpacked(body: bytes, bytes_max: int) -> bytes:
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(body, bytes_max + 1)  # isal reads ahead: that nothing is left of the body says nothing
    if len(raw) > bytes_max:
        raise SnapshotRefused(f"the snapshot is larger than {bytes_max} bytes unpacked")
    return raw
