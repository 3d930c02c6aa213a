"""A login at an MCP server, from the address that a person opens to the tokens in the vault."""

import asyncio
import secrets
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs

import typer

from overwinter.adapters.home import config_path
from overwinter.adapters.mcp_servers.logins import begin_login, finish_login, forget_login
from overwinter.adapters.references import References
from overwinter.adapters.vault import Vault
from overwinter.clock import SystemClock
from overwinter.config import Service, load
from overwinter.errors import UsageError
from overwinter.faces.cli.render import safe

__all__ = ["log_in", "log_out"]

WAIT_S_MAX = 600.0
LINE_CHARACTERS_MAX = 1 << 14
VISIT_S_MAX = 10.0
VISITORS_MAX = 32
PATH = "/callback"


async def log_in(home: Path, name: str, port: int, *, account: str, is_pasted: bool) -> str:
    """Have a person log in at a service's server; return the issuer that they logged in at.

    Raises:
        UsageError: there is no such service, it has no login, or nobody came back in time.
    """
    service, references, vault = _service(home, name)
    async with _redirect(port) as (redirect, listener):
        attempt = await begin_login(service, references, redirect, vault, account=account)
        listener.state = attempt.state
        typer.echo(f"open {safe(attempt.url)}", err=True)
        answered = await (_pasted() if is_pasted else listener.visited())
        now_us = SystemClock().now_us()
        await finish_login(attempt, answered, service, references, vault, now_us=now_us, account=account)
    return attempt.authority.issuer


async def log_out(home: Path, name: str, *, account: str) -> tuple[str, str]:
    """Forget a login; return its issuer, and why that does not know of it.

    Raises:
        NotFound: nobody has logged in.
        UsageError: there is no such service.
    """
    service, references, vault = _service(home, name)
    return await forget_login(service, references, vault, account=account)


def _service(home: Path, name: str) -> tuple[Service, References, Vault]:
    place, vault = config_path(home), Vault(home)
    service = load(place).services.get(name)
    if service is None:
        raise UsageError(f"there is no service {name!r} in {place}")
    vault.check()
    return service, References(place.parent, vault), vault


async def _pasted() -> str:
    typer.echo("paste the address that the browser was sent to:", err=True)
    return (await asyncio.to_thread(sys.stdin.readline, LINE_CHARACTERS_MAX)).strip()


class _Listener:
    """Takes the one request of a browser that was sent back; whoever else comes is told nothing and changes nothing."""

    def __init__(self) -> None:
        self.state = ""
        """Of the login that is waited for; none yet."""
        self._came: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._open: set[asyncio.StreamWriter] = set()

    async def visited(self) -> str:
        """Return the address that a browser was sent to.

        Raises:
            UsageError: nobody came.
        """
        try:
            async with asyncio.timeout(WAIT_S_MAX):
                return await self._came
        except TimeoutError as error:
            raise UsageError(
                f"nobody came back within {WAIT_S_MAX:g} s: try again, with --paste on a machine without browser"
            ) from error

    async def answer(self, reading: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
        """Read one request and answer it."""
        if len(self._open) >= VISITORS_MAX:
            writing.close()
            return
        self._open.add(writing)
        try:
            async with asyncio.timeout(VISIT_S_MAX):
                words = (await reading.readline()).decode("latin-1").split(" ")
                while (await reading.readline()).strip():
                    pass  # what is left unread would reset the connection under the answer
                is_ours = len(words) > 1 and words[0] == "GET" and self._is_ours(words[1])
                writing.write(
                    _page("You can close this page.") if is_ours else _page("Nothing is here.", is_ours=False)
                )
                await writing.drain()
            if is_ours and not self._came.done():
                self._came.set_result(f"http://127.0.0.1{words[1]}")
        except (OSError, TimeoutError, ValueError):
            pass  # no browser of ours
        finally:
            self._open.discard(writing)
            writing.close()

    def _is_ours(self, target: str) -> bool:
        path, _, query = target.partition("?")
        given = parse_qs(query).get("state", [""])[0]
        return path == PATH and bool(self.state) and secrets.compare_digest(given.encode(), self.state.encode())

    def close(self) -> None:
        """End who is still there: nobody keeps the command from ending."""
        for each in self._open:
            each.transport.abort()


def _page(said: str, *, is_ours: bool = True) -> bytes:
    status = "200 OK" if is_ours else "404 Not Found"
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(said)}\r\n"
        f"Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{said}"
    ).encode()


@asynccontextmanager
async def _redirect(port: int) -> AsyncGenerator[tuple[str, _Listener]]:
    """Yield an address on this machine (RFC 8252, 7.3), and what waits for a browser to be sent there."""
    listener = _Listener()
    try:
        server = await asyncio.start_server(listener.answer, "127.0.0.1", port, limit=LINE_CHARACTERS_MAX)
    except (OSError, OverflowError) as error:
        raise UsageError(f"port {port} cannot be listened on: {error}") from error
    try:
        number = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{number}{PATH}", listener
    finally:
        server.close()
        listener.close()
