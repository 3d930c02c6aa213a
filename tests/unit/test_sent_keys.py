"""What a provider gets of an `Idempotency-Key`: one of ours, the same for each try of a call, another for each caller."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from doors import Door, door_of
from models_kit import config_of
from provider import Mock, Rule
from sdks import of_anthropic, of_openai

pytestmark = pytest.mark.anyio
PROMPT: Any = [{"role": "user", "content": "Where?"}]


@pytest.fixture
async def door(project, provider: Mock) -> AsyncGenerator[Door]:
    async with door_of(project, config_of(provider.url)) as door:
        yield door


async def chat(door: Door, key: str | None, *, token: str = "", text: str = "Where?") -> None:
    headers = {} if key is None else {"Idempotency-Key": key}
    async with of_openai(door.url, key=token or door.key) as client:
        prompt = [{"role": "user", "content": text}]
        await client.chat.completions.create(model="cheap", messages=prompt, extra_headers=headers)


def sent(provider: Mock) -> list[str]:
    return [each.headers.get("idempotency-key", "") for each in provider.calls]


async def test_the_same_word_of_two_tokens_is_two_keys_and_neither_is_the_word(door: Door, provider: Mock):
    _, other = await door.app.access.create("ben@example.com", by="lead", scopes=("models",))
    await chat(door, "one")
    await chat(door, "one", token=other, text="Whither?")
    await chat(door, "two")
    keys = sent(provider)
    assert len(set(keys)) == 3
    assert all(len(each) == 32 and "one" not in each for each in keys)


async def test_a_call_without_a_key_is_sent_without_one(door: Door, provider: Mock):
    await chat(door, None)
    async with of_anthropic(door.url, key=door.key) as client:
        await client.messages.create(model="cheap", max_tokens=9, messages=PROMPT)
    assert sent(provider) == ["", ""]


async def test_another_try_and_another_provider_get_the_key_of_the_first(project, provider: Mock):
    config = config_of(provider.url)
    first = replace(config.models["cheap"], fallbacks=("spare",))
    config = replace(config, models={"cheap": first, "spare": config.models["cheap"]})
    async with door_of(project, config) as door:
        provider.script(Rule(fault="status", status=503, retry_after_s=0.01, times=4))
        await chat(door, "one")
    keys = sent(provider)
    assert len(keys) == 5
    assert len(set(keys)) == 1


async def test_the_answer_to_a_key_comes_from_the_home_and_not_from_the_provider(door: Door, provider: Mock):
    await chat(door, "one")
    await chat(door, "one")
    assert len(provider.calls) == 1
