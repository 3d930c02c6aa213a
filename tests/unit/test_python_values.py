"""What a program gives a Python function: held against the declared type, and made into it."""

import enum
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NewType, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.adapters.python_tools import load_python_tools
from overwinter.adapters.python_values import Makers, Misfit
from overwinter.events import Call, Raised, Returned


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


@dataclass
class Line:
    sku: str
    count: int = 1
    tags: list[str] = field(default_factory=list)
    parts: "list[Line]" = field(default_factory=list)
    total: int = field(init=False, default=0)
    KIND: ClassVar[str] = "line"

    def __post_init__(self) -> None:
        if self.count < 0:
            raise LookupError("fewer than none")
        self.total = self.count * 2


@dataclass
class Note:
    text: str
    about: str = None  # pyright: ignore[reportAssignmentType] - as many write it


@dataclass(init=False)
class Money:
    cents: int

    def __init__(self, amount: str) -> None:
        self.cents = round(float(amount) * 100)


@dataclass
class Left:
    child: "Left | Right | None"
    op: Literal["left"]
    notes: list[Annotated[int, ["cents"]]] = field(default_factory=list)
    seen: Annotated[int, ["times"]] = None  # pyright: ignore[reportAssignmentType] - as many write it


@dataclass
class Right:
    child: "Left | Right | None"
    op: Literal["right"]


@dataclass
class Circle:
    size: int
    kind: Literal["circle"] = field(init=False, default="circle")


@dataclass
class Square:
    size: int
    kind: Literal["square"] = field(init=False, default="square")


class Named(str):
    __slots__ = ()


class Odd(enum.Enum):
    RED = Colour.RED
    NAMED = Named("x")
    LISTS = ([1], 2)


class Options(TypedDict):
    colour: Colour
    at: NotRequired[date]


