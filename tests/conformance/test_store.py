"""What every store must do: the contract in `store.py`, rule by rule. A new store is one more line in STORES."""

import anyio
import apsw
import pytest

from overwinter.adapters.sqlite import open_store
from overwinter.approval import Gate, Need, Vote
from overwinter.errors import HomeDamaged, HomeFull, HomeTooNew, Revoked, UsageError
from overwinter.events import Call, CallState, Event, Raised, Returned, Status
from overwinter.identity import Identity
from overwinter.ids import Ids
from overwinter.store import MESSAGE_BYTES_MAX, Lease, NewCall, NewRun, Page, Sent, Verdict, Voted
from overwinter.testing import ManualClock
from storing import World, done, sqlite

pytestmark = pytest.mark.anyio


async def test_a_new_run_is_ready_with_what_it_was_made_of(world):
    run_id = await world.run("print(1)")
    assert await world.ready() == [run_id]
    run = await world.store.load(run_id)
    assert (run.program, run.inputs, run.seq, run.snapshot, run.mail) == ("print(1)", {"x": 1}, 0, None, [])
    assert [event.kind for event in await world.store.journal(run_id)] == ["created"]


async def test_a_start_with_a_known_key_returns_the_first_run(world):
    first = await world.run(dedup="k")
    assert await world.run(dedup="k") == first
    assert await world.run(dedup="other") != first
    assert (await world.store.counts())[Status.LIVE] == 2


async def test_a_turn_is_applied_once_for_its_seq(world):
    run_id = await world.run()
    assert await world.turn(run_id, 0) is Verdict.COMMITTED
    assert await world.turn(run_id, 0) is Verdict.STALE
    assert await world.turn(run_id, 1) is Verdict.COMMITTED
    assert (await world.store.run(run_id)).seq == 2


@pytest.mark.claim("S1.fenced")
async def test_a_holder_whose_epoch_has_passed_can_neither_commit_nor_start(opening, tmp_path):
    clock = ManualClock()
    async with opening(tmp_path, clock) as first:
        old = World(first, clock)
        run_id, call = await old.parked()
        old_lease = await old.lease()
        async with opening(tmp_path, clock) as second:
            new = World(second, clock)
            assert (await new.lease()).epoch > old_lease.epoch
            assert await old.turn(run_id, 1) is Verdict.FENCED
            assert not await first.start(call, old_lease)
            assert not await first.postpone(call, old_lease, not_before_us=0, event=done())
            assert not await first.stumble(run_id, old_lease, not_before_us=0, is_final=False, event=done())
            assert await second.start(call, await new.lease())
            assert await new.turn(run_id, 1, calls_next=1) is Verdict.COMMITTED
            epochs = [event.epoch for event in await second.journal(run_id)]
            assert epochs == sorted(epochs)


async def test_an_ended_run_takes_no_turn_no_start_and_no_mail(world):
    run_id, call = await world.parked()
    assert await world.store.end(run_id, Status.CANCELLED, Event(kind="cancelled", body={"by": "me", "reason": ""}))
    assert not await world.store.end(run_id, Status.CANCELLED, done())
    assert await world.turn(run_id, 1) is Verdict.ENDED
    assert not await world.store.start(call, await world.lease())
    assert await world.store.send(run_id, 1) is Sent.GONE
    assert await world.store.load(run_id) is None
    assert await world.store.calls(run_id) == []
    assert (await world.store.run(run_id)).snapshot_bytes == 0


async def test_a_commit_deletes_the_mail_it_names_and_no_other(world):
    run_id, _ = await world.parked(function="tools.receive", effect="wait", receives=1)
    await world.store.send(run_id, "first")
    loaded = await world.store.load(run_id)
    await world.store.send(run_id, "second")  # while the turn is under way
    turned = await world.turn(run_id, 1, consumed=[loaded.mail[0].id], closed=[0], receives=1)
    assert turned is Verdict.COMMITTED
    assert [mail.answer.value for mail in (await world.store.load(run_id)).mail] == ["second"]


