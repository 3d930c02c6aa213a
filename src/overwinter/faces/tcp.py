"""The API on TCP: where it listens, and with which certificate. Off unless it is asked for; this machine alone unless told."""

import ipaddress
import socket
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import uvicorn

from overwinter.app import App
from overwinter.errors import UsageError
from overwinter.faces.api import api
from overwinter.faces.bearer import Bearer
from overwinter.faces.inbound import InboundDoor
from overwinter.faces.joined import Joined
from overwinter.faces.mcp import McpDoor
from overwinter.faces.models import InDialect, ModelsDoor
from overwinter.frozen import frozen

__all__ = ["LOOPBACK", "Port", "certified", "listen"]

LOOPBACK = "127.0.0.1"
REQUESTS_MAX = 512
"""Connections and requests at once; more are answered 503."""
BACKLOG = 1_024


@frozen
class Port:
    """Where to listen, before anybody does."""

    number: int
    """0: any that is free."""
    host: str = LOOPBACK
    names: tuple[str, ...] = ()
    """Host names by which clients call it."""
    certificate: Path | None = None
    key: Path | None = None
    is_insecure: bool = False
    """Listen to other machines without TLS: somebody else encrypts, or nobody listens in."""


class Listener:
    """A port that is listened on."""

    def __init__(self, port: Port, listening: socket.socket) -> None:
        self._port, self.socket = port, listening

    @property
    def url(self) -> str:
        """Return where it is."""
        host, number = self.socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"http{'s' if self._port.certificate else ''}://{shown}:{number}"

    def config(self, app: App, stop: anyio.Event, stop_s: int) -> uvicorn.Config:
        """Return the server's settings."""
        names = (*self._port.names, self._port.host)
        models = ModelsDoor(McpDoor(api(app, stop, is_remote=True), app, is_remote=True), app, is_remote=True)
        door = InDialect(Bearer(models, app.access, names, is_ended=models.is_ended), app)
        return uvicorn.Config(
            InboundDoor(door, app),
            http=Joined,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,  # whoever wants an address to be another one writes these headers
            server_header=False,
            limit_concurrency=REQUESTS_MAX,
            timeout_graceful_shutdown=stop_s,
            ssl_certfile=self._port.certificate,
            ssl_keyfile=self._port.key,
        )


@contextmanager
def listen(port: Port) -> Generator[Listener]:
    """Listen until the block is left.

    Raises:
        UsageError: the address cannot be had, others could listen in on it, or the certificate cannot be used.
    """
    certified(port.certificate, port.key)
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(port.host, port.number, type=socket.SOCK_STREAM)
        is_loopback = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        if not is_loopback and port.certificate is None and not port.is_insecure:
            raise UsageError(
                f"{port.host} is heard by other machines, and tokens would cross the network in plain text: give --tls-cert "
                "and --tls-key, or --insecure if something else encrypts"
            )
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"{port.host} is no address to listen on: {error.strerror}") from error
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError as error:
            raise UsageError(f"port {port.number} of {port.host} cannot be had: {error.strerror}") from error
        yield Listener(port, listening)


def certified(certificate: Path | None, key: Path | None) -> None:
    """Try a certificate: before anything else is opened, and in the words of the command.

    Raises:
        UsageError: it cannot be used.
    """
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        raise UsageError("--tls-cert and --tls-key are given together")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(f"{certificate} and {key} cannot be used for TLS: {error}") from error
