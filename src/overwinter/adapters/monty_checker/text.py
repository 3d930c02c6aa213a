"""The text that the type checker reads instead of the program: without comments, with literals in their places.

A checker infers `dict[str, str]` for `args = {"kind": "lead"}` and then refuses it for a typed parameter. In the checked
copy a name that is bound once to a literal, and never changed, is replaced by it where it is passed to a tool. So the
layout of a program never decides whether it is correct.
"""

import ast
import io
import re
import tokenize
from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["Checked", "Report", "checked_text", "is_certain", "parsed"]

LITERAL_NODES_MAX = 5_000
"""Literals inside literals grow as powers: this bounds the copy."""
DEPTH_MAX = 8
LOOSE = ("dict[", "list[", "Any", "Unknown")
CHANGING = frozenset(
    ["append", "extend", "insert", "update", "setdefault", "pop", "popitem", "clear", "remove", "sort", "reverse"]
)
ASSIGNING = frozenset({"invalid-argument-type", "invalid-assignment", "invalid-return-type"})
# The rules about tools, names and syntax. Any other rule is about style or about plain Python: a warning.
CERTAIN = ASSIGNING | {
    "invalid-syntax", "unresolved-reference", "unresolved-import", "unresolved-attribute", "invalid-key",
    "missing-typed-dict-key", "unknown-argument", "missing-argument", "too-many-positional-arguments",
    "parameter-already-assigned", "not-subscriptable", "not-iterable", "call-non-callable", "unsupported-operator",
    "unused-awaitable", "invalid-await",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One line of the checker."""

    row: int
    column: int
    rule: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
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
    text = head + without_comments(program) + "\n"
    tree, lines = parsed(text), [line.encode() for line in text.split("\n")]
    literals, tools = _Literals(tree), _tool_names(tree, modules)
    edits: list[tuple[ast.expr | ast.keyword, str]] = []
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and call.lineno >= first and _root(call.func) in tools:
            edits += _edits(call, literals)
    for node, new in sorted(edits, key=lambda edit: -edit[0].col_offset):
        if not any(_is_inside(node, other) for other, _ in edits):
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = line[: node.col_offset] + new.encode() + line[node.end_col_offset :]
    touched = frozenset(node.lineno for node, _ in edits)
    return Checked(text=b"\n".join(lines).decode(), first=first, touched=touched)


def without_comments(program: str) -> str:
    """Drop the comments, so that none of them can switch the check off."""
    lines = (
        program.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    )  # not splitlines(), which breaks at U+2028 too
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
            if token.type == tokenize.COMMENT:
                lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
    except (tokenize.TokenError, SyntaxError):
        pass  # the interpreter refused it already, or says more of it
    return "\n".join(lines)


def parsed(text: str) -> ast.Module:
    """Return the tree, or an empty one where this Python refuses what Monty took."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module(body=[], type_ignores=[])


def _edits(call: ast.Call, literals: "_Literals") -> list[tuple[ast.expr | ast.keyword, str]]:
    edits: list[tuple[ast.expr | ast.keyword, str]] = []
    for word in call.keywords:
        value = literals.resolve(word.value)
        if value is None or word.lineno != word.end_lineno:
            continue
        if word.arg is not None and ast.unparse(value) != ast.unparse(word.value):
            edits.append((word.value, ast.unparse(value)))
        elif word.arg is None and isinstance(value, ast.Dict) and all(_word(key) for key in value.keys):
            pairs = zip(value.keys, value.values, strict=True)
            edits.append((word, ", ".join(f"{_word(key)}={ast.unparse(each)}" for key, each in pairs)))
    return edits


def _is_inside(node: ast.expr | ast.keyword, other: ast.expr | ast.keyword) -> bool:
    return other.lineno == node.lineno and other.col_offset < node.col_offset < (other.end_col_offset or 0)


class _Literals:
    """Which names stand for exactly one dict or list literal that nothing changes afterwards."""

    def __init__(self, tree: ast.Module) -> None:
        self._changed: set[str] = set()
        self._nodes_left = LITERAL_NODES_MAX
        self._bound: dict[str, dict[tuple[int, int], ast.expr | None]] = {}
        for node in ast.walk(tree):
            match node:
                case ast.Assign(targets=[ast.Name(id=name) as target], value=value):
                    self._bound.setdefault(name, {})[target.lineno, target.col_offset] = value
                case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                    self._bound.setdefault(name, {}).setdefault((node.lineno, node.col_offset), None)
                case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)) if method in CHANGING:
                    self._changed.add(name)
                case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store()):
                    self._changed.add(name)
                case _:
                    pass

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
        return ast.Dict(keys=[key for key, _ in pairs], values=[value for _, value in pairs])


