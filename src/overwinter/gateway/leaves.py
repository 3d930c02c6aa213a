"""The texts of a JSON document in its own bytes, and the same bytes with other texts in their place.

Redaction changes texts and nothing else: spacing, order, numbers, keys that are there twice and the way that other texts are
escaped stay as they came. A document that was written anew whenever something is found in it would have other bytes from that
turn on, and the provider's prompt cache would miss all that came before.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

__all__ = [
    "NESTING_MAX",
    "Document",
    "Leaf",
    "Opaque",
    "inside",
    "literal",
    "read",
    "replaced",
    "shown",
    "whole_number",
]

Opaque = frozenset[str]

NUMBER_CHARS_MIN = 9
"""Shorter numbers are no card, account, telephone or identity."""
JSON_DEPTH_MAX = 3
"""Texts of JSON in texts of JSON: arguments of a tool call that hold a body as text, and one more. Below it is plain text."""
NESTING_MAX = 500
"""Lists and objects in one another, those in texts of JSON too. Counted, for what a document is must hang on its bytes alone: the
end of the stack comes sooner or later, by who calls, and what was found would be sought in other leaves the next time."""

DIGITS_MAX = 40
"""Of a whole number that is written with a point or an exponent; 1e400 stays as it is written."""
_FLOAT = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,3}))?")
_NUMBER = re.compile(rf"-?\d[\d.eE+-]{{{NUMBER_CHARS_MIN - 1},}}")
_KNOWN = frozenset({
    "additionalProperties", "args", "arguments", "cache_control", "call_id", "content", "contents", "custom", "default",
    "description", "enum", "function", "functionCall", "functionDeclarations", "functionResponse", "id", "input",
    "input_schema", "instructions", "items", "messages", "name", "output", "parameters", "parts", "path", "properties",
    "prompt", "required", "response", "role", "source", "status", "strict", "summary", "system", "systemInstruction",
    "system_instruction", "text", "thinking", "title", "tool_call_id", "tool_calls", "tool_use_id", "tools", "type",
    "variables",
})  # fmt: skip
"""Keys of the dialects and of schemas: not searched, and shown in paths. Another one may be what must not be in an error."""
_ENCODED = re.compile(r"data:[\w.+/-]{1,100}(?:;[\w.=-]{1,100}){0,4};base64,[A-Za-z0-9+/=_-]*+")
"""An image or a file in an address (RFC 2397): in a megabyte of base64 anything is found, and a letter changed destroys it."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{256,}+={0,2}")
_FILES = frozenset({"data", "partial_image_b64", "result"})
"""Keys of the dialects below which there is base64, or a text."""
_TOOLS = frozenset({"function", "functions", "functionCall", "functionDeclarations", "functionResponse", "tools"})
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_OPENING = frozenset("{[")
_BEHIND = frozenset(",:]}")
"""What may follow a text, and spaces."""
SOUGHT_MAX = 8
"""Leaves of a document that are sought one by one; to find more, all tokens are gone through."""
HEAD_CHARS = 64
"""Of a leaf, by which it is sought: to prepare the search for a whole page takes longer than to find it."""
HEADS_MAX = 8
"""Places with the same beginning that are compared."""
_FREE = frozenset({"args", "arguments", "input", "input_schema", "parameters", "properties", "response"})
"""Objects below these belong to the caller: an `id` or a `data` in them is no field of a dialect, so nothing there is opaque."""


class _Number(str):
    """A number: its digits if it is whole, else as it is written; `json` would round it or refuse it."""

    __slots__ = ()


@dataclass(slots=True)
class Leaf:
    """A text (or a long number, or a key) of a document. Not frozen: ten thousand are made for a request, and froze costs half."""

    index: int
    """Which token of its document it is, counted from 0."""
    text: str
    """Of a whole number its digits, however it is written."""
    path: tuple[str | int, ...]
    key: str = ""
    """Of an object, for a value in one: what it says of the value may be what tells a secret from a word."""
    is_number: bool = False
    inner: "Document | None" = None
    """Its own document, for a text of JSON: its leaves are looked at in its place."""


@dataclass(slots=True)
class Document:
    """A text of JSON."""

    text: str
    leaves: list[Leaf]
    """In their order."""
    passed: list[str]
    """Its other texts and keys, but for known keys."""


def _long(number: str) -> _Number | None:
    """Return a number that is looked at."""
    return _Number(number) if len(number.removeprefix("-")) >= NUMBER_CHARS_MIN else None


def _long_float(number: str) -> _Number | None:
    return None if len(number.removeprefix("-")) < NUMBER_CHARS_MIN else _Number(whole_number(number))


