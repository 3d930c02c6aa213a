"""A response as a stream and as one piece, and where the texts in it stand.

Most of its texts come several times: in pieces, whole when they are, in their item, and in the response at the end.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from overwinter.adapters.dialects.events import framed
from overwinter.gateway.dialect import Text

__all__ = ["UNDER_WAY", "as_stream", "as_whole", "failed_response", "pieces", "texts_of_output"]

ITEM = ("arguments", "input", "code")
"""Fields of an item that are texts themselves."""
ENDS = {"completed": "response.completed", "incomplete": "response.incomplete", "failed": "response.failed"}

ITEM_DONE = "response.output_item.done"
UNDER_WAY = frozenset({"queued", "in_progress"})
"""Statuses of an answer that has no end yet, as a stream either."""


_ABSENT = msgspec.Raw(b"null")


class _Event(msgspec.Struct):
    """What an answer is put together from."""

    type: str = ""
    output_index: int = 0
    item: msgspec.Raw = _ABSENT
    response: msgspec.Raw = _ABSENT


def pieces(node: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield where the pieces of texts of a delta stand."""
    delta = node.get("delta")
    if isinstance(delta, dict):
        yield from ((delta, name) for name, text in delta.items() if text)
    elif delta:
        yield node, "delta"


def _of_item(item: Any) -> Iterator[tuple[dict[str, Any], str]]:
    if not isinstance(item, dict):
        return
    yield from _strings(item, ITEM)
    for name in ("summary", "content"):
        for part in _listed(item.get(name)):
            yield from _strings(part, ("text", "refusal"))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _strings(holder: Any, names: Iterable[str]) -> Iterator[tuple[dict[str, Any], str]]:
    if isinstance(holder, dict):
        yield from ((holder, name) for name in names if isinstance(holder.get(name), str) and holder[name])


def texts_of_output(output: msgspec.Raw) -> tuple[Text, ...]:
    """Return the texts of what a response has come to, each in a channel of its own."""
    found = (each for item in _listed(msgspec.json.decode(output)) for each in _of_item(item))
    numbered = enumerate(found)
    return tuple(Text(f"whole.{number}", place[key], is_json=key == "arguments") for number, (place, key) in numbered)


def as_whole(contents: Iterable[bytes]) -> bytes:
    """Return the response in the last event that has one.

    Some providers leave its `output` empty at the end (Codex's own, BerriAI/litellm#32724): then the items are those that ended
    on the way.

    Args:
        contents: of events, the last one first.

    Raises:
        ValueError: texts came, and nothing says of which items.
    """
    response: bytes | None = None
    items, has_said = dict[int, msgspec.Raw](), False
    for content in contents:
        event = msgspec.json.decode(content, type=_Event)
        if response is None and event.response is not _ABSENT:
            response = bytes(event.response)
            top = msgspec.json.decode(response, type=dict[str, msgspec.Raw])
            if bytes(top.get("output", _ABSENT)).strip(b"[] \t\r\n") not in (b"", b"null"):
                return response
        elif event.type == ITEM_DONE and event.item is not _ABSENT:
            items.setdefault(event.output_index, event.item)
        has_said = has_said or event.type.endswith(".delta")
    if response is None or not (items or has_said):
        return response or b"{}"
    if not items:
        raise ValueError("its last event has no output, and no item of it ended")
    output = [item for _, item in sorted(items.items())]
    return msgspec.json.encode({**msgspec.json.decode(response, type=dict[str, msgspec.Raw]), "output": output})


def failed_response(contents: Iterable[bytes], error: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the number that comes next and the response as one that failed.

    Args:
        contents: of the events sent, the last one first.
        error: what went wrong.
    """
    number, response = 0, {
        "id": "", "object": "response", "created_at": 0, "model": "", "output": [], "parallel_tool_calls": True,
        "tool_choice": "auto", "tools": [], "metadata": {}, "instructions": None, "usage": None, "incomplete_details": None,
    }  # fmt: skip
    for position, content in enumerate(each for each in contents if each):
        node = msgspec.json.decode(content)
        if not isinstance(node, dict):
            continue
        if position == 0 and isinstance(last := node.get("sequence_number"), int):
            number = last + 1
        if isinstance(node.get("response"), dict):
            response |= node["response"]
            break
    failure = {
        "code": "server_error" if error["type"] == "server_error" else error["code"],
        "message": error["message"],
    }
    return number, response | {"status": "failed", "error": failure, "usage": None}


def as_stream(body: bytes) -> Iterator[bytes]:
    """Yield the events of a response."""
    response = msgspec.json.decode(body)
    number = -1
    items: list[dict[str, Any]] = response.get("output") or []

    def event(kind: str, /, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return framed(msgspec.json.encode({"type": kind, "sequence_number": number, **fields}), kind)

    begun = response | {"status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    if response.get("status") in UNDER_WAY:
        return
    for index, item in enumerate(items):
        first = item | {name: [] for name in ("content", "summary") if item.get(name)}
        first |= {name: "" for name in ITEM if isinstance(item.get(name), str)}
        yield event(
            "response.output_item.added",
            output_index=index,
            item=first | ({"status": "in_progress"} if "status" in item else {}),
        )
        yield from _of_parts(event, {"item_id": item.get("id", ""), "output_index": index}, item)
        yield event("response.output_item.done", output_index=index, item=item)
    yield event(ENDS.get(response.get("status") or "", "response.completed"), response=response)


def _of_parts(event: Callable[..., bytes], where: dict[str, Any], item: dict[str, Any]) -> Iterator[bytes]:
    """Yield what makes an item, from its start to its end."""
    match item.get("type"):
        case "message":
            for number, part in enumerate(item.get("content") or ()):
                yield from _of_part(event, where | {"content_index": number}, part)
        case "reasoning":
            for number, part in enumerate(item.get("summary") or ()):
                place, text = where | {"summary_index": number}, part.get("text", "")
                yield event("response.reasoning_summary_part.added", **place, part=part | {"text": ""})
                yield event("response.reasoning_summary_text.delta", **place, delta=text)
                yield event("response.reasoning_summary_text.done", **place, text=text)
                yield event("response.reasoning_summary_part.done", **place, part=part)
        case "function_call":
            said = item.get("arguments", "")
            yield event("response.function_call_arguments.delta", **where, delta=said)
            yield event("response.function_call_arguments.done", **where, name=item.get("name"), arguments=said)
        case "custom_tool_call":
            said = item.get("input", "")
            yield event("response.custom_tool_call_input.delta", **where, delta=said)
            yield event("response.custom_tool_call_input.done", **where, input=said)
        case _:
            return


def _of_part(event: Callable[..., bytes], place: dict[str, Any], part: dict[str, Any]) -> Iterator[bytes]:
    key = "refusal" if part.get("type") == "refusal" else "text"
    kind, logprobs = (
        f"response.{part.get('type')}",
        {} if key == "refusal" else {"logprobs": part.get("logprobs") or []},
    )
    yield event("response.content_part.added", **place, part=part | {key: ""})
    if part.get(key):
        yield event(f"{kind}.delta", **place, **logprobs, delta=part[key])
    if key in part:
        yield event(f"{kind}.done", **place, **logprobs, **{key: part[key]})
    yield event("response.content_part.done", **place, part=part)
