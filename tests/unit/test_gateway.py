"""The gateway's steps in their order: policy, kept answers, budgets, providers, the ledger."""

import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import anyio
import pytest

from models_kit import MODEL, Client, ask, chat, config_of, home_of, until
from overwinter.declared import DeclaredBudget, DeclaredModel, DeclaredProvider
from overwinter.errors import HomeDamaged
from overwinter.gateway.dialect import DialectName
from overwinter.testing import ManualClock
from provider import Mock, Rule

pytestmark = pytest.mark.anyio
NUSD = 1_000_000_000


def price(*, fresh: int, output: int) -> int:
    return int(fresh * Fraction(2_000) + output * Fraction(10_000))


@pytest.mark.claim("M3.bill")
async def test_an_answer_goes_through_as_it_came_and_costs_what_the_provider_says(project, provider: Mock):
    async with home_of(project, config_of(provider.url)) as app:
        client, line = await ask(app, chat())
        (charge,) = provider.calls
        assert client.status == 200
        assert client.json["choices"][0]["message"]["content"].startswith("tok0")
        assert (line.state, line.status, line.upstream, line.priced_model) == ("settled", "answered", "mock", MODEL)
        assert line.cost_nusd == price(fresh=charge.prompt.fresh, output=charge.output_tokens)
        assert app.models.line(line.call) == line


async def test_a_model_that_no_rule_permits_is_not_asked(project, provider: Mock):
    async with home_of(project, config_of(provider.url)) as app:
        client, _ = await ask(app, chat(), agent="none")
        assert client.status == 403
        assert provider.calls == []


@pytest.mark.claim("M2.hard")
async def test_budgets_do_not_begin_anew_because_their_file_is_lost_until_a_person_says_so(project, provider: Mock):
    config = config_of(provider.url, budgets={"all": DeclaredBudget(of="tenant", usd=1)})
    place = project / ".overwinter" / "models.db"
    for _ in range(2):
        async with home_of(project, config):
            pass
        place.unlink()  # nothing was spent
    async with home_of(project, config) as app:
        await ask(app, chat(max_completion_tokens=50))
        (before,) = await app.models.budgets()
    place.unlink()
    for _ in range(2):
        with pytest.raises(HomeDamaged, match="touch"):
            async with home_of(project, config):
                pass
    place.touch()
    async with home_of(project, config) as app:
        assert await app.models.budgets() == []
    assert before.spent_nusd > 0


@pytest.mark.claim("M4.policy_first")
async def test_the_rules_are_asked_before_a_kept_answer_is_given(project, provider: Mock):
    config = config_of(provider.url, cache=True)
    async with home_of(project, config) as app:
        await ask(app, chat(temperature=0))
        client, line = await ask(app, chat(temperature=0), agent="none")
        assert (client.status, line.status) == (403, "denied")


async def test_a_rule_may_ask_where_a_provider_computes_and_what_it_keeps(project, provider: Mock):
    config = config_of(provider.url)
    config = replace(config, providers={"mock": replace(config.providers["mock"], region="us", retention="30d")})
    (project / "policies").mkdir()
    (project / "policies" / "models.cedar").write_text(
        'forbid(principal, action == Action::"think", resource) when { resource.data == "secret" && resource.region != "eu" };'
    )
    async with home_of(project, config) as app:
        assert (await ask(app, chat()))[0].status == 200
        assert (await ask(app, chat(), data="secret"))[0].status == 403


async def test_a_decision_that_is_remembered_is_for_the_same_data_and_rules(project, provider: Mock):
    config = config_of(provider.url)
    config = replace(config, providers={"mock": replace(config.providers["mock"], region="us")})
    (project / "policies").mkdir()
    (project / "policies" / "models.cedar").write_text(
        'forbid(principal, action == Action::"think", resource) when { resource.data == "secret" };'
    )
    async with home_of(project, config) as app:
        for data, status in (("", 200), ("secret", 403), ("", 200), ("other", 200), ("secret", 403)):
            assert (await ask(app, chat(), data=data))[0].status == status
        (project / "policies" / "models.cedar").write_text(
            'forbid(principal, action == Action::"think", resource) when { resource.data == "other" };'
        )
        await app.rulebook.reload(by="owner")
        for data, status in (("secret", 200), ("other", 403)):
            assert (await ask(app, chat(), data=data))[0].status == status


async def test_a_connection_serves_again_after_a_stream(project, provider: Mock):
    async with home_of(project, config_of(provider.url)) as app:
        for _ in range(5):
            client, _ = await ask(app, chat(stream=True))
            assert client.body.endswith(b"data: [DONE]\n\n")
        assert provider.provider.connections == 1


