"""What a call was made of goes when the call has ended, not at the next garbage collection: it may be 32 MB."""

import gc
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

from models_kit import ask, chat, config_of, home_of
from overwinter.declared import DeclaredBudget
from provider import Mock, Rule

pytestmark = pytest.mark.anyio


@pytest.fixture
def rings() -> Generator[list[Any]]:
    """Yield where the collector puts what it finds in rings, and have it look only when it is told to."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("how", ["whole", "stream", "refused", "failing", "repeated", "redacted"])
async def test_nothing_that_was_asked_is_left_in_a_ring(project, provider: Mock, rings: list[Any], how: str):
    budgets = {"all": DeclaredBudget(of="tenant", window="day", usd=1e-9 if how == "refused" else 100.0)}
    config = config_of(provider.url, budgets=budgets, cache=True, redact={"email": "replace"})
    if how == "failing":
        provider.script(Rule(fault="status", status=400, times=3))
    body = chat("to ada@example.com" if how == "redacted" else "hello", max_tokens=50, stream=how == "stream")
    async with home_of(project, config) as app:
        for number in range(3):
            named: dict[str, Any] = {"call": "test:same", "is_named": True} if how == "repeated" else {}
            await ask(app, {**body, "seed": number if how != "repeated" else 0}, **named)
        gc.collect()
        found = Counter(type(each).__name__ for each in rings)
        assert not {name: found[name] for name in ("Asked", "_Call", "Job", "Wire", "Tap") if found[name]}
