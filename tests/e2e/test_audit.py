"""`overwinter audit` as a user types it, and as docs/audit.md says it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from shells import Shell, certified, until

PAGE = (Path(__file__).parents[2] / "docs/audit.md").read_text(encoding="utf-8")
WRONG = 17


@pytest.fixture
def worked(shell: Shell) -> Shell:
    (shell.place / "program.py").write_text("await shop.double(number=2)\nawait shop.pay(cents=7)\n")
    assert shell("run", "program.py").returncode == 0
    return shell


def out(shell: Shell, *words: str) -> str:
    ended = shell(*words)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return ended.stdout


def tried(shell: Shell, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in which `overwinter` and `python` are of this checkout."""
    commands = shell.place / "bin"
    commands.mkdir()
    for name, words in (("overwinter", f"{sys.executable} -m overwinter"), ("python", sys.executable)):
        (commands / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (commands / name).chmod(0o700)
    environment = {**shell.environment, "PATH": f"{commands}:{os.environ['PATH']}"}
    return subprocess.run(
        ["/bin/sh", "-exu", "-c", script], cwd=shell.place, env=environment, capture_output=True, text=True, check=False
    )


def test_the_commands_of_the_documentation_work(worked: Shell):
    script = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[0]
    ended = tried(worked, script)
    assert ended.returncode == 0, ended.stderr
    assert "agents.default.tools: shop.*" in ended.stdout
    assert "nothing is wrong" in ended.stdout
    assert "is in the log overwinter/" in ended.stdout
    assert "5 entries, " in ended.stdout


def test_a_log_that_was_changed_is_said_with_an_exit_code_of_its_own(worked: Shell):
    out(worked, "audit", "prove", "3", "-o", "proof")
    key = out(worked, "audit", "key").strip()
    damaged = (worked.place / "proof").read_text().replace("shop.pay", "shop.pie")
    (worked.place / "proof").write_text(damaged)
    refused = worked("audit", "prove", "--check", "proof", "--key", key)
    assert (refused.returncode, refused.stdout[:6]) == (WRONG, "WRONG ")
    db = apsw.Connection(str(worked.place / ".overwinter" / "store.db"))
    db.execute("update audit_entry set entry = cast(replace(cast(entry as text), 'pay', 'pie') as blob) where seq = 3")
    db.close()
    for words in (("--key", key), ()):
        found = worked("audit", "verify", "--json", *words)
        report = json.loads(found.stdout)
        assert (found.returncode, report["is_well"]) == (WRONG, False)
        assert report["faults"][0].startswith("tree head 4: among entries")


def test_wrong_words_are_wrong_usage(worked: Shell):
    for words, code in (
        (("log", "--kind", "odd"), 2),
        (("log", "--since", "soon"), 2),
        (("show", "99"), 4),
        (("prove",), 2),
        (("prove", "--check", "program.py"), 2),
        (("prove", "--check", "program.py", "--key", "k"), 2),
        (("verify", "--key", "k"), 2),
        (("verify", "--home", "nowhere"), 4),
    ):
        ended = worked("audit", *words)
        assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), (words, ended)


@pytest.mark.timeout(120)
def test_a_witness_elsewhere_signs_by_order_and_by_itself(worked: Shell):
    key = out(worked, "audit", "key").strip()
    witness = worked.popen("audit", "witness", "serve", "--file", "w.json", "--key", key, "--port", "0", "--json")
    try:
        assert witness.stdout is not None
        said = json.loads(witness.stdout.readline())
        assert "signed 5 entries" in out(worked, "audit", "witness", "ask", said["url"], "--key", said["key"])
        checked = json.loads(out(worked, "audit", "verify", "--witness-key", said["key"], "--json"))
        assert checked["witnessed"] == 5
        place = worked.place / "overwinter.toml"
        words = f'[audit]\nwitness = "{said["url"]}"\nwitness_key = "{said["key"]}"\n'
        place.write_text(place.read_text() + words)
        worked.serve()
        out(worked, "revoke", "default")

        def witnessed() -> bool:
            report = json.loads(worked("audit", "verify", "--json").stdout)
            return (report["witnessed"], report["warnings"]) == (6, [])

        until(witnessed)
    finally:
        witness.send_signal(signal.SIGINT)
        witness.communicate()
    assert "no witness answers" in worked("audit", "verify").stderr


@pytest.mark.timeout(120)
def test_a_witness_over_tls_is_asked_only_if_its_certificate_is_vouched_for(worked: Shell):
    key, (certificate, private) = out(worked, "audit", "key").strip(), certified(worked.place)
    words = ("audit", "witness", "serve", "--file", "w.json", "--key", key, "--port", "0", "--json")
    assert "given together" in worked(*words, "--tls-cert", str(certificate)).stdout
    witness = worked.popen(*words, "--tls-cert", str(certificate), "--tls-key", str(private))
    try:
        assert witness.stdout is not None
        said = json.loads(witness.stdout.readline())
        assert said["url"].startswith("https://127.0.0.1:")
        asked = ("audit", "witness", "ask", said["url"], "--key", said["key"])
        assert "no witness answers" in worked(*asked).stderr
        worked.environment["SSL_CERT_FILE"] = str(certificate)
        assert "signed 5 entries" in out(worked, *asked)
    finally:
        witness.send_signal(signal.SIGINT)
        witness.communicate()
