"""The rules that can concern one principal, action and resource, parsed once.

Cedar has no index: 10,000 rules cost 9 ms a decision, the eight of a slice 50 us. A rule is left out of a slice only if
its scope cannot hold for exactly these three, so a slice decides as the whole set would.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, TypeAlias

import cedarpy

from overwinter.adapters.cedar.rules import Entity, Rule, fits
from overwinter.adapters.cedar.schema import RESOURCE_TYPES, parents_of
from overwinter.frozen import frozen, replace

__all__ = ["Slice", "Slices"]

SLICES_MAX = 20_000
"""Slices remembered: a few hundred bytes each, as those of equal rules share what is parsed."""
HANDLES_MAX = 4_096
"""Parsed sets kept: some 10 KB each."""
Row: TypeAlias = tuple[int, Rule]
"""A rule with its place among all."""


@frozen
class Slice:
    """What can concern one principal, action and resource."""

    rules: tuple[Rule, ...]
    handle: cedarpy.PolicySet
    names: frozenset[str] | None
    """Arguments that its rules mention; None: any."""
    attributes: frozenset[str] | None
    """What else of the context they mention; None: any."""

    @property
    def minds_approval(self) -> bool:
        """Return whether a rule asks if a person has said yes."""
        return self.attributes is None or "approved" in self.attributes

    def named(self, ids: Iterable[str]) -> tuple[Rule, ...]:
        """Return its rules of these ids, in their own order: Cedar's has no meaning."""
        wanted = set(ids)
        return tuple(each for each in self.rules if each.id in wanted)


class Slices:
    """All slices of one version of the rules."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._by_principal: dict[Entity | None, Shelf] = defaultdict(Shelf)
        for row in enumerate(rules):
            scope = row[1].body["principal"]
            self._by_principal[_only(scope) if scope["op"] == "==" else None].put(row)
        self.of = lru_cache(SLICES_MAX)(self._of)
        self._parsed = lru_cache(HANDLES_MAX)(self._parse)
        self._bodies: Mapping[str, Rule] = {each.id: each for each in rules}

    def concerning(self, principal: Entity) -> Sequence[Rule]:
        """Return the rules that can concern a principal, in the order in which they were given."""
        return self._in_order(principal, lambda shelf: shelf.rows())

    def of_runs(self, principal: Entity) -> Sequence[Rule]:
        """Return the rules that can concern a principal and some run, in the order in which they were given."""
        return self._in_order(principal, lambda shelf: shelf.runs)

    def _in_order(self, principal: Entity, taken: Callable[["Shelf"], Iterable[Row]]) -> Sequence[Rule]:
        shelves = [self._by_principal[each] for each in (principal, None) if each in self._by_principal]
        rows = sorted((row for each in shelves for row in taken(each)), key=lambda row: row[0])
        return [rule for _, rule in rows if fits(rule.body["principal"], principal, ())]

    def whole(self) -> cedarpy.PolicySet:
        """Return all rules as one parsed set: what a slice is measured and tested against."""
        return self._parse(tuple(self._bodies), None)

    def _of(self, principal: Entity, action: str, name: str) -> Slice:
        """Return the slice, its rules in the order in which they were given."""
        act = ("Action", "call" if action == "see" else action)
        what, parents = (RESOURCE_TYPES[action], name), parents_of(action, name)
        rules = tuple(
            _specialised(rule, what)
            for rule in self._in_order(principal, lambda shelf: shelf.about((what, *parents)))
            if fits(rule.body["action"], act, ())
            and fits(rule.body["resource"], what, parents)
            and (not rule.glob or fnmatchcase(name, rule.glob))
        )
        has_globs = any(each.glob for each in rules)
        return Slice(
            rules=rules,
            handle=self._parsed(tuple(each.id for each in rules), what if has_globs else None),
            names=_union(each.names for each in rules),
            attributes=_union(each.attributes for each in rules),
        )

    def _parse(self, ids: tuple[str, ...], what: Entity | None) -> cedarpy.PolicySet:
        rules = [self._bodies[each] for each in ids]
        bodies = {each.id: (_specialised(each, what) if what else each).body for each in rules}
        return cedarpy.PolicySet.from_json_str(
            json.dumps({"staticPolicies": bodies, "templates": {}, "templateLinks": []})
        )


class Shelf:
    """Rules of one principal, or of any, by the resource that they name: what names another is not even looked at.

    Ten thousand rules, each about a function of its own, cost the first call of each function 19 ms without it.
    """

    def __init__(self) -> None:
        self._by_resource: dict[Entity | None, list[Row]] = defaultdict(list)
        self.runs: list[Row] = []
        """The rules that may be about a run."""

    def put(self, row: Row) -> None:
        """Take a rule."""
        scope = row[1].body["resource"]
        only = _only(scope) if scope["op"] in ("==", "in") else None
        self._by_resource[only].append(row)
        if only is None or only[0] == RESOURCE_TYPES["wake"]:
            self.runs.append(row)

    def about(self, entities: Iterable[Entity]) -> Iterable[Row]:
        """Return the rules that may be about one of these, in no order."""
        return [row for each in (*entities, None) for row in self._by_resource.get(each, ())]

    def rows(self) -> Iterable[Row]:
        """Return all of them, in no order."""
        return [row for rows in self._by_resource.values() for row in rows]


def _only(scope: Mapping[str, Any]) -> Entity | None:
    """Return the one entity that a scope names; None: it names several, or none."""
    return (scope["entity"]["type"], scope["entity"]["id"]) if "entity" in scope else None


def _union(parts: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    """Return all that is mentioned; None stands for anything."""
    whole: set[str] = set()
    for part in parts:
        if part is None:
            return None
        whole |= part
    return frozenset(whole)


def _specialised(rule: Rule, what: Entity) -> Rule:
    """Return a rule of a pattern that Cedar cannot say as one of the function that it matches."""
    if not rule.glob:
        return rule
    resource = {"op": "==", "entity": {"type": what[0], "id": what[1]}}
    return replace(rule, body={**rule.body, "resource": resource})
