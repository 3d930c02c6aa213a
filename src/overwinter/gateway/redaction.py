"""Confidential values in what goes to a provider: found by detectors, then blocked, masked or replaced by placeholders.

    bytes of a field ─► leaves (texts, keys, long numbers) ─► detectors ─► rules ─► the same bytes with other texts

A leaf is judged by itself and by the key that it stands under, never by what is beside it, and what becomes of it hangs on it
and the run's key alone: so each turn's bytes begin with the last turn's, and what was scanned once need not be scanned again.
Whatever fails refuses the call. No error, log or path here ever has a value in it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Literal, Protocol

from overwinter.errors import UsageError
from overwinter.frozen import frozen
from overwinter.gateway.escapes import views
from overwinter.gateway.leaves import Document, Leaf, Opaque, literal, read, replaced, shown
from overwinter.gateway.parts import MEMO_MAX, Key, Memo, Part, Split, cut
from overwinter.gateway.placeholders import LOOKS_LIKE, Vault, mask
from overwinter.gateway.refusal import ModelRefused, Refusal

__all__ = [
    "BATCH_CHARS_MAX",
    "LITERAL",
    "REMEMBERED_MAX",
    "Action",
    "Detector",
    "Found",
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
"""To be searched of one request, what is remembered not counted; a body of 32 MB in texts of 160 characters."""
BATCH_CHARS_MAX = 1 << 18
"""Between two looks at the clock."""
SCAN_S_MAX = 5.0
KEYED_CHARS_MAX = 400
"""Longer texts under a key are prose or a file, and say themselves what they are."""
REMEMBERED_MAX = 100
"""Values in a part or a text that is remembered."""
LONG_CHARS_MIN = 2_000
"""Texts that are remembered by themselves: to search a shorter one again takes 0.05 ms."""
_STRUCTURE = frozenset(
    {"content", "text", "description", "input", "output", "instructions", "system", "thinking", "role", "name"}
)
"""Keys that say nothing of their values."""
_SEVERITY: Mapping[str, int] = {"leave": 0, "replace": 1, "mask": 2, "block": 3}
LITERAL = "literal"
"""Class of a text that looks like a placeholder and is none of ours: it gets one, else it could turn into a value."""
Told = Callable[[str], None]
"""Told the class of each value that is replaced, masked or blocked."""


@frozen(kw_only=False)
class Found:
    """A confidential value in a text."""

    start: int
    end: int
    kind: str
    """Its class: "secret", "email", "card", "word:NAME"."""


@frozen(kw_only=False)
class InPart:
    """What was found in a part of a request."""

    size: int
    """Leaves that it has."""
    rows: tuple[tuple[int, Sequence[Found]], ...]
    """What is in one, behind its number; those in which nothing was found are left out."""


_NOTHING = InPart(0, ())


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

    @property
    def is_answer_left(self) -> bool:
        """Whether answers go as they came."""
        return all(action == "leave" for action in self.answer.values())

    def of_request(self, kind: str) -> Action:
        """Return what is done about a class on the way to the provider."""
        return self.request.get(kind) or self.request.get(kind.partition(":")[0], self.otherwise)

    def of_answer(self, kind: str) -> Action:
        """Return what is done about a class on the way back."""
        return self.answer.get(kind) or self.answer.get(kind.partition(":")[0], "leave")


class Redactor:
    """Redacts what one run sends. The search may be shared with other runs, the vault may not."""

    def __init__(
        self, search: "Search", rules: Rules, vault: Vault, told: Told = lambda _: None, split: Split = lambda _: None
    ) -> None:
        self._search = search
        self._rules = rules
        self._vault = vault
        self._told = told
        self._split = split

    def redact(self, top: Mapping[str, bytes], text_fields: Iterable[str], opaque: Opaque) -> Mapping[str, bytes]:
        """Return the fields that change, with their new bytes: `Means.replaced`.

        Raises:
            ModelRefused: a class is blocked, a field is not JSON, or it cannot be known what is in it.
        """
        known = self._search.parts
        documents: list[tuple[Part, Document]] = []
        found: dict[int, Sequence[Found]] = {}
        fresh: dict[tuple[Key, int], list[list[Leaf]]] = {}
        for name in text_fields:
            if name not in top:
                continue
            for part in cut(name, top[name], opaque, self._split, self._search.is_clean):
                document, rows = _read(part, top[name], opaque)
                documents.append((part, document))
                for key, leaves in zip(part.keys, rows, strict=True):
                    inside = known.get(key)
                    if inside is None or inside.size != len(leaves):
                        fresh.setdefault((key, len(leaves)), []).append(leaves)
                    else:
                        found.update((id(leaves[number]), each) for number, each in inside.rows)
        every = self._search.each([leaf for alike in fresh.values() for leaf in alike[0]])
        for (key, size), alike in fresh.items():
            rows = list(islice(every, size))
            if not any(rows):
                known.put(key, _NOTHING)
                continue
            inside = InPart(size, tuple([each for each in enumerate(rows) if each[1]]))
            if sum(map(len, rows)) <= REMEMBERED_MAX:
                known.put(key, inside)
            found.update((id(leaves[number]), each) for leaves in alike for number, each in inside.rows)
        return self._rewritten(top, documents, found) if found else {}

    def _rewritten(
        self,
        top: Mapping[str, bytes],
        documents: Sequence[tuple[Part, Document]],
        found: Mapping[int, Sequence[Found]],
    ) -> Mapping[str, bytes]:
        pieces: dict[str, list[bytes]] = {}
        ends: dict[str, int] = {}
        for part, document in documents:
            new = rewritten(document, partial(self._instead_of, found))
            if new is not document.text:
                name = part.name
                pieces.setdefault(name, []).extend((top[name][ends.get(name, 0) : part.start], part.written(new)))
                ends[name] = part.end
        return {name: b"".join((*each, top[name][ends[name] :])) for name, each in pieces.items()}

    def _instead_of(self, found: Mapping[int, Sequence[Found]], leaf: Leaf) -> str:
        spans = found.get(id(leaf))
        return leaf.text if spans is None else self._text(leaf, spans)

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
    """Detectors over many leaves: in batches, against the clock."""

    def __init__(
        self,
        detectors: Sequence[Detector],
        monotonic: Callable[[], float],
        *,
        memo_max: int = MEMO_MAX,
        scan_s_max: float = SCAN_S_MAX,
    ) -> None:
        self._detectors = detectors
        self._monotonic = monotonic
        self.parts = Memo[InPart](memo_max)
        """Turns of a conversation that come again, tools, instructions."""
        self._texts = Memo[Sequence[Found]](memo_max)
        """Long texts: that of a turn whose mark for the provider's cache has moved on is the same."""
        self._scan_s_max = scan_s_max

    def found(self, leaves: Sequence[Leaf]) -> Sequence[Sequence[Found]]:
        """Return what is in each leaf.

        Raises:
            ModelRefused: they are too many, or it cannot be known what is in them.
        """
        return list(self.each(leaves))

    def each(self, leaves: Sequence[Leaf]) -> Iterator[Sequence[Found]]:
        """Yield what is in each leaf, as soon as it is known: a request that takes too long gets further the next time.

        Raises:
            ModelRefused: they are too many, or it cannot be known what is in them.
        """
        if len(leaves) > LEAVES_MAX:
            raise _refused(f"there are {len(leaves)} texts to search, at most {LEAVES_MAX} are: send fewer")
        until = self._monotonic() + self._scan_s_max
        for batch in _batches(leaves):
            keys = [_digest(leaf) if len(leaf.text) >= LONG_CHARS_MIN else b"" for leaf in batch]
            known = [self._texts.get(key) if key else None for key in keys]
            fresh = {(leaf.key, leaf.text): leaf for leaf, each in zip(batch, known, strict=True) if each is None}
            found = dict(zip(fresh, self._batch(list(fresh.values()), until), strict=True)) if fresh else {}
            for leaf, key, each in zip(batch, keys, known, strict=True):
                row = found[leaf.key, leaf.text] if each is None else each
                if key and each is None and len(row) <= REMEMBERED_MAX:
                    self._texts.put(key, row)
                yield row

    def is_clean(self, key: Key) -> bool:
        """Return whether a part was searched lately and had nothing in it."""
        return self.parts.get(key) is _NOTHING

    def text(self, text: str, path: str) -> Sequence[Found]:
        """Return what is in one text, which is not remembered."""
        return self._batch([Leaf(index=0, text=text, path=(path,))], self._monotonic() + self._scan_s_max)[0]

    def _batch(self, leaves: Sequence[Leaf], until: float) -> Sequence[Sequence[Found]]:
        keyed = [_keyed(leaf) for leaf in leaves]
        texts = [text for text, _ in keyed]
        try:
            seen = [(number, view) for number, text in enumerate(texts) if "\\" in text for view in views(text)]
        except ValueError as error:
            raise _refused(f"{error}, at or after {shown(leaves[0].path)}: send less") from None
        texts += [view.text for _, view in seen]
        rows: list[list[Found]] = [[] for _ in texts]
        for detector in self._detectors:
            for row, found in zip(rows, self._asked(detector, leaves, texts), strict=True):
                row.extend(found)
            if self._monotonic() > until:
                raise _refused(
                    f"the search for confidential values took more than {self._scan_s_max:g} s, last in {detector.name}, "
                    f"at {shown(leaves[0].path)}: send less, or raise the limit"
                )
        for (number, view), row in zip(seen, rows[len(leaves) :], strict=True):
            ends = {(view.place(each.end), each.kind) for each in row}
            rows[number] = [each for each in rows[number] if not _is_torn(each, texts[number], ends)]
            rows[number] += [Found(view.place(each.start), view.place(each.end), each.kind) for each in row]
        return [
            _inside(leaf, row, shift) if row or "OW_" in leaf.text else ()
            for leaf, row, (_, shift) in zip(leaves, rows, keyed, strict=False)
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


def _read(part: Part, whole: bytes, opaque: Opaque) -> tuple[Document, Sequence[list[Leaf]]]:
    try:
        return part.read(whole, opaque)
    except ValueError:
        pass
    raise ModelRefused(Refusal(why="invalid", message=f"{part.name} is not JSON in UTF-8, or nested too deeply"))


def _digest(leaf: Leaf) -> bytes:
    return sha256(f"{leaf.key}\0{leaf.text}".encode("utf-8", "surrogatepass")).digest()


def _batches(leaves: Sequence[Leaf]) -> Iterator[Sequence[Leaf]]:
    begin, chars = 0, 0
    for at, leaf in enumerate(leaves):
        chars += len(leaf.text)
        if chars > BATCH_CHARS_MAX:
            yield leaves[begin : at + 1]
            begin, chars = at + 1, 0
    if begin < len(leaves):
        yield leaves[begin:]


def _keyed(leaf: Leaf) -> tuple[str, int]:
    """Return a text to search, and where in it the leaf begins: `password: "..."` says more than the value alone."""
    if not leaf.key or leaf.key in _STRUCTURE or len(leaf.text) > KEYED_CHARS_MAX or "\n" in leaf.text:
        return leaf.text, 0
    before = f'{leaf.key}: "'
    return f'{before}{leaf.text}"', len(before)


BACKSLASHES_MAX = 1_000
"""In a row, before a letter: of more nobody says what they mean."""


def _is_torn(found: Found, text: str, ends: Collection[tuple[int, str]]) -> bool:
    """Whether what was found begins in the middle of an escape, and the same is known without its letter."""
    if (found.end, found.kind) not in ends or text[found.start - 1 : found.start] != "\\":
        return False
    before = text[max(0, found.start - BACKSLASHES_MAX) : found.start]  # not all of a long text, for each of many finds
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


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
