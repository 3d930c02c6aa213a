"""The crash-point matrix: stop everything before and after each store write and each act, open the home again, finish.

The result and the effects must be those of the run that nobody stopped.
"""

from collections import Counter
from contextlib import suppress

import anyio
import pytest

from kit import crashing, opened
from overwinter.config import Agent, Config, Worker
from overwinter.errors import Revoked
from overwinter.events import Status
from overwinter.store import Page
from overwinter.testing import OWNER, CrashPoints, ManualClock, finish, idle

pytestmark = pytest.mark.anyio

PROGRAMS = {
    "keyed": ("a = await shop.charge(cents=5)\nb = await shop.charge(cents=5)\n[a, b]", ["charged 5", "charged 5"]),
    "side by side": (
        "import asyncio\nawait asyncio.gather(shop.charge(cents=1), shop.double(number=2), shop.charge(cents=3))",
        ["charged 1", 4, "charged 3"],
    ),
    "write": ("x = await shop.double(number=2)\nawait shop.pay(cents=x)", "paid 4"),
    "sleep and ask": (
        f"import asyncio\nawait asyncio.sleep(5)\nx = await tools.ask({OWNER!r}, 'Go?')\nawait shop.charge(cents=7)\nx",
        "go",
    ),
    "retry": ("await shop.flaky(name='m')", 3),
    "approved": ("x = await shop.double(number=2)\nawait shop.pay(cents=x)", "paid 4"),
}
ASKING = Agent(owner=OWNER, tools=("shop.double", "shop.charge"), asks=("shop.pay",))
CONFIGS = {"approved": Config(agents={"default": ASKING}, worker=Worker(interpreters=2))}
ANSWERS = {"Go?": "go", "approve": "yes"}
POINTS_MAX = 40
"""More than any of the programs passes."""


async def run_to_crash(project, clock, source, points, config=None):
    """Start the program and work until everything has stopped; return what of the run is known outside."""
    async with (
        opened(project, clock=clock, config=config, wrap=crashing(points), drain_s=0) as app,
        anyio.create_task_group() as group,
    ):

        async def act() -> None:
            run_id = await app.start(source, dedup="matrix")
            await finish(app, run_id, clock, answers=ANSWERS)
            group.cancel_scope.cancel()

        group.start_soon(act)
        await points.crashed.wait()
        group.cancel_scope.cancel()


def new_home(project, ledger, crash_at):
    ledger.write_text("")
    home = project / f"home-{crash_at}"
    home.mkdir()
    module = (project / "module").read_text()
    (home / "module").write_text(module)
    (home / f"{module}.py").symlink_to(project / f"{module}.py")
    return home


def answer_for(ledger, cents):
    """Look, as a person would, whether the write was carried out."""
    return 'done "paid 4"' if f"pay {cents}" in ledger.read_text() else "repeat"


@pytest.mark.claim("D1.crash_matrix")
@pytest.mark.claim("D4.same_key")
@pytest.mark.claim("D4.write_once")
@pytest.mark.parametrize("name", PROGRAMS)
async def test_stopped_at_any_point_a_run_ends_as_it_would_have(project, ledger, name):
    source, expected = PROGRAMS[name]
    for crash_at in range(1, POINTS_MAX):
        clock, points = ManualClock(), CrashPoints(crash_at)
        home = new_home(project, ledger, crash_at)
        await run_to_crash(home, clock, source, points, CONFIGS.get(name))
        if not points.crashed.is_set():
            assert crash_at > 5, "the program passes more points than that"
            return
        async with opened(home, clock=clock, config=CONFIGS.get(name)) as app:
            run_id = await app.start(source, dedup="matrix")  # the sender repeats what it got no answer to
            await idle(app)
            run = await finish(app, run_id, clock, answers={**ANSWERS, "unknown": answer_for(ledger, 4)})
            events = [event async for event in app.events(run_id)]
        where = f"{name}, stopped at {points.passed[-1]} (point {crash_at})"
        assert run.result == expected, where
        effects = Counter(line for line in ledger.read_text().splitlines() if line.startswith(("charge", "pay")))
        assert set(effects.values()) <= {1}, where
        assert sum(effects.values()) == source.count("shop.charge") + source.count("shop.pay"), where
        assert [event.position for event in events] == list(range(len(events))), where
        epochs = [event.epoch for event in events]
        assert epochs == sorted(epochs), where
    pytest.fail("the program passes more points than the matrix has")


BUSY = (
    "import asyncio\nawait asyncio.gather(shop.charge(cents=1), shop.pay(cents=2), shop.double(number=2))\n"
    "await asyncio.sleep(5)\nawait shop.charge(cents=3)\nawait shop.pay(cents=4)"
)


class Signal(CrashPoints):
    """Says when a point is passed, and stops nothing."""

    async def cross(self, name: str) -> None:
        self.passed.append(name)
        if len(self.passed) == self._crash_at:
            self.crashed.set()


def effects(ledger):
    return [line for line in ledger.read_text().splitlines() if line.startswith(("charge", "pay"))]


async def ends_without_effect(home, clock, ledger, *, was_finished):
    """Open the home again and let all time pass: nothing of the revoked agent happens."""
    before = effects(ledger)
    clock.advance(86_400)
    async with opened(home, clock=clock) as app:
        await idle(app)
        (run,) = await app.runs(Page())
        assert (run.status is Status.FINISHED) == was_finished
    assert effects(ledger) == before


@pytest.mark.claim("G5.killed")
@pytest.mark.parametrize("half", [0, 1])
async def test_stopped_at_any_point_and_revoked_a_run_has_no_effect_any_more(project, ledger, half):
    for crash_at in range(4 + half, POINTS_MAX, 2):
        clock, points = ManualClock(), CrashPoints(crash_at)
        home = new_home(project, ledger, crash_at)
        await run_to_crash(home, clock, BUSY, points)
        async with opened(home, clock=clock, is_worker=False) as app:
            await app.governance.revoke("default", by="lead")
            (run,) = await app.runs(Page())
        await ends_without_effect(home, clock, ledger, was_finished=run.status is Status.FINISHED)
        if not points.crashed.is_set():
            return
    pytest.fail("the program passes more points than the matrix has")


async def work(app, clock, scope):
    """Start the busy program and bring it to its end; a revocation in between is none of its errors."""
    with suppress(Revoked, AssertionError):
        await finish(app, await app.start(BUSY), clock)
        scope.cancel()


@pytest.mark.claim("G5.in_flight")
async def test_revoked_at_any_point_no_effect_starts_after_the_answer(project, ledger):
    for at in range(1, POINTS_MAX):
        clock, points = ManualClock(), Signal(at)
        home = new_home(project, ledger, at)
        async with opened(home, clock=clock, wrap=crashing(points)) as app, anyio.create_task_group() as group:
            group.start_soon(work, app, clock, group.cancel_scope)
            await points.crashed.wait()
            await app.governance.revoke("default", by="lead")
            before = effects(ledger)
            await idle(app)
            clock.advance(86_400)
            await idle(app)
            assert effects(ledger) == before, points.passed[at - 1]
            group.cancel_scope.cancel()
        if not points.crashed.is_set():
            return
    pytest.fail("the program passes more points than the matrix has")
