"""Python signatures as `.pyi` text: what programs are checked against, and what a model reads."""

import ast
import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Literal, get_args, get_origin, is_typeddict

from overwinter.errors import ConfigInvalid
from overwinter.functions import Key

__all__ = ["HEADER", "TOOLS", "Stubs", "doc", "of_tools"]

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
    \"\"\"Ask a person; waits for days if need be, for nothing.\"\"\"
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
}  # fmt: skip
CONTAINERS: Mapping[object, str] = {
    list: "list", set: "set", frozenset: "frozenset", dict: "dict", Sequence: "list", Mapping: "dict",
}  # fmt: skip


@cache
def of_tools() -> Mapping[str, str]:
    """Return what the module `tools` declares, each by its name."""
    declared = [each for each in ast.parse(TOOLS).body if isinstance(each, ast.ClassDef | ast.AsyncFunctionDef)]
    return {each.name: ast.get_source_segment(TOOLS, each) or "" for each in declared}


class Stubs:
    """The stub of one module: its functions, and the types they speak of, each written once."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._types: dict[str, str] = {}
        self._functions: list[str] = []

    def function(self, function: Callable[..., Any], summary: str) -> str:
        """Add a function; return its line. Sync or not, a program awaits it, and passes arguments by keyword.

        Raises:
            ConfigInvalid: if a parameter or the result is of a type that cannot cross.
        """
        where = f"{self._service}.{function.__name__}"
        hints = _hints(function, where)
        parameters: list[str] = []
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise ConfigInvalid(f"{where} takes *{name}: name its parameters, so that programs can be checked")
            if hints.get(name) is Key:
                continue
            text = self._type(hints.get(name, Any), f"{where}, parameter {name!r}")
            parameters.append(f"{name}: {text}" + ("" if parameter.default is parameter.empty else " = ..."))
        result = self._type(hints.get("return", Any), f"{where}, result")
        star = "*, " if parameters else ""
        line = f"async def {function.__name__}({star}{', '.join(parameters)}) -> {result}: ..."
        self._functions.append(line if not summary else line[:-3] + f'\n    """{doc(summary)}"""')
        return line

    def text(self) -> str:
        """Return the module's whole stub."""
        return "\n".join([HEADER, *self._types.values(), *self._functions, ""])

    def _type(self, hint: Any, where: str) -> str:  # noqa: ANN401, PLR0911, C901 - a hint is any object; one case a line
        record = hint
        if hint is None:
            return "None"
        if isinstance(hint, typing.NewType):
            return self._type(hint.__supertype__, where)
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return f"Literal[{', '.join(repr(each.value) for each in hint)}]"
        if _is_record(record):
            return self._record(record, where)
        if _is_plain(hint):
            return PLAIN[hint]
        origin, args = get_origin(hint), get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return " | ".join(dict.fromkeys(self._type(each, where) for each in args))
        if origin is Literal:
            return f"Literal[{', '.join(map(repr, args))}]"
        if origin in (typing.Annotated, typing.Required, typing.NotRequired):
            return self._type(args[0], where)
        if origin is tuple:
            return f"tuple[{', '.join('...' if each is ... else self._type(each, where) for each in args)}]"
        if origin in CONTAINERS:
            return f"{CONTAINERS[origin]}[{', '.join(self._type(each, where) for each in args)}]"
        raise ConfigInvalid(
            f"{where}: {hint!r} cannot cross to a program; use plain data (dict, list, str, numbers, dates, bytes), a "
            "TypedDict or a dataclass"
        )

    def _record(self, record: Any, where: str) -> str:  # noqa: ANN401 - a TypedDict or a dataclass
        hints = typing.get_type_hints(record)
        name, required = getattr(record, "__name__", ""), getattr(record, "__required_keys__", frozenset(hints))
        if name not in self._types:
            self._types[name] = ""  # a type that speaks of itself finds its name taken
            fields = {key: self._type(hint, f"{where}, field {key!r}") for key, hint in hints.items()}
            rows = {key: text if key in required else f"NotRequired[{text}]" for key, text in fields.items()}
            if all(key.isidentifier() for key in rows):
                body = "".join(f"    {key}: {text}\n" for key, text in rows.items()) or "    pass\n"
                self._types[name] = f"class {name}(TypedDict):\n{body}"
            else:
                body = ", ".join(f"{key!r}: {text}" for key, text in rows.items())
                self._types[name] = f"{name} = TypedDict({name!r}, {{{body}}})\n"
        return name


def _hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception as error:
        raise ConfigInvalid(f"{where}: its type hints cannot be read: {error}") from error


def _is_record(hint: Any) -> bool:  # noqa: ANN401 - a hint is any object
    return is_typeddict(hint) or (isinstance(hint, type) and dataclasses.is_dataclass(hint))


def _is_plain(hint: Any) -> bool:  # noqa: ANN401 - a hint is any object
    try:
        return hint in PLAIN
    except TypeError:
        return False


def doc(summary: str) -> str:
    """Return a text as it may stand in a docstring."""
    return summary.replace("\\", "\\\\").replace('"', "'")
