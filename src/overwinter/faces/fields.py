"""Names in a request that its operation does not have: refused, for what was meant by them would silently not hold."""

import difflib
import re
from collections.abc import Awaitable, Callable, Collection, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from overwinter.errors import UsageError
from overwinter.faces import scopes
from overwinter.faces.bodies import body_of
from overwinter.faces.operations import OPERATIONS

__all__ = ["named"]

SHOWN = 100
"""Characters of an unknown name."""
ALWAYS = frozenset({"by", "dedup"})
"""What the doors put into bodies, or look for in them."""


def named(routes: Sequence[Route]) -> list[Route]:
    """Return the routes, those of the API such that they take no field and no parameter but their own."""
    return [_strict(each) if each.path.startswith("/v1/") else each for each in routes]


def _strict(route: Route) -> Route:
    operation = OPERATIONS[scopes.key_of(route)]
    endpoint: Callable[[Request], Awaitable[Response]] = route.endpoint
    fields, parameters = _names(operation.body) | ALWAYS, _names(operation.query)

    async def answer(request: Request) -> Response:
        _refuse_unknown("parameter", request.query_params.keys(), parameters)
        if request.method != "GET":
            _refuse_unknown("field", await body_of(request), fields)
        return await endpoint(request)

    return Route(route.path, answer, methods=sorted(route.methods or ()))


def _names(shape: str) -> frozenset[str]:
    return frozenset(re.findall(r"(?:^|, )(\w+)", shape))


def _refuse_unknown(what: str, given: Collection[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name[:SHOWN], known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(sorted(known)) or 'none'}"
            raise UsageError(f"there is no {what} {name[:SHOWN]!r} here: {hint}")
