"""The texts of a JSON document in its own bytes, and the same bytes with other texts in their place.

Redaction changes texts and nothing else: spacing, order, numbers, keys that are there twice and the way that other texts are
escaped stay as they came. A document that was written anew whenever something is found in it would have other bytes from that
turn on, and the provider's prompt cache would miss all that came before.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from json import decoder
from typing import cast

__all__ = ["Inner", "Leaf", "Opaque", "inside", "literal", "read", "replaced", "shown"]

Opaque = frozenset[str]

NUMBER_CHARS_MIN = 9
"""Shorter numbers are no card, account, telephone or identity."""
JSON_DEPTH_MAX = 3
"""Texts of JSON in texts of JSON: arguments of a tool call that hold a body as text, and one more. Below it is plain text."""

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
_TOOLS = frozenset({"function", "functions", "functionCall", "functionDeclarations", "functionResponse", "tools"})
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_OPENING = frozenset("{[")
_FREE = frozenset({"args", "arguments", "input", "input_schema", "parameters", "properties", "response"})
"""Objects below these belong to the caller: an `id` or a `data` in them is no field of a dialect, so nothing there is opaque."""


_scanstring: Callable[[str, int, bool], tuple[str, int]] = vars(decoder)["scanstring"]
"""Reads a text behind its quote: four times as fast as a pattern that skips one."""


class _Number(str):
    """A number as it is written; `json` would round it or refuse it."""

    __slots__ = ()


@dataclass(slots=True)
class Leaf:
    """A text (or a long number, or a key) of a document. Not frozen: ten thousand are made for a request, and froze costs half."""

    index: int
    """Which token of its document it is, counted from 0."""
    text: str
    path: tuple[str | int, ...]
    key: str = ""
    """Of an object, for a value in one: what it says of the value may be what tells a secret from a word."""
    is_number: bool = False
    inner: "Inner | None" = None
    """Its own document, for a text of JSON: its leaves are looked at in its place."""


@dataclass(slots=True)
class Inner:
    """A document in a text."""

    leaves: list[Leaf]


_DECODER = json.JSONDecoder(object_pairs_hook=tuple, parse_int=_Number, parse_float=_Number, strict=False)
"""Objects become tuples of pairs, so that a key which is there twice is seen twice: a provider may read the one we do not."""


def read(document: str, path: str, opaque: Opaque) -> list[Leaf]:
    """Return the leaves of a JSON document in their order.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    return _read(document, (path,), opaque, 0)


def inside(leaves: Iterable[Leaf]) -> Iterator[Leaf]:
    """Yield the leaves to look at: of a text of JSON its own leaves, not the text."""
    for leaf in leaves:
        if leaf.inner is None:
            yield leaf
        else:
            yield from inside(leaf.inner.leaves)


def replaced(document: str, instead: Mapping[int, str]) -> str:
    """Return a document with the literals of some tokens replaced, by their index; what is given is JSON already."""
    parts: list[str] = []
    at, last = 0, max(instead, default=-1)
    for index, (start, end) in enumerate(_tokens(document)):
        literal = instead.get(index)
        if literal is not None:
            parts += (document[at:start], literal)
            at = end
            if index == last:
                break
    parts.append(document[at:])
    return "".join(parts)


def _tokens(document: str) -> Iterator[tuple[int, int]]:
    """Yield where the texts and long numbers of a document are that is known to be JSON: a quote outside a text begins one."""
    at = 0
    while at < len(document):
        quote = document.find('"', at)
        until = quote if quote >= 0 else len(document)
        if until - at >= NUMBER_CHARS_MIN:
            yield from (each.span() for each in _NUMBER.finditer(document, at, until))
        if quote < 0:
            return
        at = _scanstring(document, quote + 1, False)[1]
        yield quote, at


def shown(path: Sequence[str | int]) -> str:
    """Return a path for people: `messages[3].content`; keys that may be confidential themselves are stars."""
    return str(path[0]) + "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" if step in _KNOWN else ".*" for step in path[1:]
    )


def literal(text: str) -> str:
    """Return a text as JSON writes it; what UTF-8 cannot hold is escaped."""
    written = json.dumps(text, ensure_ascii=False)
    return written if written.isascii() or not _SURROGATE.search(written) else json.dumps(text)


_SURROGATE = re.compile("[\ud800-\udfff]")


def _read(document: str, path: tuple[str | int, ...], opaque: Opaque, depth: int) -> list[Leaf]:
    try:
        value = cast("object", _DECODER.decode(document))
        walk = _Walk(depth)
        walk.over(value, path, "tools" if path == ("tools",) else "", opaque)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return walk.leaves


def _is_file(key: str, value: object) -> bool:
    """Whether a text is a file in base64. A document of plain text has the same key, so the key alone does not tell."""
    return key == "data" and isinstance(value, str) and _BASE64.fullmatch(value) is not None


def _is_tool(key: str, table: tuple[tuple[str, object], ...], name: str) -> bool:
    """Whether a name is a tool's, which its client must know again: of a definition or a call, and no word but a name."""
    is_of_tool = key in _TOOLS or any(each in _FREE for each, _ in table)
    return is_of_tool and _TOOL_NAME.fullmatch(name) is not None


class _Walk:
    """Goes through a document in the order of its tokens."""

    __slots__ = ("depth", "index", "leaves")

    def __init__(self, depth: int) -> None:
        self.index = 0
        self.leaves: list[Leaf] = []
        self.depth = depth

    def over(self, value: object, path: tuple[str | int, ...], key: str, opaque: Opaque | None) -> None:
        """Take in a value; `opaque` is None below an opaque key: its tokens are counted and not looked at."""
        if isinstance(value, str):
            self._leaf(value, path, key, is_seen=opaque is not None and not (opaque and _is_file(key, value)))
        elif isinstance(value, list):
            for at, each in enumerate(cast("list[object]", value)):
                # The items of a list are not the caller's own object, whatever the list is called: Responses has `input`.
                under = key if isinstance(each, str) or key in _TOOLS else ""
                self.over(each, (*path, at), under, opaque)
        elif isinstance(value, tuple):
            below = frozenset[str]() if key in _FREE and opaque is not None else opaque
            table = cast("tuple[tuple[str, object], ...]", value)
            for name, each in table:
                if below is None or name in _KNOWN:
                    self.index += 1
                else:
                    self._leaf(name, path, "", is_seen=True)
                seen = None if below is None or name in below else below
                if type(each) is str and (seen is None or (name == "name" and below and _is_tool(key, table, each))):
                    self.index += 1
                elif each is not None:
                    self.over(each, (*path, name), name, seen)

    def _leaf(self, text: str, path: tuple[str | int, ...], key: str, *, is_seen: bool) -> None:
        is_number = isinstance(text, _Number)
        if is_number and len(text.removeprefix("-")) < NUMBER_CHARS_MIN:
            return
        if is_seen and text and not (text.startswith("data:") and _ENCODED.fullmatch(text)):
            inner = None if is_number else _inner(text, path, self.depth)
            self.leaves.append(Leaf(index=self.index, text=text, path=path, key=key, is_number=is_number, inner=inner))
        self.index += 1


def _inner(text: str, path: tuple[str | int, ...], depth: int) -> Inner | None:
    """Return the document that a text is; nothing in it is opaque, for it is the caller's."""
    if depth >= JSON_DEPTH_MAX or not (text[0] in _OPENING or (text[0].isspace() and text.lstrip()[:1] in ("{", "["))):
        return None
    try:
        return Inner(leaves=_read(text, path, frozenset(), depth + 1))
    except ValueError:
        return None
