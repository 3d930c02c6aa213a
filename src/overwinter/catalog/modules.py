"""Operations become modules: names, stubs, and for each function what its adapter needs to carry it out."""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from overwinter.catalog import Function, Parameter
from overwinter.catalog.naming import distinct, identifier, snake
from overwinter.catalog.operations import Argument, Fault, Operation
from overwinter.catalog.schemas import arguments_schema
from overwinter.catalog.shapes import BINARY, FILE_HANDLE, Shapes, optional
from overwinter.events import Effect
from overwinter.frozen import frozen, replace
from overwinter.stubs import HEADER, doc

__all__ = ["Built", "BuiltFunction", "built"]

SUMMARY_LENGTH_MAX = 100
RESERVED = frozenset({
    "Any", "Literal", "NotRequired", "TypedDict", "Decimal", "date", "datetime", "timedelta", "list", "dict", "str", "int",
    "float", "bool", "bytes", "type", "FileHandle",
})  # fmt: skip
"""What stubs speak of: a function called `list` would stand for it in all that follows."""
_WORD = re.compile(r"[A-Za-z_]\w*")


@frozen
class BuiltFunction:
    """One function and how it is carried out."""

    function: Function
    origin: str
    plan: Mapping[str, Any]
    """The operation's plan; `arguments` has for each parameter its name, wire name, place, style, explode, nullable."""
    schema: Mapping[str, Any]
    """JSON Schema of the arguments, for the check at the call; `{}` takes any."""
    description: str = ""
    """The source's own words, whole: untrusted."""
    digest: str
    """Over all that a caller relies on: words, text, types, effect, plan. Hex."""


@frozen
class Built:
    """The module of one service."""

    stub: str
    functions: Sequence[BuiltFunction]
    faults: Sequence[Fault]


def built(
    service: str,
    operations: Sequence[Operation],
    resolve: Callable[[str], Any],
    *,
    pinned: Mapping[str, str] | None = None,
    effects: Mapping[str, Effect] | None = None,
) -> Built:
    """Return the module of a service.

    Args:
        service: its name, chosen by the operator.
        operations: what its source can do.
        resolve: what a `$ref` in a schema points to.
        pinned: function names that were given before, by origin.
        effects: function name to effect, where the operator knows better than the source.
    """
    faults: list[Fault] = []
    members = _named(service, operations, pinned or {}, faults)
    for name in sorted((effects or {}).keys() - members.keys()):
        near = difflib.get_close_matches(name, members, 1)
        hint = f": did you mean {near[0]}?" if near else ""
        faults.append(Fault(place=f"effects.{name}", what=f"there is no such function{hint}"))
    shapes = Shapes(resolve, RESERVED | members.keys())
    functions: list[BuiltFunction] = []
    for name, described in members.items():
        operation = replace(described, effect=(effects or {}).get(name, described.effect))
        functions.append(_function(service, name, operation, shapes, paging=operation.plan.get("pages")))
        if "pages" in operation.plan and f"{name}_page" not in members:
            functions.append(_function(service, f"{name}_page", operation, shapes, is_listed=False))
    faults += [Fault(place=ref, what="this reference points nowhere") for ref in sorted(shapes.broken)]
    definitions = shapes.definitions()
    if any("FileHandle" in each.function.stub for each in functions) or "FileHandle" in definitions:
        definitions = FILE_HANDLE + definitions
    closures = _Closures(definitions)
    functions = [replace(each, digest=closures.digest(each)) for each in functions]
    stub = "\n".join([HEADER, definitions, *(_text(each.function) for each in functions), ""])
    return Built(stub=stub, functions=functions, faults=faults)


def _named(
    service: str, operations: Sequence[Operation], pinned: Mapping[str, str], faults: list[Fault]
) -> dict[str, Operation]:
    """Give each operation its name. One that was given once is never given to another."""
    named: dict[str, Operation] = {}
    taken = RESERVED | set(pinned.values())
    seen: set[str] = set()
    for operation in operations:
        if operation.origin in seen:
            faults.append(Fault(place=operation.origin, what="two operations have this id; the first one is used"))
            continue
        seen.add(operation.origin)
        name = pinned.get(operation.origin) or distinct(_candidates(operation, service), taken | named.keys())
        if name is None:
            faults.append(Fault(place=operation.origin, what="no name can be made of it that is not taken"))
        else:
            named[name] = operation
    return named


def _candidates(operation: Operation, service: str) -> Sequence[str]:
    whole = snake(operation.origin, prefix=service)
    tails = [snake(each) for each in operation.fallbacks]
    longer = [snake(f"{whole}_{'_'.join(tails[: size + 1])}") for size in range(len(tails))]
    return [whole, *longer, "_".join(tails)]


