"""Ratchets that no linter has: long functions and files, unfinished words, machine paths, suppressions without a reason.

.venv/bin/python tests/tidy.py        prints path:line: what, exits with 1 if there is any
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600
OTHERS = ("requirements.lock", "LICENSE", "gitleaks.toml")
"""Files whose words are not ours."""
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b")
MACHINE = re.compile(r"(?<![\w.])/(work|root|home/\w+|farm)/|pythonhosted|127\.0\.0\.1:3128")
SUPPRESSION = re.compile(r"#\s*(noqa|type: ignore|pyright: ignore)(?P<rest>.*)")
REASONED = re.compile(r"(: [A-Z0-9, ]+|\[[\w, -]+\])\s*(- | # ).{6,}")


def main() -> int:
    """Look at every file that git knows."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")
    found = [finding for name in listed if name and Path(name).is_file() for finding in _look(Path(name))]
    found += list(_unused())
    print("\n".join(found) or f"tidy: {len(listed)} files")
    return int(bool(found))


def _look(path: Path) -> Iterator[str]:
    if path.suffix not in (".py", ".md", ".toml", ".txt", "") or path.name in OTHERS:
        return
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if UNFINISHED.search(line):
            yield f"{path}:{number}: unfinished"
        if path != Path("tests/tidy.py") and MACHINE.search(line):
            yield f"{path}:{number}: a path or host of one machine"
        found = SUPPRESSION.search(line) if path.parts[0] == "src" else None
        if found is not None and not REASONED.match(found["rest"]):
            yield f"{path}:{number}: a suppression needs its code and its reason: {found[0]}"
    if path.suffix == ".py":
        if len(lines) > FILE_LINES_MAX:
            yield f"{path}:{FILE_LINES_MAX}: {len(lines)} lines: it is two nouns"
        yield from _long_functions(path, ast.parse(text))


def _long_functions(path: Path, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES_MAX}"


def _unused() -> Iterator[str]:
    """Names that nothing uses, by vulture; what only users and frameworks call is in vulture_known.py."""
    vulture = Path(sys.executable).parent / "vulture"
    answer = subprocess.run(
        [vulture, "src", "tests", "bench", "tests/vulture_known.py"], capture_output=True, text=True, check=False
    )
    yield from (
        line for line in answer.stdout.split("\n") if line and "(60% confidence)" in line and line.startswith("src")
    )


if __name__ == "__main__":
    sys.exit(main())
