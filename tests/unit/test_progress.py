"""The line on a terminal while sources are imported."""

import io
import threading

import pytest

from overwinter.faces.cli.progress import progress


class Terminal(io.StringIO):
    def __init__(self, *, is_terminal: bool = True) -> None:
        super().__init__()
        self._is_terminal = is_terminal
        self.written = threading.Event()

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str, /) -> int:
        length = super().write(text)
        self.written.set()
        return length


class Seconds:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_import_that_takes_long_is_named_with_its_seconds_and_leaves_no_trace():
    terminal, now_s = Terminal(), Seconds()
    with progress(out=terminal, now_s=now_s) as importing:
        importing("github")
        importing("erp\x1b[2J")
        now_s.now = 3.0
        assert terminal.written.wait(10)
    text = terminal.getvalue()
    assert "importing erp\\x1b[2J (3 s, 1 done)" in text
    assert text.endswith("\r\x1b[K")
    assert text.count("\x1b[2J") == 0


def test_an_import_of_less_than_a_second_shows_nothing():
    terminal = Terminal()
    with progress(out=terminal, now_s=Seconds()) as importing:
        importing("github")
        assert not terminal.written.wait(0.5)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("how", ["json", "no terminal"])
def test_nobody_who_reads_no_terminal_is_shown_a_line(how):
    terminal, now_s = Terminal(is_terminal=how == "json"), Seconds()
    with progress(is_quiet=how == "json", out=terminal, now_s=now_s) as importing:
        importing("github")
        now_s.now = 60.0
        assert not terminal.written.wait(0.5)
    assert terminal.getvalue() == ""
