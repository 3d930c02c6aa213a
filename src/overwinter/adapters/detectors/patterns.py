"""Hundreds of patterns over many texts in one pass, by a google-re2 Set; then only those that hit, where they hit.

It looks for what a pattern needs to have in it, a word or the beginning of its form, where it says so. Whole patterns with gaps in
them multiply each other's states: 260 of them took 12 ms for 20 KB that were new to the automaton, and 0.2 for the same text a
second time; the words take 0.04 either way, and the rest 0.03.

The texts of a request are joined for that pass: three hundred small ones would cost more in calls than in searching. A hit in
the joined text only says which text to look at again by itself, so that what is found in one depends on no other.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from overwinter.adapters.detectors.automata import Automaton, Regex, Span, escaped
from overwinter.frozen import frozen
from overwinter.gateway.redaction import Found

__all__ = ["Look", "Pattern", "Patterns"]

Look = Callable[[str, Span, Span], Iterable[Found]]
"""What a match is: of a text, the span of a match, and of its first group that took part (or of the match) what is found."""

SEPARATOR = b"\n\n\n"
"""Is a border of words and a space to every pattern, even where a match ate one on each side of it."""


ByText = Mapping[int, Iterable[Sequence[Span]]]
"""Matches by the number of their text: the spans of each and of its groups, in that text."""
CONTINUED = range(0x80, 0xC0)
"""Bytes of a character but its first (RFC 3629, 3)."""


@frozen
class Pattern:
    """A shape, and what decides whether something of that shape is a finding."""

    regex: str
    """In RE2's syntax, over the bytes of UTF-8; without `^` and `$` but where a space does as well."""
    look: Look
    words: tuple[str, ...] = ()
    """In small letters; one of them is in every match, in any case of letters."""
    needle: str = ""
    """A pattern that is in every match, where there is no such word."""
    reach: int = 0
    """Bytes that a match goes on behind its needle at most, where it begins with it; then only that much is searched."""
    line: str = ""
    """A pattern that is in the line of every match, where no match goes beyond its line. Of patterns that all have one, only the
    lines in which one of these is are searched."""


class Patterns:
    """Patterns as a detector."""

    def __init__(self, name: str, patterns: Sequence[Pattern]) -> None:
        self._name = name
        self._patterns = tuple(patterns)
        self._near = [number for number, each in enumerate(self._patterns) if each.reach]
        """Nearly every text has the needle of one: to look for it here and there again would be for nothing."""
        self._sought = [number for number, each in enumerate(self._patterns) if not each.reach and not each.words]
        self._automaton = Automaton(
            [self._patterns[each].needle or self._patterns[each].regex for each in self._sought]
        )
        self._keywords = _Keywords([each.words for each in self._patterns])
        lines = dict.fromkeys(each.line for each in self._patterns)
        self._line = None if "" in lines else Regex(f"(?:{'|'.join(lines)})[^\\n]*", is_bytes=True)
        self._regexes: dict[str, Regex] = {}
        """Made when the automaton first says that a pattern hits: most never do."""

    @property
    def name(self) -> str:
        """Return how errors call it."""
        return self._name

    def find(self, texts: Sequence[str]) -> Sequence[Sequence[Found]]:
        """Return what is in each text."""
        raw = [text.encode("utf-8", "surrogatepass") for text in texts]
        rows: list[list[Found]] = [[] for _ in texts]
        joined, begins = _joined(raw)
        if self._line is None:
            for number, by_text in self._matches(joined, begins, raw):
                for at, matches in by_text.items():
                    rows[at].extend(_looked(self._patterns[number], matches, texts[at], raw[at]))
        elif lines := list(_lines(self._line, joined, begins)):
            parts = [joined[start:end] for start, end, _ in lines]
            for number, by_line in self._matches(*_joined(parts), parts):
                for line, matches in by_line.items():
                    start, _, at = lines[line]
                    moved = _moved(matches, begins[at] - start)
                    rows[at].extend(_looked(self._patterns[number], moved, texts[at], raw[at]))
        return rows

    def _matches(self, joined: bytes, begins: Sequence[int], raw: Sequence[bytes]) -> Iterator[tuple[int, ByText]]:
        """Yield the numbers of patterns with their matches."""
        needles: dict[str, ByText] = {}
        for number in self._near:
            pattern = self._patterns[number]
            near = needles.get(pattern.needle)
            if near is None:
                near = needles[pattern.needle] = _by_text(self._regex(pattern.needle), joined, begins, raw)
            regex = self._regex(pattern.regex)
            yield number, {at: _near(regex, places, raw[at], pattern.reach) for at, places in near.items()}
        for number, places in self._keywords.places(joined).items():
            regex = self._regex(self._patterns[number].regex)
            yield number, {at: regex.within(raw[at]) for at in {bisect_right(begins, place) - 1 for place in places}}
        for hit in self._automaton.hits(joined):
            number = self._sought[hit]
            yield number, _by_text(self._regex(self._patterns[number].regex), joined, begins, raw)

    def _regex(self, pattern: str) -> Regex:
        regex = self._regexes.get(pattern)
        if regex is None:
            regex = self._regexes[pattern] = Regex(pattern, is_bytes=True)
        return regex


