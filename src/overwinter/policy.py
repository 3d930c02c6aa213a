"""Whether a principal may do a thing. No rule means no; an error while deciding means no."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, Protocol

from overwinter.events import Effect
from overwinter.principal import Principal
from overwinter.values import Value

__all__ = ["LOOKUPS", "Action", "Allow", "Ask", "Decision", "Deny", "Grants", "Policy", "Resource"]

Action = Literal["call", "see", "wake", "approve", "think"]
"""Call a function; find it in a search; go on with a run; say yes to a call; call a model."""


@dataclass(frozen=True, slots=True)
class Allow:
    """It may be done."""

    policies: tuple[str, ...] = ()
    """Ids of the rules that say so."""


@dataclass(frozen=True, slots=True)
class Deny:
    """It may not; `reason` is shown to the program and to people."""

    reason: str
    policies: tuple[str, ...] = ()
    """Ids of the rules that forbid it; none if no rule permits it."""
    errors: tuple[str, ...] = ()
    """What went wrong while deciding. One is enough for a no, whatever the rules say."""


@dataclass(frozen=True, slots=True)
class Ask:
    """It may be done once `approver` has said yes to exactly this; until then it may not."""

    approver: str
    """A person, by address or name."""
    reason: str
    policies: tuple[str, ...] = ()
    """Ids of the rules that ask."""


Decision = Allow | Deny | Ask

LOOKUPS = frozenset({"tools.services", "tools.search", "tools.browse", "tools.describe", "tools.read"})
"""Whoever may do anything may look up what: these show an agent only what it may call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What is acted on, and what a rule may know about it. The caller says it; a policy looks nothing up."""

    name: str
    """`service.function`; the id of a run for `wake`, the name of a model for `think`."""
    effect: Effect = "write"
    pin_ok: bool = True
    """Whether its definition is the one that somebody accepted."""
    stub: str = ""
    """Its `async def` line, for the types of its arguments; classes that it speaks of may stand before it."""
    approver: str = ""
    """Who was asked, for `approve`."""

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


@dataclass(frozen=True, slots=True)
class Grants:
    """The policy of `overwinter.toml`: each agent may call the functions that its `tools` patterns name, and no other."""

    by_agent: Mapping[str, tuple[str, ...]]
    """Agent name to patterns such as `"billing.*"`."""
    version: str = field(init=False, default="")

    def __post_init__(self) -> None:
        version = hashlib.sha256(repr(sorted(self.by_agent.items())).encode()).hexdigest()
        object.__setattr__(self, "version", version)

    def decide(
        self,
        principal: Principal,
        action: Action,
        resource: Resource,
        arguments: Mapping[str, Value],
        *,
        approved: bool = False,
    ) -> Decision:
        """Allow what a pattern of each agent of the chain names."""
        del arguments, approved
        for agent in principal.chain:
            patterns = self.by_agent.get(agent)
            if patterns is None:
                return Deny(f"there is no agent {agent!r}")
            if action == "wake":
                continue
            if action not in ("call", "see"):
                return Deny(f"overwinter.toml grants functions only: nobody may {action} {resource.name}")
            if resource.name in LOOKUPS or any(fnmatchcase(resource.name, pattern) for pattern in patterns):
                continue
            return Deny(f"agent {agent!r} has no grant for {resource.name}: add it to its `tools` in overwinter.toml")
        return Allow()
