"""Anthropic messages, said by the provider."""

import json
from collections.abc import Iterator

from .plan import Event, Json, Plan, Tokens, named

ERROR_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    429: "rate_limit_error", 529: "overloaded_error",
}  # fmt: skip
SIGNATURE = "c2lnbmVk"
PING = named({"type": "ping"})


def error(status: int, call_id: str, kind: str) -> Json:
    said = {"type": kind or ERROR_TYPES.get(status, "api_error"), "message": f"scripted {status}"}
    return {"type": "error", "error": said, "request_id": call_id}


def error_event(call_id: str) -> bytes:
    return named(error(529, call_id, ""))


def usage(plan: Plan, tokens: Tokens, output: int) -> Json:
    lives = {"ephemeral_5m_input_tokens": tokens.written_5m, "ephemeral_1h_input_tokens": tokens.written_1h}
    counts: Json = {
        "input_tokens": tokens.fresh,
        "cache_read_input_tokens": tokens.read,
        "cache_creation_input_tokens": tokens.written_5m + tokens.written_1h,
        "cache_creation": lives,
        "output_tokens": output,
        "service_tier": plan.tier or "standard",
        "server_tool_use": {"web_search_requests": plan.searches, "web_fetch_requests": 0} if plan.searches else None,
    }
    if plan.speed:
        counts["speed"] = plan.speed
    if plan.geo:
        counts["inference_geo"] = plan.geo
    return counts


def usage_of_delta(plan: Plan) -> Json:
    """Return cumulative counts: they repeat those of `message_start`, and must never be added to them."""
    counts = usage(plan, plan.told, plan.told.output)
    for name in ("cache_creation", "service_tier", "speed", "inference_geo"):
        counts.pop(name, None)
    return counts | iterations(plan)


def iterations(plan: Plan) -> Json:
    if not plan.compaction_tokens:
        return {}
    none = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    compaction = {"type": "compaction", "input_tokens": plan.compaction_tokens, "output_tokens": 3, **none}
    message = {"type": "message", "input_tokens": plan.tokens.fresh, "output_tokens": plan.tokens.output, **none}
    return {"iterations": [compaction, message]}


def stop(plan: Plan) -> str:
    return "max_tokens" if plan.is_clipped else "tool_use" if plan.tool else "end_turn"


def whole(plan: Plan) -> Json:
    thought: Json = {"type": "thinking", "thinking": plan.thinking_each * plan.tokens.thinking, "signature": SIGNATURE}
    said: Json = {"type": "text", "text": plan.text}
    if plan.tool:  # a clipped call has no whole arguments
        said = {"type": "tool_use", "id": "toolu_mock", "name": plan.tool}
        said["input"] = {} if plan.is_clipped else json.loads(plan.text)
    head = {"id": f"msg_{plan.id}", "type": "message", "role": "assistant", "model": plan.model}
    content = [thought, said] if plan.tokens.thinking else [said]
    ending = {"stop_reason": stop(plan), "stop_sequence": None}
    counts = {} if plan.says == "nothing" else {"usage": usage(plan, plan.told, plan.told.output) | iterations(plan)}
    return {**head, "content": content, **ending, **counts}


def events(plan: Plan) -> Iterator[Event]:
    start: Json = {**whole(plan), "content": [], "stop_reason": None}
    if plan.says != "nothing":
        start["usage"] = usage(plan, plan.told, min(1, plan.told.output))
    yield Event(named({"type": "message_start", "message": start}))
    yield Event(PING)
    index = 0

    def delta(fields: Json) -> bytes:
        return named({"type": "content_block_delta", "index": index, "delta": fields})

    if plan.tokens.thinking:
        thought = {"type": "thinking", "thinking": "", "signature": ""}
        yield Event(named({"type": "content_block_start", "index": 0, "content_block": thought}))
        for _ in range(plan.tokens.thinking):
            yield Event(delta({"type": "thinking_delta", "thinking": plan.thinking_each}), 1)
        yield Event(delta({"type": "signature_delta", "signature": SIGNATURE}))
        yield Event(named({"type": "content_block_stop", "index": 0}))
        index = 1
    tool: Json = {"type": "tool_use", "id": "toolu_mock", "name": plan.tool, "input": {}}
    said = tool if plan.tool else {"type": "text", "text": ""}
    yield Event(named({"type": "content_block_start", "index": index, "content_block": said}))
    for piece in plan.pieces:
        fields = (
            {"type": "input_json_delta", "partial_json": piece} if plan.tool else {"type": "text_delta", "text": piece}
        )
        yield Event(delta(fields), 1)
    yield Event(named({"type": "content_block_stop", "index": index}))
    ending: Json = {"type": "message_delta", "delta": {"stop_reason": stop(plan), "stop_sequence": None}}
    counts = {} if plan.says == "nothing" else {"usage": usage_of_delta(plan)}
    yield Event(named({**ending, **counts}), is_usage=True)
    yield Event(named({"type": "message_stop"}))
