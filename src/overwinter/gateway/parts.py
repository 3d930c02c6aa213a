"""A request in parts that come again: its fields, and the elements of those that are lists.

A conversation brings all its earlier turns with each new one, and its tools and instructions. A part in which nothing was found
is not even read again; one that has something is read, for it is to be put in, and not searched.
"""

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from typing import Generic, TypeVar, cast

from overwinter.gateway.leaves import Document, Leaf, Opaque, inside, read

__all__ = ["COMMAS_MAX", "ELEMENTS_MAX", "MEMO_MAX", "Key", "Memo", "Part", "Split", "cut"]

Split = Callable[[bytes], Sequence[bytes] | None]
"""Cuts a list of JSON into its elements, each with its bytes as they came; None: it is no list."""
T = TypeVar("T")
Key = tuple[str, Opaque, bytes]
"""Of a part of a request: its field, what is not looked into, SHA-256 of its bytes."""
MEMO_MAX = 50_000
"""A turn of a conversation or a tool each, or a long text: 10 MB, and 0.1 KB for each value found."""
ELEMENTS_MAX = 10_000
"""Of a list that is cut; one request forgets a fifth of what is remembered at most."""
COMMAS_MAX = 100_000
ELEMENT_BYTES_MIN = 32
"""Of a list with more commas than that, on the average."""
_GLUE = re.compile(rb"[ \t\n\r]*(,?)[ \t\n\r]*")


class Memo(Generic[T]):
    """What is known of things already searched, by digests of them: positions and classes, never a text."""

    def __init__(self, count_max: int = MEMO_MAX) -> None:
        self._known: dict[Hashable, T] = {}
        self._count_max = count_max

    def get(self, key: Hashable) -> T | None:
        """Return what is known of one, or None: it was not searched lately."""
        return self._known.get(key)

    def put(self, key: Hashable, known: T) -> None:
        """Remember what is known of one; of too many the oldest tenth is forgotten."""
        if key not in self._known and len(self._known) >= self._count_max:
            for old in list(self._known)[: self._count_max // 10 + 1]:
                self._known.pop(old, None)  # another thread may forget at the same moment
        self._known[key] = known


@dataclass(slots=True)
class Part:
    """A field of a request, or elements side by side of one that is a list."""

    name: str
    start: int
    """Byte of its field."""
    end: int
    keys: list[Key]
    """Of the field, or of each element."""
    first: int | None = None
    """Which element is its first; None: it is a whole field."""

    def read(self, whole: bytes, opaque: Opaque) -> tuple[Document, Sequence[list[Leaf]]]:
        """Return this part of a field as a document, and the leaves to look at of each element.

        Raises:
            ValueError: it is not JSON in UTF-8, or nested too deeply.
        """
        if self.first is None:
            document = read(whole.decode(), self.name, opaque)
            return document, [list(inside(document.leaves))]
        document = read(f"[{whole[self.start : self.end].decode()}]", self.name, opaque, self.first)
        rows: list[list[Leaf]] = [[] for _ in self.keys]
        for leaf in inside(document.leaves):
            rows[cast("int", leaf.path[1]) - self.first].append(leaf)
        return document, rows

    def written(self, document: str) -> bytes:
        """Return the bytes of another document in the place of this part."""
        raw = document.encode()
        return raw if self.first is None else raw[1:-1]


def cut(name: str, raw: bytes, opaque: Opaque, split: Split, is_clean: Callable[[Key], bool]) -> Sequence[Part]:
    """Return the parts of a field to be read, those side by side as one."""
    # A list of a million numbers is cheaper to read than to cut.
    commas = raw.count(b",") if len(raw) > COMMAS_MAX else 0
    elements = (split(raw) if commas <= COMMAS_MAX or commas * ELEMENT_BYTES_MIN < len(raw) else None) or ()
    starts = _starts(raw, elements) if len(elements) <= ELEMENTS_MAX else ()
    if not starts or not elements:
        key = (name, opaque, sha256(raw).digest())
        return [] if is_clean(key) else [Part(name, 0, len(raw), [key])]
    keys = [(name, opaque, sha256(element).digest()) for element in elements]
    parts: list[Part] = []
    last = -1
    for number, key in enumerate(keys):
        if is_clean(key):
            continue
        if parts and last == number - 1:
            parts[-1].keys.append(key)
        else:
            parts.append(Part(name, starts[number], 0, [key], number))
        parts[-1].end = starts[number] + len(elements[number])
        last = number
    return parts


def _starts(raw: bytes, elements: Sequence[bytes]) -> Sequence[int]:
    """Return where the elements of a list begin; nowhere if anything is between them but a comma."""
    for glue in (b", ", b","):
        if raw == b"[%b]" % glue.join(elements):  # as it is nearly always written, and twenty times as fast
            sizes = [len(element) + len(glue) for element in elements]
            return list(accumulate(sizes, initial=1))
    starts: list[int] = []
    at = raw.find(b"[") + 1
    for element in elements:
        glue = _GLUE.match(raw, at)
        if glue is None or bool(glue[1]) is not bool(starts) or not raw.startswith(element, glue.end()):
            return ()
        starts.append(glue.end())
        at = glue.end() + len(element)
    return starts
