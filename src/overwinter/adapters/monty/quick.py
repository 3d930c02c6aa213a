"""An ordinary turn, step by step: what is sent to the interpreter, and what becomes of its replies.

Ordinary: inputs, answers and arguments are small plain data, the program imports its services, reads the clock, makes calls,
waits or ends with a value; it may go on with the state of one before it, and leave its own. Whatever else happens is
`Unusual`: nothing of it counts, and the turn is taken again through the interpreter's client, which words every error. That is
no loss to anybody, for a turn has no effect.

Programs are run many times and go the same ways, so what a turn will ask is guessed by how it went before (`Paths`), and the
answers go out with its first request: most turns are one exchange. An answer that does not fit is refused and changes nothing;
one that was taken by another question than the guessed one is seen by that question, and the turn does not count.
"""

import re
import uuid
from collections.abc import Generator, Mapping
from datetime import UTC, datetime, timedelta

from overwinter.adapters.monty import wire
from overwinter.adapters.monty.calls import begun, settled
from overwinter.adapters.monty.outcomes import finished, packed
from overwinter.adapters.monty.turn import SUSPENSIONS_MAX, Turn
from overwinter.adapters.monty.wire import Kind, OsCall, Unusual
from overwinter.events import Answer, Returned
from overwinter.frozen import replace
from overwinter.interpreter import Blocked, Failed, Finished, Limits, Outcome

__all__ = ["SOURCE_LENGTH_MAX", "STATE_BYTES_MAX", "Exchange", "Paths", "Quick", "resumed", "started"]

STATE_BYTES_MAX = 64 << 10
"""A larger state goes by the client: it would hold up the event loop."""
SOURCE_LENGTH_MAX = 32 << 10
"""Characters. A longer program begins by the client: reading it takes us and a worker some milliseconds each."""
EVENT_BYTES_MAX = 32 << 10
EXCHANGES_MAX = 50
"""After so many the turn is left to the client, which has a thread to spend on it."""
PATHS_MAX = 4_000
PATH_LENGTH_MAX = EXCHANGES_MAX
"""Turns whose ways are remembered, and how much of each."""
DUMP_BYTES_SMALL = 8 << 10
"""A smaller state is asked for with each answer, for most turns end there; a larger one only where the turn ends."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
IMPORT = "import "
CALL, FEED, PAUSE, WOKEN = "call", "feed", "time.sleep", "woken"
"""Steps of a path besides `wire.CLOCKS` and `import NAME`: a call that begins, the source behind its prelude, a pause of the
whole program, and the end of one."""

_OTHERWISE = re.compile(r"time|today|sleep|import")
"""In a program that may ask its machine something before it calls anything."""

Exchange = tuple[bytes, int]
"""Requests to send, and how many replies they get."""
Quick = Generator[Exchange, list[bytes], Outcome]
Path = tuple[str, ...]
"""What the host has answered in a turn, in order."""


class Paths:
    """How turns went, each by its program and the number of its first call as far as its tickets tell."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[int, Path]] = {}

    def guessed(self, place: tuple[int, int], otherwise: Path) -> tuple[int, Path]:
        """Return the number of the first call, and how the turn will go."""
        known = self._known.pop(place, None)
        if known is None:
            return place[1], otherwise
        self._known[place] = known  # the last to be let go: one program's thousand turns do not push out all others
        return known

    def forget(self, place: tuple[int, int]) -> None:
        """Let go of a way that was wrong from its first step on."""
        self._known.pop(place, None)

    def learn(self, place: tuple[int, int], first_id: int, path: Path) -> None:
        """Note how a turn went that was guessed otherwise."""
        path = path[:PATH_LENGTH_MAX]
        self._known.pop(place, None)
        self._known[place] = first_id, path
        if len(self._known) > PATHS_MAX:
            del self._known[next(iter(self._known))]


def started(turn: Turn, paths: Paths) -> Quick:
    """Take the first turn of a program.

    Raises:
        Unusual: the turn is none for this way.
        Nonsense: the worker cannot be trusted any more.
    """
    source, prelude, limits, before = turn.fed.source, turn.fed.prelude, turn.limits, turn.program.state
    if len(source) > SOURCE_LENGTH_MAX:
        raise Unusual("a long program")
    if before is not None and len(before) > STATE_BYTES_MAX:
        raise Unusual("much state")
    feed = wire.feed(source, turn.program.inputs, is_first=not prelude and before is None)
    micros = round(limits.run_cpu_s * 1e6), round(limits.turn_cpu_s * 1e6)
    session = wire.configure(
        turn.program.run_id, (limits.memory_bytes, limits.recursion_depth, SUSPENSIONS_MAX, *micros)
    )
    begin = [wire.RESET, session] if before is None else [wire.RESET, session, wire.load(before)]
    if not prelude:
        return _Taken(turn, paths, 0).steps([*begin, feed])
    # What is fed first binds functions and imports services; and most programs that were never seen begin with a call.
    imports = [line for line in prelude.split("\n") if line.startswith(IMPORT)]
    calls = [CALL] if "await " in source and _OTHERWISE.search(source) is None else []
    taken = _Taken(turn, paths, 0, (*imports, FEED, *calls), feed)
    return taken.steps([*begin, wire.feed(prelude, {}, is_first=before is None)])


