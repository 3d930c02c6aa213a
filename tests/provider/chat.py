"""OpenAI chat completions, said by the provider."""

from collections.abc import Iterator

from .plan import Event, Json, Plan, Tokens, sse

ERROR_TYPES = {
    429: "rate_limit_error",
    529: "overloaded_error",
    402: "insufficient_quota",
    400: "invalid_request_error",
}


def error(status: int, call_id: str, kind: str) -> Json:
    kind = kind or ERROR_TYPES.get(status, "server_error")
    return {"error": {"message": f"scripted {status} ({call_id})", "type": kind, "param": None, "code": kind}}


def error_event(call_id: str) -> bytes:
    return sse(error(500, call_id, ""))


def usage(tokens: Tokens) -> Json:
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.prompt + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.read, "cache_write_tokens": tokens.written_5m},
        "completion_tokens_details": {"reasoning_tokens": tokens.thinking},
    }


def stop(plan: Plan) -> str:
    return "length" if plan.is_clipped else "tool_calls" if plan.tool else "stop"


def whole(plan: Plan) -> Json:
    call = {"id": "call_mock", "type": "function", "function": {"name": plan.tool, "arguments": plan.text}}
    message: Json = {"role": "assistant", "content": plan.text, "refusal": None}
    if plan.tool:
        message |= {"content": None, "tool_calls": [call]}
    said: Json = {"message": message, "logprobs": None, "finish_reason": stop(plan)}
    head = {"id": f"chatcmpl-{plan.id}", "object": "chat.completion", "created": 1, "model": plan.model}
    counts = {} if plan.says == "nothing" else {"usage": usage(plan.told)}
    choices = [{"index": index, **said} for index in range(plan.choices)]
    return {**head, "service_tier": plan.tier or "default", "choices": choices, **counts}


def events(plan: Plan) -> Iterator[Event]:
    head: Json = {"id": f"chatcmpl-{plan.id}", "object": "chat.completion.chunk", "created": 1, "model": plan.model}
    head["service_tier"] = plan.tier or "default"
    nothing: Json = {"usage": None} if plan.wants_usage else {}

    def chunk(index: int, delta: Json, end: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": end}
        return sse({**head, "choices": [choice], **nothing})

    opening: Json = {"role": "assistant", "content": None if plan.tool else "", "refusal": None}
    if plan.tool:
        called = {"index": 0, "id": "call_mock", "type": "function", "function": {"name": plan.tool, "arguments": ""}}
        opening["tool_calls"] = [called]
    for index in range(plan.choices):
        yield Event(chunk(index, opening), 0 if index else plan.tokens.thinking)
    for piece in plan.pieces:
        delta = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} if plan.tool else {"content": piece}
        for index in range(plan.choices):
            yield Event(chunk(index, delta), 1)
    for index in range(plan.choices):
        yield Event(chunk(index, {}, stop(plan)))
    if plan.wants_usage and plan.says != "nothing":
        yield Event(sse({**head, "choices": [], "usage": usage(plan.told)}), is_usage=True)
    yield Event(sse("[DONE]"))
