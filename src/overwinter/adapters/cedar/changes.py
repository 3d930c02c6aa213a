"""What other rules would have decided: past acts replayed, and the least text that would have allowed some."""

from collections.abc import Sequence
from dataclasses import dataclass

from overwinter.adapters.cedar.deciding import Act, Verdict, Version, answer_of, asked_for, decided
from overwinter.adapters.cedar.rules import Entity, Rules
from overwinter.adapters.cedar.schema import RESOURCE_TYPES
from overwinter.policy import Decision, Deny

__all__ = ["Change", "Past", "simulate", "suggest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """An act as it happened."""

    act: Act
    at_s: int
    """When, in seconds since 1970."""
    approved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An act that other rules decide differently."""

    past: Past
    before: Decision
    after: Decision


def simulate(before: Rules, after: Rules, acts: Sequence[Past]) -> list[Change]:
    """Return the acts whose decision differs, in their order: another answer, or another person who is asked."""
    old, new = Version(before), Version(after)
    changes = [
        Change(
            past=each,
            before=decided(old, each.act, each.at_s, approved=each.approved),
            after=decided(new, each.act, each.at_s, approved=each.approved),
        )
        for each in acts
    ]
    return [each for each in changes if answer_of(each.before) != answer_of(each.after)]


def suggest(rules: Rules, acts: Sequence[Past]) -> str:
    """Return the permits that would have allowed these acts: one for each agent and thing that has none, exactly named.

    What a permit cannot allow is a comment with the reason: a `forbid` wins, an error stays an error. What would be
    asked stays so. A person reads it before it becomes policy.
    """
    version = Version(rules)
    permits: dict[str, None] = {}
    notes: dict[str, None] = {}
    for past in acts:
        decision = decided(version, past.act, past.at_s, approved=past.approved)
        if not isinstance(decision, Deny):
            continue
        missing = [who for who in asked_for(past.act) if _lacks_permit(version, who, past)]
        permits |= {_permit(who, past.act): None for who in missing}
        if not missing or decision.errors or decision.policies:
            notes[f"// {past.act.resource.name}: {' '.join(decision.reason.split())}"] = None
    return "".join(f"{line}\n" for line in (*notes, *permits))


def _lacks_permit(version: Version, who: Entity, past: Past) -> bool:
    """Return whether a permit is all that one principal lacks."""
    if who[0] == "Agent" and who[1] not in version.rules.agents:
        return False
    question = version.question(who, past.act, past.at_s)
    if isinstance(question, Verdict):
        return False
    verdicts = [question.asked(approved=approved) for approved in {past.approved, True}]
    return not any(each.allowed or each.rules or each.errors for each in verdicts)


def _permit(who: Entity, act: Act) -> str:
    kind = RESOURCE_TYPES[act.action]
    action = "call" if act.action == "see" else act.action
    return (
        f'permit(principal == {who[0]}::"{who[1]}", action == Action::"{action}", '
        f'resource == {kind}::"{act.resource.name}");'
    )
