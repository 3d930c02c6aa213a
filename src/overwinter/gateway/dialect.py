"""What the gateway must know of a provider's wire format, and no more than that.

A request is read at its top level only: the bytes below go through as they came, so fields that nobody here has heard of
survive and the provider's prompt cache still hits. An answer is a row of events, each with its own bytes; the gateway looks
at an event to learn what it means, and hands the bytes on.

    bytes ─► read ─► Asked ─► forward ─► bytes ─► provider ─► bytes ─► AnswerReader ─► Event, Event, ... ─► bytes
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Literal, Protocol

from overwinter.frozen import frozen
from overwinter.gateway.refusal import Refusal
from overwinter.gateway.usage import Usage

__all__ = ["AnswerReader", "Asked", "Dialect", "DialectName", "Event", "Means", "Operation", "Text", "Whole", "Wire"]

DialectName = Literal["chat", "responses", "messages", "gemini", "embeddings"]

Operation = Literal["generate", "count", "embed", "retrieve", "cancel"]
"""An answer; the number of tokens of a request; vectors; a background answer asked for again; its end."""


@frozen
class Asked:
    """A request, read as far as the gateway needs."""

    dialect: DialectName
    operation: Operation
    model: str
    """As the client named it."""
    path: str
    """Path and query below the provider's address, without credentials: `/v1/messages?beta=true`."""
    headers: Mapping[str, str]
    """To be sent on, names in lower case: no credential, no hop-by-hop field, no encoding."""
    top: Mapping[str, bytes]
    """Its body: top-level keys in order, each with the JSON bytes of its value. Of a key that was there twice, the last."""
    is_stream: bool
    size_bytes: int
    """Of the body. A byte-level tokenizer makes at most one token of a byte, so it bounds the input."""
    output_tokens_max: int | None = None
    """Limit in the request; None: it has none."""
    choices: int = 1
    tier: str = ""
    """Service tier or speed that it asks for, as in `Usage`."""
    is_background: bool = False
    brings: Callable[[Mapping[str, bytes]], Iterable[str]] = field(default=lambda _: ())
    """Finds what `unbounded` tells, in such a body."""
    served: tuple[str, ...] = ()
    """Those of `unbounded` that are tools which the provider runs itself: each round bills the input again, and what they ask
    for has a price of its own, so that no window bounds what they cost."""
    temperature: float | None = None
    answer_id: str = ""
    """For `retrieve` and `cancel`: of which answer."""
    spelt: str = ""
    """The field that asks for the answer's tokens one by one beside its text; "": none."""

    @property
    def unbounded(self) -> tuple[str, ...]:
        """Return fields that bring input from elsewhere, so that `size_bytes` bounds nothing.

        That is `previous_response_id`, a file by id or address, tools that the provider runs itself. They are looked for when
        they are asked for, that is under a budget: it takes 0.3 ms for a megabyte.
        """
        return tuple(self.brings(self.top))


@frozen(kw_only=False)
class Text:
    """A piece of text in an event that people or programs read."""

    channel: str
    """Which of the texts side by side it continues: choice, block or tool call."""
    text: str
    is_json: bool = False
    """Whether it is a fragment of JSON text: the arguments of a tool call."""


@frozen(kw_only=False)
class Whole:
    """JSON in an event whose texts stand in it from beginning to end: they are treated as those of a whole answer are."""

    document: bytes
    """One stretch of the event's bytes."""
    is_answer: bool = False
    """Whether it is an answer, which says also what was asked; otherwise it is a part of one."""
    output_bytes: int = 0
    """How much of it a model said, if that has not come in pieces."""


