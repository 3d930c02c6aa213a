"""Python signatures as `.pyi` text: what programs are checked against, and what a model reads."""

import ast
import dataclasses
import enum
import inspect
import keyword
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Literal, get_args, get_origin, is_typeddict

from overwinter.errors import ConfigInvalid
from overwinter.frozen import frozen
from overwinter.functions import Key

__all__ = [
    "HEADER",
    "SPELT",
    "TOOLS",
    "Field",
    "Stubs",
    "doc",
    "fields_of",
    "is_key",
    "of_tools",
    "plain_of",
    "unshadowed",
]

HEADER = """from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NotRequired, TypedDict
"""
TOOLS = """from typing import Any, Awaitable, TypedDict
class FileHandle(TypedDict):
    file: str
    name: str
    type: str
    size_bytes: int
class ErrorDetail(TypedDict):
    type: str
    status: int | None
    code: str | None
    message: str
    retryable: bool
    retry_after: float | None
    call: int | None
async def ask(person: str, question: str, *, options: list[str] | None = ..., timeout: float | None = ...) -> str:
    \"\"\"Ask a person. It may take days: waiting costs nothing.\"\"\"
async def services() -> list[str]:
    \"\"\"Every module that can be called, a line each.\"\"\"
async def search(query: str | list[str], *, service: str | None = ..., limit: int = ...) -> list[str]:
    \"\"\"Functions that fit, best first: name(required) -> type - summary [effect].\"\"\"
async def browse(prefix: str, *, limit: int = ...) -> list[str]:
    \"\"\"Functions whose full name begins so.\"\"\"
async def describe(name: str, *, names: list[str] = ...) -> str:
    \"\"\"The stub of a function with its types, or of a type.\"\"\"
async def call(name: str, arguments: dict[str, Any]) -> Any:
    \"\"\"Call a function by its full name; checked only as it happens.\"\"\"
async def read(handle: str | FileHandle, path: str = ...) -> Any:
    \"\"\"What was cut, by its handle: `await tools.read("RUN", "items[20:40]")`; of a file its bytes.\"\"\"
async def think(
    prompt: str, *, model: str | None = ..., system: str | None = ..., schema: dict[str, Any] | None = ...,
    max_tokens: int = ..., temperature: float | None = ...,
) -> Any:
    \"\"\"Ask a model; its text, or with a JSON schema the value.\"\"\"
async def spawn(
    program: str | None = ..., *, goal: str | None = ..., inputs: dict[str, Any] | None = ..., agent: str | None = ...,
    name: str | None = ..., timeout: float | None = ..., model: str | None = ..., steps: int | None = ...,
    usd: float | None = ..., seconds: float | None = ...,
) -> Any:
    \"\"\"Run a program, or have a model work at a goal, as a run of its own; its result. Cancelled with this run.\"\"\"
async def attempt(program: str, *, after: str | None = ..., timeout: float | None = ...) -> Any:
    \"\"\"Run a program that a model wrote; how it ended.\"\"\"
async def reply(
    *, attempted: Any = ..., heard: list[Any] = ..., max_tokens: int = ..., timeout: float | None = ...,
) -> Any:
    \"\"\"What the model says next in the conversation of this run.\"\"\"
async def receive(*, timeout: float | None = ...) -> Any:
    \"\"\"The next message for this run.\"\"\"
async def settle(*awaitables: Awaitable[Any]) -> list[Any]:
    \"\"\"Results and exceptions, in order.\"\"\"
async def error(error: BaseException) -> ErrorDetail:
    \"\"\"What is known of a failed call.\"\"\"
"""
"""The module `tools` of every program."""
PLAIN: Mapping[object, str] = {
    type(None): "None", bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes", datetime: "datetime",
    date: "date", timedelta: "timedelta", Decimal: "Decimal", Any: "Any", object: "Any", list: "list[Any]",
    dict: "dict[str, Any]", tuple: "tuple[Any, ...]", set: "set[Any]", frozenset: "frozenset[Any]",
    Sequence: "list[Any]", Mapping: "dict[str, Any]",
}  # fmt: skip
CONTAINERS: Mapping[object, str] = {
    list: "list", set: "set", frozenset: "frozenset", dict: "dict", Sequence: "list", Mapping: "dict",
}  # fmt: skip
SPELT: Mapping[str, str] = dict.fromkeys(
    ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple"), "builtins"
) | {
    alias.name: line.module or ""
    for line in ast.parse(HEADER).body if isinstance(line, ast.ImportFrom)
    for alias in line.names
}  # fmt: skip
"""What stubs speak of, and where it is from: a function called `list` would stand for it in all that follows."""


