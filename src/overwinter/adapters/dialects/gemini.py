"""Gemini: generateContent, streamGenerateContent, countTokens."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import msgspec

from overwinter.adapters.dialects import request
from overwinter.adapters.dialects.events import StreamReader, WholeReader, checked, framed, parts, rewritten, turned
from overwinter.adapters.dialects.gemini_answer import Metadata, as_whole, usage_of
from overwinter.adapters.dialects.refusals import error_wire, google_error, status_of_word
from overwinter.adapters.dialects.shapes import answered, is_told
from overwinter.gateway.dialect import AnswerReader, Asked, DialectName, Event, Means, Operation, Text, Wire
from overwinter.gateway.refusal import ModelRefused, Refusal

__all__ = ["Gemini"]

METHODS: Mapping[str, Operation] = {
    "generateContent": "generate",
    "streamGenerateContent": "generate",
    "countTokens": "count",
}
CONFIG, COUNTED = "generationConfig", "generateContentRequest"
KEYS_OF_QUERY = frozenset({"key", "access_token"})
"""Credentials of the client."""
MEDIA = frozenset({"inlineData", "inline_data", "fileData", "file_data"})
"""Parts that are more tokens than they have bytes, or whose bytes are elsewhere."""
KEPT = "cachedContent"
SPELT = "responseLogprobs"
CLIENT_TOOLS = frozenset({"functionDeclarations", "computerUse"})
"""Tools that the client runs. Whatever else there is, the provider runs itself."""
NORMAL_STOPS = frozenset({"STOP"})
DEFAULT_TIERS = frozenset({"", "standard", "unspecified"})
_PATH = re.compile(r"/(?P<version>v1|v1beta|v1alpha)/models/(?P<model>[^:?]+):(?P<method>\w+)")
_NAME = re.compile(r"[\w.@~+/-]+")
STEPS = frozenset({"", ".", ".."})
"""A name becomes a part of the path that the provider is asked by: no other characters, and none of these between its slashes."""


_ABSENT = msgspec.Raw(b"null")


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    function_call: msgspec.Raw = _ABSENT


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    index: int | None = None
    content: _Content | None = None
    finish_reason: str | None = None


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _Error(msgspec.Struct):
    code: int | str | None = None
    message: str | None = None
    status: str | None = None


class _Chunk(msgspec.Struct, rename="camel"):
    """What is looked at of a chunk of a stream, or of a whole answer."""

    candidates: list[_Candidate] | None = None
    usage_metadata: Metadata | None = None
    prompt_feedback: _Feedback | None = None
    response_id: str | None = None
    error: msgspec.Raw = _ABSENT
    total_tokens: int | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_ERROR = msgspec.json.Decoder(_Error)
_TOOLS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]] | None)


class Gemini:
    """Reads and writes what Gemini speaks. Protocol buffers take two spellings of a name: the one with underscores is turned."""

    name: DialectName = "gemini"
    text_fields = frozenset({"contents", "systemInstruction", "tools", CONFIG, COUNTED, "labels"})
    # Its SDKs look for `data:` at the beginning of what came: some would wait for ever behind a comment.
    sign_of_life = b""
    # Not `inlineData` and `fileData`: they have a name beside bytes and address.
    opaque_keys = frozenset({
        "role", "data", "fileUri", "file_uri", "thoughtSignature", "thought_signature", "mimeType", "mime_type", "responseMimeType",
        "voiceSampleAudio", "consentAudio",
    })  # fmt: skip
    token_keys = frozenset({"logprobsResult"})

    def read(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Asked:
        """Return a request as read."""
        place, _, query = path.partition("?")
        found = _PATH.fullmatch(place)
        operation = METHODS.get(found["method"]) if found else None
        if method != "POST" or found is None or operation is None:
            message = f"{method} {place} is not answered here: POST /v1beta/models/MODEL:METHOD, METHOD one of {', '.join(METHODS)}"
            raise ModelRefused(Refusal(why="unsupported", message=message))
        if not _NAME.fullmatch(found["model"]) or not STEPS.isdisjoint(found["model"].split("/")):
            raise request.invalid(f"{found['model'][:200]!r} is not the name of a model")
        kept = [(key, value) for key, value in parse_qsl(query, keep_blank_values=True) if key not in KEYS_OF_QUERY]
        is_stream = found["method"] == "streamGenerateContent"
        if is_stream and dict(kept).get("alt") != "sse":
            raise ModelRefused(Refusal(why="unsupported", message="a stream comes as server-sent events: add ?alt=sse"))
        top = _camel(request.top_level(body), "")
        config = _config(top)
        if request.number(config, "candidateCount") == 0:
            raise request.invalid(f"{CONFIG}.candidateCount: ask for one candidate at least")
        return Asked(
            dialect=self.name,
            operation=operation,
            model=found["model"],
            path=f"{place}?{urlencode(kept)}" if kept else place,
            headers=request.headers_sent_on(headers),
            top=top,
            is_stream=is_stream,
            size_bytes=len(body),
            output_tokens_max=request.number(config, "maxOutputTokens"),
            choices=request.number(config, "candidateCount") or 1,
            tier=_tier(top, config),
            brings=_unbounded,
            served=tuple(_served(top)),
            temperature=request.temperature(config),
            spelt=f"{CONFIG}.{SPELT}" if config.get(SPELT) == b"true" else "",
        )

    def forward(self, asked: Asked, means: Means) -> Wire:
        """Return what the provider gets; the model is named in the path, and nowhere else."""
        top = {**asked.top, **means.replaced}
        top.pop("model", None)
        if COUNTED in top:
            named = msgspec.json.encode(f"models/{means.model}")
            top[COUNTED] = request.encoded({**request.members(top[COUNTED], COUNTED), "model": named})
        if means.output_tokens_max is not None and asked.operation == "generate":
            limit = msgspec.json.encode(means.output_tokens_max)
            top[CONFIG] = request.encoded({**_config(top), "maxOutputTokens": limit})
        place, _, query = asked.path.partition("?")
        found = _PATH.fullmatch(place)
        assert found is not None, "it was read"
        place = f"/{found['version']}/models/{quote(means.model, safe='/')}:{found['method']}"
        return Wire(body=request.encoded(top), headers=asked.headers, path=f"{place}?{query}" if query else place)

    def reader(self, asked: Asked, *, is_stream: bool) -> AnswerReader:
        """Return a reader of the answer to a request."""
        sayings = _Sayings(self, asked)
        return StreamReader(sayings) if is_stream else WholeReader(sayings.whole)

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
        """Return the events of an answer that came as JSON: a short answer comes in one."""
        reader = self.reader(asked, is_stream=True)
        compact = msgspec.json.encode(msgspec.json.decode(body, type=dict[str, msgspec.Raw]))
        one_line = compact if b"\n" not in compact else msgspec.json.encode(msgspec.json.decode(compact))
        return [*reader.feed(framed(one_line)), *reader.close()]

    def refused(self, refusal: Refusal) -> Wire:
        """Return a refusal after which clients stop."""
        return error_wire(refusal, google_error(refusal))

    def broken(self, refusal: Refusal, sent: Sequence[Event]) -> bytes:
        """Return the bytes that end a stream under way with an error: the SDK raises it by its code."""
        del sent
        return framed(msgspec.json.encode(google_error(refusal)))


# --- Requests --------------------------------------------------------------------------------------------------------


def _camel(top: Mapping[str, bytes], where: str) -> dict[str, bytes]:
    """Return keys in the one spelling.

    Raises:
        ModelRefused: a key is there in both, so that it has two readings.
    """
    turned = dict[str, bytes]()
    for key, value in top.items():
        first, *rest = key.split("_")
        name = first + "".join(each[:1].upper() + each[1:] for each in rest) if first else key
        if name in turned:
            raise request.invalid(f"{where}{key} is there twice, in two spellings: leave one out")
        turned[name] = value
    return turned


def _config(top: Mapping[str, bytes]) -> dict[str, bytes]:
    return _camel(request.members(top.get(CONFIG), CONFIG), f"{CONFIG}.")


def _tier(top: Mapping[str, bytes], config: Mapping[str, bytes]) -> str:
    word = request.text(top, "serviceTier") or request.text(config, "serviceTier")
    word = word.lower().removeprefix("service_tier_")
    return "" if word in DEFAULT_TIERS else word


def _unbounded(top: Mapping[str, bytes]) -> Iterator[str]:
    for name in ("contents", "systemInstruction"):
        yield from request.kinds_in(top.get(name), frozenset(), MEDIA)
    if top.get(KEPT, b"null") != b"null":
        yield KEPT
    yield from _served(top)


def _served(top: Mapping[str, bytes]) -> Iterator[str]:
    try:
        tools = _TOOLS.decode(top.get("tools", b"null")) or ()
    except (msgspec.MsgspecError, RecursionError) as error:
        raise request.invalid(f"tools: {error}") from error
    used = {name for each in tools for name in _camel(dict.fromkeys(each, b""), "tools.")}
    yield from sorted(used - CLIENT_TOOLS)


# --- Answers ---------------------------------------------------------------------------------------------------------


class _Sayings:
    """What the chunks of one answer mean, one after another."""

    def __init__(self, dialect: Gemini, asked: Asked) -> None:
        self._dialect, self._operation = dialect, asked.operation
        self._begun, self._ended = set[int](), set[int]()
        """Candidates."""
        self._current = dict[int, str]()
        """The channel of each candidate."""
        self._growing = dict[str, int]()
        """Channels of arguments that come in pieces, and of which candidate each is."""
        self._stop = self._id = ""
        self._is_blocked = False

    def said(self, wire: bytes, name: str, content: bytes) -> Event:
        """Return an event that has data."""
        del name
        try:
            chunk = _CHUNK.decode(content)
        except msgspec.ValidationError:
            checked(content)  # something in a place where nobody expects it: it goes by unread
            return Event(wire=wire, kind="content", is_unread=True)
        if (error := bytes(chunk.error)) != b"null":
            return _failed(wire, error)
        return self._chunk(wire, chunk)

    def _chunk(self, wire: bytes, chunk: _Chunk) -> Event:
        texts, closes, is_content = list[Text](), list[str](), False
        for candidate in chunk.candidates or ():
            index = candidate.index or 0
            self._begun.add(index)
            found = candidate.content.parts if candidate.content is not None else None
            is_content = is_content or bool(found)
            for part in found or ():
                self._part(index, part, texts, closes)
            if candidate.finish_reason is not None:
                self._ended.add(index)
                closes += filter(None, (self._current.pop(index, None),))
                if not self._stop or candidate.finish_reason not in NORMAL_STOPS:
                    self._stop = candidate.finish_reason
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason:
            self._is_blocked, self._stop = True, chunk.prompt_feedback.block_reason
        self._id = chunk.response_id or self._id
        return Event(
            wire=wire, kind="content" if is_content else "other", usage=usage_of(chunk.usage_metadata), texts=tuple(texts),
            closes=tuple(closes), stop=self._stop, answer_id=self._id,
        )  # fmt: skip

    def _part(self, index: int, part: _Part, texts: list[Text], closes: list[str]) -> None:
        """Add what a part says.

        Arguments come as values, whole: each string in them is a text that ends with its event. Or, where a request wants them
        so, each in pieces that say by a path which they are of, until their call does not go on.
        """
        if part.text:
            channel, current = f"{index}.thought" if part.thought else str(index), self._current.get(index)
            if current is not None and current != channel:
                closes.append(current)
            self._current[index] = channel
            texts.append(Text(channel, part.text))
        if part.function_call is not _ABSENT:
            called = msgspec.json.decode(part.function_call)
            for holder, key in _strings(called.get("args") if isinstance(called, dict) else None):
                channel = f"{index}.call.{len(texts)}"
                texts.append(Text(channel, holder[key]))
                closes.append(channel)
            for holder, key in _partial(called):
                channel = f"{index}.partial.{holder.get('jsonPath')}"
                texts.append(Text(channel, holder[key]))
                self._growing[channel] = index
            if isinstance(called, dict) and not called.get("willContinue"):
                ended = [channel for channel, candidate in self._growing.items() if candidate == index]
                closes += ended
                for channel in ended:
                    del self._growing[channel]

    def whole(self, body: bytes) -> Event:
        """Return what an answer is that came in one piece; an error may come in a list."""
        first = (request.elements(body) or [b""])[0] if body.lstrip().startswith(b"[") else body
        if (found := answered(_CHUNK, first)) is None:
            return Event(wire=body)
        chunk, odd = found
        if (error := bytes(chunk.error)) != b"null":
            return _failed(body, error)
        if self._operation == "count":
            is_counted = chunk.total_tokens is not None or "totalTokens" in odd
            return Event(wire=body, kind="terminal" if is_counted else "other")
        try:
            event = self._chunk(body, chunk)
        except (ValueError, RecursionError):  # of a function call: nothing else is looked into so far
            odd, event = {"candidates": b"[]"}, Event(wire=body, usage=usage_of(chunk.usage_metadata), stop=self._stop)
        # JSON that is whole was not cut, so that candidates of any shape are an answer.
        is_answer = self._is_over or bool(chunk.candidates) or is_told(odd, "candidates")
        return Event(
            wire=body, kind="terminal" if is_answer else "other", usage=event.usage, texts=() if odd else event.texts,
            closes=event.closes, stop=event.stop, answer_id=event.answer_id, is_unread=bool(odd),
        )  # fmt: skip

    @property
    def _is_over(self) -> bool:
        return self._is_blocked or bool(self._begun and self._begun == self._ended)

    def ended(self) -> Sequence[Event]:
        """Return an end when every candidate has come to its own: there is no event for it, and counts may follow."""
        if self._is_over:
            return [Event(wire=b"", kind="terminal", stop=self._stop, answer_id=self._id)]
        return ()

    def failed(self, message: str) -> Event:
        """Return an error that the gateway found."""
        wire = self._dialect.broken(Refusal(why="partial", message=message), ())
        return Event(wire=wire, kind="error", status=502, message=message)


def _strings(root: Any) -> Iterator[tuple[Any, Any]]:
    """Yield where strings stand in a value, in order."""
    entries = root.items() if isinstance(root, dict) else enumerate(root) if isinstance(root, list) else ()
    for key, value in entries:
        if isinstance(value, str) and value:
            yield root, key
        elif isinstance(value, dict | list):
            yield from _strings(value)


def _partial(called: Any) -> Iterator[tuple[Any, Any]]:
    """Yield where pieces of arguments stand in a call."""
    pieces = called.get("partialArgs") if isinstance(called, dict) else None
    for piece in pieces if isinstance(pieces, list) else ():
        if isinstance(piece, dict) and isinstance(piece.get("stringValue"), str) and piece["stringValue"]:
            yield piece, "stringValue"


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield where the texts of a chunk or an answer stand, in the order of an event's `texts`."""
    for candidate in node.get("candidates") or ():
        for part in (candidate.get("content") or {}).get("parts") or ():
            if part.get("text"):
                yield part, "text"
            if isinstance(called := part.get("functionCall"), dict):
                yield from _strings(called.get("args"))
                yield from _partial(called)


def _failed(wire: bytes, raw: bytes) -> Event:
    try:
        error = _ERROR.decode(raw)
    except (ValueError, RecursionError):
        error = _Error(message=raw.decode("utf-8", "replace").strip('"'))
    status = status_of_word(error.code, error.status)
    return Event(wire=wire, kind="error", status=status, message=error.message or error.status or "an error")
