"""Model calls are gathered on their way into the audit log, also where they never cease."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from overwinter.adapters.models.file import ModelsFile, open_models_file
from overwinter.app.outbox import Outbox
from overwinter.gateway.budget import Hold, Line
from overwinter.testing import ManualClock

pytestmark = pytest.mark.anyio


class Log:
    """A log during whose every commit a call ends, and one right after it."""

    def __init__(self, file: ModelsFile) -> None:
        self.file, self.groups, self.upto = file, list[int](), 0
        self.outbox: Outbox | None = None

    def model_calls(self) -> int:
        return self.upto

    async def add_model_calls(self, told: Sequence[tuple[int, Line]], owners: Mapping[str, str]) -> None:
        del owners
        self.groups.append(len(told))
        self.upto = told[-1][0]
        number = 10 * len(self.groups)
        await end(self.file, number)
        asyncio.get_running_loop().call_soon(self.one_more, number + 1)

    def one_more(self, number: int) -> None:
        async def ended() -> None:
            await end(self.file, number)
            assert self.outbox is not None
            self.outbox.ring()

        self.task = asyncio.get_running_loop().create_task(ended())


async def end(file: ModelsFile, number: int) -> None:
    line = Line(
        call=f"call-{number}",
        began_us=1,
        agent="a",
        run_id="",
        key="",
        dialect="chat",
        upstream="",
        model="m",
        ended_us=2,
    )
    await file.reserve(Hold(call=line.call, amount_nusd=0, budgets=()), line)
    assert await file.settle(replace(line, state="settled", cost_nusd=0))


async def test_calls_that_end_while_some_are_written_down_are_gathered_before_the_next_commit(tmp_path: Path):
    with open_models_file(tmp_path / "m.db", ManualClock(), key=bytes(32), answers_bytes_max=0) as file:
        for number in range(3):
            await end(file, number)
        log = Log(file)
        log.outbox = outbox = Outbox(file, cast("Any", log), {})
        outbox.ring()
        async with anyio.create_task_group() as group:
            group.start_soon(outbox.run)
            while len(log.groups) < 4:  # noqa: ASYNC110 - the outbox tells nobody
                await anyio.sleep(0.005)
            group.cancel_scope.cancel()
        assert log.groups == [3, 2, 2, 2]
        await log.task
