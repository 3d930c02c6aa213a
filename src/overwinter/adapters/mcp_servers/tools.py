"""Tools of an MCP server as operations, and its answers as values. Protocol 2026-07-28 and those before it: the SDK speaks both."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from overwinter.catalog.operations import Argument, Fault, Operation
from overwinter.events import Answer, Effect, Raised, Returned
from overwinter.frozen import frozen
from overwinter.handles import File

__all__ = ["answer", "file_of", "operations", "resolver"]

DEPTH_MAX = 64


def operations(tools: Sequence[Mapping[str, Any]]) -> tuple[list[Operation], list[Fault]]:
    """Return the operations of a tool list, as the protocol writes it, and what is wrong with the rest."""
    found: list[Operation] = []
    faults: list[Fault] = []
    resolve = resolver(tools)
    for tool in tools:
        name, schema = str(tool.get("name") or ""), tool.get("inputSchema")
        if not name or not isinstance(schema, Mapping):
            faults.append(Fault(place=name or "a tool", what="it has no name, or no schema of its arguments"))
            continue
        found.append(_operation(name, tool, _fields(_placed(schema, f"{name}/inputSchema", 0), resolve, {}, 0)))
    return found, faults


def resolver(tools: Sequence[Mapping[str, Any]]) -> Callable[[str], Any]:
    """Return what follows references: each tool's lead into its own schemas, and bear its name."""
    roots = {f"{tool.get('name')}/{key}": tool.get(key) for tool in tools for key in ("inputSchema", "outputSchema")}

    def resolve(ref: str) -> Any:
        place, _, path = ref.partition("#")
        node: Any = roots.get(place)
        for step in path.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")  # RFC 6901, section 3
            node = cast("Mapping[str, Any]", node).get(key) if isinstance(node, Mapping) else None
        return _placed(node, place, 0)

    return resolve


def answer(result: Mapping[str, Any]) -> Answer:
    """Return a tool's result: its structured content, else its text, else its parts."""
    parts = [cast("Mapping[str, Any]", part) for part in result.get("content") or () if isinstance(part, Mapping)]
    texts = [str(part.get("text")) for part in parts if part.get("type") == "text"]
    if result.get("isError"):
        return Raised(kind="RuntimeError", message="\n".join(texts) or "the tool failed and gave no reason")
    if result.get("structuredContent") is not None:
        return Returned(value=result["structuredContent"])
    texts += [str(part["resource"]["text"]) for part in parts if "text" in _table(part.get("resource"))]
    if len(texts) == len(parts):
        return Returned(value="\n".join(texts))
    return Returned(value=[dict(part) for part in parts])


def file_of(part: object) -> tuple[dict[str, Any], File | None]:
    """Return a part of an answer without its bytes, and them as a file, if it has any.

    Raises:
        ValueError: they are not base64.
    """
    rest = dict(_table(part))
    inner = dict(_table(rest.get("resource")))
    written = inner.pop("blob", None) or rest.pop("data", None)
    if not isinstance(written, str):
        return rest, None
    uri = str(inner.get("uri") or "")
    media = str(rest.get("mimeType") or inner.get("mimeType") or "application/octet-stream")
    if inner:
        rest["resource"] = inner
    name = uri.rpartition("/")[2] or str(rest.get("type"))
    return rest, File(body=base64.b64decode(written, validate=True), name=name, media=media)


def _operation(name: str, tool: Mapping[str, Any], fields: "_Fields") -> Operation:
    arguments = tuple(
        Argument(wire=key, place="field", schema=each, is_required=key in fields.required)
        for key, each in fields.schemas.items()
    )
    result = tool.get("outputSchema")
    support = _table(tool.get("execution")).get("taskSupport")
    return Operation(
        origin=name,
        fallbacks=("tool",),  # `list` and `str` are words of the stubs
        effect=_effect(tool.get("annotations")),
        summary=str(tool.get("title") or tool.get("description") or ""),
        description=str(tool.get("description") or ""),
        tags=(),
        arguments=arguments,
        result=_placed(result, f"{name}/outputSchema", 0) if isinstance(result, Mapping) else None,
        plan={"tool": name, "is_task": support in ("required", "optional")},
    )


@frozen
class _Fields:
    """What an object may have, and what it must."""

    schemas: Mapping[str, Any]
    required: frozenset[str]


NONE = _Fields(schemas={}, required=frozenset())


def _fields(schema: object, resolve: Callable[[str], Any], known: dict[str, _Fields], depth: int) -> _Fields:
    """Return the fields of a schema of arguments: its own, those of all its parts, and of its variants what any has.

    What a reference leads to is read once: a few that lead to each other would be millions.
    """
    table = _table(schema)
    if depth > DEPTH_MAX:
        return NONE
    if "$ref" in table:
        ref = str(table["$ref"])
        if ref not in known:
            known[ref] = NONE
            known[ref] = _fields(resolve(ref), resolve, known, depth + 1)
        return known[ref]
    named = table.get("required")
    required = {str(key) for key in cast("list[Any]", named)} if isinstance(named, list) else set[str]()
    schemas = {str(key): each for key, each in _table(table.get("properties")).items()}
    for word in ("allOf", "anyOf", "oneOf"):
        parts = [_fields(each, resolve, known, depth + 1) for each in _list(table.get(word))]
        for key in dict.fromkeys(key for part in parts for key in part.schemas):
            given = [part.schemas[key] for part in parts if key in part.schemas]
            alike = [each for at, each in enumerate(given) if each not in given[:at]]
            schemas.setdefault(key, alike[0] if len(alike) == 1 else {word: alike})
        needed = [part.required for part in parts]
        if needed:
            required |= frozenset.union(*needed) if word == "allOf" else frozenset.intersection(*needed)
    return _Fields(schemas=schemas, required=frozenset(required & schemas.keys()))


def _list(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _table(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _effect(annotations: object) -> Effect:
    """Take the server's hints as defaults; `effects` of the configuration overrides them, and policy decides."""
    hints = cast("Mapping[str, Any]", annotations) if isinstance(annotations, Mapping) else {}
    if hints.get("readOnlyHint") is True:
        return "read"
    return "idempotent" if hints.get("idempotentHint") is True else "write"


def _placed(node: Any, place: str, depth: int) -> Any:
    """Return a schema whose references bear the name of the schema they lead into."""
    if depth > DEPTH_MAX:
        return {}
    if isinstance(node, Mapping):
        table = cast("Mapping[str, Any]", node)
        return {
            key: f"{place}{each}"
            if key == "$ref" and isinstance(each, str) and each.startswith("#")
            else _placed(each, place, depth + 1)
            for key, each in table.items()
        }
    if isinstance(node, list):
        return [_placed(each, place, depth + 1) for each in cast("list[Any]", node)]
    return node
