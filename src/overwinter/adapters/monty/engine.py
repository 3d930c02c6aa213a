"""The Interpreter contract on Monty: one turn of a program in a worker of its own, everything else in bytes."""

import ast
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pydantic_monty as monty

from overwinter import values
from overwinter.adapters.monty.prelude import Rewritten, rewrite
from overwinter.adapters.monty.workers import Desk, JailSettings, Workers, monty_binary, open_launcher, open_workers
from overwinter.clock import SECOND_US
from overwinter.events import Answer, Raised, Returned
from overwinter.interpreter import Blocked, Failed, Finished, Limits, Outcome, Program, Request

__all__ = ["MontyInterpreter", "open_interpreter"]

SUSPENSIONS_MAX = 10_000
"""Host round trips of one turn: clock reads, imports and calls together."""
DEADLINE_GRACE_S = 5.0
"""How much longer than its computing time a request may take before its worker is killed."""
DUMP_FORMAT = 14
PROGRAMS_REMEMBERED = 1_000
BIG_NAMES_SHOWN = 3
FRAMES_SHOWN = 8

CLOCK_CALLS = frozenset({"datetime.now", "date.today", "time.time"})
# Monty knows no other exception types; what is not listed becomes its nearest ancestor here.
KINDS = {
    "ConnectionError": "OSError",
    "BrokenPipeError": "OSError",
    "ConnectionRefusedError": "OSError",
    "ConnectionResetError": "OSError",
    "BlockingIOError": "OSError",
    "InterruptedError": "OSError",
}
KNOWN_KINDS = frozenset({
    "ArithmeticError", "AssertionError", "AttributeError", "Exception", "FileExistsError", "FileNotFoundError",
    "ImportError", "IndexError", "IsADirectoryError", "KeyError", "LookupError", "MemoryError", "NameError",
    "NotADirectoryError", "NotImplementedError", "OSError", "OverflowError", "PermissionError", "RecursionError",
    "RuntimeError", "StopIteration", "TimeoutError", "TypeError", "ValueError", "ZeroDivisionError",
})  # fmt: skip


@asynccontextmanager
async def open_interpreter(
    *, limits: Limits, workers: int, jail: JailSettings | None = None
) -> "AsyncGenerator[MontyInterpreter]":
    """Start interpreter workers, jailed, until the block is left.

    Raises:
        JailUnavailable: the jail cannot be had on this machine, or the interpreter is not installed.
    """
    jail = jail or JailSettings()
    async with (
        open_launcher(jail) as launcher,
        open_workers(launcher, jail, workers, limits.turn_cpu_s + DEADLINE_GRACE_S) as pool,
    ):
        yield MontyInterpreter(pool, limits, launcher)


class MontyInterpreter:
    """See `interpreter.Interpreter`."""

    def __init__(self, workers: Workers, limits: Limits, launcher: str) -> None:
        self._workers = workers
        self._limits = limits
        self.launcher = launcher
        """The program that starts a worker."""
        self.engine = f"monty-{monty.__version__}/{DUMP_FORMAT}/{_digest(monty_binary())}"
        self._rewritten: Callable[[str], Rewritten] = lru_cache(PROGRAMS_REMEMBERED)(rewrite)

    @property
    def busy(self) -> int:
        """Return how many workers are in a turn."""
        return self._workers.busy

    async def start(self, program: Program, *, now_us: int) -> Outcome:
        """Run a program from its beginning until it is blocked or done."""
        fed = self._rewritten(program.source)
        return await self._workers.run(lambda desk: _start(desk, program, fed, self._limits, now_us))

    async def resume(self, program: Program, snapshot: bytes, answers: Mapping[int, Answer], *, now_us: int) -> Outcome:
        """Give answers to a blocked program and run it on."""
        return await self._workers.run(lambda desk: _resume(desk, program, snapshot, answers, self._limits, now_us))


def _digest(binary: Path) -> str:
    with binary.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


