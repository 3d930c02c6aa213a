"""Each hostile program ends as a value or a typed error; the host stays small and the next program is fine."""

import resource
from collections.abc import AsyncIterator

import pytest

from hostile.programs import FLOODS, PROGRAMS, REACHES
from jails import jail_here
from overwinter.adapters.monty import MontyInterpreter, open_interpreter
from overwinter.events import Raised
from overwinter.interpreter import Blocked, Failed, Finished, Limits, Outcome, Program

LIMITS = Limits(
    turn_cpu_s=0.25,
    run_cpu_s=0.5,
    memory_bytes=48 << 20,
    calls_per_turn=100,
    output_bytes=10_000,
    snapshot_bytes=1 << 20,
)
HOST_GROWTH_BYTES_MAX = 400 << 20


@pytest.fixture
async def interpreter() -> AsyncIterator[MontyInterpreter]:
    async with open_interpreter(limits=LIMITS, workers=1, jail=jail_here()) as opened:
        yield opened


def program(source: str) -> Program:
    return Program(run_id="run-1", source=source, inputs={}, modules={"svc": ("f",)})


async def run(interpreter: MontyInterpreter, source: str) -> Outcome:
    return await interpreter.start(program(source), now_us=0)


async def is_well(interpreter: MontyInterpreter) -> bool:
    return await run(interpreter, "sum(range(10))") == Finished(value=45, output="")


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.claim("J4.hostile.contained")
async def test_a_hostile_program_is_contained(interpreter: MontyInterpreter, name: str) -> None:
    outcome = await run(interpreter, PROGRAMS[name])
    match outcome:
        case Failed(kind=kind, message=message):
            assert kind.isidentifier() or "." in kind
            assert len(message) < 5_000
        case Finished() | Blocked():
            pass
    assert len(outcome.output) <= LIMITS.output_bytes + 200
    assert await is_well(interpreter)


@pytest.mark.parametrize("name", REACHES)
async def test_a_program_reaches_nothing_outside(interpreter: MontyInterpreter, name: str) -> None:
    outcome = await run(interpreter, REACHES[name])
    assert isinstance(outcome, Failed)


@pytest.mark.claim("J5.hostile.host_bounded")
async def test_floods_leave_the_host_small(interpreter: MontyInterpreter) -> None:
    before = peak_bytes()
    for source in FLOODS.values():
        await run(interpreter, source)
    assert peak_bytes() - before < HOST_GROWTH_BYTES_MAX


async def test_a_program_that_refuses_to_end_is_dropped(interpreter: MontyInterpreter) -> None:
    source = "import svc\nwhile True:\n    try:\n        await svc.f(a=1)\n    except BaseException:\n        pass"
    outcome = await run(interpreter, source)
    assert isinstance(outcome, Blocked)
    for _ in range(20):
        assert isinstance(outcome, Blocked)
        answer = Raised(kind="SystemExit", message="end")
        outcome = await interpreter.resume(
            program(source), outcome.snapshot, dict.fromkeys(outcome.pending, answer), now_us=0
        )
    assert await is_well(interpreter)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
