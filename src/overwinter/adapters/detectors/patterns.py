"""Hundreds of patterns over many texts in one pass, by a google-re2 Set; then only those that hit, where they hit.

The texts of a request are joined for that pass: three hundred small ones would cost more in calls than in searching. A hit in
the joined text only says which text to look at again by itself, so that what is found in one depends on no other.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from overwinter.adapters.detectors.automata import Automaton, Regex, Span
from overwinter.gateway.redaction import Found

__all__ = ["Look", "Pattern", "Patterns"]

Look = Callable[[str, Span, Span], Iterable[Found]]
"""What a match is: of a text, the span of a match, and of its first group that took part (or of the match) what is found."""

SEPARATOR = b"\n\n\n"
"""Is a border of words and a space to every pattern, even where a match ate one on each side of it."""


CONTINUED = range(0x80, 0xC0)
"""Bytes of a character but its first (RFC 3629, 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A shape, and what decides whether something of that shape is a finding."""

    regex: str
    """In RE2's syntax, over the bytes of UTF-8; without `^` and `$` but where a space does as well."""
    look: Look


class Patterns:
    """Patterns as a detector."""

    def __init__(self, name: str, patterns: Sequence[Pattern]) -> None:
        self._name = name
        self._patterns = tuple(patterns)
        self._automaton = Automaton([each.regex for each in self._patterns])
        self._regexes: dict[int, Regex] = {}
        """Made when the automaton first says that a pattern hits: most never do."""

    @property
    def name(self) -> str:
        """Return how errors call it."""
        return self._name

    def find(self, texts: Sequence[str]) -> Sequence[Sequence[Found]]:
        """Return what is in each text."""
        raw = [text.encode("utf-8", "surrogatepass") for text in texts]
        rows: list[list[Found]] = [[] for _ in texts]
        joined = SEPARATOR.join(raw)
        begins = list(accumulate((len(each) + len(SEPARATOR) for each in raw), initial=0))
        for number in self._automaton.hits(joined):
            pattern = self._patterns[number]
            regex = self._regexes.setdefault(number, self._regexes.get(number) or Regex(pattern.regex, is_bytes=True))
            for at in _touched(regex, joined, begins) if len(raw) > 1 else (0,):
                rows[at].extend(_found(pattern, regex, texts[at], raw[at]))
        return rows


def _touched(regex: Regex, joined: bytes, begins: Sequence[int]) -> Sequence[int]:
    """Return the texts that a match touches: also one across a border, which may hide a true one behind it."""
    touched: dict[int, None] = {}
    for (start, end), *_ in regex.spans(joined):
        for at in range(bisect_right(begins, start) - 1, min(bisect_right(begins, end), len(begins) - 1)):
            touched[at] = None
    return list(touched)


def _found(pattern: Pattern, regex: Regex, text: str, raw: bytes) -> Iterator[Found]:
    is_ascii = len(text) == len(raw)
    for whole, *groups in regex.spans(raw):
        inner = next((span for span in groups if span[0] >= 0), whole)
        yield from pattern.look(text, *((whole, inner) if is_ascii else (_chars(raw, whole), _chars(raw, inner))))


def _chars(raw: bytes, span: Span) -> Span:
    """Return a span of bytes as one of characters; one that begins or ends within a character takes it whole."""
    start, end = span
    while 0 < start < len(raw) and raw[start] in CONTINUED:
        start -= 1
    while end < len(raw) and raw[end] in CONTINUED:
        end += 1
    before = len(raw[:start].decode("utf-8", "surrogatepass"))
    return before, before + len(raw[start:end].decode("utf-8", "surrogatepass"))
