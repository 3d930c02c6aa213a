"""MCP servers as services: imported when they are new, started when they are called, started again when they died.

A server over stdio is one child of ours, shared by all runs; it is killed with us. One over HTTP is a connection. What tools
a server has is asked at each new connection, before it is asked for anything else: one that changed meanwhile is seen.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from overwinter.adapters.catalog_file import CatalogFile, Refreshed, StoredModule
from overwinter.adapters.mcp_servers.logins import Denied, LoginNeeded, Untaken, access_of
from overwinter.adapters.mcp_servers.server import BROKEN, START_S_MAX, Barred, Lied, Refused, Server
from overwinter.adapters.mcp_servers.tools import answer, file_of, operations, resolver
from overwinter.adapters.references import References
from overwinter.adapters.vault import Vault
from overwinter.catalog import Asks, Catalog, Later, Performed, Unknown
from overwinter.catalog.modules import built
from overwinter.clock import Clock
from overwinter.config import Config, Service
from overwinter.errors import ConfigInvalid
from overwinter.events import CARRIED_OUT, Answer, Call, Raised, Returned
from overwinter.frozen import replace
from overwinter.handles import Handles

__all__ = ["McpServices", "load_mcp"]

IMPORTER = 2
LOGIN = "login"
"""Key of what a call that waits for a login had before."""
SAID = ("question", "options", "answer")
DONE, GIVE_UP = "logged in", "give up"


@asynccontextmanager
async def load_mcp(  # noqa: PLR0913 - what a source works with
    services: Mapping[str, Service],
    file: CatalogFile,
    clock: Clock,
    handles: Handles,
    *,
    directory: Path,
    vault: Vault,
    importing: Callable[[str], None],
    config: Config,
    start_s_max: float = START_S_MAX,
) -> "AsyncGenerator[McpServices]":
    """Import what is new of the MCP servers, and yield their tools; stop every server with the block.

    A server that does not start or answer is a fault of its service alone: without an earlier import it has no functions.
    """
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        made = McpServices(
            services, file, clock=clock, handles=handles, directory=directory, vault=vault, tasks=tasks,
            config=config, start_s_max=start_s_max,
        )  # fmt: skip
        try:
            await made.refresh(is_forced=False, importing=importing)
            yield made
        except Exception as error:  # noqa: BLE001 - raised below as itself, not in the task group's wrapping
            failure = error
        finally:
            await made.stop()
    if failure is not None:
        raise failure


class McpServices:
    """See `catalog.Tools`."""

    def __init__(  # noqa: PLR0913 - made by `load_mcp` alone
        self,
        services: Mapping[str, Service],
        file: CatalogFile,
        *,
        clock: Clock,
        handles: Handles,
        directory: Path,
        vault: Vault,
        tasks: asyncio.TaskGroup,
        config: Config,
        start_s_max: float,
    ) -> None:
        self._config, self._directory, self._vault, self._tasks = config, directory, vault, tasks
        self._start_s_max = start_s_max
        self._services, self._file, self._clock, self._handles = services, file, clock, handles
        self._servers = {name: self._server(name) for name in services}
        self._accounts: dict[tuple[str, str], Server] = {}
        """Connections with what single agents show, by service and reference: made when they are needed."""
        self._different: dict[tuple[str, str], frozenset[str]] = {}
        """Functions that such a connection shows in other words than the service's own."""
        self.stale: dict[str, str] = {}
        """Services that go on as they were, and why."""

    @property
    def catalog(self) -> Catalog:
        """Return what can be called."""
        return Catalog({name: StoredModule(self._file, name) for name in self._services})

    async def perform(self, call: Call) -> Performed:
        """Carry out one attempt of a call."""
        if (going := _after_login(call)) is None:
            return Raised(kind="PermissionError", message=f"{call.function}: nobody logs in", code="login")
        server = self._server_of(call)
        if going is not call:
            server.forgive()
        if (failed := await _connected(going, server)) is not None:
            return failed
        return await self._looked_up(going)

    async def _looked_up(self, call: Call) -> Performed:
        function, plan = self._file.function(call.function), self._file.plan(call.function)
        if function is None or plan is None:
            return Raised(kind="AttributeError", message=f"there is no function {call.function} any more")
        if call.function.partition(".")[2] in self._different.get(self._place(call), ()):
            message = f"{call.function}: the account of {call.agent} is shown another definition than others are"
            return Raised(kind="PermissionError", message=message, status=403, code="changed")
        if function.fault:  # the server changed it since the call was decided
            return Raised(
                kind="PermissionError", message=f"{call.function}: {function.fault}", status=403, code="changed"
            )
        return await self._performed(call, plan)

    async def _performed(self, call: Call, plan: Mapping[str, Any]) -> Performed:  # noqa: PLR0911 - one outcome a line
        wires = {name: wire for name, wire, *_ in plan["arguments"]}
        nullable = {name for name, *_, is_nullable in plan["arguments"] if is_nullable}
        arguments = {
            wires[name]: value for name, value in call.arguments.items() if value is not None or name in nullable
        }
        try:
            result = await self._asked(call, plan["tool"], arguments, is_task=bool(plan.get("is_task")))
        except ValueError as error:  # a person's answer is not what was asked for
            return Asks(
                more={key: each for key, each in call.more.items() if key != "answer"},
                question=f"{call.more['question']}\n({call.more['answer']!r} does not do: {error})",
                options=call.more.get("options"),
            )
        except Barred as error:
            return _barred(call, error.untaken)
        except Refused as error:
            if call.effect == "write" and "task" in (call.more or {}):
                return Unknown(why=f"it had been taken, and its server does not know it any more: {error}")
            return Raised(kind="RuntimeError", message=str(error), code="protocol")
        except Lied as error:
            done = CARRIED_OUT if call.effect == "write" else ""
            return Raised(
                kind="ValueError", message=f"the answer of {call.function} is not as described{done}: {error}"
            )
        except (ConfigInvalid, *BROKEN) as error:
            why = f"no answer came from {call.function}: {str(error) or type(error).__name__}"
            if call.effect == "write":
                return Unknown(why=why)
            return Raised(kind="OSError", message=why, is_retryable=True)
        return result if isinstance(result, Later | Asks) else await self._with_files_kept(call, answer(result))

    def _server_of(self, call: Call) -> Server:
        """Return the connection of a call's agent: no answer, session or token of one account is another's."""
        return self._connection(*self._place(call))

    def _connection(self, name: str, shown: str) -> Server:
        if not shown:
            return self._servers[name]
        if (name, shown) not in self._accounts:
            self._accounts[name, shown] = self._server(name, shown)
        return self._accounts[name, shown]

    def _place(self, call: Call) -> tuple[str, str]:
        name = call.function.partition(".")[0]
        return name, self._config.credential(call.agent, name)

    def _server(self, name: str, shown: str = "") -> Server:
        """Return a connection to be made: with the service's own credential, or with what an agent shows."""
        service, account = self._services[name], shown.removeprefix("oauth:") if shown.startswith("oauth:") else ""
        if shown and not account:
            service = replace(service, auth=shown)
        access = access_of(name, service, self._directory, self._vault, self._clock, account=account)
        return Server(
            service,
            partial(References, self._directory, self._vault),
            self._directory,
            self._tasks,
            partial(self._compared, name, shown) if shown else partial(self._seen, name),
            bytes_max=self._handles.kept_bytes_max,
            access=access,
        )

    def _compared(self, name: str, shown: str, tools: Sequence[Mapping[str, Any]]) -> None:
        """Note what an account is shown otherwise than all: it is not imported, and not called by that account.

        Where nothing was imported yet, the first who sees it has it imported.
        """
        if not (known := self._file.digests(name)):
            self._seen(name, tools)
            return
        found, _ = operations(tools)
        service = self._services[name]
        made = built(name, found, resolver(tools), pinned=self._file.pinned(name), effects=dict(service.effects))
        there = {each.function.name.rpartition(".")[2]: each.digest for each in made.functions}
        self._different[name, shown] = frozenset(
            function for function, digest in known.items() if there.get(function, digest) != digest
        )

    async def _asked(
        self, call: Call, tool: str, arguments: Mapping[str, Any], *, is_task: bool
    ) -> Mapping[str, Any] | Later | Asks:
        service = call.function.partition(".")[0]
        server, timeout_s = self._server_of(call), self._services[service].timeout_s
        match tool:
            case "resources/list":
                return {"structuredContent": await server.list_resources(timeout_s)}
            case "resources/read":
                contents = await server.read_resource(str(arguments["uri"]), timeout_s)
                return {"content": [{"type": "resource", "resource": each} for each in contents]}
            case _:
                return await server.call(tool, arguments, timeout_s, more=call.more, is_task=is_task)

    async def _with_files_kept(self, call: Call, answered: Answer) -> Answer:
        """Return an answer with the handles of files in the places of their bytes."""
        if not isinstance(answered, Returned) or not isinstance(answered.value, list):
            return answered
        parts = list[Any]()
        try:
            for number, part in enumerate(cast("list[Any]", answered.value), 1):
                rest, file = file_of(part)
                kept = (
                    None
                    if file is None
                    else await self._handles.keep_file(call.run_id, call.index, file, number=number)
                )
                parts.append(rest if kept is None else {**rest, "file": kept})
        except ValueError as error:
            done = CARRIED_OUT if call.effect == "write" else ""
            return Raised(kind="ValueError", message=f"a file that {call.function} answers is not kept{done}: {error}")
        return Returned(value=parts)

    async def refresh(
        self, only: str | None = None, *, is_forced: bool = True, importing: Callable[[str], None] = lambda _: None
    ) -> Refreshed:
        """Import the tools of servers whose configuration changed, or of all that are asked for, side by side."""
        known = {source.service: source.stamp for source in self._file.sources()}
        failed: dict[str, str] = {}
        wanted = [
            name
            for name, service in self._services.items()
            if (only is None or name == only) and (is_forced or known.get(name) != _stamp(service))
        ]
        async with asyncio.TaskGroup() as tasks:
            for name in wanted:
                importing(name)
                tasks.create_task(self._look(name, failed))
        self.stale |= failed
        return Refreshed(imported=[name for name in wanted if name not in failed], failed=failed)

    async def _look(self, name: str, failed: dict[str, str]) -> None:
        try:
            async with asyncio.timeout(self._start_s_max):
                await self._look_as_anybody(name)
        except TimeoutError:
            failed[name] = f"{self._services[name].mcp}: it did not answer within {self._start_s_max:g} s"
            await self._servers[name].stop()
        except (ConfigInvalid, Refused, *BROKEN) as error:
            failed[name] = str(error) or type(error).__name__

    async def _look_as_anybody(self, name: str) -> None:
        """Look at a service as itself, or with what agents show it, where it has no credential of its own that does."""
        try:
            await self._servers[name].look()
        except (Barred, LoginNeeded):
            for shown in self._config.credentials(name):
                try:
                    await self._connection(name, shown).look()
                except (Barred, ConfigInvalid):
                    continue
                return
            raise

    async def stop(self) -> None:
        """End every connection."""
        for server in (*self._servers.values(), *self._accounts.values()):
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


