"""A page of docs/ as its reader works through it: its files written, its commands typed into one shell, word by word.

What follows the language of a fence, which no reader sees, says what a block is:

    ```python file=collect.py    the file of that name, which the text before it names too
    ```sh                        commands; each must succeed
    ```console                   commands after `$ `, and what they print
    ```console exit=3            the last command of the block ends with 3
    ```toml norun                nothing to be done with it here
"""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import overwinter

EXAMPLES = Path(__file__).parents[1] / "examples"
SOURCE = Path(overwinter.__file__).parents[1]
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TYPED = ("sh", "console")
LOOKS = re.compile(
    r"cat |overwinter ((ps|show|inbox|questions|agents|logs|audit log)\b|(schedule( show \S+)?|webhooks)$)"
)
"""Commands that only look: what they should show may be a moment away, as it is for a person."""
COMMAND_S_MAX, LOOK_S_MAX = 60.0, 45.0
END = "----8<----"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    language: str
    options: Mapping[str, str]
    text: str
    before: str
    """The page up to it."""

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each command with the lines that it should print."""
        lines = self.text.replace("\\\n", "").splitlines()
        if self.language == "sh":
            yield from ((line, []) for line in lines if line and not line.startswith("#"))
            return
        starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        assert starts[:1] == [0], f"a console block begins with `$ `: {self.text}"
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            yield lines[start][2:], lines[start + 1 : end]


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of a page that are for its reader to do."""
    for found in FENCE.finditer(text):
        options = {name: value for name, _, value in (word.partition("=") for word in found[2].split())}
        assert options.keys() <= {"file", "exit", "norun"}, f"nobody reads {options} of a fence"
        if "norun" not in options:
            yield Block(language=found[1], options=options, text=found[3], before=text[: found.start()])


def is_like(shown: list[str], printed: str) -> bool:
    """Return whether a command printed the lines that the page shows, in their order, whatever stands between them.

    Numbers, times, ids and the width of gaps may be others; `...` stands for anything.
    """
    rest = iter(_likeness(line) for line in printed.splitlines())
    patterns = [re.compile(re.escape(_likeness(line)).replace(re.escape("..."), ".*")) for line in shown]
    return all(any(pattern.fullmatch(line) for line in rest) for pattern in patterns)


def _likeness(line: str) -> str:
    return re.sub(r"\b[0-9A-Z]{4,}\b|\d+(\.\d+)?", "0", " ".join(line.split()))


class Reader:
    """A person in a directory of their own with one shell, who does what a page says."""

    def __init__(self, place: Path) -> None:
        (place / "examples").symlink_to(EXAMPLES)  # the pages begin in a checkout
        commands = place / ".bin"
        commands.mkdir()
        (commands / "overwinter").write_text(f'#!/bin/sh\nexec {sys.executable} -m overwinter "$@"\n')
        (commands / "overwinter").chmod(0o755)
        path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]])
        home = {"HOME": str(place), "PATH": path, "NO_COLOR": "1", "COLUMNS": "200", "PYTHONPATH": str(SOURCE)}
        self.shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], cwd=place, env={**os.environ, **home},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.rest = b""
        """What one in the background said when the command before it had ended."""

    def follow(self, text: str) -> None:
        """Do all that a page says."""
        for block in blocks(text):
            if name := block.options.get("file"):
                assert f"`{name}`" in block.before[-600:], f"the text before it does not say that this is {name}"
                where, _ = self.typed("pwd")
                Path(where.strip(), name).write_text(block.text)
                continue
            assert block.language in TYPED, f"neither file= nor norun: {block.text}"
            done = list(block.commands())
            for number, (command, shown) in enumerate(done, 1):
                self.does(command, shown, int(block.options.get("exit", 0)) if number == len(done) else 0)

    def does(self, command: str, shown: list[str], code: int) -> None:
        """Type a command; one that only looks again and again until it shows what it should.

        One in the background is waited for until it has said what it should.
        """
        deadline = time.monotonic() + LOOK_S_MAX
        is_behind = command.endswith("&")
        printed, ended = self.typed(command)
        while not (ended == code and is_like(shown, printed)):
            is_over = time.monotonic() > deadline or not (shown and (is_behind or LOOKS.match(command)))
            assert not is_over, f"$ {command}\nexit {ended}\n{printed}\nwhere the page shows\n" + "\n".join(shown)
            more, ended = self.typed("sleep 0.1" if is_behind else command)
            printed = printed + more if is_behind else more

    def typed(self, command: str) -> tuple[str, int]:
        """Return what a command prints, and its exit code."""
        assert self.shell.stdin is not None
        self.shell.stdin.write(f"{{ {command}\n}} </dev/null; printf '\\n{END} %s\\n' $?\n".encode())
        self.shell.stdin.flush()
        assert self.shell.stdout is not None
        deadline, seen = time.monotonic() + COMMAND_S_MAX, self.rest
        while not (found := re.fullmatch(rb"(?s)(.*?)\n" + END.encode() + rb" (\d+)\n(.*)", seen)):
            ready, _, _ = select.select([self.shell.stdout], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(self.shell.stdout.fileno(), 65_536) if ready else b""
            assert more, f"$ {command}\ndoes not end, and printed so far\n{seen.decode()}"
            seen += more
        self.rest = found[3]
        return found[1].decode(), int(found[2])

    def close(self) -> None:
        """End the shell and all that it left in the background."""
        os.killpg(self.shell.pid, signal.SIGKILL)
        self.shell.communicate()
