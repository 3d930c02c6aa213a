"""`POST /mcp`: one message in, one answer out. Raw ASGI before the API, as the models' door is.

A client that leaves before it was told a run's id has ended what it asked for, from 2026-07-28 on; before, leaving means nothing, and
whoever has the id waits on for the run from anywhere.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from overwinter.app import App
from overwinter.errors import Denied, OverwinterError, UsageError
from overwinter.faces import wire
from overwinter.faces.bodies import KEY_LENGTH_MAX
from overwinter.faces.callers import actor_of
from overwinter.faces.mcp import elicitation, protocol, tasks, verbs
from overwinter.faces.mcp.answers import Answer, token_of
from overwinter.faces.mcp.protocol import Asked, Fault
from overwinter.faces.scopes import CALLER
from overwinter.tokens import Token

__all__ = ["AGENT", "BRIDGE", "INTRODUCTION", "PATH", "McpDoor"]

PATH = "/mcp"
AGENT = "x-overwinter-agent"
"""Names the agent, where a token stands for several, or nobody needs one."""
BRIDGE = "x-overwinter-bridge"
"""On the home's own socket: the message came over stdio, so no header of HTTP says anything of it."""
BODY_BYTES_MAX = 4 << 20
KEY = "idempotency-key"
PROGRESS_S = 2.0
SCOPE = "act"
INTRODUCTION = (
    "search and describe look functions up, execute runs a program, query one that only reads, wait waits on.\n\n"
)
"""With the first lines of the brief it stands alone where a client keeps no more than 512 characters."""