def whole_number(written: str) -> str:
    """Return the digits of a number of JSON if it is whole, and otherwise the number as it is written.

    12345678901.0 and 1.2345678901e10 are 12345678901: some languages write every number so.
    """
    found = _FLOAT.fullmatch(written)
    if found is None:
        return written
    sign, before, behind, exponent = found.groups(default="")
    digits, point = before + behind, len(before) + int(exponent or "0")
    if not 0 < point <= DIGITS_MAX or digits[point:].strip("0"):
        return written
    return sign + (digits[:point].ljust(point, "0").lstrip("0") or "0")


_Value: TypeAlias = "str | bool | float | list[_Value] | tuple[tuple[str, _Value], ...] | None"
"""Of JSON; an object is a tuple of pairs, a short number is None."""
_Table = tuple[tuple[str, _Value], ...]
_SCAN: Callable[[str, int], tuple[_Value, int]] = vars(
    json.JSONDecoder(object_pairs_hook=tuple, parse_int=_long, parse_float=_long_float, strict=False)
)["scan_once"]
"""Objects become tuples of pairs, so that a key which is there twice is seen twice: a provider may read the one we do not."""
_SPACE = " \t\n\r"
_PLAIN: Callable[[str], str] = json.JSONEncoder(ensure_ascii=False).encode
"""Made once: `json.dumps` makes one for each text."""
_ASCII: Callable[[str], str] = json.JSONEncoder().encode


def read(document: str, path: str, opaque: Opaque, first: int = 0) -> Document:
    """Return a document of JSON with its leaves; `first` is the number of the first element, if it is a part of a list.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    return _read(document, (path,), opaque, 0, first)


def inside(leaves: Iterable[Leaf]) -> Iterator[Leaf]:
    """Yield the leaves to look at: of a text of JSON its own leaves, not the text."""
    for leaf in leaves:
        if leaf.inner is None:
            yield leaf
        else:
            yield from inside(leaf.inner.leaves)


def replaced(document: Document, instead: Sequence[tuple[Leaf, str]]) -> str:
    """Return a document with the literals of some leaves replaced, in their order; what is given is JSON already."""
    parts: list[str] = []
    at = 0
    for (start, end), (_, new) in zip(_places(document, [leaf for leaf, _ in instead]), instead, strict=True):
        parts += (document.text[at:start], new)
        at = end
    parts.append(document.text[at:])
    return "".join(parts)


def _places(document: Document, leaves: Sequence[Leaf]) -> Sequence[tuple[int, int]]:
    """Return where the literals of leaves are."""
    places: list[tuple[int, int]] = []
    if len(leaves) <= SOUGHT_MAX:
        texts = [*document.passed, *(each.text for each in document.leaves)]
        at = 0
        for leaf in leaves:
            start, at = _sought(document.text, leaf, at) if texts.count(leaf.text) == 1 else (-1, at)
            if start < 0:
                break
            places.append((start, at))
        else:
            return places
    wanted = {leaf.index for leaf in leaves}
    every = islice(enumerate(_tokens(document.text)), max(wanted) + 1)
    return [place for index, place in every if index in wanted]


def _sought(document: str, leaf: Leaf, at: int) -> tuple[int, int]:
    """Return where the literal of a text is that no other token of its document has; (-1, at) if that is not plain.

    It may be written in a way of its own. What is found then, if anything, has to be no token either: it would have that text.
    A quote without a backslash before it begins or ends a text, and ends none if what follows cannot follow one.
    """
    sought = _ASCII(leaf.text) if document.isascii() else _PLAIN(leaf.text)
    if leaf.is_number or leaf.text in _KNOWN or leaf.text.lstrip()[:1] in _BEHIND:
        return -1, at
    head = sought[:HEAD_CHARS]
    start = document.find(head, at)
    for _ in range(HEADS_MAX):
        if start < 0 or document.startswith(sought, start):
            break
        start = document.find(head, start + 1)
    else:
        return -1, at
    is_plain = start >= 0 and document[start - 1 : start] != "\\"
    return (start, start + len(sought)) if is_plain else (-1, at)


def _tokens(document: str) -> Iterator[tuple[int, int]]:
    """Yield where the texts and long numbers of a document are that is known to be JSON: a quote outside a text begins one.

    Cut at the quotes: that takes half the time of reading each text to know where it ends.
    """
    at, begin = 0, -1
    for part in document.split('"'):
        quote = at + len(part)
        if begin < 0:
            if quote - at >= NUMBER_CHARS_MIN:
                yield from (each.span() for each in _NUMBER.finditer(document, at, quote))
            begin = quote
        elif part[-1:] != "\\" or (len(part) - len(part.rstrip("\\"))) % 2 == 0:
            yield begin, quote + 1
            begin = -1
        at = quote + 1


def shown(path: Sequence[str | int]) -> str:
    """Return a path for people: `messages[3].content`; keys that may be confidential themselves are stars."""
    return str(path[0]) + "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" if step in _KNOWN else ".*" for step in path[1:]
    )


def literal(text: str) -> str:
    """Return a text as JSON writes it; what UTF-8 cannot hold is escaped."""
    written = _PLAIN(text)
    try:
        written.encode()
    except UnicodeEncodeError:
        return _ASCII(text)
    return written


def _read(document: str, path: tuple[str | int, ...], opaque: Opaque, depth: int, first: int = 0) -> Document:
    try:
        value, end = _SCAN(document, len(document) - len(document.lstrip(_SPACE)))
        if document[end:].strip(_SPACE):
            raise ValueError("more than one document")
        walk = _Walk(depth)
        walk.over(value, path, "tools" if path == ("tools",) else "", opaque, first)
    except StopIteration:
        raise ValueError("not JSON") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return Document(document, walk.leaves, walk.passed)


def _is_tool(key: str, table: _Table, name: str) -> bool:
    """Whether a name is a tool's, which its client must know again: of a definition or a call, and no word but a name."""
    is_of_tool = key in _TOOLS or any(each in _FREE for each, _ in table)
    return is_of_tool and _TOOL_NAME.fullmatch(name) is not None


