"""How a Python function becomes a tool: marks that say what a second performance would do, and the errors it may raise.

```python
from overwinter import CallError, Key, idempotent, read

@read
async def find(*, customer: str) -> list[Invoice]: ...

@idempotent
async def charge(*, invoice_id: int, amount_cents: int, key: Key) -> Receipt: ...
```

A public function without a mark is a `write`: the safest thing to think of it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, NewType, Protocol, TypeVar, overload

from overwinter.frozen import frozen

__all__ = ["CallError", "Key", "Mark", "Offers", "OutcomeUnknown", "idempotent", "mark_of", "read", "write"]

Key = NewType("Key", str)
"""Annotate a parameter with it, and the runtime fills in the call's idempotency key, `run:index`: the same in every attempt,
also after a crash. Programs do not see the parameter."""

F = TypeVar("F", bound=Callable[..., Any])
_ATTRIBUTE = "__overwinter__"


@frozen
class Mark:
    """What is known of a function beyond its signature."""

    effect: Literal["read", "idempotent", "write"] = "write"
    timeout_s: float = 60.0
    """The longest that one attempt may take."""
    attempts_max: int = 5
    """How often a read or idempotent call is tried before its error is the program's."""


class CallError(Exception):
    """The service said no. Of a write it says: nothing was carried out."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        is_retryable: bool | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Describe the refusal.

        Args:
            message: what the service said, for people and models.
            status: its HTTP status, if it has one.
            code: its own name for the error: `"card_declined"`.
            is_retryable: whether the same call may succeed later; None: if the status is 408, 429 or 5xx.
            retry_after_s: the pause it asked for, seconds.
        """
        super().__init__(message)
        self.message, self.status, self.code, self.retry_after_s = message, status, code, retry_after_s
        again = status is not None and (status in (408, 429) or status >= 500)  # noqa: PLR2004 - RFC 9110, section 15
        self.is_retryable = again if is_retryable is None else is_retryable


class OutcomeUnknown(Exception):
    """A write left and no answer came. It is not tried again: a person is asked what became of it."""


class Offers(Protocol):
    """An object that offers functions by itself: `python = "module:object"` makes it a service."""

    async def tools(self) -> Sequence[Mapping[str, Any]]:
        """Return what it offers, as MCP writes tools: `name`, `description`, `inputSchema`, `outputSchema`, `annotations`.

        Without `readOnlyHint` or `idempotentHint` a tool is a write. `isGated`: each call needs a person's word.
        `timeoutSeconds`: the longest that one attempt may take.
        """
        ...

    def call(self, name: str, arguments: Mapping[str, Any], key: Key) -> Awaitable[Any]:
        """Carry out one attempt, and return plain data; errors are those of functions. `key` is the same in each attempt."""
        ...


@overload
def read(function: F, /) -> F: ...
@overload
def read(*, timeout_s: float = 60.0, attempts_max: int = 5) -> Callable[[F], F]: ...
def read(function: F | None = None, /, *, timeout_s: float = 60.0, attempts_max: int = 5) -> F | Callable[[F], F]:
    """Mark a function that changes nothing: it is tried again as often as needed."""
    return _marked(function, Mark(effect="read", timeout_s=timeout_s, attempts_max=attempts_max))


@overload
def idempotent(function: F, /) -> F: ...
@overload
def idempotent(*, timeout_s: float = 60.0, attempts_max: int = 5) -> Callable[[F], F]: ...
def idempotent(function: F | None = None, /, *, timeout_s: float = 60.0, attempts_max: int = 5) -> F | Callable[[F], F]:
    """Mark a function that does no more the second time, by nature or because its target honours the `Key`."""
    return _marked(function, Mark(effect="idempotent", timeout_s=timeout_s, attempts_max=attempts_max))


@overload
def write(function: F, /) -> F: ...
@overload
def write(*, timeout_s: float = 60.0) -> Callable[[F], F]: ...
def write(function: F | None = None, /, *, timeout_s: float = 60.0) -> F | Callable[[F], F]:
    """Mark a function whose repetition would do harm: it is never repeated unless a person orders it."""
    return _marked(function, Mark(effect="write", timeout_s=timeout_s, attempts_max=1))


def mark_of(function: Callable[..., Any]) -> Mark:
    """Return a function's mark; without one it is a write."""
    return getattr(function, _ATTRIBUTE, None) or Mark(attempts_max=1)


def _marked(function: F | None, mark: Mark) -> F | Callable[[F], F]:
    def put(function: F) -> F:
        setattr(function, _ATTRIBUTE, mark)
        return function

    return put if function is None else put(function)
