"""Questions put to the person at an MCP client: answered once, by who may, and left open where the client declines for them."""

import base64
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit import opened
from mcp_kit import able, earlier, present, put
from overwinter.config import Agent, Approvals, Config, Worker
from overwinter.events import Status
from overwinter.faces.mcp import elicitation, protocol
from overwinter.store import Page
from overwinter.testing import ManualClock, idle
from overwinter.tokens import Token

pytestmark = pytest.mark.anyio
ANA = "ana@example.com"
ASKS = {"code": f"a = await tools.ask({ANA!r}, 'Go?', options=['yes', 'no'])\nawait shop.pay(cents=7)\na"}
FORMS = able(elicitation={"form": {}})


def token(*scopes: Any, person: str = ANA) -> Token:
    return Token(id="t-0", digest=b"", person=person, scopes=scopes, created_us=0, expires_us=1)


def call(name: str = "execute", meta: Any = FORMS, arguments: Any = ASKS, **params: Any) -> Any:
    return present("tools/call", name=name, arguments=arguments, _meta=meta, **params)


async def told(app: Any, message: Any, by: Token | None = None) -> dict[str, Any]:
    body, headers = message
    _, answer = await put(app, body, headers=headers, token=by)
    return answer.get("result", answer)


def reply(first: Any, action: str, **content: Any) -> dict[str, Any]:
    (key,) = first["inputRequests"]
    response = {"action": action, "content": content} if content else {"action": action}
    return {"inputResponses": {key: response}, "requestState": first["requestState"]}


@pytest.mark.claim("F1.asked")
@pytest.mark.parametrize("by", [None, token("act", "approve")], ids=["socket", "token"])
async def test_a_question_is_put_to_the_person_at_the_client_and_the_program_goes_on_with_the_answer(
    project, ledger, by
):
    async with opened(project) as app:
        first = await told(app, call(), by)
        assert first["resultType"] == "input_required"
        (form,) = first["inputRequests"].values()
        assert form["method"] == "elicitation/create"
        assert form["params"]["requestedSchema"]["properties"]["answer"]["enum"] == ["yes", "no"]
        again = call(**reply(first, "accept", answer="yes"))
        for _ in range(2):  # a client that lost the answer sends the same once more
            second = await told(app, again, by)
            assert second["structuredContent"]["value"] == "yes"
        (run,) = await app.runs(Page())
        events = [each async for each in app.events(run.run_id)]
        (answered,) = [each.body["by"] for each in events if each.kind == "answered" and "by" in each.body]
        assert answered == (ANA if by else f"{ANA} (claimed by an unknown user)")
    assert ledger.read_text().splitlines() == ["pay 7"]


@pytest.mark.claim("F1.asked")
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_client_that_declines_leaves_the_question_open_and_is_not_asked_again(project, action):
    async with opened(project) as app:
        second = await told(app, call(**reply(await told(app, call()), action)))
        body = second["structuredContent"]
        assert (second["resultType"], body["status"], body["asks"][0]["person"]) == ("complete", "live", ANA)
        await app.answer(body["asks"][0]["question"], "no", by=ANA)
        third = await told(app, call("wait", arguments={"run": body["run"]}))
        assert third["structuredContent"]["value"] == "no"


@pytest.mark.claim("F1.asked")
@pytest.mark.parametrize(
    ("meta", "by"),
    [
        (able(), None), (able(elicitation={"url": {}}), None), (FORMS, token("act")), (FORMS, token("act", "approve", person="bob")),
    ],
)  # fmt: skip
async def test_who_may_not_answer_or_shows_no_forms_is_told_of_the_question(project, meta, by):
    async with opened(project) as app:
        first = await told(app, call(meta=meta), by)
        assert (first["resultType"], first["structuredContent"]["asks"][0]["person"]) == ("complete", ANA)
        _, legacy = await put(app, earlier("tools/call", name="execute", arguments=ASKS))
        assert legacy["result"]["structuredContent"]["asks"]


async def test_where_claims_are_refused_nobody_answers_in_the_name_of_another(project):
    config = Config(
        agents={"default": Agent(tools=("*",))}, worker=Worker(interpreters=2), approvals=Approvals(claims=False)
    )
    async with opened(project, config=config) as app:
        assert (await told(app, call()))["resultType"] == "complete"


@pytest.mark.claim("F1.asked")
async def test_a_call_to_approve_is_never_put_to_the_client_that_wants_it(project, ledger):
    config = Config(agents={"default": Agent(owner=ANA, asks=("shop.*",))}, worker=Worker(interpreters=2))
    async with opened(project, config=config) as app:
        first = await told(app, call(arguments={"code": "await shop.pay(cents=7)"}), token("act", "approve"))
        assert (first["resultType"], first["structuredContent"]["status"]) == ("complete", "live")
        assert first["structuredContent"]["asks"]
    assert not ledger.read_text()


@pytest.mark.claim("F1.asked")
@pytest.mark.parametrize("what", ["arguments", "tool", "person", "age", "none"])
async def test_a_state_for_another_call_person_or_day_starts_nothing_and_answers_nothing(project, what):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        first = await told(app, call(), token("act", "approve"))
        said, by = reply(first, "accept", answer="yes"), token("act", "approve")
        message = call(**said)
        match what:
            case "arguments":
                message = call(arguments={"code": "1"}, **said)
            case "tool":
                message = call("query", **said)
            case "person":
                by = token("act", "approve", person="bob")
            case "age":
                clock.advance(2 * 86_400)
            case _:
                message = call(inputResponses=said["inputResponses"])
        assert (await told(app, message, by))["error"]["code"] == -32602
        await idle(app)
        (run,) = await app.runs(Page())
        assert run.status is Status.LIVE
        assert await app.questions(run.run_id)


@pytest.mark.parametrize("answer", ["maybe", 1, None])
async def test_an_answer_that_is_none_of_the_options_is_refused_and_the_question_stays(project, answer):
    async with opened(project) as app:
        second = await told(app, call(**reply(await told(app, call()), "accept", answer=answer)))
        assert second["error"]["code"] == -32602
        assert await app.questions()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_byte_of_a_state_can_be_changed(data):

    body, _ = call()
    asked = protocol.Asked(id=1, method="tools/call", params=body["params"], version=protocol.PRESENT)
    state = elicitation.begun(asked, "R", agent="default", by=ANA, now_us=0)
    raw = bytearray(base64.urlsafe_b64decode(elicitation.seal(state, b"k" * 32)))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    text = base64.urlsafe_b64encode(raw).decode()
    forged = protocol.Asked(
        id=1, method="tools/call", params={**body["params"], "requestState": text}, version=protocol.PRESENT
    )
    with pytest.raises(protocol.Fault):
        elicitation.unseal(forged, b"k" * 32, agent="default", by=ANA, now_us=0)
