"""The test kit: try your programs and tools against the real runtime, with time, faults and people under your control.

```python
async with open_test_app(home, {"shop": "shop_tools"}, directory=here, clock=clock) as app:
    run_id = await app.start(source, inputs={"days": 14})
    run = await finish(app, run_id, clock, answers={"Charge?": "yes"})   # fourteen days, in milliseconds
    assert run.result == "charged"
```

Models say what a `ScriptedModel` was given or what a `Cassette` recorded (docs/testing.md). The store, the interpreter and the
checker are the real ones. `tests/` of overwinter itself is written with this kit.
"""

import heapq
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio

from overwinter.adapters.home import open_home
from overwinter.adapters.models import Cassette, Heard, ScriptedModel, ToolCall
from overwinter.app import App, Parts, open_parts
from overwinter.approval import approvers
from overwinter.catalog import Catalog, Performed, Tools
from overwinter.clock import SECOND_US, Clock, SystemClock
from overwinter.config import Agent, Config, Service, Worker
from overwinter.events import Answer, Call, CallState, Status
from overwinter.frozen import replace
from overwinter.gateway.upstream import Upstream
from overwinter.interpreter import Blocked, Interpreter, Outcome, Program
from overwinter.lineage import FAMILY_MAX
from overwinter.registry import Registry
from overwinter.schedule import Schedules
from overwinter.store import NEVER_US, CallRecord, Page, RunRecord, Store, Voted

__all__ = [
    "OWNER", "Cassette", "CrashPoints", "FaultyTools", "Heard", "ManualClock", "ScriptedModel", "ToolCall", "faulty_store", "finish", "hibernate_always", "idle",
    "open_test_app",
]  # fmt: skip

OWNER = "owner@example.com"
IDLE_LOOK_S = 0.002


class ManualClock:
    """A clock that stands still until it is told to move; sleepers wake in the order of their instants."""

    def __init__(self, start_us: int = 1_900_000_000 * SECOND_US) -> None:
        self._now_us = start_us
        self._sleepers: list[tuple[int, int, anyio.Event]] = []
        self._number = 0

    def now_us(self) -> int:
        """Return the present instant."""
        return self._now_us

    async def sleep_until(self, instant_us: int) -> None:
        """Return when the clock was moved to `instant_us` or beyond."""
        if instant_us <= self._now_us:
            await anyio.lowlevel.checkpoint()
            return
        event = anyio.Event()
        self._number += 1
        heapq.heappush(self._sleepers, (instant_us, self._number, event))
        await event.wait()

    def advance(self, seconds: float) -> None:
        """Move on, and wake whoever is due."""
        self.set(self._now_us + round(seconds * SECOND_US))

    def set(self, instant_us: int) -> None:
        """Move to an instant; never back."""
        self._now_us = max(self._now_us, instant_us)
        while self._sleepers and self._sleepers[0][0] <= self._now_us:
            heapq.heappop(self._sleepers)[2].set()


@asynccontextmanager
async def open_test_app(  # noqa: PLR0913 - each part may be replaced
    home: Path,
    services: Mapping[str, str],
    *,
    directory: Path,
    clock: Clock | None = None,
    config: Config | None = None,
    wrap: Callable[[Parts], Parts] = lambda parts: parts,
    drain_s: float = 5.0,
    is_worker: bool = True,
    models: Upstream | None = None,
) -> AsyncGenerator[App]:
    """Open an App whose parts can be wrapped.

    Args:
        home: a directory, made if it is missing; open it again to go on after a crash.
        services: service name to Python module.
        directory: where the modules lie, absolute.
        clock: the machine's if None.
        config: one agent `default` that may call everything, if None.
        wrap: gives back the parts with faults in them.
        drain_s: 0: leave as a crash would.
        is_worker: False: nothing runs.
        models: answers model calls in place of the providers: a `Cassette`, a `ScriptedModel`.
    """
    clock = clock or SystemClock()
    config = config or Config(agents={"default": Agent(owner=OWNER, tools=("*",))}, worker=Worker(interpreters=2))
    python = {name: Service(python=module) for name, module in services.items()}
    config = replace(config, services={**python, **config.services})

    def around(real: Upstream) -> Upstream:
        return models.over(real) if isinstance(models, Cassette) else models or real

    async with AsyncExitStack() as stack:
        place = stack.enter_context(open_home(home))
        parts = await stack.enter_async_context(
            open_parts(place, config, clock, directory=directory, around_models=around)
        )
        async with App(config, wrap(parts)).at_work(is_worker=is_worker, drain_s=drain_s) as app:
            yield app


