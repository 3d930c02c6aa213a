"""How long a sleeping program takes to wake: mail committed -> program resumed -> next await committed.

Floor, in the same run and interleaved with it: bare Monty load + resume + dump of the same program, and one raw SQLite
commit of the same snapshot (WAL, synchronous=FULL, same disk).

`audit_ratio`: the same with a read in each turn, whose intent and result are entries of the audit log with a signed tree
head in the turn's commit, against the same wake in the same process with the entries left out: turn about, by replacing what
makes them. A wake without a call that leaves the home makes no entry at all.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import apsw
import pydantic_monty as monty
import uvloop

from bench.report import percentile, project
from overwinter.adapters.sqlite import audited
from overwinter.app import App
from overwinter.audit import Entry

PROGRAM = """
import tools
total = 0
while True:
    total += await tools.receive()
"""
CALLING = """
import tools, work
total = 0
while True:
    total += await tools.receive()
    await work.look()
"""
EVENTS = 6
"""Of one such wake: message, turn, call, its answer, turn, call."""
TOOLS = '''"""One."""

from overwinter import read


@read
async def look() -> int:
    """Return at once."""
    return 1
'''


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    parked, samples = (1_000, 100) if is_small else (10_000, 1_000)
    with project(TOOLS) as place:
        return anyio.run(wakes, place, parked, samples, backend_options={"loop_factory": uvloop.new_event_loop})


async def wakes(place: Path, parked: int, samples: int) -> dict[str, Any]:
    """Park `parked` runs, wake `samples` of them one at a time."""
    ours: list[float] = []
    floor: list[float] = []
    with bare_floor(place / "floor.db") as bare:
        async with App.open(place / ".overwinter") as app:
            run_ids = await park(app, parked)
            for number in range(samples + 50):
                run_id = run_ids[number * 7 % parked]
                since = (await app.run(run_id)).events + 1  # the message itself is the next event
                await app.send(run_id, 1)
                began = time.perf_counter()
                await app.committed(run_id, since)
                ours.append(1e3 * (time.perf_counter() - began))
                began = time.perf_counter()
                bare()
                floor.append(1e3 * (time.perf_counter() - began))
            audit = await audited_wakes(app, samples)
    ours, floor = ours[50:], floor[50:]  # warm-up
    return {
        "parked": parked,
        "n": samples,
        "p50_ms": round(percentile(ours, 0.5), 3),
        "p99_ms": round(percentile(ours, 0.99), 3),
        "floor_p50_ms": round(percentile(floor, 0.5), 3),
        "floor_p99_ms": round(percentile(floor, 0.99), 3),
        "ratio": round(percentile(ours, 0.5) / percentile(floor, 0.5), 2),
        **audit,
    }


async def audited_wakes(app: App, samples: int) -> dict[str, float]:
    """Wake one run again and again, with entries and without in turn."""
    makes, (run_id,) = (audited.turn, audited.facts), await park(app, 1, CALLING)
    times: tuple[list[float], list[float]] = ([], [])
    try:
        for number in range(2 * (samples + 50)):
            is_without = number % 2
            audited.turn, audited.facts = (_none, _none) if is_without else makes
            since = (await app.run(run_id)).events
            began = time.perf_counter()
            await app.send(run_id, 1)
            await app.committed(run_id, since + EVENTS - 1)
            times[is_without].append(1e3 * (time.perf_counter() - began))
    finally:
        audited.turn, audited.facts = makes
    with_entries, without = (percentile(each[50:], 0.5) for each in times)
    return {
        "audited_p50_ms": round(with_entries, 3),
        "unaudited_p50_ms": round(without, 3),
        "audit_ratio": round(with_entries / without, 2),
    }


def _none(*_: object, **__: object) -> list[Entry]:
    return []


async def park(app: App, count: int, program: str = PROGRAM) -> list[str]:
    """Start runs and return when all of them wait for a message."""
    run_ids = [await app.start(program, name="parked") for _ in range(count)]
    for run_id in run_ids:
        await app.committed(run_id, 1)
    return run_ids


class bare_floor:  # noqa: N801 - used as a context manager, read as a verb
    """The least that a wake can cost with these parts: `with bare_floor(path) as once: once()`."""

    def __init__(self, database: Path) -> None:
        self.database = database

    def __enter__(self) -> Callable[[], None]:
        """Return a function that does it once."""
        self.pool = monty.Monty(max_processes=1, request_timeout=15)
        self.pool.__enter__()
        self.connection = apsw.Connection(str(self.database))
        for pragma in ("page_size=8192", "journal_mode=wal", "synchronous=full"):
            self.connection.execute(f"pragma {pragma}")
        self.connection.execute("create table snapshot (run integer primary key, body blob)")
        modules = {"tools": monty.ExternalModule({"receive": lambda: None})}
        limits = monty.ResourceLimits(max_feed_duration_secs=10.0, max_turn_duration_secs=2.0, max_memory=64 << 20)
        with self.pool.checkout(limits=limits, external_modules=modules) as session:
            self.ticket, self.snapshot = blocked(session.feed_start(PROGRAM))
        return self.once

    def once(self) -> None:
        """Load, resume, dump, commit."""
        with self.pool.checkout() as session:
            step: Any = session.load_snapshot(self.snapshot)
            self.ticket, self.snapshot = blocked(step.resume({self.ticket: {"return_value": 1}}))
        with self.connection:
            self.connection.execute("replace into snapshot values (1, ?)", (self.snapshot,))

    def __exit__(self, *error: object) -> None:
        """Close both."""
        self.connection.close()
        self.pool.__exit__(None, None, None)


def blocked(step: Any) -> tuple[int, bytes]:
    """Drive a program until it waits; return its ticket and its state."""
    ticket = -1
    while not isinstance(step, monty.FutureSnapshot):
        if step.is_os_function:
            step = step.resume_auto()
        else:
            ticket, step = step.call_id, step.resume({"future": ...})
    return ticket, step.dump()
