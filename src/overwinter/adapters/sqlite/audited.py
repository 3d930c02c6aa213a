"""Which facts about a run are entries of the audit log, and what they say there.

| fact | entry | body, apart |
|---|---|---|
| `created` by a person | `start` | the fact: program, inputs, by whom |
| `message` of a person | `message` | the fact: by whom, what |
| `called` (not a timer, a question to a person, a message) | `call.intent`, with decision, rules and their version | the fact: function, arguments, line |
| `denied` | `deny` | the fact, with the reason |
| `answered`, `unknown` | `call.result`, with the function | the fact: value or error |
| `approved`, `rejected` | `approve` | the fact: by whom, of what digest |
| `retried`, `continued` by a person | `approve` | the fact: by whom |
| `quarantined` because the rules let no wake | `wake.refused` | the fact |
| `cancelled` | `revoke`, with the run | the fact: by whom, why |
| `released` | `release` | the fact: by whom |
| the rules, read anew | `policy`, with the versions before and after, and the ids that came or went | the same, and by whom |
| an agent that is declared otherwise than it was | `enrol` | what was declared, and what is |
| a model call that ended, or was refused | `model.call`, with decision, rules and their version | a digest of what was asked; how it ended, with counts and cost |
| a grant, or its end | `grant`, `revoke`, with the id of the grant as the policy | all of its columns, and why |
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from overwinter import values
from overwinter.adapters.sqlite.rows import RunRow
from overwinter.audit import Decided, Entry, Kind, Part, hidden
from overwinter.events import Event
from overwinter.gateway.budget import Line
from overwinter.grant import Granted
from overwinter.identity import Identity
from overwinter.store import NewCall, NewRun, Turn
from overwinter.values import Value

__all__ = ["change", "declared", "enrolled", "facts", "granted", "model_call", "reloaded", "started", "turn"]

TENANT = "home"
KINDS: Mapping[str, tuple[Kind, Part]] = {
    "called": ("call.intent", "args"),
    "denied": ("deny", "args"),
    "answered": ("call.result", "result"),
    "unknown": ("call.result", "result"),
    "left": ("call.result", "result"),
    "approved": ("approve", "args"),
    "rejected": ("approve", "args"),
    "cancelled": ("revoke", "args"),
    "retried": ("approve", "args"),
    "continued": ("approve", "args"),
    "message": ("message", "args"),
    "released": ("release", "args"),
}
BY_PEOPLE = frozenset({"retried", "continued", "message"})
"""Entries only if a person did so: else the runtime goes on with what was decided, or a program of the operator's own sends."""
NAME_LENGTH_MAX = 512
POLICIES_MAX = 64
POLICY_LENGTH_MAX = 200
"""Characters and ids in an entry: what a program calls, or a thousand rules, must not make it too long to be written. The
body has the names whole; which rules there were, `policy_set_sha256` says."""
DECISIONS: Mapping[str, Decided] = {"denied": "deny", "approved": "allow", "rejected": "deny", "retried": "allow"}


def turn(
    row: RunRow, committed: Turn, encoded: Iterable[tuple[str, bytes]], functions: Mapping[int, str]
) -> list[Entry]:
    """Return the entries of a turn's commit.

    Args:
        row: the run.
        committed: its turn.
        encoded: the turn's events, in order, with their bodies as bytes.
        functions: what the calls had called that the commit closed, by index.
    """
    made = {new.call.index: new for new in committed.calls}
    refused = {event.body["index"]: event.body["function"] for event in committed.events if event.kind == "denied"}
    found: list[Entry] = []
    for event, (_, raw) in zip(committed.events, encoded, strict=True):
        if event.kind in KINDS:
            new = made.get(event.body["index"]) if event.kind == "called" else None
            if new is None or new.call.effect != "wait":
                index = event.body["index"]
                function = functions.get(index) or refused.get(index, "")
                found.append(
                    _entry(row, committed.run_id, event, raw, rules=committed.rules, new=new, function=function)
                )
    return found


def facts(row: RunRow, run_id: str, events: Iterable[Event], *, function: str = "") -> list[Entry]:
    """Return the entries of facts that no turn brought; `function` is the one that an answer without a name is of."""
    found: list[Entry] = []
    for event in events:
        if event.kind in KINDS and (event.kind not in BY_PEOPLE or "by" in event.body):
            found.append(_entry(row, run_id, event, values.encode(dict(event.body)), function=function))
        elif event.kind == "quarantined" and event.body.get("kind") == "WakeDenied":
            body = hidden(values.encode(dict(event.body)))
            found.append(
                Entry(
                    kind="wake.refused", tenant=TENANT, agent=row.agent, epoch=row.agent_epoch, run=run_id,
                    act=(_name(row.owner),), args=body, decision="deny",
                )
            )  # fmt: skip
    return found


def started(run: NewRun, agent_epoch: int, event: Event) -> Entry:
    """Return the entry of a run that a person began."""
    body = hidden(values.encode(dict(event.body)))
    return Entry(
        kind="start", tenant=TENANT, agent=run.agent, epoch=agent_epoch, run=run.run_id, act=(_name(run.by),), args=body
    )


def keyed(before: str | None, after: str, by: str, reason: str, *, is_lost: bool = False) -> Entry:
    """Return the entry of a new key of the log; if the one before is lost, the reason stays in it for ever."""
    body: dict[str, values.Value] = {"by": by, "reason": reason}
    return Entry(
        kind="key", tenant=TENANT, agent="", epoch=0, act=(_name(by),), args=hidden(values.encode(body)), log_key=after, log_key_before=before,
        errors=("lost", reason) if is_lost else (),
    )  # fmt: skip


