"""Rules: what stands in `policies/*.cedar`, and permits made of grants, each with its id and its place."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cedarpy

from overwinter.adapters.cedar.asking import misasked
from overwinter.config import Agent
from overwinter.errors import ConfigInvalid
from overwinter.frozen import frozen, replace
from overwinter.policy import LOOKUPS, Action

__all__ = [
    "Grant",
    "Rule",
    "Rules",
    "Statement",
    "fits",
    "grants_of_agents",
    "read_policies",
    "rules_of",
    "statements",
    "unread",
    "with_policies",
    "without",
]

PATTERNS = ("tools", "reads", "asks", "models")
"""Keys of an agent in `overwinter.toml` that permit."""
ACTIONS = frozenset({"call", "wake", "approve", "think"})
TYPES = frozenset({"Agent", "Person", "Function", "Service", "Run", "Model", "Action"})
FILE_BYTES_MAX = 1 << 20
FILES_MAX = 256
RULES_MAX = 100_000
POLICY_LENGTH_MAX = 16_384
NESTING_MAX = 64
"""Brackets in brackets. Cedar's parser is recursive: a thousand of them end the process, and no error is raised."""
SHADOW_SUFFIX = ".shadow.cedar"
"""Of a file whose rules are all in the shadow."""
RESERVED = ("overwinter.", "grant:")
BUILT_IN_FILE = "overwinter"
Entity = tuple[str, str]
"""Type and id."""

BUILT_IN = """
@id("overwinter.wake")
permit(principal is Agent, action == Action::"wake", resource);
@id("overwinter.approve")
permit(principal is Person, action == Action::"approve", resource) when { context.approver == principal.name };
""" + "".join(
    f'@id("overwinter.{name}") permit(principal is Agent, action == Action::"call", resource == Function::"{name}");'
    for name in sorted(LOOKUPS)
)
"""What holds where no policy forbids it: an agent may look up what it may call, go on with its runs, and who is asked
may answer."""


@frozen
class Grant:
    """A row that permits: generated into a rule of its own."""

    id: str
    agent: str
    pattern: str
    """A function, or a pattern of functions as in `overwinter.toml`; for `think` of models."""
    action: Action = "call"
    reads_only: bool = False
    """Only functions that change nothing."""
    is_asked: bool = False
    """Only once a person has said yes."""
    approver: str = ""
    """That person; "" for the agent's owner."""
    expires_s: int | None = None
    """Second since 1970 from which it permits nothing; None: never."""
    place: str = ""
    """Where it was made, for people."""


@frozen
class Rule:
    """One policy of Cedar."""

    id: str
    effect: Literal["permit", "forbid"]
    body: Mapping[str, Any]
    """Cedar's JSON form."""
    place: str
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    names: frozenset[str] | None = frozenset()
    """Arguments that it mentions; None: it may look at any."""
    attributes: frozenset[str] | None = frozenset()
    """What else of the context it mentions; None: it may look at any."""
    minds_sides: bool = False
    """Whether its conditions look at the principal or the resource."""

    @property
    def minds_approval(self) -> bool:
        """Return whether it asks if people have said yes."""
        return self.attributes is None or "approved" in self.attributes

    glob: str = ""
    """A pattern that Cedar cannot say: the rule is written anew for each function that it matches."""
    digest: bytes = b""
    """Over its id, body and glob, as hex."""
    is_shadow: bool = False
    """Whether it is only tried."""


@frozen
class Rules:
    """All rules of a home at one moment."""

    agents: Mapping[str, str]
    """Agent name to its owner."""
    rules: tuple[Rule, ...]
    digest: str
    """Over all of it: the version that an approval is bound to. Hex."""
    shadows: tuple[Rule, ...] = ()
    """Rules that decide nothing and are only tried. They are no part of the digest."""
    faults: tuple[str, ...] = ()
    """What is wrong in the shadow: it keeps nothing from holding."""
    fault: str = ""
    """Why they cannot be read; nothing is allowed then."""


@frozen
class Statement:
    """One policy as it is written."""

    text: str
    line: int
    nesting: int
    """Most brackets within each other."""


