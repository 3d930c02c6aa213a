"""What is wrong with a program, found before any of it runs."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from overwinter.frozen import frozen
from overwinter.syntax import parse
from overwinter.values import Value

__all__ = [
    "FINDINGS_MAX",
    "FIRST",
    "UNSEEN",
    "Cell",
    "Checker",
    "Finding",
    "Transcript",
    "line_of",
    "remaining",
    "render",
    "report",
]

REPORT_CHARACTERS_MAX = 1_600
MESSAGE_CHARACTERS_MAX = 240
FINDINGS_MAX = 10
"""Findings shown: more do not help to mend a program, and cost a model tokens."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """One thing that is wrong, and what to do about it."""

    line: int
    """In the program, from 1."""
    column: int
    """In characters, from 1; 0 if unknown."""
    rule: str
    """Short name of the rule: `"unsupported"`, `"unknown-argument"`, `"input-missing"`, ..."""
    message: str
    """What is wrong and what it should be."""
    is_certain: bool = True
    """Refuse the program. False: a warning, shown only if the run then fails."""
    at: str = ""
    """The function that it is about, `service.function`; "" if none."""
    got: str = ""
    """The name or value that is wrong."""
    did_you_mean: tuple[str, ...] = ()
    """What is there in its place, nearest first."""
    stub: str = ""
    """The signature of `at`, parameters that do not matter left out of a long one."""


@frozen
class Cell:
    """One program that a run was fed, as far as it ran. One that was refused ran nowhere and is none."""

    source: str
    stopped_line: int | None = None
    """The line, outside of any function, at which it failed: what stands before it is done. 0: it is not known where it
    failed, so any of its names may be there. None: it ran to its end."""

    def __hash__(self) -> int:
        return hash(
            self.source
        )  # known to the text itself: hundreds of cells are looked up with each program of a goal


@frozen
class Transcript:
    """The programs that ran in a run before this one, in order: their variables and functions are there."""

    cells: tuple[Cell, ...] = ()


FIRST = Transcript()
"""Of a run's first program."""
UNSEEN: Mapping[str, str] = MappingProxyType({})


class Checker(Protocol):
    """Judges programs against the stubs of the modules they may import. Nothing of a program runs."""

    async def check(
        self,
        source: str,
        stubs: Mapping[str, str],
        inputs: Mapping[str, Value],
        *,
        transcript: Transcript = FIRST,
        seen: Mapping[str, str] = UNSEEN,
    ) -> Sequence[Finding]:
        """Return what is wrong, in order of line; certain findings refuse the program.

        Args:
            source: the program.
            stubs: module name to `.pyi` text, of every service in scope; the module `tools` is added by the checker. The
                same object stands for the same texts.
            inputs: the variables the run starts with.
            transcript: what ran before it.
            seen: full function name to a stub of it by what it has answered: `catalog.seen.stub`. What does not fit that is a
                warning, since nobody promised it.
        """
        ...


def render(findings: Sequence[Finding], source: str) -> str:
    """Return findings as a person or a model reads them: place, words, the line itself."""
    lines = source.split("\n")
    certain = [finding for finding in findings if finding.is_certain]
    texts: list[str] = []
    for finding in certain[:FINDINGS_MAX]:
        text = _cut(lines[finding.line - 1].strip(), MESSAGE_CHARACTERS_MAX) if 0 < finding.line <= len(lines) else ""
        texts.append(f"line {finding.line}: {finding.message}" + (f"\n    {text}" if text else ""))
    stubs = {finding.at: finding.stub.removeprefix("async def ") for finding in certain[:FINDINGS_MAX] if finding.stub}
    signatures = [f"{at.partition('.')[0]}.{stub}" for at, stub in stubs.items()]
    more = len(certain) - FINDINGS_MAX
    tail = [f"and {more} more"] if more > 0 else []
    return "\n".join(["the program was refused; nothing of it ran", *texts, *tail, *signatures])


def report(findings: Sequence[Finding]) -> dict[str, Value]:
    """Return findings as a model gets them: at most 600 tokens, each signature once."""
    certain = [finding for finding in findings if finding.is_certain]
    errors, stubs, left = list[Value](), dict[str, str](), REPORT_CHARACTERS_MAX
    for finding in certain[:FINDINGS_MAX]:
        row = {
            "line": finding.line, "kind": finding.rule.replace("-", "_"), "at": finding.at, "got": _cut(finding.got, 60),
            "did_you_mean": list(finding.did_you_mean), "message": _cut(finding.message, MESSAGE_CHARACTERS_MAX),
        }  # fmt: skip
        row = {name: value for name, value in row.items() if value}
        stub = finding.stub if finding.at not in stubs else ""
        cost = len(json.dumps(row)) + len(stub)
        if errors and cost > left:
            break
        errors.append(row)
        left -= cost
        if stub:
            stubs[finding.at] = f"{finding.at.partition('.')[0]}: {stub}"
    made: dict[str, Value] = {"status": "check_failed", "ran": False, "errors": errors}
    if len(certain) > len(errors):
        made["more"] = len(certain) - len(errors)
    return {**made, "stubs": "\n".join(stubs.values())} if stubs else made


def remaining(findings: Sequence[Finding], source: str, lines: Sequence[int]) -> list[Finding]:
    """Return the certain findings in what is left of a program that waits at some of its lines.

    What is left is every function, and at the top each statement from the first on that waits: one that holds such a line,
    or that names the function which holds it.
    """
    try:
        body = parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [finding for finding in findings if finding.is_certain]
    functions = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    inside = {node.name for node in functions if any(_holds(node, line) for line in lines)}
    first = next(
        (
            node.lineno
            for node in body
            if node not in functions and (any(_holds(node, line) for line in lines) or _names(node) & inside)
        ),
        0,
    )
    return [
        finding
        for finding in findings
        if finding.is_certain and (finding.line >= first or any(_holds(node, finding.line) for node in functions))
    ]


def line_of(source: str, function: str) -> int:
    """Return the first line that names a function, `service.function`, or if none does a part of that; 1 if nothing does."""
    name = function.rpartition(".")[2]
    try:
        nodes = list(ast.walk(parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 1
    whole, parts = list[int](), list[int]()
    for each in nodes:
        match each:
            case ast.Attribute(value=ast.Name(id=module), attr=attr) if f"{module}.{attr}" == function:
                whole.append(each.end_lineno or each.lineno)
            case ast.Constant(value=value) if value == function:
                whole.append(each.lineno)
            case ast.Attribute(attr=attr) if attr == name:
                parts.append(each.end_lineno or each.lineno)
            case ast.Name(id=word, ctx=ast.Load()) if word == name:
                parts.append(each.lineno)
            case ast.ImportFrom(names=names) if any(alias.name == name for alias in names):
                parts.append(each.lineno)
            case _:
                pass
    return min(whole or parts, default=1)


def _holds(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def _names(node: ast.stmt) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
