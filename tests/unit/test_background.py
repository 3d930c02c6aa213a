"""Answers that a provider makes while nobody waits: whose they are, when they are settled, what happens when nobody asks."""

from dataclasses import replace

import anyio
import pytest

from models_kit import Client, again, ask, config_of, home_of, until
from overwinter.config import Agent
from overwinter.declared import DeclaredBudget, DeclaredModel
from overwinter.testing import ManualClock
from provider import Mock, Rule

pytestmark = pytest.mark.anyio
BUDGETS = {"day": DeclaredBudget(of="tenant", usd=1.0)}


def request(**fields):
    return {"model": "cheap", "input": "hello", "background": True, "max_output_tokens": 200, **fields}


async def begun(app, **fields):
    client, line = await ask(app, request(**fields), dialect="responses")
    assert client.status == 200
    return client.json["id"] if not fields.get("stream") else "", line


async def standing(app):
    (spent,) = await app.models.budgets()
    return spent.spent_nusd, spent.held_nusd


async def test_the_hold_stays_until_a_poll_sees_the_end_and_its_usage(project, provider: Mock):
    provider.script(Rule(polls=2))
    async with home_of(project, config_of(provider.url, budgets=BUDGETS)) as app:
        answer_id, line = await begun(app)
        assert (line.state, line.status, line.cost_nusd, line.answer_id) == ("held", "background", None, answer_id)
        assert await standing(app) == (0, line.held_nusd)
        for _ in range(2):
            client, seen = await again(app, answer_id)
            assert (client.json["status"], seen.state) == ("in_progress", "held")
        client, ended = await again(app, answer_id)
        (charge,) = provider.calls
        cost = charge.prompt.fresh * 2_000 + charge.output_tokens * 10_000
        assert client.json["status"] == "completed"
        assert (ended.call, ended.state, ended.status, ended.cost_nusd) == (line.call, "settled", "answered", cost)
        assert await standing(app) == (cost, 0)
        _, once_more = await again(app, answer_id)
        assert once_more == ended == app.models.line(line.call)
        assert await standing(app) == (cost, 0)
        assert len(app.models.lines()) == 1


async def test_asking_for_an_answer_is_none_of_the_calls_that_a_budget_lets_begin(project, provider: Mock):
    provider.script(Rule(polls=3))
    budgets = {"one": DeclaredBudget(of="tenant", calls=1, window="day")}
    async with home_of(project, config_of(provider.url, budgets=budgets)) as app:
        answer_id, _ = await begun(app)
        polls = [await again(app, answer_id) for _ in range(4)]
        assert [seen.state for _, seen in polls] == ["held", "held", "held", "settled"]
        refused, line = await ask(app, request(), dialect="responses")
        assert (refused.status, line.status) == (429, "rate")
        (spent,) = await app.models.budgets()
        assert spent.calls == 1


async def test_two_polls_that_see_the_end_settle_it_once(project, provider: Mock):
    provider.script(Rule(polls=0))
    async with home_of(project, config_of(provider.url, budgets=BUDGETS)) as app:
        answer_id, line = await begun(app)
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(again, app, answer_id)
        ended = app.models.line(line.call)
        assert ended is not None
        assert await standing(app) == (ended.cost_nusd, 0)


async def test_another_agents_answer_is_not_there(project, provider: Mock):
    config = config_of(provider.url)
    config = replace(config, agents={**config.agents, "other": Agent(models=("*",))})
    async with home_of(project, config) as app:
        answer_id, _ = await begun(app)
        for method in ("GET", "POST"):
            client, _ = await again(app, answer_id, agent="other", method=method)
            assert (client.status, client.json["error"]["code"]) == (404, "not_found")
        nowhere, _ = await again(app, "resp_nobody")
        assert nowhere.status == 404
        assert provider.provider.background[answer_id].status == "queued"


async def test_the_rules_are_asked_again_at_each_poll(project, provider: Mock):
    config = config_of(provider.url)
    async with home_of(project, config) as app:
        answer_id, line = await begun(app)
    denied = replace(config, agents={"default": Agent(models=("claude-*",))})
    async with home_of(project, denied) as app:
        for method in ("GET", "POST"):
            client, _ = await again(app, answer_id, method=method)
            assert client.status == 403
        kept = app.models.line(line.call)
        assert kept is not None
        assert kept.state == "held"
    async with home_of(project, config) as app:
        assert (await again(app, answer_id))[0].status == 200
        await app.governance.revoke("default", by="owner@example.com")
        client, _ = await again(app, answer_id)
        assert (client.status, client.json["error"]["code"]) == (403, "revoked")


async def test_a_poll_goes_to_the_provider_and_model_that_made_the_answer(project, provider: Mock):
    config = config_of(provider.url)
    async with home_of(project, config) as app:
        answer_id, _ = await begun(app)
    moved = replace(config, models={"cheap": DeclaredModel(provider="mock", model="another")})
    async with home_of(project, moved) as app:
        client, _ = await again(app, answer_id)
        assert client.status == 404
        assert "any more" in client.json["error"]["message"]