async def test_mail_of_one_sender_is_loaded_in_its_order(world):
    run_id, _ = await world.parked(function="tools.receive", effect="wait", receives=1)
    for number in range(300):
        await world.store.send(run_id, number)
    for number in range(300):
        (mail,) = (await world.store.load(run_id)).mail  # as many as can be received, however many wait
        assert mail.answer.value == number
        again = Call(run_id=run_id, index=number + 1, function="tools.receive", arguments={}, effect="wait")
        calls = {"calls": [NewCall(call=again)], "calls_next": number + 2, "receives": 1}
        await world.turn(run_id, number + 1, consumed=[mail.id], closed=[number], **calls)


async def test_a_repeated_message_is_known_after_the_first_was_consumed(world):
    run_id, _ = await world.parked(function="tools.receive", effect="wait", receives=1)
    assert await world.store.send(run_id, 1, dedup="k") is Sent.SENT
    loaded = await world.store.load(run_id)
    await world.turn(run_id, 1, consumed=[loaded.mail[0].id], closed=[0])
    assert await world.store.send(run_id, 1, dedup="k") is Sent.DUPLICATE


async def test_a_message_makes_a_run_ready_only_while_it_receives(world):
    deaf, _ = await world.parked()
    listening, _ = await world.parked(function="tools.receive", effect="wait", receives=1)
    await world.store.send(deaf, 1)
    await world.store.send(listening, 1)
    assert await world.ready() == [listening]


async def test_only_the_first_call_wakes_a_run_that_must_have_it_first(world):
    run_id = await world.run()
    calls = [NewCall(call=Call(run_id=run_id, index=i, function="shop.f", arguments={}, effect="read")) for i in (0, 1)]
    await world.turn(run_id, 0, calls=calls, calls_next=2, first=1)
    await world.store.finish(run_id, 0, Returned(value=1), done(0))
    assert await world.ready() == []
    await world.store.finish(run_id, 1, Returned(value=1), done(1))
    assert await world.ready() == [run_id]


async def test_a_due_timer_makes_a_run_ready_and_is_kept_until_its_turn_commits(world):
    run_id, _ = await world.parked(function="asyncio.sleep", effect="wait", due_us=world.clock.now_us() + 10)
    ready = await world.store.ready([await world.lease()], 10)
    assert (ready.run_ids, ready.next_due_us) == ([], world.clock.now_us() + 10)
    world.clock.advance(1)
    assert await world.ready() == [run_id]
    assert (await world.store.load(run_id)).due == [0]
    await world.turn(run_id, 1, closed=[0], calls_next=1)
    assert await world.ready() == []
    assert (await world.store.run(run_id)).due_us is None


async def test_an_answer_that_came_while_its_time_out_was_taken_wakes_nobody(world):
    run_id, _ = await world.parked(function="tools.ask", effect="wait", due_us=world.clock.now_us() + 10)
    world.clock.advance(1)
    assert (await world.store.load(run_id)).due == [0]
    assert await world.store.finish(run_id, 0, Returned(value="late"), done())  # while the turn is under way
    assert await world.turn(run_id, 1, closed=[0], calls_next=1) is Verdict.COMMITTED
    assert await world.ready() == []
    assert (await world.store.load(run_id)).mail == []


async def test_a_write_is_marked_once_before_it_leaves(world):
    run_id, call = await world.parked()
    lease = await world.lease()
    assert await world.store.start(call, lease)
    assert not await world.store.start(call, lease)
    (record,) = await world.store.calls(run_id)
    assert (record.state, record.attempt) == (CallState.STARTED, 1)
    assert await world.store.performable([lease], 10) == []


async def test_a_write_that_an_earlier_holder_started_is_found_again(opening, tmp_path):
    clock = ManualClock()
    async with opening(tmp_path, clock) as store:
        old = World(store, clock)
        _, call = await old.parked()
        assert await store.start(call, await old.lease())
    async with opening(tmp_path, clock) as store:
        (record,) = await store.performable(await store.claim(), 10)
        assert (record.call, record.state) == (call, CallState.STARTED)


