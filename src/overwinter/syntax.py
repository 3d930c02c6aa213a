"""Python source as a tree."""

import ast

__all__ = ["parse"]

ATTEMPTS_MAX = 100
"""Threads that parse at the same time meet again and again, but not so often."""


def parse(source: str) -> ast.Module:
    """Return the tree of a source.

    Two threads that parse at once disturb each other's count of depth (python/cpython#106905, up to 3.12): one of them then fails with a
    `SystemError` that says nothing of its source. So it tries again.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`.
    """
    for _ in range(ATTEMPTS_MAX - 1):
        try:
            return ast.parse(source)
        except SystemError:
            continue
    return ast.parse(source)
