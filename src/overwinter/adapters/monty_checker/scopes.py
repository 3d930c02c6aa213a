"""What the names of a program are bound to, and which of them the type checker cannot follow.

It knows what a name holds at a place from the statements before it. A function is another place: there it takes every value
the name is ever given, and a value that another function gives it (`global`) it does not see at all.
"""

import ast
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeAlias

__all__ = ["FUNCTIONS", "Given", "Names", "binds", "changed", "own", "root"]

Given: TypeAlias = "tuple[ast.AST, ast.expr | None]"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
SCOPES = (*FUNCTIONS, ast.ClassDef)
PASSING = frozenset({"sorted", "list", "reversed", "max", "min", "next", "iter"})
"""Built-ins that give back what they were given, or a part of it."""
CHANGING = frozenset({
    "add", "append", "clear", "difference_update", "discard", "extend", "insert", "intersection_update", "pop", "popitem", "remove",
    "setdefault", "symmetric_difference_update", "update",
})  # fmt: skip
DEPTH_MAX = 16


class Names:
    """The names of one text."""

    def __init__(self, tree: ast.Module, tools: Collection[str]) -> None:
        self._tools = tools
        self._elsewhere = _set_by_functions(tree)
        self._loose = set[int]()
        self._given = _given(tree)
        self._parameters = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        self._added = {id(node.target) for node in ast.walk(tree) if isinstance(node, ast.AugAssign)}
        self._answers: dict[tuple[str, str, int], bool] = {}
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

    def is_own(self, name: str) -> bool:
        """Return whether a name is bound to new lists, dicts and sets alone."""
        given = [value for place, value in self._given.get(name, []) if id(place) not in self._added]
        return bool(given) and all(map(_is_new, given))

    def is_promised(self, node: ast.expr | None, first: int = 0, depth: int = 0) -> bool:
        """Return whether a value is a part of what a tool answers, so that its type is the tool's own word.

        Args:
            node: the value.
            first: the row from which on names are bound for it; what was bound before may have been changed since.
            depth: how far the way to it was.
        """
        if depth > DEPTH_MAX:
            return False
        match node:
            case ast.Await(value=ast.Call(func=function)):
                return root(function) in self._tools
            case ast.Subscript(value=value):
                return self.is_promised(value, first, depth + 1)
            case ast.Name(id=name):
                given = self._given.get(name, [])
                is_here = all(getattr(place, "lineno", 0) >= first for place, _ in given)
                rest = partial(all, (self.is_promised(each, first, depth + 1) for _, each in given))
                return bool(given) and is_here and self._once(("promised", name, first), rest, meanwhile=False)
            case ast.Call(func=ast.Name(id=name), args=[of, *_]) if name in PASSING:
                return self.is_promised(of, first, depth + 1)
            case _:
                return False

    def is_taken(self, node: ast.AST | None, depth: int = 0) -> bool:
        """Return whether a value comes out of a list, row or dict."""
        if depth > DEPTH_MAX:
            return True
        return node is not None and any(self._is_taken(each, depth) for each in ast.walk(node))

    def _is_taken(self, node: ast.AST, depth: int) -> bool:
        if not isinstance(node, ast.Name):
            return isinstance(node, ast.Subscript)
        rest = partial(any, (self.is_taken(of, depth + 1) for _, of in self._given.get(node.id, [])))
        return self._once(("taken", node.id, 0), rest, meanwhile=True)

    def is_replaced(self, node: ast.AST) -> bool:
        """Return whether a node puts something into a list or row so that the checker does not see what, or into which."""
        return any(
            (name := root(each)) is not None
            and not self.is_own(name)
            and (name in self._parameters or not _is_seen(node))
            for each in changed(node)
        )

    def given(self, name: str) -> "Sequence[Given]":
        """Return where a name is bound, in any scope, and to what; None for what is no plain assignment or loop."""
        return self._given.get(name, ())

    def _once(self, question: tuple[str, str, int], ask: Callable[[], bool], *, meanwhile: bool) -> bool:
        """Answer a question about a name, once: a hundred names that are bound to each other many times have no end else."""
        if question not in self._answers:
            self._answers[question] = meanwhile
            self._answers[question] = ask()
        return self._answers[question]

    def _is_loose(self, node: ast.Name, bound: Mapping[str, int], outer: Mapping[str, int]) -> bool:
        return node.id in self._elsewhere or (node.id not in bound and outer.get(node.id, 0) > 1)


def changed(node: ast.AST) -> Sequence[ast.expr]:
    """Return what a node changes in place, as far as can be seen."""
    match node:
        case ast.Subscript(value=value, ctx=ast.Store() | ast.Del()):
            return (value,)
        case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in CHANGING:
            return (value,)
        case ast.AugAssign(target=target, op=ast.BitOr()):
            return (target,)
        case _:
            return ()


def _is_seen(node: ast.AST) -> bool:
    """Whether the checker compares what a node puts somewhere with what is declared for the place."""
    match node:
        case ast.Subscript(slice=key):
            return isinstance(key, ast.Constant)
        case ast.Call(func=ast.Attribute(attr="update"), args=args):
            return all(isinstance(each, ast.Dict) and None not in each.keys for each in args)
        case _:
            return not isinstance(node, ast.AugAssign)


def _is_new(node: ast.expr | None) -> bool:
    """Whether an expression makes a list, dict or set that nothing else has. Its elements may be anybody's."""
    match node:
        case ast.Dict() | ast.List() | ast.Set() | ast.DictComp() | ast.ListComp() | ast.SetComp():
            return True
        case ast.BinOp(left=ast.List() | ast.Tuple(), op=ast.Mult()):
            return True
        case ast.Call(
            func=ast.Attribute(
                value=ast.Name(id="dict" | "collections"), attr="fromkeys" | "defaultdict" | "Counter" | "deque"
            )
        ):
            return True
        case ast.Call(func=ast.Name(id="dict" | "list" | "set" | "sorted" | "defaultdict" | "Counter" | "deque")):
            return True
        case _:
            return False


def root(node: ast.AST) -> str | None:
    """Return the name that an expression begins with: `a` of `a.b["c"]`."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def binds(node: ast.AST) -> list[str]:
    """Return the names that a node binds in the scope it stands in."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return [(alias.asname or alias.name).partition(".")[0] for alias in aliases]
        case _:
            return []


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
                values |= {id(target): each for place in targets for target, each in _pairs(place, value)}
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
        for name in [node.arg] if isinstance(node, ast.arg) else binds(node):
            given.setdefault(name, []).append((node, values.get(id(node))))
    return given


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield what is bound to what: `a, b = None, 1`."""
    match target, value:
        case ast.Tuple(elts=targets), ast.Tuple(elts=values) if len(targets) == len(values):
            for pair in zip(targets, values, strict=True):
                yield from _pairs(*pair)
        case _:
            yield target, value
