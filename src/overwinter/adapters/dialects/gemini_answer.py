"""What Gemini says of the tokens of an answer, and a stream of it as one piece."""

from collections.abc import Iterable
from typing import Any

import msgspec

from overwinter.adapters.dialects.request import COUNT_MAX
from overwinter.gateway.usage import Usage

__all__ = ["Metadata", "as_whole", "usage_of"]

DEFAULT_TIERS = frozenset({"", "standard", "unspecified", "on_demand", "traffic_type_unspecified"})
AUDIO = "AUDIO"


class _Modality(msgspec.Struct, rename="camel"):
    modality: str | None = None
    token_count: int | None = None


class Metadata(msgspec.Struct, rename="camel"):
    """`usageMetadata`."""

    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    prompt_tokens_details: list[_Modality] | None = None
    cache_tokens_details: list[_Modality] | None = None
    candidates_tokens_details: list[_Modality] | None = None
    traffic_type: str | None = None
    service_tier: str | None = None


def usage_of(told: Metadata | None) -> Usage | None:
    """Return the counts of a usage; None if it has none, or none that can be.

    The prompt includes what was read from the cache, and sound; what tools brought comes on top of it. Thoughts are output
    beside the candidates.
    """
    if told is None or told.prompt_token_count is None:
        return None
    read, tools = told.cached_content_token_count or 0, told.tool_use_prompt_token_count or 0
    said, thought = told.candidates_token_count or 0, told.thoughts_token_count or 0
    heard = max(0, _audio(told.prompt_tokens_details) - _audio(told.cache_tokens_details))
    spoken = _audio(told.candidates_tokens_details)
    prompt = told.prompt_token_count
    if (
        min(prompt, read, tools, said, thought, spoken) < 0
        or max(prompt, read, tools, said, thought, spoken) > COUNT_MAX
    ):
        return None
    heard, spoken = min(heard, max(0, prompt - read)), min(spoken, said)
    tier = told.service_tier or told.traffic_type or ""
    tier = tier.lower().removeprefix("on_demand_") if tier else ""
    return Usage(
        fresh=max(0, prompt - read - heard) + tools,
        cache_read=read,
        output=said - spoken + thought,
        reasoning=thought,
        audio_input=heard,
        audio_output=spoken,
        tier="" if tier in DEFAULT_TIERS else tier,
    )


def _audio(details: list[_Modality] | None) -> int:
    count = 0
    for each in details or ():
        if each.modality == AUDIO:
            count += each.token_count or 0
    return count


def as_whole(contents: Iterable[bytes]) -> bytes:
    """Return the answer that chunks are the pieces of."""
    answer, candidates = dict[str, Any](), dict[int, dict[str, Any]]()
    for content in contents:
        chunk = msgspec.json.decode(content)
        for each in chunk.pop("candidates", None) or ():
            candidate = candidates.setdefault(each.get("index") or 0, {"content": {"parts": []}})
            said = each.pop("content", None) or {}
            for part in said.pop("parts", None) or ():
                _join(candidate["content"]["parts"], part)
            candidate["content"].update(said)
            candidate.update(each)
        answer.update(chunk)
    if candidates:
        answer["candidates"] = [candidate for _, candidate in sorted(candidates.items())]
    return msgspec.json.encode(answer)


def _join(parts: list[dict[str, Any]], part: dict[str, Any]) -> None:
    """Add a part: more of the same text continues the last one."""
    last = parts[-1] if parts else {}
    if "text" in part and "text" in last and part.keys() - {"text"} <= {"thought", "thoughtSignature"}:
        is_same = bool(part.get("thought")) == bool(last.get("thought")) and "thoughtSignature" not in last
        if is_same and last.keys() <= {"text", "thought"}:
            last.update(part | {"text": last["text"] + part["text"]})
            return
    parts.append(part)
