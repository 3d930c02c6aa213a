"""OpenAI Responses, said by the provider."""

from collections.abc import Iterator
from typing import Any

from .plan import Event, Json, Plan, Tokens, named

OPEN = frozenset({"queued", "in_progress", "cancelled"})


def error_event(call_id: str) -> bytes:
    said = {"code": "server_error", "message": f"scripted ({call_id})", "param": None, "sequence_number": 999}
    return named({"type": "error", **said})


def usage(tokens: Tokens) -> Json:
    written = {"ttl_30m_tokens": tokens.written_5m, "ttl_12h_tokens": tokens.written_1h}
    into = {"cached_tokens": tokens.read, "cache_write_tokens": tokens.written_5m + tokens.written_1h}
    return {
        "input_tokens": tokens.prompt,
        "input_tokens_details": {**into, "cache_write_tokens_details": written},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.thinking},
        "total_tokens": tokens.prompt + tokens.output,
    }


def whole(plan: Plan, status: str = "") -> Json:
    status = status or ("incomplete" if plan.is_clipped else "completed")
    is_open = status in OPEN
    counts = None if is_open or plan.says == "nothing" else usage(plan.told)
    fixed: Json = {"error": None, "parallel_tool_calls": False, "tool_choice": "auto", "tools": [], "metadata": {}}
    return {
        "id": f"resp_{plan.id}", "object": "response", "created_at": 1, "status": status, "model": plan.model,
        "service_tier": plan.tier or "default", **fixed,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "output": [] if is_open else [*searched(plan), item(plan, plan.text, "completed")], "usage": counts,
    }  # fmt: skip


def searched(plan: Plan) -> list[Json]:
    """Return the items of searches of its own: no count says how many there were."""
    return [{"type": "web_search_call", "id": f"ws_{at}", "status": "completed"} for at in range(plan.searches)]


def item(plan: Plan, text: str, status: str) -> Json:
    if plan.tool:
        called = {"call_id": "call_mock", "name": plan.tool, "arguments": text}
        return {"type": "function_call", "id": "fc_mock", **called, "status": status}
    content = [part(text)] if text else []
    return {"type": "message", "id": "msg_mock", "role": "assistant", "status": status, "content": content}


def part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def events(plan: Plan) -> Iterator[Event]:
    text = plan.text
    where: Json = {"item_id": "fc_mock" if plan.tool else "msg_mock", "output_index": 0}
    within = {**where, "content_index": 0}
    kind = "response.function_call_arguments" if plan.tool else "response.output_text"
    number = -1

    def numbered(event_type: str, /, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return named({"type": event_type, "sequence_number": number, **fields})

    yield Event(numbered("response.created", response=whole(plan, "in_progress")))
    yield Event(numbered("response.in_progress", response=whole(plan, "in_progress")), plan.tokens.thinking)
    for each in searched(plan):
        yield Event(numbered("response.output_item.done", output_index=0, item=each))
    yield Event(numbered("response.output_item.added", output_index=0, item=item(plan, "", "in_progress")))
    if not plan.tool:
        yield Event(numbered("response.content_part.added", **within, part=part("")))
    for piece in plan.pieces:
        place = where if plan.tool else {**within, "logprobs": []}
        yield Event(numbered(f"{kind}.delta", **place, delta=piece), 1)
    if plan.tool:
        yield Event(numbered(f"{kind}.done", **where, name=plan.tool, arguments=text))
    else:
        yield Event(numbered(f"{kind}.done", **within, text=text, logprobs=[]))
        yield Event(numbered("response.content_part.done", **within, part=part(text)))
    yield Event(numbered("response.output_item.done", output_index=0, item=item(plan, text, "completed")))
    last = whole(plan)
    yield Event(numbered(f"response.{last['status']}", response=last), is_usage=True)
