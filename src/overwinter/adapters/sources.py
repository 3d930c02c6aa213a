"""Every source of a home as one set of tools: Python modules, described APIs, and the look-ups over all of them."""

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from anyio import Lock, to_thread

from overwinter import values
from overwinter.adapters.catalog_file import CatalogFile, Refreshed, Source, open_catalog_file
from overwinter.adapters.discovery import Discovery
from overwinter.adapters.mcp_servers import McpServices, load_mcp
from overwinter.adapters.openapi import Apis, Identify, load_apis
from overwinter.adapters.python_offers import load_python_offers
from overwinter.adapters.python_tools import load_python_tools
from overwinter.adapters.vault import Vault
from overwinter.catalog import Catalog, Function, Module, Performed, Tools, Unknown
from overwinter.catalog.modules import Built, BuiltFunction
from overwinter.catalog.operations import Fault
from overwinter.catalog.seen import ANSWERS_MAX, Sighting, bounded, is_declared, merged, shape_of, stub
from overwinter.clock import Clock
from overwinter.config import Config, Service
from overwinter.errors import HomeError
from overwinter.events import CARRIED_OUT, Answer, Call, Raised, Returned
from overwinter.frozen import replace
from overwinter.handles import TOO_LARGE, Handles
from overwinter.lineage import SPAWNS
from overwinter.values import Value

__all__ = ["Sources", "open_sources"]

AGENTS_REMEMBERED = 64


@asynccontextmanager
async def open_sources(  # noqa: PLR0913 - what a home's tools are made of
    services: Mapping[str, Service],
    path: Path,
    clock: Clock,
    *,
    directory: Path,
    threads_max: int,
    value_bytes_max: int,
    sight: "Sight",
    handles: Handles,
    importing: Callable[[str], None],
    identify: Identify,
    think: Callable[[Call], Awaitable[Answer]],
    config: Config,
) -> "AsyncGenerator[Sources]":
    """Import what is new, and yield all functions of a home's services.

    Args:
        services: the configuration's.
        path: the home's `catalog.db`.
        clock: stamps imports.
        directory: where modules and descriptions lie.
        threads_max: how many sync functions may run at once.
        value_bytes_max: largest result, encoded.
        sight: whether an agent may find a function.
        handles: keeps files, and values that are too large.
        importing: told the name of each service whose import begins.
        think: asks a model for a call of `tools.think`.
        identify: makes the token of an attempt at a call, for services with `auth = "identity"`.
        config: says what an agent shows a service that is not what the others show.

    Raises:
        ConfigInvalid: a service cannot be loaded.
        HomeDamaged: the catalog's file cannot be read.
    """
    modules = {name: each.python for name, each in services.items() if each.python and ":" not in each.python}
    objects = {name: each for name, each in services.items() if ":" in each.python}
    described = {name: service for name, service in services.items() if service.openapi}
    servers = {name: service for name, service in services.items() if service.mcp}
    async with AsyncExitStack() as stack:
        file = stack.enter_context(open_catalog_file(path))
        for source in file.sources():
            if source.service not in services:
                file.remove(source.service)
        python = await stack.enter_async_context(
            load_python_tools(modules, directory=directory, threads_max=threads_max)
        )
        offers = await stack.enter_async_context(load_python_offers(objects, directory=directory))
        _index(file, {**python.catalog.modules, **offers.catalog.modules}, clock.now_us())
        vault = Vault(path.parent)
        apis = await stack.enter_async_context(
            load_apis(
                described,
                file,
                clock,
                handles,
                directory=directory,
                vault=vault,
                importing=importing,
                identify=identify,
                config=config,
            )
        )
        mcp = await stack.enter_async_context(
            load_mcp(
                servers, file, clock, handles, directory=directory, vault=vault, importing=importing, config=config
            )
        )
        yield Sources(file, (python, offers), apis, mcp, sight, handles, think, value_bytes_max=value_bytes_max)


class Sight(Protocol):
    """Whether an agent may find a function, by the rules of one version."""

    @property
    def version(self) -> str:
        """Return what tells the rules of this moment from any others."""
        ...

    def __call__(self, agent: str, function: Function) -> bool:
        """Decide it."""
        ...


