"""What a program gets that cannot come from the host: `tools.settle` and `tools.error` are sandbox source.

A coroutine cannot cross to the host, and a module takes no attributes. So the dot is rewritten where the program names
them, `tools.settle` to `tools_settle`, and their definitions are fed before it. One byte for one byte: no position moves.
"""

import ast
import re
from collections.abc import Callable, Iterable

from overwinter.frozen import frozen
from overwinter.syntax import parse

__all__ = ["Rewritten", "rewrite"]

SETTLE = """
async def tools_settle(*awaitables):
    import asyncio
    async def settled(awaitable):
        try:
            return await awaitable
        except Exception as error:
            return error
    return await asyncio.gather(*[settled(each) for each in awaitables])
"""
# The form of the text is that of `events.describe`; tests/unit/test_monty_prelude.py holds the two together.
ERROR = """
async def tools_error(error):
    import re
    text = str(error.args[0]) if error.args else ""
    found = re.fullmatch(
        r"(?:(\\d{3}|-) (\\S+): )?(.*) \\[call (\\d+), (not )?retryable(?:, retry after ([0-9.e+-]+) s)?\\]", text, re.DOTALL
    )
    if not found:
        return {"type": type(error).__name__, "status": None, "code": None, "message": text, "retryable": False,
                "retry_after": None, "call": None}
    status, code, message, call, refused, pause = found.groups()
    return {"type": type(error).__name__, "status": None if status in (None, "-") else int(status),
            "code": None if code in (None, "-") else code, "message": message, "retryable": refused is None,
            "retry_after": None if pause is None else float(pause), "call": int(call)}
"""
IN_SANDBOX = {"settle": SETTLE, "error": ERROR}
MODULE = "tools"

Node = ast.expr | ast.stmt
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
SCOPES = (*FUNCTIONS, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@frozen
class Rewritten:
    """A program as it is fed."""

    prelude: str
    """Fed first, by itself; empty if the program needs nothing of it."""
    source: str
    unbound: frozenset[str]
    """Names that the program reads and nowhere binds: a service among them is imported for it."""


def rewrite(source: str) -> Rewritten:
    """Return the program with the sandbox functions of `tools` bound to their definitions."""
    try:
        tree = parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Rewritten(prelude="", source=source, unbound=frozenset())  # the interpreter says what is wrong with it
    unbound = _unbound(tree)
    edits: list[tuple[Node, str]] = []
    prelude: dict[str, str] = {}
    for node, alias, taken in _uses(tree, frozenset({MODULE}) & unbound):
        for name in taken:
            prelude[f"{MODULE}_{name}"] = IN_SANDBOX[name]
        match node:
            case ast.Attribute(attr=name):
                new = f"{alias}_{name}"
                prelude.setdefault(new, f"{new} = {MODULE}_{name}\n")
                edits.append((node, new))
            case ast.ImportFrom(names=names):
                edits.append((node, _imports(names)))
            case _:
                raise AssertionError(f"{node} is no use of {MODULE}")
    edited = _edited(source, edits) if edits else source
    return Rewritten(prelude="".join(prelude.values()), source=edited, unbound=unbound)


# --- Where the program names them ------------------------------------------------------------------------------------


def _uses(scope: ast.AST, modules: frozenset[str]) -> Iterable[tuple[Node, str, list[str]]]:
    """Yield each node to rewrite, the name of the module there, and the functions it takes.

    Args:
        scope: a module, function, class or comprehension.
        modules: names that mean the module `tools` around it. A name that the scope binds to something else does not.
    """
    own = _own(scope)
    bound = {name for node in own for name in _binds(node)}
    imported = {
        alias.asname or alias.name
        for node in own
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == MODULE
    }
    modules = (modules - bound) | (imported - bound)
    for node in own:
        match node:
            case ast.Attribute(value=ast.Name(id=alias), attr=name) if alias in modules and name in IN_SANDBOX:
                yield node, alias, [name]
            case ast.ImportFrom(module="tools", level=0, names=names) if taken := [
                each.name for each in names if each.name in IN_SANDBOX
            ]:
                yield node, MODULE, taken
            case _ if isinstance(node, SCOPES):
                yield from _uses(node, modules)
            case _:
                pass


def _own(scope: ast.AST) -> list[ast.AST]:
    """Return the nodes of a scope, those of the scopes within it left out but for themselves."""
    own: list[ast.AST] = []
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        own.append(node)
        if not isinstance(node, SCOPES):
            waiting.extend(ast.iter_child_nodes(node))
    return own


def _binds(node: ast.AST) -> Iterable[str]:
    """Return the names that a node binds, an import of `tools` itself aside."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
            return (name,)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return (name,)
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            return (name,)
        case ast.Import(names=names):
            return [(each.asname or each.name).split(".")[0] for each in names if each.name != MODULE]
        case ast.ImportFrom(names=names):
            return [each.asname or each.name for each in names]
        case _:
            return ()


def _unbound(tree: ast.Module) -> frozenset[str]:
    read: set[str] = set()
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            read.add(node.id)
        elif isinstance(node, ast.Import):
            bound.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        else:
            bound.update(_binds(node))
    return frozenset(read - bound)


# --- What stands there instead ---------------------------------------------------------------------------------------


def _imports(names: list[ast.alias]) -> str:
    """Return `from tools import ask, settle as s` as statements of one line."""
    rest = [name.name + (f" as {name.asname}" if name.asname else "") for name in names if name.name not in IN_SANDBOX]
    parts = [f"from {MODULE} import {', '.join(rest)}"] if rest else []
    parts += [f"{name.asname or name.name} = {MODULE}_{name.name}" for name in names if name.name in IN_SANDBOX]
    return "; ".join(parts)


def _edited(source: str, edits: list[tuple[Node, str]]) -> str:
    """Put the new texts in the places of the nodes; every line keeps its number, and its columns if the text fits."""
    raw = source.encode()
    # The lines of `ast`: a lone carriage return ends one too.
    starts = [0, *(found.end() for found in re.finditer(rb"\r\n?|\n", raw))]

    def start(node: Node) -> int:
        return starts[node.lineno - 1] + node.col_offset

    place: Callable[[tuple[Node, str]], int] = lambda edit: start(edit[0])  # noqa: E731 - a key, typed
    for node, new in sorted(edits, key=place, reverse=True):
        first, last = start(node), starts[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)
        old = raw[first:last]
        broken = re.findall(rb"\r\n?|\n", old)
        if not broken:
            raw = raw[:first] + new.encode().ljust(len(old)) + raw[last:]
            continue
        # What followed the node on its last line now follows the new text, and the lines come after it.
        tail = re.match(rb"[^\r\n]*", raw[last:])
        rest = last + (tail.end() if tail else 0)
        raw = raw[:first] + new.encode() + raw[last:rest] + b"".join(broken) + raw[rest:]
    return raw.decode()
