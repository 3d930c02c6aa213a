"""Clients of one dialect and providers of another: what is carried, what is refused, what it costs."""

import itertools
import json
import re
import typing
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anthropic.types
import anthropic.types.beta.message_create_params as of_messages
import openai.types.chat
import openai.types.chat.completion_create_params as of_chat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_kit import PATHS, ask, config_of, home_of
from overwinter.adapters.dialects import dialects
from overwinter.adapters.translations import translations
from overwinter.adapters.translations.chat_to_messages import FIELDS as CHAT_FIELDS
from overwinter.adapters.translations.chat_to_messages import ChatToMessages
from overwinter.adapters.translations.messages_to_chat import FIELDS as MESSAGES_FIELDS
from overwinter.adapters.translations.messages_to_chat import MessagesToChat
from overwinter.config import Config
from overwinter.declared import DeclaredBudget
from overwinter.gateway.dialect import Asked, DialectName, Means
from overwinter.gateway.refusal import ModelRefused
from provider import Mock, Rule

pytestmark = pytest.mark.anyio
DIALECTS, KNOWN = dialects(), translations()
PIXEL = "iVBORw0KGgo="
CHAT: dict[str, Any] = {"model": "cheap", "messages": [{"role": "user", "content": "hi"}]}
MESSAGES: dict[str, Any] = {"model": "cheap", "max_tokens": 90, "messages": [{"role": "user", "content": "hi"}]}
BASES: Mapping[DialectName, dict[str, Any]] = {"chat": CHAT, "messages": MESSAGES}
OTHER: Mapping[DialectName, DialectName] = {"chat": "messages", "messages": "chat"}
PAIRS = sorted(OTHER)


def config(provider: Mock, client: DialectName, **more: Any) -> Config:
    """Return a home whose provider does not speak the client's dialect."""
    found = config_of(provider.url, **more)
    return replace(found, providers={"mock": replace(found.providers["mock"], dialects=(OTHER[client],))})


def read(client: DialectName, body: Mapping[str, Any], **headers: str) -> Asked:
    return DIALECTS[client].read("POST", PATHS[client], headers, json.dumps(body).encode())


def turned(client: DialectName, body: Mapping[str, Any], **headers: str) -> Any:
    means = Means(model=body["model"], output_tokens_max=None if "max_tokens" in body else 77)
    return json.loads(KNOWN[client, OTHER[client]].forward(read(client, body, **headers), means).body)


# --- Requests --------------------------------------------------------------------------------------------------------

FULL_CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]},
        {"role": "assistant", "content": "so", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "two"}]},
        {"role": "user", "content": "and?"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}}],
    "tool_choice": "required", "max_completion_tokens": 50, "temperature": 0.5, "stop": ["x", "y"],
}  # fmt: skip
FULL_MESSAGES: dict[str, Any] = {
    "model": "m", "max_tokens": 50,
    "system": [{"type": "text", "text": "be brief"}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}]},
        {"role": "assistant", "content": [
            {"type": "text", "text": "so"}, {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}, {"type": "tool_use", "id": "b", "name": "g", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": "one"},
            {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "two"}]},
        ]},
        {"role": "user", "content": [{"type": "text", "text": "and?"}]},
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}, "description": "d"}],
    "tool_choice": {"type": "any"}, "temperature": 0.5, "stop_sequences": ["x", "y"],
}  # fmt: skip


@pytest.mark.claim("T1.carried")
def test_everything_that_is_carried_has_its_counterpart():
    found = KNOWN["chat", "messages"].forward(read("chat", FULL_CHAT), Means(model="m"))
    assert json.loads(found.body) == FULL_MESSAGES
    assert (found.path, found.headers["anthropic-version"]) == ("/v1/messages", "2023-06-01")
    back = KNOWN["messages", "chat"].forward(
        read("messages", FULL_MESSAGES, **{"anthropic-version": "2023-06-01"}), Means(model="m")
    )
    said = json.loads(back.body)
    assert (back.path, "anthropic-version" in back.headers) == ("/v1/chat/completions", False)
    assert said["messages"][1:5] == FULL_CHAT["messages"][1:5]
    assert {key: said[key] for key in FULL_CHAT if key != "messages"} == {
        key: FULL_CHAT[key] for key in FULL_CHAT if key != "messages"
    }


