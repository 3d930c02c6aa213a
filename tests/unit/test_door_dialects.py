"""The official SDKs at the models' door: answers in the background, and models of another dialect."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from models_kit import config_of, home_of
from overwinter.app import App
from overwinter.config import Agent
from overwinter.faces.api import api
from overwinter.faces.models import ModelsDoor
from provider import Mock, Rule

pytestmark = pytest.mark.anyio
PROMPT = [{"role": "user", "content": "Where?"}]


@asynccontextmanager
async def http(app: App, **headers: str) -> AsyncGenerator[httpx2.AsyncClient]:
    door = ModelsDoor(api(app), app, is_remote=False)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(door), headers=headers) as client:
        yield client


@asynccontextmanager
async def of_openai(app: App, **headers: str) -> AsyncGenerator[Any]:
    async with http(app, **headers) as client:
        yield openai.AsyncOpenAI(base_url="http://home/v1", api_key="k", max_retries=0, http_client=client)


@asynccontextmanager
async def of_anthropic(app: App) -> AsyncGenerator[Any]:
    async with http(app) as client:
        yield anthropic.AsyncAnthropic(base_url="http://home", api_key="k", max_retries=0, http_client=client)


async def test_openais_sdk_asks_for_an_answer_in_the_background_reads_it_on_and_ends_it(project, provider: Mock):
    config = config_of(provider.url)
    config = replace(config, agents={**config.agents, "other": Agent(models=("*",))})
    provider.script(Rule(tokens=4, polls=1), Rule(tokens=4))
    async with home_of(project, config) as app, of_openai(app) as client:
        begun = await client.responses.create(model="cheap", input="hi", background=True)
        assert begun.status == "queued"
        assert (await client.responses.retrieve(begun.id)).status == "in_progress"
        assert (await client.responses.retrieve(begun.id)).output_text == "tok0 tok1 tok2 tok3 "
        stream = await client.responses.retrieve(begun.id, stream=True, starting_after=2)
        assert [each.type async for each in stream][-1] == "response.completed"
        second = await client.responses.create(model="cheap", input="hi", background=True)
        assert (await client.responses.cancel(second.id)).status == "cancelled"
        async with of_openai(app, **{"x-overwinter-agent": "other"}) as other:
            with pytest.raises(openai.NotFoundError):
                await other.responses.retrieve(begun.id)
        assert {each.state for each in app.models.lines()} == {"settled", "unknown"}


async def test_openais_sdk_asks_a_model_of_messages_and_anthropics_one_of_chat(project, provider: Mock):
    config = config_of(provider.url)
    mock = config.providers["mock"]
    providers = {"a": replace(mock, dialects=("messages",)), "o": replace(mock, dialects=("chat",))}
    models = {
        "claude": replace(config.models["cheap"], provider="a"),
        "gpt": replace(config.models["cheap"], provider="o"),
    }
    config = replace(config, providers=providers, models=models, gateway=replace(config.gateway, model="gpt"))
    tool = {"type": "object", "properties": {"city": {"type": "string"}}}
    provider.script(Rule(text="Oslo", times=2), Rule(tool="weather"), Rule(text="Oslo", times=2), Rule(tool="weather"))
    async with home_of(project, config) as app:
        async with of_openai(app) as client:
            whole = await client.chat.completions.create(model="claude", messages=PROMPT)
            assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("Oslo", "stop")
            async with client.chat.completions.stream(model="claude", messages=PROMPT) as stream:
                assert (await stream.get_final_completion()).choices[0].message.content == "Oslo"
            functions = [{"type": "function", "function": {"name": "weather", "parameters": tool}}]
            async with client.chat.completions.stream(model="claude", messages=PROMPT, tools=functions) as stream:
                (call,) = (await stream.get_final_completion()).choices[0].message.tool_calls
                assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Oslo"}')
            with pytest.raises(openai.BadRequestError, match="top_p has no counterpart"):
                await client.chat.completions.create(model="claude", messages=PROMPT, top_p=0.5)
        async with of_anthropic(app) as client:
            whole = await client.messages.create(model="gpt", max_tokens=9, messages=PROMPT)
            assert (whole.content[0].text, whole.stop_reason) == ("Oslo", "end_turn")
            async with client.messages.stream(model="gpt", max_tokens=9, messages=PROMPT) as stream:
                final = await stream.get_final_message()
                assert (final.content[0].text, final.usage.output_tokens) == ("Oslo", whole.usage.output_tokens)
            functions = [{"name": "weather", "input_schema": tool}]
            async with client.messages.stream(model="gpt", max_tokens=99, messages=PROMPT, tools=functions) as stream:
                final = await stream.get_final_message()
                assert (final.content[0].input, final.stop_reason) == ({"city": "Oslo"}, "tool_use")
            with pytest.raises(anthropic.BadRequestError, match="top_k has no counterpart"):
                await client.messages.create(model="gpt", max_tokens=9, messages=PROMPT, extra_body={"top_k": 5})
