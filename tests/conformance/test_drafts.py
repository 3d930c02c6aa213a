"""A run that the commit of its first turn makes is the run that `create` and that turn would have made, or it is none."""

import json
from dataclasses import replace

import pytest

from overwinter.events import Call, Event, Raised, Status
from overwinter.lineage import Origin
from overwinter.store import NewCall, NewRun, Page, Sent, Turn, Verdict

pytestmark = [pytest.mark.anyio, pytest.mark.claim("L1.family")]


async def spawning(world):
    """Return a run that waits for a run which its call 0 begins, and that run, not written down yet."""
    parent, _ = await world.parked(effect="idempotent", function="tools.spawn")
    new = NewRun(
        run_id=world.ids.new(), agent="a", name="child", program="2", inputs={"y": [1]}, by="owner", origin=Origin(run_id=parent, index=0),
        checked=b"types", keeps=True,
    )  # fmt: skip
    return parent, new


async def first_turn(world, draft, *, status=Status.LIVE, **rest):
    """Commit the first turn of a draft: it makes a call, or ends."""
    run_id = draft.run.run_id
    if status is not Status.LIVE:
        last = Event(kind="finished", body={"value": 5})
        return await world.turn(run_id, 0, status=status, draft=draft, events=[last], **rest)
    call = Call(run_id=run_id, index=0, function="shop.pay", arguments={"a": 1}, effect="write", agent="a")
    called = Event(kind="called", body={"index": 0, "function": "shop.pay", "effect": "write", "line": 1})
    return await world.turn(
        run_id, 0, draft=draft, calls=[NewCall(call=call)], calls_next=1, events=[called], first=None, **rest
    )


async def seen(world, run_id):
    """Return all that can be seen of a run but what names it, and when."""
    run = await world.store.run(run_id)
    events = [(event.kind, event.body, event.position) for event in await world.store.journal(run_id, 0)]
    loaded = await world.store.load(run_id)
    calls = [
        (each.call.index, each.call.function, each.state, each.agent_epoch) for each in await world.store.calls(run_id)
    ]
    left = (
        None
        if loaded is None
        else (loaded.program, loaded.inputs, loaded.seq, loaded.snapshot, loaded.checked, loaded.keeps)
    )
    return run.status, run.seq, run.result, run.program_digest, run.snapshot_bytes, left, calls, events


@pytest.mark.parametrize("status", [Status.LIVE, Status.FINISHED])
async def test_a_run_made_with_its_first_turn_is_the_run_that_would_have_been_made_before_it(world, status):
    found, kinds = [], []
    for is_together in (True, False):
        entries = len(await world.store.audit.entries(0, 1_000))
        parent, new = await spawning(world)
        draft = await world.store.draft(new)
        if not is_together:
            await world.store.create(new)
            assert (await world.store.load(new.run_id)) == draft.loaded
        assert await first_turn(world, draft, status=status) is Verdict.COMMITTED
        named = str(await seen(world, new.run_id)) + str(await seen(world, parent))
        found.append(named.replace(parent, "PARENT").replace(new.run_id, "CHILD"))
        kinds.append([json.loads(raw)["kind"] for _, raw in await world.store.audit.entries(entries, 1_000)])
        assert (await world.store.run(new.run_id)).parent == parent
        assert (status is Status.LIVE) == (not (await world.store.load(parent)).mail)
    assert found[0] == found[1]
    assert kinds[0] == kinds[1]
    assert kinds[0] == ["start", "call.intent" if status is Status.LIVE else "call.result"]


async def test_a_draft_writes_nothing(world):
    parent, new = await spawning(world)
    before = await seen(world, parent)
    await world.store.draft(new)
    assert await world.store.run(new.run_id) is None
    assert await seen(world, parent) == before


async def test_a_run_is_made_once_whichever_comes_first_its_creation_or_its_first_turn(world):
    for is_created_first in (True, False):
        _, new = await spawning(world)
        draft = await world.store.draft(new)
        if is_created_first:
            assert (await world.store.create(new)).is_new
        assert await first_turn(world, draft) is Verdict.COMMITTED
        again = await world.store.create(new)
        assert (again.run_id, again.is_new) == (new.run_id, False)
        assert [event.kind for event in await world.store.journal(new.run_id, 0)] == ["created", "turn", "called"]
        assert await first_turn(world, draft) is Verdict.STALE


