"""What providers do wrong when they count tokens, or are asked again for an answer that they make in the background."""

import json
from dataclasses import replace
from typing import Any

import pytest

from models_kit import Client
from overwinter.app.models import Wish
from overwinter.gateway.budget import Line
from overwinter.gateway.dialect import DialectName
from provider import Mock, Rule
from unit.test_gateway_faults import BEFORE, Asking, asking

pytestmark = pytest.mark.anyio
COUNTS: tuple[tuple[DialectName, str, dict[str, Any]], ...] = (
    ("messages", "/v1/messages/count_tokens", {"model": "cheap", "messages": [{"role": "user", "content": "hello"}]}),
    ("gemini", "/v1beta/models/cheap:countTokens", {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}),
)
BEGIN = {"model": "cheap", "input": "hello", "background": True, "max_output_tokens": 50}


async def sent(  # noqa: PLR0917 - a request
    home: Asking, dialect: DialectName, method: str, path: str, body: dict[str, Any] | None, call: str
) -> tuple[Client, Line]:
    client, raw = Client(), b"" if body is None else json.dumps(body).encode()
    asked = home.app.models.dialects[dialect].read(method, path, {}, raw)
    return client, await home.app.models.answer(asked, "default", Wish(call=call), client, method=method)


@pytest.mark.parametrize(("dialect", "path", "body"), COUNTS)
async def test_a_count_meets_the_same_faults_as_an_answer_and_costs_nothing(
    project, provider: Mock, dialect: DialectName, path: str, body: dict[str, Any]
):
    async with asking(project, provider) as home:
        for number, rule in enumerate(BEFORE):
            for times in (1, 10):
                case = (rule.fault, rule.status, times)
                provider.script(replace(rule, times=times, when="ount"))
                client, line = await sent(home, dialect, "POST", path, body, f"count:{number}:{times}")
                assert (client.status == 200) == (times == 1), case
                assert ("error" in client.json) == (times == 10), case
                assert len(provider.provider.asides) == min(times + 1, 3), case
                assert (line.cost_nusd, line.state, home.kept()) == (0, "settled", 0), case
                (spent,) = await home.app.models.budgets()
                assert (spent.spent_nusd, spent.held_nusd) == (0, 0), case
                home.forget()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_fault_when_a_background_answer_is_asked_for_again_leaves_its_hold_and_it_is_settled_later(
    project, provider: Mock, method: str
):
    async with asking(project, provider) as home:
        for number, rule in enumerate(BEFORE):
            for times in (1, 10):
                case = (rule.fault, rule.status, times)
                provider.script(Rule(polls=3))
                begun, line = await sent(home, "responses", "POST", "/v1/responses", BEGIN, f"begin:{number}:{times}")
                path = f"/v1/responses/{begun.json['id']}"
                provider.script(replace(rule, times=times, when="resp_"))
                place = path if method == "GET" else f"{path}/cancel"
                client, seen = await sent(home, "responses", method, place, None, f"again:{number}:{times}")
                assert (client.status == 200) == (times == 1), case
                assert ("error" in client.json and client.json["error"] is not None) == (times == 10), case
                if times == 10:
                    assert (seen.state, seen.held_nusd) == ("held", line.held_nusd), case
                provider.provider.rules.clear()
                home.app.models.gateway.breaker.answered("mock")
                for _ in range(4):
                    _, seen = await sent(home, "responses", "GET", path, None, f"last:{number}:{times}")
                assert seen.state in ("settled", "unknown"), case
                (spent,) = await home.app.models.budgets()
                assert spent.held_nusd == 0, case
                assert len([each for each in home.app.models.lines(limit=1_000) if each.call == line.call]) == 1, case
