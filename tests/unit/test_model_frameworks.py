"""Pydantic AI and LangChain at the real door: every way in which a call can end is one that their callers can tell."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from pydantic_ai import Agent
from pydantic_ai.exceptions import AgentRunError, ModelAPIError, ModelAuthenticationError, ModelQuotaExceededError
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider

from doors import Door, door_of
from models_kit import config_of, until
from overwinter import config as declared
from overwinter.declared import DeclaredBudget
from provider import Mock, Rule
from sdks import google_client, of_anthropic, of_openai, quiet

pytestmark = [pytest.mark.anyio, quiet]
LIMIT = 60
POOR, NONE = {"x-overwinter-agent": "poor"}, {"x-overwinter-agent": "none"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a framework makes of an answer, in the words of neither."""

    text: str
    calls: tuple[tuple[str, Mapping[str, Any]], ...]
    is_clipped: bool
    input_tokens: int
    output_tokens: int


class Pydantic:
    """Pydantic AI, over the SDK of the dialect."""

    failures: tuple[type[Exception], ...] = (AgentRunError,)

    @asynccontextmanager
    async def model(self, dialect: str, door: Door, key: str, headers: Mapping[str, str]) -> AsyncGenerator[Model]:
        match dialect:
            case "messages":
                async with of_anthropic(door.url, key=key, default_headers=headers) as client:
                    yield AnthropicModel("cheap", provider=AnthropicProvider(anthropic_client=client))
            case "gemini":
                client = google_client(door.url, key=key, headers=headers)
                async with client.aio:
                    yield GoogleModel("cheap", provider=GoogleProvider(client=client))
            case _:
                kind = OpenAIChatModel if dialect == "chat" else OpenAIResponsesModel
                async with of_openai(door.url, key=key, default_headers=headers) as client:
                    yield kind("cheap", provider=OpenAIProvider(openai_client=client))

    async def ask(self, dialect: str, door: Door, *, is_stream: bool, limit: int, key: str, headers: Any) -> Said:
        called = list[tuple[str, Mapping[str, Any]]]()
        async with self.model(dialect, door, key, headers) as model:
            agent = Agent(model, model_settings={"max_tokens": limit})

            @agent.tool_plain
            def weather(city: str) -> str:  # pyright: ignore[reportUnusedFunction] - the agent has it
                called.append(("weather", {"city": city}))
                return "rain"

            if is_stream:
                async with agent.run_stream("Where?") as stream:
                    text = "".join([each async for each in stream.stream_text(delta=True, debounce_by=None)])
                    last, usage = stream.response, stream.usage
            else:
                result = await agent.run("Where?")
                text, last, usage = result.output, result.response, result.usage
        return Said(
            text=text, calls=tuple(called), is_clipped=last.finish_reason == "length", input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
        )  # fmt: skip


class LangChain:
    """LangChain over OpenAI's SDK."""

    failures: tuple[type[Exception], ...] = (openai.APIError, ValueError)
    """The second is what it makes of `response.failed`."""

    async def ask(self, dialect: str, door: Door, *, is_stream: bool, limit: int, key: str, headers: Any) -> Said:
        model = ChatOpenAI(
            model="cheap", base_url=f"{door.url}/v1", api_key=SecretStr(key), max_completion_tokens=limit, max_retries=0,
            default_headers=headers, use_responses_api=dialect == "responses", stream_usage=True,
            http_async_client=openai.DefaultAsyncHttpxClient(),
        )  # fmt: skip
        async with model.root_async_client:
            asked, said = model.bind_tools([weather]), None
            if is_stream:
                async for chunk in asked.astream("Where?"):
                    said = chunk if said is None else said + chunk
            else:
                said = await asked.ainvoke("Where?")
        return self.told(said)

    def told(self, said: Any) -> Said:
        meta, usage = said.response_metadata, said.usage_metadata
        is_clipped = meta.get("finish_reason") == "length" or meta.get("status") == "incomplete"
        return Said(
            text=said.text, calls=tuple((each["name"], each["args"]) for each in said.tool_calls), is_clipped=is_clipped,
            input_tokens=usage["input_tokens"], output_tokens=usage["output_tokens"],
        )  # fmt: skip


def weather(city: str) -> str:
    """How it is there."""
    return city


Framework = Pydantic | LangChain
CASES: tuple[tuple[Framework, str], ...] = (
    *((Pydantic(), each) for each in ("chat", "responses", "messages", "gemini")),
    *((LangChain(), each) for each in ("chat", "responses")),
)
every_framework = pytest.mark.parametrize(
    ("framework", "dialect"), CASES, ids=[f"{type(each).__name__}-{dialect}" for each, dialect in CASES]
)
both_ways = pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])


@pytest.fixture
async def door(project, provider: Mock) -> AsyncGenerator[Door]:
    budgets = {"small": DeclaredBudget(of="agent:poor", usd=0.000_000_01, window="ever")}
    config = config_of(provider.url, budgets=budgets)
    config = replace(config, agents={**config.agents, "poor": declared.Agent(models=("*",))})
    async with door_of(project, config) as door:
        yield door


