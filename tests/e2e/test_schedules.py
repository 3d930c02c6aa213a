"""`overwinter schedule` as a user types it, and a server that is killed when an instant has come."""

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shells import Shell, until

PAYS = "await shop.pay(cents=cents)\nawait tools.receive()\n"


def told(shell: Shell, *words: str) -> Any:
    ended = shell("schedule", *words, "--json")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return json.loads(ended.stdout)


def test_a_schedule_is_made_shown_paused_resumed_started_and_removed(shell: Shell):
    (shell.place / "pay.py").write_text("await shop.pay(cents=cents)\n")
    made = told(shell, "add", "pay.py", "--cron", "0 7 * * 1-5", "--zone", "Europe/Berlin", "--input", "cents=7")
    assert made["name"] == "pay"
    assert told(shell, "show", "pay")["start"]["inputs"] == {"cents": 7}
    assert "input     cents=7\n" in shell("schedule", "show", "pay").stdout
    other = told(shell, "add", "pay.py", "--cron", "0 8 * * *", "--input", "cents=8")
    which = shell("schedule", "show", "pay")
    assert which.returncode == 4
    assert made["id"] in which.stderr
    assert other["id"] in which.stderr
    told(shell, "remove", other["id"])
    assert told(shell, "pause", "pay", "--reason", "holidays")["paused"] == "holidays"
    assert "holidays" in shell("schedule").stdout
    assert told(shell, "resume", "pay")["next"] == made["next"]
    shell.serve()
    told(shell, "run", "pay")
    until(shell.ledger)
    assert shell.ledger() == ["pay 7"]
    told(shell, "remove", "pay")
    assert told(shell)["schedules"] == []
    log = shell("audit", "log", "--json").stdout
    assert log.count(made["id"]) >= 4


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--cron", "0 7 * * *", "--input", "cent=7"), 3),
        (("--cron", "0 7 * *", "--input", "cents=7"), 2),
        (("--cron", "0 7 * * *", "--zone", "Mars/Olympus", "--input", "cents=7"), 2),
        (("--at", "2020-01-01T00:00", "--input", "cents=7"), 2),
        (("--input", "cents=7"), 2),
    ],
)
def test_what_would_never_start_is_refused_and_nothing_is_kept(shell: Shell, words, code):
    (shell.place / "pay.py").write_text(PAYS)
    assert shell("schedule", "add", "pay.py", *words).returncode == code
    assert told(shell)["schedules"] == []


@pytest.mark.claim("C1.once")
def test_a_server_that_is_killed_when_an_instant_has_come_starts_it_once(shell: Shell):
    (shell.place / "pay.py").write_text(PAYS)
    server = shell.serve()
    at = (datetime.now(UTC) + timedelta(seconds=3)).isoformat(timespec="seconds")
    told(shell, "add", "pay.py", "--at", at, "--input", "cents=7")
    until(shell.ledger)
    server.send_signal(signal.SIGKILL)
    server.communicate()
    shell.serve()
    until(lambda: told(shell, "show", "pay")["started"] == 1)
    left = told(shell, "show", "pay")
    assert (left["next"], left["missed"]) == (None, 0)
    assert shell.ledger() == ["pay 7"]
