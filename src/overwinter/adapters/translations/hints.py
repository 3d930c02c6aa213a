"""What a request of messages says that changes no answer of a chat model: left out, each by its name on these lists, never else.

Claude Code marks every prompt for a cache and names a dozen betas; refused for that, it could ask no model but Anthropic's. A beta
lets a request have fields, which are judged by themselves. What asks for another answer (a budget for thinking, an effort, edits of
the conversation) is no hint.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from overwinter.frozen import replace
from overwinter.gateway.dialect import Asked

__all__ = ["BETAS", "bare", "plain"]

BETAS = frozenset({
    "adaptive-thinking", "advanced-tool-use", "advisor-tool", "claude-code", "context-1m", "context-management", "effort",
    "extended-cache-ttl", "fast-mode", "fine-grained-tool-streaming", "inline-tools", "interleaved-thinking", "mid-conversation-system",
    "mid-conversation-tool-changes", "model-context-window-exceeded", "oauth", "output-128k", "per-turn-control", "prompt-caching",
    "prompt-caching-scope", "redact-thinking", "structured-outputs", "thinking-token-count", "token-counting", "token-efficient-tools",
    "tool-examples", "tool-search-tool",
})  # fmt: skip
"""By their names without the date. Each lets a request have a field, or says how an answer is counted, cut into events or kept."""
_DATED = re.compile(r"(.+?)-(\d{8}|\d{4}-\d{2}-\d{2})")
HEADERS = frozenset({"anthropic-dangerous-direct-browser-access"})
_Note = Callable[[str], None]


def bare(asked: Asked) -> tuple[Asked, tuple[str, ...]]:
    """Return a request without the hints in its address and headers, and which those were."""
    left, headers = list[str](), dict(asked.headers)
    split = urlsplit(asked.path)
    is_beta = parse_qsl(split.query, keep_blank_values=True) == [("beta", "true")]
    if is_beta:
        left.append("?beta=true")
    flags = [each.strip() for each in headers.pop("anthropic-beta", "").split(",") if each.strip()]
    others = [each for each in flags if (found := _DATED.fullmatch(each)) is None or found[1] not in BETAS]
    left += [f"anthropic-beta: {each}" for each in flags if each not in others]
    headers |= {"anthropic-beta": ", ".join(others)} if others else {}
    left += [name for name in HEADERS if headers.pop(name, None) is not None]
    return replace(asked, path=split.path if is_beta else asked.path, headers=headers), tuple(left)


def plain(given: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the fields of a request without its hints, and which those were: by their places, each kind once."""
    left = dict[str, None]()
    note: _Note = left.setdefault
    fields = dict(given)
    for name, is_hint in TOP.items():
        if name in fields and is_hint(fields[name]):
            note(name)
            del fields[name]
    for name, is_deep in (("system", False), ("tools", False), ("messages", True)):
        if isinstance(fields.get(name), list):
            fields[name] = [
                _message(each, note) if is_deep else _block(each, f"{name}[]", note) for each in fields[name]
            ]
    return fields, tuple(left)


def _message(message: Any, note: _Note) -> Any:
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return message
    return {**message, "content": [_block(each, "messages[].content[]", note) for each in message["content"]]}


def _block(block: Any, place: str, note: _Note) -> Any:
    """Return a block, or a tool, without its marks; those in the result of a tool too."""
    if not isinstance(block, dict):
        return block
    for name in MARKS & block.keys():
        note(f"{place}.{name}")
    found = {name: value for name, value in block.items() if name not in MARKS}
    if found.get("type") == "tool_result" and isinstance(found.get("content"), list):
        found["content"] = [_block(each, f"{place}.content[]", note) for each in found["content"]]
    return found


MARKS = frozenset({"cache_control", "eager_input_streaming"})
"""What its provider keeps, and how it cuts the arguments of a call into events."""


def _is_owner(value: Any) -> bool:
    """Whether it says only who asks."""
    return isinstance(value, dict) and value.keys() <= {"user_id"}


def _is_free_to_think(value: Any) -> bool:
    """Whether a model may think as it sees fit: one of chat completions does so unasked."""
    return isinstance(value, dict) and value.get("type") == "adaptive" and value.keys() <= {"type", "display"}


def _is_usual_effort(value: Any) -> bool:
    """Whether it asks for no other effort than a request without it."""
    return isinstance(value, dict) and value in ({}, {"effort": "high"})


def _is_about_thoughts(value: Any) -> bool:
    """Whether it edits only what the model thought before: of that nothing is carried, and what comes back is refused."""
    if not isinstance(value, dict) or value.keys() - {"edits"} or not isinstance(value.get("edits", []), list):
        return False
    return all(
        isinstance(each, dict) and str(each.get("type", "")).startswith("clear_thinking_")
        for each in value.get("edits", [])
    )


TOP: Mapping[str, Callable[[Any], bool]] = {
    "cache_control": lambda value: isinstance(value, dict),
    "metadata": _is_owner,
    "thinking": _is_free_to_think,
    "output_config": _is_usual_effort,
    "context_management": _is_about_thoughts,
}
"""Fields of a request, and which of their values are hints."""
