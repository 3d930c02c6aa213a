"""Turns over the lane are the client's turns whatever was guessed of them, and soon one exchange each."""

from collections.abc import AsyncIterator, Callable, Generator, Mapping
from dataclasses import replace
from itertools import cycle
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jails import jail_here
from overwinter.adapters.monty import MontyInterpreter, open_interpreter, wire
from overwinter.adapters.monty.engine import _fed
from overwinter.adapters.monty.lane import Lane, open_lane
from overwinter.adapters.monty.outcomes import unpacked
from overwinter.adapters.monty.quick import CALL, FEED, PATHS_MAX, PAUSE, WOKEN, Paths, resumed, started
from overwinter.adapters.monty.turn import Turn
from overwinter.events import Answer, Raised, Returned
from overwinter.interpreter import Blocked, Failed, Finished, Limits, Outcome, Program

pytestmark = pytest.mark.anyio
LIMITS = Limits(turn_cpu_s=30, run_cpu_s=30)
NOW_US = 1_800_000_000_123_456
MODULES = {"svc": ("f", "g"), "oth": ("h",)}
Turning = Callable[[Blocked | None, Mapping[int, Answer]], Any]

PROGRAMS = {
    "loop": "import svc\ntotal = 0\nfor n in range(3):\n    total += await svc.f(n)\n    print(total)\ntotal",
    "prelude": "[await svc.f(word), await oth.h(), flag]",
    "gather": "import svc, oth\nimport asyncio\nrows = await asyncio.gather(*(svc.f(n) for n in range(4)))\n[rows, await oth.h(x=rows)]",
    "from": "from svc import f, g\nfrom oth import h\na = await f()\n[a, await g(a), await h(None, True, 2.5)]",
    "dates": "import datetime as d, svc\na = [str(d.datetime.now()), str(d.datetime.now(d.timezone.utc)), str(d.date.today())]\n"
    "await svc.f(a)\nb = d.datetime.now(d.timezone.utc).isoformat()\n[a, b]",
    "clock": "import time, asyncio, svc\nx = await svc.f()\nawait asyncio.sleep(x + 7 - time.time())\nawait asyncio.sleep(0)\ntime.time()",
    "pause": "import time, svc\nfor n in range(3):\n    time.sleep(n)\nx = await svc.f()\ntime.sleep(x)\n[x, time.time()]",
    "caught": "import svc\ntry:\n    await svc.f()\nexcept LookupError as error:\n    r = await svc.g(str(error))\nr",
    "at once": "word * 2",
    "random": "import random, svc\n[random.random(), await svc.f(random.randint(1, 9)), random.random()]",
    "nested": "import svc, asyncio\nasync def both(n):\n    return await svc.f(n), await svc.g(n)\nawait asyncio.gather(both(1), both(2))",
    "large": "import svc, asyncio, time\nrows = [str(n) * 9 for n in range(1_000)]\nawait svc.f()\n"
    "await asyncio.gather(*(svc.g(n) for n in range(30)))\ntime.sleep(2)\nawait svc.f(time.time())\nlen(rows)",
    "raises": "import svc\nawait svc.f()\n1 / 0",
    "no module": "import nothing",
    "no name": "await missing(1)",
    "syntax": "await svc.f(",
    "printed": "print('a'); print('b', word)\nimport svc\nprint('c')\nawait svc.f()\nprint('d')",
}


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[MontyInterpreter]:
    async with open_interpreter(limits=LIMITS, workers=1, jail=jail_here()) as opened:
        await opened._lane.close()  # else it would open by itself, and be compared with itself
        yield opened


@pytest.fixture(scope="module")
async def lane(client: MontyInterpreter) -> AsyncIterator[Lane]:
    async with open_lane(client.launcher, jail_here(), 1) as opened:
        opened.open()
        while opened.size < 1:  # noqa: ASYNC110 - another process tells no event
            await anyio.sleep(0.005)
        yield opened


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def program(source: str | Program) -> Program:
    if isinstance(source, Program):
        return source
    return Program(run_id="run-1", source=source, inputs={"word": "w", "flag": [True, {"x": 1}]}, modules=MODULES)


