"""Routes about model calls: what may be called, what it cost, how the budgets stand, and figures for Prometheus."""

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from overwinter.app import App
from overwinter.clock import DAY_US
from overwinter.errors import NotFound, UsageError
from overwinter.faces import wire
from overwinter.faces.bodies import body_of, field, number_of
from overwinter.frozen import frozen
from overwinter.gateway.budget import Line
from overwinter.values import Value

__all__ = ["model_routes"]

GROUPS = ("agent", "run", "model", "upstream", "key", "day")
DAYS_MAX = 3_660
LINES_MAX = 1_000
NUSD = 1_000_000_000


def model_routes(app: App) -> list[Route]:
    """Return the routes."""
    face = _Models(app)
    return [
        Route("/v1/gateway/models", face.listed),
        Route("/v1/gateway/test", face.test, methods=["POST"]),
        Route("/v1/gateway/usage", face.usage),
        Route("/v1/gateway/budgets", face.budgets),
        Route("/v1/gateway/calls", face.calls),
        Route("/v1/gateway/calls/{call}", face.call),
        Route("/v1/gateway/calls/{call}/cost", face.correct, methods=["POST"]),
        Route("/metrics", face.metrics),
    ]


@frozen(kw_only=False)
class _Models:
    app: App

    async def listed(self, request: Request) -> Response:
        agent = request.query_params.get("agent", "default")
        return JSONResponse({"models": [asdict(each) for each in self.app.models.listed(agent)]})

    async def test(self, request: Request) -> Response:
        body = await body_of(request)
        agent = (await self.app.governance.identity(field(body, "agent", str, "default"))).name
        message = await self.app.models.test(field(body, "model", str), agent)
        return JSONResponse({"is_answered": not message, "message": message})

    async def usage(self, request: Request) -> Response:
        query = request.query_params
        by = [each for each in query.get("by", "model").split(",") if each]
        if not by or set(by) - set(GROUPS):
            raise UsageError(f"usage is grouped by {', '.join(GROUPS)}, not by {query.get('by')!r}")
        days = _days(query.get("days", "30"))
        totals = self.app.models.totals(by, since_us=self.app.access.now_us() - round(days * DAY_US))
        rows = [{**each.of, **{key: value for key, value in asdict(each).items() if key != "of"}} for each in totals]
        return JSONResponse({"days": days, "by": by, "usage": rows})

    async def budgets(self, request: Request) -> Response:
        del request
        return JSONResponse({"budgets": [wire.spent(each) for each in await self.app.models.budgets()]})

    async def calls(self, request: Request) -> Response:
        query = request.query_params
        names = ("agent", "run", "model", "key", "state", "status")
        wanted = {name: query[name] for name in names if name in query}
        limit, before = number_of("limit", query.get("limit", "50"), least=1, most=LINES_MAX), query.get("before")
        found = self.app.models.lines(
            before_us=None if before is None else number_of("before", before), limit=limit, wanted=wanted
        )
        return JSONResponse(
            {"calls": [_line(each) for each in found], "before": found[-1].began_us if len(found) == limit else None}
        )

    async def call(self, request: Request) -> Response:
        name = request.path_params["call"]
        found = self.app.models.line(name)
        if found is None:
            raise NotFound(f"there is no model call {name!r}: `overwinter models log` lists them")
        return JSONResponse(_line(found))

    async def correct(self, request: Request) -> Response:
        body = await body_of(request)
        usd = field(body, "usd", int | float)
        if isinstance(usd, bool) or not 0 <= usd < NUSD:
            raise UsageError(f"{usd!r} is no cost in US dollars")
        by = field(body, "by", str, "unknown")
        corrected = await self.app.models.correct(request.path_params["call"], round(usd * NUSD), by=by)
        return JSONResponse(_line(corrected))

    async def metrics(self, request: Request) -> Response:
        """Answer with the figures of this process and of the ledger, in Prometheus' text format 0.0.4."""
        del request
        return Response(await self.app.models.metrics(), media_type="text/plain; version=0.0.4")


def _line(line: Line) -> dict[str, Value]:
    usage = line.usage
    return {
        "call": line.call, "began": wire.instant(line.began_us), "began_us": line.began_us, "ended": wire.instant(line.ended_us),
        "agent": line.agent, "run": line.run_id or None, "key": line.key or None, "dialect": line.dialect, "model": line.model,
        "provider": line.upstream or None, "provider_model": line.priced_model or None, "state": line.state,
        "status": line.status or None, "held_usd": line.held_nusd / NUSD,
        "cost_usd": None if line.cost_nusd is None else line.cost_nusd / NUSD, "cost_nusd": line.cost_nusd,
        "saved_usd": line.saved_nusd / NUSD, "answer": line.answer_id or None,
        "found": dict(line.found),
        "usage": None if usage is None else {
            "input": usage.input, "cache_read": usage.cache_read, "cache_write": usage.cache_write + usage.cache_write_long,
            "output": usage.output, "reasoning": usage.reasoning, "tier": usage.tier or None, "source": usage.source,
        },
    }  # fmt: skip


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 < days <= DAYS_MAX:
        raise UsageError(f"days is above 0 and at most {DAYS_MAX}, not {text!r}")
    return days
