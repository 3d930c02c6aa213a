"""What is told to others by webhook: of which facts, signed how, and how often it is tried. And whether others signed what they tell.

The form is that of Standard Webhooks (standardwebhooks.com): `webhook-id`, `webhook-timestamp`, and `webhook-signature` over
`id.timestamp.body`. A receiver verifies it with any library of that specification.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from random import Random
from typing import Literal, get_args

from overwinter.events import EventKind
from overwinter.frozen import frozen

__all__ = [
    "ATTEMPTS_MAX", "SCHEMES", "SECRET_BYTES_MIN", "TEST", "TOPICS", "Delivery", "Scheme", "Tally", "is_signed", "key_of", "pause_s",
    "signature",
]  # fmt: skip

TOPICS: Mapping[str, tuple[EventKind, ...]] = {
    "approval.asked": ("gated",),
    "approval.answered": ("approved", "rejected"),
    "question.asked": ("asked", "unknown"),
    "run.started": ("created",),
    "run.ended": ("finished", "failed", "cancelled"),
    "run.quarantined": ("quarantined",),
    "schedule.paused": (),
}
"""What a webhook can be told of, and the journal's facts that are meant; a schedule that pauses itself is in no run's."""
TEST = "webhook.test"
ATTEMPTS_MAX = 10
"""Attempts at one delivery, over some eleven hours; then it is set aside until somebody asks for it again."""
PAUSE_S, PAUSE_S_MAX = 5.0, 21_600.0
SECRET_BYTES_MIN = 24
"""Standard Webhooks, "Signature scheme": 24 to 64 bytes."""
PREFIX = "whsec_"
Scheme = Literal["github", "stripe", "standard"]
"""How a sender signs: `X-Hub-Signature-256`, `Stripe-Signature`, or Standard Webhooks."""
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
SKEW_S_MAX = 300
"""How far a signed instant may be from now; both schemes that have one say five minutes. GitHub's has none."""
TIMESTAMP_DIGITS_MAX = 12


@frozen
class Delivery:
    """One fact that one webhook is to be told."""

    webhook: str
    topic: str
    run_id: str
    """"": it is of a schedule."""
    position: int
    """Of the fact in the run's journal; of a schedule's, an instant in microseconds UTC, which no other has."""
    attempt: int
    """Attempts so far."""
    not_before_us: int
    why: str = ""
    """What the last attempt came to."""
    schedule: str = ""
    """The schedule that paused itself."""

    @property
    def id(self) -> str:
        """Return the `webhook-id`: the same in every attempt, so that a receiver knows a repeat."""
        return f"evt_{self.run_id or self.schedule}_{self.position}"


@frozen
class Tally:
    """How many deliveries of a webhook are open."""

    webhook: str
    waiting: int
    set_aside: int
    why: str
    """Of the last failure among them."""


def key_of(secret: str) -> bytes:
    """Return the bytes of a secret: what stands behind `whsec_` in base64, or the text itself.

    Raises:
        ValueError: it is too short, or no base64.
    """
    try:
        raw = (
            base64.b64decode(secret.removeprefix(PREFIX), validate=True)
            if secret.startswith(PREFIX)
            else secret.encode()
        )
    except binascii.Error as error:
        raise ValueError("what stands behind whsec_ is no base64") from error
    if len(raw) < SECRET_BYTES_MIN:
        raise ValueError(f"a secret has at least {SECRET_BYTES_MIN} bytes, this one {len(raw)}")
    return raw


def signature(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Return the `webhook-signature` of a message."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"


def pause_s(attempt: int, retry_after_s: float | None, random: Random) -> float:
    """Return the pause after a failed attempt: 5 s, tripled each time, half of it jitter; at least what the receiver asked."""
    pause = min(PAUSE_S_MAX, PAUSE_S * 3**attempt)
    return max(min(PAUSE_S_MAX, retry_after_s or 0.0), pause / 2 + random.random() * pause / 2)


def is_signed(scheme: Scheme, secret: str, headers: Mapping[str, str], body: bytes, now_s: int) -> bool:
    """Whether who has a secret sent a message, and just now.

    Args:
        scheme: how they sign.
        secret: as their service shows it.
        headers: by their names in lower case.
        body: its bytes, as they came.
        now_s: this instant.
    """
    match scheme:
        case "github":
            expected = f"sha256={hmac.digest(secret.encode(), body, 'sha256').hex()}"
            return _is_same(headers.get("x-hub-signature-256", ""), expected)
        case "stripe":
            fields = [each.strip().partition("=") for each in headers.get("stripe-signature", "").split(",")]
            at = next((value for key, _, value in fields if key == "t"), "")
            expected = hmac.digest(secret.encode(), f"{at}.".encode() + body, "sha256").hex()
            given = [value for key, _, value in fields if key == "v1"]
        case "standard":
            at, given = headers.get("webhook-timestamp", ""), headers.get("webhook-signature", "").split(" ")
            expected = signature(key_of(secret), headers.get("webhook-id", ""), int(at), body) if _is_number(at) else ""
    return _is_number(at) and abs(now_s - int(at)) <= SKEW_S_MAX and any(_is_same(each, expected) for each in given)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= TIMESTAMP_DIGITS_MAX


def _is_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
