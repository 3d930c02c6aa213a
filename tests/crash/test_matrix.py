"""The crash-point matrix: stop everything before and after each store write and each act, open the home again, finish.

The result and the effects must be those of the run that nobody stopped.
"""

from collections import Counter

import anyio
import pytest

from kit import crashing, opened
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
}
POINTS_MAX = 40
"""More than any of the programs passes."""


async def run_to_crash(project, clock, source, points):
    """Start the program and work until everything has stopped; return what of the run is known outside."""
    async with (
        opened(project, clock=clock, wrap=crashing(points), drain_s=0) as app,
        anyio.create_task_group() as group,
    ):

        async def act() -> None:
            run_id = await app.start(source, dedup="matrix")
            await finish(app, run_id, clock, answers={"Go?": "go"})
            group.cancel_scope.cancel()

        group.start_soon(act)
        await points.crashed.wait()
        group.cancel_scope.cancel()


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
        home = project / f"home-{crash_at}"
        home.mkdir()
        (home / "module").write_text((project / "module").read_text())
        (home / f"{(project / 'module').read_text()}.py").symlink_to(project / f"{(project / 'module').read_text()}.py")
        ledger.write_text("")
        await run_to_crash(home, clock, source, points)
        if not points.crashed.is_set():
            assert crash_at > 5, "the program passes more points than that"
            return
        async with opened(home, clock=clock) as app:
            run_id = await app.start(source, dedup="matrix")  # the sender repeats what it got no answer to
            await idle(app)
            run = await finish(app, run_id, clock, answers={"Go?": "go", "unknown": answer_for(ledger, 4)})
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
