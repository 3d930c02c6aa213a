"""When a kept answer will do: every field of every request by its own, and what is never kept at all."""

import json
import typing
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import anthropic.types.beta.message_create_params as of_messages
import anyio
import apsw
import openai.types.chat.completion_create_params as of_chat
import openai.types.embedding_create_params as of_embeddings
import openai.types.responses.response_create_params as of_responses
import pytest
from google.genai.types import GenerateContentConfig
from hypothesis import given
from hypothesis import strategies as st

from models_kit import MODEL, Client, ask, chat, config_of, home_of, until
from overwinter.adapters.dialects import dialects
from overwinter.adapters.models.file import open_models_file
from overwinter.declared import DeclaredModel
from overwinter.errors import HomeFull
from overwinter.gateway.answers import Kept
from overwinter.gateway.cache import NEVER_MATTER, cache_key
from overwinter.gateway.dialect import DialectName
from overwinter.gateway.usage import Usage
from overwinter.testing import ManualClock
from provider import Mock, Rule

pytestmark = pytest.mark.anyio
DIALECTS = dialects()
PATHS: Mapping[DialectName, str] = {
    "chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages", "embeddings": "/v1/embeddings",
    "gemini": "/v1beta/models/m:generateContent",
}  # fmt: skip
BASES: Mapping[DialectName, dict[str, Any]] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "responses": {"model": "m", "input": "hi"},
    "messages": {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
    "embeddings": {"model": "m", "input": "hi"},
    "gemini": {"contents": [{"parts": [{"text": "hi"}]}]},
}
BEYOND = (
    "a_field_that_nobody_knows",
    "min_p",
    "repetition_penalty",
    "chat_template_kwargs",
    "guided_regex",
    "extra_body",
    "logit_bias",
)
"""Fields of compatible servers; each of the named ones is missing in the keys of some other gateway."""
GEMINI = {"contents", "tools", "toolConfig", "safetySettings", "systemInstruction", "generationConfig", "cachedContent", "labels", "store", "serviceTier"}  # fmt: skip
SCHEMAS: Mapping[DialectName, set[str]] = {
    "chat": set(typing.get_type_hints(of_chat.CompletionCreateParamsBase)) | {"stream"},
    "responses": set(typing.get_type_hints(of_responses.ResponseCreateParamsBase)) | {"stream", "client_metadata"},
    "messages": set(typing.get_type_hints(of_messages.MessageCreateParamsBase)) - {"betas"} | {"stream", "top_k", "top_p", "temperature"},
    "embeddings": set(typing.get_type_hints(of_embeddings.EmbeddingCreateParams)),
    "gemini": GEMINI,
}  # fmt: skip
NUMBERS = {"max_tokens", "max_completion_tokens", "max_output_tokens", "n", "temperature", "candidateCount"}
FLAGS = {"stream", "background"}
LISTS = {"tools"}
OBJECTS = {"stream_options", "generationConfig"}
MATRIX = [(name, each) for name, fields in SCHEMAS.items() for each in sorted({*fields, *BEYOND})]


def changed(name: DialectName, each: str) -> dict[str, Any]:
    """Return the base request with one field there that was not, or another one in its place."""
    match each:
        case _ if each in FLAGS:
            value: Any = True
        case _ if each in NUMBERS:
            value = 7
        case _ if each in LISTS:
            value = [{"type": "function", "name": "f"}] if name != "gemini" else [{"functionDeclarations": []}]
        case _ if each in OBJECTS:
            value = {"include_usage": True}
        case _:
            value = "other"
    return BASES[name] | {each: value}


def key_of(name: DialectName, body: Mapping[str, Any], headers: Mapping[str, str] | None = None, **place: str) -> bytes:
    path = place.pop("path", PATHS[name])
    asked = DIALECTS[name].read("POST", path, headers or {}, json.dumps(body).encode())
    return cache_key(asked, b"secret", **{"tenant": "t", "route": "r", "version": "v", **place})


@pytest.mark.claim("M4.exact")
@pytest.mark.parametrize(("name", "each"), MATRIX)
def test_only_a_field_that_cannot_change_the_answer_makes_no_other_key(name: DialectName, each: str):
    is_same = key_of(name, BASES[name]) == key_of(name, changed(name, each))
    assert is_same == (each in NEVER_MATTER[name])


