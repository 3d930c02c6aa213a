"""OpenAI Responses: answers, answers in the background, and the count of their tokens."""

import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import parse_qs, unquote

import msgspec

from overwinter.adapters.dialects import request
from overwinter.adapters.dialects.events import (
    COMMENT,
    StreamReader,
    WholeReader,
    checked,
    framed,
    in_one_line,
    parts,
    rewritten,
    turned,
)
from overwinter.adapters.dialects.openai import failure_of, tier_of, usage_of
from overwinter.adapters.dialects.refusals import error_wire, openai_error
from overwinter.adapters.dialects.responses_answer import (
    UNDER_WAY,
    as_stream,
    as_whole,
    failed_response,
    pieces,
    texts_of_output,
)
from overwinter.adapters.dialects.shapes import answered, is_told
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
from overwinter.gateway.refusal import ModelRefused, Refusal

__all__ = ["Responses"]

PATH = "/v1/responses"
OPERATIONS: Mapping[str, Operation] = {PATH: "generate", f"{PATH}/input_tokens": "count"}
MEDIA = frozenset({"input_image", "input_file", "input_audio", "computer_screenshot", "item_reference"})
"""Items that are more tokens than they have bytes, or whose bytes the provider has."""
CLIENT_TOOLS = frozenset(
    {"function", "custom", "local_shell", "apply_patch", "namespace", "computer", "computer_use_preview"}
)
"""Tools that the client runs. Whatever else there is, the provider may run itself, and bill the input of each round."""
KEPT = ("previous_response_id", "conversation", "prompt", "context_management")
"""Fields that bring input which the provider has, or makes."""
OPENING_ITEMS = frozenset({"message", "reasoning", "function_call", "custom_tool_call"})
"""Items whose start says nothing yet."""
SPELT = b"logprobs"
"""In `include`."""
OPAQUE_DELTAS = frozenset({"response.audio.delta"})
QUOTA_STATUS = 429
"""For a spent budget: Codex tries 402 five times more, and stops on this with `insufficient_quota`."""
_KEPT_ANSWER = re.compile(rf"{PATH}/(?P<id>[A-Za-z0-9_-]{{1,256}})(?P<cancel>/cancel)?")


