"""A proof that one entry is in the log, as a file that stands alone: C2SP tlog-proof v1.

c2sp.org/tlog-proof@v1
index 7
base64 hash         siblings from the leaf to the root
...

the signed tree head with its cosignatures
"""

import re
from collections.abc import Sequence

from overwinter.adapters.notes import (
    NOTE_BYTES_MAX,
    Cosignature,
    NoteRefused,
    PublicKey,
    TreeHead,
    base64_text,
    cosignatures,
    from_base64,
    open_note,
)
from overwinter.frozen import frozen
from overwinter.merkle import is_included, leaf_hash

__all__ = ["Proved", "check", "check_file", "file_of", "text"]

MAGIC = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")
PROOF_LINES_MAX = 63


@frozen
class Proved:
    """What a proof shows: an entry stands at `seq` under this tree head."""

    seq: int
    head: TreeHead
    cosignatures: Sequence[Cosignature]
    """Of the witnesses that were asked for. How many are enough is the reader's to say."""


def text(seq: int, proof: Sequence[bytes], note: str) -> str:
    """Return the file of an inclusion proof in the tree of a note."""
    lines = "".join(f"{base64_text(each)}\n" for each in proof)
    return f"{MAGIC}\nindex {seq}\n{lines}\n{note}"


def check(found: str, entry: bytes, log: PublicKey, witnesses: Sequence[PublicKey] = ()) -> Proved:
    """Return what a file proves of an entry's bytes.

    Raises:
        NoteRefused: if it proves nothing of them, or is signed by others.
    """
    above, _, note = found[: 2 * NOTE_BYTES_MAX].partition("\n\n")
    magic, index, *lines = [*above.split("\n"), ""]
    numbered, hashes = _INDEX.fullmatch(index), [from_base64(line) for line in lines[:-1]]
    proof = [each for each in hashes if each is not None]
    if magic != MAGIC or numbered is None or len(proof) != len(hashes) or len(proof) > PROOF_LINES_MAX:
        raise NoteRefused(f"not a proof of the form {MAGIC}: {found!r:.120}")
    seq, head = int(numbered[1]), open_note(note, log)
    if not is_included(leaf_hash(entry), seq, head.size, proof, head.root):
        raise NoteRefused(
            f"the proof does not lead from this entry at {seq} to the tree head {head.size} of {log.name}"
        )
    return Proved(seq=seq, head=head, cosignatures=cosignatures(note, head, witnesses))


def file_of(entry: bytes, proof: str) -> str:
    """Return an entry with its proof as one file: the entry's bytes in the first line, the proof below."""
    return f"{entry.decode()}\n{proof}"


def check_file(found: str, log: PublicKey, witnesses: Sequence[PublicKey] = ()) -> tuple[bytes, Proved]:
    """Return the entry of a file and what the file proves of it.

    Raises:
        NoteRefused: if it proves nothing, or is signed by others.
    """
    entry, _, proof = found.partition("\n")
    raw = entry.encode()
    return raw, check(proof, raw, log, witnesses)