PROSE = st.text(min_size=1, max_size=8)
ARGUMENTS = st.dictionaries(PROSE, st.none() | st.integers() | PROSE | st.lists(st.booleans(), max_size=2), max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        [{"role": "system", "content": [{"type": "text", "text": draw(PROSE)}]}] if draw(st.booleans()) else []
    )
    for turn in range(draw(st.integers(0, 3))):
        found.append({"role": "user", "content": [{"type": "text", "text": draw(PROSE)}]})
        calls = [
            {
                "id": f"c{turn}.{number}",
                "type": "function",
                "function": {"name": draw(PROSE), "arguments": json.dumps(arguments, ensure_ascii=False)},
            }
            for number, arguments in enumerate(draw(st.lists(ARGUMENTS, max_size=2)))
        ]
        found.append({"role": "assistant", "content": draw(PROSE)} | ({"tool_calls": calls} if calls else {}))
        found += [{"role": "tool", "tool_call_id": each["id"], "content": draw(PROSE)} for each in calls]
    return [*found, {"role": "user", "content": [{"type": "text", "text": draw(PROSE)}]}]


@pytest.mark.claim("T1.carried")
@given(conversations())
def test_a_conversation_that_is_turned_and_turned_back_is_the_same(messages: list[dict[str, Any]]):
    there = turned("chat", {"model": "m", "messages": messages})
    back = turned("messages", there)
    assert back["messages"] == messages


SCHEMAS: Mapping[DialectName, set[str]] = {
    "chat": set(typing.get_type_hints(of_chat.CompletionCreateParamsBase)) - CHAT_FIELDS,
    "messages": set(typing.get_type_hints(of_messages.MessageCreateParamsBase)) - {"betas"} - MESSAGES_FIELDS
    | {"top_p", "top_k"},
}


@pytest.mark.claim("T1.refused")
@pytest.mark.parametrize(
    ("client", "each"), [(name, each) for name in PAIRS for each in sorted({*SCHEMAS[name], "unheard_of"})]
)
def test_a_field_that_is_not_carried_is_refused_by_its_name(client: DialectName, each: str):
    value: Any = 7 if each == "n" else "flex"
    with pytest.raises(ModelRefused) as caught:
        turned(client, BASES[client] | {each: value})
    assert caught.value.refusal.why == "unsupported"
    assert caught.value.refusal.message.startswith(f"{each} ")


def changed(client: DialectName, *path: Any, value: Any) -> dict[str, Any]:
    body = json.loads(json.dumps(FULL_CHAT if client == "chat" else FULL_MESSAGES))
    node = body
    for each in path[:-1]:
        node = node[each]
    node[path[-1]] = value
    return body


