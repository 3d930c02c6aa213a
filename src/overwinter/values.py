"""Values that may cross between a program and the world, and their form as bytes.

The form is JSON, so that a journal can be read with any tool. What JSON lacks is an object with the one key `"$"` and
its parts: `{"$": ["datetime", "2030-01-01T00:00:00+00:00"]}`. A plain dict that has a key `"$"`, or a key that is not
a string, is written as pairs. Order of dicts is kept; it means something to a Python program.
"""

import base64
import json
import json.encoder
import math
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias, cast

from overwinter.errors import UsageError

__all__ = ["DEPTH_MAX", "PARTS_MAX", "Uncrossable", "Value", "decode", "encode", "has_half_character"]

# Recursive aliases of invariant containers refuse ordinary dicts and lists, so a value is checked by `encode`, not by
# its static type.
Value: TypeAlias = Any
"""None, bool, int, float, str, bytes, list, tuple, set, frozenset, dict, datetime, date, timedelta or Decimal, nested."""


_HALF = re.compile("[\ud800-\udfff]")


def _encoder() -> Callable[[Value], str]:
    """Return JSON's encoder, made once: `json.dumps` and `JSONEncoder.encode` make it anew at each call."""
    plain = json.JSONEncoder(separators=(",", ":"), check_circular=False)
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # a Python without it
        return plain.encode
    # No record of what encloses a part, no indent, ":" and ",", keys neither sorted nor skipped, NaN as it is.
    parts = make(None, plain.default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True)
    return lambda value: "".join(parts(value, 0))


_ENCODE = _encoder()
_HALVES = re.compile(r"(\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})|\\ud[89a-f][0-9a-f]{2}")
"""What stands in JSON for half a pair, and, in the group, what only looks like it: an escaped backslash, a whole pair."""
_ATOMS = frozenset({str, int, bool, type(None)})
DEPTH_MAX = 100
"""Deepest nesting that crosses; `json` itself gives up near 1,000."""
FLAT_MAX = 16
NESTED_MAX = 2
"""Items and levels of what is looked through before it is rewritten: at most some thousand parts."""
PARTS_MAX = 1 << 21
"""Items of all its lists and tables together, each as often as it stands there: about a second and 200 MB of ours."""


class Uncrossable(UsageError):
    """A value cannot cross between a program and the world. Convert it to plain data first."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.path: list[str] = []
        """Steps from the part that cannot cross out to the value: found on the way back, for nearly all values can."""


def encode(value: Value) -> bytes:
    """Return the bytes of a value; equal values of equal order give equal bytes.

    Half a surrogate pair, which is no character and comes of a text that somebody cut, becomes U+FFFD.

    Raises:
        Uncrossable: if a part of it is of another type, is cyclic or is nested deeper than `DEPTH_MAX`.
    """
    try:
        text = _ENCODE(value if _is_plain(value) else _plain(value, 0, _Room()))
    except Uncrossable as error:
        raise Uncrossable(f"value{''.join(reversed(error.path))} {error}") from None
    # Nearly all pairs are whole, and to find that out so is done in C.
    if "\\ud" in text and _HALF.search(json.dumps(json.loads(text), ensure_ascii=False)):
        text = _HALVES.sub(lambda found: found[1] or "\\ufffd", text)
    return text.encode()


def decode(raw: bytes) -> Value:
    """Return the value that `encode` was given.

    Raises:
        ValueError: if the bytes were not made by `encode`.
    """
    return _rich(json.loads(str(raw, "ascii")))


def has_half_character(raw: bytes | bytearray, value: Any) -> bool:  # noqa: ANN401 - any JSON
    """Return whether a text in a value, read from these bytes, has half a surrogate pair: no UTF-8 is made of that."""
    return (b"\\u" in raw or b"\xed" in raw) and _HALF.search(json.dumps(value, ensure_ascii=False)) is not None


def _is_plain(value: Value, levels: int = NESTED_MAX) -> bool:
    """Whether a value is a small table or list of atoms, and of such tables and lists: most facts are, and need no rewriting."""
    kind = cast("type[Any]", type(value))
    if (kind is not dict and kind is not list) or levels < 0 or len(value) > FLAT_MAX:
        return False
    rows: Iterable[Value] = value
    if kind is dict:
        for key in value:
            if type(key) is not str:
                return False
        rows = value.values()
    for each in rows:
        if type(each) not in _ATOMS and not _is_plain(each, levels - 1):
            return False
    return kind is list or "$" not in value


class _Room:
    """What is left of `PARTS_MAX`. A list that stands a thousand times in a list that does so itself is a million parts."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts = PARTS_MAX

    def take(self, parts: int) -> None:
        self.parts -= parts
        if self.parts < 0:
            raise Uncrossable(f"has more than {PARTS_MAX} parts: send less, or a file")


