"""Redaction at the models' door: how a client names its conversation, and asks that nothing be kept."""

import json
from typing import Any

import anyio
import pytest

from kit import asked
from models_kit import ask, chat, config_of, home_of
from overwinter.app import App
from overwinter.faces.models import ModelsDoor
from provider import Mock, Rule

pytestmark = pytest.mark.anyio

EMAIL = "ada.quill@corp-mail7.org"


async def posted(app: App, path: str, body: dict[str, Any], **headers: str) -> tuple[int, bytes]:
    """Put a request to the door of this machine, and return status and body."""
    sent = list[Any]()
    raw = json.dumps(body).encode()

    bodies = [raw]

    async def receive() -> dict[str, Any]:
        while not bodies:
            await anyio.sleep_forever()
        return {"type": "http.request", "body": bodies.pop(), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    rows = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": rows}
    await ModelsDoor(lambda *_: None, app, is_remote=False)(scope, receive, send)  # type: ignore[arg-type, return-value]
    return sent[0]["status"], b"".join(each.get("body", b"") for each in sent)


@pytest.mark.parametrize("header", ["x_claude_code_session_id", "session_id", "x_session_id"])
async def test_a_client_names_its_conversation_by_a_header(project, provider: Mock, header):
    async with home_of(project, config_of(provider.url, redact={"email": "replace"})) as app:
        for session in ("one", "one", "two"):
            status, _ = await posted(app, "/v1/chat/completions", chat(EMAIL), **{header: session})
            assert status == 200
        first, second, third = provider.provider.bodies
        assert first == second != third
        assert EMAIL.encode() not in first + third


async def test_a_client_asks_that_nothing_be_kept_or_is_told_that_its_word_is_unknown(project, provider: Mock):
    async with home_of(project, config_of(provider.url, cache=True)) as app:
        body = chat("sing", temperature=0)
        for number in (1, 2):
            status, _ = await posted(app, "/v1/chat/completions", body, x_overwinter_log="none")
            assert (status, len(provider.calls)) == (200, number)
        status, said = await posted(app, "/v1/chat/completions", body, x_overwinter_log="nothing")
        assert (status, len(provider.calls)) == (400, 2)
        assert b"x-overwinter-log is 'none' or left out, not 'nothing'" in said


async def test_what_was_found_is_in_the_log_of_calls(project, provider: Mock):
    config = config_of(provider.url, redact={"email": "replace"}, redact_answers={"card": "mask"})
    async with home_of(project, config) as app:
        provider.script(Rule(text="pay with 4111 1111 1111 1111"))
        client, line = await ask(app, chat(f"{EMAIL} {EMAIL}"))
        assert client.json["choices"][0]["message"]["content"] == "pay with [masked card]"
        assert app.models.line(line.call) == line
        status, told = await asked(app, "GET", "/v1/gateway/calls")
        assert (status, told["calls"][0]["found"]) == (200, {"email": 2, "card": 1})
        figures = await app.models.metrics()
        assert 'overwinter_redactions_total{class="email",in="request"} 2' in figures
        assert 'overwinter_redactions_total{class="card",in="answer"} 1' in figures