class _Reason(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    """What is looked at of an answer as a whole."""

    id: str | None = None
    status: str | None = None
    service_tier: str | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")
    incomplete_details: _Reason | None = None
    output: msgspec.Raw = msgspec.Raw(b"null")
    input_tokens: int | None = None


class _Item(msgspec.Struct):
    type: str = ""


class _Said(msgspec.Struct):
    """What is looked at of an event."""

    type: str = ""
    output_index: int = 0
    content_index: int | None = None
    summary_index: int | None = None
    command_index: int | None = None
    delta: str | dict[str, str | None] | None = None
    """More of a text, or of several by their names: what a command writes."""
    item: _Item | None = None
    response: msgspec.Raw = msgspec.Raw(b"null")
    code: str | None = None
    message: str | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


class _Environment(msgspec.Struct):
    type: str | None = None


class _Tool(msgspec.Struct):
    type: str = ""
    environment: _Environment | None = None


_NULL = msgspec.Raw(b"null")
_SAID, _RESPONSE, _TOOLS = (msgspec.json.Decoder(each) for each in (_Said, _Response, list[_Tool] | None))


class Responses:
    """Reads and writes Responses."""

    name: DialectName = "responses"
    text_fields = frozenset(
        {"instructions", "input", "tools", "text", "prompt", "metadata", "user", "safety_identifier"}
    )
    sign_of_life = COMMENT
    opaque_keys = frozenset({
        "type", "role", "status", "id", "call_id", "item_id", "file_id", "file_data", "image_url", "encrypted_content", "input_audio",
        "fingerprint",
    })  # fmt: skip
    token_keys = frozenset({"logprobs"})

    def read(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Asked:
        """Return a request as read."""
        place, _, query = path.partition("?")
        operation = OPERATIONS.get(place)
        if method != "POST" or operation is None:
            return self._read_kept(method, place, query, headers, body)
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
            output_tokens_max=request.number(top, "max_output_tokens"),
            tier=tier_of(request.text(top, "service_tier")),
            is_background=operation == "generate" and request.boolean(top, "background"),
            brings=_unbounded,
            served=tuple(_served(top)),
            temperature=request.temperature(top),
            spelt=_spelt(top),
        )

    def _read_kept(self, method: str, place: str, query: str, headers: Mapping[str, str], body: bytes) -> Asked:
        """Return a request that is about an answer which the provider keeps."""
        found = _KEPT_ANSWER.fullmatch(place)
        is_cancel = found is not None and found["cancel"] is not None
        if found is None or method != ("POST" if is_cancel else "GET"):
            message = f"{method} {place} is not answered here: POST {PATH}, GET {PATH}/ID, POST {PATH}/ID/cancel"
            raise ModelRefused(Refusal(why="unsupported", message=message))
        return Asked(
            dialect=self.name,
            operation="cancel" if is_cancel else "retrieve",
            model="",
            path=f"{place}?{query}" if query else place,
            headers=request.headers_sent_on(headers),
            top=request.top_level(body) if body else {},
            is_stream=not is_cancel and parse_qs(query).get("stream", [""])[-1] == "true",
            size_bytes=len(body),
            answer_id=found["id"],
            spelt="include" if SPELT.decode() in unquote(query) else "",
        )

    def forward(self, asked: Asked, means: Means) -> Wire:
        """Return what the provider gets."""
        if asked.operation in ("retrieve", "cancel"):
            return Wire(body=request.encoded(asked.top) if asked.top else b"", headers=asked.headers, path=asked.path)
        top = {**asked.top, **means.replaced}
        top["model"] = msgspec.json.encode(means.model)
        if means.output_tokens_max is not None and asked.operation == "generate":
            top["max_output_tokens"] = msgspec.json.encode(means.output_tokens_max)
        return Wire(body=request.encoded(top), headers=asked.headers, path=asked.path)

    def reader(self, asked: Asked, *, is_stream: bool) -> AnswerReader:
        """Return a reader of the answer to a request."""
        sayings = _Sayings(self, asked.operation)
        return StreamReader(sayings) if is_stream else WholeReader(sayings.whole)

    def rewrite(self, event: Event, texts: Sequence[Text]) -> bytes:
        """Return an event's bytes with other texts in the place of its own, in their order."""
        return rewritten(event, texts, pieces)

    @turned
    def whole(self, asked: Asked, events: Sequence[Event]) -> bytes:
        """Return the JSON of an answer that came as a stream: its last event has it."""
        del asked
        return as_whole(content for each in reversed(events) if (content := parts(each.wire)[1]))

    @turned
    def stream(self, asked: Asked, body: bytes) -> Sequence[Event]:
        """Return the events of an answer that came as JSON."""
        reader = self.reader(asked, is_stream=True)
        return [*reader.feed(b"".join(as_stream(body))), *reader.close()]

    def refused(self, refusal: Refusal) -> Wire:
        """Return a refusal after which clients stop."""
        status = QUOTA_STATUS if refusal.why in ("budget", "unpriced") and refusal.status is None else None
        return error_wire(refusal, {"error": openai_error(refusal)}, status)

    def broken(self, refusal: Refusal, sent: Sequence[Event]) -> bytes:
        """Return the bytes that end a stream under way with an error.

        `response.failed` is what programs look for. The official SDKs hand it on like any event, but raise `APIError` on
        whatever has an `error` at its top.
        """
        error = openai_error(refusal)
        number, response = failed_response((parts(each.wire)[1] for each in reversed(sent)), error)
        said = {"type": "response.failed", "sequence_number": number, "response": response, "error": error}
        return framed(msgspec.json.encode(said), "response.failed")


def _unbounded(top: Mapping[str, bytes]) -> Iterator[str]:
    yield from request.kinds_in(top.get("input"), MEDIA)
    yield from _served(top)
    yield from (name for name in KEPT if top.get(name, b"null") not in (b"null", b"[]"))


def _spelt(top: Mapping[str, bytes]) -> str:
    if SPELT in top.get("include", b""):
        return "include"
    return "top_logprobs" if top.get("top_logprobs", b"null") not in (b"null", b"0") else ""


def _served(top: Mapping[str, bytes]) -> Iterator[str]:
    try:
        tools = _TOOLS.decode(top.get("tools", b"null")) or ()
    except (msgspec.MsgspecError, RecursionError) as error:
        raise request.invalid(f"tools: {error}") from error
    yield from sorted({each.type for each in tools if each.type not in CLIENT_TOOLS and not _is_local(each)})


def _is_local(tool: _Tool) -> bool:
    return tool.type == "shell" and tool.environment is not None and tool.environment.type == "local"


# --- Answers ---------------------------------------------------------------------------------------------------------


class _Sayings:
    """What the events of one answer mean, one after another."""

    def __init__(self, dialect: Responses, operation: Operation) -> None:
        self._dialect, self._operation = dialect, operation
        self._id, self._is_refusal = "", False
        self._open = dict[str, int]()
        """Channels that have not ended, and of which item each is."""
        self._has_grown = False

    def said(self, wire: bytes, name: str, content: bytes) -> Event:
        """Return an event that has data."""
        try:
            said = _SAID.decode(content)
            state = _RESPONSE.decode(said.response) if said.response != _NULL else None
        except msgspec.ValidationError:
            checked(content)  # something in a place where nobody expects it: it goes by unread
            return Event(wire=wire, kind="content", is_unread=True)
        kind = said.type or name
        if kind.endswith(".delta"):
            return self._grown(wire, kind, said)
        if kind == "error" or (said.error != _NULL and state is None):
            return self._failed(wire, bytes(said.error), said.code, said.message)
        wire, whole_content = in_one_line(wire, name, content)
        if whole_content is not content:  # what is in it is written otherwise too
            content, said = whole_content, _SAID.decode(whole_content)
        if state is not None:
            return self._state(wire, kind, state, bytes(said.response))
        whole = Whole(content)
        if kind.endswith(".done"):
            return Event(wire=wire, closes=self._closed(kind, said), answer_id=self._id, whole=whole)
        is_opening = kind.endswith("_part.added") or (said.item is not None and said.item.type in OPENING_ITEMS)
        is_content = said.item is not None and not is_opening
        meaning = "opening" if is_opening else "content" if is_content else "other"
        return Event(wire=wire, kind=meaning, answer_id=self._id, whole=whole)

    def _grown(self, wire: bytes, kind: str, said: _Said) -> Event:
        if kind == "response.refusal.delta":
            self._is_refusal = True
        if not said.delta or kind in OPAQUE_DELTAS:
            return Event(wire=wire, kind="content", answer_id=self._id)
        self._has_grown = True
        channel = _channel(kind[:-6], said)
        if isinstance(said.delta, str):
            self._open[channel] = said.output_index
            texts = (Text(channel, said.delta, "arguments" in kind),)
        else:
            texts = tuple(Text(f"{channel}.{name}", text) for name, text in said.delta.items() if text)
            self._open |= dict.fromkeys([each.channel for each in texts], said.output_index)
        return Event(wire=wire, kind="content", texts=texts, answer_id=self._id)

    def _closed(self, kind: str, said: _Said) -> tuple[str, ...]:
        """Return the channels that end with a text, or with its item."""
        channel = _channel(kind.removesuffix(".done"), said)
        closes = tuple(
            name
            for name, index in self._open.items()
            if name == channel
            or name.startswith(f"{channel}.")
            or (said.item is not None and index == said.output_index)
        )
        for name in closes:
            del self._open[name]
        return closes

    def _state(self, wire: bytes, kind: str, response: _Response, document: bytes) -> Event:
        """Return an event that has the answer as a whole in it, as it is by now."""
        self._id = response.id or self._id
        whole = Whole(document, is_answer=True)
        usage = usage_of(bytes(response.usage), response.service_tier)
        match kind:
            case "response.completed" | "response.incomplete":
                texts = () if self._has_grown else texts_of_output(response.output)
                return Event(
                    wire=wire, kind="terminal", usage=usage, stop=self._stop(response), answer_id=self._id,
                    whole=Whole(document, is_answer=True, output_bytes=sum(len(each.text) for each in texts)),
                )  # fmt: skip
            case "response.failed":
                status, message = failure_of(bytes(response.error))
                return Event(
                    wire=wire,
                    kind="error",
                    usage=usage,
                    status=status,
                    message=message,
                    answer_id=self._id,
                    whole=whole,
                )
            case _:
                return Event(wire=wire, kind="opening", usage=usage, answer_id=self._id, whole=whole)

    def _stop(self, response: _Response) -> str:
        if self._is_refusal or b'"refusal"' in bytes(response.output):
            return "refusal"
        reason = response.incomplete_details.reason if response.incomplete_details is not None else None
        return reason or response.status or "completed"

    def _failed(self, wire: bytes, error: bytes, code: str | None = None, message: str | None = None) -> Event:
        raw = error if error != b"null" else msgspec.json.encode({"code": code, "message": message})
        status, message = failure_of(raw)
        return Event(wire=wire, kind="error", status=status, message=message, answer_id=self._id)

    def whole(self, body: bytes) -> Event:
        """Return what an answer is that came in one piece."""
        if (found := answered(_RESPONSE, body)) is None:
            return Event(wire=body)
        response, odd = found
        is_failed = response.status == "failed" and self._operation == "generate"
        if (response.status is None or is_failed) and bytes(response.error) != b"null":
            return self._failed(body, bytes(response.error))
        if self._operation == "count":
            is_counted = response.input_tokens is not None or "input_tokens" in odd
            return Event(wire=body, kind="terminal" if is_counted else "other")
        has_name = response.id is not None or "id" in odd
        has_status = response.status is not None or "status" in odd
        if not (has_name and has_status) and not bytes(response.output).startswith(b"[") and not is_told(odd, "output"):
            return Event(wire=body)
        texts, is_unread = (), bool(odd)
        try:
            texts = () if odd else texts_of_output(response.output)
        except (ValueError, RecursionError):
            is_unread = True
        usage = None if response.status in UNDER_WAY else usage_of(bytes(response.usage), response.service_tier)
        return Event(
            wire=body, kind="terminal", usage=usage, texts=texts, closes=tuple(each.channel for each in texts),
            stop=self._stop(response), answer_id=response.id or "", is_unread=is_unread,
        )  # fmt: skip

    def ended(self) -> Sequence[Event]:
        """Return nothing: an answer without its last event has no end."""
        return ()

    def failed(self, message: str) -> Event:
        """Return an error that the gateway found."""
        wire = self._dialect.broken(Refusal(why="partial", message=message), ())
        return Event(wire=wire, kind="error", status=502, message=message)


def _channel(kind: str, said: _Said) -> str:
    part = said.content_index or said.summary_index or said.command_index or 0
    return f"{kind}.{said.output_index}.{part}"
