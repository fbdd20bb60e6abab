"""What the sensors have in common: their connection, their retries, and a time-out that no restart extends."""

from __future__ import annotations

import math
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import (
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
)
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.c2d.waits import SHORTEST_INTERVAL
from airflow_ocean.hooks import OceanHook
from airflow_ocean.retries import DEFAULT_FIRST_DELAY, DEFAULT_RETRIES, OceanRetryPolicy

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context, RetryPolicy


class OceanBaseSensor(BaseSensorOperator):
    """A sensor with a connection, retries on transient errors, and a ``timeout`` that holds for all tries together.

    :param ocean_conn_id: (templated) the connection of the wallet that started the job
    :param poke_interval: seconds between two looks, 0.1 or more
    :param timeout: seconds to wait altogether, retries included; clearing the task begins anew
    :param retries: how often to try again after a transient error
    :param retry_delay: the wait before the first retry, doubled with each further one
    :param retry_policy: which errors to retry; by default transient ones, while fatal ones fail at once
    :raises InvalidInputError: when ``poke_interval`` is too short
    """

    def __init__(
        self,
        *,
        ocean_conn_id: str = OceanHook.default_conn_name,
        retries: int = DEFAULT_RETRIES,
        retry_delay: timedelta | float = DEFAULT_FIRST_DELAY,
        retry_policy: RetryPolicy | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, retry_delay=retry_delay, retry_policy=retry_policy, **kwargs)
        if retry_policy is None:
            # Set afterwards, when Airflow has made a timedelta of the delay.
            self.retry_policy = OceanRetryPolicy(self.retry_delay)
        if self.poke_interval < SHORTEST_INTERVAL:
            raise InvalidInputError(
                f"poke_interval must be {SHORTEST_INTERVAL} or more seconds, not {self.poke_interval}; "
                "tasks of one wallet share their looks, so it would be everybody's"
            )
        self.ocean_conn_id = ocean_conn_id

    @cached_property
    def hook(self) -> OceanHook:
        """The hook of the sensor's connection."""
        return OceanHook(self.ocean_conn_id)

    def deadline(self, context: Context) -> float:
        """Return when to give up, in seconds since 1970: what the first try said, so that no restart extends it."""
        store: Any = context["task_state_store"]
        key = until_cleared("deadline", context)
        deadline = store.get(key)
        if deadline is None:
            deadline = time.time() + self.timeout
            store.set(key, deadline, retention=NEVER_EXPIRE)
        return float(deadline)

    def poke_until(self, deadline: float, context: Context) -> Any:
        """Poke from the worker until it is over, or time is: Airflow begins to count with each try anew.

        :param deadline: seconds since 1970
        :raises AirflowSensorTimeout: when time is over
        :raises AirflowSkipException: likewise, with ``soft_fail``
        """
        altogether = self.timeout
        self.timeout = math.inf if self.reschedule else max(deadline - time.time(), 0.0)
        try:
            return super().execute(context)
        except AirflowRescheduleException:
            if time.time() < deadline:
                raise
        message = f"it is not over after {altogether:.0f} s, retries included"
        raise AirflowSkipException(message) if self.soft_fail else AirflowSensorTimeout(message)


def until_cleared(name: str, context: Context) -> str:
    """Return a key for the task state store under which retries find what was kept, and a cleared task does not."""
    # Clearing a task raises its max_tries, a retry does not.
    return f"ocean.{name}.{context['ti'].max_tries}"
