"""kill -9 of the real server, under load, again and again."""

import json
import os
import random
import signal
from collections import Counter

import pytest

from shells import until

PROGRAM = """
import asyncio
first = await shop.charge(cents=number)
await asyncio.sleep(0.2)
second, third = await asyncio.gather(shop.charge(cents=number + 1), shop.double(number=number))
message = await tools.receive()
[first, second, third, message]
"""


@pytest.mark.claim("D1.kill_9")
@pytest.mark.timeout(120)
def test_kill_9_of_the_server_loses_nothing_and_repeats_nothing(shell):
    (shell.place / "program.py").write_text(PROGRAM)
    rng = random.Random(3)
    server = shell.serve()
    runs = []
    for number in range(12):
        if number % 4 == 3:
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            server = shell.serve()
        started = shell("run", "program.py", "-d", "--input", f"number={number}", "--dedup", str(number))
        assert started.returncode == 0, started.stderr
        runs.append(started.stdout.strip())
    for number, run in enumerate(runs):
        assert shell("send", run, json.dumps({"n": number}), "--dedup", "m").returncode == 0
        if rng.random() < 0.3:
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            server = shell.serve()

    def status() -> set[str]:
        return {each["status"] for each in json.loads(shell("ps", "--all", "--json").stdout)["runs"]}

    until(lambda: status() == {"finished"})
    for number, run in enumerate(runs):
        shown = json.loads(shell("show", run, "--json").stdout)
        assert shown["result"] == [f"charged {number}", f"charged {number + 1}", 2 * number, {"n": number}]
    made = Counter(line for line in shell.ledger() if line.startswith("charge"))
    assert set(made.values()) == {1}
    assert len(made) == 2 * len(runs)
