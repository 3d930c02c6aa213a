"""What a route of the API asks of a token: a scope, and that the token concerns the agent. For requests over TCP alone.

A route without a row is refused over TCP to everybody. Whatever is done is done by the token's person: the door writes `by`
into the body, over whatever stood there, so no route can forget it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from overwinter.app import App
from overwinter.approval import approvers, named
from overwinter.errors import Denied, NotFound, UsageError
from overwinter.faces.bodies import READ
from overwinter.faces.problems import problem
from overwinter.frozen import frozen
from overwinter.grant import PREFIX
from overwinter.ids import ID_LENGTH
from overwinter.tokens import Scope, Token

__all__ = ["NEEDS", "Need", "guarded", "key_of", "refused"]

CALLER = "overwinter.caller"
"""Key of the ASGI scope under which the door leaves the token."""
Of = Literal["home", "agent", "named", "listed", "run", "runs", "question", "asked", "handle", "subject", "schedule"]
Endpoint = Callable[[Request], Awaitable[Response]]


@frozen
class Need:
    """What one route asks."""

    scope: Scope | Literal["open"] | None
    """None: it is not for tokens, only for the home's socket. `open`: for everybody, without one."""
    of: Of = "home"
    """Where it says whom it concerns: the whole home (then only a token for all agents will do), `agent` in body or query,
    the same but needed (`listed`), an agent in the path (`named`), a run, question or handle in the path, a run in the query (`runs`), `subject` in the body, a `schedule` in the path."""


NEEDS: Mapping[str, Need] = {
    "POST /v1/runs": Need(scope="act", of="agent"),
    "GET /v1/runs": Need(scope="read", of="listed"),
    "GET /v1/runs/{run}": Need(scope="read", of="run"),
    "GET /v1/runs/{run}/result": Need(scope="read", of="run"),
    "GET /v1/runs/{run}/source": Need(scope="read", of="run"),
    "GET /v1/runs/{run}/events": Need(scope="read", of="run"),
    "POST /v1/runs/{run}/messages": Need(scope="act", of="run"),
    "GET /v1/runs/{run}/hook": Need(scope="act", of="run"),
    "POST /v1/runs/{run}/cancel": Need(scope="act", of="run"),
    "POST /v1/runs/{run}/release": Need(scope="act", of="run"),
    "POST /v1/check": Need(scope="act", of="agent"),
    "GET /v1/questions": Need(scope="read", of="runs"),
    "GET /v1/questions/{question}": Need(scope="read", of="question"),
    "POST /v1/questions/{question}/answer": Need(scope="approve", of="asked"),
    "POST /v1/questions/{question}/approve": Need(scope="approve", of="question"),
    "POST /v1/questions/{question}/reject": Need(scope="approve", of="question"),
    "GET /v1/tools": Need(scope="read", of="agent"),
    "GET /v1/tools/search": Need(scope="read", of="agent"),
    "GET /v1/tools/describe": Need(scope="read", of="agent"),
    "GET /v1/tools/brief": Need(scope="read", of="agent"),
    "GET /v1/tools/pins": Need(scope="read"),
    "POST /v1/tools/refresh": Need(scope="admin"),
    "POST /v1/tools/accept": Need(scope="admin"),
    "GET /v1/values/{handle}": Need(scope="read", of="handle"),
    "GET /v1/agents": Need(scope="read"),
    "POST /v1/revoke": Need(scope="admin", of="subject"),
    "POST /v1/restore": Need(scope="admin", of="agent"),
    "GET /v1/tokens": Need(scope="admin"),
    "POST /v1/tokens": Need(scope=None),
    "GET /.well-known/jwks.json": Need(scope="open"),
    "POST /v1/issuer/rotate": Need(scope="admin"),
    "GET /v1/agents/{agent}": Need(scope="read", of="named"),
    "GET /v1/agents/{agent}/document": Need(scope="read", of="named"),
    "GET /v1/grants": Need(scope="read"),
    "POST /v1/grants": Need(scope="admin", of="agent"),
    "GET /v1/policy/check": Need(scope="read"),
    "POST /v1/policy/explain": Need(scope="read", of="agent"),
    "GET /v1/policy/explain/{handle}": Need(scope="read", of="handle"),
    "GET /v1/policy/suggest": Need(scope="admin", of="agent"),
    "GET /v1/policy/shadow": Need(scope="admin"),
    "POST /v1/policy/simulate": Need(scope=None),
    "POST /v1/policy/reload": Need(scope="admin"),
    "GET /v1/audit": Need(scope="admin"),
    "GET /v1/audit/key": Need(scope="read"),
    "POST /v1/audit/key/rotate": Need(scope="admin"),
    "POST /v1/audit/witness": Need(scope="admin"),
    "GET /v1/audit/{seq}": Need(scope="admin"),
    "GET /v1/audit/{seq}/proof": Need(scope="admin"),
    "GET /v1/gateway/models": Need(scope="read", of="agent"),
    "POST /v1/gateway/test": Need(scope="models", of="agent"),
    "GET /v1/gateway/usage": Need(scope="read"),
    "GET /v1/gateway/budgets": Need(scope="read"),
    "GET /v1/gateway/calls": Need(scope="read"),
    "GET /v1/gateway/calls/{call}": Need(scope="read"),
    "POST /v1/gateway/calls/{call}/cost": Need(scope="admin"),
    "GET /metrics": Need(scope="read"),
    "GET /v1/webhooks": Need(scope="read"),
    "POST /v1/webhooks/{webhook}/retry": Need(scope="admin"),
    "POST /v1/webhooks/{webhook}/test": Need(scope="admin"),
    "GET /v1/schedules": Need(scope="read", of="listed"),
    "POST /v1/schedules": Need(scope="act", of="agent"),
    "GET /v1/schedules/{schedule}": Need(scope="read", of="schedule"),
    "POST /v1/schedules/{schedule}/{verb}": Need(scope="admin", of="schedule"),
    "GET /v1/health": Need(scope="read"),
    "POST /v1/collect": Need(scope="admin"),
    "GET /openapi.json": Need(scope="open"),
    "GET /healthz": Need(scope="open"),
    "GET /readyz": Need(scope="open"),
}


