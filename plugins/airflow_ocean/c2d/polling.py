"""One poll for all that wait, on an event loop, for jobs of the same consumer at the same Provider."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
import random
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING

from airflow_ocean.c2d.errors import FatalError, RateLimitedError, TransientError
from airflow_ocean.c2d.poll_costs import PollCosts
from airflow_ocean.c2d.services import open_job_reader
from airflow_ocean.c2d.waits import JITTER, Trouble, Wait, pause_after

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_ocean.c2d.jobs import Job
    from airflow_ocean.c2d.services import JobReader

logger = logging.getLogger(__name__)

# Requests for single jobs that are under way at a time.
CONCURRENCY = 8
# A new poll begins when nobody has joined it for the first of these times, and after the second in any case: after a
# restart thousands join, one after another. In seconds; an interval is the most for both.
GATHERING, LONGEST_GATHERING = 0.2, 2.0
# Looks that are taken before their time because somebody's deadline comes are at least so far apart, in seconds.
DEADLINE_SPACING = 5.0
# So long, seconds, a service may be left alone before one that nobody has looked at yet gives up for its deadline.
LONGEST_PUT_OFF = 60.0
# After so many errors in a row a list is suspected to be what the service cannot do.
SUSPICIOUS = 3


@contextlib.contextmanager
def waiting(
    provider_url: str, consumer_address: str, job_id: str, *, interval: float, deadline: float
) -> Iterator[Wait]:
    """Take part in the poll of a Provider and consumer while the context lasts.

    The job's end is noticed within ``interval``; it takes longer only while the Provider fails, and when its answer takes
    more than half of the interval. A job is looked at once in any case, and a last time when the deadline has passed.

    :param consumer_address: who started the job, in checksum form
    :param interval: seconds between two looks; the smallest one of all that take part holds for their common list
    :param deadline: when to give up, in seconds since 1970
    """
    polls = _polls.setdefault(asyncio.get_running_loop(), {})
    key = (provider_url.rstrip("/"), consumer_address)
    poll = polls.get(key)
    if poll is None:
        poll = polls[key] = Poll(polls, key, job_id)
    wait = Wait(job_id, interval, deadline)
    poll.join(wait)
    try:
        yield wait
    finally:
        poll.leave(wait)


class Poll:
    """Looks at the jobs of one consumer at one Provider until nobody waits for one any more.

    :param polls: the polls of this event loop, which this one leaves when it ends
    :param key: Provider URL and consumer address
    :param job_id: the first job that is waited for
    """

    def __init__(self, polls: dict[tuple[str, str], Poll], key: tuple[str, str], job_id: str) -> None:
        self._polls, self._key, self._job_id = polls, key, job_id
        self._loop = asyncio.get_running_loop()
        self._waits: set[Wait] = set()
        self._costs = PollCosts()
        self._hurry = asyncio.Event()
        self._begun = self._last_join = self._loop.time()
        self._planned = self._last_look = -math.inf
        # The service's failure: how often in a row, until when to leave it alone, whether it asked for that.
        self._failures, self._quiet_until, self._limited = 0, -math.inf, False
        # Of its own context: what it logs belongs to no one of the tasks that wait.
        self._task = self._loop.create_task(
            self._run(), name=f"poll {key[1]} at {key[0]}", context=contextvars.Context()
        )

    # ------------------------------------------------------------------ who waits

    def join(self, wait: Wait) -> None:
        """Look after one more."""
        now = self._last_join = self._loop.time()
        if self._last_look > -math.inf:
            wait.due = now + wait.interval * (1 - random.uniform(0, JITTER))
        self._waits.add(wait)
        # Nobody's deadline hurries it more than the first one's, however many join after theirs has passed.
        spacing = min(wait.interval / 2, DEADLINE_SPACING)
        if min(wait.due, max(self._clock(wait.deadline), self._last_look + spacing)) < self._planned:
            self._hurry.set()

    def leave(self, wait: Wait) -> None:
        """Look after one less, and end when it was the last one."""
        self._waits.discard(wait)
        if not self._waits:
            self._forget()
            self._task.cancel()

    def _forget(self) -> None:
        if self._polls.get(self._key) is self:
            del self._polls[self._key]

    def _clock(self, deadline: float) -> float:
        """Return a time since 1970 on the event loop's clock."""
        return self._loop.time() + deadline - time.time()

    # ------------------------------------------------------------------ when to look

    async def _run(self) -> None:
        try:
            async with open_job_reader(*self._key, self._job_id) as reader:
                await self._gather()
                while self._waits:
                    await self._look(reader)
                    await self._pause()
                self._forget()
        except Exception as error:
            # Everyone has to learn of it; a poll that died in silence would be waited for until the deadlines.
            logger.exception("The poll of jobs of %s at %s failed", self._key[1], self._key[0])
            self._forget()
            for wait in self._waits:
                wait.put(RuntimeError(f"the poll of job {wait.job_id} at {self._key[0]} failed: {error!r}"))

    async def _gather(self) -> None:
        while self._waits:
            interval = self._interval()
            quiet = self._last_join + min(GATHERING, interval)
            left = min(quiet, self._begun + min(LONGEST_GATHERING, interval)) - self._loop.time()
            if left <= 0:
                return
            await asyncio.sleep(left)

    async def _pause(self) -> None:
        while self._waits and (left := self._next_look() - self._loop.time()) > 0:
            self._hurry.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), left)

    def _interval(self) -> float:
        return min(wait.interval for wait in self._waits)

    def _next_look(self) -> float:
        """Return when the next look is due, on the loop's clock."""
        due = max(min(wait.due for wait in self._waits), self._quiet_until)
        deadline = min(
            max(self._clock(wait.deadline), self._quiet_until)
            if self._is_put_off(wait)
            else self._clock(wait.deadline)
            for wait in self._waits
        )
        if not self._limited:
            deadline = max(deadline, self._last_look + min(self._interval() / 2, DEADLINE_SPACING))
        self._planned = min(due, deadline)
        return self._planned

    # ------------------------------------------------------------------ looking

    async def _look(self, reader: JobReader) -> None:
        # The two clocks do not agree to the last digit.
        now, clock = self._loop.time(), time.time() + 0.001
        # Whoever comes while the service is asked has not been looked at yet, whatever its deadline.
        ending = {wait for wait in self._waits if wait.deadline <= clock}
        if not (self._limited and now < self._quiet_until):
            self._last_look = now
            interval = self._interval()
            soon = now + interval * JITTER
            due = [
                wait
                for wait in self._waits
                if max(wait.due, self._quiet_until) <= soon or wait.deadline <= clock
            ]
            singles = math.fsum(1 / wait.interval for wait in self._waits)
            if self._costs.prefer_list(1 / interval, singles, now):
                await self._look_at_list(reader, due)
            else:
                await self._look_at_each(reader, due)
        for wait in ending & self._waits:
            if not self._is_put_off(wait):
                self._end(wait, None)

    def _is_put_off(self, wait: Wait) -> bool:
        """Whether a wait gets its look after the deadline, as the service does not want to be asked for a while."""
        return (
            self._limited
            and wait.seen == -math.inf
            and wait.refused < 2
            and self._quiet_until - self._loop.time() <= LONGEST_PUT_OFF
        )

    async def _look_at_list(self, reader: JobReader, due: list[Wait]) -> None:
        suspected = self._failures >= SUSPICIOUS
        if suspected and not await self._look_at_each(reader, due, first_only=True):
            return
        waits = list(self._waits)
        started = self._loop.time()
        try:
            answer = await reader.fetch_jobs({wait.job_id for wait in waits})
        except TransientError as error:
            if suspected and not isinstance(error, RateLimitedError):
                self._costs.refuse_list(started)
                await self._look_at_each(reader, due)
            else:
                self._fail(error, waits)
            return
        except FatalError as error:
            logger.info("%s does not list the jobs of %s: %s", *self._key, error)
            self._costs.refuse_list(started)
            await self._look_at_each(reader, due)
            return
        self._costs.note_list(self._loop.time() - started, answer.size, started)
        self._recover()
        due_at = _Due(started, self._loop.time())
        for wait in waits:
            if (found := answer.jobs.get(wait.job_id)) is not None:
                self._tell(wait, found, due_at)
        missing = [wait for wait in waits if wait.job_id not in answer.jobs]
        if missing and await self._look_at_each(reader, missing):
            logger.info("%s does not list all jobs of %s", *self._key)
            self._costs.refuse_list(started)

    async def _look_at_each(self, reader: JobReader, waits: list[Wait], *, first_only: bool = False) -> int:
        """Ask for jobs one by one and return how many the service knows.

        :param first_only: whether it is enough to know that the service answers; it must have failed before
        """
        # Where not all requests pass, those come first who had to stand back the last time.
        round_ = _Round(sorted(waits, key=lambda wait: wait.seen))
        if self._failures:
            # One request tells whether the service is back.
            await self._ask(reader, round_, 1)
        if round_.error is None and not first_only:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(CONCURRENCY, len(round_.left))):
                    group.create_task(self._ask(reader, round_, len(waits)))
        if round_.limited is not None:
            self._costs.refuse_singles(self._loop.time())
        if round_.answered:
            self._recover()
        error = round_.limited or (None if round_.answered else round_.error)
        if error is not None:
            self._fail(error, round_.unanswered())
            return round_.found
        for wait, trouble in round_.troubled:
            wait.seen = self._loop.time()
            wait.failures += 1
            pause = pause_after(wait.failures, wait.interval, trouble)
            wait.due = wait.seen + pause
            wait.put(Trouble(trouble, pause))
        return round_.found

    async def _ask(self, reader: JobReader, round_: _Round, most: int) -> None:
        for _ in range(most):
            if not round_.left or round_.failed:
                return
            job_id = round_.left.popleft()
            waits, started = round_.waits[job_id], self._loop.time()
            try:
                answer = await reader.fetch_job(job_id)
            except TransientError as error:
                round_.note_error(error, waits)
                continue
            except FatalError as error:
                found: Job | FatalError = error
            else:
                found = answer.jobs[job_id]
                round_.found += 1
                self._costs.note_single(self._loop.time() - started, answer.size, started)
            round_.answered += 1
            for wait in waits:
                self._tell(wait, found, _Due(started, self._loop.time()))

    # ------------------------------------------------------------------ telling

    def _tell(self, wait: Wait, found: Job | FatalError, due_at: _Due) -> None:
        wait.failures = 0
        wait.seen = self._loop.time()
        wait.due = due_at.after(wait.interval)
        if isinstance(found, FatalError) or found.is_finished:
            self._end(wait, found)
        elif found.state != wait.state:
            wait.state = found.state
            wait.put(found)

    def _end(self, wait: Wait, last: Job | FatalError | None) -> None:
        if wait in self._waits:
            self._waits.remove(wait)
            wait.put(last)

    def _recover(self) -> None:
        self._failures, self._quiet_until, self._limited = 0, -math.inf, False

    def _fail(self, error: TransientError, waits: Iterable[Wait]) -> None:
        """Leave the service alone for a while."""
        self._failures += 1
        pause = pause_after(self._failures, self._interval() if self._waits else 0.0, error)
        self._limited = isinstance(error, RateLimitedError)
        self._quiet_until = self._loop.time() + pause
        trouble = Trouble(error, pause)
        for wait in waits:
            wait.refused += self._limited
            wait.due = self._quiet_until
            wait.put(trouble)


