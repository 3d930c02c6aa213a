"""Frozen values that are made in half the time.

The constructor of a frozen dataclass calls `object.__setattr__` once a field, 0.09 us each; a turn has some two hundred
fields. The one that `light` puts in its place sets slots as that of any other class does: as long as a new value is being
filled it is of a twin class, which has the same slots and is not frozen. Nobody else has seen it by then.
"""

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

__all__ = ["light"]

T = TypeVar("T")


def light(cls: type[T]) -> type[T]:
    """Give a frozen dataclass with slots, above whose decorator this one stands, a constructor that costs less.

    It takes what the other takes, and it pays from four fields on. The class must have no base, no subclass, and nothing to
    be done after its fields are set.
    """
    every: tuple[Field[Any], ...] = fields(cls)  # pyright: ignore[reportArgumentType] - a dataclass, as the next lines have it
    names = [each.name for each in every]
    assert cls.__bases__ == (object,), f"{cls.__name__} has a base, whose slots its twin would not have"
    assert cls.__dict__.get("__slots__") == tuple(names), f"{cls.__name__} has other slots than its fields"
    assert not hasattr(cls, "__post_init__"), f"{cls.__name__} does something after its fields are set"
    twin = type(cls.__name__, (), {"__slots__": tuple(names)})
    known: dict[str, Any] = {"own": cls, "twin": twin, "MISSING": MISSING}
    parameters = [_parameter(each, known) for each in every if not each.kw_only]
    parameters += ["*", *named] if (named := [_parameter(each, known) for each in every if each.kw_only]) else []
    lines = [
        f"def __init__(self, {', '.join(parameters)}):",
        "    object.__setattr__(self, '__class__', twin)",
        *(f"    self.{name} = {_value(each)}" for name, each in zip(names, every, strict=True)),
        "    self.__class__ = own",
    ]
    exec("\n".join(lines), known)  # noqa: S102 - as `dataclass` itself does, of the same names
    made: Callable[..., None] = known["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    cls.__init__ = made
    return cls


def _parameter(each: "Field[Any]", known: dict[str, Any]) -> str:
    """Return a field as a parameter; what it is by default is noted among the names that the constructor knows."""
    if each.default_factory is not MISSING:
        known[f"make_{each.name}"] = each.default_factory
        return f"{each.name}=MISSING"
    if each.default is not MISSING:
        known[f"default_{each.name}"] = each.default
        return f"{each.name}=default_{each.name}"
    return each.name


def _value(each: "Field[Any]") -> str:
    if each.default_factory is not MISSING:
        return f"make_{each.name}() if {each.name} is MISSING else {each.name}"
    return each.name
