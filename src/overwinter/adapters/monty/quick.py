"""An ordinary turn, step by step: what is sent to the interpreter, and what becomes of its replies.

Ordinary: the answers and arguments are small plain data, the program makes calls, waits or ends with a value. Whatever else
happens is `Unusual`: nothing of it counts, and the turn is taken again through the interpreter's client, which words
every error. That is no loss to anybody, for a turn has no effect.
"""

from collections.abc import Generator, Mapping

from overwinter.adapters.monty import wire
from overwinter.adapters.monty.calls import begun, settled
from overwinter.adapters.monty.outcomes import finished, packed
from overwinter.adapters.monty.turn import Turn
from overwinter.adapters.monty.wire import Kind, Unusual
from overwinter.events import Answer, Returned
from overwinter.interpreter import Blocked, Limits, Outcome

__all__ = ["STATE_BYTES_MAX", "Exchange", "Quick", "resumed"]

STATE_BYTES_MAX = 64 << 10
"""A larger state goes by the client: it would hold up the event loop."""
EVENT_BYTES_MAX = 32 << 10
EXCHANGES_MAX = 50
"""After so many the turn is left to the client, which has a thread to spend on it."""

Exchange = tuple[bytes, int]
"""Requests to send, and how many replies they get."""
Quick = Generator[Exchange, list[bytes], Outcome]


def resumed(turn: Turn, body: bytes, answers: Mapping[int, Answer]) -> Quick:
    """Take one turn of a program that waits.

    Raises:
        Unusual: the turn is none for this way.
        Nonsense: the worker cannot be trusted any more.
    """
    if len(body) > STATE_BYTES_MAX:
        raise Unusual("much state")
    # Most turns answer one call and make one more: its number is guessed, so that the whole turn is one exchange.
    guess = max([*turn.before, *answers]) + 1
    requests = (wire.RESET, wire.load(body), _answered(answers, turn.limits), wire.begun(guess), wire.DUMP)
    _, _, event, guessed, dumped = yield b"".join(requests), len(requests)
    for _ in range(EXCHANGES_MAX):
        kind, raw = wire.head(event)
        if len(raw) > EVENT_BYTES_MAX:
            raise Unusual("a large event")
        if kind == Kind.RESOLVE_FUTURES:
            if not dumped:
                (dumped,) = yield wire.DUMP, 1
            return _blocked(turn, wire.pending(raw), wire.state(dumped))
        if kind == Kind.COMPLETE:
            return finished(wire.completed(raw), turn)
        if kind != Kind.FUNCTION_CALL:
            raise Unusual(f"event {kind}")
        call = wire.call(raw)
        if "." not in call.function_name or begun(call, turn) != {"future": ...}:
            raise Unusual("a call that is refused")
        if guessed and call.call_id == guess:
            event, guessed = guessed, b""
        else:
            guessed = dumped = b""
            (event,) = yield wire.begun(call.call_id), 1
    raise Unusual("many steps")


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


def _blocked(turn: Turn, pending: frozenset[int], body: bytes) -> Blocked:
    if len(body) > turn.limits.snapshot_bytes:
        raise Unusual("too much state")
    return Blocked(
        requests=tuple(turn.requests), pending=pending, first=None, snapshot=packed(pending, body), output=turn.output
    )
