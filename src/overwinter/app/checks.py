"""What programs of a home are checked against: the types of its services, as they are now and as its agents may see them."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from overwinter.app.parts import Parts, Sight
from overwinter.catalog import Function
from overwinter.check import FIRST, Cell, Finding, Transcript, line_of
from overwinter.prefixes import Prefixes
from overwinter.store import Inherited, Loaded
from overwinter.subset import called_by_name, functions_named
from overwinter.values import Value
from overwinter.waits import WAITS

__all__ = ["Checks"]

_Named = Mapping[str, tuple[str, ...]]
CHAINS_REMEMBERED = 256
PROGRAMS_REMEMBERED = 1_000
"""Parsed programs kept, so that ten thousand runs of one program parse it once."""


class Checks:
    """Checks programs. What is remembered is forgotten when the catalog changes."""

    def __init__(self, parts: Parts, sight: Sight) -> None:
        self._parts, self._sight = parts, sight
        self._named = lru_cache(PROGRAMS_REMEMBERED)(self._functions_named)
        self._types = lru_cache(PROGRAMS_REMEMBERED)(self._types_of)
        self._digest = lru_cache(maxsize=None)(self._digest_of)
        self._together = Prefixes[str, _Named]({}, self._with, remembered_max=CHAINS_REMEMBERED)
        self._cells = Prefixes[tuple[str, int | None], tuple[Cell, ...]](
            (), _with_cell, remembered_max=CHAINS_REMEMBERED
        )
        self._stubs: Mapping[str, str] | None = None
        self._catalog_changes = 0

    async def check(
        self, source: str, agent: str, inputs: Mapping[str, Value], inherited: Inherited | None = None
    ) -> Sequence[Finding]:
        """Return what is wrong with a program under an agent's identity, in order of line."""
        stubs, seen = self._stubs_now(), self._parts.sources.seen(self._named(source))
        findings = await self._parts.checker.check(
            source, stubs, inputs, transcript=self._transcript(inherited), seen=seen
        )
        if any(finding.is_certain for finding in findings) and (missing := self._parts.sources.missing()):
            findings = [_explained(finding, missing) for finding in findings]
        unseen = list(self._unseen(source, agent))
        return sorted([*findings, *unseen]) if unseen else findings

    async def check_again(self, run: Loaded) -> Sequence[Finding]:
        """Return what is wrong with the program of a run by the types of this moment."""
        return await self.check(run.program, run.agent, run.inputs, run.inherited)

    def named(self, sources: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
        """Return which functions of which modules sources name, one or those of a chain."""
        return self._named(sources[0]) if len(sources) == 1 else self._together.of(sources)

    def reached(self, source: str) -> tuple[Sequence[Function], bool]:
        """Return the functions that a source may call, and whether it may call any other too."""
        by_name, is_open = called_by_name(source)
        named = {f"{service}.{name}" for service, names in self._named(source).items() for name in names}
        found = map(self._parts.tools.catalog.function, sorted(named | by_name))
        return [each for each in found if each is not None and each.effect != "wait"], is_open

    def types(self, source: str) -> bytes:
        """Return a digest of the types that a source speaks of, as they are now."""
        self._stubs_now()
        return self._types(source)

    def _transcript(self, inherited: Inherited | None) -> Transcript:
        """Return what ran before a program; of one that failed any of its names may be there."""
        return FIRST if inherited is None else Transcript(cells=self._cells.of(inherited.earlier))

    def _unseen(self, source: str, agent: str) -> Iterator[Finding]:
        """Yield the functions of a program that its agent may never call, whatever the arguments."""
        catalog = self._parts.tools.catalog
        for service, names in self._named(source).items():
            for function in map(catalog.function, (f"{service}.{name}" for name in names if service != "tools")):
                if function is not None and not self._sight(agent, function):
                    message = f"agent {agent!r} may not call {function.name}: no rule permits it"
                    line = line_of(source, function.name)
                    yield Finding(line=line, column=0, rule="not-permitted", message=message, at=function.name)

    def _stubs_now(self) -> Mapping[str, str]:
        """Return the stubs of every service; the same object until the catalog changes."""
        changes = self._parts.sources.file.changes
        if self._stubs is None or self._catalog_changes != changes:
            modules = self._parts.tools.catalog.modules
            self._stubs = {name: module.stub for name, module in modules.items() if name != "tools"}
            self._catalog_changes = changes
            self._named.cache_clear()
            self._together.clear()
            self._types.cache_clear()
            self._digest.cache_clear()
        return self._stubs

    def _types_of(self, source: str) -> bytes:
        names = sorted(self._named(source).keys() & self._stubs_now().keys())
        return hashlib.sha256(b"".join(map(self._digest, names))).digest()

    def _digest_of(self, service: str) -> bytes:
        stub = self._stubs_now()[service]
        return hashlib.sha256(f"{service}\0{stub}".encode("utf-8", "surrogatepass")).digest()

    def _with(self, modules: _Named, source: str) -> _Named:
        """Return the functions of modules with those that one more source names."""
        more = {
            name: tuple(dict.fromkeys((*modules.get(name, ()), *each))) for name, each in self._named(source).items()
        }
        return {**modules, **more}

    def _functions_named(self, source: str) -> Mapping[str, tuple[str, ...]]:
        modules = {name: tuple(module.functions) for name, module in self._parts.tools.catalog.modules.items()}
        waits = tuple(name.removeprefix("tools.") for name in WAITS if name.startswith("tools."))
        modules["tools"] = (*modules.get("tools", ()), *waits, "call")
        return functions_named(source, modules)


def _explained(finding: Finding, missing: Mapping[str, str]) -> Finding:
    """Return a finding about a service that has no functions with the reason: it is none of the program's."""
    is_about_it = finding.is_certain and finding.rule in ("unresolved-attribute", "unresolved-import")
    service = next((name for name in missing if is_about_it and f"`{name}`" in finding.message), None)
    if service is None:
        return finding
    why = f"service {service} has no functions here: {missing[service]}; `overwinter tools refresh {service}` tries it again"
    return replace(finding, message=why)


def _with_cell(cells: tuple[Cell, ...], ran: tuple[str, int | None]) -> tuple[Cell, ...]:
    return (*cells, Cell(source=ran[0], stopped_line=ran[1]))
