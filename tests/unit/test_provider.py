"""The provider of the tests, judged by the official SDKs: what it says is what they understand, in every state."""

import json
from collections.abc import AsyncIterator

import aiohttp
import anthropic
import openai
import pytest
from google.genai import errors as genai_errors

from provider import Mock, Rule
from provider.plan import Fault
from sdks import of_anthropic, of_google, of_openai, quiet

pytestmark = quiet
PROMPT = [{"role": "user", "content": "Where?"}]


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


# --- What it says ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["", "weather"])
async def test_chat_is_understood(provider: Mock, tool: str):
    provider.script(Rule(tool=tool, tokens=3, thinking_tokens=2, times=2))
    async with of_openai(provider.url) as client:
        whole = await client.chat.completions.create(model="mock-1", messages=PROMPT, service_tier="flex")
        events = [
            each
            async for each in await client.chat.completions.create(
                model="mock-1",
                messages=PROMPT,
                service_tier="flex",
                stream=True,
                stream_options={"include_usage": True},
            )
        ]
    assert whole.usage == events[-1].usage
    assert whole.usage is not None
    assert whole.usage.completion_tokens == provider.calls[0].output_tokens == provider.calls[1].output_tokens
    assert whole.service_tier == "flex"
    said = whole.choices[0].message
    if tool:
        pieces = [
            call.function.arguments
            for each in events
            for choice in each.choices
            for call in choice.delta.tool_calls or ()
        ]
        assert (
            json.loads("".join(filter(None, pieces)))
            == json.loads(said.tool_calls[0].function.arguments)
            == {"city": "Oslo"}
        )
    else:
        assert (
            "".join(choice.delta.content or "" for each in events for choice in each.choices)
            == said.content
            == "tok0 tok1 tok2 "
        )
    assert [line.end for line in provider.calls] == ["complete", "complete"]


async def test_choices_multiply_what_chat_bills(provider: Mock):
    provider.script(Rule(tokens=4))
    async with of_openai(provider.url) as client:
        whole = await client.chat.completions.create(model="mock-1", messages=PROMPT, n=3)
    assert len(whole.choices) == 3
    assert whole.usage.completion_tokens == provider.calls[0].output_tokens == 12


@pytest.mark.parametrize("tool", ["", "weather"])
async def test_responses_are_understood(provider: Mock, tool: str):
    provider.script(Rule(tool=tool, tokens=3, times=2))
    async with of_openai(provider.url) as client:
        whole = await client.responses.create(model="mock-1", input="Where?")
        async with client.responses.stream(model="mock-1", input="Where?") as stream:
            kinds = [each.type async for each in stream]
            streamed = await stream.get_final_response()
    assert streamed.output[0].to_dict() == whole.output[0].to_dict() or streamed.output_text == whole.output_text
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert whole.usage.output_tokens == provider.calls[1].output_tokens


async def test_a_background_answer_is_there_after_some_polls_and_billed_then(provider: Mock):
    provider.script(Rule(tokens=5, polls=1))
    async with of_openai(provider.url) as client:
        queued = await client.responses.create(model="mock-1", input="Where?", background=True)
        assert (queued.status, queued.usage, provider.calls[0].output_tokens) == ("queued", None, 0)
        assert (await client.responses.retrieve(queued.id)).status == "in_progress"
        done = await client.responses.retrieve(queued.id)
        assert (done.status, done.usage.output_tokens, provider.calls[0].end) == ("completed", 5, "complete")
        again = [each.type async for each in await client.responses.retrieve(queued.id, stream=True, starting_after=2)]
        assert again[-1] == "response.completed"
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve("resp_none")


async def test_a_cancelled_background_answer_is_billed_and_never_says_what(provider: Mock):
    async with of_openai(provider.url) as client:
        queued = await client.responses.create(model="mock-1", input="Where?", background=True)
        cancelled = await client.responses.cancel(queued.id)
    assert (cancelled.status, cancelled.usage) == ("cancelled", None)
    assert (provider.calls[0].end, provider.calls[0].output_tokens, provider.calls[0].is_usage_sent) == (
        "cancelled",
        25,
        False,
    )


@pytest.mark.parametrize("tool", ["", "weather"])
async def test_messages_are_understood(provider: Mock, tool: str):
    provider.script(Rule(tool=tool, tokens=3, thinking_tokens=2, searches=2, times=2))
    async with of_anthropic(provider.url) as client:
        whole = await client.messages.create(model="mock-1", max_tokens=99, messages=PROMPT)
        async with client.messages.stream(model="mock-1", max_tokens=99, messages=PROMPT) as stream:
            streamed = await stream.get_final_message()
    assert [each.type for each in streamed.content] == [each.type for each in whole.content]
    last, other = streamed.content[-1], whole.content[-1]
    assert last.input == other.input if tool else last.text == other.text
    assert streamed.stop_reason == whole.stop_reason == ("tool_use" if tool else "end_turn")
    assert streamed.usage.output_tokens == whole.usage.output_tokens == provider.calls[1].output_tokens
    assert whole.usage.server_tool_use.web_search_requests == 2


