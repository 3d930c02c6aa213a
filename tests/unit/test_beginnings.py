"""A run that a program begins is written down with its first turn, or without it where that takes long, fails or is stopped."""

from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kit import crashing, opened
from overwinter import app as apps
from overwinter import worker
from overwinter.adapters.sqlite import family
from overwinter.app import App, Parts
from overwinter.config import Agent, Config, Limits, Service, Worker
from overwinter.errors import HomeFull, WorkerCrashed
from overwinter.events import Status
from overwinter.store import Page, Turn
from overwinter.testing import OWNER, CrashPoints, ManualClock, finish

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


class Noting:
    """An interpreter that notes whose programs it starts, and may die at the first of them."""

    def __init__(self, parts: Parts, *, dies: bool = False) -> None:
        self._interpreter, self._dies, self.started = parts.interpreter, dies, list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._interpreter, name)

    async def start(self, program: Any, *, now_us: int) -> Any:
        if "spawn" not in program.source:
            self.started.append(program.run_id)
            if self._dies and len(self.started) == 1:
                raise WorkerCrashed("it died")
        return await self._interpreter.start(program, now_us=now_us)


def around(kind: Any, part: str, **options: Any) -> tuple[list[Any], Any]:
    """Return what puts one of a kind around a part of a home, and the list in which it stands once it does."""
    made = list[Any]()

    def wrap(parts: Parts) -> Parts:
        made.append(kind(parts, **options))
        return replace(parts, **{part: made[0]})

    return made, wrap


async def children(app: App) -> Any:
    return [each for each in await app.runs(Page()) if each.parent is not None]


async def facts(app: App, run_id: str) -> list[str]:
    return [event.kind async for event in app.events(run_id)]


async def test_a_program_that_begins_a_run_pays_one_commit_for_it_and_its_first_turn(project, monkeypatch):
    monkeypatch.setattr(worker, "DRAFT_S_MAX", 20)
    points = CrashPoints()
    async with opened(project, wrap=crashing(points)) as app:
        parent = await finish(app, await app.start(SPAWNING))
        assert parent.result == 42
        (child,) = await children(app)
        assert await facts(app, child.run_id) == FACTS
    assert points.passed.count("create.before") == 1  # the parent
    assert points.passed.count("commit.before") == 4  # two turns each


async def test_a_run_whose_first_turn_takes_long_is_written_down_without_it_and_takes_it_once(project):
    stores, held = around(Stores, "store")
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
    interpreters, dying = around(Noting, "interpreter", dies=True)
    async with opened(project, wrap=dying) as app:
        assert (await finish(app, await app.start(SPAWNING))).result == 42
        (child,) = await children(app)
        assert interpreters[0].started == [child.run_id] * 2
        assert await facts(app, child.run_id) == FACTS


async def test_a_run_whose_parent_is_cancelled_in_its_first_turn_goes_no_further(project):
    stores, held = around(Stores, "store")
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
async def test_a_run_whose_agent_is_revoked_in_its_first_turn_goes_no_further(project):
    stores, held = around(Stores, "store")
    async with opened(project, wrap=held) as app:
        run_id = await app.start(SPAWNING)
        with anyio.fail_after(20):
            await stores[0].came.wait()
            await app.governance.revoke("default", by="owner", reason="")
            assert app.pulse().busy == 0
            stores[0].go_on.set()
            assert [await facts(app, each.run_id) for each in await children(app)] in ([], [["created"]])
        assert (await app.run(run_id)).is_revoked


async def test_a_first_turn_that_is_answered_in_its_own_commit_is_taken_once(project, monkeypatch):
    # So the run is next in line before anybody else can take a step.
    monkeypatch.setattr(apps, "TURNS_PER_INTERPRETER", 1)
    interpreters, noting = around(Noting, "interpreter")
    child = "text = ''\ntry:\n    await tools.ask('', 'q')\nexcept Exception as error:\n    text = 'refused'\ntext"
    config = Config(agents={"default": Agent(owner=OWNER, tools=("*",))}, worker=Worker(interpreters=1))
    async with opened(project, config=config, wrap=noting) as app:
        run = await finish(app, await app.start(f"await tools.spawn({child!r})"))
        assert run.result == "refused"
        (made,) = await children(app)
        assert interpreters[0].started == [made.run_id]


