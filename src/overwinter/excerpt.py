"""Values too large to show: what of them fits a budget, as valid JSON, and the part that a path names.

A part that was cut says what it stands for, and how the rest is read:

    {"$cut": "H", "path": "items", "type": "list", "n": 1204, "first": [...], "next": "await tools.read('H', 'items[3:6]')"}

Text is never cut inside JSON: a model that gets half an object invents the other half.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from overwinter.values import Value

__all__ = ["CHARACTERS_MAX", "CHARACTERS_MIN", "Path", "at", "excerpt", "steps"]

CHARACTERS_MAX = 16_000
"""About 4,000 tokens: what a program's end may put before a model."""
CHARACTERS_MIN = 400
"""Below this there is no room to say what was cut."""
PART_MIN = 120
"""Characters in which every marker has room."""
SLACK = 16
"""What numbers in a marker may grow by while it is filled."""
KEYS_MAX = 40
KEY_CHARACTERS_MAX = 60
STEPS_MAX = 64
_STEP = re.compile(
    r"""\.?([A-Za-z_]\w*) | \[\s*(-?\d+)\s*\] | \[\s*(-?\d+)?\s*:\s*(-?\d+)?\s*\] | \[("(?:[^"\\]|\\.)*")\]""",
    re.VERBOSE,
)
Path = Sequence[str | int | slice]
"""Steps into a value: a key, a place in a list, a range of a list, a text or bytes."""


def steps(path: str) -> Path:
    """Return the steps of a path: `items[20:40]`, `[3].user.name`, `["odd key"]`; none for `""`.

    Raises:
        ValueError: it is no path.
    """
    found: list[str | int | slice] = []
    place = 0
    while place < len(path):
        step = _STEP.match(path, place)
        if step is None or len(found) >= STEPS_MAX:
            raise ValueError(f'{path!r} is no path: it is written like items[20:40].name or ["odd key"][0]')
        name, index, first, last, quoted = step.groups()
        if name is not None:
            found.append(name)
        elif index is not None:
            found.append(int(index))
        elif quoted is not None:
            found.append(json.loads(quoted))
        else:
            found.append(slice(int(first) if first else None, int(last) if last else None))
        place = step.end()
    return found


def at(value: Value, path: str) -> Value:
    """Return the part of a value that a path names. A step after a range is taken in each of its rows.

    Raises:
        ValueError: it is no path.
        LookupError: the value has no such part; the message says what it has.
    """
    return _at(value, steps(path), "")


def excerpt(value: Value, *, handle: str, path: str = "", characters_max: int = CHARACTERS_MAX) -> Value:
    """Return as much of a value as its budget allows, as plain JSON values.

    Args:
        value: whatever a program can hold.
        handle: by which the whole value is read.
        path: of this value in that one.
        characters_max: of its JSON text, at least `CHARACTERS_MIN`.
    """
    return _fitted(_shown(value), handle, path, max(CHARACTERS_MIN, characters_max))


# --- Parts -------------------------------------------------------------------------------------------------------------


def _at(value: Value, path: Path, before: str) -> Value:
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(value, set | frozenset):
        return _at(_ordered(cast("set[Any]", value)), path, before)
    if isinstance(step, slice) and isinstance(value, list | tuple | str | bytes):
        part = cast("list[Any]", value[step])
        return [_at(each, rest, f"{before}[]") for each in part] if rest else part
    place = f"{before}[{json.dumps(step)}]" if not isinstance(step, slice) else before
    if isinstance(value, Mapping) and isinstance(step, str):
        table = cast("Mapping[Any, Any]", value)
        key = step if step in table else next((each for each in table if str(each) == step), None)
        if key is not None:
            return _at(table[key], rest, place)
        raise LookupError(f"{before or 'the value'} has no key {step!r}; it has {_keys(table)}")
    if isinstance(value, list | tuple) and isinstance(step, int):
        rows = cast("Sequence[Any]", value)
        if -len(rows) <= step < len(rows):
            return _at(rows[step], rest, place)
        raise LookupError(f"{before or 'the value'} has {len(rows)} items, none at {step}")
    raise LookupError(f"{before or 'the value'} is a {_kind(value)}: {step!r} leads nowhere in it")


def _kind(value: Value) -> str:
    return cast("type[Any]", type(value)).__name__


def _ordered(value: Value) -> list[Any]:
    """Return the members of a set in an order that does not depend on the process."""
    return sorted(value, key=lambda each: (_kind(each), repr(each)))


