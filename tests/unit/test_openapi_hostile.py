"""Services that lie on the wire: lists without end, and answers that HTTP does not allow."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from kit import opened
from overwinter.config import Agent, Config, Service, Worker
from overwinter.testing import OWNER, ManualClock, finish

pytestmark = pytest.mark.anyio
PAGE = {
    "type": "object",
    "properties": {"data": {"type": "array", "items": {"type": "integer"}}, "next_cursor": {"type": "string"}},
}
SPEC = {
    "openapi": "3.0.3", "info": {}, "servers": [{"url": "https://example.com"}],
    "paths": {
        "/one": {"get": {"operationId": "one", "responses": {"200": {"content": {"application/json": {"schema": {"type": "integer"}}}}}}},
        "/all": {"get": {
            "operationId": "all_of", "parameters": [{"name": "cursor", "in": "query", "schema": {"type": "string"}}],
            "responses": {"200": {"content": {"application/json": {"schema": PAGE}}}},
        }},
    },
}  # fmt: skip


def configured(project: Path, url: str, **more: Any) -> Config:
    (project / "api.json").write_text(json.dumps(SPEC))
    return Config(
        agents={"default": Agent(owner=OWNER, tools=("*",))},
        worker=Worker(interpreters=1),
        services={"api": Service(openapi="api.json", base_url=url, **more)},
    )


PAGES: dict[str, tuple[Callable[[str], tuple[list[int], str | None]], Any]] = {
    # how: what a page and the next cursor are after a cursor, and what the program gets
    "alternate": (lambda at: ([1], "b" if at == "a" else "a"), "lead back to an earlier one"),
    "alternate, empty": (lambda at: ([], "b" if at == "a" else "a"), "lead back to an earlier one"),
    "the last one again": (lambda at: ([1] if not at else [], "a"), [1]),
    "an empty page on the way": (lambda at: {"": ([1], "a"), "a": ([], "b"), "b": ([], "c"), "c": ([2], None)}[at], [1, 2]),
}  # fmt: skip


@pytest.mark.parametrize("how", PAGES)
async def test_a_list_is_whole_or_an_error_whatever_its_cursors_do(project, how):
    page, expected = PAGES[how]
    application, clock = web.Application(), ManualClock()

    async def answer(request: web.Request) -> web.Response:
        found, following = page(request.query.get("cursor", ""))
        link = {"Link": '<http://169.254.169.254/next>; rel="next"'}  # nobody follows it
        return web.json_response({"data": found, "next_cursor": following}, headers=link)

    application.router.add_get("/all", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        config = configured(project, f"http://127.0.0.1:{runner.addresses[0][1]}")
        async with opened(project, clock=clock, config=config) as app:
            run = await finish(app, await app.start("await api.all_of()"), clock)
    finally:
        await runner.cleanup()
    if isinstance(expected, str):
        assert (run.result["kind"], expected in run.result["message"]) == ("ValueError", True), run.result
    else:
        assert run.result == expected


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LIES: dict[str, bytes] = {
    "shorter than it says": OK + b"Content-Length: 100\r\n\r\n7",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n77",
    "length and chunks": OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n7\r\n0\r\n\r\n",
    "chunk without end": OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n7",
    "no number of a length": OK + b"Content-Length: +1\r\n\r\n7",
    "ten thousand headers": OK + b"".join(b"X-%d: 1\r\n" % n for n in range(10_000)) + b"Content-Length: 1\r\n\r\n7",
    "a thousand cookies": OK + b"Set-Cookie: a=b\r\n" * 1_000 + b"Content-Length: 1\r\n\r\n7",
    "a header without end": OK + b"X: " + b"x" * (1 << 20),
    "no http": b"\x00\x01\x02" * 100 + b"\r\n\r\n",
}


@asynccontextmanager
async def saying(raw: list[bytes], *, for_ever: bytes = b"") -> AsyncGenerator[str]:
    """Answer each request with the next of some texts, the last one again and again; yield the address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(raw.pop(0) if len(raw) > 1 else raw[0])
                await writer.drain()
                while for_ever:
                    writer.write(for_ever)
                    await writer.drain()
                if b"Content-Length: 100" in raw[0]:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("how", LIES)
async def test_an_answer_that_http_does_not_allow_is_a_value_or_a_typed_error(project, how):
    clock = ManualClock()
    async with (
        saying([LIES[how]]) as url,
        opened(project, clock=clock, config=configured(project, url, timeout_s=2.0)) as app,
    ):
        run = await finish(app, await app.start("await api.one()"), clock)
    assert run.result == 7 or run.result["kind"] in ("OSError", "TimeoutError"), run.result


async def test_what_follows_an_answer_is_not_taken_for_the_answer_of_the_next_call(project):
    clock = ManualClock()
    good, smuggled = OK + b"Content-Length: 1\r\n\r\n7", OK + b"Content-Length: 3\r\n\r\n666"
    async with (
        saying([good + smuggled, good]) as url,
        opened(project, clock=clock, config=configured(project, url)) as app,
    ):
        run = await finish(app, await app.start("[await api.one(), await api.one(), await api.one()]"), clock)
    assert run.result == [7, 7, 7]


@pytest.mark.parametrize("piece", [b"1\r\n7\r\n", b"1000\r\n" + b" " * 4096 + b"\r\n"])
async def test_a_body_without_end_ends_its_call_and_nothing_beside_it(project, piece):
    clock = ManualClock()
    async with (
        saying([OK + b"Transfer-Encoding: chunked\r\n\r\n"], for_ever=piece) as url,
        opened(project, clock=clock, config=configured(project, url, timeout_s=1.0)) as app,
    ):
        run_id = await app.start("await api.one()")
        began_s = time.monotonic()
        assert (await app.result(await app.start("1 + 1"))).result == 2
        assert time.monotonic() - began_s < 5
        run = await finish(app, run_id, clock)
    assert run.result["kind"] in ("TimeoutError", "ValueError"), run.result


async def test_refreshes_side_by_side_and_calls_between_them_all_succeed(project):
    clock, done = ManualClock(), list[Any]()
    async with saying([OK + b"Content-Length: 1\r\n\r\n7"]) as url:
        config = configured(project, url)
        async with opened(project, clock=clock, config=config) as app, anyio.create_task_group() as tasks:

            async def refresh() -> None:
                done.append(await app.refresh())

            async def call() -> None:
                done.append((await finish(app, await app.start("await api.one()"), clock)).result)

            for each in (refresh, call, refresh, call, refresh, call):
                tasks.start_soon(each)
    assert [each for each in done if isinstance(each, int)] == [7, 7, 7]
    assert [list(each.imported) for each in done if not isinstance(each, int)] == [["api"]] * 3
