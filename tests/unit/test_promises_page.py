"""docs/promises.md says what tests/claims.py and the tests say."""

import re

from bench.report import NAMES

from promises import PAGE, tabled

TEXT = PAGE.read_text(encoding="utf-8")


def test_each_promise_stands_there_with_the_tests_that_prove_it():
    assert tabled(TEXT) == TEXT, "python tests/promises.py writes the tables anew"


def test_each_bench_that_is_named_can_be_run():
    assert set(re.findall(r"-m bench (\w+)", TEXT)) <= NAMES.keys()


def test_each_section_says_what_is_promised_what_is_not_and_how_to_repeat_it():
    for section in TEXT.split("\n## ")[1:]:
        assert "<!-- ids: " in section, section[:40]
        assert "**Not promised.**" in section, section[:40]
        assert "```sh norun\n.venv/bin/python -m " in section, section[:40]
