"""`tools.settle` and `tools.error`: rewritten where they are named, read back what the host writes."""

import ast
import asyncio
from collections.abc import Iterator
from typing import Any

import pydantic_monty as monty
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.adapters.monty.launcher import monty_binary
from overwinter.adapters.monty.prelude import ERROR, SETTLE, rewrite
from overwinter.events import Raised, describe

CODES = st.text(st.characters(codec="ascii", exclude_categories=("Cc", "Zs")), min_size=1, max_size=12)
ERRORS = st.builds(
    Raised,
    kind=st.just("OSError"),
    message=st.text(st.characters(exclude_categories=("Cs",)), max_size=200),
    status=st.none() | st.integers(100, 599),
    code=st.none() | CODES.filter(lambda code: code != "-"),
    is_retryable=st.booleans(),
    retry_after_s=st.none() | st.integers(0, 100_000).map(float),
)


@pytest.fixture(scope="module")
def session() -> Iterator[monty.MontySession]:
    with monty.Monty(binary_path=monty_binary(), max_processes=1) as pool, pool.checkout() as opened:
        opened.feed_run(ERROR)
        yield opened


def parsed_here(text: str) -> dict[str, object]:
    namespace: dict[str, Any] = {}
    exec(ERROR, namespace)
    return asyncio.run(namespace["tools_error"](OSError(text)))


def expected(raised: Raised, index: int) -> dict[str, object]:
    return {
        "type": "OSError",
        "status": raised.status,
        "code": raised.code,
        "message": raised.message,
        "retryable": raised.is_retryable,
        "retry_after": raised.retry_after_s,
        "call": index,
    }


@given(ERRORS, st.integers(0, 10_000))
@pytest.mark.claim("D8.errors.read_back")
def test_the_program_reads_back_what_the_host_wrote(session: monty.MontySession, raised: Raised, index: int) -> None:
    text = describe(raised, index)
    assert parsed_here(text) == expected(raised, index)
    assert session.feed_run("await tools_error(OSError(text))", inputs={"text": text}) == expected(raised, index)


def test_a_foreign_error_keeps_its_text() -> None:
    assert parsed_here("division by zero") == {
        "type": "OSError", "status": None, "code": None, "message": "division by zero", "retryable": False,
        "retry_after": None, "call": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "rewritten"),
    [
        ("import tools\nawait tools.settle(a())", "import tools\nawait tools_settle(a())"),
        ("await tools.error(e)", "await tools_error(e)"),
        ("import tools as t\nawait t.settle()", "import tools as t\nawait t_settle()"),
        ("import tools\nf = tools.settle", "import tools\nf = tools_settle"),
        ("async def f():\n    import tools\n    return await tools.settle()", None),
        ("import tools\né = '日本'; x = tools.settle", "import tools\né = '日本'; x = tools_settle"),
        ("import tools\r\nx = 1\rawait tools.settle()\n", "import tools\r\nx = 1\rawait tools_settle()\n"),
        ("import tools\nx = (tools\n  .settle)\ny = 1", "import tools\nx = (tools_settle)\n\ny = 1"),
        ("from tools import settle", "settle = tools_settle   "),
        ("from tools import settle as s; s()", "s = tools_settle             ; s()"),
        ("from tools import (\n  ask,\n  error,\n)\nx = 1", "from tools import ask; error = tools_error\n\n\n\nx = 1"),
        ("import tools\n[tools.settle for _ in y]", "import tools\n[tools_settle for _ in y]"),
    ],
)
def test_names_of_the_sandbox_are_rewritten_in_place(source: str, rewritten: str | None) -> None:
    after = rewrite(source)
    assert after.source == (rewritten if rewritten is not None else source.replace("tools.settle", "tools_settle"))
    assert "async def tools_" in after.prelude


@pytest.mark.parametrize(
    "source",
    [
        "import tools\nawait tools.ask('a', 'b')",
        "def f(tools):\n    return tools.settle",
        "import tools\nf = lambda tools: tools.settle",
        "import tools\n[tools.settle for tools in y]",
        "tools = 5\ntools.settle",
        "import toolkit as tools\ntools.settle",
        "def f():\n    for tools in x:\n        tools.settle",
        "text = 'tools.settle'  # tools.settle",
        "import other\nother.settle()",
        "from .tools import settle",
        "def (",
        "x = '\ud800'",
        "(" * 500,
    ],
)
def test_what_is_not_of_the_sandbox_is_left_alone(source: str) -> None:
    after = rewrite(source)
    assert (after.source, after.prelude) == (source, "")


def test_an_alias_of_one_function_does_not_reach_another() -> None:
    source = "def f():\n    import tools as t\n    return t.settle\ndef g(t):\n    return t.settle"
    assert rewrite(source).source == source.replace("t.settle", "t_settle", 1)


@given(
    st.lists(
        st.sampled_from(
            ["import tools", "x = tools.settle", "é = 1", "def f(tools): return tools.error", "t = (tools\n .error)"]
        )
    )
)
def test_rewriting_moves_no_line(lines: list[str]) -> None:
    source = "\n".join(lines)
    before, after = ast.parse(source), ast.parse(rewrite(source).source)
    assert [node.lineno for node in before.body] == [node.lineno for node in after.body]
    assert rewrite(source).source.count("\n") == source.count("\n")


def test_unbound_names_are_those_that_the_program_nowhere_binds() -> None:
    assert rewrite("import a\nb = a.f(c)\nwith d() as e:\n    e.g").unbound == {"c", "d"}


def test_the_definitions_are_python() -> None:
    ast.parse(SETTLE)
    ast.parse(ERROR)
