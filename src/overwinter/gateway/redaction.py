"""Confidential values in what goes to a provider: found by detectors, then blocked, masked or replaced by placeholders.

    bytes of a field ─► leaves (texts, keys, long numbers) ─► detectors ─► rules ─► the same bytes with other texts

A leaf is judged by itself and by the key that it stands under, never by what is beside it, and what becomes of it hangs on it
and the run's key alone: so each turn's bytes begin with the last turn's, and what was scanned once need not be scanned again.
Whatever fails refuses the call. No error, log or path here ever has a value in it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from hashlib import sha256
from typing import Literal, Protocol

from overwinter.errors import UsageError
from overwinter.frozen import frozen
from overwinter.gateway.leaves import Document, Leaf, Opaque, inside, literal, read, replaced, shown
from overwinter.gateway.placeholders import LOOKS_LIKE, Vault, mask
from overwinter.gateway.refusal import ModelRefused, Refusal

__all__ = [
    "LITERAL",
    "Action",
    "Detector",
    "Found",
    "Memo",
    "Redactor",
    "Rules",
    "Search",
    "Told",
    "apart",
    "restored",
    "rewritten",
]

Action = Literal["leave", "replace", "mask", "block"]
"""In the order of severity."""

LEAVES_MAX = 200_000
"""Of one request; a body of 32 MB in texts of 160 characters."""
BATCH_CHARS_MAX = 1 << 18
"""Between two looks at the clock."""
SCAN_S_MAX = 5.0
KEYED_CHARS_MAX = 400
"""Longer texts under a key are prose or a file, and say themselves what they are."""
MEMO_MAX = 100_000
"""Leaves remembered as scanned, 32 bytes of hash each: 17 MB."""
_SEVERITY: Mapping[str, int] = {"leave": 0, "replace": 1, "mask": 2, "block": 3}
LITERAL = "literal"
"""Class of a text that looks like a placeholder and is none of ours: it gets one, else it could turn into a value."""
Told = Callable[[str], None]
"""Told the class of each value that is replaced, masked or blocked."""
_STRUCTURE = frozenset(
    {"content", "text", "description", "input", "output", "instructions", "system", "thinking", "role", "name"}
)
"""Keys that say nothing of their values."""


@frozen(kw_only=False)
class Found:
    """A confidential value in a text."""

    start: int
    end: int
    kind: str
    """Its class: "secret", "email", "card", "word:NAME"."""


class Detector(Protocol):
    """Finds confidential values."""

    @property
    def name(self) -> str:
        """Return how errors call it."""
        ...

    def find(self, texts: Sequence[str]) -> Sequence[Sequence[Found]]:
        """Return what is in each text; what is found in one depends on no other. Spans may overlap."""
        ...


@frozen
class Rules:
    """What is done about each class, `"word:NAME"` before `"word"` before `otherwise`."""

    request: Mapping[str, Action] = field(default_factory=lambda: {"secret": "mask"})
    """On the way to the provider."""
    answer: Mapping[str, Action] = field(default_factory=dict[str, Action])
    """On the way back: only what a class is named for here, and never `replace`."""
    otherwise: Action = "replace"
    """For a class that `request` does not name."""

    def __post_init__(self) -> None:
        """Refuse what would give a secret back, or a placeholder to somebody for whom nothing restores it."""
        if self.of_request("secret") == "replace":
            raise UsageError('class "secret" cannot be replaced, a secret is never restored: say "mask" or "block"')
        wrong = [kind for kind, action in self.answer.items() if action == "replace"]
        if wrong:
            raise UsageError(f'class {wrong[0]!r} of an answer cannot be replaced: say "mask", "block" or "leave"')

    @property
    def is_request_left(self) -> bool:
        """Whether requests go as they came, for nothing is done about any class."""
        return all(action == "leave" for action in (self.otherwise, *self.request.values()))

    def of_request(self, kind: str) -> Action:
        """Return what is done about a class on the way to the provider."""
        return self.request.get(kind) or self.request.get(kind.partition(":")[0], self.otherwise)

    def of_answer(self, kind: str) -> Action:
        """Return what is done about a class on the way back."""
        return self.answer.get(kind) or self.answer.get(kind.partition(":")[0], "leave")


class Memo:
    """What was found in texts already scanned: positions and classes by the text's hash, never a text."""

    def __init__(self, texts_max: int = MEMO_MAX) -> None:
        self._found: dict[bytes, Sequence[Found]] = {}
        self._texts_max = texts_max

    def get(self, key: bytes) -> Sequence[Found] | None:
        """Return what was found in a text, or None: it was not scanned lately."""
        return self._found.get(key)

    def put(self, key: bytes, found: Sequence[Found]) -> None:
        """Remember what was found in a text; of too many the oldest tenth is forgotten."""
        if len(self._found) >= self._texts_max:
            for old in list(self._found)[: self._texts_max // 10 + 1]:
                self._found.pop(old, None)  # another thread may forget at the same moment
        self._found[key] = found


class Redactor:
    """Redacts what one run sends. The search may be shared with other runs, the vault may not."""

    def __init__(self, search: "Search", rules: Rules, vault: Vault, told: Told = lambda _: None) -> None:
        self._search = search
        self._rules = rules
        self._vault = vault
        self._told = told

    def redact(self, top: Mapping[str, bytes], text_fields: Iterable[str], opaque: Opaque) -> Mapping[str, bytes]:
        """Return the fields that change, with their new bytes: `Means.replaced`.

        Raises:
            ModelRefused: a class is blocked, a field is not JSON, or it cannot be known what is in it.
        """
        documents = {name: _read(name, top[name], opaque) for name in text_fields if name in top}
        leaves = [leaf for document in documents.values() for leaf in inside(document.leaves)]
        if len(leaves) > LEAVES_MAX:
            raise _refused(f"the request has {len(leaves)} texts, at most {LEAVES_MAX} are searched: send fewer")
        found = {id(leaf): spans for leaf, spans in zip(leaves, self._search.found(leaves), strict=True) if spans}
        if not found:
            return {}

        def text_of(leaf: Leaf) -> str:
            spans = found.get(id(leaf))
            return leaf.text if spans is None else self._text(leaf, spans)

        return {
            name: new.encode()
            for name, document in documents.items()
            if (new := rewritten(document, text_of)) is not document.text
        }

    def _text(self, leaf: Leaf, found: Sequence[Found]) -> str:
        """Return a text as it goes to the provider."""
        parts: list[str] = []
        at = 0
        for span, action in self._decided(leaf, found):
            value = leaf.text[span.start : span.end]
            parts += (leaf.text[at : span.start], self._instead(leaf, span.kind, value, action))
            at = span.end
        return "".join((*parts, leaf.text[at:]))

    def _instead(self, leaf: Leaf, kind: str, value: str, action: Action) -> str:
        if action == "mask":
            return mask(kind)
        try:
            return self._vault.put(kind, value)
        except ValueError:
            clash = f"two values of class {kind!r} have one placeholder, the second at {shown(leaf.path)}"
        raise _refused(f"{clash}: start a new run")

    def _decided(self, leaf: Leaf, found: Sequence[Found]) -> Sequence[tuple[Found, Action]]:
        """Return what is replaced, in order and apart; overlapping ones are one, and go by the most severe rule."""
        spans: list[tuple[Found, Action]] = [
            (span, "replace" if span.kind == LITERAL else self._rules.of_request(span.kind)) for span in found
        ]
        for span, action in spans:
            if action == "block":
                self._told(span.kind)
                raise _refused(
                    f"{shown(leaf.path)} has a value of class {span.kind!r}, which must not be sent: take it out"
                )
        decided = apart([(span, action) for span, action in spans if action != "leave"])
        for span, _ in decided:
            if span.kind != LITERAL:
                self._told(span.kind)
        return decided


def restored(document: str, vault: Vault, opaque: Opaque = frozenset()) -> str:
    """Return a whole JSON document with the values of placeholders in its texts; JSON in its texts stays JSON.

    Raises:
        ValueError: it is not JSON.
    """
    if "OW_" not in document:
        return document
    return rewritten(read(document, "", opaque), lambda leaf: vault.restored(leaf.text))


def rewritten(document: Document, text_of: Callable[[Leaf], str]) -> str:
    """Return a document with other texts in the place of its leaves; the same one if all are as they were."""
    instead: list[tuple[Leaf, str]] = []
    for leaf in document.leaves:
        text = text_of(leaf) if leaf.inner is None else rewritten(leaf.inner, text_of)
        if text is not leaf.text and text != leaf.text:
            instead.append((leaf, literal(text)))
    return replaced(document, instead) if instead else document.text


class Search:
    """Detectors over many leaves: in batches, each text once, against the clock."""

    def __init__(
        self,
        detectors: Sequence[Detector],
        monotonic: Callable[[], float],
        memo: Memo | None = None,
        *,
        scan_s_max: float = SCAN_S_MAX,
    ) -> None:
        self._detectors = detectors
        self._monotonic = monotonic
        self._memo = memo or Memo()
        self._scan_s_max = scan_s_max

    def found(self, leaves: Sequence[Leaf]) -> Sequence[Sequence[Found]]:
        """Return what is in each leaf."""
        until = self._monotonic() + self._scan_s_max
        keys = [_hash(leaf) for leaf in leaves]
        known = {key: found for key in keys if (found := self._memo.get(key)) is not None}
        fresh = {key: leaf for key, leaf in zip(keys, leaves, strict=True) if key not in known}
        for batch in _batches(list(fresh.items())):
            for (key, _), found in zip(batch, self._batch([leaf for _, leaf in batch], until), strict=True):
                known[key] = found
                self._memo.put(key, found)
        return [known[key] for key in keys]

    def text(self, text: str, path: str) -> Sequence[Found]:
        """Return what is in one text, which is not remembered."""
        return self._batch([Leaf(index=0, text=text, path=(path,))], self._monotonic() + self._scan_s_max)[0]

    def _batch(self, leaves: Sequence[Leaf], until: float) -> Sequence[Sequence[Found]]:
        keyed = [_keyed(leaf) for leaf in leaves]
        texts = [text for text, _ in keyed]
        rows: list[list[Found]] = [[] for _ in leaves]
        for detector in self._detectors:
            for row, found in zip(rows, self._asked(detector, leaves, texts), strict=True):
                row.extend(found)
            if self._monotonic() > until:
                raise _refused(
                    f"the search for confidential values took more than {self._scan_s_max:g} s, last in {detector.name}, "
                    f"at {shown(leaves[0].path)}: send less, or raise the limit"
                )
        return [
            _inside(leaf, row, shift) if row or "OW_" in leaf.text else ()
            for leaf, row, (_, shift) in zip(leaves, rows, keyed, strict=True)
        ]

    def _asked(self, detector: Detector, leaves: Sequence[Leaf], texts: Sequence[str]) -> Sequence[Sequence[Found]]:
        try:
            found = detector.find(texts)
        except Exception as error:  # noqa: BLE001 - whatever a detector raises, nothing may be sent
            failed = type(error).__name__
        else:
            if len(found) == len(texts):
                return found
            failed = "too few answers"
        # Raised out here, so that the detector's error, which may have the value in it, is not the context of ours.
        raise _refused(
            f"the search for {detector.name} failed ({failed}) at or after {shown(leaves[0].path)}: nothing was sent"
        )


def _refused(message: str) -> ModelRefused:
    return ModelRefused(Refusal(why="confidential", message=message))


def _read(name: str, raw: bytes, opaque: Opaque) -> Document:
    try:
        return read(raw.decode(), name, opaque)
    except ValueError:
        pass
    raise ModelRefused(Refusal(why="invalid", message=f"{name} is not JSON in UTF-8, or nested too deeply"))


def _hash(leaf: Leaf) -> bytes:
    return sha256(f"{leaf.key}\0{leaf.text}".encode("utf-8", "surrogatepass")).digest()


def _batches(rows: Sequence[tuple[bytes, Leaf]]) -> Iterable[Sequence[tuple[bytes, Leaf]]]:
    begin, chars = 0, 0
    for at, (_, leaf) in enumerate(rows):
        chars += len(leaf.text)
        if chars > BATCH_CHARS_MAX:
            yield rows[begin : at + 1]
            begin, chars = at + 1, 0
    if begin < len(rows):
        yield rows[begin:]


def _keyed(leaf: Leaf) -> tuple[str, int]:
    """Return a text to search, and where in it the leaf begins: `password: "..."` says more than the value alone."""
    if not leaf.key or leaf.key in _STRUCTURE or len(leaf.text) > KEYED_CHARS_MAX or "\n" in leaf.text:
        return leaf.text, 0
    before = f'{leaf.key}: "'
    return f'{before}{leaf.text}"', len(before)


def _inside(leaf: Leaf, found: Iterable[Found], shift: int) -> Sequence[Found]:
    """Return what was found as positions in the leaf; one that looks like a placeholder is found here."""
    end = len(leaf.text)
    own = [
        Found(max(0, each.start - shift), min(end, each.end - shift), each.kind)
        for each in found
        if each.end > shift and each.start - shift < end
    ]
    if "OW_" in leaf.text:
        own += [Found(each.start(), each.end(), LITERAL) for each in LOOKS_LIKE.finditer(leaf.text)]
    return tuple(each for each in own if each.start < each.end)


def apart(spans: Sequence[tuple[Found, Action]]) -> Sequence[tuple[Found, Action]]:
    """Return spans that do not overlap and cover all that the given ones cover.

    Overlapping ones become one, so that no rest of a value stays; it is of the class of the longest of the most severe.
    """
    apart: list[tuple[Found, Action]] = []
    best: list[tuple[int, int]] = []
    for span, action in sorted(spans, key=lambda each: (each[0].start, -each[0].end, each[0].kind)):
        rank = (_SEVERITY[action], span.end - span.start)
        if apart and span.start < apart[-1][0].end:
            before, acted = apart[-1]
            is_worse = rank > best[-1]
            kind, acted = (span.kind, action) if is_worse else (before.kind, acted)
            apart[-1] = (Found(before.start, max(before.end, span.end), kind), acted)
            best[-1] = max(best[-1], rank)
        else:
            apart.append((span, action))
            best.append(rank)
    return apart
