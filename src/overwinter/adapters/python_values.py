"""What a program gives a Python function: plain data, held against the type that the function declares, and made into it.

At any depth a dataclass is made of a dict and an Enum of its value. Nothing else is turned into another type but what JSON has no
word for: a date, a decimal number, a tuple and a set may be given as JSON can write them. A TypedDict may have more keys than it
declares, as its type allows; a dataclass may not, for they would be lost.

Not by pydantic, nor by msgspec: the first turns "1" into 1 and 1.0 into 1, and costs a home 90 ms to start; the second leaves out
fields that a dataclass does not have, in silence, and takes no union of two.
"""

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, get_args, get_origin, is_typeddict

from overwinter.frozen import frozen
from overwinter.stubs import Field, fields_of, plain_of

__all__ = ["Makers", "Misfit"]

SHOWN_LENGTH_MAX = 60
SHOWN_BITS_MAX = 256
UNION_LENGTH_MAX = 400

Make = Callable[[Any, "Memo"], Any]
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


class Memo:
    """What is known while a value is made."""

    __slots__ = ("is_exact", "made")

    def __init__(self) -> None:
        self.is_exact = False
        """Whether a text is no date now, and a list no set: a union looks for a type that a value has already."""
        self.made: dict[tuple[int, int, bool], tuple[Any, Misfit | None]] = {}
        """What unions have made, by the ids of value and union: a value is made once, however many types lead to it."""


class Makers:
    """Makes values of the types that the functions of a service declare. The types are ones that `stubs.Stubs` takes."""

    def __init__(self) -> None:
        self._records: dict[Any, Make] = {}

    def of(self, hint: Any) -> Callable[[Any], Any]:
        """Return what makes a value of a type, or raises `Misfit`.

        Raises:
            ConfigInvalid: the hints of a record in it cannot be read.
        """
        make = self._make(hint)
        return lambda value: make(value, Memo())

    def _make(self, hint: Any) -> Make:  # noqa: PLR0911, C901 - a hint is any object; one case a line
        if hint is None or hint is type(None):
            return _instance("None", type(None))
        if isinstance(hint, typing.NewType):
            return self._make(hint.__supertype__)
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return _enum(hint)
        if is_typeddict(hint) or (isinstance(hint, type) and dataclasses.is_dataclass(hint)):
            return self._record(hint)
        if hint in (Any, object):
            return _anything
        origin, args = get_origin(hint), get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return _union([_Variant(make=self._make(each), is_none=each in (None, type(None))) for each in args])
        if origin is Literal:
            return _literal(args)
        if origin in (typing.Annotated, typing.Required, typing.NotRequired):
            return self._make(args[0])
        kind = origin or hint
        if kind in PLAIN:
            return PLAIN[kind]
        if kind is tuple and (args or hint == tuple[()]) and args[-1:] != (...,):
            return _tuple([self._make(each) for each in args])
        if kind in (dict, Mapping):
            return _dict(*(self._make(each) for each in args or (Any, Any)))
        return _many(kind, self._make(args[0] if args else Any))

    def _record(self, record: Any) -> Make:
        if record not in self._records:
            makers: dict[str, Make] = {}
            fields = fields_of(record, record.__name__)
            self._records[record] = _record(record, fields, makers)  # first: a type may speak of itself
            makers.update({name: self._make(field.hint) for name, field in fields.items()})
        return self._records[record]


def _anything(value: Any, memo: Memo) -> Any:
    del memo
    return value


def _misfit(wanted: str, value: Any) -> Misfit:
    shown = "None" if value is None else type(value).__name__
    is_short = isinstance(value, str | float | Decimal | date | timedelta)
    if is_short or (isinstance(value, int) and value.bit_length() <= SHOWN_BITS_MAX):
        shown += f" {value[:SHOWN_LENGTH_MAX] if isinstance(value, str) else value!r:.{SHOWN_LENGTH_MAX}}"
    return Misfit(f"must be {wanted}, not {shown}")


def _instance(wanted: str, *kinds: type) -> Make:
    def make(value: Any, memo: Memo) -> Any:
        del memo
        if isinstance(value, kinds):
            return value
        raise _misfit(wanted, value)

    return make


def _written(wanted: str, kind: type, read: Callable[[Any], Any]) -> Make:
    """Return what takes a value of a kind, or its text."""

    def make(value: Any, memo: Memo) -> Any:
        if isinstance(value, kind):
            return value
        if memo.is_exact:
            raise _misfit(wanted, value)
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
    known = {(type(plain), plain): each for each in kind if _is_hashable(plain := plain_of(each))}

    def make(value: Any, memo: Memo) -> Any:
        del memo
        try:
            found = known.get((type(value), value)) if _is_hashable(value) else None
            found = kind(value) if found is None else found
            if type(value) is type(plain_of(found)) or plain_of(found) != value:  # True is no 1 here
                return found
        except Exception:  # noqa: BLE001, S110 - its own `_missing_` may raise what it likes
            pass
        raise _misfit(_either(map(plain_of, kind)), value)

    return make


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:  # a tuple with a list in it has the method all the same
        return False
    return True


def _literal(args: Sequence[Any]) -> Make:
    known = [(plain_of(each), each) for each in args]

    def make(value: Any, memo: Memo) -> Any:
        del memo
        for plain, each in known:
            if type(value) is type(plain) and value == plain:
                return each
        raise _misfit(_either(plain for plain, _ in known), value)

    return make


def _either(values: Iterable[Any]) -> str:
    return " or ".join(map(repr, values))


@frozen
class _Variant:
    """One type of a union."""

    make: Make
    is_none: bool