class Sources:
    """See `catalog.Tools`."""

    def __init__(  # noqa: PLR0913, PLR0917 - every source once
        self,
        file: CatalogFile,
        python: Sequence[Tools],
        apis: Apis,
        mcp: McpServices,
        sight: Sight,
        handles: Handles,
        think: Callable[[Call], Awaitable[Answer]],
        *,
        value_bytes_max: int,
    ) -> None:
        self.file = file
        self._handles = handles
        self._value_bytes_max = value_bytes_max
        self._imported = (apis, mcp)
        self._sight = sight
        self._looking = Lock()
        self._scope = lru_cache(AGENTS_REMEMBERED)(self._allowed)
        self.discovery = Discovery(file, lambda agent: self._scope(agent, sight.version), handles, think)
        parts: Sequence[Tools] = (*python, apis, mcp, self.discovery)
        self._by_module = {name: part for part in parts for name in part.catalog.modules}
        self._catalog = Catalog({name: module for part in parts for name, module in part.catalog.modules.items()})

    @property
    def catalog(self) -> Catalog:
        """Return what can be called. Its modules stay the same objects and show each import."""
        return self._catalog

    async def perform(self, call: Call) -> Performed:
        """Carry out one attempt of a call."""
        part = self._by_module.get(call.function.partition(".")[0])
        if part is None:
            return Raised(kind="AttributeError", message=f"there is no function {call.function} any more")
        try:
            return await self._crossing(call, await part.perform(call))
        except Exception as error:
            if isinstance(error, HomeError) and call.function in SPAWNS:
                raise  # it is our own store: nothing was begun, or the next attempt finds it
            what = f"{call.function}: {type(error).__name__}: {error}"
            return Unknown(why=what) if call.effect == "write" else Raised(kind="RuntimeError", message=what)

    async def _crossing(self, call: Call, answer: Performed) -> Performed:
        """Return an answer that can be journaled and kept, whatever came: the one place where all of them pass."""
        if not isinstance(answer, Returned):
            return answer
        done = CARRIED_OUT if call.effect == "write" else ""
        try:
            encoded = values.encode(answer.value)
        except values.Uncrossable as error:
            return Raised(kind="TypeError", message=f"the result of {call.function} cannot cross{done}: {error}")
        if b"\\ufffd" in encoded:
            answer = replace(
                answer, value=values.decode(encoded)
            )  # half a character may have come, which no program can hold
        if len(encoded) <= self._value_bytes_max:
            await self._look(call.function, answer.value)
            return answer
        what = f"the result of {call.function} has {len(encoded)} bytes, at most {self._value_bytes_max} may cross (limits.value_kb){done}"
        if call.function == "tools.read":
            return Raised(kind="ValueError", message=f"{what}: name a smaller part by its path")
        try:
            handle = await self._handles.keep_value(call.run_id, call.index, encoded)
        except ValueError as error:
            return Raised(kind="ValueError", message=f"{what}, and it is not kept: {error}")
        message = f"{what}: it is kept, read it in parts: await tools.read({handle!r}, '[0:100]')"
        return Raised(kind="ValueError", message=message, code=TOO_LARGE)

    async def _look(self, name: str, value: Value) -> None:
        """Learn what a function answers that does not say it, from its first answers."""
        function = self.file.function(name)
        if function is None or is_declared(function.result) or self.file.seen(name).answers >= ANSWERS_MAX:
            return
        async with self._looking:
            before = self.file.seen(name)
            shape = bounded(merged(before.shape, shape_of(value)))
            now = Sighting(answers=before.answers + 1, shape=shape)
            await to_thread.run_sync(self.file.saw, name, now)

    def seen(self, named: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Return the stubs of those of some functions whose results are known from answers alone, by full name.

        Args:
            named: services, each with the functions of it.
        """
        names = {f"{service}.{name}" for service, functions in named.items() for name in functions}
        sightings = {name: self.file.seen(name) for name in sorted(names & self.file.sighted())}
        return {name: stub(each, name) for name, each in sightings.items() if each.answers}

    def listed(self) -> Sequence[Source]:
        """Return every service; one that cannot be imported says so, and goes on as it was: with no function if it never was."""
        known = {each.service: each for each in self.file.sources()}
        for part in self._imported:
            for name, why in part.stale.items():
                each = known.get(name) or _never_imported(name)
                known[name] = replace(each, faults=(Fault(place="description", what=why), *each.faults))
        return [known[name] for name in sorted(known)]

    def missing(self) -> Mapping[str, str]:
        """Return why services have no function, by name: those that could never be imported."""
        return {
            name: why for part in self._imported for name, why in part.stale.items() if not self.file.names().get(name)
        }

    async def refresh(self, only: str | None = None) -> Refreshed:
        """Import every described service anew, or one; each that fails goes on as it was."""
        apis, mcp = [await part.refresh(only) for part in self._imported]
        self._scope.cache_clear()
        return Refreshed(imported=[*apis.imported, *mcp.imported], failed={**apis.failed, **mcp.failed})

    def _allowed(self, agent: str, version: str) -> Sequence[str] | None:
        del version  # it is in the key: nothing of other rules is used
        names = [f"{service}.{name}" for service, names in self.file.names().items() for name in names]
        functions = [each for each in map(self._catalog.function, names) if each is not None]
        allowed = [each.name for each in functions if self._sight(agent, each)]
        return None if len(allowed) == len(names) else allowed


def _never_imported(service: str) -> Source:
    return Source(service=service, stamp="", imported_us=0, settings={}, faults=(), functions=0, raw_digest="")


def _index(file: CatalogFile, modules: Mapping[str, Module], now_us: int) -> None:
    """Have Python functions found like any others. They are the operator's own code: nothing of them is pinned."""
    known = {source.service: source.stamp for source in file.sources()}
    for name, module in modules.items():
        stamp = hashlib.sha256(module.stub.encode()).hexdigest()
        if known.get(name) == stamp:
            continue
        functions = [
            BuiltFunction(function=each, origin=each.name, plan={}, schema={}, digest="")
            for each in module.functions.values()
        ]
        built = Built(stub=module.stub, functions=functions, faults=())
        file.put(name, stamp, built, faults=(), settings={}, raw_digest=stamp, now_us=now_us, is_pinned=False)