async def ask(door: Door, framework: Framework, dialect: str, *, is_stream: bool = False, **options: Any) -> Said:
    asked: dict[str, Any] = {"limit": LIMIT, "key": door.key, "headers": {}, **options}
    return await framework.ask(dialect, door, is_stream=is_stream, **asked)


async def failure(door: Door, framework: Framework, dialect: str, **options: Any) -> str:
    """Return what the framework's own error says."""
    with pytest.raises(framework.failures) as raised:
        await ask(door, framework, dialect, **options)
    return str(raised.value)


@pytest.mark.claim("M1.frameworks")
@every_framework
@both_ways
async def test_an_answer_is_read_to_its_end_with_its_counts(
    door: Door, provider: Mock, framework: Framework, dialect: str, *, is_stream: bool
):
    provider.script(Rule(tokens=5))
    said = await ask(door, framework, dialect, is_stream=is_stream)
    charge = provider.calls[-1]
    assert (said.text, said.calls, said.is_clipped) == ("tok0 tok1 tok2 tok3 tok4 ", (), False)
    assert (said.input_tokens, said.output_tokens) == (charge.prompt.fresh, charge.output_tokens)


@every_framework
@both_ways
async def test_an_answer_that_met_its_limit_says_so(
    door: Door, provider: Mock, framework: Framework, dialect: str, *, is_stream: bool
):
    provider.script(Rule(tokens=50))
    said = await ask(door, framework, dialect, is_stream=is_stream, limit=3)
    assert (said.text, said.is_clipped) == ("tok0 tok1 tok2 ", True)


@every_framework
@both_ways
async def test_a_tool_is_called_with_its_arguments_and_answered(
    door: Door, provider: Mock, framework: Framework, dialect: str, *, is_stream: bool
):
    provider.script(Rule(tool="weather"), Rule(tokens=2))
    said = await ask(door, framework, dialect, is_stream=is_stream)
    assert said.calls == (("weather", {"city": "Oslo"}),)
    if isinstance(framework, Pydantic):  # it calls the tool itself, and tells the model what it said
        assert said.text == "tok0 tok1 "
        assert b"rain" in provider.provider.bodies[-1]


@pytest.mark.claim("M1.frameworks")
@every_framework
@both_ways
async def test_a_refusal_is_an_error_that_says_what_is_wrong_at_the_first_try(
    door: Door, provider: Mock, framework: Framework, dialect: str, *, is_stream: bool
):
    asked: Mapping[str, Any] = {"framework": framework, "dialect": dialect, "is_stream": is_stream}
    assert "no rule permits agent 'none' to think cheap" in await failure(door, **asked, headers=NONE)
    assert "does not hold this call" in await failure(door, **asked, headers=POOR)
    assert "an API token is needed" in await failure(
        door, **asked, key=door.key[:-1] + ("y" if door.key[-1] == "x" else "x")
    )
    assert provider.calls == []
    provider.script(Rule(fault="status", status=400))
    assert "400" in await failure(door, **asked)
    assert len(provider.calls) == 1


@pytest.mark.parametrize("dialect", ["chat", "responses", "messages"])
async def test_pydantic_ai_tells_a_spent_budget_from_a_token_that_does_not_count(door: Door, dialect: str):
    cases: tuple[tuple[dict[str, Any], type[Exception]], ...] = (
        ({"headers": POOR}, ModelQuotaExceededError),
        ({"key": "k"}, ModelAuthenticationError),
    )
    for options, kind in cases:
        with pytest.raises(ModelAPIError) as raised:
            await ask(door, Pydantic(), dialect, **options)
        assert isinstance(raised.value, kind)


@every_framework
async def test_a_provider_that_fails_is_an_error(door: Door, provider: Mock, framework: Framework, dialect: str):
    provider.script(Rule(fault="error_body", times=3), Rule(fault="status", status=401))
    assert "mock answered with an error" in await failure(door, framework, dialect)
    assert "does not take the home's credential" in await failure(door, framework, dialect)


@pytest.mark.claim("M1.frameworks")
@every_framework
@pytest.mark.parametrize("fault", ["reset", "cut", "error_event"])
async def test_a_stream_that_breaks_is_an_error(
    door: Door, provider: Mock, framework: Framework, dialect: str, fault: Any
):
    provider.script(Rule(fault=fault, at=9))
    await failure(door, framework, dialect, is_stream=True)
    assert door.app.models.lines(limit=1)[0].status == "partial"


@every_framework
async def test_a_stream_is_an_error_when_its_agent_is_revoked(
    door: Door, provider: Mock, framework: Framework, dialect: str
):
    provider.script(Rule(fault="stall", at=9))
    errors = list[str]()

    async def asked() -> None:
        errors.append(await failure(door, framework, dialect, is_stream=True))

    async with anyio.create_task_group() as group:
        group.start_soon(asked)
        await until(lambda: bool(provider.calls) and provider.calls[-1].output_tokens > 3)
        await door.app.governance.revoke("default", by="owner@example.com")
    assert "revoked" in errors[0]
    assert door.app.models.lines(limit=1)[0].status == "revoked"
