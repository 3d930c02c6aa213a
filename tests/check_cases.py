"""Programs with a verdict, and sequences of programs of one run, from `fixtures/check_cases.json`."""

import ast
import json
import re
from pathlib import Path

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
