"""The agent loop: a model works at a goal, and what can go wrong with either."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from kit import opened
from models_kit import MODEL, NOWHERE, config_of, home, says
from overwinter.app import App
from overwinter.declared import DeclaredBudget, DeclaredModel
from overwinter.errors import NotFound, UsageError
from overwinter.events import Status
from overwinter.faces import wire
from overwinter.store import Page
from overwinter.testing import Heard, ManualClock, ScriptedModel, finish, idle
from provider import Mock, Rule

pytestmark = pytest.mark.anyio


async def reached(app: App, goal: str = "Double 21", **limits: Any) -> Any:
    run = await finish(app, await app.start(goal=goal, **limits))
    assert run.status is Status.FINISHED, run.result
    return run.result


async def children(app: App, run_id: str) -> Sequence[Any]:
    return [each for each in await app.runs(Page(limit=1_000)) if each.parent == run_id]


class Silent:
    """A way to a provider that takes the request and says nothing."""

    def __init__(self) -> None:
        self.is_asked, self.is_left = anyio.Event(), anyio.Event()

    @asynccontextmanager
    async def send(self, *_: object) -> AsyncGenerator[Any]:
        self.is_asked.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.is_left.set()
        yield


@pytest.mark.claim("L1.loop")
async def test_a_model_writes_programs_until_it_has_an_answer(project):
    model = ScriptedModel([says("print('hm')\nawait shop.double(number=21)"), "It is 42."])
    async with home(project, model) as app:
        run_id = await app.start(goal="Double 21")
        run = await finish(app, run_id)
        (child,) = await children(app, run_id)
    assert run.result["end"] == "done"
    assert run.result["answer"] == "It is 42."
    assert run.result["steps"] == 2
    assert run.result["cost_usd"] > 0
    assert child.result == 42
    assert model.heard[0].text == "Your goal: Double 21"
    assert model.heard[1].text == f"Printed:\nhm\nValue of {child.run_id}: 42"


@pytest.mark.claim("L1.check")
async def test_a_program_that_the_check_refuses_costs_one_turn_and_does_nothing(project, ledger):
    model = ScriptedModel([says("await shop.pay(cent=1)"), says("await shop.pay(cents=1)"), "paid"])
    async with home(project, model) as app:
        run_id = await app.start(goal="pay")
        run = await finish(app, run_id)
        assert len(await children(app, run_id)) == 1
    assert run.result["end"] == "done"
    assert ledger.read_text().splitlines() == ["pay 1"]
    assert "nothing of it ran" in model.heard[1].text
    assert "cents" in model.heard[1].text


async def test_a_program_is_checked_as_soon_as_it_was_said_and_not_again(project):
    programs = ["x = await shop.double(number=4)", "y = x + missing", "y = x + 1", "1 / 0", "x + y"]
    model = ScriptedModel([*map(says, programs), "done"])
    async with home(project, model) as app:
        await app.check("1")
        checker: Any = app._parts.checker
        before = checker._session._checks
        await reached(app)
        assert checker._session._checks == before + len(programs) + 1, "each, and the loop itself"
    assert model.heard[-1].text.endswith(": 17")


async def test_what_was_said_stands_byte_for_byte_before_what_is_said_next(project):
    model = ScriptedModel([says("1"), says("2"), says("3"), "done"])
    async with home(project, model) as app:
        await reached(app)
    for before, after in zip(model.heard, model.heard[1:], strict=False):
        one, other = ([_plain(each) for each in heard.body["messages"]] for heard in (before, after))
        assert other[: len(one)] == one
        assert before.body["system"] == after.body["system"]


def _plain(message: dict[str, Any]) -> tuple[str, str]:
    content = message["content"]
    return message["role"], content if isinstance(content, str) else content[0]["text"]


@pytest.mark.claim("P2.stay")
async def test_a_program_finds_what_the_one_before_left(project):
    model = ScriptedModel([says("x = await shop.double(number=4)"), says("1 / 0"), says("x + 1"), "done"])
    async with home(project, model) as app:
        await reached(app)
    assert model.heard[3].text.endswith(": 9")


async def test_a_failed_program_is_told_with_what_it_had_done(project, ledger):
    del ledger
    model = ScriptedModel([says("await shop.pay(cents=3)\n1 / 0"), "sorry"])
    async with home(project, model) as app:
        await reached(app)
    assert "ZeroDivisionError" in model.heard[1].text
    assert "(line 2)" in model.heard[1].text
    assert "shop.pay (line 1)" in model.heard[1].text


@pytest.mark.claim("L2.limits")
async def test_a_model_that_never_ends_is_ended_by_its_steps(project):
    async with home(project, lambda heard: says(str(heard.number))) as app:
        result = await reached(app, steps=5)
    assert (result["end"], result["steps"], result["answer"]) == ("steps", 5, None)


@pytest.mark.claim("L2.limits")
async def test_a_model_that_says_nothing_is_asked_once_more(project):
    model = ScriptedModel(["", ""])
    async with home(project, model) as app:
        result = await reached(app)
    assert result["end"] == "silent"
    assert model.heard[1].text.startswith("You said nothing.")


@pytest.mark.claim("L2.limits")
async def test_a_model_whose_programs_are_all_refused_is_ended(project):
    async with home(project, lambda _: says("await shop.nothing()")) as app:
        result = await reached(app)
    assert (result["end"], result["steps"]) == ("refused", 8)


@pytest.mark.claim("L2.limits")
async def test_a_model_that_is_down_ends_it_as_unavailable_after_some_minutes(project):
    clock = ManualClock()
    began_us = clock.now_us()
    async with opened(project, config=config_of(NOWHERE), clock=clock) as app:
        run = await finish(app, await app.start(goal="x"), clock)
    assert (run.result["end"], run.result["steps"], run.result["answer"]) == ("unavailable", 1, None)
    assert "cannot be reached" in run.result["why"]
    assert clock.now_us() - began_us > 91_000_000  # half of nine pauses, doubled from 0.5 s to 60


@pytest.mark.claim("L2.limits")
@pytest.mark.parametrize(
    ("setting", "goal", "why"),
    [
        ({"auth": "env:NO_SUCH_KEY_OF_A_PROVIDER"}, {}, "NO_SUCH_KEY_OF_A_PROVIDER"),
        ({"prices": "nobody"}, {"usd": 5.0}, "has no price"),
    ],
)
async def test_what_only_a_person_can_mend_ends_a_goal_at_once(project, setting, goal, why):
    config, clock = config_of(NOWHERE), ManualClock()
    config = replace(config, providers={"mock": replace(config.providers["mock"], **setting)})
    began_us = clock.now_us()
    async with opened(project, config=config, clock=clock) as app:
        run = await finish(app, await app.start(goal="x", **goal), clock)
    assert (run.result["end"], run.result["steps"], clock.now_us() - began_us) == ("refused", 1, 0)
    assert why in run.result["why"]


@pytest.mark.claim("L2.limits")
async def test_a_provider_that_does_not_take_the_homes_key_ends_a_goal_at_once(project, provider: Mock):
    provider.script(Rule(fault="status", status=401))
    async with opened(project, config=config_of(provider.url)) as app:
        result = await reached(app)
    assert result["end"] == "refused"
    assert "does not take the home's credential (401): see providers.mock.auth" in result["why"]


@pytest.mark.claim("L2.limits")
async def test_a_model_that_is_down_for_a_moment_is_asked_again_whatever_its_fallback_lacks(project, provider: Mock):
    provider.script(Rule(fault="status", status=503, times=3), Rule(fault="status", status=403), Rule())
    config, clock = config_of(provider.url), ManualClock()
    bare = replace(config.providers["mock"], auth="env:NO_SUCH_KEY_OF_A_PROVIDER")
    models = {"cheap": replace(config.models["cheap"], fallbacks=("other",)), "other": DeclaredModel(provider="bare")}
    config = replace(config, providers={**config.providers, "bare": bare}, models=models)
    async with opened(project, config=config, clock=clock) as app:
        run = await finish(app, await app.start(goal="x"), clock)
    assert run.result["end"] == "done"


@pytest.mark.claim("L2.limits")
async def test_a_model_that_is_down_does_not_hold_a_goal_beyond_its_time(project):
    clock = ManualClock()
    began_us = clock.now_us()
    async with opened(project, config=config_of(NOWHERE), clock=clock) as app:
        run = await finish(app, await app.start(goal="x", seconds=30), clock)
    assert (run.result["end"], run.result["steps"]) == ("time", 1)
    assert 30_000_000 <= clock.now_us() - began_us < 60_000_000


@pytest.mark.claim("L2.limits")
async def test_a_model_that_is_silent_is_let_go_when_the_time_of_a_goal_has_passed(project):
    clock, silent = ManualClock(), Silent()
    async with opened(project, config=config_of(NOWHERE), clock=clock, models=silent) as app:
        run_id = await app.start(goal="x", seconds=30)
        await silent.is_asked.wait()
        clock.advance(31)
        run = await app.result(run_id, 20)
        await silent.is_left.wait()
        await idle(app)
        assert (run.result["end"], run.result["steps"]) == ("time", 1)
        assert app.pulse().in_flight == 0
        (line,) = app.models.lines(limit=10)
        assert line.ended_us


@pytest.mark.claim("L1.loop")
@pytest.mark.parametrize("is_under_way", [False, True], ids=["before its first program", "asleep in a program"])
async def test_what_a_goal_under_way_goes_on_from_is_not_collected(project, *, is_under_way: bool):
    clock = ManualClock()
    first = [says("secret = 'blue'\n1"), "the word is blue", "again"]
    model = ScriptedModel([*first, says("await tools.receive()\nsecret"), "three"])

    def at_home(**options: Any) -> Any:
        return opened(project, config=config_of(NOWHERE), models=model, clock=clock, **options)

    async with at_home() as app:
        one = await finish(app, await app.start(goal="REMEMBER-ME"), clock)
        two = await finish(app, await app.start(goal="two", after=one.run_id), clock)
    async with at_home(is_worker=is_under_way) as app:
        goal = await app.start(goal="three", after=two.run_id)
        if is_under_way:
            await idle(app)
        clock.advance(10)
        assert (await app.collect(older_than_s=1)).runs == 0
    async with at_home() as app:
        await idle(app)
        (child,) = await children(app, goal)
        await app.send(child.run_id, 4)
        run = await finish(app, goal, clock)
        assert (run.result["end"], run.result["answer"]) == ("done", "three")
        assert "REMEMBER-ME" in json.dumps(model.heard[-1].body["messages"])
        assert "blue" in model.heard[-1].text
        clock.advance(10)
        assert (await app.collect(older_than_s=1)).runs > 3


@pytest.mark.claim("L1.loop")
async def test_a_goal_after_one_whose_variables_are_gone_is_refused_before_it_is_paid_for(project):
    clock = ManualClock()

    def say(heard: Heard) -> str:
        clock.advance(100)
        return [says("x = 1\nx"), "done", "done again", "too far"][heard.number]

    async with opened(project, config=config_of(NOWHERE), models=ScriptedModel(say), clock=clock) as app:
        one = await finish(app, await app.start(goal="one"), clock)
        two = await finish(app, await app.start(goal="two", after=one.run_id), clock)
        assert two.result["last"] == one.result["last"]
        older_s = (clock.now_us() - two.changed_us + 1) / 1e6
        assert (await app.collect(older_than_s=older_s)).runs == 2
        with pytest.raises(NotFound):
            await app.start(goal="three", after=two.run_id)


@pytest.mark.claim("L2.money")
async def test_what_a_goal_may_cost_is_never_passed(project):
    async with home(project, lambda _: says("await tools.think('more')")) as app:
        run_id = await app.start(goal="spend", usd=0.1)
        run = await finish(app, run_id)
        runs = {run_id, *(each.run_id for each in await children(app, run_id))}
        spent = sum(line.cost_nusd or 0 for line in app.models.lines(limit=1_000) if line.run_id in runs)
    assert run.result["end"] == "money"
    assert 0 < spent <= 100_000_000


@pytest.mark.claim("L2.money")
async def test_a_budget_of_the_agent_ends_it_as_well(project):
    budgets = {"small": DeclaredBudget(of="agent:default", usd=0.09)}
    async with home(project, lambda _: says("1"), budgets=budgets) as app:
        result = await reached(app)
    assert result["end"] == "money"
    assert "budget" in result["why"]


async def test_prose_is_an_answer(project):
    async with home(project, ["Twice 21 is 42."]) as app:
        assert (await reached(app))["answer"] == "Twice 21 is 42."


@pytest.mark.claim("L1.family")
@pytest.mark.claim("L3.steered")
async def test_a_message_is_heard_before_the_next_step(project):
    model = ScriptedModel([says("await tools.ask('p@x.example', 'which?')"), "ok"])
    async with home(project, model) as app:
        run_id = await app.start(goal="ask")
        await idle(app)
        (question,) = await app.questions()
        await app.send(run_id, "Be quick.")
        await app.answer(question.call.key, "that", by="p@x.example")
        await finish(app, run_id)
    assert model.heard[1].text.endswith(': "that"\nA person says: Be quick.')


async def test_a_later_goal_goes_on_with_what_was_said(project):
    model = ScriptedModel(["first answer", "second answer"])
    async with home(project, model) as app:
        first = await app.start(goal="one")
        await finish(app, first)
        result = await reached(app, "two", after=first)
    assert result["answer"] == "second answer"
    said = [_plain(each) for each in model.heard[1].body["messages"]]
    assert said == [("user", "Your goal: one"), ("assistant", "first answer"), ("user", "Your next goal: two")]


async def test_cancelling_a_goal_ends_the_program_that_it_waits_for(project):
    async with home(project, [says("import asyncio\nawait asyncio.sleep(86400)")]) as app:
        run_id = await app.start(goal="wait")
        await idle(app)
        await app.cancel(run_id, by="me")
        (child,) = await children(app, run_id)
    assert child.status is Status.CANCELLED


async def test_a_goal_that_waits_for_its_program_can_be_shown(project):
    async with home(project, [says("import asyncio\nawait asyncio.sleep(9)"), "never said"]) as app:
        run_id = await app.start(goal="wait")
        await idle(app)
        (waiting,) = await app.calls(run_id)
        shown = wire.call(waiting)
    assert (shown["function"], shown["not_before"]) == ("tools.attempt", None)


async def test_revoking_a_run_with_a_goal_stops_what_it_began(project):
    async with home(project, [says("import asyncio\nawait asyncio.sleep(86400)")]) as app:
        run_id = await app.start(goal="wait")
        await idle(app)
        done = await app.governance.revoke_run(run_id, by="lead")
        (child,) = await children(app, run_id)
    assert done.runs == 2
    assert child.status is Status.CANCELLED


async def test_inputs_that_look_like_a_goal_open_no_purse_and_cost_nothing(project):
    inputs: dict[str, Any] = {"goal": "x", "steps": 1, "usd": "5"}
    async with home(project, ["yes"]) as app:
        run = await finish(app, await app.start("await tools.think('?')", inputs=inputs))
    assert run.result == "yes"


@pytest.mark.parametrize(
    "limits",
    [
        {"steps": 0},
        {"steps": True},
        {"usd": 0.0},
        {"seconds": -1.0},
        {"usd": float("inf")},
        {"usd": 1e12},
        {"seconds": 1e300},
    ],
)
async def test_a_limit_that_is_none_is_refused(project, limits):
    async with home(project, []) as app:
        with pytest.raises(UsageError):
            await app.start(goal="x", **limits)


async def test_a_model_that_is_not_declared_is_refused_before_anything_begins(project):
    config = replace(config_of(NOWHERE), models={"cheap": DeclaredModel(provider="mock", model=MODEL)})
    async with opened(project, config=config, models=ScriptedModel([])) as app:
        with pytest.raises(NotFound, match="cheap"):
            await app.start(goal="x", model="chep")
        with pytest.raises(UsageError):
            await app.start(goal=" ")
        assert not await app.runs(Page())


# --- Runs that programs begin ----------------------------------------------------------------------------------------


@pytest.mark.claim("L1.family")
async def test_a_program_gets_the_result_of_a_run_that_it_begins(project):
    source = 'await tools.spawn("await shop.double(number=n)", inputs={"n": 4})'
    async with opened(project) as app:
        run = await finish(app, await app.start(source))
        (child,) = await children(app, run.run_id)
        kinds = [event.kind async for event in app.events(run.run_id)]
    assert (run.result, child.result, child.agent) == (8, 8, run.agent)
    assert kinds == ["created", "turn", "called", "began", "answered", "turn", "finished"]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("await shop.nothing()", "nothing of it ran"),
        ("import asyncio\nawait asyncio.sleep(86400)", "TimeoutError"),
    ],
)
async def test_what_goes_wrong_with_a_child_is_raised_where_it_was_begun(project, program, why):
    source = f"await tools.spawn({program!r}, timeout={0.05 if 'sleep' in program else 60})"
    async with opened(project) as app:
        run = await finish(app, await app.start(source))
        found = await children(app, run.run_id)
    assert run.status is Status.FAILED
    assert why in f"{run.result['kind']}: {run.result['message']}"
    assert all(each.status in (Status.FAILED, Status.CANCELLED) for each in found)


@pytest.mark.claim("L1.family")
async def test_no_child_outlives_its_parent(project):
    sleeps = "import asyncio\nawait asyncio.sleep(86400)"
    source = f"import asyncio\nawait asyncio.gather(tools.spawn({sleeps!r}), tools.receive(timeout=0.2))"
    async with opened(project) as app:
        run = await finish(app, await app.start(source))
        (child,) = await children(app, run.run_id)
    assert run.status is Status.FAILED
    assert child.status is Status.CANCELLED
    assert child.result["by"] == f"run {run.run_id}"


async def test_runs_that_begin_themselves_come_to_an_end(project):
    source = "source = tools_source\nawait tools.spawn(source, inputs={'tools_source': source})"
    async with opened(project) as app:
        run = await finish(app, await app.start(source, inputs={"tools_source": source}))
        assert len(await app.runs(Page())) == 8
    assert "generations" in run.result["message"]


async def test_what_agents_are_told_alike_is_held_once_for_all_that_wait(project, monkeypatch):
    asked: list[Any] = []
    async with home(project, lambda heard: "done") as app:
        answer = app.models.gateway.answer

        async def remembered(request: Any, *rest: Any, **more: Any) -> Any:
            asked.append(request)
            return await answer(request, *rest, **more)

        monkeypatch.setattr(app.models.gateway, "answer", remembered)
        await reached(app, goal="one")
        await reached(app, goal="another")
    first, second = (request.top["system"] for request in asked)
    assert first is second


async def test_what_a_program_asks_a_model_counts_to_its_goal_and_older_calls_of_the_home_are_not_looked_at(
    project, monkeypatch
):
    looked_at: list[Any] = []
    model = ScriptedModel([says("await tools.think('how many?')"), "three", "It is three."])
    async with home(project, model) as app:
        lines = app.models.file.lines

        def remembered(**wanted: Any) -> Any:
            looked_at.append(wanted)
            return lines(**wanted)

        monkeypatch.setattr(app.models.file, "lines", remembered)
        result = await reached(app)
        spent = [line.cost_nusd or 0 for line in lines(before_us=None, limit=10, wanted={})]
        (child,) = [each for each in await app.runs(Page(limit=10)) if each.parent is not None]
    assert len(spent) == 3
    assert round(result["cost_usd"] * 1_000_000_000) == sum(spent)
    assert [each["since_us"] for each in looked_at] == [child.created_us]
