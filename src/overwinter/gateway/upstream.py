"""The way to providers: a request out, bytes in. What fails says whether the provider may have begun."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from overwinter.gateway.dialect import DialectName, Wire
from overwinter.gateway.routes import Provider

__all__ = ["Reply", "Upstream", "UpstreamFailed"]


class UpstreamFailed(Exception):
    """No answer, or half of one. `has_left`: the request was on the wire, so the provider may bill it."""

    def __init__(
        self, kind: Literal["connect", "reset", "timeout", "forbidden", "too-large"], message: str, *, has_left: bool
    ) -> None:
        super().__init__(message)
        self.kind, self.has_left = kind, has_left


class Reply(Protocol):
    """An answer as it arrives."""

    @property
    def status(self) -> int:
        """Return its HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Return its headers, names in lower case."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield its body, cut anywhere.

        Raises:
            UpstreamFailed: it broke off, or was silent for too long.
        """
        ...

    def masked(self, said: bytes) -> bytes:
        """Return something that was said without the credentials that it was asked with: an error may repeat them."""
        ...


class Upstream(Protocol):
    """Sends requests to providers, with the home's own credentials."""

    def send(
        self, provider: Provider, dialect: DialectName, method: str, wire: Wire
    ) -> AbstractAsyncContextManager[Reply]:
        """Send a request; leaving the block lets go of the answer, and of the connection if there is more of it.

        Raises:
            UpstreamFailed: nothing came back.
        """
        ...
