"""The store under kill -9, torn writes, a full disk, a second opener and too much mail: what was acknowledged stays."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import apsw
import pytest

from overwinter.adapters.sqlite import SqliteStore, open_store, rows
from overwinter.adapters.sqlite.schema import connect
from overwinter.adapters.sqlite.writer import Job, Writer, Wrote
from overwinter.errors import HomeDamaged, HomeError, HomeFull
from overwinter.events import Call, Event, Returned, Status
from overwinter.ids import Ids
from overwinter.store import Lease, NewCall, NewRun, Sent, Turn, Verdict
from overwinter.testing import ManualClock

pytestmark = pytest.mark.anyio
KEY = bytes(32)
KILLS = 10
COMMITTER = """
import sys
from pathlib import Path

import anyio

from overwinter.adapters.sqlite import open_store
from overwinter.clock import SystemClock
from overwinter.events import Event, Status
from overwinter.ids import Ids
from overwinter.store import NewRun, Turn, Verdict

async def advance(store, lease, run_id):
    seq = (await store.load(run_id)).seq
    while True:
        turn = Turn(
            run_id=run_id, lease=lease, seq=seq, status=Status.LIVE, snapshot=b"s" * 2_000, calls_next=0,
            events=[Event(kind="turn", body={"seq": seq}), Event(kind="printed", body={"text": "x" * 200})],
        )
        assert await store.commit(turn) is Verdict.COMMITTED
        seq += 1
        print(run_id, seq, flush=True)

async def main():
    clock = SystemClock()
    ids = Ids(clock.now_us)
    async with open_store(Path(sys.argv[1]), clock, ids, key=bytes(32)) as store:
        (lease,) = await store.claim()
        async with anyio.create_task_group() as group:
            for run_id in sys.argv[2:]:
                group.start_soon(advance, store, lease, run_id)

