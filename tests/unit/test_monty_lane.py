"""Turns over the lane are the client's turns, or none; its workers die, are killed and are replaced like the client's."""

import gc
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from jails import jail_here
from overwinter.adapters.monty import JailSettings, MontyInterpreter, open_interpreter, wire
from overwinter.adapters.monty.lane import Lane, open_lane
from overwinter.adapters.monty.launcher import monty_binary
from overwinter.adapters.monty.outcomes import unpacked
from overwinter.adapters.monty.quick import Paths, Quick, resumed
from overwinter.adapters.monty.turn import Fed, Turn
from overwinter.events import Answer, Raised, Returned
from overwinter.interpreter import Blocked, Finished, Limits, Outcome, Program
from overwinter.values import Value

LIMITS = Limits(turn_cpu_s=30, run_cpu_s=30)


@pytest.fixture
async def client() -> AsyncIterator[MontyInterpreter]:
    """Yield an interpreter whose turns never line up: it takes all of them through the client."""
    async with open_interpreter(limits=LIMITS, workers=1, jail=jail_here()) as opened:
        yield opened


@pytest.fixture
async def lane(client: MontyInterpreter) -> AsyncIterator[Lane]:
    async with open_lane(client.launcher, jail_here(), 1) as opened:
        opened.open()
        await until(lambda: opened.size == 1)
        yield opened


async def until(is_so: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not is_so():  # noqa: ASYNC110 - another process tells no event
            await anyio.sleep(0.005)


async def until_gone(pid: int) -> None:
    await until(lambda: is_gone(pid))


async def until_given_up(lane: Lane) -> None:
    with anyio.fail_after(20):
        while not lane.has_given_up:
            lane.open()
            await anyio.sleep(0.005)


def program(source: str) -> Program:
    return Program(run_id="run-1", source=source, inputs={}, modules={"svc": ("f", "g")})


async def by_client(client: MontyInterpreter, source: str, at: Blocked, answers: Mapping[int, Answer]) -> Outcome:
    return await client.resume(program(source), at.snapshot, answers, now_us=0)


async def by_lane(
    lane: Lane, source: str, at: Blocked, answers: Mapping[int, Answer], s_max: float = 20.0
) -> Outcome | None:
    pending, body = unpacked(at.snapshot)
    fed = Fed(source=source, prelude="")

    def steps() -> tuple[Quick, Callable[[str, str], None]]:
        turn = Turn(program=program(source), fed=fed, limits=LIMITS, now_us=0, before=pending.difference(answers))
        return resumed(turn, body, answers, Paths()), turn.print

    return await lane.run(source, steps, s_max)


async def begun(client: MontyInterpreter, source: str) -> Blocked:
    outcome = await client.start(program(source), now_us=0)
    assert isinstance(outcome, Blocked), outcome
    return outcome


def told(outcome: Outcome | None) -> object:
    """Return all of an outcome but the interpreter's own bytes, which differ from process to process."""
    if isinstance(outcome, Blocked):
        return (outcome.requests, outcome.pending, outcome.first, outcome.output)
    return outcome


# --- The same turns --------------------------------------------------------------------------------------------------

LOOP = "import svc\ntotal = 0\nfor n in range(5):\n    total += await svc.f(n)\n    print(total)\ntotal"
GATHER = "import svc, asyncio\nrows = await asyncio.gather(*(svc.f(n) for n in range(4)))\n[rows, await svc.g(rows)]"
CAUGHT = "import svc\ntry:\n    await svc.f()\nexcept LookupError as error:\n    r = await svc.g(str(error))\nr"
CLOCK = "import svc, time, asyncio\na = await svc.f()\nawait asyncio.sleep(1)\nb = time.time()\nawait svc.g(b)"
VALUES = (
    "import svc\nx = await svc.f(1, [2, {'three': (4.5, None, True)}], six='sieben', eight=-9)\nawait svc.g(x, x=x)"
)


@pytest.mark.parametrize("source", [LOOP, GATHER, CAUGHT, CLOCK, VALUES])
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_turn_over_the_lane_is_the_clients_turn(
    client: MontyInterpreter, lane: Lane, source: str, at_once: object
) -> None:
    there: Outcome | None = await begun(client, source)
    here = there
    quick = 0
    while isinstance(there, Blocked):
        assert isinstance(here, Blocked)
        tickets = sorted(there.pending) if at_once else [max(there.pending)]
        answers = {ticket: answer(source, ticket) for ticket in tickets}
        quickly = await by_lane(lane, source, here, answers)
        there = await by_client(client, source, there, answers)
        quick += quickly is not None
        here = quickly or await by_client(client, source, here, answers)
        assert told(here) == told(there)
    assert isinstance(there, Finished)
    assert quick >= 1


def answer(source: str, ticket: int) -> Answer:
    if source == CAUGHT and ticket <= 1:
        return Raised(kind="KeyError", message="gone: 'x'")
    return Returned(value=ticket)


@pytest.mark.parametrize(
    "rest",
    [
        "1 / x",
        "import datetime\ndatetime.datetime.now()",
        "import nothing",
        "missing(x)",
        "missing",
        "open('/etc/passwd')",
        "class Box:\n    pass\nawait svc.g(Box())",
        "{1, 2}",
        "'x' * 2_000_000",
        "rows = [1]\nfor _ in range(40): rows = [rows, rows]\nawait svc.g(rows)",
        "rows = list(range(1_000))\nawait svc.g(rows)",
        "row = []\nfor _ in range(200): row = [row]\nawait svc.g(row)",
        "big = ['x' * 1_000 + str(n) for n in range(3_000)]\nawait svc.g()",
        "for _ in range(3_000): print('x' * 1_000)\nawait svc.g()",
    ],
)
async def test_what_is_not_ordinary_is_given_back(client: MontyInterpreter, lane: Lane, rest: str) -> None:
    source = f"import svc\nx = await svc.f()\n{rest}"
    first = await begun(client, source)
    assert await by_lane(lane, source, first, {min(first.pending): Returned(value=0)}) is None
    await until(lambda: lane.size == 1)
    second = await begun(client, LOOP)
    assert isinstance(await by_lane(lane, LOOP, second, {min(second.pending): Returned(value=1)}), Blocked)


@pytest.mark.parametrize("value", [10**30, b"raw", {1, 2}, "\ud800", ["x"] * 1_000, object()])
async def test_an_answer_that_is_not_ordinary_is_given_back(client: MontyInterpreter, lane: Lane, value: Value) -> None:
    first = await begun(client, LOOP)
    assert await by_lane(lane, LOOP, first, {min(first.pending): Returned(value=value)}) is None


ORDINARY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=200),
    lambda parts: (
        st.lists(parts, max_size=4)
        | st.lists(parts, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(-9, 300), parts, max_size=4)
    ),
    max_leaves=12,
)