def test_a_schema_has_every_field_that_is_left_out_of_keys():
    for name, fields in NEVER_MATTER.items():
        assert fields <= SCHEMAS[name]


def test_the_options_of_a_gemini_config_are_each_in_the_key():
    seen = {key_of("gemini", BASES["gemini"])}
    for each in sorted(GenerateContentConfig.model_fields):
        spelled = "".join(word.title() if number else word for number, word in enumerate(each.split("_")))
        value: Any = 3 if spelled.endswith(("Count", "Tokens")) or spelled == "temperature" else "other"
        seen.add(key_of("gemini", BASES["gemini"] | {"generationConfig": {spelled: value}}))
    assert len(seen) == len(GenerateContentConfig.model_fields) + 1


@pytest.mark.claim("M4.exact")
@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_tenant_route_version_betas_and_query_each_make_another_key(name: DialectName):
    base = key_of(name, BASES[name])
    others = [key_of(name, BASES[name], None, **{each: "x"}) for each in ("tenant", "route", "version")]
    for header in ("anthropic-beta", "anthropic-version", "openai-beta", "OpenAI-Beta", "anthropic-future"):
        others += [key_of(name, BASES[name], {header: value}) for value in ("a", "a,b")]
    others.append(key_of(name, BASES[name], path=f"{PATHS[name]}?beta=true"))
    assert base not in others
    assert len(set(others)) == len(others) - 2  # headers are the same in any case
    for header in ("user-agent", "x-stainless-retry-count", "x-request-id", "traceparent"):
        assert key_of(name, BASES[name], {header: "x"}) == base


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=4), lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each, max_size=3))  # fmt: skip


FIELDS = st.dictionaries(st.text(max_size=3).filter(lambda each: each != "n"), JSON, max_size=4)
"""Without the one field of so few letters that is read, and refused if it is no number."""


@given(FIELDS, FIELDS)
def test_two_requests_have_one_key_only_if_they_are_one(one: dict[str, Any], other: dict[str, Any]):
    bodies = [{**each, **BASES["chat"]} for each in (one, other)]
    said = [{key: value for key, value in each.items() if key not in NEVER_MATTER["chat"]} for each in bodies]
    is_same = len({json.dumps(dict(sorted(each.items()))) for each in said}) == 1
    assert (key_of("chat", bodies[0]) == key_of("chat", bodies[1])) == is_same


# --- Through the gateway ---------------------------------------------------------------------------------------------


async def asked_times(app, provider: Mock, *bodies, dialect: DialectName = "chat", **wish) -> int:
    before = len(provider.calls)
    for body in bodies:
        await ask(app, body, dialect=dialect, **wish)
    return len(provider.calls) - before


async def test_what_only_says_how_or_for_whom_is_one_question(project, provider: Mock):
    async with home_of(project, config_of(provider.url, cache=True)) as app:
        bodies = [
            chat("hi", temperature=0, **more)
            for more in ({}, {"user": "u"}, {"stream": True}, {"safety_identifier": "s"})
        ]
        assert await asked_times(app, provider, *bodies) == 1
        bodies = [chat("hi", temperature=0, **more) for more in ({"metadata": {"a": "1"}}, {"seed": 2}, {"min_p": 0.1})]
        assert await asked_times(app, provider, *bodies) == 3


async def test_one_callers_metadata_is_never_in_anothers_response(project, provider: Mock):
    async with home_of(project, config_of(provider.url, cache=True)) as app:
        body = {"model": "cheap", "input": "hi", "temperature": 0}
        bodies = [body | {"metadata": {"who": "a"}}, body | {"metadata": {"who": "b"}}, body | {"user": "b"}]
        assert await asked_times(app, provider, *bodies, dialect="responses") == 3


async def test_a_change_of_the_rules_makes_other_keys(project, provider: Mock):
    config = config_of(provider.url, cache=True)
    async with home_of(project, config) as app:
        assert await asked_times(app, provider, chat(temperature=0), chat(temperature=0)) == 1
    (project / "policies").mkdir()
    (project / "policies" / "more.cedar").write_text('forbid(principal == Agent::"none", action, resource);')
    async with home_of(project, config) as app:
        assert await asked_times(app, provider, chat(temperature=0), chat(temperature=0)) == 1


