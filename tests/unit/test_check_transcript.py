"""A program of a run that was fed others before it: their names are there, and how they ended is no reason to refuse it."""

import time

import pytest

from check_cases import CASES, STUB, awaited
from jails import jail_here
from overwinter.adapters.monty.launcher import open_launcher
from overwinter.adapters.monty_checker import open_checker
from overwinter.adapters.monty_checker.earlier import TEXT_CHARACTERS_MAX, earlier
from overwinter.check import Cell, Transcript

pytestmark = [pytest.mark.anyio, pytest.mark.claim("P2.cells")]
NULLABLE = STUB + "async def note(*, name: str) -> str | None: ...\n"


@pytest.fixture
async def checker():
    with open_launcher(jail_here()) as launcher:
        async with open_checker(launcher=launcher, jail=jail_here()) as opened:
            yield opened


async def refused(checker, source, *cells, stub=NULLABLE):
    made = tuple(
        Cell(source=each) if isinstance(each, str) else Cell(source=each[0], stopped_line=each[1]) for each in cells
    )
    findings = await checker.check(source, {"svc": stub}, {}, transcript=Transcript(cells=made))
    return [(each.line, each.rule, each.message) for each in findings if each.is_certain]


@pytest.mark.parametrize("number", range(len(CASES["sequences"])))
async def test_a_sequence_of_programs_is_judged_as_its_run_would(checker, number):
    cells = []
    for step in CASES["sequences"][number]:
        source = str(awaited(step["program"])).replace("svc.fail(", "await svc.fail(")
        found = await refused(checker, source, *cells)
        assert bool(found) == (step["expect"] == "refuse"), (source, found)
        if not found:
            cells.append((source, step["stopped_row"]))


RIGHT = {
    "a loop that failed": (("for i in range(3):\n    x = 'a'\n    1 / (2 - i)\ny = 1", 3), "x.upper()\ni + 1"),
    "a loop that failed after another value": ("x = 1", ("for i in range(3):\n    x = 'a'\n    1 / (2 - i)", 3), "x.upper()"),
    "a program that failed nobody knows where": (("x = 'a'\n1 / 0\nfor y in [1]:\n    pass", 0), "y + 1"),
    "a name that a function sets": ("x = None\ndef f():\n    global x\n    x = 'a'", "f()", "x.upper()"),
    "a value that was made sure of": ("n = await svc.note(name='a')", "if n is None:\n    raise ValueError('none')", "n.upper()"),
    "a value that was asserted": ("n = await svc.note(name='a')\nassert n", "await svc.create(name=n)"),
    "a name given in an expression": ("print(x := 'a')", "x.upper()"),
    "a dict that was filled": ("d = {}", "d['city'] = 'x'", "await svc.create(name='a', address=d)"),
    "a dict that was filled by a call": ("d = {}\ndef f(k):\n    d[k] = 'x'", "f('city')", "await svc.create(name='a', address=d)"),
    "a function of a name that is another now": ("x = 1\ndef f():\n    return x.upper()", "x = 'a'", "f()", "def g():\n    return x.upper()\ng()"),
    "a function that calls another in a new version": ("def f(n: int):\n    return n\ndef g():\n    return f('a')", "def f(n: str):\n    return n", "g()\nf('x')"),
    "a name of a built-in that is missing": ("def vars():\n    return 1", "vars() + 1"),
    "a type of a service": ("from svc import Pull, create as c\ndef f(p: Pull) -> str:\n    return p['title']", "f(await c(name='a'))"),
    "a dead end by type": ("x = 1\ny = 2\nif isinstance(x, int):\n    x = await svc.fail(why='a')", "y + 1\nx"),
    "a comment that switches off": ("x = 1  # type: ignore\n", "x + 1"),
}  # fmt: skip
WRONG = {
    "a misspelt parameter after a dead end": ("def f():\n    pass\nwhile f() is None:\n    x = await svc.fail(why='a')\n    break", "x\nawait svc.create(nme='a')"),
    "a misspelt parameter after a raise": (("import svc\nz = 1\nraise ValueError('x')", 3), "await svc.create(nme='a')"),
    "what a failed program did not reach": (("1 / 0\nb = 2", 1), "b + 1"),
    "what a failed statement did not bind": (("b = 1 / 0", 1), "b + 1"),
    "a nullable value": ("n = await svc.note(name='a')", "n.upper()"),
    "a wrong key in a literal from before": ("d = {'citty': 'x'}", "await svc.create(name='a', address=d)"),
    "a literal that hides a right one": ("d = {'city': 'x'}", "d = {'citty': 'x'}", "await svc.create(name='a', address=d)"),
    "a tool call that cannot wait": ("async def f(n):\n    return await svc.create(name=n)", "sorted(['a'], key=f)"),
    "a tool call that cannot wait, not imported": ("x = 'a'", "sorted([x], key=lambda n: svc.create(name=n))"),
    "a tool under another name": ("import svc as s", "await s.create(nme='a')"),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
async def test_what_ran_before_is_never_a_reason_to_refuse(checker, name):
    *cells, source = RIGHT[name]
    assert await refused(checker, source, *cells) == []


@pytest.mark.parametrize("name", WRONG)
async def test_what_ran_before_hides_no_mistake(checker, name):
    *cells, source = WRONG[name]
    assert await refused(checker, source, *cells)


async def test_names_are_there_however_many_programs_ran_and_their_text_is_bounded(checker):
    cells = [
        f"x{n} = x{n - 1} + {n} if {n} else 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'" if n else "x0 = 0" for n in range(1_000)
    ]
    made = Transcript(cells=tuple(Cell(source=each) for each in cells))
    source = "x999 + x3 + x0"
    assert len(earlier(made, source).text) < TEXT_CHARACTERS_MAX + 1_000
    assert await refused(checker, source, *cells) == []
    assert await refused(checker, source + "\nx1000", *cells)


async def test_a_program_that_needs_nothing_of_those_before_it_costs_nothing_more(checker):
    cells = [f"x{n} = {n}\nasync def f{n}():\n    return await svc.create(name=str(x{n}))" for n in range(300)]
    made = Transcript(cells=tuple(Cell(source=each) for each in cells))
    assert earlier(made, "await svc.create(name='a')").text.count("\n") <= 3
    began = time.perf_counter()
    for _ in range(10):
        earlier(made, "await svc.create(name='a')")
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    "cell",
    [
        "x = " + "+".join(["1"] * 2_500),
        "x = " + "[" * 80 + "1" + "]" * 80,
        "x = (" * 50_000,
        "x = '\ud800'",
        "x = 1\r\ny = '\u2028'",
        "x = " + " or ".join(["None"] * 500) + "\n" * 20_000,
        "x" * 20_000 + " = 1\nx = 1",
        "\0",
    ],
)
async def test_a_hostile_program_before_it_neither_ends_the_check_nor_takes_its_names(checker, cell):
    assert await refused(checker, "1 + 1\nawait svc.create(name='a')", cell) == []
    assert await refused(checker, "y0 = None\ny0" + "+ y0" * 2_000 + "\nx" if "x = " in cell else "1", cell) is not None
    assert await refused(checker, "await svc.create(nme='a')", cell)
