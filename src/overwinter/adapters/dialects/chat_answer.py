"""A chat completion as a stream and as one piece, each made from the other."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from overwinter.adapters.dialects import request
from overwinter.adapters.dialects.chat_calls import Calls
from overwinter.adapters.dialects.events import framed
from overwinter.gateway.dialect import Asked

__all__ = ["as_stream", "as_whole", "asks_for_usage"]

GROWING = frozenset(
    {"content", "refusal", "reasoning_content", "reasoning", "arguments", "input", "data", "transcript"}
)
"""Strings of a delta that continue the ones before; others are said once."""


def asks_for_usage(asked: Asked) -> bool:
    """Whether a request asks for the usage of its stream."""
    return request.boolean(request.members(asked.top.get("stream_options"), "stream_options"), "include_usage")


def as_whole(contents: Iterable[bytes]) -> bytes:
    """Return the answer that chunks are the pieces of."""
    answer, choices, calls = dict[str, Any](), dict[int, dict[str, Any]](), dict[int, Calls]()
    for content in contents:
        if content == b"[DONE]":
            continue
        chunk = msgspec.json.decode(content)
        for each in chunk.pop("choices", None) or ():
            index, delta = each.get("index") or 0, each.pop("delta", None) or {}
            choice = choices.setdefault(index, {"index": 0, "message": {}, "logprobs": None, "finish_reason": None})
            called = delta.pop("tool_calls", None) or ()
            _join(choice["message"], delta)
            if called:
                _join_calls(choice["message"].setdefault("tool_calls", {}), called, calls.setdefault(index, Calls()))
            logprobs = each.pop("logprobs", None)
            if logprobs:
                choice["logprobs"] = choice["logprobs"] or {}
                _join(choice["logprobs"], logprobs)
            choice.update({key: value for key, value in each.items() if value is not None})
        answer.update({key: value for key, value in chunk.items() if value is not None or key not in answer})
    answer["object"] = "chat.completion"
    answer["choices"] = [_finished(choice) for _, choice in sorted(choices.items())]
    return msgspec.json.encode(answer)


def _join(into: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add a delta to what has been said."""
    for key, value in delta.items():
        before = into.get(key)
        if isinstance(before, str) and isinstance(value, str):
            into[key] = before + value if key in GROWING else value or before
        elif isinstance(before, dict) and isinstance(value, dict):
            _join(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            before += value
        elif value is not None or key not in into:
            into[key] = value


def _join_calls(into: dict[int, dict[str, Any]], deltas: list[dict[str, Any]], calls: Calls) -> None:
    for position, delta in enumerate(deltas):
        call = into.setdefault(calls.of(delta, position, len(deltas)), {})
        said_once = {"index"} | ({"id"} if call.get("id") else set())
        _join(call, {key: value for key, value in delta.items() if key not in said_once})


def _finished(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice["message"]
    calls = message.pop("tool_calls", None)
    if calls:
        message["tool_calls"] = [call for _, call in sorted(calls.items())]
        message["content"] = message.get("content") or None
    message.setdefault("role", "assistant")
    message.setdefault("content", None)
    return choice


def as_stream(asked: Asked, body: bytes) -> Iterator[bytes]:
    """Yield the events of an answer; usage is in them only if it was asked for."""
    answer = msgspec.json.decode(body)
    choices, usage = answer.pop("choices", None) or (), answer.pop("usage", None)
    head = answer | {"object": "chat.completion.chunk"}
    nothing = {"usage": None} if asks_for_usage(asked) else {}
    for choice in choices:
        index, message = choice.get("index") or 0, choice.get("message") or {}
        rest = {key: value for key, value in choice.items() if key not in ("index", "message", "finish_reason")}
        for delta in _deltas(message):
            yield _chunk(
                head | {"choices": [{"index": index, "delta": delta, **rest, "finish_reason": None}]} | nothing
            )
            rest = {}
        stop = choice.get("finish_reason")
        yield _chunk(head | {"choices": [{"index": index, "delta": {}, "finish_reason": stop}]} | nothing)
    if nothing:
        yield _chunk(head | {"choices": [], "usage": usage})
    yield framed(b"[DONE]")


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    role, calls = message.get("role", "assistant"), message.get("tool_calls") or ()
    nothing = {key: None for key, value in message.items() if value is None}
    yield {"role": role, "content": "" if message.get("content") is not None else None} | nothing
    said = {key: value for key, value in message.items() if key not in ("role", "tool_calls") and value}
    if said:
        yield said
    yield from ({"tool_calls": [{"index": index, **call}]} for index, call in enumerate(calls))


def _chunk(content: dict[str, Any]) -> bytes:
    return framed(msgspec.json.encode(content))
