"""MCP servers that misbehave: each is reported as what it did, and the service beside it is unharmed."""

import sys
from pathlib import Path
from typing import Any

import pytest

import nasty
from kit import opened
from overwinter.config import Agent, Config, Service, Worker
from overwinter.events import Status
from overwinter.testing import OWNER, ManualClock, finish

pytestmark = pytest.mark.anyio


def configured(how: str) -> Config:
    """Return a configuration with a server that misbehaves, and a good one."""
    command = f"{sys.executable} {Path(nasty.__file__)}"
    bad = Service(mcp=f"{command} '{how}'", timeout_s=1.0 if how == "hang" else 20.0)
    return Config(
        agents={"default": Agent(owner=OWNER, tools=("*",))},
        worker=Worker(interpreters=1),
        services={"bad": bad, "good": Service(mcp=f"{command} fine")},
    )


async def ran(project: Path, how: str, *sources: str) -> list[Any]:
    """Return what each program ended with, one after the other in one process."""
    clock = ManualClock()
    async with opened(project, clock=clock, config=configured(how)) as app:
        return [
            await finish(app, await app.start(source), clock, answers={"unknown": "failed nobody knows"})
            for source in sources
        ]


NASTY = {
    # how: the error that a read ends with, or None; nonsense between two messages spoils nothing
    "die mid-answer": "OSError", "stderr": None, "no json": None, "no object": None, "deep": None,
    "other id": None,
}  # fmt: skip


@pytest.mark.parametrize("how", NASTY)
async def test_whatever_a_server_does_its_call_ends_and_the_service_beside_it_goes_on(project, how, capfd):
    act, fine = await ran(project, how, "await bad.act()", "[await bad.fine(), await good.fine()]")
    assert (act.result["kind"] if act.status is Status.FAILED else None) == NASTY[how], act.result
    assert fine.result == ["fine", "fine"], fine.result
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("name", "done"), [("lie", ""), ("write_lie", " (it was carried out)")])
async def test_an_answer_that_is_not_as_its_schema_says_is_an_error_and_neither_repeated_nor_unknown(
    project, name, done
):
    lie, fine = await ran(project, "fine", f"await bad.{name}()", "await bad.fine()")
    assert lie.result["kind"] == "ValueError"
    assert f"the answer of bad.{name} is not as described{done}" in lie.result["message"]
    assert fine.result == "fine"


async def test_a_server_that_hangs_in_a_call_is_started_anew_for_the_next_one(project):
    hang, fine = await ran(project, "hang", "await bad.write()", "[await bad.fine(), await good.fine()]")
    assert "nobody knows" in hang.result["message"]
    assert fine.result == ["fine", "fine"], fine.result


@pytest.mark.claim("G8.changed")
async def test_a_tool_that_changes_while_its_server_runs_is_not_called_as_it_is_now(project):
    first, second, fine = await ran(project, "change", "await bad.act()", "await bad.act()", "await bad.fine()")
    assert first.result == "act"
    assert (second.status, second.result["kind"]) == (Status.FAILED, "PermissionError"), second.result
    assert "accepted" in second.result["message"]
    assert fine.result == "fine"
