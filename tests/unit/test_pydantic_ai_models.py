"""Models of Pydantic AI whose calls pass the gateway: over TCP with a token, the home's socket, and within the process."""

from collections.abc import AsyncGenerator, Callable
from typing import Literal

import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError

from doors import Door, door_of
from models_kit import config_of
from overwinter.errors import OverwinterError, ServerUnreachable
from overwinter.pydantic_ai import Home, model
from provider import Mock, Rule
from sdks import quiet

pytestmark = [pytest.mark.anyio, quiet]
WAYS: dict[str, Callable[[Door, str], Home]] = {
    "remote": lambda door, agent: Home.remote(door.url, door.key, agent=agent),
    "served": lambda door, agent: Home.served(door.socket.parent, agent=agent),
    "inside": lambda door, agent: Home.inside(door.app, agent=agent),
}
Dialect = Literal["chat", "responses", "messages"]
every_way = pytest.mark.parametrize("way", WAYS)
every_dialect = pytest.mark.parametrize("dialect", ["chat", "responses", "messages"])


@pytest.fixture
async def door(project, provider: Mock) -> AsyncGenerator[Door]:
    async with door_of(project, config_of(provider.url)) as door:
        yield door


@pytest.mark.claim("A1.pydantic_ai")
@every_way
@every_dialect
async def test_a_call_is_answered_through_the_gateway_and_is_in_the_ledger(door, provider, way, dialect: Dialect):
    provider.script(Rule(text="ok, in Oslo"))
    async with WAYS[way](door, "default") as home:
        result = await Agent(model(home, "cheap", dialect)).run("Where?")
    assert result.output == "ok, in Oslo"
    (line,) = door.app.models.lines(before_us=None, limit=10, wanted={})
    assert (line.agent, line.dialect, line.state) == ("default", dialect, "settled")
    assert line.usage is not None
    assert line.usage.output == result.usage.output_tokens


@every_way
@every_dialect
async def test_a_stream_comes_whole(door, provider, way, dialect: Dialect):
    provider.script(Rule(text="one two three"))
    async with (
        WAYS[way](door, "default") as home,
        Agent(model(home, "cheap", dialect)).run_stream("Count.") as stream,
    ):
        assert await stream.get_output() == "one two three"


@every_way
async def test_an_agent_that_may_not_ask_is_refused_and_nobody_tries_again(door, provider, way):
    with pytest.raises((ModelHTTPError, OverwinterError)) as refused:
        async with WAYS[way](door, "none") as home:
            await Agent(model(home, "cheap")).run("Where?")
    assert getattr(refused.value, "status_code", 0) == 403
    assert provider.calls == []


async def test_a_home_that_nobody_holds_says_so(tmp_path):
    with pytest.raises(ServerUnreachable, match="does not answer"):
        async with Home.served(tmp_path) as home:
            await home.start("1")
