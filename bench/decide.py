"""What a decision costs in a home of 10,000 policies: by the slice of its agent, and by the whole set at once.

The floor is Cedar alone, asked with everything parsed, for the same request and slice, a decision and the floor in turns; the
rest is this project's. By the clock and by the processor's time, both for both: on a busy machine p99 by the clock is a
matter of who else runs, and then the floor has it too. `over_floor_p99_us` is the 99th percentile of what a decision takes
longer than the floor's median, of the processor. Collections of garbage are counted, and how long the longest took; so is
how often a set was sliced or parsed again once warm, which must be never. `cold_*` is the first decision of each agent and function: in
this home, and in one whose rules name no agent, but each a function of its own.
"""

import gc
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cedarpy

from bench.report import percentile
from overwinter.adapters.cedar import CedarPolicy, Grant, rules_of
from overwinter.adapters.cedar.deciding import Act
from overwinter.adapters.cedar.slices import Slices
from overwinter.policy import Allow, Deny, Resource
from overwinter.principal import Principal

GRANTS_PER_AGENT = 9
"""And one policy of its own, with a condition on an argument."""
WARM_UP = 200
STUB = "async def charge(*, cents: int, note: str | None = ...) -> str: ..."


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    agents = [f"agent{number}" for number in range(100 if is_small else 1_000)]
    began = time.perf_counter()
    policy = home(agents)
    load_s = time.perf_counter() - began
    size = len(policy.rules.rules)
    acts = [act(agent, number % 7) for number, agent in enumerate(agents[:50])]
    first = cold(policy, [act(agent, number % 7) for number, agent in enumerate(agents)])
    whole = by_all(policy, acts)
    rounds = 500 if is_small else 10_000
    gc.collect()
    gc.freeze()  # as `overwinter serve` does
    with watched() as collections:
        before = made(policy)
        decisions, floor = interleaved(policy, acts, rounds)
        again = made(policy) - before
    least = statistics.median(each.cpu_us for each in floor)
    over = [each.cpu_us - least for each in decisions]
    others = [act(agents[number % 50], number, f"s{number}") for number in range(len(agents))]
    unscoped = cold(home_of_functions(agents[:50], size), others)
    return {
        "policies": size,
        "n": rounds,
        **figures("", decisions),
        **figures("floor_", floor),
        "over_floor_p99_us": round(percentile(over, 0.99), 1),
        "p99_ratio": round(percentile(wall(decisions), 0.99) / percentile(wall(floor), 0.99), 2),
        "unsliced_p50_us": round(whole, 1),
        "collections": len(collections),
        "collection_max_us": round(max(collections, default=0.0), 1),
        "made_again": again,
        "cold_p50_us": round(statistics.median(first), 1),
        "cold_p99_us": round(percentile(first, 0.99), 1),
        "cold_unscoped_p50_us": round(statistics.median(unscoped), 1),
        "cold_unscoped_p99_us": round(percentile(unscoped, 0.99), 1),
        "load_ms": round(1e3 * load_s, 1),
    }


@dataclass(frozen=True, slots=True)
class Took:
    """How long one decision took."""

    us: float
    """By the clock."""
    cpu_us: float
    """Of the processor, this thread alone."""


def wall(rows: list[Took]) -> list[float]:
    """Return the times by the clock."""
    return [each.us for each in rows]


def figures(name: str, rows: list[Took]) -> dict[str, float]:
    """Return median and 99th percentile, by the clock and of the processor."""
    busy = [each.cpu_us for each in rows]
    return {
        f"{name}p50_us": round(statistics.median(wall(rows)), 1),
        f"{name}p99_us": round(percentile(wall(rows), 0.99), 1),
        f"{name}cpu_p50_us": round(statistics.median(busy), 1),
        f"{name}cpu_p99_us": round(percentile(busy, 0.99), 1),
    }


@contextmanager
def watched() -> Generator[list[float]]:
    """Give a list that gets the length of each collection of garbage, microseconds of the processor."""
    began, lengths = 0.0, list[float]()

    def note(phase: str, _: object) -> None:
        nonlocal began
        if phase == "start":
            began = time.thread_time()
        else:
            lengths.append(1e6 * (time.thread_time() - began))

    gc.callbacks.append(note)
    try:
        yield lengths
    finally:
        gc.callbacks.remove(note)


def made(policy: CedarPolicy) -> int:
    """Return how many slices and requests were made since the policy was, for want of a remembered one."""
    version = policy.present
    return version.prepared.cache_info().misses + version.slices.of.cache_info().misses


