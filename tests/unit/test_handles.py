"""Files and large values: kept outside of programs, under handles, read a part at a time, by their own agent alone."""

import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest
from aiohttp import web

from kit import opened
from overwinter.config import Agent, Config, Limits, Service
from overwinter.errors import NotFound, UsageError
from overwinter.events import Status
from overwinter.testing import ManualClock, finish, idle

pytestmark = pytest.mark.anyio
ROWS = [{"id": n, "name": f"row {n}"} for n in range(5_000)]
HUGE = bytes(range(256)) * 40_960
"""10 MB."""
BINARY = {"application/pdf": {"schema": {"type": "string", "format": "binary"}}}
SPEC = {
    "openapi": "3.1.0",
    "paths": {
        "/files/{name}": {"get": {
            "operationId": "download", "responses": {"200": {"content": BINARY}},
            "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
        }},
        "/files": {
            "post": {
                "operationId": "upload", "responses": {"200": {"content": {"application/json": {"schema": {}}}}},
                "requestBody": {"content": {"multipart/form-data": {"schema": {"type": "object", "properties": {
                    "file": {"type": "string", "format": "binary"}, "note": {"type": "string"},
                }, "required": ["file"]}}}},
            },
            "put": {
                "operationId": "put_raw", "responses": {"200": {"content": {"application/json": {"schema": {}}}}},
                "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
            },
        },
        "/rows": {"get": {"operationId": "rows", "responses": {"200": {"content": {"application/json": {"schema": {
            "type": "array", "items": {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}},
        }}}}}}},
    },
}  # fmt: skip


@asynccontextmanager
async def served() -> AsyncGenerator[tuple[list[Any], str]]:
    seen: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        match request.method, request.path:
            case "GET", "/rows":
                return web.json_response(ROWS)
            case "GET", "/files/huge":
                return web.Response(body=HUGE, content_type="application/pdf")
            case "GET", "/files/large":
                return web.Response(body=bytes(range(256)) * 12_000, content_type="application/pdf")
            case "GET", _:
                headers = {"Content-Disposition": 'attachment; filename="in\tvoice.pdf"'}
                return web.Response(body=b"%PDF-1.7", content_type="application/pdf", headers=headers)
            case "POST", _:
                form = await request.post()
                file: Any = form["file"]
                seen.append((file.filename, file.content_type, file.file.read(), form.get("note")))
            case _:
                seen.append(await request.read())
        return web.json_response({"ok": True})

    site = web.Application(client_max_size=1 << 24)
    site.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(site)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield seen, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def configured(project: Path, url: str, **limits: int) -> Config:
    (project / "api.json").write_text(json.dumps(SPEC))
    agents = {"default": Agent(tools=("*",)), "other": Agent(tools=("*",))}
    services = {
        "api": Service(openapi="api.json", base_url=url, effects={"upload": "idempotent", "put_raw": "idempotent"})
    }
    return Config(limits=Limits(**limits), agents=agents, services=services)


@pytest.mark.claim("P5.kept")
async def test_a_file_goes_from_one_call_to_another_and_its_bytes_are_never_in_the_program(project):
    source = (
        "f = await api.download(name='large')\n"
        "await api.upload(file=f, note='n')\n"
        "await api.put_raw(body=f)\n"
        "head = await tools.read(f, '[0:4]')\n"
        "[f, head]"
    )
    clock = ManualClock()
    async with served() as (seen, url), opened(project, clock=clock, config=configured(project, url)) as app:
        run = await finish(app, await app.start(source), clock)
        assert run.status is Status.FINISHED, run.result
        body = bytes(range(256)) * 12_000
        handle = f"{run.run_id}:0"
        assert run.result == [
            {
                "file": handle, "name": "large", "type": "application/pdf", "size_bytes": len(body),
                "sha256": hashlib.sha256(body).hexdigest(),
            },
            bytes(range(4)),
        ]  # fmt: skip
        assert seen == [("large", "application/pdf", body, "n"), body]
        journal = [event async for event in app.events(run.run_id)]
        assert len(repr(journal)) < 10_000
        assert await app.read(handle, characters_max=None) == body
        assert await app.read(handle[-8:]) == {"$bytes": len(body)}


async def test_the_name_of_a_file_is_printable_whatever_its_service_says(project):
    clock = ManualClock()
    async with served() as (_, url), opened(project, clock=clock, config=configured(project, url)) as app:
        run = await finish(app, await app.start("await api.download(name='x')"), clock)
        assert run.result["name"].isprintable()


@pytest.mark.claim("P5.kept")
async def test_an_answer_that_is_too_large_to_cross_is_kept_and_read_in_parts(project):
    source = (
        "try:\n    await api.rows()\nexcept ValueError as e:\n    said = await tools.error(e)\n"
        "handle = said['message'].split(\"'\")[1]\n"
        "names = await tools.read(handle, '[4998:].name')\n"
        "try:\n    await tools.read(handle)\nexcept ValueError as e:\n    whole = str(e)\n"
        "try:\n    await tools.read(handle, '[9999].x')\nexcept LookupError as e:\n    none = str(e)\n"
        "[said['code'], names, whole, none]"
    )
    clock = ManualClock()
    async with served() as (_, url), opened(project, clock=clock, config=configured(project, url, value_kb=64)) as app:
        run = await finish(app, await app.start(source), clock)
        assert run.status is Status.FINISHED, run.result
        code, names, whole, none = run.result
        assert code == "too_large"
        assert names == ["row 4998", "row 4999"]
        assert "name a smaller part" in whole
        assert "5000 items, none at 9999" in none
        shown = await app.read(f"{run.run_id}:0")
        assert (shown["type"], shown["n"], shown["first"][0]) == ("list", 5_000, ROWS[0])
        assert await app.read(f"{run.run_id}:0", "[17].name") == "row 17"


