"""A login at an MCP server, from the address that a person opens to the tokens in the vault."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import typer

from overwinter.adapters.home import config_path
from overwinter.adapters.mcp_servers.logins import begin_login, finish_login
from overwinter.adapters.references import References
from overwinter.adapters.vault import Vault
from overwinter.clock import SystemClock
from overwinter.config import load
from overwinter.errors import UsageError

__all__ = ["log_in"]

WAIT_S_MAX = 600.0
LINE_CHARACTERS_MAX = 1 << 14


async def log_in(home: Path, name: str, port: int, *, is_pasted: bool) -> str:
    """Have a person log in at a service's server; return the issuer that they logged in at.

    Raises:
        UsageError: there is no such service, it has no login, or nobody came back in time.
    """
    place, vault = config_path(home), Vault(home)
    service = load(place).services.get(name)
    if service is None:
        raise UsageError(f"there is no service {name!r} in {place}")
    vault.check()
    references = References(place.parent, vault)
    async with _redirect(port) as (redirect, came):
        attempt = await begin_login(service, references, redirect)
        typer.echo(f"open {attempt.url}", err=True)
        answered = await (_pasted() if is_pasted else came())
        await finish_login(attempt, answered, service, references, vault, now_us=SystemClock().now_us())
    return attempt.authority.issuer


async def _pasted() -> str:
    typer.echo("paste the address that the browser was sent to:", err=True)
    return (await asyncio.to_thread(sys.stdin.readline, LINE_CHARACTERS_MAX)).strip()


@asynccontextmanager
async def _redirect(port: int) -> "AsyncGenerator[tuple[str, Callable[[], Coroutine[None, None, str]]]]":
    """Yield an address on this machine (RFC 8252, 7.3), and what waits for a browser to be sent there."""
    came: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def answer(reading: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10.0):
                words = (await reading.readline()).decode("latin-1").split(" ")
            is_ours = len(words) > 1 and words[0] == "GET" and words[1].startswith("/callback?")
            said = "You can close this page." if is_ours else "Nothing is here."
            writing.write(
                f"HTTP/1.1 {'200 OK' if is_ours else '404 Not Found'}\r\nContent-Type: text/plain\r\n"
                f"Content-Length: {len(said)}\r\nConnection: close\r\n\r\n{said}".encode()
            )
            await writing.drain()
            if is_ours and not came.done():
                came.set_result(f"http://127.0.0.1{words[1]}")
        except (OSError, TimeoutError, ValueError):
            pass  # no browser of ours
        finally:
            writing.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, limit=LINE_CHARACTERS_MAX)
    async with server:
        number = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{number}/callback", lambda: _waited(came)


async def _waited(came: "asyncio.Future[str]") -> str:
    try:
        async with asyncio.timeout(WAIT_S_MAX):
            return await came
    except TimeoutError as error:
        raise UsageError(
            f"nobody came back within {WAIT_S_MAX:g} s: try again, with --paste on a machine without browser"
        ) from error
