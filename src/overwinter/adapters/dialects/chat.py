"""OpenAI chat completions, and what is compatible with them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from overwinter.adapters.dialects import request
from overwinter.adapters.dialects.chat_answer import as_stream, as_whole, asks_for_usage
from overwinter.adapters.dialects.chat_calls import Calls
from overwinter.adapters.dialects.events import (
    COMMENT,
    Likeness,
    StreamReader,
    WholeReader,
    checked,
    framed,
    parts,
    rewritten,
    turned,
)
from overwinter.adapters.dialects.openai import failure_of, tier_of, usage_of
from overwinter.adapters.dialects.refusals import error_wire, openai_error
from overwinter.adapters.dialects.shapes import answered, is_told
from overwinter.gateway.dialect import AnswerReader, Asked, DialectName, Event, Means, Text, Wire
from overwinter.gateway.refusal import Refusal

__all__ = ["Chat"]

PATH = "/v1/chat/completions"
LIMITS = ("max_completion_tokens", "max_tokens")
"""The limit of output, by its name of today and the older one."""
TEXT_PARTS = frozenset({"text", "refusal", "thinking", "reasoning"})
"""Parts that have as many bytes as they say. Any other may be more tokens: a small file is a large picture or a hundred pages."""
CLIENT_TOOLS = frozenset({"function", "custom"})
"""Tools that the client runs. Whatever else there is, the provider may run itself."""
KEPT = frozenset({"audio", "file_id"})
"""Keys that name what the provider has: an answer in sound, a file."""
SERVED = ("web_search_options", "plugins", "search_parameters")
"""Top-level fields with which a provider brings input of its own."""
SPELT = ("logprobs", "top_logprobs")
NOT_SPELT = (b"null", b"false", b"0")
NORMAL_STOPS = frozenset({"stop", "tool_calls", "function_call"})
CONTENT = ".content"
PROSE = ("content", "refusal", "reasoning_content", "reasoning")
"""Fields of a delta that are texts: of OpenAI, and of those that stream what the model thinks."""

NOTHING = frozenset({b"null", b'""'})
_ABSENT = msgspec.Raw(b"null")
"""Known by its identity: a null that is there is another one."""


class _Function(msgspec.Struct):
    name: msgspec.Raw = _ABSENT
    arguments: str | None = None


class _Custom(msgspec.Struct):
    name: msgspec.Raw = _ABSENT
    input: str | None = None


class _Call(msgspec.Struct):
    id: msgspec.Raw = _ABSENT
    index: int | None = None
    function: _Function | None = None
    custom: _Custom | None = None


class _Said(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    audio: msgspec.Raw = _ABSENT


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    """What is looked at of a chunk of a stream, or of a whole answer."""

    id: str | None = None
    service_tier: str | None = None
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT


_CHUNK = msgspec.json.Decoder(_Chunk)
_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null')


class Chat:
    """Reads and writes chat completions."""

    name: DialectName = "chat"
    text_fields = frozenset({
        "messages", "tools", "functions", "response_format", "prediction", "metadata", "user", "safety_identifier", "stop",
    })  # fmt: skip
    sign_of_life = COMMENT
    # Not `file`: it has a name beside its bytes.
    opaque_keys = frozenset({
        "type", "role", "id", "tool_call_id", "image_url", "input_audio", "file_data", "file_id", "index",
    })  # fmt: skip
    token_keys = frozenset({"logprobs", "token_ids"})  # vLLM has the second

    def read(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Asked:
        """Return a request as read."""
        if method != "POST" or path.partition("?")[0] != PATH:
            raise request.invalid(f"{method} {path.partition('?')[0]} is not of chat: POST {PATH}")
        top = request.top_level(body)
        limits = [each for name in LIMITS if (each := request.number(top, name)) is not None]
        choices = request.number(top, "n")
        if choices == 0:
            raise request.invalid("n: ask for one choice at least")
        return Asked(
            dialect=self.name,
            operation="generate",
            model=request.model(top),
            path=path,
            headers=request.headers_sent_on(headers),
            top=top,
            is_stream=request.boolean(top, "stream"),
            size_bytes=len(body),
            output_tokens_max=max(limits, default=None),
            choices=choices or 1,
            tier=tier_of(request.text(top, "service_tier")),
            brings=_unbounded,
            served=tuple(_served(top)),
            temperature=request.temperature(top),
            spelt=next((name for name in SPELT if top.get(name, b"null") not in NOT_SPELT), ""),
        )

    def forward(self, asked: Asked, means: Means) -> Wire:
        """Return what the provider gets; a stream is made to report its usage."""
        top = {**asked.top, **means.replaced}
        top["model"] = msgspec.json.encode(means.model)
        if means.output_tokens_max is not None:
            limit = msgspec.json.encode(means.output_tokens_max)
            top |= dict.fromkeys([name for name in LIMITS if name in top] or LIMITS[:1], limit)
        if asked.is_stream and not asks_for_usage(asked):
            options = request.members(top.get("stream_options"), "stream_options")
            top["stream_options"] = request.encoded(options | {"include_usage": b"true"})
        return Wire(body=request.encoded(top), headers=asked.headers, path=asked.path)

    def reader(self, asked: Asked, *, is_stream: bool) -> AnswerReader:
        """Return a reader of the answer to a request."""
        sayings = _Sayings(self, is_usage_hidden=is_stream and not asks_for_usage(asked))
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
        return [*reader.feed(b"".join(as_stream(asked, body))), *reader.close()]

    def refused(self, refusal: Refusal) -> Wire:
        """Return a refusal after which clients stop."""
        return error_wire(refusal, {"error": openai_error(refusal)})

    def broken(self, refusal: Refusal, sent: Sequence[Event]) -> bytes:
        """Return the bytes that end a stream under way with an error: the SDK raises `APIError`."""
        del sent
        return framed(msgspec.json.encode({"error": openai_error(refusal)}))


def _unbounded(top: Mapping[str, bytes]) -> Iterator[str]:
    messages = top.get("messages")
    yield from sorted({*request.parts_but(messages, TEXT_PARTS), *request.kinds_in(messages, frozenset(), KEPT)})
    yield from _served(top)


def _served(top: Mapping[str, bytes]) -> Iterator[str]:
    yield from request.types_but(top, "tools", CLIENT_TOOLS)
    yield from (name for name in SERVED if top.get(name, b"null") != b"null")


# --- Answers ---------------------------------------------------------------------------------------------------------


class _Sayings:
    """What the chunks of one answer mean, one after another."""

    def __init__(self, dialect: Chat, *, is_usage_hidden: bool) -> None:
        self._dialect, self._is_usage_hidden = dialect, is_usage_hidden
        self._current = dict[int, str]()
        """The channel of each choice that has not ended."""
        self._calls = dict[int, Calls]()
        self._stop, self._id = "", ""
        self._is_counted = self._is_refusal = self._is_ended = False
        self._like, self._channel = Likeness(), ""

    def again(self, wires: Sequence[bytes]) -> tuple[Event, int] | None:
        """Return what some events are, and how many of them, that are more of the same text as the last one."""
        texts = self._like.texts(wires)
        if not texts:
            return None
        count, said = len(texts), (Text(self._channel, "".join(texts)),)
        wire = self._like.passed_on(wires[:count])
        return Event(wire=wire, kind="content", texts=said, answer_id=self._id), count

    def said(self, wire: bytes, name: str, content: bytes) -> Event:
        """Return an event that has data."""
        del name
        self._like.forget()
        if content == b"[DONE]":
            self._is_ended = True
            return Event(wire=wire, kind="terminal", closes=self._close_all(), stop=self._stop, answer_id=self._id)
        try:
            chunk = _CHUNK.decode(content)
        except msgspec.ValidationError:
            checked(content)  # something in a place where nobody expects it: it goes by unread
            return Event(wire=wire, kind="content", is_unread=True)
        if (event := self._more(wire, chunk)) is None:
            return self._chunk(wire, chunk)
        (text,) = event.texts
        self._channel = text.channel
        self._like.learn(wire, text.text, event.wire)
        return event

    def _more(self, wire: bytes, chunk: _Chunk) -> Event | None:
        """Return what nearly every event is, more of a choice's text; None: it is another."""
        if chunk.choices is None or len(chunk.choices) != 1 or chunk.error is not _ABSENT:
            return None
        choice = chunk.choices[0]
        said, current = choice.delta, self._current.get(choice.index or 0)
        if said is None or not said.content or current is None or choice.finish_reason is not None:
            return None
        if not current.endswith(CONTENT) or said.tool_calls or said.refusal or said.reasoning_content or said.reasoning:
            return None
        if said.audio is not _ABSENT:
            return None
        if chunk.usage is not _ABSENT:
            if bytes(chunk.usage) != b"null":
                return None
            if self._is_usage_hidden:
                wire = _without_null_usage(wire)
        return Event(wire=wire, kind="content", texts=(Text(current, said.content),), answer_id=self._id)

    def _chunk(self, wire: bytes, chunk: _Chunk) -> Event:
        if chunk.error is not _ABSENT and (error := bytes(chunk.error)) != b"null":
            return _failed(wire, error)
        usage, is_usage_only = None, False
        if chunk.usage is not _ABSENT:
            raw = bytes(chunk.usage)
            if raw != b"null":
                usage = usage_of(raw, chunk.service_tier)
                self._is_counted = self._is_counted or usage is not None
                is_usage_only = self._is_usage_hidden and usage is not None and not chunk.choices
            elif self._is_usage_hidden:
                wire = _without_null_usage(wire)
        texts, closes, is_content = list[Text](), list[str](), False
        for choice in chunk.choices or ():
            if self._choice(choice, texts, closes):
                is_content = True
        if chunk.id and not self._id:
            self._id = chunk.id
        kind: Literal["opening", "content", "other"] = (
            "content" if is_content else "opening" if chunk.choices else "other"
        )
        return Event(
            wire=wire, kind=kind, usage=usage, is_usage_only=is_usage_only, texts=tuple(texts), closes=tuple(closes),
            stop=self._stop, answer_id=self._id,
        )  # fmt: skip

    def _choice(self, choice: _Choice, texts: list[Text], closes: list[str]) -> bool:
        """Add what a choice says; return whether it is content."""
        index = choice.index or 0
        said = choice.delta or choice.message
        is_content = False
        if said is not None:
            for each in _texts(index, said, self._calls.setdefault(index, Calls()) if said.tool_calls else None):
                is_content = True
                current = self._current.get(index)
                if current != each.channel:
                    if current is not None:
                        closes.append(current)
                    self._current[index] = each.channel
                texts.append(each)
            if not is_content:
                is_content = bool(said.tool_calls or said.function_call) or said.audio is not _ABSENT
            elif said.refusal:
                self._is_refusal = True
        if choice.finish_reason is not None:
            is_content = True
            self._stopped(choice.finish_reason)
            if (current := self._current.pop(index, None)) is not None:
                closes.append(current)
        return is_content

    def _stopped(self, word: str) -> None:
        """Remember the worst of the words of several choices: one that was cut makes the whole answer one that was."""
        if self._is_refusal:
            word = "refusal"
        if not self._stop or word not in NORMAL_STOPS:
            self._stop = word

    def _close_all(self) -> tuple[str, ...]:
        closes = tuple(self._current.values())
        self._current.clear()
        return closes

    def whole(self, body: bytes) -> Event:
        """Return what an answer is that came in one piece."""
        if (found := answered(_CHUNK, body)) is None:
            return Event(wire=body)
        chunk, odd = found
        if chunk.error is not _ABSENT and (error := bytes(chunk.error)) != b"null":
            return _failed(body, error)
        if not chunk.choices and not is_told(odd, "choices"):
            return Event(wire=body)
        event = self._chunk(body, chunk)
        return Event(
            wire=body, kind="terminal", usage=event.usage, texts=() if odd else event.texts, closes=event.closes, stop=event.stop,
            answer_id=event.answer_id, is_unread=bool(odd),
        )  # fmt: skip

    def ended(self) -> Sequence[Event]:
        """Return an end for those that leave `[DONE]` out: every choice has ended, and the usage has come."""
        if self._stop and self._is_counted and not self._current and not self._is_ended:
            return [Event(wire=b"", kind="terminal", stop=self._stop, answer_id=self._id)]
        return ()

    def failed(self, message: str) -> Event:
        """Return an error that the gateway found."""
        wire = self._dialect.broken(Refusal(why="partial", message=message), ())
        return Event(wire=wire, kind="error", status=502, message=message)