def _union(variants: Sequence[_Variant]) -> Make:
    """Return what takes the first type that a value has already, else the first that can be made of it, a date before an instant."""
    by_text = [PLAIN[date], PLAIN[datetime], PLAIN[Decimal]]
    ordered = sorted(variants, key=lambda each: by_text.index(each.make) + 1 if each.make in by_text else 0)

    def remembered(value: Any, memo: Memo) -> Any:
        if not value or not isinstance(value, dict | list | tuple):  # others are one object wherever they stand
            return _first(ordered, value, memo)
        at = (id(value), id(ordered), memo.is_exact)
        if at not in memo.made:
            try:
                memo.made[at] = (_first(ordered, value, memo), None)
            except Misfit as misfit:
                memo.made[at] = (None, misfit)
        made, misfit = memo.made[at]
        if misfit is not None:
            raise Misfit(misfit.what, misfit.path)
        return made

    def make(value: Any, memo: Memo) -> Any:
        if not memo.is_exact:
            memo.is_exact = True
            try:
                return remembered(value, memo)
            except Misfit:
                pass  # made of it, perhaps
            finally:
                memo.is_exact = False
        return remembered(value, memo)

    return make


def _first(variants: Sequence[_Variant], value: Any, memo: Memo) -> Any:
    misfits: list[Misfit] = []
    for each in variants:
        try:
            return each.make(value, memo)
        except Misfit as misfit:
            misfits += [] if each.is_none else [misfit]
    if len(misfits) == 1:
        raise misfits[0]
    raise Misfit("; ".join(dict.fromkeys(map(str, misfits)))[:UNION_LENGTH_MAX])


def _many(kind: Any, make_one: Make) -> Make:
    made_by = kind if kind in (tuple, set, frozenset) else list
    taken = (list, tuple, set, frozenset) if made_by in (set, frozenset) else (list, tuple)

    def make(value: Any, memo: Memo) -> Any:
        if not isinstance(value, made_by if memo.is_exact else taken):
            raise _misfit(made_by.__name__, value)
        if make_one is _anything and type(value) is made_by:
            return value
        made = [_at(f"[{at}]", make_one, each, memo) for at, each in enumerate(typing.cast("Iterable[Any]", value))]
        try:
            return made_by(made)
        except TypeError as error:  # a set of what cannot be hashed
            raise Misfit(str(error)) from None

    return make


def _tuple(makers: Sequence[Make]) -> Make:
    def make(value: Any, memo: Memo) -> Any:
        if not isinstance(value, tuple if memo.is_exact else list | tuple):
            raise _misfit("tuple", value)
        if len(value) != len(makers):
            raise Misfit(f"must have {len(makers)} elements, not {len(value)}")
        return tuple(_at(f"[{at}]", each, one, memo) for at, (each, one) in enumerate(zip(makers, value, strict=True)))

    return make


def _dict(make_key: Make, make_value: Make) -> Make:
    def make(value: Any, memo: Memo) -> Any:
        if not isinstance(value, dict):
            raise _misfit("dict", value)
        given = typing.cast("dict[Any, Any]", value)
        if make_key is make_value is _anything:
            return given
        rows = [
            (_at(f"[{_shown(key)}] as key", make_key, key, memo), _at(f"[{_shown(key)}]", make_value, one, memo))
            for key, one in given.items()
        ]
        try:
            made = dict(rows)
        except TypeError as error:  # a key that cannot be hashed
            raise Misfit(str(error)) from None
        if len(made) < len(given):
            raise Misfit("two of its keys are the same one")
        return made

    return make


def _shown(key: Any) -> str:
    if isinstance(key, str):
        return repr(key[:SHOWN_LENGTH_MAX])
    if isinstance(key, int) and key.bit_length() > SHOWN_BITS_MAX:
        return type(key).__name__
    return f"{key!r:.{SHOWN_LENGTH_MAX}}"


def _at(step: str, make: Make, value: Any, memo: Memo) -> Any:
    try:
        return make(value, memo)
    except Misfit as misfit:
        raise misfit.within(step) from None


def _record(record: Any, fields: Mapping[str, Field], makers: Mapping[str, Make]) -> Make:
    is_dict, name_of = is_typeddict(record), record.__name__
    given_to = None if is_dict else inspect.signature(record).parameters
    is_its_own = given_to is None or set(given_to) == {name for name, field in fields.items() if field.is_given}
    required = [name for name, field in fields.items() if _is_needed(name, field, given_to)]

    def make(value: Any, memo: Memo) -> Any:
        if not is_its_own:  # its constructor is not made of its fields: it alone knows what it takes
            given = typing.cast("dict[str, Any]", value) if isinstance(value, dict) else None
            return _constructed(record, lambda: record(value) if given is None else record(**given))
        if not isinstance(value, dict):
            raise _misfit(name_of, value)
        given = typing.cast("dict[Any, Any]", value)
        if not is_dict and (unknown := [name for name in given if name not in fields]):
            raise Misfit(f"{name_of} has no field {_shown(unknown[0])}")
        if missing := [name for name in required if name not in given]:
            raise Misfit(f"{name_of} misses {', '.join(map(repr, missing))}")
        made = {
            name: _at(f".{name}", makers[name], one, memo) if name in makers else one for name, one in given.items()
        }
        if is_dict:
            return made
        return _constructed(
            record, lambda: record(**{name: one for name, one in made.items() if fields[name].is_given})
        )

    return make


def _is_needed(name: str, field: Field, given_to: Mapping[str, inspect.Parameter] | None) -> bool:
    if given_to is None:
        return field.is_required
    return name in given_to and given_to[name].default is inspect.Parameter.empty


def _constructed(record: Any, construct: Callable[[], Any]) -> Any:
    try:
        return construct()
    except Exception as error:  # noqa: BLE001 - its own checks may raise what they like
        raise Misfit(f"{record.__name__} refuses it: {error or type(error).__name__}") from None
