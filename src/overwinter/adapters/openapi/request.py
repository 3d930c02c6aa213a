"""Arguments as an HTTP request: styles and encodings of OpenAPI 3.1 (4.8.12) and of Swagger 2, which map onto them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, cast
from urllib.parse import quote, urlencode

from overwinter.frozen import frozen
from overwinter.handles import File

__all__ = ["Prepared", "prepared"]

Pairs = list[tuple[str, str]]
SEPARATORS = {"spaceDelimited": " ", "pipeDelimited": "|", "tabDelimited": "\t"}


@frozen
class Prepared:
    """A request, less what the connection adds: base address and credentials."""

    verb: str
    path: str
    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes | None
    parts: Sequence[tuple[str, Any]] = field(default=())
    """Of a multipart body: name and text, bytes or file."""

    def target(self, more: Sequence[tuple[str, str]] = ()) -> str:
        """Return path and query, with what the connection adds to it."""
        query = [*self.query, *more]
        return f"{self.path}?{urlencode(query, quote_via=quote)}" if query else self.path


def prepared(plan: Mapping[str, Any], arguments: Mapping[str, Any], *, key: str) -> Prepared:
    """Return the request of a call.

    Args:
        plan: the function's plan, see `operations` and `catalog.modules`.
        arguments: by parameter name. None stands for an optional argument that is left out, unless its schema allows null.
        key: the call's idempotency key.

    Raises:
        ValueError: a part of the path would lead to another operation, or fewer fields are given than the description asks for.
    """
    path = str(plan["path"])
    query, headers, cookies = Pairs(), dict[str, str](), Pairs()
    fields: dict[str, Any] = {}
    whole: Any = None
    for name, wire, place, style, explode, is_nullable in plan["arguments"]:
        value = arguments.get(name)
        if name not in arguments or (value is None and not is_nullable):
            continue
        match place:
            case "path":
                path = path.replace(f"{{{wire}}}", _segment(wire, value, style or "simple", explode is True))
            case "query":
                query += _query(wire, value, style or "form", explode)
            case "header":
                headers[wire] = _header(value, explode is True)
            case "cookie":
                cookies += _query(wire, value, "form", explode)
            case "field":
                fields[wire] = value
            case _:
                whole = value
    if cookies:
        headers["Cookie"] = "; ".join(f"{name}={quote(value)}" for name, value in cookies)
    if "key" in plan:
        headers[str(plan["key"])] = key
    media = str(plan.get("media") or "")
    whole = whole if whole is not None else _asked_for(plan, media, fields)
    body, parts = _body(media, fields, whole, headers)
    return Prepared(verb=plan["verb"], path=path, query=query, headers=headers, body=body, parts=parts)


# --- Places ------------------------------------------------------------------------------------------------------------


def _segment(name: str, value: Any, style: str, explode: bool) -> str:  # noqa: FBT001 - OpenAPI's own word
    """Return a part of the path that leads nowhere but to its own operation.

    `DELETE /orders/` would answer for an empty id, `DELETE /` for "..". To write the dots as %2E is no help: they mean the
    same (RFC 3986, 6.2.2.2), and clients, proxies and servers take them so.

    Raises:
        ValueError: it is empty, or a step to another place.
    """
    segment = _path(name, value, style, explode)
    if segment in ("", ".", ".."):
        raise ValueError(f"{name} is part of the path: it may not be {_text(value)!r}")
    return segment


def _path(name: str, value: Any, style: str, explode: bool) -> str:  # noqa: FBT001 - OpenAPI's own word
    prefix = {"label": ".", "matrix": ";"}.get(style, "")
    match value:
        case list() | tuple():
            rows = [quote(_text(each), safe="") for each in cast("list[Any]", value)]
            if style == "matrix":
                return "".join(f";{name}={row}" for row in rows) if explode else f";{name}={','.join(rows)}"
            return prefix + (prefix if explode and prefix else ",").join(rows)
        case dict():
            pairs = [
                (quote(str(each), safe=""), quote(_text(row), safe=""))
                for each, row in cast("dict[str, Any]", value).items()
            ]
            if explode:
                return prefix + (prefix or ",").join(f"{each}={row}" for each, row in pairs)
            flat = ",".join(f"{each},{row}" for each, row in pairs)
            return f";{name}={flat}" if style == "matrix" else prefix + flat
        case _:
            text = quote(_text(value), safe="")
            return f";{name}={text}" if style == "matrix" else prefix + text


def _query(name: str, value: Any, style: str, explode: bool | None) -> Pairs:  # noqa: FBT001 - as above
    if style == "json":
        return [(name, _json(value))]
    is_exploded = explode if explode is not None else style in ("form", "deepObject")
    match value:
        case list() | tuple():
            rows = [_text(each) for each in cast("list[Any]", value)]
            return [(name, row) for row in rows] if is_exploded else [(name, SEPARATORS.get(style, ",").join(rows))]
        case dict():
            table = cast("dict[str, Any]", value)
            if style == "deepObject":
                return _deep(name, table)
            if is_exploded:
                return [(str(each), _text(row)) for each, row in table.items()]
            return [(name, ",".join(f"{each},{_text(row)}" for each, row in table.items()))]
        case _:
            return [(name, _text(value))]


def _header(value: Any, explode: bool) -> str:  # noqa: FBT001 - as above
    match value:
        case list() | tuple():
            text = ",".join(_text(each) for each in cast("list[Any]", value))
        case dict():
            sign = "=" if explode else ","
            text = ",".join(f"{each}{sign}{_text(row)}" for each, row in cast("dict[str, Any]", value).items())
        case _:
            text = _text(value)
    return " ".join(text.split())  # a line break would begin another header


def _deep(name: str, value: Any) -> Pairs:
    """Return nested values in brackets, as `a[b][0]=c`: OpenAPI leaves it open, Rack and PHP read it so."""
    match value:
        case dict():
            return [
                pair for each, row in cast("dict[str, Any]", value).items() for pair in _deep(f"{name}[{each}]", row)
            ]
        case list() | tuple():
            rows = enumerate(cast("list[Any]", value))
            return [pair for place, row in rows for pair in _deep(f"{name}[{place}]", row)]
        case _:
            return [(name, _text(value))]


# --- Bodies ------------------------------------------------------------------------------------------------------------


def _asked_for(plan: Mapping[str, Any], media: str, fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the empty body that is asked for though nothing in it is; None: there are fields, or no body need be.

    Raises:
        ValueError: fewer fields are given than the description asks for.
    """
    fewest = plan.get("fields_min")
    if fewest and len(fields) < fewest:
        names = [name for name, _, place, *_ in plan["arguments"] if place == "field"]
        raise ValueError(f"the description asks for {fewest} at least of {', '.join(names)}")
    return {} if fewest is not None and not fields and "json" in media else None