def _texts(index: int, said: _Said, calls: Calls | None) -> Sequence[Text]:
    """Return the texts of a delta, in the order of `_places`."""
    prose = ((name, getattr(said, name)) for name in PROSE)
    found = [Text(f"{index}.{name}", text) for name, text in prose if text]
    if said.function_call is not None and said.function_call.arguments:
        found.append(Text(f"{index}.function_call", said.function_call.arguments, is_json=True))
    for position, call in enumerate(said.tool_calls or ()):
        assert calls is not None, "there are some"
        channel = f"{index}.call.{_number(calls, call, position, len(said.tool_calls or ()))}"
        if call.function is not None and call.function.arguments:
            found.append(Text(channel, call.function.arguments, is_json=True))
        if call.custom is not None and call.custom.input:
            found.append(Text(channel, call.custom.input))
    if said.audio is not _ABSENT:
        found += [Text(f"{index}.audio", holder[key]) for holder, key in _transcript(msgspec.json.decode(said.audio))]
    return found


def _number(calls: Calls, call: _Call, position: int, count: int) -> int:
    tool = call.function or call.custom
    is_named = tool is not None and bytes(tool.name) not in NOTHING
    name = b"" if (raw := bytes(call.id)) in NOTHING else raw
    return calls.number(call.index, name, position, count, is_named=is_named)


