"""Routes about rules: grants, and what policies come to."""

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from overwinter.adapters.cedar.explain import Explanation, text_of
from overwinter.adapters.cedar.shadow import Shadow
from overwinter.app import App
from overwinter.clock import SECOND_US
from overwinter.faces import wire
from overwinter.faces.bodies import body_of, field, number_of
from overwinter.frozen import frozen
from overwinter.grant import Granted
from overwinter.policy import Decision
from overwinter.values import Value

__all__ = ["policy_routes"]


def policy_routes(app: App) -> list[Route]:
    """Return the routes."""
    face = _Policies(app)
    return [
        Route("/v1/grants", face.grants),
        Route("/v1/grants", face.grant, methods=["POST"]),
        Route("/v1/policy/check", face.check),
        Route("/v1/policy/explain", face.explain, methods=["POST"]),
        Route("/v1/policy/explain/{handle}", face.explain_call),
        Route("/v1/policy/suggest", face.suggest),
        Route("/v1/policy/simulate", face.simulate, methods=["POST"]),
        Route("/v1/policy/shadow", face.shadow),
        Route("/v1/policy/reload", face.reload, methods=["POST"]),
    ]


@frozen(kw_only=False)
class _Policies:
    app: App

    async def grants(self, request: Request) -> Response:
        agent = request.query_params.get("agent")
        found = [each for each in await self.app.rulebook.grants() if agent in (None, each.agent)]
        return JSONResponse({"grants": [wire.grant(each) for each in found]})

    async def grant(self, request: Request) -> Response:
        body = await body_of(request)
        given = Granted(
            agent=field(body, "agent", str),
            pattern=field(body, "pattern", str),
            reads_only=field(body, "reads", bool, default=False),
            is_asked=field(body, "asks", bool, default=False),
            approver=field(body, "approver", str, ""),
            expires_us=field(body, "expires_us", int, None),
            by=body["by"],
        )
        return JSONResponse(wire.grant(await self.app.rulebook.grant(given)), status_code=201)

    async def check(self, request: Request) -> Response:
        del request
        rows = [
            {"place": each.place, "rule": each.rule, "message": each.message, "is_error": each.is_error}
            for each in await self.app.rulebook.check()
        ]
        return JSONResponse({"findings": rows, "is_well": not any(each["is_error"] for each in rows)})

    async def explain(self, request: Request) -> Response:
        body = await body_of(request)
        found = self.app.rulebook.explain(
            field(body, "agent", str, "default"), field(body, "function", str), field(body, "arguments", dict, {})
        )
        return JSONResponse(_explanation(found) | {"is_outdated": self.app.rulebook.is_outdated})

    async def explain_call(self, request: Request) -> Response:
        """Say of a call of a run, `RUN:INDEX`, how it was decided and would be now."""
        run, _, index = request.path_params["handle"].partition(":")
        at = number_of("INDEX of RUN:INDEX", index)
        found = await self.app.rulebook.explain_call(await self.app.resolve(run), at)
        shown = {
            "function": found.act.resource.name,
            "agent": found.act.principal.agent,
            "arguments": wire.readable(dict(found.act.arguments)),
            "was": [wire.event(each) for each in found.was],
        }
        return JSONResponse(shown | {"now": _explanation(found.now)})

    async def suggest(self, request: Request) -> Response:
        query = request.query_params
        since_us = number_of("since_us", query.get("since_us", "0"))
        agent, is_whole = query.get("agent", "default"), query.get("whole") in ("1", "true")
        return JSONResponse({"text": await self.app.rulebook.suggest(agent, since_us=since_us, is_whole=is_whole)})

    async def simulate(self, request: Request) -> Response:
        """Decide past calls by another set of policies. It names a directory here: for the home's own socket alone."""
        body = await body_of(request)
        place = field(body, "policies", str, None)
        changes = await self.app.rulebook.simulate(
            agent=field(body, "agent", str, None),
            since_us=field(body, "since_us", int, 0),
            policies=None if place is None else Path(place),
        )
        rows = [
            {
                "run": each.past.act.principal.run_id,
                "function": each.past.act.resource.name,
                "arguments": wire.readable(dict(each.past.act.arguments)),
                "before": _decision(each.before),
                "after": _decision(each.after),
            }
            for each in changes
        ]
        return JSONResponse({"changes": rows})

    async def shadow(self, request: Request) -> Response:
        del request
        faults = list(self.app.rulebook.faults())
        return JSONResponse(_shadow(self.app.rulebook.shadow()) | {"faults": faults})

    async def reload(self, request: Request) -> Response:
        body = await body_of(request)
        done = await self.app.rulebook.reload(by=field(body, "by", str, "unknown"))
        self.app.auditing.ring()
        changed = {"version": done.version, "added": list(done.added), "removed": list(done.removed)}
        return JSONResponse(changed | {"is_outdated": self.app.rulebook.is_outdated})


def _shadow(shadow: Shadow | None) -> dict[str, Any]:
    if shadow is None:
        return {"rules": [], "since": None, "decided": 0, "failed": 0, "forgotten": 0, "differences": []}
    rows = [
        {
            "action": each.action,
            "function": each.resource,
            "agent": each.agent,
            "is": each.decision,
            "would_be": each.would_be,
            "count": each.count,
            "last": _time(each.last_s),
            "examples": [
                {
                    "run": example.run_id,
                    "at": _time(example.at_s),
                    "arguments": dict(example.arguments),
                    "policies": list(example.policies),
                }
                for example in reversed(each.examples)
            ],
        }
        for each in shadow.differences
    ]
    return {
        "rules": [each.id for each in shadow.rules],
        "since": _time(shadow.since_s),
        "decided": shadow.decided,
        "failed": shadow.failed,
        "forgotten": shadow.forgotten,
        "differences": rows,
    }


def _time(at_s: int) -> str | None:
    return wire.instant(at_s * SECOND_US)


def _decision(decision: Decision) -> dict[str, Value]:
    shown: dict[str, Value] = {"decision": type(decision).__name__.lower(), "policies": list(decision.policies)}
    for name in ("reason", "approver"):
        if (text := getattr(decision, name, None)) is not None:
            shown[name] = text
    return shown


def _explanation(found: Explanation) -> dict[str, Any]:
    sides = [
        {
            "principal": side.principal[1],
            "allowed": side.verdict.allowed,
            "rules": [{"id": rule.id, "place": rule.place, "text": text_of(rule)} for rule in side.verdict.rules],
            "errors": list(side.verdict.errors),
            "nearest": None
            if side.nearest is None
            else {
                "id": side.nearest.rule.id,
                "place": side.nearest.rule.place,
                "failed": side.nearest.failed,
                "why": side.nearest.why,
            },
        }
        for side in found.sides
    ]
    return {**_decision(found.decision), "sides": sides}
