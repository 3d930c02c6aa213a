"""Python source as a tree, and back."""

import ast
import copy
import io
import sys
import tokenize
from collections.abc import Sequence

from overwinter import fstrings

__all__ = ["comments", "parse", "unparse"]

ATTEMPTS_MAX = 100
"""Threads that parse at the same time meet again and again, but not so often."""
KNOWS_F_STRINGS = sys.version_info >= (3, 12)
"""Whether this Python reads f-strings as the interpreter does."""


def parse(source: str) -> ast.Module:
    """Return the tree of a source, the same whatever Python this is.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`.
    """
    return _tree(source) if KNOWS_F_STRINGS or not fstrings.has_any(source) else fstrings.parse(source, _tree)


def unparse(node: ast.AST) -> str:
    """Return a node as source. An f-string that this Python cannot write is another one: it is text all the same."""
    try:
        return ast.unparse(node)
    except ValueError:
        return ast.unparse(_Plain().visit(copy.deepcopy(node)))


def comments(source: str) -> Sequence[tuple[int, int]]:
    """Return row and column of each comment, both from 0; those before the place where the source cannot be read."""
    if not KNOWS_F_STRINGS and fstrings.has_any(source):
        return fstrings.comments(source)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found: list[tuple[int, int]] = []
    try:
        found.extend((each.start[0] - 1, each.start[1]) for each in tokens if each.type == tokenize.COMMENT)
    except (tokenize.TokenError, SyntaxError):
        pass
    except SystemError:  # Python 3.12 and 3.13, of some f-strings with `=` in several lines
        return fstrings.comments(source)
    return found


def _tree(source: str) -> ast.Module:
    """Parse a source.

    Two threads that parse at once disturb each other's count of depth (python/cpython#106905, up to 3.12): one of them then fails with a
    `SystemError` that says nothing of its source. So it tries again.
    """
    for _ in range(ATTEMPTS_MAX - 1):
        try:
            return ast.parse(source)
        except SystemError:
            continue
    return ast.parse(source)


class _Plain(ast.NodeTransformer):
    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        """Return an f-string that every Python can write."""
        plain = ast.JoinedStr(values=[ast.FormattedValue(value=ast.Constant(value=0), conversion=-1)])
        return ast.copy_location(plain, node)
