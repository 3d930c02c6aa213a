"""Providers that answer as no provider should: each is a typed error, or harmless, and nothing of it is kept."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from models_kit import Client, Hasty, ask, chat, config_of, home_of
from overwinter.app.models import Wish
from overwinter.config import Config
from overwinter.declared import DeclaredBudget
from overwinter.gateway.dialect import DialectName

pytestmark = pytest.mark.anyio

BUDGET = {"day": DeclaredBudget(of="tenant", usd=1.0, window="day")}
WHOLE: dict[DialectName, Any] = {
    "chat": {
        "id": "c", "object": "chat.completion", "usage": {"prompt_tokens": 5, "completion_tokens": 1},
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    },
    "messages": {
        "id": "m", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn", "usage": {"input_tokens": 5, "output_tokens": 1},
    },
    "responses": {
        "id": "r", "object": "response", "status": "completed", "usage": {"input_tokens": 5, "output_tokens": 1},
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
    },
}  # fmt: skip
ASKED: dict[DialectName, Any] = {
    "chat": chat(temperature=0),
    "messages": {**chat(temperature=0), "max_tokens": 9},
    "responses": {"model": "cheap", "input": "hello", "temperature": 0},
}


def message(body: str, status: int = 200, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body.encode())}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@asynccontextmanager
async def answering(*answers: bytes, seen: list[bytes] | None = None) -> AsyncGenerator[str]:
    """A server that gives these answers one after another, then the last of them; what it is asked is added to `seen`."""
    left = list(answers)

    async def on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        (size,) = [int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.startswith(b"content-length")]
        (seen if seen is not None else []).append(await reader.readexactly(size))
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(on, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def streamed(chunks: Sequence[Any]) -> str:
    return "".join(f"data: {each if isinstance(each, str) else json.dumps(each)}\n\n" for each in chunks)


@pytest.mark.parametrize("dialect", WHOLE)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_json_that_says_it_is_a_stream_is_no_empty_answer_and_is_not_kept(
    project, dialect: DialectName, *, is_stream: bool
):
    mislabelled = message(json.dumps(WHOLE[dialect]), content_type="text/event-stream")
    right = message(json.dumps(WHOLE[dialect]), content_type="application/json")
    async with (
        answering(mislabelled, mislabelled, mislabelled, right) as url,
        home_of(project, config_of(url, budgets=BUDGET, cache=True), clock=Hasty()) as app,
    ):
        client, line = await ask(app, {**ASKED[dialect], "stream": is_stream}, dialect=dialect)
        assert (client.status, line.status) == (502, "upstream"), client.body
        client, line = await ask(app, ASKED[dialect], dialect=dialect)
        assert (client.status, line.status, b"hi" in client.body) == (200, "answered", True)
        (spent,) = await app.models.budgets()
        assert spent.held_nusd == 0


@pytest.mark.parametrize("name", ["retry_after", "retry_after_ms"])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_pause_of_any_length_is_a_typed_error(project, name: str, status: int):
    async with (
        answering(message("busy", status, **{name: "9" * 400, "content_type": "text/plain"})) as url,
        home_of(project, config_of(url), clock=Hasty()) as app,
    ):
        client, _ = await ask(app, chat())
        assert client.status == status
        assert client.json["error"]["message"]
        assert 60 < int(client.headers["retry-after"]) <= 86_400


PARTS = [
    {"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"id": "c", "choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "TOLD"}]}}]},
    {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    "[DONE]",
]
"""A text in parts, as no delta of this dialect has it."""


@pytest.mark.claim("M6.redact.no_leak")
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_an_event_that_cannot_be_read_does_not_pass_rules_for_answers(project, *, is_stream: bool):
    body = streamed(PARTS).replace("TOLD", "AKIAZ7QFJ3XKLMN2PQ5T")
    async with (
        answering(message(body, content_type="text/event-stream")) as url,
        home_of(project, config_of(url, redact_answers={"secret": "block"})) as app,
    ):
        client, line = await ask(app, chat(stream=is_stream))
        assert line.status == "confidential"
        assert b"AKIA" not in client.body


@pytest.mark.claim("M6.redact.restored")
async def test_placeholders_in_an_event_that_cannot_be_read_are_restored(project):
    async with (
        answering(message("{}", content_type="application/json")) as url,
        home_of(project, config_of(url, redact={"otherwise": "replace"})) as app,
    ):
        vaults: Any = app.models.gateway.cleaner
        await ask(app, chat("bob@example.com"))
        ((placeholder, _),) = next(iter(vaults._vaults.values())).values().items()
    body = streamed(PARTS).replace("TOLD", f"mail {placeholder}")
    async with (
        answering(message(body, content_type="text/event-stream")) as url,
        home_of(project, config_of(url, redact={"otherwise": "replace"})) as app,
    ):
        client, _ = await ask(app, chat("bob@example.com", stream=True))
        assert b"mail bob@example.com" in client.body


async def test_whoever_is_told_that_a_provider_is_left_alone_is_told_why(project):
    async with (
        answering(message("[1]", content_type="application/json")) as url,
        home_of(project, config_of(url), clock=Hasty(), is_worker=False) as app,
    ):
        told = [(await ask(app, chat()))[0] for _ in range(4)]
        assert (told[0].status, told[-1].status) == (502, 503)
        assert told[0].json["error"]["message"] in told[-1].json["error"]["message"]


@pytest.mark.parametrize("status", [500, 200])
async def test_what_a_provider_said_of_one_request_is_not_told_to_whoever_asks_next(project, status: int):
    said = json.dumps({"error": {"message": "cannot parse: my diary", "type": "server_error"}})
    async with (
        answering(message(said, status, content_type="application/json")) as url,
        home_of(project, config_of(url), clock=Hasty(), is_worker=False) as app,
    ):
        told = [(await ask(app, chat()))[0] for _ in range(6)]
        assert "diary" in told[0].body.decode()
        assert told[-1].json["error"]["code"] == "overloaded"
        assert "diary" not in told[-1].body.decode()
        assert "answered 500" in told[-1].body.decode()


# --- Answers that are whole, with something in them that their dialect does not have -----------------------------------

GEMINI_PATH = "/v1beta/models/cheap:generateContent"
PARTS_SAID = [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}, {"type": "text", "text": "hi"}]
CANDIDATE = {"index": 0, "content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP"}
MORE: dict[DialectName, Any] = {
    **WHOLE,
    "gemini": {"candidates": [CANDIDATE], "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 1}},
}


def chat_of(content: Any) -> Any:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return {**WHOLE["chat"], "choices": [choice]}


ODD: list[tuple[DialectName, Any]] = [
    ("chat", chat_of(PARTS_SAID)),
    ("chat", {**WHOLE["chat"], "id": 7}),
    ("chat", {**WHOLE["chat"], "service_tier": {"name": "flex"}}),
    ("chat", chat_of("half \ud83d")),
    ("chat", {**WHOLE["chat"], "choices": {"0": "hi"}}),
    ("messages", {**WHOLE["messages"], "id": 7}),
    ("messages", {**WHOLE["messages"], "content": "hi"}),
    ("messages", {**WHOLE["messages"], "content": [{"type": "text", "text": ["hi"]}]}),
    ("messages", {**WHOLE["messages"], "stop_reason": ["end_turn"]}),
    ("responses", {**WHOLE["responses"], "id": 7}),
    ("responses", {**WHOLE["responses"], "incomplete_details": "none"}),
    ("responses", {**WHOLE["responses"], "output": {"text": "hi"}}),
    ("responses", {key: value for key, value in WHOLE["responses"].items() if key not in ("id", "status")}),
    ("gemini", {**MORE["gemini"], "responseId": 7}),
    ("gemini", {**MORE["gemini"], "candidates": [{**CANDIDATE, "content": {"parts": [{"text": ["hi"]}]}}]}),
    ("gemini", {**MORE["gemini"], "candidates": [{**CANDIDATE, "finishReason": 1}]}),
]


async def ask_in(app, dialect: DialectName, **more: Any):
    if dialect != "gemini":
        return await ask(app, {**ASKED[dialect], **more}, dialect=dialect)
    body = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    asked = app.models.dialects["gemini"].read("POST", GEMINI_PATH, {}, json.dumps(body).encode())
    client = Client()
    return client, await app.models.answer(asked, "default", Wish(call="odd"), client)


@pytest.mark.parametrize(("dialect", "answer"), ODD)
async def test_an_answer_with_a_shape_that_nobody_expects_passes_as_it_came_asked_once_and_billed(
    project, dialect: DialectName, answer: Any
):
    raw = json.dumps(answer)
    seen = list[bytes]()
    async with (
        answering(message(raw, content_type="application/json"), seen=seen) as url,
        home_of(project, config_of(url, budgets=BUDGET), clock=Hasty()) as app,
    ):
        client, line = await ask_in(app, dialect)
        assert (client.status, client.body.decode(), line.status) == (200, raw, "answered")
        assert len(seen) == 1
        assert line.usage is not None
        assert (line.usage.source, line.usage.fresh, line.usage.output) == ("provider", 5, 1)
        assert app.models.gateway.breaker.why("mock") == ""


@pytest.mark.parametrize("dialect", MORE)
async def test_an_answer_whose_counts_have_another_shape_is_estimated_and_asked_once(project, dialect: DialectName):
    name = "usageMetadata" if dialect == "gemini" else "usage"
    raw, seen = json.dumps({**MORE[dialect], name: ["five"]}), list[bytes]()
    async with (
        answering(message(raw, content_type="application/json"), seen=seen) as url,
        home_of(project, config_of(url, budgets=BUDGET), clock=Hasty()) as app,
    ):
        client, line = await ask_in(app, dialect)
        assert (client.status, client.body.decode(), len(seen)) == (200, raw, 1)
        assert line.usage is not None
        assert line.usage.source == "estimated"
        assert min(line.usage.fresh, line.usage.output, line.cost_nusd or 0) > 0


@pytest.mark.parametrize("dialect", MORE)
@pytest.mark.parametrize(
    "raw", ["{", "[7]", "7", "{}", '{"error": "no room"}', '{"error": {"message": "no"}}', "<html>"]
)
async def test_what_is_no_answer_is_an_upstream_failure_in_every_dialect(project, dialect: DialectName, raw: str):
    async with (
        answering(message(raw, content_type="application/json")) as url,
        home_of(project, config_of(url), clock=Hasty(), is_worker=False) as app,
    ):
        client, line = await ask_in(app, dialect)
        assert (client.status >= 500, line.status) == (True, "upstream")
        assert app.models.gateway.breaker.why("mock")


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_an_answer_that_cannot_be_said_in_the_clients_dialect_is_a_typed_error_asked_once_and_booked(
    project, *, is_stream: bool
):
    raw, seen = message(json.dumps(chat_of(PARTS_SAID)), content_type="application/json"), list[bytes]()
    if is_stream:
        raw = message(streamed(PARTS), content_type="text/event-stream")
    config = config_of("", budgets=BUDGET)
    async with answering(raw, seen=seen) as url:
        provider = replace(config.providers["mock"], url=url, dialects=("chat",))
        config = replace(config, providers={"mock": provider})
        async with home_of(project, config, clock=Hasty()) as app:
            client, line = await ask(app, {**ASKED["messages"], "stream": is_stream}, dialect="messages")
            assert (client.status, client.json["type"], line.status) == (502, "error", "upstream")
            assert len(seen) == 1
            assert line.usage is not None
            assert line.usage.source == "estimated"
            assert (line.cost_nusd or 0) > 0
            assert app.models.gateway.breaker.why("mock") == ""


@pytest.mark.claim("M6.redact.restored")
async def test_placeholders_in_a_whole_answer_of_an_unexpected_shape_are_restored(project):
    async with (
        answering(message("{}", content_type="application/json")) as url,
        home_of(project, config_of(url, redact={"otherwise": "replace"})) as app,
    ):
        vaults: Any = app.models.gateway.cleaner
        await ask(app, chat("bob@example.com"))
        ((placeholder, _),) = next(iter(vaults._vaults.values())).values().items()
    body = json.dumps(chat_of([{"type": "text", "text": f"mail {placeholder}"}]))
    async with (
        answering(message(body, content_type="application/json")) as url,
        home_of(project, config_of(url, redact={"otherwise": "replace"})) as app,
    ):
        for is_stream in (False, True):
            client, _ = await ask(app, chat("bob@example.com", stream=is_stream))
            assert (client.status, b"mail bob@example.com" in client.body) == (200, True)


# --- What an answer is called -----------------------------------------------------------------------------------------

EVENTS: list[Any] = [
    {"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}}]},
    {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"id": "c", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}},
    "[DONE]",
]
NAMES = [
    "Text/Event-Stream", "TEXT/EVENT-STREAM; charset=utf-8", "application/octet-stream", "text/plain", "application/json", "x",
]  # fmt: skip


@pytest.mark.parametrize("media", NAMES)
@pytest.mark.parametrize("head", ["", ": hello\n\n", "\n\n", "\ufeff"], ids=["plain", "comment", "blank", "mark"])
async def test_a_stream_is_one_whatever_it_is_called_and_is_handed_on_as_one(project, media: str, head: str):
    seen = list[bytes]()
    async with (
        answering(message(head + streamed(EVENTS), content_type=media), seen=seen) as url,
        home_of(project, config_of(url, budgets=BUDGET), clock=Hasty()) as app,
    ):
        client, line = await ask(app, chat(stream=True, stream_options={"include_usage": True}))
        assert (client.status, client.body.decode(), len(seen)) == (200, head + streamed(EVENTS), 1)
        assert client.headers["content-type"].startswith("text/event-stream")
        assert line.usage is not None
        assert (line.status, line.usage.source, line.usage.output) == ("answered", "provider", 1)


@pytest.mark.parametrize("media", [each for each in NAMES if "json" not in each])
async def test_a_stream_by_another_name_is_put_together_for_who_asked_for_none(project, media: str):
    async with (
        answering(message(streamed(EVENTS), content_type=media)) as url,
        home_of(project, config_of(url), clock=Hasty()) as app,
    ):
        client, _ = await ask(app, chat())
        assert (client.status, client.json["choices"][0]["message"]["content"]) == (200, "hi")
        assert client.headers["content-type"] == "application/json"


@pytest.mark.parametrize("media", ["Application/JSON", "text/plain", "application/octet-stream"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_json_is_an_answer_in_one_piece_whatever_it_is_called(project, media: str, *, is_stream: bool):
    async with (
        answering(message(json.dumps(WHOLE["chat"]), content_type=media)) as url,
        home_of(project, config_of(url), clock=Hasty()) as app,
    ):
        client, line = await ask(app, chat(stream=is_stream))
        assert (client.status, line.status, b"hi" in client.body) == (200, "answered", True)
        assert client.headers["content-type"] == ("text/event-stream" if is_stream else "application/json")


async def test_a_page_is_no_answer_in_whatever_letters_and_nothing_is_booked_for_it(project):
    async with (
        answering(message("<html>", content_type="Text/HTML; charset=utf-8")) as url,
        home_of(project, config_of(url, budgets=BUDGET), clock=Hasty()) as app,
    ):
        client, line = await ask(app, chat())
        assert (client.status, line.status, line.cost_nusd) == (502, "upstream", 0)


@pytest.mark.parametrize("status", [301, 302, 304, 307, 308])
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_a_redirect_is_said_to_be_one_not_followed_asked_once_and_not_booked(
    project, status: int, *, is_stream: bool
):
    page, seen = "" if status == 304 else "<html>", list[bytes]()  # RFC 9110, 15.4.5: a 304 has no body
    async with (
        answering(message(page, status, location="/x", content_type="text/html"), seen=seen) as url,
        home_of(project, config_of(url, budgets=BUDGET), clock=Hasty()) as app,
    ):
        client, line = await ask(app, chat(stream=is_stream))
        assert (client.status, line.status, line.cost_nusd, len(seen)) == (502, "misconfigured", 0, 1)
        assert f"mock answered {status}" in client.json["error"]["message"]
        assert "providers.mock.url" in client.json["error"]["message"]
        (spent,) = await app.models.budgets()
        assert (spent.spent_nusd, spent.held_nusd) == (0, 0)


async def test_an_answer_without_a_body_is_told_by_its_own_status(project):
    async with (
        answering(message("", 204)) as url,
        home_of(project, config_of(url), clock=Hasty()) as app,
    ):
        client, _ = await ask(app, chat())
        assert (client.status, "mock answered 204" in client.json["error"]["message"]) == (502, True)


async def test_a_named_call_whose_last_event_had_no_output_is_given_again_what_was_streamed(project):
    whole = WHOLE["responses"]
    (item,) = whole["output"]
    events = [
        {"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "hi"},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {**whole, "output": []}},
    ]
    seen = list[bytes]()
    async with (
        answering(message(streamed(events), content_type="text/event-stream"), seen=seen) as url,
        home_of(project, config_of(url), clock=Hasty()) as app,
    ):
        body = {**ASKED["responses"], "stream": True}
        told = [(await ask(app, body, dialect="responses", call="named", is_named=True))[0] for _ in range(2)]
        assert len(seen) == 1
        last = [json.loads(each.body.split(b"data: ")[-1]) for each in told]
        assert (last[0]["response"]["output"], last[1]["response"]["output"]) == ([], [item])
        assert b'"delta":"hi"' in told[1].body
        one, _ = await ask(app, ASKED["responses"], dialect="responses")
        assert one.json["output"] == [item]


# --- The home's own key ----------------------------------------------------------------------------------------------

KEY = "sk-proj-0aB1cD2eF3gH4iJ5/kL6mN7oP8qR9sT0uV1w"


def keyed(url: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Return a home that knows a provider by a key and a header with another one."""
    monkeypatch.setenv("KEY_OF_MOCK", KEY)
    monkeypatch.setenv("TOKEN_OF_MOCK", KEY[::-1])
    config = config_of(url)
    declared = replace(config.providers["mock"], auth="env:KEY_OF_MOCK", headers={"x-proxy-token": "env:TOKEN_OF_MOCK"})
    return replace(config, providers={"mock": declared})


