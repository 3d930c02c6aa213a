"""What a decision costs in a home of 10,000 policies: by the slice of its agent, and by the whole set at once.

The floor is Cedar alone, asked with everything parsed, for the same request and slice; the rest is this project's.
`cpu_p99_us` is the processor's time: on a busy machine p99 by the clock is a matter of who else runs.
"""

import gc
import statistics
import time
from collections.abc import Callable
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
    first = [1e6 * timed(lambda each=each: allowed(policy, each)) for each in acts]
    whole = by_all(policy, acts)
    rounds = 500 if is_small else 10_000
    sliced, floor, busy = interleaved(policy, acts, rounds)
    return {
        "policies": size,
        "n": rounds,
        "p50_us": round(statistics.median(sliced), 1),
        "p99_us": round(percentile(sliced, 0.99), 1),
        "cpu_p99_us": round(percentile(busy, 0.99), 1),
        "floor_p50_us": round(statistics.median(floor), 1),
        "floor_p99_us": round(percentile(floor, 0.99), 1),
        "unsliced_p50_us": round(whole, 1),
        "first_p50_us": round(statistics.median(first), 1),
        "load_ms": round(1e3 * load_s, 1),
    }


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


def act(agent: str, number: int) -> Act:
    """Return a call that the agent's own policy allows."""
    principal = Principal(agent=agent, run_id="run", owner="owner")
    resource = Resource(name=f"billing.charge{number}", stub=STUB)
    return Act(principal=principal, action="call", resource=resource, arguments={"cents": 5, "note": "a note"})


def allowed(policy: CedarPolicy, each: Act) -> None:
    """Decide, and insist on the answer."""
    decision = policy.decide(each.principal, each.action, each.resource, each.arguments)
    if not isinstance(decision, Allow):
        raise TypeError(f"{each} was not allowed: {decision}")


def interleaved(policy: CedarPolicy, acts: list[Act], rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Return the times of decisions, of Cedar alone, in turns, and the processor's for decisions, in microseconds."""
    busy: list[float] = []
    sliced: list[float] = []
    floor: list[float] = []
    asked = [bare(policy, each) for each in acts]
    gc.collect()
    for number in range(WARM_UP + rounds):
        each = number % len(acts)
        began = time.thread_time()
        sliced.append(1e6 * timed(lambda each=each: allowed(policy, acts[each])))
        busy.append(1e6 * (time.thread_time() - began))
        floor.append(1e6 * timed(asked[each]))
    refused = policy.decide(acts[0].principal, "call", acts[0].resource, {"cents": 100_000})
    assert isinstance(refused, Deny), refused
    return sliced[WARM_UP:], floor[WARM_UP:], busy[WARM_UP:]


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
