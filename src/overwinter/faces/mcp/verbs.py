"""The five tools of the MCP face: look up, run a program, wait for it. A connection is never the run.

A program that has not ended within `WAIT_S`, or that waits for a person, goes on; its client gets the run's id, and `wait` for later.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import anyio

from overwinter.app import App
from overwinter.check import report
from overwinter.clock import SECOND_US
from overwinter.errors import CheckFailed, NotFound, OverwinterError, UsageError
from overwinter.events import Status
from overwinter.excerpt import CHARACTERS_MAX, excerpt
from overwinter.faces import wire
from overwinter.frozen import frozen
from overwinter.readable import readable
from overwinter.store import CallRecord, RunRecord
from overwinter.values import Value

__all__ = ["LISTED", "TOOLS", "WAIT_S", "Call", "Told", "perform", "rejoin", "stands"]

WAIT_S = 20.0
"""Clients give up on a call after 60 s, some sooner."""
PRINTED_CHARACTERS = 4_000
REFUSED_CHARACTERS = 800
"""Of what is said of a call: it may quote what came, and that may be long."""
_ALWAYS = {"anthropic/alwaysLoad": True}
"""Claude Code hides tools until it searches for them, and then sends its first request without these."""
_TEXT = {"type": "string"}


def _tool(
    name: str, description: str, properties: Mapping[str, Any], *, needs: tuple[str, ...], is_read: bool
) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(needs)}
    hints = {"readOnlyHint": is_read} if is_read else {"readOnlyHint": False, "destructiveHint": True}
    return {
        "name": name, "description": description, "inputSchema": schema, "annotations": {**hints, "openWorldHint": True},
        "_meta": _ALWAYS,
    }  # fmt: skip


LISTED = [
    _tool(
        "search", "Find functions by what they do.", {"query": _TEXT, "service": _TEXT}, needs=("query",), is_read=True
    ),
    _tool(
        "describe", "Types of functions.", {"names": {"type": "array", "items": _TEXT}}, needs=("names",), is_read=True
    ),
    _tool("query", "Run a program that only reads.", {"code": _TEXT, "after": _TEXT}, needs=("code",), is_read=True),
    _tool(
        "execute",
        "Run a program; it may run for days. after: a run whose variables stay.",
        {"code": _TEXT, "after": _TEXT},
        needs=("code",),
        is_read=False,
    ),
    _tool("wait", "Wait for a run.", {"run": _TEXT}, needs=("run",), is_read=True),
]
"""In this order for ever: providers keep what stands before a conversation."""


@frozen
class Told:
    """What a call of a tool is answered."""

    body: Mapping[str, Value]
    is_error: bool = False
    text: str | None = None
    """For the model; None: the body as JSON."""
    run_id: str | None = None
    """The run that goes on."""
    calls: Sequence[CallRecord] = ()
    """What it waits for."""

    def content(self) -> dict[str, Any]:
        """Return it as the protocol has it."""
        text = json.dumps(self.body, ensure_ascii=False) if self.text is None else self.text
        return {
            "content": [{"type": "text", "text": text}],
            "structuredContent": dict(self.body),
            "isError": self.is_error,
        }


@frozen
class Call:
    """A call of a tool."""

    app: App
    agent: str
    by: str
    """Who made it, for people."""
    arguments: Mapping[str, Any]
    begun: Callable[[str], None]
    """Told the run that it began, before anything is waited for."""
    dedup: str | None = None
    """A second call with the same key goes on with the first one's run."""
    waits: Callable[[str], None] = lambda _: None
    """Told the run that is waited for."""
    wait_s: float = WAIT_S
    """How long a run is waited for."""


async def perform(name: str, call: Call) -> Told:
    """Carry out a call of a tool for an agent; what goes wrong with it is an answer, for the model can mend it.

    Raises:
        UsageError: there is no such tool: a mistake of the client.
    """
    verb = TOOLS.get(name)
    if verb is None:
        raise UsageError(f"there is no tool {name!r}; there are {', '.join(TOOLS)}")
    schema = next(each["inputSchema"] for each in LISTED if each["name"] == name)
    try:
        _fits(name, call.arguments, schema)
        return await verb(call)
    except CheckFailed as error:
        return Told(body=report(error.findings), is_error=True)  # type: ignore[arg-type] - what raised it made them of `Finding`
    except OverwinterError as error:
        return _refused(error)


async def rejoin(call: Call, run_id: str) -> Told:
    """Wait on for a run that an earlier call has begun."""
    try:
        return await stands(call.app, await _rested(call, run_id))
    except OverwinterError as error:
        return _refused(error)


def _refused(error: Exception) -> Told:
    return Told(body={"status": "refused", "error": str(error)[:REFUSED_CHARACTERS]}, is_error=True)


async def _search(asked: Call) -> Told:
    found = asked.app.search(asked.arguments["query"], agent=asked.agent, service=asked.arguments.get("service"))
    lines = [hit.line() for hit in found]
    return Told(body={"functions": lines}, text="\n".join(lines) or "nothing fits")


