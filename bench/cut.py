"""How fast revoking an agent cuts its open model streams, as their clients see it.

Three processes: the provider of the tests, which stops in the middle of every answer; `overwinter serve`; and the clients, who
read a stream each over TCP. The time is from the sending of the revocation to the end of each client's stream, which must end
with an error of its dialect. The floor, in the same run: from the sending to the answer of the revocation itself.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

from bench.bill import SETTINGS, Serving, provider
from bench.report import percentile
from overwinter.adapters.home import socket_path

AT = 9
"""Event before which every answer stops."""
BODY = (
    b'{"model": "gpt-5", "stream": true, "max_completion_tokens": 60, "messages": [{"role": "user", "content": "x"}]}'
)
OPENED_S_MAX = 60.0


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    return asyncio.run(cut(streams=100 if is_small else 500))


async def cut(*, streams: int) -> dict[str, Any]:
    """Open streams, revoke their agent, and return when each ended."""
    place = Path(tempfile.mkdtemp(prefix=".bench-", dir=Path.cwd()))
    try:
        async with provider() as url:
            (place / "overwinter.toml").write_text(SETTINGS.format(url=url), encoding="utf-8")
            environment = {**os.environ, "OVERWINTER_HOME": str(place / ".overwinter")}
            made = subprocess.run(
                [sys.executable, "-m", "overwinter", "token", "create", "bench@example.com", "--scope=models"],
                cwd=place, env=environment, capture_output=True, text=True, check=True,
            )  # fmt: skip
            serving = Serving(place=place, environment=environment)
            await serving.start()
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                rule = {"times": 10**9, "fault": "stall", "at": AT}
                await (await session.post(f"{url}/_mock/rules", json=[rule])).read()
                clients = Clients(session, serving.url, made.stdout.strip())
                found = await clients.cut(streams, socket_path(place / ".overwinter"))
                bill = await (await session.get(f"{url}/_mock/bill")).json()
            await serving.end(signal.SIGTERM)
        return {**found, "closed_upstream": bill["totals"].get("end_client_gone", 0)}
    finally:
        shutil.rmtree(place, ignore_errors=True)


class Clients:
    """Those who read the streams."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self._session, self._url, self._token = session, url, token
        self._ended = list[tuple[float, bytes]]()
        self._opened = 0

    async def cut(self, streams: int, socket: Path) -> dict[str, Any]:
        """Read streams until they are cut."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for _ in range(streams):
                group.create_task(self._read())
            async with asyncio.timeout(OPENED_S_MAX):
                while self._opened < streams:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            began = loop.time()
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as own:
                said = {"subject": "default", "by": "bench@example.com", "reason": "a bench"}
                answer = await own.post("http://own/v1/revoke", json=said)
                assert answer.status == 200, await answer.text()
                await answer.read()
            acknowledged_ms = 1e3 * (loop.time() - began)
        times = [1e3 * (at - began) for at, _ in self._ended]
        return {
            "streams": streams,
            "cut": sum(b'"error"' in tail for _, tail in self._ended),
            "p50_ms": round(percentile(times, 0.5), 2),
            "p99_ms": round(percentile(times, 0.99), 2),
            "max_ms": round(max(times), 2),
            "acknowledged_ms": round(acknowledged_ms, 2),
        }

    async def _read(self) -> None:
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        async with self._session.post(f"{self._url}/v1/chat/completions", data=BODY, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            self._opened += 1
            tail = b""
            async for piece in answer.content.iter_any():
                tail = piece
            self._ended.append((asyncio.get_running_loop().time(), tail))
