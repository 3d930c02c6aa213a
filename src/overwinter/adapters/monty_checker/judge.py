"""Which reports of the type checker refuse a program: only those that are certainly right.

The checker guesses what a program's own values are, and knows a smaller library than there is. What it says of those is a
warning; the schema check at the call has the last word.
"""

import ast
import builtins
import re

from overwinter.adapters.monty_checker.text import Checked, Report
from overwinter.subset.names import BUILTINS_MISSING, MODULES

__all__ = ["Judge"]

LOOSE = ("dict[", "list[", "Any", "Unknown")
ASSIGNING = frozenset({"invalid-argument-type", "invalid-assignment", "invalid-return-type"})
# The rules about tools, names and syntax. Any other rule is about style or about plain Python: a warning.
CERTAIN = ASSIGNING | {
    "invalid-syntax", "unresolved-reference", "unresolved-import", "unresolved-attribute", "invalid-key",
    "missing-typed-dict-key", "unknown-argument", "missing-argument", "too-many-positional-arguments",
    "parameter-already-assigned", "not-subscriptable", "not-iterable", "call-non-callable", "unsupported-operator",
    "unused-awaitable", "invalid-await",
}  # fmt: skip


class Judge:
    """Tells a mistake from a value that the checker knows too loosely to judge."""

    def __init__(self, checked: Checked, tree: ast.Module) -> None:
        self._lines = checked.text.split("\n")
        self._nodes = list(ast.walk(tree))

    def is_certain(self, report: Report) -> bool:  # noqa: PLR0911 - one rule a line
        """Return whether a report refuses the program."""
        if report.rule not in CERTAIN or _is_there(report):
            return False
        if re.search(r"bound method `(list|dict|set)\.", report.message):
            return False  # what a container may take is guessed from its first item
        word = self._keyword(report)
        if report.rule == "invalid-argument-type" and word and (word.arg is None or _is_constant(word.value)):
            return word.arg is not None
        if report.rule == "invalid-key":  # a key that the program itself stores somewhere is an addition, no mistake
            key = re.search(r'Unknown key "([^"]*)"', report.message)
            return key is not None and key[1] not in self._stored_keys()
        if report.rule == "missing-typed-dict-key":
            return not any(
                isinstance(node, ast.Dict) and None in node.keys and node.lineno == report.row for node in self._nodes
            )
        if report.rule in ASSIGNING:
            return _is_certain_type(report.message)
        # What a list or dict of the program's own holds is inferred from what was put in first: too loose to refuse by.
        is_loose = any(part in report.message for part in LOOSE)
        return not (report.rule in ("not-subscriptable", "unsupported-operator", "not-iterable") and is_loose)

    def _keyword(self, report: Report) -> ast.keyword | None:
        for node in self._nodes:
            if isinstance(node, ast.keyword) and node.lineno == report.row:
                column = _character(self._lines[node.lineno - 1], node.col_offset) + 1
                if column == report.column:
                    return node
        return None

    def _stored_keys(self) -> set[object]:
        return {
            node.slice.value
            for node in self._nodes
            if isinstance(node, ast.Subscript)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.slice, ast.Constant)
        }


def _is_there(report: Report) -> bool:
    """Whether the name that the checker misses exists at run time: its library is smaller than the interpreter's."""
    match report.rule:
        case "unresolved-reference":
            found = re.search(r"Name `(\w+)`", report.message)
            return found is not None and hasattr(builtins, found[1]) and found[1] not in BUILTINS_MISSING
        case "unresolved-attribute" | "unresolved-import":
            found = re.search(r"Module `(\w+)` has no member `(\w+)`", report.message)
            if found is not None:
                return found[2] in MODULES.get(found[1], ())
            found = re.search(r"Cannot resolve imported module `(\w+)`", report.message)
            return found is not None and found[1] in MODULES and found[1] != "__future__"
        case _:
            return False


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


def _is_constant(node: ast.expr) -> bool:
    return all(
        isinstance(each, ast.Dict | ast.List | ast.Constant | ast.UnaryOp | ast.USub | ast.expr_context)
        for each in ast.walk(node)
    )


def _character(line: str, offset: int) -> int:
    """Turn a byte offset, as in `ast`, into a character offset, as the checker reports."""
    return len(line.encode()[:offset].decode(errors="ignore"))
