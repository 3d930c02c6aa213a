"""The store beside a model of it in plain dicts, driven by whatever sequence hypothesis thinks of."""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from anyio.from_thread import start_blocking_portal
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from overwinter.adapters.sqlite import open_store
from overwinter.events import Call, Event, Returned, Status
from overwinter.ids import Ids
from overwinter.store import NewCall, NewRun, Sent, Turn, Verdict
from overwinter.testing import ManualClock


@dataclass
class Known:
    """What the model says of a run."""

    seq: int = 0
    calls: int = 0
    events: int = 1
    is_live: bool = True
    open_writes: dict[int, str] = field(default_factory=dict)
    """Index to intended, started or done."""
    left: set[int] = field(default_factory=set)
    """Writes that were started when it ended, and have no answer."""
    messages: list[int] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def leave(self) -> None:
        """Note what is under way as it ends."""
        self.left = {index for index, state in self.open_writes.items() if state == "started"}
        self.events += len(self.left)


class Stores(RuleBasedStateMachine):
    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        place = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.portal = self.stack.enter_context(start_blocking_portal())
        clock = ManualClock()
        self.ids = Ids(clock.now_us)
        opened = open_store(place / "store.db", clock, self.ids, key=bytes(32))
        self.store = self.stack.enter_context(self.portal.wrap_async_context_manager(opened))
        (self.lease,) = self.portal.call(self.store.claim)
        self.known: dict[str, Known] = {}

    def teardown(self) -> None:
        self.stack.close()

    @rule(target=runs)
    def create(self):
        new = NewRun(run_id=self.ids.new(), agent="a", name="n", program="1", inputs={})
        self.portal.call(self.store.create, new)
        self.known[new.run_id] = Known()
        return new.run_id

    @rule(run=runs, number=st.integers(0, 9), dedup=st.none() | st.sampled_from("ab"))
    def send(self, run, number, dedup):
        known = self.known[run]
        sent = self.portal.call(lambda: self.store.send(run, number, dedup=dedup))
        if dedup in known.seen:
            assert sent is Sent.DUPLICATE
        elif not known.is_live:
            assert sent is Sent.GONE
        else:
            assert sent is Sent.SENT
            known.messages.append(number)
            known.events += 1
            known.seen |= {dedup} - {None}

    @rule(run=runs, writes=st.integers(0, 2), lag=st.integers(0, 1), is_end=st.booleans())
    def turn(self, run, writes, lag, is_end):
        known = self.known[run]
        loaded = self.portal.call(self.store.load, run)
        assert (loaded is not None) == known.is_live
        mail = () if loaded is None else loaded.mail
        consumed = [each.id for each in mail]
        closed = [index for index, state in known.open_writes.items() if state == "done"]
        calls = [
            NewCall(call=Call(run_id=run, index=known.calls + n, function="s.f", arguments={}, effect="write"))
            for n in range(writes)
        ]
        events = [Event(kind="turn", body={"now_us": 1, "given": []})]
        if is_end:
            events.append(Event(kind="finished", body={"value": 1}))
        verdict = self.portal.call(
            self.store.commit,
            Turn(
                run_id=run, lease=self.lease, seq=known.seq - lag, events=events, consumed=consumed, closed=closed,
                status=Status.FINISHED if is_end else Status.LIVE, snapshot=None if is_end else b"s",
                calls=() if is_end else calls, calls_next=known.calls + (0 if is_end else writes), receives=1,
            ),
        )  # fmt: skip
        if not known.is_live:
            assert verdict is Verdict.ENDED
        elif lag:
            assert verdict is Verdict.STALE
        else:
            assert verdict is Verdict.COMMITTED
            known.seq += 1
            known.events += len(events)
            known.is_live = not is_end
            if is_end:
                known.leave()
            taken = [each for each in mail if each.index is None]
            known.messages = [] if is_end else known.messages[len(taken) :]
            known.open_writes = {} if is_end else {i: s for i, s in known.open_writes.items() if s != "done"}
            if not is_end:
                known.open_writes |= dict.fromkeys(range(known.calls, known.calls + writes), "intended")
                known.calls += writes

    @rule(run=runs, data=st.data())
    def start(self, run, data):
        known = self.known[run]
        index = data.draw(st.integers(0, max(0, known.calls)))
        call = Call(run_id=run, index=index, function="s.f", arguments={}, effect="write")
        begun = self.portal.call(self.store.start, call, self.lease)
        assert begun == (known.open_writes.get(index) == "intended")
        if begun:
            known.open_writes[index] = "started"
            known.events += 1

    @rule(run=runs, data=st.data())
    def finish(self, run, data):
        known = self.known[run]
        index = data.draw(st.integers(0, max(0, known.calls)))
        event = Event(kind="answered", body={"index": index, "value": 1})
        taken = self.portal.call(self.store.finish, run, index, Returned(value=1), event)
        assert taken == (known.open_writes.get(index) in ("intended", "started"))
        if taken:
            known.open_writes[index] = "done"
        if taken or index in known.left:
            known.left.discard(index)
            known.events += 1

    @rule(run=runs)
    def end(self, run):
        known = self.known[run]
        event = Event(kind="cancelled", body={"by": "me", "reason": ""})
        assert self.portal.call(self.store.end, run, Status.CANCELLED, event) == known.is_live
        if known.is_live:
            known.leave()
            known.is_live, known.open_writes, known.messages = False, {}, []
            known.events += 1

    @invariant()
    def the_store_says_what_the_model_says(self):
        for run, known in self.known.items():
            record = self.portal.call(self.store.run, run)
            assert record is not None
            assert (record.seq, record.events, record.calls) == (known.seq, known.events, known.calls)
            assert (record.status is Status.LIVE) == known.is_live
            positions = [event.position for event in self.portal.call(self.store.journal, run)]
            assert positions == list(range(known.events))
            open_calls = {each.call.index for each in self.portal.call(self.store.calls, run)}
            assert open_calls == {i for i, s in known.open_writes.items() if s != "done"}


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
