"""The checker's words, made such that a person or a model can act on them: what it should be, and the signature."""

import difflib
import heapq
import re
from collections.abc import Collection, Mapping
from functools import lru_cache

from overwinter.adapters.monty_checker.text import Report

__all__ = ["explained"]

ALIKE_MAX = 100
MODULES_REMEMBERED = 256
NEAR = 0.6
"""Similarity from which a name is offered instead of another."""


def explained(report: Report, text: str, modules: Mapping[str, str]) -> str:
    """Return a report's message with what helps to mend it."""
    message = report.message
    line = text.split("\n")[report.row - 1]
    match report.rule:
        case "unresolved-reference":
            return _undefined(message, modules)
        case "unknown-argument" | "missing-argument" | "invalid-argument-type" | "too-many-positional-arguments":
            return _with_signature(message, line, modules)
        case "unresolved-attribute" | "unresolved-import":
            return _with_near(message, line, modules)
        case _:
            return message


def _undefined(message: str, modules: Mapping[str, str]) -> str:
    name = _quoted(message)
    if name is None:
        return message
    if name in modules:
        return f"`{name}` is not imported: add `import {name}`"
    return f"`{name}` is not defined: is it misspelt, or an input? An input is passed with --input {name}=VALUE"


def _with_signature(message: str, line: str, modules: Mapping[str, str]) -> str:
    for module, function in re.findall(r"\b(\w+)\.(\w+)\(", line):
        found = _functions(modules.get(module, "")).get(function)
        if found is None:
            continue
        names = re.findall(r"(\w+):", found[0])
        wrong = _quoted(message)
        near = difflib.get_close_matches(wrong or "", names, n=1, cutoff=NEAR) if "not match" in message else []
        hint = f"; did you mean `{near[0]}`?" if near else ""
        return f"{message}{hint}; it is {module}.{function}({found[0].removeprefix('*, ')}) -> {found[1]}"
    return message


def _with_near(message: str, line: str, modules: Mapping[str, str]) -> str:
    for module, name in re.findall(r"\b(\w+)\.(\w+)", line):
        functions = _functions(modules.get(module, ""))
        if functions and name not in functions:
            near = difflib.get_close_matches(name, _alike(name, functions), n=3, cutoff=NEAR)
            hint = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(list(functions)[:10])}"
            return f"{module} has no function `{name}`: {hint}"
    return message


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
