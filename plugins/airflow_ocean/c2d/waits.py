"""One that waits for a job, what it is told, and how long to pause after errors."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_ocean.c2d.errors import TransientError
    from airflow_ocean.c2d.jobs import Job

# The longest pause after an error, in seconds, unless the service or the interval asks for a longer one.
LONGEST_PAUSE = 300.0
# Nobody looks more often, in seconds: one look serves all that wait for the same wallet's jobs.
SHORTEST_INTERVAL = 0.1
# Pauses are up to this part shorter than the interval, so that several processes do not ask at the same time for ever.
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error that may pass.

    :param pause: seconds until the next look
    """

    error: TransientError
    pause: float


class Wait:
    """One that waits for a job."""

    __slots__ = (
        "_future", "_news", "deadline", "due", "failures", "interval", "job_id", "refused", "seen", "state",
    )  # fmt: skip

    def __init__(self, job_id: str, interval: float, deadline: float) -> None:
        self.job_id, self.deadline = job_id, deadline
        self.interval = max(interval, SHORTEST_INTERVAL)
        # When the next look is due and when the last one was, on the loop's clock.
        self.due = self.seen = -math.inf
        self.state: int | None = None
        self.failures = 0
        # How often its look was refused, as the service wants fewer requests.
        self.refused = 0
        self._news: list[Job | Trouble | Exception | None] = []
        self._future: asyncio.Future[None] | None = None

    async def news(self) -> Job | Trouble | None:
        """Return what is new: the job when its state has changed or it is over, an error, or None after the deadline.

        :raises FatalError: when waiting on makes no sense
        """
        while not self._news:
            self._future = asyncio.get_running_loop().create_future()
            try:
                await self._future
            finally:
                self._future = None
        news = self._news.pop(0)
        if isinstance(news, Exception):
            raise news
        return news

    def put(self, news: Job | Trouble | Exception | None) -> None:
        """Hand on what is new."""
        self._news.append(news)
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


def pause_after(failures: int, interval: float, error: TransientError) -> float:
    """Return how long to pause after some errors in a row, in seconds."""
    pause = min(interval * 2.0 ** min(failures, 10), max(LONGEST_PAUSE, interval))
    pause *= 1 - random.uniform(0, JITTER)
    if error.retry_after is not None and error.retry_after > pause:
        pause = error.retry_after * (1 + random.uniform(0, JITTER))
    return pause
