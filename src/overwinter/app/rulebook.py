"""The rules of a home at work: policies and grants as they are now, tried before they hold, and looked into."""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

from overwinter.adapters.cedar import Grant, Rules, unread
from overwinter.adapters.cedar.changes import Change, Past, simulate
from overwinter.adapters.cedar.deciding import Act
from overwinter.adapters.cedar.explain import Explanation, explain
from overwinter.adapters.cedar.reach import Gated, gated
from overwinter.adapters.cedar.review import RuleFinding, check
from overwinter.adapters.cedar.rules import without
from overwinter.adapters.cedar.shadow import Shadow
from overwinter.adapters.cedar.suggesting import suggest
from overwinter.adapters.home import CONFIG_NAME
from overwinter.app.parts import POLICIES, Parts, parents_of, rules_now
from overwinter.catalog import Function, bind
from overwinter.clock import SECOND_US
from overwinter.config import Config
from overwinter.errors import ConfigInvalid, Denied, HomeDamaged, NotFound, UsageError
from overwinter.events import Event
from overwinter.frozen import frozen, replace
from overwinter.grant import Granted
from overwinter.policy import Resource
from overwinter.principal import Principal
from overwinter.store import Page, RunRecord
from overwinter.values import Value

__all__ = ["Explained", "Reach", "Reloaded", "Rulebook"]

RUNS_MAX = 1_000
CALLS_MAX = 10_000
"""Past runs and calls that are looked at: the newest."""
OUTDATED = "it has changed since this server read it: restart the server, and what it says holds"
UNLOADED = "they are not what holds: `overwinter policy reload` puts them into force"
MADE = ("called", "denied")
DECIDED = ("called", "denied", "gated", "approved", "rejected")
"""Facts about a call: that it was made or refused; and what else was decided about it."""


@frozen
class Reloaded:
    """What became of the rules."""

    version: str
    added: Sequence[str]
    """Ids of rules that hold now and did not before; one that was rewritten under its id is in both."""
    removed: Sequence[str]


@frozen
class Reach:
    """What a program may run into."""

    gated: Sequence[Gated]
    is_open: bool
    """Whether it may call any function: it calls one by a name that is not written in it."""


@frozen
class Explained:
    """A call of a run, and what became of it."""

    was: Sequence[Event]
    """What was decided about it, in order: facts of its run."""
    act: Act
    now: Explanation
    """How it would be decided by the rules that hold now."""


