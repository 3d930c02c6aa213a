"""What OpenAI's wire formats have in common: counts, tiers, errors."""

import msgspec

from overwinter.adapters.dialects.refusals import status_of_word
from overwinter.adapters.dialects.request import COUNT_MAX
from overwinter.gateway.usage import Usage

__all__ = ["failure_of", "tier_of", "usage_of"]

DEFAULT_TIERS = frozenset({"", "auto", "default", "standard"})


class _Written(msgspec.Struct):
    ttl_12h_tokens: int | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None
    cache_write_tokens_details: _Written | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class _Usage(msgspec.Struct):
    """A usage in the words of chat and embeddings, or in those of Responses."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Error(msgspec.Struct):
    message: str | None = None
    type: str | None = None
    code: str | int | None = None


_USAGE = msgspec.json.Decoder(_Usage)


def tier_of(word: str | None) -> str:
    """Return a service tier; "" for the default one."""
    return "" if word is None or word in DEFAULT_TIERS else word


def usage_of(raw: bytes, tier: str | None, model: str = "") -> Usage | None:
    """Return the counts of a usage; None if it has none, or none that can be.

    The input includes what was read from the cache, written to it, and sound; the output includes reasoning, rejected
    predictions and sound.
    """
    try:
        found = _USAGE.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None
    input_all = found.prompt_tokens if found.input_tokens is None else found.input_tokens
    if input_all is None:
        return None
    output_all = (found.completion_tokens if found.output_tokens is None else found.output_tokens) or 0
    into = found.prompt_tokens_details or found.input_tokens_details or _InputDetails()
    out = found.completion_tokens_details or found.output_tokens_details or _OutputDetails()
    read, written, heard = into.cached_tokens or 0, into.cache_write_tokens or 0, into.audio_tokens or 0
    reasoning, spoken = out.reasoning_tokens or 0, out.audio_tokens or 0
    long = (into.cache_write_tokens_details or _Written()).ttl_12h_tokens or 0
    if not all(
        0 <= each <= COUNT_MAX for each in (input_all, output_all, read, written, heard, reasoning, spoken, long)
    ):
        return None
    long = min(long, written)
    heard = min(heard, max(0, input_all - read - written))  # some of what was heard may have been read from the cache
    return Usage(
        fresh=max(0, input_all - read - written - heard),
        cache_read=read,
        cache_write=written - long,
        cache_write_long=long,
        output=max(0, output_all - spoken),
        reasoning=reasoning,
        audio_input=heard,
        audio_output=spoken,
        tier=tier_of(tier),
        model=model,
    )


def failure_of(raw: bytes) -> tuple[int, str]:
    """Return the status that an error stands for, and what it says."""
    try:
        error = msgspec.json.decode(raw, type=_Error)
    except (msgspec.MsgspecError, RecursionError):
        return 500, raw.decode("utf-8", "replace").strip('"')
    return status_of_word(error.code, error.type), error.message or str(error.code or error.type or "")
