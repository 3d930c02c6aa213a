"""Functions of the user's modules: what never waits, what waits, fails, takes too long or is cancelled."""

import asyncio
import contextlib
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from overwinter.adapters.python_tools import load_python_tools
from overwinter.catalog import Unknown
from overwinter.events import Call, Raised, Returned

pytestmark = pytest.mark.anyio
MODULE = '''
import asyncio
import json

from overwinter import CallError, read, write

log = []


@read
async def at_once() -> int:
    """It never waits."""
    return 1


@read
async def fails_at_once() -> int:
    """It raises before it waits."""
    raise ValueError("no")


@write
async def pays(*, how: str) -> str:
    """It pays, and fails at what comes back."""
    log.append(how)
    if how == "refused":
        raise CallError("no", status=402)
    return {"key": lambda: {}["receipt"], "json": lambda: json.loads("<html>"), "number": lambda: int("4.2")}[how]()


@read
async def waits() -> list[str]:
    """It waits for this and that, and catches what comes of it."""
    found = [await asyncio.sleep(0, "slept")]
    future = asyncio.get_running_loop().create_future()
    future.set_exception(LookupError("nothing"))
    try:
        await future
    except LookupError as error:
        found.append(str(error))
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(3_600)
    except TimeoutError:
        found.append("its own time-out")
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
    return found


@read(timeout_s=0.01)
async def hangs() -> None:
    """It takes too long."""
    await asyncio.sleep(3_600)


@read
async def is_cancelled() -> None:
    """It sees its cancellation."""
    try:
        log.append("began")
        await asyncio.sleep(3_600)
    finally:
        log.append("ended")
'''


@pytest.fixture
async def tools(tmp_path: Path):
    (tmp_path / "steps_of_tools.py").write_text(MODULE, encoding="utf-8")
    async with load_python_tools({"steps": "steps_of_tools"}, directory=tmp_path, threads_max=1) as found:
        yield found
    sys.path.remove(str(tmp_path))
    del sys.modules["steps_of_tools"]


def call(name: str) -> Call:
    return Call(run_id="r", index=0, function=f"steps.{name}", arguments={}, effect="read")


async def test_what_a_function_comes_to_does_not_depend_on_whether_it_waits(tools):
    assert await tools.perform(call("at_once")) == Returned(value=1)
    assert await tools.perform(call("fails_at_once")) == Raised(kind="ValueError", message="no")
    assert await tools.perform(call("waits")) == Returned(value=["slept", "nothing", "its own time-out"])


@pytest.mark.claim("D4.write_parks")
@pytest.mark.parametrize("how", ["key", "json", "number"])
async def test_a_write_that_fails_at_what_it_got_may_have_been_carried_out(tools, how):
    made = Call(run_id="r", index=0, function="steps.pays", arguments={"how": how}, effect="write")
    assert isinstance(await tools.perform(made), Unknown)


async def test_a_write_whose_service_said_no_or_whose_arguments_do_not_fit_was_not_carried_out(tools):
    made = Call(run_id="r", index=0, function="steps.pays", arguments={"how": "refused"}, effect="write")
    assert await tools.perform(made) == Raised(kind="RuntimeError", message="no", status=402)
    (answer,) = [await tools.perform(replace(made, arguments={"how": ["refused"]}))]
    assert isinstance(answer, Raised)
    assert answer.kind == "TypeError"
    assert sys.modules["steps_of_tools"].log == ["refused"]


async def test_a_function_that_takes_too_long_is_ended(tools):
    assert await tools.perform(call("hangs")) == Raised(
        kind="TimeoutError", message="steps.hangs took longer than 0.01 s", is_retryable=True
    )


async def test_a_cancellation_reaches_the_function_and_goes_on(tools):
    log = sys.modules["steps_of_tools"].log
    flight = asyncio.ensure_future(tools.perform(call("is_cancelled")))
    while not log:
        await anyio.lowlevel.checkpoint()
    flight.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await flight
    assert flight.cancelled()
    assert log == ["began", "ended"]
