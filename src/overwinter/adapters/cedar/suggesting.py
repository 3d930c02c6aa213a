"""The least policy that would have allowed some acts: by agent, by function, and by the arguments that were seen."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from overwinter.adapters.cedar.arguments import Kind, Plain, Untold, required, signature, told
from overwinter.adapters.cedar.changes import Past
from overwinter.adapters.cedar.deciding import Verdict, Version, asked_for, decided
from overwinter.adapters.cedar.rules import Entity, Rules, bare, with_policies
from overwinter.adapters.cedar.schema import RESOURCE_TYPES, WITH_ARGUMENTS
from overwinter.frozen import frozen
from overwinter.policy import Decision, Deny

__all__ = ["suggest"]

WORDS_MAX = 5
"""Different values of a text that are a choice from a list, if each was seen `TIMES_MIN` times on average."""
TIMES_MIN = 2
WORD_LENGTH_MAX = 64
CONDITIONS_MAX = 20
FILE = "suggested.cedar"
RESERVED = frozenset({"has", "in", "is", "like", "if", "then", "else", "true", "false", "principal", "action", "resource", "context"})  # fmt: skip
"""Words of Cedar that a Python parameter may be named."""


@frozen(kw_only=False)
class Wanted:
    """What one principal lacks a permit for."""

    who: Entity
    action: str
    name: str
    asks: tuple[str, ...] = ()
    """"" and the annotations of a permit that asks; empty: it asks nobody."""


def suggest(rules: Rules, acts: Sequence[Past], *, is_whole: bool = False) -> str:
    """Return the least permits for some acts: one for each agent and function, narrowed to the arguments that were seen.

    A number is narrowed to its largest, a text that is one of few words to those, a truth value to the only one. What a
    permit cannot allow is a comment with the reason: a `forbid` wins, an error stays an error. What would be asked stays
    so. A person reads it before it becomes policy.

    Args:
        rules: what holds.
        acts: what somebody did, or tried to do.
        is_whole: permits for all that the rules let them do, in place of the permits that there are; else for what they
            were denied for want of a permit.
    """
    base = bare(rules) if is_whole else rules
    version, without = Version(rules), Version(base)
    wanted: dict[Wanted, list[Past]] = defaultdict(list)
    concerned = [each for each in acts if isinstance(_decided(version, each), Deny) is not is_whole]
    for past in concerned:
        action = "call" if past.act.action == "see" else past.act.action
        for who in asked_for(past.act):
            if _lacks_permit(without, who, past):
                wanted[Wanted(who, action, past.act.resource.name, _asks(version, who, past))].append(past)
    permits = {each: _permit(each, seen, [*_narrowed(seen)]) for each, seen in wanted.items()}
    permits |= {each: _permit(each, wanted[each], []) for each in _too_narrow(version, base, permits, acts)}
    after = Version(with_policies(base, FILE, "\n".join(permits.values())))
    notes = dict.fromkeys(
        f"// {past.act.resource.name}: {' '.join(left.reason.split())}"
        for past in concerned
        if isinstance(left := _decided(after, past), Deny)
    )
    return "".join(f"{line}\n" for line in (*notes, *permits.values()))


def _decided(version: Version, past: Past) -> Decision:
    return decided(version, past.act, past.at_s, approved=past.approved)


def _lacks_permit(version: Version, who: Entity, past: Past) -> bool:
    """Return whether a permit is all that one principal lacks, besides people who say yes."""
    if who[0] == "Agent" and who[1] not in version.rules.agents:
        return False
    question = version.question(who, past.act, past.at_s)
    if isinstance(question, Verdict):
        return False
    verdict = question.asked(approved=True)
    return not (verdict.allowed or verdict.rules or verdict.errors)


def _asks(version: Version, who: Entity, past: Past) -> tuple[str, ...]:
    """Return the annotations by which a permit asks whom the permits of one principal ask; of forbids that do, nothing."""
    question = version.question(who, past.act, past.at_s)
    if isinstance(question, Verdict):
        return ()
    verdict, granted = question.asked(approved=False), question.asked(approved=True)
    if verdict.allowed or not granted.allowed or not all(each.minds_approval for each in granted.rules):
        return ()
    told = min(granted.rules, key=lambda each: each.id).annotations
    return ("", *(f'@{key}("{told[key]}")' for key in ("approver", "quorum", "expires") if key in told))


def _permit(wanted: Wanted, seen: Sequence[Past], conditions: Sequence[str]) -> str:
    scope = f'principal == {wanted.who[0]}::"{wanted.who[1]}", action == Action::"{wanted.action}", '
    scope += f'resource == {RESOURCE_TYPES[wanted.action]}::"{wanted.name}"'
    conditions = [*(["context.approved"] if wanted.asks else []), *conditions[:CONDITIONS_MAX]]
    when = f"\nwhen {{ {' && '.join(conditions)} }}" if conditions else ""
    annotations = "".join(f"{each}\n" for each in wanted.asks[1:])
    return f"// {len(seen)} call{'s' * (len(seen) > 1)}\n{annotations}permit({scope}){when};"


def _too_narrow(version: Version, base: Rules, permits: Mapping[Wanted, str], acts: Sequence[Past]) -> Iterator[Wanted]:
    """Yield the permits that cannot be as narrow as they are written.

    With them a rule looks at an argument that none did before, and one that cannot be told denies the call.
    """
    after = Version(with_policies(base, FILE, "\n".join(permits.values())))
    for past in acts:
        old, new = _decided(version, past), _decided(after, past)
        if isinstance(new, Deny) and (not isinstance(old, Deny) or new.errors):
            yield from (each for each in permits if each.name == past.act.resource.name)


# --- What was seen ----------------------------------------------------------------------------------------------------


def _narrowed(seen: Sequence[Past]) -> Iterator[str]:
    """Yield the conditions that all these calls of one function meet, in the order of its parameters."""
    act = seen[-1].act
    kinds = signature(act.resource.stub) if act.action in WITH_ARGUMENTS and act.resource.stub else None
    if not kinds:
        return
    always = required(act.resource.stub)
    for name, kind in kinds.items():
        try:
            rows = [told({name: kind}, {name}, each.act.arguments) for each in seen]
        except Untold:
            continue
        values = [row[name] for row in rows if name in row]
        condition = _condition(name, kind, values) if values else ""
        if condition:
            # Cedar's validator follows `if`, and not `!(... has ...) ||`.
            yield condition if name in always else f"(if context.args has {name} then {condition} else true)"


def _condition(name: str, kind: Kind, values: Sequence[Any]) -> str:
    """Return what all values meet and others may not; "" if nothing can be said that is no accident."""
    place = f"context.args.{name}"
    if name in RESERVED or not name.isascii():
        return ""
    match kind:
        case Plain(name="Bool") if len(set(values)) == 1:
            return place if values[0] else f"!{place}"
        case Plain(name="Long") if not _is_key(name):
            least = f"{place} >= 0 && " if min(values) >= 0 else ""
            return f"{least}{place} <= {max(values)}"
        case Plain(name="decimal"):
            least = f'{place}.greaterThanOrEqual(decimal("0.0")) && ' if min(map(Decimal, values)) >= 0 else ""
            return f'{least}{place}.lessThanOrEqual(decimal("{max(values, key=Decimal)}"))'
        case Plain(name="String") if _is_choice(values):
            words = sorted(set(values))
            listed = ", ".join(f'"{each}"' for each in words)
            return f'{place} == "{words[0]}"' if len(words) == 1 else f"[{listed}].contains({place})"
        case _:
            return ""


def _is_key(name: str) -> bool:
    """Return whether a number only names something: the next invoice has a larger one."""
    return name.rpartition("_")[2].lower() in {"id", "number", "no", "page", "index", "offset"}


def _is_choice(values: Sequence[str]) -> bool:
    words = set(values)
    return (
        len(words) <= WORDS_MAX
        and len(values) >= TIMES_MIN * len(words)
        and all(len(each) <= WORD_LENGTH_MAX and each.isprintable() and not {*each} & {'"', "\\"} for each in words)
    )
