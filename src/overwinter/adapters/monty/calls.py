"""What crosses at a call: its arguments on the way out, its answer on the way in."""

import builtins
from typing import Any, get_args

import pydantic_monty as monty

from overwinter.adapters.monty.turn import Step, Turn, crossing
from overwinter.events import Answer, Raised, Returned
from overwinter.interpreter import Limits, Request

__all__ = ["begun", "settled"]

KINDS = frozenset(get_args(monty.ExcType))
"""Exceptions that the interpreter knows; another becomes its nearest ancestor among them."""


def begun(step: Step, turn: Turn) -> Any:
    """Note a call and let the program go on; one that cannot leave is refused there and then."""
    if turn.is_exhausted:  # asked before the arguments are converted, which costs us
        message = f"too many calls in one turn (limits.calls_per_turn is {turn.limits.calls_per_turn}): await some before you make more"
        return {"exc_type": "RuntimeError", "message": message}
    request = turn.request(step)
    size = _size(request)
    if not isinstance(size, int):
        turn.refuse(0)
        kind, message = size
        return {"exc_type": kind, "message": message}
    if size > turn.limits.value_bytes:
        turn.refuse(size)
        message = f"the arguments of {request.function} have {size} bytes, at most {turn.limits.value_bytes} may leave (limits.value_kb)"
        return {"exc_type": "ValueError", "message": message}
    turn.requests.append(request)
    return {"future": ...}


def _size(request: Request) -> int | tuple[str, str]:
    """Return the encoded size of a call's arguments, or the exception that says which cannot leave."""
    total = 0
    for name, value in (*enumerate(request.args, 1), *request.kwargs.items()):
        size = crossing("", value)
        if not isinstance(size, int):
            return crossing(f"argument {name!r} of {request.function}", value)
        total += size
    return total


def settled(answer: Answer, limits: Limits) -> Any:
    """Return an answer as the interpreter takes it. One that cannot cross is raised at the call."""
    match answer:
        case Returned(value=value):
            match crossing("the result of the call", value):
                case int(size) if size > limits.value_bytes:
                    message = f"the result has {size} bytes, at most {limits.value_bytes} may enter (limits.value_kb): ask for less"
                    return {"exc_type": "ValueError", "message": message}
                case int():
                    return {"return_value": value}
                case (kind, message):
                    return {"exc_type": kind, "message": message}
        case Raised(kind=kind, message=message):
            return {"exc_type": _known(kind), "message": message.encode(errors="replace").decode()}


def _known(kind: str) -> str:
    """Return the nearest ancestor of an exception that the interpreter has."""
    named = getattr(builtins, kind, None)
    if kind in KINDS or not (isinstance(named, type) and issubclass(named, Exception)):
        return kind if kind in KINDS else "RuntimeError"
    return next(parent.__name__ for parent in named.__mro__ if parent.__name__ in KINDS)
