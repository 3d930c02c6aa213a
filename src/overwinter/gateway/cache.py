"""When a kept answer will do: for a request that is the same in everything that can change the answer.

The key is made of the whole request less a list of fields that cannot, so a field that nobody here has heard of makes another
key. Rivals list what counts, and give wrong answers for what they forgot. What counts counts by its bytes: blanks or another
order of keys below the top level are a miss, never a wrong answer.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from overwinter.clock import SECOND_US
from overwinter.gateway.answers import Kept
from overwinter.gateway.dialect import Asked, DialectName
from overwinter.gateway.tap import SERVED, Tap

__all__ = [
    "NEVER_MATTER",
    "Flight",
    "Flights",
    "cache_key",
    "call_key",
    "is_keepable",
    "is_remembering",
    "is_steady",
    "request_digest",
    "young",
]

NEVER_MATTER: Mapping[DialectName, frozenset[str]] = {
    "chat": frozenset({
        "stream", "stream_options", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
        "prompt_cache_options",
    }),
    "responses": frozenset({"stream", "stream_options", "client_metadata"}),
    "messages": frozenset({"stream", "metadata"}),
    "gemini": frozenset(),
    "embeddings": frozenset({"user"}),
}  # fmt: skip
"""Top-level fields that change how an answer comes, or what it costs, and nothing in it. A response repeats who asked and its
`metadata`, so there they count: one caller's are not for another. So does the `metadata` of a chat completion."""
REMEMBERING: Mapping[DialectName, tuple[str, ...]] = {"responses": ("conversation",), "messages": ("container",)}
"""Fields that name what grows with each request, at the provider."""
HEADERS = ("anthropic-", "openai-")
"""What headers begin with that may change it: betas, versions."""
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
        for each in (asked.dialect, asked.operation, _place(asked), asked.model, tenant, route, version)
    ]
    parts += [
        f"{name}:{asked.headers[name]}".encode("utf-8", "surrogatepass")
        for name in sorted(asked.headers)
        if name.startswith(HEADERS)
    ]
    for name in sorted(asked.top):
        if name not in NEVER_MATTER[asked.dialect]:
            parts += [name.encode("utf-8", "surrogatepass"), asked.top[name]]
    digest = hmac.new(secret, digestmod=hashlib.sha256)
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def _place(asked: Asked) -> str:
    """Return the path of a request; of Gemini's without what says whether a stream is wanted, which others say in the body."""
    if asked.dialect != "gemini":
        return asked.path
    place, _, query = asked.path.partition("?")
    return f"{place.rpartition(':')[0]}?{'&'.join(each for each in query.split('&') if each != 'alt=sse')}"


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


def is_remembering(asked: Asked) -> bool:
    """Whether what a request means lies with its provider, and may be another thing the next time: no answer to it is kept."""
    if any(asked.top.get(name, b"null") != b"null" for name in REMEMBERING.get(asked.dialect, ())):
        return True
    prompt = asked.top.get("prompt", b"null") if asked.dialect == "responses" else b"null"
    try:
        named: Any = json.loads(prompt)
    except (ValueError, RecursionError):
        return True
    return named is not None and not (isinstance(named, dict) and named.get("version"))  # pyright: ignore[reportUnknownMemberType] - any JSON


def is_steady(asked: Asked, *, is_opted_in: bool) -> bool:
    """Whether an answer to a request may be given again at all: its answers do not vary, or the caller does not mind."""
    if asked.operation == "embed":
        return True
    return asked.operation == "generate" and not asked.is_background and (asked.temperature == 0 or is_opted_in)


def young(kept: Kept | None, age_s_max: float | None, now_us: int) -> Kept | None:
    """Return a kept answer that is not older than its caller wants; None: it does not mind."""
    is_old = kept is not None and age_s_max is not None and kept.made_us + round(age_s_max * SECOND_US) < now_us
    return None if is_old else kept


def is_keepable(asked: Asked, tap: Tap, body: bytes, *, is_opted_in: bool) -> bool:
    """Whether an answer may be given again for the same request: a whole one, of the model's own."""
    if not tap.is_whole or tap.error is not None or not is_steady(asked, is_opted_in=is_opted_in):
        return False
    if asked.operation == "embed":
        return True
    has_searched = tap.usage is not None and tap.usage.searches > 0
    return tap.stop in WHOLE and not has_searched and SERVED.search(body) is None


@dataclass(slots=True, eq=False)
class Flight:
    """A request under way that others wait for."""

    key: bytes
    done: anyio.Event = field(default_factory=anyio.Event)
    kept: Kept | None = None
    is_given_up: bool = False


@dataclass(slots=True)
class Flights:
    """Requests under way that others wait for, so that the same one is asked once."""

    _flying: dict[bytes, Flight] = field(default_factory=dict[bytes, Flight])

    async def join(self, key: bytes) -> Kept | Flight | None:
        """Return what a request under way brought to share; a flight of the caller's own, to be landed, if there is none.

        None: it brought nothing. Whoever has waited for it asks at once and alone: a queue would wait for one answer after
        another that is no good to anybody else.
        """
        while (flight := self._flying.get(key)) is not None:
            await flight.done.wait()
            if not flight.is_given_up:
                return flight.kept
        flight = self._flying[key] = Flight(key)
        return flight

    def land(self, flight: Flight, kept: Kept | None, *, is_given_up: bool) -> None:
        """Say what came of a flight; one that was given up, because its client left, is for the next one to begin again."""
        del self._flying[flight.key]
        flight.kept, flight.is_given_up = kept, is_given_up
        flight.done.set()
