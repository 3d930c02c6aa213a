"""Tree heads as signed notes, in the forms of C2SP: signed-note, tlog-checkpoint and tlog-cosignature, all v1.

    origin              a tree head: what was signed, one spelling for each value
    size
    base64 root

    — name base64(key id | signature)            one line a signature; those of unknown keys are ignored

A log signs the text itself. A witness signs the text under `cosignature/v1` and a time: it says that up to then it had
seen nothing that contradicts this tree head.
"""

import base64
import hashlib
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from overwinter.adapters.key_files import key_in, make_key
from overwinter.errors import HomeDamaged, OverwinterError, UsageError
from overwinter.frozen import frozen
from overwinter.merkle import HASH_BYTES

__all__ = [
    "NOTE_BYTES_MAX", "Cosignature", "NoteRefused", "PublicKey", "Signer", "TreeHead", "base64_text", "cosign", "cosignatures",
    "from_base64", "head_of", "open_note", "parse_key", "sign", "signer_in",
]  # fmt: skip

KeyKind = Literal[1, 4]
"""Signature types of C2SP signed-note: 1 is Ed25519 of a log, 4 the timestamped cosignature of a witness."""
NOTE_BYTES_MAX = 65_536
KEY_BYTES = 32
KEY_ID_BYTES = 4
NAME = re.compile(r"[!-*,-~]{1,200}")
"""Of a key: C2SP forbids spaces and the plus sign; we take ASCII alone."""
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_LINE = re.compile(r"\u2014 (\S+) (\S+)")
_TIME = struct.Struct(">Q")


class NoteRefused(OverwinterError):
    """A tree head is not signed by whom it should be, or is misspelt. Never retry: ask whoever sent it."""


@frozen
class TreeHead:
    """What a log says of itself at one moment."""

    origin: str
    """Name of the log, and of its key."""
    size: int
    root: bytes

    def text(self) -> str:
        """Return what is signed."""
        return f"{self.origin}\n{self.size}\n{base64_text(self.root)}\n"


@frozen
class PublicKey:
    """Whose signatures count."""

    name: str
    kind: KeyKind
    raw: bytes

    def key_id(self) -> bytes:
        """Return the four bytes that lead its signatures."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.raw).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        """Return it as C2SP signed-note writes keys: `name+id+base64`."""
        return f"{self.name}+{self.key_id().hex()}+{base64_text(bytes([self.kind]) + self.raw)}"


@frozen
class Signer:
    """A private key with its name. Its `repr` holds nothing secret."""

    public: PublicKey
    private: Ed25519PrivateKey

    @classmethod
    def of(cls, seed: bytes, name: str, kind: KeyKind) -> "Signer":
        """Return the signer that 32 random bytes make.

        Raises:
            UsageError: the name cannot stand in a note.
        """
        if NAME.fullmatch(name) is None:
            raise UsageError(
                f"{name!r} cannot be the name of a log or witness: ASCII without spaces and plus, as example.com/audit"
            )
        private = Ed25519PrivateKey.from_private_bytes(seed)
        return cls(public=PublicKey(name=name, kind=kind, raw=private.public_key().public_bytes_raw()), private=private)


@frozen
class Cosignature:
    """A witness's word for a tree head."""

    name: str
    time_s: int
    """Seconds since 1970-01-01 UTC, by the witness's clock."""


def signer_in(place: Path, name: str, kind: KeyKind, *, may_make: bool) -> Signer:
    """Return the signer of a key file, made at first.

    Args:
        place: the file.
        name: of the log or witness.
        kind: what it signs.
        may_make: False if something was already signed with it: then a missing file is a loss, not a beginning.

    Raises:
        HomeDamaged: it is missing, not whole, or open to others.
    """
    if not place.exists():
        if not may_make:
            raise HomeDamaged(f"{place} is missing, and {name} has signed with it: restore it from a backup")
        make_key(place)
    return Signer.of(key_in(place), name, kind)


def parse_key(text: str) -> PublicKey:
    """Return the key of `name+id+base64`.

    Raises:
        UsageError: if it is none.
    """
    name, key_id, encoded = [*text.strip().split("+", 2), "", ""][:3]
    raw = from_base64(encoded) or b""
    kinds: dict[int, KeyKind] = {1: 1, 4: 4}
    if NAME.fullmatch(name) and len(raw) == 1 + KEY_BYTES and raw[0] in kinds:
        key = PublicKey(name=name, kind=kinds[raw[0]], raw=raw[1:])
        if key.key_id().hex() == key_id:
            return key
    raise UsageError(f"{text!r:.200} is no key: it has the form name+id+base64, as the log or witness prints its own")


