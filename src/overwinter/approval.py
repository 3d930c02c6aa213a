"""What an approval is bound to: exactly one call, by exactly this agent, under exactly these rules.

A person says yes to a digest. A changed argument, definition, rule or epoch has another digest, and is asked about again.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence

from overwinter import values
from overwinter.events import Call
from overwinter.frozen import frozen
from overwinter.values import Value

__all__ = ["Gate", "Need", "Vote", "approvers", "digest", "left", "merged", "named", "phrase"]

VERSION = "overwinter approval 2"


@frozen(kw_only=False)
class Need:
    """Some people, of whom so many must say yes."""

    people: tuple[str, ...]
    """Addresses or names, each once."""
    count: int = 1
    """Different ones of them."""


@frozen
class Vote:
    """What one person said of one call."""

    person: str
    is_yes: bool
    reason: str
    at_us: int = 0
    known: str = ""
    """The person with how far that is known, as `actor.Actor` writes it; "" in votes that are counted already."""

    @property
    def by(self) -> str:
        """Return what the journal has of the person."""
        return self.known or self.person


@frozen
class Gate:
    """A call that waits for people, or has been let through by them."""

    digest: bytes
    """What they say yes to, see `digest`; 32 bytes."""
    needs: tuple[Need, ...]
    """Who must: enough people of each. Whoever is in several counts in each of them. One no is enough for a no."""
    reason: str
    """Why they are asked."""
    policies: tuple[str, ...] = ()
    """Ids of the rules that ask."""
    expires_us: int | None = None
    """When it is too late for a yes; None: never."""
    votes: tuple[Vote, ...] = ()
    is_used: bool = False
    """Whether it let its call through. It lets it through once."""

    @property
    def approver(self) -> str:
        """Return who is asked, in words."""
        return phrase(self.needs)


def approvers(gate: Gate) -> tuple[str, ...]:
    """Return the people who may say yes or no."""
    return tuple(dict.fromkeys(person for need in gate.needs for person in need.people))


def named(text: str) -> tuple[str, ...]:
    """Return the people whom a list with commas names, each once."""
    return tuple(dict.fromkeys(filter(None, (each.strip() for each in text.split(",")))))


def merged(needs: Iterable[Need]) -> tuple[Need, ...]:
    """Return what all of them come to: the same people are asked once, for the larger number."""
    counts: dict[tuple[str, ...], int] = {}
    for need in needs:
        people = tuple(sorted(need.people))
        counts[people] = max(need.count, counts.get(people, 0))
    return tuple(Need(people, count) for people, count in sorted(counts.items()))


def left(needs: Iterable[Need], yes: Collection[str]) -> tuple[Need, ...]:
    """Return what is still needed once these people have said yes; nothing: it is enough."""
    rows = [
        (tuple(each for each in need.people if each not in yes), need.count - len({*need.people} & {*yes}))
        for need in needs
    ]
    return tuple(Need(people, count) for people, count in rows if count > 0)


def phrase(needs: Sequence[Need]) -> str:
    """Return them in words: `2 of a, b, c and d`."""
    return " and ".join(
        need.people[0] if len(need.people) == 1 else f"{need.count} of {', '.join(need.people)}" for need in needs
    )


def digest(  # noqa: PLR0913 - all that a yes is bound to
    call: Call, *, agent_epoch: int, pin: str, rules: str, needs: Sequence[Need], expires_us: int | None
) -> bytes:
    """Return what an approval of a call is bound to.

    Args:
        call: run, index, agent, function and arguments.
        agent_epoch: of its agent, as the run has it.
        pin: of the function's definition.
        rules: version of the policies that asked.
        needs: who must say yes: by rules that look at the time it may be somebody else an hour later.
        expires_us: when it is too late for a yes.
    """
    parts = [
        VERSION, call.agent, agent_epoch, call.run_id, call.index, call.function, _ordered(call.arguments), pin, rules,
        [[list(each.people), each.count] for each in needs], expires_us,
    ]  # fmt: skip
    return hashlib.sha256(values.encode(parts)).digest()


def _ordered(value: Value) -> Value:
    """Return a value with its keys in order: the same arguments are the same, however they were written.

    Of no two values it is the same: a mapping is a mapping with one key, and nothing else becomes one.
    """
    if isinstance(value, Mapping):
        rows: list[tuple[Value, Value]] = sorted(value.items(), key=lambda row: values.encode(row[0]))  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType, reportUnknownVariableType] - values are checked, not typed
        return {"": [[key, _ordered(each)] for key, each in rows]}
    if isinstance(value, list | tuple):
        parts = [_ordered(each) for each in value]  # pyright: ignore[reportUnknownVariableType] - the same
        return tuple(parts) if isinstance(value, tuple) else parts
    return value