@cache
def of_tools() -> Mapping[str, str]:
    """Return what the module `tools` declares, each by its name."""
    declared = [each for each in ast.parse(TOOLS).body if isinstance(each, ast.ClassDef | ast.AsyncFunctionDef)]
    return {each.name: ast.get_source_segment(TOOLS, each) or "" for each in declared}


class Stubs:
    """The stub of one module: its functions, and the types they speak of, each written once under a name of its own."""

    def __init__(self, service: str, functions: Collection[str]) -> None:
        """Begin the stub of a service with these functions: no type is called as one of them."""
        self._service = service
        self._shadowed = SPELT.keys() & set(functions)
        self._taken = {*SPELT, *functions}
        self._names: dict[object, str] = {}
        self._types: list[str] = []
        self._functions: list[str] = []

    def function(self, name: str, function: Callable[..., Any], summary: str) -> str:
        """Add a function under a name; return its line. Sync or not, a program awaits it, and passes arguments by keyword.

        Raises:
            ConfigInvalid: if a parameter or the result is of a type that cannot cross.
        """
        where = f"{self._service}.{name}"
        hints = _hints(function, where)
        parameters: list[str] = []
        for word, parameter in inspect.signature(function).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise ConfigInvalid(f"{where} takes *{word}: name its parameters, so that programs can be checked")
            if is_key(hints.get(word)):
                continue
            hint = hints.get(word, Any)
            text = self._type(hint if parameter.default is not None else hint | None, f"{where}, parameter {word!r}")
            parameters.append(f"{word}: {text}" + ("" if parameter.default is parameter.empty else " = ..."))
        result = self._type(hints.get("return", Any), f"{where}, result")
        star = "*, " if parameters else ""
        line = f"async def {name}({star}{', '.join(parameters)}) -> {result}: ..."
        self._functions.append(line if not summary else line[:-3] + f'\n    """{doc(summary)}"""')
        return line

    def text(self) -> str:
        """Return the module's whole stub. Where a function is called `list`, types say `_list`."""
        text = "\n".join([HEADER, *self._types, *self._functions, ""])
        if not self._shadowed:
            return text
        imports = [f"from {SPELT[name]} import {name} as _{name}" for name in sorted(self._shadowed)]
        return "\n".join([*imports, _aliased(text, self._shadowed), ""])

    def _type(self, hint: Any, where: str) -> str:  # noqa: ANN401, PLR0911, C901 - a hint is any object; one case a line
        if hint is None:
            return "None"
        if isinstance(hint, typing.NewType):
            return self._type(hint.__supertype__, where)
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return self._enum(hint, where)
        if _is_record(hint):
            return self._record(hint, where)
        if _is_plain(hint):
            return PLAIN[hint]
        origin, args = get_origin(hint), get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return " | ".join(dict.fromkeys(self._type(each, where) for each in args))
        if origin is Literal:
            return self._literals([plain_of(each) for each in args], where)
        if origin in (typing.Annotated, typing.Required, typing.NotRequired):
            return self._type(args[0], where)
        if not args and origin is not None and _is_plain(origin):  # typing.List
            return "tuple[()]" if hint == tuple[()] else PLAIN[origin]
        if origin is tuple:
            return f"tuple[{', '.join('...' if each is ... else self._type(each, where) for each in args)}]"
        if origin in CONTAINERS:
            return f"{CONTAINERS[origin]}[{', '.join(self._type(each, where) for each in args)}]"
        raise ConfigInvalid(
            f"{where}: {hint!r} cannot cross to a program; use plain data (dict, list, str, numbers, dates, bytes), a "
            "TypedDict or a dataclass"
        )

    def _enum(self, hint: type[enum.Enum], where: str) -> str:
        if issubclass(hint, enum.Flag):  # members that are put together are none of its members
            return "int"
        return self._literals([plain_of(each) for each in hint], where)

    def _literals(self, values: Sequence[Any], where: str) -> str:
        if all(value is None or type(value) in (str, int, bool, bytes) for value in values):
            return f"Literal[{', '.join(map(repr, values))}]" if values else "Any"
        kinds = list(dict.fromkeys(map(type, values)))
        return " | ".join(self._type(each, where) for each in kinds) if all(map(_is_plain, kinds)) else "Any"

    def _record(self, record: Any, where: str) -> str:  # noqa: ANN401 - a TypedDict or a dataclass
        if (name := self._names.get(record)) is not None:
            return name
        name = self._names[record] = self._free(record)  # first: a type that speaks of itself finds its name
        self._taken.add(name)
        fields = fields_of(record, where)
        texts = {key: self._type(each.hint, f"{where}, field {key!r}") for key, each in fields.items()}
        rows = {key: text if fields[key].is_required else f"NotRequired[{text}]" for key, text in texts.items()}
        if all(key.isidentifier() and not keyword.iskeyword(key) for key in rows):
            body = "".join(f"    {key}: {text}\n" for key, text in rows.items()) or "    pass\n"
            self._types.append(f"class {name}(TypedDict):\n{body}")
        else:
            body = ", ".join(f"{key!r}: {text}" for key, text in rows.items())
            self._types.append(f"{name} = TypedDict({name!r}, {{{body}}})\n")
        return name

    def _free(self, record: Any) -> str:  # noqa: ANN401 - a TypedDict or a dataclass
        """Return its own name, or the shortest that says whose it is: `BillingLine`."""
        path = f"{record.__module__}.{record.__qualname__}".replace("<locals>", "")
        words = ["".join(word[:1].upper() + word[1:] for word in part.split("_")) for part in path.split(".") if part]
        longer = ("".join(words[at:]) for at in range(len(words) - 2, -1, -1))
        names = [name for name in (record.__name__, *longer) if name.isidentifier()] or ["Record"]
        return next((name for name in names if name not in self._taken), f"{names[-1]}{'_' * len(self._names)}")


