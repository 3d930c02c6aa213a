"""A provider of chat completions that gives every call the same answer and keeps nothing, so that it is never the bottleneck.

    python -m bench.provider

It prints its port. The tests' own provider reads each request, counts its tokens and writes a bill: 0.1 ms a call, more than a
gateway may take. Each event of a stream is a write of its own: at once, or for a model named `...-paced`, 2 ms after the last.
"""

import asyncio
import sys
from functools import partial
from typing import cast

import httptools
import uvloop

PACE_S = 0.002
EVENTS = 50
"""Events with content in a stream; five more open and end it."""
_HEAD = '"id":"chatcmpl-1","object":"chat.completion%s","created":1,"model":"gpt-4o-mini","service_tier":"default",'
USAGE = '"usage":{"prompt_tokens":280,"completion_tokens":50,"total_tokens":330,"prompt_tokens_details":{"cached_tokens":0}}'
WHOLE = (
    "{" + _HEAD % "" + '"choices":[{"index":0,"message":{"role":"assistant","content":"' + "word " * 50 + '","refusal":null},'
    '"logprobs":null,"finish_reason":"stop"}],' + USAGE + "}"
).encode()  # fmt: skip


def event(choices: str, usage: str = '"usage":null') -> bytes:
    """Return one event of a stream."""
    return ("data: {" + _HEAD % ".chunk" + f'"choices":[{choices}],{usage}' + "}\n\n").encode()


STREAM = (
    event('{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}'),
    *[event('{"index":0,"delta":{"content":"word "},"logprobs":null,"finish_reason":null}')] * EVENTS,
    event('{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}'),
    event("", USAGE),
    b"data: [DONE]\n\n",
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKS = [b"%x\r\n%b\r\n" % (len(each), each) for each in STREAM]


class Connection(asyncio.Protocol):
    """One connection, one call at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's class is no subclass
        self.parser = httptools.HttpRequestParser(self)
        self.is_stream = self.is_paced = False

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Look for the word; a stream is asked for at the end or the beginning of a body, in any spelling of JSON."""
        self.is_stream = self.is_stream or b'"stream":true' in body or b'"stream": true' in body
        self.is_paced = self.is_paced or b"-paced" in body

    def on_message_complete(self) -> None:
        """Answer."""
        if self.is_stream:
            self.transport.write(STREAM_HEAD)
            self.told(0, is_paced=self.is_paced)
            self.is_stream = self.is_paced = False
        else:
            self.transport.write(ANSWER)

    def told(self, number: int, *, is_paced: bool) -> None:
        """Send an event, and have the next one sent when others have had their turn."""
        if self.transport.is_closing():
            return
        if number == len(CHUNKS):
            self.transport.write(b"0\r\n\r\n")
            return
        self.transport.write(CHUNKS[number])
        asyncio.get_running_loop().call_later(PACE_S * is_paced, partial(self.told, number + 1, is_paced=is_paced))


async def main() -> None:
    """Serve on any port until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main())
