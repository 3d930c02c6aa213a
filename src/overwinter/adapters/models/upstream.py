"""The way to providers over HTTP: pooled connections, judged addresses, the home's own credentials, nothing decoded."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import field
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from overwinter.adapters.egress import Forbidden, Resolve, climbs, endpoint, resolved_by_system, session
from overwinter.adapters.masks import BYTES_MIN, Mask, mask_of
from overwinter.errors import ConfigInvalid
from overwinter.frozen import frozen
from overwinter.gateway.dialect import DialectName, Wire
from overwinter.gateway.routes import Provider
from overwinter.gateway.upstream import Reply, UpstreamFailed

if TYPE_CHECKING:
    import aiohttp
    import yarl

__all__ = ["Credentials", "HttpUpstream", "Place", "credentials"]

CONNECT_S_MAX = 10.0
LEFT_S_MAX = 0.02
LEFT_BYTES_MAX = 4_096
URLS_MAX = 1_024
"""Addresses remembered, parsed and judged; the path of some dialects names the model."""
CONNECTIONS_MAX = 1_024
"""A stream has one for minutes, and all of a home's may go to one provider."""
PIECE_BYTES_MAX = 1 << 20
CREDENTIAL_HEADERS: Mapping[DialectName, str] = {"messages": "x-api-key", "gemini": "x-goog-api-key"}
"""Where a dialect's providers look for the key; the others: a bearer token."""


