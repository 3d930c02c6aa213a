"""What providers do wrong: before and after the first content, in every dialect, streamed and whole."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from models_kit import MODEL, Client, Hasty, config_of, home_of
from overwinter.app import App
from overwinter.app.models import Wish
from overwinter.clock import SECOND_US
from overwinter.config import Config
from overwinter.declared import DeclaredBudget, DeclaredModel, DeclaredProvider
from overwinter.gateway import attempts
from overwinter.gateway.budget import Line
from overwinter.gateway.dialect import DialectName, Event
from provider import Mock, Rule

pytestmark = pytest.mark.anyio
GENERATING: tuple[DialectName, ...] = ("chat", "responses", "messages", "gemini")
BUDGETS = {"ever": DeclaredBudget(of="tenant", usd=1_000, window="ever")}
every_dialect = pytest.mark.parametrize("dialect", GENERATING)
_number = iter(range(10**9))


def request(
    dialect: DialectName, *, is_stream: bool, tokens: int = 60, text: str = "hello"
) -> tuple[str, dict[str, Any]]:
    """Return path and body of a request whose answer may be kept."""
    said = [{"role": "user", "content": text}]
    match dialect:
        case "gemini":
            verb = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
            config = {"maxOutputTokens": tokens, "temperature": 0}
            body = {"contents": [{"role": "user", "parts": [{"text": text}]}], "generationConfig": config}
            return f"/v1beta/models/cheap:{verb}", body
        case "embeddings":
            return "/v1/embeddings", {"model": "cheap", "input": text}
        case "responses":
            body = {"model": "cheap", "input": text, "max_output_tokens": tokens}
        case "messages":
            body = {"model": "cheap", "max_tokens": tokens, "messages": said}
        case _:
            body = {"model": "cheap", "max_completion_tokens": tokens, "messages": said}
    path = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}[dialect]
    return path, {**body, "temperature": 0, "stream": is_stream}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One question after another, of a home whose provider misbehaves."""

    app: App
    clock: Hasty
    provider: Mock

    async def ask(self, dialect: DialectName, *, is_stream: bool, **wish: Any) -> "Told":
        path, body = request(dialect, is_stream=is_stream, text=f"question {next(_number)}")
        raw, before, client = json.dumps(body).encode(), len(self.provider.calls), Client()
        spoken = self.app.models.dialects[dialect]
        asked = spoken.read("POST", path, {}, raw)
        wanted = replace(Wish(call=f"fault:{next(_number)}", is_cached=True), **wish)
        line = await self.app.models.answer(asked, "default", wanted, client)
        reader = spoken.reader(asked, is_stream=is_stream and client.status == 200)
        events = [*reader.feed(client.body), *reader.close()]
        return Told(client=client, line=line, events=events, tries=len(self.provider.calls) - before)

    def kept(self) -> int:
        ((count,),) = self.app.models.file._db.execute("select count(*) from answer")
        return int(count)

    def forget(self) -> None:
        self.app.models.file._db.execute("delete from answer")
        self.app.models.gateway.breaker.answered("mock")
        self.provider.provider.forget()

    async def check_books(self, told: "Told") -> None:
        """The line is settled, nothing is held, and what is spent is what the lines say."""
        (spent,) = await self.app.models.budgets()
        lines = self.app.models.lines(limit=1_000)
        assert spent.held_nusd == 0
        assert spent.spent_nusd == sum(each.cost_nusd or 0 for each in lines)
        assert told.line.state == "settled"
        assert {each.state for each in lines} == {"settled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    client: Client
    line: Line
    events: Sequence[Event]
    tries: int

    @property
    def text(self) -> str:
        said = "".join(text.text for each in self.events if each.kind == "content" for text in each.texts)
        return said or "".join(text.text for each in self.events if each.kind == "terminal" for text in each.texts)

    @property
    def is_whole(self) -> bool:
        return self.client.status == 200 and any(each.kind == "terminal" for each in self.events)

    @property
    def has_failed(self) -> bool:
        return any(each.kind == "error" for each in self.events)


@asynccontextmanager
async def asking(project: Path, provider: Mock, config: Config | None = None) -> AsyncGenerator[Asking]:
    config = config or config_of(provider.url, budgets=BUDGETS)
    quick = replace(config.providers["mock"], first_byte_s=0.2, idle_s=0.2)
    config = replace(config, providers={**config.providers, "mock": quick})
    clock = Hasty()
    async with home_of(project, config, clock=clock, is_worker=False) as app:
        yield Asking(app=app, clock=clock, provider=provider)


def whole_text(count: int = 50) -> str:
    return "".join(f"tok{number} " for number in range(count))


BEFORE = (
    Rule(fault="status", status=429),
    Rule(fault="status", status=429, retry_after_s=2),
    Rule(fault="status", status=500),
    Rule(fault="status", status=529),
    Rule(fault="slow_first"),
    Rule(fault="stall"),
    Rule(fault="reset"),
    Rule(fault="cut"),
    Rule(fault="error_event"),
    Rule(fault="error_body"),
    Rule(fault="html"),
    Rule(fault="junk"),
)


@every_dialect
async def test_a_fault_before_the_first_content_is_made_good_by_another_try(
    project, provider: Mock, dialect: DialectName
):
    async with asking(project, provider) as home:
        for rule in BEFORE:
            for is_stream in (False, True):
                case = (rule.fault, rule.status, is_stream)
                provider.script(rule)
                told = await home.ask(dialect, is_stream=is_stream)
                assert (told.client.status, told.is_whole, told.text) == (200, True, whole_text()), case
                assert (told.tries, told.line.status) == (2, "answered"), case
                assert home.kept() == 1, case
                await home.check_books(told)
                home.forget()


@every_dialect
async def test_a_fault_that_stays_is_a_typed_error_and_nothing_is_kept(project, provider: Mock, dialect: DialectName):
    async with asking(project, provider) as home:
        for rule in BEFORE:
            for is_stream in (False, True):
                case = (rule.fault, rule.status, is_stream)
                provider.script(replace(rule, times=10))
                told = await home.ask(dialect, is_stream=is_stream, is_named=True)
                assert told.client.status >= 400, case
                assert (told.has_failed, told.text, home.kept()) == (True, "", 0), case
                assert "error" in told.client.json, case
                assert told.tries == 3, case
                await home.check_books(told)
                home.forget()


@every_dialect
async def test_a_fault_after_the_first_content_ends_the_stream_with_an_error_and_no_second_try(
    project, provider: Mock, dialect: DialectName, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(attempts, "ANSWER_BYTES_MAX", 1 << 20)
    async with asking(project, provider) as home:
        for fault in ("stall", "reset", "cut", "error_event", "endless", "endless_line", "junk"):
            provider.script(Rule(fault=fault, at=9, times=10))
            told = await home.ask(dialect, is_stream=True, is_named=True)
            assert (told.client.status, told.line.status, told.tries) == (200, "partial", 1), fault
            assert told.has_failed, fault
            assert not told.is_whole, fault
            assert whole_text().startswith(told.text.partition("more")[0]), fault
            assert told.text.startswith("tok0 "), fault
            assert home.kept() == 0, fault
            assert told.line.usage is not None
            assert told.line.usage.source == "estimated", fault
            await home.check_books(told)
            home.forget()


async def test_vectors_meet_the_same_faults_as_texts(project, provider: Mock):
    async with asking(project, provider) as home:
        for rule in BEFORE:
            for times in (1, 10):
                case = (rule.fault, rule.status, times)
                provider.script(replace(rule, times=times))
                told = await home.ask("embeddings", is_stream=False, is_named=times > 1)
                assert told.is_whole == (times == 1), case
                assert told.has_failed == ("error" in told.client.json) == (times == 10), case
                assert (told.tries, home.kept()) == ((2, 1) if times == 1 else (3, 0)), case
                await home.check_books(told)
                home.forget()


@every_dialect
async def test_an_answer_without_end_in_one_piece_and_one_that_unpacks_without_end_are_errors(
    project, provider: Mock, dialect: DialectName, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(attempts, "ANSWER_BYTES_MAX", 1 << 20)
    async with asking(project, provider) as home:
        for fault in ("endless", "gzip_bomb"):
            provider.script(Rule(fault=fault, times=10))
            told = await home.ask(dialect, is_stream=False)
            assert told.client.status in (502, 503), fault
            assert (told.has_failed, home.kept()) == (True, 0), fault
            await home.check_books(told)
            home.forget()


@every_dialect
async def test_counts_that_cannot_be_or_are_missing_are_estimated_and_said_twice_are_counted_once(
    project, provider: Mock, dialect: DialectName
):
    async with asking(project, provider) as home:
        for is_stream in (False, True):
            provider.script(Rule(fault="duplicate_usage"))
            told = await home.ask(dialect, is_stream=is_stream)
            usage, (charge,) = told.line.usage, provider.calls
            assert usage is not None
            assert (usage.source, usage.fresh, usage.output) == ("provider", charge.prompt.fresh, charge.output_tokens)
            for fault in ("negative_usage", "no_usage"):
                home.forget()
                provider.script(Rule(fault=fault))
                told = await home.ask(dialect, is_stream=is_stream)
                usage = told.line.usage
                assert usage is not None
                assert (usage.source, told.is_whole) == ("estimated", True), (fault, is_stream)
                assert min(usage.fresh, usage.output, told.line.cost_nusd or 0) > 0, (fault, is_stream)
                await home.check_books(told)
            home.forget()


async def test_a_pause_that_a_provider_asks_for_is_made_and_a_long_one_is_handed_on(project, provider: Mock):
    async with asking(project, provider) as home:
        provider.script(Rule(fault="status", status=429, retry_after_s=7))
        assert (await home.ask("chat", is_stream=True)).is_whole
        assert 7 <= home.clock.waited_s[-1] < 8
        provider.script(Rule(fault="status", status=429, retry_after_s=60))
        told = await home.ask("chat", is_stream=True)
        assert (told.client.status, told.client.headers["retry-after"], told.tries) == (429, "60", 1)


async def test_a_provider_that_fails_in_the_middle_again_and_again_is_left_alone_and_one_that_refuses_is_not(
    project, provider: Mock
):
    async with asking(project, provider) as home:
        provider.script(Rule(fault="reset", at=9, times=5))
        for _ in range(5):
            assert (await home.ask("chat", is_stream=True)).line.status == "partial"
        told = await home.ask("chat", is_stream=True)
        assert (told.client.status, told.tries) == (503, 0)
        home.clock.at_us += 16 * SECOND_US
        assert (await home.ask("chat", is_stream=True)).is_whole
        provider.script(Rule(fault="error_body", status=400, kind="invalid_request_error", times=10))
        for _ in range(6):
            told = await home.ask("chat", is_stream=False)
            assert (told.client.status, told.tries) == (400, 1)


@pytest.mark.parametrize(
    "second", [Rule(fault="status", status=429, retry_after_s=60), Rule(fault="status", status=429)]
)
async def test_a_provider_whose_trial_call_does_not_get_through_is_tried_again(project, provider: Mock, second: Rule):
    async with asking(project, provider) as home:
        provider.script(Rule(fault="reset", at=9, times=5))
        for _ in range(5):
            assert (await home.ask("chat", is_stream=True)).line.status == "partial"
        home.clock.at_us += 16 * SECOND_US
        provider.script(replace(second, times=9))
        assert (await home.ask("chat", is_stream=False)).client.status == 429
        provider.provider.rules.clear()
        home.clock.at_us += 16 * SECOND_US
        assert (await home.ask("chat", is_stream=False)).is_whole


async def test_what_a_failed_try_began_with_is_in_no_kept_answer(project, provider: Mock):
    async with asking(project, provider) as home:
        provider.script(Rule(fault="reset", at=1))
        path, body = request("messages", is_stream=True)
        asked = home.app.models.dialects["messages"].read("POST", path, {}, json.dumps(body).encode())
        bodies = list[bytes]()
        for number in range(2):
            client = Client()
            await home.app.models.answer(asked, "default", Wish(call=f"kept:{number}", is_cached=True), client)
            bodies.append(client.body)
        assert len(provider.calls) == 2
        assert [each.count(b'"message_start"') for each in bodies] == [1, 1]


async def test_a_try_that_may_have_been_billed_is_in_the_ledger_although_nothing_came_of_it(project, provider: Mock):
    async with asking(project, provider) as home:
        provider.script(Rule(fault="slow_first"))
        told = await home.ask("chat", is_stream=False)
        assert told.is_whole
        assert told.line.usage is not None
        assert [each.source for each in told.line.usage.also] == ["unknown"]
        assert told.line.cost_nusd is not None
        assert told.line.cost_nusd > told.line.held_nusd > 0, "it may be made to its end with nobody there"


async def test_an_answer_that_came_and_is_none_is_estimated_and_not_taken_for_one_that_is_still_made(
    project, provider: Mock
):
    provider.script(Rule(fault="junk", times=3))
    async with asking(project, provider) as home:
        told = await home.ask("chat", is_stream=False)
        assert told.client.status == 502
        assert told.line.usage is not None
        assert told.line.usage.source == "estimated"
        assert (told.line.cost_nusd or 0) < told.line.held_nusd


async def test_a_dearer_fallback_is_booked_by_what_it_may_cost(project, provider: Mock):
    config = config_of(provider.url, budgets=BUDGETS)
    gone = replace(config.providers["mock"], url="http://127.0.0.1:9")
    models = {
        "cheap": DeclaredModel(provider="gone", model="claude-haiku-4-5", fallbacks=("dear",), output_tokens_max=50),
        "dear": DeclaredModel(provider="mock", model="claude-opus-5", output_tokens_max=50),
    }
    config = replace(config, providers={**config.providers, "gone": gone}, models=models)
    provider.script(Rule(fault="slow_first", times=3))
    async with asking(project, provider, config) as home:
        told = await home.ask("chat", is_stream=False)
        assert told.client.status == 504
        assert told.line.cost_nusd is not None
        assert told.line.cost_nusd > 3 * told.line.held_nusd, (
            "each of its tries may be made to its end, at its own price"
        )


async def test_no_estimate_is_more_than_a_call_may_cost(project, provider: Mock):
    provider.script(Rule(fault="reset", times=3))
    config = config_of(provider.url, budgets=BUDGETS)
    small = {"cheap": DeclaredModel(provider="mock", model=MODEL, input_tokens_max=1_000, output_tokens_max=10)}
    async with asking(project, provider, replace(config, models=small)) as home:
        client, picture = Client(), "x" * 1_000_000
        body = {
            "model": "cheap",
            "messages": [{"role": "user", "content": picture}],
            "max_completion_tokens": 10,
            "stream": True,
        }
        asked = home.app.models.dialects["chat"].read("POST", "/v1/chat/completions", {}, json.dumps(body).encode())
        line = await home.app.models.answer(asked, "default", Wish(call="large"), client)
        assert 0 < (line.cost_nusd or 0) <= 3 * line.held_nusd


async def test_a_dearer_fallback_needs_room_in_the_budget_also_where_the_first_choice_is_left_alone(
    project, provider: Mock
):
    config = config_of(provider.url, budgets={"ever": DeclaredBudget(of="tenant", usd=0.002, window="ever")})
    other = DeclaredProvider(url="http://127.0.0.1:9", dialects=("chat",), prices="anthropic")
    models = {
        "cheap": DeclaredModel(provider="gone", model=MODEL, fallbacks=("dear",), output_tokens_max=100),
        "dear": DeclaredModel(provider="mock", model="claude-opus-5", output_tokens_max=1),
    }
    config = replace(config, providers={**config.providers, "gone": other}, models=models)
    body = {"model": "cheap", "messages": [{"role": "user", "content": "x"}]}
    async with asking(project, provider, config) as home:
        for _ in range(5):
            home.app.models.gateway.breaker.failed("gone", home.clock.now_us())
        client = Client()
        asked = home.app.models.dialects["chat"].read("POST", "/v1/chat/completions", {}, json.dumps(body).encode())
        line = await home.app.models.answer(asked, "default", Wish(call="fallback"), client)
        assert (client.status, line.cost_nusd, provider.calls) == (503, 0, [])


async def test_a_provider_is_told_that_it_gets_json(project, provider: Mock):
    async with asking(project, provider) as home:
        for dialect in GENERATING:
            await home.ask(dialect, is_stream=False)
        assert {each.headers["content-type"] for each in provider.calls} == {"application/json"}


async def test_counting_tokens_costs_nothing(project, provider: Mock):
    async with asking(project, provider) as home:
        body = {"model": "cheap", "messages": [{"role": "user", "content": "hello"}]}
        asked = home.app.models.dialects["messages"].read(
            "POST", "/v1/messages/count_tokens", {}, json.dumps(body).encode()
        )
        client = Client()
        line = await home.app.models.answer(asked, "default", Wish(call="count"), client)
        assert (client.status, line.cost_nusd, line.status) == (200, 0, "answered")
