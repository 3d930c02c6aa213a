"""The least policy for what an agent did: it allows that, passes the check, and little else."""

from random import Random
from typing import Any

import pytest

from overwinter.adapters.cedar import Grant, Rules, grants_of_agents, rules_of
from overwinter.adapters.cedar.changes import Past, simulate
from overwinter.adapters.cedar.deciding import Act, Version, decided
from overwinter.adapters.cedar.review import check
from overwinter.adapters.cedar.rules import bare, with_policies
from overwinter.adapters.cedar.suggesting import suggest
from overwinter.config import Agent
from overwinter.policy import Allow, Ask, Deny, Resource
from overwinter.principal import Principal

OWNER = "owner@example.com"
PAY = Resource(
    name="shop.pay",
    stub="async def pay(*, cents: int, currency: str, urgent: bool = ..., rate: float = ..., order_id: int = ..., "
    "note: str | None = ..., extra: dict[str, Any] = ...) -> str: ...",
)  # fmt: skip
LIST = Resource(name="shop.list", effect="read", stub="async def list(*, page: int = ...) -> str: ...")
FUNCTIONS = (PAY, LIST)


def rules(text: str = "", *grants: Grant) -> Rules:
    return rules_of({"a": OWNER, "b": "boss@e"}, {"policies/x.cedar": text}, grants)


def past(resource: Resource = PAY, chain: tuple[str, ...] = ("a",), **arguments: Any) -> Past:
    who = Principal(agent=chain[-1], run_id="run", owner=OWNER, parents=chain[:-1])
    return Past(act=Act(principal=who, action="call", resource=resource, arguments=arguments), at_s=0)


def decision(text: str, each: Past, before: Rules | None = None) -> Any:
    return decided(Version(with_policies(before or rules(), "s.cedar", text)), each.act, each.at_s, approved=False)


def test_arguments_are_narrowed_where_it_can_be_said():
    acts = [
        past(cents=cents, currency=currency, rate=rate, order_id=cents, note=f"note {cents}")
        for cents, currency, rate in ((5, "EUR", 0.5), (900, "USD", 1.25), (7, "EUR", 1), (8, "USD", 0.1))
    ]
    text = suggest(rules(), acts)
    assert text.splitlines() == [
        "// 4 calls",
        'permit(principal == Agent::"a", action == Action::"call", resource == Function::"shop.pay")',
        (
            'when { context.args.cents >= 0 && context.args.cents <= 900 && ["EUR", "USD"].contains(context.args.currency) && '
            '(if context.args has rate then context.args.rate.greaterThanOrEqual(decimal("0.0")) && '
            'context.args.rate.lessThanOrEqual(decimal("1.2500")) else true) };'
        ),
    ]
    assert all(isinstance(decision(text, each), Allow) for each in acts)
    for other in ({"cents": 901}, {"cents": -1}, {"currency": "CHF"}, {"rate": 1.26}):
        given: dict[str, Any] = {"cents": 5, "currency": "EUR", **other}
        assert isinstance(decision(text, past(**given)), Deny), other
    assert isinstance(decision(text, past(cents=5, currency="EUR", order_id=10**6, note="another")), Allow)


def test_a_text_seen_once_is_no_choice_from_a_list():
    assert "currency" not in suggest(rules(), [past(cents=1, currency="EUR")])
    assert 'context.args.currency == "EUR"' in suggest(rules(), [past(cents=1, currency="EUR")] * 2)
    assert "currency" not in suggest(rules(), [past(cents=1, currency='E"R')] * 9)


def test_a_permit_is_not_so_narrow_that_what_was_allowed_is_denied():
    """`note` was seen short and is a choice; the other agent's call has one that no rule may look at."""
    long = past(cents=3, currency="EUR", note="x" * 20_000)
    small = 'permit(principal == Agent::"a", action == Action::"call", resource) when { context.args.cents < 4 };'
    acts = [long, *[past(cents=9, currency="EUR", note="short")] * 4]
    text = suggest(rules(small), acts)
    assert all(isinstance(decision(text, each, rules(small)), Allow) for each in acts)


