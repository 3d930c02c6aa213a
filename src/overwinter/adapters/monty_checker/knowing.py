"""What a program may know of a value, and its type does not say: that it is there, though it could be None.

A program asks about one key of a row and uses another, asks by `row.get("due")` and uses `row["due"]`, asks at the top and uses in a
function, or sets in a loop what it has bound to None. The checker follows none of that. What a tool calls nullable and a program
uses without any such question is a mistake; whatever it asks about is its own matter.
"""

import ast
from collections.abc import Iterable, Iterator

from overwinter.adapters.monty_checker.origins import ANY, Origin, Origins, key_of
from overwinter.adapters.monty_checker.scopes import FUNCTIONS, Names, own

__all__ = ["Knowing"]

ASKING = frozenset({"bool", "all", "any", "hasattr", "isinstance", "callable", "getattr"})
DEPTH_MAX = 16


class Knowing:
    """What one program asks about, and what of it is None by its own doing.

    Args:
        tree: the program, behind what ran before it.
        names: its names.
        origins: where its values come from.
    """

    def __init__(self, tree: ast.Module, names: Names, origins: Origins) -> None:
        self._names, self._origins = names, origins
        nodes = list(ast.walk(tree))
        tests = [test for node in nodes for test in _tests(node)]
        asked = _parts(tests)
        self._keys = {(origin, key) for each in asked for origin, key in self._taken(each)}
        telling = _parts(each for each in tests if not _is_of_size(each))
        self._rows = {origin for each in telling for origin, _ in self._taken(each)}
        self._looked_for = {(origin, key) for node in nodes for of, key in _lookups(node) for origin in origins.of(of)}
        """Of what a program asks whether a key is there: to take it in a test asks nothing, but raises."""
        names_asked = {each.id for each in asked if isinstance(each, ast.Name)}
        self._handed = {
            origin for each in asked if isinstance(each, ast.Call) for of in each.args for origin in origins.of(of)
        }
        """Of what a function is asked that a test calls: `if is_complete(row)`."""
        self._in_loops = {
            id(each) for node in nodes if isinstance(node, ast.For | ast.While) for each in ast.walk(node)
        }
        self._caught = {
            id(each)
            for node in nodes
            if isinstance(node, ast.Try) and node.handlers
            for part in node.body
            for each in ast.walk(part)
        }
        self._outer = {
            id(each)
            for node in nodes
            if isinstance(node, FUNCTIONS)
            for here in [list(own(node))]
            for bound in [{each.id for each in here if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}]
            for each in here
            if isinstance(each, ast.Name) and each.id in names_asked - bound
        }
        """Names used in a function that asks nothing of them, and asked about elsewhere."""

    def is_asked_for(self, of: ast.expr, key: str) -> bool:
        """Return whether the program asks somewhere whether a key is there, of what a value may be."""
        return any({(origin, key), (origin, ANY)} & self._looked_for for origin in self._origins.of(of))

    def may_be_there(self, node: ast.expr | None, depth: int = 0) -> bool:
        """Return whether the program may know that a value is there, though its type says that it can be None."""
        if node is None or depth > DEPTH_MAX or self._is_asked(node):
            return node is not None
        match node:
            case ast.Name(id=name):
                return id(node) in self._outer or self._is_set_later(name, depth)
            case ast.Subscript(value=value) | ast.Call(func=ast.Attribute(value=value, attr="get")):
                return not self._origins.is_promised(value)
            case ast.Attribute():
                return not self._names.is_tool(node)
            case ast.BinOp(left=one, right=other) | ast.IfExp(body=one, orelse=other):
                return self.may_be_there(one, depth + 1) or self.may_be_there(other, depth + 1)
            case _:
                return False

    def _is_asked(self, node: ast.expr) -> bool:
        match node:
            case ast.Call(func=ast.Attribute(attr="get"), args=[key, *_]) if not isinstance(key, ast.Constant):
                return True  # a key that it has from somewhere is there
            case _:
                taken = list(self._taken(node))
                is_known = any(each in self._keys or each[0] in self._rows for each in taken)
                return is_known or id(node) in self._caught or bool(self._handed & self._origins.of(node))

    def _taken(self, node: ast.AST) -> Iterator[tuple[Origin, str]]:
        """Yield what an expression takes by a key, and from what."""
        match node:
            case (
                ast.Subscript(value=value, slice=key)
                | ast.Call(func=ast.Attribute(value=value, attr="get"), args=[key, *_])
            ):
                for origin in self._origins.of(value):
                    yield origin, key_of(key)
            case _:
                pass

    def _is_set_later(self, name: str, depth: int) -> bool:
        """Return whether a name is None until a loop sets it, or is what the program keeps somewhere."""
        given = self._names.given(name)
        is_none = any(isinstance(value, ast.Constant) and value.value is None for _, value in given)
        if is_none and any(id(place) in self._in_loops for place, _ in given):
            return True
        return any(_container(value) is not None and self.may_be_there(value, depth + 1) for _, value in given)


def _parts(tests: Iterable[ast.expr]) -> list[ast.AST]:
    """Return all that tests are made of, once: they stand in each other."""
    found, left = dict[int, ast.AST](), list[ast.AST](tests)
    while left:
        node = left.pop()
        if id(node) not in found:
            found[id(node)] = node
            left += ast.iter_child_nodes(node)
    return list(found.values())


def _lookups(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Yield in what a program looks for a key, and the key."""
    match node:
        case ast.Call(func=ast.Attribute(value=of, attr="get" | "pop"), args=[key, *_]):
            yield of, key_of(key)
        case ast.Compare(left=key, comparators=[of, *_], ops=[ast.In() | ast.NotIn(), *_]):
            yield of, key_of(key)
        case _:
            pass


def _is_of_size(test: ast.expr) -> bool:
    """Whether a test compares sizes: that says nothing of what else is in a row."""
    return isinstance(test, ast.Compare) and all(isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in test.ops)


def _tests(node: ast.AST) -> Iterator[ast.expr]:
    """Yield what a node asks."""
    match node:
        case (
            ast.If(test=test)
            | ast.While(test=test)
            | ast.Assert(test=test)
            | ast.IfExp(test=test)
            | ast.Match(subject=test)
        ):
            yield test
        case ast.comprehension(ifs=tests) | ast.BoolOp(values=tests):
            yield from tests
        case ast.UnaryOp(op=ast.Not(), operand=test):
            yield test
        case ast.Call(func=ast.Name(id=name), args=args) if name in ASKING:
            yield from args
        case ast.Compare(left=left, comparators=others, ops=[ast.In() | ast.NotIn() | ast.Is() | ast.IsNot(), *_]):
            yield from (left, *others)
            if isinstance(left, ast.Constant):  # `"due" in row`
                yield ast.Subscript(value=others[0], slice=left, ctx=ast.Load())
        case _:
            pass


def _container(node: ast.AST | None) -> ast.expr | None:
    """Return what an expression takes something out of by a key."""
    match node:
        case ast.Subscript(value=value) | ast.Call(func=ast.Attribute(value=value, attr="get")):
            return value
        case _:
            return None
