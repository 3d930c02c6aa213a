"""A call that is stopped, at whatever moment: its provider is not asked after that, and its money is booked once."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.lowlevel
import apsw
import pytest

from models_kit import PATHS, Client, again, ask, chat, config_of, home_of
from overwinter.app import App
from overwinter.app.models import Wish
from overwinter.clock import Clock
from overwinter.declared import DeclaredBudget
from overwinter.errors import HomeHeld
from overwinter.gateway.budget import Line
from overwinter.gateway.dialect import DialectName, Wire
from overwinter.gateway.routes import Provider
from provider import Mock, Rule

pytestmark = pytest.mark.anyio

BUDGETS = {"day": DeclaredBudget(of="tenant", usd=100)}
ANSWER = {
    "id": "c1",
    "choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
}
EVENTS = [
    {"id": "c1", "choices": [{"index": 0, "delta": {"content": "hel"}, "finish_reason": None}]},
    {"id": "c1", "choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]},
    {"id": "c1", "choices": [], "usage": ANSWER["usage"]},
]
STREAM = [*(b"data: " + json.dumps(each).encode() + b"\n\n" for each in EVENTS), b"data: [DONE]\n\n"]
TURNS = 30
"""Of the event loop, which is more than a call takes here."""


@dataclass(slots=True)
class Provided:
    """A provider that answers, a piece in each turn of the event loop; without pieces it is silent."""

    pieces: Sequence[bytes]
    headers: Mapping[str, str]
    status: int = 200
    asked: int = 0

    def send(
        self, provider: Provider, dialect: DialectName, method: str, wire: Wire
    ) -> AbstractAsyncContextManager["Provided"]:
        del provider, dialect, method, wire
        return self.open()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Provided"]:
        self.asked += 1
        await asyncio.sleep(0)
        yield self

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await asyncio.sleep(0)
            yield piece
        if not self.pieces:
            await anyio.sleep_forever()

    def masked(self, said: bytes) -> bytes:
        return said


def provided(app: App, *pieces: bytes) -> Provided:
    media = "text/event-stream" if len(pieces) > 1 else "application/json"
    found = Provided(pieces, {"content-type": media})
    app.models.gateway._attempts._upstream = found
    return found


@dataclass(slots=True)
class Heard:
    """What the gateway says of the calls that end."""

    lines: list[Line] = field(default_factory=list[Line])

    def __call__(self, line: Line) -> None:
        self.lines.append(line)


@pytest.mark.parametrize("has_budget", [False, True])
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("how", ["cut", "leave", "outer", "native"])
async def test_whenever_a_call_is_stopped_no_provider_is_asked_after_it_and_it_is_booked_once(
    project, how: str, *, is_stream: bool, has_budget: bool
):
    config = config_of("http://127.0.0.1:9", **({"budgets": BUDGETS} if has_budget else {}))
    async with home_of(project, config, is_worker=False) as app:
        gateway, ended = app.models.gateway, Heard()
        gateway.ended = ended
        upstream = provided(app, *(STREAM if is_stream else [json.dumps(ANSWER).encode()]))
        body = json.dumps(chat(stream=is_stream)).encode()
        asked = app.models.dialects["chat"].read("POST", PATHS["chat"], {}, body)
        outcomes = set[str]()
        for turn in range(1, TURNS):  # after the first the gateway knows of it
            call, scope, asked_before = f"call-{turn}", anyio.CancelScope(), upstream.asked

            async def answered(call: str, scope: anyio.CancelScope, client: Client) -> None:
                with scope:
                    await app.models.answer(asked, "default", Wish(call=call), client)

            task = asyncio.get_running_loop().create_task(answered(call, scope, client := Client()))
            for _ in range(turn):
                await asyncio.sleep(0)
            stop = {
                "cut": lambda: app.models.cut(["default"], "it was revoked"),
                "leave": lambda client=client: gateway.leave(client),
                "outer": scope.cancel,
                "native": task.cancel,
            }[how]
            stop()
            asked_by_then = upstream.asked - asked_before
            await asyncio.wait([task])
            if how in ("cut", "leave", "outer") and not task.cancelled():
                task.result()
            assert upstream.asked - asked_before == asked_by_then, f"asked after turn {turn}"
            lines = [each for each in app.models.lines(limit=1_000) if each.call.partition("!")[0] == call]
            assert not [each for each in lines if each.state == "held"], f"held after turn {turn}"
            told = [each.call for each in ended.lines if each.call == call]
            assert len(told) == len(set(told)), f"told twice of turn {turn}"
            outcomes |= {each.status for each in lines}
        (spent,) = await app.models.budgets() if has_budget else [None]
        if spent is not None:
            costs = [each.cost_nusd or 0 for each in app.models.lines(limit=1_000)]
            assert (spent.spent_nusd, spent.held_nusd) == (sum(costs), 0)
    assert "answered" in outcomes
    assert outcomes != {"answered"}


class Broken(Client):
    """A client that cannot be told anything any more."""

    async def end(self, last: bytes = b"") -> None:
        raise ConnectionResetError("the peer is gone")


class Slow(Client):
    """A client that takes its time to hear something."""

    async def end(self, last: bytes = b"") -> None:
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("client", [Broken(), Slow()])
async def test_a_call_is_settled_also_if_its_client_cannot_be_told_that_it_was_stopped(project, client: Client):
    async with home_of(project, config_of("http://127.0.0.1:9", budgets=BUDGETS), is_worker=False) as app:
        app.models.gateway.ended = ended = Heard()
        provided(app)
        task = asyncio.get_running_loop().create_task(ask(app, chat(), client=client))
        while not app.models.gateway.under_way:  # noqa: ASYNC110 - the gateway tells nobody that a call begins
            await asyncio.sleep(0)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        app.models.cut(["default"], "it was revoked")
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        (line,) = app.models.lines()
        (spent,) = await app.models.budgets()
        assert (line.state, line.status, spent.held_nusd) == ("settled", "revoked", 0)
        assert [each.call for each in ended.lines] == [line.call]
        if not task.cancelled():
            task.exception()  # that of a client that raises


@pytest.mark.parametrize("how", ["cut", "leave"])
async def test_the_end_of_a_background_answer_is_told_also_if_whoever_saw_it_is_stopped(
    project, provider: Mock, how: str
):
    provider.script(*[Rule(polls=0) for _ in range(20)])
    async with home_of(project, config_of(provider.url, budgets=BUDGETS), is_worker=False) as app:
        body = {"model": "cheap", "input": "hello", "background": True, "max_output_tokens": 200}
        client, line = await ask(app, body, dialect="responses")
        app.models.gateway.ended = ended = Heard()
        file: Any = app.models.file
        settle, other = file.settle, Client()

        def stop() -> None:
            if how == "cut":
                app.models.cut(["default"], "it was revoked")
            else:
                app.models.gateway.leave(other)

        async def settled(line: Line) -> bool:
            asyncio.get_running_loop().call_soon(stop)  # in the turn in which it is written
            return await settle(line)

        accounts: Any = app.models.gateway._accounts
        accounts._ledger = Settling(file, settled)
        await again(app, client.json["id"], call="again", client=other)
        assert [(each.call, each.status) for each in ended.lines] == [(line.call, "answered")]
        found = app.models.line(line.call)
        assert found is not None
        assert found.state == "settled"


class Settling:
    """A ledger with a settlement of its own."""

    def __init__(self, ledger: Any, settle: Any) -> None:
        self._ledger, self.settle = ledger, settle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


@dataclass(slots=True)
class Refusing(Provided):
    """A provider that is overloaded at first."""

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Provided"]:
        self.asked += 1
        await asyncio.sleep(0)
        yield replace(self, status=503, pieces=[b"{}"]) if self.asked == 1 else self


@dataclass(slots=True)
class Cutting:
    """A clock that has a call cut in the turn in which its pause ends."""

    clock: Clock
    cut: Callable[[], object]

    def now_us(self) -> int:
        return self.clock.now_us()

    async def sleep_until(self, instant_us: int) -> None:
        del instant_us
        paused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: (paused.set_result(None), self.cut()))
        await paused


async def test_a_call_that_is_cut_as_its_pause_ends_asks_no_provider_again(project):
    async with home_of(project, config_of("http://127.0.0.1:9"), is_worker=False) as app:
        attempts: Any = app.models.gateway._attempts
        attempts._upstream = upstream = Refusing([json.dumps(ANSWER).encode()], {"content-type": "application/json"})
        attempts._clock = Cutting(attempts._clock, lambda: app.models.cut(["default"], "it was revoked"))
        _, line = await ask(app, chat())
        assert (upstream.asked, line.status, line.state) == (1, "revoked", "settled")


@dataclass(slots=True)
class Lingering(Provided):
    """A provider whose connection stays open for a moment after the whole answer."""

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Provided"]:
        yield self
        await anyio.sleep(0.02)


class Revoked(Client):
    """A client whose agent is revoked as soon as it has a whole answer."""

    app: App

    async def write(self, body: bytes) -> None:
        await Client.write(self, body)
        if b"[DONE]" in body or b'"usage"' in body:
            asyncio.get_running_loop().call_soon(self.app.models.cut, ["default"], "it was revoked")
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("is_stream", [False, True])
async def test_no_error_follows_a_whole_answer(project, *, is_stream: bool):
    async with home_of(project, config_of("http://127.0.0.1:9"), is_worker=False) as app:
        pieces = STREAM if is_stream else [json.dumps(ANSWER).encode()]
        media = "text/event-stream" if is_stream else "application/json"
        attempts: Any = app.models.gateway._attempts
        attempts._upstream = Lingering(pieces, {"content-type": media})
        client = Revoked()
        client.app = app
        _, line = await ask(app, chat(stream=is_stream), client=client)
        assert line.state == "settled"
        assert b"revoked" not in client.body
        assert client.body.endswith(b"data: [DONE]\n\n") if is_stream else client.json["id"] == "c1"


async def test_what_a_locked_file_did_not_take_is_settled_with_the_next_call(project):
    async with home_of(project, config_of("http://127.0.0.1:9", budgets=BUDGETS), is_worker=False) as app:
        upstream = provided(app, json.dumps(ANSWER).encode())
        await ask(app, chat())
        with closing(apsw.Connection(str(app.models.file._path))) as other:
            app.models.file._db.set_busy_timeout(10)

            class Locking(Client):
                async def write(self, body: bytes) -> None:
                    await Client.write(self, body)
                    other.execute("begin immediate")

            with pytest.raises(HomeHeld):
                await ask(app, chat(), client=Locking())
            other.execute("rollback")
        assert [each.state for each in app.models.lines()] == ["held", "settled"]
        await ask(app, chat())
        assert [each.state for each in app.models.lines()] == ["settled"] * 3
        (spent,) = await app.models.budgets()
        assert spent.held_nusd == 0
        assert spent.spent_nusd == sum(each.cost_nusd or 0 for each in app.models.lines())
        assert upstream.asked == 3


async def test_on_a_full_disk_a_call_is_refused_in_its_dialect_and_others_are_taken_afterwards(project, provider: Mock):
    async with home_of(project, config_of(provider.url), is_worker=False) as app:
        await ask(app, chat())
        db = app.models.file._db
        ((pages,),) = db.execute("pragma page_count")
        db.execute(f"pragma max_page_count={pages}")
        client = Client()
        for number in range(200):
            client, _ = await ask(app, chat(f"number {number}"))
            if client.status != 200:
                break
        assert client.status == 503
        assert "cannot keep its books" in client.json["error"]["message"]
        db.execute("pragma max_page_count=1000000")
        client, line = await ask(app, chat("once more"))
        assert (client.status, line.status) == (200, "answered")
