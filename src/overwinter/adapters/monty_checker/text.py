"""The text that the type checker reads instead of the program: without comments, with literals in their places.

A checker infers `dict[str, str]` for `args = {"kind": "lead"}` and then refuses it for a typed parameter. In the checked
copy a name that is bound once to a literal, and never changed, is replaced by it where it is passed to a tool. So the
layout of a program never decides whether it is correct.
"""

import ast
from collections.abc import Collection, Iterator
from functools import lru_cache

from overwinter.bindings import CHANGING, binds, reached_as, root
from overwinter.frozen import frozen
from overwinter.syntax import comments, parse, unparse

__all__ = ["OPENED", "Checked", "Report", "called_as_seen", "checked_text", "opened", "parsed", "tool_names"]

LITERAL_NODES_MAX = 5_000
"""Literals inside literals grow as powers: this bounds the copy."""
DEPTH_MAX = 8
TREES_KEPT = 4
KEPT_CHARACTERS_MAX = 20_000
"""A check asks for the tree of a text up to three times; one of a large program has megabytes."""


@frozen
class Report:
    """One line of the checker."""

    row: int
    column: int
    rule: str
    message: str


@frozen
class Checked:
    """The text to check and what was done to it."""

    text: str
    first: int
    """Row of the program's first line."""
    touched: frozenset[int]
    """Rows in which a literal was put: columns mean nothing there."""


def checked_text(head: str, program: str, modules: Collection[str]) -> Checked:
    """Return the text to check: `head`, then the program."""
    first = head.count("\n") + 1
    text = head + _without_future(without_comments(program)) + "\n"
    tree, lines = parsed(text), [line.encode() for line in text.split("\n")]
    literals, tools = _Literals(tree), tool_names(tree, modules)
    edits: list[tuple[ast.expr | ast.keyword, str]] = []
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and call.lineno >= first and root(call.func) in tools:
            edits += _edits(call, literals)
    for node, new in sorted(edits, key=lambda edit: -edit[0].col_offset):
        if not any(_is_inside(node, other) for other, _ in edits):
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = line[: node.col_offset] + new.encode() + line[node.end_col_offset :]
    touched = frozenset(node.lineno for node, _ in edits)
    return Checked(text=b"\n".join(lines).decode(), first=first, touched=touched)


def called_as_seen(text: str, names: Collection[str]) -> str:
    """Return a text with `_` for the dot in some full names of functions: no position moves."""
    lines = [line.encode() for line in text.split("\n")]
    for node in ast.walk(parsed(text)):
        match node:
            case ast.Attribute(value=ast.Name(id=module) as value, attr=name) if f"{module}.{name}" in names:
                line, dot = lines[node.lineno - 1], value.end_col_offset or 0
                if node.lineno == node.end_lineno and line[dot : dot + 1 + len(name)] == f".{name}".encode():
                    lines[node.lineno - 1] = line[:dot] + b"_" + line[dot + 1 :]
            case _:
                pass
    return b"\n".join(lines).decode()


OPENED = "whatever_it_may_be"
_OPENED = f"from typing import Any as {OPENED}_type\ndef {OPENED}(*value: object) -> {OPENED}_type: ...\n"


def opened(checked: Checked) -> Checked | None:
    """Return the text with every test opened of which the checker may believe that it knows how it comes out; None: there is none.

    It takes `state["more"] = False` for true until the next assignment that it sees, whatever is called meanwhile, and says nothing
    about what it takes for unreachable; and its platform is not the interpreter's.
    """
    tests = [each for each in _tests(parsed(checked.text)) if each.lineno >= checked.first and _is_believed(each)]
    if not tests:
        return None
    lines = [line.encode() for line in checked.text.split("\n")]
    ends = [(each.end_lineno or each.lineno, each.end_col_offset or 0, b")") for each in tests]
    begins = [(each.lineno, each.col_offset, f"{OPENED}(".encode()) for each in tests]
    for row, at, new in sorted([*ends, *begins], reverse=True):
        lines[row - 1] = lines[row - 1][:at] + new + lines[row - 1][at:]
    first, _, rest = b"\n".join(lines).decode().partition("\n")
    shift = _OPENED.count("\n")
    touched = frozenset(row + shift for row in {*checked.touched, *(row for row, _, _ in [*ends, *begins])})
    return Checked(text=f"{first}\n{_OPENED}{rest}", first=checked.first + shift, touched=touched)


