"""Whether a principal may do a thing. No rule means no; an error while deciding means no."""

from collections.abc import Mapping
from typing import Literal, Protocol

from overwinter.approval import Need, phrase
from overwinter.events import Effect
from overwinter.frozen import frozen
from overwinter.principal import Principal
from overwinter.values import Value

__all__ = ["LOOKUPS", "Action", "Allow", "Ask", "Decision", "Deny", "Policy", "Resource"]

Action = Literal["call", "see", "wake", "approve", "think"]
"""Call a function; find it in a search; go on with a run; say yes to a call; call a model."""


@frozen(kw_only=False)
class Allow:
    """It may be done."""

    policies: tuple[str, ...] = ()
    """Ids of the rules that say so."""


@frozen(kw_only=False)
class Deny:
    """It may not; `reason` is shown to the program and to people."""

    reason: str
    policies: tuple[str, ...] = ()
    """Ids of the rules that forbid it; none if no rule permits it."""
    errors: tuple[str, ...] = ()
    """What went wrong while deciding. One is enough for a no, whatever the rules say."""


@frozen(kw_only=False)
class Ask:
    """It may be done once enough people have said yes to exactly this; until then it may not."""

    needs: tuple[Need, ...]
    """Who: enough of each."""
    reason: str
    policies: tuple[str, ...] = ()
    """Ids of the rules that ask."""
    lasts_s: int | None = None
    """How long they are asked; None: for ever."""

    @property
    def approver(self) -> str:
        """Return who is asked, in words."""
        return phrase(self.needs)


Decision = Allow | Deny | Ask

LOOKUPS = frozenset({
    "tools.services", "tools.search", "tools.browse", "tools.describe", "tools.read", "tools.think", "tools.reply",
    "tools.spawn", "tools.attempt",
})  # fmt: skip
"""Whoever may do anything may look up what: these show an agent only what it may call, the gateway decides each thought, and a
run that another one begins is an agent's like any other."""


@frozen
class Resource:
    """What is acted on, and what a rule may know about it. The caller says it; a policy looks nothing up."""

    name: str
    """`service.function`; the name of a run for `wake`, of a model for `think`."""
    effect: Effect = "write"
    pin_ok: bool = True
    """Whether its definition is the one that somebody accepted."""
    stub: str = ""
    """Its `async def` line, for the types of its arguments; classes that it speaks of may stand before it."""
    approver: str = ""
    """Who was asked, for `approve`."""
    provider: str = ""
    """Who answers, for `think`."""
    region: str = ""
    """Where the provider computes, as the operator says; for `think`."""
    retention: str = ""
    """How long it keeps what it is sent, as the operator says; for `think`."""
    data: str = ""
    """What kind of data it is sent, as the caller says; for `think`."""

    @property
    def service(self) -> str:
        """Return the service that it belongs to."""
        return self.name.partition(".")[0]


class Policy(Protocol):
    """Decides each act of each principal, at the moment it is about to happen."""

    @property
    def version(self) -> str:
        """Return what tells the rules of this moment from any others."""
        ...

    @property
    def fault(self) -> str:
        """Return why the rules cannot be read, "" if they can. As long as they cannot, every decision is no."""
        ...

    def decide(
        self,
        principal: Principal,
        action: Action,
        resource: Resource,
        arguments: Mapping[str, Value],
        *,
        approved: bool = False,
    ) -> Decision:
        """Return the decision. Nothing is raised: what cannot be decided is denied.

        Args:
            principal: who acts. Every agent of its delegation chain must be allowed to.
            action: what it is about to do.
            resource: to what.
            arguments: of the call, by name. For `see` there are none yet: it asks whether some call might be allowed.
            approved: whether the person who must be asked has said yes to exactly this.
        """
        ...
