"""The checker's words, made such that a person or a model can act on them: what it should be, and the signature."""

import ast
import difflib
import heapq
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from overwinter.adapters.monty_checker.judge import OPERATING, UNTAKEN
from overwinter.adapters.monty_checker.text import Report
from overwinter.bindings import root
from overwinter.frozen import frozen
from overwinter.subset.names import MODULES

__all__ = ["Words", "explained"]

ALIKE_MAX = 100
SHOWN_MAX = 20
MODULES_REMEMBERED = 256
STUB_CHARACTERS_MAX = 400
"""Of the parameters in a signature that helps to mend a call: some have two hundred."""
IMPORTED_FROM = (
    "datetime",
    "decimal",
    "collections",
    "re",
    "math",
    "json",
    "typing",
    "dataclasses",
    "itertools",
    "functools",
)
"""Modules whose names are known without them."""
NEAR = 0.6
"""Similarity from which a name is offered instead of another."""


@frozen
class Words:
    """What is said of a report; see `check.Finding`."""

    message: str
    at: str = ""
    got: str = ""
    did_you_mean: tuple[str, ...] = ()
    stub: str = ""


def explained(report: Report, tree: ast.AST, modules: Mapping[str, str]) -> Words:
    """Return a report's message with what helps to mend it."""
    if "`CoroutineType[" in report.message and report.rule in OPERATING:
        return Words(message=f"{report.message}: is an `await` missing where it was called?")
    if found := UNTAKEN.search(report.message):
        what = (
            "is reached by keys"
            if found[2].startswith("dict[")
            else "has no keys: its elements are reached by number, or in a loop"
        )
        return Words(message=f"an object of type `{found[2]}` {what}, not by `{found[1]}`", got=found[1])
    match report.rule:
        case "unresolved-reference":
            return _undefined(report.message, tree, modules)
        case "unknown-argument" | "missing-argument" | "invalid-argument-type" | "too-many-positional-arguments":
            return _wrongly_called(report, tree, modules)
        case "unresolved-attribute" | "unresolved-import":
            return _unknown(report, tree, modules)
        case _:
            return Words(message=report.message)


def _undefined(message: str, tree: ast.AST, modules: Mapping[str, str]) -> Words:
    name = _quoted(message)
    if name is None:
        return Words(message=message)
    if (name in modules or name in MODULES) and not _is_meant_as_class(name, tree):
        return Words(message=f"`{name}` is not imported: add `import {name}`", got=name)
    if places := [module for module in IMPORTED_FROM if name in MODULES[module]]:
        return Words(message=f"`{name}` is not imported: add `from {places[0]} import {name}`", got=name)
    text = f"`{name}` is not defined: is it misspelt, or an input? An input is passed with --input {name}=VALUE"
    return Words(message=text, got=name, did_you_mean=tuple(difflib.get_close_matches(name, modules, n=1, cutoff=NEAR)))


def _is_meant_as_class(name: str, tree: ast.AST) -> bool:
    """Return whether a module's name stands for the class in it: `datetime.now()`."""
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and root(node.value) == name}
    return name in MODULES.get(name, ()) and not used <= set(MODULES[name])


def _wrongly_called(report: Report, tree: ast.AST, modules: Mapping[str, str]) -> Words:
    message = report.message
    for module, function in _named(tree, report.row):
        found = _functions(modules.get(module, "")).get(function)
        if found is None:
            continue
        names = re.findall(r"(\w+): ", found[0])
        got = _quoted(message) or ""
        if report.rule == "invalid-argument-type":
            got, near = _near_value(message)
        else:
            near = difflib.get_close_matches(got, names, n=1, cutoff=NEAR) if "not match" in message else []
        hint = f"; did you mean `{near[0]}`?" if near else ""
        stub = f"async def {function}({_shortened(found[0], [got, *near])}) -> {found[1]}"
        at = f"{module}.{function}"
        return Words(message=f"{message}{hint}", at=at, got=got, did_you_mean=tuple(near), stub=stub)
    return Words(message=message)


