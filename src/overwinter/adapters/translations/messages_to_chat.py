"""A client of Anthropic messages, and a provider of chat completions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from overwinter.adapters.dialects.chat import Chat
from overwinter.adapters.dialects.chat_calls import Calls
from overwinter.adapters.dialects.events import framed
from overwinter.adapters.dialects.messages import Messages
from overwinter.adapters.translations.fields import encoded, fields_of, lacks, listed, mapping, only, text
from overwinter.adapters.translations.hints import bare, plain
from overwinter.adapters.translations.turning import Untranslatable, reader_of
from overwinter.gateway.dialect import AnswerReader, Asked, DialectName, Means, Wire
from overwinter.gateway.refusal import ModelRefused, Refusal
from overwinter.gateway.usage import Usage

__all__ = ["MessagesToChat"]

PATH, THERE = "/v1/messages", "/v1/chat/completions"
STOPS_MAX = 4
"""Of chat completions."""
FIELDS = frozenset(
    {"model", "messages", "system", "tools", "tool_choice", "max_tokens", "temperature", "stop_sequences", "stream"}
)
HOLDS: Mapping[str, Any] = {
    "thinking": {"type": "disabled"},
    "service_tier": "auto",
    "stop_sequences": [],
    "tools": [],
    "stream": False,
}
"""Values that say what holds of chat completions anyway."""
STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


class MessagesToChat:
    """See `gateway.translation.Translation`."""

    spoken: DialectName = "chat"

    def __init__(self) -> None:
        self._chat, self._messages = Chat(), Messages()

    def forward(self, asked: Asked, means: Means) -> Wire:
        """Return what the provider gets."""
        asked, _ = bare(asked)
        given, _ = plain(fields_of(asked, means, HOLDS, PATH))
        only(given, FIELDS)
        most = given.get("max_tokens") if means.output_tokens_max is None else means.output_tokens_max
        body: dict[str, Any] = {"model": means.model, "messages": [*_system(given), *_conversation(given)]}
        body |= {} if most is None else {"max_completion_tokens": most}
        body |= _tools(given)
        body |= {"temperature": given["temperature"]} if "temperature" in given else {}
        if (stops := given.get("stop_sequences")) is not None:
            if not isinstance(stops, list) or len(stops) > STOPS_MAX:
                raise lacks("stop_sequences", f"chat completions take at most {STOPS_MAX}")
            body["stop"] = stops
        body |= {"stream": True, "stream_options": {"include_usage": True}} if asked.is_stream else {}
        headers = {name: value for name, value in asked.headers.items() if name != "anthropic-version"}
        return Wire(body=encoded(body), headers=headers, path=THERE)

    def left_out(self, asked: Asked) -> tuple[str, ...]:
        """Return the hints that the provider does not get."""
        request, named = bare(asked)
        _, placed = plain(fields_of(request, Means(model=asked.model), HOLDS, PATH))
        return (*named, *placed)

    def reader(self, asked: Asked, *, is_stream: bool) -> AnswerReader:
        """Return a reader of the provider's answer."""
        return reader_of(self._chat, self._messages, asked, _Turning(), _message, is_stream=is_stream)