def _aliased(text: str, shadowed: Collection[str]) -> str:
    """Return a stub whose types go by names that no function of it takes away."""
    tree = ast.parse(text)
    fields = {each.target for each in ast.walk(tree) if isinstance(each, ast.AnnAssign)}
    for each in ast.walk(tree):
        if isinstance(each, ast.Name) and each.id in shadowed and each not in fields:
            each.id = f"_{each.id}"
    return ast.unparse(tree)


@frozen
class Field:
    """A field of a TypedDict or a dataclass."""

    hint: Any
    is_required: bool
    """Whether a program must give it. One that it need not is there in what a function returns, and the checker lets it be read."""
    is_given: bool = True
    """Whether its constructor takes it; a dataclass may compute one by itself."""


def fields_of(record: Any, where: str) -> dict[str, Field]:  # noqa: ANN401 - a TypedDict or a dataclass
    """Return the fields of a TypedDict or a dataclass by name.

    Raises:
        ConfigInvalid: if its type hints cannot be read, or a dataclass has an InitVar, which no value of it holds.
    """
    hints = _hints(record, where, include_extras=True)
    if is_typeddict(record):
        required: frozenset[str] = record.__required_keys__
        return {name: _of_typed_dict(hint, is_required=name in required) for name, hint in hints.items()}
    if names := [name for name, hint in hints.items() if isinstance(hint, dataclasses.InitVar)]:
        raise ConfigInvalid(
            f"{where}: {record.__name__}.{names[0]} is no field but an InitVar, and cannot cross to a program"
        )
    return {each.name: _of_dataclass(each, hints[each.name]) for each in dataclasses.fields(record)}


