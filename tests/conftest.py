"""What every test may ask for."""

import os
import shutil
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from claims import CLAIMS
from provider import Mock, running

SEEDS_DEFAULT = 200
MEMORY, MEMORY_BYTES_MIN = Path("/dev/shm"), 2 << 30
"""Where homes of tests lie, if there is room: a sync of it costs nothing. Tests end processes, not machines, so a home is
as durable there as on a disk."""
TOOLS = '''"""Tools of the tests: a ledger in a file, so that it survives what the process does not."""

import os
import sys
from pathlib import Path

from overwinter import CallError, Key, OutcomeUnknown, idempotent, read, write

LEDGER = Path(os.environ["TEST_LEDGER"])


def _note(line: str) -> None:
    with LEDGER.open("a") as file:
        file.write(line + "\\n")


@read
async def double(*, number: int) -> int:
    """Twice the number."""
    return 2 * number


@idempotent
async def charge(*, cents: int, key: Key) -> str:
    """Charge, once per key, as a service would that honours it."""
    if f"charge {key}" not in LEDGER.read_text().splitlines():
        _note(f"charge {key}")
    _note(f"asked {key}")
    return f"charged {cents}"


@write
async def pay(*, cents: int) -> str:
    """Pay, again and again if asked."""
    _note(f"pay {cents}")
    return f"paid {cents}"


@write
def vanish(*, cents: int) -> str:
    """Pay, and lose the answer."""
    _note(f"pay {cents}")
    raise OutcomeUnknown("the line went dead")


@read
def broken(*, status: int = 402) -> None:
    """Refuse."""
    raise CallError("the card was declined", status=status, code="card_declined")


@read(attempts_max=1)
async def leave(*, how: str) -> None:
    """End in a way no function should."""
    if how == "exit":
        sys.exit(3)
    if how == "cancel":
        raise asyncio.CancelledError("by itself")
    raise KeyboardInterrupt


@read
def leave_thread() -> None:
    """End a thread."""
    sys.exit(4)


@read(attempts_max=3)
async def flaky(*, name: str) -> int:
    """Fail twice, then answer."""
    _note(f"flaky {name}")
    if LEDGER.read_text().splitlines().count(f"flaky {name}") < 3:
        raise CallError("not now", status=503, code="busy", retry_after_s=2.0)
    return 3
'''


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the tools of the tests note what they did."""
    path = tmp_path / "ledger"
    path.touch()
    monkeypatch.setenv("TEST_LEDGER", str(path))
    return path


@pytest.fixture
def project(tmp_path: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the module `shop_tools` in it; each test imports its own."""
    name = f"shop_tools_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(TOOLS, encoding="utf-8")
    (tmp_path / "module").write_text(name, encoding="ascii")
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop(name, None)


@pytest.fixture
async def provider() -> AsyncGenerator[Mock]:
    """A provider of models on loopback, in the loop of the test."""
    async with running() as mock:
        yield mock


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=SEEDS_DEFAULT, help="simulations to run")
    parser.addoption("--hibernate", action="store_true", help="dump, drop and load each program at each answer")


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("untimed", deadline=None)  # a busy machine is no fault of the code
    settings.load_profile("untimed")
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    if config.getoption("--hibernate"):
        os.environ["OVERWINTER_TEST_HIBERNATE"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A claim that is not listed stops a run at once; in a process of several, it fails `test_claims` instead."""
    claimed = {mark.args[0] for item in items for mark in item.iter_markers("claim")}
    if not hasattr(config, "workerinput") and (unknown := claimed - CLAIMS.keys()):
        raise pytest.UsageError(f"tests claim what tests/claims.py does not list: {sorted(unknown)}")