@pytest.mark.claim("M4.whole")
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("rule", "more"),
    [
        (Rule(times=2, fault="status", status=400), {}),
        (Rule(times=2, tokens=50), {"max_tokens": 3}),
        (Rule(times=6, fault="cut", at=6), {}),
        (Rule(times=6, fault="error_event", at=6), {}),
        (Rule(times=2, searches=1), {}),
    ],
    ids=["refused", "clipped", "cut", "error", "searched"],
)  # fmt: skip
async def test_an_answer_that_is_not_the_whole_of_the_models_own_is_never_kept(
    project, provider: Mock, rule, more, is_stream
):
    provider.script(rule)
    async with home_of(project, config_of(provider.url, cache=True)) as app:
        body = {"model": "cheap", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 90, "temperature": 0}
        body |= {"stream": is_stream, **more}
        lines = [(await ask(app, body, dialect="messages"))[1] for _ in range(2)]
        assert "cached" not in {each.status for each in lines}


@pytest.mark.parametrize(
    "body",
    [
        b'{"content":[{"type": "web_search_tool_result"}]}',
        b'{"output":[{"type":"web_search_call"}]}',
        b'{"output":[{"type":"some_future_call"}]}',
        b'{"output":[{"content":[{"annotations":[{"type":"url_citation"}]}]}]}',
        b'{"candidates":[{"groundingMetadata":{}}]}',
        b'{"search_results": []}',
    ],
)  # fmt: skip
def test_what_a_provider_looked_up_or_ran_is_known_in_every_dialect(body: bytes):
    from overwinter.gateway.cache import SERVED  # noqa: PLC0415 - one test's

    assert SERVED.search(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"output":[{"type":"function_call"},{"type":"custom_tool_call"},{"type":"local_shell_call"}]}',
        b'{"usage":{"server_tool_use":null},"content":[{"type":"tool_use"}]}',
        json.dumps({"text": '{"type": "web_search_call"}'}).encode(),
    ],
)
def test_what_the_client_runs_or_a_text_says_is_not_taken_for_it(body: bytes):
    from overwinter.gateway.cache import SERVED  # noqa: PLC0415 - one test's

    assert not SERVED.search(body)


async def test_answers_that_vary_are_kept_only_for_who_asks_for_that_and_vectors_always(project, provider: Mock):
    async with home_of(project, config_of(provider.url, cache=True)) as app:
        assert await asked_times(app, provider, chat(), chat()) == 2
        assert await asked_times(app, provider, chat("o"), chat("o"), cache_s=60.0) == 1
        vectors = {"model": "cheap", "input": ["a", "b"]}
        assert await asked_times(app, provider, vectors, vectors | {"user": "u"}, dialect="embeddings") == 1
        assert await asked_times(app, provider, vectors | {"encoding_format": "base64"}, dialect="embeddings") == 1
        assert await asked_times(app, provider, vectors, dialect="embeddings", is_cached=False) == 1


async def test_an_answer_is_kept_for_its_time_to_live(project, provider: Mock):
    clock = ManualClock()
    async with home_of(project, config_of(provider.url, cache=True, cache_s=100), clock=clock) as app:
        assert await asked_times(app, provider, chat(temperature=0)) == 1
        clock.advance(99)
        assert await asked_times(app, provider, chat(temperature=0)) == 0
        clock.advance(2)
        assert await asked_times(app, provider, chat(temperature=0)) == 1


@pytest.mark.claim("M4.exact")
@pytest.mark.parametrize(
    "field",
    [
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
        {"prompt": {"id": "pmpt_1"}},
        {"prompt": {"id": "p", "variables": {"version": "1"}}},
    ],
)
async def test_a_request_that_names_what_grows_at_its_provider_is_never_answered_by_a_kept_answer(
    project, provider: Mock, field: dict[str, Any]
):
    async with home_of(project, config_of(provider.url, cache=True)) as app:
        body = {"model": "cheap", "input": "go on", "temperature": 0, **field}
        assert [await asked_times(app, provider, body, dialect="responses") for _ in range(2)] == [1, 1]
        fixed = {"model": "cheap", "temperature": 0, "prompt": {"id": "pmpt_1", "version": "2"}}
        assert [await asked_times(app, provider, fixed, dialect="responses") for _ in range(2)] == [1, 0]


