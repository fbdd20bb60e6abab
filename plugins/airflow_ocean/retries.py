"""Which errors are worth another try, as a retry policy of Airflow built from the types in ``c2d.errors``."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryDecision, RetryRule

from airflow_ocean.c2d.errors import FatalError, TransientError

if TYPE_CHECKING:
    from airflow.sdk import Context

DEFAULT_RETRIES = 3
DEFAULT_FIRST_DELAY = timedelta(seconds=10)
LONGEST_DELAY = timedelta(minutes=10)


class OceanRetryPolicy(ExceptionRetryPolicy):
    """Retry transient errors with growing delays, fail at once on fatal ones, leave all others to Airflow.

    A delay that the other side asked for (``Retry-After``) is kept to when it is the longer one.

    :param first_delay: the wait before the first retry; it doubles with each further one
    """

    def __init__(self, first_delay: timedelta = DEFAULT_FIRST_DELAY) -> None:
        super().__init__(
            rules=[
                RetryRule(exception=TransientError, action=RetryAction.RETRY),
                RetryRule(exception=FatalError, action=RetryAction.FAIL),
            ]
        )
        self.first_delay = first_delay

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide as the rules say, and for a transient error how long to wait."""
        decision = super().evaluate(exception, try_number, max_tries, context)
        if not isinstance(exception, TransientError):
            return decision
        # A task that was cleared goes on counting its tries, and its most tries rise.
        before = max_tries - (context["task"].retries or 0) if context else 0
        doublings = min(max(try_number - before - 1, 0), 16)
        delay = min(self.first_delay * 2**doublings, max(LONGEST_DELAY, self.first_delay))
        if exception.retry_after is not None:
            delay = max(delay, timedelta(seconds=exception.retry_after))
        return RetryDecision.retry(
            delay, f"{type(exception).__name__}: trying again in {delay.total_seconds():.0f} s may help"
        )
