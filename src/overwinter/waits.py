"""Calls that only the outside can answer: a person, a message, a timer. They are rows, never tasks.

The module `tools` of a program and the sleeps of plain Python are defined here, so that a turn treats them like any
other function: named, bound, decided, journaled.
"""

import math
from collections.abc import Mapping
from typing import cast

from overwinter.catalog import Function, Parameter
from overwinter.clock import DAY_US, SECOND_US
from overwinter.frozen import frozen, replace
from overwinter.interpreter import Blocked, Request
from overwinter.journal import SLEEPS
from overwinter.lineage import SPAWNS
from overwinter.snapshot import Snapshot
from overwinter.values import Value

__all__ = ["REPLY", "WAITS", "Wait", "meant", "snapshot_after", "until", "wait"]

REPLY = "tools.reply"
"""The call for what a model says next, which may be down or silent for longer than its run has."""
WAIT_US_MAX = 36_525 * DAY_US
"""A century: whatever is longer is a mistake in a unit."""


def _function(name: str, *parameters: str) -> Function:
    parts = tuple(Parameter(name=each.rstrip("?"), is_required=not each.endswith("?")) for each in parameters)
    return Function(name=name, effect="wait", parameters=parts, stub="")


WAITS: Mapping[str, Function] = {
    each.name: each
    for each in (
        _function("asyncio.sleep", "delay"),
        _function("time.sleep", "seconds"),
        _function("tools.ask", "person", "question", "options?", "timeout?"),
        _function("tools.receive", "timeout?"),
    )
}


@frozen
class Wait:
    """What a call waits for."""

    due_us: int | None
    """When its timer fires; None: never."""
    person: str | None
    """Who must answer; None: nobody in particular."""


def meant(request: Request) -> Request:
    """Return the call that a request is: `tools.call("billing.charge", {...})` is one of `billing.charge`.

    It is decided, bound and journaled as that. One that names no function, or a wait, stays what it is: there is no
    function `tools.call`.
    """
    if request.function != "tools.call":
        return request
    given = dict(zip(("name", "arguments"), request.args, strict=False)) | dict(request.kwargs)
    name, arguments = given.get("name"), given.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, dict) or len(given) > 2 or name in WAITS:  # noqa: PLR2004 - those two
        return request
    return replace(request, function=name, args=(), kwargs=cast("dict[str, Value]", arguments))


def until(function: str, arguments: Mapping[str, Value], now_us: int) -> int | str | None:
    """Return until when a call waits that begins a run, or has a model reply, None: for ever; or what is wrong with that."""
    return _time_out(function, arguments, now_us) if function in SPAWNS or function == REPLY else None


def wait(function: str, arguments: Mapping[str, Value], now_us: int) -> Wait | str:
    """Return what a call waits for, or a sentence that says what is wrong with its arguments."""
    match function:
        case "asyncio.sleep" | "time.sleep":
            seconds = arguments["delay" if function == "asyncio.sleep" else "seconds"]
            due = _due(function, seconds, now_us)
            return due if isinstance(due, str) else Wait(due_us=due, person=None)
        case "tools.ask":
            return _ask(arguments, now_us)
        case _:
            due = _time_out(function, arguments, now_us)
            return due if isinstance(due, str) else Wait(due_us=due, person=None)


def snapshot_after(engine: str, before: Snapshot | None, outcome: Blocked, made: int) -> Snapshot:
    """Return the state after a turn, with each waiting ticket of the interpreter named by its call index.

    Args:
        engine: the engine that wrote the state.
        before: the state that the turn began with; None for the first.
        outcome: where the program stands.
        made: calls that the run had made before the turn; the new ones are numbered on from there, in order.
    """
    indices = dict(before.pending) if before else {}
    receives = list(before.receives) if before else []
    sleeps = list(before.sleeps) if before else []
    for index, request in enumerate(outcome.requests, made):
        indices[request.ticket] = index
        if request.function == "tools.receive":
            receives.append(index)
        elif request.function in SLEEPS:
            sleeps.append(index)
    pending = {ticket: indices[ticket] for ticket in outcome.pending}
    waiting = pending.values()
    return Snapshot(
        engine=engine,
        pending=pending,
        first=None if outcome.first is None else indices[outcome.first],
        receives=tuple([index for index in receives if index in waiting]),
        sleeps=tuple([index for index in sleeps if index in waiting]),
        body=outcome.snapshot,
    )


def _ask(arguments: Mapping[str, Value], now_us: int) -> Wait | str:
    person, question, options = arguments["person"], arguments["question"], arguments.get("options")
    if not isinstance(person, str) or not person.strip():
        return "tools.ask needs the person who must answer: an address or a name"
    if not isinstance(question, str) or not question.strip():
        return "tools.ask needs a question"
    if options is not None and not _are_options(options):
        return "tools.ask takes options as a list of different texts, or none"
    due = _time_out("tools.ask", arguments, now_us)
    return due if isinstance(due, str) else Wait(due_us=due, person=person)


def _are_options(options: Value) -> bool:
    return (
        isinstance(options, list | tuple)
        and len(options) > 0  # pyright: ignore[reportUnknownArgumentType] - values are checked, not typed
        and all(isinstance(each, str) for each in options)  # pyright: ignore[reportUnknownVariableType] - the same
        and len(set(options)) == len(options)  # pyright: ignore[reportUnknownArgumentType] - the same
    )


def _time_out(function: str, arguments: Mapping[str, Value], now_us: int) -> int | str | None:
    timeout = arguments.get("timeout")
    return None if timeout is None else _due(function, timeout, now_us)


def _due(function: str, seconds: Value, now_us: int) -> int | str:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or math.isnan(seconds):
        return f"{function} takes seconds as a number, not {seconds!r}"
    if seconds * SECOND_US > WAIT_US_MAX:
        return f"{function} waits at most a century; {seconds!r} seconds is more: is it in another unit?"
    return now_us + max(0, round(seconds * SECOND_US))