@given(ORDINARY)
def test_a_value_is_itself_behind_the_wire(value: Value) -> None:
    arena = wire.Arena()
    place = arena.add(value)
    assert repr(wire.values(arena.body())[place]) == repr(value)


@given(st.binary(max_size=60))
def test_bytes_without_meaning_are_nonsense_or_unusual(raw: bytes) -> None:
    for read in (wire.head, wire.call, wire.completed, wire.pending, wire.values, wire.state, wire.printed):
        with suppress(wire.Unusual, wire.Nonsense):
            read(raw)


async def test_a_program_gets_the_value_that_was_sent(client: MontyInterpreter, lane: Lane) -> None:
    samples: list[Value] = [
        0, 1, -1, 63, 64, 127, 128, 300, -(1 << 63), (1 << 63) - 1, 0.0, -2.5, 1e300, "", "é\U0001f600", "x" * 300, True,
        False, None, [], (), {}, [[], [1, [2]]], (1, (2,)), {"a": {"b": [1]}, 5: "c", None: 1, (1, 2): 3},
    ]  # fmt: skip
    first = await begun(client, VALUES)
    outcome = await by_lane(lane, VALUES, first, {min(first.pending): Returned(value=samples)})
    assert isinstance(outcome, Blocked)
    (request,) = outcome.requests
    assert repr(request.args[0]) == repr(samples)
    assert repr(request.kwargs["x"]) == repr(samples)


# --- Workers ---------------------------------------------------------------------------------------------------------

STUCK = "import svc\nx = await svc.f()\nwhile x < 0: pass\nx"
BUSY = "import svc\nx = await svc.f()\nfor n in range(1_000_000): pass\nawait svc.g(n)"
"""It computes for some 30 ms."""


def lane_worker(lane_launched_after: set[int]) -> int:
    (pid,) = workers_alive() - lane_launched_after
    return pid


def workers_alive() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found.update(int(child) for child in (task / "children").read_text().split() if not is_gone(int(child)))
    return found


def is_gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def user_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11])


