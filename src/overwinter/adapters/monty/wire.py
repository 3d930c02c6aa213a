"""The interpreter's own protocol, as much of it as an ordinary turn takes.

A message is four bytes of length, little-endian, and a protobuf body. Each request gets one reply, behind as many `Print`
events as the program caused. A request that does not fit the session is refused by its reply and changes nothing: so
several may be sent at once, even one that is a guess.

Source: crates/monty-proto/proto/monty/v1/monty.proto of pydantic/monty 1.4.0.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import pydantic_monty as monty

from overwinter.frozen import frozen
from overwinter.values import Value

__all__ = [
    "CLOCKS", "CONFIGURE", "DUMP", "LENGTH_BYTES", "PRINT", "RESET", "Arena", "Call", "Kind", "Nonsense", "OsCall", "Place", "Unusual",
    "begun", "call", "completed", "configure", "feed", "head", "imported", "length", "load", "os_call", "pending", "printed",
    "resume", "returned", "state", "told", "values",
]  # fmt: skip

PROTOCOL_VERSION = 6
PARTS_MAX = 500
"""Parts of the values of one message: about 1 ms of the event loop. More is the client's work, in a thread."""
DEPTH_MAX = 20
PLACES_REMEMBERED = 1_000
CALLS_REMEMBERED = 1_000
PENDING_REMEMBERED = 256
"""Numbers of calls, and which of them are waited for: those of every program begin anew."""
TEXT_LENGTH_MAX = 16 << 10
_LENGTH = struct.Struct("<I")
_DOUBLE = struct.Struct("<d")
_VARINT, _FIXED64, _BYTES = 0, 1, 2
LENGTH_BYTES = _LENGTH.size
_MORE = 0x80
"""Bit of a byte of a number that another one follows."""
_SHORT = [bytes((number,)) for number in range(_MORE)]
_NUMBER_KEYS, _PART_KEYS = ([bytes((field << 3 | wire,)) for field in range(_MORE >> 3)] for wire in (_VARINT, _BYTES))
"""How a field begins, by its number: none that is sent is above 14."""
_INT_BITS = 63


class Unusual(Exception):
    """Not what an ordinary turn takes. Take the turn through the interpreter's client instead."""


class Nonsense(ValueError):
    """Bytes that no interpreter sends. Kill the worker that sent them."""


R = TypeVar("R")


def _reads(read: Callable[[bytes], R]) -> Callable[[bytes], R]:
    """Have a reader of bytes that a worker sent, trusted in nothing, raise `Nonsense` where they make none."""

    @wraps(read)
    def reads(raw: bytes) -> R:
        try:
            return read(raw)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
            raise Nonsense(f"{read.__name__}: {error!r}") from error

    return reads


class Kind:
    """Events that are known here, by the number of their field in `ChildEvent`."""

    FUNCTION_CALL = 2
    OS_CALL = 3
    RESOLVE_FUTURES = 5
    COMPLETE = 6
    DUMP_RESULT = 9
    OK = 10


# --- Bytes -----------------------------------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    if number < _MORE:
        return _SHORT[number]
    raw = bytearray()
    while number >= _MORE:
        raw.append(number & 0x7F | 0x80)
        number >>= 7
    raw.append(number)
    return bytes(raw)


def _number(field: int, value: int) -> bytes:
    return _NUMBER_KEYS[field] + (_SHORT[value] if value < _MORE else _varint(value))


def _part(field: int, body: bytes) -> bytes:
    size = len(body)
    return _PART_KEYS[field] + (_SHORT[size] if size < _MORE else _varint(size)) + body


def _request(field: int, body: bytes) -> bytes:
    part = _part(field, body)
    return _LENGTH.pack(len(part)) + part


