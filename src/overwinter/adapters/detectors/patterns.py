"""Hundreds of patterns over many texts in one pass; then only those that may be there, where they may be.

The pass is Hyperscan's. It looks for what a match needs to have in it, a word or the beginning of its form, where a pattern says
so: whole patterns took 0.8 s to compile in place of 0.15. What is there then is RE2's to say, which knows the parts of a match and
looks at the whole text anew: a pass that says too much costs time, and nothing else.

The texts of a request are joined for the pass: three hundred small ones would cost more in calls than in searching. A hit in the
joined text only says which text to look at by itself, so that what is found in one depends on no other.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise

from overwinter.adapters.detectors.automata import Regex, Scan, Span, escaped
from overwinter.frozen import frozen
from overwinter.gateway.redaction import Found

__all__ = ["Look", "Pattern", "Patterns"]

Look = Callable[[str, Span, Span], Iterable[Found]]
"""What a match is: of a text, the span of a match, and of its first group that took part (or of the match) what is found."""

SEPARATOR = b"\n\n\n"
"""Is a border of words and a space to every pattern, even where a match ate one on each side of it."""


ONE = 2
"""Places in the list of where texts begin, if there is one text: the last is where another would."""
Places = Mapping[tuple[int, int], Sequence[Span]]
"""Where to search, by the numbers of a pattern and of a text."""
CONTINUED = range(0x80, 0xC0)
"""Bytes of a character but its first (RFC 3629, 3)."""


@frozen
class Pattern:
    """A shape, and what decides whether something of that shape is a finding."""

    regex: str
    """In RE2's syntax, over the bytes of UTF-8; without `^` and `$` but where a space does as well."""
    look: Look
    words: tuple[str, ...] = ()
    """In small letters; a text is searched if one of them is in it, in any case of letters."""
    needle: str = ""
    """A pattern that is in every match that may be a finding, where there is no such word; "": the whole one. In Hyperscan's
    syntax too."""
    near: tuple[int, int] | None = None
    """Bytes before and after the end of a needle: a match lies within them, or is not found. None: anywhere in the text."""
    line: str = ""
    """A pattern that is in the line of every match that may be a finding, where no match goes beyond its line. Of patterns that
    all have one, only the lines in which one of these is are searched."""

    @property
    def sought(self) -> Sequence[str]:
        """Return patterns of which one is in every text that is searched."""
        return [f"(?i){escaped(word)}" for word in self.words] or [self.needle or self.regex]


class Patterns:
    """Patterns as a detector."""

    def __init__(self, name: str, patterns: Sequence[Pattern]) -> None:
        self._name = name
        self._patterns = tuple(patterns)
        self._sought = _Sought([each.sought for each in patterns])
        lines = [each.line for each in patterns]
        self._line = None if "" in lines else _Sought([[each] for each in dict.fromkeys(lines)])
        self._regexes: dict[str, Regex] = {}
        """Made when a pattern is first sought somewhere: most never are."""

    @property
    def name(self) -> str:
        """Return how errors call it."""
        return self._name

    def find(self, texts: Sequence[str]) -> Sequence[Sequence[Found]]:
        """Return what is in each text."""
        raw = [text.encode("utf-8", "surrogatepass") for text in texts]
        rows: list[list[Found]] = [[] for _ in texts]
        for (number, at), places in self._places(raw).items():
            pattern, read = self._patterns[number], _Read(texts[at], raw[at])
            if pattern.near is not None:
                rows[at] += self._near(pattern, pattern.near, places, read)
                continue
            regex = self._regex(pattern.regex)
            for part in _apart(places) if self._line is not None else [(0, len(raw[at]))]:
                for spans in regex.within(raw[at], *part):
                    rows[at] += pattern.look(read.text, *read.found(spans))
        return rows

    def _near(self, pattern: Pattern, near: tuple[int, int], places: Sequence[Span], read: "_Read") -> Sequence[Found]:
        """Return what is near some places. A match that is none hides no other: it may have begun at another name too early."""
        regex, found, at = self._regex(pattern.regex), list[Found](), 0
        ends = sorted({end for _, end in places})
        if places[0][0] != places[0][1]:  # the whole text
            ends = [spans[0][1] for spans in self._regex(pattern.needle).within(read.raw)]
        for end in ends:
            while (spans := regex.first(read.raw, max(at, end - near[0]), end + near[1])) and spans[0][0] < end:
                more = list(pattern.look(read.text, *read.found(spans)))
                found += more
                at = spans[0][1] if more else spans[0][0] + 1
        return found

    def _places(self, raw: Sequence[bytes]) -> Places:
        joined, begins = _joined(raw)
        if self._line is None:
            return _places(self._sought, joined, begins)
        lines = _lines(self._line, joined, begins)
        if not lines:
            return {}
        found = _places(self._sought, *_joined([raw[at][start:end] for at, start, end in lines]))
        places: dict[tuple[int, int], list[Span]] = {}
        for number, line in found:
            at, start, end = lines[line]
            places.setdefault((number, at), []).append((start, end))
        return places

    def _regex(self, pattern: str) -> Regex:
        regex = self._regexes.get(pattern)
        if regex is None:
            regex = self._regexes[pattern] = Regex(pattern, is_bytes=True)
        return regex


