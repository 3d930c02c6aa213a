"""What a program gives a Python function: plain data, held against the type that the function declares, and made into it.

At any depth a dataclass is made of a dict and an Enum of its value. Nothing else is turned into another type but what JSON has no
word for: a date, a decimal number, a tuple and a set may be given as JSON can write them.

Not by pydantic, nor by msgspec: the first turns "1" into 1 and 1.0 into 1, and costs a home 90 ms to start; the second leaves out
fields it does not know, in silence, and takes no union of two dataclasses.
"""

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Literal, get_args, get_origin, is_typeddict

from overwinter.stubs import fields_of, plain_of

__all__ = ["Make", "Misfit", "maker"]

SHOWN_LENGTH_MAX = 60

Make = Callable[[Any], Any]
"""Returns what is made of a value, or raises `Misfit`."""


class Misfit(TypeError):
    """A value is not of the type that is declared for it."""

    def __init__(self, what: str, path: str = "") -> None:
        """Say what is wrong with the value at a path, `"lines[0].count"`."""
        super().__init__(f"{path}: {what}" if path else what)
        self.what, self.path = what, path

    def within(self, step: str) -> "Misfit":
        """Return it as the whole value's that has this one at a step, `"[0]"` or `".count"`."""
        return Misfit(self.what, f"{step}{self.path}")


def maker(hint: Any) -> Make:  # noqa: PLR0911, C901 - a hint is any object; one case a line
    """Return what makes values of a type. The type is one that `stubs.Stubs` takes."""
    if hint is None or hint is type(None):
        return _instance("None", type(None))
    if isinstance(hint, typing.NewType):
        return maker(hint.__supertype__)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum(hint)
    if is_typeddict(hint) or (isinstance(hint, type) and dataclasses.is_dataclass(hint)):
        return _record(hint)
    if hint in (Any, object):
        return _anything
    if (plain := PLAIN.get(hint)) is not None:
        return plain
    origin, args = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _union([maker(each) for each in args if each is not type(None)], has_none=type(None) in args)
    if origin is Literal:
        return _literal(args)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired):
        return maker(args[0])
    origin = origin or hint
    if origin is tuple and (args or hint == tuple[()]) and args[-1:] != (...,):
        return _tuple([maker(each) for each in args])
    if origin in (dict, Mapping):
        return _dict(*(maker(each) for each in args or (Any, Any)))
    return _many(origin, maker(args[0] if args else Any))


def _anything(value: Any) -> Any:
    return value


def _misfit(wanted: str, value: Any) -> Misfit:
    shown = repr(value) if isinstance(value, (str, int, float, Decimal, date, timedelta, type(None))) else ""
    shown = f" {shown:.{SHOWN_LENGTH_MAX}}" if shown and value is not None else ""
    kind = "None" if value is None else type(value).__name__
    return Misfit(f"must be {wanted}, not {kind}{shown}")


def _instance(wanted: str, *kinds: type) -> Make:
    def make(value: Any) -> Any:
        if isinstance(value, kinds):
            return value
        raise _misfit(wanted, value)

    return make