def key_of(route: Route) -> str:
    """Return the row of a route: its method and path."""
    methods = sorted((route.methods or set()) - {"HEAD"})
    return f"{'|'.join(methods)} {route.path}"


def guarded(routes: Sequence[Route], app: App, read: Callable[[Request], Awaitable[dict[str, Any]]]) -> list[Route]:
    """Return the routes for TCP: each with its need before it.

    Args:
        routes: of the API.
        app: looks runs and questions up.
        read: returns the JSON object of a request's body.
    """
    return [
        Route(each.path, _guarded(each.endpoint, key_of(each), app, read), methods=sorted(each.methods or ()))
        for each in routes
    ]


def refused(status: int, kind: str, message: str, challenge: str | None = None, *, exit_code: int = 2) -> Response:
    """Return an error answer; `challenge` is its `WWW-Authenticate`."""
    body = {"error": {"type": kind, "message": message, "exit_code": exit_code}}
    return problem(status, body, {"www-authenticate": challenge} if challenge else None)


def _guarded(endpoint: Endpoint, key: str, app: App, read: Callable[[Request], Awaitable[dict[str, Any]]]) -> Endpoint:
    need = NEEDS.get(key, Need(scope=None))
    if need.scope == "open":
        return endpoint

    async def answer(request: Request) -> Response:
        token: Token = request.scope[CALLER]
        if need.scope is None:
            return refused(403, "Denied", f"{key} is for the home's own socket: no token opens it", exit_code=7)
        if need.scope not in token.scopes:
            message = f"{key} needs the scope {need.scope!r}; token {token.id} has {', '.join(token.scopes)}"
            challenge = f'Bearer realm="overwinter", error="insufficient_scope", scope="{need.scope}"'
            return refused(403, "Denied", message, challenge, exit_code=7)
        body = None if request.method in ("GET", "HEAD") else {**await read(request), "by": token.person}
        await _judge(need.of, token, request, body or {}, app)
        if body is not None:
            request.scope[READ] = body
        return await endpoint(request)

    return answer


