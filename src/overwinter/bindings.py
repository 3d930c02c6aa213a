"""What the names of a program stand for, as its tree alone tells: where they are bound, and which reach a module."""

import ast
from collections.abc import Collection

__all__ = ["CHANGING", "binds", "bound", "reached_as", "root"]

CHANGING = frozenset({
    "add", "append", "clear", "difference_update", "discard", "extend", "insert", "intersection_update", "pop", "popitem", "remove",
    "reverse", "setdefault", "sort", "symmetric_difference_update", "update",
})  # fmt: skip
"""Methods that change a list, dict or set in place."""


def binds(node: ast.AST) -> list[str]:
    """Return the names that a node binds in the scope it stands in."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return [(alias.asname or alias.name).partition(".")[0] for alias in aliases]
        case _:
            return []


def bound(tree: ast.AST) -> frozenset[str]:
    """Return every name that a tree binds, in any scope."""
    return frozenset(name for node in ast.walk(tree) for name in binds(node))


def reached_as(tree: ast.AST, modules: Collection[str]) -> frozenset[str]:
    """Return the names that a tree imports modules as, or what is in them."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                names |= {name for each, name in zip(aliases, binds(node), strict=True) if _top(each.name) in modules}
            case ast.ImportFrom(module=str(module), level=0) if _top(module) in modules:
                names.update(binds(node))
            case _:
                pass
    return frozenset(names)


def root(node: ast.AST) -> str | None:
    """Return the name that an expression begins with: `a` of `a.b["c"]`."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _top(module: str) -> str:
    return module.partition(".")[0]
