"""Approvals of an agent of Pydantic AI in the home's inbox: rows that survive restarts, bound to the very arguments, audited.

Two ways. `Durable` gives an agent its tools back as durable calls of the service that offers them: the home decides each,
gates it, performs it once. `Approvals` asks the inbox about tools that run in the agent's own process, and brings the answers.
"""

import hashlib
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import anyio
from pydantic_ai import DeferredToolRequests, DeferredToolResults, RunContext
from pydantic_ai.exceptions import CallDeferred, ModelRetry, ToolFailed
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import ToolApproved, ToolDenied
from pydantic_ai.toolsets import ToolsetTool, WrapperToolset
from pydantic_core import to_jsonable_python

from overwinter.catalog.naming import snake
from overwinter.errors import OverwinterError, ServerUnreachable
from overwinter.frozen import frozen
from overwinter.functions import CallError, Key
from overwinter.pydantic_ai.home import Home

__all__ = ["Approvals", "Durable", "approvals"]

RUN = "overwinter_run"
"""Key of a deferred call's metadata: the run that carries it out."""
CALL = "await tools.call(function, arguments)"
ASK = "await approvals.ask(tool=tool, arguments=arguments)"
ANSWER_S = 20.0


class _Approvals:
    """A service of one function that does nothing once it was approved; see `functions.Offers`."""

    async def tools(self) -> Sequence[Mapping[str, Any]]:
        """Return the function."""
        properties = {"tool": {"type": "string"}, "arguments": {"type": "object"}}
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        return [{
            "name": "ask", "description": "Have the agent's owner approve a call of a tool outside.", "inputSchema": schema,
            "outputSchema": {"type": "boolean"}, "annotations": {"idempotentHint": True}, "isGated": True,
        }]  # fmt: skip

    async def call(self, name: str, arguments: Mapping[str, Any], key: Key) -> bool:
        """Say that it was approved: a call that was not does not come here."""
        del arguments, key
        if name != "ask":
            raise CallError(f"there is no function {name}", status=404)
        return True


approvals = _Approvals()
"""`[services.approvals] python = "overwinter.pydantic_ai:approvals"` in `overwinter.toml`; `Approvals` needs it."""


@dataclass
class Durable(WrapperToolset[Any]):
    """A toolset whose calls are carried out by the home that has it as a service; see `Offer`.

    Each call is a run: decided by policy, gated if its author or a rule says so, performed once, whatever is killed. One that
    is not done soon, for it waits for a person, is deferred: `Approvals` brings its result.
    """

    home: Home
    service: str
    """Its name in `overwinter.toml`."""
    answer_s: float = ANSWER_S
    """How long a call is waited for before it is deferred."""

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        """Return the tools; those that need approval are asked about by the home, not here."""
        return {
            name: replace(tool, toolset=self, tool_def=replace(tool.tool_def, kind="function"))
            if tool.tool_def.kind == "unapproved"
            else tool
            for name, tool in (await super().get_tools(ctx)).items()
        }

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:  # noqa: ANN401 - a tool's result is what it is
        """Have a call carried out.

        Raises:
            CallDeferred: it is not done yet.
            ModelRetry: its arguments do not do.
            ToolFailed: it failed, or was rejected.
        """
        del tool
        function, arguments = f"{self.service}.{snake(name)}", to_jsonable_python(tool_args)
        dedup = f"{ctx.run_id}:{ctx.tool_call_id}" if ctx.run_id and ctx.tool_call_id else None
        try:
            inputs = {"function": function, "arguments": arguments}
            run_id = await self.home.start(CALL, inputs, name=f"call {function}", dedup=dedup)
        except OverwinterError as error:
            raise ToolFailed(str(error)) from error
        try:
            run = await self.home.ended(run_id, self.answer_s)
        except (
            ServerUnreachable
        ):  # it was begun, and is carried out once the home is back: to call it failed would be a lie
            raise CallDeferred({RUN: run_id}) from None
        except OverwinterError as error:
            raise ToolFailed(str(error)) from error
        match _outcome(run):
            case None:
                raise CallDeferred({RUN: run_id})
            case ToolFailed() | ModelRetry() as failure:
                raise failure
            case _Value(value=value):
                return value


