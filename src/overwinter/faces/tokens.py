"""Routes about API tokens: made on the home's own socket alone."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from overwinter.app import App
from overwinter.app.tokens import DAYS_DEFAULT
from overwinter.faces import wire
from overwinter.faces.bodies import body_of, field
from overwinter.frozen import frozen
from overwinter.tokens import Token
from overwinter.values import Value

__all__ = ["shown", "token_routes"]


def token_routes(app: App) -> list[Route]:
    """Return the routes."""
    face = _Tokens(app)
    return [Route("/v1/tokens", face.create, methods=["POST"]), Route("/v1/tokens", face.listed)]


def shown(token: Token, now_us: int) -> dict[str, Value]:
    """Return a token as JSON, without what opens anything."""
    state = "revoked" if token.revoked_us is not None else "active" if token.is_live(now_us) else "expired"
    return {
        "id": token.id,
        "person": token.person,
        "name": token.name,
        "scopes": list(token.scopes),
        "agents": token.agents,
        "state": state,
        "created": wire.instant(token.created_us),
        "expires": wire.instant(token.expires_us),
        "used": wire.instant(token.used_us),
    }


@frozen(kw_only=False)
class _Tokens:
    app: App

    async def create(self, request: Request) -> Response:
        body = await body_of(request)
        token, text = await self.app.access.create(
            field(body, "person", str),
            by=body["by"],
            name=field(body, "name", str, ""),
            scopes=[str(each) for each in field(body, "scopes", list, ["read"])],
            agents=field(body, "agents", str, "*"),
            expires_s=float(field(body, "expires_s", int | float, DAYS_DEFAULT * 86_400)),
        )
        answer = {**shown(token, token.created_us), "token": text}
        return JSONResponse(answer, status_code=201, headers={"cache-control": "no-store"})

    async def listed(self, request: Request) -> Response:
        del request
        now_us = self.app.access.now_us()
        return JSONResponse({"tokens": [shown(each, now_us) for each in await self.app.access.tokens()]})
