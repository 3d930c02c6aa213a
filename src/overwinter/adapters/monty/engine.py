"""The Interpreter contract on Monty: one turn of a program in a worker of its own, everything else in bytes."""

import asyncio
import hashlib
import importlib.util
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import pydantic_monty as monty

from overwinter.adapters.monty.calls import begun, settled
from overwinter.adapters.monty.lane import Lane, open_lane
from overwinter.adapters.monty.launcher import monty_binary, open_launcher
from overwinter.adapters.monty.outcomes import LIMITS, blocked, failed, finished, refused, unpacked
from overwinter.adapters.monty.posture import JailSettings
from overwinter.adapters.monty.prelude import rewrite
from overwinter.adapters.monty.quick import SOURCE_LENGTH_MAX, Paths, Quick, resumed, started
from overwinter.adapters.monty.turn import GRACE_S, PROGRAMS_REMEMBERED, SUSPENSIONS_MAX, Fed, Turn
from overwinter.adapters.monty.workers import LIMIT_GRACE_S, Desk, Workers, open_workers
from overwinter.events import Answer
from overwinter.frozen import replace
from overwinter.interpreter import Failed, Finished, Limits, Outcome, Program

__all__ = ["MontyInterpreter", "open_interpreter"]

OFTEN = 25
"""Turns in a second that are worth workers of the lane, though none waits for another: there each takes two thirds of the time."""
DUMP_FORMAT = 14
"""What bytes 6 and 7 of a snapshot say; the format changes with the interpreter's version."""
CHAINS_REMEMBERED = 64
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BROKEN = frozenset(limit for _, _, limit in LIMITS.values())
CLOCK_CALLS = frozenset({"datetime.now", "date.today", "time.time"})


@asynccontextmanager
async def open_interpreter(
    *, limits: Limits, workers: int, jail: JailSettings | None = None, is_eager: bool = True, is_proven: bool = True
) -> "AsyncGenerator[MontyInterpreter]":
    """Start interpreter workers, jailed, until the block is left.

    Args:
        limits: of every program.
        workers: turns that can be taken at a time; each is a thread and a process.
        jail: gaps that the operator accepts; None: no gap.
        is_eager: False: start each worker at its first turn.
        is_proven: False: the caller does something else while they start, and awaits `proven` before the first turn.

    Raises:
        JailUnavailable: the jail cannot be had on this machine, or the interpreter is not installed.
    """
    jail = jail or JailSettings()
    _spare_the_search()
    with open_launcher(jail) as launcher:
        hashed = asyncio.get_running_loop().run_in_executor(None, _digest, monty_binary())  # while the workers start
        async with (
            open_workers(
                launcher, jail, workers, limits.run_cpu_s + GRACE_S, is_eager=is_eager, is_proven=False
            ) as pool,
            open_lane(launcher, jail, workers) as lane,
        ):
            interpreter = MontyInterpreter(pool, lane, limits, hashed=hashed, launcher=launcher)
            if is_proven:
                await interpreter.proven()
            yield interpreter


