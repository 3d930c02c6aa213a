"""An answer of a provider as events of the client's dialect: each turned as it comes, then read as the client's own.

What is turned goes through the reader of the client's dialect, so that redaction, the cache and the ending of a broken stream see
what they see of any other answer. The counts are the provider's, as its own reader gives them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from overwinter.adapters.dialects.events import parts
from overwinter.frozen import replace
from overwinter.gateway.dialect import AnswerReader, Asked, Dialect, Event
from overwinter.gateway.refusal import ModelRefused, Refusal
from overwinter.gateway.tap import Tap
from overwinter.gateway.usage import Usage

__all__ = ["Turning", "Untranslatable", "reader_of"]


class Untranslatable(ValueError):
    """Something in an answer has no form in the client's dialect. No retry helps."""


FAULTS = (
    ModelRefused, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, msgspec.MsgspecError,
)  # fmt: skip
"""What turning an answer raises that is not what it should be."""


class Turning(Protocol):
    """Turns the events of one answer, one after another."""

    def begun(self, content: Any, usage: Usage | None) -> bytes:
        """Return what an event with this JSON is for the client; nothing, if it is nothing for it.

        Raises:
            Untranslatable: it cannot be said.
        """
        ...

    def ended(self) -> bytes:
        """Return the end of the client's stream."""
        ...


def reader_of(  # noqa: PLR0913 - two dialects, and what stands between
    provider: Dialect,
    client: Dialect,
    asked: Asked,
    turning: Turning,
    turned: Callable[[bytes, Usage], Any],
    *,
    is_stream: bool,
) -> AnswerReader:
    """Return what reads an answer of one dialect as one of another.

    Args:
        provider: whose bytes come.
        client: whose bytes go.
        asked: the client's request.
        turning: of a stream.
        turned: of a whole answer, with its counts.
        is_stream: which of the two it is.
    """
    own = provider.reader(asked, is_stream=is_stream)
    return _Stream(own, client, asked, turning) if is_stream else _Whole(own, client, asked, turned)


def _failed(client: Dialect, error: Event | Exception, usage: Usage | None, *, is_stream: bool) -> Event:
    """Return the provider's error for the client, or that its answer cannot be turned."""
    is_answered = not isinstance(error, Event)
    message, status = (_message(error), None) if is_answered else (error.message, error.status)
    refusal = Refusal(why="upstream", message=message)
    wire = client.broken(refusal, ()) if is_stream else client.refused(refusal).body
    return Event(wire=wire, kind="error", status=status or 502, message=message, usage=usage, is_answered=is_answered)


class _Whole:
    """Reads an answer that comes in one piece."""

    def __init__(self, own: AnswerReader, client: Dialect, asked: Asked, turned: Callable[[bytes, Usage], Any]) -> None:
        self._own, self._client, self._asked, self._turned = own, client, asked, turned

    def feed(self, chunk: bytes, *, in_runs: bool = False) -> Sequence[Event]:
        del in_runs
        self._own.feed(chunk)
        return ()

    def close(self) -> Sequence[Event]:
        (event,) = self._own.close()
        if event.kind == "error":
            return [_failed(self._client, event, event.usage, is_stream=False)]
        if event.kind != "terminal":
            return [event]
        tap = Tap(self._asked)
        tap.see(event)
        try:
            body = msgspec.json.encode(self._turned(event.wire, event.usage or Usage()))
        except FAULTS as error:
            return [_failed(self._client, error, tap.used, is_stream=False)]
        reader = self._client.reader(self._asked, is_stream=False)
        return [replace(each, usage=event.usage) for each in (*reader.feed(body), *reader.close())]


class _Stream:
    """Reads an answer that comes as events."""

    def __init__(self, own: AnswerReader, client: Dialect, asked: Asked, turning: Turning) -> None:
        self._own, self._client, self._turning = own, client, turning
        self._reader = client.reader(asked, is_stream=True)
        self._is_over = False

    def feed(self, chunk: bytes, *, in_runs: bool = False) -> Sequence[Event]:
        del in_runs  # each event is turned by itself
        return [each for event in self._own.feed(chunk) for each in self._turned(event)]

    def close(self) -> Sequence[Event]:
        return [each for event in self._own.close() for each in self._turned(event)]

    def _turned(self, event: Event) -> Sequence[Event]:
        if self._is_over:
            return ()
        if event.kind == "error":
            self._is_over = True
            return [_failed(self._client, event, event.usage, is_stream=True)]
        try:
            wire = self._wire(event)
        except FAULTS as error:
            self._is_over = True
            return [_failed(self._client, error, event.usage, is_stream=True)]
        found = [replace(each, usage=None) for each in self._reader.feed(wire)]
        if event.usage is not None:
            found = [*found[:-1], replace(found[-1] if found else Event(wire=b""), usage=event.usage)]
        return found

    def _wire(self, event: Event) -> bytes:
        content = parts(event.wire)[1]
        wire = b""
        if content and content != b"[DONE]":
            wire = self._turning.begun(msgspec.json.decode(content), event.usage)
        if event.kind == "terminal":
            self._is_over = True
            wire += self._turning.ended()
        return wire


def _message(error: Exception) -> str:
    if isinstance(error, ModelRefused):
        return error.refusal.message
    return f"the provider's answer cannot be said in the client's dialect: {error}"
