"""Rules in the shadow: what they would change is counted, and nothing is changed."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from kit import opened
from overwinter.adapters.cedar import CedarPolicy, Grant, rules_of
from overwinter.adapters.cedar.review import check
from overwinter.adapters.cedar.shadow import DIFFERENCES_MAX, EXAMPLES_MAX, Shadow
from overwinter.config import Agent, Config, Worker
from overwinter.errors import ConfigInvalid
from overwinter.policy import Allow, Ask, Deny, Resource
from overwinter.principal import Principal
from overwinter.testing import idle

OWNER = "owner@example.com"
CHARGE = Resource(name="billing.charge", stub="async def charge(*, cents: int, note: str | None = ...) -> str: ...")
PERMIT = 'permit(principal == Agent::"a", action == Action::"call", resource in Service::"billing");'
FORBID = '@shadow @id("cap") forbid(principal, action == Action::"call", resource) when { context.args.cents > 9 };'


def policy(text: str, file: str = "policies/x.cedar", **files: str) -> CedarPolicy:
    return CedarPolicy(rules_of({"a": OWNER, "b": OWNER}, {file: text, **files}, []), lambda: 100)


def call(rules: CedarPolicy, name: str = "billing.charge", agent: str = "a", **arguments: Any) -> Any:
    who = Principal(agent=agent, run_id="run", owner=OWNER)
    return rules.decide(who, "call", replace(CHARGE, name=name), arguments)


def shadow(rules: CedarPolicy) -> Shadow:
    assert rules.shadow is not None
    return rules.shadow


def told(rules: CedarPolicy) -> list[tuple[str, str, str, int]]:
    return [(each.resource, each.decision, each.would_be, each.count) for each in shadow(rules).differences]


@pytest.mark.claim("G1.shadow")
def test_what_a_rule_in_the_shadow_would_change_is_counted_and_nothing_else_happens():
    rules = policy(PERMIT + FORBID)
    assert rules.version == policy(PERMIT).version
    for cents in (5, 10, 11):
        assert call(rules, cents=cents) == Allow(("policies/x.cedar:1",))
    assert told(rules) == [("billing.charge", "allow", "deny", 2)]
    (difference,) = shadow(rules).differences
    newest = difference.examples[-1]
    assert (newest.run_id, newest.arguments, newest.policies) == ("run", {"cents": "11"}, ("cap",))
    assert (difference.last_s, shadow(rules).decided) == (100, 3)


def test_a_permit_in_the_shadow_permits_nothing():
    rules = policy(f"@shadow {PERMIT}")
    assert isinstance(call(rules, cents=1), Deny)
    assert told(rules) == [("billing.charge", "deny", "allow", 1)]


def test_who_would_be_asked_is_a_difference():
    asks = '@shadow @approver("a@x, b@x") @quorum("2") forbid(principal, action, resource) unless { context.approved };'
    rules = policy(PERMIT + asks)
    assert isinstance(call(rules, cents=1), Allow)
    assert told(rules) == [("billing.charge", "allow", "ask 2 of a@x, b@x", 1)]


def test_a_file_is_marked_by_its_name():
    rules = policy(PERMIT, **{"policies/new.shadow.cedar": FORBID.replace("@shadow", "")})
    assert isinstance(call(rules, cents=10), Allow)
    assert told(rules) == [("billing.charge", "allow", "deny", 1)]


def test_what_a_rule_in_the_shadow_does_not_concern_is_not_decided_twice():
    rules = policy(PERMIT + FORBID.replace("resource)", 'resource == Function::"billing.refund")'))
    call(rules, cents=10)
    assert (told(rules), shadow(rules).decided) == ([], 0)
    assert policy(PERMIT).shadow is None


@pytest.mark.claim("G1.shadow")
def test_an_error_in_the_shadow_changes_nothing():
    failing = "@shadow forbid(principal, action, resource) when { context.args.absent > 1 };"
    rules = policy(PERMIT + failing)
    assert isinstance(call(rules, cents=1), Allow)
    assert told(rules) == [("billing.charge", "allow", "deny", 1)]
    broken = policy(
        PERMIT, **{"policies/new.shadow.cedar": "permit(principal, action", "policies/b.shadow.cedar": FORBID}
    )
    assert isinstance(call(broken, cents=10), Allow)
    assert told(broken) == [("billing.charge", "allow", "deny", 1)]
    assert "policies/new.shadow.cedar, line 1" in broken.rules.faults[0]
    with pytest.raises(ConfigInvalid):
        policy(PERMIT + "permit(principal, action")


def test_an_id_that_is_taken_is_a_fault_of_the_shadow_alone():
    rules = policy(f'@id("cap") {PERMIT}', **{"policies/z.cedar": FORBID})
    assert isinstance(call(rules, cents=10), Allow)
    assert rules.shadow is None
    assert "a policy with the id 'cap' is at policies/x.cedar, line 1 too" in rules.rules.faults[0]


def test_whatever_is_raised_in_the_shadow_the_decision_stands():
    rules = policy(PERMIT + FORBID)

    class Odd(dict[str, Any]):
        """Arguments that can be looked at once."""

        reads = 0

        def items(self) -> Any:
            self.reads += 1
            if self.reads > 1:
                raise RuntimeError
            return super().items()

    decision = rules.decide(Principal(agent="a", run_id="r", owner=OWNER), "call", CHARGE, Odd(cents=10))
    assert isinstance(decision, Allow)


def test_differences_and_examples_are_bounded():
    rules = policy(PERMIT + FORBID)
    for number in range(DIFFERENCES_MAX + 10):
        call(rules, f"billing.f{number}", cents=10)
    for _ in range(EXAMPLES_MAX + 5):
        call(rules, cents=10, note="x" * 1_000_000)
    assert len(shadow(rules).differences) == DIFFERENCES_MAX
    assert shadow(rules).forgotten == 11
    most = shadow(rules).differences[0]
    assert (most.count, len(most.examples)) == (EXAMPLES_MAX + 5, EXAMPLES_MAX)
    assert all(len(each.arguments["note"]) < 100 for each in most.examples)


def test_counts_outlive_a_grant_and_begin_anew_with_other_rules_in_the_shadow():
    rules = policy(PERMIT + FORBID)
    call(rules, cents=10)
    texts = {"policies/x.cedar": PERMIT + FORBID}
    rules.replace(rules_of({"a": OWNER, "b": OWNER}, texts, [Grant(id="1", agent="b", pattern="*")]))
    call(rules, cents=10)
    call(rules, agent="b", cents=10)
    assert [(each.agent, each.count) for each in shadow(rules).differences] == [("a", 2), ("b", 1)]
    rules.replace(rules_of({"a": OWNER}, {"policies/x.cedar": PERMIT + FORBID.replace("9", "8")}, []))
    assert told(rules) == []
    rules.replace(rules_of({"a": OWNER}, {"policies/x.cedar": PERMIT}, []))
    assert rules.shadow is None


@pytest.mark.claim("G1.shadow")
def test_no_decision_is_another_for_a_shadow_beside_it():
    random = Random(3)
    effects = ("permit", "forbid")
    ends = ("", "when { context.approved }", "when { context.args has cents && context.args.cents > 4 }",
            "when { context.args.absent > 4 }", "unless { context.approved }")  # fmt: skip
    scopes = ("principal", 'principal == Agent::"a"', 'principal == Agent::"b"')

    def rule() -> str:
        scope = f"{random.choice(scopes)}, action, resource"
        return f"{random.choice(effects)}({scope}) {random.choice(ends)};\n"

    for _ in range(100):
        real, tried = [rule() for _ in range(4)], [rule() for _ in range(4)]
        files = {"policies/t.shadow.cedar": "".join(tried)}
        alone, beside = policy("".join(real)), policy("".join(real), **files)
        assert alone.version == beside.version
        for agent in ("a", "b"):
            for cents in (1, 9):
                assert call(alone, agent=agent, cents=cents) == call(beside, agent=agent, cents=cents)


def test_rules_in_the_shadow_are_checked_as_others():
    (found,) = check(
        replace(policy("").rules, rules=rules_of({"a": OWNER}, {"p": FORBID.replace("cents", "cent")}, []).shadows),
        [CHARGE],
    )
    assert (found.rule, found.is_error) == ("cap", True)


def test_an_annotation_that_means_nothing_is_told():
    (found,) = check(rules_of({"a": OWNER}, {"p": f'@quorom("2") {PERMIT}'}, []), [CHARGE])
    assert "@quorom means nothing here" in found.message


@pytest.mark.anyio
async def test_in_a_home_the_shadow_follows_the_files(project, ledger):
    config = Config(agents={"default": Agent(owner=OWNER, tools=("shop.*",))}, worker=Worker(interpreters=1))
    async with opened(project, config=config) as app:
        assert app.rulebook.shadow() is None
        (project / "policies").mkdir()
        file = project / "policies" / "pay.shadow.cedar"
        file.write_text('@id("ask") forbid(principal, action == Action::"call", resource) unless { context.approved };')
        before = app.rulebook.explain("default", "shop.pay", {"cents": 7})
        done = await app.rulebook.reload(by="lead")
        assert done.added == ["ask"]
        assert app.rulebook.explain("default", "shop.pay", {"cents": 7}) == before
        assert isinstance(before.decision, Allow)
        await app.result(await app.start("await shop.pay(cents=7)"))
        await idle(app)
        found = app.rulebook.shadow()
        assert found is not None
        assert [(each.decision, each.would_be, each.count) for each in found.differences] == [
            ("allow", f"ask {OWNER}", 1)
        ]
        file.write_text("permit(")
        await app.rulebook.reload(by="lead")
        assert app.rulebook.shadow() is None
        assert [each.is_error for each in await app.rulebook.check()] == [True]
    assert not isinstance(before.decision, Ask)
