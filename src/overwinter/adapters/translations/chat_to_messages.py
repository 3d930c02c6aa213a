"""A client of chat completions, and a provider of Anthropic messages."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from overwinter.adapters.dialects.chat import Chat
from overwinter.adapters.dialects.events import framed
from overwinter.adapters.dialects.messages import Messages
from overwinter.adapters.dialects.request import boolean, members
from overwinter.adapters.translations.fields import encoded, fields_of, lacks, listed, mapping, only, place_in, text
from overwinter.adapters.translations.turning import Untranslatable, reader_of
from overwinter.gateway.dialect import AnswerReader, Asked, DialectName, Means, Wire
from overwinter.gateway.refusal import ModelRefused, Refusal
from overwinter.gateway.usage import Usage

__all__ = ["ChatToMessages"]

PATH, THERE = "/v1/chat/completions", "/v1/messages"
VERSION = "2023-06-01"
TEMPERATURE_MAX = 1
"""Of messages; chat goes to 2."""
FIELDS = frozenset({
    "model", "messages", "tools", "tool_choice", "parallel_tool_calls", "max_tokens", "max_completion_tokens", "temperature", "stop",
    "stream", "stream_options",
})  # fmt: skip
HOLDS: Mapping[str, Any] = {
    "n": 1, "store": False, "logprobs": False, "frequency_penalty": 0, "presence_penalty": 0, "parallel_tool_calls": True,
    "modalities": ["text"], "response_format": {"type": "text"}, "service_tier": "auto", "logit_bias": {}, "tools": [],
}  # fmt: skip
"""Values that say what holds of messages anyway."""
STOPS = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
    "tool_use": "tool_calls", "refusal": "content_filter",
}  # fmt: skip
UNSAID = frozenset({"thinking", "redacted_thinking"})
_IMAGE = re.compile(r"data:(?P<type>image/[a-z.+-]+);base64,(?P<data>[A-Za-z0-9+/=]+)")


class ChatToMessages:
    """See `gateway.translation.Translation`."""

    spoken: DialectName = "messages"

    def __init__(self) -> None:
        self._chat, self._messages = Chat(), Messages()

    def forward(self, asked: Asked, means: Means) -> Wire:
        """Return what the provider gets."""
        given = fields_of(asked, means, HOLDS, PATH)
        only(given, FIELDS)
        only(mapping(given.get("stream_options", {}), "stream_options"), {"include_usage"}, "stream_options")
        system, messages = _conversation(listed(given.get("messages"), "messages"))
        most = given.get("max_completion_tokens", given.get("max_tokens"))
        body: dict[str, Any] = {"model": means.model, "max_tokens": means.output_tokens_max if most is None else most}
        if means.output_tokens_max is not None:
            body["max_tokens"] = means.output_tokens_max
        body |= {"system": system} if system else {}
        body |= {"messages": messages, **_tools(given), **_sampling(given)}
        body |= {"stream": True} if asked.is_stream else {}
        headers = {**asked.headers, "anthropic-version": VERSION}
        return Wire(body=encoded(body), headers=headers, path=THERE)

    def left_out(self, asked: Asked) -> tuple[str, ...]:
        """Return the hints that the provider does not get: what has no counterpart is refused, all of it."""
        del asked
        return ()

    def reader(self, asked: Asked, *, is_stream: bool) -> AnswerReader:
        """Return a reader of the provider's answer."""
        return reader_of(self._messages, self._chat, asked, _Turning(asked), _completion, is_stream=is_stream)


