"""What comes of a turn: where the program stands, its value, or what ended it, in words that a person or a model can act on."""

import json
import re
from functools import lru_cache
from typing import Any

import pydantic_monty as monty

from overwinter.adapters.monty.oversize import holders
from overwinter.adapters.monty.turn import SUSPENSIONS_MAX, Turn, crossing
from overwinter.interpreter import Blocked, Failed, Finished, Limits
from overwinter.values import DEPTH_MAX, Value

__all__ = ["LIMITS", "blocked", "failed", "finished", "packed", "refused", "unpacked"]

MB = 1 << 20
FRAMES_SHOWN = 8
SOURCE_LENGTH_MAX = 160
TICKETS_REMEMBERED = 256
"""Of snapshots: most wait for one call, and programs begin to count at the same number."""
MESSAGE_LENGTH_MAX = 4_000
"""Characters of an error's message: a program may raise 30 MB of text."""
LIMITS = {
    # Monty's exception, the form of its message, what we call it. None of these can be caught by the program.
    "turn": ("TimeoutError", re.compile(r"turn time limit exceeded: .+ > .+"), "CpuLimit"),
    "feed": ("TimeoutError", re.compile(r"(feed )?time limit exceeded: .+ > .+"), "CpuLimit"),
    "memory": ("MemoryError", re.compile(r"memory limit exceeded: \d+ bytes > \d+ bytes"), "MemoryLimit"),
    "suspensions": ("RuntimeError", re.compile(r"suspension limit \d+ exceeded"), "SuspensionLimit"),
}


# --- It waits ----------------------------------------------------------------------------------------------------------


def blocked(
    session: monty.MontySession, step: monty.FutureSnapshot | monty.FunctionSnapshot, turn: Turn
) -> Blocked | Failed:
    """Return where a program stands that waits, or why what it holds cannot be kept."""
    is_future = isinstance(step, monty.FutureSnapshot)
    # In `time.sleep` the interpreter does not list what else waits: nothing can have been awaited since.
    pending = (
        frozenset(step.pending_call_ids)
        if is_future
        else turn.before | frozenset(request.ticket for request in turn.requests)
    )
    body = step.dump()
    if len(body) > turn.limits.snapshot_bytes:
        return _too_large(session, step, len(body), turn)
    return Blocked(
        requests=tuple(turn.requests),
        pending=pending,
        first=None if is_future else step.call_id,
        snapshot=packed(pending, body),
        output=turn.output,
    )


def packed(pending: frozenset[int], body: bytes) -> bytes:
    """Return a snapshot: the tickets that wait, and the interpreter's own bytes."""
    return _listed(pending) + body


@lru_cache(TICKETS_REMEMBERED)
def _listed(pending: frozenset[int]) -> bytes:
    return f"[{', '.join(map(str, sorted(pending)))}]\n".encode()


def unpacked(snapshot: bytes) -> tuple[frozenset[int], bytes]:
    """Return the tickets that wait and the interpreter's own bytes."""
    pending, _, body = snapshot.partition(b"\n")
    return _tickets(pending), body


@lru_cache(TICKETS_REMEMBERED)
def _tickets(pending: bytes) -> frozenset[int]:
    return frozenset(json.loads(str(pending, "ascii")))


def _too_large(
    session: monty.MontySession, step: monty.FutureSnapshot | monty.FunctionSnapshot, size: int, turn: Turn
) -> Failed:
    line = turn.line(step.position)
    held = holders(session, step, turn)
    message = (
        f"the program's state has {size / MB:.1f} MB, at most {turn.limits.snapshot_bytes / MB:g} MB are kept while it waits "
        f"(limits.snapshot_mb): {held}; keep less across an await, or raise the limit"
    )
    return refused("SnapshotLimit", message, turn, line=line)


# --- It ended --------------------------------------------------------------------------------------------------------


