"""Why an act was decided so: the rules that decided it, or the nearest permit with the first condition that fails."""

import json
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import cedarpy

from overwinter.adapters.cedar.deciding import Act, Question, Verdict, Version, asked_for, decided
from overwinter.adapters.cedar.rules import Entity, Rule, fits
from overwinter.adapters.cedar.schema import RESOURCE_TYPES, parents_of
from overwinter.frozen import frozen
from overwinter.policy import Decision

__all__ = ["Explanation", "Nearest", "Side", "explain", "text_of"]

PERMITS_MAX = 1_000
"""Permits of one agent that are compared."""


@frozen
class Nearest:
    """The permit that came nearest."""

    rule: Rule
    failed: str
    """The part of it that does not hold, as Cedar writes it."""
    why: str = ""
    """The error with which it failed, or what it is about instead."""


@frozen
class Side:
    """One principal of the chain."""

    principal: Entity
    verdict: Verdict
    """Without any approval."""
    nearest: Nearest | None = None
    """If no rule decided: what would have to hold. None: no permit is about this principal at all."""


@frozen
class Explanation:
    """A decision with its reasons."""

    decision: Decision
    sides: tuple[Side, ...]


def explain(version: Version, act: Act, now_s: int, *, approved: bool = False) -> Explanation:
    """Return how an act is decided by the rules of a version, and why, for each principal of its chain."""
    decision = decided(version, act, now_s, approved=approved)
    if any(agent not in version.rules.agents for agent in act.principal.chain):
        return Explanation(decision=decision, sides=())
    sides = tuple(_side(version, who, act, now_s, approved=approved) for who in asked_for(act))
    return Explanation(decision=decision, sides=sides)


def text_of(rule: Rule) -> str:
    """Return a rule as Cedar writes it."""
    document = {"staticPolicies": {"p": rule.body}, "templates": {}, "templateLinks": []}
    return cedarpy.policies_from_json_str(json.dumps(document)).strip()


def _side(version: Version, who: Entity, act: Act, now_s: int, *, approved: bool) -> Side:
    question = version.question(who, act, now_s)
    if isinstance(question, Verdict):
        return Side(principal=who, verdict=question)
    verdict = question.asked(approved=approved)
    if verdict.allowed or verdict.rules or verdict.errors:
        return Side(principal=who, verdict=verdict)
    permits = [
        each
        for each in version.slices.concerning(who)
        if each.effect == "permit" and not each.id.startswith("overwinter.")
    ]
    ranked = [_measured(each, question, act, approved=approved) for each in permits[:PERMITS_MAX]]
    best = max(ranked, key=lambda each: each[0], default=None)
    return Side(principal=who, verdict=verdict, nearest=best[1] if best else None)


def _measured(rule: Rule, question: Question, act: Act, *, approved: bool) -> tuple[float, Nearest]:
    """Return how far a permit reaches, and where it fails: by action, resource, then its conditions in order."""
    action = ("Action", "call" if act.action == "see" else act.action)
    what = (RESOURCE_TYPES[act.action], act.resource.name)
    if not fits(rule.body["action"], action, ()):
        return 0, Nearest(rule=rule, failed=_scope("action", rule), why=f"this is {action[1]}")
    if not fits(rule.body["resource"], what, parents_of(act.action, act.resource.name)):
        near = 0.5 if act.resource.service in json.dumps(rule.body["resource"]) else 0.0
        return 1 + near, Nearest(rule=rule, failed=_scope("resource", rule), why=f"this is {act.resource.name}")
    if rule.glob and not fnmatchcase(act.resource.name, rule.glob):
        return 1, Nearest(rule=rule, failed=f"the pattern {rule.glob}", why=f"this is {act.resource.name}")
    conditions = list(_conditions(rule))
    for number, condition in enumerate(conditions):
        holds, error = _holds(condition, question, approved=approved)
        if not holds:
            return 2 + number / len(conditions), Nearest(rule=rule, failed=_condition(condition), why=error)
    return 3, Nearest(rule=rule, failed="", why="all of it holds")


def _conditions(rule: Rule) -> Iterator[Mapping[str, Any]]:
    """Yield what must hold, one by one; a `when` is taken apart at its outer `&&`."""
    for condition in rule.body["conditions"]:
        if condition["kind"] != "when":
            yield condition
            continue
        stack = [condition["body"]]
        while stack:
            body = stack.pop()
            if "&&" in body:
                stack += [body["&&"]["right"], body["&&"]["left"]]
            else:
                yield {"kind": "when", "body": body}


def _holds(condition: Mapping[str, Any], question: Question, *, approved: bool) -> tuple[bool, str]:
    handle = cedarpy.PolicySet.from_json_str(json.dumps(_alone(condition)))
    told = {"approved": approved} if "approved" in question.ready.attributes else {}
    request = {**question.ready.request, "context": {**question.context, **told}}
    answer = cedarpy.is_authorized(request, handle, question.ready.entities, question.ready.schema)
    errors = [str(each) for each in answer.diagnostics.errors]
    return answer.decision is cedarpy.Decision.Allow and not errors, errors[0] if errors else ""


def _alone(condition: Mapping[str, Any]) -> dict[str, Any]:
    anyone = {part: {"op": "All"} for part in ("principal", "action", "resource")}
    body = {"effect": "permit", **anyone, "conditions": [condition]}
    return {"staticPolicies": {"p": body}, "templates": {}, "templateLinks": []}


def _condition(condition: Mapping[str, Any]) -> str:
    text = cedarpy.policies_from_json_str(json.dumps(_alone(condition)))
    found = re.search(r"(when|unless) \{(.*)\}\s*;\s*$", text, re.DOTALL)
    assert found is not None, text
    inner = _tidy(found[2].strip())
    return inner if found[1] == "when" else f"unless {{ {inner} }}"


def _scope(part: str, rule: Rule) -> str:
    scope = re.search(r"\((.*?)\)\s*(when|unless|;)", text_of(rule), re.DOTALL)
    parts = re.split(r", (?=action|resource)", scope[1]) if scope else []
    return next((each for each in parts if each.startswith(part)), part)


def _tidy(text: str) -> str:
    """Drop the brackets that the library writes around names. For people: it looks into quoted texts too."""
    before = ""
    while before != text:
        before, text = text, re.sub(r"(?<!\w)\(((?:context|resource|principal)(?:\.\w+)*)\)", r"\1", text)
    return text
