"""Who acts for whom: a child is never allowed what one of those above it is not."""

from fnmatch import fnmatchcase
from random import Random

import pytest

from overwinter.adapters.cedar import CedarPolicy, grants_of_agents, rules_of
from overwinter.approval import Need
from overwinter.config import Agent
from overwinter.policy import Allow, Ask, Deny, Resource
from overwinter.principal import Principal

CHAINS = 10_000
SERVICES = ("billing", "mail", "shop")
FUNCTIONS = tuple(f"{service}.{verb}" for service in SERVICES for verb in ("find", "charge", "drop"))
PATTERNS = ("*", "*.find", "shop.dro?", "mail.[fc]*", *(f"{service}.*" for service in SERVICES), *FUNCTIONS)


def principal(*chain: str) -> Principal:
    return Principal(agent=chain[-1], run_id="run", owner="owner", parents=chain[:-1])


def world(random: Random) -> dict[str, tuple[str, ...]]:
    return {f"agent{number}": tuple(random.sample(PATTERNS, random.randint(0, 4))) for number in range(6)}


@pytest.mark.claim("G2.chain")
def test_by_cedar_no_child_is_allowed_what_an_agent_above_it_is_not():
    """10,000 chains, judged by the patterns alone."""
    random = Random(2)
    for _ in range(100):
        granted, asked = world(random), world(random)
        agents = {name: Agent(tools=granted[name], asks=asked[name]) for name in granted}
        policy = CedarPolicy(rules_of(dict.fromkeys(granted, "owner"), {}, grants_of_agents(agents)), lambda: 0)
        for _ in range(CHAINS // 100):
            chain = tuple(random.choices(tuple(agents), k=random.randint(1, 5)))
            resource = Resource(name=random.choice(FUNCTIONS))
            free = [_matches(granted[agent], resource.name) for agent in chain]
            approved = [_matches(granted[agent] + asked[agent], resource.name) for agent in chain]
            expected = Allow if all(free) else Ask if all(approved) else Deny
            assert type(policy.decide(principal(*chain), "call", resource, {})) is expected
            assert type(policy.decide(principal(*chain), "see", resource, {})) is (Allow if all(approved) else Deny)
            decision = policy.decide(principal(*chain), "call", resource, {}, approved=True)
            assert type(decision) is (Allow if all(approved) else Deny)


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def test_agents_of_different_owners_have_both_of_them_asked():
    agents = {"up": Agent(owner="x", asks=("*",)), "down": Agent(owner="y", asks=("*",))}
    owners = {name: agent.owner for name, agent in agents.items()}
    policy = CedarPolicy(rules_of(owners, {}, grants_of_agents(agents)), lambda: 0)
    assert isinstance(policy.decide(principal("down"), "call", Resource(name="shop.find"), {}), Ask)
    decision = policy.decide(principal("up", "down"), "call", Resource(name="shop.find"), {})
    assert isinstance(decision, Ask)
    assert decision.needs == (Need(("x",)), Need(("y",)))
    assert isinstance(
        policy.decide(principal("up", "down"), "call", Resource(name="shop.find"), {}, approved=True), Allow
    )
