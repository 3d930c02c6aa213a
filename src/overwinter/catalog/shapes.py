"""JSON Schema as Python types: what results and arguments look like, as stub text with each named type written once.

It is loose where a schema is: what cannot be said in types becomes `Any`, and the schema itself has the last word at the
call. It never raises for a schema, however broken: sources lie, and the rest of them must stay usable.
"""

import keyword
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from overwinter.catalog.naming import class_name
from overwinter.frozen import frozen

__all__ = ["BINARY", "FILE_HANDLE", "Schema", "Shapes", "optional"]

Schema = Mapping[str, Any]
"""A JSON Schema as its source wrote it, of any draft, or an OpenAPI 3.0 or Swagger 2 schema."""

ENUM_MAX = 1_000
"""Values of a `Literal`; a longer list is its base type."""
ALIAS_LENGTH_MIN = 120
"""From this length on the type of a named schema is written once, as an alias."""
DEPTH_MAX = 24
PARTS_MAX = 200
"""Members of a union, and parts of an `allOf`."""
MERGED_MAX = 1_000
"""Parts of parts that make one object."""
FILE_HANDLE = """class FileHandle(TypedDict):
    file: str
    name: str
    type: str
    size_bytes: int
"""
"""What a program holds in place of a file: it is kept outside, `await tools.read(handle)` gives its bytes."""
BINARY = "FileHandle | bytes"
"""Type of what is sent as it is."""
SIMPLE: Mapping[str, str] = {
    "string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None", "file": BINARY,
}  # fmt: skip


@frozen(kw_only=False)
class _Record:
    """An object with known keys, parts of `allOf` merged."""

    fields: Mapping[str, Any]
    required: frozenset[str]