def _function(  # noqa: PLR0913 - an operation under its name
    service: str,
    name: str,
    operation: Operation,
    shapes: Shapes,
    *,
    paging: Mapping[str, Any] | None = None,
    is_listed: bool = True,
) -> BuiltFunction:
    pages = paging
    hidden = {pages["moves"], pages["size"], *pages.get("drops", ())} if pages else set[str]()
    shown = [each for each in operation.arguments if not (each.place == "query" and each.wire in hidden)]
    rows: list[tuple[str, Argument, str]] = []
    taken: set[str] = set()
    for argument in sorted(shown, key=lambda each: not each.is_required):
        parameter = _parameter(argument, taken)
        taken.add(parameter)
        rows.append((parameter, argument, shapes.text(argument.schema, name, argument.wire)))
    words = [f"{word}: {text}" if each.is_required else f"{word}: {optional(text)} = ..." for word, each, text in rows]
    result = shapes.text(operation.result, name, "result") if operation.result is not None else "Any"
    if result == BINARY:
        result = "FileHandle"
    if pages:
        words.append("max_items: int = ...")
        result = _item_list(operation.result, pages["items"], shapes, name)
    star = "*, " if words else ""
    parameters = [Parameter(name=word, is_required=each.is_required) for word, each, _ in rows]
    if pages:
        parameters.append(Parameter(name="max_items", is_required=False))
    function = Function(
        name=f"{service}.{name}",
        effect=operation.effect,
        parameters=tuple(parameters),
        stub=f"async def {name}({star}{', '.join(words)}) -> {result}: ...",
        summary=_summary(operation.summary),
        result=result,
        tags=operation.tags,
        is_listed=is_listed,
    )
    arguments = [
        [word, each.wire, each.place, each.style, each.does_explode, optional(text) == text and text != "Any"]
        for word, each, text in rows
    ]
    plan = {**operation.plan, "arguments": arguments}
    if not pages:
        plan.pop("pages", None)
    required = frozenset(word for word, each, _ in rows if each.is_required)
    schema = arguments_schema({word: each.schema for word, each, _ in rows}, required, shapes.resolve)
    return BuiltFunction(
        function=function,
        origin=operation.origin,
        plan=plan,
        schema=schema,
        description=operation.description,
        digest="",
    )


def _parameter(argument: Argument, taken: Collection[str]) -> str:
    name = identifier(argument.wire) or argument.place
    place = "body" if argument.place == "field" else argument.place
    return distinct([name, f"{name}__{place}", f"{name}__{place}_"], taken) or f"{name}__{len(taken)}"


def _item_list(result: object, path: Sequence[str], shapes: Shapes, name: str) -> str:
    node = shapes.target(result)
    for key in path:
        record = shapes.record(node)
        node: Any = shapes.target(record.fields.get(key)) if record else {}
    text = shapes.text(node, name, "item")
    return text if text.startswith("list[") else "list[Any]"


def _summary(text: str) -> str:
    """Cut to one line of printable text: it is untrusted, and will be read by a model."""
    text = re.sub(r"<[^<>]{1,80}>", " ", text)
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= SUMMARY_LENGTH_MAX else f"{line[: SUMMARY_LENGTH_MAX - 3]}..."


def _text(function: Function) -> str:
    line = function.stub
    return f'{line[:-3]}\n    """{doc(function.summary)}"""' if function.summary else line


class _Closures:
    """Digests of functions with the types they speak of."""

    def __init__(self, definitions: str) -> None:
        self._texts: dict[str, str] = {}
        for text in _blocks(definitions):
            found = re.match(r"(?:class|type)?\s*(\w+)", text)
            assert found is not None, text[:80]
            self._texts[found[1]] = text
        self._speaks = {name: self._names(text) - {name} for name, text in self._texts.items()}

    def digest(self, each: BuiltFunction) -> str:
        reached, unread = set[str](), list(self._names(each.function.stub))
        while unread:
            name = unread.pop()
            if name not in reached:
                reached.add(name)
                unread += self._speaks[name] - reached
        hashed = hashlib.sha256(
            json.dumps(
                [each.function.effect, each.function.summary, each.description, each.plan], sort_keys=True
            ).encode()
        )
        hashed.update(each.function.stub.encode())
        for name in sorted(reached):
            hashed.update(self._texts[name].encode("utf-8", "surrogatepass"))
        return hashed.hexdigest()

    def _names(self, text: str) -> set[str]:
        return self._texts.keys() & set(_WORD.findall(text))


def _blocks(definitions: str) -> Iterator[str]:
    block = ""
    for line in definitions.splitlines(keepends=True):
        if not line.startswith(" ") and block:
            yield block
            block = ""
        block += line
    if block:
        yield block
