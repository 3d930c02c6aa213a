"""What a translation takes out of a request: each field by name, so that one which nobody takes is refused and not lost."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from overwinter.gateway.dialect import Asked, Means
from overwinter.gateway.refusal import ModelRefused, Refusal

__all__ = ["encoded", "fields_of", "lacks", "listed", "mapping", "only", "place_in", "text"]

IMPLIED_HEADERS = frozenset({"anthropic-version"})
"""Headers of a dialect that every request in it has."""
BETAS = ("anthropic-", "openai-")


def lacks(place: str, remedy: str = "leave it out, or use a model whose provider speaks this dialect") -> ModelRefused:
    """Return the refusal of what the provider's dialect has no form for."""
    return ModelRefused(
        Refusal(why="unsupported", message=f"{place} has no counterpart in the provider's dialect: {remedy}")
    )


def fields_of(asked: Asked, means: Means, defaults: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the fields of a request that say something.

    Args:
        asked: the request.
        means: what the gateway replaces in it.
        defaults: values that hold anyway, by field.
        path: the only one of the client's dialect that can be answered.

    Raises:
        ModelRefused: it is for another operation, or has a header or a query that belongs to the client's dialect.
    """
    if asked.path != path or asked.operation != "generate":
        raise lacks(asked.path)
    for name in asked.headers:
        if name.startswith(BETAS) and name not in IMPLIED_HEADERS:
            raise lacks(f"the header {name}")
    try:
        top = {key: json.loads(value) for key, value in {**asked.top, **means.replaced}.items()}
    except (ValueError, RecursionError) as error:
        raise ModelRefused(Refusal(why="invalid", message=f"the body cannot be read: {error}")) from error
    return {
        key: value
        for key, value in top.items()
        if value is not None and not (key in defaults and defaults[key] == value)
    }


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return a request's bytes.

    Raises:
        ModelRefused: it has a number that no computer holds.
    """
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass")
    except ValueError as error:
        raise ModelRefused(Refusal(why="invalid", message=f"a number in the body is too large: {error}")) from error


def only(node: Mapping[str, Any], known: Collection[str], place: str = "") -> None:
    """Do nothing about an object that has no other fields than these.

    Raises:
        ModelRefused: it has one, with its place.
    """
    for key, value in node.items():
        if key not in known and value is not None:
            raise lacks(place_in(place, key))


def place_in(place: str, key: str) -> str:
    """Return the place of a field of an object at a place."""
    return f"{place}.{key}" if place else key


def mapping(node: Any, place: str) -> dict[str, Any]:
    """Return an object.

    Raises:
        ModelRefused: it is none.
    """
    if not isinstance(node, dict):
        raise ModelRefused(Refusal(why="invalid", message=f"{place}: an object is expected"))
    return node


def listed(node: Any, place: str) -> Sequence[tuple[str, dict[str, Any]]]:
    """Return the objects of a list, each with its place.

    Raises:
        ModelRefused: it is no list of objects.
    """
    if not isinstance(node, list):
        raise ModelRefused(Refusal(why="invalid", message=f"{place}: a list is expected"))
    return [(f"{place}[{number}]", mapping(each, f"{place}[{number}]")) for number, each in enumerate(node)]


def text(node: Any, place: str) -> str:
    """Return a text.

    Raises:
        ModelRefused: it is none.
    """
    if not isinstance(node, str):
        raise ModelRefused(Refusal(why="invalid", message=f"{place}: a text is expected"))
    return node