async def test_a_call_that_a_budget_does_not_hold_is_refused_before_anybody_is_asked(project, provider: Mock):
    budgets = {"day": DeclaredBudget(of="agent:default", usd=0.000_001)}
    async with home_of(project, config_of(provider.url, budgets=budgets)) as app:
        client, line = await ask(app, chat(max_completion_tokens=50))
        assert (client.status, line.status) == (402, "budget")
        assert client.headers["x-should-retry"] == "false"
        assert provider.calls == []
        (spent,) = await app.models.budgets() or [None]
        assert spent is None or (spent.spent_nusd, spent.held_nusd) == (0, 0)


@pytest.mark.claim("M2.hard")
async def test_what_is_spent_and_held_never_passes_a_limit(project, provider: Mock):
    provider.script(Rule(times=100, tokens=50))
    limit = 0.003
    async with home_of(
        project, config_of(provider.url, budgets={"day": DeclaredBudget(of="tenant", usd=limit)})
    ) as app:
        statuses = list[int]()

        async def one() -> None:
            statuses.append((await ask(app, chat(max_completion_tokens=50)))[0].status)

        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(one)
        (spent,) = await app.models.budgets()
        assert set(statuses) == {200, 402}
        assert 0 < spent.spent_nusd <= limit * NUSD
        assert spent.held_nusd == 0
        total = sum(price(fresh=each.prompt.fresh, output=each.output_tokens) for each in provider.calls)
        assert spent.spent_nusd == total


async def test_a_budget_window_begins_anew_with_the_calendar(project, provider: Mock):
    clock = ManualClock()
    budgets = {"calls": DeclaredBudget(of="tenant", calls=1, window="hour")}
    async with home_of(project, config_of(provider.url, budgets=budgets), clock=clock) as app:
        assert (await ask(app, chat()))[0].status == 200
        refused, _ = await ask(app, chat())
        assert refused.status == 429
        assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == (
            "800",
            "false",
        )  # until the hour ends
        clock.advance(800)
        assert (await ask(app, chat()))[0].status == 200


async def test_a_model_without_a_price_is_denied_where_a_budget_applies_and_only_there(project, provider: Mock):
    body = chat(model="nobody-knows-it", max_completion_tokens=5)
    async with home_of(project, config_of(provider.url)) as app:
        assert (await ask(app, body))[0].status == 200
    budgets = {"day": DeclaredBudget(of="tenant", usd=100)}
    async with home_of(project, config_of(provider.url, budgets=budgets)) as app:
        client, line = await ask(app, body)
        assert (client.status, line.status) == (402, "unpriced")
        assert "prices.toml" in client.body.decode()


async def test_the_operators_own_price_goes_before_the_tables(project, provider: Mock):
    (project / "prices.toml").write_text('[anthropic."claude-sonnet-5"]\ninput = 1\noutput = 0.5\n')
    async with home_of(project, config_of(provider.url)) as app:
        _, line = await ask(app, chat())
        (charge,) = provider.calls
        assert line.cost_nusd == charge.prompt.fresh * 1_000 + charge.output_tokens * 500


@pytest.mark.claim("M4.same")
async def test_a_kept_answer_is_given_as_a_stream_or_whole_whichever_is_asked(project, provider: Mock):
    async with home_of(project, config_of(provider.url, cache=True)) as app:
        first, paid = await ask(app, chat(temperature=0))
        whole, line = await ask(app, chat(temperature=0))
        stream, _ = await ask(app, chat(temperature=0, stream=True))
        assert len(provider.calls) == 1
        assert whole.json == first.json
        assert (line.status, line.cost_nusd, line.saved_nusd) == ("cached", 0, paid.cost_nusd)
        told = "".join(
            choice["delta"].get("content") or ""
            for row in stream.body.decode().split("\n\n")
            if row.startswith("data: {")
            for choice in json.loads(row.removeprefix("data: "))["choices"]
        )
        assert told == first.json["choices"][0]["message"]["content"]


async def test_one_of_many_equal_requests_is_asked_and_all_are_answered(project, provider: Mock):
    provider.script(Rule(fault="slow_first"))
    async with home_of(project, config_of(provider.url, cache=True)) as app:
        clients = list[Client]()

        async def one() -> None:
            clients.append((await ask(app, chat(temperature=0)))[0])

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(one)
            await until(lambda: app.models.gateway.under_way == 20 and bool(provider.calls))
            await until(lambda: provider.provider.release() is None and len(clients) == 20)
        assert len(provider.calls) == 1
        assert {each.status for each in clients} == {200}


