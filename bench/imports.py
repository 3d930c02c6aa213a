"""How long a command takes to start: `overwinter --version` beside `python -c pass`, in turns."""

import statistics
import subprocess
import sys
import time
from typing import Any


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    rounds = 5 if is_small else 25
    times: dict[str, list[float]] = {"pass": [], "version": [], "tools": []}
    commands = {
        "pass": ["-c", "pass"],
        "version": ["-m", "overwinter", "--version"],
        "tools": ["-c", "import overwinter"],
    }
    for _ in range(rounds + 1):
        for name, words in commands.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            times[name].append(1e3 * (time.perf_counter() - began))
    middle = {name: statistics.median(taken[1:]) for name, taken in times.items()}
    return {
        "n": rounds,
        "version_extra_ms": round(middle["version"] - middle["pass"], 1),
        "import_extra_ms": round(middle["tools"] - middle["pass"], 1),
        "pass_ms": round(middle["pass"], 1),
    }
