"""Errors as answers: our `error`, and beside it the members of RFC 9457, for clients that know only those."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse, Response

__all__ = ["PROBLEM", "problem"]

PROBLEM = "application/problem+json"
KIND = "urn:overwinter:error:"


def problem(status: int, answer: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return an error answer.

    Args:
        status: of HTTP.
        answer: an error as `wire.error` has it; it stays as it is, so no client of before notices.
        headers: of the answer.
    """
    error = answer["error"]
    body = {
        "type": f"{KIND}{error['type']}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error["message"],
        **answer,
    }
    return JSONResponse(body, status_code=status, headers=headers, media_type=PROBLEM)