@dataclass(slots=True)
class Shapes:
    """The types of one module."""

    resolve: Callable[[str], Any]
    """Return what a `$ref` points to; None if it points nowhere."""
    taken: Collection[str] = ()
    """Names that no type may have."""
    broken: set[str] = field(default_factory=set[str])
    """References that point nowhere."""
    _named: dict[str, str] = field(default_factory=dict[str, str])
    _open: dict[str, bool] = field(default_factory=dict[str, bool])
    """References whose type is being written, and whether they speak of themselves."""
    _texts: dict[str, str] = field(default_factory=dict[str, str])

    def definitions(self) -> str:
        """Return every named type, in the order in which they were needed."""
        return "".join(self._texts.values())

    def text(self, schema: Any, *names: str) -> str:  # noqa: ANN401 - a schema is whatever the source wrote
        """Return the type of a value that a schema describes.

        Args:
            schema: the schema.
            names: what its type is called if it has no name of its own: function, then field.
        """
        return self._text(schema, names, 0)

    def record(self, schema: Any) -> _Record | None:  # noqa: ANN401 - as in `text`
        """Return the fields of an object, parts merged; None if it is not only an object of known keys."""
        return self._record(schema, 0)

    def target(self, schema: Any) -> Any:  # noqa: ANN401 - as in `text`
        """Return what a schema stands for, references followed."""
        for _ in range(DEPTH_MAX):
            if not isinstance(schema, Mapping) or "$ref" not in schema:
                return cast("Any", schema)
            schema = self._resolved(str(cast("Schema", schema)["$ref"]))
        return {}

    # --- Types -------------------------------------------------------------------------------------------------------

    def _text(self, schema: Any, names: tuple[str, ...], depth: int) -> str:  # noqa: ANN401, PLR0911 - one form of schema a line
        if not isinstance(schema, Mapping) or depth > DEPTH_MAX:
            return "Any"
        schema = cast("Schema", schema)
        if "$ref" in schema:
            return _nullable(self._reference(str(schema["$ref"]), depth), schema)
        if isinstance(schema.get("enum"), list):
            return _nullable(self._enum(schema), schema)
        if "const" in schema:
            return _literal([schema["const"]]) or "Any"
        for word in ("oneOf", "anyOf"):
            if isinstance(schema.get(word), list) and schema[word] and not schema.get("properties"):
                return _nullable(self._union(schema[word], names, depth), schema)
        if isinstance(schema.get("allOf"), list) and schema["allOf"]:
            return _nullable(self._whole(schema, names, depth), schema)
        kind = schema.get("type")
        if isinstance(kind, list):
            kinds = [{**schema, "type": each} for each in cast("list[Any]", kind)]
            return self._union(kinds, names, depth)
        return _nullable(self._typed(schema, kind, names, depth), schema)

    def _typed(self, schema: Schema, kind: object, names: tuple[str, ...], depth: int) -> str:
        if kind == "array" or (kind is None and "items" in schema):
            return f"list[{self._text(schema.get('items', {}), names, depth + 1)}]"
        if kind == "object" or (kind is None and ("properties" in schema or "additionalProperties" in schema)):
            return self._object(schema, names, depth)
        if schema.get("format") == "binary" and kind == "string":
            return BINARY
        return SIMPLE.get(str(kind), "Any")

    def _object(self, schema: Schema, names: tuple[str, ...], depth: int) -> str:
        record = self._record(schema, depth)
        if record is not None and record.fields:
            return self._write(self._free(class_name(*names)), record, depth)
        extra = schema.get("additionalProperties")
        return f"dict[str, {self._text(extra, names, depth + 1) if isinstance(extra, Mapping) else 'Any'}]"

    def _whole(self, schema: Schema, names: tuple[str, ...], depth: int) -> str:
        record = self._record(schema, depth)
        if record is not None and record.fields:
            return self._write(self._free(class_name(*names)), record, depth)
        parts = [self._text(each, names, depth + 1) for each in schema["allOf"][:PARTS_MAX]]
        known = [each for each in dict.fromkeys(parts) if each not in ("Any", "dict[str, Any]")]
        return known[0] if len(known) == 1 else "Any"

    def _union(self, schemas: Sequence[Any], names: tuple[str, ...], depth: int) -> str:
        if len(schemas) > PARTS_MAX:
            return "Any"
        texts = [self._text(each, names, depth + 1) for each in schemas]
        parts = list(dict.fromkeys(part for text in texts for part in _members(text)))
        return "Any" if "Any" in parts or not parts else " | ".join(parts)

    def _enum(self, schema: Schema) -> str:
        values = cast("list[Any]", schema["enum"])
        if schema.get("type") == "array":  # written so by some; it can only mean the items
            return f"list[{_literal(values) or 'Any'}]"
        return _literal(values) or SIMPLE.get(str(schema.get("type")), "Any")

    # --- Named types -------------------------------------------------------------------------------------------------

    def _reference(self, ref: str, depth: int) -> str:
        if ref in self._named:
            if ref in self._open:
                self._open[ref] = True
            return self._named[ref]
        target = self._resolved(ref)
        if target is None:
            self._named[ref] = "Any"
            return "Any"
        name = self._free(class_name(ref.rsplit("/", 1)[-1].replace("~1", "/").replace("%20", " ")))
        self._named[ref] = name
        record = self._record(target, depth) if _is_object(target) else None
        if record is not None and record.fields and not cast("Schema", target).get("nullable"):
            return self._write(name, record, 0)
        self._texts[name], self._open[ref] = "", False
        text = self._text(target, (name,), depth + 1)
        if self._open.pop(ref) or len(text) >= ALIAS_LENGTH_MIN:
            self._texts[name] = f"type {name} = {text}\n" if text != name else f"type {name} = Any\n"
            return name
        del self._texts[name]
        self._named[ref] = text
        return text

    def _resolved(self, ref: str) -> Any:  # noqa: ANN401 - what a document holds there
        target = self.resolve(ref)
        if not isinstance(target, Mapping):
            self.broken.add(ref)
            return None
        return cast("Any", target)

    def _write(self, name: str, record: _Record, depth: int) -> str:
        self._texts[name] = ""  # a type that speaks of itself finds its name taken
        rows: dict[str, str] = {}
        for key, schema in record.fields.items():
            text = self._text(schema, (name, key), depth + 1)
            rows[key] = text if key in record.required else f"NotRequired[{text}]"
        if all(_is_plain(key) for key in rows):
            body = "".join(f"    {key}: {text}\n" for key, text in rows.items())
            self._texts[name] = f"class {name}(TypedDict):\n{body}"
        else:
            body = ", ".join(f"{key!r}: {text}" for key, text in rows.items())
            self._texts[name] = f"{name} = TypedDict({name!r}, {{{body}}})\n"
        return name

    def _free(self, name: str) -> str:
        while name in self._texts or name in self.taken:
            name += "_"
        return name

    def _record(self, schema: Any, depth: int, before: dict[int, Schema] | None = None) -> _Record | None:  # noqa: ANN401 - as in `text`
        """Merge an object with its `allOf`; None if it is, or may be, something else as well."""
        before = {} if before is None else before
        schema = self.target(schema)
        if not isinstance(schema, Mapping) or depth > DEPTH_MAX or len(before) > MERGED_MAX:
            return None
        schema = cast("Schema", schema)
        if id(schema) in before:  # else a few parts that name each other again and again are millions
            return _Record({}, frozenset())
        before[id(schema)] = schema
        if schema.get("type") not in (None, "object", ["object", "null"]) or "enum" in schema:
            return None
        own = schema.get("properties")
        fields: dict[str, Any] = {}
        required: set[str] = set()
        for part in _parts(schema):
            merged = self._record(part, depth + 1, before)
            if merged is None:
                return None
            fields |= merged.fields
            required |= merged.required
        if isinstance(own, Mapping):
            fields |= {str(key): value for key, value in cast("Mapping[Any, Any]", own).items()}
        elif not fields and (schema.get("oneOf") or schema.get("anyOf")):
            return None
        named = schema.get("required")
        required |= {str(key) for key in cast("list[Any]", named)} if isinstance(named, list) else set()
        return _Record(fields, frozenset(required & fields.keys()))


