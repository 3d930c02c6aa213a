"""What a run's events say: their bodies, what a turn was given, why a run waits."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime
from typing import Literal

from overwinter.approval import Gate, Vote, left, phrase
from overwinter.clock import SECOND_US
from overwinter.events import CARRIED_OUT, Answer, Call, CallState, Event, Raised, Returned, Status
from overwinter.frozen import frozen
from overwinter.interpreter import Failed, Finished, Request
from overwinter.lineage import SPAWNS
from overwinter.store import CallRecord, RunRecord
from overwinter.values import Value

__all__ = [
    "SLEEPS",
    "Given",
    "PastTurn",
    "answer_in",
    "answered",
    "asked",
    "called",
    "denied",
    "error_body",
    "failed",
    "finished",
    "gated",
    "history",
    "printed",
    "reason",
    "span",
    "stopped_line",
    "timer_answer",
    "turn",
    "voted",
]  # fmt: skip

_MODULE_LINE = re.compile(r"line (\d+), in <module>")
SLEEPS = frozenset({"asyncio.sleep", "time.sleep"})
"""A passed timer answers these; to any other call, one of a service that people must approve in time too, it is a time-out."""


@frozen
class Given:
    """One answer that a turn gave to the program."""

    index: int
    answer: Answer
    by: Literal["mail", "message", "timer", "hand"]
    """By hand: it is nowhere but in this process, and the turn's commit writes it down."""
    mail_id: str | None = None


@frozen
class PastTurn:
    """A committed turn, as a rebuild repeats it."""

    now_us: int
    given: tuple[tuple[int, Answer], ...]
    """Call index and answer, in the order given."""
    made: tuple[tuple[int, str, Mapping[str, Value]], ...] = field(default=())
    """Index, function and arguments of the calls that the program made."""


def called(call: Call, *, due_us: int | None, person: str | None) -> Event:
    """Return the intent of a call."""
    body: dict[str, Value] = {
        "index": call.index,
        "function": call.function,
        "arguments": dict(call.arguments),
        "effect": call.effect,
        "line": call.line,
    }
    if due_us is not None:
        body["due_us"] = due_us
    if person is not None:
        body["person"] = person
    return Event(kind="called", body=body)


def denied(index: int, request: Request, reason: str) -> Event:
    """Return the refusal of a call that was never intended; its `answered` event follows."""
    arguments = {**{str(place): value for place, value in enumerate(request.args)}, **request.kwargs}
    body = {
        "index": index,
        "function": request.function,
        "arguments": arguments,
        "line": request.line,
        "reason": reason,
    }
    return Event(kind="denied", body=body)


def answered(index: int, answer: Answer, *, by: str | None = None) -> Event:
    """Return the fact that a call has its answer."""
    body: dict[str, Value] = {"index": index}
    match answer:
        case Returned(value=value):
            body["value"] = value
        case Raised():
            body["error"] = error_body(answer)
    if by is not None:
        body["by"] = by
    return Event(kind="answered", body=body)


class Deeds:
    """What a program did to the world, or may have done: its writes, as far as they have left."""

    def __init__(self) -> None:
        self._places: dict[int, str] = {}
        self._found: dict[int, str] = {}

    def see(self, event: Event) -> None:
        """Take note of an event of its journal, in order."""
        match event.kind, event.body:
            case "called", {"index": int(index), "effect": "write", "function": function, "line": line}:
                self._places[index] = f"{function} (line {line})"
            case "answered", {"index": int(index), "error": {"message": str(message)}} if CARRIED_OUT not in message:
                self._found.pop(index, None)
            case "answered", {"index": int(index)} if index in self._places:
                self._found[index] = self._places[index]
            case "unknown" | "left", {"index": int(index)} if index in self._places:
                self._found[index] = f"{self._places[index]}: perhaps, no answer came: look before it is done again"
            case _:
                pass

    @property
    def told(self) -> Sequence[str]:
        """Return them a line each, in their order."""
        return [self._found[index] for index in sorted(self._found)]


def under_way(index: int, function: str) -> Event:
    """Return the fact that a run ended before the answer of a write that had left: nobody waits for it any more."""
    return Event(kind="left", body={"index": index, "function": function})


def asked(call: Call, person: str) -> Event:
    """Return the fact that a program asks a person; its `called` event stands before it."""
    body = {
        "index": call.index,
        "function": call.function,
        "person": person,
        "question": call.arguments.get("question"),
    }
    return Event(kind="asked", body=body)


