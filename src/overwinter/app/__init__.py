"""The composition root: the only place that knows both the kernel and its adapters. Every face turns into calls here."""

import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import SystemRandom
from typing import Any, Unpack

import anyio

from overwinter import journal
from overwinter.actor import Actor
from overwinter.adapters.catalog_file import Hit, Pin, Refreshed, Source
from overwinter.adapters.home import Home, open_home
from overwinter.app.auditing import Auditing
from overwinter.app.checks import Checks
from overwinter.app.goals import Goals
from overwinter.app.governance import Governance
from overwinter.app.hooks import Hooks
from overwinter.app.inbox import Inbox
from overwinter.app.issuing import Issuing
from overwinter.app.outbox import Outbox
from overwinter.app.parts import Parts, Sight, limits_of, open_parts, parents_of
from overwinter.app.repeats import Repeats
from overwinter.app.rulebook import Rulebook
from overwinter.app.scheduling import Scheduling
from overwinter.app.starting import Limited, Starting
from overwinter.app.tokens import Access
from overwinter.app.webhooks import Webhooks
from overwinter.brief import brief
from overwinter.catalog import Catalog
from overwinter.check import Finding
from overwinter.clock import DAY_US, SECOND_US, Clock, SystemClock
from overwinter.config import Config, load
from overwinter.errors import Conflict, HomeError, NotFound, OverwinterError, Revoked, UsageError, first_of
from overwinter.events import Event, Status
from overwinter.excerpt import CHARACTERS_MAX, excerpt
from overwinter.ids import ALPHABET, ID_LENGTH
from overwinter.store import CallRecord, Collected, Page, RunRecord, Sent
from overwinter.turn import Means
from overwinter.values import Value
from overwinter.worker import Pulse, Worker

__all__ = ["App", "Parts", "open_parts"]

TAIL_MIN = 4
"""Shortest tail of a run id that is looked up."""
DRAIN_S = 10.0
"""How long a closing worker waits for its calls in flight."""
TURNS_PER_INTERPRETER = 32
"""Turns under way for each interpreter worker: while one computes, the others are loaded or wait for the disk, and
their commits share a sync."""
EVENTS_AT_ONCE = 16
"""Of a journal: so many are held in memory for each reader that is slow, and each may be as large as a value."""
COLLECT_MAX = 500
"""Runs deleted in one commit: others wait for it."""
COLLECT_PAUSE_US = 3_600 * SECOND_US
WARNINGS_MAX = 5
"""Shown of a program that failed: it was accepted, so most of them are not why."""
ENDED = (Status.FINISHED, Status.FAILED, Status.CANCELLED)


