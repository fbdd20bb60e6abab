"""What the sensors have in common beside what all operators have: a time-out that no restart extends."""

from __future__ import annotations

import math
import time
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
from airflow_ocean.operators.base import OceanBaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class OceanBaseSensor(OceanBaseOperator, BaseSensorOperator):
    """A sensor whose ``timeout`` holds for all tries together.

    :param poke_interval: seconds between two looks, 0.1 or more
    :param timeout: seconds to wait altogether, retries included; clearing the task begins anew
    :raises InvalidInputError: when ``poke_interval`` is too short
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.poke_interval < SHORTEST_INTERVAL:
            raise InvalidInputError(
                f"poke_interval must be {SHORTEST_INTERVAL} or more seconds, not {self.poke_interval}; "
                "tasks of one wallet share their looks, so it would be everybody's"
            )

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
