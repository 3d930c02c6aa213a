"""What of a program the interpreter cannot run, said before it runs, in words that a person or a model can act on.

Judged by the syntax tree alone, in about a millisecond. What is not seen here is refused at run time, with an error.
"""

import ast
import builtins
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from overwinter.bindings import bound, reached_as, root
from overwinter.frozen import frozen
from overwinter.subset.names import ADVICE, BUILTINS_MISSING, MODULES
from overwinter.subset.waiting import unwaited
from overwinter.syntax import parse

__all__ = ["SOURCE_BYTES_MAX", "SYNTAX_MISSING", "Lack", "called_by_name", "functions_named", "lacks"]

SOURCE_BYTES_MAX = 256 << 10
"""Longest program: the parser's own memory grows with it."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Lack:
    """A thing that the interpreter does not have."""

    line: int
    column: int
    what: str
    advice: str


SYNTAX: Mapping[type[ast.AST], tuple[str, str]] = {
    ast.Yield: ("yield", "build and return a list, or call a function per item"),
    ast.YieldFrom: ("yield from", "build and return a list"),
    ast.Delete: ("del", "use d.pop(key, None), slicing or a new name"),
    ast.AsyncWith: ("async with", "call and await the steps in try/finally"),
    ast.AsyncFor: ("async for", "use `while` with an awaited call per page"),
    ast.TryStar: ("except*", "catch single exceptions"),
}
SYNTAX_MISSING = frozenset(word for word, _ in SYNTAX.values() if " from" not in word)
"""What a model should know of beforehand: it uses them often, and nothing but another form replaces them."""
DUNDERS_IGNORED = frozenset(
    [
        "__len__",
        "__bool__",
        "__ne__",
        "__lt__",
        "__le__",
        "__gt__",
        "__ge__",
        "__getattr__",
        "__getattribute__",
        "__reversed__",
        "__format__",
        "__new__",
    ]
)
ONE_SHOT = frozenset({"map", "filter", "zip", "enumerate", "reversed"})
BUILTIN_TYPES = frozenset({"str", "bytes", "int", "float", "list", "dict", "set", "tuple", "object"})
UNBOUND_WORKS = frozenset({("dict", "fromkeys"), ("bytes", "fromhex")})
KEYWORDS_MISSING: Mapping[tuple[str, str], str] = {
    ("gather", "return_exceptions"): "use `await tools.settle(...)`, which returns results and exceptions in order",
    ("dumps", "default"): "convert the values first",
    ("dumps", "cls"): "convert the values first",
    ("dataclass", "order"): "sort with key=",
    ("dataclass", "kw_only"): "leave it out",
}
METHODS_MISSING = frozenset(
    [
        "bit_length",
        "bit_count",
        "to_bytes",
        "from_bytes",
        "as_integer_ratio",
        "is_integer",
        "maketrans",
        "translate",
        "format_map",
        "intersection_update",
        "difference_update",
        "symmetric_difference_update",
        "fromtimestamp",
        "utcfromtimestamp",
        "utcnow",
        "fromordinal",
        "toordinal",
        "isocalendar",
        "timetuple",
        "with_traceback",
        "add_note",
        "__dict__",
        "__class__",
        "__cause__",
        "__doc__",
        "__mro__",
        "__contains__",
        "__len__",
        "__getitem__",
        "__iter__",
        "__next__",
        "__add__",
        "__eq__",
        "__lt__",
    ]
)
METHODS_OF_VALUES = frozenset(
    method for kind in (str, list, dict, set) for method in dir(kind) if not method.startswith("_")
)


def lacks(source: str, modules: Collection[str], earlier: str = "") -> list[Lack]:
    """Return what the interpreter lacks for this program, in order of place.

    Args:
        source: the program; at most `SOURCE_BYTES_MAX`.
        modules: names of the service modules, with `tools`.
        earlier: statements that ran before it, whose names are there; nothing in them is judged.
    """
    if len(source.encode("utf-8", "surrogatepass")) > SOURCE_BYTES_MAX:
        return [
            Lack(line=1, column=0, what="program too long", advice=f"at most {SOURCE_BYTES_MAX >> 10} KB are taken")
        ]
    try:
        tree = parse(source)
    except SyntaxError as error:
        return [Lack(line=error.lineno or 1, column=error.offset or 0, what="syntax error", advice=error.msg)]
    except (ValueError, RecursionError, MemoryError) as error:
        return [
            Lack(line=1, column=0, what="the program cannot be read", advice=str(error) or "it is nested too deeply")
        ]
    before = parse(earlier).body if earlier else []
    whole = ast.Module(body=[*before, *tree.body], type_ignores=[])
    names = bound(whole)
    judge = _Judge(
        bound=names,
        own=_own_names(whole),
        standard=_standard_modules(whole),
        services=frozenset(modules),
        tools=reached_as(whole, modules) | (frozenset(modules) - names),
    )
    found = {
        Lack(line=getattr(place, "lineno", 1), column=getattr(place, "col_offset", -1) + 1, what=what, advice=advice)
        for node in ast.walk(tree)
        for what, advice in judge.judge(node)
        for place in [node.target if isinstance(node, ast.comprehension) else node]
    }
    found |= {
        Lack(line=line, column=column, what=what, advice=advice)
        for line, column, what, advice in unwaited(tree, modules, before, judge.services - judge.bound)
    }
    found |= {
        Lack(line=node.lineno, column=node.col_offset + 1, what=what, advice=advice)
        for node, what, advice in _aliases(tree)
    }
    return sorted(found)


def _aliases(tree: ast.Module) -> Iterator[tuple[ast.expr, str, str]]:
    """Yield types of `typing` that are used as values: there is nothing behind their names but in annotations."""
    typed = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "typing"
        for alias in node.names
        if alias.name not in ("Optional", "Union")
    }
    annotations = {
        id(each)
        for node in ast.walk(tree)
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if isinstance(part, ast.expr)
        for each in ast.walk(part)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=ast.Name(id=name)) if name in typed and id(node) not in annotations:
                yield node, f"{name}[...] as a value", "write dict[str, int], list[str], `int | None`, or leave it out"
            case ast.Call(func=ast.Name(id=name)) if name in typed:
                yield node, f"{name}(...)", "leave it out"
            case _:
                pass


def functions_named(source: str, modules: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the service modules that a source uses, each with the functions of it that the source names.

    A program need not import a service: a name that it nowhere binds stands for the module. A module that is used in any
    other way than `module.name` gives all its functions.
    """
    try:
        tree = parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    aliases = {name: name for name in modules if name not in bound(tree)}
    named: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    if alias.name in modules:
                        aliases[alias.asname or alias.name] = alias.name
                        named.setdefault(alias.name, set())
            case ast.ImportFrom(module=str(module), names=names, level=0) if module in modules:
                named.setdefault(module, set()).update(alias.name for alias in names)
            case _:
                pass
    dotted = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in aliases:
                named.setdefault(aliases[name], set()).add(attribute)
            case ast.Name(id=name, ctx=ast.Load()) if name in aliases and id(node) not in dotted:
                named.setdefault(aliases[name], set()).update(modules[aliases[name]])
            case _:
                pass
    return {name: tuple(each for each in modules[name] if each in used) for name, used in sorted(named.items())}


