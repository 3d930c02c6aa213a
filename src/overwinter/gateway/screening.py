"""Rules for answers: the detectors over what a model says, masked or ended before a client sees it.

A text is searched in pieces that overlap: what is given out was searched with `HELD` characters behind it, and with the last of
what was given before it. So a value of up to that length is found wherever the provider cuts it; a longer one, a private key,
if what a detector finds of it so far reaches to the end of what has come.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from overwinter.frozen import replace
from overwinter.gateway.dialect import Event, Text
from overwinter.gateway.leaves import Leaf, Opaque, inside, read, whole_number
from overwinter.gateway.placeholders import LOOKS_LIKE, Vault, mask
from overwinter.gateway.redaction import LITERAL, Action, Found, Rules, Search, Told, apart, rewritten
from overwinter.gateway.refusal import ModelRefused, Refusal

__all__ = ["HELD", "Screen", "screened", "unspelt"]

HELD = 240
"""Characters that stay back; an OpenAI project key has 164."""
STEP = 120
"""More than these come before a text is searched again."""
CONTEXT = 80
"""Of what was given before: `password =`."""
VALUE_MAX = 16_384
"""A value that grows beyond is masked as far as it has come; what follows is searched as a new one."""
TOP_STEPS = 2
"""The path of what stands at the top: `answer`, and its key."""
ECHOED = frozenset({"instructions", "metadata", "prompt", "text", "tools", "tool_choice"})
"""Keys at the top of an answer of Responses, below which it says again what was asked: no model's words."""
CALLED = frozenset({"arguments", "args", "input"})
"""Keys of what a model calls a tool with: a number below one of them is its word."""
_FLOAT = re.compile(r"(?<![\w.+-])-?\d[\d.]{5,}(?:[eE][+-]?\d+)?(?![\w.])")
"""A number of JSON that may be written with a point or an exponent; what else it finds is no number."""
_VALUES = json.JSONDecoder(strict=False)
_QUOTE = re.compile(r'(?<!\\)(?:\\\\)*"')


@dataclass(slots=True)
class _Channel:
    """One text: what was given last, and what is held."""

    is_json: bool
    context: str = ""
    pending: str = ""
    is_inside: bool = False
    """Of a fragment of JSON: whether what is held begins within a text."""


class Screen:
    """Searches one answer as it comes."""

    def __init__(
        self,
        search: Search,
        rules: Rules,
        vault: Vault,
        told: Told = lambda _: None,
        tokens: frozenset[str] = frozenset(),
    ) -> None:
        """Search by rules; `tokens` are the keys below which tokens stand one by one."""
        self._tokens = tokens
        self._written = tuple(f'"{key}"'.encode() for key in tokens)
        self._search = search
        self._rules = rules
        self._vault = vault
        self._told = told
        self._channels: dict[str, _Channel] = {}

    def read(self, event: Event) -> Event:
        """Return an event of pieces without the tokens that nobody asked for.

        Raises:
            ModelRefused: it cannot be known where they end.
        """
        if event.whole is not None or not any(key in event.wire for key in self._written):
            return event
        text = event.wire.decode("utf-8", "surrogateescape")
        try:
            return replace(event, wire=unspelt(text, self._tokens).encode("utf-8", "surrogateescape"))
        except ValueError:
            message = "an event of the answer has its tokens one by one, in a form in which they cannot be taken out"
        raise ModelRefused(Refusal(why="confidential", message=message))

    def feed(self, piece: Text) -> str:
        """Return what can be given of a text by now.

        Raises:
            ModelRefused: a class in it is blocked, or it cannot be known what is in it.
        """
        channel = self._channels.setdefault(piece.channel, _Channel(piece.is_json))
        channel.pending += piece.text
        if len(channel.pending) < HELD + STEP:
            return ""
        return self._given(channel, HELD)

    def close(self, channel: str) -> Text:
        """Return what is left of a text that ends."""
        known = self._channels.pop(channel, None)
        return Text(channel, "") if known is None else Text(channel, self._given(known, 0), known.is_json)

    def holding(self) -> Sequence[str]:
        """Return the channels of which something is held."""
        return [name for name, channel in self._channels.items() if channel.pending]

    def _given(self, channel: _Channel, held: int) -> str:
        begin, text = len(channel.context), channel.context + channel.pending
        found = self._decided(text, begin, is_json=channel.is_json)
        cut = _before_escape(text, len(text) - held) if channel.is_json and held else len(text) - held
        for span, _ in found:
            if held and span.start < cut <= span.end and len(text) - span.start < VALUE_MAX:
                cut = span.start
        parts: list[str] = []
        at, is_inside = begin, channel.is_inside
        for span, _ in found:
            if span.start < cut:
                before = text[at : max(at, span.start)]
                is_inside = is_inside != _turns(before)
                # A number of JSON becomes a text: nothing else can stand there.
                instead = f'"{mask(span.kind)}"' if channel.is_json and not is_inside else mask(span.kind)
                parts += (before, instead)
                is_inside = is_inside != _turns(text[max(at, span.start) : span.end])
                at = max(at, span.end)
                self._told(span.kind)
        cut = max(cut, at)
        parts.append(text[at:cut])
        channel.is_inside = is_inside != _turns(text[at:cut])
        channel.context, channel.pending = text[max(0, cut - CONTEXT) : cut], text[cut:]
        return "".join(parts)

    def _whole_numbers(self, text: str) -> Iterator[Found]:
        """Yield what is found in numbers that are whole and not written so: 12345678901.0."""
        for each in _FLOAT.finditer(text) if "." in text else ():
            number = whole_number(each[0])
            if number != each[0]:
                yield from (Found(*each.span(), found.kind) for found in self._search.text(number, "the answer"))

    def _decided(self, text: str, begin: int, *, is_json: bool) -> Sequence[tuple[Found, Action]]:
        """Return what is masked, in order and apart, and not before `begin`."""
        found = self._search.text(text, "the answer")
        spans = [*(_in_json(text, each) for each in found), *self._whole_numbers(text)] if is_json else found
        return _decided(text, [each for each in spans if each.end > begin], self._rules, self._vault, self._told)