def resumed(turn: Turn, body: bytes, answers: Mapping[int, Answer], paths: Paths) -> Quick:
    """Take one turn of a program that waits.

    Raises:
        Unusual: the turn is none for this way.
        Nonsense: the worker cannot be trusted any more.
    """
    if len(body) > STATE_BYTES_MAX:
        raise Unusual("much state")
    last = max([*turn.before, *answers])
    # What holds the whole program is answered alone, and in words of its own.
    woken = wire.returned(last, None) if answers == {last: Returned(value=None)} else b""
    taken = _Taken(turn, paths, last + 1, (CALL,), woken=woken)  # as most do: it makes a call, and waits
    begin = [wire.RESET, wire.load(body)]
    return taken.steps(begin if taken.was_paused else [*begin, _answered(answers, turn.limits)])


class _Taken:
    """A turn as it is taken."""

    def __init__(  # noqa: PLR0913 - what a turn is taken with
        self, turn: Turn, paths: Paths, next_id: int, likely: Path = (), feed: bytes = b"", *, woken: bytes = b""
    ) -> None:
        self._turn = turn
        self._paths = paths
        self._place = hash(turn.program.source), next_id
        self._first_id, self._path = self._guess = paths.guessed(self._place, likely)
        self._feed, self._woken = feed, woken
        self._is_fed = not feed
        self._now = EPOCH + timedelta(microseconds=turn.now_us)
        self._identities: dict[str, bytes] = {}
        """Of imported modules."""
        self._went: list[str] = []
        self._ids: list[int] = []
        """Numbers of the guessed answers; the end of a pause has none, and the source behind its prelude -1."""

    @property
    def was_paused(self) -> bool:
        """Return whether the program is guessed to be in a `time.sleep`."""
        return bool(self._woken) and self._path[:1] == (WOKEN,)

    def steps(self, begin: list[bytes]) -> Quick:
        """Take it, from these requests on; the reply to the last of them is what the program does first."""
        guesses = self._guesses()
        replies = yield b"".join((*begin, *guesses, wire.DUMP)), len(begin) + len(guesses) + 1
        event, ahead, dumped = replies[len(begin) - 1], replies[len(begin) : -1], replies[-1]
        is_small = len(dumped) < DUMP_BYTES_SMALL
        is_paused = bool(self._woken) and wire.head(replies[1])[0] == Kind.OS_CALL
        if self.was_paused and not is_paused:
            self._paths.forget(self._place)
            raise Unusual("no pause, and nothing was answered")
        if is_paused:
            if self.was_paused:
                event = ahead.pop(0)
            else:  # its answer was refused, and all behind it
                ahead.clear()
                event, dumped = yield self._woken + wire.DUMP, 2
            self._went.append(WOKEN)
        for _ in range(EXCHANGES_MAX):
            kind, raw = wire.head(event)
            if len(raw) > EVENT_BYTES_MAX:
                raise Unusual("a large event")
            if kind == Kind.RESOLVE_FUTURES:
                self._learn()
                return self._blocked(wire.pending(raw), None, (yield from _state(dumped)))
            if kind == Kind.COMPLETE and self._is_fed:
                self._learn()
                outcome = finished(wire.completed(raw), self._turn)
                return self._left(outcome, (yield from _state(dumped))) if self._turn.program.keeps else outcome
            step, call_id = self._asked(kind, raw)
            is_guessed = self._noted(step, call_id, len(ahead))
            if step == PAUSE:
                pending = self._turn.before.union(request.ticket for request in self._turn.requests)
                return self._blocked(pending, call_id, (yield from _state(dumped)))
            if is_guessed:
                event = ahead.pop(0)
            else:
                ahead.clear()
                event, dumped = yield from _sent(self._answer(step, call_id), is_small=is_small)
                is_small = is_small and len(dumped) < DUMP_BYTES_SMALL
        raise Unusual("many steps")

    def _guesses(self) -> list[bytes]:
        """Return the answers to what the program is guessed to ask."""
        guesses: list[bytes] = []
        next_id = self._first_id
        for step in self._path:
            if not self._is_possible(step, len(guesses)):
                break
            if step == WOKEN:
                guesses.append(self._woken)
                continue
            self._ids.append(-1 if step == FEED else next_id)
            guesses.append(self._answer(step, next_id))
            next_id = 0 if step == FEED else next_id + 1
        return guesses

    def _noted(self, step: str, call_id: int, ahead: int) -> bool:
        """Note what a program asked; return whether that was guessed, and is answered.

        Raises:
            Unusual: a guess that was meant for another question answered this one.
        """
        self._went.append(step)
        left = self._ids[len(self._ids) - ahead :]
        if step not in (FEED, PAUSE) and len(self._went) == 1 + (WOKEN in self._went):
            self._first_id = call_id
        is_guessed = left[:1] == [call_id] and self._path[len(self._went) - 1] == step
        if step == PAUSE or (call_id in left and not is_guessed):
            self._learn()
        if call_id in left and not is_guessed:
            raise Unusual("another question than the guessed one")
        return is_guessed

    def _asked(self, kind: int, raw: bytes) -> tuple[str, int]:
        """Return what the program asks, as a step of its path, and its number."""
        if kind == Kind.COMPLETE:
            self._is_fed = True
            return FEED, -1
        if kind == Kind.FUNCTION_CALL:
            call = wire.call(raw)
            if "." not in call.function_name:
                raise Unusual("a call of nothing")
            self._begin(call)
            return CALL, call.call_id
        if kind != Kind.OS_CALL:
            raise Unusual(f"event {kind}")
        asked = wire.os_call(raw)
        if asked.name == "asyncio.sleep":
            self._begin(_as_call(asked))
            return CALL, asked.call_id
        if asked.name.startswith(IMPORT) and not self._is_module(asked.name):
            raise Unusual("an import of nothing")
        if asked.name == PAUSE:
            self._turn.requests.append(self._turn.request(_as_call(asked)))
        return asked.name, asked.call_id

    def _begin(self, call: wire.Call) -> None:
        if begun(call, self._turn) != {"future": ...}:
            raise Unusual("a call that is refused")

    def _answer(self, step: str, call_id: int) -> bytes:
        if step == CALL:
            return wire.begun(call_id)
        if step == FEED:
            return self._feed
        if step in wire.CLOCKS:
            return wire.told(call_id, step, self._now)
        module = step.removeprefix(IMPORT)
        identity = self._identities.setdefault(module, uuid.uuid4().bytes)
        return wire.imported(call_id, module, self._turn.program.modules[module], identity)

    def _is_possible(self, step: str, guessed: int) -> bool:
        """Return whether there is an answer to a step, behind so many others."""
        if step == WOKEN:
            return bool(self._woken) and not guessed
        if step == FEED:
            return bool(self._feed)
        return step != PAUSE and (not step.startswith(IMPORT) or self._is_module(step))

    def _is_module(self, step: str) -> bool:
        return step.removeprefix(IMPORT) in self._turn.program.modules

    def _learn(self) -> None:
        """Note how it went. A turn that ended before the guess did teaches nothing: an answer too much is refused."""
        guessed_id, guessed = self._guess
        went = tuple(self._went)
        if guessed[: len(went)] != went or guessed_id != self._first_id:
            self._paths.learn(self._place, self._first_id, went)

    def _left(self, outcome: Finished | Failed, state: bytes) -> Finished | Failed:
        """Return how a program ended, with what another one goes on with."""
        return replace(outcome, state=state) if len(state) <= self._turn.limits.snapshot_bytes else outcome

    def _blocked(self, pending: frozenset[int], first: int | None, body: bytes) -> Blocked:
        turn = self._turn
        if len(body) > turn.limits.snapshot_bytes:
            raise Unusual("too much state")
        return Blocked(
            requests=tuple(turn.requests),
            pending=pending,
            first=first,
            snapshot=packed(pending, body),
            output=turn.output,
        )


