"""The official SDKs at the real door: every way in which a call can end."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

import anthropic
import anyio
import httpx2
import openai
import pytest
from google.genai import errors as genai_errors

from doors import Door, door_of
from models_kit import config_of, until
from overwinter.config import Agent
from overwinter.declared import DeclaredBudget
from overwinter.gateway.dialect import DialectName
from provider import Mock, Rule
from sdks import of_anthropic, of_google, of_openai, quiet

pytestmark = [pytest.mark.anyio, quiet]
PROMPT = [{"role": "user", "content": "Where?"}]
GENERATING: tuple[DialectName, ...] = ("chat", "responses", "messages", "gemini")
every_dialect = pytest.mark.parametrize("name", GENERATING)
both_ways = pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
Headers = Mapping[str, str] | None


@pytest.fixture
async def door(project, provider: Mock) -> AsyncGenerator[Door]:
    async with door_of(project, config_of(provider.url)) as door:
        yield door


async def ask(door: Door, name: DialectName, *, is_stream: bool = False, headers: Headers = None, **fields: Any) -> Any:
    """Return what the SDK makes of an answer: a list of its events for a stream."""
    limit = fields.pop("limit", 60)
    key, model = fields.pop("key", door.key), fields.pop("model", "cheap")
    match name:
        case "messages":
            async with of_anthropic(door.url, key=key) as client:
                asked = {"model": model, "max_tokens": limit, "messages": PROMPT, "extra_headers": headers, **fields}
                found = await client.messages.create(stream=is_stream, **asked)
                return [each async for each in found] if is_stream else found
        case "gemini":
            models = of_google(door.url, key=key, headers=headers).models
            asked = {"model": model, "contents": "Where?", "config": {"max_output_tokens": limit, **fields}}
            if is_stream:
                return [each async for each in await models.generate_content_stream(**asked)]
            return await models.generate_content(**asked)
        case "responses":
            async with of_openai(door.url, key=key) as client:
                asked = {"model": model, "input": "Where?", "max_output_tokens": limit, "extra_headers": headers}
                found = await client.responses.create(stream=is_stream, **asked, **fields)
                return [each async for each in found] if is_stream else found
        case "chat":
            async with of_openai(door.url, key=key) as client:
                asked = {"model": model, "messages": PROMPT, "max_completion_tokens": limit, "extra_headers": headers}
                found = await client.chat.completions.create(stream=is_stream, **asked, **fields)
                return [each async for each in found] if is_stream else found
        case _:
            async with of_openai(door.url, key=key) as client:
                return await client.embeddings.create(model=model, input="Where?", extra_headers=headers, **fields)


def told(name: DialectName, answer: Any) -> tuple[str, str]:
    """Return the text, or the arguments of the tool call, and the word for its end."""
    is_list = isinstance(answer, list)
    events: list[Any] = answer if is_list else [answer]
    match name:
        case "chat" if is_list:
            choices = [each.choices[0] for each in events if each.choices]
            calls = [call for each in choices for call in each.delta.tool_calls or ()]
            text = "".join(each.delta.content or "" for each in choices)
            return text + "".join(each.function.arguments or "" for each in calls), choices[-1].finish_reason
        case "chat":
            (choice,) = answer.choices
            calls = choice.message.tool_calls or ()
            return (choice.message.content or "") + "".join(
                each.function.arguments for each in calls
            ), choice.finish_reason
        case "responses":
            last = events[-1].response if is_list else answer
            calls = [each.arguments for each in last.output if each.type == "function_call"]
            return last.output_text + "".join(calls), last.status
        case "messages" if is_list:
            deltas = [each.delta for each in events if each.type == "content_block_delta"]
            text = "".join(getattr(each, "text", "") or getattr(each, "partial_json", "") for each in deltas)
            return text, next(each.delta.stop_reason for each in events if each.type == "message_delta")
        case "messages":
            text = "".join(each.text for each in answer.content if each.type == "text")
            calls = [str(each.input) for each in answer.content if each.type == "tool_use"]
            return text + "".join(calls), answer.stop_reason
        case _:
            parts = [part for each in events for part in each.candidates[0].content.parts or ()]
            text = "".join(part.text or "" for part in parts if not part.thought)
            calls = [str(part.function_call.args) for part in parts if part.function_call]
            return text + "".join(calls), str(events[-1].candidates[0].finish_reason)


ENDS: Mapping[str, Mapping[DialectName, str]] = {
    "text": {"chat": "stop", "responses": "completed", "messages": "end_turn", "gemini": "FinishReason.STOP"},
    "tool": {"chat": "tool_calls", "responses": "completed", "messages": "tool_use", "gemini": "FinishReason.STOP"},
    "clipped": {
        "chat": "length",
        "responses": "incomplete",
        "messages": "max_tokens",
        "gemini": "FinishReason.MAX_TOKENS",
    },
    "thinking": {"chat": "stop", "responses": "completed", "messages": "end_turn", "gemini": "FinishReason.STOP"},
}
RULES = {
    "text": Rule(tokens=5),
    "tool": Rule(tool="weather"),
    "clipped": Rule(tokens=50),
    "thinking": Rule(tokens=5, thinking_tokens=4),
}


@every_dialect
@both_ways
async def test_every_end_of_an_answer_is_what_the_provider_said_and_costs_what_it_billed(
    door: Door, provider: Mock, name: DialectName, *, is_stream: bool
):
    for kind, rule in RULES.items():
        provider.script(rule)
        answer = await ask(door, name, is_stream=is_stream, limit=3 if kind == "clipped" else 60)
        text, end = told(name, answer)
        assert end == ENDS[kind][name], kind
        assert ("Oslo" if kind == "tool" else "tok0 tok1 tok2 ") in text, kind
        line, charge = door.app.models.lines(limit=1)[0], provider.calls[-1]
        assert line.usage is not None
        assert (line.status, line.usage.source) == ("answered", "provider"), kind
        assert line.cost_nusd == charge.prompt.fresh * 2_000 + charge.output_tokens * 10_000, kind


async def test_counts_vectors_and_lists_are_read_by_the_sdks(door: Door):
    async with of_anthropic(door.url, key=door.key) as client:
        assert (await client.messages.count_tokens(model="cheap", messages=PROMPT)).input_tokens > 0
        assert [each.id async for each in client.models.list()] == ["cheap"]
    async with of_openai(door.url, key=door.key) as client:
        assert [each.id async for each in client.models.list()] == ["cheap"]
        assert len((await client.embeddings.create(model="cheap", input=["a", "b"])).data) == 2
    google = of_google(door.url, key=door.key)
    assert (await google.models.count_tokens(model="cheap", contents="Where?")).total_tokens > 0
    assert [each.name async for each in await google.models.list()] == ["models/cheap"]


ERRORS: Mapping[DialectName, Any] = {
    "chat": openai, "responses": openai, "embeddings": openai, "messages": anthropic, "gemini": genai_errors
}  # fmt: skip


async def status_of(door: Door, name: DialectName, **asked: Any) -> int:
    """Return the status of the error that the SDK raises, which says what is wrong."""
    kind = genai_errors.APIError if name == "gemini" else ERRORS[name].APIStatusError
    with pytest.raises(kind) as raised:
        await ask(door, name, **asked)
    error: Any = raised.value
    assert len(str(error)) > 20
    if name == "messages":
        assert error.body["type"] == "error"
    return error.code if name == "gemini" else error.status_code


EVERY: tuple[DialectName, ...] = (*GENERATING, "embeddings")


@pytest.mark.parametrize("name", EVERY)
async def test_every_refusal_is_an_error_of_the_sdk_with_its_status(project, provider: Mock, name: DialectName):
    budgets = {
        "small": DeclaredBudget(of="agent:poor", usd=0.000_000_01, window="ever"),
        "rate": DeclaredBudget(of="agent:slow", calls=1, window="day"),
    }
    config = config_of(provider.url, budgets=budgets)
    known = Agent(models=("*",))
    config = replace(config, agents={**config.agents, "poor": known, "slow": known})
    async with door_of(project, config) as door:
        assert await status_of(door, name, key=door.key[:-1] + ("y" if door.key[-1] == "x" else "x")) == 401
        assert await status_of(door, name, key="k") == 401
        assert await status_of(door, name, headers={"x-overwinter-agent": "none"}) == 403
        assert await status_of(door, name, headers={"x-overwinter-agent": "nobody"}) == 403
        poor = await status_of(door, name, headers={"x-overwinter-agent": "poor"})
        assert poor == (429 if name == "responses" else 402)
        slow = {"x-overwinter-agent": "slow"}
        await ask(door, name, headers=slow)
        assert await status_of(door, name, headers=slow) == 429
        assert await status_of(door, name, headers={"x-overwinter-cache": "perhaps"}) == 400
        await ask(door, name, headers={"idempotency-key": "one"})
        if name != "embeddings":
            assert await status_of(door, name, headers={"idempotency-key": "one"}, limit=7) == 409
        provider.script(Rule(fault="status", status=400))
        assert await status_of(door, name) == 400
        provider.script(Rule(fault="status", status=401))
        assert await status_of(door, name) == 502
        provider.script(Rule(fault="status", status=429, retry_after_s=100))
        assert await status_of(door, name) == 429
        (spent,) = [each for each in await door.app.models.budgets() if each.budget.scope.name == "poor"] or [None]
        assert spent is None or spent.held_nusd == 0
        assert {each.state for each in door.app.models.lines()} <= {"settled", "refused"}


async def test_one_agent_does_not_get_what_another_got_under_the_same_key(project, provider: Mock):
    config = config_of(provider.url)
    config = replace(config, agents={**config.agents, "other": Agent(models=("*",))})
    async with door_of(project, config) as door:
        for headers in ({}, {"x-overwinter-agent": "other"}) * 2:
            await ask(door, "chat", headers={"idempotency-key": "one", **headers})
        assert [line.agent for line in door.app.models.lines() if line.status == "answered"] == ["other", "default"]
        assert not any("/" in line.call for line in door.app.models.lines()), "a name is a part of an address"


async def test_a_model_that_nobody_declared_is_not_found(project, provider: Mock):
    config = config_of(provider.url)
    config = replace(config, models={"cheap": config.models["cheap"]})
    async with door_of(project, config) as door:
        for name in EVERY:
            assert await status_of(door, name, model="dear") == 404
        assert provider.calls == []


@every_dialect
async def test_a_stream_that_the_provider_breaks_is_an_error_of_the_sdk(door: Door, provider: Mock, name: DialectName):
    for fault in ("reset", "cut", "error_event"):
        provider.script(Rule(fault=fault, at=9))
        await check_broken(door, name)


async def check_broken(door: Door, name: DialectName) -> None:
    """A stream ends with an error that the SDK raises, or yields: openai's does so with the provider's own in Responses."""
    kind = genai_errors.APIError if name == "gemini" else ERRORS[name].APIError
    try:
        events = await ask(door, name, is_stream=True)
    except kind:
        return
    assert name == "responses"
    assert events[-1].type in ("error", "response.failed")


@every_dialect
@pytest.mark.parametrize("whose", ["agent", "token"])
async def test_a_stream_is_an_error_of_the_sdk_when_its_agent_or_token_is_revoked(
    door: Door, provider: Mock, name: DialectName, whose: str
):
    provider.script(Rule(fault="stall", at=9))
    async with anyio.create_task_group() as group:
        group.start_soon(check_broken, door, name)
        await until(lambda: bool(provider.calls) and provider.calls[-1].output_tokens > 3)
        if whose == "agent":
            await door.app.governance.revoke("default", by="owner@example.com")
        else:
            await door.app.access.revoke(door.token.id, by="lead")
            await door.app.models.cut_key(door.token.id, f"token {door.token.id} was revoked").ended()
    assert door.app.models.lines(limit=1)[0].status == "revoked"
    assert await status_of(door, name) == (403 if whose == "agent" else 401)


async def test_a_token_that_is_revoked_while_a_body_comes_in_asks_no_provider(door: Door, provider: Mock):
    body = b'{"model": "cheap", "messages": [{"role": "user", "content": "Where?"}]}'
    host, port = door.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {door.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    assert (await door.post("/v1/models", b"", method="GET"))[0] == 200
    door.app.access._seen.clear()
    async with await anyio.connect_tcp(host, int(port)) as connection:
        await connection.send(head.encode() + body[:10])
        await until(lambda: bool(door.app.access._seen))  # it was let in
        await door.app.access.revoke(door.token.id, by="lead")
        await connection.send(body[10:])
        answer = b"".join([part async for part in connection])
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"counts no more" in answer
    assert not provider.calls


@every_dialect
@pytest.mark.parametrize("was_stream", [False, True], ids=["from-whole", "from-stream"])
@both_ways
async def test_a_kept_answer_is_the_same_to_the_sdk_whichever_way_it_came(
    door: Door, provider: Mock, name: DialectName, *, was_stream: bool, is_stream: bool
):
    for kind in ("text", "tool"):
        provider.script(RULES[kind])
        asked: dict[str, Any] = {"headers": {"x-overwinter-cache": "max-age=60"}, "limit": len(kind) + 50}
        first = told(name, await ask(door, name, is_stream=was_stream, **asked))
        count = len(provider.calls)
        again = told(name, await ask(door, name, is_stream=is_stream, **asked))
        assert len(provider.calls) == count
        assert again[1] == first[1]
        assert again == first or kind == "tool"  # the arguments in one piece come parsed


async def test_the_homes_own_socket_answers_without_a_token(door: Door):
    transport = httpx2.AsyncHTTPTransport(uds=str(door.socket))
    async with of_openai("http://local", http_client=httpx2.AsyncClient(transport=transport)) as client:
        answer = await client.chat.completions.create(model="cheap", messages=PROMPT)
        assert answer.choices[0].finish_reason == "stop"
        with pytest.raises(openai.PermissionDeniedError):
            await client.chat.completions.create(
                model="cheap", messages=PROMPT, extra_headers={"x-overwinter-agent": "none"}
            )
