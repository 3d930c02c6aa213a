"""Who an agent is: a governed identity with a person who answers for it, and whether it still may act."""

from collections.abc import Iterable

from overwinter.frozen import frozen

__all__ = ["Identity", "chain", "name_of"]

CHAIN_MAX = 16
"""Identities above one another; more is a mistake, not an organisation."""


@frozen
class Identity:
    """An agent as the store has it."""

    name: str
    owner: str
    """The person who answers for it: an address or a name."""
    purpose: str = ""
    parent: str | None = None
    """The agent under whose authority it stands: it can never do what that one cannot."""
    expires_us: int | None = None
    """When its authority ends by itself, microseconds UTC."""
    models: tuple[str, ...] = ()
    """Patterns of the models that it may use."""
    epoch: int = 1
    """Grows when it is revoked and when it is restored; never falls. What was begun under another one is over."""
    is_revoked: bool = False
    changed_us: int = 0
    by: str = ""
    """Who revoked or restored it last."""
    reason: str = ""


def name_of(identity: Identity, tenant: str = "home") -> str:
    """Return the name under which the identity stands in logs and documents: `agent:home/refunds@3`."""
    return f"agent:{tenant}/{identity.name}@{identity.epoch}"


def chain(name: str, identities: Iterable[Identity]) -> tuple[Identity, ...]:
    """Return an agent and those above it, itself first; empty if it, or one above it, is not known.

    Raises:
        ValueError: the chain runs in a circle, or is longer than `CHAIN_MAX`.
    """
    known = {each.name: each for each in identities}
    found: list[Identity] = []
    above: str | None = name
    while above is not None:
        if above not in known:
            return ()
        if len(found) >= CHAIN_MAX or any(each.name == above for each in found):
            raise ValueError(f"the agents above {name!r} run in a circle, or are more than {CHAIN_MAX}")
        found.append(known[above])
        above = known[above].parent
    return tuple(found)