async def _connected(call: Call, server: Server) -> Performed | None:
    """Connect to a server that is not connected; return what becomes of a call that it was not asked for."""
    try:
        await server.connect()
    except Barred as error:
        return _barred(call, error.untaken)
    except LoginNeeded as error:
        return _login(call, str(error))
    except Denied as error:
        return Raised(kind="PermissionError", message=str(error), code="credential")
    except (ConfigInvalid, *BROKEN) as error:
        return Raised(kind="OSError", message=str(error) or type(error).__name__, is_retryable=True)
    return None


def _barred(call: Call, untaken: Untaken) -> Performed:
    """Return what becomes of a call that the server refused for its credential; nothing was carried out."""
    match untaken.needs:
        case "login":
            return _login(call, untaken.why)
        case "mending":
            return Raised(kind="PermissionError", message=untaken.why, status=untaken.status, code="credential")
        case "time":
            return Raised(kind="OSError", message=untaken.why, status=untaken.status, is_retryable=True)


def _login(call: Call, why: str) -> Asks:
    """Have the owner log in: until then nothing is sent, and the run costs nothing."""
    before: Mapping[str, Any] = call.more or {}
    kept = {key: each for key, each in before.items() if key in SAID}
    rest = {key: each for key, each in before.items() if key not in SAID}
    return Asks(
        more={**rest, LOGIN: kept}, question=f"{call.function} waits for a login. {why}", options=(DONE, GIVE_UP)
    )


def _after_login(call: Call) -> Call | None:
    """Return a call as it was before it had to wait for a login; None if nobody logs in."""
    more: Mapping[str, Any] = call.more or {}
    if LOGIN not in more:
        return call
    if more.get("answer") != DONE:
        return None
    rest = {key: each for key, each in more.items() if key not in (*SAID, LOGIN)}
    return replace(call, more={**rest, **more[LOGIN]} or None)


def _stamp(service: Service) -> str:
    return json.dumps([IMPORTER, service.mcp, sorted(service.effects.items())])