def _tests(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        match node:
            case ast.If(test=test) | ast.While(test=test) | ast.Assert(test=test) | ast.IfExp(test=test):
                yield test
            case ast.Match(subject=subject):
                yield subject
            case _:
                pass


def _is_believed(test: ast.expr) -> bool:
    return any(
        isinstance(each, ast.Attribute | ast.Subscript) or (isinstance(each, ast.Name) and each.id == "TYPE_CHECKING")
        for each in ast.walk(test)
    )


def without_comments(program: str) -> str:
    """Drop the comments, so that none of them can switch the check off."""
    lines = (
        program.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    )  # not splitlines(), which breaks at U+2028 too
    if "#" in program:
        for row, column in reversed(comments("\n".join(lines))):
            lines[row] = lines[row][:column]
    return "\n".join(lines)


def _without_future(program: str) -> str:
    """Blank `from __future__ import ...`, which means nothing to the interpreter, and nothing to us behind the head."""
    if "__future__" not in program:
        return program
    lines = program.split("\n")
    for node in parsed(program).body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__" and node.col_offset == 0:
            last = node.end_lineno or node.lineno
            rest = lines[last - 1].encode()[node.end_col_offset :].decode()
            lines[node.lineno - 1 : last] = ["pass" + rest, *[""] * (last - node.lineno)]
    return "\n".join(lines)


def parsed(text: str) -> ast.Module:
    """Return the tree, which nobody changes, or an empty one where this Python refuses what Monty took."""
    return _kept(text) if len(text) <= KEPT_CHARACTERS_MAX else _parsed(text)


@lru_cache(TREES_KEPT)
def _kept(text: str) -> ast.Module:
    return _parsed(text)


def _parsed(text: str) -> ast.Module:
    try:
        return parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module(body=[], type_ignores=[])


def _edits(call: ast.Call, literals: "_Literals") -> list[tuple[ast.expr | ast.keyword, str]]:
    edits: list[tuple[ast.expr | ast.keyword, str]] = []
    for word in call.keywords:
        value = literals.resolve(word.value)
        if value is None or word.lineno != word.end_lineno:
            continue
        if word.arg is not None and unparse(value) != unparse(word.value):
            edits.append((word.value, unparse(value)))
        elif word.arg is None and isinstance(value, ast.Dict) and all(_word(key) for key in value.keys):
            pairs = zip(value.keys, value.values, strict=True)
            edits.append((word, ", ".join(f"{_word(key)}={unparse(each)}" for key, each in pairs)))
    return edits


def _is_inside(node: ast.expr | ast.keyword, other: ast.expr | ast.keyword) -> bool:
    return other.lineno == node.lineno and other.col_offset < node.col_offset < (other.end_col_offset or 0)


class _Literals:
    """Which names stand for exactly one dict or list literal that nothing changes afterwards."""

    def __init__(self, tree: ast.Module) -> None:
        self._nodes_left = LITERAL_NODES_MAX
        self._bound: dict[str, dict[tuple[int, int], ast.expr | None]] = {}
        for node in ast.walk(tree):
            match node:
                case ast.Assign(targets=[ast.Name(id=name) as target], value=value):
                    self._bound.setdefault(name, {})[target.lineno, target.col_offset] = value
                case ast.Import() | ast.ImportFrom() | ast.ClassDef():
                    pass  # they stand for no literal, and what they name changes none
                case _:
                    place = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
                    for name in binds(node):
                        self._bound.setdefault(name, {}).setdefault(place, None)
        self._changed = _changed(tree, self._bound.keys())

    def resolve(self, node: ast.expr | None, depth: int = 0) -> ast.expr | None:
        """Return the literal that `node` is or stands for, with the literals inside it resolved too."""
        self._nodes_left -= 1
        if self._nodes_left < 0 or depth > DEPTH_MAX:
            return None
        match node:
            case ast.Name(id=name) if name in self._bound and name not in self._changed:
                places = self._bound[name]
                value = next(iter(places.values())) if len(places) == 1 else None
                return self.resolve(value, depth + 1) if isinstance(value, ast.Dict | ast.List) else None
            case ast.Dict(keys=keys, values=values):
                return self._resolve_dict(keys, [self.resolve(each, depth + 1) or each for each in values])
            case ast.List(elts=elements):
                return ast.List(elts=[self.resolve(each, depth + 1) or each for each in elements], ctx=ast.Load())
            case _:
                return None

    @staticmethod
    def _resolve_dict(keys: list[ast.expr | None], values: list[ast.expr]) -> ast.Dict:
        pairs: list[tuple[ast.expr | None, ast.expr]] = []
        for key, value in zip(keys, values, strict=True):
            if key is None and isinstance(value, ast.Dict):
                pairs += zip(value.keys, value.values, strict=True)
            else:
                pairs.append((key, value))
        last = {key.value: at for at, (key, _) in enumerate(pairs) if isinstance(key, ast.Constant)}
        pairs = [
            each for at, each in enumerate(pairs) if not isinstance(each[0], ast.Constant) or last[each[0].value] == at
        ]
        return ast.Dict(keys=[key for key, _ in pairs], values=[value for _, value in pairs])


def _changed(tree: ast.Module, bound: Collection[str]) -> frozenset[str]:
    """Return the names whose value may be another than what they were bound to.

    It is changed by name, under another name, by a function of the program that is given it, or one item at a time in a loop.
    """
    changed, parts = set[str | None](), list[tuple[str, str | None]]()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr=method)) if method in CHANGING:
                changed.add(root(value))
            case ast.Subscript(ctx=ast.Store()):
                changed.add(root(node))
            case ast.AugAssign(target=target):
                changed.add(root(target))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=words) if name in bound:
                changed |= {root(each) for each in (*args, *(word.value for word in words))}
            case (
                ast.Assign(targets=[ast.Name(id=part)], value=each)
                | ast.NamedExpr(target=ast.Name(id=part), value=each)
                | ast.For(target=ast.Name(id=part), iter=each)
            ):
                parts.append((part, root(each)))
            case _:
                pass
    while found := {name for part, name in parts if part in changed} - changed:
        changed |= found
    return frozenset(name for name in changed if name)


def _word(key: ast.expr | None) -> str | None:
    match key:
        case ast.Constant(value=str(word)) if word.isidentifier():
            return word
        case _:
            return None


def tool_names(tree: ast.Module, modules: Collection[str]) -> frozenset[str]:
    """Return the names under which the program reaches the modules or what is in them."""
    return frozenset(modules) | reached_as(tree, modules)
