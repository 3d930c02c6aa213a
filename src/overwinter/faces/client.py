"""A client of a home, on its socket or over TCP: the standard library alone, so that a command starts in milliseconds."""

import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import field
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from overwinter.errors import OverwinterError, ServerUnreachable, UsageError
from overwinter.faces import wire
from overwinter.frozen import frozen
from overwinter.tokens import is_spelt

__all__ = ["Client", "Remote", "remote"]

TIMEOUT_S = 90.0
"""Longer than the longest request that waits on the server."""
FOLLOW_TIMEOUT_S = 60.0
"""Four times the server's pause between two signs of life on a stream."""
IDLE_S_MAX = 2.0
"""A kept connection older than this is opened anew: the server closes idle ones after 5 s, and a request that meets
the closing one cannot be told from one that was carried out."""
ATTEMPTS_MAX = 30
"""Connections tried for one request. With their pauses they take longer than a server needs to end."""
PAUSE_S = 0.02
PAUSE_S_MAX = 0.5
REPEATABLE = ("check", "collect", "refresh", "accept", "revoke", "witness")
"""What may be posted twice; so may whatever carries a `dedup` key."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("overwinter", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@frozen
class Remote:
    """A home that answers over TCP."""

    host: str
    port: int
    is_tls: bool
    token: str = field(repr=False)

    def __str__(self) -> str:
        """Return its address."""
        return f"http{'s' if self.is_tls else ''}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def remote(url: str, token: str) -> Remote:
    """Return the home at an address, for a token.

    Raises:
        UsageError: one of them is none, or the token would cross a network in plain text.
    """
    if not is_spelt(token):
        raise UsageError("there is no API token where --token or $OVERWINTER_TOKEN points: env:NAME or file:PATH")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UsageError(f"{url!r} is no address of a home: {error}") from error
    is_plain = parts.scheme in ("http", "https") and not (parts.username or parts.query or parts.path.strip("/"))
    if not is_plain or not host:
        raise UsageError(f"{url!r} is no address of a home: write https://host:port")
    is_here = host == "localhost" or re.fullmatch(r"127(\.\d{1,3}){3}|::1", host) is not None
    if parts.scheme == "http" and not is_here:
        raise UsageError(f"{url} would show the token to the network: only a home of this machine is asked by http")
    is_tls = parts.scheme == "https"
    return Remote(host=host, port=port or (443 if is_tls else 80), is_tls=is_tls, token=token)


class _Broken(Exception):
    """A connection ended before the answer was whole. `was_sent`: the server may have carried the request out."""

    def __init__(self, *, was_sent: bool) -> None:
        super().__init__()
        self.was_sent = was_sent


class Client:
    """One method per verb; answers are plain JSON, errors are those of `errors`.

    Args:
        path: the socket, or a home over TCP.
        reach: returns the socket to use when nothing answers on the last one any more. Without it a broken connection
            is `ServerUnreachable`.
    """

    def __init__(self, path: Path | Remote, reach: Callable[[], Path] | None = None) -> None:
        self._path = path
        self._reach = reach
        self._connection: http.client.HTTPConnection | None = None
        self._used_at = 0.0

    def close(self) -> None:
        """Close the connection that is kept between requests."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, *place: str, **query: str | float | list[str] | None) -> dict[str, Any]:
        """Return what lies at `/v1/place/...`."""
        return self._request("GET", _url(place, query), None, is_repeatable=True)

    def post(self, *place: str, **body: object) -> dict[str, Any]:
        """Send `body` as JSON to `/v1/place/...`, return the answer.

        Raises:
            ServerUnreachable: also if the connection broke and a repeat might do it twice.
        """
        is_repeatable = place[-1] in REPEATABLE or bool(body.get("dedup"))
        return self._request("POST", _url(place, {}), body, is_repeatable=is_repeatable)

    def text(self, *place: str) -> str:
        """Return a text, as it is."""
        return self.raw(*place).decode()

    def raw(self, *place: str, **query: str | None) -> bytes:
        """Return what lies at `/v1/place/...`, as it is."""
        status, raw = self._answer("GET", _url(place, query), None, is_repeatable=True)
        if status >= http.client.BAD_REQUEST:
            raise wire.raised(_json(status, raw))
        return raw

    def relay(
        self, place: str, raw: bytes, headers: Mapping[str, str], before: Callable[[bytes], None] = lambda _: None
    ) -> tuple[int, bytes]:
        """Send a body as it is to a path, on a connection of its own; return the status and body of the answer.

        In a stream of events one is the answer; `before` is given the notifications before it as they come. With an `idempotency-key` it is sent
        again when the connection breaks.

        Raises:
            ServerUnreachable: the connection broke, and there is no key, or nothing answers any more.
        """
        failures = 0
        while True:
            try:
                with closing(self._connect()) as connection:
                    connection.request("POST", place, raw, {**self._headers(raw), **headers})
                    response = connection.getresponse()
                    if response.getheader("content-type", "").startswith("text/event-stream"):
                        return response.status, _answer(response, before)
                    return response.status, response.read()
            except _Broken:
                failures += 1
                self._reach_again(failures)
            except (OSError, http.client.HTTPException) as error:
                if "idempotency-key" not in headers:
                    raise self._gone() from error
                failures += 1
                self._reach_again(failures)

    def follow(self, *place: str, since: int) -> Iterator[dict[str, Any]]:
        """Yield events as they come, until the run ends. A dropped connection is taken up where it broke."""
        failures = 0
        while True:
            is_ended = False
            with suppress(_Broken):
                for event in self._stream(_url(place, {"follow": "1", "since": since})):
                    failures = 0
                    if event is None:
                        is_ended = True
                        break
                    since = event["position"] + 1
                    yield event
            if is_ended:
                return
            failures += 1
            self._reach_again(failures)

    def _stream(self, url: str) -> Iterator[dict[str, Any] | None]:
        """Yield the events of one connection, then None if the run has ended; without it the server went away."""
        with closing(self._open(FOLLOW_TIMEOUT_S)) as connection:
            try:
                connection.request("GET", url, headers=self._headers(None))
                response = connection.getresponse()
                if response.status >= http.client.BAD_REQUEST:
                    raise wire.raised(_json(response.status, response.read()))
                if response.status == http.client.NO_CONTENT:
                    yield None
                for line in response:
                    if line.startswith(b"event: end"):
                        yield None
                        return
                    if line.startswith(b"data: "):
                        yield json.loads(line[6:])
            except (OSError, http.client.HTTPException) as error:
                raise _Broken(was_sent=True) from error

    def _request(
        self, method: str, url: str, body: Mapping[str, object] | None, *, is_repeatable: bool
    ) -> dict[str, Any]:
        status, raw = self._answer(method, url, body, is_repeatable=is_repeatable)
        answer = _json(status, raw)
        if status >= http.client.BAD_REQUEST:
            raise wire.raised(answer)
        return answer

    def _answer(
        self, method: str, url: str, body: Mapping[str, object] | None, *, is_repeatable: bool
    ) -> tuple[int, bytes]:
        raw = None if body is None else json.dumps(body).encode()
        failures = 0
        while True:
            try:
                return self._exchange(method, url, raw)
            except _Broken as error:
                if error.was_sent and not is_repeatable:
                    raise ServerUnreachable(
                        "the server went away before it answered: whether it did what was asked, "
                        "`overwinter show` and `overwinter ps --all` tell"
                    ) from error
                failures += 1
                self._reach_again(failures)

    def _exchange(self, method: str, url: str, raw: bytes | None) -> tuple[int, bytes]:
        """Put one request and return its answer; the connection is kept for the next."""
        connection, self._connection = self._connection, None
        if connection is None or time.monotonic() - self._used_at > IDLE_S_MAX:
            if connection is not None:
                connection.close()
            connection = self._connect()
        try:
            # A server that refuses a large body answers before it has read all of it, and its answer is what counts.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, url, raw, self._headers(raw))
            response = connection.getresponse()
            answer = response.status, response.read()
        except TimeoutError as error:
            connection.close()
            raise ServerUnreachable(f"the server of {self._path} did not answer within {TIMEOUT_S:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _Broken(was_sent=True) from error
        self._connection, self._used_at = connection, time.monotonic()
        return answer

    def _headers(self, raw: bytes | None) -> dict[str, str]:
        given = {"content-type": "application/json"} if raw else {}
        return given if isinstance(self._path, Path) else {**given, "authorization": f"Bearer {self._path.token}"}

    def _open(self, timeout_s: float) -> http.client.HTTPConnection:
        match self._path:
            case Path() as path:
                return _UnixConnection(path, timeout_s)
            case Remote(host=host, port=port, is_tls=True):
                return http.client.HTTPSConnection(host, port, timeout=timeout_s)
            case Remote(host=host, port=port):
                return http.client.HTTPConnection(host, port, timeout=timeout_s)

    def _connect(self) -> http.client.HTTPConnection:
        connection = self._open(TIMEOUT_S)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            if isinstance(self._path, Remote):
                raise ServerUnreachable(f"{self._path} cannot be reached: {error}") from error
            raise _Broken(was_sent=False) from error
        return connection

    def _gone(self) -> ServerUnreachable:
        if isinstance(self._path, Remote):
            return ServerUnreachable(
                f"{self._path} breaks off before it has answered: is `overwinter serve` there, and does the address begin with "
                "https:// if it serves TLS?"
            )
        return wire.unreachable(str(self._path))

    def _reach_again(self, failures: int) -> None:
        if self._reach is None or failures >= ATTEMPTS_MAX:
            raise self._gone()
        time.sleep(min(PAUSE_S_MAX, PAUSE_S * 2**failures))
        self._path = self._reach()


def _answer(stream: Iterable[bytes], before: Callable[[bytes], None]) -> bytes:
    """Return the answer in a stream of events, which has an id. What calls a method goes to `before` as it comes.

    Raises:
        HTTPException: it ended before, or has something else in it.
    """
    for line in stream:
        if line.startswith(b"data: "):
            raw = line.removeprefix(b"data: ").rstrip()
            try:
                message: Any = json.loads(raw)
            except ValueError as error:
                raise http.client.IncompleteRead(raw) from error
            match message:
                case {"method": _}:
                    before(raw)
                case {"id": _}:
                    return raw
                case _:
                    raise http.client.IncompleteRead(raw)
    raise http.client.IncompleteRead(b"")


def _json(status: int, raw: bytes) -> dict[str, Any]:
    try:
        answer: Any = json.loads(raw)
    except ValueError as error:
        raise OverwinterError(f"the server answered {status} and no JSON: {raw[:200]!r}") from error
    return cast("dict[str, Any]", answer)


def _url(place: tuple[str, ...], query: Mapping[str, str | int | float | list[str] | None]) -> str:
    if "" in place:
        raise UsageError("a name is empty: is a variable of your shell not set?")
    given = {name: value for name, value in query.items() if value is not None}
    tail = f"?{urlencode(given, doseq=True)}" if given else ""
    return "/v1/" + "/".join(quote(part, safe="", errors="backslashreplace") for part in place) + tail
