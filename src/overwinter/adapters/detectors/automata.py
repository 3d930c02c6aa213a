"""google-re2 as far as it is used here, with types: it ships none."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import re2  # pyright: ignore[reportMissingTypeStubs] - it has none

__all__ = ["Automaton", "AutomatonFailed", "Regex", "Span", "escaped"]

Span = tuple[int, int]

_UNANCHORED: Any = vars(re2)["_Anchor"].UNANCHORED
MEMORY_MAX = 64 << 20
"""Bytes for the program and states of a pattern, or of a set; with RE2's own 8 MB the states of a set are made anew all the time."""


END = b"\xff"
"""In no text of UTF-8."""


class AutomatonFailed(Exception):
    """RE2 gave up on a text."""


class Regex:
    """One pattern over texts, or over the bytes of UTF-8: a third of the states."""

    def __init__(
        self, pattern: str, *, is_bytes: bool = False, is_longest: bool = False, memory_max: int = MEMORY_MAX
    ) -> None:
        options = _options(is_bytes=is_bytes, memory_max=memory_max, longest_match=is_longest)
        self._regex: Any = re2.compile(pattern.encode() if is_bytes else pattern, options)
        # Below the wrapper, which makes three objects of a match: a quarter of what a search of 20 KB costs.
        self._match: Any = self._regex._regexp.Match  # noqa: SLF001 - it has no other name

    def has(self, text: str) -> bool:
        """Return whether the pattern is somewhere in a text."""
        raw = text.encode("utf-8", "surrogatepass")
        return self._match(_UNANCHORED, raw, 0, len(raw))[0][0] >= 0

    def spans(self, text: str) -> Iterator[Sequence[Span]]:
        """Yield the matches, which do not overlap: the span of each and of its groups, (-1, -1) for one that took no part."""
        for match in self._regex.finditer(text):
            yield [match.span(group) for group in range((match.re.groups or 0) + 1)]

    def within(self, text: bytes, start: int = 0, end: int | None = None) -> Iterator[Sequence[Span]]:
        """Yield the same of a part of a text; what stands before the part and behind it is seen by borders of words."""
        until = len(text) if end is None or end > len(text) else end
        match = self._match
        while start <= until:
            spans: Sequence[Span] = match(_UNANCHORED, text, start, until)
            begin, after = spans[0]
            if begin < 0:
                return
            yield spans
            start = after if after > start else start + 1

    def first(self, text: bytes, start: int = 0, end: int | None = None) -> Sequence[Span] | None:
        """Return the first of them."""
        until = len(text) if end is None or end > len(text) else end
        if start > until:
            return None
        spans: Sequence[Span] = self._match(_UNANCHORED, text, start, until)
        return None if spans[0][0] < 0 else spans


class Automaton:
    """Many patterns over bytes in one pass."""

    def __init__(self, patterns: Sequence[str], *, memory_max: int = MEMORY_MAX) -> None:
        self._set: Any = re2.Set.SearchSet(_options(is_bytes=True, memory_max=memory_max))
        self._size = len(patterns)
        for each in patterns:
            self._set.Add(each.encode())
        # A set that runs out of memory says the same as one that finds nothing. This pattern is at the end of every text: one
        # that matched everywhere would have its number written down at each byte, which took twice as long as all the others.
        self._set.Add(END)
        self._set.Compile()

    def hits(self, text: bytes) -> Sequence[int]:
        """Return which patterns are somewhere in a text.

        Raises:
            AutomatonFailed: RE2 gave up.
        """
        found = cast("Sequence[int] | None", self._set.Match(text + END))
        if not found:
            raise AutomatonFailed("RE2 gave up on a text: it ran out of memory")
        return [number for number in found if number < self._size]


def escaped(text: str) -> str:
    """Return a pattern of a text."""
    return cast("str", re2.escape(text))


def _options(*, is_bytes: bool, memory_max: int, **more: bool) -> Any:
    options: Any = re2.Options()
    if is_bytes:
        options.encoding = re2.Options.Encoding.LATIN1
    # RE2 would write what it cannot do to standard error, with the pattern.
    for name, value in {"max_mem": memory_max, "log_errors": False, **more}.items():
        setattr(options, name, value)
    return options
