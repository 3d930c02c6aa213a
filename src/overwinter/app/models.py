"""Model calls of a home: who may make them on whose budget, what they cost, and what is left of those that a crash cut off."""

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from typing import cast

import anyio
import anyio.to_thread

from overwinter.adapters.models import ModelParts, Thinker, Total, load
from overwinter.app.counters import Counters
from overwinter.app.departures import Departures
from overwinter.clock import SECOND_US, Clock
from overwinter.config import Agent, Config
from overwinter.declared import DeclaredBudget
from overwinter.errors import Conflict, NotFound
from overwinter.events import Call, Raised
from overwinter.frozen import frozen, replace
from overwinter.gateway import Caller, Cutting, Sink
from overwinter.gateway.background import WAITING, unknown
from overwinter.gateway.budget import Budget, Line, Scope, ScopeKind, Spent, Window
from overwinter.gateway.dialect import Asked
from overwinter.gateway.prices import Unpriced
from overwinter.gateway.routes import PATTERN
from overwinter.principal import Principal

__all__ = ["NUSD", "Listed", "Models", "Wish", "budgets_of"]

_CALLS = logging.getLogger("overwinter.models")
TENANT = "default"
TEST_TOKENS = 16
"""The least that every provider takes."""
OVERDUE_LOOK_S = 30.0
"""How often calls are looked at that may have taken too long."""
CALLERS_MAX = 4_096
"""Chains of agents, each with a run and a key, whose budgets are remembered: what is declared stays as long as a process."""
NAME_BYTES, NAMES_DRAWN = 10, 256
NUSD = 1_000_000_000
"""Nano-dollars in a dollar."""


@frozen
class Listed:
    """A declared model, for people."""

    name: str
    provider: str
    provider_model: str
    region: str
    retention: str
    dialects: Sequence[str]
    input_usd_per_mtok: float | None
    """None: there is no price for it, or it is a pattern."""
    output_usd_per_mtok: float | None
    is_plain: bool
    """Whether it is one model, not a pattern of names."""
    is_permitted: bool
    is_left_alone: bool
    """Whether its provider has failed too often a moment ago."""
    fault: str
    """Why no call of it would leave, whatever the rules say: no credential, or no price where a budget counts; "": it would."""


@frozen
class Wish:
    """What a caller asks for besides an answer."""

    call: str
    """Names the call for ever."""
    is_named: bool = False
    key: str = ""
    session: str = ""
    """By which the client names its conversation."""
    data: str = ""
    is_unlogged: bool | None = None
    """None: as the configuration says; the same below."""
    is_cached: bool | None = None
    is_similar: bool = False
    cache_s: float | None = None