def _keys(table: Mapping[Any, Any]) -> str:
    keys = [repr(key)[:KEY_CHARACTERS_MAX] for key in list(table)[:KEYS_MAX]]
    return ", ".join(keys) + (f" and {len(table) - KEYS_MAX} more" if len(table) > KEYS_MAX else "") or "none"


# --- Cutting -----------------------------------------------------------------------------------------------------------


def _shown(value: Value) -> Value:  # noqa: PLR0911 - a case for each type
    """Return a value as JSON has it; what JSON lacks becomes text, bytes their number."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else repr(value)
        case Mapping():
            return {str(key): _shown(each) for key, each in cast("Mapping[Any, Any]", value).items()}
        case list() | tuple():
            return [_shown(each) for each in cast("Sequence[Any]", value)]
        case set() | frozenset():
            return [_shown(each) for each in _ordered(value)]
        case bytes():
            return {"$bytes": len(value)}
        case _:
            return str(value)


def _size(value: Value) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")))


def _fitted(value: Value, handle: str, path: str, room: int) -> Value:
    """Return a value, or a marker of what was cut from it, of at most `room` characters; `PART_MIN` are always enough."""
    if _size(value) <= room:
        return value
    match value:
        case dict():
            return _table(cast("dict[str, Any]", value), handle, path, room)
        case list():
            return _rows(cast("list[Any]", value), handle, path, room)
        case _:  # a text, or a number of thousands of digits
            return _text(str(value), handle, path, room)


def _marked(handle: str, path: str, room: int, **parts: Value) -> Value:
    """Return a marker, or the shortest one there is where not even its path fits."""
    marker = {"$cut": handle, **({"path": path} if path else {}), **parts}
    return marker if _size(marker) <= room else {"$cut": handle}


def _next(handle: str, path: str, begin: int, end: int) -> str:
    return f"await tools.read({handle!r}, {f'{path}[{begin}:{end}]'!r})"


def _text(text: str, handle: str, path: str, room: int) -> Value:
    def marked(length: int) -> Value:
        following = _next(handle, path, length, 2 * length)
        return _marked(handle, path, room, type="str", n=len(text), first=text[:length], next=following)

    low, high = 1, min(len(text), room)
    while low < high:  # the longest beginning that fits: escapes make its length unlike its size
        middle = (low + high + 1) // 2
        low, high = (middle, high) if "first" in marked(middle) else (low, middle - 1)
    return marked(low)


def _rows(rows: list[Any], handle: str, path: str, room: int) -> Value:
    def marked(first: list[Any]) -> Value:
        following = _next(handle, path, len(first), 2 * len(first) or 1)
        return _marked(handle, path, room, type="list", n=len(rows), first=first, next=following)

    left = room - _size(marked([])) - SLACK
    first = list[Any]()
    for each in rows:
        size = _size(each) + 2
        if size > left:
            break
        first.append(each)
        left -= size
    if not first and left >= PART_MIN:
        first = [_fitted(rows[0], handle, f"{path}[0]", left)]
    return marked(first)


def _table(table: dict[str, Any], handle: str, path: str, room: int) -> Value:
    whole = _shared(table, handle, path, room - 2)
    if len(whole) == len(table):
        return whole  # each part that was cut says so itself
    names = [key[:KEY_CHARACTERS_MAX] for key in table][:KEYS_MAX]
    while names and _size(names) > room // 3:
        names = names[: len(names) // 2]
    empty = _marked(handle, path, room, type="dict", n=len(table), keys=names, first={})
    first = _shared(table, handle, path, room - _size(empty)) if "first" in empty else {}
    return _marked(handle, path, room, type="dict", n=len(table), keys=names, first=first)


def _shared(table: dict[str, Any], handle: str, path: str, room: int) -> dict[str, Any]:
    """Return what of a table fits: small parts whole, what they leave shared among the large ones."""
    sizes = {key: _size(key) + 4 for key in table}
    costs = {key: sizes[key] + _size(each) for key, each in table.items()}
    kept, left = dict[str, Any](), room
    for place, key in enumerate(sorted(table, key=costs.__getitem__)):
        share = left // (len(table) - place)
        if costs[key] > share and share - sizes[key] < PART_MIN:
            continue
        kept[key] = _fitted(table[key], handle, f"{path}{_step(key)}", max(PART_MIN, share - sizes[key]))
        left -= sizes[key] + _size(kept[key])
    return {key: kept[key] for key in table if key in kept}


def _step(key: str) -> str:
    return f".{key}" if key.isidentifier() and key.isascii() else f"[{json.dumps(key)}]"