# --- One turn, in the worker's thread ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Turn:
    """What gathers up while a program runs."""

    program: Program
    limits: Limits
    now_us: int
    before: frozenset[int]
    """Tickets that waited already."""
    requests: list[Request] = field(default_factory=list[Request])
    refused: set[int] = field(default_factory=set[int])
    printed: list[str] = field(default_factory=list[str])
    printed_bytes: int = 0

    def print(self, _stream: str, text: str) -> None:
        """Keep what fits, count the rest."""
        size = len(text.encode("utf-8", "surrogatepass"))
        room = self.limits.output_bytes - self.printed_bytes
        self.printed_bytes += size
        if room > 0:
            self.printed.append(
                text if size <= room else text.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
            )

    @property
    def output(self) -> str:
        """Return what was printed, with a line that says what was dropped."""
        dropped = self.printed_bytes - self.limits.output_bytes
        if dropped <= 0:
            return "".join(self.printed)
        note = (
            f"[{dropped} bytes more were printed and dropped: a turn keeps {self.limits.output_bytes} "
            "(limits.output_kb); print less, or return the value]"
        )
        return "".join([*self.printed, "\n", note, "\n"])


def _start(desk: Desk, program: Program, fed: Rewritten, limits: Limits, now_us: int) -> Outcome:
    turn = _Turn(program=program, limits=limits, now_us=now_us, before=frozenset())
    policy = monty.OSPolicy(datetime="call_host", sleep="call_host", random_start={"seed": program.run_id})
    with desk.pool.checkout(
        limits=_limits(limits), os_policy=policy, external_modules=_modules(program), script_name="program.py"
    ) as session:
        desk.seen(session)
        prelude = fed.prelude + "".join(f"import {name}\n" for name in program.modules if name in fed.unbound)
        if prelude:
            session.feed_run(prelude)
        return _guarded(
            session,
            turn,
            lambda: session.feed_start(fed.source, inputs=dict(program.inputs), print_callback=turn.print),
        )


def _resume(  # noqa: PLR0913, PLR0917 - the protocol's own arguments and where to work
    desk: Desk, program: Program, snapshot: bytes, answers: Mapping[int, Answer], limits: Limits, now_us: int
) -> Outcome:
    pending, body = _unpack(snapshot)
    unknown = set(answers) - pending
    assert not unknown, f"tickets {unknown} do not wait in {pending}"
    turn = _Turn(program=program, limits=limits, now_us=now_us, before=pending - set(answers))
    with desk.pool.checkout(external_modules=_modules(program)) as session:
        desk.seen(session)
        step: Any = session.load_snapshot(body, print_callback=turn.print)
        if isinstance(step, monty.FutureSnapshot):
            settled = {ticket: _settled(answer) for ticket, answer in answers.items()}
            return _guarded(session, turn, lambda: step.resume(settled))
        ((_, answer),) = answers.items()  # `time.sleep` holds the whole program: it alone is answered
        return _guarded(session, turn, lambda: step.resume(_settled(answer)))


def _limits(limits: Limits) -> monty.ResourceLimits:
    return monty.ResourceLimits(
        max_feed_duration_secs=limits.run_cpu_s,
        max_turn_duration_secs=limits.turn_cpu_s,
        max_memory=limits.memory_bytes,
        max_recursion_depth=limits.recursion_depth,
        max_suspensions=SUSPENSIONS_MAX,
    )


def _modules(program: Program) -> dict[str, monty.ExternalModule]:
    """Only the functions that the source names: an import stores all of them in every later snapshot."""
    return {
        name: monty.ExternalModule(dict.fromkeys(functions, _never_called))
        for name, functions in program.modules.items()
    }


def _never_called() -> None:
    raise AssertionError("calls are answered by the host loop, never by this function")


def _settled(answer: Answer) -> Any:
    match answer:
        case Returned(value=value):
            return {"return_value": value}
        case Raised():
            kind = KINDS.get(answer.kind, answer.kind)
            return {"exc_type": kind if kind in KNOWN_KINDS else "RuntimeError", "message": answer.message}


def _guarded(session: monty.MontySession, turn: _Turn, begin: Callable[[], Any]) -> Outcome:
    """Run the program on; an error that it does not catch, or a limit, is an outcome."""
    try:
        step = _advance(begin(), turn)
        if isinstance(step, monty.MontyComplete):
            return _finished(step, turn)
        return _blocked(session, step, turn)
    except (monty.MontySyntaxError, monty.MontyRuntimeError) as error:
        return _failed(error, turn)
    except monty.MontyConversionError as error:
        return Failed(kind="TypeError", message=str(error), line=0, traceback="", output=turn.output)


