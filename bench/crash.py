"""kill -9 of a loaded server at random moments, 200 times, judged by the ledger of a service in a process of its own."""

import os
import random
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from shutil import copytree
from typing import Any

from bench.parked import serve
from bench.report import project
from overwinter.errors import OverwinterError
from overwinter.faces.cli.door import served_socket
from overwinter.faces.client import Client

PROGRAM = """
import asyncio, billing
paid = 0
for number in range(calls):
    receipt = await billing.charge(invoice_id=invoice_id, amount_cents=number + 1)
    paid += receipt["amount_cents"]
    await asyncio.sleep(pause_s)
paid
"""
CALLS = 8
EXAMPLE = Path(__file__).parents[1] / "examples" / "invoices"


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    kills = 20 if is_small else 200
    with project('"""None."""\n') as place:
        copytree(EXAMPLE / "shop", place / "shop")
        (place / "overwinter.toml").write_text(
            (EXAMPLE / "overwinter.toml").read_text(encoding="utf-8"), encoding="utf-8"
        )
        service = subprocess.Popen(
            [sys.executable, str(EXAMPLE / "billing_service.py"), str(place / "ledger.db"), "--failures", "0"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert service.stdout is not None
        import json

        url = json.loads(service.stdout.readline())["url"]
        try:
            return killed(place, url, kills)
        finally:
            service.kill()
            service.wait()


def killed(place: Path, url: str, kills: int) -> dict[str, Any]:
    """Keep the server under load, kill it again and again, finish, and compare with the ledger."""
    rng = random.Random(11)
    environment = {"BILLING_URL": url, "INVOICES_DB": "none"}
    server = serve(place, environment)
    runs: list[str] = []
    recoveries: list[float] = []
    for _ in range(kills):
        runs += load(place, len(runs), 3)
        time.sleep(rng.uniform(0.0, 0.25))
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        dead = time.monotonic()
        server = serve(place, environment)
        recoveries.append(first_turn(place, dead))
    client = Client(served_socket(place / ".overwinter"))
    while client.get("runs", limit=1)["counts"].get("live"):
        time.sleep(0.2)
    lost = 0
    for run in runs:
        ended = client.get("runs", run)
        lost += ended["status"] != "finished" or ended["result"] != CALLS * (CALLS + 1) // 2
    with urllib.request.urlopen(f"{url}/movements", timeout=30) as answer:
        import json

        moved = Counter((row["invoice_id"], row["amount_cents"]) for row in json.load(answer)["movements"])
    server.send_signal(signal.SIGTERM)
    server.wait()
    wanted = {(invoice, cents) for invoice in range(len(runs)) for cents in range(1, CALLS + 1)}
    return {
        "kills": kills,
        "runs": len(runs),
        "effects": sum(moved.values()),
        "lost": lost + len(wanted - moved.keys()),
        "duplicated": sum(moved.values()) - len(moved),
        "recovery_p50_ms": round(statistics.median(recoveries)),
        "recovery_max_ms": round(max(recoveries)),
    }


def load(place: Path, first: int, count: int) -> list[str]:
    """Start a few runs; a start whose answer is lost is repeated under its key."""
    client = Client(served_socket(place / ".overwinter"))
    started: list[str] = []
    for number in range(first, first + count):
        inputs = {"invoice_id": number, "calls": CALLS, "pause_s": 0.03}
        while True:
            try:
                started.append(client.post("runs", source=PROGRAM, inputs=inputs, dedup=str(number))["id"])
                break
            except OverwinterError:
                time.sleep(0.01)
    return started


def first_turn(place: Path, dead: float) -> float:
    """Return the milliseconds from the death of one server to the first turn of the next, start of the process included."""
    client = Client(served_socket(place / ".overwinter"))
    began = time.monotonic()
    while (health := client.get("health"))["turns"] == 0:
        if not health["runs"].get("live") or time.monotonic() - began > 5:
            break
        time.sleep(0.005)
    return 1e3 * (time.monotonic() - dead)
