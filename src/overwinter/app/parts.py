"""What an App works with, opened in one place."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from overwinter.adapters.home import Home
from overwinter.adapters.monty import JailSettings, open_interpreter
from overwinter.adapters.monty_checker import open_checker
from overwinter.adapters.sources import Sources, open_sources
from overwinter.adapters.sqlite import open_store
from overwinter.catalog import Tools
from overwinter.check import Checker
from overwinter.clock import Clock
from overwinter.config import Config
from overwinter.handles import Handles
from overwinter.identity import Identity, chain
from overwinter.ids import Ids
from overwinter.interpreter import Interpreter, Limits
from overwinter.policy import Deny, Grants, Resource
from overwinter.principal import Principal
from overwinter.store import Store

__all__ = ["Parts", "grants_of", "limits_of", "may_call", "open_parts", "parents_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an App is made of; a test puts its own in."""

    store: Store
    interpreter: Interpreter
    checker: Checker
    tools: Tools
    sources: Sources
    """What the tools come from; `tools` may be a wrapping of it."""
    handles: Handles
    clock: Clock
    ids: Ids
    key: bytes


@asynccontextmanager
async def open_parts(
    place: Home, config: Config, clock: Clock, *, directory: Path, is_eager: bool = True
) -> "AsyncGenerator[Parts]":
    """Open everything that an App works with, until the block is left.

    Args:
        place: the home, held by this process.
        config: what it runs with.
        clock: its time.
        directory: where modules and descriptions of services lie.
        is_eager: False: start interpreters when they are needed, for a home that only looks.

    Raises:
        HomeError: the store or the catalog is too new, damaged or full.
        ConfigInvalid: a service cannot be loaded.
        JailUnavailable: the interpreter's workers cannot be jailed.
    """
    ids, limits = Ids(clock.now_us), limits_of(config)
    jail = JailSettings(is_off=config.jail.off, allow_missing=frozenset(config.jail.allow_missing))
    async with (
        open_store(place.database_path, clock, ids, key=place.key) as store,
        nullcontext(Handles(store, kept_bytes_max=config.limits.kept_mb << 20)) as handles,
        open_sources(
            config.services,
            place.catalog_path,
            clock,
            directory=directory,
            threads_max=config.worker.threads,
            value_bytes_max=limits.value_bytes,
            may_call=partial(may_call, grants_of(config)),
            handles=handles,
        ) as sources,
        open_interpreter(
            limits=limits, workers=config.worker.interpreters, jail=jail, is_eager=is_eager
        ) as interpreter,
        open_checker(launcher=interpreter.launcher, jail=jail, is_eager=is_eager) as checker,
    ):
        yield Parts(
            store=store,
            interpreter=interpreter,
            checker=checker,
            tools=sources,
            sources=sources,
            handles=handles,
            clock=clock,
            ids=ids,
            key=place.key,
        )


def grants_of(config: Config) -> Grants:
    """Return the policy of a configuration."""
    return Grants({name: agent.tools for name, agent in config.agents.items()})


def parents_of(config: Config) -> Mapping[str, tuple[str, ...]]:
    """Return the agents above each, the highest first."""
    declared = [
        Identity(name=name, owner=agent.owner, parent=agent.parent or None) for name, agent in config.agents.items()
    ]
    return {each.name: tuple(upper.name for upper in reversed(chain(each.name, declared)[1:])) for each in declared}


def may_call(grants: Grants, agent: str, function: str) -> bool:
    """Return whether an agent may find a function: some call of it might be allowed."""
    principal = Principal(agent=agent, run_id="", owner="")
    return not isinstance(grants.decide(principal, "see", Resource(name=function), {}), Deny)


def limits_of(config: Config) -> Limits:
    """Return the limits of a configuration in the units of the interpreter."""
    limits = config.limits
    return Limits(
        turn_cpu_s=limits.turn_cpu_s,
        run_cpu_s=limits.run_cpu_s,
        memory_bytes=limits.memory_mb << 20,
        recursion_depth=limits.recursion_depth,
        calls_per_turn=limits.calls_per_turn,
        output_bytes=limits.output_kb << 10,
        value_bytes=limits.value_kb << 10,
        snapshot_bytes=limits.snapshot_mb << 20,
    )