async def idle(app: App) -> None:
    """Return when nothing is left to do but wait: no turn is queued or under way, no call is in flight but those that pause."""
    quiet = 0
    while quiet < 3:  # noqa: PLR2004 - a wake-up may be on its way between two looks
        await anyio.sleep(IDLE_LOOK_S)
        pulse = app.pulse()
        is_at_it = pulse.queued or pulse.busy or pulse.in_flight > len(app.models.gateway.pauses)
        quiet = 0 if is_at_it else quiet + 1


async def finish(
    app: App, run_id: str, clock: ManualClock | None = None, *, answers: Mapping[str, str] | None = None
) -> RunRecord:
    """Bring a run to its end, or as far as it goes: move the clock to whatever it and the runs below it wait for, answer their questions.

    Args:
        app: where it runs.
        run_id: the run.
        clock: moved on when the run waits for time; None: time passes by itself.
        answers: a part of a question's text, or `"unknown"` for calls of unknown outcome, to the answer. `"approve"` to
            `"yes"` or `"no"` for calls that must be approved.

    Raises:
        AssertionError: if the run waits for something that neither gives.
    """
    while True:
        if clock is not None:
            await idle(app)
        run = await app.run(run_id)
        if run.status is not Status.LIVE or run.is_revoked:
            return run
        family = await _family(app, run)
        if any([await _answer(app, each.run_id, answers or {}) for each in family]):
            continue
        if clock is None:
            with anyio.move_on_after(1.0):
                await app.committed(run_id, run.events)
            continue
        instants = [instant for each in family for instant in await _instants(app, each)]
        instants += app.models.gateway.pauses
        ahead = [instant for instant in instants if instant > clock.now_us()]
        if ahead:
            clock.set(min(ahead))
        else:
            assert instants or any(each.is_ready for each in family), (
                f"run {run_id} {app.reason(run, await app.calls(run_id))}: nothing gives it that"
            )
            clock.advance(1.0)  # the safety poll finds what no hint told


async def _family(app: App, run: RunRecord) -> list[RunRecord]:
    """Return a run, and the runs below it that have not ended."""
    found, live = [run], list(await app.runs(Page(statuses=[Status.LIVE], limit=FAMILY_MAX)))
    for upper in found:
        found += [each for each in live if each.parent == upper.run_id]
    return found


async def _instants(app: App, run: RunRecord) -> list[int]:
    """Return the instants for which a run waits; 0: for a call that is to be performed, and that the store could not take."""
    calls = [each for each in await app.calls(run.run_id) if not each.person]
    owed = [
        0
        for each in calls
        if each.state is CallState.INTENDED and each.call.effect != "wait" and not each.not_before_us
    ]
    instants = (run.due_us, run.not_before_us, *(each.not_before_us for each in calls))
    return [*owed, *(each for each in instants if each and each < NEVER_US)]


async def _answer(app: App, run_id: str, answers: Mapping[str, str]) -> bool:
    is_answered = False
    for question in await app.questions(run_id):
        found = next((answer for part, answer in answers.items() if part in _asked(question)), None)
        if found is None:
            continue
        if _asked(question) == "approve":
            await _vote(app, question, is_yes=found == "yes")
        else:
            await app.answer(question.call.key, found, by=question.person or OWNER)
        is_answered = True
    return is_answered


async def _vote(app: App, question: CallRecord, *, is_yes: bool) -> None:
    """Have as many people say so as are needed."""
    assert question.gate is not None
    for person in approvers(question.gate):
        if await app.governance.vote(question, is_yes=is_yes, by=person) is not Voted.COUNTED:
            return


def _asked(question: CallRecord) -> str:
    if question.state is CallState.UNKNOWN:
        return "unknown"
    is_gated = question.gate is not None and not question.gate.is_used
    if is_gated:
        return "approve"
    asked = question.call.arguments if question.call.more is None else question.call.more
    return str(asked.get("question"))