async def test_a_marked_prompt_is_written_to_the_cache_and_then_read(provider: Mock):
    system = [{"type": "text", "text": "x" * 8_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    async with of_anthropic(provider.url) as client:
        for _ in range(2):
            await client.messages.create(model="mock-1", max_tokens=9, messages=PROMPT, system=system)
    first, second = provider.calls
    assert first.prompt.written_1h == second.prompt.read > 1_024
    assert first.prompt.prompt == second.prompt.prompt


@pytest.mark.parametrize("tool", ["", "weather"])
async def test_gemini_is_understood(provider: Mock, tool: str):
    provider.script(Rule(tool=tool, tokens=3, thinking_tokens=2, times=2))
    client = of_google(provider.url)
    whole = await client.models.generate_content(model="mock-1", contents="Where?")
    chunks = [each async for each in await client.models.generate_content_stream(model="mock-1", contents="Where?")]
    if tool:
        assert chunks[-1].function_calls == whole.function_calls
    else:
        assert "".join(each.text or "" for each in chunks) == whole.text == "tok0 tok1 tok2 "
    assert chunks[-1].usage_metadata == whole.usage_metadata
    assert whole.usage_metadata.thoughts_token_count == 2
    assert chunks[-1].candidates[0].finish_reason == "STOP"
    counted = await client.models.count_tokens(model="mock-1", contents="Where?")
    assert counted.total_tokens == whole.usage_metadata.prompt_token_count


async def test_tokens_are_counted_vectors_given_and_models_listed(provider: Mock):
    async with of_openai(provider.url) as client, of_anthropic(provider.url) as other:
        vectors = await client.embeddings.create(model="mock-1", input=["abcdefgh", "abcd"])
        assert [len(each.embedding) for each in vectors.data] == [64, 64]
        assert vectors.usage.prompt_tokens == provider.calls[0].prompt.fresh == 3
        plain = await client.embeddings.create(model="mock-1", input=[1, 2, 3], encoding_format="float")
        assert (len(plain.data), plain.usage.prompt_tokens) == (1, 3)
        assert [each.id async for each in client.models.list()] == ["mock-1", "mock-2"]
        counted = await other.messages.count_tokens(model="mock-1", messages=PROMPT)
        assert counted.input_tokens > 0
        assert [each.id async for each in other.models.list()] == ["mock-1", "mock-2"]
    assert [each.name async for each in await of_google(provider.url).models.list()] == [
        "models/mock-1",
        "models/mock-2",
    ]


async def test_its_limit_clips_an_answer(provider: Mock):
    async with of_openai(provider.url) as client, of_anthropic(provider.url) as other:
        chat = await client.chat.completions.create(model="m", messages=PROMPT, max_completion_tokens=2)
        response = await client.responses.create(model="m", input="x", max_output_tokens=2)
        message = await other.messages.create(model="m", messages=PROMPT, max_tokens=2)
    assert (chat.choices[0].finish_reason, response.status, message.stop_reason) == (
        "length",
        "incomplete",
        "max_tokens",
    )
    assert {line.output_tokens for line in provider.calls} == {2}


# --- How it fails ----------------------------------------------------------------------------------------------------


async def test_it_refuses_in_the_words_of_each_dialect(provider: Mock):
    provider.script(Rule(fault="status", status=429, retry_after_s=2, times=4))
    async with of_openai(provider.url) as client, of_anthropic(provider.url) as other:
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model="m", messages=PROMPT)
        assert refused.value.response.headers["retry-after"] == "2"
        with pytest.raises(openai.RateLimitError):
            await client.responses.create(model="m", input="x")
        with pytest.raises(anthropic.RateLimitError):
            await other.messages.create(model="m", messages=PROMPT, max_tokens=2)
        with pytest.raises(genai_errors.ClientError) as told:
            await of_google(provider.url).models.generate_content(model="m", contents="x")
        assert (told.value.code, told.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert [(line.end, line.output_tokens) for line in provider.calls] == [("refused", 0)] * 4


async def test_an_error_in_a_stream_is_raised_by_the_sdks(provider: Mock):
    provider.script(Rule(fault="error_event", at=3, times=3))
    async with of_openai(provider.url) as client, of_anthropic(provider.url) as other:
        with pytest.raises(openai.APIError):
            async for _ in await client.chat.completions.create(model="m", messages=PROMPT, stream=True):
                pass
        with pytest.raises(anthropic.APIStatusError):
            async for _ in await other.messages.create(model="m", messages=PROMPT, max_tokens=9, stream=True):
                pass
        with pytest.raises(genai_errors.ServerError):
            async for _ in await of_google(provider.url).models.generate_content_stream(model="m", contents="x"):
                pass
    assert [line.end for line in provider.calls] == ["error"] * 3


async def test_when_a_stream_just_stops_no_sdk_notices(provider: Mock):
    provider.script(Rule(fault="cut", at=3, times=2))
    async with of_openai(provider.url) as client, of_anthropic(provider.url) as other:
        chunks = [each async for each in await client.chat.completions.create(model="m", messages=PROMPT, stream=True)]
        assert chunks[-1].choices[0].finish_reason is None
        events = [
            each async for each in await other.messages.create(model="m", messages=PROMPT, max_tokens=9, stream=True)
        ]
        assert events[-1].type == "content_block_start"
    assert [(line.end, line.is_usage_sent) for line in provider.calls] == [("cut", False)] * 2


async def test_a_reset_breaks_the_connection(provider: Mock):
    provider.script(Rule(fault="reset", at=3))
    async with of_openai(provider.url) as client:
        with pytest.raises(openai.APIConnectionError):
            async for _ in await client.chat.completions.create(model="m", messages=PROMPT, stream=True):
                pass
    assert provider.calls[0].end == "reset"


@pytest.mark.parametrize("fault", ["slow_first", "stall"])
async def test_a_wait_lasts_until_it_is_released(provider: Mock, web: aiohttp.ClientSession, fault: Fault):
    provider.script(Rule(fault=fault, at=2))
    body = {"model": "m", "messages": PROMPT, "stream": True}
    got = b""
    asking = web.post(f"{provider.url}/v1/chat/completions", json=body)
    if fault == "slow_first":
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_read=0.05)) as hasty:
            with pytest.raises(TimeoutError):
                await hasty.post(f"{provider.url}/v1/chat/completions", json=body)
        assert provider.calls[0].end in ("open", "client_gone")
    async with asking as answer:
        async for chunk in answer.content.iter_any():
            got += chunk
            provider.provider.release()
    assert got.endswith(b"data: [DONE]\n\n")


