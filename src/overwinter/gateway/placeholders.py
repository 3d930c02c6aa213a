"""What stands in a text in the place of a value, and how it becomes the value again.

`OW_EMAIL_3f9a2c1b7d4e0586`: letters, digits and underscores only, so that it comes through JSON, Markdown, addresses and shells
as it is; of fixed length, so that nothing beside it can change where it ends; an HMAC of the value under the run's own key, so
that the same value has the same placeholder in every turn and nobody can tell the value from it or make one up.
"""

import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence

from overwinter.gateway.dialect import Event, Text

__all__ = ["LOOKS_LIKE", "Restorer", "Vault", "mask"]

VALUES_MAX = 20_000
"""A run's values; of more, those longest unseen are forgotten, and their placeholders stay as they are in later answers."""
EVENTS_MAX = 64
"""Events that wait behind one whose text may end in a placeholder's beginning; then it goes out as it is."""
DIGITS = 16
"""64 bits: among 20,000 values two alike have a chance of 1 in 10^11; a clash is refused, never mixed up."""
LABEL_MAX = 12
LOOKS_LIKE = re.compile(rf"OW_[A-Z]{{1,{LABEL_MAX}}}_[0-9a-f]{{{DIGITS}}}")
_BEGINS = re.compile(rf"O(?:W(?:_(?:[A-Z]{{1,{LABEL_MAX}}}(?:_[0-9a-f]{{0,{DIGITS - 1}}})?)?)?)?\Z")
_LENGTH_MAX = len("OW__") + LABEL_MAX + DIGITS
_NOT_LETTERS = re.compile("[^A-Z]")


class Vault:
    """The values of one run behind their placeholders. Confidential: keep it encrypted, and never log it."""

    def __init__(self, key: bytes, values: Mapping[str, str] | None = None, *, values_max: int = VALUES_MAX) -> None:
        self._key = key
        self._values = dict(values or {})
        self._values_max = values_max

    def put(self, kind: str, value: str) -> str:
        """Return the placeholder of a value, which can be restored from now on.

        Raises:
            ValueError: another value has it already.
        """
        tag = hmac.digest(self._key, f"{kind}\0{value}".encode("utf-8", "surrogatepass"), "sha256").hex()[:DIGITS]
        placeholder = f"OW_{_label(kind)}_{tag}"
        if self._values.pop(placeholder, value) != value:
            raise ValueError("two values have one placeholder")
        self._values[placeholder] = value  # the latest last
        if len(self._values) > self._values_max:
            del self._values[next(iter(self._values))]
        return placeholder

    def restored(self, text: str, *, is_json: bool = False) -> str:
        """Return a text with values for their placeholders; in a fragment of JSON they are escaped."""
        if "OW_" not in text:
            return text
        return LOOKS_LIKE.sub(lambda found: self._value(found[0], is_json=is_json), text)

    def values(self) -> Mapping[str, str]:
        """Return all placeholders and their values, for a store that encrypts them."""
        return dict(self._values)

    def _value(self, placeholder: str, *, is_json: bool) -> str:
        value = self._values.get(placeholder)
        if value is None:
            return placeholder
        return json.dumps(value)[1:-1] if is_json else value


class Restorer:
    """Restores the values in one answer as it comes, cut anywhere; of each text only what may begin a placeholder waits."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._held: dict[str, Text] = {}
        self._waiting: list[tuple[Event, list[Text]]] = []
        """The first one's text may grow; what came behind it keeps its place."""

    def feed(self, piece: Text) -> str:
        """Return what can be given of a text by now."""
        before = self._held.pop(piece.channel, None)
        text = piece.text if before is None else before.text + piece.text
        cut = _safe(text)
        if cut < len(text):
            self._held[piece.channel] = Text(piece.channel, text[cut:], piece.is_json)
        return self._vault.restored(text[:cut], is_json=piece.is_json)

    def close(self, channel: str) -> str:
        """Return what is left of a text that ends."""
        left = self._held.pop(channel, None)
        return "" if left is None else left.text

    def events(self, event: Event) -> Sequence[tuple[Event, Sequence[Text]]]:
        """Return the events that can go out by now, each with the texts to write in the place of its own.

        An event whose text may end in the beginning of a placeholder waits for the next one of its channel or for its end,
        since only an event that has a text can take what is left over.
        """
        texts = [Text(each.channel, self.feed(each), each.is_json) for each in event.texts]
        if not self._waiting and not self._held:
            return [(event, texts)]
        self._waiting.append((event, texts))
        for channel in event.closes if event.kind not in ("terminal", "error") else list(self._held):
            self._end(channel)
        if len(self._waiting) > EVENTS_MAX:
            for channel in list(self._held):
                self._end(channel)
        return list(self._released())

    def left(self) -> Sequence[tuple[Event, Sequence[Text]]]:
        """Return what still waits when no event comes any more."""
        for channel in list(self._held):
            self._end(channel)
        return list(self._released())

    def _end(self, channel: str) -> None:
        """Give what a channel holds to the last event that has a text of it."""
        left = self.close(channel)
        for _, texts in reversed(self._waiting) if left else ():
            for at, text in enumerate(texts):
                if text.channel == channel:
                    texts[at] = Text(channel, text.text + left, text.is_json)
                    return

    def _released(self) -> Iterator[tuple[Event, Sequence[Text]]]:
        """Yield what nothing can be added to: all before the oldest event that is the last of a channel that holds something."""
        last = {text.channel: at for at, (_, texts) in enumerate(self._waiting) for text in texts}
        until = min((last[channel] for channel in self._held), default=len(self._waiting))
        out, self._waiting = self._waiting[:until], self._waiting[until:]
        yield from out


def mask(kind: str) -> str:
    """Return what stands for a value that is never restored."""
    return f"[masked {kind.partition(':')[0]}]"


def _label(kind: str) -> str:
    return _NOT_LETTERS.sub("", kind.partition(":")[0].upper())[:LABEL_MAX] or "VALUE"


def _safe(text: str) -> int:
    """Return how much of a text cannot be a part of a placeholder that goes on."""
    begins = _BEGINS.search(text, max(0, len(text) - _LENGTH_MAX))
    return len(text) if begins is None else begins.start()
