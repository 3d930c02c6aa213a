"""The arguments of a call as a rule may see them: types from the function's stub, values that fit them or a refusal.

A rule that cannot see an argument must not decide as if there were none: a `forbid` would be skipped. So each argument
that a rule mentions is told exactly, or the call is denied. What no rule mentions is not told, and costs nothing.
"""

import ast
import math
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

from overwinter.frozen import frozen
from overwinter.syntax import parse
from overwinter.values import Value

__all__ = ["Kind", "Opaque", "Untold", "cedar_type", "required", "signature", "told"]

TEXT_LENGTH_MAX = 16_384
"""Characters of a text: a decision with a text of 1 MB takes 19 ms."""
ITEMS_MAX = 256
"""Members of a set: a decision with a set of 5,000 takes 21 ms."""
DEPTH_MAX = 8
INTEGER_MAX = 2**63 - 1
DECIMAL_PLACES = 4
"""Cedar's `decimal` is an integer of ten-thousandths."""
FORGED = frozenset({"__entity", "__extn", "__expr"})
"""Keys by which Cedar's JSON makes an entity or an address of a record."""
PLAIN: Mapping[str, str] = {
    "int": "Long", "bool": "Bool", "str": "String", "float": "decimal", "Decimal": "decimal",
    "datetime": "datetime", "date": "datetime", "timedelta": "duration",
}  # fmt: skip


@frozen(kw_only=False)
class Plain:
    """One value of a type of Cedar."""

    name: str


@frozen(kw_only=False)
class Many:
    """A list or a set; to a rule both are a set."""

    of: "Kind"


@frozen(kw_only=False)
class Record:
    """A `TypedDict`."""

    fields: Mapping[str, "tuple[Kind, bool]"]
    """Name to its kind, and whether it must be there."""


@frozen(kw_only=False)
class Opaque:
    """A type that Cedar has no word for."""

    text: str


Kind: TypeAlias = Plain | Many | Record | Opaque


class Untold(Exception):
    """A value cannot be told to a rule exactly. The call is denied."""


def signature(stub: str) -> Mapping[str, Kind] | None:
    """Return the parameters of the last function in a stub; None if there is none, or it cannot be read."""
    try:
        body = parse(stub).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    functions = [each for each in body if isinstance(each, ast.AsyncFunctionDef | ast.FunctionDef)]
    if not functions:
        return None
    classes = {each.name: each for each in body if isinstance(each, ast.ClassDef)}
    arguments = functions[-1].args
    return {
        each.arg: Opaque("a reserved name") if each.arg in FORGED else _kind(each.annotation, classes, 0)
        for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    }


def required(stub: str) -> frozenset[str]:
    """Return the parameters of the last function in a stub that every call has, and never as None."""
    functions = [each for each in parse(stub).body if isinstance(each, ast.AsyncFunctionDef | ast.FunctionDef)]
    arguments = functions[-1].args
    plain = [*arguments.posonlyargs, *arguments.args]
    rows = [*zip(reversed(plain), reversed(arguments.defaults), strict=False)]
    optional = {each.arg for each, _ in rows}
    optional |= {each.arg for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value}
    return frozenset(
        each.arg
        for each in (*plain, *arguments.kwonlyargs)
        if each.arg not in optional and each.annotation and "None" not in ast.unparse(each.annotation)
    )


def _kind(node: ast.expr | None, classes: Mapping[str, ast.ClassDef], depth: int) -> Kind:  # noqa: PLR0911 - one case a line
    match node:
        case ast.Name(id=name) if name in PLAIN:
            return Plain(PLAIN[name])
        case ast.Name(id=name) if name in classes and depth < DEPTH_MAX:
            return _record(classes[name], classes, depth + 1)
        case ast.BinOp(op=ast.BitOr()):
            kinds = {repr(kind): kind for kind in (_kind(each, classes, depth) for each in _options(node))}
            return next(iter(kinds.values())) if len(kinds) == 1 else Opaque(ast.unparse(node))
        case ast.Subscript(value=ast.Name(id="Literal"), slice=words):
            values = words.elts if isinstance(words, ast.Tuple) else [words]
            types = {type(each.value).__name__ for each in values if isinstance(each, ast.Constant)} - {"NoneType"}
            (only,) = types if len(types) == 1 else ("",)
            return Plain(PLAIN[only]) if only in PLAIN else Opaque(ast.unparse(node))
        case ast.Subscript(value=ast.Name(id="list" | "set" | "frozenset"), slice=inner):
            kind = _kind(inner, classes, depth)
            return Opaque(ast.unparse(node)) if isinstance(kind, Opaque) else Many(kind)
        case ast.Subscript(value=ast.Name(id="NotRequired"), slice=inner):
            return _kind(inner, classes, depth)
        case None:
            return Opaque("Any")
        case _:
            return Opaque(ast.unparse(node))


def _options(node: ast.expr) -> list[ast.expr]:
    """Return the alternatives of a union; None is told by being absent."""
    if isinstance(node, ast.BinOp):
        return [*_options(node.left), *_options(node.right)]
    return [] if isinstance(node, ast.Constant) and node.value is None else [node]


