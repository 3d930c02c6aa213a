"""What a program gets that cannot come from the host: `tools.settle` and `tools.error` are sandbox source.

A coroutine cannot cross to the host, and a module takes no attributes. So the two names are rewritten in the program,
`tools.settle` to `tools_settle`, one byte for one byte, and their definitions are fed before it. No position moves.
"""

import ast
from dataclasses import dataclass

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
    text = str(error)
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


@dataclass(frozen=True, slots=True, kw_only=True)
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
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Rewritten(prelude="", source=source, unbound=frozenset())  # the interpreter says what is wrong with it
    unbound = _unbound(tree)
    aliases = {"tools"} & unbound | {
        alias.asname or "tools"
        for node in ast.walk(tree) if isinstance(node, ast.Import)
        for alias in node.names if alias.name == "tools"
    }  # fmt: skip
    lines = [line.encode() for line in source.split("\n")]
    used: set[str] = set()
    edits: list[tuple[ast.expr | ast.stmt, bytes]] = []
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in aliases and attribute in IN_SANDBOX:
                edits.append((node, f"tools_{attribute}".encode()))
                used.add(attribute)
            case ast.ImportFrom(module="tools", level=0, names=names):
                taken = {alias.name for alias in names} & set(IN_SANDBOX)
                if taken:
                    edits.append((node, _imports(names)))
                    used |= taken
            case _:
                pass
    for node, new in sorted(edits, key=lambda edit: (-edit[0].lineno, -edit[0].col_offset)):
        _replace(lines, node, new)
    prelude = "".join(IN_SANDBOX[name] for name in sorted(used))
    return Rewritten(prelude=prelude, source=b"\n".join(lines).decode() if edits else source, unbound=unbound)


def _unbound(tree: ast.Module) -> frozenset[str]:
    read: set[str] = set()
    bound: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                read.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                bound.update((alias.asname or alias.name).split(".")[0] for alias in names)
            case _:
                pass
    return frozenset(read - bound)


def _imports(names: list[ast.alias]) -> bytes:
    """Return `from tools import ask, settle as s` as statements of one line."""
    parts = [f"{alias.asname or alias.name} = tools_{alias.name}" for alias in names if alias.name in IN_SANDBOX]
    rest = [
        alias.name + (f" as {alias.asname}" if alias.asname else "") for alias in names if alias.name not in IN_SANDBOX
    ]
    if rest:
        parts.insert(0, f"from tools import {', '.join(rest)}")
    return "; ".join(parts).encode()


def _replace(lines: list[bytes], node: ast.expr | ast.stmt, new: bytes) -> None:
    """Put `new` in the place of a node. What is shorter is filled up with spaces, and lines are kept."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    end = node.end_col_offset or 0
    if first == last:
        old = end - node.col_offset
        lines[first] = lines[first][: node.col_offset] + new.ljust(old) + lines[first][end:]
        return
    tail = lines[last][end:]
    lines[first] = lines[first][: node.col_offset] + new + tail
    for row in range(first + 1, last + 1):
        lines[row] = b""