def finished(output: Any, turn: Turn) -> Finished | Failed:
    """Return the value of a program that ended, or why it cannot leave."""
    value = _plain(output, 0, {})
    match crossing("the value of the last expression", value):
        case int(size) if size <= turn.limits.value_bytes:
            return Finished(value=value, output=turn.output, never_awaited=_never_awaited(turn))
        case int(size):
            message = (
                f"the program's value has {size} bytes, at most {turn.limits.value_bytes} may leave (limits.value_kb): "
                "end with a summary of it"
            )
            return refused("ValueLimit", message, turn)
        case (kind, message):
            return refused(kind, message, turn)


def failed(error: monty.MontyError, turn: Turn) -> Failed:
    """Return what ended a program: an exception that it did not catch, or a limit."""
    inner = error.exception()
    kind, message = type(inner).__name__, str(inner)
    for name, (builtin, form, limit) in LIMITS.items():
        if kind == builtin and form.fullmatch(message):
            return refused(limit, _advice(turn.limits)[name], turn)
    frames = _frames(error, turn)
    if len(message) > MESSAGE_LENGTH_MAX:
        message = f"{message[:MESSAGE_LENGTH_MAX]}... ({len(message)} characters)"
    return Failed(
        kind=kind,
        message=message,
        line=frames[-1].line if frames else 0,
        traceback="\n".join(_row(frame) for frame in frames[-FRAMES_SHOWN:]),
        output=turn.output,
        never_awaited=_never_awaited(turn),
    )


def refused(kind: str, message: str, turn: Turn, *, line: int = 0) -> Failed:
    """Return a failure that is ours to word."""
    return Failed(
        kind=kind, message=message, line=line, traceback="", output=turn.output, never_awaited=_never_awaited(turn)
    )


def _frames(error: monty.MontyError, turn: Turn) -> list[monty.Frame]:
    """Return where in the program it happened, outermost first."""
    if not isinstance(error, monty.MontyRuntimeError | monty.MontySyntaxError):
        return []
    return [frame for frame in error.traceback() if frame.filename == turn.fed.filename]


def _row(frame: monty.Frame) -> str:
    source = (frame.source_line or "").strip()[:SOURCE_LENGTH_MAX]
    return f"line {frame.line}, in {frame.function_name or '<module>'}: {source}"


def _never_awaited(turn: Turn) -> tuple[str, ...]:
    """Effects start only from a blocked turn: what a turn that ends has called was not performed."""
    return tuple(request.function for request in turn.requests)


def _advice(limits: Limits) -> dict[str, str]:
    return {
        "turn": f"it computed for more than {limits.turn_cpu_s:g} s without waiting (limits.turn_cpu_s of overwinter.toml): "
        "do less between two calls, or raise the limit",
        "feed": f"it has computed for more than {limits.run_cpu_s:g} s in all (limits.run_cpu_s of overwinter.toml): "
        "do less, or raise the limit",
        "memory": f"it needs more than {limits.memory_bytes >> 20} MB (limits.memory_mb of overwinter.toml): "
        "keep less in variables, or raise the limit",
        "suspensions": f"it asked the host more than {SUSPENSIONS_MAX} times in one turn: if it polls the clock, use "
        "`await asyncio.sleep(seconds)`",
    }


def _plain(value: Any, depth: int, made: dict[int, tuple[Any, Value]]) -> Value:
    """Return plain data; an object of the program's classes leaves as a dict of its fields, an exception as a text.

    What stands in several places is made once: thirty lists, each of them twice in the next, are no billion. `made` has each
    object and what was made of it, by its id: kept there, no other can be given that id meanwhile.
    """
    if depth > DEPTH_MAX:
        return value  # too deep to cross: `crossing` says so
    if (known := made.get(id(value))) is not None:
        return known[1]
    match value:
        case monty.MontyClassProxy():
            plain = {name: _plain(each, depth + 1, made) for name, each in value.attributes.items()}
        case list() | tuple():
            plain = type(value)(_plain(each, depth + 1, made) for each in value)
        case dict():
            plain = {key: _plain(each, depth + 1, made) for key, each in value.items()}
        case BaseException():
            return f"{type(value).__name__}: {value}"
        case _:
            return value
    made[id(value)] = value, plain
    return plain
