"""Run one bench, or all of them, each in a process of its own."""

import argparse
import compileall
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import overwinter
from bench.report import NAMES, machine, python_ms


def main() -> int:
    """Run what the command line names; exit with 1 if a bench failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=[*NAMES, "all"], help="which figure to measure")
    parser.add_argument("--small", action="store_true", help="a tenth of the size: to try it, not to quote it")
    chosen = parser.parse_args()
    if chosen.name == "all":
        return all_of_them(is_small=chosen.small)
    # As an installed package is: else each server that a bench starts compiles the package first, for 0.3 s.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    compileall.compile_dir(Path(overwinter.__file__).parent, quiet=2)
    bench = importlib.import_module(f"bench.{NAMES[chosen.name]}")
    before_ms = python_ms()
    figures = bench.measure(is_small=chosen.small)
    about = {"is_small": chosen.small, "machine": machine(), "python_ms": [before_ms, python_ms()]}
    print(json.dumps({"bench": chosen.name, **figures, **about}))
    return 0


def all_of_them(*, is_small: bool) -> int:
    """A process each, so that no bench measures what another one left in memory."""
    size = ["--small"] if is_small else []
    ended = [subprocess.run([sys.executable, "-m", "bench", name, *size], check=False).returncode for name in NAMES]
    return int(any(ended))


if __name__ == "__main__":
    sys.exit(main())