# --- Faults ----------------------------------------------------------------------------------------------------------

WRITES = (
    "create", "send", "commit", "stumble", "start", "finish", "postpone", "gate", "vote", "park", "end", "release", "revoke",
    "restore", "grant", "withdraw", "came",
)  # fmt: skip
"""Store methods that change something: before and after each, a process may die. (`enrol` comes before any work.)"""


class CrashPoints:
    """Counts the points at which a process may die, and stops everything at one of them.

    From then on nothing goes on any more, as if the process had been killed: every wrapped method waits for ever. Leave
    the App with `drain_s=0` and open the home again.
    """

    def __init__(self, crash_at: int | None = None) -> None:
        self.passed: list[str] = []
        """Names of the points passed, in order: `"commit.before"`, `"perform.after"`, ..."""
        self.crashed = anyio.Event()
        self._crash_at = crash_at

    async def cross(self, name: str) -> None:
        """Pass a point, or stop there."""
        if self.crashed.is_set():
            await anyio.sleep_forever()
        self.passed.append(name)
        if len(self.passed) == self._crash_at:
            self.crashed.set()
            await anyio.sleep_forever()


S = TypeVar("S", Store, Registry, Schedules)


def faulty_store(store: S, points: CrashPoints) -> S:
    """Return the store, or the registry, with a point before and after each of its writes."""
    return _FaultyStore(store, points)  # type: ignore[return-value] # every other method is the store's own


class _FaultyStore:
    def __init__(self, store: Store | Registry | Schedules, points: CrashPoints) -> None:
        self._store = store
        self._points = points

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as the store's own
        method = getattr(self._store, name)
        return self._crossing(name, method) if name in WRITES else method

    def _crossing(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def crossed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the same
            await self._points.cross(f"{name}.before")
            result = await method(*args, **kwargs)
            await self._points.cross(f"{name}.after")
            return result

        return crossed


class FaultyTools:
    """Tools with a point before and after each act."""

    def __init__(self, tools: Tools, points: CrashPoints) -> None:
        self._tools = tools
        self._points = points

    @property
    def catalog(self) -> Catalog:
        """Return what can be called."""
        return self._tools.catalog

    async def perform(self, call: Call) -> Performed:
        """Carry out one attempt, if no crash comes first."""
        await self._points.cross("perform.before")
        answer = await self._tools.perform(call)
        await self._points.cross("perform.after")
        return answer


def hibernate_always(interpreter: Interpreter) -> Interpreter:
    """Return an interpreter that dumps, drops and loads a program at every single answer.

    Answers that arrived together are given one by one, each to the state that the one before it left. A program must end
    the same.
    """
    return _Hibernating(interpreter)


class _Hibernating:
    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter

    @property
    def engine(self) -> str:
        return self._interpreter.engine

    @property
    def busy(self) -> int:
        return self._interpreter.busy

    async def start(self, program: Program, *, now_us: int) -> Outcome:
        return await self._interpreter.start(program, now_us=now_us)

    async def resume(self, program: Program, snapshot: bytes, answers: Mapping[int, Answer], *, now_us: int) -> Outcome:
        left: dict[int, Answer] = dict(answers)
        outcome: Outcome | None = None
        before: Blocked | None = None
        while left:
            ticket = min(left)
            state = before.snapshot if before else snapshot
            outcome = await self._interpreter.resume(program, state, {ticket: left.pop(ticket)}, now_us=now_us)
            outcome = _joined(before, outcome)
            if not isinstance(outcome, Blocked):
                return outcome
            before = outcome
            left = {each: answer for each, answer in left.items() if each in outcome.pending}
            assert outcome.first is None or not left, "`time.sleep` holds the program while other answers wait"
        assert outcome is not None, "a resume without answers"
        return outcome


def _joined(before: Blocked | None, outcome: Outcome) -> Outcome:
    if before is None:
        return outcome
    if isinstance(outcome, Blocked):
        requests = (*before.requests, *outcome.requests)
        return replace(outcome, requests=requests, output=before.output + outcome.output)
    return replace(outcome, output=before.output + outcome.output)