def forms_of(secret: str) -> Sequence[str]:
    return [secret, secret.replace("/", "\\/"), base64.b64encode(secret.encode()).decode(), quote(secret, safe="")]


@pytest.mark.parametrize("status", [400, 404, 429, 500])
@pytest.mark.parametrize("secret", [KEY, KEY[::-1]], ids=["key", "header"])
async def test_an_error_does_not_bring_the_homes_key_to_a_client(
    project, monkeypatch: pytest.MonkeyPatch, status: int, secret: str
):
    said = '{"error": {"message": "you sent ' + " and ".join(forms_of(secret)) + '", "type": "invalid_request_error"}}'
    async with (
        answering(message(said, status, content_type="application/json")) as url,
        home_of(project, keyed(url, monkeypatch), clock=Hasty()) as app,
    ):
        client, _ = await ask(app, chat())
        assert client.status == status
        assert "you sent [secret] and [secret]" in client.json["error"]["message"]
        assert not any(each in client.body.decode() for each in forms_of(secret))


@pytest.mark.parametrize("dialect", WHOLE)
async def test_an_answer_does_not_bring_the_homes_key_to_a_client(
    project, monkeypatch: pytest.MonkeyPatch, dialect: DialectName
):
    whole = json.dumps(WHOLE[dialect]).replace('"hi"', f'"you are {KEY}"')
    failed = json.dumps({"error": {"message": f"you are {KEY}", "type": "server_error"}})
    async with (
        answering(*(message(each, content_type="application/json") for each in (whole, failed))) as url,
        home_of(project, keyed(url, monkeypatch), clock=Hasty()) as app,
    ):
        for status in (200, 500):
            client, _ = await ask(app, ASKED[dialect], dialect=dialect)
            assert (client.status, "you are [secret]" in client.body.decode(), KEY in client.body.decode()) == (status, True, False)  # fmt: skip


ERRORS: dict[DialectName, Any] = {
    "chat": {"error": {"message": f"you are {KEY}"}},
    "messages": {"type": "error", "error": {"type": "api_error", "message": f"you are {KEY}"}},
    "responses": {
        "type": "response.failed",
        "response": {"id": "r", "status": "failed", "error": {"code": "x", "message": f"you are {KEY}"}},
    },
}


@pytest.mark.parametrize("dialect", ERRORS)
async def test_an_error_in_a_stream_does_not_bring_the_homes_key_to_a_client(
    project, monkeypatch: pytest.MonkeyPatch, dialect: DialectName
):
    async with (
        answering(message(streamed([ERRORS[dialect]]), content_type="text/event-stream")) as url,
        home_of(project, keyed(url, monkeypatch), clock=Hasty()) as app,
    ):
        client, line = await ask(app, {**ASKED[dialect], "stream": True}, dialect=dialect)
        assert line.status == "upstream"
        assert "you are [secret]" in client.body.decode()
        assert KEY not in client.body.decode()
