"""Decisions by Cedar. Doubt is a no: an error anywhere, a request that cannot be built, a name that is no name.

The answer of Cedar alone is not enough. A `forbid` that fails is skipped by it and the answer is Allow, so any error in
the diagnostics denies. An agent that is `in` another would have both their permits, so nobody is in anybody: each agent
of the chain is asked for by itself, and all must be allowed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from typing import Any

import cedarpy

from overwinter.adapters.cedar.arguments import Kind, Untold, signature, told
from overwinter.adapters.cedar.asking import lasts_s, need
from overwinter.adapters.cedar.rules import Entity, Rule, Rules, fits
from overwinter.adapters.cedar.schema import RESOURCE_TYPES, WITH_ARGUMENTS, context_of, entities, schema
from overwinter.adapters.cedar.slices import Slice, Slices
from overwinter.approval import merged, phrase
from overwinter.frozen import frozen
from overwinter.policy import Action, Allow, Ask, Decision, Deny, Resource
from overwinter.principal import Principal
from overwinter.values import Value

__all__ = ["REMEMBERED_MAX", "Act", "Question", "Verdict", "Version", "answer_of", "asked_for", "decided"]

REMEMBERED_MAX = 20_000
"""Signatures, entities and sights kept of one version, each."""
NAME_LENGTH_MAX = 512
CHAIN_MAX = 64


@frozen
class Act:
    """What somebody is about to do."""

    principal: Principal
    action: Action
    resource: Resource
    arguments: Mapping[str, Value] = field(default_factory=dict[str, Value])


@frozen
class Verdict:
    """What Cedar says of one principal."""

    allowed: bool
    rules: tuple[Rule, ...] = ()
    """The permits that hold, or the forbids."""
    errors: tuple[str, ...] = ()


@frozen
class Question:
    """One principal, action and resource, ready to be asked about with or without approval."""

    ready: "Prepared"
    context: Mapping[str, Any]

    def asked(self, *, approved: bool) -> Verdict:
        """Return the verdict. It is Allow only without one error."""
        told = {"approved": approved} if "approved" in self.ready.attributes else {}
        request = {**self.ready.request, "context": {**self.context, **told}}
        try:
            answer = cedarpy.is_authorized(request, self.ready.slice.handle, self.ready.entities, self.ready.schema)
            errors = tuple(map(str, answer.diagnostics.errors))
            rules = self.ready.slice.named(answer.diagnostics.reasons)
        except Exception as error:  # noqa: BLE001 - doubt means deny, and the library raises what it likes
            return Verdict(allowed=False, errors=(repr(error),))
        decision = answer.decision
        if decision is cedarpy.Decision.NoDecision and not errors:
            errors = ("Cedar came to no decision",)
        # `bool(Decision.Deny)` is True: only the identity of Allow says yes.
        return Verdict(allowed=decision is cedarpy.Decision.Allow and not errors, rules=rules, errors=errors)


@frozen
class Prepared:
    """What does not change from one act to the next, for one principal, action and resource."""

    slice: Slice
    kinds: Mapping[str, Kind] | None
    """The function's parameters, if its rules speak of any and they are known."""
    entities: cedarpy.Entities
    schema: cedarpy.Schema
    request: Mapping[str, Any]
    """Without the context."""
    attributes: tuple[str, ...]
    """What its rules mention of the context besides arguments."""