def is_certain(report: Report, text: str, tree: ast.Module) -> bool:  # noqa: PLR0911 - one rule a line
    """Tell a mistake from a value that the checker knows too loosely to judge."""
    if report.rule not in CERTAIN:
        return False
    if re.search(r"bound method `(list|dict|set)\.", report.message):
        return False  # what a container may take is guessed from its first item
    lines, nodes = text.split("\n"), list(ast.walk(tree))
    place = (report.row, report.column)
    at = {
        (node.lineno, _character(lines[node.lineno - 1], node.col_offset) + 1): node
        for node in nodes
        if isinstance(node, ast.keyword) and node.lineno == report.row
    }
    word = at.get(place)
    if report.rule == "invalid-argument-type" and word is not None and (word.arg is None or _is_constant(word.value)):
        return word.arg is not None
    if report.rule == "invalid-key":  # a key that the program itself stores somewhere is an addition, no mistake
        key = re.search(r'Unknown key "([^"]*)"', report.message)
        return key is not None and key[1] not in _stored_keys(nodes)
    if report.rule == "missing-typed-dict-key":
        return not any(isinstance(node, ast.Dict) and None in node.keys and node.lineno == report.row for node in nodes)
    if report.rule in ASSIGNING:
        return _is_certain_type(report.message)
    # What a list or dict of the program's own holds is inferred from what was put in first: too loose to refuse by.
    is_loose = any(part in report.message for part in LOOSE)
    return not (report.rule in ("not-subscriptable", "unsupported-operator", "not-iterable") and is_loose)


def _is_certain_type(message: str) -> bool:
    """Whether both types of a mismatch are known well enough: exact, or `X | None` where `X` is needed.

    A `str` may be one of the literals; a dict or list of the program's own is inferred from its first items; a typed
    result may be kept in a plain `dict`; a generator expression with an `await` is a list here.
    """
    expected = re.search(r"[Ee]xpected `([^`]*)`|not assignable to (?:return type )?`([^`]*)`", message)
    found = re.search(r"found `([^`]*)`|[Oo]bject of type `([^`]*)`|value of type `([^`]*)`", message)
    if expected is None or found is None:
        return False
    wanted, got = (next(kind for kind in match.groups() if kind) for match in (expected, found))
    if any(part in kind for part in (*LOOSE, "Generator") for kind in (wanted, got)):
        return "list[Literal" in wanted and got.startswith("Literal")
    if " | " in got:
        return got == f"{wanted} | None"
    return not (got in ("str", "LiteralString") and "Literal[" in wanted)


def _stored_keys(nodes: list[ast.AST]) -> set[object]:
    return {
        node.slice.value
        for node in nodes
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and isinstance(node.slice, ast.Constant)
    }


def _is_constant(node: ast.expr) -> bool:
    return all(
        isinstance(each, ast.Dict | ast.List | ast.Constant | ast.UnaryOp | ast.USub | ast.expr_context)
        for each in ast.walk(node)
    )


def _word(key: ast.expr | None) -> str | None:
    match key:
        case ast.Constant(value=str(word)) if word.isidentifier():
            return word
        case _:
            return None


def _root(node: ast.expr) -> str | None:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _tool_names(tree: ast.Module, modules: Collection[str]) -> frozenset[str]:
    """Return the names under which the program reaches the modules or what is in them."""
    names: set[str] = set(modules)
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                names |= {each.asname for each in aliases if each.asname and each.name.split(".")[0] in modules}
            case ast.ImportFrom(module=str(module), names=aliases) if module.split(".")[0] in modules:
                names |= {each.asname or each.name for each in aliases}
            case _:
                pass
    return frozenset(names)


def _character(line: str, offset: int) -> int:
    """Turn a byte offset, as in `ast`, into a character offset, as the checker reports."""
    return len(line.encode()[:offset].decode(errors="ignore"))
