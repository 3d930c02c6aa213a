"""Random programs under random faults, each by its seed: a failing one is printed and can be run alone.

pytest tests/simulation --seeds 100000            any number; `make soak` runs thousands
"""

import random
from collections import Counter

import anyio
import pytest

from kit import crashing, opened
from overwinter.testing import CrashPoints, ManualClock, finish, idle

pytestmark = pytest.mark.anyio
BATCHES = 8
CHILDREN = {
    "40 + 2": 42,
    "2 + await shop.double(number=3)": 8,
    "await shop.charge(cents=5)": "charged 5",
    "import asyncio\nawait asyncio.sleep(3600)\nawait shop.charge(cents=6)": "charged 6",
    "await tools.spawn('await shop.charge(cents=7)')": "charged 7",
}
"""Programs that a program begins as runs of their own, and what they come to."""
CRASHES_MAX = 3


def program(rng: random.Random) -> tuple[str, object, int]:
    """Return a program, its value and how many keyed charges it makes."""
    lines, values, charges = ["import asyncio", "out = []"], [], 0
    for _ in range(rng.randint(1, 5)):
        match rng.randrange(8):
            case 0:
                number = rng.randrange(100)
                lines.append(f"out.append(await shop.double(number={number}))")
                values.append(2 * number)
            case 1:
                lines.append("out.append(await shop.charge(cents=3))")
                values.append("charged 3")
                charges += 1
            case 2:
                width = rng.randint(2, 4)
                lines.append(f"out += await asyncio.gather(*[shop.charge(cents=i) for i in range({width})])")
                values += [f"charged {i}" for i in range(width)]
                charges += width
            case 3:
                lines.append(f"await asyncio.sleep({rng.choice([0, 1, 3600, 86400 * 9])})")
            case 4:
                lines.append("r = await tools.settle(shop.broken(), shop.double(number=1))")
                lines.append("out.append([type(r[0]).__name__, r[1]])")
                values.append(["RuntimeError", 2])
            case 5:
                child = rng.choice(sorted(CHILDREN))
                lines.append(f"out.append(await tools.spawn({child!r}))")
                values.append(CHILDREN[child])
                charges += child.count("charge")
            case 6:
                children = rng.choices(sorted(CHILDREN), k=2)
                lines.append(f"out += await asyncio.gather(*[tools.spawn(each) for each in {children!r}])")
                values += [CHILDREN[child] for child in children]
                charges += sum(child.count("charge") for child in children)
            case _:
                lines.append("out.append(await tools.receive())")
                values.append("hello")
    return "\n".join([*lines, "out"]), values, charges


async def simulate(seed: int, project, ledger) -> None:
    rng = random.Random(seed)
    source, expected, charges = program(rng)
    clock = ManualClock()
    ledger.write_text("")
    home = project / str(seed)
    home.mkdir()
    name = (project / "module").read_text()
    (home / "module").write_text(name)
    (home / f"{name}.py").symlink_to(project / f"{name}.py")
    for _ in range(rng.randint(0, CRASHES_MAX)):
        points = CrashPoints(rng.randint(1, 25))
        if await lived(home, clock, source, points):
            break
    async with opened(home, clock=clock) as app:
        run_id = await started(app, source)
        run = await finish(app, run_id, clock)
        events = [event async for event in app.events(run_id)]
    assert run.result == expected
    made = Counter(line for line in ledger.read_text().splitlines() if line.startswith("charge"))
    assert set(made.values()) <= {1}
    assert len(made) == charges
    assert [event.position for event in events] == list(range(len(events)))
    assert [event.epoch for event in events] == sorted(event.epoch for event in events)
    assert sum(event.kind == "turn" for event in events) == run.seq
    answered = Counter(event.body["index"] for event in events if event.kind == "answered")
    assert set(answered.values()) <= {1}


async def started(app, source: str) -> str:
    run_id = await app.start(source, dedup="one")
    if (await app.run(run_id)).status == 0:
        for number in range(source.count("tools.receive")):
            await app.send(run_id, "hello", dedup=f"message {number}")
    return run_id


async def lived(project, clock, source, points) -> bool:
    """Work until the crash; True if the run ended before it."""
    async with (
        opened(project, clock=clock, wrap=crashing(points), drain_s=0) as app,
        anyio.create_task_group() as group,
    ):

        async def act() -> None:
            run_id = await started(app, source)
            await finish(app, run_id, clock)
            await idle(app)
            group.cancel_scope.cancel()

        group.start_soon(act)
        await points.crashed.wait()
        group.cancel_scope.cancel()
    return not points.crashed.is_set()


@pytest.mark.claim("D1.seeds")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("batch", range(BATCHES))
async def test_any_seed_ends_right(project, ledger, batch, pytestconfig):
    seeds = range(batch, pytestconfig.getoption("--seeds"), BATCHES)
    for seed in seeds:
        try:
            with anyio.fail_after(60):
                await simulate(seed, project, ledger)
        except BaseException:
            print(f"failing seed: {seed}")
            raise