class _Due:
    """When the next look is due after one that took its time, with the same jitter for all that it showed."""

    def __init__(self, started: float, ended: float) -> None:
        self._started, self._part = started, 1 - random.uniform(0, JITTER)
        # A service that is slow to answer is asked for half of the time at most.
        self._earliest = ended + (ended - started)

    def after(self, interval: float) -> float:
        return max(self._started + interval * self._part, self._earliest)


class _Round:
    """Requests for single jobs, several at a time."""

    def __init__(self, waits: list[Wait]) -> None:
        self.waits: dict[str, list[Wait]] = {}
        for wait in waits:
            self.waits.setdefault(wait.job_id, []).append(wait)
        self.left = deque(self.waits)
        self.answered = self.found = 0
        self.limited: RateLimitedError | None = None
        self.error: TransientError | None = None
        self.troubled: list[tuple[Wait, TransientError]] = []
        self._errors = 0

    @property
    def failed(self) -> bool:
        """Whether there is no point in going on: that many errors are the service's and not those of single jobs."""
        return self.limited is not None or (
            not self.answered and self._errors >= min(CONCURRENCY, len(self.waits))
        )

    def note_error(self, error: TransientError, waits: list[Wait]) -> None:
        self._errors += 1
        self.error = error
        self.troubled += [(wait, error) for wait in waits]
        if isinstance(error, RateLimitedError):
            self.limited = error

    def unanswered(self) -> list[Wait]:
        return [wait for wait, _ in self.troubled] + [wait for job in self.left for wait in self.waits[job]]


_polls: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], Poll]] = (
    weakref.WeakKeyDictionary()
)