class MontyInterpreter:
    """See `interpreter.Interpreter`."""

    def __init__(
        self, workers: Workers, lane: Lane, limits: Limits, *, hashed: asyncio.Future[str], launcher: str
    ) -> None:
        self._workers = workers
        self._lane = lane
        self._limits = limits
        self._since_s, self._came = 0.0, 0
        """A second, and the turns that came in it."""
        self._paths = Paths()
        self._hashed = hashed
        self.launcher = launcher
        """The program that starts a worker."""
        self._fed: Callable[[str, tuple[str, ...]], Fed] = lru_cache(PROGRAMS_REMEMBERED)(_fed)
        self._feeds: Callable[[tuple[str, ...], tuple[str, ...]], int] = lru_cache(CHAINS_REMEMBERED)(self._feeds_of)

    async def proven(self) -> None:
        """Wait until the workers have answered, and the interpreter's build is known.

        Raises:
            JailUnavailable: the jail cannot be had on this machine.
        """
        await self._workers.proven()
        await self._hashed

    @property
    def engine(self) -> str:
        """Return version, dump format and build, known once they are `proven`: a snapshot is bound to all three."""
        return f"monty-{monty.__version__}/{DUMP_FORMAT}/{self._hashed.result()}"

    @property
    def busy(self) -> int:
        """Return how many workers are in a turn."""
        return self._workers.busy + self._lane.busy

    async def start(self, program: Program, *, now_us: int) -> Outcome:
        """Run a program from its beginning until it is blocked or done.

        Raises:
            WorkerCrashed: the worker died or overran its deadline; the turn may be tried again.
            JailUnavailable: no worker can be started.
        """
        if len(program.source) <= SOURCE_LENGTH_MAX:  # a longer one is read in a thread, which takes longer than a turn
            outcome = await self._quickly(program, lambda turn: started(turn, self._paths), now_us)
            if outcome is not None:
                return outcome
        return await self._workers.run(lambda desk: _start(desk, self._turn(program, now_us)))

    async def resume(self, program: Program, snapshot: bytes, answers: Mapping[int, Answer], *, now_us: int) -> Outcome:
        """Give answers to a blocked program and run it on.

        Raises:
            WorkerCrashed: as in `start`.
            JailUnavailable: as in `start`.
        """
        pending, body = unpacked(snapshot)
        assert pending.issuperset(answers), f"tickets {sorted(set(answers) - pending)} do not wait in {sorted(pending)}"
        assert answers, "a resume without an answer changes nothing"
        before = pending.difference(answers)
        outcome = await self._quickly(program, lambda turn: resumed(turn, body, answers, self._paths), now_us, before)
        if outcome is not None:
            return outcome
        return await self._workers.run(lambda desk: _resume(desk, self._turn(program, now_us, before), body, answers))

    async def _quickly(
        self, program: Program, taken: Callable[[Turn], Quick], now_us: int, before: frozenset[int] = frozenset()
    ) -> Outcome | None:
        """Take a turn without a thread; None: it could not be taken this way."""
        if not self._lane.size and (self._workers.are_taken or self._come_often()):
            self._lane.open()

        def steps() -> tuple[Quick, Callable[[str, str], None]]:
            turn = self._turn(program, now_us, before)
            return taken(turn), turn.print

        return await self._lane.run(program.source, steps, self._limits.turn_cpu_s + LIMIT_GRACE_S)

    def _come_often(self) -> bool:
        """Count a turn; return whether so many came within a second that each should come sooner."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._since_s >= 1:
            self._since_s, self._came = now_s, 0
        self._came += 1
        return self._came >= OFTEN

    def _turn(self, program: Program, now_us: int, before: frozenset[int] = frozenset()) -> Turn:
        fed = self._fed(program.source, tuple(program.modules))
        if program.earlier:
            fed = replace(fed, before=self._feeds(program.earlier, tuple(program.modules)))
        return Turn(program=program, fed=fed, limits=self._limits, now_us=now_us, before=before)

    def _feeds_of(self, earlier: tuple[str, ...], modules: tuple[str, ...]) -> int:
        """Return how often programs were fed."""
        return sum(1 + bool(self._fed(each, modules).prelude) for each in earlier)


def _fed(source: str, modules: tuple[str, ...]) -> Fed:
    rewritten = rewrite(source)
    imports = "".join(f"import {name}\n" for name in sorted(rewritten.unbound.intersection(modules)))
    return Fed(source=rewritten.source, prelude=rewritten.prelude + imports)


def _spare_the_search() -> None:
    """Have `import opentelemetry` fail at once where it is not installed.

    The interpreter's host side tries that import each time it loads a snapshot; a search through the whole path in vain
    costs 0.1 ms, a sixth of a turn.
    """
    if "opentelemetry" not in sys.modules and importlib.util.find_spec("opentelemetry") is None:
        sys.modules["opentelemetry"] = None  # pyright: ignore[reportArgumentType] - what the import system documents


def _digest(binary: Path) -> str:
    with binary.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


# --- One turn, in the worker's thread --------------------------------------------------------------------------------


def _start(desk: Desk, turn: Turn) -> Outcome:
    policy = monty.OSPolicy(datetime="call_host", sleep="call_host", random_start={"seed": turn.program.run_id})
    with desk.pool.checkout(limits=_limits(turn.limits), os_policy=policy, external_modules=_modules(turn)) as session:
        desk.seen(session)
        if turn.program.state is not None:
            session.load_session(turn.program.state)
        if turn.fed.prelude:
            session.feed_run(turn.fed.prelude)
        inputs = dict(turn.program.inputs)
        return _outcome(
            session, turn, lambda: session.feed_start(turn.fed.source, inputs=inputs, print_callback=turn.print)
        )


def _resume(desk: Desk, turn: Turn, body: bytes, answers: Mapping[int, Answer]) -> Outcome:
    with desk.pool.checkout(external_modules=_modules(turn)) as session:  # limits and policy are in the snapshot
        desk.seen(session)
        step: Any = session.load_snapshot(body, print_callback=turn.print)
        taken = {ticket: settled(answer, turn.limits) for ticket, answer in answers.items()}
        if isinstance(step, monty.FutureSnapshot):
            return _outcome(session, turn, lambda: step.resume(taken))
        # `time.sleep` holds the whole program: it alone can be answered.
        assert set(taken) == {step.call_id}, f"ticket {step.call_id} must be answered first, not {sorted(taken)}"
        return _outcome(session, turn, lambda: step.resume(taken[step.call_id]))


def _limits(limits: Limits) -> monty.ResourceLimits:
    return monty.ResourceLimits(
        max_feed_duration_secs=limits.run_cpu_s,
        max_turn_duration_secs=limits.turn_cpu_s,
        max_memory=limits.memory_bytes,
        max_recursion_depth=limits.recursion_depth,
        max_suspensions=SUSPENSIONS_MAX,
    )


def _modules(turn: Turn) -> dict[str, monty.ExternalModule]:
    """Return only the functions that the source names: an import stores all of them in every later snapshot."""
    return {
        name: monty.ExternalModule(dict.fromkeys(functions, _never_called))
        for name, functions in turn.program.modules.items()
    }


def _never_called() -> None:
    raise AssertionError("calls are answered by the host loop, never by this function")


def _outcome(session: monty.MontySession, turn: Turn, begin: Callable[[], Any]) -> Outcome:
    """Run the program on; an error that it does not catch, or a limit, is an outcome."""
    try:
        step = _advance(begin(), turn)
        if not isinstance(step, monty.MontyComplete):
            return blocked(session, step, turn)
        outcome = finished(step.output, turn)
    except (monty.MontySyntaxError, monty.MontyRuntimeError) as error:
        outcome = failed(error, turn)
    except monty.MontyConversionError as error:
        return refused("TypeError", str(error), turn)
    return _kept(session, outcome, turn) if turn.program.keeps else outcome


def _kept(session: monty.MontySession, outcome: Finished | Failed, turn: Turn) -> Finished | Failed:
    """Return the outcome with what another program goes on with; nothing where a limit was broken, for the state may be in pieces."""
    if isinstance(outcome, Failed) and outcome.kind in BROKEN:
        return outcome
    state = session.dump()
    return replace(outcome, state=state) if len(state) <= turn.limits.snapshot_bytes else outcome


def _advance(step: Any, turn: Turn) -> Any:
    """Answer what needs no effect and start calls, until every task waits or the program is done."""
    while not isinstance(step, monty.FutureSnapshot | monty.MontyComplete):
        turn.check_deadline()
        if isinstance(step, monty.NameLookupSnapshot):
            step = step.resume()  # NameError
        elif step.is_os_function and step.function_name == "time.sleep":
            turn.requests.append(turn.request(step))
            return step
        elif step.is_os_function and step.function_name in CLOCK_CALLS:
            step = step.resume({"return_value": _clock(step.function_name, step.args, turn.now_us)})
        elif step.is_os_function and step.function_name in ("import", "import_stubs"):
            step = step.resume_auto()
        elif step.is_os_function and step.function_name != "asyncio.sleep":
            step = step.resume_not_handled()
        elif step.is_os_function or "." in step.function_name:
            step = step.resume(begun(step, turn))
        else:  # a bare name that nobody defined
            message = f"name {step.function_name!r} is not defined"
            step = step.resume({"exc_type": "NameError", "message": message})
    return step


def _clock(name: str, args: tuple[Any, ...], now_us: int) -> Any:
    now = EPOCH + timedelta(microseconds=now_us)
    match name, args:
        case "datetime.now", (None,):
            return now.replace(tzinfo=None)
        case "datetime.now", (zone,):
            return now.astimezone(zone)
        case "date.today", _:
            return now.date()
        case _:
            return now.timestamp()