class Version:
    """The rules of one moment with all that was parsed of them. Nothing of it outlives them."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.slices = Slices(rules.rules)
        self._signature = lru_cache(REMEMBERED_MAX)(signature)
        self.prepared = lru_cache(REMEMBERED_MAX)(self._prepared)
        self.sight = lru_cache(REMEMBERED_MAX)(self._sight)
        self.tells_runs_apart = lru_cache(REMEMBERED_MAX)(self._tells_runs_apart)
        self.settled: dict[object, Decision] = {}
        """Decisions in which nothing but their key has a part, see `is_plain`."""

    def question(self, who: Entity, act: Act, now_s: int) -> Question | Verdict:
        """Return what is asked of Cedar for one principal of the chain, or why nothing can be asked."""
        principal, action, resource = act.principal, act.action, act.resource
        try:
            ready = self.prepared(who, action, resource)
            names = ready.slice.names if action in WITH_ARGUMENTS else frozenset[str]()
            known: dict[str, Any] = {
                "now": now_s,
                "actor": principal.agent,
                "depth": len(principal.parents),
                "run": principal.run_id,
                "approver": resource.approver,
                "agent": principal.agent,
                "owner": self.rules.agents.get(principal.agent) or principal.owner,
            }
            context = {name: known[name] for name in ready.attributes if name != "approved"}
            context["args"] = told(ready.kinds, names, act.arguments)
            return Question(ready=ready, context=context)
        except Untold as error:
            return Verdict(allowed=False, errors=(str(error),))
        except Exception as error:  # noqa: BLE001 - doubt means deny, and the library raises what it likes
            return Verdict(allowed=False, errors=(repr(error),))

    def is_plain(self, act: Act) -> bool:
        """Return whether no rule that concerns the act looks at its arguments, its time or its run."""
        slices = [self.slices.of(who, act.action, act.resource.name) for who in asked_for(act)]
        return all(
            each.names == frozenset() and each.attributes is not None and each.attributes <= {"approved"}
            for each in slices
        )

    def minds_run(self, act: Act) -> bool:
        """Return whether it may make a difference which run is woken."""
        return not _is_name(act.resource.name) or any(self.tells_runs_apart(who) for who in asked_for(act))

    def _tells_runs_apart(self, who: Entity) -> bool:
        waking = (each for each in self.slices.of_runs(who) if fits(each.body["action"], ("Action", "wake"), ()))
        return any(each.minds_sides or each.glob or not _is_any(each.body["resource"]) for each in waking)

    def _prepared(self, who: Entity, action: Action, resource: Resource) -> Prepared:
        for name in (who[1], resource.name):
            if not _is_name(name):
                raise Untold(f"{name[:80]!r} is no name of anything")
        part = self.slices.of(who, action, resource.name)
        kinds = self._signature(resource.stub) if resource.stub and part.names != frozenset() else None
        return Prepared(
            slice=part,
            kinds=kinds,
            entities=entities(who, self.rules.agents.get(who[1], ""), action, resource),
            schema=schema(kinds or {}, part.names, part.attributes),
            request=_request(who, action, resource),
            attributes=tuple(context_of(action, part.attributes)),
        )

    def _sight(self, who: Entity, resource: Resource) -> Verdict:
        """Return whether some call of the function might be allowed: with any arguments, at any time, if need be asked.

        A preview by partial evaluation, which is good for hiding and never for acting.
        """
        if not _is_name(resource.name):
            return Verdict(allowed=False, errors=(f"{resource.name[:80]!r} is no name of anything",))
        part = self.slices.of(who, "see", resource.name)
        permits = [each for each in part.rules if each.effect == "permit"]
        if not permits:
            return Verdict(allowed=False)
        if len(permits) == len(part.rules) and not all(each.minds_sides for each in permits):
            return Verdict(allowed=True, rules=part.rules)
        return self.partial(who, resource)

    def partial(self, who: Entity, resource: Resource) -> Verdict:
        """Return whether some call of the function might be allowed, and the rules that may have a part in it."""
        part = self.slices.of(who, "see", resource.name)
        try:
            ready = self.prepared(who, "see", resource)
        except Exception as error:  # noqa: BLE001 - doubt means deny, and the library raises what it likes
            return Verdict(allowed=False, errors=(repr(error),))
        request = {key: f"{each['type']}::{_quoted(each['id'])}" for key, each in ready.request.items()}
        try:
            answer = cedarpy.is_authorized_partial(request, part.handle, ready.entities, ready.schema)
        except Exception as error:  # noqa: BLE001 - the same
            return Verdict(allowed=False, errors=(repr(error),))
        left = part.named([*answer.diagnostics.nontrivial_residuals, *answer.diagnostics.reasons])
        is_open = answer.decision is cedarpy.Decision.Allow or (
            answer.decision is cedarpy.Decision.NoDecision and any(each.effect == "permit" for each in left)
        )
        errors = tuple(map(str, answer.diagnostics.errors))
        # A no has its forbids: the permits that they outweigh may be left too, and none of those is why.
        rules = left if is_open else tuple(each for each in left if each.effect == "forbid")
        return Verdict(allowed=is_open and not errors, rules=rules, errors=errors)


def decided(version: Version, act: Act, now_s: int, *, approved: bool) -> Decision:
    """Return the decision of the whole chain by the rules of one version."""
    asks: list[Ask] = []
    policies: dict[str, None] = {}
    if wrong := _misnamed(act, version.rules):
        return Deny(wrong)
    for who in asked_for(act):
        if act.action == "see":
            decision = _seen(version, who, act)
        else:
            decision = _one(version, who, act, now_s, approved=approved)
        if isinstance(decision, Deny):
            return decision
        policies |= dict.fromkeys(decision.policies)
        if isinstance(decision, Ask):
            asks.append(decision)
    return _ask(act, asks, tuple(policies)) if asks else Allow(tuple(policies))


def asked_for(act: Act) -> Sequence[Entity]:
    """Return the principals that must each be allowed."""
    if act.action == "approve":
        return [("Person", act.principal.person)]
    return [("Agent", agent) for agent in act.principal.chain]


def answer_of(decision: Decision) -> tuple[object, ...]:
    """Return what of a decision makes a difference: yes, no, or who is asked for how long. Not its reasons."""
    is_asked = isinstance(decision, Ask)
    return (type(decision), decision.needs, decision.lasts_s) if is_asked else (type(decision),)


def _seen(version: Version, who: Entity, act: Act) -> Allow | Deny:
    sight = version.sight(who, act.resource)
    return Allow(_ids(sight.rules)) if sight.allowed else _refused(who, act, sight)


def _one(version: Version, who: Entity, act: Act, now_s: int, *, approved: bool) -> Decision:
    question = version.question(who, act, now_s)
    if isinstance(question, Verdict):
        return _refused(who, act, question)
    verdict = question.asked(approved=approved)
    if verdict.allowed:
        return Allow(_ids(verdict.rules))
    if approved or verdict.errors or not question.ready.slice.minds_approval:
        return _refused(who, act, verdict)
    granted = question.asked(approved=True)
    if not granted.allowed:
        return _refused(who, act, granted if granted.errors else verdict)
    owner = version.rules.agents.get(who[1]) or act.principal.owner
    asking = [
        Ask((need(rule.annotations, owner),), "", lasts_s=lasts_s(rule.annotations))
        for rule in _asking(verdict.rules, granted.rules)
    ]
    return _ask(act, asking, _ids((*verdict.rules, *granted.rules)))


def _request(who: Entity, action: Action, resource: Resource) -> dict[str, Any]:
    what = (RESOURCE_TYPES[action], resource.name)
    names = {"principal": who, "action": ("Action", "call" if action == "see" else action), "resource": what}
    return {part: {"type": kind, "id": name} for part, (kind, name) in names.items()}


def _asking(forbids: Sequence[Rule], permits: Sequence[Rule]) -> Iterator[Rule]:
    """Yield each rule whose people must say yes.

    Every `forbid` that an approval lifts; of the permits that hold with it one is enough, the first by id. If one of
    them needs no approval, only forbids stood in the way.
    """
    yield from forbids
    if not forbids or all(rule.minds_approval or "approver" in rule.annotations for rule in permits):
        yield min(permits, key=lambda each: each.id)


def _ask(act: Act, asks: Sequence[Ask], policies: tuple[str, ...]) -> Ask:
    """Return the one question that several come to: everybody is asked, and all of them by the earliest end."""
    needs = merged(need for each in asks for need in each.needs)
    reason = f"{act.resource.name} needs the approval of {phrase(needs)}"
    return Ask(needs, reason, policies, min((each.lasts_s for each in asks if each.lasts_s is not None), default=None))


def _refused(who: Entity, act: Act, verdict: Verdict) -> Deny:
    action, resource = act.action, act.resource
    if verdict.errors:
        return Deny(f"{resource.name} cannot be decided: {verdict.errors[0]}", _ids(verdict.rules), verdict.errors)
    if verdict.rules and not verdict.allowed:
        rule = verdict.rules[0]
        why = rule.annotations.get("reason") or f"policy {rule.id!r} ({rule.place}) forbids it"
        return Deny(f"agent {who[1]!r} may not {action} {resource.name}: {why}", _ids(verdict.rules))
    if action in ("call", "see"):
        remedy = "add it to its `tools` in overwinter.toml, or permit it in policies/"
        return Deny(f"agent {who[1]!r} has no grant for {resource.name}: {remedy}")
    remedy = f": `models` of [agents.{who[1]}] says what it may ask" if action == "think" else ""
    return Deny(f"no rule permits {who[0].lower()} {who[1]!r} to {action} {resource.name}{remedy}")


def _misnamed(act: Act, rules: Rules) -> str:
    """Say which name cannot stand in a request; "" if all can."""
    chain = act.principal.chain
    if rules.fault:
        return f"the rules cannot be read, so nothing is allowed: {rules.fault}"
    if len(chain) > CHAIN_MAX:
        return f"{len(chain)} agents delegated to each other, at most {CHAIN_MAX} may"
    if act.action not in RESOURCE_TYPES:
        return f"there is no action {act.action!r}"
    if unknown := [each for each in chain if each not in rules.agents]:
        return f"there is no agent {unknown[0]!r} in overwinter.toml"
    return ""


def _is_name(text: str) -> bool:
    return 0 < len(text) <= NAME_LENGTH_MAX and text.isprintable() and re.search(r'["\\]', text) is None


def _is_any(scope: Mapping[str, Any]) -> bool:
    """Whether a scope holds for whatever is of its type."""
    return scope["op"] == "All" or (scope["op"] == "is" and scope.get("in") is None)


def _quoted(name: str) -> str:
    return f'"{name}"'  # a name has neither quotes nor backslashes, see `_is_name`


def _ids(rules: Sequence[Rule]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.id for each in rules))