async def test_an_answer_that_is_older_than_its_caller_wants_is_not_given(project, provider: Mock):
    clock = ManualClock()
    async with home_of(project, config_of(provider.url, cache=True), clock=clock) as app:
        assert await asked_times(app, provider, chat(temperature=0)) == 1
        clock.advance(50)
        assert await asked_times(app, provider, chat(temperature=0), cache_s=60.0) == 0
        assert await asked_times(app, provider, chat(temperature=0), cache_s=40.0) == 1
        assert await asked_times(app, provider, chat(temperature=0), cache_s=40.0) == 0


async def released(app, provider: Mock) -> None:
    await until(lambda: app.models.gateway.under_way == 0 or provider.provider.release() is not None)


async def test_who_waited_for_an_answer_that_is_no_good_to_others_asks_at_once_and_not_in_a_queue(
    project, provider: Mock
):
    provider.script(Rule(fault="slow_first"), Rule(fault="slow_first", times=4))
    async with home_of(project, config_of(provider.url, cache=True)) as app:
        body = chat(temperature=0, max_tokens=3)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask, app, body)
            await until(lambda: len(provider.calls) == 1 and app.models.gateway.under_way == 5)
            await until(lambda: len(provider.calls) >= 2 or provider.provider.release() is not None)
            await until(lambda: len(provider.calls) == 5)
            await released(app, provider)


async def test_what_a_fallback_said_is_kept_for_nobody_else(project, provider: Mock):
    config = config_of(provider.url, cache=True)
    models = {
        "cheap": DeclaredModel(provider="gone", model=MODEL, fallbacks=("other",)),
        "other": DeclaredModel(provider="mock", model="claude-haiku-4-5"),
    }
    gone = replace(config.providers["mock"], url="http://127.0.0.1:9")
    config = replace(config, models=models, providers={**config.providers, "gone": gone})
    async with home_of(project, config) as app:
        for _ in range(2):
            client, line = await ask(app, chat(temperature=0), is_cached=True)
            assert (client.status, line.status, line.upstream) == (200, "answered", "mock")
        again = [await ask(app, chat(temperature=0), call="named", is_named=True) for _ in range(2)]
        assert [line.status for _, line in again] == ["answered", "repeated"]
    assert len(provider.calls) == 3


async def test_requests_whose_answers_vary_do_not_wait_for_each_other(project, provider: Mock):
    provider.script(Rule(fault="slow_first", times=5))
    async with home_of(project, config_of(provider.url, cache=True)) as app, anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask, app, chat())
        await until(lambda: len(provider.calls) == 5)
        await released(app, provider)


async def test_when_the_one_that_asks_leaves_the_next_one_asks_for_all(project, provider: Mock):
    provider.script(Rule(fault="slow_first", times=2))
    async with home_of(project, config_of(provider.url, cache=True)) as app:
        async with anyio.create_task_group() as group:
            first = Client()
            group.start_soon(lambda: ask(app, chat(temperature=0), client=first))
            await until(lambda: len(provider.calls) == 1)
            for _ in range(4):
                group.start_soon(ask, app, chat(temperature=0))
            await until(lambda: app.models.gateway.under_way == 5)
            app.models.gateway.leave(first)
            await until(lambda: len(provider.calls) == 2)
            await released(app, provider)
        assert len(provider.calls) == 2


async def test_a_client_that_leaves_ends_its_own_call_and_not_another_of_its_name(project, provider: Mock):
    provider.script(Rule(fault="slow_first"))
    async with home_of(project, config_of(provider.url, cache=True)) as app:
        first, second = Client(), Client()
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: ask(app, chat(temperature=0), client=first, call="same"))
            await until(lambda: len(provider.calls) == 1)
            group.start_soon(lambda: ask(app, chat(temperature=0), client=second, call="same"))
            await until(lambda: app.models.gateway.under_way == 2)
            app.models.gateway.leave(first)
            await released(app, provider)
        assert first.status == 0
        assert (second.status, second.json["error"]["code"]) == (409, second.json["error"]["code"]), second.body


# --- The file --------------------------------------------------------------------------------------------------------

KEPT = Kept(
    body=b"x" * 1_000, is_stream=False, usage=Usage(fresh=3), cost_nusd=5, provider="p", model="m", request=b"r", made_us=1
)  # fmt: skip


def key(number: int) -> bytes:
    return number.to_bytes(32)


