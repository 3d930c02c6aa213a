"""Every command that the README and the docs show is one that there is, with its options and words; also those nobody can run here."""

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from overwinter.faces.cli import cli
from tutorial import FENCE, TYPED

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CHOICE = re.compile(r"(?<=\w)\|\w+")
"""Of `pause|resume` what is read is `pause`."""
MADE = re.compile(r"\$\([^)]*\)")
"""A word that the shell makes of another command."""
OPERATORS = {"|", "||", "&", "&&", ";", ">", ">>", "2>", "<"}


def typed(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command of ours on a page."""
    text = page.read_text(encoding="utf-8")
    for line in (line for found in FENCE.finditer(text) if found[1] in TYPED for line in _lines(found[3])):
        lexer = shlex.shlex(CHOICE.sub("", MADE.sub("made", line)), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        ends = [place for place, word in enumerate(words) if word in OPERATORS]
        yield words[1 : ends[0] if ends else None]


def _lines(block: str) -> Iterator[str]:
    for line in block.replace("\\\n", "").splitlines():
        found = line.removeprefix("$ ")
        if found.startswith("overwinter "):
            yield found


def understood(words: list[str]) -> None:
    """Read words as the command line does, up to the point at which it would act.

    Raises:
        Exception: it does not know them.
    """
    command: Any = get_command(cli)
    context, name = None, "overwinter"
    with suppress(typer.Exit):  # `--help`
        while command is not None:
            context = command.make_context(name, list(words), parent=context)
            words = [*context._protected_args, *context.args]
            is_group = hasattr(command, "resolve_command") and bool(words)
            name, command, words = command.resolve_command(context, words) if is_group else ("", None, [])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_on_a_page_is_one_that_there_is(page: Path):
    for words in typed(page):
        try:
            understood(words)
        except Exception as error:  # noqa: BLE001 - whatever it is, the page is wrong
            pytest.fail(f"{page.name}: overwinter {shlex.join(words)}: {error}")


def test_the_readme_has_commands_and_a_wrong_one_is_found():
    assert len(list(typed(ROOT / "README.md"))) > 30
    for words in (["runs"], ["ps", "--al"], ["show"], ["audit", "log", "--nobody"]):
        with pytest.raises(Exception, match=r"No such|Missing"):
            understood(words)
