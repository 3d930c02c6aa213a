"""The runs of one worker that wait for a turn."""

import asyncio
from collections import deque

__all__ = ["Line"]


class Line:
    """Runs in line, each once: those that go on with an answer in hand, and the others, take turns.

    So under a backlog the runs that have begun also end, and what is held in memory for them (`worker.LEFT_MAX`,
    `effects.BY_HAND_MAX`) is held for a few turns; in one queue it was held until all others had begun, too. Neither
    kind can keep the other out.
    """

    def __init__(self) -> None:
        self._answered: deque[str] = deque()
        self._others: deque[str] = deque()
        self._members: set[str] = set()
        self._is_answered_next = True
        self._count = asyncio.Semaphore(0)

    def __len__(self) -> int:
        """Return how many runs are in line."""
        return len(self._members)

    def add(self, run_id: str, *, is_answered: bool) -> None:
        """Line a run up, unless it is in line."""
        if run_id in self._members:
            return
        self._members.add(run_id)
        (self._answered if is_answered else self._others).append(run_id)
        self._count.release()

    async def next(self) -> str:
        """Wait for a run and take it out of the line."""
        await self._count.acquire()
        is_answered = bool(self._answered) and (self._is_answered_next or not self._others)
        self._is_answered_next = not is_answered
        run_id = (self._answered if is_answered else self._others).popleft()
        self._members.discard(run_id)
        return run_id
