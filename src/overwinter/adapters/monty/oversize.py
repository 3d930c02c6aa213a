"""Which variables make a program's state too large to keep."""

import ast
from typing import Any

import pydantic_monty as monty

from overwinter.adapters.monty.turn import Turn
from overwinter.syntax import parse

__all__ = ["holders"]

SHOWN_MAX = 3
NAMES_MAX = 200
"""Variables measured: each is a round trip, and prints the value inside the sandbox."""
STEPS_MAX = 100
"""Awaits that the program may interpose between its end and its end."""
SMALL = 1_000
"""Characters: what is smaller explains nothing."""


def holders(session: monty.MontySession, step: Any, turn: Turn) -> str:
    """Return which variables hold the most, as part of a sentence. The program is ended for it.

    Sizes are those of the text that a value prints as: the interpreter tells no others.
    """
    functions = _ended(step, turn)
    sizes = sorted(_sizes(session, turn), key=lambda each: -each[1])
    big = [f"{name} ({size / 1e6:.2f} MB printed)" for name, size in sizes[:SHOWN_MAX] if size >= SMALL]
    if big:
        return f"the largest variables are {', '.join(big)}"
    where = f" of {', '.join(functions)}" if functions else ""
    return f"no variable of the module is large, so local variables{where} hold it"


def _ended(step: Any, turn: Turn) -> list[str]:
    """End the program by an error that ordinary programs do not catch; return the functions it stood in."""
    end: Any = {"exc_type": "SystemExit", "message": "its state is too large"}
    try:
        for _ in range(STEPS_MAX):
            turn.check_deadline()
            match step:
                case monty.FutureSnapshot():
                    step = step.resume({ticket: end for ticket in step.pending_call_ids})  # noqa: C420 - fromkeys loses the type
                case monty.MontyComplete():
                    return []
                case monty.NameLookupSnapshot():
                    step = step.resume()
                case _:
                    step = step.resume(end)
    except monty.MontyRuntimeError as error:
        frames = [frame for frame in error.traceback() if frame.filename == turn.fed.filename]
        return list(dict.fromkeys(f"{frame.function_name}()" for frame in frames if _is_function(frame)))
    return []


def _is_function(frame: monty.Frame) -> bool:
    return frame.function_name not in (None, "<module>")


def _sizes(session: monty.MontySession, turn: Turn) -> list[tuple[str, int]]:
    sizes: list[tuple[str, int]] = []
    for name in _module_names(turn)[:NAMES_MAX]:
        turn.check_deadline()
        try:
            size = session.feed_run(f"len(repr({name}))", print_callback=lambda _stream, _text: None)
        except (monty.MontyRuntimeError, RuntimeError):  # not bound, has no text, or its text is too large to make
            continue
        if isinstance(size, int):  # the program may have its own idea of `len`
            sizes.append((name, size))
    return sizes


def _module_names(turn: Turn) -> list[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    names = set(turn.program.inputs)
    waiting: list[ast.AST] = [parse(turn.program.source)]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            if not isinstance(node, functions):
                waiting.append(node)
    return sorted(names)
