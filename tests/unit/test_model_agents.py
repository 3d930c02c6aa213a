"""Which agents may ask which models, on whose money."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import asked
from models_kit import ask, chat, config_of, home_of
from overwinter.adapters.models.file import ModelsFile, open_models_file
from overwinter.app.models import budgets_of
from overwinter.config import Agent, Config
from overwinter.declared import DeclaredBudget
from overwinter.gateway.budget import Budget, Hold, Line, Reserved, Scope
from overwinter.testing import ManualClock
from provider import Mock

NUSD = 1_000_000_000


def agents_of(config: Config, **agents: Agent) -> Config:
    return replace(config, agents={**config.agents, **agents})


@pytest.mark.anyio
async def test_no_child_asks_a_model_that_one_above_it_may_not(project, provider: Mock):
    parent, child = Agent(models=("cheap",)), Agent(models=("*",), parent="parent")
    config = agents_of(config_of(provider.url), parent=parent, child=child, grandchild=replace(child, parent="child"))
    async with home_of(project, config) as app:
        for agent in ("parent", "child", "grandchild"):
            assert (await ask(app, chat(model="dear"), agent=agent))[0].status == 403
            assert (await ask(app, chat(), agent=agent))[0].status == 200
        assert len(provider.calls) == 3


@pytest.mark.anyio
async def test_what_a_child_spends_its_parent_spends(project, provider: Mock):
    parent, child = Agent(models=("*",)), Agent(models=("*",), parent="parent")
    budgets = {"parents": DeclaredBudget(of="agent:parent", calls=1)}
    config = agents_of(config_of(provider.url, budgets=budgets), parent=parent, child=child)
    async with home_of(project, config) as app:
        assert (await ask(app, chat(), agent="child"))[0].status == 200
        assert (await ask(app, chat(), agent="parent"))[0].status == 429
        assert (await ask(app, chat(), agent="child"))[0].status == 429


@pytest.mark.anyio
@pytest.mark.claim("M1.programs")
async def test_a_program_asks_only_the_models_of_its_agent(project, provider: Mock):
    config = agents_of(config_of(provider.url), dumb=Agent(tools=("shop.double",)))
    source = (
        "try:\n    said = await tools.think('Well?')\nexcept PermissionError as error:\n    said = str(error)\nsaid"
    )
    async with home_of(project, config) as app:
        refused = await app.result(await app.start(source, agent="dumb"), 10)
        assert "models" in str(refused.result) or "no rule" in str(refused.result), refused.result
        assert provider.calls == []
        answered = await app.result(await app.start(source, agent="default"), 10)
        assert str(answered.result).startswith("tok0")
        assert len(provider.calls) == 1
        (line,) = app.models.lines(wanted={"agent": "default"})
        assert (line.run_id, line.call) == (answered.run_id, f"{answered.run_id}:0")


@pytest.mark.anyio
async def test_a_rule_that_asks_a_person_refuses_a_model_call_and_says_why(project, provider: Mock):
    config = agents_of(config_of(provider.url), careful=Agent(owner="ada@example.com"))
    (project / "policies").mkdir()
    (project / "policies" / "asking.cedar").write_text(
        'permit(principal == Agent::"careful", action == Action::"think", resource) when { context.approved };'
    )
    async with home_of(project, config) as app:
        client, _ = await ask(app, chat(), agent="careful")
        assert client.status == 403
        assert "nobody waits for ada@example.com here" in client.body.decode()
        assert provider.calls == []


@pytest.mark.anyio
async def test_the_list_of_agents_shows_models_and_how_their_budgets_stand(project, provider: Mock):
    budgets = {"all": DeclaredBudget(of="tenant", usd=5.0), "own": DeclaredBudget(of="agent:default", calls=9)}
    async with home_of(project, config_of(provider.url, budgets=budgets)) as app:
        _, line = await ask(app, chat())
        _, found = await asked(app, "GET", "/v1/agents")
        agents = {each["name"]: each for each in found["agents"]}
        assert agents["default"]["models"] == ["*"]
        tenant, own = agents["default"]["budgets"]
        assert (tenant["of"], tenant["spent_usd"]) == ("tenant:default", (line.cost_nusd or 0) / NUSD)
        assert (own["of"], own["calls"], own["calls_max"]) == ("agent:default", 1, 9)
        assert [each["of"] for each in agents["none"]["budgets"]] == ["tenant:default"]


# --- Chains of agents and their budgets ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Try:
    """A call of one agent: what it may cost at most, what it did cost, and whether it ended."""

    agent: int
    held: int
    cost: int
    has_ended: bool


AMOUNTS = st.integers(0, 40)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Config, list[int | None], list[Try]]:
    """Agents, each below an earlier one or none, some with a limit; a limit of all; and calls."""
    count = draw(st.integers(1, 6))
    parents = [draw(st.none() | st.integers(0, each - 1)) if each else None for each in range(count)]
    agents = {
        f"a{each}": Agent(
            parent="" if parent is None else f"a{parent}", team=draw(st.sampled_from(["", "red", "blue"]))
        )
        for each, parent in enumerate(parents)
    }
    subjects = ["tenant", "team:red", "team:*", *(f"agent:{name}" for name in agents), "agent:*"]
    budgets = {
        f"b{number}": DeclaredBudget(
            of=draw(st.sampled_from(subjects)),
            usd=draw(st.integers(1, 100)) / NUSD,
            window=f"{draw(st.sampled_from(['hour', 'ever']))}",
        )
        for number in range(draw(st.integers(1, 6)))
    }
    calls = st.builds(
        lambda agent, held, part, ended: Try(agent, held, held * part // 100, ended),
        st.integers(0, count - 1), AMOUNTS, st.integers(0, 100), st.booleans(),
    )  # fmt: skip
    return Config(agents=agents, budgets=budgets), parents, draw(st.lists(calls, max_size=25))


def above(parents: list[int | None], agent: int) -> list[int]:
    """The agent and all above it, the highest first."""
    parent = parents[agent]
    return [agent] if parent is None else [*above(parents, parent), agent]


async def spend(file: ModelsFile, call: str, each: Try, budgets: tuple[Budget, ...]) -> Reserved:
    line = Line(
        call=call, began_us=0, agent=f"a{each.agent}", run_id="", key="", dialect="chat", upstream="", model="m",
        held_nusd=each.held,
    )  # fmt: skip
    reserved, _ = await file.reserve(Hold(call=call, amount_nusd=each.held, budgets=budgets), line)
    if reserved is Reserved.HELD and each.has_ended:
        assert await file.settle(replace(line, state="settled", cost_nusd=each.cost))
        assert not await file.settle(replace(line, state="settled", cost_nusd=each.cost))
    return reserved


@pytest.mark.claim("M2.chains")
@settings(max_examples=120)
@given(worlds())
def test_what_a_child_spends_counts_for_all_above_it_and_nobodys_limit_is_passed(world):
    config, parents, tries = world

    async def run(file: ModelsFile) -> None:
        taken = dict[Purse, int]()
        for number, each in enumerate(tries):
            names = [f"a{one}" for one in above(parents, each.agent)]
            limits = purses(config, names)
            has_room = all(taken.get(purse, 0) + each.held <= limit for purse, limit in limits.items())
            budgets = budgets_of(config, names, run_id="", key="")
            assert (await spend(file, f"c{number}", each, budgets) is Reserved.HELD) == has_room
            if has_room:
                for purse in limits:
                    taken[purse] = taken.get(purse, 0) + (each.cost if each.has_ended else each.held)
        for (kind, name, window), amount in taken.items():
            budget = Budget(scope=Scope(kind=kind, name=name), window=window)  # pyright: ignore[reportArgumentType] - words of the file
            (found,) = await file.spent([budget])
            assert found.spent_nusd + found.held_nusd == amount

    with_file(run)


Purse = tuple[str, str, str]


def purses(config: Config, names: list[str]) -> dict[Purse, int]:
    """Whose limits a call of the last of some agents falls under, said once more in other words."""
    teams = {config.agents[name].team for name in names} - {""}
    found = dict[Purse, int]()
    for budget in config.budgets.values():
        kind, _, pattern = budget.of.partition(":")
        people = {"tenant": ["default"], "team": sorted(teams), "agent": names}[kind]
        for name in people:
            if pattern in ("", "*", name):
                purse = (kind, name, budget.window)
                found[purse] = min(found.get(purse, 1 << 60), round(budget.usd * NUSD))
    return found


def with_file(run: Callable[[ModelsFile], Awaitable[None]]) -> None:
    with TemporaryDirectory() as place:
        path = Path(place) / "models.db"
        with open_models_file(path, ManualClock(), key=bytes(32), answers_bytes_max=0) as file:
            anyio.run(run, file)
