"""OpenAI embeddings: no stream, no output."""

from collections.abc import Mapping, Sequence

import msgspec

from overwinter.adapters.dialects import request
from overwinter.adapters.dialects.events import WholeReader
from overwinter.adapters.dialects.openai import failure_of, tier_of, usage_of
from overwinter.adapters.dialects.refusals import error_wire, openai_error
from overwinter.gateway.dialect import AnswerReader, Asked, DialectName, Event, Means, Text, Wire
from overwinter.gateway.refusal import Refusal

__all__ = ["Embeddings"]

PATH = "/v1/embeddings"


class _Answer(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw(b"null")
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


_ANSWER = msgspec.json.Decoder(_Answer)


class Embeddings:
    """Reads and writes embeddings."""

    name: DialectName = "embeddings"
    text_fields = frozenset({"input", "user"})
    sign_of_life = b""
    opaque_keys = frozenset[str]()
    token_keys = frozenset[str]()

    def read(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Asked:
        """Return a request as read."""
        place = path.partition("?")[0]
        if method != "POST" or place != PATH:
            raise request.invalid(f"{method} {place} is not of embeddings: POST {PATH}")
        top = request.top_level(body)
        return Asked(
            dialect=self.name,
            operation="embed",
            model=request.model(top),
            path=path,
            headers=request.headers_sent_on(headers),
            top=top,
            is_stream=False,
            size_bytes=len(body),
            tier=tier_of(request.text(top, "service_tier")),
        )

    def forward(self, asked: Asked, means: Means) -> Wire:
        """Return what the provider gets."""
        top = {**asked.top, **means.replaced, "model": msgspec.json.encode(means.model)}
        return Wire(body=request.encoded(top), headers=asked.headers, path=asked.path)

    def reader(self, asked: Asked, *, is_stream: bool) -> AnswerReader:
        """Return a reader of the answer to a request."""
        del asked, is_stream
        return WholeReader(_whole)

    def rewrite(self, event: Event, texts: Sequence[Text]) -> bytes:
        """Return an event's bytes: there are no texts in vectors."""
        assert not texts
        return event.wire

    def whole(self, asked: Asked, events: Sequence[Event]) -> bytes:
        """Return the JSON of an answer."""
        del asked
        return b"".join(each.wire for each in events)

    def stream(self, asked: Asked, body: bytes) -> Sequence[Event]:
        """Return an answer as the one event that it is."""
        reader = self.reader(asked, is_stream=False)
        return [*reader.feed(body), *reader.close()]

    def refused(self, refusal: Refusal) -> Wire:
        """Return a refusal after which clients stop."""
        return error_wire(refusal, {"error": openai_error(refusal)})

    def broken(self, refusal: Refusal, sent: Sequence[Event]) -> bytes:
        """Return nothing: an answer that comes in one piece has not begun before it is whole."""
        del refusal, sent
        return b""


def _whole(body: bytes) -> Event:
    try:
        answer = _ANSWER.decode(body)
    except (ValueError, RecursionError):
        return Event(wire=body)
    if (error := bytes(answer.error)) != b"null":
        status, message = failure_of(error)
        return Event(wire=body, kind="error", status=status, message=message)
    if not bytes(answer.data).startswith(b"["):
        return Event(wire=body)
    return Event(wire=body, kind="terminal", usage=usage_of(bytes(answer.usage), None), stop="stop")
