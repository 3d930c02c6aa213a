"""The OpenAPI document: it is the routes, and what they answer is what it says."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
from starlette.routing import Route

from kit import client_of, opened
from overwinter.faces.api import api
from overwinter.faces.bodies import NUMBER_MAX
from overwinter.faces.inbound import PREFIX as INBOUND
from overwinter.faces.mcp.door import PATH as MCP
from overwinter.faces.models import PATHS
from overwinter.faces.openapi import document
from overwinter.faces.operations import OPERATIONS
from overwinter.faces.scopes import NEEDS, key_of
from overwinter.testing import ManualClock, idle

pytestmark = pytest.mark.anyio
DOCS = Path(__file__).parents[2] / "docs"
PLACE = DOCS / "openapi.json"
DOORS = {f"POST {path}" for path in (*PATHS, MCP)} | {"GET /v1/models", f"POST {INBOUND}{{run}}.{{code}}"}
"""What stands before the routes: model calls, MCP, messages of others."""


def errors(method: str, path: str, status: int, answer: Any) -> list[str]:
    """Return where an answer is not what the document says."""
    whole = json.loads(json.dumps(document()))
    responses = whole["paths"][path][method.lower()]["responses"]
    assert status < 400, answer
    schema = responses[str(status)]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator({**schema, "components": whole["components"]})
    return [each.message for each in validator.iter_errors(answer)]


async def test_the_document_has_every_route_and_none_else(project):
    async with opened(project, clock=ManualClock()) as app:
        keys = {key_of(each) for each in api(app).routes if isinstance(each, Route)}
    assert keys == set(OPERATIONS) == set(NEEDS)


def test_the_document_that_is_published_is_the_one_that_is_served():
    assert json.loads(PLACE.read_text()) == json.loads(json.dumps(document()))


def test_every_operation_has_a_name_of_its_own_and_every_reference_leads_somewhere():
    shown = [each for path in document()["paths"].values() for each in path.values()]
    assert len({each["operationId"] for each in shown}) == len(shown)
    text = json.dumps(document())
    wanted = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert wanted <= set(document()["components"]["schemas"])


def test_the_table_for_people_has_every_route_and_none_else():
    rows = [line.split("|")[1] for line in (DOCS / "api.md").read_text().splitlines() if line.startswith("|")]
    told = [each for row in rows for each in re.findall(r"`((?:GET|POST|PUT|DELETE) /[^`]*)`", row)]
    assert sorted(told) == sorted(set(OPERATIONS) | DOORS)


async def test_every_list_and_every_kind_of_thing_is_answered_as_the_document_says(project):
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        run = (await client.post("/v1/runs", json={"source": "await tools.ask('me', 'Well?')"})).json()["id"]
        await idle(app)
        names = {"run": run, "question": f"{run}:0", "agent": "default", "handle": f"{run}:out", "seq": "0"}
        for key, operation in OPERATIONS.items():
            method, _, path = key.partition(" ")
            if (
                method != "GET"
                or "/" in operation.answer
                or any(x in path for x in ("{call}", "{schedule}", "explain"))
            ):
                continue
            answer = await client.get(path.format(**names))
            assert errors(method, path, answer.status_code, answer.json()) == [], key


async def test_a_program_that_is_refused_is_refused_as_the_document_says(project):
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        answer = await client.post("/v1/check", json={"source": "def ("})
        assert not answer.json()["is_accepted"]
        assert errors("POST", "/v1/check", answer.status_code, answer.json()) == []


@pytest.mark.parametrize("number", [str(2**62 + 1), str(2**63), str(-(2**63) - 1), "9" * 5_000, "1e3", "٣", "", "nan"])
async def test_a_number_that_no_store_holds_is_the_fault_of_the_one_who_sent_it(project, number):
    """In every place of an address and of a body where the document says that there is a whole number."""
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        run = (await client.post("/v1/runs", json={"source": "await tools.ask('me', 'Well?')"})).json()["id"]
        names = {"run": run, "question": f"{run}:{number}", "handle": f"{run}:{number}", "seq": number}
        told: dict[str, int] = {}
        for key, operation in OPERATIONS.items():
            method, _, path = key.partition(" ")
            fields = [each.split(" ") for part in (operation.query, operation.body) for each in part.split(", ")]
            wrong = {each[0].rstrip("?"): number for each in fields if each[-1] == "whole"}
            if wrong or any(f"{{{name}}}" in path for name in ("question", "handle", "seq")):
                place = path.format(
                    **{name: quote(value) or "-" for name, value in names.items()}, call="c", schedule="s"
                )
                body = {name: int(number) for name in wrong} if re.fullmatch("-?[0-9]{1,30}", number) else wrong
                ways: dict[str, Any] = {"json": {"by": "ana", **body}} if method == "POST" else {"params": wrong}
                answer = await client.request(method, place, **ways)
                told[key] = answer.status_code
        assert len(told) > 20
        assert {key: status for key, status in told.items() if not 400 <= status < 500} == {}


async def test_the_largest_number_that_is_taken_is_looked_for(project):
    async with opened(project, clock=ManualClock()) as app, client_of(app) as client:
        for place in (f"audit/{NUMBER_MAX}", f"audit/{NUMBER_MAX}/proof"):
            assert (await client.get(f"/v1/{place}")).status_code == 404
        for name in ("since_ms", "until_ms", "begin"):
            assert (await client.get("/v1/audit", params={name: str(NUMBER_MAX)})).status_code == 200
        assert (await client.get("/v1/gateway/calls", params={"before": str(NUMBER_MAX)})).status_code == 200
        run = (await client.post("/v1/runs", json={"source": "1"})).json()["id"]
        for name in ("since", "after"):
            answer = await client.get(f"/v1/runs/{run}/events", params={name: str(NUMBER_MAX - 1)})
            assert (answer.status_code, answer.json()) == (200, {"events": []})