class Rulebook:
    """Reads, replaces and explains the rules."""

    def __init__(self, config: Config, parts: Parts, reached: Callable[[str], tuple[Sequence[Function], bool]]) -> None:
        self._config, self._parts, self._policy = config, parts, parts.policy
        self._reached = reached
        """Which functions a program may call, and whether it may call any."""
        self._file = parts.directory / CONFIG_NAME
        self._digest = _digest(self._file)
        self._one_at_a_time = anyio.Lock()
        """Rules that were read before a grant was taken away must not hold after it."""

    @property
    def fault(self) -> str:
        """Return why the rules cannot be read, "" if they can: nothing is allowed and no run wakes until `reload`."""
        return self._policy.fault

    @property
    def is_outdated(self) -> bool:
        """Whether `overwinter.toml` is another than this process has read: what it says of agents holds from the next start on."""
        return _digest(self._file) != self._digest

    def refuse_unread(self) -> None:
        """Return if the rules could be read.

        Raises:
            Denied: they could not.
            HomeDamaged: the audit log cannot be signed.
        """
        if self._parts.audit.fault:
            raise HomeDamaged(self._parts.audit.fault)
        if self.fault:
            raise Denied(f"{self.fault}; until it is mended and `overwinter policy reload`, nothing is allowed")

    async def open(self) -> None:
        """Add the grants to the rules; if they cannot be read together, nothing is allowed."""
        if not self.fault and await self.grants():
            try:
                await self.renew()
            except ConfigInvalid as error:
                self._policy.replace(unread(self._policy.rules.agents, str(error)))

    async def reload(self, *, by: str) -> Reloaded:
        """Read policies and grants anew for a person. A wrong set changes nothing: the one before goes on to hold.

        Raises:
            ConfigInvalid: a policy is wrong; the message says where.
        """
        async with self._one_at_a_time:
            return await self._reload(by)

    async def _reload(self, by: str) -> Reloaded:
        before, after = self._policy.rules, await self._rules(await self._parts.registry.grants())
        old, new = ({each.id: each for each in (*rules.rules, *rules.shadows)} for rules in (before, after))
        added = [name for name, rule in new.items() if old.get(name) != rule]
        removed = [name for name, rule in old.items() if new.get(name) != rule]
        # Written down before it holds: what cannot be written down does not happen.
        changed = tuple(dict.fromkeys([*added, *removed]))
        await self._parts.registry.reloaded(before.digest, after.digest, by=by, changed=changed)
        self._policy.replace(after)
        return Reloaded(version=after.digest, added=added, removed=removed)

    async def renew(self) -> None:
        """Decide by the policies and grants of this moment from now on.

        Raises:
            ConfigInvalid: a policy is wrong, and what held before goes on to hold.
        """
        async with self._one_at_a_time:
            self._policy.replace(await self._rules(await self._parts.registry.grants()))

    # --- Grants ------------------------------------------------------------------------------------------------------

    async def grants(self) -> Sequence[Granted]:
        """Return every grant, the oldest first; expired ones too."""
        return await self._parts.registry.grants()

    async def grant(self, given: Granted) -> Granted:
        """Let an agent do more, from now on; return the grant with its id.

        Raises:
            UsageError: it names no function.
            NotFound: there is no such agent here, or it was revoked.
        """
        if given.agent not in self._config.agents:
            raise NotFound(f"there is no agent {given.agent!r} in overwinter.toml")
        if not given.pattern.strip() or not any(each in given.pattern for each in ".*?["):
            raise UsageError(f"{given.pattern!r} names no function: write 'service.function' or 'service.*'")
        if given.reads_only and given.is_asked:
            raise UsageError("what only reads is asked of nobody: --reads or --asks, not both")
        await self._rules([*await self._parts.registry.grants(), given])  # tried before it is written down
        made = await self._parts.registry.grant(given)
        if made is None:
            raise NotFound(f"agent {given.agent!r} was revoked: restore it before it is granted anything")
        await self.renew()
        return made

    async def withdraw(self, grant: str, *, by: str, reason: str = "") -> Granted:
        """Take a grant away, from now on, also while the policies beside it cannot be read.

        Raises:
            NotFound: there is none of this id.
        """
        gone = await self._parts.registry.withdraw(grant, by=by, reason=reason)
        if gone is None:
            raise NotFound(f"there is no grant {grant!r}: `overwinter grants` lists them")
        async with self._one_at_a_time:
            self._policy.replace(without(self._policy.rules, grant))
        with suppress(ConfigInvalid, HomeDamaged):  # a policy that was written wrongly meanwhile must not keep a grant
            await self.renew()
        return gone

    # --- Looking into them -------------------------------------------------------------------------------------------

    async def check(self) -> Sequence[RuleFinding]:
        """Return what is wrong with the rules as they are written now, by the types of every function, and what of it does not hold yet."""
        try:
            rules = await self._rules(await self._parts.registry.grants())
        except ConfigInvalid as error:
            place, _, message = str(error).partition(": ")
            return [RuleFinding(place=place, rule="", message=message or place, is_error=True)]
        notes = [RuleFinding(place=POLICIES, rule="", message=UNLOADED, is_error=False)] * (
            rules.digest != self._policy.rules.digest
        )
        if self.is_outdated:
            notes.append(RuleFinding(place=CONFIG_NAME, rule="", message=OUTDATED, is_error=False))
        faults = [
            RuleFinding(place=each.partition(": ")[0], rule="", message=each.partition(": ")[2], is_error=True)
            for each in rules.faults
        ]
        return [*faults, *check(replace(rules, rules=(*rules.rules, *rules.shadows)), list(self._resources())), *notes]

    def shadow(self) -> Shadow | None:
        """Return the rules that are only tried, with what they would have changed; None: there are none."""
        return self._policy.shadow

    def faults(self) -> Sequence[str]:
        """Return what is wrong in the shadow, and so is not tried."""
        return self._policy.rules.faults

    def reach(self, source: str, agent: str) -> Reach:
        """Return which functions a program may call that a person must approve first, or that are denied.

        By the names in the program, before anything is known of its arguments.

        Raises:
            NotFound: there is no such agent.
        """
        functions, is_open = self._reached(source)
        principal, now_s = self._principal(agent), self._now_s()
        acts = [
            Act(
                principal=principal,
                action="call",
                resource=Resource(name=each.name, effect=each.effect, pin_ok=not each.fault, stub=each.stub),
            )
            for each in functions
        ]
        found = [gated(self._policy.present, each, now_s) for each in acts]
        return Reach(gated=[each for each in found if each is not None], is_open=is_open)

    def explain(self, agent: str, function: str, arguments: Mapping[str, Value]) -> Explanation:
        """Return how a call would be decided now, and why.

        Raises:
            NotFound: there is no such function.
        """
        found = self._parts.tools.catalog.function(function)
        if found is None:
            raise NotFound(f"there is no function {function!r}: `overwinter tools search` finds them")
        resource = Resource(name=found.name, effect=found.effect, pin_ok=not found.fault, stub=found.stub)
        act = Act(principal=self._principal(agent), action="call", resource=resource, arguments=arguments)
        return explain(self._policy.present, act, self._now_s())

    async def explain_call(self, run_id: str, index: int) -> Explained:
        """Return how a call of a run was decided, and how it would be now.

        Raises:
            NotFound: there is no such call, or its function is gone.
        """
        run = await self._parts.store.run(run_id)
        events = await self._parts.store.journal(run_id, 0, CALLS_MAX) if run else ()
        about = [each for each in events if each.body.get("index") == index]
        acts = [act for each in about if run is not None and (act := self._act(run, each)) is not None]
        if not acts:
            raise NotFound(
                f"there is no call {run_id}:{index} of a function that there still is: `overwinter logs` shows them"
            )
        return Explained(
            was=[each for each in about if each.kind in DECIDED],
            act=acts[0],
            now=explain(self._policy.present, acts[0], self._now_s()),
        )

    async def suggest(self, agent: str, *, since_us: int = 0, is_whole: bool = False) -> str:
        """Return the least policy that would have allowed what an agent tried since an instant; see `suggesting.suggest`."""
        return suggest(self._policy.rules, [each async for each in self._past(agent, since_us)], is_whole=is_whole)

    async def simulate(
        self, *, agent: str | None = None, since_us: int = 0, policies: Path | None = None
    ) -> Sequence[Change]:
        """Return the past calls that another set of policies would have decided otherwise than the one that holds."""
        grants = await self._parts.registry.grants()
        after = await self._rules(grants, policies)
        return simulate(self._policy.rules, after, [each async for each in self._past(agent, since_us)])

    async def _past(self, agent: str | None, since_us: int) -> AsyncIterator[Past]:
        """Yield calls that runs made, or tried to make: of the newest runs, and at most so many."""
        count = 0
        for run in await self._parts.store.runs(Page(agent=agent, limit=RUNS_MAX)):
            if run.changed_us < since_us or run.agent not in self._config.agents:
                continue
            events = await self._parts.store.journal(run.run_id, 0, CALLS_MAX)
            approved = {each.body["index"] for each in events if each.kind == "approved" and each.body["is_enough"]}
            for event in events:
                if event.at_us < since_us or count >= CALLS_MAX or (act := self._act(run, event)) is None:
                    continue
                count += 1
                yield Past(act=act, at_s=event.at_us // SECOND_US, approved=event.body["index"] in approved)

    def _act(self, run: RunRecord, event: Event) -> Act | None:
        """Return the act that an event is about, by the function's definition of now; None: it is about none."""
        function = self._parts.tools.catalog.function(event.body["function"]) if event.kind in MADE else None
        if function is None or function.effect == "wait":
            return None
        resource = Resource(name=function.name, effect=function.effect, pin_ok=not function.fault, stub=function.stub)
        principal = self._principal(run.agent, run.run_id)
        arguments = _named(function, event.body["arguments"])
        return Act(principal=principal, action="call", resource=resource, arguments=arguments)

    def _resources(self) -> Sequence[Resource]:
        modules = self._parts.tools.catalog.modules.values()
        functions = [each for module in modules for each in module.functions.values()]
        return [Resource(name=each.name, effect=each.effect, stub=each.stub) for each in functions]

    def _principal(self, agent: str, run_id: str = "") -> Principal:
        if agent not in self._config.agents:
            raise NotFound(f"there is no agent {agent!r} in overwinter.toml")
        owner = self._config.agents[agent].owner
        return Principal(agent=agent, run_id=run_id, owner=owner, parents=parents_of(self._config).get(agent, ()))

    async def _rules(self, granted: Sequence[Granted], policies: Path | None = None) -> Rules:
        """Return the rules of these grants and of the policies beside the configuration, or in another directory.

        Raises:
            HomeDamaged: nothing is allowed, whatever they say: the audit log cannot be signed.
        """
        if self._parts.audit.fault:
            raise HomeDamaged(self._parts.audit.fault)
        directory = self._parts.directory if policies is None else policies.parent
        name = POLICIES if policies is None else policies.name
        grants = [_grant(each, number) for number, each in enumerate(granted)]
        # Ten thousand rules take a second.
        return await anyio.to_thread.run_sync(lambda: rules_now(self._config, directory, grants, policies=name))

    def _now_s(self) -> int:
        return self._parts.clock.now_us() // SECOND_US


def _named(function: Function, arguments: Mapping[str, Value]) -> Mapping[str, Value]:
    """Return the arguments by name: a refused call is written down as it was made, by place."""
    places = sorted((each for each in arguments if each.isdecimal()), key=int)
    rest = {name: value for name, value in arguments.items() if not name.isdecimal()}
    bound = bind(function, tuple(arguments[each] for each in places), rest) if places else rest
    return arguments if isinstance(bound, str) else bound


def _grant(row: Granted, number: int) -> Grant:
    return Grant(
        id=row.id or f"grant:new.{number}",
        agent=row.agent,
        pattern=row.pattern,
        reads_only=row.reads_only,
        is_asked=row.is_asked,
        approver=row.approver,
        expires_s=None if row.expires_us is None else row.expires_us // SECOND_US,
        place=f"grant of {row.by}",
    )


def _digest(file: Path) -> bytes:
    """Return what tells a file from another; nothing if it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return b""
