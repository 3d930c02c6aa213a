"""The way of an agent in Python to a home: its HTTP API, over the home's socket, TCP, or within the process."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import anyio
import httpx2

from overwinter.adapters.home import socket_path
from overwinter.app import App
from overwinter.errors import ServerUnreachable
from overwinter.faces import wire
from overwinter.faces.api import api
from overwinter.faces.models import ModelsDoor
from overwinter.frozen import frozen

__all__ = ["Home"]

REQUEST_S_MAX = 120.0
"""Longer than the longest that the home waits for a run."""
WAIT_S_MAX = 50.0
"""How long one request waits for a run's end; then another one is made."""
GONE_S_MAX = 60.0
"""How long a home may be gone while a run of it is waited for."""
PAUSE_S = 0.05
MODEL_S_MAX = 600.0
"""Silence of a model's answer."""
HERE = "http://overwinter"
"""Address of a home that needs none."""


@frozen
class Home:
    """A home as one of its agents sees it. It may be used by many at once, in one event loop; `async with` closes its connections."""

    client: httpx2.AsyncClient
    agent: str
    """Under whose identity all of it happens."""

    @classmethod
    def served(cls, place: Path, *, agent: str = "default") -> "Home":
        """Return a home that `overwinter serve` holds on this machine.

        Args:
            place: its directory.
            agent: one of `overwinter.toml`.

        Raises:
            HomeError: the directory's path is too long for a socket.
        """
        transport = httpx2.AsyncHTTPTransport(uds=str(socket_path(place)))
        return cls(client=_client(transport, HERE, ""), agent=agent)

    @classmethod
    def remote(cls, url: str, token: str, *, agent: str = "default") -> "Home":
        """Return a home that answers over TCP.

        Args:
            url: `https://host:port`.
            token: of `overwinter token create`, with the scopes `read`, `act`, and `models` for model calls; for this agent.
            agent: one of `overwinter.toml`.
        """
        return cls(client=_client(httpx2.AsyncHTTPTransport(), url.rstrip("/"), token), agent=agent)

    @classmethod
    def inside(cls, app: App, *, agent: str = "default") -> "Home":
        """Return a home that this very process holds. A model's stream comes in one piece: use a served home for streams."""
        door = ModelsDoor(api(app), app, is_remote=False)
        return cls(client=_client(httpx2.ASGITransport(app=door), HERE, ""), agent=agent)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.client.aclose()

    @property
    def url(self) -> str:
        """Return its address."""
        return str(self.client.base_url).rstrip("/")

    async def start(
        self, source: str, inputs: Mapping[str, Any] | None = None, *, name: str = "program", dedup: str | None = None
    ) -> str:
        """Start a program; return its run's id.

        Args:
            source: the program.
            inputs: variables that it starts with, plain data.
            name: for people.
            dedup: a second start with the same key returns the first one's run.

        Raises:
            CheckFailed: it is wrong; nothing ran.
            OverwinterError: the home refuses.
        """
        body = {"source": source, "inputs": inputs or {}, "agent": self.agent, "name": name, "dedup": dedup}
        return (await self.asked("POST", "runs", body))["id"]

    async def ended(self, run_id: str, patience_s: float | None = None) -> Mapping[str, Any]:
        """Return a run once it does not go on by itself, or as it stands when the patience ends; None: never.

        A home that stops is waited for: whoever opens it next has the run.

        Raises:
            ServerUnreachable: nobody has opened it again for `GONE_S_MAX`.
        """
        ends_s = math.inf if patience_s is None else anyio.current_time() + patience_s
        heard_s = anyio.current_time()
        while True:
            wait_s = max(0.0, min(ends_s - anyio.current_time(), WAIT_S_MAX))
            try:
                run = await self.asked("GET", f"runs/{run_id}/result", query={"wait_s": wait_s})
                heard_s = anyio.current_time()
                if run["status"] != "live" or run["is_revoked"] or heard_s >= ends_s:
                    return run
            except ServerUnreachable:
                if anyio.current_time() > min(ends_s, heard_s + GONE_S_MAX):
                    raise
            await anyio.sleep(PAUSE_S)  # one that stops answers at once

    async def asked(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, query: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - JSON, as each path has it
        """Return what the home answers to one request.

        Raises:
            OverwinterError: it refuses.
            ServerUnreachable: nobody answers.
        """
        known = {key: value for key, value in (query or {}).items() if value is not None}
        try:
            answer = await self.client.request(method, f"/v1/{path}", json=body, params=known)
        except httpx2.TransportError as error:
            raise ServerUnreachable(f"the home at {self.url} does not answer: {error!r}") from error
        try:
            said = answer.json()
        except json.JSONDecodeError as error:
            raise ServerUnreachable(f"{self.url} is no home: it answered {answer.status_code} in no JSON") from error
        if not answer.is_success:
            raise wire.raised(said)
        return said


def _client(transport: httpx2.AsyncBaseTransport, url: str, token: str) -> httpx2.AsyncClient:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx2.AsyncClient(
        transport=transport, base_url=url, headers=headers, timeout=httpx2.Timeout(REQUEST_S_MAX, read=MODEL_S_MAX)
    )
