"""Real kills in the middle of model calls: the audit log has each call that ended, once."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from models_kit import config_of, home_of
from overwinter.app.auditing import Wanted
from provider import Mock

pytestmark = pytest.mark.anyio
KILLS = 4
CHILD = """
import os, sys
from pathlib import Path

import anyio
import anyio.lowlevel

from models_kit import ask, chat, config_of, home_of

async def main():
    async with home_of(Path(sys.argv[1]), config_of(sys.argv[2])) as app, anyio.create_task_group() as group:
        async def some(lane):
            number = 0
            while True:
                number += 1
                await ask(app, chat(), agent="none" if number % 5 == 0 else "default", call=f"{os.getpid()}:{lane}:{number}")
        for lane in range(8):
            group.start_soon(some, lane)
        print("begun", flush=True)

anyio.run(main)
"""


@pytest.mark.claim("G3.model_calls")
async def test_killed_at_any_moment_the_log_has_each_ended_call_once(project, provider: Mock):
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent / "src"), str(tests)])}
    chance = random.Random(7)
    for _ in range(KILLS):
        command = [sys.executable, "-c", CHILD, str(project), provider.url]
        async with await anyio.open_process(command, env=environment, stderr=subprocess.DEVNULL) as child:
            assert child.stdout is not None
            await child.stdout.receive()
            already = len(provider.calls)
            with anyio.fail_after(30):
                while len(provider.calls) < already + chance.randint(40, 200):
                    await anyio.lowlevel.checkpoint()
            child.kill()
    async with home_of(project, config_of(provider.url)) as app:
        ended = Counter(each.call for each in app.models.lines(limit=1_000))
        told = Counter[str]()
        begin: int | None = 0
        while begin is not None:
            found = await app.auditing.entries(Wanted(kind="model.call"), is_oldest_first=True, begin=begin, limit=500)
            for seq, _ in found.entries:
                told[str((await app.auditing.entry(seq))[1]["result"].value["call"])] += 1
            begin = found.following
        assert len(ended) > KILLS * 40
        assert set(told.values()) == {1}
        assert set(told) >= set(ended)
        assert app.models.lines(wanted={"state": "held"}) == []
