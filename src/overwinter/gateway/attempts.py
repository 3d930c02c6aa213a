"""One answer from providers: tries, other tries, other providers, until something has come; then that, to its end.

Before the first content a try can be given up and nobody has seen anything of it. From then on there is one ending: the
provider's own, or an error that the client's dialect has a form for. Clients do not notice when a stream just stops.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import anyio
import anyio.lowlevel

from overwinter.clock import SECOND_US, Clock
from overwinter.frozen import frozen, replace
from overwinter.gateway.caller import Sink
from overwinter.gateway.dialect import AnswerReader, Asked, Dialect, Event, Means, Text
from overwinter.gateway.heads import EVENTS, PAGE, after_s, handed_on, media_of, peeked
from overwinter.gateway.refusal import ModelRefused, Refusal, Why
from overwinter.gateway.restoring import Restorer
from overwinter.gateway.routes import Breaker, Target
from overwinter.gateway.tap import Tap
from overwinter.gateway.translation import Translation, Translations
from overwinter.gateway.translation import between as translation_between
from overwinter.gateway.upstream import Reply, Upstream, UpstreamFailed

__all__ = ["ANSWER_BYTES_MAX", "Attempts", "Done", "Job", "Limit", "Restore", "Seen"]

TRIES_MAX = 3
"""Of one target."""
PAUSE_S_MAX = 20.0
"""The longest pause that a provider may ask for before another try; a longer one is handed on to the client."""
ANSWER_BYTES_MAX = 64 << 20
QUIET_US_MAX = 10 * SECOND_US
"""After so long behind a provider's head a client is shown that it is not forgotten: proxies and programs give up after a minute of
silence, some after 30 s. Until then a failure has its own status."""
KEPT_BYTES_MAX = 8 << 20
"""A longer answer is handed on and not kept."""
ERROR_BYTES_MAX = 64 << 10
SAID_CHARACTERS_MAX = 2_000
SENT_MAX = 64
"""Events remembered of a stream: an ending says which block it ends."""
RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 520, 522, 524, 529})
MOVED, REFUSED = 300, 400
"""From which statuses on an answer is elsewhere, and is none (RFC 9110, 15.4 and 15.5)."""
UNKNOWN_KEY = 401
OURS = frozenset({UNKNOWN_KEY, 403})
"""The provider does not take the home's key, or, by the second one, perhaps not this request: the client can do nothing about it."""
WHYS: Mapping[str, Why] = {"timeout": "timeout", "forbidden": "misconfigured"}
"""Why nothing came back, by how the way to the provider failed."""


class Restore:
    """What is done to the texts of an answer on their way. This one does nothing; see `cleaning`."""

    __slots__ = ()

    def restorer(self) -> Restorer | None:
        """Return what one stream goes through, from its beginning on; None: it goes as it comes."""
        return None

    def whole(self, body: bytes) -> bytes:
        """Return a whole answer, changed as its texts would be."""
        return body


class Limit:
    """What more a call may spend; asked before a try that comes on top."""

    most_nusd = 0
    """The most that the next try may cost; 0: nobody has worked that out."""

    async def more(self, target: Target, tries: "Sequence[Seen]") -> bool:
        """Whether another try may be paid for.

        Args:
            target: of the next one.
            tries: those before, that may be billed.
        """
        del target, tries
        return True


@frozen(kw_only=False)
class Seen:
    """One try that a provider may bill."""

    target: Target
    tap: Tap
    most_nusd: int = 0
    """The most that it may cost; 0: no budget had that worked out."""