def gated(call: Call, gate: Gate) -> Event:
    """Return the fact that a call waits for approval."""
    body = {
        "index": call.index,
        "function": call.function,
        "person": gate.approver,
        "digest": gate.digest.hex(),
        "reason": gate.reason,
        "policies": list(gate.policies),
        "expires_us": gate.expires_us,
    }
    return Event(kind="gated", body=body)


def voted(call: Call, digest: bytes, vote: Vote, *, is_enough: bool) -> Event:
    """Return what a person said of a gated call."""
    body: dict[str, Value] = {"index": call.index, "by": vote.by, "reason": vote.reason, "digest": digest.hex()}
    if vote.is_yes:
        return Event(kind="approved", body={**body, "is_enough": is_enough})
    return Event(kind="rejected", body=body)


def error_body(raised: Raised) -> dict[str, Value]:
    """Return a call's error as plain data; what is unknown is left out."""
    body: dict[str, Value] = {"kind": raised.kind, "message": raised.message, "retryable": raised.is_retryable}
    if raised.status is not None:
        body["status"] = raised.status
    if raised.code is not None:
        body["code"] = raised.code
    if raised.retry_after_s is not None:
        body["retry_after_s"] = raised.retry_after_s
    return body


def answer_in(body: Mapping[str, Value]) -> Answer:
    """Return the answer that the body of an `answered` event holds."""
    if "error" not in body:
        return Returned(value=body["value"])
    error = body["error"]
    return Raised(
        kind=error["kind"],
        message=error["message"],
        status=error.get("status"),
        code=error.get("code"),
        is_retryable=error["retryable"],
        retry_after_s=error.get("retry_after_s"),
    )


def turn(now_us: int, given: Iterable[Given]) -> Event:
    """Return what a turn was given: with the answers and messages of the journal, all that a rebuild needs."""
    rows = [[each.index, each.by] if each.by != "message" else [each.index, each.by, each.mail_id] for each in given]
    return Event(kind="turn", body={"now_us": now_us, "given": rows})


def printed(text: str) -> Event:
    """Return what a program printed in one turn."""
    return Event(kind="printed", body={"text": text})


def finished(outcome: Finished) -> Event:
    """Return the end of a program that reached it."""
    return Event(kind="finished", body={"value": outcome.value, **_never_awaited(outcome.never_awaited)})


def failed(outcome: Failed) -> Event:
    """Return the end of a program that raised or broke a limit."""
    body = {
        "kind": outcome.kind,
        "message": outcome.message,
        "line": outcome.line,
        "traceback": outcome.traceback,
        **_never_awaited(outcome.never_awaited),
    }
    return Event(kind="failed", body=body)


def stopped_line(error: Mapping[str, Value]) -> int:
    """Return the line outside of any function at which a program failed, from what it ended with; 0: it is not known."""
    found = _MODULE_LINE.search(str(error.get("traceback", "")))
    return int(found[1]) if found else 0


def _never_awaited(functions: tuple[str, ...]) -> dict[str, Value]:
    return {"never_awaited": list(functions)} if functions else {}


def history(events: Iterable[Event]) -> tuple[PastTurn, ...]:
    """Return the turns of a run in order, from its whole journal."""
    answers: dict[int, Answer] = {}
    messages: dict[str, Answer] = {}
    sleeps: set[int] = set()
    turns: list[PastTurn] = []
    made: list[tuple[int, str, Mapping[str, Value]]] = []
    for event in events:
        body = event.body
        match event.kind:
            case "answered":
                answers[body["index"]] = answer_in(body)
            case "message":
                messages[body["id"]] = Returned(value=body["value"])
            case "called" | "denied":
                made.append((body["index"], body["function"], body["arguments"]))
                if body["function"] in SLEEPS:
                    sleeps.add(body["index"])
            case "turn":
                # The events of a commit stand behind the `turn` event that opens it: `made` belongs to the turn before.
                _close(turns, made)
                given = tuple((row[0], _recall(row, answers, messages, sleeps)) for row in body["given"])
                turns.append(PastTurn(now_us=body["now_us"], given=given))
            case _:
                pass
    _close(turns, made)
    return tuple(turns)


def _close(turns: list[PastTurn], made: list[tuple[int, str, Mapping[str, Value]]]) -> None:
    if turns:
        turns[-1] = PastTurn(now_us=turns[-1].now_us, given=turns[-1].given, made=tuple(made))
        made.clear()


