"""The provider as a process of its own, for benches."""

import argparse
import asyncio

import uvloop

from .server import running


async def serve(port: int) -> None:
    async with running(port) as mock:
        print(mock.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.provider", description="A provider of models on loopback.")
    parser.add_argument(
        "--port", type=int, default=9100, help="0 picks a free one; the address is the first line of output"
    )
    try:
        uvloop.run(serve(parser.parse_args().port))
    except KeyboardInterrupt:
        return


main()
