"""The HTTP API: what every answer has, whatever was asked."""

from typing import Any

import pytest

from kit import client_of, opened
from overwinter.testing import ManualClock

pytestmark = pytest.mark.anyio


async def test_an_error_has_the_members_of_rfc_9457_and_our_own(project):
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        answer = await client.get("/v1/runs/AAAAAAAAAAAAAAAAAAAAAAAAAU")
        found: dict[str, Any] = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert (found["status"], found["title"], found["type"]) == (404, "Not Found", "urn:overwinter:error:NotFound")
        assert found["detail"] == found["error"]["message"]


async def test_a_method_that_a_path_lacks_is_answered_with_those_that_it_has(project):
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        answer = await client.delete("/v1/runs")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")
        answer = await client.get("/v1/check")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_a_body_that_is_said_to_be_no_json_is_not_read_as_json(project):
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonl", ""):
            answer = await client.post("/v1/check", content=b'{"source": "1"}', headers={"content-type": kind})
            assert (answer.status_code, "application/json" in answer.text) == (415, True), kind
        for kind in ("application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"):
            answer = await client.post("/v1/check", content=b'{"source": "1"}', headers={"content-type": kind})
            assert answer.status_code == 200, kind


async def test_after_and_last_event_id_are_one_cursor(project):
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        run = await app.start("1 + 1")
        await app.result(run, 5)
        whole = (await client.get(f"/v1/runs/{run}/events")).json()["events"]
        assert len(whole) > 1
        for at in range(len(whole)):
            place = f"/v1/runs/{run}/events"
            by_query = (await client.get(place, params={"after": at})).json()["events"]
            by_header = (await client.get(place, headers={"last-event-id": str(at)})).json()["events"]
            assert by_query == by_header == whole[at + 1 :]
        ended = await client.get(f"/v1/runs/{run}/events", params={"follow": 1, "after": len(whole) - 1})
        assert ended.status_code == 204
