"""What a worker that looks for work is told: what time has made ready since it looked last, and nothing twice."""

import pytest

from overwinter.events import Event
from storing import done

pytestmark = pytest.mark.anyio


async def test_after_an_instant_only_what_time_has_made_ready_since_is_found(world):
    lease, began = await world.lease(), world.clock.now_us()
    await world.run()  # ready, but not by time

    async def since(instant_us):
        return list((await world.store.ready([lease], 10, since_us=instant_us)).run_ids)

    timer, _ = await world.parked(effect="wait", due_us=began + 1_000_000)
    stumbled = await world.run()
    fault = Event(kind="stumbled", body={})
    assert await world.store.stumble(stumbled, lease, not_before_us=began + 2_000_000, is_final=False, event=fault)
    assert await since(began) == []
    world.clock.advance(1)
    assert await since(began) == [timer]
    world.clock.advance(1)
    assert await since(began) == [timer, stumbled]
    assert await since(began + 1_000_000) == [stumbled]
    assert await since(began + 2_000_000) == []


async def test_calls_under_way_are_passed_over_and_take_no_place_from_others(world):
    lease, began = await world.lease(), world.clock.now_us()
    first, _ = await world.parked(effect="read")
    second, later = await world.parked(effect="read")
    at = began + 1_000_000
    assert await world.store.postpone(later, lease, not_before_us=at, event=done())
    world.clock.advance(1)

    async def found(limit=1, **which):
        return [each.call.run_id for each in await world.store.performable([lease], limit, **which)]

    assert await found() == [first]
    assert await found(besides={(first, 0)}) == [second]
    assert await found(besides={(first, 0), (second, 0)}) == []
    assert await found(limit=10, since_us=began) == [second]
    assert await found(since_us=at) == []
    assert await found(limit=0) == []
