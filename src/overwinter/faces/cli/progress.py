"""A line on the terminal while sources are imported, once that takes over a second; the last line of it is its own eraser."""

import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO

from overwinter.faces.cli.render import safe

__all__ = ["progress"]

QUIET_S = 1.0
TICK_S = 0.2
ERASE = "\r\x1b[K"


@contextmanager
def progress(
    *, is_quiet: bool = False, out: TextIO | None = None, now_s: Callable[[], float] = time.monotonic
) -> "Generator[Callable[[str], None]]":
    """Yield what is told the name of each service whose import begins; show it on a terminal until the block is left.

    Args:
        is_quiet: show nothing.
        out: the terminal; standard error if None. What is no terminal is shown nothing.
        now_s: a clock that never goes back.
    """
    terminal: TextIO = sys.stderr if out is None else out
    if is_quiet or not terminal.isatty():
        yield lambda _: None
        return
    line = _Line(terminal, now_s)
    ticking = threading.Thread(target=line.tick, name="overwinter-progress", daemon=True)
    ticking.start()
    try:
        yield line.say
    finally:
        line.ended.set()
        ticking.join()


class _Line:
    def __init__(self, out: TextIO, now_s: Callable[[], float]) -> None:
        self._out, self._now_s = out, now_s
        self._began_s = now_s()
        self._name, self._count = "", 0
        self.ended = threading.Event()

    def say(self, name: str) -> None:
        self._name, self._count = name, self._count + 1

    def tick(self) -> None:
        is_shown = False
        while not self.ended.wait(TICK_S):
            took_s = self._now_s() - self._began_s
            if self._name and took_s >= QUIET_S:
                is_shown = True
                before = f", {self._count - 1} done" if self._count > 1 else ""
                self._out.write(f"{ERASE}importing {safe(self._name)} ({took_s:.0f} s{before})")
                self._out.flush()
        if is_shown:
            self._out.write(ERASE)
            self._out.flush()
