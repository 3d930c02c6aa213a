"""google-re2 and Hyperscan as far as they are used here: which part of a match is the value, and where matches are at all."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import re2  # pyright: ignore[reportMissingTypeStubs] - it has none

__all__ = ["ENDS_MAX", "AutomatonFailed", "Regex", "Scan", "Span", "escaped"]

Span = tuple[int, int]

_UNANCHORED: Any = vars(re2)["_Anchor"].UNANCHORED
MEMORY_MAX = 64 << 20
"""Bytes for the program and states of a pattern."""
ENDS_MAX = 50_000
"""Of matches in one text: 5 MB."""


class AutomatonFailed(Exception):
    """An automaton cannot be made, or gave up on a text."""


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


class Scan:
    """Many patterns over bytes in one pass of Hyperscan, which says where each match ends, not where it begins.

    It takes a third of the time of a `re2.Set`, which only says which patterns are there and makes states for values that it has
    not seen. Patterns are in PCRE's syntax, whose spaces have the vertical tab among them and RE2's have not: none may exclude
    spaces by their name. Threads may share one.

    Raises:
        AutomatonFailed: a pattern cannot be compiled, or Hyperscan does not run on this machine.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = tuple(patterns)
        self._all = _Database(patterns, is_single=False)
        self._single: _Database | None = None

    def ends(self, text: bytes) -> Sequence[tuple[int, int]] | None:
        """Return the number of a pattern and the end of a match, for each end that a match of it has; None: too many.

        A pattern that may go on ends at each letter of what it matches, so a file of digits would be a call and an entry for each.

        Raises:
            AutomatonFailed: Hyperscan gave up.
        """
        return self._all.ends(text, ENDS_MAX)

    def present(self, text: bytes) -> Collection[int]:
        """Return which patterns are somewhere in a text, however often.

        Raises:
            AutomatonFailed: Hyperscan gave up.
        """
        if self._single is None:
            self._single = _Database(self._patterns, is_single=True)
        found = self._single.ends(text, len(self._patterns))
        if found is None:
            raise AutomatonFailed("Hyperscan found a pattern twice that it was to find once")
        return {number for number, _ in found}


class _Database:
    """Patterns, compiled."""

    def __init__(self, patterns: Sequence[str], *, is_single: bool) -> None:
        try:
            import hyperscan  # noqa: PLC0415 - 7 MB, and many homes redact nothing
        except ImportError as error:
            raise AutomatonFailed(f"hyperscan cannot be imported ({error}): install it anew") from error
        self._error: type[Exception] = hyperscan.error
        self._over: type[Exception] = hyperscan.ScanTerminated
        try:
            self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
            self._database.compile(
                expressions=[each.encode() for each in patterns], ids=range(len(patterns)), elements=len(patterns),
                flags=hyperscan.HS_FLAG_SINGLEMATCH if is_single else 0,
            )  # fmt: skip
            self._scratch: Callable[[], Any] = partial(hyperscan.Scratch, self._database)
            self._scratches = [self._scratch()]
        except hyperscan.error as error:
            raise AutomatonFailed(f"Hyperscan cannot compile these patterns here: {error}") from error

    def ends(self, text: bytes, count_max: int) -> Sequence[tuple[int, int]] | None:
        """Return the number of a pattern and the end of a match, for each; None: there are more than so many."""
        found: list[tuple[int, int]] = []

        def add(number: int, _start: int, end: int, _flags: int, _context: object) -> bool:
            found.append((number, end))
            return len(found) > count_max

        # A scratch is for one scan at a time; large requests are searched in threads.
        scratch: Any = None
        with suppress(IndexError):
            scratch = self._scratches.pop()
        try:
            scratch = scratch or self._scratch()
            self._database.scan(text, match_event_handler=add, scratch=scratch)
        except self._error as error:
            if not isinstance(error, self._over) or len(found) <= count_max:
                raise AutomatonFailed(f"Hyperscan gave up on a text: {error}") from None
        self._scratches.append(scratch)
        return found if len(found) <= count_max else None


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
