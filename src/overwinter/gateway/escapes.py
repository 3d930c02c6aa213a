"""Texts as those read them who undo their escapes: JSON that stands in prose, in a fence, in a line of a log.

A detector wants to know what stands before a value, and the n of a written line feed is a letter like any other. So a text in
which an escape touches a word is searched once more with its escapes undone. Only where one could hide something: nearly all of
those in source code have a quote behind them.
"""

import re
from array import array
from bisect import bisect_right
from collections.abc import Sequence

from overwinter.frozen import frozen

__all__ = ["ESCAPES_MAX", "View", "views"]

ESCAPES_MAX = 500_000
"""In one text: of 50 MB of them the places alone took gigabytes."""
DEPTH_MAX = 3
"""JSON in JSON in JSON: the escapes of escapes."""
_HIDING = re.compile(r"\\(?:u[0-9a-fA-F]{4}|[nrtbf\"'/](?=[\w+]))")
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[nrtbf\"'/\\])")
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_SURROGATES = range(0xD800, 0xE000)


@frozen(kw_only=False)
class View:
    """A text with its escapes undone."""

    text: str
    _here: Sequence[int]
    """Where stretches begin in it, ascending; each is as long as in the text that it is made of, but for the escapes."""
    _there: Sequence[int]
    """Where they begin in that one."""
    _before: "View | None" = None
    """What it was made of, if that was a view."""

    def place(self, at: int) -> int:
        """Return a position of this text as one of the first; that of an escape is where it begins."""
        stretch = bisect_right(self._here, at) - 1
        there = self._there[stretch] + at - self._here[stretch]
        return there if self._before is None else self._before.place(there)


def views(text: str) -> Sequence[View]:
    """Return a text with its escapes undone, once and again, as long as one of them could hide something.

    Raises:
        ValueError: it has more than `ESCAPES_MAX`.
    """
    found: list[View] = []
    while len(found) < DEPTH_MAX and "\\" in text and _HIDING.search(text) is not None:
        view = _undone(text, found[-1] if found else None)
        if view.text == text:
            break
        found.append(view)
        text = view.text
    return found


def _undone(text: str, before: View | None) -> View:
    parts: list[str] = []
    here, there = array("q", [0]), array("q", [0])
    at = size = 0
    for count, each in enumerate(_ESCAPE.finditer(text)):
        if count >= ESCAPES_MAX:
            raise ValueError(f"a text has more than {ESCAPES_MAX:,} escapes")
        letter = _meant(each[0])
        if not letter:
            continue
        parts += (text[at : each.start()], letter)
        size += each.start() - at
        at = each.end()
        here.extend((size, size + 1))
        there.extend((each.start(), at))
        size += 1
    return View("".join((*parts, text[at:])), here, there, before)


def _meant(escape: str) -> str:
    """Return the letter that an escape stands for; "": half a one, which no detector could take."""
    if len(escape) == 2:  # noqa: PLR2004 - a backslash and a letter
        return _LETTERS.get(escape[1], escape[1])
    codes = [int(each, 16) for each in escape.split("\\u")[1:]]
    if len(codes) > 1:
        return chr(0x10000 + ((codes[0] - 0xD800) << 10) + codes[1] - 0xDC00)
    return "" if codes[0] in _SURROGATES else chr(codes[0])
