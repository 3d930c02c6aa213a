"""Personal data: e-mail addresses, cards, accounts, telephones, identities; what has a check digit is checked.

Digits are found once, as runs with the separators that people write, and then looked at in every way in which the run can be
cut at its separators: a card behind a house number is one run to a pattern. A number whose check digit is weak, or that has
none, counts only behind a word that says what it is.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from overwinter.adapters.detectors.automata import Span
from overwinter.adapters.detectors.checksums import (
    CARD_DIGITS,
    IBAN_LENGTHS,
    NUMBERS,
    TEXTS,
    is_card,
    is_iban,
)
from overwinter.adapters.detectors.patterns import Pattern
from overwinter.gateway.redaction import Found

__all__ = ["SIX", "patterns"]

CONTEXT_CHARS_MAX = 48
"""Before a number, in which the word that explains it is looked for."""
GROUPS_MAX = 8
"""Of digits, in one number: a French identity has seven."""
COLONS = 7
"""In an address of IPv6 that is written out."""
RUN_MAX = 400
"""Groups of one run that are looked at: a table of numbers is a run."""

_GROUP = re.compile(r"\d+")
_CARD = re.compile(r"\d+(?:([ -]|\u00a0)\d+(?:\1\d+)*)?")
_NUMBERS = {
    size: tuple(
        (kind, re.compile(form), check, re.compile(words, re.IGNORECASE)) for kind, form, check, words in numbers
    )
    for size, numbers in NUMBERS.items()
}
_SIZES = frozenset(NUMBERS) | frozenset(CARD_DIGITS)
_SIZE_MIN = min(_SIZES)
_DATE = re.compile(r"(?:19|20)\d{2}([-/.])(?:0[1-9]|1[0-2])\1[0-3]\d(?!\d)")
_FILES = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css", "html", "py", "so", "md", "json"})
_CALLING = re.compile(
    r"1|7|2[07]|2[1-689]\d|3[0-469]|3[578]\d|4[013-9]|42\d|5[1-8]|5[09]\d|6[0-6]|6[789]\d|8[1246]|8[058]\d|9[0-58]|9[679]\d"
)
"""Country codes (ITU-T E.164)."""
_NANP = re.compile(r"(?:\+?1[ .-]?)?\(?[2-9]\d{2}\)?[ .-]?[2-9]\d{2}[ .-]?\d{4}")

_DIGITS = r"\d(?:(?:[ ./-]|\xc2\xa0)?\d){8,}"
_EMAIL = r"[A-Za-z0-9.%&'+_~\x80-\xff-]+@[A-Za-z0-9\x80-\xff-]+(?:\.[A-Za-z0-9\x80-\xff-]+)+"
_IBAN = r"(?i)\b[A-Z]{2}\d{2}(?:(?:[ -]|\xc2\xa0)?[A-Z0-9]){11,}"
_PHONE = r"(?:\+|\b00)[1-9](?:[ ().\-/]{0,3}\d){6,16}"
_PHONE_SAID = r"(?i)\b(?:tele?(?:phone|fono|fon|f)?|phone|mobile?|mobil|cell|fax|call|handy|rufnummer|ring|sms|whatsapp|t[e\xc3\xa9]+l)\b[^\n\d(+]{0,24}([(\d][\d ().\-/]{5,20}\d)"
_PHONE_US = r"(\(\d{3}\) ?\d{3}[-. ]\d{4}|\b\d{3}[-.]\d{3}[-.]\d{4})\b"
_PASSPORT = r"(?i)\b(?:passport|reisepass|passeport|pasaporte|passaporto|paspoort)(?:[ -]?(?:number|no|nr|n\xc2\xb0|num|numm?er|#))?\.?[^\w\n]{0,4}(?:is |ist |: ?)?([A-Z0-9]{6,10})\b"
_IP = r"\b\d{1,3}(?:\.\d{1,3}){3}\b|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}"

# What is in every match that may be a finding (`Pattern.needle`), where the whole would take longer to compile or to find.
_NINE = r"\d(?:[ ./\xc2\xa0-]{0,2}\d){8}"
_PHONE_NEEDLE = r"(?:\+|\b00)[1-9](?:[ ().\-/]{0,3}\d){6}"
_ADDRESS_NEEDLE = r"\d\.\d{1,3}\.\d{1,3}\.\d|::|(?::[0-9A-Fa-f]{1,4}){7}"

# What is in the line of every match (`Pattern.line`): few lines have any of them, and the shorter the faster they are found.
SIX = r"\d(?:(?:[ ().\-/]|\xc2\xa0)*\d){5}"
"""Six digits: in telephones, accounts, cards, most identities."""
_AT = r"[A-Za-z0-9.%&'+_~\x80-\xff-]@[A-Za-z0-9\x80-\xff-]"
_IBAN_BEGINS = r"[A-Za-z]{2}\d{2}(?:(?:[ -]|\xc2\xa0)?[A-Za-z0-9]){2}"
_PASSPORT_SAID = r"(?i)(?:pass[aep]|pasap|paspo|reisepass)"
_ADDRESS = r"\.\d{1,3}\.\d|:[0-9A-Fa-f]{1,4}:|::"


def patterns(*, has_ip: bool = False) -> Sequence[Pattern]:
    """Return the patterns; those of addresses of computers, which are in every log, only if asked for."""
    identities = [
        Pattern(regex=form, look=_Identity(check, re.compile(words, re.IGNORECASE)).look, line=line or SIX)
        for form, check, words, line in TEXTS
    ]
    return [
        Pattern(regex=_DIGITS, look=_digits, needle=_NINE, line=SIX),
        Pattern(regex=_EMAIL, look=_email, line=_AT),
        Pattern(regex=_IBAN, look=_iban, line=_IBAN_BEGINS),
        Pattern(regex=_PHONE, look=_phone, needle=_PHONE_NEEDLE, line=SIX),
        Pattern(regex=_PHONE_SAID, look=_phone_said, line=SIX),
        Pattern(regex=_PHONE_US, look=_phone_us, line=SIX),
        Pattern(regex=_PASSPORT, look=_passport, line=_PASSPORT_SAID),
        *identities,
        *([Pattern(regex=_IP, look=_ip, needle=_ADDRESS_NEEDLE, line=_ADDRESS)] if has_ip else []),
    ]


def _digits(text: str, whole: Span, _: Span) -> Iterator[Found]:
    """Yield the cards and identities in a run of digits and separators."""
    groups = [each.span() for each in _GROUP.finditer(text, *whole)][:RUN_MAX]
    if sum(end - start for start, end in groups) < _SIZE_MIN:  # a day, mostly
        return
    if not groups or _is_inside_word(text, groups[0][0], groups[-1][1]):
        groups = groups[1:] if groups and _is_letter(text, groups[0][0] - 1) else groups
    at = 0
    while at < len(groups):
        if _DATE.match(text, groups[at][0]):
            at += 3
            continue
        found = next(_numbers(text, groups[at : at + GROUPS_MAX]), None)
        if found is None:
            at += 1
        else:
            yield found
            at = next((later for later in range(at, len(groups)) if groups[later][0] >= found.end), len(groups))


def _numbers(text: str, groups: Sequence[Span]) -> Iterator[Found]:
    """Yield the numbers that begin with the first group, the longest first."""
    start = groups[0][0]
    sizes = list(accumulate(end - begin for begin, end in groups))
    for count in range(len(groups), 0, -1):
        size, end = sizes[count - 1], groups[count - 1][1]
        if size not in _SIZES or _is_letter(text, end):
            continue
        written = text[start:end]
        digits = "".join(text[a:b] for a, b in groups[:count])
        if size in CARD_DIGITS and _is_card_written(text, start, end, written) and is_card(digits):
            yield Found(start, end, "card")
        for kind, form, check, words in _NUMBERS.get(size, ()):
            if form.fullmatch(written) and check(digits) and _is_said(text, start, words):
                yield Found(start, end, kind)


def _is_card_written(text: str, start: int, end: int, written: str) -> bool:
    is_fraction = text[start - 1 : start] == "." or (text[end : end + 1] == "." and text[end + 1 : end + 2].isdigit())
    return not is_fraction and _CARD.fullmatch(written) is not None


def _is_said(text: str, start: int, words: "re.Pattern[str]") -> bool:
    return not words.pattern or words.search(text, max(0, start - CONTEXT_CHARS_MAX), start) is not None


def _is_letter(text: str, at: int) -> bool:
    return 0 <= at < len(text) and (text[at].isalnum() or text[at] == "_")


def _is_inside_word(text: str, start: int, end: int) -> bool:
    return _is_letter(text, start - 1) or _is_letter(text, end)


def _email(text: str, whole: Span, _inner: Span) -> Iterator[Found]:
    start, end = whole
    local, _, domain = text[start:end].rpartition("@")
    start += len(local) - len(local.lstrip("'&.%"))  # written before an address more often than in it
    last = domain.rpartition(".")[2].rstrip("-")
    if (
        start + len(domain) + 1 < end
        and last.isalpha()
        and len(last) > 1
        and last.lower() not in _FILES
        and local != "git"
    ):
        yield Found(start, end, "email")


def _iban(text: str, whole: Span, _: Span) -> Iterator[Found]:
    start = whole[0]
    length = IBAN_LENGTHS.get(text[start : start + 2].upper())
    if length is None:
        return
    at, letters = start, ""
    while len(letters) < length and at < whole[1]:
        letters += text[at] if text[at].isalnum() else ""
        at += 1
    if len(letters) == length and not _is_letter(text, at) and is_iban(letters.upper()):
        yield Found(start, at, "iban")


def _phone(text: str, whole: Span, _: Span) -> Iterator[Found]:
    start, end = whole
    digits = "".join(_GROUP.findall(text[start:end])).removeprefix("00")
    is_far = text[start] == "+" or len(text[start:end].split()) > 1 or end - start >= 12
    if is_far and 8 <= len(digits) <= 15 and _CALLING.match(digits) and not _is_inside_word(text, start, end):
        yield Found(start, end, "phone")


def _phone_said(text: str, _: Span, inner: Span) -> Iterator[Found]:
    start, end = inner
    written = text[start:end]
    digits = len("".join(_GROUP.findall(written)))
    if 7 <= digits <= 15 and not _DATE.match(written) and not _is_letter(text, end):
        yield Found(start, end, "phone")


def _phone_us(text: str, _: Span, inner: Span) -> Iterator[Found]:
    start, end = inner
    before = text[start - 1 : start]
    if _NANP.fullmatch(text, start, end) and before not in ("-", ".", "/") and text[end : end + 1] not in ("-", "/"):
        yield Found(start, end, "phone")


def _passport(text: str, _: Span, inner: Span) -> Iterator[Found]:
    start, end = inner
    if sum(each.isdigit() for each in text[start:end]) >= 5:
        yield Found(start, end, "passport")


class _Identity:
    """One form of identity with letters."""

    def __init__(self, check: Callable[[str], bool], words: "re.Pattern[str]") -> None:
        self._check = check
        self._words = words

    def look(self, text: str, whole: Span, _: Span) -> Iterable[Found]:
        """Yield it, if its check says so."""
        start, end = whole
        plain = text[start:end].replace(" ", "").replace("-", "" if text[start:end][6:7] != "-" else "-").upper()
        if self._check(plain) and _is_said(text, start, self._words):
            yield Found(start, end, "national-id")


def _ip(text: str, whole: Span, _: Span) -> Iterator[Found]:
    start, end = whole
    written = text[start:end]
    if ":" in written and "::" not in written and written.count(":") != COLONS:  # a time of day, mostly
        return
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return
    if not (address.is_loopback or address.is_unspecified) and not _is_inside_word(text, start, end):
        yield Found(start, end, "ip")