def _record(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef], depth: int) -> Kind:
    fields: dict[str, tuple[Kind, bool]] = {}
    for row in node.body:
        if isinstance(row, ast.AnnAssign) and isinstance(row.target, ast.Name):
            text = ast.unparse(row.annotation)
            kind = Opaque("a reserved name") if row.target.id in FORGED else _kind(row.annotation, classes, depth)
            # A field that may be None is not always told, so no rule may rely on it.
            fields[row.target.id] = kind, not (text.startswith("NotRequired[") or "None" in text)
    return Record(fields)


def cedar_type(kind: Kind) -> str:
    """Return a type as a schema writes it; "" if Cedar has no word for it."""
    match kind:
        case Plain(name=name):
            return name
        case Many(of=inner):
            return f"Set<{cedar_type(inner)}>"
        case Record(fields=fields):
            told = {name: (cedar_type(each), required) for name, (each, required) in fields.items()}
            rows = [f'"{name}"{"" if required else "?"}: {text}' for name, (text, required) in told.items() if text]
            return f"{{ {', '.join(rows)} }}"
        case Opaque():
            return ""


def told(
    kinds: Mapping[str, Kind] | None, names: Collection[str] | None, arguments: Mapping[str, Value]
) -> dict[str, Any]:
    """Return the arguments that rules mention, as JSON that fits their types. What is None is left out.

    Args:
        kinds: the function's parameters; None: they are not known.
        names: what the rules mention; None: all.
        arguments: of the call, by name.

    Raises:
        Untold: an argument that a rule mentions is of a type or a size that cannot be told.
    """
    if names is not None and not names:
        return {}
    if kinds is None:
        raise Untold("there is no schema: the function's types are not known, and a rule speaks of its arguments")
    given = {
        name: value
        for name, value in arguments.items()
        if value is not None and (names is None or name in names)
    }  # fmt: skip
    return {name: _value(kinds.get(name, Opaque("unknown")), value, name) for name, value in given.items()}


def _value(kind: Kind, value: Value, where: str) -> Any:
    match kind:
        case Plain(name=name):
            return _plain(name, value, where)
        case Many(of=inner) if isinstance(value, list | tuple | set | frozenset):
            if len(value) > ITEMS_MAX:
                raise Untold(f"{where} has {len(value)} items, a rule can look at {ITEMS_MAX}")
            return [_value(inner, each, f"{where}[]") for each in value]
        case Record(fields=fields) if isinstance(value, dict):
            if strange := [str(key) for key in value if key not in fields]:
                raise Untold(f"{where} has {strange[0][:80]!r}, which its type does not")
            rows = {key: each for key, each in value.items() if each is not None}
            return {key: _value(fields[key][0], each, f"{where}.{key}") for key, each in rows.items()}
        case Opaque(text=text):
            raise Untold(f"{where} is of type {text[:80]}, of which a rule cannot speak")
        case _:
            raise Untold(f"{where} is {type(value).__name__}, not what its type says")


def _plain(name: str, value: Value, where: str) -> Any:
    match name, value:
        case "Bool", bool():
            return value
        case "Long", int() if not isinstance(value, bool):
            if not -INTEGER_MAX - 1 <= value <= INTEGER_MAX:
                raise Untold(f"{where} is beyond 64 bits")
            return value
        case "String", str():
            if len(value) > TEXT_LENGTH_MAX:
                raise Untold(f"{where} has {len(value)} characters, a rule can look at {TEXT_LENGTH_MAX}")
            return value
        case "decimal", int() | float() | Decimal() if not isinstance(value, bool):
            return _decimal(value, where)
        case "datetime" | "duration", date() | timedelta():
            return _time(name, value, where)
        case _:
            raise Untold(f"{where} is {type(value).__name__}, not what its type says")


def _time(name: str, value: date | timedelta, where: str) -> str:
    """Return an instant in UTC, or a duration, in Cedar's milliseconds. A naive instant is one in UTC."""
    match name, value:
        case "datetime", datetime():
            moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
            if moment.microsecond % 1_000:
                raise Untold(f"{where} is finer than a millisecond: round it")
            return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1_000:03}Z"
        case "datetime", date():
            return value.isoformat()
        case "duration", timedelta() if not value % timedelta(milliseconds=1):
            return f"{value // timedelta(milliseconds=1)}ms"
        case _:
            raise Untold(f"{where} is {type(value).__name__}, or finer than a millisecond")


def _decimal(value: float | Decimal, where: str) -> str:
    """Return the exact decimal: rounding could carry a number over the limit that a rule sets."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Untold(f"{where} is {value}, which is no number")
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite() or abs(number) >= INTEGER_MAX // 10**DECIMAL_PLACES:
        raise Untold(f"{where} is too large for a rule")
    if number != round(number, DECIMAL_PLACES):
        raise Untold(f"{where} has more than {DECIMAL_PLACES} decimal places: round it")
    return f"{number:.{DECIMAL_PLACES}f}"