def _tools(given: Mapping[str, Any]) -> dict[str, Any]:
    tools = [_tool(place, each) for place, each in listed(given.get("tools", []), "tools")]
    choice = mapping(given.get("tool_choice", {"type": "auto"}), "tool_choice")
    only(choice, {"type", "name", "disable_parallel_tool_use"}, "tool_choice")
    if not tools:
        if choice.get("type") not in ("auto", "none"):
            raise ModelRefused(Refusal(why="invalid", message="tool_choice: there are no tools to choose from"))
        return {}
    found: dict[str, Any] = {"tools": tools}
    match choice.get("type"):
        case "auto":
            pass
        case "none":
            found["tool_choice"] = "none"
        case "any":
            found["tool_choice"] = "required"
        case "tool":
            found["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
        case _:
            raise lacks("tool_choice.type")
    return found | ({"parallel_tool_calls": False} if choice.get("disable_parallel_tool_use") else {})


def _tool(place: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type") not in (None, "custom"):
        raise lacks(f"{place}.type")
    only(tool, {"type", "name", "description", "input_schema", "strict"}, place)
    function = {"name": tool.get("name")}
    function |= {"description": tool["description"]} if tool.get("description") is not None else {}
    function |= {"parameters": tool.get("input_schema")} | ({"strict": True} if tool.get("strict") else {})
    return {"type": "function", "function": function}


# --- The conversation ------------------------------------------------------------------------------------------------


def _system(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = given.get("system")
    if not content:
        return []
    said = content if isinstance(content, str) else [_text(where, each) for where, each in listed(content, "system")]
    return [{"role": "system", "content": said}]


def _conversation(given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    messages = listed(given.get("messages"), "messages")
    if not messages:
        raise ModelRefused(Refusal(why="invalid", message="messages: there is nothing to answer"))
    for place, message in messages:
        only(message, {"role", "content"}, place)
        content = message.get("content")
        blocks = (
            [(f"{place}.content", {"type": "text", "text": content})]
            if isinstance(content, str)
            else listed(content, f"{place}.content")
        )
        match message.get("role"):
            case "user":
                yield from _of_user(blocks, isinstance(content, str))
            case "assistant":
                yield _of_assistant(blocks)
            case _:
                raise lacks(f"{place}.role")
    if messages[-1][1]["role"] == "assistant":
        raise lacks(
            f"{messages[-1][0]}.role", "an answer that is begun would not be gone on with: end with the user's message"
        )


def _text(place: str, block: Mapping[str, Any]) -> dict[str, Any]:
    if block.get("type") != "text":
        raise lacks(f"{place}.type", f"only text is carried here, not {block.get('type')!r}")
    only(block, {"type", "text"}, place)
    return {"type": "text", "text": text(block.get("text"), f"{place}.text")}


def _of_user(blocks: Sequence[tuple[str, dict[str, Any]]], is_plain: bool) -> Iterator[dict[str, Any]]:  # noqa: FBT001 - as given
    """Yield the results of tools, each a message, and then what the user says."""
    parts = list[dict[str, Any]]()
    for place, block in blocks:
        match block.get("type"):
            case "tool_result":
                if parts:
                    raise lacks(place, "results of tools come before what the user says")
                yield _result(place, block)
            case "image":
                parts.append(_image(place, block))
            case _:
                parts.append(_text(place, block))
    if parts:
        yield {"role": "user", "content": parts[0]["text"] if is_plain else parts}


def _result(place: str, block: Mapping[str, Any]) -> dict[str, Any]:
    known = {"type", "tool_use_id", "content"} | ({"is_error"} if block.get("is_error") is False else set())
    only(block, known, place)
    content = block.get("content", "")
    said = (
        content
        if isinstance(content, str)
        else [_text(where, each) for where, each in listed(content, f"{place}.content")]
    )
    return {"role": "tool", "tool_call_id": text(block.get("tool_use_id"), f"{place}.tool_use_id"), "content": said}


def _image(place: str, block: Mapping[str, Any]) -> dict[str, Any]:
    only(block, {"type", "source"}, place)
    source = mapping(block.get("source"), f"{place}.source")
    if source.get("type") != "base64" or text(source.get("media_type"), f"{place}.source.media_type") not in IMAGES:
        raise lacks(f"{place}.source", f"send the image as base64 of {', '.join(sorted(IMAGES))}")
    only(source, {"type", "media_type", "data"}, f"{place}.source")
    url = f"data:{source['media_type']};base64,{text(source.get('data'), f'{place}.source.data')}"
    return {"type": "image_url", "image_url": {"url": url}}


def _of_assistant(blocks: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    texts, calls = list[dict[str, Any]](), list[dict[str, Any]]()
    for place, block in blocks:
        if block.get("type") != "tool_use":
            if calls:
                raise lacks(place, "what an assistant says comes before its calls of tools")
            texts.append(_text(place, block))
            continue
        only(block, {"type", "id", "name", "input"}, place)
        arguments = json.dumps(mapping(block.get("input"), f"{place}.input"), ensure_ascii=False)
        function = {"name": block.get("name"), "arguments": arguments}
        calls.append({"id": text(block.get("id"), f"{place}.id"), "type": "function", "function": function})
    content = (texts[0]["text"] if len(texts) == 1 else texts) if texts else None
    return {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {})


# --- Answers ---------------------------------------------------------------------------------------------------------


def _stop(reason: str | None) -> str:
    found = STOPS.get(reason or "")
    if found is None:
        raise Untranslatable(f"it stopped for {reason!r}")
    return found


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.fresh + usage.audio_input, "cache_read_input_tokens": usage.cache_read,
        "cache_creation_input_tokens": usage.cache_write + usage.cache_write_long, "output_tokens": usage.output + usage.audio_output,
    }  # fmt: skip


def _message(body: bytes, usage: Usage) -> dict[str, Any]:
    """Return a chat completion as a message."""
    completion = msgspec.json.decode(body)
    (choice,) = completion["choices"]
    said = choice["message"]
    content = list[dict[str, Any]]()
    if spoken := said.get("content") or said.get("refusal"):
        content.append({"type": "text", "text": text(spoken, "content")})
    for call in said.get("tool_calls") or ():
        function = call["function"]
        arguments = msgspec.Raw((function["arguments"] or "{}").encode())  # numbers stay as they were written
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
        content.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments})
    stop = "refusal" if said.get("refusal") else _stop(choice["finish_reason"])
    head = {"id": completion["id"], "type": "message", "role": "assistant", "model": completion["model"]}
    return {**head, "content": content, "stop_reason": stop, "stop_sequence": None, "usage": _usage(usage)}


class _Turning:
    """See `turning.Turning`."""

    def __init__(self) -> None:
        self._has_begun, self._stop, self._usage = False, "", Usage()
        self._blocks = self._called_before = 0
        self._calls = Calls()
        self._open: int | str | None = None
        """What the block that has not ended is: a text, or the call of a number."""
        self._is_refusal = False

    def begun(self, content: Any, usage: Usage | None) -> bytes:
        self._usage = usage or self._usage
        wire = b"" if self._has_begun else self._start(content)
        for choice in content.get("choices") or ():
            if choice.get("index"):
                raise Untranslatable("it has several choices")
            wire += self._said(choice.get("delta") or {})
            if choice.get("finish_reason") is not None:
                self._stop = _stop(choice["finish_reason"])
        return wire

    def _start(self, chunk: Mapping[str, Any]) -> bytes:
        self._has_begun = True
        message = {
            "id": chunk["id"], "type": "message", "role": "assistant", "model": chunk["model"], "content": [], "stop_reason": None,
            "stop_sequence": None, "usage": _usage(Usage()),
        }  # fmt: skip
        return _event({"type": "message_start", "message": message})

    def _said(self, delta: Mapping[str, Any]) -> bytes:
        self._is_refusal = self._is_refusal or bool(delta.get("refusal"))
        wire = b""
        if spoken := delta.get("content") or delta.get("refusal"):
            wire += self._opened("text", {"type": "text", "text": ""})
            wire += self._delta({"type": "text_delta", "text": text(spoken, "content")})
        calls = delta.get("tool_calls") or ()
        for position, call in enumerate(calls):
            wire += self._called(self._calls.of(call, position, len(calls)), call)
        if delta.get("function_call"):
            raise Untranslatable("it calls a function in the form of old")
        return wire

    def _called(self, number: int, call: Mapping[str, Any]) -> bytes:
        function, wire = call.get("function") or {}, b""
        if self._open != number:
            if number < self._called_before:
                raise Untranslatable("it goes on with a call after another one has begun")
            if call.get("id") is None or function.get("name") is None:
                raise Untranslatable("it calls a tool without its name or an id")
            self._called_before = number + 1
            block = {"type": "tool_use", "id": call["id"], "name": function["name"], "input": {}}
            wire += self._opened(number, block)
        if arguments := function.get("arguments"):
            wire += self._delta({"type": "input_json_delta", "partial_json": arguments})
        return wire

    def _opened(self, what: int | str, block: dict[str, Any]) -> bytes:
        """Return the start of a block, unless it is the one that is open, after the end of the one before."""
        if self._open == what:
            return b""
        wire = self._closed()
        self._open = what
        return wire + _event({"type": "content_block_start", "index": self._blocks, "content_block": block})

    def _closed(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        self._blocks += 1
        return _event({"type": "content_block_stop", "index": self._blocks - 1})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event({"type": "content_block_delta", "index": self._blocks, "delta": delta})

    def ended(self) -> bytes:
        stop = "refusal" if self._is_refusal else self._stop or _stop(None)
        ending = {"stop_reason": stop, "stop_sequence": None}
        return (
            self._closed()
            + _event({"type": "message_delta", "delta": ending, "usage": _usage(self._usage)})
            + _event({"type": "message_stop"})
        )


def _event(content: dict[str, Any]) -> bytes:
    return framed(msgspec.json.encode(content), content["type"])