Sku = NewType("Sku", str)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
FIT = [
    (list[Line], [{"sku": "a"}], [Line("a")]),
    (Line | None, {"sku": "a", "parts": [{"sku": "b", "count": 2}]}, Line("a", parts=[Line("b", 2)])),
    (Line | None, None, None),
    (dict[str, list[Line]], {"x": [{"sku": "a"}]}, {"x": [Line("a")]}),
    (Line | Note, {"text": "t"}, Note("t")),
    (Line | dict[str, Any], {"text": "t"}, {"text": "t"}),
    (Sequence[Colour], ["red"], [Colour.RED]),
    (Mapping[str, Colour], {"x": "blue"}, {"x": Colour.BLUE}),
    (tuple[int, Colour], [1, "red"], (1, Colour.RED)),
    (tuple[int, ...], [1, 2], (1, 2)),
    (tuple[()], [], ()),
    (set[str], ["a", "a"], {"a"}),
    (frozenset[Colour], {"red"}, frozenset({Colour.RED})),
    (typing.List, [1, "x"], [1, "x"]),  # noqa: UP006 - as old modules have it
    (dict, {1: 2}, {1: 2}),
    (Options, {"colour": "red", "at": "2026-01-02"}, {"colour": Colour.RED, "at": date(2026, 1, 2)}),
    (Options, {"colour": "red"}, {"colour": Colour.RED}),
    (Literal["a", 1], 1, 1),
    (Literal[Colour.RED, "x"], "red", Colour.RED),
    (Rights, 3, Rights.READ | Rights.WRITE),
    (Annotated[int, "cents"], 3, 3),
    (Sku, "a", "a"),
    (float, 3, 3),
    (datetime, "2026-01-02T12:00:00+00:00", NOON),
    (datetime | str, "2026-01-02", "2026-01-02"),
    (datetime | date, date(2026, 1, 2), date(2026, 1, 2)),
    (Decimal, "1.50", Decimal("1.50")),
    (Decimal, 2, Decimal(2)),
    (timedelta, timedelta(1), timedelta(1)),
    (Any, object, object),
    (Note, {"text": "t", "about": None}, Note("t")),
    (Money, {"amount": "1.5"}, Money("1.5")),
    (Options, {"colour": "red", "etag": [1]}, {"colour": Colour.RED, "etag": [1]}),
    (Odd, "red", Odd.RED),
    (Odd, "x", Odd.NAMED),
    (Odd, ([1], 2), Odd.LISTS),
    (set[int] | list[int], [3, 1, 1], [3, 1, 1]),
    (tuple[int, ...] | list[int], [1, 2], [1, 2]),
    (datetime | date, "2026-01-02", date(2026, 1, 2)),
    (datetime | date, NOON, NOON),
    (list[date] | list[str], ["2026-01-02"], ["2026-01-02"]),
    (dict[str, Decimal] | dict[str, str], {"a": "1.50"}, {"a": "1.50"}),
    (list[Decimal] | list[int], [1, 2], [1, 2]),
    (list[date | None] | None, ["2026-01-02", None], [date(2026, 1, 2), None]),
    (Circle | Square, {"size": 3, "kind": "square"}, Square(3)),
    (Annotated[Line | None, "a"], {"sku": "a"}, Line("a")),
    (Left, {"child": None, "op": "left", "notes": [1]}, Left(None, "left", [1])),
]
MISFIT = [
    (int, "1", "must be int, not str '1'"),
    (int, 1.0, "must be int, not float 1.0"),
    (str, None, "must be str, not None"),
    (bool, 1, "must be bool, not int 1"),
    (float, "x", "must be float, not str 'x'"),
    (Decimal, 1.5, "must be a Decimal, not float 1.5"),
    (Decimal, "x", "must be a Decimal, not str 'x'"),
    (date, "soon", "must be a date, not str 'soon'"),
    (Literal["a", 1], True, "must be 'a' or 1, not bool True"),
    (Colour, "green", "must be 'red' or 'blue', not str 'green'"),
    (list[int], "12", "must be list, not str '12'"),
    (list[Line], [{"sku": "a"}, {"sku": "b", "count": "7"}], "[1].count: must be int, not str '7'"),
    (Line, {"sku": "a", "parts": [{"count": 1}]}, ".parts[0]: Line misses 'sku'"),
    (Line, {"sku": "a", "colour": 1}, "Line has no field 'colour'"),
    (Line, {"sku": "a", "KIND": "x"}, "Line has no field 'KIND'"),
    (Line, {"sku": "a", "count": -1}, "Line refuses it: fewer than none"),
    (Line, "a", "must be Line, not str 'a'"),
    (Options, {"at": NOON}, "Options misses 'colour'"),
    (tuple[int, str], [1], "must have 2 elements, not 1"),
    (tuple[int, str], [1, 2], "[1]: must be str, not int 2"),
    (set[str], [["a"]], "[0]: must be str, not list"),
    (set, [["a"]], "unhashable type: 'list'"),
    (dict[str, int], {"a": "b"}, "['a']: must be int, not str 'b'"),
    (dict[str, int], {1: 1}, "[1] as key: must be str, not int 1"),
    (int | None, "x", "must be int, not str 'x'"),
    (int | bytes, "x", "must be int, not str 'x'; must be bytes, not str 'x'"),
    (str, b"x" * 100, "must be str, not bytes"),
    (str, 10**5_000, "must be str, not int"),
    (Level, True, "must be 1 or 2, not bool True"),
    (Level, 1.0, "must be 1 or 2, not float 1.0"),
    (dict[set[int], int], {(1,): 2}, "unhashable type: 'set'"),
    (dict[int, int], {"a" * 99: 1}, f"['{'a' * 60}'] as key: must be int, not str '{'a' * 59}"),
    (dict[str, int], {10**5_000: 1}, "[int] as key: must be str, not int"),
    (dict[Decimal, int], {"1.0": 1, "1.00": 2}, "two of its keys are the same one"),
    (Money, {"cents": 1}, "Money refuses it: Money.__init__() got an unexpected keyword argument 'cents'"),
    (Options, {"colour": "green"}, ".colour: must be 'red' or 'blue', not str 'green'"),
]


@pytest.mark.parametrize(("hint", "value", "made"), FIT)
def test_plain_data_becomes_what_a_type_says_at_any_depth(hint, value, made):
    found = Makers().of(hint)(value)
    assert (found, type(found)) == (made, type(made))


@pytest.mark.parametrize(("hint", "value", "said"), MISFIT, ids=[said for *_, said in MISFIT])
def test_what_does_not_fit_is_said_with_its_place(hint, value, said):
    with pytest.raises(Misfit) as caught:
        Makers().of(hint)(value)
    assert str(caught.value) == said


