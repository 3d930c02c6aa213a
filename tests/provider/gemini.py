"""Gemini generateContent, said by the provider."""

import json
from collections.abc import Iterator

from .plan import Event, Json, Plan, Tokens, sse

STATUSES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}  # fmt: skip


def error(status: int, call_id: str, kind: str) -> Json:
    word = kind or STATUSES.get(status, "INTERNAL")
    return {"error": {"code": status, "message": f"scripted {status} ({call_id})", "status": word}}


def error_event(call_id: str) -> bytes:
    return sse(error(503, call_id, ""))


def usage(tokens: Tokens, output: int, thinking: int) -> Json:
    counts: Json = {
        "promptTokenCount": tokens.prompt,
        "candidatesTokenCount": output - thinking,
        "totalTokenCount": tokens.prompt + output,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens.prompt}],
    }
    if tokens.read:
        counts["cachedContentTokenCount"] = tokens.read
    if thinking:
        counts["thoughtsTokenCount"] = thinking
    return counts


def stop(plan: Plan) -> str:
    return "MAX_TOKENS" if plan.is_clipped else "STOP"


def chunk(plan: Plan, parts: list[Json], counts: Json, end: str = "") -> Json:
    candidate: Json = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if end:
        candidate["finishReason"] = end
    head = {"modelVersion": plan.model, "responseId": plan.id}
    return {"candidates": [candidate], **({} if plan.says == "nothing" else {"usageMetadata": counts}), **head}


def said(plan: Plan) -> list[Json]:
    if plan.tool:
        return [] if plan.is_clipped else [{"functionCall": {"name": plan.tool, "args": json.loads(plan.text)}}]
    return [{"text": plan.text}]


def whole(plan: Plan) -> Json:
    thought: Json = {"text": plan.thinking_each * plan.tokens.thinking, "thought": True}
    parts = [thought, *said(plan)] if plan.tokens.thinking else said(plan)
    return chunk(plan, parts, usage(plan.told, plan.told.output, plan.told.thinking), stop(plan))


def events(plan: Plan) -> Iterator[Event]:
    told, written = plan.told, 0
    thinking = plan.tokens.thinking
    if thinking:
        thought: Json = {"text": plan.thinking_each * thinking, "thought": True}
        written = thinking
        yield Event(sse(chunk(plan, [thought], usage(told, written, thinking))), thinking)
    if plan.tool:
        counts = usage(told, told.output, told.thinking)
        yield Event(sse(chunk(plan, said(plan), counts, stop(plan))), len(plan.pieces), is_usage=True)
        return
    for number, piece in enumerate(plan.pieces):
        written += 1
        is_last = number == len(plan.pieces) - 1
        counts = usage(told, told.output if is_last else written, thinking)
        yield Event(sse(chunk(plan, [{"text": piece}], counts, stop(plan) if is_last else "")), 1, is_usage=is_last)
    if not plan.pieces:
        yield Event(sse(chunk(plan, [], usage(told, told.output, thinking), stop(plan))), is_usage=True)