def busiest() -> int:
    return max(workers_alive(), key=user_ticks)


@pytest.mark.claim("D6.worker.crash")
async def test_the_turn_of_a_worker_that_is_killed_is_given_back_and_another_takes_its_place(
    client: MontyInterpreter, lane: Lane
) -> None:
    first = await begun(client, STUCK)

    async def kill() -> None:
        await until(lambda: user_ticks(busiest()) >= 10)
        os.kill(busiest(), signal.SIGKILL)

    async with anyio.create_task_group() as group:
        group.start_soon(kill)
        assert await by_lane(lane, STUCK, first, {min(first.pending): Returned(value=-1)}) is None
    await until(lambda: lane.size == 1)
    assert await by_lane(lane, STUCK, first, {min(first.pending): Returned(value=2)}) == Finished(value=2, output="")


@pytest.mark.claim("G5.cancel.kills")
async def test_cancelling_a_turn_kills_its_worker_and_no_other(client: MontyInterpreter, lane: Lane) -> None:
    first = await begun(client, STUCK)
    for _ in range(3):
        pid, others = 0, set[int]()
        async with anyio.create_task_group() as group:
            group.start_soon(by_lane, lane, STUCK, first, {min(first.pending): Returned(value=-1)})
            await until(lambda: user_ticks(busiest()) >= 5)
            pid = busiest()
            others = workers_alive() - {pid}
            group.cancel_scope.cancel()
        await until_gone(pid)
        assert not [each for each in others if is_gone(each)]
        await until(lambda: lane.size == 1)
        assert lane.busy == 0


async def test_a_turn_cancelled_while_it_waits_costs_nobody_anything(client: MontyInterpreter, lane: Lane) -> None:
    first = await begun(client, BUSY)
    answers = {min(first.pending): Returned(value=1)}
    alive = workers_alive()
    ended: list[Outcome | None] = []

    async def work() -> None:
        ended.append(await by_lane(lane, BUSY, first, answers))

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(0):
            await by_lane(lane, BUSY, first, answers)
    assert isinstance(ended[0], Blocked)
    assert workers_alive() == alive


async def test_a_turn_that_takes_too_long_is_given_back(client: MontyInterpreter, lane: Lane) -> None:
    first = await begun(client, STUCK)
    assert await by_lane(lane, STUCK, first, {min(first.pending): Returned(value=-1)}, s_max=0.3) is None


async def test_an_idle_worker_that_dies_is_replaced_in_silence(client: MontyInterpreter) -> None:
    before = workers_alive()
    async with open_lane(client.launcher, jail_here(), 1) as lane:
        lane.open()
        await until(lambda: lane.size == 1)
        os.kill(lane_worker(before), signal.SIGKILL)
        await until(lambda: lane.size == 0)
        await until(lambda: lane.size == 1)
        first = await begun(client, LOOP)
        assert isinstance(await by_lane(lane, LOOP, first, {min(first.pending): Returned(value=1)}), Blocked)


async def test_a_lane_that_is_not_open_takes_no_turn(client: MontyInterpreter) -> None:
    first = await begun(client, LOOP)
    before = workers_alive()
    async with open_lane(client.launcher, jail_here(), 1) as lane:
        assert await by_lane(lane, LOOP, first, {min(first.pending): Returned(value=1)}) is None
        assert workers_alive() == before


@pytest.mark.parametrize("script", ["exit 78", "echo nonsense", "sleep 60"])
async def test_what_is_no_interpreter_takes_no_turn(tmp_path: Path, script: str) -> None:
    launcher = tmp_path / "worker"
    launcher.write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\n{script}\n")
    launcher.chmod(0o700)
    async with open_lane(str(launcher), JailSettings(is_off=True), 1) as lane:
        lane.open()
        if script != "sleep 60":
            await until_given_up(lane)
        assert lane.size == 0
    assert not workers_alive()


async def test_a_worker_outside_the_jail_takes_no_turn() -> None:
    async with open_lane(str(monty_binary()), JailSettings(), 2) as lane:
        await until_given_up(lane)
        assert lane.size == 0
    assert not workers_alive()


LIAR = """#!{python}
import gc
import os
os.read(0, 1000)
os.write(1, bytes.fromhex("020000005200"))
os.read(0, 100000)
os.write(1, {said!r})
os.read(0, 1000)
"""


