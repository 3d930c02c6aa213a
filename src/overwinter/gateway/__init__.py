"""THE GATEWAY: the one layer that every model call passes, from our own programs and from any other client.

    asked ─► policy ─► redaction ─► kept answer? ─► RESERVE ─► provider, another try, another provider ─► answer
              no: 403    block: 403   yes: free      no: 402     until something has come                   │
                                                        SETTLE, exactly once, whatever has happened ◄────────┘

Policy is asked before a kept answer is given: a cached answer is an answer. The reservation is one transaction over every
budget, so what is spent and held never passes a limit. Bytes go through as they came, in both directions; the gateway looks at
them to learn what was used and how the answer ended.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

import anyio
import anyio.lowlevel
import anyio.to_thread

from overwinter.clock import SECOND_US, Clock
from overwinter.errors import OverwinterError
from overwinter.frozen import frozen, replace
from overwinter.gateway.answers import Answers, Kept
from overwinter.gateway.attempts import Attempts, Job, Restore
from overwinter.gateway.background import goes_on
from overwinter.gateway.budget import Ledger, Line
from overwinter.gateway.cache import (
    Flights,
    cache_key,
    call_key,
    is_keepable,
    is_remembering,
    is_steady,
    request_digest,
    young,
)
from overwinter.gateway.caller import Caller, Collected, Sink
from overwinter.gateway.cleaning import Cleaned, Cleaner
from overwinter.gateway.dialect import Asked, Dialect, DialectName
from overwinter.gateway.money import Accounts, Allowance
from overwinter.gateway.prices import Prices
from overwinter.gateway.refusal import ModelRefused, Refusal
from overwinter.gateway.routes import Breaker, Routes, Target
from overwinter.gateway.similar import KNOWN_MAX, Known, Similars, nearest, question, vector_in
from overwinter.gateway.translation import Translations, able, left_out
from overwinter.gateway.upstream import Upstream
from overwinter.policy import Allow, Ask, Decision, Deny, Policy, Resource

__all__ = ["Caller", "Cleaned", "Cleaner", "Cutting", "Gateway", "Settings", "Sink"]

CUT_S_MAX = 1.0
"""How long to wait for calls that were cut."""
NOTED = frozenset({"denied", "revoked", "budget", "unpriced", "rate", "confidential", "repeated"})
"""What is written down of calls that held nothing: whatever somebody decided. A request that has no meaning is not."""
SAY_S_MAX = 0.25
"""How long the client of a call that was cut may take to hear so."""
CALL_S_MAX = 3_600.0
"""How long a call may take in all: a provider that says a word now and then holds money and a connection."""
BOOKS_RETRY_S = 5.0


@frozen
class Settings:
    """`[gateway]`: what holds for every call."""

    cache_s: float = 3_600.0
    named_s: float = 86_400.0
    """How long the answer of a named call is kept for whoever asks for it again."""
    similar_model: str = ""
    """The embedding model that says which questions mean the same; "": none are compared."""
    similar_min: float = 0.97
    """The least cosine of two questions that mean the same."""
    version: str = ""
    """Of the rules of redaction: with other ones, other keys."""


@dataclass(slots=True, eq=False)
class _UnderWay:
    caller: Caller
    sink: Sink
    """Who gets the answer: one of a name goes on when another of it leaves."""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    began_s: float = field(default_factory=time.monotonic)
    why: str = ""
    """Why it was cut; "": its client left, or it took too long."""
    has_left: bool = False
    is_told: bool = False
    """Whether its client knows that it was stopped."""
    ended: anyio.Event = field(default_factory=anyio.Event)

    @property
    def status(self) -> str:
        """Return how a call ended that was stopped."""
        return "revoked" if self.why else "gone" if self.has_left else "timeout"

    @property
    def refusal(self) -> Refusal | None:
        """Return what its client is told; None: nobody listens."""
        if self.why:
            return Refusal(why="revoked", message=self.why)
        message = f"the answer took longer than {CALL_S_MAX:g} s"
        return None if self.has_left else Refusal(why="timeout", message=message)


@dataclass(slots=True, kw_only=True)
class _Call:
    """What is known of one call while it is under way."""

    asked: Asked
    caller: Caller
    dialect: Dialect
    method: str
    sink: Sink
    line: Line
    under_way: _UnderWay
    found: Counter[str] = field(default_factory=Counter[str])
    """How often each confidential class was found."""
    is_held: bool = False
    """Whether it has a line in the ledger that must be settled."""
    about: Line | None = None
    """The call that made the answer which this one is about."""
    job: Job | None = None
    has_begun: bool = False
    """The client has got the beginning of an answer."""
    is_over: bool = False
    """It has got all of it, or is getting it."""


@frozen(kw_only=False)
class Cutting:
    """Calls that are being stopped."""

    count: int
    _ended: Sequence[anyio.Event]

    async def ended(self) -> int:
        """Wait until none of them does anything any more, and return how many there were."""
        with anyio.move_on_after(CUT_S_MAX):
            for each in self._ended:
                await each.wait()
        return self.count


@frozen
class _Like:
    """A question, and the answer to one like it."""

    frame: bytes
    vector: bytes
    kept: Kept | None
    score: float


class Gateway:
    """Answers model calls."""

    def __init__(  # noqa: PLR0913 - a composition root names each part once
        self,
        *,
        routes: Routes,
        dialects: Mapping[DialectName, Dialect],
        policy: Policy,
        cleaner: Cleaner,
        answers: Answers,
        similars: Similars,
        ledger: Ledger,
        prices: Prices,
        upstream: Upstream,
        clock: Clock,
        random: Random,
        secret: bytes,
        settings: Settings,
        may_act: Callable[[str], bool],
        translations: Translations | None = None,
    ) -> None:
        self.routes, self.breaker = routes, Breaker()
        self._dialects, self._policy, self.cleaner = dialects, policy, cleaner
        self._answers, self._similars, self._clock = answers, similars, clock
        self._accounts = Accounts(ledger, prices, clock)
        self._secret, self._settings = secret, settings
        self._may_act = may_act
        """Whether an agent is active at this moment."""
        self.ended: Callable[[Line], None] = lambda _: None
        """Told each line once it is settled."""
        self._translations = translations or {}
        self._attempts = Attempts(upstream, self.breaker, clock, random, self._translations)
        self._flights = Flights()
        self._under_way = set[_UnderWay]()

    @property
    def pauses(self) -> Sequence[int]:
        """Return the instants until which calls wait to be tried again."""
        return self._attempts.pauses

    async def answer(self, asked: Asked, caller: Caller, sink: Sink, *, method: str = "POST") -> Line:
        """Answer a call, and return its line in the ledger. Whatever goes wrong is said to the sink, in the client's dialect."""
        under_way = _UnderWay(caller, sink)
        call = _Call(
            asked=asked,
            caller=caller,
            dialect=self._dialects[asked.dialect],
            method=method,
            sink=sink,
            line=self._line(asked, caller),
            under_way=under_way,
        )
        self._under_way.add(under_way)
        with under_way.scope:
            try:
                await self._booked(call)
            finally:
                call.job = None  # it knows the call: a ring of the two would keep a megabyte until the next collection
                self._under_way.discard(under_way)
                under_way.ended.set()
        return call.line

    async def _booked(self, call: _Call) -> None:
        """Answer a call and settle it, whatever happens."""
        is_answered = False
        try:
            await self._said(call)
            is_answered = True
            # Most calls are settled here. A shield around it costs as much as the settlement, and whoever is cancelled in it
            # settles again, which changes nothing.
            await self._settle(call)
        except BaseException as error:
            is_cancelled = isinstance(error, anyio.get_cancelled_exc_class())
            try:
                if is_cancelled and not is_answered:
                    await self._stopped(call)
            finally:
                if is_cancelled or not is_answered:
                    with anyio.CancelScope(shield=True):
                        await self._settle(call)
            raise

    async def _said(self, call: _Call) -> None:
        """Answer a call, or say why not."""
        try:
            await self._answer(call)
        except ModelRefused as error:
            call.line = replace(call.line, status=call.line.status or error.refusal.why)
            await self._say(call, error.refusal)
        except OverwinterError:
            # Doubt means deny. What the trouble is stands in the operator's log, not in a stranger's answer.
            call.line = replace(call.line, status="failed")
            message = "the gateway cannot keep its books at the moment: ask again later"
            await self._say(call, Refusal(why="overloaded", message=message, retry_after_s=BOOKS_RETRY_S))

    def stop_overdue(self, now_s: float) -> None:
        """Stop calls that have taken `CALL_S_MAX` by an instant of `time.monotonic`: one look for all costs less than their timers."""
        for each in self._under_way:
            if now_s - each.began_s > CALL_S_MAX:
                each.scope.cancel()

    def cut(self, concerns: Callable[[Caller], bool], why: str) -> "Cutting":
        """Begin to stop the calls under way that this concerns; each client is told in its dialect."""
        found = [each for each in self._under_way if concerns(each.caller)]
        for each in found:
            each.why = why
            each.scope.cancel()  # in this very step: one that is about to ask its provider must not
        return Cutting(len(found), [each.ended for each in found])

    def leave(self, sink: Sink) -> None:
        """Stop the call under way whose client has left: what it used until now is estimated. Another of its name goes on."""
        for each in self._under_way:
            if each.sink is sink:
                each.has_left = True
                each.scope.cancel()

    @property
    def under_way(self) -> int:
        """Return how many calls are under way."""
        return len(self._under_way)

    # --- The steps ---------------------------------------------------------------------------------------------------

    async def _answer(self, call: _Call) -> None:
        if call.asked.answer_id:
            await self._again(call)
            return
        targets = self._permitted(call, call.asked)
        cleaned = await self.cleaner.clean(call.asked, call.caller, call.dialect, call.found)
        call.asked = cleaned.asked
        call.line = replace(call.line, digest=request_digest(call.asked).hex())
        if await self._repeated(call, cleaned.restore):
            return
        key = self._key(call, targets)
        kept = None if key is None else young(await self._answers.find(key), call.caller.cache_s, self._clock.now_us())
        if key is not None and kept is None and is_steady(call.asked, is_opted_in=call.caller.cache_s is not None):
            kept = await self._flights.join(key)
        if isinstance(kept, Kept):
            await self._give(call, kept, cleaned, "hit")
            return
        fresh, is_given_up = None, True
        try:
            like = None if key is None else await self._like(call, targets)
            if like is not None and like.kept is not None:
                await self._give(call, like.kept, cleaned, f"similar; cosine={like.score:.4f}")
                return
            fresh = await self._fresh(call, targets, cleaned, key)
            if like is not None and fresh is not None and key is not None:
                until_us = fresh.made_us + round(self._kept_s(call.caller) * SECOND_US)
                await self._similars.learn(like.frame, Known(key, like.vector), until_us=until_us)
            is_given_up = False
        except ModelRefused:
            is_given_up = False
            raise
        finally:
            if kept is not None:
                self._flights.land(kept, fresh, is_given_up=is_given_up)

    async def _like(self, call: _Call, targets: Sequence[Target]) -> "_Like | None":
        """Return what is known of questions like this one; None: it is not compared with others."""
        caller, model = call.caller, self._settings.similar_model
        is_compared = caller.is_similar and call.asked.operation == "generate" and not call.found
        # Two people's questions may mean the same, and be answered with the address of one of them.
        asking = question(call.asked) if is_compared and model else None
        if asking is None:
            return None
        frame = self._key_of(asking.frame, caller, targets)
        vector = await self._vector(asking.text, caller, model)
        if vector is None:
            return None
        known = await self._similars.known(frame, KNOWN_MAX)
        found = await anyio.to_thread.run_sync(nearest, vector, known)  # 50 ms for as many as may be: not on the loop
        is_like = found is not None and found[1] >= self._settings.similar_min
        kept = await self._answers.find(found[0].answer) if found is not None and is_like else None
        kept = young(kept, call.caller.cache_s, self._clock.now_us())
        return _Like(frame=frame, vector=vector, kept=kept, score=found[1] if found is not None else 0.0)

    async def _vector(self, text: str, caller: Caller, model: str) -> bytes | None:
        """Ask what a question means, as a call of the caller's own; None: nobody says."""
        body = json.dumps({"model": model, "input": text}, ensure_ascii=False).encode("utf-8", "surrogatepass")
        sink = Collected()
        try:
            asked = self._dialects["embeddings"].read("POST", "/v1/embeddings", {}, body)
            named = replace(caller, call=f"{caller.call}~like", is_named=False, is_similar=False)
            await self.answer(asked, named, sink)
            return vector_in(b"".join(sink.parts)) if sink.status == 200 else None  # noqa: PLR2004 - RFC 9110, 15.3.1
        except (ModelRefused, ValueError):
            return None

    async def _again(self, call: _Call) -> None:
        """Ask the provider of an answer for it again, or for its end. It has no line of its own, and costs nothing.

        Raises:
            ModelRefused: no such answer was made for this agent, or the rules of this moment do not let it have it.
        """
        asked, caller = call.asked, call.caller
        line = await self._accounts.answered(asked.answer_id, caller.principal.agent)
        if line is None:
            message = f"no answer {asked.answer_id!r} was made for agent {caller.principal.agent!r}"
            raise ModelRefused(Refusal(why="unknown-answer", message=message))
        maker = (line.upstream, line.priced_model)
        targets = [
            each
            for each in self._permitted(call, replace(asked, model=line.model))
            if (each.provider.name, each.model) == maker
        ]
        if not targets:
            message = f"{line.model} is not answered by {' '.join(maker)} any more, which has {asked.answer_id}"
            raise ModelRefused(Refusal(why="unknown-answer", message=message))
        cleaned = await self.cleaner.clean(asked, caller, call.dialect, call.found)
        call.about = line
        call.job = Job(
            asked=cleaned.asked, method=call.method, targets=targets[:1], dialect=call.dialect, sink=call.sink,
            restore=cleaned.restore, stopped=partial(self._stopped, call),
        )  # fmt: skip
        await self._attempts.run(call.job)

    def permitted(self, caller: Caller, models: Sequence[str]) -> list[str]:
        """Return those of some models that a caller may ask."""
        return [
            each for each in models if isinstance(self._decided(caller, self.routes.of(each).targets[0], each), Allow)
        ]

    def _permitted(self, call: _Call, asked: Asked) -> Sequence[Target]:
        """Return the targets that the rules allow for this caller, in order.

        Raises:
            ModelRefused: the model is not known, its provider does not speak the dialect, or no rule allows it.
        """
        caller = call.caller
        if not all(map(self._may_act, caller.principal.chain)):
            raise ModelRefused(Refusal(why="revoked", message=f"agent {caller.principal.agent!r} was revoked"))
        route = self.routes.one(asked.model)
        first, *others = [
            (each, asked.model if not number else each.declared.name) for number, each in enumerate(route.targets)
        ]
        decision = self._decided(caller, *first)
        call.line = replace(call.line, rules=self._policy.version, policies=decision.policies)
        match decision:
            case Allow():
                pass
            case Deny(reason=reason):
                raise ModelRefused(Refusal(why="denied", message=reason))
            case Ask(reason=reason):
                message = (
                    f"{reason}: nobody waits for {decision.approver} here, so no model call is let through by a yes"
                )
                raise ModelRefused(Refusal(why="denied", message=message))
        allowed = [first[0], *(each for each, name in others if isinstance(self._decided(caller, each, name), Allow))]
        found = able(asked, allowed, self._translations)
        if not found:
            message = f"{asked.model} is answered by {first[0].provider.name}, which does not speak {asked.dialect}"
            raise ModelRefused(Refusal(why="unsupported", message=message))
        return found

    def _decided(self, caller: Caller, target: Target, name: str) -> Decision:
        provider = target.provider
        resource = Resource(
            name=name, provider=provider.name, region=provider.region, retention=provider.retention, data=caller.data
        )
        return self._policy.decide(caller.principal, "think", resource, {})

    def _key(self, call: _Call, targets: Sequence[Target]) -> bytes | None:
        """Return the key under which an answer may be kept; None: it may not be."""
        caller, asked = call.caller, call.asked
        if (
            not caller.is_cached
            or caller.is_unlogged
            or asked.operation not in ("generate", "embed")
            or asked.is_background
            or is_remembering(asked)
        ):
            return None
        return self._key_of(asked, caller, targets)

    def _key_of(self, asked: Asked, caller: Caller, targets: Sequence[Target]) -> bytes:
        route = f"{targets[0].provider.name}/{targets[0].model}"
        version = f"{self._policy.version}/{self._settings.version}"
        return cache_key(asked, self._secret, tenant=caller.tenant, route=route, version=version)

    def _kept_s(self, caller: Caller) -> float:
        return self._settings.cache_s if caller.cache_s is None else caller.cache_s

    async def _repeated(self, call: _Call, restore: Restore) -> bool:
        """Give a named call the answer that it got before; False: it got none."""
        if not call.caller.is_named:
            return False
        kept = await self._answers.find(call_key(call.caller.call, self._secret))
        if kept is None:
            return False
        if kept.request != request_digest(call.asked):
            message = "this idempotency key came with another request before: take a new key for a new request"
            raise ModelRefused(Refusal(why="repeated", message=message))
        await self._replay(call, kept, restore, "hit")
        call.line = replace(call.line, state="settled", status="repeated", saved_nusd=0, cost_nusd=0)
        return True

    async def _give(self, call: _Call, kept: Kept, cleaned: Cleaned, how: str) -> None:
        """Answer with what was kept: free, but counted."""
        await self._reserve(call, 0)
        call.line = replace(
            call.line, status="cached", saved_nusd=kept.cost_nusd, cost_nusd=0, usage=kept.usage, upstream=kept.provider
        )
        await self._replay(call, kept, cleaned.restore, how)

    async def _replay(self, call: _Call, kept: Kept, restore: Restore, how: str) -> None:
        """Send a kept answer, as a stream or as JSON, whichever was asked."""
        dialect, asked = call.dialect, call.asked
        whole = kept.body
        if kept.is_stream:
            reader = dialect.reader(replace(asked, is_stream=True), is_stream=True)
            whole = dialect.whole(asked, [*reader.feed(kept.body), *reader.close()])
        whole = restore.whole(whole)
        media = "application/json"
        if asked.is_stream:
            media = "text/event-stream"
            whole = b"".join(each.wire for each in dialect.stream(asked, whole) if not each.is_usage_only)
        call.has_begun = True
        await call.sink.begin(200, {"content-type": media, "x-overwinter-cache": how})
        call.is_over = True
        await call.sink.write(whole)

    async def _fresh(self, call: _Call, targets: Sequence[Target], cleaned: Cleaned, key: bytes | None) -> Kept | None:
        """Ask providers; return the answer if it may be shared with others who ask the same."""
        caller, asked = call.caller, call.asked
        is_named = caller.is_named and not caller.is_unlogged
        bound = self._accounts.bound(asked, caller.budgets, targets[0])
        await self._reserve(call, bound.nusd)
        call.job = job = Job(
            asked=asked, method=call.method, targets=targets, dialect=call.dialect, sink=call.sink,
            output_tokens_max=bound.output_tokens_max, restore=cleaned.restore,
            limit=Allowance(self._accounts, asked, caller.budgets, call.line, bound.output_tokens_max), is_recorded=key is not None or is_named,
            stopped=partial(self._stopped, call),
        )  # fmt: skip
        done = await self._attempts.run(job)
        call.line = self._accounts.told(call.line, job.seen, status="refused" if done is None else "answered")
        if done is None or not job.record:
            return None
        kept = Kept(
            body=b"".join(job.record), is_stream=done.is_stream, usage=done.tap.used, cost_nusd=call.line.cost_nusd or 0,
            provider=done.target.provider.name, model=done.target.model, request=bytes.fromhex(call.line.digest),
            made_us=self._clock.now_us(),
        )  # fmt: skip
        if is_named and done.tap.is_whole:
            await self._keep(call_key(caller.call, self._secret), kept, self._settings.named_s)
        # What another than the first choice said is not for everybody: not all may ask that one.
        is_first, is_opted_in = done.target == targets[0], caller.cache_s is not None
        if key is None or not is_first or not is_keepable(asked, done.tap, kept.body, is_opted_in=is_opted_in):
            return None
        await self._keep(key, kept, self._kept_s(caller))
        return kept

    async def _reserve(self, call: _Call, nusd: int) -> None:
        caller = call.caller
        if caller.is_named and any(
            each.caller.call == caller.call and each.caller is not caller for each in self._under_way
        ):
            message = "a call with this idempotency key is under way: wait for it, and ask again"
            raise ModelRefused(Refusal(why="repeated", message=message, retry_after_s=1.0))
        call.line = await self._accounts.reserve(call.line, caller.budgets, nusd, is_named=caller.is_named)
        call.is_held = True

    async def _settle(self, call: _Call) -> None:
        under_way = call.under_way
        if under_way.scope.cancel_called and not call.line.status:
            call.line = replace(call.line, status=under_way.status)
        tries = call.job.seen if call.job is not None else ()
        if call.about is not None:
            with anyio.CancelScope(shield=True):  # whether this was the first to see the end is known once
                call.line, is_end = await self._accounts.see(call.about, tries)
                if is_end:
                    self.ended(call.line)
            return
        if call.is_held and goes_on(call.asked, tries):
            call.line = await self._accounts.wait(call.line, tries)
            return
        line = call.line
        if not call.is_held:
            if line.status in NOTED:
                # One of what was not redacted could be guessed at: of a form with one number in it, all are quickly tried.
                digest = line.digest or ("" if self.cleaner.is_changing else request_digest(call.asked).hex())
                state = "refused" if line.state == "held" else line.state
                call.line = replace(
                    line, state=state, digest=digest, cost_nusd=0, ended_us=self._clock.now_us(), found=dict(call.found)
                )
                await self._accounts.note(call.line)
                self.ended(call.line)
            return
        if line.cost_nusd is None:
            line = self._accounts.told(line, tries)
        # By its name the provider may give again what was said.
        is_nameless = call.caller.is_unlogged and not call.asked.is_background
        answer_id = "" if is_nameless else line.answer_id
        call.line = await self._accounts.settle(
            line, status=line.status or "failed", found=dict(call.found), answer_id=answer_id
        )
        if tries:
            hints = left_out(call.asked, tries[-1].target, self._translations)
            call.line = replace(call.line, left_out=hints) if hints else call.line
        self.ended(call.line)

    async def _keep(self, key: bytes, kept: Kept, seconds: float) -> None:
        await self._answers.keep(key, kept, until_us=kept.made_us + round(seconds * SECOND_US))

    def _line(self, asked: Asked, caller: Caller) -> Line:
        principal = caller.principal
        return Line(
            call=caller.call, began_us=self._clock.now_us(), agent=principal.agent, run_id=principal.run_id, key=caller.key,
            dialect=asked.dialect, upstream="", model=asked.model,
        )  # fmt: skip

    async def _stopped(self, call: _Call) -> None:
        """Tell the client of a call that was stopped, and let those of all others hear of it before this one goes on to its end."""
        under_way = call.under_way
        if under_way.is_told or not under_way.scope.cancel_called or under_way.refusal is None:
            return
        if call.is_over or (call.job is not None and call.job.is_over):
            return  # an answer is whole: whatever followed it would spoil it
        under_way.is_told = True
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + SAY_S_MAX):
            await self._say(call, under_way.refusal, is_last=True)
            await anyio.lowlevel.checkpoint()

    async def _say(self, call: _Call, refusal: Refusal, *, is_last: bool = False) -> None:
        """Tell the client; in its stream if it has got the beginning of an answer."""
        job = call.job
        if refusal.why == "partial" or (job is not None and job.is_handed_on):
            body = b""  # it was told where it happened
        elif call.has_begun or (job is not None and (job.has_begun or job.is_open)):
            body = call.dialect.broken(refusal, job.sent if job is not None and job.has_begun else ())
        else:
            wire = call.dialect.refused(refusal)
            await call.sink.begin(wire.status, wire.headers)
            body = wire.body
        if is_last:
            await call.sink.end(body)
        elif body:
            await call.sink.write(body)
