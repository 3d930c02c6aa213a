"""What a client is told when the home behind the MCP face fails: an answer of its protocol, each time."""

import io
import json
import socketserver
import threading
from pathlib import Path
from typing import Any

import pytest

from kit import opened
from mcp_kit import able, earlier, nothing, present, put
from overwinter.app import App
from overwinter.config import Agent, Config, Worker
from overwinter.errors import HomeError, ServerUnreachable
from overwinter.faces.cli.bridge import hand_on
from overwinter.faces.client import Client
from overwinter.faces.mcp import McpDoor
from overwinter.faces.mcp.tasks import EXTENSION
from overwinter.testing import OWNER, idle

pytestmark = pytest.mark.anyio


class Failing:
    """A home one of whose acts fails."""

    def __init__(self, app: App, act: str, error: Exception) -> None:
        self._app, self._act, self._error = app, act, error

    def __getattr__(self, name: str) -> Any:
        if name != self._act:
            return getattr(self._app, name)

        async def fail(*_: Any, **__: Any) -> Any:
            raise self._error

        return fail


def door(app: App, act: str, error: Exception) -> McpDoor:
    broken: Any = Failing(app, act, error)
    return McpDoor(nothing, broken, is_remote=False)


@pytest.mark.parametrize("is_present", [True, False])
async def test_a_bug_is_answered_as_one_and_raised_as_itself_for_the_log(project, is_present):
    async with opened(project) as app:
        broken = door(app, "start", ZeroDivisionError("why"))
        arguments = {"code": "1"}
        message, headers = present("tools/call", name="execute", arguments=arguments)
        if not is_present:
            message, headers = earlier("tools/call", name="execute", arguments=arguments), {}
        answers: list[Any] = []
        with pytest.raises(ZeroDivisionError):
            await put(app, message, headers=headers, door=broken, answers=answers)
    ((status, answer),) = answers
    assert (status, answer["error"]["code"], answer["id"]) == (500 if is_present else 200, -32603, message["id"])
    assert "ZeroDivisionError" in answer["error"]["message"]
    assert "why" not in answer["error"]["message"], "what a bug says may hold anything"


async def test_a_home_in_trouble_is_no_crash_of_the_door(project):
    async with opened(project) as app:
        run_id = await app.start("await tools.receive()")
        await idle(app)
        message, headers = present("tasks/cancel", taskId=run_id)
        message["params"]["_meta"] = able(extensions={EXTENSION: {}})
        broken = door(app, "cancel", HomeError("the disk is full"))
        status, answer = await put(app, message, headers={**headers, "mcp-name": run_id}, door=broken)
    assert (status, answer["error"]["code"]) == (500, -32603)
    assert "disk" in answer["error"]["message"]


async def test_of_another_agents_run_it_is_not_told_that_there_is_one(project):
    agents = {name: Agent(owner=OWNER, tools=("*",)) for name in ("default", "other")}
    async with opened(project, config=Config(agents=agents, worker=Worker(interpreters=2))) as app:
        run_id = await app.start("1", agent="other", keeps=True)
        await idle(app)
        texts = (run_id, run_id[-6:], "0" * 26, "ZZZZZZ")
        for tool, arguments in (("wait", {}), ("execute", {"code": "2"})):
            told: set[str] = set()
            for text in texts:
                named = {"run": text} if tool == "wait" else {"after": text}
                _, answer = await put(app, earlier("tools/call", name=tool, arguments={**arguments, **named}))
                assert answer["result"]["isError"]
                told.add(answer["result"]["structuredContent"]["error"].replace(text, "ID"))
            assert len(told) == 1, told


@pytest.mark.parametrize(
    ("line", "id_"), [(b'{"jsonrpc":"2.0","id":7,"method":"ping"}', 7), (b'{"jsonrpc":"2.0","method":"x"}', None), (b"[" * 100_000, None)]
)  # fmt: skip
def test_over_stdio_a_bug_is_an_answer_to_whoever_waits_for_one(line, id_):
    class Broken:
        def relay(self, *_: Any) -> Any:
            raise RuntimeError("why")

    client: Any = Broken()
    target = io.BytesIO()
    hand_on(client, "default", line, target, threading.Lock())
    told = [json.loads(each) for each in target.getvalue().splitlines()]
    assert [(each["id"], each["error"]["code"]) for each in told] == ([] if id_ is None else [(id_, -32603)])
    assert b"why" not in target.getvalue()


def related(path: Path, events: list[bytes], heard: threading.Event) -> tuple[int, bytes]:
    """Return what a server's answer is taken for that sends events, each after the first once that was heard."""

    class Slow(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            for number, event in enumerate(events):
                assert not number or heard.wait(20)
                self.wfile.write(b"event: message\ndata: " + event + b"\n\n")

    with socketserver.UnixStreamServer(str(path / "socket"), Slow) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        try:
            return Client(path / "socket").relay("/mcp", b"{}", {}, lambda _: heard.set())
        finally:
            thread.join(20)


@pytest.mark.parametrize("said", [b"5", b"{}", b'{"result":{}}', b"{", b"[1]", b'"id"'])
def test_over_stdio_what_is_no_answer_is_not_taken_for_one(tmp_path, said):
    with pytest.raises(ServerUnreachable):
        related(tmp_path, [said], threading.Event())


def test_over_stdio_a_word_of_progress_is_handed_on_before_there_is_another(tmp_path):
    heard = threading.Event()
    word = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":2}}'
    answer = b'{"jsonrpc":"2.0","id":7,"result":{}}'
    assert related(tmp_path, [word, answer], heard) == (200, answer)
    assert heard.is_set()
