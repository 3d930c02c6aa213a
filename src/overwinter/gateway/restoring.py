"""An answer on its way back: what must not come is masked or ends it, then placeholders become values again.

Both need more of a text than one event has, so a text runs behind by what may still turn out to be something: without rules for
answers by the beginning of a placeholder, with them by the length of a value.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from overwinter.frozen import replace
from overwinter.gateway.dialect import Event, Text, Whole
from overwinter.gateway.placeholders import DIGITS, LABEL_MAX, Vault
from overwinter.gateway.refusal import ModelRefused, Refusal
from overwinter.gateway.screening import Screen

__all__ = ["Restorer"]

EVENTS_MAX = 64
"""Events that wait behind one whose text may end in a placeholder's beginning; then it goes out as it is."""
SCREENED_EVENTS_MAX = 2_000
"""With rules for answers nothing goes out as it is: more end the answer."""
_BEGINS = re.compile(rf"O(?:W(?:_(?:[A-Z]{{1,{LABEL_MAX}}}(?:_[0-9a-f]{{0,{DIGITS - 1}}})?)?)?)?\Z")
_LENGTH_MAX = len("OW__") + LABEL_MAX + DIGITS


class Restorer:
    """Restores the values in one answer as it comes, cut anywhere; of each text only what may begin a placeholder waits."""

    def __init__(
        self,
        vault: Vault,
        screen: Screen | None = None,
        treated: Callable[[Whole], bytes] = lambda whole: whole.document,
    ) -> None:
        """Restore by a vault.

        Args:
            vault: has the values.
            screen: searches pieces of texts before.
            treated: searches and restores what is no piece, as it does whole answers.
        """
        self._vault = vault
        self._screen = screen
        self._treated = treated
        self._held: dict[str, Text] = {}
        self._waiting: list[tuple[Event, list[Text]]] = []
        """The first one's text may grow; what came behind it keeps its place."""

    def feed(self, piece: Text) -> str:
        """Return what can be given of a text by now.

        Raises:
            ModelRefused: a class in it is blocked, or it cannot be known what is in it.
        """
        more = piece.text if self._screen is None else self._screen.feed(piece)
        before = self._held.pop(piece.channel, None)
        text = more if before is None else before.text + more
        cut = _safe(text)
        if cut < len(text):
            self._held[piece.channel] = Text(piece.channel, text[cut:], piece.is_json)
        return self._vault.restored(text[:cut], is_json=piece.is_json)

    def close(self, channel: str) -> str:
        """Return what is left of a text that ends."""
        left = self._held.pop(channel, Text(channel, ""))
        if self._screen is None:
            return left.text
        last = self._screen.close(channel)
        return self._vault.restored(left.text + last.text, is_json=left.is_json or last.is_json)

    def read(self, event: Event) -> Event:
        """Return an event as it may go on: of one whose texts are not known, placeholders in one piece become values.

        What is whole in it is searched and restored here, and only pieces of texts are left.

        Raises:
            ModelRefused: it cannot be known what is in it, and there are rules for answers; or a class in it is blocked.
        """
        if self._screen is not None:
            event = self._screen.read(event)
        if event.whole is not None:
            before, after = event.whole.document, self._treated(event.whole)
            wire = event.wire if after == before else event.wire.replace(before, after)
            return replace(event, wire=wire, whole=None)
        if not event.is_unread:
            return event
        if self._screen is not None:
            message = "an event of the answer is not as its dialect says, so it cannot be known what is in it"
            raise ModelRefused(Refusal(why="confidential", message=message))
        text = event.wire.decode("utf-8", "surrogateescape")
        return replace(event, wire=self._vault.restored(text, is_json=True).encode("utf-8", "surrogateescape"))

    def events(self, event: Event) -> Sequence[tuple[Event, Sequence[Text]]]:
        """Return the events that can go out by now, each with the texts to write in the place of its own.

        An event whose text may go on waits for the next one of its channel or for its end, since only an event that has a
        text can take what is left over.
        """
        texts = [Text(each.channel, self.feed(each), each.is_json) for each in event.texts]
        if not self._waiting and not self._holding():
            return [(event, texts)]
        self._waiting.append((event, texts))
        for channel in event.closes if event.kind not in ("terminal", "error") else self._holding():
            self._end(channel)
        self._bound()
        return list(self._released())

    def left(self) -> Sequence[tuple[Event, Sequence[Text]]]:
        """Return what still waits when no event comes any more."""
        for channel in self._holding():
            self._end(channel)
        return list(self._released())

    def _holding(self) -> Sequence[str]:
        return (
            list(self._held) if self._screen is None else list({**self._held, **dict.fromkeys(self._screen.holding())})
        )

    def _bound(self) -> None:
        if self._screen is not None and len(self._waiting) > SCREENED_EVENTS_MAX:
            message = f"{SCREENED_EVENTS_MAX} events of the answer came before a text in it went on: ask for one choice at a time"
            raise ModelRefused(Refusal(why="confidential", message=message))
        if self._screen is None and len(self._waiting) > EVENTS_MAX:
            for channel in self._holding():
                self._end(channel)

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
        until = min((last[channel] for channel in self._holding()), default=len(self._waiting))
        out, self._waiting = self._waiting[:until], self._waiting[until:]
        yield from out


def _safe(text: str) -> int:
    """Return how much of a text cannot be a part of a placeholder that goes on."""
    begins = _BEGINS.search(text, max(0, len(text) - _LENGTH_MAX))
    return len(text) if begins is None else begins.start()
