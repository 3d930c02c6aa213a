"""f-strings are read alike by every Python."""

import ast
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter import fstrings
from overwinter.adapters.monty_checker.text import without_comments
from overwinter.subset import lacks
from overwinter.syntax import parse, unparse

NEWER = {
    'f"{row["id"]}"': [(1, 3), (1, 7)],
    "f'{a['b']} {\", \".join(c)}'": [(1, 3), (1, 5), (1, 12), (1, 22)],
    'f"{f"{f"{x}"}"}"': [(1, 9)],
    "f\"{'\\n'.join(a)}\"": [(1, 3), (1, 13)],
    'f"""{\n a # c "}\n}"""': [(2, 1)],
    'f"{\n 1}"': [(2, 1)],
    "f'{x:{y}}' \"plain\" f'{z!r:>{w}}'": [(1, 3), (1, 6), (1, 22), (1, 28)],
    'f"é{x["ü"]}é{y}"': [(1, 5), (1, 7), (1, 16)],
    'f"{d["a#b"]}" # a comment': [(1, 3), (1, 5)],
    'f"{x:{"a"}}"': [(1, 3), (1, 6)],
    "f'{\"a\" f'{b}'}'": [(1, 10)],
    'if f"{x["y"]}":\n    z = f"{(a, b)}{c}"': [(1, 6), (1, 8), (2, 12), (2, 15), (2, 19)],
}
"""What Python 3.11 cannot read, and where the names and constants in its braces are: as Python 3.12 says."""
OLDER = [
    'f"{{}}{x}{{{y}}}"', 'rf"\\{x}"', 'f"{x = } {y=!s:^5} {z==1} {z!=1} {z<=1} {(w:=3)}"', 'f"\\N{DIGIT ONE}{x}"', 'f"{x:%H:%M}"',
    'f"{ {1: 2}[1] }"', "f'{x if y else {1: 2}}'", "f'{a[1:2]}{b[::2]}{c(d=1)}{e(lambda: 1)}'", "f'{(lambda x: x)(1)}'",
    "f'{x:=^10}'", "f'{x:!<5}'", "f'{a, b}{*c, d}'", "'a' f'{x}' f'b' rf'{y}' \"c\"", "print(f'''{\nx\n}''' + '''{y}''')", "f'{x!r:{w}.{p}}'",
    'if"a":\n    1', "b'' + rb'f\"{'", "# f'{\nf'{x}'", "'''\n# f'{\n''' f'{x}' # f'{y",
]  # fmt: skip


def named(tree):
    """Return where names and constants in braces are; strings that join others have no place of their own."""
    return sorted(
        (node.lineno, node.col_offset)
        for joined in ast.walk(tree)
        if isinstance(joined, ast.JoinedStr)
        for value in joined.values
        if isinstance(value, ast.FormattedValue)
        for node in ast.walk(value.value)
        if isinstance(node, ast.Name | ast.Constant) and not _is_joined(value.value)
    )


def _is_joined(node):
    return any(isinstance(each, ast.JoinedStr) for each in ast.walk(node))


class WithoutText(ast.NodeTransformer):
    def visit_JoinedStr(self, node):
        self.generic_visit(node)
        node.values = [each for each in node.values if isinstance(each, ast.FormattedValue)]
        return node


def shape(tree):
    """Return what a tree is made of, but for the plain text of its f-strings."""
    return ast.dump(WithoutText().visit(tree))


def read_here(source):
    return fstrings.parse(source, ast.parse)


@pytest.mark.claim("P2.layout")
@pytest.mark.parametrize("source", NEWER)
def test_what_newer_pythons_read_is_read_and_everything_in_it_has_its_place(source):
    for read in (parse, read_here):
        assert named(read(source)) == NEWER[source]
    assert lacks(source, []) == []
    compile(unparse(parse(source)), "", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("source", OLDER)
def test_what_every_python_reads_is_read_as_it_reads_it(source):
    assert shape(read_here(source)) == shape(ast.parse(source))


def test_the_standard_library_is_read_as_python_reads_it():
    place = Path(sysconfig.get_paths()["stdlib"])
    texts = [each.read_text(encoding="utf-8") for each in sorted(place.glob("*.py"))]
    texts = [each for each in texts if fstrings.has_any(each)]
    assert len(texts) > 50
    for text in texts:
        assert shape(read_here(text)) == shape(ast.parse(text))


@pytest.mark.parametrize(
    "source", ['f"{', 'f"{x', 'f"{x!}"', 'f"{x!z}"', 'f"{}"', 'f"{ }"', 'f"}"', 'f"{x:{"', "f'{x\n", 'f"{a b}"', 'f"{x:{a b}}"', 'f"\\N{"', 'f"{(}"']
)  # fmt: skip
def test_what_no_python_reads_is_a_syntax_error_of_its_line(source):
    with pytest.raises(SyntaxError) as found:
        parse(f"1\n{source}")
    assert found.value.lineno == 2


def test_a_comment_is_one_outside_of_strings_alone():
    text = "x = f\"{d[\"a#b\"]}#c\" # one\ny = '#' # two\nz = f'''{ # three\n1}''' # é\n"
    assert without_comments(text) == "x = f\"{d[\"a#b\"]}#c\" \ny = '#' \nz = f'''{ \n1}''' \n"


def test_a_source_of_nothing_but_f_strings_and_comments_is_read_in_one_pass():
    assert len(parse("f'{x}'#\n" * 20_000).body) == 20_000


def test_comments_are_found_where_the_tokenizer_of_python_fails():
    assert without_comments("x = f'''{f\"\"\"\n é\"\"\" = }''' # c") == "x = f'''{f\"\"\"\n é\"\"\" = }''' "


def test_strings_in_strings_have_an_end():
    deep = "x"
    for _ in range(500):
        deep = f'f"{{{deep}}}"'
    with pytest.raises((SyntaxError, RecursionError, MemoryError)):
        parse(deep)
    wide = "\n".join(['f"{a["b"]}{c}"'] * 5_000)
    assert sum(isinstance(each, ast.Subscript) for each in ast.walk(parse(wide))) == 5_000


ALPHABET = st.sampled_from(
    [
        "f'",
        'f"',
        "'",
        '"',
        "{",
        "}",
        "{{",
        "}}",
        "x",
        "[0]",
        ":",
        "!r",
        "=",
        "\\",
        "\n",
        " ",
        "#",
        "'''",
        'f"""',
        "r",
        ",",
        "(",
        ")",
        "é",
    ]
)


@given(st.lists(ALPHABET, max_size=20).map("".join))
def test_any_text_is_read_as_python_reads_it_or_refused(source):
    try:
        expected = shape(ast.parse(source))
    except (SyntaxError, ValueError):
        try:
            parse(source)
        except (SyntaxError, ValueError):
            return
        # A newer Python reads it: what it is here cannot be known, but that it can be written again.
        unparse(parse(source))
        return
    assert shape(read_here(source)) == expected