def _written(wanted: str, kind: type, read: Callable[[Any], Any]) -> Make:
    """Return what takes a value of a kind, or its text."""

    def make(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        try:
            if type(value) is str or (kind is Decimal and type(value) is int):
                return read(value)
        except (ValueError, InvalidOperation):
            pass
        raise _misfit(wanted, value)

    return make


PLAIN: Mapping[object, Make] = {
    bool: _instance("bool", bool), int: _instance("int", int), float: _instance("float", float, int),
    str: _instance("str", str), bytes: _instance("bytes", bytes), timedelta: _instance("timedelta", timedelta),
    datetime: _written("a datetime", datetime, datetime.fromisoformat), date: _written("a date", date, date.fromisoformat),
    Decimal: _written("a Decimal", Decimal, Decimal),
}  # fmt: skip


def _enum(kind: type[enum.Enum]) -> Make:
    def make(value: Any) -> Any:
        try:
            return kind(value)
        except Exception:  # noqa: BLE001 - its own `_missing_` may raise what it likes
            raise _misfit(_either([each.value for each in kind]), value) from None

    return make


def _literal(args: Sequence[Any]) -> Make:
    known = [(plain_of(each), each) for each in args]

    def make(value: Any) -> Any:
        for plain, each in known:
            if type(value) is type(plain) and value == plain:
                return each
        raise _misfit(_either([plain for plain, _ in known]), value)

    return make


def _either(values: Iterable[Any]) -> str:
    return " or ".join(map(repr, values))


def _union(makers: Sequence[Make], *, has_none: bool) -> Make:
    """Return what takes the first type that a value fits, where a text is a text before it is a date."""
    makers = sorted(makers, key=lambda each: each in (PLAIN[datetime], PLAIN[date], PLAIN[Decimal]))

    def make(value: Any) -> Any:
        if value is None and has_none:
            return None
        misfits: list[Misfit] = []
        for each in makers:
            try:
                return each(value)
            except Misfit as misfit:
                misfits.append(misfit)
        if len(misfits) == 1:
            raise misfits[0]
        raise Misfit("; ".join(dict.fromkeys(map(str, misfits))))

    return make


def _many(kind: Any, make_one: Make) -> Make:
    wanted = {tuple: "tuple", set: "set", frozenset: "frozenset"}.get(kind, "list")
    taken = (list, tuple, set, frozenset) if wanted in ("set", "frozenset") else (list, tuple)
    made_by = {"tuple": tuple, "set": set, "frozenset": frozenset, "list": list}[wanted]

    def make(value: Any) -> Any:
        if not isinstance(value, taken):
            raise _misfit(wanted, value)
        if make_one is _anything and type(value) is made_by:
            return value
        try:
            return made_by(_each(make_one, value))
        except Misfit:
            raise
        except TypeError as error:  # a set of what cannot be hashed
            raise Misfit(str(error)) from None

    return make


def _each(make_one: Make, values: Iterable[Any]) -> Iterable[Any]:
    made = 0
    try:
        for value in values:
            yield make_one(value)
            made += 1
    except Misfit as misfit:
        raise misfit.within(f"[{made}]") from None


def _tuple(makers: Sequence[Make]) -> Make:
    def make(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise _misfit("tuple", value)
        if len(value) != len(makers):
            raise Misfit(f"must have {len(makers)} elements, not {len(value)}")
        return tuple(_at(f"[{at}]", each, one) for at, (each, one) in enumerate(zip(makers, value, strict=True)))

    return make


def _dict(make_key: Make, make_value: Make) -> Make:
    def make(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _misfit("dict", value)
        if make_key is make_value is _anything:
            return value
        return {
            _at(f"[{key!r:.{SHOWN_LENGTH_MAX}}] as key", make_key, key): _at(
                f"[{key!r:.{SHOWN_LENGTH_MAX}}]", make_value, one
            )
            for key, one in typing.cast("dict[Any, Any]", value).items()
        }

    return make


def _at(step: str, make: Make, value: Any) -> Any:
    try:
        return make(value)
    except Misfit as misfit:
        raise misfit.within(step) from None


@cache
def _record(record: Any) -> Make:
    makers: dict[str, Make] = {}  # filled when the first value comes: a type may speak of itself
    fields = fields_of(record, getattr(record, "__name__", ""))
    required = [name for name, field in fields.items() if field.is_required]
    is_dict = is_typeddict(record)

    def make(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _misfit(record.__name__, value)
        if not makers:
            makers.update({name: maker(field.hint) for name, field in fields.items()})
        given = typing.cast("dict[Any, Any]", value)
        if unknown := [name for name in given if name not in fields]:
            raise Misfit(f"{record.__name__} has no field {unknown[0]!r:.{SHOWN_LENGTH_MAX}}")
        if missing := [name for name in required if name not in given]:
            raise Misfit(f"{record.__name__} misses {', '.join(map(repr, missing))}")
        made = {name: _at(f".{name}", makers[name], one) for name, one in given.items() if fields[name].is_given}
        if is_dict:
            return made
        try:
            return record(**made)
        except Exception as error:  # noqa: BLE001 - its own checks may raise what they like
            raise Misfit(f"{record.__name__} refuses it: {error or type(error).__name__}") from None

    return make