def _of_dataclass(field: "dataclasses.Field[Any]", hint: Any) -> Field:  # noqa: ANN401 - a hint is any object
    while get_origin(hint) is typing.Annotated:  # what is said there may have no hash, as a union needs
        hint = get_args(hint)[0]
    hint = hint if field.default is not None else hint | None
    is_bare = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    return Field(hint=hint, is_required=is_bare and field.init, is_given=field.init)


def _of_typed_dict(hint: Any, *, is_required: bool) -> Field:  # noqa: ANN401 - a hint is any object
    """Return a field. `__required_keys__` of a module with `from __future__ import annotations` is blind to its marks."""
    inner = hint
    while (origin := get_origin(inner)) in (typing.Annotated, typing.Required, typing.NotRequired):
        if origin is not typing.Annotated:
            is_required = origin is typing.Required
        inner = get_args(inner)[0]
    return Field(hint=inner, is_required=is_required)


def is_key(hint: Any) -> bool:  # noqa: ANN401 - a hint is any object
    """Whether a parameter gets the call's idempotency key."""
    is_open = get_origin(hint) in (typing.Annotated, typing.Union, types.UnionType)
    return hint is Key or (is_open and any(is_key(each) for each in get_args(hint)))


def plain_of(value: Any) -> Any:  # noqa: ANN401 - a value of a Literal
    """Return what a program sees of a value: of a member of an Enum its value."""
    while isinstance(value, enum.Enum):
        value = value.value
    return str.__str__(value) if isinstance(value, str) else value


def _hints(declared: Any, where: str, *, include_extras: bool = False) -> dict[str, Any]:  # noqa: ANN401 - a function or a class
    try:
        return typing.get_type_hints(declared, include_extras=include_extras)
    except Exception as error:
        raise ConfigInvalid(f"{where}: its type hints cannot be read: {error}") from error


def _is_record(hint: Any) -> bool:  # noqa: ANN401 - a hint is any object
    return is_typeddict(hint) or (isinstance(hint, type) and dataclasses.is_dataclass(hint))


def _is_plain(hint: Any) -> bool:  # noqa: ANN401 - a hint is any object
    try:
        return hint in PLAIN
    except TypeError:
        return False


_CLASS = re.compile(r"^class (\w+)\((_?TypedDict)(, total=False)?\):\n((?:    \w+: .*\n)+)(?! )", re.MULTILINE)
_ROW = re.compile(r"^    (\w+): (.*)$", re.MULTILINE)
_WORD = re.compile(r"[^\W\d]\w*")


def unshadowed(stub: str) -> str:
    """Return a stub in which no field of a class stands for the type of another: `date: date` would be of no type at all."""
    return _CLASS.sub(_unshadowed, stub)


def _unshadowed(found: "re.Match[str]") -> str:
    name, base, total, body = found[1], found[2], found[3] or "", found[4]
    rows = dict(_ROW.findall(body))
    if rows.keys().isdisjoint(_WORD.findall(" ".join(rows.values()))):
        return found[0]
    fields = ", ".join(f"{key!r}: {text}" for key, text in rows.items())
    return f"{name} = {base}({name!r}, {{{fields}}}{total})\n"


def doc(summary: str) -> str:
    """Return a text as it may stand in a docstring."""
    return summary.replace("\\", "\\\\").replace('"', "'")
