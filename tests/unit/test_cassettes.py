"""The test kit's models: recorded ones, and ones that say what was written down."""

import json
from dataclasses import replace

import pytest

from models_kit import Client, ask, chat, config_of
from overwinter.adapters.models import Cassette
from overwinter.declared import DeclaredProvider
from overwinter.errors import UsageError
from overwinter.gateway.upstream import UpstreamFailed
from overwinter.testing import Heard, ScriptedModel, ToolCall, finish, open_test_app
from provider import Mock, Rule

pytestmark = pytest.mark.anyio
BODIES = {
    "chat": chat(),
    "responses": {"model": "cheap", "input": "hello"},
    "messages": {"model": "cheap", "max_tokens": 90, "messages": [{"role": "user", "content": "hello"}]},
}
NOWHERE = "http://127.0.0.1:9"


def home(project, models, url: str = NOWHERE, **more):
    config = config_of(url, **more)
    return open_test_app(project / ".overwinter", {}, directory=project, config=config, models=models)


@pytest.mark.claim("K1.cassette")
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("dialect", sorted(BODIES))
async def test_what_was_recorded_is_played_byte_for_byte_without_anybody_being_asked(
    project, provider: Mock, dialect, is_stream
):
    body, path = BODIES[dialect] | {"stream": is_stream}, project / "cassettes" / "one.json"
    provider.script(Rule(text='a "quoted" ü\n text'))
    async with home(project, Cassette(path, is_recording=True), provider.url) as app:
        first, paid = await ask(app, body, dialect=dialect)
    async with home(project, Cassette(path)) as app:
        again, line = await ask(app, body, dialect=dialect)
        other_order, _ = await ask(app, dict(reversed(body.items())), dialect=dialect)
    assert len(provider.calls) == 1
    assert again.json == first.json if not is_stream else again.body == first.body
    assert other_order.body == again.body
    assert (line.cost_nusd, line.usage) == (paid.cost_nusd, paid.usage)


async def test_a_recorded_stream_comes_event_by_event(project, provider: Mock):
    path = project / "one.json"
    async with home(project, Cassette(path, is_recording=True), provider.url) as app:
        await ask(app, chat(stream=True))
    async with home(project, Cassette(path)) as app:
        client, _ = await ask(app, chat(stream=True))
    assert len(client.parts) > 40
    assert client.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.claim("K1.cassette")
async def test_a_miss_says_how_it_differs_from_the_nearest_recording_and_calls_nobody(project, provider: Mock):
    path = project / "one.json"
    async with home(project, Cassette(path, is_recording=True), provider.url) as app:
        await ask(app, chat("tell me of Oslo", temperature=0, seed=1))
        await ask(app, BODIES["messages"], dialect="messages")
    cassette = Cassette(path)
    async with home(project, cassette, provider.url) as app:
        client, line = await ask(app, chat("tell me of Rome", temperature=0.5))
    assert len(provider.calls) == 2
    assert (client.status, line.cost_nusd) == (502, 0)
    (miss,) = cassette.misses
    assert miss in client.json["error"]["message"]
    assert 'body.messages[0].content: was "tell me of Oslo", is "tell me of Rome"' in miss
    assert "body.temperature: was 0, is 0.5" in miss
    assert "body.seed: was 1, is not there" in miss
    assert "max_tokens" not in miss


async def test_of_two_long_texts_the_place_is_shown_where_they_differ(project, provider: Mock):
    path = project / "one.json"
    async with home(project, Cassette(path, is_recording=True), provider.url) as app:
        await ask(app, chat("x" * 5_000 + "old" + "y" * 5_000))
    cassette = Cassette(path)
    async with home(project, cassette) as app:
        await ask(app, chat("x" * 5_000 + "new" + "y" * 5_000))
    assert "xxold" in cassette.misses[0]
    assert "xxnew" in cassette.misses[0]
    assert len(cassette.misses[0]) < 600


async def test_an_empty_cassette_says_how_to_record(project):
    cassette = Cassette(project / "none.json")
    async with home(project, cassette) as app:
        assert (await ask(app, chat()))[0].status == 502
    assert "is_recording=True" in cassette.misses[0]


