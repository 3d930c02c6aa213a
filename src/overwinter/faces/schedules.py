"""Routes of schedules: what begins by the calendar."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from overwinter.app import App
from overwinter.errors import NotFound
from overwinter.faces.bodies import body_of, field
from overwinter.faces.wire import instant
from overwinter.frozen import frozen
from overwinter.readable import readable
from overwinter.schedule import Schedule
from overwinter.values import Value

__all__ = ["schedule_routes"]

LIMITS = {"model": str, "steps": int, "usd": int | float, "seconds": int | float}


def schedule_routes(app: App) -> list[Route]:
    """Return the routes."""
    face = _Schedules(app)
    return [
        Route("/v1/schedules", face.listed),
        Route("/v1/schedules", face.add, methods=["POST"]),
        Route("/v1/schedules/{schedule}", face.show),
        Route("/v1/schedules/{schedule}/{verb}", face.act, methods=["POST"]),
    ]


@frozen(kw_only=False)
class _Schedules:
    app: App

    async def listed(self, request: Request) -> Response:
        agent, found = request.query_params.get("agent"), await self.app.schedules.listed()
        return JSONResponse({"schedules": [_shown(each) for each in found if agent in (None, each.agent)]})

    async def show(self, request: Request) -> Response:
        found = await self.app.schedules.schedule(request.path_params["schedule"])
        return JSONResponse({**_shown(found), "start": readable(dict(found.start))})

    async def add(self, request: Request) -> Response:
        body = await body_of(request)
        start: dict[str, Any] = {
            key: field(body, key, kind) for key, kind in LIMITS.items() if body.get(key) is not None
        }
        if body.get("goal") is not None:
            start["goal"] = field(body, "goal", str)
        else:
            start |= {"source": field(body, "source", str), "inputs": field(body, "inputs", dict, {})}
        words = {
            key: field(body, key, str) for key in ("cron", "at", "zone", "misfire", "overlap", "name") if body.get(key)
        }
        made = await self.app.schedules.add(start, by=body["by"], agent=field(body, "agent", str, "default"), **words)  # type: ignore[arg-type] - `add` refuses words that are none
        return JSONResponse(_shown(made), status_code=201)

    async def act(self, request: Request) -> Response:
        body = await body_of(request)
        name, schedules = request.path_params["schedule"], self.app.schedules
        match request.path_params["verb"]:
            case "pause":
                done = await schedules.pause(name, by=body["by"], reason=field(body, "reason", str, ""))
            case "resume":
                done = await schedules.resume(name, by=body["by"])
            case "remove":
                done = await schedules.remove(name, by=body["by"])
            case "run":
                return JSONResponse({"id": await schedules.run_now(name, by=body["by"])}, status_code=201)
            case verb:
                raise NotFound(f"{verb!r} is nothing that is done to a schedule: pause, resume, remove, run")
        return JSONResponse(_shown(done))


def _shown(each: Schedule) -> dict[str, Value]:
    return {
        "id": each.id, "name": each.name, "agent": each.agent, "cron": each.cron, "zone": each.zone, "misfire": each.misfire,
        "overlap": each.overlap, "next": instant(each.next_us), "paused": each.paused, "made": instant(each.made_us), "by": each.by,
        "started": each.started, "missed": each.missed, "skipped": each.skipped, "failures": each.failures,
        "last_run": each.last_run, "last": instant(each.last_us), "is_goal": "goal" in each.start,
    }  # fmt: skip
