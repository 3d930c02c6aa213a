"""How many tools MCP servers offer, and what they weigh in the context of a client that lists them itself."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from overwinter.adapters.mcp_servers.server import BROKEN, RESOURCES, START_S_MAX, Refused, Server
from overwinter.adapters.references import References
from overwinter.adapters.vault import Vault
from overwinter.config import Service
from overwinter.errors import ConfigInvalid
from overwinter.frozen import frozen

__all__ = ["Count", "counted"]

ANSWER_BYTES_MAX = 32 << 20
TOLD = ("name", "description", "inputSchema")
"""What a client tells its model of a tool."""


@frozen
class Count:
    """One server's tools."""

    tools: int = 0
    size_bytes: int = 0
    """Of their definitions, as compact JSON."""
    why: str = ""
    """It could not be listed."""


async def counted(services: Mapping[str, Service], directory: Path, vault: Vault) -> Mapping[str, Count]:
    """Start each server, list its tools, and end it again: all side by side, each within 30 s.

    Args:
        services: by name, each an MCP server.
        directory: to which paths are relative.
        vault: of the home.
    """
    counts: dict[str, Count] = {}
    async with asyncio.TaskGroup() as tasks:
        for name, service in services.items():
            tasks.create_task(_count(name, service, directory, vault, counts))
    return {name: counts[name] for name in services}


async def _count(name: str, service: Service, directory: Path, vault: Vault, counts: dict[str, Count]) -> None:
    def seen(tools: Sequence[Mapping[str, Any]]) -> None:
        told = [{key: tool[key] for key in TOLD if key in tool} for tool in tools if tool not in RESOURCES]
        size = len(json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode())
        counts[name] = Count(tools=len(told), size_bytes=size)

    async with asyncio.TaskGroup() as tasks:
        server = Server(
            service,
            partial(References, directory, vault),
            directory,
            tasks,
            seen,
            bytes_max=ANSWER_BYTES_MAX,
            access=None,
        )
        try:
            async with asyncio.timeout(START_S_MAX):
                await server.look()
        except (ConfigInvalid, Refused, *BROKEN) as error:
            counts[name] = Count(why=str(error) or f"it did not answer within {START_S_MAX:g} s")
        finally:
            await server.stop()
