"""The head of an answer: what it is, what of it clients get, when to ask again.

Whether it is a stream of events is told by the first bytes where the head does not say it.
"""

from collections.abc import AsyncIterator, Mapping

from overwinter.clock import RETRY_AFTER_S_MAX
from overwinter.frozen import frozen
from overwinter.gateway.upstream import Reply

__all__ = ["EVENTS", "PAGE", "after_s", "handed_on", "media_of", "peeked"]

EVENTS = "text/event-stream"
PAGE = "text/html"
"""For people: of something before the provider."""
HANDED_ON = ("content-type", "retry-after", "retry-after-ms", "x-request-id", "request-id", "openai-processing-ms")
"""Headers of an answer that clients get; of the limits of the home's account they learn nothing."""
BEGINNINGS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""What a stream of events begins with (HTML Living Standard, 9.2.6), and no JSON does."""
LENGTH_MAX = max(map(len, BEGINNINGS))
PEEKED_BYTES_MAX = 64 << 10


def media_of(headers: Mapping[str, str]) -> str:
    """Return the media type of an answer, without parameters; it may be written in letters of any case (RFC 9110, 8.3.1)."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def handed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what of a provider's headers clients get."""
    return {key: value for key in HANDED_ON if (value := headers.get(key))}


def after_s(headers: Mapping[str, str]) -> float | None:
    """Return the pause that a provider asks for, in seconds."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if text.replace(".", "", 1).isdecimal():
            return min(float(text) * unit_s, RETRY_AFTER_S_MAX)
    return None


async def peeked(reply: Reply, *, is_stream_asked: bool) -> tuple[Reply, bool]:
    """Return an answer to read from its beginning, and whether it is a stream.

    One that says so is one. Some providers send theirs as `application/octet-stream`: where a stream was asked for, or the head
    says nothing of JSON, the first bytes are looked at.

    Raises:
        UpstreamFailed: it broke off.
    """
    media = media_of(reply.headers)
    if media == EVENTS or ("json" in media and not is_stream_asked):
        return reply, media == EVENTS
    chunks, first = reply.chunks(), b""
    async for chunk in chunks:
        first += chunk
        if not _is_open(first) or len(first) > PEEKED_BYTES_MAX:
            break
    return _Peeked(reply.status, reply.headers, reply, first, chunks), _begun(first).startswith(BEGINNINGS)


def _begun(first: bytes) -> bytes:
    return first.removeprefix(b"\xef\xbb\xbf").lstrip()[:LENGTH_MAX]


def _is_open(first: bytes) -> bool:
    """Whether more bytes are needed to tell."""
    begun = _begun(first)
    return not begun.startswith(BEGINNINGS) and any(each.startswith(begun) for each in BEGINNINGS)


@frozen(kw_only=False)
class _Peeked:
    """See `upstream.Reply`: one whose first bytes were looked at."""

    status: int
    headers: Mapping[str, str]
    reply: Reply
    first: bytes
    rest: AsyncIterator[bytes]

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield its body."""
        if self.first:
            yield self.first
        async for each in self.rest:
            yield each

    def masked(self, said: bytes) -> bytes:
        """Return the same without our credentials."""
        return self.reply.masked(said)
