"""The MCP face with the official client: over stdio and over HTTP, in both generations of the protocol."""

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client.streamable_http import streamable_http_client

import mcp
from shells import Shell

pytestmark = pytest.mark.anyio
MODES = ["2026-07-28", "legacy"]


@asynccontextmanager
async def over_stdio(shell: Shell, mode: Any, **offers: Any) -> AsyncGenerator[mcp.Client]:
    started = mcp.StdioServerParameters(
        command=sys.executable, args=["-m", "overwinter", "mcp"], env=shell.environment, cwd=shell.place
    )
    async with mcp.Client(started, mode=mode, **offers) as client:
        yield client


@asynccontextmanager
async def over_http(shell: Shell, mode: Any, **offers: Any) -> AsyncGenerator[mcp.Client]:
    server = shell.popen("serve", "--port", "0", "--json")
    shell.servers.append(server)
    assert server.stdout is not None
    url = json.loads(server.stdout.readline())["url"]
    token = shell("token", "create", "ana@example.com", "--scope=act", "--scope=approve").stdout.strip()
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=60) as http,
        mcp.Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode, **offers) as client,
    ):
        yield client


WAYS = {"stdio": over_stdio, "http": over_http}


def told(result: Any) -> dict[str, Any]:
    return result.structured_content


@pytest.mark.claim("F1.mcp")
@pytest.mark.claim("F1.reads")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", WAYS)
async def test_a_program_is_looked_up_checked_and_run(shell: Shell, way: str, mode: str):
    async with WAYS[way](shell, mode) as client:
        tools = (await client.list_tools()).tools
        assert [each.name for each in tools] == ["search", "describe", "query", "execute", "wait"]
        found = await client.call_tool("search", {"query": "twice a number"})
        assert "shop.double" in told(found)["functions"][0]
        wrong = await client.call_tool("execute", {"code": "await shop.pay(cent=3)"})
        assert wrong.is_error
        assert "cents" in json.dumps(told(wrong)["errors"])
        assert not shell.ledger()
        ran = await client.call_tool("execute", {"code": "print('x')\nawait shop.pay(cents=3)"})
        assert (told(ran)["status"], told(ran)["value"], told(ran)["printed"]) == ("finished", "paid 3", "x\n")
        more = await client.call_tool("execute", {"code": "kept = 5"})
        again = await client.call_tool("query", {"code": "kept + 1", "after": told(more)["run"]})
        assert told(again)["value"] == 6
        refused = await client.call_tool("query", {"code": "await shop.pay(cents=3)"})
        assert refused.is_error
        sly = await client.call_tool("query", {"code": "await tools.call('shop.' + 'pay', {'cents': 3})"})
        assert "may only read" in json.dumps(told(sly))
        assert told(await client.call_tool("query", {"code": "await shop.double(number=4)"}))["value"] == 8
    assert shell.ledger() == ["pay 3"]


@pytest.mark.claim("F1.asked")
@pytest.mark.parametrize("action", ["accept", "decline"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_program_asks_the_person_at_the_official_client(shell: Shell, way: str, action: Any):
    seen: list[str] = []

    async def shown(_: Any, params: Any) -> mcp.types.ElicitResult:
        seen.append(params.message)
        return mcp.types.ElicitResult(action=action, content={"answer": "yes"} if action == "accept" else None)

    code = "a = await tools.ask('ana@example.com', 'Pay 3?', options=['yes', 'no'])\nawait shop.pay(cents=3)\na"
    async with WAYS[way](shell, "2026-07-28", elicitation_callback=shown) as client:
        answered = told(await client.call_tool("execute", {"code": code}))
    assert len(seen) == 1
    assert seen[0].startswith("Pay 3?")
    if action == "accept":
        assert answered["value"] == "yes"
        assert shell.ledger() == ["pay 3"]
    else:
        assert (answered["status"], answered["asks"][0]["person"]) == ("live", "ana@example.com")
        assert not shell.ledger()


@pytest.mark.claim("F1.progress")
@pytest.mark.parametrize(("way", "mode"), [("stdio", "legacy"), ("stdio", "2026-07-28"), ("http", "2026-07-28")])
async def test_the_official_client_hears_how_a_long_program_goes(shell: Shell, way: str, mode: str):
    heard: list[str | None] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    code = "import asyncio\nawait asyncio.sleep(2.5)\n8"
    async with WAYS[way](shell, mode) as client:
        answer = await client.call_tool("execute", {"code": code}, progress_callback=hear)
    assert told(answer)["value"] == 8
    assert heard
    assert all(heard)


@pytest.mark.claim("F1.killed")
@pytest.mark.parametrize("mode", MODES)
async def test_a_home_that_is_killed_under_a_call_over_stdio_answers_it_and_runs_it_once(shell: Shell, mode: str):
    server = shell.serve()
    answers: list[Any] = []
    code = "import asyncio\nawait shop.charge(cents=7)\nawait asyncio.sleep(2)\n8"
    async with over_stdio(shell, mode) as client, anyio.create_task_group() as group:

        async def execute() -> None:
            answers.append(await client.call_tool("execute", {"code": code}))

        group.start_soon(execute)
        while not shell.ledger():  # noqa: ASYNC110 - it is another process that writes it
            await anyio.sleep(0.01)
        server.kill()
    assert told(answers[0])["value"] == 8
    assert len([line for line in shell.ledger() if line.startswith("charge ")]) == 1
    assert len(json.loads(shell("ps", "--all", "--json").stdout)["runs"]) == 1
