"""Answers that a provider goes on making while nobody waits for them.

Their call ends before they do, so its hold stays until somebody asks for the answer and it has ended; or, when nobody does,
until a deadline, at which it is booked at all that it held: what it cost, nobody has been told.
"""

from collections.abc import Sequence

from overwinter.frozen import replace
from overwinter.gateway.attempts import Seen
from overwinter.gateway.budget import Line
from overwinter.gateway.dialect import Asked
from overwinter.gateway.tap import Tap

__all__ = ["WAITING", "goes_on", "has_ended", "unknown", "waiting"]

WAITING = "background"
"""Status of the line of such a call, held meanwhile."""
UNDER_WAY = frozenset({"queued", "in_progress"})


def goes_on(asked: Asked, tries: Sequence[Seen]) -> bool:
    """Whether a provider goes on with an answer although the call for it has ended, by whatever."""
    if not asked.is_background or not tries:
        return False
    tap = tries[-1].tap
    return bool(tap.answer_id) and tap.error is None and not has_ended(tap)


def has_ended(tap: Tap) -> bool:
    """Whether an answer has come to its end, as far as was seen of it."""
    return tap.is_whole and tap.stop not in UNDER_WAY


def waiting(line: Line, last: Seen) -> Line:
    """Return the line of a call whose answer goes on: by whom, and under which name it is asked for."""
    return replace(
        line, state="held", status=WAITING, usage=None, cost_nusd=None, upstream=last.target.provider.name,
        priced_model=last.target.model, answer_id=last.tap.answer_id,
    )  # fmt: skip


def unknown(line: Line, status: str) -> Line:
    """Return the line of a call of which nobody says what it used: all that it held is spent."""
    return replace(line, state="unknown", status=status, cost_nusd=line.held_nusd)