def by_client(client: MontyInterpreter, source: str | Program) -> Turning:
    async def turn(at: Blocked | None, answers: Mapping[int, Answer]) -> Outcome:
        if at is None:
            return await client.start(program(source), now_us=NOW_US)
        return await client.resume(program(source), at.snapshot, answers, now_us=NOW_US)

    return turn


def by_lane(lane: Lane, source: str | Program, paths: Paths, exchanges: list[int] | None = None) -> Turning:
    counts = list[int]() if exchanges is None else exchanges
    ran = program(source)
    fed = replace(
        _fed(ran.source, tuple(MODULES)),
        before=sum(1 + bool(_fed(each, tuple(MODULES)).prelude) for each in ran.earlier),
    )

    def counted(steps: Generator[Any, Any, Outcome]) -> Generator[Any, Any, Outcome]:
        replies = None
        counts.append(0)
        while True:
            try:
                request = steps.send(replies)
            except StopIteration as end:
                return end.value
            counts[-1] += 1
            replies = yield request

    async def turn(at: Blocked | None, answers: Mapping[int, Answer]) -> Outcome | None:
        pending, body = unpacked(at.snapshot) if at else (frozenset[int](), b"")

        def steps() -> Any:
            before = pending.difference(answers)
            made = Turn(program=ran, fed=fed, limits=LIMITS, now_us=NOW_US, before=before)
            return counted(resumed(made, body, answers, paths) if at else started(made, paths)), made.print

        return await lane.run(ran.source, steps, 20.0)

    return turn


def answer(name: str, ticket: int) -> Answer:
    if name == "caught" and ticket <= 1:
        return Raised(kind="KeyError", message="gone: 'x'")
    return Returned(value=None if name == "pause" and ticket < 3 else 2)


def answers_to(name: str, at: Blocked, order: int) -> Mapping[int, Answer]:
    """Return answers to some of the calls that wait, as the order has it; a pause has none but its end."""
    tickets = sorted(at.pending)
    if at.first is not None:
        return {at.first: Returned(value=None)}
    chosen = tickets if order % 3 == 0 else [tickets[order % len(tickets)]]
    return {ticket: answer(name, ticket) for ticket in chosen}


def told(outcome: Outcome | None) -> object:
    if isinstance(outcome, Blocked):
        return (outcome.requests, outcome.pending, outcome.first, outcome.output)
    if isinstance(outcome, Finished | Failed):  # modules have another identity in each state
        return replace(outcome, state=None), outcome.state is None
    return outcome


async def taken(
    turning: Turning, other: Turning, name: str, order: int, *, is_checked: bool = True
) -> tuple[Outcome, int]:
    """Take a program to its end; return what came of it, and how many turns `turning` left to the other."""
    at: Blocked | None = None
    left = 0
    for _ in range(50):
        answers = {} if at is None else answers_to(name, at, order)
        here = await turning(at, answers)
        if here is None or is_checked:
            there = await other(at, answers)
            assert here is None or told(here) == told(there)
            left += here is None
            here = here or there
        assert isinstance(here, Blocked | Finished | Failed)
        if not isinstance(here, Blocked):
            return here, left
        at = here
    raise AssertionError("it does not end")


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("order", [0, 1, 2])
async def test_each_turn_of_a_program_is_the_clients_turn(
    client: MontyInterpreter, lane: Lane, name: str, order: int
) -> None:
    source, paths = PROGRAMS[name], Paths()
    ends = [await taken(by_lane(lane, source, paths), by_client(client, source), name, order) for _ in range(3)]
    assert told(ends[0][0]) == told(ends[1][0]) == told(ends[2][0])
    if name not in ("raises", "no module", "no name", "syntax"):
        assert ends[2][1] == 0, "the client took a turn of a program whose way is known"


@pytest.mark.parametrize(
    "name", ["loop", "prelude", "gather", "from", "dates", "clock", "pause", "caught", "at once", "random", "large"]
)
async def test_a_way_that_is_known_is_one_exchange_a_turn(client: MontyInterpreter, lane: Lane, name: str) -> None:
    source, paths = PROGRAMS[name], Paths()
    for _ in range(3):
        await taken(by_lane(lane, source, paths), by_client(client, source), name, 0)
    exchanges = list[int]()
    await taken(by_lane(lane, source, paths, exchanges), by_client(client, source), name, 0)
    assert set(exchanges) == {1}


