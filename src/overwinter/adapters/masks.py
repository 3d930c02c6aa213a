"""Answers without the secrets that their calls carried: an echo of a credential never reaches program, journal or error text.

A service that wants to betray a credential can: it has it, and may spell it backwards. This is against the far more frequent
one that repeats what it was sent, in a debug page, an error or a log. Looked for are the plain bytes and what encodings make
of them: base64 and its url-safe form wherever in a text it begins, percent-encoding, hexadecimal digits, escapes of HTML and of
JSON, also of JSON in JSON. Secrets of fewer than
8 bytes are not looked for: they would be found where they are none.
"""

import base64
import binascii
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast
from urllib.parse import quote, quote_plus

from overwinter.catalog import Unknown
from overwinter.events import Answer, Raised, Returned
from overwinter.frozen import frozen, replace
from overwinter.handles import File

__all__ = ["MARKER", "Mask", "mask_of"]

MARKER = "[secret]"
BYTES_MIN = 8
"""Shorter secrets are not looked for."""
FILLING = "MASKED"
"""Repeated in the place of base64: what has it inside is still base64 of the same length."""
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_TOKEN = re.compile(r"(?P<scheme>[A-Za-z]+)\s+(?P<token>\S+)")
"""A value of `Authorization` (RFC 9110, 11.4): a service repeats the token without its scheme, too."""


@frozen
class Mask:
    """The secrets of one connection, in every form in which they are looked for."""

    forms: tuple[tuple[bytes, bytes], ...] = ()
    """What is looked for and what stands there instead, the longest first."""
    texts: tuple[tuple[str, str], ...] = ()
    """The same for texts."""

    def raw(self, body: bytes) -> bytes:
        """Return a whole body without secrets. Never a part of one: what lies across a border would not be found."""
        for form, instead in self.forms:
            if form in body:
                body = body.replace(form, instead)
        return body

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        for form, instead in self.texts:
            if form in text:
                text = text.replace(form, instead)
        return text

    def value(self, value: Any) -> Any:
        """Return a value without secrets in its texts, keys among them. One without any is returned as it is."""
        if not self.forms:
            return value
        joined = "\0".join(_texts(value))
        return self._walked(value) if any(form in joined for form, _ in self.texts) else value

    def also(self, other: "Mask") -> "Mask":
        """Return what hides the secrets of both; those of the other first, which are to be the longer ones."""
        return Mask(forms=(*other.forms, *self.forms), texts=(*other.texts, *self.texts))

    def answer(self, answer: Answer | Unknown) -> Answer | Unknown:
        """Return an answer whose words are without secrets, and so is the name of a file. Values and bytes are masked before."""
        match answer:
            case Raised():
                code = None if answer.code is None else self.text(answer.code)
                return replace(answer, message=self.text(answer.message), code=code)
            case Unknown():
                return replace(answer, why=self.text(answer.why))
            case Returned(value=File() as file):
                return Returned(
                    value=cast("Any", replace(file, name=self.text(file.name), media=self.text(file.media)))
                )
            case Returned():
                return answer

    def _walked(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case bytes():
                return self.raw(value)
            case dict():
                return {self._walked(key): self._walked(each) for key, each in cast("dict[Any, Any]", value).items()}
            case list() | tuple():
                return [self._walked(each) for each in cast("list[Any]", value)]
            case _:
                return value


def mask_of(secrets: Iterable[str]) -> Mask:
    """Return what hides secrets; a value of `Authorization` also hides its token, and a Basic one its password."""
    forms = {form: instead for secret in secrets for part in _parts(secret) for form, instead in _forms(part)}
    rows = sorted(forms.items(), key=lambda row: (-len(row[0]), row[0]))
    return Mask(
        forms=tuple((form.encode(), instead.encode()) for form, instead in rows),
        texts=tuple(rows),
    )


def _parts(secret: str) -> Iterator[str]:
    yield secret
    found = _TOKEN.fullmatch(secret)
    if found is None:
        return
    yield found["token"]
    if found["scheme"].lower() == "basic":  # RFC 7617, 2
        try:
            pair = base64.b64decode(found["token"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        yield pair
        yield pair.partition(":")[2]


def _forms(secret: str) -> Iterator[tuple[str, str]]:
    """Yield what becomes of a secret in encodings, and what stands there instead; nothing of a short one."""
    raw = secret.encode()
    if len(raw) < BYTES_MIN:
        return
    yield secret, MARKER
    for once in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        for escaped in (once, once.replace("/", "\\/"), re.sub(r"\\u\w{4}", _upper, once)):
            yield escaped, MARKER
            yield json.dumps(escaped)[1:-1], MARKER  # JSON in a text of JSON, in a file: nobody parses it on the way
            yield json.dumps(escaped, ensure_ascii=False)[1:-1], MARKER
    for form in (raw.hex(), raw.hex().upper()):
        yield form, MARKER
    for form in (html.escape(secret), html.escape(secret, quote=False)):
        yield form, MARKER
        yield json.dumps(form)[1:-1], MARKER  # a page in a text of JSON, in a file
        yield json.dumps(form, ensure_ascii=False)[1:-1], MARKER
    for form in (quote(secret), quote(secret, safe=""), quote_plus(secret)):
        yield form, MARKER
        yield re.sub(r"%\w\w", lambda found: found[0].lower(), form), MARKER
    for shift in range(3):
        # RFC 4648, 4: six bits a letter. The letters that also hold bits of what stands before or after are left out.
        encoded = base64.b64encode(b"\0" * shift + raw)[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
        for form in (encoded, encoded.translate(_URL_SAFE)):
            yield form.decode(), (FILLING * (len(form) // len(FILLING) + 1))[: len(form)]


def _upper(found: re.Match[str]) -> str:
    return found[0][:2] + found[0][2:].upper()


def _texts(value: Any) -> Iterator[str]:
    left = [value]
    while left:
        match left.pop():
            case str() as text:
                yield text
            case bytes() as body:
                yield body.decode("latin-1")
            case Mapping() as table:
                left += table.keys()
                left += table.values()
            case list() | tuple() as rows:
                left += cast("list[Any]", rows)
            case _:
                pass
