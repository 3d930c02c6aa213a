"""Answers that are kept: for the same request again, and for the same call after a crash."""

from typing import Protocol

from overwinter.frozen import frozen
from overwinter.gateway.usage import Usage

__all__ = ["Answers", "Kept"]


@frozen
class Kept:
    """A whole answer, as its provider gave it."""

    body: bytes
    """The bytes of its events, or its JSON."""
    is_stream: bool
    usage: Usage
    cost_nusd: int
    """What it cost then, and is saved now."""
    provider: str
    model: str
    request: bytes
    """Digest of what was asked."""
    made_us: int


class Answers(Protocol):
    """Kept answers by key, with a time to live and a limit on their size."""

    async def find(self, key: bytes) -> Kept | None:
        """Return a kept answer that has not expired."""
        ...

    async def keep(self, key: bytes, kept: Kept, *, until_us: int) -> None:
        """Keep an answer; the ones used longest ago go first where there is no room."""
        ...
