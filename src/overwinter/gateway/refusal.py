"""Why a model call was not answered, in one word of ours; each dialect says it in its own."""

from typing import Literal

from overwinter.frozen import frozen

__all__ = ["ModelRefused", "Refusal", "Why"]

from overwinter.errors import OverwinterError

Why = Literal[
    "invalid",  # the request cannot be read: broken JSON, wrong types, no model
    "too-large",  # it is above a stated limit
    "unknown-key",  # no token came along, or one that does not count
    "unknown-model",  # no such model is declared
    "unknown-answer",  # no answer of this name was made for this agent
    "unsupported",  # the target cannot carry a field of it
    "denied",  # the rules do not allow it
    "revoked",  # its agent may not act any more
    "budget",  # a budget does not hold it
    "unpriced",  # a budget applies, and nobody knows what it may cost
    "rate",  # too many calls in a window; `retry_after_s` says when
    "confidential",  # a rule of redaction blocks it
    "repeated",  # its key was used by another request, or is still under way
    "overloaded",  # the gateway has no room
    "upstream",  # the provider failed, and every fallback with it
    "misconfigured",  # the home has no credential for the provider, one that it does not take, or may not go there
    "timeout",  # the provider was silent for too long
    "partial",  # the provider stopped in the middle of its answer
    "stopped",  # we are going down, or somebody revoked the call under way
]


@frozen
class Refusal:
    """A call that ended without an answer, or in the middle of one."""

    why: Why
    message: str
    """For the client: names the value and the remedy; never a secret, never the provider's key."""
    status: int | None = None
    """Of the provider, where its refusal is handed on; None: the dialect's own for `why`."""
    retry_after_s: float | None = None
    """When another try may help; None: none will, and clients are told not to."""


class ModelRefused(OverwinterError):
    """A model call was refused or failed. `refusal.retry_after_s` says whether another try can help."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