def issuer(before: str, by: str, reason: str) -> Entry:
    """Return the entry of a new key of the issuer of identities."""
    body: dict[str, values.Value] = {"by": by, "reason": reason, "before": before}
    return Entry(kind="issuer", tenant=TENANT, agent="", epoch=0, act=(_name(by),), args=hidden(values.encode(body)))


def change(kind: Kind, identity: Identity, by: str, reason: str) -> Entry:
    """Return the entry of what a person did to an agent."""
    body: dict[str, Value] = {"by": by, "reason": reason}
    return Entry(
        kind=kind,
        tenant=TENANT,
        agent=identity.name,
        epoch=identity.epoch,
        act=(_name(by),),
        args=hidden(values.encode(body)),
    )


def declared(identity: Identity) -> dict[str, Value]:
    """Return what `overwinter.toml` says of an agent."""
    return {
        "owner": identity.owner, "purpose": identity.purpose, "parent": identity.parent, "expires_us": identity.expires_us,
        "models": list(identity.models),
    }  # fmt: skip


def enrolled(identity: Identity, was: Identity, by: str) -> Entry:
    """Return the entry of what is declared otherwise of an agent than it was."""
    body: dict[str, Value] = {"by": by, "was": declared(was), "is": declared(identity)}
    return Entry(
        kind="enrol",
        tenant=TENANT,
        agent=identity.name,
        epoch=identity.epoch,
        act=(_name(by),),
        args=hidden(values.encode(body)),
    )


def granted(kind: Kind, grant: Granted, epoch: int, by: str, reason: str) -> Entry:
    """Return the entry of a grant that a person made, or took away."""
    body: dict[str, Value] = {**asdict(grant), "reason": reason}
    return Entry(
        kind=kind, tenant=TENANT, agent=grant.agent, epoch=epoch, act=(by,), args=hidden(values.encode(body)), policy_ids=(grant.id,)
    )  # fmt: skip


def model_call(line: Line, epoch: int, by: str) -> Entry:
    """Return the entry of a model call that ended, or was refused. It has one body: two would cost half as much again."""
    name, _, index = line.call.partition(":")
    usage: dict[str, Value] | None = None if line.usage is None else {
        "input": line.usage.input, "cache_read": line.usage.cache_read, "output": line.usage.output,
        "reasoning": line.usage.reasoning, "source": line.usage.source,
    }  # fmt: skip
    ended: dict[str, Value] = {
        "call": line.call, "dialect": line.dialect, "model": line.model, "sha256": line.digest, "key": line.key or None,
        "status": line.status, "provider": line.upstream or None, "provider_model": line.priced_model or None,
        "cost_nusd": line.cost_nusd, "saved_nusd": line.saved_nusd, "usage": usage, "answer": line.answer_id or None,
        "began_us": line.began_us, "ended_us": line.ended_us,
    }  # fmt: skip
    return Entry(
        kind="model.call", tenant=TENANT, agent=line.agent, epoch=epoch, run=line.run_id or None,
        call=int(index) if name == line.run_id and index.isdecimal() else None, act=(_name(by),),
        tool=_name(f"models.{line.model}"), result=hidden(values.encode(ended)),
        decision="deny" if line.state == "refused" else "allow", policy_ids=_ids(line.policies),
        policy_set_sha256=line.rules or None, errors=("unknown",) if line.state == "unknown" else (),
    )  # fmt: skip


def reloaded(before: str, after: str, by: str, changed: Sequence[str]) -> Entry:
    """Return the entry of rules that a person had read anew. It is about every agent."""
    body: dict[str, Value] = {"by": by, "before": before, "after": after, "changed": list(changed)}
    return Entry(
        kind="policy", tenant=TENANT, agent="*", epoch=0, act=(_name(by),), args=hidden(values.encode(body)),
        policy_ids=_ids(changed), policy_set_sha256=after, policy_set_before_sha256=before,
    )  # fmt: skip


def _entry(  # noqa: PLR0913 - what is known of a fact
    row: RunRow,
    run_id: str,
    event: Event,
    raw: bytes,
    *,
    rules: str = "",
    new: NewCall | None = None,
    function: str = "",
) -> Entry:
    kind, part = KINDS[event.kind]
    person = event.body.get("by")
    function = event.body.get("function") or function
    decision = DECISIONS.get(event.kind)
    policies: tuple[str, ...] = ()
    if new is not None:
        decision = "allow" if new.gate is None else "ask"
        policies = new.policies if new.gate is None else new.gate.policies
    index = event.body.get("index")
    body = hidden(raw)
    return Entry(
        kind=kind,
        tenant=TENANT,
        agent=row.agent,
        epoch=row.agent_epoch,
        run=run_id,
        call=index if isinstance(index, int) else None,
        act=(_name(person or row.owner),),
        tool=_name(function) if function else None,
        args=body if part == "args" else None,
        result=body if part == "result" else None,
        decision=decision,
        policy_ids=_ids(policies),
        policy_set_sha256=rules or None if decision is not None else None,
        errors=("unknown",) if event.kind in ("unknown", "left") else (),
    )


def _name(text: object) -> str:
    return str(text)[:NAME_LENGTH_MAX]


def _ids(policies: Sequence[str]) -> tuple[str, ...]:
    if not policies:
        return ()
    more = len(policies) - POLICIES_MAX
    shown = tuple(each[:POLICY_LENGTH_MAX] for each in policies[:POLICIES_MAX])
    return (*shown, f"and {more} more") if more > 0 else shown