def _recall(
    row: Sequence[Value], answers: Mapping[int, Answer], messages: Mapping[str, Answer], sleeps: set[int]
) -> Answer:
    match row:
        case [index, "timer"]:
            return timer_answer(is_sleep=index in sleeps)
        case [_, "message", mail_id]:
            return messages[mail_id]
        case _:
            return answers[row[0]]


def timer_answer(*, is_sleep: bool) -> Answer:
    """Return what a passed timer means to the call that armed it."""
    if is_sleep:
        return Returned(value=None)
    return Raised(kind="TimeoutError", message="no answer came in time")


def reason(run: RunRecord, calls: Sequence[CallRecord], now_us: int, *, count: int | None = None) -> str:
    """Return one sentence that says why a run stands where it stands.

    Args:
        run: as it stands.
        calls: its open calls, or the foremost.
        now_us: the present instant.
        count: how many are open; None: these.
    """
    ago = span(now_us - run.changed_us)
    if run.is_revoked and run.status in (Status.LIVE, Status.QUARANTINED):
        return f"stopped: its agent {run.agent} was revoked; `overwinter restore {run.agent} --runs` lets it go on"
    match run.status:
        case Status.LIVE:
            return _live(run, calls, now_us, len(calls) if count is None else count)
        case Status.FINISHED:
            return f"finished {ago} ago"
        case Status.FAILED:
            return f"failed {ago} ago: {_error_line(run.result)}"
        case Status.CANCELLED:
            return f"cancelled {ago} ago by {run.result['by'] if run.result else 'somebody'}"
        case Status.QUARANTINED:
            return f"quarantined after {run.failures} failed turns: {_error_line(run.result)}"


def _live(run: RunRecord, calls: Sequence[CallRecord], now_us: int, count: int) -> str:
    if run.failures and run.not_before_us > now_us:
        return f"tries its turn again in {span(run.not_before_us - now_us)}, after {run.failures} failed turns"
    if run.is_ready:
        return "is ready: it runs as soon as a worker is free"
    if not calls:
        return "has just moved on: look again"
    return _wait(min(calls, key=_urgency), now_us) + (f"; and {count - 1} more" if count > 1 else "")


def _urgency(record: CallRecord) -> tuple[bool, bool, int]:
    """People first, then what moves by itself, then timers by their instant."""
    return record.person is None, record.call.function.endswith(".sleep"), record.due_us or 0


def _wait(record: CallRecord, now_us: int) -> str:
    call = record.call
    since = span(now_us - record.made_us)
    if record.state is CallState.UNKNOWN:
        return f"waits for {record.person} to say whether {call.function} was carried out, since {since}"
    if record.person is not None:
        return _asked(record.person, call, record.gate, since)
    if call.function.endswith(".sleep") and record.due_us is not None:
        return f"sleeps until {_instant(record.due_us)}, {span(record.due_us - now_us)} from now"
    if call.function == "tools.receive":
        return f"waits for a message since {since}"
    child: str | None = call.more["run"] if call.function in SPAWNS and call.more else None
    if record.not_before_us > now_us and child is None:
        return f"retries {call.function} in {span(record.not_before_us - now_us)}, attempt {record.attempt + 1}"
    what = call.function if child is None else f"run {child} to end"
    return f"waits for {what} since {since}"


def _asked(person: str, call: Call, gate: Gate | None, since: str) -> str:
    if gate is None or gate.is_used:
        return f"waits for {person} to answer since {since}"
    who = phrase(left(gate.needs, {each.person for each in gate.votes}))
    ends = "" if gate.expires_us is None else f", until {_instant(gate.expires_us)}"
    return f"waits for {who} to approve {call.function} since {since}{ends}"


def _error_line(error: Mapping[str, Value] | None) -> str:
    if not error:
        return "unknown error"
    first = str(error.get("message", "")).split("\n")[0]
    return f"{error.get('kind', 'error')}: {first}" + (f" (line {error['line']})" if error.get("line") else "")


def _instant(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / SECOND_US, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(length_us: int) -> str:
    """Return a length of time as people say it: `"40 s"`, `"2 h"`, `"3 days"`."""
    seconds = max(0, length_us) / SECOND_US
    for unit, size, until in (("s", 1, 120), ("min", 60, 120 * 60), ("h", 3_600, 48 * 3_600)):
        if seconds < until:
            return f"{seconds / size:.0f} {unit}" if seconds >= 1 else f"{seconds * 1_000:.0f} ms"
    return f"{seconds / 86_400:.0f} days"