ENDLESS = "await tools.spawn('while True:\\n    pass')"
PATIENT = Config(
    agents={"default": Agent(owner=OWNER, tools=("*",)), "low": Agent(owner=OWNER, tools=("*",), parent="default")},
    worker=Worker(interpreters=2),
    limits=Limits(run_cpu_s=3_600, turn_cpu_s=3_600),
)
"""A program may compute for an hour: whatever stops it sooner was told to."""


async def rested(app: App) -> None:
    with anyio.fail_after(20):
        while app.pulse().busy:  # noqa: ASYNC110 - an interpreter that is killed tells nobody
            await anyio.sleep(0.005)


async def test_nothing_computes_for_a_run_that_its_call_may_not_begin(project, monkeypatch):
    monkeypatch.setattr(family, "CHILDREN_MAX", 0)
    async with opened(project, config=PATIENT) as app:
        run = await finish(app, await app.start(ENDLESS))
        assert "at most 0 children" in run.result["message"]
        assert await children(app) == []
        await rested(app)


async def test_a_run_that_is_revoked_with_its_first_turn_under_way_says_so_and_has_stopped(project):
    interpreters, noting = around(Noting, "interpreter")
    async with opened(project, config=PATIENT, wrap=noting) as app:
        run_id = await app.start(ENDLESS)
        with anyio.fail_after(20):
            while not interpreters[0].started:
                await anyio.lowlevel.checkpoint()
        revocation = await app.governance.revoke_run(run_id, by="owner")
        assert (revocation.turns, app.pulse().busy) == (1, 0)


class Revoking:
    """A store in which an agent is revoked while a run of it is looked at that is to begin."""

    def __init__(self, parts: Parts) -> None:
        self._store, self.revoke = parts.store, anyio.Event()
        self.go_on = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def draft(self, run: Any) -> Any:
        draft = await self._store.draft(run)
        self.revoke.set()
        await self.go_on.wait()
        return draft


@pytest.mark.claim("G5.fence")
async def test_a_run_that_is_about_to_begin_does_not_after_the_revocation_of_its_agent(project):
    stores, interpreters = list[Revoking](), list[Noting]()

    def wrap(parts: Parts) -> Parts:
        stores.append(Revoking(parts))
        interpreters.append(Noting(parts))
        store: Any = stores[0]
        return replace(parts, store=store, interpreter=interpreters[0])

    async with opened(project, config=PATIENT, wrap=wrap) as app:
        run_id = await app.start("await tools.spawn('1', agent='low')")
        with anyio.fail_after(20):
            await stores[0].revoke.wait()
            await app.governance.revoke("low", by="owner")
            stores[0].go_on.set()
            run = await finish(app, run_id)
        assert "was revoked" in run.result["message"]
        assert interpreters[0].started == []


class Late:
    """A store in which the commit that makes a run is durable before anybody hears of it."""

    def __init__(self, parts: Parts) -> None:
        self._store, self.made, self.go_on = parts.store, anyio.Event(), anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, turn: Turn, **how: Any) -> Any:
        verdict = await self._store.commit(turn, **how)
        if turn.draft is not None:
            self.made.set()
            await self.go_on.wait()
        return verdict


async def test_a_run_that_has_begun_is_the_answer_to_its_call_whatever_forbids_it_by_then(project):
    stores, wrap = around(Late, "store")
    async with opened(project, config=PATIENT, wrap=wrap) as app:
        run_id = await app.start("await tools.spawn('await tools.receive()', agent='low')")
        with anyio.fail_after(20):
            await stores[0].made.wait()
            await app.governance.revoke("low", by="owner")
            stores[0].go_on.set()
            run = await finish(app, run_id)
        assert "was cancelled by overwinter (agent low was revoked)" in run.result["message"]
        assert (await facts(app, run_id)).count("answered") == 1