anyio.run(main)
"""


def opened(place: Path, clock: ManualClock):
    return open_store(place / "store.db", clock, Ids(clock.now_us), key=KEY)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SqliteStore]:
    async with opened(tmp_path, clock) as store:
        yield store


async def run_of(store: SqliteStore, clock: ManualClock) -> str:
    new = NewRun(run_id=Ids(clock.now_us).new(), agent="a", name="n", program="1", inputs={})
    return (await store.create(new)).run_id


def turn_of(run_id: str, lease: Lease, seq: int = 0, **options: object) -> Turn:
    shape = {
        "status": Status.LIVE,
        "snapshot": b"s",
        "calls_next": 0,
        "events": [Event(kind="turn", body={})],
        **options,
    }
    return Turn(run_id=run_id, lease=lease, seq=seq, **shape)  # pyright: ignore[reportArgumentType] - as in `Turn`


async def asleep(store: SqliteStore, clock: ManualClock, *, due_us: int | None = None) -> str:
    run_id = await run_of(store, clock)
    call = Call(run_id=run_id, index=0, function="tools.ask", arguments={}, effect="wait")
    new = NewCall(call=call, due_us=due_us, person="owner")
    (lease,) = await store.claim()
    assert await store.commit(turn_of(run_id, lease, calls=[new], calls_next=1)) is Verdict.COMMITTED
    return run_id


@contextmanager
def files_limited(size_bytes: int) -> Generator[None]:
    """Let no file grow beyond a size: the write that crosses it is cut in its middle, as on a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def killed_after(place: Path, run_ids: list[str], acks: int) -> dict[str, int]:
    """Commit turns in another process, kill it after so many acknowledgements; return the last one of each run."""
    command = [sys.executable, "-c", COMMITTER, str(place / "store.db"), *run_ids]
    acked: dict[str, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as child:
        assert child.stdout is not None
        for number, line in enumerate(child.stdout):
            if number == acks:
                child.send_signal(signal.SIGKILL)
            if line.endswith("\n"):  # what it said before it died counts, also behind the kill
                run_id, seq = line.split()
                acked[run_id] = int(seq)
    assert child.returncode == -signal.SIGKILL
    return acked


async def test_kill_9_loses_nothing_acknowledged_and_leaves_no_gap(tmp_path: Path, clock: ManualClock):
    async with opened(tmp_path, clock) as store:
        ids = Ids(clock.now_us)
        run_ids = [ids.new() for _ in range(8)]
        for run_id in run_ids:
            await store.create(NewRun(run_id=run_id, agent="a", name="n", program="1", inputs={}))
    rng = random.Random(9)
    for _ in range(KILLS):
        acked = killed_after(tmp_path, run_ids, rng.randrange(1, 200))
        async with opened(tmp_path, clock) as store:
            for run_id in run_ids:
                run = await store.run(run_id)
                assert run is not None
                assert run.seq >= acked.get(run_id, 0)
                events = await store.journal(run_id, limit=100_000)
                assert [event.position for event in events] == list(range(run.events))
                assert [each.body["seq"] for each in events if each.kind == "turn"] == list(range(run.seq))
                epochs = [event.epoch for event in events]
                assert epochs == sorted(epochs)


async def test_a_torn_write_is_refused_to_everyone_in_its_group_and_the_store_goes_on(
    tmp_path: Path, clock: ManualClock, store: SqliteStore
):
    run_id = await asleep(store, clock)
    outcomes: list[object] = []

    async def send() -> None:
        try:
            outcomes.append(await store.send(run_id, "x" * 3_000))
        except HomeFull as error:
            outcomes.append(error)

    async def send_many() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(send)

    with files_limited((tmp_path / "store.db-wal").stat().st_size + 20_000):
        for _ in range(3):
            await send_many()
    refused = [each for each in outcomes if isinstance(each, HomeFull)]
    assert refused
    assert all("space" in str(error) for error in refused)
    outcomes = [each for each in outcomes if each is Sent.SENT]
    await send_many()
    assert outcomes.count(Sent.SENT) >= 40
    messages = [event for event in await store.journal(run_id) if event.kind == "message"]
    assert len(messages) == outcomes.count(Sent.SENT)


async def test_what_was_acknowledged_on_a_full_disk_is_there_after_opening_anew(tmp_path: Path, clock: ManualClock):
    sent = 0
    async with opened(tmp_path, clock) as store:
        run_id = await asleep(store, clock)
        with files_limited((tmp_path / "store.db-wal").stat().st_size + 200_000), pytest.raises(HomeFull):  # noqa: PT012 - how many fit is the store's affair
            while True:
                await store.send(run_id, "x" * 3_000)
                sent += 1
    assert sent
    async with opened(tmp_path, clock) as store:
        kinds = [event.kind for event in await store.journal(run_id)]
        assert kinds.count("message") == sent


class RefusesOneRollback(apsw.Connection):
    """A connection whose disk fails once more, while a failed commit is taken back."""

    is_refusing = True

    def execute(self, statements: str, *rest: Any, **options: Any) -> apsw.Cursor:
        if statements == "rollback" and self.is_refusing:
            self.is_refusing = False
            raise apsw.IOError("disk I/O error")
        return super().execute(statements, *rest, **options)


@pytest.mark.parametrize("is_short", [True, False])
async def test_a_rollback_that_fails_ends_neither_the_writing_thread_nor_the_next_commit(
    tmp_path: Path, is_short: object
):
    def tell(group: list[Job]) -> None:
        for job in group:
            job.future.set_result(job.error or job.wrote)

    def spoil(db: apsw.Connection) -> Wrote[None]:
        db.execute("insert into kept values (1)")
        raise HomeError("the disk is gone")

    def insert(db: apsw.Connection) -> Wrote[int]:
        db.execute("insert into kept values (2)")
        return Wrote(2)

    connection = RefusesOneRollback(str(tmp_path / "kept.db"))
    connection.execute("create table kept (x)")
    writer = Writer(connection, tmp_path / "kept.db", lambda _, __: lambda: None, tell)
    assert isinstance(await writer.submit(spoil, is_short=bool(is_short)), HomeError)
    assert await writer.submit(insert, is_short=bool(is_short)) == Wrote(2)
    await writer.close()
    assert list(connection.execute("select x from kept")) == [(2,)]


async def test_a_commit_that_can_wait_goes_with_one_that_cannot_and_with_the_last(tmp_path: Path):
    groups: list[int] = []

    def tell(group: list[Job]) -> None:
        groups.append(len(group))
        for job in group:
            job.future.set_result(job.error or job.wrote)

    def insert(db: apsw.Connection) -> Wrote[None]:
        db.execute("insert into kept values (1)")
        return Wrote(None)

    connection = apsw.Connection(str(tmp_path / "kept.db"))
    connection.execute("create table kept (x)")
    writer = Writer(connection, tmp_path / "kept.db", lambda _, __: lambda: None, tell)
    async with anyio.create_task_group() as callers:
        for can_wait in (True, True, False):
            callers.start_soon(partial(writer.submit, insert, can_wait=can_wait))
    async with anyio.create_task_group() as callers:
        callers.start_soon(partial(writer.submit, insert, can_wait=True))
        await anyio.lowlevel.checkpoint()
        await writer.close()
    assert groups == [3, 1]
    assert list(connection.execute("select count(*) from kept")) == [(4,)]


def told(group: list[Job]) -> None:
    for job in group:
        if job.error is not None and job.is_over is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.error or job.wrote)


