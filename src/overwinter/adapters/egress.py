"""What may leave this machine: where a request may go, and a connection to no address but one that was judged.

An address is judged, never a text: `0177.0.0.1`, `2130706433` and a name of an attacker's all resolve to 127.0.0.1. A name is
resolved once for each connection, **every** address that it has is judged, and the connection goes to one of those: a name
that is at another address a moment later gains nothing. Each redirect is a new decision. No proxy of the environment is used.

| where to | written down by the operator | by anybody else |
|---|---|---|
| https, public address | yes | yes |
| http | yes | no |
| private network, this machine, link-local | yes | no |
| cloud metadata, multicast | no | no |
"""

import asyncio
import base64
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, cast
from urllib.parse import unquote, urljoin, urlsplit

from overwinter.frozen import frozen

if TYPE_CHECKING:
    import aiohttp
    import httpx2

__all__ = [
    "Endpoint",
    "Forbidden",
    "Resolve",
    "climbs",
    "endpoint",
    "judged",
    "resolved_by_system",
    "session",
    "transport",
    "without_userinfo",
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host."""
ADDRESSES_MAX = 64
"""Addresses of one name that are judged; one with more is refused."""
HOST_LENGTH_MAX = 253
"""RFC 1035, 2.3.4, without the root's dot."""
CONNECT_S_MAX = 5.0
"""The longest that one of several addresses is waited for before the next is tried; the last has the caller's time."""
CONNECTIONS_MAX = 256
CONNECTIONS_PER_HOST_MAX = 64
PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9.-]+")
_NUMERIC = re.compile(r"(\d+|0x[0-9a-f]*)\.?")
"""The last label of what resolvers take for an IPv4 address (WHATWG URL, 3.5): such a host is written as one, or refused."""

METADATA = frozenset(
    ipaddress.ip_address(each)
    for each in (
        "169.254.169.254",  # AWS, Azure, Google, Oracle, OpenStack, DigitalOcean
        "169.254.170.2", "169.254.170.23",  # AWS: credentials of tasks and pods
        "168.63.129.16",  # Azure: a public address, inside the host
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle, older
        "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",  # AWS, AWS pods, Google
        "fe80::a9fe:a9fe",  # OpenStack
    )
)  # fmt: skip
"""They give the credentials of the machine to whoever asks from it: never, whoever wrote the address down."""
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""RFC 4291, 2.4 and IANA's registry: the only part of IPv6 from which public addresses are given out."""
NOT_PUBLIC = tuple(
    ipaddress.ip_network(each)
    for each in (
        "192.0.0.0/24",  # RFC 6890; Python before 3.11.9 calls some of them global
        "192.88.99.0/24",  # RFC 7526: relays of 6to4
        "2001::/23", "3fff::/20",  # RFC 2928, RFC 9637
    )
)  # fmt: skip
IN_THE_LAST_BITS = tuple(
    ipaddress.IPv6Network(each)
    for each in (
        "::/96",  # RFC 4291, 2.5.5.1: compatible
        "::ffff:0:0/96",  # RFC 4291, 2.5.5.2: mapped
        "::ffff:0:0:0/96",  # RFC 2765: translated
        "64:ff9b::/96",  # RFC 6052: NAT64
    )
)
SIX_TO_FOUR, TEREDO = ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32")
ISATAP = (0x0000_5EFE, 0x0200_5EFE)


class Forbidden(Exception):
    """Nothing is sent there. A retry helps only after the operator's configuration or the service has changed."""

    def __init__(self, message: str, *, code: Literal["address", "redirect"] = "address") -> None:
        super().__init__(message)
        self.code = code


@frozen
class Endpoint:
    """Where requests go: an origin, and a path below which they stay."""

    scheme: str
    host: str
    """A name or an IPv4 address in lower case, or an IPv6 address without its brackets."""
    port: int
    path: str = "/"
    """As it is written, still encoded."""
    is_named: bool = False
    """The operator wrote it down."""

    @property
    def origin(self) -> str:
        """Return scheme, host and port as a browser writes them (RFC 6454)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == PORTS[self.scheme] else f":{self.port}")

    def covers(self, other: "Endpoint") -> bool:
        """Return whether a credential of this endpoint may go to another: same origin, and a path below this one's."""
        if (self.scheme, self.host, self.port) != (other.scheme, other.host, other.port):
            return False
        if climbs(other.path):
            return False
        prefix = self.path.rstrip("/")
        return other.path == prefix or other.path.startswith(f"{prefix}/")