def _advance(step: Any, turn: _Turn) -> Any:
    """Answer what needs no effect and start calls, until every task waits or the program is done."""
    while not isinstance(step, monty.FutureSnapshot | monty.MontyComplete):
        if isinstance(step, monty.NameLookupSnapshot):
            step = step.resume()  # NameError
        elif step.is_os_function and step.function_name == "time.sleep":
            turn.requests.append(_request(step, turn))
            return step
        elif step.is_os_function and step.function_name in CLOCK_CALLS:
            step = step.resume({"return_value": _clock(step.function_name, step.args, turn.now_us)})
        elif step.is_os_function and step.function_name in ("import", "import_stubs"):
            step = step.resume_auto()
        elif step.is_os_function and step.function_name != "asyncio.sleep":
            step = step.resume_not_handled()
        elif step.is_os_function or "." in step.function_name:
            step = _begin(step, turn)
        else:
            message = f"name {step.function_name!r} is not defined"
            step = step.resume({"exc_type": "NameError", "message": message})
    return step


def _begin(step: Any, turn: _Turn) -> Any:
    """Note a call and let the program go on; refuse it there and then if it cannot leave."""
    name = step.function_name
    if len(turn.requests) >= turn.limits.calls_per_turn:
        message = f"{turn.limits.calls_per_turn} calls wait side by side already (limits.calls_per_turn): await some before more"
        return step.resume({"exc_type": "RuntimeError", "message": message})
    request = _request(step, turn)
    try:
        size = len(values.encode([list(request.args), dict(request.kwargs)]))
    except values.Uncrossable as error:
        return step.resume({"exc_type": "TypeError", "message": f"an argument of {name} cannot leave: {error}"})
    if size > turn.limits.value_bytes:
        message = (
            f"the arguments of {name} have {size} bytes, at most {turn.limits.value_bytes} may leave (limits.value_kb)"
        )
        return step.resume({"exc_type": "ValueError", "message": message})
    turn.requests.append(request)
    return step.resume({"future": ...})


def _request(step: Any, turn: _Turn) -> Request:
    source = turn.program.source.encode()
    # Positions are byte offsets; the rewriting of the prelude keeps them.
    line = source.count(b"\n", 0, step.position.start) + 1 if step.position.filename.startswith("<python") else 0
    return Request(
        ticket=step.call_id, function=step.function_name, args=tuple(step.args), kwargs=step.kwargs, line=line
    )


def _clock(name: str, args: tuple[Any, ...], now_us: int) -> Any:
    now = datetime.fromtimestamp(now_us / SECOND_US, UTC)
    match name, args:
        case "datetime.now", (None,):
            return now.replace(tzinfo=None)
        case "datetime.now", (zone,):
            return now.astimezone(zone)
        case "date.today", _:
            return now.date()
        case _:
            return now_us / SECOND_US


# --- What comes of it ------------------------------------------------------------------------------------------------


def _finished(step: monty.MontyComplete, turn: _Turn) -> Finished | Failed:
    value = _plain(step.output)
    try:
        size = len(values.encode(value))
    except values.Uncrossable as error:
        message = f"the value of the last expression cannot leave: {error}"
        return Failed(kind="TypeError", message=message, line=0, traceback="", output=turn.output)
    if size > turn.limits.value_bytes:
        message = (
            f"the program's value has {size} bytes, at most {turn.limits.value_bytes} (limits.value_kb): return less"
        )
        return Failed(kind="ValueLimit", message=message, line=0, traceback="", output=turn.output)
    return Finished(value=value, output=turn.output, never_awaited=_never_awaited(turn))


