"""Routes about webhooks: whom the home tells what, what is open for each, one more try, a trial."""

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from overwinter.app import App
from overwinter.app.webhooks import Standing
from overwinter.frozen import frozen
from overwinter.values import Value

__all__ = ["webhook_routes"]


def webhook_routes(app: App) -> list[Route]:
    """Return the routes."""
    face = _Webhooks(app)
    return [
        Route("/v1/webhooks", face.listed),
        Route("/v1/webhooks/{webhook}/retry", face.retry, methods=["POST"]),
        Route("/v1/webhooks/{webhook}/test", face.test, methods=["POST"]),
    ]


@frozen(kw_only=False)
class _Webhooks:
    app: App

    async def listed(self, request: Request) -> Response:
        del request
        return JSONResponse({"webhooks": [_shown(each) for each in await self.app.webhooks.standing()]})

    async def retry(self, request: Request) -> Response:
        return JSONResponse({"retried": await self.app.webhooks.retry(request.path_params["webhook"])})

    async def test(self, request: Request) -> Response:
        sent = await self.app.webhooks.test(request.path_params["webhook"])
        return JSONResponse({"is_taken": sent.why is None, "why": sent.why})


def _shown(standing: Standing) -> dict[str, Value]:
    """Return a webhook as JSON. Of its address only the host: what stands behind it opens a door, as a rule."""
    hook, tally = standing.webhook, standing.tally
    return {
        "name": standing.name,
        "host": None if hook is None else urlsplit(hook.url).hostname,
        "events": [] if hook is None else list(hook.events),
        "arguments": hook is not None and hook.arguments,
        "waiting": tally.waiting,
        "set_aside": tally.set_aside,
        "why": tally.why,
    }