def called_by_name(source: str) -> tuple[frozenset[str], bool]:
    """Return the functions that a source calls by `tools.call("service.function", ...)`, and whether it may call any.

    It may if it calls one whose name is not written there, or hands `tools` or `tools.call` on.
    """
    try:
        tree = parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset(), False
    modules = {"tools"} - bound(tree)
    functions: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules |= {each.asname or each.name for each in names if each.name == "tools"}
            case ast.ImportFrom(module="tools", names=names, level=0):
                functions |= {each.asname or each.name for each in names if each.name == "call"}
            case _:
                pass
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    dotted = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    written: set[str] = set()
    is_open = False
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr="call") if name in modules:
                text = _first_word(called.get(id(node)))
            case ast.Name(id=name, ctx=ast.Load()) if name in functions:
                text = _first_word(called.get(id(node)))
            case ast.Name(id=name, ctx=ast.Load()) if name in modules and id(node) not in dotted:
                text = None
            case _:
                continue
        is_open = is_open or text is None
        written |= {text} if text is not None else set()
    return frozenset(written), is_open


def _first_word(call: ast.Call | None) -> str | None:
    """Return the name of a function that a call of `tools.call` has as its first argument, if it is written there."""
    if call is None:
        return None
    given = [*call.args[:1], *(each.value for each in call.keywords if each.arg == "name")]
    match given:
        case [ast.Constant(value=str(text))]:
            return text
        case _:
            return None