@pytest.mark.claim("T1.refused")
@pytest.mark.parametrize(
    ("client", "path", "value", "place"),
    [
        ("chat", ("messages", 1, "name"), "bob", "messages[1].name"),
        ("chat", ("messages", 0, "role"), "function", "messages[0].role"),
        ("chat", ("messages", 3, "role"), "system", "messages[3].role"),
        ("chat", ("messages", 2, "refusal"), "no", "messages[2].refusal"),
        ("chat", ("messages", 2, "audio"), {"id": "a"}, "messages[2].audio"),
        ("chat", ("messages", 1, "content", 1, "image_url", "url"), "https://x/y.png", "messages[1].content[1].image_url.url"),
        ("chat", ("messages", 1, "content", 1, "image_url", "detail"), "high", "messages[1].content[1].image_url.detail"),
        ("chat", ("messages", 1, "content", 0, "type"), "input_audio", "messages[1].content[0].type"),
        ("chat", ("messages", 1, "content", 0, "cache_control"), {}, "messages[1].content[0].cache_control"),
        ("chat", ("messages", 2, "tool_calls", 0, "type"), "custom", "messages[2].tool_calls[0].type"),
        ("chat", ("messages", 2, "tool_calls", 0, "function", "arguments"), "{", "messages[2].tool_calls[0].function.arguments"),
        ("chat", ("messages", 5, "role"), "assistant", "messages[5].role"),
        ("chat", ("tools", 0, "type"), "custom", "tools[0].type"),
        ("chat", ("tool_choice",), {"type": "allowed_tools"}, "tool_choice"),
        ("chat", ("temperature",), 1.5, "temperature"),
        ("chat", ("stream_options",), {"include_obfuscation": False}, "stream_options.include_obfuscation"),
        ("messages", ("messages", 0, "content", 0, "citations"), [], "messages[0].content[0].citations"),
        ("messages", ("messages", 0, "content", 1, "source"), {"type": "url", "url": "u"}, "messages[0].content[1].source"),
        ("messages", ("messages", 0, "content", 1, "type"), "document", "messages[0].content[1].type"),
        ("messages", ("messages", 1, "content", 0), {"type": "thinking", "thinking": "t", "signature": "s"}, "messages[1].content[0].type"),
        ("messages", ("messages", 1, "content", 2), {"type": "text", "text": "after"}, "messages[1].content[2]"),
        ("messages", ("messages", 2, "content", 0, "is_error"), True, "messages[2].content[0].is_error"),
        ("messages", ("messages", 2, "content", 1, "content", 0, "type"), "image", "messages[2].content[1].content[0].type"),
        ("messages", ("messages", 2, "content", 0), {"type": "text", "text": "before"}, "messages[2].content[1]"),
        ("messages", ("messages", 3, "role"), "assistant", "messages[3].role"),
        ("messages", ("tools", 0, "type"), "web_search_20250305", "tools[0].type"),
        ("messages", ("tools", 0, "input_examples"), [{}], "tools[0].input_examples"),
        ("messages", ("stop_sequences",), list("abcde"), "stop_sequences"),
    ],
)  # fmt: skip
def test_what_is_not_carried_is_refused_by_its_place(
    client: DialectName, path: tuple[Any, ...], value: Any, place: str
):
    with pytest.raises(ModelRefused) as caught:
        turned(client, changed(client, *path, value=value))
    assert caught.value.refusal.why == "unsupported"
    assert caught.value.refusal.message.startswith(f"{place} ")


JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    1.5,
    "",
    "x",
    [],
    [1],
    [[]],
    ["x"],
    {},
    {"type": 1},
    {"type": []},
    [{"type": {}}],
    {"a": {"b": []}},
)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


@pytest.mark.parametrize("client", PAIRS)
def test_whatever_stands_anywhere_in_a_request_it_is_turned_or_refused(client: DialectName):
    full = FULL_CHAT if client == "chat" else FULL_MESSAGES
    for path in places(full):
        for value in JUNK:
            with suppress(ModelRefused):
                assert turned(client, changed(client, *path, value=value) | {"model": "m"})


@pytest.mark.parametrize(("client", "header"), [("chat", "openai-beta"), ("messages", "anthropic-beta")])
def test_a_beta_of_the_clients_dialect_is_refused(client: DialectName, header: str):
    with pytest.raises(ModelRefused, match=header):
        turned(client, BASES[client], **{header: "x"})


def test_what_says_only_what_holds_anyway_is_not_refused():
    more = {
        "n": 1,
        "store": False,
        "logprobs": False,
        "parallel_tool_calls": True,
        "user": None,
        "presence_penalty": 0,
        "stream": False,
    }
    assert turned("chat", CHAT | more) == turned("chat", CHAT)
    assert turned("messages", MESSAGES | {"thinking": {"type": "disabled"}}) == turned("messages", MESSAGES)


# --- Answers ---------------------------------------------------------------------------------------------------------


def said(client: DialectName, answer: Any) -> tuple[str, list[tuple[str, Any]], str]:
    """Return the text, the calls and the stop of an answer, as the official SDK's types read it."""
    if client == "chat":
        (choice,) = openai.types.chat.ChatCompletion.model_validate(answer).choices
        calls = [
            (each.function.name, json.loads(each.function.arguments))
            for each in choice.message.tool_calls or ()
            if each.type == "function"
        ]
        return choice.message.content or "", calls, choice.finish_reason
    message = anthropic.types.Message.model_validate(answer)
    texts = [each.text for each in message.content if each.type == "text"]
    uses = [(each.name, each.input) for each in message.content if each.type == "tool_use"]
    return "".join(texts), uses, message.stop_reason or ""


def whole(client: DialectName, body: Mapping[str, Any], wire: bytes) -> Any:
    """Return a stream as one piece."""
    asked = read(client, body)
    reader = DIALECTS[client].reader(asked, is_stream=True)
    events = [*reader.feed(wire), *reader.close()]
    assert events[-1].kind == "terminal"
    return json.loads(DIALECTS[client].whole(asked, events))


