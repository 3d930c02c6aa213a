"""How long a fresh home takes to import every description, how much memory, and how long its next start takes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.descriptions import descriptions
from bench.report import project

OPENED = """
import json, resource, sys, time
from pathlib import Path
import anyio
from overwinter.app import App

async def main():
    began = time.perf_counter()
    async with App.open(Path(sys.argv[1]), is_worker=False) as app:
        seconds = time.perf_counter() - began
        functions = sum(source.functions for source in app.sources())
        faults = sum(len(source.faults) for source in app.sources())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "functions": functions, "faults": faults, "peak_mb": peak}))

anyio.run(main)
"""


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    found = descriptions()
    chosen = dict(list(found.items())[:3]) if is_small else found
    settings = "".join(f'[services.{name}]\nopenapi = "{name}.json"\n' for name in chosen)
    with project("", settings) as place:
        for name, raw in chosen.items():
            (place / f"{name}.json").write_bytes(raw)
        first, second = opened(place), opened(place)
    return {
        "descriptions": len(chosen),
        "functions": first["functions"],
        "faults": first["faults"],
        "seconds": round(first["seconds"], 2),
        "peak_mb": round(first["peak_mb"]),
        "restart_s": round(second["seconds"], 3),
    }


def opened(place: Path) -> dict[str, Any]:
    """Open the home in a process of its own, so that its peak is its own."""
    command = [sys.executable, "-c", OPENED, str(place / ".overwinter")]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(ran.stdout)
