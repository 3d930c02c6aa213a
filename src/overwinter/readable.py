"""Values as plain JSON, for people: nothing is lost to the eye, and nothing reads it back."""

import base64
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

from overwinter.values import Value

__all__ = ["readable"]


def readable(value: Value) -> Value:  # noqa: PLR0911 - a case for each type
    """Return a value as plain JSON; what JSON lacks is shown as text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if value == value and abs(value) != float("inf") else repr(value)  # noqa: PLR0124 - not a number
        case dict():
            return _table(cast("dict[Any, Any]", value))
        case list() | tuple():
            return [readable(each) for each in cast("Sequence[Any]", value)]
        case set() | frozenset():
            return sorted((readable(each) for each in cast("frozenset[Any]", value)), key=repr)
        case bytes():
            return base64.b64encode(value).decode()
        case datetime() | date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return str(value)
        case _:
            return repr(value)


def _table(table: dict[Any, Any]) -> Value:
    """Return a table; as pairs if keys of it read alike: whoever looks sees 1 and "1"."""
    shown = {str(key): readable(each) for key, each in table.items()}
    if len(shown) == len(table):
        return shown
    return [[readable(key), readable(each)] for key, each in table.items()]
