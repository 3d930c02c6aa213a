"""Who may act, durably: agents, and whatever of governance is no fact about one run. In the same commits as the store's.

Revoking is one commit: after it returns, no turn of the agent's runs or of those below it is committed, none of their effects
starts or is tried again, nothing wakes them, and no message reaches them. `tests/conformance` holds the contract.
"""

from collections.abc import Sequence
from typing import Protocol

from overwinter.audit import Kind
from overwinter.grant import Granted
from overwinter.identity import Identity

__all__ = ["Registry"]


class Registry(Protocol):
    """The agents of a home. Every change is an entry of the audit log, in its own commit."""

    async def enrol(self, identities: Sequence[Identity], *, is_whole: bool = False) -> None:
        """Write agents down, new ones active in epoch 1. Of a known one neither epoch nor whether it is revoked changes.

        But whatever is declared below a revoked agent is revoked. And whose authority had ended, and is declared anew, is
        revoked too: under a name that is used again no earlier run goes on, unless a person restores it with its runs.

        Args:
            identities: what is declared.
            is_whole: whether these are all; then those that are not among them any more are revoked.
        """
        ...

    async def identities(self) -> Sequence[Identity]:
        """Return every agent, by name."""
        ...

    async def revoke(self, agent: str, *, by: str, reason: str = "") -> Sequence[Identity]:
        """Revoke an agent and all below it; return them as they are now, those that were revoked before left out."""
        ...

    async def restore(self, agent: str, *, by: str, reason: str = "", has_runs: bool = False) -> Identity | None:
        """Make a revoked agent active in a new epoch; None: it is not revoked, or one above it is.

        Its earlier runs stay stopped, unless `has_runs` takes them along into the new epoch; also later, when it is active.
        """
        ...

    async def strand(self) -> None:
        """Cancel the runs of revoked agents that runs of agents which are not revoked wait for, and answer those.

        A commit of its own, after the one that revokes: that is short, however many runs there are.
        """
        ...

    async def grant(self, given: Granted) -> Granted | None:
        """Write a grant down and return it with its id; None: its agent is not known, or was revoked."""
        ...

    async def withdraw(self, grant: str, *, by: str, reason: str = "") -> Granted | None:
        """Take a grant away, by its id, and return it; None: there is none."""
        ...

    async def grants(self) -> Sequence[Granted]:
        """Return every grant, the oldest first; expired ones too."""
        ...

    async def reloaded(self, before: str, after: str, *, by: str, changed: Sequence[str]) -> None:
        """Write down that a person had the rules read anew: versions before and after, and ids of rules that came or went."""
        ...

    async def note(self, kind: Kind, identity: Identity, *, by: str, reason: str) -> None:
        """Write a governed act of a person down that changes nothing here."""
        ...
