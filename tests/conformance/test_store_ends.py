"""What is under way when a run ends: what has left is not forgotten, what has not stays."""

import pytest

from overwinter.events import Event, Returned, Status
from overwinter.store import Verdict
from storing import done

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_write_under_way_when_its_run_ends_is_written_down_and_so_is_its_late_answer(world, is_cancelled):
    run_id, call = await world.parked()
    await world.store.start(call, await world.lease())
    if is_cancelled:
        assert await world.store.end(run_id, Status.CANCELLED, Event(kind="cancelled", body={"by": "me", "reason": ""}))
    else:
        last = Event(kind="finished", body={"value": 1})
        assert await world.turn(run_id, 1, status=Status.FINISHED, events=[last]) is Verdict.COMMITTED
    *_, unknown, last = await world.store.journal(run_id)
    assert (unknown.kind, unknown.body["function"], last.kind) == (
        "unknown",
        "shop.pay",
        "cancelled" if is_cancelled else "finished",
    )
    assert not await world.store.finish(run_id, 1, Returned(value=1), done(1)), (
        "of a call that was not made nothing is known"
    )
    for _ in range(2):
        assert not await world.store.finish(run_id, 0, Returned(value=1), done())
    assert [event.kind for event in await world.store.journal(run_id)].count("answered") == 1
    assert (await world.store.run(run_id)).status is not Status.LIVE
    assert await world.ready() == []


async def test_a_call_that_has_not_left_when_its_run_ends_is_no_question(world):
    run_id, call = await world.parked()
    lease = await world.lease()
    assert await world.store.end(run_id, Status.CANCELLED, Event(kind="cancelled", body={"by": "me", "reason": ""}))
    assert not await world.store.start(call, lease)
    assert not await world.store.finish(run_id, 0, Returned(value=1), done())
    kinds = [event.kind for event in await world.store.journal(run_id)]
    assert "unknown" not in kinds
    assert "answered" not in kinds
