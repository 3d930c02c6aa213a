"""How the tests open an App: the public kit, with the tools of conftest, and hibernation when it is asked for."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from overwinter.adapters.sqlite.schema import connect
from overwinter.app import App, Parts
from overwinter.errors import WorkerCrashed
from overwinter.faces.api import api
from overwinter.ids import to_bytes
from overwinter.testing import CrashPoints, FaultyTools, faulty_store, hibernate_always, open_test_app


def opened(
    project: Path, *, wrap: Callable[[Parts], Parts] = lambda parts: parts, **options: Any
) -> AbstractAsyncContextManager[App]:
    services = {"shop": (project / "module").read_text(encoding="ascii")}
    return open_test_app(
        project / ".overwinter", services, directory=project, wrap=lambda parts: hibernating(wrap(parts)), **options
    )


def hibernating(parts: Parts) -> Parts:
    if os.environ.get("OVERWINTER_TEST_HIBERNATE"):
        return replace(parts, interpreter=hibernate_always(parts.interpreter))
    return parts


def crashing(points: CrashPoints) -> Callable[[Parts], Parts]:
    return lambda parts: replace(
        parts,
        store=faulty_store(parts.store, points),
        registry=faulty_store(parts.registry, points),
        tools=FaultyTools(parts.tools, points),
    )


def sick(parts: Parts) -> Parts:
    """Have every turn but a run's first kill its interpreter."""

    class Sick:
        engine = parts.interpreter.engine
        start = parts.interpreter.start

        async def resume(self, program: Any, snapshot: bytes, answers: Any, *, now_us: int) -> Any:
            raise WorkerCrashed("an interpreter worker died")

    return replace(parts, interpreter=Sick())


def client_of(app: App) -> httpx.AsyncClient:
    """Return a client of the API, with headers and all."""
    transport = httpx.ASGITransport(api(app), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://overwinter")


async def asked(app: App, method: str, path: str, body: bytes = b"", query: bytes = b"") -> tuple[int, Any]:
    """Put one request to the application and return status and JSON."""
    sent: list[Any] = []
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": [],
             "http_version": "1.1", "scheme": "http", "server": ("x", 1), "client": ("x", 1), "root_path": ""}  # fmt: skip
    await api(app)(scope, receive, send)
    raw = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(raw)


def spoil(project: Path, run_id: str) -> None:
    """Damage the snapshot of a run, so that nothing can go on from it."""
    with closing(connect(project / ".overwinter" / "store.db", is_writer=True)) as db:
        db.execute(
            "update snapshot set body = ? where n = (select n from run where id = ?)", (b"x" * 200, to_bytes(run_id))
        )
