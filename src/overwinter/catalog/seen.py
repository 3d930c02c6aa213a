"""What answers looked like, where a source does not say: a type inferred from the first of them, seen and not promised.

Only shapes are kept, nothing of a value. A dict whose keys look like data (ids, addresses, dates) is a dict of such values,
and none of its keys is kept. Merging goes one way, from a narrow shape to a wide one, and stops at `Any`; so it makes no
difference in what order answers come, but for what is cut because the whole grew too large.
"""

import keyword
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import TypeAlias, TypeVar, cast

from overwinter.frozen import frozen
from overwinter.values import Value

__all__ = [
    "ANSWERS_MAX",
    "ANY",
    "NOTHING",
    "Shape",
    "Sighting",
    "Stored",
    "bounded",
    "is_declared",
    "merged",
    "parse",
    "shape_of",
    "stored",
    "text",
]

ANSWERS_MAX = 20
"""Answers looked at for each definition of a function."""
DEPTH_MAX = 6
FIELDS_MAX = 60
UNION_MAX = 4
ITEMS_MAX = 100
"""Items of a list that are looked at, the first ones."""
VALUES_MAX = 5_000
"""Parts of one answer that are looked at; what is not is not known."""
NODES_MAX = 400
"""Shapes in one shape: what is deeper is cut."""
ALIKE_MIN = 8
"""From so many keys on, all of them with records of the same fields, they are names of things and no fields."""
KEY_LENGTH_MAX = 40
DIGITS_MAX = 3
FIELD = re.compile(r"[@$_]?[A-Za-z][A-Za-z0-9_$.:-]*", re.ASCII)
PLAIN: Mapping[type, str] = {
    type(None): "None", bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes",
}  # fmt: skip
OTHERS = frozenset({"datetime", "date", "timedelta", "Decimal"})
T = TypeVar("T")
Stored: TypeAlias = Mapping[str, "Sequence[str] | Stored | None"]
"""A shape as JSON."""


@frozen
class Shape:
    """What some values have in common."""

    plain: frozenset[str] = frozenset()
    """Types that are no containers, by name."""
    fields: Mapping[str, "Shape"] | None = None
    """Of dicts with known keys; any of them may be missing. None: there was no such dict."""
    values: "Shape | None" = None
    """Of dicts whose keys are data."""
    items: "Shape | None" = None
    """Of lists."""


@frozen
class Sighting:
    """What the answers of one function looked like."""

    answers: int = 0
    """How many were looked at."""
    shape: Shape = Shape()


NOTHING = Shape()
"""Of no value at all: the items of an empty list."""
ANY = Shape(plain=frozenset({"Any"}))


def is_declared(result: str) -> bool:
    """Return whether a source says anything of a result, by its type in the stub."""
    return result not in ("Any", "list[Any]", "dict[str, Any]")


def shape_of(value: Value) -> Shape:
    """Return the shape of one answer, within bounds, whatever it is."""
    return bounded(_Looking(VALUES_MAX).at(value, 0))


def merged(one: Shape, other: Shape) -> Shape:
    """Return the shape that both have: no key of either is lost, but to `dict[str, ...]` or `Any`."""
    if ANY in (one, other):
        return ANY
    fields, values = _both_fields(one.fields, other.fields), _both(one.values, other.values)
    if fields is not None and (values is not None or len(fields) > FIELDS_MAX):
        values = reduce(merged, fields.values(), values or NOTHING)
        fields = None
    made = Shape(plain=one.plain | other.plain, fields=fields, values=values, items=_both(one.items, other.items))
    return ANY if _width(made) > UNION_MAX else made


def bounded(shape: Shape) -> Shape:
    """Return a shape of at most `NODES_MAX` parts: cut where it is deepest."""
    for depth in range(DEPTH_MAX, 0, -1):
        if _nodes(shape) <= NODES_MAX:
            break
        shape = _cut(shape, depth)
    return shape


def stored(shape: Shape) -> Stored:
    """Return a shape as JSON."""
    return {
        "plain": sorted(shape.plain),
        "fields": None if shape.fields is None else {key: stored(each) for key, each in shape.fields.items()},
        "values": None if shape.values is None else stored(shape.values),
        "items": None if shape.items is None else stored(shape.items),
    }


def parse(written: Stored) -> Shape:
    """Return what `stored` has written."""
    fields, values, items = (cast("Stored | None", written[name]) for name in ("fields", "values", "items"))
    return Shape(
        plain=frozenset(cast("Sequence[str]", written["plain"])),
        fields=None if fields is None else {key: parse(cast("Stored", each)) for key, each in fields.items()},
        values=None if values is None else parse(values),
        items=None if items is None else parse(items),
    )


def text(shape: Shape, name: str) -> tuple[Sequence[str], str]:
    """Return the definitions that a shape needs, the outermost last, and its type.

    Args:
        shape: what was seen.
        name: what its outermost record is called; those inside add their key.
    """
    definitions: dict[str, str] = {}
    kind = _type(shape, name, definitions)
    return list(definitions.values()), kind