def endpoint(url: str, *, is_named: bool) -> Endpoint:
    """Return where an address leads. A host that is an IP address is judged here, a name when it is resolved.

    Args:
        url: as it will be sent.
        is_named: the operator wrote this very origin down.

    Raises:
        Forbidden: nothing is sent there.
    """
    if any(each <= " " or each in "\\\x7f" for each in url):
        raise Forbidden("the address has a blank, a control character or a backslash: nothing is sent there")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Forbidden(f"the address is none: {error}") from error
    if parts.scheme not in PORTS:
        raise Forbidden(f"{parts.scheme or 'no'} address: only http and https are asked")
    if "@" in parts.netloc:
        raise Forbidden("the address has a user or a password in it: write them as `auth`")
    if parts.scheme == "http" and not is_named:
        raise Forbidden(
            f"{host}: http shows what is sent to everybody on the way: https only, or set base_url to allow it"
        )
    host = _host(host, is_bracketed="[" in parts.netloc)
    if (literal := _literal(host)) is not None:
        _judge(host, literal, is_named=is_named)
    port = PORTS[parts.scheme] if port is None else port
    if port == 0:
        raise Forbidden("port 0 is no port")
    return Endpoint(scheme=parts.scheme, host=host, port=port, path=parts.path or "/", is_named=is_named)


def sent_on(url: str, following: str) -> str:
    """Return where a redirect leads; it is not judged yet.

    Raises:
        Forbidden: nowhere.
    """
    try:
        return urljoin(url, following)
    except ValueError as error:
        raise Forbidden("the service sends this on to what is no address", code="redirect") from error


async def judged(host: str, port: int, resolve: Resolve, *, is_named: bool) -> Sequence[str]:
    """Return the addresses of a host, all of which may be connected to.

    Raises:
        Forbidden: one of them may not, and so none.
        OSError: it has no address.
    """
    literal = _literal(host)
    found = [str(literal)] if literal is not None else list(await resolve(host, port))
    if not found or len(found) > ADDRESSES_MAX:
        raise OSError(f"{host} has {len(found)} addresses, and 1 to {ADDRESSES_MAX} are looked at")
    for each in found:
        _judge(host, ipaddress.ip_address(each.partition("%")[0]), is_named=is_named)
    return found


async def resolved_by_system(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host as this machine resolves it."""
    rows = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(_numeric(row[4]) for row in rows))


def without_userinfo(url: str) -> tuple[str, Mapping[str, str]]:
    """Return an address that an operator wrote without the user and password in it, and the header that says them."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    encoded = base64.b64encode(unquote(user).encode()).decode()
    return parts._replace(netloc=host).geturl(), {"Authorization": f"Basic {encoded}"}


# --- Connections of two libraries ----------------------------------------------------------------------------------------


def session(
    *,
    is_named: bool,
    resolve: Resolve = resolved_by_system,
    connections_max: int = CONNECTIONS_MAX,
    connections_per_host_max: int = CONNECTIONS_PER_HOST_MAX,
) -> "aiohttp.ClientSession":
    """Return a client that connects to judged addresses only, and has no timeout. Its caller asks `endpoint` about each redirect.

    Args:
        is_named: the operator wrote down where it goes.
        resolve: looks names up.
        connections_max: open at once; who wants one more waits.
        connections_per_host_max: of those, to one host.
    """
    import aiohttp  # noqa: PLC0415 - it takes 0.2 s, and many homes ask no API

    resolver: Any = _Resolver(resolve, is_named=is_named)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=resolver, limit=connections_max, limit_per_host=connections_per_host_max
        ),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class _Resolver:
    """See `aiohttp.abc.AbstractResolver`: aiohttp connects to what it returns, and to nothing else."""

    def __init__(self, resolve: Resolve, *, is_named: bool) -> None:
        self._resolve, self._is_named = resolve, is_named

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[dict[str, Any]]:
        found = await judged(host, port, self._resolve, is_named=self._is_named)
        rows = [
            {
                "hostname": host, "host": each, "port": port, "proto": 0, "flags": socket.AI_NUMERICHOST,
                "family": socket.AF_INET6 if ":" in each else socket.AF_INET,
            }
            for each in found
        ]  # fmt: skip
        return [row for row in rows if family in (socket.AF_UNSPEC, row["family"])]

    async def close(self) -> None:
        """Hold nothing."""


def transport(
    bound: Endpoint, headers: Mapping[str, str], resolve: Resolve = resolved_by_system
) -> "httpx2.AsyncBaseTransport":
    """Return the transport of a connection that asks one endpoint and nothing else: its headers go nowhere else either."""
    made: Any = _Bound(bound, headers, resolve)
    return made


