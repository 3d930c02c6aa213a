"""The HTTP API: JSON over the App, on the home's unix socket, and on TCP with tokens."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, cast

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Match, Route

from overwinter.app import App
from overwinter.check import report
from overwinter.errors import NotFound, OverwinterError, UsageError
from overwinter.events import Status
from overwinter.excerpt import CHARACTERS_MAX, CHARACTERS_MIN
from overwinter.faces import wire
from overwinter.faces.audit_api import routes as audit_routes
from overwinter.faces.bodies import NUMBER_MAX, number_of
from overwinter.faces.bodies import body_of as _body
from overwinter.faces.bodies import field as _field
from overwinter.faces.bodies import key_of as _key
from overwinter.faces.callers import ACTOR, actor_of, known
from overwinter.faces.fields import named
from overwinter.faces.identities import identity_routes
from overwinter.faces.model_api import model_routes
from overwinter.faces.openapi import openapi_routes
from overwinter.faces.pages import PAGE_MAX, after_of, id_of, limit_of, place_of
from overwinter.faces.policies import policy_routes
from overwinter.faces.problems import problem
from overwinter.faces.repeats import repeatable
from overwinter.faces.schedules import schedule_routes
from overwinter.faces.scopes import guarded
from overwinter.faces.tokens import token_routes
from overwinter.faces.webhooks import webhook_routes
from overwinter.grant import PREFIX
from overwinter.store import Page

__all__ = ["api"]

NOT_ALLOWED = 405
CHARACTERS_LIMIT = 1_000_000
FUNCTIONS_MAX = 100
SECONDS_MAX = 100 * 365 * 86_400.0
WAIT_S_MAX = 60.0
"""Longest time that one request waits for a run's end; a client asks again."""


ALIVE_S = 15.0
"""Pause between two signs of life on an event stream: shorter than the time-outs of proxies."""
STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def api(app: App, stop: anyio.Event | None = None, *, is_remote: bool = False) -> Starlette:
    """Return the HTTP face of an App.

    Args:
        app: what it speaks for.
        stop: set when the server ends: requests that only wait are answered at once.
        is_remote: it is for TCP, behind `bearer.Bearer`: each route asks for its scope.
    """
    face, tools, agents = _Api(app, stop or anyio.Event()), _Tools(app), _Agents(app)
    routes = [
        Route("/v1/runs", face.start, methods=["POST"]),
        Route("/v1/runs", face.runs),
        Route("/v1/runs/{run}", face.show),
        Route("/v1/runs/{run}/result", face.result),
        Route("/v1/runs/{run}/source", face.source),
        Route("/v1/runs/{run}/events", face.events),
        Route("/v1/runs/{run}/messages", face.send, methods=["POST"]),
        Route("/v1/runs/{run}/hook", face.hook),
        Route("/v1/runs/{run}/cancel", face.cancel, methods=["POST"]),
        Route("/v1/runs/{run}/release", face.release, methods=["POST"]),
        Route("/v1/check", face.check, methods=["POST"]),
        Route("/v1/questions", face.questions),
        Route("/v1/questions/{question}", face.question),
        Route("/v1/questions/{question}/answer", face.answer, methods=["POST"]),
        Route("/v1/tools", tools.listed),
        Route("/v1/tools/search", tools.search),
        Route("/v1/tools/describe", tools.describe),
        Route("/v1/tools/brief", tools.brief),
        Route("/v1/tools/pins", tools.pins),
        Route("/v1/tools/refresh", tools.refresh, methods=["POST"]),
        Route("/v1/tools/accept", tools.accept, methods=["POST"]),
        Route("/v1/values/{handle}", face.value),
        Route("/v1/questions/{question}/approve", agents.approve, methods=["POST"]),
        Route("/v1/questions/{question}/reject", agents.reject, methods=["POST"]),
        Route("/v1/agents", agents.listed),
        Route("/v1/revoke", agents.revoke, methods=["POST"]),
        Route("/v1/restore", agents.restore, methods=["POST"]),
        *audit_routes(app),
        Route("/v1/health", face.health),
        Route("/v1/collect", face.collect, methods=["POST"]),
        *token_routes(app),
        *policy_routes(app),
        *identity_routes(app),
        *model_routes(app),
        *webhook_routes(app),
        *schedule_routes(app),
        *openapi_routes(app),
    ]
    routes = repeatable(named(routes), app)
    routes = guarded(routes, app, _body) if is_remote else known(routes, app)
    handlers = {OverwinterError: _operating_error, HTTPException: _http_error, Exception: _our_error}
    return Starlette(routes=routes, exception_handlers=cast("Any", handlers))