def _body(
    media: str, fields: Mapping[str, Any], whole: Any, headers: dict[str, str]
) -> tuple[bytes | None, Sequence[tuple[str, Any]]]:
    if not media or (whole is None and not fields):
        return None, ()
    if media.startswith("multipart/"):
        rows = fields if whole is None else cast("Mapping[str, Any]", whole)
        parts = [(name, each) for name, value in rows.items() for each in _files(value)]
        return None, [(name, value if isinstance(value, bytes | File) else _text(value)) for name, value in parts]
    headers["Content-Type"] = media
    if media.startswith("application/x-www-form-urlencoded"):
        rows = fields if whole is None else cast("Mapping[str, Any]", whole)
        pairs = [pair for name, value in rows.items() for pair in _deep(name, value)]
        return urlencode(pairs, quote_via=quote).encode(), ()
    if "json" in media:
        return _json(fields if whole is None else whole).encode(), ()
    whole = whole.body if isinstance(whole, File) else whole
    return (whole if isinstance(whole, bytes) else _text(whole).encode()), ()


def _files(value: Any) -> list[Any]:
    """Return the files of a list as parts of one name (OpenAPI 3.1, 4.8.14.4); what holds none is one part."""
    rows = cast("list[Any]", value) if isinstance(value, list) else []
    return rows if rows and all(isinstance(each, bytes | File) for each in rows) else [value]


def _text(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return ""
        case str():
            return value
        case dict() | list() | tuple():
            return _json(value)
        case _:
            return str(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
