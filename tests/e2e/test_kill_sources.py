"""kill -9 of the real server while a service answers: pages of a list, a file on its way, a task of an MCP server."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from depot import DRAWING, PAGES, PARTS
from shells import Shell, until

pytestmark = pytest.mark.timeout(120)
TESTS = Path(__file__).parents[1]
AGENT = '[agents.default]\nowner = "owner@example.com"\ntools = ["*"]\n'
DIGEST = hashlib.sha256(DRAWING).hexdigest()


class Counterpart:
    """A service in a process of its own, and what it noted."""

    def __init__(self, words: list[str], log: Path) -> None:
        self._log = log
        self.process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()

    def noted(self, word: str) -> int:
        """Return how many notes begin with a word."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return sum(line.startswith(word) for line in lines)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def depot(shell: Shell) -> Iterator[Callable[..., Counterpart]]:
    with ExitStack() as stack:

        def begun(*silences: str) -> Counterpart:
            log = shell.place / "requests"
            made = Counterpart([str(TESTS / "depot.py"), str(log), *silences], log)
            stack.callback(made.close)
            url = json.loads(made.said)["servers"][0]["url"]
            (shell.place / "depot.json").write_text(made.said)
            service = f'[services.depot]\nopenapi = "depot.json"\nbase_url = "{url}"\n'
            (shell.place / "overwinter.toml").write_text(AGENT + service)
            return made

        yield begun


def begun_and_killed(shell: Shell, source: str, counterpart: Counterpart, *reached: tuple[str, int]) -> str:
    """Start a program, kill the server each time that its counterpart has noted so much, and return the run."""
    (shell.place / "program.py").write_text(source)
    shell.serve()
    run = shell("run", "program.py", "-d").stdout.strip()
    for word, count in reached:
        killed(shell, counterpart, word, count)
    return run


def killed(shell: Shell, counterpart: Counterpart, word: str, count: int) -> None:
    until(lambda: counterpart.noted(word) >= count)
    server = shell.servers[-1]
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    shell.serve()


def ended(shell: Shell, run: str) -> dict[str, object]:
    until(lambda: json.loads(shell("show", run, "--json").stdout)["status"] != "live")
    return json.loads(shell("show", run, "--json").stdout)


@pytest.mark.claim("D1.kill_9")
def test_a_list_whose_pages_are_being_followed_is_whole_after_each_kill(shell: Shell, depot):
    service = depot("page:0", "page:2", f"page:{PAGES - 1}")
    reached = [("page 0", 1), ("page 2", 1), (f"page {PAGES - 1}", 1)]
    source = "rows = await depot.list_parts()\n[row['id'] for row in rows]"
    run = begun_and_killed(shell, source, service, *reached)
    assert ended(shell, run)["result"] == [part["id"] for part in PARTS]
    assert service.noted("page 0") == len(reached) + 1


@pytest.mark.claim("D4.write_parks")
@pytest.mark.parametrize("place", ["upload", "answer"])
def test_an_upload_that_a_kill_cut_off_parks_and_is_repeated_by_order_alone(shell: Shell, depot, place):
    service = depot("drawing", place)
    source = "file = await depot.get_drawing()\n(await depot.leave_file(file=file))['sha256']"
    run = begun_and_killed(shell, source, service, ("drawing", 1), ("stored" if place == "answer" else "upload", 1))
    until(lambda: f"{run}:1" in shell("questions", "--json").stdout)
    assert service.noted("upload") == 1
    assert shell("answer", f"{run}:1", "repeat").returncode == 0
    assert ended(shell, run)["result"] == DIGEST
    assert service.noted(f"stored {DIGEST}") == service.noted("stored") == (2 if place == "answer" else 1)


@pytest.mark.claim("D4.same_key")
@pytest.mark.parametrize("place", ["upload", "answer"])
def test_an_upload_that_carries_a_key_is_repeated_whole_under_it(shell: Shell, depot, place):
    service = depot(place)
    source = "file = await depot.get_drawing()\n(await depot.put_file(name='a b', body=file))['sha256']"
    run = begun_and_killed(shell, source, service, ("stored" if place == "answer" else "upload", 1))
    assert ended(shell, run)["result"] == DIGEST
    assert service.noted(f"upload {run}:1") == service.noted("upload") == 2
    assert service.noted(f"stored {DIGEST}") == service.noted("stored") == 1


@pytest.fixture
def kiln(shell: Shell) -> Iterator[Callable[..., Counterpart]]:
    with ExitStack() as stack:

        def begun(transport: str, *silence: str) -> Counterpart:
            words = [str(TESTS / "kiln.py"), str(shell.place), *silence]
            made = Counterpart([*words, "--http"], shell.place / "log")
            stack.callback(made.close)
            place = made.said.strip() if transport == "http" else " ".join([sys.executable, *words])
            (shell.place / "overwinter.toml").write_text(f'{AGENT}[services.kiln]\nmcp = "{place}"\n')
            return made

        yield begun


@pytest.mark.claim("D1.kill_9")
@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_a_task_under_way_is_picked_up_after_each_kill_and_not_begun_again(shell: Shell, kiln, transport):
    server = kiln(transport, "tasks/result")
    run = begun_and_killed(shell, "await kiln.fire(pot='blue')", server, ("tasks/get", 1))
    (shell.place / "fired").touch()
    killed(shell, server, "tasks/result", 1)
    assert ended(shell, run)["result"] == "fired 0"
    assert (server.noted("tools/call"), server.noted("tasks/result")) == (1, 2)


@pytest.mark.claim("D4.write_parks")
@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_a_task_that_was_begun_under_the_kill_parks_and_is_not_begun_again(shell: Shell, kiln, transport):
    server = kiln(transport, "tools/call")
    run = begun_and_killed(shell, "await kiln.fire(pot='blue')", server, ("tools/call", 1))
    until(lambda: f"{run}:0" in shell("questions", "--json").stdout)
    assert server.noted("tools/call") == 1
    assert shell("answer", f"{run}:0", 'done "seen in the kiln"').returncode == 0
    assert ended(shell, run)["result"] == "seen in the kiln"
