"""Before a program runs: which of the functions that it may call a person must approve, and which are denied."""

import pytest

from kit import opened
from overwinter.adapters.cedar import Grant, rules_of
from overwinter.adapters.cedar.deciding import Act, Version, decided
from overwinter.adapters.cedar.reach import gated
from overwinter.config import Agent, Config, Worker
from overwinter.faces.cli.render import reached
from overwinter.faces.wire import reach
from overwinter.policy import Ask, Deny, Resource
from overwinter.principal import Principal
from overwinter.subset import called_by_name

OWNER = "owner@example.com"
CHARGE = Resource(name="billing.charge", stub="async def charge(*, cents: int, note: str | None = ...) -> str: ...")
PERMIT = 'permit(principal == Agent::"a", action == Action::"call", resource);'
LARGE = (
    '@id("large") @approver("x@e, y@e") @quorum("2") forbid(principal, action == Action::"call", resource)'
    " when { context.args.cents > 9 } unless { context.approved };"
)


@pytest.mark.parametrize(
    ("source", "names", "is_open"),
    [
        ("await shop.pay(cents=1)", (), False),
        ("await tools.call('shop.pay', {})", ("shop.pay",), False),
        ("await tools.call(name='shop.pay', arguments={})", ("shop.pay",), False),
        (
            "import tools as t\nawait t.call('shop.pay', {})\nawait t.call('shop.drop', {})",
            ("shop.drop", "shop.pay"),
            False,
        ),
        ("from tools import call as c\nawait c('shop.pay', {})", ("shop.pay",), False),
        ("name = 'shop.pay'\nawait tools.call(name, {})", (), True),
        ("await tools.call('shop.' + x, {})", (), True),
        ("await tools.call(*words)", (), True),
        ("await tools.call('shop.pay', {}); f = tools.call", ("shop.pay",), True),
        ("from tools import call\nfor f in [call]: await f('shop.pay', {})", (), True),
        ("t = tools\nawait t.call('shop.pay', {})", (), True),
        ("def f(tools):\n    tools.call(1)", (), False),
        ("await tools.call(", (), False),
    ],
)
def test_what_is_called_by_its_name_is_found(source, names, is_open):
    assert called_by_name(source) == (frozenset(names), is_open)


def found(text, *grants, resource=CHARGE, chain=("a",)):
    version = Version(rules_of({"a": OWNER, "b": "boss@e"}, {"policies/x.cedar": text}, grants))
    who = Principal(agent=chain[-1], run_id="", owner=OWNER, parents=chain[:-1])
    return gated(version, Act(principal=who, action="call", resource=resource), 0)


def said(*arguments, **options):
    each = found(*arguments, **options)
    return None if each is None else (each.decision, each.approver, each.policies)


def test_what_is_asked_whatever_the_arguments_and_what_by_some_of_them():
    asks, reads = (
        Grant(id="g", agent="a", pattern="*", is_asked=True),
        Grant(id="r", agent="a", pattern="*", reads_only=True),
    )
    ends = Grant(id="e", agent="a", pattern="billing.*", is_asked=True, expires_s=9)
    assert said("", asks) == ("ask", OWNER, ("g",))
    assert said("", asks, reads) == ("ask", OWNER, ("g",))
    assert said("", asks, reads, resource=Resource(name="billing.list", effect="read")) is None
    assert said(PERMIT) is None
    assert said(PERMIT + LARGE) == ("may ask", "2 of x@e, y@e", ("large",))
    assert said(LARGE, asks) == ("may ask", f"{OWNER} and 2 of x@e, y@e", ("large", "g"))
    assert said("", ends, reads) == ("may ask", OWNER, ("e",))
    assert said(PERMIT, ends) is None


def test_what_is_denied_says_by_which_rule():
    assert said("") == ("deny", "", ())
    denied = found("")
    assert denied is not None
    assert "has no grant for billing.charge" in denied.reason
    stopped = '@id("stop") forbid(principal, action, resource) when { resource.effect == "write" };'
    assert said(PERMIT + stopped) == ("deny", "", ("stop",))


def test_each_agent_of_a_chain_has_its_own_say():
    asks = (Grant(id="1", agent="a", pattern="*", is_asked=True), Grant(id="2", agent="b", pattern="*", is_asked=True))
    assert said("", *asks, chain=("a", "b")) == ("ask", f"boss@e and {OWNER}", ("1", "2"))
    assert said("", asks[0], chain=("a", "b")) == ("deny", "", ())


@pytest.mark.claim("G7.reach")
def test_no_call_asks_or_is_denied_by_rule_that_was_not_foretold():
    """Whatever the rules are: what is foretold as free never asks, what is foretold as denied is never allowed."""
    ends = ("", "when { context.approved }", "when { context.args.cents > 4 } unless { context.approved }",
            "when { context.args.cents > 4 }", 'when { resource.effect == "read" }', "when { context.now > 4 }",
            "when { context.args.cents > 4 && context.approved }", "unless { context.approved }")  # fmt: skip
    asked = set[str]()
    for first in ends:
        for second in ends:
            for third in (None, *ends):
                text = f"permit(principal, action, resource) {first};\npermit(principal, action, resource) {second};\n"
                text += "" if third is None else f"forbid(principal, action, resource) {third};"
                version = Version(rules_of({"a": OWNER}, {"policies/x.cedar": text}, []))
                foretold = found(text)
                asked.add("free" if foretold is None else foretold.decision)
                for cents, now_s in ((1, 0), (9, 0), (1, 9), (9, 9)):
                    who = Principal(agent="a", run_id="", owner=OWNER)
                    act = Act(principal=who, action="call", resource=CHARGE, arguments={"cents": cents})
                    decision = decided(version, act, now_s, approved=False)
                    if foretold is None:
                        assert not isinstance(decision, Ask), text
                    elif foretold.decision != "may ask":
                        assert isinstance(decision, {"ask": Ask, "deny": Deny}[foretold.decision]), text
    assert asked == {"free", "ask", "may ask", "deny"}


@pytest.mark.anyio
async def test_a_check_of_a_home_lists_them_with_whom_they_ask(project):
    config = Config(
        agents={"default": Agent(owner=OWNER, reads=("*",), asks=("shop.pay",))}, worker=Worker(interpreters=1)
    )
    async with opened(project, config=config) as app:
        source = (
            "await shop.double(number=1)\nawait shop.pay(cents=1)\nawait tools.call('shop.charge', {})\nf = tools.call"
        )
        shown = reach(app.rulebook.reach(source, "default"))
        assert [(each["function"], each["decision"], each["approver"]) for each in shown["gated"]] == [
            ("shop.charge", "deny", None), ("shop.pay", "ask", OWNER),
        ]  # fmt: skip
        assert reached(shown)[1:] == [
            f"  shop.pay asks {OWNER} (agents.default.asks: shop.pay)",
            "  it may call any function: it names one only when it runs",
        ]
        assert reach(app.rulebook.reach("await shop.double(number=1)", "default")) == {"gated": [], "is_open": False}
