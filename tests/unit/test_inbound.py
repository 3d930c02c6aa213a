"""What others tell a run at an address of its own."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from kit import opened
from overwinter.app import App
from overwinter.faces.inbound import InboundDoor
from overwinter.testing import finish, idle

pytestmark = pytest.mark.anyio


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("it is the door's")


async def told(
    app: App, path: str, body: bytes, headers: Mapping[str, str] | None = None, method: str = "POST"
) -> tuple[int, Any]:
    sent: list[Any] = []
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    rows = [(key.encode(), value.encode()) for key, value in (headers or {}).items()]
    await InboundDoor(nothing, app)({"type": "http", "method": method, "path": path, "headers": rows}, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.mark.claim("W1.inbound")
async def test_a_run_waits_for_what_others_tell_it_and_takes_each_delivery_once(project):
    async with opened(project) as app:
        run_id = await app.start("a = await tools.receive()\nb = await tools.receive()\n[a, b]")
        await idle(app)
        path = app.hook(run_id)
        headers = {
            "content-type": "application/json",
            "x-github-event": "push",
            "x-github-delivery": "1",
            "authorization": "x",
        }
        assert await told(app, path, b'{"n": 1}', headers) == (202, {"is_new": True})
        assert await told(app, path, b'{"n": 1}', headers) == (202, {"is_new": False})
        assert (await told(app, path, "grüße".encode()))[0] == 202
        run = await finish(app, run_id)
        assert run.result[0]["body"] == {"n": 1}
        assert run.result[0]["headers"]["x-github-event"] == "push"
        assert "authorization" not in run.result[0]["headers"]
        assert run.result[1]["body"] == "grüße"
        assert (await told(app, path, b"more"))[0] == 410


@pytest.mark.claim("W1.inbound")
async def test_no_other_address_leads_to_a_run(project):
    async with opened(project) as app:
        one, other = [await app.start("await tools.receive()") for _ in range(2)]
        await idle(app)
        code = app.hook(one).partition(".")[2]
        for path in (
            f"/in/{other}.{code}",
            f"/in/{one}.{code[:-1]}",
            f"/in/{one}",
            "/in/",
            f"/in/{one}.{'0' * 40}",
            "/in/ü.ü",
        ):
            assert (await told(app, path, b"x"))[0] == 404
        assert (await told(app, app.hook(one), b"x", method="GET"))[0] == 405
        assert (await told(app, app.hook(one), b"x" * 600_000))[0] == 413
        assert [event.kind async for event in app.events(one)] == ["created", "turn", "called"]
