"""Anthropic messages, and the count of their tokens."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from overwinter.adapters.dialects import request
from overwinter.adapters.dialects.events import (
    Likeness,
    StreamReader,
    WholeReader,
    checked,
    framed,
    in_one_line,
    parts,
    rewritten,
    turned,
)
from overwinter.adapters.dialects.messages_answer import as_stream, as_whole
from overwinter.adapters.dialects.messages_usage import Counts, decoded, placed
from overwinter.adapters.dialects.refusals import anthropic_error, error_wire, status_of_word
from overwinter.adapters.dialects.shapes import answered, is_told
from overwinter.frozen import replace
from overwinter.gateway.dialect import (
    AnswerReader,
    Asked,
    DialectName,
    Event,
    Means,
    Operation,
    Text,
    Whole,
    Wire,
)
from overwinter.gateway.refusal import Refusal

__all__ = ["Messages"]

OPERATIONS: Mapping[str, Operation] = {"/v1/messages": "generate", "/v1/messages/count_tokens": "count"}
MEDIA = frozenset({"image", "document", "container_upload"})
"""Blocks that are more tokens than they have bytes, or whose bytes are elsewhere."""
CLIENT_TOOLS = ("custom", "bash_", "text_editor_", "computer_2", "computer_toolset_", "browser_toolset_", "memory_")
"""Types of tools that the client runs. Whatever else there is, the provider may run itself, and bill the input of each round."""
SERVED = ("mcp_servers", "container", "fallbacks")
DEFAULT_TIERS = frozenset({"", "auto", "standard", "standard_only"})
GEO = "inference_geo"
"""Where an answer is to be made; "us" costs more."""
EMPTY_AT_FIRST = frozenset({"text", "thinking", "tool_use", "server_tool_use", "mcp_tool_use", "compaction"})
"""Blocks whose start says nothing yet."""
PIECES = frozenset({"text_delta", "input_json_delta", "thinking_delta", "signature_delta"})
"""What more of a block is; others, citations and summaries, come whole."""


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    stop_reason: str | None = None


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Message(msgspec.Struct):
    id: str | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")


class _Error(msgspec.Struct):
    type: str | None = None
    message: str | None = None


class _Said(msgspec.Struct):
    """What is looked at of an event."""

    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


class _Whole(msgspec.Struct):
    type: str = ""
    id: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")
    input_tokens: int | None = None


class _Tool(msgspec.Struct):
    type: str | None = None


_SAID, _WHOLE = msgspec.json.Decoder(_Said), msgspec.json.Decoder(_Whole)
_ERROR, _TOOLS = msgspec.json.Decoder(_Error | None), msgspec.json.Decoder(list[_Tool] | None)


class Messages:
    """Reads and writes messages."""

    name: DialectName = "messages"
    text_fields = frozenset({
        "system", "messages", "tools", "metadata", "stop_sequences", "output_config", "output_format", "context_management",
    })  # fmt: skip
    sign_of_life = framed(b'{"type": "ping"}', "ping")
    # Not `data`: a document of plain text has it too. Redaction leaves it alone where it is a file in base64.
    opaque_keys = frozenset({
        "type", "role", "thinking", "signature", "encrypted_content", "encrypted_index", "encrypted_stdout", "media_type",
        "cache_control", "file_id", "id", "tool_use_id",
        "clear_tool_inputs", "exclude_tools",  # of `context_management`: names of tools
    })  # fmt: skip
    token_keys = frozenset[str]()

    def read(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Asked:
        """Return a request as read."""
        operation = OPERATIONS.get(path.partition("?")[0])
        if method != "POST" or operation is None:
            raise request.invalid(f"{method} {path.partition('?')[0]} is not of messages: POST {', '.join(OPERATIONS)}")
        top = request.top_level(body)
        return Asked(
            dialect=self.name,
            operation=operation,
            model=request.model(top),
            path=path,
            headers=request.headers_sent_on(headers),
            top=top,
            is_stream=operation == "generate" and request.boolean(top, "stream"),
            size_bytes=len(body),
            output_tokens_max=request.number(top, "max_tokens"),
            tier=_tier(top),
            brings=_unbounded,
            served=tuple(_served(top)),
            temperature=request.temperature(top),
        )

    def forward(self, asked: Asked, means: Means) -> Wire:
        """Return what the provider gets."""
        top = {**asked.top, **means.replaced}
        top["model"] = msgspec.json.encode(means.model)
        if means.output_tokens_max is not None and asked.operation == "generate":
            top["max_tokens"] = msgspec.json.encode(means.output_tokens_max)
        return Wire(body=request.encoded(top), headers=asked.headers, path=asked.path)

    def reader(self, asked: Asked, *, is_stream: bool) -> AnswerReader:
        """Return a reader of the answer to a request."""
        geo = request.text(asked.top, GEO) if asked.dialect == self.name else ""
        sayings = _Sayings(self, asked.operation, geo)
        return StreamReader(sayings, sayings.again) if is_stream else WholeReader(sayings.whole)

    def rewrite(self, event: Event, texts: Sequence[Text]) -> bytes:
        """Return an event's bytes with other texts in the place of its own, in their order."""
        return rewritten(event, texts, _places)

    @turned
    def whole(self, asked: Asked, events: Sequence[Event]) -> bytes:
        """Return the JSON of an answer that came as a stream."""
        del asked
        return as_whole(content for each in events if (content := parts(each.wire)[1]))

    @turned
    def stream(self, asked: Asked, body: bytes) -> Sequence[Event]:
        """Return the events of an answer that came as JSON."""
        reader = self.reader(asked, is_stream=True)
        return [*reader.feed(b"".join(as_stream(body))), *reader.close()]

    def refused(self, refusal: Refusal) -> Wire:
        """Return a refusal after which clients stop."""
        return error_wire(refusal, anthropic_error(refusal))

    def broken(self, refusal: Refusal, sent: Sequence[Event]) -> bytes:
        """Return the bytes that end a stream under way with an error: the SDK raises `APIStatusError`."""
        del sent
        return framed(msgspec.json.encode(anthropic_error(refusal)), "error")


