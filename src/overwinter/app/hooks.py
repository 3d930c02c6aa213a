"""Addresses at which others tell runs something. Nothing of them is stored: only this home can make the code in one."""

import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

import anyio.to_thread

from overwinter.errors import UsageError
from overwinter.frozen import frozen
from overwinter.webhook import SCHEMES, Scheme, key_of

__all__ = ["BURST_MAX", "PACE_S", "Address", "Hooks"]

DIGITS = 40
"""160 bits of a code that opens a run's mailbox."""
BURST_MAX = 100
"""Messages at once at one address; then one each `PACE_S`. A service that has been down sends what it kept."""
PACE_S = 0.1
ADDRESSES_MAX = 4_096
"""Of which it is remembered when they were used; only right codes count."""


SECRET_BYTES_MIN = 16
"""A shorter one could be guessed by whoever has an address: each guess is answered."""
_SCHEMES: Mapping[str, Scheme] = {each: each for each in SCHEMES}
_SECRET = re.compile(r"vault:(?P<name>[A-Za-z_][A-Za-z0-9_-]{0,99})")


@frozen
class Address:
    """Where an address leads, and who alone may use it."""

    run_id: str
    scheme: Scheme | None = None
    """How its sender signs; None: whoever has the address may send."""
    secret: str = ""
    """With what, as the vault calls it."""


class Hooks:
    """The addresses of a home's runs."""

    def __init__(self, key: bytes, read: Callable[[str], str], now_s: Callable[[], float] = time.monotonic) -> None:
        """Make addresses with a key of the home's; `read` returns a secret of the vault."""
        self._key, self._read, self._now_s = key, read, now_s
        self._free_at = OrderedDict[str, float]()
        """When an address has made up for what it was told."""

    def path(self, run_id: str) -> str:
        """Return the path of a run."""
        return f"/in/{run_id}.{self._code(run_id)}"

    async def signed_path(self, run_id: str, scheme: str, secret: str) -> str:
        """Return the path of a run at which only messages are taken that a sender signed.

        Args:
            run_id: whose.
            scheme: one of `SCHEMES`.
            secret: a reference to the home's vault, `vault:NAME`. It stands in the path; the secret does not.

        Raises:
            UsageError: there is no such scheme or secret, or it is too short for one.
        """
        known, named = _SCHEMES.get(scheme), _SECRET.fullmatch(secret)
        if known is None:
            raise UsageError(f"{scheme!r} is no way to sign: there are {', '.join(SCHEMES)}")
        if named is None:
            raise UsageError(f"{secret!r} is no secret of the vault: `overwinter secrets set NAME`, then vault:NAME")
        address = Address(run_id=run_id, scheme=known, secret=named["name"])
        text = await self.secret(address)
        try:
            has_room = len(key_of(text) if known == "standard" else text.encode()) >= SECRET_BYTES_MIN
        except ValueError as error:
            raise UsageError(f"{secret}: {error}") from error
        if not has_room:
            raise UsageError(f"{secret} has fewer than {SECRET_BYTES_MIN} bytes: who can guess it can sign")
        return f"/in/{run_id}.{self._code(run_id, known, address.secret)}.{known}.{address.secret}"

    async def secret(self, address: Address) -> str:
        """Return with what the sender of an address signs, read anew: one that was removed signs nothing.

        Raises:
            ConfigInvalid: it is not in the vault.
            HomeError: the vault cannot be read.
        """
        return await anyio.to_thread.run_sync(self._read, address.secret)

    def opened(self, code: str) -> Address | None:
        """Return where such a path leads; None: it was not made here. It looks up nothing, so its time does not tell which runs there are."""
        run_id, _, rest = code.partition(".")
        given, *signed = rest.split(".", 2)
        if not hmac.compare_digest(given.encode(), self._code(run_id, *signed).encode()):
            return None
        if not signed:
            return Address(run_id=run_id)
        scheme, *secret = signed
        known = _SCHEMES.get(scheme)
        if known is None or not secret:  # of another version: whose messages it takes is not known, so it takes none
            return None
        return Address(run_id=run_id, scheme=known, secret=secret[0])

    def wait_s(self, run_id: str) -> float:
        """Count a message to a run; if it comes too early, count none and return how long it must wait."""
        now_s = self._now_s()
        free_at = max(self._free_at.pop(run_id, 0.0), now_s)
        wait_s = max(0.0, free_at - now_s - (BURST_MAX - 1) * PACE_S)
        self._free_at[run_id] = free_at if wait_s else free_at + PACE_S
        while len(self._free_at) > ADDRESSES_MAX:
            self._free_at.popitem(last=False)
        return wait_s

    def _code(self, run_id: str, *signed: str) -> str:
        named = b"\0".join(each.encode() for each in ("signed hook" if signed else "hook", run_id, *signed))
        return hmac.new(self._key, named, "sha256").hexdigest()[:DIGITS]