def _own_names(tree: ast.AST) -> frozenset[str]:
    """Return the names of the functions and classes that a program defines, and of the attributes that it sets."""
    return frozenset(
        node.attr if isinstance(node, ast.Attribute) else node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        or (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    )


def _standard_modules(tree: ast.AST) -> dict[str, str]:
    """Return the local names that stand for standard modules which the interpreter has."""
    return {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name in MODULES
    }


Found = Iterator[tuple[str, str]]


@frozen
class _Judge:
    bound: frozenset[str]
    own: frozenset[str]
    standard: Mapping[str, str]
    services: frozenset[str]
    tools: frozenset[str]

    def judge(self, node: ast.AST) -> Found:
        """Yield what is missing and what to do, for one node."""
        if type(node) in SYNTAX:
            yield SYNTAX[type(node)]
        elif type(node).__name__ == "TypeAlias":  # Python 3.12 parses it, 3.11 does not know the class
            yield "type alias", "assign the type to a name: X = int | str"
        match node:
            case ast.comprehension():
                yield from self._comprehension(node)
            case ast.Import():
                yield from self._import(node)
            case ast.ImportFrom():
                yield from self._import_from(node)
            case ast.ClassDef():
                yield from self._class(node)
            case ast.Attribute():
                yield from self._attribute(node)
            case ast.Name():
                yield from self._name(node)
            case ast.Call():
                yield from self._call(node)
            case _:
                pass

    def _comprehension(self, node: ast.comprehension) -> Found:
        if node.is_async:
            yield "async comprehension", "await in a for loop"

    def _import(self, node: ast.Import) -> Found:
        for alias in node.names:
            if self._is_missing(alias.name):
                yield f"import {alias.name}", _instead(alias.name)

    def _import_from(self, node: ast.ImportFrom) -> Found:
        module = node.module or ""
        if node.level:
            yield "relative import", "there are no files"
        elif any(alias.name == "*" for alias in node.names):
            yield "import *", "name what you import"
        elif self._is_missing(module):
            yield f"import {module}", _instead(module)
        elif module in MODULES and module not in self.services:
            for alias in node.names:
                if alias.name not in MODULES[module]:
                    yield f"{module}.{alias.name}", _absent(module, alias.name)

    def _class(self, node: ast.ClassDef) -> Found:
        if node.bases or node.keywords:
            yield "class inheritance", "use a plain class or a dict; raise ValueError or RuntimeError with a message"
        for part in node.body:
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                if part.decorator_list:
                    yield "method decorator", "use a plain method or a function outside the class"
                if part.name in DUNDERS_IGNORED:
                    yield part.name, "ignored by the interpreter; give it a plain name and call it"
            elif not isinstance(part, ast.Assign | ast.AnnAssign | ast.Expr | ast.Pass):
                yield "statement in a class body", "keep methods and simple variables only"

    def _attribute(self, node: ast.Attribute) -> Found:
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in self.standard:
                if attribute not in MODULES[self.standard[name]]:
                    yield f"{self.standard[name]}.{attribute}", _absent(self.standard[name], attribute)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if (
                name in BUILTIN_TYPES and name not in self.bound
            ):
                if (name, attribute) not in UNBOUND_WORKS:
                    yield (
                        f"{name}.{attribute}",
                        ADVICE.get(f"{name}.{attribute}", "call it on a value: lambda v: v.method()"),
                    )
            case ast.Attribute(attr=attribute) if (
                attribute in METHODS_MISSING and attribute not in self.bound | self.own and root(node) not in self.tools
            ):
                yield f".{attribute}", "not available"
            case _:
                pass

    def _name(self, node: ast.Name) -> Found:
        if isinstance(node.ctx, ast.Load) and node.id not in self.bound and node.id in BUILTINS_MISSING:
            advice = "catch OSError" if node.id.startswith("Connection") else ADVICE.get(node.id, "not available")
            yield node.id, advice

    def _call(self, node: ast.Call) -> Found:
        if root(node.func) in self.tools - {"tools"} or self._is_own(node.func):
            return
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        yield from self._method_values(node, name)
        for keyword in node.keywords:
            if advice := KEYWORDS_MISSING.get((name, keyword.arg or "")):
                yield f"{name}({keyword.arg}=)", advice
        if isinstance(node.func, ast.Name):
            yield from self._plain_call(node, name)
        elif name in ("sub", "subn") and len(node.args) > 1 and isinstance(node.args[1], ast.Lambda):
            yield "re.sub with a function", "loop over re.finditer"

    def _is_own(self, function: ast.expr) -> bool:
        """Return whether a function is the program's own: a built-in of that name is not meant."""
        name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
        return name in self.own and not (root(function) in self.standard and isinstance(function, ast.Attribute))

    def _method_values(self, node: ast.Call, name: str) -> Found:
        """Yield methods of built-in values that are passed as functions: `key=d.get`."""
        functions = [keyword.value for keyword in node.keywords if keyword.arg == "key"]
        if name in ("map", "filter", "reduce"):
            functions += node.args[:1]
        for function in functions:
            attribute = getattr(function, "attr", "")
            if attribute in METHODS_OF_VALUES and attribute not in self.bound:
                yield (
                    f".{attribute} as a value",
                    "write lambda v: ..., a method of a built-in value is not a value itself",
                )

    def _plain_call(self, node: ast.Call, name: str) -> Found:
        if name in self.bound:
            return
        first = node.args[0] if node.args else None
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            is_odd = isinstance(first, ast.Constant) and not isinstance(first.value, str)
            if len(node.args) > 1 or is_odd or node.keywords:
                yield f"{name} with arguments", "give exceptions one string"
        if name == "next" and (
            isinstance(first, ast.GeneratorExp)
            or (isinstance(first, ast.Call) and getattr(first.func, "id", "") in ONE_SHOT)
        ):
            yield "next(...)", "write next(iter(...)); a default stays: next(iter(...), None)"
        if name == "open":
            yield "open(...)", ADVICE[name]
        if name in ("object", "property", "super"):
            yield f"{name}()", "not available"

    def _is_missing(self, name: str) -> bool:
        """Only modules of the standard library are judged: others may be services."""
        top = name.split(".", maxsplit=1)[0]
        if top in self.services:
            return False
        return name not in MODULES and name != "os.path" and top in sys.stdlib_module_names


def _absent(module: str, name: str) -> str:
    return ADVICE.get(f"{module}.{name}") or (ADVICE[module] if module == "asyncio" else "not available")


def _instead(module: str) -> str:
    return ADVICE.get(module, "not available; use a tool or write the few lines")
