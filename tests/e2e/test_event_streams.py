"""The events of a run over server-sent events, from a real server: each once and in order, however often a client hangs up."""

import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from bench.report import rss_kb
from hypothesis import given, settings
from hypothesis import strategies as st

from overwinter.adapters.home import socket_path
from overwinter.faces.client import Client
from shells import Shell, until

MESSAGES = 5
WAITS = f"got = []\nfor _ in range({MESSAGES}):\n    got.append(await tools.receive())\ngot"
TOGETHER_S = 60
"""More than a test takes; a stream that nothing comes on ends the test."""
Event = dict[str, Any]


@dataclass(slots=True)
class Reader:
    """A client of one stream. It knows nothing but the last id that it read whole, as an EventSource does."""

    shell: Shell
    run: str
    is_header: bool = True
    """It says where it was as `Last-Event-ID`; else as `after`."""
    got: list[Event] = field(default_factory=list)
    last: str | None = None
    is_ended: bool = False
    is_connected: bool = False

    def read(self, *, bytes_max: int | None = None, events_max: int | None = None) -> None:
        """Connect, and read until so much has come or the stream ends; what is not whole by then is lost."""
        raw, before = b"", len(self.got)
        with self.opened() as connection:
            while bytes_max is None or len(raw) < bytes_max:
                try:
                    chunk = connection.recv(1 << 16 if bytes_max is None else bytes_max - len(raw))
                except ConnectionResetError:  # the server was killed
                    chunk = b""
                raw += chunk
                del self.got[before:]
                self._take(raw)
                if not chunk or (events_max is not None and len(self.got) - before >= events_max):
                    break
        if events_max is not None and len(self.got) > before + events_max:
            del self.got[before + events_max :]
            self.is_ended = False
        self.last = str(self.got[-1]["position"]) if self.got else None

    def opened(self) -> socket.socket:
        """Connect, and ask."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(TOGETHER_S)
        connection.connect(str(socket_path(self.shell.place / ".overwinter")))
        connection.sendall(self._asked())
        self.is_connected = True
        return connection

    def _asked(self) -> bytes:
        place, header = f"/v1/runs/{self.run}/events?follow=1", ""
        if self.last is not None and self.is_header:
            header = f"Last-Event-ID: {self.last}\r\n"
        elif self.last is not None:
            place += f"&after={self.last}"
        return f"GET {place} HTTP/1.1\r\nConnection: close\r\nHost: overwinter\r\n{header}\r\n".encode()

    def _take(self, raw: bytes) -> None:
        head, _, chunks = raw.partition(b"\r\n\r\n")
        body = joined(chunks)
        self.is_ended = b" 204 " in head.partition(b"\r\n")[0] or b"event: end\ndata: {}\n\n" in body
        *whole, _ = body.split(b"\n\n")
        for block in whole:
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":"))
            if "id" in fields:
                event = json.loads(fields["data"])
                assert (int(fields["id"]), fields["event"]) == (event["position"], event["kind"])
                self.got.append(event)


def joined(chunks: bytes) -> bytes:
    """Return what of a chunked body has come (RFC 9112 7.1), also of the chunk that was cut."""
    body = b""
    while b"\r\n" in chunks:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size, 16)
        body, chunks = body + rest[:length], rest[length + 2 :]
    return body


def events_of(client: Client, run: str) -> list[Event]:
    return client.get("runs", run, "events")["events"]


@pytest.fixture
def client(shell: Shell) -> Iterator[Client]:
    shell.serve()
    with closing(Client(socket_path(shell.place / ".overwinter"))) as client:
        yield client


def ended(client: Client) -> tuple[str, list[Event]]:
    """Return a run that has ended, and its journal."""
    run = client.post("runs", source=WAITS)["id"]
    for number in range(MESSAGES):
        client.post("runs", run, "messages", message=f"grüße {number}\n\n", dedup=str(number))
    assert client.get("runs", run, "result", wait_s=30)["status"] == "finished"
    return run, events_of(client, run)


@pytest.mark.claim("U3.stream")
@pytest.mark.parametrize("is_header", [True, False], ids=["Last-Event-ID", "after"])
def test_a_client_that_hangs_up_after_every_event_gets_each_once(shell: Shell, client: Client, *, is_header: bool):
    run, whole = ended(client)
    reader = Reader(shell, run, is_header=is_header)
    for _ in range(len(whole) + 1):
        reader.read(events_max=1)
    assert (reader.got, reader.is_ended) == (whole, True)


@pytest.mark.claim("U3.stream")
def test_a_client_that_is_cut_after_any_bytes_gets_each_event_once(shell: Shell, client: Client):
    run, whole = ended(client)
    assert len(whole) > 2 * MESSAGES

    @settings(max_examples=80)
    @given(cuts=st.lists(st.integers(0, 3_000), max_size=12), is_header=st.booleans())
    def gets_each_once(cuts: list[int], *, is_header: bool) -> None:
        reader = Reader(shell, run, is_header=is_header)
        for cut in cuts:
            reader.read(bytes_max=cut)
            assert reader.got == whole[: len(reader.got)]
        reader.read()
        assert (reader.got, reader.is_ended) == (whole, True)

    gets_each_once()


@pytest.mark.claim("U3.stream")
def test_two_clients_that_are_cut_while_a_run_goes_on_both_get_all_of_it(shell: Shell, client: Client):
    run = client.post("runs", source=WAITS)["id"]
    readers = [Reader(shell, run), Reader(shell, run, is_header=False)]

    def follow(reader: Reader, cuts: list[int]) -> None:
        for cut in cuts:
            reader.read(events_max=cut)
        while not reader.is_ended:
            reader.read()

    threads = [
        threading.Thread(target=follow, args=(reader, cuts), daemon=True)
        for reader, cuts in zip(readers, ([1] * 8, [3, 2, 1, 3]), strict=True)
    ]
    for thread in threads:
        thread.start()
    for number in range(MESSAGES):
        client.post("runs", run, "messages", message=number, dedup=str(number))
        until(lambda at=number: len(readers[0].got) > at)  # so that they read while it goes on
    assert client.get("runs", run, "result", wait_s=30)["result"] == list(range(MESSAGES))
    for thread in threads:
        thread.join(TOGETHER_S)
    whole = events_of(client, run)
    assert [reader.got for reader in readers] == [whole, whole]


@pytest.mark.claim("U3.stream")
def test_clients_that_do_not_read_hold_up_nobody_and_fill_no_memory(shell: Shell, client: Client):
    messages, each_bytes, slow = 100, 100_000, 10
    run = client.post("runs", source=f"for _ in range({messages}):\n    await tools.receive()")["id"]
    for number in range(messages):
        client.post("runs", run, "messages", message=f"{number:0{each_bytes}}", dedup=str(number))
    assert client.get("runs", run, "result", wait_s=30)["status"] == "finished"
    reader, server = Reader(shell, run), shell.servers[-1]
    assert received(reader.opened()) == messages
    held_kb = rss_kb(server.pid)
    with ExitStack() as stack:
        waiting = [stack.enter_context(reader.opened()) for _ in range(slow)]
        assert [each.recv(1) for each in waiting] == [b"H"] * slow
        assert received(reader.opened()) == messages
        assert rss_kb(server.pid) - held_kb < slow * messages * each_bytes / 1_000 / 3
        assert received(waiting[0]) == messages


def received(connection: socket.socket) -> int:
    """Return how many messages come on a stream until its end."""
    with connection:
        raw = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    assert raw.endswith(b"event: end\ndata: {}\n\n\r\n0\r\n\r\n")
    return raw.count(b"\nevent: message\n")


@pytest.mark.claim("U3.stream")
def test_a_client_comes_back_with_its_cursor_to_a_server_that_was_killed_and_started_again(
    shell: Shell, client: Client
):
    run = client.post("runs", source=WAITS)["id"]
    reader = Reader(shell, run)
    for number in range(MESSAGES):
        client.post("runs", run, "messages", message=number, dedup=str(number))
        reader.read(events_max=2)
        server = shell.servers[-1]
        if number % 2 or number == MESSAGES - 1:
            server.send_signal(signal.SIGKILL)
            server.communicate()
        else:  # killed while it reads: the stream ends without its `end`
            reader.is_connected = False
            thread = threading.Thread(target=reader.read, daemon=True)
            thread.start()
            until(lambda: reader.is_connected and len(reader.got) > 2)
            server.send_signal(signal.SIGKILL)
            server.communicate()
            thread.join(TOGETHER_S)
            assert not reader.is_ended
        shell.serve()
        client.close()
    while not reader.is_ended:
        reader.read()
    assert client.get("runs", run)["result"] == list(range(MESSAGES))
    assert reader.got == events_of(client, run)
