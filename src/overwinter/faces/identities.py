"""Routes about what agents show of themselves elsewhere: documents, and the keys with which anybody verifies them."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from overwinter.adapters.identity_tokens import DOCUMENT
from overwinter.app import App
from overwinter.faces import wire
from overwinter.faces.bodies import body_of, field
from overwinter.frozen import frozen

__all__ = ["identity_routes"]

KEYS_S = 3_600
"""How long others may keep the keys."""


def identity_routes(app: App) -> list[Route]:
    """Return the routes."""
    face = _Identities(app)
    return [
        Route("/.well-known/jwks.json", face.keys),
        Route("/v1/issuer/rotate", face.rotate, methods=["POST"]),
        Route("/v1/agents/{agent}", face.show),
        Route("/v1/agents/{agent}/document", face.document),
    ]


@frozen(kw_only=False)
class _Identities:
    app: App

    async def keys(self, request: Request) -> Response:
        del request
        headers = {"cache-control": f"public, max-age={self.app.issuing.soonest_s(KEYS_S)}"}
        return JSONResponse(self.app.issuing.keys(), headers=headers, media_type="application/jwk-set+json")

    async def rotate(self, request: Request) -> Response:
        body = await body_of(request)
        by, reason = field(body, "by", str, "unknown"), field(body, "reason", str, "")
        done = await self.app.issuing.rotate(by=by, reason=reason)
        return JSONResponse({"keys": done["keys"], "counts_until": wire.instant(done["counts_until_s"] * 1_000_000)})

    async def show(self, request: Request) -> Response:
        return JSONResponse(
            wire.identity(await self.app.governance.identity(request.path_params["agent"]), self.app.access.now_us())
        )

    async def document(self, request: Request) -> Response:
        text = await self.app.mint.document(request.path_params["agent"])
        claims = dict(await self.app.mint.verified(text, kind=DOCUMENT))
        return JSONResponse({"id": claims["sub"], **claims, "jwt": text}, headers={"cache-control": "no-store"})
