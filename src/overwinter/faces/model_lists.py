"""What the models' door says that is no model call: its models, and that a path of a provider is not answered here.

Clients read an error in the shape of their own provider and in no other, so who asks is told apart by the path, or where two
providers have the same one, by the headers that only one of them has.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from overwinter.gateway.dialect import DialectName
from overwinter.gateway.refusal import ModelRefused, Refusal

__all__ = ["asked_model", "listed", "spoken"]

MODELS = re.compile(r"/v1(beta|alpha)?/models(/(?P<name>[^:]+))?")
GEMINI = re.compile(r"/v1(beta|alpha)/.*|/v1/models/[^/:]+:\w+")
MESSAGES = re.compile(r"/v1/(messages/.+|complete|skills(/.*)?)")
SHARED = re.compile(r"/v1/(models|files)(/.*)?")
"""Paths that OpenAI and Anthropic both have."""
CHAT = re.compile(
    r"/v1/(assistants|audio|batches|chat|completions|containers|conversations|embeddings|evals|fine_tuning|images|moderations"
    r"|organization|realtime|responses|threads|uploads|vector_stores|videos)(/.*)?"
)
BATCHES = re.compile(r"/v1/(batches|messages/batches)(/.*)?|.*:batch\w+")


def spoken(path: str, headers: Mapping[str, str]) -> DialectName | None:
    """Return in which dialect a client is told about a path that is no model call; None: it is no provider's.

    Args:
        path: of the request.
        headers: by their names in lower case.
    """
    if GEMINI.fullmatch(path):
        return "gemini"
    if MESSAGES.fullmatch(path):
        return "messages"
    if SHARED.fullmatch(path):
        if "x-goog-api-key" in headers:
            return "gemini"
        return "messages" if "anthropic-version" in headers else "chat"
    return "chat" if CHAT.fullmatch(path) else None


def asked_model(method: str, path: str) -> str:
    """Return the model that a request asks about; "": all of them.

    Raises:
        ModelRefused: it asks about none, so it is for what is in a provider's API and not in this one.
    """
    found = MODELS.fullmatch(path)
    if found is not None and method == "GET":
        return found["name"] or ""
    why = (
        "a batch is answered past budgets, redaction and the log: send its requests one by one"
        if BATCHES.fullmatch(path)
        else "docs/dialects.md has the paths that are"
    )
    message = f"{method} {path[:200]} is not answered here: {why}"
    raise ModelRefused(Refusal(why="unsupported", message=message, status=404))


def listed(names: Sequence[str], dialect: DialectName, *, is_one: bool) -> dict[str, Any]:
    """Return models as a provider of a dialect lists them, or the only one."""
    match dialect:
        case "gemini":
            rows: list[dict[str, Any]] = [{"name": f"models/{each}", "displayName": each} for each in names]
            whole: dict[str, Any] = {"models": rows}
        case "messages":
            rows = [
                {"type": "model", "id": each, "display_name": each, "created_at": "1970-01-01T00:00:00Z"}
                for each in names
            ]
            ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
            whole = {"data": rows, "has_more": False, **ends}
        case _:
            rows = [{"id": each, "object": "model", "created": 0, "owned_by": "overwinter"} for each in names]
            whole = {"object": "list", "data": rows}
    return rows[0] if is_one else whole
