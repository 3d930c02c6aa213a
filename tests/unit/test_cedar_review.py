"""What a person is told of policies: mistakes, reasons, the effect of a change, the least that would do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from overwinter.adapters.cedar import Grant, Rules, grants_of_agents, rules_of
from overwinter.adapters.cedar.changes import Past, simulate
from overwinter.adapters.cedar.deciding import Act, Version, decided
from overwinter.adapters.cedar.explain import explain
from overwinter.adapters.cedar.review import check
from overwinter.adapters.cedar.suggesting import suggest
from overwinter.config import Agent
from overwinter.policy import Allow, Ask, Deny, Resource
from overwinter.principal import Principal

CHARGE = Resource(name="billing.charge", stub="async def charge(*, cents: int, note: str | None = ...) -> str: ...")
LIST = Resource(name="billing.list", effect="read", stub="async def list(limit: int = ..., *, page: int) -> str: ...")
POST = Resource(name="mail.post", stub="async def post(*, body: dict[str, Any]) -> None: ...")
FUNCTIONS = (CHARGE, LIST, POST)
SMALL = """@id("small")
permit(principal == Agent::"a", action == Action::"call", resource == Function::"billing.charge")
when { resource.pin_ok && context.args.cents < 1000 };
"""


def rules(text: str = "", *grants: Grant) -> Rules:
    return rules_of({"a": "owner", "b": "owner"}, {"policies/money.cedar": text}, grants)


def act(resource: Resource, chain: tuple[str, ...] = ("a",), **arguments: Any) -> Act:
    who = Principal(agent=chain[-1], run_id="run", owner="owner", parents=chain[:-1])
    return Act(principal=who, action="call", resource=resource, arguments=arguments)


def past(*args: Any, **arguments: Any) -> Past:
    return Past(act=act(*args, **arguments), at_s=0)


# --- check ------------------------------------------------------------------------------------------------------------

ON_BILLING = 'permit(principal, action == Action::"call", resource in Service::"billing") when'
MISTAKES: Mapping[str, tuple[str, str]] = {
    "lacking argument": (f"{ON_BILLING} {{ context.args.cents < 9 }};", "`args.cents` in context for Action::"),
    "wrong type": (f'{ON_BILLING} {{ context.args has cents && context.args.cents < "x" }};', "expected Long but saw"),
    "optional argument": (SMALL.replace("charge", "list").replace("small", "x").replace("cents", "limit"), "optional attribute `args.limit`"),
    "unknown attribute": (f'{ON_BILLING} {{ resource.efect == "read" }};', "attribute `efect` on entity type"),
    "other actions": ('forbid(principal, action, resource) when { resource.effect == "read" };', "`effect` on entity type `Model`"),
    "opaque type": (f"{ON_BILLING.replace('billing', 'mail')} {{ context.args has body }};", "mail.post takes body of a type"),
    "scope": ('permit(principal is Person, action == Action::"call", resource);', "unable to find an applicable action"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_with_its_line(name):
    text, words = MISTAKES[name]
    (found, *_) = check(rules(f"// one\n\n{SMALL}\n{text}"), FUNCTIONS)
    assert (found.place, found.is_error) == ("policies/money.cedar, line 7", True)
    assert words in found.message


def test_what_is_right_has_no_finding():
    guarded = f"{ON_BILLING} {{ context.args has cents && context.args.cents < 9 }};"
    forbids = 'forbid(principal, action == Action::"call", resource) when { resource.effect == "write" };'
    grants = grants_of_agents({"a": Agent(tools=("billing.*", "mail.p*", "*.po?t"), reads=("*",), asks=("*",))})
    assert check(rules(SMALL + guarded + forbids, *grants), FUNCTIONS) == []


def test_a_rule_about_arguments_of_unknown_types_is_a_mistake():
    (found,) = check(rules(SMALL), [Resource(name="billing.charge")])
    assert "the types of billing.charge are not known" in found.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('permit(principal == Agent::"z", action, resource);', "there is no agent 'z'"),
        ('forbid(principal, action == Action::"call", resource in Service::"nope");', "no function is in its scope"),
        (f'{ON_BILLING} {{ resource.effect == "wirte" }};', "its conditions are false"),
    ],
)
def test_a_rule_that_can_never_hold_is_a_warning(text, words):
    (found,) = check(rules(text), FUNCTIONS)
    assert not found.is_error
    assert words in found.message
    assert check(rules(text), []) == [] or "no agent" in found.message


def test_a_grant_of_nothing_is_a_warning():
    found = check(rules("", *grants_of_agents({"a": Agent(tools=("nope.*", "mail.[xy]*"))})), FUNCTIONS)
    assert [each.rule for each in found] == ["agents.a.tools: nope.*", "agents.a.tools: mail.[xy]*"]
    assert {each.place for each in found} == {"overwinter.toml"}


# --- explain ----------------------------------------------------------------------------------------------------------


def nearest(text: str, asked: Act, *grants: Grant) -> tuple[str, str]:
    told = explain(Version(rules(text, *grants)), asked, 0)
    assert isinstance(told.decision, Deny)
    (side,) = told.sides
    return (side.nearest.rule.id, side.nearest.failed) if side.nearest else ("", "")


def test_the_nearest_permit_is_shown_with_the_first_condition_that_fails():
    other = Grant(id="other", agent="a", pattern="mail.*")
    assert nearest(SMALL, act(CHARGE, cents=5000), other) == ("small", "context.args.cents < 1000")
    assert nearest(SMALL, act(LIST, page=1)) == ("small", 'resource == Function::"billing.charge"')
    unless = SMALL.replace(";", " unless { context.depth == 0 };")
    assert nearest(unless, act(CHARGE, cents=5)) == ("small", "unless { context.depth == 0 }")
    assert nearest("", act(CHARGE), Grant(id="old", agent="a", pattern="*", expires_s=0)) == ("old", "context.now < 0")
    assert nearest("", act(CHARGE), Grant(id="g", agent="a", pattern="mai[l].*")) == ("g", "the pattern mai[l].*")


def test_what_decided_is_shown_for_each_agent_of_the_chain():
    forbid = '@id("no") forbid(principal == Agent::"b", action == Action::"call", resource);'
    told = explain(Version(rules(forbid, Grant(id="all", agent="a", pattern="*"))), act(CHARGE, ("a", "b")), 0)
    assert [[rule.id for rule in side.verdict.rules] for side in told.sides] == [["all"], ["no"]]
    assert isinstance(told.decision, Deny)
    ghost = explain(Version(rules()), act(CHARGE, ("ghost",)), 0)
    assert ghost.sides == ()


def test_an_error_is_shown_as_it_is():
    told = explain(Version(rules(SMALL)), act(CHARGE, cents="x"), 0)
    assert told.sides[0].verdict.errors == ("cents is str, not what its type says",)


# --- simulate, suggest ------------------------------------------------------------------------------------------------


def test_a_change_of_rules_is_told_by_the_acts_that_it_decides_otherwise():
    before, after = (
        rules(SMALL),
        rules(SMALL.replace("1000", "10"), Grant(id="m", agent="a", pattern="mail.*", is_asked=True)),
    )
    acts = [past(CHARGE, cents=5), past(CHARGE, cents=50), past(POST, body={}), past(CHARGE, ("b",), cents=5)]
    changes = simulate(before, after, acts)
    assert [each.past for each in changes] == acts[1:3]
    assert [type(each.before) for each in changes] == [Allow, Deny]
    assert [type(each.after) for each in changes] == [Deny, Ask]


def test_the_least_that_would_have_allowed_some_acts_allows_them_and_no_more():
    acts = [past(LIST, ("a", "b"), page=1), past(LIST, ("b",), page=2), past(POST, body={}), past(CHARGE, cents=5)]
    text = suggest(rules(SMALL), acts)
    assert text.splitlines()[1::2] == [
        f'permit(principal == Agent::"{agent}", action == Action::"call", resource == Function::"{name}");'
        for agent, name in (("a", "billing.list"), ("b", "billing.list"), ("a", "mail.post"))
    ]
    with_it = Version(rules(SMALL + text))
    assert all(isinstance(decided(with_it, each.act, 0, approved=False), Allow) for each in acts)
    assert isinstance(decided(with_it, act(POST, ("b",), body={}), 0, approved=False), Deny)


def test_what_no_permit_can_allow_is_said_in_a_comment():
    forbid = 'forbid(principal, action == Action::"call", resource == Function::"mail.post");'
    text = suggest(
        rules(forbid + SMALL), [past(POST, body={}), past(CHARGE, cents="x"), past(LIST, ("ghost",), page=1)]
    )
    assert [line[:3] for line in text.splitlines()] == ["// "] * 3
    assert "forbids it" in text
    assert "there is no agent 'ghost'" in text
    assert "cannot be decided" in text


def test_the_policies_in_the_documentation_are_right():
    page = (Path(__file__).parents[2] / "docs/policies.md").read_text(encoding="utf-8")
    text = page.split("```cedar norun\n")[1].split("```")[0]
    written = rules_of({"billing": "owner"}, {"policies/page.cedar": text}, [])
    assert check(written, FUNCTIONS) == []
    asked = Version(written)
    chain = ("billing",)
    assert isinstance(decided(asked, act(CHARGE, chain, cents=9_999), 0, approved=False), Allow)
    decision = decided(asked, act(CHARGE, chain, cents=10_000), 0, approved=False)
    assert isinstance(decision, Ask)
    assert decision.approver == "cfo@example.com"
    assert isinstance(decided(asked, act(CHARGE, chain, cents=1_000_000), 0, approved=True), Deny)
    delegated = decided(asked, act(CHARGE, (*chain, *chain), cents=1), 0, approved=False)
    assert isinstance(delegated, Deny)
    assert delegated.reason.endswith("whoever was delegated to only reads")
