"""A store to begin with, once for each that there is."""

from contextlib import AsyncExitStack

import pytest

from overwinter.testing import ManualClock
from storing import STORES, World


@pytest.fixture(params=STORES, ids=lambda store: store.__name__)
def opening(request):
    return request.param


@pytest.fixture
async def world(opening, tmp_path):
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        yield World(await stack.enter_async_context(opening(tmp_path, clock)), clock)
