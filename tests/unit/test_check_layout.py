"""What a value is when the program runs decides whether it is correct, not what the checker can follow."""

import pytest

from jails import jail_here
from overwinter.adapters.monty.launcher import open_launcher
from overwinter.adapters.monty_checker import open_checker

pytestmark = [pytest.mark.anyio, pytest.mark.claim("P2.layout")]
STUB = """
from typing import Any, Literal, NotRequired, TypedDict
class Address(TypedDict):
    city: str
    line: NotRequired[str]
class Thing(TypedDict):
    id: int
    title: str
    note: str | None
async def create(*, name: str, address: Address | None = ..., state: Literal['open', 'closed'] | None = ...) -> Thing: ...
async def listing(*, limit: int | None = ...) -> list[Thing]: ...
"""
RIGHT = {
    "set by a function": "x = None\nasync def look():\n    global x\n    x = {'a': 1}\nawait look()\nx['a']\ndef f():\n    return x['a']",
    "set before it is read": "x = None\nasync def main():\n    return x.upper()\nx = 'a'\nawait main()",
    "of two types in turn": "x = 1\nx += 1\nx = 'a'\nasync def main():\n    return x.upper()\nawait main()",
    "a function in two versions": "def f(n: int):\n    return n\nf(1)\ndef f(n: str):\n    return n\ndef g():\n    return f('a')\ng()",
    "the best of a loop": "best = None\nfor t in await svc.listing():\n    if best is None or t['id'] > best['id']:\n        best = t\nawait svc.create(name=best['title'])",
    "a key that is there": "d = {'a': 'x', 'b': None}\nd.get('a').upper()\nd['a'].upper()\nawait svc.create(name=d.get('a'))",
    "a slot that is filled": "last = {'t': None}\nfor t in await svc.listing():\n    last['t'] = t\nlast['t']['title']",
    "changed under another name": "d = {}\ne = d\ne['city'] = 'x'\nawait svc.create(name='a', address=d)",
    "changed by a function": "def fill(q):\n    q['city'] = 'x'\nd = {}\nfill(d)\nawait svc.create(name='a', address=d)",
    "changed inside": "d = {'a': {}}\nd['a']['city'] = 'x'\nb = {'address': d['a']}\nawait svc.create(name='a', **b)",
    "changed item by item": "rows = [{}]\nfor row in rows:\n    row['city'] = 'x'\nfor row in rows:\n    await svc.create(name='a', address=row)",
}
WRONG = {
    "a nullable field": "t = await svc.create(name='a')\nnote = t['note']\nnote.upper()",
    "a nullable field in a loop": "for t in await svc.listing():\n    await svc.create(name=t['note'])",
    "a nullable field of the best": "ts = sorted(await svc.listing(), key=lambda t: t['id'])\nts[0]['note'].upper()",
    "never set": "x = None\nx['a']",
    "another key than there is": "d = {'citty': 'x'}\nother = d\nawait svc.create(name='a', address=d)",
    "added to a number": "n = 0\ndef f():\n    global n\n    n += 'x'",
    "a field of none in a function": "x = 1\nx = await svc.create(name='a')\nasync def main():\n    await svc.create(nam=x['title'])",
}


async def refused(source):
    with open_launcher(jail_here()) as launcher:
        async with open_checker(launcher=launcher, jail=jail_here()) as checker:
            return [each.message for each in await checker.check(source, {"svc": STUB}, {}) if each.is_certain]


@pytest.mark.parametrize("name", RIGHT)
async def test_a_value_that_the_checker_cannot_follow_is_never_a_reason_to_refuse(name):
    assert await refused(RIGHT[name]) == []


@pytest.mark.parametrize("name", WRONG)
async def test_what_a_tool_promised_is_held_against_the_program(name):
    assert await refused(WRONG[name])
