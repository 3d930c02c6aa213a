"""What an approval is bound to: exactly one call, by exactly this agent, under exactly these rules.

A person says yes to a digest. A changed argument, definition, rule or epoch has another digest, and is asked about again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from overwinter import values
from overwinter.events import Call
from overwinter.values import Value

__all__ = ["Gate", "Vote", "approvers", "digest"]

VERSION = "overwinter approval 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What one person said of one call."""

    person: str
    is_yes: bool
    reason: str
    at_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A call that waits for people, or has been let through by them."""

    digest: bytes
    """What they say yes to, see `digest`; 32 bytes."""
    approver: str
    """Who may: an address or a name, or several with commas between them."""
    reason: str
    """Why they are asked."""
    policies: tuple[str, ...] = ()
    """Ids of the rules that ask."""
    needed: int = 1
    """Different people who must say yes. One no is enough for a no."""
    expires_us: int | None = None
    """When it is too late for a yes; None: never."""
    votes: tuple[Vote, ...] = ()
    is_used: bool = False
    """Whether it let its call through. It lets it through once."""


def approvers(gate: Gate) -> tuple[str, ...]:
    """Return the people who may say yes or no."""
    return tuple(filter(None, (each.strip() for each in gate.approver.split(","))))


def digest(call: Call, *, agent_epoch: int, pin: str, rules: str, expires_us: int | None) -> bytes:
    """Return what an approval of a call is bound to.

    Args:
        call: run, index, agent, function and arguments.
        agent_epoch: of its agent, as the run has it.
        pin: of the function's definition.
        rules: version of the policies that asked.
        expires_us: when it is too late for a yes.
    """
    parts = [
        VERSION, call.agent, agent_epoch, call.run_id, call.index, call.function, _ordered(call.arguments), pin, rules, expires_us,
    ]  # fmt: skip
    return hashlib.sha256(values.encode(parts)).digest()


def _ordered(value: Value) -> Value:
    """Return a value with its keys in order: the same arguments are the same, however they were written.

    Of no two values it is the same: a mapping is a mapping with one key, and nothing else becomes one.
    """
    if isinstance(value, Mapping):
        rows: list[tuple[Value, Value]] = sorted(value.items(), key=lambda row: values.encode(row[0]))  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType, reportUnknownVariableType] - values are checked, not typed
        return {"": [[key, _ordered(each)] for key, each in rows]}
    if isinstance(value, list | tuple):
        parts = [_ordered(each) for each in value]  # pyright: ignore[reportUnknownVariableType] - the same
        return tuple(parts) if isinstance(value, tuple) else parts
    return value