@pytest.mark.claim("M5.once")
async def test_a_named_call_gets_the_answer_that_it_got_and_is_paid_once(project, provider: Mock):
    async with home_of(project, config_of(provider.url)) as app:
        first, _ = await ask(app, chat(), call="run:1", is_named=True)
    async with home_of(project, config_of(provider.url)) as app:  # after a restart
        again, line = await ask(app, chat(), call="run:1", is_named=True)
        assert again.json == first.json
        assert line.status == "repeated"
        assert len(provider.calls) == 1
        other, _ = await ask(app, chat("other"), call="run:1", is_named=True)
        assert other.status == 409
        (total,) = app.models.totals(["agent", "model", "day"], since_us=0)
        assert (total.calls, total.cost_nusd) == (2, app.models.lines(wanted={"status": "answered"})[0].cost_nusd)


async def test_a_provider_is_tried_again_until_it_has_said_something(project, provider: Mock):
    provider.script(Rule(fault="status", status=500), Rule(fault="reset"))
    async with home_of(project, config_of(provider.url)) as app:
        client, line = await ask(app, chat(stream=True))
        assert client.status == 200
        assert client.body.endswith(b"data: [DONE]\n\n")
        assert (line.status, len(provider.calls)) == ("answered", 3)


async def test_after_the_first_content_there_is_an_error_and_no_second_try(project, provider: Mock):
    provider.script(Rule(fault="cut", at=10))
    async with home_of(project, config_of(provider.url)) as app:
        client, line = await ask(app, chat(stream=True))
        assert (client.status, line.status, len(provider.calls)) == (200, "partial", 1)
        assert b'"error"' in client.body.splitlines()[-2] or b'"error"' in client.body
        assert line.usage is not None
        assert line.usage.source == "estimated"


async def test_a_fallback_answers_when_the_first_choice_cannot(project, provider: Mock):
    config = config_of(provider.url)
    dead = DeclaredProvider(url="http://127.0.0.1:9", dialects=("chat",), prices="anthropic")
    models = {**config.models, "first": DeclaredModel(provider="dead", model=MODEL, fallbacks=("cheap",))}
    config = replace(config, providers={**config.providers, "dead": dead}, models=models)
    async with home_of(project, config) as app:
        client, line = await ask(app, chat(model="first"))
        assert (client.status, line.upstream) == (200, "mock")


async def test_a_client_that_leaves_is_drained_for_the_exact_price_or_cut_for_an_estimate(project, provider: Mock):
    async with home_of(project, config_of(provider.url)) as app:
        _, drained = await ask(app, chat(stream=True), client=Client(leaves_after=1))
        assert drained.usage is not None
        assert (drained.usage.source, drained.status) == ("provider", "answered")
        provider.script(Rule(fault="stall", at=10))
        client = Client()
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: ask(app, chat(stream=True), client=client, call="leaves"))
            await until(lambda: len(client.parts) > 0)
            app.models.gateway.leave(client)
        cut = app.models.line("leaves")
        assert cut is not None
        assert cut.usage is not None
        assert (cut.status, cut.usage.source, cut.usage.output > 0) == ("gone", "estimated", True)


async def test_revoking_an_agent_cuts_its_streams_and_refuses_more(project, provider: Mock):
    provider.script(Rule(fault="stall", at=10))
    async with home_of(project, config_of(provider.url)) as app:
        client, revoked = Client(), list[int]()
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: ask(app, chat(stream=True), client=client))
            await until(lambda: len(client.parts) > 0)
            revoked.append((await app.governance.revoke("default", by="owner@example.com")).model_calls)
        assert revoked == [1]
        assert b"revoked" in client.body
        assert (await ask(app, chat()))[0].status == 403
        assert len(provider.calls) == 1


@pytest.mark.claim("M5.unknown")
async def test_a_call_that_a_crash_cut_off_counts_as_spent_until_a_person_says_what_it_cost(project, provider: Mock):
    budgets = {"day": DeclaredBudget(of="tenant", usd=1.0)}
    config = config_of(provider.url, budgets=budgets)
    async with home_of(project, config) as app:
        caller = app.models.caller("default", replace((await _wish()), call="lost:1"))
        line = (await ask(app, chat()))[1]
        held = replace(line, call="lost:1", state="held", status="", cost_nusd=None, ended_us=None, held_nusd=5_000_000)
        await app.models.file.reserve(_hold(caller, held.held_nusd), held)
    async with home_of(project, config) as app:
        lost = app.models.line("lost:1")
        assert lost is not None
        assert (lost.state, lost.status, lost.cost_nusd) == ("unknown", "lost", 5_000_000)
        before = (await app.models.budgets())[0].spent_nusd
        await app.models.correct("lost:1", 1_000_000, by="owner@example.com")
        assert (await app.models.budgets())[0].spent_nusd == before - 4_000_000


async def _wish():
    from overwinter.app.models import Wish  # noqa: PLC0415 - one test's

    return Wish(call="x")


