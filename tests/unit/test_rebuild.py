"""A run whose snapshot is refused goes on from its journal, or stops and says so."""

from dataclasses import replace

import apsw
import pytest

from kit import opened, sick
from overwinter.app import Parts
from overwinter.events import Status
from overwinter.interpreter import Blocked
from overwinter.testing import ManualClock, finish, idle

pytestmark = pytest.mark.anyio
SOURCE = """
import asyncio, random
first = await shop.charge(cents=1)
drawn = random.random()
await asyncio.sleep(60)
second = await shop.charge(cents=2)
[first, second, drawn == random.Random().random(), drawn]
"""


async def parked(project, clock, source=SOURCE) -> str:
    async with opened(project, clock=clock) as app:
        run_id = await app.start(source)
        await idle(app)
        return run_id


def change(project, statement: str) -> None:
    database = apsw.Connection(str(project / ".overwinter" / "store.db"))
    database.execute(statement)
    assert database.changes()
    database.close()


@pytest.mark.claim("D5.rebuilt")
@pytest.mark.parametrize(
    "damage",
    [
        "update snapshot set body = zeroblob(500)",
        "delete from snapshot",
        "update snapshot set body = substr(body, 1, 200)",
    ],
)
async def test_a_refused_snapshot_is_rebuilt_without_an_effect(project, ledger, damage):
    clock = ManualClock()
    run_id = await parked(project, clock)
    change(project, damage)
    async with opened(project, clock=clock) as app:
        run = await finish(app, run_id, clock)
        events = [event async for event in app.events(run_id)]
    assert run.result[:2] == ["charged 1", "charged 2"]
    assert any(event.kind == "refused" for event in events)
    assert len([line for line in ledger.read_text().splitlines() if line.startswith("asked")]) == 2


async def test_a_rebuilt_program_draws_the_same_random_numbers(project):
    clock = ManualClock()
    source = "import asyncio, random\na = random.random()\nawait asyncio.sleep(9)\n[a, random.random()]"
    run_id = await parked(project, clock, source)
    plain = project / "copy"
    plain.mkdir()
    change(project, "delete from snapshot")
    async with opened(project, clock=clock) as app:
        first = (await finish(app, run_id, clock)).result
    assert first[0] != first[1]


@pytest.mark.claim("D7.other_engine")
async def test_a_snapshot_of_another_engine_is_rebuilt(project):
    clock = ManualClock()
    run_id = await parked(project, clock)

    def newer(parts: Parts) -> Parts:
        class Newer:
            engine = "monty-9.9.9"
            start = parts.interpreter.start
            resume = parts.interpreter.resume

        return replace(parts, interpreter=Newer())

    async with opened(project, clock=clock, wrap=newer) as app:
        run = await finish(app, run_id, clock)
        kinds = [event.kind async for event in app.events(run_id)]
    assert run.status is Status.FINISHED
    assert "refused" in kinds


@pytest.mark.claim("D7.other_engine")
async def test_a_run_that_cannot_be_rebuilt_stops_and_says_so(project):
    clock = ManualClock()
    run_id = await parked(project, clock)
    change(project, "delete from snapshot")
    change(project, "update program set source = replace(source, 'cents=1', 'cents=9')")
    async with opened(project, clock=clock) as app:
        run = await finish(app, run_id, clock)
        assert run.status is Status.QUARANTINED
        assert "other arguments" in run.result["message"]
        assert "quarantined" in app.reason(run, ())


@pytest.mark.claim("D6.quarantine")
async def test_a_run_whose_turns_keep_failing_backs_off_and_keeps_its_mail(project):
    clock = ManualClock()
    run_id = await parked(project, clock, "await tools.receive()")

    async with opened(project, clock=clock, wrap=sick) as app:
        await app.send(run_id, "kept")
        other = await app.start("1 + 1")
        run = await finish(app, run_id, clock)
        assert run.status is Status.QUARANTINED
        assert (await app.run(other)).result == 2
        kinds = [event.kind async for event in app.events(run_id)]
        assert kinds.count("stumbled") == 4
        assert kinds[-1] == "quarantined"
    async with opened(project, clock=clock) as app:
        await app.release(run_id, by="somebody")
        assert (await finish(app, run_id, clock)).result == "kept"


@pytest.mark.claim("D9.deadlock")
async def test_a_program_that_waits_for_nothing_ends_with_an_error(project):
    def stuck(parts: Parts) -> Parts:
        class Stuck:
            engine = parts.interpreter.engine
            resume = parts.interpreter.resume

            async def start(self, program, *, now_us):
                return Blocked(requests=(), pending=frozenset(), first=None, snapshot=b"", output="")

        return replace(parts, interpreter=Stuck())

    async with opened(project, clock=ManualClock(), wrap=stuck) as app:
        run = await app.result(await app.start("1"))
    assert run.status is Status.FAILED
    assert "nothing can answer" in run.result["message"]