def screened(  # noqa: PLR0913 - what a search needs
    document: str, *, is_answer: bool, opaque: Opaque, search: Search, rules: Rules, vault: Vault, told: Told
) -> str:
    """Return a whole answer of JSON, or a part of one, with masks for what must not come.

    Raises:
        ValueError: it is not JSON.
        ModelRefused: as for a stream.
    """
    every = read(document, "answer", opaque)
    leaves = [leaf for leaf in inside(every.leaves) if _is_said(leaf, is_answer=is_answer)]
    found = {id(leaf): spans for leaf, spans in zip(leaves, search.found(leaves), strict=True) if spans}

    def text_of(leaf: Leaf) -> str:
        parts: list[str] = []
        at = 0
        for span, _ in _decided(leaf.text, found.get(id(leaf), ()), rules, vault, told):
            parts += (leaf.text[at : span.start], mask(span.kind))
            at = span.end
            told(span.kind)
        return "".join((*parts, leaf.text[at:])) if parts else leaf.text

    return rewritten(every, text_of)


def unspelt(document: str, tokens: frozenset[str]) -> str:
    """Return JSON, or an event with it, without the tokens of its texts: no mask could be put over them.

    Raises:
        ValueError: a value cannot be read.
    """
    parts: list[str] = []
    at = 0
    for key in _spelt(tokens).finditer(document) if tokens else ():
        if key.start() >= at:  # not below one that is gone
            value, end = _value(document, key.end())
            if value:
                parts += (document[at : key.end()], "null" if isinstance(value, dict) else "[]")
                at = end
    return "".join((*parts, document[at:])) if parts else document


def _value(document: str, at: int) -> tuple[object, int]:
    try:
        return _VALUES.raw_decode(document, at)
    except RecursionError:
        raise ValueError("nested too deeply") from None


@lru_cache
def _spelt(tokens: frozenset[str]) -> re.Pattern[str]:
    """Return what finds such a key before a list or an object. In a text its quotes would be escaped."""
    return re.compile(rf'(?<!\\)"(?:{"|".join(sorted(tokens))})"[ \t\n\r]*:[ \t\n\r]*(?=[\[{{])')


def _is_said(leaf: Leaf, *, is_answer: bool) -> bool:
    """Whether a leaf is a model's words: not what stands at the top of an answer or was asked, nor figures about it."""
    if is_answer and (len(leaf.path) <= TOP_STEPS or leaf.path[1] in ECHOED):
        return False
    return not leaf.is_number or not CALLED.isdisjoint(leaf.path)


def _decided(
    text: str, found: Sequence[Found], rules: Rules, vault: Vault, told: Told
) -> Sequence[tuple[Found, Action]]:
    """Return what is masked of what was found, in order and apart. Our own placeholders are no finding."""
    ours = [(each.start(), each.end()) for each in LOOKS_LIKE.finditer(text) if vault.has(each[0])]
    spans: list[tuple[Found, Action]] = []
    for span in found:
        action = "leave" if span.kind == LITERAL else rules.of_answer(span.kind)
        if action == "leave" or any(start <= span.start and span.end <= end for start, end in ours):
            continue
        if action == "block":
            told(span.kind)
            message = f"the answer has a value of class {span.kind!r}, which must not come back: ask for something else"
            raise ModelRefused(Refusal(why="confidential", message=message))
        spans.append((span, action))
    return apart(spans)


def _turns(text: str) -> bool:
    """Whether a piece of JSON that begins between its tokens or escapes begins or ends a text an odd number of times."""
    return len(_QUOTE.findall(text)) % 2 == 1


def _in_json(text: str, span: Found) -> Found:
    """Return a span of a fragment of JSON that cuts no escape and ends before its text does."""
    start, end = span.start, span.end
    if _backslashes(text, start) % 2:
        start -= 1
    quote = _QUOTE.search(text, start, end)
    if quote is not None and quote.end() - 1 > start:
        end = quote.end() - 1
    if _backslashes(text, end) % 2:
        end += 1
    return Found(start, end, span.kind)


def _before_escape(text: str, cut: int) -> int:
    """Return a cut that is in no escape of a fragment of JSON: what follows may be masked from its first letter on."""
    for at in range(max(0, cut - len("\\u00e9") + 1), cut):
        if (
            text[at] == "\\"
            and _backslashes(text, at) % 2 == 0
            and at + (6 if text[at + 1 : at + 2] == "u" else 2) > cut
        ):
            return at
    return cut


def _backslashes(text: str, at: int) -> int:
    """Return how many stand right before a position."""
    return at - len(text[:at].rstrip("\\"))