async def written(writer: Writer, results: list[object], value: int | None, *, is_short: bool) -> None:
    """Add a value by a job of its own; None is one that the table refuses."""

    def act(db: apsw.Connection) -> Wrote[int | None]:
        db.execute("insert into kept values (?)", (value,))
        return Wrote(value)

    results.append(await writer.submit(act, is_short=is_short))


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[tuple[Writer, apsw.Connection]]:
    """Yield a writer, and another connection to its file."""
    connection, other = (apsw.Connection(str(tmp_path / "kept.db")) for _ in range(2))
    assert list(connection.execute("pragma journal_mode=wal")) == [("wal",)]
    connection.execute("create table kept (x not null)")
    connection.set_busy_timeout(5_000)
    writer = Writer(connection, tmp_path / "kept.db", lambda _, __: lambda: None, told)
    yield writer, other
    await writer.close()
    other.close()
    connection.close()


async def test_a_job_that_fails_spoils_no_other_wherever_they_are_executed(kept: tuple[Writer, apsw.Connection]):
    writer, other = kept
    results: list[object] = []
    async with anyio.create_task_group() as callers:
        for n in range(12):
            value = None if n % 5 == 3 else n
            callers.start_soon(partial(written, writer, results, value, is_short=n % 3 != 0))
    assert (
        sorted(str(each) for each in results if isinstance(each, apsw.ConstraintError))
        == ["NOT NULL constraint failed: kept.x"] * 2
    )
    assert sorted(x for (x,) in other.execute("select x from kept")) == [0, 1, 2, 4, 5, 6, 7, 9, 10, 11]


async def test_a_file_that_another_process_holds_for_a_moment_holds_up_no_event_loop(
    kept: tuple[Writer, apsw.Connection],
):
    writer, other = kept
    results: list[object] = []
    other.execute("begin immediate")
    async with anyio.create_task_group() as callers:
        callers.start_soon(partial(written, writer, results, 1, is_short=True))
        with anyio.fail_after(1):
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
        assert not results
        other.execute("commit")
    assert results == [Wrote(1)]


async def test_a_commit_that_fails_takes_its_whole_group_back_and_the_next_comes_through(
    kept: tuple[Writer, apsw.Connection],
):
    writer, other = kept
    results: list[object] = []
    refuse = [True]
    writing = writer._connection  # pyright: ignore[reportPrivateUsage] - a commit fails where SQLite lets it fail
    writing.set_commit_hook(lambda: refuse.pop() if refuse else False)
    async with anyio.create_task_group() as callers:
        for n in range(3):
            callers.start_soon(partial(written, writer, results, n, is_short=True))
    failed = [each for each in results if isinstance(each, apsw.Error)]
    came = [each.result for each in results if isinstance(each, Wrote)]
    assert failed
    assert sorted(map(str, came)) == sorted(str(x) for (x,) in other.execute("select x from kept"))


async def test_what_goes_first_is_preceded_only_by_the_job_that_is_being_executed(kept: tuple[Writer, apsw.Connection]):
    writer, other = kept
    results: list[object] = []
    has_begun = threading.Event()
    waiting = writer._groups  # pyright: ignore[reportPrivateUsage] - the only sign of a job that goes first

    def held(db: apsw.Connection) -> Wrote[int]:
        db.execute("insert into kept values (0)")
        has_begun.set()
        while waiting.empty():
            pass
        return Wrote(0)

    def first(db: apsw.Connection) -> Wrote[int]:
        db.execute("insert into kept values (-1)")
        return Wrote(-1)

    async def revoked() -> None:
        assert has_begun.wait(5)
        told_before = len(results)
        assert await writer.submit_first(first) == -1
        assert len(results) == told_before, "another task has taken a step since the commit"
        assert list(other.execute("select x from kept order by rowid")) == [(0,), (-1,)]

    async with anyio.create_task_group() as callers:
        callers.start_soon(writer.submit, held)
        for n in range(1, 9):
            callers.start_soon(partial(written, writer, results, n, is_short=n > 4))
        callers.start_soon(revoked)
    assert list(other.execute("select x from kept order by rowid")) == [(x,) for x in (0, -1, *range(1, 9))]


