"""What an agent shows of itself elsewhere: signed documents and short-lived tokens, JWTs by Ed25519 of the home's issuer key.

| `typ` | what | lives | claims besides `iss`, `sub`, `iat`, `nbf`, `exp`, `jti` |
|---|---|---|---|
| `agent-identity+jwt` | a document of an agent | a day | `owner`, `purpose`, `parent`, `rules`, `models`, `not_after` |
| `agent-call+jwt` | the principal of one attempt at a call | 60 s | `aud`: one origin; `act`: the agents, the acting one outermost; `call` |

A document's `sub` is the agent, `agent:home/name@epoch`. A call's `sub` is the person who answers for it (RFC 8693, 4.1: it acts
on their behalf). Neither outlives the authority of an agent in its chain, and none is made for one that may not act.

Whoever verifies takes the keys from `/.well-known/jwks.json` and accepts the `typ` that it expects, `Ed25519` alone, and itself
as `aud` (RFC 8725). It sees no revocation within the 60 s; our own verifier does, for it compares the epochs.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from overwinter.adapters.key_files import key_in, make_key, write_private
from overwinter.clock import SECOND_US, Clock
from overwinter.errors import HomeDamaged, NotFound, OverwinterError, Revoked
from overwinter.events import Call
from overwinter.frozen import frozen, replace
from overwinter.identity import Identity, chain, name_of
from overwinter.registry import Registry

__all__ = [
    "CALL",
    "DOCUMENT",
    "IdentityRefused",
    "Issuer",
    "Kind",
    "Mint",
    "Replays",
    "Retired",
    "issuer_in",
    "next_issuer",
    "read",
]

Kind = Literal["agent-identity+jwt", "agent-call+jwt"]
DOCUMENT: Kind = "agent-identity+jwt"
CALL: Kind = "agent-call+jwt"
ALGORITHM = "Ed25519"
"""RFC 9864. `EdDSA` says as little as `some curve`, and is refused."""
LIVES_S: Mapping[Kind, int] = {DOCUMENT: 86_400, CALL: 60}
NEEDED: Mapping[Kind, Sequence[str]] = {
    DOCUMENT: ("iss", "sub", "iat", "nbf", "exp", "jti", "owner", "purpose", "rules", "models"),
    CALL: ("iss", "sub", "aud", "iat", "nbf", "exp", "jti", "act", "call"),
}
"""Claims without which a token is refused."""
GRACE_S = 3_600
"""How long what a key signed counts once another one is in its place: calls live a minute, a document is had again any time."""
RETIRED_MAX = 8
"""Keys before the present one that may count at once; of more the oldest count no longer."""
TEXT_MAX = 16_384
JTI_BYTES = 16
REPLAYS_MAX = 100_000
ACTORS_MAX = 16
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
Keys = Mapping[str, Any]
"""A JSON Web Key Set, as `/.well-known/jwks.json` has it."""


class IdentityRefused(OverwinterError):
    """An identity is not what it says, or counts no more. Never retry with the same. The message holds nothing of it."""


@frozen
class Retired:
    """A key that signs no more; what it signed counts until an instant."""

    raw: bytes
    """The public key."""
    until_s: int
    """Seconds since 1970-01-01 UTC, exclusive."""


@frozen
class Issuer:
    """Who signs for a home. Its `repr` holds nothing secret."""

    name: str
    """`iss`: the home, `overwinter/` and its id."""
    private: Ed25519PrivateKey
    retired: Sequence["Retired"] = ()
    """Keys before this one."""

    @classmethod
    def of(cls, seed: bytes, name: str) -> "Issuer":
        """Return the issuer that 32 random bytes make."""
        return cls(name=name, private=Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def raw(self) -> bytes:
        """Return the public key."""
        return self.private.public_key().public_bytes_raw()

    def keys(self, now_s: int | None = None) -> dict[str, Any]:
        """Return what others verify with: the key that signs, and those before it that still count; each named by its thumbprint.

        Args:
            now_s: whole seconds since 1970-01-01 UTC; None: the key that signs alone.
        """
        before = [
            each.raw for each in self.retired if now_s is not None and now_s < each.until_s and each.raw != self.raw
        ]
        return {"keys": [_row(raw) for raw in (self.raw, *before)]}

    def document(self, identities: Sequence[Identity], *, rules: str, now_s: int, jti: str) -> str:
        """Return the document of an agent.

        Args:
            identities: the agent and those above it, itself first; all may act.
            rules: digest of the rules that hold.
            now_s: whole seconds since 1970-01-01 UTC.
            jti: names this document.
        """
        agent = identities[0]
        end_s = _end_s(identities)
        own: dict[str, Any] = {
            "sub": name_of(agent),
            "owner": agent.owner,
            "purpose": agent.purpose,
            "parent": name_of(identities[1]) if len(identities) > 1 else None,
            "rules": rules,
            "models": list(agent.models),
            "not_after": end_s,
        }
        return self._signed(DOCUMENT, own, end_s=end_s, now_s=now_s, jti=jti)

    def call(self, identities: Sequence[Identity], *, key: str, audience: str, now_s: int, jti: str) -> str:
        """Return the token of one attempt at a call.

        Args:
            identities: as above.
            key: of the call, `run:index`.
            audience: origin of the service that gets it.
            now_s: as above.
            jti: names this token.
        """
        act: dict[str, Any] | None = None
        for each in reversed(identities):  # RFC 8693, 4.1: the outermost acts, the others delegated before it
            act = {"sub": name_of(each)} if act is None else {"sub": name_of(each), "act": act}
        own = {"sub": identities[0].owner, "aud": audience, "act": act, "call": key}
        return self._signed(CALL, own, end_s=_end_s(identities), now_s=now_s, jti=jti)

    def _signed(self, kind: Kind, own: dict[str, Any], *, end_s: int | None, now_s: int, jti: str) -> str:
        from joserfc import jwt  # noqa: PLC0415 - it takes 70 ms, and most homes show nobody an identity
        from joserfc.jwk import OKPKey  # noqa: PLC0415 - the same

        until_s = now_s + LIVES_S[kind]
        times = {"iat": now_s, "nbf": now_s, "exp": until_s if end_s is None else min(until_s, end_s)}
        header = {"alg": ALGORITHM, "typ": kind, "kid": self.keys()["keys"][0]["kid"]}
        key = OKPKey.import_key(self.private)
        return jwt.encode(header, {"iss": self.name, **times, "jti": jti, **own}, key, algorithms=[ALGORITHM])


def issuer_in(place: Path, name: str) -> Issuer:
    """Return the issuer of a key file, made if there is none: what it signed before cannot be verified any more then.

    Raises:
        HomeDamaged: the key is not whole, or open to others; or the list of those before it is not whole.
    """
    if not place.exists():
        place.parent.mkdir(mode=0o700, exist_ok=True)
        make_key(place)
    return replace(Issuer.of(key_in(place), name), retired=_retired(place.with_suffix(".retired")))


def next_issuer(place: Path, issuer: Issuer, now_s: int) -> Issuer:
    """Put a new key in the place of an issuer's; what the one before signed counts for `GRACE_S`, its private half is gone.

    A crash in between leaves one of the two, whole; with the one before, it is also listed as retired, which changes nothing.
    """
    last = Retired(raw=issuer.raw, until_s=now_s + GRACE_S)
    retired = (last, *(each for each in issuer.retired if each.until_s > now_s))[:RETIRED_MAX]
    rows = [{"x": _base64(each.raw), "until": each.until_s} for each in retired]
    write_private(place.with_suffix(".retired"), json.dumps(rows, indent=1).encode())
    make_key(place)
    return replace(Issuer.of(key_in(place), issuer.name), retired=retired)


def _retired(place: Path) -> tuple[Retired, ...]:
    try:
        rows = cast("list[dict[str, Any]]", json.loads(place.read_bytes()))
        found = [Retired(raw=base64.urlsafe_b64decode(row["x"] + "="), until_s=int(row["until"])) for row in rows]
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HomeDamaged(
            f"{place} is damaged: delete it, if no identity from before the last new key must count"
        ) from error
    return tuple(found)


class Replays:
    """Tokens that were seen and have not ended, in bounded memory; full, it takes none: doubt means deny."""

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}

    def is_new(self, jti: str, end_s: int, now_s: int) -> bool:
        """Whether a token comes for the first time; from now on it does not."""
        if len(self._ends) >= REPLAYS_MAX:
            self._ends = {name: end for name, end in self._ends.items() if end > now_s}
        if jti in self._ends or len(self._ends) >= REPLAYS_MAX:
            return False
        self._ends[jti] = end_s
        return True


def read(  # noqa: PLR0913 - all that a token is held against
    text: str, keys: Keys, *, issuer: str, kind: Kind, now_s: int, audience: str | None = None
) -> Mapping[str, Any]:
    """Return the claims of a token that an issuer signed, and that counts at an instant, to the second.

    It does not know of revocation and replays: `Mint.verified` does.

    Args:
        text: the token.
        keys: the issuer's.
        issuer: who must have signed.
        kind: what it must be.
        now_s: whole seconds since 1970-01-01 UTC, by the verifier's clock; no leeway.
        audience: who must be meant; None if it is a document.

    Raises:
        IdentityRefused: it is anything else.
    """
    from joserfc import jwt  # noqa: PLC0415 - as in `_signed`
    from joserfc.errors import JoseError  # noqa: PLC0415 - the same
    from joserfc.jwk import OKPKey  # noqa: PLC0415 - the same

    assert (audience is None) == (kind == DOCUMENT), "a call's token is for one audience, a document for all"
    header = _header(text)
    if set(header) != {"alg", "typ", "kid"} or header["alg"] != ALGORITHM or header["typ"] != kind:
        raise IdentityRefused(f"this is no {kind} signed by {ALGORITHM}")
    rows = [each for each in keys.get("keys", ()) if each.get("kid") == header["kid"] and each.get("crv") == "Ed25519"]
    if len(rows) != 1:
        raise IdentityRefused(f"a {kind} is signed with a key that {issuer} has not")
    try:
        key = OKPKey.import_key({name: rows[0][name] for name in ("kty", "crv", "x")})
        claims = jwt.decode(text, key, algorithms=[ALGORITHM]).claims
        jwt.JWTClaimsRegistry(now=now_s, leeway=0, **_claims(issuer, kind, audience)).validate(claims)
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise IdentityRefused(f"a {kind} is refused: {getattr(error, 'error', type(error).__name__)}") from error
    lives_s = claims["exp"] - claims["iat"]
    if any(type(claims[each]) is not int for each in ("iat", "nbf", "exp")) or not 0 < lives_s <= LIVES_S[kind]:
        raise IdentityRefused(f"a {kind} is refused: it lives {lives_s} s, at most {LIVES_S[kind]}")
    if (
        audience is not None and claims["aud"] != audience
    ):  # a list is for several, and none of them knows who else has it
        raise IdentityRefused(f"a {kind} is refused: it is for several audiences")
    return claims


class Mint:
    """Makes identities for agents that may act at this moment, and knows them again.

    Args:
        issuer: signs.
        registry: says who may act.
        clock: the home's.
        rules: returns the digest of the rules that hold.
        random: names tokens.
    """

    def __init__(
        self,
        issuer: Issuer,
        registry: Registry,
        clock: Clock,
        rules: Callable[[], str],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.issuer, self._rules = issuer, rules
        self._registry, self._clock, self._random = registry, clock, random
        self._replays = Replays()

    def keys(self) -> dict[str, Any]:
        """Return what others verify with at this moment."""
        return self.issuer.keys(self._now_s())

    def counts_s(self, most_s: int) -> int:
        """Return for how many seconds all of the keys count, at most so many."""
        now_s = self._now_s()
        return min([most_s, *(each.until_s - now_s for each in self.issuer.retired if each.until_s > now_s)])

    def next(self, place: Path) -> Retired:
        """Sign with a new key from now on, in this file; return the one before."""
        self.issuer = next_issuer(place, self.issuer, self._now_s())
        return self.issuer.retired[0]

    async def document(self, agent: str) -> str:
        """Return the document of an agent.

        Raises:
            NotFound: there is none.
            Revoked: it, or one above it, may not act.
        """
        identities = await self._acting(agent)
        return self.issuer.document(identities, rules=self._rules(), now_s=self._now_s(), jti=self._jti())

    async def for_call(self, call: Call, audience: str) -> str:
        """Return the token of one attempt at a call, for the service that gets it.

        Raises:
            NotFound: its agent is unknown.
            Revoked: it, or one above it, may not act.
        """
        identities = await self._acting(call.agent)
        return self.issuer.call(identities, key=call.key, audience=audience, now_s=self._now_s(), jti=self._jti())

    async def verified(self, text: str, *, kind: Kind, audience: str | None = None) -> Mapping[str, Any]:
        """Return the claims of an identity of this home; of a call's token once, and only while its agents stand as it says.

        Raises:
            IdentityRefused: it is forged, over, for somebody else, of another epoch, or was here before.
        """
        name, now_s = self.issuer.name, self._now_s()
        claims = read(text, self.issuer.keys(now_s), issuer=name, kind=kind, now_s=now_s, audience=audience)
        named = _actors(claims) if kind == CALL else (str(claims["sub"]),)
        agent = named[0].partition("/")[2].rpartition("@")[0]
        try:
            standing = tuple(map(name_of, await self._acting(agent)))
        except (NotFound, Revoked) as error:
            raise IdentityRefused(f"a {kind} is refused: {error}") from error
        if named != (standing if kind == CALL else standing[:1]):
            raise IdentityRefused(f"a {kind} is refused: {agent!r} stands otherwise by now than it says")
        if kind == CALL and not self._replays.is_new(str(claims["jti"]), claims["exp"], now_s):
            raise IdentityRefused(f"a {kind} is refused: it was here before")
        return claims

    async def _acting(self, agent: str) -> tuple[Identity, ...]:
        """Return an agent and those above it, itself first, if all of them may act."""
        found = chain(agent, await self._registry.identities())
        if not found:
            raise NotFound(f"there is no agent {agent!r}: `overwinter agents` lists them")
        for each in found:
            if each.is_revoked:
                raise Revoked(f"agent {each.name!r} was revoked: it gets no identity")
            if each.expires_us is not None and each.expires_us // SECOND_US <= self._now_s():
                raise Revoked(f"the authority of agent {each.name!r} has ended: it gets no identity")
        return found

    def _now_s(self) -> int:
        return self._clock.now_us() // SECOND_US

    def _jti(self) -> str:
        return _base64(self._random(JTI_BYTES))


def _row(raw: bytes) -> dict[str, str]:
    """Return a key as a JSON Web Key."""
    row = {"crv": "Ed25519", "kty": "OKP", "x": _base64(raw)}
    spelt = json.dumps(row, separators=(",", ":")).encode()  # RFC 7638, 3: sorted, without spaces
    kid = _base64(hashlib.sha256(spelt).digest())
    return {**row, "kid": kid, "alg": ALGORITHM, "use": "sig"}


def _claims(issuer: str, kind: Kind, audience: str | None) -> dict[str, Any]:
    """Return what each claim of a token must be."""
    can_be_blank = ("purpose", "models")
    wanted: dict[str, Any] = {name: {"essential": True, "allow_blank": name in can_be_blank} for name in NEEDED[kind]}
    wanted["iss"]["value"] = issuer
    if audience is not None:
        wanted["aud"]["value"] = audience
    return wanted


def _header(text: str) -> Mapping[str, Any]:
    """Return the header of a token that is spelt in the one way in which it can be: base 64 has several for the same bytes."""
    if len(text) > TEXT_MAX or _FORM.fullmatch(text) is None:
        raise IdentityRefused("this is no JWT")
    try:
        parts = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.split(".")]
        header: object = json.loads(parts[0])
    except (ValueError, RecursionError) as error:
        raise IdentityRefused("this is no JWT") from error
    spelt = ".".join(map(_base64, parts))
    if spelt != text or not isinstance(header, dict):
        raise IdentityRefused("this is no JWT, or not in its one spelling")
    return cast("dict[str, Any]", header)


def _actors(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the agents of a call's token, the acting one first."""
    found: list[str] = []
    act: Any = claims["act"]
    while isinstance(act, dict) and len(found) <= ACTORS_MAX:
        row = cast("dict[str, Any]", act)
        found.append(str(row.get("sub")))
        act = row.get("act")
    if not found or len(found) > ACTORS_MAX:
        raise IdentityRefused("a token names no agents")
    return tuple(found)


def _base64(raw: bytes) -> str:
    """Return bytes as RFC 7515 writes them: URL-safe, without padding."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _end_s(identities: Sequence[Identity]) -> int | None:
    """Return when the first authority of a chain ends."""
    return min((each.expires_us // SECOND_US for each in identities if each.expires_us is not None), default=None)
