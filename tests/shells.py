"""Real processes: the command as a user types it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

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
        # A job in the background of a script inherits that Ctrl-C is ignored: here it is heard, as in a terminal.
        return subprocess.Popen(
            ["env", "--default-signal=INT", sys.executable, "-m", "overwinter", *words],
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


def certified(place: Path) -> tuple[Path, Path]:
    """Write a certificate for this machine, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a home")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1)
    )
    there = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = builder.add_extension(there, critical=False).sign(key, hashes.SHA256())
    written = place / "cert.pem", place / "key.pem"
    written[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    written[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return written