@dataclass(slots=True)
class _Under:
    """A request under way."""

    answer: Answer
    receive: Receive
    token: str | int | None
    """By which its client knows its progress; None: it wants to know of none."""
    key: str | None
    """Under which it may come again."""
    run_id: str | None = None
    """What it began."""
    waits_for: str | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class McpDoor:
    """An ASGI application before another: answers what is sent to `/mcp`.

    Args:
        inner: gets everything else.
        app: whose programs.
        is_remote: it stands behind `bearer.Bearer`, which leaves a token in the scope.
        progress_s: between two words of how a call goes, to clients that want them.
    """

    def __init__(self, inner: ASGIApp, app: App, *, is_remote: bool, progress_s: float = PROGRESS_S) -> None:
        self._inner, self._app, self._is_remote = inner, app, is_remote
        self._progress_s = progress_s
        self._declined = tasks.Declined()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["path"] != PATH:
            await self._inner(scope, receive, send)
            return
        if scope["method"] != "POST":
            await Answer(send).end(405, None, {"allow": "POST"})
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        is_bridged = not self._is_remote and BRIDGE in headers
        try:
            asked = protocol.read(await _body(receive, headers), {} if is_bridged else headers)
        except Fault as error:
            await Answer(send).end(error.status, protocol.fault(error))
            return
        under = _Under(
            answer=Answer(send),
            receive=receive,
            token=token_of(asked, headers),
            key=headers.get(KEY),
        )
        try:
            status, body = await self._answer(asked, scope, headers, under)
        except Fault as error:
            status, body = _refusal(asked, error)
        except OverwinterError as error:
            status, body = _refusal(asked, Fault(-32603, str(error), status=wire.status_of(error)))
        except Exception as error:
            message = f"{asked.method[:100]}: {type(error).__name__}: this is a bug; the server's log has its place"
            await under.answer.end(*_refusal(asked, Fault(-32603, message, status=500)))
            raise
        await under.answer.end(status, body)

    async def _answer(
        self, asked: Asked, scope: Scope, headers: Mapping[str, str], under: _Under
    ) -> tuple[int, dict[str, Any] | None]:
        if asked.id is None:
            return 202, None
        try:
            agent = self._agent(scope, headers)
        except OverwinterError as error:
            raise Fault(-32602, str(error), status=403) from error
        told: dict[str, Any]
        is_listed = asked.method in ("server/discover", "tools/list")
        match asked.method:
            case "initialize" if not asked.is_present:
                told = protocol.initialized(asked, self._instructions(agent))
            case "ping" if not asked.is_present:
                told = {}
            case "server/discover" if asked.is_present:
                told = {
                    "supportedVersions": [protocol.PRESENT, *protocol.EARLIER],
                    "capabilities": {"tools": {}, "extensions": {tasks.EXTENSION: {}}},
                    "instructions": self._instructions(agent),
                }
            case "tools/list":
                told = {"tools": verbs.LISTED}
            case "tools/call":
                return 200, await self._call(asked, agent, scope, under)
            case method if asked.is_present and method in tasks.METHODS:
                told = await self._task(asked, agent, scope)
            case _:
                raise Fault(-32601, f"{asked.method[:100]!r} is no method here", status=404)
        return 200, protocol.result(asked, told, is_listed=is_listed)

    async def _call(self, asked: Asked, agent: str, scope: Scope, under: _Under) -> dict[str, Any]:
        name, arguments = asked.params.get("name"), asked.params.get("arguments", {})
        if under.key is not None and len(under.key) > KEY_LENGTH_MAX:
            raise Fault(-32600, f"a key has at most {KEY_LENGTH_MAX} characters, not {len(under.key)}")
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise Fault(-32602, "tools/call has a name, and arguments that are an object")
        by, key, now_us = str(actor_of(scope, "")), self._app.key_for("MCP requestState"), self._app.now_us()
        state = elicitation.unseal(asked, key, agent=agent, by=by, now_us=now_us) if asked.is_present else None

        def began(run_id: str) -> None:
            under.run_id = run_id

        def waits(run_id: str) -> None:
            under.waits_for = run_id

        is_task = tasks.is_declared(asked) and name in ("query", "execute")
        call = verbs.Call(
            app=self._app, agent=agent, by=by, arguments=cast("Mapping[str, Any]", arguments), begun=began, waits=waits,
            dedup=under.key and f"mcp {agent} {by} {under.key}",
            wait_s=tasks.PATIENCE_S if is_task else verbs.WAIT_S,
        )  # fmt: skip
        if state is None:
            work = partial(verbs.perform, name, call)
        else:
            state = await elicitation.taken(self._app, state, asked.params.get("inputResponses"), scope)
            work = partial(verbs.rejoin, call, state.run_id)
        told = await self._done(asked, work, under)
        if told is None:  # its client has gone: nobody reads this
            return protocol.result(asked, {})
        if told.run_id is not None and is_task:
            run = await self._app.run(told.run_id)
            forms = self._forms(asked, told, (), scope)
            return protocol.result(asked, tasks.shown(run, told, forms, is_new=True), kind="task")
        if told.run_id is not None:
            state = state or elicitation.begun(asked, told.run_id, agent=agent, by=by, now_us=now_us)
            if forms := self._forms(asked, told, state.left, scope):
                body = {"inputRequests": forms, "requestState": elicitation.seal(state, key)}
                return protocol.result(asked, body, kind="input_required")
        return protocol.result(asked, told.content())

    async def _task(self, asked: Asked, agent: str, scope: Scope) -> dict[str, Any]:
        """Answer a request for a task."""
        tasks.needed(asked)
        run, by = await tasks.found(self._app, asked, agent), str(actor_of(scope, ""))
        match asked.method:
            case "tasks/cancel":
                await self._app.cancel(run.run_id, by=by, reason="its client cancelled the task")
                return {}
            case "tasks/update":
                state = elicitation.begun(asked, run.run_id, agent=agent, by=by, now_us=self._app.now_us())
                state = await elicitation.taken(self._app, state, asked.params.get("inputResponses"), scope)
                self._declined.add(by, run.run_id, state.left)
                return {}
            case _:
                told = await verbs.stands(self._app, run)
                forms = self._forms(asked, told, self._declined.of(by, run.run_id), scope)
                return tasks.shown(run, told, forms, is_new=False)

    def _forms(self, asked: Asked, told: verbs.Told, left: Sequence[int], scope: Scope) -> dict[str, Any]:
        """Return what is put to the person at the client, if it shows forms: what they may answer, and did not decline."""
        if not elicitation.is_offered(asked):
            return {}
        asked_of = elicitation.questions(told.calls, scope, has_claims=self._app.config.approvals.claims)
        return elicitation.requests([each for each in asked_of if each.call.index not in left])

    async def _done(self, asked: Asked, work: Callable[[], Awaitable[verbs.Told]], under: _Under) -> verbs.Told | None:
        """Do what a call asks for; None: its client left meanwhile."""
        told: verbs.Told | None = None
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            if asked.is_present:
                group.start_soon(self._watch, under)
            if under.token is not None:
                group.start_soon(self._tell, under.token, under)
            with under.scope:
                try:
                    told = await work()
                except Exception as error:  # noqa: BLE001 - raised below as itself, not in the task group's wrapping
                    failure = error
            group.cancel_scope.cancel()
        if isinstance(failure, UsageError):
            raise Fault(-32602, str(failure)) from failure
        if failure is not None:
            raise failure
        return told

    async def _watch(self, under: _Under) -> None:
        """Cancel a run whose client leaves before it was told of it."""
        while (await under.receive())["type"] != "http.disconnect":
            pass
        under.scope.cancel()
        if under.run_id is not None:
            with anyio.CancelScope(shield=True), suppress(OverwinterError):  # nobody is left to be told
                await self._app.cancel(under.run_id, by="its client", reason="it left before it was told the run's id")

    async def _tell(self, token: str | int, under: _Under) -> None:
        """Say every while how the run stands that a call waits for: clients give up on what is silent."""
        began = anyio.current_time()
        while True:
            await anyio.sleep(self._progress_s)
            if under.waits_for is None:
                continue
            with suppress(OverwinterError):  # a word less is no reason to fail
                run = await self._app.run(under.waits_for)
                message = self._app.reason(run, await self._app.calls(run.run_id))
                await under.answer.progress(token, anyio.current_time() - began, message)

    def _instructions(self, agent: str) -> str:
        return INTRODUCTION + self._app.brief(agent=agent)

    def _agent(self, scope: Scope, headers: Mapping[str, str]) -> str:
        """Return under whose identity a client acts: what its token or the home's own socket says, never what it says of itself.

        Raises:
            OverwinterError: it may not.
        """
        wanted, token = headers.get(AGENT, ""), scope.get(CALLER)
        agent = wanted or "default"
        if self._is_remote:
            assert isinstance(token, Token), "who came in over TCP has a token"
            if SCOPE not in token.scopes:
                raise Denied(f"programs need the scope {SCOPE!r}; token {token.id} has {', '.join(token.scopes)}")
            agent = wanted or ("default" if re.search(r"[*?\[]", token.agents) else token.agents)
            if not token.concerns(agent):
                raise Denied(
                    f"token {token.id} is for agents {token.agents!r}, not for {agent!r}: {AGENT} names another"
                )
        if agent not in self._app.config.agents:
            raise Denied(f"there is no agent {agent!r} in overwinter.toml")
        return agent


def _refusal(asked: Asked, error: Fault) -> tuple[int, dict[str, Any]]:
    """Return the status and body of a refused request; before 2026-07-28 a refusal is an answer like any other."""
    error.id = asked.id
    return error.status if asked.is_present else 200, protocol.fault(error)


async def _body(receive: Receive, headers: Mapping[str, str]) -> bytes:
    """Return a request's body.

    Raises:
        Fault: it is too large, no JSON, or its client left.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Fault(-32600, "a message is application/json", status=415)
    parts, size_bytes = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Fault(-32600, "the client left before its request was whole")
        size_bytes += len(message.get("body", b""))
        if size_bytes > BODY_BYTES_MAX:
            raise Fault(-32600, f"the body has more than {BODY_BYTES_MAX >> 20} MB", status=413)
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
