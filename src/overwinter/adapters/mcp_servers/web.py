"""A server at an address: the SDK's transports over a client of ours, whose answers are bounded and read at a pace."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from overwinter.adapters.egress import Endpoint, endpoint, transport
from overwinter.adapters.mcp_servers.flow import Flow

if TYPE_CHECKING:
    import httpx2

__all__ = ["over_web"]

CONNECT_S_MAX = 30.0
SILENCE_S_MAX = 3_600.0
"""The longest that nothing comes while an answer is waited for; each request has a shorter time of its own."""


@asynccontextmanager
async def over_web(
    url: str, headers: Mapping[str, str], flow: Flow, *, is_sse: bool, auth: "httpx2.Auth | None" = None
) -> AsyncGenerator[tuple[Any, Any]]:
    """Yield the streams of a connection as the SDK wants them.

    Args:
        url: of the server.
        headers: go with each request.
        flow: of the connection.
        is_sse: it speaks the older transport, HTTP with SSE of 2024-11-05.
        auth: puts a credential of the moment on each request.
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


def _http(bound: Endpoint, headers: Mapping[str, str], flow: Flow, auth: "httpx2.Auth | None") -> "httpx2.AsyncClient":
    """Return the SDK's client for one endpoint: a redirect, or a message of the server, does not lead it elsewhere."""
    import httpx2  # noqa: PLC0415 - the SDK's, as in `over_web`

    timeout = httpx2.Timeout(CONNECT_S_MAX, read=SILENCE_S_MAX)
    paced: Any = _Paced(transport(bound, headers), flow)
    return httpx2.AsyncClient(
        auth=auth, transport=paced, timeout=timeout, trust_env=False, headers={"Accept-Encoding": "identity"}
    )


class _Paced:
    """See `httpx2.AsyncBaseTransport`."""

    def __init__(self, inner: Any, flow: Flow) -> None:
        self._inner, self._flow = inner, flow

    async def handle_async_request(self, request: "httpx2.Request") -> "httpx2.Response":
        response = await self._inner.handle_async_request(request)
        response.stream = _body(response, self._flow)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._inner.__aexit__(*error)


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