async def _describe(asked: Call) -> Told:
    try:
        text = asked.app.describe(asked.arguments["names"], agent=asked.agent)
    except ValueError as error:  # what a program would get
        raise UsageError(str(error)) from error
    return Told(body={"stubs": text}, text=text)


async def _query(asked: Call) -> Told:
    return await _run(asked, only_reads=True)


async def _execute(asked: Call) -> Told:
    return await _run(asked, only_reads=False)


async def _run(asked: Call, *, only_reads: bool) -> Told:
    after = asked.arguments.get("after")
    run_id = await asked.app.start(
        asked.arguments["code"], agent=asked.agent, name="mcp", by=asked.by, only_reads=only_reads,
        dedup=asked.dedup,
        after=None if after is None else (await _own(asked, after)).run_id, keeps=True,
    )  # fmt: skip
    asked.begun(run_id)
    return await stands(asked.app, await _rested(asked, run_id))


async def _wait(asked: Call) -> Told:
    run = await _own(asked, asked.arguments["run"])
    return await stands(asked.app, await _rested(asked, run.run_id))


async def _own(asked: Call, text: str) -> RunRecord:
    """Return a run of the agent that asks; of another agent's it is not even told that there is one.

    Raises:
        NotFound: it has none of that name, or several.
    """
    try:
        run = await asked.app.run(await asked.app.resolve(text))
    except OverwinterError as error:
        raise NotFound(f"there is no run {text[:100]!r} of agent {asked.agent!r}: give its whole id") from error
    if run.agent != asked.agent:
        raise NotFound(f"there is no run {text[:100]!r} of agent {asked.agent!r}: give its whole id")
    return run


async def _rested(asked: Call, run_id: str) -> RunRecord:
    """Return a run when it has ended, or nothing will move it soon: it waits for a person, a message or a distant timer."""
    app = asked.app
    asked.waits(run_id)
    run = await app.run(run_id)
    with anyio.move_on_after(asked.wait_s):
        while run.status is Status.LIVE and not run.is_revoked:
            calls = await app.calls(run_id)
            is_quiet = bool(calls) and all(each.person is not None or each.call.effect == "wait" for each in calls)
            if is_quiet and not run.is_ready and (run.due_us is None or run.due_us > app.now_us() + WAIT_S * SECOND_US):
                break
            await app.committed(run_id, run.events)
            run = await app.run(run_id)
    return await app.run(run_id)


async def stands(app: App, run: RunRecord) -> Told:
    """Return how a run stands."""
    printed = str(await app.read(f"{run.run_id}:out", characters_max=None))
    body: dict[str, Value] = {"run": run.run_id, "status": run.status.name.lower()}
    if printed:
        cut = len(printed) - PRINTED_CHARACTERS
        more = f"[{cut} characters more: tools.read('{run.run_id}:out', '[{PRINTED_CHARACTERS}:]')]\n"
        body["printed"] = printed if cut <= 0 else printed[:PRINTED_CHARACTERS] + more
    match run.status:
        case Status.LIVE if not run.is_revoked:
            calls = await app.calls(run.run_id)
            body |= _waits(app, run, calls)
            return Told(body=body, run_id=run.run_id, calls=calls)
        case Status.FINISHED:
            left = CHARACTERS_MAX - len(str(body.get("printed", "")))
            body["value"] = excerpt(run.result, handle=run.run_id, characters_max=left)
            return Told(body=body)
        case _:
            body["error"] = readable(run.result) if run.result is not None else app.reason(run, ())
            return Told(body=body, is_error=True)


def _waits(app: App, run: RunRecord, calls: Sequence[CallRecord]) -> dict[str, Value]:
    asks: list[Value] = [
        {key: shown[key] for key in ("question", "person", "text", "options")}
        for each in calls
        if each.person is not None
        for shown in [wire.call(each)]
    ]
    body: dict[str, Value] = {
        "waits": app.reason(run, calls),
        "next": f"it goes on by itself: wait(run={run.run_id!r})",
    }
    if asks:
        body["asks"] = asks
        body["answer"] = "a person answers: overwinter inbox"
    return body


TOOLS: Mapping[str, Callable[[Call], Awaitable[Told]]] = {
    "search": _search, "describe": _describe, "query": _query, "execute": _execute, "wait": _wait,
}  # fmt: skip


def _fits(name: str, arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    known: Mapping[str, Any] = schema["properties"]
    for given, value in arguments.items():
        if given not in known:
            raise UsageError(f"{name} has no argument {given!r}; it has {', '.join(known)}")
        is_list = known[given]["type"] == "array"
        items = cast("list[Any]", value) if isinstance(value, list) else [value]
        if isinstance(value, list) != is_list or not all(isinstance(each, str) for each in items):
            raise UsageError(f"{given} of {name} is {'a list of texts' if is_list else 'a text'}")
    missing = [each for each in schema["required"] if each not in arguments]
    if missing:
        raise UsageError(f"{name} needs {', '.join(missing)}")