async def _operating_error(request: Request, error: OverwinterError) -> Response:
    del request
    return problem(wire.status_of(error), wire.error(error))


async def _our_error(request: Request, error: Exception) -> Response:
    message = (
        f"{request.method} {request.url.path}: {type(error).__name__}: this is a bug; the server's log has its place"
    )
    return problem(500, {"error": {"type": "InternalError", "message": message, "exit_code": 1}})


async def _http_error(request: Request, error: HTTPException) -> Response:
    message = f"{request.method} {request.url.path}: {error.detail}"
    headers = {"allow": _allowed(request)} if error.status_code == NOT_ALLOWED else error.headers
    return problem(error.status_code, {"error": {"type": "HTTPError", "message": message}}, headers)


def _allowed(request: Request) -> str:
    """Return the methods of a path: of all its routes, where Starlette names those of the first."""
    routes = cast("list[Route]", request.app.routes)
    found = [each for each in routes if each.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for each in found for method in each.methods or ()}))


class _Api:
    def __init__(self, app: App, stop: anyio.Event) -> None:
        self._app = app
        self._stop = stop

    async def start(self, request: Request) -> Response:
        body = await _body(request)
        limits: dict[str, Any] = {
            key: value
            for key, kind in (
                ("model", str),
                ("steps", int),
                ("usd", int | float),
                ("seconds", int | float),
                ("after", str),
            )
            if (value := _field(body, key, kind | None, None)) is not None
        }
        if "after" in limits:
            limits["after"] = await self._app.resolve(limits["after"])
        run_id = await self._app.start(
            _field(body, "source", str | None, None),
            goal=_field(body, "goal", str | None, None),
            agent=_field(body, "agent", str, "default"),
            name=_field(body, "name", str | None, None) or "",
            inputs=_field(body, "inputs", dict, {}),
            dedup=_key(request, body),
            by=body["by"],
            keeps=_field(body, "keep", bool, default=False),
            **limits,
        )
        return JSONResponse({"id": run_id}, status_code=201)

    async def hook(self, request: Request) -> Response:
        run = await self._app.run(await self._app.resolve(request.path_params["run"]))
        scheme, secret = request.query_params.get("signed_by"), request.query_params.get("secret")
        if (scheme is None) != (secret is None):
            raise UsageError("how a sender signs and with what are given together: signed_by and secret")
        path = (
            self._app.hook(run.run_id)
            if scheme is None
            else await self._app.hooks.signed_path(run.run_id, scheme, secret or "")
        )
        return JSONResponse({"run": run.run_id, "path": path})

    async def check(self, request: Request) -> Response:
        body = await _body(request)
        source, agent = _field(body, "source", str), _field(body, "agent", str, "default")
        after = _field(body, "after", str | None, None)
        after = None if after is None else await self._app.resolve(after)
        findings = await self._app.check(source, agent=agent, inputs=_field(body, "inputs", dict, {}), after=after)
        reach = wire.reach(self._app.rulebook.reach(source, agent))
        is_accepted = not any(each.is_certain for each in findings)
        rows = [wire.finding(each) for each in findings]
        return JSONResponse(
            {"is_accepted": is_accepted, "findings": rows, "reach": reach}
            | ({} if is_accepted else {"report": report(findings)})
        )

    async def runs(self, request: Request) -> Response:
        query = request.query_params
        statuses = [_status(name) for name in query.get("status", "").split(",") if name] or None
        page = Page(
            statuses=statuses,
            agent=query.get("agent"),
            name=query.get("name"),
            before=id_of(query.get("after", query.get("before"))),
            limit=limit_of(query),
        )
        found = await self._app.runs(page)
        reasons = await self._app.reasons(found)
        shown = [wire.run(run, reasons[run.run_id]) for run in found]
        counts = {status.name.lower(): count for status, count in (await self._app.counts()).items()}
        following = found[-1].run_id if len(found) == page.limit else None
        return JSONResponse({"runs": shown, "counts": counts, "following": following})

    async def show(self, request: Request) -> Response:
        run = await self._app.run(await self._run_id(request))
        calls = await self._app.calls(run.run_id)
        return JSONResponse(
            {
                **wire.run(run, self._app.reason(run, calls)),
                **await self._app.starter(run.run_id),
                "open_calls": [wire.call(each) for each in calls],
                "warnings": [wire.finding(each) for each in await self._app.warnings(run)],
            }
        )

    async def result(self, request: Request) -> Response:
        wait_s = min(WAIT_S_MAX, _seconds(request.query_params.get("wait_s", "0")))
        run_id = await self._run_id(request)
        await self._until_stop(partial(self._app.result, run_id, wait_s))
        return JSONResponse(wire.run(await self._app.run(run_id)))

    async def source(self, request: Request) -> Response:
        return Response(await self._app.source(await self._run_id(request)), media_type="text/x-python")

    async def events(self, request: Request) -> Response:
        run_id = await self._run_id(request)
        after = request.query_params.get("after", "-1")
        since = number_of("after", request.headers.get("last-event-id", after), least=-1, most=NUMBER_MAX - 1) + 1
        since = number_of("since", request.query_params.get("since", str(since)))
        if request.query_params.get("follow") in ("1", "true"):
            run = await self._app.run(run_id)
            if run.status is not Status.LIVE and since >= run.events:
                return Response(status_code=204)  # an EventSource takes this, and nothing else, as the end
            return StreamingResponse(
                self._stream(run_id, since), media_type="text/event-stream", headers=STREAM_HEADERS
            )
        limit = number_of("limit", request.query_params.get("limit", str(PAGE_MAX)), most=PAGE_MAX)
        events: list[dict[str, Any]] = []
        async for event in self._app.events(run_id, since=since):
            events.append(wire.event(event))
            if len(events) >= limit:
                break
        return JSONResponse({"events": events})

    async def _stream(self, run_id: str, since: int) -> AsyncIterator[str]:
        """Server-sent events; the id is the journal's position, so a dropped connection resumes without a gap.

        The stream of a run that has ended closes with an event `end`. A stream that closes without it was cut short.
        """
        with suppress(NotFound):  # the run was collected meanwhile: there is no more to come
            while not self._stop.is_set():
                async for event in self._app.events(run_id, since=since):
                    since = event.position + 1
                    yield f"id: {event.position}\nevent: {event.kind}\ndata: {json.dumps(wire.event(event))}\n\n"
                run = await self._app.run(run_id)
                if run.status is not Status.LIVE and since >= run.events:
                    break
                with anyio.move_on_after(ALIVE_S) as pause:
                    await self._until_stop(partial(self._app.committed, run_id, since))
                if pause.cancelled_caught:
                    yield ": alive\n\n"
            else:
                return
        yield "event: end\ndata: {}\n\n"

    async def _until_stop(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Wait, but no longer than the server lives."""
        async with anyio.create_task_group() as group:

            async def stop() -> None:
                await self._stop.wait()
                group.cancel_scope.cancel()

            group.start_soon(stop)
            await wait()
            group.cancel_scope.cancel()

    async def send(self, request: Request) -> Response:
        body = await _body(request)
        if "message" not in body:
            raise UsageError('a message is sent as {"message": VALUE}')
        run_id = await self._run_id(request)
        is_new = await self._app.send(run_id, body["message"], dedup=_key(request, body), by=body["by"])
        return JSONResponse({"is_new": is_new}, status_code=202)

    async def cancel(self, request: Request) -> Response:
        body = await _body(request)
        reason, run_id = _field(body, "reason", str, ""), await self._run_id(request)
        done = await self._app.cancel(run_id, by=body["by"], reason=reason, dedup=_key(request, body))
        return JSONResponse({"is_cancelled": done})

    async def release(self, request: Request) -> Response:
        body = await _body(request)
        await self._app.release(await self._run_id(request), by=body["by"], dedup=_key(request, body))
        return JSONResponse({"is_released": True})

    async def value(self, request: Request) -> Response:
        """Return a value by its handle, as JSON cut to a budget; `whole=1`: itself and uncut, a file as its bytes."""
        query, handle = request.query_params, request.path_params["handle"]
        path = query.get("path", "")
        if query.get("whole") != "1":
            most = number_of(
                "characters", query.get("characters", str(CHARACTERS_MAX)), least=CHARACTERS_MIN, most=CHARACTERS_LIMIT
            )
            return JSONResponse({"value": await self._app.read(handle, path, characters_max=most)})
        value = await self._app.read(handle, path, characters_max=None)
        body = value if isinstance(value, bytes) else json.dumps(wire.readable(value)).encode()
        # Never as what its service says it is: a browser would show, or run, what it is told to.
        headers = {"content-disposition": "attachment", "x-content-type-options": "nosniff"}
        return Response(body, media_type="application/octet-stream", headers=headers)

    async def questions(self, request: Request) -> Response:
        query = request.query_params
        run = query.get("run")
        found, following = await self._app.inbox.page(
            await self._app.resolve(run) if run else None, after=after_of(query.get("after")), limit=limit_of(query)
        )
        return JSONResponse({"questions": [wire.call(each) for each in found], "following": place_of(following)})

    async def question(self, request: Request) -> Response:
        return JSONResponse(wire.call(await self._app.question(request.path_params["question"])))

    async def answer(self, request: Request) -> Response:
        body = await _body(request)
        question, answer = request.path_params["question"], _field(body, "answer", str)
        by = request.scope.get(ACTOR, body["by"])
        await self._app.answer(question, answer, by=by, dedup=_key(request, body))
        return JSONResponse({"is_answered": True})

    async def health(self, request: Request) -> Response:
        del request
        return JSONResponse(wire.readable(dict(await self._app.health())))

    async def collect(self, request: Request) -> Response:
        body = await _body(request)
        done = await self._app.collect(older_than_s=_seconds(body.get("older_than_s")))
        return JSONResponse(
            {"runs": done.runs, "events": done.events, "programs": done.programs, "dedups": done.dedups}
        )

    async def _run_id(self, request: Request) -> str:
        return await self._app.resolve(request.path_params["run"])


class _Tools:
    """What the home's services offer."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def listed(self, request: Request) -> Response:
        prefix = request.query_params.get("prefix")
        limit = number_of("limit", request.query_params.get("limit", "100"), most=FUNCTIONS_MAX)
        if prefix:
            found = self._app.browse(prefix, agent=_agent(request), limit=limit)
            return JSONResponse({"functions": [wire.hit(each) for each in found]})
        return JSONResponse({"services": [wire.source(each) for each in self._app.sources()]})

    async def search(self, request: Request) -> Response:
        query = request.query_params
        limit = number_of("limit", query.get("limit", "8"), most=FUNCTIONS_MAX)
        found = self._app.search(
            query.get("query", ""), agent=_agent(request), service=query.get("service"), limit=limit
        )
        return JSONResponse({"functions": [wire.hit(each) for each in found]})

    async def describe(self, request: Request) -> Response:
        try:
            text = self._app.describe(request.query_params.getlist("name"), agent=_agent(request))
        except ValueError as error:
            raise UsageError(str(error)) from None
        return JSONResponse({"text": text})

    async def brief(self, request: Request) -> Response:
        return JSONResponse({"text": self._app.brief(agent=_agent(request))})

    async def pins(self, request: Request) -> Response:
        is_all = request.query_params.get("all") in ("1", "true")
        return JSONResponse({"pins": [wire.pin(each) for each in self._app.pins(is_different=not is_all)]})

    async def refresh(self, request: Request) -> Response:
        service = _field(await _body(request), "service", str, None)
        done = await self._app.refresh(service)
        different = [wire.pin(each) for each in self._app.pins()]
        return JSONResponse({"imported": list(done.imported), "failed": dict(done.failed), "different": different})

    async def accept(self, request: Request) -> Response:
        names = _field(await _body(request), "names", list)
        wanted = [each.name for each in self._app.pins() if any(fnmatchcase(each.name, str(name)) for name in names)]
        return JSONResponse({"accepted": wanted, "changed": self._app.accept(wanted)})


class _Agents:
    """Who may act here."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def listed(self, request: Request) -> Response:
        query, limit = request.query_params, limit_of(request.query_params, PAGE_MAX)
        names = [each for each in await self._app.governance.identities() if each.name > query.get("after", "")]
        following = names[limit - 1].name if len(names) > limit else None
        standing, now_us = self._app.models.standing, self._app.access.now_us()
        rows = [
            {**wire.identity(each, now_us), "budgets": [wire.spent(one) for one in await standing(each.name)]}
            for each in names[:limit]
        ]
        return JSONResponse({"agents": rows, "following": following})

    async def revoke(self, request: Request) -> Response:
        """Revoke an agent with all below it, a run, a token or a grant: whichever has this name."""
        body = await _body(request)
        subject, governance = _field(body, "subject", str), self._app.governance
        said = {"by": body["by"], "reason": _field(body, "reason", str, "")}
        if any(each.name == subject for each in await governance.identities()):
            revocation = await governance.revoke(subject, **said)
        elif await self._app.access.token(subject) is not None:
            revoked = await self._app.access.revoke(subject, **said)
            await self._app.models.cut_key(subject, f"token {subject} was revoked").ended()
            return JSONResponse(wire.revoked_token(revoked))
        elif subject.startswith(PREFIX):
            return JSONResponse(wire.revoked_grant(await self._app.rulebook.withdraw(subject, **said)))
        else:
            try:
                run_id = await self._app.resolve(subject)
            except UsageError as error:
                what = f"there is no agent, run or token {subject!r}: see `overwinter agents`, `ps` and `token list`"
                raise NotFound(what) from error
            revocation = await governance.revoke_run(run_id, **said)
        return JSONResponse(wire.revocation(revocation))

    async def approve(self, request: Request) -> Response:
        return await self._vote(request, is_yes=True)

    async def reject(self, request: Request) -> Response:
        return await self._vote(request, is_yes=False)

    async def _vote(self, request: Request, *, is_yes: bool) -> Response:
        body = await _body(request)
        shown = _field(body, "digest", str, None)
        try:
            digest = None if shown is None else bytes.fromhex(shown)
        except ValueError as error:
            raise UsageError(f"{shown!r} is no digest: it is written in hex, as /v1/questions shows it") from error
        question, key = request.path_params["question"], _key(request, body)
        before = await self._app.inbox.voted(question, key)
        if before is not None:
            return JSONResponse({"became": before.name.lower()})
        record = await self._app.question(question)
        actor = request.scope.get(ACTOR) or actor_of(request.scope, None)
        voted = await self._app.governance.vote(
            record, is_yes=is_yes, by=actor, reason=_field(body, "reason", str, ""), shown=digest, dedup=key
        )
        return JSONResponse({"became": voted.name.lower()})

    async def restore(self, request: Request) -> Response:
        body = await _body(request)
        restored = await self._app.governance.restore(
            _field(body, "agent", str),
            by=body["by"],
            reason=_field(body, "reason", str, ""),
            has_runs=_field(body, "has_runs", bool, default=False),
        )
        return JSONResponse(wire.identity(restored, self._app.access.now_us()))


def _agent(request: Request) -> str:
    return request.query_params.get("agent", "default")


def _seconds(given: object) -> float:
    try:
        seconds = float(given) if isinstance(given, int | float | str) and not isinstance(given, bool) else -1.0
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= SECONDS_MAX:
        raise UsageError(f"{given!r} is no length of time: give seconds, from 0 to {SECONDS_MAX:.0f}")
    return seconds


def _status(name: str) -> Status:
    try:
        return Status[name.upper()]
    except KeyError as error:
        known = ", ".join(status.name.lower() for status in Status)
        raise UsageError(f"{name!r} is no status; there are {known}") from error
