"""A call that goes on for too long is stopped, and booked as such."""

import time

import anyio
import pytest

from models_kit import Client, ask, chat, config_of, home_of, until
from overwinter.gateway import CALL_S_MAX
from provider import Mock, Rule

pytestmark = pytest.mark.anyio


async def test_a_stream_that_never_ends_is_stopped_after_an_hour_and_not_before(project, provider: Mock):
    provider.script(Rule(fault="stall", at=9))
    client = Client()
    async with home_of(project, config_of(provider.url)) as app, anyio.create_task_group() as group:
        group.start_soon(lambda: ask(app, chat(stream=True), client=client))
        await until(lambda: bool(client.parts))
        app.models.gateway.stop_overdue(time.monotonic() + CALL_S_MAX - 60)
        assert app.models.gateway.under_way == 1
        app.models.gateway.stop_overdue(time.monotonic() + CALL_S_MAX + 60)
        await until(lambda: not app.models.gateway.under_way)
        (line,) = app.models.lines()
        assert (line.status, line.state) == ("timeout", "settled")
    assert b"longer than 3600 s" in b"".join(client.parts)
