"""What gathers up while a program runs through one turn: its calls, what it prints, how long it may take."""

import re
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import pydantic_monty as monty

from overwinter import values
from overwinter.errors import WorkerCrashed
from overwinter.frozen import frozen
from overwinter.interpreter import Limits, Program, Request

__all__ = ["GRACE_S", "PROGRAMS_REMEMBERED", "SUSPENSIONS_MAX", "Fed", "Place", "Step", "Turn", "crossing"]

PROGRAMS_REMEMBERED = 1_000
"""Sources whose parts are kept, found again at each turn."""
PLACES_REMEMBERED = 1_000
"""Calls in them whose lines are."""
SUSPENSIONS_MAX = 10_000
"""Host round trips of one turn: clock reads, imports and calls together."""
_SMALL = frozenset({bool, float, type(None)})
_INT_SMALL = 1 << 63
_SMALL_BYTES = 24
"""Values that always cross, and what the longest of them takes."""
REFUSED_MAX = 64
"""Calls with arguments of the largest size that are looked at and refused in one turn; it costs us about 3 s."""
GRACE_S = 5.0
"""How much longer than its computing time a turn may take on our side: conversions, dumps, a loaded machine."""


class Place(Protocol):
    """Where in the source something stands."""

    @property
    def filename(self) -> str:
        """Return the interpreter's name for the source."""
        ...

    @property
    def start(self) -> int:
        """Return the position in bytes."""
        ...


class Step(Protocol):
    """A call that the program makes, as the interpreter's client has it."""

    @property
    def call_id(self) -> int:
        """Return the interpreter's number for it."""
        ...

    @property
    def function_name(self) -> str:
        """Return `module.function`."""
        ...

    @property
    def args(self) -> tuple[Any, ...]:
        """Return the positional arguments; they may be converted at each access."""
        ...

    @property
    def kwargs(self) -> dict[str, Any]:
        """Return the named arguments."""
        ...

    @property
    def position(self) -> Place:
        """Return where it stands."""
        ...


@frozen
class Fed:
    """A program as the interpreter got it."""

    source: str
    prelude: str
    """Fed before it; "" if nothing was."""
    before: int = 0
    """How often the interpreter was fed before both."""

    @property
    def filename(self) -> str:
        """Return the interpreter's name for the program: it numbers what it is fed from 0."""
        return f"<python-input-{self.before + bool(self.prelude)}>"


@dataclass(kw_only=True)
class Turn:
    """One turn as it happens."""

    program: Program
    fed: Fed
    limits: Limits
    now_us: int
    """The only instant that the program can read."""
    before: frozenset[int] = frozenset()
    """Tickets that waited already, and still do."""
    requests: list[Request] = field(default_factory=list[Request])
    refused: int = 0
    """Calls that could not leave the program."""
    refused_bytes: int = 0
    """What it cost to look at their arguments."""
    clock: Callable[[], float] = time.monotonic
    _printed: list[str] = field(default_factory=list[str])
    _printed_bytes: int = 0

    def __post_init__(self) -> None:
        self._deadline = self.clock() + self.limits.run_cpu_s + GRACE_S

    def check_deadline(self) -> None:
        """Bound what a turn can cost outside the interpreter, whose own clock stands still meanwhile.

        Raises:
            WorkerCrashed: it took too long.
        """
        if self.clock() > self._deadline:
            raise WorkerCrashed("a turn overran its deadline between two steps of its program", has_timed_out=True)

    def refuse(self, size_bytes: int) -> None:
        """Count a call whose arguments could not leave the program."""
        self.refused += 1
        self.refused_bytes += max(size_bytes, self.limits.value_bytes // 10)

    @property
    def is_exhausted(self) -> bool:
        """Return whether no call of this turn will be looked at any more."""
        calls = len(self.requests) + self.refused
        return calls >= self.limits.calls_per_turn or self.refused_bytes > REFUSED_MAX * self.limits.value_bytes

    # --- Output -----------------------------------------------------------------------------------------------------

    def print(self, _stream: str, text: str) -> None:
        """Keep what fits, count the rest."""
        raw = text.encode()
        room = self.limits.output_bytes - self._printed_bytes
        self._printed_bytes += len(raw)
        if room > 0:
            self._printed.append(text if len(raw) <= room else raw[:room].decode(errors="ignore"))

    @property
    def output(self) -> str:
        """Return what was printed, with a line that says what was dropped."""
        dropped = self._printed_bytes - self.limits.output_bytes
        if dropped <= 0:
            return "".join(self._printed)
        note = (
            f"[{dropped} bytes more were printed and dropped: a turn keeps {self.limits.output_bytes} "
            "(limits.output_kb); print less, or return the value]"
        )
        return "".join([*self._printed, "\n", note, "\n"])

    # --- Calls ------------------------------------------------------------------------------------------------------

    def request(self, step: Step) -> Request:
        """Return a call as the kernel sees it."""
        return Request(
            ticket=step.call_id,
            function=step.function_name,
            args=tuple(step.args),
            kwargs=step.kwargs,
            line=self.line(step.position),
        )

    def line(self, position: Place) -> int:
        """Return the line of the program at which a position is; 0 if it is elsewhere, as in an `eval`."""
        if position.filename != self.fed.filename:
            return 0
        return _line_at(self.fed.source, position.start)


@lru_cache(PLACES_REMEMBERED)
def _line_at(source: str, start: int) -> int:
    return bisect_right(_line_ends(source), start) + 1


@lru_cache(maxsize=PROGRAMS_REMEMBERED)
def _line_ends(source: str) -> tuple[int, ...]:
    """Return the position behind each line's end, in bytes."""
    return tuple(found.end() for found in re.finditer(rb"\r\n?|\n", source.encode()))


STANDING_FOR = re.compile(
    rb"\"<(coroutine|function|re\.Match)(?: external_future\(\d+\)| object|(?<=function) '[^\"]*' at 0x)[^\"]*>\""
)
"""The interpreter sends a text for what it cannot send: a whole text of this form is no text of the program's own."""


def crossing(label: str, value: values.Value) -> int | tuple[str, str]:
    """Return the encoded size of a value, or the exception that says why it cannot cross: kind and message."""
    if type(value) in _SMALL or (type(value) is int and -_INT_SMALL < value < _INT_SMALL):
        return _SMALL_BYTES
    try:
        raw = values.encode(value)
    except values.Uncrossable as error:
        return "TypeError", f"{label} cannot cross: {_named(value, str(error))}"
    except ValueError as error:  # an integer of more than 4,300 digits
        return "ValueError", f"{label} cannot cross: {error}"
    if b"\\ufffd" in raw and values.decode(raw) != value:
        return "ValueError", f"{label} cannot cross: a text in it has half a surrogate pair, which is no character"
    if b'"<' in raw and (found := STANDING_FOR.search(raw)) is not None:
        what = found[1].decode()
        remedy = ": `await` the call" if what == "coroutine" else ": send plain data"
        return "TypeError", f"{label} cannot cross: there is a {what} in it{remedy}"
    return len(raw)


def _named(value: Any, message: str) -> str:
    """Speak of the program's own class by its name."""
    if isinstance(value, monty.MontyClassProxy):
        return f"it is an object of class {value.name}: send its fields as a dict"
    return message.replace("type MontyClassProxy", "one of the program's own classes")