async def test_an_answer_is_taken_once_whoever_brings_it(world):
    run_id, _ = await world.parked()
    answers = [Returned(value=1), Raised(kind="OSError", message="late")]
    taken: list[bool] = []

    async def bring(answer):
        taken.append(await world.store.finish(run_id, 0, answer, done()))

    async with anyio.create_task_group() as group:
        for answer in answers * 10:
            group.start_soon(bring, answer)
    assert taken.count(True) == 1
    assert len((await world.store.load(run_id)).mail) == 1
    assert [event.kind for event in await world.store.journal(run_id)].count("answered") == 1


async def test_a_postponed_call_is_performable_again_at_its_instant(world):
    run_id, call = await world.parked(effect="read")
    lease = await world.lease()
    assert len(await world.store.performable([lease], 10)) == 1
    at = world.clock.now_us() + 5_000_000
    assert await world.store.postpone(call, lease, not_before_us=at, event=done())
    assert await world.store.performable([lease], 10) == []
    assert (await world.store.ready([lease], 10)).next_due_us == at
    world.clock.advance(5)
    (record,) = await world.store.performable([lease], 10)
    assert (record.attempt, record.call.run_id) == (1, run_id)


async def test_an_unknown_outcome_is_a_question_until_it_is_answered(world):
    run_id, call = await world.parked()
    await world.store.start(call, await world.lease())
    assert await world.store.park(call, person="owner", event=Event(kind="unknown", body={"index": 0}))
    (question,) = await world.store.questions()
    assert (question.person, question.state, question.call) == ("owner", CallState.UNKNOWN, call)
    assert await world.store.finish(run_id, 0, Returned(value=1), done())
    assert await world.store.questions() == []
    assert not await world.store.park(call, person="owner", event=done())


async def test_answers_known_at_once_are_mail_in_the_same_commit(world):
    run_id = await world.run()
    await world.turn(run_id, 0, answers={0: Raised(kind="PermissionError", message="no")}, calls_next=1)
    assert await world.ready() == [run_id]
    (mail,) = (await world.store.load(run_id)).mail
    assert (mail.index, mail.answer.kind) == (0, "PermissionError")


async def test_a_stumbling_run_waits_and_a_quarantined_one_keeps_its_mail(world):
    run_id, _ = await world.parked(function="tools.receive", effect="wait", receives=1)
    await world.store.send(run_id, "kept")
    lease, later = await world.lease(), world.clock.now_us() + 1_000_000
    assert await world.store.stumble(run_id, lease, not_before_us=later, is_final=False, event=done())
    assert await world.ready() == []
    assert await world.store.load(run_id) is None
    world.clock.advance(1)
    assert await world.ready() == [run_id]
    assert await world.store.load(run_id) is not None
    assert await world.store.stumble(run_id, lease, not_before_us=later, is_final=True, event=done())
    assert await world.ready() == []
    assert await world.store.send(run_id, "more") is Sent.SENT
    assert await world.store.release(run_id, Event(kind="released", body={"by": "me"}))
    assert not await world.store.release(run_id, done())
    assert [mail.answer.value for mail in (await world.store.load(run_id)).mail] == ["kept"]


async def test_positions_have_no_gap_whatever_happens_at_once(world):
    run_id, _ = await world.parked(function="tools.receive", effect="wait", receives=1)
    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(world.store.send, run_id, number)
            group.start_soon(world.turn, run_id, 1)
        group.start_soon(world.store.finish, run_id, 0, Returned(value=1), done())
    events = await world.store.journal(run_id)
    assert [event.position for event in events] == list(range(len(events)))
    assert len(events) == (await world.store.run(run_id)).events == 2 + 1 + 50 + 1


