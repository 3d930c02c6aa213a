"""A service that notes each request before it answers: milliseconds since 1970 and the request's key, a line each.

    python -m bench.counterpart LOG

It prints its port. It knows nothing of whoever asks; its log is what an audit log is held against.
"""

import asyncio
import os
import sys
import time


async def main(log: str) -> None:
    """Serve on any port until killed."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while key := (await reader.readline()).decode().strip():
                os.write(file, f"{time.time_ns() // 1_000_000} {key}\n".encode())
                writer.write(b"ok\n")
                await writer.drain()
        except ConnectionError:
            pass  # who asked was killed
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
