"""Runs that go on with the variables and functions of runs that have ended."""

from typing import Any

import pytest

from kit import crashing, opened, spoil
from overwinter.app import App
from overwinter.config import Agent, Config, Worker
from overwinter.errors import CheckFailed, Conflict, NotFound
from overwinter.events import Status
from overwinter.store import Page
from overwinter.testing import OWNER, CrashPoints, ManualClock, finish, idle

pytestmark = pytest.mark.anyio
FIRST = """
rows = [1, 2]
async def twice(number):
    return await shop.double(number=number)
async def paid(cents):
    return await shop.pay(cents=cents)
len(rows)
"""


async def ended(app: App, source: str, **more: Any) -> Any:
    return await finish(app, await app.start(source, **more))


@pytest.mark.claim("P2.stay")
async def test_variables_and_functions_stay_from_run_to_run(project, ledger):
    async with opened(project) as app:
        first = await ended(app, FIRST, keeps=True)
        assert (first.result, first.is_kept) == (2, True)
        second = await ended(app, "rows.append(await twice(number=20))\nrows", after=first.run_id)
        assert second.result == [1, 2, 40]
        third = await ended(
            app, "await paid(cents=5)\nx = [await twice(number=each) for each in rows]\nx", after=second.run_id
        )
        assert third.result == [2, 4, 80]
        other = await ended(app, "rows", after=first.run_id)
        assert other.result == [1, 2], "two heirs of one run know nothing of each other"
    assert ledger.read_text().splitlines() == ["pay 5"]


@pytest.mark.claim("P2.stay")
async def test_an_heir_is_checked_with_what_ran_before(project):
    async with opened(project) as app:
        first = await ended(app, FIRST, keeps=True)
        with pytest.raises(CheckFailed, match="nothing_of_it"):
            await app.start("nothing_of_it", after=first.run_id)
        with pytest.raises(CheckFailed):
            await app.start("rows = await shop.double(numbr=1)", after=first.run_id)


async def test_after_an_error_what_was_bound_before_it_is_there_and_lines_are_those_of_the_program(project):
    async with opened(project) as app:
        first = await ended(app, "a = 1\nb = a / 0\nc = 3", keeps=True)
        assert (first.status, first.is_kept) == (Status.FAILED, True)
        second = await ended(app, "\n\nboom = a + 1\n1 / 0", after=first.run_id)
        assert (second.result["kind"], second.result["line"]) == ("ZeroDivisionError", 4)
        third = await ended(app, "[a, boom]", after=second.run_id)
        assert third.result == [1, 2]


async def test_an_heir_sleeps_and_is_woken_in_another_process(project):
    async with opened(project) as app:
        first = await ended(app, FIRST, keeps=True)
        run_id = await app.start(
            "x = await tools.receive()\nrows.append(await twice(number=x))\nrows", after=first.run_id
        )
        await idle(app)
    async with opened(project) as app:
        await app.send(run_id, 4)
        assert (await finish(app, run_id)).result == [1, 2, 8]


async def test_what_left_nothing_is_not_gone_on_from(project):
    config = Config(
        agents={"default": Agent(owner=OWNER, tools=("*",)), "other": Agent(owner=OWNER, tools=("*",))},
        worker=Worker(interpreters=2),
    )
    async with opened(project, config=config) as app:
        plain = await ended(app, "1")
        assert not plain.is_kept
        live = await app.start("await tools.receive()", keeps=True)
        cancelled = await app.start("await tools.receive()", keeps=True)
        await idle(app)
        await app.cancel(cancelled, by="me")
        for run_id in (plain.run_id, live, cancelled):
            with pytest.raises(Conflict):
                await app.start("1", after=run_id)
        kept = await ended(app, "a = 1", keeps=True)
        for agent, run_id in (("other", kept.run_id), ("default", "0" * 26)):
            with pytest.raises(NotFound):
                await app.start("1", agent=agent, after=run_id)


@pytest.mark.claim("D5.snapshot.stale")
async def test_a_state_that_was_altered_is_refused(project):
    async with opened(project) as app:
        first = await ended(app, "a = 1", keeps=True)
    spoil(project, first.run_id)
    async with opened(project) as app:
        run_id = await app.start("a", after=first.run_id)
        await idle(app)
        run = await app.run(run_id)
        assert run.status is Status.QUARANTINED
        assert run.result["kind"] == "SnapshotRefused"


async def test_a_run_is_not_collected_before_those_that_went_on_from_it(project):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        first = await ended(app, "a = 1", keeps=True)
        run_id = await app.start("await tools.receive()\na", after=first.run_id)
        await idle(app)
        clock.advance(86_400)
        assert (await app.collect(older_than_s=1)).runs == 0
        await app.send(run_id, 1)
        assert (await finish(app, run_id)).result == 1
        clock.advance(86_400)
        assert (await app.collect(older_than_s=1)).runs == 1
        assert (await app.collect(older_than_s=1)).runs == 1
        assert not await app.runs(Page())


@pytest.mark.claim("D1.crash_matrix")
async def test_a_chain_that_is_stopped_at_any_point_ends_as_it_would_have(project, ledger):
    import anyio  # noqa: PLC0415 - as in the crash matrix

    for crash_at in range(1, 30):
        ledger.write_text("")
        clock, points, home = ManualClock(), CrashPoints(crash_at), project / f"home-{crash_at}"
        home.mkdir()
        module = (project / "module").read_text()
        (home / "module").write_text(module)
        (home / f"{module}.py").symlink_to(project / f"{module}.py")

        async def chain(app: App) -> Any:
            first = await finish(app, await app.start(FIRST, keeps=True, dedup="first"))
            source = "n = await twice(number=3)\nawait shop.charge(cents=n)\nrows + [n]"
            return await finish(app, await app.start(source, after=first.run_id, dedup="second"))

        async with (
            opened(home, clock=clock, wrap=crashing(points), drain_s=0) as app,
            anyio.create_task_group() as group,
        ):

            async def act(app: App = app, group: Any = group) -> None:
                await chain(app)
                group.cancel_scope.cancel()

            group.start_soon(act)
            await points.crashed.wait()
            group.cancel_scope.cancel()
        if not points.crashed.is_set():
            return
        async with opened(home, clock=clock) as app:
            run = await chain(app)
        assert run.result == [1, 2, 6], points.passed[-1]
        assert [line for line in ledger.read_text().splitlines() if line.startswith("charge")] == [
            f"charge {run.run_id}:1"
        ]
    pytest.fail("the chain passes more points than that")
