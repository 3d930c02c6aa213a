"""The figures for Prometheus: read with its own client, they are those of the ledger, whatever names come from outside."""

from collections.abc import Mapping
from dataclasses import replace

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from models_kit import ask, chat, config_of, home_of, until
from overwinter.app.counters import BUCKETS_S, SERIES_MAX, Counters
from overwinter.config import DeclaredBudget
from overwinter.gateway.budget import Budget, Line, Scope, Spent
from overwinter.gateway.usage import Usage
from provider import Mock, Rule

Labels = frozenset[tuple[str, str]]
NAMES = st.text(max_size=20)
SETTLED = Line(
    call="c", began_us=0, agent="a", run_id="", key="", dialect="chat", upstream="p", model="m", state="settled",
    status="answered", cost_nusd=1, ended_us=1_000_000,
)  # fmt: skip


def read(text: str) -> Mapping[str, Mapping[Labels, float]]:
    """Return each sample's values by its labels, as Prometheus' own client reads them."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in {"counter", "gauge", "histogram"}
        for sample in family.samples:
            values, labels = found.setdefault(sample.name, {}), frozenset(sample.labels.items())
            assert labels not in values, f"{sample.name} is there twice with {sample.labels}"
            values[labels] = float(sample.value)
    return found


def of(**labels: str) -> Labels:
    return frozenset(labels.items())


@pytest.mark.anyio
async def test_they_are_the_figures_of_the_ledger(project, provider: Mock):
    limits = {"all": DeclaredBudget(of="tenant", window="day", usd=5.0)}
    async with home_of(project, config_of(provider.url, budgets=limits, cache=True)) as app:
        body = chat("sing", temperature=0)
        lines = [(await ask(app, body))[1], (await ask(app, body))[1]]
        provider.script(Rule(fault="status", status=400))
        lines += [(await ask(app, chat("and this")))[1], (await ask(app, chat("mine"), agent="none"))[1]]
        figures = read(await app.models.metrics())
    calls = figures["overwinter_model_calls_total"]
    assert sum(calls.values()) == len(lines) == 4
    assert {dict(each)["status"] for each in calls} == {each.status for each in lines}
    assert sum(figures["overwinter_model_cost_usd_total"].values()) == pytest.approx(
        sum(each.cost_nusd or 0 for each in lines) / 1e9
    )
    assert sum(figures["overwinter_model_saved_usd_total"].values()) == lines[1].saved_nusd / 1e9 > 0
    assert lines[0].usage is not None
    said = {dict(each)["kind"]: tokens for each, tokens in figures["overwinter_model_tokens_total"].items()}
    assert said == {"input": lines[0].usage.input, "output": lines[0].usage.output}, "a kept answer has no tokens"
    (spent,) = figures["overwinter_budget_spent_usd"].values()
    assert spent == sum(each.cost_nusd or 0 for each in lines) / 1e9
    assert list(figures["overwinter_budget_limit_usd"].values()) == [5.0]
    assert list(figures["overwinter_budget_held_usd"].values()) == [0.0]
    assert figures["overwinter_model_call_seconds_count"][of()] == len(lines)


@pytest.mark.anyio
async def test_a_call_under_way_is_one_and_its_hold_is_shown_until_it_ends(project, provider: Mock):
    limits = {"all": DeclaredBudget(of="tenant", window="day", usd=5.0)}
    figures = list[Mapping[str, Mapping[Labels, float]]]()
    async with home_of(project, config_of(provider.url, budgets=limits)) as app:
        provider.script(Rule(fault="slow_first"))
        async with anyio.create_task_group() as group:
            group.start_soon(ask, app, chat("sing"))
            await until(lambda: bool(provider.calls))
            figures.append(read(await app.models.metrics()))
            await until(lambda: provider.provider.release() is None and app.models.gateway.under_way == 0)
        figures.append(read(await app.models.metrics()))
    during, ended = figures
    assert during["overwinter_model_calls_under_way"][of()] == 1
    assert sum(during["overwinter_budget_held_usd"].values()) > 0
    assert "overwinter_model_calls_total" not in during, "it has not ended"
    assert ended["overwinter_model_calls_under_way"][of()] == 0
    assert list(ended["overwinter_budget_held_usd"].values()) == [0.0]


@given(st.tuples(NAMES, NAMES, NAMES, NAMES, NAMES, NAMES))
def test_a_name_of_any_letters_comes_back_as_it_went_in(names):
    agent, model, provider, status, kind, scope = names
    counters = Counters()
    counters.count(replace(SETTLED, agent=agent, model=model, upstream=provider, status=status))
    counters.redacted("request", kind)
    budget = Budget(scope=Scope(kind="agent", name=scope), window="ever", limit_nusd=1)
    figures = read(
        counters.text(under_way=0, budgets=[Spent(budget=budget, spent_nusd=0, held_nusd=0, calls=0, until_us=None)])
    )
    who = {"agent": agent, "model": model, "provider": provider}
    assert figures["overwinter_model_calls_total"] == {of(**who, status=status): 1}
    assert figures["overwinter_model_cost_usd_total"] == {of(**who): 1e-9}
    assert figures["overwinter_redactions_total"] == {frozenset({("class", kind), ("in", "request")}): 1}
    assert figures["overwinter_budget_limit_usd"] == {of(kind="agent", name=scope, window="ever"): 1e-9}


def test_each_kind_of_token_is_counted_apart():
    counters = Counters()
    usage = Usage(fresh=1, cache_read=20, cache_write=300, cache_write_long=4_000, output=50_000, reasoning=600)
    for status in ("answered", "cached", "repeated"):
        counters.count(replace(SETTLED, usage=usage, status=status))
    figures = read(counters.text(under_way=0, budgets=()))["overwinter_model_tokens_total"]
    assert {dict(each)["kind"]: tokens for each, tokens in figures.items()} == {
        "input": 4_321, "cache_read": 20, "cache_write": 4_300, "output": 50_000, "reasoning": 600,
    }  # fmt: skip


def test_a_large_count_goes_on_being_exact():
    counters = Counters()
    for tokens in (12_345_678_901, 1):
        counters.count(replace(SETTLED, usage=Usage(fresh=tokens), cost_nusd=tokens))
    figures = read(counters.text(under_way=0, budgets=()))
    assert list(figures["overwinter_model_tokens_total"].values()) == [12_345_678_902]
    assert list(figures["overwinter_model_cost_usd_total"].values()) == [12.345678902]


def test_names_without_end_take_no_memory_without_end_and_no_call_from_the_sum():
    counters = Counters()
    for number in range(SERIES_MAX + 100):
        counters.count(replace(SETTLED, model=f"model-{number}"))
        counters.redacted("request", f"kind-{number}")
    figures = read(counters.text(under_way=0, budgets=()))
    for name in ("overwinter_model_calls_total", "overwinter_redactions_total"):
        assert len(figures[name]) == SERIES_MAX + 1
        assert sum(figures[name].values()) == SERIES_MAX + 100
    assert (
        figures["overwinter_model_calls_total"][of(agent="other", model="other", provider="other", status="other")]
        == 100
    )


@given(st.lists(st.integers(0, 300_000_000), max_size=30))
def test_times_are_a_histogram(took_us):
    counters = Counters()
    for each in took_us:
        counters.count(replace(SETTLED, began_us=5, ended_us=5 + each))
    figures = read(counters.text(under_way=0, budgets=()))
    below = {dict(each)["le"]: count for each, count in figures["overwinter_model_call_seconds_bucket"].items()}
    assert below == {
        **{str(edge): sum(each <= edge * 1e6 for each in took_us) for edge in BUCKETS_S}, "+Inf": len(took_us)
    }  # fmt: skip
    assert figures["overwinter_model_call_seconds_count"][of()] == len(took_us)
    assert figures["overwinter_model_call_seconds_sum"][of()] == pytest.approx(sum(took_us) / 1e6)
