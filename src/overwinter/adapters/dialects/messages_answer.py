"""A message as a stream and as one piece, each made from the other."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from overwinter.adapters.dialects.events import framed

__all__ = ["as_stream", "as_whole"]

GROWING = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "compaction_delta": "content",
}
"""By type of delta, the field of its block that it continues."""


def as_whole(contents: Iterable[bytes]) -> bytes:
    """Return the message that events are the pieces of."""
    message, blocks, arguments = dict[str, Any](), dict[int, dict[str, Any]](), dict[int, list[str]]()
    for content in contents:
        event = msgspec.json.decode(content)
        index = event.get("index", 0)
        match event.get("type"):
            case "message_start":
                message = event["message"]
            case "content_block_start":
                blocks[index] = event["content_block"]
            case "content_block_delta":
                _grow(blocks.setdefault(index, {}), event["delta"], arguments.setdefault(index, []))
            case "message_delta":
                message.update(event.get("delta") or {})
                usage = {key: value for key, value in (event.get("usage") or {}).items() if value is not None}
                if usage:
                    message["usage"] = (message.get("usage") or {}) | usage
                message.update({key: value for key, value in event.items() if key not in ("type", "delta", "usage")})
            case _:
                pass
    for index, pieces in arguments.items():
        if said := "".join(pieces):
            blocks[index]["input"] = _arguments(said)
    message["content"] = [block for _, block in sorted(blocks.items())]
    return msgspec.json.encode(message)


def _grow(block: dict[str, Any], delta: dict[str, Any], arguments: list[str]) -> None:
    kind = delta.get("type", "")
    if kind == "input_json_delta":
        arguments.append(delta.get("partial_json") or "")
    elif kind == "citations_delta":
        block["citations"] = [*(block.get("citations") or ()), delta.get("citation")]
    elif (name := GROWING.get(kind)) is not None:
        block[name] = (block.get(name) or "") + (delta.get(name) or "")
    else:
        block.update({key: value for key, value in delta.items() if key != "type"})


def _arguments(said: str) -> msgspec.Raw | dict[str, Any]:
    """Return the arguments of a tool as they were said; nothing if the answer was cut in the middle of them."""
    try:
        msgspec.json.decode(said)
    except (ValueError, RecursionError):
        return {}
    return msgspec.Raw(said.encode())


def as_stream(body: bytes) -> Iterator[bytes]:
    """Yield the events of a message."""
    message = msgspec.json.decode(body)
    blocks, usage = message.get("content") or (), message.get("usage")
    ending = {
        key: message[key] for key in ("stop_reason", "stop_sequence", "stop_details", "container") if key in message
    }
    start = message | {"content": [], "stop_reason": None, "stop_sequence": None}
    if usage:
        start["usage"] = usage | {"output_tokens": min(1, usage.get("output_tokens") or 0)}
    yield _event({"type": "message_start", "message": start})
    for index, block in enumerate(blocks):
        first, deltas = _pieces(block)
        yield _event({"type": "content_block_start", "index": index, "content_block": first})
        yield from (_event({"type": "content_block_delta", "index": index, "delta": delta}) for delta in deltas)
        yield _event({"type": "content_block_stop", "index": index})
    told = {
        key: value for key, value in (usage or {}).items() if key not in ("cache_creation", "service_tier", "speed")
    }
    yield _event({"type": "message_delta", "delta": ending} | ({"usage": told} if usage else {}))
    yield _event({"type": "message_stop"})


def _pieces(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a block as it starts and what is then added to it."""
    match block.get("type"):
        case "text":
            cited = [{"type": "citations_delta", "citation": each} for each in block.get("citations") or ()]
            first = block | {"text": ""} | ({"citations": []} if cited else {})
            return first, [*cited, {"type": "text_delta", "text": block["text"]}] if block.get("text") else cited
        case "thinking":
            thought = {"type": "thinking_delta", "thinking": block.get("thinking", "")}
            signed = {"type": "signature_delta", "signature": block.get("signature", "")}
            return block | {"thinking": "", "signature": ""}, [
                each for each in (thought, signed) if each[each["type"][:-6]]
            ]
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            said = msgspec.json.encode(block.get("input", {})).decode()
            return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": said}]
        case _:
            return block, []


def _event(content: dict[str, Any]) -> bytes:
    return framed(msgspec.json.encode(content), content["type"])
