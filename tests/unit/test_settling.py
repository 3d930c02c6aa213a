"""Calls that begin or end in the same moment share a transaction, and nothing else."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from models_kit import Client, ask, chat, config_of, home_of, until
from overwinter.adapters.models.file import ModelsFile, open_models_file
from overwinter.app import App
from overwinter.gateway.answers import Kept
from overwinter.gateway.budget import Budget, Hold, Line, Reserved, Scope
from overwinter.gateway.usage import Usage
from overwinter.testing import ManualClock
from provider import Mock, Rule

pytestmark = pytest.mark.anyio

BUDGET = Budget(scope=Scope(kind="agent", name="a"), window="ever", limit_nusd=1_000)
KEPT = Kept(body=b"x", is_stream=False, usage=Usage(), cost_nusd=3, provider="p", model="m", request=b"r", made_us=1)


async def held(file: ModelsFile, call: str) -> Line:
    """Hold 10 for a call, and return its line."""
    line = Line(
        call=call, began_us=1, agent="a", run_id="", key="", dialect="chat", upstream="", model="m", held_nusd=10
    )
    await file.reserve(Hold(call=call, amount_nusd=10, budgets=(BUDGET,)), line)
    return line


async def settled(file: ModelsFile, lines: Sequence[Line]) -> dict[int, bool | str]:
    """Settle lines at once, and return what came of each: whether it was the first, or the error's name."""
    came = dict[int, bool | str]()

    async def settle(number: int, line: Line) -> None:
        try:
            came[number] = await file.settle(line)
        except OverflowError as error:
            came[number] = type(error).__name__

    async with anyio.create_task_group() as group:
        for number, line in enumerate(lines):
            group.start_soon(settle, number, line)
    return came


def ended(line: Line, cost_nusd: int) -> Line:
    """Return a line as its call ended."""
    return replace(line, state="settled", status="answered", cost_nusd=cost_nusd, ended_us=2)


async def test_calls_that_end_together_are_each_settled_once(tmp_path: Path):
    with open_models_file(tmp_path / "m.db", ManualClock(), key=bytes(32), answers_bytes_max=0) as file:
        lines = [await held(file, f"call-{number}") for number in range(20)]
        came = await settled(file, [ended(each, 3) for each in (*lines, *lines)])
        assert [came[number] for number in range(40)] == [True] * 20 + [False] * 20
        (spent,) = await file.spent([BUDGET])
        assert (spent.spent_nusd, spent.held_nusd) == (60, 0)
        assert len(file.told(0, 100)) == 20


async def test_a_call_that_cannot_be_booked_keeps_no_other_hold(tmp_path: Path):
    with open_models_file(tmp_path / "m.db", ManualClock(), key=bytes(32), answers_bytes_max=0) as file:
        lines = [await held(file, f"call-{number}") for number in range(3)]
        came = await settled(file, [ended(lines[0], 3), ended(lines[1], 1 << 70), ended(lines[2], 4)])
        assert came == {0: True, 1: "OverflowError", 2: True}
        (spent,) = await file.spent([BUDGET])
        assert (spent.spent_nusd, spent.held_nusd) == (7, 10)
        assert await settled(file, [ended(lines[1], 5)]) == {0: True}


def unlimited(call: str, **more: Any) -> tuple[Hold, Line]:
    """Return what a call is begun with that no budget counts."""
    line = Line(call=call, began_us=1, agent="a", run_id="", key="", dialect="chat", upstream="", model="m", **more)
    return Hold(call=call, amount_nusd=0, budgets=()), line


async def test_calls_that_begin_together_are_each_written_down_once_and_in_one_transaction(tmp_path: Path):
    path, came = tmp_path / "m.db", dict[int, Reserved]()
    with (
        open_models_file(path, ManualClock(), key=bytes(32), answers_bytes_max=0) as file,
        closing(apsw.Connection(str(path))) as other,
    ):
        seen = list[int]()

        async def begin(number: int) -> None:
            came[number] = (await file.reserve(*unlimited(f"call-{number % 10}")))[0]
            seen.extend(count for (count,) in other.execute("select count(*) from line where state = 'held'"))

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(begin, number)
        assert [came[number] for number in range(20)] == [Reserved.HELD] * 10 + [Reserved.REPEATED] * 10
        assert seen == [10] * 20