def _state(dumped: bytes) -> Generator[Exchange, list[bytes], bytes]:
    """Return the state in the reply to `DUMP`, and send that if there is no reply."""
    if not dumped:
        (dumped,) = yield wire.DUMP, 1
    return wire.state(dumped)


def _sent(answer: bytes, *, is_small: bool) -> Generator[Exchange, list[bytes], tuple[bytes, bytes]]:
    """Send an answer; return what the program does next, and the reply to `DUMP` where the state is small."""
    if is_small:
        event, dumped = yield answer + wire.DUMP, 2
        return event, dumped
    (event,) = yield answer, 1
    return event, b""


def _as_call(asked: OsCall) -> wire.Call:
    return wire.Call(
        call_id=asked.call_id, function_name=asked.name, args=asked.args, kwargs={}, position=asked.position
    )


def _answered(answers: Mapping[int, Answer], limits: Limits) -> bytes:
    arena = wire.Arena()
    rows: list[tuple[int, int | tuple[str, str]]] = []
    for ticket, answer in answers.items():
        place = (
            arena.add(answer.value) if isinstance(answer, Returned) else 0
        )  # first: what is large is refused at once
        taken = settled(answer, limits)
        rows.append((ticket, place if "return_value" in taken else (taken["exc_type"], taken["message"])))
    return wire.resume(rows, arena)