class _Sought:
    """What is sought for several patterns, each thing once."""

    def __init__(self, sought: Sequence[Sequence[str]]) -> None:
        by_regex: dict[str, list[int]] = {}
        for number, each in enumerate(sought):
            for regex in each:
                by_regex.setdefault(regex, []).append(number)
        self._numbers = list(by_regex.values())
        self._scan = Scan(list(by_regex))

    def ends(self, text: bytes) -> Iterator[tuple[Sequence[int], int]] | None:
        """Yield the numbers of those for which something is there, and where it ends; None: that is nearly everywhere."""
        ends = self._scan.ends(text)
        return None if ends is None else ((self._numbers[number], end) for number, end in ends)

    def present(self, text: bytes) -> Collection[int]:
        """Return the numbers of those for which something is there at all."""
        return {number for each in self._scan.present(text) for number in self._numbers[each]}


def _joined(parts: Sequence[bytes]) -> tuple[bytes, Sequence[int]]:
    """Return parts in one text, and where each begins."""
    return SEPARATOR.join(parts), list(accumulate([len(each) + len(SEPARATOR) for each in parts], initial=0))


def _places(sought: _Sought, joined: bytes, begins: Sequence[int]) -> Places:
    places: dict[tuple[int, int], list[Span]] = {}
    ends = sought.ends(joined)
    if ends is None and len(begins) == ONE:
        return {(number, 0): [(0, len(joined))] for number in sought.present(joined)}
    if ends is None:
        return {
            (number, at): found
            for at, text in enumerate(_texts(joined, begins))
            for (number, _), found in _places(sought, *_joined([text])).items()
        }
    for numbers, end in ends:
        at = bisect_right(begins, end - 1) - 1
        place = end - begins[at]
        for number in numbers:
            places.setdefault((number, at), []).append((place, place))
    return places


def _texts(joined: bytes, begins: Sequence[int]) -> Iterator[bytes]:
    """Yield the texts again: where one has something nearly everywhere, that says nothing of the others."""
    return (joined[begin : after - len(SEPARATOR)] for begin, after in pairwise(begins))


def _lines(line: _Sought, joined: bytes, begins: Sequence[int]) -> Sequence[tuple[int, int, int]]:
    """Return the lines to search: the number of the text, and where in it the line begins and ends."""
    lines: list[tuple[int, int, int]] = []
    ends = line.ends(joined)
    if ends is None and len(begins) == ONE:
        return [(0, 0, len(joined))]
    if ends is None:
        return [
            (at, start, end)
            for at, text in enumerate(_texts(joined, begins))
            for _, start, end in _lines(line, *_joined([text]))
        ]
    until = -1
    for hit in sorted([end for _, end in ends]):
        if hit > until:
            at = bisect_right(begins, hit - 1) - 1
            start, until = joined.rfind(b"\n", begins[at], hit) + 1 or begins[at], joined.find(b"\n", hit)
            until = until if until >= 0 else len(joined)
            lines.append((at, start - begins[at], until - begins[at]))
    return lines


def _apart(lines: Sequence[Span]) -> Iterator[Span]:
    """Yield lines of a text in order, each once."""
    return iter(sorted(set(lines)))


class _Read:
    """A text, and its bytes."""

    def __init__(self, text: str, raw: bytes) -> None:
        self.text, self.raw = text, raw
        self._is_ascii = len(text) == len(raw)
        self._at = self._char = 0
        """A byte that was counted to, and the character that it begins."""

    def found(self, spans: Sequence[Span]) -> tuple[Span, Span]:
        """Return a match in characters, and its first group that took part, or the match."""
        whole = spans[0]
        inner = next((span for span in spans[1:] if span[0] >= 0), whole)
        return (whole, inner) if self._is_ascii else (self._chars(whole), self._chars(inner))

    def _chars(self, span: Span) -> Span:
        """Return a span of bytes as one of characters; one that begins or ends within a character takes it whole."""
        raw, (start, end) = self.raw, span
        while 0 < start < len(raw) and raw[start] in CONTINUED:
            start -= 1
        while end < len(raw) and raw[end] in CONTINUED:
            end += 1
        if start < self._at:
            self._at = self._char = 0
        self._char += len(raw[self._at : start].decode("utf-8", "surrogatepass"))
        self._at = start
        return self._char, self._char + len(raw[start:end].decode("utf-8", "surrogatepass"))