def _sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "temperature" in given:
        temperature = given["temperature"]
        if not isinstance(temperature, int | float) or not 0 <= temperature <= TEMPERATURE_MAX:
            raise lacks("temperature", f"messages take 0 to {TEMPERATURE_MAX}, not {temperature!r}")
        found["temperature"] = temperature
    if "stop" in given:
        stop = given["stop"]
        found["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    return found


def _tools(given: Mapping[str, Any]) -> dict[str, Any]:
    tools = [_tool(place, each) for place, each in listed(given.get("tools", []), "tools")]
    choice = given.get("tool_choice")
    if not tools:
        return {} if choice in (None, "none", "auto") else _no_tools()
    chosen: dict[str, Any] = {"type": "auto"}
    match choice:
        case None | "auto":
            pass
        case "none":
            chosen = {"type": "none"}
        case "required":
            chosen = {"type": "any"}
        case {"type": "function", "function": {"name": str(name)}}:
            chosen = {"type": "tool", "name": name}
        case _:
            raise lacks("tool_choice")
    if given.get("parallel_tool_calls") is False and chosen["type"] != "none":
        chosen["disable_parallel_tool_use"] = True
    return {"tools": tools, "tool_choice": chosen} if chosen != {"type": "auto"} else {"tools": tools}


def _no_tools() -> dict[str, Any]:
    raise ModelRefused(Refusal(why="invalid", message="tool_choice: there are no tools to choose from"))


def _tool(place: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise lacks(f"{place}.type")
    only(tool, {"type", "function"}, place)
    function = mapping(tool.get("function"), f"{place}.function")
    only(function, {"name", "description", "parameters", "strict"}, f"{place}.function")
    found = {
        "name": function.get("name"),
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    found |= {"description": function["description"]} if function.get("description") is not None else {}
    return found | ({"strict": True} if function.get("strict") else {})


# --- The conversation ------------------------------------------------------------------------------------------------


def _conversation(given: Sequence[tuple[str, dict[str, Any]]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the system prompt's blocks and the messages. Results of tools that follow on each other are one message."""
    system, messages = list[dict[str, Any]](), list[dict[str, Any]]()
    is_after_result = False
    for place, message in given:
        role = message.get("role")
        match role:
            case "system" | "developer":
                if messages:
                    raise lacks(f"{place}.role", f"a {role} message comes before all others")
                only(message, {"role", "content"}, place)
                system += _texts(message.get("content"), f"{place}.content")
            case "user":
                only(message, {"role", "content"}, place)
                messages.append({"role": "user", "content": list(_parts(message.get("content"), f"{place}.content"))})
            case "assistant":
                messages.append({"role": "assistant", "content": list(_said(message, place))})
            case "tool":
                result = _result(message, place)
                if is_after_result:
                    messages[-1]["content"].append(result)
                else:
                    messages.append({"role": "user", "content": [result]})
            case _:
                raise lacks(f"{place}.role")
        is_after_result = role == "tool"
    if not messages:
        raise ModelRefused(Refusal(why="invalid", message="messages: there is nothing to answer"))
    if messages[-1]["role"] == "assistant":
        raise lacks(
            f"{given[-1][0]}.role", "the last message is the user's or a tool's: messages would go on with this one"
        )
    return system, messages


def _texts(content: Any, place: str) -> list[dict[str, Any]]:
    """Return blocks of text."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [_text(where, part) for where, part in listed(content, place)]


def _text(place: str, part: Mapping[str, Any]) -> dict[str, Any]:
    if part.get("type") != "text":
        raise lacks(f"{place}.type", f"only text is carried here, not {part.get('type')!r}")
    only(part, {"type", "text"}, place)
    return {"type": "text", "text": text(part.get("text"), f"{place}.text")}


def _parts(content: Any, place: str) -> Iterator[dict[str, Any]]:
    if isinstance(content, str):
        yield from _texts(content, place)
        return
    for where, part in listed(content, place):
        if part.get("type") == "image_url":
            yield _image(where, part)
        else:
            yield _text(where, part)


def _image(place: str, part: Mapping[str, Any]) -> dict[str, Any]:
    only(part, {"type", "image_url"}, place)
    image = mapping(part.get("image_url"), f"{place}.image_url")
    if image.get("detail") not in (None, "auto"):
        raise lacks(f"{place}.image_url.detail")
    only(image, {"url", "detail"}, f"{place}.image_url")
    found = _IMAGE.fullmatch(text(image.get("url"), f"{place}.image_url.url"))
    if found is None:
        raise lacks(f"{place}.image_url.url", "send the image as data:image/TYPE;base64,...")
    return {"type": "image", "source": {"type": "base64", "media_type": found["type"], "data": found["data"]}}


def _said(message: Mapping[str, Any], place: str) -> Iterator[dict[str, Any]]:
    only(message, {"role", "content", "tool_calls"}, place)
    if message.get("content") is not None:
        yield from _texts(message["content"], f"{place}.content")
    for where, call in listed(message.get("tool_calls") or [], f"{place}.tool_calls"):
        if call.get("type", "function") != "function":
            raise lacks(f"{where}.type")
        only(call, {"id", "type", "function"}, where)
        function = mapping(call.get("function"), f"{where}.function")
        only(function, {"name", "arguments"}, f"{where}.function")
        given = place_in(f"{where}.function", "arguments")
        try:
            arguments = json.loads(text(function.get("arguments"), given) or "{}")
        except ValueError as error:
            raise lacks(given, "arguments are a JSON object there, and these are none") from error
        yield {
            "type": "tool_use",
            "id": call.get("id"),
            "name": function.get("name"),
            "input": mapping(arguments, given),
        }


def _result(message: Mapping[str, Any], place: str) -> dict[str, Any]:
    only(message, {"role", "content", "tool_call_id"}, place)
    content = message.get("content")
    said = content if isinstance(content, str) else _texts(content, f"{place}.content")
    return {
        "type": "tool_result",
        "tool_use_id": text(message.get("tool_call_id"), f"{place}.tool_call_id"),
        "content": said,
    }


# --- Answers ---------------------------------------------------------------------------------------------------------


def _stop(reason: str | None) -> str:
    found = STOPS.get(reason or "")
    if found is None:
        raise Untranslatable(f"it stopped for {reason!r}")
    return found


def _usage(usage: Usage) -> dict[str, Any]:
    written = usage.cache_write + usage.cache_write_long
    return {
        "prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }  # fmt: skip


class _Block(msgspec.Struct):
    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")
    """As it was written: numbers too that no computer holds."""


class _Message(msgspec.Struct):
    id: str
    model: str
    content: list[_Block]
    stop_reason: str | None = None


def _completion(body: bytes, usage: Usage) -> dict[str, Any]:
    """Return a message as a chat completion."""
    message = msgspec.json.decode(body, type=_Message)
    texts, calls = list[str](), list[dict[str, Any]]()
    for block in message.content:
        match block.type:
            case "text":
                texts.append(block.text)
            case "tool_use":
                function = {"name": block.name, "arguments": bytes(block.input).decode()}
                calls.append({"id": block.id, "type": "function", "function": function})
            case kind if kind not in UNSAID:
                raise Untranslatable(f"it has a block of type {kind!r}")
            case _:
                pass
    said = {"role": "assistant", "content": "".join(texts) if texts else None, "refusal": None}
    said |= {"tool_calls": calls} if calls else {}
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": _stop(message.stop_reason)}
    head = {"id": message.id, "object": "chat.completion", "created": 0, "model": message.model}
    return {**head, "choices": [choice], "usage": _usage(usage)}


class _Turning:
    """See `turning.Turning`."""

    def __init__(self, asked: Asked) -> None:
        self._asks_for_usage = boolean(members(asked.top.get("stream_options"), "stream_options"), "include_usage")
        self._head: dict[str, Any] = {"id": "", "object": "chat.completion.chunk", "created": 0, "model": ""}
        self._calls = dict[int, int]()
        """By block, the number of its call."""
        self._silent = set[int]()
        """Blocks of calls whose arguments have not begun."""
        self._unsaid = set[int]()
        self._stop: str | None = None
        self._usage = Usage()

    def begun(self, content: Any, usage: Usage | None) -> bytes:
        self._usage = usage or self._usage
        match content:
            case {"type": "message_start", "message": {"id": str(name), "model": str(model)}}:
                self._head |= {"id": name, "model": model}
                return self._chunk({"role": "assistant", "content": "", "refusal": None})
            case {"type": "content_block_start", "index": int(index), "content_block": block}:
                return self._block(index, block)
            case {"type": "content_block_delta", "index": int(index), "delta": delta}:
                return self._delta(index, delta)
            case {"type": "content_block_stop", "index": int(index)} if index in self._silent:
                return self._delta(index, {"type": "input_json_delta", "partial_json": "{}"})
            case {"type": "message_delta", "delta": {"stop_reason": reason}}:
                self._stop = _stop(reason)
                return b""
            case _:
                return b""

    def _block(self, index: int, block: Mapping[str, Any]) -> bytes:
        match block["type"]:
            case "text":
                return self._chunk({"content": block["text"]}) if block.get("text") else b""
            case "tool_use":
                number = self._calls[index] = len(self._calls)
                self._silent.add(index)
                function = {"name": block["name"], "arguments": ""}
                return self._chunk(
                    {"tool_calls": [{"index": number, "id": block["id"], "type": "function", "function": function}]}
                )
            case kind if kind not in UNSAID:
                raise Untranslatable(f"it has a block of type {kind!r}")
            case _:
                self._unsaid.add(index)
                return b""

    def _delta(self, index: int, delta: Mapping[str, Any]) -> bytes:
        match delta:
            case _ if index in self._unsaid:
                return b""
            case {"type": "text_delta", "text": said}:
                return self._chunk({"content": said}) if said else b""
            case {"type": "input_json_delta", "partial_json": said}:
                if not said:
                    return b""
                self._silent.discard(index)
                return self._chunk({"tool_calls": [{"index": self._calls[index], "function": {"arguments": said}}]})
            case _:
                raise Untranslatable(f"it has a delta of type {delta.get('type')!r}")

    def ended(self) -> bytes:
        wire = self._chunk({}, _stop("") if self._stop is None else self._stop)
        if self._asks_for_usage:
            wire += framed(msgspec.json.encode({**self._head, "choices": [], "usage": _usage(self._usage)}))
        return wire + framed(b"[DONE]")

    def _chunk(self, delta: dict[str, Any], stop: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": stop}
        nothing = {"usage": None} if self._asks_for_usage else {}
        return framed(msgspec.json.encode({**self._head, "choices": [choice], **nothing}))