@frozen
class _Value:
    value: Any


def _outcome(run: Mapping[str, Any]) -> _Value | ToolFailed | ModelRetry | None:
    """Return how a call ended; None: it goes on."""
    if run["status"] == "finished":
        return _Value(value=run["result"])
    if run["status"] == "live" and not run["is_revoked"]:
        return None
    result = cast("Mapping[str, Any]", run["result"] if isinstance(run["result"], dict) else {})
    message = str(result.get("message") or f"run {run['id']} is {'revoked' if run['is_revoked'] else run['status']}")
    return ModelRetry(message) if result.get("kind") in ("ValueError", "TypeError") else ToolFailed(message)


@frozen
class _Pending:
    """A call that waits, and the run that it waits for."""

    call: ToolCallPart
    run_id: str
    is_approval: bool


class Approvals:
    """Asks the home's inbox about deferred calls, and brings the answers.

    As a handler, `HandleDeferredToolCalls(handler=Approvals(home))`, it waits in the middle of the agent's run. For an agent
    whose output may be `DeferredToolRequests`, `settle` gives the results with which it is run again: also days later, in
    another process. The same request is asked once, and answered the same from then on.
    """

    def __init__(self, home: Home, *, patience_s: float | None = None) -> None:
        """Ask a home.

        Args:
            home: it needs the service `approvals` for tools that run in the agent's own process.
            patience_s: how long people are waited for as a handler; what is open then ends the agent's run as
                `DeferredToolRequests`. None: as long as it takes.
        """
        self._home, self._patience_s = home, patience_s

    async def __call__(self, context: RunContext[Any], requests: DeferredToolRequests) -> DeferredToolResults:
        """Return the results of what is settled in time."""
        del context
        return await self.settle(requests, patience_s=self._patience_s)

    async def settle(self, requests: DeferredToolRequests, *, patience_s: float | None = 0.0) -> DeferredToolResults:
        """Return the results of those requests that are settled; `requests.remaining(results)` has the others.

        Args:
            requests: of an agent's run.
            patience_s: how long they are waited for; None: as long as it takes.

        Raises:
            OverwinterError: the home refuses, or does not answer.
        """
        results = DeferredToolResults()
        pending = [
            _Pending(call=call, run_id=run_id, is_approval=False)
            for call in requests.calls
            if (run_id := requests.metadata.get(call.tool_call_id, {}).get(RUN))
        ]
        pending += [
            _Pending(call=call, run_id=await self._asked(call), is_approval=True) for call in requests.approvals
        ]
        await _together([partial(self._settle, each, results, patience_s) for each in pending])
        return results

    async def _asked(self, call: ToolCallPart) -> str:
        arguments = call.args_as_dict()
        said = json.dumps([call.tool_name, arguments], sort_keys=True, default=str)
        dedup = f"approval {call.tool_call_id} {hashlib.sha256(said.encode()).hexdigest()}"
        inputs = {"tool": call.tool_name, "arguments": arguments}
        return await self._home.start(ASK, inputs, name=f"approve {call.tool_name}", dedup=dedup)

    async def _settle(self, pending: _Pending, results: DeferredToolResults, patience_s: float | None) -> None:
        outcome, name = _outcome(await self._home.ended(pending.run_id, patience_s)), pending.call.tool_call_id
        if outcome is None:
            return
        if not pending.is_approval:
            results.calls[name] = outcome.value if isinstance(outcome, _Value) else outcome
        elif isinstance(outcome, _Value):
            results.approvals[name] = ToolApproved()
        else:
            results.approvals[name] = ToolDenied(outcome.message)


async def _together(acts: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    """Do all of it at once; raise the first error as itself."""
    first: BaseException | None = None
    try:
        async with anyio.create_task_group() as group:
            for act in acts:
                group.start_soon(act)
    except* OverwinterError as errors:
        first = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
    if first is not None:  # raised here: before Python 3.11.4, what is raised in `except*` is wrapped anew
        raise first from None