async def _judge(of: Of, token: Token, request: Request, body: Mapping[str, Any], app: App) -> None:
    """Refuse what concerns other agents than the token does. Names in the path become whole ids, so that what was judged is done.

    Raises:
        Denied: it does, or another person is asked.
        NotFound: there is no such run for this token.
    """
    path, query = request.path_params, request.query_params
    match of:
        case "home":
            _concerned(token, "*", "the whole home")
        case "agent" | "named" | "listed":
            await _of_agent(of, token, request, body, app)
        case "run":
            path["run"] = await _run(token, path["run"], app)
        case "runs":
            await _queried(token, query, app)
        case "question":
            path["question"] = await _question(token, path["question"], app)
        case "asked":
            path["question"] = await _question(token, path["question"], app)
            await _is_asked(token, path["question"], app)
        case "handle":
            run, colon, place = path["handle"].partition(":")
            path["handle"] = f"{await _run(token, run, app)}{colon}{place}"
        case "schedule":
            path["schedule"] = await _schedule(token, path["schedule"], app)
        case "subject":
            await _subject(token, str(body.get("subject", "")), app)


async def _of_agent(of: Of, token: Token, request: Request, body: Mapping[str, Any], app: App) -> None:
    agent = _agent(of, request, body)
    _concerned(token, agent, "the whole home: name an agent, agent=NAME" if agent == "*" else f"agent {agent!r}")
    if isinstance(body.get("after"), str):  # a run to go on from
        await _run(token, body["after"], app)


def _agent(of: Of, request: Request, body: Mapping[str, Any]) -> str:
    """Return the agent that a request names; `*` if it concerns all."""
    match of:
        case "named":
            return str(request.path_params["agent"])
        case "listed":
            return request.query_params.get("agent", "*")
        case _:
            return str(body.get("agent", "default")) if body else request.query_params.get("agent", "default")


def _concerned(token: Token, agent: str, what: str) -> None:
    is_meant = token.agents == "*" if agent == "*" else token.concerns(agent)
    if not is_meant:
        raise Denied(f"token {token.id} is for agents {token.agents!r}, not for {what}")


async def _queried(token: Token, query: Mapping[str, str], app: App) -> None:
    if "run" in query:
        await _run(token, query["run"], app)
    else:
        _concerned(token, "*", "the whole home: name a run, run=ID")


async def _question(token: Token, text: str, app: App) -> str:
    run, _, index = text.rpartition(":")
    return f"{await _run(token, run, app)}:{index}"


async def _run(token: Token, text: str, app: App) -> str:
    """Return the id of a run that a token concerns; of others it is not even told that there are any."""
    if token.agents != "*" and len(text) != ID_LENGTH:
        raise UsageError(f"token {token.id} is for agents {token.agents!r}: with it a run is named by its whole id")
    run = await app.run(await app.resolve(text))
    if not token.concerns(run.agent):
        raise NotFound(f"there is no run {text.upper()!r}: `overwinter ps --all` lists them")
    return run.run_id


async def _schedule(token: Token, text: str, app: App) -> str:
    """Return what names a schedule, if a token concerns its agent; of others it is not even told that there are any."""
    if token.agents == "*":
        return text
    found = next((each for each in await app.schedules.listed() if each.id == text), None)
    if found is None or not token.concerns(found.agent):
        raise NotFound(
            f"there is no schedule {text!r} of agents {token.agents!r}: with token {token.id} one is named by its whole id"
        )
    return found.id


async def _is_asked(token: Token, question: str, app: App) -> None:
    record = await app.question(question)
    is_gated = record.gate is not None and not record.gate.is_used
    if token.person not in (approvers(record.gate) if record.gate and is_gated else named(record.person or "")):
        raise Denied(f"{record.person} is asked {question}, not {token.person}")


async def _subject(token: Token, subject: str, app: App) -> None:
    """Judge what is to be revoked: an agent or a run that the token concerns; tokens and grants are of the whole home."""
    if any(each.name == subject for each in await app.governance.identities()):
        _concerned(token, subject, f"agent {subject!r}")
    elif await app.access.token(subject) is not None:
        _concerned(token, "*", "other tokens")
    elif subject.startswith(PREFIX):
        _concerned(token, "*", "grants")
    else:
        await _run(token, subject, app)
