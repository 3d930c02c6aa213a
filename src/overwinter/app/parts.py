"""What an App works with, opened in one place."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from overwinter.adapters.cedar import CedarPolicy, Grant, Rules, grants_of_agents, read_policies, rules_of, unread
from overwinter.adapters.home import Home
from overwinter.adapters.identity_tokens import Mint, issuer_in
from overwinter.adapters.models import open_models
from overwinter.adapters.monty import JailSettings, open_interpreter
from overwinter.adapters.monty_checker import open_checker
from overwinter.adapters.sources import Sources, open_sources
from overwinter.adapters.sqlite import AuditKeeping, AuditLog, SqliteDeliveries, SqliteRequests, SqliteStore, open_store
from overwinter.adapters.vault import Vault
from overwinter.adapters.webhooks import Senders, open_senders
from overwinter.app.models import Models
from overwinter.catalog import Function, Tools
from overwinter.check import Checker
from overwinter.clock import SECOND_US, Clock
from overwinter.config import Config
from overwinter.errors import ConfigInvalid, HomeDamaged
from overwinter.frozen import frozen
from overwinter.gateway.upstream import Upstream
from overwinter.handles import Handles
from overwinter.identity import Identity, chain
from overwinter.ids import Ids
from overwinter.interpreter import Interpreter, Limits
from overwinter.policy import Deny, Policy, Resource
from overwinter.principal import Principal
from overwinter.registry import Registry
from overwinter.schedule import Schedules
from overwinter.store import Store
from overwinter.tokens import Tokens

__all__ = ["Parts", "Sight", "limits_of", "open_parts", "parents_of", "rules_now"]


ISSUER = "issuer.key"
POLICIES = "policies"
"""Directory of `*.cedar` files beside `overwinter.toml`."""


@frozen
class Parts:
    """What an App is made of; a test puts its own in."""

    store: Store
    registry: Registry
    """Agents, in the same commits as the store."""
    tokens: Tokens
    """API tokens of people, the same."""
    audit: AuditLog
    """What was done, in the same commits."""
    audit_keeping: AuditKeeping
    interpreter: Interpreter
    checker: Checker
    tools: Tools
    sources: Sources
    """What the tools come from; `tools` may be a wrapping of it."""
    handles: Handles
    models: Models
    """Model calls, and what they cost."""
    deliveries: SqliteDeliveries
    """What webhooks are to be told, in the same commits."""
    schedules: Schedules
    """What begins by the calendar."""
    requests: SqliteRequests
    """What was asked under keys."""
    senders: Senders
    vault: Vault
    """Secrets by name."""
    clock: Clock
    ids: Ids
    policy: CedarPolicy
    mint: Mint
    """Makes what agents show of themselves elsewhere."""
    issuer_place: Path
    """File of the key with which it signs."""
    directory: Path
    """Where `overwinter.toml` lies, with `policies/` and what its services name."""
    key: bytes


def _unseen(_: str) -> None:
    """Nobody looks."""


@asynccontextmanager
async def open_parts(  # noqa: PLR0913 - what a home is opened with
    place: Home,
    config: Config,
    clock: Clock,
    *,
    directory: Path,
    is_eager: bool = True,
    importing: Callable[[str], None] = _unseen,
    around_models: Callable[[Upstream], Upstream] | None = None,
) -> "AsyncGenerator[Parts]":
    """Open everything that an App works with, until the block is left.

    Args:
        place: the home, held by this process.
        config: what it runs with.
        clock: its time.
        directory: where modules and descriptions of services lie.
        is_eager: start interpreters now, not when they are needed.
        importing: told the name of each service whose import begins.
        around_models: gives back the way to models' providers, or another.

    Raises:
        HomeError: the store or the catalog is too new, damaged or full.
        ConfigInvalid: a service cannot be loaded. Policies that cannot be read do not keep a home shut: nothing is allowed.
        JailUnavailable: the interpreter's workers cannot be jailed.
    """
    ids, limits, jail, count = Ids(clock.now_us), limits_of(config), _jail(config), config.worker.interpreters
    async with (
        open_store(place.database_path, clock, ids, key=place.key) as store,
        nullcontext(_policy(config, directory, clock, store.audit.fault)) as policy,
        nullcontext(_mint(place, store, clock, policy)) as mint,
        open_senders(config.webhooks, directory, Vault(place.path)) as senders,
        nullcontext(Handles(store, kept_bytes_max=config.limits.kept_mb << 20)) as handles,
        _models(place, config, clock, policy, store, around=around_models) as models,
        open_interpreter(limits=limits, workers=count, jail=jail, is_eager=is_eager, is_proven=False) as interpreter,
        open_checker(launcher=interpreter.launcher, jail=jail, is_eager=is_eager, is_proven=False) as checker,
        open_sources(
            config.services,
            place.catalog_path,
            clock,
            directory=directory,
            threads_max=config.worker.threads,
            value_bytes_max=limits.value_bytes,
            sight=Sight(policy, parents_of(config)),
            handles=handles,
            importing=importing,
            identify=mint.for_call,
            think=models.thinker.perform,
            config=config,
        ) as sources,  # fmt: skip
    ):
        await interpreter.proven()  # they started while services were imported, which takes as long
        await checker.proven()
        yield Parts(
            store=store, registry=store.registry, tokens=store.tokens, audit=store.audit, audit_keeping=store.audit_keeping,
            interpreter=interpreter, checker=checker,
            tools=sources,
            sources=sources,
            handles=handles,
            models=models,
            deliveries=store.deliveries, schedules=store.schedules, requests=store.requests,
            senders=senders, vault=Vault(place.path),
            clock=clock,
            ids=ids,
            policy=policy,
            mint=mint,
            issuer_place=place.path / "keys" / ISSUER,
            directory=directory,
            key=place.key,
        )  # fmt: skip


def _policy(config: Config, directory: Path, clock: Clock, fault: str) -> CedarPolicy:
    """Return the rules of a home; by those of one whose log cannot be signed nothing is allowed."""
    owners = {name: agent.owner for name, agent in config.agents.items()}
    rules = unread(owners, fault) if fault else rules_at_first(config, directory)
    return CedarPolicy(rules, lambda: clock.now_us() // SECOND_US)


def _jail(config: Config) -> JailSettings:
    return JailSettings(is_off=config.jail.off, allow_missing=frozenset(config.jail.allow_missing))


def _mint(place: Home, store: SqliteStore, clock: Clock, policy: CedarPolicy) -> Mint:
    issuer = issuer_in(place.path / "keys" / ISSUER, store.audit.key.name)
    return Mint(issuer, store.registry, clock, lambda: policy.version)


@asynccontextmanager
async def _models(  # noqa: PLR0913 - what a gateway is made of
    place: Home,
    config: Config,
    clock: Clock,
    policy: CedarPolicy,
    store: SqliteStore,
    *,
    around: Callable[[Upstream], Upstream] | None,
) -> "AsyncGenerator[Models]":
    if config.budgets and not place.models_path.exists():
        await _refuse_unspent(place.models_path, store.audit)
    directory, may_act = place.config_path.parent, store.registry.is_active
    async with open_models(
        config, place.models_path, clock, policy, directory=directory, key=place.key, may_act=may_act, around=around
    ) as opened:
        yield Models(config, opened, parents_of(config), clock)


async def _refuse_unspent(path: Path, audit: AuditLog) -> None:
    """Refuse to begin all budgets anew for a lost file.

    Raises:
        HomeDamaged: models were called before.
    """
    entries = await audit.size()
    called = await audit.matching(
        lambda entry: entry["kind"] == "model.call", range(entries - 1, -1, -1), limit=1, looked_max=entries
    )
    if called.entries:
        raise HomeDamaged(
            f"{path} is missing, and what was spent against budgets is in it: the audit log has calls of models. Restore it "
            f"from a backup; or put an empty file there, `touch {path}`, and every budget begins anew"
        )


def rules_now(config: Config, directory: Path, grants: Iterable[Grant] = (), *, policies: str = POLICIES) -> Rules:
    """Return the rules that hold: `policies/*.cedar` in the directory, the configuration's agents, and grants.

    Raises:
        ConfigInvalid: a policy is wrong.
    """
    ends = {
        name: agent.expires_us // SECOND_US for name, agent in config.agents.items() if agent.expires_us is not None
    }
    texts = {
        f"overwinter.toml, agents.{name}.expires": f'@id("agents.{name}.expires") @reason("its authority has ended")\n'
        f'forbid(principal == Agent::"{name}", action, resource) when {{ context.now >= {end} }};'
        for name, end in ends.items()
    }
    owners = {name: agent.owner for name, agent in config.agents.items()}
    return rules_of(
        owners, {**read_policies(directory / policies), **texts}, [*grants_of_agents(config.agents), *grants]
    )


def rules_at_first(config: Config, directory: Path) -> Rules:
    """Return the rules without grants; if they cannot be read, those by which nothing is allowed."""
    try:
        return rules_now(config, directory)
    except ConfigInvalid as error:
        return unread({name: agent.owner for name, agent in config.agents.items()}, str(error))


def parents_of(config: Config) -> Mapping[str, tuple[str, ...]]:
    """Return the agents above each, the highest first."""
    declared = [
        Identity(name=name, owner=agent.owner, parent=agent.parent or None) for name, agent in config.agents.items()
    ]
    return {each.name: tuple(upper.name for upper in reversed(chain(each.name, declared)[1:])) for each in declared}


class Sight:
    """Whether an agent may find a function: some call of it might be allowed."""

    def __init__(self, policy: Policy, parents: Mapping[str, tuple[str, ...]]) -> None:
        self._policy, self._parents = policy, parents

    @property
    def version(self) -> str:
        """Return what tells the rules of this moment from any others."""
        return self._policy.version

    def __call__(self, agent: str, function: Function) -> bool:
        """Decide it."""
        principal = Principal(agent=agent, run_id="", owner="", parents=self._parents.get(agent, ()))
        resource = Resource(name=function.name, effect=function.effect, stub=function.stub)
        return not isinstance(self._policy.decide(principal, "see", resource, {}), Deny)


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