CHAIN = (
    "a = 1\nb = await svc.f(a)\nprint(b)",
    "import math\nasync def twice(x):\n    return [await svc.g(x), await oth.h(x)]\nc = [a + b, math.floor(2.5)]\nawait twice(c)",
    "await twice(a), tools.settle",
    "import time\nd = time.time()\ntime.sleep(a)\n[d - time.time(), await svc.f(d)]",
    "class Point:\n    def __init__(self, x):\n        self.x = x\np = Point(a)\np.x + b",
    "p.x += await svc.f()\nrows = [str(n) for n in range(2_000)]\n[p.x, len(rows)]",
    "rows.append(await svc.f(word))\nrows[-1]",
    "missing + 1",
    "[a, b, c, p.x, len(rows), random]",
    "import random\nr = random.random()\nawait svc.f(r)\n[r, random.random()]",
)


async def chained(
    turnings: list[Callable[[Program], tuple[Turning, Turning]]], order: int, *, is_checked: bool
) -> list[object]:
    """Have programs go on from each other, taken by these ways in turn; return how each ended."""
    ends, state, ways = list[object](), None, cycle(turnings)
    for number, source in enumerate(CHAIN):
        ran = Program(
            run_id=f"run-{number}", source=source, inputs={"word": "w"}, modules=MODULES, earlier=CHAIN[:number], state=state,
            keeps=True,
        )  # fmt: skip
        end, _ = await taken(*next(ways)(ran), "chain", order, is_checked=is_checked)
        assert isinstance(end, Finished | Failed)
        assert end.state is not None
        state = end.state
        ends.append(told(end))
    return ends


@pytest.mark.parametrize("order", [0, 1])
async def test_programs_that_go_on_from_each_other_end_alike_whichever_way_they_are_taken(
    client: MontyInterpreter, lane: Lane, order: int
) -> None:
    paths = Paths()

    def here(ran: Program) -> tuple[Turning, Turning]:
        return by_lane(lane, ran, paths), by_client(client, ran)

    def there(ran: Program) -> tuple[Turning, Turning]:
        return by_client(client, ran), by_client(client, ran)

    by_clients = await chained([there], order, is_checked=False)
    assert await chained([here], order, is_checked=True) == by_clients
    assert await chained([here], order, is_checked=True) == by_clients, "now their ways are known"
    assert await chained([here, there], order, is_checked=False) == by_clients
    assert await chained([there, here], order, is_checked=False) == by_clients


async def test_a_program_that_was_never_seen_and_calls_something_is_one_exchange(lane: Lane) -> None:
    exchanges = list[int]()
    for source in (
        "await svc.f(1)",
        "x = [await svc.f(2), await oth.h()]\nx",
        "[await svc.g(each) for each in [1, 2]]",
    ):
        assert isinstance(await by_lane(lane, source, Paths(), exchanges)(None, {}), Blocked)
    assert exchanges == [1, 1, 1]


STEPS = st.sampled_from([CALL, FEED, PAUSE, WOKEN, *sorted(wire.CLOCKS), "import svc", "import oth", "import nothing"])


