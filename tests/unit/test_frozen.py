"""A frozen value is what its dataclass makes, only sooner; and its class costs a tenth."""

import copy
import inspect
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields, is_dataclass
from dataclasses import replace as replaced
from threading import Barrier, Thread
from typing import Any

import pytest

from overwinter.frozen import frozen, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    a: int
    b: str = "b"
    c: Mapping[str, int] = field(default_factory=dict[str, int])
    d: tuple[int, ...] = ()


@frozen
class Value:
    a: int
    b: str = "b"
    c: Mapping[str, int] = field(default_factory=dict[str, int])
    d: tuple[int, ...] = ()


@frozen(kw_only=False)
class Placed:
    a: int
    b: str = "b"
    c: int = field(default=3, kw_only=True)


@frozen
class Partly:
    """Some of its fields are not shown, compared or hashed."""

    a: int
    secret: str = field(default="s", repr=False)
    seen: int = field(default=0, compare=False)
    wide: int = field(default=0, hash=False)


@frozen
class Own:  # noqa: PLW1641 - that Python takes the hash from a class with an equality of its own is the point
    """It has a text and an equality of its own."""

    a: int

    def __repr__(self) -> str:
        return "own"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own)


@frozen
class Empty:
    pass


@frozen
class Positive:
    a: int

    def __post_init__(self) -> None:
        if self.a < 0:
            raise ValueError(self.a)


def test_it_is_what_its_dataclass_makes():
    made, plain = Value(a=1, d=(2,)), Plain(a=1, d=(2,))
    assert type(made) is Value
    assert is_dataclass(Value)
    assert repr(made) == repr(plain).replace("Plain", "Value")
    assert made == Value(a=1, d=(2,)) != Value(a=2, d=(2,))
    assert made != plain
    assert made.c is not Value(a=1).c
    assert hash(Value(a=1, c=frozenset())) == hash(Value(a=1, c=frozenset()))  # pyright: ignore[reportArgumentType] - any that can be hashed
    assert Placed(1) == Placed(1, "b", c=3) != Placed(1, "c")
    assert Empty() == Empty()
    assert hash(Empty()) == hash(Empty())
    assert repr(Empty()) == "Empty()"


def test_a_field_is_shown_compared_and_hashed_as_it_says():
    assert repr(Partly(a=1)) == "Partly(a=1, seen=0, wide=0)"
    assert Partly(a=1, seen=1) == Partly(a=1, seen=2)
    assert Partly(a=1, wide=1) != Partly(a=1, wide=2)
    assert len({hash(Partly(a=1, wide=wide, seen=wide)) for wide in range(10)}) == 1


def test_a_method_that_a_class_has_itself_stays():
    assert repr(Own(a=1)) == "own"
    assert Own(a=1) == Own(a=2)
    assert hash(Own(a=1)) == hash(Own(a=1)), "a frozen value can be hashed, as a frozen dataclass can"


def test_what_a_class_does_after_its_fields_are_set_is_done():
    assert Positive(a=1).a == 1
    with pytest.raises(ValueError, match="-1"):
        Positive(a=-1)
    with pytest.raises(ValueError, match="-1"):
        replace(Positive(a=1), a=-1)


def test_nobody_can_change_it():
    made = Value(a=1)
    for change in (lambda: setattr(made, "a", 2), lambda: delattr(made, "a"), lambda: setattr(made, "z", 2)):
        with pytest.raises(FrozenInstanceError):
            change()
    assert made == Value(a=1)


def test_what_is_replaced_is_frozen_and_whole_and_has_no_other_field():
    made = Value(a=1, d=(1, 2))
    other = replace(made, a=2, b="x")
    assert (made, other) == (Value(a=1, d=(1, 2)), Value(a=2, b="x", d=(1, 2)))
    assert replace(made) == made
    with pytest.raises(FrozenInstanceError):
        setattr(other, "a", 3)  # noqa: B010 - a type checker sees through the other way
    with pytest.raises(TypeError, match="Value has no field 'nothing'"):
        replace(made, nothing=1)


def test_it_is_copied_replaced_and_pickled_like_any_other():
    made = Value(a=1, c={"x": 1})
    for other in (replace, replaced):
        assert other(made, b="c") == Value(a=1, b="c", c={"x": 1})
    assert copy.copy(made) == copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made
    assert copy.deepcopy(made).c is not made.c


@pytest.mark.parametrize("wrong", [{}, {"a": 1, "e": 2}])
def test_it_takes_what_the_other_takes(wrong):
    for each in (Plain, Value):
        with pytest.raises(TypeError):
            each(**wrong)
    with pytest.raises(TypeError, match=r"Value\.__init__\(\) takes 1 positional argument"):
        Value(1)  # pyright: ignore[reportCallIssue] - by name alone
    names = list(inspect.signature(Plain).parameters)
    assert list(inspect.signature(Value).parameters) == names == [each.name for each in fields(Value)]


def test_a_class_that_it_would_break_is_refused():
    for each in (
        type("Below", (Plain,), {"__annotations__": {"e": int}}),
        type("Ungiven", (), {"__annotations__": {"a": int}, "a": field(init=False)}),
    ):
        with pytest.raises(AssertionError):
            frozen(each)
    with pytest.raises(TypeError, match="Value has no subclasses"):
        type("Above", (Value,), {})


def test_threads_that_make_its_first_values_at_once_make_the_same():
    for _ in range(50):
        kind = frozen(type("Fresh", (), {"__annotations__": {"a": int, "b": str}}))
        start, made = Barrier(4), list[object]()

        def make(kind=kind, start=start, made=made):
            start.wait()
            made.append(kind(a=1, b="b"))

        threads = [Thread(target=make) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(made) == 4
        assert len(set(made)) == 1


def test_no_method_is_compiled_before_it_is_called():
    kind = frozen(type("Fresh", (), {"__annotations__": {"a": int}}))
    assert kind.__init__.__code__.co_filename != "<string>"
    kind(a=1)
    assert kind.__init__.__code__.co_filename == "<string>"


def test_a_field_has_any_name():
    names = [
        "own",
        "twin",
        "new",
        "object",
        "made",
        "take",
        "changes",
        "other",
        "self",
        "MISSING",
        "make_own",
        "default_own",
    ]
    kind: Any = frozen(
        type("Odd", (), {"__annotations__": dict.fromkeys(names, int), "twin": 2, "made": field(default_factory=int)})
    )
    value = kind(**{name: at for at, name in enumerate(names)})
    assert [getattr(value, name) for name in names] == list(range(len(names)))
    assert replace(value, own=7).own == 7
    assert value == replace(value)
    assert value != replace(value, other=0)
    assert hash(value) == hash(replace(value))