def read_policies(directory: Path) -> Mapping[str, str]:
    """Return the texts of `*.cedar` in a directory by file name; none if there is no such directory.

    Raises:
        ConfigInvalid: one cannot be read.
    """
    texts: dict[str, str] = {}
    if not directory.exists() and not directory.is_symlink():
        return texts
    try:  # `glob` would find nothing in what cannot be read, and every `forbid` would be gone
        paths = sorted(each for each in directory.iterdir() if each.suffix == ".cedar")
    except OSError as error:
        raise ConfigInvalid(f"{directory} cannot be read: {error}") from error
    for path in paths:
        try:
            if path.stat().st_size > FILE_BYTES_MAX:
                raise ConfigInvalid(f"{path} is larger than {FILE_BYTES_MAX >> 20} MiB: split it")
            texts[f"{directory.name}/{path.name}"] = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigInvalid(f"{path} cannot be read: {error}") from error
    return texts


def grants_of_agents(agents: Mapping[str, Agent]) -> Sequence[Grant]:
    """Return the permits that the patterns in `overwinter.toml` stand for."""
    return [
        Grant(
            id=f"agents.{name}.{key}: {pattern}",
            agent=name,
            pattern=pattern,
            reads_only=key == "reads",
            is_asked=key == "asks",
            action="think" if key == "models" else "call",
            place="overwinter.toml",
        )
        for name, agent in agents.items()
        for key, patterns in zip(PATTERNS, (agent.tools, agent.reads, agent.asks, agent.models), strict=True)
        for pattern in dict.fromkeys(patterns)
    ]


def rules_of(agents: Mapping[str, str], texts: Mapping[str, str], grants: Iterable[Grant]) -> Rules:
    """Return all rules of a home.

    Args:
        agents: agent name to its owner.
        texts: policies by the name of their file.
        grants: what rows and `overwinter.toml` permit.

    Raises:
        ConfigInvalid: a policy is no Cedar, speaks of an action or a type that there is not, or an id is taken.
    """
    faults: list[str] = []
    made: dict[str, Rule] = {}
    shadows: dict[str, Rule] = {}
    for rule in (*_parsed(BUILT_IN_FILE, BUILT_IN), *_written(texts, faults), *map(_granted, grants)):
        if rule.is_shadow:
            shadows.setdefault(rule.id, rule)
        elif rule.id in made:
            raise ConfigInvalid(f"{rule.place}: {_twice(rule, made)}")
        else:
            made[rule.id] = rule
    if len(made) + len(shadows) > RULES_MAX:
        raise ConfigInvalid(f"{len(made) + len(shadows)} policies and grants are more than {RULES_MAX}")
    faults += [f"{each.place}: {_twice(each, made)}" for each in shadows.values() if each.id in made]
    return Rules(
        agents=dict(agents),
        rules=tuple(made.values()),
        digest=_digest(agents, made.values()),
        shadows=tuple(each for each in shadows.values() if each.id not in made),
        faults=tuple(faults),
    )


def without(rules: Rules, name: str) -> Rules:
    """Return the rules but for one, by its id."""
    left = tuple(each for each in rules.rules if each.id != name)
    return replace(rules, rules=left, digest=_digest(rules.agents, left))


def bare(rules: Rules) -> Rules:
    """Return the rules without any permit but those that hold for everybody."""
    left = tuple(each for each in rules.rules if each.effect == "forbid" or each.id.startswith("overwinter."))
    return replace(rules, rules=left, digest=_digest(rules.agents, left))


def with_policies(rules: Rules, file: str, text: str) -> Rules:
    """Return the rules with the policies of one more file.

    Raises:
        ConfigInvalid: one is wrong.
    """
    more = (*rules.rules, *_parsed(file, text))
    return replace(rules, rules=more, digest=_digest(rules.agents, more))


def _digest(agents: Mapping[str, str], rules: Iterable[Rule]) -> str:
    whole = [json.dumps(dict(agents), sort_keys=True).encode(), *(each.digest for each in rules)]
    return hashlib.sha256(b"\0".join(whole)).hexdigest()


def unread(agents: Mapping[str, str], fault: str) -> Rules:
    """Return what holds while the rules cannot be read: nothing is allowed."""
    digest = hashlib.sha256(b"unread\0" + fault.encode(errors="replace")).hexdigest()
    return Rules(agents=dict(agents), rules=(), digest=digest, fault=fault)


def statements(text: str) -> Iterator[Statement]:
    """Yield the policies of a file, each with the line on which it begins. Comments between them are dropped."""
    begin, line, line_of, depth, deepest = 0, 1, 0, 0, 0
    for token in re.finditer(r'//[^\n]*|"(?:\\.|[^"\\])*"|\n|;|\S', text):
        word = token[0]
        if word == "\n":
            line += 1
        elif not word.startswith("//"):
            if not line_of:
                begin, line_of, depth, deepest = token.start(), line, 0, 0
            depth = max(0, depth + (word in "([{") - (word in ")]}"))
            deepest = max(deepest, depth)
            if word == ";":
                yield Statement(text=text[begin : token.end()], line=line_of, nesting=deepest)
                line_of = 0
            line += word.count("\n")
    if line_of:
        yield Statement(text=text[begin:], line=line_of, nesting=deepest)


