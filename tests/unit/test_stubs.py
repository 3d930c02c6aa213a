"""Stubs of Python functions: every type stands for itself, whatever else is called so."""

import dataclasses
import enum
import typing
from collections.abc import Callable
from datetime import date
from typing import Any, Literal, TypedDict

import pytest

from jails import jail_here
from overwinter.adapters.monty.launcher import open_launcher
from overwinter.adapters.monty_checker import open_checker
from overwinter.stubs import SPELT, Stubs, unshadowed


@dataclasses.dataclass
class Line:
    sku: str
    due: date | None = None


class Rate(enum.Enum):
    LOW = 0.5
    HIGH = 1


class Rights(enum.IntFlag):
    READ = 1


def line_of_before(**fields: type) -> Any:
    line = dataclasses.make_dataclass("Line", fields.items())
    line.__module__ = "shop.old_lines"  # since Python 3.12 the namespace has no say in it
    return line


OldLine = line_of_before(text=str)
Keyworded = TypedDict("Keyworded", {"class": int, "of-it": str})


def stub_of(*functions: Callable[..., Any]) -> str:
    stubs = Stubs("shop", [each.__name__ for each in functions])
    for each in functions:
        stubs.function(each.__name__, each, "")
    return stubs.text()


def named(name: str) -> Callable[..., Any]:
    async def function(*, ids: list[int], text: str | None = None) -> list[str]: ...

    function.__name__ = name
    return function


async def one(line: Line) -> OldLine: ...  # pyright: ignore[reportInvalidTypeForm]
async def two(rate: Rate, rights: Rights, which: Literal[Rate.HIGH, "x"]) -> Keyworded: ...
async def three(*, rows: typing.List, pair: tuple[()]) -> None: ...  # noqa: UP006 - as old modules have it  # pyright: ignore[reportMissingTypeArgument]


def test_two_types_of_one_name_are_two():
    text = stub_of(one)
    assert "class Line(TypedDict):\n    sku: str\n    due: NotRequired[date | None]\n" in text
    assert "class OldLinesLine(TypedDict):\n    text: str\n" in text
    assert "async def one(*, line: Line) -> OldLinesLine: ..." in text
    twin = line_of_before(text=int)

    async def both(a: OldLine, b: twin, c: twin) -> None: ...  # pyright: ignore[reportInvalidTypeForm]

    assert "(*, a: Line, b: OldLinesLine, c: OldLinesLine)" in stub_of(both)
    third, fourth = line_of_before(), line_of_before()

    async def many(a: OldLine, b: twin, c: third, d: fourth) -> None: ...  # pyright: ignore[reportInvalidTypeForm]

    assert "(*, a: Line, b: OldLinesLine, c: ShopOldLinesLine, d: ShopOldLinesLine___)" in stub_of(many)


def test_values_that_no_literal_can_be_are_of_their_types():
    assert "(*, rate: float | int, rights: int, which: Literal[1, 'x']) -> Keyworded" in stub_of(two)
    assert "Keyworded = TypedDict('Keyworded', {'class': int, 'of-it': str})" in stub_of(two)
    assert "(*, rows: list[Any], pair: tuple[()]) -> None" in stub_of(three)


@pytest.mark.anyio
@pytest.mark.claim("P1.checked_before")
async def test_a_type_is_checked_also_where_a_function_or_a_field_is_called_as_it():
    """Else all that speaks of it is of no type at all, and every program fits."""
    modules = {f"m_{name}": stub_of(named(name), named("other")) for name in SPELT}
    modules["m_fields"] = (
        f"{stub_of()}class Row(TypedDict):\n    date: date\n    due: date\n    list: list[Row]\n    int: Literal['int']\n"
        "async def get() -> Row: ...\n"
    )
    right = [
        "for each in await {module}.{name}(ids=[1]):\n    each.upper()",
        "for each in await {module}.other(ids=[1], text='a'):\n    each.upper()",
    ]
    wrong = [
        "await {module}.{name}(ids=['a'])",
        "await {module}.other(ids=1)",
        "await {module}.other(ids=[1], text=1)",
        "for each in await {module}.other(ids=[1]):\n    each.foo",
    ]
    of_fields = ["['date'].foo", "['due'].foo", "['list'][0]['list'][0]['due'].foo", "['int'].foo", "['int'] + 1"]
    with open_launcher(jail_here()) as launcher:
        async with open_checker(launcher=launcher, jail=jail_here()) as checker:

            async def refused(module: str, text: str) -> bool:
                source = f"import {module}\n" + text.format(module=module, name=module.removeprefix("m_"))
                return bool([each for each in await checker.check(source, modules, {}) if each.is_certain])

            for module in modules:
                if module != "m_fields":
                    assert [text for text in right if await refused(module, text)] == [], module
                    assert [text for text in wrong if not await refused(module, text)] == [], module
            assert [
                each for each in of_fields if not await refused("m_fields", f"(await {{module}}.get()){each}")
            ] == []
            assert not await refused("m_fields", "(await {module}.get())['list'][0]['due'].year + 1")


def test_a_class_whose_m_fieldsstand_for_no_type_of_it_stays_as_it_is():
    text = (
        "class Row(TypedDict):\n    date_: date\n    text: str\n\nclass Part(TypedDict, total=False):\n    str: str\n"
    )
    assert unshadowed(text) == text.replace(
        "class Part(TypedDict, total=False):\n    str: str\n", "Part = TypedDict('Part', {'str': str}, total=False)\n"
    )