@frozen
class Event:
    """One server-sent event of an answer, or the whole of an answer that is none; or a run of events, where it was asked for."""

    wire: bytes
    """As it came, with its line ends."""
    kind: Literal["opening", "content", "other", "terminal", "error"] = "other"
    """`opening`: nothing that a client has seen would be lost by another try. `content`: what it asked for has begun.
    `terminal`: the dialect's own end. `error`: the provider says that it failed."""
    usage: Usage | None = None
    """The counts so far, where it has some: the last ones count, they are never added."""
    is_usage_only: bool = False
    """There only because usage was asked for: not for a client that did not ask."""
    texts: tuple[Text, ...] = ()
    closes: tuple[str, ...] = ()
    """Channels that end with it."""
    stop: str = ""
    """Why the provider stopped, in its own word, once it says so."""
    status: int | None = None
    """For an error: the status that it would have had."""
    message: str = ""
    is_answered: bool = False
    """For an error: the provider did answer, and bills it; it is we who cannot hand on what it said, the next time neither."""
    answer_id: str = ""
    is_unread: bool = False
    """Something in it stands where nobody expects it: of its texts nothing is known."""
    whole: Whole | None = None
    """Where its texts are, if they are no pieces."""


class AnswerReader(Protocol):
    """Reads one answer as it comes, cut anywhere."""

    def feed(self, chunk: bytes, *, in_runs: bool = False) -> Sequence[Event]:
        """Return the events that are whole by now.

        Args:
            chunk: more of the answer.
            in_runs: events in a row may be one, which differ in nothing but a text: for a reader who looks into none of them.
        """
        ...

    def close(self) -> Sequence[Event]:
        """Return what is left at the end of the bytes; an answer without its dialect's end has no `terminal` in it."""
        ...


@frozen
class Means:
    """What the gateway changes in a request before it goes on."""

    model: str
    """As the provider calls it."""
    output_tokens_max: int | None = None
    """A limit for a request that has none, or a lower one; None: as it is."""
    replaced: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Top-level values after redaction."""


@frozen
class Wire:
    """A message of HTTP."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    status: int = 200
    path: str = ""


class Dialect(Protocol):
    """One provider's wire format."""

    @property
    def name(self) -> DialectName:
        """Return its name."""
        ...

    @property
    def text_fields(self) -> frozenset[str]:
        """Return the top-level keys below which there is text for the model: what redaction reads."""
        ...

    @property
    def opaque_keys(self) -> frozenset[str]:
        """Return keys at any depth whose values are never changed: ids, types, signatures, bytes in base64."""
        ...

    @property
    def sign_of_life(self) -> bytes:
        """Return what may stand anywhere between the events of a stream, before the first one too, and means nothing to any client.

        Empty: there is nothing that each of this dialect's clients passes over.
        """
        ...

    @property
    def token_keys(self) -> frozenset[str]:
        """Return keys of an answer below which its tokens stand one by one: what a mask hides in a text would be there."""
        ...

    def read(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Asked:
        """Return a request as read.

        Raises:
            ModelRefused: it cannot be read, with what is wrong and where.
        """
        ...

    def forward(self, asked: Asked, means: Means) -> Wire:
        """Return what the provider gets: the client's bytes in the client's order, but for what `means` names.

        A stream is made to report its usage where the dialect leaves that to the request.
        """
        ...

    def reader(self, asked: Asked, *, is_stream: bool) -> AnswerReader:
        """Return a reader of the answer to a request."""
        ...

    def rewrite(self, event: Event, texts: Sequence[Text]) -> bytes:
        """Return an event's bytes with other texts in the place of its own, in their order."""
        ...

    def whole(self, asked: Asked, events: Sequence[Event]) -> bytes:
        """Return the JSON of an answer that came as a stream, as the provider would have given it.

        Raises:
            ModelRefused: there is something in it that is nowhere expected, so it goes on as it came or not at all.
        """
        ...

    def stream(self, asked: Asked, body: bytes) -> Sequence[Event]:
        """Return the events of an answer that came as JSON, as the provider would have given them.

        Raises:
            ModelRefused: as for `whole`.
        """
        ...

    def refused(self, refusal: Refusal) -> Wire:
        """Return a refusal in the shape, with the status and the headers, after which this dialect's clients stop."""
        ...

    def broken(self, refusal: Refusal, sent: Sequence[Event]) -> bytes:
        """Return the bytes that end a stream under way with an error, after which its clients know that it failed."""
        ...
