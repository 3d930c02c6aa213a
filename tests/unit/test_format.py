"""Homes of every released format go on under this version. `tests/fixtures/home-N` was written by the format's own version."""

from pathlib import Path
from shutil import copytree

import pytest

from kit import opened
from overwinter.adapters.sqlite.schema import FORMAT, MIGRATIONS
from overwinter.events import Status
from overwinter.store import Page
from overwinter.testing import ManualClock, finish

pytestmark = pytest.mark.anyio
FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_every_format_has_a_fixture_and_every_step_a_migration():
    assert [place.name for place in sorted(FIXTURES.glob("home-*"))] == [f"home-{n}" for n in range(1, FORMAT + 1)]
    assert sorted(MIGRATIONS) == list(range(1, FORMAT))


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
async def test_a_home_of_a_released_format_goes_on(project, number):
    copytree(FIXTURES / f"home-{number}", project / ".overwinter")
    for key in (project / ".overwinter" / "keys").iterdir():
        key.chmod(0o600)  # git keeps no modes
    clock = ManualClock(start_us=1_900_003_600 * 1_000_000)
    async with opened(project, clock=clock) as app:
        asleep, waiting = sorted(
            await app.runs(Page(statuses=[Status.LIVE])), key=lambda run: run.name
        )  # one sleeps a day, one waits for a message
        assert (await finish(app, asleep.run_id, clock)).result == [4, "slept"]
        if number >= 2:
            assert await app.read(f"{waiting.run_id}:0:1", characters_max=None) == b"a file"
        await app.send(waiting.run_id, "hello")
        assert (await finish(app, waiting.run_id, clock)).result == {"kept": [1, 2], "got": "hello"}
        (ended,) = await app.runs(Page(statuses=[Status.FINISHED], name="c-ended"))
        assert ended.result == "done"
