"""A provider that takes every request and never answers: a process of its own, for benches."""

import asyncio
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["silent"]


@contextmanager
def silent() -> Generator[str]:
    """Run it; yield its address."""
    with subprocess.Popen([sys.executable, "-m", "bench.silence"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


async def _serve() -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, backlog=4_096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
