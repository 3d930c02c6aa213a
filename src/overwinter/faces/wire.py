"""The words of the HTTP API: records as JSON, errors as JSON. Shared by server, client and command line."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from overwinter.approval import left, phrase
from overwinter.check import Finding, report
from overwinter.clock import SECOND_US
from overwinter.errors import (
    CheckFailed,
    ConfigInvalid,
    Conflict,
    Denied,
    HomeDamaged,
    HomeError,
    HomeFull,
    HomeHeld,
    HomeTooNew,
    JailUnavailable,
    NotFound,
    OverwinterError,
    Revoked,
    ServerUnreachable,
    TokenRefused,
    UsageError,
)  # fmt: skip
from overwinter.events import CallState, Event
from overwinter.grant import Granted
from overwinter.identity import Identity, name_of
from overwinter.readable import readable
from overwinter.store import NEVER_US, CallRecord, RunRecord
from overwinter.tokens import Token
from overwinter.values import Value

if TYPE_CHECKING:  # a command that asks a server loads no store and no interpreter
    from overwinter.adapters.catalog_file import Hit, Pin, Source
    from overwinter.app.governance import Revocation
    from overwinter.app.rulebook import Reach
    from overwinter.gateway.budget import Spent

__all__ = [
    "call", "error", "event", "finding", "grant", "hit", "identity", "instant", "pin", "question_id", "raised", "readable", "revocation", "revoked_grant", "revoked_token", "run", "source", "spent", "status_of",
    "unreachable",
]  # fmt: skip

NUSD = 1_000_000_000
"""Nano-dollars in a dollar."""
STATUSES: Sequence[tuple[type[OverwinterError], int]] = (
    (CheckFailed, 422),
    (NotFound, 404),
    (Conflict, 409),
    (Denied, 403),
    (TokenRefused, 401),
    (UsageError, 400),
    (HomeFull, 507),
    (HomeError, 500),
    (OverwinterError, 500),
)
KINDS: Mapping[str, Callable[[str], OverwinterError]] = {
    "UsageError": UsageError, "ConfigInvalid": ConfigInvalid, "Uncrossable": UsageError, "HTTPError": UsageError,
    "NotFound": NotFound, "Conflict": Conflict, "Revoked": Revoked, "Denied": Denied, "HomeError": HomeError, "HomeHeld": HomeHeld,
    "HomeTooNew": HomeTooNew, "HomeDamaged": HomeDamaged, "HomeFull": HomeFull, "JailUnavailable": JailUnavailable,
    "TokenRefused": TokenRefused,
}  # fmt: skip
"""What a server may answer; `HTTPError` is a request that no route takes, or a body that is too large."""


def instant(at_us: int | None) -> str | None:
    """Return an instant as ISO 8601 in UTC, with milliseconds."""
    if at_us is None:
        return None
    return datetime.fromtimestamp(at_us / SECOND_US, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run(record: RunRecord, reason: str | None = None) -> dict[str, Value]:
    """Return a run as JSON."""
    shown: dict[str, Value] = {
        "id": record.run_id,
        "name": record.name,
        "agent": record.agent,
        "status": record.status.name.lower(),
        "turns": record.seq,
        "events": record.events,
        "calls": record.calls,
        "failures": record.failures,
        "created": instant(record.created_us),
        "changed": instant(record.changed_us),
        "due": instant(record.due_us),
        "is_ready": record.is_ready,
        "is_revoked": record.is_revoked,
        "snapshot_bytes": record.snapshot_bytes,
        "program": record.program_digest,
        "parent": record.parent,
        "is_kept": record.is_kept,
        "result": readable(record.result),
    }
    return shown if reason is None else {**shown, "reason": reason}


def call(record: CallRecord) -> dict[str, Value]:
    """Return an open call as JSON."""
    made = record.call
    shown: dict[str, Value] = {
        "index": made.index,
        "function": made.function,
        "arguments": readable(dict(made.arguments)),
        "effect": made.effect,
        "line": made.line,
        "state": record.state.name.lower(),
        "attempt": record.attempt,
        "since": instant(record.made_us),
        "not_before": None if record.person or record.not_before_us in (0, NEVER_US) else instant(record.not_before_us),
        "due": instant(record.due_us),
    }
    gate = record.gate
    if gate is not None:
        shown["approval"] = {
            "digest": gate.digest.hex(),
            "approver": gate.approver,
            "needs": [{"people": list(each.people), "count": each.count} for each in gate.needs],
            "left": phrase(left(gate.needs, {each.person for each in gate.votes})),
            "reason": gate.reason,
            "policies": list(gate.policies),
            "expires": instant(gate.expires_us),
            "is_used": gate.is_used,
            "votes": [{"person": each.person, "reason": each.reason, "at": instant(each.at_us)} for each in gate.votes],
        }
    is_gated = gate is not None and not gate.is_used
    if record.person is not None:
        is_unknown = record.state is CallState.UNKNOWN
        asked = made.arguments if made.more is None else made.more
        shown |= {
            "question": question_id(record),
            "run": made.run_id,
            "run_name": record.run_name,
            "agent": record.agent,
            "person": record.person,
            "text": f"Was {made.function} carried out?" if is_unknown else asked.get("question"),
            "options": ["done", "failed", "repeat"] if is_unknown else asked.get("options"),
        }
        if is_gated and gate is not None:
            shown |= {"text": f"May it call {made.function}? {gate.reason}", "options": ["approve", "reject"]}
    return shown


def reach(found: "Reach") -> dict[str, Value]:
    """Return what a program may run into."""
    rows: list[Value] = [
        {
            "function": each.function,
            "decision": each.decision,
            "approver": each.approver or None,
            "policies": list(each.policies),
            "reason": each.reason or None,
        }
        for each in found.gated
    ]
    return {"gated": rows, "is_open": found.is_open}


def question_id(record: CallRecord) -> str:
    """Return the name under which a question is answered."""
    return f"{record.call.run_id}:{record.call.index}"


def hit(found: "Hit") -> dict[str, Value]:
    """Return a function that a search found."""
    return {
        "name": found.name,
        "required": list(found.required),
        "result": found.result,
        "summary": found.summary,
        "effect": found.effect,
        "line": found.line(),
    }


def identity(agent: Identity, now_us: int) -> dict[str, Value]:
    """Return an agent as JSON, as it stands now."""
    has_ended = agent.expires_us is not None and agent.expires_us <= now_us
    return {
        "name": agent.name,
        "id": name_of(agent),
        "owner": agent.owner,
        "purpose": agent.purpose,
        "parent": agent.parent,
        "models": list(agent.models),
        "expires": instant(agent.expires_us),
        "epoch": agent.epoch,
        "state": "revoked" if agent.is_revoked else "expired" if has_ended else "active",
        "changed": instant(agent.changed_us or None),
        "by": agent.by,
        "reason": agent.reason,
    }


def spent(found: "Spent") -> dict[str, Value]:
    """Return how a budget stands as JSON."""
    budget = found.budget
    return {
        "of": f"{budget.scope.kind}:{budget.scope.name}", "window": budget.window,
        "limit_usd": None if budget.limit_nusd is None else budget.limit_nusd / NUSD, "spent_usd": found.spent_nusd / NUSD,
        "held_usd": found.held_nusd / NUSD, "calls": found.calls, "calls_max": budget.calls_max,
        "until": instant(found.until_us),
    }  # fmt: skip


def revocation(done: "Revocation") -> dict[str, Value]:
    """Return what a revocation stopped as JSON."""
    return {
        "agents": [identity(each, each.changed_us) for each in done.identities],
        "runs": done.runs,
        "turns": done.turns,
        "calls": done.calls,
        "model_calls": done.model_calls,
        "on_the_wire": [
            {"key": each.key, "function": each.function, "effect": each.effect} for each in done.on_the_wire
        ],
        "fenced_ms": done.fenced_us / 1_000,
        "stopped_ms": done.stopped_us / 1_000,
    }


def revoked_token(token: Token) -> dict[str, Value]:
    """Return what became of a token as JSON: nothing was under way for it."""
    row: dict[str, Value] = {"id": token.id, "person": token.person}
    nothing: dict[str, Value] = {"agents": [], "runs": 0, "turns": 0, "calls": 0, "model_calls": 0, "on_the_wire": []}
    return {"token": row, **nothing, "fenced_ms": 0.0, "stopped_ms": 0.0}


def grant(given: Granted) -> dict[str, Value]:
    """Return a grant as JSON."""
    return {
        "id": given.id,
        "agent": given.agent,
        "pattern": given.pattern,
        "how": "reads" if given.reads_only else "asks" if given.is_asked else "calls",
        "approver": given.approver,
        "expires": instant(given.expires_us),
        "by": given.by,
        "made": instant(given.made_us or None),
    }


def revoked_grant(gone: Granted) -> dict[str, Value]:
    """Return what became of a grant as JSON: what is under way goes on, what starts is decided without it."""
    nothing: dict[str, Value] = {"agents": [], "runs": 0, "turns": 0, "calls": 0, "model_calls": 0, "on_the_wire": []}
    return {"grant": grant(gone), **nothing, "fenced_ms": 0.0, "stopped_ms": 0.0}


def source(service: "Source") -> dict[str, Value]:
    """Return a service and what was wrong in its description."""
    return {
        "service": service.service,
        "functions": service.functions,
        "imported": instant(service.imported_us) if service.imported_us else None,
        "faults": [{"place": each.place, "what": each.what} for each in service.faults],
    }


def pin(each: "Pin") -> dict[str, Value]:
    """Return a function's name and whether its definition is the accepted one."""
    return {"name": each.name, "origin": each.origin, "state": each.state, "accepted": instant(each.accepted_us)}


