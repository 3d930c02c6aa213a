"""MCP servers as services: imported when they are new, started when they are called, started again when they died.

A server over stdio is one child of ours, shared by all runs; it is killed with us. One over HTTP is a connection.
"""

import asyncio
import json
import os
import shlex
import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from overwinter.adapters.catalog_file import CatalogFile, StoredModule
from overwinter.adapters.mcp_servers.tools import answer, operations, resolver
from overwinter.catalog import Catalog, Unknown
from overwinter.catalog.modules import built
from overwinter.clock import Clock
from overwinter.config import Service
from overwinter.errors import ConfigInvalid
from overwinter.events import Answer, Call, Raised

__all__ = ["McpServices", "load_mcp"]

IMPORTER = 1
START_S_MAX = 30.0
STOP_S_MAX = 5.0
TOOLS_MAX = 10_000
PAGES_MAX = 100


@asynccontextmanager
async def load_mcp(
    services: Mapping[str, Service], file: CatalogFile, clock: Clock, *, directory: Path
) -> "AsyncGenerator[McpServices]":
    """Import what is new of the MCP servers, and yield their tools; stop every server with the block.

    Raises:
        ConfigInvalid: a server that was never imported does not start or answer.
    """
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        servers = {name: _Server(name, service, directory, tasks) for name, service in services.items()}
        made = McpServices(servers, services, file, clock)
        try:
            await made.refresh(is_forced=False)
            yield made
        except Exception as error:  # noqa: BLE001 - raised below as itself, not in the task group's wrapping
            failure = error
        finally:
            for server in servers.values():
                await server.stop()
    if failure is not None:
        raise failure


class McpServices:
    """See `catalog.Tools`."""

    def __init__(
        self, servers: Mapping[str, "_Server"], services: Mapping[str, Service], file: CatalogFile, clock: Clock
    ) -> None:
        self._servers, self._services, self._file, self._clock = servers, services, file, clock
        self.stale: dict[str, str] = {}
        """Services that go on with an earlier import, and why."""

    @property
    def catalog(self) -> Catalog:
        """Return what can be called."""
        return Catalog({name: StoredModule(self._file, name) for name in self._services})

    async def perform(self, call: Call) -> Answer | Unknown:
        """Carry out one attempt of a call."""
        service = call.function.partition(".")[0]
        plan = self._file.plan(call.function)
        if plan is None:
            return Raised(kind="AttributeError", message=f"there is no function {call.function} any more")
        wires = {name: wire for name, wire, *_ in plan["arguments"]}
        nullable = {name for name, *_, is_nullable in plan["arguments"] if is_nullable}
        arguments = {
            wires[name]: value for name, value in call.arguments.items() if value is not None or name in nullable
        }
        try:
            result = await self._servers[service].call(plan["tool"], arguments, self._services[service].timeout_s)
        except ConfigInvalid as error:  # it was not asked: it does not start
            return Raised(kind="OSError", message=str(error), is_retryable=True)
        except (TimeoutError, OSError, _Lost) as error:
            why = f"no answer came from {call.function}: {error or type(error).__name__}"
            return (
                Unknown(why=why) if call.effect == "write" else Raised(kind="OSError", message=why, is_retryable=True)
            )
        return answer(result)

    async def refresh(self, only: str | None = None, *, is_forced: bool = True) -> list[str]:
        """Import the tools of servers whose configuration changed, or of all that are asked for; return which.

        Raises:
            ConfigInvalid: a server does not answer, and there is no earlier import of it to go on with.
        """
        known = {source.service: source.stamp for source in self._file.sources()}
        imported: list[str] = []
        for name, service in self._services.items():
            stamp = json.dumps([IMPORTER, service.mcp, sorted(service.effects.items())])
            if (only is not None and name != only) or (not is_forced and known.get(name) == stamp):
                continue
            try:
                tools = await self._servers[name].tools()
            except (ConfigInvalid, OSError, TimeoutError, _Lost) as error:
                if is_forced or name not in known:
                    raise ConfigInvalid(f"services.{name}: {error or type(error).__name__}") from error
                self.stale[name] = str(error)
                continue
            self.stale.pop(name, None)
            found, faults = operations(tools)
            made = built(name, found, resolver(tools), pinned=self._file.pinned(name), effects=dict(service.effects))
            digest = json.dumps(tools, sort_keys=True)
            self._file.put(
                name, stamp, made, faults=faults, settings={}, raw_digest=digest, now_us=self._clock.now_us()
            )
            imported.append(name)
        return imported