def _hold(caller, amount):
    from overwinter.gateway.budget import Hold  # noqa: PLC0415 - one test's

    return Hold(call=caller.call, amount_nusd=amount, budgets=caller.budgets)


async def test_a_question_that_means_the_same_gets_its_answer_only_for_who_asks_and_is_told_so(project, provider: Mock):
    config = config_of(provider.url, similar_model="means", similar_min=0.99)
    config = replace(config, models={**config.models, "means": DeclaredModel(provider="mock")})
    wish: dict[str, Any] = {"is_cached": True, "is_similar": True, "cache_s": 60.0}
    async with home_of(project, config) as app:
        first, _ = await ask(app, chat("weather in Oslo today"), **wish)
        again, line = await ask(app, chat("today in Oslo weather"), **wish)
        assert again.json == first.json
        assert line.status == "cached"
        assert again.headers["x-overwinter-cache"].startswith("similar; cosine=1.0")
        exact, _ = await ask(app, chat("in Oslo weather today"), is_cached=True, cache_s=60.0)
        other, _ = await ask(app, chat("capital of France"), **wish)
        framed, _ = await ask(app, chat("today in Oslo weather", max_completion_tokens=5), **wish)
        assert all("x-overwinter-cache" not in each.headers for each in (first, exact, other, framed))
        paths = [each.path for each in provider.calls]
        assert paths.count("/v1/embeddings") == 3  # what a text means is kept too
        assert paths.count("/v1/chat/completions") == 4


async def test_two_budgets_of_one_purse_are_one_and_the_strictest_holds(project, provider: Mock):
    budgets = {
        "all": DeclaredBudget(of="agent:*", usd=1.0),
        "own": DeclaredBudget(of="agent:default", usd=2.0, calls=7),
    }
    async with home_of(project, config_of(provider.url, budgets=budgets)) as app:
        _, line = await ask(app, chat())
        (spent,) = await app.models.budgets()
        assert (spent.spent_nusd, spent.calls) == (line.cost_nusd, 1)
        assert (spent.budget.limit_nusd, spent.budget.calls_max) == (NUSD, 7)


SEARCHES: dict[str, dict[str, Any]] = {
    "chat": {**chat(), "web_search_options": {}},
    "responses": {"model": "cheap", "input": "hello", "tools": [{"type": "web_search"}]},
    "messages": {
        "model": "cheap", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}],
        "tools": [{"type": "web_search_20250305", "name": "web_search"}],
    },
}  # fmt: skip


@pytest.mark.claim("M2.hard")
@pytest.mark.parametrize("dialect", ["chat", "responses", "messages"])
async def test_what_a_provider_runs_itself_is_bounded_by_the_operators_word_or_refused_under_a_budget(
    project, provider: Mock, dialect: DialectName
):
    config = config_of(provider.url, budgets={"day": DeclaredBudget(of="tenant", usd=100.0)})
    async with home_of(project, config) as app:
        client, line = await ask(app, SEARCHES[dialect], dialect=dialect)
        assert (client.status, line.status) in ((402, "unpriced"), (429, "unpriced"))
        assert b"tools_usd" in client.body
        assert provider.calls == []
    told = {**config.models, "cheap": replace(config.models["cheap"], tools_usd=0.5)}
    async with home_of(project, replace(config, models=told)) as app:
        client, line = await ask(app, SEARCHES[dialect], dialect=dialect)
        assert client.status == 200
        assert line.held_nusd > 0.5 * NUSD
        assert (line.cost_nusd or 0) < 0.1 * NUSD, "none was run"
        for is_stream in (False, True) if dialect == "responses" else ():
            provider.script(Rule(searches=10))
            client, line = await ask(app, {**SEARCHES[dialect], "stream": is_stream}, dialect=dialect)
            assert client.status == 200
            assert 0.5 * NUSD < (line.cost_nusd or 0) <= line.held_nusd, (
                "the provider says that some were, not what they cost"
            )
    async with home_of(project, config_of(provider.url)) as app:
        assert (await ask(app, SEARCHES[dialect], dialect=dialect))[0].status == 200


async def test_a_refusal_of_a_provider_that_is_handed_on_is_followed_by_no_other_answer(project, provider: Mock):
    class Slow(Client):
        """Takes the head of an answer, and stops at its body."""

        async def write(self, body: bytes) -> None:
            self.parts.append(body)
            await anyio.sleep_forever()

    provider.script(Rule(fault="status", status=400, times=9))
    async with home_of(project, config_of(provider.url)) as app:
        client = Slow()
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: ask(app, chat(), client=client))
            await until(lambda: len(client.parts) > 0)
            await app.governance.revoke("default", by="owner@example.com")
        assert client.status == 400
        assert len(client.parts) == 1
