"""What people are asked, and their answers. An answer under a key counts once, however often it is sent."""

import json
import re
from collections.abc import Awaitable, Callable, Sequence

from overwinter import journal
from overwinter.actor import Actor
from overwinter.approval import named
from overwinter.errors import Conflict, Denied, NotFound, Revoked, UsageError
from overwinter.events import CallState, Event, Raised, Returned
from overwinter.store import After, CallRecord, Store, Voted
from overwinter.values import Value
from overwinter.worker import Worker

__all__ = ["Inbox", "vote_key"]


class Inbox:
    """The open questions of a home."""

    def __init__(self, store: Store, worker: Worker, resolve: Callable[[str], Awaitable[str]]) -> None:
        self._store, self._worker, self._resolve = store, worker, resolve

    async def page(
        self, run_id: str | None = None, *, after: After | None = None, limit: int
    ) -> tuple[Sequence[CallRecord], After | None]:
        """Return what people are asked, oldest first, and behind which one it goes on; None: there is no more.

        A page may hold fewer than `limit` while there are more: if their arguments are large.
        """
        found = await self._store.questions(run_id, after=after, limit=limit)
        if not found:
            return found, None
        last = found[-1]
        behind = After(made_us=last.made_us, run_id=last.call.run_id, index=last.call.index)
        has_more = await self._store.questions(run_id, after=behind, limit=1)
        return found, behind if has_more else None

    async def question(self, question: str) -> CallRecord:
        """Return what a person is asked, by its name `RUN:INDEX`.

        Raises:
            NotFound: there is no such question.
            Conflict: it was answered before.
        """
        run_id, index = await self._place(question)
        record = next(
            (each for each in await self._store.calls(run_id) if each.call.index == index and _is_asked(each)), None
        )
        if record is None:
            run = await self._store.run(run_id)
            if run is not None and index < run.calls:
                raise Conflict(f"question {question} is not open: it was answered, or its run went on without it")
            raise NotFound(f"run {run_id} has no question {index}: `overwinter questions` lists the open ones")
        return record

    async def answer(self, question: str, answer: str, *, by: str | Actor, dedup: str | None = None) -> None:
        """Answer a question, `RUN:INDEX`.

        A call of unknown outcome takes `done`, `done VALUE` with the call's result as JSON, `failed` or `failed WHY`,
        and `repeat`, which performs it once more at the risk of doing it twice.

        Args:
            question: its name.
            answer: the text.
            by: who answers; a text is one whom the caller knows. Whoever claims a name must claim one that is asked.
            dedup: a second answer with the same key is the first one again, and changes nothing.

        Raises:
            NotFound: there is no such question.
            Conflict: it was answered before.
            UsageError: the answer is not among its options.
            Denied: the name that is claimed is nobody's who is asked.
            Revoked: the run's agent was revoked.
        """
        run_id, index = await self._place(question)
        key = None if dedup is None else f"answer {index} {dedup}"
        if key is not None and await self._store.has_seen(run_id, key):
            return
        try:
            record = await self.question(question)
            await self._settle(record, answer, by, key)
        except Conflict:
            if key is None or not await self._store.has_seen(run_id, key):
                raise

    async def voted(self, question: str, dedup: str | None) -> Voted | None:
        """Return what became of a yes or no under this key; None: none came yet."""
        if dedup is None:
            return None
        run_id, index = await self._place(question)
        for voted in (Voted.LET_THROUGH, Voted.COUNTED, Voted.REJECTED):
            if await self._store.has_seen(run_id, f"{vote_key(index, dedup)} {voted.name}"):
                return voted
        return None

    async def _place(self, question: str) -> tuple[str, int]:
        tail, _, number = question.rpartition(":")
        if not tail or not re.fullmatch("[0-9]{1,9}", number):
            raise UsageError(
                f"{question!r} names no question: it is written RUN:INDEX, as `overwinter questions` shows"
            )
        return await self._resolve(tail), int(number)

    async def _settle(self, record: CallRecord, answer: str, actor: str | Actor, key: str | None) -> None:
        if record.gate is not None and not record.gate.is_used:
            place = record.call.key
            raise UsageError(f"{place} is a call to approve: `overwinter approve {place}`, or `reject`")
        if isinstance(actor, Actor) and actor.is_claimed and actor.person not in named(record.person or ""):
            # It stops nobody who owns the home; a slip is not taken for the word of whoever is asked.
            raise Denied(f"{record.person} is asked {record.call.key}, not {actor.person}: --as says for whom you act")
        by = str(actor)
        run = await self._store.run(record.call.run_id)
        if record.state is CallState.UNKNOWN:  # what became of it is so, whatever became of the agent
            await self._settle_unknown(record, answer, by, key)
        elif run is not None and run.is_revoked:
            raise Revoked(f"the agent of run {run.run_id} was revoked: no answer reaches it")
        elif record.call.more is not None:
            await self._settle_service(record, answer, by, key)
        else:
            options: Sequence[str] | None = record.call.arguments.get("options")
            _among(options, answer)
            await self._finish(record, Returned(value=answer), by, key)

    async def _settle_service(self, record: CallRecord, answer: str, by: str, key: str | None) -> None:
        """Give a service the word that it asked for."""
        call = record.call
        _among(call.more.get("options"), answer)
        body = {"index": call.index, "function": call.function, "by": by, "why": f"answered {answer!r}", "at_us": 0}
        await self._again(record, Event(kind="continued", body=body), {**call.more, "answer": answer}, key)

    async def _settle_unknown(self, record: CallRecord, answer: str, by: str, key: str | None) -> None:
        call = record.call
        verb, _, rest = answer.strip().partition(" ")
        match verb:
            case "done":
                await self._finish(record, Returned(value=_json(rest)), by, key)
            case "failed":
                message = rest or f"{call.function} was not carried out, says {by}"
                await self._finish(
                    record, Raised(kind="RuntimeError", message=message, code="not_carried_out"), by, key
                )
            case "repeat":
                body = {"index": call.index, "function": call.function, "by": by, "attempt": record.attempt}
                await self._again(record, Event(kind="retried", body=body), None, key)
            case _:
                raise UsageError(
                    f"{answer!r} does not say what became of {call.function}: answer `done`, `done VALUE` (its result "
                    "as JSON), `failed WHY`, or `repeat` (at the risk of doing it twice)"
                )

    async def _again(self, record: CallRecord, event: Event, more: Value, key: str | None) -> None:
        (lease, *_) = await self._store.claim()
        if not await self._store.postpone(record.call, lease, not_before_us=0, event=event, more=more, dedup=key):
            raise Conflict(f"question {record.call.key} is not open any more")
        self._worker.ring(0)

    async def _finish(self, record: CallRecord, answer: Returned | Raised, by: str, key: str | None) -> None:
        event = journal.answered(record.call.index, answer, by=by)
        if not await self._store.finish(record.call.run_id, record.call.index, answer, event, dedup=key):
            raise Conflict(f"question {record.call.key} is not open any more")


def vote_key(index: int, dedup: str) -> str:
    """Return the key under which a yes or no to a call is remembered."""
    return f"vote {index} {dedup}"


def _is_asked(record: CallRecord) -> bool:
    return record.person is not None and record.state in (CallState.INTENDED, CallState.UNKNOWN)


def _among(options: Sequence[str] | None, answer: str) -> None:
    if options and answer not in options:
        raise UsageError(f"{answer!r} is not an option: {', '.join(map(repr, options))}")


def _json(text: str) -> Value:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not JSON: {error}; a text needs quotes: done '\"text\"'") from error
