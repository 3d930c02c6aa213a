"""API tokens of people: how one is spelt, what it lets through, and where they are kept.

    ow_  43 letters and digits: 256 random bits  6 letters and digits: CRC-32 of those

The prefix and the checksum are for scanners of source code and logs: what has both is a token, and nothing else is. Only the
SHA-256 of a token is ever stored. A slow hash is for passwords; what has 256 random bits cannot be guessed from its digest.
"""

import hashlib
import hmac
import re
import zlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal, Protocol, get_args

from overwinter.frozen import frozen

__all__ = ["FORM", "PREFIX", "SCOPES", "Scope", "Token", "Tokens", "digest_of", "id_of", "is_spelt", "spelt"]

Scope = Literal["read", "act", "approve", "admin", "models"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""`read`: look. `act`: start, message and stop runs. `approve`: answer what people are asked. `admin`: revoke, restore, accept.
`models`: call models. None of them holds another."""
PREFIX = "ow_"
SECRET_BYTES = 32
SECRET_LETTERS = 43
"""62**43 is the first power above 2**256."""
CHECKSUM_LETTERS = 6
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FORM = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{SECRET_LETTERS}}})([0-9A-Za-z]{{{CHECKSUM_LETTERS}}})")
ID_BYTES = 8


@frozen
class Token:
    """An API token as the store has it: everything but the token."""

    id: str
    """`t-` and the first 16 digits of its digest: names it, and opens nothing."""
    digest: bytes
    """SHA-256 of its text."""
    person: str
    """Who acts with it: an address or a name."""
    name: str = ""
    """For people: where it is used."""
    scopes: tuple[Scope, ...]
    agents: str = "*"
    """Pattern of the agents that it concerns."""
    created_us: int
    expires_us: int
    """Microseconds UTC. Every token has an end."""
    used_us: int | None = None
    """When it was last used, to the hour; None: never."""
    revoked_us: int | None = None

    def is_live(self, now_us: int) -> bool:
        """Whether it counts at an instant."""
        return self.revoked_us is None and now_us < self.expires_us

    def concerns(self, agent: str) -> bool:
        """Whether it may be used for what an agent is or did."""
        return fnmatchcase(agent, self.agents)

    def is_of(self, text: str) -> bool:
        """Whether a text is this token, in a time that does not tell how much of it is right."""
        return hmac.compare_digest(self.digest, digest_of(text))


class Tokens(Protocol):
    """The API tokens of a home. Making and revoking one is an entry of the audit log, in its own commit."""

    async def add(self, token: Token, *, by: str, live_max: int) -> bool:
        """Write a token down; False: its person has `live_max` that count."""
        ...

    async def token(self, token_id: str) -> Token | None:
        """Return one, whether or not it counts."""
        ...

    async def tokens(self) -> Sequence[Token]:
        """Return all, the newest first."""
        ...

    async def revoke_token(self, token_id: str, *, by: str, reason: str = "") -> Token | None:
        """Revoke one for ever; None: there is none, or it was revoked before."""
        ...

    async def used(self, token_id: str, at_us: int) -> None:
        """Note when it was last used."""
        ...


def spelt(random: bytes) -> str:
    """Return the token that 32 random bytes make."""
    assert len(random) == SECRET_BYTES, f"a token has {SECRET_BYTES} random bytes, not {len(random)}"
    secret = _base62(int.from_bytes(random), SECRET_LETTERS)
    return f"{PREFIX}{secret}{_checksum(secret)}"


def is_spelt(text: str) -> bool:
    """Whether a text can be a token at all: what is mistyped or cut short is known without looking it up."""
    found = FORM.fullmatch(text)
    return found is not None and _checksum(found[1]) == found[2]


def digest_of(text: str) -> bytes:
    """Return what is stored of a token."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def id_of(digest: bytes) -> str:
    """Return the name of the token with this digest."""
    return f"t-{digest[:ID_BYTES].hex()}"


def _checksum(secret: str) -> str:
    return _base62(zlib.crc32(secret.encode()), CHECKSUM_LETTERS)


def _base62(number: int, letters: int) -> str:
    text = ""
    for _ in range(letters):
        number, rest = divmod(number, len(ALPHABET))
        text = ALPHABET[rest] + text
    return text
