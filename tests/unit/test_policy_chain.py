"""Who acts for whom: a child is never allowed what one of those above it is not."""

from random import Random

import pytest

from overwinter.policy import Allow, Deny, Grants, Resource
from overwinter.principal import Principal

CHAINS = 10_000
SERVICES = ("billing", "mail", "shop")
FUNCTIONS = tuple(f"{service}.{verb}" for service in SERVICES for verb in ("find", "charge", "drop"))
PATTERNS = ("*", "*.find", "shop.dro?", "mail.[fc]*", *(f"{service}.*" for service in SERVICES), *FUNCTIONS)


def principal(*chain: str) -> Principal:
    return Principal(agent=chain[-1], run_id="run", owner="owner", parents=chain[:-1])


def world(random: Random) -> dict[str, tuple[str, ...]]:
    return {f"agent{number}": tuple(random.sample(PATTERNS, random.randint(0, 4))) for number in range(6)}


def test_by_grants_no_child_is_allowed_what_an_agent_above_it_is_not():
    random = Random(1)
    for _ in range(CHAINS):
        grants = Grants(world(random))
        chain = tuple(random.choices(tuple(grants.by_agent), k=random.randint(1, 5)))
        resource = Resource(name=random.choice(FUNCTIONS))
        alone = [isinstance(grants.decide(principal(agent), "call", resource, {}), Allow) for agent in chain]
        assert isinstance(grants.decide(principal(*chain), "call", resource, {}), Allow) == all(alone)


def test_an_unknown_agent_anywhere_in_the_chain_denies():
    grants = Grants({"known": ("*",)})
    assert isinstance(grants.decide(principal("known"), "call", Resource(name="shop.find"), {}), Allow)
    for chain in (("ghost", "known"), ("known", "ghost")):
        decision = grants.decide(principal(*chain), "call", Resource(name="shop.find"), {})
        assert decision == Deny("there is no agent 'ghost'")


@pytest.mark.parametrize("action", ["approve", "think"])
def test_grants_speak_of_functions_and_permit_nothing_else(action):
    assert isinstance(Grants({"a": ("*",)}).decide(principal("a"), action, Resource(name="model"), {}), Deny)
