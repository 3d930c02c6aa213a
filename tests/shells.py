"""Real processes: the command as a user types it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from overwinter.faces.cli.door import is_served


class Shell:
    """A directory with a project in it, and the command."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.servers: list[subprocess.Popen[str]] = []
        # The command of this very checkout, and the tools' ledger.
        self.environment = {**os.environ, "TEST_LEDGER": str(place / "ledger"), "NO_COLOR": "1"}
        (place / "ledger").touch()

    def __call__(self, *words: str, timeout: float = 40) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "overwinter", *words],
            cwd=self.place, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def popen(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "overwinter", *words],
            cwd=self.place, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def serve(self) -> subprocess.Popen[str]:
        server = self.popen("serve")
        self.servers.append(server)
        until(lambda: is_served(self.place / ".overwinter") or server.poll() is not None)
        assert server.poll() is None, server.communicate()
        return server

    def ledger(self) -> list[str]:
        return (self.place / "ledger").read_text().splitlines()

    def close(self) -> None:
        for server in self.servers:
            if server.poll() is None:
                server.send_signal(signal.SIGKILL)
            server.communicate()


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
