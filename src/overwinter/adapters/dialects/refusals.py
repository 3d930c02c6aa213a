"""What clients are told: a status, a word and headers for each reason, in the shape of each provider.

Chosen by what programs do after it (calls until they give up, measured with Claude Code, Codex, Copilot and opencode). None is
400 for a decision of policy: two of them try that again and again. A spent budget is 402, on which three stop at once; Codex
stops on 429 `insufficient_quota`, so it is that in Responses. `x-should-retry: false` ends what the official SDKs would retry.
`x-overwinter-refused` is the reason in the word of `Why`, the same in each dialect.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any, Literal

import msgspec

from overwinter.frozen import frozen
from overwinter.gateway.dialect import Wire
from overwinter.gateway.refusal import Refusal, Why

__all__ = ["anthropic_error", "error_wire", "google_error", "openai_error", "status_of", "status_of_word"]


@frozen(kw_only=False)
class _Words:
    status: int
    openai: str
    """`type` of an error."""
    code: str
    anthropic: str
    google: str


SOON_S = 60.0
"""Until when a client should try again by itself: the official SDKs wait no longer, and would ask at once."""
_INVALID = "invalid_request_error"
_WORDS: Mapping[Why, _Words] = {
    "invalid": _Words(400, _INVALID, "invalid_request", _INVALID, "INVALID_ARGUMENT"),
    "too-large": _Words(413, _INVALID, "request_too_large", "request_too_large", "INVALID_ARGUMENT"),
    "unknown-key": _Words(401, "authentication_error", "invalid_api_key", "authentication_error", "UNAUTHENTICATED"),
    "unknown-model": _Words(404, _INVALID, "model_not_found", "not_found_error", "NOT_FOUND"),
    "unknown-answer": _Words(404, _INVALID, "not_found", "not_found_error", "NOT_FOUND"),
    "unsupported": _Words(400, _INVALID, "unsupported", _INVALID, "INVALID_ARGUMENT"),
    "denied": _Words(403, "permission_error", "denied", "permission_error", "PERMISSION_DENIED"),
    "revoked": _Words(403, "permission_error", "revoked", "permission_error", "PERMISSION_DENIED"),
    "confidential": _Words(403, "permission_error", "confidential", "permission_error", "PERMISSION_DENIED"),
    "budget": _Words(402, "insufficient_quota", "insufficient_quota", "billing_error", "RESOURCE_EXHAUSTED"),
    "unpriced": _Words(402, "insufficient_quota", "insufficient_quota", "billing_error", "RESOURCE_EXHAUSTED"),
    "rate": _Words(429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    "repeated": _Words(409, _INVALID, "idempotency_conflict", _INVALID, "ABORTED"),
    "overloaded": _Words(503, "server_error", "overloaded", "overloaded_error", "UNAVAILABLE"),
    "upstream": _Words(502, "server_error", "upstream_failed", "api_error", "UNAVAILABLE"),
    "misconfigured": _Words(502, "server_error", "misconfigured", "api_error", "UNAVAILABLE"),
    "timeout": _Words(504, "server_error", "upstream_timeout", "timeout_error", "DEADLINE_EXCEEDED"),
    "partial": _Words(502, "server_error", "answer_cut", "api_error", "UNAVAILABLE"),
    "stopped": _Words(503, "server_error", "stopped", "api_error", "UNAVAILABLE"),
}
_STATUSES = {
    "authentication_error": 401, "permission_error": 403, "not_found_error": 404, "request_too_large": 413,
    "invalid_request_error": 400, "invalid_prompt": 400, "context_length_exceeded": 400, "billing_error": 402,
    "rate_limit_error": 429, "rate_limit_exceeded": 429, "insufficient_quota": 429, "tokens": 429, "requests": 429,
    "timeout_error": 504, "overloaded_error": 529, "server_error": 500, "api_error": 500, "server_is_overloaded": 503,
    "RESOURCE_EXHAUSTED": 429, "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504, "INTERNAL": 500,
}  # fmt: skip
"""What a word in an error under status 200 would have been as a status."""


def status_of(refusal: Refusal) -> int:
    """Return the status of a refusal."""
    return refusal.status or _WORDS[refusal.why].status


def status_of_word(*words: object) -> int:
    """Return the status that a provider's own words for an error stand for; 500 for unknown ones."""
    for word in words:
        if isinstance(word, int) and 400 <= word <= 599:  # noqa: PLR2004 - errors of RFC 9110, 15.5 and 15.6
            return word
        if isinstance(word, str) and word in _STATUSES:
            return _STATUSES[word]
        if isinstance(word, str) and word.isdecimal() and len(word) == 3 and word[0] in "45":  # noqa: PLR2004 - the same
            return int(word)
    return 500


def openai_error(refusal: Refusal) -> dict[str, Any]:
    """Return the value of `error`."""
    words = _WORDS[refusal.why]
    return {"message": refusal.message, "type": words.openai, "param": None, "code": words.code}


def anthropic_error(refusal: Refusal) -> dict[str, Any]:
    """Return the whole error, the same in a stream and as a body."""
    return {"type": "error", "error": {"type": _WORDS[refusal.why].anthropic, "message": refusal.message}}


def google_error(refusal: Refusal) -> dict[str, Any]:
    """Return the whole error, the same in a stream and as a body."""
    words = _WORDS[refusal.why]
    return {"error": {"code": status_of(refusal), "message": refusal.message, "status": words.google}}


def error_wire(refusal: Refusal, body: dict[str, Any], status: int | None = None) -> Wire:
    """Return a refusal as a message, with the headers that end or delay another try."""
    headers: dict[str, str] = {"content-type": "application/json", "x-overwinter-refused": refusal.why}
    should_retry: Literal["true", "false"] = "false"
    if refusal.retry_after_s is not None:
        should_retry = "true" if refusal.retry_after_s <= SOON_S else "false"
        headers["retry-after"] = str(max(1, ceil(refusal.retry_after_s)))
    headers["x-should-retry"] = should_retry
    return Wire(body=msgspec.json.encode(body), headers=headers, status=status or status_of(refusal))
