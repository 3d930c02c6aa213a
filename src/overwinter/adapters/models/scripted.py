"""A model that is none: it says what a test wrote down, in every wire format, and its answers say so."""

import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import field
from typing import Any

from anyio import lowlevel

from overwinter.adapters.dialects import dialects
from overwinter.frozen import frozen
from overwinter.gateway.dialect import DialectName, Wire
from overwinter.gateway.routes import Provider
from overwinter.gateway.upstream import Reply, UpstreamFailed

__all__ = ["Heard", "ScriptedModel", "ToolCall"]

LABEL = "scripted"
"""In the name, the id and the headers of each answer."""
BYTES_PER_TOKEN = 4
VECTOR_LENGTH = 8

Json = dict[str, Any]


@frozen
class ToolCall:
    """A scripted answer that calls a tool."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])


Line = str | ToolCall | Sequence[str | ToolCall] | UpstreamFailed
"""What is said: a text, a call of a tool, several of them in one answer; or how the provider fails."""


@frozen
class Heard:
    """A request, as the function of a scripted model gets it."""

    number: int
    """From 0."""
    dialect: DialectName
    model: str
    body: Mapping[str, Any]
    text: str
    """The last thing that was said to the model."""


class ScriptedModel:
    """Answers model calls as an `Upstream` from a list, one after another, or by a function.

    Args:
        script: answers in their order, or what makes one of a request.
    """

    def __init__(self, script: Iterable[Line] | Callable[[Heard], Line]) -> None:
        self._script = script if callable(script) else list(script)
        self._dialects = dialects()
        self.heard: list[Heard] = []
        """Every request, in its order."""

    @asynccontextmanager
    async def send(self, provider: Provider, dialect: DialectName, method: str, wire: Wire) -> "AsyncGenerator[Reply]":
        """Answer a request.

        Raises:
            UpstreamFailed: the script says so, or has come to its end.
        """
        del provider
        await lowlevel.checkpoint()
        spoken = self._dialects[dialect]
        asked = spoken.read(method, wire.path, wire.headers, wire.body)
        body: Json = json.loads(wire.body) if wire.body else {}
        if asked.operation in ("retrieve", "cancel"):
            raise UpstreamFailed("forbidden", "a scripted model makes no answers in the background", has_left=False)
        if asked.operation != "generate":
            yield _Said(
                "application/json", [_counted(dialect, wire.body) if asked.operation == "count" else _vectors(body)]
            )
            return
        heard = Heard(number=len(self.heard), dialect=dialect, model=asked.model, body=body, text=_last_text(body))
        self.heard.append(heard)
        said = self._line(heard)
        if isinstance(said, UpstreamFailed):
            raise said
        lines = [said] if isinstance(said, str | ToolCall) else list(said)
        whole = json.dumps(_ANSWERS[dialect](lines, heard, len(wire.body)), ensure_ascii=False).encode()
        if not asked.is_stream:
            yield _Said("application/json", [whole])
            return
        yield _Said("text/event-stream", [each.wire for each in spoken.stream(asked, whole)])

    def _line(self, heard: Heard) -> Line:
        if callable(self._script):
            return self._script(heard)
        if heard.number < len(self._script):
            return self._script[heard.number]
        return UpstreamFailed(
            "forbidden", f"the script of the model has {len(self._script)} answers, and no more", has_left=False
        )


@frozen(kw_only=False)
class _Said:
    """See `gateway.upstream.Reply`."""

    media: str
    pieces: Sequence[bytes]
    status: int = 200

    @property
    def headers(self) -> Mapping[str, str]:
        return {"content-type": self.media, "x-request-id": LABEL}

    async def chunks(self) -> AsyncIterator[bytes]:
        for each in self.pieces:
            await lowlevel.checkpoint()
            yield each

    def masked(self, said: bytes) -> bytes:
        return said


def _last_text(body: Mapping[str, Any]) -> str:
    """Return the last text of the conversation, wherever the dialect has it."""
    said = body.get("messages") or body.get("contents") or body.get("input") or ""
    last = said[-1] if isinstance(said, list) and said else said
    while isinstance(last, dict):
        last = next((last[key] for key in ("content", "parts", "output", "text") if last.get(key)), "")
        last = last[-1] if isinstance(last, list) and last else last
    return last if isinstance(last, str) else ""


# --- Answers ---------------------------------------------------------------------------------------------------------


def _name(heard: Heard) -> str:
    return f"{LABEL}-{heard.number + 1}"


def _call_id(heard: Heard, number: int) -> str:
    return f"call_{LABEL}_{heard.number + 1}_{number}"


def _texts(lines: Sequence[str | ToolCall]) -> str:
    return "".join(each for each in lines if isinstance(each, str))


def _calls(lines: Sequence[str | ToolCall]) -> list[ToolCall]:
    return [each for each in lines if isinstance(each, ToolCall)]


def _tokens(lines: Sequence[str | ToolCall]) -> int:
    texts = [each if isinstance(each, str) else each.name + json.dumps(dict(each.arguments)) for each in lines]
    return sum(-(-len(each.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN) for each in texts)


def _chat(lines: Sequence[str | ToolCall], heard: Heard, size: int) -> Json:
    calls = [
        {
            "id": _call_id(heard, number), "type": "function",
            "function": {"name": each.name, "arguments": json.dumps(dict(each.arguments), ensure_ascii=False)},
        }
        for number, each in enumerate(_calls(lines))
    ]  # fmt: skip
    message: Json = {"role": "assistant", "content": _texts(lines) or None} | ({"tool_calls": calls} if calls else {})
    read, wrote = size // BYTES_PER_TOKEN, _tokens(lines)
    return {
        "id": _name(heard), "object": "chat.completion", "created": 0, "model": LABEL, "system_fingerprint": LABEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop", "logprobs": None}],
        "usage": {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote},
    }  # fmt: skip


def _responses(lines: Sequence[str | ToolCall], heard: Heard, size: int) -> Json:
    read, wrote = size // BYTES_PER_TOKEN, _tokens(lines)
    output = [
        {
            "type": "message", "id": f"msg_{_name(heard)}", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": each, "annotations": [], "logprobs": []}],
        }
        if isinstance(each, str)
        else {
            "type": "function_call", "id": f"fc_{_call_id(heard, number)}", "call_id": _call_id(heard, number), "name": each.name,
            "arguments": json.dumps(dict(each.arguments), ensure_ascii=False), "status": "completed",
        }
        for number, each in enumerate(lines)
    ]  # fmt: skip
    return {
        "id": _name(heard), "object": "response", "created_at": 0, "status": "completed", "model": LABEL, "output": output,
        "error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True,
        "tool_choice": "auto", "tools": [],
        "usage": {
            "input_tokens": read, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": wrote,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": read + wrote,
        },
    }  # fmt: skip


def _messages(lines: Sequence[str | ToolCall], heard: Heard, size: int) -> Json:
    content = [
        {"type": "text", "text": each}
        if isinstance(each, str)
        else {"type": "tool_use", "id": _call_id(heard, number), "name": each.name, "input": dict(each.arguments)}
        for number, each in enumerate(lines)
    ]
    return {
        "id": _name(heard), "type": "message", "role": "assistant", "model": LABEL, "content": content,
        "stop_reason": "tool_use" if _calls(lines) else "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": size // BYTES_PER_TOKEN, "output_tokens": _tokens(lines)},
    }  # fmt: skip


def _gemini(lines: Sequence[str | ToolCall], heard: Heard, size: int) -> Json:
    parts = [
        {"text": each} if isinstance(each, str) else {"functionCall": {"name": each.name, "args": dict(each.arguments)}}
        for each in lines
    ]
    read, wrote = size // BYTES_PER_TOKEN, _tokens(lines)
    return {
        "candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": read, "candidatesTokenCount": wrote, "totalTokenCount": read + wrote},
        "modelVersion": LABEL, "responseId": _name(heard),
    }  # fmt: skip


def _counted(dialect: DialectName, body: bytes) -> bytes:
    count = len(body) // BYTES_PER_TOKEN
    return json.dumps({"totalTokens": count} if dialect == "gemini" else {"input_tokens": count}).encode()


def _vectors(body: Json) -> bytes:
    """Return vectors that are the same for the same text, and mean nothing."""
    given = body.get("input")
    texts = given if isinstance(given, list) and not all(isinstance(each, int) for each in given) else [given]
    rows = [hashlib.sha256(json.dumps(each).encode()).digest()[:VECTOR_LENGTH] for each in texts]
    listed = [
        {"object": "embedding", "index": number, "embedding": [each / 128 - 1 for each in row]}
        for number, row in enumerate(rows)
    ]
    tokens = len(json.dumps(given)) // BYTES_PER_TOKEN
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps({"object": "list", "model": LABEL, "data": listed, "usage": usage}).encode()


_ANSWERS: Mapping[DialectName, Callable[[Sequence[str | ToolCall], Heard, int], Json]] = {
    "chat": _chat,
    "responses": _responses,
    "messages": _messages,
    "gemini": _gemini,
}
