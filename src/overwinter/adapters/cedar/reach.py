"""What the rules come to before a call's arguments are known: whether it will be asked about, or denied."""

from collections.abc import Iterator
from typing import Literal

from overwinter.adapters.cedar.asking import need
from overwinter.adapters.cedar.deciding import Act, Version, asked_for, decided
from overwinter.adapters.cedar.rules import Rule
from overwinter.approval import Need, merged, phrase
from overwinter.frozen import frozen, replace
from overwinter.policy import Allow, Ask, Deny

__all__ = ["Gated", "gated"]


@frozen
class Gated:
    """A function that a program cannot simply call."""

    function: str
    decision: Literal["ask", "may ask", "deny"]
    """May ask: by some arguments, or at some time."""
    approver: str = ""
    """Who is asked, in words."""
    policies: tuple[str, ...] = ()
    """Ids of the rules that ask or forbid; none: no rule permits it."""
    reason: str = ""
    """Why it is denied."""


def gated(version: Version, act: Act, now_s: int) -> Gated | None:
    """Return whether a call will be asked about or denied, whatever its arguments; None: neither, as far as can be told.

    A preview by partial evaluation: what will be decided is decided at the call.
    """
    name = act.resource.name
    is_plain = version.is_plain(act)
    looked_at = act if is_plain else replace(act, action="see")
    match decision := decided(version, looked_at, now_s, approved=False):
        case Deny(reason=reason, policies=policies):
            return Gated(function=name, decision="deny", policies=policies, reason=reason)
        case Ask(policies=policies):
            return Gated(function=name, decision="ask", approver=decision.approver, policies=policies)
        case Allow():
            asking = [] if is_plain else [*_asking(version, act)]
    if not asking:
        return None
    approver, ids = phrase(merged(each for _, each in asking)), tuple(dict.fromkeys(rule.id for rule, _ in asking))
    return Gated(function=name, decision="may ask", approver=approver, policies=ids)


def _asking(version: Version, act: Act) -> Iterator[tuple[Rule, Need]]:
    """Yield the rules that may ask, with whom: what is left of them when only the two sides of the call are known."""
    for who in asked_for(act):
        rules = version.partial(who, act.resource).rules
        is_free = any(each.effect == "permit" and each.names == each.attributes == frozenset() for each in rules)
        if is_free and all(each.effect == "permit" for each in rules):
            continue
        owner = version.rules.agents.get(who[1]) or act.principal.owner
        yield from ((each, need(each.annotations, owner)) for each in rules if each.minds_approval)
