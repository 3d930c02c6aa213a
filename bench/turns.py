"""How many turns a second a busy home takes: 100 runs at once, each calling a tool again and again.

Floor: the same programs in a bare Monty loop, as many threads as we have interpreter workers, answers given at once,
state loaded and dumped at each call, no store, no check, no tools. The floor depends on what else is installed: where
`opentelemetry` is (the extra `mcp` brings it) bare Monty makes half again as many turns, see `_spare_the_search` in
adapters/monty/engine.py.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import anyio
import pydantic_monty as monty
import uvloop

from bench.report import project
from bench.wake import blocked
from overwinter.app import App
from overwinter.faces.cli.serving import spare_collections

PROGRAM = """
import work
total = 0
for number in range(count):
    total += await work.double(number=number)
total
"""
TOOLS = '''"""One function that costs nothing."""

from overwinter import read


@read
async def double(*, number: int) -> int:
    """Twice the number."""
    return 2 * number
'''
ACTIVE = 100
ROUNDS = 7
"""Ours and the floor in turn: whoever else uses the machine disturbs some of them."""
WARMING = 5
"""Calls of each of as many runs before, on both sides: a home starts part of its workers when turns first line up."""


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    calls = 10 if is_small else 50
    workers = os.cpu_count() or 1
    spare_collections()  # as `serve` does; the floor has it too
    floors, ours = [floor(calls, workers)], list[tuple[float, float]]()
    for _ in range(1 if is_small else ROUNDS):
        with project(TOOLS, f"[worker]\ninterpreters = {workers}") as place:
            ours.append(anyio.run(turns, place, calls, backend_options={"loop_factory": uvloop.new_event_loop}))
        floors.append(floor(calls, workers))
    ratios = [each / ((before + after) / 2) for (each, _), before, after in zip(ours, floors, floors[1:], strict=False)]
    return {
        "active": ACTIVE,
        "calls_each": calls,
        "workers": workers,
        "rounds": len(ours),
        "per_s": round(median(each for each, _ in ours)),
        "floor_per_s": round(median(floors)),
        "ratio": round(median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
        "cpu_ms_each": round(median(cpu for _, cpu in ours), 3),
    }


async def turns(place: Path, calls: int) -> tuple[float, float]:
    """Run the programs under the product; return turns per second, and our process's time for each, in milliseconds.

    The second says more on a machine that others use too.
    """
    async with App.open(place / ".overwinter") as app:
        for run_id in [await app.start(PROGRAM, inputs={"count": WARMING}) for _ in range(ACTIVE)]:
            await app.result(run_id)
        began, worked = time.perf_counter(), time.process_time()
        run_ids = [await app.start(PROGRAM, inputs={"count": calls}) for _ in range(ACTIVE)]
        taken = 0
        for run_id in run_ids:
            run = await app.result(run_id)
            assert run.result == calls * (calls - 1), run
            taken += run.seq
        return taken / (time.perf_counter() - began), (time.process_time() - worked) * 1_000 / taken


def floor(calls: int, workers: int) -> float:
    """Run the programs in bare Monty; return turns per second."""
    if "opentelemetry" in sys.modules and sys.modules["opentelemetry"] is None:  # pyright: ignore[reportUnnecessaryComparison]
        del sys.modules["opentelemetry"]  # Monty as it comes, without our way round an import in vain
    with (
        monty.Monty(min_processes=workers, max_processes=workers, request_timeout=15) as pool,
        ThreadPoolExecutor(workers) as threads,
    ):
        list(threads.map(lambda _: bare_run(pool, WARMING), range(ACTIVE)))
        began = time.perf_counter()
        taken = sum(threads.map(lambda _: bare_run(pool, calls), range(ACTIVE)))
        return taken / (time.perf_counter() - began)


def bare_run(pool: monty.Monty, calls: int) -> int:
    """Run one program to its end; return its turns."""
    modules = {"work": monty.ExternalModule({"double": lambda: None})}
    limits = monty.ResourceLimits(max_feed_duration_secs=10.0, max_turn_duration_secs=2.0, max_memory=64 << 20)
    with pool.checkout(limits=limits, external_modules=modules) as session:
        ticket, state = blocked(session.feed_start(PROGRAM, inputs={"count": calls}))
    for number in range(calls):
        with pool.checkout() as session:
            step: Any = session.load_snapshot(state)
            step = step.resume({ticket: {"return_value": 2 * number}})
            if isinstance(step, monty.MontyComplete):
                return number + 2
            ticket, state = blocked(step)
    raise AssertionError("the program did not end")
