"""Model calls of a home: who may make them on whose budget, what they cost, and what is left of those that a crash cut off."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import cast

from overwinter.adapters.models import ModelParts, Thinker, Total
from overwinter.clock import Clock
from overwinter.config import Agent, Config
from overwinter.declared import DeclaredBudget
from overwinter.errors import Conflict, NotFound
from overwinter.events import Call
from overwinter.gateway import Caller, Cutting, Sink
from overwinter.gateway.budget import Budget, Line, Scope, ScopeKind, Spent, Window
from overwinter.gateway.dialect import Asked
from overwinter.principal import Principal

__all__ = ["Models", "Wish", "budgets_of"]

TENANT = "default"
NUSD = 1_000_000_000
"""Nano-dollars in a dollar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a caller asks for besides an answer."""

    call: str
    """Names the call for ever."""
    is_named: bool = False
    key: str = ""
    data: str = ""
    is_drained: bool | None = None
    """None: as the configuration says; the same below."""
    is_unlogged: bool | None = None
    is_cached: bool | None = None
    cache_s: float | None = None


class Models:
    """The gateway of a home, and its ledger."""

    def __init__(
        self, config: Config, opened: ModelParts, parents: Mapping[str, tuple[str, ...]], clock: Clock
    ) -> None:
        self._config, self._file, self._parents, self._clock = config, opened.file, parents, clock
        self.gateway, self.dialects = opened.gateway, opened.dialects
        self.thinker = Thinker(self.gateway.routes, self.dialects, self._for_program, default=config.gateway.model)
        """Answers `tools.think`."""

    @property
    def names(self) -> Sequence[str]:
        """Return the models that are declared, in the order of the file; a pattern as itself."""
        return list(self._config.models)

    def permitted(self, agent: str) -> list[str]:
        """Return the models that an agent may call, patterns left out."""
        return self.gateway.permitted(
            self.caller(agent, Wish(call="")), [each for each in self.names if not re.search(r"[*?]", each)]
        )

    async def answer(  # noqa: PLR0913 - what a call is made with
        self, asked: Asked, agent: str, wish: Wish, sink: Sink, *, run_id: str = "", method: str = "POST"
    ) -> Line:
        """Answer a call for an agent, into a sink, and return its line in the ledger."""
        return await self.gateway.answer(asked, self.caller(agent, wish, run_id=run_id), sink, method=method)

    async def _for_program(self, asked: Asked, call: Call, sink: Sink) -> Line:
        """Answer a question of a program: a named call, so that after a crash nobody pays for it again."""
        wish = Wish(call=f"{call.run_id}:{call.index}", is_named=True, is_drained=True)
        return await self.answer(asked, call.agent, wish, sink, run_id=call.run_id)

    def caller(self, agent: str, wish: Wish, *, run_id: str = "") -> Caller:
        """Return who asks, with the budgets that the call falls under."""
        declared, settings = self._config.agents.get(agent, Agent()), self._config.gateway
        parents = self._parents.get(agent, ())
        return Caller(
            principal=Principal(agent=agent, run_id=run_id, owner=declared.owner, parents=parents),
            call=wish.call,
            is_named=wish.is_named,
            budgets=budgets_of(self._config, (*parents, agent), run_id=run_id, key=wish.key),
            tenant=TENANT,
            key=wish.key,
            data=wish.data,
            is_drained=settings.on_disconnect == "drain" if wish.is_drained is None else wish.is_drained,
            is_unlogged=settings.is_unlogged or bool(wish.is_unlogged),
            is_cached=settings.cache if wish.is_cached is None else wish.is_cached,
            cache_s=wish.cache_s,
        )

    async def recover(self) -> Sequence[Line]:
        """Book the calls that a process left when it died, each at all that it held: what they cost, nobody knows."""
        left = await self._file.left()
        for line in left:
            lost = replace(
                line, state="unknown", status="lost", cost_nusd=line.held_nusd, ended_us=self._clock.now_us()
            )
            await self._file.settle(lost)
        return left

    async def correct(self, call: str, cost_nusd: int) -> Line:
        """Book what a call of unknown cost did cost, by a person's word.

        Raises:
            NotFound: there is no such call.
            Conflict: its cost is known.
        """
        line = self._file.line(call)
        if line is None:
            raise NotFound(f"there is no model call {call!r}: `overwinter models log` lists them")
        if line.state != "unknown":
            raise Conflict(f"what {call} cost is known: {(line.cost_nusd or 0) / NUSD:.6f} USD")
        return await self._file.correct(line, cost_nusd)

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
        return await self._file.spent([*self._file.begun(_limits(self._config))])

    def line(self, call: str) -> Line | None:
        """Return one call."""
        return self._file.line(call)

    def lines(
        self, *, before_us: int | None = None, limit: int = 50, wanted: Mapping[str, str] | None = None
    ) -> Sequence[Line]:
        """Return calls, the newest first."""
        return self._file.lines(before_us=before_us, limit=limit, wanted=wanted or {})

    def totals(self, by: Sequence[str], *, since_us: int, until_us: int | None = None) -> Sequence[Total]:
        """Return what was used, grouped by agent, run, model, upstream, key or day."""
        return self._file.totals(
            by, since_us=since_us, until_us=self._clock.now_us() + 1 if until_us is None else until_us
        )


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
            window=cast("Window", budget.window),
            limit_nusd=round(budget.usd * NUSD) or None,
            calls_max=budget.calls or None,
        )
        for kind, name in subjects
        for budget in config.budgets.values()
        if _is_of(budget, kind, name)
    )


def _is_of(budget: DeclaredBudget, kind: str, name: str) -> bool:
    whose, _, pattern = budget.of.partition(":")
    return whose == kind and (not pattern or fnmatchcase(name, pattern))


def _limits(config: Config) -> Callable[[str, str, str], tuple[int | None, int | None] | None]:
    def limits(kind: str, name: str, window: str) -> tuple[int | None, int | None] | None:
        for each in config.budgets.values():
            if _is_of(each, kind, name) and each.window == window:
                return round(each.usd * NUSD) or None, each.calls or None
        return None

    return limits
