"""The API, asked by schemathesis whatever its OpenAPI document allows, and what it does not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shells import Shell

SCHEMATHESIS = Path(sys.prefix) / "counterparts" / "python" / "bin" / "schemathesis"

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method"
)
LEFT_OUT = "rotate|witness|collect"
"""What would change the keys of the home, or ask another machine."""
SEED = os.environ.get("SCHEMA_SEED", "20261126")
"""What is asked is the same each time, so that a change is judged by what it changed; `make soak` asks other things."""


@pytest.mark.timeout(90)
def test_whatever_is_asked_the_answer_is_of_the_document_and_no_fault_of_ours(shell: Shell):
    scopes = [f"--scope={each}" for each in ("read", "act", "approve", "admin")]
    token = shell("token", "create", "ana@example.com", *scopes).stdout.strip()
    server = shell.popen("serve", "--port", "0", "--json")
    assert server.stdout is not None
    try:
        url = str(json.loads(server.stdout.readline())["url"])
        ran = subprocess.run(
            [SCHEMATHESIS, "run", f"{url}/openapi.json", "-H", f"Authorization: Bearer {token}", "--phases=coverage,fuzzing",
             "--max-examples=8", f"--seed={SEED}", "--checks", CHECKS, "--exclude-path-regex", LEFT_OUT],
            cwd=shell.place, capture_output=True, text=True, timeout=80, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    finally:
        server.terminate()
        server.communicate(timeout=40)
    assert (ran.returncode, "generated" in ran.stdout) == (0, True), ran.stdout[-6_000:] + ran.stderr[-2_000:]
