"""Whether a budget is a hard limit: many callers in several processes, twenty times as many tries as it has room for.

Each process has `models.db` open as the gateway has, and 64 callers at it; each call falls under three budgets (a tenant's, a
team's, an agent's), holds what it then costs, and is settled, twice, in between other callers' reservations. The team's budget
has room for `expected` calls. A process of its own looks at that row all the while: `seen_max` is the most that was ever spent and
held together. Amounts are nano-dollars.

`reserve_p50_us` is the median of a reservation while four processes are at one file on this machine's cores, waits for each
other's locks in it; `alone_p50_us` that of one process, and the floor an empty transaction of the same file.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import apsw

from bench.report import percentile
from overwinter.adapters.models.file import ModelsFile, open_models_file
from overwinter.clock import SystemClock
from overwinter.gateway.budget import Budget, Hold, Line, Reserved, Scope
from overwinter.gateway.usage import Usage

PROCESSES = 4
CALLERS = 64
TRIES_EACH = 20
COST = 1_234_567
KEY = b"k" * 32


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    room = 100 if is_small else 1_000
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as place:
        path = Path(place) / "models.db"
        alone_us, floor_us = alone(Path(place) / "alone.db", 500 if is_small else 5_000)
        ended, seen = together(path, room)
        with open_models_file(path, SystemClock(), key=KEY, answers_bytes_max=0) as file:
            (left,) = anyio.run(file.spent, budgets(room)[1:2])
    times = [each for one in ended for each in one["times_us"]]
    return {
        "limit": room * COST,
        "spent": left.spent_nusd,
        "held": left.held_nusd,
        "seen_max": seen,
        "tries": len(times),
        "admitted": sum(one["admitted"] for one in ended),
        "expected": room,
        "processes": PROCESSES,
        "callers": PROCESSES * CALLERS,
        "reserve_p50_us": round(percentile(times, 0.5), 1),
        "reserve_p99_us": round(percentile(times, 0.99), 1),
        "alone_p50_us": round(percentile(alone_us, 0.5), 1),
        "alone_p99_us": round(percentile(alone_us, 0.99), 1),
        "floor_p50_us": round(percentile(floor_us, 0.5), 1),
    }


def together(path: Path, room: int) -> tuple[list[dict[str, Any]], int]:
    """Return what each process did, and the most that was ever spent and held."""
    command = [sys.executable, "-m", "bench.budget", str(path), str(room)]
    with open_models_file(path, SystemClock(), key=KEY, answers_bytes_max=0):
        begin = str(time.time() + 2)
        ran = [subprocess.Popen([*command, str(number), begin]) for number in range(PROCESSES)]
        seen = watched(path, ran)
    assert not any(each.wait() for each in ran), "a process failed"
    return [json.loads(path.with_name(f"{number}.json").read_text()) for number in range(PROCESSES)], seen


def watched(path: Path, ran: "list[subprocess.Popen[bytes]]") -> int:
    """Return the most that the team's budget ever had spent and held, until every process has ended."""
    most = 0
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    db.set_busy_timeout(5_000)
    while any(os.waitid(os.P_PID, each.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for each in ran):
        for (now,) in db.execute("select spent + held from budget where kind = 'team'"):
            most = max(most, now)
        time.sleep(0.001)
    db.close()
    return most


def alone(path: Path, count: int) -> tuple[list[float], list[float]]:
    """Return how long a reservation takes when one process is at the file, and an empty transaction."""
    with open_models_file(path, SystemClock(), key=KEY, answers_bytes_max=0) as file:
        times = anyio.run(tried, file, "alone", count, count)[1]
        db, floor = apsw.Connection(str(path)), list[float]()
        for number in range(count):
            began = time.perf_counter()
            db.execute("begin immediate")
            db.execute("update meta set format = format")
            db.execute("commit")
            floor.append(1e6 * (time.perf_counter() - began))
            del number
        db.close()
    return times, floor


def budgets(room: int) -> tuple[Budget, ...]:
    """Return the three that each call falls under."""
    return (
        Budget(scope=Scope(kind="tenant", name="default"), window="day", limit_nusd=100 * room * COST),
        Budget(scope=Scope(kind="team", name="ops"), window="ever", limit_nusd=room * COST),
        Budget(scope=Scope(kind="agent", name="default"), window="ever", limit_nusd=100 * room * COST),
    )


async def tried(file: ModelsFile, who: str, count: int, room: int) -> tuple[int, list[float]]:
    """Try so many calls by 64 callers; return how many were admitted, and how long each reservation took."""
    left, admitted, times = iter(range(count)), 0, list[float]()

    async def caller() -> None:
        nonlocal admitted
        for number in left:
            name = f"{who}:{number}"
            line = Line(
                call=name, began_us=number, agent="default", run_id="", key="tok", dialect="chat", upstream="",
                model="gpt-4o-mini", held_nusd=COST,
            )  # fmt: skip
            began = time.perf_counter()
            reserved, _ = await file.reserve(Hold(call=name, amount_nusd=COST, budgets=budgets(room)), line)
            times.append(1e6 * (time.perf_counter() - began))
            await anyio.lowlevel.checkpoint()
            if reserved is Reserved.HELD:
                admitted += 1
                usage = Usage(fresh=280, output=50)
                ended = Line(
                    call=name, began_us=number, agent="default", run_id="", key="tok", dialect="chat", upstream="mock",
                    model="gpt-4o-mini", state="settled", held_nusd=COST, cost_nusd=COST, usage=usage, status="answered",
                )  # fmt: skip
                assert await file.settle(ended), "settled once"
                assert not await file.settle(ended), "and not twice"

    async with anyio.create_task_group() as group:
        for _ in range(CALLERS):
            group.start_soon(caller)
    return admitted, times


def main() -> None:
    """Be one of the processes."""
    path, room, who, begin = sys.argv[1:]
    with open_models_file(Path(path), SystemClock(), key=KEY, answers_bytes_max=0) as file:
        time.sleep(max(0.0, float(begin) - time.time()))
        count = int(room) * TRIES_EACH // PROCESSES
        admitted, times = anyio.run(tried, file, who, count, int(room))
    Path(path).with_name(f"{who}.json").write_text(json.dumps({"admitted": admitted, "times_us": times}))


if __name__ == "__main__":
    main()
