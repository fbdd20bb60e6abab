"""What status requests cost, as measured, and which kind of them is cheaper now."""

from __future__ import annotations

import logging
import math

logger = logging.getLogger(__name__)

# A measurement's age, in seconds, after which it is made again: histories grow, and a Provider is not always as slow.
KEPT = 600.0
# One cost of time and bytes, in seconds: a request as such, which counts for rate limits whatever it asks, its time, and
# its bytes at what a usual line carries.
REQUEST = 0.1
BYTES_PER_SECOND = 10_000_000
# The other kind must be so much cheaper to be worth a change.
WORTH_A_CHANGE = 0.8


class _Cost:
    """The least of what was measured of late: what disturbs a measurement only ever adds to it."""

    def __init__(self) -> None:
        self._value: float | None = None
        self._since = 0.0
        self.count = 0

    def note(self, value: float, now: float) -> None:
        """Take in a new measurement; an infinite one stands alone."""
        known = self.get(now)
        if known is None or math.isinf(known) or math.isinf(value):
            self._value, self._since, self.count = value, now, 1
        else:
            self._value, self.count = min(known, value), self.count + 1

    def get(self, now: float) -> float | None:
        """Return the cost, None when there is no measurement of late."""
        return self._value if now - self._since <= KEPT else None


class PollCosts:
    """Chooses between one list of all jobs and a request for each job.

    The list holds every job the consumer ever had, so it is dear where few are waited for after many that are over.
    Times are seconds on any clock that runs on.
    """

    def __init__(self) -> None:
        self._list, self._single = _Cost(), _Cost()
        self._lists = False

    def note_list(self, seconds: float, size: int, now: float) -> None:
        """Note what a list took.

        :param size: bytes of the answer
        """
        self._list.note(_cost(seconds, size), now)

    def note_single(self, seconds: float, size: int, now: float) -> None:
        """Note what the answer about one job took."""
        self._single.note(_cost(seconds, size), now)

    def refuse_list(self, now: float) -> None:
        """Note that the service does not list, or not rightly."""
        self._list.note(math.inf, now)

    def refuse_singles(self, now: float) -> None:
        """Note that the service does not bear so many requests."""
        self._single.note(math.inf, now)

    def prefer_list(self, lists: float, singles: float, now: float) -> bool:
        """Say whether to list.

        :param lists: requests a second if jobs are listed
        :param singles: requests a second if they are asked for one by one
        """
        by_single = self._single.get(now)
        by_single = REQUEST if by_single is None else by_single
        by_list = self._list.get(now)
        if by_list is None:
            # Tried as soon as it may be cheaper; it has one job at least.
            by_list = REQUEST if math.isinf(by_single) else by_single
        chosen = self._choose(by_list * lists, by_single * singles, alone=singles <= lists)
        if math.isinf(by_list):
            chosen = False
        if chosen != self._lists:
            logger.debug(
                "Asking for %s from now on; a list costs %.3f, a single job %.3f",
                "the list of jobs" if chosen else "each job",
                by_list,
                by_single,
            )
        self._lists = chosen
        return chosen

    def _choose(self, by_list: float, by_single: float, *, alone: bool) -> bool:
        if alone:
            return False
        if self._lists:
            # Once is not enough: a first request may be slow for reasons of its own.
            return self._list.count < 2 or not by_single < WORTH_A_CHANGE * by_list
        return by_list < WORTH_A_CHANGE * by_single


def _cost(seconds: float, size: int) -> float:
    return REQUEST + seconds + size / BYTES_PER_SECOND
