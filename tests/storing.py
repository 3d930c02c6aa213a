"""Every store that is tested, and a short way to put runs and turns into one."""

from contextlib import asynccontextmanager

from overwinter.adapters.sqlite import open_store
from overwinter.events import Call, Effect, Event, Status
from overwinter.ids import Ids
from overwinter.store import NewCall, NewRun, Turn, Verdict

KEY = bytes(32)


@asynccontextmanager
async def sqlite(path, clock):
    async with open_store(path / "store.db", clock, Ids(clock.now_us), key=KEY) as store:
        yield store


STORES = [sqlite]


class World:
    """A store, its clock and shorthands."""

    def __init__(self, store, clock):
        self.store, self.clock, self.ids = store, clock, Ids(clock.now_us)

    async def lease(self):
        return (await self.store.claim())[0]

    async def run(self, program="1", **options):
        new = NewRun(run_id=self.ids.new(), agent="a", name="n", program=program, inputs={"x": 1})
        return (await self.store.create(new, **options)).run_id

    async def turn(self, run_id, seq, *, lease=None, status=Status.LIVE, calls=(), events=(), calls_next=0, **rest):
        return await self.store.commit(
            Turn(
                run_id=run_id, lease=lease or await self.lease(), seq=seq, status=status,
                snapshot=b"s" * 100 if status is Status.LIVE else None, calls=calls, calls_next=calls_next,
                events=[Event(kind="turn", body={"now_us": 1, "given": []}), *events], **rest,
            )
        )  # fmt: skip

    async def parked(self, *, effect: Effect = "write", due_us=None, person=None, function="shop.pay", **rest):
        run_id = await self.run()
        call = Call(run_id=run_id, index=0, function=function, arguments={"a": 1}, effect=effect, agent="a")
        new = NewCall(call=call, due_us=due_us, person=person)
        assert await self.turn(run_id, 0, calls=[new], calls_next=1, **rest) is Verdict.COMMITTED
        return run_id, call

    async def ready(self):
        return list((await self.store.ready([await self.lease()], 100)).run_ids)


def done(index=0):
    return Event(kind="answered", body={"index": index, "value": 1})
