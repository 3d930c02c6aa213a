"""A run that a program begins is written down with its first turn, or without it where that takes long, fails or is stopped."""

from dataclasses import replace
from typing import Any

import anyio
import pytest

from kit import crashing, opened
from overwinter.app import App, Parts
from overwinter.errors import WorkerCrashed
from overwinter.events import Status
from overwinter.store import Page, Turn
from overwinter.testing import CrashPoints, finish

pytestmark = [pytest.mark.anyio, pytest.mark.claim("L1.family")]

SPAWNING = "await tools.spawn('2 + await shop.double(number=20)')"
FACTS = ["created", "turn", "called", "answered", "turn", "finished"]


class Stores:
    """A store in which the commits of first turns with a draft wait, and say that they do."""

    def __init__(self, parts: Parts) -> None:
        self._store = parts.store
        self.came, self.go_on = anyio.Event(), anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, turn: Turn, **how: Any) -> Any:
        if turn.draft is not None:
            self.came.set()
            await self.go_on.wait()
        return await self._store.commit(turn, **how)


class Dying:
    """An interpreter that dies at the first start of some programs."""

    def __init__(self, parts: Parts) -> None:
        self._interpreter, self.died = parts.interpreter, list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._interpreter, name)

    async def start(self, program: Any, *, now_us: int) -> Any:
        if program.source.startswith("2 +") and program.run_id not in self.died:
            self.died.append(program.run_id)
            raise WorkerCrashed("it died")
        return await self._interpreter.start(program, now_us=now_us)


async def children(app: App) -> Any:
    return [each for each in await app.runs(Page()) if each.parent is not None]


async def facts(app: App, run_id: str) -> list[str]:
    return [event.kind async for event in app.events(run_id)]


async def test_a_program_that_begins_a_run_pays_one_commit_for_it_and_its_first_turn(project):
    points = CrashPoints()
    async with opened(project, wrap=crashing(points)) as app:
        parent = await finish(app, await app.start(SPAWNING))
        assert parent.result == 42
        (child,) = await children(app)
        assert await facts(app, child.run_id) == FACTS
    assert points.passed.count("create.before") == 1  # the parent
    assert points.passed.count("commit.before") == 4  # two turns each


async def test_a_run_whose_first_turn_takes_long_is_written_down_without_it_and_takes_it_once(project):
    stores = list[Stores]()

    def held(parts: Parts) -> Parts:
        stores.append(Stores(parts))
        return replace(parts, store=stores[0])

    async with opened(project, wrap=held) as app:
        run_id = await app.start(SPAWNING)
        with anyio.fail_after(20):
            await stores[0].came.wait()
            assert not await children(app)
            while not (found := await children(app)):  # noqa: ASYNC110 - nothing else tells of a run that is made
                await anyio.sleep(0.005)
        assert await facts(app, found[0].run_id) == ["created"]
        stores[0].go_on.set()
        assert (await finish(app, run_id)).result == 42
        assert [each.run_id for each in await children(app)] == [found[0].run_id]
        assert await facts(app, found[0].run_id) == FACTS


async def test_a_run_whose_first_turn_kills_its_worker_is_written_down_and_takes_it_again(project):
    interpreters = list[Dying]()

    def dying(parts: Parts) -> Parts:
        interpreters.append(Dying(parts))
        return replace(parts, interpreter=interpreters[0])

    async with opened(project, wrap=dying) as app:
        assert (await finish(app, await app.start(SPAWNING))).result == 42
        (child,) = await children(app)
        assert interpreters[0].died == [child.run_id]
        assert await facts(app, child.run_id) == FACTS


async def test_a_run_whose_parent_is_cancelled_in_its_first_turn_is_never_made(project):
    stores = list[Stores]()

    def held(parts: Parts) -> Parts:
        stores.append(Stores(parts))
        return replace(parts, store=stores[0])

    async with opened(project, wrap=held) as app:
        run_id = await app.start(SPAWNING)
        with anyio.fail_after(20):
            await stores[0].came.wait()
            await app.cancel(run_id, by="owner")
        assert (await app.run(run_id)).status is Status.CANCELLED
        assert app.pulse().busy == 0
        left = [each.status for each in await children(app)]
        assert left in ([], [Status.CANCELLED])  # its time may have passed by then, and it was made without its turn
        stores[0].go_on.set()
        assert app.pulse().in_flight == 0


@pytest.mark.claim("G5.computing")
async def test_a_run_whose_agent_is_revoked_in_its_first_turn_is_never_made(project):
    stores = list[Stores]()

    def held(parts: Parts) -> Parts:
        stores.append(Stores(parts))
        return replace(parts, store=stores[0])

    async with opened(project, wrap=held) as app:
        run_id = await app.start(SPAWNING)
        with anyio.fail_after(20):
            await stores[0].came.wait()
            await app.governance.revoke("default", by="owner", reason="")
            assert app.pulse().busy == 0
            stores[0].go_on.set()
            assert [await facts(app, each.run_id) for each in await children(app)] in ([], [["created"]])
        assert (await app.run(run_id)).is_revoked
