"""Rules in the shadow: decided beside the real ones, to see what they would change, and never changing it."""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from overwinter.adapters.cedar.deciding import Act, Version, answer_of, asked_for, decided
from overwinter.adapters.cedar.rules import Entity, Rules
from overwinter.frozen import frozen, replace
from overwinter.policy import Ask, Decision
from overwinter.values import Value

__all__ = ["Difference", "Example", "Shadow"]

DIFFERENCES_MAX = 500
"""Kinds of differences remembered; the one not seen for longest is forgotten first."""
EXAMPLES_MAX = 3
CONCERNED_MAX = 20_000
ARGUMENTS_MAX = 16
TEXT_LENGTH_MAX = 80
NUMBER_BITS_MAX = 64
POLICIES_MAX = 8


@frozen
class Example:
    """One decision that would have been another."""

    run_id: str
    at_s: int
    arguments: Mapping[str, str]
    """Cut, for people."""
    policies: tuple[str, ...]
    """Ids of the rules that would have decided it, at most `POLICIES_MAX`."""


@dataclass(slots=True, kw_only=True)
class Difference:
    """Decisions that would all have been another in the same way."""

    action: str
    resource: str
    agent: str
    decision: str
    """What it is: `allow`, `deny`, `ask PEOPLE`."""
    would_be: str
    count: int = 0
    last_s: int = 0
    examples: deque[Example] = field(default_factory=lambda: deque[Example](maxlen=EXAMPLES_MAX))
    """The newest, in their order."""


class Shadow:
    """The rules in the shadow of one moment, with what they would have changed since they are there. Kept in memory alone."""

    def __init__(self, rules: Rules, since_s: int) -> None:
        self.since_s = since_s
        self.decided = self.failed = self.forgotten = 0
        """Decisions that they concern; of these, such that raised an error; kinds of differences that had to go."""
        self._differences: OrderedDict[tuple[str, str, str, str, str], Difference] = OrderedDict()
        self.follow(rules)

    def follow(self, rules: Rules) -> None:
        """Stand beside other rules from now on."""
        self.rules = rules.shadows
        self._ids = frozenset(each.id for each in rules.shadows)
        self._version = Version(replace(rules, rules=(*rules.rules, *rules.shadows)))
        self._concerned = lru_cache(CONCERNED_MAX)(self._is_concerned)

    @property
    def differences(self) -> Sequence[Difference]:
        """Return the kinds of differences, the most frequent first."""
        return sorted(self._differences.values(), key=lambda each: -each.count)

    def beside(self, act: Act, decision: Decision, now_s: int) -> None:
        """Decide an act by the shadow too, and write down if it differs. Nothing is raised."""
        try:
            if not self._concerned(tuple(asked_for(act)), act.action, act.resource.name):
                return
            self.decided += 1
            other = decided(self._version, act, now_s, approved=False)
            if answer_of(other) != answer_of(decision):
                self._differ(act, decision, other, now_s)
        except Exception:  # noqa: BLE001 - whatever a shadow does, the decision stands
            self.failed += 1

    def _is_concerned(self, principals: tuple[Entity, ...], action: str, name: str) -> bool:
        slices = [self._version.slices.of(who, action, name) for who in principals]
        return any(rule.id in self._ids for each in slices for rule in each.rules)

    def _differ(self, act: Act, decision: Decision, other: Decision, now_s: int) -> None:
        key = (act.action, act.resource.name, act.principal.agent, _words(decision), _words(other))
        found = self._differences.pop(key, None)
        if found is None:
            found = Difference(action=key[0], resource=key[1], agent=key[2], decision=key[3], would_be=key[4])
            if len(self._differences) >= DIFFERENCES_MAX:
                self._differences.popitem(last=False)
                self.forgotten += 1
        self._differences[key] = found  # to the end: the newest
        found.count, found.last_s = found.count + 1, now_s
        found.examples.append(
            Example(
                run_id=act.principal.run_id,
                at_s=now_s,
                arguments={
                    name[:TEXT_LENGTH_MAX]: _short(act.arguments[name]) for name in [*act.arguments][:ARGUMENTS_MAX]
                },
                policies=other.policies[:POLICIES_MAX],
            )
        )


def _words(decision: Decision) -> str:
    name = type(decision).__name__.lower()
    return f"{name} {decision.approver}" if isinstance(decision, Ask) else name


def _short(value: Value) -> str:
    """Return a value for people, without walking through all of a large one."""
    match value:
        case str():
            return repr(value[:TEXT_LENGTH_MAX]) + ("..." if len(value) > TEXT_LENGTH_MAX else "")
        case None | bool() | float():
            return repr(value)
        case int():
            return str(value) if value.bit_length() <= NUMBER_BITS_MAX else f"a number of {value.bit_length()} bits"
        case list() | tuple() | set() | frozenset() | dict() | bytes():
            return f"{type(value).__name__} of {len(value)}"
        case _:
            return type(value).__name__