def _transcript(audio: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield where what is said in sound stands in writing."""
    if isinstance(audio, dict) and isinstance(audio.get("transcript"), str) and audio["transcript"]:
        yield audio, "transcript"


def _places(node: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield where the texts of a chunk or an answer stand, in the order of `_texts`."""
    for choice in node.get("choices") or ():
        said = choice.get("delta") or choice.get("message") or {}
        places = [(said, key) for key in PROSE]
        if said.get("function_call"):
            places.append((said["function_call"], "arguments"))
        for call in said.get("tool_calls") or ():
            places += [
                (call[part], key) for part, key in (("function", "arguments"), ("custom", "input")) if call.get(part)
            ]
        yield from ((place, key) for place, key in places if place.get(key))
        yield from _transcript(said.get("audio"))


def _without_null_usage(wire: bytes) -> bytes:
    """Return a chunk as it would have come had nobody asked for usage."""
    if wire.count(b'"usage"') == 1:  # quotes in a text are escaped: this is the key
        found = _NULL_USAGE.match(wire, wire.rfind(b",", 0, wire.find(b'"usage"')))
        if found is not None:
            return wire[: found.start()] + wire[found.end() :]
    name, content = parts(wire)
    top = msgspec.json.decode(content or wire, type=dict[str, msgspec.Raw])
    top.pop("usage", None)
    return framed(msgspec.json.encode(top), name) if content else msgspec.json.encode(top)


def _failed(wire: bytes, raw: bytes) -> Event:
    status, message = failure_of(raw)
    return Event(wire=wire, kind="error", status=status, message=message)