@pytest.mark.claim("T1.carried")
@pytest.mark.parametrize("rule", [Rule(text="Oslo, of course"), Rule(tool="weather", thinking_tokens=0), Rule(tokens=500), Rule(tool="none", arguments="{}")], ids=["text", "tool", "clipped", "empty"])  # fmt: skip
@pytest.mark.parametrize("client", PAIRS)
async def test_an_answer_says_the_same_whole_and_as_a_stream_and_its_line_is_the_bill(
    project, provider: Mock, client: DialectName, rule: Rule
):
    provider.script(replace(rule, times=2))
    body = (
        BASES[client] | ({"stream_options": {"include_usage": True}} if client == "chat" else {}) | {"max_tokens": 90}
    )
    async with home_of(project, config(provider, client)) as app:
        one, paid = await ask(app, {key: body[key] for key in body if key != "stream_options"}, dialect=client)
        two, streamed = await ask(app, body | {"stream": True}, dialect=client)
    assert provider.calls[0].path == PATHS[OTHER[client]]
    assert (one.status, two.status) == (200, 200)
    answer = whole(client, body | {"stream": True}, two.body)
    assert said(client, one.json) == said(client, answer)
    text, calls, stop = said(client, one.json)
    assert (text, calls) == (
        ("", [(rule.tool, json.loads(rule.arguments))])
        if rule.tool
        else (rule.text or "".join(f"tok{number} " for number in range(90)), [])
    )
    assert stop in ("stop", "tool_calls", "length", "end_turn", "tool_use", "max_tokens")
    for line, charge in zip((paid, streamed), provider.calls, strict=True):
        assert line.usage is not None
        assert (line.usage.source, line.cost_nusd) == (
            "provider",
            charge.prompt.fresh * 2_000 + charge.output_tokens * 10_000,
        )
    names = ("completion_tokens", "prompt_tokens") if client == "chat" else ("output_tokens", "input_tokens")
    for told, charge in zip((one.json, answer), provider.calls, strict=True):
        assert [told["usage"][each] for each in names] == [charge.output_tokens, charge.prompt.fresh]


async def test_what_a_model_thinks_is_counted_and_not_carried(project, provider: Mock):
    provider.script(Rule(thinking_tokens=5, text="so", times=2))
    async with home_of(project, config(provider, "chat")) as app:
        one, line = await ask(app, CHAT, dialect="chat")
        two, _ = await ask(app, CHAT | {"stream": True}, dialect="chat")
    assert said("chat", one.json)[0] == said("chat", whole("chat", CHAT | {"stream": True}, two.body))[0] == "so"
    assert b"hm" not in one.body + two.body
    assert line.usage is not None
    assert line.usage.output == 6


async def test_the_usage_of_a_stream_is_told_only_to_who_asks(project, provider: Mock):
    async with home_of(project, config(provider, "chat")) as app:
        client, line = await ask(app, CHAT | {"stream": True}, dialect="chat")
    assert b"usage" not in client.body
    assert line.usage is not None
    assert line.usage.source == "provider"


@pytest.mark.parametrize("client", PAIRS)
@pytest.mark.parametrize("tool", ["", "weather"])
@given(cuts=st.lists(st.integers(0, 3_000), max_size=12))
def test_a_stream_cut_anywhere_is_the_same_for_the_client(client: DialectName, tool: str, cuts: list[int]):
    from provider.plan import Plan, Tokens  # noqa: PLC0415 - one test's
    from provider.provider import render_events  # noqa: PLC0415 - the same

    pieces = tuple('{"city": "Osl\u00f8"}') if tool else ("Oslø", " is", " ☃")
    plan = Plan(id="x", model="m", pieces=pieces, tool=tool, tokens=Tokens(fresh=5, output=9), wants_usage=True)
    wire = b"".join(each.wire for each in render_events(OTHER[client], plan))
    asked = read(client, BASES[client] | {"stream": True})

    def through(places: list[int]) -> tuple[bytes, list[Any]]:
        reader = KNOWN[client, OTHER[client]].reader(asked, is_stream=True)
        edges = [0, *sorted({each for each in places if each < len(wire)}), len(wire)]
        events = [each for start, end in itertools.pairwise(edges) for each in reader.feed(wire[start:end])]
        events += reader.close()
        return b"".join(each.wire for each in events), [each.usage for each in events if each.usage is not None]

    got, usages = through(cuts)
    assert (got, usages) == through([])
    assert (usages[-1].fresh, usages[-1].output) == (5, 9)


