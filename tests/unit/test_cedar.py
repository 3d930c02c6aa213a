"""Policy by Cedar: what it decides, and each trap of the library by its name."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.adapters.cedar import CedarPolicy, Grant, grants_of_agents, read_policies, rules_of
from overwinter.adapters.cedar.arguments import signature
from overwinter.adapters.cedar.rules import statements
from overwinter.adapters.cedar.slices import Slices
from overwinter.approval import Need
from overwinter.config import Agent
from overwinter.errors import ConfigInvalid
from overwinter.policy import LOOKUPS, Allow, Ask, Deny, Resource
from overwinter.principal import Principal

OWNER = "owner@example.com"
BOSS = "boss@example.com"
ME = Principal(agent="a", run_id="run", owner=OWNER)
CHARGE = Resource(name="billing.charge", stub="async def charge(*, cents: int, note: str | None = ...) -> str: ...")
PERMIT = 'permit(principal == Agent::"a", action == Action::"call", resource);'
AGENTS = {"a": OWNER, "b": OWNER, "c": BOSS}


def policy(text: str = "", *grants: Grant, agents: Mapping[str, str] = AGENTS, now_s: int = 0) -> CedarPolicy:
    return CedarPolicy(rules_of(agents, {"policies/test.cedar": text}, grants), lambda: now_s)


def toml(**agent: Any) -> CedarPolicy:
    return policy("", *grants_of_agents({"a": Agent(owner=OWNER, **agent)}))


def call(rules: CedarPolicy, resource: Resource = CHARGE, *, approved: bool = False, **arguments: Any) -> Any:
    return rules.decide(ME, "call", resource, arguments, approved=approved)


def taking(kind: str) -> Resource:
    return Resource(name="shop.act", stub=f"async def act(*, x: {kind}) -> None: ...")


# --- What it decides --------------------------------------------------------------------------------------------------


@pytest.mark.claim("G1.cedar.no_rule")
def test_no_rule_means_no():
    assert isinstance(call(policy(), cents=1), Deny)
    assert "has no grant for billing.charge" in call(policy(), cents=1).reason


def test_a_rule_speaks_of_typed_arguments():
    rules = policy(PERMIT.replace(";", ' when { context.args has "cents" && context.args.cents < 1000 };'))
    assert call(rules, cents=999) == Allow(("policies/test.cedar:1",))
    assert isinstance(call(rules, cents=1000), Deny)


def test_a_forbid_wins_and_is_named_with_its_place_or_its_own_words():
    rules = policy(PERMIT + '\n@id("no")\nforbid(principal, action, resource);')
    assert call(rules).policies == ("no",)
    assert "policy 'no' (policies/test.cedar, line 2) forbids it" in call(rules).reason
    rules = policy(PERMIT + '@reason("only on weekdays") forbid(principal, action, resource);')
    assert call(rules).reason == "agent 'a' may not call billing.charge: only on weekdays"


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*", "x.y", None),
        ("billing.*", "billing.charge", "billings.charge"),
        ("billing.charge", "billing.charge", "billing.charges"),
        ("*.find", "shop.find", "shop.finds"),
        ("shop.*_all", "shop.drop_all", "shop.drop_al"),
        ("shop.dro?", "shop.drop", "shop.dropp"),
        ("shop.[df]*", "shop.drop", "shop.charge"),
        ("s*p.d*p", "shop.drop", "shop.drops"),
    ],
)
def test_patterns_of_the_configuration_become_permits(pattern, yes, no):
    rules = toml(tools=(pattern,))
    assert call(rules, Resource(name=yes)) == Allow((f"agents.a.tools: {pattern}",))
    assert isinstance(rules.decide(ME, "see", Resource(name=yes), {}), Allow)
    if no:
        assert isinstance(call(rules, Resource(name=no)), Deny)
        assert isinstance(rules.decide(ME, "see", Resource(name=no), {}), Deny)


def test_a_pattern_is_never_part_of_a_rule_s_text():
    rules = toml(tools=('*"); permit(principal, action, resource); //',))
    assert isinstance(call(rules), Deny)


@pytest.mark.claim("G7.cedar.asked")
def test_what_needs_approval_is_asked_of_the_owner_and_allowed_with_it():
    rules = toml(asks=("billing.*",))
    reason = f"billing.charge needs the approval of {OWNER}"
    assert call(rules, cents=1) == Ask((Need((OWNER,)),), reason, ("agents.a.asks: billing.*",))
    assert call(rules, cents=1, approved=True) == Allow(("agents.a.asks: billing.*",))
    assert isinstance(rules.decide(ME, "see", CHARGE, {}), Allow)
    assert isinstance(call(rules, Resource(name="shop.act"), approved=True), Deny)


def test_the_approver_is_the_one_whom_the_concerned_rule_names():
    lifted = '@approver("boss@example.com") forbid(principal, action == Action::"call", resource)'
    rules = policy(f"{PERMIT} {lifted} when {{ context.args.cents > 9 }} unless {{ context.approved }};")
    assert call(rules, cents=10).approver == BOSS
    assert isinstance(call(rules, cents=9), Allow)
    granted = policy("", Grant(id="1", agent="a", pattern="*", is_asked=True, approver=BOSS))
    assert call(granted).approver == BOSS


LIFTED = 'forbid(principal, action == Action::"call", resource) unless { context.approved };'
ASKED = PERMIT.replace(";", " when { context.approved };")


def test_rules_that_each_ask_somebody_else_ask_all_of_them():
    rules = policy(f'{PERMIT} @approver("x@e") @expires("2h") {LIFTED} @approver("y@e") @expires("30m") {LIFTED}')
    asked = call(rules)
    assert (asked.needs, asked.lasts_s) == ((Need(("x@e",)), Need(("y@e",))), 1_800)
    assert asked.reason == "billing.charge needs the approval of x@e and y@e"
    assert isinstance(call(rules, approved=True), Allow)


def test_a_permit_and_a_forbid_that_ask_both_ask():
    assert call(policy(f'{ASKED} @approver("x@e") {LIFTED}')).needs == (Need((OWNER,)), Need(("x@e",)))
    assert call(policy(f'{PERMIT} {ASKED} @approver("x@e") {LIFTED}')).needs == (Need(("x@e",)),)


def test_a_rule_asks_as_many_people_as_it_says():
    rules = policy(f'@approver("x@e, y@e,z@e") @quorum("2") @expires("4h") {ASKED}')
    assert call(rules) == Ask((Need(("x@e", "y@e", "z@e"), 2),), call(rules).reason, call(rules).policies, 14_400)
    assert call(rules).approver == "2 of x@e, y@e, z@e"


def test_an_owner_is_one_person_whatever_stands_in_the_name():
    rules = policy(ASKED, agents={"a": "Doe, Jane"})
    assert call(rules).needs == (Need(("Doe, Jane",)),)


@pytest.mark.parametrize(
    "words",
    [
        '@quorum("2")', '@quorum("0") @approver("x@e")', '@quorum("3") @approver("x@e, y@e, x@e")', "@quorum",
        '@quorum("two") @approver("x, y")', '@expires("soon")', '@expires("0h")', '@expires("4 h")', "@expires",
    ],
)  # fmt: skip
def test_what_could_never_be_answered_is_refused_when_it_is_read(words):
    with pytest.raises(ConfigInvalid, match=r"policies/test\.cedar, line 1: @"):
        policy(f"{words} {ASKED}")


def test_approval_does_not_lift_what_is_forbidden():
    rules = policy(PERMIT + 'forbid(principal, action == Action::"call", resource) when { context.args.cents > 9 };')
    assert isinstance(call(rules, cents=10, approved=True), Deny)


def test_a_grant_ends_at_its_second():
    grant = Grant(id="7", agent="a", pattern="billing.*", expires_s=100)
    assert call(policy("", grant, now_s=99)) == Allow(("7",))
    assert isinstance(call(policy("", grant, now_s=100)), Deny)


def test_what_only_reads_may_be_granted_by_itself():
    rules = toml(reads=("*",))
    assert isinstance(call(rules, replace(CHARGE, effect="read")), Allow)
    assert isinstance(call(rules, CHARGE), Deny)


def test_whoever_exists_may_look_up_and_go_on_until_a_rule_forbids_it():
    for name in LOOKUPS:
        assert isinstance(call(policy(), Resource(name=name, effect="read")), Allow)
    assert isinstance(policy().decide(ME, "wake", Resource(name="run"), {}), Allow)
    stopped = policy('forbid(principal == Agent::"a", action in [Action::"wake", Action::"call"], resource);')
    assert isinstance(stopped.decide(ME, "wake", Resource(name="run"), {}), Deny)
    assert isinstance(call(stopped, Resource(name="tools.search", effect="read")), Deny)


WAKING = [
    "permit(principal, action, resource);",
    'forbid(principal, action == Action::"wake", resource is Run);',
    'forbid(principal, action == Action::"wake", resource == Run::"step 1");',
    'forbid(principal, action == Action::"wake", resource is Run in Run::"step 2");',
    'forbid(principal == Agent::"b", action, resource == Run::"step 3");',
    'forbid(principal, action in [Action::"wake", Action::"call"], resource) when { resource.name like "*4" };',
    'forbid(principal, action, resource) when { resource == Run::"step 5" };',
    'forbid(principal, action, resource) unless { principal.name == "a" };',
    'forbid(principal, action == Action::"call", resource == Function::"x.y");',
    'forbid(principal, action == Action::"wake", resource) when { context.run == "run" };',
    'forbid(principal, action, resource) when { Run::"step 6" has name };',
    'forbid(principal, action, resource) when { {"x": Run::"step 0"}.x has name };',
]


@given(
    st.lists(st.sampled_from(WAKING), unique=True, max_size=2),
    st.permutations([(agent, name) for agent in "ab" for name in (*(f"step {n}" for n in range(7)), '"', "")]),
)
def test_one_decision_is_good_for_all_runs_only_where_no_rule_looks_at_them(texts, acts):
    rules = policy("\n".join(texts))
    for agent, name in acts:
        act = (replace(ME, agent=agent), "wake", Resource(name=name, effect="wait"), {})
        assert rules.decide(*act) == policy("\n".join(texts)).decide(*act)


def test_who_was_asked_may_approve_and_nobody_else():
    asked = replace(CHARGE, approver=BOSS)
    boss, owner = (replace(ME, person=each) for each in (BOSS, OWNER))
    assert isinstance(policy().decide(boss, "approve", asked, {"cents": 1}), Allow)
    assert isinstance(policy().decide(owner, "approve", asked, {"cents": 1}), Deny)
    four_eyes = policy("forbid(principal is Person, action, resource) when { context.owner == principal.name };")
    assert isinstance(four_eyes.decide(owner, "approve", replace(asked, approver=OWNER), {}), Deny)


def test_a_model_is_called_only_by_a_grant():
    assert isinstance(policy().decide(ME, "think", Resource(name="gpt-5"), {}), Deny)
    rules = policy("", Grant(id="m", agent="a", pattern="gpt-*", action="think"))
    assert isinstance(rules.decide(ME, "think", Resource(name="gpt-5"), {}), Allow)
    assert isinstance(call(rules, Resource(name="gpt-5")), Deny)


def test_a_changed_rule_decides_from_the_next_call_on():
    rules = toml(tools=("*",))
    before = rules.rules.digest
    assert isinstance(call(rules), Allow)
    rules.replace(rules_of(AGENTS, {}, []))
    assert isinstance(call(rules), Deny)
    assert isinstance(rules.decide(ME, "see", CHARGE, {}), Deny)
    assert rules.rules.digest != before


def test_a_function_is_shown_only_if_some_call_of_it_might_be_allowed():
    def sees(text: str) -> bool:
        return isinstance(policy(text).decide(ME, "see", CHARGE, {}), Allow)

    assert sees(PERMIT.replace(";", " when { context.args.cents < 10 };"))
    assert sees(PERMIT + "forbid(principal, action, resource) when { context.args.cents > 9 };")
    assert not sees(PERMIT + 'forbid(principal, action, resource) when { resource.effect == "write" };')
    assert not sees(PERMIT.replace(";", ' when { resource.effect == "read" && context.args.cents < 10 };'))
    assert not sees("forbid(principal, action, resource) when { context.args.cents > 9 };")


def test_a_slice_decides_as_the_whole_set_does():
    random = Random(7)
    principals = ["principal", 'principal == Agent::"a"', 'principal == Agent::"b"', "principal is Agent"]
    principals += ["principal is Person", 'principal in Agent::"a"', 'principal is Agent in Agent::"b"']
    actions = ["action", 'action == Action::"call"', 'action in [Action::"call", Action::"wake"]']
    resources = ["resource", 'resource == Function::"shop.act"', 'resource in Service::"shop"', "resource is Function"]
    resources += ['resource in Service::"billing"', 'resource is Function in Service::"shop"', "resource is Run"]
    for _ in range(300):
        scopes = [", ".join(map(random.choice, (principals, actions, resources))) for _ in range(6)]
        rules = rules_of(
            AGENTS, {"x": " ".join(f"{random.choice(['permit', 'forbid'])}({each});" for each in scopes)}, []
        )
        whole = Slices(rules.rules).whole()
        asked = CedarPolicy(rules, lambda: 0)
        for name in ("shop.act", "billing.charge"):
            ready = asked.present.prepared(("Agent", "a"), "call", Resource(name=name))
            request = {**ready.request, "context": {"args": {}}}
            told = [
                cedarpy.is_authorized(request, handle, ready.entities, ready.schema)
                for handle in (whole, ready.slice.handle)
            ]
            assert {each.decision for each in told} in ({cedarpy.Decision.Allow}, {cedarpy.Decision.Deny})
            assert set(told[0].diagnostics.reasons) == set(told[1].diagnostics.reasons)


def test_the_first_decision_about_a_function_looks_at_no_rule_of_another():
    """Ten thousand rules, each about a function of its own, cost it 19 ms when all of them were looked at."""
    texts = [f'forbid(principal, action, resource == Function::"shop.f{number}");' for number in range(300)]
    texts += [f'forbid(principal in Agent::"a", action, resource in Service::"s{number}");' for number in range(300)]
    rules = rules_of(AGENTS, {"x": "\n".join([PERMIT, *texts])}, [Grant(id="g", agent="b", pattern="shop.*")])
    slices = Slices(rules.rules)
    looked_at: list[str] = []

    class Watched(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            looked_at.append(key)
            return super().__getitem__(key)

    for rule in rules.rules:
        object.__setattr__(rule, "body", Watched(rule.body))
    assert [each.effect for each in slices.of(("Agent", "a"), "call", "shop.f7").rules] == ["permit", "forbid"]
    assert [each.effect for each in slices.of(("Agent", "b"), "call", "s7.act").rules] == []
    assert [each.effect for each in slices.of(("Agent", "a"), "call", "s7.act").rules] == ["permit", "forbid"]
    assert len(looked_at) < 100
    assert len(slices.concerning(("Agent", "a"))) == 3 + len(LOOKUPS) + 599


# --- Traps of cedarpy 4.12, each by its name --------------------------------------------------------------------------


@pytest.mark.claim("G1.cedar.error")
def test_trap_an_erroring_forbid_is_skipped_and_the_answer_is_allow():
    rules = policy(PERMIT + " forbid(principal, action, resource) when { context.args.absent > 1 };")
    decision = call(rules, cents=1)
    assert isinstance(decision, Deny)
    assert decision.errors


@pytest.mark.claim("G1.cedar.error")
def test_trap_a_policy_that_validates_overflows():
    text = PERMIT + " forbid(principal, action, resource) when { context.args.cents + 1 > 10 };"
    assert isinstance(call(policy(text), cents=2**63 - 1), Deny)
    assert call(policy(text), cents=2**63 - 1).errors
    assert isinstance(call(policy(text), cents=3), Allow)


def test_trap_an_error_in_a_policy_denies_also_when_asked_and_when_approved():
    text = (
        PERMIT + " forbid(principal, action, resource) when { context.args.cents + 1 > 10 } unless {context.approved};"
    )
    assert isinstance(call(policy(text), cents=2**63 - 1), Deny)
    assert isinstance(call(policy(text), cents=11), Ask)
    late = PERMIT + " forbid(principal, action, resource) unless { context.approved && context.args.absent > 1 };"
    assert isinstance(call(policy(late), cents=11), Deny)
    assert isinstance(call(policy(late), cents=11, approved=True), Deny)


def test_trap_every_decision_is_true():
    assert all(cedarpy.Decision)
    assert isinstance(call(policy("forbid(principal, action, resource);")), Deny)


def test_trap_no_decision_is_a_no():
    rules = policy(PERMIT.replace(";", " when { context.args has x };"))
    for value in ("\ud800", float("nan"), float("inf"), 2**63, -(2**63) - 1):
        kind = "str" if isinstance(value, str) else "float" if isinstance(value, float) else "int"
        decision = call(rules, taking(kind), x=value)
        assert isinstance(decision, Deny)
        assert decision.errors


def test_trap_null_is_left_out_and_not_told():
    rules = policy(PERMIT.replace(";", " when { !(context.args has note) };"))
    assert isinstance(call(rules, cents=1, note=None), Allow)
    assert isinstance(call(rules, cents=1, note=""), Deny)


def test_trap_without_a_schema_wrong_types_pass():
    rules = policy(
        PERMIT + "forbid(principal, action, resource) when { context.args has cents && context.args.cents == 5 };"
    )
    for value in ("5", True, 5.0, [5], {"cents": 5}, b"5"):
        assert call(rules, cents=value).errors
    unknown = call(rules, Resource(name="billing.charge"), cents=5)
    assert "there is no schema" in unknown.errors[0]


def test_trap_an_argument_that_cannot_be_told_is_not_as_good_as_none():
    rules = policy(PERMIT + "forbid(principal, action, resource) when { context.args has x };")
    for kind, value in (
        ("dict[str, Any]", {"a": 1}),
        ("Any", 1),
        ("bytes", b"x"),
        ("int | str", 1),
        ("list[list[Any]]", [[1]]),
    ):
        assert call(rules, taking(kind), x=value).errors
    assert isinstance(call(rules, taking("dict[str, Any]"), x=None), Allow)


def test_trap_what_no_rule_mentions_is_not_told_and_may_be_anything():
    endless: list[Any] = []
    endless.append(endless)
    rules = policy(PERMIT + "forbid(principal, action, resource) when { context.args.cents > 9 };")
    for note in (None, 2**80, float("nan"), {"__entity": {"type": "Agent", "id": "b"}}, "x" * 2**20, endless, object()):
        assert isinstance(call(rules, cents=1, note=note), Allow)


@pytest.mark.parametrize(
    "whole", ["context.args == {}", "[context].contains(context)", '(if true then context else context).args has "x"']
)
def test_trap_a_rule_that_looks_at_all_arguments_is_told_all_or_denies(whole):
    rules = policy(f"{PERMIT} forbid(principal, action, resource) when {{ {whole} }};")
    assert isinstance(call(rules, taking("int"), x=1), Allow) == (whole == "context.args == {}")
    assert call(rules, taking("bytes"), x=b"1").errors
    assert call(rules, Resource(name="shop.act"), x=1).errors


@pytest.mark.parametrize("kind", ["str", "int", "dict[str, Any]", "list[str]", "Any", "Who"])
def test_trap_arguments_cannot_forge_entities_or_addresses(kind):
    stub = f"class Who(TypedDict):\n    type: str\n    id: str\nasync def act(*, x: {kind}) -> None: ..."
    rules = policy(
        PERMIT + 'forbid(principal, action, resource) when { context.args has x && context.args.x != Agent::"b" };'
    )
    for value in ({"__entity": {"type": "Agent", "id": "b"}}, {"__extn": {"fn": "ip", "arg": "::1"}}):
        for forged in (value, [value]):
            assert isinstance(call(rules, Resource(name="shop.act", stub=stub), x=forged), Deny)


def test_trap_a_parameter_named_like_an_escape_is_never_told():
    stub = "async def act(*, __entity: str, __extn: int) -> None: ..."
    rules = policy(PERMIT + "forbid(principal, action, resource) when { context.args == {} };")
    assert call(rules, Resource(name="shop.act", stub=stub), __entity="x").errors


def test_trap_large_values_are_capped_before_they_are_slow():
    rules = policy(PERMIT.replace(";", " when { context.args has x };"))
    assert isinstance(call(rules, taking("str"), x="x" * 16_384), Allow)
    assert isinstance(call(rules, taking("str"), x="x" * 16_385), Deny)
    assert isinstance(call(rules, taking("list[int]"), x=list(range(256))), Allow)
    assert isinstance(call(rules, taking("list[int]"), x=list(range(257))), Deny)


def test_trap_the_library_raises_what_it_likes():
    rules = policy(PERMIT.replace(";", " when { context.run == context.actor };"))
    odd: Any = replace(ME, run_id=object())  # pyright: ignore[reportArgumentType] - a bug of a caller
    decision = rules.decide(odd, "call", CHARGE, {})
    assert isinstance(decision, Deny)
    assert "TypeError" in decision.errors[0]


@pytest.mark.parametrize("name", ['shop.a"c', "shop.a\\", "shop.\n", "", "x" * 513, "\ud800.a"])
def test_trap_a_name_that_cannot_be_quoted_is_denied(name):
    for action in ("call", "see", "wake", "think"):
        assert isinstance(policy(PERMIT).decide(ME, action, Resource(name=name), {}), Deny)
    assert isinstance(policy().decide(replace(ME, person=name), "approve", replace(CHARGE, approver=name), {}), Deny)


def test_trap_the_schema_is_not_applied_again_to_parsed_entities():
    wrong: Any = replace(CHARGE, effect=3)  # pyright: ignore[reportArgumentType] - a bug of a caller
    assert call(policy(PERMIT), wrong).errors


def test_trap_reasons_are_positional_and_unordered():
    texts = {f"{file}.cedar": f"{PERMIT}{PERMIT}\n" + PERMIT * 10 for file in "ba"}
    decision = call(CedarPolicy(rules_of(AGENTS, texts, []), lambda: 0))
    assert decision.policies[:3] == ("b.cedar:1", "b.cedar:1.2", "b.cedar:2")
    assert decision.policies[-1] == "a.cedar:2.10"
    assert len(set(decision.policies)) == 24


def test_trap_an_id_need_not_be_unique():
    with pytest.raises(ConfigInvalid, match=r"test\.cedar, line 2: a policy with the id 'x' is at .* line 1 too"):
        policy(f'@id("x") {PERMIT}\n@id("x") {PERMIT}')


def test_trap_a_template_permits_nothing():
    with pytest.raises(ConfigInvalid, match="line 3: a template permits nothing by itself"):
        policy("// who\n\npermit(principal == ?principal, action, resource);")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('forbid(principal == Robot::"a", action, resource);', "there is no type Robot"),
        ('forbid(principal, action == Action::"cal", resource);', "there is no action 'cal'"),
        ('forbid(principal, action in [Action::"call", Action::"do"], resource);', "there is no action 'do'"),
        ('forbid(principal, action, resource in Server::"x");', "there is no type Server"),
        ("forbid(principal is Agents, action, resource);", "there is no type Agents"),
        ("forbid(principal, action, resource) when { context. };", "line 1: unexpected token"),
        (f"{PERMIT}\n\nforbid(principal, action, resource", "line 3: "),
        ('forbid(principal, action, resource) when { "', "line 1: "),
    ],
)
def test_trap_a_forbid_that_can_never_hold_is_refused_when_it_is_read(text, words):
    with pytest.raises(ConfigInvalid, match=words):
        policy(text)


@pytest.mark.parametrize("brackets", ["()", "[]", "{}"])
def test_trap_a_deeply_nested_policy_ends_the_process_without_an_error(brackets):
    deep = brackets[0] * 5_000 + "true" + brackets[1] * 5_000
    with pytest.raises(ConfigInvalid, match="nested deeper than 64"):
        policy(f"permit(principal, action, resource) when {{ {deep} }};")
    with pytest.raises(ConfigInvalid, match="longer than 16384 characters"):
        policy(f"permit(principal, action, resource) when {{ {'if true then true else ' * 9_000} true }};")


def test_trap_to_partial_evaluation_an_unknown_agent_is_a_maybe_for_everything():
    ghost = replace(ME, agent="ghost")
    rules = policy("permit(principal, action, resource) when { context.args.cents < 10 };")
    assert rules.decide(ghost, "see", CHARGE, {}) == Deny("there is no agent 'ghost' in overwinter.toml")


def test_trap_partial_evaluation_says_allow_beside_an_erroring_forbid():
    rules = policy(PERMIT + "forbid(principal, action, resource) when { resource.absent == 1 };")
    assert isinstance(rules.decide(ME, "see", CHARGE, {}), Deny)


def test_trap_a_child_in_its_parent_would_have_the_parent_s_permits():
    rules = policy('permit(principal in Agent::"b", action == Action::"call", resource);')
    assert isinstance(rules.decide(replace(ME, parents=("b",)), "call", CHARGE, {}), Deny)
    assert isinstance(rules.decide(replace(ME, agent="b"), "call", CHARGE, {}), Allow)


# --- Arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "condition"),
    [
        ("float", 9.99, 'context.args.x == decimal("9.99")'),
        ("float", 10, 'context.args.x.greaterThan(decimal("9.9999"))'),
        ("Decimal", Decimal("0.1000"), 'context.args.x == decimal("0.1")'),
        ("int | None", 5, "context.args.x == 5"),
        ("Literal['card', 'cash']", "card", 'context.args.x == "card"'),
        ("list[str]", ["a", "b", "a"], 'context.args.x == ["b", "a"]'),
        ("datetime", datetime(2030, 1, 2, tzinfo=UTC), 'context.args.x == datetime("2030-01-02")'),
        ("timedelta", timedelta(hours=1), 'context.args.x == duration("1h")'),
        ("bool", True, "context.args.x"),
    ],
)
def test_a_value_is_told_in_cedar_s_own_type(kind, value, condition):
    rules = policy(PERMIT.replace(";", f" when {{ {condition} }};"))
    assert isinstance(call(rules, taking(kind), x=value), Allow)


def test_a_number_is_told_exactly_or_the_call_is_denied():
    rules = policy(PERMIT.replace(";", ' when { context.args.x.lessThanOrEqual(decimal("100.0")) };'))
    assert isinstance(call(rules, taking("float"), x=100.0), Allow)
    assert "round it" in call(rules, taking("float"), x=100.00001).errors[0]
    assert call(rules, taking("Decimal"), x=Decimal("1e400")).errors
    assert call(rules, taking("Decimal"), x=Decimal("sNaN")).errors


def test_a_rule_looks_into_a_record_whose_type_is_known():
    stub = "class Person(TypedDict):\n    country: str\n    city: NotRequired[str]\nasync def act(*, x: Person) -> None: ..."
    resource = Resource(name="shop.act", stub=stub)
    rules = policy(PERMIT.replace(";", ' when { context.args.x.country == "NO" };'))
    assert isinstance(call(rules, resource, x={"country": "NO"}), Allow)
    assert isinstance(call(rules, resource, x={"country": "SE"}), Deny)
    assert call(rules, resource, x={"country": "NO", "hidden": 1}).errors
    assert call(rules, resource, x={"city": "Oslo"}).errors


@given(st.text())
def test_a_stub_that_is_none_has_no_signature(text):
    assert signature(f"!{text}") is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes() | st.timedeltas()
    | st.decimals(),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text() | st.sampled_from(["__entity", "__extn", "type", "id", "fn", "arg"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
KINDS = [
    "int",
    "str",
    "float",
    "bool",
    "Decimal",
    "datetime",
    "timedelta",
    "list[str]",
    "set[int]",
    "Any",
    "Literal['a']",
]


@given(st.sampled_from(KINDS), VALUES)
def test_no_argument_makes_a_decision_raise_or_slips_past_a_forbid(kind, value):
    rules = policy(PERMIT + "forbid(principal, action, resource) when { context.args has x };")
    assert isinstance(call(rules, taking(kind), x=value), Allow) == (value is None)


# --- Reading ----------------------------------------------------------------------------------------------------------


def test_statements_are_found_with_their_lines_whatever_stands_in_texts_and_comments():
    text = '// a; b\n@id("x;\\"y")\npermit(principal, action, resource)\nwhen { resource.name == "//;" }; // c;\n\npermit(;'
    assert [each.line for each in statements(text)] == [2, 6]


def test_policies_are_read_from_their_directory(tmp_path):
    assert read_policies(tmp_path / "policies") == {}
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/b.cedar").write_text(PERMIT)
    (tmp_path / "policies/a.cedar").write_text("")
    (tmp_path / "policies/notes.txt").write_text("no")
    assert list(read_policies(tmp_path / "policies")) == ["policies/a.cedar", "policies/b.cedar"]
    (tmp_path / "policies/c.cedar").write_bytes(b"\xff")
    with pytest.raises(ConfigInvalid, match=r"c\.cedar cannot be read"):
        read_policies(tmp_path / "policies")


def test_the_version_is_told_without_cedar():
    code = "import sys, overwinter.__main__ as m\ntry: m.main()\nexcept SystemExit: pass\nassert 'cedarpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, "--version"], check=True, stdout=subprocess.DEVNULL)
