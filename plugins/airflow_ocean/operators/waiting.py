"""Waiting for an order that another job has, without holding a worker."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import AirflowRescheduleException
from airflow.sdk.execution_time.context import NEVER_EXPIRE

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_ocean.c2d.errors import OrderInUseError
    from airflow_ocean.operators.base import OceanBaseOperator

# How long to wait for an order altogether unless told otherwise, seconds.
ORDER_WAIT = 24 * 3600
# How often the job that has the order is looked at, seconds.
POLL_INTERVAL = 15.0
# When to look again whether a run that has claimed the order has started its job, seconds.
_RESCHEDULE_AFTER = 5.0


def defer_until_free(
    operator: OceanBaseOperator, context: Context, error: OrderInUseError, timeout: float, method_name: str
) -> NoReturn:
    """Give the worker back until the job that has the order is over; the task's method is then called with the event.

    As long as the job is not started there is nothing to wait for on the triggerer, and the task is rescheduled.

    :param error: says which job it is
    :param timeout: seconds to wait altogether, retries included; clearing the task begins anew
    :param method_name: of the operator
    :raises OrderInUseError: the given one, when the time is over
    """
    from airflow_ocean.triggers import OceanComputeTrigger

    store: Any = context["task_state_store"]
    # Clearing a task raises its max_tries, a retry does not.
    key = f"ocean.order_deadline.{context['ti'].max_tries}"
    deadline = store.get(key)
    if deadline is None:
        deadline = time.time() + timeout
        store.set(key, deadline, retention=NEVER_EXPIRE)
    if time.time() >= deadline:
        raise error
    operator.log.info("%s", error)
    if error.job_id and error.provider_url and error.consumer_address:
        operator.defer(
            trigger=OceanComputeTrigger(
                job_id=error.job_id,
                provider_url=error.provider_url,
                consumer_address=error.consumer_address,
                deadline=deadline,
                poll_interval=POLL_INTERVAL,
                ocean_conn_id=operator.ocean_conn_id,
            ),
            method_name=method_name,
        )
    raise AirflowRescheduleException(  # type: ignore[no-untyped-call]
        datetime.now(UTC) + timedelta(seconds=_RESCHEDULE_AFTER)
    )
