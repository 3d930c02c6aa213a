"""A server at an address: the SDK's transports over a client of ours, whose answers are bounded and read at a pace.

The token of a login is put on here, below the SDK. Who gets none sends nothing; and what a server refuses for its credential
is told apart from what went wrong on its way: a write that it refused was not carried out.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from overwinter.adapters.egress import Endpoint, endpoint, transport
from overwinter.adapters.mcp_servers.flow import Flow
from overwinter.adapters.mcp_servers.logins import Access, LoginNeeded, Untaken
from overwinter.errors import ConfigInvalid
from overwinter.frozen import frozen, replace

if TYPE_CHECKING:
    import httpx2

__all__ = ["UNTAKEN", "Bearer", "over_web"]

CONNECT_S_MAX = 30.0
UNAUTHORIZED, FORBIDDEN = 401, 403
UNTAKEN = -32_401
"""Code of the JSON-RPC error that stands for a refused credential; ours, in the part that JSON-RPC leaves to applications."""
SILENCE_S_MAX = 3_600.0
"""The longest that nothing comes while an answer is waited for; each request has a shorter time of its own."""


@frozen
class Bearer:
    """What puts the token of the moment on each request."""

    access: Access
    hide: Callable[[str], None]
    """Told each token before it is sent."""


@asynccontextmanager
async def over_web(
    url: str, headers: Mapping[str, str], flow: Flow, *, is_sse: bool, auth: Bearer | None = None
) -> AsyncGenerator[tuple[Any, Any]]:
    """Yield the streams of a connection as the SDK wants them.

    Args:
        url: of the server.
        headers: go with each request.
        flow: of the connection.
        is_sse: it speaks the older transport, HTTP with SSE of 2024-11-05.
        auth: the login that it is asked with.
    """
    from mcp.client.sse import sse_client  # noqa: PLC0415 - it takes half a second, and many homes have no server
    from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415 - as above

    bound = endpoint(url, is_named=True)
    if is_sse:  # it is told by the server where on its origin to write to
        origin = replace(bound, path="/")
        async with sse_client(url, httpx_client_factory=lambda *_, **__: _http(origin, headers, flow, auth)) as streams:
            yield streams
        return
    async with (
        _http(bound, headers, flow, auth) as client,  # the SDK leaves it to us to close a client of ours
        streamable_http_client(url, http_client=client, max_sse_event_size=flow.bytes_max) as streams,
    ):
        yield streams


def _http(bound: Endpoint, headers: Mapping[str, str], flow: Flow, auth: Bearer | None) -> "httpx2.AsyncClient":
    """Return the SDK's client for one endpoint: a redirect, or a message of the server, does not lead it elsewhere."""
    import httpx2  # noqa: PLC0415 - the SDK's, as in `over_web`

    timeout = httpx2.Timeout(CONNECT_S_MAX, read=SILENCE_S_MAX)
    paced: Any = _Paced(transport(bound, headers), flow, auth)
    return httpx2.AsyncClient(
        transport=paced, timeout=timeout, trust_env=False, headers={"Accept-Encoding": "identity"}
    )


class _Paced:
    """See `httpx2.AsyncBaseTransport`."""

    def __init__(self, inner: Any, flow: Flow, auth: Bearer | None) -> None:
        self._inner, self._flow, self._auth = inner, flow, auth

    async def handle_async_request(self, request: "httpx2.Request") -> "httpx2.Response":
        response = await (self._inner.handle_async_request(request) if self._auth is None else self._borne(request))
        if self._auth is None and response.status_code in (UNAUTHORIZED, FORBIDDEN):
            await response.aclose()
            words = f"the server answers {response.status_code}: see auth and headers of the service"
            return _refusal(Untaken(status=response.status_code, needs="mending", why=words))
        response.stream = _body(response, self._flow)
        return response

    async def _borne(self, request: "httpx2.Request") -> "httpx2.Response":
        """Send a request with the token of the moment; once more with another one if that is not taken."""
        assert self._auth is not None
        access = self._auth.access
        try:
            token = await access.bearer()
        except LoginNeeded as error:
            return _refusal(Untaken(status=UNAUTHORIZED, needs="login", why=str(error)))
        except ConfigInvalid as error:
            return _refusal(Untaken(status=UNAUTHORIZED, needs="mending", why=str(error)))
        except OSError as error:
            return _refusal(Untaken(status=UNAUTHORIZED, needs="time", why=str(error)))
        response = await self._said(request, token)
        if response.status_code == UNAUTHORIZED:
            await response.aclose()
            if not (token := await access.renewed(token)):
                needs = "time" if not access.fault else "login" if access.is_personal else "mending"
                why = access.fault or "the server wants another token, and there is none at the moment"
                return _refusal(Untaken(status=UNAUTHORIZED, needs=needs, why=why))
            response = await self._said(request, token)
        if response.status_code in (UNAUTHORIZED, FORBIDDEN):
            await response.aclose()
            words = response.headers.get("WWW-Authenticate", "")
            return _refusal(await access.judge(response.status_code, words, token))
        return response

    async def _said(self, request: "httpx2.Request", token: str) -> "httpx2.Response":
        assert self._auth is not None
        self._auth.hide(token)
        request.headers["Authorization"] = f"Bearer {token}"
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._inner.__aexit__(*error)


def _refusal(untaken: Untaken) -> "httpx2.Response":
    """Return the answer to a request that was not taken, as the SDK hands it to whoever made it."""
    import httpx2  # noqa: PLC0415 - as above

    error = {"code": UNTAKEN, "message": untaken.why, "data": asdict(untaken)}
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
    return httpx2.Response(untaken.status, headers={"Content-Type": "application/json"}, content=body)


def _body(response: "httpx2.Response", flow: Flow) -> "httpx2.AsyncByteStream":
    import httpx2  # noqa: PLC0415 - as above

    stream: Any = response.stream
    is_endless = response.headers.get("Content-Type", "").lower().startswith("text/event-stream")
    coding = response.headers.get("Content-Encoding", "identity")

    class Body(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            if coding.lower() != "identity":  # a few bytes of it may stand for gigabytes
                raise httpx2.StreamError("it answers compressed, which it was asked not to")
            size_bytes = 0
            async for chunk in stream:
                size_bytes += len(chunk)
                if size_bytes > flow.bytes_max and not is_endless:
                    flow.end(flow.too_large)
                    raise httpx2.StreamError(flow.too_large)
                await flow.take(size_bytes=len(chunk))
                yield chunk

        async def aclose(self) -> None:
            await stream.aclose()

    return Body()