def _plain(value: Any) -> Any:
    """An object of a class of the program leaves as the plain data it holds."""
    if isinstance(value, monty.MontyClassProxy):
        return {name: _plain(each) for name, each in value.attributes.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, tuple):
        return tuple(_plain(each) for each in value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return value


def _never_awaited(turn: _Turn) -> tuple[str, ...]:
    return tuple(request.function for request in turn.requests)


def _blocked(session: monty.MontySession, step: Any, turn: _Turn) -> Blocked | Failed:
    new = {request.ticket for request in turn.requests}
    is_future = isinstance(step, monty.FutureSnapshot)
    pending = frozenset(step.pending_call_ids) if is_future else turn.before | new
    body = step.dump()
    if len(body) > turn.limits.snapshot_bytes:
        return _too_large(session, step, len(body), turn)
    return Blocked(
        requests=tuple(turn.requests),
        pending=pending,
        first=None if is_future else step.call_id,
        snapshot=_pack(pending, body),
        output=turn.output,
    )


def _failed(error: monty.MontySyntaxError | monty.MontyRuntimeError, turn: _Turn) -> Failed:
    inner = error.exception()
    kind, message = type(inner).__name__, str(inner)
    frames = [frame for frame in error.traceback() if frame.filename.startswith("<python-input")]
    for prefix, limit, words in _limit_texts(turn.limits):
        if message.startswith(prefix):
            kind, message = limit, words
    rows = [f"line {frame.line}, in {frame.function_name or '<module>'}" for frame in frames[-FRAMES_SHOWN:]]
    return Failed(
        kind=kind,
        message=message,
        line=frames[-1].line if frames else 0,
        traceback="\n".join(rows),
        output=turn.output,
        never_awaited=_never_awaited(turn),
    )


def _limit_texts(limits: Limits) -> tuple[tuple[str, str, str], ...]:
    """Return how each of Monty's limit messages begins, what we call it, and what to do."""
    turn_cpu = (
        f"it computed for more than {limits.turn_cpu_s:g} s without waiting (limits.turn_cpu_s): do less between two "
        "calls, or raise the limit"
    )
    run_cpu = f"it has computed for {limits.run_cpu_s:g} s in all (limits.run_cpu_s): do less, or raise the limit"
    memory = f"it needs more than {limits.memory_bytes >> 20} MB (limits.memory_mb): keep less in variables, or raise the limit"
    suspension = (
        f"it asked the host more than {SUSPENSIONS_MAX} times in one turn: is it polling the clock? use "
        "`await asyncio.sleep(seconds)`"
    )
    return (
        ("turn time limit", "CpuLimit", turn_cpu),
        ("feed time limit", "CpuLimit", run_cpu),
        ("memory limit", "MemoryLimit", memory),
        ("the worker exceeded its memory limit", "MemoryLimit", memory),
        ("suspension limit", "SuspensionLimit", suspension),
    )


def _too_large(session: monty.MontySession, step: Any, size: int, turn: _Turn) -> Failed:
    """Say which variables make a state too large. The program is ended for it: what it holds cannot be kept."""
    names = _ended_and_measured(session, step, turn.program)
    big = ", ".join(f"{name} ({length >> 10} KB)" for name, length in names[:BIG_NAMES_SHOWN])
    where = f"the largest variables are {big}" if big else "it is held by local variables of its functions"
    message = (
        f"the program's state has {size >> 10} KB, at most {turn.limits.snapshot_bytes >> 10} KB are kept between turns "
        f"(limits.snapshot_mb): {where}; keep less across an await"
    )
    return Failed(kind="SnapshotLimit", message=message, line=0, traceback="", output=turn.output)


def _ended_and_measured(session: monty.MontySession, step: Any, program: Program) -> list[tuple[str, int]]:
    """End the program with an error, then ask its session how long the text of each module variable is."""
    end: Any = {"exc_type": "SystemExit", "message": "the state is too large"}
    try:
        for _ in range(SUSPENSIONS_MAX):
            if isinstance(step, monty.FutureSnapshot):
                step = step.resume(dict.fromkeys(step.pending_call_ids, end))
            elif isinstance(step, monty.MontyComplete):
                break
            else:
                step = step.resume(end)
    except monty.MontyError:
        pass  # as it should
    sizes: list[tuple[str, int]] = []
    for name in _module_names(program):
        try:
            sizes.append((name, session.feed_run(f"len(repr({name}))")))
        except monty.MontyError:
            continue  # not bound, or it has no text
    return sorted(sizes, key=lambda each: -each[1])


def _module_names(program: Program) -> list[str]:
    tree = ast.parse(program.source)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    names = set(program.inputs)
    waiting: list[ast.AST] = [tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            if not isinstance(node, functions):
                waiting.append(node)
    return sorted(names)


def _pack(pending: frozenset[int], body: bytes) -> bytes:
    """Keep the waiting tickets beside the state: a program in `time.sleep` does not list them."""
    return json.dumps(sorted(pending)).encode() + b"\n" + body


def _unpack(snapshot: bytes) -> tuple[frozenset[int], bytes]:
    pending, _, body = snapshot.partition(b"\n")
    return frozenset(json.loads(pending)), body