def _plain(value: Value, depth: int, room: _Room) -> Value:
    kind: type[Any] = cast("type[Any]", type(value))
    if kind in _ATOMS:
        return value
    if depth > DEPTH_MAX:
        raise Uncrossable(f"is nested deeper than {DEPTH_MAX} levels: flatten it, or keep it elsewhere")
    if kind is float:
        return value if math.isfinite(value) else {"$": ["float", repr(value)]}
    if kind is list:
        return _plain_rows(value, depth, room)
    if kind is dict:
        return _plain_dict(value, depth, room)
    if kind in (tuple, set, frozenset):
        return {"$": [kind.__name__, _plain_rows(_ordered(value), depth, room)]}
    write = _WRITERS.get(kind)
    if write is not None:
        return {"$": [kind.__name__, write(value)]}
    raise Uncrossable(
        f"is of type {kind.__name__}, which cannot cross: return plain data (dict, list, str, numbers, dates, bytes)"
    )


def _plain_rows(rows: Sequence[Value], depth: int, room: _Room) -> list[Value]:
    room.take(len(rows))
    plain: list[Value] = []
    for i, each in enumerate(rows):
        try:
            plain.append(each if type(each) in _ATOMS else _plain(each, depth + 1, room))
        except Uncrossable as error:
            error.path.append(f"[{i}]")
            raise
    return plain


def _plain_dict(value: dict[Value, Value], depth: int, room: _Room) -> Value:
    room.take(len(value))
    is_table = "$" not in value
    table: dict[Value, Value] = {}
    for key, each in value.items():
        try:
            table[key] = each if type(each) in _ATOMS else _plain(each, depth + 1, room)
        except Uncrossable as error:
            error.path.append(f"[{key!r}]")
            raise
        is_table = is_table and type(key) is str
    return table if is_table else {"$": ["dict", [[_plain_key(key, depth, room), each] for key, each in table.items()]]}


def _plain_key(key: Value, depth: int, room: _Room) -> Value:
    try:
        return _plain(key, depth + 1, room)
    except Uncrossable as error:
        error.path.append(" key")
        raise


def _ordered(value: Value) -> Value:
    """Sets have no order of their own: take one that does not depend on the process's hash seed."""
    if type(value) is tuple:
        return cast("tuple[Value, ...]", value)
    return sorted(value, key=lambda each: (type(each).__name__, repr(each)))


_WRITERS: dict[type, Callable[[Value], Value]] = {
    bytes: lambda value: base64.b64encode(value).decode(),
    datetime: datetime.isoformat,
    date: date.isoformat,
    timedelta: lambda value: [value.days, value.seconds, value.microseconds],
    Decimal: str,
}
_READERS: dict[str, Callable[[Value], Value]] = {
    "float": float,
    "tuple": lambda rows: tuple(map(_rich, rows)),
    "set": lambda rows: set(map(_rich, rows)),
    "frozenset": lambda rows: frozenset(map(_rich, rows)),
    "dict": lambda rows: {_rich(key): _rich(value) for key, value in rows},
    "bytes": base64.b64decode,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "timedelta": lambda parts: timedelta(*parts),
    "Decimal": Decimal,
}


def _rich(plain: Value) -> Value:
    if type(plain) is list:
        return [_rich(each) for each in cast("list[Value]", plain)]
    if type(plain) is not dict:
        return plain
    table = cast("dict[str, Value]", plain)
    if "$" not in table:
        return {key: _rich(each) for key, each in table.items()}
    match table["$"]:
        case [str(kind), parts] if len(table) == 1 and kind in _READERS:
            return _READERS[kind](parts)
        case _:
            raise ValueError(f"not a value: {str(table)[:80]}")