def fits(constraint: Mapping[str, Any], entity: Entity, parents: Sequence[Entity]) -> bool:
    """Return whether a scope may hold for an entity. What is not understood may."""
    op = constraint.get("op")
    if op == "is" and constraint.get("entity_type") != entity[0]:
        return False
    if op == "is" and isinstance(constraint.get("in"), dict):
        return fits({"op": "in", **constraint["in"]}, entity, parents)
    named = [constraint["entity"]] if "entity" in constraint else constraint.get("entities")
    if op not in ("==", "in") or named is None:
        return True
    entities = {_entity(each) for each in named}
    return entity in entities if op == "==" else not entities.isdisjoint((entity, *parents))


def _entity(value: Mapping[str, Any]) -> Entity:
    plain = value.get("__entity", value)
    return plain["type"], plain["id"]


def _twice(rule: Rule, made: Mapping[str, Rule]) -> str:
    return f"a policy with the id {rule.id!r} is at {made[rule.id].place} too"


def _written(texts: Mapping[str, str], faults: list[str]) -> Iterator[Rule]:
    """Yield the policies of files. One whose name says that it is in the shadow may be wrong: then it is a fault, and no more."""
    for file, text in texts.items():
        try:
            yield from _parsed(file, text)
        except ConfigInvalid as error:
            if not file.endswith(SHADOW_SUFFIX):
                raise
            faults.append(str(error))


@lru_cache(FILES_MAX)
def _parsed(file: str, text: str) -> tuple[Rule, ...]:
    """Return the policies of a file. Remembered: when a grant changes, no file has."""
    return tuple(_policies(file, text))


def _policies(file: str, text: str) -> Iterator[Rule]:
    on_line: Counter[int] = Counter()
    for statement in statements(text):
        on_line[statement.line] += 1
        nth = f".{on_line[statement.line]}" if on_line[statement.line] > 1 else ""
        place = f"{file}, line {statement.line}"
        if len(statement.text) > POLICY_LENGTH_MAX or statement.nesting > NESTING_MAX:
            words = f"{POLICY_LENGTH_MAX} characters, or nested deeper than {NESTING_MAX} brackets: split it"
            raise ConfigInvalid(f"{place}: the policy is longer than {words}")
        try:
            document = json.loads(cedarpy.policies_to_json_str(statement.text))
        except ValueError as error:
            raise ConfigInvalid(f"{place}: {error}") from error
        if document["templates"]:
            raise ConfigInvalid(f"{place}: a template permits nothing by itself; write the principal, or make a grant")
        for body in document["staticPolicies"].values():
            annotations = {key: value or "" for key, value in body.get("annotations", {}).items()}
            if wrong := _wrong(body) or _taken(annotations.get("id", ""), file) or misasked(annotations):
                raise ConfigInvalid(f"{place}: {wrong}")
            rule = _rule(annotations.get("id") or f"{file}:{statement.line}{nth}", body, place)
            is_shadow = "shadow" in annotations or file.endswith(SHADOW_SUFFIX)
            yield replace(rule, is_shadow=True) if is_shadow else rule


def _wrong(body: Mapping[str, Any]) -> str:
    """Say what in a scope names nothing: a `forbid` that can never hold would fail open."""
    for part in ("principal", "action", "resource"):
        scope = body[part]
        named = [*scope.get("entities", []), *([scope["entity"]] if "entity" in scope else [])]
        types = [_entity(each)[0] for each in named]
        types += [scope["entity_type"]] if "entity_type" in scope else []
        if strange := [each for each in types if each not in TYPES]:
            return f"there is no type {strange[0]}; there are {', '.join(sorted(TYPES))}"
        if part == "action" and (unknown := [_entity(each)[1] for each in named if _entity(each)[1] not in ACTIONS]):
            return f"there is no action {unknown[0]!r}; there are {', '.join(sorted(ACTIONS))}"
    return ""


def _taken(name: str, file: str) -> str:
    """Say that an id belongs to others: a grant could not be made whose id a file has."""
    is_taken = file != BUILT_IN_FILE and name.startswith(RESERVED)
    return (
        f"the id {name!r} begins with {' or '.join(RESERVED)}, which are not for policies: choose another"
        if is_taken
        else ""
    )