async def test_a_bad_job_does_not_spoil_its_neighbours(world):
    ok: list[object] = []
    refused: list[Exception] = []

    async def good():
        ok.append(await world.run())

    async def bad():
        try:
            await world.store.create(NewRun(run_id="0" * 26, agent="a", name="n", program="1", inputs={}))
        except Exception as error:  # noqa: BLE001 - which one is the store's own affair
            refused.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(good)
            group.start_soon(bad)
    assert len(ok) == 20
    assert len(refused) == 19  # the id is taken after the first


async def test_watchers_and_wake_ups_are_told_after_the_commit(world):
    run_id = await world.run()
    assert run_id in await world.store.woken()
    seen: list[int] = []

    async def look():
        await world.store.watch(run_id, 1)
        seen.append((await world.store.run(run_id)).events)

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        await anyio.lowlevel.checkpoint()
        await world.turn(run_id, 0)
    assert seen == [2]


@pytest.mark.parametrize("how", ["ends", "is cancelled", "is quarantined", "loses its agent"])
async def test_who_waits_until_a_run_goes_on_no_more_is_told_of_that_and_of_nothing_else(world, how):
    run_id, other = await world.run(), await world.run()
    told: list[str] = []

    async def wait(each: str) -> None:
        await world.store.over(each)
        told.append(each)

    async with anyio.create_task_group() as group:
        group.start_soon(wait, run_id)
        await wait("0" * 26)  # there is no such run
        await world.turn(run_id, 0)
        await anyio.lowlevel.checkpoint()
        assert told == ["0" * 26]
        match how:
            case "ends":
                await world.turn(run_id, 1, status=Status.FINISHED, events=[done()])
            case "is cancelled":
                await world.store.end(
                    run_id, Status.CANCELLED, Event(kind="cancelled", body={"by": "me", "reason": ""})
                )
            case "is quarantined":
                lease = await world.lease()
                await world.store.stumble(run_id, lease, not_before_us=0, is_final=True, event=done())
            case _:
                await world.store.registry.revoke("a", by="lead")
    assert told == ["0" * 26, run_id]
    if how != "loses its agent":
        with anyio.move_on_after(0):
            await wait(other)
        assert other not in told


async def test_too_large_a_message_is_refused(world):
    run_id, _ = await world.parked()
    with pytest.raises(UsageError, match="bytes"):
        await world.store.send(run_id, "x" * (MESSAGE_BYTES_MAX + 1))


async def test_pages_list_the_newest_first_and_join_without_a_gap(world):
    made = [await world.run() for _ in range(25)]
    await world.store.end(made[3], Status.CANCELLED, Event(kind="cancelled", body={"by": "me", "reason": ""}))
    first = await world.store.runs(Page(limit=10))
    rest = await world.store.runs(Page(limit=100, before=first[-1].run_id))
    assert [run.run_id for run in (*first, *rest)] == made[::-1]
    assert [run.run_id for run in await world.store.runs(Page(statuses=[Status.CANCELLED]))] == [made[3]]
    assert await world.store.find(made[7][-9:]) == [made[7]]


async def test_collecting_removes_old_ends_and_what_nothing_needs_and_nothing_else(world):
    old, live = await world.run("'old'"), await world.run("'live'")
    await world.turn(old, 0, status=Status.FINISHED, events=[Event(kind="finished", body={"value": 1})])
    world.clock.advance(100)
    young = await world.run("'live'")
    await world.turn(young, 0, status=Status.FINISHED, events=[Event(kind="finished", body={"value": 2})])
    collected = await world.store.collect(world.clock.now_us() - 50_000_000)
    assert (collected.runs, collected.events, collected.programs) == (1, 3, 1)
    assert await world.store.run(old) is None
    assert (await world.store.run(young)).result == 2
    assert (await world.store.load(live)).program == "'live'"


async def test_a_full_disk_loses_nothing_and_the_store_goes_on_when_there_is_room(world):
    run_id, _ = await world.parked(function="tools.receive", effect="wait", receives=1)
    writing = world.store._writer._connection
    ((pages,),) = writing.execute("pragma page_count")
    list(writing.execute(f"pragma max_page_count={pages + 2}"))
    sent = 0
    with pytest.raises(HomeFull, match="free"):  # noqa: PT012 - how many fit is the store's affair
        for _ in range(100):
            await world.store.send(run_id, "x" * 5_000)
            sent += 1
    list(writing.execute("pragma max_page_count=1073741823"))
    assert await world.store.send(run_id, "after") is Sent.SENT
    assert [event.kind for event in await world.store.journal(run_id)].count("message") == sent + 1


