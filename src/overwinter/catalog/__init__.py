"""Which functions there are: names, effects, parameters and stubs. Pure values; sources that perform calls are adapters."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Protocol, TypeAlias

from overwinter.events import Answer, Call, Effect
from overwinter.frozen import frozen
from overwinter.values import Value

__all__ = [
    "Asks", "Began", "Catalog", "Function", "Later", "Module", "Parameter", "Performed", "PlainModule", "Tools", "Unknown", "bind",
]  # fmt: skip


@frozen
class Parameter:
    """One parameter of a function, as a program may pass it."""

    name: str
    is_required: bool


@frozen
class Function:
    """One tool."""

    name: str
    """`service.function`."""
    effect: Effect
    parameters: tuple[Parameter, ...]
    """In order; programs pass them by keyword, positions are accepted."""
    stub: str
    """Its `async def` line, types as in the module's stub."""
    summary: str = ""
    result: str = "Any"
    """Type of its result, as in the stub."""
    tags: tuple[str, ...] = ()
    is_listed: bool = True
    """Whether a search finds it."""
    fault: str = ""
    """Why it may not be called now, whoever asks; "" if it may."""
    is_gated: bool = False
    """Whether its author wants a person's word for each call: where the rules just allow it, the agent's owner is asked."""
    timeout_s: float = 60.0
    """The longest that one attempt may take."""
    attempts_max: int = 5
    """How often a read or idempotent call is tried before its error is the program's; a write is tried once."""


class Module(Protocol):
    """One service: a set of functions with the types they speak of."""

    @property
    def name(self) -> str:
        """Return its name: what a program imports."""
        ...

    @property
    def stub(self) -> str:
        """Return its whole `.pyi` text."""
        ...

    @property
    def functions(self) -> Mapping[str, Function]:
        """Return its functions by name without the service: `"charge"`."""
        ...


@frozen
class PlainModule:
    """A module that is held in memory."""

    name: str
    stub: str
    functions: Mapping[str, Function]


@frozen(kw_only=False)
class Catalog:
    """All functions of a home."""

    modules: Mapping[str, Module] = field(default_factory=dict[str, Module])

    def function(self, name: str) -> Function | None:
        """Return a function by its full name."""
        service, _, function = name.partition(".")
        module = self.modules.get(service)
        return module.functions.get(function) if module is not None else None


@frozen
class Unknown:
    """A write left and no answer came: it may or may not have been carried out."""

    why: str


@frozen
class Later:
    """The service took the call and works on it: it is asked again, with what it said in `Call.more`."""

    more: Mapping[str, Value]
    after_s: float
    why: str
    """In its own words, for people."""
    is_repeat: bool = False
    """Whether the next attempt is the act itself and no question after it: for a write it may not be lost."""


@frozen
class Asks:
    """The service took the call and wants a person's word: with it in `Call.more["answer"]` it is asked again."""

    more: Mapping[str, Value]
    question: str
    options: Sequence[str] | None = None


@frozen
class Began:
    """A run was begun: its end answers the call."""

    run_id: str


Performed: TypeAlias = Answer | Unknown | Later | Asks | Began


class Tools(Protocol):
    """Performs calls of the functions in its catalog."""

    @property
    def catalog(self) -> Catalog:
        """Return what can be called."""
        ...

    async def perform(self, call: Call) -> Performed:
        """Carry out one attempt of a call. Errors of the function are `Raised`; nothing is raised but cancellation.

        The function's own time-out is enforced here. `Unknown` is answered only for a write.
        """
        ...


def bind(function: Function, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> dict[str, Value] | str:
    """Return the arguments by name, or a sentence that says what is wrong with them."""
    names = [parameter.name for parameter in function.parameters]
    if len(args) > len(names):
        return f"{function.name} takes {len(names)} arguments, {len(args)} were given"
    arguments = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name not in names:
            return f"{function.name} has no parameter {name!r}; it takes {', '.join(names) or 'none'}"
        if name in arguments:
            return f"{function.name} got {name!r} twice"
        arguments[name] = value
    missing = [each.name for each in function.parameters if each.is_required and each.name not in arguments]
    if missing:
        return f"{function.name} misses {', '.join(missing)}"
    return arguments