def _read(raw: bytes, at: int) -> tuple[int, int]:
    """Return the number at a position, and the position behind it."""
    number = raw[at]
    at += 1
    if number < _MORE:
        return number, at
    number &= 0x7F
    shift = 7
    while True:
        byte = raw[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < _MORE:
            return number, at
        shift += 7
        if shift > _INT_BITS:
            raise ValueError("a number of more than 64 bits")


def _fields(raw: bytes) -> list[tuple[int, Any]]:
    """Return the fields of a message: each a number, or bytes."""
    found: list[tuple[int, Any]] = []
    at, end = 0, len(raw)
    while at < end:
        key = raw[at]
        at += 1
        if key >= _MORE:
            key, at = _read(raw, at - 1)
        wire = key & 7
        if wire == _FIXED64:
            found.append((key >> 3, raw[at : at + 8]))
            at += 8
            continue
        number = raw[at]
        at += 1
        if number >= _MORE:
            number, at = _read(raw, at - 1)
        if wire == _BYTES:
            found.append((key >> 3, raw[at : at + number]))
            at += number
        elif wire == _VARINT:
            found.append((key >> 3, number))
        else:
            raise Unusual(f"a field of wire type {wire}")
    return found


def length(raw: bytes, at: int) -> int:
    """Return the length of the message whose frame begins at a position."""
    return _LENGTH.unpack_from(raw, at)[0]


@_reads
def head(event: bytes) -> tuple[int, bytes]:
    """Return the kind and the body of an event; what the interpreter counts besides stands behind it."""
    return _head(event)


def _head(event: bytes) -> tuple[int, bytes]:
    key, size, at = event[0], event[1], 2
    if key >= _MORE or size >= _MORE:
        key, at = _read(event, 0)
        size, at = _read(event, at)
    return key >> 3, event[at : at + size]


def _numbers(value: Any) -> Sequence[int]:
    """Return a repeated number, which may come packed."""
    if isinstance(value, int):
        return (value,)
    found: list[int] = []
    at = 0
    while at < len(value):
        number, at = _read(value, at)
        found.append(number)
    return found


# --- Requests --------------------------------------------------------------------------------------------------------

PRINT = b"\x0a"
"""How a `Print` event begins."""
_SCRIPT = _part(1, b"main.py")
CONFIGURE = _request(1, _SCRIPT + _number(9, PROTOCOL_VERSION))
_OPTIONS = _part(5, monty.__version__.encode()) + _number(6, 120) + _number(7, 1) + _number(9, PROTOCOL_VERSION)
_OS = _part(2, b"") + _part(4, _part(1, b"")) + _part(5, _part(2, b""))
"""Clock and zone, and who sleeps: both the host."""
_OS_AWAITS, _OS_PLACE = 51, 52
CLOCKS = frozenset({"time.time", "datetime.now", "datetime.now utc", "date.today"})
"""What a program asks of its machine that is answered at once."""
DUMP = _request(7, b"")
RESET = _request(9, b"")


def configure(seed: str, limits: tuple[int, int, int, int, int]) -> bytes:
    """Return the request for a session with the limits of a program, whose clock and sleep are the host's.

    It says what the interpreter's client says, so that a snapshot is the same by either way.

    Args:
        seed: of its `random`.
        limits: bytes of memory, depth of calls, suspensions, microseconds of computing in all and in one turn.
    """
    limited = b"".join(_number(field, value) for field, value in zip((2, 4, 5, 6, 7), limits, strict=True))
    return _request(
        1, _SCRIPT + _part(2, limited) + _OPTIONS + _part(11, _OS + _part(8, _part(3, seed.encode())) + _part(9, b""))
    )


def feed(source: str, inputs: Mapping[str, Value], *, is_first: bool) -> bytes:
    """Return the request that runs a source; the reply is what it does first.

    Raises:
        Unusual: an input is other than plain and small data.
    """
    arena = Arena()
    named = [_part(2, _part(1, name.encode()) + _number(2, arena.add(value))) for name, value in inputs.items()]
    directory = _part(5, b"/") if is_first else b""
    return _request(3, _part(1, _encoded(source)) + b"".join(named) + _part(3, arena.body()) + directory)


def load(body: bytes) -> bytes:
    """Return the request that puts a state into a worker without one."""
    # As `_request(8, _part(1, body))`, but a state is kilobytes, and is copied once.
    inner = _PART_KEYS[1] + _varint(len(body))
    outer = _PART_KEYS[8] + _varint(len(inner) + len(body))
    return b"".join((_LENGTH.pack(len(outer) + len(inner) + len(body)), outer, inner, body))


@lru_cache(CALLS_REMEMBERED)
def begun(call_id: int) -> bytes:
    """Return the request that lets a program go on whose call has begun."""
    return _request(4, _number(1, call_id) + _part(2, _number(3, call_id)))


def returned(call_id: int, value: Value) -> bytes:
    """Return the request that answers a call at once."""
    arena = Arena()
    place = arena.add(value)
    return _request(4, _number(1, call_id) + _part(2, _number(1, place)) + _part(3, arena.body()))


def told(call_id: int, name: str, now: datetime) -> bytes:
    """Return the request that answers a call of `CLOCKS`, by its name."""
    if name == "time.time":
        return returned(call_id, now.timestamp())
    day = _number(1, now.year) + _number(2, now.month) + _number(3, now.day)
    clock = _number(4, now.hour) + _number(5, now.minute) + _number(6, now.second) + _number(7, now.microsecond)
    match name:
        case "date.today":
            node = _node_of(17, day)
        case "datetime.now":
            node = _node_of(19, day + clock)
        case _:
            node = _node_of(19, day + clock + _number(8, 0))
    return _request(4, _number(1, call_id) + _part(2, _number(1, 0)) + _part(3, _number(1, 1) + _part(2, node)))


def imported(call_id: int, module: str, functions: Sequence[str], identity: bytes) -> bytes:
    """Return the request that answers an import of a module of the host.

    Args:
        call_id: of the import.
        module: its name.
        functions: what is in it.
        identity: sixteen bytes, the same for each import of it in a session.
    """
    nodes: list[bytes] = []
    pairs: list[bytes] = []
    for name in functions:
        nodes += (_part(8, name.encode()), _node_of(25, _part(1, f"{module}.{name}".encode())))
        pairs.append(_part(1, _number(1, len(nodes) - 2) + _number(2, len(nodes) - 1)))
    held = _part(1, module.encode()) + _part(2, _part(1, identity)) + _part(3, b"".join(pairs))
    nodes.append(_node_of(32, held))
    arena = _number(1, len(nodes)) + b"".join(_part(2, node) for node in nodes)
    return _request(4, _number(1, call_id) + _part(2, _number(1, len(nodes) - 1)) + _part(3, arena))


def _node_of(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(body)) + body


def resume(answers: Sequence[tuple[int, int | tuple[str, str]]], arena: "Arena") -> bytes:
    """Return the request that answers calls: each by a place in the arena, or by the kind and message of an error."""
    results: list[bytes] = []
    for call_id, answer in answers:
        match answer:
            case int(place):
                outcome = _number(1, place)
            case (kind, message):
                outcome = _part(2, _part(1, kind.encode()) + _part(2, message.encode()))
        results.append(_part(1, _number(1, call_id) + _part(2, outcome)))
    return _request(6, b"".join(results) + _part(2, arena.body()))


# --- Events ----------------------------------------------------------------------------------------------------------


@frozen
class Place:
    """Where in the source a call stands."""

    filename: str
    start: int
    """In bytes."""


@frozen
class Call:
    """A call that the program makes, in the words of the interpreter's client."""

    call_id: int
    function_name: str
    args: tuple[Value, ...]
    kwargs: dict[str, Value]
    position: Place


@_reads
def call(raw: bytes) -> Call:
    """Return what a program calls.

    Raises:
        Unusual: it is a method of an object, or an argument is other than plain and small data.
    """
    name, call_id, place, arena = "", 0, b"", b""
    args: list[int] = []
    pairs: list[bytes] = []
    for field, value in _fields(raw):
        match field:
            case 1:
                name = value.decode()
            case 2:
                args.extend(_numbers(value))
            case 3:
                pairs.append(value)
            case 4:
                call_id = value
            case 7:
                arena = value
            case 8:
                place = value
            case 5:
                raise Unusual("a method of an object")
            case _:
                pass  # whether it may be answered at once
    parts = values(arena)
    return Call(
        call_id=call_id,
        function_name=name,
        args=tuple(parts[each] for each in args),
        kwargs=dict(_pair(each, parts) for each in pairs),
        position=_place(place),
    )


@frozen
class OsCall:
    """What a program asks of its machine."""

    call_id: int
    name: str
    """One of `CLOCKS`, `asyncio.sleep`, `time.sleep`, `import MODULE`."""
    args: tuple[Value, ...]
    position: Place


_OS_CALLS: Mapping[int, Callable[[dict[int, Any]], tuple[str, tuple[Value, ...]] | None]] = {
    23: lambda said: None if said else ("date.today", ()),
    24: lambda said: ("datetime.now utc" if said else "datetime.now", ()) if said in ({}, {1: b""}) else None,
    26: lambda said: ("time.time", ()) if said == {1: b"time.time"} else None,
    27: lambda said: ("time.sleep", _seconds(said)) if said.keys() <= {1} else None,
    28: lambda said: ("asyncio.sleep", _seconds(said)) if said.keys() <= {1} else None,
    31: lambda said: (f"import {said[1].decode()}", ()) if said.keys() == {1} else None,
}
"""By the number of the field that says what is asked; None: what is said with it is not known here."""


def _seconds(said: dict[int, Any]) -> tuple[Value, ...]:
    return (_DOUBLE.unpack(said[1])[0] if said else 0.0,)


@_reads
def os_call(raw: bytes) -> OsCall:
    """Return what a program asks of its machine.

    Raises:
        Unusual: it is other than `OsCall` says.
    """
    call_id, place, asked = 0, b"", None
    for field, value in _fields(raw):
        if field == 1:
            call_id = value
        elif field == _OS_PLACE:
            place = value
        elif field in _OS_CALLS:
            asked = _OS_CALLS[field](dict(_fields(value)))
        elif field != _OS_AWAITS:
            raise Unusual(f"a call of kind {field}")
    if asked is None:
        raise Unusual("a call of the machine with something more")
    return OsCall(call_id=call_id, name=asked[0], args=asked[1], position=_place(place))


@lru_cache(PLACES_REMEMBERED)
def _place(raw: bytes) -> Place:
    found = dict(_fields(raw))
    return Place(filename=str(found.get(1, b""), "utf-8"), start=found.get(2, 0))


@lru_cache(PENDING_REMEMBERED)
@_reads
def pending(raw: bytes) -> frozenset[int]:
    """Return the calls that the program waits for."""
    return frozenset(number for field, value in _fields(raw) if field == 1 for number in _numbers(value))


@_reads
def completed(raw: bytes) -> Value:
    """Return the value of a program that has ended.

    Raises:
        Unusual: it is other than plain and small data.
    """
    root, arena = 0, b""
    for field, value in _fields(raw):
        if field == 1:
            root = value
        else:
            arena = value
    return values(arena)[root]


@_reads
def state(event: bytes) -> bytes:
    """Return the state in the reply to `DUMP`.

    Raises:
        Unusual: there is none.
    """
    kind, raw = _head(event)
    if kind != Kind.DUMP_RESULT:
        raise Unusual("no state")
    return _head(raw)[1]


@_reads
def printed(event: bytes) -> list[str]:
    """Return the texts of a `Print` event."""
    segments = [dict(_fields(segment)) for _, segment in _fields(_head(event)[1])]
    return [segment[2].decode() for segment in segments if 2 in segment]  # noqa: PLR2004 - the field


# --- Values ----------------------------------------------------------------------------------------------------------


class Arena:
    """The values of one message as the interpreter takes them: one list of nodes, parts before what holds them."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []

    def body(self) -> bytes:
        """Return the message."""
        return _number(1, len(self._nodes)) + b"".join(self._nodes)

    def add(self, value: Value, depth: int = 0) -> int:
        """Add a value; return its index.

        Raises:
            Unusual: it is other than plain and small data.
        """
        node = self._node(value, depth)
        if len(self._nodes) >= PARTS_MAX:
            raise Unusual("many parts")
        self._nodes.append(_part(2, node))
        return len(self._nodes) - 1

    def _node(self, value: Value, depth: int) -> bytes:  # noqa: PLR0911 - a table
        kind = cast("type[Any]", type(value))
        if kind is str:
            return _part(8, _text(value))
        if kind is bool:
            return _number(4, value)
        if kind is int and -(1 << _INT_BITS) <= value < 1 << _INT_BITS:
            return _number(5, value << 1 ^ value >> _INT_BITS)
        if value is None:
            return _part(2, b"")
        if kind is float:
            return _varint(7 << 3 | _FIXED64) + _DOUBLE.pack(value)
        if depth < DEPTH_MAX:
            if kind is list or kind is tuple:
                rows = b"".join(_varint(self.add(each, depth + 1)) for each in value)
                return _part(11 if kind is list else 12, _part(1, rows) if rows else b"")
            if kind is dict:
                pairs = [(self.add(key, depth + 1), self.add(each, depth + 1)) for key, each in value.items()]
                return _part(14, b"".join(_part(1, _number(1, key) + _number(2, each)) for key, each in pairs))
        raise Unusual(f"a value of type {kind.__name__}")


def _text(value: str) -> bytes:
    if len(value) > TEXT_LENGTH_MAX:
        raise Unusual("a long text")
    return _encoded(value)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Unusual("half a surrogate pair") from None


@_reads
def values(arena: bytes) -> list[Value]:
    """Return the values of a message, each part of which is held by one other at most.

    Raises:
        Unusual: they are other than plain and small data.
    """
    parts: list[Value] = []
    held: set[int] = set()
    for field, node in _fields(arena):
        if field != 2:  # noqa: PLR2004 - how many there are
            continue
        if len(parts) >= PARTS_MAX:
            raise Unusual("many parts")
        ((kind, value),) = _fields(node)
        parts.append(_value(kind, value, parts, held))
    return parts


def _value(kind: int, value: Any, parts: list[Value], held: set[int]) -> Value:  # noqa: PLR0911 - a table
    match kind:
        case 8:
            return value.decode()
        case 5:
            return value >> 1 ^ -(value & 1)
        case 2:
            return None
        case 4:
            return bool(value)
        case 7:
            return _DOUBLE.unpack(value)[0]
        case 11:
            return _held(value, parts, held)
        case 12:
            return tuple(_held(value, parts, held))
        case 14:
            pairs = [_pair(pair, parts) for _, pair in _fields(value)]
            for _, each in pairs:
                _hold(each, held)
            return dict(pairs)
        case _:
            raise Unusual(f"a node of kind {kind}")


def _held(raw: bytes, parts: list[Value], held: set[int]) -> list[Value]:
    rows = [parts[place] for _, packed in _fields(raw) for place in _numbers(packed)]
    for each in rows:
        _hold(each, held)
    return rows


def _hold(part: Value, held: set[int]) -> None:
    """Refuse a list that hangs in two places: thirty of them in each other have a billion leaves."""
    if part and isinstance(part, (list, tuple, dict)):  # there is only one empty tuple
        if id(cast("object", part)) in held:
            raise Unusual("a part in two places")
        held.add(id(cast("object", part)))


def _pair(raw: bytes, parts: list[Value]) -> tuple[Any, Value]:
    found = dict(_fields(raw))
    return parts[found.get(1, 0)], parts[found.get(2, 0)]
