"""Time as the kernel sees it: an argument, never a global."""

import time
from typing import Protocol

import anyio

__all__ = ["DAY_US", "RETRY_AFTER_S_MAX", "SECOND_US", "Clock", "SystemClock"]

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
RETRY_AFTER_S_MAX = 86_400.0
"""Longest pause that a service or a provider may ask for: what it says is not to be trusted with a run's life."""


class Clock(Protocol):
    """Wall time in microseconds since 1970-01-01 UTC, and a way to wait for it."""

    def now_us(self) -> int:
        """Return the present instant."""
        ...

    async def sleep_until(self, instant_us: int) -> None:
        """Return at `instant_us` or shortly after; at once if it has passed."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        """Return the present instant."""
        return time.time_ns() // 1_000

    async def sleep_until(self, instant_us: int) -> None:
        """Wait in slices of at most a minute, so that a clock that is set or a machine that slept is noticed."""
        while (left_us := instant_us - self.now_us()) > 0:  # noqa: ASYNC110 - time itself is what is waited for
            await anyio.sleep(min(left_us / SECOND_US, 60.0))
