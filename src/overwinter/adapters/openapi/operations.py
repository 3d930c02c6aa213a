"""The operations of an API description: what each takes, what it gives, and how it is asked over HTTP."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from overwinter.adapters.openapi.document import Document
from overwinter.adapters.openapi.paging import paging
from overwinter.catalog.operations import Argument, Fault, Operation, Place
from overwinter.events import Effect

__all__ = ["operations"]

VERBS = ("get", "put", "post", "delete", "patch", "head", "options", "trace")
READS = frozenset({"get", "head", "options"})
PLACES: Mapping[str, Place] = {"path": "path", "query": "query", "header": "header", "cookie": "cookie"}
# The client's own: a program neither sets nor sees them.
HEADERS_HIDDEN = frozenset({"accept", "content-type", "content-length", "host", "user-agent", "if-modified-since"})
SECRETS = frozenset({
    "authorization", "token", "access_token", "api_key", "apikey", "api-key", "x-api-key", "auth_token", "password_token",
})  # fmt: skip
"""Parameters that carry a credential although no security scheme says so: Slack has one in 155 of 174 operations."""
KEY_HEADERS = frozenset({"idempotency-key", "x-idempotency-key", "plaid-idempotency-key"})
JSON_MEDIA = re.compile(r"^application/([\w.+-]+\+)?json\b|^\*/\*$|^application/\*$", re.IGNORECASE)
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def operations(document: Document) -> tuple[list[Operation], list[Fault]]:
    """Return what can be used of a description, in its order, and what is wrong with the rest."""
    found: list[Operation] = []
    faults: list[Fault] = []
    for path, verb, shared, node in _nodes(document, faults):
        place = f"{verb.upper()} {path}"
        try:
            found.append(_operation(document, path, verb, [*shared, *_rows(node, "parameters")], node))
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            faults.append(Fault(place=place, what=f"it is not as the format asks: {type(error).__name__}: {error}"))
    return found, faults


def _nodes(document: Document, faults: list[Fault]) -> Iterator[tuple[str, str, Sequence[Any], Mapping[str, Any]]]:
    paths = cast("Mapping[str, Any]", document.root["paths"])
    for path, raw in paths.items():
        item = document.target(raw)
        if not str(path).startswith("/"):
            if not str(path).startswith("x-"):
                faults.append(Fault(place=str(path), what="a path begins with /"))
            continue
        if not item and isinstance(raw, Mapping) and "$ref" in raw:
            faults.append(Fault(place=str(path), what="its reference points nowhere"))
        for verb in VERBS:
            node = item.get(verb)
            if isinstance(node, Mapping):
                yield str(path), verb, _rows(item, "parameters"), cast("Mapping[str, Any]", node)


def _operation(
    document: Document, path: str, verb: str, parameters: Sequence[Any], node: Mapping[str, Any]
) -> Operation:
    declared = {(str(row.get("in")), str(row.get("name"))): row for row in map(document.target, parameters)}
    hidden = _credentials(document)
    arguments: list[Argument] = []
    key_header = ""
    for (where, name), row in declared.items():
        lowered = name.lower()
        if where == "header" and lowered in KEY_HEADERS:
            key_header = name
        elif where in PLACES and not _is_hidden(where, lowered, hidden):
            arguments.append(_argument(document, row, PLACES[where]))
    body, media = _body(document, declared, node)
    result, answer = _result(document, node)
    read = cast("Effect", "read" if verb in READS else "idempotent" if key_header else "write")
    arguments += body
    plan: dict[str, Any] = {"verb": verb.upper(), "path": path, "media": media, "answer": answer}
    if (fewest := _fields_min(document, node)) is not None:
        plan["fields_min"] = fewest
    if key_header:
        plan["key"] = key_header
    if server := _server(document, node):
        plan["server"] = server
    if node.get("security") == []:
        plan["public"] = True
    pages = paging(document, arguments, result) if verb == "get" else None
    if pages:
        plan["pages"] = pages
    nouns = [part for part in path.split("/") if part and not part.startswith("{")]
    return Operation(
        origin=str(node.get("operationId") or f"{verb} {path}"),
        fallbacks=(verb, "_".join(nouns)),
        effect=read,
        summary=str(node.get("summary") or node.get("description") or ""),
        description=str(node.get("description") or ""),
        tags=tuple(str(tag) for tag in cast("list[Any]", node.get("tags") or [])),
        arguments=tuple(arguments),
        result=result,
        plan=plan,
    )


def _is_hidden(where: str, name: str, credentials: frozenset[tuple[str, str]]) -> bool:
    """Tell what the connection sets: credentials, declared as such or not, and headers of the client's own."""
    return (where, name) in credentials or name in SECRETS or (where == "header" and name in HEADERS_HIDDEN)