class App:
    """A home at work: start programs, watch them, answer their questions, stop them.

    ```python
    async with App.open(Path(".overwinter")) as app:
        run_id = await app.start(source, inputs={"invoice_id": 17})
        print((await app.result(run_id)).result)
    ```
    """

    def __init__(self, config: Config, parts: Parts) -> None:
        self.config = config
        self._parts = parts
        self._store = parts.store
        self._clock = parts.clock
        self._checks = Checks(parts, Sight(parts.policy, parents_of(config)))
        means = Means(
            interpreter=parts.interpreter,
            policy=parts.policy,
            catalog=parts.tools.catalog,
            named=self._checks.named,
            key=parts.key,
            limits=limits_of(config),
            owners={name: agent.owner for name, agent in config.agents.items()},
            parents=parents_of(config),
            types=self._checks.types,
            check=self._checks.check_again,
        )
        self._worker = Worker(
            parts.store,
            means,
            parts.tools,
            parts.clock,
            slots=TURNS_PER_INTERPRETER * config.worker.interpreters,
            calls_max=config.worker.calls_in_flight,
            random=SystemRandom(),
        )
        self._starting = Starting(config, parts, self._checks, self._worker.begin)
        self.auditing = Auditing(config.audit, parts.audit, parts.audit_keeping)
        """What was done here."""
        self.models = parts.models
        """Model calls: who may make them, and what they cost."""
        self._outbox = Outbox(parts.models.file, parts.audit_keeping, means.owners)
        self.models.rung = self._outbox.ring
        self._goals = Goals(config, parts, self.models, self._starting)
        parts.sources.discovery.begin, parts.sources.discovery.reply = self._starting.begin, self._goals.reply
        self.models.purses = self._goals.purses
        self.governance = Governance(
            config, parts.store, parts.registry, self._worker, means, parts.clock, self.models, self.auditing.ring
        )
        """Who may act here, and what stops them."""
        self.inbox = Inbox(parts.store, self._worker, self.resolve)
        """What people are asked."""
        self.access = Access(parts.tokens, parts.clock)
        """Who may ask from elsewhere."""
        self.rulebook = Rulebook(config, parts, self._checks.reached)
        """What agents may do, and why."""
        self.webhooks = Webhooks(
            config.webhooks, parts.deliveries, parts.senders, parts.store, parts.schedules, parts.clock, SystemRandom()
        )
        """Whom it tells of what happens here."""
        self.schedules = Scheduling(parts, self)
        """What begins by the calendar."""
        self.hooks = Hooks(parts.key, parts.vault.read)
        """Where others may tell runs something."""
        self.repeats = Repeats(parts.requests)
        """What was asked before, under a key."""
        self.mint = parts.mint
        """What agents show of themselves elsewhere."""
        self.issuing = Issuing(parts.mint, parts.audit_keeping, parts.issuer_place)
        """With which key it is signed."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        home: Path,
        *,
        is_worker: bool = True,
        clock: Clock | None = None,
        importing: Callable[[str], None] | None = None,
    ) -> "AsyncGenerator[App]":
        """Open a home, alone, and work on its runs until the block is left.

        Args:
            home: the directory; made if it does not exist.
            is_worker: False: only read and write the store; programs are started but nobody runs them yet.
            clock: the machine's if None.
            importing: told the name of each service whose import begins.

        Raises:
            HomeError: it is held by another process, too new, damaged or full.
            ConfigInvalid: `overwinter.toml` beside it cannot be used.
            JailUnavailable: the interpreter's workers cannot be jailed.
        """
        clock = clock or SystemClock()
        async with AsyncExitStack() as stack:
            place: Home = stack.enter_context(open_home(home))
            config = load(place.config_path)
            parts = await stack.enter_async_context(
                open_parts(
                    place,
                    config,
                    clock,
                    directory=place.config_path.parent,
                    is_eager=is_worker,
                    importing=importing or (lambda _: None),
                )
            )
            async with cls(config, parts).at_work(is_worker=is_worker) as app:
                yield app

    @asynccontextmanager
    async def at_work(self, *, is_worker: bool = True, drain_s: float = DRAIN_S) -> "AsyncGenerator[App]":
        """Work on the runs of the store until the block is left; then let calls in flight end, and stop.

        Args:
            is_worker: whether to take turns and perform calls at all.
            drain_s: how long to wait for turns and calls under way; what is left is found again at the next start.
        """
        failure: BaseException | None = None
        is_worker = is_worker and not self.auditing.log.fault
        if not self.auditing.log.fault:  # what is declared otherwise by now would be an entry
            await self.governance.enrol()
        await self.models.recover()
        await self._outbox.empty()
        await self.webhooks.subscribe()
        await self.rulebook.open()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._outbox.run)
                group.start_soon(self.models.run)
                if is_worker:
                    group.start_soon(self._worker.run)
                    group.start_soon(self._goals.run)
                    group.start_soon(self._retain)
                    group.start_soon(self.governance.run)
                    group.start_soon(self.auditing.run)
                    group.start_soon(self.webhooks.run)
                    group.start_soon(self.schedules.run)
                try:
                    yield self
                except Exception as error:  # noqa: BLE001 - raised below as itself, not in the task group's wrapping
                    failure = error
                finally:
                    if is_worker:
                        with anyio.CancelScope(shield=True), anyio.move_on_after(drain_s):
                            await self._worker.drain()
                    group.cancel_scope.cancel()
                    with anyio.CancelScope(shield=True), anyio.move_on_after(drain_s), suppress(HomeError):
                        await self._outbox.empty()
        except* OverwinterError as errors:
            failure = first_of(errors)
        if failure is not None:  # raised here: before Python 3.11.4, what is raised in `except*` is wrapped anew
            raise failure from None

    @property
    def catalog(self) -> Catalog:
        """Return the functions that programs can call."""
        return self._parts.tools.catalog

    # --- Programs ----------------------------------------------------------------------------------------------------

    async def check(
        self,
        source: str,
        *,
        agent: str = "default",
        inputs: Mapping[str, Value] | None = None,
        after: str | None = None,
    ) -> Sequence[Finding]:
        """Return what is wrong with a program, where it goes on from a run if it does; nothing runs."""
        self._agent(agent)
        inherited = None if after is None else await self._starting.inherited(after, agent)
        return await self._checks.check(source, agent, inputs or {}, inherited)

    async def start(  # noqa: PLR0913 - what a run begins with
        self,
        source: str | None = None,
        *,
        goal: str | None = None,
        agent: str = "default",
        name: str = "",
        inputs: Mapping[str, Value] | None = None,
        dedup: str | None = None,
        by: str = "",
        only_reads: bool = False,
        keeps: bool = False,
        **limits: Unpack[Limited],
    ) -> str:
        """Check a program and make a run of it, or have a model work at a goal; return the run's id.

        Args:
            source: the program.
            goal: what is to be reached, in words; instead of a program.
            limits: of a goal: `model`, `steps`, `usd`, `seconds`, and `after`, the run that it goes on from; see `Starting.goal`.
            keeps: another run may go on with its variables, see `after`.
            only_reads: no call of the program may change anything, whatever the agent may do.
            agent: under whose identity it acts.
            name: for people.
            inputs: variables that the program starts with.
            dedup: a second start with the same key returns the first one's run.
            by: who starts it.

        Raises:
            CheckFailed: the program is wrong; nothing ran, and no run was made.
            NotFound: there is no such agent.
        """
        if (source is None) == (goal is None):
            raise UsageError("'source' is missing, or 'goal', or both are given: a run begins with one of the two")
        self._agent(agent)
        if goal is not None:
            return await self._starting.goal(goal, agent=agent, name=name, dedup=dedup, by=by, **limits)
        return await self._starting.program(
            source or "",
            agent=agent,
            name=name or "program",
            inputs=inputs or {},
            dedup=dedup,
            by=by,
            only_reads=only_reads,
            after=limits.get("after"),
            keeps=keeps,
        )

    async def check_start(self, start: Mapping[str, Any], agent: str) -> None:
        """Raise what `start` would for a program or a goal, and begin nothing."""
        self._agent(agent)
        await self._starting.examine(start, agent)

    async def result(self, run_id: str, timeout_s: float | None = None) -> RunRecord:
        """Wait until a run has ended, is quarantined or its agent is revoked, and return it; after `timeout_s` as it stands."""
        await self.run(run_id)  # there is one
        with anyio.move_on_after(timeout_s):
            await self._store.over(run_id)
        return await self.run(run_id)

    def now_us(self) -> int:
        """Return this instant, by the clock of the home."""
        return self._clock.now_us()

    def key_for(self, purpose: str) -> bytes:
        """Return a key of this home for one purpose; neither the home's own nor that of another follows from it."""
        return hmac.digest(self._parts.key, f"overwinter {purpose}".encode(), "sha256")

    def pulse(self) -> Pulse:
        """Return what the worker does at this moment."""
        return self._worker.pulse()

    async def committed(self, run_id: str, since: int) -> None:
        """Return when the run's journal has an event at position `since`."""
        await self._store.watch(run_id, since)

    async def events(self, run_id: str, *, since: int = 0, is_following: bool = False) -> AsyncIterator[Event]:
        """Yield a run's journal from position `since` on; following, until the run has ended or is quarantined."""
        while True:
            run = await self.run(run_id)
            page = await self._store.journal(run_id, since, EVENTS_AT_ONCE)
            for event in page:
                since = event.position + 1
                yield event
            if page:
                continue
            if not is_following or run.status is not Status.LIVE or run.is_revoked:
                return
            await self._store.watch(run_id, since)

    async def _retain(self) -> None:
        """Delete runs, bodies and tree heads that are older than `[retention]` keeps them, a little at a time.

        Answers in the background that nobody asked for are booked here too.
        """
        retention = self.config.retention
        while True:
            now_us = self._clock.now_us()
            try:
                found = await self._store.collect(now_us - round(retention.ended_days * DAY_US), limit=COLLECT_MAX)
                bodies = await self.auditing.forget(now_us - round(retention.audit_body_days * DAY_US))
                heads = await self.auditing.thin(now_us)
                await self.models.expire()
                pause_us = COLLECT_PAUSE_US if found.runs < COLLECT_MAX and not (bodies or heads) else SECOND_US
            except HomeError:
                pause_us = COLLECT_PAUSE_US  # the disk is in trouble: this is the least of it
            await self._clock.sleep_until(self._clock.now_us() + pause_us)

    # --- Looking -----------------------------------------------------------------------------------------------------

    async def resolve(self, text: str) -> str:
        """Return the id of the run that `text` names: a whole id, or the last letters of one.

        Raises:
            NotFound: no run has it.
            UsageError: several have it, or it is shorter than four letters.
        """
        wanted = text.strip().upper()
        if len(wanted) < TAIL_MIN:
            raise UsageError(f"{text!r} is too short to name a run: give at least {TAIL_MIN} letters of its id's end")
        if len(wanted) == ID_LENGTH and not set(wanted) - set(ALPHABET) and wanted[0] < "8":  # an id has 128 bits
            await self.run(wanted)
            return wanted
        found = await self._store.find(wanted)
        if not found:
            raise NotFound(f"there is no run {text!r}: `overwinter ps --all` lists them")
        if len(found) > 1:
            raise UsageError(f"{text!r} names {len(found)} runs: {', '.join(found)}; give more letters")
        return found[0]

    async def run(self, run_id: str) -> RunRecord:
        """Return one run.

        Raises:
            NotFound: there is none.
        """
        run = await self._store.run(run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id!r}: `overwinter ps --all` lists them")
        return run

    async def runs(self, page: Page) -> Sequence[RunRecord]:
        """Return runs, newest first."""
        return await self._store.runs(page)

    async def reasons(self, runs: Sequence[RunRecord]) -> Mapping[str, str]:
        """Return of each run one sentence that says why it stands where it stands."""
        live = [run.run_id for run in runs if run.status is Status.LIVE]
        waits, now_us = await self._store.foremost(live), self._clock.now_us()
        nothing: tuple[CallRecord | None, int] = (None, 0)
        found: dict[str, str] = {}
        for run in runs:
            call, count = waits.get(run.run_id, nothing)
            found[run.run_id] = journal.reason(run, () if call is None else (call,), now_us, count=count)
        return found

    async def counts(self) -> Mapping[Status, int]:
        """Return how many runs stand where."""
        return await self._store.counts()

    async def calls(self, run_id: str) -> Sequence[CallRecord]:
        """Return a run's open calls."""
        return await self._store.calls(run_id)

    async def source(self, run_id: str) -> str:
        """Return a run's program."""
        run = await self.run(run_id)
        return await self._store.program(run.program_digest) or ""

    async def read(self, handle: str, path: str = "", *, characters_max: int | None = CHARACTERS_MAX) -> Value:
        """Return a value by its handle, or the part of it that a path names, cut to a budget; see `excerpt`.

        Args:
            handle: `RUN` for a run's result, `RUN:out` for what it printed, `RUN:3` for a call's answer; also the last
                letters of the run's id.
            path: such as `items[20:40].name`.
            characters_max: of its JSON text; None: whole, as a program would get it.

        Raises:
            NotFound: there is no such value.
            UsageError: the handle or the path is none.
        """
        tail, colon, place = handle.partition(":")
        handle = f"{await self.resolve(tail)}{colon}{place}"
        try:
            value = await self._parts.handles.read(handle, path)
        except LookupError as error:
            raise NotFound(str(error)) from error
        except ValueError as error:
            raise UsageError(str(error)) from error
        return (
            value if characters_max is None else excerpt(value, handle=handle, path=path, characters_max=characters_max)
        )

    async def questions(self, run_id: str | None = None) -> Sequence[CallRecord]:
        """Return what people are asked, oldest first."""
        return await self._store.questions(run_id)

    async def starter(self, run_id: str) -> Mapping[str, str]:
        """Return who started a run, as `by`; nothing if that is not known."""
        (created, *_) = await self._store.journal(run_id, 0, 1)
        return {"by": created.body["by"]} if "by" in created.body else {}

    def reason(self, run: RunRecord, calls: Sequence[CallRecord]) -> str:
        """Return one sentence that says why a run stands where it stands."""
        return journal.reason(run, calls, self._clock.now_us())

    async def warnings(self, run: RunRecord) -> Sequence[Finding]:
        """Return what the check doubts in the program of a run that failed, what stands at that line first; of others nothing.

        It knows by now what this very run's calls answered: see `catalog.seen`.
        """
        if run.status is not Status.FAILED:
            return ()
        source, (created,) = await self.source(run.run_id), await self._store.journal(run.run_id, 0, 1)
        try:
            inherited = await self._store.inherited(after) if (after := created.body.get("after")) else None
            findings = await self._checks.check(source, run.agent, created.body["inputs"], inherited)
        except OverwinterError:  # there is no jail to check in: what failed is shown all the same
            return ()
        line, doubts = run.result.get("line"), [each for each in findings if not each.is_certain]
        return sorted(doubts, key=lambda each: (each.line != line, each.line))[:WARNINGS_MAX]

    # --- Acting ------------------------------------------------------------------------------------------------------

    async def send(self, run_id: str, message: Value, *, dedup: str | None = None, by: str = "") -> bool:
        """Send a message that a `tools.receive` of the run returns. False: the same `dedup` was sent before.

        Raises:
            Conflict: the run has ended.
            UsageError: its mailbox is full, or the message is no plain data.
        """
        match await self._store.send(run_id, message, dedup=dedup, by=by):
            case Sent.SENT:
                return True
            case Sent.DUPLICATE:
                return False
            case Sent.FULL:
                raise UsageError(f"run {run_id} has too many messages pending: wait until it has received some")
            case Sent.GONE:
                run = await self.run(run_id)
                raise Conflict(f"run {run_id} has ended ({run.status.name.lower()}): nothing reads its messages")
            case Sent.REVOKED:
                raise Revoked(f"the agent of run {run_id} was revoked: no message reaches it")

    def hook(self, run_id: str) -> str:
        """Return the path at which anybody may send a run a message, as long as it is live; whoever has it needs no token."""
        return self.hooks.path(run_id)

    async def question(self, question: str) -> CallRecord:
        """Return what a person is asked; see `Inbox.question`."""
        return await self.inbox.question(question)

    async def answer(self, question: str, answer: str, *, by: str | Actor, dedup: str | None = None) -> None:
        """Answer a question; see `Inbox.answer`."""
        await self.inbox.answer(question, answer, by=by, dedup=dedup)

    async def cancel(self, run_id: str, *, by: str, reason: str = "", dedup: str | None = None) -> bool:
        """End a run now: its program is stopped, its calls in flight are cancelled. False: it had ended.

        What is already on the wire may still be carried out; the journal shows which calls had been started. A second
        time with the same `dedup` is the first one again.
        """
        await self.run(run_id)
        event = Event(kind="cancelled", body={"by": by, "reason": reason})
        below = await self._store.descendants(run_id)
        is_ended = await self._store.end(run_id, Status.CANCELLED, event, dedup=dedup and f"cancel {dedup}")
        for each in (run_id, *below):
            await self._worker.interrupt(each)
        return is_ended

    async def release(self, run_id: str, *, by: str, dedup: str | None = None) -> None:
        """Make a quarantined run live again; a second time with the same `dedup` is the first one again.

        Raises:
            Conflict: it is not quarantined.
        """
        run = await self.run(run_id)
        event = Event(kind="released", body={"by": by})
        if not await self._store.release(run_id, event, dedup=dedup and f"release {dedup}"):
            raise Conflict(f"run {run_id} is not quarantined: it is {run.status.name.lower()}")

    async def collect(self, *, older_than_s: float) -> Collected:
        """Delete runs that ended longer ago than this, with their journals."""
        return await self._store.collect(self._clock.now_us() - round(older_than_s * SECOND_US))

    # --- Tools -------------------------------------------------------------------------------------------------------

    def sources(self) -> Sequence[Source]:
        """Return the services of the home, with what was wrong in their descriptions."""
        return self._parts.sources.listed()

    def brief(self, *, agent: str = "default") -> str:
        """Return what a model is told before its first program under an agent's identity."""
        self._agent(agent)
        return brief(self._parts.sources.discovery.counts(agent))

    def search(
        self, query: str, *, agent: str = "default", service: str | None = None, limit: int = 8
    ) -> Sequence[Hit]:
        """Return the functions that fit a query best, among those that an agent may call."""
        self._agent(agent)
        return self._parts.sources.discovery.search(agent, query, service, limit)

    def browse(self, prefix: str, *, agent: str = "default", limit: int = 100) -> Sequence[Hit]:
        """Return the functions whose full names begin so."""
        self._agent(agent)
        return self._parts.sources.discovery.browse(agent, prefix, limit)

    def describe(self, names: Sequence[str], *, agent: str = "default") -> str:
        """Return stubs of functions or types, as a program gets them."""
        self._agent(agent)
        return self._parts.sources.discovery.describe(agent, names)

    async def refresh(self, service: str | None = None) -> Refreshed:
        """Import described services anew, or one; what was imported before of one that fails stays.

        Raises:
            NotFound: there is no such service.
        """
        if service is not None and service not in self.config.services:
            raise NotFound(f"there is no service {service!r} in overwinter.toml")
        return await self._parts.sources.refresh(service)

    def pins(self, *, is_different: bool = True) -> Iterator[Pin]:
        """Yield the names that functions were given; only those whose definition changed or went, if not told otherwise."""
        return self._parts.sources.file.pins(is_different=is_different)

    def accept(self, names: Sequence[str]) -> int:
        """Accept the present definitions of functions; return how many had changed or gone."""
        return self._parts.sources.file.accept(names, self._clock.now_us())

    async def health(self) -> Mapping[str, Value]:
        """Return what `doctor` shows: what this home is and how it does."""
        pulse = self._worker.pulse()
        return {
            "engine": self._parts.interpreter.engine,
            "runs": {status.name.lower(): count for status, count in (await self.counts()).items()},
            "epoch": pulse.epoch,
            "turns": pulse.turns,
            "queued": pulse.queued,
            "busy": pulse.busy,
            "calls_in_flight": pulse.in_flight,
            "interpreters": self.config.worker.interpreters,
            "interpreters_busy": self._parts.interpreter.busy,
            "functions": sum(len(module.functions) for module in self._parts.tools.catalog.modules.values()),
            "questions": await self._store.asked(),
            "rules_fault": self.rulebook.fault,
            "log_fault": self.auditing.log.fault,
            "is_outdated": self.rulebook.is_outdated,
        }

    def _agent(self, name: str) -> None:
        if name not in self.config.agents:
            known = ", ".join(sorted(self.config.agents))
            raise NotFound(f"there is no agent {name!r} in overwinter.toml; there are: {known}")
        self.rulebook.refuse_unread()