async def test_the_answers_used_longest_ago_go_first(tmp_path):
    clock = ManualClock()
    with open_models_file(tmp_path / "m.db", clock, key=b"k" * 32, answers_bytes_max=10_500) as file:
        for number in range(10):
            await file.keep(key(number), KEPT, until_us=1 << 60)
            file.flush()
            clock.advance(100)
        assert await file.find(key(0)) == KEPT
        for number in range(10, 15):
            await file.keep(key(number), KEPT, until_us=1 << 60)
            file.flush()
            clock.advance(100)
        found = [number for number in range(15) if await file.find(key(number)) is not None]
        assert found == [0, 6, 7, 8, 9, 10, 11, 12, 13, 14]
        assert size_of(tmp_path) <= 10_500


async def test_an_answer_is_there_at_once_and_on_disk_when_the_file_is_closed(tmp_path):
    clock = ManualClock()
    with open_models_file(tmp_path / "m.db", clock, key=b"k" * 32, answers_bytes_max=10_500) as file:
        await file.keep(key(1), KEPT, until_us=clock.now_us() + 10)
        assert size_of(tmp_path) == 0
        assert await file.find(key(1)) == KEPT
        clock.advance(1)
        assert await file.find(key(1)) is None
        await file.keep(key(2), KEPT, until_us=1 << 60)
    with open_models_file(tmp_path / "m.db", clock, key=b"k" * 32, answers_bytes_max=10_500) as file:
        assert await file.find(key(2)) == KEPT


async def test_a_large_answer_pushes_out_as_many_small_ones_as_it_takes(tmp_path):
    clock = ManualClock()
    with open_models_file(tmp_path / "m.db", clock, key=b"k" * 32, answers_bytes_max=200_000) as file:
        for number in range(190):
            await file.keep(key(number), KEPT, until_us=1 << 60)
            file.flush()
        clock.advance(1)
        await file.keep(key(999), replace(KEPT, body=b"y" * 150_000), until_us=1 << 60)
        file.flush()
        assert size_of(tmp_path) <= 200_000
        assert await file.find(key(999)) is not None
        await file.keep(key(1_000), replace(KEPT, body=b"z" * 200_001), until_us=1 << 60)
        file.flush()
        assert await file.find(key(1_000)) is None
        assert await file.find(key(999)) is not None


def size_of(place) -> int:
    with closing(apsw.Connection(str(place / "m.db"))) as db:
        ((size,),) = db.execute("select total(length(body)) from answer")
    return int(size)


@pytest.mark.parametrize("column", ["body", "about", "key"])
async def test_an_answer_that_somebody_altered_or_another_key_sealed_is_not_there(tmp_path, column: str):
    clock, path = ManualClock(), tmp_path / "m.db"
    with open_models_file(path, clock, key=b"k" * 32, answers_bytes_max=1 << 20) as file:
        await file.keep(key(1), KEPT, until_us=1 << 60)
        file.flush()
        with closing(apsw.Connection(str(path))) as db:
            ((value,),) = db.execute(f"select {column} from answer")
            raw = value.encode() if isinstance(value, str) else value
            for altered in {raw[:-1] + bytes([raw[-1] ^ 1]), raw[:20], raw[:3], b"", raw + b" "}:
                db.execute(
                    f"update answer set {column} = ?", (altered.decode() if isinstance(value, str) else altered,)
                )
                assert await file.find(key(1)) is None
                assert column != "key" or await file.find(altered) is None
            db.execute(f"update answer set {column} = ?", (value,))
        assert await file.find(key(1)) == KEPT
    with open_models_file(path, clock, key=b"o" * 32, answers_bytes_max=1 << 20) as file:
        assert await file.find(key(1)) is None


def test_a_file_that_a_full_disk_left_half_made_is_made_anew(tmp_path):
    opening = lambda: open_models_file(tmp_path / "models.db", ManualClock(), key=bytes(32), answers_bytes_max=1_000)  # noqa: E731 - it is opened twice
    full = lambda db: db.execute("pragma max_page_count=4")  # noqa: E731 - a hook
    apsw.connection_hooks.append(full)
    try:
        with pytest.raises(HomeFull), opening():
            pass
    finally:
        apsw.connection_hooks.remove(full)
    with opening() as file:
        assert file.totals is not None