def _argument(document: Document, row: Mapping[str, Any], place: Place) -> Argument:
    schema = row.get("schema")
    style, explode = str(row.get("style") or ""), row.get("explode")
    if schema is None and isinstance(row.get("content"), Mapping):
        schema = next(iter(cast("Mapping[str, Any]", row["content"]).values()), {}).get("schema", {})
        style = "json"
    if schema is None and document.version == 2:  # noqa: PLR2004 - Swagger 2 writes the schema into the parameter
        schema = {key: value for key, value in row.items() if key not in ("in", "name", "required", "description")}
        style, explode = _swagger_style(str(row.get("collectionFormat") or "csv"))
    return Argument(
        wire=str(row["name"]),
        place=place,
        schema=schema if schema is not None else {},
        is_required=bool(row.get("required")) or place == "path",
        summary=str(row.get("description") or ""),
        style=style,
        does_explode=explode if isinstance(explode, bool) else None,
    )


def _swagger_style(collection: str) -> tuple[str, bool]:
    styles = {"csv": ("form", False), "multi": ("form", True), "ssv": ("spaceDelimited", False)}
    return styles.get(collection, ("pipeDelimited" if collection == "pipes" else "form", False))


# --- Bodies ------------------------------------------------------------------------------------------------------------


def _body(
    document: Document, declared: Mapping[tuple[str, str], Mapping[str, Any]], node: Mapping[str, Any]
) -> tuple[list[Argument], str]:
    """Return the arguments that make the body, and its media type; "" if there is none."""
    if document.version == 2:  # noqa: PLR2004 - Swagger
        return _swagger_body(document, declared, node)
    request = document.target(node.get("requestBody"))
    content = {str(media): document.target(each) for media, each in _table(request, "content").items()}
    media = _chosen(list(content))
    if not media:
        return [], ""
    schema = content[media].get("schema", {})
    return _fields(document, schema, media, is_required=bool(request.get("required"))), media


def _swagger_body(
    document: Document, declared: Mapping[tuple[str, str], Mapping[str, Any]], node: Mapping[str, Any]
) -> tuple[list[Argument], str]:
    forms = [row for (where, _), row in declared.items() if where == "formData"]
    if forms:
        consumes = [str(each) for each in _rows(node, "consumes") or _rows(document.root, "consumes")]
        is_multipart = FORMS[1] in consumes or any(row.get("type") == "file" for row in forms)
        shown = [row for row in forms if str(row.get("name")).lower() not in SECRETS]
        return [_argument(document, row, "field") for row in shown], FORMS[1] if is_multipart else FORMS[0]
    for (where, _), row in declared.items():
        if where == "body":
            media = "application/json"
            return _fields(document, row.get("schema", {}), media, is_required=bool(row.get("required"))), media
    return [], ""


def _fields_min(document: Document, node: Mapping[str, Any]) -> int | None:
    """Return how many fields a body has at least that is always sent; None: it may be left out."""
    request = document.target(node.get("requestBody"))
    if document.version == 2 or request.get("required") is not True:  # noqa: PLR2004 - Swagger has its own ways
        return None
    content = {str(media): document.target(each) for media, each in _table(request, "content").items()}
    schema = document.target(content.get(_chosen(list(content)), {}).get("schema"))
    fewest = schema.get("minProperties")
    return fewest if isinstance(fewest, int) else 0


def _chosen(kinds: Sequence[str]) -> str:
    """Prefer JSON, then forms, then what is left."""
    for kind in kinds:
        if JSON_MEDIA.match(kind):
            return "application/json" if "*" in kind else kind
    return next((kind for form in FORMS for kind in kinds if kind.startswith(form)), kinds[0] if kinds else "")


