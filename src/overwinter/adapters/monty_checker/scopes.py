"""What the names of a program are bound to, and which of them the type checker cannot follow.

It knows what a name holds at a place from the statements before it. A function is another place: there it takes every value
the name is ever given, and a value that another function gives it (`global`) it does not see at all.
"""

import ast
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

from overwinter.bindings import binds, root

__all__ = ["FUNCTIONS", "Given", "Names", "own", "paired"]

Given: TypeAlias = "tuple[ast.AST, ast.expr | None]"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
SCOPES = (*FUNCTIONS, ast.ClassDef)
DEPTH_MAX = 16


class Names:
    """The names of one text."""

    def __init__(self, tree: ast.Module, tools: Collection[str]) -> None:
        self._tools = tools
        self._elsewhere = _set_by_functions(tree)
        self._loose = set[int]()
        self._given = _given(tree)
        self._answers: dict[str, bool] = {}
        scopes: list[tuple[ast.AST, Mapping[str, int]]] = [(tree, {})]
        while scopes:
            scope, outer = scopes.pop()
            nodes = list(own(scope))
            bound = Counter(name for node in nodes for name in binds(node))
            bound.update(_parameters(scope))
            for node in nodes:
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and self._is_loose(node, bound, outer):
                    self._loose.add(id(node))
            seen = outer if isinstance(scope, ast.ClassDef) else {**outer, **bound}
            scopes += [(node, seen) for node in nodes if isinstance(node, SCOPES)]

    def is_loose(self, node: ast.AST) -> bool:
        """Return whether some name in an expression may hold what the checker does not know of."""
        return any(id(each) in self._loose for each in ast.walk(node))

    def is_tool(self, node: ast.AST) -> bool:
        """Return whether an expression is a module of tools, or what is in one."""
        return root(node) in self._tools

    def is_taken(self, node: ast.AST | None, depth: int = 0) -> bool:
        """Return whether a value comes out of a list, row or dict."""
        if depth > DEPTH_MAX:
            return True
        return node is not None and any(self._is_taken(each, depth) for each in ast.walk(node))

    def _is_taken(self, node: ast.AST, depth: int) -> bool:
        if not isinstance(node, ast.Name):
            return isinstance(node, ast.Subscript)
        if node.id not in self._answers:  # names that are bound to each other many times have no end else
            self._answers[node.id] = True
            self._answers[node.id] = any(self.is_taken(of, depth + 1) for _, of in self._given.get(node.id, []))
        return self._answers[node.id]

    def is_bound_anew(self, node: ast.AST) -> bool:
        """Return whether what an expression begins with is imported, and given another value somewhere: `orders = await orders()`."""
        places = [place for place, _ in self._given.get(root(node) or "", [])]
        return len(places) > 1 and any(isinstance(each, ast.Import | ast.ImportFrom) for each in places)

    def given(self, name: str) -> "Sequence[Given]":
        """Return where a name is bound, in any scope, and to what; None for what is no plain assignment or loop."""
        return self._given.get(name, ())

    def _is_loose(self, node: ast.Name, bound: Mapping[str, int], outer: Mapping[str, int]) -> bool:
        return node.id in self._elsewhere or (node.id not in bound and outer.get(node.id, 0) > 1)


def own(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a scope; of those inside it only themselves, and what is computed outside of them."""
    nodes: list[ast.AST] = list(ast.iter_child_nodes(scope))
    if isinstance(scope, SCOPES):
        nodes = list(scope.body) if isinstance(scope.body, list) else [scope.body]
    while nodes:
        node = nodes.pop()
        yield node
        if isinstance(node, FUNCTIONS):
            nodes += [*node.args.defaults, *(each for each in node.args.kw_defaults if each)]
        elif not isinstance(node, ast.ClassDef):
            nodes += ast.iter_child_nodes(node)
        nodes += getattr(node, "decorator_list", [])


def _parameters(scope: ast.AST) -> list[str]:
    if not isinstance(scope, FUNCTIONS):
        return []
    return [node.arg for node in ast.iter_child_nodes(scope.args) if isinstance(node, ast.arg)]


def _set_by_functions(tree: ast.Module) -> frozenset[str]:
    """Return the names to which functions give values that are not their own. `n += 1` does not change what `n` is."""
    found = set[str]()
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        nodes = list(own(scope))
        added = {id(node.target) for node in nodes if isinstance(node, ast.AugAssign)}
        names = {name for node in nodes if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
        found |= names & {name for node in nodes if id(node) not in added for name in binds(node)}
    return frozenset(found)


def _given(tree: ast.Module) -> "dict[str, list[Given]]":
    """Return where and to what each name is bound, in any scope; None for what is no plain assignment or loop."""
    values: dict[int, ast.expr | None] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                values |= {id(target): each for place in targets for target, each in paired(place, value)}
            case (
                ast.AnnAssign(target=ast.Name() as target, value=value)
                | ast.NamedExpr(target=target, value=value)
                | ast.For(target=ast.Name() as target, iter=value)
                | ast.comprehension(target=ast.Name() as target, iter=value)
            ):
                values[id(target)] = value
            case _:
                pass
    given: dict[str, list[Given]] = {}
    for node in ast.walk(tree):
        for name in binds(node):
            given.setdefault(name, []).append((node, values.get(id(node))))
    return given


def paired(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield what is bound to what: `a, b = None, 1`."""
    match target, value:
        case ast.Tuple(elts=targets), ast.Tuple(elts=values) if len(targets) == len(values):
            for pair in zip(targets, values, strict=True):
                yield from paired(*pair)
        case _:
            yield target, value
