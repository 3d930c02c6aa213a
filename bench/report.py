"""What every bench shares: names, percentiles, the machine, a program's memory, a home to work in."""

import os
import platform
import shutil
import tempfile
import timeit
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

NAMES = {
    "wake": "wake",
    "turns": "turns",
    "parked": "parked",
    "inflight": "inflight",
    "crash": "crash",
    "jail": "jail",
    "import": "imports",
    "load": "load",
    "retrieval": "retrieval",
    "check": "check",
    "context": "context",
    "revoke": "revoke",
    "audit": "audit",
    "truth": "truth",
    "decide": "decide",
    "redact": "redact",
    "gateway": "gateway",
    "budget": "budget",
    "bill": "bill",
    "cut": "cut",
    "mcp": "mcp",
    "loop": "loop",
}
"""Bench name to file."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine() -> str:
    """Return what the figures were measured on."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def python_ms() -> float:
    """Return how long this Python takes, at this moment, for a fixed loop of its own.

    Most figures are Python's. Debian's python3 took 28 ms where one built from source without `--enable-optimizations` took
    36, and a shared machine is half as fast in one minute as in another.
    """
    return round(1e3 * min(timeit.repeat(_loop, number=1, repeat=9)), 1)


def _loop() -> None:
    kept = dict[int, tuple[int, str]]()
    for number in range(300_000):
        kept[number & 255] = number, str(number)


def rss_kb(pid: int | str = "self") -> int:
    """Return the resident memory of a process in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} has no resident memory: it ended")


def threads(pid: int | str = "self") -> int:
    """Return how many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def files(pid: int | str = "self") -> int:
    """Return how many file descriptors a process holds."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def disk_kb(place: Path) -> float:
    """Return what a directory occupies on the disk, in KiB."""
    return sum(each.stat().st_blocks for each in place.rglob("*") if each.is_file()) / 2


@contextmanager
def project(tools: str, settings: str = "") -> Generator[Path]:
    """Yield a directory with an `overwinter.toml` and a tools module `bench_tools`; the home goes to `.overwinter`.

    It lies beside the working directory, on a real disk: the temporary directory of some machines is memory.
    """
    place = Path(tempfile.mkdtemp(prefix=".bench-", dir=Path.cwd()))
    try:
        (place / "bench_tools.py").write_text(tools, encoding="utf-8")
        (place / "overwinter.toml").write_text(
            f'{settings}\n[agents.default]\nowner = "owner"\ntools = ["*"]\n\n[services.work]\npython = "bench_tools"\n',
            encoding="utf-8",
        )
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
