"""A light value is the value that its dataclass makes, only sooner."""

import copy
import inspect
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace

import pytest

from overwinter.audit import Entry
from overwinter.frozen import light
from overwinter.store import Loaded, NewCall, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    a: int
    b: str = "b"
    c: Mapping[str, int] = field(default_factory=dict[str, int])
    d: tuple[int, ...] = ()


@light
@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    a: int
    b: str = "b"
    c: Mapping[str, int] = field(default_factory=dict[str, int])
    d: tuple[int, ...] = ()


@light
@dataclass(frozen=True, slots=True)
class Placed:
    a: int
    b: str = "b"
    c: int = field(default=3, kw_only=True)


def test_it_is_what_its_dataclass_makes():
    made, plain = Light(a=1, d=(2,)), Plain(a=1, d=(2,))
    assert type(made) is Light
    assert repr(made) == repr(plain).replace("Plain", "Light")
    assert made == Light(a=1, d=(2,)) != Light(a=2, d=(2,))
    assert made.c is not Light(a=1).c
    assert hash(Light(a=1, c=frozenset())) == hash(Light(a=1, c=frozenset()))  # pyright: ignore[reportArgumentType] - any that can be hashed
    assert Placed(1) == Placed(1, "b", c=3) != Placed(1, "c")


def test_nobody_can_change_it():
    made = Light(a=1)
    for change in (lambda: setattr(made, "a", 2), lambda: delattr(made, "a"), lambda: setattr(made, "z", 2)):
        with pytest.raises((FrozenInstanceError, TypeError)):
            change()
    assert made == Light(a=1)


def test_it_is_copied_replaced_and_pickled_like_any_other():
    made = Light(a=1, c={"x": 1})
    assert replace(made, b="c") == Light(a=1, b="c", c={"x": 1})
    assert copy.copy(made) == copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize("wrong", [{}, {"a": 1, "e": 2}])
def test_it_takes_what_the_other_takes(wrong):
    for each in (Plain, Light):
        with pytest.raises(TypeError):
            each(**wrong)
    with pytest.raises(TypeError):
        Light(1)  # pyright: ignore[reportCallIssue] - by name alone
    names = list(inspect.signature(Plain).parameters)
    assert list(inspect.signature(Light).parameters) == names == [each.name for each in fields(Light)]


def test_a_class_that_it_would_break_is_refused():
    for each in (
        dataclass(frozen=True)(type("Slotless", (), {"__annotations__": {"a": int}})),
        dataclass(frozen=True, slots=True)(type("Below", (Plain,), {"__annotations__": {"e": int}})),
        dataclass(frozen=True, slots=True)(
            type("After", (), {"__annotations__": {"a": int}, "__post_init__": lambda _self: None})
        ),
    ):
        with pytest.raises(AssertionError):
            light(each)


@pytest.mark.parametrize("kind", [Entry, Loaded, NewCall, Turn])
def test_what_turns_are_made_of_is_light(kind):
    assert kind.__init__.__code__.co_filename == "<string>"
    assert "own" in kind.__init__.__code__.co_names