def optional(text: str) -> str:
    """Return the type of a parameter that may be left out: None stands for that, and is dropped at the call."""
    return text if text == "Any" or "None" in _members(text) else f"{text} | None"


def _parts(schema: Schema) -> Sequence[Any]:
    parts = schema.get("allOf")
    return cast("list[Any]", parts)[:PARTS_MAX] if isinstance(parts, list) else ()


def _is_object(schema: Any) -> bool:  # noqa: ANN401 - as in `Shapes.text`
    return isinstance(schema, Mapping) and any(word in schema for word in ("properties", "allOf"))


def _is_plain(key: str) -> bool:
    return key.isidentifier() and key.isascii() and not keyword.iskeyword(key) and not key.startswith("__")


def _nullable(text: str, schema: Schema) -> str:
    is_nullable = schema.get("nullable") is True or schema.get("x-nullable") is True
    return optional(text) if is_nullable else text


def _members(text: str) -> list[str]:
    """Split a union at its own bars, not at those inside brackets or quotes."""
    if "|" not in text:
        return [text]
    if "[" not in text and "'" not in text and '"' not in text:
        return text.split(" | ")
    members, level, quote, start = list[str](), 0, "", 0
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote and text[place - 1] != "\\" else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[]":
            level += 1 if letter == "[" else -1
        elif letter == "|" and not level:
            members.append(text[start:place].strip())
            start = place + 1
    return [*members, text[start:].strip()]


def _literal(values: Sequence[Any]) -> str | None:
    """Return a `Literal`; None if a value cannot be in one, or there are too many."""
    if not values or len(values) > ENUM_MAX:
        return None
    if not all(value is None or isinstance(value, str | int) for value in values):
        return None
    return f"Literal[{', '.join(dict.fromkeys(map(repr, values)))}]"