async def test_a_newer_file_is_left_alone(tmp_path):
    async with sqlite(tmp_path, ManualClock()):
        pass
    file = tmp_path / "store.db"
    database = apsw.Connection(str(file))
    database.execute("update meta set format = 99")
    database.close()
    before = file.read_bytes()
    with pytest.raises(HomeTooNew, match="99"):
        async with sqlite(tmp_path, ManualClock()):
            pass
    assert file.read_bytes() == before


async def test_a_damaged_file_and_a_foreign_key_are_named(tmp_path):
    async with sqlite(tmp_path, ManualClock()):
        pass
    with pytest.raises(HomeDamaged, match=r"snapshot\.key"):
        async with open_store(tmp_path / "store.db", ManualClock(), Ids(lambda: 1), key=b"x" * 32):
            pass
    (tmp_path / "store.db").write_bytes(b"no database at all, but long enough to be one" * 500)
    with pytest.raises(HomeDamaged, match="backup"):
        async with sqlite(tmp_path, ManualClock()):
            pass


def test_a_lease_is_a_value():
    assert Lease(shard=0, epoch=1) == Lease(shard=0, epoch=1)


# --- Rules 9 and 10: gates and revocation ------------------------------------------------------------------------------


def gate(digest=b"d" * 32, needs=None, **options):
    return Gate(digest=digest, needs=needs or (Need(("owner",)),), reason="it is a write", **options)


TWO = (Need(("a", "b", "c"), 2),)


def yes(person="owner"):
    return Vote(person=person, is_yes=True, reason="")


NO = Raised(kind="PermissionError", message="owner rejected it", status=403, code="rejected")


async def gated(world, **options):
    run_id = await world.run()
    call = Call(run_id=run_id, index=0, function="shop.pay", arguments={"a": 1}, effect="write", agent="a")
    new = NewCall(call=call, due_us=options.get("expires_us"), person="owner", gate=gate(**options))
    assert await world.turn(run_id, 0, calls=[new], calls_next=1) is Verdict.COMMITTED
    return run_id, call


async def performable(world):
    return [each.call.key for each in await world.store.performable([await world.lease()], 10)]


async def test_a_gated_call_is_performable_only_after_a_yes_and_once(world):
    run_id, call = await gated(world)
    assert await performable(world) == []
    (asked,) = await world.store.questions()
    assert asked.gate is not None
    assert (asked.gate.digest, asked.gate.is_used, asked.person) == (b"d" * 32, False, "owner")
    assert await world.store.vote(call, b"d" * 32, yes(), NO) is Voted.LET_THROUGH
    assert await performable(world) == [call.key]
    assert await world.store.vote(call, b"d" * 32, yes(), NO) is Voted.GONE
    assert await world.store.questions() == []
    kinds = [event.kind for event in await world.store.journal(run_id)]
    assert kinds.count("approved") == 1


async def test_a_yes_to_another_digest_counts_for_nothing(world):
    _, call = await gated(world)
    assert await world.store.vote(call, b"e" * 32, yes(), NO) is Voted.OTHER
    assert await performable(world) == []


async def test_a_no_is_the_programs_error(world):
    run_id, call = await gated(world)
    vote = Vote(person="owner", is_yes=False, reason="no")
    assert await world.store.vote(call, b"d" * 32, vote, NO) is Voted.REJECTED
    (mail,) = (await world.store.load(run_id)).mail
    assert mail.answer == NO
    assert await world.store.vote(call, b"d" * 32, yes(), NO) is Voted.GONE


