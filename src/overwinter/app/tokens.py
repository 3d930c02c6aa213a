"""API tokens of people: made, listed, revoked, and recognised when somebody comes with one."""

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress

from overwinter.actor import called
from overwinter.clock import SECOND_US, Clock
from overwinter.errors import Conflict, HomeError, NotFound, UsageError
from overwinter.tokens import SCOPES, Scope, Token, Tokens, digest_of, id_of, is_spelt, spelt

__all__ = ["Access"]

DAYS_DEFAULT = 30
DAYS_MAX = 366
"""A token that nobody renews is one that nobody misses."""
LIVE_MAX = 50
"""Tokens of one person that count."""
TEXT_MAX = 200
SEEN_US_MAX = SECOND_US // 4
SEEN_MAX = 1_024
USED_US_MIN = 3_600 * SECOND_US
"""Last use is kept to the hour: a commit for each request would cost more than it tells."""


class Access:
    """Who may ask from elsewhere than the home's own socket."""

    def __init__(self, tokens: Tokens, clock: Clock, random: Callable[[int], bytes] = os.urandom) -> None:
        self._tokens, self._clock, self._random = tokens, clock, random
        self._seen = OrderedDict[str, tuple[int, Token]]()
        """Tokens that somebody came with: when each was looked up, and what was found."""

    async def create(  # noqa: PLR0913 - the options of a token
        self,
        person: str,
        *,
        by: str,
        name: str = "",
        scopes: Sequence[str] = ("read",),
        agents: str = "*",
        expires_s: float = DAYS_DEFAULT * 86_400.0,
    ) -> tuple[Token, str]:
        """Return a new token, as it is kept and as it is used. The second is to be had this once.

        Raises:
            UsageError: person, scope, pattern or lifetime is none.
            Conflict: the person has `LIVE_MAX` that count.
        """
        known: tuple[Scope, ...] = tuple(each for each in SCOPES if each in scopes)
        if not known or set(scopes) - set(known):
            raise UsageError(f"a token has scopes out of {', '.join(SCOPES)}, not {', '.join(scopes) or 'none'}")
        if not 0 < expires_s <= DAYS_MAX * 86_400:
            raise UsageError(f"a token expires within {DAYS_MAX} days, not after {expires_s / 86_400:g}")
        now_us, text = self._clock.now_us(), spelt(self._random(32))
        digest = digest_of(text)
        token = Token(
            id=id_of(digest),
            digest=digest,
            person=called(person),
            name=_line("name", name),
            scopes=known,
            agents=_line("agents", agents, is_strict=True),
            created_us=now_us,
            expires_us=now_us + round(expires_s * SECOND_US),
        )
        if not await self._tokens.add(token, by=by, live_max=LIVE_MAX):
            raise Conflict(
                f"{person} has {LIVE_MAX} tokens that count: revoke some, `overwinter token list` shows them"
            )
        return token, text

    def now_us(self) -> int:
        """Return the instant by which tokens end."""
        return self._clock.now_us()

    async def tokens(self) -> Sequence[Token]:
        """Return all tokens, the newest first; also those that count no more."""
        return await self._tokens.tokens()

    async def token(self, token_id: str) -> Token | None:
        """Return one by its id."""
        return await self._tokens.token(token_id)

    async def counts(self, token_id: str) -> bool:
        """Whether one that somebody came with counts still; asked before each part of a stream."""
        now_us = self._clock.now_us()
        token = await self._looked_up(token_id, now_us)
        return token is not None and token.is_live(now_us)

    async def revoke(self, token_id: str, *, by: str, reason: str = "") -> Token:
        """Revoke a token: no request that comes with it after this is answered.

        Raises:
            NotFound: there is none.
            Conflict: it was revoked before.
        """
        revoked = await self._tokens.revoke_token(token_id, by=by, reason=reason)
        self._seen.pop(token_id, None)
        if revoked is not None:
            return revoked
        if await self._tokens.token(token_id) is None:
            raise NotFound(f"there is no token {token_id!r}: `overwinter token list` shows them")
        raise Conflict(f"token {token_id} was revoked before")

    async def recognise(self, text: str) -> Token | None:
        """Return the token that a text is, if it counts at this moment."""
        if not is_spelt(text):
            return None
        now_us = self._clock.now_us()
        token = await self._looked_up(id_of(digest_of(text)), now_us)
        if token is None or not token.is_of(text) or not token.is_live(now_us):
            return None
        if token.used_us is None or now_us - token.used_us >= USED_US_MIN:
            self._seen.pop(token.id, None)
            with suppress(HomeError):  # on a full disk one can still look
                await self._tokens.used(token.id, now_us - now_us % USED_US_MIN)
        return token

    async def _looked_up(self, token_id: str, now_us: int) -> Token | None:
        """Return a token by its id.

        What was found serves for `SEEN_US_MAX`, and not beyond a revocation: `revoke` forgets it before it returns.
        """
        at_us, token = self._seen.get(token_id, (0, None))
        if token is not None and 0 <= now_us - at_us < SEEN_US_MAX:
            return token
        token = await self._tokens.token(token_id)
        if token is not None:
            self._seen[token_id] = now_us, token
            self._seen.move_to_end(token_id)
            while len(self._seen) > SEEN_MAX:
                self._seen.popitem(last=False)
        return token


def _line(what: str, text: str, *, is_strict: bool = False) -> str:
    """Return a short line of text; a person's has no comma, for approvers are listed with commas between them.

    Raises:
        UsageError: it is none.
    """
    if (
        len(text) > TEXT_MAX
        or not text.isprintable()
        or (is_strict and ("," in text or text != text.strip() or not text))
    ):
        raise UsageError(
            f"{what} is at most {TEXT_MAX} printable characters{', without a comma' * is_strict}, not {text!r:.60}"
        )
    return text