@pytest.mark.claim("K1.cassette")
async def test_a_cassette_is_readable_and_has_no_credentials_in_it(project, provider: Mock, monkeypatch):
    monkeypatch.setenv("MODEL_KEY", "sk-of-the-home")
    path, config = project / "one.json", config_of(provider.url)
    declared = DeclaredProvider(
        url=provider.url,
        dialects=("responses",),
        auth="env:MODEL_KEY",
        headers={"x-team": "env:MODEL_KEY"},
        prices="anthropic",
    )
    tool = {
        "type": "mcp",
        "server_label": "s",
        "server_url": "https://m",
        "authorization": "sk-tool",
        "headers": {"X-Key": "sk-head"},
    }
    schema = {"type": "object", "properties": {"password": {"type": "string", "description": "kept"}}}
    function = {"type": "function", "name": "f", "parameters": schema}
    body = {"model": "cheap", "input": "hi", "tools": [tool, function]}
    cassette = Cassette(path, is_recording=True)
    async with open_test_app(
        project / ".overwinter",
        {},
        directory=project,
        config=replace(config, providers={"mock": declared}),
        models=cassette,
    ) as app:
        raw, headers = json.dumps(body).encode(), {"authorization": "Bearer sk-of-the-client", "openai-beta": "x=1"}
        asked = app.models.dialects["responses"].read("POST", "/v1/responses", headers, raw)
        from overwinter.app.models import Wish  # noqa: PLC0415 - one test's

        await app.models.answer(asked, "default", Wish(call="c"), client := Client())
        assert client.status == 200
    assert "authorization" in provider.calls[0].headers
    text = path.read_text()
    assert "sk-" not in text
    (told,) = json.loads(text)["recordings"]
    assert told["request"]["body"]["tools"][0]["authorization"] == "(removed)"
    assert told["request"]["body"]["tools"][1] == function
    assert told["request"]["headers"] == {"openai-beta": "x=1"}
    assert told["reply"]["body"]["status"] == "completed"


async def test_failures_are_recorded_too_and_come_in_their_order(project, provider: Mock):
    path = project / "one.json"
    provider.script(Rule(fault="status", status=529), Rule(fault="reset"), Rule(fault="cut", at=9))
    async with home(project, Cassette(path, is_recording=True), provider.url) as app:
        first, was = await ask(app, chat(stream=True))
    assert was.status == "partial"
    async with home(project, Cassette(path)) as app:
        again, line = await ask(app, chat(stream=True))
    assert (again.body, line.status) == (first.body, "partial")
    assert len(provider.calls) == 3


async def test_equal_requests_are_answered_in_the_order_of_the_recording(project, provider: Mock):
    path = project / "one.json"
    provider.script(Rule(text="one"), Rule(text="two"))
    async with home(project, Cassette(path, is_recording=True), provider.url) as app:
        for _ in range(2):
            await ask(app, chat())
    async with home(project, Cassette(path)) as app:
        said = [(await ask(app, chat()))[0].json["choices"][0]["message"]["content"] for _ in range(3)]
    assert said == ["one", "two", "two"]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 9, "recordings": []}'])
def test_a_file_that_is_no_cassette_is_refused_with_its_name(tmp_path, text: str):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UsageError, match=r"c\.json is no cassette"):
        Cassette(tmp_path / "c.json")


# --- Scripted models -------------------------------------------------------------------------------------------------


async def test_a_scripted_model_answers_programs_in_the_order_of_its_script(project):
    model = ScriptedModel(["yes", "no"])
    async with home(project, model) as app:
        source = 'a = await tools.think("Is it?")\nb = await tools.think("And that?")\n[a, b]'
        run = await finish(app, await app.start(source))
    assert run.result == ["yes", "no"]
    assert [each.text for each in model.heard] == ["Is it?", "And that?"]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("dialect", sorted(BODIES))
async def test_a_scripted_answer_is_one_in_every_dialect_and_labelled_as_scripted(project, dialect, is_stream):
    model = ScriptedModel(
        lambda heard: ["You said " + heard.text, ToolCall(name="weather", arguments={"city": "Oslo"})]
    )
    async with home(project, model) as app:
        client, line = await ask(app, BODIES[dialect] | {"stream": is_stream}, dialect=dialect)
        assert (client.status, line.status) == (200, "answered")
        assert line.usage is not None
        assert (line.usage.source, line.usage.output > 0) == ("provider", True)
    text = client.body.decode()
    assert "You said hello" in text
    assert "Oslo" in text
    assert '"scripted' in text
    assert client.headers["x-request-id"] == "scripted"


async def test_a_function_may_look_at_the_request_and_fail_as_a_provider_would(project):
    def say(heard: Heard) -> str | UpstreamFailed:
        if heard.number == 0:
            return UpstreamFailed("reset", "scripted", has_left=True)
        return str(heard.body["temperature"])

    async with home(project, ScriptedModel(say)) as app:
        client, _ = await ask(app, chat(temperature=0.5))
        assert client.json["choices"][0]["message"]["content"] == "0.5"


async def test_a_script_that_is_over_says_so(project):
    async with home(project, ScriptedModel([])) as app:
        client, _ = await ask(app, chat())
        assert client.status == 502
        assert "0 answers" in client.json["error"]["message"]


async def test_scripted_vectors_are_the_same_for_the_same_text(project):
    async with home(project, ScriptedModel([])) as app:
        client, line = await ask(app, {"model": "cheap", "input": ["a", "b", "a"]}, dialect="embeddings")
        rows = [each["embedding"] for each in client.json["data"]]
        assert rows[0] == rows[2] != rows[1]
        assert line.status == "answered"
