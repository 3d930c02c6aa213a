"""The schema of a function's arguments, whole: what it refers to lies inside, in one dialect, so that any validator takes it.

Sources write JSON Schema of several drafts, OpenAPI's own, and mistakes. What is kept is what a value can be judged by
without doubt: types, keys, bounds, choices. Patterns and formats are left to the service, for their dialects differ.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

__all__ = ["arguments_schema"]

KEPT = frozenset({
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "const",
})  # fmt: skip
BOUNDS = ("minimum", "maximum")
DEPTH_MAX = 48
DEFINITIONS_MAX = 2_000


def arguments_schema(
    schemas: Mapping[str, Any], required: frozenset[str], resolve: Callable[[str], Any]
) -> Mapping[str, Any]:
    """Return a JSON Schema (draft 2020-12) of an object of arguments.

    Args:
        schemas: parameter to schema, as the source has it.
        required: parameters that must be given. Any other that is None is left out before it is judged.
        resolve: what a `$ref` points to.
    """
    writer = _Writer(resolve)
    properties = {name: writer.clean(schema, 0) for name, schema in schemas.items()}
    whole = {"type": "object", "properties": properties, "required": sorted(required)}
    writer.settle()
    return {**whole, "$defs": writer.definitions} if writer.definitions else whole


class _Writer:
    def __init__(self, resolve: Callable[[str], Any]) -> None:
        self._resolve = resolve
        self._names: dict[str, str] = {}
        self.definitions: dict[str, Any] = {}

    def settle(self) -> None:
        """Write every definition that was referred to, and what those refer to."""
        while unwritten := [ref for ref, name in self._names.items() if name not in self.definitions]:
            for ref in unwritten:
                self.definitions[self._names[ref]] = {}
                self.definitions[self._names[ref]] = self.clean(self._resolve(ref), 0)

    def clean(self, schema: Any, depth: int) -> dict[str, Any]:  # noqa: ANN401 - whatever the source wrote
        """Return what a value can be judged by; `{}` takes any."""
        if not isinstance(schema, Mapping) or depth > DEPTH_MAX:
            return {}
        table = cast("Mapping[str, Any]", schema)
        if "$ref" in table:
            return self._reference(str(table["$ref"]))
        if table.get("format") == "binary" or table.get("type") == "file":
            return {}
        made = self._kept(table)
        self._parts(table, made, depth)
        if table.get("nullable") is True or table.get("x-nullable") is True:
            return {"anyOf": [made, {"type": "null"}]} if made else {}
        return made

    def _is_read_only(self, schema: Any, key: str, depth: int) -> bool:  # noqa: ANN401 - whatever the source wrote
        """Return whether a key of an object is one that only the service writes, wherever its schema stands."""
        if isinstance(schema, Mapping) and "$ref" in schema:
            schema = self._resolve(str(cast("Mapping[str, Any]", schema)["$ref"]))
        if not isinstance(schema, Mapping) or depth > DEPTH_MAX:
            return False
        table = cast("Mapping[str, Any]", schema)
        properties, parts = table.get("properties"), table.get("allOf")
        own = cast("Mapping[str, Any]", properties).get(key) if isinstance(properties, Mapping) else None
        if isinstance(own, Mapping) and cast("Mapping[str, Any]", own).get("readOnly"):
            return True
        inside = cast("list[Any]", parts) if isinstance(parts, list) else []
        return any(self._is_read_only(each, key, depth + 1) for each in inside)

    def _reference(self, ref: str) -> dict[str, Any]:
        if ref not in self._names and len(self._names) >= DEFINITIONS_MAX:
            return {}
        return {"$ref": f"#/$defs/{self._names.setdefault(ref, f'd{len(self._names)}')}"}

    @staticmethod
    def _kept(table: Mapping[str, Any]) -> dict[str, Any]:
        made = {key: value for key, value in table.items() if key in KEPT}
        kind, choices = table.get("type"), table.get("enum")
        if isinstance(kind, str | list):
            made["type"] = kind
        if isinstance(choices, list):
            if kind == "array":  # written so by some; it can only mean the items
                made["items"] = {"enum": choices}
            else:
                made["enum"] = choices
        for bound in BOUNDS:
            exclusive = f"exclusive{bound.capitalize()}"
            limit, is_exclusive = table.get(bound), table.get(exclusive)
            if isinstance(limit, int | float):
                made[exclusive if is_exclusive is True else bound] = limit
            if isinstance(is_exclusive, int | float) and not isinstance(is_exclusive, bool):
                made[exclusive] = is_exclusive
        return made

    def _parts(self, table: Mapping[str, Any], made: dict[str, Any], depth: int) -> None:
        properties = table.get("properties")
        if isinstance(properties, Mapping):
            rows = cast("Mapping[str, Any]", properties)
            made["properties"] = {key: self.clean(each, depth + 1) for key, each in rows.items()}
        required = table.get("required")
        if isinstance(required, list):
            names = [key for key in cast("list[Any]", required) if isinstance(key, str)]
            if kept := [key for key in names if not self._is_read_only(table, key, depth)]:
                made["required"] = kept
        for key in ("items", "additionalProperties"):
            if isinstance(table.get(key), Mapping) and key not in made:
                made[key] = self.clean(table[key], depth + 1)
        if table.get("additionalProperties") is False and "allOf" not in table:
            made["additionalProperties"] = False
        # Variants overlap in half of the published descriptions, so one that fits is enough.
        for key, word in (("allOf", "allOf"), ("anyOf", "anyOf"), ("oneOf", "anyOf")):
            variants = table.get(key)
            if isinstance(variants, list) and variants:
                made[word] = [self.clean(each, depth + 1) for each in cast("list[Any]", variants)]