@pytest.mark.claim("P5.kept")
async def test_ten_megabytes_go_from_one_service_through_a_program_to_another(project):
    source = "f = await api.download(name='huge')\nawait api.put_raw(body=f)\nf"
    clock = ManualClock()
    async with served() as (seen, url), opened(project, clock=clock, config=configured(project, url)) as app:
        run = await finish(app, await app.start(source), clock)
        assert run.status is Status.FINISHED, run.result
        assert (seen, run.result["size_bytes"]) == ([HUGE], len(HUGE))
        assert len(str(run.result)) < 1_000, "of it the program had a handle"


async def test_what_is_larger_than_is_kept_is_refused_with_the_limit(project):
    clock = ManualClock()
    async with served() as (_, url), opened(project, clock=clock, config=configured(project, url, kept_mb=1)) as app:
        run = await finish(app, await app.start("await api.download(name='large')"), clock)
        assert (run.result["kind"], "limits.kept_mb" in run.result["message"]) == ("ValueError", True)


@pytest.mark.parametrize(
    "how", ["tools.read({!r})", "api.upload(file={{'file': {!r}, 'name': 'a', 'type': 'b', 'size_bytes': 1}})"]
)
async def test_an_agent_cannot_read_or_send_what_another_one_has(project, how):
    clock = ManualClock()
    async with served() as (seen, url), opened(project, clock=clock, config=configured(project, url)) as app:
        run = await finish(app, await app.start("await api.download(name='x')"), clock)
        other = await finish(app, await app.start("await " + how.format(f"{run.run_id}:0"), agent="other"), clock)
        assert (other.result["kind"], "of another agent" in other.result["message"]) == ("LookupError", True)
        assert seen == []


async def test_results_prints_and_answers_are_read_by_their_handles(project):
    clock = ManualClock()
    source = "print('one')\nx = await shop.double(number=4)\nprint('two')\n{'x': [x, x], 'long': 'y' * 50_000}"
    async with opened(project, clock=clock) as app:
        run = await finish(app, await app.start(source), clock)
        assert await app.read(run.run_id, "x[1]") == 8
        assert await app.read(f"{run.run_id}:out") == "one\ntwo\n"
        assert await app.read(f"{run.run_id}:0") == 8
        cut = (await app.read(run.run_id))["long"]
        assert (cut["$cut"], cut["path"], cut["n"]) == (run.run_id, ".long", 50_000)
        for handle, kind in ((f"{run.run_id}:7", NotFound), ("zzzzzz", NotFound), (f"{run.run_id}:x", UsageError)):
            with pytest.raises(kind):
                await app.read(handle)
        later = await finish(app, await app.start(f"await tools.read('{run.run_id}', '.long[0:3]')"), clock)
        assert later.result == "yyy"


async def test_what_was_kept_goes_with_its_run(project):
    clock = ManualClock()
    async with served() as (_, url), opened(project, clock=clock, config=configured(project, url)) as app:
        run = await finish(app, await app.start("await api.download(name='x')"), clock)
        clock.advance(10)
        assert (await app.collect(older_than_s=1)).runs == 1
        with pytest.raises(NotFound):
            await app.read(f"{run.run_id}:0")


# --- Files that people approve -------------------------------------------------------------------------------------------


def asking(project: Path, url: str) -> Config:
    agents = {"default": Agent(owner="o@example.com", tools=("api.download", "tools.*"), asks=("api.upload",))}
    return replace(configured(project, url), agents=agents)


SENDS = "f = await api.download(name='x')\nawait api.upload(file=f, note='n')"


@pytest.mark.claim("G7.file")
async def test_an_approval_holds_for_the_content_of_a_file_and_for_no_other(project):
    clock = ManualClock()
    async with served() as (seen, url):
        config = asking(project, url)
        for is_changed in (False, True):
            async with opened(project, clock=clock, config=config) as app:
                run_id = await app.start(SENDS)
                await idle(app)
            async with opened(project, clock=clock, config=config, is_worker=False) as app:
                (record,) = await app.questions(run_id)
                body = await app.read(f"{run_id}:0", characters_max=None)
                assert record.call.arguments["file"]["sha256"] == hashlib.sha256(body).hexdigest()
                await app.governance.vote(record, is_yes=True, by="o@example.com")
            if is_changed:
                db = apsw.Connection(str(project / ".overwinter" / "store.db"))
                db.execute("update kept set body = x'00'")
                db.close()
            async with opened(project, clock=clock, config=config) as app:
                run = await app.result(run_id)
                if is_changed:
                    assert (run.result["kind"], "sha256" in run.result["message"]) == ("ValueError", True)
                else:
                    assert run.status is Status.FINISHED, run.result
            assert [each[2] for each in seen] == [body][: len(seen)]
            assert len(seen) == 1


@pytest.mark.claim("G7.file")
async def test_a_file_without_its_hash_is_not_set_before_anybody(project):
    """A program that writes a handle itself could have it approved before, and filled after."""
    clock = ManualClock()
    async with served() as (seen, url), opened(project, clock=clock, config=asking(project, url)) as app:
        handle = "{'file': f['file'], 'name': 'a', 'type': 'b', 'size_bytes': 1}"
        source = f"f = await api.download(name='x')\nawait tools.call('api.upload', {{'file': {handle}}})"
        run_id = await app.start(source)
        await idle(app)
        run = await app.run(run_id)
        assert (run.result["kind"], "without its hash" in run.result["message"]) == ("PermissionError", True)
        assert await app.questions() == []
        assert seen == []
