"""What programs ask models through the gateway: a question, answered as text or as checked data, or the next word of a conversation.

A call of a program is a named call: asked again after a crash, it gets the answer that it got, and nobody pays twice.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, cast

from overwinter.events import Call, Raised, Returned
from overwinter.frozen import frozen, replace
from overwinter.gateway.budget import Line
from overwinter.gateway.caller import Collected, Sink
from overwinter.gateway.dialect import Asked, Dialect, DialectName
from overwinter.gateway.refusal import ModelRefused, Refusal
from overwinter.gateway.routes import Routes
from overwinter.values import Value

__all__ = ["ANSWER_TOOL", "Ask", "Conversation", "Said", "Thinker"]

ANSWER_TOOL = "answer"
OUTPUT_TOKENS_MAX = 4_096
"""Unless the program says another limit."""
TOLD_ALIKE = ("system", "instructions")
"""Keys of what agents are told before their goals, in the dialects where it stands alone."""
TOLD_REMEMBERED = 64
TOLD_BYTES_MAX = 64 << 10
CUT = ("length", "max_tokens", "MAX_TOKENS", "incomplete")
"""How dialects say that an answer came to its limit."""
PREFERRED: tuple[DialectName, ...] = ("messages", "chat", "responses", "gemini")
KINDS = {"denied": "PermissionError", "revoked": "PermissionError", "budget": "PermissionError", "unpriced": "PermissionError", "confidential": "PermissionError", "timeout": "TimeoutError", "invalid": "ValueError", "unknown-model": "LookupError", "unsupported": "ValueError", "too-large": "ValueError"}  # fmt: skip

Ask = Callable[[Asked, Call, Sink], Awaitable[Line]]
"""Answers a request for a call of a program, into a sink."""


@frozen
class Conversation:
    """What a model is to go on with."""

    model: str
    """"": the default."""
    system: str
    turns: Sequence[tuple[Literal["user", "assistant"], str]]
    """From the first of the user to the last of the user."""
    max_tokens: int


@frozen
class Said:
    """What it went on with."""

    text: str
    is_cut: bool
    """Whether it came to `max_tokens` before its end."""
    cost_nusd: int


class Thinker:
    """Asks models for programs."""

    def __init__(self, routes: Routes, dialects: Mapping[DialectName, Dialect], ask: Ask, *, default: str) -> None:
        self._routes, self._dialects, self._ask, self._default = routes, dialects, ask, default
        self._shared = lru_cache(TOLD_REMEMBERED)(bytes)
        """One object for what many agents are told alike, see `_alike`."""

    async def perform(self, call: Call) -> Returned | Raised:
        """Ask a model, and return what it says."""
        try:
            question = _Question.of(call.arguments, self._default)
        except ValueError as error:
            return Raised(kind="ValueError", message=f"tools.think: {error}")
        sent = await self._sent(call, question)
        return sent if isinstance(sent, Raised) else _answer(sent[0], question, sent[1])

    async def converse(self, call: Call, conversation: Conversation) -> Said | Raised:
        """Have a model say what comes next in a conversation."""
        question = _Question(
            prompt=conversation.turns[-1][1], model=conversation.model or self._default, system=conversation.system, schema=None,
            max_tokens=conversation.max_tokens, temperature=None, earlier=tuple(conversation.turns[:-1]),
        )  # fmt: skip
        sent = await self._sent(call, question)
        if isinstance(sent, Raised):
            return sent
        name, sink, line = sent
        read = _read(name, question, sink)
        if isinstance(read, Raised):
            return read
        text, stop = read
        return Said(text=str(text), is_cut=stop in CUT, cost_nusd=line.cost_nusd or 0)

    async def _sent(self, call: Call, question: "_Question") -> tuple[DialectName, Collected, Line] | Raised:
        """Ask a question in a dialect that its model speaks; return which, what came, and its line in the ledger."""
        try:
            spoken = self._routes.one(question.model).targets[0].provider.dialects
            name: DialectName | None = next((each for each in PREFERRED if each in spoken), None)
            if name is None:
                return Raised(
                    kind="ValueError",
                    message=f"{question.model} answers no questions: it speaks {', '.join(sorted(spoken))}",
                )
            path, body = _BODIES[name](question)
            headers = {"content-type": "application/json"}
            asked = self._dialects[name].read("POST", path, headers, json.dumps(body, ensure_ascii=False).encode())
            asked = self._alike(asked)
            del body  # a thousand agents may wait for their models at once
        except ModelRefused as error:
            return _raised(error.refusal)
        sink = Collected()
        return name, sink, await self._ask(asked, call, sink)

    def _alike(self, asked: Asked) -> Asked:
        """Return a request that holds what agents are told before their goals once for all of them that wait."""
        alike = {
            key: self._shared(asked.top[key])
            for key in TOLD_ALIKE
            if 0 < len(asked.top.get(key, b"")) <= TOLD_BYTES_MAX
        }
        return replace(asked, top={**asked.top, **alike})


@frozen
class _Question:
    prompt: str
    model: str
    system: str
    schema: Mapping[str, Any] | None
    max_tokens: int
    temperature: float | None
    earlier: tuple[tuple[str, str], ...] = ()
    """What was said before, as user and assistant in turns."""

    @classmethod
    def of(cls, arguments: Mapping[str, Value], default: str) -> "_Question":
        """Return the question that the arguments of a call are.

        Raises:
            ValueError: one of them is none.
        """
        given: dict[str, Any] = {name: value for name, value in arguments.items() if value is not None}
        prompt, model = given.get("prompt"), given.get("model", default)
        schema, most = given.get("schema"), given.get("max_tokens", OUTPUT_TOKENS_MAX)
        temperature, system = given.get("temperature"), given.get("system", "")
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError("prompt is a text that asks something")
        if not isinstance(model, str) or not model:
            raise ValueError("model is the name of one; without it `[gateway] model` of overwinter.toml says which")
        if not isinstance(system, str):
            raise ValueError("system is a text")  # noqa: TRY004 - all of them are one kind of error to the program
        if schema is not None and not isinstance(schema, dict):
            raise ValueError("schema is a JSON schema, as a dict")
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise ValueError(f"max_tokens is a whole number from 1, not {most!r}")
        if temperature is not None and (isinstance(temperature, bool) or not isinstance(temperature, int | float)):
            raise ValueError(f"temperature is a number, not {temperature!r}")
        return cls(
            prompt=prompt, model=model, system=system, schema=cast("Mapping[str, Any] | None", schema), max_tokens=most,
            temperature=temperature,
        )  # fmt: skip


def _chat(question: _Question) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "system", "content": question.system}] if question.system else []
    messages += _turns(question)
    body: dict[str, Any] = {
        "model": question.model,
        "messages": [*messages, {"role": "user", "content": question.prompt}],
        "max_completion_tokens": question.max_tokens,
    }
    if question.schema is not None:
        shape = {"name": ANSWER_TOOL, "schema": question.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
    return "/v1/chat/completions", body | _temperature(question)


def _responses(question: _Question) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {
        "model": question.model,
        "input": [*_turns(question), {"role": "user", "content": question.prompt}]
        if question.earlier
        else question.prompt,
        "max_output_tokens": question.max_tokens,
        "store": False,
    }
    if question.system:
        body["instructions"] = question.system
    if question.schema is not None:
        body["text"] = {"format": {"type": "json_schema", "name": ANSWER_TOOL, "schema": question.schema}}
    return "/v1/responses", body | _temperature(question)


def _messages(question: _Question) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {
        "model": question.model,
        "max_tokens": question.max_tokens,
        "messages": [*_turns(question), {"role": "user", "content": question.prompt}],
    }
    if question.earlier:  # what stands up to here is the beginning of the next request: the provider is to keep it
        marked = {"type": "text", "text": question.prompt, "cache_control": {"type": "ephemeral"}}
        body["messages"][-1] = {"role": "user", "content": [marked]}
    if question.system:
        body["system"] = question.system
    if question.schema is not None:
        tool = {"name": ANSWER_TOOL, "description": "Give the answer.", "input_schema": question.schema}
        body |= {"tools": [tool], "tool_choice": {"type": "tool", "name": ANSWER_TOOL}}
    return "/v1/messages", body | _temperature(question)


def _gemini(question: _Question) -> tuple[str, dict[str, Any]]:
    config: dict[str, Any] = {"maxOutputTokens": question.max_tokens, **_temperature(question)}
    if question.schema is not None:
        config |= {"responseMimeType": "application/json", "responseJsonSchema": question.schema}
    body: dict[str, Any] = {
        "contents": [
            *(
                {"role": "model" if role == "assistant" else role, "parts": [{"text": text}]}
                for role, text in question.earlier
            ),
            {"role": "user", "parts": [{"text": question.prompt}]},
        ],
        "generationConfig": config,
    }
    if question.system:
        body["systemInstruction"] = {"parts": [{"text": question.system}]}
    return f"/v1beta/models/{question.model}:generateContent", body


def _turns(question: _Question) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in question.earlier]


def _temperature(question: _Question) -> dict[str, Any]:
    return {} if question.temperature is None else {"temperature": question.temperature}


_BODIES: Mapping[DialectName, Callable[[_Question], tuple[str, dict[str, Any]]]] = {
    "chat": _chat, "responses": _responses, "messages": _messages, "gemini": _gemini,
}  # fmt: skip


def _answer(name: DialectName, question: _Question, sink: Collected) -> Returned | Raised:
    """Return what came, as the program gets it."""
    read = _read(name, question, sink)
    if isinstance(read, Raised):
        return read
    found, stop = read
    if stop in CUT:
        message = f"{question.model} was cut after {question.max_tokens} tokens: pass max_tokens=, or ask for less"
        return Raised(kind="ValueError", message=message, code="cut")
    if question.schema is None:
        return Returned(value=found if isinstance(found, str) else json.dumps(found))
    return _checked(found, question)


def _read(name: DialectName, question: _Question, sink: Collected) -> tuple[Any, str] | Raised:
    """Return what was said and why it stopped there."""
    try:
        read: Any = json.loads(b"".join(sink.parts))
    except ValueError:
        return Raised(kind="OSError", message=f"{question.model} answered what is no JSON", status=sink.status or 502)
    if sink.status != 200:  # noqa: PLR2004 - RFC 9110, 15.3.1
        return _failed(read, sink.status, sink.refused, question.model)
    try:
        return _READERS[name](read)
    except (KeyError, IndexError, TypeError, AttributeError):
        return Raised(kind="OSError", message=f"{question.model} answered in a form that nobody knows", status=502)


def _checked(found: Any, question: _Question) -> Returned | Raised:
    """Return an answer that is what the schema says, or why it is not."""
    import jsonschema_rs  # noqa: PLC0415 - for whoever asks for data

    try:
        value = json.loads(found) if isinstance(found, str) else found
        wrong = next(jsonschema_rs.validator_for(dict(question.schema or {})).iter_errors(value), None)
    except ValueError as error:  # jsonschema_rs's too
        return Raised(
            kind="ValueError", message=f"{question.model} did not answer in the schema's form: {error}", code="schema"
        )
    if wrong is not None:
        place = "".join(f"[{each!r}]" for each in wrong.instance_path)
        return Raised(
            kind="ValueError",
            message=f"the answer of {question.model} is not what the schema says: {place} {wrong.message}",
            code="schema",
        )
    return Returned(value=value)


def _failed(read: Any, status: int, refused: str, model: str) -> Raised:
    error: Any = read.get("error", read) if isinstance(read, dict) else read
    error = error if isinstance(error, dict) else {"message": str(error)}
    why = str(error.get("code") or error.get("type") or error.get("status") or "")
    return Raised(
        kind="PermissionError" if status in (402, 403) else "TimeoutError" if status == 504 else "OSError",  # noqa: PLR2004 - RFC 9110, 15.5 and 15.6
        message=f"{'' if refused else f'{model}, {status}: '}{str(error.get('message', ''))[:2_000]}",
        status=status,
        code=refused or why,
        is_retryable=status in (408, 409, 429, 500, 502, 503, 504, 529)
        and why != "insufficient_quota"
        and refused != "misconfigured",
    )


def _raised(refusal: Refusal) -> Raised:
    return Raised(
        kind=KINDS.get(refusal.why, "OSError"), message=refusal.message, code=refusal.why, status=refusal.status
    )


def _chat_read(read: Any) -> tuple[Any, str]:
    choice = read["choices"][0]
    return choice["message"]["content"] or "", choice.get("finish_reason") or ""


def _responses_read(read: Any) -> tuple[Any, str]:
    texts = [
        part["text"]
        for item in read["output"]
        if item["type"] == "message"
        for part in item["content"]
        if part["type"] == "output_text"
    ]
    return "".join(texts), read.get("status", "")


def _messages_read(read: Any) -> tuple[Any, str]:
    blocks: Sequence[Any] = read["content"]
    for block in blocks:
        if block["type"] == "tool_use" and block["name"] == ANSWER_TOOL:
            return block["input"], read.get("stop_reason") or ""
    return "".join(block["text"] for block in blocks if block["type"] == "text"), read.get("stop_reason") or ""


def _gemini_read(read: Any) -> tuple[Any, str]:
    candidate = read["candidates"][0]
    texts = [part["text"] for part in candidate["content"]["parts"] if "text" in part and not part.get("thought")]
    return "".join(texts), candidate.get("finishReason") or ""


_READERS: Mapping[DialectName, Callable[[Any], tuple[Any, str]]] = {
    "chat": _chat_read, "responses": _responses_read, "messages": _messages_read, "gemini": _gemini_read,
}  # fmt: skip