class Full:
    """A store whose disk is full for a while as soon as a run is to begin."""

    def __init__(self, parts: Parts) -> None:
        self._store, self.refused, self.is_full = parts.store, 0, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _refuse(self) -> None:
        if self.is_full:
            self.refused += 1
            raise HomeFull("no space is left")

    async def commit(self, turn: Turn, **how: Any) -> Any:
        if turn.draft is not None:
            self._refuse()
        return await self._store.commit(turn, **how)

    async def create(self, run: Any, **how: Any) -> Any:
        if run.origin is not None:
            self._refuse()
        return await self._store.create(run, **how)


async def test_a_disk_that_is_full_fails_no_program_that_begins_a_run(project):
    stores, wrap = around(Full, "store")
    clock = ManualClock()
    async with opened(project, wrap=wrap, clock=clock) as app:
        run_id = await app.start(SPAWNING)
        with anyio.fail_after(20):
            while not stores[0].refused:  # noqa: ASYNC110 - nothing tells of what was refused
                await anyio.sleep(0.005)
            await rested(app)
            stores[0].is_full = False
            assert (await finish(app, run_id, clock)).result == 42
        assert len(await children(app)) == 1


async def test_a_run_that_is_cut_off_by_the_time_out_of_its_call_computes_no_longer(project):
    async with opened(project, config=PATIENT) as app:
        source = ENDLESS.replace("pass')", "pass', timeout=0.1)")
        run = await finish(app, await app.start(source))
        assert run.status is Status.FAILED
        assert [each.status for each in await children(app)] == [Status.CANCELLED]
        await rested(app)


async def test_what_a_run_has_begun_a_moment_before_it_is_cancelled_computes_no_longer(project):
    looks, made = list[anyio.Event](), anyio.Event()

    class Between:
        def __init__(self, parts: Parts) -> None:
            self._store = parts.store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def draft(self, run: Any) -> Any:
            await looks[0].wait()
            return await self._store.draft(run)

        async def commit(self, turn: Turn, **how: Any) -> Any:
            verdict = await self._store.commit(turn, **how)
            if turn.draft is not None:
                made.set()
            return verdict

        async def descendants(self, run_id: str) -> Any:
            found = await self._store.descendants(run_id)
            looks[0].set()
            await made.wait()
            return found

    def wrap(parts: Parts) -> Parts:
        looks.append(anyio.Event())
        store: Any = Between(parts)
        return replace(parts, store=store)

    endless = "await tools.spawn('await shop.double(number=1)\\nwhile True:\\n    pass')"
    async with opened(project, config=PATIENT, wrap=wrap) as app:
        run_id = await app.start(endless)
        with anyio.fail_after(20):
            await app.cancel(run_id, by="owner")
        assert [each.status for each in await children(app)] == [Status.CANCELLED]
        await rested(app)


SLOW = '''
"""Slow."""
import asyncio

from overwinter import write

@write
async def send() -> int:
    """Take long."""
    await asyncio.sleep(3600)
    return 1
'''


class Unparked:
    """A store whose disk is full when it is to say that nobody knows what became of a write."""

    def __init__(self, parts: Parts) -> None:
        self._store, self.refused = parts.store, anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def park(self, *_what: Any, **_how: Any) -> Any:
        self.refused.set()
        raise HomeFull("no space is left")


async def test_a_home_outlives_a_full_disk_as_it_stops_a_run_that_was_cut_off_with_its_write_under_way(project):
    (project / "slow_tools.py").write_text(SLOW)
    stores, wrap = around(Unparked, "store")
    config = replace(PATIENT, services={"slow": Service(python="slow_tools")})
    async with opened(project, config=config, wrap=wrap) as app:
        run = await finish(app, await app.start("await tools.spawn('await slow.send()', timeout=0.5)"))
        assert run.status is Status.FAILED
        with anyio.fail_after(20):
            await stores[0].refused.wait()
            assert (await finish(app, await app.start("await shop.double(number=21)"))).result == 42
