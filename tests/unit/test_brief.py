"""What a model is told: bounded, the same bytes for one scope, and true of the interpreter."""

import ast
import re
import textwrap

import pytest
from bench.context import OUTSIDE
from bench.tokens import tokens

from overwinter.brief import CHARACTERS_MAX, brief
from overwinter.subset import SYNTAX_MISSING, lacks

FORMS = {
    "yield": "def f():\n    yield 1",
    "del": "a = 1\ndel a",
    "async with": "async with a:\n    pass",
    "async for": "async for a in b:\n    pass",
    "except*": "try:\n    pass\nexcept* ValueError:\n    pass",
}


@pytest.mark.claim("P4.bounded")
@pytest.mark.parametrize("count", [0, 1, 10, 200, 100_000])
def test_the_text_is_bounded_whatever_there_is(count):
    services = {f"service_with_a_long_name_{number}": 12_345 for number in range(count)}
    text = brief(services)
    assert len(text) <= CHARACTERS_MAX
    assert text == brief(dict(reversed(services.items())))


@pytest.mark.claim("P4.bounded")
def test_with_the_tools_outside_it_has_at_most_560_tokens_of_o200k():
    odd = {f"{'xq_zk_wv_' * 3}{number}": 98_765 + number for number in range(40)}
    long = {f"service_with_a_long_name_{number}": 12_345 for number in range(200)}
    short = {f"s{number}": 1 for number in range(200)}
    *texts, outside = tokens([*map(brief, (odd, long, short)), OUTSIDE])
    assert max(texts) + outside <= 560


@pytest.mark.claim("P4.bounded")
def test_only_the_lines_of_services_differ():
    def rest(text: str) -> str:
        return re.sub(r"Modules \(.*?\n\n", "", text, flags=re.DOTALL)

    assert rest(brief({"a": 1})) == rest(brief({f"s{number}": number for number in range(50)}))


def test_what_it_says_is_missing_is_missing_and_nothing_more():
    assert FORMS.keys() == SYNTAX_MISSING
    for word, program in FORMS.items():
        assert word in brief({})
        assert [lack.what for lack in lacks(program, ())][:1] == [word], program


def test_its_example_is_python():
    line = next(line for line in brief({}).split("\n") if "for p in await" in line)
    ast.parse(f"async def f():\n{textwrap.indent(line.partition(': ')[2], '    ')}")