async def ended_and_kept(world):
    """Return a run that has ended and left its state to another one."""
    new = NewRun(run_id=world.ids.new(), agent="a", name="first", program="x = 1", inputs={}, keeps=True)
    await world.store.create(new)
    lease, last = await world.lease(), Event(kind="finished", body={"value": None})
    turn = Turn(
        run_id=new.run_id, lease=lease, seq=0, status=Status.FINISHED, snapshot=b"left", calls_next=0,
        events=[Event(kind="turn", body={"now_us": 1, "given": []}), last],
    )  # fmt: skip
    assert await world.store.commit(turn) is Verdict.COMMITTED
    return new.run_id


async def test_a_draft_goes_on_from_what_a_run_has_left_as_one_that_was_created_does(world):
    _, new = await spawning(world)
    new = replace(new, after=await ended_and_kept(world))
    draft = await world.store.draft(new)
    assert draft.loaded.inherited.sealed == b"left"
    assert draft.loaded.inherited.agent == "a"
    assert await first_turn(world, draft) is Verdict.COMMITTED
    found = await world.store.load(new.run_id)
    assert found.inherited == draft.loaded.inherited


async def test_a_draft_of_what_goes_on_from_a_run_that_was_deleted_meanwhile_makes_no_run(world):
    _, new = await spawning(world)
    new = replace(new, after=await ended_and_kept(world))
    draft = await world.store.draft(new)
    world.clock.advance(10)
    assert (await world.store.collect(world.clock.now_us())).runs == 1
    assert await first_turn(world, draft) is Verdict.STALE
    assert await world.store.run(new.run_id) is None


async def closed(world, parent, _new):
    """The call that begins it waits no more."""
    assert await world.store.finish(
        parent, 0, Raised(kind="OSError", message=""), Event(kind="answered", body={"index": 0})
    )


async def taken(world, _parent, new):
    """The call has begun another run."""
    other = NewRun(run_id=world.ids.new(), agent="a", name="", program="3", inputs={}, origin=new.origin)
    assert (await world.store.create(other)).is_new


async def revoked(world, _parent, _new):
    """Its agent may not act any more."""
    await world.store.registry.revoke("a", by="owner")


async def restored(world, parent, new):
    """Its agent may act, and in another epoch than it was decided in."""
    await revoked(world, parent, new)
    await world.store.registry.restore("a", by="owner", has_runs=True)


@pytest.mark.parametrize("happens", [closed, taken, revoked, restored], ids=lambda each: each.__name__)
async def test_what_forbids_a_run_meanwhile_keeps_its_first_turn_from_making_it(world, happens):
    parent, new = await spawning(world)
    draft = await world.store.draft(new)
    await happens(world, parent, new)
    before = await world.store.journal(parent, 0)
    assert await first_turn(world, draft) is Verdict.STALE
    assert await world.store.run(new.run_id) is None
    assert await world.store.journal(parent, 0) == before
    assert len(await world.store.runs(Page())) == (2 if happens is taken else 1)


async def test_a_fenced_process_makes_no_run(opening, tmp_path, world):
    _, new = await spawning(world)
    draft, lease = await world.store.draft(new), await world.lease()
    async with opening(tmp_path, world.clock):
        assert await first_turn(world, draft, lease=lease) is Verdict.FENCED
    assert await world.store.run(new.run_id) is None


async def test_there_is_no_draft_of_what_goes_on_from_nothing_or_acts_for_nobody_known(world):
    _, new = await spawning(world)
    before = await world.run()
    assert await world.store.draft(replace(new, after=before)) is None
    assert await world.store.draft(replace(new, agent="stranger")) is None
    await revoked(world, None, None)
    assert await world.store.draft(new) is None
    assert await world.store.send(before, 1) is Sent.REVOKED
