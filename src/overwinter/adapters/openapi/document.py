"""An API description as read: OpenAPI 3.0, 3.1 or Swagger 2, JSON or YAML. It is untrusted, and may be broken in places."""

import json
from collections.abc import Mapping
from dataclasses import field
from functools import lru_cache
from typing import Any, cast
from urllib.parse import unquote

from overwinter.errors import ConfigInvalid
from overwinter.frozen import frozen

__all__ = ["BYTES_MAX", "Document", "parse"]

BYTES_MAX = 64 << 20
"""Largest description. The largest known public one has 13 MB."""
REF_STEPS_MAX = 32
ALIASED_MAX = 100_000
"""Values that the aliases of a YAML text may add beyond four times what it has: nine short lines can stand for a billion."""


@frozen
class Document:
    """One description."""

    place: str
    """Where it came from, for messages."""
    root: Mapping[str, Any]
    version: int
    """2 or 3."""
    _cache: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)

    def resolve(self, ref: str) -> Any:
        """Return what a local reference points to; None if nothing, or if it leaves the document."""
        if ref not in self._cache:
            self._cache[ref] = self._found(ref)
        return self._cache[ref]

    def target(self, node: object) -> Mapping[str, Any]:
        """Return a table with its reference followed; empty if it is none."""
        for _ in range(REF_STEPS_MAX):
            if not isinstance(node, Mapping):
                return {}
            table = cast("Mapping[str, Any]", node)
            if "$ref" not in table:
                return table
            node = self.resolve(str(table["$ref"]))
        return {}

    def _found(self, ref: str) -> Any:
        if not ref.startswith("#"):
            return None
        node: Any = self.root
        for step in ref.removeprefix("#").split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")  # RFC 6901, sections 3 and 6
            if isinstance(node, Mapping) and key in node:
                node = cast("Mapping[str, Any]", node)[key]
            elif isinstance(node, list) and key.isdecimal() and int(key) < len(cast("list[Any]", node)):
                node = cast("list[Any]", node)[int(key)]
            else:
                return None
        return node


def parse(raw: bytes, place: str) -> Document:
    """Return the description in some bytes.

    Raises:
        ConfigInvalid: it is no API description; the message says what it looks like.
    """
    if len(raw) > BYTES_MAX:
        raise ConfigInvalid(f"{place} has {len(raw) >> 20} MB, at most {BYTES_MAX >> 20} are read")
    root = _loaded(raw, place)
    if not isinstance(root, Mapping):
        raise ConfigInvalid(f"{place} is no API description: it holds a {type(root).__name__}, not a table")
    table = cast("Mapping[str, Any]", root)
    version = str(table.get("openapi") or table.get("swagger") or "")
    if not version.startswith(("2.", "3.")):
        known = ", ".join(map(str, list(table)[:5]))
        raise ConfigInvalid(
            f"{place} is no API description: neither `openapi` nor `swagger` is among its keys ({known})"
        )
    if not isinstance(table.get("paths"), Mapping):
        raise ConfigInvalid(f"{place} declares no paths")
    return Document(place=place, root=table, version=int(version[0]))


def _loaded(raw: bytes, place: str) -> object:
    text = raw.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        raise ConfigInvalid(f"{place} is HTML or XML, not JSON or YAML: is the address that of a page about the API?")
    try:
        if text[:1] in (b"{", b"["):
            return json.loads(text)
        return _yaml(text)
    except RecursionError as error:
        raise ConfigInvalid(f"{place} is nested too deeply") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{place} is neither JSON nor YAML: {error}") from error


def _yaml(text: bytes) -> object:
    import yaml  # noqa: PLC0415 - most descriptions are JSON

    try:
        root = yaml.load(text, Loader=_loader())  # noqa: S506 - a safe loader with fewer types
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    written, read = _sizes(root, {})
    if read > ALIASED_MAX + 4 * written:
        raise ValueError(f"its {written} values are {read} with its aliases followed")
    return root


def _sizes(node: object, known: dict[int, int]) -> tuple[int, int]:
    """Return how many values of a node were not counted before, and how many it has with each alias followed.

    Args:
        node: of a document.
        known: the second number of the tables and lists that were counted before, by identity; 0: being counted.

    Raises:
        ValueError: it is inside itself.
    """
    if not isinstance(node, dict | list):
        return 1, 1
    table = cast("dict[Any, Any] | list[Any]", node)
    if id(table) in known:
        if not known[id(table)]:
            raise ValueError("an alias stands inside of what it stands for")
        return 1, known[id(table)]
    known[id(table)] = 0
    inner = [_sizes(each, known) for each in (table.values() if isinstance(table, dict) else table)]
    known[id(table)] = 1 + sum(read for _, read in inner)
    return 1 + sum(written for written, _ in inner), known[id(table)]


@lru_cache(maxsize=1)
def _loader() -> Any:
    """Return a loader by the core schema of YAML 1.2 (10.3.2): `no`, `on` and dates are texts, aliases stay whole."""
    import re  # noqa: PLC0415 - as above

    import yaml  # noqa: PLC0415 - as above

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    loader: Any = type("Loader", (base,), {"yaml_implicit_resolvers": {}})
    for tag, form, first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
        ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ):
        loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{form})$"), first)
    loader.add_constructor("tag:yaml.org,2002:int", _yaml_int)
    return loader


def _yaml_int(_: object, node: Any) -> int:
    text = str(node.value)
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
