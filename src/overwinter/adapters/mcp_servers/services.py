"""MCP servers as services: imported when they are new, started when they are called, started again when they died.

A server over stdio is one child of ours, shared by all runs; it is killed with us. One over HTTP is a connection. What tools
a server has is asked at each new connection, before it is asked for anything else: one that changed meanwhile is seen.
"""

import asyncio
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
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
NOT_TAKEN = (-32_600, -32_601, -32_602)
CLOSED = -32_000
"""JSON-RPC 2.0, 5.1: no valid request, no such method, wrong parameters; and the SDK's own for an end of the connection."""
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
        made = McpServices(services, file, clock, directory, tasks)
        try:
            await made.refresh(is_forced=False)
            yield made
        except Exception as error:  # noqa: BLE001 - raised below as itself, not in the task group's wrapping
            failure = error
        finally:
            await made.stop()
    if failure is not None:
        raise failure


class McpServices:
    """See `catalog.Tools`."""

    def __init__(
        self,
        services: Mapping[str, Service],
        file: CatalogFile,
        clock: Clock,
        directory: Path,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._services, self._file, self._clock = services, file, clock
        self._servers = {
            name: _Server(service, directory, tasks, partial(self._seen, name)) for name, service in services.items()
        }
        self.stale: dict[str, str] = {}
        """Services that go on with an earlier import, and why."""

    @property
    def catalog(self) -> Catalog:
        """Return what can be called."""
        return Catalog({name: StoredModule(self._file, name) for name in self._services})

    async def perform(self, call: Call) -> Answer | Unknown:
        """Carry out one attempt of a call."""
        service = call.function.partition(".")[0]
        try:
            await self._servers[service].connect()
        except (ConfigInvalid, *BROKEN) as error:  # it was not asked for this
            return Raised(kind="OSError", message=str(error) or type(error).__name__, is_retryable=True)
        function, plan = self._file.function(call.function), self._file.plan(call.function)
        if function is None or plan is None:
            return Raised(kind="AttributeError", message=f"there is no function {call.function} any more")
        if function.fault:  # the server changed it since the call was decided
            return Raised(
                kind="PermissionError", message=f"{call.function}: {function.fault}", status=403, code="changed"
            )
        return await self._performed(call, plan)

    async def _performed(self, call: Call, plan: Mapping[str, Any]) -> Answer | Unknown:
        service = call.function.partition(".")[0]
        wires = {name: wire for name, wire, *_ in plan["arguments"]}
        nullable = {name for name, *_, is_nullable in plan["arguments"] if is_nullable}
        arguments = {
            wires[name]: value for name, value in call.arguments.items() if value is not None or name in nullable
        }
        try:
            result = await self._servers[service].call(plan["tool"], arguments, self._services[service].timeout_s)
        except _Refused as error:
            return Raised(kind="RuntimeError", message=str(error), code="protocol")
        except (ConfigInvalid, *BROKEN) as error:
            why = f"no answer came from {call.function}: {str(error) or type(error).__name__}"
            if call.effect == "write":
                return Unknown(why=why)
            return Raised(kind="OSError", message=why, is_retryable=True)
        return answer(result)

    async def refresh(self, only: str | None = None, *, is_forced: bool = True) -> list[str]:
        """Import the tools of servers whose configuration changed, or of all that are asked for; return which.

        Raises:
            ConfigInvalid: a server does not answer, and there is no earlier import of it to go on with.
        """
        known = {source.service: source.stamp for source in self._file.sources()}
        looked: list[str] = []
        for name, service in self._services.items():
            if (only is not None and name != only) or (not is_forced and known.get(name) == _stamp(service)):
                continue
            try:
                await self._servers[name].look()
            except (ConfigInvalid, *BROKEN) as error:
                what = str(error) or type(error).__name__
                if is_forced or name not in known:
                    raise ConfigInvalid(f"services.{name}: {what}") from error
                self.stale[name] = what
            else:
                looked.append(name)
        return looked

    async def stop(self) -> None:
        """End every connection."""
        for server in self._servers.values():
            await server.stop()

    def _seen(self, name: str, tools: Sequence[Mapping[str, Any]]) -> None:
        """Import what a server has, unless it is what it had."""
        service = self._services[name]
        stamp, digest = _stamp(service), hashlib.sha256(json.dumps(tools, sort_keys=True).encode()).hexdigest()
        self.stale.pop(name, None)
        if any((each.service, each.stamp, each.raw_digest) == (name, stamp, digest) for each in self._file.sources()):
            return
        found, faults = operations(tools)
        made = built(name, found, resolver(tools), pinned=self._file.pinned(name), effects=dict(service.effects))
        self._file.put(name, stamp, made, faults=faults, settings={}, raw_digest=digest, now_us=self._clock.now_us())


def _stamp(service: Service) -> str:
    return json.dumps([IMPORTER, service.mcp, sorted(service.effects.items())])


class _Refused(Exception):
    """The server did not take the request: nothing was carried out."""


class _Lost(Exception):
    """The server went away, or broke the protocol, while it was asked."""


BROKEN = (TimeoutError, OSError, _Lost)


class _Server:
    """One server: its connection lives in a task of its own, for as long as it works."""

    def __init__(
        self,
        service: Service,
        directory: Path,
        tasks: asyncio.TaskGroup,
        seen: Callable[[Sequence[Mapping[str, Any]]], None],
    ) -> None:
        self._service, self._directory, self._tasks, self._seen = service, directory, tasks, seen
        self._client: Any = None
        self._task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    async def connect(self) -> bool:
        """Return whether a new connection had to be made; then its tools were looked at.

        Raises:
            ConfigInvalid: the server does not start.
            TimeoutError: it does not say what it has.
        """
        async with self._starting:
            if self._client is not None and self._task is not None and not self._task.done():
                return False
            client = await self._started()
            try:
                self._seen(await self._tools(client))
            except _Refused as error:
                await self.stop()
                raise ConfigInvalid(f"{self._service.mcp}: it does not say what tools it has: {error}") from error
            except BROKEN:
                await self.stop()
                raise
            self._client = client
            return True

    async def look(self) -> None:
        """Look at the tools that the server has now."""
        if not await self.connect():
            self._seen(await self._tools(self._client))

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        """Return a tool's result as the protocol writes it. `connect` comes before."""
        if self._client is None:
            raise _Lost("the server ended")
        result = await self._asked(self._client.call_tool(tool, dict(arguments)), timeout_s)
        return result.model_dump(by_alias=True, exclude_none=True, mode="json")

    async def stop(self) -> None:
        """End the connection, and the child with it."""
        task, self._task, self._client = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=STOP_S_MAX)

    async def _tools(self, client: Any) -> Sequence[Mapping[str, Any]]:
        tools, cursor = list[Mapping[str, Any]](), None
        for _ in range(PAGES_MAX):
            page = await self._asked(client.list_tools(cursor=cursor), START_S_MAX)
            tools += [tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in page.tools]
            cursor = page.next_cursor
            if not cursor or len(tools) > TOOLS_MAX:
                break
        return tools[:TOOLS_MAX]

    async def _asked(self, request: Any, timeout_s: float) -> Any:
        import mcp  # noqa: PLC0415 - as in `_client`

        try:
            async with asyncio.timeout(timeout_s):
                return await request
        except TimeoutError:
            raise
        except mcp.MCPError as error:
            if error.code in NOT_TAKEN:
                raise _Refused(error.message) from error
            if error.code == CLOSED:
                await self.stop()
            raise _Lost(error.message) from error
        except Exception as error:
            await self.stop()  # what state it is in nobody knows: the next call starts it anew
            raise _Lost(f"{type(error).__name__}: {error}") from error

    async def _started(self) -> Any:
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = self._tasks.create_task(self._live(ready))
        await asyncio.wait([ready], timeout=START_S_MAX)
        if not ready.done():
            await self.stop()
            raise ConfigInvalid(f"{self._service.mcp}: it did not answer within {START_S_MAX:g} s")
        return ready.result()

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