class _Keywords:
    """The words of all patterns in one regular expression, which says where they are; a set says only that they are."""

    def __init__(self, words: Sequence[Sequence[str]]) -> None:
        every = sorted({word for each in words for word in each})
        self._any = Regex(f"(?i){'|'.join(map(escaped, every))}", is_bytes=True, is_longest=True) if every else None
        # Where a word begins, shorter ones may begin as well; those that begin later are found by themselves.
        self._patterns = {
            word.encode(): [number for number, each in enumerate(words) if word.startswith(tuple(each))]
            for word in every
        }

    def places(self, joined: bytes) -> Mapping[int, Sequence[int]]:
        """Return the numbers of the patterns of which a word is there, and where."""
        found: dict[int, list[int]] = {}
        start = 0
        while self._any is not None and (spans := self._any.first(joined, start)) is not None:
            begin, end = spans[0]
            for number in self._patterns[joined[begin:end].lower()]:
                found.setdefault(number, []).append(begin)
            start = begin + 1
        return found


def _joined(parts: Sequence[bytes]) -> tuple[bytes, Sequence[int]]:
    """Return parts in one text, and where each begins."""
    return SEPARATOR.join(parts), list(accumulate([len(each) + len(SEPARATOR) for each in parts], initial=0))


def _lines(line: Regex, joined: bytes, begins: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield where a line to search begins and ends, and the number of its text."""
    end = 0
    for (hit, until), *_ in line.within(joined):
        start, end = max(joined.rfind(b"\n", end, hit) + 1, end), until
        yield start, end, bisect_right(begins, start) - 1


def _by_text(regex: Regex, joined: bytes, begins: Sequence[int], raw: Sequence[bytes]) -> ByText:
    """Return the matches by text.

    A text that a match across its border touches is searched by itself: the match may be none there, or hide a true one.
    """
    by_text: dict[int, list[Sequence[Span]]] = {}
    crossed: set[int] = set()
    for spans in regex.within(joined):
        first = bisect_right(begins, spans[0][0]) - 1
        begin, end = begins[first], begins[first + 1] - len(SEPARATOR)
        if spans[0][1] > end:
            crossed.update(range(first, min(bisect_right(begins, spans[0][1]), len(raw))))
        else:
            by_text.setdefault(first, []).append(_less(spans, begin))
    return {**by_text, **{at: list(regex.within(raw[at])) for at in crossed}}


def _less(spans: Sequence[Span], begin: int) -> Sequence[Span]:
    return [(a - begin, b - begin) if a >= 0 else (a, b) for a, b in spans]


def _moved(matches: Iterable[Sequence[Span]], by: int) -> Iterator[Sequence[Span]]:
    return (_less(spans, by) for spans in matches)


def _near(regex: Regex, needles: Iterable[Sequence[Span]], raw: bytes, reach: int) -> Iterator[Sequence[Span]]:
    """Yield the matches that begin in a needle."""
    for (start, end), *_ in needles:
        at = start
        while (spans := regex.first(raw, at, end + reach)) is not None and spans[0][0] < end:
            yield spans
            at = max(spans[0][1], at + 1)


def _looked(pattern: Pattern, matches: Iterable[Sequence[Span]], text: str, raw: bytes) -> Iterator[Found]:
    is_ascii = len(text) == len(raw)
    for spans in matches:
        whole = inner = spans[0]
        for span in spans[1:]:
            if span[0] >= 0:
                inner = span
                break
        if not is_ascii:
            whole, inner = _chars(raw, whole), _chars(raw, inner)
        yield from pattern.look(text, whole, inner)


def _chars(raw: bytes, span: Span) -> Span:
    """Return a span of bytes as one of characters; one that begins or ends within a character takes it whole."""
    start, end = span
    while 0 < start < len(raw) and raw[start] in CONTINUED:
        start -= 1
    while end < len(raw) and raw[end] in CONTINUED:
        end += 1
    before = len(raw[:start].decode("utf-8", "surrogatepass"))
    return before, before + len(raw[start:end].decode("utf-8", "surrogatepass"))