async def test_a_call_that_cannot_be_written_down_keeps_no_other_from_it(tmp_path: Path):
    with open_models_file(tmp_path / "m.db", ManualClock(), key=bytes(32), answers_bytes_max=0) as file:
        came = list[Reserved | str]()

        async def begin(*given: Any) -> None:
            try:
                came.append((await file.reserve(*given))[0])
            except OverflowError as error:
                came.append(type(error).__name__)

        before = await held(file, "before")
        async with anyio.create_task_group() as group:
            for given in (unlimited("a"), unlimited("b", saved_nusd=1 << 70), unlimited("c")):
                group.start_soon(begin, *given)
            group.start_soon(file.settle, ended(before, 3))
        assert came == [Reserved.HELD, "OverflowError", Reserved.HELD]
        assert [each.state for each in map(file.line, ("a", "c", "before")) if each] == ["held", "held", "settled"]
        assert file.line("b") is None


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_call_that_is_cancelled_while_it_begins_holds_nothing(tmp_path: Path, *, is_written: bool):
    with open_models_file(tmp_path / "m.db", ManualClock(), key=bytes(32), answers_bytes_max=0) as file:
        loop = asyncio.get_running_loop()
        task = loop.create_task(file.reserve(*unlimited("call")))
        loop.call_soon(lambda: (file.flush() if is_written else None, task.cancel()))
        with pytest.raises(asyncio.CancelledError):
            await task
        file.flush()
        line = file.line("call")
        assert (line.state, line.status, line.cost_nusd) == ("settled", "gone", 0) if line else not is_written
        assert len(file.told(0, 10)) == is_written


async def test_an_answer_that_cannot_be_kept_keeps_no_hold_and_no_other_answer(tmp_path: Path):
    with open_models_file(tmp_path / "m.db", ManualClock(), key=bytes(32), answers_bytes_max=10_000) as file:
        line = await held(file, "call")
        await file.keep(b"a", KEPT, until_us=1 << 60)
        await file.keep(b"b", KEPT, until_us=1 << 70)
        assert await file.settle(ended(line, 3))
        assert [await file.find(each) for each in (b"a", b"b")] == [KEPT, None]


async def test_an_answer_and_the_end_of_its_call_are_on_disk_together(tmp_path: Path):
    path = tmp_path / "m.db"
    with open_models_file(path, ManualClock(), key=bytes(32), answers_bytes_max=10_000) as file:
        line = await held(file, "call")
        seen: list[tuple[int, int]] = []
        with closing(apsw.Connection(str(path))) as other:

            def look() -> None:
                sql = "select (select count(*) from answer), (select count(*) from line where state = 'settled')"
                seen.extend(other.execute(sql))

            asyncio.get_running_loop().call_soon(look)
            await file.keep(b"a", KEPT, until_us=1 << 60)
            await file.settle(ended(line, 3))
            look()
        assert seen == [(0, 0), (1, 1)]


@dataclass(slots=True)
class Waiting(Client):
    """A client that notes how many calls are booked when it hears the end of its own."""

    app: App | None = None
    booked: list[int] = field(default_factory=list[int])

    async def end(self, last: bytes = b"") -> None:
        assert self.app is not None
        self.booked.append(len(self.app.models.lines(wanted={"state": "settled"})))


async def test_clients_of_a_revocation_hear_the_end_before_the_first_call_is_booked(project, provider: Mock):
    provider.script(Rule(fault="stall", at=9, times=3))
    async with home_of(project, config_of(provider.url)) as app:
        clients = [Waiting(app=app) for _ in range(3)]
        async with anyio.create_task_group() as group:
            for each in clients:
                group.start_soon(lambda client: ask(app, chat(stream=True), client=client), each)
            await until(lambda: all(each.parts for each in clients))
            await app.governance.revoke("default", by="owner@example.com")
        assert [each.booked for each in clients] == [[0]] * 3
        assert [each.status for each in app.models.lines()] == ["revoked"] * 3