@pytest.mark.parametrize("last", ["left", "neither"])
def test_a_value_is_made_once_however_many_types_lead_to_it(last):
    value: Any = {"child": None, "op": last}
    for _ in range(90):
        value = {"child": value, "op": "right"}
    if last == "left":
        assert Makers().of(Left | Right)(value).op == "right"
    else:
        with pytest.raises(Misfit) as caught:
            Makers().of(Left | Right)(value)
        assert len(str(caught.value)) < 2_000


def test_two_places_get_two_objects():
    first, second = Makers().of(list[list[int] | None])([(), ()])
    assert first is not second


lines = st.recursive(
    st.builds(Line, st.text(), st.integers(0, 9), st.lists(st.text(), max_size=2)),
    lambda inner: st.builds(Line, st.text(), parts=st.lists(inner, max_size=2)),
    max_leaves=6,
)


@given(lines)
def test_a_result_of_a_function_can_be_its_argument(line):
    assert Makers().of(Line)(asdict(line)) == line


MODULE = '''
from __future__ import annotations

import enum
from collections import Counter, OrderedDict
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, NamedTuple, NotRequired, TypedDict

from overwinter import Key, read

seen = []


@dataclass
class Line:
    sku: str
    count: int = 1


class Options(TypedDict):
    deep: NotRequired[bool]


@read
async def put(
    *, lines: list[Line], first: Line = None, options: Options | None = None, key: Annotated[Key, "of the call"] | None = None
) -> Line:
    """Put them."""
    seen.append((lines, first, options, key))
    return lines[0]


again = put


class Colour(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    a: Colour
    b: int


@read
def kinds(a: int, /, b: int = 2) -> dict[str, object]:
    """Answer what is a kind of a list or dict."""
    return OrderedDict(a={Colour.RED}, b=Counter({Colour.RED: a}), c=Pair(Colour.RED, b), d=range(2), e=MappingProxyType({"x": 1}))


sq = read(lambda n: n)
'''


@pytest.fixture
async def tools(tmp_path: Path):
    (tmp_path / "shop_of_values.py").write_text(MODULE, encoding="utf-8")
    async with load_python_tools({"shop": "shop_of_values"}, directory=tmp_path, threads_max=1) as found:
        yield found
    sys.path.remove(str(tmp_path))
    del sys.modules["shop_of_values"]


@pytest.mark.anyio
async def test_a_function_is_called_with_what_it_declares_or_not_at_all(tools):
    async def put(name: str = "shop.put", **arguments: Any) -> object:
        call = Call(run_id="r", index=0, function=name, arguments=arguments, effect="read")
        return await tools.perform(call)

    module = sys.modules["shop_of_values"]
    assert await put(lines=[{"sku": "a"}], first=None, options={}) == Returned(value={"sku": "a", "count": 1})
    assert module.seen.pop() == ([module.Line("a")], None, {}, "r:0")
    wrong = await put(lines=[{"sku": "a", "count": "2"}])
    assert wrong == Raised(kind="TypeError", message="shop.put: lines[0].count: must be int, not str '2'")
    assert await put(lines=[], options={"deep": 1}) == Raised(
        kind="TypeError", message="shop.put: options.deep: must be bool, not int 1"
    )
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert isinstance(await put(lines=deep), Raised)
    assert module.seen == []
    assert "    deep: NotRequired[bool]\n" in tools.catalog.modules["shop"].stub
    assert "    count: NotRequired[int]\n" in tools.catalog.modules["shop"].stub
    stub = tools.catalog.modules["shop"].stub
    assert (
        "async def put(*, lines: list[Line], first: Line | None = ..., options: Options | None = ...) -> Line:" in stub
    )
    assert await put("shop.again", lines=[{"sku": "a"}]) == Returned(value={"sku": "a", "count": 1})
    assert await put("shop.sq", n=3) == Returned(value=3)
    found = {"a": {"red"}, "b": {"red": 1}, "c": ("red", 2), "d": [0, 1], "e": {"x": 1}}
    answer = await put("shop.kinds", a=1)
    assert answer == Returned(value=found)
    assert isinstance(answer, Returned)
    assert [type(each) for each in answer.value.values()] == [type(each) for each in found.values()]
