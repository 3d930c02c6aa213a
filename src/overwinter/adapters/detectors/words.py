"""The user's own words: names of projects, customers, people; thousands of them in one pattern."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from overwinter.adapters.detectors.automata import Regex, escaped
from overwinter.errors import UsageError
from overwinter.frozen import frozen
from overwinter.gateway.redaction import Found

__all__ = ["WordList", "Words"]

WORDS_MAX = 50_000
LETTERS_MIN = 2
MEMORY_MAX = 256 << 20
"""Bytes at most, for as many words; 5,000 take 15 MB."""
SEPARATOR = "\0"
"""Of texts in one pass: in no word, and a border of words."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")


@frozen
class WordList:
    """Words under a name that may be seen: the class of a word is `word:NAME`."""

    name: str
    words: tuple[str, ...]
    is_exact: bool = False
    """Capitals matter."""


class Words:
    """Lists of words as a detector: whole words and phrases, spaces as they are given."""

    def __init__(self, lists: Sequence[WordList]) -> None:
        if sum(len(each.words) for each in lists) > WORDS_MAX:
            raise UsageError(f"there are more than {WORDS_MAX} words of your own: split them over several gateways")
        self._exact = {form: each.name for each in lists if each.is_exact for form in _all_forms(each, exact=True)}
        self._folded = {form.casefold(): each.name for each in lists if not each.is_exact for form in _all_forms(each)}
        exact = "|".join(map(_whole, sorted(self._exact)))
        folded = "|".join(_whole(form) for each in lists if not each.is_exact for form in sorted(_all_forms(each)))
        both = "|".join(part for part in (exact and f"(?:{exact})", folded and f"(?i:{folded})") if part)
        self._any = Regex(both, is_longest=True, memory_max=MEMORY_MAX) if both else None

    @property
    def name(self) -> str:
        """Return how errors call it."""
        return "words of your own"

    def find(self, texts: Sequence[str]) -> Sequence[Sequence[Found]]:
        """Return the words in each text."""
        rows: list[list[Found]] = [[] for _ in texts]
        if self._any is None:
            return rows
        joined = SEPARATOR.join(texts)
        begins = list(accumulate((len(text) + 1 for text in texts), initial=0))
        for (start, end), *_ in self._any.spans(joined):
            word = joined[start:end]
            name = self._exact.get(word) or self._folded.get(word.casefold())
            if name is not None and not _goes_on(joined, start, end):
                at = bisect_right(begins, start) - 1
                rows[at].append(Found(start - begins[at], end - begins[at], f"word:{name}"))
        return rows


def _all_forms(words: WordList, *, exact: bool = False) -> Iterable[str]:
    """Return every form in which a word is looked for; Unicode writes an umlaut in two ways, and "STRASSE" is "Straße"."""
    if not _NAME.fullmatch(words.name):
        raise UsageError(f"a list of words cannot be called {words.name!r}: use small letters, digits, - and _")
    forms: set[str] = set()
    for word in words.words:
        if len(word.strip()) < LETTERS_MIN or SEPARATOR in word:
            raise UsageError(
                f"the list {words.name!r} has a word of fewer than {LETTERS_MIN} letters: it would be everywhere"
            )
        for form in (word, unicodedata.normalize("NFC", word), unicodedata.normalize("NFD", word)):
            forms |= {form} if exact else {form, form.casefold(), form.upper()}
    return forms


def _whole(form: str) -> str:
    """Return a pattern of a word; borders of ASCII here, of other letters in `_goes_on`: RE2 knows no others."""
    return f"{_border(form[0])}{escaped(form)}{_border(form[-1])}"


def _border(letter: str) -> str:
    return r"\b" if letter.isascii() and (letter.isalnum() or letter == "_") else ""


def _goes_on(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start], text[end : end + 1]
    return (before.isalnum() and text[start].isalnum()) or (after.isalnum() and text[end - 1].isalnum())
