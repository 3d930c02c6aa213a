"""f-strings as Python 3.12 and the interpreter read them, on a Python that does not: PEP 701.

Python 3.11 knows no quote of an f-string's own kind in its braces, `f"{row["id"]}"`, no backslash and no comment there, and has a
wrong place for whatever stands in them. So that a home checks alike whatever it runs on, a source is read here in layers:

    print(f"{row["id"]} of {f"{total:.2f}"}")       the source
    print(u"_________________________________")     the first layer: f-strings are plain strings of the same size
            ,row["id"]      ,u"___________"         the second: what stands in their braces, where it stands
                                total               the third

Python parses each layer, and the trees are put together; every node has its place in the source.
"""

import ast
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, TypeAlias, TypeVar, cast

from overwinter.frozen import frozen

__all__ = ["comments", "has_any", "parse"]

LAYERS_MAX = 20
_ANY = re.compile(r"(?i)(?<![a-z0-9_])(?:f|fr|rf)[\"']")
_TOP = re.compile(r"#[^\n\r]*|(?:\b([A-Za-z]{1,2}))?(\"\"\"|'''|\"|')")
_INSIDE = re.compile(rf"{_TOP.pattern}|[()\[\]{{}}!:=]")
_BODIES = {quote: re.compile(rf"[\\{{}}\n\r]|{quote}") for quote in ("'", '"', "'''", '"""')}
_PREFIXES = frozenset({"f", "fr", "rf"})
_LINE_END = re.compile(r"\r\n|\r|\n")
_NO_BREAK = re.compile(r"[^\r\n]+")


class _Unreadable(ValueError):
    """This is not how f-strings are written."""


T = TypeVar("T")
_Node = TypeVar("_Node", bound=ast.expr)
Parts: TypeAlias = "tuple[str | Field, ...]"


@frozen(kw_only=False)
class Field:
    """What stands in braces."""

    start: int
    """Of the expression, and its end: places in the source, in characters."""
    end: int
    conversion: str
    """The letter behind `!`; "": there is none."""
    spec: "Parts | None"
    """What stands behind the colon."""


@frozen(kw_only=False)
class FString:
    """An f-string, from its prefix to its last quote."""

    start: int
    end: int
    quote: str
    parts: Parts


class _Layer:
    def __init__(self) -> None:
        self.fields: list[Field] = []
        """What is parsed in this layer; of the first, nothing: that is the source itself."""
        self.strings: list[FString] = []
        """The f-strings in it."""


def has_any(source: str) -> bool:
    """Whether a source may have an f-string."""
    return _ANY.search(source) is not None


def comments(source: str) -> Sequence[tuple[int, int]]:
    """Return row and column of each comment of a source, both from 0; those before the place where it cannot be read."""
    scanner = _Scanner(source)
    with suppress(_Unreadable):
        scanner.source()
    lines = [0, *(found.end() for found in _LINE_END.finditer(source))]
    rows = [(bisect_right(lines, start) - 1, start) for start, _ in sorted(scanner.comments)]
    return [(row, start - lines[row]) for row, start in rows]


def parse(source: str, tree_of: Callable[[str], ast.Module]) -> ast.Module:
    """Return the tree of a source.

    Args:
        source: it may have f-strings.
        tree_of: parses one without.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `tree_of`, which is asked also for what is unreadable here.
    """
    scanner = _Scanner(source)
    try:
        scanner.source()
        return _Source(source, scanner).tree(tree_of)
    except _Unreadable:
        return tree_of(source)


