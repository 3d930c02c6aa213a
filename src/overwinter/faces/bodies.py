"""What a request says: a body, which is a JSON object of at most 4 MB, its fields by their kinds, and whole numbers."""

import json
import re
from types import UnionType
from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request

from overwinter.errors import UsageError
from overwinter.schedule import KEYS
from overwinter.values import has_half_character

__all__ = [
    "BODY_BYTES_MAX",
    "KEY_LENGTH_MAX",
    "NUMBER_MAX",
    "READ",
    "body_of",
    "field",
    "key_of",
    "number_of",
]

BODY_BYTES_MAX = 4 << 20
JSON = "application/json"
KEY_LENGTH_MAX = 1_024
NUMBER_MAX = 2**62
"""Largest whole number that is taken: a store holds 63 bits, so what is reckoned from this still fits."""
READ = "overwinter.body"
"""Key of the ASGI scope under which a door leaves the body that it has read, and changed."""
REQUIRED = object()


async def body_of(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request; an empty body is an empty one."""
    if READ in request.scope:
        return request.scope[READ]
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > BODY_BYTES_MAX:
            raise HTTPException(413, f"the body is larger than {BODY_BYTES_MAX >> 20} MB")
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if raw and kind != JSON and not kind.endswith("+json"):
        raise HTTPException(415, f"the body is {kind[:80]!r}: send JSON, with `content-type: {JSON}`")
    try:
        body: Any = json.loads(raw.decode("utf-8", "surrogatepass") or "{}")  # in nothing else, says RFC 8259, 8.1
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {error}") from error
    if has_half_character(raw, body):
        raise UsageError("a text in the body has half a character, \\ud800 to \\udfff: it was cut in the middle of one")
    if not isinstance(body, dict):
        raise UsageError("the body is a JSON object")
    return cast("dict[str, Any]", body)


def key_of(request: Request, body: dict[str, Any]) -> str | None:
    """Return the key under which a request may come again: `dedup`, or the header `Idempotency-Key`.

    Raises:
        UsageError: it is no text, longer than `KEY_LENGTH_MAX`, or of the keys of schedules.
    """
    key = field(body, "dedup", str, None) or request.headers.get("idempotency-key")
    if key is not None and len(key) > KEY_LENGTH_MAX:
        raise UsageError(f"a key has at most {KEY_LENGTH_MAX} characters, not {len(key)}")
    if key is not None and key.startswith(KEYS):
        raise UsageError(f"keys that begin with {KEYS!r} are those of schedules: take another than {key!r}")
    return key


def field(body: dict[str, Any], name: str, kind: type | UnionType, default: Any = REQUIRED) -> Any:  # noqa: ANN401 - as the kind says
    """Return a field of a body.

    Raises:
        UsageError: it is missing or of another kind.
    """
    value = body.get(name, default)
    if value is REQUIRED:
        raise UsageError(f"{name!r} is missing")
    if value is not default and not isinstance(value, kind):
        raise UsageError(f"{name!r} is a {getattr(kind, '__name__', kind)}, not {type(value).__name__}")
    if isinstance(value, int) and abs(value) > NUMBER_MAX:
        raise UsageError(f"{name!r} is between -{NUMBER_MAX} and {NUMBER_MAX}")
    return value


def number_of(name: str, text: str, *, least: int = 0, most: int = NUMBER_MAX) -> int:
    """Return a whole number of an address or a header.

    Raises:
        UsageError: it is none, or out of its bounds.
    """
    number = int(text) if re.fullmatch(r"-?[0-9]{1,19}", text) else None
    if number is None or not least <= number <= most:
        raise UsageError(f"{name} is a whole number from {least} to {most}, not {text[:40]!r}")
    return number
