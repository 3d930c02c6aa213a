"""Who acts for whom: a child is never allowed what one of those above it is not."""

from fnmatch import fnmatchcase
from random import Random

import pytest

from overwinter.adapters.cedar import CedarPolicy, Grant, grants_of_agents, rules_of
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


ENDS = (
    "", "", "when { context.approved }", "when { context.args.cents > 4 }", "when { context.args.cents > 4 } unless { context.approved }",
    "when { context.depth > 0 }", 'when { principal.name == "agent1" }', "when { context.now > 4 }", "when { context.args.none > 4 }",
)  # fmt: skip
CHARGED = "async def act(*, cents: int) -> str: ..."


@pytest.mark.claim("G2.chain")
def test_whatever_the_rules_and_grants_are_no_child_is_allowed_what_an_agent_above_it_is_not():
    """2,500 chains: what is allowed to one is allowed to each above it, and whom one above asks, it asks too."""
    random, answers = Random(4), {Allow: 0, Ask: 0, Deny: 0}
    for _ in range(25):
        agents = [f"agent{number}" for number in range(5)]
        grants = [
            Grant(
                id=f"g{number}", agent=random.choice(agents), pattern=random.choice(PATTERNS), reads_only=random.random() < 0.2,
                is_asked=random.random() < 0.3, approver=random.choice(("", "x, y")), expires_s=random.choice((None, None, 5)),
            )
            for number in range(12)
        ]  # fmt: skip
        policy = CedarPolicy(rules_of(dict.fromkeys(agents, "owner"), {"p.cedar": written(random)}, grants), lambda: 3)
        for _ in range(CHAINS // 100):
            chain = tuple(random.choices(agents, k=random.randint(2, 4)))
            effect = random.choice(("read", "write"))
            resource = Resource(name=random.choice(FUNCTIONS), effect=effect, stub=CHARGED)
            approved, arguments = random.random() < 0.3, {"cents": random.choice((1, 9))}
            below = policy.decide(principal(*chain), "call", resource, arguments, approved=approved)
            answers[type(below)] += 1
            for each in dict.fromkeys(chain):
                alone = policy.decide(beside(each, chain), "call", resource, arguments, approved=approved)
                if isinstance(below, Allow):
                    assert isinstance(alone, Allow)
                elif isinstance(below, Ask):
                    assert not isinstance(alone, Deny)
                    assert set(alone.needs if isinstance(alone, Ask) else ()) <= set(below.needs)
    assert min(answers.values()) > CHAINS // 100, answers


def beside(agent: str, chain: tuple[str, ...]) -> Principal:
    """Return an agent of a chain as deep in it, with nobody else to be asked for: it delegates to itself."""
    return principal(*(agent,) * len(chain))


def written(random: Random) -> str:
    scopes = ("principal", *(f'principal == Agent::"agent{number}"' for number in range(5)))
    things = ("resource", 'resource in Service::"shop"', 'resource == Function::"mail.find"')
    kinds = ("permit", "permit", "forbid")
    rows = [(random.choice(kinds), random.choice(scopes), random.choice(things), random.choice(ENDS)) for _ in range(6)]
    return "\n".join(f'{kind}({who}, action == Action::"call", {what}) {end};' for kind, who, what, end in rows)