async def test_two_people_are_two_people(world):
    _, call = await gated(world, needs=TWO)
    assert await world.store.vote(call, b"d" * 32, yes("a"), NO) is Voted.COUNTED
    assert await world.store.vote(call, b"d" * 32, yes("a"), NO) is Voted.COUNTED
    assert await performable(world) == []
    assert await world.store.vote(call, b"d" * 32, yes("b"), NO) is Voted.LET_THROUGH


async def test_each_of_several_groups_must_say_yes(world):
    needs = (Need(("a", "b", "c"), 2), Need(("c", "Doe, Jane")))
    _, call = await gated(world, needs=needs)
    assert await world.store.vote(call, b"d" * 32, yes("a"), NO) is Voted.COUNTED
    assert await world.store.vote(call, b"d" * 32, yes("b"), NO) is Voted.COUNTED
    (asked,) = await world.store.questions()
    assert asked.gate.needs == needs
    assert await world.store.vote(call, b"d" * 32, yes("Doe"), NO) is Voted.COUNTED
    assert await world.store.vote(call, b"d" * 32, yes("Doe, Jane"), NO) is Voted.LET_THROUGH


async def test_who_is_in_two_groups_counts_in_both(world):
    _, call = await gated(world, needs=(Need(("a", "b"), 1), Need(("b", "c"), 1)))
    assert await world.store.vote(call, b"d" * 32, yes("b"), NO) is Voted.LET_THROUGH


async def test_the_end_of_a_question_wakes_the_run_and_an_approved_call_has_none(world):
    ends_us = world.clock.now_us() + 1_000_000
    run_id, _ = await gated(world, expires_us=ends_us)
    passed, call = await gated(world, expires_us=ends_us)
    assert await world.store.vote(call, b"d" * 32, yes(), NO) is Voted.LET_THROUGH
    world.clock.advance(2)
    assert await world.ready() == [run_id]
    assert (await world.store.load(run_id)).due == [0]
    assert (await world.store.load(passed)).due == []


async def test_a_late_yes_counts_for_nothing_and_a_late_no_does(world):
    _, call = await gated(world, expires_us=world.clock.now_us() + 1_000_000)
    world.clock.advance(2)
    assert await world.store.vote(call, b"d" * 32, yes(), NO) is Voted.EXPIRED
    vote = Vote(person="owner", is_yes=False, reason="too late")
    assert await world.store.vote(call, b"d" * 32, vote, NO) is Voted.REJECTED


async def test_a_call_that_is_gated_anew_forgets_what_was_said_before(world):
    _, call = await gated(world, needs=TWO)
    assert await world.store.vote(call, b"d" * 32, yes("a"), NO) is Voted.COUNTED
    event = Event(kind="gated", body={"index": 0})
    assert await world.store.gate(call, await world.lease(), gate(b"f" * 32, needs=TWO), event)
    assert await world.store.vote(call, b"f" * 32, yes("b"), NO) is Voted.COUNTED
    assert await world.store.vote(call, b"f" * 32, yes("c"), NO) is Voted.LET_THROUGH


async def test_nothing_of_a_revoked_agent_is_committed_started_or_found(world):
    run_id, call = await world.parked(due_us=world.clock.now_us() + 1)
    waiting, gated_call = await gated(world)
    assert await world.store.send(run_id, 1) is Sent.SENT
    (revoked,) = await world.store.registry.revoke("a", by="lead", reason="odd")
    assert (revoked.name, revoked.epoch, revoked.is_revoked, revoked.by) == ("a", 2, True, "lead")
    world.clock.advance(1)
    lease = await world.lease()
    assert await world.turn(run_id, 1) is Verdict.REVOKED
    assert not await world.store.start(call, lease)
    assert not await world.store.postpone(call, lease, not_before_us=0, event=done())
    assert not await world.store.gate(gated_call, lease, gate(), done())
    assert await world.store.vote(gated_call, b"d" * 32, yes(), NO) is Voted.GONE
    assert await world.store.send(run_id, 2) is Sent.REVOKED
    assert (await world.ready(), await performable(world)) == ([], [])
    assert await world.store.load(run_id) is None
    assert (await world.store.run(run_id)).is_revoked
    with pytest.raises(Revoked):
        await world.run()
    assert await world.store.finish(run_id, 0, Returned(value=1), done())  # a result is true whoever brings it
    assert await world.store.registry.revoke("a", by="lead") == []
    del waiting