def cold(policy: CedarPolicy, acts: list[Act]) -> list[float]:
    """Return how long the first decision of each act takes, microseconds of the processor."""
    return [took(lambda each=each: allowed(policy, each)).cpu_us for each in acts]


def home(agents: list[str]) -> CedarPolicy:
    """Return a policy with ten rules for each agent."""
    texts = {
        "policies/agents.cedar": "\n".join(
            f'permit(principal == Agent::"{agent}", action == Action::"call", resource in Service::"billing")\n'
            f"when {{ context.args has cents && context.args.cents < 100000 }};"
            for agent in agents
        )
    }
    grants = [
        Grant(id=f"{agent}-{number}", agent=agent, pattern=f"service{number}.*" if number % 3 else f"*.verb{number}")
        for agent in agents
        for number in range(GRANTS_PER_AGENT)
    ]
    return CedarPolicy(rules_of(dict.fromkeys(agents, "owner"), texts, grants), lambda: 0)


def home_of_functions(agents: list[str], size: int) -> CedarPolicy:
    """Return a policy whose rules hold for every agent: each caps one function."""
    text = "\n".join(
        f'forbid(principal, action == Action::"call", resource == Function::"s{number}.charge{number}") '
        "when { context.args has cents && context.args.cents > 100000 };"
        for number in range(size)
    )
    grants = [Grant(id=agent, agent=agent, pattern="*") for agent in agents]
    return CedarPolicy(rules_of(dict.fromkeys(agents, "owner"), {"policies/all.cedar": text}, grants), lambda: 0)


def act(agent: str, number: int, service: str = "billing") -> Act:
    """Return a call that the agent's own policy allows."""
    principal = Principal(agent=agent, run_id="run", owner="owner")
    resource = Resource(name=f"{service}.charge{number}", stub=STUB)
    return Act(principal=principal, action="call", resource=resource, arguments={"cents": 5, "note": "a note"})


def allowed(policy: CedarPolicy, each: Act) -> None:
    """Decide, and insist on the answer."""
    decision = policy.decide(each.principal, each.action, each.resource, each.arguments)
    if not isinstance(decision, Allow):
        raise TypeError(f"{each} was not allowed: {decision}")


def interleaved(policy: CedarPolicy, acts: list[Act], rounds: int) -> tuple[list[Took], list[Took]]:
    """Return how long decisions took, and Cedar alone, in turns."""
    decisions: list[Took] = []
    floor: list[Took] = []
    asked = [bare(policy, each) for each in acts]
    for number in range(WARM_UP + rounds):
        each = number % len(acts)
        decisions.append(took(lambda each=each: allowed(policy, acts[each])))
        floor.append(took(asked[each]))
    refused = policy.decide(acts[0].principal, "call", acts[0].resource, {"cents": 100_000})
    assert isinstance(refused, Deny), refused
    return decisions[WARM_UP:], floor[WARM_UP:]


def took(work: Callable[[], object]) -> Took:
    """Return how long some work took."""
    busy, began = time.thread_time(), time.perf_counter()
    work()
    return Took(1e6 * (time.perf_counter() - began), 1e6 * (time.thread_time() - busy))


def bare(policy: CedarPolicy, each: Act) -> Callable[[], object]:
    """Return Cedar's own answer to the same question."""
    ready = policy.present.prepared(("Agent", each.principal.agent), each.action, each.resource)
    request = {**ready.request, "context": {"args": {"cents": 5}}}
    return lambda: cedarpy.is_authorized(request, ready.slice.handle, ready.entities, ready.schema)


def by_all(policy: CedarPolicy, acts: list[Act]) -> float:
    """Return the median time of a decision by the whole set, parsed once."""
    whole = Slices(policy.rules.rules).whole()
    times: list[float] = []
    for each in acts[:20]:
        ready = policy.present.prepared(("Agent", each.principal.agent), each.action, each.resource)
        request = {**ready.request, "context": {"args": {"cents": 5}}}
        times.append(1e6 * timed(lambda ready=ready, request=request: unsliced(request, whole, ready)))
    return statistics.median(times)


def unsliced(request: dict[str, Any], whole: cedarpy.PolicySet, ready: Any) -> None:
    """Decide by all policies."""
    answer = cedarpy.is_authorized(request, whole, ready.entities, ready.schema)
    assert answer.decision is cedarpy.Decision.Allow, answer.diagnostics.errors


def timed(work: Callable[[], object]) -> float:
    """Return how long it took, seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
