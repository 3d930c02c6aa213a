"""Edits of TOML: a table is put or taken, and everything else stays as it was, or nothing is edited."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.adapters.toml_tables import append, put_table, table_text, take_table

words = st.text("ab-._ \"\\é#[]'", min_size=1, max_size=5)
scalars = st.one_of(words, st.integers(-9, 9), st.booleans(), st.lists(words, max_size=2))
tables = st.dictionaries(words, scalars, max_size=3)


@given(st.dictionaries(words, tables, max_size=4), st.dictionaries(words, scalars, max_size=2), st.data())
def test_what_is_put_can_be_taken_and_brought_back_as_it_stood(servers, top, data):
    text = "".join(put_table("", ["x"], {key: each}).split("\n", 1)[1] for key, each in top.items())
    for name, table in servers.items():
        text = put_table(text + data.draw(st.sampled_from(["", "# about the next\n", "\n"])), ["mcp", name], table)
    assert tomllib.loads(text).get("mcp", {}) == servers
    for name in servers:
        taken = take_table(text, ["mcp", name])
        assert {**tomllib.loads(text).get("mcp", {}), **tomllib.loads(taken).get("mcp", {})} == servers
        assert name not in tomllib.loads(taken).get("mcp", {})
        assert taken.count("# about") == text.count("# about")
        back = append(taken, table_text(text, ["mcp", name]), ["mcp", name], servers[name])
        assert tomllib.loads(back) == tomllib.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        'mcp = { a = { command = "c" } }\n',
        'mcp.a.command = "c"\n',
        'x = """\n[mcp.a]\n"""\n[mcp]\na.command = "c"\n',
        '[mcp.a]\ncommand = """\n[b]\n"""\n',
    ],
)
def test_a_table_without_a_header_of_its_own_is_refused_with_its_line(text):
    with pytest.raises(ValueError, match=r"line \d+: mcp.a is not written as a table"):
        take_table(text, ["mcp", "a"])


def test_a_table_that_is_there_is_not_put_twice():
    with pytest.raises(ValueError, match=r"line 2: mcp\.a is there already"):
        put_table("\n[mcp.a]\n", ["mcp", "a"], {})


def test_a_mark_of_order_and_ends_of_lines_stay():
    text = '\ufeff[mcp.a]\r\nx = "\u2028[b]"\r\n[mcp.c]\r\ny = 1\r\n'
    assert take_table(text, ["mcp", "c"]) == '\ufeff[mcp.a]\r\nx = "\u2028[b]"\r\n'
    assert take_table(text, ["mcp", "a"]) == "[mcp.c]\r\ny = 1\r\n"
    assert put_table(text, ["mcp", "d"], {"z": 1}) == text + "\r\n[mcp.d]\r\nz = 1\r\n"
