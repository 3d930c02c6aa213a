"""A client of the home's socket: the standard library alone, so that a command starts in milliseconds."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode

from overwinter.errors import OverwinterError, ServerUnreachable
from overwinter.faces import wire

__all__ = ["Client"]

TIMEOUT_S = 90.0
"""Longer than the longest request that waits on the server."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("overwinter", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """One method per verb; answers are plain JSON, errors are those of `errors`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: _UnixConnection | None = None

    def close(self) -> None:
        """Close the connection that is kept between requests."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, *place: str, **query: str | float | None) -> dict[str, Any]:
        """Return what lies at `/v1/place/...`."""
        return self._request("GET", _url(place, query), None)

    def post(self, *place: str, **body: object) -> dict[str, Any]:
        """Send `body` as JSON to `/v1/place/...`, return the answer."""
        return self._request("POST", _url(place, {}), body)

    def text(self, *place: str) -> str:
        """Return a text, as it is."""
        return self._answer("GET", _url(place, {}), None)[1].decode()

    def follow(self, *place: str, since: int) -> Iterator[dict[str, Any]]:
        """Yield events as they come, until the run ends. A dropped connection is taken up where it broke."""
        while True:
            connection = _UnixConnection(self._path, None)
            try:
                connection.request("GET", _url(place, {"follow": "1", "since": since}))
                response = connection.getresponse()
                if response.status != http.client.OK:
                    raise wire.raised(json.loads(response.read()))
                for line in response:
                    if line.startswith(b"data: "):
                        event = json.loads(line[6:])
                        since = event["position"] + 1
                        yield event
            except (ConnectionError, FileNotFoundError, http.client.HTTPException) as error:
                raise wire.unreachable(str(self._path)) from error
            finally:
                connection.close()
            return

    def _request(self, method: str, url: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        status, raw = self._answer(method, url, body)
        try:
            answer: Any = json.loads(raw)
        except ValueError as error:
            raise OverwinterError(f"the server answered {status} and no JSON: {raw[:200]!r}") from error
        if status >= http.client.BAD_REQUEST:
            raise wire.raised(answer)
        return cast("dict[str, Any]", answer)

    def _answer(self, method: str, url: str, body: Mapping[str, object] | None) -> tuple[int, bytes]:
        raw = None if body is None else json.dumps(body).encode()
        for attempt in range(2):
            is_new = self._connection is None
            connection = self._connection or _UnixConnection(self._path, TIMEOUT_S)
            try:
                connection.request(method, url, raw, {"content-type": "application/json"} if raw else {})
                response = connection.getresponse()
                answer = response.status, response.read()
            except (ConnectionError, FileNotFoundError, http.client.HTTPException) as error:
                connection.close()
                self._connection = None
                # A kept connection that the server closed meanwhile is opened anew; nothing had been answered on it.
                if attempt or is_new or isinstance(error, http.client.IncompleteRead):
                    raise wire.unreachable(str(self._path)) from error
                continue
            self._connection = connection
            return answer
        raise ServerUnreachable("the loop returns")


def _url(place: tuple[str, ...], query: Mapping[str, str | int | float | None]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    tail = f"?{urlencode(given)}" if given else ""
    return "/v1/" + "/".join(quote(part, safe="") for part in place) + tail
