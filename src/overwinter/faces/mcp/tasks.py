"""Runs as tasks: the extension `io.modelcontextprotocol/tasks`, where a request declares it. A task's id is its run's.

A run outlives every task of it: it is there before its client is told, for whoever asks for it as the same agent, and a tool
that fails is a task that is completed, with an error for the model. modelcontextprotocol SEP-2663.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from overwinter.app import App
from overwinter.errors import NotFound, OverwinterError
from overwinter.events import Status
from overwinter.faces import wire
from overwinter.faces.mcp import verbs
from overwinter.faces.mcp.protocol import Asked, Fault
from overwinter.ids import ID_LENGTH
from overwinter.store import RunRecord

__all__ = ["EXTENSION", "METHODS", "PATIENCE_S", "Declined", "found", "is_declared", "needed", "shown"]

EXTENSION = "io.modelcontextprotocol/tasks"
METHODS = ("tasks/get", "tasks/update", "tasks/cancel")
PATIENCE_S = 1.0
"""A program that ends sooner is answered at once: most do, and a task costs its client another request."""
POLL_MS = 1_000
DECLINED_MAX = 1_000
"""Remembered questions; one that is forgotten is put once more."""


class Declined:
    """Questions that a client declined, by caller: a task that keeps asking for them would have it poll for ever."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, str, int], None] = OrderedDict()

    def add(self, by: str, run_id: str, indices: tuple[int, ...]) -> None:
        """Remember questions of a run."""
        for index in indices:
            self._found[by, run_id, index] = None
        while len(self._found) > DECLINED_MAX:
            self._found.popitem(last=False)

    def of(self, by: str, run_id: str) -> tuple[int, ...]:
        """Return those of a run."""
        return tuple(index for caller, run, index in self._found if (caller, run) == (by, run_id))


def is_declared(asked: Asked) -> bool:
    """Return whether the client of this very request knows tasks."""
    extensions = asked.abilities.get("extensions")
    return isinstance(extensions, dict) and isinstance(extensions.get(EXTENSION), dict)  # pyright: ignore[reportUnknownMemberType] - it is as JSON has it


def needed(asked: Asked) -> None:
    """Refuse a request for a task that does not declare the extension.

    Raises:
        Fault: it does not.
    """
    if not is_declared(asked):
        data: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        raise Fault(-32021, f"{asked.method} is for clients that declare {EXTENSION}", data=data)


async def found(app: App, asked: Asked, agent: str) -> RunRecord:
    """Return the run of a task.

    Raises:
        Fault: this agent has none of that id.
    """
    task = asked.params.get("taskId")
    try:
        if not isinstance(task, str) or len(task) != ID_LENGTH:
            raise NotFound("it is no id of a run")
        run = await app.run(await app.resolve(task))
        if run.agent != agent:
            raise NotFound("it is another agent's")
    except OverwinterError as error:
        raise Fault(-32602, f"there is no task {str(task)[:100]!r} of agent {agent!r}") from error
    return run


def shown(run: RunRecord, told: verbs.Told, forms: Mapping[str, Any], *, is_new: bool) -> dict[str, Any]:
    """Return a task.

    Args:
        run: as it stands.
        told: what is said of it.
        forms: what the person at the client may be asked.
        is_new: its client is told of it for the first time: without what it came to.
    """
    body: dict[str, Any] = {
        "taskId": run.run_id, "createdAt": wire.instant(run.created_us), "lastUpdatedAt": wire.instant(run.changed_us),
        "ttlMs": None, "pollIntervalMs": POLL_MS,
    }  # fmt: skip
    match run.status:
        case Status.FINISHED | Status.FAILED:
            return {**body, "status": "completed", **({} if is_new else {"result": told.content()})}
        case Status.CANCELLED:
            return {**body, "status": "cancelled"}
        case Status.LIVE | Status.QUARANTINED:
            body["statusMessage"] = str(told.body.get("waits") or told.body.get("error", ""))
            if not forms:
                return {**body, "status": "working"}
            return {**body, "status": "input_required", **({} if is_new else {"inputRequests": forms})}
