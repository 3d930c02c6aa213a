"""What other rules would have decided: past acts replayed."""

from collections.abc import Sequence

from overwinter.adapters.cedar.deciding import Act, Version, answer_of, decided
from overwinter.adapters.cedar.rules import Rules
from overwinter.frozen import frozen
from overwinter.policy import Decision

__all__ = ["Change", "Past", "simulate"]


@frozen
class Past:
    """An act as it happened."""

    act: Act
    at_s: int
    """When, in seconds since 1970."""
    approved: bool = False


@frozen
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
