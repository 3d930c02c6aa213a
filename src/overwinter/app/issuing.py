"""The key that signs identities, changed by a person."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from overwinter.adapters.identity_tokens import Mint
from overwinter.adapters.sqlite import AuditKeeping

__all__ = ["Issuing"]


class Issuing:
    """The issuer of a home that is open.

    Args:
        mint: makes identities.
        keeping: writes what a person does.
        place: file of the key.
    """

    def __init__(self, mint: Mint, keeping: AuditKeeping, place: Path) -> None:
        self._mint, self._keeping, self._place = mint, keeping, place
        self._one_at_a_time = anyio.Lock()

    def keys(self) -> Mapping[str, Any]:
        """Return what others verify with: a JSON Web Key Set, the key that signs first."""
        return self._mint.keys()

    def soonest_s(self, most_s: int) -> int:
        """Return how long others may keep the keys: at most so long, and no longer than the next of them counts."""
        return self._mint.counts_s(most_s)

    async def rotate(self, *, by: str, reason: str) -> Mapping[str, Any]:
        """Sign with a new key from now on. What the one before signed counts for an hour more.

        It is an entry of the audit log before it happens: what cannot be written down does not happen.
        """
        async with self._one_at_a_time:
            await self._keeping.note_issuer(self.keys()["keys"][0]["kid"], by=by, reason=reason)
            before = await anyio.to_thread.run_sync(self._mint.next, self._place)
        return {"keys": self.keys()["keys"], "counts_until_s": before.until_s}
