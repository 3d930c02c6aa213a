"""The API, asked by schemathesis whatever its OpenAPI document allows, and what it does not."""

import json
import subprocess
import sys

import pytest

from shells import Shell

pytest.importorskip("schemathesis", reason="a tool of development: `pip install schemathesis`")

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method"
)
LEFT_OUT = "rotate|witness|collect"
"""What would change the keys of the home, or ask another machine."""


@pytest.mark.timeout(90)
def test_whatever_is_asked_the_answer_is_of_the_document_and_no_fault_of_ours(shell: Shell):
    scopes = [f"--scope={each}" for each in ("read", "act", "approve", "admin")]
    token = shell("token", "create", "ana@example.com", *scopes).stdout.strip()
    server = shell.popen("serve", "--port", "0", "--json")
    assert server.stdout is not None
    try:
        url = str(json.loads(server.stdout.readline())["url"])
        command = (
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{url}/openapi.json",
            "-H",
            f"Authorization: Bearer {token}",
        )
        options = (
            "--phases=coverage,fuzzing",
            "--max-examples=8",
            "--checks",
            CHECKS,
            "--exclude-path-regex",
            LEFT_OUT,
        )
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=80, check=False)
    finally:
        server.terminate()
        server.communicate(timeout=40)
    assert (done.returncode, "generated" in done.stdout) == (0, True), done.stdout[-6_000:] + done.stderr[-2_000:]
