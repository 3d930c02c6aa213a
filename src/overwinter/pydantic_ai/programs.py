"""One code tool for an agent of Pydantic AI: its programs are checked, and run as durable runs of the home's agent."""

from collections.abc import Mapping
from typing import Any, cast

from pydantic_ai import FunctionToolset, RunContext
from pydantic_ai.exceptions import ToolFailed

from overwinter.errors import CheckFailed, NotFound, OverwinterError, ServerUnreachable
from overwinter.pydantic_ai.home import Home

__all__ = ["code"]

ANSWER_S = 20.0
"""How long `execute` waits before it hands out the run: below the patience of whoever called the agent."""
WAIT_S_MAX = 50.0
HOW = """
Tools: `execute` runs a program and gives the value of its last expression and what it printed. One that takes longer goes on by
itself: you get its run, and `wait` tells how it stands. `search` and `describe` do what their namesakes in a program do."""


def code(home: Home, *, answer_s: float = ANSWER_S, id: str = "overwinter") -> FunctionToolset[Any]:  # noqa: A002 - Pydantic AI's own word
    """Return a toolset with `execute`, `wait`, `search` and `describe`, and the text that says how to work with them.

    No function's definition enters the context, however many there are. A program of the same call of the same agent run is
    started once, however often it is asked for.

    Args:
        home: where the programs run, and as which agent.
        answer_s: how long `execute` waits for a program; longer ones go on, and are named by their run.
        id: of the toolset.
    """

    async def execute(context: RunContext[Any], program: str, inputs: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check a program and run it, durably.

        Args:
            context: of this call.
            program: Python, in the subset that the instructions describe.
            inputs: variables that it starts with.
        """
        dedup = f"{context.run_id}:{context.tool_call_id}" if context.run_id and context.tool_call_id else None
        try:
            run_id = await home.start(program, inputs, name="agent program", dedup=dedup)
        except CheckFailed as error:
            raise ToolFailed(f"nothing ran; mend it and send it again\n{error}") from error
        except OverwinterError as error:
            raise ToolFailed(str(error)) from error
        return await _seen(home, run_id, answer_s)

    async def wait(run: str, seconds: float = ANSWER_S) -> dict[str, Any]:
        """Wait for a program that goes on, at most 50 seconds; ask again if it needs longer.

        Args:
            run: its run, as `execute` gave it.
            seconds: how long.
        """
        return await _seen(home, run, min(max(seconds, 0.0), WAIT_S_MAX))

    async def search(query: str, service: str | None = None, limit: int = 8) -> list[str]:
        """Find functions that programs can call.

        Args:
            query: words, in any order.
            service: only of this one.
            limit: how many.
        """
        asked = {"query": query, "service": service, "limit": limit, "agent": home.agent}
        return [each["line"] for each in (await _said(home, "tools/search", asked))["functions"]]

    async def describe(names: list[str]) -> str:
        """Return the stubs of functions with their types, or of types.

        Args:
            names: `github.pulls_list`, or a type: `stripe.Charge`.
        """
        return (await _said(home, "tools/describe", {"name": names, "agent": home.agent}))["text"]

    async def told(context: RunContext[Any]) -> str:
        del context
        return (await home.asked("GET", "tools/brief", query={"agent": home.agent}))["text"] + HOW

    return FunctionToolset([execute, wait, search, describe], id=id, instructions=told)


async def _seen(home: Home, run_id: str, patience_s: float) -> dict[str, Any]:
    """Return what a model is told of a run.

    Raises:
        ToolFailed: it ended otherwise than by a value.
    """
    try:
        run = await home.ended(run_id, patience_s)
        if run["agent"] != home.agent:
            raise ToolFailed(f"run {run_id} is another agent's")
        printed = await _printed(home, run["id"])
        if run["status"] == "finished":
            value = (await home.asked("GET", f"values/{run['id']}"))["value"]
            return {"status": "finished", "run": run["id"], "value": value, **printed}
        shown = await home.asked("GET", f"runs/{run['id']}")
    except ServerUnreachable as error:
        return {"status": "goes on", "run": run_id, "why": str(error)}
    except OverwinterError as error:
        raise ToolFailed(str(error)) from error
    if run["status"] == "live" and not run["is_revoked"]:
        return {"status": "goes on", "run": run["id"], "why": shown["reason"], **printed}
    raise ToolFailed("\n".join([*_why(run, shown), *printed.values()]))


def _why(run: Mapping[str, Any], shown: Mapping[str, Any]) -> list[str]:
    result = cast("Mapping[str, Any]", run["result"] if isinstance(run["result"], dict) else {})
    line = f", line {result['line']}" if result.get("line") else ""
    said = f"{result['kind']}: {result['message']}" if "message" in result else shown["reason"]
    doubts = [f"line {each['line']}: {each['message']}" for each in shown["warnings"]]
    return [f"run {run['id']} {run['status']}{line}: {said}", *doubts]


async def _printed(home: Home, run_id: str) -> dict[str, str]:
    try:
        found = (await home.asked("GET", f"values/{run_id}:out"))["value"]
    except NotFound:
        return {}
    return {"printed": str(found)} if found else {}


async def _said(home: Home, path: str, query: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON, as each path has it
    try:
        return await home.asked("GET", path, query=query)
    except OverwinterError as error:
        raise ToolFailed(str(error)) from error
