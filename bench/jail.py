"""What the jail costs a wake, and what it denies."""

import statistics
import time
from typing import Any

import anyio

from overwinter.adapters.monty import JailSettings, escapes, open_interpreter
from overwinter.adapters.monty.launcher import monty_binary
from overwinter.events import Returned
from overwinter.interpreter import Blocked, Limits, Program

PROGRAM = Program(
    run_id="01M86DYQGJPRY3JM8YQDS0JCR2",
    source="import tools\ntotal = 0\nwhile True:\n    total += await tools.receive()",
    inputs={},
    modules={"tools": ("receive",)},
)


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    rounds = 200 if is_small else 1_500
    jailed, bare = anyio.run(both, rounds)
    verdicts = probe()
    return {
        "n": rounds,
        "jailed_p50_ms": round(jailed, 3),
        "bare_p50_ms": round(bare, 3),
        "wake_ratio": round(jailed / bare, 3),
        "probes": len(verdicts),
        "denied": sum(verdicts.values()),
        "allowed": [name for name, is_denied in verdicts.items() if not is_denied],
    }


async def both(rounds: int) -> tuple[float, float]:
    """Return the median wake with and without the jail, taken in turns so that a noisy machine hits both alike."""
    async with (
        open_interpreter(limits=Limits(run_cpu_s=600), workers=1) as jailed,
        open_interpreter(limits=Limits(run_cpu_s=600), workers=1, jail=JailSettings(is_off=True)) as bare,
    ):
        times: tuple[list[float], list[float]] = ([], [])
        states = [await begun(jailed), await begun(bare)]
        for _ in range(rounds):
            for place, interpreter in enumerate((jailed, bare)):
                began = time.perf_counter()
                state = states[place]
                (ticket,) = state.pending
                outcome = await interpreter.resume(PROGRAM, state.snapshot, {ticket: Returned(value=1)}, now_us=1)
                times[place].append(1e3 * (time.perf_counter() - began))
                assert isinstance(outcome, Blocked)
                states[place] = outcome
        return statistics.median(times[0]), statistics.median(times[1])


async def begun(interpreter: Any) -> Blocked:
    """Return the program at its first await."""
    outcome = await interpreter.start(PROGRAM, now_us=1)
    assert isinstance(outcome, Blocked)
    return outcome


def probe() -> dict[str, bool]:
    """Try every forbidden act inside the jail; return which were denied."""
    return dict(escapes(monty_binary(), JailSettings()))
