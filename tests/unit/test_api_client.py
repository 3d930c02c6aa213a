"""The client of the socket, beside servers that break off where it hurts."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overwinter.check import Finding
from overwinter.errors import (
    CheckFailed,
    ConfigInvalid,
    Conflict,
    HomeDamaged,
    HomeError,
    HomeFull,
    HomeHeld,
    HomeTooNew,
    JailUnavailable,
    NotFound,
    OverwinterError,
    ServerUnreachable,
    UsageError,
)  # fmt: skip
from overwinter.faces import wire
from overwinter.faces.client import Client

Reply = Callable[[bytes], bytes | None]


class Scripted:
    """A socket on which each connection's one request gets the next reply; None hangs up without an answer."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.requests: list[bytes] = []
        self._replies: Iterator[bytes | None] = iter(())
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(place))
        self._listening.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self, *replies: bytes | None) -> None:
        self._replies = iter(replies)
        self._thread.start()

    def _serve(self) -> None:
        for reply in self._replies:
            connection, _ = self._listening.accept()
            with connection:
                self.requests.append(self._request(connection))
                if reply is not None:
                    connection.sendall(reply)

    @staticmethod
    def _request(connection: socket.socket) -> bytes:
        raw = b""
        while b"\r\n\r\n" not in raw:
            raw += connection.recv(65_536)
        head, _, body = raw.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += connection.recv(65_536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        self._listening.close()
        self._thread.join(5)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Scripted]:
    scripted = Scripted(tmp_path / "s")
    yield scripted
    scripted.close()


def answered(body: object, status: str = "200 OK") -> bytes:
    raw = json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(raw)}\r\nconnection: close\r\n\r\n".encode() + raw


def streamed(*positions: int, is_ended: bool) -> bytes:
    events = "".join(f'id: {each}\nevent: x\ndata: {{"position": {each}}}\n\n' for each in positions)
    end = "event: end\ndata: {}\n\n" if is_ended else ""
    return ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n: alive\n\n" + events + end).encode()


def client(server: Scripted) -> Client:
    return Client(server.place, lambda: server.place)


def test_a_read_that_broke_is_asked_again(server):
    server.start(None, None, answered({"ok": 1}))
    assert client(server).get("health") == {"ok": 1}
    assert len(server.requests) == 3


def test_an_act_that_broke_is_repeated_only_under_a_key(server):
    server.start(None, answered({"id": "1"}))
    assert client(server).post("runs", source="1", dedup="k") == {"id": "1"}
    assert server.requests[0].split(b"\r\n\r\n")[1] == server.requests[1].split(b"\r\n\r\n")[1]


@pytest.mark.parametrize(
    "place", [("runs",), ("questions", "1:2", "answer"), ("runs", "1", "cancel"), ("runs", "1", "release")]
)
def test_an_act_without_a_key_is_never_sent_twice(server, place):
    server.start(None, answered({}))
    with pytest.raises(ServerUnreachable, match="whether it did what was asked"):
        client(server).post(*place, by="me")
    assert len(server.requests) == 1
    client(server).get("health")


def test_a_stream_goes_on_where_it_broke_without_a_gap_or_a_repeat(server):
    server.start(streamed(0, 1, is_ended=False), None, streamed(2, is_ended=False), streamed(3, is_ended=True))
    assert [event["position"] for event in client(server).follow("runs", "1", "events", since=0)] == [0, 1, 2, 3]
    asked = [request.split(b" ")[1].rpartition(b"since=")[2] for request in server.requests]
    assert asked == [b"0", b"2", b"2", b"3"]


def test_a_stream_that_was_cut_is_never_taken_for_the_end(server):
    server.start(streamed(0, is_ended=False))
    seen: list[int] = []
    with pytest.raises(ServerUnreachable):
        seen += (event["position"] for event in Client(server.place).follow("runs", "1", "events", since=0))


def test_a_run_that_had_ended_before_is_the_end_of_its_stream(server):
    server.start(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert list(client(server).follow("runs", "1", "events", since=9)) == []


def test_an_answer_that_comes_before_the_body_is_read_is_still_the_answer(tmp_path):
    place = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(place))
        listening.listen(1)

        def refuse() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(100)
                error = {"error": {"type": "HTTPError", "message": "the body is larger than 4 MB"}}
                connection.sendall(answered(error, "413 Too Large"))
                connection.shutdown(socket.SHUT_RD)

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(UsageError, match="larger than 4 MB"):
            Client(place).post("runs", source="#" * (8 << 20))
        thread.join()


@pytest.mark.claim("U3.errors")
def test_what_is_no_json_and_what_is_no_socket_are_said(server, tmp_path):
    server.start(b"HTTP/1.1 500 Oops\r\ncontent-length: 3\r\nconnection: close\r\n\r\n<p>")
    with pytest.raises(OverwinterError, match="500 and no JSON"):
        Client(server.place).get("health")
    with pytest.raises(ServerUnreachable, match="start `overwinter serve`"):
        Client(tmp_path / "absent").get("health")
    with pytest.raises(ServerUnreachable):
        Client(tmp_path / ("x" * 200)).get("health")


@pytest.mark.claim("U3.errors")
@pytest.mark.parametrize("kind", [
    UsageError, ConfigInvalid, NotFound, Conflict, HomeError, HomeHeld, HomeTooNew, HomeDamaged, HomeFull, JailUnavailable,
])  # fmt: skip
def test_an_error_has_the_same_class_words_and_exit_code_on_both_sides_of_the_wire(kind):
    there = wire.raised(json.loads(json.dumps(wire.error(kind("words")))))
    assert (type(there), str(there), there.exit_code) == (kind, "words", kind.exit_code)


def test_a_refused_program_keeps_its_findings_over_the_wire():
    finding = Finding(line=3, column=1, rule="r", message="m")
    there = wire.raised(wire.error(CheckFailed([finding], "words")))
    assert isinstance(there, CheckFailed)
    assert [(each.line, each.message) for each in there.findings] == [(3, "m")]
