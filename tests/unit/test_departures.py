"""Clients that leave the models' door before their answer is whole."""

import json
from functools import partial
from typing import Any

import anyio
import pytest

from models_kit import chat, config_of, home_of, until
from overwinter.app import App
from overwinter.app.departures import Departures, Staying
from overwinter.declared import DeclaredBudget
from overwinter.faces.models import ModelsDoor
from provider import Mock, Rule

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"


async def leaving(app: App, gone: anyio.Event, on_disconnect: str, **fields: Any) -> None:
    """Ask, for a stream unless told otherwise, as a client that leaves when it is told to."""
    bodies = [json.dumps({**chat(stream=True), **fields}).encode()]

    async def receive() -> dict[str, Any]:
        if bodies:
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        del message

    headers = [(b"x-overwinter-on-disconnect", on_disconnect.encode())]
    scope = {"type": "http", "method": "POST", "path": PATH, "query_string": b"", "headers": headers}
    await ModelsDoor(lambda *_: None, app, is_remote=False)(scope, receive, send)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("is_early", [True, False], ids=["at-once", "in-the-middle"])
async def test_a_call_whose_client_left_is_stopped_if_it_asked_for_that(project, provider: Mock, *, is_early: bool):
    provider.script(Rule(fault="stall", at=9))
    async with home_of(project, config_of(provider.url)) as app:
        gone = anyio.Event()
        if is_early:
            gone.set()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(leaving, app, gone, "abort")
                await until(lambda: bool(provider.calls) and provider.calls[-1].output_tokens > 3)
                gone.set()
        assert (app.models.lines(limit=1)[0].status, app.models.gateway.under_way) == ("gone", 0)


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
async def test_a_call_that_is_cut_before_anything_came_costs_what_its_provider_may_bill(
    project, provider: Mock, *, is_stream: bool
):
    provider.script(Rule(fault="slow_first"))
    budgets = {"ever": DeclaredBudget(of="tenant", usd=1_000, window="ever")}
    async with home_of(project, config_of(provider.url, budgets=budgets)) as app:
        gone = anyio.Event()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(leaving, app, gone, "abort", stream=is_stream, max_completion_tokens=100))
                await until(lambda: bool(provider.calls))
                gone.set()
        (line,) = app.models.lines(limit=1)
        assert (line.status, line.state) == ("gone", "settled")
        assert line.usage is not None
        if is_stream:  # it stops with its connection: the request is read, and nothing written
            assert line.usage.source == "estimated"
            assert 0 < (line.cost_nusd or 0) < line.held_nusd
        else:  # it may be made to its end
            assert line.usage.source == "unknown"
            assert line.cost_nusd == line.held_nusd > 100 * 10_000
        (spent,) = await app.models.budgets()
        assert (spent.spent_nusd, spent.held_nusd) == (line.cost_nusd, 0)


async def test_a_call_whose_client_left_goes_on_to_its_end_if_nobody_asked_otherwise(project, provider: Mock):
    async with home_of(project, config_of(provider.url)) as app:
        gone = anyio.Event()
        gone.set()
        await leaving(app, gone, "drain")
        assert app.models.lines(limit=1)[0].status == "answered"


@pytest.mark.parametrize("is_over_first", [True, False])
async def test_a_call_that_is_over_is_never_stopped(*, is_over_first: bool):
    stopped = list[str]()
    left = anyio.Event()
    client = Staying(left.wait, partial(stopped.append, "it"), 60.0)
    async with anyio.create_task_group() as group:
        group.start_soon(client.listen)
        if is_over_first:
            client.over()
        left.set()
        await until(lambda: is_over_first or client.has_left)
        client.over()
    assert not stopped


async def test_who_has_an_answer_soon_is_never_listened_for():
    departures, listened = Departures(), list[str]()

    async def left(name: str) -> None:
        listened.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(departures.run)
        soon, late = (Staying(partial(left, each), lambda: None, 0.0) for each in ("soon", "late"))
        departures.expect(soon)
        departures.expect(late)
        soon.over()
        await until(lambda: bool(listened))
        group.cancel_scope.cancel()
    assert listened == ["late"]