def stub(sighting: Sighting, name: str) -> str:
    """Return a function as it was seen, under its full name with `_` for the dot: what the check of its results reads."""
    local = name.replace(".", "_")
    definitions, kind = text(sighting.shape, f"Seen_{local}")
    return f"{''.join(definitions)}async def {local}(*places: Any, **words: Any) -> {kind}: ...\n"


# --- Looking ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Looking:
    left: int
    """Values that will still be looked at."""

    def at(self, value: object, depth: int) -> Shape:
        self.left -= 1
        if self.left < 0:
            return NOTHING
        if isinstance(value, dict):
            return ANY if depth >= DEPTH_MAX else self._dict(cast("dict[Value, Value]", value), depth)
        if isinstance(value, list | tuple | set | frozenset):
            return ANY if depth >= DEPTH_MAX else self._list(cast("Sequence[Value]", value), depth)
        kind = PLAIN.get(type(value)) or type(value).__name__
        return Shape(plain=frozenset({kind})) if kind in OTHERS or type(value) in PLAIN else ANY

    def _dict(self, value: dict[Value, Value], depth: int) -> Shape:
        rows = [(key, self.at(each, depth + 1)) for key, each in _first(value.items())]
        if len(value) > FIELDS_MAX or not all(_is_field(key) for key, _ in rows) or _are_alike(rows):
            return Shape(values=reduce(merged, (shape for _, shape in rows), NOTHING))
        return Shape(fields=dict(rows))

    def _list(self, value: Sequence[Value], depth: int) -> Shape:
        return Shape(items=reduce(merged, (self.at(each, depth + 1) for each in _first(value)), NOTHING))


def _first(rows: Iterable[T]) -> Iterator[T]:
    return islice(rows, ITEMS_MAX)


def _is_field(key: Value) -> bool:
    """Whether a key is a word that its source chose: no id, address, date, number or sentence."""
    return (
        isinstance(key, str)
        and len(key) <= KEY_LENGTH_MAX
        and FIELD.fullmatch(key) is not None
        and sum(letter.isdigit() for letter in key) <= DIGITS_MAX
    )


def _are_alike(rows: Sequence[tuple[Value, Shape]]) -> bool:
    if len(rows) < ALIKE_MIN:
        return False
    (_, first), *rest = rows
    return bool(first.fields) and all(
        each.fields is not None and each.fields.keys() == first.fields.keys() for _, each in rest
    )


# --- Merging ---------------------------------------------------------------------------------------------------------


def _both(one: Shape | None, other: Shape | None) -> Shape | None:
    if one is None or other is None:
        return other if one is None else one
    return merged(one, other)


def _both_fields(one: Mapping[str, Shape] | None, other: Mapping[str, Shape] | None) -> Mapping[str, Shape] | None:
    if one is None or other is None:
        return other if one is None else one
    return {**one, **{key: merged(one[key], each) if key in one else each for key, each in other.items()}}


def _width(shape: Shape) -> int:
    containers = (shape.fields, shape.values, shape.items)
    return len(shape.plain - {"None"}) + sum(each is not None for each in containers)


def _inner(shape: Shape) -> list[Shape]:
    return [*(shape.fields or {}).values(), *(each for each in (shape.values, shape.items) if each is not None)]


def _nodes(shape: Shape) -> int:
    return 1 + sum(map(_nodes, _inner(shape)))


def _cut(shape: Shape, depth: int) -> Shape:
    """Return a shape with `Any` below a depth."""
    if not _inner(shape):
        return shape
    if depth == 0:
        return ANY
    return Shape(
        plain=shape.plain,
        fields=None if shape.fields is None else {key: _cut(each, depth - 1) for key, each in shape.fields.items()},
        values=None if shape.values is None else _cut(shape.values, depth - 1),
        items=None if shape.items is None else _cut(shape.items, depth - 1),
    )


# --- As stub text ----------------------------------------------------------------------------------------------------


def _type(shape: Shape, name: str, definitions: dict[str, str]) -> str:
    kinds: list[str] = []
    if shape.fields is not None:
        kinds.append(_record(shape.fields, name, definitions))
    if shape.values is not None:
        kinds.append(f"dict[str, {_type(shape.values, f'{name}_value', definitions)}]")
    if shape.items is not None:
        kinds.append(f"list[{_type(shape.items, f'{name}_item', definitions)}]")
    kinds += sorted(shape.plain - {"None"})
    if "None" in shape.plain:
        kinds.append("None")
    return " | ".join(kinds) or "Any"


def _record(fields: Mapping[str, Shape], name: str, definitions: dict[str, str]) -> str:
    rows = {key: _type(each, f"{name}_{_letters(key)}", definitions) for key, each in fields.items()}
    while name in definitions:  # two keys may have the same letters
        name += "_"
    if rows and all(key.isidentifier() and not keyword.iskeyword(key) and not key.startswith("__") for key in rows):
        body = "".join(f"    {key}: {kind}\n" for key, kind in rows.items())
        definitions[name] = f"class {name}(TypedDict, total=False):\n{body}"
    else:
        body = ", ".join(f"{key!r}: {kind}" for key, kind in rows.items())
        definitions[name] = f"{name} = TypedDict({name!r}, {{{body}}}, total=False)\n"
    return name


def _letters(key: str) -> str:
    return re.sub(r"\W", "_", key, flags=re.ASCII)
