"""What a program finds there: of the programs that ran before it the statements whose names it needs, as text.

Names matter, not programs: a statement is kept if a name that is read later comes from it, and what binds that name anew hides
it. So the cost of a check follows what a program uses, not how many ran before it; and a name that was given another value or
another function is what it is now, as for the interpreter.
"""

import ast
import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import lru_cache

from overwinter.adapters.monty_checker.scopes import FUNCTIONS, own
from overwinter.adapters.monty_checker.text import parsed
from overwinter.bindings import CHANGING, binds, root
from overwinter.check import Cell, Transcript
from overwinter.frozen import frozen
from overwinter.prefixes import Prefixes
from overwinter.syntax import unparse

__all__ = ["NOTHING", "Earlier", "earlier"]

TEXT_CHARACTERS_MAX = 3_000
"""Of statements kept whole, the latest first; of those before them the names are declared, as anything. 10-20 ms."""
CELL_CHARACTERS_MAX = 16_000
"""A longer program is not kept in memory: its names are declared."""
CELLS_REMEMBERED = 1_000
CHAINS_REMEMBERED = 64
PROGRAMS_REMEMBERED = 64
ANYTHING = "anything_of_an_earlier_program"
DECLARED = f"from typing import Any as {ANYTHING}_type\ndef {ANYTHING}() -> {ANYTHING}_type: ...\n"
WHOLE = (ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
"""Statements that bind all their names or none."""


@frozen
class Earlier:
    """What comes before a program in the text to check."""

    text: str
    loose: str
    """The same names, all of them anything: for where the checker takes the text for a dead end, after which it says nothing."""


NOTHING = Earlier(text="", loose="")


@lru_cache(PROGRAMS_REMEMBERED)
def earlier(transcript: Transcript, program: str) -> Earlier:
    """Return what a program needs of those that ran before it. One of a goal is asked about ahead, and when it is attempted."""
    ran = _RAN.of(transcript.cells)
    if not ran.statements:
        return NOTHING
    # As the program after it finds it, if it runs to its end: so it is taken apart once.
    needed = _read_from_outside(_statements(Cell(source=program)))
    needed |= _later_reads(ran.by_name, needed)
    imports = [each for each in ran.statements if each.is_import and each.binds & needed]
    loose = "".join(each.text for each in imports) + _declared(needed & ran.bound)
    return Earlier(text=_kept(ran.statements, needed), loose=DECLARED + loose)


@frozen
class _Statement:
    """One statement at the top of a program."""

    text: str
    """Empty: its names are declared."""
    binds: frozenset[str]
    is_whole: bool
    """Whether it gives every name that it binds a value, whatever happens in it."""
    is_import: bool
    reads: frozenset[str]
    """As it runs."""
    later_reads: frozenset[str]
    """By the functions in it, when they are called."""
    changes: frozenset[str]
    """Names whose value it changes, or of which it says more: `d["k"] = 1`, `if x is None: raise ...`."""
    later_changes: frozenset[str]


def _kept(statements: Sequence[_Statement], needed: set[str]) -> str:
    """Go back from the last statement to the first and keep what is needed; the text is in their own order."""
    needed, ever, left = set(needed), set(needed), TEXT_CHARACTERS_MAX
    texts: list[str] = []
    for each in reversed(statements):
        used = each.binds & needed
        if not used and not each.changes & needed and not each.later_changes & ever:
            continue
        if each.text and (each.is_import or len(each.text) <= left):
            left -= len(each.text)
            texts.append(each.text)
            needed -= each.binds if each.is_whole else frozenset()
            needed |= each.reads | each.later_reads
        else:
            texts.append(_declared(used | (each.changes & needed) | (each.later_changes & ever)))
            needed -= used
        ever |= needed
    return DECLARED + "".join(reversed(texts)) if texts else ""


def _declared(names: Iterable[str]) -> str:
    chain = " = ".join(sorted(names))
    return f"{chain} = {ANYTHING}()\n" if chain else ""


def _read_from_outside(statements: Sequence[_Statement]) -> set[str]:
    """Return the names that a program reads before it has bound them itself."""
    needed = set[str]()
    for each in reversed(statements):
        if each.is_whole:
            needed -= each.binds
        needed |= each.reads | each.later_reads | each.changes | each.later_changes
    return needed


def _later_reads(by_name: Mapping[str, Sequence[_Statement]], needed: set[str]) -> set[str]:
    """Return what the functions that are needed read when they are called: names as they are at the end."""
    found, reached, unread = set[str](), set(needed), list(needed)
    while unread:
        for each in by_name.get(unread.pop(), ()):
            found |= each.later_reads
            new = (each.reads | each.later_reads) - reached
            reached |= new
            unread += new
    return found


@frozen
class _Ran:
    """The programs that ran, in statements."""

    statements: tuple[_Statement, ...] = ()
    by_name: Mapping[str, tuple[_Statement, ...]] = field(default_factory=dict[str, tuple[_Statement, ...]])
    """By each name that they bind."""
    bound: frozenset[str] = frozenset()
    """By others than imports."""


def _with(ran: _Ran, cell: Cell) -> _Ran:
    more, by_name, bound = _statements(cell), dict(ran.by_name), set(ran.bound)
    for each in more:
        for name in each.binds:
            by_name[name] = (*by_name.get(name, ()), each)
        bound |= frozenset() if each.is_import else each.binds
    return _Ran(statements=(*ran.statements, *more), by_name=by_name, bound=frozenset(bound))


_RAN = Prefixes[Cell, _Ran](_Ran(), _with, remembered_max=CHAINS_REMEMBERED)


# --- Programs into statements ----------------------------------------------------------------------------------------


@lru_cache(CELLS_REMEMBERED)
def _statements(cell: Cell) -> tuple[_Statement, ...]:
    """Return what a program has run, in order; of the statement at which it failed the names that it may have bound."""
    is_long = len(cell.source) > CELL_CHARACTERS_MAX
    found: list[_Statement] = []
    for node in parsed(cell.source).body:
        stopped = cell.stopped_line
        is_run = stopped is None or (node.end_lineno or node.lineno) < stopped
        if not is_run and stopped and node.lineno > stopped:
            break
        each = _statement(node, is_kept=is_run and not is_long)
        if is_run or not each.is_whole:
            found.append(each)
    return tuple(found)


def _statement(node: ast.stmt, *, is_kept: bool = False) -> _Statement:
    here = list(own(ast.Module(body=[node], type_ignores=[])))
    mine, items = _items(here)
    inside = [each for scope in here if isinstance(scope, (*FUNCTIONS, ast.ClassDef)) for each in ast.walk(scope)]
    outward = {name for each in inside if isinstance(each, ast.Global) for name in each.names}
    bound = frozenset(name for each in here if id(each) not in items for name in binds(each))
    is_narrowing = any(isinstance(each, ast.Raise | ast.Assert) for each in here)
    reads = frozenset(_reads(each for each in here if id(each) not in mine))
    return _Statement(
        text=_unparsed(node) if is_kept else "",
        binds=bound | outward,
        is_whole=isinstance(node, WHOLE) and getattr(node, "value", node) is not None and not outward,
        is_import=isinstance(node, ast.Import | ast.ImportFrom),
        reads=reads,
        later_reads=frozenset(_reads(inside)) | outward,
        changes=frozenset(_changes(here)) | (reads if is_narrowing else frozenset[str]()),
        later_changes=frozenset(_changes(inside)) | outward,
    )


def _unparsed(node: ast.stmt) -> str:
    """Return a statement without its comments; empty if it is nested too deeply for that."""
    try:
        return unparse(node) + "\n"
    except RecursionError:
        return ""


def _items(nodes: Sequence[ast.AST]) -> tuple[set[int], set[int]]:
    """Return the nodes that read what a loop around them gives, and those in comprehensions that bind such a name."""
    mine, items = set[int](), set[int]()
    for node in nodes:
        match node:
            case ast.For(target=target, body=body):
                parts: list[ast.AST] = [*body]
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                target, *more = [each.target for each in node.generators]
                parts = [
                    *(each for each in ast.iter_child_nodes(node) if not isinstance(each, ast.comprehension)),
                    *more,
                ]
                parts += [part for each in node.generators for part in each.ifs]
                parts += [each.iter for each in node.generators[1:]]
                target = ast.Tuple(elts=[target, *more])
                items |= {id(each) for each in ast.walk(target)}
            case _:
                continue
        names = {each.id for each in ast.walk(target) if isinstance(each, ast.Name)}
        mine |= {
            id(each) for part in parts for each in ast.walk(part) if isinstance(each, ast.Name) and each.id in names
        }
    return mine, items


def _reads(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.AugAssign(target=ast.Name(id=name)):
                yield name
            case _:
                pass


def _changes(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names whose value is changed: by name, under another name that is a part of it, or perhaps by a function."""
    changed, parts = set[str](), list[tuple[str, str]]()
    for node in nodes:
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr=method)) if method in CHANGING:
                changed.add(root(value) or "")
            case ast.Subscript(ctx=ast.Store()) | ast.Attribute(ctx=ast.Store()):
                changed.add(root(node) or "")
            case ast.Expr(value=ast.Call(func=ast.Name(id=name), args=args)) if not hasattr(builtins, name):
                changed |= {root(each) or "" for each in args}
            case ast.Assign(targets=[ast.Name(id=part)], value=value) | ast.For(target=ast.Name(id=part), iter=value):
                parts.append((part, root(value) or ""))
            case ast.For(target=ast.Tuple(elts=targets), iter=value):
                parts += [(part.id, name) for part in targets if isinstance(part, ast.Name) for name in _named(value)]
            case _:
                pass
    while more := {whole for part, whole in parts if part in changed} - changed:
        changed |= more
    return changed


def _named(node: ast.expr) -> Iterator[str]:
    """Yield what an iterable goes through: `rows` of `enumerate(rows)`."""
    return (each.id for each in ast.walk(node) if isinstance(each, ast.Name))
