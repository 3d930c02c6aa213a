"""Tools of an MCP server as operations, and its answers as values. Protocol 2026-07-28 and those before it: the SDK speaks both."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from overwinter.catalog.operations import Argument, Fault, Operation
from overwinter.events import Answer, Effect, Raised, Returned
from overwinter.frozen import frozen
from overwinter.handles import File

__all__ = ["answer", "file_of", "operations", "resolver"]

DEPTH_MAX = 64
PARTS_MAX = 200
"""Of one schema of arguments: what more of them say is not read."""


def operations(tools: Sequence[Mapping[str, Any]]) -> tuple[list[Operation], list[Fault]]:
    """Return the operations of a tool list, as the protocol writes it, and what is wrong with the rest."""
    found: list[Operation] = []
    faults: list[Fault] = []
    for tool in tools:
        name, schema = str(tool.get("name") or ""), tool.get("inputSchema")
        if not name or not isinstance(schema, Mapping):
            faults.append(Fault(place=name or "a tool", what="it has no name, or no schema of its arguments"))
            continue
        found.append(_operation(name, tool, _Parts(cast("Mapping[str, Any]", schema), f"{name}/inputSchema").fields()))
    return found, faults


def resolver(tools: Sequence[Mapping[str, Any]]) -> Callable[[str], Any]:
    """Return what follows references: each tool's lead into its own schemas, and bear its name."""
    roots = {f"{tool.get('name')}/{key}": tool.get(key) for tool in tools for key in ("inputSchema", "outputSchema")}

    def resolve(ref: str) -> Any:
        place, _, path = ref.partition("#")
        return _placed(_pointed(roots.get(place), path), place, 0)

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


class _Parts:
    """A schema of arguments, which may be put together of parts and variants."""

    def __init__(self, schema: Mapping[str, Any], place: str) -> None:
        self._root, self._place = _placed(schema, place, 0), place
        self._left = PARTS_MAX
        self._known: dict[str, _Fields] = {}

    def fields(self) -> "_Fields":
        """Return the schema's own fields, those of all its parts, and of its variants what any has."""
        whole = self._of(self._root)
        return _Fields(schemas=whole.schemas, required=whole.required & whole.schemas.keys())

    def _of(self, schema: object) -> "_Fields":
        table, self._left = _table(schema), self._left - 1
        schemas = {str(key): each for key, each in _table(table.get("properties")).items()}
        required = frozenset(map(str, _list(table.get("required"))))
        for word in ("$ref", "allOf", "anyOf", "oneOf"):
            listed = self._parts(table, word)
            parts = [self._of_ref(each) if word == "$ref" else self._of(each) for each in listed if self._left > 0]
            for key in dict.fromkeys(key for part in parts for key in part.schemas):
                given = {
                    json.dumps(each, default=repr): each
                    for part in parts
                    if (each := part.schemas.get(key)) is not None
                }
                schemas.setdefault(key, next(iter(given.values())) if len(given) == 1 else {word: list(given.values())})
            needed = [part.required for part in parts]
            if needed and word in ("$ref", "allOf"):
                required |= frozenset.union(*needed)
            elif needed and len(parts) == len(listed):  # of variants that were not read nobody knows what they need
                required |= frozenset.intersection(*needed)
        return _Fields(schemas=schemas, required=required)

    def _parts(self, table: Mapping[str, Any], word: str) -> list[Any]:
        if word != "$ref":
            return _list(table.get(word))
        return [table[word]] if isinstance(table.get(word), str) else []

    def _of_ref(self, ref: str) -> "_Fields":
        """Return the fields of what a reference leads to, read once: a few that lead to each other would be millions."""
        if ref not in self._known:
            self._known[ref] = _Fields(schemas={}, required=frozenset())
            place, _, path = ref.partition("#")
            if place == self._place:
                self._known[ref] = self._of(_pointed(self._root, path))
        return self._known[ref]


@frozen
class _Fields:
    """What an object may have, and what it must."""

    schemas: Mapping[str, Any]
    required: frozenset[str]


def _pointed(root: object, path: str) -> object:
    """Return what a JSON pointer leads to (RFC 6901); None: nothing is there."""
    node: Any = root if not path or path.startswith("/") else None
    for step in path.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        node = cast("Mapping[str, Any]", node).get(key) if isinstance(node, Mapping) else None
    return node


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
