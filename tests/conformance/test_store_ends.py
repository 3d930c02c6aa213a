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
    *_, left, last = await world.store.journal(run_id)
    assert (left.kind, left.body["function"], last.kind) == (
        "left",
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
    assert "left" not in kinds
    assert "answered" not in kinds


async def test_a_write_that_its_service_has_taken_is_under_way_too(world):
    run_id, call = await world.parked()
    lease = await world.lease()
    await world.store.start(call, lease)
    event = Event(kind="continued", body={"index": 0, "function": "shop.pay", "why": "", "at_us": 9})
    assert await world.store.postpone(call, lease, not_before_us=9, event=event, more={"task": "t", "is_poll": True})
    assert await world.store.end(run_id, Status.CANCELLED, Event(kind="cancelled", body={"by": "me", "reason": ""}))
    assert [each.kind for each in await world.store.journal(run_id)][-2:] == ["left", "cancelled"]
    assert not await world.store.finish(run_id, 0, Returned(value=1), done())
    assert (await world.store.journal(run_id))[-1].kind == "answered"
