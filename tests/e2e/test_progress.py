"""What a person sees on a real terminal while a home imports a description for the first time, and a program does not."""

import lzma
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from shells import Shell

DESCRIPTIONS = Path(__file__).parents[2] / "bench/data"


@pytest.fixture
def large(shell: Shell) -> Shell:
    services = ""
    for name in ("github", "stripe"):
        (shell.place / f"{name}.json").write_bytes(lzma.decompress((DESCRIPTIONS / f"{name}.json.xz").read_bytes()))
        services += f'[services.{name}]\nopenapi = "{name}.json"\nbase_url = "http://127.0.0.1:1"\n'
    (shell.place / "overwinter.toml").write_text(
        f'[agents.default]\nowner = "o@example.com"\ntools = ["*"]\n{services}'
    )
    return shell


def on_terminal(shell: Shell, *words: str) -> tuple[str, str]:
    """Run a command whose standard error is a terminal; return what came there, and its output."""
    ours, theirs = pty.openpty()
    command = subprocess.Popen(
        [sys.executable, "-m", "overwinter", *words],
        cwd=shell.place, env=shell.environment, stdout=subprocess.PIPE, stderr=theirs, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            seen += os.read(ours, 1 << 16)
        except OSError:  # EIO: the last one who had it open has closed it
            break
    os.close(ours)
    return seen.decode(), command.communicate()[0]


def test_a_first_start_and_a_refresh_say_on_a_terminal_what_they_import(large: Shell):
    seen, out = on_terminal(large, "tools", "refresh")
    assert "importing " in seen
    assert seen.endswith("\r\x1b[K")
    assert "imported github, stripe" in out


def test_a_machine_is_shown_no_progress(large: Shell):
    seen, out = on_terminal(large, "tools", "list", "--json")
    assert seen == ""
    assert "github" in out
