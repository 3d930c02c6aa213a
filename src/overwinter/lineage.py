"""Runs that programs begin: whose call the end of a run answers, and with what.

A child run acts under its parent's agent, or under one below it, so it can do nothing that its parent cannot. It lives no longer
than the call that began it: when that is closed, or its parent ends, it is cancelled. It is never quarantined: where another run
would be, it fails, and its parent is told.
"""

from collections.abc import Mapping
from typing import Any

from overwinter.events import Answer, Event, Raised, Returned, Status
from overwinter.frozen import frozen
from overwinter.values import Value

__all__ = [
    "ATTEMPT",
    "CHILDREN_MAX",
    "DEPTH_MAX",
    "FAMILY_MAX",
    "SPAWN",
    "SPAWNS",
    "Origin",
    "answer",
    "cut_off",
    "given_up",
]

SPAWN, ATTEMPT = "tools.spawn", "tools.attempt"
SPAWNS = frozenset({SPAWN, ATTEMPT})
"""Calls that begin a run: one gives its result or raises its error, the other says how it ended."""
DEPTH_MAX = 8
"""Generations of runs, the first included: a run that begins itself anew for ever ends here."""
CHILDREN_MAX = 1_000
"""Runs of one parent that may be live at a time."""
FAMILY_MAX = 10_000
"""Live runs that go back to one that no run began: a thousand children with a thousand each would fill any disk."""


@frozen
class Origin:
    """The call that begins a run."""

    run_id: str
    index: int


def answer(function: str, run_id: str, status: Status, ended: Value, beside: Mapping[str, Value]) -> Answer:
    """Return what a call is answered by the end of the run that it began.

    Args:
        function: that began it.
        run_id: the child.
        status: FINISHED, FAILED or CANCELLED.
        ended: its value, or the body of the event that ended it.
        beside: what `tools.attempt` is told besides: whether another run may go on with its variables (`is_kept`), how many
            `messages` wait for the run that is answered.
    """
    if function == ATTEMPT:
        return Returned(value={"run": run_id, "status": status.name.lower(), **beside})
    if status is Status.FINISHED:
        return Returned(value=ended)
    body: Mapping[str, Any] = ended
    if status is Status.CANCELLED:
        why = f" ({body['reason']})" if body.get("reason") else ""
        message = f"run {run_id} was cancelled by {body.get('by') or 'somebody'}{why}"
        return Raised(kind="RuntimeError", message=message, code="cancelled")
    line = f", line {body['line']}" if body.get("line") else ""
    message = f"run {run_id} failed{line}: {body.get('kind', 'error')}: {body.get('message', '')}"
    return Raised(kind="RuntimeError", message=message, code="failed")


def cut_off(parent: str) -> Event:
    """Return the end of a run whose parent waits for it no more."""
    return Event(kind="cancelled", body={"by": f"run {parent}", "reason": "nothing waits for it any more"})


def given_up(quarantined: Event) -> Event:
    """Return the end of a child run where another one would be quarantined: its parent is told, and decides what becomes of it."""
    return Event(kind="failed", body={**quarantined.body, "line": 0, "traceback": ""})


def stranded(agent: str) -> Event:
    """Return the end of a child run whose agent was revoked, and its parent's was not."""
    return Event(kind="cancelled", body={"by": "overwinter", "reason": f"agent {agent} was revoked"})