def _fields(document: Document, schema: Any, media: str, *, is_required: bool) -> list[Argument]:
    """Return an object body as one argument for each key, any other body as one argument."""
    is_form = media.startswith(FORMS)
    record = _record(document, schema, 0, set()) if JSON_MEDIA.match(media) or is_form else None
    if record is None and not is_required and _is_empty(document, schema):
        return []  # Stripe declares a body without a field for each of its reads
    if record is None:
        whole: Any = schema if JSON_MEDIA.match(media) or is_form else {"type": "string"}
        whole = (
            whole
            if media.startswith(("application/json", "text/", *FORMS)) or JSON_MEDIA.match(media)
            else {"type": "string", "format": "binary"}
        )
        return [Argument(wire="body", place="body", schema=whole, is_required=is_required)]
    fields, required = record
    return [
        Argument(
            wire=key,
            place="field",
            schema=each,
            is_required=is_required and key in required and not document.target(each).get("readOnly"),
            summary=str(document.target(each).get("description") or ""),
        )
        for key, each in fields.items()
        if not document.target(each).get("readOnly") and not (is_form and key.lower() in SECRETS)
    ]


def _is_empty(document: Document, schema: object) -> bool:
    node = document.target(schema)
    return node.get("type") == "object" and not any(
        node.get(key) for key in ("properties", "additionalProperties", "allOf", "anyOf", "oneOf")
    )


def _record(
    document: Document, schema: object, depth: int, merged_before: set[int]
) -> tuple[dict[str, Any], set[str]] | None:
    """Return the keys of an object schema with its `allOf` merged; None if it is, or may be, anything else."""
    node = document.target(schema)
    if id(node) in merged_before:  # else a few parts that name each other twice are millions
        return {}, set()
    if node:
        merged_before.add(id(node))
    if depth > 16 or node.get("oneOf") or node.get("anyOf") or node.get("type") not in (None, "object"):  # noqa: PLR2004 - no honest schema is nested so
        return None
    fields: dict[str, Any] = {}
    required: set[str] = set()
    for part in _rows(node, "allOf"):
        merged = _record(document, part, depth + 1, merged_before)
        if merged is None:
            return None
        fields |= merged[0]
        required |= merged[1]
    fields |= _table(node, "properties")
    required |= {str(key) for key in _rows(node, "required")}
    return (fields, required) if fields else None


# --- Answers -----------------------------------------------------------------------------------------------------------


def _result(document: Document, node: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the schema of the answer that means success, and how it is read: json, text, bytes or none."""
    responses = _table(node, "responses")
    for status in sorted(responses, key=lambda each: (str(each) == "default", str(each))):
        if not re.fullmatch(r"2\d\d|2XX|default", str(status), re.IGNORECASE):
            continue
        answer = document.target(responses[status])
        if document.version == 2 and "schema" in answer:  # noqa: PLR2004 - Swagger
            return answer["schema"], "json"
        content = {str(media): document.target(each) for media, each in _table(answer, "content").items()}
        for media, each in content.items():
            if JSON_MEDIA.match(media):
                return each.get("schema"), "json"
        if content:
            media = next(iter(content))
            is_text = media.startswith("text/") or "xml" in media
            return ({"type": "string"}, "text") if is_text else ({"type": "string", "format": "binary"}, "bytes")
        if str(status) != "default":
            return {"type": "null"} if str(status) == "204" else None, "json"
    return None, "json"


def _credentials(document: Document) -> frozenset[tuple[str, str]]:
    """Return the parameters that security schemes stand for."""
    root = document.root
    components = _table(root, "components")
    schemes = _table(root, "securityDefinitions") or _table(components, "securitySchemes")
    rows = [document.target(each) for each in schemes.values()]
    return frozenset((str(row.get("in")), str(row.get("name")).lower()) for row in rows if row.get("type") == "apiKey")


def _server(document: Document, node: Mapping[str, Any]) -> str:
    """Return an operation's own server, where it has one that is not the document's."""
    servers = _rows(node, "servers")
    first = document.target(servers[0]) if servers else {}
    return str(first.get("url") or "")


def _rows(node: Mapping[str, Any], key: str) -> list[Any]:
    rows = node.get(key)
    return cast("list[Any]", rows) if isinstance(rows, list) else []


def _table(node: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = node.get(key)
    return dict(cast("Mapping[str, Any]", table)) if isinstance(table, Mapping) else {}
