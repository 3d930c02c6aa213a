"""Requests under a key: carried out once, and told again what they were told; whatever is asked, by whomever, over whatever crash."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from kit import client_of, opened
from overwinter.adapters.sqlite.requests import KEYS_MAX
from overwinter.app import App
from overwinter.app.parts import Parts
from overwinter.clock import DAY_US, SECOND_US
from overwinter.errors import HomeError
from overwinter.faces.operations import OPERATIONS
from overwinter.testing import ManualClock, idle

pytestmark = pytest.mark.anyio
NOTHING = {"POST /v1/check", "POST /v1/policy/explain", "POST /v1/policy/simulate"}
"""What is posted and changes nothing."""
TOKEN = {"person": "ana@example.com", "name": "one"}
ACTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/revoke", {"subject": "default"}),
    ("/v1/restore", {"agent": "default"}),
    ("/v1/grants", {"agent": "default", "pattern": "shop.double"}),
    ("/v1/tokens", TOKEN),
    ("/v1/schedules", {"source": "1", "cron": "0 7 * * *"}),
    ("/v1/schedules/early/run", {}),
    ("/v1/schedules/early/pause", {}),
    ("/v1/schedules/early/remove", {}),
    ("/v1/issuer/rotate", {"reason": "lost"}),
    ("/v1/audit/key/rotate", {"reason": "lost"}),
    ("/v1/policy/reload", {}),
    ("/v1/tools/refresh", {}),
    ("/v1/tools/accept", {"names": ["*"]}),
    ("/v1/collect", {"older_than_s": 0}),
]


async def posted(client: httpx.AsyncClient, path: str, body: dict[str, Any], key: str = "k-1") -> httpx.Response:
    return await client.post(path, json=body, headers={"idempotency-key": key})


async def state(client: httpx.AsyncClient) -> Any:
    """Return whatever an act might change."""
    places = ("audit", "agents", "grants", "tokens", "schedules", "runs", ".well-known/jwks.json", "audit/key")
    return [(await client.get(f"/{'' if '.' in each else 'v1/'}{each}")).json() for each in places]


def unended(parts: Parts) -> Parts:
    """Have no answer written down, as if the server went away before it could."""

    class Unended:
        begin, forget = parts.requests.begin, parts.requests.forget

        async def end(self, *_: object) -> None:
            raise HomeError("the disk is gone")

    requests: Any = Unended()
    return replace(parts, requests=requests)


def test_whatever_is_posted_and_changes_something_takes_a_key():
    posts = {key for key in OPERATIONS if key.startswith("POST ")}
    assert {key for key in posts if not OPERATIONS[key].has_key and OPERATIONS[key].again is None} == NOTHING


@pytest.mark.claim("D1.requests")
@pytest.mark.parametrize(("path", "body"), ACTS, ids=[path for path, _ in ACTS])
async def test_what_comes_again_under_its_key_changes_nothing_and_is_told_the_same(project, path, body):
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        await client.post("/v1/schedules", json={"source": "1", "cron": "0 6 * * *", "name": "early"})
        await app.result(await app.start("1"), 5)
        if path == "/v1/restore":
            await client.post("/v1/revoke", json={"subject": "default"})
        first = await posted(client, path, body)
        await idle(app)
        assert first.status_code < 300, first.text
        before = await state(client)
        second = await posted(client, path, body)
        assert (second.status_code, second.json()) == (first.status_code, first.json())
        other = await posted(client, path, {**body, "reason": "another"})
        assert (other.status_code, other.json()["error"]["type"]) == (409, "Conflict")
        await idle(app)
        assert await state(client) == before


@pytest.mark.claim("D1.requests")
async def test_of_two_at_once_one_is_carried_out_and_both_are_told_so(project):
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        told: list[Any] = []

        async def ask() -> None:
            told.append((await posted(client, "/v1/tokens", TOKEN)).json())

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(ask)
        assert [each["id"] for each in told] == [told[0]["id"]] * 8
        assert len(await app.access.tokens()) == 1


async def test_what_was_refused_leaves_its_key_free(project):
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        body = {"subject": "NOBODY"}
        assert (await posted(client, "/v1/revoke", body)).status_code == 404
        assert (await posted(client, "/v1/tokens", {**TOKEN, "scopes": ["all"]})).status_code == 400
        assert (await posted(client, "/v1/tokens", TOKEN)).status_code == 201
        assert len(await app.access.tokens()) == 1


@pytest.mark.claim("D1.requests")
async def test_what_nobody_lived_to_answer_is_done_again_only_where_twice_is_as_once(project):
    async with opened(project, clock=ManualClock(), wrap=unended) as app, client_of(app) as client:
        assert (await posted(client, "/v1/tokens", TOKEN)).status_code == 201
        assert (await posted(client, "/v1/revoke", {"subject": "default"}, "k-2")).status_code == 200
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        again = await posted(client, "/v1/tokens", TOKEN)
        assert (again.status_code, "look whether it was carried out" in again.text) == (409, True)
        assert len(await app.access.tokens()) == 1
        assert (await posted(client, "/v1/revoke", {"subject": "default"}, "k-2")).status_code == 200


async def test_an_answer_survives_a_restart_for_a_day_and_no_longer(project):
    clock = ManualClock()
    async with opened(project, clock=clock) as app, client_of(app) as client:
        first = (await posted(client, "/v1/tokens", TOKEN)).json()
    clock.advance(DAY_US / SECOND_US - 1)
    async with opened(project, clock=clock) as app, client_of(app) as client:
        assert (await posted(client, "/v1/tokens", TOKEN)).json() == first
        clock.advance(2)
        assert (await posted(client, "/v1/tokens", TOKEN)).json()["id"] != first["id"]


@pytest.mark.claim("D1.requests")
async def test_a_kept_answer_is_nowhere_in_clear(project: Path):
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        key = "the-key-of-a-request"
        token = (await posted(client, "/v1/tokens", TOKEN, key)).json()["token"]
        kept = [each for each in (project / ".overwinter").rglob("*") if each.is_file()]
        found = [each.name for each in kept if token.encode() in each.read_bytes() or key.encode() in each.read_bytes()]
        assert found == []
        assert (await posted(client, "/v1/tokens", TOKEN, key)).json()["token"] == token


async def test_a_key_is_that_of_who_asks(project):
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        told = [(await posted(client, "/v1/tokens", {**TOKEN, "by": by})).json()["id"] for by in ("ana", "ben", "ana")]
        assert told[0] == told[2] != told[1]
        assert len(await app.access.tokens()) == 2


async def test_the_body_may_hold_the_key_and_its_order_says_nothing(project):
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        first = await client.post("/v1/tokens", content=b'{"person": "ana@example.com", "name": "x", "dedup": "k"}')
        second = await client.post("/v1/tokens", content=b'{"dedup": "k", "name":"x","person":"ana@example.com"}')
        assert first.json() == second.json()
        assert len(await app.access.tokens()) == 1


async def test_no_more_keys_are_kept_than_there_is_room_for(project):
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        await filled(app)
        refused = await posted(client, "/v1/tokens", TOKEN)
        assert (refused.status_code, f"{KEYS_MAX} keys" in refused.text) == (400, True)
        assert (await client.post("/v1/tokens", json=TOKEN)).status_code == 201


async def filled(app: App) -> None:
    requests = app._parts.requests
    async with anyio.create_task_group() as group:
        for number in range(KEYS_MAX):
            group.start_soon(requests.begin, f"k{number}", b"")