@dataclass(slots=True, kw_only=True)
class Job:
    """One call on its way."""

    asked: Asked
    method: str
    targets: Sequence[Target]
    dialect: Dialect
    sink: Sink
    output_tokens_max: int | None = None
    restore: Restore = field(default_factory=Restore)
    limit: Limit = field(default_factory=Limit)
    is_recorded: bool = False
    stopped: Callable[[], Awaitable[None]]
    """Called where a stream is stopped, before the connection to its provider is closed: its client hears of it first."""
    is_open: bool = False
    """The client has got the head of a stream and signs of life: nothing yet of what a provider said, so that another try may follow."""
    has_begun: bool = False
    """The client has got something of an answer."""
    is_over: bool = False
    """The client has got the last of it, or is getting it: nothing follows."""
    is_handed_on: bool = False
    """What it gets is a provider's own refusal, begun or on its way: no second answer follows it."""
    seen: list[Seen] = field(default_factory=list[Seen])
    record: list[bytes] = field(default_factory=list[bytes])
    """The answer as its provider gave it, if it is to be kept; empty if it was too long."""
    record_bytes: int = 0
    sent: list[Event] = field(default_factory=list[Event])
    """The last events, for an ending that follows on them."""

    def begin_again(self) -> None:
        """Forget what a try before this one brought: nobody has seen it, and it is no part of the answer."""
        self.record.clear()
        self.sent.clear()
        self.record_bytes = 0

    def keep(self, event: Event) -> None:
        """Record an event."""
        if not self.is_recorded:
            return
        self.record_bytes += len(event.wire)
        if self.record_bytes > KEPT_BYTES_MAX:
            self.is_recorded = False
            self.record.clear()
        else:
            self.record.append(event.wire)


@frozen
class Done:
    """A whole answer."""

    target: Target
    tap: Tap
    is_stream: bool


@frozen
class _Missed:
    """A try that brought nothing that a client has seen."""

    refusal: Refusal
    is_retried: bool
    is_fault: bool = True
    """Whether it tells against the provider."""
    is_ours: bool = False
    """Whether it is the home that may not ask: of what another provider of the chain said it tells nothing."""
    reply: tuple[int, Mapping[str, str], bytes] | None = None
    """The provider's own refusal, to be handed on as it is."""