async def test_what_was_revoked_stays_so_until_it_is_restored_with_its_runs(world):
    run_id, call = await world.parked()
    await world.store.registry.revoke("a", by="lead")
    await world.store.registry.enrol([Identity(name="a", owner="other", purpose="p")])
    (identity,) = await world.store.registry.identities()
    assert (identity.is_revoked, identity.epoch, identity.owner) == (True, 2, "other")
    restored = await world.store.registry.restore("a", by="lead")
    assert (restored.epoch, restored.is_revoked) == (3, False)
    assert not await world.store.start(call, await world.lease())
    assert await world.store.registry.restore("a", by="lead") is None
    later = await world.store.registry.restore("a", by="lead", has_runs=True)
    assert (later.epoch, later.is_revoked) == (3, False)
    assert not (await world.store.run(run_id)).is_revoked
    assert await world.store.registry.restore("a", by="lead", has_runs=True) is None
    await world.store.registry.revoke("a", by="lead")
    await world.store.registry.restore("a", by="lead", has_runs=True)
    assert await world.store.start(call, await world.lease())
    assert not (await world.store.run(run_id)).is_revoked


async def test_an_agent_below_a_revoked_one_is_not_restored_alone(world):
    await world.store.registry.enrol([Identity(name="b", owner="o"), Identity(name="c", owner="o", parent="b")])
    assert [each.name for each in await world.store.registry.revoke("b", by="lead")] == ["b", "c"]
    assert await world.store.registry.restore("c", by="lead") is None
    assert await world.store.registry.restore("b", by="lead") is not None
    assert await world.store.registry.restore("c", by="lead") is not None


async def test_a_repeated_message_is_known_after_its_run_has_ended(world):
    run_id = await world.run()
    assert await world.store.send(run_id, "x", dedup="once") is Sent.SENT
    assert await world.store.end(run_id, Status.CANCELLED, Event(kind="cancelled", body={"by": "x", "reason": ""}))
    assert await world.store.send(run_id, "x", dedup="once") is Sent.DUPLICATE
    assert await world.store.send(run_id, "x", dedup="other") is Sent.GONE
    world.clock.advance(10)
    assert (await world.store.collect(world.clock.now_us())).runs == 1
    assert await world.store.send(run_id, "x", dedup="once") is Sent.GONE


async def test_after_old_runs_are_collected_a_new_program_is_never_taken_for_theirs(world):
    run_id = await world.run("'old'")
    assert (await world.store.load(run_id)).program == "'old'"
    assert await world.store.end(run_id, Status.CANCELLED, Event(kind="cancelled", body={"by": "x", "reason": ""}))
    world.clock.advance(10)
    assert (await world.store.collect(world.clock.now_us())).runs == 1
    for number in range(3):
        new = await world.run(f"'new {number}'")
        assert (await world.store.load(new)).program == f"'new {number}'"


async def test_who_is_active_is_known_at_once_whatever_was_known_before(world):
    registry = world.store.registry
    await registry.enrol([Identity(name="above", owner="o"), Identity(name="below", owner="o", parent="above")])
    active = lambda: [registry.is_active(each) for each in ("above", "below", "nobody")]  # noqa: E731 - it is asked again and again
    assert active() == [True, True, False]
    await registry.revoke("above", by="lead")
    assert active() == [False, False, False]
    await registry.restore("above", by="lead")
    assert active() == [True, False, False]
    await registry.restore("below", by="lead")
    assert active() == [True, True, False]
    await registry.enrol([Identity(name="nobody", owner="o")], is_whole=True)  # the others are not declared any more
    assert active() == [False, False, True]
    await world.store.create(NewRun(run_id="0" * 26, agent="new", name="n", program="1", inputs={}))
    assert registry.is_active("new")
