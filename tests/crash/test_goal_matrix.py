"""The agent loop stopped before and after each store write and each act: the same end, and nothing done or paid for twice."""

from collections import Counter
from dataclasses import replace
from typing import Any

import anyio
import pytest

from kit import crashing, opened
from models_kit import config_of
from overwinter.config import Agent, Worker
from overwinter.events import Status
from overwinter.store import Page
from overwinter.testing import OWNER, CrashPoints, Heard, ManualClock, ScriptedModel, finish, idle

pytestmark = pytest.mark.anyio
POINTS_MAX = 80
NOWHERE = "http://127.0.0.1:9"
FIRST = "```python\nx = await shop.double(number=2)\nawait shop.charge(cents=x)\n```"
SECOND = f"```python\ny = await tools.ask({OWNER!r}, 'Go?')\nawait shop.charge(cents=7)\n```"
ANSWERS = {"Go?": "go"}


def new_home(project, ledger, crash_at):
    ledger.write_text("")
    home = project / f"home-{crash_at}"
    home.mkdir()
    module = (project / "module").read_text()
    (home / "module").write_text(module)
    (home / f"{module}.py").symlink_to(project / f"{module}.py")
    return home


def says(heard: Heard) -> str:
    """Say what fits the conversation, whoever asks: a model has no memory of its own."""
    first = heard.text.split("\n")[0]
    if first == "Your goal: charge twice":
        return "```python\nshop.charge(cent=1)\n```"
    if first.endswith('"charged 4"'):
        return SECOND
    return "Both are charged." if first.endswith('"charged 7"') else FIRST


def config() -> Any:
    agents = {"default": Agent(owner=OWNER, models=("*",), tools=("*",))}
    return replace(config_of(NOWHERE), agents=agents, worker=Worker(interpreters=2))


async def run_to_crash(project, clock, model, points):
    async with (
        opened(project, clock=clock, config=config(), models=model, wrap=crashing(points), drain_s=0) as app,
        anyio.create_task_group() as group,
    ):

        async def act() -> None:
            await reach(app, clock)
            group.cancel_scope.cancel()

        group.start_soon(act)
        await points.crashed.wait()
        group.cancel_scope.cancel()


async def reach(app, clock):
    """Start the goal, and bring it and all the runs below it to their ends."""
    run_id = await app.start(goal="charge twice", dedup="matrix")
    while (await app.run(run_id)).status is Status.LIVE:
        await idle(app)
        for question in await app.questions():
            await app.answer(question.call.key, ANSWERS[question.call.arguments["question"]], by=OWNER)
        clock.advance(1)
    return await finish(app, run_id, clock)


@pytest.mark.claim("L1.killed")
@pytest.mark.parametrize("part", [0, 1, 2, 3])
async def test_stopped_at_any_point_a_goal_is_reached_and_each_reply_is_paid_once(project, ledger, part):
    for crash_at in range(1 + part, POINTS_MAX, 4):
        clock, points, model = ManualClock(), CrashPoints(crash_at), ScriptedModel(says)
        home = new_home(project, ledger, crash_at)
        await run_to_crash(home, clock, model, points)
        if not points.crashed.is_set():
            assert crash_at > 20, "a goal passes more points than that"
            return
        async with opened(home, clock=clock, config=config(), models=model) as app:
            run = await reach(app, clock)
            runs = await app.runs(Page())
            lines = app.models.lines(limit=100)
        where = f"stopped at {points.passed[-1]} (point {crash_at})"
        assert run.result["answer"] == "Both are charged.", where
        assert run.result["steps"] == 4, where
        assert len(runs) == 3, where
        assert [line.status for line in lines if line.cost_nusd] == ["answered"] * 4, where
        assert len(model.heard) == 4, where
        effects = Counter(line for line in ledger.read_text().splitlines() if line.startswith("charge"))
        assert list(effects.values()) == [1, 1], where
    pytest.fail("the goal passes more points than the matrix has")