class Attempts:
    """Gets answers from providers."""

    def __init__(
        self,
        upstream: Upstream,
        breaker: Breaker,
        clock: Clock,
        random: Random,
        translations: Translations | None = None,
    ) -> None:
        self._upstream, self._breaker, self._clock, self._random = upstream, breaker, clock, random
        self._translations = translations or {}
        self.pauses: list[int] = []
        """The instants until which calls wait to be tried again."""

    async def run(self, job: Job) -> Done | None:
        """Return how the call was answered; None: with a provider's own refusal, handed on as it came.

        Raises:
            ModelRefused: nobody answered; or somebody began to, which the client has been told in its stream.
        """
        missed: _Missed | None = None
        is_left_alone = False
        for number, target in enumerate(job.targets):
            # The hold is for the first one: another may be dearer, also where the first was left alone.
            if number and not await job.limit.more(target, job.seen):
                break
            found = await self._of(job, target)
            if isinstance(found, Done):
                return found
            is_left_alone = is_left_alone or found is None
            if found is not None and (missed is None or not found.is_ours):
                missed = found  # where the home may not ask, what another said before is the answer
            if found is not None and not found.is_retried:
                break
        if missed is None or (missed.is_ours and is_left_alone):
            message = "every provider of this model has failed again and again, and is left alone for some seconds"
            why = self._breaker.why(job.targets[0].provider.name)
            message += f"; the last time: {why}" if why else ""
            raise ModelRefused(Refusal(why="overloaded", message=message, retry_after_s=5.0))
        if missed.reply is None:
            raise ModelRefused(missed.refusal)
        if job.is_open:
            raise ModelRefused(missed.refusal)  # its status cannot be sent any more: it is told in the stream
        status, headers, body = missed.reply
        await job.sink.begin(status, headers)
        job.is_handed_on = True
        await job.sink.write(body)
        return None

    async def _rest(self, pause_s: float) -> None:
        until_us = self._clock.now_us() + round(pause_s * SECOND_US)
        self.pauses.append(until_us)
        try:
            await self._clock.sleep_until(until_us)
        finally:
            self.pauses.remove(until_us)

    async def _of(self, job: Job, target: Target) -> Done | _Missed | None:
        """Try one target; None: it is left alone."""
        name, missed = target.provider.name, None
        for number in range(TRIES_MAX):
            if missed is not None and not await self._waits(job, target, missed, number):
                return missed
            # Asked last: a yes may be the one try of a provider that was left alone, and is taken back by how that ends alone.
            if not self._breaker.lets(name, self._clock.now_us()):
                return missed
            try:
                found = await self._try(job, target)
            except BaseException as error:
                if isinstance(error, ModelRefused) and error.refusal.why == "partial":
                    self._breaker.failed(name, self._clock.now_us())
                else:
                    self._breaker.left(name)
                raise
            if isinstance(found, Done):
                self._breaker.answered(name)
                return found
            if found.is_fault:
                # Whoever is told of it later is another caller: what the provider said may be of this one's request.
                status, message = found.refusal.status, found.refusal.message
                why = message if status is None else f"{name} answered {status}"
                self._breaker.failed(name, self._clock.now_us(), why)
            else:
                self._breaker.left(name)
            missed = found
            if not missed.is_retried or job.sink.is_gone:
                return missed
        return missed

    async def _waits(self, job: Job, target: Target, missed: _Missed, number: int) -> bool:
        """Wait before another try; False: there is none."""
        pause_s = self._pause_s(number, missed.refusal.retry_after_s)
        until_us = self._clock.now_us() + round(pause_s * SECOND_US)
        if pause_s > PAUSE_S_MAX or self._breaker.is_open(target.provider.name, until_us):
            return False
        if not await job.limit.more(target, job.seen):
            return False
        await self._rest(pause_s)
        return True

    def _pause_s(self, number: int, asked_s: float | None) -> float:
        """Return the pause before a try: what the provider asked for, else 0.5 s doubled each time; both with jitter."""
        if asked_s is not None:
            return asked_s * (1 + 0.1 * self._random.random())
        return 0.5 * 2 ** (number - 1) * (0.5 + 0.5 * self._random.random())

    async def _try(self, job: Job, target: Target) -> Done | _Missed:
        asked, limit = job.asked, job.output_tokens_max
        between = translation_between(asked, target, self._translations)
        if between is not None and limit is None and asked.output_tokens_max is None:
            limit = target.declared.output_tokens_max  # a dialect may ask for one that the client's does not
        means = Means(model=target.model, output_tokens_max=limit)
        wire = (between or job.dialect).forward(asked, means)
        tap, is_refused = Tap(asked), False
        job.begin_again()
        # Whoever was cut while its line was written, or between two tries, may have been awake by then, and asks nobody.
        await anyio.lowlevel.checkpoint_if_cancelled()
        try:
            spoken = asked.dialect if between is None else between.spoken
            async with self._upstream.send(target.provider, spoken, job.method, wire) as reply:
                # No bill is for where else to ask, nor for a page for people, which is of something before the provider.
                is_refused = reply.status >= MOVED or media_of(reply.headers) == PAGE
                if is_refused:
                    return await self._refused(job, reply, target, between)
                job.seen.append(Seen(target, tap, job.limit.most_nusd))
                reply, is_stream = await peeked(reply, is_stream_asked=asked.is_stream)  # noqa: PLW2901 - the same one
                reader = (between or job.dialect).reader(asked, is_stream=is_stream)
                if is_stream and asked.is_stream:
                    return await self._pour(job, target, tap, reply, reader)
                return await self._whole(job, target, tap, reply, reader, is_stream=is_stream)
        except anyio.get_cancelled_exc_class():
            if not is_refused:
                _note(job, target, tap)
            raise
        except UpstreamFailed as error:
            why = WHYS.get(error.kind, "upstream")
            if error.has_left and not is_refused:
                _note(job, target, tap)
            if job.has_begun:
                raise await self._broken(job, target, f"{target.provider.name} broke off: {error}") from error
            message = f"{target.provider.name} did not answer: {error}"
            is_retried = error.kind in ("connect", "reset", "timeout")
            refusal = Refusal(why=why, message=message, retry_after_s=None)
            return _Missed(refusal=refusal, is_retried=is_retried, is_ours=why == "misconfigured")

    async def _refused(self, job: Job, reply: Reply, target: Target, between: Translation | None) -> _Missed:
        """Return a provider's refusal. What it says to our key is not handed on."""
        status, name = reply.status, target.provider.name
        if MOVED <= status < REFUSED:
            return _Missed(refusal=_moved(name, status), is_retried=False, is_ours=True)
        try:
            body = reply.masked(await _read(reply.chunks(), ERROR_BYTES_MAX))
        except UpstreamFailed:
            body = b""  # the status says enough
        if status in OURS:
            return _Missed(refusal=_not_taken(name, status), is_retried=False, is_ours=True)
        headers = handed_on(reply.headers)
        if status < REFUSED:
            return _Missed(refusal=_cut(target, status), is_retried=True)
        is_json = body and "json" in media_of(reply.headers) and between is None
        is_told = between is not None or job.is_open
        said = _said((between or job.dialect).reader(job.asked, is_stream=False), body) if is_told else ""
        message = f"{name} answered {status}{': ' * bool(said)}{said}"
        refusal = Refusal(why="upstream", message=message, status=status, retry_after_s=after_s(reply.headers))
        return _Missed(
            refusal=refusal,
            is_retried=status in RETRIED,
            is_fault=_is_fault(status),
            reply=(status, headers, body) if is_json else None,
        )

    async def _whole(  # noqa: PLR0913 - what an answer is made of
        self, job: Job, target: Target, tap: Tap, reply: Reply, reader: AnswerReader, *, is_stream: bool
    ) -> Done | _Missed:
        """Hand on an answer that came in one piece, or put a stream together for a client that asked for none."""
        body = reply.masked(await _read(reply.chunks(), ANSWER_BYTES_MAX))
        events = [*reader.feed(body), *reader.close()]
        tap.has_ended = True
        for event in events:
            tap.see(event)
        if missed := _missed(tap, target, reply.status):
            if tap.error is not None and tap.usage is None and not is_stream and not tap.error.is_answered:
                job.seen.pop()  # an error, whatever its status: no bill is for it
            return missed
        for event in events:
            job.keep(event)
        said = b"".join(each.wire for each in events)
        whole = job.restore.whole(job.dialect.whole(job.asked, events) if is_stream else said)
        headers = handed_on(reply.headers)
        if job.asked.is_stream:
            made = job.dialect.stream(job.asked, whole)
            await _begin(job, headers | {"content-type": EVENTS})
            job.is_over = True
            await job.sink.write(b"".join(each.wire for each in made if not each.is_usage_only))
        else:
            await _begin(job, headers | {"content-type": "application/json"})
            job.is_over = True
            await job.sink.write(whole)
        return Done(target=target, tap=tap, is_stream=is_stream)

    async def _pour(self, job: Job, target: Target, tap: Tap, reply: Reply, reader: AnswerReader) -> Done | _Missed:
        """Hand on a stream as it comes, from its first content on."""
        flow = _Flow(job, tap, reply, job.restore.restorer(), self._clock, self._clock.now_us())
        try:
            await flow.run(reader)
        except UpstreamFailed:
            await flow.end()
            raise
        except anyio.get_cancelled_exc_class():
            await job.stopped()
            raise
        await flow.end()
        if not job.has_begun:
            if not job.asked.answer_id or tap.error is not None:
                return _missed(tap, target, reply.status) or _Missed(
                    refusal=_cut(target, reply.status), is_retried=True
                )
            await flow.begin()  # the rest of an answer, of which there may be nothing
            return Done(target=target, tap=tap, is_stream=True)
        if tap.error is not None:
            raise ModelRefused(Refusal(why="partial", message=f"{target.provider.name} failed: {tap.trouble}"))
        if not tap.is_whole:
            raise await self._broken(job, target, f"{target.provider.name} ended in the middle of its answer")
        return Done(target=target, tap=tap, is_stream=True)

    async def _broken(self, job: Job, target: Target, message: str) -> ModelRefused:
        """Tell the client in its stream that there is no more; return what to raise."""
        del target
        refusal = Refusal(why="partial", message=message)
        job.is_over = True
        await job.sink.write(job.dialect.broken(refusal, job.sent))
        return ModelRefused(refusal)


