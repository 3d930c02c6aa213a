"""The models' door as clients find it: uvicorn on a port with tokens, and on the home's own socket."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import anyio

from models_kit import home_of
from overwinter.adapters.home import socket_path
from overwinter.app import App
from overwinter.config import Config
from overwinter.faces.server import serve
from overwinter.faces.tcp import Port, listen
from overwinter.tokens import Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where a home is, and who may come in."""

    app: App
    url: str
    socket: Path
    token: Token
    key: str
    """The token, as it is used."""

    async def post(
        self, path: str, body: bytes, *, key: str | None = None, headers: Any = (), method: str = "POST"
    ) -> tuple[int, Any, bytes]:
        """Return status, headers and body of an answer to bytes as they are."""
        rows = [("authorization", f"Bearer {self.key if key is None else key}"), *headers]
        async with (
            aiohttp.ClientSession(skip_auto_headers=("content-type",)) as session,
            session.request(
                method, self.url + path, data=BytesIO(body) if len(body) > 1 << 20 else body, headers=rows
            ) as answer,
        ):
            return answer.status, answer.headers, await answer.read()


@asynccontextmanager
async def door_of(project: Path, config: Config, **options: Any) -> AsyncGenerator[Door]:
    """Open a home and its doors."""
    stop, started = anyio.Event(), anyio.Event()
    async with home_of(project, config, is_worker=False, **options) as app:
        token, key = await app.access.create("ana@example.com", by="lead", scopes=("models",))
        with listen(Port(number=0)) as listener:
            async with anyio.create_task_group() as group:
                home = project / ".overwinter"
                group.start_soon(lambda: serve(app, home, lambda _: started.set(), stop, listener))
                await started.wait()
                yield Door(app=app, url=listener.url, socket=socket_path(home), token=token, key=key)
                stop.set()
