"""Programs that slept while what they call changed: what still fits goes on, what does not stops before it runs."""

import json
from typing import Any

import pytest

from kit import opened
from overwinter.check import Finding, remaining
from overwinter.config import Agent, Config, Service
from overwinter.events import Status
from overwinter.testing import ManualClock, finish, idle

pytestmark = pytest.mark.anyio
DAY = 86_400


def described(**functions: list[str]) -> dict[str, Any]:
    """A service with these functions, each with its required parameters."""
    return {"openapi": "3.1.0", "paths": {
        f"/{name}": {"get": {"operationId": name, "responses": {}, "parameters": [
            {"name": each, "in": "query", "required": True, "schema": {"type": "string"}} for each in parameters
        ]}} for name, parameters in functions.items()
    }}  # fmt: skip


async def woken(project, source, before, after, *, accepted=True, then=None):
    """Start a program, let it sleep, change the service, and wake it; return the run and the journal's kinds."""
    (project / "api.json").write_text(json.dumps(before))
    config = Config(
        agents={"default": Agent(tools=("*",))},
        services={"api": Service(openapi="api.json", base_url="http://127.0.0.1:9")},
    )
    clock = ManualClock()
    async with opened(project, clock=clock, config=config) as app:
        run_id = await app.start(source)
        await idle(app)
        (project / "api.json").write_text(json.dumps(after))
        await app.refresh("api")
        if accepted:
            app.accept(["api.*"])
        if then is not None:
            await then(app)
        run = await finish(app, run_id, clock)
        return run, [event.kind async for event in app.events(run_id)]


@pytest.mark.claim("P1.rechecked")
@pytest.mark.parametrize("accepted", [True, False])
async def test_a_program_whose_remaining_lines_do_not_fit_stops_and_says_what_changed(project, accepted):
    source = f"import asyncio\nawait asyncio.sleep({DAY})\nprint('never')\nawait api.find(name='x')"
    run, kinds = await woken(project, source, described(find=["name"]), described(find=["title"]), accepted=accepted)
    assert run.status is Status.QUARANTINED
    assert "line 4" in run.result["message"]
    assert "api.find(*, title: str)" in run.result["message"]
    assert "printed" not in kinds


@pytest.mark.parametrize(("source", "after"), [
    ("await asyncio.sleep({})\n'done'\nif str(1) == '2':\n    await api.find(name='x')", described(find=["name"], more=[])),
    ("await asyncio.sleep({})\n'no service named'", described(find=["title"])),
    ("if str(1) == '2':\n    await api.find(name='x')\nawait asyncio.sleep({})\n'that was before'", described(find=["title"])),
])  # fmt: skip
async def test_a_program_goes_on_if_what_is_left_of_it_fits(project, source, after):
    run, _ = await woken(project, "import asyncio\n" + source.format(DAY), described(find=["name"]), after)
    assert run.status is Status.FINISHED, run.result


async def test_a_stopped_program_goes_on_when_the_change_is_taken_back(project):
    source = f"import asyncio\nawait asyncio.sleep({DAY})\nf = api.find\n'fits again'"
    source = source.replace("f = api.find\n", "if str(1) == '2':\n    await api.find(name='x')\n")
    before, after = described(find=["name"]), described(find=["title"])
    (project / "api.json").write_text(json.dumps(before))
    config = Config(agents={"default": Agent(tools=("*",))}, services={"api": Service(openapi="api.json")})
    clock = ManualClock()
    async with opened(project, clock=clock, config=config) as app:
        run_id = await app.start(source)
        await idle(app)
        (project / "api.json").write_text(json.dumps(after))
        await app.refresh("api")
        assert (await finish(app, run_id, clock)).status is Status.QUARANTINED
        (project / "api.json").write_text(json.dumps(before))
        await app.refresh("api")
        await app.release(run_id, by="p")
        run = await finish(app, run_id, clock)
        assert (run.status, run.result) == (Status.FINISHED, "fits again")


def found(*lines: int) -> list[Finding]:
    return [Finding(line=line, column=1, rule="r", message="m") for line in lines]


@pytest.mark.parametrize(("source", "waits", "wrong", "left"), [
    ("a()\nb()\nc()", [2], [1, 2, 3], [2, 3]),
    ("def f():\n    g()\na()\nf()\nb()", [2], [2, 3, 4, 5], [2, 4, 5]),
    ("for x in y:\n    a()\n    b()\nc()", [3], [2, 4], [2, 4]),
    ("a()\nb()", [], [1, 2], [1, 2]),
    ("a()\nb()\nc()", [2, 3], [1, 2, 3], [2, 3]),
])  # fmt: skip
def test_what_is_left_begins_with_the_statement_that_waits(source, waits, wrong, left):
    assert [finding.line for finding in remaining(found(*wrong), source, waits)] == left
