"""Who asks a model, and where the answer goes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from overwinter.frozen import frozen
from overwinter.gateway.budget import Budget
from overwinter.principal import Principal

__all__ = ["Caller", "Collected", "Sink"]


@frozen
class Caller:
    """Who asks, and under which limits."""

    principal: Principal
    call: str
    """Names this call for ever: `run:index`, or what the client's own key comes to."""
    is_named: bool = False
    """Whether a client or a run may ask for the same call again: its answer is kept for that."""
    budgets: tuple[Budget, ...] = ()
    tenant: str = "default"
    """Cached answers are never shared across it."""
    key: str = ""
    """Id of the token that it came with; "" from inside."""
    session: str = ""
    """By which a client names its conversation: its placeholders are the same in all turns of it."""
    data: str = ""
    """What kind of data it says that it sends, for rules: `"public"`, `"confidential"`."""
    is_unlogged: bool = False
    """Whether nothing of what is said is kept, only counts, digests and costs."""
    is_cached: bool = False
    """Whether a kept answer will do."""
    is_similar: bool = False
    """Whether the answer to a question that means the same will do."""
    cache_s: float | None = None
    """How long an answer is kept; None: as the configuration says."""


class Sink(Protocol):
    """Where an answer goes."""

    @property
    def is_gone(self) -> bool:
        """Whether nobody listens any more."""
        ...

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Say how the answer begins; once, before anything is written."""
        ...

    async def write(self, body: bytes) -> None:
        """Send a part of it. Nothing is raised if nobody listens."""
        ...

    async def end(self, last: bytes = b"") -> None:
        """Send a last part, and say that there is no more. Whoever wants an answer says so too, after its call is booked; the second time counts for nothing."""
        ...


@dataclass(slots=True)
class Collected:
    """A sink for whoever wants the whole answer."""

    status: int = 0
    refused: str = ""
    """Why the gateway itself refused it; "": it did not."""
    parts: list[bytes] = field(default_factory=list[bytes])
    is_gone: bool = False

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Keep the status."""
        self.status, self.refused = status, headers.get("x-overwinter-refused", "")

    async def write(self, body: bytes) -> None:
        """Keep a part."""
        self.parts.append(body)

    async def end(self, last: bytes = b"") -> None:
        """Keep the last part."""
        if last:
            self.parts.append(last)
