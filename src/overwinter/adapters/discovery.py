"""What the host answers of the module `tools`. The look-ups, search, browse, describe, read, show an agent only what is its own."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from overwinter.adapters.catalog_file import CatalogFile, Hit
from overwinter.catalog import Catalog, Function, Parameter, Performed, PlainModule
from overwinter.catalog.naming import class_name
from overwinter.catalog.seen import text
from overwinter.events import Answer, Call, Effect, Raised, Returned
from overwinter.handles import Handles, handle_of
from overwinter.stubs import of_tools
from overwinter.values import Value

__all__ = ["Discovery"]

LIMIT_MAX = 100
QUERIES_MAX = 16
NAMES_MAX = 20
MODULES_REMEMBERED = 4
"""Stubs that are kept cut into types; the largest known one has 2 MB."""
TYPES_SHOWN_MAX = 12
FIELDS_SHOWN_MAX = 60
_WORD = re.compile(r"[A-Za-z_]\w*")


ASKED_MAX = 10
"""Attempts to ask a model: one and a half to three minutes of pauses. A provider that is down, and left alone after that, is back by then, or something is wrong."""


def _lookup(name: str, *parameters: str, effect: Effect = "read", attempts_max: int = 5) -> Function:
    parts = tuple(Parameter(name=each.rstrip("?"), is_required=not each.endswith("?")) for each in parameters)
    return Function(
        name=f"tools.{name}", effect=effect, parameters=parts, stub="", is_listed=False, attempts_max=attempts_max
    )


LOOKUPS: Mapping[str, Function] = {
    "services": _lookup("services"),
    "search": _lookup("search", "query", "service?", "limit?"),
    "browse": _lookup("browse", "prefix", "limit?"),
    "describe": _lookup("describe", "name", "names?"),
    "read": _lookup("read", "handle", "path?"),
    "think": _lookup("think", "prompt", "model?", "system?", "schema?", "max_tokens?", "temperature?", attempts_max=ASKED_MAX),
    "reply": _lookup("reply", "attempted?", "heard?", "max_tokens?", "timeout?", attempts_max=ASKED_MAX),
    "attempt": _lookup("attempt", "program", "after?", "timeout?", effect="idempotent"),
    "spawn": _lookup(
        "spawn", "program?", "goal?", "inputs?", "agent?", "name?", "timeout?", "model?", "steps?", "usd?", "seconds?",
        effect="idempotent",
    ),
}  # fmt: skip


class Discovery:
    """See `catalog.Tools`."""

    def __init__(
        self,
        file: CatalogFile,
        scope: Callable[[str], Sequence[str] | None],
        handles: Handles,
        think: Callable[[Call], Awaitable[Answer]],
    ) -> None:
        self._file = file
        self._handles = handles
        self._think = think
        self.begin: Callable[[Call], Awaitable[Performed]] = _nobody
        """Begins a run for a call."""
        self.reply: Callable[[Call], Awaitable[Performed]] = _nobody
        """Has a model say what comes next in the conversation of a run."""
        self._scope = scope
        """Agent to the functions it may call, by full name; None: every one."""
        self._types = lru_cache(MODULES_REMEMBERED)(self._cut)

    @property
    def catalog(self) -> Catalog:
        """Return the look-ups."""
        return Catalog({"tools": PlainModule(name="tools", stub="", functions=LOOKUPS)})

    async def perform(self, call: Call) -> Performed:  # noqa: PLR0911 - a look-up each
        """Answer a look-up."""
        arguments: dict[str, Any] = dict(call.arguments)
        try:
            match call.function:
                case "tools.think":
                    return await self._think(call)
                case "tools.reply":
                    return await self.reply(call)
                case "tools.spawn" | "tools.attempt":
                    return await self.begin(call)
                case "tools.services":
                    return Returned(value=self.services(call.agent))
                case "tools.search":
                    found = self.search(call.agent, **arguments)
                    return Returned(value=[hit.line() for hit in found])
                case "tools.read":
                    return Returned(value=await self._read(call.agent, **arguments))
                case "tools.browse":
                    return Returned(value=[hit.line() for hit in self.browse(call.agent, **arguments)])
                case _:
                    return Returned(
                        value=self.describe(call.agent, [arguments["name"], *(arguments.get("names") or [])])
                    )
        except LookupError as error:
            return Raised(kind="LookupError", message=str(error), code="not_found")
        except (TypeError, ValueError) as error:
            return Raised(kind=type(error).__name__, message=f"{call.function}: {error}")

    async def _read(self, agent: str, handle: Any, path: Any = None) -> Value:
        name = handle_of(handle) or handle
        if not isinstance(name, str) or not isinstance(path, str | None):
            raise TypeError("it takes a handle and a path, both texts")
        return await self._handles.read(name, path or "", agent=agent)

    def services(self, agent: str) -> list[str]:
        """Return a line for each service that has something for the agent: its name and how many functions."""
        return [f"{service} ({count:,} functions)" for service, count in self.counts(agent).items() if count]

    def counts(self, agent: str) -> dict[str, int]:
        """Return how many functions of each service an agent may call."""
        scope = self._scope(agent)
        allowed = None if scope is None else set(scope)
        return {
            service: sum(allowed is None or f"{service}.{name}" in allowed for name in names)
            for service, names in sorted(self._file.names().items())
        }

    def search(
        self,
        agent: str,
        query: Any,
        service: str | None = None,
        limit: int | None = None,
    ) -> list[Hit]:
        """Return the functions that fit best; of several queries the best of each in turn.

        Raises:
            ValueError: the query is none.
        """
        queries: list[Any] = [query] if isinstance(query, str) else list(query)[:QUERIES_MAX]
        if not queries or not all(isinstance(each, str) for each in queries):
            raise ValueError("a query is a text, or a list of texts")
        most = min(LIMIT_MAX, max(1, 8 if limit is None else int(limit)))
        scope = self._scope(agent)
        found = [self._file.search(each, service=service, limit=most, names=scope) for each in queries]
        ranked = [hits[place] for place in range(most) for hits in found if place < len(hits)]
        return list({hit.name: hit for hit in ranked}.values())[:most]

    def browse(self, agent: str, prefix: str, limit: int | None = None) -> list[Hit]:
        """Return the functions whose names begin so, in the order of their source."""
        most = min(LIMIT_MAX, max(1, 40 if limit is None else int(limit)))
        scope = self._scope(agent)
        allowed = None if scope is None else set(scope)
        found = self._file.listed(prefix if "." in prefix else f"{prefix}.", limit=10 * most)
        return [hit for hit in found if allowed is None or hit.name in allowed][:most]

    def describe(self, agent: str, names: Sequence[Any]) -> str:
        """Return stubs of functions with one level of their types, or of types, as text.

        Raises:
            ValueError: there are too many names, or one is no text.
        """
        if len(names) > NAMES_MAX or not all(isinstance(each, str) for each in names):
            raise ValueError(f"it takes at most {NAMES_MAX} names of functions or types")
        scope = self._scope(agent)
        return "\n".join(self._described(name, None if scope is None else set(scope)) for name in names)

    def _described(self, name: str, allowed: set[str] | None) -> str:
        service, _, rest = name.partition(".")
        if service == "tools" and rest in of_tools():
            return of_tools()[rest]
        function = self._file.function(name)
        if function is not None and (allowed is None or name in allowed):
            types = self._types(service)
            shown = [types[word] for word in dict.fromkeys(_WORD.findall(function.stub)) if word in types]
            head = f"# {name}" + (f" - {function.summary}" if function.summary else "") + f"  [{function.effect}]"
            shown = [*map(_short, shown[:TYPES_SHOWN_MAX]), *self._seen(name)]
            return "\n".join([head, function.stub, *shown])
        if allowed is not None and not any(each.startswith(f"{service}.") for each in allowed):
            return f"# there is no {name}"
        types = self._types(service)
        kind, _, field = rest.partition(".")
        if kind in types and not field:
            return types[kind].rstrip("\n")
        if kind in types:
            line = next((line for line in types[kind].split("\n") if line.strip().startswith(f"{field}:")), "")
            inner = [types[word] for word in _WORD.findall(line) if word in types and word != kind]
            return (
                "\n".join([line.strip(), *map(_short, inner)]) if line else f"# {service}.{kind} has no field {field}"
            )
        near = [hit.name for hit in self._file.search(name, limit=3)]
        hint = f"; did you mean {', '.join(near)}?" if near and allowed is None else ""
        return f"# there is no {name}{hint}"

    def _seen(self, name: str) -> list[str]:
        """Return what is known of a result from answers alone, marked so."""
        sighting = self._file.seen(name)
        if not sighting.answers:
            return []
        definitions, kind = text(sighting.shape, class_name(name.partition(".")[2], "seen"))
        count = "1 answer" if sighting.answers == 1 else f"{sighting.answers} answers"
        head = f"# its result is not declared; in {count} it was {kind} (seen, not promised: any key may be missing)"
        return [head, *map(_short, reversed(definitions[-TYPES_SHOWN_MAX:]))]

    def _cut(self, service: str) -> Mapping[str, str]:
        """Return the types of a module, each with its text."""
        types: dict[str, str] = {}
        for found in re.finditer(
            r"^(?:class (\w+)|type (\w+) =|(\w+) = TypedDict)[^\n]*\n(?:    [^\n]*\n)*",
            self._file.stub(service),
            re.MULTILINE,
        ):
            types[cast("str", found[1] or found[2] or found[3])] = found[0]
        return types


async def _nobody(call: Call) -> Performed:
    return Raised(kind="RuntimeError", message=f"{call.function}: nobody answers it here")


def _short(text: str) -> str:
    lines = text.rstrip("\n").split("\n")
    more = len(lines) - FIELDS_SHOWN_MAX
    return "\n".join([*lines[:FIELDS_SHOWN_MAX], f"    # {more} more fields"] if more > 0 else lines)
