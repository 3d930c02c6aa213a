"""Frozen values: what `@dataclass(frozen=True, slots=True, kw_only=True)` makes, for a tenth of its price.

A dataclass writes seven methods as text and has each compiled when its module is imported: 0.6 ms a class, two fifths of what
`serve` imports. Most are never used by a command, so `frozen` compiles their methods when the first of them is called, in one text.

The constructor of a frozen dataclass also calls `object.__setattr__` once a field, 0.09 us each; a turn has some two hundred
fields. The one made here sets slots as that of any other class does: as long as a new value is being filled it is of a twin
class, which has the same slots and is not frozen. Nobody else has seen it by then.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from typing import Any, Never, TypeVar, dataclass_transform, overload

__all__ = ["frozen", "replace"]

T = TypeVar("T")


@overload
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def frozen(cls: type[T], /) -> type[T]: ...
@overload
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def frozen(*, kw_only: bool) -> Callable[[type[T]], type[T]]: ...
def frozen(cls: type[T] | None = None, /, *, kw_only: bool = True) -> type[T] | Callable[[type[T]], type[T]]:
    """Make a class one of frozen values, with slots; its fields are given by name, unless `kw_only` is false.

    The class must have no base and no subclass. A method that it has itself stays.
    """
    if cls is None:
        return lambda each: _frozen(each, kw_only=kw_only)
    return _frozen(cls, kw_only=kw_only)


def _frozen(given: type[T], *, kw_only: bool) -> type[T]:
    assert given.__bases__ == (object,), f"{given.__name__} has a base, whose slots its twin would not have"
    own = {name for name, each in vars(given).items() if each is not None}  # Python puts no __hash__ beside an __eq__
    cls = dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(given)
    assert all(each.init for each in fields(cls)), f"{given.__name__} has a field that nobody gives"  # pyright: ignore[reportArgumentType] - a dataclass
    for name, method in [*SHARED.items(), *((name, _late(cls, name)) for name in WRITTEN)]:
        if name not in own:
            setattr(cls, name, method)
    return cls


def replace(value: T, /, **changes: object) -> T:
    """Return the same value with other fields, as `dataclasses.replace` does, in a third of the time.

    Raises:
        TypeError: it has no such field.
    """
    return value.__replace__(**changes)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] - of frozen classes


WRITTEN = ("__init__", "__eq__", "__hash__", "__repr__", "__replace__")
"""The methods that depend on the fields."""


def _late(cls: type, name: str) -> Callable[..., Any]:
    """Return a method that puts the written ones in the place of itself and its like, and is that of its name."""

    def first(self: object, /, *given: object, **named: object) -> object:
        for each, method in _written(cls).items():
            if getattr(vars(cls)[each], "late_of", None) is cls:
                setattr(cls, each, method)
        return getattr(cls, name)(self, *given, **named)

    first.late_of = cls  # pyright: ignore[reportFunctionMemberAccess] - a mark of ours
    first.__qualname__ = f"{cls.__qualname__}.{name}"
    return first


def _written(cls: type) -> dict[str, Callable[..., Any]]:
    """Return the methods of a class by their names, made of its fields as `dataclasses` makes them."""
    every: tuple[Field[Any], ...] = fields(cls)
    names = tuple(each.name for each in every)
    known: dict[str, Any] = {  # no field is named like these
        "__own": cls,
        "__twin": type(cls.__name__, (), {"__slots__": names}),
        "__MISSING": MISSING,
        "__new": object.__new__,
        "__set": object.__setattr__,
    }
    parameters = [_parameter(each, known) for each in every if not each.kw_only]
    parameters += ["*", *named] if (named := [_parameter(each, known) for each in every if each.kw_only]) else []
    compared = [each for each in every if each.compare]
    hashed = [each for each in every if (each.compare if each.hash is None else each.hash)]
    shown = ", ".join(f"{each.name}={{self.{each.name}!r}}" for each in every if each.repr)
    lines = [
        f"def __init__({', '.join(['__self', *parameters])}):",
        "    __set(__self, '__class__', __twin)",
        *(f"    __self.{each.name} = {_value(each)}" for each in every),
        "    __self.__class__ = __own",
        *(["    __self.__post_init__()"] if hasattr(cls, "__post_init__") else []),
        "def __replace__(self, /, **changes):",
        "    made = __new(__twin)",
        "    take = changes.pop",
        *(
            f"    made.{each.name} = take('{each.name}') if '{each.name}' in changes else self.{each.name}"
            for each in every
        ),
        "    made.__class__ = __own",
        *(["    made.__post_init__()"] if hasattr(cls, "__post_init__") else []),
        f"    if changes: raise TypeError(f'{cls.__qualname__} has no field {{next(iter(changes))!r}}')",
        "    return made",
        "def __eq__(self, other):",
        "    if other.__class__ is not __own: return NotImplemented",
        f"    return {_tuple('self', compared)} == {_tuple('other', compared)}",
        "def __hash__(self):",
        f"    return hash({_tuple('self', hashed)})",
        "def __repr__(self):",
        f'    return f"{cls.__qualname__}({shown})"',
    ]
    exec("\n".join(lines), known)  # noqa: S102 - as `dataclass` itself does, of the same names
    for name in WRITTEN:
        known[name].__qualname__ = f"{cls.__qualname__}.{name}"
    return {name: known[name] for name in WRITTEN}


def _parameter(each: "Field[Any]", known: dict[str, Any]) -> str:
    """Return a field as a parameter; what it is by default is noted among the names that the constructor knows."""
    if each.default_factory is not MISSING:
        known[f"__make_{each.name}"] = each.default_factory
        return f"{each.name}=__MISSING"
    if each.default is not MISSING:
        known[f"__default_{each.name}"] = each.default
        return f"{each.name}=__default_{each.name}"
    return each.name


def _value(each: "Field[Any]") -> str:
    if each.default_factory is not MISSING:
        return f"__make_{each.name}() if {each.name} is __MISSING else {each.name}"
    return each.name


def _tuple(of: str, chosen: Iterable["Field[Any]"]) -> str:
    return f"({''.join(f'{of}.{each.name}, ' for each in chosen)})"


def _refuse(_self: object, name: str, _value: object = None) -> Never:
    raise FrozenInstanceError(f"cannot change field {name!r}")


def _fill(self: object, state: tuple[None, dict[str, Any]]) -> None:
    """Take the slots of a value that is copied or was pickled (`object.__getstate__`)."""
    for name, value in state[1].items():
        object.__setattr__(self, name, value)


def _no_subclass(cls: type) -> Never:
    raise TypeError(f"{cls.__mro__[1].__qualname__} has no subclasses: its constructor makes it alone")


SHARED: Mapping[str, Any] = {
    "__setattr__": _refuse, "__delattr__": _refuse, "__setstate__": _fill, "__init_subclass__": classmethod(_no_subclass),
}  # fmt: skip
"""The methods that do not."""
