"""What is wrong with a program, found before any of it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from overwinter.values import Value

__all__ = ["FINDINGS_MAX", "Checker", "Finding", "render"]

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


class Checker(Protocol):
    """Judges programs against the stubs of the modules they may import. Nothing of a program runs."""

    async def check(self, source: str, stubs: Mapping[str, str], inputs: Mapping[str, Value]) -> Sequence[Finding]:
        """Return what is wrong, in order of line; certain findings refuse the program.

        Args:
            source: the program.
            stubs: module name to `.pyi` text, of every service in scope; the module `tools` is added by the checker. The
                same object stands for the same texts.
            inputs: the variables the run starts with.
        """
        ...


def render(findings: Sequence[Finding], source: str) -> str:
    """Return findings as a person or a model reads them: place, words, the line itself."""
    lines = source.split("\n")
    shown = [finding for finding in findings if finding.is_certain][:FINDINGS_MAX]
    texts: list[str] = []
    for finding in shown:
        text = lines[finding.line - 1].strip() if 0 < finding.line <= len(lines) else ""
        texts.append(f"line {finding.line}: {finding.message}" + (f"\n    {text}" if text else ""))
    more = len([finding for finding in findings if finding.is_certain]) - len(shown)
    tail = [f"and {more} more"] if more else []
    return "\n".join(["the program was refused; nothing of it ran", *texts, *tail])
