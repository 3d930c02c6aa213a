"""When a kept answer will do: for a request that is the same in everything that can change the answer.

The key is made of the whole request less a list of fields that cannot, so a field that nobody here has heard of makes another
key. Rivals list what counts, and give wrong answers for what they forgot. What counts counts by its bytes: blanks or another
order of keys below the top level are a miss, never a wrong answer.
"""

import hashlib
import hmac
from dataclasses import dataclass, field

import anyio

from overwinter.gateway.answers import Kept
from overwinter.gateway.dialect import Asked
from overwinter.gateway.tap import Tap

__all__ = ["NEVER_MATTER", "Flights", "cache_key", "call_key", "is_keepable", "request_digest"]

NEVER_MATTER = frozenset({
    "stream", "stream_options", "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options", "client_metadata",
})  # fmt: skip
"""Top-level fields that change how an answer comes, or what it costs, and not what it says."""
HEADERS = ("anthropic-version", "anthropic-beta", "openai-beta")
"""Headers that change it."""
WHOLE = frozenset({"stop", "end_turn", "stop_sequence", "tool_calls", "tool_use", "function_call", "completed", "STOP"})
"""Words for an answer that its model had finished. One that was cut or refused is never kept."""


def cache_key(asked: Asked, secret: bytes, *, tenant: str, route: str, version: str) -> bytes:
    """Return the key of a request.

    Args:
        asked: the request, after redaction.
        secret: of this home: keys tell nobody who reads them what was asked.
        tenant: answers are never shared across it.
        route: by whom it would be answered.
        version: of the rules of policy and of redaction.
    """
    parts: list[bytes] = [
        each.encode("utf-8", "surrogatepass")
        for each in (asked.dialect, asked.operation, asked.path, asked.model, tenant, route, version)
    ]
    parts += [f"{name}:{asked.headers.get(name, '')}".encode() for name in HEADERS]
    for name in sorted(asked.top):
        if name not in NEVER_MATTER:
            parts += [name.encode("utf-8", "surrogatepass"), asked.top[name]]
    digest = hmac.new(secret, digestmod=hashlib.sha256)
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def call_key(call: str, secret: bytes) -> bytes:
    """Return the key of a call by its name: the answer that it got is given to nobody else."""
    return hmac.new(secret, b"call\0" + call.encode(), hashlib.sha256).digest()


def request_digest(asked: Asked) -> bytes:
    """Return what tells a request from another under the same name: every byte of it."""
    digest = hashlib.sha256(f"{asked.dialect}\0{asked.path}\0".encode())
    for name, value in asked.top.items():
        digest.update(f"{name}\0{len(value)}\0".encode())
        digest.update(value)
    return digest.digest()


def is_keepable(asked: Asked, tap: Tap, *, is_opted_in: bool) -> bool:
    """Whether an answer may be given again for the same request: a whole one, to a request whose answers do not vary."""
    if not tap.is_whole or tap.error is not None:
        return False
    if asked.operation == "embed":
        return True
    is_steady = asked.temperature == 0 or is_opted_in
    searched = tap.usage is not None and tap.usage.searches > 0
    return (
        asked.operation == "generate" and is_steady and tap.stop in WHOLE and not searched and not asked.is_background
    )


@dataclass(slots=True)
class _Flight:
    done: anyio.Event = field(default_factory=anyio.Event)
    kept: Kept | None = None


@dataclass(slots=True)
class Flights:
    """Requests under way that others wait for, so that the same one is asked once."""

    _flying: dict[bytes, _Flight] = field(default_factory=dict[bytes, _Flight])

    async def join(self, key: bytes) -> Kept | None:
        """Wait for a request under way and return what it brought to share; None: it is for the caller to ask."""
        while (flight := self._flying.get(key)) is not None:
            await flight.done.wait()
            if flight.kept is not None:
                return flight.kept
        self._flying[key] = _Flight()
        return None

    def land(self, key: bytes, kept: Kept | None) -> None:
        """Say what came of a request that `join` left to the caller; without an answer the next one asks."""
        flight = self._flying.pop(key, None)
        if flight is not None:
            flight.kept = kept
            flight.done.set()
