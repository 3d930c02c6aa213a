"""Functions of the user's own modules as tools.

Arguments are held against the types that the function declares (`python_values`) before it is called: what does not fit is a
`TypeError` of the program, and nothing was carried out.

What a function raises becomes what its program sees:

| raised | read, idempotent | write |
|---|---|---|
| `CallError` | the error, by its status; tried again if retryable | the error: nothing was carried out |
| `ValueError`, `TypeError`, `LookupError`, `PermissionError` | the error | **unknown**: it may come of the answer |
| `TimeoutError`, its own time-out, `ConnectionError` | the error, tried again | **unknown**: a person is asked |
| `ConnectionRefusedError` | the error, tried again | the error: nothing had left |
| `OutcomeUnknown`, anything else | `RuntimeError` | **unknown**: it may have left before it failed |
"""

import asyncio
import dataclasses
import enum
import importlib
import inspect
import sys
import types
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import anyio
import anyio.to_thread

from overwinter.adapters.python_values import Makers, Misfit
from overwinter.catalog import Catalog, Function, Module, Parameter, PlainModule, Unknown
from overwinter.errors import ConfigInvalid
from overwinter.events import Answer, Call, Raised, Returned
from overwinter.frozen import frozen
from overwinter.functions import CallError, Key, OutcomeUnknown, mark_of
from overwinter.stubs import Stubs, is_key

__all__ = ["Declined", "PythonTools", "imported", "load_python_tools", "meant"]

CLOSE_S_MAX = 5.0
ATOMS = frozenset({str, int, float, bool, bytes, type(None)})
PLAIN_KINDS: Mapping[type, Callable[..., Any]] = {
    dict: dict, list: list, tuple: tuple, frozenset: frozenset, set: set, Mapping: dict, range: list, deque: list
}  # fmt: skip
"""What programs have for these, and for what is derived from them."""
KINDS_BY_STATUS = {401: "PermissionError", 403: "PermissionError", 404: "LookupError", 410: "LookupError",
                   408: "TimeoutError"}  # fmt: skip