async def test_what_goes_first_and_fails_is_told_so_and_the_next_comes_through(kept: tuple[Writer, apsw.Connection]):
    writer, other = kept
    results: list[object] = []
    with pytest.raises(apsw.ConstraintError):
        await writer.submit_first(lambda db: Wrote(db.execute("insert into kept values (null)")))
    await written(writer, results, 1, is_short=True)
    assert list(other.execute("select x from kept")) == [(1,)]


async def test_epochs_never_fall_along_a_journal_whoever_writes(tmp_path: Path, clock: ManualClock):
    async with opened(tmp_path, clock) as old:
        run_id = await asleep(old, clock)
        async with opened(tmp_path, clock) as new:
            assert await new.send(run_id, 1) is Sent.SENT
            # None of these is fenced: a message, an answer and an end are true whoever brings them.
            assert await old.send(run_id, 2) is Sent.SENT
            assert await old.finish(run_id, 0, Returned(value=1), Event(kind="answered", body={"index": 0, "value": 1}))
            assert await old.end(run_id, Status.CANCELLED, Event(kind="cancelled", body={"by": "me", "reason": ""}))
            epochs = [event.epoch for event in await new.journal(run_id)]
            assert epochs == sorted(epochs)
            assert epochs[-1] > epochs[0]


async def test_the_look_for_ready_runs_reads_no_body_of_mail_and_walks_no_sleeping_run(store: SqliteStore):
    def plan(sql: str, *bound: int) -> str:
        return "\n".join(row[3] for row in store._reading.execute(f"explain query plan {sql}", bound))

    ready, next_due = plan(rows.READY, 1, 1, 10), plan(rows.NEXT_DUE, 1)
    since = plan(rows.READY_SINCE, 1, 1, 10, 1)
    for text in (ready, since, next_due):
        scans = [line for line in text.split("\n") if line.startswith("SCAN") and "(subquery" not in line]
        assert all("COVERING INDEX" in line or "CONSTANT ROW" in line for line in scans), text
        assert "SEARCH run\n" not in f"{text}\n", text
    assert "SCAN mail USING COVERING INDEX mail_waiting" in ready
    assert "SEARCH call USING COVERING INDEX call_due (due>? AND due<?)" in since
    assert "SEARCH run USING COVERING INDEX run_late (not_before>? AND not_before<?)" in since
    assert "SEARCH call USING INDEX call_todo (not_before>? AND not_before<?)" in plan(rows.PERFORMABLE, 1, 0, 1)


async def test_a_statement_is_planned_once_whatever_is_bound_to_it(store: SqliteStore):
    database = store._reading
    planned = list[object]()
    database.authorizer = lambda *what: planned.append(what) or apsw.SQLITE_OK  # told of each planning
    list(database.execute(rows._LOAD, (b"", 0)))
    assert planned
    planned.clear()
    for now in range(1, 4):
        list(database.execute(rows._LOAD, (b"", now)))
    database.authorizer = None
    assert not planned


async def test_an_older_file_without_the_newer_indices_gets_them(tmp_path: Path, clock: ManualClock):
    async with opened(tmp_path, clock):
        pass
    database = apsw.Connection(str(tmp_path / "store.db"))
    database.execute("drop index mail_waiting")
    database.close()
    async with opened(tmp_path, clock) as store:
        found = store._reading.execute("select 1 from sqlite_schema where name = 'mail_waiting'")
        assert list(found) == [(1,)]


async def test_a_file_that_was_emptied_is_never_begun_anew(tmp_path: Path, clock: ManualClock):
    async with opened(tmp_path, clock):
        pass
    (tmp_path / "store.db").write_bytes(b"")
    with pytest.raises(HomeDamaged, match="was emptied"):
        async with opened(tmp_path, clock):
            pass
    assert (tmp_path / "store.db").read_bytes() == b""


async def test_nothing_is_acknowledged_that_is_written_to_a_file_which_is_not_in_its_place_any_more(
    tmp_path: Path, clock: ManualClock
):
    place, away = tmp_path / "store.db", tmp_path / "away.db"
    async with opened(tmp_path, clock) as store:
        run_id = await run_of(store, clock)
        place.rename(away)
        with pytest.raises(HomeDamaged, match="is missing"):
            await store.send(run_id, "a")
        shutil.copy(away, place)
        with pytest.raises(HomeDamaged, match="was replaced"):
            await store.send(run_id, "b")
        away.replace(place)
        assert await store.send(run_id, "c") is Sent.SENT