def _near_value(message: str) -> tuple[str, list[str]]:
    """Return the value that was given where one of several is expected, and the nearest of those."""
    expected, _, found = message.partition(", found ")
    given = re.search(r"Literal\[\"([^\"]*)\"\]", found)
    if given is None:
        return "", []
    return given[1], difflib.get_close_matches(given[1], re.findall(r"\"([^\"]*)\"", expected), n=1, cutoff=NEAR)


def _shortened(parameters: str, wanted: Collection[str]) -> str:
    """Return parameters, those left out that may be and are not asked about, if they are too many to read."""
    if len(parameters) <= STUB_CHARACTERS_MAX:
        return parameters
    rows = re.split(r", (?=\w+: )", parameters.removeprefix("*, "))
    kept, left = list[str](), STUB_CHARACTERS_MAX
    for row in sorted(rows, key=lambda each: (each.partition(":")[0] not in wanted, each.endswith("= ..."))):
        text = row if len(row) <= STUB_CHARACTERS_MAX // 2 else f"{row.partition(':')[0]}: ..."
        if len(text) > left:
            break
        kept.append(text)
        left -= len(text) + 2
    more = len(rows) - len(kept)
    return "*, " + ", ".join(kept) + (f", and {more} more" if more else "")


def _unknown(report: Report, tree: ast.AST, modules: Mapping[str, str]) -> Words:
    for module, name in _named(tree, report.row):
        functions = _functions(modules.get(module, ""))
        if functions and name not in functions:
            near = difflib.get_close_matches(name, _alike(name, functions), n=3, cutoff=NEAR)
            hint = f"did you mean {', '.join(near)}?" if near else f"it has {_some(list(functions))}"
            message = f"{module} has no function `{name}`: {hint}"
            return Words(message=message, at=f"{module}.{name}", got=name, did_you_mean=tuple(near))
    if report.rule == "unresolved-import" and "Cannot resolve imported module" in report.message:
        what = f"there is no module `{_quoted(report.message)}`: a program has a part of the standard library and the services"
        return Words(
            message=f"{what}; `await tools.search(...)` finds their functions", got=_quoted(report.message) or ""
        )
    return Words(message=report.message + _as_key(report, tree), got=_quoted(report.message) or "")


def _as_key(report: Report, tree: ast.AST) -> str:
    """Return what to write where a field of a row is asked for as an attribute."""
    found = re.fullmatch(r"Object of type `([A-Z]\w*)` has no attribute `(\w+)`", report.message)
    if found is None or any(isinstance(node, ast.ClassDef) and node.name == found[1] for node in ast.walk(tree)):
        return ""
    return f': it is a dict, write ["{found[2]}"]'


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(names[:SHOWN_MAX]) + more


def _named(tree: ast.AST, row: int) -> list[tuple[str, str]]:
    """Return the functions that are named around a row, those of the smallest piece of text first."""
    found: list[tuple[int, int, str, str]] = []
    for node in ast.walk(tree):
        named = node.func if isinstance(node, ast.Call) else node
        if isinstance(named, ast.Attribute) and isinstance(named.value, ast.Name) and isinstance(node, ast.expr):
            last = node.end_lineno or node.lineno
            if node.lineno <= row <= last:
                found.append((last - node.lineno, not isinstance(node, ast.Call), named.value.id, named.attr))
    return [(module, name) for *_, module, name in sorted(found)]


@lru_cache(maxsize=MODULES_REMEMBERED)
def _functions(stub: str) -> Mapping[str, tuple[str, str]]:
    """Return the functions of a module, each with its parameters and its result. A large stub takes milliseconds to read."""
    found = re.finditer(r"^async def (\w+)\((.*)\) -> (.*?):", stub, re.MULTILINE)
    return {each[1]: (each[2], each[3]) for each in found}


def _alike(name: str, names: Collection[str]) -> list[str]:
    """Return the names that share most of a name's words or its beginning: to compare letters is slow for thousands."""
    if len(names) <= ALIKE_MAX:
        return list(names)
    words = set(name.split("_"))
    return heapq.nlargest(
        ALIKE_MAX, names, key=lambda each: (len(words.intersection(each.split("_"))), each[:4] == name[:4])
    )


def _quoted(message: str) -> str | None:
    found = re.search(r"`([^`]*)`", message)
    return found[1] if found else None