@pytest.mark.parametrize(
    "said",
    [bytes.fromhex("02000000ffff") * 5, bytes.fromhex("0200000012ff") * 5, bytes.fromhex("040000001202ff07") * 5],
)
async def test_a_worker_that_speaks_nonsense_is_killed(client: MontyInterpreter, tmp_path: Path, said: bytes) -> None:
    launcher = tmp_path / "worker"
    launcher.write_text(LIAR.format(python=sys.executable, said=said))
    launcher.chmod(0o700)
    first = await begun(client, LOOP)
    before = workers_alive()
    async with open_lane(str(launcher), JailSettings(is_off=True), 1) as lane:
        lane.open()
        await until(lambda: lane.size == 1)
        pid = lane_worker(before)
        assert await by_lane(lane, LOOP, first, {min(first.pending): Returned(value=1)}) is None
        await until_gone(pid)


async def test_nothing_is_left_when_the_block_is(client: MontyInterpreter) -> None:
    before = workers_alive()
    async with open_lane(client.launcher, jail_here(), 3) as lane:
        lane.open()
        await until(lambda: lane.size >= 1)  # and others that are starting, perhaps
    assert workers_alive() == before


async def test_an_error_leaves_the_block_as_it_is(client: MontyInterpreter) -> None:
    async def fail() -> None:
        async with open_lane(client.launcher, jail_here(), 1) as lane:
            lane.open()
            raise LookupError("ours")

    with pytest.raises(LookupError, match="ours"):
        await fail()


# --- Several turns with one worker --------------------------------------------------------------------------------------

TWO = "import svc, asyncio\nx = await svc.f()\nprint(x)\ny = await asyncio.gather(svc.f(x), svc.g(x))\ny"
"""Its second turn makes two calls: more than the one exchange that is guessed."""


@asynccontextmanager
async def lane_of(client: MontyInterpreter, count: int) -> AsyncGenerator[Lane]:
    async with open_lane(client.launcher, jail_here(), count) as lane:
        lane.open()
        await until(lambda: lane.size == count)
        yield lane


async def all_by_lane(lane: Lane, turns: Sequence[tuple[str, Blocked, Mapping[int, Answer]]]) -> list[Outcome | None]:
    outcomes: list[Outcome | None] = [None] * len(turns)

    async def take(place: int) -> None:
        outcomes[place] = await by_lane(lane, *turns[place])

    async with anyio.create_task_group() as group:
        for place in range(len(turns)):
            group.start_soon(take, place)
    return outcomes


@pytest.mark.parametrize("count", [1, 2])
async def test_turns_that_are_with_a_worker_at_once_get_each_its_own_outcome(
    client: MontyInterpreter, count: int
) -> None:
    firsts = {source: await begun(client, source) for source in (LOOP, TWO, VALUES, GATHER)}
    turns = [
        (source, first, {min(first.pending): Returned(value=number)})
        for number in range(12)
        for source, first in firsts.items()
    ]
    expected = [told(await by_client(client, *turn)) for turn in turns]
    async with lane_of(client, count) as lane:
        for _ in range(2):  # in the second round it is known which of them are alone
            outcomes = await all_by_lane(lane, turns)
            assert [told(outcome) for outcome in outcomes] == expected
        assert lane.busy == 0


async def test_no_turn_waits_behind_one_that_computes(client: MontyInterpreter) -> None:
    stuck, quick = await begun(client, STUCK), await begun(client, LOOP)
    async with lane_of(client, 2) as lane, anyio.create_task_group() as group:
        group.start_soon(by_lane, lane, STUCK, stuck, {min(stuck.pending): Returned(value=-1)})
        await anyio.lowlevel.checkpoint()
        pids = workers_alive()
        turns = [(LOOP, quick, {min(quick.pending): Returned(value=number)}) for number in range(12)]
        outcomes = await all_by_lane(lane, turns)
        assert all(isinstance(outcome, Blocked) for outcome in outcomes)
        assert lane.busy == 1, "the one that computes goes on"
        assert workers_alive() == pids
        group.cancel_scope.cancel()


@pytest.mark.claim("D6.worker.crash")
async def test_turns_behind_one_whose_worker_is_killed_are_taken_by_another(client: MontyInterpreter) -> None:
    stuck, quick = await begun(client, STUCK), await begun(client, LOOP)
    turns = [(LOOP, quick, {min(quick.pending): Returned(value=number)}) for number in range(6)]
    scope, outcomes = anyio.CancelScope(), list[Outcome | None]()
    async with lane_of(client, 2) as lane, anyio.create_task_group() as group:

        async def take() -> None:
            with scope:
                await by_lane(lane, STUCK, stuck, {min(stuck.pending): Returned(value=-1)})

        async def take_others() -> None:
            outcomes.extend(await all_by_lane(lane, turns))
            assert all(isinstance(outcome, Blocked) for outcome in outcomes)

        group.start_soon(take)
        group.start_soon(take_others)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        scope.cancel()  # its worker is killed with it, and some of the others are behind
    assert len(outcomes) == len(turns)