def event(fact: Event) -> dict[str, Value]:
    """Return a journal event as JSON."""
    return {"position": fact.position, "at": instant(fact.at_us), "kind": fact.kind, "body": readable(dict(fact.body))}


def status_of(failure: OverwinterError) -> int:
    """Return the HTTP status of an error."""
    return next(status for kind, status in STATUSES if isinstance(failure, kind))


def error(failure: OverwinterError) -> dict[str, Value]:
    """Return an error as JSON."""
    body: dict[str, Value] = {"type": type(failure).__name__, "message": str(failure), "exit_code": failure.exit_code}
    if isinstance(failure, CheckFailed):
        findings = cast("Sequence[Finding]", failure.findings)
        body["findings"] = [finding(each) for each in findings]
        body["report"] = report(findings)
    return {"error": body}


def finding(found: Finding) -> dict[str, Value]:
    """Return one thing that is wrong with a program as JSON."""
    return {**asdict(found), "did_you_mean": list(found.did_you_mean)}


def _finding(row: Mapping[str, Any]) -> Finding:
    return Finding(
        line=row["line"],
        column=row["column"],
        rule=row["rule"],
        message=row["message"],
        is_certain=row["is_certain"],
        at=row["at"],
        got=row["got"],
        did_you_mean=tuple(row["did_you_mean"]),
        stub=row["stub"],
    )


def raised(body: Mapping[str, Value]) -> OverwinterError:
    """Return the error that a server's answer stands for."""
    found = body.get("error", {})
    if found.get("type") == "CheckFailed":
        rows = found.get("findings", ())
        findings = [_finding(row) for row in rows]
        return CheckFailed(findings, found["message"])
    kind = KINDS.get(found.get("type", ""), OverwinterError)
    return kind(found.get("message", "the server answered an error without a message"))


def unreachable(home: str) -> ServerUnreachable:
    """Return the error of a home on whose socket nothing answers."""
    return ServerUnreachable(f"nothing answers on the socket of {home}: start `overwinter serve`")
