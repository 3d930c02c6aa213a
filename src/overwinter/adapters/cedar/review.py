"""What is wrong with rules before they decide anything: types that do not fit, and rules that can never hold."""

import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import cedarpy

from overwinter.adapters.cedar.arguments import cedar_type, required, signature
from overwinter.adapters.cedar.explain import text_of
from overwinter.adapters.cedar.rules import Rule, Rules, fits
from overwinter.adapters.cedar.schema import entities, parents_of, schema_text
from overwinter.frozen import frozen
from overwinter.policy import Resource

__all__ = ["RuleFinding", "check"]

SCHEMAS_MAX = 200
"""Different types of its arguments by which one rule is checked."""
ANNOTATIONS = frozenset({"id", "reason", "approver", "quorum", "expires", "shadow"})
PAIRS_MAX = 2_000
"""Agents times functions for which it is tried whether a rule can hold."""


@frozen
class RuleFinding:
    """Something wrong with a rule."""

    place: str
    """File and line, or where the grant was made."""
    rule: str
    message: str
    is_error: bool
    """False: it is valid, and can never hold."""


def check(rules: Rules, functions: Sequence[Resource]) -> list[RuleFinding]:
    """Return what is wrong with the rules of a home, in their order.

    Each rule is validated strictly by Cedar against the types of every function in its scope: an argument that one of
    them lacks must be guarded by `context.args has NAME`. Without `functions` nothing is said of arguments and scopes. A
    condition that is false only together with what stands before it is not found.
    """
    written = [each for each in rules.rules if not each.id.startswith("overwinter.")]
    findings = [*_invalid([each for each in written if each.names == frozenset()], schema_text({}), "")]
    broken = {each.rule for each in findings}
    for rule in written:
        if rule.names != frozenset():
            findings += _by_arguments(rule, functions)
            broken |= {each.rule for each in findings}
        if strange := sorted(rule.annotations.keys() - ANNOTATIONS):
            message = f"@{strange[0]} means nothing here; there are @{', @'.join(sorted(ANNOTATIONS))}"
            findings.append(RuleFinding(place=rule.place, rule=rule.id, message=message, is_error=False))
        if functions and rule.id not in broken and (why := _never(rule, rules.agents, functions)):
            findings.append(RuleFinding(place=rule.place, rule=rule.id, message=why, is_error=False))
    order = {each.id: number for number, each in enumerate(rules.rules)}
    return sorted(findings, key=lambda each: (order[each.rule], each.message))


def _invalid(rules: Sequence[Rule], schema: str, where: str) -> Iterator[RuleFinding]:
    """Yield what Cedar's validator says of rules, each at its place; the library names them by position."""
    answer = cedarpy.validate_policies("\n".join(map(text_of, rules)), schema)
    for each in answer.errors:
        position = str(each.policy_id or "").removeprefix("policy")
        rule = rules[int(position)] if position.isdecimal() and int(position) < len(rules) else rules[0]
        message = str(each.error).removeprefix(f"for policy `{each.policy_id}`, ") + where
        yield RuleFinding(place=rule.place, rule=rule.id, message=message, is_error=True)


def _by_arguments(rule: Rule, functions: Sequence[Resource]) -> Iterator[RuleFinding]:
    """Yield what is wrong with a rule that speaks of arguments: once for each kind of mistake."""
    schemas: dict[str, str] = {}
    for function in _in_scope(rule, functions):
        kinds = signature(function.stub)
        if kinds is None:
            message = f"the types of {function.name} are not known, so its calls are denied: it speaks of arguments"
            yield RuleFinding(place=rule.place, rule=rule.id, message=message, is_error=True)
            continue
        texts = {name: cedar_type(kind) for name, kind in kinds.items() if rule.names is None or name in rule.names}
        if opaque := sorted(name for name, text in texts.items() if not text):
            message = f"{function.name} takes {opaque[0]} of a type that Cedar lacks: calls that give it are denied"
            yield RuleFinding(place=rule.place, rule=rule.id, message=message, is_error=True)
        told = {name: text for name, text in texts.items() if text}
        schemas.setdefault(schema_text(told, None, required(function.stub)), function.name)
    said: set[str] = set()
    for text, name in [*schemas.items()][:SCHEMAS_MAX]:
        for finding in _invalid([rule], text, f", for {name}"):
            plain = finding.message.split(", for ")[0]
            if plain not in said:
                said.add(plain)
                yield finding


def _in_scope(rule: Rule, functions: Sequence[Resource]) -> list[Resource]:
    return [
        each
        for each in functions
        if fits(rule.body["action"], ("Action", "call"), ())
        and fits(rule.body["resource"], ("Function", each.name), parents_of("call", each.name))
        and (not rule.glob or fnmatchcase(each.name, rule.glob))
    ]


def _never(rule: Rule, agents: Mapping[str, str], functions: Sequence[Resource]) -> str:
    """Say why a rule can never hold; "" if it may. Only rules of calls are looked at."""
    scope = rule.body["principal"]
    named = scope.get("entity")
    if named and named["type"] == "Agent" and named["id"] not in agents:
        return f"there is no agent {named['id']!r}: it can never hold"
    if not fits(rule.body["action"], ("Action", "call"), ()):
        return ""
    who = [("Agent", name) for name in agents if fits(scope, ("Agent", name), ())]
    if not who:
        return ""
    found = _in_scope(rule, functions)
    if not found:
        others = [*({"op": "is", "entity_type": kind} for kind in ("Run", "Model"))]
        is_open = rule.body["resource"]["op"] == "All" or rule.body["resource"] in others
        return "" if is_open else "no function is in its scope: it can never hold"
    if not rule.body["conditions"] or len(who) * len(found) > PAIRS_MAX:
        return ""
    is_possible = any(_may_hold(rule, each, agents[each[1]], function) for each in who for function in found)
    return "" if is_possible else "its conditions are false for every agent and function in its scope"


def _may_hold(rule: Rule, who: tuple[str, str], owner: str, function: Resource) -> bool:
    """Return whether a rule holds for some arguments, or fails: by partial evaluation, a preview."""
    body = {**rule.body, "resource": {"op": "All"}} if rule.glob else rule.body
    document = {"staticPolicies": {"p": body}, "templates": {}, "templateLinks": []}
    request = {
        "principal": f'{who[0]}::"{who[1]}"',
        "action": 'Action::"call"',
        "resource": f'Function::"{function.name}"',
    }
    handle = cedarpy.PolicySet.from_json_str(json.dumps(document))
    answer = cedarpy.is_authorized_partial(request, handle, entities(who, owner, "call", function))
    said = answer.diagnostics
    return bool(said.reasons or said.nontrivial_residuals or said.errors)