class _Bound:
    """See `httpx2.AsyncBaseTransport`."""

    def __init__(self, bound: Endpoint, headers: Mapping[str, str], resolve: Resolve) -> None:
        import httpcore2  # noqa: PLC0415 - the MCP SDK's, as httpx2
        import httpx2  # noqa: PLC0415 - the same

        self._bound, self._headers = bound, headers
        self._inner: Any = httpx2.AsyncHTTPTransport(trust_env=False)
        # The pool takes the backend that opens its connections; the transport around it has no argument for it.
        assert isinstance(self._inner._pool, httpcore2.AsyncConnectionPool)  # noqa: SLF001 - it has no other door
        self._inner._pool = httpcore2.AsyncConnectionPool(  # noqa: SLF001 - as above
            ssl_context=httpx2.create_ssl_context(trust_env=False),
            max_connections=CONNECTIONS_PER_HOST_MAX,
            keepalive_expiry=5.0,
            network_backend=cast("Any", _Backend(resolve, is_named=bound.is_named)),
        )

    async def handle_async_request(self, request: "httpx2.Request") -> "httpx2.Response":
        there = endpoint(str(request.url), is_named=self._bound.is_named)
        if not self._bound.covers(there):
            raise Forbidden(f"{there.origin}: only {self._bound.origin}{self._bound.path} is asked", code="redirect")
        request.headers.update(self._headers)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._inner.__aexit__(*error)


class _Backend:
    """See `httpcore2.AsyncNetworkBackend`: opens connections to judged addresses, one after the other until one answers."""

    def __init__(self, resolve: Resolve, *, is_named: bool) -> None:
        import httpcore2  # noqa: PLC0415 - as above

        self._resolve, self._is_named = resolve, is_named
        self._inner: Any = httpcore2.AnyIOBackend()
        self._gone = (httpcore2.NetworkError, httpcore2.ConnectTimeout)
        self.sleep = self._inner.sleep

    async def connect_tcp(self, host: str, port: int, *words: Any, **named: Any) -> Any:
        *others, last = await judged(host, port, self._resolve, is_named=self._is_named)
        for each in others:
            try:
                return await self._inner.connect_tcp(each, port, *words, **{**named, "timeout": CONNECT_S_MAX})
            except self._gone:
                continue
        return await self._inner.connect_tcp(last, port, *words, **named)


# --- Judging, pure -------------------------------------------------------------------------------------------------------


def _host(host: str, *, is_bracketed: bool) -> str:
    """Return a host that every reader reads in the same way.

    Raises:
        Forbidden: it has a character that some read in another way, or is a number.
    """
    if is_bracketed:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError as error:
            raise Forbidden("what stands in brackets is no IPv6 address") from error
    if not _HOST.fullmatch(host) or len(host) > HOST_LENGTH_MAX:
        raise Forbidden(
            "the host has other characters than a-z, 0-9, . and -, or is too long: write it in its ASCII form"
        )
    last = host.rstrip(".").rpartition(".")[2]
    if _NUMERIC.fullmatch(last) and _literal(host) is None:
        raise Forbidden(f"{host} is a number that some take for an address: write it as a.b.c.d")
    return host


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _judge(host: str, address: Address, *, is_named: bool) -> None:
    faces = list(_faces(address))
    what = f"{host} is at {address}" if host != str(address) else host
    if any(each in METADATA or each.is_multicast for each in (address, *faces)):
        raise Forbidden(f"{what}: a cloud's metadata or a group of machines, which nothing is sent to")
    if not is_named and not all(_is_public(each) for each in faces):
        verb = ", which" if host != str(address) else ""
        raise Forbidden(f"{what}{verb} is not a public address: set base_url to allow it")


def _is_public(address: Address) -> bool:
    if any(address in each for each in NOT_PUBLIC):
        return False
    return address.is_global and (address.version == 4 or address in GLOBAL_UNICAST)  # noqa: PLR2004 - version 4 of IP


def _faces(address: Address) -> Iterator[Address]:
    """Yield the addresses at which a packet for this one may come out: those of IPv4 inside it, or itself."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    number = int(address)
    low = ipaddress.IPv4Address(number & 0xFFFF_FFFF)
    if any(address in each for each in IN_THE_LAST_BITS):
        yield low
    elif address in SIX_TO_FOUR:  # RFC 3056, 2
        yield ipaddress.IPv4Address(number >> 80 & 0xFFFF_FFFF)
    elif address in TEREDO:  # RFC 4380, 4: the server, and the client's address inverted
        yield ipaddress.IPv4Address(number >> 64 & 0xFFFF_FFFF)
        yield ipaddress.IPv4Address(int(low) ^ 0xFFFF_FFFF)
    else:
        yield address
        if number >> 32 & 0xFFFF_FFFF in ISATAP:  # RFC 5214, 6.1
            yield low


def climbs(path: str) -> bool:
    """Return whether somebody may read a step upwards in a path: encoded, by a backslash, or before a `;` (servlets)."""
    steps = re.split(r"[/\\]", unquote(unquote(path)))
    return any(step.partition(";")[0] in (".", "..") for step in steps)


def _numeric(address: Sequence[Any]) -> str:
    """Return an address as `getaddrinfo` has it, with the interface of a link-local one."""
    return f"{address[0]}%{address[3]}" if len(address) > 3 and address[3] and "%" not in address[0] else address[0]  # noqa: PLR2004 - host, port, flow, scope
