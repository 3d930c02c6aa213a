"""What Anthropic says of the tokens of an answer: counts at its start, and the same ones again, grown, at its end."""

import msgspec

from overwinter.adapters.dialects.request import COUNT_MAX
from overwinter.frozen import replace
from overwinter.gateway.tap import BYTES_PER_TOKEN
from overwinter.gateway.usage import Usage

__all__ = ["Counts", "Told", "decoded", "placed"]

DEFAULT_TIERS = frozenset({"", "standard"})
ANYWHERE = frozenset({"", "global", "not_available"})
"""Where an answer is made that costs what the table says; the last is what older models say."""
APART = frozenset({"compaction", "advisor_message"})
"""Rounds that are not in the counts of the whole."""


class _Lives(msgspec.Struct):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class _Served(msgspec.Struct):
    web_search_requests: int | None = None


class _Details(msgspec.Struct):
    thinking_tokens: int | None = None


class Told(msgspec.Struct):
    """A usage as it comes; what is not said in it holds as it was said before."""

    input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: _Lives | None = None
    output_tokens: int | None = None
    output_tokens_details: _Details | None = None
    server_tool_use: _Served | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    iterations: "list[_Round] | None" = None


class _Round(Told):
    """One of several rounds of sampling in one answer."""

    type: str = ""
    model: str | None = None


_TOLD = msgspec.json.Decoder(Told)


def decoded(raw: bytes) -> Told | None:
    """Return a usage as it came; None if there is none that can be read."""
    if raw == b"null":
        return None
    try:
        return _TOLD.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None


def placed(tier: str, geo: str | None) -> str:
    """Return a tier with where the answer is made behind it, if that has a price of its own: `us`, `fast+us`."""
    return tier if (geo or "") in ANYWHERE else f"{tier}+{geo}".removeprefix("+")


class Counts:
    """The counts of one answer. Later ones are cumulative: they stand in place of the earlier, and are never added.

    Args:
        geo: where it was asked to be made, for answers that do not say where it was.
    """

    def __init__(self, geo: str = "") -> None:
        self._told = Told(inference_geo=geo or None)
        self._is_wrong = False
        self._seen = 0
        self._usage: Usage | None = None

    def saw(self, text: str | None) -> None:
        """Take note of output, what was thought included: an answer that is cut has no count of it."""
        if text:
            self._seen += len(text)

    def estimated(self) -> Usage | None:
        """Return the counts at the end of a block, by what was seen: what was thought is in no other estimate."""
        if self._usage is None:
            return None
        return replace(
            self._usage, output=max(self._usage.output, -(-self._seen // BYTES_PER_TOKEN)), source="estimated"
        )

    def take(self, told: Told | None) -> Usage | None:
        """Return what has been used by now; None if nobody has said it, or what cannot be."""
        if told is None:
            return None
        before = self._told
        for name in Told.__struct_fields__:
            if getattr(told, name) is None:
                setattr(told, name, getattr(before, name))
        self._told = told
        self._is_wrong = self._is_wrong or not _is_possible(told)
        self._usage = None if self._is_wrong or told.output_tokens is None else _usage(told)
        return self._usage


def _is_possible(told: Told) -> bool:
    lives, served = told.cache_creation or _Lives(), told.server_tool_use or _Served()
    counts = (
        told.input_tokens, told.cache_read_input_tokens, told.cache_creation_input_tokens, told.output_tokens,
        lives.ephemeral_5m_input_tokens, lives.ephemeral_1h_input_tokens, served.web_search_requests,
        (told.output_tokens_details or _Details()).thinking_tokens,
    )  # fmt: skip
    return all(0 <= (each or 0) <= COUNT_MAX for each in counts) and all(map(_is_possible, told.iterations or ()))


def _usage(told: Told) -> Usage:
    """Return counts in which no token is twice.

    Only the start splits what was written by its time to live. What the end has more of is priced as the longer one.
    """
    written = told.cache_creation_input_tokens or 0
    long = 0
    if told.cache_creation is not None:
        short = told.cache_creation.ephemeral_5m_input_tokens or 0
        long = max(written, short + (told.cache_creation.ephemeral_1h_input_tokens or 0)) - short
        written = short
    speed, tier = told.speed or "", told.service_tier or ""
    tier = speed if speed not in DEFAULT_TIERS else "" if tier in DEFAULT_TIERS else tier
    usage = Usage(
        fresh=told.input_tokens or 0,
        cache_read=told.cache_read_input_tokens or 0,
        cache_write=written,
        cache_write_long=long,
        output=told.output_tokens or 0,
        reasoning=(told.output_tokens_details or _Details()).thinking_tokens or 0,
        searches=(told.server_tool_use or _Served()).web_search_requests or 0,
        tier=placed(tier, told.inference_geo),
    )
    return _by_rounds(usage, told.iterations) if told.iterations else usage


def _by_rounds(usage: Usage, rounds: list[_Round]) -> Usage:
    """Return the counts with what other models did, each under its name.

    When another model served the answer, its last round is the answer's and the rounds before it are the asked model's.
    """
    apart = tuple(_of_round(each, usage.tier) for each in rounds if each.type in APART)
    served = next((each for each in rounds if each.type == "fallback_message"), None)
    if served is None:
        return replace(usage, also=apart)
    before = tuple(_of_round(each, usage.tier) for each in rounds if each.type == "message")
    return replace(_of_round(served, usage.tier), searches=usage.searches, also=(*before, *apart))


def _of_round(each: _Round, tier: str) -> Usage:
    return replace(_usage(each), model=each.model or "", tier=tier, also=())
