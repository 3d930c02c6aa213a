"""What a tier costs: what is held for it, what is booked, and that no batch's price is any call's."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from models_kit import ask, chat, config_of, home_of
from overwinter.adapters.models.prices import TablePrices
from overwinter.declared import DeclaredBudget
from overwinter.gateway.prices import Unpriced
from overwinter.testing import ManualClock
from provider import Mock, Rule

pytestmark = pytest.mark.anyio
FRESH, OUTPUT = 1_250, 10_000
"""Of gpt-5 at the default tier, nano-dollars a token."""


def rates(provider: str, model: str, tier: str) -> tuple[float, float]:
    found = TablePrices({}, ManualClock(1_800_000_000_000_000)).rates(provider, model, tier, 100)
    return float(found.fresh), float(found.output)


@pytest.mark.parametrize(
    ("provider", "model", "tier", "times"),
    [
        ("openai", "gpt-5", "flex", 0.5),
        ("openai", "gpt-5", "priority", 2),
        ("openai", "gpt-5", "fast", 2),
        ("anthropic", "claude-opus-5", "fast", 2),
    ],
)
def test_a_tier_with_a_price_of_its_own_has_that(provider: str, model: str, tier: str, times: float):
    fresh, output = rates(provider, model, "")
    assert rates(provider, model, tier) == (times * fresh, times * output)


@pytest.mark.parametrize(
    ("provider", "model"), [("openai", "gpt-5"), ("anthropic", "claude-sonnet-5"), ("google", "gemini-2.5-flash")]
)
@pytest.mark.parametrize("tier", ["batch", "flexx"])
def test_a_batch_and_a_tier_that_nobody_knows_have_no_price_for_a_call(provider: str, model: str, tier: str):
    with pytest.raises(Unpriced):
        rates(provider, model, tier)


OWN: dict[str, Any] = {"anthropic": {"claude-opus-5": {"input": 3, "output": 7}}}


@pytest.mark.parametrize(("tier", "plain", "own"), [("us", "", {}), ("fast+us", "fast", {}), ("us", "", OWN)])
def test_what_is_made_in_the_us_costs_a_tenth_more_for_every_kind_of_token_and_no_more_for_a_search(
    tier: str, plain: str, own: dict[str, Any]
):
    prices = TablePrices(own, ManualClock(1_800_000_000_000_000))
    there, anywhere = (prices.rates("anthropic", "claude-opus-5", each, 100) for each in (tier, plain))
    kinds = ("fresh", "output", "cache_read", "cache_write", "cache_write_long", "audio_input", "audio_output")
    assert {getattr(there, each) / getattr(anywhere, each) for each in kinds} == {Fraction(11, 10)}
    assert there.search == anywhere.search


@pytest.mark.parametrize(("provider", "tier"), [("anthropic", "eu"), ("anthropic", "fast+eu"), ("openai", "us")])
def test_a_place_that_nobody_has_a_price_for_has_none(provider: str, tier: str):
    with pytest.raises(Unpriced):
        rates(provider, {"anthropic": "claude-opus-5", "openai": "gpt-5"}[provider], tier)


@pytest.mark.claim("M2.tiers")
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("asked", "answered", "times"),
    [("us", "us", 1.1), ("us", "", 1.1), ("us", "global", 1), ("global", "", 1), ("", "", 1), ("", "not_available", 1)],
)
async def test_an_answer_is_booked_by_where_it_was_made_and_where_it_does_not_say_by_where_it_was_asked(
    project, provider: Mock, *, asked: str, answered: str, times: float, is_stream: bool
):
    provider.script(Rule(tokens=50, geo=answered))
    budgets = {"day": DeclaredBudget(of="tenant", usd=1.0)}
    body = chat(max_tokens=50, stream=is_stream, **({"inference_geo": asked} if asked else {}))
    async with home_of(project, config_of(provider.url, budgets=budgets)) as app:
        client, line = await ask(app, body, dialect="messages")
    (charge,) = provider.calls
    assert client.status == 200
    assert line.cost_nusd == round(times * (charge.prompt.fresh * 2_000 + charge.output_tokens * 10_000))
    assert (line.cost_nusd or 0) <= line.held_nusd


def openai_of(url: str):
    config = config_of(url, budgets={"day": DeclaredBudget(of="tenant", usd=1.0)})
    models = {"gpt-5": replace(config.models["cheap"], model="gpt-5")}
    providers = {"mock": replace(config.providers["mock"], prices="openai")}
    return replace(config, models=models, providers=providers, gateway=replace(config.gateway, model="gpt-5"))


@pytest.mark.claim("M2.tiers")
@pytest.mark.parametrize(
    ("asked", "answered", "times"),
    [
        ("", "default", 1),
        ("auto", "default", 1),
        ("flex", "flex", 0.5),
        ("flex", "default", 1),
        ("priority", "priority", 2),
        ("priority", "default", 1),
    ],
)
async def test_a_call_is_booked_at_the_tier_that_answered_and_never_above_what_was_held(
    project, provider: Mock, *, asked: str, answered: str, times: float
):
    provider.script(Rule(tokens=50, tier=answered))
    async with home_of(project, openai_of(provider.url)) as app:
        tier = {"service_tier": asked} if asked else {}
        client, line = await ask(app, chat(model="gpt-5", max_completion_tokens=50, **tier))
    (charge,) = provider.calls
    assert client.status == 200
    assert line.cost_nusd == times * (charge.prompt.fresh * FRESH + charge.output_tokens * OUTPUT)
    assert (line.cost_nusd or 0) <= line.held_nusd


@pytest.mark.claim("M2.tiers")
async def test_an_answer_of_a_tier_without_a_price_is_booked_at_the_default_one_and_marked(project, provider: Mock):
    provider.script(Rule(tokens=50, tier="scale"))
    async with home_of(project, openai_of(provider.url)) as app:
        _, line = await ask(app, chat(model="gpt-5", max_completion_tokens=50))
        (spent,) = await app.models.budgets()
    (charge,) = provider.calls
    assert line.usage is not None
    assert line.usage.source == "unknown"
    assert line.cost_nusd == spent.spent_nusd == charge.prompt.fresh * FRESH + charge.output_tokens * OUTPUT


@pytest.mark.parametrize("tier", ["batch", "flexx"])
async def test_a_request_for_a_tier_without_a_price_is_refused_under_a_budget(project, provider: Mock, tier: str):
    async with home_of(project, openai_of(provider.url)) as app:
        client, _ = await ask(app, chat(model="gpt-5", service_tier=tier))
    assert (client.status, provider.calls) == (402, [])