class Wrong(Paths):
    """Guesses that were drawn, one after the other and from the first again."""

    def __init__(self, drawn: list[tuple[int, tuple[str, ...]]]) -> None:
        super().__init__()
        self._drawn = cycle(drawn)

    def guessed(self, place: tuple[int, int], otherwise: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
        del otherwise
        off_by, path = next(self._drawn)
        return max(0, place[1] + off_by), path


GUESSES = st.lists(
    st.tuples(st.sampled_from([0, 0, -1, 1]), st.lists(STEPS, max_size=5).map(tuple)), min_size=1, max_size=4
)


@given(name=st.sampled_from(sorted(PROGRAMS)), order=st.integers(0, 5), drawn=GUESSES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
async def test_a_wrong_guess_never_changes_what_comes_of_a_turn(
    client: MontyInterpreter, lane: Lane, name: str, order: int, drawn: list[tuple[int, tuple[str, ...]]]
) -> None:
    source = PROGRAMS[name]
    await taken(by_lane(lane, source, Wrong(drawn)), by_client(client, source), name, order)


@given(order=st.integers(0, 5), drawn=GUESSES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
async def test_a_wrong_guess_never_changes_what_programs_leave_to_each_other(
    client: MontyInterpreter, lane: Lane, order: int, drawn: list[tuple[int, tuple[str, ...]]]
) -> None:
    guesses = Wrong(drawn)
    await chained([lambda ran: (by_lane(lane, ran, guesses), by_client(client, ran))], order, is_checked=True)


def test_ways_are_remembered_up_to_a_number_and_the_oldest_goes_first() -> None:
    paths = Paths()
    for number in range(PATHS_MAX + 10):
        paths.learn((number, 1), 1, (CALL, CALL))
    assert paths.guessed((0, 1), (FEED,)) == (1, (FEED,))
    assert paths.guessed((PATHS_MAX, 1), (FEED,)) == (1, (CALL, CALL))


async def test_a_turn_that_ended_sooner_than_guessed_teaches_nothing(client: MontyInterpreter, lane: Lane) -> None:
    source, paths = "if await svc.f():\n    await svc.g()", Paths()
    turning, other = by_lane(lane, source, paths), by_client(client, source)
    for answered in (True, False):
        at = await turning(None, {})
        assert isinstance(at, Blocked)
        await turning(at, {min(at.pending): Returned(value=answered)})
    exchanges = list[int]()
    at = await by_lane(lane, source, paths, exchanges)(None, {})
    assert isinstance(at, Blocked)
    assert isinstance(await other(at, {min(at.pending): Returned(value=True)}), Blocked)
    await by_lane(lane, source, paths, exchanges)(at, {min(at.pending): Returned(value=True)})
    assert exchanges == [1, 1]


async def test_a_way_that_was_wrong_from_its_first_step_on_is_forgotten(client: MontyInterpreter, lane: Lane) -> None:
    source = "import svc, time\nif await svc.f():\n    time.sleep(1)\nelse:\n    await svc.g()\nawait svc.f()"
    paths = Paths()

    async def turns(first: Answer) -> list[bool]:
        """Take the program to its end; return of each turn whether the lane took it."""
        quickly, at = list[bool](), None
        turning, other = by_lane(lane, source, paths), by_client(client, source)
        while not isinstance(at, Finished):
            answers = {} if at is None else {max(at.pending): first if len(quickly) == 1 else Returned(value=None)}
            here = await turning(at, answers)
            quickly.append(here is not None)
            at = here or await other(at, answers)
        return quickly

    for _ in range(3):
        await turns(Returned(value=True))
    await turns(Returned(value=False))
    assert all(await turns(Returned(value=False)))


async def test_imports_of_nothing_are_not_remembered(client: MontyInterpreter, lane: Lane) -> None:
    source, paths = "try:\n    import nothing\nexcept ImportError:\n    pass\nawait svc.f()", Paths()
    for _ in range(3):
        await taken(by_lane(lane, source, paths), by_client(client, source), "import", 0)
    assert not any("nothing" in step for _, path in paths._known.values() for step in path)


async def test_a_program_that_floods_costs_one_worker_and_no_second_one(client: MontyInterpreter, lane: Lane) -> None:
    source = "print('x' * 1_100_000)"

    async def until_open() -> None:
        with anyio.fail_after(20):
            while lane.size < 1:  # noqa: ASYNC110 - another process tells no event
                await anyio.sleep(0.005)

    turning = by_lane(lane, source, Paths())
    assert await turning(None, {}) is None
    await until_open()
    (channel,) = lane._ready
    assert await turning(None, {}) is None
    assert lane._ready == [channel]


async def test_a_state_that_grows_in_a_first_turn_is_no_flood(lane: Lane) -> None:
    source = "import svc, asyncio\nrows = [str(n) * 9 for n in range(1_000)]\nawait asyncio.gather(*(svc.g(n) for n in range(40)))"
    (channel,) = lane._ready
    assert isinstance(await by_lane(lane, source, Paths())(None, {}), Blocked)
    assert lane._ready == [channel]


async def test_a_source_with_half_a_character_is_left_to_the_client(lane: Lane) -> None:
    assert await by_lane(lane, "'\ud800'", Paths())(None, {}) is None


def test_a_number_without_an_end_is_nonsense() -> None:
    with pytest.raises(wire.Nonsense):
        wire.head(b"\xff" * 1_000)