@pytest.mark.claim("T1.refused")
@pytest.mark.parametrize("client", PAIRS)
async def test_a_request_that_cannot_be_carried_is_refused_before_anything_is_held_or_asked(
    project, provider: Mock, client: DialectName
):
    budgets = {"day": DeclaredBudget(of="tenant", usd=1.0)}
    async with home_of(project, config(provider, client, budgets=budgets)) as app:
        answer, line = await ask(app, BASES[client] | {"top_p": 0.5}, dialect=client)
        assert (answer.status, line.status) == (400, "unsupported")
        assert "top_p" in answer.json["error"]["message"]
        assert await app.models.budgets() == []
    assert provider.calls == []


async def test_a_provider_that_speaks_the_clients_dialect_is_not_translated_and_a_fallback_that_cannot_carry_is_left_out(
    project, provider: Mock
):
    found = config(provider, "chat")
    models = {"first": replace(found.models["cheap"], provider="dead", fallbacks=("cheap",)), **found.models}
    dead = replace(found.providers["mock"], url="http://127.0.0.1:9", dialects=("chat",))
    async with home_of(project, replace(found, models=models, providers={**found.providers, "dead": dead})) as app:
        answer, line = await ask(app, CHAT | {"model": "first"}, dialect="chat")
        assert (answer.status, line.upstream, provider.calls[0].path) == (200, "mock", "/v1/messages")
        answer, _ = await ask(app, CHAT | {"model": "first", "top_p": 0.5}, dialect="chat")
        assert answer.status == 502
    assert len(provider.calls) == 1


@pytest.mark.parametrize("client", PAIRS)
async def test_a_providers_refusal_is_said_in_the_clients_dialect(project, provider: Mock, client: DialectName):
    provider.script(Rule(fault="status", status=400))
    async with home_of(project, config(provider, client)) as app:
        answer, _ = await ask(app, BASES[client], dialect=client)
    assert answer.status == 400
    assert "mock answered 400: scripted 400" in answer.json["error"]["message"]
    assert ("type" in answer.json) == (client == "messages")


@pytest.mark.parametrize("client", PAIRS)
@pytest.mark.parametrize("fault", ["cut", "reset", "error_event"])
async def test_a_stream_that_breaks_ends_as_the_clients_dialect_says(
    project, provider: Mock, client: DialectName, fault: Any
):
    provider.script(Rule(fault=fault, at=12))
    async with home_of(project, config(provider, client)) as app:
        answer, line = await ask(app, BASES[client] | {"stream": True}, dialect=client)
    assert (answer.status, line.status, len(provider.calls)) == (200, "partial", 1)
    last = answer.body.decode().rstrip().split("\n\n")[-1]
    assert last.startswith("event: error\n" if client == "messages" else 'data: {"error"')


@pytest.mark.parametrize("client", PAIRS)
async def test_a_kept_answer_is_kept_in_the_clients_dialect(project, provider: Mock, client: DialectName):
    body = BASES[client] | {"temperature": 0}
    async with home_of(project, config(provider, client, cache=True)) as app:
        first, _ = await ask(app, body, dialect=client)
        again, line = await ask(app, body, dialect=client)
        stream, _ = await ask(app, body | {"stream": True}, dialect=client)
    assert (line.status, again.json) == ("cached", first.json)
    assert said(client, whole(client, body | {"stream": True}, stream.body)) == said(client, first.json)
    assert len(provider.calls) == 1


