"""MCP servers that misbehave: each is reported as what it did, and the service beside it is unharmed."""

import json
import sys
import tracemalloc
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import nasty
from kit import opened
from overwinter.config import Agent, Config, Service, Worker
from overwinter.events import Status
from overwinter.testing import OWNER, ManualClock, finish

pytestmark = pytest.mark.anyio


def configured(how: str) -> Config:
    """Return a configuration with a server that misbehaves, and a good one."""
    command = f"{sys.executable} {Path(nasty.__file__)}"
    bad = Service(mcp=f"{command} '{how}'", timeout_s=1.0 if how in {"hang", "notifications without end"} else 20.0)
    return Config(
        agents={"default": Agent(owner=OWNER, tools=("*",))},
        worker=Worker(interpreters=1),
        services={"bad": bad, "good": Service(mcp=f"{command} fine")},
    )


async def ran(project: Path, how: str, *sources: str) -> list[Any]:
    """Return what each program ended with, one after the other in one process."""
    clock = ManualClock()
    async with opened(project, clock=clock, config=configured(how)) as app:
        return [
            await finish(app, await app.start(source), clock, answers={"unknown": "failed nobody knows"})
            for source in sources
        ]


NASTY = {
    # how: the error that a read ends with, or None; nonsense between two messages spoils nothing
    "die mid-answer": "OSError", "stderr": None, "stderr without end": None, "notifications": None, "no json": None, "no object": None, "deep": None,
    "other id": None,
}  # fmt: skip


@pytest.mark.parametrize("how", NASTY)
async def test_whatever_a_server_does_its_call_ends_and_the_service_beside_it_goes_on(project, how, capfd):
    act, fine = await ran(project, how, "await bad.act()", "[await bad.fine(), await good.fine()]")
    assert (act.result["kind"] if act.status is Status.FAILED else None) == NASTY[how], act.result
    assert fine.result == ["fine", "fine"], fine.result
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("flood", "it sent a message of more than 16 MB: it was cut off"),
        ("questions without end", "it asked more than 100 things at once: it was cut off"),
        ("notifications without end", "no answer came"),
    ],
)
@pytest.mark.timeout(240)  # it floods as fast as it can: a busy machine takes minutes
async def test_a_server_that_floods_costs_neither_memory_nor_the_time_of_the_service_beside_it(project, how, words):
    clock = ManualClock()
    async with opened(project, clock=clock, config=configured(how)) as app:
        await finish(app, await app.start("[await bad.fine(), await good.fine()]"), clock)
        tracemalloc.start()
        try:
            flooding = await app.start("await bad.write()")
            beside = [await finish(app, await app.start("await good.fine()"), clock) for _ in range(5)]
            flooded = await finish(app, flooding, clock, answers={"unknown": "failed nobody knows"})
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        journal = str([event async for event in app.events(flooding)])
        again = await finish(app, await app.start("await bad.fine()"), clock)
    assert words in journal, journal
    assert "nobody knows" in flooded.result["message"]
    assert [each.result for each in (*beside, again)] == ["fine"] * 6
    assert peak_bytes < 48 << 20, peak_bytes


@pytest.mark.parametrize(("name", "done"), [("lie", ""), ("write_lie", " (it was carried out)")])
async def test_an_answer_that_is_not_as_its_schema_says_is_an_error_and_neither_repeated_nor_unknown(
    project, name, done
):
    lie, fine = await ran(project, "fine", f"await bad.{name}()", "await bad.fine()")
    assert lie.result["kind"] == "ValueError"
    assert f"the answer of bad.{name} is not as described{done}" in lie.result["message"]
    assert fine.result == "fine"


async def test_a_server_that_hangs_in_a_call_is_started_anew_for_the_next_one(project):
    hang, fine = await ran(project, "hang", "await bad.write()", "[await bad.fine(), await good.fine()]")
    assert "nobody knows" in hang.result["message"]
    assert fine.result == ["fine", "fine"], fine.result


@pytest.mark.claim("G8.changed")
async def test_a_tool_that_changes_while_its_server_runs_is_not_called_as_it_is_now(project):
    first, second, fine = await ran(project, "change", "await bad.act()", "await bad.act()", "await bad.fine()")
    assert first.result == "act"
    assert (second.status, second.result["kind"]) == (Status.FAILED, "PermissionError"), second.result
    assert "accepted" in second.result["message"]
    assert fine.result == "fine"


PACKED = zlib.compress(b" " * (128 << 20), wbits=31)
"""128 MB in 128 KB."""


class NastyOverHttp:
    """A server at an address that answers a call as it is told to, and everything else well."""

    def __init__(self, how: str) -> None:
        self.how = how

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            return web.Response(status=405)
        message = await request.json()
        if "id" not in message:
            return web.Response(status=202)
        text = {"content": [{"type": "text", "text": "fine"}]}
        tools = {"tools": [nasty.tool("act"), nasty.tool("fine")]}
        match message["method"]:
            case "initialize":
                result: Any = nasty.INITIALIZED
            case "tools/list":
                result = tools
            case "tools/call" if message["params"]["name"] == "act":
                return await self.act(request, {"jsonrpc": "2.0", "id": message["id"], "result": text})
            case "tools/call":
                result = text
            case method:
                error = {"code": -32601, "message": f"no {method}"}
                return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result})

    async def act(self, request: web.Request, answer: Any) -> web.StreamResponse:
        body = json.dumps(answer).encode()
        if self.how == "packed":
            return web.Response(body=PACKED, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})
        is_event = self.how.endswith("event")
        media = "text/event-stream" if is_event else "application/json"
        response = web.StreamResponse(headers={"Content-Type": media})
        await response.prepare(request)
        with suppress(ConnectionError):
            await response.write(b"data: " if is_event else b"")
            for _ in range(64):
                await response.write(b" " * (1 << 20))
            await response.write(body + b"\n\n")
        return response


@pytest.mark.parametrize(("how", "words"), [("body", "16 MB"), ("event", "byte limit"), ("packed", "compressed")])
async def test_a_server_at_an_address_that_floods_costs_no_memory_and_says_why(project, how, words):
    clock, application = ManualClock(), web.Application()
    application.router.add_route("*", "/mcp", NastyOverHttp(how).answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = configured("fine")
    there = Service(mcp=f"http://127.0.0.1:{runner.addresses[0][1]}/mcp", timeout_s=20.0)
    try:
        async with opened(project, clock=clock, config=replace(config, services={"bad": there})) as app:
            tracemalloc.start()
            try:
                act = await finish(app, await app.start("await bad.act()"), clock)
                _, peak_bytes = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            fine = await finish(app, await app.start("await bad.fine()"), clock)
    finally:
        await runner.cleanup()
    assert (act.result["kind"], fine.result) == ("OSError", "fine")
    assert words in act.result["message"]
    assert peak_bytes < 80 << 20, peak_bytes
