"""The audit log over the HTTP API: entries, one entry, its proof, a witness."""

from collections.abc import Mapping
from typing import Any, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from overwinter.adapters.notes import parse_key
from overwinter.app import App
from overwinter.app.auditing import Wanted
from overwinter.audit import Kind, Plain
from overwinter.errors import UsageError
from overwinter.faces import wire
from overwinter.faces.bodies import body_of, field, number_of

__all__ = ["routes"]

PAGE_MAX = 1_000
ORDERS = ("newest", "oldest")


def routes(app: App) -> list[Route]:
    """Return the routes below `/v1/audit`."""
    face = _Audit(app)
    return [
        Route("/v1/audit", face.listed),
        Route("/v1/audit/key", face.key),
        Route("/v1/audit/key/rotate", face.rotate, methods=["POST"]),
        Route("/v1/audit/witness", face.witness, methods=["POST"]),
        Route("/v1/audit/{seq}", face.show),
        Route("/v1/audit/{seq}/proof", face.prove),
    ]


class _Audit:
    def __init__(self, app: App) -> None:
        self._app, self._auditing = app, app.auditing

    async def listed(self, request: Request) -> Response:
        query = request.query_params
        kind, order = query.get("kind"), query.get("order", "newest")
        if kind is not None and kind not in get_args(Kind):
            raise UsageError(f"{kind!r} is no kind of entry; there are {', '.join(get_args(Kind))}")
        if order not in ORDERS:
            raise UsageError(f"order={order!r} is neither newest nor oldest")
        run = query.get("run")
        wanted = Wanted(
            agent=query.get("agent"),
            run=None if run is None else run.strip().upper(),
            function=query.get("function"),
            person=query.get("person"),
            kind=kind,
        )
        found = await self._auditing.entries(
            wanted,
            since_ms=_number(query, "since_ms"),
            until_ms=_number(query, "until_ms"),
            is_oldest_first=order == "oldest",
            begin=_number(query, "begin"),
            limit=number_of("limit", query.get("limit", "50"), least=1, most=PAGE_MAX),
        )
        rows = [_entry(fields) for _, fields in found.entries]
        return JSONResponse({"entries": rows, "following": found.following})

    async def show(self, request: Request) -> Response:
        fields, bodies = await self._auditing.entry(_seq(request))
        shown = {part: {"is_kept": body.is_kept, "value": wire.readable(body.value)} for part, body in bodies.items()}
        return JSONResponse({**_entry(fields), "bodies": shown})

    async def prove(self, request: Request) -> Response:
        return PlainTextResponse(await self._auditing.prove(_seq(request)))

    async def key(self, request: Request) -> Response:
        """Return whose tree heads are this log's, and what became of the witness of the configuration."""
        del request
        witness, fault = self._auditing.witness, self._auditing.fault
        return JSONResponse(
            {
                "key": str(self._auditing.log.key),
                "entries": await self._auditing.log.size(),
                "head": await self._auditing.log.head(),
                "witness": None if witness is None else str(witness),
                "witness_fault": fault,
            }
        )

    async def rotate(self, request: Request) -> Response:
        body = await body_of(request)
        by, reason = field(body, "by", str, "unknown"), field(body, "reason", str, "")
        entry, key = await self._auditing.rotate(by=by, reason=reason)
        return JSONResponse({"entry": entry, "key": str(key), "witness_fault": self._auditing.fault})

    async def witness(self, request: Request) -> Response:
        url, key = await _asked(request)
        done = await self._auditing.witnessed(url, parse_key(key))
        if done is None:
            return JSONResponse({"entries": 0, "name": None, "at": None})
        at = wire.instant(done.cosignature.time_s * 1_000_000)
        return JSONResponse({"entries": done.head.size, "name": done.cosignature.name, "at": at})


async def _asked(request: Request) -> tuple[str, str]:
    match await body_of(request):
        case {"url": str(url), "key": str(key)}:
            return url, key
        case _:
            raise UsageError("the body is a JSON object with `url` and `key` of a witness")


def _seq(request: Request) -> int:
    return number_of("seq", request.path_params["seq"])


def _entry(fields: Mapping[str, Plain]) -> dict[str, Any]:
    ts_ms = fields.get("ts")
    return {**fields, "at": wire.instant(ts_ms * 1_000) if isinstance(ts_ms, int) else None}


def _number(query: Mapping[str, str], name: str) -> int | None:
    return number_of(name, query[name]) if name in query else None
