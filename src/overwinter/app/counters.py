"""Figures of model calls for Prometheus, counted as calls end; in bounded memory."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from overwinter.clock import SECOND_US
from overwinter.gateway.budget import Line, Spent

__all__ = ["Counters"]

SERIES_MAX = 1_000
"""Different labels of one figure; what comes after them is counted under `other`."""
BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Counters:
    """Counts lines as they are settled."""

    _calls: Counter[Labels] = field(default_factory=Counter[Labels])
    _tokens: Counter[Labels] = field(default_factory=Counter[Labels])
    _cost: Counter[Labels] = field(default_factory=Counter[Labels])
    _saved: Counter[Labels] = field(default_factory=Counter[Labels])
    _redactions: Counter[Labels] = field(default_factory=Counter[Labels])
    _buckets: Counter[float] = field(default_factory=Counter[float])
    _seconds: float = 0.0
    _count: int = 0

    def count(self, line: Line) -> None:
        """Count one call."""
        who = (("agent", line.agent), ("model", line.model), ("provider", line.upstream))
        _add(self._calls, (*who, ("status", line.status)), 1)
        _add(self._cost, who, line.cost_nusd or 0)
        _add(self._saved, who, line.saved_nusd)
        usage = line.usage
        if usage is not None and line.status not in ("cached", "repeated"):
            kinds = {
                "input": usage.input,
                "cache_read": usage.cache_read,
                "cache_write": usage.cache_write + usage.cache_write_long,
                "output": usage.output,
                "reasoning": usage.reasoning,
            }
            for kind, tokens in kinds.items():
                if tokens:
                    _add(self._tokens, (*who, ("kind", kind)), tokens)
        took_s = ((line.ended_us or line.began_us) - line.began_us) / SECOND_US
        self._count += 1
        self._seconds += took_s
        self._buckets[next((each for each in BUCKETS_S if took_s <= each), float("inf"))] += 1

    def redacted(self, side: str, kind: str) -> None:
        """Count a confidential value that was found: in a request or an answer, and of which class."""
        _add(self._redactions, (("class", kind), ("in", side)), 1)

    def text(self, *, under_way: int, budgets: Sequence[Spent]) -> str:
        """Return everything in Prometheus' text format."""
        spent = {_of(each): each.spent_nusd / 1e9 for each in budgets}
        limits = {_of(each): each.budget.limit_nusd / 1e9 for each in budgets if each.budget.limit_nusd is not None}
        held = {_of(each): each.held_nusd / 1e9 for each in budgets}
        figures = (
            _figure("overwinter_model_calls_total", "counter", "Model calls that ended.", self._calls),
            _figure(
                "overwinter_model_tokens_total",
                "counter",
                "Tokens as providers count them; input includes cache, output reasoning.",
                self._tokens,
            ),
            _figure("overwinter_model_cost_usd_total", "counter", "What model calls cost.", _usd(self._cost)),
            _figure(
                "overwinter_model_saved_usd_total", "counter", "What kept answers would have cost.", _usd(self._saved)
            ),
            _figure(
                "overwinter_redactions_total",
                "counter",
                "Confidential values blocked, masked or replaced.",
                self._redactions,
            ),
            _figure("overwinter_model_calls_under_way", "gauge", "Model calls under way.", {(): under_way}),
            _figure("overwinter_budget_spent_usd", "gauge", "Spent in the window.", spent),
            _figure("overwinter_budget_held_usd", "gauge", "Held for calls under way.", held),
            _figure("overwinter_budget_limit_usd", "gauge", "Limit of the window.", limits),
            self._histogram(),
        )
        return "".join(figures)

    def _histogram(self) -> str:
        name, below = "overwinter_model_call_seconds", 0
        lines = [f"# HELP {name} From the request to the end of the answer.", f"# TYPE {name} histogram"]
        for each in (*BUCKETS_S, float("inf")):
            below += self._buckets[each]
            lines.append(f'{name}_bucket{{le="{"+Inf" if each == float("inf") else each}"}} {below}')
        return "\n".join([*lines, f"{name}_sum {self._seconds:.6f}", f"{name}_count {self._count}", ""])


def _add(counter: Counter[Labels], labels: Labels, amount: int) -> None:
    if labels not in counter and len(counter) >= SERIES_MAX:
        labels = tuple((name, "other") for name, _ in labels)
    counter[labels] += amount


def _usd(counter: Mapping[Labels, int]) -> Mapping[Labels, float]:
    return {labels: amount / 1e9 for labels, amount in counter.items()}


def _of(spent: Spent) -> Labels:
    scope = spent.budget.scope
    return ("kind", scope.kind), ("name", scope.name), ("window", spent.budget.window)


def _figure(name: str, kind: str, words: str, values: Mapping[Labels, float]) -> str:
    rows: Iterable[str] = (f"{name}{_labels(labels)} {value!r}" for labels, value in sorted(values.items()))
    return "\n".join([f"# HELP {name} {words}", f"# TYPE {name} {kind}", *rows, ""])


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    texts = (f'{name}="{_escaped(value)}"' for name, value in labels)
    return "{" + ",".join(texts) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