@dataclass(slots=True)
class _Flow:
    """A stream on its way to the client: held until its first content, then passed on as it comes."""

    job: Job
    tap: Tap
    reply: Reply
    restorer: Restorer | None
    clock: Clock
    heard_us: int
    """When the client has got something for the last time, or begun to wait for it."""
    early: list[bytes] = field(default_factory=list[bytes])

    @property
    def is_over(self) -> bool:
        """Whether its end has come."""
        return self.tap.is_whole or self.tap.error is not None

    async def run(self, reader: AnswerReader) -> None:
        """Pass on all that comes."""
        size_bytes = 0
        async for chunk in self.reply.chunks():
            size_bytes += len(chunk)
            if size_bytes > ANSWER_BYTES_MAX:
                raise _too_large(ANSWER_BYTES_MAX)
            is_looked_into = self.restorer is not None or self.job.is_recorded
            await self.take(reader.feed(chunk, in_runs=not is_looked_into))
            if self.is_over:
                break
            if self.clock.now_us() - self.heard_us >= QUIET_US_MAX:
                await self._show_life()
        else:
            await self.take(reader.close())

    async def _show_life(self) -> None:
        """Tell a client that has heard nothing for long that its answer is on the way.

        A provider's own pings say so too, but would tie the client to this try: they wait with whatever else came before the first
        content. It is done when something comes from the provider: of one that is silent nobody knows whether it lives.
        """
        job = self.job
        if not (sign := job.dialect.sign_of_life):
            return
        if not (job.is_open or job.has_begun):
            job.is_open = True
            await job.sink.begin(200, {"content-type": EVENTS})
        await job.sink.write(sign)
        self.heard_us = self.clock.now_us()

    async def begin(self) -> None:
        """Pass on what was held, whatever it is."""
        headers = handed_on(self.reply.headers)
        # Whatever the provider calls it, and in whatever letters: it is handed on as what it is.
        headers |= {} if headers.get("content-type", "").startswith(EVENTS) else {"content-type": EVENTS}
        await _begin(self.job, headers)
        await self.job.sink.write(b"".join(self.early))
        self.heard_us = self.clock.now_us()

    async def take(self, events: Sequence[Event]) -> None:
        """Pass some events on."""
        job, tap, out = self.job, self.tap, list[bytes]()
        for each in events:
            event = each if each.kind != "error" else _masked(each, self.reply)
            tap.see(event)
            job.keep(event)
            if event.is_usage_only:
                continue
            if self.restorer is None:
                out.append(event.wire)
                job.sent.append(event)
            else:
                out += self._restored(self.restorer.events(self.restorer.read(event)))
        await self._write(out)

    async def end(self) -> None:
        """Pass on what still waits when no event comes any more, if the client has got something."""
        if self.restorer is not None and self.job.has_begun:
            await self._write(self._restored(self.restorer.left()))

    async def _write(self, out: list[bytes]) -> None:
        job, tap = self.job, self.tap
        del job.sent[:-SENT_MAX]
        if not out:
            return
        job.is_over = tap.is_whole
        if not job.has_begun:
            self.early += out
            if not tap.has_begun or (tap.error is not None and not tap.is_whole):
                return
            await self.begin()
            return
        await job.sink.write(b"".join(out))
        self.heard_us = self.clock.now_us()

    def _restored(self, events: Sequence[tuple[Event, Sequence[Text]]]) -> list[bytes]:
        """Return the bytes of events with their new texts: of one that is as it was, its own."""
        self.job.sent += [event for event, _ in events]
        rewrite = self.job.dialect.rewrite
        try:
            return [event.wire if tuple(texts) == event.texts else rewrite(event, texts) for event, texts in events]
        except (TypeError, AttributeError, LookupError, ValueError, RecursionError) as error:
            failed = type(error).__name__
        # Raised out here: the error itself may have a value in it.
        message = f"an event of the answer is not as its dialect says ({failed}), so nothing in it can be restored"
        raise ModelRefused(Refusal(why="upstream", message=message))