async def test_an_answer_survives_a_restart_and_is_not_taken_for_one_that_a_crash_cut_off(project, provider: Mock):
    config = config_of(provider.url, budgets=BUDGETS)
    provider.script(Rule(polls=0))
    async with home_of(project, config) as app:
        answer_id, line = await begun(app)
    async with home_of(project, config) as app:
        held = app.models.line(line.call)
        assert held is not None
        assert held.state == "held"
        _, ended = await again(app, answer_id)
        assert ended.state == "settled"


async def test_after_the_deadline_the_hold_is_booked_as_spent_and_a_late_poll_puts_it_right(project, provider: Mock):
    clock = ManualClock()
    config = config_of(
        provider.url, budgets={"all": DeclaredBudget(of="tenant", usd=1.0, window="ever")}, background_s=600
    )
    async with home_of(project, config, clock=clock) as app:
        answer_id, line = await begun(app)
        clock.advance(599)
        await app.models.expire()
        assert await standing(app) == (0, line.held_nusd)
        clock.advance(2)
        await app.models.expire()
        lost = app.models.line(line.call)
        assert lost is not None
        assert (lost.state, lost.status, lost.cost_nusd) == ("unknown", "expired", line.held_nusd)
        assert await standing(app) == (line.held_nusd, 0)
        await again(app, answer_id)
        _, ended = await again(app, answer_id)
        assert (ended.state, ended.status) == ("settled", "corrected by provider")
        assert await standing(app) == (ended.cost_nusd, 0)
        assert 0 < (ended.cost_nusd or 0) < line.held_nusd


async def test_a_cancelled_answer_is_booked_at_its_hold_for_nobody_says_what_it_used(project, provider: Mock):
    async with home_of(project, config_of(provider.url, budgets=BUDGETS)) as app:
        answer_id, line = await begun(app)
        client, ended = await again(app, answer_id, method="POST")
        assert (client.status, client.json["status"]) == (200, "cancelled")
        assert (ended.state, ended.status, ended.cost_nusd) == ("unknown", "cancelled", line.held_nusd)
        assert await standing(app) == (line.held_nusd, 0)
        assert await again(app, answer_id) is not None
        assert await standing(app) == (line.held_nusd, 0)


async def test_an_answer_is_read_on_as_a_stream_from_any_event_to_its_end(project, provider: Mock):
    provider.script(Rule(tokens=5))
    async with home_of(project, config_of(provider.url, budgets=BUDGETS)) as app:
        answer_id, _ = await begun(app)
        client, ended = await again(app, answer_id, query="?stream=true&starting_after=3")
        rows = [each for each in client.body.decode().split("\n\n") if each]
        assert '"sequence_number":4' in rows[0]
        assert "response.completed" in rows[-1]
        assert (ended.state, ended.usage is not None and ended.usage.output) == ("settled", 5)
        nothing, _ = await again(app, answer_id, query="?stream=true&starting_after=999")
        assert (nothing.status, nothing.body) == (200, b"")


async def test_a_stream_that_breaks_off_is_held_and_read_on(project, provider: Mock):
    provider.script(Rule(fault="cut", at=5))
    async with home_of(project, config_of(provider.url, budgets=BUDGETS)) as app:
        client, line = await ask(app, request(stream=True), dialect="responses")
        assert b"response.failed" in client.body
        assert (line.state, line.status) == ("held", "background")
        assert len(provider.calls) == 1
        _, ended = await again(app, line.answer_id, query="?stream=true&starting_after=4")
        assert ended.state == "settled"
        assert await standing(app) == (ended.cost_nusd, 0)


async def test_a_client_that_leaves_its_background_stream_may_come_back(project, provider: Mock):
    provider.script(Rule(fault="stall", at=10))
    async with home_of(project, config_of(provider.url)) as app:
        client = Client()
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: ask(app, request(stream=True), dialect="responses", client=client, call="leaves"))
            await until(lambda: len(client.parts) > 0)
            app.models.gateway.leave(client)
        line = app.models.line("leaves")
        assert line is not None
        assert (line.state, line.status) == ("held", "background")
        client, ended = await again(app, line.answer_id, query="?stream=true")
        assert (client.status, ended.state) == (200, "settled")


async def test_a_background_stream_that_ends_is_settled_as_any_other(project, provider: Mock):
    async with home_of(project, config_of(provider.url, budgets=BUDGETS)) as app:
        client, line = await ask(app, request(stream=True), dialect="responses")
        assert b"response.completed" in client.body
        assert (line.state, line.status) == ("settled", "answered")


async def test_a_named_background_call_that_is_asked_again_names_the_same_answer(project, provider: Mock):
    async with home_of(project, config_of(provider.url)) as app:
        first, _ = await ask(app, request(), dialect="responses", call="run:9", is_named=True)
        second, _ = await ask(app, request(), dialect="responses", call="run:9", is_named=True)
        assert first.json["id"] == second.json["id"]
        assert len(provider.calls) == 1
