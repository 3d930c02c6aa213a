"""Calls of tools from code that cannot wait, and calls whose answer nobody waits for.

A call suspends the program, and the interpreter can do that only in ordinary frames. In a function that built-in code
drives (`sorted(key=...)`, `map`, `__next__` under a `for`) it fails when it gets there, perhaps after days; and a call
that is never awaited is never performed.
"""

import ast
from collections.abc import Collection, Iterator, Sequence

from overwinter.bindings import binds, reached_as, root
from overwinter.syntax import unparse

__all__ = ["unwaited"]

DRIVING = frozenset({"map", "filter", "sorted", "max", "min", "sort", "defaultdict", "field"})
WAITING_METHODS = frozenset({"__init__", "__call__", "__enter__", "__exit__"})
TAKING = frozenset({
    "abs", "all", "any", "bool", "dict", "enumerate", "float", "int", "iter", "len", "list", "max", "min", "print", "repr", "reversed", "round",
    "set", "sorted", "str", "sum", "tuple", "zip",
})  # fmt: skip
"""Built-ins that can do nothing with a call that is not awaited, or print that it is one."""
LOOP = "make the calls in a for loop, or side by side with `await asyncio.gather(*[... for ... in ...])`"


def unwaited(
    tree: ast.Module, modules: Collection[str], before: Sequence[ast.stmt] = (), unbound: Collection[str] = ()
) -> Iterator[tuple[int, int, str, str]]:
    """Yield line, column, what and advice for each call that cannot wait or that nobody awaits.

    Args:
        tree: the program.
        modules: names of the service modules, with `tools`.
        before: statements that ran before it: their functions may call tools too.
        unbound: those of the modules whose names it nowhere binds: it need not import them.
    """
    whole = ast.Module(body=[*before, *tree.body], type_ignores=[])
    tools = reached_as(whole, frozenset(modules)) | frozenset(unbound)
    yield from _driven(tree, tools, whole)
    yield from _forgotten(tree, tools | _own(whole), reached_as(whole, frozenset({"asyncio"})))


def _driven(tree: ast.Module, tools: frozenset[str], whole: ast.Module) -> Iterator[tuple[int, int, str, str]]:
    waiting: set[str | None] = {*tools}
    coroutines = _coroutines(whole) - _bound(whole)
    functions = [node for node in ast.walk(whole) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    while new := {each.name for each in functions if _calls(each, waiting)} - waiting:
        waiting |= new
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=place) | ast.Attribute(attr=place)) if place in DRIVING:
                given = [*node.args, *(word.value for word in node.keywords)]
                bodies = [each.body for each in given if isinstance(each, ast.Lambda)]
                names = {root(each) for each in given if isinstance(each, ast.Name | ast.Attribute)}
                if place == "map":  # a coroutine that it makes may be awaited later: `gather(*map(one, ids))`
                    names -= coroutines
                if names & waiting or any(_calls(body, waiting) for body in bodies):
                    yield node.lineno, node.col_offset + 1, f"a call of a tool inside `{place}` cannot wait", LOOP
            case ast.ClassDef(body=body):
                for part in body:
                    if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and _is_driven(part, waiting):
                        what = f"a call of a tool inside `{node.name}.{part.name}` cannot wait"
                        yield part.lineno, part.col_offset + 1, what, "give the method a plain name and call it"
            case _:
                pass


def _is_driven(method: ast.FunctionDef | ast.AsyncFunctionDef, waiting: Collection[str | None]) -> bool:
    return method.name.startswith("__") and method.name not in WAITING_METHODS and _calls(method, waiting)


def _forgotten(
    tree: ast.Module, made: Collection[str], asyncio: Collection[str]
) -> Iterator[tuple[int, int, str, str]]:
    """Yield calls used as values or statements without an `await`.

    A call that is stored may be awaited later: only one whose value is certainly used at once, or dropped, is a mistake.
    """
    nodes = list(ast.walk(tree))
    other = _bound(tree)
    bound = other | _coroutines(tree)
    at_once = {id(each): each for node in nodes for each in _used_at_once(node) if not _is_call_of(node, bound)}
    for node in nodes:
        if isinstance(node, ast.Await):
            at_once.pop(id(node.value), None)
    kept = {
        node.id
        for node in nodes
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in at_once
    }
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name not in kept:
                at_once[id(value)] = value
            case _:
                pass
    for call in at_once.values():
        if isinstance(call, ast.Call) and (_is_made(call.func, made, other) or _is_of_asyncio(call.func, asyncio)):
            what = f"`{_shown(call.func)}(...)` is not awaited"
            advice = "write `await` before it: a call that is not awaited is not made"
            yield call.lineno, call.col_offset + 1, what, advice


def _is_made(function: ast.expr, made: Collection[str], other: Collection[str]) -> bool:
    """Return whether a function makes what has to be awaited. The method of a name that is something else too may be any: `orders.sort()`."""
    name = root(function)
    return name in made and not (name in other and isinstance(function, ast.Attribute))


def _shown(function: ast.expr) -> str:
    try:
        return unparse(function)
    except RecursionError:
        return root(function) or ""


def _own(tree: ast.Module) -> frozenset[str]:
    """Return the names that are bound to coroutine functions of the program alone."""
    own = {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}
    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    inner = {node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef) and node not in tree.body}
    return frozenset(own - _bound(tree) - imported - inner)


def _coroutines(tree: ast.Module) -> set[str]:
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)}


def _bound(tree: ast.Module) -> set[str]:
    """Return the names that a program binds, to whatever is no coroutine function."""
    nodes = [
        each for each in ast.walk(tree) if not isinstance(each, ast.AsyncFunctionDef | ast.Import | ast.ImportFrom)
    ]
    return {name for node in nodes for name in binds(node)}


def _is_call_of(node: ast.AST, names: Collection[str]) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def _is_of_asyncio(function: ast.expr, asyncio: Collection[str]) -> bool:
    match function:
        case ast.Attribute(value=ast.Name(id=module), attr="sleep" | "gather"):
            return module in asyncio
        case ast.Name(id="sleep" | "gather" as name):
            return name in asyncio
        case _:
            return False


def _used_at_once(node: ast.AST) -> tuple[ast.expr, ...]:  # noqa: PLR0911 - a table of cases
    match node:
        case ast.Expr(value=ast.ListComp(elt=value) | ast.SetComp(elt=value) | ast.GeneratorExp(elt=value)):
            return (value,)
        case ast.Expr(value=value) | ast.Attribute(value=value) | ast.Subscript(value=value):
            return (value,)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) | ast.Assert(test=test):
            return (test,)
        case ast.For(iter=driven) | ast.comprehension(iter=driven):
            return (driven,)
        case ast.FormattedValue(value=value) | ast.UnaryOp(operand=value):
            return (value,)
        case ast.Compare(left=left, comparators=comparators):
            return (left, *comparators)
        case ast.BinOp(left=left, right=right):
            return (left, right)
        case ast.Call(func=ast.Name(id=name), args=args) if name in TAKING:
            return tuple(args)
        case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join" | "format"), args=args):
            return tuple(args)
        case _:
            return ()


def _calls(node: ast.AST, names: Collection[str | None]) -> bool:
    return any(isinstance(each, ast.Call) and root(each.func) in names for each in ast.walk(node))
