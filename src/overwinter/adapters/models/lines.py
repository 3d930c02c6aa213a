"""Calls of the ledger as rows of `models.db`."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import msgspec

from overwinter.gateway.budget import Line
from overwinter.gateway.usage import Usage

__all__ = ["LINE", "decoded", "encoded", "line_of", "row_of", "usage_of", "usage_text"]

LINE = "call, began, ended, agent, run, key, dialect, upstream, model, priced, state, status, held, cost, saved, usage, answer, found, digest, rules, policies"
"""Columns."""


def row_of(line: Line) -> tuple[Any, ...]:
    """Return a call as its columns."""
    return (
        line.call, line.began_us, line.ended_us, line.agent, line.run_id, line.key, line.dialect, line.upstream, line.model,
        line.priced_model, line.state, line.status, line.held_nusd, line.cost_nusd, line.saved_nusd, usage_text(line.usage),
        line.answer_id, encoded(dict(line.found)) if line.found else "", line.digest, line.rules,
        encoded(line.policies),
    )  # fmt: skip


def line_of(row: tuple[Any, ...]) -> Line:
    """Return a call of its columns."""
    (
        call,
        began,
        ended,
        agent,
        run,
        key,
        dialect,
        upstream,
        model,
        priced,
        state,
        status,
        held,
        cost,
        saved,
        usage,
        answer,
        found,
        digest,
        rules,
        policies,
    ) = row
    return Line(
        call=call, began_us=began, ended_us=ended, agent=agent, run_id=run, key=key, dialect=dialect, upstream=upstream,
        model=model, priced_model=priced, state=state, status=status, held_nusd=held, cost_nusd=cost, saved_nusd=saved,
        usage=usage_of(usage), answer_id=answer, found=decoded(found) if found else {}, digest=digest, rules=rules,
        policies=tuple(decoded(policies)),
    )  # fmt: skip


_COUNTS = tuple(each.name for each in fields(Usage) if each.name != "also")


def encoded(value: Any) -> str:
    """Return JSON, in a tenth of what `json.dumps` takes: values of each call, twice."""
    return msgspec.json.encode(value).decode()


def decoded(text: str) -> Any:
    """Return what JSON says."""
    return msgspec.json.decode(text)


def usage_text(usage: Usage | None) -> str:
    """Return counts as JSON; those that are nothing are left out."""
    if usage is None:
        return ""
    return encoded(_counts(usage))


def _counts(usage: Usage) -> dict[str, Any]:
    told = {name: value for name in _COUNTS if (value := getattr(usage, name))}
    return told | ({"also": [_counts(each) for each in usage.also]} if usage.also else {})


def usage_of(text: str) -> Usage | None:
    """Return the counts of `usage_text`."""
    return _counted(decoded(text)) if text else None


def _counted(told: Mapping[str, Any]) -> Usage:
    also: Iterable[Mapping[str, Any]] = told.get("also", ())
    counts: dict[str, Any] = {name: value for name, value in told.items() if name != "also"}
    return Usage(**counts, also=tuple(map(_counted, also)))
