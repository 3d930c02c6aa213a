"""The check against programs with a verdict: 130 that are right, 50 that are wrong, and every built-in there is."""

import ast
import json
import re
from pathlib import Path

import pydantic_monty as monty
import pytest

from jails import jail_here
from overwinter.adapters.monty.launcher import open_launcher
from overwinter.adapters.monty_checker import open_checker
from overwinter.subset import lacks
from overwinter.subset.names import MODULES

pytestmark = pytest.mark.anyio
CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "check_cases.json").read_text())


async def verdicts(programs, stub):
    with open_launcher(jail_here()) as launcher:
        async with open_checker(launcher=launcher, jail=jail_here()) as checker:
            return [
                [finding for finding in await checker.check(program, {"svc": stub}, {}) if finding.is_certain]
                for program in programs
            ]


def awaited(program: str) -> str | None:
    """The cases call a plain function; ours are awaited. None: its calls stand where nothing can be awaited."""
    text = re.sub(r"(?<!await )\bsvc\.create\(", "await svc.create(", program)
    text = re.sub(r"await svc\.create\(((?:[^()]|\([^()]*\))*)\)(?=[\[.])", r"(await svc.create(\1))", text)
    try:
        compile(text, "program", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        return None
    return text


@pytest.mark.claim("P2.layout")
async def test_correct_programs_are_accepted_and_wrong_ones_refused():
    stub = re.sub(r"^def ", "async def ", CASES["stub"], flags=re.MULTILINE)
    cases = [(case["expect"], text) for case in CASES["programs"] if (text := awaited(case["program"])) is not None]
    found = await verdicts([text for _, text in cases], stub)
    pairs = list(zip(cases, found, strict=True))
    assert len(pairs) > 120
    assert [(text, findings) for (expect, text), findings in pairs if expect == "accept" and findings] == []
    assert [text for (expect, text), findings in pairs if expect == "refuse" and not findings] == []


async def test_no_built_in_that_exists_is_ever_a_reason_to_refuse():
    with monty.Monty() as pool, pool.checkout() as session:
        names = [
            name for name in dir(__builtins__ if not isinstance(__builtins__, dict) else object) if name.isidentifier()
        ]
        import builtins  # noqa: PLC0415 - the names are those of this Python

        names = [name for name in dir(builtins) if not name.startswith("_")]
        there = []
        for name in names:
            try:
                session.feed_run(f"{name}\nNone")
            except monty.MontyError:
                continue
            there.append(name)
    assert len(there) > 80
    ((*refused,),) = await verdicts(["\n".join(f"x{i} = {name}" for i, name in enumerate(there))], "")
    assert refused == []


@pytest.mark.claim("P3.subset")
@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("def f():\n    yield 1\nf()", "def f():\n    return [1]\nf()"),
        ("d = {1: 2}\ndel d[1]", "d = {1: 2}\nd.pop(1, None)"),
        ("class A(dict):\n    pass\nA()", "class A:\n    pass\nA()\n1"),
        ("import heapq\nheapq.heappush([], 1)", "import bisect\nbisect.bisect([1], 1)"),
        ("raise ValueError(1)", "try:\n    raise ValueError('1')\nexcept ValueError:\n    pass"),
        ("next(map(str, [1]))", "next(iter(map(str, [1])))"),
        ("d = {1: 2}\nmax(d, key=d.get)", "d = {1: 2}\nmax(d, key=lambda k: d.get(k))"),
        ("(5).bit_length()", "len(bin(5)) - 2"),
        ("import json\njson.dumps({1}, default=list)", "import json\njson.dumps(list({1}))"),
        ("bytearray(3)", "bytes(3)"),
    ],
)
def test_what_the_interpreter_lacks_is_named_and_its_replacement_runs(wrong, right):
    assert lacks(wrong, ())
    assert lacks(right, ()) == []
    with monty.Monty() as pool:
        with pool.checkout() as session, pytest.raises(monty.MontyError):
            session.feed_run(wrong)
        with pool.checkout() as session:
            session.feed_run(right)


@pytest.mark.parametrize(
    "text", ["(" * 50_000, "x = " + "-" * 100_000 + "1", "\0", "x" * 300_000, "é" * 10 + " = (", "\ud800"]
)
async def test_hostile_text_is_refused_in_bounded_time(text):
    ((*findings,),) = await verdicts([text], "")
    assert findings


def test_the_names_of_standard_modules_are_those_of_the_interpreter():
    with monty.Monty() as pool, pool.checkout() as session:
        for module in sorted(MODULES.keys() - {"__future__"}):
            session.feed_run(f"import {module}")
            some = sorted(MODULES[module])[:3]
            assert session.feed_run(f"[hasattr({module}, name) for name in {some!r}]") == [True] * len(some), module


@pytest.mark.claim("P2.layout")
async def test_what_a_session_kept_of_earlier_programs_never_refuses_a_later_one():
    programs = [f"text = '{number} {'x' * 200_000}'\nlen(text)" for number in range(700)]
    assert not any(await verdicts(programs, "async def create() -> None: ...\n"))