@pytest.mark.parametrize(
    ("translation", "body"),
    [
        (ChatToMessages(), {"id": "i", "type": "message", "model": "m", "content": [{"type": "server_tool_use"}], "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}),
        (ChatToMessages(), {"id": "i", "type": "message", "model": "m", "content": [], "stop_reason": "pause_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}),
        (MessagesToChat(), {"id": "i", "model": "m", "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}, {"message": {"content": "b"}, "finish_reason": "stop"}]}),
        (MessagesToChat(), {"id": "i", "model": "m", "choices": [{"message": {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{"}}]}, "finish_reason": "tool_calls"}]}),
    ],
)  # fmt: skip
def test_an_answer_with_something_that_cannot_be_said_is_an_error(translation: Any, body: Any):
    client: DialectName = OTHER[translation.spoken]
    reader = translation.reader(read(client, BASES[client]), is_stream=False)
    (event,) = (*reader.feed(json.dumps(body).encode()), *reader.close())
    assert (event.kind, event.status) == ("error", 502)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("client", PAIRS)
async def test_redaction_takes_out_and_puts_back_across_dialects(
    project, provider: Mock, client: DialectName, is_stream
):
    email = "ada.quill@corp-mail7.org"
    body = BASES[client] | {"messages": [{"role": "user", "content": f"write to {email}"}], "stream": is_stream}
    async with home_of(project, config(provider, client, redact={"email": "replace"})) as app:
        await ask(app, body, dialect=client, session="one")
        sent = provider.provider.bodies[-1].decode()
        assert email not in sent
        place = re.findall(r"OW_[A-Z]+_[0-9a-f]{16}", sent)[0]
        for rule in (
            Rule(text=f"to {place}, then"),
            Rule(tool="mail", arguments=json.dumps({"to": [place]}), piece_characters=3),
        ):
            provider.script(rule)
            answer, _ = await ask(app, body, dialect=client, session="one")
            told = whole(client, body, answer.body) if is_stream else answer.json
            text, calls, _ = said(client, told)
            assert (text, calls) == (("", [("mail", {"to": [email]})]) if rule.tool else (f"to {email}, then", []))


ANSWERS: Mapping[DialectName, Any] = {
    "messages": {
        "id": "i", "type": "message", "model": "m", "role": "assistant", "stop_reason": "tool_use", "usage": {"input_tokens": 1, "output_tokens": 1},
        "content": [{"type": "text", "text": "so"}, {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}}],
    },
    "chat": {
        "id": "i", "model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"content": "so", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}}],
    },
}  # fmt: skip


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("client", PAIRS)
def test_whatever_stands_anywhere_in_an_answer_reading_it_raises_nothing(client: DialectName, is_stream):
    provider = DIALECTS[OTHER[client]]
    asked = read(client, BASES[client] | {"stream": is_stream})
    full = ANSWERS[OTHER[client]]
    wires = [json.dumps(full).encode()]
    if is_stream:
        wires = [
            each.wire
            for each in provider.stream(read(OTHER[client], BASES[OTHER[client]] | {"stream": True}), wires[0])
        ]
    for number, wire in enumerate(wires):
        before, brace, rest = wire.partition(b"{")
        if not brace:
            continue
        node = json.loads(brace + rest)
        for path in places(node):
            for value in JUNK:
                other = json.loads(json.dumps(node))
                inner = other
                for each in path[:-1]:
                    inner = inner[each]
                inner[path[-1]] = value
                reader = KNOWN[client, OTHER[client]].reader(asked, is_stream=is_stream)
                junk = before + json.dumps(other).encode() + (b"\n\n" if is_stream else b"")
                for each in (*wires[:number], junk, *wires[number + 1 :]):
                    reader.feed(each)
                reader.close()


def read_whole(client: DialectName, body: Any) -> Any:
    reader = KNOWN[client, OTHER[client]].reader(read(client, BASES[client]), is_stream=False)
    reader.feed(body)
    (event,) = reader.close()
    return event


def test_the_numbers_of_arguments_stay_as_they_were_written():
    written = '{"a":1e400,"b":123456789012345678901234567890,"c":1.10}'
    use = {"type": "tool_use", "id": "c", "name": "f", "input": 0}
    wire = json.dumps({**ANSWERS["messages"], "content": [use]}).replace('"input": 0', f'"input": {written}')
    answer = json.loads(read_whole("chat", wire.encode()).wire)
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == written
    call = {"id": "c", "function": {"name": "f", "arguments": written}}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": {"tool_calls": [call]}}
    wire = json.dumps({**ANSWERS["chat"], "choices": [choice]})
    assert f'"input":{written}'.encode() in read_whole("messages", wire.encode()).wire


def test_a_number_that_no_computer_holds_is_refused():
    raw = json.dumps(MESSAGES | {"temperature": "HERE"}).replace('"HERE"', "1e400").encode()
    asked = DIALECTS["messages"].read("POST", PATHS["messages"], {}, raw)
    with pytest.raises(ModelRefused, match="too large"):
        KNOWN["messages", "chat"].forward(asked, Means(model="m"))