def _tier(top: Mapping[str, bytes]) -> str:
    """Return the speed or else the tier that is asked for, and where: a request has one price, and the speed doubles it."""
    speed, tier = request.text(top, "speed"), request.text(top, "service_tier")
    tier = speed if speed not in DEFAULT_TIERS else "" if tier in DEFAULT_TIERS else tier
    return placed(tier, request.text(top, GEO))


def _unbounded(top: Mapping[str, bytes]) -> Iterator[str]:
    for name in ("system", "messages"):
        yield from request.kinds_in(top.get(name), MEDIA)
    yield from _served(top)
    if request.kinds_beginning(top.get("context_management"), "compact"):
        yield "context_management"


def _served(top: Mapping[str, bytes]) -> Iterator[str]:
    try:
        tools = _TOOLS.decode(top.get("tools", b"null")) or ()
    except (msgspec.MsgspecError, RecursionError) as error:
        raise request.invalid(f"tools: {error}") from error
    yield from sorted({each.type for each in tools if each.type is not None and not each.type.startswith(CLIENT_TOOLS)})
    yield from (name for name in SERVED if top.get(name, b"null") not in (b"null", b"[]"))


# --- Answers ---------------------------------------------------------------------------------------------------------


class _Sayings:
    """What the events of one answer mean, one after another."""

    def __init__(self, dialect: Messages, operation: Operation, geo: str) -> None:
        self._dialect, self._operation = dialect, operation
        self._counts = Counts(geo)
        self._id = self._stop = ""
        self._like, self._channel = Likeness(), ""

    def again(self, wires: Sequence[bytes]) -> tuple[Event, int] | None:
        """Return what some events are, and how many of them, that are more of the same text as the last one."""
        texts = self._like.texts(wires)
        if not texts:
            return None
        count, text = len(texts), "".join(texts)
        self._counts.saw(text)
        wire = self._like.passed_on(wires[:count])
        return Event(wire=wire, kind="content", texts=(Text(self._channel, text),), answer_id=self._id), count

    def said(self, wire: bytes, name: str, content: bytes) -> Event:  # noqa: PLR0911 - a table of cases
        """Return an event that has data."""
        self._like.forget()
        try:
            said = _SAID.decode(content)
        except msgspec.ValidationError:
            checked(content)  # something in a place where nobody expects it: it goes by unread
            return Event(wire=wire, kind="content", is_unread=True)
        match said.type or name:
            case "content_block_delta":
                event = self._grown(wire, said)
                return event if event.texts or (said.delta or _Delta()).type in PIECES else _whole(event, name, content)
            case "content_block_start":
                event = self._started(wire, said)
                return event if event.texts or event.kind == "opening" else _whole(event, name, content)
            case "content_block_stop":
                usage = self._counts.estimated()
                return Event(wire=wire, usage=usage, closes=(str(said.index),), answer_id=self._id)
            case "message_start":
                message = said.message or _Message()
                self._id = message.id or ""
                usage = self._counts.take(decoded(bytes(message.usage)))
                return Event(wire=wire, kind="opening", usage=usage, answer_id=self._id)
            case "message_delta":
                self._stop = (said.delta or _Delta()).stop_reason or self._stop
                usage = self._counts.take(decoded(bytes(said.usage)))
                return _whole(Event(wire=wire, usage=usage, stop=self._stop, answer_id=self._id), name, content)
            case "message_stop":
                return Event(wire=wire, kind="terminal", stop=self._stop, answer_id=self._id)
            case "error":
                return _failed(wire, bytes(said.error))
            case _:
                return Event(wire=wire, answer_id=self._id)

    def _grown(self, wire: bytes, said: _Said) -> Event:
        texts = _texts(said)
        self._counts.saw(texts[0].text if texts else said.delta and said.delta.thinking)
        if texts and not texts[0].is_json:
            self._channel = texts[0].channel
            self._like.learn(wire, texts[0].text, wire)
        return Event(wire=wire, kind="content", texts=texts, answer_id=self._id)

    def _started(self, wire: bytes, said: _Said) -> Event:
        block = said.content_block or _Block()
        texts = (Text(str(said.index), block.text),) if block.text else ()
        has_input = bytes(block.input).translate(None, b" \t\r\n") not in (b"{}", b"null")
        is_empty = block.type in EMPTY_AT_FIRST and not texts and not has_input
        return Event(wire=wire, kind="opening" if is_empty else "content", texts=texts, answer_id=self._id)

    def whole(self, body: bytes) -> Event:
        """Return what an answer is that came in one piece."""
        if (found := answered(_WHOLE, body)) is None:
            return Event(wire=body)
        whole, odd = found
        if (error := bytes(whole.error)) != b"null":
            return _failed(body, error)
        if self._operation == "count":
            is_counted = whole.input_tokens is not None or "input_tokens" in odd
            return Event(wire=body, kind="terminal" if is_counted else "other")
        if whole.content is None and not is_told(odd, "content"):
            return Event(wire=body)
        blocks = () if odd else enumerate(whole.content or ())
        texts = tuple(Text(str(index), each.text) for index, each in blocks if each.text)
        return Event(
            wire=body, kind="terminal", usage=self._counts.take(decoded(bytes(whole.usage))), texts=texts,
            closes=tuple(each.channel for each in texts), stop=whole.stop_reason or "", answer_id=whole.id or "",
            is_unread=bool(odd),
        )  # fmt: skip

    def ended(self) -> Sequence[Event]:
        """Return nothing: an answer without `message_stop` has no end."""
        return ()

    def failed(self, message: str) -> Event:
        """Return an error that the gateway found."""
        wire = self._dialect.broken(Refusal(why="partial", message=message), ())
        return Event(wire=wire, kind="error", status=502, message=message)


def _whole(event: Event, name: str, content: bytes) -> Event:
    """Return an event whose texts stand in it from beginning to end: results of tools of the provider, a stop sequence."""
    wire, content = in_one_line(event.wire, name, content)
    return replace(event, wire=wire, whole=Whole(content))


def _texts(said: _Said) -> tuple[Text, ...]:
    """Return the text of a delta. What was thought is signed, and never touched."""
    delta = said.delta
    if delta is None:
        return ()
    if delta.text:
        return (Text(str(said.index), delta.text),)
    if delta.partial_json:
        return (Text(str(said.index), delta.partial_json, is_json=True),)
    return ()


def _places(node: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield where the texts of an event or an answer stand, in the order of its `texts`."""
    for holder in (node.get("delta"), node.get("content_block"), *(node.get("content") or ())):
        if holder:
            yield from ((holder, key) for key in ("text", "partial_json") if holder.get(key))


def _failed(wire: bytes, raw: bytes) -> Event:
    try:
        error = _ERROR.decode(raw) or _Error()
    except (ValueError, RecursionError):
        error = _Error(message=raw.decode("utf-8", "replace").strip('"'))
    return Event(
        wire=wire, kind="error", status=status_of_word(error.type), message=error.message or error.type or "an error"
    )
