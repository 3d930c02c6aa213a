"""The schema of one decision, and the entities in it.

One schema for thousands of functions would be megabytes, and each argument name could have one type only. A decision
concerns one function, so its schema holds the arguments of that function that the rules of its slice mention, with their
types, and what else of the context they mention. That is sound: Cedar checks the request against it and evaluates rules without it; what a rule
mentions and the function has is in it, and what is not in it is not in the request either.
"""

import json
from collections.abc import Collection, Mapping
from functools import cache, lru_cache
from typing import Any

import cedarpy

from overwinter.adapters.cedar.arguments import Kind, cedar_type
from overwinter.adapters.cedar.rules import Entity
from overwinter.policy import Resource

__all__ = ["RESOURCE_TYPES", "WITH_ARGUMENTS", "context_of", "entities", "parents_of", "schema", "schema_text"]

SCHEMAS_MAX = 4_096
RESOURCE_TYPES: Mapping[str, str] = {
    "call": "Function", "see": "Function", "approve": "Function", "wake": "Run", "think": "Model",
}  # fmt: skip
"""Action to the type of what it is done to."""
_ENTITIES = """
entity Agent { name: String, owner: String };
entity Person { name: String };
entity Service { name: String };
entity Function in [Service] { name: String, service: String, effect: String, pin_ok: Bool };
entity Run { name: String };
entity Model { name: String, provider: String, region: String, retention: String, data: String };
"""
CONTEXT: Mapping[str, str] = {"approved": "Bool", "now": "Long", "actor": "String", "depth": "Long", "run": "String"}
"""Whether a person said yes, seconds since 1970, the agent at work, how many delegated to it, its run."""
APPROVING: Mapping[str, str] = CONTEXT | {"approver": "String", "agent": "String", "owner": "String"}
"""When a person says yes: also who was asked, for whose call, and who answers for that agent."""
ACTIONS = {"call": "Agent", "wake": "Agent", "think": "Agent", "approve": "Person"}
"""Action to the type of who does it."""

WITH_ARGUMENTS = frozenset({"call", "approve"})


def schema_text(
    arguments: Mapping[str, str],
    attributes: frozenset[str] | None = None,
    required: Collection[str] = (),
) -> str:
    """Return the schema with these types of arguments and these attributes of the context; None for all of them.

    Args:
        arguments: name to type.
        attributes: of the context.
        required: arguments on which a rule may rely without `has`. For a decision none is: what is None is not told.
    """
    rows = ", ".join(
        f"{json.dumps(name, ensure_ascii=False)}{'' if name in required else '?'}: {text}"
        for name, text in sorted(arguments.items())
    )
    actions = [
        f'action "{action}" appliesTo {{ principal: [{who}], resource: [{RESOURCE_TYPES[action]}], '
        f"context: {{ {''.join(f'{name}: {kind}, ' for name, kind in context_of(action, attributes).items())}"
        f"args: {{ {rows if action in WITH_ARGUMENTS else ''} }} }} }};"
        for action, who in ACTIONS.items()
    ]
    return "\n".join([_ENTITIES, *actions])


def context_of(action: str, attributes: frozenset[str] | None) -> Mapping[str, str]:
    """Return the attributes of the context that an action has and that are mentioned, with their types."""
    known = APPROVING if action == "approve" else CONTEXT
    return {name: kind for name, kind in known.items() if attributes is None or name in attributes}


def schema(
    kinds: Mapping[str, Kind], names: frozenset[str] | None, attributes: frozenset[str] | None
) -> cedarpy.Schema:
    """Return the schema for rules that mention these arguments of a function and this of the context; None: all."""
    texts = {name: cedar_type(kind) for name, kind in kinds.items() if names is None or name in names}
    return _parsed(schema_text({name: text for name, text in texts.items() if text}, attributes))


@lru_cache(SCHEMAS_MAX)
def _parsed(text: str) -> cedarpy.Schema:
    return cedarpy.Schema.from_str(text)


@cache
def _plain() -> cedarpy.Schema:
    return _parsed(schema_text({}))


def parents_of(action: str, name: str) -> tuple[Entity, ...]:
    """Return what a resource of this name lies in."""
    return (("Service", name.partition(".")[0]),) if RESOURCE_TYPES[action] == "Function" else ()


def entities(principal: Entity, owner: str, action: str, resource: Resource) -> cedarpy.Entities:
    """Return the two sides of a request, checked against the schema: Cedar does not check parsed entities again."""
    kind = RESOURCE_TYPES[action]
    attributes: dict[str, Any] = {"name": resource.name}
    if kind == "Function":
        attributes |= {"service": resource.service, "effect": resource.effect, "pin_ok": resource.pin_ok}
    if kind == "Model":
        attributes |= {
            "provider": resource.provider, "region": resource.region, "retention": resource.retention, "data": resource.data,
        }  # fmt: skip
    parents = parents_of(action, resource.name)
    who = {"name": principal[1]} | ({"owner": owner} if principal[0] == "Agent" else {})
    rows = [(principal, who, ()), ((kind, resource.name), attributes, parents)]
    rows += [(parent, {"name": parent[1]}, ()) for parent in parents]
    return cedarpy.Entities.from_json_str(json.dumps([_row(*row) for row in rows]), _plain())


def _row(entity: Entity, attributes: Mapping[str, Any], parents: tuple[Entity, ...]) -> dict[str, Any]:
    return {
        "uid": {"type": entity[0], "id": entity[1]},
        "attrs": attributes,
        "parents": [{"type": kind, "id": name} for kind, name in parents],
    }