async def test_a_making_that_was_cut_short_is_made_again(tmp_path: Path, clock: ManualClock):
    (tmp_path / "store.db.new").write_bytes(b"half of a fi")
    async with opened(tmp_path, clock) as store:
        assert await store.counts() == {}
    assert (tmp_path / "store.db").stat().st_mode & 0o777 == 0o600


async def test_another_programs_database_is_left_as_it_is(tmp_path: Path, clock: ManualClock):
    database = apsw.Connection(str(tmp_path / "store.db"))
    database.execute("create table theirs (x); insert into theirs values (1)")
    database.close()
    before = (tmp_path / "store.db").read_bytes()
    with pytest.raises(HomeDamaged, match="another program"):
        async with opened(tmp_path, clock):
            pass
    assert (tmp_path / "store.db").read_bytes() == before


async def test_the_files_of_the_store_are_their_owners_alone(tmp_path: Path, clock: ManualClock):
    async with opened(tmp_path, clock) as store:
        await run_of(store, clock)
        for name in ("store.db", "store.db-wal", "store.db-shm"):
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


async def test_a_page_that_was_overwritten_is_named_when_it_is_met(tmp_path: Path, clock: ManualClock):
    async with opened(tmp_path, clock) as store:
        run_id = await asleep(store, clock)
    file = tmp_path / "store.db"
    whole = file.read_bytes()
    file.write_bytes(whole[:8_192] + b"\xff" * (len(whole) - 8_192))
    with pytest.raises(HomeDamaged, match="backup"):
        async with opened(tmp_path, clock) as store:
            await store.load(run_id)


async def test_a_closed_store_has_written_what_it_was_given_and_takes_no_more(tmp_path: Path, clock: ManualClock):
    taken: list[Sent] = []
    async with opened(tmp_path, clock) as store:
        run_id = await asleep(store, clock)

        async def send() -> None:
            taken.append(await store.send(run_id, 1))

        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(send)
            await anyio.lowlevel.checkpoint()  # each has submitted, none has been answered
            await store.close()
        with pytest.raises(HomeError, match="closed"):
            await store.send(run_id, 1)
    assert taken == [Sent.SENT] * 200


async def test_collecting_in_many_commits_counts_and_deletes_the_same(store: SqliteStore, clock: ManualClock):
    (lease,) = await store.claim()
    ids = Ids(clock.now_us)
    run_ids = [ids.new() for _ in range(450)]

    async def live_and_end(run_id: str) -> None:
        await store.create(NewRun(run_id=run_id, agent="a", name="n", program="1", inputs={}))
        last = Event(kind="finished", body={"value": 1})
        await store.commit(turn_of(run_id, lease, status=Status.FINISHED, snapshot=None, events=[last]))

    async with anyio.create_task_group() as group:
        for run_id in run_ids:
            group.start_soon(live_and_end, run_id)
    clock.advance(10)
    first = await store.collect(clock.now_us(), limit=410)
    rest = await store.collect(clock.now_us())
    assert (first.runs, first.events, first.programs) == (410, 820, 0)
    assert (rest.runs, rest.events, rest.programs) == (40, 80, 0)  # the newest program stays: its number is never free
    assert await store.counts() == {}


async def test_a_run_is_found_by_any_end_of_its_id_and_by_nothing_else(store: SqliteStore, clock: ManualClock):
    run_ids = [await run_of(store, clock) for _ in range(50)]
    for size in range(1, 27):
        wanted = run_ids[7][-size:]
        expected = [each for each in sorted(run_ids, reverse=True) if each.endswith(wanted)][:10]
        assert await store.find(wanted) == expected
    for text in ("!", "u" * 9, "0" * 40, "Z" * 26):
        assert await store.find(text) == []


async def test_a_long_journal_is_read_whole_and_in_parts(store: SqliteStore, clock: ManualClock):
    run_id = await run_of(store, clock)
    (lease,) = await store.claim()
    events = [Event(kind="printed", body={"text": str(number)}) for number in range(300)]
    await store.commit(turn_of(run_id, lease, events=events))
    whole = await store.journal(run_id)
    assert [event.position for event in whole] == list(range(301))
    assert await store.journal(run_id, 280) == whole[280:]
    assert await store.journal(run_id, 10, 20) == whole[10:30]
    assert await store.journal(run_id, 400) == []


def test_a_directory_that_is_missing_is_named(tmp_path: Path):
    with pytest.raises(HomeError, match="is missing"):
        connect(tmp_path / "nowhere" / "store.db", is_writer=True)