async def test_who_leaves_pays_what_was_written(provider: Mock):
    provider.script(Rule(fault="endless", at=3))
    async with of_openai(provider.url) as client:
        seen = 0
        async for _ in await client.chat.completions.create(model="m", messages=PROMPT, stream=True):
            seen += 1
            if seen == 500:
                break
    for _ in range(1_000):
        if provider.calls[0].end == "client_gone":
            break
        async with aiohttp.ClientSession() as session, session.get(f"{provider.url}/_mock/bill"):
            pass
    assert provider.calls[0].end == "client_gone"
    assert provider.calls[0].output_tokens >= 490


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ("html", b"<!doctype html>"),
        ("error_body", b'"error"'),
        ("junk", b'{"id"'),
        ("negative_usage", b"-"),
        ("no_usage", b"finish_reason"),
    ],
)
async def test_it_answers_200_with_what_is_no_answer(
    provider: Mock, web: aiohttp.ClientSession, fault: Fault, word: bytes
):
    provider.script(Rule(fault=fault))
    async with web.post(f"{provider.url}/v1/chat/completions", json={"model": "m", "messages": PROMPT}) as answer:
        assert answer.status == 200
        assert word in await answer.read()


async def test_a_bomb_is_small_on_the_wire(provider: Mock):
    provider.script(Rule(fault="gzip_bomb"))
    async with (
        aiohttp.ClientSession(auto_decompress=False) as web,
        web.post(f"{provider.url}/v1/messages", json={"model": "m", "messages": PROMPT}) as answer,
    ):
        assert answer.headers["content-encoding"] == "gzip"
        assert len(await answer.read()) < 1 << 20


@pytest.mark.parametrize("split", [1, 3, 50])
async def test_noise_and_cuts_change_nothing_for_the_sdks(provider: Mock, split: int):
    provider.script(Rule(noise=True, split_bytes=split, tokens=3, times=3))
    async with of_openai(provider.url) as client, of_anthropic(provider.url) as other:
        chunks = [each async for each in await client.chat.completions.create(model="m", messages=PROMPT, stream=True)]
        assert "".join(each.choices[0].delta.content or "" for each in chunks) == "tok0 tok1 tok2 "
        async with other.messages.stream(model="m", max_tokens=9, messages=PROMPT) as stream:
            assert (await stream.get_final_message()).content[0].text == "tok0 tok1 tok2 "
        async with client.responses.stream(model="m", input="x") as stream:
            assert (await stream.get_final_response()).output_text == "tok0 tok1 tok2 "


async def test_the_bill_and_the_rules_are_had_over_http(provider: Mock, web: aiohttp.ClientSession):
    async with web.post(f"{provider.url}/_mock/rules", json=[{"tokens": 7, "when": "/v1/messages"}]) as answer:
        assert await answer.json() == {"rules": 1}
    body = {"model": "m", "messages": PROMPT, "max_tokens": 99}
    async with web.post(f"{provider.url}/v1/messages", json=body, headers={"x-api-key": "secret"}) as answer:
        said = await answer.json()
    async with web.get(f"{provider.url}/_mock/bill") as answer:
        bill = await answer.json()
    assert bill["totals"]["output"] == said["usage"]["output_tokens"] == 7
    assert bill["calls"][0]["headers"]["x-api-key"].startswith("sha256:")
    async with web.delete(f"{provider.url}/_mock"):
        assert provider.calls == []