class Models:
    """The gateway of a home, and its ledger."""

    def __init__(
        self, config: Config, opened: ModelParts, parents: Mapping[str, tuple[str, ...]], clock: Clock
    ) -> None:
        self._config, self._parents, self._clock = config, parents, clock
        self.file = opened.file
        """Budgets, and the ledger of calls."""
        self.gateway, self.dialects = opened.gateway, opened.dialects
        self._prices, self._fault = opened.prices, opened.fault
        self._budgets = lru_cache(CALLERS_MAX)(partial(budgets_of, config))
        self._names = list[str]()
        """Ends of names for calls, drawn at random and not given yet."""
        self.counters = Counters()
        """What this process did since it began."""
        self.departures = Departures()
        self._told = opened.told
        self.gateway.ended = self._ended
        self.gateway.cleaner.told = self.counters.redacted
        self.rung: Callable[[], None] = lambda: None
        """Told that a call has ended."""
        self.purses: Callable[[str], Awaitable[tuple[Budget, ...]]] = _no_purse
        """What the goals above a call of a run may cost, by the run."""
        self.thinker = Thinker(self.gateway.routes, self.dialects, self._for_program, default=config.gateway.model)
        """Answers `tools.think`."""

    @property
    def names(self) -> Sequence[str]:
        """Return the models that are declared, in the order of the file; a pattern as itself."""
        return list(self._config.models)

    async def run(self) -> None:
        """Notice clients who leave, and calls that take too long, until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.departures.run)
            while True:
                await anyio.sleep(OVERDUE_LOOK_S)
                self.gateway.stop_overdue(time.monotonic())

    async def load(self) -> None:
        """Get ready for the first call, if there are models to be called: else it would make all others wait."""
        if self._config.models:
            await anyio.to_thread.run_sync(load)

    def permitted(self, agent: str) -> list[str]:
        """Return the models that an agent may call, patterns left out."""
        return self.gateway.permitted(
            self.caller(agent, Wish(call="")), [each for each in self.names if not PATTERN.search(each)]
        )

    async def answer(  # noqa: PLR0913 - what a call is made with
        self, asked: Asked, agent: str, wish: Wish, sink: Sink, *, run_id: str = "", method: str = "POST"
    ) -> Line:
        """Answer a call for an agent, into a sink, and return its line in the ledger."""
        return await self.gateway.answer(asked, self.caller(agent, wish, run_id=run_id), sink, method=method)

    def listed(self, agent: str) -> Sequence[Listed]:
        """Return every declared model, and whether an agent may call it; of a pattern, whether it may call one of its name."""
        caller = self.caller(agent, Wish(call=""))
        permitted = set(self.gateway.permitted(caller, self.names))
        has_budget = bool(caller.budgets)
        return [self._listed(name, is_permitted=name in permitted, has_budget=has_budget) for name in self.names]

    def _listed(self, name: str, *, is_permitted: bool, has_budget: bool) -> Listed:
        target = self.gateway.routes.of(name).targets[0]
        is_plain = not PATTERN.search(name)
        until_us = self.gateway.breaker.open_until_us(target.provider.name)
        try:
            rates, unpriced = self._prices.rates(target.provider.prices, target.model, "", 1) if is_plain else None, ""
        except Unpriced as error:
            rates, unpriced = None, f"{error}, and a budget cannot be kept without: add it to prices.toml"
        return Listed(
            name=name,
            provider=target.provider.name,
            provider_model=target.model if is_plain else "as asked",
            region=target.provider.region,
            retention=target.provider.retention,
            dialects=sorted(target.provider.dialects),
            input_usd_per_mtok=None if rates is None else float(rates.fresh / 1_000),
            output_usd_per_mtok=None if rates is None else float(rates.output / 1_000),
            is_plain=is_plain,
            is_permitted=is_permitted,
            is_left_alone=until_us is not None and self._clock.now_us() < until_us,
            fault=self._fault(target.provider.name) or (unpriced if has_budget else ""),
        )

    async def test(self, model: str, agent: str) -> str:
        """Ask a model for one word; return why it did not answer, or "".

        It is a call like any other: decided, counted, paid for.
        """
        wish = Wish(call=f"test:{secrets.token_hex(8)}", is_cached=False)

        async def ask(asked: Asked, call: Call, sink: Sink) -> Line:
            return await self.answer(asked, call.agent, wish, sink)

        thinker = Thinker(self.gateway.routes, self.dialects, ask, default=model)
        arguments = {"prompt": "Say yes.", "model": model, "max_tokens": TEST_TOKENS}
        call = Call(run_id="", index=0, function="tools.think", arguments=arguments, effect="read", line=0, agent=agent)
        answer = await thinker.perform(call)
        return answer.message if isinstance(answer, Raised) and answer.code != "cut" else ""

    async def metrics(self) -> str:
        """Return figures in Prometheus' text format: of this process since it began, and how the budgets stand."""
        return self.counters.text(under_way=self.gateway.under_way, budgets=await self.budgets())

    async def _for_program(self, asked: Asked, call: Call, sink: Sink) -> Line:
        """Answer a question of a program: a named call, so that after a crash nobody pays for it again."""
        wish = Wish(call=f"{call.run_id}:{call.index}", is_named=True)
        caller = self.caller(call.agent, wish, run_id=call.run_id)
        caller = replace(caller, budgets=(*caller.budgets, *await self.purses(call.run_id)))
        return await self.gateway.answer(asked, caller, sink)

    def new_name(self) -> str:
        """Return a name for a call that its client gives none.

        It begins with the moment: calls that go on at the same time share a few pages of the ledger, where names at random
        would each have their own, written twice.
        """
        if not self._names:
            drawn = secrets.token_hex(NAME_BYTES * NAMES_DRAWN)  # asking the kernel for each costs 6 us
            self._names += (drawn[at : at + 2 * NAME_BYTES] for at in range(0, len(drawn), 2 * NAME_BYTES))
        return f"h:{self._clock.now_us() // 1_000:011x}{self._names.pop()}"

    def caller(self, agent: str, wish: Wish, *, run_id: str = "") -> Caller:
        """Return who asks, with the budgets that the call falls under."""
        declared, settings = self._config.agents.get(agent, Agent()), self._config.gateway
        parents = self._parents.get(agent, ())
        return Caller(
            principal=Principal(agent=agent, run_id=run_id, owner=declared.owner, parents=parents),
            call=wish.call,
            is_named=wish.is_named,
            budgets=self._budgets((*parents, agent), run_id=run_id, key=wish.key),
            tenant=TENANT,
            key=wish.key,
            session=wish.session,
            data=wish.data,
            is_unlogged=settings.is_unlogged or bool(wish.is_unlogged),
            is_cached=settings.cache if wish.is_cached is None else wish.is_cached,
            is_similar=wish.is_similar,
            cache_s=wish.cache_s,
        )

    def _ended(self, line: Line) -> None:
        self.counters.count(line)
        for tell in self._told:
            tell(line)
        if _CALLS.isEnabledFor(logging.INFO):
            _CALLS.info("%s %s: %s", line.agent, line.model, line.status, extra={"fields": _fields(line)})
        self.rung()

    async def recover(self) -> Sequence[Line]:
        """Book the calls that a process left when it died, each at all that it held: what they cost, nobody knows."""
        left = [each for each in await self.file.left() if each.status != WAITING]
        for line in left:
            lost = replace(
                line, state="unknown", status="lost", cost_nusd=line.held_nusd, ended_us=self._clock.now_us()
            )
            await self.file.settle(lost)
        await self.expire()
        return left

    async def expire(self) -> None:
        """Book the answers in the background that nobody asked for in time, each at all that it held."""
        now_us = self._clock.now_us()
        before_us = now_us - round(self._config.gateway.background_s * SECOND_US)
        for line in self.file.waiting(WAITING, before_us=before_us):
            await self.file.settle(replace(unknown(line, "expired"), ended_us=now_us))

    async def correct(self, call: str, cost_nusd: int, *, by: str) -> Line:
        """Book what a call of unknown cost did cost, by a person's word; `by` stands in its line.

        Raises:
            NotFound: there is no such call.
            Conflict: its cost is known.
        """
        line = self.file.line(call)
        if line is None:
            raise NotFound(f"there is no model call {call!r}: `overwinter models log` lists them")
        if line.state != "unknown":
            raise Conflict(f"what {call} cost is known: {(line.cost_nusd or 0) / NUSD:.6f} USD")
        corrected = await self.file.correct(line, cost_nusd, by=by)
        self.rung()
        return corrected

    def cut(self, agents: Collection[str], why: str) -> Cutting:
        """Begin to stop the calls under way of agents, and of all below them."""
        names = frozenset(agents)
        return self.gateway.cut(lambda caller: not names.isdisjoint(caller.principal.chain), why)

    def cut_run(self, run_id: str, why: str) -> Cutting:
        """Begin to stop the calls under way of a run."""
        return self.gateway.cut(lambda caller: caller.principal.run_id == run_id, why)

    def cut_key(self, key: str, why: str) -> Cutting:
        """Begin to stop the calls under way that came with a token."""
        return self.gateway.cut(lambda caller: caller.key == key, why)

    async def budgets(self) -> Sequence[Spent]:
        """Return how every budget stands that is spent from in its window, and those that name somebody."""

        def limits(kind: str, name: str, window: str) -> tuple[int | None, int | None] | None:
            return _limits(self._config, kind, name).get(window)

        return await self.file.spent([*self.file.begun(limits)])

    async def standing(self, agent: str) -> Sequence[Spent]:
        """Return how every budget stands that a call of an agent falls under, those of single runs and tokens left out."""
        return await self.file.spent(self.caller(agent, Wish(call="")).budgets)

    def line(self, call: str) -> Line | None:
        """Return one call."""
        return self.file.line(call)

    def lines(
        self,
        *,
        before_us: int | None = None,
        limit: int = 50,
        wanted: Mapping[str, str] | None = None,
        since_us: int = 0,
    ) -> Sequence[Line]:
        """Return calls, the newest first."""
        return self.file.lines(before_us=before_us, limit=limit, wanted=wanted or {}, since_us=since_us)

    def totals(self, by: Sequence[str], *, since_us: int, until_us: int | None = None) -> Sequence[Total]:
        """Return what was used, grouped by agent, run, model, upstream, key or day."""
        return self.file.totals(
            by, since_us=since_us, until_us=self._clock.now_us() + 1 if until_us is None else until_us
        )