class _Walk:
    """Goes through a document in the order of its tokens."""

    __slots__ = ("depth", "index", "leaves", "passed")

    def __init__(self, depth: int) -> None:
        self.index = 0
        self.leaves: list[Leaf] = []
        self.passed: list[str] = []
        self.depth = depth

    def over(self, value: _Value, path: tuple[str | int, ...], key: str, opaque: Opaque | None, first: int) -> None:
        """Take in a value; `opaque` is None below an opaque key: its tokens are counted and not looked at."""
        if isinstance(value, tuple):
            self._table(value, path, key, opaque)
        elif isinstance(value, list):
            self._list(value, path, key, opaque, first)
        elif isinstance(value, str):
            self._text(value, path, key, opaque)

    def _list(
        self, values: list[_Value], path: tuple[str | int, ...], key: str, opaque: Opaque | None, first: int = 0
    ) -> None:
        if len(path) > NESTING_MAX:
            raise ValueError("nested too deeply")
        # The items of a list are not the caller's own object, whatever the list is called: Responses has `input`.
        under = key if key in _TOOLS else ""
        for at, each in enumerate(values, first):
            if isinstance(each, tuple):  # not by way of `over`: half the stack
                self._table(each, (*path, at), under, opaque)
            elif isinstance(each, str):
                self._text(each, (*path, at), key, opaque)
            elif isinstance(each, list):
                self._list(each, (*path, at), under, opaque)

    def _table(self, table: _Table, path: tuple[str | int, ...], key: str, opaque: Opaque | None) -> None:
        if len(path) > NESTING_MAX:
            raise ValueError("nested too deeply")
        below = frozenset[str]() if key in _FREE and opaque is not None else opaque
        for name, value in table:
            if name in _KNOWN:
                self.index += 1
            elif below is None:
                self._pass(name)
            else:
                self._leaf(name, path, "")
            if value is None:
                continue
            seen = None if below is None or name in below else below
            if isinstance(value, str):
                if name == "name" and below and type(value) is str and _is_tool(key, table, value):
                    self._pass(value)
                else:
                    self._text(value, (*path, name), name, seen)
            elif isinstance(value, tuple):
                self._table(value, (*path, name), name, seen)
            elif isinstance(value, list):
                self._list(value, (*path, name), name, seen)

    def _text(self, text: str, path: tuple[str | int, ...], key: str, opaque: Opaque | None) -> None:
        if type(text) is _Number:
            if opaque is not None:
                self.leaves.append(Leaf(self.index, text, path, key, True))
            self.index += 1
        elif opaque is None or (opaque and key in _FILES and _BASE64.fullmatch(text)):
            self._pass(text)
        else:
            self._leaf(text, path, key)

    def _leaf(self, text: str, path: tuple[str | int, ...], key: str) -> None:
        if not text or (text.startswith("data:") and _ENCODED.fullmatch(text)):
            self._pass(text)
            return
        inner = _inner(text, path, self.depth) if text[0] in _OPENING or text[0].isspace() else None
        self.leaves.append(Leaf(self.index, text, path, key, False, inner))
        self.index += 1

    def _pass(self, text: str) -> None:
        self.passed.append(text)
        self.index += 1


def _inner(text: str, path: tuple[str | int, ...], depth: int) -> Document | None:
    """Return the document that a text is; nothing in it is opaque, for it is the caller's."""
    if depth >= JSON_DEPTH_MAX or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return _read(text, path, frozenset(), depth + 1)
    except ValueError:
        return None