class _Scanner:
    """Finds f-strings and comments, and tells them from what only looks like one, inside strings."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.layers = [_Layer()]
        self.comments: list[tuple[int, int]] = []

    def source(self) -> None:
        """Go over the whole text."""
        at = 0
        while found := _TOP.search(self.text, at):
            at = self._passed(found, 0)

    def _expression(self, at: int, layer: int) -> int:
        """Go over what stands in braces; return where it ends: before `}`, `!`, `:` or `=`."""
        depth = 0
        while found := _INSIDE.search(self.text, at):
            here, at, mark = found.start(), found.end(), found[0]
            if mark in "([{":
                depth += 1
            elif mark in ")]}" and depth:
                depth -= 1
            elif mark not in ")]}!:=":
                at = self._passed(found, layer)
            elif depth:
                continue
            elif not self._is_operator(here):
                return here
            elif self.text.startswith("=", at):  # its second half
                at += 1
        raise _Unreadable

    def _passed(self, found: re.Match[str], layer: int) -> int:
        """Return the end of a comment or string."""
        if found[2]:
            return self._string(found, layer)
        self.comments.append(found.span())
        return found.end()

    def _is_operator(self, at: int) -> bool:
        """Whether `!` or `=` is of a comparison."""
        return self.text[at] in "!=" and (self.text.startswith("=", at + 1) or self.text[at - 1] in "<>")

    def _string(self, found: re.Match[str], layer: int) -> int:
        prefix, quote = (found[1] or "").lower(), found[2]
        if prefix not in _PREFIXES:
            return self._plain_end(found.end(), quote)
        parts, end = self._body(found.end(), quote, layer, is_spec=False, is_raw="r" in prefix)
        self.layers[layer].strings.append(FString(found.start(), end + len(quote), quote, parts))
        return end + len(quote)

    def _plain_end(self, at: int, quote: str) -> int:
        while found := _BODIES[quote].search(self.text, at):
            at = found.end()
            if found[0] == quote:
                return at
            if found[0] == "\\":
                at += 1
            elif found[0] in "\r\n" and len(quote) == 1:
                break
        raise _Unreadable

    def _body(self, at: int, quote: str, layer: int, *, is_spec: bool, is_raw: bool) -> tuple[Parts, int]:
        """Return the parts of an f-string or of what is behind a colon in it, and where it ends: before its quote or brace."""
        parts: list[str | Field] = []
        begin = at
        while found := _BODIES[quote].search(self.text, at):
            here, mark, at = found.start(), found[0], found.end()
            if mark == "\\":
                at = self._escaped(at, is_raw=is_raw)
            elif mark == quote or (mark in "\r\n" and len(quote) == 1):
                if is_spec or mark != quote:
                    break
                return (*parts, self.text[begin:here]), here
            elif mark == "}" and is_spec:
                return (*parts, self.text[begin:here]), here
            elif mark in "{}" and not is_spec and self.text.startswith(mark, at):
                at += 1
            elif mark == "}":
                break
            elif mark == "{":
                field, at = self._field(at, quote, layer, is_raw=is_raw)
                parts += [self.text[begin:here], field]
                begin = at
        raise _Unreadable

    def _escaped(self, at: int, *, is_raw: bool) -> int:
        if not is_raw and self.text.startswith("N{", at):
            return self._after("}", at)
        return at if self.text[at : at + 1] in ("{", "}") else at + 1

    def _after(self, letter: str, at: int) -> int:
        found = self.text.find(letter, at)
        if found < 0:
            raise _Unreadable
        return found + 1

    def _field(self, start: int, quote: str, layer: int, *, is_raw: bool) -> tuple[Field, int]:
        if layer + 1 >= LAYERS_MAX:
            raise _Unreadable
        if layer + 1 == len(self.layers):
            self.layers.append(_Layer())
        end = at = self._expression(start, layer + 1)
        conversion, spec = "", None
        if is_told := self.text[at] == "=":
            at = len(self.text) - len(self.text[at + 1 :].lstrip())
        if self.text.startswith("!", at):
            conversion = self.text[at + 1 : at + 2]
            at += 2
        if self.text.startswith(":", at):
            spec, at = self._body(at + 1, quote, layer, is_spec=True, is_raw=is_raw)
        if (
            not self.text.startswith("}", at)
            or not self.text[start:end].strip()
            or conversion not in ("", "s", "r", "a")
        ):
            raise _Unreadable
        if is_told and not conversion and spec is None:
            conversion = "r"
        field = Field(start, end, conversion, spec)
        self.layers[layer + 1].fields.append(field)
        return field, at + 1


class _Source:
    """A source and its layers, put together."""

    def __init__(self, source: str, scanner: _Scanner) -> None:
        self._source, self._layers, self._comments = source, scanner.layers, sorted(scanner.comments)
        for layer in self._layers:
            layer.strings.sort(key=lambda each: each.start)
        self._lines = [0, *(found.end() for found in _LINE_END.finditer(source))]
        self._made: dict[int, ast.expr] = {}
        """The expressions in braces, by where they begin."""

    def tree(self, tree_of: Callable[[str], ast.Module]) -> ast.Module:
        """Return the tree of the source: the innermost layer is parsed first."""
        for outer, layer in reversed(list(pairwise(self._layers))):
            fields = sorted(layer.fields, key=lambda each: each.start)
            begin = min(each.start for each in outer.strings)
            self._take(tree_of(self._shown(begin, fields, layer.strings)), fields, layer.strings)
        first = self._layers[0]
        return self._filled(tree_of(self._replaced(0, len(self._source), first.strings)), first.strings)

    def _shown(self, begin: int, fields: Sequence[Field], strings: Sequence[FString]) -> str:
        """Return the source with nothing left of it but the expressions of fields, each behind a comma in the place of its brace.

        They are a tuple that begins in the first column, with a 0 where the first f-string has its prefix and quote.
        """
        row = self._lines[bisect_right(self._lines, begin) - 1]
        opening = f"({_blank(self._source[row:begin])[1:]}0 " if row < begin else "(0"
        pieces = [_blank(self._source[:row]), opening]
        at = begin + 2
        for each in fields:
            pieces += (_blank(self._source[at : each.start - 1]), ",", self._replaced(each.start, each.end, strings))
            at = each.end
        return "".join((*pieces, "\n)"))

    def _replaced(self, start: int, end: int, strings: Sequence[FString]) -> str:
        """Return a part of the source with plain strings for f-strings, and without comments."""
        inside = [(each.start, each.end, each.quote) for each in _between(strings, start, end, lambda each: each.start)]
        inside += [(*each, "") for each in _between(self._comments, start, end, lambda each: each[0])]
        pieces: list[str] = []
        at = start
        for begin, finish, quote in sorted(inside):
            if begin < at:  # a comment in braces
                continue
            text = self._source[begin:finish]
            pieces += (self._source[at:begin], _plain(text, quote) if quote else _blank(text))
            at = finish
        return "".join((*pieces, self._source[at:end]))

    def _take(self, tree: ast.Module, fields: Sequence[Field], strings: Sequence[FString]) -> None:
        match self._filled(tree, strings).body:
            case [ast.Expr(value=ast.Tuple(elts=[_, *values]))]:
                pass
            case _:
                raise _Unreadable
        starts = [self._place(each.start) for each in fields]
        found: list[list[ast.expr]] = [[] for _ in fields]
        for value in values:
            found[bisect_right(starts, (value.lineno, value.col_offset)) - 1].append(value)
        for field, row in zip(fields, found, strict=True):
            if not row:
                raise _Unreadable
            several = ast.Tuple(elts=row, ctx=ast.Load())
            self._made[field.start] = (
                row[0] if len(row) == 1 and not isinstance(row[0], ast.Starred) else _at(several, row[0])
            )

    def _filled(self, tree: ast.Module, strings: Sequence[FString]) -> ast.Module:
        """Put f-strings into a tree, where plain strings stand for them: several into one, if they stand behind one another."""
        strings = sorted(strings, key=lambda each: each.start)
        starts = [self._place(each.start) for each in strings]
        nodes: list[ast.AST] = [tree] if strings else []
        while nodes:
            node = nodes.pop()
            for name in node._fields:
                value = getattr(node, name)
                several = cast("list[Any]", value) if isinstance(value, list) else [value]
                for at, each in enumerate(several):
                    if not isinstance(each, ast.AST):
                        continue
                    first, last = _span(each, starts)
                    if first == last:
                        continue
                    if not isinstance(each, ast.Constant):
                        nodes.append(each)
                    elif several is value:
                        several[at] = self._joined(strings[first:last], each)
                    else:
                        setattr(node, name, self._joined(strings[first:last], each))
        return tree

    def _joined(self, strings: Sequence[FString], place: ast.expr) -> ast.JoinedStr:
        return _at(
            ast.JoinedStr(values=[value for each in strings for value in self._values(each.parts, place)]), place
        )

    def _values(self, parts: Parts, place: ast.expr) -> Iterator[ast.expr]:
        for part in parts:
            if isinstance(part, str):
                if part:
                    yield _at(ast.Constant(value=part.replace("{{", "{").replace("}}", "}")), place)
                continue
            value = self._made[part.start]
            spec = None
            if part.spec is not None:
                spec = _at(ast.JoinedStr(values=list(self._values(part.spec, value))), value)
            conversion = ord(part.conversion) if part.conversion else -1
            yield _at(ast.FormattedValue(value=value, conversion=conversion, format_spec=spec), value)

    def _place(self, index: int) -> tuple[int, int]:
        """Return row and column of a character as `ast` counts them: from 1, and from 0 in bytes."""
        row = bisect_right(self._lines, index)
        return row, len(self._source[self._lines[row - 1] : index].encode("utf-8", "surrogatepass"))


def _between(places: Sequence[T], start: int, end: int, of: Callable[[T], int]) -> Sequence[T]:
    """Return those of some places, in their order, that begin in a part of the source."""
    first = bisect_left(places, start, key=of)
    return places[first : bisect_left(places, end, first, key=of)]


def _span(node: ast.AST, starts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return which of some places, in their order, are inside a node; all may be in one that has no place itself."""
    match node:
        case ast.expr() | ast.stmt() | ast.ExceptHandler() | ast.arg() | ast.keyword() | ast.pattern():
            first = bisect_left(starts, (node.lineno, node.col_offset))
            return first, bisect_left(starts, (node.end_lineno or 0, node.end_col_offset or 0), first)
        case _:
            return 0, len(starts)


def _at(node: _Node, place: ast.expr) -> _Node:
    node.lineno, node.col_offset, node.end_lineno, node.end_col_offset = (
        place.lineno, place.col_offset, place.end_lineno, place.end_col_offset,
    )  # fmt: skip
    return node


def _blank(text: str) -> str:
    """Return spaces for a text, as many as it has bytes; line ends stay."""
    return _NO_BREAK.sub(lambda found: " " * len(found[0].encode("utf-8", "surrogatepass")), text)


def _plain(text: str, quote: str) -> str:
    """Return a string of as many bytes and lines as an f-string. Between the same quotes: what stands beside it may be a string."""
    first, *rest = _LINE_END.split(text)
    size = len(text.encode("utf-8", "surrogatepass"))
    if not rest:
        return f"u{quote}{'_' * (size - 1 - 2 * len(quote))}{quote}"
    quotes = quote[0] * 3
    prefix = "u" if len(first) > len(quotes) else ""
    if len(first) < len(quotes) or len(rest[-1]) < len(quotes):
        raise _Unreadable
    return f"{prefix}{quotes}{_blank(text[len(prefix + quotes) : -len(quotes)])}{quotes}"