def _rule(name: str, body: Mapping[str, Any], place: str, glob: str = "") -> Rule:
    names, attributes, minds_sides = _mentions(body["conditions"])
    annotations = {key: value or "" for key, value in body.get("annotations", {}).items()}
    return Rule(
        id=name,
        effect=body["effect"],
        body=body,
        place=place,
        annotations=annotations,
        names=names,
        attributes=attributes,
        minds_sides=minds_sides,
        glob=glob,
        digest=hashlib.sha256(json.dumps([name, body, glob], sort_keys=True).encode()).hexdigest().encode(),
    )


def _mentions(conditions: Any) -> tuple[frozenset[str] | None, frozenset[str] | None, bool]:
    """Return the arguments and the other attributes of the context that a rule can look at, None for any, and `minds_sides`.

    `context.args.NAME` and `context.args has NAME` mention one. Wherever else `context` or `context.args` stands, it
    may be passed on, compared or indexed: all is mentioned.
    """
    found: dict[str, set[str]] = {"argument": set(), "attribute": set(), "any": set(), "side": set()}
    for what, name in _marks(conditions):
        found[what].add(name)
    names = None if "args" in found["any"] else frozenset(found["argument"])
    attributes = None if "context" in found["any"] else frozenset(found["attribute"])
    return names, attributes, bool(found["side"])


def _marks(node: Any) -> Iterator[tuple[str, str]]:
    """Yield each mention in an expression: of an argument, an attribute, anything of `args` or `context`, a side."""
    match node:
        case {".": {"left": left, "attr": str() as name}} | {"has": {"left": left, "attr": str() as name}}:
            if left == {".": {"left": {"Var": "context"}, "attr": "args"}}:
                yield "argument", name
            elif left == {"Var": "context"}:
                yield ("any" if name == "args" and "." in node else "attribute"), name
            else:
                yield from _marks(left)
        case {"Var": "context"}:
            yield from (("any", "args"), ("any", "context"))
        case {"Var": "principal" | "resource" as name}:
            yield "side", name
        # Of all entities a request knows its own two: what is said of one by its name is said of a side.
        case {"__entity": _}:
            yield "side", "resource"
        case dict() | list():
            for each in node.values() if isinstance(node, dict) else node:
                yield from _marks(each)
        case _:
            pass


@lru_cache(RULES_MAX)
def _granted(grant: Grant) -> Rule:
    """Return the permit that a grant stands for. No text is put together: a name cannot become a rule.

    Remembered: with 10,000 grants one more costs a hundredth of what making all their rules does.
    """
    kind = "Model" if grant.action == "think" else "Function"
    service, _, rest = grant.pattern.partition(".")
    resource: dict[str, Any] = {"op": "is", "entity_type": kind}
    when: list[dict[str, Any]] = []
    glob = grant.pattern if re.search(r"[?\[]", grant.pattern) else ""
    if "*" not in grant.pattern and not glob:
        resource = {"op": "==", "entity": {"type": kind, "id": grant.pattern}}
    elif kind == "Function" and rest == "*" and "*" not in service and not glob:
        resource = {"op": "in", "entity": {"type": "Service", "id": service}}
    elif grant.pattern != "*" and not glob:
        literals = [[{"Literal": each}] if each else [] for each in grant.pattern.split("*")]
        pattern = [item for each in literals for item in (*each, "Wildcard")][:-1]
        when.append({"like": {"left": {".": {"left": {"Var": "resource"}, "attr": "name"}}, "pattern": pattern}})
    if grant.reads_only:
        when.append(
            {"==": {"left": {".": {"left": {"Var": "resource"}, "attr": "effect"}}, "right": {"Value": "read"}}}
        )
    if grant.expires_s is not None:
        now = {".": {"left": {"Var": "context"}, "attr": "now"}}
        when.append({"<": {"left": now, "right": {"Value": grant.expires_s}}})
    if grant.is_asked:
        when.append({".": {"left": {"Var": "context"}, "attr": "approved"}})
    body: dict[str, Any] = {
        "effect": "permit",
        "principal": {"op": "==", "entity": {"type": "Agent", "id": grant.agent}},
        "action": {"op": "==", "entity": {"type": "Action", "id": grant.action}},
        "resource": resource,
        "conditions": [{"kind": "when", "body": each} for each in when],
        "annotations": {"id": grant.id} | ({"approver": grant.approver} if grant.approver else {}),
    }
    return _rule(grant.id, body, grant.place or f"grant {grant.id}", glob)
