"""Whether the audit log tells what happened: held against the request log of a service, with kill -9 at random moments.

Every request that the service saw must have an intent in the log from before it: `missing`. Every intent with an outcome
must have been seen, unless it was denied or its outcome is unknown; and nothing denied may have been seen: `extra`. After
each restart the whole log is checked offline: `faults`.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.parked import kill, serve
from bench.report import project
from overwinter.adapters.sqlite import AuditLog, open_log
from overwinter.errors import OverwinterError
from overwinter.faces.cli.door import served_socket
from overwinter.faces.client import Client
from overwinter.verify_export import verify

TOOLS = '''"""Functions of a service on a port."""

import asyncio, os

from overwinter import Key, idempotent, write


async def asked(key):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["COUNTERPART_PORT"]))
    try:
        writer.write(f"{key}\\n".encode())
        if await reader.readline() != b"ok\\n":
            raise ConnectionError("no answer")
    finally:
        writer.close()


@idempotent
async def charge(*, cents: int, key: Key) -> int:
    """Charge, once per key."""
    await asked(key)
    return cents


@write
async def pay(*, cents: int, key: Key) -> int:
    """Pay, again and again if asked."""
    await asked(key)
    return cents
'''
POLICY = """
@id("never-13")
forbid(principal, action == Action::"call", resource == Function::"work.charge") when { context.args.cents == 13 };
"""
PROGRAM = """
import asyncio, work
total = 0
for lap in range(laps):
    total += sum(await asyncio.gather(*[work.charge(cents=100 + number) for number in range(width)]))
try:
    await work.charge(cents=13)
except PermissionError:
    total += 1
try:
    total += await work.pay(cents=7)
except RuntimeError:
    total += 7
total
"""
WIDTH, LAPS = 20, 2
CALLS = WIDTH * LAPS + 1
"""Of one run, that reach the service."""
PER_KILL = 2_500
HEADS_APART = 4_096
"""Checked after each restart; the last is always among them."""
LIVE_MAX = 4
"""Runs that may be left over when the next kill is prepared."""


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures; it is an error if the logs differ."""
    figures = truth(10_000 if is_small else 100_000)
    assert figures["missing"] == figures["extra"] == figures["faults"] == 0, figures
    return figures


def truth(calls: int, *, per_kill: int = PER_KILL, seed: int = 7) -> dict[str, Any]:
    """Have so many calls made while the server is killed, and compare."""
    with project(TOOLS) as place:
        (place / "policies").mkdir()
        (place / "policies" / "rules.cedar").write_text(POLICY, encoding="utf-8")
        words = [sys.executable, "-m", "bench.counterpart", str(place / "requests")]
        service = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert service.stdout is not None
        try:
            return killed(place, {"COUNTERPART_PORT": service.stdout.readline().strip()}, calls, per_kill, seed)
        finally:
            service.kill()
            service.communicate()


def killed(place: Path, environment: dict[str, str], calls: int, per_kill: int, seed: int) -> dict[str, Any]:
    """Keep the server at work, kill it again and again, let all end, and compare."""
    dice = random.Random(seed)
    server = serve(place, environment)
    client = Client(served_socket(place / ".overwinter"))
    runs = kills = 0
    faults: list[str] = []
    busy_s = 0.2
    while runs * CALLS < calls:
        began = time.monotonic()
        for _ in range(per_kill // CALLS):
            start(client, runs)
            runs += 1
        time.sleep(dice.uniform(0, busy_s))
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        kills += 1
        faults += checked(place)
        server = serve(place, environment)
        client.close()
        settled(client, LIVE_MAX)
        busy_s = time.monotonic() - began
    settled(client, 0)
    client.close()
    kill(server)
    faults += checked(place)
    return {"kills": kills, "runs": runs, "faults": len(faults), **compared(place)}


def start(client: Client, number: int) -> None:
    """Start a run."""
    inputs = {"laps": LAPS, "width": WIDTH}
    client.post("runs", source=PROGRAM, inputs=inputs, dedup=str(number))


def settled(client: Client, live_max: int) -> None:
    """Return when few runs are left; a write whose outcome nobody knows is said to have failed."""
    while True:
        try:
            for question in client.get("questions")["questions"]:
                client.post("questions", question["question"], "answer", answer="failed", by="owner")
            if client.get("health")["runs"].get("live", 0) <= live_max:
                return
        except OverwinterError as error:
            print(error, file=sys.stderr)
        time.sleep(0.05)


def checked(place: Path) -> list[str]:
    """Return what is wrong with the log."""
    log = opened(place)
    return verify(log.export(with_bodies=False, heads_apart=HEADS_APART), str(log.key)).faults


def opened(place: Path) -> AuditLog:
    """Return the log, whoever writes it."""
    return open_log(place / ".overwinter" / "store.db")


@dataclass(slots=True)
class Told:
    """What the audit log says of calls, by their keys."""

    intents: dict[str, int] = field(default_factory=dict[str, int])
    """When, in milliseconds."""
    answered: set[str] = field(default_factory=set[str])
    unknown: set[str] = field(default_factory=set[str])
    denied: set[str] = field(default_factory=set[str])

    def take(self, entry: Mapping[str, Any]) -> None:
        """Add an entry."""
        key = f"{entry.get('run')}:{entry.get('call')}"
        match entry["kind"]:
            case "call.intent":
                self.intents[key] = entry["ts"]
            case "call.result":
                (self.unknown if entry.get("errors") else self.answered).add(key)
            case "deny":
                self.denied.add(key)
            case _:
                pass


def compared(place: Path) -> dict[str, Any]:
    """Return what either log has and the other lacks."""
    told, entries = Told(), 0
    for line in opened(place).export(with_bodies=False, heads_apart=1 << 60):
        if line.startswith(b"{"):
            entries += 1
            told.take(json.loads(line))
    seen = [line.split() for line in (place / "requests").read_text(encoding="ascii").splitlines()]
    return {"entries": entries, **judged(told, [(int(at), key) for at, key in seen])}


def judged(told: Told, seen: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Return the comparison."""
    keys = {key for _, key in seen}
    missing = [key for at, key in seen if told.intents.get(key, at + 1) > at]
    extra = (told.answered & told.intents.keys()) - told.unknown - keys | told.denied & keys
    return {
        "calls": len(told.intents),
        "requests": len(seen),
        "repeated": len(seen) - len(keys),
        "denied": len(told.denied),
        "unknown": len(told.unknown),
        "missing": len(missing),
        "extra": len(extra),
        "without_outcome": len(told.intents.keys() - told.answered - told.unknown),
        **({"see": shown([*missing, *sorted(extra)])} if missing or extra else {}),
    }


def shown(keys: Iterable[str]) -> list[str]:
    """Return a few."""
    return list(keys)[:5]