async def _no_purse(_: str) -> tuple[Budget, ...]:
    return ()


def _fields(line: Line) -> dict[str, str | int]:
    """Return what the log says of a call: names, counts and costs, nothing of what was said."""
    usage, took_us = line.usage, (line.ended_us or line.began_us) - line.began_us
    told: dict[str, str | int | None] = {
        "call": line.call, "agent": line.agent, "run": line.run_id or None, "key": line.key or None, "dialect": line.dialect,
        "model": line.model, "provider": line.upstream or None, "status": line.status, "state": line.state,
        "ms": took_us // 1_000, "cost_nusd": line.cost_nusd, "saved_nusd": line.saved_nusd or None,
        "input": usage.input if usage is not None else None, "output": usage.output if usage is not None else None,
        "source": usage.source if usage is not None else None, "left_out": ", ".join(line.left_out) or None,
    }  # fmt: skip
    return {name: value for name, value in told.items() if value is not None}


def budgets_of(config: Config, chain: Sequence[str], *, run_id: str, key: str) -> tuple[Budget, ...]:
    """Return the budgets that a call falls under: of everybody in its chain, for what a child spends its parent spends.

    The order is the same for all calls.
    """
    subjects: list[tuple[str, str]] = [("tenant", TENANT)]
    subjects += [
        ("team", team) for team in sorted({config.agents[each].team for each in chain if each in config.agents} - {""})
    ]
    subjects += [("agent", each) for each in chain]
    subjects += [("run", run_id)] if run_id else []
    subjects += [("key", key)] if key else []
    return tuple(
        Budget(
            scope=Scope(kind=cast("ScopeKind", kind), name=name),
            window=cast("Window", window),
            limit_nusd=limit_nusd,
            calls_max=calls_max,
        )
        for kind, name in subjects
        for window, (limit_nusd, calls_max) in _limits(config, kind, name).items()
    )


def _limits(config: Config, kind: str, name: str) -> dict[str, tuple[int | None, int | None]]:
    """Return the limits in money and calls of somebody, by window: of several in one window the strictest, for it is one purse."""
    found = dict[str, list[DeclaredBudget]]()
    for budget in config.budgets.values():
        whose, _, pattern = budget.of.partition(":")
        if whose == kind and (not pattern or fnmatchcase(name, pattern)):
            found.setdefault(budget.window, []).append(budget)
    return {
        window: (
            min((round(each.usd * NUSD) for each in budgets if each.usd), default=None),
            min((each.calls for each in budgets if each.calls), default=None),
        )
        for window, budgets in found.items()
    }
