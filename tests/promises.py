"""The tables of docs/promises.md: each promise of `claims.py`, and the tests that claim to prove it.

python tests/promises.py        write them anew, after a promise or a test of one was added
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from claims import CLAIMS

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "promises.md"
TABLE = re.compile(r"(<!-- ids: ([\w. ]+) -->\n)(?:\|[^\n]*\n)*")
"""What begins a table names the beginnings of its ids; of several that fit, the longest one counts."""


def tabled(page: str) -> str:
    """Return the page with its tables as they should be.

    Raises:
        ValueError: if there is no table for a promise.
    """
    beginnings = [each for found in TABLE.finditer(page) for each in found[2].split()]
    of: dict[str, list[str]] = defaultdict(list)
    for claim in CLAIMS:
        fits = [each for each in beginnings if claim.startswith(each)]
        if not fits:
            raise ValueError(f"no table of {PAGE.name} takes {claim}: name it in an `ids:` there")
        of[max(fits, key=len)].append(claim)
    proved = _files()

    def table(found: re.Match[str]) -> str:
        claims = [claim for each in found[2].split() for claim in of[each]]
        rows = (f"| `{claim}` | {CLAIMS[claim]} | {', '.join(proved[claim])} |\n" for claim in claims)
        return f"{found[1]}| id | promise | tests |\n|---|---|---|\n{''.join(rows)}"

    return TABLE.sub(table, page)


def _files() -> dict[str, list[str]]:
    """Return the files whose tests are marked with each promise, below `tests/`."""
    files: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.glob("*/test_*.py")):
        for claim in sorted(set(_marks(path))):
            files[claim].append(f"`{path.relative_to(TESTS)}`")
    return files


def _marks(path: Path) -> Iterator[str]:
    return (found[1] for found in re.finditer(r"mark\.claim\(\s*\"([^\"]+)\"", path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    PAGE.write_text(tabled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
