"""overwinter: durable, type-checked Python programs that cost nothing while they sleep and survive `kill -9`."""

from typing import TYPE_CHECKING

from overwinter.functions import CallError, Key, OutcomeUnknown, idempotent, read, write

if TYPE_CHECKING:
    from overwinter.app import App

__all__ = ["App", "CallError", "Key", "OutcomeUnknown", "__version__", "idempotent", "read", "write"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Load `App`, and the interpreter, store and event loop with it, only when it is asked for."""
    if name == "App":
        from overwinter.app import App  # noqa: PLC0415 - a module of tools must load in milliseconds

        return App
    raise AttributeError(f"module 'overwinter' has no attribute {name!r}")