def _note(job: Job, target: Target, tap: Tap) -> None:
    """Note a try of which nothing came so far: its provider may be at work for us, and bill it."""
    if not any(each.tap is tap for each in job.seen):
        job.seen.append(Seen(target, tap, job.limit.most_nusd))


def _masked(event: Event, reply: Reply) -> Event:
    """Return an error in a stream without our credentials. Pieces of a text are not looked into: it would cost 3 us a stream."""
    wire = reply.masked(event.wire)
    if wire is event.wire:
        return event
    message = reply.masked(event.message.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
    whole = event.whole and replace(event.whole, document=reply.masked(event.whole.document))
    return replace(event, wire=wire, message=message, whole=whole)


async def _begin(job: Job, headers: Mapping[str, str]) -> None:
    job.has_begun = True
    if not job.is_open:
        await job.sink.begin(200, headers)


def _not_taken(name: str, status: int) -> Refusal:
    if status == UNKNOWN_KEY:
        message = f"{name} does not take the home's credential ({status}): see providers.{name}.auth"
        return Refusal(why="misconfigured", message=message)
    message = (
        f"{name} lets the home's credential not do this ({status}): see what the key of providers.{name}.auth may do"
    )
    return Refusal(why="upstream", message=message)


def _moved(name: str, status: int) -> Refusal:
    message = (
        f"{name} answered {status}: it is somewhere else, or something before it sends us away, and no redirect is followed with "
        f"the home's key: see providers.{name}.url"
    )
    return Refusal(why="misconfigured", message=message)


def _missed(tap: Tap, target: Target, status: int) -> _Missed | None:
    """Return why what came is no answer: an error under a status of success, or something else altogether."""
    name = target.provider.name
    if tap.error is not None:
        stands_for = tap.error.status or 502
        if stands_for in OURS:
            return _Missed(refusal=_not_taken(name, stands_for), is_retried=False, is_ours=True)
        if tap.error.is_answered:
            message = f"{name} answered, and is not asked again: {tap.trouble}"
            return _Missed(refusal=Refusal(why="upstream", message=message), is_retried=False, is_fault=False)
        message = f"{name} answered with an error: {tap.trouble}"
        refusal = Refusal(why="upstream", message=message, status=stands_for)
        return _Missed(refusal=refusal, is_retried=stands_for in RETRIED, is_fault=_is_fault(stands_for))
    if not tap.is_whole and not tap.has_begun:
        return _Missed(refusal=_cut(target, status), is_retried=True)
    return None


def _said(reader: AnswerReader, body: bytes) -> str:
    """Return what a provider's error says."""
    return "; ".join(each.message for each in (*reader.feed(body), *reader.close()) if each.message)[
        :SAID_CHARACTERS_MAX
    ]


def _cut(target: Target, status: int) -> Refusal:
    message = f"{target.provider.name} answered {status} with what is no answer of its kind"
    return Refusal(why="upstream", message=message)


async def _read(chunks: AsyncIterator[bytes], bytes_max: int) -> bytes:
    parts: list[bytes] = []
    size_bytes = 0
    async for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > bytes_max:
            raise _too_large(bytes_max)
        parts.append(chunk)
    return b"".join(parts)


def _too_large(bytes_max: int) -> UpstreamFailed:
    return UpstreamFailed("too-large", f"its answer has more than {bytes_max >> 20 or 1} MB", has_left=True)


def _is_fault(status: int) -> bool:
    """Whether a status tells against a provider, not against a request."""
    return status >= 500 or status == 408  # noqa: PLR2004 - RFC 9110, 15.6 and 15.5.9
