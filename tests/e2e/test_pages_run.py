"""Every command of the tutorials in docs/, typed in its order into a real shell."""

import re
import socket
from pathlib import Path

import pytest

from tutorial import Reader, blocks, is_like

DOCS = Path(__file__).parents[2] / "docs"
RUN = ["backups", "goals", "mcp", "policies", "quickstart", "schedules", "testing", "webhooks"]
PORTS = re.compile(r"\b87\d\d\b")
"""What the pages listen on: a test takes free ones, for others may test on this machine."""
pytestmark = pytest.mark.timeout(300)


def page(name: str) -> str:
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    ports = sorted(set(PORTS.findall(text)))
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in ports]
    free = {port: str(each.getsockname()[1]) for port, each in zip(ports, listening, strict=True)}
    for each in listening:
        each.close()
    return PORTS.sub(lambda found: free[found[0]], text)


@pytest.mark.claim("U1.pages")
@pytest.mark.parametrize("name", RUN)
def test_every_command_of_a_page_does_what_the_page_says(name: str, tmp_path: Path):
    reader = Reader(tmp_path)
    try:
        reader.follow(page(name))
    finally:
        reader.close()


@pytest.mark.claim("U1.first_steps")
def test_the_first_program_of_the_readme_is_run_as_it_stands_there(tmp_path: Path):
    """Up to the commands that name a run of the reader's own; those of the quickstart are run with its names."""
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8").partition("\n## A first program\n")[2]
    first = text.partition("wakes it. Then:\n")[0]
    reader = Reader(tmp_path)
    try:
        reader.follow(first)
        printed, _ = reader.typed("ls; overwinter ps; overwinter doctor")
    finally:
        reader.close()
    for word in ("invoices.py", "overwinter.toml", "remind.py", "1 finished"):
        assert word in printed


@pytest.mark.parametrize("name", RUN)
def test_no_tutorial_is_marked_away(name: str):
    shown = [lines for block in blocks(page(name)) if "file" not in block.options for _, lines in block.commands()]
    assert sum(map(bool, shown)) >= 2, "commands whose output is compared"


@pytest.mark.parametrize(
    "text",
    ["```sh\nfalse\n```\n", "```console\n$ echo a\nb\n```\n", "```toml\na = 1\n```\n", "```sh skip\n:\n```\n", "```sh file=a.sh\n:\n```\n"],
)  # fmt: skip
def test_a_page_that_is_not_true_is_found(text: str, tmp_path: Path):
    reader = Reader(tmp_path)
    try:
        with pytest.raises(AssertionError):
            reader.follow(text)
    finally:
        reader.close()


def test_what_a_command_in_the_background_says_is_waited_for(tmp_path: Path):
    reader = Reader(tmp_path)
    try:
        reader.follow("```console\n$ { sleep 0.3; echo up; } &\nup\n$ kill %1 || true\n```\n")
    finally:
        reader.close()


def test_a_block_is_written_run_or_marked():
    text = "`a.py`:\n```python file=a.py\n1\n```\n```sh norun\nmake\n```\n```console\n$ a\nb\n$ c\n```\n"
    written, typed = blocks(text)
    assert (written.options, written.text) == ({"file": "a.py"}, "1\n")
    assert list(typed.commands()) == [("a", ["b"]), ("c", [])]


def test_output_is_compared_by_its_words_and_their_order():
    printed = "noise\nRUN       WHY\n60VP1234  sleeps until 2026-11-26 02:04:02 UTC, 3 s from now\n1 shown\n"
    assert is_like(["RUN  WHY", "XGCC60VP  sleeps until 2026-01-01 00:00:00 UTC, 12 s from now"], printed)
    assert is_like(["... sleeps ..."], printed)
    assert not is_like(["1 shown", "RUN  WHY"], printed)
    assert not is_like(["2 hidden"], printed)