@pytest.mark.claim("G5.cancel.kills")
async def test_a_turn_cancelled_behind_another_disturbs_nobody_and_computes_for_nobody(
    client: MontyInterpreter, lane: Lane
) -> None:
    stuck, busy = await begun(client, STUCK), await begun(client, BUSY)
    before = workers_alive()
    outcomes: list[Outcome | None] = []

    async def take() -> None:
        outcomes.append(await by_lane(lane, BUSY, busy, {min(busy.pending): Returned(value=1)}))

    async with anyio.create_task_group() as group:
        group.start_soon(take)
        await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(0):
            await by_lane(lane, STUCK, stuck, {min(stuck.pending): Returned(value=-1)})
        await until(lambda: len(outcomes) == 1)
        assert isinstance(outcomes[0], Blocked)
        await until(lambda: workers_alive() != before)  # it would compute for 30 s
    await until(lambda: lane.size == 1)


async def test_turns_that_line_up_open_the_lane_and_end_as_they_should() -> None:
    async with open_interpreter(limits=LIMITS, workers=2, jail=jail_here()) as interpreter:
        ended: list[Value] = []

        async def work(base: int) -> None:
            outcome = await interpreter.start(program(LOOP), now_us=0)
            while isinstance(outcome, Blocked):
                answers = {ticket: Returned(value=base) for ticket in outcome.pending}
                outcome = await interpreter.resume(program(LOOP), outcome.snapshot, answers, now_us=0)
            assert isinstance(outcome, Finished)
            ended.append(outcome.value)

        with anyio.fail_after(30):
            while len(workers_alive()) < 4:
                async with anyio.create_task_group() as group:
                    for base in range(12):
                        group.start_soon(work, base)
        assert sorted(ended[-12:]) == [5 * base for base in range(12)]
        assert interpreter.busy == 0
    assert not workers_alive()


async def test_turns_that_come_often_open_the_lane_though_none_waits_for_another() -> None:
    async with open_interpreter(limits=LIMITS, workers=1, jail=jail_here()) as interpreter:
        before = workers_alive()
        with anyio.fail_after(30):
            while not workers_alive() - before:
                outcome = await interpreter.start(program(LOOP), now_us=0)
                while isinstance(outcome, Blocked):
                    answers = {ticket: Returned(value=1) for ticket in outcome.pending}
                    outcome = await interpreter.resume(program(LOOP), outcome.snapshot, answers, now_us=0)
                assert outcome == Finished(value=5, output="5\n")


async def test_nothing_is_left_of_a_worker_that_was_starting_when_the_block_ends(client: MontyInterpreter) -> None:
    before = workers_alive()
    for rounds in range(8):  # cancelled before the process is begun, while it connects, while it shows what it is
        async with open_lane(client.launcher, jail_here(), 2) as lane:
            lane.open()
            for _ in range(rounds):
                await anyio.lowlevel.checkpoint()
        assert workers_alive() == before
    gc.collect()  # a socket that was left open is an error here


def test_an_alarm_that_is_late_already_rings_at_once_on_the_servers_own_event_loop() -> None:
    async def work() -> None:
        async with open_interpreter(limits=LIMITS, workers=1, jail=jail_here()) as client, lane_of(client, 2) as lane:
            busy = await begun(client, BUSY)
            turns = [(BUSY, busy, {min(busy.pending): Returned(value=number)}) for number in range(8)]
            outcomes: list[Outcome | None] = []

            async def take() -> None:
                outcomes.extend(await all_by_lane(lane, turns))

            async with anyio.create_task_group() as group:
                group.start_soon(take)
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
                busy_until = time.monotonic() + 0.05
                while time.monotonic() < busy_until:  # the event loop is held up, as by a large commit
                    pass
                outcomes.extend(await all_by_lane(lane, turns))
            assert all(isinstance(outcome, Blocked) for outcome in outcomes)

    anyio.run(work, backend_options={"loop_factory": uvloop.new_event_loop})
