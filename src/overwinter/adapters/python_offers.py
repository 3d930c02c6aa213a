"""Objects of the user's own modules that offer functions by themselves, as tools: `python = "module:object"`.

What such an object says of a tool is what an MCP server says of one, so names, types and stubs are made the same way; what it
raises means what a function's error means (`python_tools`). It is the operator's own code: nothing of it is pinned.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from overwinter.adapters.mcp_servers.tools import operations, resolver
from overwinter.adapters.python_tools import imported, meant
from overwinter.catalog import Catalog, Function, Module, PlainModule, Unknown
from overwinter.catalog.modules import BuiltFunction, built
from overwinter.config import Service
from overwinter.errors import ConfigInvalid
from overwinter.events import Answer, Call, Raised, Returned
from overwinter.frozen import frozen, replace
from overwinter.functions import Key, Offers

__all__ = ["PythonOffers", "load_python_offers"]

LIST_S_MAX = 30.0


@frozen
class _Bound:
    offers: Offers
    tool: str
    """Its name there."""
    declared: Function
    wires: Mapping[str, str]
    """Parameter to the name of the argument there."""
    nullable: frozenset[str]
    """Parameters of which None is a value, those that must be given among them; of the others it is none given."""


@asynccontextmanager
async def load_python_offers(services: Mapping[str, Service], *, directory: Path) -> "AsyncGenerator[PythonOffers]":
    """Import the objects, ask each what it offers, and yield that as tools.

    Args:
        services: those whose `python` names an object.
        directory: where the modules lie, absolute; it comes first on the path while they are imported, and stays on it.

    Raises:
        ConfigInvalid: a module cannot be imported, has no such object, or the object offers nothing that can be read.
    """
    if services and str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    bound: dict[str, _Bound] = {}
    catalog: dict[str, Module] = {}
    for service, declared in services.items():
        path, _, attribute = declared.python.partition(":")
        offers = getattr(imported(service, path), attribute, None)
        if not (hasattr(offers, "tools") and hasattr(offers, "call")):
            raise ConfigInvalid(f"service {service!r}: {declared.python!r} is no object that offers functions")
        tools = await _listed(service, cast("Offers", offers))
        found, faults = operations(tools)
        made = built(service, found, resolver(tools), effects=dict(declared.effects))
        if wrong := [*faults, *made.faults]:
            raise ConfigInvalid(f"service {service!r}: {wrong[0].place}: {wrong[0].what}")
        told = {str(tool["name"]): tool for tool in tools}
        these = [_bound(each, cast("Offers", offers), told[each.plan["tool"]]) for each in made.functions]
        bound |= {each.declared.name: each for each in these}
        functions = {each.declared.name.partition(".")[2]: each.declared for each in these}
        catalog[service] = PlainModule(name=service, stub=made.stub, functions=functions)
    yield PythonOffers(bound, Catalog(catalog))


async def _listed(service: str, offers: Offers) -> Sequence[Mapping[str, Any]]:
    try:
        async with asyncio.timeout(LIST_S_MAX):
            return [{**each, "description": _described(each)} for each in await offers.tools()]
    except Exception as error:
        raise ConfigInvalid(
            f"service {service!r} does not say what it offers: {type(error).__name__}: {error}"
        ) from error


def _described(tool: Mapping[str, Any]) -> str:
    """Return what a model reads of a tool: that it asks a person is no surprise then."""
    said = str(tool.get("description") or "")
    return f"(asks for approval) {said}".rstrip() if tool.get("isGated") else said


def _bound(function: BuiltFunction, offers: Offers, tool: Mapping[str, Any]) -> _Bound:
    declared = replace(
        function.function,
        is_gated=bool(tool.get("isGated")),
        timeout_s=float(tool.get("timeoutSeconds") or function.function.timeout_s),
    )
    rows = function.plan["arguments"]
    required = {each.name for each in declared.parameters if each.is_required}
    return _Bound(
        offers=offers, tool=function.plan["tool"], declared=declared, wires={name: wire for name, wire, *_ in rows},
        nullable=frozenset(name for name, *_, is_nullable in rows if is_nullable or name in required),
    )  # fmt: skip


class PythonOffers:
    """See `catalog.Tools`."""

    def __init__(self, bound: Mapping[str, _Bound], catalog: Catalog) -> None:
        self._bound = bound
        self._catalog = catalog

    @property
    def catalog(self) -> Catalog:
        """Return what can be called."""
        return self._catalog

    async def perform(self, call: Call) -> Answer | Unknown:
        """Carry out one attempt of a call."""
        bound = self._bound.get(call.function)
        if bound is None:
            return Raised(kind="AttributeError", message=f"there is no function {call.function} any more")
        given = {name: each for name, each in call.arguments.items() if each is not None or name in bound.nullable}
        arguments = {bound.wires[name]: value for name, value in given.items()}
        try:
            async with asyncio.timeout(bound.declared.timeout_s):
                value = await bound.offers.call(bound.tool, arguments, Key(call.key))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # ours: the run was cancelled, or the home closes
            return meant(bound.declared, RuntimeError(f"it cancelled itself: {error}"))
        except BaseException as error:  # noqa: BLE001 - whatever a user's function raises is an answer, sys.exit() too
            return meant(bound.declared, error)
        return Returned(value=value)