class _Lost(Exception):
    """The server went away, or broke the protocol, while it was asked."""


class _Server:
    """One server: its connection lives in a task of its own, for as long as it works."""

    def __init__(self, name: str, service: Service, directory: Path, tasks: asyncio.TaskGroup) -> None:
        self._name, self._service, self._directory, self._tasks = name, service, directory, tasks
        self._client: Any = None
        self._task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    async def tools(self) -> Sequence[Mapping[str, Any]]:
        """Return the server's tools as the protocol writes them."""
        client, tools, cursor = await self._connected(), list[Mapping[str, Any]](), None
        for _ in range(PAGES_MAX):
            page = await self._asked(client.list_tools(cursor=cursor), START_S_MAX)
            tools += [tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in page.tools]
            cursor = page.next_cursor
            if not cursor or len(tools) > TOOLS_MAX:
                break
        return tools[:TOOLS_MAX]

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        """Return a tool's result as the protocol writes it.

        Raises:
            ConfigInvalid: the server does not start; it was not asked.
            TimeoutError: no answer came in time.
            OSError: the connection broke.
        """
        client = await self._connected()
        result = await self._asked(client.call_tool(tool, dict(arguments)), timeout_s)
        return result.model_dump(by_alias=True, exclude_none=True, mode="json")

    async def stop(self) -> None:
        """End the connection, and the child with it."""
        task, self._task, self._client = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=STOP_S_MAX)

    async def _asked(self, request: Any, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await request
        except TimeoutError:
            raise
        except Exception as error:
            await self.stop()  # what state it is in nobody knows: the next call starts it anew
            raise _Lost(f"{type(error).__name__}: {error}") from error

    async def _connected(self) -> Any:
        async with self._starting:
            if self._client is None or self._task is None or self._task.done():
                ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                self._task = self._tasks.create_task(self._live(ready))
                await asyncio.wait([ready], timeout=START_S_MAX)
                if not ready.done():
                    await self.stop()
                    raise ConfigInvalid(f"{self._service.mcp}: it did not answer within {START_S_MAX:g} s")
                self._client = ready.result()
            return self._client

    async def _live(self, ready: "asyncio.Future[Any]") -> None:
        """Hold the connection open; the SDK wants it opened and closed in one task."""
        try:
            async with _client(self._service, self._directory) as client:
                ready.set_result(client)
                await asyncio.Event().wait()
        except Exception as error:  # noqa: BLE001 - a server's end is not ours
            if not ready.done():
                ready.set_exception(ConfigInvalid(f"{self._service.mcp}: it does not start: {_root(error)}"))
        finally:
            if not ready.done():
                ready.cancel()


def _client(service: Service, directory: Path) -> Any:
    try:
        import mcp  # noqa: PLC0415 - it takes half a second, and many homes have no server
    except ImportError as error:
        raise ConfigInvalid("the MCP client is not installed: pip install 'overwinter[mcp]'") from error
    if service.mcp.startswith(("http://", "https://")):
        return mcp.Client(service.mcp)
    words = shlex.split(service.mcp)
    if setpriv := shutil.which("setpriv"):  # the kernel ends the child with us, also when we are killed
        words = [setpriv, "--pdeathsig", "KILL", *words]
    environment = {name: os.environ.get(value.removeprefix("env:"), "") for name, value in service.env.items()}
    server = mcp.StdioServerParameters(
        command=words[0], args=words[1:], env={"PATH": os.environ.get("PATH", ""), **environment}, cwd=str(directory)
    )
    return mcp.Client(server)


def _root(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
