"""Revoking an agent cuts its open model streams, with real processes."""

import anyio
from bench.cut import cut


def test_every_open_stream_of_a_revoked_agent_ends_with_an_error_and_is_closed_at_the_provider():
    found = anyio.run(lambda: cut(streams=40))
    assert (found["cut"], found["closed_upstream"]) == (40, 40)
