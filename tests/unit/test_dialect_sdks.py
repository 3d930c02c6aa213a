"""The official SDKs read what the dialects write: refusals, endings, and an answer made from the other form of it."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web
from google.genai import errors as genai_errors

from overwinter.adapters.dialects import dialects
from overwinter.gateway.dialect import DialectName, Wire
from overwinter.gateway.refusal import Refusal
from provider import Plan, Tokens
from provider.provider import render_events, render_whole
from sdks import of_anthropic, of_google, of_openai, quiet

pytestmark = quiet
ALL = dialects()
PROMPT = [{"role": "user", "content": "Where?"}]
PLAN = Plan(
    id="mock", model="m", pieces=("Hel", "lo ", "ü"), tool="", tokens=Tokens(fresh=9, read=3, output=5, thinking=2), wants_usage=True
)  # fmt: skip
PLANS = {
    "text": PLAN,
    "tool": replace(PLAN, tool="weather", pieces=('{"city', '": "Oslo"}')),
    "clipped": replace(PLAN, is_clipped=True),
    "silent": replace(PLAN, pieces=()),
}
REQUESTS: dict[DialectName, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "m", "stream": True, "stream_options": {"include_usage": True}}),
    "responses": ("/v1/responses", {"model": "m", "stream": True}),
    "messages": ("/v1/messages", {"model": "m", "stream": True}),
    "gemini": ("/v1beta/models/m:streamGenerateContent?alt=sse", {}),
}
every_answer = pytest.mark.parametrize(("name", "plan"), [(name, plan) for name in REQUESTS for plan in PLANS])


@dataclass
class Door:
    """Says what it is told to say, and counts who asks."""

    url: str = ""
    says: Wire = field(default_factory=lambda: Wire(body=b""))
    asked: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.asked += 1
        return web.Response(body=self.says.body, headers=self.says.headers, status=self.says.status)

    def say(self, body: bytes, *, is_stream: bool) -> None:
        media = "text/event-stream" if is_stream else "application/json"
        self.says = Wire(body=body, headers={"content-type": media})


@pytest.fixture
async def door() -> AsyncGenerator[Door]:
    said = Door()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", said.answer)
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    said.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield said
    await runner.cleanup()


async def whole(name: DialectName, url: str, *, retries: int = 0) -> Any:
    """Ask for an answer in one piece."""
    match name:
        case "messages":
            async with of_anthropic(url, retries=retries) as client:
                return await client.messages.create(model="m", max_tokens=9, messages=PROMPT)
        case "gemini":
            return await of_google(url).models.generate_content(model="m", contents="x")
        case _:
            async with of_openai(url, retries=retries) as client:
                match name:
                    case "chat":
                        return await client.chat.completions.create(model="m", messages=PROMPT)
                    case "responses":
                        return await client.responses.create(model="m", input="x")
                    case _:
                        return await client.embeddings.create(model="m", input="x")


async def streamed(name: DialectName, url: str) -> Any:
    """Ask for a stream, and return what the SDK makes of it."""
    match name:
        case "messages":
            async with (
                of_anthropic(url) as client,
                client.messages.stream(model="m", max_tokens=9, messages=PROMPT) as stream,
            ):
                return await stream.get_final_message()
        case "gemini":
            return [each async for each in await of_google(url).models.generate_content_stream(model="m", contents="x")]
        case _:
            async with of_openai(url) as client:
                if name == "responses":
                    async with client.responses.stream(model="m", input="x") as stream:
                        return await stream.get_final_response()
                async with client.chat.completions.stream(model="m", messages=PROMPT) as stream:
                    return await stream.get_final_completion()


def plain(name: DialectName, answer: Any) -> Any:
    """Return what counts of an answer, whichever way it came."""
    match name:
        case "gemini":
            chunks = answer if isinstance(answer, list) else [answer]
            parts = [part for each in chunks for part in (each.candidates[0].content.parts or ())]
            calls = [(part.function_call.name, part.function_call.args) for part in parts if part.function_call]
            text = "".join(part.text or "" for part in parts if not part.thought)
            return text, calls, chunks[-1].candidates[0].finish_reason, chunks[-1].usage_metadata.model_dump()
        case "chat":
            choice = answer.choices[0]
            calls = [
                (each.function.name, json.loads(each.function.arguments)) for each in choice.message.tool_calls or ()
            ]
            return choice.message.content or "", calls, choice.finish_reason, answer.usage.model_dump()
        case "responses":
            calls = [(each.name, each.arguments) for each in answer.output if each.type == "function_call"]
            return answer.output_text, calls, answer.status, answer.usage.model_dump()
        case _:
            said = [(each.type, getattr(each, "text", None), getattr(each, "input", None)) for each in answer.content]
            return said, answer.stop_reason, answer.usage.output_tokens, answer.usage.cache_read_input_tokens


# --- One from the other ----------------------------------------------------------------------------------------------


@every_answer
async def test_an_answer_made_from_its_other_form_is_the_same_to_the_sdk(door: Door, name: DialectName, plan: str):
    path, request = REQUESTS[name]
    dialect = ALL[name]
    asked = dialect.read("POST", path, {}, json.dumps(request).encode())
    given = [each.wire for each in render_events(name, PLANS[plan])]
    reader = dialect.reader(asked, is_stream=True)
    events = [*(each for wire in given for each in reader.feed(wire)), *reader.close()]

    door.say(render_whole(name, PLANS[plan]), is_stream=False)
    expected = plain(name, await whole(name, door.url))
    door.say(dialect.whole(asked, events), is_stream=False)
    assert plain(name, await whole(name, door.url)) == expected

    if (name, plan) in (("chat", "clipped"), ("responses", "clipped")):
        return  # their helpers raise on an answer that was cut, or wait for it to be completed
    door.say(b"".join(given), is_stream=True)
    assert plain(name, await streamed(name, door.url)) == expected
    made = dialect.stream(asked, render_whole(name, PLANS[plan]))
    door.say(b"".join(each.wire for each in made), is_stream=True)
    assert plain(name, await streamed(name, door.url)) == expected


async def test_a_client_that_did_not_ask_gets_no_usage_from_a_stream_that_has_it(door: Door):
    chat = ALL["chat"]
    asked = chat.read("POST", "/v1/chat/completions", {}, b'{"model": "m", "stream": true}')
    reader = chat.reader(asked, is_stream=True)
    events = [each for wire in render_events("chat", PLAN) for each in reader.feed(wire.wire)]
    told = b"".join(each.wire for each in events if not each.is_usage_only)
    assert told == b"".join(each.wire for each in render_events("chat", replace(PLAN, wants_usage=False)))
    door.say(told, is_stream=True)
    async with of_openai(door.url) as client:
        chunks = [each async for each in await client.chat.completions.create(model="m", messages=PROMPT, stream=True)]
    assert all(each.usage is None and each.choices for each in chunks)


# --- Refusals and endings --------------------------------------------------------------------------------------------

DENIED: dict[DialectName, type[Exception]] = {
    "chat": openai.PermissionDeniedError, "responses": openai.PermissionDeniedError, "embeddings": openai.PermissionDeniedError,
    "messages": anthropic.PermissionDeniedError, "gemini": genai_errors.ClientError,
}  # fmt: skip
FAILED: dict[DialectName, type[Exception]] = {
    "chat": openai.APIError, "responses": openai.APIError, "messages": anthropic.APIStatusError, "gemini": genai_errors.ServerError,
}  # fmt: skip


@pytest.mark.parametrize("name", list(DENIED))
async def test_a_refusal_is_raised_at_the_first_try(door: Door, name: DialectName):
    door.says = ALL[name].refused(Refusal(why="denied", message="no rule allows it"))
    with pytest.raises(DENIED[name], match="no rule allows it"):
        await whole(name, door.url, retries=2)
    assert door.asked == 1


@pytest.mark.parametrize("name", list(DENIED))
@pytest.mark.parametrize("why", ["budget", "upstream", "timeout", "overloaded", "rate", "repeated"])
async def test_what_another_try_does_not_help_is_not_tried_again(door: Door, name: DialectName, why: Any):
    door.says = ALL[name].refused(Refusal(why=why, message="not now"))
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError, genai_errors.APIError), match="not now"):
        await whole(name, door.url, retries=2)
    assert door.asked == 1


@pytest.mark.parametrize("name", ["chat", "messages"])
async def test_what_another_try_helps_is_tried_again(door: Door, name: DialectName):
    wire = ALL[name].refused(Refusal(why="overloaded", message="not now", retry_after_s=1))
    door.says = replace(wire, headers={**wire.headers, "retry-after-ms": "1"})
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)):
        await whole(name, door.url, retries=1)
    assert door.asked == 2


@pytest.mark.parametrize("name", list(FAILED))
@pytest.mark.parametrize("count", [1, 3])
async def test_a_stream_that_breaks_is_an_error_to_the_sdk(door: Door, name: DialectName, count: int):
    path, request = REQUESTS[name]
    asked = ALL[name].read("POST", path, {}, json.dumps(request).encode())
    reader = ALL[name].reader(asked, is_stream=True)
    sent = [each for wire in render_events(name, PLAN)[:count] for each in reader.feed(wire.wire)]
    ending = ALL[name].broken(Refusal(why="partial", message="the provider went away"), sent)
    door.say(b"".join(each.wire for each in sent) + ending, is_stream=True)
    with pytest.raises(FAILED[name], match="the provider went away"):
        await streamed(name, door.url)


# --- Signs of life ----------------------------------------------------------------------------------------------------

SHOWING: tuple[DialectName, ...] = ("chat", "responses", "messages")


@pytest.mark.parametrize("name", SHOWING)
@pytest.mark.parametrize("plan", ["text", "tool"])
async def test_a_sign_of_life_before_any_event_means_nothing_to_the_sdk(door: Door, name: DialectName, plan: str):
    sign, given = ALL[name].sign_of_life, [each.wire for each in render_events(name, PLANS[plan])]
    door.say(b"".join(given), is_stream=True)
    expected = plain(name, await streamed(name, door.url))
    door.say(sign + sign + sign.join(given), is_stream=True)
    assert plain(name, await streamed(name, door.url)) == expected


@pytest.mark.parametrize("name", SHOWING)
async def test_an_error_behind_nothing_but_signs_of_life_is_raised_by_the_sdk(door: Door, name: DialectName):
    refusal = Refusal(why="upstream", message="nobody answered")
    door.say(ALL[name].sign_of_life * 3 + ALL[name].broken(refusal, ()), is_stream=True)
    with pytest.raises(FAILED[name], match="nobody answered"):
        await streamed(name, door.url)
