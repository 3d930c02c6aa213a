"""Sources are read as trees by many threads at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from overwinter.syntax import parse

DEEP = "x = " + "(" * 60 + "1" + ")" * 60 + "\n"


def test_threads_that_parse_at_once_do_not_fail_each_other():
    source = DEEP + "def f(a, b=[c for c in range(3)]):\n    return {'k': [a, b]}\n" * 200
    with ThreadPoolExecutor(8) as threads:
        trees = list(threads.map(parse, [source] * 64))
    assert {len(tree.body) for tree in trees} == {201}


def test_what_is_wrong_with_a_source_is_raised_as_it_is():
    with pytest.raises(SyntaxError):
        parse("x = (")
