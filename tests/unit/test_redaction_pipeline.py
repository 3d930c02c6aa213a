"""Redaction through the whole gateway: what a provider gets, what a client gets, what is left behind."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import apsw
import msgspec
import pytest
from bench.confidential import samples
from hypothesis import given, settings
from hypothesis import strategies as st

from models_kit import Client, ask, chat, config_of, home_of
from overwinter.adapters.detectors import WordList, detectors
from overwinter.adapters.dialects import dialects
from overwinter.app.models import Wish
from overwinter.config import Config, load
from overwinter.declared import CLASSES, DeclaredBudget, GatewaySettings
from overwinter.errors import ConfigInvalid
from overwinter.events import Call, Returned
from overwinter.gateway.cleaning import VAULTS_MAX, Redaction
from overwinter.gateway.dialect import DialectName
from overwinter.gateway.placeholders import Vault
from overwinter.gateway.redaction import Redactor, Rules, Search
from overwinter.gateway.refusal import ModelRefused
from provider import Mock, Plan, Rule, Tokens
from provider.provider import render_events, render_whole
from redaction_kit import (
    CALLER,
    GENERATING,
    SEARCH,
    WORD,
    Pieces,
    answered,
    asked_of,
    body_of,
    cleaned_of,
    events_in,
    placeholder_of,
)

pytestmark = pytest.mark.anyio

EMAIL = "ada.quill@corp-mail7.org"
CARD = "4111 1111 1111 1111"
SECRET = "ghp_0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX"
CANARIES = (EMAIL, CARD, SECRET, WORD)
ALL = f"to {EMAIL}, card {CARD}; token {SECRET} for {WORD}."
ON = {"otherwise": "replace"}
PLACEHOLDER = re.compile(r"OW_[A-Z]+_[0-9a-f]{16}")


def redacting(provider: Mock, project: Path, **more: Any) -> Config:
    (project / "words.txt").write_text(f"# of the firm\n{WORD}\n", encoding="utf-8")
    return config_of(provider.url, redact=ON, words="words.txt", **more)


# --- Cut anywhere ----------------------------------------------------------------------------------------------------


def pieces_of(dialect: DialectName, node: Any) -> Iterator[str]:
    """Yield what a client puts together of an event: texts, and arguments as JSON."""
    match dialect:
        case "chat":
            for choice in node["choices"]:
                yield choice["delta"].get("content") or ""
                for call in choice["delta"].get("tool_calls") or ():
                    yield call["function"].get("arguments") or ""
        case "responses":
            if node["type"].endswith(".delta"):
                yield node["delta"]
        case "messages":
            delta = node.get("delta") or {}
            yield delta.get("text") or delta.get("partial_json") or ""
        case _:
            for part in node["candidates"][0]["content"]["parts"]:
                yield json.dumps(part["functionCall"]["args"]) if "functionCall" in part else part["text"]


def wholes_of(node: Any) -> Iterator[str]:
    """Yield the texts that Responses repeats."""
    if node["type"].endswith(".done") and "item" not in node and "part" not in node:
        yield node.get("text") or node["arguments"]
    if node["type"] == "response.completed":
        (item,) = node["response"]["output"]
        yield item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]


def plan_of(text: str, size: int, tool: str = "") -> Plan:
    pieces = tuple(text[at : at + size] for at in range(0, len(text), size))
    return Plan(id="mock", model="m", pieces=pieces, tool=tool, tokens=Tokens(fresh=1, output=len(pieces)))


cuts = st.lists(st.integers(0, 100_000), max_size=30)
sizes = st.sampled_from([1, 2, 3, 5, 7, 13, 26, 200])
screens = st.sampled_from([{}, {"secret": "mask"}])


@pytest.mark.claim("M6.redact.restored")
@pytest.mark.parametrize("dialect", GENERATING)
@given(cuts=cuts, size=sizes, answer=screens)
@settings(max_examples=30)
def test_a_stream_cut_anywhere_says_the_same_with_the_values_in_it(dialect, cuts, size, answer):
    cleaned = cleaned_of(asked_of(dialect, ALL, is_stream=True), answer)
    there = json.dumps({name: json.loads(raw) for name, raw in cleaned.asked.top.items()})
    assert not any(each in there for each in CANARIES)
    email, card, word = (placeholder_of(label, there) for label in ("EMAIL", "CARD", "WORD"))
    said = f"OK: {email}{card} O OW_ {word}. Bye, {email} OW_EMAIL_00"
    wire = b"".join(each.wire for each in render_events(dialect, plan_of(said, size)))
    got = list(events_in(answered(cleaned, Pieces(wire, cuts, is_stream=True))))
    expected = f"OK: {EMAIL}{CARD} O OW_ {WORD}. Bye, {EMAIL} OW_EMAIL_00"
    assert "".join(piece for node in got for piece in pieces_of(dialect, node)) == expected
    if dialect == "responses":
        assert {text for node in got for text in wholes_of(node)} == {expected}


@pytest.mark.claim("M6.redact.restored")
@pytest.mark.parametrize("dialect", GENERATING)
@given(cuts=cuts, size=sizes, answer=screens)
@settings(max_examples=30)
def test_arguments_of_tools_stay_json_with_the_values_in_them(dialect, cuts, size, answer):
    cleaned = cleaned_of(asked_of(dialect, ALL, is_stream=True), answer)
    there = json.dumps({name: json.loads(raw) for name, raw in cleaned.asked.top.items()})
    email, word = (placeholder_of(label, there) for label in ("EMAIL", "WORD"))
    said = json.dumps({"to": email, "why": f'"{word}"\n{email}', "n": 1, "at": ["O", f"{word}"]})
    wire = b"".join(each.wire for each in render_events(dialect, plan_of(said, size, "send")))
    got = list(events_in(answered(cleaned, Pieces(wire, cuts, is_stream=True))))
    expected = {"to": EMAIL, "why": f'"{WORD}"\n{EMAIL}', "n": 1, "at": ["O", WORD]}
    assert json.loads("".join(piece for node in got for piece in pieces_of(dialect, node))) == expected
    if dialect == "responses":
        assert [json.loads(text) for node in got for text in wholes_of(node)] == [expected, expected]


@pytest.mark.parametrize("dialect", GENERATING)
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("number", ["4111111111111111", "4111111111111111.0", "4.111111111111111e15"])
def test_what_a_model_must_not_say_is_masked_also_as_a_number_of_arguments(dialect, is_stream, number):
    found = Counter[str]()
    cleaned = cleaned_of(asked_of(dialect, "hello", is_stream=is_stream), {"card": "mask", "secret": "mask"}, found)
    said = '{"card": NUMBER, "token": "SECRET", "n": [NUMBER, 1]}'.replace("NUMBER", number).replace("SECRET", SECRET)
    plan = plan_of(said, 7, "send")
    wire = b"".join(each.wire for each in render_events(dialect, plan)) if is_stream else render_whole(dialect, plan)
    got = answered(cleaned, Pieces(wire, [], is_stream=is_stream))
    assert SECRET.encode() not in got
    if dialect == "gemini" and is_stream:
        return  # a number in its arguments is no text of a stream: see docs/redaction.md
    assert not any(each in got for each in (b"4111111111111111", b"4.111111111111111"))
    if is_stream:
        told = json.loads("".join(piece for node in events_in(got) for piece in pieces_of(dialect, node)))
        assert told == {"card": "[masked card]", "token": "[masked secret]", "n": ["[masked card]", 1]}
    assert dict(found) == {"card": 2, "secret": 1} or dialect == "responses"


@pytest.mark.parametrize("dialect", GENERATING)
def test_an_answer_that_is_blocked_ends_with_an_error_and_no_value(dialect):
    cleaned = cleaned_of(asked_of(dialect, "hello", is_stream=True), {"secret": "block"})
    wire = b"".join(each.wire for each in render_events(dialect, plan_of("well " * 200 + SECRET + " so", 4)))
    with pytest.raises(ModelRefused, match="must not come back") as refused:
        answered(cleaned, Pieces(wire, [], is_stream=True))
    assert SECRET not in str(refused.value)


NAMED: Mapping[DialectName, Mapping[str, Any]] = {
    "chat": {
        "tools": [{"type": "function", "function": {"name": "deploy", "description": "deploy"}}],
        "messages": [
            {"role": "user", "content": "deploy", "name": "deploy"},
            {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "deploy", "arguments": "{}"}}]},
        ],
    },
    "responses": {
        "tools": [{"type": "function", "name": "deploy", "parameters": {}}],
        "input": [{"type": "function_call", "call_id": "c", "name": "deploy", "arguments": '{"name": "deploy", "input": 1}'}],
    },
    "messages": {
        "tools": [{"name": "deploy", "input_schema": {}}],
        "messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "deploy", "input": {"name": "deploy", "input": 1}}]}],
    },
    "gemini": {
        "tools": [{"functionDeclarations": [{"name": "deploy", "description": "deploy"}]}],
        "contents": [{"role": "model", "parts": [{"functionCall": {"name": "deploy", "args": {"name": "deploy"}}}]}],
    },
}  # fmt: skip


@pytest.mark.parametrize("dialect", NAMED)
def test_a_tool_keeps_its_name_though_it_is_a_word_of_ones_own(dialect):
    search = Search([*detectors([WordList(name="own", words=("deploy",))])[2:]], lambda: 0.0)
    top = {name: json.dumps(value).encode() for name, value in NAMED[dialect].items()}
    speaker = dialects()[dialect]
    changed = Redactor(search, Rules(), Vault(b"k")).redact(top, speaker.text_fields, speaker.opaque_keys)
    there = {**top, **changed}
    assert there["tools"].count(b'"name": "deploy"') == 1
    told = there.get("messages") or there.get("input") or there["contents"]
    assert told.count(b'"name": "deploy"') == 1  # not what it is called with, nor who speaks
    assert b"deploy" not in b"".join(there.values()).replace(b'"name": "deploy"', b"")


# --- A conversation --------------------------------------------------------------------------------------------------


def nested(body: bytes, name: str) -> bytes:
    return bytes(msgspec.json.decode(body, type=dict[str, msgspec.Raw])[name])


@pytest.mark.claim("M6.redact.prefix")
@pytest.mark.parametrize("dialect", ["chat", "messages", "responses"])
@pytest.mark.parametrize("is_on", [True, False])
async def test_in_twenty_turns_each_turns_bytes_begin_with_the_last_ones(project, provider: Mock, dialect, is_on):
    config = redacting(provider, project) if is_on else config_of(provider.url)
    name = "input" if dialect == "responses" else "messages"
    turns, before = [{"role": "user", "content": f"0: {ALL}"}], b"["
    async with home_of(project, config) as app:
        for turn in range(20):
            # Spaces and numbers as no program of ours would write them.
            raw = json.dumps(turns, separators=(", ", ":  "), ensure_ascii=False).encode()
            head = b'{"model": "cheap", "max_tokens": 50, "temperature": 1.0, "%b":%b}' % (name.encode(), raw)
            if turn:
                placeholders = PLACEHOLDER.findall(provider.provider.bodies[-1].decode()) or ["none"]
                provider.script(
                    Rule(text=f"turn {turn}: {placeholders[turn % len(placeholders)]} ok", piece_characters=3)
                )
            client, line = await ask(app, head, dialect=dialect, session="one")
            assert (client.status, line.status) == (200, "answered")
            there = nested(provider.provider.bodies[-1], name)
            assert there.startswith(before)
            before = there.removesuffix(b"]")
            if is_on:
                assert not any(each.encode() in there for each in CANARIES)
            else:
                assert there == raw
            said = client.body.decode()
            assert not PLACEHOLDER.search(said)
            turns += [
                {"role": "assistant", "content": f"{turn} {EMAIL}"},
                {"role": "user", "content": f"{CARD} {turn}"},
            ]


async def test_a_conversation_has_placeholders_of_its_own_and_keeps_them_over_a_restart(project, provider: Mock):
    config, seen = redacting(provider, project), list[str]()
    for _ in range(2):
        async with home_of(project, config) as app:
            for session in ("one", "two"):
                await ask(app, chat(EMAIL), session=session)
                seen += PLACEHOLDER.findall(provider.provider.bodies[-1].decode())
            await ask(app, chat(EMAIL), session="one", key="tok_other")
            seen += PLACEHOLDER.findall(provider.provider.bodies[-1].decode())
    assert seen[:3] == seen[3:]
    assert len(set(seen)) == 3


async def test_embeddings_of_one_text_are_of_one_text_in_every_conversation(project, provider: Mock):
    async with home_of(project, redacting(provider, project)) as app:
        for session in ("one", "two"):
            await ask(app, body_of("embeddings", ALL), dialect="embeddings", session=session)
        first, second = (json.loads(each)["input"] for each in provider.provider.bodies)
        assert first == second
        assert not any(each in json.dumps(first) for each in CANARIES)


async def test_what_a_provider_keeps_of_a_conversation_is_restored_in_later_turns(project, provider: Mock):
    async with home_of(project, redacting(provider, project)) as app:
        await ask(app, body_of("responses", EMAIL), dialect="responses", session="one")
        (place,) = PLACEHOLDER.findall(provider.provider.bodies[-1].decode())
        provider.script(Rule(text=f"it is {place}", times=2))
        body = body_of("responses", "which?", previous_response_id="resp_1")
        mine, _ = await ask(app, body, dialect="responses", session="one")
        other, _ = await ask(app, body, dialect="responses", session="two")
        assert EMAIL in mine.body.decode()
        assert EMAIL not in other.body.decode()


# --- What is left behind ---------------------------------------------------------------------------------------------


def everything_in(home: Path) -> bytes:
    return b"".join(each.read_bytes() for each in home.rglob("*") if each.is_file())


@pytest.mark.claim("M6.redact.no_leak")
async def test_no_value_reaches_a_provider_a_file_a_log_an_error_or_a_figure(project, provider: Mock, caplog):
    caplog.set_level(0)
    budgets = {"day": DeclaredBudget(of="tenant", usd=100)}
    errors = list[bytes]()
    async with home_of(project, redacting(provider, project, cache=True, budgets=budgets)) as app:
        body = chat(ALL, temperature=0, metadata={"who": EMAIL}, user=EMAIL, nobody_knows_it=[{"data": ALL}], tools=[{"type": "function", "function": {"name": "f", "description": ALL}}])  # fmt: skip
        named: dict[str, Any] = {"call": "a:1", "is_named": True}
        for more in ({}, {}, named, named):
            client, line = await ask(app, body, **more)
            assert (client.status, line.found["email"], line.found["secret"]) == (200, 5, 3)
        place = PLACEHOLDER.findall(provider.provider.bodies[-1].decode())[0]
        provider.script(Rule(text=f"hello {place}"))
        client, line = await ask(app, chat(f"a {ALL}", temperature=0))
        assert client.json["choices"][0]["message"]["content"] == f"hello {EMAIL}"
        again, kept = await ask(app, chat(f"a {ALL}", temperature=0))
        assert (again.json, kept.status) == (client.json, "cached")
        stream, kept = await ask(app, chat(f"a {ALL}", temperature=0, stream=True))
        assert (EMAIL in stream.body.decode(), kept.status) == (True, "cached")
        for dialect in ("responses", "messages", "embeddings"):
            await ask(app, body_of(dialect, ALL), dialect=dialect)
        provider.script(Rule(fault="status", status=400), Rule(fault="error_body", times=3), Rule(fault="cut", at=9))
        for text in ("b", "c", "d"):
            errors.append((await ask(app, chat(f"{text} {ALL}", stream=True)))[0].body)
        with pytest.raises(ModelRefused) as refused:
            await ask(app, b'{"model": "cheap", "messages": [{"content": "%b"]}' % EMAIL.encode())
        errors.append(str(refused.value).encode())
        count = dialects()["messages"].read(
            "POST", "/v1/messages/count_tokens", {}, json.dumps(body_of("messages", ALL)).encode()
        )
        counted = Client()
        await app.models.gateway.answer(count, app.models.caller("default", Wish(call="count")), counted)
        assert counted.json["input_tokens"] > 0
        figures = await app.models.metrics()
        assert 'overwinter_redactions_total{class="word:own",in="request"}' in figures
    (project / "words.txt").unlink()
    seen = {
        "provider": b"".join(provider.provider.bodies), "home": everything_in(project / ".overwinter"),
        "errors": b"".join(errors), "metrics": figures.encode(), "log": caplog.text.encode(),
    }  # fmt: skip
    for where, what in seen.items():
        for value in (*CANARIES, json.dumps(WORD)[1:-1], CARD.replace(" ", "")):
            assert value.encode() not in what, (where, value)


@pytest.mark.parametrize("dialect", [*GENERATING, "embeddings"])
async def test_a_blocked_class_is_refused_in_the_clients_words_and_nobody_is_asked(project, provider: Mock, dialect):
    config = config_of(provider.url, redact={"secret": "block", "email": "leave", "otherwise": "mask"})
    async with home_of(project, config) as app:
        client = Client()
        asked = asked_of(dialect, f"{EMAIL} {SECRET}", is_stream=False)
        line = await app.models.answer(asked, "default", Wish(call="count"), client)
        assert (client.status, line.status, provider.calls) == (403, "confidential", [])
        assert "class 'secret'" in client.body.decode()
        assert SECRET not in client.body.decode()
        assert 'overwinter_redactions_total{class="secret",in="request"} 1' in await app.models.metrics()
        assert (line.found, line.digest) == ({"secret": 1}, "")  # a digest could be guessed at
        client = Client()
        await app.models.answer(
            asked_of(dialect, f"{EMAIL} {CARD}", is_stream=False), "default", Wish(call="count"), client
        )
        (sent,) = provider.provider.bodies
        assert EMAIL.encode() in sent
        assert b"[masked card]" in sent


async def test_a_detector_that_fails_refuses_the_call(project, provider: Mock):
    class Broken:
        name = "broken"

        def find(self, texts: Sequence[str]) -> Any:
            raise KeyError(texts[0])

    async with home_of(project, redacting(provider, project)) as app:
        app.models.gateway.cleaner = Redaction(Search([Broken()], lambda: 0.0), Rules(), b"s")
        client, line = await ask(app, chat(EMAIL))
        assert (client.status, line.status, provider.calls) == (403, "confidential", [])
        assert EMAIL not in client.body.decode()


async def test_what_redaction_finds_does_not_change_what_a_caller_says_it_sends(project, provider: Mock):
    (project / "policies").mkdir()
    rule = 'forbid(principal, action == Action::"think", resource) when { resource.data == "card" };'
    (project / "policies" / "models.cedar").write_text(rule)
    async with home_of(project, redacting(provider, project)) as app:
        assert (await ask(app, chat(CARD)))[0].status == 200
        assert (await ask(app, chat("hello"), data="card"))[0].status == 403


# --- Nothing kept ----------------------------------------------------------------------------------------------------


async def test_of_an_unlogged_call_there_are_counts_and_costs_and_nothing_else(project, provider: Mock):
    config = redacting(provider, project, cache=True)
    async with home_of(project, config) as app:
        body = chat(f"a {ALL}", temperature=0)
        for number in (1, 2):
            client, line = await ask(app, body, is_unlogged=True, call="named", is_named=True)
            assert (client.status, line.status, len(provider.calls)) == (200, "answered", number)
            assert (line.answer_id, line.found["card"]) == ("", 1)
            assert line.cost_nusd
            assert line.usage is not None
        assert line.call == "named~2"
        provider.script(Rule(text="the canary sings"))
        await ask(app, body, is_unlogged=True)
        logged, _ = await ask(app, body, is_cached=True)  # nothing was kept for it either
        assert logged.status == 200
        assert len(provider.calls) == 4
        for _ in range(20):  # names of their own do not run out
            assert (await ask(app, body, is_unlogged=True, call="named", is_named=True))[1].status == "answered"
    assert kept_in(project) == 1


def kept_in(project: Path) -> int:
    with closing(apsw.Connection(str(project / ".overwinter" / "models.db"))) as db:
        return next(iter(list(db.execute("select count(*) from answer"))))[0]


async def test_an_unlogged_question_of_a_program_is_answered_and_asked_again_after_a_crash(project, provider: Mock):
    async with home_of(project, redacting(provider, project, is_unlogged=True)) as app:
        call = Call(run_id=await app.start("1"), index=0, function="tools.think", arguments={"prompt": ALL}, effect="read", line=0, agent="default")  # fmt: skip
        for number in (1, 2):
            assert isinstance(await app.models.thinker.perform(call), Returned)
            assert len(provider.calls) == number


# --- The configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('redact = { emial = "mask" }', "gateway.redact.emial is no class of confidential values: did you mean 'email'?"),
        ('redact = { secret = "replace" }', "gateway.redact.secret is never 'replace'"),
        ('redact = { card = "hide" }', "gateway.redact.card is one of block, mask, replace, leave, not 'hide'"),
        ('redact_answers = { card = "replace" }', "gateway.redact_answers.card is one of block, mask, leave, not 'replace'"),
        ('redact_answers = { otherwise = "mask" }', "gateway.redact_answers.otherwise is no class"),
    ],
)  # fmt: skip
def test_mistakes_in_rules_are_named_with_their_remedy(tmp_path, text, message):
    (tmp_path / "overwinter.toml").write_text(f"[gateway]\n{text}\n")
    with pytest.raises(ConfigInvalid, match=re.escape(message)):
        load(tmp_path / "overwinter.toml")


async def test_words_that_cannot_be_read_are_an_error_at_the_start(project, provider: Mock):
    config = replace(config_of(provider.url), gateway=GatewaySettings(model="cheap", words="none.txt"))
    with pytest.raises(ConfigInvalid, match=r"gateway\.words: .*none\.txt cannot be read"):
        async with home_of(project, config):
            pass


def test_every_class_that_detectors_find_can_be_named():
    found = {sample.kind for sample in samples(seed=1, each=1)}
    assert found | {"word", "ip"} == {*CLASSES}


async def test_an_answer_in_the_background_is_restored_when_it_is_asked_for_in_its_conversation(
    project, provider: Mock
):
    async with home_of(project, redacting(provider, project)) as app:
        await ask(app, body_of("responses", EMAIL), dialect="responses", session="one")
        (place,) = PLACEHOLDER.findall(provider.provider.bodies[-1].decode())
        provider.script(Rule(text=f"hello {place}"))
        body = body_of("responses", EMAIL, background=True)
        begun, _ = await ask(app, body, dialect="responses", session="one")
        again = dialects()["responses"].read("GET", f"/v1/responses/{begun.json['id']}", {}, b"")
        client = Client()
        while client.status == 0 or client.json["status"] != "completed":
            client = Client()
            await app.models.answer(again, "default", Wish(call="again", session="one"), client, method="GET")
        assert client.json["output"][0]["content"][0]["text"] == f"hello {EMAIL}"


async def test_other_rules_are_other_keys_of_kept_answers(project, provider: Mock):
    for number, email in enumerate(("replace", "mask", "mask"), 1):
        config = config_of(provider.url, cache=True, redact={"email": email})
        async with home_of(project, config) as app:
            _, line = await ask(app, chat("hello", temperature=0))
            assert (line.status, len(provider.calls)) == (("answered", number) if number < 3 else ("cached", 2))


async def test_conversations_without_values_push_none_out_and_large_requests_are_redacted_side_by_side():
    cleaner = Redaction(SEARCH, Rules(), b"secret")
    chat_of = dialects()["chat"]

    async def cleaned(text: str, session: str) -> bytes:
        body = json.dumps(chat(text)).encode()
        asked = chat_of.read("POST", "/v1/chat/completions", {}, body)
        done = await cleaner.clean(asked, replace(CALLER, session=session), chat_of, Counter())
        for number in range(VAULTS_MAX + 10) if session == "one" else ():
            await cleaner.clean(asked_of("chat", "hello", is_stream=False), replace(CALLER, session=f"{number}"), chat_of, Counter())  # fmt: skip
        return done.asked.top["messages"]

    large = "words in between. " * 10_000
    there = list[bytes]()
    async with anyio.create_task_group() as group:
        for each in (EMAIL, "bob.byte@corp-mail7.org"):

            async def one(each: str = each) -> None:
                there.append(await cleaned(large + each, "big"))

            group.start_soon(one)
    small = await cleaned(EMAIL, "one")
    assert b"corp-mail7" not in b"".join((*there, small))
    for session, sent in (("big", there[0]), ("big", there[1]), ("one", small)):
        again = chat_of.read("POST", "/v1/chat/completions", {}, json.dumps(chat("who?")).encode())
        done = await cleaner.clean(again, replace(CALLER, session=session), chat_of, Counter())
        (place,) = PLACEHOLDER.findall(sent.decode())
        assert b"corp-mail7.org" in done.restore.whole(json.dumps([place]).encode())