@pytest.mark.claim("G1.suggest")
@pytest.mark.parametrize("is_whole", [False, True])
def test_what_is_suggested_passes_the_check_and_changes_nothing_that_was_done(is_whole):
    random = Random(5)

    def some() -> Past:
        if random.random() < 0.3:
            return past(LIST, random.choice((("a",), ("a", "b"))), **({"page": 2} if random.random() < 0.5 else {}))
        given: dict[str, Any] = {"cents": random.choice((-3, 0, 7, 10**6)), "currency": random.choice(("EUR", "USD"))}
        given |= {"urgent": True} if random.random() < 0.5 else {}
        given |= {"rate": random.choice((0.25, 3, -1.5))} if random.random() < 0.5 else {}
        given |= {"note": random.choice(("x", None, "ü" * 30, "y" * 20_000))} if random.random() < 0.5 else {}
        given |= {"extra": {"k": 1}} if random.random() < 0.2 else {}
        return past(PAY, random.choice((("a",), ("b",), ("a", "b"))), **given)

    texts = ("", 'permit(principal == Agent::"a", action == Action::"call", resource) when { context.args has cents };')
    wholes = [Grant(id="1", agent="a", pattern="*"), Grant(id="2", agent="b", pattern="*", is_asked=True)]
    for number in range(60):
        acts = [some() for _ in range(random.randint(1, 12))]
        before = rules("", *wholes) if is_whole else rules(texts[number % 2])
        text = suggest(before, acts, is_whole=is_whole)
        after = with_policies(bare(before) if is_whole else before, "policies/new.cedar", text)
        written = {each.id for each in after.rules} - {each.id for each in before.rules}
        assert [each for each in check(after, FUNCTIONS) if each.rule in written] == [], text
        if is_whole:
            assert simulate(before, after, acts) == [], text
        else:
            new = Version(after)
            assert all(isinstance(decided(new, each.act, 0, approved=False), Allow) for each in acts), text
            wide = Grant(id="w", agent="a", pattern="*"), Grant(id="v", agent="b", pattern="*")
            assert simulate(rules("", *wide), after, acts) == [], text


def test_what_people_would_be_asked_about_lacks_its_permit_all_the_same():
    text = '@id("cap") forbid(principal, action == Action::"call", resource) when {context.args.cents > 9} unless {context.approved};'
    acts = [past(cents=99, currency="EUR"), past(cents=5, currency="EUR")]
    suggested = suggest(rules(text), acts)
    assert suggested.startswith("// 2 calls\npermit(")
    assert [type(decision(suggested, each, rules(text))) for each in acts] == [Ask, Allow]


def test_all_that_an_agent_did_replaces_its_permits():
    agents = {"a": Agent(owner=OWNER, tools=("*",))}
    before = rules('forbid(principal, action == Action::"call", resource) when { context.args.cents > 50 };')
    before = rules_of(
        before.agents,
        {
            "x": 'forbid(principal, action == Action::"call", resource) when { context.args has cents && context.args.cents > 50 };'
        },
        grants_of_agents(agents),
    )
    acts = [past(cents=5, currency="EUR"), past(cents=99, currency="EUR"), past(LIST)]
    text = suggest(before, acts, is_whole=True)
    assert text.count("// 1 call\n") == 2
    assert "context.args.cents <= 5" in text
    with_it = with_policies(bare(before), "s", text)
    assert [type(decided(Version(with_it), each.act, 0, approved=False)) for each in acts] == [Allow, Deny, Allow]


def test_what_was_asked_is_asked_of_the_same_people():
    text = '@id("p") @approver("x@e, y@e") @quorum("2") @expires("4h") permit(principal, action == Action::"call", resource)'
    before = rules(text + " when { context.approved };")
    acts = [past(cents=5, currency="EUR")]
    suggested = suggest(before, acts, is_whole=True)
    assert suggested.splitlines()[1:4] == ['@approver("x@e, y@e")', '@quorum("2")', '@expires("4h")']
    assert isinstance(decision(suggested, acts[0], bare(before)), Ask)
    assert simulate(before, with_policies(bare(before), "s", suggested), acts) == []
    lifted = rules(
        'permit(principal, action == Action::"call", resource); '
        '@approver("x@e") forbid(principal, action == Action::"call", resource) unless { context.approved };'
    )
    suggested = suggest(lifted, acts, is_whole=True)
    assert "approve" not in suggested
    assert simulate(lifted, with_policies(bare(lifted), "s", suggested), acts) == []