class Declined(Exception):
    """A tool says itself that it did nothing, and as what built-in exception its program shall see that."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@frozen
class _Bound:
    function: Callable[..., Any]
    declared: Function
    key_parameter: str | None
    makers: Mapping[str, Callable[[Any], Any]]
    """What makes the value of each parameter of what a program gives."""
    is_async: bool


@asynccontextmanager
async def load_python_tools(
    modules: Mapping[str, str], *, directory: Path, threads_max: int
) -> "AsyncGenerator[PythonTools]":
    """Import service modules and yield their functions as tools.

    Args:
        modules: service name to module path, `"shop.billing"`.
        directory: where the modules lie, absolute; it comes first on the path while they are imported, and stays on it.
        threads_max: how many sync functions may run at once.

    A module may have an `async def _close()`: it is awaited when the block is left.

    Raises:
        ConfigInvalid: a module cannot be imported, or a function cannot be a tool.
    """
    place = str(directory)
    if modules and place not in sys.path:
        sys.path.insert(0, place)
    loaded = {service: imported(service, path) for service, path in modules.items()}
    bound: dict[str, _Bound] = {}
    catalog: dict[str, Module] = {}
    for service, module in loaded.items():
        functions = _functions(module)
        stubs, makers = Stubs(service, [name for name, _ in functions]), Makers()
        for name, function in functions:
            bound[f"{service}.{name}"] = _bind(f"{service}.{name}", function, stubs, makers)
        declared = {
            name.partition(".")[2]: each.declared for name, each in bound.items() if name.startswith(f"{service}.")
        }
        catalog[service] = PlainModule(name=service, stub=stubs.text(), functions=declared)
    try:
        yield PythonTools(bound, Catalog(catalog), threads_max)
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_S_MAX):
            for module in loaded.values():
                if (close := getattr(module, "_close", None)) is not None:
                    await close()


class PythonTools:
    """See `catalog.Tools`."""

    def __init__(self, bound: Mapping[str, _Bound], catalog: Catalog, threads_max: int) -> None:
        self._bound = bound
        self._catalog = catalog
        self._threads = anyio.CapacityLimiter(threads_max)

    @property
    def catalog(self) -> Catalog:
        """Return what can be called."""
        return self._catalog

    async def perform(self, call: Call) -> Answer | Unknown:
        """Carry out one attempt of a call."""
        bound = self._bound.get(call.function)
        if bound is None:
            return Raised(kind="AttributeError", message=f"there is no function {call.function} any more")
        try:
            arguments = _arguments(bound, call)
        except Exception as error:  # noqa: BLE001 - whatever it is, the function was not called
            return Raised(kind="TypeError", message=f"{call.function}: {error}")
        try:
            if bound.is_async:
                value = await _within(bound.declared.timeout_s, bound.function(**arguments))
            else:
                async with asyncio.timeout(bound.declared.timeout_s):
                    value = await anyio.to_thread.run_sync(
                        lambda: bound.function(**arguments), limiter=self._threads, abandon_on_cancel=True
                    )
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # ours: the run was cancelled, or the home closes
            return meant(bound.declared, RuntimeError(f"it cancelled itself: {error}"))
        except BaseException as error:  # noqa: BLE001 - whatever a user's function raises is an answer, sys.exit() too
            return meant(bound.declared, error)
        return Returned(value=_plain(value))


# --- Making tools of functions ---------------------------------------------------------------------------------------


def imported(service: str, path: str) -> ModuleType:
    """Return the module of a service.

    Raises:
        ConfigInvalid: it cannot be imported.
    """
    try:
        return importlib.import_module(path)
    except (Exception, SystemExit) as error:
        advice = (
            '; put what the script runs behind `if __name__ == "__main__":`' if isinstance(error, SystemExit) else ""
        )
        if path.endswith(".py") and isinstance(error, ImportError):
            advice = f": it is named as in `import`, {path.removesuffix('.py').replace('/', '.')!r}"
        raise ConfigInvalid(
            f"service {service!r}: module {path!r} cannot be imported: {type(error).__name__}: {error}{advice}"
        ) from error


def _functions(module: ModuleType) -> list[tuple[str, Callable[..., Any]]]:
    """Return the public functions that the module itself defines, in their order."""
    return [
        (name, value)
        for name, value in vars(module).items()
        if not name.startswith("_") and inspect.isfunction(value) and value.__module__ == module.__name__
    ]


def _bind(name: str, function: Callable[..., Any], stubs: Stubs, makers: Makers) -> _Bound:
    mark = mark_of(function)
    summary = (inspect.getdoc(function) or "").split("\n")[0]
    line = stubs.function(name.partition(".")[2], function, summary)
    hints = get_type_hints(function)
    keys = [word for word, hint in hints.items() if is_key(hint) and word != "return"]
    if len(keys) > 1:
        raise ConfigInvalid(f"{name} has two parameters of type Key: {', '.join(keys)}")
    taken = inspect.signature(function).parameters
    given = {word: each for word, each in taken.items() if word not in keys}
    parameters = tuple(Parameter(name=word, is_required=each.default is each.empty) for word, each in given.items())
    return _Bound(
        function=_by_words(function, taken),
        declared=Function(
            name=name,
            effect=mark.effect,
            parameters=parameters,
            stub=line,
            summary=summary,
            result=line.rpartition(") -> ")[2].removesuffix(": ..."),
            timeout_s=mark.timeout_s,
            attempts_max=mark.attempts_max,
        ),
        key_parameter=keys[0] if keys else None,
        makers={
            word: makers.of(hint if given[word].default is not None else hint | None)
            for word, hint in hints.items()
            if word in given
        },
        is_async=inspect.iscoroutinefunction(function),
    )


def _by_words(function: Callable[..., Any], taken: Mapping[str, inspect.Parameter]) -> Callable[..., Any]:
    """Return a function that takes all its arguments by name, as programs give them."""
    firsts = [word for word, each in taken.items() if each.kind is each.POSITIONAL_ONLY]
    if not firsts:
        return function

    def called(**given: Any) -> Any:
        places = [given.pop(word) for word in firsts if word in given]
        return function(*places, **given)

    return called


# --- Carrying out a call ---------------------------------------------------------------------------------------------


async def _within(timeout_s: float, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine returns, under a time-out from its first wait on.

    Most of a call that never waits would be the arming of its time-out. A cancel scope costs twice as much.
    """
    try:
        waited_for = coroutine.send(None)
    except StopIteration as end:
        return end.value
    async with asyncio.timeout(timeout_s):
        return await _rest(coroutine, waited_for)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, Any], waited_for: Any) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that has begun, as `await` would.

    Source: PEP 380, "Formal Semantics"
    """
    while True:
        try:
            sent = yield waited_for
        except BaseException as error:  # noqa: BLE001 - a cancellation, above all: it is the coroutine's to see
            step, given = coroutine.throw, error
        else:
            step, given = coroutine.send, sent
        try:
            waited_for = step(given)
        except StopIteration as end:
            return end.value


def _arguments(bound: _Bound, call: Call) -> dict[str, Any]:
    arguments: dict[str, Any] = dict(call.arguments)
    for name, make in bound.makers.items():
        if name in arguments:
            try:
                arguments[name] = make(arguments[name])
            except Misfit as misfit:
                raise misfit.within(name) from None
    if bound.key_parameter is not None:
        arguments[bound.key_parameter] = Key(call.key)
    return arguments


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one kind a line
    """Return dataclasses as dicts and enums as their values, at any depth, and what is a kind of list or dict as one."""
    own = type(value)
    if own in ATOMS:  # nearly all are: to ask each what it is derived from takes three times as long
        return value
    if own is list:
        return [_plain(each) for each in value]
    if hasattr(own, "__dataclass_fields__"):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    kind = own if own is dict else next((each for each in PLAIN_KINDS if isinstance(value, each)), None)
    if kind is None:
        return value
    if kind in (dict, Mapping):
        return {key if type(key) is str else _plain(key): _plain(each) for key, each in value.items()}
    return PLAIN_KINDS[kind](_plain(each) for each in value)


def meant(function: Function, error: BaseException) -> Answer | Unknown:  # noqa: PLR0911 - the table's rows
    """Return what an error of a function means; the table stands at the top."""
    is_write = function.effect == "write"
    text = str(error) or type(error).__name__
    match error:
        case CallError():
            return _refusal(error)
        case Declined(kind=kind):
            return Raised(kind=kind, message=text)
        case ConnectionRefusedError():
            return Raised(kind="OSError", message=text, is_retryable=not is_write)
        case TimeoutError():
            text = str(error) or f"{function.name} took longer than {function.timeout_s:g} s"
            return Unknown(why=text) if is_write else Raised(kind="TimeoutError", message=text, is_retryable=True)
        case ConnectionError():
            return Unknown(why=text) if is_write else Raised(kind="OSError", message=text, is_retryable=True)
        case ValueError() | TypeError() | LookupError() | PermissionError() if not is_write:
            return Raised(kind=_builtin_kind(error), message=text)
        case OutcomeUnknown():
            return Unknown(why=text) if is_write else Raised(kind="RuntimeError", message=text, is_retryable=True)
        case _:
            text = f"{type(error).__name__}: {text}"
            return Unknown(why=text) if is_write else Raised(kind="RuntimeError", message=text)


def _refusal(error: CallError) -> Raised:
    status = error.status
    is_service_trouble = status is not None and (status == 429 or status >= 500)  # noqa: PLR2004 - RFC 9110, section 15
    kind = "OSError" if is_service_trouble else KINDS_BY_STATUS.get(status or 0, "RuntimeError")
    return Raised(
        kind=kind,
        message=error.message,
        status=status,
        code=error.code,
        is_retryable=error.is_retryable,
        retry_after_s=error.retry_after_s,
    )


def _builtin_kind(error: BaseException) -> str:
    """Return the nearest built-in ancestor's name: a program knows no other classes."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
