"""Whom a rule asks, how many of them and for how long: its annotations `@approver`, `@quorum` and `@expires`."""

import re
from collections.abc import Mapping

from overwinter.approval import Need, named

__all__ = ["lasts_s", "misasked", "need"]

SECONDS: Mapping[str, int] = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
LASTS_S_MAX = 3_650 * 86_400


def need(annotations: Mapping[str, str], owner: str) -> Need:
    """Return whose yes a rule needs. An owner is one person, whatever stands in the name."""
    return Need(named(annotations.get("approver", "")) or (owner,), int(annotations.get("quorum", "1")))


def lasts_s(annotations: Mapping[str, str]) -> int | None:
    """Return how long people have to answer; None: they may whenever they like."""
    found = re.fullmatch(r"(\d+)([smhd])", annotations.get("expires", ""), re.ASCII)
    return int(found[1]) * SECONDS[found[2]] if found else None


def misasked(annotations: Mapping[str, str]) -> str:
    """Say what is wrong with the three; "" if nothing. A number that cannot be reached would never let a call through."""
    quorum, people = annotations.get("quorum"), len(named(annotations.get("approver", ""))) or 1
    if quorum is not None and not (re.fullmatch(r"[1-9]\d{0,3}", quorum, re.ASCII) and int(quorum) <= people):
        return f'@quorum("{quorum}") is no number of people from 1 to {people}, whom @approver names'
    if "expires" in annotations and not 0 < (lasts_s(annotations) or 0) <= LASTS_S_MAX:
        return f'@expires("{annotations["expires"]}") is no length of time: write 7d, 4h, 30m or 10s'
    return ""