def sign(head: TreeHead, *signers: Signer) -> str:
    """Return the note in which a log states its tree head. Two keys sign where one hands over to the other."""
    text = head.text()
    for each in signers:
        assert (each.public.kind, each.public.name) == (1, head.origin), f"{each.public} does not sign for {head}"
    lines = [_line(each.public, each.private.sign(text.encode())) for each in signers]
    return f"{text}\n{''.join(lines)}"


def cosign(head: TreeHead, signer: Signer, time_s: int) -> str:
    """Return the line that a witness adds to a note."""
    assert signer.public.kind == 4, f"{signer.public} is no witness's key"  # noqa: PLR2004 - C2SP's number
    return _line(signer.public, _TIME.pack(time_s) + signer.private.sign(_cosigned_text(head, time_s)))


def open_note(note: str, key: PublicKey) -> TreeHead:
    """Return the tree head that a log signed, of its own origin and in the one spelling that `sign` writes.

    Raises:
        NoteRefused: if it did not.
    """
    text, _ = _parts(note)
    head = _tree_head(text, key.name)
    signed = list(_signatures(note, key))
    if not signed:
        raise NoteRefused(
            f"the tree head {head.size} of {key.name} has no signature of key {key.key_id().hex()}: of a log that has changed its key, take the one of that time"
        )
    for signature in signed:  # C2SP signed-note: one of a known key that does not verify spoils the note
        _verify(key, signature, text.encode(), head)
    return head


def head_of(note: str) -> TreeHead:
    """Return what a note says, whoever signed it.

    Raises:
        NoteRefused: it is misspelt.
    """
    text, _ = _parts(note)
    return _tree_head(text, text.split("\n", 1)[0])


def cosignatures(note: str, head: TreeHead, witnesses: Sequence[PublicKey]) -> list[Cosignature]:
    """Return what these witnesses signed under a note whose tree head was opened.

    Raises:
        NoteRefused: if a signature of one of them does not verify.
    """
    found = list[Cosignature]()
    for key in witnesses:
        for signature in _signatures(note, key):
            time_s = _TIME.unpack_from(signature.ljust(_TIME.size, b"\0"))[0]
            _verify(key, signature[_TIME.size :], _cosigned_text(head, time_s), head)
            found.append(Cosignature(name=key.name, time_s=time_s))
    return found


def _line(key: PublicKey, signature: bytes) -> str:
    return f"\u2014 {key.name} {base64_text(key.key_id() + signature)}\n"


def _cosigned_text(head: TreeHead, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{head.text()}".encode()


def _parts(note: str) -> tuple[str, list[str]]:
    text, blank, signatures = note[: NOTE_BYTES_MAX + 1].rpartition("\n\n")
    *lines, rest = signatures.split("\n")
    if not blank or rest or len(note) > NOTE_BYTES_MAX:
        raise NoteRefused(
            f"not a note: a text, an empty line, lines of signatures, at most {NOTE_BYTES_MAX} characters"
        )
    return f"{text}\n", lines


def _signatures(note: str, key: PublicKey) -> Iterator[bytes]:
    for line in _parts(note)[1]:
        found = _LINE.fullmatch(line)
        signature = from_base64(found[2]) if found else None
        if found is None or signature is None:
            raise NoteRefused(f"{line!r:.120} is no line of a signature")
        if found[1] == key.name and signature[:KEY_ID_BYTES] == key.key_id():
            yield signature[KEY_ID_BYTES:]


def _tree_head(text: str, origin: str) -> TreeHead:
    lines = text.split("\n")
    if len(lines) != 4 or lines[0] != origin:  # noqa: PLR2004 - three lines; C2SP allows extensions, we do not
        raise NoteRefused(f"not a tree head of {origin}: {text!r:.120}")
    root = from_base64(lines[2])
    if _DECIMAL.fullmatch(lines[1]) is None or root is None or len(root) != HASH_BYTES:
        raise NoteRefused(f"a tree head of {origin} is misspelt: {text!r:.120}")
    return TreeHead(origin=origin, size=int(lines[1]), root=root)


def _verify(key: PublicKey, signature: bytes, signed: bytes, head: TreeHead) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, signed)
    except (InvalidSignature, ValueError) as error:
        raise NoteRefused(
            f"the signature of {key.name} under the tree head {head.size} of {head.origin} is false"
        ) from error


def base64_text(raw: bytes) -> str:
    """Return bytes as RFC 4648 base 64."""
    return base64.b64encode(raw).decode()


def from_base64(text: str) -> bytes | None:
    """Return the bytes of base 64 in its one spelling, else None."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return raw if base64_text(raw) == text else None
