"""Serves a witness on a port until a signal ends it.

It asks for no token: what it takes is signed by a log that it knows and what it gives is public (C2SP tlog-witness). TLS is for
`seen`: who stands between could answer with an older tree head, which the log has signed, too.
"""

import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from overwinter.adapters.notes import parse_key, signer_in
from overwinter.adapters.witness import Witness, web
from overwinter.errors import UsageError
from overwinter.faces.tcp import certified

__all__ = ["serve_witness"]

LOG_KEY, WITNESS_KEY = 1, 4
"""Types of C2SP signed-note."""


def serve_witness(  # noqa: PLR0913, PLR0917 - what a witness is made of
    place: Path,
    name: str,
    log_keys: Sequence[str],
    host: str,
    port: int,
    started: Callable[[str, str], None],
    *,
    certificate: Path | None = None,
    key: Path | None = None,
) -> None:
    """Answer until SIGINT or SIGTERM.

    Args:
        place: the witness's memory; its key is made beside it at first.
        name: in its key.
        log_keys: whose tree heads it signs.
        host: to listen on.
        port: 0 for any.
        started: told its address and its public key once it listens.
        certificate: PEM file; without one it speaks http.
        key: of the certificate, PEM file.

    Raises:
        UsageError: a key is none of a log, or the port or the certificate cannot be had.
        HomeDamaged: its key is missing though it has signed.
    """
    certified(certificate, key)
    logs = [parse_key(each) for each in log_keys]
    for each in logs:
        if each.kind != LOG_KEY:
            raise UsageError(f"{each} is the key of a witness: `overwinter audit key` prints that of a log")
    signer = signer_in(place.with_suffix(".key"), name, WITNESS_KEY, may_make=not place.exists())
    witness = Witness(place=place, signer=signer, logs=logs, now_s=lambda: int(time.time()))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
            listening.listen(128)
        except OSError as error:
            raise UsageError(f"{host}:{port} cannot be listened on: {error.strerror or error}") from error
        shown = f"[{host}]" if ":" in host else host
        scheme = "http" if certificate is None else "https"
        started(f"{scheme}://{shown}:{listening.getsockname()[1]}", str(signer.public))
        settings = uvicorn.Config(
            web(witness),
            log_level="warning",
            access_log=False,
            lifespan="off",
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        uvicorn.Server(settings).run([listening])
