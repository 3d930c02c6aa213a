"""Instants of the calendar: five fields as cron reads them, in a zone with its summer time.

A local time that a change of the clock leaves out is the first one after the gap; one that comes twice counts once, the first time. A line with
`*` in its minutes or hours goes by time that passes. That is how Debian's cron has it, and `cronsim`, which counts here. Where both days are given, day of the month and day of the week, either will do.
"""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from overwinter.clock import SECOND_US
from overwinter.errors import UsageError

__all__ = ["following", "local"]

FIELDS = 5
WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


def following(cron: str, zone: str, after_us: int) -> int | None:
    """Return the first instant after one, microseconds UTC; None: there is none in the next fifty years.

    Raises:
        UsageError: the fields or the zone are none.
    """
    fields = WORDS.get(cron.strip(), cron)
    if len(fields.split()) != FIELDS:
        raise UsageError(
            f"{cron!r} is no cron line: minute hour day-of-month month day-of-week, or one of {', '.join(WORDS)}"
        )
    after = datetime.fromtimestamp(after_us // SECOND_US, UTC).astimezone(_zone(zone))
    try:
        return round(next(CronSim(fields.upper(), after)).timestamp()) * SECOND_US
    except CronSimError as error:
        raise UsageError(f"{cron!r} is no cron line: {str(error).lower()}") from error
    except StopIteration:
        return None


def local(text: str, zone: str) -> int:
    """Return the instant of a local time, as `2026-12-01T09:00`; one with its own offset keeps it.

    One that the zone leaves out is the first instant after the gap; of one that comes twice it is the first.

    Raises:
        UsageError: it is none.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no time: write 2026-12-01T09:00") from error
    if at.tzinfo is not None:
        return round(at.timestamp()) * SECOND_US
    before, after = (round(at.replace(tzinfo=_zone(zone), fold=fold).timestamp()) for fold in (0, 1))
    # PEP 495: in a gap the offset of fold 0 is that before it, so its instant is the later one; the gap lies between the two.
    return (before if before <= after else _changed(after, before, _zone(zone))) * SECOND_US


def _changed(low: int, high: int, zone: ZoneInfo) -> int:
    """Return the second at which a zone changes its offset: after `low`, at `high` at the latest."""
    old = datetime.fromtimestamp(low, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if datetime.fromtimestamp(middle, zone).utcoffset() == old else (low, middle)
    return high


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"{name!r} is no time zone: write one of the IANA database, such as Europe/Berlin") from error