@frozen
class Credentials:
    """How a provider knows us."""

    key: str = ""
    """"": it needs none."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """That it wants besides, names in lower case."""
    secrets: tuple[bytes, ...] = ()
    """Of these, what no client may get."""
    mask: Mask = field(default_factory=Mask)
    """Hides them, in every form."""


def credentials(key: str, headers: Mapping[str, str], secrets: Iterable[str]) -> Credentials:
    """Return credentials; a key is a secret wherever it was written."""
    every = {key, *secrets}
    plain = tuple(raw for each in sorted(every) if len(raw := each.encode()) >= BYTES_MIN)
    return Credentials(key=key, headers=headers, secrets=plain, mask=mask_of(every))


@frozen
class Place:
    """Where a provider is, and how it knows us."""

    url: str
    """Without the path of the dialects: `https://api.anthropic.com`."""
    credentials: Callable[[], Credentials]


class HttpUpstream:
    """See `gateway.upstream.Upstream`. Use it as a context manager: leaving it closes the connections."""

    def __init__(self, places: Mapping[str, Place], resolve: Resolve = resolved_by_system) -> None:
        self._places, self._resolve = places, resolve
        self._session: aiohttp.ClientSession | None = None
        self._url = lru_cache(URLS_MAX)(_url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def send(self, provider: Provider, dialect: DialectName, method: str, wire: Wire) -> "AsyncGenerator[Reply]":
        """Send a request; leaving the block lets go of the answer, and of the connection if there is more of it.

        Raises:
            UpstreamFailed: nothing came back.
        """
        import aiohttp  # noqa: PLC0415 - 0.15 s, for whoever calls a model

        place = self._places[provider.name]
        timeout = _timeout(provider.first_byte_s_max)
        try:
            url, known = self._url(place.url, wire.path), _credentials(place)
            # Compressed bytes could not be tapped.
            kind = {"content-type": "application/json"} if wire.body else {}
            headers = {**wire.headers, **kind, "accept-encoding": "identity", **_signed(known, dialect)}
            response = await self._opened().request(
                method, url, data=_pieces(wire.body), headers=headers, timeout=timeout, allow_redirects=False
            )
        except Forbidden as error:
            raise UpstreamFailed("forbidden", str(error), has_left=False) from error
        except aiohttp.ClientConnectorError as error:
            raise UpstreamFailed(
                "connect", f"it cannot be reached ({error.strerror or error})", has_left=False
            ) from error
        except TimeoutError as error:  # aiohttp's are, all of them
            has_left = not isinstance(error, aiohttp.ConnectionTimeoutError)
            what = f"not a byte within {provider.first_byte_s_max:g} s" if has_left else "no connection"
            raise UpstreamFailed("timeout", what, has_left=has_left) from error
        except aiohttp.ClientError as error:
            raise UpstreamFailed("reset", f"the connection broke ({type(error).__name__})", has_left=True) from error
        try:
            yield _HttpReply(response, provider.idle_s_max, known)
            await _read_out(response)
        finally:
            response.close()

    def _opened(self) -> "aiohttp.ClientSession":
        if self._session is None:
            self._session = session(
                is_named=True,
                resolve=self._resolve,
                connections_max=CONNECTIONS_MAX,
                connections_per_host_max=CONNECTIONS_MAX,
            )
        return self._session


async def _read_out(response: "aiohttp.ClientResponse") -> None:
    """Read what is left behind an answer's own end, so that its connection serves again.

    Between the last event of a stream and the end of its bytes there is nothing but the end of a chunk; what takes longer costs
    a connection.
    """
    import aiohttp  # noqa: PLC0415 - loaded by now

    left_bytes, content = LEFT_BYTES_MAX, response.content
    if content.at_eof():
        return  # as after every answer that is no stream: no timer is wound up for it
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(LEFT_S_MAX):
            while left_bytes > 0 and not content.at_eof():
                left_bytes -= len(await content.readany())


@lru_cache
def _timeout(first_byte_s: float) -> "aiohttp.ClientTimeout":
    import aiohttp  # noqa: PLC0415 - loaded by now

    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S_MAX, sock_read=first_byte_s)


def _url(base: str, path: str) -> "yarl.URL":
    """Return where a call goes, judged.

    Raises:
        Forbidden: nothing is sent there.
    """
    import yarl  # noqa: PLC0415 - aiohttp's

    base = base.rstrip("/")
    if urlsplit(base).path.endswith("/v1") and path.startswith("/v1/"):
        path = path.removeprefix("/v1")
    if climbs(path.partition("?")[0]):
        raise Forbidden("its path leads out of the provider's own")
    endpoint(base + path, is_named=True)
    return yarl.URL(base + path)


class _HttpReply:
    """See `gateway.upstream.Reply`."""

    def __init__(self, response: "aiohttp.ClientResponse", idle_s_max: float, known: Credentials) -> None:
        self._response, self._idle_s_max, self._known = response, idle_s_max, known
        self.status: int = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        if (connection := response.connection) is not None and connection.protocol is not None:
            # aiohttp winds this timer up at each packet anyway; one of our own around each read costs 8 us more.
            connection.protocol.read_timeout = idle_s_max
            connection.protocol.start_timeout()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body, cut anywhere.

        Raises:
            UpstreamFailed: it broke off, or was silent for too long.
        """
        import aiohttp  # noqa: PLC0415 - loaded by now

        content = self._response.content
        try:
            while True:
                chunk = await content.readany()
                if not chunk:
                    return
                yield chunk
        except TimeoutError as error:
            raise UpstreamFailed(
                "timeout", f"silent for {self._idle_s_max:g} s in the middle", has_left=True
            ) from error
        except aiohttp.ClientError as error:
            raise UpstreamFailed("reset", f"the connection broke ({type(error).__name__})", has_left=True) from error

    def masked(self, said: bytes) -> bytes:
        """Return something that was said without our credentials.

        In an error in every form that encodings make of them; in an answer, which nearly never has them, as they are: 0.2 us for
        a kilobyte, where all forms take 2.
        """
        if self.status >= 400:  # noqa: PLR2004 - RFC 9110, 15.5
            return self._known.mask.raw(said)
        for each in self._known.secrets:
            if each in said:
                return self._known.mask.raw(said)
        return said


def _pieces(body: bytes) -> bytes | BytesIO | None:
    """Return what is written; a large body in pieces, so that others have their turn in between."""
    return BytesIO(body) if len(body) > PIECE_BYTES_MAX else body or None


def _credentials(place: Place) -> Credentials:
    try:
        return place.credentials()
    except ConfigInvalid as error:
        raise UpstreamFailed("forbidden", str(error), has_left=False) from error


def _signed(known: Credentials, dialect: DialectName) -> Mapping[str, str]:
    """Return the headers by which a provider knows us."""
    name = CREDENTIAL_HEADERS.get(dialect)
    if not known.key:
        return known.headers
    return {**known.headers, **({"authorization": f"Bearer {known.key}"} if name is None else {name: known.key})}
