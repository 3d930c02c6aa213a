"""Stopped while a child run is given up, or cut off with its agent: its parent is told all the same, and once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from kit import crashing, opened, spoil
from overwinter.app import App, Parts
from overwinter.config import Agent, Config, Worker
from overwinter.errors import HomeFull
from overwinter.events import Status
from overwinter.registry import Registry
from overwinter.store import Page
from overwinter.testing import OWNER, CrashPoints, ManualClock, finish, idle

pytestmark = [pytest.mark.anyio, pytest.mark.claim("L1.family")]
POINTS_MAX = 40


async def told(app: App, run_id: str) -> list[str]:
    """Return the facts of a run's journal."""
    return [event.kind async for event in app.events(run_id)]


# --- Given up --------------------------------------------------------------------------------------------------------


async def damaged(home: Path) -> str:
    """Return a run that has ended and that nothing can go on from."""
    async with opened(home) as app:
        first = await finish(app, await app.start("a = 1", keeps=True))
    spoil(home, first.run_id)
    return first.run_id


async def test_stopped_at_any_point_a_child_that_is_given_up_answers_its_parent_once(project: Path, ledger: Path):
    source = "await tools.attempt('a', after=first)"
    passed = list[str]()
    for crash_at in range(1, POINTS_MAX):
        home = project / f"home-{crash_at}"
        home.mkdir()
        (home / "module").write_text(module := (project / "module").read_text())
        (home / f"{module}.py").symlink_to(project / f"{module}.py")
        inputs: dict[str, Any] = {"first": await damaged(home)}
        points = CrashPoints(crash_at)
        async with opened(home, wrap=crashing(points), drain_s=0) as app, anyio.create_task_group() as group:

            async def act(app: App, group: Any, inputs: Any) -> None:
                await finish(app, await app.start(source, inputs=inputs, dedup="matrix"))
                group.cancel_scope.cancel()

            group.start_soon(act, app, group, inputs)
            await points.crashed.wait()
            group.cancel_scope.cancel()
        if not points.crashed.is_set():
            assert {"stumble.before", "stumble.after"} <= set(passed)
            return
        passed = points.passed
        async with opened(home) as app:
            parent = await finish(app, await app.start(source, inputs=inputs, dedup="matrix"))
            (child,) = [each for each in await app.runs(Page()) if each.parent == parent.run_id]
            where = f"stopped at {passed[-1]} (point {crash_at})"
            ended = {"run": child.run_id, "status": "failed", "is_kept": False, "messages": 0}
            assert (parent.result, child.status) == (ended, Status.FAILED), where
            assert (await told(app, parent.run_id)).count("answered") == 1, where
            assert (await told(app, child.run_id))[-2:] == ["quarantined", "failed"], where
    pytest.fail("the program passes more points than the matrix has")


# --- Cut off ---------------------------------------------------------------------------------------------------------


class Dying:
    """A registry whose process dies around the act after a revocation. (The one at a start comes before any work.)"""

    def __init__(self, registry: Registry, *, is_after: bool) -> None:
        self._registry, self._is_after, self._count = registry, is_after, 0
        self.died = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

    async def strand(self) -> None:
        self._count += 1
        if self._count == 1 or self._is_after:
            await self._registry.strand()
        if self._count > 1:
            self.died.set()
            await anyio.sleep_forever()


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
async def test_stopped_around_the_act_that_follows_a_revocation_a_parent_is_told_once(project: Path, *, is_after: bool):
    agents = {"default": Agent(owner=OWNER, tools=("*",)), "low": Agent(owner=OWNER, tools=("*",), parent="default")}
    config = Config(agents=agents, worker=Worker(interpreters=2))
    dying, began = list[Dying](), list[str]()

    def wrap(parts: Parts) -> Parts:
        dying.append(Dying(parts.registry, is_after=is_after))
        registry: Any = dying[0]
        return replace(parts, registry=registry)

    async with opened(project, config=config, wrap=wrap, drain_s=0) as app, anyio.create_task_group() as group:
        began.append(await app.start("await tools.spawn('await tools.receive()', agent='low')"))
        await idle(app)
        group.start_soon(lambda: app.governance.revoke("low", by="lead"))
        await dying[0].died.wait()
        group.cancel_scope.cancel()
    async with opened(project, config=config) as app:
        run = await finish(app, began[0])
        (child,) = [each for each in await app.runs(Page()) if each.parent == run.run_id]
        assert (run.status, child.status) == (Status.FAILED, Status.CANCELLED)
        assert "agent low was revoked" in run.result["message"]
        assert (await told(app, run.run_id)).count("answered") == 1


class Full:
    """A registry whose disk is full when those are to be told that wait for runs of a revoked agent."""

    def __init__(self, registry: Registry) -> None:
        self._registry, self.is_full = registry, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

    async def strand(self) -> None:
        if self.is_full:
            raise HomeFull("no space is left")
        await self._registry.strand()


async def test_a_disk_that_is_full_by_then_makes_a_revocation_no_error_and_a_parent_is_told_later(project: Path):
    agents = {"default": Agent(owner=OWNER, tools=("*",)), "low": Agent(owner=OWNER, tools=("*",), parent="default")}
    config = Config(agents=agents, worker=Worker(interpreters=2))
    full, clock = list[Full](), ManualClock()

    def wrap(parts: Parts) -> Parts:
        full.append(Full(parts.registry))
        registry: Any = full[0]
        return replace(parts, registry=registry)

    async with opened(project, config=config, wrap=wrap, clock=clock) as app:
        run_id = await app.start("await tools.spawn('await tools.receive()', agent='low')")
        await idle(app)
        full[0].is_full = True
        assert [each.name for each in (await app.governance.revoke("low", by="lead")).identities] == ["low"]
        assert (await app.run(run_id)).status is Status.LIVE
        full[0].is_full = False
        clock.advance(10)
        with anyio.fail_after(20):
            run = await app.result(run_id)
        assert "agent low was revoked" in run.result["message"]


async def test_who_waits_for_a_run_of_a_revoked_agent_is_woken_by_the_commit_that_says_so(project: Path):
    agents = {"default": Agent(owner=OWNER, tools=("*",)), "low": Agent(owner=OWNER, tools=("*",), parent="default")}
    async with opened(project, config=Config(agents=agents), clock=ManualClock()) as app:
        run_id = await app.start("await tools.spawn('await tools.receive()', agent='low')")
        await idle(app)
        await app.governance.revoke("low", by="lead")
        with anyio.fail_after(20):  # the clock stands still: no later look finds it
            run = await app.result(run_id)
        assert run.status is Status.FAILED
