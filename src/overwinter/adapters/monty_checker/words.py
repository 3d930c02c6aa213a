"""The checker's words, made such that a person or a model can act on them: what it should be, and the signature."""

import difflib
import re
from collections.abc import Mapping

from overwinter.adapters.monty_checker.text import Report

__all__ = ["explained"]

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
        found = re.search(rf"^async def {re.escape(function)}\((.*)\) -> (.*?):", modules.get(module, ""), re.MULTILINE)
        if found is None:
            continue
        names = re.findall(r"(\w+):", found[1])
        wrong = _quoted(message)
        near = difflib.get_close_matches(wrong or "", names, n=1, cutoff=NEAR) if "not match" in message else []
        hint = f"; did you mean `{near[0]}`?" if near else ""
        return f"{message}{hint}; it is {module}.{function}({found[1].removeprefix('*, ')}) -> {found[2]}"
    return message


def _with_near(message: str, line: str, modules: Mapping[str, str]) -> str:
    for module, name in re.findall(r"\b(\w+)\.(\w+)", line):
        functions = re.findall(r"^async def (\w+)\(", modules.get(module, ""), re.MULTILINE)
        if functions and name not in functions:
            near = difflib.get_close_matches(name, functions, n=3, cutoff=NEAR)
            hint = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(functions[:10])}"
            return f"{module} has no function `{name}`: {hint}"
    return message


def _quoted(message: str) -> str | None:
    found = re.search(r"`([^`]*)`", message)
    return found[1] if found else None
