"""Programs with a verdict, and sequences of programs of one run, from `fixtures/check_cases.json`."""

import ast
import json
import re
from pathlib import Path

from jails import jail_here
from overwinter.adapters.monty.launcher import open_launcher
from overwinter.adapters.monty_checker import open_checker
from overwinter.check import FIRST, Finding, Transcript

CASES = json.loads((Path(__file__).parent / "fixtures" / "check_cases.json").read_text())
STUB = re.sub(r"^def ", "async def ", CASES["stub"], flags=re.MULTILINE)


def awaited(program: str) -> str | None:
    """The cases call a plain function; ours are awaited. None: its calls stand where nothing can be awaited."""
    text = re.sub(r"(?<!await )\bsvc\.create\(", "await svc.create(", program)
    text = re.sub(r"await svc\.create\(((?:[^()]|\([^()]*\))*)\)(?=[\[.])", r"(await svc.create(\1))", text)
    try:
        compile(text, "program", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        return None
    return text


async def verdicts(programs: list[str], stub: str, transcript: Transcript = FIRST) -> list[list[Finding]]:
    """Return what refuses each program, whose tools are those of a stub."""
    with open_launcher(jail_here()) as launcher:
        async with open_checker(launcher=launcher, jail=jail_here()) as checker:
            found = [await checker.check(each, {"svc": stub}, {}, transcript=transcript) for each in programs]
    return [[finding for finding in each if finding.is_certain] for each in found]
