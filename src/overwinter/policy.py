"""Whether a principal may do a thing. No rule means no; an error while deciding means no."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from overwinter.principal import Principal
from overwinter.values import Value

__all__ = ["Allow", "Decision", "Deny", "Grants", "Policy"]


@dataclass(frozen=True, slots=True)
class Allow:
    """It may be done."""


@dataclass(frozen=True, slots=True)
class Deny:
    """It may not; `reason` is shown to the program and to people."""

    reason: str


Decision = Allow | Deny

LOOKUPS = frozenset({"tools.services", "tools.search", "tools.browse", "tools.describe", "tools.read"})
"""Whoever may do anything may look up what: these show an agent only what it may call."""


class Policy(Protocol):
    """Decides each call of each principal, at the moment it is made."""

    def decide(self, principal: Principal, action: str, arguments: Mapping[str, Value]) -> Decision:
        """Return the decision for calling the function `action` with these arguments."""
        ...


@dataclass(frozen=True, slots=True)
class Grants:
    """The policy of `overwinter.toml`: each agent may call the functions that its `tools` patterns name, and no other."""

    by_agent: Mapping[str, tuple[str, ...]]
    """Agent name to patterns such as `"billing.*"`."""

    def decide(self, principal: Principal, action: str, arguments: Mapping[str, Value]) -> Decision:
        """Allow what a pattern of the agent names."""
        del arguments
        patterns = self.by_agent.get(principal.agent)
        if patterns is None:
            return Deny(f"there is no agent {principal.agent!r}")
        if action in LOOKUPS:
            return Allow()
        if any(fnmatchcase(action, pattern) for pattern in patterns):
            return Allow()
        return Deny(f"agent {principal.agent!r} has no grant for {action}: add it to its `tools` in overwinter.toml")
