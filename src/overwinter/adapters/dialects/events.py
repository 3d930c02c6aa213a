"""Server-sent events: where one ends, what is in it, how one is written (HTML Living Standard, 9.2.6).

The bytes of an event are kept as they came: line ends, comments and fields that nobody knows. However the stream was cut, the
same events come out.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec

from overwinter.gateway.dialect import Event, Text
from overwinter.gateway.refusal import ModelRefused, Refusal

__all__ = [
    "COMMENT",
    "EVENT_BYTES_MAX",
    "Cutter",
    "Likeness",
    "Sayings",
    "StreamReader",
    "WholeReader",
    "checked",
    "framed",
    "in_one_line",
    "parts",
    "rewritten",
    "turned",
]

COMMENT = b": the answer is on its way\n\n"
"""The standard has clients pass it over, the official SDKs of OpenAI and Anthropic do, and OpenRouter sends the like all the time."""
EVENT_BYTES_MAX = 16 << 20
"""Of one event: the last one of Responses repeats the whole answer, images in base64 too."""
LIKENESS_TRIES_MAX = 4
"""Events in a row that are not like the one before; some providers put a number, or letters at random, into each."""
Again = Callable[[Sequence[bytes]], tuple[Event, int] | None]
"""What some events are, and how many of them, that are more of the same text as the last one; None: the first is not."""
RUN_MAX = 64
"""Events at most that are one."""
P = ParamSpec("P")
R = TypeVar("R")
_BLANK = re.compile(rb"\n(?:\n|\r\n?)|\r\r\n?")
"""The end of an event: a line end and an empty line, from the last byte of the first on."""


class Cutter:
    """Cuts a stream into its events."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._has_returns = False
        self._searched = 0
        """How much of what is held has no end of an event in it."""

    def feed(self, chunk: bytes, *, is_last: bool = False) -> list[bytes]:
        """Return the events that are whole by now, each with the empty line that ends it."""
        held = self._held
        if not held and 0 < chunk.find(b"\n\n") == len(chunk) - 2 and chunk[:1] != b"\n" and b"\r" not in chunk:
            return [chunk]  # one event in one piece, as providers write them
        held += chunk
        self._has_returns = self._has_returns or b"\r" in chunk
        found, start = list[bytes](), 0
        while True:
            end = self._end(start, is_last=is_last)
            if end < 0:
                break
            found.append(bytes(held[start:end]))
            start = self._searched = end
        if start:
            del held[:start]
        self._searched = max(0, len(held) - 3)
        return found

    def rest(self) -> bytes:
        """Return what has no end yet."""
        return bytes(self._held)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held."""
        return not self._held

    @property
    def held_bytes(self) -> int:
        """Return how much has no end yet."""
        return len(self._held)

    def _end(self, start: int, *, is_last: bool) -> int:
        held = self._held
        if start < len(held) and held[start] in b"\r\n":  # an event of its own, without anything in it
            end = start + (2 if held.startswith(b"\r\n", start) else 1)
        else:
            end = self._blank(max(start, self._searched))
            if end < 0:
                return -1
        # A carriage return at the very end may be half of a line end.
        return -1 if end == len(held) and held[end - 1] == 13 and not is_last else end  # noqa: PLR2004 - a carriage return

    def _blank(self, start: int) -> int:
        if not self._has_returns:
            found = self._held.find(b"\n\n", start)
            return found if found < 0 else found + 2
        match = _BLANK.search(self._held, start)
        return -1 if match is None else match.end()


def is_one_line(wire: bytes) -> bool:
    """Whether this is one line and an empty one."""
    return wire.endswith(b"\n\n") and wire.find(b"\n") == len(wire) - 2 and b"\r" not in wire


def parts(wire: bytes) -> tuple[str, bytes]:
    """Return the name of an event and its data; "" and nothing for a comment."""
    line = wire.find(b"\n") + 1 if wire.startswith(b"event: ") else 0
    if wire.startswith(b"data: ", line) and wire.find(b"\n", line) == len(wire) - 2 and b"\r" not in wire:
        return wire[7 : line - 1].decode("utf-8", "replace") if line else "", wire[line + 6 : -2]
    name, lines = "", list[bytes]()
    for each in wire.removeprefix(b"\xef\xbb\xbf").splitlines():
        field, _, value = each.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ").decode("utf-8", "replace")
    return name, b"\n".join(lines)


def framed(content: bytes, name: str = "") -> bytes:
    """Return an event with this data, which is one line."""
    head = b"event: %b\n" % name.encode() if name else b""
    return b"%bdata: %b\n\n" % (head, content)


def in_one_line(wire: bytes, name: str, content: bytes) -> tuple[bytes, bytes]:
    """Return an event and its data, which is one stretch of its bytes; data in several lines becomes one."""
    if content in wire:
        return wire, content
    content = msgspec.json.encode(msgspec.json.decode(content))
    return framed(content, name), content


def rewritten(event: Event, texts: Sequence[Text], places: Callable[[Any], Iterable[tuple[Any, Any]]]) -> bytes:
    """Return an event's bytes with other texts in the place of its own.

    Args:
        event: as it came.
        texts: the others, in the order of its own.
        places: returns where the texts of an event stand: what holds each, and under which key.
    """
    name, content = parts(event.wire)
    node = msgspec.json.decode(content or event.wire)
    for (place, key), other in zip(places(node), texts, strict=True):
        place[key] = other.text
    return framed(msgspec.json.encode(node), name) if content else msgspec.json.encode(node)


def turned(turn: Callable[P, R]) -> Callable[P, R]:
    """Return the same, with a refusal for an answer that has something in a place where nobody expects it.

    What goes by as it came need not be understood. What is made anew must be, and nothing is left out of it silently.
    """

    @wraps(turn)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return turn(*args, **kwargs)
        except (TypeError, AttributeError, LookupError, ValueError, RecursionError) as error:
            message = f"the provider's answer cannot be turned from a stream into one piece or back: {error}"
            raise ModelRefused(Refusal(why="upstream", message=message)) from error

    return guarded


def checked(content: bytes) -> None:
    """Do nothing about JSON.

    Raises:
        ValueError: it is none.
    """
    msgspec.json.decode(content)


class Likeness:
    """Knows an event that differs from the one before in nothing but a plain text, as most of a stream do, without reading it.

    Two events that are alike up to the first quote of a text and from its last one on are the same JSON with another text there,
    if neither that text nor anything beside it is escaped.
    """

    def __init__(self) -> None:
        self._head = self._tail = self._out_head = self._out_tail = b""
        self._is_changed = False
        self._tries = LIKENESS_TRIES_MAX

    def texts(self, wires: Sequence[bytes]) -> list[str]:
        """Return the texts of events, as far as they are like the last one and have one."""
        head, tail = self._head, self._tail
        texts: list[str] = []
        if not head:
            return texts
        begin, end, size = len(head), -len(tail), len(head) + len(tail)
        for wire in wires:
            if not wire.startswith(head) or not wire.endswith(tail):
                break
            raw = wire[begin:end]
            if b'"' in raw or b"\\" in raw or len(wire) <= size:
                break
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                break
            self._tries = LIKENESS_TRIES_MAX
            if not text.isprintable():
                break
            texts.append(text)
        return texts

    def passed_on(self, wires: Sequence[bytes]) -> bytes:
        """Return how events go on that are like the last one."""
        if not self._is_changed:
            return wires[0] if len(wires) == 1 else b"".join(wires)
        begin, end = len(self._head), -len(self._tail)
        return b"".join([self._out_head + wire[begin:end] + self._out_tail for wire in wires])

    def learn(self, wire: bytes, text: str, out: bytes) -> None:
        """Note an event, its one text, and how it went on. Of events that are never alike the rest is not looked at."""
        if not self._tries:
            return
        self._tries -= 1
        sought = b'"%b"' % text.encode("utf-8", "surrogatepass")
        if b"\\" in wire or wire.count(sought) != 1 or out.count(sought) != 1:
            return
        self._head, self._tail = _around(wire, sought)
        self._is_changed = out is not wire
        self._out_head, self._out_tail = _around(out, sought)

    def forget(self) -> None:
        """Say that the next event means something else, whatever it looks like."""
        self._head = b""


def _around(wire: bytes, sought: bytes) -> tuple[bytes, bytes]:
    """Return what stands before a text and behind it, each with its quote."""
    at = wire.index(sought)
    return wire[: at + 1], wire[at + len(sought) - 1 :]


class Sayings(Protocol):
    """What a dialect makes of the events of one answer, one after another."""

    def said(self, wire: bytes, name: str, content: bytes) -> Event:
        """Return an event that has data.

        Raises:
            ValueError: its data is not what this dialect says.
        """
        ...

    def whole(self, body: bytes) -> Event:
        """Return what an answer is that came in one piece."""
        ...

    def ended(self) -> Sequence[Event]:
        """Return what the end of the bytes means, if it means something: a `terminal` without bytes of its own."""
        ...

    def failed(self, message: str) -> Event:
        """Return an error that the gateway found in the answer, with the bytes that say so to a client."""
        ...


class StreamReader:
    """Reads an answer that comes as events."""

    def __init__(self, sayings: Sayings, again: Again = lambda _: None) -> None:
        """Read by what a dialect says.

        Args:
            sayings: what it makes of an event.
            again: what it makes of those that are like the last; see `Likeness`.
        """
        self._sayings, self._again, self._cutter, self._is_over = sayings, again, Cutter(), False

    def feed(self, chunk: bytes, *, in_runs: bool = False) -> Sequence[Event]:
        """Return the events that are whole by now. After one that cannot be read there are no more."""
        if self._is_over:
            return ()
        if chunk.startswith(b"data: ") and self._cutter.is_idle and is_one_line(chunk):
            return self._read_line(chunk)
        found = self._read(self._cutter.feed(chunk), in_runs=in_runs)
        if self._cutter.held_bytes > EVENT_BYTES_MAX and not self._is_over:
            found.append(self._fail(f"an event of the answer has more than {EVENT_BYTES_MAX >> 20} MB"))
        return found

    def close(self) -> Sequence[Event]:
        """Return what is left at the end.

        An event without its empty line gets one, if it can be read: clients would wait for it. A torn one is dropped, so that
        whatever is sent after it stands on a line of its own.
        """
        if self._is_over:
            return ()
        found = self._read(self._cutter.feed(b"", is_last=True))
        if not self._is_over and (rest := self._cutter.rest()):
            if rest.lstrip()[:1] in (b"{", b"["):
                return [*found, *self._in_one_piece(rest)]
            found += self._last(rest)
        return found if self._is_over else [*found, *self._sayings.ended()]

    def _in_one_piece(self, rest: bytes) -> Sequence[Event]:
        """Return the error that came where events should; what else came so is no part of a stream, and no end of one."""
        ended = self._sayings.ended()
        event = self._sayings.whole(rest)
        return [event] if event.kind == "error" else ended

    def _last(self, rest: bytes) -> list[Event]:
        end = b"\r\n" if rest.endswith(b"\r\n") else b"\n"
        wire = rest + (end if rest.endswith((b"\n", b"\r")) else end + end)
        name, content = parts(wire)
        if not content:
            return []
        try:
            return [self._sayings.said(wire, name, content)]
        except (ValueError, RecursionError):
            return []

    def _read_line(self, wire: bytes) -> list[Event]:
        """Return an event of one line that came in one piece, as providers write them."""
        try:
            more = self._again((wire,))
            if more is None and not wire[6:-2]:
                return [Event(wire=wire)]
            return [self._sayings.said(wire, "", wire[6:-2]) if more is None else more[0]]
        except (ValueError, RecursionError) as error:
            return [self._fail(f"an event of the answer cannot be read: {error}")]

    def _read(self, wires: list[bytes], *, in_runs: bool = False) -> list[Event]:
        found = list[Event]()
        said, again = self._sayings.said, self._again
        at = 0
        while at < len(wires):
            if (more := again(wires[at : at + (RUN_MAX if in_runs else 1)])) is not None:
                event, count = more
                found.append(event)
                at += count
                continue
            wire = wires[at]
            at += 1
            name, content = parts(wire)
            if not content:
                found.append(Event(wire=wire))
                continue
            try:
                found.append(said(wire, name, content))
            except (ValueError, RecursionError) as error:
                found.append(self._fail(f"an event of the answer cannot be read: {error}"))
                break
        return found

    def _fail(self, message: str) -> Event:
        self._is_over = True
        return self._sayings.failed(message)


class WholeReader:
    """Reads an answer that comes in one piece."""

    def __init__(self, read: Callable[[bytes], Event]) -> None:
        self._read, self._parts = read, list[bytes]()

    def feed(self, chunk: bytes, *, in_runs: bool = False) -> Sequence[Event]:
        """Return nothing: it is not whole before its end."""
        del in_runs
        self._parts.append(chunk)
        return ()

    def close(self) -> Sequence[Event]:
        """Return it."""
        return [self._read(b"".join(self._parts))]
